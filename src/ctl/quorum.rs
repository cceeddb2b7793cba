//! The verbs of `rabbitmq-queues`: replicas of quorum queues, through the API's endpoints, whose refusals are passed on.

use serde_json::{Value, json};

use super::call::Call;
use super::client::{Reply, path};
use super::error::{CtlError, code};
use super::format::{Cell, Formatter, Rows};
use super::verb::{Done, Group, QUEUES, Tool, Verb};

const fn verb(name: &'static str, usage: &'static str, about: &'static str, run: fn(&Call<'_>) -> Done) -> Verb {
    Verb::new(Group::QuorumQueues, name, usage, about, run).of(QUEUES)
}

const DIAGNOSTICS_TOO: &[Tool] = &[Tool::Queues, Tool::Diagnostics];

pub(crate) const VERBS: &[Verb] = &[
    verb(
        "quorum_status",
        "[--vhost <vhost>] <queue>",
        "Shows the replicas of a quorum queue: leader, term, log indexes",
        quorum_status,
    )
    .of(DIAGNOSTICS_TOO),
    verb(
        "add_member",
        "[--vhost <vhost>] <queue> <node> [--membership <promotable|voter>]",
        "Adds a replica",
        add_member,
    ),
    verb("delete_member", "[--vhost <vhost>] <queue> <node>", "Removes a replica", delete_member),
    verb(
        "grow",
        "<node> <all|even> [--vhost-pattern <pattern>] [--queue-pattern <pattern>] [--membership <promotable|voter>] \
         [--errors-only]",
        "Adds replicas on a node to all quorum queues, or to those with an even number of them",
        grow,
    ),
    verb("shrink", "<node> [--errors-only]", "Removes the replicas of all quorum queues from a node", shrink),
    verb(
        "rebalance",
        "<all|classic|quorum|stream> [--vhost-pattern <pattern>] [--queue-pattern <pattern>]",
        "Spreads the leaders of queues over the nodes",
        rebalance,
    ),
    verb(
        "peek",
        "[--vhost <vhost>] <queue> <position>",
        "Shows the message at a position of a queue, the oldest being 1, without taking it",
        peek,
    ),
    verb(
        "reclaim_quorum_memory",
        "[--vhost <vhost>] <queue>",
        "Accepted; the log of a queue is compacted by itself",
        accepted,
    )
    .of(DIAGNOSTICS_TOO),
    verb(
        "force_checkpoint",
        "[--vhost-pattern <pattern>] [--queue-pattern <pattern>]",
        "Accepted; checkpoints are taken by themselves",
        force_checkpoint,
    ),
];

fn missing(call: &Call<'_>) -> CtlError {
    let (queue, vhost) = (call.argument(0), call.vhost());
    CtlError::plain(code::DATA, format!("queue '{queue}' was not found in virtual host '{vhost}'"))
}

fn quorum_status(call: &Call<'_>) -> Done {
    let (queue, vhost) = (call.argument(0), call.vhost());
    call.node_banner(|node| format!("Status of queue {queue} on node {node} ..."));
    let reply = call.client.request(&hyper::Method::GET, &path(&["queues", "quorum", vhost, queue, "status"]), None)?;
    let members = found(call, reply)?.json();
    let members = members.as_array().cloned().unwrap_or_default();
    let columns: Vec<String> =
        members.first().and_then(Value::as_object).map(|first| first.keys().cloned().collect()).unwrap_or_default();
    let mut rows = Rows::new(&columns);
    for member in &members {
        rows.push_fields(member);
    }
    call.rows_as(&rows, Formatter::PrettyTable)
}

/// # Errors
/// There is no such queue, it is of another type, or the broker's refusal.
fn found(call: &Call<'_>, reply: Reply) -> Result<Reply, CtlError> {
    match reply.status {
        404 => Err(missing(call)),
        503 => Err(CtlError::failed(code::DATA, reply.reason())),
        _ => reply.success(),
    }
}

fn add_member(call: &Call<'_>) -> Done {
    let (queue, node, vhost) = (call.argument(0), call.argument(1), call.vhost());
    call.banner(&format!("Adding a replica for queue {queue} on node {node}..."));
    let body = json!({"node": node, "membership": call.arguments.option("membership").unwrap_or("promotable")});
    found(call, call.client.post(&path(&["queues", "quorum", vhost, queue, "replicas", "add"]), &body)?).map(drop)
}

fn delete_member(call: &Call<'_>) -> Done {
    let (queue, node, vhost) = (call.argument(0), call.argument(1), call.vhost());
    call.banner(&format!("Removing a replica of queue {queue} on node {node}..."));
    let path = path(&["queues", "quorum", vhost, queue, "replicas", "delete"]);
    found(call, call.client.request(&hyper::Method::DELETE, &path, Some(&json!({"node": node})))?).map(drop)
}

fn grow(call: &Call<'_>) -> Done {
    let (node, strategy) = (call.argument(0), call.argument(1));
    if !["all", "even"].contains(&strategy) {
        return Err(CtlError::BadArgument(format!("strategy '{strategy}' is not recognised.")));
    }
    call.banner(&format!("Growing {strategy} queues on {node}..."));
    let pattern = |name: &str| call.arguments.option(name).unwrap_or(".*").to_owned();
    let body = json!({
        "strategy": strategy,
        "vhost_pattern": pattern("vhost-pattern"),
        "queue_pattern": pattern("queue-pattern"),
        "membership": call.arguments.option("membership").unwrap_or("promotable"),
    });
    call.client.post(&path(&["queues", "quorum", "replicas", "on", node, "grow"]), &body)?.success().map(drop)
}

fn shrink(call: &Call<'_>) -> Done {
    let node = call.argument(0);
    call.banner(&format!("Shrinking queues on {node}..."));
    call.client.delete(&path(&["queues", "quorum", "replicas", "on", node, "shrink"]))?.success().map(drop)
}

fn rebalance(call: &Call<'_>) -> Done {
    let kind = call.argument(0);
    let what = match kind {
        "all" => "all queues",
        "classic" => "classic queues",
        "quorum" => "quorum queues",
        "stream" => "streams",
        other => return Err(CtlError::BadArgument(format!("type {other} is not supported"))),
    };
    call.banner(&format!("Re-balancing leaders of {what}..."));
    if call.arguments.has("dry-run") {
        return Ok(());
    }
    call.client.post("/api/rebalance/queues", &json!({}))?.success()?;
    leaders(call)
}

/// How many leaders each node has now.
fn leaders(call: &Call<'_>) -> Done {
    let queues = call.client.get("/api/queues?columns=node,type,leader")?;
    let nodes = call.client.get("/api/nodes?columns=name")?;
    let queues: Vec<&Value> = queues.as_array().into_iter().flatten().collect();
    let mut rows = Rows::new(&["Node name", "Number of quorum queues", "Number of streams"]);
    for node in nodes.as_array().into_iter().flatten() {
        let led = |kind: &str| {
            let own = queues.iter().filter(|queue| {
                let leader = if queue["leader"].is_null() { &queue["node"] } else { &queue["leader"] };
                queue["type"] == kind && leader == &node["name"]
            });
            Cell::Value(json!(own.count()))
        };
        rows.rows.push(vec![Cell::Value(node["name"].clone()), led("quorum"), led("stream")]);
    }
    call.rows_as(&rows, Formatter::PrettyTable)
}

fn peek(call: &Call<'_>) -> Done {
    let (queue, position, vhost) = (call.argument(0), call.argument(1), call.vhost());
    let number: usize = position.parse().unwrap_or(0);
    if number == 0 {
        return Err(CtlError::BadArgument("position must be a positive number".to_owned()));
    }
    call.node_banner(|node| format!("Peeking at quorum queue {queue} at position {position} on node {node} ..."));
    // Taken and put back: what stands before it is redelivered as well.
    let body = json!({"count": number, "ackmode": "ack_requeue_true", "encoding": "auto", "truncate": 50_000});
    let reply = call.client.post(&path(&["queues", vhost, queue, "get"]), &body)?;
    let messages = found(call, reply)?.json();
    let Some(message) = messages.get(number - 1) else {
        return Err(CtlError::failed(code::UNAVAILABLE, "Target queue does not have a message at that position"));
    };
    let mut rows = Rows::new(&["keys", "values"]);
    let fields = message.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| *name != "message_count") {
        rows.rows.push(vec![Cell::text(name), Cell::Value(value.clone())]);
    }
    call.rows_as(&rows, Formatter::PrettyTable)
}

fn accepted(call: &Call<'_>) -> Done {
    let (queue, vhost) = (call.argument(0), call.vhost());
    call.banner(&format!("Will garbage collect quorum queue {queue} ..."));
    let reply = call.client.request(&hyper::Method::GET, &path(&["queues", "quorum", vhost, queue, "status"]), None)?;
    found(call, reply).map(drop)
}

fn force_checkpoint(call: &Call<'_>) -> Done {
    call.banner("Forcing checkpoint for all matching quorum queues...");
    Ok(())
}
