//! Random command sequences: the queue must do exactly what a slow and simple model does that keeps one list of
//! messages and one line of consumers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{message, tag};
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
    },
    Settle {
        holder: usize,
        picks: Vec<usize>,
        outcome: Outcome,
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
    Tick,
}

/// Connection and number of the channels in play.
const CHANNELS: [(u64, u16); 4] = [(1, 1), (1, 2), (2, 1), (2, 2)];

/// Admits deliveries as long as the connection has credit, and writes down every call.
#[derive(Clone, Debug, Default)]
struct CreditGate {
    credit: BTreeMap<u64, usize>,
    calls: Vec<String>,
}

impl Gate for CreditGate {
    fn admits(&mut self, consumer: ConsumerId) -> bool {
        let admitted = self.credit.get(&consumer.connection.0).is_none_or(|credit| *credit > 0);
        self.calls.push(format!("admits {consumer:?} {admitted}"));
        admitted
    }

    fn spend(&mut self, consumer: ConsumerId, cost: usize, mode: AckMode) {
        if let Some(credit) = self.credit.get_mut(&consumer.connection.0) {
            *credit = credit.saturating_sub(1);
        }
        self.calls.push(format!("spend {consumer:?} {cost} {mode:?}"));
    }

    fn settled(&mut self, consumer: ConsumerId, count: usize) {
        assert!(count > 0);
        self.calls.push(format!("settled {consumer:?} {count}"));
    }
}

#[derive(Clone, Debug)]
struct ModelMessage {
    index: u64,
    lane: u8,
    expires: Option<u64>,
    requeued: bool,
    message: Message,
    held: Option<(ConsumerId, u64)>,
}

#[derive(Clone, Debug)]
struct ModelHolder {
    id: ConsumerId,
    /// None when it takes no messages: a channel's gets, or a consumer that was cancelled.
    subscription: Option<Subscription>,
    timed_out: bool,
}

/// Everything in order of arrival; nothing clever.
struct Model {
    options: QueueOptions,
    messages: Vec<ModelMessage>,
    holders: Vec<ModelHolder>,
    /// Ready consumers; the first of the highest priority is next.
    line: Vec<ConsumerId>,
    blocked: Vec<ConsumerId>,
    active: Option<ConsumerId>,
    next_index: u64,
    used: u64,
    finished: bool,
}

impl Model {
    fn new(options: QueueOptions, now: u64) -> Self {
        Self {
            options,
            messages: Vec::new(),
            holders: Vec::new(),
            line: Vec::new(),
            blocked: Vec::new(),
            active: None,
            next_index: 1,
            used: now,
            finished: false,
        }
    }

    fn consumers(&self) -> usize {
        self.holders.iter().filter(|holder| holder.subscription.is_some()).count()
    }

    fn held_by(&self, id: ConsumerId) -> usize {
        self.messages.iter().filter(|message| message.held.is_some_and(|(holder, _)| holder == id)).count()
    }

    fn counts(&self) -> Counts {
        let count = |held: bool| self.messages.iter().filter(move |message| message.held.is_some() == held);
        let bytes = |held: bool| count(held).map(|message| message.message.body_length() as u64).sum();
        Counts {
            ready: count(false).count() as u64,
            unacked: count(true).count() as u64,
            consumers: self.consumers() as u64,
            ready_bytes: bytes(false),
            unacked_bytes: bytes(true),
        }
    }

    fn head(&self) -> Option<usize> {
        let ready = (0..self.messages.len()).filter(|at| self.messages[*at].held.is_none());
        ready.min_by_key(|at| (std::cmp::Reverse(self.messages[*at].lane), self.messages[*at].index))
    }

    fn dead_letter(&self, message: Message, reason: Reason, effects: &mut Vec<Effect>) {
        if self.options.dead_letter.is_some() {
            effects.push(Effect::DeadLetter { message, reason, deaths: None, logged: None });
        }
    }

    fn expire(&mut self, now: u64, effects: &mut Vec<Effect>) {
        loop {
            let expired = |at: &usize| {
                let message = &self.messages[*at];
                message.held.is_none() && message.expires.is_some_and(|expires| expires <= now)
            };
            let next = if self.options.expire_at_head_only {
                self.head().filter(expired)
            } else {
                let all = (0..self.messages.len()).filter(expired);
                all.min_by_key(|at| (self.messages[*at].expires, self.messages[*at].index))
            };
            let Some(at) = next else { return };
            let message = self.messages.remove(at);
            self.dead_letter(message.message, Reason::Expired, effects);
        }
    }

    fn is_over(&self, more: u64, more_bytes: u64) -> bool {
        let counts = self.counts();
        self.options.max_length.is_some_and(|max| counts.ready + more > max)
            || self.options.max_length_bytes.is_some_and(|max| counts.ready_bytes + more_bytes > max)
    }

    fn trim(&mut self, now: u64, effects: &mut Vec<Effect>) {
        self.expire(now, effects);
        while self.options.overflow == Overflow::DropHead && self.is_over(0, 0) {
            let Some(head) = self.head() else { break };
            let message = self.messages.remove(head);
            self.dead_letter(message.message, Reason::MaxLength, effects);
        }
        self.expire(now, effects);
    }

    fn subscription(&self, id: ConsumerId) -> Option<&Subscription> {
        self.holders.iter().find(|holder| holder.id == id)?.subscription.as_ref()
    }

    fn has_room(&self, id: ConsumerId) -> bool {
        self.subscription(id).is_some_and(|subscription| {
            subscription.no_ack || subscription.prefetch == 0 || self.held_by(id) < usize::from(subscription.prefetch)
        })
    }

    fn pick(&mut self, gate: &mut CreditGate) -> Option<ConsumerId> {
        loop {
            let priority = |id: &ConsumerId| self.subscription(*id).map(|subscription| subscription.priority);
            let highest = self.line.iter().map(priority).max()?;
            let at = self.line.iter().position(|id| priority(id) == highest)?;
            let id = self.line.remove(at);
            if gate.admits(id) {
                return Some(id);
            }
            self.blocked.push(id);
        }
    }

    fn checkout(&mut self, now: u64, gate: &mut CreditGate, effects: &mut Vec<Effect>) {
        loop {
            self.expire(now, effects);
            let Some(head) = self.head() else { return };
            let Some(consumer) = self.pick(gate) else { return };
            self.deliver(now, head, consumer, gate, effects);
        }
    }

    fn deliver(&mut self, now: u64, at: usize, consumer: ConsumerId, gate: &mut CreditGate, effects: &mut Vec<Effect>) {
        let no_ack = self.subscription(consumer).is_some_and(|subscription| subscription.no_ack);
        let ModelMessage { index, requeued, message, .. } = self.messages[at].clone();
        gate.spend(consumer, message.cost(), if no_ack { AckMode::Automatic } else { AckMode::Manual });
        if no_ack {
            self.messages.remove(at);
        } else {
            self.messages[at].held = Some((consumer, now));
        }
        if self.has_room(consumer) {
            self.line.push(consumer);
        }
        let index = MessageIndex(index);
        effects.push(Effect::Deliver(Delivery { consumer, index, redelivered: requeued, message }));
    }

    fn settled(&mut self, consumer: ConsumerId, count: usize, gate: &mut CreditGate) {
        gate.settled(consumer, count);
        let serves = !self.options.single_active_consumer || self.active == Some(consumer);
        let listed = self.line.contains(&consumer) || self.blocked.contains(&consumer);
        if serves && !listed && self.has_room(consumer) {
            self.line.push(consumer);
        }
        self.forget_idle();
    }

    fn forget_idle(&mut self) {
        let messages = &self.messages;
        self.holders.retain(|holder| {
            let holds = messages.iter().any(|message| message.held.is_some_and(|(id, _)| id == holder.id));
            holder.subscription.is_some() || holds
        });
    }

    fn leave(&mut self, ids: &[ConsumerId]) {
        self.line.retain(|id| !ids.contains(id));
        self.blocked.retain(|id| !ids.contains(id));
        for holder in &mut self.holders {
            if ids.contains(&holder.id) {
                holder.subscription = None;
            }
        }
        self.forget_idle();
        if self.active.is_some_and(|active| ids.contains(&active)) {
            let waiting = self.holders.iter().filter_map(|holder| holder.subscription.as_ref());
            // The first of the highest priority: the last maximum of the reversed list.
            let waiting: Vec<&Subscription> = waiting.collect();
            self.active = waiting.iter().rev().max_by_key(|subscription| subscription.priority).map(|s| s.consumer);
            self.line.extend(self.active);
        }
    }

    fn finish(&mut self, gate: &mut CreditGate) {
        for holder in &self.holders {
            let held = self.held_by(holder.id);
            if held > 0 {
                gate.settled(holder.id, held);
            }
        }
        let options = self.options.clone();
        *self = Self { finished: true, ..Self::new(options, 0) };
    }

    /// After consumers ended.
    fn is_gone(&mut self, now: u64, gate: &mut CreditGate, effects: &mut Vec<Effect>) -> bool {
        if self.consumers() > 0 {
            return false;
        }
        self.used = now;
        if self.options.auto_delete {
            self.finish(gate);
            effects.push(Effect::Gone);
        }
        self.options.auto_delete
    }

    fn enqueue(&mut self, now: u64, publish: Publish, gate: &mut CreditGate, effects: &mut Vec<Effect>) {
        let message = publish.message;
        let rejected = self.options.overflow != Overflow::DropHead && self.is_over(1, message.body_length() as u64);
        if let Origin::Channel { channel, sequence } = publish.origin {
            let verdict = if rejected { Verdict::Rejected } else { Verdict::Confirmed };
            effects.push(Effect::Confirm { channel, sequence, verdict });
        }
        if rejected {
            if self.options.overflow == Overflow::RejectPublishDlx {
                self.dead_letter(message, Reason::MaxLength, effects);
            }
            return;
        }
        let index = self.next_index;
        self.next_index += 1;
        let ttls = [self.options.message_ttl_ms, publish.expiration_ms];
        let expires = ttls.iter().flatten().min().map(|ttl| now + ttl);
        let lane = message.priority().min(self.options.max_priority.map_or(0, |max| max.max(1)));
        let was_empty = self.head().is_none();
        self.messages.push(ModelMessage { index, lane, expires, requeued: false, message, held: None });
        let at = self.messages.len() - 1;
        if was_empty && let Some(consumer) = self.pick(gate) {
            return self.deliver(now, at, consumer, gate, effects);
        }
        if !self.options.expire_at_head_only && expires.is_some_and(|expires| expires <= now) {
            let message = self.messages.remove(at);
            return self.dead_letter(message.message, Reason::Expired, effects);
        }
        self.trim(now, effects);
    }

    fn settle(
        &mut self,
        now: u64,
        (consumer, indexes, outcome): (ConsumerId, &[MessageIndex], Outcome),
        gate: &mut CreditGate,
        effects: &mut Vec<Effect>,
    ) {
        let mut count = 0;
        for index in indexes {
            let held = |message: &ModelMessage| {
                message.index == index.0 && message.held.is_some_and(|(holder, _)| holder == consumer)
            };
            let Some(at) = self.messages.iter().position(held) else { continue };
            count += 1;
            match outcome {
                Outcome::Ack => drop(self.messages.remove(at)),
                Outcome::Requeue => {
                    self.messages[at].held = None;
                    self.messages[at].requeued = true;
                }
                Outcome::Reject => {
                    let message = self.messages.remove(at);
                    self.dead_letter(message.message, Reason::Rejected, effects);
                }
            }
        }
        if count == 0 {
            return;
        }
        self.settled(consumer, count, gate);
        if outcome == Outcome::Requeue {
            self.trim(now, effects);
        }
        self.checkout(now, gate, effects);
    }

    fn subscribe(&mut self, subscription: Subscription) -> bool {
        let exclusive = self.holders.iter().filter_map(|h| h.subscription.as_ref()).any(|s| s.exclusive);
        let busy = self.consumers() > 0 || self.options.single_active_consumer;
        if exclusive || (subscription.exclusive && busy) {
            return false;
        }
        let id = subscription.consumer;
        self.holders.push(ModelHolder { id, subscription: Some(subscription), timed_out: false });
        if !self.options.single_active_consumer {
            self.line.push(id);
        } else if self.active.is_none() {
            self.active = Some(id);
            self.line.push(id);
        }
        true
    }

    fn get(&mut self, now: u64, id: ConsumerId, no_ack: bool, gate: &mut CreditGate) -> Reply {
        self.used = now;
        let Some(at) = self.head() else { return Reply::Empty };
        let ModelMessage { index, requeued, message, .. } = self.messages[at].clone();
        gate.spend(id, message.cost(), if no_ack { AckMode::Automatic } else { AckMode::Manual });
        if no_ack {
            self.messages.remove(at);
        } else {
            self.messages[at].held = Some((id, now));
            if !self.holders.iter().any(|holder| holder.id == id) {
                self.holders.push(ModelHolder { id, subscription: None, timed_out: false });
            }
        }
        Reply::Got { index: MessageIndex(index), redelivered: requeued, message, ready: self.counts().ready }
    }

    fn down(
        &mut self,
        now: u64,
        matches: impl Fn(ConsumerId) -> bool,
        gate: &mut CreditGate,
        effects: &mut Vec<Effect>,
    ) {
        let ids: Vec<ConsumerId> = self.holders.iter().map(|h| h.id).filter(|id| matches(*id)).collect();
        let had_consumer = ids.iter().any(|id| self.subscription(*id).is_some());
        if ids.is_empty() {
            return;
        }
        self.leave(&ids);
        if had_consumer && self.is_gone(now, gate, effects) {
            return;
        }
        for id in ids {
            let count = self.held_by(id);
            for message in &mut self.messages {
                if message.held.is_some_and(|(holder, _)| holder == id) {
                    message.held = None;
                    message.requeued = true;
                }
            }
            if count > 0 {
                self.settled(id, count, gate);
            }
        }
        self.trim(now, effects);
        self.checkout(now, gate, effects);
    }

    fn tick(&mut self, now: u64, gate: &mut CreditGate, effects: &mut Vec<Effect>) {
        if let Some(timeout) = self.options.consumer_timeout_ms {
            for holder in &mut self.holders {
                let late = self
                    .messages
                    .iter()
                    .any(|message| message.held.is_some_and(|(id, since)| id == holder.id && since + timeout <= now));
                if late && !holder.timed_out {
                    holder.timed_out = true;
                    effects.push(Effect::ConsumerTimeout { consumer: holder.id });
                }
            }
        }
        if self.options.expires_ms.is_some_and(|lease| self.consumers() == 0 && self.used + lease <= now) {
            self.finish(gate);
            effects.push(Effect::Gone);
        }
    }

    fn delete(&mut self, if_unused: bool, if_empty: bool, gate: &mut CreditGate, effects: &mut Vec<Effect>) -> Reply {
        let ready = self.counts().ready;
        if if_empty && ready > 0 {
            return Reply::NotEmpty;
        }
        if if_unused && self.consumers() > 0 {
            return Reply::InUse;
        }
        let subscriptions: Vec<Subscription> = self.holders.iter().filter_map(|h| h.subscription.clone()).collect();
        self.finish(gate);
        let cancelled = |s: Subscription| Effect::ConsumerCancelled { consumer: s.consumer, tag: s.tag };
        effects.extend(subscriptions.into_iter().map(cancelled));
        Reply::Deleted(ready)
    }

    fn apply(&mut self, now: u64, command: Command, gate: &mut CreditGate, effects: &mut Vec<Effect>) -> Reply {
        if self.finished {
            match command {
                Command::Enqueue(Publish { origin: Origin::Channel { channel, sequence }, .. }) => {
                    effects.push(Effect::Confirm { channel, sequence, verdict: Verdict::Confirmed });
                }
                Command::Cancel(_) => return Reply::Cancelled,
                Command::Delete { .. } => return Reply::Deleted(0),
                Command::Subscribe(_) | Command::Get { .. } | Command::Purge | Command::Touch => {
                    return Reply::NotFound;
                }
                _ => {}
            }
            return Reply::None;
        }
        self.expire(now, effects);
        match command {
            Command::Enqueue(publish) => self.enqueue(now, publish, gate, effects),
            Command::Settle { consumer, indexes, outcome } => {
                self.settle(now, (consumer, &indexes, outcome), gate, effects);
            }
            Command::Subscribe(subscription) => {
                if !self.subscribe(subscription) {
                    return Reply::Refused(Refusal::ExclusiveUse);
                }
                self.checkout(now, gate, effects);
                return Reply::Subscribed;
            }
            Command::Cancel(id) => {
                if self.subscription(id).is_some() {
                    self.leave(&[id]);
                    if !self.is_gone(now, gate, effects) {
                        self.checkout(now, gate, effects);
                    }
                }
                return Reply::Cancelled;
            }
            Command::Get { holder, no_ack } => return self.get(now, holder, no_ack, gate),
            Command::Purge => {
                let ready = self.counts().ready;
                self.messages.retain(|message| message.held.is_some());
                return Reply::Purged(ready);
            }
            Command::Delete { if_unused, if_empty } => return self.delete(if_unused, if_empty, gate, effects),
            Command::ChannelDown(channel) => {
                let matches = |id: ConsumerId| id.connection == channel.connection && id.channel == channel.number;
                self.down(now, matches, gate, effects);
            }
            Command::ConnectionDown(connection) => self.down(now, |id| id.connection == connection, gate, effects),
            Command::Resume(connection) => {
                let matches = |id: &ConsumerId| id.connection == connection;
                self.line.extend(self.blocked.iter().copied().filter(matches));
                self.blocked.retain(|id| !matches(id));
                self.checkout(now, gate, effects);
            }
            Command::Touch => {
                self.used = now;
                return Reply::Counts(self.counts());
            }
            Command::Tick => self.tick(now, gate, effects),
            Command::Loaded { .. } => {}
        }
        Reply::None
    }
}

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
}

/// Both machines and what the steps refer to.
struct Harness {
    fifo: Fifo,
    model: Model,
    gates: [CreditGate; 2],
    now: u64,
    next_serial: u32,
    next_sequence: u64,
    consumers: Vec<ConsumerId>,
    ledger: Ledger,
}

impl Harness {
    fn new(options: QueueOptions) -> Self {
        let now = 1_000_000;
        Self {
            fifo: Fifo::new(Arc::new(options.clone()), Durability::Transient, Timestamp(now)),
            model: Model::new(options, now),
            gates: Default::default(),
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
            Step::Publish { priority, size, expiration_ms, tracked } => {
                let sequence = self.next_sequence;
                self.next_sequence += 1;
                self.ledger.published += 1;
                let origin = Origin::Channel { channel: Self::channel(0), sequence };
                Command::Enqueue(Publish {
                    message: message(&format!("m{sequence}"), priority, size),
                    expiration_ms,
                    origin: if tracked { origin } else { Origin::Untracked },
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
                Command::Subscribe(Subscription { consumer, tag, prefetch, no_ack, exclusive, priority })
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
            Step::Tick => Command::Tick,
        }
    }

    fn step(&mut self, elapsed: u64, step: Step) {
        self.now += elapsed;
        let no_ack_get = matches!(step, Step::Get { no_ack: true, .. });
        let command = self.command(step);
        let acks = matches!(command, Command::Settle { outcome: Outcome::Ack, .. });
        let before = self.model.counts();
        let context = format!("{command:?} at {}", self.now);

        let [fifo_gate, model_gate] = &mut self.gates;
        let (mut effects, mut expected) = (Vec::new(), Vec::new());
        let reply = self.fifo.apply(Timestamp(self.now), command.clone(), fifo_gate, &mut effects);
        let expected_reply = self.model.apply(self.now, command, model_gate, &mut expected);

        assert_eq!(format!("{reply:?}"), format!("{expected_reply:?}"), "reply to {context}");
        assert_eq!(format!("{effects:#?}"), format!("{expected:#?}"), "effects of {context}");
        let (calls, expected_calls) = (fifo_gate.calls.split_off(0), model_gate.calls.split_off(0));
        assert_eq!(calls, expected_calls, "gate calls of {context}");
        let counts = self.fifo.counts();
        assert_eq!(counts, self.model.counts(), "counts after {context}");
        assert_eq!(self.fifo.active_consumer(), self.model.active, "active consumer after {context}");
        self.fifo.check_invariants();
        self.check_deadline(&context);
        if acks {
            let settled = calls.iter().filter_map(|call| call.strip_prefix("settled ")?.rsplit(' ').next());
            self.ledger.acked += settled.map(|count| count.parse::<u64>().unwrap()).sum::<u64>();
        }
        self.ledger.delivered_for_good += u64::from(no_ack_get && matches!(reply, Reply::Got { .. }));
        self.balance(&reply, &effects, before);
    }

    /// Every message is in the queue or went to exactly one place.
    fn balance(&mut self, reply: &Reply, effects: &[Effect], before: Counts) {
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
        let is_counted = self.model.options.dead_letter.is_some()
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
    let outcome = prop_oneof![3 => Just(Outcome::Ack), 2 => Just(Outcome::Requeue), 1 => Just(Outcome::Reject)];
    let expiration = prop_oneof![3 => Just(None), 1 => (0u64..50).prop_map(Some)];
    prop_oneof![
        12 => (0u8..6, 0usize..6, expiration, any::<bool>()).prop_map(|(priority, size, expiration_ms, tracked)| {
            Step::Publish { priority, size, expiration_ms, tracked }
        }),
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
        3 => Just(Step::Tick),
    ]
}

/// Steps that end things, which most sequences do without.
fn last_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Purge),
        (any::<bool>(), any::<bool>()).prop_map(|(if_unused, if_empty)| Step::Delete { if_unused, if_empty }),
    ]
}

fn run(options: QueueOptions, steps: Vec<(u64, Step)>) {
    let mut harness = Harness::new(options);
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
        first in prop::collection::vec((elapsed(), step()), 1..80),
        middle in (elapsed(), last_step()),
        last in prop::collection::vec((elapsed(), step()), 0..30),
    ) {
        run(options, first.into_iter().chain([middle]).chain(last).collect());
    }

    #[test]
    fn a_plain_queue_does_what_the_model_does(
        max_priority in prop_oneof![Just(None), Just(Some(3u8))],
        steps in prop::collection::vec((elapsed(), step()), 1..150),
    ) {
        run(QueueOptions { max_priority, ..QueueOptions::default() }, steps);
    }
}
