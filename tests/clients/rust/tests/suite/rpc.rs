//! Request and reply with the pseudo queue amq.rabbitmq.reply-to.

use lapin::{
    BasicProperties,
    options::{BasicAckOptions, BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};
use warren_client_tests::scenario::{Session, assert_error, body, next, scenario};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";

async fn consume_replies(channel: &Session) -> lapin::Consumer {
    let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
    channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default()).await.unwrap()
}

fn request(id: &str) -> BasicProperties {
    BasicProperties::default().with_reply_to(REPLY_TO.into()).with_correlation_id(id.into())
}

#[test]
fn direct_reply_to_brings_replies_to_the_requesting_channel() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let requests = scenario.queue(&channel, FieldTable::default()).await;
        let serving = scenario.connect().await;
        let server = Session::open(&serving).await;
        let mut work = server.consume(&requests, FieldTable::default()).await;
        let mut replies = consume_replies(&channel).await;
        for number in ["1", "2", "3"] {
            channel.publish_with("", requests.as_str(), number, request(number)).await;
        }
        for number in ["1", "2", "3"] {
            let work = next(&mut work).await;
            let reply_to = work.properties.reply_to().clone().unwrap();
            assert!(reply_to.as_str().starts_with("amq.rabbitmq.reply-to."), "{reply_to}");
            let declared =
                server.queue_declare(reply_to.clone(), QueueDeclareOptions::default(), FieldTable::default());
            let declared = declared.await.unwrap();
            assert_eq!((declared.message_count(), declared.consumer_count()), (0, 1), "the requester is there");
            let id = work.properties.correlation_id().clone().unwrap();
            let answer = format!("{}!", body(&work));
            let properties = BasicProperties::default().with_correlation_id(id);
            server.publish_with("", reply_to.as_str(), &answer, properties).await;
            work.ack(BasicAckOptions::default()).await.unwrap();
            let reply = next(&mut replies).await;
            assert_eq!(body(&reply), format!("{number}!"));
            assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), number);
            assert_eq!((reply.exchange.as_str(), reply.routing_key.as_str()), ("", reply_to.as_str()));
            assert!(!reply.redelivered);
        }
        serving.close(200, "done".into()).await.unwrap();
    });
}

#[test]
fn a_reply_to_nobody_is_dropped() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let requests = scenario.queue(&channel, FieldTable::default()).await;
        let asking = scenario.connect().await;
        let client = Session::open(&asking).await;
        let replies = consume_replies(&client).await;
        client.publish_with("", requests.as_str(), "?", request("1")).await;
        channel.wait_ready(&requests, 1).await;
        let work = channel.get(&requests).await.unwrap();
        drop(replies);
        asking.close(200, "impatient".into()).await.unwrap();
        let reply_to = work.properties.reply_to().clone().unwrap();
        channel.publish("", reply_to.as_str(), "too late").await;
        let gone = channel.queue_declare(reply_to.clone(), QueueDeclareOptions::default(), FieldTable::default());
        let expected = format!("NOT_FOUND - no queue '{reply_to}' in vhost '/'");
        assert_error(&gone.await.unwrap_err(), 404, &expected);
    });
}

#[test]
fn misuse_of_direct_reply_to_closes_the_channel() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let sent = channel.send("", "anywhere", b"?", request("1")).await;
        assert_error(&sent.unwrap_err(), 406, "PRECONDITION_FAILED - fast reply consumer does not exist");
        let channel = scenario.channel().await;
        let acknowledging = BasicConsumeOptions::default();
        let consumed = channel.basic_consume(REPLY_TO.into(), "".into(), acknowledging, FieldTable::default()).await;
        assert_error(&consumed.unwrap_err(), 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge");
        let channel = scenario.channel().await;
        let _replies = consume_replies(&channel).await;
        let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
        let second = channel.basic_consume(REPLY_TO.into(), "".into(), options, FieldTable::default()).await;
        assert_error(&second.unwrap_err(), 406, "PRECONDITION_FAILED - reply consumer already set");
    });
}
