//! Publisher confirms, returned messages and refusals.

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Confirmation,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use warren_client_tests::scenario::{Session, assert_error, body, headers, next, scenario, table, text, within};

#[test]
fn a_confirmed_message_is_in_the_queue() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let sent = channel.send("", queue.as_str(), b"kept", persistent).await.unwrap();
        assert_eq!(sent, Confirmation::Ack(None));
        assert_eq!(channel.counts(&queue).await, (1, 0));
        let message = channel.get(&queue).await.unwrap();
        assert_eq!(message.properties.delivery_mode(), &Some(2));
    });
}

#[test]
fn confirm_select_can_be_repeated() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.publish("", queue.as_str(), "1").await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel.publish("", queue.as_str(), "2").await;
        assert_eq!(channel.bodies(&queue).await, ["1", "2"]);
    });
}

fn assert_no_route(message: &BasicReturnMessage, exchange: &str, key: &str, text: &str) {
    assert_eq!((message.reply_code, message.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), (exchange, key));
    assert_eq!(body(message), text);
}

#[test]
fn a_mandatory_message_without_route_is_returned_and_confirmed() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let mandatory = BasicPublishOptions { mandatory: true, ..Default::default() };
        let properties = headers([("n", AMQPValue::LongInt(1))]).with_priority(7).with_message_id("m-1".into());
        let sent = channel
            .basic_publish("".into(), "no-such-queue".into(), mandatory, b"lost", properties.clone())
            .await
            .unwrap();
        let Confirmation::Ack(Some(returned)) = within(sent).await.unwrap() else { panic!("not returned and acked") };
        assert_no_route(&returned, "", "no-such-queue", "lost");
        assert_eq!(returned.properties, properties);
        let empty = channel.send_mandatory("amq.topic", "nobody.listens", "").await.unwrap();
        assert_no_route(&empty.take_message().unwrap(), "amq.topic", "nobody.listens", "");
    });
}

#[test]
fn without_mandatory_a_message_without_route_is_confirmed() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let sent = channel.send("", "no-such-queue", b"lost", BasicProperties::default()).await.unwrap();
        assert_eq!(sent, Confirmation::Ack(None));
    });
}

#[test]
fn reject_publish_refuses_what_does_not_fit() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let limited = table([("x-max-length", AMQPValue::LongInt(2)), ("x-overflow", text("reject-publish"))]);
        let queue = channel.exclusive_queue(limited).await;
        let roomy = channel.exclusive_queue(FieldTable::default()).await;
        let exchange = scenario.exchange(&channel, "fanout", FieldTable::default()).await;
        channel.bind(&queue, &exchange, "", FieldTable::default()).await;
        channel.bind(&roomy, &exchange, "", FieldTable::default()).await;
        for text in ["1", "2"] {
            channel.publish(exchange.as_str(), "", text).await;
        }
        let refused = channel.send(exchange.as_str(), "", b"3", BasicProperties::default()).await.unwrap();
        assert_eq!(refused, Confirmation::Nack(None), "one queue refused, whatever the other did");
        assert_eq!(channel.bodies(&queue).await, ["1", "2"]);
        assert_eq!(channel.bodies(&roomy).await, ["1", "2", "3"]);
        channel.publish(exchange.as_str(), "", "4").await;
        assert_eq!(channel.bodies(&queue).await, ["4"]);
    });
}

#[test]
fn deleting_a_queue_does_not_leave_publishers_waiting() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let mut pending = Vec::new();
        for _ in 0..50 {
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            let sent = channel.basic_publish("".into(), queue.clone(), options, b"x", properties).await;
            pending.push(sent.unwrap());
        }
        channel.queue_delete(queue.clone(), QueueDeleteOptions::default()).await.unwrap();
        for sent in pending {
            assert!(within(sent).await.unwrap().is_ack());
        }
    });
}

#[test]
fn a_closed_channel_fails_what_was_not_confirmed() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let sent = channel.send("no-such-exchange", "", b"x", BasicProperties::default()).await;
        let expected = "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'";
        assert_error(&sent.unwrap_err(), 404, expected);
    });
}

const CHANNELS: usize = 100;
const MESSAGES: usize = 50;

/// Publishes the numbers of its messages without waiting for each, then waits for all confirms.
async fn publish_numbers(channel: &Session, queue: &str, number: usize) {
    let mut pending = Vec::with_capacity(MESSAGES);
    for message in 0..MESSAGES {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let text = format!("{number} {message}");
        let sent = channel.basic_publish("".into(), queue.into(), options, text.as_bytes(), properties).await;
        pending.push(sent.unwrap());
    }
    for confirmation in within(join_all(pending)).await {
        assert_eq!(confirmation.unwrap(), Confirmation::Ack(None));
    }
}

#[test]
fn a_hundred_channels_lose_nothing_and_keep_their_order() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let consuming = scenario.connect().await;
        let receiver = Session::open(&consuming).await;
        let mut consumer = receiver.consume_no_ack(&queue).await;
        let mut channels = Vec::new();
        for _ in 0..CHANNELS {
            channels.push(scenario.confirming().await);
        }
        let publishing =
            channels.iter().enumerate().map(|(number, channel)| publish_numbers(channel, queue.as_str(), number));
        let receiving = async {
            let mut expected = vec![0; CHANNELS];
            for _ in 0..CHANNELS * MESSAGES {
                let text = body(&next(&mut consumer).await);
                let (channel, message) = text.split_once(' ').unwrap();
                let (channel, message): (usize, usize) = (channel.parse().unwrap(), message.parse().unwrap());
                assert_eq!(message, expected[channel], "order of channel {channel}");
                expected[channel] += 1;
            }
            expected
        };
        let (_, received) = futures_util::future::join(join_all(publishing), receiving).await;
        assert_eq!(received, vec![MESSAGES; CHANNELS]);
        consuming.close(200, "done".into()).await.unwrap();
        assert_eq!(channel.counts(&queue).await.0, 0);
    });
}
