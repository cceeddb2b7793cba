//! Paging when the log answers late: loads are answered out of order, after purges, or with damaged records. What comes
//! out must be the head of what is in, whatever is in memory.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::naive_model::{Disk, left_to_letters};
use super::tests::{message_of, message_with_headers, tag};
use super::*;
use crate::model::entity::{DeadLetterTarget, QueueOptions};
use crate::model::ids::Timestamp;
use crate::model::message::{Envelope, Properties};

/// What happens to the queue.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        count: usize,
        priority: u8,
        size: usize,
        headers: usize,
        expiration_ms: Option<u64>,
        persistent: bool,
    },
    Settle {
        count: usize,
        outcome: SettleOutcome,
    },
    Subscribe {
        prefetch: u16,
        no_ack: bool,
    },
    ConnectionDown,
    Get {
        no_ack: bool,
    },
    Purge,
    Tick,
    Flush(u64),
    PageOut(u64, Reach),
    Reach(Reach),
    RecordAll(bool),
    /// Answers one of the loads under way; the records whose index leaves this remainder by 7 are damaged.
    Answer {
        which: usize,
        damaged: Option<u64>,
    },
    Restart(usize),
}

/// A message that is in the queue as far as anybody can see.
#[derive(Clone, Debug)]
struct Held {
    lane: u8,
    bytes: u64,
    memory: u64,
    expires: Option<Timestamp>,
    logged: bool,
    holder: Option<ConsumerId>,
    redelivered: bool,
}

struct Harness {
    fifo: Fifo,
    durability: Durability,
    priority_max: u8,
    disk: Disk,
    held: BTreeMap<u64, Held>,
    /// Loads under way: first, last.
    loads: Vec<(u64, u64)>,
    /// Records that cannot be read just now.
    damaged: Vec<u64>,
    now: u64,
    next_serial: u32,
    /// Consumers that need not acknowledge.
    automatic: Vec<ConsumerId>,
}

const GETTER: ConsumerId = ConsumerId { connection: ConnectionId(1), serial: 1, channel: 1 };

impl Harness {
    fn new(options: QueueOptions, durability: Durability) -> Self {
        Self {
            priority_max: options.max_priority.unwrap_or(0),
            fifo: Fifo::new(Arc::new(options), durability, Timestamp(0)),
            durability,
            disk: Disk::default(),
            held: BTreeMap::new(),
            loads: Vec::new(),
            damaged: Vec::new(),
            now: 0,
            next_serial: 2,
            automatic: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish { count, priority, size, headers, expiration_ms, persistent } => {
                for _ in 0..count {
                    let name = self.fifo.next_index().to_string();
                    let delivery_mode = persistent.then_some(2);
                    let message = message_with_headers(&name, priority, delivery_mode, size, headers);
                    let (origin, deaths) = (PublishOrigin::Untracked, None);
                    self.command(Command::Enqueue(Publish { message, expiration_ms, origin, deaths }));
                }
            }
            Step::Settle { count, outcome } => self.settle(count, outcome),
            Step::Subscribe { prefetch, no_ack } => self.subscribe(prefetch, no_ack),
            Step::ConnectionDown => {
                self.automatic.clear();
                drop(self.command(Command::ConnectionDown(GETTER.connection)));
            }
            Step::Get { no_ack } => drop(self.command(Command::Get { holder: GETTER, no_ack })),
            Step::Purge => drop(self.command(Command::Purge)),
            Step::Tick => drop(self.command(Command::Tick)),
            Step::Flush(behind) => {
                self.fifo.flushed(MessageIndex(self.fifo.next_index().saturating_sub(1 + behind)));
            }
            Step::Reach(reach) => self.fifo.reach(reach),
            Step::PageOut(bytes, reach) => {
                let before = self.fifo.memory();
                let freed = self.fifo.page_out(bytes, reach);
                assert_eq!(self.fifo.memory(), before - freed);
            }
            Step::RecordAll(all) => self.fifo.record_all(all),
            Step::Answer { which, damaged } => self.answer(which, damaged),
            Step::Restart(chunk) => self.restart(chunk),
        }
        self.check();
    }

    fn settle(&mut self, count: usize, outcome: SettleOutcome) {
        let unacked = self.held.iter().filter(|(_, held)| held.holder.is_some()).map(|(index, _)| *index);
        let indexes: Vec<MessageIndex> = unacked.take(count).map(MessageIndex).collect();
        for serial in 1..self.next_serial {
            let consumer = ConsumerId { serial, ..GETTER };
            self.command(Command::Settle { consumer, indexes: indexes.clone(), outcome });
        }
    }

    fn subscribe(&mut self, prefetch: u16, no_ack: bool) {
        let consumer = ConsumerId { serial: self.next_serial, ..GETTER };
        self.next_serial += 1;
        if no_ack {
            self.automatic.push(consumer);
        }
        let (tag, exclusive, priority) = (tag("c"), false, 0);
        self.command(Command::Subscribe(Subscription {
            consumer,
            tag,
            prefetch,
            no_ack,
            exclusive,
            priority,
            arguments: FieldTable::default(),
        }));
    }

    fn answer(&mut self, which: usize, damaged: Option<u64>) {
        if self.loads.is_empty() {
            return;
        }
        let (first, last) = self.loads.swap_remove(which % self.loads.len());
        let mut entries = self.disk.read(first, last);
        let is_damaged = |index: u64| damaged.is_some_and(|rest| index % 7 == rest);
        self.damaged = (first..=last).filter(|index| is_damaged(*index)).collect();
        entries.retain(|entry| !is_damaged(entry.index.0));
        self.command(Command::Loaded { first, last, entries });
        self.damaged.clear();
    }

    fn restart(&mut self, chunk: usize) {
        if self.durability == Durability::Transient {
            return;
        }
        let delivered_through = self.fifo.delivered_through();
        let recovered = self.disk.recover(self.fifo.next_index(), delivered_through, chunk);
        self.fifo = Fifo::recovered(Arc::clone(self.fifo.options()), Timestamp(self.now), recovered);
        self.loads.clear();
        self.automatic.clear();
        self.held.retain(|_, held| held.logged);
        for (index, held) in &mut self.held {
            held.holder = None;
            held.redelivered = *index <= delivered_through;
        }
    }

    /// Applies a command, after time has done its part.
    fn command(&mut self, command: Command) -> Reply {
        self.apply(Command::Tick);
        let ready = self.fifo.counts().ready;
        match &command {
            Command::Enqueue(publish) => {
                let index = self.fifo.next_index();
                let message = &publish.message;
                let held = Held {
                    lane: message.priority().min(self.priority_max),
                    bytes: message.body_length() as u64,
                    memory: message.cost() as u64,
                    expires: publish.expiration_ms.map(|ttl| Timestamp(self.now + ttl)),
                    logged: message.is_persistent() && self.durability == Durability::Durable,
                    holder: None,
                    redelivered: false,
                };
                self.held.insert(index, held);
            }
            Command::Settle { consumer, indexes, outcome } => {
                for index in indexes {
                    let Some(held) = self.held.get_mut(&index.0).filter(|held| held.holder == Some(*consumer)) else {
                        continue;
                    };
                    match outcome {
                        SettleOutcome::Ack => drop(self.held.remove(&index.0)),
                        SettleOutcome::Requeue => (held.holder, held.redelivered) = (None, true),
                        // A dead letter tells.
                        SettleOutcome::Reject => {}
                    }
                }
            }
            Command::ConnectionDown(_) => {
                for held in self.held.values_mut().filter(|held| held.holder.is_some()) {
                    (held.holder, held.redelivered) = (None, true);
                }
            }
            Command::Purge => self.held.retain(|_, held| held.holder.is_some()),
            _ => {}
        }
        let reply = self.apply(command);
        if let Reply::Purged(count) = reply {
            assert_eq!(count, ready, "what was ready is purged");
        }
        reply
    }

    /// What comes of a command must be the messages that are next.
    fn apply(&mut self, command: Command) -> Reply {
        let (enqueued, automatic_get) = match &command {
            Command::Enqueue(publish) => (Some(publish.message.clone()), false),
            Command::Get { no_ack, .. } => (None, *no_ack),
            _ => (None, false),
        };
        let mut effects = Vec::new();
        let reply = self.fifo.apply(Timestamp(self.now), command, &mut OpenGate, &mut effects);
        if let (Reply::Kept { index, expires }, Some(message)) = (&reply, enqueued) {
            let transient = !message.is_persistent() || self.durability == Durability::Transient;
            self.disk.append(Loaded { index: *index, message, expires: *expires, deaths: None }, transient);
        }
        let mut settled = Vec::new();
        self.fifo.take_settled(&mut settled);
        self.note_lost(&effects, &settled);
        self.disk.settle_all(&settled);
        left_to_letters(&effects).into_iter().for_each(|index| self.disk.settle(index));
        if let Reply::Got { index, redelivered, .. } = &reply {
            self.note_delivery(GETTER, index.0, *redelivered, automatic_get);
        }
        if matches!(reply, Reply::Later) {
            assert!(self.head().is_some());
        }
        for effect in effects {
            match effect {
                Effect::Deliver(Delivery { consumer, index, redelivered, .. }) => {
                    let automatic = self.automatic.contains(&consumer);
                    self.note_delivery(consumer, index.0, redelivered, automatic);
                }
                Effect::DeadLetter { message, reason, .. } => self.note_letter(&message, reason),
                Effect::Load { first, last, bytes } => {
                    assert!(bytes > 0 && first <= last);
                    self.loads.push((first, last));
                }
                Effect::Lost { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if matches!(reply, Reply::Later) {
            assert!(!self.loads.is_empty(), "what is to be got later is being loaded");
        }
        assert!(self.loads.len() <= 4, "loads are bounded");
        reply
    }

    /// Damaged messages whose records are settled and that nobody received are lost.
    fn note_lost(&mut self, effects: &[Effect], settled: &[IndexRange]) {
        let delivered = |index: u64| {
            let is_it = |effect: &Effect| matches!(effect, Effect::Deliver(delivery) if delivery.index.0 == index);
            effects.iter().any(is_it)
        };
        let settled = settled.iter().flat_map(|range| range.first..=range.last);
        let lost: Vec<u64> = settled.filter(|index| self.damaged.contains(index) && !delivered(*index)).collect();
        let told: u64 = effects.iter().map(|effect| if let Effect::Lost { count } = effect { *count } else { 0 }).sum();
        // A message that has a record only in its block settles it when it leaves as a dead letter.
        let letters = |index: &u64| {
            let is_it =
                |effect: &Effect| matches!(effect, Effect::DeadLetter { message, .. } if index_of(message) == *index);
            effects.iter().any(is_it)
        };
        let lost: Vec<u64> = lost.into_iter().filter(|index| !letters(index)).collect();
        assert_eq!(lost.len() as u64, told, "what is lost is told");
        for index in lost {
            assert!(self.held.remove(&index).is_some_and(|held| held.holder.is_none()));
        }
    }

    fn note_delivery(&mut self, consumer: ConsumerId, index: u64, redelivered: bool, automatic: bool) {
        assert_eq!(Some(index), self.head(), "the head is delivered");
        let held = self.held.get_mut(&index).unwrap();
        assert_eq!(held.redelivered, redelivered, "redelivered of {index}");
        if automatic {
            self.held.remove(&index);
        } else {
            held.holder = Some(consumer);
        }
    }

    fn note_letter(&mut self, message: &Message, reason: Reason) {
        let index = index_of(message);
        if reason == Reason::MaxLength {
            assert_eq!(Some(index), self.head(), "the head is dropped");
        }
        let held = self.held.remove(&index).expect("a message goes once");
        assert_eq!(held.holder.is_some(), reason == Reason::Rejected);
        assert!(reason != Reason::Expired || held.expires.is_some_and(|at| at.0 <= self.now), "{held:?}");
    }

    fn head(&self) -> Option<u64> {
        let ready = self.held.iter().filter(|(_, held)| held.holder.is_none());
        ready.min_by_key(|(index, held)| (std::cmp::Reverse(held.lane), **index)).map(|(index, _)| *index)
    }

    fn check(&self) {
        self.fifo.check_invariants();
        let count = |is_unacked: bool| self.held.values().filter(move |held| held.holder.is_some() == is_unacked);
        let counts = self.fifo.counts();
        assert_eq!((counts.ready, counts.unacked), (count(false).count() as u64, count(true).count() as u64));
        let bytes = |is_unacked: bool| count(is_unacked).map(|held| held.bytes).sum::<u64>();
        assert_eq!((counts.ready_bytes, counts.unacked_bytes), (bytes(false), bytes(true)));
        self.check_memory();
        let logged: Vec<u64> = self.held.iter().filter(|(_, held)| held.logged).map(|(index, _)| *index).collect();
        assert_eq!(self.disk.logged(), logged, "logged messages have records");
        for index in self.disk.transient() {
            let held = &self.held[&index];
            assert!(held.holder.is_none() && !held.logged, "transient records are of messages in their blocks");
        }
        if !self.automatic.is_empty() && counts.ready > 0 {
            assert!(!self.loads.is_empty(), "somebody waits and nothing is loaded");
        }
        if self.loads.is_empty()
            && let Some(due) = count(false).filter_map(|held| held.expires).min()
            && !self.fifo.options().expire_at_head_only
        {
            let deadline = self.fifo.next_deadline();
            assert!(deadline.is_some_and(|at| at <= due), "{deadline:?} for {due:?}");
        }
    }

    /// Every message in memory counts as what it takes, those on the disk alone next to nothing.
    fn check_memory(&self) {
        let all: u64 = self.held.values().map(|held| held.memory).sum();
        let cold = self.fifo.stored().cold;
        let memory = self.fifo.memory();
        if cold == 0 {
            assert_eq!(memory, all, "each message counts");
        } else {
            let cold_min = 160 * cold;
            assert!(memory < all - cold_min + 120 * cold, "{memory} of {all} with {cold} cold");
            let unacked = self.held.values().filter(|held| held.holder.is_some()).map(|held| held.memory);
            assert!(memory > unacked.sum(), "unacknowledged messages count");
        }
    }

    /// Everything goes, and leaves nothing behind.
    fn drain(&mut self) {
        self.subscribe(0, true);
        let mut rounds = 0;
        while !self.loads.is_empty() {
            self.answer(rounds, None);
            self.check();
            rounds += 1;
        }
        assert_eq!(self.fifo.counts().ready, 0, "all is delivered");
        self.settle(usize::MAX, SettleOutcome::Ack);
        self.check();
        assert!(self.held.is_empty() && self.disk.records.is_empty(), "nothing is left");
        assert_eq!(self.fifo.memory(), 0);
    }
}

/// Messages are named by their indexes.
fn index_of(message: &Message) -> u64 {
    std::str::from_utf8(message.routing_key()).unwrap().parse().unwrap()
}

fn reach() -> impl Strategy<Value = Reach> {
    prop_oneof![2 => Just(Reach::Window), 1 => Just(Reach::Head)]
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop_oneof![3 => Just(SettleOutcome::Ack), 2 => Just(SettleOutcome::Requeue), 1 => Just(SettleOutcome::Reject)];
    let expiration = prop_oneof![3 => Just(None), 1 => (0u64..200).prop_map(Some)];
    let publish = (
        1usize..5,
        prop_oneof![2 => Just(0u8), 1 => 0u8..3],
        prop::sample::select(vec![
            (1usize, 0usize),
            (60_000, 0),
            (120_000, 0),
            (300_000, 0),
            (0, 60_000),
            (10, 300_000),
        ]),
        expiration,
        prop::bool::weighted(0.9),
    );
    prop_oneof![
        24 => publish.prop_map(|(count, priority, (size, headers), expiration_ms, persistent)| {
            Step::Publish { count, priority, size, headers, expiration_ms, persistent }
        }),
        4 => (1usize..8, outcome).prop_map(|(count, outcome)| Step::Settle { count, outcome }),
        2 => (1u16..4, prop::bool::weighted(0.2)).prop_map(|(prefetch, no_ack)| Step::Subscribe { prefetch, no_ack }),
        2 => Just(Step::ConnectionDown),
        8 => any::<bool>().prop_map(|no_ack| Step::Get { no_ack }),
        1 => Just(Step::Purge),
        4 => Just(Step::Tick),
        6 => (0u64..4).prop_map(Step::Flush),
        8 => (prop_oneof![1u64..500_000, Just(u64::MAX)], reach()).prop_map(|(bytes, reach)| Step::PageOut(bytes, reach)),
        1 => reach().prop_map(Step::Reach),
        2 => any::<bool>().prop_map(Step::RecordAll),
        8 => (0usize..4, prop_oneof![9 => Just(None), 1 => (0u64..7).prop_map(Some)])
            .prop_map(|(which, damaged)| Step::Answer { which, damaged }),
        1 => (1usize..6).prop_map(Step::Restart),
    ]
}

fn options() -> impl Strategy<Value = QueueOptions> {
    let rarely = || prop::bool::weighted(0.25);
    (rarely(), any::<bool>(), rarely(), rarely(), 8u64..40).prop_map(|(priorities, at_head, length, bytes, limit)| {
        QueueOptions {
            dead_letter: Some(DeadLetterTarget { exchange: "dead".into(), routing_key: None }),
            max_priority: priorities.then_some(2),
            expire_at_head_only: at_head,
            max_length: length.then_some(limit),
            max_length_bytes: bytes.then_some(limit * 100_000),
            ..QueueOptions::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn late_loads_neither_lose_nor_double_nor_reorder(
        options in options(),
        durability in prop_oneof![4 => Just(Durability::Durable), 1 => Just(Durability::Transient)],
        steps in prop::collection::vec((0u64..10, step()), 50..200),
    ) {
        let mut harness = Harness::new(options, durability);
        for (elapsed, step) in steps {
            harness.now += elapsed;
            harness.step(step);
        }
        harness.drain();
    }
}

fn enqueue(fifo: &mut Fifo, priority: u8, size: usize) {
    let message = message_of("m", priority, Some(2), size);
    let publish = Publish { message, expiration_ms: None, origin: PublishOrigin::Untracked, deaths: None };
    let reply = fifo.apply(Timestamp(0), Command::Enqueue(publish), &mut OpenGate, &mut Vec::new());
    assert!(matches!(reply, Reply::Kept { .. }));
}

fn settled(fifo: &mut Fifo) -> Vec<IndexRange> {
    let mut settled = Vec::new();
    fifo.take_settled(&mut settled);
    settled
}

#[test]
fn a_deep_queue_takes_little_memory_and_is_read_in_big_pieces() {
    const COUNT: u64 = 50_000;
    let mut fifo = Fifo::new(Arc::default(), Durability::Durable, Timestamp(0));
    (0..COUNT).for_each(|_| enqueue(&mut fifo, 0, 12));
    assert_eq!(fifo.page_out(u64::MAX, Reach::Window), 0, "nothing can be read back yet");
    fifo.flushed(MessageIndex(COUNT));
    let before = fifo.memory();
    assert_eq!(before - fifo.page_out(u64::MAX, Reach::Window), fifo.memory());
    // The head window and the open block stay.
    assert!(fifo.memory() < 6 * 256 * 240 + COUNT / 256 * 100, "{}", fifo.memory());
    assert_eq!((fifo.counts().ready, fifo.page_out(u64::MAX, Reach::Window)), (COUNT, 0));
    let subscription = Subscription {
        consumer: GETTER,
        tag: tag("c"),
        prefetch: 0,
        no_ack: true,
        exclusive: false,
        priority: 0,
        arguments: FieldTable::default(),
    };
    let mut effects = Vec::new();
    fifo.apply(Timestamp(0), Command::Subscribe(subscription), &mut OpenGate, &mut effects);
    let (mut next, mut loads) = (1, 0);
    let mut at = 0;
    while let Some(effect) = effects.get(at).cloned() {
        at += 1;
        match effect {
            Effect::Deliver(delivery) => {
                assert_eq!(delivery.index.0, next);
                next += 1;
            }
            Effect::Load { first, last, bytes } => {
                assert!(bytes <= 1024 * 1024);
                loads += 1;
                let loaded = |index| Loaded {
                    index: MessageIndex(index),
                    message: message_of("m", 0, Some(2), 12),
                    expires: None,
                    deaths: None,
                };
                let entries = (first..=last).map(loaded).collect();
                fifo.apply(Timestamp(0), Command::Loaded { first, last, entries }, &mut OpenGate, &mut effects);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((next, fifo.memory()), (COUNT + 1, 0));
    assert!(loads <= COUNT * 236 / (1024 * 1024) * 5 / 4 + 2, "{loads} loads");
    assert_eq!(settled(&mut fifo), [IndexRange { first: 1, last: COUNT }]);
}

/// What a thousand such queues keep for their consumers is to be little.
#[test]
fn a_queue_that_reaches_for_its_head_alone_keeps_and_loads_one_block() {
    const COUNT: u64 = 20_000;
    let mut fifo = Fifo::new(Arc::default(), Durability::Durable, Timestamp(0));
    (0..COUNT).for_each(|_| enqueue(&mut fifo, 0, 1024));
    fifo.flushed(MessageIndex(COUNT));
    let consumer = Subscription {
        consumer: GETTER,
        tag: tag("c"),
        prefetch: 1,
        no_ack: false,
        exclusive: false,
        priority: 0,
        arguments: FieldTable::default(),
    };
    fifo.apply(Timestamp(0), Command::Subscribe(consumer), &mut OpenGate, &mut Vec::new());
    fifo.page_out(u64::MAX, Reach::Window);
    let wide = fifo.memory();
    assert_eq!(fifo.page_out(u64::MAX, Reach::Window), 0);
    assert!(fifo.page_out(u64::MAX, Reach::Head) > wide / 2);
    assert!(fifo.memory() < 330 * 1024 + COUNT / 256 * 112, "{}", fifo.memory());
    fifo.reach(Reach::Head);
    let mut most = 0;
    for index in 1..=1000 {
        let settle =
            Command::Settle { consumer: GETTER, indexes: vec![MessageIndex(index)], outcome: SettleOutcome::Ack };
        let mut effects = Vec::new();
        fifo.apply(Timestamp(0), settle, &mut OpenGate, &mut effects);
        for effect in effects {
            let Effect::Load { first, last, bytes } = effect else { continue };
            most = most.max(bytes);
            let loaded = |index| Loaded {
                index: MessageIndex(index),
                message: message_of("m", 0, Some(2), 1024),
                expires: None,
                deaths: None,
            };
            let entries = (first..=last).map(loaded).collect();
            fifo.apply(Timestamp(0), Command::Loaded { first, last, entries }, &mut OpenGate, &mut Vec::new());
        }
        fifo.check_invariants();
    }
    assert!((1..=330 * 1024).contains(&most), "{most} bytes at once");
}

#[test]
fn a_purge_reports_ranges() {
    let options = QueueOptions { max_priority: Some(3), ..QueueOptions::default() };
    let mut fifo = Fifo::new(Arc::new(options), Durability::Durable, Timestamp(0));
    for index in 0..20_000u32 {
        enqueue(&mut fifo, (index % 3) as u8, 12);
    }
    fifo.flushed(MessageIndex(20_000));
    fifo.apply(Timestamp(0), Command::Get { holder: GETTER, no_ack: false }, &mut OpenGate, &mut Vec::new());
    assert!(fifo.page_out(u64::MAX, Reach::Window) > 0);
    let reply = fifo.apply(Timestamp(0), Command::Purge, &mut OpenGate, &mut Vec::new());
    assert!(matches!(reply, Reply::Purged(19_999)));
    // All but the one that is unacknowledged, the first of the highest priority.
    assert_eq!(settled(&mut fifo), [IndexRange { first: 1, last: 2 }, IndexRange { first: 4, last: 20_000 }]);
}

#[test]
fn ten_million_recovered_messages_take_some_megabytes() {
    let chunk = |at: u64, sparse: bool| {
        let indexes = (0..256).map(|slot| at * 1024 + slot * 3 + 1).collect();
        let dense = IndexRange { first: at * 1024 + 1, last: at * 1024 + 256 };
        let members = if sparse { Members::Sparse(indexes) } else { Members::Dense(dense) };
        ColdChunk { lane: 0, members, bytes: 256 * 12, length: 256 * 20, expires: None }
    };
    for sparse in [false, true] {
        let chunks = (0..1000).map(|at| chunk(at, sparse)).collect();
        let queue = RecoveredQueue { next_index: 2_000_000, delivered_through: 0, chunks };
        let fifo = Fifo::recovered(Arc::default(), Timestamp(0), queue);
        assert_eq!((fifo.counts().ready, fifo.counts().ready_bytes), (256_000, 256_000 * 12));
        let expected = if sparse { 112 + 255 } else { 112 };
        assert_eq!(fifo.memory(), 1000 * expected, "some bytes for 256 messages");
        fifo.check_invariants();
    }
}

#[test]
fn chunks_of_priorities_that_are_one_to_the_queue_are_joined() {
    let mut disk = Disk::default();
    for index in 1..=600u64 {
        let message = message_of(&index.to_string(), (index % 7) as u8, Some(2), index as usize);
        disk.append(Loaded { index: MessageIndex(index), message, expires: None, deaths: None }, false);
    }
    let queue = disk.recover(601, 10, 50);
    let mut fifo = Fifo::recovered(Arc::default(), Timestamp(0), queue);
    fifo.check_invariants();
    assert_eq!((fifo.counts().ready, fifo.counts().ready_bytes), (600, 600 * 601 / 2));
    let mut next = 1;
    while next <= 600 {
        let mut effects = Vec::new();
        let get = Command::Get { holder: GETTER, no_ack: true };
        if let Reply::Got { index, redelivered, .. } = fifo.apply(Timestamp(0), get, &mut OpenGate, &mut effects) {
            assert_eq!((index.0, redelivered), (next, next <= 10));
            next += 1;
        }
        for effect in effects {
            let Effect::Load { first, last, .. } = effect else { panic!("{effect:?}") };
            let entries = disk.read(first, last);
            fifo.apply(Timestamp(0), Command::Loaded { first, last, entries }, &mut OpenGate, &mut Vec::new());
        }
        fifo.check_invariants();
    }
    assert_eq!((fifo.counts().ready_bytes, fifo.memory()), (0, 0));
}

/// More lanes than loads may be under way at a time.
#[test]
fn every_lane_of_a_recovered_queue_is_loaded() {
    let options = QueueOptions { max_priority: Some(5), ..QueueOptions::default() };
    let lane_of = |number: u64| u8::try_from((number % 7).min(5)).unwrap();
    let chunks = (0..=5)
        .map(|lane| ColdChunk {
            lane,
            members: Members::Sparse((1..=70).filter(|index| lane_of(index - 1) == lane).collect()),
            bytes: 10,
            length: 100,
            expires: None,
        })
        .collect();
    let recovered = RecoveredQueue { next_index: 71, delivered_through: 0, chunks };
    let mut queue = Fifo::recovered(Arc::new(options), Timestamp(0), recovered);
    let holder = ConsumerId { connection: ConnectionId(1), serial: 1, channel: 1 };
    let (mut loads, mut got) = (VecDeque::new(), 0);
    for _ in 0..1000 {
        let mut effects = Vec::new();
        let reply = queue.apply(Timestamp(1), Command::Get { holder, no_ack: true }, &mut OpenGate, &mut effects);
        match reply {
            Reply::Got { .. } => got += 1,
            Reply::Empty => break,
            Reply::Later => {}
            other => panic!("{other:?}"),
        }
        let note = |loads: &mut VecDeque<(u64, u64)>, effects: &mut Vec<Effect>| {
            for effect in effects.drain(..) {
                if let Effect::Load { first, last, .. } = effect {
                    loads.push_back((first, last));
                }
            }
        };
        note(&mut loads, &mut effects);
        if matches!(reply, Reply::Later) {
            let (first, last) = loads.pop_front().unwrap_or_else(|| panic!("nothing is loaded after {got} messages"));
            let entries = (first..=last)
                .map(|index| Loaded {
                    index: MessageIndex(index),
                    message: Message::new(
                        &mut Vec::new(),
                        Envelope::default(),
                        &Properties::parse(&[0x18, 0, 2, u8::try_from((index - 1) % 7).unwrap()]).unwrap(),
                        b"x",
                    ),
                    expires: None,
                    deaths: None,
                })
                .collect();
            queue.apply(Timestamp(1), Command::Loaded { first, last, entries }, &mut OpenGate, &mut effects);
            note(&mut loads, &mut effects);
        }
    }
    assert_eq!(got, 70);
}
