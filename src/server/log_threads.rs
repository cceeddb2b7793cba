//! Those who wait for the disk: a task writes the log, a thread keeps it in order, some read for queues that page in. When
//! one of them fails the broker stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::task::JoinHandle;

use crate::log::{CommitError, LogError, SyncMode};

use super::alarms::Cause;
use super::{Shared, wal_writer};

/// Threads that read for queues.
const READERS: usize = 2;
/// How long the log is left alone when there is nothing to do.
const WAIT: Duration = Duration::from_secs(1);
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
    mode: SyncMode,
    failed: &tokio::sync::mpsc::Sender<LogError>,
) -> std::io::Result<JoinHandle<()>> {
    let (writing, heard) = (Arc::clone(shared), failed.clone());
    let writer = tokio::spawn(async move { report(wal_writer::run(&writing, mode).await, &heard) });
    let (keeper, heard) = (Arc::clone(shared), failed.clone());
    spawn("log", move || report(maintain(&keeper), &heard))?;
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

fn maintain(shared: &Arc<Shared>) -> Result<(), LogError> {
    let mut full = false;
    while !shared.stopping.load(Ordering::Acquire) {
        match shared.broker.maintain_log() {
            Ok(worked) => {
                if full {
                    full = false;
                    shared.alarms.set(Cause::LogFull, false, &shared.broker);
                    tracing::info!("there is space on the disk again");
                }
                if !worked {
                    shared.care.wait(WAIT);
                }
            }
            Err(CommitError::NoSpace { path }) => {
                if !full {
                    tracing::error!(path, "no space left on the disk: the log waits for some");
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
    while !shared.stopping.load(Ordering::Acquire) {
        shared.broker.serve_load(WAIT)?;
    }
    Ok(())
}
