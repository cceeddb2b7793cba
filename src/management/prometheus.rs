//! Metrics in Prometheus' text format, under RabbitMQ's names.

use super::Management;
use super::answer::Answer;
use super::call::Query;

/// The metrics of a kind: none for the aggregated ones, `per-object`, `detailed` or `memory-breakdown`. None when there is
/// no such kind.
#[must_use]
pub fn answer(_management: &Management, _kind: &str, _query: &Query) -> Option<Answer> {
    None
}
