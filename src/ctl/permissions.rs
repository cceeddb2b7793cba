//! Permissions and topic permissions.

use serde_json::{Value, json};

use super::call::Call;
use super::client::{Reply, path};
use super::error::{CtlError, code};
use super::format::{Empty, Header, Rows};
use super::verb::{BOTH, Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::AccessControl,
        "set_permissions",
        "[--vhost <vhost>] <username> <conf> <write> <read>",
        "Sets what a user may configure, write and read in a vhost: three regular expressions",
        set_permissions,
    ),
    Verb::new(
        Group::AccessControl,
        "set_permissions_globally",
        "<username> <conf> <write> <read>",
        "Sets a user's permissions in every vhost",
        set_permissions_globally,
    ),
    Verb::new(
        Group::AccessControl,
        "clear_permissions",
        "[--vhost <vhost>] <username>",
        "Takes a user's access to a vhost away",
        clear_permissions,
    ),
    Verb::new(
        Group::AccessControl,
        "list_permissions",
        "[--vhost <vhost>] [--no-table-headers]",
        "Lists who may do what in a vhost",
        list_permissions,
    )
    .of(BOTH),
    Verb::new(
        Group::AccessControl,
        "list_user_permissions",
        "[--no-table-headers] <username>",
        "Lists where a user may do what",
        list_user_permissions,
    )
    .of(BOTH),
    Verb::new(
        Group::AccessControl,
        "set_topic_permissions",
        "[--vhost <vhost>] <username> <exchange> <write> <read>",
        "Sets which routing keys a user may write to and read from a topic exchange",
        set_topic_permissions,
    ),
    Verb::new(
        Group::AccessControl,
        "clear_topic_permissions",
        "[--vhost <vhost>] <username> [<exchange>]",
        "Clears a user's topic permissions, of one exchange or of all",
        clear_topic_permissions,
    ),
    Verb::new(
        Group::AccessControl,
        "list_topic_permissions",
        "[--vhost <vhost>] [--no-table-headers]",
        "Lists the topic permissions of a vhost",
        list_topic_permissions,
    )
    .of(BOTH),
    Verb::new(
        Group::AccessControl,
        "list_user_topic_permissions",
        "[--no-table-headers] <username>",
        "Lists the topic permissions of a user",
        list_user_topic_permissions,
    )
    .of(BOTH),
];

fn set_permissions(call: &Call<'_>) -> Done {
    let (user, vhost) = (call.argument(0), call.vhost());
    call.banner(&format!("Setting permissions for user \"{user}\" in vhost \"{vhost}\" ..."));
    put_permissions(call, user, vhost)
}

fn set_permissions_globally(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Setting permissions for user \"{user}\" in all virtual hosts ..."));
    let vhosts = call.client.get("/api/vhosts?columns=name")?;
    for vhost in vhosts.as_array().into_iter().flatten() {
        put_permissions(call, user, vhost["name"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn put_permissions(call: &Call<'_>, user: &str, vhost: &str) -> Done {
    let body = json!({"configure": call.argument(1), "write": call.argument(2), "read": call.argument(3)});
    let reply = call.client.put(&path(&["permissions", vhost, user]), &body)?;
    if reply.is_success() {
        return Ok(());
    }
    Err(who_is_missing(call, user, vhost)?.unwrap_or_else(|| refusal(reply)))
}

/// The better text for a refusal that says only that something is missing.
fn who_is_missing(call: &Call<'_>, user: &str, vhost: &str) -> Result<Option<CtlError>, CtlError> {
    if call.client.find(&path(&["vhosts", vhost]))?.is_none() {
        return Ok(Some(CtlError::failed(code::UNAVAILABLE, format!("Virtual host {vhost} does not exist"))));
    }
    if call.client.find(&path(&["users", user]))?.is_none() {
        return Ok(Some(CtlError::failed(code::NO_USER, format!("User {user} does not exist"))));
    }
    Ok(None)
}

fn refusal(reply: Reply) -> CtlError {
    let json = reply.json();
    // ["invalid_regexp", characters of the pattern, [characters of the reason, position]].
    if json["reason"][0] == "invalid_regexp" {
        let pattern = characters(&json["reason"][1]);
        let (text, at) = (characters(&json["reason"][2][0]), &json["reason"][2][1]);
        let text = format!("{{:invalid_regexp, ~c\"{pattern}\", {{~c\"{text}\", {at}}}}}");
        return CtlError::failed(code::UNAVAILABLE, text);
    }
    match reply.success() {
        Err(error) => error,
        Ok(_) => CtlError::Silent { code: code::SOFTWARE },
    }
}

/// A text, or the list of its characters.
fn characters(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(numbers) => numbers
            .iter()
            .filter_map(|number| number.as_u64().and_then(|number| u32::try_from(number).ok()).and_then(char::from_u32))
            .collect(),
        other => other.to_string(),
    }
}

fn clear_permissions(call: &Call<'_>) -> Done {
    let (user, vhost) = (call.argument(0), call.vhost());
    call.banner(&format!("Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ..."));
    // What is not there is cleared.
    let reply = call.client.delete(&path(&["permissions", vhost, user]))?;
    if reply.status == 404 { Ok(()) } else { reply.success().map(drop) }
}

fn list_permissions(call: &Call<'_>) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Listing permissions for vhost \"{vhost}\" ..."));
    let permissions = call.client.find(&path(&["vhosts", vhost, "permissions"]))?;
    let permissions = permissions.ok_or_else(|| CtlError::no_vhost(vhost))?;
    print_fields(call, &permissions, &["user", "configure", "write", "read"])
}

fn list_user_permissions(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Listing permissions for user \"{user}\" ..."));
    let permissions = of_user(call, user, "permissions")?;
    print_fields(call, &permissions, &["vhost", "configure", "write", "read"])
}

fn of_user(call: &Call<'_>, user: &str, kind: &str) -> Result<Value, CtlError> {
    let missing = || CtlError::failed(code::UNAVAILABLE, format!("{{:no_such_user, \"{user}\"}}"));
    call.client.find(&path(&["users", user, kind]))?.ok_or_else(missing)
}

fn print_fields(call: &Call<'_>, list: &Value, columns: &[&str]) -> Done {
    let mut rows = Rows::new(columns);
    rows.empty = Empty::Line;
    for item in list.as_array().into_iter().flatten() {
        rows.push_fields(item);
    }
    call.rows(&rows)
}

fn set_topic_permissions(call: &Call<'_>) -> Done {
    let (user, exchange, vhost) = (call.argument(0), call.argument(1), call.vhost());
    call.banner(&format!("Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."));
    let body = json!({"exchange": exchange, "write": call.argument(2), "read": call.argument(3)});
    let reply = call.client.put(&path(&["topic-permissions", vhost, user]), &body)?;
    if reply.is_success() {
        return Ok(());
    }
    if let Some(error) = who_is_missing(call, user, vhost)? {
        return Err(error);
    }
    if reply.json()["reason"][0] == "no_such_exchange" {
        return Err(CtlError::failed(code::UNAVAILABLE, format!("Exchange {exchange} does not exist")));
    }
    Err(refusal(reply))
}

fn clear_topic_permissions(call: &Call<'_>) -> Done {
    let (user, vhost) = (call.argument(0), call.vhost());
    let path = match call.arguments.positional.get(1) {
        Some(exchange) => {
            call.banner(&format!(
                "Clearing topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ..."
            ));
            path(&["topic-permissions", vhost, user, exchange])
        }
        None => {
            call.banner(&format!("Clearing topic permissions for user \"{user}\" in vhost \"{vhost}\" ..."));
            path(&["topic-permissions", vhost, user])
        }
    };
    let reply = call.client.delete(&path)?;
    if reply.status == 404 { Ok(()) } else { reply.success().map(drop) }
}

fn list_topic_permissions(call: &Call<'_>) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Listing topic permissions for vhost \"{vhost}\" ..."));
    let permissions = call.client.find(&path(&["vhosts", vhost, "topic-permissions"]))?;
    let permissions = permissions.ok_or_else(|| CtlError::no_vhost(vhost))?;
    print_fields(call, &permissions, &["user", "exchange", "write", "read"])
}

fn list_user_topic_permissions(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Listing topic permissions for user \"{user}\" ..."));
    let permissions = of_user(call, user, "topic-permissions")?;
    let mut rows = Rows::new(&["vhost", "exchange", "write", "read"]);
    rows.empty = Empty::Line;
    for item in permissions.as_array().into_iter().flatten() {
        rows.push_fields(item);
    }
    // RabbitMQ's tool prints this one without a header.
    call.print(&rows.format(call.formatter(), Header::Hidden));
    Ok(())
}
