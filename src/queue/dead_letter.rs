//! What becomes of a message when it dies: its history of deaths, the headers that tell it, where it is sent, and when
//! not to send it again.
//!
//! The history travels beside the message through queue and dead-letter effect, never read from its headers: an
//! `x-death` header that a client publishes is not interpreted and is replaced at the first real death.

mod record;

use std::sync::Arc;

use bytes::Bytes;

use super::Reason;
use crate::model::entity::DeadLetterTarget;
use crate::model::ids::Timestamp;
use crate::model::message::{Envelope, Message, Properties};
use crate::model::names::{QueueName, RoutingKey};
use crate::model::narrow::narrow;
use crate::model::table::{FieldTable, FieldValue};

pub use record::RecordError;

/// The header that tells of all deaths.
const DEATHS: &str = "x-death";

/// All deaths of a message since a client published it, and what else must be known of its publication when it dies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeathHistory {
    /// Newest first; one per queue and reason. Shared with the histories before this: a chain of queues makes long ones.
    deaths: Vec<Arc<Death>>,
    first: Option<FirstDeath>,
    /// The keys of the BCC header, which is not in the message any more.
    blind_keys: Vec<RoutingKey>,
    /// A dead-letter routing key replaced the message's keys, so its CC header has lost its effect.
    keys_replaced: bool,
}

/// Bytes of memory that a death takes besides what it points to, and that each of its keys takes besides its bytes.
const DEATH_MEMORY: usize = size_of::<Death>() + 64;
const KEY_MEMORY: usize = size_of::<RoutingKey>() + 32;

/// What the headers say of the first death for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FirstDeath {
    queue: QueueName,
    reason: Reason,
    exchange: Bytes,
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
    /// All this as a value in the headers.
    encoded: Box<[u8]>,
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
    let published = properties.headers.map(|headers| FieldTable::decode_without(headers, DEATHS));
    let headers = published.and_then(Result::ok).unwrap_or_default();
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
        encoded: Box::default(),
    };
    let mut history = DeathHistory::with(deaths, death);
    history.keys_replaced |= target.routing_key.is_some();
    let target_keys = match &target.routing_key {
        Some(key) => vec![key.clone()],
        None if keys_replaced => current_keys,
        None => current_keys.into_iter().chain(history.blind_keys.iter().cloned()).collect(),
    };

    let mut encoded_headers = Vec::new();
    history.encode_headers(&exchange, headers, &mut encoded_headers);
    let mut encoded = Vec::new();
    let rewritten = Properties { headers: Some(&encoded_headers), expiration: None, ..properties };
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
    /// The history of a message that has not died, and was published with these keys in its BCC header.
    #[must_use]
    pub fn published_blindly(blind_keys: Vec<RoutingKey>) -> Self {
        Self { blind_keys, ..Self::default() }
    }

    /// Bytes of memory that it takes, whatever others share of it.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let keys = |keys: &[RoutingKey]| keys.iter().map(|key| KEY_MEMORY + key.as_bytes().len()).sum::<usize>();
        let of_death = |death: &Arc<Death>| {
            let expiration = death.original_expiration.as_ref().map_or(0, Bytes::len);
            DEATH_MEMORY + death.exchange.len() + expiration + keys(&death.routing_keys) + death.encoded.len()
        };
        let deaths: usize = self.deaths.iter().map(of_death).sum();
        (size_of::<Self>() + deaths + keys(&self.blind_keys)) as u64
    }

    /// The history with one more death, which is counted under the entry of its queue and reason if there is one.
    fn with(before: Option<&Self>, death: Death) -> Self {
        let mut history = before.cloned().unwrap_or_default();
        history.first.get_or_insert_with(|| FirstDeath {
            queue: death.queue.clone(),
            reason: death.reason,
            exchange: death.exchange.clone(),
        });
        let known = |other: &Arc<Death>| other.queue == death.queue && other.reason == death.reason;
        match history.deaths.iter().position(known) {
            Some(at) => {
                history.deaths[..=at].rotate_right(1);
                let again = Arc::make_mut(&mut history.deaths[0]);
                again.count += 1;
                again.encode_value();
            }
            None => history.deaths.insert(0, Arc::new(death.encoded())),
        }
        history
    }

    /// Appends the content of the message's header table with those headers that tell of its deaths, sorted by key, the
    /// first of equal keys kept; none of `published` tells of all deaths.
    fn encode_headers(&self, last_exchange: &Bytes, published: FieldTable, out: &mut Vec<u8>) {
        let text = |text: &str| FieldValue::string(text);
        let mut headers = FieldTable::default();
        if let Some(first) = &self.first {
            headers.push("x-first-death-exchange", FieldValue::LongString(first.exchange.clone()));
            headers.push("x-first-death-queue", text(first.queue.as_str()));
            headers.push("x-first-death-reason", text(first.reason.name()));
        }
        if let Some(last) = self.deaths.first() {
            headers.push("x-last-death-exchange", FieldValue::LongString(last_exchange.clone()));
            headers.push("x-last-death-queue", text(last.queue.as_str()));
            headers.push("x-last-death-reason", text(last.reason.name()));
        }
        headers.0.extend(published.0);
        headers.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        headers.0.dedup_by(|(later, _), (earlier, _)| later == earlier);
        let behind = headers.0.partition_point(|(key, _)| **key < *DEATHS);
        let length: usize = self.deaths.iter().map(|death| death.encoded.len()).sum();
        out.reserve(length + 256);
        headers.0[..behind].iter().for_each(|(key, value)| put_pair(key, value, out));
        put_key(DEATHS, out);
        out.push(b'A');
        out.extend_from_slice(&narrow::<_, u32>(length, "a history of deaths is a header, below 4 GiB").to_be_bytes());
        self.deaths.iter().for_each(|death| out.extend_from_slice(&death.encoded));
        headers.0[behind..].iter().for_each(|(key, value)| put_pair(key, value, out));
    }
}

impl Death {
    /// With its value in the headers.
    fn encoded(mut self) -> Self {
        self.encode_value();
        self
    }

    fn encode_value(&mut self) {
        let mut encoded = Vec::new();
        FieldValue::Table(self.table()).encode(&mut encoded);
        self.encoded = encoded.into();
    }

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

fn put_pair(key: &str, value: &FieldValue, out: &mut Vec<u8>) {
    put_key(key, out);
    value.encode(out);
}

fn put_key(key: &str, out: &mut Vec<u8>) {
    out.push(narrow(key.len(), "the name of a header is a short string"));
    out.extend_from_slice(key.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Body;

    /// A message with a body, delivery mode, priority, and these headers.
    fn message(exchange: &str, key: &str, expiration: Option<&str>, headers: &FieldTable) -> Message {
        let mut table = Vec::new();
        headers.encode(&mut table);
        let properties = Properties {
            headers: (!headers.is_empty()).then(|| &table[4..]),
            delivery_mode: Some(2),
            priority: Some(7),
            user_id: Some(b"guest"),
            expiration: expiration.map(str::as_bytes),
            ..Properties::default()
        };
        let mut raw = Vec::new();
        properties.encode(&mut raw);
        let envelope = Envelope { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
        Message::new(&mut Vec::new(), envelope, &Properties { raw: &raw, ..properties }, b"body")
    }

    fn target(exchange: &str, key: Option<&str>) -> DeadLetterTarget {
        DeadLetterTarget { exchange: exchange.into(), routing_key: key.map(|key| RoutingKey::new(key.as_bytes())) }
    }

    fn die(letter: &DeadLetter, reason: Reason, source: &str, target: &DeadLetterTarget, seconds: u64) -> DeadLetter {
        let now = Timestamp(seconds * 1000 + 999);
        rewrite(&mut Vec::new(), &letter.message, Some(&letter.deaths), reason, &source.into(), target, now)
    }

    fn die_first(message: &Message, reason: Reason, source: &str, target: &DeadLetterTarget) -> DeadLetter {
        rewrite(&mut Vec::new(), message, None, reason, &source.into(), target, Timestamp(5_999))
    }

    /// The headers as lines of text.
    fn headers(letter: &DeadLetter) -> Vec<String> {
        let table = letter.message.properties().header_table().unwrap();
        table.0.iter().map(|(key, value)| format!("{key}: {}", show(value))).collect()
    }

    fn show(value: &FieldValue) -> String {
        match value {
            FieldValue::LongString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            FieldValue::Array(values) => format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(", ")),
            FieldValue::Table(table) => {
                let pairs: Vec<String> = table.0.iter().map(|(key, value)| format!("{key}={}", show(value))).collect();
                format!("{{{}}}", pairs.join(" "))
            }
            other => format!("{other:?}"),
        }
    }

    fn keys(letter: &DeadLetter) -> Vec<String> {
        letter.routing_keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_first_death_is_told_in_sorted_headers() {
        let mut published = FieldTable::default();
        published.push("zebra", FieldValue::I32(1));
        published.push("x-death", FieldValue::string("forged"));
        published.push("apple", FieldValue::Bool(true));
        published.push("x-first-death-queue", FieldValue::string("forged"));
        published.push("apple", FieldValue::Bool(false));
        let letter = die_first(
            &message("amq.direct", "key", Some("0100"), &published),
            Reason::Expired,
            "q",
            &target("dlx", None),
        );
        assert_eq!(
            headers(&letter),
            [
                "apple: Bool(true)",
                "x-death: [{original-expiration=100 count=I64(1) reason=expired queue=q time=Timestamp(5) \
                 exchange=amq.direct routing-keys=[key]}]",
                "x-first-death-exchange: amq.direct",
                "x-first-death-queue: q",
                "x-first-death-reason: expired",
                "x-last-death-exchange: amq.direct",
                "x-last-death-queue: q",
                "x-last-death-reason: expired",
                "zebra: I32(1)",
            ]
        );
        let message = &letter.message;
        assert_eq!((message.exchange(), message.routing_key()), (&b"dlx"[..], &b"key"[..]));
        assert!(matches!(message.body(), Body::Inline(b"body")));
        assert!(message.is_persistent());
        let properties = message.properties();
        assert_eq!((properties.expiration, properties.priority), (None, Some(7)));
        assert_eq!(properties.user_id, Some(&b"guest"[..]));
    }

    #[test]
    fn deaths_are_counted_by_queue_and_reason_newest_first() {
        let first = die_first(
            &message("", "q1", Some("10"), &FieldTable::default()),
            Reason::Expired,
            "q1",
            &target("", Some("q2")),
        );
        let second = die(&first, Reason::Rejected, "q2", &target("back", Some("q1")), 6);
        let third = die(&second, Reason::Expired, "q1", &target("", Some("q2")), 7);
        let expected = "{original-expiration=10 count=I64(2) reason=expired queue=q1 time=Timestamp(5) exchange= \
                        routing-keys=[q1]}, {count=I64(1) reason=rejected queue=q2 time=Timestamp(6) exchange= \
                        routing-keys=[q2]}";
        assert_eq!(
            headers(&third),
            [
                format!("x-death: [{expected}]").as_str(),
                "x-first-death-exchange: ",
                "x-first-death-queue: q1",
                "x-first-death-reason: expired",
                "x-last-death-exchange: back",
                "x-last-death-queue: q1",
                "x-last-death-reason: expired",
            ]
        );
        let fourth = die(&third, Reason::MaxLength, "q1", &target("", Some("q2")), 8);
        let reasons: Vec<Reason> = fourth.deaths.deaths.iter().map(|death| death.reason).collect();
        assert_eq!(reasons, [Reason::MaxLength, Reason::Expired, Reason::Rejected]);
    }

    #[test]
    fn copies_are_routed_until_a_dead_letter_routing_key_replaces_them() {
        let mut published = FieldTable::default();
        let copies = vec![FieldValue::string("c1"), FieldValue::I32(3), FieldValue::string("c2")];
        published.push("CC", FieldValue::Array(copies));
        let first = die_first(&message("x", "key", None, &published), Reason::MaxLength, "q", &target("dlx", None));
        assert_eq!(keys(&first), ["key", "c1", "c2"]);
        let second = die(&first, Reason::Rejected, "q2", &target("dlx", Some("new")), 6);
        assert_eq!(keys(&second), ["new"]);
        assert_eq!(second.message.routing_key(), b"new");
        assert!(headers(&second)[1].contains("queue=q2 time=Timestamp(6) exchange=dlx routing-keys=[key, c1, c2]"));
        assert!(headers(&second)[0].starts_with("CC: "), "the header stays visible");
        let third = die(&second, Reason::Rejected, "q3", &target("dlx", None), 7);
        assert_eq!(keys(&third), ["new"]);
        assert!(headers(&third)[1].contains("queue=q3 time=Timestamp(7) exchange=dlx routing-keys=[new]"));
    }

    #[test]
    fn only_circles_without_a_rejection_are_cycles() {
        let message = message("", "q1", None, &FieldTable::default());
        let to = |queue: &str| target("", Some(queue));
        let cycle = |letter: &DeadLetter, queue: &str, reason| is_cycle(&letter.deaths, &queue.into(), reason);
        let first = die_first(&message, Reason::Expired, "q1", &to("q2"));
        assert!(cycle(&first, "q1", Reason::Expired), "back to where it died");
        assert!(!cycle(&first, "q2", Reason::Expired));
        let second = die(&first, Reason::Expired, "q2", &to("q1"), 6);
        assert!(cycle(&second, "q1", Reason::Expired));
        assert!(!cycle(&second, "q3", Reason::Expired));
        let rejected = die(&first, Reason::Rejected, "q2", &to("q1"), 6);
        assert!(!cycle(&rejected, "q1", Reason::Rejected));
        let third = die(&rejected, Reason::MaxLength, "q3", &to("q1"), 7);
        assert!(!cycle(&third, "q1", Reason::MaxLength), "a client rejected it on the way");
        assert!(cycle(&third, "q3", Reason::MaxLength));
        let self_rejected = die_first(&message, Reason::Rejected, "q1", &to("q2"));
        let expired = die(&self_rejected, Reason::Expired, "q2", &to("q1"), 6);
        assert!(!cycle(&expired, "q1", Reason::Expired), "the entry of the queue itself counts");
    }

    #[test]
    fn a_long_history_is_shared_and_not_made_anew() {
        let published = message("", "q0", None, &FieldTable::default());
        let mut letter = die_first(&published, Reason::Expired, "q0", &target("", Some("q1")));
        for hop in 1..300 {
            let before = letter.clone();
            letter = die(&letter, Reason::Expired, &format!("q{hop}"), &target("", Some("next")), hop);
            let (old, new) = (&before.deaths.deaths, &letter.deaths.deaths);
            assert_eq!(new.len(), old.len() + 1);
            assert!(new[1..].iter().zip(old).all(|(new, old)| Arc::ptr_eq(new, old)), "hop {hop}");
        }
        let headers = letter.message.properties().header_table().unwrap();
        let Some(FieldValue::Array(deaths)) = headers.find("x-death") else { panic!("{headers:?}") };
        let queues: Vec<String> = deaths.iter().map(show).collect();
        assert_eq!(queues.len(), 300);
        assert!(queues[0].contains("queue=q299 ") && queues[299].contains("queue=q0 "), "{}", queues[0]);
    }
}
