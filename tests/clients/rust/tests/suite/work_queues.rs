//! Work shared by competing consumers.

use lapin::{
    options::{BasicAckOptions, BasicNackOptions, BasicRecoverOptions, BasicRejectOptions},
    types::FieldTable,
};
use warren_client_tests::scenario::{Session, body, next, scenario};

#[test]
fn prefetch_one_gives_work_to_whoever_is_free() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        let (busy_channel, free_channel) = (scenario.channel().await, scenario.channel().await);
        busy_channel.prefetch(1).await;
        free_channel.prefetch(1).await;
        let mut busy = busy_channel.consume(&queue, FieldTable::default()).await;
        let mut free = free_channel.consume(&queue, FieldTable::default()).await;
        for task in ["1", "2", "3", "4", "5"] {
            channel.publish("", queue.as_str(), task).await;
        }
        let held = next(&mut busy).await;
        let mut done = vec![body(&held)];
        for _ in 0..4 {
            let task = next(&mut free).await;
            done.push(body(&task));
            task.ack(BasicAckOptions::default()).await.unwrap();
        }
        done.sort();
        assert_eq!(done, ["1", "2", "3", "4", "5"]);
        assert!(!held.redelivered);
        held.ack(BasicAckOptions::default()).await.unwrap();
        assert_eq!(channel.counts(&queue).await, (0, 2));
    });
}

#[test]
fn without_prefetch_consumers_take_turns() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let mut consumers = Vec::new();
        for _ in 0..3 {
            consumers.push(channel.consume_no_ack(&queue).await);
        }
        for number in 0..9 {
            channel.publish("", queue.as_str(), &number.to_string()).await;
        }
        let mut all = Vec::new();
        for consumer in &mut consumers {
            let mut share = Vec::new();
            for _ in 0..3 {
                share.push(body(&next(consumer).await));
            }
            assert!(share.is_sorted(), "order within one consumer: {share:?}");
            all.extend(share);
        }
        all.sort();
        assert_eq!(all, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    });
}

#[test]
fn prefetch_counts_for_each_consumer_that_comes_after_it() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        for number in 0..10 {
            channel.publish("", queue.as_str(), &number.to_string()).await;
        }
        channel.prefetch(2).await;
        let _two = channel.consume(&queue, FieldTable::default()).await;
        channel.wait_ready(&queue, 8).await;
        channel.prefetch(3).await;
        let _three = channel.consume(&queue, FieldTable::default()).await;
        channel.wait_ready(&queue, 5).await;
    });
}

#[test]
fn a_closed_channel_gives_its_messages_back_in_place() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        for task in ["a", "b", "c"] {
            channel.publish("", queue.as_str(), task).await;
        }
        let worker = scenario.channel().await;
        worker.prefetch(2).await;
        let mut consumer = worker.consume(&queue, FieldTable::default()).await;
        next(&mut consumer).await;
        next(&mut consumer).await;
        worker.close(200, "crash".into()).await.unwrap();
        let messages = channel.drain(&queue).await;
        let seen: Vec<_> = messages.iter().map(|message| (body(message), message.redelivered)).collect();
        assert_eq!(seen, [("a".into(), true), ("b".into(), true), ("c".into(), false)]);
    });
}

#[test]
fn a_lost_connection_gives_its_messages_back() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        channel.publish("", queue.as_str(), "task").await;
        let connection = scenario.connect().await;
        let worker = Session::open(&connection).await;
        let mut consumer = worker.consume(&queue, FieldTable::default()).await;
        assert!(!next(&mut consumer).await.redelivered);
        connection.close(200, "gone".into()).await.unwrap();
        channel.wait_ready(&queue, 1).await;
        assert!(channel.get(&queue).await.unwrap().redelivered);
    });
}

#[test]
fn nack_and_reject_requeue_in_place() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        for task in ["a", "b", "c", "d"] {
            channel.publish("", queue.as_str(), task).await;
        }
        for _ in ["a", "b"] {
            channel.get(&queue).await.unwrap();
        }
        let third = channel.get(&queue).await.unwrap();
        let all_so_far = BasicNackOptions { multiple: true, requeue: true };
        third.nack(all_so_far).await.unwrap();
        let first = channel.get(&queue).await.unwrap();
        assert_eq!((body(&first).as_str(), first.redelivered), ("a", true));
        first.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        assert_eq!(channel.bodies(&queue).await, ["a", "b", "c", "d"]);
    });
}

#[test]
fn recover_requeues_everything_unacknowledged() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        for task in ["a", "b"] {
            channel.publish("", queue.as_str(), task).await;
        }
        channel.get(&queue).await.unwrap();
        channel.get(&queue).await.unwrap();
        assert!(channel.get(&queue).await.is_none());
        channel.basic_recover(BasicRecoverOptions { requeue: true }).await.unwrap();
        let again = channel.drain(&queue).await;
        let seen: Vec<_> = again.iter().map(|message| (body(message), message.redelivered)).collect();
        assert_eq!(seen, [("a".into(), true), ("b".into(), true)]);
    });
}

#[test]
fn ack_multiple_settles_everything_before_it() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = scenario.queue(&channel, FieldTable::default()).await;
        for task in ["a", "b", "c"] {
            channel.publish("", queue.as_str(), task).await;
        }
        let worker = scenario.channel().await;
        worker.get(&queue).await.unwrap();
        let second = worker.get(&queue).await.unwrap();
        let third = worker.get(&queue).await.unwrap();
        assert_eq!((second.delivery_tag, third.delivery_tag, third.message_count), (2, 3, 0));
        second.ack(BasicAckOptions { multiple: true }).await.unwrap();
        worker.close(200, "the third was not acknowledged".into()).await.unwrap();
        assert_eq!(channel.bodies(&queue).await, ["c"]);
    });
}
