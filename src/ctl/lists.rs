//! Lists of queues, exchanges, bindings and consumers. RabbitMQ's columns, filled from the API's fields.

use serde_json::{Value, json};

use super::call::Call;
use super::client::{encode, path};
use super::error::CtlError;
use super::format::{Cell, Rows};
use super::verb::{BOTH, Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Monitoring,
        "list_queues",
        "[--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        "Lists queues and their properties. Columns: name, messages, messages_ready, messages_unacknowledged, consumers, \
         type, durable, arguments, policy, memory, state, and more",
        list_queues,
    )
    .of(BOTH),
    Verb::new(
        Group::Monitoring,
        "list_exchanges",
        "[--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        "Lists exchanges. Columns: name, type, durable, auto_delete, internal, arguments, policy",
        list_exchanges,
    )
    .of(BOTH),
    Verb::new(
        Group::Monitoring,
        "list_bindings",
        "[--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        "Lists bindings. Columns: source_name, source_kind, destination_name, destination_kind, routing_key, arguments",
        list_bindings,
    )
    .of(BOTH),
    Verb::new(
        Group::Monitoring,
        "list_consumers",
        "[--vhost <vhost>] [--no-table-headers] [<column> ...] [--timeout <timeout>]",
        "Lists consumers. Columns: queue_name, channel_pid, consumer_tag, ack_required, prefetch_count, active, \
         activity_status, arguments",
        list_consumers,
    )
    .of(BOTH),
];

/// Columns of `list_queues`.
const QUEUE_COLUMNS: [&str; 41] = [
    "arguments",
    "auto_delete",
    "consumer_capacity",
    "consumer_utilisation",
    "consumers",
    "disk_reads",
    "disk_writes",
    "durable",
    "effective_policy_definition",
    "exclusive",
    "exclusive_consumer_pid",
    "exclusive_consumer_tag",
    "head_message_timestamp",
    "leader",
    "members",
    "memory",
    "message_bytes",
    "message_bytes_persistent",
    "message_bytes_ram",
    "message_bytes_ready",
    "message_bytes_unacknowledged",
    "messages",
    "messages_persistent",
    "messages_ram",
    "messages_ready",
    "messages_ready_ram",
    "messages_unacknowledged",
    "messages_unacknowledged_ram",
    "name",
    "online",
    "operator_policy",
    "owner_pid",
    "pid",
    "policy",
    "state",
    "type",
    // Names that scripts of older versions use.
    "slave_pids",
    "synchronised_slave_pids",
    "single_active_consumer_pid",
    "single_active_consumer_tag",
    "node",
];

/// Those that the list of one vhost has; for others every field is asked for.
const CHEAP_QUEUE_COLUMNS: [&str; 15] = [
    "name",
    "messages",
    "messages_ready",
    "messages_unacknowledged",
    "consumers",
    "durable",
    "auto_delete",
    "exclusive",
    "arguments",
    "type",
    "state",
    "node",
    "policy",
    "operator_policy",
    "effective_policy_definition",
];

fn list_queues(call: &Call<'_>) -> Done {
    let columns = call.columns(&QUEUE_COLUMNS, &["name", "messages"])?;
    let vhost = call.vhost();
    call.banner(&format!("Timeout: {:?} seconds ...", call.client.timeout.as_secs_f64()));
    call.banner(&format!("Listing queues for vhost {vhost} ..."));
    let cheap = columns.iter().all(|column| CHEAP_QUEUE_COLUMNS.contains(&column.as_str()));
    let queues = if cheap {
        let fields = columns.join(",");
        list(call, &format!("{}?columns={fields},state,node,leader", path(&["queues", vhost])))?
    } else {
        detailed(call, vhost)?
    };
    let mut rows = Rows::new(&columns);
    for queue in queues.iter().filter(|queue| is_wanted(call, queue)) {
        rows.rows.push(columns.iter().map(|column| queue_cell(queue, column)).collect());
    }
    call.rows(&rows)
}

/// The queues of a vhost with every field; none if there is no such vhost.
fn detailed(call: &Call<'_>, vhost: &str) -> Result<Vec<Value>, CtlError> {
    // This list cannot be narrowed to a vhost.
    if let Some(Value::Array(mut all)) = call.client.find("/api/queues/detailed")? {
        all.retain(|queue| queue["vhost"] == vhost);
        return Ok(all);
    }
    list(call, &path(&["queues", vhost]))
}

/// A list of the API; an unknown vhost has nothing.
fn list(call: &Call<'_>, path: &str) -> Result<Vec<Value>, CtlError> {
    match call.client.find(path)? {
        Some(Value::Array(items)) => Ok(items),
        _ => Ok(Vec::new()),
    }
}

fn is_wanted(call: &Call<'_>, queue: &Value) -> bool {
    let is_down = queue["state"] == "down";
    let options = call.arguments;
    (!options.has("offline") || is_down) && (!options.has("online") || !is_down)
}

fn queue_cell(queue: &Value, column: &str) -> Cell {
    match column {
        "arguments" => Cell::Arguments(queue[column].clone()),
        "effective_policy_definition" => policy_definition(&queue[column]),
        "leader" => Cell::Value(if queue[column].is_null() { queue["node"].clone() } else { queue[column].clone() }),
        "members" if queue[column].is_null() => Cell::Value(json!([queue["node"]])),
        "owner_pid" => Cell::Value(queue["owner_pid_details"]["name"].clone()),
        "exclusive_consumer_pid" | "single_active_consumer_pid" => {
            let tag = &queue[column.replace("_pid", "_tag").as_str()];
            let details = queue["consumer_details"].as_array();
            let consumer = details.into_iter().flatten().find(|consumer| &consumer["consumer_tag"] == tag);
            Cell::Value(consumer.map_or(Value::Null, |consumer| consumer["channel_details"]["name"].clone()))
        }
        // A queue so young that there are no statistics of it yet.
        "messages" | "messages_ready" | "messages_unacknowledged" | "consumers" if queue[column].is_null() => {
            Cell::Value(json!(0))
        }
        "disk_reads" | "disk_writes" => Cell::Value(queue["message_stats"][column].clone()),
        _ => Cell::Value(queue[column].clone()),
    }
}

/// In tables as RabbitMQ's tools print it: keys as binaries.
fn policy_definition(definition: &Value) -> Cell {
    let fields = definition.as_object().filter(|fields| !fields.is_empty());
    let Some(fields) = fields else { return Cell::Both("#{}".to_owned(), json!({})) };
    let pairs = fields.iter().map(|(name, value)| format!("{{<<\"{name}\">>, {}}}", super::format::plain(value)));
    Cell::Both(format!("[{}]", pairs.collect::<Vec<_>>().join(", ")), definition.clone())
}

fn list_exchanges(call: &Call<'_>) -> Done {
    let known = ["arguments", "auto_delete", "durable", "internal", "name", "policy", "type"];
    let columns = call.columns(&known, &["name", "type"])?;
    let vhost = call.vhost();
    call.banner(&format!("Listing exchanges for vhost {vhost} ..."));
    let exchanges = list(call, &format!("{}?disable_stats=true", path(&["exchanges", vhost])))?;
    let mut rows = Rows::new(&columns);
    for exchange in &exchanges {
        let cell = |column: &String| match column.as_str() {
            "arguments" => Cell::Arguments(exchange["arguments"].clone()),
            column => Cell::Value(exchange[column].clone()),
        };
        rows.rows.push(columns.iter().map(cell).collect());
    }
    call.rows(&rows)
}

fn list_bindings(call: &Call<'_>) -> Done {
    let known = ["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"];
    let columns = call.columns(&known, &known)?;
    let vhost = call.vhost();
    call.banner(&format!("Listing bindings for vhost {vhost}..."));
    let bindings = list(call, &path(&["bindings", vhost]))?;
    let mut rows = Rows::new(&columns);
    for binding in &bindings {
        let cell = |column: &String| match column.as_str() {
            "arguments" => Cell::Arguments(binding["arguments"].clone()),
            "source_name" => Cell::Value(binding["source"].clone()),
            "source_kind" => Cell::text("exchange"),
            "destination_name" => Cell::Value(binding["destination"].clone()),
            "destination_kind" => Cell::Value(binding["destination_type"].clone()),
            column => Cell::Value(binding[column].clone()),
        };
        rows.rows.push(columns.iter().map(cell).collect());
    }
    call.rows(&rows)
}

fn list_consumers(call: &Call<'_>) -> Done {
    let known = [
        "queue_name",
        "channel_pid",
        "consumer_tag",
        "ack_required",
        "prefetch_count",
        "active",
        "activity_status",
        "exclusive",
        "arguments",
    ];
    let default =
        ["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"];
    let asked = call.columns(&known, &default)?;
    // RabbitMQ's tool has an order of its own here, whatever was asked for.
    let columns: Vec<String> = known
        .iter()
        .filter(|column| asked.iter().any(|asked| asked == *column))
        .map(|&column| column.to_owned())
        .collect();
    let vhost = call.vhost();
    call.banner(&format!("Listing consumers in vhost {vhost} ..."));
    let consumers = list(call, &format!("/api/consumers/{}", encode(vhost)))?;
    let mut rows = Rows::new(&columns);
    for consumer in &consumers {
        let cell = |column: &String| match column.as_str() {
            "queue_name" => Cell::Value(consumer["queue"]["name"].clone()),
            "channel_pid" => Cell::Value(consumer["channel_details"]["name"].clone()),
            "arguments" => Cell::Arguments(consumer["arguments"].clone()),
            column => Cell::Value(consumer[column].clone()),
        };
        rows.rows.push(columns.iter().map(cell).collect());
    }
    call.rows(&rows)
}
