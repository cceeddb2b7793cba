//! Policies: what operators say of queues and exchanges by patterns of their names; which policy applies to what, and what
//! comes of it together with the arguments of a declaration.
//!
//! A policy's key is a queue argument without its `x-`; the table of arguments says what it may hold and which types of
//! queue know it.

use std::cmp::Reverse;
use std::sync::Arc;

use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use crate::model::entity::{DeadLetterTarget, EXPIRY_MAX_MS, Overflow, QueueOptions, QueueType, is_argument_known_to};
use crate::model::expression::PatternFault;
use crate::model::names::RoutingKey;
use crate::model::policy::AppliedPolicy;

use super::BrokerSettings;
use super::arguments::queue_options;
use crate::model::table::FieldTable;

/// The component of runtime parameters that regular policies are.
pub const POLICY: &str = "policy";
/// The component of runtime parameters that operator policies are.
pub const OPERATOR_POLICY: &str = "operator_policy";

/// Which of the two sets of policies is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    Regular,
    Operator,
}

impl PolicyKind {
    /// The component under which policies of this kind are stored.
    #[must_use]
    pub fn component(self) -> &'static str {
        match self {
            Self::Regular => POLICY,
            Self::Operator => OPERATOR_POLICY,
        }
    }
}

/// What a policy may apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyTo {
    All,
    Exchanges,
    Queues,
    ClassicQueues,
    QuorumQueues,
    Streams,
}

impl ApplyTo {
    const NAMES: [(&'static str, Self); 6] = [
        ("all", Self::All),
        ("exchanges", Self::Exchanges),
        ("queues", Self::Queues),
        ("classic_queues", Self::ClassicQueues),
        ("quorum_queues", Self::QuorumQueues),
        ("streams", Self::Streams),
    ];

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, apply_to)| *apply_to)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, apply_to)| *apply_to == self).map_or("all", |(name, _)| name)
    }

    fn is_for(self, target: Target) -> bool {
        match (self, target) {
            (Self::All, _) | (Self::Exchanges, Target::Exchange) | (Self::Queues, Target::Queue(_)) => true,
            (Self::ClassicQueues, Target::Queue(kind)) => kind == QueueType::Classic,
            (Self::QuorumQueues, Target::Queue(kind)) => kind == QueueType::Quorum,
            (Self::Streams, Target::Queue(kind)) => kind == QueueType::Stream,
            (Self::Exchanges, Target::Queue(_))
            | (Self::Queues | Self::ClassicQueues | Self::QuorumQueues | Self::Streams, Target::Exchange) => false,
        }
    }
}

/// What a policy is looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Exchange,
    Queue(QueueType),
}

/// A policy as defined.
#[derive(Clone, Debug)]
pub struct Policy {
    pub name: String,
    /// Unanchored.
    pub pattern: String,
    pub apply_to: ApplyTo,
    pub priority: i64,
    pub definition: Map<String, Value>,
    regex: Arc<Regex>,
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.value() == other.value()
    }
}

impl Policy {
    /// Reads and checks what a policy is stored as: an object with pattern, definition, priority and apply-to. The error is
    /// RabbitMQ's text.
    pub fn parse(kind: PolicyKind, name: &str, value: &Value) -> Result<Self, String> {
        let pattern = match value.get("pattern") {
            Some(Value::String(pattern)) => pattern.clone(),
            Some(other) => return Err(format!("pattern should be a binary, actually was {}", erlang(other))),
            None => return Err("Key \"pattern\" not found in value".to_owned()),
        };
        let regex = Regex::new(&pattern).map_err(|error| {
            let PatternFault { reason, place } = PatternFault::of(&pattern, &error);
            let indent = " ".repeat(54);
            format!("pattern should be regular expression but is invalid: {{\"{reason}\",\n{indent}{place}}}")
        })?;
        let priority = match value.get("priority") {
            None => 0,
            Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
            Some(other) => return Err(format!("priority should be a number, actually was {}", erlang(other))),
        };
        let apply_to = match value.get("apply-to") {
            None => ApplyTo::All,
            Some(Value::String(name)) => ApplyTo::from_name(name).ok_or_else(|| {
                format!(
                    "apply-to '{name}' unrecognised; should be one of: 'queues', 'classic_queues',  'quorum_queues', \
                     'streams', 'exchanges', or 'all'"
                )
            })?,
            Some(other) => return Err(format!("apply-to should be a binary, actually was {}", erlang(other))),
        };
        let definition = match value.get("definition") {
            Some(Value::Object(definition)) => definition.clone(),
            Some(Value::Array(list)) if list.is_empty() => Map::new(),
            Some(other) => return Err(format!("definition should be a map, actually was {}", erlang(other))),
            None => return Err("Key \"definition\" not found in value".to_owned()),
        };
        check_definition(kind, &definition)?;
        Ok(Self { name: name.to_owned(), pattern, apply_to, priority, definition, regex: Arc::new(regex) })
    }

    /// What `parse` reads.
    #[must_use]
    pub fn value(&self) -> Value {
        json!({
            "pattern": self.pattern,
            "definition": self.definition,
            "priority": self.priority,
            "apply-to": self.apply_to.name(),
        })
    }

    /// Whether it is for such a thing of this name. A pattern that fails to run matches nothing, and a policy that says
    /// something that a type of queue does not know is not for that type.
    #[must_use]
    pub fn matches(&self, target: Target, name: &str) -> bool {
        let is_known =
            |kind: QueueType| self.definition.keys().all(|key| is_argument_known_to(key, kind).unwrap_or(true));
        let fits = match target {
            Target::Exchange => true,
            Target::Queue(kind) => is_known(kind),
        };
        fits && self.apply_to.is_for(target) && self.regex.is_match(name).unwrap_or(false)
    }
}

/// The policies of a vhost, of both kinds, the most important first.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    pub regular: Vec<Arc<Policy>>,
    pub operator: Vec<Arc<Policy>>,
}

impl Policies {
    #[must_use]
    pub fn of(&self, kind: PolicyKind) -> &[Arc<Policy>] {
        match kind {
            PolicyKind::Regular => &self.regular,
            PolicyKind::Operator => &self.operator,
        }
    }

    #[must_use]
    pub fn get(&self, kind: PolicyKind, name: &str) -> Option<&Arc<Policy>> {
        self.of(kind).iter().find(|policy| policy.name == name)
    }

    /// Adds a policy, or replaces the one of its name.
    pub fn set(&mut self, kind: PolicyKind, policy: Policy) {
        self.remove(kind, &policy.name);
        let list = self.list(kind);
        list.push(Arc::new(policy));
        // Of equal priority, the first by name: which one applies is not left to chance.
        list.sort_by(|a, b| (Reverse(a.priority), &a.name).cmp(&(Reverse(b.priority), &b.name)));
    }

    pub fn remove(&mut self, kind: PolicyKind, name: &str) {
        self.list(kind).retain(|policy| policy.name != name);
    }

    /// What applies to a thing of this name; none when no policy does.
    #[must_use]
    pub fn applied(&self, target: Target, name: &str) -> Option<Arc<AppliedPolicy>> {
        let find = |list: &[Arc<Policy>]| list.iter().find(|policy| policy.matches(target, name)).cloned();
        let (regular, operator) = (find(&self.regular), find(&self.operator));
        if regular.is_none() && operator.is_none() {
            return None;
        }
        let mut definition = regular.as_ref().map(|policy| policy.definition.clone()).unwrap_or_default();
        for (key, value) in operator.iter().flat_map(|policy| &policy.definition) {
            let merged = match definition.get(key) {
                Some(own) => stricter(key, own, value),
                None => value.clone(),
            };
            definition.insert(key.clone(), merged);
        }
        Some(Arc::new(AppliedPolicy {
            policy: regular.map(|policy| policy.name.clone()),
            operator_policy: operator.map(|policy| policy.name.clone()),
            definition,
        }))
    }

    fn list(&mut self, kind: PolicyKind) -> &mut Vec<Arc<Policy>> {
        match kind {
            PolicyKind::Regular => &mut self.regular,
            PolicyKind::Operator => &mut self.operator,
        }
    }
}

/// What a queue does: its arguments and the policies that apply. Limits are the smaller of both; of the rest, arguments
/// win.
#[must_use]
pub(super) fn options_of(
    arguments: &FieldTable,
    auto_delete: bool,
    applied: Option<&AppliedPolicy>,
    settings: &BrokerSettings,
) -> QueueOptions {
    let mut options = queue_options(arguments, auto_delete, settings);
    let Some(AppliedPolicy { definition, .. }) = applied else { return options };
    let number = |key: &str| definition.get(key).and_then(Value::as_u64);
    let text = |key: &str| definition.get(key).and_then(Value::as_str);
    let smaller = |own: Option<u64>, key: &str| own.into_iter().chain(number(key)).min();
    options.message_ttl_ms = smaller(options.message_ttl_ms, "message-ttl");
    options.expires_ms = smaller(options.expires_ms, "expires");
    options.max_length = smaller(options.max_length, "max-length");
    options.max_length_bytes = smaller(options.max_length_bytes, "max-length-bytes");
    add_dead_letter(&mut options.dead_letter, definition);
    if arguments.find("x-overflow").is_none() {
        options.overflow = text("overflow").map_or(Overflow::DropHead, Overflow::from_name);
    }
    options
}

/// Where dead letters go by policy, if the queue's arguments do not say. What no short string can hold is no name and no key.
fn add_dead_letter(target: &mut Option<DeadLetterTarget>, definition: &Map<String, Value>) {
    let short = |key: &str| definition.get(key).and_then(Value::as_str).filter(|text| text.len() <= 255);
    let routing_key = short("dead-letter-routing-key").map(|key| RoutingKey::new(key.as_bytes()));
    match target {
        Some(target) => target.routing_key = target.routing_key.take().or(routing_key),
        None => {
            *target = short("dead-letter-exchange")
                .map(|exchange| DeadLetterTarget { exchange: exchange.into(), routing_key });
        }
    }
}

/// A key of policies: what it may hold, and the sentence about what it may not.
struct Key {
    name: &'static str,
    is_valid: fn(&Value) -> bool,
    /// After "is not a valid ".
    what: &'static str,
    operator: bool,
}

const fn key(name: &'static str, is_valid: fn(&Value) -> bool, what: &'static str) -> Key {
    Key { name, is_valid, what, operator: false }
}

const fn operator_key(name: &'static str, is_valid: fn(&Value) -> bool, what: &'static str) -> Key {
    Key { name, is_valid, what, operator: true }
}

fn is_text(value: &Value) -> bool {
    value.is_string()
}

fn is_count(value: &Value) -> bool {
    value.as_u64().is_some()
}

fn is_positive(value: &Value) -> bool {
    value.as_u64().is_some_and(|n| n > 0)
}

fn is_duration(value: &Value) -> bool {
    value.as_u64().is_some_and(|n| n <= EXPIRY_MAX_MS.unsigned_abs())
}

fn is_lease(value: &Value) -> bool {
    is_duration(value) && is_positive(value)
}

fn is_age(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let number = text.strip_suffix(['Y', 'M', 'D', 'h', 'm', 's']).unwrap_or_default();
    number.parse::<u64>().is_ok_and(|n| n > 0)
}

fn one_of(value: &Value, names: &[&str]) -> bool {
    value.as_str().is_some_and(|text| names.contains(&text))
}

const KEYS: [Key; 25] = [
    key("alternate-exchange", is_text, "alternate exchange name"),
    key("consumer-timeout", is_count, "consumer timeout"),
    key("consumer-disconnected-timeout", is_count, "consumer disconnected timeout"),
    key("dead-letter-exchange", is_text, "dead letter exchange name"),
    key("dead-letter-routing-key", is_text, "dead letter routing key"),
    key("dead-letter-strategy", |value| one_of(value, &["at-most-once", "at-least-once"]), "dead letter strategy"),
    operator_key("message-ttl", is_duration, "message TTL"),
    operator_key("expires", is_lease, "queue expiry"),
    operator_key("max-length", is_count, "maximum length"),
    operator_key("max-length-bytes", is_count, "maximum length in bytes"),
    operator_key("max-in-memory-length", is_count, "maximum memory in bytes"),
    operator_key("max-in-memory-bytes", is_count, "maximum memory in bytes"),
    key("queue-mode", |value| one_of(value, &["default", "lazy"]), "queue-mode value"),
    operator_key("queue-version", |value| matches!(value.as_u64(), Some(1 | 2)), "queue version"),
    operator_key(
        "overflow",
        |value| one_of(value, &["drop-head", "reject-publish", "reject-publish-dlx"]),
        "overflow value",
    ),
    operator_key("delivery-limit", Value::is_i64, "delivery limit"),
    operator_key(
        "delayed-retry-type",
        |value| one_of(value, &["all", "failed", "returned", "disabled"]),
        "delayed retry type",
    ),
    operator_key("delayed-retry-min", is_positive, "delayed retry time"),
    operator_key("delayed-retry-max", is_positive, "delayed retry time"),
    key("max-age", is_age, "max age"),
    key("stream-max-segment-size-bytes", is_count, "segment size"),
    key(
        "stream-filter-size-bytes",
        |value| matches!(value.as_u64(), Some(16..=255)),
        "filter size. Valid range is 16-255.",
    ),
    key(
        "queue-leader-locator",
        |value| one_of(value, &["client-local", "balanced", "random", "least-leaders"]),
        "queue leader locator value",
    ),
    key("initial-cluster-size", is_positive, "cluster size"),
    operator_key("target-group-size", is_positive, "target group size"),
];

/// Whether a policy of this kind may have the key at all.
#[must_use]
pub fn is_policy_key(kind: PolicyKind, name: &str) -> bool {
    KEYS.iter().any(|key| key.name == name && (key.operator || kind == PolicyKind::Regular))
}

fn check_definition(kind: PolicyKind, definition: &Map<String, Value>) -> Result<(), String> {
    if definition.is_empty() {
        return Err("no policy provided".to_owned());
    }
    let unknown = definition.iter().filter(|(name, _)| !is_policy_key(kind, name));
    let unknown: Vec<String> = unknown.map(|(name, value)| format!("{{<<\"{name}\">>,{}}}", erlang(value))).collect();
    if !unknown.is_empty() {
        return Err(format!("[{}] are not recognised policy settings", unknown.join(",")));
    }
    for (name, value) in definition {
        let known = KEYS.iter().find(|key| key.name == name);
        if let Some(key) = known.filter(|key| !(key.is_valid)(value)) {
            return Err(format!("{} is not a valid {}", erlang(value), key.what));
        }
    }
    Ok(())
}

/// What is in force when both policies speak of the same thing.
fn stricter(key: &str, regular: &Value, operator: &Value) -> Value {
    match (regular.as_i64(), operator.as_i64()) {
        (Some(a), Some(b)) if key != "queue-version" => a.min(b).into(),
        _ => operator.clone(),
    }
}

/// A value as RabbitMQ's texts show it: an Erlang term.
#[must_use]
pub fn erlang(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("<<\"{text}\">>"),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(erlang).collect();
            format!("[{}]", values.join(","))
        }
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("<<\"{key}\">> => {}", erlang(value))).collect();
            format!("#{{{}}}", pairs.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(kind: PolicyKind, name: &str, value: Value) -> Policy {
        Policy::parse(kind, name, &value).unwrap()
    }

    fn refusal(kind: PolicyKind, value: Value) -> String {
        Policy::parse(kind, "p", &value).unwrap_err()
    }

    #[test]
    fn refusals_are_rabbitmqs() {
        use PolicyKind::{Operator, Regular};
        let with = |definition: Value| json!({"pattern": ".*", "definition": definition});
        assert_eq!(refusal(Regular, with(json!({}))), "no policy provided");
        assert_eq!(
            refusal(Regular, with(json!({"bogus": 1, "max-length": 1}))),
            "[{<<\"bogus\">>,1}] are not recognised policy settings"
        );
        assert_eq!(
            refusal(Operator, with(json!({"dead-letter-exchange": "x"}))),
            "[{<<\"dead-letter-exchange\">>,<<\"x\">>}] are not recognised policy settings"
        );
        assert_eq!(refusal(Regular, with(json!({"max-length": "ten"}))), "<<\"ten\">> is not a valid maximum length");
        assert_eq!(refusal(Regular, with(json!({"expires": 0}))), "0 is not a valid queue expiry");
        assert!(
            refusal(Regular, json!({"pattern": "(", "definition": {"max-length": 1}})).starts_with("pattern should")
        );
        let bad = json!({"pattern": "", "definition": {"max-length": 1}, "priority": "3"});
        assert_eq!(refusal(Regular, bad), "priority should be a number, actually was <<\"3\">>");
    }

    #[test]
    fn what_no_short_string_holds_is_no_part_of_a_letter() {
        let options = |exchange: usize, key: usize| {
            let text = |length: usize| Value::String("x".repeat(length));
            let definition = [("dead-letter-exchange", text(exchange)), ("dead-letter-routing-key", text(key))];
            let mut target = None;
            add_dead_letter(&mut target, &definition.map(|(key, value)| (key.to_owned(), value)).into_iter().collect());
            target
        };
        assert_eq!(options(255, 255).unwrap().routing_key.unwrap().as_bytes().len(), 255);
        assert_eq!(options(255, 256).unwrap().routing_key, None);
        assert_eq!(options(256, 255), None);
    }

    #[test]
    fn the_most_important_matching_policy_of_each_kind_applies() {
        let mut policies = Policies::default();
        let value = |pattern: &str, priority: i64, definition: Value| json!({"pattern": pattern, "priority": priority, "definition": definition, "apply-to": "queues"});
        policies.set(PolicyKind::Regular, policy(PolicyKind::Regular, "low", value("", 0, json!({"max-length": 5}))));
        let high = value("^jobs", 10, json!({"max-length": 100, "message-ttl": 7, "overflow": "reject-publish"}));
        policies.set(PolicyKind::Regular, policy(PolicyKind::Regular, "high", high));
        let stream_only = value("", 99, json!({"max-age": "1h"}));
        policies.set(PolicyKind::Regular, policy(PolicyKind::Regular, "streams", stream_only));
        let cap = value("", 0, json!({"max-length": 50, "overflow": "drop-head"}));
        policies.set(PolicyKind::Operator, policy(PolicyKind::Operator, "cap", cap));
        let classic = Target::Queue(QueueType::Classic);
        let applied = policies.applied(classic, "jobs.new").unwrap();
        assert_eq!((applied.policy.as_deref(), applied.operator_policy.as_deref()), (Some("high"), Some("cap")));
        let expected = json!({"max-length": 50, "message-ttl": 7, "overflow": "drop-head"});
        assert_eq!(Value::Object(applied.definition.clone()), expected);
        assert_eq!(policies.applied(classic, "other").unwrap().policy.as_deref(), Some("low"));
        assert_eq!(policies.applied(Target::Exchange, "jobs.new"), None);
        let streams = policies.applied(Target::Queue(QueueType::Stream), "s").unwrap();
        assert_eq!(streams.policy.as_deref(), Some("streams"));
        policies.remove(PolicyKind::Regular, "high");
        assert_eq!(policies.applied(classic, "jobs.new").unwrap().policy.as_deref(), Some("low"));
    }
}
