//! What a queue has done since it is in this process.

use crate::model::durations::Durations;

/// Counters of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub published: u64,
    pub delivered: u64,
    pub delivered_auto_ack: u64,
    pub got: u64,
    pub got_auto_ack: u64,
    pub get_empty: u64,
    pub redelivered: u64,
    pub acked: u64,
    /// Messages that left for their TTL, whether or not as dead letters.
    pub expired: u64,
    pub dropped_max_length: u64,
    pub rejected: u64,
    /// Publishes that were not taken.
    pub refused: u64,
    /// Of those that left, the ones that became dead letters.
    pub dead_lettered: u64,
    /// From arrival to the first delivery.
    pub in_queue: Durations,
    /// From delivery to acknowledgement.
    pub processing: Durations,
}
