//! Nanoseconds per message through the queue machine: `cargo bench --bench queue`. With `--test` every case runs once.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use warren::model::entity::QueueOptions;
use warren::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, Timestamp};
use warren::model::message::{Envelope, Message, Properties};
use warren::model::names::ConsumerTag;
use warren::model::request::SettleOutcome;
use warren::model::table::FieldTable;
use warren::queue::{Command, Durability, Effect, Fifo, OpenGate, Publish, PublishOrigin, Subscription};

const NOW: Timestamp = Timestamp(1_000_000);

/// Messages made before the clock starts, as the connection makes them elsewhere.
const BATCH: usize = 100;

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { 20_000 };
    report("enqueue + deliver, automatic acknowledgement", rounds, automatic(rounds, QueueOptions::default()));
    let confirmed = automatic_tracked(rounds);
    report("enqueue + confirm + deliver, automatic acknowledgement", rounds, confirmed);
    let ttl = QueueOptions { message_ttl_ms: Some(60_000), ..QueueOptions::default() };
    report("the same with a queue TTL", rounds, automatic(rounds, ttl));
    report("enqueue + deliver + settle by 100, prefetch 1000", rounds, settled(rounds, 1, 1000));
    report("the same with 10 consumers, prefetch 100", rounds, settled(rounds, 10, 100));
    report("enqueue a backlog, then drain it", rounds, backlog(rounds, QueueOptions::default(), 0));
    let priorities = QueueOptions { max_priority: Some(10), ..QueueOptions::default() };
    report("the same with 10 priorities", rounds, backlog(rounds, priorities, 10));
}

fn report(name: &str, rounds: usize, nanoseconds: u128) {
    println!("{:8.1} ns/message  {name}", nanoseconds as f64 / (rounds * BATCH) as f64);
}

fn message(priority: u8) -> Message {
    let mut raw = Vec::new();
    let properties = Properties { priority: Some(priority), delivery_mode: Some(1), ..Properties::default() };
    properties.encode(&mut raw);
    let envelope = Envelope { exchange: b"", routing_key: b"queue" };
    Message::new(&mut Vec::new(), envelope, &Properties { raw: &raw, ..properties }, &[0; 256])
}

fn messages(priorities: u8) -> Vec<Message> {
    (0..BATCH).map(|at| message(u8::try_from(at).unwrap_or(0).checked_rem(priorities).unwrap_or(0))).collect()
}

fn publish(message: Message, origin: PublishOrigin) -> Command {
    Command::Enqueue(Publish { message, expiration_ms: None, origin, deaths: None })
}

fn consumer(serial: u32) -> ConsumerId {
    ConsumerId { connection: ConnectionId(1), serial, channel: 1 }
}

fn subscribe(fifo: &mut Fifo, serial: u32, prefetch: u16, no_ack: bool, effects: &mut Vec<Effect>) {
    let subscription = Subscription {
        consumer: consumer(serial),
        tag: ConsumerTag::new("tag"),
        prefetch,
        no_ack,
        exclusive: false,
        priority: 0,
        arguments: FieldTable::default(),
    };
    fifo.apply(NOW, Command::Subscribe(subscription), &mut OpenGate, effects);
}

fn automatic(rounds: usize, options: QueueOptions) -> u128 {
    deliver_at_once(rounds, options, |_| PublishOrigin::Untracked)
}

fn automatic_tracked(rounds: usize) -> u128 {
    let channel = ChannelRef { connection: ConnectionId(1), serial: 1, number: 1 };
    deliver_at_once(rounds, QueueOptions::default(), |sequence| PublishOrigin::Channel { channel, sequence })
}

fn deliver_at_once(rounds: usize, options: QueueOptions, origin: impl Fn(u64) -> PublishOrigin) -> u128 {
    let mut fifo = Fifo::new(Arc::new(options), Durability::Transient, NOW);
    let mut effects = Vec::new();
    subscribe(&mut fifo, 1, 0, true, &mut effects);
    let batch = messages(0);
    let mut elapsed = 0;
    for _ in 0..rounds {
        let batch = batch.clone();
        let start = Instant::now();
        for (sequence, message) in (0u64..).zip(batch) {
            fifo.apply(NOW, publish(message, origin(sequence)), &mut OpenGate, &mut effects);
        }
        elapsed += start.elapsed().as_nanos();
        black_box(&effects);
        effects.clear();
    }
    elapsed
}

fn settled(rounds: usize, consumers: u32, prefetch: u16) -> u128 {
    let mut fifo = Fifo::new(Arc::default(), Durability::Transient, NOW);
    let mut effects = Vec::new();
    for serial in 0..consumers {
        subscribe(&mut fifo, serial, prefetch, false, &mut effects);
    }
    let batch = messages(0);
    let mut delivered: Vec<Vec<MessageIndex>> = vec![Vec::new(); consumers as usize];
    let mut elapsed = 0;
    for _ in 0..rounds {
        let batch = batch.clone();
        let start = Instant::now();
        for message in batch {
            fifo.apply(NOW, publish(message, PublishOrigin::Untracked), &mut OpenGate, &mut effects);
        }
        for effect in effects.drain(..) {
            let Effect::Deliver(delivery) = effect else { continue };
            let serial = delivery.consumer.serial;
            let indexes = &mut delivered[serial as usize];
            indexes.push(delivery.index);
            if indexes.len() == BATCH {
                let indexes = std::mem::replace(indexes, Vec::with_capacity(BATCH));
                let command = Command::Settle { consumer: consumer(serial), indexes, outcome: SettleOutcome::Ack };
                fifo.apply(NOW, command, &mut OpenGate, &mut Vec::new());
            }
        }
        elapsed += start.elapsed().as_nanos();
    }
    elapsed
}

fn backlog(rounds: usize, options: QueueOptions, priorities: u8) -> u128 {
    let mut fifo = Fifo::new(Arc::new(options), Durability::Transient, NOW);
    let mut effects = Vec::new();
    let batch = messages(priorities);
    let mut elapsed = 0;
    // Deep enough to leave the caches.
    let depth = rounds.min(2_000);
    for _ in 0..rounds / depth {
        for _ in 0..depth {
            let batch = batch.clone();
            let start = Instant::now();
            for message in batch {
                fifo.apply(NOW, publish(message, PublishOrigin::Untracked), &mut OpenGate, &mut effects);
            }
            elapsed += start.elapsed().as_nanos();
        }
        let mut drained = Vec::with_capacity(depth * BATCH);
        let start = Instant::now();
        subscribe(&mut fifo, 1, 0, true, &mut drained);
        elapsed += start.elapsed().as_nanos();
        assert_eq!(drained.len(), depth * BATCH);
        fifo.apply(NOW, Command::Cancel(consumer(1)), &mut OpenGate, &mut effects);
    }
    elapsed
}
