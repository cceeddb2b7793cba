//! The verbs of `rabbitmq-upgrade`: maintenance of a node, and what is to be waited for around a restart.

use super::call::Call;
use super::error::{CtlError, code};
use super::node::{NodeChange, set_state};
use super::verb::{Done, Group, Tool, Verb};

const UPGRADE: &[Tool] = &[Tool::Upgrade];

const fn verb(name: &'static str, usage: &'static str, about: &'static str, run: fn(&Call<'_>) -> Done) -> Verb {
    Verb::new(Group::Upgrade, name, usage, about, run).of(UPGRADE)
}

pub(crate) const VERBS: &[Verb] = &[
    verb("drain", "", "Puts the node into maintenance: closes its listeners and all connections of clients", drain),
    verb("revive", "", "Ends the maintenance of a node: opens its listeners again", revive),
    verb(
        "await_online_quorum_plus_one",
        "[--timeout <timeout>]",
        "Waits until every quorum queue has a majority without this node; there are none that have replicas elsewhere yet",
        await_quorum,
    ),
    verb(
        "await_online_synchronized_mirror",
        "[--timeout <timeout>]",
        "Accepted; there are no mirrored queues",
        await_mirror,
    ),
    verb(
        "post_upgrade",
        "",
        "Spreads the leaders of queues over the nodes, after an upgrade of all of them",
        post_upgrade,
    ),
];

fn drain(call: &Call<'_>) -> Done {
    call.node_banner(|node| {
        format!("Will put node {node} into maintenance mode. The node will no longer serve any client traffic!")
    });
    set_state(call, "maintenance", NodeChange::Begin)
}

fn revive(call: &Call<'_>) -> Done {
    call.node_banner(|node| {
        format!("Will put node {node} back into regular operating mode. The node will serve client traffic again")
    });
    set_state(call, "maintenance", NodeChange::End)
}

/// Waits for the check that says whether a majority would be lost without this node.
fn await_quorum(call: &Call<'_>) -> Done {
    call.banner("Will wait for a quorum + 1 of nodes to be online for all quorum queues and streams ...");
    let began = std::time::Instant::now();
    loop {
        let reply = call.client.request(&hyper::Method::GET, "/api/health/checks/node-is-quorum-critical", None)?;
        if reply.status != 503 {
            return reply.success().map(drop);
        }
        if !call.client.timeout.is_zero() && began.elapsed() >= call.client.timeout {
            let text = format!("the node is critical for the majority of queues still: {}", reply.reason());
            return Err(CtlError::failed(code::UNAVAILABLE, text));
        }
        call.client.pause(std::time::Duration::from_millis(500));
    }
}

fn await_mirror(call: &Call<'_>) -> Done {
    call.banner("This command is DEPRECATED and is a no-op: there are no mirrored queues.");
    Ok(())
}

fn post_upgrade(call: &Call<'_>) -> Done {
    call.banner("Executing post upgrade checks and operations ...");
    call.client.post("/api/rebalance/queues", &serde_json::json!({}))?.success().map(drop)
}
