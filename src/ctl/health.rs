//! Health checks: exit code 0 or 69, with one line that says what was found.

use std::net::ToSocketAddrs;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::client::{Reply, path};
use super::error::{CtlError, code};
use super::report;
use super::target::TargetPlace;
use super::verb::{BOTH, DIAGNOSTICS, Done, Group, QUEUES, Tool, Verb};

const QUORUM: &[Tool] = &[Tool::Diagnostics, Tool::Queues];

const fn check(name: &'static str, usage: &'static str, about: &'static str, run: fn(&Call<'_>) -> Done) -> Verb {
    Verb::new(Group::HealthChecks, name, usage, about, run).of(DIAGNOSTICS)
}

pub(crate) const VERBS: &[Verb] = &[
    check("alarms", "[--timeout <timeout>]", "Lists resource alarms, local or of the cluster", alarms),
    check("check_alarms", "[--timeout <timeout>]", "Fails if there is a resource alarm", check_alarms),
    check(
        "check_local_alarms",
        "[--timeout <timeout>]",
        "Fails if there is a resource alarm on this node",
        check_local_alarms,
    ),
    check("check_running", "[--timeout <timeout>]", "Fails unless the broker accepts connections", check_running),
    check(
        "check_port_connectivity",
        "[--address <address>] [--timeout <timeout>]",
        "Connects to every listener; fails if one cannot be reached",
        check_port_connectivity,
    ),
    check("check_port_listener", "<port>", "Fails unless there is a listener on that port", check_port_listener),
    check(
        "check_protocol_listener",
        "<protocol>",
        "Fails unless there is a listener for that protocol",
        check_protocol_listener,
    ),
    check("check_virtual_hosts", "[--timeout <timeout>]", "Fails unless all virtual hosts run", check_virtual_hosts),
    check(
        "check_certificate_expiration",
        "[--within <within>] [--unit <unit>]",
        "Fails if a certificate ends within that many days, weeks, months or years; 4 weeks if nothing is given",
        check_certificate_expiration,
    ),
    check(
        "check_if_node_is_quorum_critical",
        "",
        "Fails if queues would lose their majority without this node",
        check_if_node_is_quorum_critical,
    )
    .of(QUORUM),
    check(
        "check_for_quorum_queues_without_an_elected_leader",
        "[--vhost <vhost>] [--across-all-vhosts] <pattern>",
        "Fails if a quorum queue whose name matches has no leader",
        check_for_leaders,
    ),
    check(
        "check_if_new_quorum_queue_replicas_have_finished_initial_sync",
        "",
        "Fails while a new replica of a quorum queue is catching up",
        check_initial_sync,
    )
    .of(QUORUM),
    check("check_if_node_is_mirror_sync_critical", "", "Accepted; there are no mirrored queues", no_mirrors).of(QUEUES),
    check(
        "check_if_cluster_has_classic_queue_mirroring_policy",
        "",
        "Accepted; there are no mirrored queues",
        no_mirroring_policy,
    ),
    check("check_if_metadata_store_is_initialized", "", "Fails unless the definitions have been read", metadata_store),
    check(
        "check_if_metadata_store_is_initialized_with_data",
        "",
        "Fails unless the definitions have been read",
        metadata_store_with_data,
    ),
    check(
        "check_if_any_deprecated_features_are_used",
        "",
        "Fails if a deprecated feature is in use",
        check_deprecated_features,
    )
    .of(BOTH),
    check("node_health_check", "", "Does nothing; there are better checks", node_health_check).of(BOTH),
];

/// Asks for a health check; 503 is a failed one.
fn ask(call: &Call<'_>, path: &str) -> Result<Reply, CtlError> {
    let reply = call.client.request(&Method::GET, path, None)?;
    if reply.status == 503 { Ok(reply) } else { reply.success() }
}

fn failed(text: String) -> CtlError {
    CtlError::failed(code::UNAVAILABLE, text)
}

fn all_alarms(call: &Call<'_>) -> Result<Vec<String>, CtlError> {
    let nodes = call.client.get("/api/nodes")?;
    Ok(nodes.as_array().into_iter().flatten().flat_map(report::alarms).collect())
}

fn alarms(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Asking node {node} to report any known resource alarms ..."));
    let raised = all_alarms(call)?;
    let node = call.node();
    call.document(&json!({"node": node, "result": "ok", "alarms": raised}), || alarms_text(node, &raised))
}

fn alarms_text(node: &str, raised: &[String]) -> String {
    if raised.is_empty() {
        return format!("Node {node} reported no alarms, local or clusterwide\n");
    }
    format!("Node {node} reported alarms:\n\n{}\n", raised.join("\n"))
}

fn check_alarms(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Asking node {node} to report any local resource alarms ..."));
    let raised = all_alarms(call)?;
    let text = alarms_text(call.node(), &raised);
    if raised.is_empty() {
        call.line(text.trim_end());
        return Ok(());
    }
    Err(failed(text.trim_end().to_owned()))
}

fn check_local_alarms(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Asking node {node} to report any local resource alarms ..."));
    let reply = ask(call, "/api/health/checks/local-alarms")?;
    if reply.status == 503 {
        return Err(failed(format!("Node {node} reported local alarms: {}", reply.reason())));
    }
    call.line(&format!("Node {node} reported no local alarms"));
    Ok(())
}

fn check_running(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Checking if RabbitMQ is running on node {node} ..."));
    let reply = call.client.request(&Method::GET, "/api/health/checks/is-in-service", None)?;
    if !reply.is_success() && reply.status != 404 {
        return Err(failed(format!("RabbitMQ on node {node} is not accepting client connections: {}", reply.reason())));
    }
    // It must also answer a question about its definitions.
    call.client.get("/api/vhosts?columns=name")?;
    call.line(&format!("RabbitMQ on node {node} is fully booted and running"));
    Ok(())
}

fn check_port_connectivity(call: &Call<'_>) -> Done {
    let node = call.node();
    let given = call.arguments.option("address");
    let (how, used) = match given {
        Some(address) => {
            (format!("using {address} for node IP address"), format!("using {address} for target IP address"))
        }
        None => ("using hostname resolution".to_owned(), "using node hostname resolution".to_owned()),
    };
    call.banner(&format!("Testing TCP connections to all active listeners on node {node} {how} ..."));
    let overview = call.client.get("/api/overview?columns=listeners")?;
    let mut ports: Vec<u16> = Vec::new();
    for listener in overview["listeners"].as_array().into_iter().flatten() {
        let port = listener["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
        let address = given.unwrap_or_else(|| address_of(call, listener));
        call.banner(&format!("Will connect to {address}:{port}"));
        connect(address, port, call.client.timeout)
            .map_err(|error| failed(format!("Connection to {address}:{port} of node {node} failed: {error}")))?;
        ports.push(port);
    }
    ports.sort_unstable();
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    call.line(&format!("Successfully connected to ports {} on node {node} ({used})", ports.join(", ")));
    Ok(())
}

/// Where to find a listener: on this machine at the address it is bound to, elsewhere at the host that was named.
fn address_of<'a>(call: &'a Call<'_>, listener: &'a Value) -> &'a str {
    let bound = listener["ip_address"].as_str().filter(|address| !["", "0.0.0.0", "::"].contains(address));
    match (&call.client.target.place, bound) {
        (TargetPlace::Unix(_), Some(bound)) => bound,
        _ => call.client.target.host(),
    }
}

/// Opens a TCP connection and closes it; every address of the name is tried.
fn connect(host: &str, port: u16, timeout: Duration) -> std::io::Result<()> {
    let timeout = if timeout.is_zero() { Duration::from_secs(60) } else { timeout };
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for address in (host, port).to_socket_addrs()? {
        match std::net::TcpStream::connect_timeout(&address, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn check_port_listener(call: &Call<'_>) -> Done {
    let port = call.argument(0);
    port.parse::<u16>().map_err(|_| CtlError::BadArgument("provided port is not an integer".to_owned()))?;
    let node = call.node();
    call.banner(&format!("Asking node {node} if there's an active listener on port {port} ..."));
    let reply = ask(call, &path(&["health", "checks", "port-listener", port]))?;
    if reply.status == 503 {
        let mut found: Vec<u64> = numbers(&reply.json()["ports"]);
        found.sort_unstable();
        let found: Vec<String> = found.iter().map(u64::to_string).collect();
        let text = format!(
            "No listener for port {port} is active on node {node}. Found listeners that use the following ports: {}",
            found.join(", ")
        );
        return Err(CtlError::plain(code::UNAVAILABLE, text));
    }
    call.line(&format!("A listener for port {port} is running on node {node}."));
    Ok(())
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn check_protocol_listener(call: &Call<'_>) -> Done {
    let asked = call.argument(0);
    let node = call.node();
    call.banner(&format!("Asking node {node} if there's an active listener for protocol {asked} ..."));
    let protocol = match asked {
        "amqp10" | "amqp091" | "amqp0.9.1" | "amqp1.0" => "amqp",
        "amqps" => "amqp/ssl",
        other => other,
    };
    let overview = call.client.get("/api/overview?columns=listeners")?;
    let mut found: Vec<&str> = overview["listeners"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|listener| listener["protocol"].as_str())
        .collect();
    found.sort_unstable();
    found.dedup();
    if found.contains(&protocol) || found.contains(&asked) {
        call.line(&format!("A listener for protocol {protocol} is running on node {node}."));
        return Ok(());
    }
    Err(failed(format!(
        "No listener for protocol {protocol} is active on node {node}. Found listeners for the following protocols: {}",
        found.join(", ")
    )))
}

fn check_virtual_hosts(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Checking if all vhosts are running on node {node} ..."));
    let reply = ask(call, "/api/health/checks/virtual-hosts")?;
    if reply.status == 503 {
        return Err(failed(format!("Some virtual hosts on node {node} are down: {}", reply.body_text())));
    }
    call.line(&format!("Node {node} reported all vhosts as running"));
    Ok(())
}

fn check_certificate_expiration(call: &Call<'_>) -> Done {
    let within = call.arguments.number::<u32>("within")?.unwrap_or(4);
    let unit = call.arguments.option("unit").unwrap_or("weeks").to_lowercase();
    if !["days", "weeks", "months", "years"].contains(&unit.as_str()) {
        return Err(CtlError::BadArgument(format!(
            "unit '{unit}' is not supported; one of: days, weeks, months, years"
        )));
    }
    let node = call.node();
    call.banner(&format!("Checking certificate expiration for all certificates on node {node} ..."));
    let reply = ask(call, &path(&["health", "checks", "certificate-expiration", &within.to_string(), &unit]))?;
    if reply.status == 503 {
        return Err(failed(format!("Some certificates are expiring within {within} {unit}: {}", reply.body_text())));
    }
    call.line(&format!("No certificates are expiring within {within} {unit}."));
    Ok(())
}

fn check_if_node_is_quorum_critical(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Checking if node {node} is critical for quorum of any queues/streams ..."));
    let reply = ask(call, "/api/health/checks/node-is-quorum-critical")?;
    if reply.status == 503 {
        return Err(failed(format!("Node {node} is critical for the quorum of queues: {}", reply.body_text())));
    }
    if reply.json()["reason"] == "single node cluster" {
        call.line(&format!("Node {node} seems to be the only one in a single node cluster, the check does not apply"));
    } else {
        call.line(&format!("Node {node} reported no queues/streams that are quorum critical"));
    }
    Ok(())
}

fn check_for_leaders(call: &Call<'_>) -> Done {
    let pattern = call.argument(0);
    let check = "quorum-queues-without-elected-leaders";
    let (path, place) = if call.arguments.has("across-all-vhosts") {
        (path(&["health", "checks", check, "all-vhosts", "pattern", pattern]), "all vhosts".to_owned())
    } else {
        let vhost = call.vhost();
        (path(&["health", "checks", check, "vhost", vhost, "pattern", pattern]), format!("virtual host '{vhost}'"))
    };
    call.banner(&format!("Checking leader replicas of quorum queues matching '{pattern}' in {place} ..."));
    let reply = ask(call, &path)?;
    if reply.status == 503 {
        return Err(failed(format!("Some quorum queues have no responsive leader replicas: {}", reply.body_text())));
    }
    call.line(&format!("Node {} reported all quorum queue as having responsive leader replicas", call.node()));
    Ok(())
}

fn check_initial_sync(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Checking if node {node} runs promotable replicas of any queues ..."));
    let queues = call.client.get("/api/queues?columns=vhost,name,type")?;
    let quorum = queues.as_array().into_iter().flatten().filter(|queue| queue["type"] == "quorum");
    for queue in quorum {
        let (vhost, name) = (queue["vhost"].as_str().unwrap_or_default(), queue["name"].as_str().unwrap_or_default());
        let members = call.client.find(&path(&["queues", "quorum", vhost, name, "status"]))?.unwrap_or_default();
        let promotable = members
            .as_array()
            .into_iter()
            .flatten()
            .any(|member| member["Membership"] == "promotable" && member["Node Name"] == node);
        if promotable {
            return Err(failed(format!(
                "Node {node} has a promotable replica of queue '{name}' in virtual host '{vhost}'"
            )));
        }
    }
    call.line(&format!("Node {node} reported no queues with promotable replicas"));
    Ok(())
}

fn no_mirrors(call: &Call<'_>) -> Done {
    call.banner("This command is DEPRECATED and is a no-op. It will be removed in a future version.");
    call.line("ok");
    Ok(())
}

fn no_mirroring_policy(call: &Call<'_>) -> Done {
    call.banner("Checking if cluster has any classic queue mirroring policy ...");
    call.line("Cluster reported no policies that enable classic queue mirroring");
    Ok(())
}

fn metadata_store(call: &Call<'_>) -> Done {
    initialized(call, "/api/health/checks/metadata-store/initialized")
}

fn metadata_store_with_data(call: &Call<'_>) -> Done {
    initialized(call, "/api/health/checks/metadata-store/initialized/with-data")
}

fn initialized(call: &Call<'_>, path: &str) -> Done {
    let node = call.node();
    call.banner(&format!("Checking if metadata store on node {node} has finished initializing ..."));
    let reply = ask(call, path)?;
    if reply.status == 503 {
        return Err(failed(format!(
            "Metadata store on node {node} has not completed its initialization: {}",
            reply.reason()
        )));
    }
    call.line(&format!("Metadata store on node {node} has completed its initialization"));
    Ok(())
}

fn check_deprecated_features(call: &Call<'_>) -> Done {
    call.banner("Checking if any deprecated features are used ...");
    let used = call.client.get("/api/deprecated-features/used")?;
    let used: Vec<&str> =
        used.as_array().into_iter().flatten().filter_map(|feature| feature["name"].as_str()).collect();
    if !used.is_empty() {
        return Err(failed(format!("Cluster reported the following deprecated features in use: {}", used.join(", "))));
    }
    call.line("Cluster reported no deprecated features in use");
    Ok(())
}

fn node_health_check(call: &Call<'_>) -> Done {
    call.line("This command is DEPRECATED and is a no-op. It will be removed in a future version. ");
    call.line("Use check_running, check_alarms, check_port_connectivity or check_virtual_hosts instead.");
    Ok(())
}
