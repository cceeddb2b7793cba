//! The ready messages of a queue: one lane per priority, requeued messages in front of those never delivered, and
//! what is needed to expire any of them in time.
//!
//! Within a lane most messages expire in the order they arrived, so looking at the lane's head finds them. Only a
//! message that expires before an earlier one of its lane, or that was requeued, is noted in an ordered index besides;
//! notes of messages that left otherwise are skipped when met and swept out before they outnumber the messages.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::backlog::{Backlog, Entry, NEVER};
use super::limits::ExpiryRule;
use super::record::Records;
use crate::model::ids::Timestamp;

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
    len: u64,
    /// Body bytes.
    bytes: u64,
    /// Expiry, index and lane of messages that the heads of the lanes do not announce.
    notes: BinaryHeap<Reverse<(Timestamp, u64, u8)>>,
    /// Nothing is to expire before this time.
    next_expiry: Timestamp,
}

#[derive(Debug, Default)]
struct Lane {
    /// Requeued messages, all older than the backlog.
    returned: BTreeMap<u64, Entry>,
    backlog: Backlog,
    /// The latest expiry in the backlog since it was last empty.
    latest_expiry: Timestamp,
}

/// A message taken from the head of the queue.
#[derive(Debug)]
pub(super) struct Taken {
    pub index: u64,
    pub redelivered: bool,
    pub entry: Entry,
}

impl Ready {
    pub(super) fn new(priority_max: u8, rule: ExpiryRule) -> Self {
        Self {
            lanes: Vec::new(),
            occupied: [0; 4],
            priority_max,
            rule,
            len: 0,
            bytes: 0,
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
        self.bytes
    }

    /// `take_expired` finds nothing before this time.
    pub(super) fn next_expiry(&self) -> Timestamp {
        self.next_expiry
    }

    /// Appends a new message; `index` is above all before it.
    pub(super) fn push(&mut self, index: u64, entry: Entry) {
        let number = self.admit(&entry);
        let lane = &mut self.lanes[usize::from(number)];
        if lane.backlog.is_empty() || entry.expires >= lane.latest_expiry {
            lane.latest_expiry = entry.expires;
        } else if self.rule == ExpiryRule::Anywhere {
            self.notes.push(Reverse((entry.expires, index, number)));
        }
        lane.backlog.push_back(index, entry);
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

    /// Takes the first message of the highest priority.
    pub(super) fn pop(&mut self) -> Option<Taken> {
        let number = self.highest()?;
        let lane = &mut self.lanes[usize::from(number)];
        let taken = match lane.returned.pop_first() {
            Some((index, entry)) => Taken { index, redelivered: true, entry },
            None => {
                let (index, entry) = lane.backlog.pop_front()?;
                Taken { index, redelivered: false, entry }
            }
        };
        self.left(number, &taken.entry);
        Some(taken)
    }

    /// Takes one message that has expired at `now`: by time, then by index; in head-only mode the head alone.
    pub(super) fn take_expired(&mut self, now: Timestamp) -> Option<(u64, Entry)> {
        if self.next_expiry > now {
            return None;
        }
        let taken = match self.rule {
            ExpiryRule::HeadOnly => match self.head_expiry() {
                expires if expires <= now => self.pop().map(|taken| (taken.index, taken.entry)),
                expires => {
                    self.next_expiry = expires;
                    None
                }
            },
            ExpiryRule::Anywhere => match self.earliest() {
                Some((expires, index, number)) if expires <= now => {
                    self.remove(number, index).map(|entry| (index, entry))
                }
                earliest => {
                    self.next_expiry = earliest.map_or(NEVER, |(expires, ..)| expires);
                    None
                }
            },
        };
        debug_assert!(taken.is_some() || self.next_expiry > now);
        taken
    }

    /// Drops everything and answers how many messages that were.
    pub(super) fn clear(&mut self, records: &mut Records) -> u64 {
        let count = self.len;
        for lane in &self.lanes {
            let returned = lane.returned.iter().map(|(index, entry)| (*index, entry));
            for (index, entry) in returned.chain(lane.backlog.iter()) {
                records.left(index, &entry.message);
            }
        }
        *self = Self::new(self.priority_max, self.rule);
        count
    }

    pub(super) fn check_invariants(&self) {
        let mut len = 0;
        let mut bytes = 0;
        for (number, lane) in self.lanes.iter().enumerate() {
            lane.backlog.check_invariants();
            let returned = lane.returned.iter().map(|(index, entry)| (*index, entry));
            let messages: Vec<(u64, &Entry)> = returned.chain(lane.backlog.iter()).collect();
            assert!(messages.windows(2).all(|pair| pair[0].0 < pair[1].0), "returned messages are older");
            assert_eq!(!messages.is_empty(), self.occupied[number / 64] & (1 << (number % 64)) != 0, "lane marked");
            for (_, entry) in &messages {
                assert_eq!(usize::from(entry.message.priority().min(self.priority_max)), number, "in its lane");
                if self.rule == ExpiryRule::Anywhere {
                    assert!(self.next_expiry <= entry.expires, "the next expiry is a lower bound");
                }
                bytes += entry.message.body_length() as u64;
            }
            len += messages.len() as u64;
        }
        assert_eq!((len, bytes), (self.len, self.bytes), "ready messages and bytes");
        assert!(self.notes.len() as u64 <= 2 * self.len + 2 * STALE_NOTES_MAX as u64, "notes are bounded");
    }

    /// Counts a message in and makes its lane ready for it.
    fn admit(&mut self, entry: &Entry) -> u8 {
        let number = entry.message.priority().min(self.priority_max);
        let at = usize::from(number);
        if self.lanes.len() <= at {
            self.lanes.resize_with(at + 1, Lane::default);
        }
        self.occupied[at / 64] |= 1 << (at % 64);
        self.len += 1;
        self.bytes += entry.message.body_length() as u64;
        self.next_expiry = self.next_expiry.min(entry.expires);
        number
    }

    /// Counts out a message that was removed from its lane.
    fn left(&mut self, number: u8, entry: &Entry) {
        let at = usize::from(number);
        let lane = &self.lanes[at];
        if lane.backlog.is_empty() && lane.returned.is_empty() {
            self.occupied[at / 64] &= !(1 << (at % 64));
        }
        self.len -= 1;
        self.bytes -= entry.message.body_length() as u64;
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

    fn head_expiry(&self) -> Timestamp {
        let Some(number) = self.highest() else { return NEVER };
        let lane = &self.lanes[usize::from(number)];
        let returned = lane.returned.first_key_value().map(|(_, entry)| entry);
        returned.or_else(|| lane.backlog.front().map(|(_, entry)| entry)).map_or(NEVER, |entry| entry.expires)
    }

    /// The message that expires first.
    fn earliest(&mut self) -> Option<(Timestamp, u64, u8)> {
        while let Some(Reverse((_, index, number))) = self.notes.peek()
            && !self.lanes[usize::from(*number)].holds(*index)
        {
            self.notes.pop();
        }
        let noted = self.notes.peek().map(|Reverse(note)| *note);
        let heads = self.lanes.iter().enumerate().filter_map(|(number, lane)| {
            let (index, entry) = lane.backlog.front()?;
            (entry.expires != NEVER).then_some((entry.expires, index, u8::try_from(number).unwrap_or(u8::MAX)))
        });
        heads.chain(noted).min()
    }

    fn remove(&mut self, number: u8, index: u64) -> Option<Entry> {
        let lane = &mut self.lanes[usize::from(number)];
        let entry = lane.returned.remove(&index).or_else(|| lane.backlog.remove(index))?;
        self.left(number, &entry);
        Some(entry)
    }

    fn sweep_notes(&mut self) {
        if self.notes.len() <= STALE_NOTES_MAX || self.notes.len() as u64 <= 2 * self.len {
            return;
        }
        let mut notes = std::mem::take(&mut self.notes).into_vec();
        notes.retain(|Reverse((_, index, number))| self.lanes[usize::from(*number)].holds(*index));
        notes.sort_unstable();
        notes.dedup();
        notes.shrink_to(2 * notes.len());
        self.notes = notes.into();
    }
}

impl Lane {
    fn holds(&self, index: u64) -> bool {
        self.returned.contains_key(&index) || self.backlog.find(index).is_some()
    }
}
