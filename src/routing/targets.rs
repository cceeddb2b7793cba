//! What a route produces: a reused, deduplicated list of queues.

use std::collections::HashSet;

use super::map::FixedState;
use crate::model::ids::QueueId;
use crate::model::names::ExchangeName;

/// A queue as the publishing side sees it: its number and the shard that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueTarget {
    pub id: QueueId,
    pub shard: u16,
}

/// The queues of one or more routes, each once. Reuse one per session: it keeps its memory.
#[derive(Debug)]
pub struct Targets {
    queues: Vec<QueueTarget>,
    seen: Seen,
    /// `x-recent-history` exchanges that must remember the message.
    pub histories: Vec<ExchangeName>,
    /// Whether the result depends on the exchange and the routing keys alone, so that it may be kept and used for later
    /// messages while the table is the same one.
    pub cacheable: bool,
}

impl Default for Targets {
    fn default() -> Self {
        Self { queues: Vec::new(), seen: Seen::default(), histories: Vec::new(), cacheable: true }
    }
}

impl Targets {
    /// Forgets the results and keeps the memory.
    pub fn clear(&mut self) {
        self.queues.clear();
        self.seen.clear();
        self.histories.clear();
        self.cacheable = true;
    }

    /// The queues in the order they were found.
    #[must_use]
    pub fn queues(&self) -> &[QueueTarget] {
        &self.queues
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Adds `target` unless its queue is there already.
    pub fn push(&mut self, target: QueueTarget) {
        let known = &self.queues;
        if self.seen.insert(target.id.0, known.len(), |at| known[at].id.0) {
            self.queues.push(target);
        }
    }

    /// Drops the targets that `is_kept` refuses.
    pub fn retain(&mut self, is_kept: impl FnMut(&QueueTarget) -> bool) {
        self.queues.retain(is_kept);
        self.seen.clear();
    }

    /// Adds a target that is certainly not there yet.
    pub(super) fn push_distinct(&mut self, target: QueueTarget) {
        self.queues.push(target);
    }

    /// Rewrites the list, dropping targets for which `replace` has none.
    pub(super) fn replace_each(&mut self, replace: impl Fn(QueueTarget) -> Option<QueueTarget>) {
        let old = std::mem::take(&mut self.queues);
        self.seen.clear();
        old.into_iter().filter_map(replace).for_each(|target| self.push(target));
    }
}

/// Up to this many members are searched one by one.
const LINEAR_MAX: usize = 16;

/// Membership of numbers in a growing list that somebody else keeps: the list itself while it is short, a set beside it
/// when it is longer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    set: HashSet<u64, FixedState>,
    /// How many members of the list are in the set.
    covered: usize,
}

impl Seen {
    /// Whether `number` is not among the `length` members yet; then the caller must append it to its list.
    pub(super) fn insert(&mut self, number: u64, length: usize, member: impl Fn(usize) -> u64) -> bool {
        if length <= LINEAR_MAX {
            return (0..length).all(|at| member(at) != number);
        }
        self.set.extend((self.covered..length).map(member));
        self.covered = length;
        if !self.set.insert(number) {
            return false;
        }
        self.covered += 1;
        true
    }

    pub(super) fn clear(&mut self) {
        if self.covered > 0 {
            self.set.clear();
            self.covered = 0;
        }
    }
}
