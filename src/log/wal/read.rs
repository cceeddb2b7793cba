//! Reading a WAL file: where its batches are, and what is in them.

use std::ops;

use bytes::Bytes;

use super::header::{BATCH_HEADER, BLOCK, BatchHeader, Read, VERSION, round_up};
use super::{BatchPlace, WalFile, path};
use crate::log::batch::TABLE_ENTRY;
use crate::log::entry::{self, Header, RecordError, RecordKind};
use crate::log::storage::File;
use crate::log::{LogError, Report, Severity};

/// Bytes read at once, where a batch is not longer.
const PIECE: usize = 256 * 1024;
/// The same where not all batches are read.
const SPARSE_PIECE: usize = 32 * 1024;

/// A record, and where it is.
#[derive(Clone, Debug)]
pub(in crate::log) struct Record {
    /// Its offset in the file.
    pub(in crate::log) at: u64,
    pub(in crate::log) header: Header,
    /// That of a record of kind [`Kind::Again`] is the one it refers to.
    pub(in crate::log) payload: Bytes,
}

/// Who is told a record.
pub(in crate::log) type Visit<'a> = dyn FnMut(&Record) + 'a;

/// Reads all records of a full file in order. Everything is verified: what is damaged is left out and reported, each time
/// the file is read. Memory is bounded by the largest batch and a read buffer.
pub(in crate::log) fn records(file: &WalFile, visit: &mut Visit<'_>) -> Result<Vec<Report>, LogError> {
    let survey = survey(file)?;
    let mut reports = Vec::new();
    let mut reader = Reader::new(file, file.length);
    let mut expected = survey.found.first().map_or_else(|| file.last.max(1), |found| found.header.first_of_file());
    let mut end = BLOCK;
    for found in survey.found.iter().filter(|found| found.header.number <= file.last) {
        if expected < found.header.number {
            reports.push(lost_batches(&path(file.sequence), end, expected, found.header.number - 1));
        }
        let body = read_batch(&mut reader, found)?;
        reports.extend(body.report(&path(file.sequence), found));
        body.records.iter().for_each(&mut *visit);
        (expected, end) = (found.header.number + 1, found.end());
    }
    if file.last > 0 && expected <= file.last {
        reports.push(lost_batches(&path(file.sequence), end, expected, file.last));
    }
    Ok(reports)
}

/// Reads the records of some batches of a full file, in order. They are verified; what is damaged is left out and reported.
pub(in crate::log) fn records_of(
    file: &WalFile,
    places: &[BatchPlace],
    visit: &mut Visit<'_>,
) -> Result<Vec<Report>, LogError> {
    let mut reports = Vec::new();
    let mut reader = Reader { piece_length: SPARSE_PIECE, ..Reader::new(file, file.length) };
    for place in places {
        let bytes = reader.bytes(place.offset, BATCH_HEADER)?;
        let header = match BatchHeader::read(&bytes, place.offset, file.sequence, file.salt) {
            Read::Valid(header) if header.number == place.number => header,
            Read::Valid(_) | Read::Newer(_) | Read::Foreign | Read::Damaged => {
                reports.push(lost_batches(&path(file.sequence), place.offset, place.number, place.number));
                continue;
            }
        };
        let found = Found { offset: place.offset, header };
        let body = read_batch(&mut reader, &found)?;
        reports.extend(body.report(&path(file.sequence), &found));
        body.records.iter().for_each(&mut *visit);
    }
    Ok(reports)
}

/// Reads the records of a stretch of a file that begins `start` bytes into the file and with a record, whatever batches it
/// goes through. Where something in it is not as it was written; then [`records_between`] finds what is left.
pub(in crate::log) fn stretch(
    bytes: &[u8],
    start: u64,
    visit: &mut dyn FnMut(&Header, ops::Range<usize>),
) -> Option<usize> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        if let Ok(header) = entry::read(rest) {
            visit(&header, at..at + header.length);
            at += header.length;
            continue;
        }
        // The end of a batch.
        let next = round_up(start + at as u64);
        let skipped = (next - start) as usize;
        let Some(table) = bytes.get(skipped..).and_then(|batch| BatchHeader::table_of(batch, next)) else {
            return Some(at);
        };
        at = skipped.saturating_add(BATCH_HEADER).saturating_add(table);
    }
    (at != bytes.len()).then_some(at)
}

/// Finds the good records that begin in a range of a file, by the tables of its batches.
pub(in crate::log) fn records_between(
    file: &WalFile,
    range: ops::Range<u64>,
    visit: &mut dyn FnMut(&Record),
) -> Result<(), LogError> {
    let survey = survey(file)?;
    let mut reader = Reader::new(file, file.length);
    for found in survey.found.iter().filter(|found| found.offset < range.end && found.end() > range.start) {
        let body = read_batch(&mut reader, found)?;
        body.records.iter().filter(|record| range.contains(&record.at)).for_each(&mut *visit);
    }
    Ok(())
}

/// A batch's header, and where in the file it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) header: BatchHeader,
}

impl Found {
    /// Where the next batch begins.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(round_up(self.header.total()))
    }
}

/// The batches of a file.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Ascending, both by offset and by number.
    pub(super) found: Vec<Found>,
    /// Where something behind them was once a batch's header.
    pub(super) remnant: Option<u64>,
}

/// Finds the batches of a file's present life, wherever they are. Verifies their headers only.
pub(super) fn survey(file: &WalFile) -> Result<Survey, LogError> {
    let failed = |error| LogError::Io { path: path(file.sequence), action: "read", error };
    let length = file.file.length().map_err(failed)?;
    let mut reader = Reader::new(file, length);
    let (mut survey, mut salt, mut at) = (Survey::default(), file.salt, BLOCK);
    while at < length {
        let bytes = reader.bytes(at, BATCH_HEADER)?;
        let (mut next, mut remnant) = (at.saturating_add(BLOCK), false);
        match BatchHeader::read(&bytes, at, file.sequence, salt) {
            Read::Valid(header) => {
                let before = survey.found.last().map(|found| found.header);
                let follows = before.is_none_or(|before| {
                    before.number < header.number && before.first_of_file() == header.first_of_file()
                });
                if follows {
                    let found = Found { offset: at, header };
                    next = found.end();
                    survey.found.push(found);
                    survey.remnant = None;
                    // Where the file's own header is damaged, its first batch tells the salt.
                    salt = Some(header.salt);
                }
                remnant = !follows;
            }
            Read::Newer(found) => {
                return Err(LogError::Version { path: path(file.sequence), found, known: VERSION });
            }
            Read::Damaged => remnant = true,
            Read::Foreign => {}
        }
        if remnant && survey.remnant.is_none() {
            survey.remnant = Some(at);
        }
        at = next;
    }
    Ok(survey)
}

/// What is in a batch.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Those records that are good.
    pub(super) records: Vec<Record>,
    /// Everything is as it was written.
    pub(super) is_complete: bool,
    /// How many records are not good, and their bytes.
    lost: u64,
    lost_bytes: u64,
    /// Where records with payloads of their own begin, and their payloads.
    payloads: Vec<(usize, ops::Range<usize>)>,
}

impl Body {
    /// What there is to say when the batch is one that was synced.
    pub(super) fn report(&self, path: &str, found: &Found) -> Option<Report> {
        let BatchHeader { number, records, .. } = found.header;
        if self.is_complete {
            return None;
        }
        let (offset, lost, bytes) = (found.offset, self.lost, self.lost_bytes);
        let text = format!(
            "{path}: batch {number} at byte {offset} is damaged: {lost} of its {records} records are lost, {bytes} bytes"
        );
        Some(Report { severity: Severity::Loss, text })
    }

    /// Takes the record at a place, if it is one.
    fn take(&mut self, bytes: &Bytes, at: usize, batch: u64) -> Result<Header, RecordError> {
        let header = entry::read(bytes.get(at..).unwrap_or_default())?;
        let mut payload = at + header.payload_start..at + header.length;
        if header.kind == RecordKind::Again {
            let source = at.checked_sub(header.back as usize);
            let source =
                source.and_then(|source| self.payloads.binary_search_by_key(&source, |(start, _)| *start).ok());
            // The checksum is right, but the payload is gone with the record that has it.
            let Some((_, found)) = source.and_then(|source| self.payloads.get(source)) else {
                return Err(RecordError::Short);
            };
            payload = found.clone();
        } else if header.kind == RecordKind::Entry {
            self.payloads.push((at, payload.clone()));
        }
        self.records.push(Record { at: batch + at as u64, header, payload: bytes.slice(payload) });
        Ok(header)
    }
}

/// Reads what is in a batch.
///
/// With the table every record is known by place and checksum, whatever happened to the others. When the table is damaged
/// too, records are read one after the other up to the first that is not good: there is no searching behind it, since what
/// looks like a record there could be the content of a message. At worst such a record is one that the file's earlier life
/// left at exactly this place: an entry that was there before comes back, none that never was.
pub(super) fn read_batch(reader: &mut Reader<'_>, found: &Found) -> Result<Body, LogError> {
    let header = &found.header;
    let bytes = reader.bytes(found.offset, usize::try_from(header.total()).unwrap_or(usize::MAX))?;
    let table_end = usize::try_from(header.table_length()).unwrap_or(usize::MAX).saturating_add(BATCH_HEADER);
    let table = bytes.get(BATCH_HEADER..table_end).unwrap_or_default();
    let is_table_good = !table.is_empty() && crc32c::crc32c(table) == header.table;
    let mut body = Body::default();
    let mut at = table_end;
    let mut good = 0;
    let mut taken = 0;
    let newer = |error| match error {
        RecordError::Version(found) => {
            let (found, known) = (u32::from(found), u32::from(entry::VERSION));
            Err(LogError::Version { path: path(reader.sequence), found, known })
        }
        RecordError::Short | RecordError::Length | RecordError::Checksum | RecordError::Kind(_) => Ok(()),
    };
    if is_table_good {
        for known in table.chunks_exact(TABLE_ENTRY) {
            let length = known.last_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length)) as usize;
            if bytes.get(at..).is_some_and(|record| record.starts_with(known)) {
                match body.take(&bytes, at, found.offset) {
                    Ok(header) => (good, taken) = (good + header.length as u64, taken + 1),
                    Err(error) => newer(error)?,
                }
            }
            at = at.saturating_add(length);
        }
        body.is_complete = taken == u64::from(header.records);
    } else {
        let mut checksum = 0;
        while taken < u64::from(header.records) {
            match body.take(&bytes, at, found.offset) {
                Ok(header) => {
                    checksum = crc32c::crc32c_append(checksum, bytes.get(at..at + TABLE_ENTRY).unwrap_or_default());
                    (at, good, taken) = (at + header.length, good + header.length as u64, taken + 1);
                }
                Err(error) => {
                    newer(error)?;
                    break;
                }
            }
        }
        // When the records make the table's checksum, nothing but the table was damaged.
        body.is_complete = taken == u64::from(header.records) && checksum == header.table;
    }
    body.lost = u64::from(header.records) - taken;
    body.lost_bytes = header.length.saturating_sub(good);
    Ok(body)
}

/// A report of whole batches that are not there.
pub(super) fn lost_batches(path: &str, offset: u64, first: u64, last: u64) -> Report {
    let what =
        if first == last { format!("batch {first} is lost") } else { format!("batches {first} to {last} are lost") };
    Report { severity: Severity::Loss, text: format!("{path}: damaged at byte {offset}: {what}") }
}

/// Reads a file from its beginning to its end in big pieces.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    file: &'a dyn File,
    sequence: u64,
    /// Of the file.
    length: u64,
    /// Bytes read at once, or more.
    piece_length: usize,
    /// Where `piece` begins.
    start: u64,
    piece: Bytes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a WalFile, length: u64) -> Self {
        Self { file: &*file.file, sequence: file.sequence, length, piece_length: PIECE, start: 0, piece: Bytes::new() }
    }

    /// Bytes of the file; fewer when it ends before.
    pub(super) fn bytes(&mut self, at: u64, length: usize) -> Result<Bytes, LogError> {
        if let Some(begin) = at.checked_sub(self.start).and_then(|begin| usize::try_from(begin).ok())
            && let Some(end) = begin.checked_add(length).filter(|end| *end <= self.piece.len())
        {
            return Ok(self.piece.slice(begin..end));
        }
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut buffer = vec![0; length.max(self.piece_length).min(left)];
        let mut filled = 0;
        while filled < buffer.len() {
            let failed = |error| LogError::Io { path: path(self.sequence), action: "read", error };
            match self.file.read_at(&mut buffer[filled..], at + filled as u64).map_err(failed)? {
                0 => break,
                read => filled += read,
            }
        }
        buffer.truncate(filled);
        (self.piece, self.start) = (buffer.into(), at);
        Ok(self.piece.slice(..length.min(filled)))
    }
}
