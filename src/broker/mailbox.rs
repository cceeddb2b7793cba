//! The only data-path channel: a batch is pushed under one lock, everything is taken under one lock. Whatever arrives
//! while the owner is busy is its next batch. Its size is bounded by the credit of those who push.

use std::collections::VecDeque;
use std::mem;

use parking_lot::Mutex;

#[derive(Debug)]
pub(super) struct Mailbox<T>(Mutex<VecDeque<T>>);

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }
}

impl<T> Mailbox<T> {
    /// Moves all of `batch` into the mailbox.
    pub(super) fn push(&self, batch: &mut Vec<T>) {
        self.0.lock().extend(batch.drain(..));
    }

    /// Moves everything into `inbox`, which must be empty.
    pub(super) fn take_all(&self, inbox: &mut VecDeque<T>) {
        assert!(inbox.is_empty(), "what was taken before is done before more is taken");
        mem::swap(&mut *self.0.lock(), inbox);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// How many of what waits are like this.
    #[cfg(test)]
    pub(super) fn count(&self, is_like: impl Fn(&T) -> bool) -> usize {
        self.0.lock().iter().filter(|item| is_like(item)).count()
    }
}
