//! The messages of one priority that were never delivered, in order of index: a queue of blocks, so that it neither
//! copies everything when it grows nor keeps memory when it drains. A message that leaves from the middle (it expired
//! there) leaves a hole; blocks with more holes than messages are closed up.
//!
//! A block is hot, with its messages in memory, or cold: its messages are in the log only, and a summary stands for them.
//!
//! ```text
//!  next to be delivered                                             newest
//!  [hot] [hot] [hot] [hot] [cold: loading] [cold] [cold] … [hot] [hot, open]
//!   └── the head window ─┘                                 └ not flushed yet
//! ```

mod paging;

use std::collections::VecDeque;
use std::sync::Arc;

use super::cold::{ColdBlock, ColdState};
use super::dead_letter::DeathHistory;
use super::weight::Weight;

use crate::model::ids::Timestamp;
use crate::model::message::Message;

/// The expiry of a message that does not expire.
pub(super) const NEVER: Timestamp = Timestamp(u64::MAX);

/// Slots per block: 16 KiB.
const BLOCK_SLOTS: usize = 256;

/// A block takes no more messages when they take this many bytes of memory: those of a KiB fill all slots.
const BLOCK_MEMORY: u64 = 320 * 1024;

/// An empty backlog keeps a block of at most this capacity.
const IDLE_SLOTS_MAX: usize = 32;

/// The head window, which stays in memory and is loaded ahead: this many blocks, or as many as take this many bytes of
/// memory.
const WINDOW_BLOCKS: usize = 4;
pub(super) const WINDOW_MEMORY: u64 = 1024 * 1024;

/// A message in the queue. Its index is the key it is stored under.
#[derive(Debug)]
pub(super) struct Entry {
    pub message: Message,
    /// `NEVER` when it does not expire.
    pub expires: Timestamp,
    pub deaths: Option<Arc<DeathHistory>>,
}

/// Messages in ascending order of index.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// None is empty, except that the only one may be; the first slot of the first is no hole.
    blocks: VecDeque<Block>,
    /// Cold ones among them.
    cold: usize,
    /// An emptied block, to be filled again.
    spare: Option<HotBlock>,
    /// No message expires later; of those that came since the backlog was last empty.
    latest: Timestamp,
}

#[derive(Debug)]
enum Block {
    Hot(HotBlock),
    Cold(ColdBlock),
}

#[derive(Debug, Default)]
pub(super) struct HotBlock {
    slots: VecDeque<Slot>,
    holes: u32,
    /// All its messages have records, those too that have none of their own.
    pub recorded: bool,
    weight: Weight,
    /// No message in this block or before it in its lane expires later.
    latest: Timestamp,
}

#[derive(Debug)]
struct Slot {
    index: u64,
    entry: Option<Entry>,
}

// One cache line per queued message.
const _: () = assert!(size_of::<Slot>() == 64);

/// How a message's expiry compares with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// It expires last: found when it is at the head.
    Last,
    /// It expires before an earlier message and has to be noted.
    Early,
}

/// A message taken from among the ready ones.
#[derive(Debug)]
pub(super) struct Taken {
    pub index: u64,
    pub redelivered: bool,
    /// It was in a block of which all messages have records.
    pub recorded: bool,
    pub entry: Entry,
}

/// What is at the place of a note about expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Hot,
    Cold,
    /// The message is gone, or is announced otherwise.
    Gone,
}

pub(super) use paging::{Totals, Window};

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        match self.blocks.front() {
            Some(Block::Hot(block)) => block.slots.is_empty(),
            Some(Block::Cold(_)) => false,
            None => true,
        }
    }

    /// Appends; `index` is above all before it. Messages that are `recorded` in any case and others are in different blocks.
    pub(super) fn push_back(&mut self, index: u64, entry: Entry, recorded: bool) -> Order {
        let order = if entry.expires >= self.latest || self.is_empty() {
            self.latest = entry.expires;
            Order::Last
        } else {
            Order::Early
        };
        match self.blocks.back_mut() {
            Some(Block::Hot(block)) if block.takes(recorded) => {
                block.recorded = recorded;
                block.push(index, entry, self.latest);
            }
            None => {
                let mut block = HotBlock { recorded, ..HotBlock::default() };
                block.push(index, entry, self.latest);
                self.blocks.push_back(Block::Hot(block));
            }
            Some(_) => {
                let mut block = self.spare.take().unwrap_or_else(|| self.next_block());
                block.recorded = recorded;
                block.push(index, entry, self.latest);
                self.blocks.push_back(Block::Hot(block));
            }
        }
        order
    }

    /// The first message, unless it is cold.
    pub(super) fn front(&self) -> Option<(u64, &Entry)> {
        let Some(Block::Hot(block)) = self.blocks.front() else { return None };
        let slot = block.slots.front()?;
        Some((slot.index, slot.entry.as_ref()?))
    }

    /// The first block, if it is cold.
    pub(super) fn cold_front(&self) -> Option<&ColdBlock> {
        match self.blocks.front() {
            Some(Block::Cold(block)) => Some(block),
            Some(Block::Hot(_)) | None => None,
        }
    }

    /// Takes the first message, unless it is cold.
    pub(super) fn pop_front(&mut self) -> Option<Taken> {
        let Some(Block::Hot(block)) = self.blocks.front_mut() else { return None };
        let slot = block.slots.pop_front()?;
        let entry = slot.entry?;
        block.weight -= Weight::of(&entry);
        let recorded = block.recorded;
        if block.slots.front().is_none_or(|slot| slot.entry.is_none()) {
            self.trim_front();
        }
        Some(Taken { index: slot.index, redelivered: false, recorded, entry })
    }

    /// A message that is in memory.
    pub(super) fn find(&self, index: u64) -> Option<&Entry> {
        let (block, slot) = self.locate(index)?;
        match &self.blocks[block] {
            Block::Hot(block) => block.slots[slot].entry.as_ref(),
            Block::Cold(_) => None,
        }
    }

    /// What a note about this message or about the cold block that begins with it stands for.
    pub(super) fn standing(&self, index: u64, expires: Timestamp) -> Standing {
        match self.blocks.get(self.block_of(index)) {
            Some(Block::Hot(_)) if self.find(index).is_some_and(|entry| entry.expires == expires) => Standing::Hot,
            Some(Block::Cold(block))
                if block.first == index && block.expires == expires && block.state == ColdState::Resting =>
            {
                Standing::Cold
            }
            Some(Block::Hot(_) | Block::Cold(_)) | None => Standing::Gone,
        }
    }

    /// Takes out a message that is in memory.
    pub(super) fn remove(&mut self, index: u64) -> Option<Taken> {
        if self.front().is_some_and(|(first, _)| first == index) {
            return self.pop_front();
        }
        let (at, slot) = self.locate(index)?;
        let Block::Hot(block) = &mut self.blocks[at] else { return None };
        let entry = block.slots[slot].entry.take()?;
        let recorded = block.recorded;
        block.weight -= Weight::of(&entry);
        block.holes += 1;
        if block.holes as usize * 2 > block.slots.len() {
            block.slots.retain(|slot| slot.entry.is_some());
            block.holes = 0;
            if block.slots.capacity() > 4 * block.slots.len() {
                block.slots.shrink_to_fit();
            }
            if block.slots.is_empty() {
                self.blocks.remove(at);
            }
        }
        Some(Taken { index, redelivered: false, recorded, entry })
    }

    /// The messages that are in memory.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.blocks.iter().filter_map(Block::hot).flat_map(HotBlock::entries)
    }

    pub(super) fn check_invariants(&self) {
        let indexes: Vec<u64> = self.blocks.iter().flat_map(Block::all_indexes).collect();
        assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]), "backlog indexes ascend");
        match self.blocks.front() {
            Some(Block::Hot(block)) => {
                assert!(block.slots.front().is_none_or(|slot| slot.entry.is_some()), "it begins with a message");
            }
            Some(Block::Cold(_)) | None => {}
        }
        let is_empty = |block: &Block| block.hot().is_some_and(|block| block.slots.is_empty());
        assert!(self.blocks.len() <= 1 || !self.blocks.iter().any(is_empty), "no empty blocks");
        assert_eq!(self.blocks.iter().filter(|block| block.hot().is_none()).count(), self.cold, "cold blocks");
        let mut latest = Timestamp(0);
        for block in &self.blocks {
            match block {
                Block::Hot(block) => {
                    let holes = block.slots.iter().filter(|slot| slot.entry.is_none()).count();
                    assert_eq!(block.holes as usize, holes, "holes counted");
                    let weight: Weight = block.entries().map(|(_, entry)| Weight::of(entry)).sum();
                    assert_eq!(block.weight, weight, "what a block weighs");
                    latest = block.entries().map(|(_, entry)| entry.expires).fold(latest, Timestamp::max);
                    assert!(latest <= block.latest || block.slots.is_empty(), "nothing expires after the latest");
                }
                Block::Cold(block) => {
                    block.check_invariants();
                    latest = block.expires.max(latest);
                    assert!(latest <= block.latest, "nothing expires after the latest");
                }
            }
        }
        assert!(self.is_empty() || latest <= self.latest, "nothing expires after the latest");
    }

    /// The block that would hold this index.
    fn block_of(&self, index: u64) -> usize {
        self.blocks.partition_point(|block| block.last().is_some_and(|last| last < index))
    }

    fn locate(&self, index: u64) -> Option<(usize, usize)> {
        let block = self.block_of(index);
        let slot = self.blocks.get(block)?.hot()?.slots.binary_search_by_key(&index, |slot| slot.index).ok()?;
        Some((block, slot))
    }

    /// Makes a block to come after those that are full.
    fn next_block(&self) -> HotBlock {
        let before = match self.blocks.back() {
            Some(Block::Hot(block)) => block.slots.len(),
            Some(Block::Cold(_)) | None => BLOCK_SLOTS,
        };
        HotBlock { slots: VecDeque::with_capacity(before.clamp(1, BLOCK_SLOTS)), ..HotBlock::default() }
    }

    /// Makes the first slot a message again, and gives back memory that is not needed.
    fn trim_front(&mut self) {
        let mut blocks = self.blocks.len();
        while let Some(Block::Hot(block)) = self.blocks.front_mut() {
            match block.slots.front() {
                Some(slot) if slot.entry.is_some() => return,
                Some(_) => {
                    block.slots.pop_front();
                    block.holes -= 1;
                }
                None if blocks == 1 => {
                    self.spare = None;
                    if block.slots.capacity() > IDLE_SLOTS_MAX {
                        self.blocks = VecDeque::new();
                    }
                    return;
                }
                None => {
                    let Some(Block::Hot(block)) = self.blocks.pop_front() else { return };
                    self.spare = Some(block);
                    blocks -= 1;
                }
            }
        }
    }
}

impl Block {
    fn hot(&self) -> Option<&HotBlock> {
        match self {
            Self::Hot(block) => Some(block),
            Self::Cold(_) => None,
        }
    }

    /// The last index; messages beyond have a place in a later block.
    fn last(&self) -> Option<u64> {
        match self {
            Self::Hot(block) => block.last(),
            Self::Cold(block) => Some(block.last),
        }
    }

    fn all_indexes(&self) -> Vec<u64> {
        match self {
            Self::Hot(block) => block.slots.iter().map(|slot| slot.index).collect(),
            Self::Cold(block) => block.indexes().collect(),
        }
    }
}

impl HotBlock {
    /// The messages.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.slots.iter().filter_map(|slot| Some((slot.index, slot.entry.as_ref()?)))
    }

    /// The last index, even if its message is gone; none when it is empty.
    pub(super) fn last(&self) -> Option<u64> {
        self.slots.back().map(|slot| slot.index)
    }

    fn is_open(&self) -> bool {
        self.slots.len() < BLOCK_SLOTS && self.weight.memory < BLOCK_MEMORY
    }

    /// Whether it has room for a message that is recorded in any case, or is not.
    fn takes(&self, recorded: bool) -> bool {
        self.is_open() && (self.recorded == recorded || self.slots.is_empty())
    }

    fn push(&mut self, index: u64, entry: Entry, latest: Timestamp) {
        self.weight += Weight::of(&entry);
        self.latest = latest;
        self.slots.push_back(Slot { index, entry: Some(entry) });
    }
}
