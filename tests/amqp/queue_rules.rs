//! Limits, expiry and priorities of queues.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    consuming::wait_until_absent,
    harness::{Names, broker, is_warren},
    methods::{basic, confirm, queue},
    wire::{Properties, Table, Value, table},
};

fn none() -> Table {
    Table::new()
}

fn client_with(arguments: &Table) -> (Client, String) {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, arguments);
    client.call(1, &confirm::select(0));
    (client, name)
}

fn publish_all(client: &mut Client, name: &str, bodies: &[&str]) {
    for body in bodies {
        client.publish(1, "", name, body);
        let (_, _, _) = client.expect_confirm(1);
    }
}

#[test]
fn the_oldest_messages_give_way() {
    let (mut client, name) = client_with(&table([("x-max-length", 3.into())]));
    publish_all(&mut client, &name, &["1", "2", "3", "4", "5"]);
    assert_eq!(client.message_count(1, &name), 3);
    assert_eq!(client.drain_queue(1, &name), ["3", "4", "5"]);
}

#[test]
fn unacknowledged_messages_do_not_count() {
    let (mut client, name) = client_with(&table([("x-max-length", 1.into())]));
    publish_all(&mut client, &name, &["1"]);
    let first = client.get(1, &name, 0).unwrap();
    publish_all(&mut client, &name, &["2"]);
    assert_eq!(client.message_count(1, &name), 1);
    client.send(1, &basic::nack(first.tag, basic::NACK_REQUEUE));
    client.call(1, &basic::qos(0, 0, 0));
    client.wait_for_count(1, &name, 1);
    assert_eq!(client.drain_queue(1, &name), ["2"], "the requeued head is dropped");
}

#[test]
fn bytes_count_bodies_only() {
    let (mut client, name) = client_with(&table([("x-max-length-bytes", 10.into())]));
    let headers = Properties::with_headers([("big", Value::LongString(vec![0; 1000]))]);
    for body in ["12345", "67890"] {
        client.publish_with(1, &basic::publish("", &name, 0), &headers, body);
        client.expect_confirm(1);
    }
    assert_eq!(client.message_count(1, &name), 2);
    publish_all(&mut client, &name, &["x"]);
    assert_eq!(client.drain_queue(1, &name), ["67890", "x"]);
    publish_all(&mut client, &name, &["12345678901"]);
    assert_eq!(client.message_count(1, &name), 0, "a message larger than the limit does not stay");
}

#[test]
fn reject_publish_refuses_new_messages() {
    let (mut client, name) = client_with(&table([("x-max-length", 2.into()), ("x-overflow", "reject-publish".into())]));
    publish_all(&mut client, &name, &["1", "2"]);
    client.publish(1, "", &name, "3");
    let (ids, tag, _) = client.expect_confirm(1);
    assert_eq!((ids, tag), (basic::NACK, 3));
    assert_eq!(client.get(1, &name, 1).unwrap().text(), "1");
    client.publish(1, "", &name, "4");
    client.expect_acks(1, 4, 4);
    assert_eq!(client.drain_queue(1, &name), ["2", "4"]);
}

#[test]
fn messages_expire_by_the_queues_ttl() {
    let (mut client, name) = client_with(&table([("x-message-ttl", 100.into())]));
    publish_all(&mut client, &name, &["1", "2"]);
    client.wait_for_count(1, &name, 0);
    client.consume(1, &name, "c", 0, &none());
    publish_all(&mut client, &name, &[]);
    client.publish(1, "", &name, "delivered at once");
    let mut delivered = false;
    for _ in 0..2 {
        delivered |= client.recv(1).method.ids() == basic::DELIVER;
    }
    assert!(delivered);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(client.get(1, &name, 1).map(|message| message.tag), None);
    client.send(1, &basic::ack(1, 0));
    client.call(1, &basic::qos(0, 0, 0));
}

#[test]
fn messages_expire_by_their_own_ttl() {
    let (mut client, name) = client_with(&table([("x-message-ttl", 60_000.into())]));
    let publish = |client: &mut Client, expiration: &str, body: &str| {
        client.publish_with(1, &basic::publish("", &name, 0), &Properties::with_expiration(expiration), body);
        client.expect_confirm(1);
    };
    publish(&mut client, "100", "short");
    publish(&mut client, "90000", "long");
    client.wait_for_count(1, &name, 1);
    assert_eq!(client.get(1, &name, 1).unwrap().text(), "long");
    publish(&mut client, "0", "never");
    assert!(client.get(1, &name, 1).is_none());
    publish(&mut client, "150", "requeued");
    let message = client.get(1, &name, 0).unwrap();
    client.send(1, &basic::reject(message.tag, basic::REQUEUE));
    client.wait_for_count(1, &name, 0);
}

#[test]
fn an_unacknowledged_message_does_not_expire() {
    let (mut client, name) = client_with(&table([("x-message-ttl", 100.into())]));
    publish_all(&mut client, &name, &["m"]);
    let message = client.get(1, &name, 0).unwrap();
    thread::sleep(Duration::from_millis(250));
    client.send(1, &basic::ack(message.tag, 0));
    client.call(1, &basic::qos(0, 0, 0));
}

#[test]
fn ttl_zero_reaches_a_waiting_consumer_only() {
    let (mut client, name) = client_with(&table([("x-message-ttl", 0.into())]));
    publish_all(&mut client, &name, &["lost"]);
    client.wait_for_count(1, &name, 0);
    client.open_channel(2);
    client.consume(2, &name, "c", basic::NO_ACK, &none());
    publish_all(&mut client, &name, &["seen"]);
    assert_eq!(client.expect_delivery(2).text(), "seen");
}

/// RabbitMQ's classic queues look at the head only.
#[test]
fn messages_expire_wherever_they_are() {
    if !is_warren() {
        return;
    }
    let (mut client, name) = client_with(&none());
    publish_all(&mut client, &name, &["stays"]);
    client.publish_with(1, &basic::publish("", &name, 0), &Properties::with_expiration("100"), "goes");
    client.expect_confirm(1);
    publish_all(&mut client, &name, &["stays too"]);
    client.wait_for_count(1, &name, 2);
    assert_eq!(client.drain_queue(1, &name), ["stays", "stays too"]);
}

#[test]
fn an_unused_queue_expires() {
    let mut names = Names::new();
    let name = names.queue("q");
    let mut client = broker().connect();
    let arguments = table([("x-expires", 600.into())]);
    client.declare_queue(1, &name, queue::DURABLE, &arguments);
    let start = Instant::now();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(250));
        client.get(1, &name, 1);
    }
    assert!(start.elapsed() > Duration::from_secs(1), "a get restarts the lease");
    client.consume(1, &name, "c", 0, &none());
    thread::sleep(Duration::from_millis(900));
    client.call(1, &basic::cancel("c", 0));
    client.publish(1, "", &name, "publishing is no use");
    client.declare_queue(1, &name, queue::DURABLE, &arguments);
    let start = Instant::now();
    thread::sleep(Duration::from_millis(700));
    wait_until_absent(&mut client, &name);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn higher_priorities_first() {
    let (mut client, name) = client_with(&table([("x-max-priority", 5.into())]));
    for (priority, body) in [
        (Some(1), "1a"),
        (Some(5), "5a"),
        (None, "0a"),
        (Some(200), "5b"),
        (Some(3), "3a"),
        (Some(1), "1b"),
        (Some(0), "0b"),
    ] {
        let properties = Properties { priority, ..Properties::default() };
        client.publish_with(1, &basic::publish("", &name, 0), &properties, body);
        client.expect_confirm(1);
    }
    let first = client.get(1, &name, 0).unwrap();
    assert_eq!((first.text(), first.properties().priority), ("5a", Some(5)));
    client.send(1, &basic::nack(first.tag, basic::NACK_REQUEUE));
    client.wait_for_count(1, &name, 7);
    assert_eq!(client.get(1, &name, 0).unwrap().text(), "5a");
    let second = client.get(1, &name, 1).unwrap();
    assert_eq!((second.text(), second.properties().priority), ("5b", Some(200)), "the property itself is not clamped");
    assert_eq!(client.drain_queue(1, &name), ["3a", "1a", "1b", "0a", "0b"]);
}

#[test]
fn a_full_priority_queue_loses_its_most_urgent_messages() {
    let (mut client, name) = client_with(&table([("x-max-priority", 5.into()), ("x-max-length", 2.into())]));
    for priority in [0, 5, 1] {
        client.publish_with(
            1,
            &basic::publish("", &name, 0),
            &Properties::with_priority(priority),
            priority.to_string(),
        );
        client.expect_confirm(1);
    }
    assert_eq!(client.drain_queue(1, &name), ["1", "0"]);
}

#[test]
fn without_max_priority_the_property_means_nothing() {
    let (mut client, name) = client_with(&none());
    for priority in [0, 9, 5] {
        client.publish_with(
            1,
            &basic::publish("", &name, 0),
            &Properties::with_priority(priority),
            priority.to_string(),
        );
        client.expect_confirm(1);
    }
    assert_eq!(client.drain_queue(1, &name), ["0", "9", "5"]);
}

#[test]
fn queue_mode_may_be_anything_and_stays_what_it_was() {
    let mut client = broker().connect();
    for value in ["lazy".into(), "odd".into(), 5.into(), Value::Bool(true), Value::Void] {
        client.exclusive_queue(1, &table([("x-queue-mode", value)]));
    }
    let name = Names::new().plain("q");
    client.declare_queue(1, &name, queue::EXCLUSIVE, &table([("x-queue-mode", "lazy".into())]));
    client.send(1, &queue::declare(&name, queue::EXCLUSIVE, &table([("x-queue-mode", "default".into())])));
    let text = format!(
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-mode' for queue '{name}' in vhost '/': received 'default' but \
         current is 'lazy'"
    );
    client.expect_channel_close(1, 406, &text, (50, 10));
}
