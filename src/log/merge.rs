//! Merging segments: what lives in some of them, and checkpoints that still count, go to one new segment.

use std::sync::Arc;

use super::entry::LogId;
use super::index::{Candidate, Extent};
use super::segment::{self, ChunkPlace, Damage, Identity, Part, SegmentWriter, Written};
use super::state::Shared;
use super::storage::File;
use super::{CommitError, LogError, Report};

/// Useless bytes in mergeable segments that make a merge worth it, at most.
const GARBAGE: u64 = 8 << 20;
/// So many small segments are merged.
const SMALL_COUNT: usize = 8;
/// Segments merged at once: each has a read buffer.
const SEGMENTS_MAX: usize = 64;
/// Logs looked at while the lock is held.
const LOGS_AT_ONCE: usize = 256;
/// Bytes read at once of each segment.
const WINDOW: usize = 256 * 1024;

/// Chooses what to merge; none when it is not worth it. Damaged segments come first. Otherwise those of which less than
/// half is useful, and small ones when there are many, as far as the result is not longer than `segment_bytes`.
pub(super) fn choose(candidates: &[Candidate], segment_bytes: u64) -> Vec<u64> {
    if let Some(damaged) = candidates.iter().find(|candidate| candidate.damaged) {
        return vec![damaged.number];
    }
    let garbage = |candidate: &Candidate| candidate.length.saturating_sub(candidate.useful);
    let is_poor = |candidate: &Candidate| candidate.useful.saturating_mul(2) < candidate.length;
    let is_small = |candidate: &Candidate| candidate.length < segment_bytes / 32;
    let sum: u64 = candidates.iter().filter(|candidate| is_poor(candidate)).map(garbage).sum();
    let small = candidates.iter().filter(|candidate| is_small(candidate)).count();
    if sum < GARBAGE.min(segment_bytes / 8) && small < SMALL_COUNT {
        return Vec::new();
    }
    let mut chosen: Vec<Candidate> =
        candidates.iter().filter(|candidate| is_poor(candidate) || is_small(candidate)).copied().collect();
    // Most to gain first.
    chosen.sort_by_key(|candidate| (std::cmp::Reverse(garbage(candidate)), candidate.number));
    let mut length = 0;
    let fits = |candidate: &Candidate| {
        length += candidate.useful;
        length == candidate.useful || length <= segment_bytes
    };
    let mut numbers: Vec<u64> =
        chosen.into_iter().take_while(fits).take(SEGMENTS_MAX).map(|chosen| chosen.number).collect();
    numbers.sort_unstable();
    numbers
}

/// Merges segments into the segment `number`, and removes them. Damaged ones are kept apart.
pub(super) fn merge(shared: &Shared, number: u64, inputs: &[u64]) -> Result<Vec<Report>, CommitError> {
    let (logs, identity) = {
        let state = shared.state.lock();
        let identity =
            Identity { number, flushed: state.index.flushed, replaces: inputs.to_vec(), ..Identity::default() };
        (state.index.logs_of(inputs), identity)
    };
    let mut windows = Vec::with_capacity(inputs.len());
    for input in inputs {
        windows.push(Window::new(*input, shared.open_segment(*input, Part::Own)?));
    }
    let writer = SegmentWriter::new(&*shared.disk, identity, shared.reading())?;
    let mut copy = Copying { shared, windows, inputs, writer, reports: Vec::new() };
    for log in &logs {
        copy.log(*log)?;
    }
    let Copying { writer, reports, .. } = copy;
    let damaged = {
        let state = shared.state.lock();
        let is_damaged = |input: &u64| state.index.segments.get(input).is_some_and(|segment| segment.damaged);
        inputs.iter().copied().filter(is_damaged).collect::<Vec<u64>>()
    };
    // What is lost must not be in any checkpoint that counts.
    let which = if damaged.is_empty() { Checkpoints::Moved } else { Checkpoints::All };
    let footer = writer.finish(checkpoints(shared, &logs, inputs, which), None, &mut || shared.sync_current())?;
    shared.state.lock().index.install(number, &footer, inputs, &[]);
    for number in &damaged {
        keep_damaged(shared, *number)?;
    }
    let gone: Vec<u64> = inputs.iter().copied().filter(|input| !damaged.contains(input)).collect();
    remove_files(shared, &gone)?;
    Ok(reports)
}

/// Removes segments' files, durably.
pub(super) fn remove_files(shared: &Shared, numbers: &[u64]) -> Result<(), LogError> {
    shared.handles.forget(numbers);
    segment::remove(&*shared.disk, numbers)
}

/// Puts a damaged segment where it can be looked at.
pub(super) fn keep_damaged(shared: &Shared, number: u64) -> Result<(), LogError> {
    shared.handles.forget(&[number]);
    segment::keep_damaged(&*shared.disk, number)
}

/// Which logs get a new checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checkpoints {
    /// Those whose newest one is in a segment that is replaced.
    Moved,
    All,
}

fn checkpoints(shared: &Shared, logs: &[LogId], inputs: &[u64], which: Checkpoints) -> Vec<Written> {
    let mut written = Vec::new();
    for some in logs.chunks(LOGS_AT_ONCE) {
        let state = shared.state.lock();
        for log in some {
            let Some(known) = state.index.logs.get(log) else {
                let is_mentioned = state.index.is_mentioned(*log, inputs);
                written.push(if is_mentioned { Written::Dropped(*log) } else { Written::Gone(*log) });
                continue;
            };
            if which == Checkpoints::All || inputs.contains(&known.checkpoint) {
                let checkpoint = state.index.checkpoint(*log, known.through);
                written.extend(checkpoint.map(|checkpoint| Written::Checkpoint(*log, checkpoint)));
            }
        }
    }
    written
}

/// A merge on its way.
struct Copying<'a> {
    shared: &'a Shared,
    windows: Vec<Window>,
    inputs: &'a [u64],
    writer: SegmentWriter<'a>,
    reports: Vec<Report>,
}

impl Copying<'_> {
    /// Copies what lives of a log.
    fn log(&mut self, log: LogId) -> Result<(), CommitError> {
        let sources = self.shared.state.lock().index.sources(log, self.inputs);
        for source in sources {
            if source.apart {
                self.writer.end_chunk()?;
            }
            for place in source.places {
                self.chunk(log, source.segment, place)?;
            }
        }
        Ok(())
    }

    fn chunk(&mut self, log: LogId, segment: u64, place: ChunkPlace) -> Result<(), CommitError> {
        let alive = self.shared.state.lock().index.live_in(log, place.first, place.last);
        let Some(alive) = alive.filter(|alive| !alive.is_empty()) else { return Ok(()) };
        let stretch;
        let bytes = match place.part {
            Part::Own => {
                let Some(window) = self.windows.iter_mut().find(|window| window.number == segment) else {
                    return Ok(());
                };
                window.read(place.offset, place.length as usize)?
            }
            Part::Wal => {
                // Chunks of one log are apart there.
                let file = self.shared.open_segment(segment, Part::Wal)?;
                let failed = |error| LogError::Io { path: segment::wal_path(segment), action: "read", error };
                stretch = segment::read_up_to(&file, place.offset, place.length as usize).map_err(failed)?;
                &stretch
            }
        };
        let mut found = Vec::new();
        let mut records = Vec::new();
        let damage = segment::chunk_records(&*self.shared.disk, segment, bytes, log, &place, &mut |header, range| {
            if alive.contains(header.head.index) {
                found.push(header.head.index);
                records.push((header.head, range));
            }
        })?;
        for (head, range) in records {
            self.writer.push(&head, bytes.get(range).unwrap_or_default())?;
        }
        let lost: Vec<u64> = alive.iter().filter(|index| found.binary_search(index).is_err()).collect();
        if let Some(Damage { offset, .. }) =
            damage.or_else(|| (!lost.is_empty()).then_some(Damage { offset: 0, lost: 0 }))
        {
            let damage = Damage { offset, lost: lost.len() };
            self.reports.extend(self.shared.note_damage(log, &Extent { segment, place }, damage));
            let mut state = self.shared.state.lock();
            lost.iter().for_each(|index| state.index.lose(log, *index));
        }
        Ok(())
    }
}

/// Reads a segment from its beginning to its end in big pieces.
struct Window {
    number: u64,
    file: Arc<dyn File>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(number: u64, file: Arc<dyn File>) -> Self {
        Self { number, file, start: 0, bytes: Vec::new() }
    }

    /// Bytes of the file; fewer when it ends before.
    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], LogError> {
        let inside = offset.checked_sub(self.start).map(|from| from as usize);
        let inside = inside.filter(|from| from.saturating_add(length) <= self.bytes.len());
        let from = match inside {
            Some(from) => from,
            None => {
                let read = segment::read_up_to(&self.file, offset, length.max(WINDOW));
                let failed = |error| LogError::Io { path: segment::path(self.number), action: "read", error };
                (self.bytes, self.start) = (read.map_err(failed)?, offset);
                0
            }
        };
        Ok(self.bytes.get(from..self.bytes.len().min(from.saturating_add(length))).unwrap_or_default())
    }
}
