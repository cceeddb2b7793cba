//! `rabbitmq-plugins`: everything is built in, so enabling what there is does nothing, and what there is not is refused.

use serde_json::json;

use crate::model::plugin::{self, State};

use super::call::Call;
use super::error::{CtlError, code};
use super::format::Formatter;
use super::verb::{Done, Group, PLUGINS, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Plugins,
        "list",
        "[<pattern>] [--verbose] [--minimal] [--enabled] [--implicitly-enabled]",
        "Lists the plugins of RabbitMQ whose work the broker does",
        list,
    )
    .of(PLUGINS)
    .or(&["list_plugins"]),
    Verb::new(
        Group::Plugins,
        "is_enabled",
        "<plugin> [<plugin> ...] [--offline] [--online]",
        "Fails unless all of them are enabled",
        is_enabled,
    )
    .of(PLUGINS),
    Verb::new(
        Group::Plugins,
        "enable",
        "[<plugin> ...] [--offline] [--online] [--all]",
        "Accepted for what is built in; what is not fails, and why",
        enable,
    )
    .of(PLUGINS),
    Verb::new(
        Group::Plugins,
        "disable",
        "[<plugin> ...] [--offline] [--online] [--all]",
        "Accepted; nothing is turned off",
        disable,
    )
    .of(PLUGINS),
    Verb::new(
        Group::Plugins,
        "set",
        "[<plugin> ...] [--offline] [--online] [--all]",
        "Accepted for what is built in",
        set,
    )
    .of(PLUGINS),
    Verb::new(Group::Plugins, "directories", "[--offline] [--online]", "Says that there are none", directories)
        .of(PLUGINS),
];

/// A plugin, its version and how it came to be enabled.
struct Plugin {
    name: String,
    version: String,
    /// Named by the configuration, not only needed by another one.
    explicitly: bool,
}

fn enabled(call: &Call<'_>) -> Result<Vec<Plugin>, CtlError> {
    let nodes = call.client.get("/api/nodes?columns=enabled_plugins,applications,rabbitmq_version")?;
    let node = &nodes[0];
    let explicitly: Vec<&str> =
        node["enabled_plugins"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    let applications = node["applications"].as_array().into_iter().flatten();
    let mut plugins: Vec<Plugin> = applications
        .filter_map(|application| {
            let name = application["name"].as_str().filter(|name| name.starts_with("rabbitmq_"))?;
            let version = application["version"].as_str().unwrap_or_default().to_owned();
            Some(Plugin { name: name.to_owned(), version, explicitly: explicitly.contains(&name) })
        })
        .collect();
    let version = node["rabbitmq_version"].as_str().unwrap_or_default();
    for name in explicitly {
        if !plugins.iter().any(|plugin| plugin.name == name) {
            plugins.push(Plugin { name: name.to_owned(), version: version.to_owned(), explicitly: true });
        }
    }
    plugins.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(plugins)
}

fn list(call: &Call<'_>) -> Done {
    let pattern = call.arguments.positional.first().map_or(".*", String::as_str);
    call.banner(&format!("Listing plugins with pattern \"{pattern}\" ..."));
    let matcher =
        fancy_regex::Regex::new(pattern).map_err(|error| CtlError::BadArgument(format!("pattern: {error}")))?;
    let mut plugins = enabled(call)?;
    plugins.retain(|plugin| matcher.is_match(&plugin.name).unwrap_or(false));
    if call.arguments.has("enabled") && !call.arguments.has("implicitly-enabled") {
        plugins.retain(|plugin| plugin.explicitly);
    }
    let how = |plugin: &Plugin| if plugin.explicitly { "enabled" } else { "implicit" };
    let entries: Vec<_> = plugins
        .iter()
        .map(|plugin| {
            json!({
                "enabled": how(plugin), "name": plugin.name, "running": true, "version": plugin.version,
                "running_version": plugin.version,
            })
        })
        .collect();
    let document = json!({"status": "running", "format": "normal", "plugins": entries});
    call.document(&document, || text(call, &plugins))
}

fn text(call: &Call<'_>, plugins: &[Plugin]) -> String {
    if call.arguments.has("minimal") {
        return plugins.iter().map(|plugin| format!("{}\n", plugin.name)).collect();
    }
    let legend = " Configured: E = explicitly enabled; e = implicitly enabled\n";
    let mut text = if call.arguments.has("silent") {
        String::new()
    } else {
        format!("{legend} | Status: * = running on {}\n |/\n", call.node())
    };
    let width = plugins.iter().map(|plugin| plugin.name.len()).max().unwrap_or_default();
    for plugin in plugins {
        let how = if plugin.explicitly { 'E' } else { 'e' };
        if call.arguments.has("verbose") {
            text.push_str(&format!("[{how}*] {}\n     Version:     \t{}\n", plugin.name, plugin.version));
        } else {
            text.push_str(&format!("[{how}*] {:width$} {}\n", plugin.name, plugin.version));
        }
    }
    text
}

fn is_enabled(call: &Call<'_>) -> Done {
    let asked = &call.arguments.positional;
    let node = call.node();
    let (word, verb) = if asked.len() == 1 { ("plugin", "is") } else { ("plugins", "are") };
    call.banner(&format!("Asking node {node} if {word} {} {verb} enabled...", asked.join(", ")));
    let plugins = enabled(call)?;
    let missing: Vec<&str> =
        asked.iter().map(String::as_str).filter(|name| !plugins.iter().any(|plugin| plugin.name == *name)).collect();
    if missing.is_empty() {
        let word = if asked.len() == 1 { "Plugin" } else { "Plugins" };
        call.line(&format!("{word} {} {verb} enabled on node {node}", asked.join(", ")));
        return Ok(());
    }
    let known: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let (word, verb) = if missing.len() == 1 { ("Plugin", "is") } else { ("Plugins", "are") };
    let text = format!(
        "{word} {} {verb} not enabled on node {node}. Enabled plugins and dependencies: {}",
        missing.join(", "),
        known.join(", ")
    );
    Err(CtlError::failed(code::UNAVAILABLE, text))
}

fn enable(call: &Call<'_>) -> Done {
    configure(call, "Enabling plugins")
}

fn set(call: &Call<'_>) -> Done {
    configure(call, "Enabling plugins")
}

fn configure(call: &Call<'_>, title: &str) -> Done {
    let asked = &call.arguments.positional;
    if asked.is_empty() && !call.arguments.has("all") {
        return Err(CtlError::Usage("name a plugin or give --all".to_owned()));
    }
    call.node_banner(|node| format!("{title} on node {node}:\n{}", asked.join("\n")));
    let plugins = enabled(call)?;
    let missing = asked.iter().filter(|name| !plugins.iter().any(|plugin| plugin.name == **name));
    let missing: Vec<String> = missing.map(|name| format!("{name} cannot be enabled: {}", why_missing(name))).collect();
    if !missing.is_empty() {
        return Err(CtlError::failed(code::UNAVAILABLE, missing.join("\n")));
    }
    unchanged(call, &plugins);
    Ok(())
}

/// Why the broker does not list a plugin.
fn why_missing(name: &str) -> &'static str {
    match plugin::find(name).map(|plugin| plugin.state) {
        Some(State::Missing(reason)) => reason,
        Some(State::BuiltIn) => "the broker that was asked does not have it",
        None => "there is no such plugin; rabbitmq-plugins list has those that are built in",
    }
}

fn disable(call: &Call<'_>) -> Done {
    let asked = &call.arguments.positional;
    call.node_banner(|node| format!("Disabling plugins on node {node}:\n{}", asked.join("\n")));
    let plugins = enabled(call)?;
    for name in asked.iter().filter(|name| plugins.iter().any(|plugin| plugin.name == **name)) {
        eprintln!("warning: {name} is built in and stays on; its listener is turned off in the configuration");
    }
    unchanged(call, &plugins);
    Ok(())
}

fn unchanged(call: &Call<'_>, plugins: &[Plugin]) {
    if call.formatter() != Formatter::Table {
        return;
    }
    call.banner("The following plugins have been configured:");
    for plugin in plugins {
        call.banner(&format!("  {}", plugin.name));
    }
    call.node_banner(|node| format!("Applying plugin configuration to {node}..."));
    call.line("Plugin configuration unchanged.");
}

fn directories(call: &Call<'_>) -> Done {
    call.line("There are no plugin directories: everything is built in.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::verb::{Tool, find};

    #[test]
    fn list_is_a_verb_of_the_plugins_tool_alone() {
        assert!(find(Tool::Plugins, "list").is_some());
        assert!(find(Tool::Rabbitmqctl, "list").is_none());
    }
}
