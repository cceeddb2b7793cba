//! Connections.

use serde_json::{Map, Value, json};

use crate::broker::Registered;
use crate::model::names::UserName;
use crate::model::statistics::{ConnectionFacts, TrafficNumber};

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::fields::table_to_json;
use super::super::history::Subject;
use super::super::identity::check_owner;
use super::super::listing::{self, Listing};
use super::super::rates::{CONNECTION, Rates, connection_row};

struct Shown {
    connection: Registered,
    facts: ConnectionFacts,
}

fn visible(call: &Call, chosen: impl Fn(&ConnectionFacts) -> bool) -> Vec<Shown> {
    let all = call.management.broker.registry.all().into_iter();
    let shown = all.map(|connection| {
        let facts = connection.record.facts.lock().clone();
        Shown { connection, facts }
    });
    let mut shown: Vec<Shown> =
        shown.filter(|shown| call.identity.may_see(shown.facts.user.as_ref()) && chosen(&shown.facts)).collect();
    shown.sort_by(|a, b| a.facts.name.cmp(&b.facts.name));
    shown
}

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    answer(&call, visible(&call, |_| true))
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, _) = call.vhost(0)?;
    answer(&call, visible(&call, |facts| facts.vhost.as_ref() == Some(&name)))
}

pub(crate) async fn of_user(call: Call) -> Result<Answer, Failure> {
    let name = UserName::new(call.name(0));
    answer(&call, visible(&call, |facts| facts.user.as_ref() == Some(&name)))
}

fn answer(call: &Call, items: Vec<Shown>) -> Result<Answer, Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let listing = Listing { items, name: |shown| &shown.facts.name };
    listing.answer(&call.query, |shown| render(call, &rates, shown))
}

fn render(call: &Call, rates: &Rates<'_>, Shown { connection, facts }: &Shown) -> Value {
    let mut map = Map::new();
    let user = facts.user.as_ref().map_or("", UserName::as_str);
    let mut put = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
    put("auth_mechanism", facts.mechanism.as_str().into());
    put("channel_max", facts.channel_max.into());
    put("client_properties", table_to_json(&facts.client_properties));
    put("connected_at", facts.connected_at.0.into());
    put("frame_max", facts.frame_max.into());
    put("host", facts.host.as_str().into());
    put("name", (*facts.name).into());
    put("node", call.management.settings.node_name.as_str().into());
    let tls = facts.tls.as_ref();
    let peer = tls.and_then(|tls| tls.peer.as_ref());
    put("peer_cert_issuer", peer.map(|peer| peer.issuer.as_str()).into());
    put("peer_cert_serial_number", peer.map(|peer| peer.serial_number.as_str()).into());
    put("peer_cert_subject", peer.map(|peer| peer.subject.as_str()).into());
    put("peer_cert_validity", peer.map(|peer| peer.validity.as_str()).into());
    put("peer_host", facts.peer_host.as_str().into());
    put("peer_port", facts.peer_port.into());
    put("port", facts.port.into());
    put("protocol", "AMQP 0-9-1".into());
    put("ssl", tls.is_some().into());
    put("ssl_cipher", tls.map(|tls| tls.cipher).into());
    put("ssl_hash", tls.map(|tls| tls.hash).into());
    put("ssl_key_exchange", tls.map(|tls| tls.key_exchange).into());
    put("ssl_protocol", tls.map(|tls| tls.version).into());
    put("timeout", facts.heartbeat.into());
    put("type", "network".into());
    put("user", user.into());
    put("user_who_performed_action", user.into());
    put("vhost", facts.vhost.as_ref().map_or("", |vhost| vhost.as_str()).into());
    let name = facts.client_properties.find("connection_name").and_then(|name| name.as_str());
    if let Some(name) = name {
        put("user_provided_name", name.into());
    }
    if !call.query.is_true("disable_stats") {
        let traffic = &connection.record.traffic;
        put("channels", connection.record.channel_count().into());
        put("garbage_collection", super::nodes::garbage_collection());
        put("recv_cnt", traffic.get(TrafficNumber::ReceivedCount).into());
        put("reductions", 0.into());
        put("reductions_details", json!({"rate": 0.0}));
        put("send_cnt", traffic.get(TrafficNumber::SentCount).into());
        put("send_pend", traffic.get(TrafficNumber::Pending).into());
        put("state", facts.state.name().into());
        let row = connection_row(&connection.record);
        rates.put(&mut map, Subject::Connection(&facts.name), CONNECTION, &row, &["recv_oct", "send_oct"]);
    }
    Value::Object(map)
}

/// The connection of this name, or 404.
pub(crate) fn find(call: &Call, name: &str) -> Result<Registered, Failure> {
    let all = call.management.broker.registry.all();
    let found = all.into_iter().find(|connection| &*connection.record.facts.lock().name == name);
    found.ok_or_else(Failure::not_found)
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let connection = find(&call, call.name(0))?;
    let facts = connection.record.facts.lock().clone();
    check_owner(&call.identity, facts.user.as_ref())?;
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let mut shown = render(&call, &rates, &Shown { connection, facts });
    if let Value::Object(map) = &mut shown {
        // Where lists have null, one connection has empty texts.
        for (key, value) in map.iter_mut() {
            if value.is_null() && (key.starts_with("ssl_") || key.starts_with("peer_cert_")) {
                *value = "".into();
            }
        }
    }
    Ok(listing::one(shown, &call.query))
}

/// What the client is told: the header's reason, or that the API closed it.
fn reason(call: &Call) -> String {
    let header = call.headers.get("x-reason").and_then(|reason| reason.to_str().ok());
    header.map_or_else(|| "Closed via management plugin".to_owned(), str::to_owned)
}

pub(crate) async fn close(call: Call) -> Result<Answer, Failure> {
    let connection = find(&call, call.name(0))?;
    check_closer(&call, connection.record.facts.lock().user.as_ref())?;
    connection.close(&reason(&call));
    Ok(Answer::done())
}

/// Administrators close any connection, everybody else their own.
fn check_closer(call: &Call, owner: Option<&UserName>) -> Result<(), Failure> {
    if call.identity.is_administrator() || owner == Some(&call.identity.user_name()) {
        return Ok(());
    }
    Err(Failure::not_authorised("User not authorised to access object"))
}

pub(crate) async fn close_of_user(call: Call) -> Result<Answer, Failure> {
    let name = UserName::new(call.name(0));
    check_closer(&call, Some(&name))?;
    call.management.broker.close_connections(&reason(&call), |user, _| user == Some(&name));
    Ok(Answer::done())
}

/// Sessions are AMQP 1.0's.
pub(crate) async fn sessions(call: Call) -> Result<Answer, Failure> {
    let connection = find(&call, call.name(0))?;
    check_owner(&call.identity, connection.record.facts.lock().user.as_ref())?;
    listing::answer(Vec::new(), &call.query)
}
