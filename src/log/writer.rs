//! The end of the log that is written: one write and one sync for many batches.

use std::io;
use std::sync::Arc;

use super::batch::{Batch, LogChange};
use super::state::{Appended, Shared};
use super::wal::{self, BatchPlace, WalWriter};
use super::{CommitError, LogError, SyncMode};

/// Records in a file, about: what they say takes memory until the file is flushed, however small they are.
const RECORDS_MAX: usize = 64 * 1024;
/// Runs of entries remembered of a file, at most.
const APPENDED_MAX: usize = 32 * 1024;

/// Belongs to one task.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    wal: WalWriter,
    /// Where the first batch of a file goes.
    begin: u64,
    is_unsynced: bool,
    /// Records in the file.
    records: usize,
    /// What is in the file; none when that is too much to remember.
    appended: Option<Vec<Appended>>,
    /// A write or sync failed: nothing is known about the file any more.
    has_failed: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, wal: WalWriter) -> Self {
        let begin = wal.offset();
        Self { shared, wal, begin, is_unsynced: false, records: 0, appended: Some(Vec::new()), has_failed: false }
    }

    /// Writes batches, all or none, and in [`SyncMode::Always`] makes them durable. Their changes are known to readers
    /// afterwards. When there is no space or no file nothing has happened, and the same batches are to be committed again.
    pub fn commit(&mut self, batches: &[&Batch]) -> Result<(), CommitError> {
        self.check()?;
        let bytes: usize = batches.iter().map(|batch| batch.length()).sum();
        if bytes == 0 {
            return Ok(());
        }
        let is_begun = self.wal.offset() > self.begin;
        let records: usize = batches.iter().map(|batch| batch.records()).sum();
        let is_full = self.records + records > RECORDS_MAX;
        if !self.wal.fits(bytes) || (is_begun && (is_full || self.shared.state.lock().wal.is_sealed())) {
            self.roll()?;
        }
        let place = self.wal.place();
        if let Err(error) = self.wal.write(batches) {
            self.has_failed |= matches!(error, CommitError::Failed(_));
            return Err(error);
        }
        self.is_unsynced = true;
        self.records += records;
        self.note_appended(place, batches);
        if self.shared.options.sync == SyncMode::Always {
            self.sync()?;
        }
        let mut state = self.shared.state.lock();
        state.wal.grow(self.wal.offset());
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            state.index.apply(change);
        }
        Ok(())
    }

    /// Makes durable what was only written.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check()?;
        if self.is_unsynced {
            self.has_failed = true;
            self.wal.sync()?;
            (self.has_failed, self.is_unsynced) = (false, false);
        }
        Ok(())
    }

    /// Whether something was written that is not known to be durable.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        self.is_unsynced
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Goes on in a prepared file.
    fn roll(&mut self) -> Result<(), CommitError> {
        if !self.shared.state.lock().wal.has_prepared() {
            return Err(CommitError::Full);
        }
        self.sync()?;
        if let Err(error) = self.wal.clean() {
            self.has_failed |= matches!(error, CommitError::Failed(_));
            return Err(error);
        }
        let mut state = self.shared.state.lock();
        let Some(next) = state.wal.take_prepared() else { return Err(CommitError::Full) };
        let full = self.wal.roll(next);
        let touched = std::mem::take(&mut state.index.touched);
        state.wal.push_full(full, touched, self.appended.replace(Vec::new()));
        self.records = 0;
        Ok(())
    }

    /// Remembers where entries are, for the flush of the file.
    fn note_appended(&mut self, place: BatchPlace, batches: &[&Batch]) {
        let Some(appended) = &mut self.appended else { return };
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            if let LogChange::Appended { log, range, bytes } = *change {
                appended.push(Appended { place, log, range, bytes });
            }
        }
        if appended.len() > APPENDED_MAX {
            self.appended = None;
        }
    }

    fn check(&self) -> Result<(), LogError> {
        if !self.has_failed {
            return Ok(());
        }
        let error = io::Error::other("an earlier write or sync failed");
        Err(LogError::Io { path: wal::path(self.wal.sequence()), action: "write", error })
    }
}
