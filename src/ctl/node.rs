//! The node as a whole: whether it answers, waiting for it, stopping it, its flags and its counters.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Empty, Formatter, Rows};
use super::verb::{ALL_TOOLS, BOTH, DIAGNOSTICS, Done, Group, Verb};

/// How long `await_startup` and its kin wait without `--timeout`.
const STARTUP: Duration = Duration::from_secs(300);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(Group::Nodes, "ping", "[--timeout <timeout>]", "Checks that the broker answers", ping).of(BOTH),
    Verb::new(
        Group::Nodes,
        "await_startup",
        "[--timeout <timeout>]",
        "Waits until the broker accepts connections; 300 seconds at most, unless --timeout says otherwise",
        await_startup,
    ),
    Verb::new(
        Group::Nodes,
        "wait",
        "[<pidfile>] [--pid <pid>] [--timeout <timeout>]",
        "Waits until the broker of a PID file or a process accepts connections, as long as the process lives",
        wait,
    )
    .of(ALL_TOOLS),
    Verb::new(Group::Nodes, "stop", "[<pidfile>]", "Stops the broker and waits until it has stopped", stop),
    Verb::new(
        Group::Nodes,
        "shutdown",
        "[--wait] [--no-wait]",
        "Stops the broker and waits until it has stopped",
        shutdown,
    ),
    Verb::new(
        Group::Nodes,
        "stop_app",
        "",
        "Closes the listeners and all connections, and fails every health check; the process goes on (start_app ends that)",
        stop_app,
    ),
    Verb::new(Group::Nodes, "start_app", "", "Opens the listeners again", start_app),
    Verb::new(
        Group::Nodes,
        "reset",
        "",
        "Removes all virtual hosts with their queues and messages, users and parameters, and begins as a new broker does; \
         stop_app first",
        reset,
    ),
    Verb::new(Group::Nodes, "force_reset", "", "The same, even while the broker runs", force_reset),
    Verb::new(
        Group::Operations,
        "suspend_listeners",
        "",
        "Closes the sockets that clients connect to; connections that are open stay",
        suspend_listeners,
    ),
    Verb::new(Group::Operations, "resume_listeners", "", "Accepts new client connections again", resume_listeners),
    Verb::new(
        Group::Operations,
        "rotate_logs",
        "",
        "Begins another log file; the one so far is kept beside it",
        rotate_logs,
    ),
    Verb::new(Group::Operations, "force_gc", "", "Accepted; there is no garbage collector to start", force_gc),
    Verb::new(Group::Operations, "reset_stats_db", "[--all]", "Clears the statistics", reset_stats_db),
    Verb::new(
        Group::Monitoring,
        "list_node_auth_attempt_stats",
        "[--by-source] [--no-table-headers]",
        "Lists how often clients have logged in and failed to, by protocol",
        list_node_auth_attempt_stats,
    )
    .of(BOTH),
    Verb::new(
        Group::Monitoring,
        "reset_node_auth_attempt_metrics",
        "",
        "Sets the counters of list_node_auth_attempt_stats to zero",
        reset_node_auth_attempt_metrics,
    )
    .of(DIAGNOSTICS),
    Verb::new(
        Group::FeatureFlags,
        "list_feature_flags",
        "[--detailed] [--no-table-headers] [<column> ...]",
        "Lists feature flags. Columns: name, state, stability, desc, doc_url, provided_by",
        list_feature_flags,
    )
    .of(BOTH),
    Verb::new(
        Group::FeatureFlags,
        "enable_feature_flag",
        "[--experimental] [--opt-in] <flag>",
        "Enables a feature flag, or `all`",
        enable_feature_flag,
    ),
    Verb::new(
        Group::FeatureFlags,
        "list_deprecated_features",
        "[--used] [--no-table-headers] [<column> ...]",
        "Lists deprecated features, or with --used those in use",
        list_deprecated_features,
    )
    .of(BOTH),
    Verb::new(
        Group::Cluster,
        "await_online_nodes",
        "<count> [--timeout <timeout>]",
        "Waits until that many nodes are online",
        await_online_nodes,
    ),
    Verb::new(Group::Cluster, "discover_peers", "", "Lists the nodes of the cluster", discover_peers).of(DIAGNOSTICS),
    Verb::new(
        Group::Cluster,
        "has_reached_target_cluster_size",
        "",
        "Checks that the cluster has as many nodes as it shall have",
        has_reached_target_cluster_size,
    )
    .of(BOTH),
    Verb::new(Group::Monitoring, "server_version", "", "Prints the version of the broker", server_version)
        .of(DIAGNOSTICS),
    Verb::new(Group::Monitoring, "is_running", "", "Says whether the broker accepts connections", is_running)
        .of(DIAGNOSTICS),
    Verb::new(Group::Monitoring, "is_booting", "", "Says whether the broker is starting", is_booting).of(DIAGNOSTICS),
    Verb::new(
        Group::Monitoring,
        "consume_event_stream",
        "[--duration <seconds>] [--pattern <pattern>]",
        "Prints the broker's events, one JSON object on each line, until it is interrupted or the duration is over",
        consume_event_stream,
    )
    .of(DIAGNOSTICS),
];

/// Whether the broker answers at all.
fn alive(call: &Call<'_>) -> Done {
    let reply = call.client.request(&Method::GET, "/api/warren/ping", None)?;
    if reply.status == 404 {
        // Not Warren; a RabbitMQ says who asks.
        call.client.get("/api/whoami")?;
        return Ok(());
    }
    reply.success().map(drop)
}

fn ping(call: &Call<'_>) -> Done {
    let timeout = call.client.timeout.as_millis();
    call.node_banner(|node| {
        format!("Will ping {node}. This only checks if the broker answers. Timeout: {timeout} ms.")
    });
    alive(call)?;
    call.line("Ping succeeded");
    Ok(())
}

/// Looks until the broker answers, or `continues` says no.
fn await_answer(call: &Call<'_>, continues: &dyn Fn() -> Done) -> Done {
    let limit = if call.arguments.has("timeout") { call.client.timeout } else { STARTUP };
    let began = Instant::now();
    loop {
        continues()?;
        match alive(call) {
            Ok(()) => return Ok(()),
            Err(
                error @ (CtlError::Unreachable { .. }
                | CtlError::TimedOut { .. }
                | CtlError::Refused { status: 503, .. }),
            ) => {
                if !limit.is_zero() && began.elapsed() >= limit {
                    // Why, then that it took too long.
                    eprintln!("{error}");
                    return Err(timed_out(call, limit));
                }
            }
            Err(error) => return Err(error),
        }
        call.client.pause(PAUSE);
    }
}

fn timed_out(call: &Call<'_>, timeout: Duration) -> CtlError {
    CtlError::TimedOut { verb: call.verb.name.to_owned(), target: call.client.target.name(), timeout }
}

fn await_startup(call: &Call<'_>) -> Done {
    await_answer(call, &|| Ok(()))
}

fn wait(call: &Call<'_>) -> Done {
    let pid = match (call.arguments.number::<u32>("pid")?, call.arguments.positional.first()) {
        (Some(pid), _) => pid,
        (None, Some(file)) => pid_of_file(call, file)?,
        (None, None) => return Err(CtlError::Usage("name a PID file or give --pid".to_owned())),
    };
    call.node_banner(|node| format!("Waiting for broker on node '{node}' while OS process '{pid}' is running"));
    await_answer(call, &|| {
        if Path::new(&format!("/proc/{pid}")).exists() {
            return Ok(());
        }
        Err(CtlError::failed(code::UNAVAILABLE, "process_not_running"))
    })
}

fn pid_of_file(call: &Call<'_>, file: &str) -> Result<u32, CtlError> {
    call.banner(&format!("Waiting for pid file '{file}' to appear"));
    let limit = call.client.timeout;
    let began = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(file)
            && let Ok(pid) = text.trim().parse()
        {
            call.banner(&format!("pid is {pid}"));
            return Ok(pid);
        }
        if !limit.is_zero() && began.elapsed() >= limit {
            let (verb, target) = (call.verb.name.to_owned(), call.node().to_owned());
            return Err(CtlError::TimedOut { verb, target, timeout: limit });
        }
        call.client.pause(PAUSE);
    }
}

fn stop(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Stopping and halting node {node} ..."));
    stop_and_wait(call)
}

fn shutdown(call: &Call<'_>) -> Done {
    let node = call
        .client
        .get("/api/overview?columns=node")
        .ok()
        .and_then(|overview| overview["node"].as_str().map(str::to_owned));
    if let Some(node) = node {
        let found = call.client.find(&format!("{}?columns=os_pid", path(&["nodes", &node])))?.unwrap_or_default();
        let pid = found["os_pid"].as_str().unwrap_or("?").to_owned();
        call.banner(&format!("Shutting down Warren node {node} running at PID {pid}"));
    }
    if call.arguments.has("no-wait") {
        return call.client.post("/api/warren/stop", &json!({}))?.success().map(drop);
    }
    stop_and_wait(call)?;
    call.banner("Warren node is no longer running");
    Ok(())
}

/// Asks the broker to stop and waits until nobody answers any more.
fn stop_and_wait(call: &Call<'_>) -> Done {
    let reply = call.client.post("/api/warren/stop", &json!({}))?;
    not_rabbitmq(call, reply.status)?;
    reply.success()?;
    let began = Instant::now();
    while !matches!(alive(call), Err(CtlError::Unreachable { .. })) {
        if !call.client.timeout.is_zero() && began.elapsed() >= call.client.timeout {
            return Err(timed_out(call, call.client.timeout));
        }
        call.client.pause(PAUSE);
    }
    Ok(())
}

/// The refusal for what only Warren's own part of the API has.
pub(crate) fn not_rabbitmq(call: &Call<'_>, status: u16) -> Done {
    if status != 404 && status != 405 {
        return Ok(());
    }
    let (verb, target) = (call.verb.name, call.client.target.name());
    let text =
        format!("the API of the broker at {target} has nothing for '{verb}': it is not Warren, or another version");
    Err(CtlError::failed(code::UNAVAILABLE, text))
}

/// Sets or ends one of the states in which the node does not serve.
pub(crate) fn set_state(call: &Call<'_>, state: &str, change: NodeChange) -> Done {
    let path = format!("/api/warren/{state}");
    let reply = match change {
        NodeChange::Begin => call.client.post(&path, &json!({}))?,
        NodeChange::End => call.client.delete(&path)?,
    };
    not_rabbitmq(call, reply.status)?;
    reply.success().map(drop)
}

#[derive(Clone, Copy)]
pub(crate) enum NodeChange {
    Begin,
    End,
}

fn stop_app(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Stopping rabbit application on node {node} ..."));
    set_state(call, "app/stopped", NodeChange::Begin)
}

fn start_app(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Starting node {node} ..."));
    set_state(call, "app/stopped", NodeChange::End)
}

fn reset(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Resetting node {node} ..."));
    remove_all(call, "/api/warren/definitions")
}

fn force_reset(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Forcefully resetting node {node} ..."));
    remove_all(call, "/api/warren/definitions?force=true")
}

fn remove_all(call: &Call<'_>, path: &str) -> Done {
    let reply = call.client.delete(path)?;
    not_rabbitmq(call, reply.status)?;
    reply.success().map(drop)
}

fn suspend_listeners(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Will suspend client connection listeners on node {node}. The node will no longer accept client connections!"));
    set_state(call, "listeners/suspended", NodeChange::Begin)
}

fn resume_listeners(call: &Call<'_>) -> Done {
    call.node_banner(|node| {
        format!("Will resume client connection listeners on node {node}. The node will now accept client connections")
    });
    set_state(call, "listeners/suspended", NodeChange::End)
}

fn rotate_logs(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Rotating logs for node {node} ..."));
    let reply = call.client.post("/api/warren/rotate_logs", &json!({}))?;
    not_rabbitmq(call, reply.status)?;
    reply.success().map(drop)
}

fn force_gc(call: &Call<'_>) -> Done {
    alive(call)?;
    call.node_banner(|node| format!("Node {node} has no garbage collector: freed memory goes back by itself"));
    Ok(())
}

fn reset_stats_db(call: &Call<'_>) -> Done {
    if call.arguments.has("all") {
        call.banner("Resetting statistics database in all nodes");
        return call.client.delete("/api/reset")?.success().map(drop);
    }
    call.node_banner(|node| format!("Resetting statistics database on node {node}"));
    call.client.delete(&path(&["reset", call.node()]))?.success().map(drop)
}

fn list_node_auth_attempt_stats(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Listing authentication\n attempts for node \"{node}\" ..."));
    let by_source = call.arguments.has("by-source");
    let (segments, columns): (&[&str], &[&str]) = if by_source {
        let columns = &[
            "protocol",
            "remote_address",
            "username",
            "auth_attempts",
            "auth_attempts_failed",
            "auth_attempts_succeeded",
        ];
        (&["auth", "attempts", node, "source"], columns)
    } else {
        let columns = &["protocol", "auth_attempts", "auth_attempts_failed", "auth_attempts_succeeded"];
        (&["auth", "attempts", node], columns)
    };
    let attempts = call.client.get(&path(segments))?;
    if attempts.as_array().is_some_and(Vec::is_empty) && !call.formatter().is_for_programs() {
        call.line(&format!("Node {node} reported no authentication attempt stats"));
        return Ok(());
    }
    print_rows(call, &attempts, columns, Formatter::Table)
}

fn reset_node_auth_attempt_metrics(call: &Call<'_>) -> Done {
    let node = call.node();
    call.banner(&format!("Reset auth attempt metrics on node {node} ..."));
    call.client.delete(&path(&["auth", "attempts", node]))?.success().map(drop)
}

/// A list of the API, whose fields are the columns.
fn print_list(call: &Call<'_>, path: &str, columns: &[&str], default: Formatter) -> Done {
    print_rows(call, &call.client.get(path)?, columns, default)
}

fn print_rows(call: &Call<'_>, list: &Value, columns: &[&str], default: Formatter) -> Done {
    let mut rows = Rows::new(columns);
    rows.empty = Empty::Line;
    for item in list.as_array().into_iter().flatten() {
        rows.push_fields(item);
    }
    call.rows_as(&rows, default)
}

fn list_feature_flags(call: &Call<'_>) -> Done {
    let known = ["name", "state", "stability", "desc", "doc_url", "provided_by", "require_level", "experiment_level"];
    let columns = call.columns(&known, &["name", "state"])?;
    call.banner("Listing feature flags ...");
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    print_list(call, "/api/feature-flags", &columns, Formatter::Table)
}

fn enable_feature_flag(call: &Call<'_>) -> Done {
    let flag = call.argument(0);
    if flag == "all" {
        call.banner("Enabling all feature flags ...");
    } else {
        call.banner(&format!("Enabling feature flag \"{flag}\" ..."));
    }
    let flags = call.client.get("/api/feature-flags")?;
    let flags: Vec<&Value> = flags.as_array().into_iter().flatten().collect();
    let wanted: Vec<&&Value> = flags
        .iter()
        .filter(|known| if flag == "all" { known["state"] == "disabled" } else { known["name"] == flag })
        .collect();
    if wanted.is_empty() && flag != "all" {
        let text = format!("This feature flag is not supported by node {}", call.node());
        return Err(CtlError::failed(code::USAGE, text));
    }
    for wanted in wanted.iter().filter(|wanted| wanted["state"] != "enabled") {
        let name = wanted["name"].as_str().unwrap_or_default();
        call.client.put(&path(&["feature-flags", name, "enable"]), &json!({"name": name}))?.success()?;
    }
    Ok(())
}

fn list_deprecated_features(call: &Call<'_>) -> Done {
    let known = ["name", "deprecation_phase", "state", "desc", "doc_url", "provided_by"];
    let columns = call.columns(&known, &known[..3])?;
    let used = call.arguments.has("used");
    call.banner(if used { "Listing deprecated features in use ..." } else { "Listing deprecated features ..." });
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let path = if used { "/api/deprecated-features/used" } else { "/api/deprecated-features" };
    print_list(call, path, &columns, Formatter::PrettyTable)
}

/// The names of the nodes that run.
fn online_nodes(call: &Call<'_>) -> Result<Vec<String>, CtlError> {
    let nodes = call.client.get("/api/nodes?columns=name,running")?;
    let running = nodes.as_array().into_iter().flatten().filter(|node| node["running"] != false);
    Ok(running.filter_map(|node| node["name"].as_str().map(str::to_owned)).collect())
}

fn await_online_nodes(call: &Call<'_>) -> Done {
    let count = call.argument(0);
    let needed: usize =
        count.parse().map_err(|_| CtlError::BadArgument("target count must be a positive integer".to_owned()))?;
    let limit = if call.arguments.has("timeout") { call.client.timeout } else { STARTUP };
    let seconds = limit.as_secs();
    call.node_banner(|node| {
        format!("Will wait for at least {needed} nodes to join the cluster of {node}. Timeout: {seconds} seconds.")
    });
    let began = Instant::now();
    while online_nodes(call)?.len() < needed {
        if began.elapsed() >= limit {
            let node = call.node();
            let text = format!("Error: timed out while waiting. Not enough nodes joined {node}'s cluster.");
            return Err(CtlError::failed(code::SOFTWARE, text));
        }
        call.client.pause(PAUSE);
    }
    Ok(())
}

fn discover_peers(call: &Call<'_>) -> Done {
    call.banner("Discovering peers nodes ...");
    let nodes: Vec<String> = online_nodes(call)?.iter().map(|node| format!(":{node}")).collect();
    call.line(&format!("[{}]", nodes.join(", ")));
    Ok(())
}

fn has_reached_target_cluster_size(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Checking if target cluster size has been reached on node {node} ..."));
    let reply = call.client.request(&Method::GET, "/api/health/checks/reached-target-cluster-size", None)?;
    if reply.status == 503 {
        let text = format!("Target cluster size has not been reached on node {}", call.node());
        return Err(CtlError::failed(code::UNAVAILABLE, text));
    }
    reply.success()?;
    call.line(&format!("Target cluster size has been reached on node {}", call.node()));
    Ok(())
}

fn server_version(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Asking node {node} for its RabbitMQ version..."));
    let overview = call.client.get("/api/overview?columns=rabbitmq_version,product_version")?;
    let version = if overview["rabbitmq_version"].is_null() {
        &overview["product_version"]
    } else {
        &overview["rabbitmq_version"]
    };
    call.line(version.as_str().unwrap_or_default());
    Ok(())
}

fn is_running(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Asking node {node} for its status ..."));
    alive(call)?;
    call.line(&format!("RabbitMQ on node {} is fully booted and running", call.node()));
    Ok(())
}

fn is_booting(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Asking node {node} for its boot status ..."));
    alive(call)?;
    call.line(&format!(
        "RabbitMQ on node {} is fully booted (check with is_running), stopped or has not started booting yet",
        call.node()
    ));
    Ok(())
}

fn consume_event_stream(call: &Call<'_>) -> Done {
    let duration = call.arguments.number::<u64>("duration")?.map(Duration::from_secs);
    let path = match call.arguments.option("pattern") {
        Some(pattern) => format!("/api/warren/events?pattern={}", super::client::encode(pattern)),
        None => "/api/warren/events".to_owned(),
    };
    let mut pieces = super::client::Pieces::default();
    match call.client.stream(&path, duration, &mut |bytes| pieces.print(bytes)) {
        // `| head` has seen enough.
        Err(CtlError::File { cause, .. }) if cause.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(CtlError::Refused { status: status @ (404 | 405), .. }) => not_rabbitmq(call, status),
        result => result.map(drop),
    }
}
