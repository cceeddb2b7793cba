//! What is live and where it lies, in memory: per log the set of live indexes and its runs in segments, per segment how
//! much of it lives. Its owner holds a lock around it; nothing here waits.

use std::collections::{BTreeMap, BTreeSet};

use roaring::RoaringTreemap;

use super::batch::{LogChange, Range};
use super::entry::LogId;
use super::segment::{Checkpoint, ChunkPlace, Footer, LogFooter, Part};
use crate::model::hash::IdMap;

/// Chunks of a log that follow each other in one segment, with no index of another segment between.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) segment: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Bytes and entries, live or dead.
    bytes: u64,
    entries: u64,
    live: u64,
    pub(super) places: Box<[ChunkPlace]>,
}

impl Run {
    fn new(segment: u64, places: Vec<ChunkPlace>, live: &RoaringTreemap) -> Option<Self> {
        let (first, last) = (places.first()?.first, places.last()?.last);
        let bytes = places.iter().map(|place| u64::from(place.length)).sum();
        let entries = places.iter().map(|place| u64::from(place.count)).sum();
        let live = live.range_cardinality(first..=last);
        (live > 0).then(|| Self { segment, first, last, bytes, entries, live, places: places.into_boxed_slice() })
    }

    /// An estimate: entries of a run are taken to be of one size.
    fn live_bytes(&self) -> u64 {
        let share = u128::from(self.bytes) * u128::from(self.live) / u128::from(self.entries.max(1));
        u64::try_from(share).unwrap_or(u64::MAX).min(self.bytes)
    }
}

#[derive(Debug, Default)]
pub(super) struct LogState {
    pub(super) live: RoaringTreemap,
    /// Those with live entries; ascending, disjoint.
    pub(super) runs: Vec<Run>,
    /// Above every index the log ever had.
    pub(super) next_index: u64,
    pub(super) delivered: u64,
    /// Entries up to this index are in segments.
    pub(super) through: u64,
    /// The segment with its newest checkpoint; 0 is none.
    pub(super) checkpoint: u64,
}

impl LogState {
    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> u64 {
        let places: usize = self.runs.iter().map(|run| run.places.len()).sum();
        let runs = self.runs.capacity() * size_of::<Run>() + places * size_of::<ChunkPlace>();
        (size_of::<Self>() + self.live.serialized_size() + runs) as u64
    }

    fn sort_runs(&mut self, segments: &mut BTreeMap<u64, SegmentState>, mut places: Vec<(u64, ChunkPlace)>) {
        places.sort_by_key(|(segment, place)| (place.first, *segment));
        self.runs.clear();
        let mut rest = places.as_slice();
        while let Some((segment, _)) = rest.first() {
            let same = rest.iter().take_while(|(other, _)| other == segment).count();
            let (group, behind) = rest.split_at(same);
            let group = group.iter().map(|(_, place)| *place).collect();
            if let Some(run) = Run::new(*segment, group, &self.live) {
                add(segments, &run);
                self.runs.push(run);
            }
            rest = behind;
        }
    }
}

/// A segment that is there.
#[derive(Debug, Default)]
pub(super) struct SegmentState {
    /// Bytes of its files.
    pub(super) length: u64,
    /// Bytes of all that is not records, and of records.
    footer: u64,
    data: u64,
    /// Entries, checkpoints and notes of dropped logs.
    units: u64,
    live_entries: u64,
    live_bytes: u64,
    /// Checkpoints that no newer one supersedes.
    current: u64,
    /// The logs it has entries or checkpoints of.
    logs: RoaringTreemap,
    /// Logs whose entries and checkpoints in older segments are void, as long as there are such segments.
    dropped: Vec<LogId>,
    /// Something in it cannot be read: it is to be rewritten.
    pub(super) damaged: bool,
}

impl SegmentState {
    /// Bytes worth keeping.
    fn useful(&self) -> u64 {
        let live = self.live_entries + self.current + self.dropped.len() as u64;
        let share = u128::from(self.footer) * u128::from(live.min(self.units)) / u128::from(self.units.max(1));
        self.live_bytes.min(self.data) + u64::try_from(share).unwrap_or(0)
    }
}

/// What the choice of segments to merge goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) number: u64,
    pub(super) length: u64,
    pub(super) useful: u64,
    pub(super) damaged: bool,
}

/// A part of a segment to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) segment: u64,
    pub(super) place: ChunkPlace,
}

/// Where to find entries of a log, with those alive.
#[derive(Debug)]
pub(super) struct SegmentSource {
    pub(super) segment: u64,
    pub(super) places: Vec<ChunkPlace>,
    /// Another segment has entries between this source and the one before.
    pub(super) apart: bool,
}

/// Of a log: the live indexes in a range.
#[derive(Debug)]
pub(super) struct Survivors {
    first: u64,
    last: u64,
    /// None when all live.
    set: Option<RoaringTreemap>,
}

impl Survivors {
    /// Those indexes, ascending.
    pub(super) fn of(indexes: &[u64]) -> Self {
        let (first, last) = (indexes.first().copied().unwrap_or(1), indexes.last().copied().unwrap_or(0));
        Self { first, last, set: Some(indexes.iter().copied().collect()) }
    }

    /// How many there are from `first` to `last`.
    pub(super) fn count_in(&self, first: u64, last: u64) -> u64 {
        let (first, last) = (first.max(self.first), last.min(self.last));
        match &self.set {
            _ if first > last => 0,
            Some(set) => set.range_cardinality(first..=last),
            None => last - first + 1,
        }
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        self.first <= index && index <= self.last && self.set.as_ref().is_none_or(|set| set.contains(index))
    }

    /// Whether there is one from `first` to `last`.
    pub(super) fn any_in(&self, first: u64, last: u64) -> bool {
        self.count_in(first, last) > 0
    }

    /// The indexes, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        let all = self.set.is_none().then_some(self.first..=self.last);
        all.into_iter().flatten().chain(self.set.iter().flatten())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.as_ref().is_some_and(RoaringTreemap::is_empty)
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) logs: IdMap<LogId, LogState>,
    pub(super) segments: BTreeMap<u64, SegmentState>,
    /// Logs that records of the current WAL file are about, with the highest index appended.
    pub(super) touched: IdMap<LogId, u64>,
    /// The highest WAL sequence whose file is flushed.
    pub(super) flushed: u64,
}

impl Index {
    pub(super) fn apply(&mut self, change: &LogChange) {
        match *change {
            LogChange::Appended { log, range, .. } => {
                assert!(
                    self.logs.get(&log).is_none_or(|state| range.first >= state.next_index),
                    "index {} of {log:?} comes twice",
                    range.first
                );
                self.append(log, range);
            }
            LogChange::Settled { log, range } => self.settle(log, range),
            LogChange::Delivered { log, index } => self.deliver(log, index),
            LogChange::Dropped { log } => {
                self.drop_log(log);
            }
        }
    }

    pub(super) fn append(&mut self, log: LogId, range: Range) {
        let state = self.logs.entry(log).or_default();
        if range.first == range.last {
            state.live.insert(range.first);
        } else {
            state.live.insert_range(range.first..=range.last);
        }
        state.next_index = state.next_index.max(range.last.saturating_add(1));
        let touched = self.touched.entry(log).or_default();
        *touched = range.last.max(*touched);
    }

    pub(super) fn settle(&mut self, log: LogId, range: Range) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        self.touched.entry(log).or_default();
        let last = range.last.min(state.next_index.saturating_sub(1));
        if range.first > last {
            return;
        }
        let start = state.runs.partition_point(|run| run.last < range.first);
        let mut emptied = false;
        for run in &mut state.runs[start..] {
            if run.first > last {
                break;
            }
            let removed = state.live.remove_range(range.first.max(run.first)..=last.min(run.last));
            if removed > 0 {
                let before = run.live_bytes();
                run.live = run.live.saturating_sub(removed);
                emptied |= run.live == 0;
                subtract(&mut self.segments, run.segment, removed, before - run.live_bytes());
            }
        }
        if emptied {
            state.runs.retain(|run| run.live > 0);
        }
        // What is in no segment yet; or not any more, when the log is being opened.
        state.live.remove_range(range.first..=last);
        if state.live.is_empty() {
            // Gives back what the set and the list keep allocated.
            state.live = RoaringTreemap::new();
            state.runs = Vec::new();
        }
    }

    pub(super) fn deliver(&mut self, log: LogId, index: u64) {
        if let Some(state) = self.logs.get_mut(&log) {
            state.delivered = state.delivered.max(index);
            self.touched.entry(log).or_default();
        }
    }

    /// Whether it had live entries.
    pub(super) fn drop_log(&mut self, log: LogId) -> bool {
        let Some(state) = self.logs.remove(&log) else { return false };
        self.touched.entry(log).or_default();
        for run in &state.runs {
            subtract(&mut self.segments, run.segment, run.live, run.live_bytes());
        }
        if let Some(segment) = self.segments.get_mut(&state.checkpoint) {
            segment.current = segment.current.saturating_sub(1);
        }
        !state.live.is_empty()
    }

    /// The live indexes of a log above what is in segments, up to `last`; none for a log that is gone.
    pub(super) fn unflushed(&self, log: LogId, last: u64) -> Option<Survivors> {
        let state = self.logs.get(&log)?;
        state.through.checked_add(1).map(|first| survivors(&state.live, first, last))
    }

    /// The live indexes of a log in a range.
    pub(super) fn live_in(&self, log: LogId, first: u64, last: u64) -> Option<Survivors> {
        self.logs.get(&log).map(|state| survivors(&state.live, first, last))
    }

    /// What a segment has to say of a log, if all entries up to `through` are in segments once it is there.
    pub(super) fn checkpoint(&self, log: LogId, through: u64) -> Option<Checkpoint> {
        let state = self.logs.get(&log)?;
        let mut live = state.live.clone();
        if let Some(above) = through.checked_add(1) {
            live.remove_range(above..);
        }
        Some(Checkpoint { next_index: state.next_index, delivered: state.delivered, through, live })
    }

    /// Whether a segment outside `except` has something of a log.
    pub(super) fn is_mentioned(&self, log: LogId, except: &[u64]) -> bool {
        let mut others = self.segments.iter().filter(|(number, _)| !except.contains(number));
        others.any(|(_, segment)| segment.logs.contains(log.0))
    }

    /// Where entries of a log lie, ascending.
    pub(super) fn extents(&self, log: LogId, first: u64, last: u64) -> Vec<Extent> {
        let Some(state) = self.logs.get(&log) else { return Vec::new() };
        let start = state.runs.partition_point(|run| run.last < first);
        let runs = state.runs[start..].iter().take_while(|run| run.first <= last);
        let mut extents = Vec::new();
        for run in runs {
            let start = run.places.partition_point(|place| place.last < first);
            let places = run.places[start..].iter().take_while(|place| place.first <= last);
            extents.extend(places.map(|place| Extent { segment: run.segment, place: *place }));
        }
        extents
    }

    /// The runs of a log in some segments, ascending.
    pub(super) fn sources(&self, log: LogId, segments: &[u64]) -> Vec<SegmentSource> {
        let Some(state) = self.logs.get(&log) else { return Vec::new() };
        let mut sources = Vec::new();
        let mut apart = false;
        for run in &state.runs {
            if segments.contains(&run.segment) {
                sources.push(SegmentSource { segment: run.segment, places: run.places.to_vec(), apart });
                apart = false;
            } else {
                apart = true;
            }
        }
        sources
    }

    /// The logs that segments have something of, ascending.
    pub(super) fn logs_of(&self, segments: &[u64]) -> Vec<LogId> {
        let mut logs = RoaringTreemap::new();
        let mut dropped = BTreeSet::new();
        for segment in segments.iter().filter_map(|number| self.segments.get(number)) {
            logs |= &segment.logs;
            dropped.extend(segment.dropped.iter().copied());
        }
        dropped.extend(logs.iter().map(LogId));
        dropped.into_iter().collect()
    }

    /// Takes in a new segment, in place of others. `flushed` are the logs of the WAL file that it took the entries of.
    pub(super) fn install(&mut self, number: u64, footer: &Footer, replaced: &[u64], flushed: &[(LogId, u64)]) {
        for log in self.logs_of(replaced) {
            self.remove_runs(log, replaced);
        }
        for number in replaced {
            self.segments.remove(number);
        }
        self.flushed = self.flushed.max(footer.identity.flushed);
        self.add_segment(number, footer);
        for (log, last) in flushed {
            if let Some(state) = self.logs.get_mut(log) {
                state.through = state.through.max(*last);
            }
        }
        for log in &footer.logs {
            let Some(state) = self.logs.get_mut(&log.log) else { continue };
            if log.checkpoint.is_some() {
                make_current(&mut self.segments, state, number);
            }
            if !log.chunks.is_empty() {
                let own = log.chunks.iter().map(|chunk| (number, chunk.place));
                let others = state.runs.iter().flat_map(|run| run.places.iter().map(|place| (run.segment, *place)));
                let is_last = state.runs.last().is_none_or(|run| run.last < log.first());
                if is_last {
                    push_run(&mut self.segments, state, number, log);
                    continue;
                }
                let places = others.chain(own).collect();
                for run in std::mem::take(&mut state.runs) {
                    subtract(&mut self.segments, run.segment, run.live, run.live_bytes());
                }
                state.sort_runs(&mut self.segments, places);
            }
        }
    }

    /// Notes a segment, without what it says of logs.
    pub(super) fn add_segment(&mut self, number: u64, footer: &Footer) {
        let places = || footer.logs.iter().flat_map(|log| &log.chunks).map(|chunk| chunk.place);
        let data = places().map(|place| u64::from(place.length)).sum();
        let own = places().filter(|place| place.part == Part::Own).map(|place| u64::from(place.length)).sum();
        let mut state = SegmentState {
            length: footer.file_length + footer.wal_length,
            // What a WAL file has besides is of no use to anybody.
            footer: footer.file_length.saturating_sub(own),
            data,
            damaged: footer.damaged,
            ..SegmentState::default()
        };
        for log in &footer.logs {
            let entries: u64 = log.chunks.iter().map(|chunk| u64::from(chunk.place.count)).sum();
            state.units += entries + u64::from(log.checkpoint.is_some()) + u64::from(log.dropped);
            if log.checkpoint.is_some() || !log.chunks.is_empty() {
                state.logs.insert(log.log.0);
            }
            if log.dropped {
                state.dropped.push(log.log);
            }
        }
        self.segments.insert(number, state);
    }

    /// Puts a recovered log's chunks in their places. Its live set is complete.
    pub(super) fn adopt(&mut self, log: LogId, mut state: LogState, places: Vec<(u64, ChunkPlace)>) {
        let checkpoint = state.checkpoint;
        state.checkpoint = 0;
        if checkpoint != 0 {
            make_current(&mut self.segments, &mut state, checkpoint);
        }
        state.sort_runs(&mut self.segments, places);
        self.logs.insert(log, state);
    }

    /// Takes entries out that are nowhere.
    pub(super) fn lose(&mut self, log: LogId, index: u64) {
        self.settle(log, Range { first: index, last: index });
    }

    /// Segments that can be removed: nothing in them is live or says anything that no other does. The newest one stays:
    /// it knows up to where the WAL is flushed.
    pub(super) fn obsolete(&mut self) -> Vec<u64> {
        self.forget_dropped();
        let newest = self.segments.keys().next_back().copied();
        let gone = |(number, segment): &(&u64, &SegmentState)| {
            Some(**number) != newest
                && segment.live_entries == 0
                && segment.current == 0
                && segment.dropped.is_empty()
                && !segment.damaged
        };
        self.segments.iter().filter(gone).map(|(number, _)| *number).collect()
    }

    /// All segments, ascending.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let candidate = |(number, segment): (&u64, &SegmentState)| Candidate {
            number: *number,
            length: segment.length,
            useful: segment.useful(),
            damaged: segment.damaged,
        };
        self.segments.iter().map(candidate).collect()
    }

    /// Bytes of segments, and of their live entries.
    pub(super) fn usage(&self) -> (u64, u64) {
        let segments = self.segments.values();
        segments.fold((0, 0), |(length, live), segment| (length + segment.length, live + segment.live_bytes))
    }

    fn forget_dropped(&mut self) {
        let notes: Vec<(u64, LogId)> = self
            .segments
            .iter()
            .flat_map(|(number, segment)| segment.dropped.iter().map(|log| (*number, *log)))
            .filter(|(number, log)| !self.is_mentioned(*log, &[*number]))
            .collect();
        for (number, log) in notes {
            if let Some(segment) = self.segments.get_mut(&number) {
                segment.dropped.retain(|other| *other != log);
            }
        }
    }

    fn remove_runs(&mut self, log: LogId, segments: &[u64]) {
        if let Some(state) = self.logs.get_mut(&log) {
            state.runs.retain(|run| !segments.contains(&run.segment));
        }
    }
}

/// The chunks come behind all that the log has in segments.
fn push_run(segments: &mut BTreeMap<u64, SegmentState>, state: &mut LogState, number: u64, log: &LogFooter) {
    let places = log.chunks.iter().map(|chunk| chunk.place).collect();
    if let Some(run) = Run::new(number, places, &state.live) {
        add(segments, &run);
        state.runs.push(run);
    }
}

fn make_current(segments: &mut BTreeMap<u64, SegmentState>, state: &mut LogState, number: u64) {
    if let Some(segment) = segments.get_mut(&state.checkpoint) {
        segment.current = segment.current.saturating_sub(1);
    }
    if let Some(segment) = segments.get_mut(&number) {
        segment.current += 1;
    }
    state.checkpoint = number;
}

fn add(segments: &mut BTreeMap<u64, SegmentState>, run: &Run) {
    if let Some(segment) = segments.get_mut(&run.segment) {
        segment.live_entries += run.live;
        segment.live_bytes += run.live_bytes();
    }
}

fn subtract(segments: &mut BTreeMap<u64, SegmentState>, number: u64, entries: u64, bytes: u64) {
    if let Some(segment) = segments.get_mut(&number) {
        segment.live_entries = segment.live_entries.saturating_sub(entries);
        segment.live_bytes = segment.live_bytes.saturating_sub(bytes);
    }
}

fn survivors(live: &RoaringTreemap, first: u64, last: u64) -> Survivors {
    let count = if first > last { 0 } else { live.range_cardinality(first..=last) };
    if first <= last && count == last - first + 1 {
        return Survivors { first, last, set: None };
    }
    let mut indexes = live.iter();
    indexes.advance_to(first);
    let set = RoaringTreemap::from_sorted_iter(indexes.take(usize::try_from(count).unwrap_or(usize::MAX)));
    Survivors { first, last, set: Some(set.expect("a set is read in ascending order")) }
}
