//! Peers that mean harm or do it by accident: nobody else may notice, and memory stays bounded.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Handshake, PATIENCE, PROTOCOL_HEADER, close_arguments},
    harness::{MIB, Names, broker, growth, is_warren, own_broker, slowest_round_trip},
    methods::{Method, basic, confirm, connection, queue},
    wire::{BODY, HEADER, METHOD, Properties, Table, Value, Writer, frame, table},
};

fn none() -> Table {
    Table::new()
}

/// Writes `chunk` again and again until the peer closes or `limit` bytes are sent; how many were taken.
fn flood(socket: &mut TcpStream, chunk: &[u8], limit: usize) -> usize {
    socket.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut sent = 0;
    while sent < limit {
        match socket.write(chunk) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn floods_before_login_are_cut_off() {
    let Some(broker) = own_broker("") else { return };
    let before = broker.resident_bytes().unwrap();
    let chunk = vec![0xAA; 65_536];
    let mut endless_frame = PROTOCOL_HEADER.to_vec();
    endless_frame.extend(Writer::new().octet(METHOD).short(0).long(u32::MAX).0);
    let mut many_heartbeats = PROTOCOL_HEADER.to_vec();
    many_heartbeats.extend(frame(METHOD, 0, &[0; 20]));
    for opening in [Vec::new(), PROTOCOL_HEADER.to_vec(), endless_frame, many_heartbeats] {
        let mut socket = broker.socket();
        socket.write_all(&opening).unwrap();
        let sent = flood(&mut socket, &chunk, 64 * MIB as usize);
        assert!(sent < 32 * MIB as usize, "the broker took {sent} bytes after {opening:?}");
    }
    assert!(growth(&broker, before) < 24 * MIB, "grew by {} bytes", growth(&broker, before));
    broker.connect().close();
}

/// How many sockets this process may still open, with room for the tests that run beside; at most 1,000.
fn affordable_sockets() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let soft: usize = files.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(1024);
    soft.saturating_sub(200).min(1000)
}

#[test]
fn a_thousand_half_open_connections_leave_room_for_others() {
    let Some(broker) = own_broker("[amqp]\nhandshake_timeout = \"3s\"\n") else { return };
    let before = broker.resident_bytes().unwrap();
    let mut sockets: Vec<TcpStream> = (0..affordable_sockets()).map(|_| broker.socket()).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        let opening: &[u8] = if number.is_multiple_of(2) { PROTOCOL_HEADER } else { b"AM" };
        socket.write_all(opening).unwrap();
    }
    assert!(slowest_round_trip(&broker, 20) < Duration::from_secs(2));
    assert!(growth(&broker, before) < 96 * MIB, "grew by {} bytes", growth(&broker, before));
    let deadline = Instant::now() + Duration::from_secs(12);
    for socket in &mut sockets {
        socket
            .set_read_timeout(Some(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))))
            .unwrap();
        let closed = socket.read_to_end(&mut Vec::new());
        let still_open = matches!(&closed, Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset);
        assert!(!still_open, "a half-open connection outlived the handshake timeout: {closed:?}");
    }
    broker.connect().close();
}

#[test]
fn announced_bodies_take_no_memory_before_they_come() {
    let Some(broker) = own_broker("[amqp]\nmax_message_size = \"512MiB\"\n") else { return };
    let before = broker.resident_bytes().unwrap();
    let mut client = broker.connect();
    for channel in 2..=20 {
        client.open_channel(channel);
        client.send(channel, &basic::publish("", "nowhere", 0));
        client.send_bytes(&frame(HEADER, channel, &Writer::new().short(60).short(0).long_long(512 * MIB).short(0).0));
        client.send_bytes(&frame(BODY, channel, b"one byte short of 512 MiB"));
    }
    client.call(1, &basic::qos(0, 1, 0));
    assert!(growth(&broker, before) < 32 * MIB, "grew by {} bytes", growth(&broker, before));
}

#[test]
fn an_oversized_message_is_refused_without_being_kept() {
    let Some(broker) = own_broker("[amqp]\nmax_message_size = \"1MiB\"\n") else { return };
    let before = broker.resident_bytes().unwrap();
    let mut client = broker.connect();
    client.send(1, &basic::publish("", "nowhere", 0));
    client.send_bytes(&frame(HEADER, 1, &Writer::new().short(60).short(0).long_long(64 * MIB).short(0).0));
    let piece = frame(BODY, 1, &vec![b'x'; 65_536]);
    for _ in 0..64 * MIB / 65_536 {
        client.send_bytes(&piece);
    }
    let text = "PRECONDITION_FAILED - message size 67108864 is larger than configured max size 1048576";
    client.expect_channel_close(1, 406, text, (60, 40));
    client.open_channel(2);
    assert!(growth(&broker, before) < 16 * MIB, "grew by {} bytes", growth(&broker, before));
}

/// Publishes bodies of 128 KiB with confirms until `total` bytes are through; the slowest confirm of a batch.
fn publish_volume(client: &mut Client, name: &str, total: u64) -> Duration {
    let body = vec![0x55; 128 * 1024 - 8];
    client.call(1, &confirm::select(0));
    let batch = 16;
    let (mut slowest, mut sequence) = (Duration::ZERO, 0);
    for _ in 0..total / (body.len() as u64 * batch) {
        let start = Instant::now();
        for _ in 0..batch {
            client.publish(1, "", name, &body);
        }
        client.expect_acks(1, sequence + 1, sequence + batch);
        sequence += batch;
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

#[test]
fn a_consumer_that_never_reads_costs_bounded_memory() {
    let Some(broker) = own_broker("") else { return };
    let mut stuck = broker.connect();
    let name = stuck.exclusive_queue(1, &table([("x-max-length-bytes", Value::I64(16 * MIB as i64))]));
    for number in 0..4 {
        stuck.consume(1, &name, &format!("c{number}"), basic::NO_ACK, &none());
    }
    let before = broker.resident_bytes().unwrap();
    let mut publisher = broker.connect();
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut rounds = 0;
            while !finished.load(Ordering::Relaxed) {
                let slowest = slowest_round_trip(&broker, 5);
                assert!(slowest < Duration::from_secs(2), "another connection waited {slowest:?}");
                rounds += 1;
            }
            rounds
        });
        let slowest = publish_volume(&mut publisher, &name, 200 * MIB);
        finished.store(true, Ordering::Relaxed);
        assert!(slowest < Duration::from_secs(5), "the publisher waited {slowest:?} for a batch");
        assert!(observer.join().unwrap() > 0);
    });
    assert!(
        growth(&broker, before) < 96 * MIB,
        "200 MiB to a stuck consumer grew the broker by {} bytes",
        growth(&broker, before)
    );
    assert_eq!(stuck.expect_delivery(1).content.body.len(), 128 * 1024 - 8, "it may read later");
}

#[test]
fn floods_of_one_queue_do_not_stall_others() {
    let Some(broker) = own_broker("") else { return };
    let mut owner = broker.connect();
    let name = owner.exclusive_queue(1, &table([("x-max-length", 1000.into())]));
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = broker.connect();
                let batch = client
                    .message_bytes(1, &basic::publish("", &name, 0), &Properties::default(), &[7; 200])
                    .repeat(500);
                while !finished.load(Ordering::Relaxed) {
                    client.send_bytes(&batch);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(4);
        let mut slowest = Duration::ZERO;
        while Instant::now() < end {
            slowest = slowest.max(slowest_round_trip(&broker, 10));
        }
        finished.store(true, Ordering::Relaxed);
        assert!(slowest < Duration::from_secs(2), "a round trip took {slowest:?} during the flood");
    });
    assert!(owner.message_count(1, &name) <= 1000);
}

#[test]
fn deeply_nested_tables_are_refused_wherever_they_come() {
    if !is_warren() {
        return;
    }
    let mut tables = Vec::new();
    let mut arrays = Vec::new();
    while tables.len() < 60_000 {
        tables = Writer::new().short_string("k").octet(b'F').long_string(&tables).0;
        arrays = Writer::new().octet(b'A').long_string(&arrays).0;
    }
    let arrays = Writer::new().short_string("k").raw(&arrays).0;
    for nested in [&tables, &arrays] {
        let mut client = broker().connect();
        client.send(1, &Method::new(50, 10, Writer::new().short(0).short_string("q").octet(4).long_string(nested)));
        let close = client.recv(0).method;
        assert_eq!((close.ids(), close_arguments(&close).0), (connection::CLOSE, 502));
        let mut client = broker().connect();
        client.send(1, &basic::publish("amq.headers", "", 0));
        let header = Writer::new().short(60).short(0).long_long(0).short(1 << 13).long_string(nested).0;
        client.send_bytes(&frame(HEADER, 1, &header));
        let close = client.recv(0).method;
        assert_eq!((close.ids(), close_arguments(&close).0), (connection::CLOSE, 502));
        let mut socket = broker().socket();
        socket.write_all(PROTOCOL_HEADER).unwrap();
        let start_ok = Writer::new()
            .short(10)
            .short(11)
            .long_string(nested)
            .short_string("PLAIN")
            .long_string(b"")
            .short_string("en_US")
            .0;
        let _ = socket.write_all(&frame(METHOD, 0, &start_ok));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    }
    broker().connect().close();
}

#[test]
fn malformed_property_tables_are_refused() {
    if !is_warren() {
        return;
    }
    for bytes in [&b"\x01kZ\x00"[..], b"\x09k", b"\x01kS\x00\x00\xff\xff", b"\x01kF\x00\x00\x00\x09\x01"] {
        let mut client = broker().connect();
        client.send(1, &basic::publish("amq.headers", "", 0));
        let header = Writer::new().short(60).short(0).long_long(0).short(1 << 13).long_string(bytes).0;
        client.send_bytes(&frame(HEADER, 1, &header));
        let close = client.recv(0).method;
        assert_eq!((close.ids(), close_arguments(&close).0), (connection::CLOSE, 502), "{bytes:?}");
    }
}

#[test]
fn random_bytes_after_login_never_stop_the_broker() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let rounds = if is_warren() { 300 } else { 10 };
    for _ in 0..rounds {
        let mut client = broker().connect();
        let class = [10, 20, 40, 50, 60, 85, 90][(random() % 7) as usize];
        let id = [10, 11, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120][(random() % 13) as usize];
        let arguments: Vec<u8> = (0..random() % 40).map(|_| (random() % 5) as u8).collect();
        let _ = client
            .stream
            .write_all(&Method::new(class, id, Writer::new().raw(&arguments)).frame((random() % 2) as u16));
        let _ = client.stream.write_all(&frame((random() % 4) as u8, 1, &arguments));
    }
    broker().connect().close();
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let Some(broker) = own_broker("") else { return };
    let cycle = |count: usize| {
        for number in 0..count {
            let mut client = broker.connect_with(&Handshake::default());
            let name = client.exclusive_queue(1, &none());
            client.consume(1, &name, "c", 0, &none());
            client.publish(1, "", &name, vec![1; 10_000]);
            if number.is_multiple_of(2) {
                client.close();
            }
        }
    };
    cycle(100);
    let before = broker.resident_bytes().unwrap();
    cycle(400);
    assert!(growth(&broker, before) < 16 * MIB, "400 connections left {} bytes", growth(&broker, before));
}

#[test]
fn channels_and_queues_in_great_number_are_served() {
    let names = Names::new();
    let mut client = broker().connect();
    let count: u16 = if is_warren() { 1500 } else { 50 };
    let mut bytes = Vec::new();
    for number in 2..=count {
        bytes.extend(crate::methods::channel::open().frame(number));
        bytes.extend(queue::declare(&names.plain(&number.to_string()), queue::EXCLUSIVE, &none()).frame(number));
    }
    client.send_bytes(&bytes);
    for number in 2..=count {
        client.expect(number, (20, 11));
        client.expect(number, (50, 11));
    }
    client.close();
}

#[test]
fn a_publisher_that_never_reads_its_returns_is_held_back() {
    let Some(broker) = own_broker("") else { return };
    let before = broker.resident_bytes().unwrap();
    let mut client = broker.connect();
    let message = [
        basic::publish("", "nobody", basic::MANDATORY).frame(1),
        frame(HEADER, 1, &Writer::new().short(60).short(0).long_long(1024).short(0).0),
        frame(BODY, 1, &[b'x'; 1024]),
    ];
    let batch = message.concat().repeat(1000);
    client.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let taken = (0..256).take_while(|_| client.stream.write_all(&batch).is_ok()).count();
    assert!(taken < 256, "256 MB of unread returns were taken");
    assert!(growth(&broker, before) < 64 * MIB, "grew by {} bytes", growth(&broker, before));
    broker.connect().close();
}

#[test]
fn unfinished_messages_on_many_channels_are_bounded() {
    let Some(broker) = own_broker("[amqp]\nmax_message_size = \"1MiB\"\n") else { return };
    let before = broker.resident_bytes().unwrap();
    let mut client = broker.connect();
    let piece = frame(BODY, 0, &vec![b'x'; 65_536]);
    for channel in 2..200 {
        client.open_channel(channel);
    }
    client.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    for channel in 2..200_u16 {
        let mut message = basic::publish("", "nowhere", 0).frame(channel);
        message.extend(frame(HEADER, channel, &Writer::new().short(60).short(0).long_long(MIB).short(0).0));
        for _ in 0..8 {
            let mut body = piece.clone();
            body[1..3].copy_from_slice(&channel.to_be_bytes());
            message.extend(body);
        }
        if client.stream.write_all(&message).is_err() {
            break;
        }
    }
    let close = client.recv(0).method;
    assert_eq!((close.ids(), close_arguments(&close).0), (connection::CLOSE, 506));
    assert!(growth(&broker, before) < 48 * MIB, "grew by {} bytes", growth(&broker, before));
}
