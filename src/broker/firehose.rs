//! The firehose: copies of what is published and delivered in a vhost whose tracing is on, for `amq.rabbitmq.trace`.
//!
//! Copies are transient as far as the queues they reach let them be, nobody waits for them, and they are not traced.

use crate::model::message::{Envelope as Address, Message, Properties};
use crate::model::names::{UserName, VhostName};
use crate::model::statistics::ConnectionRecord;
use crate::model::table::{FieldTable, FieldValue};
use crate::queue::{Publish, PublishOrigin};
use crate::routing::{Facts, Targets};

use super::envelope::{ByShard, by_shard};
use super::topology::VhostTopology;

/// The exchange that copies are published to.
pub(super) const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";
/// Bytes of a routing key; longer ones are cut.
const KEY_MAX: usize = 255;

/// Where a message passed.
#[derive(Clone, Copy)]
pub(super) struct TracePlace<'a> {
    pub(super) node: &'a str,
    pub(super) vhost: &'a VhostName,
    pub(super) connection: &'a ConnectionRecord,
    pub(super) channel: u16,
}

/// Whether copies are made of it.
pub(super) fn is_traced(message: &Message) -> bool {
    message.exchange() != TRACE_EXCHANGE.as_bytes()
}

/// The copy of a message that was published with these keys besides its own, and went to these queues.
pub(super) fn published(
    message: &Message,
    more_keys: &[Vec<u8>],
    queues: Vec<FieldValue>,
    place: TracePlace<'_>,
) -> Publish {
    let mut headers = described(message, more_keys, place);
    headers.push("routed_queues", FieldValue::Array(queues));
    copy(message, &[b"publish.", message.exchange()].concat(), &headers)
}

/// The copy of a message that a queue hands out.
pub(super) fn delivered(message: &Message, queue: &str, redelivered: bool, place: TracePlace<'_>) -> Publish {
    let mut headers = described(message, &[], place);
    headers.push("redelivered", FieldValue::I32(redelivered.into()));
    copy(message, &[b"deliver.", queue.as_bytes()].concat(), &headers)
}

/// The queues a copy goes to.
pub(super) fn targets(vhost: &VhostTopology, copy: &Message, random: u64) -> ByShard {
    let mut targets = Targets::default();
    let properties = copy.properties();
    let facts = Facts::new(&properties, random);
    match vhost.routing.route(copy.exchange(), &[copy.routing_key()], &facts, &mut targets) {
        Ok(_) => by_shard(targets.queues()),
        Err(_) => ByShard::new(),
    }
}

fn copy(message: &Message, key: &[u8], headers: &FieldTable) -> Publish {
    let mut table = Vec::new();
    headers.encode(&mut table);
    let properties = Properties { headers: table.get(4..), ..Properties::default() };
    let mut encoded = Vec::new();
    properties.encode(&mut encoded);
    let properties = Properties { raw: &encoded, ..properties };
    let address = Address { exchange: TRACE_EXCHANGE.as_bytes(), routing_key: key.get(..KEY_MAX).unwrap_or(key) };
    let message = message.rewritten(&mut Vec::new(), address, &properties);
    Publish { message, expiration_ms: None, origin: PublishOrigin::Untracked, deaths: None }
}

fn described(message: &Message, more_keys: &[Vec<u8>], place: TracePlace<'_>) -> FieldTable {
    let keys = std::iter::once(message.routing_key()).chain(more_keys.iter().map(Vec::as_slice));
    let facts = place.connection.facts.lock();
    let user = facts.user.as_ref().map_or("", UserName::as_str);
    let mut headers = FieldTable::default();
    headers.push("exchange_name", text(message.exchange()));
    headers.push("routing_keys", FieldValue::Array(keys.map(text).collect()));
    headers.push("properties", FieldValue::Table(properties_of(message)));
    headers.push("node", FieldValue::string(place.node));
    headers.push("vhost", FieldValue::string(place.vhost.as_str()));
    headers.push("connection", FieldValue::string(&facts.name));
    headers.push("channel", FieldValue::I32(place.channel.into()));
    headers.push("user", FieldValue::string(user));
    headers
}

/// The properties that are set.
fn properties_of(message: &Message) -> FieldTable {
    let properties = message.properties();
    let mut table = FieldTable::default();
    let mut push = |name, value: Option<FieldValue>| {
        if let Some(value) = value {
            table.push(name, value);
        }
    };
    push("content_type", properties.content_type.map(text));
    push("content_encoding", properties.content_encoding.map(text));
    // They were decoded when the message came, as far as anybody had to look at them.
    push("headers", properties.headers.and_then(|raw| FieldTable::decode(raw).ok()).map(FieldValue::Table));
    push("delivery_mode", properties.delivery_mode.map(|mode| FieldValue::I32(mode.into())));
    push("priority", properties.priority.map(|priority| FieldValue::I32(priority.into())));
    push("correlation_id", properties.correlation_id.map(text));
    push("reply_to", properties.reply_to.map(text));
    push("expiration", properties.expiration.map(text));
    push("message_id", properties.message_id.map(text));
    push("timestamp", properties.timestamp.map(seconds));
    push("type", properties.kind.map(text));
    push("user_id", properties.user_id.map(text));
    push("app_id", properties.app_id.map(text));
    push("cluster_id", properties.cluster_id.map(text));
    table
}

/// A number of seconds in as few bytes as RabbitMQ has for it, or more if it needs them.
fn seconds(timestamp: u64) -> FieldValue {
    i32::try_from(timestamp)
        .map_or_else(|_| FieldValue::I64(i64::try_from(timestamp).unwrap_or(i64::MAX)), FieldValue::I32)
}

fn text(bytes: &[u8]) -> FieldValue {
    FieldValue::LongString(bytes.to_vec().into())
}
