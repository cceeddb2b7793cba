//! Flushing a WAL file: what still lives in it goes to a segment, with a checkpoint of each log it touched. A file of which
//! most lives is not copied but becomes part of the segment, as it is.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::batch::Range;
use super::entry::{Head, Header, LogId, RecordKind};
use super::index::Survivors;
use super::segment::{self, Fate, Footer, Identity, Layout, Lying, Reading, SegmentWriter, Written, put_entry};
use super::state::{Appended, Full, Shared};
use super::wal::{self, BatchPlace, Record, WalFile};
use super::{CommitError, Keeping, LogError, Report, Severity};
use crate::model::hash::IdMap;
use crate::model::narrow::narrow;

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
    /// The WAL file is part of the segment now.
    pub(super) is_kept: bool,
}

/// A WAL file, and what there is to read in it.
#[derive(Clone, Copy, Debug)]
pub(super) enum FlushSource<'a> {
    /// What recovery found, or one with more runs of entries than could be remembered. It is copied: where a sync had failed
    /// before the process died, what is read here may never get to the disk.
    All(&'a WalFile),
    /// Those batches in which something lives.
    Appended(&'a WalFile, &'a [Appended]),
}

impl<'a> FlushSource<'a> {
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
        let mut visit = |record: &Record| gathered.take(&record.header, &record.payload);
        match self {
            Self::All(file) => wal::records(file, &mut visit),
            Self::Appended(file, _) => wal::records_of(file, &alive, &mut visit),
        }
    }

    /// Whether it is worth to look if the file can become part of the segment.
    fn may_be_kept(&self, survivors: &IdMap<LogId, Survivors>, keeping: Keeping) -> bool {
        match self {
            Self::All(_) => false,
            Self::Appended(file, appended) => {
                let mut batches: Vec<u64> = appended.iter().map(|run| run.place.offset).collect();
                batches.dedup();
                let live = |run: &Appended| {
                    let Range { first, last } = run.range;
                    let alive = survivors.get(&run.log).map_or(0, |alive| alive.count_in(first, last));
                    u128::from(run.bytes) * u128::from(alive) / u128::from(last - first + 1)
                };
                let live: u128 = appended.iter().map(live).sum();
                !file.damaged
                    && live * 100 >= u128::from(file.length) * u128::from(keeping.share_min)
                    && file.length >= keeping.batch_min.saturating_mul(batches.len() as u64)
            }
        }
    }
}

/// Looks where a file's entries lie; none when the file is to be copied.
fn layout(
    source: FlushSource<'_>,
    survivors: &IdMap<LogId, Survivors>,
    keeping: Keeping,
) -> Result<Option<Layout>, LogError> {
    if !source.may_be_kept(survivors, keeping) {
        return Ok(None);
    }
    let mut lying = Vec::new();
    let reports = wal::records(source.file(), &mut |record| {
        let head = &record.header.head;
        let alive = survivors.get(&head.log).is_some_and(|alive| alive.contains(head.index));
        let fate = match record.header.kind {
            RecordKind::Entry if alive => Fate::Stays,
            RecordKind::Entry => Fate::Dead,
            // Its payload is elsewhere.
            RecordKind::Again if alive => Fate::Copied,
            RecordKind::Again | RecordKind::Settled | RecordKind::Delivered | RecordKind::Dropped => return,
        };
        lying.push(Lying::new(record, fate));
    })?;
    let layout = Layout::of(lying, keeping.stretch_min);
    let is_kept = reports.is_empty()
        && layout.bytes > 0
        && layout.bytes.saturating_mul(100) >= source.file().length.saturating_mul(keeping.share_min);
    Ok(is_kept.then_some(layout))
}

/// Flushes a WAL file to the segment `number`; `touched` are the logs its records are about, with the highest index
/// appended. Without a file only checkpoints are written.
///
/// The entries are chosen before the checkpoints are made. In between more of them may be settled, so that a checkpoint
/// never names an entry that is not there.
pub(super) fn flush(
    shared: &Shared,
    number: u64,
    source: Option<FlushSource<'_>>,
    touched: &IdMap<LogId, u64>,
) -> Result<Flushed, CommitError> {
    let mut touched: Vec<(LogId, u64)> = touched.iter().map(|(log, last)| (*log, *last)).collect();
    touched.sort_unstable();
    let mut gathered = Gathered { survivors: survivors(shared, &touched), ..Gathered::default() };
    let mut reports = Vec::new();
    let layout = match source {
        Some(source) => layout(source, &gathered.survivors, shared.options.keeping)?,
        None => None,
    };
    if let Some(layout) = &layout {
        gathered.survivors = layout.copied.iter().map(|(log, indexes)| (*log, Survivors::of(indexes))).collect();
    }
    let flushed = shared.state.lock().index.flushed;
    let sequence = source.map_or(0, |source| source.file().sequence);
    if let Some(source) = source.filter(|_| !gathered.survivors.is_empty()) {
        reports = source.read(&mut gathered)?;
    }
    gathered.sort();
    if !reports.is_empty() {
        lose(shared, &gathered);
    }
    let (flushed, keeps_wal) = (flushed.max(sequence), layout.is_some());
    let identity = Identity { number, wal: sequence, flushed, keeps_wal, ..Identity::default() };
    let reading = if keeps_wal { Reading::Soon } else { shared.reading() };
    let mut writer = SegmentWriter::new(&*shared.disk, identity, reading)?;
    let is_kept = layout.is_some();
    gathered.write(&mut writer, layout.unwrap_or_default())?;
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
    let path = wal::path(sequence);
    let kept = source.filter(|_| is_kept).map(|source| (path.as_str(), source.file().length));
    let mut footer = writer.finish(logs, kept, &mut || shared.sync_current())?;
    footer.damaged = is_kept && !reports.is_empty();
    if let Some(source) = source.filter(|_| is_kept && shared.reading() == Reading::Later) {
        source.file().file.release_cache();
    }
    let mut state = shared.state.lock();
    state.index.install(number, &footer, &[], &touched);
    touched.retain(|(log, last)| *last > 0 && state.index.logs.contains_key(log));
    drop(state);
    Ok(Flushed { footer, flushed: touched, reports, is_kept })
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
        found.entry(entry.head.log).or_default().push(entry.head.index);
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

/// Live entries of a WAL file, with copies of their payloads.
#[derive(Debug, Default)]
struct Gathered {
    survivors: IdMap<LogId, Survivors>,
    blocks: Vec<Vec<u8>>,
    entries: Vec<GatheredEntry>,
    /// The payload taken last, and where its copy is: a message for many queues is there once, as in the file.
    last: Option<(Bytes, Copied)>,
}

#[derive(Clone, Copy, Debug)]
struct GatheredEntry {
    head: Head,
    payload: Copied,
}

/// Where a payload was copied to.
#[derive(Clone, Copy, Debug)]
struct Copied {
    block: u32,
    offset: u32,
    length: u32,
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

    fn take(&mut self, header: &Header, payload: &Bytes) {
        let head = header.head;
        let is_entry = matches!(header.kind, RecordKind::Entry | RecordKind::Again);
        if !is_entry || !self.survivors.get(&head.log).is_some_and(|alive| alive.contains(head.index)) {
            return;
        }
        // The bytes of the last one are still there, so the same place is the same payload.
        let is_last = |last: &Bytes| last.as_ptr() == payload.as_ptr() && last.len() == payload.len();
        let payload = match &self.last {
            Some((last, copied)) if is_last(last) => *copied,
            _ => self.copy(payload),
        };
        self.entries.push(GatheredEntry { head, payload });
    }

    fn copy(&mut self, payload: &Bytes) -> Copied {
        let has_room = self.blocks.last().is_some_and(|block| block.capacity() - block.len() >= payload.len());
        if !has_room {
            self.blocks.push(Vec::with_capacity(payload.len().max(BLOCK)));
        }
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        let copied = Copied {
            block: narrow(number, "a WAL file has up to 1 GiB, or one batch"),
            offset: narrow(block.len(), "a block has room for 1 MiB, or one payload"),
            length: narrow(payload.len(), "a record is shorter than 4 GiB"),
        };
        block.extend_from_slice(payload);
        self.last = Some((payload.clone(), copied));
        copied
    }

    fn sort(&mut self) {
        self.last = None;
        self.entries.sort_by_key(|entry| (entry.head.log, entry.head.index));
        self.entries.dedup_by_key(|entry| (entry.head.log, entry.head.index));
    }

    /// Writes the entries, and what stays in the WAL file, by log and index.
    fn write(&self, writer: &mut SegmentWriter<'_>, layout: Layout) -> Result<(), CommitError> {
        let staying = layout.staying.into_iter();
        let mut staying =
            staying.flat_map(|(log, chunks)| chunks.into_iter().map(move |chunk| (log, chunk))).peekable();
        let mut record = Vec::new();
        for GatheredEntry { head, payload } in &self.entries {
            while let Some((log, chunk)) =
                staying.next_if(|(log, chunk)| (*log, chunk.place.first) < (head.log, head.index))
            {
                writer.refer(log, chunk)?;
            }
            let from = payload.offset as usize;
            let payload = &self.blocks[payload.block as usize][from..from + payload.length as usize];
            record.clear();
            put_entry(&mut record, head, payload);
            writer.push(head, &record)?;
        }
        for (log, chunk) in staying {
            writer.refer(log, chunk)?;
        }
        Ok(())
    }
}

/// What is to be told of entries that are nowhere.
pub(super) fn lost_report(log: LogId, entries: u64) -> Report {
    let text = format!("log {}: {entries} entries are in no file", log.0);
    Report { severity: Severity::Loss, text }
}
