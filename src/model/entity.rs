//! Definitions of exchanges, queues and bindings, and the one table of queue arguments that declaration, equivalence
//! and documentation read.

use std::fmt::Write as _;
use std::sync::Arc;

use super::ids::{ConnectionId, QueueId};
use super::names::{ExchangeName, QueueName, RoutingKey, VhostName};
use super::policy::AppliedPolicy;
use super::statistics::QueueRecord;
use super::table::{FieldTable, FieldValue};

/// The longest TTL, expiry or expiration: ten years in milliseconds, RabbitMQ's limit.
pub const EXPIRY_MAX_MS: i64 = 315_360_000_000;

/// What an exchange does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
    ConsistentHash,
    ModulusHash,
    Random,
    LocalRandom,
    RecentHistory,
}

impl ExchangeKind {
    const NAMES: [(&'static str, Self); 9] = [
        ("direct", Self::Direct),
        ("fanout", Self::Fanout),
        ("topic", Self::Topic),
        ("headers", Self::Headers),
        ("x-consistent-hash", Self::ConsistentHash),
        ("x-modulus-hash", Self::ModulusHash),
        ("x-random", Self::Random),
        ("x-local-random", Self::LocalRandom),
        ("x-recent-history", Self::RecentHistory),
    ];

    /// The kind declared as `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// All kinds.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.iter().map(|(_, kind)| *kind)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("direct", |(name, _)| name)
    }
}

/// An exchange as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    pub name: ExchangeName,
    pub kind: ExchangeKind,
    pub durable: bool,
    pub auto_delete: bool,
    /// Publishing to it is refused; only bindings lead here.
    pub internal: bool,
    pub arguments: FieldTable,
    /// From the argument `alternate-exchange`; it need not exist.
    pub alternate: Option<ExchangeName>,
}

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    Queue(QueueName),
    Exchange(ExchangeName),
}

/// A binding; all four fields are its identity, arguments sorted by key.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    pub source: ExchangeName,
    pub destination: Destination,
    pub key: RoutingKey,
    pub arguments: FieldTable,
}

/// A queue as declared.
#[derive(Clone, Debug)]
pub struct Queue {
    pub id: QueueId,
    pub vhost: VhostName,
    pub name: QueueName,
    pub durable: bool,
    /// The connection that owns it, for an exclusive queue.
    pub exclusive: Option<ConnectionId>,
    pub auto_delete: bool,
    pub arguments: FieldTable,
    /// From the arguments and what the policies say.
    pub options: QueueOptions,
    pub policy: Option<Arc<AppliedPolicy>>,
    pub statistics: Arc<QueueRecord>,
}

impl Queue {
    /// The type that the arguments ask for.
    #[must_use]
    pub fn queue_type(&self) -> QueueType {
        let name = self.arguments.find("x-queue-type").and_then(FieldValue::as_str);
        name.and_then(QueueType::from_name).unwrap_or(QueueType::Classic)
    }
}

/// The implementations a queue can ask for with `x-queue-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    Classic,
    Quorum,
    Stream,
}

impl QueueType {
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "classic" | "rabbit_classic_queue" => Some(Self::Classic),
            "quorum" | "rabbit_quorum_queue" => Some(Self::Quorum),
            "stream" | "rabbit_stream_queue" => Some(Self::Stream),
            _ => None,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }

    /// What is told to whoever makes it the default of a vhost, where this version has no such queues.
    #[must_use]
    pub fn warning_as_default(self) -> Option<String> {
        let kind = self.name();
        match self {
            Self::Classic => None,
            Self::Quorum | Self::Stream => Some(format!(
                "its default queue type is '{kind}', and this version has no {kind} queues: declarations without a type will \
                 be refused; write 'classic'"
            )),
        }
    }

    /// RabbitMQ's module name, which its error texts use.
    #[must_use]
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }
}

/// What happens to a publish that does not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

impl Overflow {
    /// The behaviour that the argument names; dropping from the head when it names none.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "reject-publish" => Self::RejectPublish,
            "reject-publish-dlx" => Self::RejectPublishDlx,
            _ => Self::DropHead,
        }
    }
}

/// Where dead letters go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTarget {
    pub exchange: ExchangeName,
    /// Replaces the message's routing keys when given.
    pub routing_key: Option<RoutingKey>,
}

/// A queue's behaviour, parsed once from its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueOptions {
    pub message_ttl_ms: Option<u64>,
    /// Delete the queue after this time without use.
    pub expires_ms: Option<u64>,
    pub dead_letter: Option<DeadLetterTarget>,
    /// Ready messages.
    pub max_length: Option<u64>,
    /// Body bytes of ready messages.
    pub max_length_bytes: Option<u64>,
    pub overflow: Overflow,
    /// Priority levels are 0 to this.
    pub max_priority: Option<u8>,
    pub single_active_consumer: bool,
    /// Delete the queue when its last consumer leaves.
    pub auto_delete: bool,
    /// An unacknowledged delivery older than this closes its channel (RabbitMQ up to 4.2); from the configuration.
    pub consumer_timeout_ms: Option<u64>,
    /// Whether messages expire only at the head of the queue, as in RabbitMQ, instead of wherever they are.
    pub expire_at_head_only: bool,
}

/// A refused argument: its name and RabbitMQ's rendering of the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// `invalid arg '<name>' for queue …: <reason>`
    Invalid { name: &'static str, reason: String },
    /// `invalid arg '<name>' for queue … of queue type <module>`
    WrongType { name: &'static str, queue_type: QueueType },
}

#[derive(Clone, Copy)]
enum Rule {
    Integer {
        min: i64,
        max: i64,
    },
    Text,
    /// A name or key: at most 255 bytes, since it goes into a short string.
    ShortText,
    OneOf(&'static [&'static str]),
    Bool,
    MaxAge,
    /// It is known and compared, and has no effect.
    Any,
}

struct Argument {
    name: &'static str,
    rule: Rule,
    classic: bool,
    quorum: bool,
    stream: bool,
}

const fn argument(name: &'static str, rule: Rule, types: &str) -> Argument {
    let types = types.as_bytes();
    let mut spec = Argument { name, rule, classic: false, quorum: false, stream: false };
    let mut at = 0;
    while at < types.len() {
        match types[at] {
            b'c' => spec.classic = true,
            b'q' => spec.quorum = true,
            _ => spec.stream = true,
        }
        at += 1;
    }
    spec
}

const ANY_SIZE: Rule = Rule::Integer { min: 0, max: i64::MAX };
const POSITIVE: Rule = Rule::Integer { min: 1, max: i64::MAX };
const DURATION: Rule = Rule::Integer { min: 0, max: EXPIRY_MAX_MS };
const LOCATORS: Rule = Rule::OneOf(&["client-local", "balanced", "random", "least-leaders", "min-masters"]);

/// Every queue argument: its name, what it may hold, and the queue types that know it (c, q, s), in the order in which
/// redeclaration compares them.
const ARGUMENTS: &[Argument] = &[
    argument("x-expires", Rule::Integer { min: 1, max: EXPIRY_MAX_MS }, "cq"),
    argument("x-message-ttl", DURATION, "cq"),
    argument("x-dead-letter-exchange", Rule::ShortText, "cq"),
    argument("x-dead-letter-routing-key", Rule::ShortText, "cq"),
    argument("x-dead-letter-strategy", Rule::OneOf(&["at-most-once", "at-least-once"]), "q"),
    argument("x-max-length", ANY_SIZE, "cq"),
    argument("x-max-length-bytes", ANY_SIZE, "cqs"),
    argument("x-max-age", Rule::MaxAge, "s"),
    argument("x-overflow", Rule::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"]), "cq"),
    argument("x-max-priority", Rule::Integer { min: 0, max: 255 }, "c"),
    argument("x-queue-mode", Rule::Any, "c"),
    argument("x-queue-version", Rule::Integer { min: 1, max: 2 }, "c"),
    argument("x-single-active-consumer", Rule::Bool, "cq"),
    argument("x-queue-type", Rule::Text, "cqs"),
    argument("x-queue-master-locator", LOCATORS, "c"),
    argument("x-queue-leader-locator", LOCATORS, "cqs"),
    argument("x-quorum-initial-group-size", POSITIVE, "q"),
    argument("x-initial-cluster-size", POSITIVE, "s"),
    argument("x-member-placement-tag", Rule::Text, "q"),
    argument("x-delivery-limit", Rule::Integer { min: i64::MIN, max: i64::MAX }, "q"),
    argument("x-max-in-memory-length", ANY_SIZE, "q"),
    argument("x-max-in-memory-bytes", ANY_SIZE, "q"),
    argument("x-consumer-timeout", ANY_SIZE, "q"),
    argument("x-consumer-disconnected-timeout", ANY_SIZE, "q"),
    argument("x-delayed-retry-type", Rule::OneOf(&["all", "failed", "returned", "disabled"]), "q"),
    argument("x-delayed-retry-min", POSITIVE, "q"),
    argument("x-delayed-retry-max", POSITIVE, "q"),
    argument("x-stream-max-segment-size-bytes", ANY_SIZE, "s"),
    argument("x-stream-filter-size-bytes", ANY_SIZE, "s"),
];

impl Argument {
    fn known_to(&self, queue_type: QueueType) -> bool {
        match queue_type {
            QueueType::Classic => self.classic,
            QueueType::Quorum => self.quorum,
            QueueType::Stream => self.stream,
        }
    }

    fn check(&self, value: &FieldValue) -> Result<(), String> {
        match self.rule {
            Rule::Any => Ok(()),
            Rule::Integer { min, max } => check_integer(self.name, value, min, max),
            Rule::Bool => match value {
                FieldValue::Bool(_) => Ok(()),
                _ => Err(format!("{{unacceptable_type,{}}}", value.type_name())),
            },
            Rule::Text => text_of(value).map(|_| ()),
            Rule::ShortText => match text_of(value)?.len() {
                0..=255 => Ok(()),
                length => Err(format!("{{value_too_large,{length}}}")),
            },
            Rule::OneOf(allowed) => {
                let text = text_of(value)?;
                let refusal = || format!("invalid_{}", self.name.trim_start_matches("x-").replace('-', "_"));
                if allowed.contains(&text) { Ok(()) } else { Err(refusal()) }
            }
            Rule::MaxAge => {
                let text = text_of(value)?;
                let number = text.strip_suffix(['Y', 'M', 'D', 'h', 'm', 's']).unwrap_or("");
                if number.parse::<u64>().is_ok_and(|n| n > 0) { Ok(()) } else { Err("invalid_max_age".into()) }
            }
        }
    }
}

/// Whether queues of a type know the argument `x-<key>`; none when no type does.
#[must_use]
pub fn is_argument_known_to(key: &str, queue_type: QueueType) -> Option<bool> {
    let spec = ARGUMENTS.iter().find(|spec| spec.name.strip_prefix("x-") == Some(key))?;
    Some(spec.known_to(queue_type))
}

fn check_integer(name: &str, value: &FieldValue, min: i64, max: i64) -> Result<(), String> {
    let Some(number) = value.as_integer() else {
        return Err(format!("\"expected integer, got {}\"", value.type_name()));
    };
    if number == 0 && min == 1 {
        return Err("{value_zero,0}".into());
    }
    if number < min {
        return Err(format!("{{value_negative,{number}}}"));
    }
    if number > max {
        let reason = match name {
            "x-max-priority" => format!("{{max_value_exceeded,{number}}}"),
            "x-queue-version" => format!("\"unsupported queue version '{number}'\""),
            _ => format!("{{value_too_large,{number}}}"),
        };
        return Err(reason);
    }
    Ok(())
}

fn text_of(value: &FieldValue) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{{unacceptable_type,{}}}", value.type_name()))
}

/// Checks every argument against the table for a queue of `queue_type`. Arguments unknown to all types pass.
pub fn check_queue_arguments(queue_type: QueueType, arguments: &FieldTable) -> Result<(), ArgumentError> {
    for spec in ARGUMENTS {
        let Some(value) = arguments.find(spec.name) else {
            continue;
        };
        if !spec.known_to(queue_type) {
            return Err(ArgumentError::WrongType { name: spec.name, queue_type });
        }
        spec.check(value).map_err(|reason| ArgumentError::Invalid { name: spec.name, reason })?;
    }
    if arguments.find("x-dead-letter-routing-key").is_some() && arguments.find("x-dead-letter-exchange").is_none() {
        let reason = "routing_key_but_no_dlx_defined".to_owned();
        return Err(ArgumentError::Invalid { name: "x-dead-letter-routing-key", reason });
    }
    Ok(())
}

impl QueueOptions {
    /// Reads checked arguments; unknown ones have no effect.
    #[must_use]
    pub fn from_arguments(arguments: &FieldTable) -> Self {
        let number =
            |name: &str| arguments.find(name).and_then(FieldValue::as_integer).and_then(|n| u64::try_from(n).ok());
        let text = |name: &str| arguments.find(name).and_then(FieldValue::as_str);
        Self {
            message_ttl_ms: number("x-message-ttl"),
            expires_ms: number("x-expires"),
            dead_letter: text("x-dead-letter-exchange").map(|exchange| DeadLetterTarget {
                exchange: exchange.into(),
                routing_key: text("x-dead-letter-routing-key").map(|key| RoutingKey::new(key.as_bytes())),
            }),
            max_length: number("x-max-length"),
            max_length_bytes: number("x-max-length-bytes"),
            overflow: text("x-overflow").map_or(Overflow::DropHead, Overflow::from_name),
            max_priority: number("x-max-priority").and_then(|n| u8::try_from(n).ok()),
            single_active_consumer: arguments.find("x-single-active-consumer") == Some(&FieldValue::Bool(true)),
            ..Self::default()
        }
    }
}

/// Compares the arguments that `queue_type` knows; the first difference in the form of RabbitMQ's text, after
/// `inequivalent arg `: the argument's name, and `received … but current is …`.
#[must_use]
pub fn queue_arguments_difference(
    queue_type: QueueType,
    current: &FieldTable,
    received: &FieldTable,
) -> Option<(&'static str, String)> {
    ARGUMENTS
        .iter()
        .filter(|spec| spec.known_to(queue_type))
        .filter(|spec| spec.name != "x-queue-type" || !is_default_type(current, received))
        .find_map(|spec| {
            argument_difference(current.find(spec.name), received.find(spec.name)).map(|text| (spec.name, text))
        })
}

/// A missing `x-queue-type` means classic.
fn is_default_type(current: &FieldTable, received: &FieldTable) -> bool {
    let type_of = |table: &FieldTable| match table.find("x-queue-type") {
        None => Some(QueueType::Classic),
        Some(value) => value.as_str().and_then(QueueType::from_name),
    };
    type_of(current) == type_of(received)
}

/// How one argument differs, as `received <new> but current is <old>`; none when both are equivalent.
#[must_use]
pub fn argument_difference(current: Option<&FieldValue>, received: Option<&FieldValue>) -> Option<String> {
    match (current, received) {
        (None, None) => None,
        (Some(current), Some(received)) if equivalent(current, received) => None,
        (Some(current), Some(received)) => {
            Some(format!("received '{}' but current is '{}'", render(received), render(current)))
        }
        (current, received) => {
            let side = |value: Option<&FieldValue>| {
                value.map_or_else(
                    || "none".to_owned(),
                    |value| format!("the value '{}' of type '{}'", render(value), value.type_name()),
                )
            };
            Some(format!("received {} but current is {}", side(received), side(current)))
        }
    }
}

fn equivalent(a: &FieldValue, b: &FieldValue) -> bool {
    match (a, b) {
        (FieldValue::F32(a), FieldValue::F64(b)) | (FieldValue::F64(b), FieldValue::F32(a)) => f64::from(*a) == *b,
        _ => match (a.as_integer(), b.as_integer()) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

/// A value as RabbitMQ's texts show it.
#[must_use]
pub fn render(value: &FieldValue) -> String {
    match value {
        FieldValue::Bool(v) => v.to_string(),
        FieldValue::F32(v) => v.to_string(),
        FieldValue::F64(v) => v.to_string(),
        FieldValue::LongString(bytes) | FieldValue::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        FieldValue::Timestamp(v) => v.to_string(),
        FieldValue::Decimal { scale, value } => format!("{{{scale},{value}}}"),
        FieldValue::Void => "undefined".into(),
        FieldValue::Array(values) => {
            let inner: Vec<String> = values.iter().map(render).collect();
            format!("[{}]", inner.join(","))
        }
        FieldValue::Table(table) => {
            let mut text = String::from("[");
            for (at, (key, value)) in table.0.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(text, "{comma}{{{key},{}}}", render(value));
            }
            text.push(']');
            text
        }
        integer @ (FieldValue::I8(_)
        | FieldValue::U8(_)
        | FieldValue::I16(_)
        | FieldValue::U16(_)
        | FieldValue::I32(_)
        | FieldValue::U32(_)
        | FieldValue::I64(_)) => integer.as_integer().unwrap_or_default().to_string(),
    }
}
