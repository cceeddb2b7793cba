//! Connections and channels: lists of them, and closing connections.

use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Cell, Rows};
use super::verb::{BOTH, Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Monitoring,
        "list_connections",
        "[--no-table-headers] [<column> ...] [--timeout <timeout>]",
        "Lists connections. Columns: user, peer_host, peer_port, state, name, vhost, protocol, channels, ssl, recv_oct, \
         send_oct, client_properties, and more",
        list_connections,
    )
    .of(BOTH),
    Verb::new(
        Group::Monitoring,
        "list_channels",
        "[--no-table-headers] [<column> ...]",
        "Lists channels. Columns: pid, name, connection, number, user, vhost, consumer_count, prefetch_count, \
         messages_unacknowledged, messages_unconfirmed, and more",
        list_channels,
    )
    .of(BOTH),
    Verb::new(
        Group::Operations,
        "close_connection",
        "<connection> <explanation>",
        "Closes the connection of that name or pid (as list_connections pid prints it)",
        close_connection,
    ),
    Verb::new(
        Group::Operations,
        "close_all_connections",
        "[--vhost <vhost>] [--global] [--per-connection-delay <milliseconds>] [--limit <number>] <explanation>",
        "Closes all connections of a virtual host, or with --global all",
        close_all_connections,
    ),
    Verb::new(
        Group::Operations,
        "close_all_user_connections",
        "<username> <explanation>",
        "Closes all connections of a user",
        close_all_user_connections,
    ),
];

const CONNECTION_COLUMNS: [&str; 36] = [
    "pid",
    "name",
    "port",
    "host",
    "peer_port",
    "peer_host",
    "ssl",
    "ssl_protocol",
    "ssl_key_exchange",
    "ssl_cipher",
    "ssl_hash",
    "peer_cert_subject",
    "peer_cert_issuer",
    "peer_cert_serial_number",
    "peer_cert_validity",
    "state",
    "channels",
    "protocol",
    "auth_mechanism",
    "user",
    "vhost",
    "timeout",
    "frame_max",
    "channel_max",
    "client_properties",
    "recv_oct",
    "recv_cnt",
    "send_oct",
    "send_cnt",
    "send_pend",
    "connected_at",
    "container_id",
    "node",
    "user_provided_name",
    "user_who_performed_action",
    "type",
];

fn list_connections(call: &Call<'_>) -> Done {
    let columns = call.columns(&CONNECTION_COLUMNS, &["user", "peer_host", "peer_port", "state"])?;
    call.banner("Listing connections ...");
    let connections = call.client.get("/api/connections")?;
    let mut rows = Rows::new(&columns);
    for connection in connections.as_array().into_iter().flatten() {
        rows.rows.push(columns.iter().map(|column| connection_cell(connection, column)).collect());
    }
    call.rows(&rows)
}

fn connection_cell(connection: &Value, column: &str) -> Cell {
    match column {
        // What close_connection takes.
        "pid" => Cell::Value(connection["name"].clone()),
        "client_properties" => Cell::Arguments(connection[column].clone()),
        "protocol" => protocol(connection[column].as_str().unwrap_or_default()),
        "user_provided_name" if connection[column].is_null() => {
            Cell::Value(connection["client_properties"]["connection_name"].clone())
        }
        _ => Cell::Value(connection[column].clone()),
    }
}

/// The API writes `AMQP 0-9-1`, RabbitMQ's tools `{0,9,1}`.
fn protocol(text: &str) -> Cell {
    let numbers = text.strip_prefix("AMQP ").map(|version| version.split('-').map(str::parse::<u8>).collect());
    match numbers {
        Some(Ok::<Vec<u8>, _>(numbers)) => {
            let words: Vec<String> = numbers.iter().map(u8::to_string).collect();
            Cell::Both(format!("{{{}}}", words.join(",")), json!(numbers))
        }
        _ => Cell::text(text),
    }
}

fn list_channels(call: &Call<'_>) -> Done {
    let known = [
        "pid",
        "connection",
        "name",
        "number",
        "user",
        "vhost",
        "transactional",
        "confirm",
        "consumer_count",
        "messages_unacknowledged",
        "messages_uncommitted",
        "acks_uncommitted",
        "messages_unconfirmed",
        "prefetch_count",
        "global_prefetch_count",
        "state",
        "node",
    ];
    let columns = call.columns(&known, &["pid", "user", "consumer_count", "messages_unacknowledged"])?;
    call.banner("Listing channels ...");
    let channels = call.client.get("/api/channels")?;
    let mut rows = Rows::new(&columns);
    for channel in channels.as_array().into_iter().flatten() {
        let cell = |column: &String| match column.as_str() {
            "pid" => Cell::Value(channel["name"].clone()),
            "connection" => Cell::Value(channel["connection_details"]["name"].clone()),
            column => Cell::Value(channel[column].clone()),
        };
        rows.rows.push(columns.iter().map(cell).collect());
    }
    call.rows(&rows)
}

/// Closes one; one that has gone is closed.
fn close(call: &Call<'_>, name: &str, reason: &str) -> Done {
    let path = path(&["connections", name]);
    let headers = [("x-reason", header_text(reason))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = call.client.send(&Method::DELETE, &path, None, &headers)?;
    if reply.status == 404 { Ok(()) } else { reply.success().map(drop) }
}

/// A header value holds printable ASCII only.
fn header_text(text: &str) -> String {
    text.chars().map(|character| if (' '..='~').contains(&character) { character } else { '?' }).collect()
}

fn close_connection(call: &Call<'_>) -> Done {
    let (name, reason) = (call.argument(0), call.argument(1));
    call.banner(&format!("Closing connection {name}, reason: {reason}..."));
    let connections = call.client.get("/api/connections?columns=name")?;
    let exists = connections.as_array().into_iter().flatten().any(|connection| connection["name"] == name);
    if !exists && !name.starts_with('<') {
        let text = format!("there is no connection '{name}'; `list_connections pid` names them");
        return Err(CtlError::failed(code::UNAVAILABLE, text));
    }
    close(call, name, reason)
}

fn close_all_connections(call: &Call<'_>) -> Done {
    let (reason, vhost) = (call.argument(0), call.vhost());
    let global = call.arguments.has("global");
    let limit = call.arguments.number::<usize>("limit")?.filter(|limit| *limit > 0);
    let delay = call.arguments.number::<u64>("per-connection-delay")?.unwrap_or(0);
    let count = limit.map_or_else(|| "all".to_owned(), |limit| limit.to_string());
    if global {
        call.node_banner(|node| {
            format!("Closing {count} connections to node {node} (across all vhosts), reason: {reason}...")
        });
    } else {
        call.banner(&format!("Closing {count} connections in vhost {vhost}, reason: {reason}..."));
    }
    let connections = call.client.get("/api/connections?columns=name,vhost")?;
    let chosen =
        connections.as_array().into_iter().flatten().filter(|connection| global || connection["vhost"] == vhost);
    let mut closed = 0;
    for connection in chosen.take(limit.unwrap_or(usize::MAX)) {
        close(call, connection["name"].as_str().unwrap_or_default(), reason)?;
        closed += 1;
        if delay > 0 {
            call.client.pause(Duration::from_millis(delay));
        }
    }
    call.line(&format!("Closed {closed} connections"));
    Ok(())
}

fn close_all_user_connections(call: &Call<'_>) -> Done {
    let (user, reason) = (call.argument(0), call.argument(1));
    call.banner(&format!("Closing connections of user {user}, reason: {reason}..."));
    let connections = call.client.get("/api/connections?columns=name,user")?;
    for connection in connections.as_array().into_iter().flatten().filter(|connection| connection["user"] == user) {
        close(call, connection["name"].as_str().unwrap_or_default(), reason)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_is_a_tuple() {
        assert_eq!(protocol("AMQP 0-9-1"), Cell::Both("{0,9,1}".to_owned(), json!([0, 9, 1])));
        assert_eq!(protocol("MQTT 5-0"), Cell::text("MQTT 5-0"));
    }
}
