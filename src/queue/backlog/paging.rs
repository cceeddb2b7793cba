//! How blocks of a backlog turn cold and are loaded again.

use std::ops::{AddAssign, SubAssign};

use super::super::cold::{ColdBlock, ColdState};
use super::super::record::{IndexRange, Loaded, Reach};
use super::super::weight::Weight;
use super::{BLOCK_SLOTS, Backlog, Block, Entry, HotBlock, NEVER, WINDOW_BLOCKS, WINDOW_MEMORY};
use crate::model::ids::Timestamp;

/// Memory of the last block's messages below which it stays, to be filled.
const OPEN_MEMORY: u64 = 16 * 1024;

/// Cold blocks and what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::queue) struct Totals {
    pub blocks: u64,
    pub messages: u64,
    /// Bytes of memory that the blocks take while they are cold.
    pub summaries: u64,
    /// What the messages weigh once they are loaded.
    pub weight: Weight,
}

/// What is left of a head window.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) struct Window {
    blocks: usize,
    memory: u64,
    /// Cold blocks are loaded together up to this.
    at_once: u64,
    /// The last block stays to be filled while there is little in it.
    keeps_open: bool,
}

/// What came of loading.
#[derive(Debug, Default)]
pub(in crate::queue) struct Warmed {
    /// What is not cold any more.
    pub cold: Totals,
    /// Messages that were found.
    pub messages: u64,
    pub weight: Weight,
    /// The indexes of those that were not found.
    pub lost: Vec<u64>,
    /// Expiry and index of messages that expire before an earlier one.
    pub early: Vec<(Timestamp, u64)>,
}

impl Backlog {
    /// Appends a cold block; all its messages are above those before.
    pub(in crate::queue) fn push_cold(&mut self, block: ColdBlock) {
        self.latest = NEVER;
        self.cold += 1;
        self.blocks.push_back(Block::Cold(block));
    }

    /// Turns blocks cold that `may` be and are not in the head window, the last ones first, until that many bytes of memory
    /// are freed. `each` sees them. The bytes freed.
    pub(in crate::queue) fn page_out(
        &mut self,
        window: Window,
        bytes_max: u64,
        may: impl Fn(&HotBlock) -> bool,
        mut each: impl FnMut(&ColdBlock),
    ) -> u64 {
        let mut freed = 0;
        let end = self.blocks.len();
        self.each_hot_from_the_back(window, |at, block| {
            if freed >= bytes_max {
                return Step::Stop;
            }
            let is_open = window.keeps_open && at + 1 == end && block.is_open() && block.weight.memory < OPEN_MEMORY;
            if is_open || !may(block) {
                return Step::Next;
            }
            let Some(cold) = block.cooled() else { return Step::Next };
            freed += block.weight.memory.saturating_sub(cold.summary_memory());
            each(&cold);
            Step::Cool(cold)
        });
        freed
    }

    /// Notes that the resting cold block that begins with this index is to be loaded.
    pub(in crate::queue) fn want(&mut self, first: u64) {
        let at = self.block_of(first);
        if let Some(Block::Cold(block)) = self.blocks.get_mut(at)
            && block.state == ColdState::Resting
        {
            block.state = ColdState::Wanted;
        }
    }

    /// Whether the block that begins with this index is cold and to be loaded.
    pub(in crate::queue) fn is_wanted(&self, first: u64) -> bool {
        let block = self.blocks.get(self.block_of(first));
        matches!(block, Some(Block::Cold(block)) if block.first == first && block.state == ColdState::Wanted)
    }

    /// When the first message of the cold blocks within these indexes expires.
    pub(in crate::queue) fn cold_expiry(&self, range: IndexRange) -> Timestamp {
        let blocks = self.blocks.range(self.block_of(range.first).min(self.blocks.len())..);
        let within = blocks.map_while(|block| match block {
            Block::Cold(block) if block.first <= range.last => Some(block.expires),
            Block::Hot(_) | Block::Cold(_) => None,
        });
        within.min().unwrap_or(NEVER)
    }

    /// Starts to load the wanted cold block that begins with this index, and wanted ones that follow it. Their indexes
    /// and the memory they will take; none when the block is not there or is loading already.
    pub(in crate::queue) fn request_wanted(&mut self, first: u64) -> Option<(IndexRange, u64)> {
        let at = self.block_of(first);
        match self.blocks.get(at) {
            Some(Block::Cold(block)) if block.first == first => {
                self.request(at, WINDOW_MEMORY, |block| block.state == ColdState::Wanted)
            }
            Some(Block::Hot(_) | Block::Cold(_)) | None => None,
        }
    }

    /// Starts to load the first cold blocks in the head window, and some that follow, unless none is left to be loaded.
    /// Their indexes and the memory they will take.
    pub(in crate::queue) fn request_ahead(&mut self, window: &mut Window) -> Option<(IndexRange, u64)> {
        for (at, block) in self.blocks.iter().enumerate() {
            if window.is_full() {
                return None;
            }
            // A lane that was emptied may keep a block, which is none of those to be delivered next.
            if block.hot().is_some_and(|block| block.slots.is_empty()) {
                continue;
            }
            if matches!(block, Block::Cold(block) if block.state != ColdState::Loading) {
                return self.request(at, window.at_once, |block| block.state != ColdState::Loading);
            }
            window.take(block);
        }
        None
    }

    /// Turns the loading blocks in `range` hot with what was found of them. `entries` ascend.
    pub(in crate::queue) fn load(&mut self, range: IndexRange, entries: Vec<Loaded>) -> Warmed {
        let mut warmed = Warmed::default();
        let mut entries = entries.into_iter().peekable();
        let mut at = self.block_of(range.first);
        let mut latest = match at.checked_sub(1).and_then(|before| self.blocks.get(before)) {
            Some(Block::Hot(block)) => block.latest,
            Some(Block::Cold(block)) => block.latest,
            None => Timestamp(0),
        };
        while let Some(block) = self.blocks.get_mut(at) {
            match block {
                Block::Cold(cold) if cold.first > range.last => break,
                Block::Cold(cold) if cold.state == ColdState::Loading => {
                    let before = latest;
                    let hot = warm(cold, &mut entries, before, &mut warmed);
                    warmed.cold += Totals::of(cold);
                    self.cold -= 1;
                    latest = hot.latest;
                    *block = Block::Hot(hot);
                }
                Block::Cold(cold) => latest = cold.latest,
                Block::Hot(hot) if hot.slots.front().is_none_or(|slot| slot.index > range.last) => break,
                Block::Hot(hot) => latest = hot.latest,
            }
            at += 1;
        }
        if !warmed.lost.is_empty() {
            self.blocks.retain(|block| block.hot().is_none_or(|block| !block.slots.is_empty()));
        }
        self.trim_front();
        warmed
    }

    /// The indexes of all records of the backlog, ascending.
    pub(in crate::queue) fn records<'a>(
        &'a self,
        is_logged: impl Fn(&Entry) -> bool + Copy + 'a,
    ) -> impl Iterator<Item = IndexRange> + 'a {
        self.blocks.iter().flat_map(move |block| {
            let hot = block
                .hot()
                .into_iter()
                .flat_map(move |block| block.entries().filter(move |(_, entry)| block.recorded || is_logged(entry)));
            let cold = match block {
                Block::Cold(block) => Some(block.ranges()),
                Block::Hot(_) => None,
            };
            hot.map(|(index, _)| IndexRange { first: index, last: index }).chain(cold.into_iter().flatten())
        })
    }

    pub(in crate::queue) fn cold_blocks(&self) -> impl Iterator<Item = &ColdBlock> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Cold(block) => Some(block),
            Block::Hot(_) => None,
        })
    }

    /// The earliest expiry among the messages that are before all blocks being loaded.
    pub(in crate::queue) fn announced_expiry(&self) -> Option<Timestamp> {
        let is_announced = |block: &&Block| !matches!(block, Block::Cold(cold) if cold.state != ColdState::Resting);
        let expiry = |block: &Block| match block {
            Block::Hot(block) => block.entries().map(|(_, entry)| entry.expires).min(),
            Block::Cold(block) => Some(block.expires),
        };
        self.blocks.iter().take_while(is_announced).filter_map(expiry).min()
    }

    /// Calls `step` with the hot blocks outside the head window, the last first.
    fn each_hot_from_the_back(&mut self, mut window: Window, mut step: impl FnMut(usize, &mut HotBlock) -> Step) {
        let end = self.blocks.len();
        let start = self.blocks.iter().position(|block| !window.take(block)).unwrap_or(end);
        let is_hot = |at: &usize| self.blocks[*at].hot().is_some();
        // The cold blocks lie together, mostly: hot blocks before them, hot blocks behind them.
        let behind = end - (start..end).rev().take_while(is_hot).count();
        let before = start + (start..behind).take_while(is_hot).count();
        let known = (0..start).filter(is_hot).count() + (before - start) + (end - behind);
        let between = if known + self.cold == end { before..before } else { before..behind };
        for at in (behind..end).rev().chain(between.rev()).chain((start..before).rev()) {
            let Block::Hot(block) = &mut self.blocks[at] else { continue };
            match step(at, block) {
                Step::Next => {}
                Step::Stop => return,
                Step::Cool(cold) => {
                    self.blocks[at] = Block::Cold(cold);
                    self.cold += 1;
                }
            }
        }
    }

    /// Marks the block at `at` and those behind it that `joins` as loading, as many as take `memory_max` when loaded.
    fn request(&mut self, at: usize, memory_max: u64, joins: impl Fn(&ColdBlock) -> bool) -> Option<(IndexRange, u64)> {
        let mut found: Option<(IndexRange, u64)> = None;
        for block in self.blocks.range_mut(at..) {
            let Block::Cold(block) = block else { break };
            let memory = block.weight.memory;
            match &mut found {
                _ if !joins(block) => break,
                None => found = Some((IndexRange { first: block.first, last: block.last }, memory)),
                Some((_, sum)) if *sum + memory > memory_max => break,
                Some((range, sum)) => {
                    range.last = block.last;
                    *sum += memory;
                }
            }
            block.state = ColdState::Loading;
        }
        found
    }
}

/// What comes of a visit to a block.
enum Step {
    Next,
    Stop,
    Cool(ColdBlock),
}

/// The hot block that a cold one becomes with its messages among `entries`. `latest` is the latest expiry before it.
fn warm(
    cold: &ColdBlock,
    entries: &mut std::iter::Peekable<impl Iterator<Item = Loaded>>,
    mut latest: Timestamp,
    warmed: &mut Warmed,
) -> HotBlock {
    let mut block = HotBlock { recorded: cold.recorded, ..HotBlock::default() };
    block.slots.reserve_exact((cold.count as usize).min(BLOCK_SLOTS));
    for index in cold.indexes() {
        while entries.next_if(|entry| entry.index.0 < index).is_some() {}
        let Some(found) = entries.next_if(|entry| entry.index.0 == index) else {
            warmed.lost.push(index);
            continue;
        };
        let Loaded { message, expires, deaths, .. } = found;
        let expires = expires.unwrap_or(NEVER);
        if expires < latest {
            warmed.early.push((expires, index));
        }
        latest = latest.max(expires);
        block.push(index, Entry { message, expires, deaths }, latest);
    }
    block.latest = latest;
    warmed.messages += block.slots.len() as u64;
    warmed.weight += block.weight;
    block
}

impl HotBlock {
    /// Its summary.
    fn cooled(&self) -> Option<ColdBlock> {
        let expires = self.entries().map(|(_, entry)| entry.expires).min()?;
        let mut cold = ColdBlock::new(self.entries().map(|(index, _)| index), self.weight, expires)?;
        cold.latest = self.latest;
        cold.arrived = self.entries().next().map(|(_, entry)| entry.message.arrival());
        cold.recorded = self.recorded;
        Some(cold)
    }
}

impl Window {
    /// Of a queue that somebody reads.
    pub(in crate::queue) fn of(reach: Reach) -> Self {
        match reach {
            Reach::Window => {
                Self { blocks: WINDOW_BLOCKS, memory: WINDOW_MEMORY, at_once: WINDOW_MEMORY, keeps_open: true }
            }
            Reach::Head => Self { blocks: 1, memory: WINDOW_MEMORY, at_once: 0, keeps_open: false },
        }
    }

    /// Of a queue that nobody reads.
    pub(in crate::queue) fn none(reach: Reach) -> Self {
        Self { blocks: 0, memory: 0, at_once: 0, keeps_open: reach == Reach::Window }
    }

    /// Counts a block in, if there is room.
    fn take(&mut self, block: &Block) -> bool {
        if self.is_full() {
            return false;
        }
        self.blocks -= 1;
        self.memory = self.memory.saturating_sub(match block {
            Block::Hot(block) => block.weight.memory,
            Block::Cold(block) => block.weight.memory,
        });
        true
    }

    pub(in crate::queue) fn is_full(&self) -> bool {
        self.blocks == 0 || self.memory == 0
    }
}

impl Totals {
    pub(in crate::queue) fn of(block: &ColdBlock) -> Self {
        Self { blocks: 1, messages: u64::from(block.count), summaries: block.summary_memory(), weight: block.weight }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.messages += other.messages;
        self.summaries += other.summaries;
        self.weight += other.weight;
    }
}

impl SubAssign for Totals {
    fn sub_assign(&mut self, other: Self) {
        self.blocks -= other.blocks;
        self.messages -= other.messages;
        self.summaries -= other.summaries;
        self.weight -= other.weight;
    }
}
