//! The history against a model that keeps every sample of every round in plain vectors.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::management::history::Samples;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SPANS_MS: [u64; 4] = [605_000, 3_660_000, 30_600_000, 88_200_000];
const STEPS_MS: [u64; 4] = [5_000, 60_000, 600_000, 1_800_000];
const CHARTS: [(u64, u64); 6] = [(60, 5), (600, 5), (3_600, 60), (28_800, 1_800), (86_400, 1_800), (700, 7)];

/// All rounds, on a clock that never goes back.
#[derive(Default)]
struct Model {
    rounds: Vec<(u64, BTreeMap<&'static str, Vec<u64>>)>,
    /// The rounds of each tier.
    tiers: [Vec<usize>; 4],
    ahead_ms: u64,
}

impl Model {
    /// Whether a round at this time is taken, and not too near the one before.
    fn takes(&self, at_ms: u64) -> bool {
        let own_ms = at_ms + self.ahead_ms;
        self.rounds.last().is_none_or(|(newest_ms, _)| own_ms <= *newest_ms || own_ms >= newest_ms + 1_000)
    }

    fn record(&mut self, at_ms: u64, values: BTreeMap<&'static str, Vec<u64>>) {
        if !self.takes(at_ms) {
            return;
        }
        if let Some((newest_ms, _)) = self.rounds.last() {
            let own_ms = at_ms + self.ahead_ms;
            if own_ms <= *newest_ms {
                self.ahead_ms = newest_ms + 5_000 - at_ms;
            }
            for (tier, step_ms) in STEPS_MS.into_iter().enumerate().skip(1) {
                let slot = |time: u64| (time - 1) / step_ms;
                let before = self.tiers[tier].last().map_or(*newest_ms, |round| self.rounds[*round].0);
                let is_overdue = newest_ms - before >= 2 * step_ms;
                if slot(at_ms) == slot(newest_ms - self.ahead_ms) && !is_overdue {
                    break;
                }
                self.tiers[tier].push(self.rounds.len() - 1);
            }
        }
        self.tiers[0].push(self.rounds.len());
        self.rounds.push((at_ms + self.ahead_ms, values));
    }

    /// The values at a moment: zeros before the first sample, none if there is no sample near.
    fn at(&self, name: &str, own_ms: u64) -> Option<Vec<u64>> {
        let born = self.rounds.iter().position(|(_, values)| values.contains_key(name))?;
        let first = &self.rounds[born].1[name];
        if own_ms < self.rounds[born].0 {
            return Some(vec![0; first.len()]);
        }
        let newest_ms = self.rounds.last()?.0;
        for (tier, rounds) in self.tiers.iter().enumerate() {
            let time = |round: usize| self.rounds[round].0;
            let reach = rounds.iter().rposition(|round| time(*round) <= newest_ms - SPANS_MS[tier]).unwrap_or(0);
            let mut kept = rounds[reach.min(rounds.len())..].iter().copied();
            if let Some(round) = kept.rfind(|round| time(*round) <= own_ms) {
                let near = own_ms - time(round) <= if tier == 0 { 15_000 } else { 2 * STEPS_MS[tier] };
                let values = self.rounds[..=round].iter().rev().find_map(|(_, values)| values.get(name));
                return near.then(|| values.unwrap_or(first).clone());
            }
        }
        None
    }

    fn samples(&self, name: &str, range: &Range, now_ms: u64) -> Vec<(u64, Vec<u64>)> {
        let values = |at_ms: u64| Some((at_ms, self.at(name, at_ms.min(now_ms) + self.ahead_ms)?));
        range.moments_ms().filter_map(values).collect()
    }
}

#[derive(Clone, Debug)]
struct Step {
    /// Milliseconds after the round before; negative sets the clock back.
    after_ms: i64,
    /// How many rounds follow in this way.
    repeat: usize,
    /// For each subject whether it is there, and by how much its fields change in each round.
    changes: Vec<Option<[i64; 3]>>,
    reopen: bool,
}

fn steps(reopen: impl Strategy<Value = bool> + Clone) -> impl Strategy<Value = Vec<Step>> {
    let after = prop_oneof![
        8 => Just(5_000_i64),
        4 => 4_800..5_200_i64,
        2 => Just(60_000_i64),
        1 => 1_000..100_000_i64,
        1 => 100_000..4_000_000_i64,
        1 => Just(500_i64),
        1 => -4_000_000..0_i64,
    ];
    let change = prop_oneof![
        3 => Just([0, 0, 0]),
        2 => (0..20_i64, -3..4_i64).prop_map(|(one, other)| [one, other, 0]),
        1 => any::<[i64; 3]>(),
    ];
    // The first two subjects are in every round, as all should be; the others are missing for short.
    let changes = proptest::collection::vec(proptest::option::weighted(0.9, change), NAMES.len());
    let step = (after, prop_oneof![Just(1_usize), 1..30_usize, 100..140_usize], changes, reopen);
    let step = step.prop_map(|(after_ms, repeat, changes, reopen)| Step { after_ms, repeat, changes, reopen });
    proptest::collection::vec(step, 1..25)
}

/// Both sides of the comparison, and the newest values.
struct Pair {
    history: History,
    model: Model,
    values: [Option<[u64; 3]>; 4],
    missing: [usize; 4],
    now_ms: u64,
}

impl Pair {
    fn new(history: History) -> Self {
        Self { history, model: Model::default(), values: [None; 4], missing: [0; 4], now_ms: START_MS }
    }

    fn round(&mut self, step: &Step) {
        let after_ms = if step.after_ms < 0 && self.model.rounds.is_empty() { 5_000 } else { step.after_ms };
        self.now_ms = self.now_ms.saturating_add_signed(after_ms).max(START_MS / 2);
        // A round that is not taken tells nothing of who was in it.
        let is_taken = self.model.takes(self.now_ms);
        let (mut round, mut all) = (Round::new(), BTreeMap::new());
        for (index, name) in NAMES.iter().enumerate() {
            let change = step.changes[index];
            self.missing[index] += usize::from(is_taken);
            // Missing for long means forgotten, which the model does not know.
            let change = change
                .or_else(|| (index < 2 || self.missing[index] > 8 && self.values[index].is_some()).then_some([0; 3]));
            let Some(change) = change else { continue };
            if is_taken {
                self.missing[index] = 0;
            }
            let values = self.values[index].get_or_insert([1, 0, 5]);
            values.iter_mut().zip(change).for_each(|(value, change)| *value = value.wrapping_add_signed(change));
            round.add(queue(name), values);
            all.insert(*name, values.to_vec());
        }
        // What a round that is not taken had is in the next.
        self.history.record(self.now_ms, &round);
        self.model.record(self.now_ms, all);
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for now_ms in [self.now_ms, self.now_ms + 3_000] {
            for ((age, increment), rounding) in
                CHARTS.into_iter().zip([Rounding::Down, Rounding::Up].into_iter().cycle())
            {
                let range = Range::new(age, increment, now_ms, rounding).unwrap();
                for name in NAMES {
                    let expected = self.model.samples(name, &range, now_ms);
                    let found = self.history.samples(queue(name), &[2, 0, 1], &range);
                    let rows = found.map(|samples| rows(&samples)).unwrap_or_default();
                    prop_assert_eq!(rows, expected, "{} {}/{}", name, age, increment);
                }
            }
        }
        Ok(())
    }
}

fn rows(samples: &Samples) -> Vec<(u64, Vec<u64>)> {
    let value = |field: usize, index: usize| samples.fields[field].values[index];
    let row = |index: usize| vec![value(1, index), value(2, index), value(0, index)];
    samples.at_ms.iter().enumerate().map(|(index, at_ms)| (*at_ms, row(index))).collect()
}

/// By how much the fields of each subject change, of those that are there.
type Changes = [Option<[i64; 3]>; 4];

/// What random searches found, each as a script of rounds.
fn found<const N: usize>(steps: [(i64, usize, Changes); N]) {
    let mut pair = Pair::new(History::new(BUDGET));
    for (after_ms, repeat, changes) in steps {
        let step = Step { after_ms, repeat, changes: changes.to_vec(), reopen: false };
        (0..repeat).for_each(|_| pair.round(&step));
        pair.check().unwrap();
    }
}

#[test]
fn a_subject_that_is_missing_now_and_then_keeps_its_past() {
    let same = Some([0, 0, 0]);
    found([
        (5_000, 8, [None; 4]),
        (5_000, 1, [None, None, same, None]),
        (5_000, 127, [None, None, None, same]),
        (5_000, 130, [None; 4]),
        (5_000, 1, [None, None, Some([-118_352_474_519, 2_421_790_214_354_562_598, 2_327_908_144_385_297_938]), same]),
        (5_000, 14, [same, Some([-6_826_701_407_891_139_951, 1, 1]), None, Some([2, -1, 0])]),
        (500, 1, [same, Some([-2, 6, 8]), Some([14, 0, 0]), same]),
        (5_000, 139, [None, Some([10, 2, 0]), None, None]),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn it_samples_what_the_model_samples(steps in steps(Just(false))) {
        let mut pair = Pair::new(History::new(BUDGET));
        for step in &steps {
            (0..step.repeat).for_each(|_| pair.round(step));
            pair.check()?;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn it_does_after_restarts_too(steps in steps(any::<bool>())) {
        let folder = restart::Folder::new("model");
        let mut pair = Pair::new(folder.open());
        for step in &steps {
            (0..step.repeat).for_each(|_| pair.round(step));
            pair.history.persist().unwrap();
            if step.reopen {
                drop(std::mem::replace(&mut pair.history, History::new(0)));
                pair.history = folder.open();
            }
            pair.check()?;
        }
    }
}
