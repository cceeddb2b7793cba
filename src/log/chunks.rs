//! Recovery's last part: what is missing, and what the owners of logs are told of their entries.

use std::collections::{BTreeMap, BTreeSet};

use super::adopt::Summaries;
use super::entry::{Head, LogId};
use super::flush::lost_report;
use super::index::Extent;
use super::segment::{self, ChunkPlace, ChunkSummary};
use super::state::Shared;
use super::{Chunk, LogError, RecoveredLog, Report};

/// Takes entries out of the index that should be in segments and are not. Returns the logs that lost some.
pub(super) fn lose_missing(shared: &Shared, reports: &mut Vec<Report>) -> Result<BTreeSet<LogId>, LogError> {
    let mut state = shared.state.lock();
    let index = &mut state.index;
    let mut lost: BTreeMap<LogId, Vec<u64>> = BTreeMap::new();
    for (log, known) in &index.logs {
        let places = known.runs.iter().flat_map(|run| run.places.iter().map(|place| (run.segment, *place)));
        let expected = known.live.range_cardinality(..=known.through);
        let mut found = 0;
        let mut crowded = Vec::new();
        for (segment, place) in places.clone() {
            let alive = known.live.range_cardinality(place.first..=place.last);
            found += alive;
            if alive > u64::from(place.count) {
                crowded.push((segment, place));
            }
        }
        if found == expected && crowded.is_empty() {
            continue;
        }
        let mut missing = known.live.clone();
        if let Some(above) = known.through.checked_add(1) {
            missing.remove_range(above..);
        }
        for (_, place) in places.filter(|place| !crowded.contains(place)) {
            missing.remove_range(place.first..=place.last);
        }
        for (segment, place) in crowded {
            let (headers, _) = segment::headers(&*shared.disk, segment, *log, &place)?;
            headers.iter().for_each(|head| {
                missing.remove(head.index);
            });
        }
        lost.insert(*log, missing.into_iter().collect());
    }
    for (log, indexes) in &lost {
        reports.push(lost_report(*log, indexes.len() as u64));
        indexes.iter().for_each(|entry| index.lose(*log, *entry));
    }
    Ok(lost.into_keys().collect())
}

/// What the owners of logs are told, ascending by log.
pub(super) fn recovered(
    shared: &Shared,
    summaries: &Summaries,
    reports: &mut Vec<Report>,
) -> Result<Vec<RecoveredLog>, LogError> {
    let mut ids: Vec<LogId> = shared.state.lock().index.logs.keys().copied().collect();
    ids.sort_unstable();
    let mut logs = Vec::with_capacity(ids.len());
    for log in ids {
        let (next_index, delivered, extents) = {
            let state = shared.state.lock();
            let Some(known) = state.index.logs.get(&log) else { continue };
            (known.next_index, known.delivered, state.index.extents(log, 0, u64::MAX))
        };
        let mut chunks = Vec::new();
        for extent in extents {
            let summary = summaries.get(&(extent.segment, extent.place.part, extent.place.offset));
            describe(shared, log, &extent, summary, &mut chunks, reports)?;
        }
        logs.push(RecoveredLog { log, next_index, delivered, chunks });
    }
    Ok(logs)
}

/// Adds what there is to say of a chunk.
fn describe(
    shared: &Shared,
    log: LogId,
    extent: &Extent,
    summary: Option<&ChunkSummary>,
    chunks: &mut Vec<Chunk>,
    reports: &mut Vec<Report>,
) -> Result<(), LogError> {
    let ChunkPlace { first, last, count, .. } = extent.place;
    let Some(alive) = shared.state.lock().index.live_in(log, first, last) else { return Ok(()) };
    let members: Vec<u64> = alive.iter().collect();
    if members.is_empty() {
        return Ok(());
    }
    // Entries of about the same length, for want of knowing better.
    let length_of = |members: usize| u64::from(extent.place.length) * members as u64 / u64::from(count.max(1));
    if let Some(summary) = summary.filter(|summary| !summary.mixed && members.len() == usize::from(count)) {
        let (cost, deadline, class) = (summary.cost, summary.deadline, summary.class);
        let length = length_of(members.len());
        chunks.push(Chunk { first, last, members: sparse(members), cost, length, deadline, class });
        return Ok(());
    }
    let (headers, damage) = segment::headers(&*shared.disk, extent.segment, log, &extent.place)?;
    let mut classes: BTreeMap<u8, Vec<Head>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for head in headers.into_iter().filter(|head| alive.contains(head.index)) {
        found.insert(head.index);
        classes.entry(head.class).or_default().push(head);
    }
    if let Some(damage) = damage {
        reports.extend(shared.note_damage(log, extent, damage));
        let mut state = shared.state.lock();
        for index in members.into_iter().filter(|index| !found.contains(index)) {
            state.index.lose(log, index);
        }
    }
    for (class, heads) in classes {
        let cost = heads.iter().map(|head| u64::from(head.cost)).sum();
        let deadline = heads.iter().map(|head| head.deadline).min().unwrap_or(u64::MAX);
        let members: Vec<u64> = heads.iter().map(|head| head.index).collect();
        let (first, last) = (members[0], members[members.len() - 1]);
        let length = length_of(members.len());
        chunks.push(Chunk { first, last, members: sparse(members), cost, length, deadline, class });
    }
    Ok(())
}

/// The indexes, when some between the first and the last are not among them.
fn sparse(members: Vec<u64>) -> Option<Vec<u64>> {
    let (first, last) = (*members.first()?, *members.last()?);
    (last - first + 1 != members.len() as u64).then_some(members)
}
