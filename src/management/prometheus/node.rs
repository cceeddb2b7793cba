//! The families of the node as a whole.

use crate::model::durations::{DURATION_BOUNDS_MS, Durations};
use crate::model::statistics::{
    COMMIT_BOUNDS_MICROS, ChannelNumber, ChurnNumber, ExchangeNumber, LogNumber, QueueNumber,
};

use super::super::memory::Memory;
use super::scrape::Scrape;
use super::text::FamilyKind::{Counter, Gauge, Histogram, Untyped};
use super::text::Text;

/// The one protocol.
const PROTOCOL: (&str, &str) = ("protocol", "amqp091");
/// The one type of queues.
pub(super) const QUEUE_TYPE: (&str, &str) = ("queue_type", "rabbit_classic_queue");
/// Bounds of the classes of publishes by size, in bytes.
const SIZE_BOUNDS: [u64; 8] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

/// Kinds of memory: their names here and in the API, and what they are. Those that this broker has none of are left out.
const MEMORY: [(&str, &str, &str); 12] = [
    ("code_module", "code", "Code module memory footprint"),
    ("client_connection_reader", "connection_readers", "Client connection reader processes footprint"),
    ("client_connection_writer", "connection_writers", "Client connection writer processes footprint"),
    ("client_connection_channel", "connection_channels", "Client connection channel processes footprint"),
    ("client_connection_other", "connection_other", "Client connection other processes footprint"),
    ("classic_queue_erlang_process", "queue_procs", "Classic queue processes footprint"),
    ("modern_metadata_store", "metadata_store", "Modern metadata store footprint"),
    ("other_erlang_process", "other_proc", "Other processes footprint"),
    ("management_stats_db", "mgmt_db", "Management stats database footprint"),
    ("binary_heap", "binary", "Binary heap size"),
    ("message_index", "msg_index", "Message index footprint"),
    ("runtime_allocated_unused", "allocated_unused", "Runtime allocated but unused blocks size"),
];

/// Who this is: every query of a dashboard joins with these.
pub(super) fn info(scrape: &Scrape, text: &mut Text) {
    let settings = &scrape.management.settings;
    let own_version = env!("CARGO_PKG_VERSION");
    text.family("build_info", Untyped, "RabbitMQ & Erlang/OTP version info");
    let labels = [
        ("rabbitmq_version", settings.version.as_str()),
        ("prometheus_plugin_version", &settings.version),
        ("prometheus_client_version", own_version),
        ("erlang_version", "none"),
        ("product_name", "Warren"),
        ("product_version", own_version),
    ];
    text.sample(&labels, 1);
    let permanent = scrape.topology.global("internal_cluster_id");
    let permanent = permanent.and_then(|value| value.as_str()).unwrap_or(&settings.node_name);
    text.family("identity_info", Untyped, "RabbitMQ node & cluster identity info");
    let labels = [
        ("rabbitmq_node", settings.node_name.as_str()),
        ("rabbitmq_cluster", &scrape.management.cluster_name()),
        ("rabbitmq_cluster_permanent_id", permanent),
        ("rabbitmq_endpoint", scrape.endpoint.name()),
    ];
    text.sample(&labels, 1);
}

pub(super) fn churn(scrape: &Scrape, text: &mut Text) {
    let churn = &scrape.management.broker.registry.churn;
    for (name, what, number) in [
        ("connections_opened_total", "connections opened", ChurnNumber::ConnectionsCreated),
        ("connections_closed_total", "connections closed or terminated", ChurnNumber::ConnectionsClosed),
        ("channels_opened_total", "channels opened", ChurnNumber::ChannelsCreated),
        ("channels_closed_total", "channels closed", ChurnNumber::ChannelsClosed),
        ("queues_declared_total", "queues declared", ChurnNumber::QueuesDeclared),
        ("queues_created_total", "queues created", ChurnNumber::QueuesCreated),
        ("queues_deleted_total", "queues deleted", ChurnNumber::QueuesDeleted),
    ] {
        text.single(name, Counter, &format!("Total number of {what}"), churn.get(number));
    }
}

pub(super) fn coarse(scrape: &Scrape, text: &mut Text) {
    let facts = &scrape.facts;
    text.single("process_open_fds", Gauge, "Open file descriptors", facts.open_files);
    text.single("process_resident_memory_bytes", Gauge, "Memory used in bytes", facts.memory_used);
    text.single("disk_space_available_bytes", Gauge, "Disk space available in bytes", facts.disk_free);
}

pub(super) fn limits(scrape: &Scrape, text: &mut Text) {
    let facts = &scrape.facts;
    text.single("process_max_fds", Gauge, "Open file descriptors limit", facts.open_files_max);
    text.single("resident_memory_limit_bytes", Gauge, "Memory high watermark in bytes", facts.memory_limit);
    let help = "Free disk space low watermark in bytes";
    text.single("disk_space_available_limit_bytes", Gauge, help, facts.disk_limit);
    text.single("erlang_uptime_seconds", Gauge, "Node uptime", facts.uptime_ms as f64 / 1000.0);
}

pub(super) fn persister(scrape: &Scrape, text: &mut Text) {
    let log = &scrape.management.broker.log_statistics;
    let (commits, micros) = (log.get(LogNumber::Commits), log.get(LogNumber::CommitMicros));
    text.single("io_write_ops_total", Counter, "Total number of I/O write operations", commits);
    text.single("io_sync_ops_total", Counter, "Total number of I/O sync operations", commits);
    let (reads, writes) = (log.get(LogNumber::Reads), log.get(LogNumber::Writes));
    text.single("msg_store_read_total", Counter, "Total number of Message Store read operations", reads);
    text.single("msg_store_write_total", Counter, "Total number of Message Store write operations", writes);
    text.single("io_sync_time_seconds_total", Counter, "Total I/O sync time", micros as f64 / 1e6);
}

/// Records that queues read from and wrote to the log are counted together.
pub(super) fn queue_disk(scrape: &Scrape, text: &mut Text) {
    let (reads, writes) = scrape.management.broker.log_operations();
    let help = "Total number of times queue read messages from disk";
    text.single("queue_disk_reads_total", Counter, help, reads);
    let help = "Total number of times queue wrote messages to disk";
    text.single("queue_disk_writes_total", Counter, help, writes);
}

/// Confirms are counted by channels, and not for each exchange.
pub(super) fn exchange_confirms(scrape: &Scrape, text: &mut Text) {
    let confirmed = scrape.sums.channels.0[ChannelNumber::Confirmed as usize];
    let help = "Total number of messages published into an exchange and confirmed";
    text.single("exchange_messages_confirmed_total", Counter, help, confirmed);
}

/// Logins by protocol.
pub(super) fn logins(scrape: &Scrape, text: &mut Text) {
    let counted = scrape.management.broker.login_attempts.totals();
    // Both are there from the start.
    let of = |protocol: &str| {
        let totals = counted.iter().find(|totals| totals.protocol == protocol);
        totals.map_or((0, 0), |totals| (totals.succeeded, totals.failed))
    };
    let protocols = [("amqp091", of("amqp091")), ("http", of("http"))];
    let mut put = |name: &str, help: &str, value: fn((u64, u64)) -> u64| {
        text.family(name, Counter, &format!("Total number of {help}"));
        for (protocol, counts) in protocols {
            text.sample(&[("protocol", protocol)], value(counts));
        }
    };
    put("auth_attempts_total", "authentication attempts", |(succeeded, failed)| succeeded + failed);
    put("auth_attempts_succeeded_total", "successful authentication attempts", |(succeeded, _)| succeeded);
    put("auth_attempts_failed_total", "failed authentication attempts", |(_, failed)| failed);
}

pub(super) fn totals(scrape: &Scrape, text: &mut Text) {
    let sums = &scrape.sums;
    text.single("connections", Gauge, "Connections currently open", sums.connection_count);
    text.single("channels", Gauge, "Channels currently open", sums.channel_count);
    let consumers = sums.queues.get(QueueNumber::Consumers);
    text.single("consumers", Gauge, "Consumers currently connected", consumers);
    text.single("queues", Gauge, "Queues available", sums.queue_count);
}

/// `rabbitmq_global_*` of publishers.
pub(super) fn global_publishing(scrape: &Scrape, text: &mut Text) {
    let sums = &scrape.sums;
    let channels = |number: ChannelNumber| sums.channels.0[number as usize];
    let mut put = |name: &str, help: &str, value: u64| {
        text.family(name, Counter, &format!("Total number of messages {help}"));
        text.sample(&[PROTOCOL], value);
    };
    put("global_messages_confirmed_total", "confirmed to publishers", channels(ChannelNumber::Confirmed));
    let help = "received from publishers expecting confirmations";
    put("global_messages_received_confirm_total", help, channels(ChannelNumber::PublishedConfirm));
    put("global_messages_received_total", "received from publishers", channels(ChannelNumber::Published));
    let routed = sums.exchanges.0[ExchangeNumber::PublishOut as usize];
    put("global_messages_routed_total", "routed to queues or streams", routed);
    let help = "published as non-mandatory into an exchange and dropped as unroutable";
    put("global_messages_unroutable_dropped_total", help, channels(ChannelNumber::DroppedUnroutable));
    let help = "published as mandatory into an exchange and returned to the publisher as unroutable";
    put("global_messages_unroutable_returned_total", help, channels(ChannelNumber::ReturnedUnroutable));
    text.family("global_publishers", Gauge, "Current number of publishers");
    text.sample(&[PROTOCOL], sums.publishers);
    text.family("global_consumers", Gauge, "Current number of consumers");
    text.sample(&[PROTOCOL], channels(ChannelNumber::Consumers));
}

/// `rabbitmq_global_*` of consumers.
pub(super) fn global_consuming(scrape: &Scrape, text: &mut Text) {
    use ChannelNumber::{Acked, Delivered, DeliveredAutoAck, GetEmpty, Got, GotAutoAck, Redelivered};
    let channels = |number: ChannelNumber| scrape.sums.channels.0[number as usize];
    let delivered = [Delivered, DeliveredAutoAck, Got, GotAutoAck].map(channels).iter().sum();
    for (name, help, value) in [
        ("acknowledged_total", "messages acknowledged by consumers", channels(Acked)),
        (
            "delivered_consume_auto_ack_total",
            "messages delivered to consumers using basic.consume with automatic acknowledgment",
            channels(DeliveredAutoAck),
        ),
        (
            "delivered_consume_manual_ack_total",
            "messages delivered to consumers using basic.consume with manual acknowledgment",
            channels(Delivered),
        ),
        (
            "delivered_get_auto_ack_total",
            "messages delivered to consumers using basic.get with automatic acknowledgment",
            channels(GotAutoAck),
        ),
        (
            "delivered_get_manual_ack_total",
            "messages delivered to consumers using basic.get with manual acknowledgment",
            channels(Got),
        ),
        ("delivered_total", "messages delivered to consumers", delivered),
        ("get_empty_total", "times basic.get operations fetched no message", channels(GetEmpty)),
        ("redelivered_total", "messages redelivered to consumers", channels(Redelivered)),
    ] {
        text.family(&format!("global_messages_{name}"), Counter, &format!("Total number of {help}"));
        text.sample(&[PROTOCOL, QUEUE_TYPE], value);
    }
}

/// Why messages left, whether or not as dead letters: the strategy tells which.
pub(super) fn dead_letters(scrape: &Scrape, text: &mut Text) {
    use QueueNumber::{DroppedDeadLettered, DroppedDiscarded, ExpiredDeadLettered, ExpiredDiscarded};
    use QueueNumber::{RejectedDeadLettered, RejectedDiscarded};
    for (name, help, dead_lettered, discarded) in [
        ("expired", "message TTL exceeded", ExpiredDeadLettered, ExpiredDiscarded),
        ("maxlen", "overflow drop-head or reject-publish-dlx", DroppedDeadLettered, DroppedDiscarded),
        ("rejected", "basic.reject or basic.nack", RejectedDeadLettered, RejectedDiscarded),
    ] {
        let help = format!("Total number of messages dead-lettered due to {help}");
        text.family(&format!("global_messages_dead_lettered_{name}_total"), Counter, &help);
        let queues = |number| scrape.sums.queues.get(number);
        text.sample(&[QUEUE_TYPE, ("dead_letter_strategy", "at_most_once")], queues(dead_lettered));
        text.sample(&[QUEUE_TYPE, ("dead_letter_strategy", "disabled")], queues(discarded));
    }
}

pub(super) fn message_sizes(scrape: &Scrape, text: &mut Text) {
    let numbers = &scrape.sums.channels.0;
    let counts = &numbers[ChannelNumber::Size100 as usize..=ChannelNumber::SizeMore as usize];
    text.family("message_size_bytes", Histogram, "Size of messages received from publishers");
    text.histogram(&[PROTOCOL], SIZE_BOUNDS, counts, numbers[ChannelNumber::SizeSum as usize]);
}

pub(super) fn alarms(scrape: &Scrape, text: &mut Text) {
    let facts = &scrape.facts;
    let help = "is 1 if free disk space watermark alarm is in effect";
    text.single("alarms_free_disk_space_watermark", Untyped, help, facts.disk_alarm);
    let help = "is 1 if VM memory watermark alarm is in effect";
    text.single("alarms_memory_used_watermark", Untyped, help, facts.memory_alarm);
    let help = "Number of peers in the cluster the current node cannot reach.";
    text.single("unreachable_cluster_peers_count", Gauge, help, 0);
}

/// What keeps publishers from publishing.
pub(super) fn flow(scrape: &Scrape, text: &mut Text) {
    text.family("alarm_in_effect", Gauge, "Whether this keeps publishers blocked");
    for (cause, holds) in &scrape.facts.alarm_causes {
        text.sample(&[("cause", cause)], *holds);
    }
    let help = "Connections that found no place at a listener, or one for a short while only";
    text.family("connections_turned_away_total", Counter, help);
    for (listener, count) in &scrape.facts.turned_away {
        text.sample(&[("listener", listener)], *count);
    }
    text.family("connections_by_state", Gauge, "Open connections by what they do; blocked ones wait for alarms to end");
    for (state, count) in &scrape.sums.states {
        text.sample(&[("state", state)], *count);
    }
    let help = "Open connections that are not read from until queues have taken what was published";
    text.single("connections_without_credit", Gauge, help, scrape.sums.without_credit);
}

/// The log and what it takes.
pub(super) fn log(scrape: &Scrape, text: &mut Text) {
    let broker = &scrape.management.broker;
    let numbers = broker.log_statistics.snapshot();
    let help = "Time that it took to write what was submitted to the log, and to sync it if it is to be";
    text.family("log_commit_seconds", Histogram, help);
    let bounds = COMMIT_BOUNDS_MICROS.map(|micros| micros as f64 / 1e6);
    let counts = &numbers[LogNumber::Within64 as usize..=LogNumber::Beyond as usize];
    text.histogram(&[], bounds, counts, numbers[LogNumber::CommitMicros as usize] as f64 / 1e6);
    let usage = broker.log_usage();
    text.single("log_wal_bytes", Gauge, "Bytes of the log's WAL files", usage.wal);
    text.single("log_segment_bytes", Gauge, "Bytes of the log's segment files", usage.segments);
    text.single("log_live_bytes", Gauge, "Bytes of entries in segment files that are in use", usage.live);
    let help = "Bytes of memory that the messages in all queues take, roughly";
    text.single("message_memory_bytes", Gauge, help, broker.held());
}

/// Of all queues together, those that are gone included.
pub(super) fn durations_of_all(scrape: &Scrape, text: &mut Text) {
    let sums = &scrape.sums.durations;
    for (family, durations) in [(&IN_QUEUE, &sums.in_queue), (&PROCESSING, &sums.processing)] {
        text.family(family.0, Histogram, family.1);
        duration(text, &[], durations);
    }
}

/// Name and help.
pub(super) const IN_QUEUE: (&str, &str) =
    ("queue_time_in_queue_seconds", "Time from a message's arrival in a queue to its first delivery");
pub(super) const PROCESSING: (&str, &str) =
    ("queue_processing_time_seconds", "Time from a message's delivery to its acknowledgement");

/// A histogram of durations.
pub(super) fn duration(text: &mut Text, labels: &[(&str, &str)], durations: &Durations) {
    let bounds = DURATION_BOUNDS_MS.map(|ms| ms as f64 / 1000.0);
    text.histogram(labels, bounds, &durations.counts, durations.sum_ms as f64 / 1000.0);
}

/// Memory by what it is for, as far as that is known.
pub(super) fn memory(scrape: &Scrape, text: &mut Text) {
    let memory = Memory::of(&scrape.management);
    for (name, kind, what) in MEMORY {
        let help = format!("{what} in bytes");
        text.single(&format!("memory_{name}_bytes"), Gauge, &help, memory.bytes(kind));
    }
}

/// Under names of their own, without a prefix.
pub(super) fn process(scrape: &Scrape, text: &mut Text) {
    let started = scrape.now_ms.saturating_sub(scrape.facts.uptime_ms);
    let help = "Start time of the process since unix epoch in seconds.";
    text.single("process_start_time_seconds", Gauge, help, started as f64 / 1000.0);
}

pub(super) fn vhosts(scrape: &Scrape, text: &mut Text) {
    text.family("vhost_status", Gauge, "Whether a given vhost is running");
    for (name, _) in scrape.topology.vhosts() {
        text.sample(&[("vhost", name.as_str())], 1);
    }
}
