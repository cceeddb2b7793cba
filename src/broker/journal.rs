//! What waits for the log: batches to be written, and the events and credit that go out once everything submitted before
//! them is durable; and what shards are told of letters that they wait for. The order of submission is the order in the log.
//!
//! ```text
//! shard turn, definition ── submit ──► pending ── write (the log's task) ──► WAL, synced ──► held events ──► outboxes
//! ```
//!
//! A batch that nobody waits for (acknowledgements) goes with the next one that somebody waits for, or after a short while.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::log::{Batch, CommitError, LogError, Writer};
use crate::model::request::Event;

use super::outbox::Outbox;

/// How long a batch that nobody waits for may wait for company.
const LAZY: Duration = Duration::from_millis(50);
/// Bytes of such batches that are enough company.
const LAZY_BYTES: usize = 1024 * 1024;
/// Bytes written at once, if there is more than one batch: a sync of more takes longer than a millisecond.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// Emptied batches kept for reuse, and the largest worth keeping.
const SPARE_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What goes out once everything submitted up to here is durable.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) events: Vec<(Arc<Outbox>, Vec<Event>)>,
    /// Publish credit, in bytes.
    pub(super) credit: Vec<(Arc<Outbox>, usize)>,
    /// The numbers of dead letters, by the shards that wait for them.
    pub(super) letters: Vec<(u16, Vec<u64>)>,
}

/// Tells a shard that letters with these numbers are in their queues for good.
pub(super) type TellShard<'a> = &'a dyn Fn(u16, Vec<u64>);

#[derive(Debug, Default)]
pub(super) struct Submission {
    pub(super) batch: Batch,
    pub(super) held: Held,
}

#[derive(Default)]
struct Pending {
    submissions: VecDeque<Submission>,
    bytes: usize,
    /// Bytes of those that were taken and are not written yet.
    writing_bytes: usize,
    /// Somebody waits for one of them.
    urgent: bool,
    /// Some were taken and are not durable yet.
    writing: bool,
    stopping: bool,
    spare: Vec<Batch>,
}

pub(super) struct Writing {
    writer: Writer,
    /// Taken, and to be written first.
    pub(super) taken: VecDeque<Submission>,
}

/// See the module's documentation.
pub(super) struct Journal {
    pending: Mutex<Pending>,
    submitted: Notify,
    pub(super) writing: Mutex<Writing>,
}

impl Journal {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            pending: Mutex::default(),
            submitted: Notify::new(),
            writing: Mutex::new(Writing { writer, taken: VecDeque::new() }),
        }
    }

    /// Bytes of batches that are not written yet.
    pub(super) fn bytes(&self) -> u64 {
        let pending = self.pending.lock();
        (pending.bytes + pending.writing_bytes) as u64
    }

    /// An empty batch.
    pub(super) fn spare(&self) -> Batch {
        self.pending.lock().spare.pop().unwrap_or_default()
    }

    /// Takes over what is to be written and what waits for it.
    pub(super) fn submit(&self, submission: Submission, tell: TellShard<'_>) {
        let mut pending = self.pending.lock();
        if submission.batch.is_empty() && pending.submissions.is_empty() && !pending.writing {
            drop(pending);
            submission.held.release(tell);
            return;
        }
        let first = pending.submissions.is_empty();
        let was_urgent = pending.urgent;
        pending.bytes += submission.batch.length();
        pending.urgent |= submission.batch.is_urgent() || !submission.held.is_empty();
        pending.submissions.push_back(submission);
        let wake = first || pending.urgent && !was_urgent || pending.bytes >= LAZY_BYTES;
        drop(pending);
        if wake {
            self.submitted.notify_one();
        }
    }

    /// Waits until there is something to write, at most `timeout`. Batches nobody waits for get their short while. For the
    /// task that calls `write`.
    pub(super) async fn wait(&self, timeout: Duration) {
        loop {
            let (is_due, timeout) = {
                let pending = self.pending.lock();
                (pending.is_due(), if pending.submissions.is_empty() { timeout } else { LAZY.min(timeout) })
            };
            if is_due || tokio::time::timeout(timeout, self.submitted.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Whether `wait` would not wait.
    pub(super) fn is_due(&self) -> bool {
        self.pending.lock().is_due()
    }

    /// Makes every wait short from here on.
    pub(super) fn stop(&self) {
        self.pending.lock().stopping = true;
        self.submitted.notify_one();
    }

    /// Writes what is pending, group by group, and lets go what waited for it. Whether there was anything.
    ///
    /// After an error nothing of the group has gone out, and the next call tries it again.
    pub(super) fn write(&self, tell: TellShard<'_>) -> Result<bool, CommitError> {
        let mut writing = self.writing.lock();
        // What an error left over comes first.
        let mut any = self.write_taken(&mut writing, tell)?;
        self.take(&mut writing);
        any |= self.write_taken(&mut writing, tell)?;
        self.finish();
        Ok(any)
    }

    fn write_taken(&self, writing: &mut Writing, tell: TellShard<'_>) -> Result<bool, CommitError> {
        let any = !writing.taken.is_empty();
        while !writing.taken.is_empty() {
            for _ in 0..writing.commit()? {
                self.release(writing, tell);
            }
        }
        Ok(any)
    }

    /// Takes what is pending; nothing taken before is left.
    pub(super) fn take(&self, writing: &mut Writing) {
        assert!(writing.taken.is_empty(), "what was taken before is written before more is taken");
        let mut pending = self.pending.lock();
        mem::swap(&mut writing.taken, &mut pending.submissions);
        pending.writing_bytes = mem::take(&mut pending.bytes);
        pending.urgent = false;
        pending.writing = !writing.taken.is_empty();
    }

    /// All that was taken is durable, and nobody waits for it any more.
    pub(super) fn finish(&self) {
        let mut pending = self.pending.lock();
        pending.writing = false;
        pending.writing_bytes = 0;
    }

    /// Lets go what waited for the first of the submissions, which is durable.
    pub(super) fn release(&self, writing: &mut Writing, tell: TellShard<'_>) {
        let submission = writing.taken.pop_front().expect("what is durable was taken, and is released once");
        submission.held.release(tell);
        self.recycle(submission.batch);
    }

    /// Syncs what was written without a sync.
    pub(super) fn sync(&self) -> Result<(), LogError> {
        let mut writing = self.writing.lock();
        if writing.writer.unsynced() { writing.writer.sync() } else { Ok(()) }
    }

    fn recycle(&self, mut batch: Batch) {
        if batch.capacity() > SPARE_BYTES_MAX {
            return;
        }
        batch.clear();
        let mut pending = self.pending.lock();
        if pending.spare.len() < SPARE_MAX {
            pending.spare.push(batch);
        }
    }
}

impl Writing {
    /// Makes the first of the submissions durable; how many.
    pub(super) fn commit(&mut self) -> Result<usize, CommitError> {
        let count = group(&self.taken);
        let batches: Vec<&Batch> = self.taken.iter().take(count).map(|submission| &submission.batch).collect();
        self.writer.commit(&batches)?;
        Ok(count)
    }
}

impl Submission {
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.held.is_empty()
    }
}

impl Pending {
    fn is_due(&self) -> bool {
        // `writing` outside of `write` means that an error has left some over.
        self.urgent || self.stopping || self.writing || self.bytes >= LAZY_BYTES
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.credit.is_empty() && self.letters.is_empty()
    }

    /// Adds a letter that is in its queues once the batch is durable.
    pub(super) fn add_letter(&mut self, shard: u16, number: u64) {
        match self.letters.iter_mut().find(|(other, _)| *other == shard) {
            Some((_, numbers)) => numbers.push(number),
            None => self.letters.push((shard, vec![number])),
        }
    }

    fn release(self, tell: TellShard<'_>) {
        for (outbox, mut events) in self.events {
            outbox.push(&mut events);
        }
        for (outbox, bytes) in self.credit {
            outbox.return_publish_credit(bytes);
        }
        for (shard, numbers) in self.letters {
            tell(shard, numbers);
        }
    }
}

/// How many of the first submissions are written at once.
fn group(taken: &VecDeque<Submission>) -> usize {
    let mut bytes = 0;
    let fits = taken.iter().take_while(|submission| {
        bytes += submission.batch.length();
        bytes <= COMMIT_BYTES
    });
    fits.count().max(1)
}
