//! Returns, confirms, transactions, CC and BCC, direct reply-to.

use crate::{
    client::{Client, Message, describe},
    harness::{Names, broker},
    methods::{basic, channel, confirm, exchange, queue, tx},
    wire::{Properties, Table, Value, field, table},
};

fn none() -> Table {
    Table::new()
}

fn texts(values: &[&str]) -> Value {
    Value::Array(values.iter().map(|text| Value::from(*text)).collect())
}

#[test]
fn an_unroutable_mandatory_message_returns_before_its_confirm() {
    let mut client = broker().connect();
    client.call(1, &confirm::select(0));
    let properties = Properties { message_id: Some("m1".to_owned()), ..Properties::default() };
    client.publish_with(1, &basic::publish("amq.direct", "nobody", basic::MANDATORY), &properties, b"back");
    let message = client.expect_return(1);
    assert_eq!(message.reply, (312, "NO_ROUTE".to_owned()));
    assert_eq!(
        (message.exchange.as_str(), message.routing_key.as_str(), message.text()),
        ("amq.direct", "nobody", "back")
    );
    assert_eq!(message.properties(), properties);
    assert_eq!(client.expect_confirm(1), (basic::ACK, 1, false));
    client.publish(1, "amq.direct", "nobody", "dropped");
    assert_eq!(client.expect_confirm(1), (basic::ACK, 2, false));
    client.publish_with(1, &basic::publish("amq.direct", "nobody", basic::MANDATORY), &Properties::default(), b"");
    assert_eq!(client.expect_return(1).content.body, b"");
    client.expect_acks(1, 3, 3);
}

#[test]
fn every_publish_is_confirmed_once() {
    let mut names = Names::new();
    let name = names.queue("durable");
    let mut client = broker().connect();
    client.declare_queue(1, &name, queue::DURABLE, &none());
    client.publish(1, "", "nowhere", "before confirm.select: not counted");
    client.call(1, &confirm::select(0));
    let persistent = Properties { delivery_mode: Some(2), ..Properties::default() };
    let mut bytes = Vec::new();
    for number in 0..1000 {
        let key = if number % 3 == 0 { "nowhere" } else { &name };
        let properties = if number % 2 == 0 { &persistent } else { &Properties::default() };
        bytes.extend(client.message_bytes(1, &basic::publish("", key, 0), properties, b"m"));
    }
    client.send_bytes(&bytes);
    client.expect_acks(1, 1, 1000);
    client.call(1, &confirm::select(0));
    client.publish(1, "", &name, "the count goes on");
    client.expect_acks(1, 1001, 1001);
    client.expect_silence(1);
}

#[test]
fn confirms_count_per_channel() {
    let mut client = broker().connect();
    client.open_channel(2);
    for channel in [1, 2] {
        client.call(channel, &confirm::select(0));
        client.publish(channel, "", "nowhere", "m");
        client.expect_acks(channel, 1, 1);
    }
    client.call(2, &channel::close());
    client.open_channel(2);
    client.publish(2, "", "nowhere", "unconfirmed");
    client.call(2, &confirm::select(0));
    client.publish(2, "", "nowhere", "m");
    client.expect_acks(2, 1, 1);
    client.expect_silence(2);
}

#[test]
fn a_rejecting_queue_causes_one_nack() {
    let names = Names::new();
    let key = names.plain("key");
    let mut client = broker().connect();
    let full = table([("x-max-length", 1.into()), ("x-overflow", "reject-publish".into())]);
    let (first, second) = (client.exclusive_queue(1, &full), client.exclusive_queue(1, &none()));
    for name in [&first, &second] {
        client.call(1, &queue::bind(name, "amq.direct", &key, 0, &none()));
    }
    client.call(1, &confirm::select(0));
    client.publish(1, "amq.direct", &key, "1");
    client.expect_acks(1, 1, 1);
    client.publish_with(1, &basic::publish("amq.direct", &key, basic::MANDATORY), &Properties::default(), b"2");
    let (ids, tag, _) = client.expect_confirm(1);
    assert_eq!((ids, tag), (basic::NACK, 2));
    client.publish(1, "", &second, "3");
    client.expect_acks(1, 3, 3);
    assert_eq!(client.drain_queue(1, &first), ["1"]);
    assert_eq!(client.drain_queue(1, &second), ["1", "2", "3"]);
}

#[test]
fn transactions_hold_publishes_and_acks() {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(2, &none());
    client.call(1, &tx::select());
    client.publish(1, "", &name, "dropped");
    client.call(1, &tx::rollback());
    client.publish(1, "", &name, "1");
    client.publish_with(1, &basic::publish("", "nowhere", basic::MANDATORY), &Properties::default(), b"returned");
    client.publish(1, "", &name, "2");
    client.expect_silence(1);
    assert_eq!(client.message_count(2, &name), 0);
    client.send(1, &tx::commit());
    assert_eq!(client.expect_return(1).text(), "returned");
    client.expect(1, (90, 21));
    assert_eq!(client.message_count(2, &name), 2);
    assert_eq!(client.get(1, &name, 0).unwrap().tag, 1);
    client.send(1, &basic::ack(1, 0));
    client.call(1, &tx::rollback());
    client.send(1, &basic::ack(1, 0));
    client.call(1, &tx::commit());
    let second = client.get(1, &name, 0).unwrap();
    client.send(1, &basic::reject(second.tag, basic::REQUEUE));
    assert_eq!(client.message_count(2, &name), 0, "the reject waits for the commit");
    client.call(1, &tx::commit());
    client.wait_for_count(2, &name, 1);
    let again = client.get(2, &name, 1).unwrap();
    assert_eq!((again.text(), again.redelivered), ("2", true));
}

#[test]
fn a_large_transaction_is_committed_to_the_last_message() {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(2, &none());
    client.call(1, &tx::select());
    // Some more than the shards are given at once.
    let body = vec![0x55; 10_000];
    (0..333).for_each(|_| client.publish(1, "", &name, &body));
    client.call(1, &tx::commit());
    assert_eq!(client.message_count(2, &name), 333);
}

#[test]
fn what_follows_a_declaration_in_the_same_read_is_not_forgotten() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.call(1, &confirm::select(0));
    let other = name.replace("amq.gen", "too");
    let mut bytes = queue::declare(&other, queue::EXCLUSIVE | queue::NOWAIT, &none()).frame(1);
    bytes.extend(client.message_bytes(1, &basic::publish("", &name, 0), &Properties::default(), b"behind it"));
    client.send_bytes(&bytes);
    client.expect_acks(1, 1, 1);
}

#[test]
fn a_rejected_publish_fails_its_transaction() {
    let mut client = broker().connect();
    let full = table([("x-max-length", 0.into()), ("x-overflow", "reject-publish".into())]);
    let name = client.exclusive_queue(1, &full);
    client.call(1, &tx::select());
    client.publish(1, "", &name, "too many");
    client.send(1, &tx::commit());
    client.expect_channel_close(1, 406, "PRECONDITION_FAILED - partial tx completion", (90, 20));
}

#[test]
fn a_closed_channel_forgets_its_transaction() {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(2, &none());
    client.call(1, &tx::select());
    client.publish(1, "", &name, "never");
    client.call(1, &channel::close());
    client.open_channel(1);
    client.publish(1, "", &name, "now");
    client.wait_for_count(2, &name, 1);
    assert_eq!(client.drain_queue(2, &name), ["now"]);
}

#[test]
fn copies_route_and_blind_copies_disappear() {
    let names = Names::new();
    let mut client = broker().connect();
    let queues: Vec<String> = (0..4).map(|_| client.exclusive_queue(1, &none())).collect();
    let keys: Vec<String> = (0..4).map(|number| names.plain(&format!("key{number}"))).collect();
    for (name, key) in queues.iter().zip(&keys) {
        client.call(1, &queue::bind(name, "amq.topic", key, 0, &none()));
    }
    let copies = Value::Array(vec![Value::from(keys[1].as_str()), Value::I32(5), Value::from(keys[0].as_str())]);
    let properties =
        Properties::with_headers([("CC", copies.clone()), ("BCC", texts(&[&keys[2]])), ("other", 1.into())]);
    client.publish_with(1, &basic::publish("amq.topic", &keys[0], 0), &properties, b"m");
    for name in &queues[..3] {
        let message = client.wait_for_message(1, name, 1);
        assert_eq!(message.routing_key, keys[0]);
        let headers = message.headers();
        assert_eq!((field(&headers, "CC"), field(&headers, "BCC"), headers.len()), (Some(&copies), None, 2));
    }
    assert!(queues.iter().all(|name| client.get(1, name, 1).is_none()), "one copy per queue");
    client.publish_with(
        1,
        &basic::publish("", "nowhere", basic::MANDATORY),
        &Properties::with_headers([("BCC", texts(&[&queues[3]]))]),
        b"b",
    );
    assert!(client.wait_for_message(1, &queues[3], 1).headers().is_empty());
}

#[test]
fn a_user_id_may_be_ones_own() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    let properties = Properties { user_id: Some("guest".to_owned()), ..Properties::default() };
    client.publish_with(1, &basic::publish("", &name, 0), &properties, b"m");
    assert_eq!(client.wait_for_message(1, &name, 1).properties(), properties);
}

fn reply_consumer(client: &mut Client) {
    assert_eq!(client.consume(1, "amq.rabbitmq.reply-to", "replies", basic::NO_ACK, &none()), "replies");
}

#[test]
fn direct_reply_to_answers_a_request() {
    let names = Names::new();
    let service = names.plain("service");
    let mut requester = broker().connect();
    let mut responder = broker().connect();
    responder.declare_queue(1, &service, queue::EXCLUSIVE, &none());
    reply_consumer(&mut requester);
    requester.publish_with(
        1,
        &basic::publish("", &service, 0),
        &Properties::with_reply_to("amq.rabbitmq.reply-to"),
        b"ask",
    );
    let request = responder.wait_for_message(1, &service, 1);
    let address = request.properties().reply_to.unwrap();
    assert!(address.starts_with("amq.rabbitmq.reply-to.") && address.len() > 24, "{address}");
    assert_eq!(responder.declare_queue(1, &address, 0, &none()), (address.clone(), 0, 1));
    assert_eq!(responder.declare_queue(1, &address, queue::PASSIVE, &none()).2, 1);
    responder.call(1, &confirm::select(0));
    let correlation = Properties { correlation_id: Some("7".to_owned()), ..Properties::default() };
    responder.publish_with(1, &basic::publish("", &address, basic::MANDATORY), &correlation, b"answer");
    responder.expect_acks(1, 1, 1);
    let reply = requester.expect_delivery(1);
    assert_eq!((reply.consumer_tag.as_str(), reply.exchange.as_str(), reply.redelivered), ("replies", "", false));
    assert_eq!(
        (reply.routing_key.as_str(), reply.text(), reply.properties()),
        (address.as_str(), "answer", correlation)
    );
    requester.call(1, &basic::cancel("replies", 0));
    requester.close();
    responder.publish(1, "", &address, "too late");
    responder.expect_acks(1, 2, 2);
    responder.send(1, &queue::declare(&address, queue::PASSIVE, &none()));
    responder.expect_channel_close(1, 404, &format!("NOT_FOUND - no queue '{address}' in vhost '/'"), (50, 10));
}

#[test]
fn any_reply_to_but_the_pseudo_queue_is_left_alone() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    for address in ["amq.rabbitmq.reply-to.", "elsewhere", ""] {
        let properties = Properties::with_reply_to(address);
        client.publish_with(1, &basic::publish("", &name, 0), &properties, b"m");
        assert_eq!(client.wait_for_message(1, &name, 1).properties(), properties);
    }
}

#[test]
fn messages_of_one_channel_keep_their_order_through_an_exchange() {
    let mut names = Names::new();
    let fanout = names.exchange("fanout");
    let mut client = broker().connect();
    client.call(1, &exchange::declare(&fanout, "fanout", 0, &none()));
    let queues: Vec<String> = (0..3).map(|_| client.exclusive_queue(1, &none())).collect();
    for name in &queues {
        client.call(1, &queue::bind(name, &fanout, "", 0, &none()));
    }
    for number in 0..200 {
        client.publish(1, &fanout, "", format!("{number}"));
    }
    for name in &queues {
        client.wait_for_count(1, name, 200);
        assert_eq!(client.drain_queue(1, name), (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn a_deleted_queue_confirms_what_it_held() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.call(1, &confirm::select(0));
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(client.message_bytes(1, &basic::publish("", &name, 0), &Properties::default(), b"m"));
    }
    bytes.extend(queue::delete(&name, queue::DELETE_NOWAIT).frame(1));
    bytes.extend(client.message_bytes(
        1,
        &basic::publish("", &name, basic::MANDATORY),
        &Properties::default(),
        b"late",
    ));
    client.send_bytes(&bytes);
    let (mut highest, mut returned) = (0, None);
    while highest < 101 || returned.is_none() {
        let incoming = client.recv(1);
        match incoming.method.ids() {
            basic::ACK => highest = highest.max(incoming.method.reader().long_long()),
            basic::RETURN => returned = Some(Message::decode(incoming)),
            _ => panic!("unexpected {}", describe(&incoming.method)),
        }
    }
    assert_eq!(returned.unwrap().text(), "late");
}
