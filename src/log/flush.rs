//! Flushing a WAL file: what still lives in it goes to a segment, with a checkpoint of each log it touched.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch::Range;
use super::entry::{self, Header, Kind, LogId};
use super::index::Survivors;
use super::segment::{self, Footer, Identity, SegmentWriter, Written, put_entry};
use super::state::{Appended, Full, Shared};
use super::wal::{self, BatchPlace, WalFile};
use super::{CommitError, LogError, Report, Severity};
use crate::model::hash::IdMap;

/// Logs looked at while the lock is held.
const LOGS_AT_ONCE: usize = 256;
/// Bytes of memory allocated at once for entries.
const BLOCK: usize = 1 << 20;

/// What a flush did.
#[derive(Debug)]
pub(super) struct Flushed {
    pub(super) footer: Footer,
    /// Logs, and the index up to which all their entries are in segments.
    pub(super) flushed: Vec<(LogId, u64)>,
    pub(super) reports: Vec<Report>,
}

/// A WAL file, and what there is to read in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    All(&'a WalFile),
    /// Those batches in which something lives.
    Appended(&'a WalFile, &'a [Appended]),
}

impl<'a> Source<'a> {
    pub(super) fn of(full: &'a Full) -> Self {
        match &full.appended {
            Some(appended) => Self::Appended(&full.file, appended),
            None => Self::All(&full.file),
        }
    }

    fn file(&self) -> &'a WalFile {
        match self {
            Self::All(file) | Self::Appended(file, _) => file,
        }
    }

    fn read(&self, gathered: &mut Gathered) -> Result<Vec<Report>, LogError> {
        let alive = match self {
            Self::All(_) => Vec::new(),
            Self::Appended(_, appended) => gathered.places(appended),
        };
        let mut visit = |header: &Header, payload: &Bytes| {
            gathered.take(header, payload);
            Ok(())
        };
        match self {
            Self::All(file) => wal::records(file, &mut visit),
            Self::Appended(file, _) => wal::records_of(file, &alive, &mut visit),
        }
    }
}

/// Flushes a WAL file to the segment `number`; `touched` are the logs its records are about, with the highest index
/// appended. Without a file only checkpoints are written.
///
/// The entries are chosen before the checkpoints are made. In between more of them may be settled, so that a checkpoint
/// never names an entry that is not there.
pub(super) fn flush(
    shared: &Shared,
    number: u64,
    source: Option<Source<'_>>,
    touched: &IdMap<LogId, u64>,
) -> Result<Flushed, CommitError> {
    let mut touched: Vec<(LogId, u64)> = touched.iter().map(|(log, last)| (*log, *last)).collect();
    touched.sort_unstable();
    let mut gathered = Gathered { survivors: survivors(shared, &touched), ..Gathered::default() };
    let mut reports = Vec::new();
    let flushed = shared.state.lock().index.flushed;
    let sequence = source.map_or(0, |source| source.file().sequence);
    if let Some(source) = source {
        reports = source.read(&mut gathered)?;
    }
    gathered.sort();
    if !reports.is_empty() {
        lose(shared, &gathered);
    }
    let identity = Identity { number, wal: sequence, flushed: flushed.max(sequence), ..Identity::default() };
    let mut writer = SegmentWriter::new(&*shared.disk, identity, shared.reading())?;
    gathered.write(&mut writer)?;
    let mut logs = Vec::with_capacity(touched.len());
    for some in touched.chunks(LOGS_AT_ONCE) {
        let state = shared.state.lock();
        for (log, last) in some {
            let through = state.index.logs.get(log).map_or(0, |state| state.through.max(*last));
            logs.push(match state.index.checkpoint(*log, through) {
                Some(checkpoint) => Written::Checkpoint(*log, checkpoint),
                None if state.index.is_mentioned(*log, &[]) => Written::Dropped(*log),
                None => Written::Gone(*log),
            });
        }
    }
    drop(gathered);
    let footer = writer.finish(logs, &mut || shared.sync_current())?;
    let mut state = shared.state.lock();
    state.index.install(number, &footer, &[], &touched);
    touched.retain(|(log, last)| *last > 0 && state.index.logs.contains_key(log));
    drop(state);
    Ok(Flushed { footer, flushed: touched, reports })
}

/// Puts a damaged WAL file where it can be looked at.
pub(super) fn keep_damaged(shared: &Shared, file: &WalFile) -> Result<(), LogError> {
    let from = wal::path(file.sequence);
    let name = from.rsplit('/').next().unwrap_or_default();
    let kept = shared.disk.rename(&from, &format!("{}/{name}", segment::DAMAGED));
    let kept = kept.and_then(|()| shared.disk.sync_directory(segment::DAMAGED));
    let kept = kept.and_then(|()| shared.disk.sync_directory(wal::DIRECTORY));
    kept.map_err(|error| LogError::Io { path: from, action: "move", error })
}

/// Of each log, the live entries that are in no segment.
fn survivors(shared: &Shared, touched: &[(LogId, u64)]) -> IdMap<LogId, Survivors> {
    let mut survivors = IdMap::default();
    for some in touched.chunks(LOGS_AT_ONCE) {
        let state = shared.state.lock();
        for (log, last) in some.iter().filter(|(_, last)| *last > 0) {
            survivors.extend(state.index.unflushed(*log, *last).map(|alive| (*log, alive)));
        }
    }
    survivors
}

/// Takes entries out of the index that should have been in the file.
fn lose(shared: &Shared, gathered: &Gathered) {
    let mut found: BTreeMap<LogId, Vec<u64>> = BTreeMap::new();
    for entry in &gathered.entries {
        found.entry(entry.log).or_default().push(entry.index);
    }
    for (log, alive) in &gathered.survivors {
        let found = found.get(log).map(Vec::as_slice).unwrap_or_default();
        let lost: Vec<u64> = alive.iter().filter(|index| found.binary_search(index).is_err()).collect();
        let mut state = shared.state.lock();
        for index in lost {
            state.index.lose(*log, index);
        }
    }
}

/// Live entries of a WAL file, copied.
#[derive(Debug, Default)]
struct Gathered {
    survivors: IdMap<LogId, Survivors>,
    blocks: Vec<Vec<u8>>,
    entries: Vec<GatheredEntry>,
}

#[derive(Clone, Copy, Debug)]
struct GatheredEntry {
    log: LogId,
    index: u64,
    block: u32,
    offset: u32,
}

impl Gathered {
    /// The batches in which something lives.
    fn places(&self, appended: &[Appended]) -> Vec<BatchPlace> {
        let lives = |run: &&Appended| {
            let Range { first, last } = run.range;
            self.survivors.get(&run.log).is_some_and(|alive| alive.any_in(first, last))
        };
        let mut places: Vec<BatchPlace> = appended.iter().filter(lives).map(|run| run.place).collect();
        places.dedup();
        places
    }

    fn take(&mut self, header: &Header, payload: &[u8]) {
        let head = &header.head;
        let is_entry = matches!(header.kind, Kind::Entry | Kind::Again);
        if !is_entry || !self.survivors.get(&head.log).is_some_and(|alive| alive.contains(head.index)) {
            return;
        }
        let length = entry::HEADER_LENGTH + payload.len();
        let has_room = self.blocks.last().is_some_and(|block| block.capacity() - block.len() >= length);
        if !has_room {
            self.blocks.push(Vec::with_capacity(length.max(BLOCK)));
        }
        let number = self.blocks.len().saturating_sub(1);
        let Some(block) = self.blocks.last_mut() else { return };
        let (log, index) = (head.log, head.index);
        self.entries.push(GatheredEntry { log, index, block: number as u32, offset: block.len() as u32 });
        put_entry(block, head, payload);
    }

    fn sort(&mut self) {
        self.entries.sort_by_key(|entry| (entry.log, entry.index));
        self.entries.dedup_by_key(|entry| (entry.log, entry.index));
    }

    fn write(&self, writer: &mut SegmentWriter<'_>) -> Result<(), CommitError> {
        for entry in &self.entries {
            let block = self.blocks.get(entry.block as usize).map(Vec::as_slice).unwrap_or_default();
            let record = block.get(entry.offset as usize..).unwrap_or_default();
            if let Ok(header) = entry::read_header(record) {
                writer.push(&header.head, record.get(..header.length).unwrap_or_default())?;
            }
        }
        Ok(())
    }
}

/// What is to be told of entries that are nowhere.
pub(super) fn lost_report(log: LogId, entries: u64) -> Report {
    let text = format!("log {}: {entries} entries are in no file", log.0);
    Report { severity: Severity::Loss, text }
}
