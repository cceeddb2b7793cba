//! Runtime parameters, of vhosts and of the cluster. Policies and limits are parameters as well.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::broker::Existed;
use crate::broker::policy::{OPERATOR_POLICY, POLICY};
use crate::model::names::VhostName;
use crate::model::vhost::VhostLimits;

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::identity::{Identity, not_administrator};
use super::super::listing;
use super::limits;
use super::policies;

/// The name of the global parameter that is the cluster's name.
pub(crate) const CLUSTER_NAME: &str = "cluster_name";
pub(crate) const CLUSTER_TAGS: &str = "cluster_tags";

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    listing::answer(all(&call, |_, _| true), &call.query)
}

pub(crate) async fn of_component(call: Call) -> Result<Answer, Failure> {
    let component = call.name(0).to_owned();
    listing::answer(all(&call, |of, _| of == component), &call.query)
}

pub(crate) async fn of_component_and_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, _) = call.vhost(1)?;
    let component = call.name(0).to_owned();
    listing::answer(all(&call, |of, vhost| of == component && *vhost == name), &call.query)
}

/// The parameters of the caller's vhosts that `chosen` picks by component and vhost. Regular policies are not shown here.
fn all(call: &Call, chosen: impl Fn(&str, &VhostName) -> bool) -> Vec<Value> {
    let mut found = Vec::new();
    for (name, vhost) in call.own_vhosts() {
        for ((component, parameter), value) in &vhost.parameters {
            if &**component != POLICY && chosen(component, name) {
                found.push(render(name, component, parameter, value));
            }
        }
    }
    found
}

fn render(vhost: &VhostName, component: &str, name: &str, value: &Value) -> Value {
    json!({"value": value, "vhost": vhost.as_str(), "component": component, "name": name})
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(1)?;
    let (component, parameter): (Arc<str>, Arc<str>) = (call.name(0).into(), call.name(2).into());
    let value = vhost.parameters.get(&(component, parameter)).ok_or_else(Failure::not_found)?;
    Ok(listing::one(render(&name, call.name(0), call.name(2), value), &call.query))
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    let vhost = call.vhost_name(1);
    if call.topology.vhost(&vhost).is_none() {
        return Err(Failure::missing("vhost_not_found"));
    }
    may_change(&call.identity, call.name(0), "set")?;
    let mut object = call.object_with(&["value"])?;
    let value = object.shift_remove("value").unwrap_or_default();
    check(call.name(0), call.name(2), &value)?;
    let existed = call.management.broker.set_parameter(Some(&vhost), call.name(0), call.name(2), value);
    let existed = existed.map_err(|_| Failure::missing("vhost_not_found"))?;
    call.management.broker.settled().await;
    Ok(Answer::put(existed == Existed::Yes))
}

/// Whether the caller may change parameters of a component here. Regular policies have their own address alone, as in
/// RabbitMQ; what administrators alone may do at its own address is theirs here, too.
fn may_change(identity: &Identity, component: &str, verb: &str) -> Result<(), Failure> {
    match component {
        POLICY => Err(Failure::bad_request(format!("policies may not be {verb} using this method"))),
        OPERATOR_POLICY | VhostLimits::COMPONENT if !identity.is_administrator() => Err(not_administrator()),
        _ => Ok(()),
    }
}

/// Parameters of the cluster that are more than a note for clients: the cluster's name has an address for administrators,
/// and the broker keeps its own under names that begin like that.
fn may_change_global(identity: &Identity, name: &str) -> Result<(), Failure> {
    let is_reserved = name == CLUSTER_NAME || name == CLUSTER_TAGS || name.starts_with("internal_");
    if is_reserved && !identity.is_administrator() { Err(not_administrator()) } else { Ok(()) }
}

/// Whether the broker has such a component, and whether it takes the value.
pub(crate) fn check(component: &str, name: &str, value: &Value) -> Result<(), Failure> {
    use crate::broker::policy::{Policy, PolicyKind};
    match component {
        VhostLimits::COMPONENT if name == VhostLimits::NAME => limits::check_vhost_limits(value),
        OPERATOR_POLICY => {
            Policy::parse(PolicyKind::Operator, name, value).map(|_| ()).map_err(|e| policies::invalid(&e))
        }
        POLICY => Policy::parse(PolicyKind::Regular, name, value).map(|_| ()).map_err(|e| policies::invalid(&e)),
        other => Err(policies::invalid(&format!("component {other} not found"))),
    }
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    may_change(&call.identity, call.name(0), "cleared")?;
    if !call.management.broker.remove_parameter(Some(&call.vhost_name(1)), call.name(0), call.name(2)) {
        return Err(Failure::not_found());
    }
    call.management.broker.settled().await;
    Ok(Answer::done())
}

pub(crate) async fn list_global(call: Call) -> Result<Answer, Failure> {
    listing::answer(globals(&call), &call.query)
}

/// The cluster's parameters; its name and tags are always there.
pub(crate) fn globals(call: &Call) -> Vec<Value> {
    let mut found: Vec<Value> =
        call.topology.globals().map(|(name, value)| json!({"name": &**name, "value": **value})).collect();
    for (name, value) in [(CLUSTER_NAME, call.management.cluster_name().into()), (CLUSTER_TAGS, json!({}))] {
        if call.topology.global(name).is_none() {
            found.push(json!({"name": name, "value": value}));
        }
    }
    found.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    found
}

pub(crate) async fn get_global(call: Call) -> Result<Answer, Failure> {
    let found = globals(&call).into_iter().find(|global| global["name"] == call.name(0));
    Ok(listing::one(found.ok_or_else(Failure::not_found)?, &call.query))
}

pub(crate) async fn put_global(call: Call) -> Result<Answer, Failure> {
    may_change_global(&call.identity, call.name(0))?;
    let mut object = call.object_with(&["value"])?;
    let value = object.shift_remove("value").unwrap_or_default();
    set_global(&call, call.name(0), value).await
}

async fn set_global(call: &Call, name: &str, value: Value) -> Result<Answer, Failure> {
    let existed = call.management.broker.set_parameter(None, "", name, value).map_err(|_| Failure::not_found())?;
    call.management.broker.settled().await;
    Ok(Answer::put(existed == Existed::Yes))
}

pub(crate) async fn delete_global(call: Call) -> Result<Answer, Failure> {
    may_change_global(&call.identity, call.name(0))?;
    if !call.management.broker.remove_parameter(None, "", call.name(0)) {
        return Err(Failure::not_found());
    }
    call.management.broker.settled().await;
    Ok(Answer::done())
}

pub(crate) async fn cluster_name(call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(json!({"name": call.management.cluster_name()})))
}

pub(crate) async fn set_cluster_name(call: Call) -> Result<Answer, Failure> {
    let object = call.object_with(&["name"])?;
    let name = object.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Failure::bad_request("name has to be a text"))?;
    set_global(&call, CLUSTER_NAME, name.into()).await?;
    Ok(Answer::done())
}
