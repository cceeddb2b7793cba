//! From the first byte to connection.open-ok.

use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

use crate::{
    cases::run_all,
    client::{Client, Handshake, NoFrame, PATIENCE, PROTOCOL_HEADER},
    harness::{broker, is_warren, own_broker},
    methods::{Method, basic, channel, connection},
    wire::{HEADER, Properties, Table, Value, Writer, field, frame, table},
};

#[test]
fn other_protocol_headers_are_answered_with_the_supported_one() {
    if !is_warren() {
        return;
    }
    let cases: Vec<(&str, &[u8])> = vec![
        ("0-8", b"AMQP\x01\x01\x08\x00"),
        ("0-9-2", b"AMQP\x00\x00\x09\x02"),
        ("0-10", b"AMQP\x00\x00\x0a\x00"),
        ("0-0-8", b"AMQP\x00\x00\x08\x00"),
        ("1.0 without SASL", b"AMQP\x00\x01\x00\x00"),
        ("1.0 over TLS", b"AMQP\x02\x01\x00\x00"),
        ("1.0 with SASL", b"AMQP\x03\x01\x00\x00"),
        ("unknown protocol id", b"AMQP\x09\x01\x00\x00"),
        ("all ones", b"AMQP\xff\xff\xff\xff"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
        ("noise", b"\x00\x01\x02\x03\x04\x05\x06\x07"),
        ("lower case", b"amqp\x00\x00\x09\x01"),
    ];
    run_all(
        cases,
        |case| case.0.to_owned(),
        |(_, sent)| {
            let mut socket = broker().socket();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(sent).unwrap();
            let mut received = [0; 8];
            socket.read_exact(&mut received).unwrap();
            assert_eq!(&received, PROTOCOL_HEADER);
            assert_eq!(socket.read(&mut received).unwrap_or(0), 0, "the socket is closed after the answer");
        },
    );
}

#[test]
fn the_0_9_header_is_accepted() {
    let mut client = Client::new(broker().socket());
    client.send_bytes(b"AMQP\x01\x01\x00\x09");
    client.expect(0, connection::START);
}

#[test]
fn a_socket_without_a_byte_is_a_health_check() {
    for _ in 0..20 {
        drop(broker().socket());
    }
    broker().connect().close();
}

#[test]
fn connection_start_tells_what_the_broker_can_do() {
    let mut client = Client::new(broker().socket());
    client.send_bytes(PROTOCOL_HEADER);
    let start = client.expect(0, connection::START).method;
    let mut reader = start.reader();
    assert_eq!((reader.octet(), reader.octet()), (0, 9));
    let properties = reader.table();
    let mechanisms = String::from_utf8(reader.long_string().to_vec()).unwrap();
    assert!(mechanisms.split(' ').any(|name| name == "PLAIN"), "{mechanisms}");
    assert!(mechanisms.split(' ').any(|name| name == "AMQPLAIN"), "{mechanisms}");
    assert_eq!(reader.long_string(), b"en_US");
    let keys: Vec<&str> = properties.iter().map(|(key, _)| key.as_str()).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    for key in ["capabilities", "cluster_name", "copyright", "information", "platform", "product", "version"] {
        assert!(keys.contains(&key), "{key} is missing");
    }
    let Some(Value::Table(capabilities)) = field(&properties, "capabilities") else {
        panic!("capabilities are a table")
    };
    let expected = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ];
    assert_eq!(*capabilities, table(expected.map(|name| (name, Value::Bool(true)))));
}

#[test]
fn tune_proposes_the_defaults() {
    let mut client = Client::new(broker().socket());
    client.log_in(&Handshake::default());
    let tune = client.expect(0, connection::TUNE).method;
    let mut reader = tune.reader();
    assert_eq!((reader.short(), reader.long(), reader.short()), (2047, 131_072, 60));
}

/// Protocol header and start-ok with these parameters.
fn start_ok(client: &mut Client, capabilities: Table, mechanism: &str, response: &[u8]) {
    client.send_bytes(PROTOCOL_HEADER);
    client.expect(0, connection::START);
    let properties = Handshake { capabilities, ..Handshake::default() }.client_properties();
    client.send(0, &connection::start_ok(&properties, mechanism, response));
}

fn amqplain(pairs: &Table) -> Vec<u8> {
    Writer::new().table(pairs).0.split_off(4)
}

#[test]
fn amqplain_is_accepted() {
    let mut client = Client::new(broker().socket());
    let response = amqplain(&table([("LOGIN", "guest".into()), ("PASSWORD", "guest".into())]));
    start_ok(&mut client, Table::new(), "AMQPLAIN", &response);
    client.tune(&Handshake::default());
    client.call(0, &connection::open("/"));
    client.close();
}

#[test]
fn a_failed_login_is_told_to_clients_that_understand() {
    let text = |mechanism: &str| {
        format!(
            "ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
        )
    };
    let wrong_table = amqplain(&table([("LOGIN", "guest".into()), ("PASSWORD", "wrong".into())]));
    let logins: [(&str, &[u8]); 5] = [
        ("PLAIN", b"\0guest\0wrong"),
        ("PLAIN", b"\0nobody\0guest"),
        ("PLAIN", b"\0guest\0"),
        ("PLAIN", b"\0\0"),
        ("AMQPLAIN", &wrong_table),
    ];
    for (mechanism, response) in logins {
        let mut client = Client::new(broker().socket());
        start_ok(&mut client, table([("authentication_failure_close", true.into())]), mechanism, response);
        client.expect_connection_close(403, &text(mechanism), (0, 0));
    }
}

#[test]
fn a_failed_login_is_otherwise_silent_for_three_seconds() {
    let no_password = amqplain(&table([("LOGIN", "guest".into())]));
    let knows = || table([("authentication_failure_close", true.into())]);
    let attempts: Vec<(&str, Table, &str, Vec<u8>)> = vec![
        ("wrong password", Table::new(), "PLAIN", b"\0guest\0wrong".to_vec()),
        (
            "capability is false",
            table([("authentication_failure_close", false.into())]),
            "PLAIN",
            b"\0guest\0wrong".to_vec(),
        ),
        ("unknown mechanism", knows(), "SCRAM", b"".to_vec()),
        ("PLAIN without NUL", knows(), "PLAIN", b"guest".to_vec()),
        ("PLAIN with one NUL", knows(), "PLAIN", b"\0guest".to_vec()),
        ("PLAIN without anything", knows(), "PLAIN", b"".to_vec()),
        ("AMQPLAIN without password", knows(), "AMQPLAIN", no_password),
    ];
    let silent = |(name, capabilities, mechanism, response): (&str, Table, &str, Vec<u8>)| {
        let mut client = Client::new(broker().socket());
        start_ok(&mut client, capabilities, mechanism, &response);
        assert_closed_after_three_seconds(&mut client, name);
    };
    thread::scope(|scope| {
        for attempt in attempts {
            scope.spawn(move || silent(attempt));
        }
        scope.spawn(|| {
            let mut client = Client::new(broker().socket());
            client.send_bytes(PROTOCOL_HEADER);
            client.expect(0, connection::START);
            client.send(0, &connection::open("/"));
            assert_closed_after_three_seconds(&mut client, "open instead of start-ok");
        });
    });
}

fn assert_closed_after_three_seconds(client: &mut Client, name: &str) {
    let start = Instant::now();
    assert_eq!(client.read_frame(PATIENCE).err(), Some(NoFrame::Closed), "{name}");
    let waited = start.elapsed();
    assert!(
        waited > Duration::from_millis(2500) && waited < Duration::from_millis(6000),
        "{name}: closed after {waited:?}"
    );
}

#[test]
fn tune_ok_must_keep_to_the_limits() {
    let cases: Vec<(&str, u16, u32)> = vec![
        ("negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (2047)", 0, 131_072),
        ("negotiated channel_max = 2048 is higher than the maximum allowed value (2047)", 2048, 131_072),
        ("negotiated frame_max = 0 (no limit) is higher than the maximum allowed value (131072)", 2047, 0),
        ("negotiated frame_max = 131073 is higher than the maximum allowed value (131072)", 2047, 131_073),
        ("negotiated frame_max = 1000 is lower than the minimum allowed value (4096)", 2047, 1000),
        ("negotiated frame_max = 4095 is lower than the minimum allowed value (4096)", 2047, 4095),
    ];
    thread::scope(|scope| {
        for (text, channel_max, frame_max) in cases {
            scope.spawn(move || {
                let mut client = Client::new(broker().socket());
                client.log_in(&Handshake::default());
                client.expect(0, connection::TUNE);
                client.send(0, &connection::tune_ok(channel_max, frame_max, 60));
                expect_refusal(&mut client, 530, &format!("NOT_ALLOWED - {text}"), (10, 31));
            });
        }
    });
}

/// A mistake after login and before open: Warren says what is wrong, RabbitMQ closes the socket after three seconds.
fn expect_refusal(client: &mut Client, code: u16, text: &str, ids: (u16, u16)) {
    if is_warren() {
        client.expect_connection_close(code, text, ids);
    } else {
        assert_closed_after_three_seconds(client, text);
    }
}

/// Warren's difference: old clients with the frame size of the specification may connect.
#[test]
fn a_frame_max_of_4096_is_accepted() {
    if !is_warren() {
        return;
    }
    let mut client = broker().connect_with(&Handshake { frame_max: Some(4096), ..Handshake::default() });
    let name = client.exclusive_queue(1, &Table::new());
    let body = vec![7; 20_000];
    client.publish(1, "", &name, &body);
    assert_eq!(client.wait_for_message(1, &name, 1).content.body, body);
    client.close();
}

#[test]
fn the_virtual_host_must_exist() {
    for name in ["nowhere", "", "//", "/ "] {
        let mut client = Client::new(broker().socket());
        client.log_in(&Handshake::default());
        client.tune(&Handshake::default());
        client.send(0, &connection::open(name));
        client.expect_connection_close(530, &format!("NOT_ALLOWED - vhost {name} not found"), (10, 40));
    }
}

#[test]
fn methods_out_of_turn_name_the_state() {
    let start_ok = connection::start_ok(&Table::new(), "PLAIN", b"\0guest\0guest");
    let tune_ok = connection::tune_ok(2047, 131_072, 0);
    for method in [
        &start_ok,
        &tune_ok,
        &connection::open("/"),
        &channel::open(),
        &Method::new(10, 21, Writer::new().long_string("x")),
    ] {
        let mut client = broker().connect();
        client.send(0, method);
        client.expect_connection_close(
            504,
            "CHANNEL_ERROR - unexpected method in connection state running",
            method.ids(),
        );
    }
    let mut client = Client::new(broker().socket());
    client.log_in(&Handshake::default());
    client.expect(0, connection::TUNE);
    client.send(0, &connection::open("/"));
    expect_refusal(&mut client, 504, "CHANNEL_ERROR - unexpected method in connection state tuning", (10, 40));
    let mut client = Client::new(broker().socket());
    client.log_in(&Handshake::default());
    client.tune(&Handshake::default());
    client.send(0, &tune_ok);
    client.expect_connection_close(504, "CHANNEL_ERROR - unexpected method in connection state opening", (10, 31));
}

#[test]
fn the_handshake_may_be_pipelined() {
    let mut client = Client::new(broker().socket());
    let mut bytes = PROTOCOL_HEADER.to_vec();
    bytes.extend(connection::start_ok(&Table::new(), "PLAIN", b"\0guest\0guest").frame(0));
    bytes.extend(connection::tune_ok(10, 8192, 0).frame(0));
    bytes.extend(connection::open("/").frame(0));
    bytes.extend(channel::open().frame(1));
    client.send_bytes(&bytes);
    client.expect(0, connection::START);
    client.expect(0, connection::TUNE);
    client.expect(0, connection::OPEN_OK);
    client.expect(1, (20, 11));
    client.close();
}

#[test]
fn the_handshake_may_come_byte_by_byte() {
    let mut client = Client::new(broker().socket());
    for byte in PROTOCOL_HEADER {
        client.send_bytes(&[*byte]);
    }
    client.expect(0, connection::START);
    for byte in connection::start_ok(&Table::new(), "PLAIN", b"\0guest\0guest").frame(0) {
        client.send_bytes(&[byte]);
    }
    client.tune(&Handshake::default());
    client.call(0, &connection::open("/"));
    client.close();
}

#[test]
fn a_handshake_that_stalls_is_cut_off() {
    let Some(broker) = own_broker("[amqp]\nhandshake_timeout = \"1s\"\n") else { return };
    let stages: [&[&[u8]]; 3] = [&[], &[b"AMQ"], &[PROTOCOL_HEADER]];
    let broker = &broker;
    thread::scope(|scope| {
        for stage in stages {
            scope.spawn(move || {
                let mut socket = broker.socket();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                let start = Instant::now();
                for part in stage {
                    socket.write_all(part).unwrap();
                }
                let mut rest = Vec::new();
                socket.read_to_end(&mut rest).expect("the broker closes the socket");
                let waited = start.elapsed();
                assert!(
                    waited > Duration::from_millis(700) && waited < Duration::from_secs(5),
                    "closed after {waited:?}"
                );
            });
        }
        scope.spawn(|| {
            let mut client = Client::new(broker.socket());
            client.log_in(&Handshake::default());
            client.expect(0, connection::TUNE);
            client.expect_closed_socket(Duration::from_secs(5));
        });
        scope.spawn(|| {
            let mut client = broker.connect();
            thread::sleep(Duration::from_millis(1500));
            client.call(1, &basic::qos(0, 1, 0));
        });
    });
}

#[test]
fn a_slow_loris_does_not_keep_its_socket() {
    let Some(broker) = own_broker("[amqp]\nhandshake_timeout = \"1s\"\n") else { return };
    let mut socket = broker.socket();
    let mut bytes = PROTOCOL_HEADER.to_vec();
    bytes.extend(frame(HEADER, 0, &Properties::default().encode()));
    bytes.splice(8.., connection::start_ok(&Table::new(), "PLAIN", &[b'x'; 500]).frame(0));
    let start = Instant::now();
    let refused = bytes.iter().any(|byte| {
        thread::sleep(Duration::from_millis(25));
        socket.write_all(&[*byte]).is_err()
    });
    assert!(refused, "the broker kept reading for {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(8), "closed after {:?}", start.elapsed());
}
