//! The charts' history of statistics: a day of samples of queues, exchanges, connections and the broker as a whole,
//! coarser the older they are.
//!
//! ```text
//!   sampler ──Round──► History::record ──► memory: rows of what changed ──minute──► persist ──► redb
//!   HTTP    ◄─rates, samples── settled, under one lock, a few subjects at a time
//! ```
//!
//! | Tier | A sample every | Reaches back |
//! | --- | --- | --- |
//! | 0 | round (5 s) | 10 minutes |
//! | 1 | minute | 1 hour |
//! | 2 | 10 minutes | 8 hours |
//! | 3 | 30 minutes | 1 day |
//!
//! - It is derived: losing it loses the past of the charts and nothing else. Whatever it cannot read it sets aside.
//! - It reads no clock: time is an argument, in milliseconds since the epoch. When the clock is set back, what is known
//!   moves with it.
//! - What does not change costs nothing but its name and its newest values.
//! - Connections and channels are not written to the disk, and of channels there are ten minutes only.

mod disk;
mod entry;
mod memory;
mod rows;
mod samples;
mod stored;
mod subject;
#[cfg(test)]
mod tests;
mod timeline;
mod varint;

use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use disk::{Disk, DiskError};
use memory::Memory;

pub use disk::Written;
pub use rows::FIELDS_MAX;
pub use samples::{FieldSamples, InvalidRange, Range, Rounding, Samples};
pub use subject::{Round, Subject};

/// Subjects handled in one go with the lock held.
const BATCH: usize = 256;

/// The newest value of a field, and by how much it grew in a second between the newest two rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub value: u64,
    /// Negative if the value shrank; zero if there is no round before or it lies far back.
    pub per_second: f64,
}

/// The past of all statistics.
#[derive(Debug)]
pub struct History {
    memory: Mutex<Memory>,
    /// Held during a round, so that rounds do not mingle.
    recording: Mutex<()>,
    disk: Mutex<Option<Disk>>,
}

/// A history that was opened, and what there is to tell about it.
#[derive(Debug)]
pub struct Opened {
    pub history: History,
    pub report: Option<Report>,
}

/// What happened to the history at the start. The broker goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// What an earlier version wrote to the folder cannot be read any more. It was removed, and the history begins anew.
    Former { folder: PathBuf },
    /// The folder could not be read. It was renamed, and the history begins anew.
    SetAside { folder: PathBuf, moved_to: PathBuf, reason: String },
    /// The folder cannot be used at all: the history will not survive the process.
    MemoryOnly { folder: PathBuf, reason: String },
}

/// The history was not written; all of it is written the next time.
#[derive(Debug, thiserror::Error)]
#[error("{folder}: cannot write the history of statistics: {reason}")]
pub struct PersistError {
    pub folder: PathBuf,
    pub reason: String,
}

/// What the history takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub subjects: usize,
    /// Bytes in memory, within the budget after each round.
    pub bytes: usize,
    /// Samples that found no room in the budget since the start.
    pub refused: u64,
}

impl History {
    /// A history in memory only.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self::from_parts(Memory::new(budget_bytes), None)
    }

    /// The history in a folder, which is created if it is missing. It must belong to this process alone.
    #[must_use]
    pub fn open(folder: &Path, budget_bytes: usize) -> Opened {
        let memory_only = |error: DiskError| Opened {
            history: Self::new(budget_bytes),
            report: Some(Report::MemoryOnly { folder: folder.to_path_buf(), reason: error.to_string() }),
        };
        let error = match Disk::open(folder, budget_bytes) {
            Ok((disk, memory)) => {
                let report = disk.remove_former().then(|| Report::Former { folder: folder.to_path_buf() });
                return Opened { history: Self::from_parts(memory, Some(disk)), report };
            }
            Err(error @ DiskError::DatabaseAlreadyOpen) => return memory_only(error),
            Err(error) => error,
        };
        let Ok(moved_to) = set_aside(folder) else { return memory_only(error) };
        match Disk::open(folder, budget_bytes) {
            Ok((disk, memory)) => {
                let folder = folder.to_path_buf();
                let report = Some(Report::SetAside { folder, moved_to, reason: error.to_string() });
                Opened { history: Self::from_parts(memory, Some(disk)), report }
            }
            Err(error) => memory_only(error),
        }
    }

    fn from_parts(memory: Memory, disk: Option<Disk>) -> Self {
        Self { memory: Mutex::new(memory), recording: Mutex::new(()), disk: Mutex::new(disk) }
    }

    /// Takes the samples of one round. All subjects there are must be in every round, changed or not: what is missing in
    /// twelve rounds on end is forgotten. A round less than a second after the one before is not taken.
    pub fn record(&self, at_ms: u64, round: &Round) {
        let _recording = self.recording.lock();
        let Some(index) = self.memory.lock().begin_round(at_ms) else { return };
        for begin in (0..round.len()).step_by(BATCH) {
            let mut memory = self.memory.lock();
            for subject in begin..round.len().min(begin + BATCH) {
                let (key, values) = round.get(subject);
                memory.observe(key, values, index);
            }
        }
        let mut swept = 0;
        while self.memory.lock().sweep(index, BATCH, &mut swept) {}
        self.memory.lock().shed();
    }

    /// Drops a subject that was deleted, so that another of its name begins anew.
    pub fn forget(&self, subject: Subject<'_>) {
        self.memory.lock().forget(subject);
    }

    /// Drops the past of everything; the next round begins anew.
    pub fn clear(&self) {
        self.memory.lock().clear();
    }

    /// The newest value of one field with its rate.
    #[must_use]
    pub fn latest(&self, subject: Subject<'_>, field: usize) -> Option<Rate> {
        let mut rates = Vec::new();
        self.rates(subject, &mut rates);
        rates.get(field).copied()
    }

    /// Fills in the newest values of all fields of a subject with their rates, and returns whether it is known; if not,
    /// `rates` is empty. To be called for one subject after the other with the same vector.
    pub fn rates(&self, subject: Subject<'_>, rates: &mut Vec<Rate>) -> bool {
        rates.clear();
        let mut memory = self.memory.lock();
        let found = memory.find(subject);
        found.map(|(entry, timelines)| entry.rates(timelines, rates)).is_some()
    }

    /// Samples of some fields of a subject; none if it is not known.
    #[must_use]
    pub fn samples(&self, subject: Subject<'_>, fields: &[usize], range: &Range) -> Option<Samples> {
        let mut memory = self.memory.lock();
        let ahead_ms = memory.ahead_ms;
        let (entry, timelines) = memory.find(subject)?;
        entry.settle(timelines);
        Some(samples::sample(entry, timelines, ahead_ms, fields, range))
    }

    /// Writes what is new to the disk, and removes there what is too old. To be called every minute and at the end; what
    /// was recorded after the last call is lost with the process. Without a folder it does nothing.
    ///
    /// # Errors
    /// The disk refused.
    pub fn persist(&self) -> Result<Written, PersistError> {
        let mut disk = self.disk.lock();
        let Some(disk) = disk.as_mut() else {
            self.memory.lock().forgotten.clear();
            return Ok(Written::default());
        };
        let result = disk.persist(&self.memory);
        result.map_err(|error| PersistError { folder: disk.folder().to_path_buf(), reason: error.to_string() })
    }

    /// What it takes now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let memory = self.memory.lock();
        Usage { subjects: memory.subjects(), bytes: memory.used_bytes(), refused: memory.refused() }
    }
}

#[cfg(test)]
impl History {
    /// Makes the next call of persist write a new store.
    fn break_store(&self) {
        self.disk.lock().as_mut().unwrap().set_broken();
    }

    fn set_store_bytes_max(&self, bytes: u64) {
        self.disk.lock().as_mut().unwrap().set_bytes_max(bytes);
    }

    fn stored_keys(&self) -> u64 {
        self.disk.lock().as_ref().unwrap().keys()
    }

    fn stored_kib(&self) -> u64 {
        self.disk.lock().as_ref().unwrap().size() / 1024
    }
}

/// Renames a folder that cannot be read, in place of one renamed before.
fn set_aside(folder: &Path) -> std::io::Result<PathBuf> {
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(".damaged");
    let moved_to = folder.with_file_name(name);
    if moved_to.is_dir() {
        fs::remove_dir_all(&moved_to)?;
    } else if moved_to.exists() {
        fs::remove_file(&moved_to)?;
    }
    fs::rename(folder, &moved_to)?;
    Ok(moved_to)
}
