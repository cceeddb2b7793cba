//! A shard: the owner of a set of queues. It has one inbox and one turn: drain, apply, carry out effects, hand out.
//!
//! A turn is synchronous and touches nothing but the shard and its output, so whoever brings work may run it, and a test
//! can run it in any order. A dead letter is an effect that comes back as a publish; no queue ever calls another.
//!
//! What a turn has for the log is one batch. A queue delivers at once; whatever promises durability (confirms, answers
//! about durable queues) is held back with the batch and goes out when the batch is on the disk.

mod watch;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use crate::log::{Batch, Head, LogId, Range};
use crate::model::entity::Queue;
use crate::model::exception::Exception;
use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, QueueId, Timestamp};
use crate::model::message::Message;
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::request::{Answer, DeliverEvent, Event, Internal};
use crate::model::statistics::{ConnectionRecord, QueueNumber};
use crate::queue::{
    Command, Counts, DeathHistory, Delivery, Durability, Effect, Fifo, IndexRange, Loaded, Origin, Publish, Reason,
    Refusal, Reply, Tally, Verdict, dead_letter,
};
use crate::routing::{Facts, QueueTarget, Targets};

use super::events::Notice;
use super::journal::{Held, Submission};
use super::link::{ChannelLimit, Link, LinkGate};
use super::outbox::Outbox;
use super::stored;
use super::topology::Topology;

/// Envelopes handled in one turn; the rest waits for the next.
const TURN_MAX: usize = 16 * 1024;
/// Bytes for the log after which a turn ends, so that no batch takes long to write.
const TURN_LOG_BYTES: usize = 1024 * 1024;
/// Memory of a queue's messages above which those that would have no record may get one, so that they can leave it; with a
/// small budget less.
const RECORDING_MIN: u64 = 1024 * 1024;
/// Recent-history exchanges keep at most this many messages, whatever their argument says.
const HISTORY_MAX: usize = 10_000;

/// One thing for a shard to do.
#[derive(Debug)]
pub(super) enum Envelope {
    Enqueue {
        queue: QueueId,
        publish: Publish,
        /// The record that this dead letter comes from.
        source: Option<Arc<Source>>,
    },
    Command {
        queue: QueueId,
        command: Command,
        ask: Option<(ChannelRef, AskKind)>,
    },
    /// A new queue; answered like a declaration.
    Create {
        queue: Arc<Queue>,
        ask: Option<ChannelRef>,
    },
    /// A session introduces itself before anything else it sends.
    Attach {
        connection: ConnectionId,
        outbox: Arc<Outbox>,
        record: Arc<ConnectionRecord>,
    },
    /// The end of a session's batch: its publishes of this many bytes are taken.
    Taken {
        outbox: Arc<Outbox>,
        bytes: usize,
    },
    /// The channel-wide limit of a channel; none removes it.
    Limit {
        connection: ConnectionId,
        channel: u16,
        limit: Option<Arc<ChannelLimit>>,
    },
    /// Delivery credit returned, or room under a channel-wide limit was made in another shard.
    Resume(ConnectionId),
    /// Ends a consumer, whichever queue it is on.
    CancelConsumer(ConsumerId),
    /// Ends a channel's consumers, requeues what it holds, and reports `Joined`.
    ChannelDown(ChannelRef),
    /// Ends everything of the connection and reports `ShardDown`.
    ConnectionDown(ConnectionId),
    /// Reports `Joined` once all before it is done.
    Join(ChannelRef),
    /// Reports `Joined` once all before it is done, and durable as far as it is to be.
    JoinDurably(ChannelRef),
    /// A durable queue as the log had it.
    Adopt {
        queue: Arc<Queue>,
        machine: Box<Fifo>,
    },
    /// What a queue asked the log for.
    Loaded {
        queue: QueueId,
        first: u64,
        last: u64,
        entries: Vec<Loaded>,
    },
    /// Records up to the index can be read back.
    Flushed(Vec<(QueueId, MessageIndex)>),
    /// The queue's policies have changed.
    Configure(Arc<Queue>),
    /// Tells the outbox of the queues' consumers.
    ListConsumers {
        queues: Vec<QueueId>,
        outbox: Arc<Outbox>,
    },
    /// A recent-history exchange saw a message.
    Remember {
        vhost: VhostName,
        exchange: ExchangeName,
        publish: Publish,
        length: usize,
    },
    /// A queue was bound to a recent-history exchange.
    Replay {
        vhost: VhostName,
        exchange: ExchangeName,
        target: QueueTarget,
    },
    /// A recent-history exchange is gone.
    Forget {
        vhost: VhostName,
        exchange: ExchangeName,
    },
}

/// What a queue's reply is an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskKind {
    Declare,
    /// A declaration that only looks.
    Inspect,
    Consume,
    Other,
    Delete,
}

/// The record of a message that died, which is dead in the log too once its letters are in their queues: whoever drops
/// the last handle writes that, so that no crash loses the message in between.
#[derive(Debug)]
pub(super) struct Source {
    queue: QueueId,
    index: MessageIndex,
}

/// A part of the log that a queue needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadRequest {
    pub(super) queue: QueueId,
    pub(super) first: u64,
    pub(super) last: u64,
}

struct OwnedQueue {
    definition: Arc<Queue>,
    machine: Fifo,
    /// The delivery mark in the log.
    marked: u64,
    /// The highest index of a record that outlives the broker. A mark above it tells nothing.
    last_record: u64,
    /// Messages that would have no record get one.
    recording: bool,
    /// The log has records of it, or had, or knows that it is there.
    recorded: bool,
    /// Asks that wait for the next `Loaded`.
    waiting: Vec<(Command, Option<(ChannelRef, AskKind)>)>,
    /// When the shard will look at it for expiry.
    alarm: Option<Timestamp>,
    /// The last turn that worked on it.
    turn: u64,
    /// Its part in the shard's `held`.
    held: u64,
}

/// What a turn leaves to be done outside.
#[derive(Default)]
pub(super) struct TurnOutput {
    /// Queues that are gone, and who wanted that: their definitions are to be removed before anything is told to clients.
    pub(super) removed: Vec<(Arc<Queue>, Option<UserName>)>,
    /// What happened, if somebody wants to know.
    pub(super) notices: Vec<Notice>,
    /// What is to be written, and what waits for it.
    pub(super) submission: Submission,
    /// Messages that the batch has records of.
    pub(super) logged: u64,
    /// Messages of queues whose records were damaged.
    pub(super) lost: Vec<(QueueId, u64)>,
    /// What queues need from the log.
    pub(super) loads: Vec<LoadRequest>,
    /// Envelopes for other shards.
    pub(super) remote: Vec<(u16, Envelope)>,
    /// Connections whose channel-wide limits have room again, for the other shards.
    pub(super) resumed: Vec<ConnectionId>,
    /// Events, by connection.
    pub(super) events: Vec<(Arc<Outbox>, Vec<Event>)>,
    /// Emptied lists, to be used again.
    pub(super) spare: Vec<Vec<Event>>,
}

/// See the module's documentation.
pub(super) struct Shard {
    index: u16,
    shards: u16,
    pub(super) inbox: VecDeque<Envelope>,
    pub(super) output: TurnOutput,
    queues: IdMap<QueueId, OwnedQueue>,
    links: IdMap<ConnectionId, Link>,
    turn: u64,
    /// Links with events to hand out.
    touched: Vec<ConnectionId>,
    alarms: BTreeSet<(Timestamp, QueueId)>,
    /// Queues whose next deadline, or memory, may have changed.
    dirty: Vec<QueueId>,
    /// Bytes of messages in the queues, as their memory costs.
    held: u64,
    /// Bytes in `held` above which queues page out.
    memory_budget: u64,
    /// Queues that may have something to page out.
    pageable: BTreeSet<QueueId>,
    /// What the turn has for the log so far.
    batch: Batch,
    /// The message appended last, whose record another queue can share.
    last_logged: Option<(Message, Option<Arc<DeathHistory>>)>,
    /// The last turn ended early, so that publishes of it may wait for the log.
    cut_short: bool,
    settled: Vec<IndexRange>,
    ranges: Vec<Range>,
    effects: Vec<Effect>,
    /// Connections whose channel-wide limits have room again since the last command.
    resumed: Vec<ConnectionId>,
    histories: HashMap<(VhostName, ExchangeName), VecDeque<Publish>>,
    targets: Targets,
    scratch: Vec<u8>,
}

impl Shard {
    pub(super) fn new(index: u16, shards: u16, memory_budget: u64) -> Self {
        Self {
            index,
            shards,
            inbox: VecDeque::new(),
            output: TurnOutput::default(),
            queues: IdMap::default(),
            links: IdMap::default(),
            turn: 0,
            touched: Vec::new(),
            alarms: BTreeSet::new(),
            dirty: Vec::new(),
            held: 0,
            memory_budget,
            pageable: BTreeSet::new(),
            batch: Batch::default(),
            last_logged: None,
            cut_short: false,
            settled: Vec::new(),
            ranges: Vec::new(),
            effects: Vec::new(),
            resumed: Vec::new(),
            histories: HashMap::new(),
            targets: Targets::default(),
            scratch: Vec::new(),
        }
    }

    /// Handles the inbox, up to a bound, and whatever time is due.
    pub(super) fn turn(&mut self, now: Timestamp, topology: &Topology) {
        self.expire(now, topology);
        for _ in 0..TURN_MAX {
            let Some(envelope) = self.inbox.pop_front() else { break };
            self.handle(envelope, now, topology);
            // Empty unless some channel has a limit of its own.
            while let Some(connection) = self.resumed.pop() {
                self.output.resumed.push(connection);
                self.resume(connection, now, topology);
            }
            if self.batch.length() > TURN_LOG_BYTES {
                break;
            }
        }
        self.end_turn(now);
        self.page_out();
        self.hand_out();
        self.cut_short = !self.batch.is_empty() && !self.inbox.is_empty();
        self.last_logged = None;
        mem::swap(&mut self.output.submission.batch, &mut self.batch);
    }

    /// Bytes of memory that the messages in the queues take, roughly; a body in several queues counts in each.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// When the next turn is due although nothing arrives.
    pub(super) fn next_alarm(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Ready, unacked and consumers of a queue.
    #[cfg(test)]
    pub(super) fn counts(&self, queue: QueueId) -> Option<Counts> {
        self.queues.get(&queue).map(|queue| queue.machine.counts())
    }

    fn handle(&mut self, envelope: Envelope, now: Timestamp, topology: &Topology) {
        match envelope {
            Envelope::Enqueue { queue, publish, source } => {
                self.enqueue(queue, publish, now, topology);
                self.settle_source(source);
            }
            Envelope::Command { queue, command, ask } => self.command(queue, command, ask, now, topology),
            Envelope::Create { queue, ask } => self.create(queue, ask, now),
            Envelope::Attach { connection, outbox, record } => {
                self.links.insert(connection, Link::new(outbox, record));
            }
            Envelope::Taken { outbox, bytes } => {
                // What is on its way to the log takes memory until it is there.
                if self.batch.is_empty() && !self.cut_short {
                    outbox.return_publish_credit(bytes);
                } else {
                    self.output.submission.held.credit.push((outbox, bytes));
                }
            }
            Envelope::Limit { connection, channel, limit } => {
                if let Some(link) = self.links.get_mut(&connection) {
                    link.set_limit(channel, limit);
                }
                self.resume(connection, now, topology);
            }
            Envelope::Resume(connection) => self.resume(connection, now, topology),
            Envelope::CancelConsumer(consumer) => {
                let queue = self.links.get_mut(&consumer.connection).and_then(|link| link.consumers.remove(&consumer));
                if let Some(queue) = queue {
                    self.command(queue, Command::Cancel(consumer), None, now, topology);
                }
            }
            Envelope::ChannelDown(channel) => {
                for queue in self.queues_of(channel.connection) {
                    self.forget_waiting(queue, |asker| asker == channel);
                    self.command(queue, Command::ChannelDown(channel), None, now, topology);
                }
                if let Some(link) = self.links.get_mut(&channel.connection) {
                    link.set_limit(channel.number, None);
                    link.consumers.retain(|consumer, _| consumer.channel != channel.number);
                }
                self.tell(channel.connection, Event::Internal(Internal::Joined { channel }));
            }
            Envelope::ConnectionDown(connection) => {
                for queue in self.queues_of(connection) {
                    self.forget_waiting(queue, |asker| asker.connection == connection);
                    self.command(queue, Command::ConnectionDown(connection), None, now, topology);
                }
                self.tell(connection, Event::Internal(Internal::ShardDown));
                self.hand_out();
                self.links.remove(&connection);
            }
            Envelope::Join(channel) => {
                self.tell(channel.connection, Event::Internal(Internal::Joined { channel }));
            }
            Envelope::JoinDurably(channel) => {
                self.tell_durably(channel.connection, Event::Internal(Internal::Joined { channel }));
            }
            other => self.handle_rare(other, now, topology),
        }
    }

    fn handle_rare(&mut self, envelope: Envelope, now: Timestamp, topology: &Topology) {
        match envelope {
            Envelope::Adopt { queue, machine } => self.adopt(queue, *machine),
            Envelope::Loaded { queue, first, last, entries } => {
                self.command(queue, Command::Loaded { first, last, entries }, None, now, topology);
                self.ask_again(queue, now, topology);
                self.pageable.insert(queue);
            }
            Envelope::Flushed(through) => self.flushed(&through),
            Envelope::Configure(queue) => self.configure(queue, now, topology),
            Envelope::ListConsumers { queues, outbox } => {
                let consumers =
                    queues.into_iter().filter_map(|queue| self.queues.get(&queue).map(|owned| (queue, owned)));
                let views = |(queue, owned): (QueueId, &OwnedQueue)| {
                    owned.machine.consumers().into_iter().map(move |view| (queue, view)).collect::<Vec<_>>()
                };
                let consumers = consumers.flat_map(views).collect();
                self.output.events.push((outbox, vec![Event::Internal(Internal::Consumers { consumers })]));
            }
            Envelope::Remember { vhost, exchange, publish, length } => {
                let history = self.histories.entry((vhost, exchange)).or_default();
                history.push_back(publish);
                while history.len() > length.min(HISTORY_MAX) {
                    history.pop_front();
                }
            }
            Envelope::Replay { vhost, exchange, target } => {
                let history = self.histories.get(&(vhost, exchange)).cloned().unwrap_or_default();
                for publish in history {
                    self.forward(target, publish, None);
                }
            }
            Envelope::Forget { vhost, exchange } => {
                self.histories.remove(&(vhost, exchange));
            }
            // All others are handled before.
            _ => {}
        }
    }

    fn create(&mut self, queue: Arc<Queue>, ask: Option<ChannelRef>, now: Timestamp) {
        let durability = if queue.durable { Durability::Durable } else { Durability::Transient };
        let machine = Fifo::new(Arc::new(queue.options.clone()), durability, now);
        if let Some(channel) = ask {
            let answer = Answer::QueueDeclared { queue: queue.name.clone(), ready: 0, consumers: 0 };
            self.answer(&queue, channel.connection, Event::Answer { channel, answer });
        }
        self.adopt(queue, machine);
    }

    fn adopt(&mut self, queue: Arc<Queue>, machine: Fifo) {
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
            definition: queue,
            machine,
        };
        self.queues.insert(id, owned);
        self.dirty.push(id);
    }

    fn enqueue(&mut self, queue: QueueId, publish: Publish, now: Timestamp, topology: &Topology) {
        let Some(owned) = self.queues.get_mut(&queue) else {
            // A publish to a queue deleted meanwhile counts as taken.
            if let Origin::Channel { channel, sequence } = publish.origin {
                self.confirm(channel, sequence, Verdict::Confirmed);
            }
            return;
        };
        let durably = owned.definition.durable && publish.message.is_persistent();
        let logged = (durably || owned.recording).then(|| (publish.message.clone(), publish.deaths.clone()));
        let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
        let reply = owned.machine.apply(now, Command::Enqueue(publish), &mut gate, &mut self.effects);
        if let Reply::Kept { index, expires } = reply
            && let Some((message, deaths)) = logged
        {
            let head = Head {
                log: LogId(queue.0),
                index: index.0,
                time: now.0,
                deadline: expires.map_or(u64::MAX, |at| at.0),
                cost: u32::try_from(message.body_length()).unwrap_or(u32::MAX),
                class: owned.machine.lane_of(&message),
                transient: !durably,
            };
            owned.recorded = true;
            self.output.logged += 1;
            if durably {
                owned.last_record = index.0;
            }
            self.append(&head, message, deaths);
            if durably {
                self.hold_confirm();
            }
        }
        self.after(queue, now, topology);
    }

    /// Adds the record of a message to the turn's batch; a body that several queues got one after the other is there once.
    fn append(&mut self, head: &Head, message: Message, deaths: Option<Arc<DeathHistory>>) {
        let same_deaths = |other: &Option<Arc<DeathHistory>>| match (other, &deaths) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let shared =
            matches!(&self.last_logged, Some((last, of_last)) if last.is_same(&message) && same_deaths(of_last));
        if !shared || !self.batch.append_again(head) {
            stored::append(&mut self.batch, head, &message, deaths.as_deref());
            self.last_logged = Some((message, deaths));
        }
        if !head.transient {
            // Nobody may wait for it to be durable, but it is not to wait for long either.
            self.batch.set_urgent();
        }
    }

    /// The confirm among the effects of the last publish waits for the log.
    fn hold_confirm(&mut self) {
        let at = self.effects.iter().position(|effect| matches!(effect, Effect::Confirm { .. }));
        let Some(Effect::Confirm { channel, sequence, verdict }) = at.map(|at| self.effects.remove(at)) else { return };
        if let Some(link) = self.links.get_mut(&channel.connection) {
            touch(&mut self.touched, link, channel.connection);
            join_confirm(&mut link.held, channel, sequence, verdict);
        }
    }

    /// A letter is in its queue, or needs none: the last one of a source ends it.
    fn settle_source(&mut self, source: Option<Arc<Source>>) {
        if let Some(Source { queue, index }) = source.and_then(Arc::into_inner) {
            self.batch.settle(LogId(queue.0), &[Range { first: index.0, last: index.0 }]);
        }
    }

    fn command(
        &mut self,
        queue: QueueId,
        command: Command,
        ask: Option<(ChannelRef, AskKind)>,
        now: Timestamp,
        topology: &Topology,
    ) {
        let Some(owned) = self.queues.get_mut(&queue) else { return self.missing(ask) };
        match &command {
            Command::Subscribe(subscription) => note_consumer(&mut self.links, subscription.consumer, queue),
            Command::Get { holder, .. } => note_queue(&mut self.links, *holder, queue),
            _ => {}
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
    fn ask_again(&mut self, queue: QueueId, now: Timestamp, topology: &Topology) {
        let waiting = self.queues.get_mut(&queue).map(|owned| mem::take(&mut owned.waiting)).unwrap_or_default();
        for (command, ask) in waiting {
            self.command(queue, command, ask, now, topology);
        }
    }

    /// The askers are gone.
    fn forget_waiting(&mut self, queue: QueueId, gone: impl Fn(ChannelRef) -> bool) {
        if let Some(owned) = self.queues.get_mut(&queue) {
            owned.waiting.retain(|(_, ask)| !ask.is_some_and(|(asker, _)| gone(asker)));
        }
    }

    fn flushed(&mut self, through: &[(QueueId, MessageIndex)]) {
        for (queue, index) in through {
            if let Some(owned) = self.queues.get_mut(queue) {
                owned.machine.flushed(*index);
                self.pageable.insert(*queue);
            }
        }
    }

    fn configure(&mut self, queue: Arc<Queue>, now: Timestamp, topology: &Topology) {
        let id = queue.id;
        let Some(owned) = self.queues.get_mut(&id) else { return };
        let options = Arc::new(queue.options.clone());
        owned.definition = queue;
        self.command(id, Command::Configure(options), None, now, topology);
    }

    fn missing(&mut self, ask: Option<(ChannelRef, AskKind)>) {
        let Some((channel, kind)) = ask else { return };
        let event = match kind {
            AskKind::Delete => Event::Answer { channel, answer: Answer::Messages(0) },
            // The session looks for the queue again and finds it gone.
            _ => Event::Internal(Internal::DeclareAgain { channel }),
        };
        self.tell(channel.connection, event);
    }

    fn reply(&mut self, queue: &Queue, reply: Reply, ask: Option<(ChannelRef, AskKind)>) {
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
            Reply::Counts(Counts { ready, consumers, .. }) => {
                debug_assert!(matches!(kind, AskKind::Declare | AskKind::Inspect));
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

    /// Carries out the effects of the last command on `queue`.
    fn after(&mut self, queue: QueueId, now: Timestamp, topology: &Topology) {
        self.dirty_unless_last(queue);
        if self.effects.is_empty() {
            return;
        }
        let mut effects = mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver(delivery) => {
                    if topology.has_tracing {
                        self.trace_delivery(queue, &delivery, now, topology);
                    }
                    self.deliver(queue, delivery);
                }
                Effect::Confirm { channel, sequence, verdict } => self.confirm(channel, sequence, verdict),
                Effect::DeadLetter { message, reason, deaths, logged } => {
                    let source = logged.map(|index| Arc::new(Source { queue, index }));
                    self.dead_letter(queue, &message, deaths.as_deref(), reason, source.as_ref(), now, topology);
                    self.settle_source(source);
                }
                Effect::Load { first, last, .. } => self.output.loads.push(LoadRequest { queue, first, last }),
                Effect::Lost { count } => self.output.lost.push((queue, count)),
                Effect::ConsumerCancelled { consumer, tag } => {
                    if let Some(link) = self.links.get_mut(&consumer.connection) {
                        link.consumers.remove(&consumer);
                    }
                    self.tell(consumer.connection, Event::ConsumerCancelled { consumer, tag });
                }
                Effect::ConsumerTimeout { consumer } => self.consumer_timeout(queue, consumer),
                Effect::Gone => self.remove(queue, None),
            }
        }
        self.effects = effects;
    }

    fn dirty_unless_last(&mut self, queue: QueueId) {
        if self.dirty.last() != Some(&queue) {
            self.dirty.push(queue);
        }
    }

    fn deliver(&mut self, queue: QueueId, delivery: Delivery) {
        let Delivery { consumer, index, redelivered, message, .. } = delivery;
        let event = DeliverEvent { consumer, queue, index, redelivered, message };
        self.tell(consumer.connection, Event::Deliver(event));
    }

    /// Adds a verdict to the connection's events.
    fn confirm(&mut self, channel: ChannelRef, sequence: u64, verdict: Verdict) {
        let Some(link) = self.links.get_mut(&channel.connection) else { return };
        touch(&mut self.touched, link, channel.connection);
        join_confirm(&mut link.events, channel, sequence, verdict);
    }

    fn consumer_timeout(&mut self, queue: QueueId, consumer: ConsumerId) {
        let options = self.queues.get(&queue).map(|queue| &queue.definition.options);
        let timeout_ms = options.and_then(|options| options.consumer_timeout_ms).unwrap_or_default();
        self.tell(consumer.connection, Event::ConsumerTimeout { consumer, timeout_ms });
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of the effect, and what a turn works with")]
    fn dead_letter(
        &mut self,
        queue: QueueId,
        message: &Message,
        deaths: Option<&DeathHistory>,
        reason: Reason,
        source: Option<&Arc<Source>>,
        now: Timestamp,
        topology: &Topology,
    ) {
        let Some(owned) = self.queues.get(&queue) else { return };
        let definition = Arc::clone(&owned.definition);
        let Some(target) = &definition.options.dead_letter else { return };
        let Some(vhost) = topology.vhost(&definition.vhost) else { return };
        let letter = dead_letter::rewrite(&mut self.scratch, message, deaths, reason, &definition.name, target, now);
        let keys: Vec<&[u8]> = letter.routing_keys.iter().map(|key| key.as_bytes()).collect();
        let mut targets = mem::take(&mut self.targets);
        targets.clear();
        let random = now.0.rotate_left(17) ^ queue.0;
        let properties = letter.message.properties();
        let facts = Facts::new(&properties, random);
        let routed = vhost.routing.route(target.exchange.as_str().as_bytes(), &keys, &facts, &mut targets);
        if routed.is_ok() {
            for target in targets.queues().iter().copied() {
                let name = vhost.names.get(&target.id);
                if name.is_some_and(|name| dead_letter::is_cycle(&letter.deaths, name, reason)) {
                    continue;
                }
                let publish = Publish {
                    message: letter.message.clone(),
                    expiration_ms: None,
                    origin: Origin::Untracked,
                    deaths: Some(Arc::clone(&letter.deaths)),
                };
                self.forward(target, publish, source.cloned());
            }
        }
        self.targets = targets;
    }

    /// Puts a message the broker itself publishes on its way.
    fn forward(&mut self, target: QueueTarget, publish: Publish, source: Option<Arc<Source>>) {
        let envelope = Envelope::Enqueue { queue: target.id, publish, source };
        if target.shard == self.index {
            self.inbox.push_back(envelope);
        } else {
            debug_assert!(target.shard < self.shards);
            self.output.remote.push((target.shard, envelope));
        }
    }

    fn remove(&mut self, queue: QueueId, user: Option<UserName>) {
        let Some(owned) = self.queues.remove(&queue) else { return };
        if owned.recorded {
            self.batch.drop_log(LogId(queue.0));
        }
        for (_, ask) in owned.waiting {
            self.missing(ask);
        }
        self.pageable.remove(&queue);
        if let Some(at) = owned.alarm {
            self.alarms.remove(&(at, queue));
        }
        self.held -= owned.held;
        // The sum over removed queues takes up what is to be seen now.
        publish_counters(&owned.definition, owned.machine.tally());
        self.output.removed.push((owned.definition, user));
    }

    fn queues_of(&mut self, connection: ConnectionId) -> Vec<QueueId> {
        let Some(link) = self.links.get_mut(&connection) else { return Vec::new() };
        link.queues.retain(|queue| self.queues.contains_key(queue));
        link.queues.iter().copied().collect()
    }

    /// Lets queues try again that this connection's consumers were refused by the gate.
    fn resume(&mut self, connection: ConnectionId, now: Timestamp, topology: &Topology) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        for queue in mem::take(&mut link.refused) {
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
            owned.machine.apply(now, Command::Resume(connection), &mut gate, &mut self.effects);
            self.after(queue, now, topology);
        }
    }

    fn tell(&mut self, connection: ConnectionId, event: Event) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        touch(&mut self.touched, link, connection);
        link.events.push(event);
    }

    /// Tells once everything so far is durable.
    fn tell_durably(&mut self, connection: ConnectionId, event: Event) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        touch(&mut self.touched, link, connection);
        link.held.push(event);
    }

    /// Answers about a queue: of a durable one not before what is said of it is durable.
    fn answer(&mut self, queue: &Queue, connection: ConnectionId, event: Event) {
        if queue.durable { self.tell_durably(connection, event) } else { self.tell(connection, event) }
    }

    /// Gives every connection its events, as one batch.
    fn hand_out(&mut self) {
        for connection in self.touched.drain(..) {
            let Some(link) = self.links.get_mut(&connection) else { continue };
            if !link.events.is_empty() {
                let spare = self.output.spare.pop().unwrap_or_default();
                let events = mem::replace(&mut link.events, spare);
                self.output.events.push((Arc::clone(&link.outbox), events));
            }
            if !link.held.is_empty() {
                let Held { events, .. } = &mut self.output.submission.held;
                events.push((Arc::clone(&link.outbox), mem::take(&mut link.held)));
            }
        }
    }

    /// Brings the queues' memory back under the budget, as far as the log has what they hold.
    fn page_out(&mut self) {
        while self.held > self.memory_budget {
            let Some(queue) = self.pageable.pop_first() else { return };
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            let wanted = self.held - self.memory_budget;
            let freed = owned.machine.page_out(wanted);
            let held = owned.machine.memory();
            self.held = self.held - owned.held + held;
            owned.held = held;
            if freed >= wanted {
                self.pageable.insert(queue);
            }
        }
    }

    fn expire(&mut self, now: Timestamp, topology: &Topology) {
        while let Some((at, queue)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, queue));
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            owned.alarm = None;
            let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
            owned.machine.apply(now, Command::Tick, &mut gate, &mut self.effects);
            self.after(queue, now, topology);
        }
    }

    /// Looks at the queues that were worked on: what the log has to know, what they hold, and their earliest deadline. A
    /// deadline that moved later is left: the early alarm finds nothing due and sets the right one.
    fn end_turn(&mut self, now: Timestamp) {
        self.turn += 1;
        for queue in self.dirty.drain(..) {
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            if owned.turn == self.turn {
                continue;
            }
            owned.turn = self.turn;
            if owned.recorded {
                owned.machine.take_settled(&mut self.settled);
                self.ranges.extend(self.settled.drain(..).map(|range| Range { first: range.first, last: range.last }));
                self.batch.settle(LogId(queue.0), &self.ranges);
                self.ranges.clear();
                let delivered = owned.machine.delivered_through();
                if delivered > owned.marked && owned.marked < owned.last_record {
                    owned.marked = delivered;
                    self.batch.delivered(LogId(queue.0), delivered);
                }
            }
            let held = owned.machine.memory();
            self.held = self.held - owned.held + held;
            owned.held = held;
            publish(owned, now);
            let is_deep = self.held > self.memory_budget / 2 && held > RECORDING_MIN.min(self.memory_budget / 32);
            if owned.recording != is_deep && (is_deep || owned.machine.counts().ready == 0) {
                owned.recording = is_deep;
                owned.machine.record_all(is_deep);
            }
            let Some(next) = owned.machine.next_deadline() else { continue };
            if owned.alarm.is_none_or(|alarm| next < alarm) {
                if let Some(alarm) = owned.alarm {
                    self.alarms.remove(&(alarm, queue));
                }
                owned.alarm = Some(next);
                self.alarms.insert((next, queue));
            }
        }
    }
}

/// Lets everybody see the queue's numbers.
fn publish(owned: &OwnedQueue, now: Timestamp) {
    use QueueNumber as Number;
    let OwnedQueue { machine, definition, .. } = owned;
    let numbers = &definition.statistics.numbers;
    let (counts, stored, tally) = (machine.counts(), machine.stored(), machine.tally());
    let before = numbers.get(Number::Used);
    if before != 0 && numbers.get(Number::Consumers) > 0 {
        let passed = now.0.saturating_sub(before);
        numbers.add(Number::ConsumedMs, passed);
        if numbers.get(Number::ConsumersReady) != 0 {
            numbers.add(Number::ConsumersReadyMs, passed);
        }
    }
    for (number, value) in [
        (Number::Used, now.0),
        (Number::ConsumersReady, u64::from(machine.has_waiting_consumer())),
        (Number::Ready, counts.ready),
        (Number::Unacked, counts.unacked),
        (Number::Consumers, counts.consumers),
        (Number::ReadyBytes, counts.ready_bytes),
        (Number::UnackedBytes, counts.unacked_bytes),
        (Number::Persistent, stored.persistent),
        (Number::Cold, stored.cold),
        (Number::ColdBytes, stored.cold_bytes),
        (Number::Memory, owned.held),
        (Number::HeadArrived, machine.head_arrival().map_or(0, |arrival| now.0 - arrival.age_ms(now).min(now.0))),
        (
            Number::HeadTimestamp,
            machine.head_message().and_then(|head| head.properties().timestamp).unwrap_or_default(),
        ),
    ] {
        numbers.set(number, value);
    }
    publish_counters(definition, tally);
}

/// Lets everybody see what the queue has counted.
fn publish_counters(definition: &Queue, tally: &Tally) {
    use QueueNumber as Number;
    let numbers = &definition.statistics.numbers;
    for (number, value) in [
        (Number::Published, tally.published),
        (Number::Delivered, tally.delivered),
        (Number::DeliveredAutoAck, tally.delivered_auto_ack),
        (Number::Got, tally.got),
        (Number::GotAutoAck, tally.got_auto_ack),
        (Number::GetEmpty, tally.get_empty),
        (Number::Redelivered, tally.redelivered),
        (Number::Acked, tally.acked),
        (Number::ExpiredDiscarded, tally.expired_discarded),
        (Number::DroppedDiscarded, tally.dropped_discarded),
        (Number::RejectedDiscarded, tally.rejected_discarded),
        (Number::Refused, tally.refused),
        (Number::ExpiredDeadLettered, tally.expired_dead_lettered),
        (Number::DroppedDeadLettered, tally.dropped_dead_lettered),
        (Number::RejectedDeadLettered, tally.rejected_dead_lettered),
    ] {
        numbers.set(number, value);
    }
    definition.statistics.in_queue.set(&tally.in_queue);
    definition.statistics.processing.set(&tally.processing);
}

/// Notes that a link has, or is about to have, something to hand out.
fn touch(touched: &mut Vec<ConnectionId>, link: &Link, connection: ConnectionId) {
    if link.events.is_empty() && link.held.is_empty() {
        touched.push(connection);
    }
}

/// Adds a verdict to a list of events, joining runs.
fn join_confirm(events: &mut Vec<Event>, channel: ChannelRef, sequence: u64, verdict: Verdict) {
    let confirmed = verdict == Verdict::Confirmed;
    if let Some(Event::Confirm { channel: same, last, confirmed: as_well, .. }) = events.last_mut()
        && *same == channel
        && *as_well == confirmed
        && *last + 1 == sequence
    {
        *last = sequence;
        return;
    }
    events.push(Event::Confirm { channel, first: sequence, last: sequence, confirmed });
}

fn note_queue(links: &mut IdMap<ConnectionId, Link>, consumer: ConsumerId, queue: QueueId) {
    if let Some(link) = links.get_mut(&consumer.connection) {
        link.queues.insert(queue);
    }
}

fn note_consumer(links: &mut IdMap<ConnectionId, Link>, consumer: ConsumerId, queue: QueueId) {
    if let Some(link) = links.get_mut(&consumer.connection) {
        link.queues.insert(queue);
        link.consumers.insert(consumer, queue);
    }
}
