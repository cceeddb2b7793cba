//! Ready messages that are in the log only: which are paged out, which are asked for, and how they come back.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::mem;

use super::super::backlog::{Entry, HotBlock, NEVER, Totals, Window};
use super::super::limits::ExpiryRule;
use super::super::record::{ColdChunk, IndexRange, Loaded, Reach, Records};
use super::{Lane, Ready, recovered};
use crate::model::ids::Timestamp;
use crate::model::narrow::narrow;

/// Loads under way, at most.
const LOADS_MAX: usize = 4;

/// As long as this many loads are under way, none begins only to let messages expire.
const LOADS_FOR_EXPIRY_MAX: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Loads {
    /// Lane and indexes.
    under_way: Vec<(u8, IndexRange)>,
    /// Lane and first index of cold blocks in which messages are to expire. Those that are loaded meanwhile or purged
    /// are skipped.
    wanted: VecDeque<(u8, u64)>,
}

impl Loads {
    pub(super) fn check_invariants(&self) {
        assert!(self.under_way.len() <= LOADS_MAX, "loads are bounded");
    }
}

impl Ready {
    /// Whether some messages are not in memory.
    #[inline]
    pub(in crate::queue) fn has_cold(&self) -> bool {
        self.cold.blocks > 0
    }

    /// Whether the first message is not in memory.
    pub(in crate::queue) fn is_head_cold(&self) -> bool {
        self.has_cold()
            && self.highest().is_some_and(|number| {
                let lane = &self.lanes[usize::from(number)];
                lane.returned.is_empty() && lane.backlog.cold_front().is_some()
            })
    }

    /// Whether messages that may have expired are being loaded, or are to be, so that they can go.
    pub(in crate::queue) fn awaits_expired(&self, now: Timestamp) -> bool {
        if !self.has_cold() || self.rule == ExpiryRule::HeadOnly {
            return false;
        }
        // What a purge dropped may be under way yet.
        let backlog = |number: u8| self.lanes.get(usize::from(number)).map(|lane| &lane.backlog);
        let Loads { wanted, under_way } = &self.loads;
        wanted.iter().any(|(number, first)| backlog(*number).is_some_and(|backlog| backlog.is_wanted(*first)))
            || under_way
                .iter()
                .any(|(number, range)| backlog(*number).is_some_and(|backlog| backlog.cold_expiry(*range) <= now))
    }

    /// Bytes of memory that the messages take.
    pub(in crate::queue) fn memory(&self) -> u64 {
        self.weight.memory - self.cold.weight.memory + self.cold.summaries
    }

    /// Turns blocks cold, those farthest from being delivered first, until that many bytes are freed. Only blocks whose
    /// messages all have records up to `flushed`, and none in the head window. The bytes freed.
    pub(in crate::queue) fn page_out(&mut self, window: Window, bytes_max: u64, flushed: u64) -> u64 {
        let Self { lanes, notes, cold, durability, rule, .. } = self;
        let may = |block: &HotBlock| {
            block.last().is_some_and(|last| last <= flushed)
                && (block.recorded || block.entries().all(|(_, entry)| durability.logs(&entry.message)))
        };
        let mut freed = 0;
        for (number, lane) in (0u8..).zip(lanes) {
            if freed >= bytes_max {
                break;
            }
            freed += lane.backlog.page_out(window, bytes_max - freed, may, |block| {
                *cold += Totals::of(block);
                if block.expires != NEVER && *rule == ExpiryRule::Anywhere {
                    notes.push(Reverse((block.expires, block.first, number)));
                }
            });
        }
        self.sweep_notes();
        freed
    }

    /// Starts loads for messages that are to expire, and for the head of the queue when somebody needs it. `load` is told
    /// the indexes and the memory they will take.
    pub(in crate::queue) fn request_loads(
        &mut self,
        for_head: ForHead,
        reach: Reach,
        mut load: impl FnMut(IndexRange, u64),
    ) {
        let Self { lanes, loads, .. } = self;
        while for_head == ForHead::Needed && loads.under_way.len() < LOADS_MAX {
            let mut window = Window::of(reach);
            let requested = lanes.iter_mut().enumerate().rev().find_map(|(number, lane)| {
                let (range, memory) = lane.backlog.request_ahead(&mut window)?;
                Some((narrow(number, "a lane has the number of a priority, which is a byte"), range, memory))
            });
            let Some((number, range, memory)) = requested else { break };
            loads.under_way.push((number, range));
            load(range, memory);
        }
        while loads.under_way.len() < LOADS_FOR_EXPIRY_MAX {
            let Some((number, first)) = loads.wanted.pop_front() else { break };
            let Some(lane) = lanes.get_mut(usize::from(number)) else { continue };
            let Some((range, memory)) = lane.backlog.request_wanted(first) else { continue };
            loads.under_way.push((number, range));
            load(range, memory);
        }
    }

    /// Takes what was found of a load. The number of messages that are lost.
    pub(in crate::queue) fn load(&mut self, range: IndexRange, entries: Vec<Loaded>, records: &mut Records) -> u64 {
        let Some(at) = self.loads.under_way.iter().position(|(_, loading)| *loading == range) else { return 0 };
        let (number, _) = self.loads.under_way.swap_remove(at);
        let Some(lane) = self.lanes.get_mut(usize::from(number)) else { return 0 };
        let warmed = lane.backlog.load(range, entries);
        self.cold -= warmed.cold;
        self.len -= warmed.cold.messages - warmed.messages;
        self.weight = self.weight - warmed.cold.weight + warmed.weight;
        for index in &warmed.lost {
            records.settle(IndexRange { first: *index, last: *index });
        }
        if self.rule == ExpiryRule::Anywhere {
            self.notes.extend(warmed.early.iter().map(|(expires, index)| Reverse((*expires, *index, number))));
        }
        // To be found anew: what was loaded is not announced.
        self.next_expiry = Timestamp(0);
        self.fewer(number);
        self.sweep_notes();
        warmed.lost.len() as u64
    }

    /// Drops everything and answers how many messages that were.
    pub(in crate::queue) fn clear(&mut self, records: &mut Records) -> u64 {
        let durability = self.durability;
        let is_logged = move |entry: &Entry| durability.logs(&entry.message);
        let mut lanes: Vec<_> = self.lanes.iter().map(|lane| lane.records(is_logged)).collect();
        // Merging the lanes' indexes makes the longest ranges.
        let mut next: BinaryHeap<Reverse<(u64, u64, usize)>> = BinaryHeap::new();
        let mut advance = |next: &mut BinaryHeap<_>, number: usize| {
            if let Some(range) = lanes[number].next() {
                next.push(Reverse((range.first, range.last, number)));
            }
        };
        (0..self.lanes.len()).for_each(|number| advance(&mut next, number));
        while let Some(Reverse((first, last, number))) = next.pop() {
            records.settle(IndexRange { first, last });
            advance(&mut next, number);
        }
        drop(lanes);
        let count = self.len;
        let empty = Self::new(self.priority_max, self.rule, self.durability);
        let cleared = mem::replace(self, empty);
        self.delivered_before = cleared.delivered_before;
        self.strays = cleared.strays;
        // What is under way is answered yet.
        self.loads.under_way = cleared.loads.under_way;
        count
    }

    /// Takes over what a restart left. The highest index among it; 0 for none.
    pub(in crate::queue) fn recover(&mut self, chunks: Vec<ColdChunk>, delivered_through: u64) -> u64 {
        self.delivered_before = delivered_through;
        let mut highest = 0;
        for (number, block) in recovered::blocks(chunks, self.priority_max) {
            highest = highest.max(block.last);
            self.make_lane(number);
            self.len += u64::from(block.count);
            self.weight += block.weight;
            self.cold += Totals::of(&block);
            self.next_expiry = self.next_expiry.min(block.expires);
            if block.expires != NEVER && self.rule == ExpiryRule::Anywhere {
                self.notes.push(Reverse((block.expires, block.first, number)));
            }
            self.lanes[usize::from(number)].backlog.push_cold(block);
        }
        highest
    }

    /// Moves out the records of messages that had none of their own and left a block of which all have.
    pub(in crate::queue) fn take_strays(&mut self, into: &mut Vec<IndexRange>) {
        self.strays.take(into);
    }

    /// The block that begins with this index is to be loaded, because messages in it are to expire.
    pub(super) fn want(&mut self, number: u8, first: u64) {
        self.lanes[usize::from(number)].backlog.want(first);
        self.loads.wanted.push_back((number, first));
    }
}

/// Whether somebody needs the messages at the head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::queue) enum ForHead {
    #[default]
    Idle,
    Needed,
}

impl Lane {
    /// The indexes of all records of the lane, ascending.
    fn records<'a>(&'a self, is_logged: impl Fn(&Entry) -> bool + Copy + 'a) -> impl Iterator<Item = IndexRange> + 'a {
        let returned = self.returned.iter().filter(move |(_, entry)| is_logged(entry));
        let returned = returned.map(|(index, _)| IndexRange { first: *index, last: *index });
        returned.chain(self.backlog.records(is_logged))
    }
}
