//! Which entries of a WAL file can stay where they are when it becomes part of a segment, and which are better copied.
//!
//! What stays are stretches of the file, long enough to be worth a read and with little in them that is of no use to whoever
//! reads them. The rest is copied: entries that lie alone among those of other logs, and those whose payload is elsewhere.

use std::collections::BTreeMap;

use super::{CHUNK_BYTES, CHUNK_ENTRIES, ChunkPlace, ChunkSummary, Part};
use crate::log::entry::LogId;
use crate::log::wal::Record;

/// The longest piece of other things within a stretch.
const GAP_MAX: u64 = 16 * 1024;
/// Bytes of other things that a short stretch may have.
const WASTE_MIN: u64 = 8 * 1024;
/// So many entries of one class are not worth mixing with others.
const CLASS_ENTRIES: u16 = 16;

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum Fate {
    Stays,
    /// Nobody wants it any more.
    Dead,
    Copied,
}

/// An entry in a WAL file.
#[derive(Clone, Copy, Debug)]
pub(in crate::log) struct Lying {
    log: LogId,
    index: u64,
    at: u64,
    length: u32,
    cost: u32,
    deadline: u64,
    class: u8,
    transient: bool,
    fate: Fate,
}

impl Lying {
    pub(in crate::log) fn new(record: &Record, fate: Fate) -> Self {
        let (head, length) = (&record.header.head, record.header.length as u32);
        Self {
            log: head.log,
            index: head.index,
            at: record.at,
            length,
            cost: head.cost,
            deadline: head.deadline,
            class: head.class,
            transient: head.transient,
            fate,
        }
    }

    fn end(&self) -> u64 {
        self.at + u64::from(self.length)
    }
}

/// What stays, and what does not.
#[derive(Debug, Default)]
pub(in crate::log) struct Layout {
    /// Ascending by log, and by index.
    pub(in crate::log) staying: BTreeMap<LogId, Vec<ChunkSummary>>,
    /// Ascending.
    pub(in crate::log) copied: BTreeMap<LogId, Vec<u64>>,
    /// Bytes of the entries that stay.
    pub(in crate::log) bytes: u64,
}

impl Layout {
    /// Stretches with fewer than `least` bytes of entries are copied.
    pub(in crate::log) fn of(mut entries: Vec<Lying>, least: u64) -> Self {
        entries.sort_by_key(|entry| (entry.log, entry.index));
        entries.dedup_by_key(|entry| (entry.log, entry.index));
        let mut layout = Self::default();
        for entries in entries.chunk_by(|a, b| a.log == b.log) {
            layout.log(entries, least);
        }
        layout
    }

    fn log(&mut self, entries: &[Lying], least: u64) {
        let mut open: Option<Stretch> = None;
        for (place, entry) in entries.iter().enumerate() {
            match entry.fate {
                Fate::Dead => {}
                Fate::Copied => {
                    self.close(open.take(), entries, least);
                    self.copied.entry(entry.log).or_default().push(entry.index);
                }
                Fate::Stays => match open.as_mut().filter(|open| open.takes(entry, place)) {
                    Some(open) => open.add(entry, place),
                    None => self.close(open.replace(Stretch::new(entry, place)), entries, least),
                },
            }
        }
        self.close(open, entries, least);
    }

    fn close(&mut self, stretch: Option<Stretch>, entries: &[Lying], least: u64) {
        let Some(stretch) = stretch else { return };
        let entries = &entries[stretch.from..=stretch.to];
        let log = entries[0].log;
        if stretch.bytes >= least {
            self.bytes += stretch.bytes;
            self.staying.entry(log).or_default().push(stretch.summary());
        } else {
            let alive = entries.iter().filter(|entry| entry.fate == Fate::Stays).map(|entry| entry.index);
            self.copied.entry(log).or_default().extend(alive);
        }
    }
}

/// Entries of a log that lie behind each other, dead ones among them; it begins and ends with one that lives.
struct Stretch {
    /// Places in the list of the log's entries.
    from: usize,
    to: usize,
    first: Lying,
    last: Lying,
    /// Of those that live.
    bytes: u64,
    cost: u64,
    deadline: u64,
    mixed: bool,
    transient: bool,
}

impl Stretch {
    fn new(entry: &Lying, place: usize) -> Self {
        Self {
            from: place,
            to: place,
            first: *entry,
            last: *entry,
            bytes: u64::from(entry.length),
            cost: u64::from(entry.cost),
            deadline: entry.deadline,
            mixed: false,
            transient: entry.transient,
        }
    }

    fn takes(&self, entry: &Lying, place: usize) -> bool {
        let Some(gap) = entry.at.checked_sub(self.last.end()) else { return false };
        let waste = self.last.end() - self.first.at - self.bytes + gap;
        let settled_class = !self.mixed && self.first.class != entry.class && self.count() >= CLASS_ENTRIES;
        gap <= GAP_MAX
            && waste <= self.bytes.max(WASTE_MIN)
            && place - self.from < CHUNK_ENTRIES
            && entry.end() - self.first.at <= CHUNK_BYTES as u64
            && !settled_class
    }

    fn add(&mut self, entry: &Lying, place: usize) {
        self.to = place;
        self.last = *entry;
        self.bytes += u64::from(entry.length);
        self.cost += u64::from(entry.cost);
        self.deadline = self.deadline.min(entry.deadline);
        self.mixed |= self.first.class != entry.class;
        self.transient |= entry.transient;
    }

    fn count(&self) -> u16 {
        (self.to - self.from + 1) as u16
    }

    fn summary(&self) -> ChunkSummary {
        let place = ChunkPlace {
            first: self.first.index,
            last: self.last.index,
            offset: self.first.at,
            length: u32::try_from(self.last.end() - self.first.at).unwrap_or(u32::MAX),
            count: self.count(),
            part: Part::Wal,
        };
        let (cost, deadline, class) = (self.cost, self.deadline, self.first.class);
        ChunkSummary { place, cost, deadline, class, mixed: self.mixed, transient: self.transient }
    }
}
