//! Random traffic, and what must hold afterwards.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use super::super::{Broker, Limits};
use super::client::{Client, DELIVERY_CREDIT, Held, Mode, Number, Oracle, PUBLISH_CREDIT, number_of};
use super::{NOW, broker};
use crate::model::entity::Destination;
use crate::model::ids::{ConsumerId, MessageIndex, QueueId};
use crate::model::names::QueueName;
use crate::model::random::Random;
use crate::model::request::{
    Answer, Ask, BindingRequest, ConsumeRequest, DeclareQueue, Event, Request, SettleOutcome, Settlement,
};
use crate::model::table::FieldTable;
use crate::queue::QueueCounts;

const STEPS: usize = 250;
const CLIENTS: usize = 3;

struct Simulation {
    broker: Arc<Broker>,
    random: Random,
    clients: Vec<Client>,
    /// Shards that another thread is working on for now.
    busy: Vec<bool>,
    oracle: Oracle,
}

fn run(seed: u64, shards: u16) {
    let broker = broker(shards, Limits { channels: 1000, ..Limits::default() });
    let mut simulation = Simulation {
        random: Random::new(seed),
        clients: (0..CLIENTS).map(|_| Client::new(&broker)).collect(),
        busy: vec![false; usize::from(shards)],
        oracle: Oracle::default(),
        broker,
    };
    for _ in 0..STEPS {
        simulation.step();
    }
    simulation.settle();
    simulation.check_quiet();
    simulation.end();
}

impl Simulation {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next_bits() % bound as u64).unwrap()
    }

    fn step(&mut self) {
        // A shard whose state is locked elsewhere: what is sent to it stays in its mailbox, and whoever has the lock
        // looks at the mailbox after releasing it.
        let broker = Arc::clone(&self.broker);
        for shard in 0..self.busy.len() {
            if self.below(4) == 0 {
                self.busy[shard] = !self.busy[shard];
            }
        }
        let busy = self.busy.clone();
        let guards: Vec<_> =
            broker.shards.iter().zip(&busy).map(|(cell, busy)| busy.then(|| cell.state.lock())).collect();
        for _ in 0..=self.below(4) {
            let client = self.below(self.clients.len());
            for _ in 0..self.below(3) {
                self.act(client);
            }
            if self.below(3) != 0 || !self.clients[client].requests.is_empty() {
                self.clients[client].work(&mut self.oracle);
            }
        }
        drop(guards);
        for (shard, was_busy) in (0u16..).zip(busy) {
            if was_busy {
                broker.drive(shard, NOW);
            }
        }
        if self.below(30) == 0 {
            let client = self.below(self.clients.len());
            if !self.clients[client].gone {
                self.clients[client].work(&mut self.oracle);
                self.clients[client].abandon(&mut self.oracle);
                self.clients.push(Client::new(&broker));
            }
        }
        if self.below(3) == 0 {
            self.run_shard_tasks();
        }
    }

    /// What the shards' own tasks do, and the log's threads: they run when they were woken, and not otherwise. Whether any
    /// was.
    fn run_shard_tasks(&self) -> bool {
        let mut any = self.broker.write_log().unwrap();
        self.broker.maintain_log().unwrap();
        for shard in 0..self.broker.shard_count() {
            let needed = pin!(self.broker.shard_needed(shard));
            if needed.poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                self.broker.drive(shard, NOW);
                any = true;
            }
        }
        any
    }

    /// Lets everything come to rest; every client takes what it is given, and returns the credit.
    fn settle(&mut self) {
        loop {
            let mut any = self.run_shard_tasks();
            for client in &mut self.clients {
                any |= client.work(&mut self.oracle);
                if client.delivered > 0 && !client.gone {
                    client.requests.push(Request::DeliveriesSent { bytes: std::mem::take(&mut client.delivered) });
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
    }

    fn queue(&mut self, client: usize) -> QueueName {
        let queue = self.below(8);
        let owner = self.clients[client].id.0;
        QueueName::new(&match queue {
            0..=3 => format!("q{queue}"),
            4 | 5 => format!("auto{queue}"),
            _ => format!("exclusive{owner}"),
        })
    }

    fn find(&self, name: &str) -> Option<QueueId> {
        self.broker.topology.load().vhost(&"/".into()).unwrap().queues.get(name).map(|queue| queue.id)
    }

    /// Has a client do something on one of its channels.
    fn act(&mut self, client: usize) {
        if self.clients[client].gone {
            return;
        }
        let number = 1 + u16::try_from(self.below(3)).unwrap();
        let kind = self.below(40);
        let Some(channel) = self.clients[client].channels.get(&number) else {
            let mode = [Mode::Plain, Mode::Confirm, Mode::Confirm, Mode::Transaction][self.below(4)];
            return self.clients[client].open(number, mode);
        };
        let waiting = channel.asked.is_some();
        match kind {
            _ if channel.closing => {}
            0 if !waiting => self.clients[client].close(number, &mut self.oracle),
            1 => {
                let bytes = std::mem::take(&mut self.clients[client].delivered);
                self.clients[client].requests.push(Request::DeliveriesSent { bytes });
            }
            _ if waiting => {}
            2..=13 => self.publish(client, number),
            14..=20 => self.settle_some(client, number),
            _ => self.ask(client, number, kind),
        }
    }

    fn publish(&mut self, client: usize, number: u16) {
        // Alone in its batch, so that the definitions are those that routing sees.
        self.clients[client].work(&mut self.oracle);
        if self.clients[client].channels.get(&number).is_none_or(|channel| channel.closing || channel.asked.is_some()) {
            return;
        }
        let mandatory = self.below(3) == 0;
        for _ in 0..=self.below(4) {
            let name = self.queue(client);
            let (exchange, expected) = if self.below(4) == 0 {
                let mut targets = crate::routing::Targets::default();
                let properties = crate::model::message::Properties::default();
                let facts = crate::routing::Facts::new(&properties, 0);
                let topology = self.broker.topology.load();
                let routing = &topology.vhost(&"/".into()).unwrap().routing;
                assert!(routing.route(b"amq.fanout", &[b""], &facts, &mut targets).is_ok());
                ("amq.fanout", targets.queues().iter().map(|target| target.id).collect())
            } else {
                ("", self.find(name.as_str()).into_iter().collect())
            };
            let address = (exchange, name.as_str());
            self.clients[client].publish(number, address, mandatory, expected, &mut self.oracle);
        }
    }

    /// Takes some of what the channel holds, as one request a delivery.
    fn take_some(&mut self, client: usize, number: u16, outcome: SettleOutcome) -> Vec<Settlement> {
        let held = self.clients[client].channels[&number].unacked.len();
        if held == 0 {
            return Vec::new();
        }
        let (from, count) = (self.below(held), 1 + self.below(4));
        let channel = self.clients[client].channels.get_mut(&number).unwrap();
        let taken: Vec<Held> = channel.unacked.drain(from..held.min(from + count)).collect();
        self.settlements(taken, outcome)
    }

    fn settlements(&mut self, taken: Vec<Held>, outcome: SettleOutcome) -> Vec<Settlement> {
        taken
            .into_iter()
            .map(|held| {
                self.oracle.settled(held, outcome == SettleOutcome::Requeue);
                Settlement { queue: held.queue, consumer: held.consumer, indexes: vec![held.index], outcome }
            })
            .collect()
    }

    fn settle_some(&mut self, client: usize, number: u16) {
        if self.clients[client].channels[&number].mode == Mode::Transaction {
            return;
        }
        let outcome =
            [SettleOutcome::Ack, SettleOutcome::Ack, SettleOutcome::Requeue, SettleOutcome::Reject][self.below(4)];
        let settlements = self.take_some(client, number, outcome);
        self.clients[client].requests.extend(settlements.into_iter().map(Request::Settle));
    }

    fn ask(&mut self, client: usize, number: u16, kind: usize) {
        let queue = self.queue(client);
        let transactional = self.clients[client].channels[&number].mode == Mode::Transaction;
        let ask = match kind {
            21..=24 => self.declare(queue),
            25..=27 => self.consume(client, number, queue),
            28 => {
                let channel = &self.clients[client].channels[&number];
                let Some((consumer, _)) = channel.consumers.first_key_value() else { return };
                Ask::Cancel { consumer: *consumer, tag: "tag".into() }
            }
            29..=31 => {
                let reference = self.clients[client].channels[&number].reference;
                let (connection, serial) = (reference.connection, reference.serial);
                Ask::Get {
                    queue,
                    no_ack: self.below(3) == 0,
                    holder: ConsumerId { connection, serial, channel: number },
                }
            }
            32 if !transactional => {
                let all = std::mem::take(&mut self.clients[client].channels.get_mut(&number).unwrap().unacked);
                Ask::Recover { settlements: self.settlements(all, SettleOutcome::Requeue) }
            }
            33 => Ask::Bind(BindingRequest {
                source: "amq.fanout".into(),
                destination: Destination::Queue(queue),
                key: crate::model::names::RoutingKey::new(b""),
                arguments: FieldTable::default(),
            }),
            34 if self.below(2) == 0 => Ask::DeleteQueue { queue, if_unused: self.below(2) == 0, if_empty: false },
            35 => Ask::ChannelPrefetch { limit: u16::try_from(self.below(4)).unwrap() },
            36 | 37 if transactional => {
                self.clients[client].channels.get_mut(&number).unwrap().open.clear();
                Ask::Commit { settlements: self.take_some(client, number, SettleOutcome::Ack) }
            }
            38 if transactional => {
                let channel = self.clients[client].channels.get_mut(&number).unwrap();
                for sequence in std::mem::take(&mut channel.open) {
                    channel.owed.remove(&sequence);
                }
                Ask::Rollback
            }
            _ => Ask::Proceed,
        };
        self.clients[client].ask(number, ask);
    }

    fn declare(&self, queue: QueueName) -> Ask {
        let (auto_delete, exclusive) = (queue.as_str().starts_with("auto"), queue.as_str().starts_with("exclusive"));
        let arguments = FieldTable::default();
        Ask::DeclareQueue(DeclareQueue { queue, passive: false, durable: true, exclusive, auto_delete, arguments })
    }

    fn consume(&mut self, client: usize, number: u16, queue: QueueName) -> Ask {
        let (no_ack, prefetch) = (self.below(3) == 0, u16::try_from(self.below(4)).unwrap());
        let client = &mut self.clients[client];
        let consumer = ConsumerId { connection: client.id, serial: client.next_serial(), channel: number };
        client.channels.get_mut(&number).unwrap().consumers.insert(consumer, (no_ack, MessageIndex(0)));
        let (exclusive, arguments) = (false, FieldTable::default());
        Ask::Consume(ConsumeRequest { consumer, queue, tag: "tag".into(), prefetch, no_ack, exclusive, arguments })
    }

    fn counts(&self) -> BTreeMap<String, (QueueId, QueueCounts)> {
        let topology = self.broker.topology.load();
        let shards = self.broker.shard_count();
        let queues = topology.vhost(&"/".into()).unwrap().queues.values();
        queues
            .map(|queue| {
                let shard = super::super::metadata::shard_of(queue.id, shards);
                let counts = self.broker.shards[usize::from(shard)].state.lock().counts(queue.id);
                (queue.name.to_string(), (queue.id, counts.expect("its shard has every queue that is defined")))
            })
            .collect()
    }

    /// Nothing moves any more: nobody waits, every verdict is told, and all credit is back.
    fn check_quiet(&self) {
        let mut unacked: BTreeMap<QueueId, u64> = BTreeMap::new();
        for client in self.clients.iter().filter(|client| !client.gone) {
            for channel in client.channels.values() {
                assert!(channel.asked.is_none() && !channel.closing, "no answer to {:?}", channel.asked);
                let open: Vec<_> = channel.owed.keys().filter(|sequence| !channel.open.contains(sequence)).collect();
                assert!(open.is_empty(), "no verdict on {open:?}");
                assert!(channel.must_return.is_subset(&channel.returned), "mandatory publishes are returned");
                channel.unacked.iter().for_each(|held| *unacked.entry(held.queue).or_default() += 1);
            }
            let full = (i64::try_from(PUBLISH_CREDIT).unwrap(), i64::try_from(DELIVERY_CREDIT).unwrap());
            assert_eq!(client.outbox.credits(), full, "credit of {:?}", client.id);
        }
        for (name, (id, counts)) in self.counts() {
            assert_eq!(counts.unacked, unacked.get(&id).copied().unwrap_or_default(), "unacknowledged of {name}");
        }
    }

    /// All connections end; what is left in the queues must be what nobody settled.
    fn end(&mut self) {
        for client in &mut self.clients {
            if !client.gone {
                client.abandon(&mut self.oracle);
            }
        }
        self.run_shard_tasks();
        self.clients.iter_mut().for_each(|client| client.lose(&mut self.oracle));
        assert_eq!(self.broker.channels.load(Ordering::SeqCst), 0, "channels are counted once");
        assert_eq!(self.broker.connections.load(Ordering::SeqCst), 0);
        for (name, (id, counts)) in self.counts() {
            assert_eq!((counts.unacked, counts.consumers), (0, 0), "{name}");
            assert!(!name.starts_with("exclusive"), "{name} outlives its connection");
            let left = self.drain(&name);
            assert_eq!(left.len() as u64, counts.ready);
            for (number, queues) in &self.oracle.expected {
                let copies = left.iter().filter(|other| *other == number).count();
                let finished = self.oracle.finished.contains(&(id, *number));
                assert!(copies <= usize::from(!finished), "message {number} is in {name} {copies} times");
                if self.oracle.confirmed.contains(number) && queues.contains(&id) && !finished {
                    assert_eq!(copies, 1, "message {number} was confirmed and is not in {name}");
                }
            }
        }
    }

    /// What is in a queue.
    fn drain(&mut self, name: &str) -> Vec<Number> {
        let mut client = Client::new(&self.broker);
        client.open(1, Mode::Plain);
        client.work(&mut Oracle::default());
        let (mut numbers, mut events) = (Vec::new(), Vec::new());
        let channel = client.channels[&1].reference;
        let holder = ConsumerId { connection: client.id, serial: channel.serial, channel: 1 };
        loop {
            let ask = Ask::Get { queue: name.into(), no_ack: true, holder };
            let mut immediate = Vec::new();
            client.session.submit(&mut vec![Request::Ask { channel, ask }], &mut immediate, NOW);
            client.outbox.take(&mut events);
            match events.pop() {
                Some(Event::Answer { answer: Answer::Got { message, .. }, .. }) => numbers.push(number_of(&message)),
                Some(Event::Answer { answer: Answer::Empty, .. }) => break,
                other => panic!("{other:?} {immediate:?}"),
            }
        }
        client.session.abandon(NOW);
        numbers
    }
}

/// Runs every seed; one that fails is named.
fn seeds(seeds: std::ops::Range<u64>, shards: u16) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed, shards));
        if let Err(panic) = outcome {
            eprintln!("failed: seed {seed} with {shards} shards");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn random_traffic_on_one_shard() {
    seeds(0..200, 1);
}

#[test]
fn random_traffic_on_three_shards() {
    seeds(1000..1200, 3);
}

#[test]
fn a_channel_that_is_closing_is_counted_out_once() {
    let broker = broker(1, Limits { channels: 10, ..Limits::default() });
    let mut client = Client::new(&broker);
    client.open(1, Mode::Plain);
    client.ask(
        1,
        Ask::DeclareQueue(DeclareQueue {
            queue: "q".into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: FieldTable::default(),
        }),
    );
    client.work(&mut Oracle::default());
    client.work(&mut Oracle::default());
    let channel = client.channels[&1].reference;
    let mut requests = vec![Request::CloseChannel(channel), Request::CloseConnection];
    client.session.submit(&mut requests, &mut Vec::new(), NOW);
    assert_eq!(broker.channels.load(Ordering::SeqCst), 0);
}

#[test]
fn a_publish_in_front_of_a_declaration_reaches_its_shard() {
    let broker = broker(2, Limits::default());
    let mut client = Client::new(&broker);
    let mut oracle = Oracle::default();
    client.open(1, Mode::Confirm);
    let declare = |queue: &str| {
        Ask::DeclareQueue(DeclareQueue {
            queue: queue.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: FieldTable::default(),
        })
    };
    client.ask(1, declare("first"));
    client.work(&mut oracle);
    client.work(&mut oracle);
    let id = broker.topology.load().vhost(&"/".into()).unwrap().queues.get("first").map(|queue| queue.id);
    // The second queue has the next number and so the other shard.
    client.publish(1, ("", "first"), false, id.into_iter().collect(), &mut oracle);
    client.ask(1, declare("second"));
    client.work(&mut oracle);
    client.work(&mut oracle);
    assert!(client.channels[&1].owed.is_empty(), "the publish was not handled");
}

#[test]
fn transient_messages_in_a_durable_queue_write_nothing_to_the_log() {
    let broker = broker(1, Limits::default());
    let mut client = Client::new(&broker);
    let mut oracle = Oracle::default();
    client.open(1, Mode::Plain);
    let (passive, durable, exclusive, auto_delete) = (false, true, false, false);
    let arguments = FieldTable::default();
    let queue = "q".into();
    client.ask(1, Ask::DeclareQueue(DeclareQueue { queue, passive, durable, exclusive, auto_delete, arguments }));
    while client.work(&mut oracle) || broker.write_log().unwrap() {}
    let id = broker.topology.load().vhost(&"/".into()).unwrap().queues.get("q").map(|queue| queue.id);
    for no_ack in [true, false] {
        client.publish(1, ("", "q"), false, id.into_iter().collect(), &mut oracle);
        let holder = ConsumerId { connection: client.id, serial: client.next_serial(), channel: 1 };
        client.ask(1, Ask::Get { queue: "q".into(), no_ack, holder });
        while client.work(&mut oracle) {}
    }
    assert_eq!(client.channels[&1].unacked.len(), 1);
    assert!(!broker.write_log().unwrap());
}

#[test]
fn a_dead_letter_key_that_no_short_string_holds_is_refused() {
    let broker = broker(1, Limits::default());
    let mut client = Client::new(&broker);
    client.open(1, Mode::Plain);
    client.work(&mut Oracle::default());
    let channel = client.channels[&1].reference;
    for (length, accepted) in [(255, true), (256, false)] {
        let mut arguments = FieldTable::default();
        arguments.push("x-dead-letter-exchange", crate::model::table::FieldValue::string("amq.direct"));
        let key = "k".repeat(length);
        arguments.push("x-dead-letter-routing-key", crate::model::table::FieldValue::string(&key));
        let queue = QueueName::new(&format!("q{length}"));
        let (passive, durable, exclusive, auto_delete) = (false, true, false, false);
        let ask = Ask::DeclareQueue(DeclareQueue { queue, passive, durable, exclusive, auto_delete, arguments });
        let mut events = Vec::new();
        client.session.submit(&mut vec![Request::Ask { channel, ask }], &mut events, NOW);
        let refused = matches!(events[..], [Event::Exception { .. }]);
        assert_eq!(refused, !accepted, "{length}: {events:?}");
    }
}
