//! One peer's slowness is its own, and the number of shards changes nothing that a client can see.

use std::time::Duration;

use crate::{
    harness::own_broker,
    methods::{basic, channel, confirm, exchange, queue},
    wire::Table,
};

fn none() -> Table {
    Table::new()
}

/// Messages of 64 KiB, so that a consumer that does not read is soon full: its credit and both socket buffers.
const BODY: usize = 64 * 1024;

#[test]
fn a_consumer_that_never_reads_leaves_the_queue_to_the_others() {
    let Some(broker) = own_broker("[memory]\nconnection_delivery_credit = \"256KiB\"\n") else { return };
    let mut stuck = broker.connect();
    stuck.declare_queue(1, "shared", 0, &none());
    stuck.consume(1, "shared", "stuck", basic::NO_ACK, &none());
    let mut awake = [broker.connect(), broker.connect()];
    for client in &mut awake {
        client.consume(1, "shared", "awake", basic::NO_ACK, &none());
    }
    let count = 600;
    let mut publisher = broker.connect();
    publisher.call(1, &confirm::select(0));
    for number in 0..count {
        publisher.publish(1, "", "shared", vec![b'x'; BODY]);
        publisher.expect_acks(1, number + 1, number + 1);
    }
    let mut received = 0;
    for idle in 0..2 {
        // The second round finds what the first one's patience missed.
        for client in &mut awake {
            while client.try_recv(1, Duration::from_millis(200 + 300 * idle)).is_ok() {
                received += 1;
            }
        }
    }
    // 256 KiB of credit, and what the kernel keeps for a socket that is not read (a few MiB each way).
    assert!(received > count - 250, "the others received {received} of {count}");
    assert_eq!(publisher.message_count(1, "shared"), 0, "nothing waits for the one that does not read");
}

#[test]
fn queues_of_several_shards_act_as_one_broker() {
    let Some(broker) = own_broker("[queues]\nshards = 3\n") else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("all", "fanout", 0, &none()));
    let queues: Vec<String> = (0..9).map(|number| format!("q{number}")).collect();
    for name in &queues {
        client.declare_queue(1, name, 0, &none());
        client.call(1, &queue::bind(name, "all", "", 0, &none()));
    }
    client.call(1, &confirm::select(0));
    for number in 0..50 {
        client.publish(1, "all", "", number.to_string());
    }
    client.expect_acks(1, 1, 50);
    for name in &queues {
        assert_eq!(client.message_count(1, name), 50);
    }
    // One consumer of each queue on a channel of its own, with one limit for all of them.
    client.open_channel(2);
    client.call(2, &basic::qos(0, 5, 1));
    for name in &queues {
        client.send(2, &basic::consume(name, name, basic::NOWAIT, &none()));
    }
    for _ in 0..5 {
        client.expect_delivery(2);
    }
    client.expect_silence(2);
    client.send(2, &basic::ack(5, basic::MULTIPLE));
    for _ in 0..5 {
        client.expect_delivery(2);
    }
    client.expect_silence(2);
    client.call(2, &channel::close());
    let left: u32 = queues.iter().map(|name| client.message_count(1, name)).sum();
    assert_eq!(left, 9 * 50 - 5, "what was not acknowledged is back when close-ok is read");
    for name in &queues {
        client.call(1, &queue::delete(name, 0));
    }
    client.close();
}
