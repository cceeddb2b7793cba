//! Queues that are much deeper than the memory they may take.

use crate::{
    client::Client,
    harness::{MIB, growth, own_broker},
    methods::{basic, confirm, exchange, queue},
    wire::{Properties, Table, Value},
};

const COUNT: u64 = 50_000;
/// What the broker may grow by: buffers of the log, whatever the depth, and the budget. The messages are 200 MiB.
const GROWTH: u64 = 80 * MIB;
const DURABLE: u8 = 0b10;
const LIMITS: &str = "[storage]\nmemory_budget = \"1MiB\"\nwal_file_size = \"1MiB\"\n";

/// Bytes of each message.
#[derive(Clone, Copy)]
struct Shape {
    headers: usize,
    body: usize,
}

const BODIES: Shape = Shape { headers: 0, body: 4096 };
const HEADERS: Shape = Shape { headers: 4096, body: 8 };

/// Publishes messages with their numbers in front of their bodies, each of them confirmed.
fn fill(client: &mut Client, queue: &str, count: u64, delivery_mode: Option<u8>, shape: Shape) {
    client.call(1, &confirm::select(0));
    let properties = if shape.headers > 0 {
        Properties::with_headers([("h", Value::from("x".repeat(shape.headers).as_str()))])
    } else {
        Properties::default()
    };
    let properties = Properties { delivery_mode, ..properties };
    let publish = basic::publish("", queue, 0);
    for number in 1..=count {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(shape.body, 7);
        let bytes = client.message_bytes(1, &publish, &properties, &body);
        client.send_bytes(&bytes);
        if number % 1000 == 0 {
            client.expect_acks(1, number - 999, number);
        }
    }
}

/// Messages wait on the disk, come back in order, and leave nothing behind.
fn stays_small(queue_flags: u8, delivery_mode: Option<u8>, shape: Shape) {
    let Some(broker) = own_broker(LIMITS) else { return };
    let mut client = broker.connect();
    client.declare_queue(1, "deep", queue_flags, &Table::new());
    let before = broker.resident_bytes().unwrap();
    fill(&mut client, "deep", COUNT, delivery_mode, shape);
    let grown_by = growth(&broker, before);
    assert!(grown_by < GROWTH, "{} MiB for {COUNT} messages", grown_by / MIB);

    let got = client.get(1, "deep", 1).unwrap();
    assert_eq!(got.content.body[..8], 1_u64.to_be_bytes());
    client.consume(1, "deep", "reader", 0b10, &Table::new());
    for number in 2..=COUNT {
        let message = client.expect_delivery(1);
        assert_eq!(message.content.body[..8], number.to_be_bytes(), "in order");
        assert_eq!(message.content.body.len(), shape.body);
    }
    assert_eq!(client.message_count(1, "deep"), 0);
    let grown_by = growth(&broker, before);
    assert!(grown_by < GROWTH, "{} MiB once they are gone", grown_by / MIB);
}

#[test]
fn of_persistent_messages() {
    stays_small(DURABLE, Some(2), BODIES);
}

#[test]
fn of_transient_messages() {
    stays_small(DURABLE, None, BODIES);
}

#[test]
fn that_are_not_durable() {
    stays_small(0, Some(2), BODIES);
}

#[test]
fn of_messages_with_large_headers() {
    stays_small(DURABLE, Some(2), HEADERS);
}

#[test]
fn of_transient_messages_with_large_headers() {
    stays_small(0, None, HEADERS);
}

/// Bookkeeping is all that such messages take.
#[test]
fn of_empty_messages_in_many_queues() {
    const QUEUES: u64 = 300;
    const MESSAGES: u64 = 6_000;
    let Some(broker) = own_broker(LIMITS) else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("all", "fanout", 0, &Table::new()));
    for number in 0..QUEUES {
        let name = format!("q{number}");
        client.declare_queue(1, &name, 0, &Table::new());
        client.call(1, &queue::bind(&name, "all", "", 0, &Table::new()));
    }
    let before = broker.resident_bytes().unwrap();
    client.call(1, &confirm::select(0));
    for number in 1..=MESSAGES {
        let bytes = client.message_bytes(1, &basic::publish("all", "", 0), &Properties::default(), &[]);
        client.send_bytes(&bytes);
        if number % 100 == 0 {
            client.expect_acks(1, number - 99, number);
        }
    }
    let grown_by = growth(&broker, before);
    // Slots alone would be 110 MiB.
    assert!(grown_by < GROWTH, "{} MiB for {MESSAGES} empty messages in {QUEUES} queues", grown_by / MIB);
    for name in ["q0", "q299"] {
        assert_eq!(u64::from(client.message_count(1, name)), MESSAGES);
        assert!(client.get(1, name, 1).is_some());
    }
}

/// No queue has much, all together have.
#[test]
fn many_small_queues_stay_small_together() {
    const QUEUES: u64 = 2_500;
    const MESSAGES: u64 = 8;
    const SIZE: usize = 10_000;
    let limits = "[storage]\nmemory_budget = \"16MiB\"\nwal_file_size = \"1MiB\"\n";
    let Some(broker) = own_broker(limits) else { return };
    let mut client = broker.connect();
    for number in 0..QUEUES {
        client.declare_queue(1, &format!("q{number}"), 0, &Table::new());
    }
    let before = broker.resident_bytes().unwrap();
    client.call(1, &confirm::select(0));
    let mut last = 0;
    for _ in 0..MESSAGES {
        for number in 0..QUEUES {
            client.publish(1, "", &format!("q{number}"), vec![7; SIZE]);
            last += 1;
            if last % 500 == 0 {
                client.expect_acks(1, last - 499, last);
            }
        }
    }
    let grown_by = growth(&broker, before);
    // The messages are 190 MiB.
    assert!(grown_by < GROWTH, "{} MiB for {QUEUES} queues", grown_by / MIB);
    for number in (0..QUEUES).step_by(97) {
        for _ in 0..MESSAGES {
            assert_eq!(client.get(1, &format!("q{number}"), 1).unwrap().content.body.len(), SIZE);
        }
    }
}
