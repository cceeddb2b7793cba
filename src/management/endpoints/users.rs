//! Users.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::broker::{Credentials, Existed, HashAlgorithm, PasswordHash, User, UserLimits};
use crate::model::names::UserName;

use super::super::answer::{Answer, Failure};
use super::super::call::{Call, map_of};
use super::super::listing;
use super::super::passwords::PasswordRules;

/// Tags that one user may have.
const TAGS_MAX: usize = 32;

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    listing::answer(call.topology.users().into_iter().map(|user| render(user)).collect(), &call.query)
}

pub(crate) async fn without_permissions(call: Call) -> Result<Answer, Failure> {
    let users = call.topology.users().into_iter().filter(|user| user.permissions.is_empty());
    listing::answer(users.map(|user| render(user)).collect(), &call.query)
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let user = call.topology.user(&UserName::new(call.name(0))).ok_or_else(Failure::not_found)?;
    Ok(listing::one(render(user), &call.query))
}

/// A user as listings and definitions show it.
pub(crate) fn render(user: &User) -> Value {
    json!({
        "name": user.name.as_str(),
        "password_hash": STANDARD.encode(user.password.as_bytes()),
        "hashing_algorithm": user.password.algorithm().name(),
        "tags": user.tags,
        "limits": limits(&user.limits),
    })
}

/// The limits that a user has.
pub(crate) fn limits(limits: &UserLimits) -> Value {
    let mut map = Map::new();
    for (name, limit) in [("max-connections", limits.max_connections), ("max-channels", limits.max_channels)] {
        if let Some(limit) = limit {
            map.insert(name.to_owned(), limit.into());
        }
    }
    Value::Object(map)
}

pub(crate) async fn put(call: Call) -> Result<Answer, Failure> {
    let name = UserName::new(call.name(0));
    if name.as_str().is_empty() {
        return Err(Failure::not_found());
    }
    let wanted = Wanted::read(&call.object()?, HashAlgorithm::Sha256, &call.management.settings.passwords)?;
    let salt = call.management.node.salt();
    let existed = call.management.broker.put_user(&name, |current| wanted.over(&name, current, salt));
    call.management.broker.settled().await;
    Ok(Answer::put(existed == Existed::Yes))
}

/// What a body says of a user.
pub(crate) struct Wanted {
    password: Password,
    tags: Vec<String>,
    limits: Option<UserLimits>,
}

enum Password {
    None,
    Plain(String),
    Hash(PasswordHash),
}

impl Wanted {
    /// Reads and checks it. `default` is what a hash without an algorithm is made with.
    pub(crate) fn read(
        object: &Map<String, Value>,
        default: HashAlgorithm,
        rules: &PasswordRules,
    ) -> Result<Self, Failure> {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let tags = object.get("tags").ok_or_else(|| Failure::bad_request("tags_not_present"))?;
        let tags = tags_of_user(tags)?;
        let password = match (text("password"), text("password_hash")) {
            (Some(_), Some(_)) => {
                return Err(Failure::bad_request("both_password_and_password_hash_are_provided"));
            }
            (Some(password), None) => {
                rules.check(password)?;
                Password::Plain(password.to_owned())
            }
            (None, Some(hash)) => {
                let not_base64 = || Failure::bad_request(Value::Array(vec!["not_base64".into(), hash.into()]));
                let bytes = STANDARD.decode(hash).map_err(|_| not_base64())?;
                let algorithm = match text("hashing_algorithm") {
                    None => default,
                    Some(name) => HashAlgorithm::from_name(name)
                        .ok_or_else(|| Failure::bad_request(format!("the hashing algorithm {name} is not known")))?,
                };
                Password::Hash(PasswordHash::imported(algorithm, &bytes).ok_or_else(not_base64)?)
            }
            (None, None) => Password::None,
        };
        Ok(Self { password, tags, limits: object.get("limits").map(read_limits).transpose()? })
    }

    /// The user as it is to be. Who is named without a password cannot log in with one; a password that is the user's
    /// already stays with its salt.
    #[must_use]
    pub(crate) fn over(&self, name: &UserName, current: Option<&User>, salt: [u8; 4]) -> User {
        let mut user = current.cloned().unwrap_or_else(|| User::new(name.clone(), PasswordHash::none(), Vec::new()));
        user.tags.clone_from(&self.tags);
        user.password = match &self.password {
            Password::Plain(password) if user.password.matches(password.as_bytes()) => user.password,
            Password::Plain(password) => PasswordHash::new(salt, password.as_bytes()),
            Password::Hash(hash) => hash.clone(),
            Password::None => PasswordHash::none(),
        };
        if let Some(limits) = self.limits {
            user.limits = limits;
        }
        user
    }
}

fn read_limits(value: &Value) -> Result<UserLimits, Failure> {
    let mut limits = UserLimits::default();
    for (name, value) in &map_of(Some(value)) {
        *limit_of(&mut limits, name, value)? = value.as_i64();
    }
    Ok(limits)
}

/// The limit of this name, for a value that it may have.
pub(crate) fn limit_of<'a>(
    limits: &'a mut UserLimits,
    name: &str,
    value: &Value,
) -> Result<&'a mut Option<i64>, Failure> {
    if !value.is_i64() {
        let shown = crate::broker::policy::erlang(value);
        return Err(Failure::bad_request(format!("{name} should be a number, actually was {shown}")));
    }
    let shown = crate::broker::policy::erlang(value);
    limits
        .get_mut(name)
        .ok_or_else(|| Failure::bad_request(format!("Unrecognised terms [{{<<\"{name}\">>,{shown}}}] in user-limits")))
}

/// Tags as a list, or as text with commas.
pub(crate) fn tags(value: &Value) -> Result<Vec<String>, Failure> {
    let tags: Vec<String> = match value {
        Value::String(text) => text.split(',').map(|tag| tag.trim().to_owned()).collect(),
        Value::Array(list) => {
            let tags = list.iter().map(|tag| tag.as_str().map(|tag| tag.trim().to_owned()));
            tags.collect::<Option<_>>().ok_or_else(|| Failure::bad_request("tags have to be texts"))?
        }
        _ => return Err(Failure::bad_request("tags have to be a list of texts, or a text with commas")),
    };
    Ok(tags.into_iter().filter(|tag| !tag.is_empty()).collect())
}

fn tags_of_user(value: &Value) -> Result<Vec<String>, Failure> {
    let tags = tags(value)?;
    if tags.len() > TAGS_MAX {
        let text = format!("A user can have at most {TAGS_MAX} tags (received {})", tags.len());
        return Err(Failure::bad_request(text));
    }
    Ok(tags)
}

pub(crate) async fn delete(call: Call) -> Result<Answer, Failure> {
    if !call.management.broker.delete_user(&UserName::new(call.name(0))) {
        return Err(Failure::not_found());
    }
    call.management.broker.settled().await;
    Ok(Answer::done())
}

pub(crate) async fn bulk_delete(call: Call) -> Result<Answer, Failure> {
    let object = call.object_with(&["users"])?;
    let users = object.get("users").and_then(Value::as_array);
    let users = users.ok_or_else(|| Failure::bad_request("users have to be a list of names"))?;
    for user in users.iter().filter_map(Value::as_str) {
        call.management.broker.delete_user(&UserName::new(user));
    }
    call.management.broker.settled().await;
    Ok(Answer::done())
}

/// The exclusive queues of a user's connections.
pub(crate) async fn queues(call: Call) -> Result<Answer, Failure> {
    let owner = UserName::new(call.name(0));
    let mut found = Vec::new();
    for (name, vhost) in call.own_vhosts() {
        for queue in vhost.queues.values().filter(|queue| queue.exclusive.is_some()) {
            let connection = queue.exclusive.and_then(|owner| call.management.broker.registry.get(owner));
            let user = connection.and_then(|connection| connection.record.facts.lock().user.clone());
            if user.as_ref() == Some(&owner) {
                found.push(json!({"name": queue.name.as_str(), "vhost": name.as_str()}));
            }
        }
    }
    listing::answer(found, &call.query)
}

/// Who the caller is.
pub(crate) async fn whoami(call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(describe(&call)))
}

fn describe(call: &Call) -> Value {
    json!({
        "name": call.identity.user_name().as_str(),
        "tags": call.identity.tags(),
        "is_internal_user": call.identity.is_internal(),
    })
}

/// Checks a name and a password from a form.
pub(crate) async fn log_in(call: Call) -> Result<Answer, Failure> {
    let form = super::super::call::Query::parse(&String::from_utf8_lossy(&call.body));
    let (Some(user), Some(password)) = (form.get("username"), form.get("password")) else {
        return Err(Failure::wrong_credentials());
    };
    let peer = call.peer.unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]));
    let credentials = Credentials { user: UserName::new(user), secret: password.as_bytes().to_vec(), peer };
    let identity = call.management.log_in(credentials, &call.topology).await?;
    super::super::identity::Guard::Management.check(&identity, &[], &call.topology)?;
    let token = STANDARD.encode(format!("{user}:{password}"));
    let call = Call { identity, ..call };
    Ok(Answer::json(json!({"user": describe(&call), "token": {"type": "basic", "value": token}})))
}

/// There is nothing to forget: a token is the password itself.
pub(crate) async fn log_out(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::done())
}

/// The salted hash of a password.
pub(crate) async fn hash_password(call: Call) -> Result<Answer, Failure> {
    let hash = PasswordHash::new(call.management.node.salt(), call.name(0).as_bytes());
    Ok(Answer::json(json!({"ok": STANDARD.encode(hash.as_bytes())})))
}
