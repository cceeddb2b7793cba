//! The alarms: who is blocked, when, and how it ends.

use std::time::{Duration, Instant};

use crate::{
    client::{Client, Handshake, PATIENCE},
    harness::{Broker, own_broker},
    methods::{basic, channel, confirm, connection, queue},
    wire::{Properties, Reader, Table},
};

const BLOCKED: (u16, u16) = (10, 60);
const UNBLOCKED: (u16, u16) = (10, 61);
const BODY: usize = 100_000;

/// A broker whose watermark is this much above what it uses when idle. Its queues leave memory later than that.
fn tight_broker(above_idle: u64) -> Option<Broker> {
    let idle = own_broker("")?;
    idle.connect().close();
    let watermark = idle.resident_bytes()? + above_idle;
    let storage = "[storage]\nmemory_budget = \"1GiB\"\n";
    own_broker(&format!("[memory]\nhigh_watermark = \"{watermark}B\"\ncheck_interval = \"10ms\"\n{storage}"))
}

fn queue_named(client: &mut Client, name: &str) {
    client.declare_queue(1, name, 0, &Table::new());
}

/// Publishes until the broker says that it is blocked, and stays so.
fn publish_until_blocked(client: &mut Client, name: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut published = 0;
    loop {
        assert!(Instant::now() < deadline, "{published} messages, and no alarm");
        client.publish(1, "", name, vec![7; BODY]);
        published += 1;
        if let Ok(incoming) = client.try_recv(0, Duration::from_millis(2)) {
            assert_eq!(incoming.method.ids(), BLOCKED);
            let mut reader = Reader(&incoming.method.arguments);
            assert_eq!(reader.short_string(), "low on memory");
            // Just above the mark, buffers given back can end the alarm at once: then there is room for more.
            match client.try_recv(0, Duration::from_millis(200)) {
                Ok(incoming) => assert_eq!(incoming.method.ids(), UNBLOCKED),
                Err(_) => return,
            }
        }
    }
}

#[test]
fn publishers_wait_and_consumers_go_on() {
    let Some(broker) = tight_broker(48 << 20) else { return };
    let mut consumer = broker.connect();
    queue_named(&mut consumer, "full");
    queue_named(&mut consumer, "after");
    let mut publisher = broker.connect();
    publish_until_blocked(&mut publisher, "full");
    // The first message of a connection is taken even now: some more keep the alarm from ending by a whim.
    for _ in 0..40 {
        let mut other = broker.connect();
        other.publish(1, "", "full", vec![7; BODY]);
        other.expect(0, BLOCKED);
    }
    let published = consumer.message_count(1, "full");
    // It is not told before it publishes, and its other methods are served.
    let mut late = broker.connect();
    late.call(1, &queue::declare("full", queue::PASSIVE, &Table::new()));
    late.expect_silence(0);
    late.publish(1, "", "after", "late");
    late.expect(0, BLOCKED);
    // What follows a held publish on its channel waits with it; other channels do not.
    late.publish(1, "", "after", "held");
    late.send(1, &basic::qos(0, 1, 0));
    late.expect_silence(1);
    late.open_channel(2);
    late.call(2, &basic::qos(0, 1, 0));
    // Without the capability publishes wait as well, but nothing is said.
    let silent = Handshake { capabilities: Table::new(), ..Handshake::default() };
    let mut unaware = broker.connect_with(&silent);
    unaware.publish(1, "", "after", "unaware");
    consumer.wait_for_count(1, "after", 2);
    unaware.publish(1, "", "after", "held");
    unaware.send(1, &basic::qos(0, 1, 0));
    unaware.expect_silence(1);
    unaware.expect_silence(0);
    consumer.expect_silence(0);
    // A connection that only consumes is not blocked: it takes everything, which ends the alarm.
    consumer.consume(1, "full", "c", 0, &Table::new());
    for number in 1..=u64::from(published) {
        assert_eq!(consumer.expect_delivery(1).content.body.len(), BODY);
        consumer.send(1, &basic::ack(number, 0));
    }
    publisher.expect(0, UNBLOCKED);
    late.expect(0, UNBLOCKED);
    late.expect(1, (60, 11));
    unaware.expect(1, (60, 11));
    unaware.expect_silence(0);
    publisher.publish(1, "", "after", "again");
    consumer.wait_for_count(1, "after", 5);
}

#[test]
fn acknowledgements_overtake_publishes_that_wait() {
    let Some(broker) = tight_broker(48 << 20) else { return };
    let mut both = broker.connect();
    queue_named(&mut both, "full");
    queue_named(&mut both, "after");
    both.open_channel(2);
    both.call(2, &basic::qos(0, 1, 0));
    both.call(1, &confirm::select(0));
    publish_until_blocked(&mut both, "full");
    while both.try_recv(1, Duration::from_millis(50)).is_ok() {}
    let published = both.message_count(2, "full");
    both.publish(1, "", "after", "held");
    both.expect_silence(1);
    // One at a time: each needs the acknowledgement of the one before, on the connection whose publish waits.
    both.send(2, &basic::consume("full", "c", 0, &Table::new()));
    both.expect(2, (60, 21));
    for number in 1..=u64::from(published) {
        assert_eq!(both.expect_delivery(2).content.body.len(), BODY);
        both.send(2, &basic::ack(number, 0));
    }
    both.expect(0, UNBLOCKED);
    both.wait_for_count(2, "after", 1);
}

#[test]
fn a_channel_closes_after_the_publishes_that_wait_on_it() {
    let Some(broker) = own_broker("[storage]\ndisk_free_limit = \"1000000GiB\"\n") else { return };
    let mut client = broker.connect();
    queue_named(&mut client, "after");
    client.publish(1, "", "after", "first");
    let blocked = client.expect(0, BLOCKED);
    assert_eq!(Reader(&blocked.method.arguments).short_string(), "low on disk");
    client.publish(1, "", "after", "held");
    client.send(1, &channel::close());
    client.expect_silence(1);
    // The connection is closed at once, and what waited was never taken.
    client.send(0, &connection::close());
    client.expect(0, (10, 51));
    let mut other = broker.connect();
    assert_eq!(other.message_count(1, "after"), 1);
}

#[test]
fn both_alarms_are_told_together() {
    let Some(broker) = own_broker(
        "[storage]\ndisk_free_limit = \"1000000GiB\"\n[memory]\nhigh_watermark = \"1MiB\"\ncheck_interval = \"10ms\"\n",
    ) else {
        return;
    };
    std::thread::sleep(Duration::from_millis(100));
    let mut client = broker.connect();
    queue_named(&mut client, "q");
    client.publish(1, "", "q", "first");
    let blocked = client.expect(0, BLOCKED);
    assert_eq!(Reader(&blocked.method.arguments).short_string(), "low on memory & low on disk");
}

#[test]
fn a_client_that_ignores_an_alarm_does_not_fill_the_broker() {
    let Some(broker) = own_broker("[storage]\ndisk_free_limit = \"1000000GiB\"\n") else { return };
    let mut client = broker.connect();
    queue_named(&mut client, "q");
    client.publish(1, "", "q", "first");
    client.expect(0, BLOCKED);
    let before = broker.resident_bytes().unwrap();
    // More than the broker and both socket buffers may hold: the writes stop being taken.
    let bytes = client.message_bytes(1, &basic::publish("", "q", 0), &Properties::default(), &vec![7; 1 << 20]);
    let mut written = 0_u64;
    while written < 200 << 20 && client.try_send_bytes(&bytes, Duration::from_millis(500)) {
        written += bytes.len() as u64;
    }
    assert!(written < 100 << 20, "{written} bytes were taken");
    let after = broker.resident_bytes().unwrap();
    assert!(after < before + (16 << 20), "{before} bytes became {after}");
}

#[test]
fn a_purge_ends_the_alarm() {
    let Some(broker) = tight_broker(48 << 20) else { return };
    let mut operator = broker.connect();
    queue_named(&mut operator, "full");
    let mut publisher = broker.connect();
    for _ in 0..2 {
        publish_until_blocked(&mut publisher, "full");
        operator.call(1, &queue::purge("full", 0));
        publisher.expect(0, UNBLOCKED);
    }
    publisher.publish(1, "", "full", "on");
    publisher.call(1, &basic::qos(0, 1, 0));
}

#[test]
fn a_blocked_client_hears_heartbeats_and_is_not_dropped_for_silence() {
    let Some(broker) = tight_broker(32 << 20) else { return };
    let mut operator = broker.connect();
    queue_named(&mut operator, "full");
    let mut publisher = broker.connect_with(&Handshake { heartbeat: 1, ..Handshake::default() });
    publish_until_blocked(&mut publisher, "full");
    // A client that is not blocked would be dropped after at most three of its intervals.
    let end = Instant::now() + Duration::from_millis(4200);
    let before = publisher.heartbeats;
    while Instant::now() < end {
        let outcome = publisher.try_recv(0, end.saturating_duration_since(Instant::now()));
        assert_eq!(outcome.err(), Some(crate::client::NoFrame::TimedOut), "the blocked connection was dropped");
    }
    assert!(publisher.heartbeats - before >= 3, "{} heartbeats while blocked", publisher.heartbeats - before);
    operator.call(1, &queue::purge("full", 0));
    publisher.expect(0, UNBLOCKED);
    publisher.call(1, &basic::qos(0, 1, 0));
}
