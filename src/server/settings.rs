//! From the configuration to what the broker and the protocol are made with.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::broker::{self, PasswordHash, Permission};
use crate::config::{Config, DefaultQueueType, Expiry, Mechanism, Secret, Sync};
use crate::log::{self, Keeping, SyncMode};
use crate::model::entity::QueueType;
use crate::model::names::UserName;
use crate::protocol::amqp091;

use super::admission::{Descriptors, Places};

/// The error is that the system has no random numbers for salt.
pub(super) fn broker(config: &Config) -> Result<broker::BrokerSettings, getrandom::Error> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limit = |limit: Option<u32>| limit.map_or(0, |limit| limit as usize);
    let anonymous = config.amqp.mechanisms.contains(&Mechanism::Anonymous);
    Ok(broker::BrokerSettings {
        shards: u16::try_from(config.queues.shard_count(cores)).unwrap_or(u16::MAX),
        default_queue_type: match config.queues.default_type {
            DefaultQueueType::Classic => QueueType::Classic,
        },
        consumer_timeout_ms: config.queues.consumer_timeout.map(millis),
        expire_at_head_only: config.queues.expire == Expiry::Head,
        transient_nonexclusive_queues: config.compatibility.transient_nonexclusive_queues,
        node_name: config.node_name(),
        loopback_users: config.defaults.loopback_only.iter().map(|name| UserName::new(name)).collect(),
        memory_budget: config.storage.memory_budget,
        anonymous_user: (anonymous && !config.defaults.user.is_empty()).then(|| UserName::new(&config.defaults.user)),
        limits: broker::Limits {
            connections: limit(config.limits.connections),
            connections_per_user: limit(config.limits.connections_per_user),
            channels: limit(config.limits.channels_per_node),
            channels_per_user: limit(config.limits.channels_per_user),
            queues: limit(config.limits.queues),
            queues_per_vhost: limit(config.limits.queues_per_vhost),
            exchanges: limit(config.limits.exchanges),
            exchanges_per_vhost: limit(config.limits.exchanges_per_vhost),
            vhosts: limit(config.limits.vhosts),
        },
        vhost_defaults: vhost_defaults(config)?,
    })
}

/// What new vhosts get. The configuration has neither patterns nor values that cannot be used.
fn vhost_defaults(config: &Config) -> Result<broker::VhostDefaults, getrandom::Error> {
    let mut defaults = broker::VhostDefaults::default();
    for (name, policy) in &config.defaults.operator_policies {
        let definition: Map<String, Value> =
            policy.definition().into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        let value = json!({
            "pattern": policy.queue_pattern, "definition": definition, "apply-to": policy.apply_to.name(), "priority": 0,
        });
        let added = defaults.add_policy(&policy.vhost_pattern, name, &value);
        assert!(added.is_ok(), "defaults.operator_policies.{name}: {added:?}");
    }
    for limits in &config.defaults.vhost_limits {
        let all = [("max-connections", limits.max_connections), ("max-queues", limits.max_queues)];
        let value = all.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect();
        let added = defaults.add_limits(&limits.pattern, value);
        assert!(added.is_ok(), "defaults.vhost_limits: {added:?}");
    }
    for (name, user) in &config.defaults.users {
        let mut salt = [0; 4];
        getrandom::fill(&mut salt)?;
        let hash = |password: &Secret| PasswordHash::new(salt, password.expose().as_bytes());
        let password = user.password.as_ref().map_or_else(PasswordHash::none, hash);
        let given = broker::User {
            loopback_only: config.defaults.loopback_only.contains(name),
            ..broker::User::new(UserName::new(name), password, user.tags.clone())
        };
        let permission = Permission::parse(&user.configure, &user.write, &user.read);
        let added = permission.map_err(|error| error.to_string());
        let added = added.and_then(|permission| defaults.add_user(&user.vhost_pattern, given, permission));
        assert!(added.is_ok(), "defaults.users.{name}: {added:?}");
    }
    Ok(defaults)
}

pub(super) fn log(config: &Config) -> log::Options {
    let storage = &config.storage;
    log::Options {
        sync: match storage.sync {
            Sync::Always => SyncMode::Always,
            Sync::Interval => SyncMode::Interval(storage.sync_interval),
            Sync::Os => SyncMode::Os,
        },
        wal_file_bytes: storage.wal_file_size,
        segment_bytes: storage.segment_size,
        keeping: Keeping::USUAL,
    }
}

pub(super) fn amqp(config: &Config) -> amqp091::AmqpSettings {
    let mut server_properties = vec![
        ("cluster_name", config.cluster_name()),
        ("copyright", "Apache License 2.0".to_owned()),
        ("information", "Warren, an AMQP 0-9-1 broker".to_owned()),
        ("platform", "Rust".to_owned()),
        ("product", config.compatibility.product.clone()),
        ("version", config.compatibility.version.clone()),
        ("warren_version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect::<Vec<_>>();
    for (key, value) in config.amqp.server_properties.clone() {
        // A configured value takes the place of the usual one: a table has each name once.
        server_properties.retain(|(name, _)| *name != key);
        server_properties.push((key, value));
    }
    amqp091::AmqpSettings {
        frame_max: config.amqp.frame_max,
        channel_max: config.amqp.channel_max,
        heartbeat: config.amqp.heartbeat_seconds(),
        max_message_size: config.amqp.max_message_size,
        handshake_timeout_ms: millis(config.amqp.handshake_timeout),
        mechanisms: config.amqp.mechanisms.iter().map(|mechanism| mechanism.name().to_owned()).collect(),
        server_properties,
        consumers_per_channel_max: config.amqp.consumers_per_channel_max.map_or(0, |max| max as usize),
        default_prefetch: config.amqp.default_consumer_prefetch,
        global_qos: config.compatibility.global_qos,
    }
}

/// Connections that the listeners of AMQP have at once.
pub(super) fn amqp_places(config: &Config) -> Places {
    let limit = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit as usize);
    let limits = &config.limits;
    let (waiting, of_source) = (limits.connections_without_login, limits.connections_without_login_per_source);
    Places::amqp(Descriptors::of_process(), limit(limits.connections), limit(waiting), limit(of_source))
}

/// Connections that each listener of HTTP has at once.
pub(super) fn http_places(config: &Config) -> Places {
    let limits = &config.limits;
    let (total, of_source) = (limits.http_connections as usize, limits.http_connections_per_source as usize);
    Places::http(Descriptors::of_process(), total, of_source)
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
