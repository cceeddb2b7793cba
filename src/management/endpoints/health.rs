//! Health checks: 200 when all is well, 503 with the reason otherwise.

use serde_json::{Value, json};

use super::super::answer::{Answer, Failure};
use super::super::call::Call;

fn ok() -> Result<Answer, Failure> {
    Ok(Answer::json(json!({"status": "ok"})))
}

/// 503 while the broker is stopped: then no check succeeds, whatever it is about.
fn needs_app(call: &Call) -> Result<(), Failure> {
    let state = call.management.node.service();
    match state.reason() {
        Some(reason) if state.stopped => Err(Failure::unhealthy(reason)),
        _ => Ok(()),
    }
}

/// 503 while clients cannot connect.
fn needs_service(call: &Call) -> Result<(), Failure> {
    call.management.node.service().reason().map_or(Ok(()), |reason| Err(Failure::unhealthy(reason)))
}

/// Alarms of the cluster, which is this node.
pub(crate) async fn alarms(call: Call) -> Result<Answer, Failure> {
    needs_app(&call)?;
    let facts = call.management.node.facts();
    let node = call.management.settings.node_name.as_str();
    let mut found: Vec<Value> = Vec::new();
    for (resource, holds) in [("memory", facts.memory_alarm), ("disk", facts.disk_alarm)] {
        if holds {
            found.push(json!({"node": node, "resource": resource}));
        }
    }
    if found.is_empty() {
        return ok();
    }
    Ok(Answer::unhealthy(json!({"alarms": found}), "There are alarms in effect in the cluster"))
}

pub(crate) async fn local_alarms(call: Call) -> Result<Answer, Failure> {
    alarms(call).await
}

/// The broker answers, and its definitions are there.
pub(crate) async fn running(call: Call) -> Result<Answer, Failure> {
    needs_app(&call)?;
    ok()
}

/// Clients are served: the node is neither stopped, nor under maintenance, nor are its listeners suspended.
pub(crate) async fn in_service(call: Call) -> Result<Answer, Failure> {
    needs_service(&call)?;
    ok()
}

/// A node that is alone has nobody whose majority would be lost.
pub(crate) async fn quorum_critical(call: Call) -> Result<Answer, Failure> {
    needs_app(&call)?;
    Ok(Answer::json(json!({"status": "ok", "reason": "single node cluster"})))
}

pub(crate) async fn port_listener(call: Call) -> Result<Answer, Failure> {
    let port: u16 = call.name(0).parse().map_err(|_| Failure::bad_request("Invalid port"))?;
    let ports: Vec<u16> = call.management.node.listeners().iter().map(|listener| listener.port).collect();
    if ports.contains(&port) {
        return Ok(Answer::json(json!({"status": "ok", "port": port})));
    }
    Ok(Answer::unhealthy(json!({"missing": port, "ports": ports}), "No active listener"))
}

pub(crate) async fn protocol_listener(call: Call) -> Result<Answer, Failure> {
    let mut active: Vec<&str> = call.management.node.listeners().iter().map(|listener| listener.protocol).collect();
    active.sort_unstable();
    active.dedup();
    let wanted: Vec<&str> = call.name(0).split(',').map(str::trim).collect();
    let is_active = |name: &&str| active.iter().any(|active| *active == canonical(name));
    // One of them is enough.
    if wanted.iter().any(is_active) {
        return Ok(Answer::json(json!({"status": "ok", "protocols": active})));
    }
    Ok(Answer::unhealthy(json!({"missing": wanted, "protocols": active}), "No active listener"))
}

/// The name under which listeners are listed.
fn canonical(name: &str) -> &str {
    match name.to_ascii_lowercase().as_str() {
        "amqp091" | "amqp0-9-1" | "amqp-0-9-1" => "amqp",
        "amqps" | "amqp-ssl" => "amqp/ssl",
        "prometheus" => "http/prometheus",
        _ => name,
    }
}

pub(crate) async fn certificate_expiration(call: Call) -> Result<Answer, Failure> {
    needs_app(&call)?;
    let within: u64 = call.name(0).parse().map_err(|_| Failure::bad_request("Invalid expiration period."))?;
    let days = match call.name(1) {
        "days" | "day" => 1,
        "weeks" | "week" => 7,
        "months" | "month" => 30,
        "years" | "year" => 365,
        _ => {
            let text = "Time unit not recognised. Supported units: days, weeks, months, years.";
            return Err(Failure::bad_request(text));
        }
    };
    let until = call.management.now().0.saturating_add(within.saturating_mul(days).saturating_mul(86_400_000));
    let expiring: Vec<Value> = call
        .management
        .node
        .certificates()
        .into_iter()
        .filter(|certificate| certificate.not_after_ms <= until)
        .map(|certificate| {
            json!({
                "name": certificate.file, "expires": super::nodes::rfc3339(certificate.not_after_ms),
            })
        })
        .collect();
    if expiring.is_empty() {
        return ok();
    }
    Ok(Answer::unhealthy(json!({"expired": expiring}), "Certificates expiring"))
}

/// Connections of clients are accepted.
pub(crate) async fn ready_to_serve(call: Call) -> Result<Answer, Failure> {
    needs_service(&call)?;
    if !call.management.node.listeners().iter().any(|listener| listener.protocol.starts_with("amqp")) {
        return Ok(Answer::unhealthy(json!({}), "No AMQP listener is active"));
    }
    below_connection_limit(call).await
}

/// There is room for another connection.
pub(crate) async fn below_connection_limit(call: Call) -> Result<Answer, Failure> {
    needs_service(&call)?;
    let (open, limit) = call.management.broker.connection_count();
    if limit == 0 || open < limit {
        return ok();
    }
    let details = json!({"limit": limit, "connections": open});
    Ok(Answer::unhealthy(details, "node connection limit is reached"))
}

/// The old check: it declared a queue, published and consumed; now it answers.
pub(crate) async fn aliveness(call: Call) -> Result<Answer, Failure> {
    needs_service(&call)?;
    call.vhost(0)?;
    ok()
}

/// The old check of a node.
pub(crate) async fn node(call: Call) -> Result<Answer, Failure> {
    needs_service(&call)?;
    if call.names.first().is_some_and(|node| *node != call.management.settings.node_name) {
        return Err(Failure::not_found());
    }
    ok()
}

/// No quorum queue is without a leader: there is none, or each has this node.
pub(crate) async fn leaders(call: Call) -> Result<Answer, Failure> {
    needs_app(&call)?;
    ok()
}

pub(crate) async fn leaders_of_vhost(call: Call) -> Result<Answer, Failure> {
    needs_app(&call)?;
    call.vhost(0)?;
    ok()
}
