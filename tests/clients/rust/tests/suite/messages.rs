//! Messages arrive as they were sent: every header type, every property, every size.

use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable},
};
use warren_client_tests::scenario::{Session, assert_error, connect, next, scenario, table, text};

fn every_header_type() -> FieldTable {
    let nested = table([("deep", AMQPValue::FieldTable(table([("deeper", text("bottom"))])))]);
    let array = FieldArray::from(vec![text("mixed"), AMQPValue::LongInt(-1), AMQPValue::Void]);
    table([
        ("boolean", AMQPValue::Boolean(true)),
        ("byte", AMQPValue::ShortShortInt(i8::MIN)),
        ("unsigned byte", AMQPValue::ShortShortUInt(u8::MAX)),
        ("short", AMQPValue::ShortInt(i16::MIN)),
        ("unsigned short", AMQPValue::ShortUInt(u16::MAX)),
        ("int", AMQPValue::LongInt(i32::MIN)),
        ("unsigned int", AMQPValue::LongUInt(u32::MAX)),
        ("long", AMQPValue::LongLongInt(i64::MIN)),
        ("float", AMQPValue::Float(1.5)),
        ("double", AMQPValue::Double(-2.25e300)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 31_415 })),
        ("string", text("grüß dich")),
        ("empty string", text("")),
        ("string that is not UTF-8", AMQPValue::LongString(vec![0xFF, 0, 0xFE].into())),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![0, 1, 255]))),
        ("array", AMQPValue::FieldArray(array)),
        ("empty array", AMQPValue::FieldArray(FieldArray::default())),
        ("timestamp", AMQPValue::Timestamp(1_700_000_000)),
        ("table", AMQPValue::FieldTable(nested)),
        ("empty table", AMQPValue::FieldTable(FieldTable::default())),
        ("void", AMQPValue::Void),
    ])
}

#[test]
fn every_header_type_comes_back() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let properties = BasicProperties::default().with_headers(every_header_type());
        channel.publish_with("", queue.as_str(), "types", properties.clone()).await;
        channel.publish_with("", queue.as_str(), "types", properties.clone()).await;
        let got = channel.get(&queue).await.unwrap();
        assert_eq!(got.properties, properties);
        let mut consumer = channel.consume_no_ack(&queue).await;
        assert_eq!(next(&mut consumer).await.properties, properties);
    });
}

#[test]
fn every_property_comes_back() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_content_encoding("utf-8".into())
            .with_headers(table([("k", text("v"))]))
            .with_delivery_mode(2)
            .with_priority(9)
            .with_correlation_id("correlation".into())
            .with_reply_to("reply".into())
            .with_expiration("60000".into())
            .with_message_id("message".into())
            .with_timestamp(1_700_000_000)
            .with_type("type".into())
            .with_user_id("guest".into())
            .with_app_id("app".into());
        channel.publish_with("", queue.as_str(), "all", properties.clone()).await;
        channel.publish_with("", queue.as_str(), "none", BasicProperties::default()).await;
        let messages = channel.drain(&queue).await;
        assert_eq!(messages[0].properties, properties);
        assert_eq!(messages[1].properties, BasicProperties::default());
    });
}

/// Bytes that a shifted or swapped frame would show.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|place| u8::try_from((place * 7 + place / 251) % 256).unwrap()).collect()
}

#[test]
fn bodies_of_every_size_come_back() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let frame = 131_072 - 8;
        for size in [0, 1, 255, 8184, 8185, frame - 1, frame, frame + 1, 2 * frame, 5 << 20] {
            let sent = pattern(size);
            channel.send("", queue.as_str(), &sent, BasicProperties::default()).await.unwrap();
            let got = channel.get(&queue).await.unwrap();
            assert!(got.data == sent, "{size} bytes came back as {} other ones", got.data.len());
        }
    });
}

#[test]
fn large_messages_interleave_with_small_frames() {
    scenario(async |scenario| {
        let small_frames = connect(&format!("{}?frame_max=8192", scenario.uri())).await;
        assert_eq!(small_frames.configuration().frame_max(), 8192);
        let channel = Session::confirming(&small_frames).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let mut consumer = channel.consume_no_ack(&queue).await;
        let sent = pattern(5 << 20);
        for _ in 0..2 {
            channel.send("", queue.as_str(), &sent, BasicProperties::default()).await.unwrap();
            channel.publish("", queue.as_str(), "small").await;
        }
        for _ in 0..2 {
            assert!(next(&mut consumer).await.data == sent);
            assert_eq!(next(&mut consumer).await.data, b"small");
        }
        small_frames.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn a_message_over_the_limit_closes_the_channel() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let limit = 16 << 20;
        let body = vec![0; limit + 1];
        let error = channel.send("", "anywhere", &body, BasicProperties::default()).await.unwrap_err();
        let expected =
            format!("PRECONDITION_FAILED - message size {} is larger than configured max size {limit}", limit + 1);
        assert_error(&error, 406, &expected);
    });
}
