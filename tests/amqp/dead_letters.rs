//! Dead lettering: headers field by field, reasons, routing, cycles.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    client::{Client, Message},
    harness::{Names, broker},
    methods::{basic, exchange, queue},
    wire::{Properties, Table, Value, field, table},
};

fn none() -> Table {
    Table::new()
}

/// A queue of the dead, and one that sends its dead there through the default exchange.
fn pair(extra: &Table) -> (Client, String, String) {
    let mut client = broker().connect();
    let dead = client.exclusive_queue(1, &none());
    let mut arguments =
        table([("x-dead-letter-exchange", "".into()), ("x-dead-letter-routing-key", Value::from(dead.as_str()))]);
    arguments.extend(extra.clone());
    let alive = client.exclusive_queue(1, &arguments);
    (client, alive, dead)
}

/// The entries of x-death.
fn deaths(message: &Message) -> Vec<Table> {
    let headers = message.headers();
    let Some(Value::Array(entries)) = field(&headers, "x-death") else { panic!("no x-death in {headers:?}") };
    entries
        .iter()
        .map(|entry| match entry {
            Value::Table(table) => table.clone(),
            other => panic!("{other:?} in x-death"),
        })
        .collect()
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Checks one entry: its fields in wire order, with `time` near now.
fn assert_death(
    entry: &Table,
    original_expiration: Option<&str>,
    count: i64,
    reason: &str,
    queue: &str,
    exchange: &str,
    keys: &[&str],
) {
    let Some(Value::Timestamp(time)) = field(entry, "time") else { panic!("time is a timestamp: {entry:?}") };
    assert!(seconds_now().abs_diff(*time) < 30, "time is in seconds: {time}");
    let mut expected = Table::new();
    expected.extend(original_expiration.map(|text| ("original-expiration".to_owned(), Value::from(text))));
    expected.extend(table([
        ("count", Value::I64(count)),
        ("reason", reason.into()),
        ("queue", queue.into()),
        ("time", Value::Timestamp(*time)),
        ("exchange", exchange.into()),
        ("routing-keys", Value::Array(keys.iter().map(|key| Value::from(*key)).collect())),
    ]));
    assert_eq!(*entry, expected);
}

fn assert_deaths_named(message: &Message, which: &str, queue: &str, reason: &str, exchange: &str) {
    let headers = message.headers();
    for (what, expected) in [("queue", queue), ("reason", reason), ("exchange", exchange)] {
        assert_eq!(field(&headers, &format!("x-{which}-death-{what}")), Some(&expected.into()), "{which} {what}");
    }
}

#[test]
fn a_rejected_message_tells_its_story() {
    let (mut client, alive, dead) = pair(&none());
    let copies = Value::Array(vec!["copy".into()]);
    let properties = Properties {
        delivery_mode: Some(2),
        priority: Some(3),
        correlation_id: Some("id".to_owned()),
        expiration: Some("100000".to_owned()),
        headers: Some(table([
            ("zebra", 1.into()),
            ("CC", copies.clone()),
            ("BCC", Value::Array(vec!["hidden".into()])),
            ("ant", 2.into()),
        ])),
        ..Properties::default()
    };
    client.publish_with(1, &basic::publish("", &alive, 0), &properties, b"body");
    let first = client.wait_for_message(1, &alive, 0);
    client.send(1, &basic::reject(first.tag, 0));
    let message = client.wait_for_message(1, &dead, 1);
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str(), message.text()), ("", dead.as_str(), "body"));
    let after = message.properties();
    let headers = after.headers.clone().unwrap();
    assert_eq!(Properties { headers: None, ..after }, Properties { headers: None, expiration: None, ..properties });
    let entries = deaths(&message);
    assert_eq!(entries.len(), 1);
    assert_death(&entries[0], Some("100000"), 1, "rejected", &alive, "", &[&alive, "copy"]);
    assert_deaths_named(&message, "first", &alive, "rejected", "");
    assert_deaths_named(&message, "last", &alive, "rejected", "");
    assert_eq!(
        (field(&headers, "CC"), field(&headers, "zebra"), field(&headers, "BCC")),
        (Some(&copies), Some(&1.into()), None)
    );
    let keys: Vec<&String> = headers.iter().map(|(key, _)| key).collect();
    assert!(keys.is_sorted(), "headers are sorted once the broker has added some: {keys:?}");
}

#[test]
fn expired_and_dropped_messages_name_their_reasons() {
    let (mut client, alive, dead) = pair(&table([("x-message-ttl", 1.into())]));
    client.publish(1, "", &alive, "old");
    let message = client.wait_for_message(1, &dead, 1);
    assert_death(&deaths(&message)[0], None, 1, "expired", &alive, "", &[&alive]);
    assert_deaths_named(&message, "first", &alive, "expired", "");

    let (mut client, alive, dead) = pair(&none());
    client.publish_with(1, &basic::publish("", &alive, 0), &Properties::with_expiration("1"), b"old");
    let message = client.wait_for_message(1, &dead, 1);
    assert_death(&deaths(&message)[0], Some("1"), 1, "expired", &alive, "", &[&alive]);
    assert_eq!(message.properties().expiration, None);

    let (mut client, alive, dead) = pair(&table([("x-max-length", 1.into())]));
    client.publish(1, "", &alive, "first");
    client.publish(1, "", &alive, "second");
    let message = client.wait_for_message(1, &dead, 1);
    assert_eq!(message.text(), "first");
    assert_death(&deaths(&message)[0], None, 1, "maxlen", &alive, "", &[&alive]);

    let overflow = table([("x-max-length", 1.into()), ("x-overflow", "reject-publish-dlx".into())]);
    let (mut client, alive, dead) = pair(&overflow);
    client.publish(1, "", &alive, "first");
    client.publish(1, "", &alive, "second");
    let message = client.wait_for_message(1, &dead, 1);
    assert_eq!(message.text(), "second");
    assert_death(&deaths(&message)[0], None, 1, "maxlen", &alive, "", &[&alive]);
}

#[test]
fn nack_and_purge() {
    let (mut client, alive, dead) = pair(&none());
    for text in ["1", "2", "3"] {
        client.publish(1, "", &alive, text);
    }
    client.wait_for_count(1, &alive, 3);
    for _ in 0..2 {
        client.get(1, &alive, 0).unwrap();
    }
    client.send(1, &basic::nack(2, basic::MULTIPLE));
    client.wait_for_count(1, &dead, 2);
    client.call(1, &queue::purge(&alive, 0));
    client.publish(1, "", &alive, "4");
    client.wait_for_count(1, &alive, 1);
    client.call(1, &queue::delete(&alive, 0));
    assert_eq!(client.drain_queue(1, &dead), ["1", "2"], "purged and deleted messages are not dead-lettered");
}

#[test]
fn the_count_grows_for_each_queue_and_reason() {
    let (mut client, alive, dead) = pair(&none());
    let (mut history, mut tag) = (Vec::new(), 0);
    client.publish(1, "", &alive, "m");
    for round in 1..=3_i64 {
        let message = client.wait_for_message(1, &alive, 0);
        tag = tag.max(message.tag);
        client.send(1, &basic::reject(message.tag, 0));
        let died = client.wait_for_message(1, &dead, 1);
        history = deaths(&died);
        assert_eq!(
            field(&history[0], "count"),
            Some(&Value::I64(1)),
            "a client that republishes starts anew, round {round}"
        );
        client.publish_with(1, &basic::publish("", &alive, 0), &died.properties(), b"m");
    }
    assert_eq!(history.len(), 1);
}

#[test]
fn automatic_retries_are_counted() {
    let mut names = Names::new();
    let (work, retry) = (names.queue("work"), names.queue("retry"));
    let back_to =
        |name: &str| table([("x-dead-letter-exchange", "".into()), ("x-dead-letter-routing-key", name.into())]);
    let mut waiting = back_to(&work);
    waiting.extend(table([("x-message-ttl", 50.into())]));
    let mut client = broker().connect();
    client.declare_queue(1, &work, queue::DURABLE, &back_to(&retry));
    client.declare_queue(1, &retry, queue::DURABLE, &waiting);
    client.publish(1, "", &work, "m");
    for round in 0..3_i64 {
        let message = client.wait_for_message(1, &work, 0);
        if round > 0 {
            let entries = deaths(&message);
            assert_eq!(entries.len(), 2);
            assert_death(&entries[0], None, round, "expired", &retry, "", &[&retry]);
            assert_death(&entries[1], None, round, "rejected", &work, "", &[&work]);
            assert_deaths_named(&message, "first", &work, "rejected", "");
            assert_deaths_named(&message, "last", &retry, "expired", "");
        }
        client.send(1, &basic::reject(message.tag, 0));
    }
}

#[test]
fn a_cycle_without_a_rejection_drops_the_message() {
    let mut names = Names::new();
    let (one, two) = (names.queue("one"), names.queue("two"));
    let expiring_to = |name: &str| {
        table([
            ("x-dead-letter-exchange", "".into()),
            ("x-dead-letter-routing-key", name.into()),
            ("x-message-ttl", 20.into()),
        ])
    };
    let mut client = broker().connect();
    client.declare_queue(1, &one, queue::DURABLE, &expiring_to(&two));
    client.declare_queue(1, &two, queue::DURABLE, &expiring_to(&one));
    client.publish(1, "", &one, "m");
    std::thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!((client.message_count(1, &one), client.message_count(1, &two)), (0, 0));
    let itself =
        client.exclusive_queue(1, &table([("x-dead-letter-exchange", "".into()), ("x-message-ttl", 20.into())]));
    client.publish(1, "", &itself, "m");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(client.message_count(1, &itself), 0);
}

#[test]
fn a_cycle_by_rejection_goes_on() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &table([("x-dead-letter-exchange", "".into())]));
    client.publish(1, "", &name, "m");
    for round in 0..4_i64 {
        let message = client.wait_for_message(1, &name, 0);
        if round > 0 {
            assert_death(&deaths(&message)[0], None, round, "rejected", &name, "", &[&name]);
        }
        client.send(1, &basic::reject(message.tag, 0));
    }
}

#[test]
fn dead_letters_keep_their_routing_keys_without_another() {
    let mut names = Names::new();
    let (source, graveyard) = (names.exchange("source"), names.exchange("graveyard"));
    let mut client = broker().connect();
    client.call(1, &exchange::declare(&source, "topic", 0, &none()));
    client.call(1, &exchange::declare(&graveyard, "topic", 0, &none()));
    let alive = client.exclusive_queue(
        1,
        &table([("x-dead-letter-exchange", graveyard.as_str().into()), ("x-max-length", 0.into())]),
    );
    let (by_key, by_copy, by_blind) =
        (client.exclusive_queue(1, &none()), client.exclusive_queue(1, &none()), client.exclusive_queue(1, &none()));
    client.call(1, &queue::bind(&alive, &source, "#", 0, &none()));
    for (name, key) in [(&by_key, "key"), (&by_copy, "copy"), (&by_blind, "blind")] {
        client.call(1, &queue::bind(name, &graveyard, key, 0, &none()));
    }
    let headers = [("CC", Value::Array(vec!["copy".into()])), ("BCC", Value::Array(vec!["blind".into()]))];
    client.publish_with(1, &basic::publish(&source, "key", 0), &Properties::with_headers(headers), b"m");
    for name in [&by_key, &by_copy, &by_blind] {
        let message = client.wait_for_message(1, name, 1);
        assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), (graveyard.as_str(), "key"));
        assert_death(&deaths(&message)[0], None, 1, "maxlen", &alive, &source, &["key", "copy"]);
        assert_deaths_named(&message, "last", &alive, "maxlen", &source);
    }
}

#[test]
fn an_absent_dead_letter_exchange_drops_messages() {
    let names = Names::new();
    let mut client = broker().connect();
    let alive = client.exclusive_queue(
        1,
        &table([("x-dead-letter-exchange", names.plain("absent").as_str().into()), ("x-max-length", 0.into())]),
    );
    client.publish(1, "", &alive, "m");
    client.call(1, &basic::qos(0, 1, 0));
    assert_eq!(client.message_count(1, &alive), 0);
}

#[test]
fn a_publishers_x_death_header_is_not_believed() {
    let (mut client, alive, dead) = pair(&none());
    let forged = Value::Array(vec![Value::Table(table([
        ("count", Value::I64(99)),
        ("reason", "rejected".into()),
        ("queue", alive.as_str().into()),
    ]))]);
    client.publish_with(
        1,
        &basic::publish("", &alive, 0),
        &Properties::with_headers([("x-death", forged.clone())]),
        b"m",
    );
    let message = client.wait_for_message(1, &alive, 0);
    assert_eq!(field(&message.headers(), "x-death"), Some(&forged), "it passes unchanged until the message dies");
    client.send(1, &basic::reject(message.tag, 0));
    let entries = deaths(&client.wait_for_message(1, &dead, 1));
    assert_eq!(entries.len(), 1);
    assert_death(&entries[0], None, 1, "rejected", &alive, "", &[&alive]);
}
