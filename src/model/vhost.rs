//! What is said of a vhost beside its name, and what may be stored in it for plugins and policies.

use serde_json::Value;

use super::entity::QueueType;

/// Whether a vhost, or a queue, may be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    #[default]
    None,
    FromDeletion,
}

/// What operators say of a vhost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhostMetadata {
    pub description: String,
    pub tags: Vec<String>,
    /// Of queues that are declared without a type; none is the node's default.
    pub default_queue_type: Option<QueueType>,
    pub protection: Protection,
}

/// The most that may be in a vhost at once; none is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VhostLimits {
    pub max_connections: Option<u64>,
    pub max_queues: Option<u64>,
}

impl VhostLimits {
    /// The component of the runtime parameter that holds the limits.
    pub const COMPONENT: &'static str = "vhost-limits";
    /// The name of that parameter.
    pub const NAME: &'static str = "limits";
    /// What it may hold.
    pub const NAMES: [&'static str; 2] = ["max-connections", "max-queues"];

    /// Reads the parameter; negative numbers are no limit.
    #[must_use]
    pub fn from_value(value: Option<&Value>) -> Self {
        let limit = |name: &str| value.and_then(|value| value.get(name)).and_then(Value::as_u64);
        Self { max_connections: limit("max-connections"), max_queues: limit("max-queues") }
    }
}
