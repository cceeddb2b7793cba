//! What a queue does, slowly and simply: one list of messages and one line of consumers. For tests.

use std::collections::BTreeMap;

use super::*;
use crate::model::entity::{Overflow, QueueOptions};
use crate::model::ids::Timestamp;

/// Admits deliveries as long as the connection has credit, and writes down every call.
#[derive(Clone, Debug, Default)]
pub(super) struct CreditGate {
    pub(super) credit: BTreeMap<u64, usize>,
    pub(super) calls: Vec<String>,
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
pub(super) struct ModelMessage {
    pub(super) index: u64,
    pub(super) lane: u8,
    pub(super) expires: Option<u64>,
    pub(super) requeued: bool,
    pub(super) message: Message,
    pub(super) held: Option<(ConsumerId, u64)>,
    /// It has a record in the log.
    pub(super) logged: bool,
}

#[derive(Clone, Debug)]
pub(super) struct ModelHolder {
    pub(super) id: ConsumerId,
    /// None when it takes no messages: a channel's gets, or a consumer that was cancelled.
    pub(super) subscription: Option<Subscription>,
    pub(super) timed_out: bool,
}

/// Everything in order of arrival; nothing clever.
pub(super) struct Model {
    pub(super) options: QueueOptions,
    pub(super) durability: Durability,
    pub(super) messages: Vec<ModelMessage>,
    pub(super) holders: Vec<ModelHolder>,
    /// Ready consumers; the first of the highest priority is next.
    pub(super) line: Vec<ConsumerId>,
    pub(super) blocked: Vec<ConsumerId>,
    pub(super) active: Option<ConsumerId>,
    pub(super) next_index: u64,
    pub(super) used: u64,
    pub(super) finished: bool,
    /// It came back from its log, maybe with more messages than its limits allow.
    pub(super) recovered: bool,
}

impl Model {
    pub(super) fn new(options: QueueOptions, durability: Durability, now: u64) -> Self {
        Self {
            options,
            durability,
            messages: Vec::new(),
            holders: Vec::new(),
            line: Vec::new(),
            blocked: Vec::new(),
            active: None,
            next_index: 1,
            used: now,
            finished: false,
            recovered: false,
        }
    }

    pub(super) fn consumers(&self) -> usize {
        self.holders.iter().filter(|holder| holder.subscription.is_some()).count()
    }

    pub(super) fn held_by(&self, id: ConsumerId) -> usize {
        self.messages.iter().filter(|message| message.held.is_some_and(|(holder, _)| holder == id)).count()
    }

    pub(super) fn counts(&self) -> QueueCounts {
        let count = |held: bool| self.messages.iter().filter(move |message| message.held.is_some() == held);
        let bytes = |held: bool| count(held).map(|message| message.message.body_length() as u64).sum();
        QueueCounts {
            ready: count(false).count() as u64,
            unacked: count(true).count() as u64,
            consumers: self.consumers() as u64,
            ready_bytes: bytes(false),
            unacked_bytes: bytes(true),
        }
    }

    pub(super) fn head(&self) -> Option<usize> {
        let ready = (0..self.messages.len()).filter(|at| self.messages[*at].held.is_none());
        ready.min_by_key(|at| (std::cmp::Reverse(self.messages[*at].lane), self.messages[*at].index))
    }

    fn logs(&self, message: &Message) -> bool {
        self.durability == Durability::Durable && message.is_persistent()
    }

    fn dead_letter(&self, letter: ModelMessage, reason: Reason, effects: &mut Vec<Effect>) {
        if self.options.dead_letter.is_some() {
            let record = if letter.logged {
                Recorded::As(MessageIndex(letter.index))
            } else if self.logs(&letter.message) {
                Recorded::NotYet
            } else {
                Recorded::No
            };
            effects.push(Effect::DeadLetter { message: letter.message, reason, deaths: None, record });
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
            self.dead_letter(message, Reason::Expired, effects);
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
            self.dead_letter(message, Reason::MaxLength, effects);
            self.expire(now, effects);
        }
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
        effects.push(Effect::Deliver(Delivery {
            consumer,
            index,
            cost: message.cost(),
            redelivered: requeued,
            message,
        }));
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
        *self = Self { finished: true, ..Self::new(options, self.durability, 0) };
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

    fn enqueue(&mut self, now: u64, publish: Publish, gate: &mut CreditGate, effects: &mut Vec<Effect>) -> Reply {
        let message = publish.message;
        let rejected = self.options.overflow != Overflow::DropHead && self.is_over(1, message.body_length() as u64);
        if let PublishOrigin::Channel { channel, sequence } = publish.origin {
            let verdict = if rejected { Verdict::Rejected } else { Verdict::Confirmed };
            effects.push(Effect::Confirm { channel, sequence, verdict });
        }
        if rejected {
            if self.options.overflow == Overflow::RejectPublishDlx {
                let rejected = ModelMessage {
                    index: 0,
                    lane: 0,
                    expires: None,
                    requeued: false,
                    message,
                    held: None,
                    logged: false,
                };
                self.dead_letter(rejected, Reason::MaxLength, effects);
            }
            return Reply::None;
        }
        let index = self.next_index;
        self.next_index += 1;
        let ttls = [self.options.message_ttl_ms, publish.expiration_ms];
        let expires = ttls.iter().flatten().min().map(|ttl| now + ttl);
        let lane = message.priority().min(self.options.max_priority.map_or(0, |max| max.max(1)));
        let was_empty = self.head().is_none();
        let logged = self.logs(&message);
        self.messages.push(ModelMessage { index, lane, expires, requeued: false, message, held: None, logged: false });
        let at = self.messages.len() - 1;
        let consumer = if was_empty { self.pick(gate) } else { None };
        if let Some(consumer) = consumer {
            self.deliver(now, at, consumer, gate, effects);
        } else if !self.options.expire_at_head_only && expires.is_some_and(|expires| expires <= now) {
            let message = self.messages.remove(at);
            self.dead_letter(message, Reason::Expired, effects);
        } else {
            self.trim(now, effects);
        }
        match self.messages.iter_mut().find(|message| message.index == index) {
            Some(message) if logged => {
                message.logged = true;
                Reply::Kept { index: MessageIndex(index), expires: expires.map(Timestamp) }
            }
            _ => Reply::None,
        }
    }

    /// The broker was killed and started again: what has a record is back.
    pub(super) fn restart(&mut self, now: u64, delivered_through: u64) {
        let messages = std::mem::take(&mut self.messages);
        let next_index = self.next_index;
        *self = Self::new(self.options.clone(), self.durability, now);
        self.next_index = next_index;
        self.recovered = true;
        self.messages.extend(messages.into_iter().filter(|message| message.logged));
        for message in &mut self.messages {
            message.held = None;
            message.requeued = message.index <= delivered_through;
        }
    }

    fn settle(
        &mut self,
        now: u64,
        (consumer, indexes, outcome): (ConsumerId, &[MessageIndex], SettleOutcome),
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
                SettleOutcome::Ack => drop(self.messages.remove(at)),
                SettleOutcome::Requeue => {
                    self.messages[at].held = None;
                    self.messages[at].requeued = true;
                }
                SettleOutcome::Reject => {
                    let message = self.messages.remove(at);
                    self.dead_letter(message, Reason::Rejected, effects);
                }
            }
        }
        if count == 0 {
            return;
        }
        self.settled(consumer, count, gate);
        if outcome == SettleOutcome::Requeue {
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

    /// What a queue answers that is gone.
    fn reply_of_finished(command: Command, effects: &mut Vec<Effect>) -> Reply {
        match command {
            Command::Enqueue(Publish { origin: PublishOrigin::Channel { channel, sequence }, .. }) => {
                effects.push(Effect::Confirm { channel, sequence, verdict: Verdict::Confirmed });
                Reply::None
            }
            Command::Cancel(_) => Reply::Cancelled,
            Command::Delete { .. } => Reply::Deleted(0),
            Command::Subscribe(_) | Command::Get { .. } | Command::Purge | Command::Touch => Reply::NotFound,
            Command::Enqueue(_)
            | Command::Settle { .. }
            | Command::ChannelDown(_)
            | Command::ConnectionDown(_)
            | Command::Resume(_)
            | Command::Configure(_)
            | Command::Tick
            | Command::Loaded { .. } => Reply::None,
        }
    }

    pub(super) fn apply(
        &mut self,
        now: u64,
        command: Command,
        gate: &mut CreditGate,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        if self.finished {
            return Self::reply_of_finished(command, effects);
        }
        self.expire(now, effects);
        if self.recovered {
            self.trim(now, effects);
        }
        match command {
            Command::Enqueue(publish) => return self.enqueue(now, publish, gate, effects),
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
            Command::Configure(options) => {
                self.options = (*options).clone();
                self.trim(now, effects);
            }
            Command::Tick => self.tick(now, gate, effects),
            Command::Loaded { .. } => {}
        }
        Reply::None
    }
}

/// What is in the log of a queue.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) records: BTreeMap<u64, Record>,
    /// The highest index ever written.
    last: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) loaded: Loaded,
    /// It was written only to get the message out of memory.
    pub(super) transient: bool,
}

impl Disk {
    /// Writes a message that its queue kept.
    pub(super) fn append(&mut self, loaded: Loaded, transient: bool) {
        let index = loaded.index.0;
        assert!(index > self.last, "{index} comes after {}", self.last);
        self.last = index;
        self.records.insert(index, Record { loaded, transient });
    }

    pub(super) fn settle(&mut self, index: u64) {
        assert!(self.records.remove(&index).is_some(), "{index} is settled and was not in the log");
    }

    pub(super) fn settle_all(&mut self, ranges: &[IndexRange]) {
        for range in ranges {
            assert!(range.first <= range.last);
            (range.first..=range.last).for_each(|index| self.settle(index));
        }
    }

    pub(super) fn read(&self, first: u64, last: u64) -> Vec<Loaded> {
        self.records.range(first..=last).map(|(_, record)| record.loaded.clone()).collect()
    }

    /// The indexes of records that outlive a restart.
    pub(super) fn logged(&self) -> Vec<u64> {
        self.records.iter().filter(|(_, record)| !record.transient).map(|(index, _)| *index).collect()
    }

    pub(super) fn transient(&self) -> Vec<u64> {
        self.records.iter().filter(|(_, record)| record.transient).map(|(index, _)| *index).collect()
    }

    /// What a restart finds, in chunks of this many messages.
    pub(super) fn recover(&mut self, next_index: u64, delivered_through: u64, chunk: usize) -> RecoveredQueue {
        self.records.retain(|_, record| !record.transient);
        let mut lanes: BTreeMap<u8, Vec<&Loaded>> = BTreeMap::new();
        for record in self.records.values() {
            lanes.entry(record.loaded.message.priority()).or_default().push(&record.loaded);
        }
        let chunks = lanes.iter().flat_map(|(lane, messages)| messages.chunks(chunk).map(|chunk| (*lane, chunk)));
        let chunks = chunks.map(|(lane, messages)| {
            let indexes: Vec<u64> = messages.iter().map(|loaded| loaded.index.0).collect();
            let (first, last) = (indexes[0], indexes[indexes.len() - 1]);
            let is_dense = last - first + 1 == indexes.len() as u64;
            ColdChunk {
                lane,
                members: if is_dense { Members::Dense(IndexRange { first, last }) } else { Members::Sparse(indexes) },
                bytes: messages.iter().map(|loaded| loaded.message.body_length() as u64).sum(),
                length: messages.iter().map(|loaded| loaded.message.cost() as u64).sum(),
                expires: messages.iter().filter_map(|loaded| loaded.expires).min(),
            }
        });
        RecoveredQueue { next_index, delivered_through, chunks: chunks.collect() }
    }
}

/// An effect, without the bytes of its message and without the message's record.
pub(super) fn shown(effect: &Effect) -> String {
    let name = |message: &Message| String::from_utf8_lossy(message.routing_key()).into_owned();
    match effect {
        Effect::Deliver(Delivery { consumer, index, redelivered, message, .. }) => {
            format!("{} {index:?} {redelivered} to {consumer:?}", name(message))
        }
        Effect::DeadLetter { message, reason, .. } => format!("{} {reason:?}", name(message)),
        other => format!("{other:?}"),
    }
}

/// The records that dead letters leave to whoever carries them out.
pub(super) fn left_to_letters(effects: &[Effect]) -> Vec<u64> {
    let logged = |effect: &Effect| match effect {
        Effect::DeadLetter { record: Recorded::As(index), .. } => Some(index.0),
        _ => None,
    };
    effects.iter().filter_map(logged).collect()
}

pub(super) fn shown_reply(reply: &Reply) -> String {
    match reply {
        Reply::Got { index, redelivered, message, ready } => {
            let name = String::from_utf8_lossy(message.routing_key());
            format!("got {name} {index:?} {redelivered} {ready}")
        }
        other => format!("{other:?}"),
    }
}
