//! RabbitMQ's plugins: which of them are built in here, and why the others are not there.

/// A plugin of RabbitMQ, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plugin {
    pub name: &'static str,
    pub state: State,
}

/// Whether the broker does a plugin's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does, always.
    BuiltIn,
    /// It does not, and why: "there is no MQTT in this version".
    Missing(&'static str),
}

const fn built_in(name: &'static str) -> Plugin {
    Plugin { name, state: State::BuiltIn }
}

const fn missing(name: &'static str, reason: &'static str) -> Plugin {
    Plugin { name, state: State::Missing(reason) }
}

const SHOVEL: &str = "there are no shovels in this version";
const FEDERATION: &str = "there is no federation in this version";
const MQTT: &str = "there is no MQTT in this version";
const STOMP: &str = "there is no STOMP in this version";
const STREAMS: &str = "there are no streams in this version";
const CLUSTER: &str = "there is no cluster in this version";

/// All of them, by name.
pub const PLUGINS: &[Plugin] = &[
    missing("rabbitmq_amqp1_0", "there is no AMQP 1.0 in this version"),
    missing("rabbitmq_auth_backend_amqp", "users cannot be looked up over AMQP"),
    built_in("rabbitmq_auth_backend_cache"),
    built_in("rabbitmq_auth_backend_http"),
    missing("rabbitmq_auth_backend_internal_loopback", "defaults.loopback_only limits users to this host"),
    missing("rabbitmq_auth_backend_ldap", "there is no LDAP in this version"),
    built_in("rabbitmq_auth_backend_oauth2"),
    built_in("rabbitmq_auth_mechanism_ssl"),
    missing("rabbitmq_aws", CLUSTER),
    built_in("rabbitmq_consistent_hash_exchange"),
    missing("rabbitmq_delayed_message_exchange", "there is no exchange of type x-delayed-message in this version"),
    built_in("rabbitmq_event_exchange"),
    missing("rabbitmq_exchange_federation", FEDERATION),
    missing("rabbitmq_federation", FEDERATION),
    missing("rabbitmq_federation_common", FEDERATION),
    missing("rabbitmq_federation_management", FEDERATION),
    missing("rabbitmq_federation_prometheus", FEDERATION),
    missing("rabbitmq_jms_topic_exchange", "there is no exchange of type x-jms-topic in this version"),
    missing("rabbitmq_lvc_exchange", "there is no exchange of type x-lvc in this version"),
    built_in("rabbitmq_management"),
    built_in("rabbitmq_management_agent"),
    missing("rabbitmq_message_timestamp", "headers are not added to messages as they come"),
    missing("rabbitmq_mqtt", MQTT),
    missing("rabbitmq_peer_discovery_aws", CLUSTER),
    missing("rabbitmq_peer_discovery_common", CLUSTER),
    missing("rabbitmq_peer_discovery_consul", CLUSTER),
    missing("rabbitmq_peer_discovery_etcd", CLUSTER),
    missing("rabbitmq_peer_discovery_k8s", CLUSTER),
    built_in("rabbitmq_prometheus"),
    missing("rabbitmq_queue_federation", FEDERATION),
    built_in("rabbitmq_random_exchange"),
    built_in("rabbitmq_recent_history_exchange"),
    missing("rabbitmq_rtopic_exchange", "there is no exchange of type x-rtopic in this version"),
    missing("rabbitmq_sharding", "queues are not sharded by a policy; the exchange type x-modulus-hash is built in"),
    missing("rabbitmq_shovel", SHOVEL),
    missing("rabbitmq_shovel_management", SHOVEL),
    missing("rabbitmq_shovel_prometheus", SHOVEL),
    missing("rabbitmq_stomp", STOMP),
    missing("rabbitmq_stream", STREAMS),
    missing("rabbitmq_stream_common", STREAMS),
    missing("rabbitmq_stream_management", STREAMS),
    missing("rabbitmq_top", "there is no runtime to look into; warren top shows queues and connections"),
    missing(
        "rabbitmq_tracing",
        "traced messages are not written to files; the firehose, amq.rabbitmq.trace, is built in",
    ),
    missing("rabbitmq_trust_store", "clients' certificates are trusted by their authority, tls.ca_file"),
    built_in("rabbitmq_web_dispatch"),
    missing("rabbitmq_web_mqtt", MQTT),
    missing("rabbitmq_web_mqtt_examples", MQTT),
    missing("rabbitmq_web_stomp", STOMP),
    missing("rabbitmq_web_stomp_examples", STOMP),
];

/// The plugin of that name, if RabbitMQ has one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().find(|plugin| plugin.name == name)
}

/// The names of those whose work the broker does.
pub fn built_ins() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().filter(|plugin| plugin.state == State::BuiltIn).map(|plugin| plugin.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_in_order() {
        assert!(PLUGINS.is_sorted_by(|one, other| one.name < other.name));
        assert_eq!(find("rabbitmq_shovel").map(|plugin| plugin.state), Some(State::Missing(SHOVEL)));
        assert!(find("nonsense").is_none());
        assert!(built_ins().any(|name| name == "rabbitmq_consistent_hash_exchange"));
    }
}
