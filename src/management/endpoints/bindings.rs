//! Bindings, the implicit ones of the default exchange included.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::broker::VhostTopology;
use crate::model::entity::{Binding, Destination};
use crate::model::names::{ExchangeName, QueueName, RoutingKey, VhostName};
use crate::model::request::{Ask, BindingRequest};
use crate::model::table::FieldTable;

use super::super::answer::{Answer, Failure};
use super::super::call::{Call, decode, decode_form, map_of};
use super::super::fields::{json_to_table, table_to_json};
use super::super::listing;
use super::exchanges::{begin, check_name, exchange_name};

/// What `quote_plus` leaves as it is; a space becomes a plus sign.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b' ');
/// What a path's segment leaves as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'~');

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let vhosts = call.own_vhosts();
    let found = vhosts.into_iter().flat_map(|(name, vhost)| of(&call, name, vhost));
    listing::answer(found.collect(), &call.query)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    listing::answer(of(&call, &name, vhost), &call.query)
}

fn of(call: &Call, name: &VhostName, vhost: &VhostTopology) -> Vec<Value> {
    let mut queues: Vec<&QueueName> = vhost.queues.keys().collect();
    queues.sort();
    let implicit = queues.into_iter().map(implicit);
    let explicit = call.management.broker.bindings_from(name, None);
    implicit.map(Arc::new).chain(explicit).map(|binding| render(name, &binding)).collect()
}

/// The binding by which a queue is found under its name.
fn implicit(queue: &QueueName) -> Binding {
    Binding {
        source: ExchangeName::new(""),
        destination: Destination::Queue(queue.clone()),
        key: RoutingKey::new(queue.as_str().as_bytes()),
        arguments: FieldTable::default(),
    }
}

/// A binding as listings show it.
pub(crate) fn render(vhost: &VhostName, binding: &Binding) -> Value {
    let (kind, destination) = match &binding.destination {
        Destination::Queue(name) => ("queue", name.as_str()),
        Destination::Exchange(name) => ("exchange", name.as_str()),
    };
    json!({
        "source": binding.source.as_str(),
        "vhost": vhost.as_str(),
        "destination": destination,
        "destination_type": kind,
        "routing_key": String::from_utf8_lossy(binding.key.as_bytes()),
        "arguments": table_to_json(&binding.arguments),
        "properties_key": properties_key(binding),
    })
}

/// What tells the bindings between one source and one destination apart, as paths name it.
fn properties_key(binding: &Binding) -> String {
    let key = String::from_utf8_lossy(binding.key.as_bytes());
    let quoted = utf8_percent_encode(&key, QUOTED).to_string().replace(' ', "+");
    if binding.arguments.is_empty() {
        return if quoted.is_empty() { "~".to_owned() } else { quoted };
    }
    let mut encoded = Vec::new();
    binding.arguments.encode(&mut encoded);
    format!("{quoted}~{}", URL_SAFE_NO_PAD.encode(crc32c::crc32c(&encoded).to_be_bytes()))
}

pub(crate) async fn of_queue(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let queue = QueueName::new(call.name(1));
    if !vhost.queues.contains_key(&queue) {
        return Err(Failure::not_found());
    }
    let explicit = call.management.broker.bindings_to(&name, &Destination::Queue(queue.clone()));
    let all = std::iter::once(Arc::new(implicit(&queue))).chain(explicit);
    listing::answer(all.map(|binding| render(&name, &binding)).collect(), &call.query)
}

pub(crate) async fn from_exchange(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let exchange = exchange_name(call.name(1));
    if !vhost.exchanges.contains_key(&exchange) {
        return Err(Failure::not_found());
    }
    if exchange.as_str().is_empty() {
        let mut queues: Vec<&QueueName> = vhost.queues.keys().collect();
        queues.sort();
        return listing::answer(queues.into_iter().map(|queue| render(&name, &implicit(queue))).collect(), &call.query);
    }
    let bindings = call.management.broker.bindings_from(&name, Some(&exchange));
    listing::answer(bindings.iter().map(|binding| render(&name, binding)).collect(), &call.query)
}

pub(crate) async fn to_exchange(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let exchange = exchange_name(call.name(1));
    if !vhost.exchanges.contains_key(&exchange) {
        return Err(Failure::not_found());
    }
    let bindings = call.management.broker.bindings_to(&name, &Destination::Exchange(exchange));
    listing::answer(bindings.iter().map(|binding| render(&name, binding)).collect(), &call.query)
}

/// The ends that a path names: source, kind, destination.
struct Pair {
    vhost: VhostName,
    source: ExchangeName,
    destination: Destination,
}

fn pair(call: &Call) -> Result<Pair, Failure> {
    let destination = match call.name(2) {
        "q" => Destination::Queue(QueueName::new(call.name(3))),
        "e" => Destination::Exchange(exchange_name(call.name(3))),
        _ => return Err(Failure::not_found()),
    };
    Ok(Pair { vhost: call.vhost(0)?.0, source: exchange_name(call.name(1)), destination })
}

fn between(call: &Call, pair: &Pair) -> Vec<Arc<Binding>> {
    if pair.source.as_str().is_empty() {
        let Destination::Queue(queue) = &pair.destination else { return Vec::new() };
        let exists = call.topology.vhost(&pair.vhost).is_some_and(|vhost| vhost.queues.contains_key(queue));
        return exists.then(|| Arc::new(implicit(queue))).into_iter().collect();
    }
    let bindings = call.management.broker.bindings_to(&pair.vhost, &pair.destination);
    bindings.into_iter().filter(|binding| binding.source == pair.source).collect()
}

pub(crate) async fn list_between(call: Call) -> Result<Answer, Failure> {
    let pair = pair(&call)?;
    let found = between(&call, &pair);
    listing::answer(found.iter().map(|binding| render(&pair.vhost, binding)).collect(), &call.query)
}

/// The binding that the last part of the path names: its properties key, which is encoded as it is, put there so or
/// encoded once more.
fn find(call: &Call, pair: &Pair) -> Result<Arc<Binding>, Failure> {
    let wanted = call.name(4);
    let all = between(call, pair);
    let is_wanted = |reading: fn(&str) -> String| {
        all.iter().find(move |binding| reading(&properties_key(binding)) == wanted).cloned()
    };
    is_wanted(str::to_owned)
        .or_else(|| is_wanted(decode))
        .or_else(|| is_wanted(decode_form))
        .ok_or_else(Failure::not_found)
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let pair = pair(&call)?;
    let binding = find(&call, &pair)?;
    Ok(listing::one(render(&pair.vhost, &binding), &call.query))
}

pub(crate) async fn post(call: Call) -> Result<Answer, Failure> {
    let pair = pair(&call)?;
    let object = call.object()?;
    let key = object.get("routing_key").and_then(Value::as_str).unwrap_or_default();
    check_name("routing_key", key)?;
    let request = BindingRequest {
        source: pair.source.clone(),
        destination: pair.destination.clone(),
        key: RoutingKey::new(key.as_bytes()),
        arguments: json_to_table(&map_of(object.get("arguments")))?,
    };
    let mut operation = begin(&call, &pair.vhost)?;
    let outcome = operation.ask(Ask::Bind(request.clone())).await;
    outcome.map_err(|exception| Failure::of_broker(&exception))?;
    let mut arguments = request.arguments;
    arguments.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    let binding = Binding { source: request.source, destination: request.destination, key: request.key, arguments };
    // It is encoded already, and once more here, as RabbitMQ does: clients take what they decode for the properties key.
    let properties_key = properties_key(&binding);
    let key = utf8_percent_encode(&properties_key, SEGMENT);
    let destination = utf8_percent_encode(call.name(3), SEGMENT);
    Ok(Answer::status(StatusCode::CREATED).header(LOCATION, &format!("{destination}/{key}")))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let pair = pair(&call)?;
    let binding = find(&call, &pair)?;
    let request = BindingRequest {
        source: pair.source.clone(),
        destination: pair.destination.clone(),
        key: binding.key.clone(),
        arguments: binding.arguments.clone(),
    };
    let mut operation = begin(&call, &pair.vhost)?;
    operation.ask(Ask::Unbind(request)).await.map_err(|exception| Failure::of_broker(&exception))?;
    Ok(Answer::done())
}
