//! The messages of one priority that were never delivered, in order of index: a queue of fixed-size blocks, so that it
//! neither copies everything when it grows nor keeps memory when it drains. A message that leaves from the middle (it
//! expired there) leaves a hole; blocks with more holes than messages are closed up.

use std::collections::VecDeque;
use std::sync::Arc;

use super::dead_letter::DeathHistory;
use crate::model::ids::Timestamp;
use crate::model::message::Message;

/// The expiry of a message that does not expire.
pub(super) const NEVER: Timestamp = Timestamp(u64::MAX);

/// Slots per block: 16 KiB.
const BLOCK_SLOTS: usize = 256;

/// An empty backlog keeps a block of at most this capacity.
const IDLE_SLOTS_MAX: usize = 32;

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
    /// An emptied block, to be filled again.
    spare: Option<Block>,
}

#[derive(Debug, Default)]
struct Block {
    slots: VecDeque<Slot>,
    holes: usize,
}

#[derive(Debug)]
struct Slot {
    index: u64,
    entry: Option<Entry>,
}

// One cache line per queued message.
const _: () = assert!(size_of::<Slot>() == 64);

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.front().is_none_or(|block| block.slots.is_empty())
    }

    /// Appends; `index` is above all before it.
    pub(super) fn push_back(&mut self, index: u64, entry: Entry) {
        let slot = Slot { index, entry: Some(entry) };
        match self.blocks.back_mut() {
            Some(block) if block.slots.len() < BLOCK_SLOTS => block.slots.push_back(slot),
            None => {
                let mut block = Block::default();
                block.slots.push_back(slot);
                self.blocks.push_back(block);
            }
            Some(_) => {
                let mut block = self
                    .spare
                    .take()
                    .unwrap_or_else(|| Block { slots: VecDeque::with_capacity(BLOCK_SLOTS), holes: 0 });
                block.slots.push_back(slot);
                self.blocks.push_back(block);
            }
        }
    }

    pub(super) fn front(&self) -> Option<(u64, &Entry)> {
        let slot = self.blocks.front()?.slots.front()?;
        Some((slot.index, slot.entry.as_ref()?))
    }

    pub(super) fn pop_front(&mut self) -> Option<(u64, Entry)> {
        let slot = self.blocks.front_mut()?.slots.pop_front()?;
        self.trim_front();
        Some((slot.index, slot.entry?))
    }

    pub(super) fn find(&self, index: u64) -> Option<&Entry> {
        let (block, slot) = self.locate(index)?;
        self.blocks[block].slots[slot].entry.as_ref()
    }

    pub(super) fn remove(&mut self, index: u64) -> Option<Entry> {
        if self.front().is_some_and(|(first, _)| first == index) {
            return self.pop_front().map(|(_, entry)| entry);
        }
        let (at, slot) = self.locate(index)?;
        let block = &mut self.blocks[at];
        let entry = block.slots[slot].entry.take()?;
        block.holes += 1;
        if block.holes * 2 > block.slots.len() {
            block.slots.retain(|slot| slot.entry.is_some());
            block.holes = 0;
            if block.slots.capacity() > 4 * block.slots.len() {
                block.slots.shrink_to_fit();
            }
            if block.slots.is_empty() {
                self.blocks.remove(at);
            }
        }
        Some(entry)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.blocks
            .iter()
            .flat_map(|block| &block.slots)
            .filter_map(|slot| slot.entry.as_ref().map(|entry| (slot.index, entry)))
    }

    pub(super) fn check_invariants(&self) {
        let slots = || self.blocks.iter().flat_map(|block| &block.slots);
        assert!(slots().zip(slots().skip(1)).all(|(a, b)| a.index < b.index), "backlog indexes ascend");
        assert!(slots().next().is_none_or(|slot| slot.entry.is_some()), "the backlog begins with a message");
        assert!(self.blocks.len() <= 1 || self.blocks.iter().all(|block| !block.slots.is_empty()), "no empty blocks");
        for block in &self.blocks {
            assert_eq!(block.holes, block.slots.iter().filter(|slot| slot.entry.is_none()).count(), "holes counted");
        }
    }

    fn locate(&self, index: u64) -> Option<(usize, usize)> {
        let block = self.blocks.partition_point(|block| block.slots.back().is_some_and(|slot| slot.index < index));
        let slot = self.blocks.get(block)?.slots.binary_search_by_key(&index, |slot| slot.index).ok()?;
        Some((block, slot))
    }

    /// Makes the first slot a message again, and gives back memory that is not needed.
    fn trim_front(&mut self) {
        let mut blocks = self.blocks.len();
        while let Some(block) = self.blocks.front_mut() {
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
                    self.spare = self.blocks.pop_front();
                    blocks -= 1;
                }
            }
        }
    }
}
