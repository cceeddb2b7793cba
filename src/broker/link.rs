//! A connection as a shard sees it: where its events go, how much it can take, and who waits for that to change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::model::hash::IdMap;
use crate::model::ids::{ConnectionId, ConsumerId, QueueId};
use crate::model::narrow::narrow;
use crate::model::request::Event;
use crate::model::statistics::ConnectionRecord;
use crate::queue::{AckMode, Gate};

use super::outbox::Outbox;

/// A channel-wide prefetch limit (`basic.qos global=true`), shared by the shards its consumers are in.
#[derive(Debug)]
pub(super) struct ChannelLimit {
    limit: AtomicU32,
    unacked: AtomicI64,
}

impl ChannelLimit {
    pub(super) fn new(limit: u16) -> Self {
        Self { limit: AtomicU32::new(limit.into()), unacked: AtomicI64::new(0) }
    }

    pub(super) fn set(&self, limit: u16) {
        self.limit.store(limit.into(), Ordering::Release);
    }

    fn admits(&self) -> bool {
        let limit = i64::from(self.limit.load(Ordering::Acquire));
        limit == 0 || self.unacked.load(Ordering::Acquire) < limit
    }
}

/// Limits by channel number.
type Limits = BTreeMap<u16, Arc<ChannelLimit>>;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) outbox: Arc<Outbox>,
    /// Under which listings show the connection.
    pub(super) record: Arc<ConnectionRecord>,
    /// Events of this turn.
    pub(super) events: Vec<Event>,
    /// Events of this turn that wait for the log.
    pub(super) held: Vec<Event>,
    /// Queues that have, or had, consumers or unacknowledged messages of this connection.
    pub(super) queues: BTreeSet<QueueId>,
    /// Its consumers, and the queue each is on.
    pub(super) consumers: IdMap<ConsumerId, QueueId>,
    /// Queues whose consumers the gate refused.
    pub(super) refused: BTreeSet<QueueId>,
    limits: Limits,
}

impl Link {
    pub(super) fn new(outbox: Arc<Outbox>, record: Arc<ConnectionRecord>) -> Self {
        Self {
            outbox,
            record,
            events: Vec::new(),
            held: Vec::new(),
            queues: BTreeSet::new(),
            consumers: IdMap::default(),
            refused: BTreeSet::new(),
            limits: Limits::new(),
        }
    }

    pub(super) fn set_limit(&mut self, channel: u16, limit: Option<Arc<ChannelLimit>>) {
        match limit {
            Some(limit) => self.limits.insert(channel, limit),
            None => self.limits.remove(&channel),
        };
    }

    fn refuse(&mut self, queue: QueueId) -> bool {
        self.refused.insert(queue);
        false
    }
}

/// The gate of one queue while a command is applied to it.
pub(super) struct LinkGate<'a> {
    links: &'a mut IdMap<ConnectionId, Link>,
    queue: QueueId,
    /// Connections whose channel-wide limits have room again.
    resumed: &'a mut Vec<ConnectionId>,
}

impl<'a> LinkGate<'a> {
    pub(super) fn new(
        links: &'a mut IdMap<ConnectionId, Link>,
        resumed: &'a mut Vec<ConnectionId>,
        queue: QueueId,
    ) -> Self {
        Self { links, queue, resumed }
    }
}

impl Gate for LinkGate<'_> {
    fn admits(&mut self, consumer: ConsumerId) -> bool {
        let Some(link) = self.links.get_mut(&consumer.connection) else { return false };
        if !link.outbox.admits_delivery() {
            return link.refuse(self.queue);
        }
        if !link.limits.is_empty() && link.limits.get(&consumer.channel).is_some_and(|limit| !limit.admits()) {
            return link.refuse(self.queue);
        }
        true
    }

    fn spend(&mut self, consumer: ConsumerId, cost: usize, mode: AckMode) {
        let Some(link) = self.links.get_mut(&consumer.connection) else { return };
        link.outbox.spend_delivery_credit(cost);
        if mode == AckMode::Manual
            && !link.limits.is_empty()
            && let Some(limit) = link.limits.get(&consumer.channel)
        {
            limit.unacked.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn settled(&mut self, consumer: ConsumerId, count: usize) {
        let Some(link) = self.links.get_mut(&consumer.connection) else { return };
        if link.limits.is_empty() {
            return;
        }
        if let Some(limit) = link.limits.get(&consumer.channel) {
            let count: i64 = narrow(count, "as many as there are deliveries in memory");
            let before = limit.unacked.fetch_sub(count, Ordering::AcqRel);
            // Deliveries from before the limit was set are not in the count.
            if before < count {
                limit.unacked.fetch_max(0, Ordering::AcqRel);
            }
            if self.resumed.last() != Some(&consumer.connection) {
                self.resumed.push(consumer.connection);
            }
        }
    }
}
