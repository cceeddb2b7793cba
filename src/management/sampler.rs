//! One look at all numbers, every few seconds: what rates and charts are made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::names::VhostName;
use crate::model::statistics::ExchangeNumber;

use super::Management;
use super::history::{Round, Subject};
use super::rates::{channel_row, churn_row, connection_row, exchange_row, node_row, queue_row};

/// See the module's documentation. Kept between rounds for its memory.
pub struct Sampler {
    management: Arc<Management>,
    round: Round,
    /// A channel's name.
    name: String,
}

/// The sums of a vhost.
#[derive(Clone, Copy, Default)]
pub(super) struct VhostSums {
    pub(super) lengths: [u64; 3],
    /// In the order of the channels' rates.
    pub(super) messages: [u64; 12],
    pub(super) traffic: [u64; 2],
}

impl Sampler {
    #[must_use]
    pub fn new(management: &Arc<Management>) -> Self {
        Self { management: Arc::clone(management), round: Round::new(), name: String::new() }
    }

    /// Takes a round of samples.
    pub fn sample(&mut self) {
        let management = Arc::clone(&self.management);
        let now = management.now();
        self.round.clear();
        let topology = management.broker.topology();
        let sums = management.vhost_sums();
        for (vhost, snapshot) in topology.vhosts() {
            for queue in snapshot.queues.values() {
                let subject = Subject::Queue { vhost: vhost.as_str(), name: queue.name.as_str() };
                self.round.add(subject, &queue_row(&queue.statistics.numbers));
            }
            for (name, statistics) in &snapshot.exchange_statistics {
                let subject = Subject::Exchange { vhost: vhost.as_str(), name: name.as_str() };
                self.round.add(subject, &exchange_row(statistics));
            }
            let sums = sums.get(vhost).copied().unwrap_or_default();
            self.round.add(Subject::Vhost(vhost.as_str()), &vhost_row(&sums));
        }
        self.sample_connections();
        self.round.add(Subject::Global, &management.global_row());
        self.round.add(Subject::Node, &node_row(&management.node.facts(), &management.broker.registry));
        management.history.record(now.0, &self.round);
    }

    fn sample_connections(&mut self) {
        use std::fmt::Write as _;
        for connection in self.management.broker.registry.all() {
            let name = Arc::clone(&connection.record.facts.lock().name);
            self.round.add(Subject::Connection(&name), &connection_row(&connection.record));
            for channel in connection.record.channels() {
                self.name.clear();
                let _ = write!(self.name, "{name} ({})", channel.number);
                self.round.add(Subject::Channel(&self.name), &channel_row(&channel.statistics.snapshot()));
            }
        }
    }
}

/// The values of a vhost, in the order of its rates.
pub(super) fn vhost_row(sums: &VhostSums) -> [u64; 17] {
    let mut row = [0; 17];
    row[..12].copy_from_slice(&sums.messages);
    row[12..15].copy_from_slice(&sums.lengths);
    row[15..].copy_from_slice(&sums.traffic);
    row
}

impl Management {
    /// What queues, channels and connections of each vhost come to. What closed channels had counted is not in it.
    pub(super) fn vhost_sums(&self) -> BTreeMap<VhostName, VhostSums> {
        let mut all: BTreeMap<VhostName, VhostSums> = BTreeMap::new();
        let topology = self.broker.topology();
        for (vhost, snapshot) in topology.vhosts() {
            let sums = all.entry(vhost.clone()).or_default();
            for queue in snapshot.queues.values() {
                let row = queue_row(&queue.statistics.numbers);
                add(&mut sums.lengths, &row[..3]);
                // What consumers did is counted by queues, which live longer than channels.
                add(&mut sums.messages[4..], &row[4..]);
            }
            for statistics in snapshot.exchange_statistics.values() {
                sums.messages[0] += exchange_row(statistics)[0];
                let unroutable = [
                    statistics.get(ExchangeNumber::ReturnedUnroutable),
                    statistics.get(ExchangeNumber::DroppedUnroutable),
                ];
                add(&mut sums.messages[2..4], &unroutable);
            }
        }
        for connection in self.broker.registry.all() {
            let vhost = connection.record.facts.lock().vhost.clone();
            let Some(sums) = vhost.and_then(|vhost| all.get_mut(&vhost)) else { continue };
            add(&mut sums.traffic, &connection_row(&connection.record));
            for channel in connection.record.channels() {
                sums.messages[1] += channel_row(&channel.statistics.snapshot())[1];
            }
        }
        all
    }

    /// The values of all of the broker, in the order of its rates.
    pub(super) fn global_row(&self) -> [u64; 24] {
        let (totals, _) = self.broker.registry.channel_totals();
        let messages = channel_row(&totals);
        let mut lengths = [0; 3];
        let topology = self.broker.topology();
        for (_, vhost) in topology.vhosts() {
            for queue in vhost.queues.values() {
                add(&mut lengths, &queue_row(&queue.statistics.numbers)[..3]);
            }
        }
        let mut row = [0; 24];
        row[..12].copy_from_slice(&messages);
        row[12..15].copy_from_slice(&lengths);
        row[15..22].copy_from_slice(&churn_row(&self.broker.registry));
        let (reads, writes) = self.broker.log_operations();
        row[22] = reads;
        row[23] = writes;
        row
    }
}

fn add(sums: &mut [u64], values: &[u64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(*value);
    }
}
