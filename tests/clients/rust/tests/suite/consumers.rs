//! Consumers: cancelling, priorities, exclusiveness and single active consumers.

use lapin::{
    Consumer,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use warren_client_tests::scenario::{Session, assert_error, body, connection_error, ended, next, scenario, table};

#[test]
fn a_cancelled_consumer_ends_and_keeps_what_it_holds() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let mut consumer = channel.consume(&queue, FieldTable::default()).await;
        assert!(consumer.tag().as_str().starts_with("amq.ctag-"), "{}", consumer.tag());
        channel.publish("", queue.as_str(), "1").await;
        let held = next(&mut consumer).await;
        channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
        ended(&mut consumer).await;
        channel.publish("", queue.as_str(), "2").await;
        assert_eq!(channel.counts(&queue).await, (1, 0));
        held.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(channel.bodies(&queue).await, ["2"]);
        channel.basic_cancel("never-existed".into(), BasicCancelOptions::default()).await.unwrap();
    });
}

#[test]
fn deleting_the_queue_cancels_its_consumers() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let connection = scenario.connect().await;
        let elsewhere = Session::open(&connection).await;
        let mut here = channel.consume(&queue, FieldTable::default()).await;
        let mut there = elsewhere.consume(&queue, FieldTable::default()).await;
        channel.queue_delete(queue.clone(), QueueDeleteOptions::default()).await.unwrap();
        ended(&mut here).await;
        ended(&mut there).await;
        // The channels go on.
        elsewhere.exclusive_queue(FieldTable::default()).await;
        connection.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let options = lapin::options::QueueDeclareOptions::exclusive().auto_delete();
        let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.unwrap().name().clone();
        let first = channel.consume(&queue, FieldTable::default()).await;
        let second = channel.consume(&queue, FieldTable::default()).await;
        channel.basic_cancel(first.tag(), BasicCancelOptions::default()).await.unwrap();
        assert_eq!(channel.counts(&queue).await, (0, 1));
        channel.basic_cancel(second.tag(), BasicCancelOptions::default()).await.unwrap();
        Session::wait_gone(scenario.connection(), &queue).await;
    });
}

#[test]
fn an_exclusive_consumer_is_the_only_one() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let exclusive = BasicConsumeOptions { exclusive: true, ..Default::default() };
        let expected = format!("ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use");
        let only = channel.basic_consume(queue.clone(), "".into(), exclusive, FieldTable::default()).await.unwrap();
        let other = scenario.channel().await;
        let refused =
            other.basic_consume(queue.clone(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        assert_error(&refused.await.unwrap_err(), 403, &expected);
        channel.basic_cancel(only.tag(), BasicCancelOptions::default()).await.unwrap();
        let _shared = channel.consume(&queue, FieldTable::default()).await;
        let other = scenario.channel().await;
        let refused = other.basic_consume(queue.clone(), "".into(), exclusive, FieldTable::default()).await;
        assert_error(&refused.unwrap_err(), 403, &expected);
    });
}

#[test]
fn a_consumer_tag_is_used_once() {
    scenario(async |scenario| {
        let connection = scenario.connect().await;
        let channel = Session::open(&connection).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let events = connection.events_listener();
        let consume = async || {
            let options = BasicConsumeOptions::default();
            channel.basic_consume(queue.clone(), "mine".into(), options, FieldTable::default()).await
        };
        let first = consume().await.unwrap();
        assert_eq!(first.tag().as_str(), "mine");
        let second = consume().await;
        assert!(second.is_err());
        let error = connection_error(events).await;
        assert_error(&error, 530, "NOT_ALLOWED - attempt to reuse consumer tag 'mine'");
    });
}

fn priority(value: i32) -> FieldTable {
    table([("x-priority", AMQPValue::LongInt(value))])
}

#[test]
fn higher_consumer_priorities_come_first() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.prefetch(2).await;
        let mut low = channel.consume(&queue, priority(-5)).await;
        let mut normal = channel.consume(&queue, FieldTable::default()).await;
        let mut high = channel.consume(&queue, priority(10)).await;
        for number in 1..=6 {
            channel.publish("", queue.as_str(), &number.to_string()).await;
        }
        let two = async |consumer: &mut Consumer| [body(&next(consumer).await), body(&next(consumer).await)];
        assert_eq!(two(&mut high).await, ["1", "2"]);
        assert_eq!(two(&mut normal).await, ["3", "4"]);
        assert_eq!(two(&mut low).await, ["5", "6"]);
    });
}

#[test]
fn one_active_consumer_until_it_leaves() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let single = table([("x-single-active-consumer", AMQPValue::Boolean(true))]);
        let queue = scenario.queue(&channel, single).await;
        let (first_channel, second_channel) = (scenario.channel().await, scenario.channel().await);
        let mut first = first_channel.consume(&queue, FieldTable::default()).await;
        let mut second = second_channel.consume(&queue, priority(10)).await;
        for number in ["1", "2", "3"] {
            channel.publish("", queue.as_str(), number).await;
        }
        assert_eq!(body(&next(&mut first).await), "1");
        let held = next(&mut first).await;
        assert_eq!(body(&next(&mut first).await), "3");
        held.ack(BasicAckOptions::default()).await.unwrap();
        first_channel.close(200, "leaves".into()).await.unwrap();
        let again = next(&mut second).await;
        assert_eq!((body(&again).as_str(), again.redelivered), ("1", true));
        assert_eq!(body(&next(&mut second).await), "3");
        channel.publish("", queue.as_str(), "4").await;
        assert_eq!(body(&next(&mut second).await), "4");
    });
}

#[test]
fn get_counts_what_is_left() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        assert!(channel.get(&queue).await.is_none());
        for number in ["1", "2", "3"] {
            channel.publish("", queue.as_str(), number).await;
        }
        for (tag, left) in [(1, 2), (2, 1), (3, 0)] {
            let message = channel.get(&queue).await.unwrap();
            assert_eq!((message.delivery_tag, message.message_count), (tag, left));
            assert_eq!((message.exchange.as_str(), &message.routing_key), ("", &queue));
        }
        assert!(channel.get(&queue).await.is_none());
        let mut consumer = channel.consume(&queue, FieldTable::default()).await;
        channel.publish("", queue.as_str(), "4").await;
        assert_eq!(next(&mut consumer).await.delivery_tag, 4, "one counter for get and consume");
    });
}
