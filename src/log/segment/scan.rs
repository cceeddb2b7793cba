//! Reading the records of chunks, damaged ones too.

use std::ops;

use super::footer::{u32_at, u64_at};
use super::{CHUNK_HEAD, CHUNK_MAGIC, ChunkPlace, TABLE_ENTRY};
use crate::log::entry::{self, HEADER_LENGTH, Header, LogId, RecordKind};

/// A chunk's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHead {
    pub(super) salt: u32,
    pub(super) log: LogId,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) count: usize,
    /// Bytes of the whole chunk.
    pub(super) length: usize,
    table: u32,
}

impl ChunkHead {
    /// None when the bytes do not begin with one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<CHUNK_HEAD>()?;
        if u32_at(bytes, 0)? != CHUNK_MAGIC || crc32c::crc32c(&bytes[..44]) != u32_at(bytes, 44)? {
            return None;
        }
        let (log, first, last) = (LogId(u64_at(bytes, 8)?), u64_at(bytes, 16)?, u64_at(bytes, 24)?);
        let (count, length) = (u32_at(bytes, 32)? as usize, u32_at(bytes, 36)? as usize);
        let head = Self { salt: u32_at(bytes, 4)?, log, first, last, count, length, table: u32_at(bytes, 40)? };
        (count > 0 && head.records() < length).then_some(head)
    }

    /// Where the records begin.
    fn records(&self) -> usize {
        CHUNK_HEAD.saturating_add(self.count.saturating_mul(TABLE_ENTRY))
    }
}

/// Something in a chunk is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Damage {
    /// Where in the chunk.
    pub(in crate::log) offset: usize,
    /// Entries that cannot be read.
    pub(in crate::log) lost: usize,
}

/// Who is told a record and where in the chunk it is.
pub(in crate::log) type Visit<'a> = dyn FnMut(&Header, ops::Range<usize>) + 'a;

/// Reads the good records of a chunk, in order. `bytes` is all of the chunk, or what could be read of it.
///
/// With head and table each record is known by place and checksum. When both are damaged records are searched: only those
/// count that are of the right log and in order.
pub(super) fn own_records(bytes: &[u8], log: LogId, place: &ChunkPlace, visit: &mut Visit<'_>) -> Option<Damage> {
    let fits = |head: &ChunkHead| {
        head.log == log && head.count == usize::from(place.count) && head.length == place.length as usize
    };
    let head = ChunkHead::read(bytes).filter(fits);
    let table = bytes.get(CHUNK_HEAD..CHUNK_HEAD + usize::from(place.count) * TABLE_ENTRY);
    let table = table.filter(|table| head.is_some_and(|head| crc32c::crc32c(table) == head.table));
    let mut damage = head.is_none().then_some(0).or_else(|| table.is_none().then_some(CHUNK_HEAD));
    let mut found = 0;
    let is_ours = |header: &Header, least: u64| {
        header.kind == RecordKind::Entry && header.head.log == log && (least..=place.last).contains(&header.head.index)
    };
    let mut at = CHUNK_HEAD + usize::from(place.count) * TABLE_ENTRY;
    let mut least = place.first;
    match table {
        Some(table) => {
            for known in table.chunks_exact(TABLE_ENTRY) {
                let record = bytes.get(at..).filter(|record| record.starts_with(known)).map(entry::read);
                match record {
                    Some(Ok(header)) if is_ours(&header, least) => {
                        visit(&header, at..at + header.length);
                        (found, least) = (found + 1, header.head.index.saturating_add(1));
                    }
                    _ => damage = damage.or(Some(at)),
                }
                at = at.saturating_add(u32_at(known, 4).unwrap_or(0) as usize);
            }
        }
        None => {
            for (header, range) in search(bytes, 0) {
                if found < usize::from(place.count) && is_ours(&header, least) {
                    (found, least) = (found + 1, header.head.index.saturating_add(1));
                    visit(&header, range);
                }
            }
        }
    }
    let lost = usize::from(place.count).saturating_sub(found);
    let offset = damage.or_else(|| (lost > 0).then_some(at))?;
    Some(Damage { offset, lost })
}

/// Finds records from an offset on, whatever lies between them.
pub(super) fn search(bytes: &[u8], from: usize) -> impl Iterator<Item = (Header, ops::Range<usize>)> {
    let mut at = from;
    std::iter::from_fn(move || {
        while at.checked_add(HEADER_LENGTH)? <= bytes.len() {
            let rest = bytes.get(at..)?;
            if let Some(header) = record_at(rest) {
                let range = at..at + header.length;
                at = range.end;
                return Some((header, range));
            }
            at += 1;
        }
        None
    })
}

/// Whether a good record begins the bytes.
pub(super) fn record_at(bytes: &[u8]) -> Option<Header> {
    may_begin(bytes).then(|| entry::read(bytes).ok()).flatten()
}

/// Whether it is worth to compute a checksum.
fn may_begin(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&entry::VERSION)
        && bytes.get(9) == Some(&(RecordKind::Entry as u8))
        && bytes.get(14..16) == Some(&[0, 0])
        && u32_at(bytes, 4).is_some_and(|length| length as usize <= bytes.len())
}
