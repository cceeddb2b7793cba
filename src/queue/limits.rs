//! When a message expires and when a queue is too long, read from the queue's options.

use super::backlog::NEVER;
use super::ready::Ready;
use crate::model::entity::QueueOptions;
use crate::model::ids::Timestamp;

/// Which expired messages leave the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpiryRule {
    /// All, wherever they are.
    Anywhere,
    /// The head, and what becomes the head then.
    HeadOnly,
}

impl ExpiryRule {
    pub(super) fn of(options: &QueueOptions) -> Self {
        if options.expire_at_head_only { Self::HeadOnly } else { Self::Anywhere }
    }
}

/// The highest priority of the queue's messages. A declared maximum of 0 makes two levels, as in RabbitMQ.
pub(super) fn priority_max(options: &QueueOptions) -> u8 {
    options.max_priority.map_or(0, |max| max.max(1))
}

/// The expiry of a message that arrives now: by the queue's TTL or its own, whichever is shorter.
pub(super) fn expiry(options: &QueueOptions, now: Timestamp, expiration_ms: Option<u64>) -> Timestamp {
    let ttl_ms = match (options.message_ttl_ms, expiration_ms) {
        (Some(queue), Some(message)) => queue.min(message),
        (queue, message) => match queue.or(message) {
            Some(ttl_ms) => ttl_ms,
            None => return NEVER,
        },
    };
    now.plus(ttl_ms)
}

/// Whether the ready messages are too many or too big.
pub(super) fn is_over(options: &QueueOptions, ready: &Ready) -> bool {
    exceeds(options, ready.len(), ready.bytes())
}

/// Whether the ready messages would be too many or too big with another one of `body_length` bytes.
pub(super) fn would_be_over(options: &QueueOptions, ready: &Ready, body_length: usize) -> bool {
    exceeds(options, ready.len() + 1, ready.bytes() + body_length as u64)
}

fn exceeds(options: &QueueOptions, length: u64, bytes: u64) -> bool {
    options.max_length.is_some_and(|max| length > max) || options.max_length_bytes.is_some_and(|max| bytes > max)
}
