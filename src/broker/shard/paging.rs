//! What a shard's queues leave to the log, so that they stay within their budget of memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use crate::model::ids::{MessageIndex, QueueId};
use crate::queue::Reach;

use super::{Shard, note_held};

/// The part of the memory budget that is left to queues which nobody reads.
const UNREAD_SHARE: u64 = 2;
/// What a queue keeps in memory for its consumers, about.
const AHEAD_MEMORY: u64 = 1024 * 1024;

impl Shard {
    /// Entries of queues can be read back. Queues that nobody reads have the less in memory: what comes is not what leaves
    /// next.
    pub(in crate::broker) fn flushed(&mut self, through: &VecDeque<(QueueId, MessageIndex)>) {
        let unread = self.memory_budget / UNREAD_SHARE;
        for (queue, index) in through {
            let Some(owned) = self.queues.get_mut(queue) else { continue };
            owned.machine.flushed(*index);
            self.pageable.insert(*queue);
            if self.held > unread && !owned.machine.is_read() {
                self.page_out_of(*queue, self.held - unread, Reach::Window);
            }
        }
    }

    /// Brings the queues' memory back under the budget, as far as the log has what they hold: first what nobody is about to
    /// get, then most of what consumers get next.
    pub(super) fn page_out(&mut self) {
        let budget = self.memory_budget.min(self.common.memory_ceiling.load(Ordering::Relaxed));
        while self.held > budget {
            let Some(queue) = self.pageable.pop_first() else { break };
            let wanted = self.held - budget;
            if self.page_out_of(queue, wanted, Reach::Window) >= wanted {
                self.pageable.insert(queue);
            } else if self.queues.contains_key(&queue) {
                self.ahead.insert(queue);
            }
        }
        // A few windows are not what takes the memory, and reading them again takes time.
        let is_much = self.ahead.len() as u64 * AHEAD_MEMORY > budget / 2;
        while is_much && self.held > budget {
            let Some(queue) = self.ahead.pop_first() else { break };
            self.is_narrow = true;
            let wanted = self.held - budget;
            if self.page_out_of(queue, wanted, Reach::Head) >= wanted {
                self.ahead.insert(queue);
            }
        }
        self.is_narrow &= self.held > budget / 4 * 3;
    }

    /// Brings memory of one queue back, about so many bytes. The bytes freed.
    fn page_out_of(&mut self, queue: QueueId, wanted: u64, reach: Reach) -> u64 {
        let Some(owned) = self.queues.get_mut(&queue) else { return 0 };
        let freed = owned.machine.page_out(wanted, reach);
        let held = owned.machine.memory();
        note_held(&mut self.held, owned.held, held);
        owned.held = held;
        freed
    }
}
