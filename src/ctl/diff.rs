//! Definitions compared: what a file has more, less and otherwise than the running broker.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::call::Call;
use super::definitions::{api_path, load};
use super::error::CtlError;
use super::verb::{Done, Group, Verb};

/// `warren definitions diff`.
pub(crate) const VERB: Verb = Verb::new(
    Group::Definitions,
    "warren definitions diff",
    "<file|-> [--vhost <vhost>] [--timeout <timeout>]",
    "Compares a file with the running broker: + only in the file, - only in the broker, ~ changed from the broker to the file. \
     The exit code is 0 if they are equal, else 1",
    run,
);

/// One kind of definition.
pub(crate) struct Kind {
    /// In the document.
    pub(crate) field: &'static str,
    /// Of one.
    pub(crate) name: &'static str,
    /// The fields that tell two apart, behind the vhost.
    key: &'static [&'static str],
}

const fn kind(field: &'static str, name: &'static str, key: &'static [&'static str]) -> Kind {
    Kind { field, name, key }
}

/// In the order of the output.
pub(crate) const KINDS: [Kind; 10] = [
    kind("vhosts", "vhost", &["name"]),
    kind("users", "user", &["name"]),
    kind("permissions", "permission", &["user"]),
    kind("topic_permissions", "topic permission", &["user", "exchange"]),
    kind("global_parameters", "global parameter", &["name"]),
    kind("parameters", "parameter", &["component", "name"]),
    kind("policies", "policy", &["name"]),
    kind("exchanges", "exchange", &["name"]),
    kind("queues", "queue", &["name"]),
    kind("bindings", "binding", &["source", "destination_type", "destination", "routing_key", "arguments"]),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mark {
    /// Only in the file.
    Added,
    /// Only in the broker.
    Removed,
    Changed,
}

/// One difference.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) mark: Mark,
    pub(crate) kind: &'static str,
    name: String,
    /// Path, value in the broker, value in the file.
    fields: Vec<(String, Value, Value)>,
}

impl Change {
    fn line(&self) -> String {
        let (kind, name) = (self.kind, &self.name);
        match self.mark {
            Mark::Added => format!("+ {kind} {name}\n"),
            Mark::Removed => format!("- {kind} {name}\n"),
            Mark::Changed => {
                let fields = self.fields.iter().map(|(path, from, to)| match path.as_str() {
                    "password_hash" => "password_hash".to_owned(),
                    path => format!("{path} {} -> {}", shown(from), shown(to)),
                });
                format!("~ {kind} {name}: {}\n", fields.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn json(&self) -> Value {
        let change = match self.mark {
            Mark::Added => "added",
            Mark::Removed => "removed",
            Mark::Changed => "changed",
        };
        let fields = self.fields.iter().map(|(path, from, to)| (path.clone(), json!({"from": from, "to": to})));
        json!({"change": change, "kind": self.kind, "name": self.name, "fields": fields.collect::<Map<_, _>>()})
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "(none)".to_owned() } else { value.to_string() }
}

fn run(call: &Call<'_>) -> Done {
    let (_, file) = load(call.arguments.positional.first().map(String::as_str))?;
    let vhost = call.arguments.option("vhost");
    let running = match (call.client.find(&api_path(call))?, vhost) {
        (Some(running), _) => running,
        (None, Some(vhost)) => return Err(CtlError::no_vhost(vhost)),
        (None, None) => json!({}),
    };
    let changes = compare(&running, &file, vhost);
    if call.formatter().is_for_programs() {
        call.print(&format!("{}\n", changes.iter().map(Change::json).collect::<Value>()));
    } else {
        call.print(&changes.iter().map(Change::line).collect::<String>());
    }
    if changes.is_empty() { Ok(()) } else { Err(CtlError::Silent { code: 1 }) }
}

/// What differs. Kinds that the file does not mention are left alone; `vhost` is that of objects that name none.
pub(crate) fn compare(running: &Value, file: &Value, vhost: Option<&str>) -> Vec<Change> {
    let mut changes = Vec::new();
    for kind in KINDS.iter().filter(|kind| file[kind.field].is_array()) {
        let (ours, theirs) = (by_name(running, kind, vhost), by_name(file, kind, vhost));
        let change = |mark, name: &String, fields| Change { mark, kind: kind.name, name: name.clone(), fields };
        for (name, wanted) in &theirs {
            let Some(existing) = ours.get(name) else {
                changes.push(change(Mark::Added, name, Vec::new()));
                continue;
            };
            let mut fields = Vec::new();
            for (field, value) in wanted {
                differ(field, existing.get(field).unwrap_or(&Value::Null), value, &mut fields);
            }
            if !fields.is_empty() {
                changes.push(change(Mark::Changed, name, fields));
            }
        }
        changes.extend(
            ours.keys().filter(|name| !theirs.contains_key(*name)).map(|name| change(Mark::Removed, name, Vec::new())),
        );
    }
    changes
}

/// The definitions of a kind, normalised, by their names.
fn by_name(document: &Value, kind: &Kind, vhost: Option<&str>) -> BTreeMap<String, Map<String, Value>> {
    let items = document[kind.field].as_array().into_iter().flatten();
    let items = items.filter_map(|item| {
        let object = normalised(kind, item.as_object()?.clone());
        let owner = object.get("vhost").and_then(Value::as_str).or(vhost);
        let mut words: Vec<String> = kind.key.iter().filter_map(|key| word(object.get(*key)?)).collect();
        if kind.field == "bindings" {
            words = vec![binding_name(&object)];
        }
        let name = words.join(" ");
        // The broker makes this one up.
        if kind.field == "global_parameters" && name == "internal_cluster_id" {
            return None;
        }
        Some((owner.map_or_else(|| name.clone(), |owner| format!("{owner}/{name}")), object))
    });
    items.collect()
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) if fields.is_empty() => None,
        other => Some(other.to_string()),
    }
}

fn binding_name(binding: &Map<String, Value>) -> String {
    let field = |name: &str| binding.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut name = format!("{} -> {} {}", field("source"), field("destination_type"), field("destination"));
    if !field("routing_key").is_empty() {
        name.push_str(&format!(" ({})", field("routing_key")));
    }
    let arguments = binding.get("arguments").and_then(Value::as_object).filter(|arguments| !arguments.is_empty());
    if let Some(arguments) = arguments {
        // In one order, whatever order they were written in.
        let sorted: BTreeMap<_, _> = arguments.iter().collect();
        name.push_str(&format!(" {}", json!(sorted)));
    }
    name
}

/// One spelling for what can be spelled in several ways.
fn normalised(kind: &Kind, mut object: Map<String, Value>) -> Map<String, Value> {
    match kind.field {
        "users" => {
            if let Some(Value::String(tags)) = object.get("tags") {
                let tags: Value =
                    tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(Value::from).collect();
                object.insert("tags".to_owned(), tags);
            }
        }
        "queues" => {
            let arguments = object.get_mut("arguments").and_then(Value::as_object_mut);
            let by_argument = arguments.and_then(|arguments| arguments.remove("x-queue-type"));
            let kind = by_argument.or_else(|| object.get("type").cloned()).unwrap_or_else(|| json!("classic"));
            object.insert("type".to_owned(), kind);
        }
        _ => {}
    }
    object
}

/// Adds what differs between two values, objects field by field.
fn differ(path: &str, from: &Value, to: &Value, fields: &mut Vec<(String, Value, Value)>) {
    match (from, to) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in theirs {
                differ(&format!("{path}.{name}"), ours.get(name).unwrap_or(&Value::Null), value, fields);
            }
            for (name, value) in ours.iter().filter(|(name, _)| !theirs.contains_key(*name)) {
                fields.push((format!("{path}.{name}"), value.clone(), Value::Null));
            }
        }
        // Nothing, an empty list and an empty object are the same.
        (from, to) if is_nothing(from) && is_nothing(to) => {}
        (from, to) if from == to || same_number(from, to) => {}
        _ => fields.push((path.to_owned(), from.clone(), to.clone())),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn same_number(one: &Value, other: &Value) -> bool {
    matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if one.to_bits() == other.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(running: &Value, file: &Value) -> String {
        compare(running, file, None).iter().map(Change::line).collect()
    }

    #[test]
    fn differences_are_lines() {
        let running = json!({
            "queues": [{"vhost": "/", "name": "old", "durable": true, "arguments": {}, "type": "classic"}],
            "policies": [{"vhost": "orders", "name": "ttl", "pattern": "^q", "definition": {"max-length": 10, "ttl": 1}}],
            "users": [{"name": "a", "tags": ["administrator"], "password_hash": "x"}],
        });
        let file = json!({
            "queues": [{"vhost": "orders", "name": "new", "durable": true, "arguments": {}}],
            "policies": [{"vhost": "orders", "name": "ttl", "pattern": "^q", "definition": {"max-length": 20}}],
            "users": [{"name": "a", "tags": "administrator", "password_hash": "y"}],
        });
        let expected = "~ user a: password_hash\n\
                        ~ policy orders/ttl: definition.max-length 10 -> 20, definition.ttl 1 -> (none)\n\
                        + queue orders/new\n- queue //old\n";
        assert_eq!(lines(&running, &file), expected);
    }

    #[test]
    fn other_spellings_are_equal() {
        let running = json!({
            "queues": [{"vhost": "/", "name": "q", "arguments": {"x-queue-type": "quorum"}, "type": "quorum", "durable": true}],
            "bindings": [{"vhost": "/", "source": "x", "destination_type": "queue", "destination": "q", "routing_key": "",
                          "arguments": {"a": 1, "b": 2}}],
            "vhosts": [{"name": "/", "limits": {}, "metadata": {"tags": []}}],
        });
        let file = json!({
            "queues": [{"vhost": "/", "name": "q", "arguments": {"x-queue-type": "quorum"}, "durable": true}],
            "bindings": [{"vhost": "/", "source": "x", "destination_type": "queue", "destination": "q", "routing_key": "",
                          "arguments": {"b": 2, "a": 1}}],
            "vhosts": [{"name": "/"}],
        });
        assert_eq!(lines(&running, &file), "");
        // What a file does not mention is left alone.
        assert_eq!(lines(&running, &json!({})), "");
    }
}
