//! Messages pass through the broker unchanged, however they are cut into frames and packets.

use std::io::Write;

use crate::{
    client::{Handshake, Message, content_frames},
    harness::{broker, is_warren},
    methods::basic,
    wire::{BODY, FRAME_OVERHEAD, HEADER, Properties, Table, Value, Writer, frame, table},
};

/// Every field type, nested, with duplicates and in an order that nobody sorts.
fn exotic_headers() -> Table {
    let scalars = vec![
        Value::Bool(true),
        Value::I8(-8),
        Value::U8(200),
        Value::I16(-30_000),
        Value::U16(60_000),
        Value::I32(i32::MIN),
        Value::U32(u32::MAX),
        Value::I64(i64::MIN),
        Value::Float(1.5),
        Value::Double(-2.25),
        Value::Decimal(2, 31_415),
        Value::LongString(vec![0xFF, 0x00, 0xFE]),
        Value::Binary(vec![1, 2, 3, 0]),
        Value::Timestamp(u64::MAX),
        Value::Void,
        Value::I64UpperCase(-42),
    ];
    let mut headers: Table =
        scalars.iter().enumerate().map(|(number, value)| (format!("z{}", 99 - number), value.clone())).collect();
    headers.push(("again".to_owned(), Value::I32(1)));
    headers.push(("again".to_owned(), Value::I32(2)));
    headers.push((String::new(), Value::from("empty key")));
    headers.push((
        "nested".to_owned(),
        Value::Table(table([("b", Value::Array(scalars)), ("a", Value::Table(Table::new()))])),
    ));
    headers.push(("no elements".to_owned(), Value::Array(Vec::new())));
    headers.push(("k".repeat(255), Value::Bool(false)));
    headers
}

fn full_properties() -> Properties {
    let text = |text: &str| Some(text.to_owned());
    Properties {
        content_type: text("text/plain"),
        content_encoding: text("gzip"),
        headers: Some(exotic_headers()),
        delivery_mode: Some(2),
        priority: Some(255),
        correlation_id: text("correlation"),
        reply_to: text("somewhere"),
        expiration: text("60000000"),
        message_id: text("käse"),
        timestamp: Some(1_700_000_000),
        kind: text("kind"),
        user_id: text("guest"),
        app_id: text(""),
        cluster_id: text("cluster"),
    }
}

/// Warren passes properties on byte for byte; RabbitMQ sorts headers by name, keeps the first of several and writes `L` as `l`.
fn assert_unchanged(message: &Message, sent: &Properties) {
    if is_warren() {
        assert_eq!(message.content.raw_properties, sent.encode());
        return;
    }
    let mut expected = sent.clone();
    if let Some(headers) = &mut expected.headers {
        headers.sort_by(|left, right| left.0.cmp(&right.0));
        headers.dedup_by(|left, right| left.0 == right.0);
        headers.iter_mut().for_each(|(_, value)| lower_case(value));
    }
    assert_eq!(message.properties(), expected);
}

fn lower_case(value: &mut Value) {
    match value {
        Value::I64UpperCase(number) => *value = Value::I64(*number),
        Value::Array(values) => values.iter_mut().for_each(lower_case),
        Value::Table(pairs) => pairs.iter_mut().for_each(|(_, value)| lower_case(value)),
        _ => {}
    }
}

#[test]
fn property_bytes_are_unchanged() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &Table::new());
    let samples = [
        full_properties(),
        Properties::default(),
        Properties { headers: Some(Table::new()), ..Properties::default() },
        Properties { headers: Some(exotic_headers()), ..Properties::default() },
        Properties { timestamp: Some(0), cluster_id: Some(String::new()), ..Properties::default() },
        Properties { delivery_mode: Some(0), priority: Some(0), ..Properties::default() },
    ];
    for properties in samples {
        client.publish_with(1, &basic::publish("", &name, 0), &properties, b"got");
        let message = client.wait_for_message(1, &name, 1);
        assert_unchanged(&message, &properties);
        client.consume(1, &name, "c", basic::NO_ACK, &Table::new());
        client.publish_with(1, &basic::publish("", &name, 0), &properties, b"");
        let message = client.expect_delivery(1);
        assert_unchanged(&message, &properties);
        assert_eq!(message.content.body_frames.len(), 0);
        client.call(1, &basic::cancel("c", 0));
        client.publish_with(1, &basic::publish("", "nowhere", basic::MANDATORY), &properties, b"returned");
        assert_unchanged(&client.expect_return(1), &properties);
    }
}

#[test]
fn bodies_may_be_split_into_any_frames() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &Table::new());
    let body: Vec<u8> = (0..10_000_u32).map(|number| number.to_be_bytes()[3]).collect();
    for part in [1000, 4096, 1, 9999, 10_000] {
        let body = if part == 1 { &body[..300] } else { &body };
        client.send_bytes(&content_frames(1, &basic::publish("", &name, 0), &[0, 0], body, part));
        let message = client.wait_for_message(1, &name, 1);
        assert_eq!(message.content.body, body);
        assert_eq!(message.content.body_frames.len(), 1, "the broker sends as few frames as it can");
    }
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &Table::new());
    let mut bytes = content_frames(1, &basic::publish("", &name, 0), &full_properties().encode(), b"slow", 3);
    bytes.extend(basic::qos(0, 1, 0).frame(1));
    for byte in bytes {
        client.stream.write_all(&[byte]).unwrap();
    }
    client.expect(1, (60, 11));
    assert_eq!(client.wait_for_message(1, &name, 1).text(), "slow");
}

#[test]
fn many_methods_may_share_a_packet() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &Table::new());
    let mut bytes = Vec::new();
    for number in 0..500 {
        bytes.extend(client.message_bytes(
            1,
            &basic::publish("", &name, 0),
            &Properties::default(),
            format!("{number}").as_bytes(),
        ));
        bytes.extend(basic::qos(0, 1, 0).frame(1));
    }
    client.send_bytes(&bytes);
    for _ in 0..500 {
        client.expect(1, (60, 11));
    }
    client.wait_for_count(1, &name, 500);
    assert_eq!(client.drain_queue(1, &name), (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn outgoing_bodies_keep_to_the_negotiated_frame_size() {
    let mut publisher = broker().connect();
    let mut consumer = broker().connect_with(&Handshake { frame_max: Some(8192), ..Handshake::default() });
    let name = consumer.exclusive_queue(1, &Table::new());
    let body: Vec<u8> = (0..100_000_u32).flat_map(|number| [(number % 251) as u8]).collect();
    consumer.consume(1, &name, "c", basic::NO_ACK, &Table::new());
    publisher.publish(1, "", &name, &body);
    let message = consumer.expect_delivery(1);
    assert_eq!(message.content.body, body);
    assert_eq!(message.content.body_frames.len(), body.len().div_ceil(8192 - FRAME_OVERHEAD));
    assert!(message.content.body_frames.iter().all(|size| *size <= 8192 - FRAME_OVERHEAD));
    consumer.call(1, &basic::cancel("c", 0));
    publisher.publish(1, "", &name, &body);
    assert_eq!(consumer.wait_for_message(1, &name, 1).content.body, body);
}

#[test]
fn headers_larger_than_a_consumers_frame_still_arrive_at_large_ones() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &Table::new());
    let properties = Properties::with_headers([("big", Value::LongString(vec![b'x'; 60_000]))]);
    client.publish_with(1, &basic::publish("", &name, 0), &properties, b"m");
    assert_eq!(client.wait_for_message(1, &name, 1).content.raw_properties, properties.encode());
}

#[test]
fn a_large_message_passes() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &Table::new());
    let body: Vec<u8> = (0..16_777_216_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    client.publish(1, "", &name, &body);
    assert!(client.wait_for_message(1, &name, 1).content.body == body, "the body of 16 MiB is unchanged");
}

#[test]
fn an_unfinished_message_is_dropped_with_its_connection() {
    let mut client = broker().connect();
    let mut other = broker().connect();
    let name = other.exclusive_queue(1, &Table::new());
    client.send_bytes(&basic::publish("", &name, 0).frame(1));
    client.send_bytes(&frame(HEADER, 1, &Writer::new().short(60).short(0).long_long(10).short(0).0));
    client.send_bytes(&frame(BODY, 1, b"half"));
    client.open_channel(2);
    drop(client);
    other.publish(1, "", &name, "whole");
    other.wait_for_count(1, &name, 1);
    assert_eq!(other.drain_queue(1, &name), ["whole"]);
}
