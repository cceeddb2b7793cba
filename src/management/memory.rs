//! What the node's memory is used for, under the names that RabbitMQ's tools know. Messages, the log and the charts' past
//! are counted where they are made; definitions, connections and channels by their number; what is left is said to be
//! left. Nothing is added that the system does not count as resident.

use serde_json::{Map, Value, json};

use super::Management;
use super::node::NodeFacts;
use crate::model::entity::{Exchange, Queue};
use crate::model::message::MESSAGE_OVERHEAD;
use crate::model::statistics::{ExchangeStatistics, QueueNumber, TrafficNumber};

/// Of an open connection without channels: its task, its protocol's state, its session, its lists.
const CONNECTION_MEMORY: u64 = 9 * 1024;
/// Of an open channel: its state in the protocol and in the session, its numbers.
const CHANNEL_MEMORY: u64 = 2 * 1024;
/// Of the buffer into which all connections of a thread read.
const READ_BUFFER_MEMORY: u64 = 128 * 1024;
/// Of a definition's names and its places in maps, and of a binding with its places in indexes.
const NAMES_MEMORY: u64 = 400;

/// Bytes by what they are for. See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    kinds: Vec<(&'static str, u64)>,
    /// Without what the allocator keeps.
    used: u64,
    resident: u64,
}

/// RabbitMQ's kinds, in its order. Those that are not filled in are 0: this broker has no such thing.
const KINDS: [&str; 26] = [
    "connection_readers",
    "connection_writers",
    "connection_channels",
    "connection_other",
    "stream_queue_procs",
    "stream_queue_replica_reader_procs",
    "stream_queue_coordinator_procs",
    "quorum_queue_procs",
    "quorum_queue_dlx_procs",
    "queue_procs",
    "plugins",
    "metadata_store",
    "other_proc",
    "metrics",
    "mgmt_db",
    "quorum_ets",
    "mnesia",
    "metadata_store_ets",
    "other_ets",
    "binary",
    "msg_index",
    "code",
    "atom",
    "other_system",
    "allocated_unused",
    "reserved_unallocated",
];

/// What messages take, in queues and elsewhere.
#[derive(Clone, Copy, Debug, Default)]
struct Messages {
    /// Their slots and all else that keeping them takes.
    bookkeeping: u64,
    /// Their contents.
    contents: u64,
}

impl Memory {
    pub(crate) fn of(management: &Management) -> Self {
        let facts = management.node.facts();
        let broker = &management.broker;
        let (_, open_channels) = broker.registry.channel_totals();
        let (traffic, connections) = broker.registry.traffic_totals();
        let (queues, definitions) = definitions(management);
        let messages = messages(management);
        Self::from_parts(
            &facts,
            &[
                ("connection_readers", READ_BUFFER_MEMORY * facts.processors),
                ("connection_writers", traffic[TrafficNumber::Pending as usize]),
                ("connection_channels", CHANNEL_MEMORY * open_channels as u64 + broker.transaction_bytes()),
                ("connection_other", CONNECTION_MEMORY * connections as u64),
                ("queue_procs", broker.queue_memory() * queues + messages.bookkeeping),
                ("metadata_store", definitions),
                ("mgmt_db", management.history.usage().bytes as u64),
                ("msg_index", broker.log_memory()),
                ("code", facts.memory_code),
                // Bodies that several queues share are counted in each: what is not there cannot be used.
                ("binary", messages.contents),
            ],
        )
    }

    /// Of parts in order of how well they are known: none is more than what the ones before have left.
    fn from_parts(facts: &NodeFacts, parts: &[(&'static str, u64)]) -> Self {
        let used = facts.memory_used.min(facts.memory_resident);
        let mut left = used;
        let mut kinds: Vec<(&str, u64)> = KINDS.iter().map(|kind| (*kind, 0)).collect();
        let mut put = |name: &str, bytes: u64| {
            let kind = kinds.iter_mut().find(|(kind, _)| *kind == name);
            *kind.map(|(_, bytes)| bytes).expect("the kind is listed") = bytes;
        };
        for (name, bytes) in parts {
            let bytes = left.min(*bytes);
            left -= bytes;
            put(name, bytes);
        }
        put("other_proc", left);
        put("allocated_unused", facts.memory_resident - used);
        Self { kinds, used, resident: facts.memory_resident }
    }

    /// Bytes of a kind; 0 for those there are none of.
    pub(crate) fn bytes(&self, name: &str) -> u64 {
        self.kinds.iter().find(|(kind, _)| *kind == name).map_or(0, |(_, bytes)| *bytes)
    }

    /// As `/api/nodes/{node}/memory` has it.
    pub(crate) fn json(&self) -> Value {
        let mut map: Map<String, Value> =
            self.kinds.iter().map(|(kind, bytes)| ((*kind).to_owned(), (*bytes).into())).collect();
        map.insert("strategy".into(), "rss".into());
        let (used, resident) = (self.used, self.resident);
        map.insert("total".into(), json!({"erlang": used, "rss": resident, "allocated": resident}));
        Value::Object(map)
    }

    /// In percent of what is resident, rounded up.
    pub(crate) fn shares(&self) -> Value {
        let mut map = Map::new();
        map.insert("total".into(), 100.into());
        for (kind, bytes) in &self.kinds {
            map.insert((*kind).to_owned(), (bytes * 100).div_ceil(self.resident.max(1)).into());
        }
        Value::Object(map)
    }
}

/// How many queues there are, and bytes of all definitions.
fn definitions(management: &Management) -> (u64, u64) {
    let topology = management.broker.topology();
    let (mut queues, mut bytes) = (0, 0);
    let size = |bytes: usize| bytes as u64 + NAMES_MEMORY;
    for (name, vhost) in topology.vhosts() {
        queues += vhost.queues.size() as u64;
        bytes += vhost.queues.size() as u64 * size(size_of::<Queue>());
        bytes += vhost.exchanges.size() as u64 * size(size_of::<Exchange>() + size_of::<ExchangeStatistics>());
        bytes += management.broker.bindings_from(name, None).len() as u64 * NAMES_MEMORY;
    }
    (queues, bytes)
}

/// What messages take in queues and histories.
fn messages(management: &Management) -> Messages {
    let topology = management.broker.topology();
    let mut in_memory = 0;
    for (_, vhost) in topology.vhosts() {
        for queue in vhost.queues.values() {
            let number = |number| queue.statistics.numbers.get(number);
            in_memory += number(QueueNumber::Ready).saturating_sub(number(QueueNumber::Cold));
            in_memory += number(QueueNumber::Unacked);
        }
    }
    let queued = management.broker.queued_bytes();
    let bookkeeping = (in_memory * MESSAGE_OVERHEAD as u64).min(queued);
    Messages { bookkeeping, contents: queued - bookkeeping }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(used: u64, resident: u64) -> NodeFacts {
        NodeFacts { memory_used: used, memory_resident: resident, ..NodeFacts::default() }
    }

    #[test]
    fn kinds_add_up_to_what_is_resident() {
        let memory = Memory::from_parts(&facts(80, 100), &[("code", 20), ("queue_procs", 10), ("binary", 15)]);
        let bytes = ["code", "queue_procs", "binary", "other_proc", "allocated_unused"].map(|kind| memory.bytes(kind));
        assert_eq!(bytes, [20, 10, 15, 35, 20]);
        assert_eq!(memory.kinds.iter().map(|(_, bytes)| bytes).sum::<u64>(), 100);
        assert_eq!(memory.json()["total"], json!({"erlang": 80, "rss": 100, "allocated": 100}));
        assert_eq!(memory.shares()["binary"], 15);
    }

    #[test]
    fn shared_bodies_are_no_more_than_there_is() {
        let memory = Memory::from_parts(&facts(80, 80), &[("code", 20), ("binary", 1000)]);
        assert_eq!((memory.bytes("binary"), memory.bytes("other_proc")), (60, 0));
    }
}
