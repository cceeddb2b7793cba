//! Routing as seen on the wire.

use crate::{
    cases::run_all,
    client::Client,
    harness::{Names, broker, is_warren},
    methods::{basic, confirm, exchange, queue},
    wire::{Properties, Table, Value, table},
};

fn none() -> Table {
    Table::new()
}

/// Publishes with `mandatory` and reports whether a queue took the message; every queue is emptied.
fn routed(client: &mut Client, exchange: &str, key: &str, properties: &Properties) -> bool {
    client.publish_with(1, &basic::publish(exchange, key, basic::MANDATORY), properties, b"m");
    match client.recv(1) {
        incoming if incoming.method.ids() == basic::RETURN => {
            client.expect(1, basic::ACK);
            false
        }
        incoming => {
            assert_eq!(incoming.method.ids(), basic::ACK);
            true
        }
    }
}

/// A connection in confirm mode with an exchange and an exclusive queue.
fn setup(names: &mut Names, kind: &str) -> (Client, String, String) {
    let mut client = broker().connect();
    let source = names.exchange(kind);
    client.call(1, &exchange::declare(&source, kind, 0, &none()));
    client.call(1, &confirm::select(0));
    let name = client.exclusive_queue(1, &none());
    (client, source, name)
}

#[test]
fn topic_patterns() {
    let patterns: Vec<(&str, Vec<&str>, Vec<&str>)> = vec![
        ("a.b", vec!["a.b"], vec!["a", "a.b.c", "a.b.", ".a.b", "A.b", ""]),
        ("*", vec!["a", "#", "*"], vec!["", "a.b", "."]),
        ("#", vec!["", "a", "a.b", "."], vec![]),
        ("a.*", vec!["a.b", "a."], vec!["a", "a.b.c"]),
        ("a.#", vec!["a", "a.b", "a.b.c", "a."], vec!["b", "aa", ""]),
        ("#.a", vec!["a", "b.a", "b.c.a", ".a"], vec!["a.b", ""]),
        ("#.a.#", vec!["a", "b.a.c", "a.b", "b.a"], vec!["b", "b.c", "aa"]),
        ("*.#", vec!["a", "a.b", "."], vec![""]),
        ("#.#", vec!["", "a", "a.b"], vec![]),
        ("*.*", vec!["a.b", "."], vec!["a", "a.b.c", ""]),
        ("a..b", vec!["a..b"], vec!["a.b", "a.c.b"]),
        ("a.*.b", vec!["a..b", "a.c.b"], vec!["a.b", "a.c.c.b"]),
        ("a*", vec!["a*"], vec!["ab", "a"]),
        ("a#.b", vec!["a#.b"], vec!["a.b", "ab.b"]),
        ("", vec![""], vec!["a", "."]),
    ];
    let mut names = Names::new();
    let source = names.exchange("topic");
    run_all(
        patterns,
        |pattern| format!("{:?}", pattern.0),
        |(pattern, matching, others)| {
            let mut client = broker().connect();
            client.call(1, &exchange::declare(&source, "topic", 0, &none()));
            client.call(1, &confirm::select(0));
            let name = client.exclusive_queue(1, &none());
            client.call(1, &queue::bind(&name, &source, pattern, 0, &none()));
            for (keys, expected) in [(matching, true), (others, false)] {
                for key in keys {
                    assert_eq!(routed(&mut client, &source, key, &Properties::default()), expected, "key {key:?}");
                }
            }
            client.call(1, &queue::unbind(&name, &source, pattern, &none()));
            client.close();
        },
    );
}

/// RabbitMQ 4.3 refuses such patterns.
#[test]
fn topic_patterns_with_many_hashes() {
    if !is_warren() {
        return;
    }
    let mut names = Names::new();
    let (mut client, source, name) = setup(&mut names, "topic");
    client.call(1, &queue::bind(&name, &source, "#.a.#.b.#.c.#", 0, &none()));
    for (key, expected) in [("a.b.c", true), ("x.a.x.b.x.c.x", true), ("a.c.b", false), ("a.b", false)] {
        assert_eq!(routed(&mut client, &source, key, &Properties::default()), expected, "key {key:?}");
    }
}

#[test]
fn headers_matching() {
    let five = || table([("n", Value::I64(5))]);
    let with_match = |kind: &str, mut pairs: Table| {
        pairs.push(("x-match".to_owned(), kind.into()));
        pairs
    };
    let both = || table([("n", 5.into()), ("s", "five".into())]);
    let rows: Vec<(&str, Table, Table, bool)> = vec![
        ("no arguments match all", none(), five(), true),
        ("no arguments match nothing with any", with_match("any", none()), five(), false),
        ("integer width is ignored", table([("n", Value::I16(5))]), five(), true),
        ("integer is not text", table([("n", "5".into())]), five(), false),
        ("integer is not double", table([("n", Value::Double(5.0))]), five(), false),
        ("integer is not bool", table([("n", true.into())]), table([("n", 1.into())]), false),
        ("void means presence", table([("n", Value::Void)]), five(), true),
        ("void still needs presence", table([("other", Value::Void)]), five(), false),
        ("all needs all", both(), five(), false),
        ("all, given", with_match("all", both()), both(), true),
        ("any needs one", with_match("any", both()), five(), true),
        ("any, none given", with_match("any", both()), none(), false),
        ("x- arguments are skipped", table([("n", 5.into()), ("x-other", 1.into())]), five(), true),
        (
            "x- arguments count with all-with-x",
            with_match("all-with-x", table([("n", 5.into()), ("x-other", 1.into())])),
            five(),
            false,
        ),
        (
            "x- arguments alone with any",
            with_match("any", table([("x-other", 1.into())])),
            table([("x-other", 1.into())]),
            false,
        ),
        (
            "x- arguments with any-with-x",
            with_match("any-with-x", table([("x-other", 1.into())])),
            table([("x-other", 1.into())]),
            true,
        ),
        ("text is compared by its bytes", table([("s", "Five".into())]), both(), false),
    ];
    let mut names = Names::new();
    let source = names.exchange("headers");
    run_all(
        rows,
        |row| row.0.to_owned(),
        |(_, binding, headers, expected)| {
            let mut client = broker().connect();
            client.call(1, &exchange::declare(&source, "headers", 0, &none()));
            client.call(1, &confirm::select(0));
            let name = client.exclusive_queue(1, &none());
            client.call(1, &queue::bind(&name, &source, "ignored", 0, binding));
            let properties = Properties { headers: Some(headers.clone()), ..Properties::default() };
            assert_eq!(routed(&mut client, &source, "key", &properties), *expected);
            client.call(1, &queue::unbind(&name, &source, "ignored", binding));
            assert!(!routed(&mut client, &source, "key", &properties), "the binding is gone");
            client.close();
        },
    );
}

#[test]
fn direct_and_fanout() {
    let mut names = Names::new();
    let (mut client, source, name) = setup(&mut names, "direct");
    client.call(1, &queue::bind(&name, &source, "k", 0, &none()));
    client.call(1, &queue::bind(&name, &source, "k", 0, &table([("other", 1.into())])));
    client.call(1, &queue::bind(&name, &source, "*", 0, &none()));
    for (key, expected) in [("k", true), ("K", false), ("", false), ("*", true)] {
        assert_eq!(routed(&mut client, &source, key, &Properties::default()), expected, "{key}");
    }
    assert_eq!(client.message_count(1, &name), 2, "two bindings make one copy");
    client.call(1, &queue::unbind(&name, &source, "k", &none()));
    assert!(routed(&mut client, &source, "k", &Properties::default()), "the binding with arguments stays");
    client.call(1, &queue::unbind(&name, &source, "k", &table([("other", 1.into())])));
    assert!(!routed(&mut client, &source, "k", &Properties::default()));
    let (mut client, source, name) = setup(&mut names, "fanout");
    assert!(!routed(&mut client, &source, "any", &Properties::default()));
    client.call(1, &queue::bind(&name, &source, "k", 0, &none()));
    assert!(routed(&mut client, &source, "any", &Properties::default()));
}

#[test]
fn an_alternate_exchange_takes_what_nobody_wants() {
    let mut names = Names::new();
    let (mut client, last, caught) = setup(&mut names, "fanout");
    let (first, middle) = (names.exchange("first"), names.exchange("middle"));
    let alternate = |name: &str| table([("alternate-exchange", name.into())]);
    client.call(1, &exchange::declare(&first, "direct", 0, &alternate(&middle)));
    assert!(!routed(&mut client, &first, "k", &Properties::default()), "the alternate exchange need not exist");
    client.call(1, &exchange::declare(&middle, "topic", 0, &alternate(&last)));
    client.call(1, &queue::bind(&caught, &last, "", 0, &none()));
    assert!(
        routed(&mut client, &first, "k", &Properties::default()),
        "routed over two alternates counts for mandatory"
    );
    let message = client.wait_for_message(1, &caught, 1);
    assert_eq!((message.exchange, message.routing_key.as_str()), (first.clone(), "k"));
    let wanted = client.exclusive_queue(1, &none());
    client.call(1, &queue::bind(&wanted, &first, "k", 0, &none()));
    assert!(routed(&mut client, &first, "k", &Properties::default()));
    assert_eq!((client.message_count(1, &wanted), client.message_count(1, &caught)), (1, 0));
}

#[test]
fn exchanges_bound_to_exchanges() {
    let mut names = Names::new();
    let (mut client, source, name) = setup(&mut names, "topic");
    let (middle, end) = (names.exchange("middle"), names.exchange("end"));
    client.call(1, &exchange::declare(&middle, "fanout", exchange::INTERNAL, &none()));
    client.call(1, &exchange::declare(&end, "direct", 0, &none()));
    client.call(1, &exchange::bind(&middle, &source, "a.#", 0, &none()));
    client.call(1, &exchange::bind(&end, &middle, "", 0, &none()));
    client.call(1, &exchange::bind(&source, &end, "a.b", 0, &none()));
    client.call(1, &queue::bind(&name, &end, "a.b", 0, &none()));
    client.call(1, &queue::bind(&name, &middle, "", 0, &none()));
    assert!(routed(&mut client, &source, "a.b", &Properties::default()), "a cycle of exchanges ends");
    assert_eq!(client.message_count(1, &name), 1, "one copy for two ways");
    assert!(!routed(&mut client, &source, "b", &Properties::default()));
    client.call(1, &exchange::unbind(&middle, &source, "a.#", 0, &none()));
    assert!(!routed(&mut client, &source, "a.b", &Properties::default()));
    client.call(1, &exchange::bind(&middle, &source, "#", 0, &none()));
    client.call(1, &exchange::delete(&middle, 0));
    assert!(!routed(&mut client, &source, "a.b", &Properties::default()), "bindings go with their exchange");
    assert!(routed(&mut client, &end, "a.b", &Properties::default()));
}

#[test]
fn the_default_exchange_knows_every_queue() {
    let mut client = broker().connect();
    client.call(1, &confirm::select(0));
    let name = client.exclusive_queue(1, &none());
    assert!(routed(&mut client, "", &name, &Properties::default()));
    client.call(1, &queue::delete(&name, 0));
    assert!(!routed(&mut client, "", &name, &Properties::default()));
    let mut other = broker().connect();
    let name = client.exclusive_queue(1, &none());
    other.publish(1, "", &name, "publishing to another connection's exclusive queue is allowed");
    client.wait_for_count(1, &name, 1);
}
