//! Opening a segment: its footer, or one that is made again from what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::footer::{Read, header_length, read_footer, read_header, read_trailer};
use super::kept::{chunk_records, open as open_wal};
use super::layout::{Fate, Layout, Lying};
use super::scan::{ChunkHead, Damage, own_records, record_at, search};
use super::{
    CHUNK_BYTES, CHUNK_ENTRIES, ChunkPlace, ChunkSummary, Footer, Identity, LogFooter, Part, TRAILER, VERSION,
    part_path, path, wal_path,
};
use crate::log::entry::{Head, Header, LogId, RecordKind};
use crate::log::storage::{File, Storage};
use crate::log::{LogError, Report, Severity};

/// Bytes at the end of a file that are read first: most footers are shorter.
const TAIL: u64 = 16 * 1024;
/// Bytes at the beginning of a file that are read first.
const FRONT: usize = 512;

/// A segment as found.
#[derive(Debug)]
pub(in crate::log) struct Load {
    pub(in crate::log) footer: Footer,
    /// Its footer was lost: it has no checkpoints.
    pub(in crate::log) is_rebuilt: bool,
    pub(in crate::log) reports: Vec<Report>,
}

/// Reads all of a segment but its records; when the footer is damaged, those too.
pub(in crate::log) fn load(disk: &dyn Storage, number: u64) -> Result<Load, LogError> {
    let path = path(number);
    let failed = |action: &'static str| {
        let path = path.clone();
        move |error| LogError::Io { path, action, error }
    };
    let newer = |found| LogError::Version { path: path.clone(), found, known: VERSION };
    let file = disk.open(&path).map_err(failed("open"))?;
    let length = file.length().map_err(failed("read"))?;
    let front = read_up_to(&file, 0, FRONT).map_err(failed("read"))?;
    let front = match header_length(&front) {
        Some(needed) if needed > front.len() && needed as u64 <= length => {
            read_up_to(&file, 0, needed).map_err(failed("read"))?
        }
        _ => front,
    };
    let header = match read_header(&front) {
        Read::Valid((identity, length)) if identity.number == number => Some((identity, length)),
        Read::Newer(found) => return Err(newer(found)),
        Read::Valid(_) | Read::Damaged => None,
    };
    let footer = match end(&file, length).map_err(failed("read"))? {
        Read::Valid(footer) if footer.identity.number == number => Some(footer),
        Read::Newer(found) => return Err(newer(found)),
        Read::Valid(_) | Read::Damaged => None,
    };
    let mut reports = Vec::new();
    let wal_length = match disk.open(&wal_path(number)).and_then(|file| file.length()) {
        Ok(length) => Some(length),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(LogError::Io { path: wal_path(number), action: "open", error }),
    };
    if let Some(mut footer) = footer {
        footer.wal_length = wal_length.unwrap_or(0);
        if footer.identity.keeps_wal {
            check_wal(disk, &mut footer, wal_length, &mut reports)?;
        }
        if header.is_none_or(|(identity, _)| identity != footer.identity) {
            footer.damaged = true;
            let text = format!("{path}: the header is damaged, the footer is not: nothing is lost");
            reports.push(Report { severity: Severity::Notice, text });
        }
        return Ok(Load { footer, is_rebuilt: false, reports });
    }
    let bytes = read_up_to(&file, 0, usize::try_from(length).unwrap_or(usize::MAX)).map_err(failed("read"))?;
    let (identity, start) = header.unwrap_or_else(|| (Identity { number, ..Identity::default() }, 0));
    let mut footer = rebuild(identity, start, &bytes);
    if let Some(length) = wal_length {
        footer.wal_length = length;
        rebuild_wal(disk, &mut footer, &mut reports)?;
    }
    let length = length + footer.wal_length;
    let entries: u64 = footer.logs.iter().flat_map(|log| &log.chunks).map(|chunk| u64::from(chunk.place.count)).sum();
    let text = format!(
        "{path}: the footer is damaged: {entries} entries were found in the {length} bytes; entries that were settled may \
         come back"
    );
    reports.push(Report { severity: Severity::Loss, text });
    Ok(Load { footer, is_rebuilt: true, reports })
}

/// Reads bytes of a file; fewer at its end.
pub(in crate::log) fn read_up_to(file: &Arc<dyn File>, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let left = usize::try_from(file.length()?.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut buffer = vec![0; length.min(left)];
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Reads a chunk for what its records say of themselves.
pub(in crate::log) fn headers(
    disk: &dyn Storage,
    number: u64,
    log: LogId,
    place: &ChunkPlace,
) -> Result<(Vec<Head>, Option<Damage>), LogError> {
    let path = part_path(number, place.part);
    let bytes = disk.open(&path).and_then(|file| read_up_to(&file, place.offset, place.length as usize));
    let bytes = bytes.map_err(|error| LogError::Io { path, action: "read", error })?;
    let mut heads = Vec::with_capacity(usize::from(place.count));
    let damage = chunk_records(disk, number, &bytes, log, place, &mut |header, _| heads.push(header.head))?;
    Ok((heads, damage))
}

/// Reads trailer and footer.
fn end(file: &Arc<dyn File>, length: u64) -> std::io::Result<Read<Footer>> {
    let tail_start = length.saturating_sub(TAIL);
    let tail = read_up_to(file, tail_start, TAIL as usize)?;
    let trailer = match read_trailer(&tail[tail.len().saturating_sub(TRAILER)..], length) {
        Read::Valid(trailer) => trailer,
        Read::Newer(found) => return Ok(Read::Newer(found)),
        Read::Damaged => return Ok(Read::Damaged),
    };
    let length = usize::try_from(trailer.length).unwrap_or(usize::MAX);
    let in_tail = trailer.offset.checked_sub(tail_start).and_then(|start| tail.get(start as usize..)?.get(..length));
    let footer = match in_tail {
        Some(bytes) => read_footer(bytes, &trailer),
        None => read_footer(&read_up_to(file, trailer.offset, length)?, &trailer),
    };
    Ok(footer.map_or(Read::Damaged, Read::Valid))
}

/// Makes a footer from chunks, and from records where there is no chunk's head.
fn rebuild(mut identity: Identity, start: usize, bytes: &[u8]) -> Footer {
    let mut logs: BTreeMap<LogId, Vec<ChunkSummary>> = BTreeMap::new();
    let mut salt = (start > 0).then_some(identity.salt);
    let mut at = start;
    let mut gap = start;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let head = ChunkHead::read(rest);
        let head = head.filter(|head| salt.is_none_or(|salt| salt == head.salt) && is_possible(head, rest.len()));
        let Some(head) = head else {
            // A record where a chunk's head is gone: what is in its payload is not looked at.
            at += record_at(rest).map_or(1, |header| header.length);
            continue;
        };
        salt = Some(head.salt);
        loose_records(bytes, gap..at, &mut logs);
        let place = ChunkPlace {
            first: head.first,
            last: head.last,
            offset: at as u64,
            length: head.length as u32,
            count: head.count as u16,
            part: Part::Own,
        };
        let end = (at + head.length).min(bytes.len());
        add_chunk(&mut logs, head.log, place, &bytes[at..end]);
        at = end;
        gap = end;
    }
    loose_records(bytes, gap..bytes.len(), &mut logs);
    identity.salt = salt.unwrap_or_default();
    let logs = logs.into_iter().map(|(log, mut chunks)| {
        chunks.sort_by_key(|chunk| chunk.place.first);
        chunks.dedup_by(|chunk, before| chunk.place.first <= before.place.last);
        LogFooter { chunks, ..LogFooter::new(log) }
    });
    Footer { identity, logs: logs.collect(), file_length: bytes.len() as u64, wal_length: 0, damaged: true }
}

/// Looks whether the WAL file that is part of a segment is there and as long as it was. What is not there is taken out of
/// the footer.
fn check_wal(
    disk: &dyn Storage,
    footer: &mut Footer,
    length: Option<u64>,
    reports: &mut Vec<Report>,
) -> Result<(), LogError> {
    let number = footer.identity.number;
    let ends = |place: &ChunkPlace| place.offset.saturating_add(u64::from(place.length));
    let is_there = |place: &ChunkPlace| place.part == Part::Own || length.is_some_and(|length| ends(place) <= length);
    let mut lost = 0;
    for log in &mut footer.logs {
        for mut chunk in std::mem::take(&mut log.chunks) {
            if is_there(&chunk.place) {
                log.chunks.push(chunk);
                continue;
            }
            let heads = if length.is_some() { headers(disk, number, log.log, &chunk.place)?.0 } else { Vec::new() };
            lost += usize::from(chunk.place.count).saturating_sub(heads.len());
            if let (Some(first), Some(last)) = (heads.first(), heads.last()) {
                (chunk.place.first, chunk.place.last, chunk.place.count) =
                    (first.index, last.index, heads.len() as u16);
                // What the summary says of the others does not hold any more: the records are asked.
                chunk.mixed = true;
                log.chunks.push(chunk);
            }
        }
    }
    if lost > 0 {
        footer.damaged = true;
        let what = if length.is_some() { "is cut off" } else { "is missing" };
        let text = format!("{}: the file {what}: {lost} entries are lost", wal_path(number));
        reports.push(Report { severity: Severity::Loss, text });
    }
    Ok(())
}

/// Adds to a footer that was made again what the WAL file beside it has: all entries that were not copied.
fn rebuild_wal(disk: &dyn Storage, footer: &mut Footer, reports: &mut Vec<Report>) -> Result<(), LogError> {
    let Some(file) = open_wal(disk, footer.identity.number)? else {
        let text = format!("{}: damaged: it cannot be told what it was", wal_path(footer.identity.number));
        reports.push(Report { severity: Severity::Loss, text });
        return Ok(());
    };
    let identity = &mut footer.identity;
    (identity.wal, identity.flushed) = (file.sequence, identity.flushed.max(file.sequence));
    identity.keeps_wal = true;
    let is_copied = |header: &Header| {
        let own = footer.logs.iter().find(|log| log.log == header.head.log);
        own.is_some_and(|log| {
            let index = header.head.index;
            log.chunks.iter().any(|chunk| (chunk.place.first..=chunk.place.last).contains(&index))
        })
    };
    let mut lying = Vec::new();
    crate::log::wal::records_between(&file, 0..u64::MAX, &mut |record| match record.header.kind {
        RecordKind::Entry | RecordKind::Again if is_copied(&record.header) => {
            lying.push(Lying::new(record, Fate::Copied))
        }
        RecordKind::Entry => lying.push(Lying::new(record, Fate::Stays)),
        RecordKind::Again | RecordKind::Settled | RecordKind::Delivered | RecordKind::Dropped => {}
    })?;
    for (log, chunks) in Layout::of(lying, 0).staying {
        match footer.logs.iter_mut().find(|known| known.log == log) {
            Some(known) => {
                known.chunks.extend(chunks);
                known.chunks.sort_by_key(|chunk| chunk.place.first);
                known.chunks.dedup_by(|chunk, before| chunk.place.first <= before.place.last);
            }
            None => footer.logs.push(LogFooter { chunks, ..LogFooter::new(log) }),
        }
    }
    footer.logs.sort_by_key(|log| log.log);
    Ok(())
}

fn is_possible(head: &ChunkHead, rest: usize) -> bool {
    head.count <= CHUNK_ENTRIES && head.first <= head.last && head.length <= rest.max(CHUNK_BYTES * 2)
}

/// Adds a chunk as far as its records are good.
fn add_chunk(logs: &mut BTreeMap<LogId, Vec<ChunkSummary>>, log: LogId, place: ChunkPlace, bytes: &[u8]) {
    let (mut summary, mut count) = (None, 0);
    own_records(bytes, log, &place, &mut |header, _| {
        note(&mut summary, header, place);
        count += 1;
    });
    if let Some(mut summary) = summary {
        // What is lost is not in it.
        summary.place.count = count;
        logs.entry(log).or_default().push(summary);
    }
}

/// Adds records that lie where no chunk's head was found, each as a chunk of its own.
fn loose_records(bytes: &[u8], range: std::ops::Range<usize>, logs: &mut BTreeMap<LogId, Vec<ChunkSummary>>) {
    for (header, record) in search(&bytes[..range.end], range.start) {
        if header.kind != RecordKind::Entry {
            continue;
        }
        let index = header.head.index;
        let (offset, length) = (record.start as u64, header.length as u32);
        let place = ChunkPlace { first: index, last: index, offset, length, count: 1, part: Part::Own };
        let mut summary = None;
        note(&mut summary, &header, place);
        logs.entry(header.head.log).or_default().extend(summary);
    }
}

/// Counts a record in.
fn note(summary: &mut Option<ChunkSummary>, header: &Header, place: ChunkPlace) {
    let head = &header.head;
    let class = head.class;
    let summary = summary.get_or_insert(ChunkSummary {
        place,
        cost: 0,
        deadline: u64::MAX,
        class,
        mixed: false,
        transient: false,
    });
    summary.cost += u64::from(head.cost);
    summary.deadline = summary.deadline.min(head.deadline);
    summary.mixed |= summary.class != class;
    summary.transient |= head.transient;
}
