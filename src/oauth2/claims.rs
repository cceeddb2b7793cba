//! Where a token has its scopes: `scope`, further claims, permissions of a requesting party token, aliases, and rich
//! authorization requests.

use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::{ResourceServer, TokenError};

/// More scopes are not looked at: each check goes through all of them.
pub(super) const SCOPES_MAX: usize = 2048;

/// Where a requesting party token (of Keycloak) has its scopes.
const PARTY_TOKEN_PATH: &str = "authorization.permissions.scopes";

/// What may stand in the locations of a rich authorization request.
const LOCATIONS: [&str; 5] = ["cluster", "vhost", "queue", "exchange", "routing-key"];
const TAGS: [&str; 4] = ["monitoring", "administrator", "management", "policymaker"];
const ACTIONS: [&str; 3] = ["read", "write", "configure"];

/// All scopes of the token for this resource server, without its prefix.
pub(super) fn scopes(server: &ResourceServer, claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
    let mut found = Vec::new();
    let paths = server.additional_scopes_keys.iter().map(String::as_str);
    for path in ["scope", PARTY_TOKEN_PATH].into_iter().chain(paths) {
        collect(&mut found, server, claims, path)?;
    }
    let aliased: Vec<String> =
        found.iter().filter_map(|scope| server.scope_aliases.get(scope)).flatten().cloned().collect();
    found.extend(aliased);
    rich_authorizations(&mut found, server, claims)?;
    let stripped = found.iter().filter_map(|scope| scope.strip_prefix(server.scope_prefix.as_str()));
    let mut scopes: Vec<String> = stripped.map(str::to_owned).collect();
    scopes.sort();
    scopes.dedup();
    Ok(scopes)
}

/// Adds a scope, unless there are too many of them already.
fn add(found: &mut Vec<String>, scope: impl Into<String>) -> Result<(), TokenError> {
    if found.len() >= SCOPES_MAX {
        return Err(TokenError::TooManyScopes);
    }
    found.push(scope.into());
    Ok(())
}

/// Adds the scopes of the claim that a path of words and dots leads to; lists on the way are followed everywhere.
fn collect(
    found: &mut Vec<String>,
    server: &ResourceServer,
    claims: &Map<String, Value>,
    path: &str,
) -> Result<(), TokenError> {
    // A claim may have dots in its name, such as a URL.
    if let Some(value) = claims.get(path) {
        return add_value(found, server, value);
    }
    let mut values: Vec<&Value> = Vec::new();
    let mut words = path.split('.').filter(|word| !word.is_empty());
    values.extend(words.next().and_then(|first| claims.get(first)));
    for word in words {
        let flat = values.iter().flat_map(|value| match value {
            Value::Array(list) => list.iter().collect(),
            value => vec![*value],
        });
        values = flat.filter_map(|value| value.get(word)).collect();
    }
    values.into_iter().try_for_each(|value| add_value(found, server, value))
}

fn add_value(found: &mut Vec<String>, server: &ResourceServer, value: &Value) -> Result<(), TokenError> {
    match value {
        Value::String(text) => words(text).try_for_each(|scope| add(found, scope)),
        Value::Array(list) => list.iter().filter_map(Value::as_str).try_for_each(|scope| add(found, scope)),
        // By resource server, without its prefix.
        Value::Object(by_server) => {
            let prefixed = |scope: &str| format!("{}{scope}", server.scope_prefix);
            match by_server.get(&server.id) {
                Some(Value::String(text)) => words(text).try_for_each(|scope| add(found, prefixed(scope))),
                Some(Value::Array(list)) => {
                    list.iter().filter_map(Value::as_str).try_for_each(|scope| add(found, prefixed(scope)))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

/// Adds scopes for `authorization_details` (RFC 9396): actions at locations such as `cluster:prod/vhost:v/queue:q*`.
fn rich_authorizations(
    found: &mut Vec<String>,
    server: &ResourceServer,
    claims: &Map<String, Value>,
) -> Result<(), TokenError> {
    let Some(Value::Array(details)) = claims.get("authorization_details") else { return Ok(()) };
    let ours =
        |detail: &&Value| !server.kind.is_empty() && detail.get("type").and_then(Value::as_str) == Some(&server.kind);
    for detail in details.iter().filter(ours) {
        let places: Vec<String> =
            texts(detail.get("locations")).filter_map(|location| place(server, location, claims)).collect();
        for action in texts(detail.get("actions")).filter(|_| !places.is_empty()) {
            if TAGS.contains(&action) {
                add(found, format!("{}tag:{action}", server.scope_prefix))?;
            } else if ACTIONS.contains(&action) {
                for place in &places {
                    add(found, format!("{}{action}:{place}", server.scope_prefix))?;
                }
            }
        }
    }
    Ok(())
}

/// A text, or all texts of a list.
fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = match value {
        Some(Value::Array(list)) => list.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    list.iter().filter_map(Value::as_str)
}

/// What a location means as the resource of a scope; none when it is of another cluster or means nothing.
fn place(server: &ResourceServer, location: &str, claims: &Map<String, Value>) -> Option<String> {
    let attribute = |name: &str| {
        let mut found = None;
        for (key, value) in location.split('/').filter_map(|part| part.split_once(':')) {
            if LOCATIONS.contains(&key) && key == name {
                found = Some(value);
            }
        }
        found
    };
    let cluster = Pattern::parse(attribute("cluster")?, claims)?;
    if !cluster.matches(&server.id, "") {
        return None;
    }
    let name = match (attribute("queue"), attribute("exchange")) {
        (Some(queue), Some(exchange)) if queue != exchange => return None,
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => "*",
    };
    let [vhost, key] = ["vhost", "routing-key"].map(|name| attribute(name).unwrap_or("*"));
    Some(format!("{vhost}/{name}/{key}"))
}
