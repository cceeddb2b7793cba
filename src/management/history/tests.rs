//! What the history promises, against a naive model, through restarts, and at its limits.

mod budget;
mod ends;
mod figures;
mod model;
mod restart;
mod sampling;

use super::{History, Range, Round, Rounding, Subject};

/// A round hour, in milliseconds since the epoch.
const START_MS: u64 = 1_795_200_000_000 / 3_600_000 * 3_600_000;

const BUDGET: usize = 64 << 20;

fn queue(name: &str) -> Subject<'_> {
    Subject::Queue { vhost: "/", name }
}

fn record(history: &History, at_ms: u64, subjects: &[(Subject<'_>, &[u64])]) {
    let mut round = Round::new();
    subjects.iter().for_each(|(subject, values)| round.add(*subject, values));
    history.record(at_ms, &round);
}

fn down(age_s: u64, increment_s: u64, now_ms: u64) -> Range {
    Range::new(age_s, increment_s, now_ms, Rounding::Down).unwrap()
}
