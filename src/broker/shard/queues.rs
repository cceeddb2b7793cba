//! The queues of a shard and what is asked of them: made, adopted, configured, commanded, removed; and their answers.

use std::mem;
use std::sync::Arc;

use crate::model::entity::Queue;
use crate::model::exception::Exception;
use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId, Timestamp};
use crate::model::names::UserName;
use crate::model::request::{Answer, Event, Internal};
use crate::queue::{Command, Durability, Fifo, QueueCounts, Refusal, Reply};

use super::super::envelope::AskKind;
use super::super::link::{Link, LinkGate};
use super::super::topology::Topology;
use super::{Leaving, OwnedQueue, Removed, Shard, note_held, numbers, watch};

impl Shard {
    pub(super) fn create(&mut self, queue: Arc<Queue>, ask: Option<ChannelRef>, now: Timestamp) {
        let durability = if queue.durable { Durability::Durable } else { Durability::Transient };
        let machine = Fifo::new(Arc::new(queue.options.clone()), durability, now);
        if let Some(channel) = ask {
            let answer = Answer::QueueDeclared { queue: queue.name.clone(), ready: 0, consumers: 0 };
            self.answer(&queue, channel.connection, Event::Answer { channel, answer });
        }
        self.adopt(queue, machine);
    }

    pub(super) fn adopt(&mut self, queue: Arc<Queue>, machine: Fifo) {
        let id = queue.id;
        let marked = machine.delivered_through();
        let owned = OwnedQueue {
            marked,
            last_record: machine.next_index() - 1,
            recording: false,
            recorded: queue.durable,
            waiting: Vec::new(),
            alarm: None,
            turn: 0,
            held: 0,
            dying: 0,
            leaving: None,
            definition: queue,
            machine,
        };
        self.queues.insert(id, owned);
        self.dirty.push(id);
    }

    pub(super) fn command(
        &mut self,
        queue: QueueId,
        command: Command,
        ask: Option<(ChannelRef, AskKind)>,
        now: Timestamp,
        topology: &Topology,
    ) {
        let Some(owned) = self.queues.get_mut(&queue) else { return self.missing(ask) };
        if owned.leaving.is_some() && ask.is_some() {
            return owned.waiting.push((command, ask));
        }
        match &command {
            Command::Subscribe(subscription) => note_consumer(&mut self.links, subscription.consumer, queue),
            Command::Get { holder, .. } => note_queue(&mut self.links, *holder, queue),
            Command::Settle { indexes, .. } => self.work += indexes.len().saturating_sub(1),
            Command::Enqueue(_)
            | Command::Cancel(_)
            | Command::Purge
            | Command::Delete { .. }
            | Command::ChannelDown(_)
            | Command::ConnectionDown(_)
            | Command::Resume(_)
            | Command::Touch
            | Command::Configure(_)
            | Command::Tick
            | Command::Loaded { .. } => {}
        }
        let again = matches!(command, Command::Get { .. }).then(|| command.clone());
        let before = watch::changes_consumers(&command, topology).then(|| owned.machine.consumers());
        let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
        let reply = owned.machine.apply(now, command, &mut gate, &mut self.effects);
        if let (Reply::Later, Some(command)) = (&reply, again) {
            owned.waiting.push((command, ask));
            return self.after(queue, now, topology);
        }
        let deleted = matches!(reply, Reply::Deleted(_));
        if deleted && owned.dying > 0 {
            let effects = mem::take(&mut self.effects);
            owned.leaving = Some(Leaving { answer: Some((reply, ask)), effects, ..Leaving::default() });
            let user = self.asker(ask);
            if let Some(before) = before {
                self.note_consumers(queue, &before, deleted);
            }
            return self.remove(queue, user);
        }
        let definition = Arc::clone(&owned.definition);
        if topology.has_tracing
            && let (Reply::Got { message, redelivered, .. }, Some((channel, _))) = (&reply, ask)
        {
            self.trace(queue, (channel.connection, channel.number), (message, *redelivered), now, topology);
        }
        self.reply(&definition, reply, ask);
        self.after(queue, now, topology);
        if let Some(before) = before {
            self.note_consumers(queue, &before, deleted);
        }
        if deleted {
            self.remove(queue, self.asker(ask));
        }
    }

    /// Asks a queue again what had to wait for a part of the log.
    pub(super) fn ask_again(&mut self, queue: QueueId, now: Timestamp, topology: &Topology) {
        let waiting = self.queues.get_mut(&queue).map(|owned| mem::take(&mut owned.waiting)).unwrap_or_default();
        for (command, ask) in waiting {
            self.command(queue, command, ask, now, topology);
        }
    }

    /// The askers are gone.
    pub(super) fn forget_waiting(&mut self, queue: QueueId, gone: impl Fn(ChannelRef) -> bool) {
        if let Some(owned) = self.queues.get_mut(&queue) {
            owned.waiting.retain(|(_, ask)| !ask.is_some_and(|(asker, _)| gone(asker)));
        }
    }

    pub(super) fn configure(&mut self, queue: Arc<Queue>, now: Timestamp, topology: &Topology) {
        let id = queue.id;
        let Some(owned) = self.queues.get_mut(&id) else { return };
        let options = Arc::new(queue.options.clone());
        owned.definition = queue;
        self.command(id, Command::Configure(options), None, now, topology);
    }

    pub(super) fn missing(&mut self, ask: Option<(ChannelRef, AskKind)>) {
        let Some((channel, kind)) = ask else { return };
        let event = match kind {
            AskKind::Delete => Event::Answer { channel, answer: Answer::Messages(0) },
            // The session looks for the queue again and finds it gone.
            AskKind::Declare | AskKind::Inspect | AskKind::Consume | AskKind::Other => {
                Event::Internal(Internal::DeclareAgain { channel })
            }
        };
        self.tell(channel.connection, event);
    }

    pub(super) fn reply(&mut self, queue: &Queue, reply: Reply, ask: Option<(ChannelRef, AskKind)>) {
        let Some((channel, kind)) = ask else { return };
        let (name, vhost) = (&queue.name, &queue.vhost);
        let answer = match reply {
            Reply::None | Reply::Subscribed | Reply::Cancelled | Reply::Kept { .. } | Reply::Later => Ok(Answer::Done),
            Reply::NotFound => return self.missing(ask),
            Reply::Refused(Refusal::ExclusiveUse) => {
                Err(Exception::access_refused(format!("queue '{name}' in vhost '{vhost}' in exclusive use")))
            }
            Reply::Got { index, redelivered, message, ready } => {
                Ok(Answer::Got { queue: queue.id, index, redelivered, message, ready })
            }
            Reply::Empty => Ok(Answer::Empty),
            Reply::Purged(count) | Reply::Deleted(count) => Ok(Answer::Messages(count)),
            Reply::InUse => Err(Exception::precondition_failed(format!("queue '{name}' in vhost '{vhost}' in use"))),
            Reply::NotEmpty => {
                Err(Exception::precondition_failed(format!("queue '{name}' in vhost '{vhost}' not empty")))
            }
            Reply::Counts(QueueCounts { ready, consumers, .. }) => {
                assert!(matches!(kind, AskKind::Declare | AskKind::Inspect), "who declares is told of the queue");
                Ok(Answer::QueueDeclared { queue: name.clone(), ready, consumers })
            }
        };
        match answer {
            Ok(answer @ (Answer::Messages(_) | Answer::QueueDeclared { .. })) => {
                self.answer(queue, channel.connection, Event::Answer { channel, answer });
            }
            Ok(answer) => self.tell(channel.connection, Event::Answer { channel, answer }),
            Err(exception) => self.tell(channel.connection, Event::Exception { channel: Some(channel), exception }),
        }
    }

    /// Removes a queue that has ended, as soon as no letter of a message that died in it is under way.
    pub(super) fn remove(&mut self, queue: QueueId, user: Option<UserName>) {
        if let Some(owned) = self.queues.get_mut(&queue).filter(|owned| owned.dying > 0) {
            owned.leaving.get_or_insert_default().user = user;
            return;
        }
        let Some(owned) = self.queues.remove(&queue) else { return };
        for (_, ask) in owned.waiting {
            self.missing(ask);
        }
        self.pageable.remove(&queue);
        self.ahead.remove(&queue);
        if let Some(at) = owned.alarm {
            self.alarms.remove(&(at, queue));
        }
        note_held(&mut self.held, owned.held, 0);
        // The sum over removed queues takes up what is to be seen now.
        numbers::publish_counters(&owned.definition, owned.machine.tally());
        self.output.removed.push(Removed { queue: owned.definition, user, recorded: owned.recorded });
    }
}

pub(super) fn note_queue(links: &mut IdMap<ConnectionId, Link>, consumer: ConsumerId, queue: QueueId) {
    if let Some(link) = links.get_mut(&consumer.connection) {
        link.queues.insert(queue);
    }
}

pub(super) fn note_consumer(links: &mut IdMap<ConnectionId, Link>, consumer: ConsumerId, queue: QueueId) {
    if let Some(link) = links.get_mut(&consumer.connection) {
        link.queues.insert(queue);
        link.consumers.insert(consumer, queue);
    }
}
