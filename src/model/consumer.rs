//! Consumers as listings show them.

use super::ids::ConsumerId;
use super::names::ConsumerTag;
use super::table::FieldTable;

/// A consumer as listings show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerView {
    pub consumer: ConsumerId,
    pub tag: ConsumerTag,
    /// 0 is no limit.
    pub prefetch: u16,
    pub no_ack: bool,
    pub exclusive: bool,
    pub priority: i64,
    /// Whether it may be served: false behind a single active consumer.
    pub active: bool,
    /// Deliveries it has not settled.
    pub unacked: u64,
    /// Whether its prefetch limit lets it take more.
    pub has_room: bool,
    pub arguments: FieldTable,
}
