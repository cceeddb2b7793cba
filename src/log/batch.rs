//! What one turn of one owner has for the log: records, encoded where they are made, and what they mean for the index.
//! The writer puts many batches into one write.

use bytes::Bytes;

use super::entry::{HEADER_LENGTH, Head, LogId, RecordKind, put_header};

/// Payload pieces from this size on are not copied into the batch but written from where they are.
const SLICE_MIN: usize = 16 * 1024;
/// Bytes of a record's entry in [`Batch::table`].
pub(crate) const TABLE_ENTRY: usize = 8;

/// Indexes of a log, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: u64,
    pub last: u64,
}

/// What the index has to know of a batch's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogChange {
    /// Entries of consecutive indexes.
    Appended {
        log: LogId,
        range: Range,
        bytes: u64,
    },
    Settled {
        log: LogId,
        range: Range,
    },
    Delivered {
        log: LogId,
        index: u64,
    },
    Dropped {
        log: LogId,
    },
}

/// A place in a batch.
#[derive(Clone, Copy, Debug)]
struct Start {
    log: LogId,
    bytes: usize,
    slices: usize,
    table: usize,
}

/// Records of one log that are together in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) log: LogId,
    /// The records, without the pieces in `slices`.
    pub(crate) bytes: &'a [u8],
    /// Where in the batch `bytes` begins.
    from: usize,
    /// See [`Batch::slices`].
    slices: &'a [(usize, Bytes)],
    pub(crate) table: &'a [u8],
}

impl<'a> Run<'a> {
    /// All bytes of the records, in order.
    pub(crate) fn pieces(self) -> impl Iterator<Item = &'a [u8]> {
        let mut from = 0;
        let mixed = self.slices.iter().flat_map(move |(at, slice)| {
            let before = std::mem::replace(&mut from, at - self.from);
            [&self.bytes[before..from], &slice[..]]
        });
        let rest = self.slices.last().map_or(0, |(at, _)| at - self.from);
        mixed.chain([&self.bytes[rest..]]).filter(|piece| !piece.is_empty())
    }

    pub(crate) fn length(&self) -> u64 {
        (self.bytes.len() + self.slices.iter().map(|(_, slice)| slice.len()).sum::<usize>()) as u64
    }
}

/// Records on their way into the WAL. Reused after [`Batch::clear`].
#[derive(Debug, Default)]
pub struct Batch {
    /// All records, without the pieces in `slices`.
    pub(crate) bytes: Vec<u8>,
    /// Payload pieces that come before the byte of `bytes` at the offset, ascending.
    pub(crate) slices: Vec<(usize, Bytes)>,
    /// Bytes of `slices`.
    pub(crate) sliced: usize,
    /// The first [`TABLE_ENTRY`] bytes of every record, checksum and length: what the WAL knows the records by.
    pub(crate) table: Vec<u8>,
    pub(crate) changes: Vec<LogChange>,
    /// Where records of another log begin than those before.
    starts: Vec<Start>,
    /// Some record refers to another by the distance: they must stay in this order.
    has_distances: bool,
    /// Where the last record with a payload starts, counting slices.
    last_entry: Option<u64>,
    /// Somebody waits for it to be on disk; otherwise it may wait for others.
    urgent: bool,
}

impl Batch {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes it takes in the WAL.
    #[must_use]
    pub fn length(&self) -> usize {
        self.record_bytes() + self.table.len()
    }

    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> usize {
        self.table.len() / TABLE_ENTRY
    }

    /// Bytes of its records.
    pub(crate) fn record_bytes(&self) -> usize {
        self.bytes.len() + self.sliced
    }

    /// Bytes of memory it keeps when cleared.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether somebody waits for it.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Makes the writer take it at once.
    pub fn set_urgent(&mut self) {
        self.urgent = true;
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slices.clear();
        self.sliced = 0;
        self.table.clear();
        self.changes.clear();
        self.starts.clear();
        self.has_distances = false;
        self.last_entry = None;
        self.urgent = false;
    }

    /// Adds an entry. The index is above all the log has had. `parts` are the payload, one after the other, and `large`
    /// follows them.
    pub fn append(&mut self, head: &Head, parts: &[&[u8]], large: &[Bytes]) {
        self.note_start(head.log);
        let start = self.bytes.len();
        self.last_entry = Some(self.record_bytes() as u64);
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + large.iter().map(Bytes::len).sum::<usize>();
        self.bytes.reserve(HEADER_LENGTH + length.min(SLICE_MIN));
        put_header(&mut self.bytes, RecordKind::Entry, head, length, 0);
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        let mut checksum = crc32c::crc32c(&self.bytes[start + 4..]);
        for slice in large {
            checksum = crc32c::crc32c_append(checksum, slice);
            if slice.len() < SLICE_MIN {
                self.bytes.extend_from_slice(slice);
            } else {
                self.slices.push((self.bytes.len(), slice.clone()));
                self.sliced += slice.len();
            }
        }
        self.seal(start, checksum);
        self.note_appended(head, HEADER_LENGTH + length);
    }

    /// Adds an entry with the payload of the last one appended, whichever log that was for. False when there is none.
    pub fn append_again(&mut self, head: &Head) -> bool {
        let back = self.last_entry.and_then(|at| u32::try_from(self.record_bytes() as u64 - at).ok());
        let Some(back) = back else { return false };
        self.plain(RecordKind::Again, head, &[], back);
        self.has_distances = true;
        self.note_appended(head, HEADER_LENGTH);
        true
    }

    /// Notes that entries are dead; the ranges need not be in order. Indexes that are no live entries are ignored.
    pub fn settle(&mut self, log: LogId, ranges: &[Range]) {
        if ranges.is_empty() {
            return;
        }
        let mut payload = Vec::with_capacity(ranges.len() * 16);
        for range in ranges {
            payload.extend_from_slice(&range.first.to_le_bytes());
            payload.extend_from_slice(&range.last.to_le_bytes());
            self.changes.push(LogChange::Settled { log, range: *range });
        }
        self.plain(RecordKind::Settled, &control(log, 0), &payload, 0);
    }

    /// Notes the highest index of the log that was handed to anybody.
    pub fn delivered(&mut self, log: LogId, index: u64) {
        self.plain(RecordKind::Delivered, &control(log, index), &[], 0);
        self.changes.push(LogChange::Delivered { log, index });
    }

    /// Notes that a log is gone.
    pub fn drop_log(&mut self, log: LogId) {
        self.plain(RecordKind::Dropped, &control(log, 0), &[], 0);
        self.changes.push(LogChange::Dropped { log });
    }

    /// The records of one log after the other's, in order; none when their order must stay.
    pub(crate) fn runs(&self) -> Option<impl Iterator<Item = Run<'_>>> {
        let end = Start { log: LogId(0), bytes: self.bytes.len(), slices: self.slices.len(), table: self.table.len() };
        let ends = self.starts.iter().skip(1).copied().chain([end]);
        let run = |(start, end): (&Start, Start)| Run {
            log: start.log,
            bytes: &self.bytes[start.bytes..end.bytes],
            from: start.bytes,
            slices: &self.slices[start.slices..end.slices],
            table: &self.table[start.table..end.table],
        };
        (!self.has_distances).then(|| self.starts.iter().zip(ends).map(run))
    }

    /// How often a record is of another log than the one before, and the first.
    pub(crate) fn run_count(&self) -> usize {
        self.starts.len()
    }

    fn note_start(&mut self, log: LogId) {
        if self.starts.last().is_none_or(|last| last.log != log) {
            let (bytes, slices, table) = (self.bytes.len(), self.slices.len(), self.table.len());
            self.starts.push(Start { log, bytes, slices, table });
        }
    }

    fn plain(&mut self, kind: RecordKind, head: &Head, payload: &[u8], back: u32) {
        self.note_start(head.log);
        let start = self.bytes.len();
        put_header(&mut self.bytes, kind, head, payload.len(), back);
        self.bytes.extend_from_slice(payload);
        let checksum = crc32c::crc32c(&self.bytes[start + 4..]);
        self.seal(start, checksum);
    }

    fn seal(&mut self, start: usize, checksum: u32) {
        self.bytes[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
        self.table.extend_from_slice(&self.bytes[start..start + TABLE_ENTRY]);
    }

    fn note_appended(&mut self, head: &Head, length: usize) {
        if let Some(LogChange::Appended { log, range, bytes }) = self.changes.last_mut()
            && *log == head.log
            && range.last + 1 == head.index
        {
            range.last = head.index;
            *bytes += length as u64;
            return;
        }
        let range = Range { first: head.index, last: head.index };
        self.changes.push(LogChange::Appended { log: head.log, range, bytes: length as u64 });
    }
}

/// The head of a record that is no entry.
fn control(log: LogId, index: u64) -> Head {
    Head { log, index, time: 0, deadline: u64::MAX, cost: 0, class: 0, transient: false }
}
