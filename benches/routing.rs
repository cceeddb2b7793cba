//! What a route and a bind cost. `cargo bench --bench routing`; with `-- --test` every case runs once, shortly.
//!
//! The topic rows should be about equal: the cost follows the matches, not the number of bindings.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use warren::model::entity::{Binding, Destination, Exchange, ExchangeKind};
use warren::model::ids::QueueId;
use warren::model::names::RoutingKey;
use warren::model::table::{FieldTable, FieldValue};
use warren::routing::{Facts, QueueTarget, RoutingTable, Targets};

fn main() {
    let budget = if std::env::args().any(|argument| argument == "--test") {
        Duration::from_millis(1)
    } else {
        Duration::from_millis(500)
    };
    direct_and_fanout(budget);
    for bindings in [100, 1_000, 100_000] {
        topic(budget, bindings);
    }
    topic_worst_case(budget);
    for bindings in [10, 100, 10_000] {
        headers(budget, bindings);
    }
    picks(budget);
    changes(budget);
}

/// Runs `step` with counting numbers for about `budget` and prints the time of one.
fn measure(name: &str, budget: Duration, mut step: impl FnMut(usize)) {
    let start = Instant::now();
    let mut steps = 0;
    while steps == 0 || start.elapsed() < budget {
        (steps..steps + 64).for_each(&mut step);
        steps += 64;
    }
    #[allow(clippy::cast_precision_loss)]
    let each = start.elapsed().as_nanos() as f64 / steps as f64;
    println!("{name:<56} {each:>10.0} ns {:>8.2} M/s", 1000.0 / each);
}

/// Measures routes of messages that differ in their keys.
fn measure_routes(name: &str, budget: Duration, table: &RoutingTable, exchange: &str, keys: &[String], matches: usize) {
    let mut targets = Targets::default();
    measure(name, budget, |at| {
        targets.clear();
        let key = keys[at % keys.len()].as_bytes();
        let facts = Facts { random: (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15), ..Facts::default() };
        let routed = table.route(exchange.as_bytes(), &[black_box(key)], &facts, &mut targets);
        assert!(routed.is_ok() && targets.queues().len() == matches);
        black_box(&targets);
    });
}

fn table_with(kind: &str, queues: u64) -> RoutingTable {
    let mut table = RoutingTable::default();
    table.insert_exchange(&Exchange {
        name: kind.into(),
        kind: ExchangeKind::from_name(kind).unwrap_or(ExchangeKind::Direct),
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::default(),
        alternate: None,
    });
    for id in 0..queues {
        table.insert_queue(format!("queue.{id}").as_str().into(), QueueTarget { id: QueueId(id), shard: 0 });
    }
    table
}

fn binding(source: &str, queue: usize, key: &str) -> Binding {
    Binding {
        source: source.into(),
        destination: Destination::Queue(format!("queue.{queue}").as_str().into()),
        key: RoutingKey::new(key.as_bytes()),
        arguments: FieldTable::default(),
    }
}

fn direct_and_fanout(budget: Duration) {
    let table = table_with("direct", 1000);
    let names: Vec<String> = (0..1000).map(|at| format!("queue.{at}")).collect();
    measure_routes("default exchange, 1,000 queues", budget, &table, "", &names, 1);
    for bindings in [1_000, 100_000] {
        let mut table = table_with("direct", 1000);
        let keys: Vec<String> = (0..bindings).map(|at| format!("orders.created.{at}")).collect();
        keys.iter().enumerate().for_each(|(at, key)| _ = table.bind(&binding("direct", at % 1000, key)));
        measure_routes(&format!("direct, {bindings} bindings"), budget, &table, "direct", &keys, 1);
    }
    for queues in [1, 10, 10_000] {
        let mut table = table_with("fanout", queues as u64);
        (0..queues).for_each(|at| _ = table.bind(&binding("fanout", at, "")));
        measure_routes(&format!("fanout, {queues} queues"), budget, &table, "fanout", &[String::new()], queues);
    }
}

/// Every message matches an exact key, one with `*` and one with `#`; all other bindings are beside the way.
fn topic(budget: Duration, bindings: usize) {
    let mut table = table_with("topic", 1000);
    for at in 0..bindings {
        let key = match at % 5 {
            0 | 1 => format!("stock.{at}.usd.nyse"),
            2 => format!("stock.{at}.*.nyse"),
            3 => format!("bond.{at}.#"),
            _ => format!("fund.{at}.*.#.eu"),
        };
        table.bind(&binding("topic", at % 900, &key));
    }
    for (at, key) in ["metal.gold.eur", "metal.*.eur", "metal.#"].into_iter().enumerate() {
        table.bind(&binding("topic", 900 + at, key));
    }
    let name = format!("topic, {bindings} bindings, 3 matches");
    measure_routes(&name, budget, &table, "topic", &["metal.gold.eur".to_owned()], 3);
}

fn topic_worst_case(budget: Duration) {
    let mut table = table_with("topic", 1000);
    let pattern = vec!["#"; 20].join(".a.");
    table.bind(&binding("topic", 0, &format!("{pattern}.b")));
    let key = vec!["a"; 127].join(".");
    measure_routes("topic, 20 # against 127 words, no match", budget, &table, "topic", &[key], 0);
}

/// Bindings of two arguments; each message has four headers and matches one binding.
fn headers(budget: Duration, bindings: usize) {
    for mode in ["all", "any"] {
        let mut table = table_with("headers", 1000);
        for at in 0..bindings {
            let mut new = binding("headers", at % 1000, "");
            new.arguments.push("customer", FieldValue::string(&format!("c{at}")));
            let region = if mode == "all" { at % 3 } else { at };
            new.arguments.push("region", FieldValue::string(&format!("r{region}")));
            new.arguments.push("x-match", FieldValue::string(mode));
            table.bind(&new);
        }
        let messages: Vec<Vec<u8>> = (0..bindings).map(|at| message_headers(at, mode)).collect();
        let mut targets = Targets::default();
        measure(&format!("headers {mode}, {bindings} bindings, 4 headers, 1 match"), budget, |at| {
            targets.clear();
            let facts = Facts { headers: Some(black_box(&messages[at % messages.len()])), ..Facts::default() };
            let routed = table.route(b"headers", &[b"key"], &facts, &mut targets);
            assert!(routed.is_ok() && targets.queues().len() == 1);
            black_box(&targets);
        });
    }
}

fn message_headers(at: usize, mode: &str) -> Vec<u8> {
    let mut headers = FieldTable::default();
    headers.push("trace", FieldValue::string("4bf92f3577b34da6a3ce929d0e0e4736"));
    headers.push("attempt", FieldValue::I32(1));
    headers.push("region", FieldValue::string(&format!("r{}", if mode == "all" { at % 3 } else { at })));
    headers.push("customer", FieldValue::string(&format!("c{at}")));
    let mut bytes = Vec::new();
    headers.encode(&mut bytes);
    bytes.split_off(4)
}

fn picks(budget: Duration) {
    let keys: Vec<String> = (0..1000).map(|at| format!("user.{at}")).collect();
    for kind in ["x-consistent-hash", "x-modulus-hash", "x-random"] {
        for queues in [10, 1_000] {
            let mut table = table_with(kind, queues as u64);
            (0..queues).for_each(|at| _ = table.bind(&binding(kind, at, "10")));
            measure_routes(&format!("{kind}, {queues} queues"), budget, &table, kind, &keys, 1);
        }
    }
}

/// Binds while a snapshot is held, as a machine that publishes after every change does.
fn changes(budget: Duration) {
    for kind in ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-random"] {
        let mut table = table_with(kind, 100_000);
        let make = |at: usize| {
            let key = if kind == "x-consistent-hash" { "1".to_owned() } else { format!("stock.{at}.usd") };
            let mut new = binding(kind, at % 100_000, &key);
            new.arguments.push("at", FieldValue::I64(i64::try_from(at).unwrap_or(0)));
            new
        };
        let start = Instant::now();
        (0..100_000).for_each(|at| _ = table.bind(&make(at)));
        println!("{kind}: 100,000 binds in {} ms", start.elapsed().as_millis());
        let mut snapshot = table.clone();
        measure(&format!("{kind}, bind at 100,000 with a snapshot each"), budget, |at| {
            assert!(table.bind(&make(100_000 + at)));
            snapshot = table.clone();
        });
        measure(&format!("{kind}, unbind and bind at 100,000"), budget, |at| {
            let old = make(at % 100_000);
            assert!(table.unbind(&old) && table.bind(&old));
            snapshot = table.clone();
        });
        black_box(&snapshot);
    }
}
