//! Methods that close the whole connection.

use crate::{
    cases::{Case, run_connection_errors},
    harness::{Names, broker, is_warren},
    methods::{Method, basic, channel, connection, queue},
    wire::{Properties, Table, Writer},
};

#[test]
fn methods_that_are_not_implemented() {
    run_connection_errors(vec![
        Case::publish(
            "immediate",
            basic::publish("", "x", basic::IMMEDIATE),
            Properties::default(),
            b"m",
            540,
            "NOT_IMPLEMENTED - immediate=true",
        ),
        Case::new("prefetch size", basic::qos(10, 0, 0), 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)"),
        Case::new("recover without requeue", basic::recover(0), 540, "NOT_IMPLEMENTED - requeue=false"),
        Case::new("recover-async without requeue", basic::recover_async(0), 540, "NOT_IMPLEMENTED - requeue=false"),
        Case::new("flow off", channel::flow(0), 540, "NOT_IMPLEMENTED - active=false"),
    ]);
}

#[test]
fn misuse_of_channels_and_consumer_tags() {
    let names = Names::new();
    let name = names.plain("q");
    let unimplemented = "COMMAND_INVALID - unimplemented method";
    let consume = basic::consume(&name, "same", 0, &Table::new());
    run_connection_errors(vec![
        Case::new("second channel.open", channel::open(), 504, "CHANNEL_ERROR - second 'channel.open' seen"),
        Case::new("consumer tag", consume.clone(), 530, "NOT_ALLOWED - attempt to reuse consumer tag 'same'")
            .after([queue::declare(&name, queue::EXCLUSIVE, &Table::new()), consume]),
        Case::publish(
            "deliver from a client",
            basic::deliver_from_client(),
            Properties::default(),
            b"m",
            503,
            unimplemented,
        ),
        Case::new("qos-ok from a client", Method::new(60, 11, Writer::new()), 503, unimplemented),
        Case::new("flow-ok", Method::new(20, 21, Writer::new().octet(1)), 503, unimplemented),
        Case::new("close-ok of an open channel", channel::close_ok(), 503, unimplemented),
        Case::new("connection.close on a channel", connection::close(), 503, unimplemented),
        Case::new("get-empty from a client", Method::new(60, 72, Writer::new().short_string("")), 503, unimplemented),
    ]);
}

#[test]
fn a_method_before_channel_open_is_an_error() {
    let methods = [
        queue::declare("x", 0, &Table::new()),
        basic::qos(0, 0, 0),
        channel::flow(1),
        basic::ack(1, 0),
        channel::close(),
        channel::close_ok(),
        connection::open("/"),
    ];
    for method in methods {
        let mut client = broker().connect();
        client.send(5, &method);
        client.expect_connection_close(504, "CHANNEL_ERROR - expected 'channel.open'", method.ids());
    }
}

#[test]
fn the_number_of_channels_is_limited() {
    let mut client = broker().connect_with(&crate::client::Handshake { channel_max: Some(3), ..Default::default() });
    client.open_channel(2);
    client.open_channel(3);
    client.send(4, &channel::open());
    let text = "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)";
    client.expect_connection_close(530, text, (0, 0));
}

#[test]
fn a_closed_channel_makes_room_for_another() {
    let mut client = broker().connect_with(&crate::client::Handshake { channel_max: Some(2), ..Default::default() });
    client.open_channel(2);
    client.call(1, &channel::close());
    client.open_channel(1);
    client.close();
}

#[test]
fn unknown_methods_are_refused() {
    if !is_warren() {
        return;
    }
    let unknown = [(99, 1), (60, 99), (10, 99), (20, 99), (50, 1), (0, 0), (65535, 65535)];
    for (class, id) in unknown {
        let mut client = broker().connect();
        client.send(1, &Method::new(class, id, Writer::new()));
        let incoming = client.recv(0).method;
        let (code, _, _) = crate::client::close_arguments(&incoming);
        assert_eq!((incoming.ids(), code), ((10, 50), 503), "method {class}.{id}");
    }
}

#[test]
fn malformed_tables_are_syntax_errors() {
    if !is_warren() {
        return;
    }
    let with_table =
        |table: &[u8]| Method::new(50, 10, Writer::new().short(0).short_string("q").octet(4).long_string(table));
    let mut deep = Vec::new();
    for _ in 0..1000 {
        deep = Writer::new().short_string("k").octet(b'F').long_string(&deep).0;
    }
    let cases: Vec<(&str, Method)> = vec![
        ("unknown tag", with_table(b"\x01kZ\x00\x00\x00\x01")),
        ("value cut short", with_table(b"\x01kI\x00\x00")),
        ("key cut short", with_table(b"\x09key")),
        ("key without value", with_table(b"\x03key")),
        ("string longer than its table", with_table(b"\x01kS\x00\x00\xff\xffabc")),
        ("array longer than its table", with_table(b"\x01kA\x00\x00\x00\x09S")),
        ("deep nesting", with_table(&deep)),
    ];
    crate::cases::run_all(
        cases,
        |case| case.0.to_owned(),
        |(_, method)| {
            let mut client = broker().connect();
            client.send(1, method);
            let incoming = client.recv(0).method;
            let (code, text, _) = crate::client::close_arguments(&incoming);
            assert_eq!((incoming.ids(), code), ((10, 50), 502), "{text}");
            assert!(text.starts_with("SYNTAX_ERROR - "), "{text}");
        },
    );
}

#[test]
fn short_strings_must_be_text() {
    let bad = b"\xff\xfe";
    let methods = [
        Method::new(50, 10, Writer::new().short(0).short_string(bad).octet(4).table(&Table::new())),
        Method::new(60, 20, Writer::new().short(0).short_string("q").short_string(bad).octet(0).table(&Table::new())),
    ];
    for method in methods {
        let mut client = broker().connect();
        client.send(1, &method);
        client.expect_connection_close(501, "FRAME_ERROR - Malformed UTF-8 in shortstr", (0, 0));
    }
}
