//! What queues asked the log for: shards put requests in, reader threads take them out, read, and post the answer back.
//! Its length is bounded by the loads each queue may have in flight.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::envelope::LoadRequest;

#[derive(Default)]
pub(super) struct Loads {
    requests: Mutex<VecDeque<LoadRequest>>,
    added: Condvar,
}

impl Loads {
    pub(super) fn add(&self, requests: &mut Vec<LoadRequest>) {
        let count = requests.len();
        self.requests.lock().extend(requests.drain(..));
        for _ in 0..count {
            self.added.notify_one();
        }
    }

    /// Puts a request back that could not be served yet: it is the next one again.
    pub(super) fn put_back(&self, request: LoadRequest) {
        self.requests.lock().push_front(request);
        self.added.notify_one();
    }

    /// The oldest request; waits for one at most `timeout`.
    pub(super) fn take(&self, timeout: Duration) -> Option<LoadRequest> {
        let mut requests = self.requests.lock();
        if requests.is_empty() && !timeout.is_zero() {
            self.added.wait_for(&mut requests, timeout);
        }
        requests.pop_front()
    }
}
