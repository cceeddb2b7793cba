//! Samples at regular steps, as the charts ask for them.

use super::entry::{Active, HistoryEntry, Timelines};
use super::timeline::{STALE_MS, TIERS};

/// Most samples of one request.
const SAMPLES_MAX: u64 = 500;

/// To which side the newest sample lies of now. RabbitMQ rounds queue lengths up, everything else down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Down,
    Up,
}

/// The range cannot be sampled; the text is RabbitMQ's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Invalid range parameters: age {age_s}, incr {increment_s}")]
pub struct InvalidRange {
    pub age_s: u64,
    pub increment_s: u64,
}

/// The moments to be sampled: from the oldest, which is `age` before now rounded to the increment, in steps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    oldest_ms: u64,
    increment_ms: u64,
    steps: u64,
    now_ms: u64,
}

impl Range {
    /// # Errors
    /// The age or the increment is zero, or the range has more than 500 increments.
    pub fn new(age_s: u64, increment_s: u64, now_ms: u64, rounding: Rounding) -> Result<Self, InvalidRange> {
        let is_valid = age_s > 0 && increment_s > 0 && age_s / increment_s <= SAMPLES_MAX;
        let milliseconds = || Some((age_s.checked_mul(1000)?, increment_s.checked_mul(1000)?));
        let (age_ms, increment_ms) = milliseconds().filter(|_| is_valid).ok_or(InvalidRange { age_s, increment_s })?;
        let newest_ms = match rounding {
            Rounding::Down => now_ms - now_ms % increment_ms,
            Rounding::Up => now_ms.div_ceil(increment_ms).saturating_mul(increment_ms),
        };
        Ok(Self { oldest_ms: newest_ms.saturating_sub(age_ms), increment_ms, steps: age_ms / increment_ms, now_ms })
    }

    /// The moments, newest first, in milliseconds since the epoch.
    pub fn moments_ms(&self) -> impl Iterator<Item = u64> + use<> {
        let Self { oldest_ms, increment_ms, steps, .. } = *self;
        (0..=steps).rev().map(move |step| oldest_ms.saturating_add(step.saturating_mul(increment_ms)))
    }
}

/// Samples of some fields of one subject, newest first. Moments at which nothing was sampled are left out; before the
/// subject was there its values are zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Milliseconds since the epoch, as many as each field has values.
    pub at_ms: Vec<u64>,
    /// In the order of the fields asked for.
    pub fields: Vec<FieldSamples>,
}

/// Samples of one field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSamples {
    pub values: Vec<u64>,
    /// `avg`: the mean of the values. None unless there are two samples.
    pub average: Option<f64>,
    /// `avg_rate`: by how much the value grew in a second, from the oldest sample to the newest; negative if it shrank.
    pub average_rate: Option<f64>,
}

/// Samples a subject whose coarser tiers are settled.
pub(super) fn sample(
    entry: &HistoryEntry,
    timelines: &Timelines,
    ahead_ms: u64,
    fields: &[usize],
    range: &Range,
) -> Samples {
    let mut samples = Samples { at_ms: Vec::new(), fields: vec![FieldSamples::default(); fields.len()] };
    let mut walkers = Walker::of_tiers(entry, timelines, fields);
    for at_ms in range.moments_ms() {
        let own_ms = at_ms.min(range.now_ms).saturating_add(ahead_ms);
        let values = if own_ms < entry.born_ms {
            None
        } else {
            let Some((tier, round)) = round_at(entry, timelines, own_ms) else { continue };
            Some(walkers[tier].values_at(round))
        };
        samples.at_ms.push(at_ms);
        for (index, field) in samples.fields.iter_mut().enumerate() {
            field.values.push(values.map_or(0, |values| values[index]));
        }
    }
    if let [newest_ms, .., oldest_ms] = *samples.at_ms {
        for field in &mut samples.fields {
            field.average(newest_ms - oldest_ms);
        }
    }
    samples
}

impl FieldSamples {
    fn average(&mut self, elapsed_ms: u64) {
        let [newest, .., oldest] = *self.values else { return };
        let sum: f64 = self.values.iter().map(|value| *value as f64).sum();
        self.average = Some(sum / self.values.len() as f64);
        self.average_rate = Some(newest.wrapping_sub(oldest) as i64 as f64 * 1000.0 / elapsed_ms as f64);
    }
}

/// The tier and the round that tell the values of a moment: of the finest tier that reaches back to it.
fn round_at(entry: &HistoryEntry, timelines: &Timelines, own_ms: u64) -> Option<(usize, u32)> {
    for tier in 0..entry.tiers() {
        let known_from = entry.active().map_or(0, |active| active.rows[tier].known_from());
        let round = timelines[tier].at_or_before(own_ms).filter(|round| *round >= known_from);
        if let Some(round) = round {
            let at_ms = timelines[tier].get(round)?.at_ms;
            return (own_ms - at_ms <= STALE_MS[tier]).then_some((tier, round));
        }
    }
    None
}

/// Goes back through the rows of one tier.
#[derive(Clone, Debug)]
struct Walker {
    /// The values after all rows that are left.
    values: Vec<u64>,
    rounds: Vec<u32>,
    /// As many for each round as there are values.
    differences: Vec<u64>,
}

impl Walker {
    fn of_tiers(entry: &HistoryEntry, timelines: &Timelines, fields: &[usize]) -> [Self; TIERS] {
        let last = entry.last();
        let mut values: Vec<u64> = fields.iter().map(|field| last.get(*field).copied().unwrap_or(0)).collect();
        std::array::from_fn(|tier| {
            let walker = Self::new(values.clone(), entry.active(), tier, fields);
            if let Some(moment) = timelines.get(tier + 1).and_then(|coarser| coarser.last_moment()) {
                values = walker.clone().values_at(moment.source).to_vec();
            }
            walker
        })
    }

    fn new(values: Vec<u64>, active: Option<&Active>, tier: usize, fields: &[usize]) -> Self {
        let mut walker = Self { values, rounds: Vec::new(), differences: Vec::new() };
        for row in active.into_iter().flat_map(|active| active.rows[tier].iter()) {
            let begin = walker.differences.len();
            walker.rounds.push(row.round);
            walker.differences.resize(begin + fields.len(), 0);
            row.for_each(|changed, difference| {
                for (index, field) in fields.iter().enumerate() {
                    if *field == changed {
                        walker.differences[begin + index] = difference;
                    }
                }
            });
        }
        walker
    }

    /// The values of a round, which is not newer than the one asked for before.
    fn values_at(&mut self, round: u32) -> &[u64] {
        while self.rounds.last().is_some_and(|newest| *newest > round) {
            self.rounds.pop();
            let begin = self.differences.len() - self.values.len();
            for (value, difference) in self.values.iter_mut().zip(self.differences.drain(begin..)) {
                *value = value.wrapping_sub(difference);
            }
        }
        &self.values
    }
}
