//! Frames that do not follow the grammar: each closes the connection.

use std::{io::Write, time::Duration};

use crate::{
    cases::run_all,
    client::{close_arguments, describe},
    harness::{broker, is_warren},
    methods::{basic, channel, connection},
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
    let mut wrong_end = basic::qos(0, 1, 0).frame(1);
    *wrong_end.last_mut().unwrap() = 0;
    let mut empty_wrong_end = frame(HEARTBEAT, 0, b"");
    *empty_wrong_end.last_mut().unwrap() = 0xCD;
    let mut too_large = Writer::new().octet(BODY).short(1).long(131_073).0;
    too_large.extend([0; 100]);
    let endless = Writer::new().octet(METHOD).short(1).long(u32::MAX).0;
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("wrong end byte", wrong_end, 501),
        ("wrong end byte of a heartbeat", empty_wrong_end, 501),
        ("one byte too large", too_large, 501),
        ("4 GiB", endless, 501),
        ("unknown type", frame(4, 1, b"what"), 501),
        ("type 0", frame(0, 0, b""), 501),
        ("heartbeat on channel 1", frame(HEARTBEAT, 1, b""), 505),
        ("header on channel 0", frame(HEADER, 0, &header(60, 0, 0)), 505),
        ("body on channel 0", frame(BODY, 0, b"x"), 505),
    ];
    std::thread::scope(|scope| {
        for (name, bytes, code) in cases {
            scope.spawn(move || {
                let mut client = broker().connect();
                client.send_bytes(&bytes);
                let close = client.recv(0).method;
                assert_eq!(close.ids(), connection::CLOSE, "{name}: {}", describe(&close));
                let (received, text, _) = close_arguments(&close);
                assert_eq!(received, code, "{name}: {text}");
                let prefix = if code == 501 { "FRAME_ERROR - " } else { "UNEXPECTED_FRAME - " };
                assert!(text.starts_with(prefix), "{name}: {text}");
                let _ = client.stream.write_all(&connection::close_ok().frame(0));
                client.expect_closed_socket(Duration::from_secs(6));
            });
        }
    });
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
    let mut client = crate::client::Client::new(broker().socket());
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
