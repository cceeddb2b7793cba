//! The connections of this node: what listings show of each, and how each can be reached.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::model::ids::ConnectionId;
use crate::model::request::Event;
use crate::model::statistics::{
    CHANNEL_COUNTERS_FROM, ChannelStatistics, ChurnNumber, ChurnStatistics, ClosedChannels, ClosedSum, ClosedTraffic,
    ConnectionFacts, ConnectionRecord, TrafficNumber, add_all,
};

use super::outbox::Outbox;

/// A connection.
#[derive(Clone, Debug)]
pub struct Registered {
    pub id: ConnectionId,
    pub record: Arc<ConnectionRecord>,
    outbox: Arc<Outbox>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Registry {
    connections: DashMap<ConnectionId, Registered>,
    closed: Arc<Mutex<ClosedSum>>,
    pub churn: Arc<ChurnStatistics>,
}

impl Registered {
    /// Whether the connection is kept from publishing more for a moment: shards have not taken what it published.
    #[must_use]
    pub fn waits_for_credit(&self) -> bool {
        self.outbox.publish_credit_left(0) <= 0
    }

    /// Has the connection closed with 320 and this text.
    pub fn close(&self, text: &str) {
        self.outbox.push_one(Event::ForceClose { text: text.to_owned() });
    }
}

impl Registry {
    /// Makes a connection known until `remove`.
    pub fn add(&self, id: ConnectionId, facts: ConnectionFacts, outbox: &Arc<Outbox>) -> Arc<ConnectionRecord> {
        let record = Arc::new(ConnectionRecord::new(facts, &self.closed, &self.churn));
        self.churn.add_shared(ChurnNumber::ConnectionsCreated, 1);
        self.connections.insert(id, Registered { id, record: Arc::clone(&record), outbox: Arc::clone(outbox) });
        record
    }

    pub fn remove(&self, id: ConnectionId) {
        // What its channels counted is in the sum before they are gone from here.
        if let Some(connection) = self.get(id) {
            connection.record.close_all_channels();
            let mut closed = self.closed.lock();
            if self.connections.remove(&id).is_none() {
                return;
            }
            add_all(&mut closed.traffic, &connection.record.traffic.snapshot());
            closed.traffic[TrafficNumber::Pending as usize] = 0;
            drop(closed);
            self.churn.add_shared(ChurnNumber::ConnectionsClosed, 1);
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<Registered> {
        self.connections.get(&id).map(|entry| entry.clone())
    }

    /// All connections, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Registered> {
        let mut all: Vec<Registered> = self.connections.iter().map(|entry| entry.clone()).collect();
        all.sort_by_key(|connection| connection.id);
        all
    }

    /// Tells every connection the same.
    pub fn tell_all(&self, event: impl Fn() -> Event) {
        for entry in &self.connections {
            entry.outbox.push_one(event());
        }
    }

    /// What all channels have counted together, those that are closed included. Gauges are summed over open channels.
    #[must_use]
    pub fn channel_totals(&self) -> (ClosedChannels, usize) {
        // While this is held, no channel moves from the open to the closed ones.
        let closed = self.closed.lock();
        let mut totals = closed.channels;
        totals[..CHANNEL_COUNTERS_FROM].fill(0);
        let mut open = 0;
        let records: Vec<Arc<ConnectionRecord>> =
            self.connections.iter().map(|entry| Arc::clone(&entry.record)).collect();
        for record in records {
            for channel in record.channels() {
                open += 1;
                let numbers: [u64; ChannelStatistics::COUNT] = channel.statistics.snapshot();
                add_all(&mut totals, &numbers);
            }
        }
        (totals, open)
    }

    /// What all connections have received and sent together, those that are closed included, and how many are open.
    #[must_use]
    pub fn traffic_totals(&self) -> (ClosedTraffic, usize) {
        // While this is held, no connection moves from the open to the closed ones.
        let closed = self.closed.lock();
        let mut totals = closed.traffic;
        let mut open = 0;
        for entry in &self.connections {
            open += 1;
            add_all(&mut totals, &entry.record.traffic.snapshot());
        }
        (totals, open)
    }
}
