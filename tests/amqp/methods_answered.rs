//! Every request and its reply; `nowait` requests, which have none.

use crate::{
    client::describe,
    harness::{Names, broker, is_warren},
    methods::{Method, access, basic, channel, confirm, connection, exchange, queue, tx},
    wire::{Properties, Table, Value, table},
};

fn none() -> Table {
    Table::new()
}

/// A request, the ids of its reply, and the reply's arguments where they are known.
type Row = (Method, (u16, u16), Option<Vec<u8>>);

#[test]
fn requests_have_their_replies() {
    let mut names = Names::new();
    let (source, target) = (names.exchange("source"), names.exchange("target"));
    let name = names.plain("q");
    let rows: Vec<Row> = vec![
        (channel::flow(1), (20, 21), Some(vec![1])),
        (access::request(), (30, 11), Some(vec![0, 1])),
        (exchange::declare(&source, "fanout", 0, &none()), (40, 11), Some(vec![])),
        (exchange::declare(&source, "", exchange::PASSIVE, &none()), (40, 11), Some(vec![])),
        (exchange::declare(&source, "topic", exchange::PASSIVE | exchange::DURABLE, &none()), (40, 11), Some(vec![])),
        (exchange::declare("amq.direct", "direct", exchange::DURABLE, &none()), (40, 11), Some(vec![])),
        (
            exchange::declare(&target, "direct", exchange::AUTO_DELETE, &table([("any", 1.into())])),
            (40, 11),
            Some(vec![]),
        ),
        (exchange::bind(&target, &source, "k", 0, &none()), (40, 31), Some(vec![])),
        (exchange::bind(&target, &source, "k", 0, &none()), (40, 31), Some(vec![])),
        (exchange::unbind(&target, &source, "k", 0, &none()), exchange::UNBIND_OK, Some(vec![])),
        (exchange::unbind(&target, &source, "k", 0, &none()), exchange::UNBIND_OK, Some(vec![])),
        (queue::declare(&name, queue::EXCLUSIVE, &none()), (50, 11), None),
        (queue::declare(&name, queue::PASSIVE, &table([("x-max-length", 9.into())])), (50, 11), None),
        (queue::bind(&name, &source, "k", 0, &table([("arg", Value::Void)])), (50, 21), Some(vec![])),
        (queue::unbind(&name, &source, "k", &table([("arg", Value::Void)])), (50, 51), Some(vec![])),
        (queue::unbind(&name, &source, "never", &none()), (50, 51), Some(vec![])),
        (queue::unbind("absent", "absent", "", &none()), (50, 51), Some(vec![])),
        (queue::purge(&name, 0), (50, 31), Some(vec![0, 0, 0, 0])),
        (basic::qos(0, 7, 0), (60, 11), Some(vec![])),
        (basic::qos(0, 7, 1), (60, 11), Some(vec![])),
        (basic::consume(&name, "c", basic::NO_LOCAL, &none()), (60, 21), Some(b"\x01c".to_vec())),
        (basic::cancel("c", 0), (60, 31), Some(b"\x01c".to_vec())),
        (basic::cancel("never", 0), (60, 31), Some(b"\x05never".to_vec())),
        (basic::get(&name, 0), basic::GET_EMPTY, Some(vec![0])),
        (basic::recover(1), (60, 111), Some(vec![])),
        (confirm::select(0), (85, 11), Some(vec![])),
        (confirm::select(0), (85, 11), Some(vec![])),
        (queue::delete(&name, queue::IF_EMPTY | queue::IF_UNUSED), (50, 41), Some(vec![0, 0, 0, 0])),
        (queue::delete(&name, 0), (50, 41), Some(vec![0, 0, 0, 0])),
        (exchange::delete(&source, exchange::IF_UNUSED), (40, 21), Some(vec![])),
        (exchange::delete(&source, 0), (40, 21), Some(vec![])),
        (channel::close(), channel::CLOSE_OK, Some(vec![])),
    ];
    let mut client = broker().connect();
    for (method, ids, arguments) in rows {
        client.send(1, &method);
        let reply = client.recv(1).method;
        assert_eq!(reply.ids(), ids, "{} was answered with {}", describe(&method), describe(&reply));
        assert!(arguments.is_none_or(|arguments| arguments == reply.arguments), "{}", describe(&reply));
    }
    client.close();
}

#[test]
fn transaction_methods_have_their_replies() {
    let mut client = broker().connect();
    for method in [tx::select(), tx::select(), tx::commit(), tx::rollback(), tx::commit()] {
        assert_eq!(client.call(1, &method).arguments, [0_u8; 0]);
    }
    client.close();
}

#[test]
fn nowait_requests_have_no_reply() {
    let mut names = Names::new();
    let (source, target) = (names.exchange("source"), names.exchange("target"));
    let name = names.plain("q");
    let mut client = broker().connect();
    let requests = [
        exchange::declare(&source, "fanout", exchange::NOWAIT, &none()),
        exchange::declare(&source, "fanout", exchange::NOWAIT | exchange::PASSIVE, &none()),
        exchange::declare(&target, "fanout", exchange::NOWAIT, &none()),
        exchange::bind(&target, &source, "", 1, &none()),
        queue::declare(&name, queue::EXCLUSIVE | queue::NOWAIT, &none()),
        queue::declare(&name, queue::PASSIVE | queue::NOWAIT, &none()),
        queue::bind(&name, &target, "", 1, &none()),
        confirm::select(1),
    ];
    for request in &requests {
        client.send(1, request);
    }
    client.publish(1, &source, "", "through both");
    client.expect_acks(1, 1, 1);
    assert_eq!(client.drain_queue(1, &name), ["through both"]);
    client.send(1, &basic::consume(&name, "c", basic::NOWAIT | basic::NO_ACK, &none()));
    client.publish(1, "", &name, "delivered");
    let (mut delivered, mut confirmed) = (false, false);
    while !(delivered && confirmed) {
        match client.recv(1).method.ids() {
            basic::DELIVER => delivered = true,
            basic::ACK => confirmed = true,
            other => panic!("unexpected {other:?}"),
        }
    }
    client.send(1, &basic::cancel("c", 1));
    client.send(1, &exchange::unbind(&target, &source, "", 1, &none()));
    client.send(1, &queue::purge(&name, 1));
    client.send(1, &queue::delete(&name, queue::DELETE_NOWAIT));
    client.send(1, &exchange::delete(&source, exchange::DELETE_NOWAIT));
    client.send(1, &exchange::delete(&target, exchange::DELETE_NOWAIT));
    client.call(1, &basic::qos(0, 1, 0));
    client.open_channel(2);
    client.send(2, &queue::declare(&name, queue::PASSIVE, &none()));
    client.expect_channel_close(2, 404, &format!("NOT_FOUND - no queue '{name}' in vhost '/'"), (50, 10));
    client.close();
}

#[test]
fn replies_carry_counts_and_generated_names() {
    let mut client = broker().connect();
    let (name, messages, consumers) = client.declare_queue(1, "", queue::EXCLUSIVE, &none());
    let random = name.strip_prefix("amq.gen-").expect("the prefix of generated names");
    assert_eq!((random.len(), messages, consumers), (22, 0, 0));
    assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{name}");
    assert_ne!(client.exclusive_queue(1, &none()), name);
    for number in 0..3 {
        client.publish(1, "", &name, format!("{number}"));
    }
    client.wait_for_count(1, &name, 3);
    let tag = client.consume(1, &name, "", 0, &none());
    let random = tag.strip_prefix("amq.ctag-").expect("the prefix of generated tags");
    assert_eq!(random.len(), 22);
    for _ in 0..3 {
        client.expect_delivery(1);
    }
    assert_eq!(client.declare_queue(1, &name, queue::PASSIVE, &none()), (name.clone(), 0, 1));
    assert_eq!(client.call(1, &basic::cancel(&tag, 0)).reader().short_string(), tag);
    client.publish(1, "", &name, "4");
    client.wait_for_count(1, &name, 1);
    assert_eq!(client.call(1, &queue::purge(&name, 0)).reader().long(), 1, "purge counts ready messages only");
    client.call(1, &basic::recover(1));
    client.wait_for_count(1, &name, 3);
    assert_eq!(client.get(1, &name, 0).unwrap().message_count, 2);
    assert_eq!(client.call(1, &queue::delete(&name, 0)).reader().long(), 2, "delete counts ready messages only");
}

#[test]
fn an_empty_queue_name_means_the_last_declared_one() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.call(1, &queue::bind("", "amq.direct", "", 0, &none()));
    client.publish(1, "amq.direct", &name, "by its own name");
    client.wait_for_count(1, &name, 1);
    client.call(1, &queue::unbind("", "amq.direct", "", &none()));
    client.call(1, &queue::bind("", "amq.direct", "other", 0, &none()));
    assert_eq!(client.get(1, "", 1).unwrap().routing_key, name);
    client.consume(1, "", "c", 0, &none());
    client.call(1, &basic::cancel("c", 0));
    client.call(1, &queue::purge("", 0));
    client.call(1, &queue::delete("", 0));
}

#[test]
fn recover_async_requeues_without_a_reply() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.publish(1, "", &name, "m");
    client.wait_for_message(1, &name, 0);
    client.send(1, &basic::recover_async(1));
    client.call(1, &basic::qos(0, 0, 0));
    client.wait_for_count(1, &name, 1);
    assert!(client.get(1, &name, 1).unwrap().redelivered);
}

#[test]
fn carriage_returns_are_stripped_from_names() {
    let names = Names::new();
    let name = names.plain("q");
    let mut client = broker().connect();
    assert_eq!(client.declare_queue(1, &format!("{name}\r\n"), queue::EXCLUSIVE, &none()).0, name);
    client.publish(1, "", &name, "m");
    client.wait_for_message(1, &name, 1);
}

#[test]
fn names_may_be_any_text_up_to_255_bytes() {
    let mut client = broker().connect();
    for name in
        ["käse / \u{1F9C0} ' \"".to_owned(), " ".to_owned(), "q".repeat(255), "AMQ.mine".to_owned(), "amqp".to_owned()]
    {
        let unique = if name.len() > 200 { name } else { format!("{name}{}", std::process::id()) };
        assert_eq!(client.declare_queue(1, &unique, queue::EXCLUSIVE, &none()).0, unique);
        client.publish(1, "", &unique, "m");
        assert_eq!(client.wait_for_message(1, &unique, 1).routing_key, unique);
    }
    client.close();
}

#[test]
fn transient_queues_that_are_not_exclusive_are_allowed() {
    if !is_warren() {
        return;
    }
    let mut names = Names::new();
    let name = names.queue("transient");
    let (mut first, mut second) = (broker().connect(), broker().connect());
    first.declare_queue(1, &name, 0, &none());
    second.publish(1, "", &name, "m");
    assert_eq!(second.wait_for_message(1, &name, 1).text(), "m");
    first.declare_queue(1, &name, 0, &none());
}

#[test]
fn requests_may_be_pipelined_with_content() {
    let names = Names::new();
    let (name, key) = (names.plain("q"), names.plain("key"));
    let mut client = broker().connect();
    let mut bytes = queue::declare(&name, queue::EXCLUSIVE, &none()).frame(1);
    bytes.extend(queue::bind(&name, "amq.topic", &key, 0, &none()).frame(1));
    bytes.extend(basic::consume(&name, "c", basic::NO_ACK, &none()).frame(1));
    bytes.extend(confirm::select(0).frame(1));
    for number in 0..20 {
        bytes.extend(client.message_bytes(
            1,
            &basic::publish("amq.topic", &key, 0),
            &Properties::default(),
            format!("{number}").as_bytes(),
        ));
    }
    bytes.extend(basic::qos(0, 3, 0).frame(1));
    client.send_bytes(&bytes);
    client.expect(1, (50, 11));
    client.expect(1, (50, 21));
    let (mut texts, mut replies) = (Vec::new(), Vec::new());
    while texts.len() < 20 || replies.len() < 3 {
        let incoming = client.recv(1);
        match incoming.method.ids() {
            basic::DELIVER => texts.push(crate::client::Message::decode(incoming).text().to_owned()),
            basic::ACK => {}
            other => replies.push(other),
        }
    }
    replies.sort_unstable();
    assert_eq!(replies, [(60, 11), (60, 21), (85, 11)], "consume-ok may come after the replies to later requests");
    assert_eq!(texts, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn channels_open_and_close_in_any_order() {
    let mut client = broker().connect();
    for number in [2047, 2, 65_535, 1000] {
        client.open_channel(number);
    }
    client.call(2, &channel::close());
    client.call(65_535, &channel::close());
    client.open_channel(2);
    for _ in 0..50 {
        client.call(2, &channel::close());
        client.open_channel(2);
    }
    client.exclusive_queue(2047, &none());
    assert_eq!(client.call(0, &connection::close()).arguments, [0_u8; 0]);
}
