//! `defaults.operator_policies` and `defaults.vhost_limits`: what a virtual host gets when it is made.

use std::time::Duration;

use super::kind::{Expression, Kind, Number, OneOf, Secrets};
use super::origin::Problems;
use super::quantity::{Size, Time};
use super::raw::Raw;
use super::types::{DefaultOperatorPolicy, DefaultVhostLimits, PolicyScope};
use super::users::Fields;

/// One operator policy for new virtual hosts; its name is the key of the table it stands in.
pub(crate) struct OperatorPolicyTable;

/// Limits of new virtual hosts.
pub(crate) struct VhostLimitsTable;

const POLICY_KEYS: [&str; 10] = [
    "vhost_pattern",
    "queue_pattern",
    "apply_to",
    "expires",
    "message_ttl",
    "max_length",
    "max_length_bytes",
    "max_in_memory_length",
    "max_in_memory_bytes",
    "delivery_limit",
];
const LIMIT_KEYS: [&str; 3] = ["pattern", "max_connections", "max_queues"];

const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A queue that expires at once would never be used.
const LEASE: Time = Time::between(Duration::from_millis(1), YEARS);
const TTL: Time = Time::between(Duration::ZERO, YEARS);
const COUNT: Number<u32> = Number::between(0, u32::MAX);
const BYTES: Size<u64> = Size::between(1, u64::MAX >> 1);
const SCOPE: OneOf<PolicyScope> = OneOf::NEW;
const ANY: &str = ".*";

impl Kind for OperatorPolicyTable {
    type Value = DefaultOperatorPolicy;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<DefaultOperatorPolicy> {
        let Some(fields) = Fields::of(key, raw, &POLICY_KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        // Each is read, for the mistakes in all of them, before one that failed spoils the whole.
        let vhost_pattern = fields.optional("vhost_pattern", &Expression, problems);
        let queue_pattern = fields.optional("queue_pattern", &Expression, problems);
        let apply_to = fields.optional("apply_to", &SCOPE, problems);
        let expires = fields.optional("expires", &LEASE, problems);
        let message_ttl = fields.optional("message_ttl", &TTL, problems);
        let max_length = fields.optional("max_length", &COUNT, problems);
        let max_length_bytes = fields.optional("max_length_bytes", &BYTES, problems);
        let max_in_memory_length = fields.optional("max_in_memory_length", &COUNT, problems);
        let max_in_memory_bytes = fields.optional("max_in_memory_bytes", &BYTES, problems);
        let delivery_limit = fields.optional("delivery_limit", &COUNT, problems);
        let policy = DefaultOperatorPolicy {
            vhost_pattern: vhost_pattern?.unwrap_or_else(|| ANY.to_owned()),
            queue_pattern: queue_pattern?.unwrap_or_else(|| ANY.to_owned()),
            apply_to: apply_to?.unwrap_or(PolicyScope::All),
            expires: expires?,
            message_ttl: message_ttl?,
            max_length: max_length?,
            max_length_bytes: max_length_bytes?,
            max_in_memory_length: max_in_memory_length?,
            max_in_memory_bytes: max_in_memory_bytes?,
            delivery_limit: delivery_limit?,
        };
        if policy.definition().is_empty() {
            problems.value(&raw.origin, key, format!("says nothing: give one of {}", POLICY_KEYS[3..].join(", ")));
            return None;
        }
        Some(policy)
    }

    fn write(&self, value: &DefaultOperatorPolicy, secrets: Secrets) -> String {
        let mut fields = vec![
            format!("vhost_pattern = {}", Expression.write(&value.vhost_pattern, secrets)),
            format!("queue_pattern = {}", Expression.write(&value.queue_pattern, secrets)),
            format!("apply_to = {}", SCOPE.write(&value.apply_to, secrets)),
        ];
        for (name, time) in [("expires", value.expires), ("message_ttl", value.message_ttl)] {
            fields.extend(time.map(|time| format!("{name} = {}", TTL.write(&time, secrets))));
        }
        let counts = [
            ("max_length", value.max_length),
            ("max_in_memory_length", value.max_in_memory_length),
            ("delivery_limit", value.delivery_limit),
        ];
        fields.extend(
            counts.into_iter().filter_map(|(name, count)| Some(format!("{name} = {}", COUNT.write(&count?, secrets)))),
        );
        let sizes = [("max_length_bytes", value.max_length_bytes), ("max_in_memory_bytes", value.max_in_memory_bytes)];
        fields.extend(
            sizes.into_iter().filter_map(|(name, size)| Some(format!("{name} = {}", BYTES.write(&size?, secrets)))),
        );
        format!("{{ {} }}", fields.join(", "))
    }

    fn expects(&self) -> String {
        format!("a table with any of {}", POLICY_KEYS.join(", "))
    }
}

impl Kind for VhostLimitsTable {
    type Value = DefaultVhostLimits;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<DefaultVhostLimits> {
        let Some(fields) = Fields::of(key, raw, &LIMIT_KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        let pattern = fields.optional("pattern", &Expression, problems);
        let max_connections = fields.optional("max_connections", &COUNT, problems);
        let max_queues = fields.optional("max_queues", &COUNT, problems);
        let limits = DefaultVhostLimits {
            pattern: pattern?.unwrap_or_else(|| ANY.to_owned()),
            max_connections: max_connections?,
            max_queues: max_queues?,
        };
        if limits.max_connections.is_none() && limits.max_queues.is_none() {
            problems.value(&raw.origin, key, "limits nothing: give max_connections, max_queues or both");
            return None;
        }
        Some(limits)
    }

    fn write(&self, value: &DefaultVhostLimits, secrets: Secrets) -> String {
        let mut fields = vec![format!("pattern = {}", Expression.write(&value.pattern, secrets))];
        let counts = [("max_connections", value.max_connections), ("max_queues", value.max_queues)];
        fields.extend(
            counts.into_iter().filter_map(|(name, count)| Some(format!("{name} = {}", COUNT.write(&count?, secrets)))),
        );
        format!("{{ {} }}", fields.join(", "))
    }

    fn expects(&self) -> String {
        format!("a table with {}", LIMIT_KEYS.join(", "))
    }
}
