//! Nodes: this one.

use serde_json::{Map, Value, json};

use crate::broker::Broker;
use crate::model::plugin;
use crate::model::statistics::{ChurnNumber, LogNumber};

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::history::Subject;
use super::super::listing;
use super::super::memory::Memory;
use super::super::rates::{NODE, Rates, node_row};
use super::overview;

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let node = render(&call)?;
    listing::answer(vec![Value::Object(node)], &call.query)
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    check_name(&call)?;
    let mut map = render(&call)?;
    if call.query.is_true("memory") {
        map.insert("memory".into(), Memory::of(&call.management).json());
    }
    if call.query.is_true("binary") {
        map.insert("binary".into(), binary(&call.management.broker));
    }
    Ok(listing::one(Value::Object(map), &call.query))
}

fn check_name(call: &Call) -> Result<(), Failure> {
    if call.name(0) == call.management.settings.node_name { Ok(()) } else { Err(Failure::not_found()) }
}

fn render(call: &Call) -> Result<Map<String, Value>, Failure> {
    let management = &call.management;
    let settings = &management.settings;
    let facts = management.node.facts();
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
    put("partitions", json!([]));
    put("os_pid", facts.process_id.to_string().into());
    put("fd_total", facts.open_files_max.into());
    put("sockets_total", facts.open_files_max.into());
    put("mem_limit", facts.memory_limit.into());
    put("mem_alarm", facts.memory_alarm.into());
    put("disk_free_limit", facts.disk_limit.into());
    put("disk_free_alarm", facts.disk_alarm.into());
    put("proc_total", 1_048_576.into());
    put("rates_mode", "basic".into());
    put("uptime", facts.uptime_ms.into());
    put("run_queue", 0.into());
    put("processors", facts.processors.into());
    put("exchange_types", overview::exchange_types());
    put("auth_mechanisms", auth_mechanisms());
    put("applications", json!([{"name": "warren", "description": "Warren", "version": env!("CARGO_PKG_VERSION")}]));
    put("contexts", contexts(call, None));
    put("log_files", json!(facts.log_files));
    put("db_dir", facts.data_directory.as_str().into());
    put("config_files", json!(facts.config_files));
    put("net_ticktime", 60.into());
    put("enabled_plugins", plugin::built_ins().collect::<Vec<_>>().into());
    put("mem_calculation_strategy", "rss".into());
    put("ra_open_file_metrics", json!({"ra_log_wal": 0, "ra_log_segment_writer": 0}));
    put("rabbitmq_version", settings.version.as_str().into());
    put("erlang_version", "none".into());
    put("erlang_full_version", "none".into());
    put("crypto_lib_version", "rustls with aws-lc-rs".into());
    put("name", settings.node_name.as_str().into());
    put("running", true.into());
    put("type", "disc".into());
    put("being_drained", call.management.node.service().drained.into());
    put("cluster_links", json!([]));
    put("metrics_gc_queue_length", metrics_to_remove());
    put_counters(call, &mut map);
    let rates = Rates::new(&management.history, &call.query, management.now())?;
    let names: Vec<&str> = NODE.iter().map(|(name, _)| *name).collect();
    rates.put(&mut map, Subject::Node, NODE, &node_row(&facts, &management.broker.registry), &names);
    Ok(map)
}

/// Statistics that wait to be removed: none ever do.
fn metrics_to_remove() -> Value {
    let mut map: Map<String, Value> = ["consumer", "exchange", "queue", "vhost", "node_node", "channel_consumer"]
        .into_iter()
        .map(|kind| (format!("{kind}_deleted"), 0.into()))
        .collect();
    for kind in ["connection", "channel"] {
        map.insert(format!("{kind}_closed"), 0.into());
    }
    Value::Object(map)
}

/// Memory in messages, by what holds them: RabbitMQ's kinds.
fn binary(broker: &Broker) -> Value {
    let mut map = Map::new();
    for name in [
        "connection_readers",
        "connection_writers",
        "connection_other",
        "stream_queue_procs",
        "stream_queue_replica_reader_procs",
        "stream_queue_coordinator_procs",
        "quorum_queue_procs",
        "quorum_queue_dlx_procs",
        "metadata_store",
        "plugins",
        "mgmt_db",
        "other",
    ] {
        map.insert(name.to_owned(), 0.into());
    }
    map.insert("connection_channels".into(), broker.transaction_bytes().into());
    map.insert("queue_procs".into(), broker.queued_bytes().into());
    map.insert(
        "msg_index".into(),
        broker.held().saturating_sub(broker.queued_bytes() + broker.transaction_bytes()).into(),
    );
    Value::Object(map)
}

fn auth_mechanisms() -> Value {
    json!([
        {"name": "PLAIN", "description": "SASL PLAIN authentication mechanism", "enabled": true},
        {"name": "AMQPLAIN", "description": "QPid AMQPLAIN mechanism", "enabled": true},
        {"name": "ANONYMOUS", "description": "SASL ANONYMOUS authentication mechanism", "enabled": false},
        {"name": "EXTERNAL", "description": "SASL EXTERNAL authentication mechanism", "enabled": false},
    ])
}

/// Counters that RabbitMQ's nodes have; those of things that this broker does not have stay at 0.
const WITHOUT_MEANING: [&str; 11] = [
    "gc_num",
    "gc_bytes_reclaimed",
    "context_switches",
    "io_seek_count",
    "io_reopen_count",
    "mnesia_ram_tx_count",
    "mnesia_disk_tx_count",
    "msg_store_read_count",
    "msg_store_write_count",
    "queue_index_write_count",
    "queue_index_read_count",
];

fn put_counters(call: &Call, map: &mut Map<String, Value>) {
    let broker = &call.management.broker;
    let log = &broker.log_statistics;
    let churn = &broker.registry.churn;
    let commits = log.get(LogNumber::Commits);
    let commit_ms = if commits == 0 { 0.0 } else { log.get(LogNumber::CommitMicros) as f64 / commits as f64 / 1000.0 };
    let usage = broker.log_usage();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
        map.insert(format!("{key}_details"), json!({"rate": 0.0}));
    };
    for name in WITHOUT_MEANING {
        put(name, 0.into());
    }
    put("io_read_count", log.get(LogNumber::Reads).into());
    put("io_read_bytes", 0.into());
    put("io_read_avg_time", 0.0.into());
    put("io_write_count", log.get(LogNumber::Writes).into());
    put("io_write_bytes", (usage.wal + usage.segments).into());
    put("io_write_avg_time", 0.0.into());
    put("io_sync_count", commits.into());
    put("io_sync_avg_time", commit_ms.into());
    put("io_seek_avg_time", 0.0.into());
    for (name, number) in [
        ("connection_created", ChurnNumber::ConnectionsCreated),
        ("connection_closed", ChurnNumber::ConnectionsClosed),
        ("channel_created", ChurnNumber::ChannelsCreated),
        ("channel_closed", ChurnNumber::ChannelsClosed),
        ("queue_declared", ChurnNumber::QueuesDeclared),
        ("queue_created", ChurnNumber::QueuesCreated),
        ("queue_deleted", ChurnNumber::QueuesDeleted),
    ] {
        put(name, churn.get(number).into());
    }
}

pub(crate) async fn memory(call: Call) -> Result<Answer, Failure> {
    check_name(&call)?;
    Ok(Answer::json(json!({"memory": Memory::of(&call.management).json()})))
}

pub(crate) async fn memory_relative(call: Call) -> Result<Answer, Failure> {
    check_name(&call)?;
    Ok(Answer::json(json!({"memory": Memory::of(&call.management).shares()})))
}

/// The sockets that are listened on.
pub(crate) fn listeners(call: &Call) -> Value {
    let node = call.management.settings.node_name.as_str();
    let listeners = call.management.node.listeners().into_iter().map(|listener| {
        let address = listener.address.to_string();
        let options = if listener.protocol.starts_with("http") {
            json!({"cowboy_opts": {"sendfile": false}, "ip": address, "port": listener.port})
        } else {
            json!({"backlog": 128, "nodelay": true, "linger": [true, 0], "exit_on_close": false})
        };
        json!({
            "node": node,
            "protocol": listener.protocol,
            "ip_address": address,
            "port": listener.port,
            "socket_opts": options,
            "tls": listener.tls,
        })
    });
    listeners.collect()
}

/// The HTTP listeners.
pub(crate) fn contexts(call: &Call, node: Option<&str>) -> Value {
    let listeners =
        call.management.node.listeners().into_iter().filter(|listener| listener.protocol.starts_with("http"));
    let contexts = listeners.map(|listener| {
        let description =
            if listener.protocol.contains("prometheus") { "RabbitMQ Prometheus" } else { "RabbitMQ Management" };
        let mut context = json!({
            "ssl_opts": {}, "description": description, "path": "/", "cowboy_opts": "[{sendfile,false}]",
            "ip": listener.address.to_string(), "port": listener.port.to_string(),
        });
        if let (Some(node), Value::Object(map)) = (node, &mut context) {
            map.insert("node".into(), node.into());
        }
        context
    });
    contexts.collect()
}

/// Where RabbitMQ tells of its runtime's memory management, and clients expect an object.
pub(crate) fn garbage_collection() -> Value {
    json!({"fullsweep_after": 65535, "max_heap_size": 0, "min_bin_vheap_size": 0, "min_heap_size": 0, "minor_gcs": 0})
}

/// A time as `2026-11-20T19:23:06.507+00:00`.
pub(crate) fn rfc3339(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hours, minutes, seconds) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    let millis = ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}+00:00")
}

/// Year, month and day of a day since the epoch, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day that leap years have more is their last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_rabbitmq_does() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(rfc3339(1_795_202_586_507), "2026-11-20T19:23:06.507+00:00");
        assert_eq!(rfc3339(4_107_542_399_999), "2100-02-28T23:59:59.999+00:00");
    }
}
