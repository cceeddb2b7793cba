//! What lies on the disk, as keys and values.
//!
//! | Key | Value |
//! | --- | --- |
//! | `m` | how far the disk is: the newest round of each tier, the next number of a subject, the clock |
//! | `t` tier round | the moments of some rounds from this one |
//! | `c` tier round part | rows of many subjects in these rounds, at most [`PART_BYTES`] and the last subject's |
//! | `s` number | a subject: key, birth, number of fields, newest values |
//!
//! Rows lie by time and not by subject: a minute of ten thousand queues is some hundred keys rather than ten thousand,
//! and what is too old is one range of keys. Every value begins with a version and a CRC32C of what follows.

use std::collections::{HashMap, VecDeque};

use super::entry::HistoryEntry;
use super::memory::Memory;
use super::rows::{FIELDS_MAX, Rows};
use super::timeline::{Moment, TIERS, Timeline};
use super::varint;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// A part of a chunk takes no more, but for a subject that alone does: with its key, four pages of the store. From one
/// byte more on it would be eight.
const PART_BYTES: usize = 16 * 1024 - 64;

pub(super) const META: &[u8] = b"m";

/// Why stored bytes cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("a value with a wrong checksum")]
    Checksum,
    #[error("a value of version {0}")]
    Version(u8),
    #[error("{0} that makes no sense")]
    Nonsense(&'static str),
}

/// How far the disk is.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    pub(super) last: [u32; TIERS],
    next_id: u32,
    ahead_ms: u64,
}

/// The first rounds of the chunks of each tier with the number of their parts, oldest first.
pub(super) type Chunks = [VecDeque<(u32, u16)>; TIERS];

/// What one call of persist writes, gathered a batch of subjects at a time.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    since: [u32; TIERS],
    pub(super) meta: Meta,
    moments: [Vec<Moment>; TIERS],
    parts: [Vec<Vec<u8>>; TIERS],
    pub(super) subjects: Vec<(u32, Vec<u8>)>,
    pub(super) forgotten: Vec<u32>,
    every_subject: bool,
}

/// How much of a subject is to be written beside its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// What the disk does not have.
    New,
    /// All of it, to a disk that has nothing.
    Everything,
}

impl Gathered {
    /// Begins with what is new after the rounds `since`.
    pub(super) fn begin(memory: &mut Memory, since: [u32; TIERS], extent: Extent) -> Self {
        let mut gathered = Self { every_subject: extent == Extent::Everything, ..Self::default() };
        for (tier, timeline) in memory.timelines.iter().enumerate() {
            let first = timeline.first().max(since[tier] + 1);
            gathered.since[tier] = first - 1;
            gathered.meta.last[tier] = timeline.last();
            gathered.moments[tier] = (first..=timeline.last()).filter_map(|round| timeline.get(round)).collect();
        }
        gathered.meta.next_id = memory.next_id;
        gathered.meta.ahead_ms = memory.ahead_ms;
        gathered.forgotten = std::mem::take(&mut memory.forgotten);
        gathered
    }

    /// Adds the subjects at some places. What they did in rounds after [`Gathered::begin`] is left for the next time.
    pub(super) fn gather(&mut self, memory: &mut Memory, places: std::ops::Range<usize>) {
        for place in places {
            let Some((entry, timelines)) = memory.at(place as u32) else { continue };
            // A number of the next time: the subject is younger than what is written now.
            if entry.id == 0 || entry.id >= self.meta.next_id {
                continue;
            }
            entry.settle(timelines);
            let values = values_at(entry, self.meta.last[0]);
            self.gather_rows(entry, &values);
            // The rows with its newest change are about to expire, or have without having been written.
            let is_idle = !entry.is_anchored && entry.changed <= timelines[0].first();
            if self.every_subject || !entry.is_stored || is_idle {
                self.subjects.push((entry.id, subject_value(entry, self.meta.last[0], &values)));
                entry.is_stored = true;
                entry.is_anchored = entry.changed <= self.meta.last[0];
            }
        }
    }

    fn gather_rows(&mut self, entry: &HistoryEntry, values: &[u64]) {
        for (tier, rows) in entry.active().into_iter().flat_map(|active| active.rows.iter().enumerate()) {
            if rows.newest() <= self.since[tier] {
                continue;
            }
            let mut new = Rows::default();
            let is_new = |round: u32| round > self.since[tier] && round <= self.meta.last[tier];
            rows.iter().filter(|row| is_new(row.round)).for_each(|row| new.push_row(row));
            if new.is_empty() {
                continue;
            }
            let mut piece = Vec::new();
            varint::put(&mut piece, u64::from(entry.id));
            put_values(&mut piece, values);
            varint::put(&mut piece, new.as_bytes().len() as u64);
            piece.extend_from_slice(new.as_bytes());
            match self.parts[tier].last_mut().filter(|part| part.len() + piece.len() <= PART_BYTES) {
                Some(part) => part.extend_from_slice(&piece),
                None => {
                    let mut part = begin_value();
                    varint::put(&mut part, u64::from(self.meta.last[0]));
                    part.extend_from_slice(&piece);
                    self.parts[tier].push(part);
                }
            }
        }
    }

    /// Calls back with each key and value to be written, and remembers the chunks.
    pub(super) fn finish<E>(
        mut self,
        chunks: &mut Chunks,
        mut write: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (id, value) in std::mem::take(&mut self.subjects) {
            write(&subject_key(id), &value)?;
        }
        for (tier, chunks) in chunks.iter_mut().enumerate() {
            if self.moments[tier].is_empty() {
                continue;
            }
            let first = self.since[tier] + 1;
            write(&timeline_key(tier, first), &timeline_value(&self.moments[tier]))?;
            let parts = std::mem::take(&mut self.parts[tier]);
            chunks.push_back((first, parts.len() as u16));
            for (part, value) in parts.into_iter().enumerate() {
                write(&chunk_key(tier, first, part as u16), &finish_value(value))?;
            }
        }
        write(META, &self.meta_value())
    }

    fn meta_value(&self) -> Vec<u8> {
        let mut value = begin_value();
        self.meta.last.iter().for_each(|last| varint::put(&mut value, u64::from(*last)));
        varint::put(&mut value, u64::from(self.meta.next_id));
        varint::put(&mut value, self.meta.ahead_ms);
        finish_value(value)
    }
}

/// The values of a subject at a round of the finest tier, none of whose later rows has been dropped.
fn values_at(entry: &HistoryEntry, round: u32) -> Vec<u64> {
    let mut values = entry.last()[..entry.fields()].to_vec();
    let Some(active) = entry.active().filter(|active| active.rows[0].newest() > round) else { return values };
    for row in active.rows[0].iter().filter(|row| row.round > round) {
        row.for_each(|field, difference| values[field] = values[field].wrapping_sub(difference));
    }
    values
}

fn begin_value() -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    value.resize(HEADER_BYTES, 0);
    value[0] = VERSION;
    value
}

fn finish_value(mut value: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&value[HEADER_BYTES..]);
    value[1..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    value
}

fn open_value(value: &[u8]) -> Result<&[u8], Damage> {
    let (header, content) = value.split_first_chunk::<HEADER_BYTES>().ok_or(Damage::Checksum)?;
    let [version, checksum @ ..] = *header;
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    (crc32c::crc32c(content) == u32::from_le_bytes(checksum)).then_some(content).ok_or(Damage::Checksum)
}

pub(super) fn subject_key(id: u32) -> Vec<u8> {
    [b"s".as_slice(), &id.to_be_bytes()].concat()
}

pub(super) fn timeline_key(tier: usize, first: u32) -> Vec<u8> {
    [b"t".as_slice(), &[tier as u8], &first.to_be_bytes()].concat()
}

pub(super) fn chunk_key(tier: usize, first: u32, part: u16) -> Vec<u8> {
    [b"c".as_slice(), &[tier as u8], &first.to_be_bytes(), &part.to_be_bytes()].concat()
}

fn timeline_value(moments: &[Moment]) -> Vec<u8> {
    let mut value = begin_value();
    let mut before_ms = 0;
    for moment in moments {
        varint::put(&mut value, moment.at_ms - before_ms);
        varint::put(&mut value, u64::from(moment.source));
        before_ms = moment.at_ms;
    }
    finish_value(value)
}

fn subject_value(entry: &HistoryEntry, round: u32, values: &[u64]) -> Vec<u8> {
    let mut value = begin_value();
    varint::put(&mut value, entry.key.len() as u64);
    value.extend_from_slice(&entry.key);
    varint::put(&mut value, entry.born_ms);
    varint::put(&mut value, u64::from(round));
    for tier in 0..TIERS {
        let known_from = entry.active().map_or(0, |active| active.rows[tier].known_from());
        varint::put(&mut value, u64::from(known_from));
    }
    put_values(&mut value, values);
    finish_value(value)
}

fn put_values(bytes: &mut Vec<u8>, values: &[u64]) {
    varint::put(bytes, values.len() as u64);
    values.iter().for_each(|value| varint::put(bytes, *value));
}

fn read_values(bytes: &[u8], at: &mut usize) -> Option<Vec<u64>> {
    let count = usize::try_from(varint::get(bytes, at)?).ok().filter(|count| *count <= FIELDS_MAX)?;
    (0..count).map(|_| varint::get(bytes, at)).collect()
}

/// Builds the history from what lies on the disk. The values must come in the order of their keys, subjects and moments
/// before chunks.
#[derive(Debug)]
pub(super) struct Restoring {
    pub(super) memory: Memory,
    pub(super) meta: Meta,
    pub(super) chunks: Chunks,
    /// Where each subject is, and the round whose values it has.
    subjects: HashMap<u32, (u32, u32)>,
    has_timeline: [bool; TIERS],
}

impl Restoring {
    pub(super) fn new(meta: &[u8], budget_bytes: usize) -> Result<Self, Damage> {
        let (content, mut at) = (open_value(meta)?, 0);
        let mut meta = Meta::default();
        let nonsense = || Damage::Nonsense("an extent");
        for last in &mut meta.last {
            *last = varint::get_u32(content, &mut at).ok_or_else(nonsense)?;
        }
        meta.next_id = varint::get_u32(content, &mut at).ok_or_else(nonsense)?;
        meta.ahead_ms = varint::get(content, &mut at).ok_or_else(nonsense)?;
        let mut memory = Memory::new(budget_bytes);
        memory.next_id = meta.next_id;
        memory.ahead_ms = meta.ahead_ms;
        Ok(Self { memory, meta, chunks: Chunks::default(), subjects: HashMap::new(), has_timeline: [false; TIERS] })
    }

    pub(super) fn timeline(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        self.read_timeline(key, open_value(value)?).ok_or(Damage::Nonsense("a list of rounds"))
    }

    fn read_timeline(&mut self, key: &[u8], content: &[u8]) -> Option<()> {
        let tier = usize::from(*key.get(1)?);
        let first = u32::from_be_bytes(key.get(2..)?.try_into().ok()?);
        let timeline = self.memory.timelines.get_mut(tier)?;
        // After a pause longer than the tier reaches back, memory had dropped what was not written.
        if !self.has_timeline[tier] || first > timeline.last() + 1 {
            *timeline = Timeline::starting_at(first.max(1));
            self.has_timeline[tier] = true;
        }
        (first == timeline.last() + 1).then_some(())?;
        let (mut at, mut at_ms) = (0, 0_u64);
        while at < content.len() {
            at_ms = at_ms.checked_add(varint::get(content, &mut at)?)?;
            let source = varint::get_u32(content, &mut at)?;
            let newest = timeline.last_moment();
            newest.is_none_or(|newest| newest.at_ms < at_ms && newest.source <= source).then_some(())?;
            (timeline.last() < self.meta.last[tier]).then(|| timeline.push(Moment { at_ms, source }))?;
        }
        self.chunks[tier].push_back((first, 0));
        Some(())
    }

    pub(super) fn subject(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        self.read_subject(key, open_value(value)?).ok_or(Damage::Nonsense("a subject"))
    }

    fn read_subject(&mut self, key: &[u8], content: &[u8]) -> Option<()> {
        let id = u32::from_be_bytes(key.get(1..)?.try_into().ok()?);
        let mut at = 0;
        let length = usize::try_from(varint::get(content, &mut at)?).ok()?;
        let name = content.get(at..at.checked_add(length)?)?;
        at += length;
        let born_ms = varint::get(content, &mut at)?;
        let round = varint::get_u32(content, &mut at)?;
        let mut known_from = [0; TIERS];
        for known_from in &mut known_from {
            *known_from = varint::get_u32(content, &mut at)?;
        }
        let values = read_values(content, &mut at)?;
        (id > 0 && id < self.meta.next_id && at == content.len()).then_some(())?;
        let mut entry = HistoryEntry::new(name, &values, born_ms, self.meta.last[0], id);
        entry.is_stored = true;
        entry.is_anchored = true;
        let place = self.memory.restore(entry)?;
        self.subjects.insert(id, (place, round));
        if known_from.iter().any(|round| *round > 0) {
            let (entry, timelines) = self.memory.at(place)?;
            let rows = &mut entry.activate(timelines).rows;
            rows.iter_mut().zip(known_from).for_each(|(rows, round)| rows.set_known_from(round));
        }
        Some(())
    }

    pub(super) fn chunk(&mut self, key: &[u8], value: &[u8]) -> Result<(), Damage> {
        self.read_chunk(key, open_value(value)?).ok_or(Damage::Nonsense("a chunk of rows"))
    }

    fn read_chunk(&mut self, key: &[u8], content: &[u8]) -> Option<()> {
        let tier = usize::from(*key.get(1)?);
        let first = u32::from_be_bytes(key.get(2..6)?.try_into().ok()?);
        let chunk = self.chunks.get_mut(tier)?.iter_mut().find(|chunk| chunk.0 == first)?;
        chunk.1 += 1;
        let mut at = 0;
        let values_round = varint::get_u32(content, &mut at)?;
        while at < content.len() {
            self.read_piece(tier, values_round, content, &mut at)?;
        }
        Some(())
    }

    /// Reads the rows of one subject. Of a subject forgotten since then they are passed over.
    fn read_piece(&mut self, tier: usize, values_round: u32, content: &[u8], at: &mut usize) -> Option<()> {
        let id = varint::get_u32(content, at)?;
        let values = read_values(content, at)?;
        let length = usize::try_from(varint::get(content, at)?).ok()?;
        let bytes = content.get(*at..at.checked_add(length)?)?;
        *at += length;
        let Some((place, round)) = self.subjects.get_mut(&id) else { return Some(()) };
        let (entry, timelines) = self.memory.at(*place)?;
        let fields = entry.fields();
        entry.is_anchored &= *round >= values_round;
        (values.len() == fields).then_some(())?;
        let active = entry.activate(timelines);
        if values_round >= *round {
            *round = values_round;
            active.last.copy_from_slice(&values);
        }
        let mut rows = Rows::parse(bytes);
        for row in rows.by_ref() {
            let is_next = row.round > active.rows[tier].newest() && row.round <= self.meta.last[tier];
            (is_next && row.fields >> fields == 0).then(|| active.rows[tier].push_row(row))?;
        }
        rows.is_at_end().then_some(())
    }

    /// Completes the history.
    pub(super) fn finish(mut self) -> Result<(Memory, Meta, Chunks), Damage> {
        let last: [u32; TIERS] = std::array::from_fn(|tier| self.memory.timelines[tier].last());
        if last != self.meta.last {
            return Err(Damage::Nonsense("an extent other than that of the rounds"));
        }
        self.memory.restored();
        Ok((self.memory, self.meta, self.chunks))
    }
}
