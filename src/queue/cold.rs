//! A block of messages that are in the log only: what the queue has to know of them without having them.

use std::iter;

use super::record::{IndexRange, Members};
use super::weight::Weight;
use crate::model::ids::Timestamp;
use crate::model::message::Arrival;

/// Memory that a cold block takes besides its gaps.
const COLD_BLOCK_MEMORY: u64 = 112;

/// Messages that are in the log only.
#[derive(Debug)]
pub(super) struct ColdBlock {
    pub first: u64,
    pub last: u64,
    pub count: u32,
    pub state: ColdState,
    /// All its messages have records, those too that have none of their own.
    pub recorded: bool,
    /// What its messages weigh once they are loaded; what a restart knows of that is an estimate.
    pub weight: Weight,
    /// The earliest expiry of its messages.
    pub expires: Timestamp,
    /// No message in this block or before it in its lane expires later.
    pub latest: Timestamp,
    /// When its first message came into the queue, if that is known.
    pub arrived: Option<Arrival>,
    /// The number of indexes left out before each message but the first, as variable-length numbers; none when no index
    /// is left out.
    gaps: Option<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColdState {
    Resting,
    /// To be loaded because messages in it are to expire.
    Wanted,
    /// Asked for.
    Loading,
}

impl ColdBlock {
    /// A block of these messages, if there are any. `indexes` ascend.
    pub(super) fn new(indexes: impl Iterator<Item = u64>, weight: Weight, expires: Timestamp) -> Option<Self> {
        let mut gaps = Vec::new();
        let mut ends: Option<(u64, u64)> = None;
        let mut count = 0u32;
        for index in indexes {
            if let Some((_, last)) = ends {
                push_number(&mut gaps, index.saturating_sub(last).saturating_sub(1));
            }
            ends = Some((ends.map_or(index, |(first, _)| first), index));
            count += 1;
        }
        let (first, last) = ends?;
        let is_dense = last - first + 1 == u64::from(count);
        let gaps = (!is_dense).then(|| gaps.into_boxed_slice());
        Some(Self {
            first,
            last,
            count,
            state: ColdState::Resting,
            recorded: false,
            weight,
            expires,
            latest: Timestamp(u64::MAX),
            arrived: None,
            gaps,
        })
    }

    /// The same for messages that are known by a chunk of the log.
    pub(super) fn of(members: &Members, weight: Weight, expires: Timestamp) -> Option<Self> {
        match members {
            Members::Dense(range) => {
                let count = range.last.checked_sub(range.first)? + 1;
                let block = Self::new(iter::once(range.first), weight, expires)?;
                Some(Self { last: range.last, count: u32::try_from(count).ok()?, ..block })
            }
            Members::Sparse(indexes) => Self::new(indexes.iter().copied(), weight, expires),
        }
    }

    /// Bytes of memory that it takes while it is cold.
    pub(super) fn summary_memory(&self) -> u64 {
        COLD_BLOCK_MEMORY + self.gaps.as_ref().map_or(0, |gaps| gaps.len() as u64)
    }

    pub(super) fn indexes(&self) -> Indexes<'_> {
        Indexes { next: Some(self.first), last: self.last, gaps: self.gaps.as_deref() }
    }

    /// The indexes as ranges that are as long as possible.
    pub(super) fn ranges(&self) -> impl Iterator<Item = IndexRange> + '_ {
        let dense = self.gaps.is_none().then_some(IndexRange { first: self.first, last: self.last });
        let mut indexes = self.gaps.is_some().then(|| self.indexes()).into_iter().flatten().peekable();
        let sparse = iter::from_fn(move || {
            let first = indexes.next()?;
            let mut last = first;
            while indexes.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            Some(IndexRange { first, last })
        });
        dense.into_iter().chain(sparse)
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(self.indexes().count(), self.count as usize, "cold messages are counted");
        assert!(self.count > 0, "no empty cold blocks");
        assert_eq!(self.indexes().last(), Some(self.last), "the last cold message");
        assert!(self.indexes().zip(self.indexes().skip(1)).all(|(a, b)| a < b), "cold indexes ascend");
        assert!(self.expires <= self.latest, "the earliest expiry is not after the latest");
    }
}

/// The indexes of a cold block, ascending.
#[derive(Clone, Debug)]
pub(super) struct Indexes<'a> {
    next: Option<u64>,
    last: u64,
    gaps: Option<&'a [u8]>,
}

impl Iterator for Indexes<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let index = self.next?;
        self.next = (index < self.last).then(|| index + 1 + self.gaps.as_mut().map_or(0, take_number));
        Some(index)
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(from: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = from.split_first() else { break };
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}
