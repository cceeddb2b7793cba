//! What one scrape reads: who exists as of its beginning, and the sums over all. Numbers of single objects are read when
//! their lines are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

use crate::broker::Topology;
use crate::model::entity::{ExchangeKind, Queue};
use crate::model::expression::PatternFault;
use crate::model::names::{ExchangeName, VhostName};
use crate::model::statistics::{
    ChannelNumber, ChannelRecord, ConnectionRecord, ConnectionState, ExchangeStatistics, QueueNumber, QueueSum, add_all,
};

use super::super::Management;
use super::super::answer::Failure;
use super::super::call::Query;
use super::super::node::NodeFacts;
use super::rows::{ChannelRow, ConnectionRow, ExchangeRow, QueueRow};

/// Steps that a pattern may take to find out whether it matches a name: anybody may send patterns.
const BACKTRACKS_MAX: usize = 10_000;
/// Bytes of a pattern.
const PATTERN_MAX: usize = 1_000;

/// Which endpoint is asked, as `rabbitmq_endpoint` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Aggregated,
    PerObject,
    Detailed,
    MemoryBreakdown,
}

/// See the module's documentation.
pub(super) struct Scrape {
    pub(super) management: Arc<Management>,
    pub(super) topology: Arc<Topology>,
    pub(super) endpoint: Endpoint,
    pub(super) facts: NodeFacts,
    pub(super) now_ms: u64,
    pub(super) sums: Sums,
    /// By vhost and name; none when only sums are asked for. Likewise the others.
    pub(super) queues: Vec<Arc<Queue>>,
    pub(super) exchanges: Vec<ExchangeItem>,
    pub(super) connections: Vec<ConnectionItem>,
    pub(super) channels: Vec<ChannelItem>,
}

pub(super) struct ExchangeItem {
    pub(super) vhost: VhostName,
    pub(super) name: ExchangeName,
    pub(super) kind: ExchangeKind,
    pub(super) internal: bool,
    pub(super) statistics: Arc<ExchangeStatistics>,
    /// Bindings from it, if that is asked for.
    pub(super) bindings: u64,
}

pub(super) struct ConnectionItem {
    pub(super) name: Arc<str>,
    pub(super) record: Arc<ConnectionRecord>,
}

pub(super) struct ChannelItem {
    pub(super) name: String,
    pub(super) vhost: VhostName,
    pub(super) record: Arc<ChannelRecord>,
}

/// What everything comes to. Counters include what is gone and never go down.
pub(super) struct Sums {
    pub(super) queues: QueueRow,
    pub(super) durations: QueueSum,
    pub(super) queue_count: u64,
    pub(super) exchanges: ExchangeRow,
    pub(super) channels: ChannelRow,
    pub(super) channel_count: u64,
    /// Open channels that have published.
    pub(super) publishers: u64,
    pub(super) connections: ConnectionRow,
    pub(super) connection_count: u64,
    /// Connections by state.
    pub(super) states: BTreeMap<&'static str, u64>,
    pub(super) without_credit: u64,
}

/// Which objects are asked for.
pub(super) struct Chosen {
    /// None is all.
    vhosts: Vec<String>,
    /// None is all; a queue has to match one of them.
    queues: Vec<Regex>,
}

impl Endpoint {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::PerObject => "per-object",
            Self::Detailed => "detailed",
            Self::MemoryBreakdown => "memory-breakdown",
        }
    }
}

impl Chosen {
    /// Everything.
    pub(super) fn all() -> Self {
        Self { vhosts: Vec::new(), queues: Vec::new() }
    }

    /// What `vhost=` and `queue=` ask for; 400 for a pattern that is none.
    pub(super) fn read(query: &Query) -> Result<Self, Failure> {
        let mut queues = Vec::new();
        for pattern in query.all("queue") {
            let refuse = |why: &str| Failure::bad_request(format!("invalid regular expression: {pattern}: {why}"));
            if pattern.len() > PATTERN_MAX {
                return Err(refuse(&format!("more than {PATTERN_MAX} bytes")));
            }
            let regex = RegexBuilder::new(pattern).backtrack_limit(BACKTRACKS_MAX).build();
            queues.push(regex.map_err(|error| refuse(&PatternFault::of(pattern, &error).to_string()))?);
        }
        Ok(Self { vhosts: query.all("vhost").to_vec(), queues })
    }

    pub(super) fn has_vhost(&self, vhost: &str) -> bool {
        self.vhosts.is_empty() || self.vhosts.iter().any(|chosen| chosen == vhost)
    }

    fn has_queue(&self, queue: &Queue) -> bool {
        self.queues.is_empty()
            || self.queues.iter().any(|pattern| pattern.is_match(queue.name.as_str()).unwrap_or(false))
    }
}

impl Scrape {
    /// Sums alone.
    pub(super) fn new(management: &Arc<Management>, endpoint: Endpoint) -> Self {
        let topology = management.broker.topology();
        let now_ms = management.now().0;
        Self {
            sums: Sums::of(management, &topology, now_ms),
            facts: management.node.facts(),
            management: Arc::clone(management),
            topology,
            endpoint,
            now_ms,
            queues: Vec::new(),
            exchanges: Vec::new(),
            connections: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Notes which queues there are.
    pub(super) fn list_queues(&mut self, chosen: &Chosen) {
        for (_, vhost) in self.topology.vhosts().into_iter().filter(|(name, _)| chosen.has_vhost(name.as_str())) {
            let first = self.queues.len();
            self.queues.extend(vhost.queues.values().filter(|queue| chosen.has_queue(queue)).cloned());
            self.queues[first..].sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// Notes which exchanges there are.
    pub(super) fn list_exchanges(&mut self, chosen: &Chosen) {
        for (name, vhost) in self.topology.vhosts().into_iter().filter(|(name, _)| chosen.has_vhost(name.as_str())) {
            let first = self.exchanges.len();
            self.exchanges.extend(vhost.exchanges.values().map(|exchange| ExchangeItem {
                vhost: name.clone(),
                name: exchange.name.clone(),
                kind: exchange.kind,
                internal: exchange.internal,
                statistics: vhost.exchange_statistics.get(&exchange.name).cloned().unwrap_or_default(),
                bindings: 0,
            }));
            self.exchanges[first..].sort_unstable_by(|a, b| a.name.cmp(&b.name));
        }
    }

    /// Counts the bindings from the exchanges that are listed.
    pub(super) fn count_bindings(&mut self) {
        let mut counts: BTreeMap<(VhostName, ExchangeName), u64> = BTreeMap::new();
        for (vhost, _) in self.topology.vhosts() {
            for binding in self.management.broker.bindings_from(vhost, None) {
                *counts.entry((vhost.clone(), binding.source.clone())).or_default() += 1;
            }
        }
        for exchange in &mut self.exchanges {
            let key = (exchange.vhost.clone(), exchange.name.clone());
            exchange.bindings = counts.get(&key).copied().unwrap_or_default();
        }
    }

    /// Notes which connections and channels there are.
    pub(super) fn list_connections(&mut self, chosen: &Chosen) {
        for connection in self.management.broker.registry.all() {
            let (name, vhost) = {
                let facts = connection.record.facts.lock();
                (Arc::clone(&facts.name), facts.vhost.clone())
            };
            // One that has not opened its vhost yet belongs to none.
            let vhost = vhost.unwrap_or_else(|| VhostName::new(""));
            if !chosen.has_vhost(vhost.as_str()) {
                continue;
            }
            for record in connection.record.channels() {
                let name = format!("{name} ({})", record.number);
                self.channels.push(ChannelItem { name, vhost: vhost.clone(), record });
            }
            self.connections.push(ConnectionItem { name, record: connection.record });
        }
    }
}

impl Sums {
    fn of(management: &Management, topology: &Topology, now_ms: u64) -> Self {
        let mut durations = topology.removed.queues;
        let mut exchanges = topology.removed.exchanges;
        let mut queue_count = 0;
        let mut head_arrived = u64::MAX;
        for (_, vhost) in topology.vhosts() {
            for queue in vhost.queues.values() {
                queue_count += 1;
                durations.add(&queue.statistics);
                let arrived = queue.statistics.numbers.get(QueueNumber::HeadArrived);
                head_arrived = head_arrived.min(if arrived == 0 { u64::MAX } else { arrived });
            }
            for statistics in vhost.exchange_statistics.values() {
                add_all(&mut exchanges, &statistics.snapshot());
            }
        }
        durations.numbers[QueueNumber::HeadArrived as usize] = if head_arrived == u64::MAX { 0 } else { head_arrived };
        let registry = &management.broker.registry;
        let (channels, channel_count) = registry.channel_totals();
        let (traffic, connection_count) = registry.traffic_totals();
        let mut sums = Self {
            queues: QueueRow { numbers: durations.numbers, now_ms },
            durations,
            queue_count,
            exchanges: ExchangeRow(exchanges),
            channels: ChannelRow(channels),
            channel_count: channel_count as u64,
            publishers: 0,
            connections: ConnectionRow { traffic, channels: channel_count as u64 },
            connection_count: connection_count as u64,
            states: ConnectionState::ALL.iter().map(|state| (state.name(), 0)).collect(),
            without_credit: 0,
        };
        for connection in registry.all() {
            let state = connection.record.facts.lock().state.name();
            *sums.states.entry(state).or_default() += 1;
            sums.without_credit += u64::from(connection.waits_for_credit());
            let channels = connection.record.channels();
            let published = |channel: &Arc<ChannelRecord>| channel.statistics.get(ChannelNumber::Published) > 0;
            sums.publishers += channels.iter().filter(|channel| published(channel)).count() as u64;
        }
        sums
    }
}
