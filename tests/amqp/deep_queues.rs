//! Queues that are much deeper than the memory they may take.

use crate::{
    harness::own_broker,
    methods::{basic, confirm},
    wire::{Properties, Table},
};

const MIB: u64 = 1024 * 1024;
const COUNT: u64 = 50_000;
const BODY: usize = 4096;
/// What the broker may grow by: buffers of the log, whatever the depth, and the budget. The messages are 200 MiB.
const GROWTH: u64 = 80 * MIB;
const DURABLE: u8 = 0b10;

/// Messages wait on the disk, come back in order, and leave nothing behind.
fn stays_small(queue_flags: u8, delivery_mode: Option<u8>) {
    let limits = "[storage]\nmemory_budget = \"1MiB\"\nwal_file_size = \"1MiB\"\n";
    let Some(broker) = own_broker(limits) else { return };
    let mut client = broker.connect();
    client.declare_queue(1, "deep", queue_flags, &Table::new());
    client.call(1, &confirm::select(0));
    let before = broker.resident_bytes().unwrap();
    let properties = Properties { delivery_mode, ..Properties::default() };
    let publish = basic::publish("", "deep", 0);
    for number in 1..=COUNT {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(BODY, 7);
        let bytes = client.message_bytes(1, &publish, &properties, &body);
        client.send_bytes(&bytes);
        if number % 1000 == 0 {
            client.expect_acks(1, number - 999, number);
        }
    }
    let grown = broker.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB for {COUNT} messages", grown / MIB);

    let got = client.get(1, "deep", 1).unwrap();
    assert_eq!(got.content.body[..8], 1_u64.to_be_bytes());
    client.consume(1, "deep", "reader", 0b10, &Table::new());
    for number in 2..=COUNT {
        let message = client.expect_delivery(1);
        assert_eq!(message.content.body[..8], number.to_be_bytes(), "in order");
        assert_eq!(message.content.body.len(), BODY);
    }
    assert_eq!(client.message_count(1, "deep"), 0);
    let grown = broker.resident_bytes().unwrap().saturating_sub(before);
    assert!(grown < GROWTH, "{} MiB once they are gone", grown / MIB);
}

#[test]
fn of_persistent_messages() {
    stays_small(DURABLE, Some(2));
}

#[test]
fn of_transient_messages() {
    stays_small(DURABLE, None);
}

#[test]
fn that_are_not_durable() {
    stays_small(0, Some(2));
}
