//! Metrics for Prometheus: what the published dashboards ask for is there, and the numbers are those of what was done.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, PATIENCE},
    harness::{Broker, own_broker},
    methods::{basic, channel, confirm, queue},
    wire::{Properties, Table, table},
};

/// What the panels and variables of the RabbitMQ-Overview dashboard query, with the type each has to have. Of histograms the
/// queries name the series.
const DASHBOARD: &[(&str, &str)] = &[
    ("rabbitmq_build_info", "untyped"),
    ("rabbitmq_channels", "gauge"),
    ("rabbitmq_channels_closed_total", "counter"),
    ("rabbitmq_channels_opened_total", "counter"),
    ("rabbitmq_connections", "gauge"),
    ("rabbitmq_connections_closed_total", "counter"),
    ("rabbitmq_connections_opened_total", "counter"),
    ("rabbitmq_disk_space_available_bytes", "gauge"),
    ("rabbitmq_disk_space_available_limit_bytes", "gauge"),
    ("rabbitmq_erlang_uptime_seconds", "gauge"),
    ("rabbitmq_global_consumers", "gauge"),
    ("rabbitmq_global_messages_acknowledged_total", "counter"),
    ("rabbitmq_global_messages_confirmed_total", "counter"),
    ("rabbitmq_global_messages_delivered_consume_auto_ack_total", "counter"),
    ("rabbitmq_global_messages_delivered_consume_manual_ack_total", "counter"),
    ("rabbitmq_global_messages_delivered_get_auto_ack_total", "counter"),
    ("rabbitmq_global_messages_delivered_get_manual_ack_total", "counter"),
    ("rabbitmq_global_messages_delivered_total", "counter"),
    ("rabbitmq_global_messages_get_empty_total", "counter"),
    ("rabbitmq_global_messages_received_confirm_total", "counter"),
    ("rabbitmq_global_messages_received_total", "counter"),
    ("rabbitmq_global_messages_redelivered_total", "counter"),
    ("rabbitmq_global_messages_routed_total", "counter"),
    ("rabbitmq_global_messages_unroutable_dropped_total", "counter"),
    ("rabbitmq_global_messages_unroutable_returned_total", "counter"),
    ("rabbitmq_global_publishers", "gauge"),
    ("rabbitmq_identity_info", "untyped"),
    ("rabbitmq_message_size_bytes_bucket", "histogram"),
    ("rabbitmq_message_size_bytes_count", "histogram"),
    ("rabbitmq_message_size_bytes_sum", "histogram"),
    ("rabbitmq_process_max_fds", "gauge"),
    ("rabbitmq_process_open_fds", "gauge"),
    ("rabbitmq_process_resident_memory_bytes", "gauge"),
    ("rabbitmq_queue_messages_ready", "gauge"),
    ("rabbitmq_queue_messages_unacked", "gauge"),
    ("rabbitmq_queues", "gauge"),
    ("rabbitmq_queues_created_total", "counter"),
    ("rabbitmq_queues_declared_total", "counter"),
    ("rabbitmq_queues_deleted_total", "counter"),
    ("rabbitmq_resident_memory_limit_bytes", "gauge"),
];

/// What a scrape said.
struct Scrape {
    /// Families by name, with their types.
    types: BTreeMap<String, String>,
    /// Numbers by name and labels as they are written.
    series: BTreeMap<String, f64>,
    text: String,
}

/// Head and body of an answer.
fn request(broker: &Broker, path: &str, header: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(broker.metrics.expect("a broker with metrics")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // As of HTTP 1.0, the answer ends with the connection.
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{header}\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an answer has a head") + 4;
    let body = answer.split_off(end);
    (String::from_utf8(answer).unwrap().to_lowercase(), body)
}

/// The body of an answer, or the status when it is not 200.
fn fetch(broker: &Broker, path: &str) -> Result<String, String> {
    let (head, body) = request(broker, path, "");
    match head.split(' ').nth(1) {
        Some("200") => Ok(String::from_utf8(body).unwrap()),
        status => Err(status.unwrap_or_default().to_owned()),
    }
}

fn scrape(broker: &Broker, path: &str) -> Scrape {
    let text = fetch(broker, path).unwrap();
    let mut types = BTreeMap::new();
    let mut series = BTreeMap::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{name} begins twice");
        } else if !line.starts_with('#') {
            let (name, number) = line.rsplit_once(' ').unwrap();
            let number = number.parse().unwrap_or_else(|_| panic!("{line:?} ends with a number"));
            assert_eq!(series.insert(name.to_owned(), number), None, "{name} is there twice");
        }
    }
    Scrape { types, series, text }
}

impl Scrape {
    fn get(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("no {series} in:\n{}", self.text))
    }

    fn has(&self, name: &str, labels: &[&str]) -> bool {
        self.series.keys().any(|series| {
            let (found, written) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| written.contains(&format!("{label}=\"")))
        })
    }
}

/// Scrapes again until the series have these numbers.
fn wait_for(broker: &Broker, path: &str, expected: &[(&str, f64)]) -> Scrape {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let scrape = scrape(broker, path);
        let wrong: Vec<_> =
            expected.iter().filter(|(series, number)| scrape.series.get(*series) != Some(number)).collect();
        if wrong.is_empty() {
            return scrape;
        }
        assert!(Instant::now() < deadline, "not {wrong:?} in:\n{}", scrape.text);
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does everything once that the dashboard counts. What the connection holds then stays until it is closed.
fn load(client: &mut Client) {
    let none = Table::new();
    client.declare_queue(1, "jobs", 0, &none);
    client.declare_queue(1, "jobs", 0, &none);
    client.declare_queue(1, "gone", 0, &none);
    client.publish(1, "", "gone", "x");
    client.wait_for_message(1, "gone", 1);
    client.call(1, &queue::delete("gone", 0));
    for body in ["1", "2", "3", "4", "5"] {
        client.publish(1, "", "jobs", body);
    }
    client.wait_for_message(1, "jobs", 1);
    let got = client.wait_for_message(1, "jobs", 0);
    client.send(1, &basic::nack(got.tag, basic::NACK_REQUEUE));
    let again = client.wait_for_message(1, "jobs", 0);
    assert!(again.redelivered);
    client.send(1, &basic::ack(again.tag, 0));
    client.declare_queue(1, "empty", 0, &none);
    assert!(client.get(1, "empty", 0).is_none());
    client.publish(1, "", "nowhere", "dropped");
    let mandatory = basic::publish("", "nowhere", basic::MANDATORY);
    client.publish_with(1, &mandatory, &Properties::default(), "returned");
    client.expect_return(1);
    client.open_channel(2);
    client.consume(2, "empty", "automatic", basic::NO_ACK, &none);
    client.publish(1, "", "empty", "x");
    client.expect_delivery(2);
    client.open_channel(3);
    client.call(3, &basic::qos(0, 1, 0));
    client.consume(3, "jobs", "manual", 0, &none);
    let first = client.expect_delivery(3);
    client.send(3, &basic::ack(first.tag, 0));
    client.expect_delivery(3);
    client.open_channel(4);
    client.call(4, &channel::close());
    client.open_channel(5);
    client.call(5, &confirm::select(0));
    client.publish(5, "", "jobs", "x".repeat(150));
    client.expect_confirm(5);
}

const GLOBAL: &str = "{protocol=\"amqp091\"}";
const OF_TYPE: &str = "{protocol=\"amqp091\",queue_type=\"rabbit_classic_queue\"}";

#[test]
fn the_overview_dashboard_finds_all_it_asks_for() {
    let Some(broker) = own_broker("") else { return };
    // All series of a broker are there from its start, and 0.
    for (series, number) in scrape(&broker, "/metrics").series {
        if series.contains("global_") {
            assert!(number == 0.0, "{series} is {number}");
        }
    }
    broker.connect().close();
    let mut client = broker.connect();
    load(&mut client);
    let global = |name: &str, labels: &str, number: f64| (format!("rabbitmq_global_{name}{labels}"), number);
    let mut expected = vec![
        global("messages_received_total", GLOBAL, 10.0),
        global("messages_received_confirm_total", GLOBAL, 1.0),
        global("messages_confirmed_total", GLOBAL, 1.0),
        global("messages_routed_total", GLOBAL, 8.0),
        global("messages_unroutable_dropped_total", GLOBAL, 1.0),
        global("messages_unroutable_returned_total", GLOBAL, 1.0),
        global("publishers", GLOBAL, 2.0),
        global("consumers", GLOBAL, 2.0),
        global("messages_delivered_get_auto_ack_total", OF_TYPE, 2.0),
        global("messages_delivered_get_manual_ack_total", OF_TYPE, 2.0),
        global("messages_redelivered_total", OF_TYPE, 1.0),
        global("messages_delivered_consume_auto_ack_total", OF_TYPE, 1.0),
        global("messages_delivered_consume_manual_ack_total", OF_TYPE, 2.0),
        global("messages_delivered_total", OF_TYPE, 7.0),
        global("messages_acknowledged_total", OF_TYPE, 2.0),
    ];
    for (name, number) in [
        ("connections", 1.0),
        ("connections_opened_total", 2.0),
        ("connections_closed_total", 1.0),
        ("channels", 4.0),
        ("channels_opened_total", 6.0),
        ("channels_closed_total", 2.0),
        ("queues", 2.0),
        ("queues_declared_total", 4.0),
        ("queues_created_total", 3.0),
        ("queues_deleted_total", 1.0),
        ("consumers", 2.0),
        ("queue_messages_ready", 2.0),
        ("queue_messages_unacked", 1.0),
        ("message_size_bytes_bucket{protocol=\"amqp091\",le=\"100\"}", 9.0),
        ("message_size_bytes_bucket{protocol=\"amqp091\",le=\"1000\"}", 10.0),
        ("message_size_bytes_count{protocol=\"amqp091\"}", 10.0),
        ("auth_attempts_succeeded_total{protocol=\"amqp091\"}", 2.0),
    ] {
        expected.push((format!("rabbitmq_{name}"), number));
    }
    let expected: Vec<(&str, f64)> = expected.iter().map(|(name, number)| (name.as_str(), *number)).collect();
    let scrape = wait_for(&broker, "/metrics", &expected);
    assert!(scrape.get(&format!("rabbitmq_global_messages_get_empty_total{OF_TYPE}")) >= 1.0);
    for (name, kind) in DASHBOARD {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let family = if *kind == "histogram" { histogram.unwrap() } else { name };
        assert_eq!(scrape.types.get(family).map(String::as_str), Some(*kind), "{name}");
        assert!(scrape.has(name, &[]), "{name}");
    }
    let identity = ["rabbitmq_cluster", "rabbitmq_cluster_permanent_id", "rabbitmq_endpoint", "rabbitmq_node"];
    assert!(scrape.has("rabbitmq_identity_info", &identity));
    let build = ["rabbitmq_version", "erlang_version", "prometheus_client_version", "prometheus_plugin_version"];
    assert!(scrape.has("rabbitmq_build_info", &build));
    assert!(scrape.text.contains("rabbitmq_endpoint=\"aggregated\""));
    client.close();
}

#[test]
fn counters_do_not_go_down_when_what_they_counted_is_gone() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    let arguments = table([("x-max-length", 1.into()), ("x-dead-letter-exchange", "".into())]);
    client.declare_queue(1, "short", 0, &arguments);
    client.declare_queue(1, "plain", 0, &table([("x-max-length", 1.into())]));
    for name in ["short", "plain", "plain"] {
        client.publish(1, "", name, "first");
        client.publish(1, "", name, "second");
    }
    let got = client.wait_for_message(1, "short", 0);
    client.send(1, &basic::reject(got.tag, 0));
    // Its letter comes back to the queue: a circle with a rejection in it is none.
    client.wait_for_count(1, "short", 1);
    let letters = |why: &str, strategy: &str| {
        format!(
            "rabbitmq_global_messages_dead_lettered_{why}_total{{queue_type=\"rabbit_classic_queue\",\
             dead_letter_strategy=\"{strategy}\"}}"
        )
    };
    let names = [
        letters("maxlen", "at_most_once"),
        letters("maxlen", "disabled"),
        letters("rejected", "at_most_once"),
        letters("rejected", "disabled"),
    ];
    let routed = format!("rabbitmq_global_messages_routed_total{GLOBAL}");
    let expected = [
        (names[0].as_str(), 1.0),
        (names[1].as_str(), 3.0),
        (names[2].as_str(), 1.0),
        (names[3].as_str(), 0.0),
        (routed.as_str(), 6.0),
        ("rabbitmq_queue_get_ack_total", 1.0),
        ("rabbitmq_queue_time_in_queue_seconds_count", 1.0),
    ];
    let before = wait_for(&broker, "/metrics", &expected);
    client.call(1, &queue::delete("short", 0));
    client.call(1, &queue::delete("plain", 0));
    client.close();
    let gone = [("rabbitmq_queues", 0.0), ("rabbitmq_connections", 0.0)];
    let after = wait_for(&broker, "/metrics", &gone);
    let counters = before.types.iter().filter(|(_, kind)| *kind == "counter").map(|(name, _)| name);
    for counter in counters {
        for (series, number) in before.series.iter().filter(|(series, _)| series.split('{').next() == Some(counter)) {
            assert!(after.get(series) >= *number, "{series} was {number} and is {}", after.get(series));
        }
    }
    assert!(expected.iter().all(|(series, number)| after.get(series) == *number), "{}", after.text);
}

#[test]
fn every_object_is_told_of_under_its_own_labels() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    let odd = "a \"quoted\" \\ name";
    client.declare_queue(1, odd, 0, &Table::new());
    client.publish(1, "", odd, "x");
    let labels = "{vhost=\"/\",queue=\"a \\\"quoted\\\" \\\\ name\"}";
    let ready = format!("rabbitmq_queue_messages_ready{labels}");
    let scrape = wait_for(&broker, "/metrics/per-object", &[(&ready, 1.0)]);
    assert!(scrape.get(&format!("rabbitmq_queue_oldest_message_age_seconds{labels}")) < 10.0);
    assert!(!scrape.series.contains_key("rabbitmq_queue_messages_ready"), "no sum beside the objects");
    for (name, labels) in [
        ("rabbitmq_queue_info", &["vhost", "queue", "queue_type", "membership"][..]),
        ("rabbitmq_exchange_messages_published_total", &["vhost", "exchange"]),
        ("rabbitmq_channel_messages_published_total", &["channel", "vhost"]),
        ("rabbitmq_channel_consumers", &["channel"]),
        ("rabbitmq_connection_incoming_bytes_total", &["channel"]),
        ("rabbitmq_queue_messages_published_total", &["queue_vhost", "queue"]),
        ("rabbitmq_global_messages_received_total", &["protocol"]),
    ] {
        assert!(scrape.has(name, labels), "{name}{labels:?} in:\n{}", scrape.text);
    }
    client.close();
}

#[test]
fn detailed_metrics_are_those_that_are_asked_for() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    for name in ["orders.1", "orders.2", "mail"] {
        client.declare_queue(1, name, 0, &Table::new());
    }
    let nothing = scrape(&broker, "/metrics/detailed");
    assert!(nothing.series.keys().all(|series| series.contains("_info{") || series.starts_with("telemetry_")));
    let families = "family=queue_coarse_metrics&family=queue_consumer_count&family=queue_metrics&family=bogus";
    let cluster = "family=vhost_status&family=exchange_names&family=exchange_bindings";
    let path = format!("/metrics/detailed?{families}&{cluster}&vhost=%2F&vhost=other&queue=%5Eorders&queue=nothing");
    let chosen = scrape(&broker, &path);
    for (queue, shown) in [("orders.1", true), ("orders.2", true), ("mail", false)] {
        for family in ["queue_messages_ready", "queue_consumers", "queue_messages_persistent"] {
            let series = format!("rabbitmq_detailed_{family}{{vhost=\"/\",queue=\"{queue}\"}}");
            assert_eq!(chosen.series.contains_key(&series), shown, "{series}");
        }
    }
    assert_eq!(chosen.get("rabbitmq_cluster_vhost_status{vhost=\"/\"}"), 1.0);
    assert_eq!(chosen.get("rabbitmq_cluster_exchange_name{vhost=\"/\",exchange=\"amq.topic\",type=\"topic\"}"), 1.0);
    assert!(chosen.has("rabbitmq_cluster_exchange_bindings", &["vhost", "exchange", "type"]));
    assert!(chosen.text.contains("rabbitmq_endpoint=\"detailed\""));
    let elsewhere = scrape(&broker, &path.replace("vhost=%2F&", ""));
    assert!(!elsewhere.text.contains("orders.1"));
    assert_eq!(fetch(&broker, "/metrics/detailed?family=queue_metrics&queue=%5B").unwrap_err(), "400");
    assert_eq!(fetch(&broker, "/metrics/bogus").unwrap_err(), "404");
    assert!(request(&broker, "/metrics", "Accept: application/openmetrics-text\r\n").0.contains(" 406 "));
    client.close();
}

#[test]
fn a_long_scrape_is_whole() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    for number in 0..2_000 {
        client.send(1, &queue::declare(&format!("queue-{number}"), queue::NOWAIT, &Table::new()));
    }
    client.declare_queue(1, "last", 0, &Table::new());
    let path = "/metrics/detailed?family=queue_metrics&family=queue_delivery_metrics";
    let scrape = scrape(&broker, path);
    assert!(scrape.text.len() > 1 << 20, "{} bytes are in several pieces", scrape.text.len());
    for family in ["queue_consumers", "queue_head_message_timestamp", "queue_get_empty_total", "queue_info"] {
        let prefix = format!("rabbitmq_detailed_{family}{{");
        let count = scrape.series.keys().filter(|series| series.starts_with(&prefix)).count();
        assert_eq!(count, 2_001, "{family}");
    }
    let (head, compressed) = request(&broker, path, "Accept-Encoding: gzip\r\n");
    assert!(head.contains("content-encoding: gzip") && compressed.len() < scrape.text.len() / 5);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
    let of_queues = |text: &str| text.lines().filter(|line| line.contains("queue=\"")).count();
    assert_eq!(of_queues(&text), of_queues(&scrape.text));
    client.close();
}
