//! Tests of routing: tables per exchange kind, and random changes and messages against a plain model.

mod graph;
mod kinds;
mod model;
mod pick;

use super::*;
use crate::model::names::RoutingKey;
use crate::model::table::{FieldTable, FieldValue};

/// Appends a pair while building a table.
fn table(pairs: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    pairs.iter().for_each(|(key, value)| table.push(key, value.clone()));
    table
}

fn exchange(name: &str, kind: ExchangeKind) -> Exchange {
    Exchange {
        name: name.into(),
        kind,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::default(),
        alternate: None,
    }
}

fn binding(source: &str, destination: Destination, key: &str, arguments: FieldTable) -> Binding {
    Binding { source: source.into(), destination, key: RoutingKey::new(key.as_bytes()), arguments }
}

fn to_queue(source: &str, queue: &str, key: &str) -> Binding {
    binding(source, Destination::Queue(queue.into()), key, FieldTable::default())
}

fn to_exchange(source: &str, exchange: &str, key: &str) -> Binding {
    binding(source, Destination::Exchange(exchange.into()), key, FieldTable::default())
}

fn target(id: u64) -> QueueTarget {
    QueueTarget { id: QueueId(id), shard: u16::try_from(id % 3).unwrap() }
}

/// A table with an exchange of each kind, named after it, and queues q0 to q9 with those numbers as ids.
fn all_kinds() -> RoutingTable {
    let mut routing = RoutingTable::default();
    for kind in ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-modulus-hash", "x-random"] {
        routing.insert_exchange(&exchange(kind, ExchangeKind::from_name(kind).unwrap()));
    }
    for kind in ["x-local-random", "x-recent-history"] {
        routing.insert_exchange(&exchange(kind, ExchangeKind::from_name(kind).unwrap()));
    }
    (0..10).for_each(|id| routing.insert_queue(format!("q{id}").as_str().into(), target(id)));
    routing
}

/// The sorted ids of the queues that receive a message.
fn routed(routing: &RoutingTable, exchange: &str, keys: &[&str], facts: &Facts<'_>) -> Vec<u64> {
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let mut targets = Targets::default();
    routing.route(exchange.as_bytes(), &keys, facts, &mut targets).unwrap();
    let mut ids: Vec<u64> = targets.queues().iter().map(|target| target.id.0).collect();
    ids.sort_unstable();
    ids
}

fn routed_by_key(routing: &RoutingTable, exchange: &str, key: &str) -> Vec<u64> {
    routed(routing, exchange, &[key], &Facts::default())
}

fn encoded(headers: &FieldTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    headers.encode(&mut bytes);
    bytes.split_off(4)
}
