//! The log as its users see it: shared by readers and by whoever maintains it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{LogId, Stored};
use super::flush::FlushSource;
use super::index::{Extent, LogState};
use super::segment;
use super::state::{Maintenance, Shared};
use super::storage::Storage;
use super::wal::{PrepareError, WalFile};
use super::writer::Writer;
use super::{CommitError, LogError, Maintained, Options, RecoveredLog, Report, Usage, flush, merge, recovery, wal};

/// Bytes that are read at once, where a chunk is not longer.
const READ_BYTES: u64 = 8 << 20;
/// How often a read looks again for entries that were moved meanwhile.
const READ_ATTEMPTS: usize = 100;
/// WAL files kept ready to be written.
const PREPARED: usize = 2;
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

impl Log {
    /// Opens the log in a data directory, or begins one. `logs` are those that were not dropped, empty ones too.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, and when one is of a later version. Damage is no error but a report.
    pub fn open(disk: Arc<dyn Storage>, options: Options) -> Result<Opened, LogError> {
        let recovery::Recovered { shared, writer, logs, reports } = recovery::open(disk, options)?;
        Ok(Opened { log: Self { shared }, writer, logs, reports })
    }

    #[cfg(test)]
    pub(super) fn of(writer: &Writer) -> Self {
        Self { shared: writer.shared() }
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

    /// Bytes of memory that it takes to know what lives where.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.shared.state.lock().index.logs.values().map(LogState::memory).sum()
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

/// Reading, and the steps of maintenance.
impl Shared {
    fn read(&self, log: LogId, (first, last): (u64, u64), extents: &[Extent]) -> Result<Read, LogError> {
        let mut read = Read::default();
        let mut rest = extents;
        while let Some(head) = rest.first() {
            let (together, behind) = rest.split_at(adjacent(rest));
            let start = head.place.offset;
            let end = together.last().map_or(start, |extent| extent.place.offset + u64::from(extent.place.length));
            let (number, part) = (head.segment, head.place.part);
            let file = self.open_segment(number, part)?;
            let failed = |error| LogError::Io { path: segment::part_path(number, part), action: "read", error };
            let bytes: Bytes = segment::read_up_to(&file, start, (end - start) as usize).map_err(failed)?.into();
            for extent in together {
                let from = (extent.place.offset - start) as usize;
                let chunk = bytes.slice(from.min(bytes.len())..(from + extent.place.length as usize).min(bytes.len()));
                let damage =
                    segment::chunk_records(&*self.disk, number, &chunk, log, &extent.place, &mut |header, range| {
                        if (first..=last).contains(&header.head.index) {
                            let payload = chunk.slice(range.start + header.payload_start..range.end);
                            read.entries.push(Stored { head: header.head, payload });
                        }
                    })?;
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
        let (spare, fresh) = {
            let mut state = self.state.lock();
            let is_enough = state.wal.prepared.len() >= PREPARED;
            if is_enough || (state.wal.count() >= FILES && state.wal.spare.is_empty()) {
                return Ok(None);
            }
            (state.wal.spare.pop(), state.wal.fresh())
        };
        let sequence = maintenance.next_sequence;
        maintenance.next_sequence += 1;
        let bytes = self.options.wal_file_bytes;
        let prepared = match spare {
            Some(file) => file.recycle(&*self.disk, sequence, bytes),
            None => WalFile::make(&*self.disk, sequence, bytes, fresh),
        };
        let file = prepared.map_err(|error| match error {
            PrepareError::NoSpace { path, error } => CommitError::NoSpace { path, error },
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
        let done = flush::flush(self, number, Some(FlushSource::of(&full)), &full.touched)?;
        let is_damaged = full.file.damaged || !done.reports.is_empty();
        let mut state = self.state.lock();
        state.wal.full.pop_front();
        state.wal.are_batches_large = done.is_kept;
        match (done.is_kept, is_damaged) {
            (true, _) => {}
            (false, false) => state.wal.spare.push(full.file),
            (false, true) => {
                drop(state);
                flush::keep_damaged(self, &full.file)?;
            }
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
            && pair[0].place.part == pair[1].place.part
            && ends(&pair[0]) == pair[1].place.offset
            && ends(&pair[1]) - head.place.offset <= READ_BYTES
    };
    1 + extents.windows(2).take_while(follows).count()
}
