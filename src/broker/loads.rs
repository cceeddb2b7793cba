//! What queues asked the log for: shards put requests in, reader threads take them out, read, and post the answer back.
//! Its length is bounded by the loads each queue may have in flight; how much has been read and not taken by its shard,
//! by the number of answers, each of which is some hundred KiB or a single message.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::envelope::LoadRequest;

/// Answers on the way to their shards.
const UNDER_WAY_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Loads {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: VecDeque<LoadRequest>,
    /// Requests that were taken out and whose answers have not been taken by their shards.
    under_way: usize,
}

impl Loads {
    pub(super) fn add(&self, requests: &mut Vec<LoadRequest>) {
        let count = requests.len();
        self.state.lock().requests.extend(requests.drain(..));
        for _ in 0..count {
            self.changed.notify_one();
        }
    }

    /// Puts a request back that could not be served yet: it is the next one again.
    pub(super) fn put_back(&self, request: LoadRequest) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        state.requests.push_front(request);
        drop(state);
        self.changed.notify_one();
    }

    /// The oldest request, once not too many answers are under way; waits for it at most `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Option<LoadRequest> {
        let mut state = self.state.lock();
        if !state.is_ready() && !timeout.is_zero() {
            self.changed.wait_for(&mut state, timeout);
        }
        if !state.is_ready() {
            return None;
        }
        state.under_way += 1;
        state.requests.pop_front()
    }

    /// Shards have taken that many answers.
    pub(super) fn taken(&self, count: usize) {
        let mut state = self.state.lock();
        state.under_way = state.under_way.checked_sub(count).expect("every answer was asked for");
        drop(state);
        for _ in 0..count {
            self.changed.notify_one();
        }
    }
}

impl State {
    fn is_ready(&self) -> bool {
        !self.requests.is_empty() && self.under_way < UNDER_WAY_MAX
    }
}

#[cfg(test)]
mod tests {
    use crate::model::ids::QueueId;

    use super::*;

    #[test]
    fn no_more_is_read_than_shards_take() {
        let loads = Loads::default();
        let request = |first| LoadRequest { queue: QueueId(1), first, last: first };
        loads.add(&mut (0..100).map(request).collect());
        for first in 0..UNDER_WAY_MAX as u64 {
            assert_eq!(loads.take(Duration::ZERO), Some(request(first)));
        }
        assert_eq!(loads.take(Duration::ZERO), None);
        assert_eq!(loads.take(Duration::from_millis(1)), None);
        loads.taken(1);
        assert_eq!(loads.take(Duration::from_millis(1)), Some(request(16)));
        assert_eq!(loads.take(Duration::ZERO), None);
    }
}
