//! Limits of users and of vhosts.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Cell, Empty, Rows};
use super::parameters::parse_json;
use super::verb::{BOTH, Done, Group, Verb};

/// What a vhost may be limited in.
const VHOST_LIMITS: [&str; 2] = ["max-connections", "max-queues"];

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Users,
        "set_user_limits",
        "<username> <definition>",
        "Sets limits of a user: {\"max-connections\": 100, \"max-channels\": 200}",
        set_user_limits,
    ),
    Verb::new(
        Group::Users,
        "clear_user_limits",
        "<username> <limit>",
        "Clears one limit of a user, or all of them: max-connections, max-channels, all",
        clear_user_limits,
    ),
    Verb::new(
        Group::Users,
        "list_user_limits",
        "[--user <user>] [--global] [--no-table-headers]",
        "Shows the limits of a user, or with --global of all users",
        list_user_limits,
    )
    .of(BOTH),
    Verb::new(
        Group::VirtualHosts,
        "set_vhost_limits",
        "[--vhost <vhost>] <definition>",
        "Sets limits of a virtual host: {\"max-connections\": 100, \"max-queues\": 50}",
        set_vhost_limits,
    ),
    Verb::new(
        Group::VirtualHosts,
        "clear_vhost_limits",
        "[--vhost <vhost>]",
        "Clears virtual host limits",
        clear_vhost_limits,
    ),
    Verb::new(
        Group::VirtualHosts,
        "list_vhost_limits",
        "[--vhost <vhost>] [--global] [--no-table-headers]",
        "Shows the limits of a virtual host, or with --global of all",
        list_vhost_limits,
    )
    .of(BOTH),
];

fn definition(text: &str) -> Result<Map<String, Value>, CtlError> {
    match parse_json(text)? {
        Value::Object(limits) => Ok(limits),
        other => Err(CtlError::failed(code::UNAVAILABLE, format!("limits must be a JSON object, not {other}"))),
    }
}

fn no_such_user(user: &str) -> CtlError {
    CtlError::failed(code::UNAVAILABLE, format!("{{:no_such_user, \"{user}\"}}"))
}

fn need_user(call: &Call<'_>, user: &str) -> Done {
    let found = call.client.find(&path(&["users", user]))?;
    found.map(drop).ok_or_else(|| no_such_user(user))
}

fn set_user_limits(call: &Call<'_>) -> Done {
    let (user, text) = (call.argument(0), call.argument(1));
    call.banner(&format!("Setting user limits to \"{text}\" for user \"{user}\" ..."));
    let limits = definition(text)?;
    need_user(call, user)?;
    for (name, value) in &limits {
        call.client.put(&path(&["user-limits", user, name]), &json!({"value": value}))?.success()?;
    }
    Ok(())
}

fn clear_user_limits(call: &Call<'_>) -> Done {
    let (user, limit) = (call.argument(0), call.argument(1));
    let which = if limit == "all" { "all limits".to_owned() } else { format!("\"{limit}\" limit") };
    call.banner(&format!("Clearing {which} for user \"{user}\" ..."));
    need_user(call, user)?;
    let limits: &[&str] = if limit == "all" { &["max-connections", "max-channels"] } else { &[limit] };
    for limit in limits {
        let reply = call.client.delete(&path(&["user-limits", user, limit]))?;
        if reply.status != 404 {
            reply.success()?;
        }
    }
    Ok(())
}

fn list_user_limits(call: &Call<'_>) -> Done {
    if call.arguments.has("global") {
        call.banner("Listing limits for all users ...");
        return all(call, "/api/user-limits", "user");
    }
    let user = call.arguments.option("user").unwrap_or("guest");
    call.banner(&format!("Listing limits for user \"{user}\" ..."));
    need_user(call, user)?;
    let limits = call.client.get(&path(&["user-limits", user]))?;
    let limits = limits.get(0).map_or_else(|| json!({}), |entry| entry["value"].clone());
    print_limits(call, &limits);
    Ok(())
}

fn print_limits(call: &Call<'_>, limits: &Value) {
    call.line(&limits.to_string());
}

fn all(call: &Call<'_>, path: &str, owner: &str) -> Done {
    let entries = call.client.get(path)?;
    let mut rows = Rows::new(&[owner, "limits"]);
    rows.empty = Empty::Line;
    for entry in entries.as_array().into_iter().flatten() {
        rows.rows.push(vec![Cell::Value(entry[owner].clone()), Cell::text(entry["value"].to_string())]);
    }
    call.rows(&rows)
}

fn set_vhost_limits(call: &Call<'_>) -> Done {
    let (vhost, text) = (call.vhost(), call.argument(0));
    call.banner(&format!("Setting vhost limits to \"{text}\" for vhost \"{vhost}\" ..."));
    let limits = definition(text)?;
    call.need_vhost(vhost)?;
    for (name, value) in &limits {
        call.client.put(&path(&["vhost-limits", vhost, name]), &json!({"value": value}))?.success()?;
    }
    // The whole definition is replaced: what it does not name is cleared.
    for name in VHOST_LIMITS.iter().filter(|name| !limits.contains_key(**name)) {
        let reply = call.client.delete(&path(&["vhost-limits", vhost, name]))?;
        if reply.status != 404 {
            reply.success()?;
        }
    }
    Ok(())
}

fn clear_vhost_limits(call: &Call<'_>) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Clearing vhost \"{vhost}\" limits ..."));
    let missing = || CtlError::failed(code::UNAVAILABLE, "Parameter does not exist");
    let limits = call.client.find(&path(&["vhost-limits", vhost]))?.ok_or_else(missing)?;
    let limits = limits[0]["value"].as_object().cloned().unwrap_or_default();
    if limits.is_empty() {
        return Err(missing());
    }
    for name in limits.keys() {
        call.client.delete(&path(&["vhost-limits", vhost, name]))?.success()?;
    }
    Ok(())
}

fn list_vhost_limits(call: &Call<'_>) -> Done {
    if call.arguments.has("global") {
        call.banner("Listing limits for all vhosts ...");
        return all(call, "/api/vhost-limits", "vhost");
    }
    let vhost = call.vhost();
    call.banner(&format!("Listing limits for vhost \"{vhost}\" ..."));
    call.need_vhost(vhost)?;
    let limits = call.client.get(&path(&["vhost-limits", vhost]))?;
    match limits.get(0).map(|entry| &entry["value"]) {
        Some(limits) => print_limits(call, limits),
        None if call.formatter().is_for_programs() => call.raw_line("[]"),
        None => call.line(""),
    }
    Ok(())
}
