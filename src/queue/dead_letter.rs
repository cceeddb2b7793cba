//! What becomes of a message when it dies: its history of deaths, the headers that tell it, where it is sent, and when
//! not to send it again.
//!
//! The history travels beside the message through queue and dead-letter effect, never read from its headers: an
//! `x-death` header that a client publishes is not interpreted and is replaced at the first real death.

use std::sync::Arc;

use bytes::Bytes;

use super::Reason;
use crate::model::entity::DeadLetterTarget;
use crate::model::ids::Timestamp;
use crate::model::message::{Envelope, Message, Properties};
use crate::model::names::{QueueName, RoutingKey};
use crate::model::table::{FieldTable, FieldValue};

/// All deaths of a message since a client published it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeathHistory {
    /// Newest first; one per queue and reason.
    deaths: Vec<Death>,
    first_queue: QueueName,
    first_reason: Reason,
    first_exchange: Bytes,
    /// A dead-letter routing key replaced the message's keys, so its CC header has lost its effect.
    keys_replaced: bool,
}

/// All deaths of a message in one queue for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Death {
    queue: QueueName,
    reason: Reason,
    count: i64,
    /// Of the first; seconds since the epoch.
    time_seconds: u64,
    /// The exchange it was published to before the first.
    exchange: Bytes,
    /// The keys it was published with before the first.
    routing_keys: Vec<RoutingKey>,
    /// The expiration property it had at the first.
    original_expiration: Option<Bytes>,
}

/// A message that died, ready to be published to the dead-letter exchange.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub message: Message,
    /// For the publishes to the target queues.
    pub deaths: Arc<DeathHistory>,
    /// What to route by; the first is the message's routing key.
    pub routing_keys: Vec<RoutingKey>,
}

/// Records the death of `message` in the queue `source` and rewrites the message for its dead-letter exchange: the new
/// envelope, no expiration, the headers that tell of its deaths, all headers sorted by key. `scratch` is a reused buffer.
#[must_use]
pub fn rewrite(
    scratch: &mut Vec<u8>,
    message: &Message,
    deaths: Option<&DeathHistory>,
    reason: Reason,
    source: &QueueName,
    target: &DeadLetterTarget,
    now: Timestamp,
) -> DeadLetter {
    let properties = message.properties();
    let headers = properties.header_table().unwrap_or_default();
    let keys_replaced = deaths.is_some_and(|history| history.keys_replaced);
    let current_keys = if keys_replaced {
        vec![RoutingKey::new(message.routing_key())]
    } else {
        routing_keys(message.routing_key(), &headers)
    };
    let exchange = Bytes::copy_from_slice(message.exchange());
    let death = Death {
        queue: source.clone(),
        reason,
        count: 1,
        time_seconds: now.0 / 1000,
        exchange: exchange.clone(),
        routing_keys: current_keys.clone(),
        original_expiration: properties.expiration.map(canonical_expiration),
    };
    let mut history = DeathHistory::with(deaths, death);
    history.keys_replaced |= target.routing_key.is_some();
    let target_keys = target.routing_key.clone().map_or(current_keys, |key| vec![key]);

    let mut encoded_headers = Vec::new();
    history.headers(&exchange, headers).encode(&mut encoded_headers);
    let mut encoded = Vec::new();
    // The table's own length is not part of `Properties::headers`.
    let rewritten = Properties { headers: encoded_headers.get(4..), expiration: None, ..properties };
    rewritten.encode(&mut encoded);
    let properties = Properties { raw: &encoded, ..rewritten };
    let routing_key = target_keys.first().map_or(&[][..], RoutingKey::as_bytes);
    let envelope = Envelope { exchange: target.exchange.as_str().as_bytes(), routing_key };
    DeadLetter {
        message: message.rewritten(scratch, envelope, &properties),
        deaths: Arc::new(history),
        routing_keys: target_keys,
    }
}

/// Whether a dead letter must not enter `queue`, because it went in a circle without any client's rejecting it.
/// `deaths` includes the death for `reason`, which is what `rewrite` returns.
#[must_use]
pub fn is_cycle(deaths: &DeathHistory, queue: &QueueName, reason: Reason) -> bool {
    if reason == Reason::Rejected {
        return false;
    }
    match deaths.deaths.iter().position(|death| death.queue == *queue) {
        Some(last) => deaths.deaths[..=last].iter().all(|death| death.reason != Reason::Rejected),
        None => false,
    }
}

impl DeathHistory {
    /// The history with one more death, which is counted under the entry of its queue and reason if there is one.
    fn with(before: Option<&Self>, death: Death) -> Self {
        let Some(before) = before else {
            return Self {
                first_queue: death.queue.clone(),
                first_reason: death.reason,
                first_exchange: death.exchange.clone(),
                keys_replaced: false,
                deaths: vec![death],
            };
        };
        let mut history = before.clone();
        let known = |other: &Death| other.queue == death.queue && other.reason == death.reason;
        match history.deaths.iter().position(known) {
            Some(at) => {
                history.deaths[..=at].rotate_right(1);
                history.deaths[0].count += 1;
            }
            None => history.deaths.insert(0, death),
        }
        history
    }

    /// The message's headers with those that tell of its deaths, sorted by key, the first of equal keys kept.
    fn headers(&self, last_exchange: &Bytes, published: FieldTable) -> FieldTable {
        let deaths = self.deaths.iter().map(|death| FieldValue::Table(death.table())).collect();
        let text = |text: &str| FieldValue::string(text);
        let mut headers = FieldTable::default();
        headers.push("x-death", FieldValue::Array(deaths));
        headers.push("x-first-death-exchange", FieldValue::LongString(self.first_exchange.clone()));
        headers.push("x-first-death-queue", text(self.first_queue.as_str()));
        headers.push("x-first-death-reason", text(self.first_reason.name()));
        if let Some(last) = self.deaths.first() {
            headers.push("x-last-death-exchange", FieldValue::LongString(last_exchange.clone()));
            headers.push("x-last-death-queue", text(last.queue.as_str()));
            headers.push("x-last-death-reason", text(last.reason.name()));
        }
        headers.0.extend(published.0);
        headers.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        headers.0.dedup_by(|(later, _), (earlier, _)| later == earlier);
        headers
    }
}

impl Death {
    /// The fields in RabbitMQ's order.
    fn table(&self) -> FieldTable {
        let keys = self.routing_keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let mut table = FieldTable::default();
        if let Some(expiration) = &self.original_expiration {
            table.push("original-expiration", FieldValue::LongString(expiration.clone()));
        }
        table.push("count", FieldValue::I64(self.count));
        table.push("reason", FieldValue::string(self.reason.name()));
        table.push("queue", FieldValue::string(self.queue.as_str()));
        table.push("time", FieldValue::Timestamp(self.time_seconds));
        table.push("exchange", FieldValue::LongString(self.exchange.clone()));
        table.push("routing-keys", FieldValue::Array(keys.map(FieldValue::LongString).collect()));
        table
    }
}

/// The keys a message was published with: its routing key and those of its CC header. BCC was removed at publish.
fn routing_keys(routing_key: &[u8], headers: &FieldTable) -> Vec<RoutingKey> {
    let mut keys = vec![RoutingKey::new(routing_key)];
    if let Some(FieldValue::Array(copies)) = headers.find("CC") {
        keys.extend(copies.iter().filter_map(|copy| match copy {
            FieldValue::LongString(key) => Some(RoutingKey::new(key)),
            _ => None,
        }));
    }
    keys
}

/// The number of an expiration property without leading zeros, as RabbitMQ shows it.
fn canonical_expiration(expiration: &[u8]) -> Bytes {
    let number = std::str::from_utf8(expiration).ok().and_then(|text| text.parse::<u64>().ok());
    number.map_or_else(|| Bytes::copy_from_slice(expiration), |number| Bytes::from(number.to_string()))
}
