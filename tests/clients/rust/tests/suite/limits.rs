//! Time to live, length limits and message priorities.

use lapin::{
    BasicProperties,
    options::BasicRejectOptions,
    types::{AMQPValue, FieldTable},
};
use warren_client_tests::scenario::{body, next, scenario, table};

#[test]
fn messages_expire_after_their_own_or_the_queues_time() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let lasting = channel.exclusive_queue(FieldTable::default()).await;
        let queue = channel.exclusive_queue(table([("x-message-ttl", AMQPValue::LongInt(50))])).await;
        let expiring = |time: &str| BasicProperties::default().with_expiration(time.into());
        channel.publish_with("", lasting.as_str(), "short", expiring("50")).await;
        channel.publish_with("", lasting.as_str(), "long", expiring("600000")).await;
        channel.publish_with("", queue.as_str(), "the smaller counts", expiring("600000")).await;
        channel.wait_ready(&lasting, 1).await;
        channel.wait_ready(&queue, 0).await;
        assert_eq!(channel.bodies(&lasting).await, ["long"]);
    });
}

#[test]
fn time_to_live_zero_needs_a_waiting_consumer() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(table([("x-message-ttl", AMQPValue::LongInt(0))])).await;
        channel.publish("", queue.as_str(), "nobody waits").await;
        assert!(channel.get(&queue).await.is_none());
        let mut consumer = channel.consume(&queue, FieldTable::default()).await;
        channel.publish("", queue.as_str(), "somebody waits").await;
        assert_eq!(body(&next(&mut consumer).await), "somebody waits");
    });
}

#[test]
fn unacknowledged_messages_do_not_expire_before_they_come_back() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(table([("x-message-ttl", AMQPValue::LongInt(100))])).await;
        let other = channel.exclusive_queue(table([("x-message-ttl", AMQPValue::LongInt(100))])).await;
        channel.publish("", queue.as_str(), "held").await;
        let held = channel.get(&queue).await.unwrap();
        channel.publish("", other.as_str(), "clock").await;
        channel.wait_ready(&other, 0).await;
        held.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        channel.wait_ready(&queue, 0).await;
        assert!(channel.get(&queue).await.is_none());
    });
}

#[test]
fn length_limits_drop_the_oldest() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let by_count = channel.exclusive_queue(table([("x-max-length", AMQPValue::LongInt(3))])).await;
        let by_bytes = channel.exclusive_queue(table([("x-max-length-bytes", AMQPValue::LongInt(10))])).await;
        for text in ["aaaa", "bbbb", "cccc", "dd", "ee"] {
            channel.publish("", by_count.as_str(), text).await;
            channel.publish("", by_bytes.as_str(), text).await;
        }
        assert_eq!(channel.bodies(&by_count).await, ["cccc", "dd", "ee"]);
        assert_eq!(channel.bodies(&by_bytes).await, ["cccc", "dd", "ee"]);
        channel.publish("", by_bytes.as_str(), "more than ten").await;
        assert!(channel.get(&by_bytes).await.is_none());
    });
}

#[test]
fn unacknowledged_messages_do_not_count_for_the_limit() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(table([("x-max-length", AMQPValue::LongInt(1))])).await;
        channel.publish("", queue.as_str(), "held").await;
        let held = channel.get(&queue).await.unwrap();
        channel.publish("", queue.as_str(), "ready").await;
        assert_eq!(channel.counts(&queue).await.0, 1);
        assert_eq!(body(&held), "held");
        assert_eq!(channel.bodies(&queue).await, ["ready"]);
    });
}

#[test]
fn urgent_messages_overtake() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(table([("x-max-priority", AMQPValue::LongInt(5))])).await;
        let none = BasicProperties::default();
        let publish = [
            ("none", none.clone()),
            ("1", none.clone().with_priority(1)),
            ("5", none.clone().with_priority(5)),
            ("200", none.clone().with_priority(200)),
            ("0", none.clone().with_priority(0)),
            ("3", none.clone().with_priority(3)),
            ("3 again", none.with_priority(3)),
        ];
        for (text, properties) in publish {
            channel.publish_with("", queue.as_str(), text, properties).await;
        }
        let messages = channel.drain(&queue).await;
        let bodies: Vec<_> = messages.iter().map(body).collect();
        assert_eq!(bodies, ["5", "200", "3", "3 again", "1", "none", "0"]);
        assert_eq!(messages[1].properties.priority(), &Some(200), "the property stays as it was sent");
    });
}
