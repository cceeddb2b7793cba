//! What a token allows, in RabbitMQ's grammar: `<action>:<vhost>/<name>[/<routing key>]` and `tag:<tag>`.

use serde_json::{Map, Value};

use super::pattern::Pattern;
use crate::model::ids::Timestamp;
use crate::model::names::UserName;

/// What an operation does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Configure,
    Write,
    Read,
}

/// The bearer of a token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    user: UserName,
    tags: Vec<String>,
    scopes: Vec<Scope>,
    expires: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    action: Action,
    vhost: Pattern,
    name: Pattern,
    /// None: nothing is said of the routing keys of topic exchanges.
    key: Option<Pattern>,
}

impl Grant {
    /// `scopes` have lost their prefix; what is no scope of this broker is passed over.
    pub(super) fn new(user: UserName, expires: Timestamp, scopes: &[String], claims: &Map<String, Value>) -> Self {
        let mut tags: Vec<String> =
            scopes.iter().filter_map(|scope| scope.strip_prefix("tag:")).map(str::to_owned).collect();
        tags.sort();
        tags.dedup();
        let scopes = scopes.iter().filter_map(|scope| Scope::parse(scope, claims)).collect();
        Self { user, tags, scopes, expires }
    }

    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// Sorted, each once.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// From then on it allows nothing: whoever holds it is to let it go.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether any scope speaks of the vhost.
    #[must_use]
    pub fn allows_vhost(&self, vhost: &str) -> bool {
        self.scopes.iter().any(|scope| scope.vhost.matches(vhost, vhost))
    }

    /// Whether the exchange or queue may be used so; the default exchange is called `amq.default`.
    #[must_use]
    pub fn allows(&self, vhost: &str, action: Action, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.covers(vhost, action, name))
    }

    /// Whether the routing key may be used with the topic exchange. As in RabbitMQ that takes a scope which has a pattern
    /// for routing keys.
    #[must_use]
    pub fn allows_topic(&self, vhost: &str, action: Action, exchange: &str, key: &str) -> bool {
        let fits = |scope: &Scope| scope.key.as_ref().is_some_and(|pattern| pattern.matches(key, vhost));
        self.scopes.iter().any(|scope| scope.covers(vhost, action, exchange) && fits(scope))
    }
}

impl Scope {
    fn parse(text: &str, claims: &Map<String, Value>) -> Option<Self> {
        let (action, resource) = text.split_once(':')?;
        let action = match action {
            "configure" => Action::Configure,
            "write" => Action::Write,
            "read" => Action::Read,
            _ => return None,
        };
        let mut segments = resource.split('/').map(|segment| Pattern::parse(segment, claims));
        let (vhost, name) = (segments.next()??, segments.next()??);
        let key = match segments.next() {
            Some(key) => Some(key?),
            None => None,
        };
        segments.next().is_none().then_some(Self { action, vhost, name, key })
    }

    fn covers(&self, vhost: &str, action: Action, name: &str) -> bool {
        self.action == action && self.vhost.matches(vhost, vhost) && self.name.matches(name, vhost)
    }
}
