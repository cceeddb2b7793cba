//! One request as endpoints see it: who asks, what the path and the query say, and the body.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::broker::{Topology, VhostTopology};
use crate::model::names::{UserName, VhostName};

use super::Management;
use super::answer::Failure;
use super::identity::Identity;

/// See the module's documentation.
pub(crate) struct Call {
    pub management: Arc<Management>,
    pub identity: Identity,
    /// The caller's address; none on the local socket.
    pub peer: Option<IpAddr>,
    /// What stands for the placeholders of the path, decoded once.
    pub names: Vec<String>,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The definitions as of the request's arrival.
    pub topology: Arc<Topology>,
}

/// The parameters behind the question mark. Of those that are there twice, the first counts, unless all are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

impl Query {
    /// Reads `name=value&…`, with `+` for a space.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Self {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            values.entry(decode_form(name)).or_default().push(decode_form(value));
        }
        Self(values)
    }

    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    /// All values of a parameter, in order.
    #[must_use]
    pub(crate) fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether the parameter is `true`.
    #[must_use]
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// A number, if it is one.
    #[must_use]
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

/// Decodes `%41` and `+`.
#[must_use]
pub(crate) fn decode_form(text: &str) -> String {
    decode(&text.replace('+', " "))
}

/// Decodes `%41`, once. What is not UTF-8 then is replaced.
#[must_use]
pub(crate) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

impl Call {
    /// What stands for the placeholder at this place; empty when there is none.
    #[must_use]
    pub(crate) fn name(&self, at: usize) -> &str {
        self.names.get(at).map_or("", String::as_str)
    }

    /// The vhost that the path names at this place.
    #[must_use]
    pub(crate) fn vhost_name(&self, at: usize) -> VhostName {
        VhostName::new(self.name(at))
    }

    /// The vhost that the path names at this place, or 404.
    pub(crate) fn vhost(&self, at: usize) -> Result<(VhostName, &Arc<VhostTopology>), Failure> {
        let name = self.vhost_name(at);
        let vhost = self.topology.vhost(&name).ok_or_else(Failure::not_found)?;
        Ok((name, vhost))
    }

    /// The user that the path names at this place, or 404.
    pub(crate) fn user_name(&self, at: usize) -> Result<UserName, Failure> {
        let name = UserName::new(self.name(at));
        if self.topology.user(&name).is_none() {
            return Err(Failure::not_found());
        }
        Ok(name)
    }

    /// The vhosts that the caller may work in, by name.
    #[must_use]
    pub(crate) fn own_vhosts(&self) -> Vec<(&VhostName, &Arc<VhostTopology>)> {
        let vhosts = self.topology.vhosts();
        vhosts.into_iter().filter(|(name, _)| self.identity.has_vhost(name)).collect()
    }

    /// The body as a JSON object; nothing, `null` and `[]` count as an empty one.
    pub(crate) fn object(&self) -> Result<Map<String, Value>, Failure> {
        let text = self.body.trim_ascii();
        if text.is_empty() || text == b"undefined" {
            return Ok(Map::new());
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(Value::Null) => Ok(Map::new()),
            Ok(Value::String(_)) => Err(Failure::bad_request(
                "invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?",
            )),
            _ => Err(Failure::bad_request("not_json")),
        }
    }

    /// The body with these keys, all of which have to be there.
    pub(crate) fn object_with(&self, keys: &[&str]) -> Result<Map<String, Value>, Failure> {
        let object = self.object()?;
        let missing: Vec<&str> = keys.iter().copied().filter(|key| !object.contains_key(*key)).collect();
        if missing.is_empty() { Ok(object) } else { Err(Failure::keys_missing(&missing)) }
    }
}

/// A JSON boolean, or one as text.
pub(crate) fn boolean(value: &Value) -> Result<bool, Failure> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(Failure::bad_request(Value::Array(vec!["not_boolean".into(), other.clone()]))),
    }
}

/// An object; an empty array counts as an empty one, since some languages cannot tell them apart.
#[must_use]
pub(crate) fn map_of(value: Option<&Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map.clone(),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_once() {
        let query = Query::parse("name=a%252Fb+c&page=2&page=3&flag&use_regex=true");
        assert_eq!(query.get("name"), Some("a%2Fb c"));
        assert_eq!((query.number("page"), query.get("flag")), (Some(2), Some("")));
        assert_eq!((query.all("page"), query.all("none")), (&["2".to_owned(), "3".to_owned()][..], &[][..]));
        assert!(query.is_true("use_regex") && !query.is_true("flag"));
    }
}
