//! From the chunks that the log knows after a restart to the cold blocks of the lanes.

use super::super::backlog::NEVER;
use super::super::cold::ColdBlock;
use super::super::record::{ColdChunk, IndexRange, Members};
use super::super::weight::Weight;
use crate::model::ids::Timestamp;
use crate::model::message::MESSAGE_OVERHEAD;

/// Messages in a block that is made of several chunks.
const BLOCK_MESSAGES_MAX: usize = 256;

/// The cold blocks, each with its lane, ascending within each lane.
pub(super) fn blocks(chunks: Vec<ColdChunk>, priority_max: u8) -> Vec<(u8, ColdBlock)> {
    let mut chunks: Vec<(u8, IndexRange, ColdChunk)> = chunks
        .into_iter()
        .filter_map(|chunk| Some((chunk.lane.min(priority_max), chunk.members.ends()?, chunk)))
        .collect();
    chunks.sort_by_key(|(lane, ends, _)| (*lane, ends.first));
    let mut blocks = Vec::with_capacity(chunks.len());
    let mut overlapping: Vec<ColdChunk> = Vec::new();
    let mut reach: Option<(u8, u64)> = None;
    for (lane, ends, chunk) in chunks {
        if let Some((before, last)) = reach
            && (before != lane || last < ends.first)
        {
            join(before, &mut overlapping, &mut blocks);
            reach = None;
        }
        reach = Some((lane, reach.map_or(ends.last, |(_, last)| last.max(ends.last))));
        overlapping.push(chunk);
    }
    if let Some((lane, _)) = reach {
        join(lane, &mut overlapping, &mut blocks);
    }
    blocks
}

/// Turns chunks of one lane whose indexes overlap into blocks whose indexes do not: the priorities of their messages are
/// one to the queue. What is known of the chunks together is known of the blocks together; single blocks get their share
/// of the bytes, until they are loaded.
fn join(lane: u8, chunks: &mut Vec<ColdChunk>, blocks: &mut Vec<(u8, ColdBlock)>) {
    if let [chunk] = chunks.as_slice() {
        let expires = chunk.expires.unwrap_or(NEVER);
        blocks.extend(ColdBlock::of(&chunk.members, chunk.weight(), expires).map(|block| (lane, block)));
        chunks.clear();
        return;
    }
    let mut weight: Weight = chunks.iter().map(ColdChunk::weight).sum();
    let expires: Timestamp = chunks.iter().filter_map(|chunk| chunk.expires).min().unwrap_or(NEVER);
    let mut indexes: Vec<u64> = chunks.drain(..).flat_map(|chunk| chunk.members.into_indexes()).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let mut left = indexes.len() as u64;
    for part in indexes.chunks(BLOCK_MESSAGES_MAX) {
        let of = |sum: u64| sum / left.max(1) * part.len() as u64;
        let share = Weight { bytes: of(weight.bytes), memory: of(weight.memory) };
        let share = if part.len() as u64 == left { weight } else { share };
        left -= part.len() as u64;
        weight -= share;
        blocks.extend(ColdBlock::new(part.iter().copied(), share, expires).map(|block| (lane, block)));
    }
}

impl ColdChunk {
    /// What its messages weigh once they are loaded, roughly.
    fn weight(&self) -> Weight {
        let count = match &self.members {
            Members::Dense(range) => range.last.saturating_sub(range.first) + 1,
            Members::Sparse(indexes) => indexes.len() as u64,
        };
        Weight { bytes: self.bytes, memory: count * MESSAGE_OVERHEAD as u64 + self.length.max(self.bytes) }
    }
}

impl Members {
    /// The first and last index; none when there are no members.
    fn ends(&self) -> Option<IndexRange> {
        match self {
            Self::Dense(range) => (range.first <= range.last).then_some(*range),
            Self::Sparse(indexes) => Some(IndexRange { first: *indexes.first()?, last: *indexes.last()? }),
        }
    }

    fn into_indexes(self) -> Vec<u64> {
        match self {
            Self::Dense(range) => (range.first..=range.last).collect(),
            Self::Sparse(indexes) => indexes,
        }
    }
}
