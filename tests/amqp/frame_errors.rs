//! Frames that do not follow the grammar: each closes the connection.

use std::{io::Write, time::Duration};

use crate::{
    cases::run_all,
    client::{Client, Handshake, close_arguments, describe},
    harness::{broker, is_warren},
    methods::{Method, basic, channel, confirm, connection, exchange, queue, tx},
    wire::{BODY, FRAME_OVERHEAD, HEADER, HEARTBEAT, METHOD, Properties, Writer, frame},
};

fn header(class: u16, weight: u16, size: u64) -> Vec<u8> {
    Writer::new().short(class).short(weight).long_long(size).raw(&Properties::default().encode()).0
}

fn publish() -> Vec<u8> {
    basic::publish("", "nowhere", 0).frame(1)
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

struct Malformed {
    name: &'static str,
    bytes: Vec<u8>,
    code: u16,
    text: &'static str,
    ids: (u16, u16),
}

fn row(name: &'static str, bytes: Vec<u8>, code: u16, text: &'static str, ids: (u16, u16)) -> Malformed {
    Malformed { name, bytes, code, text, ids }
}

#[test]
fn content_must_follow_its_method() {
    let no_header = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
    let other_class = "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead";
    let no_body = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
    let no_method = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    let ids = (60, 40);
    run_all(
        vec![
            row("header without method", frame(HEADER, 1, &header(60, 0, 0)), 505, no_method, (0, 0)),
            row("body without method", frame(BODY, 1, b"x"), 505, no_method, (0, 0)),
            row("method instead of header", joined(&[publish(), basic::qos(0, 0, 0).frame(1)]), 505, no_header, ids),
            row("body instead of header", joined(&[publish(), frame(BODY, 1, b"x")]), 505, no_header, ids),
            row(
                "header of another class",
                joined(&[publish(), frame(HEADER, 1, &header(50, 0, 0))]),
                505,
                other_class,
                ids,
            ),
            row(
                "method instead of body",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, 3)), publish()]),
                505,
                no_body,
                ids,
            ),
            row("header with a weight", joined(&[publish(), frame(HEADER, 1, &header(60, 1, 0))]), 505, no_header, ids),
            row(
                "second header",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, 3)), frame(HEADER, 1, &header(60, 0, 3))]),
                505,
                no_body,
                ids,
            ),
            row(
                "body after an empty message",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, 0)), frame(BODY, 1, b"x")]),
                505,
                no_method,
                (0, 0),
            ),
        ],
        |case| case.name.to_owned(),
        closed_with_its_row,
    );
}

fn closed_with_its_row(case: &Malformed) {
    let mut client = broker().connect();
    client.send_bytes(&case.bytes);
    client.expect_connection_close(case.code, case.text, case.ids);
}

#[test]
fn content_keeps_to_its_announced_size() {
    let too_much = "FRAME_ERROR - content body frame exceeds remaining content size";
    let huge = "FRAME_ERROR - content body size 536870913 exceeds maximum allowed size 536870912";
    let endless = "FRAME_ERROR - content body size 18446744073709551615 exceeds maximum allowed size 536870912";
    let ids = (60, 40);
    run_all(
        vec![
            row(
                "body too long",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, 3)), frame(BODY, 1, b"four")]),
                501,
                too_much,
                ids,
            ),
            row(
                "last part too long",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, 3)), frame(BODY, 1, b"12"), frame(BODY, 1, b"34")]),
                501,
                too_much,
                ids,
            ),
            row(
                "announced size over the cap",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, 536_870_913))]),
                501,
                huge,
                ids,
            ),
            row(
                "announced size without end",
                joined(&[publish(), frame(HEADER, 1, &header(60, 0, u64::MAX))]),
                501,
                endless,
                ids,
            ),
        ],
        |case| case.name.to_owned(),
        closed_with_its_row,
    );
}

#[test]
fn broken_frames_are_told_and_the_socket_closed() {
    let with_end = |mut bytes: Vec<u8>, end: u8| {
        *bytes.last_mut().unwrap() = end;
        bytes
    };
    let announced = |kind: u8, size: u32| Writer::new().octet(kind).short(1).long(size).0;
    let body =
        |text: &[u8]| joined(&[publish(), frame(HEADER, 1, &header(60, 0, 20)), with_end(frame(BODY, 1, text), 7)]);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "method",
            with_end(basic::qos(0, 1, 0).frame(1), 0),
            "type 1, all octets = <<0,60,0,10,0,0,0,0,0,1,0>>: {invalid_frame_end_marker,0}",
        ),
        (
            "heartbeat",
            with_end(frame(HEARTBEAT, 0, b""), 0xCD),
            "type 8, all octets = <<>>: {invalid_frame_end_marker,205}",
        ),
        ("body", body(b"abc"), "type 3, all octets = <<\"abc\">>: {invalid_frame_end_marker,7}"),
        (
            "long body",
            body(b"abcdefghijklmnopqrst"),
            "type 3, first 16 octets = <<\"abcdefghijklmnop\">>: {invalid_frame_end_marker,7}",
        ),
        (
            "other type",
            with_end(frame(4, 1, b"what"), 1),
            "type 4, all octets = <<\"what\">>: {invalid_frame_end_marker,1}",
        ),
        ("one byte too large", announced(BODY, 131_073), "type 3, all octets = <<>>: {frame_too_large,131073,131064}"),
        ("4 GiB", announced(METHOD, u32::MAX), "type 1, all octets = <<>>: {frame_too_large,4294967295,131064}"),
    ];
    std::thread::scope(|scope| {
        for (name, bytes, text) in cases {
            scope.spawn(move || {
                let mut client = broker().connect();
                client.send_bytes(&bytes);
                let close = client.recv(0).method;
                assert_eq!(close.ids(), connection::CLOSE, "{name}: {}", describe(&close));
                assert_eq!(close_arguments(&close), (501, format!("FRAME_ERROR - {text}"), (0, 0)), "{name}");
                let _ = client.stream.write_all(&connection::close_ok().frame(0));
                client.expect_closed_socket(Duration::from_secs(6));
            });
        }
    });
}

#[test]
fn frames_that_cannot_be_anything_close_the_connection() {
    let unknown = |octets: &str, kind: u8| format!("FRAME_ERROR - type {kind}, {octets}: unknown_frame");
    let misplaced = |octets: &str, kind: u8| format!("UNEXPECTED_FRAME - type {kind}, {octets}");
    let numbers: Vec<u8> = (1..=17).collect();
    let cases: Vec<(Vec<u8>, u16, String)> = vec![
        (frame(4, 1, b"what"), 501, unknown("all octets = <<\"what\">>", 4)),
        (frame(0, 0, b""), 501, unknown("all octets = <<>>", 0)),
        (frame(255, 7, &[1, 2]), 501, unknown("all octets = <<1,2>>", 255)),
        (frame(HEARTBEAT, 0, b"x"), 501, unknown("all octets = <<\"x\">>", 8)),
        (frame(HEARTBEAT, 1, b"x"), 501, unknown("all octets = <<\"x\">>", 8)),
        (frame(METHOD, 1, b""), 501, unknown("all octets = <<>>", 1)),
        (frame(METHOD, 1, &[0, 60, 0]), 501, unknown("all octets = <<0,60,0>>", 1)),
        (frame(METHOD, 0, &[0, 60, 0]), 501, unknown("all octets = <<0,60,0>>", 1)),
        (frame(METHOD, 9, b""), 501, unknown("all octets = <<>>", 1)),
        (frame(HEADER, 9, b""), 501, unknown("all octets = <<>>", 2)),
        (joined(&[publish(), frame(HEADER, 1, &[0, 60])]), 501, unknown("all octets = <<0,60>>", 2)),
        (
            joined(&[publish(), frame(HEADER, 1, &header(60, 0, 0)[..11])]),
            501,
            unknown("all octets = <<0,60,0,0,0,0,0,0,0,0,0>>", 2),
        ),
        (frame(HEARTBEAT, 1, b""), 505, misplaced("all octets = <<>>", 8)),
        (frame(HEADER, 0, &header(60, 0, 0)), 505, misplaced("all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>", 2)),
        (frame(BODY, 0, b"he\"l\\lo\n"), 505, misplaced("all octets = <<\"he\\\"l\\\\lo\\n\">>", 3)),
        (frame(BODY, 0, &[200, 215]), 505, misplaced("all octets = <<\"È×\">>", 3)),
        (frame(BODY, 0, &numbers), 505, misplaced("first 16 octets = <<1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16>>", 3)),
    ];
    run_all(
        cases,
        |case| case.2.clone(),
        |(bytes, code, text)| {
            // At once, and byte by byte.
            for size in [bytes.len(), 1] {
                let mut client = broker().connect();
                for piece in bytes.chunks(size) {
                    client.send_bytes(piece);
                }
                client.expect_connection_close(*code, text, (0, 0));
            }
        },
    );
}

/// A method's payload with something behind its last field, and the ids it has.
fn with_more(method: &Method) -> (Method, String) {
    let longer = Method { arguments: [&method.arguments[..], b"x"].concat(), ..method.clone() };
    let text = cannot_decode(&longer.arguments);
    (longer, text)
}

fn cannot_decode(arguments: &[u8]) -> String {
    let octets: Vec<String> = arguments.iter().map(u8::to_string).collect();
    let text = format!("FRAME_ERROR - cannot decode <<{}>>", octets.join(","));
    if text.len() > 255 { format!("{}...", &text[..252]) } else { text }
}

/// One method of each kind that clients send on a channel.
fn channel_methods() -> Vec<Method> {
    let none = crate::wire::Table::new();
    vec![
        channel::open(),
        channel::flow(1),
        channel::close(),
        channel::close_ok(),
        crate::methods::access::request(),
        exchange::declare("x", "direct", 0, &none),
        exchange::delete("x", 0),
        exchange::bind("x", "y", "k", 0, &none),
        exchange::unbind("x", "y", "k", 0, &none),
        queue::declare("q", 0, &none),
        queue::bind("q", "x", "k", 0, &none),
        queue::unbind("q", "x", "k", &none),
        queue::purge("q", 0),
        queue::delete("q", 0),
        basic::qos(0, 1, 0),
        basic::consume("q", "t", 0, &none),
        basic::cancel("t", 0),
        basic::cancel_ok("t"),
        basic::publish("", "k", 0),
        basic::get("q", 0),
        basic::ack(1, 0),
        basic::reject(1, 0),
        basic::nack(1, 0),
        basic::recover(1),
        basic::recover_async(1),
        confirm::select(0),
        tx::select(),
        tx::commit(),
        tx::rollback(),
    ]
}

#[test]
fn nothing_may_follow_the_fields_of_a_method() {
    run_all(
        channel_methods(),
        |method| format!("{:?}", method.ids()),
        |method| {
            let (longer, text) = with_more(method);
            // On an open channel, and on one that is not: that the method makes no sense there is found later.
            for channel in [1, 9] {
                let mut client = broker().connect();
                client.send(channel, &longer);
                client.expect_connection_close(501, &text, method.ids());
            }
        },
    );
}

#[test]
fn no_field_of_a_method_may_be_missing() {
    run_all(
        channel_methods().into_iter().filter(|method| !method.arguments.is_empty()).collect(),
        |method| format!("{:?}", method.ids()),
        |method| {
            let last = method.arguments.len() - 1;
            let shorter = Method { arguments: method.arguments[..last].to_vec(), ..method.clone() };
            let mut client = broker().connect();
            client.send(1, &shorter);
            client.expect_connection_close(501, &cannot_decode(&shorter.arguments), method.ids());
        },
    );
    let cases = [
        Method::new(50, 10, Writer::new().short(0).short_string("q").octet(4).long(9999).raw(b"abc")),
        Method::new(60, 70, Writer::new().short(0).octet(200).raw(b"abc")),
        Method::new(60, 40, Writer::new().short(0).octet(5).raw(b"ab")),
        Method::new(60, 10, Writer::new().raw(&(0..200).collect::<Vec<u8>>())),
    ];
    for method in cases {
        let mut client = broker().connect();
        client.send(1, &method);
        client.expect_connection_close(501, &cannot_decode(&method.arguments), method.ids());
    }
}

/// RabbitMQ says 541 of these, or nothing.
#[test]
fn the_fields_of_connection_methods_must_be_whole_too() {
    if !is_warren() {
        return;
    }
    for method in [connection::close(), connection::close_ok(), connection::update_secret("x")] {
        let (longer, text) = with_more(&method);
        let mut client = broker().connect();
        client.send(0, &longer);
        client.expect_connection_close(501, &text, method.ids());
    }
    let (tune_ok, text) = with_more(&connection::tune_ok(2047, 131_072, 0));
    let mut client = Client::new(broker().socket());
    client.log_in(&Handshake::default());
    client.expect(0, connection::TUNE);
    client.send(0, &tune_ok);
    client.expect_connection_close(501, &text, tune_ok.ids());
}

/// RabbitMQ says 541 of these.
#[test]
fn properties_must_be_whole() {
    if !is_warren() {
        return;
    }
    for properties in [&b""[..], b"\0", b"\0\0x", b"\x80\0", b"\x80\0\x05ab", b"\x20\0\0\0\0\x09a", b"\0\x01\0\0"] {
        let mut client = broker().connect();
        let header = Writer::new().short(60).short(0).long_long(0).raw(properties).0;
        client.send_bytes(&joined(&[publish(), frame(HEADER, 1, &header)]));
        client.expect_connection_close(501, &cannot_decode(properties), (60, 40));
    }
}

#[test]
fn content_needs_an_open_channel() {
    let no_method = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    for bytes in [frame(HEADER, 9, &header(60, 0, 0)), frame(BODY, 9, b"x"), frame(BODY, 9, b"")] {
        let mut client = broker().connect();
        client.send_bytes(&bytes);
        client.expect_connection_close(505, no_method, (0, 0));
    }
}

#[test]
fn channels_are_of_an_open_connection() {
    let cases = [
        (channel::open().frame(1), "type 1, all octets = <<0,20,0,10,0>>"),
        (basic::qos(0, 1, 0).frame(1), "type 1, all octets = <<0,60,0,10,0,0,0,0,0,1,0>>"),
        (frame(HEADER, 1, &header(60, 0, 0)), "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>"),
        (frame(BODY, 1, b"hi"), "type 3, all octets = <<\"hi\">>"),
        (frame(HEADER, 0, &header(60, 0, 0)), "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>"),
        (frame(METHOD, 1, b""), "type 1, all octets = <<>>"),
        (frame(4, 1, b"what"), "type 4, all octets = <<\"what\">>"),
        (frame(HEARTBEAT, 1, b""), "type 8, all octets = <<>>"),
    ];
    for (bytes, text) in cases {
        let mut client = Client::new(broker().socket());
        client.log_in(&Handshake::default());
        client.tune(&Handshake::default());
        client.send_bytes(&bytes);
        client.expect_connection_close(505, &format!("UNEXPECTED_FRAME - {text}"), (0, 0));
    }
}

/// A client may be in the middle of a message when it hears that its channel is closed: what belongs to the message is no
/// mistake. What could never have been right still is one.
#[test]
fn frames_of_a_closing_channel_are_checked_and_dropped() {
    let refused = || {
        let mut client = broker().connect();
        client.send_bytes(&joined(&[
            basic::publish("no-such-exchange", "", 0).frame(1),
            frame(HEADER, 1, &header(60, 0, 0)),
        ]));
        client.send_bytes(&joined(&[publish(), frame(HEADER, 1, &header(60, 0, 4)), frame(BODY, 1, b"ab")]));
        client.expect(1, channel::CLOSE);
        client
    };
    let rest = frame(BODY, 1, b"cd");
    let mut client = refused();
    client.send_bytes(&joined(&[rest.clone(), publish(), frame(HEADER, 1, &header(60, 0, 0)), publish()]));
    client.send_bytes(&joined(&[frame(HEADER, 1, &header(60, 0, 1)), frame(BODY, 1, b"x"), basic::ack(9, 0).frame(1)]));
    client.call(1, &channel::close());
    client.send(1, &channel::close_ok());
    client.open_channel(1);
    client.close();

    let no_method = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    let mut client = refused();
    client.send_bytes(&joined(&[rest.clone(), frame(BODY, 1, b"x")]));
    client.expect_connection_close(505, no_method, (0, 0));
    let mut client = refused();
    client.send_bytes(&basic::ack(1, 0).frame(1));
    let no_body = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
    client.expect_connection_close(505, no_body, (60, 40));
    let mut client = refused();
    let (longer, text) = with_more(&basic::ack(1, 0));
    client.send_bytes(&joined(&[rest.clone(), longer.frame(1)]));
    client.expect_connection_close(501, &text, (60, 80));
    let mut client = refused();
    client.send_bytes(&joined(&[rest, channel::open().frame(1)]));
    client.expect_connection_close(504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10));
}

#[test]
fn frames_up_to_the_negotiated_size_are_accepted() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &crate::wire::Table::new());
    let body = vec![1; client.frame_max - FRAME_OVERHEAD];
    client.publish(1, "", &name, &body);
    assert_eq!(client.wait_for_message(1, &name, 1).content.body.len(), body.len());
    let tolerated = vec![2; client.frame_max];
    let bytes = crate::client::content_frames(
        1,
        &basic::publish("", &name, 0),
        &Properties::default().encode(),
        &tolerated,
        client.frame_max,
    );
    client.send_bytes(&bytes);
    assert_eq!(client.wait_for_message(1, &name, 1).content.body, tolerated);
}

#[test]
fn frames_before_login_are_small() {
    let mut client = Client::new(broker().socket());
    client.send_bytes(crate::client::PROTOCOL_HEADER);
    client.expect(0, connection::START);
    let _ = client.stream.write_all(&Writer::new().octet(METHOD).short(0).long(1 << 20).0);
    let _ = client.stream.write_all(&vec![0; 20_000]);
    client.drain_until_closed();
}

#[test]
fn heartbeats_and_empty_body_frames_inside_content_are_tolerated() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &crate::wire::Table::new());
    let parts = [
        basic::publish("", &name, 0).frame(1),
        frame(HEARTBEAT, 0, b""),
        frame(HEADER, 1, &header(60, 0, 4)),
        frame(HEARTBEAT, 0, b""),
        frame(BODY, 1, b"ab"),
        frame(BODY, 1, b""),
        frame(BODY, 1, b"cd"),
    ];
    client.send_bytes(&joined(&parts));
    let message = client.wait_for_message(1, &name, 1);
    assert_eq!((message.text(), message.content.body_frames.len()), ("abcd", 1));
}

#[test]
fn contents_of_two_channels_may_interleave() {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(1, &crate::wire::Table::new());
    let parts = [
        basic::publish("", &name, 0).frame(1),
        basic::publish("", &name, 0).frame(2),
        frame(HEADER, 2, &header(60, 0, 4)),
        frame(HEADER, 1, &header(60, 0, 2)),
        frame(BODY, 2, b"se"),
        frame(BODY, 1, b"fi"),
        basic::qos(0, 1, 0).frame(1),
        frame(BODY, 2, b"co"),
    ];
    client.send_bytes(&joined(&parts));
    client.expect(1, (60, 11));
    client.call(2, &channel::flow(1));
    client.wait_for_count(1, &name, 2);
    let mut bodies = client.drain_queue(1, &name);
    bodies.sort();
    assert_eq!(bodies, ["fi", "seco"]);
}

#[test]
fn frames_while_the_connection_closes_are_dropped() {
    let mut client = broker().connect();
    client.send(1, &basic::qos(1, 0, 0));
    client.expect(0, connection::CLOSE);
    client.send(1, &basic::qos(0, 1, 0));
    client.send(0, &connection::tune_ok(1, 1, 1));
    client.expect_silence(1);
    client.send(0, &connection::close());
    client.expect(0, connection::CLOSE_OK);
    if is_warren() {
        let _ = client.stream.write_all(&connection::close_ok().frame(0));
        client.drain_until_closed();
    }
}
