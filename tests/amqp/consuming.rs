//! Deliveries: acknowledgements, requeueing, prefetch, priorities, cancellation.

use crate::{
    cases::{Case, run_channel_errors},
    client::{Client, Handshake},
    harness::{Names, broker, is_warren},
    methods::{basic, channel, exchange, queue},
    wire::{Table, Value, table},
};

fn none() -> Table {
    Table::new()
}

/// A connection with channel 2 open as well and an exclusive queue that holds the messages 1 to `count`.
fn filled(count: u32, arguments: &Table) -> (Client, String) {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(1, arguments);
    for number in 1..=count {
        client.publish(1, "", &name, number.to_string());
    }
    client.wait_for_count(1, &name, count);
    (client, name)
}

/// Texts of the next `count` deliveries on `channel`.
fn next(client: &mut Client, channel: u16, count: usize) -> Vec<String> {
    (0..count).map(|_| client.expect_delivery(channel).text().to_owned()).collect()
}

#[test]
fn delivery_tags_count_per_channel() {
    let (mut client, name) = filled(4, &none());
    let first = client.get(1, &name, 0).unwrap();
    assert_eq!((first.tag, first.message_count, first.redelivered), (1, 3, false));
    assert_eq!((first.exchange.as_str(), first.routing_key.as_str()), ("", name.as_str()));
    assert_eq!(client.get(2, &name, 1).unwrap().tag, 1);
    client.consume(1, &name, "c", 0, &none());
    let delivery = client.expect_delivery(1);
    assert_eq!(
        (delivery.tag, delivery.consumer_tag.as_str(), delivery.text(), delivery.redelivered),
        (2, "c", "3", false)
    );
    assert_eq!(client.expect_delivery(1).tag, 3);
    client.send(1, &basic::ack(0, basic::MULTIPLE));
    client.send(1, &basic::ack(0, basic::MULTIPLE));
    client.publish(1, "", &name, "5");
    assert_eq!(client.expect_delivery(1).tag, 4);
}

#[test]
fn multiple_settles_everything_up_to_the_tag() {
    let (mut client, name) = filled(6, &none());
    client.consume(1, &name, "c", 0, &none());
    next(&mut client, 1, 6);
    client.send(1, &basic::ack(2, 0));
    client.send(1, &basic::ack(4, basic::MULTIPLE));
    client.call(1, &channel::close());
    client.wait_for_count(2, &name, 2);
    assert_eq!(client.drain_queue(2, &name), ["5", "6"]);
}

#[test]
fn nack_can_settle_everything() {
    let (mut client, name) = filled(3, &none());
    for _ in 0..3 {
        client.get(1, &name, 0).unwrap();
    }
    client.send(1, &basic::nack(0, basic::MULTIPLE | basic::NACK_REQUEUE));
    client.wait_for_count(1, &name, 3);
    for _ in 0..3 {
        client.get(1, &name, 0).unwrap();
    }
    client.send(1, &basic::nack(5, basic::MULTIPLE));
    client.send(1, &basic::reject(6, 0));
    client.call(1, &channel::close());
    assert_eq!(client.message_count(2, &name), 0);
}

#[test]
fn requeued_messages_return_to_their_place() {
    let (mut client, name) = filled(5, &none());
    let tags: Vec<u64> = (0..4).map(|_| client.get(1, &name, 0).unwrap().tag).collect();
    client.send(1, &basic::reject(tags[2], basic::REQUEUE));
    client.send(1, &basic::nack(tags[0], basic::NACK_REQUEUE));
    client.send(1, &basic::ack(tags[1], 0));
    client.wait_for_count(1, &name, 3);
    for (text, redelivered) in [("1", true), ("3", true), ("5", false)] {
        let message = client.get(1, &name, 1).unwrap();
        assert_eq!((message.text(), message.redelivered), (text, redelivered));
    }
    client.call(1, &basic::recover(1));
    client.wait_for_count(1, &name, 1);
    let message = client.get(1, &name, 1).unwrap();
    assert_eq!((message.text(), message.redelivered), ("4", true));
}

#[test]
fn closing_a_channel_or_connection_requeues_in_order() {
    let mut names = Names::new();
    let name = names.queue("q");
    let mut observer = broker().connect();
    observer.declare_queue(1, &name, queue::DURABLE, &none());
    for number in 1..=6 {
        observer.publish(1, "", &name, number.to_string());
    }
    let mut client = broker().connect();
    client.consume(1, &name, "c", 0, &none());
    assert_eq!(next(&mut client, 1, 6), ["1", "2", "3", "4", "5", "6"]);
    client.call(1, &channel::close());
    observer.wait_for_count(1, &name, 6);
    client.open_channel(1);
    client.consume(1, &name, "c", 0, &none());
    assert_eq!(next(&mut client, 1, 6), ["1", "2", "3", "4", "5", "6"]);
    drop(client);
    observer.wait_for_count(1, &name, 6);
    let message = observer.get(1, &name, 1).unwrap();
    assert_eq!((message.text(), message.redelivered), ("1", true));
    assert_eq!(observer.drain_queue(1, &name), ["2", "3", "4", "5", "6"]);
}

#[test]
fn prefetch_applies_to_consumers_that_come_after_it() {
    let (mut client, name) = filled(10, &none());
    client.call(1, &basic::qos(0, 2, 0));
    client.consume(1, &name, "two", 0, &none());
    assert_eq!(next(&mut client, 1, 2), ["1", "2"]);
    client.call(1, &basic::qos(0, 5, 0));
    client.expect_silence(1);
    client.send(1, &basic::ack(1, 0));
    assert_eq!(next(&mut client, 1, 1), ["3"]);
    client.expect_silence(1);
    client.get(2, &name, 1).unwrap();
    client.consume(1, &name, "five", 0, &none());
    for _ in 0..5 {
        assert_eq!(client.expect_delivery(1).consumer_tag, "five");
    }
    client.expect_silence(1);
    client.send(1, &basic::nack(0, basic::MULTIPLE));
    assert_eq!(next(&mut client, 1, 1), ["10"]);
}

#[test]
fn a_get_does_not_count_for_prefetch_and_no_ack_ignores_it() {
    let (mut client, name) = filled(8, &none());
    client.call(1, &basic::qos(0, 1, 0));
    client.get(1, &name, 0).unwrap();
    client.get(1, &name, 0).unwrap();
    client.consume(1, &name, "one", 0, &none());
    assert_eq!(next(&mut client, 1, 1), ["3"]);
    client.expect_silence(1);
    client.consume(1, &name, "all", basic::NO_ACK, &none());
    assert_eq!(next(&mut client, 1, 5), ["4", "5", "6", "7", "8"]);
    assert_eq!(client.message_count(1, &name), 0);
}

/// Warren honours the channel-wide limit, RabbitMQ 4.3 does not by default.
#[test]
fn global_prefetch_is_shared_by_the_channels_consumers() {
    if !is_warren() {
        return;
    }
    let (mut client, name) = filled(10, &none());
    client.call(1, &basic::qos(0, 3, 1));
    client.consume(1, &name, "a", 0, &none());
    next(&mut client, 1, 3);
    client.consume(1, &name, "b", 0, &none());
    client.expect_silence(1);
    client.send(1, &basic::ack(2, basic::MULTIPLE));
    next(&mut client, 1, 2);
    client.expect_silence(1);
    client.call(1, &basic::qos(0, 0, 1));
    next(&mut client, 1, 5);
}

#[test]
fn consumers_take_turns() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    for tag in ["a", "b", "c"] {
        client.consume(1, &name, tag, basic::NO_ACK, &none());
    }
    let mut counts = std::collections::HashMap::new();
    for number in 0..30 {
        client.publish(1, "", &name, number.to_string());
        *counts.entry(client.expect_delivery(1).consumer_tag).or_insert(0) += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count == 10), "{counts:?}");
}

#[test]
fn a_higher_priority_is_served_first() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.call(1, &basic::qos(0, 2, 0));
    client.consume(1, &name, "low", 0, &table([("x-priority", Value::I32(-1))]));
    client.consume(1, &name, "normal", 0, &none());
    client.consume(1, &name, "high", 0, &table([("x-priority", 10.into())]));
    let mut tags = Vec::new();
    for number in 0..6 {
        client.publish(1, "", &name, number.to_string());
        tags.push(client.expect_delivery(1).consumer_tag);
    }
    assert_eq!(tags, ["high", "high", "normal", "normal", "low", "low"]);
    client.send(1, &basic::ack(1, 0));
    client.publish(1, "", &name, "6");
    assert_eq!(client.expect_delivery(1).consumer_tag, "high");
}

#[test]
fn cancel_ends_deliveries_but_not_acknowledgements() {
    let (mut client, name) = filled(1, &none());
    client.consume(1, &name, "c", 0, &none());
    let delivery = client.expect_delivery(1);
    client.call(1, &basic::cancel("c", 0));
    client.publish(1, "", &name, "2");
    client.expect_silence(1);
    client.send(1, &basic::ack(delivery.tag, 0));
    client.consume(1, &name, "c", 0, &none());
    assert_eq!(client.expect_delivery(1).text(), "2");
}

#[test]
fn an_exclusive_consumer_leaves_get_and_goes_with_cancel() {
    let mut names = Names::new();
    let name = names.queue("q");
    let (mut owner, mut other) = (broker().connect(), broker().connect());
    owner.declare_queue(1, &name, queue::DURABLE, &none());
    owner.call(1, &basic::qos(0, 1, 0));
    owner.consume(1, &name, "mine", basic::EXCLUSIVE, &none());
    for text in ["1", "2"] {
        owner.publish(1, "", &name, text);
    }
    owner.expect_delivery(1);
    assert_eq!(other.wait_for_message(1, &name, 1).text(), "2");
    owner.call(1, &basic::cancel("mine", 0));
    other.consume(1, &name, "now", basic::EXCLUSIVE, &none());
}

#[test]
fn the_next_single_active_consumer_takes_over() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &table([("x-single-active-consumer", true.into())]));
    for tag in ["a", "b", "c"] {
        client.consume(1, &name, tag, 0, &none());
    }
    for number in 0..6 {
        client.publish(1, "", &name, number.to_string());
        assert_eq!(client.expect_delivery(1).consumer_tag, "a");
    }
    client.call(1, &basic::cancel("a", 0));
    client.publish(1, "", &name, "6");
    assert_eq!(client.expect_delivery(1).consumer_tag, "b");
    client.call(1, &basic::cancel("c", 0));
    client.publish(1, "", &name, "7");
    assert_eq!(client.expect_delivery(1).consumer_tag, "b");
    client.call(1, &basic::cancel("b", 0));
    client.publish(1, "", &name, "8");
    client.expect_silence(1);
    client.consume(1, &name, "d", 0, &none());
    assert_eq!(client.expect_delivery(1).consumer_tag, "d");
}

#[test]
fn consumers_of_a_deleted_queue_are_told_when_they_understand() {
    let mut names = Names::new();
    let name = names.queue("q");
    let mut told = broker().connect();
    let mut silent = broker().connect_with(&Handshake { capabilities: none(), ..Handshake::default() });
    told.declare_queue(1, &name, queue::DURABLE, &none());
    told.consume(1, &name, "told", 0, &none());
    silent.consume(1, &name, "silent", 0, &none());
    told.open_channel(2);
    told.call(2, &queue::delete(&name, 0));
    assert_eq!(told.expect(1, basic::CANCEL).method.arguments, b"\x04told\x01");
    if is_warren() {
        told.send(1, &basic::cancel_ok("told"));
    }
    told.call(1, &basic::qos(0, 1, 0));
    silent.expect_silence(1);
    silent.call(1, &basic::cancel("silent", 0));
}

#[test]
fn consumers_of_a_queue_deleted_on_their_own_channel_are_told() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.consume(1, &name, "c", 0, &none());
    client.send(1, &queue::delete(&name, 0));
    let mut received = [client.recv(1).method.ids(), client.recv(1).method.ids()];
    received.sort_unstable();
    assert_eq!(received, [(50, 41), (60, 30)]);
    client.exclusive_queue(1, &none());
}

#[test]
fn auto_delete_queues_end_with_their_last_consumer() {
    let mut names = Names::new();
    let name = names.queue("q");
    let (mut client, mut observer) = (broker().connect(), broker().connect());
    client.declare_queue(1, &name, queue::DURABLE | queue::AUTO_DELETE, &none());
    assert!(client.get(1, &name, 1).is_none());
    assert_eq!(client.message_count(1, &name), 0, "a get is no consumer");
    client.consume(1, &name, "a", 0, &none());
    client.open_channel(2);
    client.consume(2, &name, "b", 0, &none());
    client.call(1, &basic::cancel("a", 0));
    assert_eq!(client.declare_queue(1, &name, queue::PASSIVE, &none()).2, 1);
    client.call(2, &channel::close());
    wait_until_absent(&mut observer, &name);
}

/// Polls with passive declares until the queue is gone.
pub(crate) fn wait_until_absent(client: &mut Client, name: &str) {
    let deadline = std::time::Instant::now() + crate::client::PATIENCE;
    loop {
        client.send(1, &queue::declare(name, queue::PASSIVE, &none()));
        if client.recv(1).method.ids() == channel::CLOSE {
            client.send(1, &channel::close_ok());
            client.open_channel(1);
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{name} still exists");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn auto_delete_exchanges_end_with_their_last_binding() {
    let mut names = Names::new();
    let (name, target) = (names.exchange("x"), names.exchange("target"));
    let mut client = broker().connect();
    let (first, second) = (client.exclusive_queue(1, &none()), client.exclusive_queue(1, &none()));
    client.call(1, &exchange::declare(&name, "direct", exchange::AUTO_DELETE, &none()));
    client.call(1, &exchange::declare(&target, "direct", exchange::AUTO_DELETE, &none()));
    client.call(1, &exchange::bind(&target, &name, "", 0, &none()));
    for queue_name in [&first, &second] {
        client.call(1, &queue::bind(queue_name, &name, "k", 0, &none()));
    }
    client.call(1, &queue::unbind(&first, &name, "k", &none()));
    client.call(1, &exchange::unbind(&target, &name, "", 0, &none()));
    client.call(1, &exchange::declare(&name, "", exchange::PASSIVE, &none()));
    client.call(1, &exchange::declare(&target, "", exchange::PASSIVE, &none()));
    client.call(1, &queue::delete(&second, 0));
    client.send(1, &exchange::declare(&name, "", exchange::PASSIVE, &none()));
    client.expect_channel_close(1, 404, &format!("NOT_FOUND - no exchange '{name}' in vhost '/'"), (40, 10));
}

/// Clients that hear of the end of a consumer before the answer they wait for take it for the answer, or fail.
#[test]
fn consumers_end_after_the_answer_that_ended_them() {
    let mut names = Names::new();
    for flags in [queue::DURABLE, queue::EXCLUSIVE] {
        let name = names.queue(&format!("q{flags}"));
        let mut client = broker().connect();
        client.declare_queue(1, &name, flags, &none());
        client.consume(1, &name, "a", 0, &none());
        client.consume(1, &name, "b", 0, &none());
        client.send(1, &queue::delete(&name, 0));
        client.expect(1, (50, 41));
        let mut cancelled: Vec<String> =
            (0..2).map(|_| client.expect(1, basic::CANCEL).method.reader().short_string()).collect();
        cancelled.sort();
        assert_eq!(cancelled, ["a", "b"]);
        // And it can be had again, under the same names.
        client.declare_queue(1, &name, flags, &none());
        client.consume(1, &name, "a", 0, &none());
        client.publish(1, "", &name, "m");
        assert_eq!(client.expect_delivery(1).text(), "m");
        client.call(1, &queue::delete(&name, 0));
        client.expect(1, basic::CANCEL);
    }
}

#[test]
fn recover_ok_stands_before_what_is_delivered_again() {
    let mut names = Names::new();
    for flags in [queue::DURABLE, queue::EXCLUSIVE] {
        let name = names.queue(&format!("q{flags}"));
        let mut client = broker().connect();
        client.declare_queue(1, &name, flags, &none());
        client.consume(1, &name, "c", 0, &none());
        for number in 0..3 {
            client.publish(1, "", &name, format!("{number}"));
            client.expect_delivery(1);
        }
        client.send(1, &basic::recover(1));
        client.expect(1, (60, 111));
        for number in 0..3 {
            let again = client.expect_delivery(1);
            assert_eq!((again.text(), again.redelivered), (format!("{number}").as_str(), true));
        }
    }
}

#[test]
fn arguments_of_consumers_must_be_for_the_queues_type() {
    let names = Names::new();
    let name = names.plain("q");
    let declare = queue::declare(&name, queue::EXCLUSIVE, &none());
    let of_other_types = [
        ("x-stream-offset", "first".into()),
        ("x-stream-filter", "a".into()),
        ("x-stream-match-unfiltered", Value::Bool(true)),
        ("x-consumer-timeout", 1000.into()),
    ];
    let mut cases: Vec<Case> = of_other_types
        .into_iter()
        .map(|(argument, value): (&str, Value)| {
            let text = format!(
                "PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '/' of queue type \
                 rabbit_classic_queue"
            );
            let consume = basic::consume(&name, "t", 0, &table([(argument, value)]));
            Case::new(argument, consume, 406, &text).after([declare.clone()])
        })
        .collect();
    let text = format!(
        "PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{name}' in vhost '/': \"expected integer, got longstr\""
    );
    let consume = basic::consume(&name, "t", 0, &table([("x-stream-filter", 1.into()), ("x-priority", "a".into())]));
    cases.push(Case::new("x-priority", consume, 406, &text).after([declare]));
    run_channel_errors(cases);

    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    for (number, (argument, value)) in [
        ("x-priority", Value::I64(1 << 40)),
        ("x-priority", Value::I64(-1 << 40)),
        ("x-cancel-on-ha-failover", "odd".into()),
        ("x-unknown", 1.into()),
    ]
    .into_iter()
    .enumerate()
    {
        client.consume(1, &name, &format!("t{number}"), 0, &table([(argument, value)]));
    }
    client.publish(1, "", &name, "m");
    assert_eq!(client.expect_delivery(1).consumer_tag, "t0");
}
