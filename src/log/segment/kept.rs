//! Chunks in a segment's second file: the WAL file that became part of it as it was. A chunk there is a stretch of the file
//! that begins and ends with records of its log; between them may be others, and the headers of batches.

use super::scan::{Damage, Visit, own_records};
use super::{ChunkPlace, Part, wal_path};
use crate::log::LogError;
use crate::log::entry::{Header, LogId, RecordKind};
use crate::log::storage::Storage;
use crate::log::wal::{self, WalFile};

/// Reads the good records of a chunk of the segment `number`, in order. `bytes` is all of the chunk, or what could be read
/// of it.
pub(in crate::log) fn chunk_records(
    disk: &dyn Storage,
    number: u64,
    bytes: &[u8],
    log: LogId,
    place: &ChunkPlace,
    visit: &mut Visit<'_>,
) -> Result<Option<Damage>, LogError> {
    match place.part {
        Part::Own => Ok(own_records(bytes, log, place, visit)),
        Part::Wal => kept_records(disk, number, bytes, log, place, visit),
    }
}

fn kept_records(
    disk: &dyn Storage,
    number: u64,
    bytes: &[u8],
    log: LogId,
    place: &ChunkPlace,
    visit: &mut Visit<'_>,
) -> Result<Option<Damage>, LogError> {
    let is_ours = |header: &Header, least: u64| {
        header.kind == RecordKind::Entry && header.head.log == log && (least..=place.last).contains(&header.head.index)
    };
    let mut found = Vec::with_capacity(usize::from(place.count));
    let mut least = place.first;
    let damage = wal::stretch(bytes, place.offset, &mut |header, range| {
        if is_ours(header, least) {
            least = header.head.index.saturating_add(1);
            found.push((*header, range));
        }
    });
    let is_whole = damage.is_none() && bytes.len() == place.length as usize;
    if is_whole && found.len() == usize::from(place.count) {
        found.into_iter().for_each(|(header, range)| visit(&header, range));
        return Ok(None);
    }
    let mut found = 0;
    let mut least = place.first;
    let range = place.offset..place.offset + u64::from(place.length);
    if let Some(file) = open(disk, number)? {
        wal::records_between(&file, range, &mut |record| {
            let start = (record.at - place.offset) as usize;
            let end = start + record.header.length;
            if is_ours(&record.header, least) && end <= bytes.len() {
                (found, least) = (found + 1, record.header.head.index.saturating_add(1));
                visit(&record.header, start..end);
            }
        })?;
    }
    Ok(Some(Damage { offset: damage.unwrap_or(0), lost: usize::from(place.count).saturating_sub(found) }))
}

/// Opens a segment's WAL file to read batches from; none when it cannot be told what it is.
pub(super) fn open(disk: &dyn Storage, number: u64) -> Result<Option<WalFile>, LogError> {
    let path = wal_path(number);
    WalFile::open_kept(disk, &path).map_err(|error| LogError::Io { path, action: "open", error })
}
