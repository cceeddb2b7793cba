//! Policies and operator policies.

use serde_json::{Map, Value, json};

use crate::broker::Existed;
use crate::broker::policy::{Policy, PolicyKind};
use crate::model::names::VhostName;

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::listing;

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    list_of(&call, PolicyKind::Regular)
}

pub(crate) async fn list_operator(call: Call) -> Result<Answer, Failure> {
    list_of(&call, PolicyKind::Operator)
}

fn list_of(call: &Call, kind: PolicyKind) -> Result<Answer, Failure> {
    let vhosts = call.own_vhosts();
    let found = vhosts.into_iter().flat_map(|(name, vhost)| {
        let mut policies: Vec<_> = vhost.policies.of(kind).iter().collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        policies.into_iter().map(|policy| render(name, policy)).collect::<Vec<_>>()
    });
    listing::answer(found.collect(), &call.query)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    of_vhost_and(&call, PolicyKind::Regular)
}

pub(crate) async fn operator_of_vhost(call: Call) -> Result<Answer, Failure> {
    of_vhost_and(&call, PolicyKind::Operator)
}

fn of_vhost_and(call: &Call, kind: PolicyKind) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let mut policies: Vec<_> = vhost.policies.of(kind).iter().collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    listing::answer(policies.into_iter().map(|policy| render(&name, policy)).collect(), &call.query)
}

/// A policy as listings and definitions show it.
pub(crate) fn render(vhost: &VhostName, policy: &Policy) -> Value {
    json!({
        "vhost": vhost.as_str(),
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to.name(),
        "definition": policy.definition,
        "priority": policy.priority,
    })
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    get_of(&call, PolicyKind::Regular)
}

pub(crate) async fn get_operator(call: Call) -> Result<Answer, Failure> {
    get_of(&call, PolicyKind::Operator)
}

fn get_of(call: &Call, kind: PolicyKind) -> Result<Answer, Failure> {
    let (name, vhost) = call.vhost(0)?;
    let policy = vhost.policies.get(kind, call.name(1)).ok_or_else(Failure::not_found)?;
    Ok(listing::one(render(&name, policy), &call.query))
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    put_of(&call, PolicyKind::Regular).await
}

pub(crate) async fn put_operator(call: Call) -> Result<Answer, Failure> {
    put_of(&call, PolicyKind::Operator).await
}

async fn put_of(call: &Call, kind: PolicyKind) -> Result<Answer, Failure> {
    let vhost = call.vhost_name(0);
    if call.topology.vhost(&vhost).is_none() {
        return Err(Failure::missing("vhost_not_found"));
    }
    let object = call.object_with(&["pattern", "definition"])?;
    let policy = read(kind, call.name(1), &object)?;
    let existed = call.management.broker.set_policy(&vhost, kind, &policy);
    let existed = existed.map_err(|_| Failure::missing("vhost_not_found"))?;
    call.management.broker.settled().await;
    Ok(Answer::put(existed == Existed::Yes))
}

/// Reads and checks a policy; keys it need not have get their defaults.
pub(crate) fn read(kind: PolicyKind, name: &str, object: &Map<String, Value>) -> Result<Policy, Failure> {
    Policy::parse(kind, name, &Value::Object(object.clone())).map_err(|reason| invalid(&reason))
}

/// 400 of a value that is refused.
pub(crate) fn invalid(reason: &str) -> Failure {
    Failure::bad_request(format!("Validation failed\n\n{reason}\n"))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    delete_of(&call, PolicyKind::Regular).await
}

pub(crate) async fn delete_operator(call: Call) -> Result<Answer, Failure> {
    delete_of(&call, PolicyKind::Operator).await
}

async fn delete_of(call: &Call, kind: PolicyKind) -> Result<Answer, Failure> {
    if !call.management.broker.remove_parameter(Some(&call.vhost_name(0)), kind.component(), call.name(1)) {
        return Err(Failure::not_found());
    }
    call.management.broker.settled().await;
    Ok(Answer::done())
}
