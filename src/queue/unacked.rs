//! Messages that were delivered and not settled yet, by index. Most are settled about in the order they were delivered,
//! so they lie in a sliding window of slots; stragglers and messages delivered out of order move to a tree, which keeps
//! the window as short as its contents.

use std::collections::btree_map::Entry::Occupied;
use std::collections::{BTreeMap, VecDeque};

use super::backlog::Entry;
use super::weight::Weight;
use crate::model::ids::Timestamp;

/// Indexes that may be skipped in the window between two deliveries.
const GAP_MAX: u64 = 64;

/// Windows up to this length may be sparse.
const WINDOW_SLOTS_MIN: usize = 1024;

/// A delivered message.
#[derive(Debug)]
pub(super) struct Unacked {
    pub entry: Entry,
    pub delivered: Timestamp,
    /// The slot of its holder among the consumers.
    pub holder: u32,
}

#[derive(Debug, Default)]
pub(super) struct UnackedMap {
    /// The message of index `base + n` in slot n; the first slot is never empty.
    window: VecDeque<Option<Unacked>>,
    base: u64,
    /// Messages in the window.
    in_window: usize,
    stragglers: BTreeMap<u64, Unacked>,
    weight: Weight,
}

impl UnackedMap {
    pub(super) fn len(&self) -> usize {
        self.in_window + self.stragglers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_window == 0 && self.stragglers.is_empty()
    }

    pub(super) fn weight(&self) -> Weight {
        self.weight
    }

    /// Adds a message; no other has this index.
    pub(super) fn insert(&mut self, index: u64, unacked: Unacked) {
        self.weight += Weight::of(&unacked.entry);
        if self.window.is_empty() {
            self.base = index;
        }
        if index < self.base {
            self.stragglers.insert(index, unacked);
            return;
        }
        let end = self.base + self.window.len() as u64;
        if index < end {
            self.place((index - self.base) as usize, index, unacked);
            return;
        }
        if index - end > GAP_MAX {
            while !self.window.is_empty() {
                self.set_first_aside();
            }
            self.base = index;
        } else {
            for _ in end..index {
                self.window.push_back(None);
            }
        }
        self.window.push_back(Some(unacked));
        self.in_window += 1;
        self.tidy();
    }

    /// Takes out a message when `holder` holds it.
    /// With it comes when it was delivered.
    pub(super) fn remove(&mut self, index: u64, holder: u32) -> Option<(Entry, Timestamp)> {
        let slot = index.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        let Unacked { entry, delivered, .. } = match slot.and_then(|at| self.window.get_mut(at)) {
            Some(slot) if slot.as_ref().is_some_and(|unacked| unacked.holder == holder) => {
                let unacked = slot.take()?;
                self.in_window = self.in_window.checked_sub(1).expect("a message in the window leaves it once");
                self.tidy();
                unacked
            }
            _ => match self.stragglers.entry(index) {
                Occupied(straggler) if straggler.get().holder == holder => straggler.remove(),
                _ => return None,
            },
        };
        self.weight -= Weight::of(&entry);
        Some((entry, delivered))
    }

    /// Takes out all messages of a holder, in order of index.
    pub(super) fn remove_all_of(&mut self, holder: u32) -> Vec<(u64, Entry)> {
        let indexes: Vec<u64> =
            self.iter().filter(|(_, unacked)| unacked.holder == holder).map(|(index, _)| index).collect();
        let mut entries: Vec<(u64, Entry)> =
            indexes.into_iter().filter_map(|index| Some((index, self.remove(index, holder)?.0))).collect();
        entries.sort_unstable_by_key(|(index, _)| *index);
        entries
    }

    /// All messages, in no particular but always the same order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Unacked)> {
        let window = (self.base..).zip(&self.window).filter_map(|(index, slot)| Some((index, slot.as_ref()?)));
        window.chain(self.stragglers.iter().map(|(index, unacked)| (*index, unacked)))
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.in_window, self.window.iter().flatten().count(), "messages in the window");
        assert!(self.window.front().is_none_or(Option::is_some), "the window begins with a message");
        assert!(!self.is_sparse(), "the window is as short as its contents");
        let weight: Weight = self.iter().map(|(_, unacked)| Weight::of(&unacked.entry)).sum();
        assert_eq!(weight, self.weight, "what the unacknowledged messages weigh");
    }

    /// Puts a message into an empty slot of the window; a full one would be another message of this index.
    fn place(&mut self, at: usize, index: u64, unacked: Unacked) {
        assert!(self.window[at].is_none(), "index {index} is unacknowledged twice");
        self.window[at] = Some(unacked);
        self.in_window += 1;
    }

    fn is_sparse(&self) -> bool {
        self.window.len() > WINDOW_SLOTS_MIN && self.window.len() > 4 * self.in_window
    }

    fn set_first_aside(&mut self) {
        if let Some(Some(unacked)) = self.window.pop_front() {
            self.stragglers.insert(self.base, unacked);
            self.in_window -= 1;
        }
        self.base += 1;
    }

    /// Makes the window begin with a message, not sparse, and give back memory it does not need.
    #[inline]
    fn tidy(&mut self) {
        self.trim_front();
        if self.is_sparse() {
            while let Some(None) = self.window.back() {
                self.window.pop_back();
            }
            while self.is_sparse() {
                self.set_first_aside();
            }
            self.trim_front();
        }
        let capacity = self.window.capacity();
        if capacity > WINDOW_SLOTS_MIN && self.window.len() < capacity / 8 {
            self.window.shrink_to(capacity / 4);
        }
    }

    #[inline]
    fn trim_front(&mut self) {
        while let Some(None) = self.window.front() {
            self.window.pop_front();
            self.base += 1;
        }
    }
}
