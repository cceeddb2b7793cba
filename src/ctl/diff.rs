//! Definitions compared: what a file has more, less and otherwise than the running broker.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::Digest as _;

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
     What a broker begins with (its first user and virtual host, its cluster's name) is no difference unless the file says \
     otherwise, and passwords are compared, never shown. The exit code is 0 if they are equal, else 1",
    run,
);

/// One kind of definition.
pub(crate) struct DefinitionKind {
    /// In the document.
    pub(crate) field: &'static str,
    /// Of one.
    pub(crate) name: &'static str,
    /// The fields that tell two apart, behind the vhost.
    key: &'static [&'static str],
    /// The fields that an import looks at.
    fields: &'static [&'static str],
}

const fn kind(
    field: &'static str,
    name: &'static str,
    key: &'static [&'static str],
    fields: &'static [&'static str],
) -> DefinitionKind {
    DefinitionKind { field, name, key, fields }
}

/// In the order of the output.
pub(crate) const KINDS: [DefinitionKind; 10] = [
    kind(
        "vhosts",
        "vhost",
        &["name"],
        &["description", "tags", "default_queue_type", "protected_from_deletion", "limits"],
    ),
    // Passwords are compared apart.
    kind("users", "user", &["name"], &["tags", "limits"]),
    kind("permissions", "permission", &["user"], &["configure", "write", "read"]),
    kind("topic_permissions", "topic permission", &["user", "exchange"], &["write", "read"]),
    kind("global_parameters", "global parameter", &["name"], &["value"]),
    kind("parameters", "parameter", &["component", "name"], &["value"]),
    kind("policies", "policy", &["name"], &["pattern", "definition", "priority", "apply-to"]),
    kind("exchanges", "exchange", &["name"], &["type", "durable", "auto_delete", "internal", "arguments"]),
    kind("queues", "queue", &["name"], &["type", "durable", "auto_delete", "arguments"]),
    kind("bindings", "binding", &["source", "destination_type", "destination", "routing_key", "arguments"], &[]),
];

/// The field that stands for password, hash and algorithm, and what is shown of it.
const PASSWORD: &str = "password";
const HIDDEN: &str = "(hidden)";

/// What a broker begins with by itself.
pub(crate) struct Own {
    /// The cluster's name until it gets another.
    node: String,
    user: String,
    vhosts: Vec<String>,
}

impl Own {
    /// As the broker's configuration has it; as RabbitMQ's would where it does not tell.
    pub(crate) fn ask(call: &Call<'_>) -> Self {
        let environment = call.client.find("/api/warren/environment").ok().flatten().unwrap_or_default();
        let text = |key: &str| environment[key]["value"].as_str().map(unquoted);
        let user = text("defaults.user").unwrap_or_else(|| "guest".to_owned());
        let mut vhosts = vec![text("defaults.vhost").unwrap_or_else(|| "/".to_owned())];
        let more = environment["defaults.vhosts"]["value"].as_str().unwrap_or_default();
        vhosts.extend(serde_json::from_str::<Vec<String>>(more).unwrap_or_default());
        Self { node: call.node().to_owned(), user, vhosts }
    }

    /// Whether a broker has this without being told.
    fn has(&self, kind: &DefinitionKind, object: &Map<String, Value>, vhost: Option<&str>) -> bool {
        let field = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_own = |vhost: &str| self.vhosts.iter().any(|own| own == vhost);
        match kind.field {
            "vhosts" => is_own(field("name")),
            "users" => field("name") == self.user,
            "permissions" => {
                let everything = ["configure", "write", "read"].iter().all(|key| field(key) == ".*");
                field("user") == self.user && everything && vhost.is_some_and(is_own)
            }
            "global_parameters" => field("name") == "cluster_name" && field("value") == self.node,
            _ => false,
        }
    }
}

/// Values are told as TOML.
fn unquoted(text: &str) -> String {
    serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned())
}

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
pub(crate) struct Difference {
    pub(crate) mark: Mark,
    pub(crate) kind: &'static str,
    name: String,
    /// Path, value in the broker, value in the file.
    fields: Vec<(String, Value, Value)>,
}

impl Difference {
    fn line(&self) -> String {
        let (kind, name) = (self.kind, &self.name);
        match self.mark {
            Mark::Added => format!("+ {kind} {name}\n"),
            Mark::Removed => format!("- {kind} {name}\n"),
            Mark::Changed => {
                let fields = self.fields.iter().map(|(path, from, to)| match path.as_str() {
                    PASSWORD => PASSWORD.to_owned(),
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
    let changes = compare(&running, &file, vhost, &Own::ask(call));
    if call.formatter().is_for_programs() {
        call.print(&format!("{}\n", changes.iter().map(Difference::json).collect::<Value>()));
    } else {
        call.print(&changes.iter().map(Difference::line).collect::<String>());
    }
    if changes.is_empty() { Ok(()) } else { Err(CtlError::Silent { code: 1 }) }
}

/// What differs. Kinds that the file does not mention are left alone; `vhost` is that of objects that name none.
pub(crate) fn compare(running: &Value, file: &Value, vhost: Option<&str>, own: &Own) -> Vec<Difference> {
    let mut changes = Vec::new();
    for kind in KINDS.iter().filter(|kind| file[kind.field].is_array()) {
        let (ours, theirs) = (by_name(running, kind, vhost), by_name(file, kind, vhost));
        let change = |mark, name: &String, fields| Difference { mark, kind: kind.name, name: name.clone(), fields };
        for (name, wanted) in &theirs {
            let Some(existing) = ours.get(name) else {
                changes.push(change(Mark::Added, name, Vec::new()));
                continue;
            };
            let mut fields = Vec::new();
            if kind.field == "users" && !same_password(existing, wanted, hash_default(file)) {
                fields.push((PASSWORD.to_owned(), HIDDEN.into(), HIDDEN.into()));
            }
            for field in kind.fields {
                // What an import leaves as it is does not differ.
                if let Some(value) = wanted.get(*field) {
                    differ(field, existing.get(*field).unwrap_or(&Value::Null), value, &mut fields);
                }
            }
            if !fields.is_empty() {
                changes.push(change(Mark::Changed, name, fields));
            }
        }
        let only_ours = ours.iter().filter(|(name, object)| {
            let owner = object.get("vhost").and_then(Value::as_str).or(vhost);
            !theirs.contains_key(*name) && !own.has(kind, object, owner)
        });
        changes.extend(only_ours.map(|(name, _)| change(Mark::Removed, name, Vec::new())));
    }
    changes
}

/// What a hash without an algorithm was made with: MD5 in files of RabbitMQ before 3.6.
fn hash_default(file: &Value) -> &'static str {
    let version = file["rabbitmq_version"].as_str().or_else(|| file["rabbit_version"].as_str()).unwrap_or_default();
    let is_old = ["3.0.", "3.1.", "3.2.", "3.3.", "3.4.", "3.5."].iter().any(|old| version.starts_with(old));
    if is_old { MD5 } else { SHA256 }
}

const MD5: &str = "rabbit_password_hashing_md5";
const SHA256: &str = "rabbit_password_hashing_sha256";
const SHA512: &str = "rabbit_password_hashing_sha512";
/// Bytes before a hash.
const SALT: usize = 4;

/// Whether the user of the file has the password that the broker has, given as such or as a hash.
fn same_password(existing: &Map<String, Value>, wanted: &Map<String, Value>, default: &str) -> bool {
    let text = |object: &Map<String, Value>, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let decoded = |hash: Option<String>| STANDARD.decode(hash.unwrap_or_default()).unwrap_or_default();
    let hash = decoded(text(existing, "password_hash"));
    let algorithm = text(existing, "hashing_algorithm").unwrap_or_else(|| SHA256.to_owned());
    if let Some(password) = text(wanted, PASSWORD) {
        let Some((salt, digest)) = hash.split_at_checked(SALT) else { return false };
        return !password.is_empty() && digest == digest_of(&algorithm, salt, password.as_bytes());
    }
    let other = decoded(text(wanted, "password_hash"));
    let other_algorithm = text(wanted, "hashing_algorithm").unwrap_or_else(|| default.to_owned());
    hash == other && (hash.is_empty() || algorithm == other_algorithm)
}

fn digest_of(algorithm: &str, salt: &[u8], password: &[u8]) -> Vec<u8> {
    let salted = [salt, password].concat();
    match algorithm {
        MD5 => md5::Md5::digest(salted).to_vec(),
        SHA512 => sha2::Sha512::digest(salted).to_vec(),
        _ => sha2::Sha256::digest(salted).to_vec(),
    }
}

/// The definitions of a kind, normalised, by their names.
fn by_name(document: &Value, kind: &DefinitionKind, vhost: Option<&str>) -> BTreeMap<String, Map<String, Value>> {
    let items = document[kind.field].as_array().into_iter().flatten();
    let items = items.filter_map(|item| {
        let object = normalised(kind, item.as_object()?.clone())?;
        let owner = object.get("vhost").and_then(Value::as_str).or(vhost);
        let mut words: Vec<String> = kind.key.iter().filter_map(|key| word(object.get(*key)?)).collect();
        if kind.field == "bindings" {
            words = vec![binding_name(&object)];
        }
        let name = words.join(" ");
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

/// One spelling for what can be spelled in several ways, with the defaults that an import takes where nothing is said. None
/// for what means nothing.
fn normalised(kind: &DefinitionKind, mut object: Map<String, Value>) -> Option<Map<String, Value>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let defaults = match kind.field {
        "vhosts" => {
            normalise_vhost(&mut object);
            json!({})
        }
        "users" => {
            list_of_tags(&mut object);
            json!({})
        }
        // The broker's own, and what says nothing.
        "global_parameters" if text("name").starts_with("internal") => return None,
        "global_parameters" if text("name") == "cluster_tags" && object.get("value").is_none_or(is_nothing) => {
            return None;
        }
        // Limits that were cleared.
        "parameters" if text("component") == "vhost-limits" && object.get("value").is_none_or(is_nothing) => {
            return None;
        }
        "policies" => json!({"priority": 0, "apply-to": "all"}),
        "exchanges" => json!({
            "type": "direct", "durable": true, "auto_delete": false, "internal": false, "arguments": {},
        }),
        "queues" => {
            let arguments = object.get_mut("arguments").and_then(Value::as_object_mut);
            let by_argument = arguments.and_then(|arguments| arguments.remove("x-queue-type"));
            let kind = by_argument.or_else(|| object.get("type").cloned()).unwrap_or_else(|| json!("classic"));
            object.insert("type".to_owned(), kind);
            json!({"durable": true, "auto_delete": false, "arguments": {}})
        }
        "bindings" if text("source").is_empty() => return None,
        "bindings" => {
            let kind = if ["queue", "q"].contains(&text("destination_type").as_str()) { "queue" } else { "exchange" };
            object.insert("destination_type".to_owned(), kind.into());
            json!({})
        }
        _ => json!({}),
    };
    for (key, value) in defaults.as_object().into_iter().flatten() {
        object.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Some(object)
}

/// Metadata stand beside the name, or in a table of their own; what an import does not look at goes.
fn normalise_vhost(object: &mut Map<String, Value>) {
    if let Some(Value::Object(metadata)) = object.shift_remove("metadata") {
        for (key, value) in metadata {
            object.insert(key, value);
        }
    }
    list_of_tags(object);
    let kind = object.get("default_queue_type").and_then(Value::as_str);
    if kind.is_none_or(|kind| kind == "undefined") {
        object.shift_remove("default_queue_type");
    }
    if object.get("limits").is_none_or(is_nothing) {
        object.shift_remove("limits");
    }
}

fn list_of_tags(object: &mut Map<String, Value>) {
    if let Some(Value::String(tags)) = object.get("tags") {
        let tags: Value = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(Value::from).collect();
        object.insert("tags".to_owned(), tags);
    }
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

    fn own() -> Own {
        Own { node: "rabbit@here".to_owned(), user: "guest".to_owned(), vhosts: vec!["/".to_owned()] }
    }

    fn lines(running: &Value, file: &Value) -> String {
        compare(running, file, None, &own()).iter().map(Difference::line).collect()
    }

    #[test]
    fn differences_are_lines() {
        let running = json!({
            "queues": [{"vhost": "/", "name": "old", "durable": true, "arguments": {}, "type": "classic"}],
            "policies": [{"vhost": "orders", "name": "ttl", "pattern": "^q", "definition": {"max-length": 10, "ttl": 1}}],
            "users": [{"name": "a", "tags": ["administrator"], "password_hash": "b2xk"}],
        });
        let file = json!({
            "queues": [{"vhost": "orders", "name": "new", "durable": true, "arguments": {}}],
            "policies": [{"vhost": "orders", "name": "ttl", "pattern": "^q", "definition": {"max-length": 20}}],
            "users": [{"name": "a", "tags": "administrator", "password_hash": "bmV3"}],
        });
        let expected = "~ user a: password\n\
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
    #[test]
    fn a_password_and_its_hash_are_compared_and_never_shown() {
        // RabbitMQ's example: the salt 908DC60A, the password test12.
        let hash = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let running = json!({"users": [{"name": "a", "tags": [], "password_hash": hash, "hashing_algorithm": SHA256, "limits": {}}]});
        let equal = [
            json!({"name": "a", "tags": "", "password": "test12"}),
            json!({"name": "a", "tags": [], "password_hash": hash}),
            json!({"name": "a", "tags": [], "password_hash": hash, "hashing_algorithm": SHA256, "limits": []}),
        ];
        for user in equal {
            assert_eq!(lines(&running, &json!({"users": [user]})), "", "{user}");
        }
        let different = [
            json!({"name": "a", "tags": [], "password": "test13"}),
            json!({"name": "a", "tags": [], "password_hash": hash, "hashing_algorithm": SHA512}),
            json!({"name": "a", "tags": [], "password_hash": "AAAA"}),
            json!({"name": "a", "tags": []}),
        ];
        for user in different {
            let file = json!({"users": [user]});
            assert_eq!(lines(&running, &file), "~ user a: password\n", "{user}");
            let shown =
                compare(&running, &file, None, &own()).iter().map(Difference::json).collect::<Value>().to_string();
            assert!(!shown.contains("test13") && !shown.contains(hash) && !shown.contains("AAAA"), "{shown}");
        }
        let old = json!({"rabbit_version": "3.5.8", "users": [{"name": "a", "tags": [], "password_hash": hash}]});
        assert_eq!(lines(&running, &old), "~ user a: password\n", "that would be an MD5 hash");
    }

    #[test]
    fn defaults_are_no_differences() {
        let running = json!({
            "users": [{"name": "guest", "tags": ["administrator"], "password_hash": "AAAA"}],
            "vhosts": [{"name": "/", "limits": {}, "metadata": {"description": "Default virtual host", "tags": [], "default_queue_type": "classic"}},
                       {"name": "v", "limits": {"max-queues": 5}, "metadata": {"description": "", "tags": [], "default_queue_type": "classic"}}],
            "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
            "global_parameters": [{"name": "cluster_name", "value": "rabbit@here"}, {"name": "cluster_tags", "value": {}}],
            "parameters": [],
            "policies": [{"vhost": "v", "name": "p", "pattern": "^q", "apply-to": "all", "priority": 0, "definition": {"expires": 5}}],
            "queues": [{"vhost": "v", "name": "q", "type": "classic", "durable": true, "auto_delete": false, "arguments": {"x-queue-type": "classic"}}],
            "exchanges": [{"vhost": "v", "name": "x", "type": "fanout", "durable": true, "auto_delete": false, "arguments": {}}],
            "bindings": [{"vhost": "v", "source": "x", "destination_type": "queue", "destination": "q", "routing_key": "", "arguments": {}}],
        });
        let file = json!({
            "users": [], "permissions": [], "global_parameters": [{"name": "internal_cluster_id", "value": "abc"}],
            "vhosts": [{"name": "v", "metadata": {"default_queue_type": "undefined"}, "limits": [], "tracing": false}],
            "parameters": [{"vhost": "v", "component": "vhost-limits", "name": "limits", "value": []}],
            "policies": [{"vhost": "v", "name": "p", "pattern": "^q", "definition": {"expires": 5}}],
            "queues": [{"vhost": "v", "name": "q", "node": "rabbit@there"}],
            "exchanges": [{"vhost": "v", "name": "x", "type": "fanout", "arguments": [], "internal": false, "durable": true}],
            "bindings": [{"vhost": "v", "source": "x", "destination_type": "q", "destination": "q", "arguments": []},
                         {"vhost": "v", "source": "", "destination_type": "queue", "destination": "q", "routing_key": "q"}],
        });
        assert_eq!(lines(&running, &file), "");
        let otherwise = json!({
            "users": [{"name": "guest", "tags": "", "password_hash": "AAAA"}], "vhosts": [{"name": "v", "description": "d"}],
            "global_parameters": [{"name": "cluster_name", "value": "other"}],
        });
        let expected = "~ vhost v: description \"\" -> \"d\"\n~ user guest: tags [\"administrator\"] -> []\n\
                        ~ global parameter cluster_name: value \"rabbit@here\" -> \"other\"\n";
        assert_eq!(lines(&running, &otherwise), expected);
    }
}
