//! Limits of broker.toml: what is refused at the limit, and that what ends makes room again.

use std::time::{Duration, Instant};

use crate::{
    client::{Client, Handshake, PATIENCE},
    harness::{Broker, own_broker},
    methods::{basic, channel, connection, exchange, queue},
    wire::{Properties, Table},
};

fn none() -> Table {
    Table::new()
}

/// Connects as soon as one of the others has been counted out.
fn connect_soon(broker: &Broker) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::new(broker.socket());
        client.ask_to_open("guest", "guest", "/");
        if client.recv(0).method.ids() == connection::OPEN_OK {
            client.open_channel(1);
            return client;
        }
        assert!(Instant::now() < deadline, "the limit is still reached");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check_connection_limit(broker: &Broker, text: &str) {
    let (first, second) = (broker.connect(), broker.connect());
    for _ in 0..3 {
        let mut refused = Client::new(broker.socket());
        refused.ask_to_open("guest", "guest", "/");
        refused.expect_connection_close(530, &format!("NOT_ALLOWED - {text}"), (10, 40));
    }
    first.close();
    let third = connect_soon(broker);
    // An abrupt loss counts like a close.
    drop(second);
    let fourth = connect_soon(broker);
    let mut refused = Client::new(broker.socket());
    refused.ask_to_open("guest", "guest", "/");
    refused.expect_connection_close(530, &format!("NOT_ALLOWED - {text}"), (10, 40));
    drop((third, fourth));
}

#[test]
fn connections_are_limited() {
    let Some(broker) = own_broker("[limits]\nconnections = 2\n") else { return };
    check_connection_limit(&broker, "connection refused: node connection limit (2) is reached");
}

#[test]
fn connections_of_a_user_are_limited() {
    let users = r#"
[limits]
connections_per_user = 2
[[users]]
name = "another"
password = "secret"
permissions = [{ vhost = "/", configure = "", write = "", read = "" }]
"#;
    let Some(broker) = own_broker(users) else { return };
    let _others = [broker.connect_as("another", "secret", "/"), broker.connect_as("another", "secret", "/")];
    check_connection_limit(&broker, "connection refused for user 'guest': user connection limit (2) is reached");
}

/// A refused virtual host does not keep its place.
#[test]
fn a_refused_open_is_not_counted() {
    let Some(broker) = own_broker("[limits]\nconnections = 1\n") else { return };
    for _ in 0..3 {
        let mut client = Client::new(broker.socket());
        client.ask_to_open("guest", "guest", "missing");
        let close = client.expect(0, connection::CLOSE).method;
        assert_eq!(crate::client::close_arguments(&close).0, 530);
        drop(client);
        connect_soon(&broker).close();
        // The place is free again only after close-ok, so wait for it before the next round.
        drop(connect_soon(&broker));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn check_channel_limit(broker: &Broker, text: &str) {
    let mut first = broker.connect();
    first.open_channel(2);
    let mut second = broker.connect();
    second.send(9, &channel::open());
    second.expect_connection_close(530, text, (0, 0));
    // The refused connection's channel is gone with it: two stay open, one is free.
    first.call(2, &channel::close());
    let deadline = Instant::now() + PATIENCE;
    let mut third = broker.connect();
    third.send(2, &channel::open());
    let answer = third.recv(2).method;
    assert_eq!(answer.ids(), (20, 11), "two channels of three were open");
    drop(third);
    // The lost connection's two channels are counted out.
    loop {
        let mut fourth = Client::new(broker.socket());
        fourth.handshake(&Handshake::default());
        fourth.send(1, &channel::open());
        fourth.send(2, &channel::open());
        let mut opened = 0;
        while opened < 2 {
            match fourth.try_recv(opened + 1, Duration::from_millis(300)) {
                Ok(_) => opened += 1,
                Err(_) => break,
            }
        }
        if opened == 2 {
            return;
        }
        assert!(Instant::now() < deadline, "channels of a lost connection still count");
    }
}

#[test]
fn channels_of_the_node_are_limited() {
    let Some(broker) = own_broker("[limits]\nchannels_per_node = 3\n[node]\nname = \"here\"\n") else { return };
    check_channel_limit(
        &broker,
        "NOT_ALLOWED - number of channels opened on node 'rabbit@here' has reached the maximum allowed limit of 3",
    );
}

#[test]
fn channels_of_a_user_are_limited() {
    let Some(broker) = own_broker("[limits]\nchannels_per_user = 3\n") else { return };
    check_channel_limit(
        &broker,
        "NOT_ALLOWED - number of channels opened for user 'guest' has reached the maximum allowed user limit of 3",
    );
}

#[test]
fn queues_of_a_virtual_host_are_limited() {
    let Some(broker) = own_broker("[limits]\nqueues_per_vhost = 2\n[defaults]\nvhosts = [\"other\"]\n") else { return };
    let mut client = broker.connect();
    client.declare_queue(1, "one", 0, &none());
    let mut owner = broker.connect();
    owner.exclusive_queue(1, &none());
    client.send(1, &queue::declare("three", 0, &none()));
    let text = "PRECONDITION_FAILED - cannot declare queue 'three': queue limit in vhost '/' (2) is reached";
    client.expect_channel_close(1, 406, text, (50, 10));
    client.open_channel(1);
    client.declare_queue(1, "one", 0, &none());
    broker.connect_as("guest", "guest", "other").declare_queue(1, "three", 0, &none());
    owner.close();
    client.declare_queue(1, "three", 0, &none());
    client.call(1, &queue::delete("one", 0));
    client.declare_queue(1, "four", 0, &none());
}

#[test]
fn queues_and_exchanges_of_all_virtual_hosts_are_limited() {
    // One virtual host begins with seven exchanges, and the first with that of the events as well.
    let settings = "[limits]\nqueues = 2\nexchanges = 16\n[defaults]\nvhosts = [\"other\"]\n";
    let Some(broker) = own_broker(settings) else { return };
    let mut client = broker.connect();
    let mut other = broker.connect_as("guest", "guest", "other");
    client.declare_queue(1, "one", 0, &none());
    other.declare_queue(1, "two", 0, &none());
    client.send(1, &queue::declare("three", 0, &none()));
    let text = "PRECONDITION_FAILED - cannot declare queue 'three': queue limit in cluster (2) is reached";
    client.expect_channel_close(1, 406, text, (50, 10));
    client.open_channel(1);
    client.declare_queue(1, "one", 0, &none());
    other.call(1, &queue::delete("two", 0));
    client.declare_queue(1, "three", 0, &none());
    client.call(1, &exchange::declare("x", "fanout", 0, &none()));
    other.send(1, &exchange::declare("y", "fanout", 0, &none()));
    let text = "PRECONDITION_FAILED - cannot declare exchange 'y': exchange limit of 16 is reached";
    other.expect_channel_close(1, 406, text, (40, 10));
    other.open_channel(1);
    client.call(1, &exchange::delete("x", 0));
    other.call(1, &exchange::declare("y", "fanout", 0, &none()));
}

#[test]
fn exchanges_of_a_virtual_host_are_limited() {
    // The predeclared ones count: the default exchange and six more.
    let Some(broker) = own_broker("[limits]\nexchanges_per_vhost = 9\n") else { return };
    let mut client = broker.connect();
    let mut made = 0;
    let close = loop {
        client.send(1, &exchange::declare(&format!("x{made}"), "fanout", 0, &none()));
        let reply = client.recv(1).method;
        if reply.ids() == channel::CLOSE {
            break reply;
        }
        made += 1;
        assert!(made <= 9, "no limit");
    };
    let text =
        format!("PRECONDITION_FAILED - cannot declare exchange 'x{made}' in vhost '/': exchange limit of 9 is reached");
    assert_eq!(crate::client::close_arguments(&close), (406, text, (40, 10)));
    client.send(1, &channel::close_ok());
    client.open_channel(1);
    assert!(made > 0);
    client.call(1, &exchange::declare("x0", "fanout", 0, &none()));
    client.call(1, &exchange::delete("x0", 0));
    client.call(1, &exchange::declare("y", "fanout", 0, &none()));
}

#[test]
fn limits_of_a_connection() {
    let settings = "[amqp]\nconsumers_per_channel_max = 2\nchannel_max = 3\nmax_message_size = \"1000B\"\nframe_max = \"8KiB\"\nheartbeat = \"7s\"\n";
    let Some(broker) = own_broker(settings) else { return };
    let mut client = Client::new(broker.socket());
    client.log_in(&Handshake::default());
    let tune = client.expect(0, connection::TUNE).method;
    let mut reader = tune.reader();
    assert_eq!((reader.short(), reader.long(), reader.short()), (3, 8192, 7));
    let mut client = broker.connect();
    let name = client.exclusive_queue(1, &none());
    for number in 2..=3 {
        client.open_channel(number);
    }
    client.publish(1, "", &name, [b'x'; 1000]);
    assert_eq!(client.wait_for_message(1, &name, 1).content.body.len(), 1000);
    client.publish_with(2, &basic::publish("", &name, 0), &Properties::default(), [b'x'; 1001]);
    let text = "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000";
    client.expect_channel_close(2, 406, text, (60, 40));
    client.open_channel(2);
    client.consume(1, &name, "a", 0, &none());
    client.consume(1, &name, "b", 0, &none());
    client.consume(2, &name, "c", 0, &none());
    client.call(1, &basic::cancel("a", 0));
    client.consume(1, &name, "d", 0, &none());
    client.send(1, &basic::consume(&name, "e", 0, &none()));
    let text = "NOT_ALLOWED - reached maximum (2) of consumers per channel";
    client.expect_connection_close(530, text, (60, 20));
}

/// A channel whose close is under way when its connection goes is counted out once.
#[test]
fn closing_channels_are_counted_out_once() {
    let Some(broker) = own_broker("[limits]\nchannels_per_node = 1\n") else { return };
    for _ in 0..20 {
        let mut client = connect_soon(&broker);
        let name = client.exclusive_queue(1, &none());
        client.consume(1, &name, "c", 0, &none());
        let mut bytes = channel::close().frame(1);
        bytes.extend(connection::close().frame(0));
        client.send_bytes(&bytes);
        client.expect(0, connection::CLOSE_OK);
    }
    let mut client = connect_soon(&broker);
    client.send(2, &channel::open());
    assert_eq!(client.expect(0, connection::CLOSE).method.reader().short(), 530);
}
