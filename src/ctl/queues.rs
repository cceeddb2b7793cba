//! Queues one by one: deleting, purging, and those that do not answer.

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::Rows;
use super::verb::{BOTH, Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Queues,
        "delete_queue",
        "[--vhost <vhost>] <queue> [--if-empty] [--if-unused] [--force] [--timeout <timeout>]",
        "Deletes a queue",
        delete_queue,
    ),
    Verb::new(
        Group::Queues,
        "purge_queue",
        "[--vhost <vhost>] <queue> [--timeout <timeout>]",
        "Removes the messages of a queue that no consumer has",
        purge_queue,
    ),
    Verb::new(
        Group::Monitoring,
        "list_unresponsive_queues",
        "[--local] [--queue-timeout <milliseconds>] [--vhost <vhost>] [--no-table-headers] [<column> ...]",
        "Lists queues that are down",
        list_unresponsive_queues,
    )
    .of(BOTH),
];

fn delete_queue(call: &Call<'_>) -> Done {
    let (queue, vhost) = (call.argument(0), call.vhost());
    let (empty, unused) = (call.arguments.has("if-empty"), call.arguments.has("if-unused"));
    let mut conditions = Vec::new();
    if empty {
        conditions.push("if queue is empty ");
    }
    if unused {
        conditions.push("if queue is unused ");
    }
    call.banner(&format!("Deleting queue '{queue}' on vhost '{vhost}' {}...", conditions.join("and ")));
    let path = path(&["queues", vhost, queue]);
    let missing = || CtlError::failed(code::USAGE, "No such queue was found");
    let found = call.client.find(&path)?.ok_or_else(missing)?;
    let reply = call.client.delete(&format!("{path}?if-empty={empty}&if-unused={unused}"))?;
    match reply.status {
        404 => return Err(missing()),
        400 => {
            let text = format!("{{:amqp_error, :precondition_failed, ~c\"{}\", :none}}", reply.reason());
            return Err(CtlError::failed(code::UNAVAILABLE, text));
        }
        _ => reply.success()?,
    };
    let ready = found["messages_ready"].as_u64().unwrap_or(0);
    call.banner(&format!("Queue was successfully deleted with {ready} ready messages"));
    Ok(())
}

fn purge_queue(call: &Call<'_>) -> Done {
    let (queue, vhost) = (call.argument(0), call.vhost());
    call.banner(&format!("Purging queue '{queue}' in vhost '{vhost}' ..."));
    let reply = call.client.delete(&path(&["queues", vhost, queue, "contents"]))?;
    if reply.status == 404 {
        return Err(CtlError::plain(code::DATA, "Object (queue, stream, exchange, etc) was not found"));
    }
    reply.success().map(drop)
}

fn list_unresponsive_queues(call: &Call<'_>) -> Done {
    let columns = call.columns(&["name", "durable", "auto_delete", "arguments", "pid"], &["name"])?;
    let vhost = call.vhost();
    call.banner(&format!("Listing unresponsive queues for vhost {vhost} ..."));
    let queues = call.client.find(&path(&["queues", vhost]))?.unwrap_or_default();
    let mut rows = Rows::new(&columns);
    let down = |state: &serde_json::Value| ["down", "crashed", "stopped"].iter().any(|word| state == word);
    for queue in queues.as_array().into_iter().flatten().filter(|queue| down(&queue["state"])) {
        rows.push_fields(queue);
    }
    call.rows(&rows)
}
