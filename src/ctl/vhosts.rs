//! Virtual hosts: creation, metadata, protection, tracing.

use serde_json::{Value, json};

use crate::model::entity::QueueType;
use crate::printable;

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Cell, Rows};
use super::verb::{BOTH, Done, Group, Verb};

const COLUMNS: [&str; 8] = [
    "name",
    "description",
    "tags",
    "default_queue_type",
    "protected_from_deletion",
    "tracing",
    "cluster_state",
    "metadata",
];

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::VirtualHosts,
        "add_vhost",
        "<vhost> [--description <description>] [--tags <tags>] [--default-queue-type <quorum|classic|stream>] \
         [--protected-from-deletion]",
        "Creates a virtual host",
        add_vhost,
    ),
    Verb::new(Group::VirtualHosts, "delete_vhost", "<vhost>", "Deletes a virtual host with all in it", delete_vhost),
    Verb::new(
        Group::VirtualHosts,
        "list_vhosts",
        "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
        "Lists virtual hosts. Columns: name, description, tags, default_queue_type, protected_from_deletion, tracing, \
         cluster_state, metadata",
        list_vhosts,
    )
    .of(BOTH),
    Verb::new(
        Group::VirtualHosts,
        "set_vhost_tags",
        "<vhost> <tag> [<tag> ...]",
        "Sets virtual host tags",
        set_vhost_tags,
    ),
    Verb::new(
        Group::VirtualHosts,
        "update_vhost_metadata",
        "<vhost> [--description <description>] [--tags <tags>] [--default-queue-type <quorum|classic|stream>] \
         [--protected-from-deletion <true|false>]",
        "Updates the description, the tags, the default queue type or the protection of a virtual host",
        update_vhost_metadata,
    ),
    Verb::new(
        Group::VirtualHosts,
        "enable_vhost_deletion_protection",
        "<vhost>",
        "Protects a virtual host from deletion",
        enable_protection,
    ),
    Verb::new(
        Group::VirtualHosts,
        "disable_vhost_deletion_protection",
        "<vhost>",
        "Lets a virtual host be deleted again",
        disable_protection,
    ),
    Verb::new(
        Group::VirtualHosts,
        "restart_vhost",
        "[--vhost <vhost>]",
        "Starts a virtual host that failed",
        restart_vhost,
    ),
    Verb::new(
        Group::VirtualHosts,
        "reconcile_vhosts",
        "",
        "Makes sure that every virtual host runs on every node",
        reconcile_vhosts,
    ),
    Verb::new(
        Group::VirtualHosts,
        "trace_on",
        "[--vhost <vhost>]",
        "Sends a copy of every message of a virtual host to amq.rabbitmq.trace",
        trace_on,
    ),
    Verb::new(Group::VirtualHosts, "trace_off", "[--vhost <vhost>]", "Stops what trace_on started", trace_off),
];

fn vhost_path(vhost: &str) -> String {
    path(&["vhosts", vhost])
}

fn tags(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect()
}

/// Checks the queue type that was given.
fn queue_type<'a>(call: &'a Call<'_>) -> Result<Option<&'a str>, CtlError> {
    match call.arguments.option("default-queue-type") {
        Some(given) if !["quorum", "stream", "classic"].contains(&given) => Err(CtlError::BadArgument(format!(
            "Default queue type must be one of: quorum, stream, classic. Provided: {given}"
        ))),
        given => Ok(given),
    }
}

fn add_vhost(call: &Call<'_>) -> Done {
    let vhost = call.argument(0);
    let mut body = json!({});
    if let Some(queue_type) = queue_type(call)? {
        body["default_queue_type"] = json!(queue_type);
    }
    if let Some(description) = call.arguments.option("description") {
        body["description"] = json!(description);
    }
    if let Some(given) = call.arguments.option("tags") {
        body["tags"] = json!(tags(given));
    }
    if call.arguments.has("protected-from-deletion") {
        body["protected_from_deletion"] = json!(true);
    }
    call.banner(&format!("Adding vhost \"{vhost}\" ..."));
    // One that is there stays as it is.
    if call.client.find(&vhost_path(vhost))?.is_some() {
        return Ok(());
    }
    call.client.put(&vhost_path(vhost), &body)?.success()?;
    warn_of_queue_type(call);
    Ok(())
}

/// Says what the broker logs of a default queue type that this version does not have.
fn warn_of_queue_type(call: &Call<'_>) {
    let given = call.arguments.option("default-queue-type").and_then(QueueType::from_name);
    if let Some(warning) = given.and_then(QueueType::warning_as_default) {
        eprintln!("warning: vhost '{}': {warning}", printable::line(call.argument(0)));
    }
}

fn delete_vhost(call: &Call<'_>) -> Done {
    let vhost = call.argument(0);
    call.banner(&format!("Deleting vhost \"{vhost}\" ..."));
    let reply = call.client.delete(&vhost_path(vhost))?;
    match reply.status {
        404 => Err(CtlError::no_vhost(vhost)),
        412 => Err(CtlError::failed(
            code::DATA,
            "Cannot delete this virtual host: it is protected from deletion. To lift the protection, inspect and update its \
             metadata",
        )),
        _ => reply.success().map(drop),
    }
}

fn list_vhosts(call: &Call<'_>) -> Done {
    let columns = call.columns(&COLUMNS, &["name"])?;
    call.banner("Listing vhosts ...");
    let vhosts = call.client.get("/api/vhosts")?;
    let mut rows = Rows::new(&columns);
    for vhost in vhosts.as_array().into_iter().flatten() {
        rows.rows.push(columns.iter().map(|column| vhost_cell(vhost, column)).collect());
    }
    call.rows(&rows)
}

fn vhost_cell(vhost: &Value, column: &str) -> Cell {
    let metadata = &vhost["metadata"];
    match column {
        "cluster_state" => {
            let nodes = vhost["cluster_state"].as_object();
            let states =
                nodes.into_iter().flatten().map(|(node, state)| format!("{{{node}, {}}}", super::format::plain(state)));
            Cell::Both(format!("[{}]", states.collect::<Vec<_>>().join(", ")), vhost["cluster_state"].clone())
        }
        "description" | "tags" | "default_queue_type" if vhost[column].is_null() => {
            Cell::Value(metadata[column].clone())
        }
        "protected_from_deletion" if vhost[column].is_null() => Cell::Value(json!(false)),
        _ => Cell::Value(vhost[column].clone()),
    }
}

/// What the API knows of a vhost, as a body for a PUT that changes parts of it.
fn current(call: &Call<'_>, vhost: &str) -> Result<Option<Value>, CtlError> {
    let Some(found) = call.client.find(&vhost_path(vhost))? else { return Ok(None) };
    let mut body = json!({});
    for key in ["description", "tags", "default_queue_type", "protected_from_deletion"] {
        let value = if found[key].is_null() { &found["metadata"][key] } else { &found[key] };
        if !value.is_null() && value != "undefined" {
            body[key] = value.clone();
        }
    }
    Ok(Some(body))
}

fn set_vhost_tags(call: &Call<'_>) -> Done {
    let vhost = call.argument(0);
    let tags: Vec<&str> = call.rest(1).iter().flat_map(|tag| tags(tag)).collect();
    call.banner(&format!("Setting tags for virtual host \"{vhost}\" to [{}] ...", tags.join(", ")));
    let missing = || CtlError::failed(code::DATA, format!("Virtual host \"{vhost}\" does not exist"));
    let mut body = current(call, vhost)?.ok_or_else(missing)?;
    body["tags"] = json!(tags);
    call.client.put(&vhost_path(vhost), &body)?.success()?;
    Ok(())
}

fn update_vhost_metadata(call: &Call<'_>) -> Done {
    let vhost = call.argument(0);
    let options = call.arguments;
    let changes: Vec<(&str, Value)> = [
        queue_type(call)?.map(|text| ("default_queue_type", json!(text))),
        options.option("description").map(|text| ("description", json!(text))),
        options.option("tags").map(|text| ("tags", json!(tags(text)))),
        options.option("protected-from-deletion").map(|text| ("protected_from_deletion", json!(text == "true"))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if changes.is_empty() {
        return Err(CtlError::Usage("not enough arguments.".to_owned()));
    }
    call.banner(&format!("Updating metadata of vhost \"{vhost}\" ..."));
    let mut body = current(call, vhost)?.ok_or_else(|| CtlError::no_vhost(vhost))?;
    for (key, value) in changes {
        body[key] = value;
    }
    call.client.put(&vhost_path(vhost), &body)?.success()?;
    warn_of_queue_type(call);
    Ok(())
}

fn enable_protection(call: &Call<'_>) -> Done {
    let vhost = call.argument(0);
    call.banner(&format!("Protecting virtual host \"{vhost}\" from removal by updating its metadata..."));
    call.need_vhost(vhost)?;
    call.client.post(&path(&["vhosts", vhost, "deletion", "protection"]), &json!({}))?.success()?;
    Ok(())
}

fn disable_protection(call: &Call<'_>) -> Done {
    let vhost = call.argument(0);
    call.banner(&format!("Removing deletion protection from virtual host \"{vhost}\" by updating its metadata..."));
    call.need_vhost(vhost)?;
    call.client.delete(&path(&["vhosts", vhost, "deletion", "protection"]))?.success()?;
    Ok(())
}

fn restart_vhost(call: &Call<'_>) -> Done {
    let (vhost, node) = (call.vhost(), call.node());
    call.banner(&format!("Trying to restart vhost '{vhost}' on node '{node}' ..."));
    let failed = |reason: String| {
        CtlError::failed(code::SOFTWARE, format!("Failed to start vhost '{vhost}' on node '{node}'Reason: {reason}"))
    };
    let Some(found) = call.client.find(&vhost_path(vhost))? else {
        return Err(failed(format!("{{:no_such_vhost, \"{vhost}\"}}")));
    };
    if found["cluster_state"][node] == "running" {
        call.line(&format!("Vhost '{vhost}' is already running on node '{node}'"));
        return Ok(());
    }
    let reply = call.client.post(&path(&["vhosts", vhost, "start", node]), &json!({}))?;
    if !reply.is_success() {
        return Err(failed(reply.reason()));
    }
    call.line(&format!("Successfully restarted vhost '{vhost}' on node '{node}'"));
    Ok(())
}

fn reconcile_vhosts(call: &Call<'_>) -> Done {
    call.banner("Will try to initiate virtual host reconciliation on all reachable cluster nodes...");
    let vhosts = call.client.get("/api/vhosts")?;
    for vhost in vhosts.as_array().into_iter().flatten() {
        let stopped = vhost["cluster_state"].as_object().into_iter().flatten().filter(|(_, state)| *state != "running");
        for (node, _) in stopped {
            let name = vhost["name"].as_str().unwrap_or_default();
            call.client.post(&path(&["vhosts", name, "start", node]), &json!({}))?.success()?;
        }
    }
    Ok(())
}

fn trace_on(call: &Call<'_>) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Starting tracing for vhost \"{vhost}\" ..."));
    set_tracing(call, vhost, true)?;
    call.line(&format!("Trace enabled for vhost {vhost}"));
    Ok(())
}

fn trace_off(call: &Call<'_>) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Stopping tracing for vhost \"{vhost}\" ..."));
    set_tracing(call, vhost, false)?;
    call.line(&format!("Trace disabled for vhost {vhost}"));
    Ok(())
}

fn set_tracing(call: &Call<'_>, vhost: &str, tracing: bool) -> Done {
    let mut body = current(call, vhost)?.ok_or_else(|| CtlError::no_vhost(vhost))?;
    body["tracing"] = json!(tracing);
    call.client.put(&vhost_path(vhost), &body)?.success()?;
    Ok(())
}
