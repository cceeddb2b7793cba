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
    /// Messages that left and became no dead letters, by why they left.
    pub expired_discarded: u64,
    pub dropped_discarded: u64,
    pub rejected_discarded: u64,
    /// Publishes that were not taken.
    pub refused: u64,
    /// Messages that became dead letters, by why they left.
    pub expired_dead_lettered: u64,
    /// Publishes that were not taken are among them.
    pub dropped_dead_lettered: u64,
    pub rejected_dead_lettered: u64,
    /// From arrival to the first delivery.
    pub in_queue: Durations,
    /// From delivery to acknowledgement.
    pub processing: Durations,
}
