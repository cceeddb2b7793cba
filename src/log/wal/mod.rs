//! WAL files: making them, writing batches into them, reading them back. `header` has the format.
//!
//! A file is zero-filled once, off the writer's path, so that a write changes no metadata that a sync would have to write.
//! When all that lives in it is in a segment it is renamed to the next sequence number and used again: a sequence number is
//! never used twice. The files are written in the order of their sequence numbers.

mod header;
mod read;
mod replay;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice};
use std::sync::Arc;

use self::header::{BATCH_HEADER, BLOCK, BatchHeader, FileHeader, round_up};
pub(super) use self::read::{Record, records, records_between, records_of, stretch};
pub(super) use self::replay::{Replay, replay};
use super::batch::{Batch, Run, TABLE_ENTRY};
use super::storage::{File, Storage, is_shortage};
use super::{CommitError, LogError};
use crate::model::narrow::narrow;

/// The directory of WAL files.
pub(super) const DIRECTORY: &str = "wal";

/// Bytes that zero-filling writes at once.
const FILL: usize = 1 << 20;

/// A file's path.
pub(super) fn path(sequence: u64) -> String {
    format!("{DIRECTORY}/{sequence:020}.wal")
}

/// A WAL file: prepared, being written or full.
#[derive(Clone, Debug)]
pub(super) struct WalFile {
    pub(super) sequence: u64,
    pub(super) file: Arc<dyn File>,
    /// Bytes it has on disk.
    pub(super) length: u64,
    /// The number of the last batch in it; 0 is none.
    pub(super) last: u64,
    /// Something in it is lost: to be kept for whoever investigates, and not to be used again.
    pub(super) damaged: bool,
    /// See `header`. None when the file has no good header.
    salt: Option<u32>,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchPlace {
    pub(super) offset: u64,
    pub(super) number: u64,
}

/// How a new file comes by its space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// Zeros are written, once, so that a sync has nothing to do but to write blocks: for many small batches.
    Zeroed,
    /// The space is taken and no more: half again as much work for each sync, for a few large batches.
    Allocated,
}

/// Why there is no file to write into.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error("{path}: {error}")]
    NoSpace { path: String, error: io::Error },
    #[error(transparent)]
    Failed(#[from] LogError),
}

impl WalFile {
    /// Makes a file of at least `bytes`, durably. Leaves nothing behind when there is no space.
    pub(super) fn make(disk: &dyn Storage, sequence: u64, bytes: u64, fresh: Fresh) -> Result<Self, PrepareError> {
        let path = path(sequence);
        let made = disk.create(&path).and_then(|file| {
            let is_allocated = fresh == Fresh::Allocated && file.allocate(round_up(bytes.max(BLOCK)))?;
            if !is_allocated {
                fill(&*file, 0, bytes)?;
            }
            // A file that has a header is complete.
            file.sync()?;
            let made = Self::begin(file, sequence, round_up(bytes.max(BLOCK)))?;
            disk.sync_directory(DIRECTORY)?;
            Ok(made)
        });
        made.map_err(|error| abandon(disk, path, "make", error))
    }

    /// Makes a file whose content is not needed any more the file `sequence`, of at least `bytes`, and not much above.
    /// Durably. Removes it when there is no space.
    pub(super) fn recycle(self, disk: &dyn Storage, sequence: u64, bytes: u64) -> Result<Self, PrepareError> {
        let length = round_up(bytes.max(BLOCK));
        let path = path(sequence);
        let renamed = disk.rename(&self::path(self.sequence), &path).and_then(|()| {
            // Before anything in it changes: what is left of its earlier life must not be met under its earlier name.
            disk.sync_directory(DIRECTORY)?;
            if self.length > length {
                self.file.set_length(length)?;
            }
            fill(&*self.file, self.length, bytes)?;
            Self::begin(self.file, sequence, length)
        });
        renamed.map_err(|error| abandon(disk, path, "recycle", error))
    }

    /// Whether it is good to write into: it has a header and no batches.
    pub(super) fn is_prepared(&self) -> bool {
        self.last == 0 && !self.damaged
    }

    fn begin(file: Arc<dyn File>, sequence: u64, length: u64) -> io::Result<Self> {
        // Chance decides nothing: the salt is only ever compared.
        let salt = RandomState::new().build_hasher().finish() as u32;
        file.write_at(&[IoSlice::new(&FileHeader { sequence, salt }.block())], 0)?;
        file.sync()?;
        // Large pieces of cached zeros or of an earlier life would count as written anew with each block that changes.
        file.release_cache();
        Ok(Self { sequence, file, length, last: 0, damaged: false, salt: Some(salt) })
    }

    /// Opens a file that is no longer, or not yet again, under its name of the WAL. None when it cannot be told what it is.
    pub(super) fn open_kept(disk: &dyn Storage, path: &str) -> io::Result<Option<Self>> {
        let file = disk.open(path)?;
        let length = file.length()?;
        let mut file = Self { sequence: 0, file, length, last: u64::MAX, damaged: false, salt: None };
        let block = |at| read_up_to(&*file.file, at, BATCH_HEADER);
        let found = match FileHeader::read(&block(0)?) {
            header::Read::Valid(header) => Some((header.sequence, Some(header.salt))),
            header::Read::Newer(_) | header::Read::Foreign | header::Read::Damaged => {
                BatchHeader::sequence_of(&block(BLOCK)?, BLOCK).map(|sequence| (sequence, None))
            }
        };
        let Some((sequence, salt)) = found else { return Ok(None) };
        (file.sequence, file.salt) = (sequence, salt);
        Ok(Some(file))
    }
}

/// The end of the log that is being written.
#[derive(Debug)]
pub(super) struct WalWriter {
    file: WalFile,
    /// Where the next batch goes.
    offset: u64,
    /// Batches written to the file.
    ordinal: u32,
    /// The file that was written before this one; 0 is not known.
    previous: u64,
    /// The next batch's number.
    next: u64,
    /// The highest number that is on disk.
    synced: u64,
    /// Files that were full before they were synced.
    behind: Vec<WalFile>,
    /// There may be a part of a batch at `offset` for which there was no space.
    has_remnant: bool,
    /// Records of one log are put together where that makes so many bytes of each log's.
    group_min: u64,
}

impl WalWriter {
    /// Begins to write at the start of a prepared file. All batches before `next_batch` are on disk.
    pub(super) fn new(file: WalFile, next_batch: u64) -> Self {
        let next = next_batch.max(1);
        Self {
            file,
            offset: BLOCK,
            ordinal: 0,
            previous: 0,
            next,
            synced: next - 1,
            behind: Vec::new(),
            has_remnant: false,
            group_min: u64::MAX,
        }
    }

    /// Puts records of one log together, in each batch in which that makes so many bytes of each log's on the average.
    pub(super) fn grouping(self, group_min: u64) -> Self {
        Self { group_min, ..self }
    }

    /// Whether batches whose lengths add up to `bytes` go into the file. An empty file takes any number.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        let end = self.offset.saturating_add(round_up((bytes + BATCH_HEADER) as u64));
        self.offset == BLOCK || end <= self.file.length
    }

    /// Writes the batches as one, with one write. Not durable before `sync`. When there is no space nothing has happened,
    /// and the same batches or others can be written again.
    pub(super) fn write(&mut self, batches: &[&Batch]) -> Result<(), CommitError> {
        let length = batches.iter().map(|batch| batch.record_bytes() as u64).sum();
        let table_length: usize = batches.iter().map(|batch| batch.table.len()).sum();
        if length == 0 {
            return Ok(());
        }
        let grouped = grouped(batches, self.group_min);
        let tables = match &grouped {
            Some(runs) => vec![runs.iter().flat_map(|run| run.table).copied().collect::<Vec<u8>>().into()],
            None => batches.iter().map(|batch| Cow::from(&batch.table)).collect::<Vec<Cow<'_, [u8]>>>(),
        };
        let table = tables.iter().fold(0, |checksum, table| crc32c::crc32c_append(checksum, table));
        let header = BatchHeader {
            sequence: self.file.sequence,
            number: self.next,
            synced: self.synced,
            length,
            records: narrow(table_length / TABLE_ENTRY, "a group of batches has fewer than 2^32 records"),
            ordinal: self.ordinal,
            salt: self.file.salt.unwrap_or(0),
            back: self
                .file
                .sequence
                .checked_sub(self.previous)
                .filter(|_| self.previous > 0)
                .map_or(0, |back| u32::try_from(back).unwrap_or(0)),
            table,
        };
        let end = self.offset + round_up(header.total());
        let padding = [0; BLOCK as usize];
        let header_bytes = header.bytes(self.offset);
        let mut pieces = vec![IoSlice::new(&header_bytes)];
        pieces.extend(tables.iter().map(|table| IoSlice::new(table)));
        match grouped {
            Some(runs) => pieces.extend(runs.into_iter().flat_map(Run::pieces).map(IoSlice::new)),
            None => batches.iter().for_each(|batch| push_records(batch, &mut pieces)),
        }
        let unused = (end - self.offset - header.total()) as usize;
        pieces.push(IoSlice::new(&padding[..unused]));
        if let Err(error) = self.file.file.write_at(&pieces, self.offset) {
            let path = path(self.file.sequence);
            return Err(if is_shortage(&error) {
                self.has_remnant = true;
                CommitError::NoSpace { path, error }
            } else {
                CommitError::Failed(LogError::Io { path, action: "write", error })
            });
        }
        self.has_remnant = false;
        self.offset = end;
        self.file.length = self.file.length.max(end);
        self.file.last = self.next;
        self.next += 1;
        self.ordinal += 1;
        Ok(())
    }

    /// Makes all that was written durable. After an error the broker stops: see [`File::sync`].
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if self.synced + 1 == self.next {
            return Ok(());
        }
        for file in self.behind.drain(..).chain(std::iter::once(self.file.clone())) {
            let failed = |error| LogError::Io { path: path(file.sequence), action: "sync", error };
            file.file.sync().map_err(failed)?;
        }
        self.synced = self.next - 1;
        Ok(())
    }

    /// Takes away what is left of a batch for which there was no space, durably. Whoever leaves the file for the next one
    /// must have done that: a batch that begins here and does not end is where recovery ends the log, and the next batch
    /// has the same number.
    pub(super) fn clean(&mut self) -> Result<(), CommitError> {
        if !self.has_remnant {
            return Ok(());
        }
        let path = || path(self.file.sequence);
        let written = self.file.file.write_at(&[IoSlice::new(&[0; BLOCK as usize])], self.offset);
        written.map_err(|error| match is_shortage(&error) {
            true => CommitError::NoSpace { path: path(), error },
            false => CommitError::Failed(LogError::Io { path: path(), action: "write", error }),
        })?;
        self.file.file.sync().map_err(|error| LogError::Io { path: path(), action: "sync", error })?;
        self.has_remnant = false;
        Ok(())
    }

    /// Goes on in the next file, one with a higher sequence number, and returns the full one. Whoever reads that one needs
    /// to have called `sync` before.
    pub(super) fn roll(&mut self, next: WalFile) -> WalFile {
        assert!(next.sequence > self.file.sequence, "files are written in the order of their numbers");
        if self.ordinal > 0 {
            self.previous = self.file.sequence;
        }
        let full = std::mem::replace(&mut self.file, next);
        (self.offset, self.ordinal) = (BLOCK, 0);
        if self.synced + 1 < self.next {
            self.behind.push(full.clone());
        }
        full
    }

    /// Where the next batch goes.
    pub(super) fn place(&self) -> BatchPlace {
        BatchPlace { offset: self.offset, number: self.next }
    }

    /// The number of the last batch written.
    #[cfg(test)]
    pub(super) fn batch(&self) -> u64 {
        self.next - 1
    }

    /// The file's sequence number.
    pub(super) fn sequence(&self) -> u64 {
        self.file.sequence
    }

    /// Where in the file the next batch goes; [`BLOCK`] when it is empty.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// The records of all batches, log by log, so that a queue's messages lie together in the file though they came with those of
/// others. None when they do already, when too little of each log would lie together, and when a record refers to another
/// by the distance. The order of one log's records stays, and those of different logs mean nothing to each other.
fn grouped<'a>(batches: &[&'a Batch], group_min: u64) -> Option<Vec<Run<'a>>> {
    let count: usize = batches.iter().map(|batch| batch.run_count()).sum();
    if count < 2 || group_min == u64::MAX {
        return None;
    }
    let mut runs = Vec::with_capacity(count);
    for batch in batches {
        runs.extend(batch.runs()?);
    }
    if runs.is_sorted_by_key(|run| run.log) {
        return None;
    }
    runs.sort_by_key(|run| run.log);
    let logs = 1 + runs.windows(2).filter(|pair| pair[0].log != pair[1].log).count();
    let bytes: u64 = runs.iter().map(Run::length).sum();
    (logs < runs.len() && bytes / logs as u64 >= group_min).then_some(runs)
}

fn push_records<'a>(batch: &'a Batch, pieces: &mut Vec<IoSlice<'a>>) {
    let mut from = 0;
    for (at, slice) in &batch.slices {
        if *at > from {
            pieces.push(IoSlice::new(&batch.bytes[from..*at]));
        }
        pieces.push(IoSlice::new(slice));
        from = *at;
    }
    pieces.push(IoSlice::new(&batch.bytes[from..]));
}

/// Writes zeros from a length to another, the latter rounded up to whole blocks.
fn fill(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    let zeros = vec![0; FILL.min(round_up(to.max(BLOCK)) as usize)];
    let (mut at, to) = (from, round_up(to.max(BLOCK)));
    while at < to {
        let piece = zeros.get(..(to - at) as usize).unwrap_or(&zeros);
        file.write_at(&[IoSlice::new(piece)], at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Reads bytes of a file; fewer at its end.
fn read_up_to(file: &dyn File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Removes a file that could not be finished for want of space or the like.
fn abandon(disk: &dyn Storage, path: String, action: &'static str, error: io::Error) -> PrepareError {
    if !is_shortage(&error) {
        return PrepareError::Failed(LogError::Io { path, action, error });
    }
    // Whether that works does not matter: without a header the file is nothing but a spare one.
    let _ = disk.remove(&path);
    PrepareError::NoSpace { path, error }
}
