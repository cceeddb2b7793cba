//! Vhosts.

use serde_json::{Map, Value, json};

use crate::broker::{AdministrationError, Existed, VhostTopology};
use crate::model::entity::QueueType;
use crate::model::names::VhostName;
use crate::model::vhost::{Protection, VhostMetadata};

use super::super::answer::{Answer, Failure};
use super::super::call::{Call, boolean};
use super::super::history::Subject;
use super::super::listing::{self, Listing};
use super::super::rates::{Rates, VHOST};
use super::super::sampler::{VhostSums, vhost_row};
use super::permissions;

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let sums = call.management.vhost_sums();
    let mut vhosts = call.topology.vhosts();
    vhosts.retain(|(name, _)| call.identity.may_monitor() || call.identity.has_vhost(name));
    let listing = Listing { items: vhosts, name: |(name, _)| name.as_str() };
    listing.answer(&call.query, |(name, vhost)| {
        render(&call, &rates, name, vhost, &sums.get(*name).copied().unwrap_or_default())
    })
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let sums = call.management.vhost_sums().remove(&name).unwrap_or_default();
    let shown = render(&call, &rates, &name, vhost, &sums);
    Ok(listing::one(shown, &call.query))
}

fn render(call: &Call, rates: &Rates<'_>, name: &VhostName, vhost: &VhostTopology, sums: &VhostSums) -> Value {
    let mut map = Map::new();
    let described = metadata(call, &vhost.metadata);
    map.insert("name".into(), name.as_str().into());
    for key in ["description", "tags", "default_queue_type"] {
        map.insert(key.into(), described.get(key).cloned().unwrap_or_default());
    }
    map.insert("protected_from_deletion".into(), (vhost.metadata.protection == Protection::FromDeletion).into());
    map.insert("metadata".into(), described);
    map.insert("tracing".into(), vhost.tracing.into());
    map.insert("cluster_state".into(), json!({(call.management.settings.node_name.as_str()): "running"}));
    if !call.query.is_true("disable_stats") {
        let row = vhost_row(sums);
        let subject = Subject::Vhost(name.as_str());
        let names = ["messages", "messages_ready", "messages_unacknowledged", "recv_oct", "send_oct"];
        rates.put(&mut map, subject, VHOST, &row, &names);
        let stats = rates.message_stats(subject, VHOST, &row);
        if !stats.is_empty() {
            map.insert("message_stats".into(), Value::Object(stats));
        }
    }
    Value::Object(map)
}

/// What is said of a vhost, as listings and definitions show it.
pub(crate) fn metadata(call: &Call, metadata: &VhostMetadata) -> Value {
    let default = call.management.settings.default_queue_type;
    json!({
        "description": metadata.description,
        "tags": metadata.tags,
        "default_queue_type": metadata.default_queue_type.map_or(default, QueueType::name),
    })
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    let name = call.vhost_name(0);
    let object = call.object()?;
    let current = call.topology.vhost(&name).map(|vhost| (*vhost.metadata).clone()).unwrap_or_default();
    let before = current.default_queue_type;
    let metadata = read_metadata(&object, current)?;
    let after = metadata.default_queue_type;
    let tracing = object.get("tracing").map(boolean).transpose()?;
    let existed = put_vhost(&call, &name, metadata)?;
    // RabbitMQ's clients get RabbitMQ's answer; whoever repeats a request has been told.
    if let Some(warning) = after.filter(|_| after != before).and_then(QueueType::warning_as_default) {
        tracing::warn!(user = call.identity.acting_user().as_str(), "vhost '{name}': {warning}");
    }
    if let Some(tracing) = tracing {
        call.management.broker.set_tracing(&name, tracing);
    }
    call.management.broker.settled().await;
    Ok(Answer::put(existed == Existed::Yes))
}

/// Makes a vhost; whoever made it may do everything in it.
fn put_vhost(call: &Call, name: &VhostName, metadata: VhostMetadata) -> Result<Existed, Failure> {
    let existed = call.management.broker.put_vhost(name, metadata);
    let existed = existed.map_err(|error| Failure::bad_request(error.to_string()))?;
    if existed == Existed::No {
        let user = call.identity.user_name();
        // The user may be gone by now, or be nobody.
        let _ = call.management.broker.set_permission(&user, name, permissions::everything().ok());
    }
    Ok(existed)
}

/// Reads what a body says of a vhost, over what is known of it.
pub(crate) fn read_metadata(object: &Map<String, Value>, current: VhostMetadata) -> Result<VhostMetadata, Failure> {
    let mut metadata = current;
    if let Some(description) = object.get("description").and_then(Value::as_str) {
        description.clone_into(&mut metadata.description);
    }
    if let Some(tags) = object.get("tags") {
        metadata.tags = super::users::tags(tags)?;
    }
    let queue_type = object.get("default_queue_type").or_else(|| object.get("defaultqueuetype"));
    if let Some(Value::String(name)) = queue_type
        && name != "undefined"
    {
        let known = QueueType::from_name(name);
        let known = known.ok_or_else(|| Failure::bad_request(format!("{name} is not a valid queue type")))?;
        metadata.default_queue_type = Some(known);
    }
    if let Some(protected) = object.get("protected_from_deletion") {
        metadata.protection = if boolean(protected)? { Protection::FromDeletion } else { Protection::None };
    }
    Ok(metadata)
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let name = call.vhost_name(0);
    match call.management.broker.delete_vhost(&name) {
        Ok(()) => {
            call.management.broker.settled().await;
            Ok(Answer::done())
        }
        Err(error @ AdministrationError::Protected(_)) => Err(Failure::precondition_failed(error.to_string())),
        Err(_) => Err(Failure::not_found()),
    }
}

pub(crate) async fn protect(call: Call) -> Result<Answer, Failure> {
    set_protection(&call, Protection::FromDeletion).await
}

pub(crate) async fn unprotect(call: Call) -> Result<Answer, Failure> {
    set_protection(&call, Protection::None).await
}

async fn set_protection(call: &Call, protection: Protection) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let metadata = VhostMetadata { protection, ..(*vhost.metadata).clone() };
    // It is there, or was deleted meanwhile.
    call.management.broker.put_vhost(&name, metadata).map_err(|_| Failure::not_found())?;
    call.management.broker.settled().await;
    Ok(Answer::done())
}

/// Vhosts run as long as the broker does: there is nothing to start.
pub(crate) async fn start(call: Call) -> Result<Answer, Failure> {
    let node = call.name(1);
    if node != call.management.settings.node_name {
        return Err(Failure::bad_request(format!("Unknown node: {node}")));
    }
    call.vhost(0)?;
    Ok(Answer::done())
}
