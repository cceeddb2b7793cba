//! Random command sequences: the queue must do exactly what a slow and simple model does that keeps one list of
//! messages and one line of consumers. With paging, loads are answered at once.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::naive_model::{CreditGate, Disk, Model, ModelMessage, left_to_letters, shown, shown_reply};
use super::tests::{message_of, tag};
use super::*;
use crate::model::entity::{DeadLetterTarget, Overflow, QueueOptions};
use crate::model::ids::Timestamp;

/// What a test does next; numbers choose among what exists.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        priority: u8,
        size: usize,
        expiration_ms: Option<u64>,
        tracked: bool,
        persistent: bool,
    },
    Settle {
        holder: usize,
        picks: Vec<usize>,
        outcome: SettleOutcome,
    },
    Subscribe {
        channel: usize,
        prefetch: u16,
        no_ack: bool,
        exclusive: bool,
        priority: i32,
    },
    Cancel(usize),
    Get {
        channel: usize,
        no_ack: bool,
    },
    Purge,
    Delete {
        if_unused: bool,
        if_empty: bool,
    },
    ChannelDown(usize),
    ConnectionDown(u64),
    /// Sets the connection's credit and resumes it.
    Credit {
        connection: u64,
        deliveries: usize,
    },
    Touch,
    /// A policy changes what the queue does.
    Configure {
        max_length: Option<u64>,
        message_ttl_ms: Option<u64>,
        overflow: Overflow,
        dead_letter: bool,
    },
    Tick,
    /// All but the last so many records can be read back.
    Flush(u64),
    PageOut(u64),
    RecordAll(bool),
    /// The queue comes back from its log, which knows it in chunks of this many messages.
    Restart(usize),
}

/// Connection and number of the channels in play.
const CHANNELS: [(u64, u16); 4] = [(1, 1), (1, 2), (2, 1), (2, 2)];

/// Where messages went, to see that each went to one place.
#[derive(Default)]
struct Ledger {
    published: u64,
    acked: u64,
    delivered_for_good: u64,
    dead: u64,
    purged: u64,
    /// The consumers that need not acknowledge.
    automatic: Vec<ConsumerId>,
    /// Options have changed, so that not every message that left was told of.
    configured: bool,
}

/// Both machines and what the steps refer to.
struct Harness {
    fifo: Fifo,
    model: Model,
    gates: [CreditGate; 2],
    disk: Disk,
    /// Loads that were answered.
    loads: u64,
    /// Something was paged out, once.
    has_paged: bool,
    now: u64,
    next_serial: u32,
    next_sequence: u64,
    consumers: Vec<ConsumerId>,
    ledger: Ledger,
}

impl Harness {
    fn new(options: QueueOptions, durability: Durability) -> Self {
        let now = 1_000_000;
        Self {
            fifo: Fifo::new(Arc::new(options.clone()), durability, Timestamp(now)),
            model: Model::new(options, durability, now),
            gates: Default::default(),
            disk: Disk::default(),
            loads: 0,
            has_paged: false,
            now,
            next_serial: 100,
            next_sequence: 1,
            consumers: Vec::new(),
            ledger: Ledger::default(),
        }
    }

    fn channel(number: usize) -> ChannelRef {
        let (connection, number) = CHANNELS[number % CHANNELS.len()];
        ChannelRef { connection: ConnectionId(connection), serial: u32::from(number), number }
    }

    fn getter(number: usize) -> ConsumerId {
        let channel = Self::channel(number);
        ConsumerId { connection: channel.connection, serial: channel.serial, channel: channel.number }
    }

    /// A consumer that once subscribed, or a channel's gets.
    fn holder(&self, number: usize) -> ConsumerId {
        let recent = &self.consumers[self.consumers.len().saturating_sub(6)..];
        let number = number % (recent.len() + CHANNELS.len());
        recent.get(number).copied().unwrap_or_else(|| Self::getter(number - recent.len()))
    }

    fn command(&mut self, step: Step) -> Command {
        match step {
            Step::Publish { priority, size, expiration_ms, tracked, persistent } => {
                let sequence = self.next_sequence;
                self.next_sequence += 1;
                self.ledger.published += 1;
                let origin = PublishOrigin::Channel { channel: Self::channel(0), sequence };
                Command::Enqueue(Publish {
                    message: message_of(&format!("m{sequence}"), priority, persistent.then_some(2), size),
                    expiration_ms,
                    origin: if tracked { origin } else { PublishOrigin::Untracked },
                    deaths: None,
                })
            }
            Step::Settle { holder, picks, outcome } => {
                let consumer = self.holder(holder);
                let held = |message: &&ModelMessage| message.held.is_some_and(|(id, _)| id == consumer);
                let held: Vec<u64> = self.model.messages.iter().filter(held).map(|m| m.index).collect();
                // One pick beyond what is held names a message that somebody else holds, or nobody.
                let pick = |pick: usize| held.get(pick % (held.len() + 1)).copied().unwrap_or(pick as u64);
                let indexes = picks.into_iter().map(|at| MessageIndex(pick(at))).collect();
                Command::Settle { consumer, indexes, outcome }
            }
            Step::Subscribe { channel, prefetch, no_ack, exclusive, priority } => {
                let consumer = ConsumerId { serial: self.next_serial, ..Self::getter(channel) };
                self.next_serial += 1;
                self.consumers.push(consumer);
                if no_ack {
                    self.ledger.automatic.push(consumer);
                }
                let tag = tag(&format!("c{}", consumer.serial));
                Command::Subscribe(Subscription {
                    consumer,
                    tag,
                    prefetch,
                    no_ack,
                    exclusive,
                    priority: priority.into(),
                    arguments: FieldTable::default(),
                })
            }
            Step::Cancel(number) => Command::Cancel(self.holder(number)),
            Step::Get { channel, no_ack } => Command::Get { holder: Self::getter(channel), no_ack },
            Step::Purge => Command::Purge,
            Step::Delete { if_unused, if_empty } => Command::Delete { if_unused, if_empty },
            Step::ChannelDown(channel) => Command::ChannelDown(Self::channel(channel)),
            Step::ConnectionDown(connection) => Command::ConnectionDown(ConnectionId(connection)),
            Step::Credit { connection, deliveries } => {
                for gate in &mut self.gates {
                    gate.credit.insert(connection, deliveries);
                }
                Command::Resume(ConnectionId(connection))
            }
            Step::Touch => Command::Touch,
            Step::Configure { max_length, message_ttl_ms, overflow, dead_letter } => {
                self.ledger.configured = true;
                let target = DeadLetterTarget { exchange: "dead".into(), routing_key: None };
                Command::Configure(Arc::new(QueueOptions {
                    max_length,
                    message_ttl_ms,
                    overflow,
                    dead_letter: dead_letter.then_some(target),
                    ..self.model.options.clone()
                }))
            }
            Step::Tick => Command::Tick,
            Step::Flush(_) | Step::PageOut(_) | Step::RecordAll(_) | Step::Restart(_) => {
                unreachable!("not a command")
            }
        }
    }

    fn step(&mut self, elapsed: u64, step: Step) {
        self.now += elapsed;
        let context = format!("{step:?} at {}", self.now);
        match step {
            Step::Flush(behind) => {
                let through = self.fifo.next_index().saturating_sub(1 + behind);
                self.fifo.flushed(MessageIndex(through));
            }
            Step::PageOut(bytes) => {
                let before = self.fifo.memory();
                let freed = self.fifo.page_out(bytes, Reach::Window);
                assert_eq!(self.fifo.memory(), before - freed, "memory is what it was less what was freed");
                self.has_paged |= freed > 0;
            }
            Step::RecordAll(all) => {
                self.fifo.record_all(all);
                self.has_paged = true;
            }
            Step::Restart(chunk) => self.restart(chunk),
            step => {
                if self.has_paged {
                    self.catch_up(&context);
                }
                return self.command_step(step);
            }
        }
        self.check(&context);
    }

    /// Lets time pass for both machines, so that what a load delays is done before the next command.
    fn catch_up(&mut self, context: &str) {
        let before = self.model.counts();
        let (reply, effects) = self.apply(&Command::Tick);
        let mut expected = Vec::new();
        self.model.apply(self.now, Command::Tick, &mut self.gates[1], &mut expected);
        let sorted = |effects: &[Effect]| {
            let mut texts: Vec<String> = effects.iter().map(shown).collect();
            texts.sort_unstable();
            texts
        };
        assert_eq!(sorted(&effects), sorted(&expected), "effects of time before {context}");
        self.gates.iter_mut().for_each(|gate| gate.calls.clear());
        self.balance(&reply, &effects, before);
        self.check(context);
    }

    /// Applies a command to the queue, answers its loads from the disk, and writes what it wants written.
    fn apply(&mut self, command: &Command) -> (Reply, Vec<Effect>) {
        let mut all = Vec::new();
        for _ in 0..100 {
            let mut loads = VecDeque::new();
            let reply = self.apply_once(command.clone(), &mut all, &mut loads);
            while let Some((first, last)) = loads.pop_front() {
                let entries = self.disk.read(first, last);
                self.apply_once(Command::Loaded { first, last, entries }, &mut all, &mut loads);
            }
            if !matches!(reply, Reply::Later) {
                return (reply, all);
            }
        }
        panic!("{command:?} is never answered");
    }

    fn apply_once(&mut self, command: Command, all: &mut Vec<Effect>, loads: &mut VecDeque<(u64, u64)>) -> Reply {
        let enqueued = match &command {
            Command::Enqueue(publish) => Some((publish.message.clone(), publish.deaths.clone())),
            _ => None,
        };
        let mut effects = Vec::new();
        let reply = self.fifo.apply(Timestamp(self.now), command, &mut self.gates[0], &mut effects);
        if let (Reply::Kept { index, expires }, Some((message, deaths))) = (&reply, enqueued) {
            let transient = !message.is_persistent() || self.model.durability == Durability::Transient;
            self.disk.append(Loaded { index: *index, message, expires: *expires, deaths }, transient);
        }
        left_to_letters(&effects).into_iter().for_each(|index| self.disk.settle(index));
        let mut settled = Vec::new();
        self.fifo.take_settled(&mut settled);
        self.disk.settle_all(&settled);
        for effect in effects {
            match effect {
                Effect::Load { first, last, bytes } => {
                    assert!(bytes > 0);
                    self.loads += 1;
                    loads.push_back((first, last));
                }
                effect => {
                    if matches!(effect, Effect::Gone) {
                        self.disk.records.clear();
                    }
                    all.push(effect);
                }
            }
        }
        assert!(loads.len() <= 4, "loads are bounded");
        if matches!(reply, Reply::Deleted(_)) {
            self.disk.records.clear();
        }
        self.fifo.check_invariants();
        reply
    }

    fn command_step(&mut self, step: Step) {
        let no_ack_get = matches!(step, Step::Get { no_ack: true, .. });
        let command = self.command(step);
        let acks = matches!(command, Command::Settle { outcome: SettleOutcome::Ack, .. });
        let before = self.model.counts();
        let context = format!("{command:?} at {}", self.now);

        let mut expected = Vec::new();
        let loads = self.loads;
        let (reply, mut effects) = self.apply(&command);
        let expected_reply = self.model.apply(self.now, command, &mut self.gates[1], &mut expected);
        if self.loads > loads {
            // What was loaded went through its time already: at the model's head this is due with the next command.
            effects.extend(self.apply(&Command::Tick).1);
            self.model.apply(self.now, Command::Tick, &mut self.gates[1], &mut expected);
        }

        let texts = |effects: &[Effect]| effects.iter().map(shown).collect::<Vec<String>>();
        assert_eq!(texts(&effects), texts(&expected), "effects of {context}");
        // A load may delay that a new message is dropped: then it has a record for a moment. Others may have one that the
        // model knows nothing of.
        if !self.has_paged || !matches!(expected_reply, Reply::None) {
            assert_eq!(shown_reply(&reply), shown_reply(&expected_reply), "reply to {context}");
            assert_eq!(left_to_letters(&effects), left_to_letters(&expected), "records of letters of {context}");
        }
        let calls = self.gates[0].calls.split_off(0);
        assert_eq!(calls, self.gates[1].calls.split_off(0), "gate calls of {context}");
        if acks {
            let settled = calls.iter().filter_map(|call| call.strip_prefix("settled ")?.rsplit(' ').next());
            self.ledger.acked += settled.map(|count| count.parse::<u64>().unwrap()).sum::<u64>();
        }
        self.ledger.delivered_for_good += u64::from(no_ack_get && matches!(reply, Reply::Got { .. }));
        self.balance(&reply, &effects, before);
        self.check(&context);
    }

    /// Compares what both machines and the disk hold.
    fn check(&self, context: &str) {
        assert_eq!(self.fifo.counts(), self.model.counts(), "counts after {context}");
        assert_eq!(self.fifo.active_consumer(), self.model.active, "active consumer after {context}");
        self.fifo.check_invariants();
        self.check_deadline(context);
        let mut logged: Vec<u64> = self.model.messages.iter().filter(|m| m.logged).map(|m| m.index).collect();
        logged.sort_unstable();
        assert_eq!(self.disk.logged(), logged, "records after {context}");
        let waits = |index: &u64| {
            self.model.messages.iter().any(|m| m.index == *index && !m.logged && m.held.is_none() && !m.requeued)
        };
        assert!(self.disk.transient().iter().all(waits), "transient records after {context}");
    }

    fn restart(&mut self, chunk: usize) {
        if self.model.finished || self.model.durability == Durability::Transient {
            return;
        }
        let before = self.model.counts();
        let delivered_through = self.fifo.delivered_through();
        let recovered = self.disk.recover(self.fifo.next_index(), delivered_through, chunk);
        let options = Arc::clone(self.fifo.options());
        self.fifo = Fifo::recovered(options, Timestamp(self.now), recovered);
        self.model.restart(self.now, delivered_through);
        self.has_paged = true;
        let after = self.model.counts();
        self.ledger.purged += before.ready + before.unacked - after.ready - after.unacked;
        self.fifo.check_invariants();
        self.catch_up("a restart");
    }

    /// Every message is in the queue or went to exactly one place.
    fn balance(&mut self, reply: &Reply, effects: &[Effect], before: QueueCounts) {
        let ledger = &mut self.ledger;
        for effect in effects {
            match effect {
                Effect::Deliver(delivery) if ledger.automatic.contains(&delivery.consumer) => {
                    ledger.delivered_for_good += 1;
                }
                Effect::DeadLetter { .. } => ledger.dead += 1,
                _ => {}
            }
        }
        match reply {
            Reply::Purged(ready) => ledger.purged += ready,
            Reply::Deleted(ready) => ledger.purged += ready + before.unacked,
            _ => {}
        }
        let counts = self.fifo.counts();
        let gone = ledger.acked + ledger.delivered_for_good + ledger.dead + ledger.purged;
        let is_counted = !ledger.configured
            && self.model.options.dead_letter.is_some()
            && self.model.options.overflow != Overflow::RejectPublish
            && !self.model.finished;
        if is_counted {
            assert_eq!(ledger.published, gone + counts.ready + counts.unacked, "messages were lost or doubled");
        }
    }

    /// The announced deadline is not after anything that is due.
    fn check_deadline(&self, context: &str) {
        let model = &self.model;
        let expiries = model.messages.iter().filter(|message| message.held.is_none());
        let expiries: Vec<u64> = if model.options.expire_at_head_only {
            model.head().and_then(|head| model.messages[head].expires).into_iter().collect()
        } else {
            expiries.filter_map(|message| message.expires).collect()
        };
        let timeouts = model.options.consumer_timeout_ms.into_iter().flat_map(|timeout| {
            let reported = |id| model.holders.iter().any(|holder| holder.id == id && holder.timed_out);
            let held = model.messages.iter().filter_map(|message| message.held);
            held.filter(move |(id, _)| !reported(*id)).map(move |(_, since)| since + timeout)
        });
        let lease = model.options.expires_ms.filter(|_| model.consumers() == 0 && !model.finished);
        let due = expiries.into_iter().chain(timeouts).chain(lease.map(|lease| model.used + lease)).min();
        match (self.fifo.next_deadline(), due) {
            (Some(deadline), Some(due)) => assert!(deadline.0 <= due, "deadline {deadline:?} of {due} after {context}"),
            (None, Some(due)) => panic!("no deadline for {due} after {context}"),
            (_, None) => {}
        }
    }
}

fn options() -> impl Strategy<Value = QueueOptions> {
    let time = |range: std::ops::Range<u64>| prop_oneof![Just(None), range.prop_map(Some)];
    let limits = (time(0..6), time(0..20), prop_oneof![Just(0u8), Just(1), Just(2)]);
    let kinds = (prop_oneof![3 => Just(None), 1 => (0u8..5).prop_map(Some)], any::<bool>(), any::<bool>());
    let rare = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), prop::bool::weighted(0.3));
    (time(0..40), time(10..80), limits, kinds, rare, time(5..60)).prop_map(
        |(message_ttl_ms, expires_ms, limits, kinds, rare, consumer_timeout_ms)| QueueOptions {
            message_ttl_ms,
            expires_ms: expires_ms.filter(|_| kinds.2),
            dead_letter: kinds.1.then(|| DeadLetterTarget { exchange: "dlx".into(), routing_key: None }),
            max_length: limits.0,
            max_length_bytes: limits.1,
            overflow: [Overflow::DropHead, Overflow::RejectPublish, Overflow::RejectPublishDlx][usize::from(limits.2)],
            max_priority: kinds.0,
            single_active_consumer: rare.0,
            auto_delete: rare.1,
            consumer_timeout_ms,
            expire_at_head_only: rare.2,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let outcome =
        prop_oneof![3 => Just(SettleOutcome::Ack), 2 => Just(SettleOutcome::Requeue), 1 => Just(SettleOutcome::Reject)];
    let expiration = prop_oneof![3 => Just(None), 1 => (0u64..50).prop_map(Some)];
    prop_oneof![
        12 => (0u8..6, 0usize..6, expiration, any::<bool>(), any::<bool>()).prop_map(
            |(priority, size, expiration_ms, tracked, persistent)| {
                Step::Publish { priority, size, expiration_ms, tracked, persistent }
            }
        ),
        8 => (0usize..20, prop::collection::vec(0usize..40, 1..5), outcome)
            .prop_map(|(holder, picks, outcome)| Step::Settle { holder, picks, outcome }),
        4 => (0usize..4, 0u16..4, any::<bool>(), prop::bool::weighted(0.1), -1i32..2)
            .prop_map(|(channel, prefetch, no_ack, exclusive, priority)| {
                Step::Subscribe { channel, prefetch, no_ack, exclusive, priority }
            }),
        2 => (0usize..20).prop_map(Step::Cancel),
        4 => (0usize..4, any::<bool>()).prop_map(|(channel, no_ack)| Step::Get { channel, no_ack }),
        1 => Just(Step::ChannelDown(0)),
        1 => (0usize..4).prop_map(Step::ChannelDown),
        1 => (1u64..3).prop_map(Step::ConnectionDown),
        3 => (1u64..3, 0usize..5).prop_map(|(connection, deliveries)| Step::Credit { connection, deliveries }),
        1 => Just(Step::Touch),
        1 => (prop::option::of(0u64..6), prop::option::of(0u64..40), overflow(), any::<bool>()).prop_map(
            |(max_length, message_ttl_ms, overflow, dead_letter)| {
                Step::Configure { max_length, message_ttl_ms, overflow, dead_letter }
            }
        ),
        3 => Just(Step::Tick),
    ]
}

fn overflow() -> impl Strategy<Value = Overflow> {
    prop_oneof![Just(Overflow::DropHead), Just(Overflow::RejectPublish), Just(Overflow::RejectPublishDlx)]
}

/// Steps that end things, which most sequences do without.
fn last_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Purge),
        (any::<bool>(), any::<bool>()).prop_map(|(if_unused, if_empty)| Step::Delete { if_unused, if_empty }),
    ]
}

/// What happens to a queue with a log under it. Bodies are big, so that few messages fill a block.
fn paged_step() -> impl Strategy<Value = Step> {
    let expiration = prop_oneof![3 => Just(None), 1 => (0u64..80).prop_map(Some)];
    let size = prop::sample::select(vec![0usize, 1, 60_000, 100_000, 150_000, 300_000]);
    prop_oneof![
        30 => (prop_oneof![3 => Just(0u8), 1 => 0u8..6], size, expiration, prop::bool::weighted(0.9)).prop_map(
            |(priority, size, expiration_ms, persistent)| {
                Step::Publish { priority, size, expiration_ms, tracked: false, persistent }
            }
        ),
        5 => (0u64..5).prop_map(Step::Flush),
        8 => prop_oneof![1u64..400_000, Just(u64::MAX)].prop_map(Step::PageOut),
        2 => any::<bool>().prop_map(Step::RecordAll),
        1 => (1usize..6).prop_map(Step::Restart),
        20 => step().prop_filter("publishes are above", |step| !matches!(step, Step::Publish { .. })),
        1 => Just(Step::Purge),
    ]
}

/// Options under which queues get long enough to be paged out.
fn paged_options() -> impl Strategy<Value = QueueOptions> {
    let rarely = prop::bool::weighted(0.25);
    (options(), any::<bool>(), rarely, 8u64..40).prop_map(|(options, is_plain, is_limited, limit)| {
        let options = QueueOptions { expires_ms: None, auto_delete: false, ..options };
        QueueOptions {
            message_ttl_ms: options.message_ttl_ms.filter(|_| !is_plain).map(|ttl| ttl * 5),
            max_length: options.max_length.filter(|_| is_limited).map(|_| limit),
            max_length_bytes: options.max_length_bytes.filter(|_| is_limited).map(|_| limit * 100_000),
            ..options
        }
    })
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![4 => Just(Durability::Durable), 1 => Just(Durability::Transient)]
}

fn run(options: QueueOptions, durability: Durability, steps: Vec<(u64, Step)>) {
    let mut harness = Harness::new(options, durability);
    for (elapsed, step) in steps {
        harness.step(elapsed, step);
    }
}

fn elapsed() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0u64), 3 => 1u64..8, 1 => 8u64..60]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_does_what_the_model_does(
        options in options(),
        durability in durability(),
        first in prop::collection::vec((elapsed(), step()), 1..80),
        middle in (elapsed(), last_step()),
        last in prop::collection::vec((elapsed(), step()), 0..30),
    ) {
        run(options, durability, first.into_iter().chain([middle]).chain(last).collect());
    }

    #[test]
    fn a_plain_queue_does_what_the_model_does(
        max_priority in prop_oneof![Just(None), Just(Some(3u8))],
        durability in durability(),
        steps in prop::collection::vec((elapsed(), step()), 1..150),
    ) {
        run(QueueOptions { max_priority, ..QueueOptions::default() }, durability, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_paged_queue_does_what_the_model_does(
        options in paged_options(),
        durability in durability(),
        steps in prop::collection::vec((elapsed(), paged_step()), 50..200),
    ) {
        run(options, durability, steps);
    }
}
