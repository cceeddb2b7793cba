//! Recovery's first part: what the segments' footers say.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::LogId;
use super::index::{Index, LogState};
use super::segment::{self, Checkpoint, ChunkPlace, ChunkSummary, Footer, Load, Part};
use super::storage::Storage;
use super::wal::{self, WalFile};
use super::{LogError, Report, Severity};

/// What footers say of chunks, by segment, which of its files, and offset.
pub(super) type Summaries = BTreeMap<(u64, Part, u64), ChunkSummary>;

/// What the segments are.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) index: Index,
    pub(super) summaries: Summaries,
    /// Logs of which there is more, or less, than their newest checkpoint says.
    pub(super) changed: BTreeSet<LogId>,
    /// Logs without any checkpoint: one is lost, unless the WAL says that the log was dropped.
    pub(super) bare: Vec<LogId>,
    pub(super) next_segment: u64,
}

/// Reads the segments, and removes files that do not count any more.
pub(super) fn segments(disk: &dyn Storage, reports: &mut Vec<Report>) -> Result<Adopted, LogError> {
    let (mut loads, next_segment) = load(disk, reports)?;
    let mut adopted = Adopted { next_segment, ..Adopted::default() };
    let mut logs: BTreeMap<LogId, Known> = BTreeMap::new();
    for load in &mut loads {
        let number = load.footer.identity.number;
        adopted.index.add_segment(number, &load.footer);
        adopted.index.flushed = adopted.index.flushed.max(load.footer.identity.flushed);
        summarise(&mut adopted.summaries, &load.footer);
        for footer in &mut load.footer.logs {
            let known = logs.entry(footer.log).or_default();
            if footer.dropped {
                *known = Known { is_dropped: true, ..Known::default() };
            }
            if let Some(checkpoint) = footer.checkpoint.take() {
                (known.checkpoint, known.segment, known.is_dropped) = (checkpoint, number, false);
            }
            known.chunks.extend(footer.chunks.drain(..).map(|chunk| (number, chunk)));
        }
    }
    for (log, known) in logs {
        if !known.is_dropped {
            adopted.log(disk, log, known)?;
        }
    }
    Ok(adopted)
}

/// Notes what a footer says of chunks.
pub(super) fn summarise(summaries: &mut Summaries, footer: &Footer) {
    for chunk in footer.logs.iter().flat_map(|log| &log.chunks) {
        summaries.insert((footer.identity.number, chunk.place.part, chunk.place.offset), *chunk);
    }
}

/// What segments say of a log.
#[derive(Debug, Default)]
struct Known {
    /// The newest one.
    checkpoint: Checkpoint,
    /// The segment that has it; 0 is none.
    segment: u64,
    is_dropped: bool,
    chunks: Vec<(u64, ChunkSummary)>,
}

impl Adopted {
    fn log(&mut self, disk: &dyn Storage, log: LogId, known: Known) -> Result<(), LogError> {
        let Checkpoint { next_index, delivered, through, live } = known.checkpoint;
        let mut state = LogState { live, runs: Vec::new(), next_index, delivered, through, checkpoint: known.segment };
        let mut chunks = known.chunks;
        chunks.sort_by_key(|(segment, chunk)| (chunk.place.first, *segment));
        // Chunks overlap where entries of one are all settled. If not, what is missing is noticed later.
        chunks.dedup_by(|(_, chunk), (_, before)| chunk.place.first <= before.place.last);
        for (segment, chunk) in &chunks {
            let place = &chunk.place;
            let is_new = place.last > through;
            if is_new && place.first > through && is_dense(place) {
                state.live.insert_range(place.first..=place.last);
            }
            if chunk.transient || (is_new && !(place.first > through && is_dense(place))) {
                let (headers, damage) = segment::headers(disk, *segment, log, place)?;
                self.note(*segment, damage.is_some());
                for head in headers {
                    if head.index > through {
                        state.live.insert(head.index);
                    }
                    if head.transient && state.live.remove(head.index) {
                        self.changed.insert(log);
                    }
                }
            }
            if is_new {
                self.changed.insert(log);
                state.through = state.through.max(place.last);
            }
        }
        if known.segment == 0 {
            self.bare.push(log);
            self.changed.insert(log);
        }
        state.next_index = state.next_index.max(state.through.saturating_add(1));
        let places = chunks.into_iter().map(|(segment, chunk)| (segment, chunk.place)).collect();
        self.index.adopt(log, state, places);
        Ok(())
    }

    fn note(&mut self, segment: u64, is_damaged: bool) {
        if let Some(segment) = self.index.segments.get_mut(&segment) {
            segment.damaged |= is_damaged;
        }
    }
}

/// Whether a chunk has an entry of every index between its ends.
pub(super) fn is_dense(place: &ChunkPlace) -> bool {
    place.last - place.first + 1 == u64::from(place.count)
}

/// Puts WAL files back that were to become part of segments which are not there: those were never finished, or are gone.
fn put_back(disk: &dyn Storage, reports: &mut Vec<Report>) -> Result<(), LogError> {
    let directory = || segment::DIRECTORY.to_owned();
    let names = disk.list(segment::DIRECTORY);
    let names = names.map_err(|error| LogError::Io { path: directory(), action: "list", error })?;
    let there: BTreeSet<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let alone = names.iter().filter_map(|name| segment::wal_number_of(name));
    let mut moved = false;
    for number in alone.filter(|number| !there.contains(number)) {
        let from = segment::wal_path(number);
        let found = WalFile::open_kept(disk, &from);
        let found = found.map_err(|error| LogError::Io { path: from.clone(), action: "open", error })?;
        let to = match found {
            Some(file) => wal::path(file.sequence),
            None => {
                let text = format!("{from}: damaged: it cannot be told what it was");
                reports.push(Report { severity: Severity::Loss, text });
                format!("{}/{number:020}.wal", segment::DAMAGED)
            }
        };
        let renamed = disk.rename(&from, &to);
        let synced =
            renamed.and_then(|()| disk.sync_directory(to.rsplit_once('/').map_or("", |(directory, _)| directory)));
        synced.map_err(|error| LogError::Io { path: from, action: "rename", error })?;
        moved = true;
    }
    if moved {
        let synced = disk.sync_directory(segment::DIRECTORY);
        synced.map_err(|error| LogError::Io { path: directory(), action: "sync", error })?;
    }
    Ok(())
}

/// Loads the segments that count, ascending; with the number of the next one.
fn load(disk: &dyn Storage, reports: &mut Vec<Report>) -> Result<(Vec<Load>, u64), LogError> {
    put_back(disk, reports)?;
    let failed = |action| move |error| LogError::Io { path: segment::DIRECTORY.to_owned(), action, error };
    let mut loads = Vec::new();
    let mut next = 1;
    let mut removed = false;
    for name in disk.list(segment::DIRECTORY).map_err(failed("list"))? {
        if let Some(number) = segment::number_of(&name) {
            next = next.max(number.saturating_add(1));
            loads.push(segment::load(disk, number)?);
        } else if name.ends_with(".tmp") {
            disk.remove(&format!("{}/{name}", segment::DIRECTORY)).map_err(failed("remove"))?;
            removed = true;
        }
    }
    let there: BTreeSet<u64> = loads.iter().map(|load| load.footer.identity.number).collect();
    let replaces = |load: &Load| load.footer.identity.replaces.clone();
    // What replaces segments and lost its footer is worth less than they are, if they are all still there.
    let is_worse = |load: &Load| {
        load.is_rebuilt && !replaces(load).is_empty() && replaces(load).iter().all(|number| there.contains(number))
    };
    let (worse, loads): (Vec<Load>, Vec<Load>) = loads.into_iter().partition(is_worse);
    for load in worse {
        segment::keep_damaged(disk, load.footer.identity.number)?;
    }
    let replaced: BTreeSet<u64> = loads.iter().flat_map(replaces).collect();
    let (replaced, mut loads): (Vec<Load>, Vec<Load>) =
        loads.into_iter().partition(|load| replaced.contains(&load.footer.identity.number));
    let replaced: Vec<u64> = replaced.iter().map(|load| load.footer.identity.number).collect();
    if !replaced.is_empty() {
        segment::remove(disk, &replaced)?;
    }
    if removed {
        disk.sync_directory(segment::DIRECTORY).map_err(failed("sync"))?;
    }
    for load in &mut loads {
        reports.append(&mut load.reports);
    }
    Ok((loads, next))
}
