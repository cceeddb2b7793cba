//! All subjects in memory, within a budget. Whoever holds the lock calls it for a batch of subjects at a time.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::entry::{HistoryEntry, Timelines};
use super::subject::{self, Subject};
use super::timeline::{Moment, SPAN_MS, STEP_MS, TIERS, Timeline};

/// A subject that was in none of this many rounds is gone.
const MISSED_MAX: u32 = 12;

/// Rounds that follow the one before within this time are not taken.
const APART_MIN_MS: u64 = 1_000;

#[derive(Debug)]
pub(super) struct Memory {
    hasher: RandomState,
    /// By the hash of the key: the key itself lies in the entry. Of two keys with one hash the later is not kept, which
    /// with 64 bits and a secret seed does not happen.
    places: HashMap<u64, u32>,
    entries: Vec<Option<HistoryEntry>>,
    free: Vec<u32>,
    pub(super) timelines: Timelines,
    /// How far the history's own clock, which never goes back, is ahead of the time it is given.
    pub(super) ahead_ms: u64,
    /// The next number of a subject on the disk.
    pub(super) next_id: u32,
    /// Numbers of subjects that the disk may forget.
    pub(super) forgotten: Vec<u32>,
    used_bytes: usize,
    budget_bytes: usize,
    refused: u64,
    /// The newest round of which something is not kept that it had.
    incomplete_through: u32,
    swept: usize,
}

impl Memory {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            places: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            timelines: std::array::from_fn(|_| Timeline::new()),
            ahead_ms: 0,
            next_id: 1,
            forgotten: Vec::new(),
            used_bytes: 0,
            budget_bytes,
            refused: 0,
            incomplete_through: 0,
            swept: 0,
        }
    }

    /// Begins a round and returns its index; none if the round before was taken less than a second ago.
    pub(super) fn begin_round(&mut self, at_ms: u64) -> Option<u32> {
        let mut own_ms = at_ms.saturating_add(self.ahead_ms);
        if let Some(newest) = self.timelines[0].last_moment() {
            if own_ms <= newest.at_ms {
                // The clock was set back: what is known moves with it, and this round follows the newest as ever.
                self.ahead_ms = (newest.at_ms + STEP_MS[0]).saturating_sub(at_ms);
                own_ms = at_ms + self.ahead_ms;
            } else if own_ms - newest.at_ms < APART_MIN_MS {
                return None;
            }
            self.close_coarser(newest.at_ms, at_ms);
        }
        let round = self.timelines[0].push(Moment { at_ms: own_ms, source: 0 });
        self.trim();
        Some(round)
    }

    fn trim(&mut self) {
        let own_ms = self.timelines[0].last_moment().map_or(0, |newest| newest.at_ms);
        for (timeline, span_ms) in self.timelines.iter_mut().zip(SPAN_MS) {
            timeline.trim(own_ms.saturating_sub(span_ms));
        }
    }

    /// The coarser tiers have a round for the last before each full minute, ten minutes, half hour; also when the clock
    /// is set back again and again, so that none comes.
    fn close_coarser(&mut self, newest_ms: u64, at_ms: u64) {
        let before_ms = newest_ms.saturating_sub(self.ahead_ms);
        for (tier, step_ms) in STEP_MS.into_iter().enumerate().skip(1) {
            let closed_ms = self.timelines[tier].last_moment().map_or(newest_ms, |moment| moment.at_ms);
            let is_overdue = newest_ms - closed_ms >= 2 * step_ms;
            let is_same = at_ms.saturating_sub(1) / step_ms == before_ms.saturating_sub(1) / step_ms;
            if is_same && !is_overdue {
                return;
            }
            let source = self.timelines[tier - 1].last();
            self.timelines[tier].push(Moment { at_ms: newest_ms, source });
        }
    }

    /// Takes the values of one subject in the round begun last.
    pub(super) fn observe(&mut self, key: &[u8], values: &[u64], round: u32) {
        let hash = self.hasher.hash_one(key);
        let place = self.places.get(&hash).copied();
        let entry = place.and_then(|place| self.entries[place as usize].as_mut());
        match entry {
            Some(entry) if *entry.key != *key => self.refused += 1,
            Some(entry) if entry.fields() == values.len() => {
                let before = entry.bytes();
                entry.observe(values, round, &self.timelines);
                self.used_bytes = self.used_bytes - before + entry.bytes();
            }
            Some(_) => {
                self.remove(place.unwrap_or(0));
                self.create(hash, key, values, round);
            }
            None => self.create(hash, key, values, round),
        }
    }

    fn create(&mut self, hash: u64, key: &[u8], values: &[u64], round: u32) {
        let born_ms = self.timelines[0].get(round).map_or(0, |moment| moment.at_ms);
        let mut entry = HistoryEntry::new(key, values, born_ms, round, 0);
        // What is found after a round that lacked something may be as old as the broker.
        entry.is_new = self.incomplete_through + 1 < round;
        if self.used_bytes + entry.bytes() > self.budget_bytes && !is_essential(key) {
            self.refused += 1;
            self.incomplete_through = round;
            return;
        }
        if subject::is_stored(key) {
            entry.id = self.next_id;
            self.next_id += 1;
        }
        self.insert(hash, entry);
    }

    fn insert(&mut self, hash: u64, entry: HistoryEntry) -> u32 {
        self.used_bytes += entry.bytes();
        let place = self.free.pop().unwrap_or(self.entries.len() as u32);
        if place as usize == self.entries.len() {
            self.entries.push(None);
        }
        self.entries[place as usize] = Some(entry);
        self.places.insert(hash, place);
        place
    }

    /// Adds a subject read from the disk and returns its place; none if it is there already.
    pub(super) fn restore(&mut self, entry: HistoryEntry) -> Option<u32> {
        let hash = self.hasher.hash_one(&*entry.key);
        (!self.places.contains_key(&hash)).then(|| self.insert(hash, entry))
    }

    /// Completes the subjects read from the disk, when their rows and all timelines are there.
    pub(super) fn restored(&mut self) {
        // The oldest chunk on the disk may begin before what memory keeps.
        self.trim();
        for entry in self.entries.iter_mut().flatten() {
            entry.restored(&self.timelines);
        }
        self.used_bytes = self.entries.iter().flatten().map(HistoryEntry::bytes).sum();
        self.lack();
        self.shed();
    }

    /// The entry at a place, with the timelines to read it.
    pub(super) fn at(&mut self, place: u32) -> Option<(&mut HistoryEntry, &Timelines)> {
        let entry = self.entries.get_mut(place as usize)?.as_mut()?;
        Some((entry, &self.timelines))
    }

    pub(super) fn find(&mut self, subject: Subject<'_>) -> Option<(&mut HistoryEntry, &Timelines)> {
        let place = self.place(&subject.key())?;
        self.at(place)
    }

    pub(super) fn forget(&mut self, subject: Subject<'_>) {
        if let Some(place) = self.place(&subject.key()) {
            self.remove(place);
        }
    }

    pub(super) fn clear(&mut self) {
        for place in 0..self.entries.len() {
            self.remove(place as u32);
        }
        self.lack();
    }

    /// Something is missing of the newest round.
    fn lack(&mut self) {
        self.incomplete_through = self.timelines[0].last();
    }

    fn place(&self, key: &[u8]) -> Option<u32> {
        let place = *self.places.get(&self.hasher.hash_one(key))?;
        self.entries[place as usize].as_ref().is_some_and(|entry| *entry.key == *key).then_some(place)
    }

    fn remove(&mut self, place: u32) {
        let Some(entry) = self.entries[place as usize].take() else { return };
        self.used_bytes -= entry.bytes();
        self.places.remove(&self.hasher.hash_one(&*entry.key));
        self.free.push(place);
        if entry.is_stored {
            self.forgotten.push(entry.id);
        }
    }

    /// Goes through some subjects, all of them in [`MISSED_MAX`] rounds: drops those that are gone, and what has become
    /// too old. Returns whether there are more for this round, in batches of `batch`.
    pub(super) fn sweep(&mut self, round: u32, batch: usize, done: &mut usize) -> bool {
        let share = self.entries.len().div_ceil(MISSED_MAX as usize);
        let count = batch.min(share.saturating_sub(*done));
        for _ in 0..count {
            if self.swept >= self.entries.len() {
                self.swept = 0;
            }
            let place = self.swept as u32;
            self.swept += 1;
            let Some(entry) = self.entries[place as usize].as_mut() else { continue };
            if round.saturating_sub(entry.seen) > MISSED_MAX {
                self.remove(place);
                continue;
            }
            let before = entry.bytes();
            entry.expire(&self.timelines);
            self.used_bytes = self.used_bytes - before + entry.bytes();
        }
        *done += count;
        count > 0
    }

    /// Keeps to the budget. Of the subjects that changed least lately the finest tiers go first; when all have lost all
    /// tiers, whole subjects go. It frees an eighth more than it must, so as not to be at it every round.
    pub(super) fn shed(&mut self) {
        if self.used_bytes <= self.budget_bytes {
            return;
        }
        let target = self.budget_bytes - self.budget_bytes / 8;
        let held = self.entries.iter().enumerate().filter_map(|(place, entry)| Some((place, entry.as_ref()?)));
        let mut order: Vec<_> =
            held.map(|(place, entry)| (is_essential(&entry.key), entry.changed, place as u32)).collect();
        order.sort_unstable();
        for tier in 0..TIERS {
            for &(_, _, place) in &order {
                if self.used_bytes <= target {
                    return;
                }
                let Some(entry) = self.entries[place as usize].as_mut() else { continue };
                let before = entry.bytes();
                entry.drop_tier(tier, &self.timelines);
                self.used_bytes = self.used_bytes - before + entry.bytes();
            }
        }
        for (_, _, place) in order.into_iter().filter(|(essential, _, _)| !essential) {
            if self.used_bytes <= target {
                return;
            }
            self.remove(place);
            self.lack();
        }
    }

    /// How many places there are, taken or free.
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn subjects(&self) -> usize {
        self.places.len()
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes + self.timelines.iter().map(Timeline::bytes).sum::<usize>()
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused
    }
}

/// Few, and looked at most: they are never dropped whole.
fn is_essential(key: &[u8]) -> bool {
    key.first().is_some_and(|kind| (subject::GLOBAL..=subject::VHOST).contains(kind))
}
