//! What is kept of one subject: its newest values, and rows of what changed before.

use super::Rate;
use super::rows::{FIELDS_MAX, Rows, Values};
use super::subject;
use super::timeline::{STALE_MS, TIERS, Timeline};
use super::varint;

pub(super) type Timelines = [Timeline; TIERS];

/// Bytes of an entry besides what it points to: itself, its place in the map, and what the allocator adds.
const FIXED_BYTES: usize = size_of::<HistoryEntry>() + 48;

#[derive(Debug)]
pub(super) struct HistoryEntry {
    pub(super) key: Box<[u8]>,
    /// The newest values, while nothing changed for longer than the history reaches back.
    packed: Box<[u8]>,
    active: Option<Box<Active>>,
    /// When it was first seen, on the history's own clock. Before that its values are zero.
    pub(super) born_ms: u64,
    /// The newest round that had it.
    pub(super) seen: u32,
    /// The newest round in which one of its values changed, or in which it was first seen.
    pub(super) changed: u32,
    /// Its number on the disk; 0 if it is kept in memory only.
    pub(super) id: u32,
    fields: u8,
    /// Whether it began after the round before the one that first found it, so that what it had then came since that one.
    pub(super) is_new: bool,
    /// Whether the disk knows the subject.
    pub(super) is_stored: bool,
    /// Whether the newest values lie on the disk beside the name, and not only with the rows, which expire.
    pub(super) is_anchored: bool,
}

/// A subject whose values changed within the time the history reaches back.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) last: Box<[u64]>,
    pub(super) rows: [Rows; TIERS],
    /// The newest round of each coarser tier that has been made of the rows of the finer one.
    settled: [u32; TIERS],
}

impl HistoryEntry {
    pub(super) fn new(key: &[u8], values: &[u64], born_ms: u64, round: u32, id: u32) -> Self {
        Self {
            key: key.into(),
            packed: pack(values),
            active: None,
            born_ms,
            seen: round,
            changed: round,
            id,
            fields: values.len() as u8,
            is_new: false,
            is_stored: false,
            is_anchored: false,
        }
    }

    pub(super) fn fields(&self) -> usize {
        usize::from(self.fields)
    }

    pub(super) fn active(&self) -> Option<&Active> {
        self.active.as_deref()
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let active = self.active.as_ref().map_or(0, |active| {
            let rows: usize = active.rows.iter().map(Rows::capacity).sum();
            size_of::<Active>() + active.last.len() * 8 + rows
        });
        FIXED_BYTES + self.key.len() + self.packed.len() + active
    }

    /// Whether coarser tiers are kept of it.
    fn is_short(&self) -> bool {
        self.key.first() == Some(&subject::CHANNEL)
    }

    /// How many tiers are kept of it.
    pub(super) fn tiers(&self) -> usize {
        if self.is_short() { 1 } else { TIERS }
    }

    /// The newest values; the first [`Entry::fields`] of them count.
    pub(super) fn last(&self) -> Values {
        let mut values = [0; FIELDS_MAX];
        match &self.active {
            Some(active) => values[..active.last.len()].copy_from_slice(&active.last),
            None => {
                let mut at = 0;
                for value in &mut values[..usize::from(self.fields)] {
                    *value = varint::get(&self.packed, &mut at).unwrap_or(0);
                }
            }
        }
        values
    }

    /// Takes the values of a round, which is newer than all before.
    pub(super) fn observe(&mut self, values: &[u64], round: u32, timelines: &Timelines) {
        self.seen = round;
        let fields = values.len();
        if self.active.is_none() && self.last()[..fields] == *values {
            return;
        }
        self.settle(timelines);
        let active = self.activate(timelines);
        if *active.last != *values {
            let mut differences = [0; FIELDS_MAX];
            for ((difference, new), old) in differences.iter_mut().zip(values).zip(&mut active.last) {
                *difference = new.wrapping_sub(*old);
                *old = *new;
            }
            active.rows[0].push(round, &differences[..fields]);
            active.rows[0].drop_through(timelines[0].first());
            self.changed = round;
            self.is_anchored = false;
        }
    }

    pub(super) fn activate(&mut self, timelines: &Timelines) -> &mut Active {
        if self.active.is_none() {
            let last = self.last()[..usize::from(self.fields)].into();
            let settled = std::array::from_fn(|tier| timelines[tier].last());
            self.active = Some(Box::new(Active { last, rows: Default::default(), settled }));
            self.packed = Box::default();
        }
        self.active.get_or_insert_with(|| unreachable!("set above"))
    }

    /// Makes the rows of the coarser tiers that are due. It must be done before rows are added, read or dropped.
    ///
    /// Since it is, all rows that a coarser tier lacks belong to the first of its rounds that are due.
    pub(super) fn settle(&mut self, timelines: &Timelines) {
        let is_short = self.is_short();
        let Some(active) = self.active.as_deref_mut() else { return };
        for (tier, timeline) in timelines.iter().enumerate().skip(1) {
            let (due, last) = (active.settled[tier] + 1, timeline.last());
            if due > last {
                break;
            }
            let mut sum = [0; FIELDS_MAX];
            active.rows[tier - 1].take_open(&mut sum);
            if !is_short {
                active.rows[tier].push(due, &sum);
            }
            active.settled[tier] = last;
        }
        // Only now: after a pause of the sampler a row may be both new to a coarser tier and too old for its own.
        for (rows, timeline) in active.rows.iter_mut().zip(timelines).skip(1) {
            rows.drop_through(timeline.first());
        }
    }

    /// Drops what has become older than the tiers reach back.
    pub(super) fn expire(&mut self, timelines: &Timelines) {
        self.settle(timelines);
        let Some(active) = self.active.as_deref_mut() else { return };
        let mut is_idle = true;
        for (rows, timeline) in active.rows.iter_mut().zip(timelines) {
            rows.drop_through(timeline.first());
            is_idle &= rows.is_empty() && rows.known_from() <= timeline.first();
        }
        if is_idle {
            self.packed = pack(&active.last);
            self.active = None;
        }
    }

    /// Drops all of a tier that is not needed for the next coarser one.
    pub(super) fn drop_tier(&mut self, tier: usize, timelines: &Timelines) {
        self.settle(timelines);
        let Some(active) = self.active.as_deref_mut() else { return };
        let closed = match timelines.get(tier + 1) {
            Some(coarser) => coarser.last_moment().map_or(0, |moment| moment.source),
            None => {
                active.rows[tier].set_open_after(timelines[tier].last());
                timelines[tier].last()
            }
        };
        if closed > active.rows[tier].known_from() {
            active.rows[tier].drop_closed(closed);
        }
    }

    /// Takes what was read from the disk as complete up to now.
    pub(super) fn restored(&mut self, timelines: &Timelines) {
        let Some(active) = self.active.as_deref_mut() else { return };
        active.settled = std::array::from_fn(|tier| timelines[tier].last());
        for (tier, timeline) in timelines.iter().enumerate().skip(1) {
            let source = timeline.last_moment().map_or(0, |moment| moment.source);
            active.rows[tier - 1].set_open_after(source);
        }
        self.changed = active.rows[0].newest();
        self.expire(timelines);
    }

    /// The newest values with their rates: the difference between the newest two rounds, from zero for what is new.
    pub(super) fn rates(&self, timelines: &Timelines, rates: &mut Vec<Rate>) {
        rates.clear();
        let last = self.last();
        rates.extend(last[..self.fields()].iter().map(|value| Rate { value: *value, per_second: 0.0 }));
        let (now, before) = (timelines[0].get(self.seen), timelines[0].get(self.seen.saturating_sub(1)));
        let (Some(now), Some(before)) = (now, before) else { return };
        let elapsed_ms = now.at_ms - before.at_ms;
        if elapsed_ms == 0 || elapsed_ms > STALE_MS[0] {
            return;
        }
        let per_second = |difference: i64| difference as f64 * 1000.0 / elapsed_ms as f64;
        if self.is_new && self.born_ms == now.at_ms {
            // Its values were zero before.
            rates.iter_mut().for_each(|rate| rate.per_second = per_second(rate.value as i64));
            return;
        }
        let Some(row) = self.active().and_then(|active| active.rows[0].newest_row()) else { return };
        if row.round != self.seen {
            return;
        }
        row.for_each(|field, difference| {
            if let Some(rate) = rates.get_mut(field) {
                rate.per_second = per_second(difference as i64);
            }
        });
    }
}

fn pack(values: &[u64]) -> Box<[u8]> {
    let mut packed = Vec::with_capacity(FIELDS_MAX);
    values.iter().for_each(|value| varint::put(&mut packed, *value));
    packed.into()
}
