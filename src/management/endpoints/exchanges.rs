//! Exchanges, and publishing to them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::broker::VhostTopology;
use crate::broker::policy::Target;
use crate::model::entity::Exchange;
use crate::model::exception::{Exception, ReplyCode};
use crate::model::message::{Envelope, Message, Properties};
use crate::model::names::{ExchangeName, VhostName};
use crate::model::request::{Ask, DeclareExchange};

use super::super::answer::{Answer, Failure};
use super::super::call::{Call, boolean, map_of};
use super::super::fields::{json_to_properties, json_to_table, table_to_json};
use super::super::history::Subject;
use super::super::listing::{self, Listing};
use super::super::operation::{Operation, Published};
use super::super::rates::{EXCHANGE, Rates, exchange_row};

/// How paths name the default exchange.
const DEFAULT: &str = "amq.default";

/// The exchange that a path names.
pub(crate) fn exchange_name(name: &str) -> ExchangeName {
    ExchangeName::new(if name == DEFAULT { "" } else { name })
}

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let vhosts = call.own_vhosts();
    answer(&call, &vhosts)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    answer(&call, &[(&name, vhost)])
}

fn answer(call: &Call, vhosts: &[(&VhostName, &std::sync::Arc<VhostTopology>)]) -> Result<Answer, Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let mut items = Vec::new();
    for (name, vhost) in vhosts {
        let first = items.len();
        items.extend(vhost.exchanges.values().map(|exchange| (*name, &***vhost, exchange)));
        items[first..].sort_by(|a, b| a.2.name.cmp(&b.2.name));
    }
    let listing = Listing { items, name: |(_, _, exchange)| exchange.name.as_str() };
    listing.answer(&call.query, |(name, vhost, exchange)| Value::Object(render(call, &rates, name, vhost, exchange)))
}

fn render(
    call: &Call,
    rates: &Rates<'_>,
    vhost_name: &VhostName,
    vhost: &VhostTopology,
    exchange: &Exchange,
) -> Map<String, Value> {
    let mut map = Map::new();
    let name = exchange.name.as_str();
    map.insert("arguments".into(), table_to_json(&exchange.arguments));
    map.insert("auto_delete".into(), exchange.auto_delete.into());
    map.insert("durable".into(), exchange.durable.into());
    map.insert("internal".into(), exchange.internal.into());
    if !call.query.is_true("disable_stats") {
        let row = vhost.exchange_statistics.get(name).map(|statistics| exchange_row(statistics)).unwrap_or_default();
        if row != [0, 0] {
            let mut stats = Map::new();
            let subject = Subject::Exchange { vhost: vhost_name.as_str(), name };
            rates.put(&mut stats, subject, EXCHANGE, &row, &["publish_in", "publish_out"]);
            map.insert("message_stats".into(), Value::Object(stats));
        }
    }
    map.insert("name".into(), name.into());
    if let Some(policy) = vhost.policies.applied(Target::Exchange, name).and_then(|applied| applied.policy.clone()) {
        map.insert("policy".into(), policy.into());
    }
    map.insert("type".into(), exchange.kind.name().into());
    map.insert("user_who_performed_action".into(), "rmq-internal".into());
    map.insert("vhost".into(), vhost_name.as_str().into());
    map
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let (name, vhost) = call.vhost(0)?;
    let exchange = vhost.exchanges.get(&exchange_name(call.name(1))).ok_or_else(Failure::not_found)?;
    let mut map = render(&call, &rates, &name, vhost, exchange);
    // Which channel published how much, and to which queues it went, is not counted.
    map.insert("incoming".into(), json!([]));
    map.insert("outgoing".into(), json!([]));
    Ok(listing::one(Value::Object(map), &call.query))
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    let (vhost, name) = (call.vhost_name(0), exchange_name(call.name(1)));
    let Some(found) = call.topology.vhost(&vhost) else { return Err(Failure::missing("vhost_not_found")) };
    let existed = found.exchanges.contains_key(&name);
    let declare = read_declaration(&call.object()?, name)?;
    let mut operation = begin(&call, &vhost)?;
    operation.ask(Ask::DeclareExchange(declare)).await.map_err(|exception| Failure::of_broker(&exception))?;
    Ok(Answer::put(existed))
}

/// Reads what a body says of an exchange; without a type it is a direct one.
pub(crate) fn read_declaration(
    object: &Map<String, Value>,
    exchange: ExchangeName,
) -> Result<DeclareExchange, Failure> {
    check_name("exchange", exchange.as_str())?;
    let flag = |key: &str, default: bool| object.get(key).map_or(Ok(default), boolean);
    Ok(DeclareExchange {
        exchange,
        kind: object.get("type").and_then(Value::as_str).unwrap_or("direct").to_owned(),
        passive: false,
        durable: flag("durable", true)?,
        auto_delete: flag("auto_delete", false)?,
        internal: flag("internal", false)?,
        arguments: json_to_table(&map_of(object.get("arguments")))?,
    })
}

/// 400 of a name that no short string can hold.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), Failure> {
    if name.len() <= 255 {
        return Ok(());
    }
    let text = format!("{kind} should be less than 255 bytes, actually was {}\n", name.len());
    Err(Failure::bad_request(text))
}

/// A session in a vhost for whoever calls.
pub(crate) fn begin(call: &Call, vhost: &VhostName) -> Result<Operation, Failure> {
    Operation::begin(&call.management.broker, &call.identity, vhost, call.management.now())
        .map_err(|_| Failure::missing("vhost_not_found"))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let (vhost, found) = call.vhost(0)?;
    let exchange = exchange_name(call.name(1));
    if !found.exchanges.contains_key(&exchange) {
        return Err(Failure::not_found());
    }
    let if_unused = call.query.is_true("if-unused");
    let mut operation = begin(&call, &vhost)?;
    let outcome = operation.ask(Ask::DeleteExchange { exchange, if_unused }).await;
    outcome.map_err(|exception| Failure::of_broker(&exception))?;
    Ok(Answer::done())
}

pub(crate) async fn publish(call: Call) -> Result<Answer, Failure> {
    let (vhost, exchange) = (call.vhost_name(0), exchange_name(call.name(1)));
    if call.topology.vhost(&vhost).is_none_or(|found| !found.exchanges.contains_key(&exchange)) {
        return Err(Failure::missing("exchange_not_found"));
    }
    let object = call.object_with(&["properties", "routing_key", "payload", "payload_encoding"])?;
    let text = |key: &str| {
        let value = object.get(key).and_then(Value::as_str);
        value.ok_or_else(|| Failure::bad_request(format!("{key} has to be a text")))
    };
    let (routing_key, payload) = (text("routing_key")?, text("payload")?);
    check_name("routing_key", routing_key)?;
    let pair = |reason: &str, value: &str| Failure::bad_request(Value::Array(vec![reason.into(), value.into()]));
    let body = match text("payload_encoding")? {
        "string" => payload.as_bytes().to_vec(),
        "base64" => STANDARD.decode(payload).map_err(|_| pair("not_base64", payload))?,
        other => return Err(pair("unsupported_encoding", other)),
    };
    let raw = json_to_properties(&map_of(object.get("properties")))?;
    let properties = Properties::parse(&raw).map_err(|error| Failure::bad_request(error.to_string()))?;
    let envelope = Envelope { exchange: exchange.as_str().as_bytes(), routing_key: routing_key.as_bytes() };
    let message = Message::new(&mut Vec::new(), envelope, &properties, &body);
    let mut operation = begin(&call, &vhost)?;
    match operation.publish(message).await {
        Ok(Published::Routed) => Ok(Answer::json(json!({"routed": true}))),
        Ok(Published::Unroutable) => Ok(Answer::json(json!({"routed": false}))),
        Ok(Published::Rejected) => Err(Failure::bad_request("rejected")),
        Err(exception) => Err(Failure::bad_request(with_code(&exception))),
    }
}

/// An exception as a channel's close has it.
pub(crate) fn with_code(exception: &Exception) -> String {
    match exception.code {
        ReplyCode::ConnectionForced => exception.text.clone(),
        code => format!("{} {}", code.code(), exception.reply_text()),
    }
}
