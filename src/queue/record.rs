//! What a queue and its durable log tell each other: which messages have a record in the log, which records are needed
//! no more, what comes back from the log.
//!
//! The queue decides, the shard writes: `Reply::Kept` says that a message needs a record, `Fifo::take_settled` which
//! records are needed no more.

use std::mem;
use std::sync::Arc;

use super::Recorded;
use super::dead_letter::DeathHistory;
use crate::model::ids::{MessageIndex, Timestamp};
use crate::model::message::Message;

/// Whether the queue, and with it its persistent messages, is to survive a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Durable,
    Transient,
}

impl Durability {
    /// Whether a queue of this durability keeps a record of this message, as long as it keeps the message.
    #[inline]
    pub(super) fn logs(self, message: &Message) -> bool {
        message.is_persistent() && self == Self::Durable
    }
}

/// Indexes from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    pub first: u64,
    pub last: u64,
}

/// How far ahead of the head a queue that somebody reads keeps and loads messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Some blocks, as many as take a MiB of memory.
    Window,
    /// The first block alone: what many queues keep together is too much otherwise.
    Head,
}

/// A message that was read back from the log.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub index: MessageIndex,
    pub message: Message,
    pub expires: Option<Timestamp>,
    pub deaths: Option<Arc<DeathHistory>>,
}

/// What is known of a queue after a restart, without its messages.
#[derive(Clone, Debug, Default)]
pub struct RecoveredQueue {
    /// The index of the next message: above all that were ever in use.
    pub next_index: u64,
    /// Messages up to this index may have been delivered before; 0 for none.
    pub delivered_through: u64,
    /// Ascending within a lane, at most a few hundred messages each.
    pub chunks: Vec<ColdChunk>,
}

/// Some messages of one priority that are in the log only.
#[derive(Clone, Debug)]
pub struct ColdChunk {
    /// The messages' priority; the queue's highest priority stands for all above.
    pub lane: u8,
    pub members: Members,
    /// Body bytes of all members.
    pub bytes: u64,
    /// Bytes of all members' contents, with their properties.
    pub length: u64,
    /// The earliest expiry among the members.
    pub expires: Option<Timestamp>,
}

/// The indexes of a chunk's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// All indexes of the range.
    Dense(IndexRange),
    /// These, ascending.
    Sparse(Vec<u64>),
}

/// Emptied lists of settled ranges longer than this are given back.
const IDLE_RANGES_MAX: usize = 1024;

/// Which messages have records, and which records are to go.
#[derive(Debug)]
pub(super) struct Records {
    durability: Durability,
    settled: Settled,
    /// The message that is being enqueued, when it will need a record if it is kept; 0 otherwise.
    arriving: u64,
    /// Ready messages get records that would have none.
    all: bool,
    /// Messages that have records of their own.
    persistent: u64,
}

impl Records {
    pub(super) fn new(durability: Durability) -> Self {
        Self { durability, settled: Settled::default(), arriving: 0, all: false, persistent: 0 }
    }

    /// Whether the queue keeps a record of this message, as long as it keeps the message.
    #[inline]
    pub(super) fn is_logged(&self, message: &Message) -> bool {
        self.durability.logs(message)
    }

    /// A message comes in, which has no record yet.
    #[inline]
    pub(super) fn arrive(&mut self, index: u64, message: &Message) {
        self.arriving = 0;
        if self.is_logged(message) {
            self.arriving = index;
            self.persistent += 1;
        }
    }

    pub(super) fn set_all(&mut self, all: bool) {
        self.all = all;
    }

    /// The message that came in becomes a ready one. Whether it gets a record in any case.
    #[inline]
    pub(super) fn keep(&mut self, index: u64) -> bool {
        if self.all {
            self.arriving = index;
        }
        self.all
    }

    /// Whether the message that came in needs a record: it would have one, and did not leave at once.
    #[inline]
    pub(super) fn arrived(&mut self) -> bool {
        mem::take(&mut self.arriving) != 0
    }

    /// A message left for good: its record, if it has one, is needed no more.
    #[inline]
    pub(super) fn left(&mut self, index: u64, message: &Message) {
        if matches!(self.release(index, message), Recorded::As(_)) {
            self.settle(IndexRange { first: index, last: index });
        }
    }

    /// A message leaves whose record, if it has one, is left to somebody else.
    #[inline]
    pub(super) fn release(&mut self, index: u64, message: &Message) -> Recorded {
        if !self.is_logged(message) {
            return Recorded::No;
        }
        self.persistent = self.persistent.saturating_sub(1);
        if self.arriving == index {
            self.arriving = 0;
            return Recorded::NotYet;
        }
        Recorded::As(MessageIndex(index))
    }

    pub(super) fn persistent(&self) -> u64 {
        self.persistent
    }

    /// There are this many messages with records of their own, after many came or went at once.
    pub(super) fn set_persistent(&mut self, count: u64) {
        self.persistent = count;
    }

    /// These records are needed no more.
    #[inline]
    pub(super) fn settle(&mut self, range: IndexRange) {
        self.settled.add(range);
    }

    /// Moves the settled ranges out.
    pub(super) fn take_settled(&mut self, into: &mut Vec<IndexRange>) {
        self.settled.take(into);
    }

    /// The queue is gone, and all its records with it.
    pub(super) fn finish(&mut self) {
        self.settled = Settled::default();
        self.arriving = 0;
    }
}

/// Ranges of indexes whose records are needed no more.
#[derive(Debug, Default)]
pub(super) struct Settled(Vec<IndexRange>);

impl Settled {
    #[inline]
    pub(super) fn add(&mut self, range: IndexRange) {
        match self.0.last_mut() {
            Some(before) if before.last.wrapping_add(1) == range.first => before.last = range.last,
            _ => self.0.push(range),
        }
    }

    /// Moves the ranges out.
    pub(super) fn take(&mut self, into: &mut Vec<IndexRange>) {
        into.append(&mut self.0);
        if self.0.capacity() > IDLE_RANGES_MAX {
            self.0 = Vec::new();
        }
    }
}
