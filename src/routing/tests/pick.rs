//! Exchanges that pick a destination, the recent-history exchange, and the texts of refused arguments.

use super::*;

fn route_one(routing: &RoutingTable, exchange: &str, key: &str, facts: &Facts<'_>) -> u64 {
    match routed(routing, exchange, &[key], facts).as_slice() {
        [id] => *id,
        other => panic!("one queue is picked, not {other:?}"),
    }
}

/// How often each of q0 to q9 is picked for 10,000 keys.
fn counts(routing: &RoutingTable, exchange: &str) -> Vec<usize> {
    let mut counts = vec![0; 10];
    for at in 0..10_000_u64 {
        let facts = Facts { random: at.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..Facts::default() };
        counts[usize::try_from(route_one(routing, exchange, &format!("key.{at}"), &facts)).unwrap()] += 1;
    }
    counts
}

#[test]
fn consistent_hash_follows_the_weights() {
    let mut routing = all_kinds();
    for (queue, weight) in [("q0", "10"), ("q1", "20"), ("q2", "70")] {
        assert!(routing.bind(&to_queue("x-consistent-hash", queue, weight)));
    }
    for (count, expected) in counts(&routing, "x-consistent-hash").into_iter().zip([1000, 2000, 7000]) {
        assert!(count.abs_diff(expected) < 300, "{count} instead of {expected}");
    }
    // a second binding of a queue is ignored until the first goes
    assert!(routing.bind(&to_queue("x-consistent-hash", "q0", "10000")));
    assert!(counts(&routing, "x-consistent-hash")[0] < 1300);
    assert!(routing.unbind(&to_queue("x-consistent-hash", "q0", "10")));
    assert!(counts(&routing, "x-consistent-hash")[0] > 9500);
    assert!(routing.unbind(&to_queue("x-consistent-hash", "q0", "10000")));
    assert!(!routing.unbind(&to_queue("x-consistent-hash", "q0", "10000")));
    assert_eq!(counts(&routing, "x-consistent-hash")[0], 0);
}

#[test]
fn consistent_hash_moves_few_keys_when_a_queue_joins() {
    let mut routing = all_kinds();
    (0..9).for_each(|id| _ = routing.bind(&to_queue("x-consistent-hash", &format!("q{id}"), "5")));
    let before = routing.clone();
    routing.bind(&to_queue("x-consistent-hash", "q9", "5"));
    let mut moved = 0;
    for at in 0..10_000 {
        let key = format!("key.{at}");
        let [old, new] =
            [&before, &routing].map(|table| route_one(table, "x-consistent-hash", &key, &Facts::default()));
        assert!(old == new || new == 9, "a key moves to the new queue or stays");
        moved += usize::from(old != new);
    }
    assert!((700..1300).contains(&moved), "{moved}");
    routing.unbind(&to_queue("x-consistent-hash", "q9", "5"));
    for at in 0..100 {
        let key = format!("key.{at}");
        let [old, new] =
            [&before, &routing].map(|table| route_one(table, "x-consistent-hash", &key, &Facts::default()));
        assert_eq!(old, new, "leaving undoes joining");
    }
}

#[test]
fn consistent_hash_on_a_header_or_property() {
    let by = |key: &str, value: &str| Exchange {
        arguments: table(&[(key, FieldValue::string(value))]),
        ..exchange(&format!("{key}.{value}"), ExchangeKind::ConsistentHash)
    };
    let mut routing = all_kinds();
    for (key, value) in [
        ("hash-header", "h"),
        ("x-hash-on", "h"),
        ("hash-property", "message_id"),
        ("hash-property", "correlation_id"),
        ("hash-property", "timestamp"),
    ] {
        let source = by(key, value);
        routing.insert_exchange(&source);
        (0..10).for_each(|id| _ = routing.bind(&to_queue(source.name.as_str(), &format!("q{id}"), "1")));
        let mut seen = std::collections::BTreeSet::new();
        for at in 0..200_u64 {
            let number = at.to_string();
            let raw = encoded(&table(&[("other", FieldValue::Void), ("h", FieldValue::string(&number))]));
            let facts = match value {
                "message_id" => Facts { message_id: Some(number.as_bytes()), ..Facts::default() },
                "correlation_id" => Facts { correlation_id: Some(number.as_bytes()), ..Facts::default() },
                "timestamp" => Facts { timestamp: Some(at), ..Facts::default() },
                _ => Facts { headers: Some(&raw), ..Facts::default() },
            };
            let picked = route_one(&routing, source.name.as_str(), "k", &facts);
            assert_eq!(picked, route_one(&routing, source.name.as_str(), "another", &facts), "keys do not matter");
            seen.insert(picked);
        }
        assert_eq!(seen.len(), 10, "{}", source.name);
        let without = ["k", "another"].map(|key| route_one(&routing, source.name.as_str(), key, &Facts::default()));
        assert_eq!(without[0], without[1], "messages without it go to one queue");
    }
    let widths = [FieldValue::I8(5), FieldValue::I64(5), FieldValue::U16(5)].map(|value| {
        let raw = encoded(&table(&[("h", value)]));
        route_one(&routing, "hash-header.h", "", &Facts { headers: Some(&raw), ..Facts::default() })
    });
    assert!(widths.iter().all(|id| *id == widths[0]), "the width of an integer does not matter");
}

#[test]
fn picks_are_even_over_the_bindings() {
    for exchange in ["x-modulus-hash", "x-random", "x-local-random"] {
        let mut routing = all_kinds();
        assert_eq!(routed_by_key(&routing, exchange, "k"), [0; 0]);
        (0..3).for_each(|id| assert!(routing.bind(&to_queue(exchange, &format!("q{id}"), ""))));
        assert!(routing.bind(&to_queue(exchange, "q2", "again")));
        assert!(!routing.bind(&to_queue(exchange, "q2", "again")));
        for (count, expected) in counts(&routing, exchange).into_iter().zip([2500, 2500, 5000, 0]) {
            assert!(count.abs_diff(expected) < 300, "{exchange}: {count} instead of {expected}");
        }
        assert!(routing.unbind(&to_queue(exchange, "q2", "")));
        assert!(!routing.unbind(&to_queue(exchange, "q2", "")));
        assert!(counts(&routing, exchange)[2].abs_diff(3333) < 300);
    }
}

/// The pick by hash does not depend on the order of binding; a long list keeps its order through splits and merges.
#[test]
fn a_thousand_choices() {
    let mut forward = all_kinds();
    let mut backward = all_kinds();
    let binding = |at: u64| to_queue("x-modulus-hash", &format!("q{}", at % 10), &format!("{at}"));
    (0..1000).for_each(|at| assert!(forward.bind(&binding(at))));
    (0..1000).rev().for_each(|at| assert!(backward.bind(&binding(at))));
    (0..1000).step_by(3).for_each(|at| assert!(forward.unbind(&binding(at)) && backward.unbind(&binding(at))));
    (0..1000).step_by(6).for_each(|at| assert!(forward.bind(&binding(at)) && backward.bind(&binding(at))));
    assert_eq!(counts(&forward, "x-modulus-hash"), counts(&backward, "x-modulus-hash"));
    (0..1000).for_each(|at| assert_eq!(forward.unbind(&binding(at)), at % 3 != 0 || at % 6 == 0));
    assert_eq!(routed_by_key(&forward, "x-modulus-hash", "k"), [0; 0]);
}

#[test]
fn recent_history_is_a_fanout_that_remembers() {
    let mut routing = all_kinds();
    routing.bind(&to_queue("x-recent-history", "q1", ""));
    routing.bind(&to_exchange("fanout", "x-recent-history", ""));
    let mut targets = Targets::default();
    for (no_store, expected) in [
        (None, 1),
        (Some(FieldValue::Bool(false)), 1),
        (Some(FieldValue::string("true")), 1),
        (Some(FieldValue::Bool(true)), 0),
    ] {
        let raw = no_store.map(|value| encoded(&table(&[("x-recent-history-no-store", value)])));
        let facts = Facts { headers: raw.as_deref(), ..Facts::default() };
        for source in ["x-recent-history", "fanout"] {
            targets.clear();
            routing.route(source.as_bytes(), &[b"k"], &facts, &mut targets).unwrap();
            assert_eq!(targets.queues(), [target(1)]);
            assert_eq!(targets.histories.len(), expected);
        }
    }
}

#[test]
fn refused_bindings_and_exchanges() {
    use ExchangeKind::{ConsistentHash, Direct, Headers, Topic};
    let queue = || Destination::Queue("q".into());
    let x_match = |value| binding("x", queue(), "", table(&[("x-match", value)]));
    let cases = [
        (Headers, x_match(FieldValue::string("any-with-x")), ""),
        (Direct, x_match(FieldValue::string("foo")), ""),
        (
            Headers,
            x_match(FieldValue::string("foo")),
            "Invalid x-match field value <<\"foo\">>; expected all, any, all-with-x, or any-with-x",
        ),
        (Headers, x_match(FieldValue::I32(5)), "Invalid x-match field type signedint (value 5); expected longstr"),
        (Headers, x_match(FieldValue::Bool(true)), "Invalid x-match field type bool (value true); expected longstr"),
        (ConsistentHash, to_queue("x", "q", "1"), ""),
        (ConsistentHash, to_queue("x", "q", "10000"), ""),
        (ConsistentHash, to_queue("x", "q", "10001"), "The binding key must not exceed 10000"),
        (ConsistentHash, to_queue("x", "q", "0"), "The binding key must be greater than 0"),
        (ConsistentHash, to_queue("x", "q", "-1"), "The binding key must be greater than 0"),
        (ConsistentHash, to_queue("x", "q", "a"), "The binding key must be an integer: <<\"a\">>"),
        (ConsistentHash, to_queue("x", "q", ""), "The binding key must be an integer: <<>>"),
        (Topic, to_queue("x", "q", "#.#.#.#"), ""),
    ];
    for (kind, binding, expected) in cases {
        assert_eq!(check_binding(kind, &binding).err().unwrap_or_default(), expected);
    }
    let text = FieldValue::string;
    let cases = [
        (table(&[]), ""),
        (table(&[("hash-header", text("h"))]), ""),
        (table(&[("hash-property", text("timestamp"))]), ""),
        (table(&[("hash-property", text("app_id"))]), "Unsupported property: app_id"),
        (
            table(&[("hash-header", text("h")), ("hash-property", text("timestamp"))]),
            "hash-header and hash-property are mutually exclusive",
        ),
        (
            table(&[("x-hash-on", text("h")), ("hash-property", text("timestamp"))]),
            "hash-header and hash-property are mutually exclusive",
        ),
    ];
    for (arguments, expected) in cases {
        assert_eq!(check_exchange_arguments(ConsistentHash, &arguments).err().unwrap_or_default(), expected);
        assert_eq!(check_exchange_arguments(Direct, &arguments), Ok(()));
    }
}
