//! tx.select, commit and rollback.

use lapin::{
    options::{BasicAckOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};
use warren_client_tests::scenario::{assert_error, scenario, table, text};

#[test]
fn publishes_appear_at_commit_and_vanish_at_rollback() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let observer = scenario.channel().await;
        channel.tx_select().await.unwrap();
        for text in ["1", "2"] {
            channel.publish("", queue.as_str(), text).await;
        }
        channel.counts(&queue).await;
        assert_eq!(observer.counts(&queue).await.0, 0);
        channel.tx_commit().await.unwrap();
        assert_eq!(observer.counts(&queue).await.0, 2);
        channel.publish("", queue.as_str(), "3").await;
        channel.tx_rollback().await.unwrap();
        channel.tx_commit().await.unwrap();
        assert_eq!(observer.bodies(&queue).await, ["1", "2"]);
    });
}

#[test]
fn acknowledgements_count_at_commit_only() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        for text in ["1", "2"] {
            channel.publish("", queue.as_str(), text).await;
        }
        let worker = scenario.channel().await;
        worker.tx_select().await.unwrap();
        let first = worker.get(&queue).await.unwrap();
        first.ack(BasicAckOptions::default()).await.unwrap();
        worker.tx_commit().await.unwrap();
        let second = worker.get(&queue).await.unwrap();
        second.ack(BasicAckOptions::default()).await.unwrap();
        worker.tx_rollback().await.unwrap();
        worker.close(200, "done".into()).await.unwrap();
        channel.wait_ready(&queue, 1).await;
        assert_eq!(channel.bodies(&queue).await, ["2"]);
    });
}

#[test]
fn a_refused_message_fails_the_commit() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let full = table([("x-max-length", AMQPValue::LongInt(0)), ("x-overflow", text("reject-publish"))]);
        let queue = channel.exclusive_queue(full).await;
        channel.tx_select().await.unwrap();
        channel.publish("", queue.as_str(), "1").await;
        let committed = channel.tx_commit().await;
        assert_error(&committed.unwrap_err(), 406, "PRECONDITION_FAILED - partial tx completion");
    });
}

#[test]
fn a_channel_is_either_transactional_or_confirming() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let error = channel.tx_commit().await.unwrap_err();
        assert_error(&error, 406, "PRECONDITION_FAILED - channel is not transactional");
        let channel = scenario.channel().await;
        let error = channel.tx_rollback().await.unwrap_err();
        assert_error(&error, 406, "PRECONDITION_FAILED - channel is not transactional");
        let channel = scenario.confirming().await;
        let error = channel.tx_select().await.unwrap_err();
        assert_error(&error, 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode");
        let channel = scenario.channel().await;
        channel.tx_select().await.unwrap();
        let error = channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap_err();
        assert_error(&error, 406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode");
    });
}
