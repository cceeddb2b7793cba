//! What the log should hold, in the simplest form.

use std::collections::BTreeMap;

use crate::log::{Head, LogId, Range};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelEntry {
    pub(super) head: Head,
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(ModelEntry),
    Settle(LogId, Range),
    Deliver(LogId, u64),
    Drop(LogId),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelLog {
    pub(super) live: BTreeMap<u64, ModelEntry>,
    pub(super) next_index: u64,
    pub(super) delivered: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) logs: BTreeMap<LogId, ModelLog>,
}

impl Model {
    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(entry) => {
                let log = self.logs.entry(entry.head.log).or_default();
                log.next_index = entry.head.index + 1;
                log.live.insert(entry.head.index, entry.clone());
            }
            Step::Settle(log, range) => {
                if let Some(log) = self.logs.get_mut(log) {
                    log.live.retain(|index, _| *index < range.first || *index > range.last);
                }
            }
            Step::Deliver(log, index) => {
                if let Some(log) = self.logs.get_mut(log) {
                    log.delivered = log.delivered.max(*index);
                }
            }
            Step::Drop(log) => {
                self.logs.remove(log);
            }
        }
    }

    /// What a restart leaves.
    pub(super) fn restarted(&self) -> Self {
        let mut restarted = self.clone();
        for log in restarted.logs.values_mut() {
            log.live.retain(|_, entry| !entry.head.transient);
        }
        restarted
    }
}
