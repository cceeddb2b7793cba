//! Heartbeats, closing, and what ends with a connection.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Handshake, NoFrame, PATIENCE, close_arguments},
    consuming::wait_until_absent,
    harness::{Names, broker, own_broker},
    methods::{basic, channel, confirm, connection, exchange, queue},
    wire::{HEARTBEAT, Properties, Table, Value, frame, table},
};

fn none() -> Table {
    Table::new()
}

fn with_heartbeat(seconds: u16) -> Client {
    broker().connect_with(&Handshake { heartbeat: seconds, ..Handshake::default() })
}

#[test]
fn the_broker_sends_heartbeats_when_it_has_nothing_else_to_say() {
    let mut client = with_heartbeat(1);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        client.send_bytes(&frame(HEARTBEAT, 0, b""));
        assert_eq!(client.try_recv(1, Duration::from_millis(400)).err(), Some(NoFrame::TimedOut));
    }
    // Every half interval: whoever allows for one interval of silence and no more is not to wait in vain.
    assert!((6..=9).contains(&client.heartbeats), "{} heartbeats in 4 s at an interval of 1 s", client.heartbeats);
}

#[test]
fn a_silent_client_is_dropped_within_three_intervals() {
    let mut client = with_heartbeat(1);
    let start = Instant::now();
    assert_eq!(client.try_recv(0, PATIENCE).err(), Some(NoFrame::Closed), "without a close frame");
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(1500) && waited < Duration::from_millis(3900), "dropped after {waited:?}");
}

#[test]
fn a_silent_client_with_a_consumer_is_dropped_as_soon() {
    let mut names = Names::new();
    let name = names.queue("q");
    let mut publisher = broker().connect();
    publisher.declare_queue(1, &name, queue::DURABLE, &none());
    let mut client = with_heartbeat(1);
    client.consume(1, &name, "c", basic::NO_ACK, &none());
    // What the broker sends, and the client's system takes, is no sign of life.
    let start = Instant::now();
    loop {
        publisher.publish(1, "", &name, "m");
        match client.try_recv(1, Duration::from_millis(100)) {
            Ok(incoming) => assert_eq!(incoming.method.ids(), basic::DELIVER),
            Err(NoFrame::TimedOut) => {}
            Err(NoFrame::Closed) => break,
        }
        assert!(start.elapsed() < PATIENCE, "nobody misses the client");
        thread::sleep(Duration::from_millis(50));
    }
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(1500) && waited < Duration::from_millis(3900), "dropped after {waited:?}");
}

#[test]
fn any_bytes_keep_a_connection_alive() {
    let mut client = with_heartbeat(1);
    let mut bytes = basic::qos(0, 1, 0).frame(1).into_iter();
    while let Some(byte) = bytes.next() {
        client.send_bytes(&[byte]);
        thread::sleep(Duration::from_millis(if bytes.len().is_multiple_of(4) { 800 } else { 0 }));
    }
    client.expect(1, (60, 11));
}

#[test]
fn without_heartbeats_silence_is_fine() {
    let mut client = with_heartbeat(0);
    thread::sleep(Duration::from_secs(4));
    client.call(1, &basic::qos(0, 1, 0));
    assert_eq!(client.heartbeats, 0);
}

#[test]
fn a_dropped_clients_messages_return() {
    let mut names = Names::new();
    let name = names.queue("q");
    let mut observer = broker().connect();
    observer.declare_queue(1, &name, queue::DURABLE, &none());
    observer.publish(1, "", &name, "m");
    let mut client = with_heartbeat(1);
    client.consume(1, &name, "c", 0, &none());
    client.expect_delivery(1);
    let message = observer.wait_for_message(1, &name, 1);
    assert!(message.redelivered);
}

#[test]
fn close_deletes_exclusive_queues_before_close_ok() {
    let names = Names::new();
    let name = names.plain("q");
    let mut observer = broker().connect();
    for _ in 0..5 {
        let mut owner = broker().connect();
        owner.declare_queue(1, &name, queue::EXCLUSIVE, &none());
        owner.call(0, &connection::close());
        observer.send(1, &queue::declare(&name, queue::PASSIVE, &none()));
        observer.expect_channel_close(1, 404, &format!("NOT_FOUND - no queue '{name}' in vhost '/'"), (50, 10));
        observer.open_channel(1);
    }
}

#[test]
fn a_lost_socket_ends_what_belongs_to_it() {
    let mut names = Names::new();
    let (exclusive, auto, source) = (names.plain("exclusive"), names.queue("auto"), names.exchange("source"));
    let mut observer = broker().connect();
    let mut owner = broker().connect();
    owner.call(1, &exchange::declare(&source, "direct", exchange::AUTO_DELETE, &none()));
    owner.declare_queue(1, &exclusive, queue::EXCLUSIVE, &none());
    owner.call(1, &queue::bind(&exclusive, &source, "k", 0, &none()));
    owner.declare_queue(1, &auto, queue::DURABLE | queue::AUTO_DELETE, &none());
    owner.consume(1, &auto, "c", 0, &none());
    drop(owner);
    wait_until_absent(&mut observer, &exclusive);
    wait_until_absent(&mut observer, &auto);
    observer.send(1, &exchange::declare(&source, "", exchange::PASSIVE, &none()));
    observer.expect_channel_close(1, 404, &format!("NOT_FOUND - no exchange '{source}' in vhost '/'"), (40, 10));
}

#[test]
fn publishes_before_a_close_are_kept() {
    let mut names = Names::new();
    let name = names.queue("q");
    let mut observer = broker().connect();
    observer.declare_queue(1, &name, queue::DURABLE, &none());
    let mut client = broker().connect();
    let mut bytes = Vec::new();
    for number in 0..300 {
        bytes.extend(client.message_bytes(
            1,
            &basic::publish("", &name, 0),
            &Properties::default(),
            format!("{number}").as_bytes(),
        ));
    }
    bytes.extend(connection::close().frame(0));
    client.send_bytes(&bytes);
    client.expect(0, connection::CLOSE_OK);
    observer.wait_for_count(1, &name, 300);
}

#[test]
fn close_while_messages_flow() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.consume(1, &name, "c", basic::NO_ACK, &none());
    client.call(1, &confirm::select(0));
    for number in 0..500 {
        client.publish(1, "", &name, format!("{number}"));
    }
    client.send(1, &channel::close());
    while client.recv(1).method.ids() != channel::CLOSE_OK {}
    client.expect_silence(1);
    client.close();
}

#[test]
fn update_secret_is_accepted() {
    let mut client = broker().connect();
    // A password has done its work when the connection is open: any other is as good.
    for secret in ["guest", "another", ""] {
        let reply = client.call(0, &connection::update_secret(secret));
        assert_eq!((reply.ids(), reply.arguments), ((10, 71), vec![]));
    }
    client.exclusive_queue(1, &none());
}

#[test]
fn unknown_client_properties_are_accepted() {
    let mut client = Client::new(broker().socket());
    let odd = table([
        ("capabilities", "not a table".into()),
        ("connection_name", Value::I32(5)),
        ("nested", Value::Table(table([("deeper", Value::Array(vec![Value::Void]))]))),
    ]);
    client.send_bytes(crate::client::PROTOCOL_HEADER);
    client.expect(0, connection::START);
    client.send(0, &connection::start_ok(&odd, "PLAIN", b"\0guest\0guest"));
    client.tune(&Handshake::default());
    client.call(0, &connection::open("/"));
    client.close();
}

#[test]
fn a_stopping_broker_says_so() {
    let Some(broker) = own_broker("") else { return };
    let (mut idle, mut consumer) = (broker.connect(), broker.connect());
    let name = consumer.exclusive_queue(1, &none());
    consumer.consume(1, &name, "c", 0, &none());
    drop(broker);
    for client in [&mut idle, &mut consumer] {
        let close = client.expect(0, connection::CLOSE).method;
        let (code, text, ids) = close_arguments(&close);
        assert_eq!((code, ids), (320, (0, 0)));
        assert_eq!(text, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'");
        client.drain_until_closed();
    }
}
