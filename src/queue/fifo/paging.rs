//! What the queue and its log do for each other: records that may go, messages that leave memory and come back, and the
//! queue as it begins after a restart.

use std::sync::Arc;

use super::super::backlog::Window;
use super::super::{Durability, Effect, Gate, IndexRange, Loaded, Reach, RecoveredQueue};
use super::Fifo;
use crate::model::entity::QueueOptions;
use crate::model::ids::{MessageIndex, Timestamp};

impl Fifo {
    /// A durable queue after a restart: all its messages are ready, and in the log only. Its lease starts at `now`.
    #[must_use]
    pub fn recovered(options: Arc<QueueOptions>, now: Timestamp, queue: RecoveredQueue) -> Self {
        let mut fifo = Self::new(options, Durability::Durable, now);
        let highest = fifo.ready.recover(queue.chunks, queue.delivered_through);
        fifo.next_index = queue.next_index.max(queue.delivered_through + 1).max(highest + 1);
        fifo.delivered_through = queue.delivered_through;
        fifo.flushed = fifo.next_index - 1;
        fifo.records.set_persistent(fifo.ready.len());
        fifo
    }

    /// Moves out the indexes of records that are needed no more since the last call: of messages that left for good.
    /// Indexes that follow each other come as one range, mostly; ranges do not overlap, and are in no particular order.
    pub fn take_settled(&mut self, into: &mut Vec<IndexRange>) {
        self.records.take_settled(into);
        self.ready.take_strays(into);
    }

    /// The letters of a message that died are in their queues, so its record is needed no more.
    pub fn letters_kept(&mut self, index: MessageIndex) {
        if !self.finished {
            self.records.settle(IndexRange { first: index.0, last: index.0 });
        }
    }

    /// Records up to this index can be read back from now on.
    pub fn flushed(&mut self, through: MessageIndex) {
        if through.0 > self.flushed {
            self.flushed = through.0;
            self.may_page_out = true;
        }
    }

    /// Whether somebody may want the first messages soon: a consumer, or whoever got one since the last `page_out`.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_polled || !self.consumers.is_empty()
    }

    /// Gives about `bytes_max` bytes of memory back by keeping messages in the log only, if there are as many that can
    /// be read back and are not within `reach` of being delivered: to a consumer, or to somebody who got one since the last
    /// time. The bytes freed. Cheap when there is nothing to be done.
    pub fn page_out(&mut self, bytes_max: u64, reach: Reach) -> u64 {
        if !self.may_page_out && reach == Reach::Window {
            return 0;
        }
        let window = if self.is_read() { Window::of(reach) } else { Window::none(reach) };
        self.is_polled = false;
        let freed = self.ready.page_out(window, bytes_max, self.flushed);
        self.may_page_out = freed >= bytes_max;
        freed
    }

    /// How far ahead of the head messages are loaded from now on.
    #[inline]
    pub fn reach(&mut self, reach: Reach) {
        self.reach = reach;
    }

    /// Whether messages that would have no record get one from now on, as long as they are ready and were not handed out:
    /// so that they can leave memory. `Reply::Kept` tells, and `take_settled` when they leave.
    pub fn record_all(&mut self, all: bool) {
        self.records.set_all(all);
    }

    /// Bytes of memory that the messages in memory take, ready and unacknowledged, with their properties, their histories
    /// of deaths and their bookkeeping; and a little for those in the log only.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.ready.memory() + self.unacked.weight().memory
    }

    /// The highest index ever handed to a consumer or get; 0 for none.
    #[must_use]
    pub fn delivered_through(&self) -> u64 {
        self.delivered_through
    }

    /// The index that the next message gets.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Takes what was found of a load, and goes on with it.
    pub(super) fn loaded(
        &mut self,
        now: Timestamp,
        range: IndexRange,
        entries: Vec<Loaded>,
        gate: &mut impl Gate,
        effects: &mut Vec<Effect>,
    ) {
        self.may_page_out = true;
        let count = self.ready.load(range, entries, &mut self.records);
        if count > 0 {
            effects.push(Effect::Lost { count });
        }
        self.trim(now, effects);
        self.checkout(now, gate, effects);
    }

    /// Asks for the messages that are needed and not in memory.
    pub(super) fn request_loads(&mut self, effects: &mut Vec<Effect>) {
        self.ready.request_loads(self.head_needed, self.reach, |IndexRange { first, last }, bytes| {
            effects.push(Effect::Load { first, last, bytes });
        });
    }
}
