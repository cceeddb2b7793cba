//! Where Warren is deliberately friendlier than RabbitMQ 4.3. Only with a broker of our own.

use lapin::{
    BasicProperties,
    options::{BasicAckOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_client_tests::{
    broker,
    scenario::{Scenario, Session, body, connect, next, scenario, unique_name},
};

/// Runs `body` unless the broker is another one.
fn with_warren(body: impl AsyncFnOnce(&Scenario)) {
    if broker::external_uri().is_some() {
        return broker::skip("a difference of Warren");
    }
    scenario(body);
}

#[test]
fn transient_queues_need_not_be_exclusive() {
    with_warren(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = unique_name();
        let transient = QueueDeclareOptions::default();
        let declared = channel.queue_declare(queue.clone(), transient, FieldTable::default()).await;
        declared.unwrap();
        channel.publish("", queue.as_str(), "kept").await;
        let connection = scenario.connect().await;
        let elsewhere = Session::open(&connection).await;
        assert_eq!(elsewhere.bodies(&queue).await, ["kept"]);
        connection.close(200, "done".into()).await.unwrap();
        let deleted = channel.queue_delete(queue, Default::default()).await;
        assert_eq!(deleted.unwrap(), 0);
    });
}

#[test]
fn global_qos_limits_the_whole_channel() {
    with_warren(async |scenario| {
        let channel = scenario.confirming().await;
        let first = channel.exclusive_queue(FieldTable::default()).await;
        let second = channel.exclusive_queue(FieldTable::default()).await;
        for number in 0..5 {
            channel.publish("", first.as_str(), &number.to_string()).await;
            channel.publish("", second.as_str(), &number.to_string()).await;
        }
        let global = BasicQosOptions { global: true };
        channel.basic_qos(3, global).await.unwrap();
        let mut one = channel.consume(&first, FieldTable::default()).await;
        let held = next(&mut one).await;
        channel.wait_ready(&first, 2).await;
        let mut two = channel.consume(&second, FieldTable::default()).await;
        assert_eq!(channel.counts(&second).await.0, 5, "the limit is used up");
        next(&mut one).await;
        next(&mut one).await;
        channel.basic_cancel(one.tag(), Default::default()).await.unwrap();
        held.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(body(&next(&mut two).await), "0");
        assert_eq!(channel.counts(&second).await.0, 4);
    });
}

#[test]
fn frames_of_4096_bytes_are_accepted() {
    with_warren(async |scenario| {
        let connection = connect(&format!("{}?frame_max=4096", scenario.uri())).await;
        assert_eq!(connection.configuration().frame_max(), 4096);
        let channel = Session::confirming(&connection).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let text = "x".repeat(20_000);
        channel.publish("", queue.as_str(), &text).await;
        assert_eq!(channel.bodies(&queue).await, [text]);
        connection.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn messages_expire_wherever_they_are() {
    with_warren(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.publish("", queue.as_str(), "first").await;
        let short = BasicProperties::default().with_expiration("30".into());
        channel.publish_with("", queue.as_str(), "second", short).await;
        channel.publish("", queue.as_str(), "third").await;
        channel.wait_ready(&queue, 2).await;
        assert_eq!(channel.bodies(&queue).await, ["first", "third"]);
    });
}

#[test]
fn topic_patterns_may_have_many_hashes() {
    with_warren(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let exchange = scenario.exchange(&channel, "topic", FieldTable::default()).await;
        channel.bind(&queue, &exchange, "#.a.#.b.#.c.#", FieldTable::default()).await;
        for key in ["a.b.c", "x.a.y.z.b.c.w", "a.c.b", "a.b"] {
            channel.publish(exchange.as_str(), key, key).await;
        }
        assert_eq!(channel.bodies(&queue).await, ["a.b.c", "x.a.y.z.b.c.w"]);
    });
}
