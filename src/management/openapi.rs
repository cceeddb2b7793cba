//! The API's description in the form of OpenAPI, made of the table of routes.

use serde_json::{Map, Value, json};

use super::identity::Guard;
use super::routes::{Endpoint, ROUTES, Route};

/// Parameters that lists take.
const LIST_PARAMETERS: [(&str, &str); 8] = [
    ("page", "The page, from 1; without it all items come as a plain array"),
    ("page_size", "Items on a page, 1 to 500"),
    ("name", "A part of the name; acts with `page` only"),
    ("use_regex", "`true`: the name is a regular expression"),
    ("sort", "A dotted path to sort by"),
    ("sort_reverse", "`true`: the other way round"),
    ("columns", "Dotted paths, with commas"),
    ("disable_stats", "`true`: without statistics"),
];

/// The whole document.
pub(super) fn document(version: &str) -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let mut operations = Map::new();
        for endpoint in route.endpoints {
            operations.insert(endpoint.method.to_ascii_lowercase(), operation(route, endpoint));
        }
        let names = placeholders(route.path);
        let parameters: Vec<Value> = names
            .iter()
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        if !parameters.is_empty() {
            operations.insert("parameters".into(), parameters.into());
        }
        paths.insert(route.path.to_owned(), Value::Object(operations));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Warren Management HTTP API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!("Compatible with the management API of RabbitMQ {version}."),
            "license": {"name": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}, "reason": {}},
                    "required": ["error", "reason"],
                },
            },
        },
    })
}

fn placeholders(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect()
}

fn operation(route: &Route, endpoint: &Endpoint) -> Value {
    let mut operation = Map::new();
    operation.insert("summary".into(), endpoint.summary.into());
    operation.insert("operationId".into(), format!("{} {}", endpoint.method, route.path).into());
    operation.insert("description".into(), who(endpoint.guard).into());
    let security = if endpoint.guard == Guard::Nobody { json!([]) } else { json!([{"basic": []}]) };
    operation.insert("security".into(), security);
    if endpoint.method == "GET" && route.path.starts_with("/api/") {
        let parameters = LIST_PARAMETERS.iter().map(|(name, description)| {
            json!({"name": name, "in": "query", "description": description, "schema": {"type": "string"}})
        });
        operation.insert("parameters".into(), parameters.collect());
    }
    if matches!(endpoint.method, "PUT" | "POST") {
        let content = if route.path == "/api/login" {
            json!({"application/x-www-form-urlencoded": {"schema": {"type": "object"}}})
        } else {
            json!({"application/json": {"schema": {"type": "object"}}})
        };
        operation.insert("requestBody".into(), json!({"required": false, "content": content}));
    }
    operation.insert("responses".into(), responses(route, endpoint));
    Value::Object(operation)
}

fn who(guard: Guard) -> &'static str {
    match guard {
        Guard::Nobody => "Needs no login.",
        Guard::Management => "For users with any management tag.",
        Guard::Vhost(_) => "For users with any management tag and permissions in the vhost.",
        Guard::VisibleVhost(_) => "As for the vhost; who may monitor sees every vhost.",
        Guard::Monitoring => "For users tagged monitoring or administrator.",
        Guard::Policymaker(_) => "For users tagged policymaker or administrator, with permissions in the vhost.",
        Guard::Administrator => "For administrators.",
        Guard::Oneself(_) => "For the user itself, and for users tagged monitoring or administrator.",
    }
}

fn responses(route: &Route, endpoint: &Endpoint) -> Value {
    let json_body = |schema: Value| json!({"application/json": {"schema": schema}});
    let error = json_body(json!({"$ref": "#/components/schemas/Error"}));
    let mut responses = Map::new();
    let mut put = |status: &str, description: &str, content: Option<Value>| {
        let mut response = Map::new();
        response.insert("description".into(), description.into());
        if let Some(content) = content {
            response.insert("content".into(), content);
        }
        responses.insert(status.to_owned(), Value::Object(response));
    };
    match (endpoint.method, route.path) {
        ("GET", "/api" | "/mgmt") => put("301", "Elsewhere", None),
        ("GET", "/" | "/api/index.html" | "/cli" | "/cli/index.html") => {
            put("200", "A page", Some(json!({"text/html": {}})))
        }
        ("GET", "/cli/rabbitmqadmin") => put("200", "A program", Some(json!({"application/octet-stream": {}}))),
        ("GET", "/metrics" | "/metrics/{kind}") => put("200", "Metrics", Some(json!({"text/plain": {}}))),
        ("GET", _) => put("200", "What was asked for", Some(json_body(json!({})))),
        ("PUT", _) => {
            put("201", "It is new", None);
            put("204", "It was there", None);
        }
        ("POST", _) => {
            put("200", "Done, with an answer", Some(json_body(json!({}))));
            put("201", "It is new", None);
            put("204", "Done", None);
            put("303", "Done; a page to go on", None);
        }
        _ => {
            put("200", "Done, with an answer", Some(json_body(json!({}))));
            put("204", "Done", None);
        }
    }
    put("400", "The request is refused", Some(error.clone()));
    // Without a body when there is no login, which a description with one would forbid.
    put("401", "No login, then without a body; or not allowed, with an error as JSON", None);
    // Metrics speak to machines that read lines.
    let absent = if route.path.starts_with("/metrics") { json!({"text/plain": {}}) } else { error.clone() };
    put("404", "There is no such thing", Some(absent));
    put("405", "The address does not know the method", None);
    put("406", "Nothing that the caller takes", None);
    put("412", "Protected from deletion", Some(error));
    put("415", "A form, where definitions are imported", None);
    put("503", "The broker cannot answer truthfully now, or a check failed", Some(json_body(json!({}))));
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let document = document("4.3.6");
        let operations =
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let ids: Vec<&str> = operations.filter_map(|operation| operation["operationId"].as_str()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        assert!(ids.len() > 150);
        let queue = &document["paths"]["/api/queues/{vhost}/{queue}"];
        assert_eq!(queue["parameters"][1]["name"], "queue");
        assert_eq!(queue["put"]["responses"]["201"]["description"], "It is new");
    }
}
