//! The verbs of `rabbitmq-streams`. There are no streams in this version: lists are empty, and the rest says why it cannot be done.

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Empty, Formatter, Rows};
use super::verb::{Done, Group, Tool, Verb};

const STREAMS: &[Tool] = &[Tool::Streams];

const fn list(name: &'static str, about: &'static str) -> Verb {
    Verb::new(
        Group::Streams,
        name,
        "[--vhost <vhost>] [--verbose] [--no-table-headers] [<column> ...]",
        about,
        list_none,
    )
    .of(STREAMS)
}

const fn about_stream(name: &'static str, usage: &'static str, about: &'static str) -> Verb {
    Verb::new(Group::Streams, name, usage, about, no_stream).of(STREAMS)
}

const fn unavailable(name: &'static str, about: &'static str) -> Verb {
    Verb::new(Group::Streams, name, "[--vhost <vhost>] [<argument> ...]", about, refuse).of(STREAMS)
}

pub(crate) const VERBS: &[Verb] = &[
    about_stream("stream_status", "[--vhost <vhost>] [--tracking] <stream>", "Shows the replicas of a stream"),
    about_stream("add_replica", "[--vhost <vhost>] <stream> <node>", "Adds a replica to a stream"),
    about_stream("delete_replica", "[--vhost <vhost>] <stream> <node>", "Removes a replica of a stream"),
    about_stream("restart_stream", "[--vhost <vhost>] [--preferred-leader-node <node>] <stream>", "Restarts a stream"),
    about_stream("reset_offset", "[--vhost <vhost>] --stream <stream> --reference <reference>", "Forgets an offset"),
    about_stream("list_stream_tracking", "[--vhost <vhost>] [--all] <stream>", "Lists the tracking of a stream"),
    about_stream(
        "set_stream_retention_policy",
        "[--vhost <vhost>] <stream> <policy>",
        "Sets the age up to which a stream keeps messages",
    ),
    list("list_stream_connections", "Lists the connections of the stream protocol; there are none in this version"),
    list("list_stream_consumers", "Lists the consumers of the stream protocol; there are none in this version"),
    list("list_stream_publishers", "Lists the publishers of the stream protocol; there are none in this version"),
    list("list_stream_consumer_groups", "Lists the groups of stream consumers; there are none in this version"),
    list("list_stream_group_consumers", "Lists the consumers of a group; there are none in this version"),
    unavailable("add_super_stream", "Makes a partitioned stream: there are no streams in this version"),
    unavailable("delete_super_stream", "Removes a partitioned stream: there are no streams in this version"),
    unavailable("coordinator_status", "Shows the streams' coordinator: there are no streams in this version"),
    unavailable("activate_stream_consumer", "Chooses the active consumer: there are no streams in this version"),
];

fn list_none(call: &Call<'_>) -> Done {
    call.banner("Listing ... (there are no streams in this version)");
    let mut rows = Rows::new(&["name"]);
    rows.empty = Empty::Line;
    call.rows_as(&rows, Formatter::Table)
}

fn refuse(call: &Call<'_>) -> Done {
    let (verb, about) = (call.verb.name, call.verb.about);
    Err(CtlError::failed(code::UNAVAILABLE, format!("{verb} is not available. {about}")))
}

/// # Errors
/// Always: there is no such queue, or it is no stream.
fn no_stream(call: &Call<'_>) -> Done {
    let (queue, vhost) = (call.arguments.option("stream").unwrap_or_else(|| call.argument(0)), call.vhost());
    let found = call.client.find(&path(&["queues", vhost, queue]))?;
    let text = match found {
        None => format!("stream '{queue}' was not found in virtual host '{vhost}'"),
        Some(found) => format!(
            "queue '{queue}' in virtual host '{vhost}' is no stream but of type {}",
            found["type"].as_str().unwrap_or("classic")
        ),
    };
    Err(CtlError::plain(code::DATA, text))
}
