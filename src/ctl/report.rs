//! The parts of pages about a node and a cluster: sections, listeners, memory in units, alarms.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::call::Call;
use super::error::CtlError;
use super::format::plain;

/// A unit of memory, a power of ten.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    name: &'static str,
    bytes: f64,
}

const UNITS: [Unit; 5] = [
    Unit { name: "gb", bytes: 1e9 },
    Unit { name: "mb", bytes: 1e6 },
    Unit { name: "kb", bytes: 1e3 },
    Unit { name: "tb", bytes: 1e12 },
    Unit { name: "bytes", bytes: 1.0 },
];

impl Default for Unit {
    fn default() -> Self {
        UNITS[0]
    }
}

impl Unit {
    /// `0.1613 gb`: four digits behind the point at most.
    pub(crate) fn text(self, bytes: f64) -> String {
        let rounded = (bytes / self.bytes * 1e4).round() / 1e4;
        format!("{rounded:?} {}", self.name)
    }
}

/// The unit of `--unit`.
///
/// # Errors
/// It is none.
pub(crate) fn unit(call: &Call<'_>) -> Result<Unit, CtlError> {
    let Some(name) = call.arguments.option("unit") else { return Ok(Unit::default()) };
    let found =
        UNITS.iter().find(|unit| unit.name == name.to_lowercase() || unit.name.starts_with(&name.to_lowercase()));
    let known = || UNITS.map(|unit| unit.name).join(", ");
    found.copied().ok_or_else(|| CtlError::BadArgument(format!("unit '{name}' is not supported; one of: {}", known())))
}

/// A page of headings with lines below them.
#[derive(Default)]
pub(crate) struct Sections(String);

impl Sections {
    pub(crate) fn begin(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(title);
        self.line("");
    }

    pub(crate) fn line(&mut self, text: &str) {
        let _ = writeln!(self.0, "{text}");
    }

    /// A line with a name and a value; none if there is no value.
    pub(crate) fn field(&mut self, name: &str, value: &Value) {
        if !value.is_null() {
            self.line(&format!("{name}: {}", plain(value)));
        }
    }

    pub(crate) fn bullets(&mut self, list: &Value) {
        for item in list.as_array().into_iter().flatten() {
            self.line(&format!(" * {}", plain(item)));
        }
    }

    /// The lines, or `(none)`.
    pub(crate) fn list(&mut self, lines: &[String]) {
        for line in lines {
            self.line(line);
        }
        if lines.is_empty() {
            self.line("(none)");
        }
    }

    pub(crate) fn text(self) -> String {
        self.0
    }
}

/// The alarms of a node, as lines.
pub(crate) fn alarms(node: &Value) -> Vec<String> {
    let name = plain(&node["name"]);
    let kinds = [("mem_alarm", "Memory"), ("disk_free_alarm", "Free disk space")];
    let raised = kinds.iter().filter(|(field, _)| node[*field] == true);
    raised.map(|(_, kind)| format!("{kind} alarm on node {name}")).collect()
}

/// The listeners of an overview in the form of RabbitMQ's tools.
pub(crate) fn listeners(overview: &Value) -> Vec<Value> {
    let listeners = overview["listeners"].as_array();
    listeners
        .into_iter()
        .flatten()
        .map(|listener| {
            let protocol = listener["protocol"].as_str().unwrap_or_default();
            json!({
                "node": listener["node"],
                "port": listener["port"],
                "protocol": protocol,
                "interface": interface(listener["ip_address"].as_str().unwrap_or_default()),
                "purpose": purpose(protocol),
            })
        })
        .collect()
}

fn interface(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn purpose(protocol: &str) -> &str {
    match protocol {
        "amqp" => "AMQP 0-9-1",
        "amqp/ssl" | "amqps" => "AMQP 0-9-1 over TLS",
        "http" => "HTTP API",
        "https" => "HTTP API over TLS (HTTPS)",
        "http/prometheus" => "Prometheus exporter API over HTTP",
        "https/prometheus" => "Prometheus exporter API over TLS (HTTPS)",
        "clustering" => "inter-node and CLI tool communication",
        "mqtt" => "MQTT",
        "stomp" => "STOMP",
        "stream" => "stream",
        other => other,
    }
}

/// `Interface: 127.0.0.1, port: 5672, protocol: amqp, purpose: AMQP 0-9-1`.
pub(crate) fn listener_line(first: &str, listener: &Value) -> String {
    let field = |name: &str| plain(&listener[name]);
    format!(
        "{first}: {}, port: {}, protocol: {}, purpose: {}",
        field("interface"),
        field("port"),
        field("protocol"),
        field("purpose")
    )
}

/// The kinds of memory with their bytes, most first.
fn kinds(memory: &Value) -> Vec<(&String, f64)> {
    let fields = memory.as_object().into_iter().flatten().filter(|(name, _)| *name != "total" && *name != "strategy");
    let mut kinds: Vec<(&String, f64)> = fields.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect();
    kinds.sort_by(|one, other| other.1.total_cmp(&one.1));
    kinds
}

fn total(memory: &Value) -> f64 {
    let strategy = memory["strategy"].as_str().unwrap_or("rss");
    memory["total"][strategy].as_f64().or_else(|| memory["total"]["rss"].as_f64()).unwrap_or_default()
}

fn share(bytes: f64, total: f64) -> f64 {
    if total > 0.0 { (bytes * 1e4 / total).round() / 100.0 } else { 0.0 }
}

/// `code: 0.0241 gb (14.91 %)`.
pub(crate) fn memory_lines(memory: &Value, unit: Unit, percent: &str) -> Vec<String> {
    let total = total(memory);
    let line =
        |(name, bytes): (&String, f64)| format!("{name}: {} ({:?}{percent})", unit.text(bytes), share(bytes, total));
    kinds(memory).into_iter().map(line).collect()
}

pub(crate) fn memory_json(memory: &Value) -> Value {
    let total = total(memory);
    let fields = memory.as_object().into_iter().flatten();
    let fields = fields.filter_map(|(name, value)| {
        let bytes = value.as_f64()?;
        Some((name.clone(), json!({"bytes": value, "percentage": share(bytes, total)})))
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn running(nodes: &[Value]) -> Vec<&Value> {
    nodes.iter().filter(|node| node["running"] != false).collect()
}

fn by_node(nodes: &[&Value], value: impl Fn(&Value) -> Value) -> Value {
    let fields = nodes.iter().map(|node| (plain(&node["name"]), value(node)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn maintenance(node: &Value) -> &'static str {
    if node["being_drained"] == true { "under maintenance" } else { "not under maintenance" }
}

pub(crate) fn cluster_json(overview: &Value, nodes: &[Value], flags: &Value) -> Value {
    let running = running(nodes);
    let names = |nodes: &[&Value]| nodes.iter().map(|node| node["name"].clone()).collect::<Vec<_>>();
    let listeners = listeners(overview);
    json!({
        "cluster_name": overview["cluster_name"],
        "cluster_tags": overview["cluster_tags"],
        "disk_nodes": names(&nodes.iter().collect::<Vec<_>>()),
        "running_nodes": names(&running),
        "versions": by_node(&running, |node| json!({
            "rabbitmq_name": overview["product_name"],
            "rabbitmq_version": node["rabbitmq_version"],
            "erlang_version": node["erlang_version"],
        })),
        "cpu_cores": by_node(&running, |node| node["processors"].clone()),
        "maintenance_status": by_node(&running, |node| json!(maintenance(node))),
        "alarms": running.iter().flat_map(|node| alarms(node)).collect::<Vec<_>>(),
        "partitions": {},
        "listeners": by_node(&running, |node| {
            listeners.iter().filter(|listener| listener["node"] == node["name"]).cloned().collect()
        }),
        "feature_flags": flags,
    })
}

pub(crate) fn cluster_text(overview: &Value, nodes: &[Value], flags: &Value) -> String {
    let running = running(nodes);
    let lines = |line: &dyn Fn(&str, &Value) -> String| -> Vec<String> {
        running.iter().map(|node| line(&plain(&node["name"]), node)).collect()
    };
    let mut page = Sections::default();
    page.begin("Basics");
    page.field("Cluster name", &overview["cluster_name"]);
    let cores: u64 = running.iter().filter_map(|node| node["processors"].as_u64()).sum();
    page.line(&format!("Total CPU cores available cluster-wide: {cores}"));
    page.begin("Cluster Tags");
    let tags = overview["cluster_tags"].as_object();
    page.list(&tags.into_iter().flatten().map(|(name, value)| format!("{name}: {}", plain(value))).collect::<Vec<_>>());
    page.begin("Disk Nodes");
    page.list(&nodes.iter().map(|node| plain(&node["name"])).collect::<Vec<_>>());
    page.begin("Running Nodes");
    page.list(&lines(&|name, _| name.to_owned()));
    page.begin("Versions");
    let product = plain(&overview["product_name"]);
    page.list(&lines(&|name, node| match erlang(&node["erlang_version"]) {
        Some(erlang) => format!("{name}: {product} {} on Erlang {erlang}", plain(&node["rabbitmq_version"])),
        None => format!("{name}: {product} {}", plain(&overview["product_version"])),
    }));
    page.begin("CPU Cores");
    page.list(&lines(&|name, node| format!("Node: {name}, available CPU cores: {}", plain(&node["processors"]))));
    page.begin("Maintenance status");
    page.list(&lines(&|name, node| format!("Node: {name}, status: {}", maintenance(node))));
    page.begin("Alarms");
    page.list(&running.iter().flat_map(|node| alarms(node)).collect::<Vec<_>>());
    page.begin("Network Partitions");
    page.list(&[]);
    page.begin("Listeners");
    for listener in listeners(overview) {
        page.line(&listener_line(&format!("Node: {}, interface", plain(&listener["node"])), &listener));
    }
    page.begin("Feature flags");
    for flag in flags.as_array().into_iter().flatten() {
        page.line(&format!("Flag: {}, state: {}", plain(&flag["name"]), plain(&flag["state"])));
    }
    page.text()
}

/// The version of Erlang, if there is one.
pub(crate) fn erlang(version: &Value) -> Option<&str> {
    version.as_str().filter(|version| !["", "none"].contains(version))
}

/// The effective configuration: `amqp.port = 5672` lines, with the origin where it is known.
pub(crate) fn settings_text(settings: &Value) -> String {
    let mut text = String::new();
    let entries = match settings {
        Value::Array(entries) => entries.clone(),
        Value::Object(fields) if fields.values().all(|value| !value.is_object()) => {
            fields.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
        }
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| json!({"key": key, "value": value.get("value").unwrap_or(value), "origin": value["origin"]})).collect()
        }
        other => vec![other.clone()],
    };
    for entry in entries {
        let origin = if entry["origin"].is_null() { String::new() } else { format!("  # {}", plain(&entry["origin"])) };
        let _ = writeln!(text, "{} = {}{origin}", plain(&entry["key"]), plain(&entry["value"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_rounded_as_in_rabbitmq() {
        let unit = Unit::default();
        assert_eq!(unit.text(50_000_000.0), "0.05 gb");
        assert_eq!(unit.text(0.0), "0.0 gb");
        assert_eq!(UNITS[1].text(50_000_000.0), "50.0 mb");
        let memory = json!({"code": 25, "plugins": 75, "strategy": "rss", "total": {"rss": 100}});
        assert_eq!(memory_lines(&memory, UNITS[4], "%"), ["plugins: 75.0 bytes (75.0%)", "code: 25.0 bytes (25.0%)"]);
    }

    #[test]
    fn a_listener_is_a_line() {
        let overview = json!({"listeners": [{"node": "a", "protocol": "http", "ip_address": "::1", "port": 15672}]});
        let line = listener_line("Interface", &listeners(&overview)[0]);
        assert_eq!(line, "Interface: [::1], port: 15672, protocol: http, purpose: HTTP API");
    }
}
