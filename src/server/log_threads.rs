//! Those who wait for the disk: a task writes the log, a thread keeps it in order, some read for queues that page in. When
//! one of them fails the broker stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::task::JoinHandle;

use crate::log::storage::is_shortage;
use crate::log::{self, CommitError, LogError};

use super::alarms::Cause;
use super::{Shared, wal_writer};

/// Threads that read for queues.
const READERS: usize = 2;
/// How long the log is left alone when there is nothing to do.
const WAIT: Duration = Duration::from_secs(1);
/// Bytes of the reserve for what a segment has besides its entries.
const RESERVE_MORE: u64 = 1 << 20;
/// And when the disk is full.
const FULL: Duration = Duration::from_millis(100);

/// Wakes the thread that maintains the log.
#[derive(Default)]
pub(super) struct Care {
    wanted: Mutex<bool>,
    changed: Condvar,
}

impl Care {
    pub(super) fn want(&self) {
        *self.wanted.lock() = true;
        self.changed.notify_one();
    }

    fn wait(&self, timeout: Duration) {
        let mut wanted = self.wanted.lock();
        if !*wanted {
            self.changed.wait_for(&mut wanted, timeout);
        }
        *wanted = false;
    }
}

/// Starts them, and returns the one that writes. `failed` hears of the first error.
pub(super) fn start(
    shared: &Arc<Shared>,
    options: &log::Options,
    failed: &tokio::sync::mpsc::Sender<LogError>,
) -> std::io::Result<JoinHandle<()>> {
    let mode = options.sync;
    let reserve = reserve_bytes(options);
    let (writing, heard) = (Arc::clone(shared), failed.clone());
    let writer = tokio::spawn(async move { report(wal_writer::run(&writing, mode).await, &heard) });
    let (keeper, heard) = (Arc::clone(shared), failed.clone());
    spawn("log", move || report(maintain(&keeper, reserve), &heard))?;
    for _ in 0..READERS {
        let (shared, failed) = (Arc::clone(shared), failed.clone());
        spawn("reader", move || report(read(&shared), &failed))?;
    }
    Ok(writer)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

fn report(outcome: Result<(), LogError>, failed: &tokio::sync::mpsc::Sender<LogError>) {
    if let Err(error) = outcome {
        // Full means that another thread has failed before.
        let _ = failed.try_send(error);
    }
}

/// As much as a file of the WAL can become in a segment.
pub(super) fn reserve_bytes(options: &log::Options) -> u64 {
    options.wal_file_bytes + options.wal_file_bytes / 8 + RESERVE_MORE
}

/// Whether the disk's reserve is there, or cannot be had on this file system at all.
fn keeps_reserve(shared: &Shared, bytes: u64) -> bool {
    shared.disk.keep_reserve(bytes).err().is_none_or(|error| !is_shortage(&error))
}

fn maintain(shared: &Arc<Shared>, reserve: u64) -> Result<(), LogError> {
    let mut full = shared.has_spent_reserve;
    if full {
        shared.alarms.set(Cause::LogFull, true, &shared.broker);
    }
    // The one who writes needs it to the last.
    while !shared.written.load(Ordering::Acquire) {
        match shared.broker.maintain_log() {
            Ok(worked) => {
                // What a start used of it comes first.
                let is_kept = (full || !worked) && keeps_reserve(shared, reserve);
                if full && (is_kept || !shared.has_spent_reserve) {
                    full = false;
                    shared.alarms.set(Cause::LogFull, false, &shared.broker);
                    tracing::info!("the log is kept in order again");
                }
                if !worked {
                    shared.care.wait(WAIT);
                }
            }
            Err(CommitError::NoSpace { path, error }) => {
                if !full {
                    tracing::error!(path, %error, "{}: the log waits for some", wal_writer::shortage(&error));
                }
                full = true;
                shared.alarms.set(Cause::LogFull, true, &shared.broker);
                thread::sleep(FULL);
            }
            Err(CommitError::Full) => shared.care.wait(FULL),
            Err(CommitError::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}

fn read(shared: &Arc<Shared>) -> Result<(), LogError> {
    let mut stalled = false;
    while !shared.stopping.load(Ordering::Acquire) {
        match shared.broker.serve_load(WAIT) {
            Ok(_) => {
                if std::mem::take(&mut stalled) && shared.stalled_readers.fetch_sub(1, Ordering::AcqRel) == 1 {
                    shared.alarms.set(Cause::ReadsStalled, false, &shared.broker);
                    tracing::info!("queues are read from the disk again");
                }
            }
            Err(CommitError::NoSpace { path, error }) => {
                if !std::mem::replace(&mut stalled, true) && shared.stalled_readers.fetch_add(1, Ordering::AcqRel) == 0
                {
                    let what = wal_writer::shortage(&error);
                    tracing::error!(path, %error, "{what}: queues wait for their messages on the disk");
                    shared.alarms.set(Cause::ReadsStalled, true, &shared.broker);
                }
                thread::sleep(FULL);
            }
            Err(CommitError::Full) => unreachable!("reading needs no room in the WAL"),
            Err(CommitError::Failed(error)) => return Err(error),
        }
    }
    Ok(())
}
