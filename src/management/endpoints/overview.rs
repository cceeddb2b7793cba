//! The broker at a glance, and what is the same for every broker of this version.

use serde_json::{Map, Value, json};

use crate::model::entity::ExchangeKind;
use crate::model::statistics::QueueNumber;

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::history::Subject;
use super::super::listing;
use super::super::rates::{GLOBAL, Rates};
use super::nodes;

/// What clients read of a runtime that this broker does not have.
const RUNTIME: &str = "none";

pub(crate) async fn overview(call: Call) -> Result<Answer, Failure> {
    let settings = &call.management.settings;
    let without_stats = call.query.is_true("disable_stats");
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
    put("management_version", settings.version.as_str().into());
    put("rates_mode", "basic".into());
    put(
        "sample_retention_policies",
        json!({"global": [600, 3600, 28800, 86400], "basic": [600, 3600, 28800, 86400], "detailed": [600]}),
    );
    put("exchange_types", exchange_types());
    put("product_version", env!("CARGO_PKG_VERSION").into());
    put("product_name", "Warren".into());
    put("rabbitmq_version", settings.version.as_str().into());
    put("cluster_name", call.management.cluster_name().into());
    put("cluster_tags", call.topology.global("cluster_tags").map_or_else(|| json!({}), |tags| (**tags).clone()));
    put("node_tags", json!({}));
    put("erlang_version", RUNTIME.into());
    put("erlang_full_version", RUNTIME.into());
    put("crypto_lib_version", "rustls with aws-lc-rs".into());
    put("disable_stats", without_stats.into());
    put("default_queue_type", settings.default_queue_type.into());
    put("is_op_policy_updating_enabled", true.into());
    put("enable_queue_totals", call.query.is_true("enable_queue_totals").into());
    put("require_definition_json_extension", false.into());
    put("node", settings.node_name.as_str().into());
    put("object_totals", object_totals(&call, without_stats));
    if !without_stats {
        put_stats(&call, &mut map)?;
        map.insert("statistics_db_event_queue".into(), 0.into());
        if call.identity.may_monitor() {
            map.insert("listeners".into(), nodes::listeners(&call));
            map.insert("contexts".into(), nodes::contexts(&call, Some(&settings.node_name)));
        }
    }
    Ok(listing::one(Value::Object(map), &call.query))
}

fn put_stats(call: &Call, map: &mut Map<String, Value>) -> Result<(), Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let row = call.management.global_row();
    let mut stats = rates.message_stats(Subject::Global, GLOBAL, &row);
    rates.put(&mut stats, Subject::Global, GLOBAL, &row, &["disk_reads", "disk_writes"]);
    map.insert("message_stats".into(), Value::Object(stats));
    let mut group = |key: &str, names: &[&str]| {
        let mut values = Map::new();
        rates.put(&mut values, Subject::Global, GLOBAL, &row, names);
        map.insert(key.to_owned(), Value::Object(values));
    };
    let churn = [
        "connection_closed",
        "connection_created",
        "channel_closed",
        "channel_created",
        "queue_created",
        "queue_deleted",
        "queue_declared",
    ];
    group("churn_rates", &churn);
    group("queue_totals", &["messages", "messages_ready", "messages_unacknowledged"]);
    Ok(())
}

fn object_totals(call: &Call, without_stats: bool) -> Value {
    let (mut exchanges, mut queues, mut consumers) = (0, 0, 0);
    for (_, vhost) in call.own_vhosts() {
        exchanges += vhost.exchanges.size();
        queues += vhost.queues.size();
        consumers +=
            vhost.queues.values().map(|queue| queue.statistics.numbers.get(QueueNumber::Consumers)).sum::<u64>();
    }
    let all = call.management.broker.registry.all();
    let own: Vec<_> =
        all.into_iter().filter(|open| call.identity.may_see(open.record.facts.lock().user.as_ref())).collect();
    if without_stats {
        return json!({"queues": queues, "exchanges": exchanges, "connections": own.len()});
    }
    let channels: usize = own.iter().map(|connection| connection.record.channel_count()).sum();
    json!({
        "exchanges": exchanges, "queues": queues, "channels": channels, "consumers": consumers, "connections": own.len(),
    })
}

/// The kinds of exchanges that can be declared.
pub(crate) fn exchange_types() -> Value {
    let describe = |kind: ExchangeKind| match kind {
        ExchangeKind::Direct => "AMQP direct exchange, as per the AMQP specification",
        ExchangeKind::Fanout => "AMQP fanout exchange, as per the AMQP specification",
        ExchangeKind::Topic => "AMQP topic exchange, as per the AMQP specification",
        ExchangeKind::Headers => "AMQP headers exchange, as per the AMQP specification",
        ExchangeKind::ConsistentHash => "Consistent Hashing Exchange",
        ExchangeKind::ModulusHash => "Modulus Hashing Exchange",
        ExchangeKind::Random => "Randomly picks a binding (queue) to route via (to).",
        ExchangeKind::LocalRandom => "Picks one random local binding (queue) to route via (to).",
        ExchangeKind::RecentHistory => "Recent History Exchange.",
    };
    let types = ExchangeKind::all();
    types.map(|kind| json!({"name": kind.name(), "description": describe(kind), "enabled": true})).collect()
}

/// The version that clients take the broker for.
pub(crate) async fn version(call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(call.management.settings.version.as_str().into()))
}

/// Extensions of a user interface that is not there.
pub(crate) async fn extensions(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(json!([])))
}

/// Everything that RabbitMQ 4.3 makes a flag of is always on.
const REQUIRED_FLAGS: [&str; 28] = [
    "classic_mirrored_queue_version",
    "classic_queue_type_delivery_support",
    "detailed_queues_endpoint",
    "direct_exchange_routing_v2",
    "drop_unroutable_metric",
    "empty_basic_get_metric",
    "feature_flags_v2",
    "implicit_default_bindings",
    "khepri_db",
    "listener_records_in_ets",
    "maintenance_mode_status",
    "message_containers",
    "message_containers_deaths_v2",
    "quorum_queue",
    "quorum_queue_non_voters",
    "rabbit_exchange_type_local_random",
    "rabbitmq_4.0.0",
    "rabbitmq_4.1.0",
    "rabbitmq_4.2.0",
    "restart_streams",
    "stream_filtering",
    "stream_queue",
    "stream_sac_coordinator_unblock_group",
    "stream_single_active_consumer",
    "stream_update_config_command",
    "tracking_records_in_ets",
    "user_limits",
    "virtual_host_metadata",
];

/// Those that RabbitMQ 4.3 lets its operators switch on.
const STABLE_FLAGS: [&str; 5] = [
    "rabbitmq_4.3.0",
    "tie_binding_to_dest_with_keep_while_cond",
    "topic_binding_projection_v4",
    "topic_binding_projection_v5",
    "track_qq_members_uids",
];

pub(crate) async fn feature_flags(call: Call) -> Result<Answer, Failure> {
    let required = REQUIRED_FLAGS.iter().map(|name| (*name, "required", "hard"));
    let stable = STABLE_FLAGS.iter().map(|name| (*name, "stable", "none"));
    let flags = required.chain(stable).map(|(name, stability, level)| {
        json!({
            "name": name, "desc": "", "doc_url": "", "state": "enabled", "stability": stability,
            "require_level": level, "experiment_level": "supported", "callbacks": [], "provided_by": "rabbit",
        })
    });
    listing::answer(flags.collect(), &call.query)
}

pub(crate) async fn enable_feature_flag(call: Call) -> Result<Answer, Failure> {
    let name = call.name(0);
    if name == "all" || REQUIRED_FLAGS.contains(&name) || STABLE_FLAGS.contains(&name) {
        return Ok(Answer::done());
    }
    Err(Failure::bad_request("unsupported"))
}

/// What RabbitMQ is about to drop, and this broker keeps.
fn deprecated(name: &str) -> Value {
    json!({
        "name": name, "state": "permitted", "desc": "", "deprecation_phase": "permitted_by_default", "doc_url": "",
        "provided_by": "rabbit",
    })
}

pub(crate) async fn deprecated_features(call: Call) -> Result<Answer, Failure> {
    let names = ["global_qos", "transient_nonexcl_queues"];
    listing::answer(names.map(deprecated).to_vec(), &call.query)
}

/// Those that are in use.
pub(crate) async fn deprecated_features_used(call: Call) -> Result<Answer, Failure> {
    let vhosts = call.topology.vhosts();
    let mut queues = vhosts.iter().flat_map(|(_, vhost)| vhost.queues.values());
    let uses_transient = queues.any(|queue| !queue.durable && queue.exclusive.is_none());
    let used = uses_transient.then(|| {
        let mut used = deprecated("transient_nonexcl_queues");
        if let Value::Object(map) = &mut used {
            // That they are permitted goes without saying.
            map.shift_remove("state");
        }
        used
    });
    listing::answer(used.into_iter().collect(), &call.query)
}

/// Removes the past of the statistics; counters stay.
pub(crate) async fn reset(call: Call) -> Result<Answer, Failure> {
    if call.names.first().is_some_and(|node| *node != call.management.settings.node_name) {
        return Err(Failure::not_found());
    }
    call.management.history.clear();
    Ok(Answer::done())
}
