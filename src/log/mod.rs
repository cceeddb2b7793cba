//! Durable bytes: one log under every kind of durable queue and under the definitions. It knows nothing of messages.
//!
//! ```text
//! Batch ──► Writer::commit ──► WAL file ─full─► Log::maintain: flush ──► segment ──► merged with others
//!           one write, one sync                what still lives, by log             when less than half lives
//!                                                                  Log::read ◄── an owner that pages in
//! ```
//!
//! - `Writer` belongs to one task. `Log` is shared: readers, and the one who maintains.
//! - What is live is known in memory: a compressed set of indexes per log. A WAL file that is full is *flushed*: its live
//!   entries go to one segment, sorted by log, with a checkpoint of each log it touched; then the file is used again.
//! - Recovery reads the segments' footers, replays the WAL and flushes it.
//! - It touches the disk through `Storage` only, and decides nothing by time or chance.

mod adopt;
pub mod batch;
mod chunks;
pub mod entry;
mod facade;
mod flush;
mod handles;
mod index;
pub mod memory;
mod merge;
mod recovery;
mod segment;
mod state;
pub mod storage;
#[cfg(test)]
mod tests;
mod verify;
mod wal;
mod writer;

use std::io;
use std::time::Duration;

pub use batch::{Batch, Range};
pub use entry::{Head, LogId, METADATA, Stored};
pub use facade::{Log, Opened, Read};
pub use storage::{File, Storage};
pub use verify::{Verified, dump, verify};
pub use writer::Writer;

/// When what was written is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Before anything is confirmed.
    Always,
    /// At most this long after it was written: what was confirmed in between is lost with the power.
    Interval(Duration),
    /// When the operating system sees fit.
    Os,
}

/// What a log is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub sync: SyncMode,
    /// Bytes of a WAL file; a batch that is larger gets a file of its own size.
    pub wal_file_bytes: u64,
    /// Bytes that merged segments grow to.
    pub segment_bytes: u64,
    pub keeping: Keeping,
}

/// Which full WAL files become part of a segment as they are, so that what is in them is written once. All others are copied
/// as far as they live, and used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// Percent of the file that live in stretches which are good to read.
    pub share_min: u64,
    /// Bytes of such a stretch.
    pub stretch_min: u64,
    /// Bytes of a batch on the average: files that were written in small ones are better used again, since a sync is cheaper
    /// in them than in new ones.
    pub batch_min: u64,
}

impl Keeping {
    pub const USUAL: Self = Self { share_min: 75, stretch_min: 16 << 10, batch_min: 32 << 10 };
}

/// Why the log cannot go on. Whoever gets it stops the broker.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// An operation on a file failed, other than for want of space.
    #[error("{path}: cannot {action}: {error}")]
    Io { path: String, action: &'static str, error: io::Error },
    /// A file was written by a later version.
    #[error("{path}: format version {found} is newer than {known}, the newest this broker knows")]
    Version { path: String, found: u32, known: u32 },
}

/// Why a commit did not happen; the batches are to be committed again.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk is full, or descriptors or memory are short: see [`storage::is_shortage`]. Nothing was confirmed; it works
    /// again when there is enough.
    #[error("{path}: {error}")]
    NoSpace { path: String, error: io::Error },
    /// All WAL files are full and wait for `Log::maintain`.
    #[error("the WAL is full")]
    Full,
    #[error(transparent)]
    Failed(LogError),
}

impl From<LogError> for CommitError {
    fn from(error: LogError) -> Self {
        match error {
            // Nothing was done yet: it can be tried again. After a sync that failed it could not.
            LogError::Io { path, action: "open" | "read", error } if storage::is_shortage(&error) => {
                Self::NoSpace { path, error }
            }
            error => Self::Failed(error),
        }
    }
}

/// Something the operator should read: damage that was found, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub severity: Severity,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing confirmed is lost.
    Notice,
    /// Something is lost, or may be.
    Loss,
}

/// Live entries of a log that lie together in a segment, in ascending order: what their owner needs to know to page them
/// in later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub first: u64,
    pub last: u64,
    /// The live indexes, when some between first and last are not.
    pub members: Option<Vec<u64>>,
    /// The sum of the live entries' `cost`.
    pub cost: u64,
    /// Bytes of the live entries' records, roughly.
    pub length: u64,
    /// The earliest `deadline` of the live entries; `u64::MAX` is none.
    pub deadline: u64,
    /// The class of all of them.
    pub class: u8,
}

/// A log as found when the log was opened. Entries marked transient are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredLog {
    pub log: LogId,
    /// Above every index the log ever had.
    pub next_index: u64,
    /// The highest index that was handed to anybody; 0 is none.
    pub delivered: u64,
    /// Ascending by `first` within a class.
    pub chunks: Vec<Chunk>,
}

/// What one step of maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// There may be more to do at once.
    pub worked: bool,
    /// Logs, and the index up to which all their entries can be read back from now on.
    pub flushed: Vec<(LogId, u64)>,
    /// Damage that was met.
    pub reports: Vec<Report>,
}

/// What the log takes on the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub wal: u64,
    pub segments: u64,
    /// Of the entries in segments, those that are live.
    pub live: u64,
}

/// What an operation's error means for whoever wanted it.
fn io_failed(path: &str, action: &'static str, error: io::Error) -> CommitError {
    let path = path.to_owned();
    if storage::is_shortage(&error) {
        return CommitError::NoSpace { path, error };
    }
    CommitError::Failed(LogError::Io { path, action, error })
}
