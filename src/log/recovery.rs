//! Opening the log: segments' footers, then the WAL, which is flushed at once, so that everything is in segments.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::adopt::{self, Summaries};
use super::batch::Range;
use super::chunks;
use super::entry::{Header, LogId, RecordKind};
use super::flush::{self, FlushSource};
use super::handles::Handles;
use super::index::Index;
use super::segment;
use super::state::{Maintenance, Shared, State, WalFiles};
use super::storage::Storage;
use super::wal::{self, Fresh, PrepareError, WalFile, WalWriter};
use super::writer::Writer;
use super::{CommitError, LogError, Options, RecoveredLog, Report, Severity};
use crate::model::hash::IdMap;

/// Bytes of the first WAL file, at least, however full the disk is.
const FIRST_FILE_MIN: u64 = 64 * 1024;

/// The logs that a WAL file's records are about, with the highest index appended, by the file's sequence number.
type Touched = BTreeMap<u64, IdMap<LogId, u64>>;

/// A log that was recovered.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    /// Ascending by id.
    pub(super) logs: Vec<RecoveredLog>,
    pub(super) reports: Vec<Report>,
}

pub(super) fn open(disk: Arc<dyn Storage>, options: Options) -> Result<Recovered, LogError> {
    sync_names(&*disk)?;
    let mut reports = Vec::new();
    let mut adopted = adopt::segments(&*disk, &mut reports)?;
    let (replay, touched) = replay(&*disk, &mut adopted.index, &mut reports)?;
    for log in adopted.bare.iter().filter(|log| adopted.index.logs.contains_key(log)) {
        let text = format!("log {}: its newest checkpoint is lost: entries that were settled may come back", log.0);
        reports.push(Report { severity: Severity::Loss, text });
    }
    let shared = Shared {
        disk,
        options,
        state: Mutex::new(State { index: adopted.index, wal: WalFiles::default() }),
        handles: Handles::default(),
        maintenance: Mutex::new(Maintenance {
            next_segment: adopted.next_segment,
            next_sequence: replay.next_sequence,
        }),
    };
    adopted.changed.extend(chunks::lose_missing(&shared, &mut reports)?);
    shared.state.lock().index.touched.clear();
    let next_batch = replay.next_batch;
    let changed = adopted.changed.into_iter().map(|log| (log, 0)).collect();
    flush_all(&shared, replay, touched, changed, &mut adopted.summaries)?;
    let logs = chunks::recovered(&shared, &adopted.summaries, &mut reports)?;
    let first = first_file(&shared)?;
    shared.state.lock().wal.begin(first.clone());
    let shared = Arc::new(shared);
    let writer = Writer::new(shared.clone(), WalWriter::new(first, next_batch).grouping(options.keeping.stretch_min));
    Ok(Recovered { shared, writer, logs, reports })
}

/// Makes durable that the files have the names they are found by: a process that died may have left renames that a power
/// failure would undo, and what is done next relies on them.
fn sync_names(disk: &dyn Storage) -> Result<(), LogError> {
    for directory in [segment::DIRECTORY, wal::DIRECTORY, ""] {
        if let Err(error) = disk.sync_directory(directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(LogError::Io { path: directory.to_owned(), action: "sync", error });
        }
    }
    Ok(())
}

/// Applies what the WAL says to the index.
fn replay(
    disk: &dyn Storage,
    index: &mut Index,
    reports: &mut Vec<Report>,
) -> Result<(wal::Replay, Touched), LogError> {
    let mut touched = Touched::new();
    let flushed = index.flushed;
    let replay = wal::replay(disk, flushed, &mut |sequence, header, payload| {
        reports.extend(apply(index, header, payload));
        let all = touched.entry(sequence).or_default();
        for (log, last) in index.touched.drain() {
            let highest = all.entry(log).or_default();
            *highest = last.max(*highest);
        }
    })?;
    reports.extend(replay.reports.iter().cloned());
    Ok((replay, touched))
}

fn apply(index: &mut Index, header: &Header, payload: &[u8]) -> Option<Report> {
    let head = &header.head;
    let entry = Range { first: head.index, last: head.index };
    match header.kind {
        RecordKind::Entry | RecordKind::Again => {
            let through = index.logs.get(&head.log).map_or(0, |state| state.through);
            if head.index <= through {
                let (log, index) = (head.log.0, head.index);
                let text = format!("log {log}: entry {index} of the WAL is left out: the segments go up to {through}");
                return Some(Report { severity: Severity::Loss, text });
            }
            index.append(head.log, entry);
            if head.transient {
                index.settle(head.log, entry);
            }
        }
        RecordKind::Settled => {
            for pair in payload.chunks_exact(16) {
                let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
                let (first, last) = pair.split_at(8);
                index.settle(head.log, Range { first: number(first), last: number(last) });
            }
        }
        RecordKind::Delivered => index.deliver(head.log, head.index),
        RecordKind::Dropped => {
            index.drop_log(head.log);
        }
    }
    None
}

/// Flushes what was replayed, with checkpoints of logs that recovery itself changed, and sorts the WAL files.
fn flush_all(
    shared: &Shared,
    replay: wal::Replay,
    mut touched: Touched,
    mut changed: IdMap<LogId, u64>,
    summaries: &mut Summaries,
) -> Result<(), LogError> {
    let mut maintenance = shared.maintenance.lock();
    let mut spare = replay.spare;
    for file in replay.files {
        if file.is_prepared() {
            // To be prepared again: when a sync of its header has failed, what is read here may never get to the disk.
            spare.push(file);
            continue;
        }
        let mut touched = touched.remove(&file.sequence).unwrap_or_default();
        for (log, last) in std::mem::take(&mut changed) {
            touched.entry(log).or_insert(last);
        }
        let done = loop {
            match flush::flush(shared, maintenance.next_segment, Some(FlushSource::All(&file)), &touched) {
                Ok(done) => break done,
                // On a full disk the files whose content is not needed any more are the space there is.
                Err(CommitError::NoSpace { .. }) if give_up_spare(shared, &mut spare)? => {}
                Err(error) => return Err(plain(error)),
            }
        };
        maintenance.next_segment += 1;
        adopt::summarise(summaries, &done.footer);
        if file.damaged {
            flush::keep_damaged(shared, &file)?;
        } else {
            spare.push(file);
        }
    }
    if !changed.is_empty() {
        flush::flush(shared, maintenance.next_segment, None, &changed).map_err(plain)?;
        maintenance.next_segment += 1;
    }
    let mut state = shared.state.lock();
    state.wal.found(spare);
    Ok(())
}

/// Removes a WAL file whose content is not needed. Whether there was one.
fn give_up_spare(shared: &Shared, spare: &mut Vec<WalFile>) -> Result<bool, LogError> {
    let Some(file) = spare.pop() else { return Ok(false) };
    let path = wal::path(file.sequence);
    let removed = shared.disk.remove(&path).and_then(|()| shared.disk.sync_directory(wal::DIRECTORY));
    removed.map_err(|error| LogError::Io { path, action: "remove", error })?;
    Ok(true)
}

/// The file that the writer begins with.
fn first_file(shared: &Shared) -> Result<WalFile, LogError> {
    let (prepared, spare) = shared.state.lock().wal.take_any();
    if let Some(file) = prepared {
        return Ok(file);
    }
    let mut maintenance = shared.maintenance.lock();
    let mut bytes = shared.options.wal_file_bytes;
    let mut spare = spare;
    loop {
        let sequence = maintenance.next_sequence;
        maintenance.next_sequence += 1;
        let file = match spare.take() {
            Some(file) => file.recycle(&*shared.disk, sequence, bytes),
            None => WalFile::make(&*shared.disk, sequence, bytes, Fresh::Zeroed),
        };
        match file {
            Ok(file) => return Ok(file),
            // A small one is enough to go on with: acknowledgements make room on a full disk.
            Err(PrepareError::NoSpace { .. }) if bytes / 2 >= FIRST_FILE_MIN => bytes /= 2,
            Err(PrepareError::NoSpace { path, error }) => return Err(no_space(path, error)),
            Err(PrepareError::Failed(error)) => return Err(error),
        }
    }
}

/// When the log is opened there is nobody who could wait for space.
fn plain(error: CommitError) -> LogError {
    match error {
        CommitError::NoSpace { path, error } => no_space(path, error),
        CommitError::Full => no_space(wal::DIRECTORY.to_owned(), io::ErrorKind::StorageFull.into()),
        CommitError::Failed(error) => error,
    }
}

fn no_space(path: String, error: io::Error) -> LogError {
    LogError::Io { path, action: "write", error }
}
