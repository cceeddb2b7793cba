//! What changed in the values of one subject, round by round, in one tier: compact bytes, oldest first.
//!
//! A row is `fields << 1 | skips`, then, if `skips`, how many rounds after the row before it (otherwise it is the next),
//! then the difference of each field that changed. Rounds in which nothing changed have no row. There is no base value:
//! the newest values are known, and older ones follow by subtracting.

use super::varint;

/// Most fields of a subject.
pub const FIELDS_MAX: usize = 40;

/// The values of a subject, or the differences of a row.
pub(super) type Values = [u64; FIELDS_MAX];

/// Consumed bytes are given back when they are more than this and a sixteenth of all.
const CONSUMED_BYTES: usize = 48;

#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    /// Where the oldest row begins; what lies before it is consumed.
    head: u32,
    /// Where the newest row begins.
    newest_begin: u32,
    /// Where the rows begin that the next coarser tier has not taken over.
    open: u32,
    /// The round before the oldest row to which its skip refers.
    before: u32,
    /// The round of the newest row.
    newest: u32,
    /// Rounds before this one are not known: their rows were dropped to save memory.
    known_from: u32,
}

/// One row: the round, the fields that changed as bits, their differences as bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) round: u32,
    pub(super) fields: u64,
    pub(super) differences: &'a [u8],
}

impl Row<'_> {
    /// Calls back with each field that changed and its difference.
    pub(super) fn for_each(&self, mut each: impl FnMut(usize, u64)) {
        let (mut fields, mut at) = (self.fields, 0);
        while fields != 0 {
            let field = fields.trailing_zeros() as usize;
            fields &= fields - 1;
            each(field, varint::get_signed(self.differences, &mut at).unwrap_or(0));
        }
    }
}

impl Rows {
    /// Appends the differences of a round that is newer than all rows. Nothing happens if they are all zero.
    pub(super) fn push(&mut self, round: u32, differences: &[u64]) {
        let changed = differences.iter().enumerate().filter(|(_, difference)| **difference != 0);
        let fields = changed.fold(0_u64, |bits, (field, _)| bits | 1 << field);
        if fields == 0 {
            return;
        }
        self.make_room(11 + 2 * differences.len());
        self.begin(round, fields);
        differences.iter().filter(|one| **one != 0).for_each(|one| varint::put_signed(&mut self.bytes, *one));
    }

    /// Appends a row as it was written elsewhere.
    pub(super) fn push_row(&mut self, row: Row<'_>) {
        self.make_room(11 + row.differences.len());
        self.begin(row.round, row.fields);
        self.bytes.extend_from_slice(row.differences);
    }

    fn begin(&mut self, round: u32, fields: u64) {
        self.newest_begin = self.bytes.len() as u32;
        let distance = round - self.newest;
        varint::put(&mut self.bytes, fields << 1 | u64::from(distance != 1));
        if distance != 1 {
            varint::put(&mut self.bytes, u64::from(distance));
        }
        self.newest = round;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head as usize == self.bytes.len()
    }

    /// The round of the newest row, or of the newest that was dropped; 0 if there never was one.
    pub(super) fn newest(&self) -> u32 {
        self.newest
    }

    pub(super) fn known_from(&self) -> u32 {
        self.known_from
    }

    /// Bytes on the heap.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The rows, oldest first; it ends at bytes that are none.
    pub(super) fn iter(&self) -> RowIterator<'_> {
        RowIterator { bytes: &self.bytes, at: self.head as usize, round: self.before }
    }

    pub(super) fn set_known_from(&mut self, round: u32) {
        self.known_from = round;
    }

    /// The rows as bytes to be written, of which the first refers to the round 0.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.head as usize..]
    }

    /// Rows written elsewhere, of which the first refers to the round 0; it ends at bytes that are none.
    pub(super) fn parse(bytes: &[u8]) -> RowIterator<'_> {
        RowIterator { bytes, at: 0, round: 0 }
    }

    pub(super) fn newest_row(&self) -> Option<Row<'_>> {
        let mut newest = RowIterator { bytes: &self.bytes, at: self.newest_begin as usize, round: 0 };
        let row = (!self.is_empty()).then(|| newest.next()).flatten()?;
        Some(Row { round: self.newest, ..row })
    }

    /// Adds up what the next coarser tier has not taken over, which it has thereby.
    pub(super) fn take_open(&mut self, sum: &mut Values) {
        let open = RowIterator { bytes: &self.bytes, at: self.open as usize, round: 0 };
        for row in open {
            row.for_each(|field, difference| sum[field] = sum[field].wrapping_add(difference));
        }
        self.open = self.bytes.len() as u32;
    }

    /// Says which rows the next coarser tier has taken over: those up to a round.
    pub(super) fn set_open_after(&mut self, round: u32) {
        let mut rows = self.iter();
        let mut open = rows.at;
        while rows.next().is_some_and(|row| row.round <= round) {
            open = rows.at;
        }
        self.open = open as u32;
    }

    /// Drops the rows up to a round.
    pub(super) fn drop_through(&mut self, round: u32) {
        if self.is_empty() {
            return;
        }
        let mut rows = self.iter();
        let (mut head, mut before) = (rows.at, self.before);
        while rows.next().is_some_and(|row| row.round <= round) {
            (head, before) = (rows.at, rows.round);
        }
        self.head = head as u32;
        self.before = before;
        self.open = self.open.max(self.head);
        let consumed = self.head as usize;
        if self.is_empty() || consumed > CONSUMED_BYTES && consumed > self.bytes.len() / 16 {
            self.give_back();
        }
    }

    /// Drops the rows that the next coarser tier has; rounds before `known_from` are no longer known.
    pub(super) fn drop_closed(&mut self, known_from: u32) {
        if self.open == self.head {
            return;
        }
        let mut rows = self.iter();
        while rows.at < self.open as usize && rows.next().is_some() {}
        self.before = rows.round;
        self.head = self.open;
        self.known_from = known_from;
        self.give_back();
        self.bytes.shrink_to_fit();
    }

    fn give_back(&mut self) {
        self.bytes.drain(..self.head as usize);
        self.newest_begin = self.newest_begin.saturating_sub(self.head);
        self.open -= self.head;
        self.head = 0;
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        } else if self.bytes.capacity() > self.bytes.len() / 8 * 9 + 96 {
            self.bytes.shrink_to(self.bytes.len() + 32);
        }
    }

    /// Grows by a sixteenth rather than doubling: there are tens of thousands of these.
    fn make_room(&mut self, bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < bytes {
            self.bytes.reserve_exact(bytes.max(self.bytes.len() / 16));
        }
    }
}

/// Goes through rows.
#[derive(Clone, Debug)]
pub(super) struct RowIterator<'a> {
    bytes: &'a [u8],
    at: usize,
    round: u32,
}

impl RowIterator<'_> {
    /// Whether all bytes were rows.
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

impl<'a> Iterator for RowIterator<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let mut at = self.at;
        let header = varint::get(self.bytes, &mut at)?;
        let distance = if header & 1 == 0 { 1 } else { varint::get_u32(self.bytes, &mut at)? };
        let (round, fields, begin) = (self.round.checked_add(distance)?, header >> 1, at);
        (0..fields.count_ones()).for_each(|_| varint::skip(self.bytes, &mut at));
        self.at = at;
        self.round = round;
        Some(Row { round, fields, differences: &self.bytes[begin..at] })
    }
}
