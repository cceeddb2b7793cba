//! Permissions and topic permissions.

use serde_json::{Map, Value, json};

use crate::broker::{AdministrationError, Existed, Permission, TopicPermission, User};
use crate::model::expression::PatternFault;
use crate::model::names::{ExchangeName, UserName, VhostName};

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::listing;

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    listing::answer(all(&call, |_, _| true), &call.query)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, _) = call.vhost(0)?;
    listing::answer(all(&call, |_, vhost| *vhost == name), &call.query)
}

pub(crate) async fn of_user(call: Call) -> Result<Answer, Failure> {
    let name = call.user_name(0)?;
    listing::answer(all(&call, |user, _| user.name == name), &call.query)
}

/// The permissions that `chosen` picks, by vhost and user.
pub(crate) fn all(call: &Call, chosen: impl Fn(&User, &VhostName) -> bool) -> Vec<Value> {
    let mut found = Vec::new();
    for (vhost, _) in call.topology.vhosts() {
        for user in call.topology.users() {
            if let Some(permission) = user.permissions.get(vhost).filter(|_| chosen(user, vhost)) {
                found.push(render(user, vhost, permission));
            }
        }
    }
    found
}

fn render(user: &User, vhost: &VhostName, permission: &Permission) -> Value {
    let [configure, write, read] = permission.patterns();
    json!({"user": user.name.as_str(), "vhost": vhost.as_str(), "configure": configure, "write": write, "read": read})
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let (vhost, _) = call.vhost(0)?;
    let user = call.topology.user(&UserName::new(call.name(1))).ok_or_else(Failure::not_found)?;
    let permission = user.permissions.get(&vhost).ok_or_else(Failure::not_found)?;
    Ok(listing::one(render(user, &vhost, permission), &call.query))
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    let object = call.object_with(&["configure", "write", "read"])?;
    let permission = read(&object)?;
    let outcome =
        call.management.broker.set_permission(&UserName::new(call.name(1)), &call.vhost_name(0), Some(permission));
    finish(&call, outcome).await
}

/// Reads the three patterns of a body.
pub(crate) fn read(object: &Map<String, Value>) -> Result<Permission, Failure> {
    let [configure, write, read] = ["configure", "write", "read"].map(|key| pattern(object, key));
    let (configure, write, read) = (configure?, write?, read?);
    Permission::parse(configure, write, read).map_err(|error| invalid(&error.pattern, &error.fault))
}

fn pattern<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, Failure> {
    let value = object.get(key).and_then(Value::as_str);
    value.ok_or_else(|| Failure::bad_request(format!("{key} has to be a text")))
}

/// As RabbitMQ says it, but for its texts being lists of characters there.
fn invalid(pattern: &str, PatternFault { reason, place }: &PatternFault) -> Failure {
    Failure::bad_request(json!(["invalid_regexp", pattern, [reason, place]]))
}

/// May do everything.
pub(crate) fn everything() -> Result<Permission, Failure> {
    Permission::parse(".*", ".*", ".*").map_err(|error| invalid(&error.pattern, &error.fault))
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    let outcome = call.management.broker.set_permission(&UserName::new(call.name(1)), &call.vhost_name(0), None);
    removed(&call, outcome).await
}

async fn finish(call: &Call, outcome: Result<Existed, AdministrationError>) -> Result<Answer, Failure> {
    match outcome {
        Ok(existed) => {
            call.management.broker.settled().await;
            Ok(Answer::put(existed == Existed::Yes))
        }
        Err(AdministrationError::NoExchange) => Err(Failure::bad_request("no_such_exchange")),
        Err(_) => Err(Failure::bad_request("vhost_or_user_not_found")),
    }
}

async fn removed(call: &Call, outcome: Result<Existed, AdministrationError>) -> Result<Answer, Failure> {
    if outcome != Ok(Existed::Yes) {
        return Err(Failure::not_found());
    }
    call.management.broker.settled().await;
    Ok(Answer::done())
}

pub(crate) async fn list_topics(call: Call) -> Result<Answer, Failure> {
    listing::answer(all_topics(&call, |_, _, _| true), &call.query)
}

pub(crate) async fn topics_of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, _) = call.vhost(0)?;
    listing::answer(all_topics(&call, |_, vhost, _| *vhost == name), &call.query)
}

pub(crate) async fn topics_of_user(call: Call) -> Result<Answer, Failure> {
    let name = call.user_name(0)?;
    listing::answer(all_topics(&call, |user, _, _| user.name == name), &call.query)
}

/// The topic permissions that `chosen` picks, by vhost and user.
pub(crate) fn all_topics(call: &Call, chosen: impl Fn(&User, &VhostName, &ExchangeName) -> bool) -> Vec<Value> {
    let mut found = Vec::new();
    for user in call.topology.users() {
        for ((vhost, exchange), permission) in &user.topic_permissions {
            if chosen(user, vhost, exchange) {
                found.push(render_topic(user, vhost, exchange, permission));
            }
        }
    }
    found
}

fn render_topic(user: &User, vhost: &VhostName, exchange: &ExchangeName, permission: &TopicPermission) -> Value {
    let [write, read] = permission.patterns();
    json!({
        "user": user.name.as_str(), "vhost": vhost.as_str(), "exchange": exchange.as_str(), "write": write, "read": read,
    })
}

/// Those of a user in a vhost, or for one exchange.
pub(crate) async fn get_topics(call: Call) -> Result<Answer, Failure> {
    let (name, _) = call.vhost(0)?;
    let user_name = call.user_name(1)?;
    let exchange = call.names.get(2);
    let found = all_topics(&call, |user, vhost, of| {
        user.name == user_name && *vhost == name && exchange.is_none_or(|exchange| exchange == of.as_str())
    });
    if found.is_empty() {
        return Err(Failure::not_found());
    }
    listing::answer(found, &call.query)
}

pub(crate) async fn put_topic(call: Call) -> Result<Answer, Failure> {
    let object = call.object_with(&["exchange", "write", "read"])?;
    let (exchange, permission) = read_topic(&object)?;
    let (user, vhost) = (UserName::new(call.name(1)), call.vhost_name(0));
    let outcome = call.management.broker.set_topic_permission(&user, &vhost, &exchange, Some(permission));
    if outcome == Err(AdministrationError::NoExchange) {
        let reason = vec!["no_such_exchange".into(), exchange.as_str().into()];
        return Err(Failure::bad_request(Value::Array(reason)));
    }
    finish(&call, outcome).await
}

/// Reads the exchange and the two patterns of a body.
pub(crate) fn read_topic(object: &Map<String, Value>) -> Result<(ExchangeName, TopicPermission), Failure> {
    let exchange = ExchangeName::new(pattern(object, "exchange")?);
    let permission = TopicPermission::parse(pattern(object, "write")?, pattern(object, "read")?)
        .map_err(|error| invalid(&error.pattern, &error.fault))?;
    Ok((exchange, permission))
}

/// Removes those for one exchange, or all that a user has in a vhost.
pub(crate) async fn delete_topics(call: Call) -> Result<Answer, Failure> {
    let (vhost, user) = (call.vhost_name(0), UserName::new(call.name(1)));
    let known = call.topology.user(&user).ok_or_else(Failure::not_found)?;
    let chosen = |of: &ExchangeName| call.names.get(2).is_none_or(|exchange| exchange == of.as_str());
    let exchanges: Vec<ExchangeName> = known
        .topic_permissions
        .keys()
        .filter(|(in_vhost, exchange)| *in_vhost == vhost && chosen(exchange))
        .map(|(_, exchange)| exchange.clone())
        .collect();
    let mut outcome = Err(AdministrationError::NotFound);
    for exchange in exchanges {
        outcome = call.management.broker.set_topic_permission(&user, &vhost, &exchange, None);
    }
    removed(&call, outcome).await
}
