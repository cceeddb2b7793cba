//! `status` and `cluster_status`: what the API knows of the node, on one page. The parts are in `report.rs`.

use hyper::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::client::path;
use super::error::CtlError;
use super::node::not_rabbitmq;
use super::report::{self, Sections, listener_line, memory_lines, unit};
use super::verb::{BOTH, DIAGNOSTICS, Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Monitoring,
        "status",
        "[--unit <unit>]",
        "Shows the node on one page: versions, memory, disk, alarms, listeners",
        status,
    )
    .of(BOTH),
    Verb::new(
        Group::Cluster,
        "cluster_status",
        "",
        "Shows the cluster: members, versions, alarms, listeners, feature flags",
        cluster_status,
    )
    .of(BOTH),
    Verb::new(Group::Monitoring, "environment", "", "Shows the effective configuration", environment).of(BOTH),
    Verb::new(
        Group::Monitoring,
        "report",
        "",
        "Prints everything that helps to help: status, lists, configuration",
        full_report,
    )
    .of(BOTH),
    Verb::new(Group::Monitoring, "listeners", "", "Lists the node's listeners: interface, port, protocol", listeners)
        .of(DIAGNOSTICS),
    Verb::new(
        Group::Monitoring,
        "memory_breakdown",
        "[--unit <unit>]",
        "Shows what the node's memory is used for",
        memory_breakdown,
    )
    .of(DIAGNOSTICS),
    Verb::new(Group::Monitoring, "log_location", "[--all]", "Prints where the node's log goes", log_location)
        .of(DIAGNOSTICS),
    Verb::new(
        Group::Monitoring,
        "log_tail",
        "[--number <number>]",
        "Prints the last lines of the log's file",
        log_tail,
    )
    .of(DIAGNOSTICS),
];

/// Everything `status` is about.
struct Node {
    overview: Value,
    node: Value,
    memory: Value,
    vhosts: usize,
}

impl Node {
    fn ask(call: &Call<'_>) -> Result<Self, CtlError> {
        let overview = call.client.get("/api/overview")?;
        let name = overview["node"].as_str().unwrap_or_default();
        let node = call.client.get(&path(&["nodes", name]))?;
        let memory = call.client.find(&path(&["nodes", name, "memory"]))?.unwrap_or_default();
        let vhosts = call.client.get("/api/vhosts?columns=name")?.as_array().map_or(0, Vec::len);
        Ok(Self { overview, node, memory: memory["memory"].clone(), vhosts })
    }

    fn alarms(&self) -> Vec<String> {
        report::alarms(&self.node)
    }

    fn listeners(&self) -> Vec<Value> {
        report::listeners(&self.overview)
    }
}

fn status(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Status of node {node} ..."));
    let unit = unit(call)?;
    let node = Node::ask(call)?;
    call.document(&status_json(&node), || status_text(&node, unit))
}

fn seconds(node: &Value) -> u64 {
    node["uptime"].as_u64().unwrap_or_default() / 1000
}

fn status_json(status: &Node) -> Value {
    let (node, overview) = (&status.node, &status.overview);
    let pid = &node["os_pid"];
    json!({
        "pid": pid.as_str().and_then(|pid| pid.parse::<u64>().ok()).map_or_else(|| pid.clone(), Value::from),
        "os": "Linux",
        "uptime": seconds(node),
        "is_under_maintenance": node["being_drained"].as_bool().unwrap_or(false),
        "rabbitmq_version": overview["rabbitmq_version"],
        "product_name": overview["product_name"],
        "product_version": overview["product_version"],
        "node": overview["node"],
        "erlang_version": overview["erlang_full_version"],
        "crypto_lib_version": overview["crypto_lib_version"],
        "processes": {"used": node["proc_used"], "limit": node["proc_total"]},
        "run_queue": node["run_queue"],
        "net_ticktime": node["net_ticktime"],
        "active_plugins": node["enabled_plugins"],
        "data_directory": node["db_dir"],
        "config_files": node["config_files"],
        "log_files": node["log_files"],
        "alarms": status.alarms(),
        "tags": [],
        "memory": status.memory,
        "vm_memory_calculation_strategy": node["mem_calculation_strategy"],
        "vm_memory_high_watermark_limit": node["mem_limit"],
        "disk_free_limit": node["disk_free_limit"],
        "disk_free": node["disk_free"],
        "totals": {
            "connection_count": overview["object_totals"]["connections"],
            "queue_count": overview["object_totals"]["queues"],
            "virtual_host_count": status.vhosts,
        },
        "listeners": status.listeners(),
    })
}

fn status_text(status: &Node, unit: report::Unit) -> String {
    let (node, overview) = (&status.node, &status.overview);
    let mut page = Sections::default();
    page.begin("Runtime");
    page.field("OS PID", &node["os_pid"]);
    page.field("OS", &json!("Linux"));
    page.field("Uptime (seconds)", &json!(seconds(node)));
    page.field("Is under maintenance?", &json!(node["being_drained"].as_bool().unwrap_or(false)));
    page.field("RabbitMQ version", &overview["rabbitmq_version"]);
    if overview["product_name"] != "RabbitMQ" {
        page.field("Product", &overview["product_name"]);
        page.field("Product version", &overview["product_version"]);
    }
    page.field("Node name", &overview["node"]);
    let erlang = report::erlang(&overview["erlang_full_version"]);
    page.field("Erlang configuration", &json!(erlang));
    page.field("Crypto library", &overview["crypto_lib_version"]);
    if erlang.is_some() {
        page.line(&format!("Erlang processes: {} used, {} limit", node["proc_used"], node["proc_total"]));
        page.field("Scheduler run queue", &node["run_queue"]);
        page.field("Cluster heartbeat timeout (net_ticktime)", &node["net_ticktime"]);
    }
    page.begin("Plugins");
    page.line("Enabled plugins:");
    page.line("");
    page.bullets(&node["enabled_plugins"]);
    page.begin("Data directory");
    page.field("Node data directory", &node["db_dir"]);
    page.begin("Config files");
    page.bullets(&node["config_files"]);
    page.begin("Log file(s)");
    page.bullets(&node["log_files"]);
    page.begin("Alarms");
    page.list(&status.alarms());
    page.begin("Tags");
    page.list(&[]);
    page.begin("Memory");
    let used = status.memory["total"]["rss"].as_f64().or_else(|| node["mem_used"].as_f64()).unwrap_or_default();
    page.line(&format!("Total memory used: {}", unit.text(used)));
    page.field("Calculation strategy", &node["mem_calculation_strategy"]);
    let limit = node["mem_limit"].as_f64().unwrap_or_default();
    page.line(&format!("Memory high watermark setting: computed to: {}", unit.text(limit)));
    page.line("");
    for line in memory_lines(&status.memory, unit, " %") {
        page.line(&line);
    }
    page.begin("Free Disk Space");
    page.line(&format!(
        "Low free disk space watermark: {}",
        unit.text(node["disk_free_limit"].as_f64().unwrap_or_default())
    ));
    page.line(&format!("Free disk space: {}", unit.text(node["disk_free"].as_f64().unwrap_or_default())));
    page.begin("Totals");
    page.field("Connection count", &overview["object_totals"]["connections"]);
    page.field("Queue count", &overview["object_totals"]["queues"]);
    page.field("Virtual host count", &json!(status.vhosts));
    page.begin("Listeners");
    for listener in status.listeners() {
        page.line(&listener_line("Interface", &listener));
    }
    page.text()
}

fn cluster_status(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Cluster status of node {node} ..."));
    let overview = call.client.get("/api/overview")?;
    let nodes = call.client.get("/api/nodes")?;
    let flags = call.client.find("/api/feature-flags")?.unwrap_or_default();
    let nodes: Vec<Value> = nodes.as_array().cloned().unwrap_or_default();
    let document = report::cluster_json(&overview, &nodes, &flags);
    call.document(&document, || report::cluster_text(&overview, &nodes, &flags))
}

fn environment(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Application environment of node {node} ..."));
    let settings = match call.client.find("/api/warren/environment")? {
        Some(settings) => settings,
        None => {
            let reply = call.client.request(&Method::GET, "/api/config/effective", None)?.success()?;
            // A RabbitMQ answers with Erlang terms.
            match reply.json() {
                Value::Null => Value::String(reply.body_text()),
                settings => settings,
            }
        }
    };
    call.document(&settings, || match &settings {
        Value::String(text) => format!("{}\n", text.trim_end()),
        settings => report::settings_text(settings),
    })
}

fn full_report(call: &Call<'_>) -> Done {
    call.banner("Reporting server status ...");
    call.raw_line(&format!("Reporting server status of node {}", call.node()));
    let node = Node::ask(call)?;
    call.raw_line(&status_text(&node, report::Unit::default()));
    let flags = call.client.find("/api/feature-flags")?.unwrap_or_default();
    let nodes: Vec<Value> = call.client.get("/api/nodes")?.as_array().cloned().unwrap_or_default();
    call.raw_line(&report::cluster_text(&node.overview, &nodes, &flags));
    for (title, path) in [
        ("Connections", "/api/connections"),
        ("Channels", "/api/channels"),
        ("Queues", "/api/queues"),
        ("Exchanges", "/api/exchanges"),
        ("Bindings", "/api/bindings"),
        ("Consumers", "/api/consumers"),
        ("Policies", "/api/policies"),
        ("Permissions", "/api/permissions"),
        ("Virtual hosts", "/api/vhosts"),
    ] {
        call.raw_line(&format!("{title}\n"));
        let list = call.client.get(path)?;
        for item in list.as_array().into_iter().flatten() {
            call.raw_line(&item.to_string());
        }
        call.raw_line("");
    }
    call.raw_line("Configuration\n");
    environment(call)
}

fn listeners(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Asking node {node} to report its protocol listeners ..."));
    let overview = call.client.get("/api/overview")?;
    let listeners = report::listeners(&overview);
    let document = json!({"node": overview["node"], "result": "ok", "listeners": listeners});
    call.document(&document, || listeners.iter().map(|listener| listener_line("Interface", listener) + "\n").collect())
}

fn memory_breakdown(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Reporting memory breakdown on node {node}..."));
    let unit = unit(call)?;
    let memory = call.client.get(&path(&["nodes", call.node(), "memory"]))?;
    let memory = &memory["memory"];
    call.document(&report::memory_json(memory), || memory_lines(memory, unit, "%").join("\n") + "\n\n")
}

fn log_tail(call: &Call<'_>) -> Done {
    let count = call.arguments.number::<usize>("number")?.unwrap_or(50);
    call.node_banner(|node| format!("Last {count} log lines on node {node} ... "));
    let reply = call.client.request(&Method::GET, &format!("/api/warren/log_tail?lines={count}"), None)?;
    not_rabbitmq(call, reply.status)?;
    let tail = reply.success()?.json();
    tail["lines"].as_array().into_iter().flatten().filter_map(Value::as_str).for_each(|line| call.line(line));
    Ok(())
}

fn log_location(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Log file location(s) on node {node} ..."));
    let node = call.client.get(&path(&["nodes", call.node()]))?;
    let files = node["log_files"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let count = if call.arguments.has("all") { usize::MAX } else { 1 };
    for file in files.take(count) {
        call.line(file);
    }
    Ok(())
}
