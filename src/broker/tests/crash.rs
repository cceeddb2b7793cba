//! Crashes: random durable traffic over a disk that loses, tears and reorders what was not synced, and an oracle that
//! knows what must be there afterwards. Power losses and killed processes at any step; full disks; and after the last
//! restart everything is taken out and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::{Broker, Outbox, Session};
use super::{PEER, define_guest, settings};
use crate::log::memory::MemoryDisk;
use crate::log::{CommitError, Keeping, Options, SyncMode};
use crate::model::entity::Destination;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, QueueId, Timestamp};
use crate::model::message::{Body, Envelope, Message, Properties};
use crate::model::names::{QueueName, RoutingKey};
use crate::model::random::Random;
use crate::model::request::{
    Answer, Ask, BindingRequest, ConsumeRequest, DeclareExchange, DeclareQueue, Event, Mechanism, PublishRequest,
    Request, SettleOutcome, Settlement,
};
use crate::model::table::{FieldTable, FieldValue};

const STEPS: usize = 120;
const LIVES: usize = 3;
const CREDIT: u64 = 1_000_000;
/// Queues that live as long as the test, and how they are declared.
const QUEUES: [&str; 4] = ["plain", "priorities", "dying", "dead"];
/// Its deletion and declaration are part of the traffic.
const COMES_AND_GOES: &str = "comes and goes";

type Number = u64;

/// What became of a message in one queue, as far as anybody was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fate {
    persistent: bool,
    /// The confirm arrived.
    confirmed: bool,
    /// Somebody has it unacknowledged.
    held: bool,
    /// Acknowledged; it may still come back until that is on the disk.
    acked: bool,
    /// Acknowledged, and that is on the disk.
    acked_durably: bool,
    /// The life of the broker it was published in.
    life: usize,
    /// It was in a queue that was deleted or purged: it need not be there.
    discarded: bool,
}

#[derive(Default)]
struct Oracle {
    last: Number,
    /// By message and the queue it was published to; dead letters count where they came from.
    fates: BTreeMap<(Number, &'static str), Fate>,
    /// Awaited confirms: connection and sequence, and the message.
    awaited: BTreeMap<(ConnectionId, u64), Number>,
    /// Verdicts each still lacks.
    owed: BTreeMap<(ConnectionId, u64), u32>,
    /// Queue names by id.
    names: BTreeMap<QueueId, &'static str>,
}

struct Peer {
    id: ConnectionId,
    session: Session,
    outbox: Arc<Outbox>,
    publishing: ChannelRef,
    consuming: ChannelRef,
    next_sequence: u64,
    asked: bool,
    held: Vec<(QueueId, ConsumerId, MessageIndex, Number)>,
    last_answer: Option<Answer>,
}

struct World {
    random: Random,
    disk: MemoryDisk,
    broker: Arc<Broker>,
    peers: Vec<Peer>,
    oracle: Oracle,
    now: Timestamp,
    life: usize,
    /// The declaration of the queue that comes and goes was answered, and no deletion was asked since.
    must_exist: bool,
}

/// Files of which next to nothing lives become part of segments too, so that it happens often.
const KEEPING: Keeping = Keeping { share_min: 2, stretch_min: 200, batch_min: 0 };
const OPTIONS: Options =
    Options { sync: SyncMode::Always, wal_file_bytes: 64 * 1024, segment_bytes: 256 * 1024, keeping: KEEPING };

fn open(disk: &MemoryDisk, now: Timestamp) -> Arc<Broker> {
    let mut settings = settings(1);
    settings.memory_budget = 20_000;
    let broker = Broker::open(settings, Arc::new(disk.clone()), OPTIONS, now).unwrap();
    if broker.is_new() {
        define_guest(&broker);
        broker.store_definitions().unwrap();
    }
    broker
}

fn run(seed: u64) {
    let disk = MemoryDisk::default();
    let now = Timestamp(1_000_000);
    let broker = open(&disk, now);
    let mut world = World {
        random: Random::new(seed),
        broker,
        disk,
        peers: Vec::new(),
        oracle: Oracle::default(),
        now,
        life: 0,
        must_exist: false,
    };
    world.meet();
    world.declare_everything();
    for _ in 0..LIVES {
        for _ in 0..world.below(STEPS) {
            world.step();
        }
        world.crash();
    }
    world.drain();
}

impl World {
    /// Tells what happens to one message, for finding out why a seed fails: WARREN_WATCH=number.
    fn watch(&self, number: Number, what: &dyn std::fmt::Debug) {
        if std::env::var("WARREN_WATCH").is_ok_and(|watched| number == 0 || watched == number.to_string()) {
            eprintln!("life {} time {}: message {number}: {what:?}", self.life, self.now.0);
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next_bits() % bound as u64).unwrap()
    }

    fn meet(&mut self) {
        self.peers = (0..2).map(|_| Peer::new(&self.broker, self.now)).collect();
    }

    fn declare_everything(&mut self) {
        let argument = |name: &str, value| FieldTable(vec![(name.into(), value)]);
        let tables = [
            FieldTable::default(),
            argument("x-max-priority", FieldValue::I32(3)),
            argument("x-dead-letter-exchange", FieldValue::string("letters")),
            FieldTable::default(),
        ];
        for (name, arguments) in QUEUES.into_iter().zip(tables) {
            let id = self.declare_queue(name, arguments);
            self.oracle.names.insert(id, name);
        }
        for (exchange, queues) in [("everywhere", &QUEUES[..3]), ("letters", &QUEUES[3..])] {
            self.ask(
                0,
                Ask::DeclareExchange(DeclareExchange {
                    exchange: exchange.into(),
                    kind: "fanout".into(),
                    passive: false,
                    durable: true,
                    auto_delete: false,
                    internal: false,
                    arguments: FieldTable::default(),
                }),
            );
            for queue in queues {
                self.ask(
                    0,
                    Ask::Bind(BindingRequest {
                        source: exchange.into(),
                        destination: Destination::Queue(QueueName::new(queue)),
                        key: RoutingKey::new(b""),
                        arguments: FieldTable::default(),
                    }),
                );
            }
        }
    }

    fn declare_queue(&mut self, name: &str, arguments: FieldTable) -> QueueId {
        self.ask(
            0,
            Ask::DeclareQueue(DeclareQueue {
                queue: name.into(),
                passive: false,
                durable: true,
                exclusive: false,
                auto_delete: false,
                arguments,
            }),
        );
        self.queue(name).unwrap()
    }

    fn queue(&self, name: &str) -> Option<QueueId> {
        let topology = self.broker.topology.load();
        topology.vhost(&"/".into()).unwrap().queues.get(name).map(|queue| queue.id)
    }

    /// Asks and does everything it takes to be answered.
    fn ask(&mut self, peer: usize, ask: Ask) -> Answer {
        let channel = self.peers[peer].consuming;
        self.peers[peer].asked = true;
        self.peers[peer].last_answer = None;
        self.submit(peer, vec![Request::Ask { channel, ask }]);
        for _ in 0..1000 {
            if let Some(answer) = self.peers[peer].last_answer.take() {
                self.peers[peer].asked = false;
                return answer;
            }
            self.disk.set_capacity(None);
            self.write();
            self.maintain();
            while self.broker.serve_load(Duration::ZERO).unwrap() {}
            self.work_shards();
            self.listen(peer);
        }
        panic!("no answer");
    }

    fn submit(&mut self, peer: usize, mut requests: Vec<Request>) {
        let mut events = Vec::new();
        self.peers[peer].session.submit(&mut requests, &mut events, self.now);
        for event in events {
            self.hear(peer, event);
        }
        self.listen(peer);
    }

    fn listen(&mut self, peer: usize) {
        let mut events = Vec::new();
        self.peers[peer].outbox.take(&mut events);
        let mut immediate = Vec::new();
        for event in events {
            match event {
                Event::Internal(internal) => {
                    self.peers[peer].session.internal(&internal, &mut immediate, self.now);
                }
                event => self.hear(peer, event),
            }
        }
        for event in immediate {
            self.hear(peer, event);
        }
    }

    fn hear(&mut self, peer: usize, event: Event) {
        match event {
            Event::Confirm { first, last, confirmed, .. } => {
                assert!(confirmed, "no queue has a limit");
                for sequence in first..=last {
                    self.confirmed((self.peers[peer].id, sequence));
                }
            }
            Event::Routed { sequence, verdicts, .. } => {
                let key = (self.peers[peer].id, sequence);
                if verdicts == 0 {
                    self.oracle.awaited.remove(&key);
                    self.oracle.owed.remove(&key);
                } else {
                    self.oracle.owed.insert(key, verdicts);
                }
            }
            Event::Deliver(delivery) => {
                let id = self.delivered(delivery.queue, delivery.redelivered, &delivery.message);
                let message = (delivery.queue, delivery.consumer, delivery.index, id);
                self.peers[peer].held.push(message);
                let bytes = delivery.message.cost();
                self.submit(peer, vec![Request::DeliveriesSent { bytes }]);
            }
            Event::Answer { answer, .. } => self.peers[peer].last_answer = Some(answer),
            Event::Exception { exception, .. } => panic!("{exception:?}"),
            Event::ConsumerCancelled { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn confirmed(&mut self, key: (ConnectionId, u64)) {
        let owed = self.oracle.owed.get_mut(&key).expect("a confirm of something");
        *owed -= 1;
        if *owed > 0 {
            return;
        }
        let number = self.oracle.awaited.remove(&key).unwrap();
        self.watch(number, &"confirmed");
        for (_, fate) in self.oracle.fates.range_mut((number, "")..(number + 1, "")) {
            fate.confirmed = true;
        }
    }

    fn delivered(&mut self, queue: QueueId, redelivered: bool, message: &Message) -> Number {
        let number = number_of(message);
        self.watch(number, &("delivered", queue, redelivered));
        let fate = self.fate(queue, number);
        assert!(!fate.acked_durably, "message {number} comes back after its acknowledgement was on the disk");
        assert!(!fate.held, "message {number} is delivered while somebody holds it");
        fate.held = true;
        let (persistent, life) = (fate.persistent, fate.life);
        assert!(persistent || life == self.life, "message {number} was not persistent");
        number
    }

    fn fate(&mut self, queue: QueueId, number: Number) -> &mut Fate {
        let name = *self.oracle.names.get(&queue).unwrap_or(&COMES_AND_GOES);
        // A dead letter counts for the queue it died in.
        let name = if name == "dead" && self.oracle.fates.contains_key(&(number, "dying")) { "dying" } else { name };
        self.oracle.fates.get_mut(&(number, name)).unwrap_or_else(|| panic!("{number} was never published to {name}"))
    }

    fn step(&mut self) {
        self.now = self.now.plus(1);
        let peer = self.below(2);
        match self.below(16) {
            0..=4 => self.publish(peer),
            5 | 6 => self.settle(peer),
            7 => self.consume(peer),
            8 => self.get(peer),
            9 | 10 => self.write(),
            11 => self.maintain(),
            12 => _ = self.broker.serve_load(Duration::ZERO).unwrap(),
            13 => self.work_shards(),
            14 if self.below(8) == 0 => self.come_or_go(),
            14 if self.below(8) == 0 => self.purge(),
            14 => {
                let room = self.below(400_000) as u64;
                let full = (self.below(4) == 0).then_some(room);
                self.disk.set_capacity(full);
            }
            _ => {}
        }
        for peer in 0..2 {
            self.listen(peer);
        }
    }

    fn publish(&mut self, peer: usize) {
        let (exchange, key, queues) = match self.below(6) {
            0 => ("", COMES_AND_GOES, if self.queue(COMES_AND_GOES).is_some() { &[COMES_AND_GOES][..] } else { &[] }),
            1 | 2 => ("everywhere", "", &QUEUES[..3]),
            at => ("", QUEUES[at - 3], &QUEUES[at - 3..at - 2]),
        };
        for _ in 0..=self.below(20) {
            self.oracle.last += 1;
            let number = self.oracle.last;
            let persistent = self.below(5) != 0;
            let size = match self.below(12) {
                0 => 5000 + self.below(90_000),
                1 | 2 => self.below(3000),
                _ => self.below(100),
            };
            let priority = u8::try_from(self.below(5)).unwrap();
            let message = message(exchange, key, number, persistent, priority, size);
            let publishing = self.peers[peer].publishing;
            let sequence = self.peers[peer].next_sequence;
            self.peers[peer].next_sequence += 1;
            for queue in queues {
                let fate = Fate { persistent, life: self.life, ..Fate::default() };
                self.oracle.fates.insert((number, queue), fate);
            }
            self.watch(number, &("published", queues, persistent, size));
            self.oracle.awaited.insert((self.peers[peer].id, sequence), number);
            self.oracle.owed.insert((self.peers[peer].id, sequence), 1);
            let request = PublishRequest {
                channel: publishing,
                message,
                mandatory: false,
                sequence: Some(sequence),
                transactional: false,
            };
            self.submit(peer, vec![Request::Publish(request)]);
        }
    }

    fn settle(&mut self, peer: usize) {
        for _ in 0..self.below(12) {
            if self.peers[peer].held.is_empty() {
                return;
            }
            let at = if self.below(3) == 0 { self.below(self.peers[peer].held.len()) } else { 0 };
            let (queue, consumer, index, number) = self.peers[peer].held.remove(at);
            let outcome = match self.below(8) {
                0 => SettleOutcome::Requeue,
                1 => SettleOutcome::Reject,
                _ => SettleOutcome::Ack,
            };
            let dies = outcome == SettleOutcome::Reject && self.oracle.names.get(&queue) == Some(&"dying");
            self.watch(number, &(queue, index, outcome));
            let fate = self.fate(queue, number);
            fate.held = false;
            fate.acked = outcome != SettleOutcome::Requeue && !dies;
            let settlement = Settlement { queue, consumer, indexes: vec![index], outcome };
            self.submit(peer, vec![Request::Settle(settlement)]);
        }
    }

    fn consume(&mut self, peer: usize) {
        if self.below(4) != 0 {
            return;
        }
        let queue = QUEUES[self.below(4)];
        let consumer = self.peers[peer].next_consumer();
        let prefetch = u16::try_from(1 + self.below(20)).unwrap();
        let tag = format!("{}", consumer.serial);
        self.ask(
            peer,
            Ask::Consume(ConsumeRequest {
                consumer,
                queue: queue.into(),
                tag: tag.as_str().into(),
                prefetch,
                no_ack: false,
                exclusive: false,
                arguments: FieldTable::default(),
            }),
        );
    }

    fn get(&mut self, peer: usize) {
        let queue = QUEUES[self.below(4)];
        self.take(peer, queue);
    }

    /// Takes one message; whether there was one.
    fn take(&mut self, peer: usize, queue: &str) -> bool {
        let holder = self.peers[peer].getter();
        let answer = self.ask(peer, Ask::Get { queue: queue.into(), no_ack: false, holder });
        let Answer::Got { queue, index, redelivered, message, .. } = answer else { return false };
        let number = self.delivered(queue, redelivered, &message);
        self.peers[peer].held.push((queue, holder, index, number));
        self.submit(peer, vec![Request::DeliveriesSent { bytes: message.cost() }]);
        true
    }

    fn write(&mut self) {
        let written = self.broker.write_log();
        self.watch(0, &("log written", &written));
        match written {
            Ok(_) => {
                for fate in self.oracle.fates.values_mut().filter(|fate| fate.acked) {
                    fate.acked_durably = true;
                }
            }
            Err(CommitError::Failed(error)) => panic!("{error}"),
            Err(CommitError::NoSpace { .. } | CommitError::Full) => {}
        }
    }

    fn maintain(&mut self) {
        let done = self.broker.maintain_log();
        self.watch(0, &("maintained", &done));
        match done {
            Err(CommitError::Failed(error)) => panic!("{error}"),
            Ok(_) | Err(CommitError::NoSpace { .. } | CommitError::Full) => {}
        }
    }

    fn work_shards(&mut self) {
        for shard in 0..self.broker.shard_count() {
            self.broker.drive(shard, self.now);
        }
    }

    fn come_or_go(&mut self) {
        if self.queue(COMES_AND_GOES).is_none() {
            self.declare_queue(COMES_AND_GOES, FieldTable::default());
            self.must_exist = true;
            return;
        }
        self.must_exist = false;
        self.ask(0, Ask::DeleteQueue { queue: COMES_AND_GOES.into(), if_unused: false, if_empty: false });
        self.discard(COMES_AND_GOES, true);
    }

    fn purge(&mut self) {
        // What is on its way to a consumer is not purged.
        self.work_shards();
        self.listen(0);
        self.listen(1);
        let answer = self.ask(0, Ask::PurgeQueue { queue: "plain".into() });
        self.watch(0, &("purged", answer));
        self.discard("plain", false);
    }

    /// Everything published to the queue so far is not to come back, except what somebody holds.
    fn discard(&mut self, queue: &str, held: bool) {
        for ((_, name), fate) in &mut self.oracle.fates {
            if *name == queue && (held || !fate.held) {
                fate.discarded = true;
                // Answered, so on the disk.
                fate.acked_durably |= !fate.held;
            }
        }
    }

    /// The power fails, or the process is killed; and the broker starts again.
    fn crash(&mut self) {
        self.watch(0, &"crash");
        if self.below(3) == 0 {
            self.disk.kill();
        } else {
            self.disk.crash(&mut self.random);
        }
        self.disk.set_capacity(None);
        self.peers.clear();
        self.now = self.now.plus(10);
        self.life += 1;
        self.broker = open(&self.disk, self.now);
        for fate in self.oracle.fates.values_mut() {
            fate.held = false;
            // It was not on the disk: it may come back, or not.
            if fate.acked && !fate.acked_durably {
                fate.discarded = true;
                fate.acked = false;
            }
        }
        self.oracle.awaited.clear();
        self.oracle.owed.clear();
        self.meet();
        for name in QUEUES {
            let id = self.queue(name).unwrap_or_else(|| panic!("{name} was declared"));
            assert_eq!(self.oracle.names.get(&id), Some(&name), "the queue is the same one");
        }
        let comes = self.queue(COMES_AND_GOES).is_some();
        assert_eq!(comes, self.must_exist, "the queue that comes and goes");
    }

    /// Takes out everything: what was confirmed and not acknowledged is there, once.
    fn drain(&mut self) {
        let mut found: BTreeSet<(Number, &str)> = BTreeSet::new();
        for queue in QUEUES.into_iter().chain([COMES_AND_GOES]) {
            if self.queue(queue).is_none() {
                continue;
            }
            while self.take(0, queue) {
                let (_, _, _, number) = *self.peers[0].held.last().unwrap();
                let origin =
                    if queue == "dead" && self.oracle.fates.contains_key(&(number, "dying")) { "dying" } else { queue };
                assert!(found.insert((number, origin)), "message {number} is there twice");
            }
        }
        for (key, fate) in &self.oracle.fates {
            let must = fate.persistent && fate.confirmed && !fate.acked && !fate.discarded && !fate.acked_durably;
            assert!(!must || found.contains(key), "{key:?} was confirmed and is lost: {fate:?}");
        }
    }
}

impl Peer {
    fn new(broker: &Arc<Broker>, now: Timestamp) -> Self {
        let id = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(CREDIT, CREDIT));
        let mut session = Session::new(broker, &outbox, id, PEER, id.0);
        let mechanism = Mechanism::Password { user: "guest".into(), password: b"guest".to_vec(), mechanism: "PLAIN" };
        let publishing = ChannelRef { connection: id, serial: 1, number: 1 };
        let consuming = ChannelRef { connection: id, serial: 2, number: 2 };
        let mut requests = vec![
            Request::Login { mechanism },
            Request::OpenVhost("/".into()),
            Request::OpenChannel(publishing),
            Request::OpenChannel(consuming),
        ];
        session.submit(&mut requests, &mut Vec::new(), now);
        Self {
            id,
            session,
            outbox,
            publishing,
            consuming,
            next_sequence: 1,
            asked: false,
            held: Vec::new(),
            last_answer: None,
        }
    }

    fn next_consumer(&mut self) -> ConsumerId {
        self.next_sequence += 1;
        let serial = 10 + u32::try_from(self.next_sequence).unwrap();
        ConsumerId { connection: self.id, serial, channel: 2 }
    }

    fn getter(&self) -> ConsumerId {
        ConsumerId { connection: self.id, serial: 3, channel: 2 }
    }
}

fn message(exchange: &str, key: &str, number: Number, persistent: bool, priority: u8, size: usize) -> Message {
    let properties =
        Properties { delivery_mode: Some(1 + u8::from(persistent)), priority: Some(priority), ..Properties::default() };
    let mut raw = Vec::new();
    properties.encode(&mut raw);
    let properties = Properties::parse(&raw).unwrap();
    let envelope = Envelope { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + size, u8::try_from(number % 251).unwrap());
    Message::new(&mut Vec::new(), envelope, &properties, &body)
}

/// The message's number; the rest of its body must be what goes with it.
fn number_of(message: &Message) -> Number {
    let body = match message.body() {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::Slices(slices) => slices.concat(),
    };
    let number = Number::from_be_bytes(body[..8].try_into().unwrap());
    let filling = u8::try_from(number % 251).unwrap();
    assert!(body[8..].iter().all(|byte| *byte == filling), "the body of {number} is what was published");
    number
}

/// Seeds to run: as many as WARREN_SEEDS says, from WARREN_SEED on.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = variable("WARREN_SEED").unwrap_or(0);
    first..first + variable("WARREN_SEEDS").unwrap_or(usual)
}

#[test]
fn what_was_confirmed_survives_any_crash() {
    let all = seeds(10_000);
    let next = AtomicU64::new(all.start);
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| all.contains(seed)) {
            let outcome = std::panic::catch_unwind(|| run(seed));
            if let Err(panic) = outcome {
                eprintln!("WARREN_SEED={seed} WARREN_SEEDS=1");
                std::panic::resume_unwind(panic);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
}
