//! Declaring, emptying and deleting queues.

use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use warren_client_tests::scenario::{Session, assert_error, scenario, table, text, unique_name};

#[test]
fn the_broker_names_queues() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let first = channel.exclusive_queue(FieldTable::default()).await;
        let second = channel.exclusive_queue(FieldTable::default()).await;
        assert_ne!(first, second);
        for name in [first, second] {
            let random = name.as_str().strip_prefix("amq.gen-").unwrap();
            assert_eq!(random.len(), 22, "{name}");
        }
    });
}

#[test]
fn declaring_again_counts_ready_messages_and_consumers() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        for text in ["1", "2", "3"] {
            channel.publish("", queue.as_str(), text).await;
        }
        channel.get(&queue).await.unwrap();
        let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), FieldTable::default());
        let declared = declared.await.unwrap();
        assert_eq!(declared.name(), &queue);
        assert_eq!((declared.message_count(), declared.consumer_count()), (2, 0));
    });
}

#[test]
fn purge_takes_ready_messages_only() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        for text in ["1", "2", "3"] {
            channel.publish("", queue.as_str(), text).await;
        }
        let held = channel.get(&queue).await.unwrap();
        assert_eq!(channel.queue_purge(queue.clone(), QueuePurgeOptions::default()).await.unwrap(), 2);
        assert_eq!(channel.queue_purge(queue.clone(), QueuePurgeOptions::default()).await.unwrap(), 0);
        held.reject(lapin::options::BasicRejectOptions { requeue: true }).await.unwrap();
        assert_eq!(channel.bodies(&queue).await, ["1"]);
    });
}

#[test]
fn delete_counts_messages_and_forgives_absence() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.publish("", queue.as_str(), "1").await;
        let delete = async || channel.queue_delete(queue.clone(), QueueDeleteOptions::default()).await.unwrap();
        assert_eq!(delete().await, 1);
        assert_eq!(delete().await, 0);
        Session::wait_gone(scenario.connection(), &queue).await;
    });
}

#[test]
fn delete_if_unused_and_if_empty() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let consumer = channel.consume(&queue, FieldTable::default()).await;
        let delete = async |if_unused, if_empty| {
            let options = QueueDeleteOptions { if_unused, if_empty, ..Default::default() };
            scenario.channel().await.queue_delete(queue.clone(), options).await
        };
        let used = delete(true, false).await.unwrap_err();
        assert_error(&used, 406, &format!("PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use"));
        channel.basic_cancel(consumer.tag(), Default::default()).await.unwrap();
        channel.publish("", queue.as_str(), "1").await;
        let filled = delete(false, true).await.unwrap_err();
        assert_error(&filled, 406, &format!("PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty"));
        channel.drain(&queue).await;
        assert_eq!(delete(true, true).await.unwrap(), 0);
    });
}

fn locked(queue: &ShortString) -> String {
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be \
         originally declared on another connection or the exclusive property value does not match that of the \
         original declaration."
    );
    text.chars().take(255).collect()
}

#[test]
fn an_exclusive_queue_belongs_to_its_connection() {
    scenario(async |scenario| {
        let owner = scenario.connect().await;
        let channel = Session::confirming(&owner).await;
        let queue = unique_name();
        let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::exclusive(), FieldTable::default());
        declared.await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        for options in [passive, QueueDeclareOptions::exclusive(), QueueDeclareOptions::default()] {
            let stranger = scenario.channel().await;
            let refused = stranger.queue_declare(queue.clone(), options, FieldTable::default()).await;
            assert_error(&refused.unwrap_err(), 405, &locked(&queue));
        }
        let stranger = scenario.channel().await;
        let refused = stranger.basic_get(queue.clone(), Default::default()).await;
        assert_error(&refused.unwrap_err(), 405, &locked(&queue));
        let stranger = scenario.channel().await;
        let refused = stranger.queue_delete(queue.clone(), Default::default()).await;
        assert_error(&refused.unwrap_err(), 405, &locked(&queue));
        let stranger = scenario.confirming().await;
        stranger.publish("", queue.as_str(), "publishing is for everybody").await;
        assert_eq!(channel.counts(&queue).await.0, 1);
        let second_channel = Session::open(&owner).await;
        assert_eq!(second_channel.counts(&queue).await.0, 1, "other channels of the connection may use it");
        owner.close(200, "done".into()).await.unwrap();
        // Gone before close-ok: no waiting.
        let refused = scenario.channel().await.queue_declare(queue.clone(), passive, FieldTable::default()).await;
        assert_error(&refused.unwrap_err(), 404, &format!("NOT_FOUND - no queue '{queue}' in vhost '/'"));
    });
}

#[test]
fn redeclaring_differently_is_refused() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let limited = table([("x-max-length", AMQPValue::LongInt(10)), ("x-unknown", text("ignored"))]);
        let queue = scenario.queue(&channel, limited).await;
        let expires = table([("x-max-length", AMQPValue::LongInt(10)), ("x-expires", AMQPValue::LongInt(60_000))]);
        let cases = [
            (
                FieldTable::default(),
                "'x-max-length'",
                "received none but current is the value '10' of type 'signedint'",
            ),
            (table([("x-max-length", AMQPValue::LongInt(11))]), "'x-max-length'", "received '11' but current is '10'"),
            (expires, "'x-expires'", "received the value '60000' of type 'signedint' but current is none"),
        ];
        for (arguments, name, difference) in cases {
            let declared =
                scenario.channel().await.queue_declare(queue.clone(), QueueDeclareOptions::durable(), arguments).await;
            let expected =
                format!("PRECONDITION_FAILED - inequivalent arg {name} for queue '{queue}' in vhost '/': {difference}");
            assert_error(&declared.unwrap_err(), 406, &expected);
        }
        let wider = table([("x-max-length", AMQPValue::LongLongInt(10))]);
        channel.queue_declare(queue.clone(), QueueDeclareOptions::durable(), wider).await.unwrap();
    });
}

#[test]
fn redeclaring_with_other_flags_is_refused() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let auto_delete = QueueDeclareOptions::durable().auto_delete();
        let declared = channel.queue_declare(queue.clone(), auto_delete, FieldTable::default()).await;
        let expected = format!(
            "PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '{queue}' in vhost '/': \
             received 'true' but current is 'false'"
        );
        assert_error(&declared.unwrap_err(), 406, &expected);
        let channel = scenario.channel().await;
        let declared = channel.queue_declare(queue.clone(), QueueDeclareOptions::exclusive(), FieldTable::default());
        assert_error(&declared.await.unwrap_err(), 405, &locked(&queue));
    });
}

#[test]
fn arguments_are_checked() {
    scenario(async |scenario| {
        let cases = [
            ("x-message-ttl", text("soon"), "expected integer, got longstr"),
            ("x-max-priority", AMQPValue::LongInt(256), "{max_value_exceeded,256}"),
        ];
        for (name, value, reason) in cases {
            let channel = scenario.channel().await;
            let queue = unique_name();
            let declared =
                channel.queue_declare(queue.clone(), QueueDeclareOptions::exclusive(), table([(name, value)]));
            let error = declared.await.unwrap_err();
            let expected =
                format!("PRECONDITION_FAILED - invalid arg '{name}' for queue '{queue}' in vhost '/': \"{reason}\"");
            let expected = expected.replace("\"{max", "{max").replace("256}\"", "256}");
            assert_error(&error, 406, &expected);
        }
    });
}

#[test]
fn an_unused_queue_expires() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = scenario.queue(&channel, table([("x-expires", AMQPValue::LongInt(200))])).await;
        let consumer = channel.consume(&queue, FieldTable::default()).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        assert_eq!(channel.counts(&queue).await, (0, 1), "a consumer keeps it");
        channel.basic_cancel(consumer.tag(), Default::default()).await.unwrap();
        // Looking would keep it alive as well, so this looks once.
        tokio::time::sleep(std::time::Duration::from_millis(1000)).await;
        Session::wait_gone(scenario.connection(), &queue).await;
    });
}
