//! Bindings between exchanges, alternate exchanges, missing destinations, and what may be cached.

use super::*;

fn with_alternate(name: &str, kind: ExchangeKind, alternate: &str) -> Exchange {
    Exchange { alternate: Some(alternate.into()), ..exchange(name, kind) }
}

#[test]
fn cycles_end_and_each_exchange_is_entered_once() {
    let mut routing = all_kinds();
    for (source, destination) in [("direct", "fanout"), ("fanout", "topic"), ("topic", "direct"), ("fanout", "fanout")]
    {
        routing.bind(&to_exchange(source, destination, if source == "topic" { "#" } else { "k" }));
    }
    routing.bind(&to_queue("direct", "q1", "k"));
    routing.bind(&to_queue("topic", "q2", "*"));
    routing.bind(&to_queue("topic", "q1", "#"));
    for start in ["direct", "fanout", "topic"] {
        assert_eq!(routed_by_key(&routing, start, "k"), [1, 2], "{start}");
    }
    routing.remove_exchange(&"topic".into());
    assert_eq!(routed_by_key(&routing, "direct", "k"), [1], "a missing exchange is skipped");
}

#[test]
fn a_wide_graph_of_exchanges() {
    let mut routing = all_kinds();
    for at in 0..200 {
        let name = format!("e{at}");
        routing.insert_exchange(&exchange(&name, ExchangeKind::Fanout));
        routing.bind(&to_exchange("fanout", &name, ""));
        routing.bind(&to_exchange(&name, "fanout", ""));
        routing.bind(&to_queue(&name, &format!("q{}", at % 10), ""));
    }
    let all: Vec<u64> = (0..10).collect();
    assert_eq!(routed_by_key(&routing, "fanout", ""), all);
    assert_eq!(routed_by_key(&routing, "e7", ""), all);
}

#[test]
fn alternate_only_when_the_exchange_led_nowhere() {
    let mut routing = all_kinds();
    routing.insert_exchange(&with_alternate("main", ExchangeKind::Direct, "second"));
    assert_eq!(routed_by_key(&routing, "main", "k"), [0; 0], "the alternate exchange need not exist");
    routing.insert_exchange(&with_alternate("second", ExchangeKind::Direct, "fanout"));
    routing.bind(&to_queue("fanout", "q1", ""));
    routing.bind(&to_queue("second", "q2", "second"));
    routing.bind(&to_queue("main", "q3", "main"));
    routing.bind(&to_exchange("main", "direct", "elsewhere"));
    routing.bind(&to_queue("main", "missing", "to missing queue"));
    routing.bind(&to_exchange("main", "missing", "to missing exchange"));
    let cases: &[(&str, &[u64])] = &[
        ("main", &[3]),
        ("second", &[2]),
        ("none", &[1]),
        // it leads to an exchange which matches nothing: main's alternate is not used
        ("elsewhere", &[]),
        ("to missing queue", &[]),
        ("to missing exchange", &[]),
    ];
    for (key, expected) in cases {
        assert_eq!(routed_by_key(&routing, "main", key), *expected, "{key}");
    }
    // several keys are one message: one of them led somewhere
    assert_eq!(routed(&routing, "main", &["none", "main"], &Facts::default()), [3]);
    routing.insert_exchange(&with_alternate("main", ExchangeKind::Direct, "main"));
    assert_eq!(routed_by_key(&routing, "main", "none"), [0; 0], "its own alternate");
    routing.insert_exchange(&exchange("main", ExchangeKind::Direct));
    assert_eq!(routed_by_key(&routing, "main", "main"), [3], "an update keeps the bindings");
    routing.insert_exchange(&exchange("main", ExchangeKind::Fanout));
    assert_eq!(routed_by_key(&routing, "main", "main"), [0; 0], "another kind is another exchange");
}

/// Alternates are found while routing through bound exchanges too.
#[test]
fn alternates_of_bound_exchanges() {
    let mut routing = all_kinds();
    routing.insert_exchange(&with_alternate("inner", ExchangeKind::Topic, "direct"));
    routing.bind(&to_exchange("fanout", "inner", ""));
    routing.bind(&to_queue("fanout", "q1", ""));
    routing.bind(&to_queue("direct", "q2", "k"));
    assert_eq!(routed_by_key(&routing, "fanout", "k"), [1, 2]);
}

/// Order of removal and insertion does not matter to what is routed, whatever the kind of the exchange.
#[test]
fn queues_that_leave_before_their_bindings() {
    for kind in ["direct", "fanout", "topic", "headers", "x-consistent-hash", "x-modulus-hash", "x-random"] {
        let mut routing = all_kinds();
        let key = if kind == "x-consistent-hash" { "1" } else { "k" };
        let routed_key = |routing: &RoutingTable| routed_by_key(routing, kind, key);
        routing.bind(&to_queue(kind, "q1", key));
        let before = routing.clone();
        routing.remove_queue(&"q1".into());
        assert_eq!(routed_key(&routing), [0; 0], "{kind}");
        assert_eq!(routed_key(&before), [1], "a snapshot does not change");
        routing.insert_queue("q1".into(), target(77));
        assert_eq!(routed_key(&routing), [77], "{kind}");
        routing.insert_queue("q1".into(), target(78));
        assert_eq!(routed_key(&routing), [78], "{kind}");
        assert!(!routing.bind(&to_queue(kind, "q1", key)), "{kind}");
        assert_eq!(routed_key(&routing), [78], "{kind}");
        assert!(routing.unbind(&to_queue(kind, "q1", key)), "{kind}");
        assert!(routing.stale.is_empty());
        assert_eq!(routed_key(&routing), [0; 0], "{kind}");
        routing.bind(&to_queue(kind, "later", key));
        assert_eq!(routed_key(&routing), [0; 0], "{kind}");
        routing.insert_queue("later".into(), target(80));
        assert_eq!(routed_key(&routing), [80], "{kind}");
        assert!(routing.unbind(&to_queue(kind, "later", key)));
        routing.remove_queue(&"later".into());
        routing.remove_queue(&"q1".into());
        assert_eq!(routing.queues.size(), 9, "{kind}");
    }
}

#[test]
fn what_may_be_cached() {
    let mut routing = all_kinds();
    let hash = |name: &str, arguments| Exchange { arguments, ..exchange(name, ExchangeKind::ConsistentHash) };
    routing.insert_exchange(&hash("by-header", table(&[("hash-header", FieldValue::string("h"))])));
    routing.insert_exchange(&hash("by-property", table(&[("hash-property", FieldValue::string("message_id"))])));
    routing.insert_exchange(&exchange("to-random", ExchangeKind::Fanout));
    routing.bind(&to_exchange("to-random", "x-random", ""));
    let cases = [
        ("", true),
        ("direct", true),
        ("fanout", true),
        ("topic", true),
        ("x-modulus-hash", true),
        ("x-consistent-hash", true),
        ("by-header", false),
        ("by-property", false),
        ("headers", false),
        ("x-random", false),
        ("x-local-random", false),
        ("x-recent-history", false),
        ("to-random", false),
    ];
    let mut targets = Targets::default();
    for (exchange, expected) in cases {
        targets.clear();
        routing.route(exchange.as_bytes(), &[b"k"], &Facts::default(), &mut targets).unwrap();
        assert_eq!(targets.cacheable, expected, "{exchange}");
    }
}
