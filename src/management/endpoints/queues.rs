//! Queues: lists, one queue, and what can be done to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::broker::VhostTopology;
use crate::model::entity::{Queue, QueueType};
use crate::model::message::{Body, Message};
use crate::model::names::{QueueName, VhostName};
use crate::model::request::{Ask, DeclareQueue, SettleOutcome};
use crate::model::statistics::QueueNumber;

use super::super::answer::{Answer, Failure};
use super::super::call::{Call, boolean, map_of};
use super::super::fields::{json_to_table, properties_to_json, table_to_json};
use super::super::history::Subject;
use super::super::listing::{self, Listing};
use super::super::operation::Got;
use super::super::rates::{QUEUE, Rates, queue_row};
use super::channels;
use super::exchanges::{begin, check_name};

/// How much is told of each queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// What lists have.
    Listed,
    /// What one queue, and the detailed list, have besides.
    Full,
}

/// Messages that one request may take, however many it asks for, so that its answer fits into memory.
const GET_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A queue that did nothing for so long is idle.
const IDLE_MS: u64 = 10_000;

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let vhosts = call.own_vhosts();
    answer(&call, &vhosts, Detail::Listed)
}

pub(crate) async fn list_detailed(call: Call) -> Result<Answer, Failure> {
    let vhosts = call.own_vhosts();
    answer(&call, &vhosts, Detail::Full)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    answer(&call, &[(&name, vhost)], Detail::Listed)
}

fn answer(call: &Call, vhosts: &[(&VhostName, &Arc<VhostTopology>)], detail: Detail) -> Result<Answer, Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let mut items: Vec<&Queue> = Vec::new();
    for (_, vhost) in vhosts {
        let first = items.len();
        items.extend(vhost.queues.values().map(Arc::as_ref));
        items[first..].sort_by(|a, b| a.name.cmp(&b.name));
    }
    let listing = Listing { items, name: |queue| queue.name.as_str() };
    listing.answer(&call.query, |queue| Value::Object(render(call, &rates, queue, detail)))
}

fn render(call: &Call, rates: &Rates<'_>, queue: &Queue, detail: Detail) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
    let mut arguments = table_to_json(&queue.arguments);
    if let Value::Object(arguments) = &mut arguments {
        // As if it had been asked for by name, which is how RabbitMQ stores it.
        arguments.entry("x-queue-type").or_insert_with(|| queue.queue_type().name().into());
    }
    put("arguments", arguments);
    put("auto_delete", queue.auto_delete.into());
    put("durable", queue.durable.into());
    put("exclusive", queue.exclusive.is_some().into());
    put("internal", false.into());
    put("internal_owner", false.into());
    put("name", queue.name.as_str().into());
    put("node", call.management.settings.node_name.as_str().into());
    put("state", "running".into());
    put("type", queue.queue_type().name().into());
    put("vhost", queue.vhost.as_str().into());
    if let Some(owner) = queue.exclusive.filter(|_| detail == Detail::Full)
        && let Some(connection) = call.management.broker.registry.get(owner)
    {
        let facts = connection.record.facts.lock();
        put(
            "owner_pid_details",
            json!({"name": &*facts.name, "peer_host": facts.peer_host, "peer_port": facts.peer_port}),
        );
    }
    let without_stats = call.query.is_true("disable_stats");
    let with_totals = without_stats && call.query.is_true("enable_queue_totals");
    if !without_stats {
        put_stats(&mut map, rates, queue);
    } else if with_totals {
        let [messages, ready, unacked, ..] = queue_row(&queue.statistics.numbers);
        map.insert("messages".into(), messages.into());
        map.insert("messages_ready".into(), ready.into());
        map.insert("messages_unacknowledged".into(), unacked.into());
    }
    // Lists with everything or with totals leave out the policies that are not there.
    let shows_none = detail == Detail::Full || (without_stats && !with_totals);
    put_policies(&mut map, queue, shows_none.then_some(Value::Null));
    if detail == Detail::Full && !without_stats {
        put_details(&mut map, queue, call.management.now().0);
    }
    map
}

/// What policies say; `none` stands for one that is not there.
fn put_policies(map: &mut Map<String, Value>, queue: &Queue, none: Option<Value>) {
    let applied = queue.policy.as_deref();
    let policy = applied.and_then(|applied| applied.policy.clone());
    let operator = applied.and_then(|applied| applied.operator_policy.clone());
    for (key, name) in [("policy", policy), ("operator_policy", operator)] {
        if let Some(shown) = name.map(Value::from).or_else(|| none.clone()) {
            map.insert(key.to_owned(), shown);
        }
    }
    let definition = applied.map(|applied| applied.definition.clone()).unwrap_or_default();
    map.insert("effective_policy_definition".into(), Value::Object(definition));
}

fn put_stats(map: &mut Map<String, Value>, rates: &Rates<'_>, queue: &Queue) {
    use QueueNumber as Number;
    let numbers = &queue.statistics.numbers;
    let get = |number| numbers.get(number);
    let subject = Subject::Queue { vhost: queue.vhost.as_str(), name: queue.name.as_str() };
    let row = queue_row(numbers);
    rates.put(map, subject, QUEUE, &row, &["messages", "messages_ready", "messages_unacknowledged"]);
    let stats = rates.message_stats(subject, QUEUE, &row);
    if !stats.is_empty() {
        map.insert("message_stats".into(), Value::Object(stats));
    }
    let (ready, unacked, cold) = (get(Number::Ready), get(Number::Unacked), get(Number::Cold));
    let (ready_bytes, unacked_bytes) = (get(Number::ReadyBytes), get(Number::UnackedBytes));
    let bytes = ready_bytes + unacked_bytes;
    let persistent = get(Number::Persistent).min(ready + unacked);
    // Bytes are not told apart by persistence: a queue's messages are mostly alike.
    let persistent_bytes = bytes.saturating_mul(persistent).checked_div(ready + unacked).unwrap_or_default();
    let capacity = consumer_capacity(numbers.get(Number::ConsumedMs), numbers.get(Number::ConsumersReadyMs));
    let mut put = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
    put("consumers", get(Number::Consumers).into());
    put("consumer_capacity", capacity.into());
    put("consumer_utilisation", capacity.into());
    put("memory", get(Number::Memory).into());
    put("message_bytes", bytes.into());
    put("message_bytes_persistent", persistent_bytes.into());
    put("message_bytes_ram", (bytes - get(Number::ColdBytes).min(bytes)).into());
    put("message_bytes_ready", ready_bytes.into());
    put("message_bytes_unacknowledged", unacked_bytes.into());
    put("messages_persistent", persistent.into());
    put("messages_ram", (ready - cold.min(ready) + unacked).into());
    put("messages_ready_ram", (ready - cold.min(ready)).into());
    put("messages_unacknowledged_ram", unacked.into());
    put("reductions", 0.into());
    put("reductions_details", json!({"rate": 0.0}));
    put("storage_version", 2.into());
}

/// The share of time in which consumers could have taken more.
fn consumer_capacity(consumed_ms: u64, ready_ms: u64) -> f64 {
    if consumed_ms == 0 { 0.0 } else { ready_ms as f64 / consumed_ms as f64 }
}

fn put_details(map: &mut Map<String, Value>, queue: &Queue, now_ms: u64) {
    let numbers = &queue.statistics.numbers;
    let used = numbers.get(QueueNumber::Used);
    if used != 0 && now_ms.saturating_sub(used) >= IDLE_MS {
        map.insert("idle_since".into(), super::nodes::rfc3339(used).into());
    }
    let timestamp = numbers.get(QueueNumber::HeadTimestamp);
    map.insert("head_message_timestamp".into(), if timestamp == 0 { Value::Null } else { timestamp.into() });
    map.insert("exclusive_consumer_tag".into(), Value::Null);
    map.insert("single_active_consumer_tag".into(), Value::Null);
    map.insert("garbage_collection".into(), super::nodes::garbage_collection());
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let queue = vhost.queues.get(call.name(1)).cloned().ok_or_else(Failure::not_found)?;
    let mut map = {
        let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
        render(&call, &rates, &queue, Detail::Full)
    };
    if !call.query.is_true("disable_stats") {
        let consumers = call.management.broker.consumers_of(&[queue.id]).await;
        let owners = channels::owners(&call);
        let exclusive = consumers.iter().find(|(_, view)| view.exclusive).map(|(_, view)| view.tag.clone());
        let active = consumers.iter().find(|(_, view)| view.active).map(|(_, view)| view.tag.clone());
        if let Some(tag) = exclusive {
            map.insert("exclusive_consumer_tag".into(), tag.as_str().into());
        }
        if let Some(tag) = active.filter(|_| queue.options.single_active_consumer) {
            map.insert("single_active_consumer_tag".into(), tag.as_str().into());
        }
        let queues = BTreeMap::from([(queue.id, channels::Served::of(&name, &queue))]);
        let details: Vec<Value> =
            consumers.iter().filter_map(|consumer| channels::consumer(&call, &owners, &queues, consumer)).collect();
        map.insert("consumer_details".into(), details.into());
        // Which channels took how much, and from which exchanges it came, is not counted.
        map.insert("deliveries".into(), json!([]));
        map.insert("incoming".into(), json!([]));
    }
    Ok(listing::one(Value::Object(map), &call.query))
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    let (vhost, queue) = (call.vhost_name(0), QueueName::new(call.name(1)));
    let Some(found) = call.topology.vhost(&vhost) else { return Err(Failure::missing("vhost_not_found")) };
    let existed = found.queues.contains_key(&queue);
    let object = call.object()?;
    let node = object.get("node").and_then(Value::as_str);
    if let Some(node) = node.filter(|node| *node != call.management.settings.node_name) {
        return Err(Failure::bad_request(format!("Node {node} is not a cluster member")));
    }
    let declare = read_declaration(&object, queue)?;
    let mut operation = begin(&call, &vhost)?;
    operation.ask(Ask::DeclareQueue(declare)).await.map_err(|exception| Failure::of_broker(&exception))?;
    Ok(Answer::put(existed))
}

/// Reads what a body says of a queue.
pub(crate) fn read_declaration(object: &Map<String, Value>, queue: QueueName) -> Result<DeclareQueue, Failure> {
    check_name("queue", queue.as_str())?;
    let flag = |key: &str, default: bool| object.get(key).map_or(Ok(default), boolean);
    Ok(DeclareQueue {
        queue,
        passive: false,
        durable: flag("durable", true)?,
        exclusive: false,
        auto_delete: flag("auto_delete", false)?,
        arguments: json_to_table(&map_of(object.get("arguments")))?,
    })
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let (if_unused, if_empty) = (call.query.is_true("if-unused"), call.query.is_true("if-empty"));
    let queue = existing(&call)?;
    let mut operation = begin(&call, &call.vhost_name(0))?;
    let outcome = operation.ask(Ask::DeleteQueue { queue, if_unused, if_empty }).await;
    outcome.map_err(|exception| Failure::of_broker(&exception))?;
    Ok(Answer::done())
}

pub(crate) async fn purge(call: Call) -> Result<Answer, Failure> {
    let queue = existing(&call)?;
    let mut operation = begin(&call, &call.vhost_name(0))?;
    operation.ask(Ask::PurgeQueue { queue }).await.map_err(|exception| Failure::of_broker(&exception))?;
    Ok(Answer::done())
}

fn existing(call: &Call) -> Result<QueueName, Failure> {
    let (_, vhost) = call.vhost(0)?;
    let queue = vhost.queues.get(call.name(1)).ok_or_else(Failure::not_found)?;
    Ok(queue.name.clone())
}

/// What RabbitMQ's queues could do before they were replicated by consensus.
pub(crate) async fn act(call: Call) -> Result<Answer, Failure> {
    existing(&call)?;
    let object = call.object_with(&["action"])?;
    let action = object.get("action").cloned().unwrap_or_default();
    Err(Failure::bad_request(Value::Array(vec!["unknown".into(), action])))
}

/// What a request wants to take, and what is to become of it.
struct Wanted {
    count: u64,
    outcome: SettleOutcome,
    encoding: Encoding,
    truncate: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Auto,
    Base64,
}

impl Wanted {
    fn read(object: &Map<String, Value>) -> Result<Self, Failure> {
        let number = |key: &str| match object.get(key) {
            Some(Value::String(text)) => text.parse().ok(),
            other => other.and_then(Value::as_u64),
        };
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let count = number("count").ok_or_else(|| Failure::bad_request("count has to be a number"))?;
        let outcome = match text("ackmode") {
            "ack_requeue_true" | "reject_requeue_true" => SettleOutcome::Requeue,
            "ack_requeue_false" => SettleOutcome::Ack,
            "reject_requeue_false" => SettleOutcome::Reject,
            other => {
                return Err(Failure::bad_request(format!(
                    "Invalid ackmode value: {other}. Valid values are: ack_requeue_true, ack_requeue_false, \
                     reject_requeue_true, reject_requeue_false"
                )));
            }
        };
        let encoding = match text("encoding") {
            "auto" => Encoding::Auto,
            "base64" => Encoding::Base64,
            _ => return Err(Failure::bad_request("Unsupported encoding. Please use auto or base64.")),
        };
        let truncate = number("truncate").and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Self { count, outcome, encoding, truncate })
    }
}

pub(crate) async fn take(call: Call) -> Result<Answer, Failure> {
    let vhost = call.vhost_name(0);
    let found = call.topology.vhost(&vhost).and_then(|vhost| vhost.queues.get(call.name(1)));
    let queue = found.map(|queue| queue.name.clone()).ok_or_else(|| Failure::missing("queue_not_found"))?;
    let wanted = Wanted::read(&call.object_with(&["ackmode", "count", "encoding"])?)?;
    let refused = |exception: crate::model::exception::Exception| match exception.code {
        crate::model::exception::ReplyCode::AccessRefused => Failure::not_authorised(exception.reply_text()),
        crate::model::exception::ReplyCode::NotFound => Failure::missing("queue_not_found"),
        _ => Failure::bad_request(super::exchanges::with_code(&exception)),
    };
    let mut operation = begin(&call, &vhost)?;
    let mut taken = Vec::new();
    let mut bytes = 0;
    while (taken.len() as u64) < wanted.count && bytes < GET_BYTES_MAX {
        let Some(got) = operation.get(&queue).await.map_err(refused)? else { break };
        bytes += got.message.cost();
        taken.push(got);
    }
    let shown = taken.iter().map(|got| render_message(got, &wanted)).collect();
    if !taken.is_empty() {
        operation.settle(taken, wanted.outcome).await.map_err(refused)?;
    }
    Ok(Answer::json(Value::Array(shown)))
}

fn render_message(got: &Got, wanted: &Wanted) -> Value {
    let message = &got.message;
    let mut body = body_of(message);
    let length = body.len();
    body.truncate(wanted.truncate.unwrap_or(length));
    let (payload, encoding) = match String::from_utf8(body) {
        Ok(text) if wanted.encoding == Encoding::Auto => (text, "string"),
        Ok(text) => (STANDARD.encode(text), "base64"),
        Err(error) => (STANDARD.encode(error.as_bytes()), "base64"),
    };
    json!({
        "payload_bytes": length,
        "redelivered": got.redelivered,
        "exchange": String::from_utf8_lossy(message.exchange()),
        "routing_key": String::from_utf8_lossy(message.routing_key()),
        "message_count": got.left,
        "properties": properties_to_json(message),
        "payload": payload,
        "payload_encoding": encoding,
    })
}

fn body_of(message: &Message) -> Vec<u8> {
    match message.body() {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::Slices(slices) => slices.iter().flat_map(|slice| slice.iter().copied()).collect(),
    }
}

/// Only quorum queues have members.
pub(crate) async fn quorum_status(call: Call) -> Result<Answer, Failure> {
    let (_, vhost) = call.vhost(0)?;
    let queue = vhost.queues.get(call.name(1)).ok_or_else(Failure::not_found)?;
    let reason = format!("{}_queue_not_supported", queue.queue_type().name());
    Ok(Answer::unhealthy(json!({}), &reason))
}

/// Adds or removes a member of a quorum queue: of another type it cannot.
pub(crate) async fn change_members(call: Call) -> Result<Answer, Failure> {
    let (_, vhost) = call.vhost(0)?;
    let queue = vhost.queues.get(call.name(1)).ok_or_else(Failure::not_found)?;
    call.object_with(&["node"])?;
    match queue.queue_type() {
        QueueType::Quorum => Err(Failure::bad_request("Node is not a cluster member")),
        other @ (QueueType::Classic | QueueType::Stream) => {
            Err(Failure::bad_request(format!("{}_queue_not_supported", other.name())))
        }
    }
}

/// Adds or removes members on a node; there is one node, and every queue has all of its one member there.
pub(crate) async fn change_members_on_node(call: Call) -> Result<Answer, Failure> {
    if call.name(0) != call.management.settings.node_name {
        return Err(Failure::not_found());
    }
    Ok(Answer::json(json!([])))
}

/// Leaders cannot move on a single node.
pub(crate) async fn rebalance(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::done())
}
