//! The ready messages of a queue: one lane per priority, requeued messages in front of those never delivered, and
//! what is needed to expire any of them in time.
//!
//! Within a lane most messages expire in the order they arrived, so looking at the lane's head finds them. Only a
//! message that expires before an earlier one of its lane, or that was requeued, is noted in an ordered index besides;
//! notes of messages that left otherwise are skipped when met and swept out before they outnumber the messages.
//!
//! A cold block is noted with its earliest expiry until it is asked for. While it is being loaded, neither its messages
//! nor those behind it that expire later are announced.

mod loads;
mod recovered;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::backlog::{Backlog, Entry, NEVER, Order, Standing, Taken, Totals};
use super::cold::ColdState;
use super::limits::ExpiryRule;
use super::record::{Durability, IndexRange, Settled};
use super::weight::Weight;
use crate::model::ids::Timestamp;
use crate::model::message::{Arrival, Message};
use crate::model::narrow::narrow;
pub(super) use loads::ForHead;
use loads::Loads;

/// Notes about messages that are gone are tolerated up to this number, and up to the number of messages.
const STALE_NOTES_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Ready {
    /// Lanes by priority, created when first used.
    lanes: Vec<Lane>,
    /// One bit per lane that holds messages.
    occupied: [u64; 4],
    /// The highest priority; higher ones count as this.
    priority_max: u8,
    rule: ExpiryRule,
    durability: Durability,
    len: u64,
    /// What all messages weigh when they are in memory.
    weight: Weight,
    /// Those of them that are not in memory.
    cold: Totals,
    loads: Loads,
    /// Messages up to this index may have been delivered before the broker started.
    delivered_before: u64,
    /// Records of messages that have none of their own and that left a block of which all have.
    strays: Settled,
    /// Expiry, index and lane of messages that the heads of the lanes do not announce, and of cold blocks.
    notes: BinaryHeap<Reverse<(Timestamp, u64, u8)>>,
    /// Nothing is to expire before this time.
    next_expiry: Timestamp,
}

#[derive(Debug, Default)]
struct Lane {
    /// Requeued messages, all older than the backlog.
    returned: BTreeMap<u64, Entry>,
    backlog: Backlog,
}

impl Ready {
    pub(super) fn new(priority_max: u8, rule: ExpiryRule, durability: Durability) -> Self {
        Self {
            lanes: Vec::new(),
            occupied: [0; 4],
            priority_max,
            rule,
            durability,
            len: 0,
            weight: Weight::default(),
            cold: Totals::default(),
            loads: Loads::default(),
            delivered_before: 0,
            strays: Settled::default(),
            notes: BinaryHeap::new(),
            next_expiry: NEVER,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Body bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.weight.bytes
    }

    /// `take_expired` finds nothing before this time.
    pub(super) fn next_expiry(&self) -> Timestamp {
        self.next_expiry
    }

    /// Appends a new message; `index` is above all before it. It is `recorded` when it gets a record in any case, for as
    /// long as it is here.
    pub(super) fn push(&mut self, index: u64, entry: Entry, recorded: bool) {
        let number = self.admit(&entry);
        let expires = entry.expires;
        let order = self.lanes[usize::from(number)].backlog.push_back(index, entry, recorded);
        if order == Order::Early && self.rule == ExpiryRule::Anywhere {
            self.notes.push(Reverse((expires, index, number)));
        }
        self.sweep_notes();
    }

    /// Puts a message back to the place it was taken from.
    pub(super) fn give_back(&mut self, index: u64, entry: Entry) {
        let number = self.admit(&entry);
        if entry.expires != NEVER && self.rule == ExpiryRule::Anywhere {
            self.notes.push(Reverse((entry.expires, index, number)));
        }
        self.lanes[usize::from(number)].returned.insert(index, entry);
        self.sweep_notes();
    }

    /// Takes the first message of the highest priority; none when it is cold.
    pub(super) fn pop(&mut self) -> Option<Taken> {
        let number = self.highest()?;
        let lane = &mut self.lanes[usize::from(number)];
        let taken = if let Some((index, entry)) = lane.returned.pop_first() {
            Taken { index, redelivered: true, recorded: false, entry }
        } else {
            let mut taken = lane.backlog.pop_front()?;
            taken.redelivered = taken.index <= self.delivered_before;
            taken
        };
        if taken.recorded {
            self.forget_record(taken.index, &taken.entry);
        }
        self.left(number, &taken.entry);
        Some(taken)
    }

    /// When the message at the head came; none when there is no message, or it is not known.
    pub(super) fn head_arrival(&self) -> Option<Arrival> {
        let lane = &self.lanes[usize::from(self.highest()?)];
        if let Some((_, entry)) = lane.returned.first_key_value() {
            return Some(entry.message.arrival());
        }
        match lane.backlog.cold_front() {
            Some(block) => block.arrived,
            None => lane.backlog.front().map(|(_, entry)| entry.message.arrival()),
        }
    }

    /// The message at the head, if it is in memory.
    pub(super) fn head_message(&self) -> Option<&Message> {
        let lane = &self.lanes[usize::from(self.highest()?)];
        if let Some((_, entry)) = lane.returned.first_key_value() {
            return Some(&entry.message);
        }
        let front = if lane.backlog.cold_front().is_some() { None } else { lane.backlog.front() };
        front.map(|(_, entry)| &entry.message)
    }

    /// Messages and body bytes that are in the log only.
    pub(super) fn cold(&self) -> (u64, u64) {
        (self.cold.messages, self.cold.weight.bytes)
    }

    /// Takes one message that has expired at `now`: by time, then by index; in head-only mode the head alone.
    pub(super) fn take_expired(&mut self, now: Timestamp) -> Option<(u64, Entry)> {
        if self.next_expiry > now {
            return None;
        }
        let taken = match self.rule {
            ExpiryRule::HeadOnly => self.take_expired_head(now),
            ExpiryRule::Anywhere => self.take_earliest(now),
        };
        assert!(taken.is_some() || self.next_expiry > now, "nothing that is in memory stays when it has expired");
        taken
    }

    pub(super) fn check_invariants(&self) {
        let mut len = 0;
        let mut weight = Weight::default();
        let mut cold = Totals::default();
        for (number, lane) in self.lanes.iter().enumerate() {
            lane.backlog.check_invariants();
            let returned = lane.returned.iter().map(|(index, entry)| (*index, entry));
            let messages: Vec<(u64, &Entry)> = returned.chain(lane.backlog.iter()).collect();
            assert!(messages.windows(2).all(|pair| pair[0].0 < pair[1].0), "returned messages are older");
            let is_empty = messages.is_empty() && lane.backlog.is_empty();
            assert_eq!(!is_empty, self.occupied[number / 64] & (1 << (number % 64)) != 0, "lane marked");
            for (_, entry) in &messages {
                assert_eq!(usize::from(entry.message.priority().min(self.priority_max)), number, "in its lane");
                weight += Weight::of(entry);
            }
            len += messages.len() as u64;
            // Blocks that are asked for and those behind them are not announced.
            let due = lane.returned.values().map(|entry| entry.expires).min();
            if self.rule == ExpiryRule::Anywhere {
                let due = due.into_iter().chain(lane.backlog.announced_expiry()).min();
                assert!(due.is_none_or(|due| self.next_expiry <= due), "the next expiry is a lower bound");
            }
            lane.backlog.cold_blocks().for_each(|block| cold += Totals::of(block));
        }
        assert_eq!(cold, self.cold, "cold messages and what they weigh");
        assert_eq!(len + cold.messages, self.len, "ready messages");
        assert_eq!(weight + cold.weight, self.weight, "what the ready messages weigh");
        assert!(self.notes.len() as u64 <= self.notes_max(), "notes are bounded");
        self.loads.check_invariants();
    }

    /// Counts a message in and makes its lane ready for it.
    fn admit(&mut self, entry: &Entry) -> u8 {
        let number = entry.message.priority().min(self.priority_max);
        self.make_lane(number);
        self.len += 1;
        self.weight += Weight::of(entry);
        self.next_expiry = self.next_expiry.min(entry.expires);
        number
    }

    /// Makes sure that there is such a lane, and that it counts as occupied.
    #[inline]
    fn make_lane(&mut self, number: u8) {
        let at = usize::from(number);
        if self.lanes.len() <= at {
            self.lanes.resize_with(at + 1, Lane::default);
        }
        self.occupied[at / 64] |= 1 << (at % 64);
    }

    /// Counts out a message that was removed from its lane.
    fn left(&mut self, number: u8, entry: &Entry) {
        self.len = self.len.checked_sub(1).expect("a ready message leaves once");
        self.weight -= Weight::of(entry);
        self.fewer(number);
        self.sweep_notes();
    }

    /// The lane has fewer messages than before.
    #[inline]
    fn fewer(&mut self, number: u8) {
        let at = usize::from(number);
        let lane = &self.lanes[at];
        if lane.backlog.is_empty() && lane.returned.is_empty() {
            self.occupied[at / 64] &= !(1 << (at % 64));
        }
        if self.len == 0 {
            self.next_expiry = NEVER;
            self.notes = BinaryHeap::new();
        } else if self.rule == ExpiryRule::HeadOnly {
            self.next_expiry = self.next_expiry.min(self.head_expiry());
        }
    }

    /// The highest occupied lane.
    fn highest(&self) -> Option<u8> {
        self.occupied
            .iter()
            .enumerate()
            .rev()
            .find(|(_, word)| **word != 0)
            .and_then(|(at, word)| u8::try_from(at * 64 + 63 - word.leading_zeros() as usize).ok())
    }

    /// The head, when it has expired.
    fn take_expired_head(&mut self, now: Timestamp) -> Option<(u64, Entry)> {
        loop {
            let expires = self.head_expiry();
            if expires > now {
                self.next_expiry = expires;
                return None;
            }
            if let Some(taken) = self.pop() {
                return Some((taken.index, taken.entry));
            }
            // The head is cold and may have expired.
            let number = self.highest()?;
            let first = self.lanes[usize::from(number)].backlog.cold_front()?.first;
            self.want(number, first);
        }
    }

    /// The message that expires first, when it has. Cold blocks that may have some are asked for on the way.
    fn take_earliest(&mut self, now: Timestamp) -> Option<(u64, Entry)> {
        loop {
            match self.earliest() {
                Some((expires, index, number, standing)) if expires <= now => match standing {
                    Standing::Cold => self.want(number, index),
                    Standing::Hot | Standing::Gone => {
                        return self.remove(number, index).map(|entry| (index, entry));
                    }
                },
                earliest => {
                    self.next_expiry = earliest.map_or(NEVER, |(expires, ..)| expires);
                    return None;
                }
            }
        }
    }

    /// When the head expires, or the first of its block if it is cold; never while it is being loaded.
    fn head_expiry(&self) -> Timestamp {
        let Some(number) = self.highest() else { return NEVER };
        let lane = &self.lanes[usize::from(number)];
        if let Some((_, entry)) = lane.returned.first_key_value() {
            return entry.expires;
        }
        match lane.backlog.cold_front() {
            Some(block) if block.state == ColdState::Resting => block.expires,
            Some(_) => NEVER,
            None => lane.backlog.front().map_or(NEVER, |(_, entry)| entry.expires),
        }
    }

    /// The message that expires first, or the cold block with it.
    fn earliest(&mut self) -> Option<(Timestamp, u64, u8, Standing)> {
        let noted = loop {
            let Some(Reverse((expires, index, number))) = self.notes.peek().copied() else { break None };
            match self.lanes.get(usize::from(number)).map_or(Standing::Gone, |lane| lane.standing(index, expires)) {
                Standing::Gone => self.notes.pop(),
                standing @ (Standing::Hot | Standing::Cold) => break Some((expires, index, number, standing)),
            };
        };
        let heads = self.lanes.iter().enumerate().filter_map(|(number, lane)| {
            let (index, entry) = lane.backlog.front()?;
            let number = narrow(number, "a lane has the number of a priority, which is a byte");
            (entry.expires != NEVER).then_some((entry.expires, index, number, Standing::Hot))
        });
        heads.chain(noted).min_by_key(|(expires, index, ..)| (*expires, *index))
    }

    fn remove(&mut self, number: u8, index: u64) -> Option<Entry> {
        let lane = &mut self.lanes[usize::from(number)];
        let entry = match lane.returned.remove(&index) {
            Some(entry) => entry,
            None => {
                let taken = lane.backlog.remove(index)?;
                if taken.recorded {
                    self.forget_record(index, &taken.entry);
                }
                taken.entry
            }
        };
        self.left(number, &entry);
        Some(entry)
    }

    /// A message left a block of which all have records: if it has none of its own, the one in the log is needed no more.
    fn forget_record(&mut self, index: u64, entry: &Entry) {
        if !self.durability.logs(&entry.message) {
            self.strays.add(IndexRange { first: index, last: index });
        }
    }

    /// More notes than this are too many.
    fn notes_max(&self) -> u64 {
        let noted = self.len - self.cold.messages + self.cold.blocks;
        (2 * noted).max(STALE_NOTES_MAX as u64)
    }

    #[inline]
    fn sweep_notes(&mut self) {
        if self.notes.len() > STALE_NOTES_MAX && self.notes.len() as u64 > self.notes_max() {
            self.drop_stale_notes();
        }
    }

    #[cold]
    fn drop_stale_notes(&mut self) {
        let mut notes = std::mem::take(&mut self.notes).into_vec();
        notes.retain(|Reverse((expires, index, number))| {
            let lane = self.lanes.get(usize::from(*number));
            lane.is_some_and(|lane| lane.standing(*index, *expires) != Standing::Gone)
        });
        notes.sort_unstable();
        notes.dedup();
        notes.shrink_to(2 * notes.len());
        self.notes = notes.into();
    }
}

impl Lane {
    /// What a note stands for.
    fn standing(&self, index: u64, expires: Timestamp) -> Standing {
        match self.returned.get(&index) {
            Some(entry) if entry.expires == expires => Standing::Hot,
            Some(_) => Standing::Gone,
            None => self.backlog.standing(index, expires),
        }
    }
}
