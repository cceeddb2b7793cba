//! Policies and operator policies.

use serde_json::{Value, json};

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Cell, Empty, Formatter, Rows};
use super::parameters::{cleared, parse_json};
use super::verb::{BOTH, DIAGNOSTICS, Done, Group, Verb};

const SET: &str = "[--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>";
const LIST: &str = "[--vhost <vhost>] [--no-table-headers]";

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(Group::Policies, "set_policy", SET, "Sets or updates a policy; its definition is JSON", set_policy),
    Verb::new(Group::Policies, "clear_policy", "[--vhost <vhost>] <name>", "Removes a policy", clear_policy),
    Verb::new(Group::Policies, "list_policies", LIST, "Lists the policies of a virtual host", list_policies).of(BOTH),
    Verb::new(
        Group::Policies,
        "set_operator_policy",
        SET,
        "Sets an operator policy, which goes before users' policies in what it limits",
        set_operator_policy,
    ),
    Verb::new(
        Group::Policies,
        "clear_operator_policy",
        "[--vhost <vhost>] <name>",
        "Removes an operator policy",
        clear_operator_policy,
    ),
    Verb::new(
        Group::Policies,
        "list_operator_policies",
        LIST,
        "Lists the operator policies of a virtual host",
        list_operator_policies,
    )
    .of(BOTH),
    Verb::new(
        Group::Policies,
        "list_policies_that_match",
        "[--vhost <vhost>] [--object-type <queue|exchange>] <name>",
        "Lists the policies that match a queue or an exchange, the one that applies first",
        list_policies_that_match,
    )
    .of(DIAGNOSTICS),
];

fn set_policy(call: &Call<'_>) -> Done {
    set(call, "policies", "policy")
}

fn set_operator_policy(call: &Call<'_>) -> Done {
    set(call, "operator-policies", "operator policy override")
}

fn set(call: &Call<'_>, kind: &str, title: &str) -> Done {
    let (name, pattern, definition, vhost) = (call.argument(0), call.argument(1), call.argument(2), call.vhost());
    let priority = call.arguments.number::<i64>("priority")?.unwrap_or(0);
    call.banner(&format!(
        "Setting {title} \"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \"{priority}\" for vhost \
         \"{vhost}\" ..."
    ));
    let apply_to = call.arguments.option("apply-to").unwrap_or("all");
    let body = json!({
        "pattern": pattern, "definition": parse_json(definition)?, "priority": priority, "apply-to": apply_to,
    });
    let reply = call.client.put(&path(&[kind, vhost, name]), &body)?;
    if reply.status == 404 {
        call.need_vhost(vhost)?;
    }
    reply.success().map(drop)
}

fn clear_policy(call: &Call<'_>) -> Done {
    clear(call, "policies", "policy")
}

fn clear_operator_policy(call: &Call<'_>) -> Done {
    clear(call, "operator-policies", "operator policy")
}

fn clear(call: &Call<'_>, kind: &str, title: &str) -> Done {
    let (name, vhost) = (call.argument(0), call.vhost());
    call.banner(&format!("Clearing {title} \"{name}\" on vhost \"{vhost}\" ..."));
    cleared(call.client.delete(&path(&[kind, vhost, name]))?)
}

fn list_policies(call: &Call<'_>) -> Done {
    list(call, "policies", "policies")
}

fn list_operator_policies(call: &Call<'_>) -> Done {
    list(call, "operator-policies", "operator policy overrides")
}

fn list(call: &Call<'_>, kind: &str, title: &str) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Listing {title} for vhost \"{vhost}\" ..."));
    let policies = call.client.find(&path(&[kind, vhost]))?.ok_or_else(|| CtlError::no_vhost(vhost))?;
    let mut rows = policy_rows();
    for policy in policies.as_array().into_iter().flatten() {
        push(&mut rows, policy, vhost);
    }
    call.rows(&rows)
}

fn policy_rows() -> Rows {
    let mut rows = Rows::new(&["vhost", "name", "pattern", "apply-to", "definition", "priority"]);
    rows.empty = Empty::Line;
    rows
}

fn push(rows: &mut Rows, policy: &Value, vhost: &str) {
    rows.rows.push(vec![
        Cell::text(vhost),
        Cell::Value(policy["name"].clone()),
        Cell::Value(policy["pattern"].clone()),
        Cell::Value(policy["apply-to"].clone()),
        Cell::text(policy["definition"].to_string()),
        Cell::Value(policy["priority"].clone()),
    ]);
}

fn list_policies_that_match(call: &Call<'_>) -> Done {
    let (name, vhost) = (call.argument(0), call.vhost());
    let object = call.arguments.option("object-type").unwrap_or("queue");
    if !["queue", "exchange"].contains(&object) {
        return Err(CtlError::BadArgument(format!("object type must be queue or exchange, not {object}")));
    }
    call.banner(&format!("Listing policies that match {object} '{name}' in vhost '{vhost}' ..."));
    let policies = call.client.find(&path(&["policies", vhost]))?.ok_or_else(|| CtlError::no_vhost(vhost))?;
    let found = call.client.find(&path(&[if object == "queue" { "queues" } else { "exchanges" }, vhost, name]))?;
    let found = found.ok_or_else(|| {
        CtlError::plain(code::DATA, format!("{object} '{name}' was not found in virtual host '{vhost}'"))
    })?;
    let applies_to = applicable(object, &found);
    let mut matching: Vec<&Value> = policies
        .as_array()
        .into_iter()
        .flatten()
        .filter(|policy| policy["apply-to"].as_str().is_some_and(|kind| applies_to.contains(&kind)))
        .filter(|policy| matches(policy, name))
        .collect();
    matching.sort_by_key(|policy| std::cmp::Reverse(policy["priority"].as_i64()));
    let mut rows = policy_rows();
    rows.empty = Empty::Nothing;
    for policy in matching {
        push(&mut rows, policy, vhost);
    }
    call.rows_as(&rows, Formatter::PrettyTable)
}

/// The values of apply-to that take this object in.
fn applicable(object: &str, found: &Value) -> Vec<&'static str> {
    match (object, found["type"].as_str()) {
        ("exchange", _) => vec!["all", "exchanges"],
        (_, Some("quorum")) => vec!["all", "queues", "quorum_queues"],
        (_, Some("stream")) => vec!["all", "queues", "streams"],
        _ => vec!["all", "queues", "classic_queues"],
    }
}

fn matches(policy: &Value, name: &str) -> bool {
    let pattern = policy["pattern"].as_str().unwrap_or_default();
    fancy_regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name).unwrap_or(false))
}
