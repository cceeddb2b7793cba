//! Events as RabbitMQ's plugin says them: which fields each has.

use std::net::IpAddr;

use serde_json::Value;

use crate::model::consumer::ConsumerView;
use crate::model::entity::{Binding, Destination, Exchange, Queue};
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::statistics::{ConnectionFacts, ConnectionRecord};
use crate::model::table::{FieldTable, FieldValue};
use crate::model::vhost::{VhostLimits, VhostMetadata};

use super::auth::{Permission, TopicPermission, User};
use super::events::Notice;
use super::login_attempts::Outcome;
use super::policy::{OPERATOR_POLICY, POLICY};

/// Whether a runtime parameter was set, and to what, or removed.
#[derive(Clone, Copy)]
pub(super) enum Became<'a> {
    Set(&'a Value),
    Cleared,
}

pub(super) fn vhost_created(name: &VhostName, metadata: &VhostMetadata) -> Notice {
    let tags = metadata.tags.iter().map(|tag| FieldValue::string(tag)).collect();
    Notice::new("vhost.created")
        .text("name", name.as_str())
        .text("description", &metadata.description)
        .with("tags", FieldValue::Array(tags))
}

pub(super) fn vhost_deleted(name: &VhostName) -> Notice {
    Notice::new("vhost.deleted").text("name", name.as_str())
}

pub(super) fn queue_created(queue: &Queue) -> Notice {
    Notice::new("queue.created")
        .text("name", queue.name.as_str())
        .text("vhost", queue.vhost.as_str())
        .text("type", queue.queue_type().module_name())
        .with("durable", FieldValue::Bool(queue.durable))
        .with("auto_delete", FieldValue::Bool(queue.auto_delete))
        .with("exclusive", FieldValue::Bool(queue.exclusive.is_some()))
        .with("arguments", FieldValue::Table(queue.arguments.clone()))
}

pub(super) fn queue_deleted(queue: &Queue) -> Notice {
    Notice::new("queue.deleted")
        .text("name", queue.name.as_str())
        .text("vhost", queue.vhost.as_str())
        .text("type", queue.queue_type().module_name())
}

pub(super) fn exchange_created(vhost: &VhostName, exchange: &Exchange) -> Notice {
    Notice::new("exchange.created")
        .text("name", exchange.name.as_str())
        .text("vhost", vhost.as_str())
        .text("type", exchange.kind.name())
        .with("durable", FieldValue::Bool(exchange.durable))
        .with("auto_delete", FieldValue::Bool(exchange.auto_delete))
        .with("internal", FieldValue::Bool(exchange.internal))
        .with("arguments", FieldValue::Table(exchange.arguments.clone()))
}

pub(super) fn exchange_deleted(vhost: &VhostName, name: &ExchangeName) -> Notice {
    Notice::new("exchange.deleted").text("name", name.as_str()).text("vhost", vhost.as_str())
}

/// A binding was made or removed, as `key` says.
pub(super) fn binding(key: &'static str, vhost: &VhostName, binding: &Binding) -> Notice {
    let (kind, destination) = match &binding.destination {
        Destination::Queue(name) => ("queue", name.as_str()),
        Destination::Exchange(name) => ("exchange", name.as_str()),
    };
    Notice::new(key)
        .text("source_name", binding.source.as_str())
        .text("source_kind", "exchange")
        .text("destination_name", destination)
        .text("destination_kind", kind)
        .with("routing_key", FieldValue::LongString(binding.key.as_bytes().to_vec().into()))
        .with("arguments", FieldValue::Table(binding.arguments.clone()))
        .text("vhost", vhost.as_str())
}

/// What has become of a user. A user who is new had nothing before.
pub(super) fn user_changes(before: Option<&User>, after: &User) -> Vec<Notice> {
    let name = after.name.as_str();
    let about = |key| Notice::new(key).text("name", name);
    let mut notices = Vec::new();
    match before {
        None => notices.push(about("user.created")),
        Some(before) if before.password != after.password => notices.push(about("user.password.changed")),
        Some(_) => {}
    }
    if before.map_or(!after.tags.is_empty(), |before| before.tags != after.tags) {
        let tags = after.tags.iter().map(|tag| FieldValue::string(tag)).collect();
        notices.push(about("user.tags.set").with("tags", FieldValue::Array(tags)));
    }
    let nothing = User::new(after.name.clone(), after.password.clone(), Vec::new());
    let before = before.unwrap_or(&nothing);
    for (vhost, permission) in &after.permissions {
        if before.permissions.get(vhost) != Some(permission) {
            notices.push(permission_created(&after.name, vhost, permission));
        }
    }
    for vhost in before.permissions.keys().filter(|vhost| !after.permissions.contains_key(*vhost)) {
        notices.push(Notice::new("permission.deleted").text("user", name).text("vhost", vhost.as_str()));
    }
    for ((vhost, exchange), permission) in &after.topic_permissions {
        if before.topic_permissions.get(&(vhost.clone(), exchange.clone())) != Some(permission) {
            notices.push(topic_permission_created(&after.name, vhost, exchange, permission));
        }
    }
    for (vhost, exchange) in before.topic_permissions.keys().filter(|key| !after.topic_permissions.contains_key(*key)) {
        let notice = Notice::new("topic.permission.deleted").text("user", name).text("vhost", vhost.as_str());
        notices.push(notice.text("exchange", exchange.as_str()));
    }
    notices
}

pub(super) fn user_deleted(name: &UserName) -> Notice {
    Notice::new("user.deleted").text("name", name.as_str())
}

/// A runtime parameter was set or removed. Policies and limits have keys of their own.
pub(super) fn parameter(vhost: Option<&VhostName>, component: &str, name: &str, became: Became<'_>) -> Notice {
    let (set, cleared, is_flat) = match component {
        POLICY | OPERATOR_POLICY => ("policy.set", "policy.cleared", true),
        VhostLimits::COMPONENT => ("vhost.limits.set", "vhost.limits.cleared", true),
        _ => ("parameter.set", "parameter.cleared", false),
    };
    let mut notice = Notice::new(if matches!(became, Became::Set(_)) { set } else { cleared });
    if !is_flat && !component.is_empty() {
        notice = notice.text("component", component);
    }
    notice = notice.text("name", name);
    if let Some(vhost) = vhost {
        notice = notice.text("vhost", vhost.as_str());
    }
    match became {
        Became::Set(Value::Object(map)) if is_flat => {
            map.iter().fold(notice, |notice, (key, value)| notice.with(key, field(value)))
        }
        Became::Set(value) => notice.with("value", field(value)),
        Became::Cleared => notice,
    }
}

pub(super) fn connection_created(facts: &ConnectionFacts) -> Notice {
    let notice = Notice::new("connection.created");
    of_peer(notice.text("name", &facts.name), facts)
        .text("vhost", facts.vhost.as_ref().map_or("", VhostName::as_str))
        .text("user", facts.user.as_ref().map_or("", UserName::as_str))
        .with("timeout", FieldValue::I64(facts.heartbeat.into()))
        .with("frame_max", FieldValue::I64(facts.frame_max.into()))
        .with("channel_max", FieldValue::I64(facts.channel_max.into()))
        .with("client_properties", FieldValue::Table(facts.client_properties.clone()))
        .with("connected_at", FieldValue::I64(i64::try_from(facts.connected_at.0).unwrap_or(i64::MAX)))
        .by(facts.user.as_ref())
}

pub(super) fn connection_closed(facts: &ConnectionFacts) -> Notice {
    Notice::new("connection.closed")
        .text("name", &facts.name)
        .with("client_properties", FieldValue::Table(facts.client_properties.clone()))
        .by(facts.user.as_ref())
}

/// A channel was opened or closed, as `key` says.
pub(super) fn channel(key: &'static str, facts: &ConnectionFacts, number: u16) -> Notice {
    Notice::new(key)
        .text("name", &format!("{} ({number})", facts.name))
        .text("connection", &facts.name)
        .with("number", FieldValue::I64(number.into()))
        .text("vhost", facts.vhost.as_ref().map_or("", VhostName::as_str))
        .text("user", facts.user.as_ref().map_or("", UserName::as_str))
        .by(facts.user.as_ref())
}

/// A login over a connection.
pub(super) fn authentication(outcome: Outcome, user: &str, facts: &ConnectionFacts) -> Notice {
    let notice = Notice::new(authentication_key(outcome))
        .text("connection_type", "network")
        .text("name", user)
        .text("connection_name", &facts.name)
        .text("auth_mechanism", &facts.mechanism);
    of_peer(notice, facts)
}

/// A login of which less is known: it went to another service, or came over HTTP.
pub(super) fn remote_authentication(outcome: Outcome, user: &str, protocol: &str, peer: IpAddr) -> Notice {
    Notice::new(authentication_key(outcome))
        .text("connection_type", "network")
        .text("name", user)
        .text("protocol", protocol)
        .text("peer_host", &peer.to_canonical().to_string())
}

fn authentication_key(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "user.authentication.success",
        Outcome::Failed => "user.authentication.failure",
    }
}

pub(super) fn consumer_created(queue: &Queue, view: &ConsumerView, record: &ConnectionRecord) -> Notice {
    let status = if view.active { "up" } else { "waiting" };
    consumer("consumer.created", queue, view, record)
        .with("exclusive", FieldValue::Bool(view.exclusive))
        .with("ack_required", FieldValue::Bool(!view.no_ack))
        .with("prefetch_count", FieldValue::I64(view.prefetch.into()))
        .with("arguments", FieldValue::Table(view.arguments.clone()))
        .with("active", FieldValue::Bool(view.active))
        .text("activity_status", status)
}

pub(super) fn consumer_deleted(queue: &Queue, view: &ConsumerView, record: &ConnectionRecord) -> Notice {
    consumer("consumer.deleted", queue, view, record)
}

fn consumer(key: &'static str, queue: &Queue, view: &ConsumerView, record: &ConnectionRecord) -> Notice {
    let facts = record.facts.lock();
    Notice::new(key)
        .text("consumer_tag", &view.tag.to_string())
        .text("channel", &format!("{} ({})", facts.name, view.consumer.channel))
        .text("queue", queue.name.as_str())
        .text("vhost", queue.vhost.as_str())
        .by(facts.user.as_ref())
}

fn of_peer(notice: Notice, facts: &ConnectionFacts) -> Notice {
    notice
        .text("protocol", "AMQP 0-9-1")
        .text("host", &facts.host)
        .with("port", FieldValue::I64(facts.port.into()))
        .text("peer_host", &facts.peer_host)
        .with("peer_port", FieldValue::I64(facts.peer_port.into()))
        .with("ssl", FieldValue::Bool(facts.tls.is_some()))
}

fn permission_created(user: &UserName, vhost: &VhostName, permission: &Permission) -> Notice {
    let [configure, write, read] = permission.patterns();
    Notice::new("permission.created")
        .text("user", user.as_str())
        .text("vhost", vhost.as_str())
        .text("configure", configure)
        .text("write", write)
        .text("read", read)
}

fn topic_permission_created(
    user: &UserName,
    vhost: &VhostName,
    exchange: &ExchangeName,
    permission: &TopicPermission,
) -> Notice {
    let [write, read] = permission.patterns();
    Notice::new("topic.permission.created")
        .text("user", user.as_str())
        .text("vhost", vhost.as_str())
        .text("exchange", exchange.as_str())
        .text("write", write)
        .text("read", read)
}

fn field(value: &Value) -> FieldValue {
    match value {
        Value::Null => FieldValue::Void,
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| FieldValue::F64(number.as_f64().unwrap_or_default()), FieldValue::I64)
        }
        Value::String(text) => FieldValue::string(text),
        Value::Array(values) => FieldValue::Array(values.iter().map(field).collect()),
        Value::Object(map) => {
            FieldValue::Table(FieldTable(map.iter().map(|(key, value)| (key.as_str().into(), field(value))).collect()))
        }
    }
}
