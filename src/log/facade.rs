//! The log as its users see it: shared by readers and by whoever maintains it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::batch::Range;
use super::entry::{LogId, Stored};
use super::flush::Source;
use super::handles::Handles;
use super::index::{Extent, Index};
use super::segment::{self, Damage, Reading};
use super::storage::{File, Storage};
use super::wal::{BatchPlace, PrepareError, WalFile};
use super::writer::Writer;
use super::{
    CommitError, LogError, Maintained, Options, RecoveredLog, Report, Severity, SyncMode, Usage, flush, merge,
    recovery, wal,
};
use crate::model::hash::IdMap;

/// Bytes that are read at once, where a chunk is not longer.
const READ_BYTES: u64 = 8 << 20;
/// How often a read looks again for entries that were moved meanwhile.
const READ_ATTEMPTS: usize = 100;
/// WAL files kept ready to be written.
const PREPARED: usize = 2;
/// Segments of this many bytes are left in the system's cache, for those who will read them soon.
const READ_SOON: u64 = 64 << 20;
/// WAL files there are at most, unless they are full: the one being written, prepared ones, and one to be recycled.
const FILES: usize = PREPARED + 2;

/// Durable entries of many owners. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

/// A log that was opened.
#[derive(Debug)]
pub struct Opened {
    pub log: Log,
    pub writer: Writer,
    /// Ascending by id.
    pub logs: Vec<RecoveredLog>,
    pub reports: Vec<Report>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Ascending.
    pub entries: Vec<Stored>,
    /// Damage that was met.
    pub reports: Vec<Report>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Storage>,
    pub(super) options: Options,
    /// Held shortly: the writer waits for it.
    pub(super) state: Mutex<State>,
    pub(super) handles: Handles,
    /// Held by whoever maintains.
    pub(super) maintenance: Mutex<Maintenance>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) wal: WalFiles,
}

/// What is numbered next.
#[derive(Debug)]
pub(super) struct Maintenance {
    pub(super) next_segment: u64,
    pub(super) next_sequence: u64,
}

/// A WAL file that waits to be flushed.
#[derive(Clone, Debug)]
pub(super) struct Full {
    pub(super) file: WalFile,
    /// The logs that its records are about, with the highest index appended.
    pub(super) touched: Arc<IdMap<LogId, u64>>,
    /// All entries in it; none when that is not known.
    pub(super) appended: Option<Arc<Vec<Appended>>>,
}

/// Entries of a WAL file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) place: BatchPlace,
    pub(super) log: LogId,
    pub(super) range: Range,
}

/// The WAL files there are.
#[derive(Debug, Default)]
pub(super) struct WalFiles {
    /// None until the log is open.
    current: Option<WalFile>,
    full: VecDeque<Full>,
    prepared: VecDeque<WalFile>,
    spare: Vec<WalFile>,
    /// The writer wanted a file, and there was none.
    is_starved: bool,
    is_sealed: bool,
}

impl WalFiles {
    /// Takes in files that are there already, to be recycled.
    pub(super) fn found(&mut self, spare: Vec<WalFile>) {
        self.spare = spare;
    }

    /// A prepared file, or else one to be recycled.
    pub(super) fn take_any(&mut self) -> (Option<WalFile>, Option<WalFile>) {
        match self.prepared.pop_front() {
            Some(prepared) => (Some(prepared), None),
            None => (None, self.spare.pop()),
        }
    }

    /// The writer writes to this file.
    pub(super) fn begin(&mut self, current: WalFile) {
        self.current = Some(current);
        self.is_sealed = false;
    }

    pub(super) fn has_prepared(&mut self) -> bool {
        self.is_starved |= self.prepared.is_empty();
        !self.prepared.is_empty()
    }

    pub(super) fn take_prepared(&mut self) -> Option<WalFile> {
        let next = self.prepared.pop_front()?;
        self.begin(next.clone());
        Some(next)
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    pub(super) fn push_full(&mut self, file: WalFile, touched: IdMap<LogId, u64>, appended: Option<Vec<Appended>>) {
        self.full.push_back(Full { file, touched: Arc::new(touched), appended: appended.map(Arc::new) });
    }

    /// The current file is that long at least.
    pub(super) fn grow(&mut self, length: u64) {
        if let Some(current) = &mut self.current {
            current.length = current.length.max(length);
        }
    }

    fn count(&self) -> usize {
        1 + self.full.len() + self.prepared.len() + self.spare.len()
    }

    fn bytes(&self) -> u64 {
        let waiting = self.full.iter().map(|full| &full.file).chain(&self.prepared).chain(&self.spare);
        self.current.iter().chain(waiting).map(|file| file.length).sum()
    }
}

impl Log {
    /// Opens the log in a data directory, or begins one. `logs` are those that were not dropped, empty ones too.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, and when one is of a later version. Damage is no error but a report.
    pub fn open(disk: Arc<dyn Storage>, options: Options) -> Result<Opened, LogError> {
        recovery::open(disk, options)
    }

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Reads a log's entries from `first` to `last`, as far as they are in segments, live or dead.
    ///
    /// # Errors
    ///
    /// When the disk refuses. Damage is no error but a report, and good entries beside it are returned.
    pub fn read(&self, log: LogId, first: u64, last: u64) -> Result<Read, LogError> {
        let mut attempts = 0;
        loop {
            let extents = self.shared.state.lock().index.extents(log, first, last);
            attempts += 1;
            match self.shared.read(log, (first, last), &extents) {
                // The segment was merged with others since the lock was released.
                Err(LogError::Io { error, .. })
                    if error.kind() == io::ErrorKind::NotFound && attempts < READ_ATTEMPTS => {}
                read => return read,
            }
        }
    }

    /// Takes one step: flushes a WAL file, prepares one, removes or merges segments. To be called again while it worked.
    ///
    /// # Errors
    ///
    /// `NoSpace`: to be tried again later, nothing half done stays behind. `Failed`: the broker stops.
    pub fn maintain(&self) -> Result<Maintained, CommitError> {
        let mut maintenance = self.shared.maintenance.lock();
        let steps =
            [Shared::remove, Shared::prepare_first, Shared::flush, Shared::prepare, Shared::trim, Shared::merge];
        let mut no_space = None;
        for step in steps {
            match step(&self.shared, &mut maintenance) {
                Ok(Some(done)) => return Ok(Maintained { worked: true, ..done }),
                Ok(None) => {}
                // Another step may make space.
                Err(error @ CommitError::NoSpace { .. }) => no_space = Some(error),
                Err(error) => return Err(error),
            }
        }
        no_space.map_or_else(|| Ok(Maintained::default()), Err)
    }

    /// Makes the writer begin another WAL file with the next commit.
    pub fn seal(&self) {
        self.shared.state.lock().wal.is_sealed = true;
    }

    /// Drops logs that nobody knows; to be called after the log was opened. Returns those of them that had live entries.
    pub fn retain(&self, keep: &dyn Fn(LogId) -> bool) -> Vec<LogId> {
        let mut state = self.shared.state.lock();
        let mut unknown: Vec<LogId> = state.index.logs.keys().copied().filter(|log| !keep(*log)).collect();
        unknown.sort_unstable();
        unknown.retain(|log| state.index.drop_log(*log));
        unknown
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.shared.state.lock();
        let (segments, live) = state.index.usage();
        Usage { wal: state.wal.bytes(), segments, live }
    }

    /// Whether a WAL file is full and waits for [`Log::maintain`], or the writer for one to write into.
    #[must_use]
    pub fn wants_maintenance(&self) -> bool {
        let state = self.shared.state.lock();
        state.wal.is_starved || !state.wal.full.is_empty()
    }
}

/// A step of maintenance: none when there was nothing to do.
type Step = Result<Option<Maintained>, CommitError>;

impl Shared {
    /// When what is written now will be read, as far as one can tell from how much there is already.
    pub(super) fn reading(&self) -> Reading {
        let (segments, _) = self.state.lock().index.usage();
        if segments > READ_SOON { Reading::Later } else { Reading::Soon }
    }

    /// Makes durable what the index knows, before a segment says it.
    pub(super) fn sync_current(&self) -> Result<(), CommitError> {
        if self.options.sync == SyncMode::Always {
            return Ok(());
        }
        let Some(current) = self.state.lock().wal.current.clone() else { return Ok(()) };
        let failed = |error| LogError::Io { path: wal::path(current.sequence), action: "sync", error };
        Ok(current.file.sync().map_err(failed)?)
    }

    pub(super) fn open_segment(&self, number: u64) -> Result<Arc<dyn File>, LogError> {
        let failed = |error| LogError::Io { path: segment::path(number), action: "open", error };
        self.handles.get(&*self.disk, number).map_err(failed)
    }

    /// Notes damage, so that the segment is rewritten, and says what the operator has to know:
    /// nothing, when the damage was known and nothing more is lost.
    pub(super) fn note_damage(&self, log: LogId, extent: &Extent, damage: Damage) -> Option<Report> {
        let mut state = self.state.lock();
        let segment = state.index.segments.get_mut(&extent.segment);
        let is_known = segment.is_some_and(|segment| std::mem::replace(&mut segment.damaged, true));
        drop(state);
        if is_known && damage.lost == 0 {
            return None;
        }
        let (path, place) = (segment::path(extent.segment), extent.place);
        let offset = place.offset + damage.offset as u64;
        let (lost, first, last) = (damage.lost, place.first, place.last);
        let text = format!(
            "{path}: damaged at byte {offset}: {lost} of the entries {first} to {last} of log {} cannot be read",
            log.0
        );
        let severity = if lost == 0 { Severity::Notice } else { Severity::Loss };
        Some(Report { severity, text })
    }

    fn read(&self, log: LogId, (first, last): (u64, u64), extents: &[Extent]) -> Result<Read, LogError> {
        let mut read = Read::default();
        let mut rest = extents;
        while let Some(head) = rest.first() {
            let (together, behind) = rest.split_at(adjacent(rest));
            let start = head.place.offset;
            let end = together.last().map_or(start, |extent| extent.place.offset + u64::from(extent.place.length));
            let file = self.open_segment(head.segment)?;
            let failed = |error| LogError::Io { path: segment::path(head.segment), action: "read", error };
            let bytes: Bytes = segment::read_up_to(&file, start, (end - start) as usize).map_err(failed)?.into();
            for extent in together {
                let from = (extent.place.offset - start) as usize;
                let chunk = bytes.slice(from.min(bytes.len())..(from + extent.place.length as usize).min(bytes.len()));
                let damage = segment::chunk_records(&chunk, log, &extent.place, &mut |header, range| {
                    if (first..=last).contains(&header.head.index) {
                        let payload = chunk.slice(range.start + header.payload_start..range.end);
                        read.entries.push(Stored { head: header.head, payload });
                    }
                });
                read.reports.extend(damage.and_then(|damage| self.note_damage(log, extent, damage)));
            }
            rest = behind;
        }
        Ok(read)
    }

    /// Removes segments in which nothing lives.
    fn remove(&self, _: &mut Maintenance) -> Step {
        let gone = self.state.lock().index.obsolete();
        if gone.is_empty() {
            return Ok(None);
        }
        // That it is not needed may follow from what is only written.
        self.sync_current()?;
        merge::remove_files(self, &gone)?;
        let mut state = self.state.lock();
        for number in &gone {
            state.index.segments.remove(number);
        }
        Ok(Some(Maintained::default()))
    }

    /// Prepares a WAL file when the writer will want one soon and there is none.
    fn prepare_first(&self, maintenance: &mut Maintenance) -> Step {
        let is_wanted = {
            let state = self.state.lock();
            state.wal.prepared.is_empty() && (state.wal.count() < FILES || !state.wal.spare.is_empty())
        };
        if is_wanted { self.prepare(maintenance) } else { Ok(None) }
    }

    fn prepare(&self, maintenance: &mut Maintenance) -> Step {
        let spare = {
            let mut state = self.state.lock();
            let is_enough = state.wal.prepared.len() >= PREPARED;
            if is_enough || (state.wal.count() >= FILES && state.wal.spare.is_empty()) {
                return Ok(None);
            }
            state.wal.spare.pop()
        };
        let sequence = maintenance.next_sequence;
        maintenance.next_sequence += 1;
        let bytes = self.options.wal_file_bytes;
        let prepared = match spare {
            Some(file) => file.recycle(&*self.disk, sequence, bytes),
            None => WalFile::make(&*self.disk, sequence, bytes),
        };
        let file = prepared.map_err(|error| match error {
            PrepareError::NoSpace { path } => CommitError::NoSpace { path },
            PrepareError::Failed(error) => CommitError::Failed(error),
        })?;
        let mut state = self.state.lock();
        state.wal.prepared.push_back(file);
        state.wal.is_starved = false;
        Ok(Some(Maintained::default()))
    }

    /// Flushes the oldest full WAL file.
    fn flush(&self, maintenance: &mut Maintenance) -> Step {
        let Some(full) = self.state.lock().wal.full.front().cloned() else { return Ok(None) };
        let number = maintenance.next_segment;
        maintenance.next_segment += 1;
        let done = flush::flush(self, number, Some(Source::of(&full)), &full.touched)?;
        self.state.lock().wal.full.pop_front();
        if full.file.damaged || !done.reports.is_empty() {
            flush::keep_damaged(self, &full.file)?;
        } else {
            self.state.lock().wal.spare.push(full.file);
        }
        Ok(Some(Maintained { worked: true, flushed: done.flushed, reports: done.reports }))
    }

    /// Removes WAL files that are too many.
    fn trim(&self, _: &mut Maintenance) -> Step {
        let file = {
            let mut state = self.state.lock();
            if state.wal.count() <= FILES {
                return Ok(None);
            }
            state.wal.spare.pop()
        };
        let Some(file) = file else { return Ok(None) };
        let path = wal::path(file.sequence);
        let removed = self.disk.remove(&path).and_then(|()| self.disk.sync_directory(wal::DIRECTORY));
        removed.map_err(|error| LogError::Io { path, action: "remove", error })?;
        Ok(Some(Maintained::default()))
    }

    fn merge(&self, maintenance: &mut Maintenance) -> Step {
        let candidates = self.state.lock().index.candidates();
        let chosen = merge::choose(&candidates, self.options.segment_bytes);
        if chosen.is_empty() {
            return Ok(None);
        }
        let number = maintenance.next_segment;
        maintenance.next_segment += 1;
        let reports = merge::merge(self, number, &chosen)?;
        Ok(Some(Maintained { worked: true, flushed: Vec::new(), reports }))
    }
}

/// How many of the first extents lie together.
fn adjacent(extents: &[Extent]) -> usize {
    let ends = |extent: &Extent| extent.place.offset + u64::from(extent.place.length);
    let Some(head) = extents.first() else { return 0 };
    let follows = |pair: &&[Extent]| {
        pair[0].segment == pair[1].segment
            && ends(&pair[0]) == pair[1].place.offset
            && ends(&pair[1]) - head.place.offset <= READ_BYTES
    };
    1 + extents.windows(2).take_while(follows).count()
}
