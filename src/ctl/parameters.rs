//! Runtime parameters, of vhosts and global ones, and the cluster's name.

use serde_json::{Value, json};

use super::call::Call;
use super::client::{Reply, path};
use super::error::{CtlError, code};
use super::format::{Cell, Empty, Rows};
use super::verb::{BOTH, Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Parameters,
        "set_parameter",
        "[--vhost <vhost>] <component> <name> <value>",
        "Sets a runtime parameter; the value is JSON",
        set_parameter,
    ),
    Verb::new(
        Group::Parameters,
        "clear_parameter",
        "[--vhost <vhost>] <component> <name>",
        "Clears a runtime parameter",
        clear_parameter,
    ),
    Verb::new(
        Group::Parameters,
        "list_parameters",
        "[--vhost <vhost>] [--no-table-headers]",
        "Lists the runtime parameters of a virtual host",
        list_parameters,
    )
    .of(BOTH),
    Verb::new(
        Group::Parameters,
        "set_global_parameter",
        "<name> <value>",
        "Sets a global runtime parameter; the value is JSON",
        set_global_parameter,
    ),
    Verb::new(
        Group::Parameters,
        "clear_global_parameter",
        "<name>",
        "Clears a global runtime parameter",
        clear_global_parameter,
    ),
    Verb::new(
        Group::Parameters,
        "list_global_parameters",
        "[--no-table-headers]",
        "Lists global runtime parameters",
        list_global_parameters,
    )
    .of(BOTH),
    Verb::new(Group::Settings, "set_cluster_name", "<name>", "Sets the cluster's name", set_cluster_name),
];

/// Reads a JSON document of the command line.
///
/// # Errors
/// It is none.
pub(crate) fn parse_json(text: &str) -> Result<Value, CtlError> {
    serde_json::from_str(text).map_err(|_| {
        let text = format!("Could not parse JSON document: {{error,{{failed_to_decode_json,<<\"{text}\">>}}}}");
        CtlError::failed(code::UNAVAILABLE, text)
    })
}

/// What RabbitMQ's tools say when there was nothing to clear.
///
/// # Errors
/// That, or the broker's refusal.
pub(crate) fn cleared(reply: Reply) -> Done {
    if reply.status == 404 {
        return Err(CtlError::failed(code::UNAVAILABLE, "Parameter does not exist"));
    }
    reply.success().map(drop)
}

fn set_parameter(call: &Call<'_>) -> Done {
    let (component, name, value, vhost) = (call.argument(0), call.argument(1), call.argument(2), call.vhost());
    call.banner(&format!(
        "Setting runtime parameter \"{name}\" for component \"{component}\" to \"{value}\" in vhost \"{vhost}\" ..."
    ));
    let body = json!({"value": parse_json(value)?, "vhost": vhost, "component": component, "name": name});
    let reply = call.client.put(&path(&["parameters", component, vhost, name]), &body)?;
    if reply.status == 404 {
        call.need_vhost(vhost)?;
    }
    reply.success().map(drop)
}

fn clear_parameter(call: &Call<'_>) -> Done {
    let (component, name, vhost) = (call.argument(0), call.argument(1), call.vhost());
    call.banner(&format!(
        "Clearing runtime parameter \"{name}\" for component \"{component}\" on vhost \"{vhost}\" ..."
    ));
    cleared(call.client.delete(&path(&["parameters", component, vhost, name]))?)
}

fn list_parameters(call: &Call<'_>) -> Done {
    let vhost = call.vhost();
    call.banner(&format!("Listing runtime parameters for vhost \"{vhost}\" ..."));
    call.need_vhost(vhost)?;
    let parameters = call.client.get("/api/parameters")?;
    let mut rows = Rows::new(&["component", "name", "value"]);
    rows.empty = Empty::Line;
    for parameter in parameters.as_array().into_iter().flatten().filter(|parameter| parameter["vhost"] == vhost) {
        rows.rows.push(vec![
            Cell::Value(parameter["component"].clone()),
            Cell::Value(parameter["name"].clone()),
            Cell::text(parameter["value"].to_string()),
        ]);
    }
    call.rows(&rows)
}

fn set_global_parameter(call: &Call<'_>) -> Done {
    let (name, value) = (call.argument(0), call.argument(1));
    call.banner(&format!("Setting global runtime parameter \"{name}\" to \"{value}\" ..."));
    let body = json!({"name": name, "value": parse_json(value)?});
    call.client.put(&path(&["global-parameters", name]), &body)?.success()?;
    Ok(())
}

fn clear_global_parameter(call: &Call<'_>) -> Done {
    let name = call.argument(0);
    call.banner(&format!("Clearing global runtime parameter \"{name}\" ..."));
    cleared(call.client.delete(&path(&["global-parameters", name]))?)
}

fn list_global_parameters(call: &Call<'_>) -> Done {
    call.banner("Listing global runtime parameters ...");
    let parameters = call.client.get("/api/global-parameters")?;
    let mut rows = Rows::new(&["name", "value"]);
    rows.empty = Empty::Line;
    for parameter in parameters.as_array().into_iter().flatten() {
        rows.rows.push(vec![Cell::Value(parameter["name"].clone()), Cell::text(parameter["value"].to_string())]);
    }
    call.rows(&rows)
}

fn set_cluster_name(call: &Call<'_>) -> Done {
    let name = call.argument(0);
    call.banner(&format!("Setting cluster name to {name} ..."));
    call.client.put("/api/cluster-name", &json!({"name": name}))?.success()?;
    Ok(())
}
