//! Limits of vhosts and of users.

use serde_json::{Value, json};

use crate::broker::UserLimits;
use crate::broker::policy::erlang;
use crate::model::names::UserName;
use crate::model::vhost::VhostLimits;

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::listing;
use super::policies::invalid;
use super::users;

pub(crate) async fn list_of_vhosts(call: Call) -> Result<Answer, Failure> {
    let vhosts = call.topology.vhosts();
    let visible = vhosts.into_iter().filter(|(name, _)| call.identity.may_monitor() || call.identity.has_vhost(name));
    let names: Vec<_> = visible.map(|(name, _)| name.as_str().to_owned()).collect();
    listing::answer(names.iter().filter_map(|name| limits_of(&call, name)).collect(), &call.query)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    call.vhost(0)?;
    listing::answer(limits_of(&call, call.name(0)).into_iter().collect(), &call.query)
}

fn limits_of(call: &Call, vhost: &str) -> Option<Value> {
    let found = call.topology.vhost(&vhost.into())?;
    let key = (VhostLimits::COMPONENT.into(), VhostLimits::NAME.into());
    let value = found.parameters.get(&key)?;
    Some(json!({"vhost": vhost, "value": **value}))
}

pub(crate) async fn put_of_vhost(call: Call) -> Result<Answer, Failure> {
    let (vhost, _) = call.vhost(0)?;
    let name = call.name(1);
    let object = call.object_with(&["value"])?;
    let value = object.get("value").cloned().unwrap_or_default();
    check_vhost_limits(&json!({(name): value}))?;
    let outcome = call.management.broker.set_vhost_limit(&vhost, name, value.as_i64());
    outcome.map_err(|_| Failure::not_found())?;
    call.management.broker.settled().await;
    Ok(Answer::done())
}

/// Whether limits have names that are known, and numbers. RabbitMQ writes `[]` for limits that were cleared.
pub(crate) fn check_vhost_limits(value: &Value) -> Result<(), Failure> {
    if value.as_array().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    let Value::Object(limits) = value else { return Err(invalid("limits have to be an object")) };
    for (name, value) in limits {
        if !VhostLimits::NAMES.contains(&name.as_str()) {
            return Err(invalid(&format!("Unrecognised terms [{{<<\"{name}\">>,{}}}] in limits", erlang(value))));
        }
        if !value.is_i64() {
            return Err(invalid(&format!("{name} should be a number, actually was {}", erlang(value))));
        }
    }
    Ok(())
}

pub(crate) async fn delete_of_vhost(call: Call) -> Result<Answer, Failure> {
    let (vhost, _) = call.vhost(0)?;
    let outcome = call.management.broker.set_vhost_limit(&vhost, call.name(1), None);
    outcome.map_err(|_| Failure::not_found())?;
    call.management.broker.settled().await;
    Ok(Answer::done())
}

pub(crate) async fn list_of_users(call: Call) -> Result<Answer, Failure> {
    let users = call.topology.users().into_iter().filter(|user| user.limits != UserLimits::default());
    let shown = users.map(|user| json!({"user": user.name.as_str(), "value": users::limits(&user.limits)}));
    listing::answer(shown.collect(), &call.query)
}

pub(crate) async fn of_user(call: Call) -> Result<Answer, Failure> {
    let user = call.topology.user(&UserName::new(call.name(0))).ok_or_else(Failure::not_found)?;
    let shown = (user.limits != UserLimits::default())
        .then(|| json!({"user": user.name.as_str(), "value": users::limits(&user.limits)}));
    listing::answer(shown.into_iter().collect(), &call.query)
}

pub(crate) async fn put_of_user(call: Call) -> Result<Answer, Failure> {
    let user = UserName::new(call.name(0));
    let object = call.object_with(&["value"])?;
    let value = object.get("value").cloned().unwrap_or_default();
    if call.topology.user(&user).is_none() {
        return Err(Failure::bad_request(Value::Array(vec!["no_such_user".into(), user.as_str().into()])));
    }
    users::limit_of(&mut UserLimits::default(), call.name(1), &value)?;
    let outcome = call.management.broker.set_user_limit(&user, call.name(1), value.as_i64());
    outcome.map_err(|_| Failure::not_found())?;
    call.management.broker.settled().await;
    Ok(Answer::done())
}

pub(crate) async fn delete_of_user(call: Call) -> Result<Answer, Failure> {
    let user = UserName::new(call.name(0));
    let outcome = call.management.broker.set_user_limit(&user, call.name(1), None);
    outcome.map_err(|_| Failure::not_found())?;
    call.management.broker.settled().await;
    Ok(Answer::done())
}
