//! When the rounds of a tier were taken. All subjects share it: their rows refer to rounds by index.

use std::collections::VecDeque;

/// How many tiers there are; the first is the finest.
pub(super) const TIERS: usize = 4;

/// Milliseconds between two rounds of a tier. The finest has whatever interval the sampler keeps, which should be this.
pub(super) const STEP_MS: [u64; TIERS] = [5_000, 60_000, 600_000, 1_800_000];

/// Milliseconds that a tier reaches back: an age of 10 minutes, 1 hour, 8 hours and 1 day, and one step.
pub(super) const SPAN_MS: [u64; TIERS] = [605_000, 3_660_000, 30_600_000, 88_200_000];

/// A value older than this is not the value of a moment: nothing was sampled in between.
pub(super) const STALE_MS: [u64; TIERS] = [15_000, 120_000, 1_200_000, 3_600_000];

/// One round of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// In milliseconds of the history's own clock, which never goes back.
    pub(super) at_ms: u64,
    /// The last round of the next finer tier that it stands for; 0 in the finest.
    pub(super) source: u32,
}

/// Rounds with consecutive indexes, from 1.
#[derive(Debug)]
pub(super) struct Timeline {
    first: u32,
    moments: VecDeque<Moment>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { first: 1, moments: VecDeque::new() }
    }

    /// Continues from the disk: the first round pushed will have the index `first`.
    pub(super) fn starting_at(first: u32) -> Self {
        Self { first, moments: VecDeque::new() }
    }

    /// The index of the oldest round kept; what happened up to it has no earlier value to differ from.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The index of the newest round; one less than `first` when there is none.
    pub(super) fn last(&self) -> u32 {
        self.first + self.moments.len() as u32 - 1
    }

    pub(super) fn last_moment(&self) -> Option<Moment> {
        self.moments.back().copied()
    }

    pub(super) fn get(&self, index: u32) -> Option<Moment> {
        self.moments.get(index.checked_sub(self.first)? as usize).copied()
    }

    pub(super) fn push(&mut self, moment: Moment) -> u32 {
        self.moments.push_back(moment);
        self.last()
    }

    /// The newest round at or before a moment.
    pub(super) fn at_or_before(&self, at_ms: u64) -> Option<u32> {
        let after = self.moments.partition_point(|moment| moment.at_ms <= at_ms);
        (after > 0).then(|| self.first + after as u32 - 1)
    }

    /// Drops rounds before a moment, except the last of them: it has the value of that moment.
    pub(super) fn trim(&mut self, before_ms: u64) {
        while self.moments.get(1).is_some_and(|second| second.at_ms <= before_ms) {
            self.moments.pop_front();
            self.first += 1;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.moments.capacity() * size_of::<Moment>()
    }
}
