//! The task that writes the log: whatever was submitted while it synced is its next batch.
//!
//! It blocks the thread it runs on while it writes and syncs, and the runtime has one thread more for that. So a confirm
//! wakes no thread on its way: the connection that published, this task, and the connection again, which sends the
//! confirm, follow one another on one thread, where a thread of its own took two wake-ups, each a third of a sync.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::log::storage::wants_descriptors;
use crate::log::{CommitError, LogError, SyncMode};

use super::Shared;
use super::alarms::Cause;

/// The longest wait for something to write.
const WAIT: Duration = Duration::from_secs(1);
/// How long a write that found no room is left alone.
const RETRY: Duration = Duration::from_millis(100);
/// How long a broker that stops waits for room. What is not written then was promised to nobody.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long the other thread is given to make room in the WAL.
const ROOM: Duration = Duration::from_millis(1);

/// What is missing when an operation on a file cannot be done now and can later, for the log.
pub(super) fn shortage(error: &std::io::Error) -> &'static str {
    if wants_descriptors(error) {
        "no file can be opened, too many are"
    } else if error.kind() == std::io::ErrorKind::OutOfMemory {
        "the system has no memory left"
    } else {
        "no space left on the disk"
    }
}

/// Runs until the broker stops, or something fails that must stop it.
pub(super) async fn run(shared: &Arc<Shared>, mode: SyncMode) -> Result<(), LogError> {
    let mut synced = Instant::now();
    let mut full = false;
    let mut stopping = None;
    let mut is_missing = false;
    loop {
        let timeout = match mode {
            SyncMode::Interval(interval) => interval.min(WAIT),
            SyncMode::Always | SyncMode::Os => WAIT,
        };
        shared.broker.wait_for_log(timeout).await;
        let begun = Instant::now();
        if shared.stopping.load(Ordering::Acquire) {
            let since = *stopping.get_or_insert(begun);
            if begun - since > GIVE_UP && is_missing {
                tracing::error!("stopping although not all could be written: what is missing was not confirmed");
                return shared.broker.sync_log();
            }
        }
        let written = shared.broker.write_log();
        is_missing = written.is_err();
        match written {
            Ok(wrote) => {
                if wrote {
                    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    shared.broker.log_statistics.count_commit(micros);
                }
                if full {
                    full = false;
                    shared.alarms.set(Cause::WalFull, false, &shared.broker);
                    tracing::info!("the log is written again");
                }
                if wrote && shared.broker.log_wants_care() {
                    shared.care.want();
                }
                if wrote && shared.broker.log_is_due() {
                    // Those that the batch has let go are first.
                    tokio::task::yield_now().await;
                }
                if !wrote && stopping.is_some() {
                    return shared.broker.sync_log();
                }
            }
            Err(CommitError::Failed(error)) => return Err(error),
            Err(CommitError::NoSpace { path, error }) => {
                if !full {
                    let what = shortage(&error);
                    tracing::error!(path, %error, "{what}: nothing durable is confirmed until there is");
                }
                full = true;
                shared.alarms.set(Cause::WalFull, true, &shared.broker);
                tokio::time::sleep(RETRY).await;
            }
            // The one who maintains the log makes room, and tells when the disk is full.
            Err(CommitError::Full) => {
                shared.care.want();
                tokio::time::sleep(ROOM).await;
            }
        }
        if let SyncMode::Interval(interval) = mode
            && synced.elapsed() >= interval
        {
            shared.broker.sync_log()?;
            synced = Instant::now();
        }
    }
}
