//! The classic queue: ready messages in order, deliveries to consumers, limits, expiry, and its own end.
//!
//! `checkout` hands messages to consumers, and `Command::Get` to those who ask; nothing else does. After every command
//! either no message is ready or no consumer is, except for consumers that the gate refused and that wait for `Resume`.

mod paging;

use std::iter;
use std::sync::Arc;

use super::backlog::{Entry, NEVER, Taken};
use super::consumer::{Activity, Consumers, Turn};
use super::limits::{self, ExpiryRule};
use super::ready::{ForHead, Ready};
use super::record::Records;
use super::tally::Tally;
use super::unacked::{Unacked, UnackedMap};
use super::{
    AckMode, Command, Durability, Effect, Gate, IndexRange, Publish, PublishOrigin, QueueCounts, Reach, Reason,
    Recorded, Reply, Stored, Verdict,
};
use crate::model::consumer::ConsumerView;
use crate::model::entity::{Overflow, QueueOptions};
use crate::model::ids::{ConsumerId, MessageIndex, Timestamp};
use crate::model::message::{Arrival, Message};
use crate::model::request::{Delivery, SettleOutcome};

/// Consumer timeouts of more unacknowledged deliveries than this are found up to a sixteenth of the timeout late, so
/// that looking for them stays cheap.
const EXACT_TIMEOUTS_MAX: usize = 1024;

/// Messages that one command drops because they expired or are too many. The rest follows at the next `Tick`, which is due
/// at once: a million letters are not to be made, nor a million messages freed, in one go.
const DROPS_MAX: u32 = 1024;

/// A classic queue.
#[derive(Debug)]
pub struct Fifo {
    options: Arc<QueueOptions>,
    ready: Ready,
    unacked: UnackedMap,
    consumers: Consumers,
    records: Records,
    next_index: u64,
    /// The highest index ever handed to a consumer or get; 0 for none.
    delivered_through: u64,
    /// When the queue was last used, for its expiry.
    used: Timestamp,
    /// No delivery times out before this.
    next_timeout: Timestamp,
    /// Records up to this index can be read back.
    flushed: u64,
    /// Something may have become possible to page out since nothing was.
    may_page_out: bool,
    /// Somebody has got a message, or tried to, since the queue last paged out.
    is_polled: bool,
    reach: Reach,
    /// Whether the current command needs messages at the head, or will soon.
    head_needed: ForHead,
    /// What is left of `DROPS_MAX` for the current command.
    drops_left: u32,
    /// There are more messages than the limits allow.
    untrimmed: bool,
    tally: Tally,
    /// Deleted or gone.
    finished: bool,
}

impl Fifo {
    #[must_use]
    pub fn new(options: Arc<QueueOptions>, durability: Durability, now: Timestamp) -> Self {
        let activity = if options.single_active_consumer { Activity::Single } else { Activity::All };
        Self {
            ready: Ready::new(limits::priority_max(&options), ExpiryRule::of(&options), durability),
            unacked: UnackedMap::default(),
            consumers: Consumers::new(activity),
            records: Records::new(durability),
            next_index: 1,
            delivered_through: 0,
            used: now,
            next_timeout: NEVER,
            flushed: 0,
            may_page_out: false,
            is_polled: false,
            reach: Reach::Window,
            head_needed: ForHead::Idle,
            drops_left: 0,
            untrimmed: false,
            tally: Tally::default(),
            finished: false,
            options,
        }
    }

    /// Carries out one command. The reply is for whoever sent it and precedes the effects: a consumer hears that it is
    /// subscribed before its first delivery. Effects are appended.
    ///
    /// When the queue was deleted or is gone, publishes are confirmed and dropped, and all else finds nothing.
    pub fn apply(
        &mut self,
        now: Timestamp,
        command: Command,
        gate: &mut impl Gate,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        if self.finished {
            return answer_finished(&command, effects);
        }
        self.head_needed = ForHead::Idle;
        self.drops_left = DROPS_MAX;
        self.expire(now, effects);
        if self.ready.has_cold() {
            return self.apply_to_cold(now, command, gate, effects);
        }
        self.carry_out(now, command, gate, effects)
    }

    /// Carries out a command when some messages are not in memory; no command makes that so.
    #[cold]
    fn apply_to_cold(
        &mut self,
        now: Timestamp,
        command: Command,
        gate: &mut impl Gate,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        self.trim(now, effects);
        let reply = self.carry_out(now, command, gate, effects);
        self.request_loads(effects);
        reply
    }

    #[inline(never)]
    fn carry_out(
        &mut self,
        now: Timestamp,
        command: Command,
        gate: &mut impl Gate,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        match command {
            Command::Enqueue(publish) => return self.enqueue(now, publish, gate, effects),
            Command::Settle { consumer, indexes, outcome } => {
                self.settle(now, consumer, &indexes, outcome, gate, effects);
            }
            Command::Subscribe(subscription) => {
                if let Err(refusal) = self.consumers.subscribe(subscription) {
                    return Reply::Refused(refusal);
                }
                self.checkout(now, gate, effects);
                return Reply::Subscribed;
            }
            Command::Cancel(consumer) => {
                self.cancel(now, consumer, gate, effects);
                return Reply::Cancelled;
            }
            Command::Get { holder, no_ack } => return self.get(now, holder, no_ack, gate),
            Command::Purge => return Reply::Purged(self.purge()),
            Command::Delete { if_unused, if_empty } => return self.delete(if_unused, if_empty, gate, effects),
            Command::ChannelDown(channel) => {
                let of_channel = |id: ConsumerId| id.connection == channel.connection && id.channel == channel.number;
                self.down(now, of_channel, gate, effects);
            }
            Command::ConnectionDown(connection) => {
                self.down(now, |id| id.connection == connection, gate, effects);
            }
            Command::Resume(connection) => {
                self.consumers.resume(connection);
                self.checkout(now, gate, effects);
            }
            Command::Touch => {
                self.used = now;
                return Reply::Counts(self.counts());
            }
            Command::Configure(options) => {
                self.options = options;
                self.trim(now, effects);
            }
            Command::Tick => self.tick(now, gate, effects),
            Command::Loaded { first, last, entries } => {
                self.loaded(now, IndexRange { first, last }, entries, gate, effects);
            }
        }
        Reply::None
    }

    /// When the next `Tick` is due, if nothing else happens: for a message's expiry, a consumer's timeout or the end of
    /// the queue's lease. May be too early, never too late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.finished {
            return None;
        }
        if self.untrimmed {
            return Some(Timestamp(0));
        }
        let deadline = self.ready.next_expiry().min(self.next_timeout).min(self.lease_end());
        (deadline != NEVER).then_some(deadline)
    }

    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        QueueCounts {
            ready: self.ready.len(),
            unacked: self.unacked.len() as u64,
            consumers: self.consumers.len() as u64,
            ready_bytes: self.ready.bytes(),
            unacked_bytes: self.unacked.weight().bytes,
        }
    }

    /// Where the messages are.
    #[must_use]
    pub fn stored(&self) -> Stored {
        let (cold, cold_bytes) = self.ready.cold();
        Stored { persistent: self.records.persistent(), cold, cold_bytes }
    }

    /// What the queue has done since it is in this process.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// When the message at the head came; none when there is no message, or it is not known.
    #[must_use]
    pub fn head_arrival(&self) -> Option<Arrival> {
        self.ready.head_arrival()
    }

    /// The message at the head, if it is in memory.
    #[must_use]
    pub fn head_message(&self) -> Option<&Message> {
        self.ready.head_message()
    }

    /// Whether some consumer could take a message.
    #[must_use]
    pub fn has_waiting_consumer(&self) -> bool {
        self.consumers.is_waiting()
    }

    /// The lane of a message in this queue: its priority, as far as the queue tells them apart.
    #[must_use]
    pub fn lane_of(&self, message: &Message) -> u8 {
        message.priority().min(limits::priority_max(&self.options))
    }

    #[must_use]
    pub fn options(&self) -> &Arc<QueueOptions> {
        &self.options
    }

    /// The consumer that is served, of a queue with a single active consumer.
    #[must_use]
    pub fn active_consumer(&self) -> Option<ConsumerId> {
        self.consumers.active()
    }

    /// The consumers in order of registration.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerView> {
        self.consumers.views()
    }

    /// Panics when the queue's books do not balance. Looks at every message: for tests and simulation.
    pub fn check_invariants(&self) {
        self.ready.check_invariants();
        self.unacked.check_invariants();
        self.consumers.check_invariants();
        let held: usize = self
            .consumers
            .matching(|_| true)
            .into_iter()
            .filter_map(|slot| self.consumers.holder(slot))
            .map(|holder| holder.unacked)
            .sum();
        assert_eq!(held, self.unacked.len(), "holders' counts sum up to the unacknowledged messages");
        for (index, unacked) in self.unacked.iter() {
            assert!(index < self.next_index);
            assert!(self.consumers.holder(unacked.holder).is_some(), "an unacknowledged message has a holder");
        }
        if !self.finished && self.options.overflow == Overflow::DropHead {
            let is_over = limits::is_over(&self.options, &self.ready);
            let awaits = self.ready.awaits_expired(Timestamp(NEVER.0 - 1));
            assert!(
                !is_over || self.ready.is_head_cold() || awaits || self.untrimmed,
                "the queue is within its limits"
            );
        }
    }

    #[inline]
    fn enqueue(&mut self, now: Timestamp, publish: Publish, gate: &mut impl Gate, effects: &mut Vec<Effect>) -> Reply {
        let Publish { mut message, expiration_ms, origin, deaths } = publish;
        if self.options.overflow != Overflow::DropHead
            && limits::would_be_over(&self.options, &self.ready, message.body_length())
        {
            confirm(origin, Verdict::Rejected, effects);
            self.tally.refused += 1;
            if self.options.overflow == Overflow::RejectPublishDlx && self.options.dead_letter.is_some() {
                self.tally.dropped_dead_lettered += 1;
                let record = if self.records.is_logged(&message) { Recorded::NotYet } else { Recorded::No };
                effects.push(Effect::DeadLetter { message, reason: Reason::MaxLength, deaths, record });
            }
            return Reply::None;
        }
        confirm(origin, Verdict::Confirmed, effects);
        self.tally.published += 1;
        let index = self.next_index;
        self.next_index += 1;
        let expires = limits::expiry(&self.options, now, expiration_ms);
        self.records.arrive(index, &message);
        message.set_arrived(now);
        let entry = Entry { message, expires, deaths };
        self.place(now, Taken { index, redelivered: false, recorded: false, entry }, gate, effects);
        if self.records.arrived() {
            Reply::Kept { index: MessageIndex(index), expires: (expires != NEVER).then_some(expires) }
        } else {
            Reply::None
        }
    }

    /// Hands a new message to a consumer or puts it behind the others.
    #[inline]
    fn place(&mut self, now: Timestamp, taken: Taken, gate: &mut impl Gate, effects: &mut Vec<Effect>) {
        if self.ready.is_empty()
            && let Some(turn) = self.consumers.pick(gate)
        {
            return self.hand_out(now, turn, taken, gate, effects);
        }
        let Taken { index, entry, .. } = taken;
        if entry.expires <= now && !self.options.expire_at_head_only {
            return self.dead_letter(index, entry, Reason::Expired, effects);
        }
        let recorded = self.records.keep(index);
        self.ready.push(index, entry, recorded);
        self.trim(now, effects);
        if self.ready.has_cold() {
            // It may be more urgent than one that is being loaded, for which a consumer waits.
            self.checkout(now, gate, effects);
        }
    }

    fn settle(
        &mut self,
        now: Timestamp,
        consumer: ConsumerId,
        indexes: &[MessageIndex],
        outcome: SettleOutcome,
        gate: &mut impl Gate,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.consumers.find(consumer) else { return };
        let mut count = 0;
        for MessageIndex(index) in indexes {
            let Some((entry, delivered)) = self.unacked.remove(*index, slot) else { continue };
            count += 1;
            if outcome == SettleOutcome::Ack {
                self.tally.acked += 1;
                self.tally.processing.add(now.0.saturating_sub(delivered.0));
            }
            match outcome {
                SettleOutcome::Ack => self.records.left(*index, &entry.message),
                SettleOutcome::Requeue => self.ready.give_back(*index, entry),
                SettleOutcome::Reject => self.dead_letter(*index, entry, Reason::Rejected, effects),
            }
        }
        if count == 0 {
            return;
        }
        self.released(slot, consumer, count, gate);
        if outcome == SettleOutcome::Requeue {
            self.trim(now, effects);
        }
        self.checkout(now, gate, effects);
    }

    fn cancel(&mut self, now: Timestamp, consumer: ConsumerId, gate: &mut impl Gate, effects: &mut Vec<Effect>) {
        let Some(slot) = self.consumers.find(consumer) else { return };
        if !self.consumers.leave(slot) {
            return;
        }
        if !self.ended_with_last_consumer(now, gate, effects) {
            self.checkout(now, gate, effects);
        }
    }

    fn get(&mut self, now: Timestamp, holder: ConsumerId, no_ack: bool, gate: &mut impl Gate) -> Reply {
        self.used = now;
        self.is_polled = true;
        if self.ready.is_empty() {
            self.tally.get_empty += 1;
            return Reply::Empty;
        }
        if self.has_expired(now) {
            return Reply::Later;
        }
        self.head_needed = ForHead::Needed;
        let Some(taken) = self.ready.pop() else { return Reply::Later };
        let message = taken.entry.message.clone();
        let mode = if no_ack { AckMode::Automatic } else { AckMode::Manual };
        gate.spend(holder, message.cost(), mode);
        self.delivered_through = self.delivered_through.max(taken.index);
        self.count_delivery(now, taken.redelivered, &taken.entry.message);
        match mode {
            AckMode::Manual => self.tally.got += 1,
            AckMode::Automatic => self.tally.got_auto_ack += 1,
        }
        if mode == AckMode::Manual {
            let slot = self.consumers.getter(holder);
            self.hold(now, slot, taken.index, taken.entry);
        } else {
            self.records.left(taken.index, &message);
        }
        let index = MessageIndex(taken.index);
        Reply::Got { index, redelivered: taken.redelivered, message, ready: self.ready.len() }
    }

    /// Drops the ready messages; how many.
    fn purge(&mut self) -> u64 {
        let count = self.ready.clear(&mut self.records);
        let held = self.unacked.iter().filter(|(_, unacked)| self.records.is_logged(&unacked.entry.message)).count();
        self.records.set_persistent(held as u64);
        count
    }

    fn delete(&mut self, if_unused: bool, if_empty: bool, gate: &mut impl Gate, effects: &mut Vec<Effect>) -> Reply {
        if if_empty && !self.ready.is_empty() {
            return Reply::NotEmpty;
        }
        if if_unused && !self.consumers.is_empty() {
            return Reply::InUse;
        }
        let ready = self.ready.len();
        let consumers = self.consumers.views();
        self.finish(gate);
        effects.extend(
            consumers.into_iter().map(|view| Effect::ConsumerCancelled { consumer: view.consumer, tag: view.tag }),
        );
        Reply::Deleted(ready)
    }

    /// The channels of these holders are closed: their consumers end, and what they hold is ready again.
    fn down(
        &mut self,
        now: Timestamp,
        matches: impl Fn(ConsumerId) -> bool,
        gate: &mut impl Gate,
        effects: &mut Vec<Effect>,
    ) {
        let slots = self.consumers.matching(matches);
        if slots.is_empty() {
            return;
        }
        let holding: Vec<(u32, ConsumerId)> = slots
            .iter()
            .filter_map(|slot| self.consumers.holder(*slot).map(|holder| (*slot, holder)))
            .filter(|(_, holder)| holder.unacked > 0)
            .map(|(slot, holder)| (slot, holder.id))
            .collect();
        let mut consumer_left = false;
        for slot in slots {
            consumer_left |= self.consumers.leave(slot);
        }
        if consumer_left && self.ended_with_last_consumer(now, gate, effects) {
            return;
        }
        for (slot, consumer) in holding {
            let entries = self.unacked.remove_all_of(slot);
            let count = entries.len();
            for (index, entry) in entries {
                self.ready.give_back(index, entry);
            }
            self.released(slot, consumer, count, gate);
        }
        self.trim(now, effects);
        self.checkout(now, gate, effects);
    }

    fn tick(&mut self, now: Timestamp, gate: &mut impl Gate, effects: &mut Vec<Effect>) {
        if self.next_timeout <= now {
            self.time_out_consumers(now, effects);
        }
        if self.lease_end() <= now {
            self.finish(gate);
            return effects.push(Effect::Gone);
        }
        if self.untrimmed {
            self.trim(now, effects);
        }
        // What had expired was in the way.
        self.checkout(now, gate, effects);
    }

    /// Hands out ready messages as long as a consumer can take one.
    #[inline]
    fn checkout(&mut self, now: Timestamp, gate: &mut impl Gate, effects: &mut Vec<Effect>) {
        loop {
            // In head-only mode the message behind a delivered one may have expired long ago.
            self.expire(now, effects);
            if self.ready.is_empty() || self.has_expired(now) {
                return;
            }
            if self.ready.is_head_cold() {
                if self.consumers.is_waiting() {
                    self.head_needed = ForHead::Needed;
                }
                return;
            }
            let Some(turn) = self.consumers.pick(gate) else { return };
            self.head_needed = ForHead::Needed;
            let taken = self.ready.pop().expect("there are messages, and the first is in memory");
            self.hand_out(now, turn, taken, gate, effects);
        }
    }

    #[inline]
    fn hand_out(&mut self, now: Timestamp, turn: Turn, taken: Taken, gate: &mut impl Gate, effects: &mut Vec<Effect>) {
        let holder = self.consumers.holder(turn.slot).expect("whose turn it is has not left");
        let Taken { index, redelivered, entry, .. } = taken;
        let consumer = holder.id;
        let no_ack = holder.no_ack;
        self.delivered_through = self.delivered_through.max(index);
        let cost = entry.message.cost();
        let told = MessageIndex(index);
        self.count_delivery(now, redelivered, &entry.message);
        let deliver = |message| Effect::Deliver(Delivery { consumer, index: told, cost, redelivered, message });
        // Made in its place: made first and then copied costs more than all else here.
        if no_ack {
            self.tally.delivered_auto_ack += 1;
            gate.spend(consumer, cost, AckMode::Automatic);
            self.records.left(index, &entry.message);
            effects.extend(iter::once_with(|| deliver(entry.message)));
        } else {
            self.tally.delivered += 1;
            gate.spend(consumer, cost, AckMode::Manual);
            effects.extend(iter::once_with(|| deliver(entry.message.clone())));
            self.hold(now, turn.slot, index, entry);
        }
        self.consumers.served(turn);
    }

    #[inline]
    fn count_delivery(&mut self, now: Timestamp, redelivered: bool, message: &Message) {
        if redelivered {
            self.tally.redelivered += 1;
        } else {
            self.tally.in_queue.add(message.arrival().age_ms(now));
        }
    }

    /// Keeps a message until its holder settles it.
    #[inline]
    fn hold(&mut self, now: Timestamp, slot: u32, index: u64, entry: Entry) {
        if let Some(timeout_ms) = self.options.consumer_timeout_ms {
            self.next_timeout = self.next_timeout.min(now.plus(timeout_ms));
        }
        if let Some(holder) = self.consumers.holder_mut(slot) {
            holder.unacked += 1;
        }
        self.unacked.insert(index, Unacked { entry, delivered: now, holder: slot });
    }

    /// Counts deliveries that were taken out of the unacknowledged ones.
    fn released(&mut self, slot: u32, consumer: ConsumerId, count: usize, gate: &mut impl Gate) {
        gate.settled(consumer, count);
        self.consumers.settled(slot, count);
        if self.unacked.is_empty() {
            self.next_timeout = NEVER;
        }
    }

    /// Lets the messages go whose time has come.
    #[inline]
    fn expire(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.ready.next_expiry() <= now {
            while self.drops_left > 0
                && let Some((index, entry)) = self.ready.take_expired(now)
            {
                self.drops_left -= 1;
                self.dead_letter(index, entry, Reason::Expired, effects);
            }
        }
    }

    /// Whether messages are left that are to expire first: the command has dropped enough.
    #[inline]
    fn has_expired(&self, now: Timestamp) -> bool {
        self.ready.next_expiry() <= now
    }

    /// Brings the ready messages back within the limits, from the head on, after some were added.
    #[inline]
    fn trim(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.expire(now, effects);
        self.untrimmed = false;
        if self.options.overflow == Overflow::DropHead {
            while limits::is_over(&self.options, &self.ready) {
                // What has expired makes room, and is not in memory yet.
                if self.ready.awaits_expired(now) {
                    break;
                }
                if self.drops_left == 0 {
                    self.untrimmed = true;
                    break;
                }
                self.drops_left -= 1;
                let Some(taken) = self.ready.pop() else {
                    self.head_needed = ForHead::Needed;
                    break;
                };
                self.dead_letter(taken.index, taken.entry, Reason::MaxLength, effects);
                // The head that comes after it may have expired, and has then died of that; a load in between or not.
                self.expire(now, effects);
            }
        }
    }

    /// Lets a message go, as a dead letter if there is a place for those.
    fn dead_letter(&mut self, index: u64, entry: Entry, reason: Reason, effects: &mut Vec<Effect>) {
        let Entry { message, deaths, .. } = entry;
        let tally = &mut self.tally;
        let (discarded, dead_lettered) = match reason {
            Reason::Expired => (&mut tally.expired_discarded, &mut tally.expired_dead_lettered),
            Reason::MaxLength => (&mut tally.dropped_discarded, &mut tally.dropped_dead_lettered),
            Reason::Rejected | Reason::DeliveryLimit => {
                (&mut tally.rejected_discarded, &mut tally.rejected_dead_lettered)
            }
        };
        if self.options.dead_letter.is_some() {
            *dead_lettered += 1;
            let record = self.records.release(index, &message);
            effects.push(Effect::DeadLetter { message, reason, deaths, record });
        } else {
            *discarded += 1;
            self.records.left(index, &message);
        }
    }

    /// Reports each consumer once that left a delivery unanswered for too long.
    fn time_out_consumers(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(timeout_ms) = self.options.consumer_timeout_ms else { return };
        let mut next = NEVER;
        let mut late: Vec<(u64, u32)> = Vec::new();
        for (_, unacked) in self.unacked.iter() {
            let Some(holder) = self.consumers.holder(unacked.holder).filter(|holder| !holder.timed_out) else {
                continue;
            };
            match unacked.delivered.plus(timeout_ms) {
                deadline if deadline <= now => late.push((holder.order, unacked.holder)),
                deadline => next = next.min(deadline),
            }
        }
        late.sort_unstable();
        late.dedup();
        for (_, slot) in late {
            if let Some(holder) = self.consumers.holder_mut(slot) {
                holder.timed_out = true;
                effects.push(Effect::ConsumerTimeout { consumer: holder.id });
            }
        }
        let exact = next == NEVER || self.unacked.len() <= EXACT_TIMEOUTS_MAX;
        self.next_timeout = if exact { next } else { next.max(now.plus(timeout_ms / 16)) };
    }

    /// When the queue is gone for want of use; never while it has consumers.
    fn lease_end(&self) -> Timestamp {
        match self.options.expires_ms {
            Some(expires_ms) if self.consumers.is_empty() => self.used.plus(expires_ms),
            _ => NEVER,
        }
    }

    /// After a consumer ended: whether it was the last of an auto-delete queue, which is gone then.
    fn ended_with_last_consumer(&mut self, now: Timestamp, gate: &mut impl Gate, effects: &mut Vec<Effect>) -> bool {
        if !self.consumers.is_empty() {
            return false;
        }
        self.used = now;
        if self.options.auto_delete {
            self.finish(gate);
            effects.push(Effect::Gone);
        }
        self.options.auto_delete
    }

    /// The end: everything is dropped, and nobody owes a settlement any more.
    fn finish(&mut self, gate: &mut impl Gate) {
        for slot in self.consumers.matching(|_| true) {
            if let Some(holder) = self.consumers.holder(slot).filter(|holder| holder.unacked > 0) {
                gate.settled(holder.id, holder.unacked);
            }
        }
        self.ready.clear(&mut self.records);
        self.records.finish();
        self.unacked = UnackedMap::default();
        self.consumers = Consumers::new(Activity::All);
        self.next_timeout = NEVER;
        self.untrimmed = false;
        self.finished = true;
    }
}

/// What a queue that was deleted answers: publishes count as taken, everything else finds nothing.
fn answer_finished(command: &Command, effects: &mut Vec<Effect>) -> Reply {
    match command {
        Command::Enqueue(publish) => confirm(publish.origin, Verdict::Confirmed, effects),
        Command::Cancel(_) => return Reply::Cancelled,
        Command::Delete { .. } => return Reply::Deleted(0),
        Command::Subscribe(_) | Command::Get { .. } | Command::Purge | Command::Touch => return Reply::NotFound,
        Command::Settle { .. }
        | Command::ChannelDown(_)
        | Command::ConnectionDown(_)
        | Command::Resume(_)
        | Command::Configure(_)
        | Command::Tick
        | Command::Loaded { .. } => {}
    }
    Reply::None
}

#[inline]
fn confirm(origin: PublishOrigin, verdict: Verdict, effects: &mut Vec<Effect>) {
    if let PublishOrigin::Channel { channel, sequence } = origin {
        effects.push(Effect::Confirm { channel, sequence, verdict });
    }
}
