//! What is wrong with a document, in plain words: RabbitMQ's reasons name neither the object nor what was wrong in it.

use serde_json::{Map, Value};

use super::item::shown;

/// The object at a place of a list, as reports name it, and what is wrong with it.
pub(super) fn explained(document: &Map<String, Value>, kind: &str, at: usize, reason: &Value) -> String {
    let object = document.get(kind).and_then(|list| list.get(at)).and_then(Value::as_object);
    let name = object.and_then(|object| name(kind, object));
    format!("{}: {}", name.unwrap_or_else(|| format!("entry {} of {kind}", at + 1)), plain(reason))
}

/// None where it has no name.
fn name(kind: &str, object: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(shown);
    let name = match kind {
        "permissions" => format!("permission of user '{}'", text("user")?),
        "topic_permissions" => format!("topic permission of user '{}'", text("user")?),
        "bindings" => format!("binding from exchange '{}' to '{}'", text("source")?, text("destination")?),
        "parameters" => format!("parameter '{}' of component '{}'", text("name")?, text("component")?),
        "vhosts" => format!("vhost '{}'", text("name")?),
        "users" => format!("user '{}'", text("name")?),
        "global_parameters" => format!("global parameter '{}'", text("name")?),
        "policies" => format!("policy '{}'", text("name")?),
        "exchanges" => format!("exchange '{}'", text("name")?),
        _ => format!("queue '{}'", text("name")?),
    };
    Some(text("vhost").map_or_else(|| name.clone(), |vhost| format!("{name} in vhost '{vhost}'")))
}

fn plain(reason: &Value) -> String {
    match reason {
        Value::String(text) if text.starts_with("{no_such_user,") => "there is no such user".to_owned(),
        Value::String(text) if text.starts_with("[{key_missing,") => {
            let keys = text.split("{key_missing,").skip(1).filter_map(|rest| rest.split('}').next());
            format!("it has no {}", keys.map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", no "))
        }
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(term) => of_term(term).unwrap_or_else(|| reason.to_string()),
        _ => reason.to_string(),
    }
}

/// RabbitMQ's tuples.
fn of_term(term: &[Value]) -> Option<String> {
    let value = term.get(1)?;
    match term.first()?.as_str()? {
        "not_boolean" => Some(format!("{value} is neither true nor false")),
        "not_base64" => Some(format!("{value} is no password hash in base64")),
        "invalid_regexp" => {
            let why = term.get(2).and_then(|fault| fault.get(0)).and_then(Value::as_str).unwrap_or_default();
            Some(format!("{value} is no regular expression: {why}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reasons_name_the_object() {
        let document =
            json!({"permissions": [{"user": "ghost", "vhost": "/"}], "users": [{"name": "u"}], "queues": [{}]});
        let explain = |kind, reason| document.as_object().map(|document| explained(document, kind, 0, &reason));
        for (kind, reason, expected) in [
            (
                "permissions",
                json!("{no_such_user,<<\"ghost\">>}"),
                "permission of user 'ghost' in vhost '/': there is no such user",
            ),
            (
                "permissions",
                json!(["invalid_regexp", "(", ["missing )", 1]]),
                "permission of user 'ghost' in vhost '/': \"(\" is no regular expression: missing )",
            ),
            ("users", json!(["not_base64", "!!"]), "user 'u': \"!!\" is no password hash in base64"),
            ("users", json!("tags have to be texts"), "user 'u': tags have to be texts"),
            ("queues", json!(["not_boolean", "yes"]), "entry 1 of queues: \"yes\" is neither true nor false"),
            ("queues", json!("[{key_missing,name}]"), "entry 1 of queues: it has no 'name'"),
        ] {
            assert_eq!(explain(kind, reason).as_deref(), Some(expected));
        }
    }
}
