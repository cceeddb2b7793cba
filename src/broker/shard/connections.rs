//! What a shard does for connections: their ends and those of channels and consumers, and queues that they held up.

use std::mem;
use std::sync::Arc;

use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId, Timestamp};
use crate::model::names::ConsumerTag;
use crate::model::request::{Event, Internal};
use crate::queue::Command;

use super::super::link::LinkGate;
use super::super::outbox::Outbox;
use super::super::topology::Topology;
use super::{OwnedQueue, Shard};

impl Shard {
    pub(super) fn channel_down(&mut self, channel: ChannelRef, now: Timestamp, topology: &Topology) {
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

    pub(super) fn connection_down(&mut self, connection: ConnectionId, now: Timestamp, topology: &Topology) {
        for queue in self.queues_of(connection) {
            self.forget_waiting(queue, |asker| asker.connection == connection);
            self.command(queue, Command::ConnectionDown(connection), None, now, topology);
        }
        self.tell(connection, Event::Internal(Internal::ShardDown));
        self.hand_out();
        self.links.remove(&connection);
    }

    /// Ends a consumer, whichever queue it is on; whether there was one.
    pub(super) fn cancel(&mut self, consumer: ConsumerId, now: Timestamp, topology: &Topology) -> bool {
        let queue = self.links.get_mut(&consumer.connection).and_then(|link| link.consumers.remove(&consumer));
        let Some(queue) = queue else { return false };
        self.command(queue, Command::Cancel(consumer), None, now, topology);
        true
    }

    /// Ends a consumer, and says so to its connection.
    pub(super) fn revoke(&mut self, consumer: ConsumerId, tag: ConsumerTag, now: Timestamp, topology: &Topology) {
        if self.cancel(consumer, now, topology) {
            self.tell(consumer.connection, Event::ConsumerCancelled { consumer, tag });
        }
    }

    pub(super) fn list_consumers(&mut self, queues: &[QueueId], outbox: Arc<Outbox>) {
        let consumers = queues.iter().filter_map(|queue| self.queues.get(queue).map(|owned| (*queue, owned)));
        let views = |(queue, owned): (QueueId, &OwnedQueue)| {
            owned.machine.consumers().into_iter().map(move |view| (queue, view)).collect::<Vec<_>>()
        };
        let consumers = consumers.flat_map(views).collect();
        self.output.events.push((outbox, vec![Event::Internal(Internal::Consumers { consumers })]));
    }

    pub(super) fn queues_of(&mut self, connection: ConnectionId) -> Vec<QueueId> {
        let Some(link) = self.links.get_mut(&connection) else { return Vec::new() };
        link.queues.retain(|queue| self.queues.contains_key(queue));
        link.queues.iter().copied().collect()
    }

    /// Lets queues try again that this connection's consumers were refused by the gate.
    pub(super) fn resume(&mut self, connection: ConnectionId, now: Timestamp, topology: &Topology) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        for queue in mem::take(&mut link.refused) {
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
            owned.machine.apply(now, Command::Resume(connection), &mut gate, &mut self.effects);
            self.after(queue, now, topology);
        }
    }
}
