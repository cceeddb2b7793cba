//! Direct, fanout, topic and headers, one table each.

use super::*;

#[test]
fn default_exchange_routes_to_the_queue_of_that_name() {
    let routing = all_kinds();
    assert_eq!(routed_by_key(&routing, "", "q3"), [3]);
    assert_eq!(routed_by_key(&routing, "", "Q3"), [0; 0]);
    assert_eq!(routed(&routing, "", &["q1", "q2", "q1", "none"], &Facts::default()), [1, 2]);
    let mut targets = Targets::default();
    assert_eq!(routing.route(b"", &[b"\xff"], &Facts::default(), &mut targets), Ok(()));
    assert!(targets.is_empty() && targets.cacheable);
    assert_eq!(routing.route(b"none", &[b"q1"], &Facts::default(), &mut targets), Err(UnknownExchange));
    assert_eq!(routing.route(b"\xff", &[b"q1"], &Facts::default(), &mut targets), Err(UnknownExchange));
}

#[test]
fn direct_compares_bytes() {
    let mut routing = all_kinds();
    assert!(routing.bind(&to_queue("direct", "q1", "a")));
    assert!(!routing.bind(&to_queue("direct", "q1", "a")));
    assert!(routing.bind(&to_queue("direct", "q2", "a")));
    assert!(routing.bind(&to_queue("direct", "q2", "")));
    assert!(routing.bind(&to_queue("direct", "q3", "#")));
    assert_eq!(routed_by_key(&routing, "direct", "a"), [1, 2]);
    assert_eq!(routed_by_key(&routing, "direct", ""), [2]);
    assert_eq!(routed_by_key(&routing, "direct", "#"), [3]);
    assert_eq!(routed_by_key(&routing, "direct", "A"), [0; 0]);
    assert!(routing.unbind(&to_queue("direct", "q1", "a")));
    assert!(!routing.unbind(&to_queue("direct", "q1", "a")));
    assert_eq!(routed_by_key(&routing, "direct", "a"), [2]);
    assert!(!routing.bind(&to_queue("missing", "q1", "a")), "a binding without a source is ignored");
    assert!(!routing.unbind(&to_queue("missing", "q1", "a")));
}

/// A queue bound twice receives one copy, and only the exact binding is removed.
#[test]
fn arguments_are_part_of_a_bindings_identity() {
    for kind in ["direct", "fanout", "topic", "x-recent-history"] {
        let mut routing = all_kinds();
        let destination = Destination::Queue("q1".into());
        let short = binding(kind, destination.clone(), "k", table(&[("a", FieldValue::I16(1))]));
        let long = binding(kind, destination.clone(), "k", table(&[("a", FieldValue::I64(1))]));
        let two = [("b", FieldValue::Void), ("a", FieldValue::Void)];
        let swapped = [("a", FieldValue::Void), ("b", FieldValue::Void)];
        let two = binding(kind, destination.clone(), "k", table(&two));
        let swapped = binding(kind, destination, "k", table(&swapped));
        for new in [&short, &long, &two, &to_queue(kind, "q1", "k")] {
            assert!(routing.bind(new), "{kind}");
            assert!(!routing.bind(new), "{kind}");
        }
        assert!(!routing.bind(&swapped), "arguments are compared sorted by key");
        for gone in [&swapped, &long, &to_queue(kind, "q1", "k")] {
            assert_eq!(routed_by_key(&routing, kind, "k"), [1]);
            assert!(routing.unbind(gone), "{kind}");
            assert!(!routing.unbind(gone), "{kind}");
        }
        assert_eq!(routed_by_key(&routing, kind, "k"), [1]);
        assert!(routing.unbind(&short));
        assert_eq!(routed_by_key(&routing, kind, "k"), [0; 0]);
    }
}

#[test]
fn fanout_ignores_keys_but_not_in_a_bindings_identity() {
    let mut routing = all_kinds();
    for (queue, key) in [("q1", ""), ("q1", "a"), ("q2", "b")] {
        assert!(routing.bind(&to_queue("fanout", queue, key)));
    }
    assert_eq!(routed_by_key(&routing, "fanout", "any"), [1, 2]);
    assert!(!routing.unbind(&to_queue("fanout", "q1", "b")));
    assert!(routing.unbind(&to_queue("fanout", "q1", "a")));
    assert_eq!(routed_by_key(&routing, "fanout", "any"), [1, 2]);
    assert!(routing.unbind(&to_queue("fanout", "q1", "")));
    assert_eq!(routed_by_key(&routing, "fanout", "any"), [2]);
}

#[test]
fn ten_thousand_queues_receive_one_copy_each() {
    let mut routing = all_kinds();
    for id in 0..10_000 {
        let name = format!("many{id}");
        routing.insert_queue(name.as_str().into(), target(1000 + id));
        routing.bind(&to_queue("fanout", &name, ""));
        routing.bind(&to_queue("fanout", &name, "again"));
    }
    routing.bind(&to_exchange("topic", "fanout", "#"));
    routing.bind(&to_queue("topic", "many17", "#"));
    let all: Vec<u64> = (1000..11_000).collect();
    assert_eq!(routed_by_key(&routing, "fanout", ""), all);
    assert_eq!(routed_by_key(&routing, "topic", ""), all);
}

#[track_caller]
fn check_topic(pattern: &str, key: &str, expected: bool) {
    let mut routing = all_kinds();
    routing.bind(&to_queue("topic", "q1", pattern));
    let matched = routed_by_key(&routing, "topic", key) == [1];
    assert_eq!(matched, expected, "{pattern:?} against {key:?}");
}

#[test]
fn topic_words() {
    let matching = [
        ("", ""),
        ("a", "a"),
        ("a.b.c", "a.b.c"),
        ("*", "a"),
        ("*", "*"),
        ("*.*", "."),
        ("*.*", "a."),
        ("*.*", ".a"),
        ("a.*.c", "a..c"),
        ("a.*.c", "a.b.c"),
        ("a..b", "a..b"),
        (".", "."),
        ("#", ""),
        ("#", "a"),
        ("#", "a.b..c"),
        ("#.#", ""),
        ("#.#", "a.b"),
        ("#.#.#", "a"),
        ("*.#", "a"),
        ("*.#", "a.b"),
        ("#.*", "a.b"),
        ("a.#", "a"),
        ("a.#", "a."),
        ("a.#", "a.b.c"),
        ("#.a", "a"),
        ("#.a.#", "a"),
        ("#.a.#", "b.a.c"),
        ("#.a.#.a.#", "x.a.a.y"),
        ("#.a.*", "a.a"),
        ("*.#.*", "a.b"),
        ("a*", "a*"),
        ("a#", "a#"),
        ("x.#.y.#.z", "x.y.z"),
        ("x.#.y.#.z", "x.1.y.y.2.z"),
    ];
    for (pattern, key) in matching {
        check_topic(pattern, key, true);
    }
    let other = [
        ("", "a"),
        ("", "."),
        ("a", ""),
        ("a", "A"),
        ("a", "a."),
        ("a.b", "a"),
        ("*", ""),
        ("*", "a.b"),
        ("*", "."),
        ("*.#", ""),
        ("#.*", ""),
        ("*.#.*", "a"),
        ("a*", "ab"),
        ("a#", "ab"),
        ("#.a", "a.b"),
        ("#.a.#.a.#", "x.a.y"),
        ("x.#.y.#.z", "x.z.y"),
        ("a.#", "b"),
    ];
    for (pattern, key) in other {
        check_topic(pattern, key, false);
    }
}

/// States are visited once: without that this takes about `120 over 20` steps.
#[test]
fn many_wildcards_end_fast() {
    let mut routing = all_kinds();
    let pattern = vec!["#"; 20].join(".a.");
    routing.bind(&to_queue("topic", "q1", &format!("{pattern}.b")));
    routing.bind(&to_queue("topic", "q2", &pattern));
    routing.bind(&to_queue("topic", "q3", &format!("{}.b", vec!["#"; 120].join("."))));
    routing.bind(&to_queue("topic", "q4", &vec!["#.*"; 60].join(".")));
    let key = vec!["a"; 127].join(".");
    assert_eq!(routed_by_key(&routing, "topic", &key), [2, 4]);
    assert_eq!(routed_by_key(&routing, "topic", &format!("{key}.b")), [1, 2, 3, 4]);
    assert_eq!(routed_by_key(&routing, "topic", &".".repeat(254)), [4]);
}

#[test]
fn unbinding_a_topic_key_leaves_its_neighbours() {
    let mut routing = all_kinds();
    let keys = ["a", "a.b", "a.*", "a.#", "a.b.c", "#", ""];
    for (at, key) in keys.iter().enumerate() {
        assert!(routing.bind(&to_queue("topic", &format!("q{at}"), key)));
    }
    assert_eq!(routed_by_key(&routing, "topic", "a.b"), [1, 2, 3, 5]);
    for key in ["b", "a.c", "*", "a.b.c.d", "#.#"] {
        assert!(!routing.unbind(&to_queue("topic", "q0", key)));
    }
    for (at, key) in keys.iter().enumerate() {
        assert!(routing.unbind(&to_queue("topic", &format!("q{at}"), key)));
        assert!(!routing.unbind(&to_queue("topic", &format!("q{at}"), key)));
        let left: Vec<u64> = [1, 2, 3, 5].into_iter().filter(|id| *id > at as u64).collect();
        assert_eq!(routed_by_key(&routing, "topic", "a.b"), left);
    }
}

fn text(value: &str) -> FieldValue {
    FieldValue::string(value)
}

#[track_caller]
fn check_headers(arguments: &[(&str, FieldValue)], headers: Option<&[(&str, FieldValue)]>, expected: bool) {
    let mut routing = all_kinds();
    let new = binding("headers", Destination::Queue("q1".into()), "ignored", table(arguments));
    assert!(routing.bind(&new) && !routing.bind(&new));
    let raw = headers.map(|pairs| encoded(&table(pairs)));
    let facts = Facts { headers: raw.as_deref(), ..Facts::default() };
    let matched = routed(&routing, "headers", &["key"], &facts) == [1];
    assert_eq!(matched, expected, "{arguments:?} against {headers:?}");
    assert!(routing.unbind(&new) && !routing.unbind(&new));
    assert_eq!(routed(&routing, "headers", &["key"], &facts), [0; 0]);
}

/// One argument against one header of the same name; the answers are RabbitMQ's.
#[test]
fn header_values() {
    use FieldValue::{Array, Bool, Decimal, F32, F64, I8, I16, I32, I64, Table, Timestamp, U8, U16, U32, Void};
    let nested = |value: i32| Table(table(&[("x", I32(value))]));
    let binary = FieldValue::Binary("z".into());
    let cases = [
        (I32(5), I16(5), true),
        (I64(5), U8(5), true),
        (U16(7), U32(7), true),
        (I8(-1), I64(-1), true),
        (U8(255), I8(-1), false),
        (I32(5), I32(6), false),
        (I32(5), F64(5.0), false),
        (F32(1.5), F64(1.5), true),
        (F64(0.0), F64(-0.0), false),
        (text("5"), I32(5), false),
        (text("z"), binary.clone(), true),
        (binary, text("z"), true),
        (text("a"), text("A"), false),
        (text(""), text(""), true),
        (Bool(true), I32(1), false),
        (Bool(true), Bool(true), true),
        (Bool(true), Bool(false), false),
        (Decimal { scale: 1, value: 15 }, Decimal { scale: 1, value: 15 }, true),
        (Decimal { scale: 1, value: 15 }, Decimal { scale: 2, value: 150 }, false),
        (Void, I32(1), true),
        (Void, Void, true),
        (Void, nested(1), true),
        (I32(1), Void, false),
        (nested(1), nested(1), true),
        (nested(1), nested(2), false),
        (nested(1), I32(1), false),
        (Array(vec![I32(1), text("a")]), Array(vec![I32(1), text("a")]), true),
        (Array(vec![I32(1)]), Array(vec![I32(1), I32(1)]), false),
        // a message's timestamps count in milliseconds, a binding's in seconds
        (I64(5000), Timestamp(5), true),
        (Timestamp(5), Timestamp(5), false),
        (Timestamp(5000), Timestamp(5), true),
        (Timestamp(5), I32(5), true),
        (Timestamp(u64::MAX), Timestamp(u64::MAX), false),
    ];
    for (argument, header, expected) in cases {
        check_headers(&[("a", argument.clone())], Some(&[("a", header.clone())]), expected);
        check_headers(&[("x-match", text("any")), ("a", argument)], Some(&[("b", I32(0)), ("a", header)]), expected);
    }
}

type Pairs<'a> = &'a [(&'a str, FieldValue)];

#[test]
fn header_quantifiers() {
    let one = |key| (key, FieldValue::I32(1));
    let two = |key| (key, FieldValue::I32(2));
    let matching = |mode| ("x-match", text(mode));
    let ab: &[_] = &[one("a"), one("b")];
    // (x-match, more arguments, headers, expected)
    let cases: &[(&str, Pairs<'_>, Option<Pairs<'_>>, bool)] = &[
        ("all", ab, Some(ab), true),
        ("all", ab, Some(&[one("b"), one("c"), one("a")]), true),
        ("all", ab, Some(&[one("a")]), false),
        ("all", ab, Some(&[one("a"), two("b")]), false),
        ("all", ab, None, false),
        ("all", &[], None, true),
        ("all", &[], Some(ab), true),
        ("all", &[one("x-a")], None, true),
        ("all", &[one("x-a"), one("a")], Some(&[one("a")]), true),
        ("any", ab, Some(&[one("b")]), true),
        ("any", ab, Some(&[two("a"), one("b")]), true),
        ("any", ab, Some(&[two("a"), two("b")]), false),
        ("any", ab, None, false),
        ("any", &[], Some(ab), false),
        ("any", &[one("x-a")], Some(&[one("x-a")]), false),
        ("all-with-x", &[one("x-a")], Some(&[two("x-a")]), false),
        ("all-with-x", &[one("x-a")], Some(&[one("x-a")]), true),
        ("all-with-x", &[one("x-a"), one("a")], Some(&[one("a")]), false),
        ("all-with-x", &[], None, true),
        ("any-with-x", &[one("x-a"), one("a")], Some(&[one("x-a")]), true),
        ("any-with-x", &[], Some(ab), false),
        // of two headers with one name the last counts, as in RabbitMQ
        ("all", &[one("a")], Some(&[one("a"), two("a")]), false),
        ("all", &[one("a")], Some(&[two("a"), one("a")]), true),
        ("any", &[one("a")], Some(&[one("a"), two("a")]), false),
    ];
    for (mode, arguments, headers, expected) in cases {
        check_headers(&[&[matching(mode)], *arguments].concat(), *headers, *expected);
        if *mode == "all" {
            check_headers(arguments, *headers, *expected);
        }
    }
}

#[test]
fn a_malformed_header_table_counts_up_to_its_fault() {
    let mut routing = all_kinds();
    let queue = || Destination::Queue("q1".into());
    routing.bind(&binding("headers", queue(), "", table(&[("a", FieldValue::I32(1))])));
    let mut raw = encoded(&table(&[("a", FieldValue::I32(1))]));
    raw.extend_from_slice(b"\x01bI\0");
    let facts = Facts { headers: Some(&raw), ..Facts::default() };
    assert_eq!(routed(&routing, "headers", &[""], &facts), [1]);
}
