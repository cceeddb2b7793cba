//! What waits for the log: batches to be written, and the events and credit that go out once everything submitted before
//! them is durable; and what shards are told of letters that they wait for. The order of submission is the order in the log.
//!
//! ```text
//! shard turn, definition ── submit ──► pending ── write (the log's task) ──► WAL, synced ──► held events ──► outboxes
//! ```
//!
//! A batch that nobody waits for (acknowledgements) goes with the next one that somebody waits for, or after a short while.
//!
//! Shards run no further ahead of the log than a few of its writes: what they make of what peers send would take memory as
//! long as a disk is slower than they are. When nothing can be written they do go on, since consumers and deletions need
//! no more of the disk than there is; those who publish wait for their credit then.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::log::{Batch, CommitError, LogError, Writer};
use crate::model::request::Event;

use super::outbox::{Outbox, Spent};

/// How long a batch that nobody waits for may wait for company.
const LAZY: Duration = Duration::from_millis(50);
/// Bytes of such batches that are enough company.
const LAZY_BYTES: usize = 1024 * 1024;
/// Bytes written at once, if there is more than one batch: a sync of more takes longer than a millisecond.
const COMMIT_BYTES: usize = 4 * 1024 * 1024;
/// What may be on its way to the log before shards wait, in bytes: enough for the next write while one is under way.
const BEHIND_BYTES: usize = 2 * COMMIT_BYTES;
/// What a record counts there besides its own bytes: the message stays in memory as long as it is on its way.
const RECORD_BYTES: usize = 128;
/// How often in a row the log may have no room before that is no matter of a moment: a second, as it is tried.
const FULL_MAX: u32 = 1000;
/// Emptied batches kept for reuse, and the largest worth keeping.
const SPARE_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What goes out once everything submitted up to here is durable.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) events: Vec<(Arc<Outbox>, Vec<Event>)>,
    /// Publish credit, which returns when it is dropped.
    pub(super) credit: Vec<Arc<Spent>>,
    /// The numbers of dead letters, by the shards that wait for them.
    pub(super) letters: Vec<(u16, Vec<u64>)>,
}

/// The shards, as the journal needs them.
pub(super) trait Shards {
    /// Tells a shard that letters with these numbers are in their queues for good.
    fn letters_kept(&self, shard: u16, numbers: Vec<u64>);

    /// Wakes those that waited for the log.
    fn go_on(&self);
}

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
    /// What both count towards `BEHIND_BYTES`.
    weight: usize,
    /// Somebody waits for one of them.
    urgent: bool,
    /// Some were taken and are not durable yet.
    writing: bool,
    /// How often in a row there was no room in the log.
    full: u32,
    /// Nothing can be written, and not for a moment only.
    is_stuck: bool,
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
    /// The log is so far behind that shards are to wait for it.
    is_behind: AtomicBool,
    /// Some shard waits.
    is_awaited: AtomicBool,
    pub(super) writing: Mutex<Writing>,
}

impl Journal {
    pub(super) fn new(writer: Writer) -> Self {
        Self {
            pending: Mutex::default(),
            submitted: Notify::new(),
            is_behind: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
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
    pub(super) fn submit(&self, submission: Submission, shards: &dyn Shards) {
        let mut pending = self.pending.lock();
        if submission.batch.is_empty() && pending.submissions.is_empty() && !pending.writing {
            drop(pending);
            submission.held.release(shards);
            return;
        }
        let first = pending.submissions.is_empty();
        let was_urgent = pending.urgent;
        pending.bytes += submission.batch.length();
        pending.weight += weight_of(&submission.batch);
        pending.urgent |= submission.batch.is_urgent() || !submission.held.is_empty();
        pending.submissions.push_back(submission);
        let wake = first || pending.urgent && !was_urgent || pending.is_enough();
        self.is_behind.store(pending.is_behind(), Ordering::SeqCst);
        drop(pending);
        if wake {
            self.submitted.notify_one();
        }
    }

    /// Whether a shard is to wait until the log has caught up; the shards are told then.
    #[inline]
    pub(super) fn holds_back(&self) -> bool {
        if !self.is_behind.load(Ordering::Relaxed) {
            return false;
        }
        self.is_awaited.store(true, Ordering::SeqCst);
        // It may have caught up before the note was there to be seen.
        self.is_behind.load(Ordering::SeqCst)
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
    pub(super) fn write(&self, shards: &dyn Shards) -> Result<bool, CommitError> {
        let mut writing = self.writing.lock();
        // What an error left over comes first.
        let mut any = self.write_taken(&mut writing, shards)?;
        self.take(&mut writing);
        any |= self.write_taken(&mut writing, shards)?;
        self.finish();
        Ok(any)
    }

    /// Notes what became of a write.
    fn note(&self, committed: &Result<usize, CommitError>, shards: &dyn Shards) {
        let mut pending = self.pending.lock();
        pending.full = if matches!(committed, Err(CommitError::Full)) { pending.full.saturating_add(1) } else { 0 };
        let is_stuck = committed.is_err() && (pending.full == 0 || pending.full >= FULL_MAX);
        if mem::replace(&mut pending.is_stuck, is_stuck) != is_stuck {
            self.look_again(pending, shards);
        }
    }

    /// Lets shards go on, or not, after the bytes on their way or the disk have changed.
    fn look_again(&self, pending: MutexGuard<'_, Pending>, shards: &dyn Shards) {
        let is_behind = pending.is_behind();
        self.is_behind.store(is_behind, Ordering::SeqCst);
        drop(pending);
        if !is_behind && self.is_awaited.swap(false, Ordering::SeqCst) {
            shards.go_on();
        }
    }

    fn write_taken(&self, writing: &mut Writing, shards: &dyn Shards) -> Result<bool, CommitError> {
        let any = !writing.taken.is_empty();
        while !writing.taken.is_empty() {
            let committed = writing.commit();
            self.note(&committed, shards);
            for _ in 0..committed? {
                self.release(writing, shards);
            }
        }
        Ok(any)
    }

    /// Takes what is pending; nothing taken before is left.
    pub(super) fn take(&self, writing: &mut Writing) {
        assert!(writing.taken.is_empty(), "what was taken before is written before more is taken");
        let mut pending = self.pending.lock();
        mem::swap(&mut writing.taken, &mut pending.submissions);
        assert_eq!(pending.writing_bytes, 0, "all that was taken before is written");
        pending.writing_bytes = mem::take(&mut pending.bytes);
        pending.urgent = false;
        pending.writing = !writing.taken.is_empty();
    }

    /// All that was taken is durable, and nobody waits for it any more.
    pub(super) fn finish(&self) {
        let mut pending = self.pending.lock();
        assert_eq!(pending.writing_bytes, 0, "all that was taken is written");
        pending.writing = false;
    }

    /// Lets go what waited for the first of the submissions, which is durable.
    pub(super) fn release(&self, writing: &mut Writing, shards: &dyn Shards) {
        let submission = writing.taken.pop_front().expect("what is durable was taken, and is released once");
        let mut pending = self.pending.lock();
        pending.writing_bytes -= submission.batch.length();
        pending.weight -= weight_of(&submission.batch);
        self.look_again(pending, shards);
        submission.held.release(shards);
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
        self.urgent || self.stopping || self.writing || self.is_enough()
    }

    /// There is enough to write although nobody waits for it.
    fn is_enough(&self) -> bool {
        self.bytes >= LAZY_BYTES || self.weight >= BEHIND_BYTES / 2
    }

    fn is_behind(&self) -> bool {
        !self.is_stuck && self.weight >= BEHIND_BYTES
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

    fn release(self, shards: &dyn Shards) {
        for (outbox, mut events) in self.events {
            outbox.push(&mut events);
        }
        drop(self.credit);
        for (shard, numbers) in self.letters {
            shards.letters_kept(shard, numbers);
        }
    }
}

fn weight_of(batch: &Batch) -> usize {
    batch.length() + batch.records() * RECORD_BYTES
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
