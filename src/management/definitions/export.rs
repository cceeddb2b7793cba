//! Export of definitions: everything but messages, as RabbitMQ writes it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::broker::VhostTopology;
use crate::broker::policy::PolicyKind;
use crate::model::entity::{Destination, Queue};
use crate::model::names::VhostName;
use crate::model::vhost::{Protection, VhostLimits};

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::endpoints::{bindings, parameters, permissions, policies, users, vhosts};
use super::super::fields::table_to_json;

pub(in crate::management) async fn export(call: Call) -> Result<Answer, Failure> {
    let mut map = head(&call, "cluster");
    let explanation = format!("Definitions of cluster '{}'", call.management.cluster_name());
    map.insert("explanation".into(), explanation.into());
    map.insert("original_cluster_name".into(), call.management.cluster_name().into());
    map.insert("users".into(), call.topology.users().into_iter().map(|user| users::render(user)).collect());
    let vhosts = call.topology.vhosts();
    let listed = vhosts.iter().map(|(name, vhost)| {
        let limits = limits_of(vhost).map_or_else(|| json!({}), |limits| (**limits).clone());
        let mut metadata = vhosts::metadata(&call, &vhost.metadata);
        if vhost.metadata.protection == Protection::FromDeletion {
            metadata["protected_from_deletion"] = true.into();
        }
        json!({"limits": limits, "metadata": metadata, "name": name.as_str()})
    });
    map.insert("vhosts".into(), listed.collect());
    map.insert("permissions".into(), permissions::all(&call, |_, _| true).into());
    map.insert("topic_permissions".into(), permissions::all_topics(&call, |_, _, _| true).into());
    let globals = parameters::globals(&call).into_iter();
    let globals = globals.filter(|global| global["name"].as_str().is_some_and(|name| !name.starts_with("internal")));
    map.insert("global_parameters".into(), globals.collect());
    put_contents(&call, &mut map, &vhosts);
    Ok(download(&call, map))
}

pub(in crate::management) async fn export_vhost(call: Call) -> Result<Answer, Failure> {
    let name = call.vhost_name(0);
    let Some(vhost) = call.topology.vhost(&name) else { return Err(Failure::bad_request("vhost_not_found")) };
    let mut map = head(&call, "single_virtual_host");
    map.insert("explanation".into(), format!("Definitions of virtual host '{name}'").into());
    map.insert("original_vhost_name".into(), name.as_str().into());
    let metadata = vhosts::metadata(&call, &vhost.metadata);
    map.insert("description".into(), metadata["description"].clone());
    map.insert("metadata".into(), metadata);
    map.insert("limits".into(), limits_of(vhost).map_or_else(|| json!({}), |limits| (**limits).clone()));
    put_contents(&call, &mut map, &[(&name, vhost)]);
    for list in map.values_mut().filter_map(Value::as_array_mut) {
        for item in list.iter_mut().filter_map(Value::as_object_mut) {
            item.shift_remove("vhost");
        }
    }
    Ok(download(&call, map))
}

fn head(call: &Call, format: &str) -> Map<String, Value> {
    let version = call.management.settings.version.as_str();
    let mut map = Map::new();
    for (key, value) in [
        ("rabbit_version", version),
        ("rabbitmq_version", version),
        ("product_name", call.management.settings.product.as_str()),
        ("product_version", version),
        ("rabbitmq_definition_format", format),
    ] {
        map.insert(key.to_owned(), value.into());
    }
    map
}

fn download(call: &Call, map: Map<String, Value>) -> Answer {
    let answer = Answer::json(Value::Object(map));
    match call.query.get("download") {
        None => answer,
        Some(name) => {
            let name: String = name.chars().filter(|c| !c.is_control() && *c != '"').collect();
            let value = format!("attachment; filename={name}");
            answer.header(axum::http::header::CONTENT_DISPOSITION, &value)
        }
    }
}

pub(super) fn limits_of(vhost: &VhostTopology) -> Option<&Arc<Value>> {
    vhost.parameters.get(&(VhostLimits::COMPONENT.into(), VhostLimits::NAME.into()))
}

fn put_contents(call: &Call, map: &mut Map<String, Value>, vhosts: &[(&VhostName, &Arc<VhostTopology>)]) {
    let mut lists: [Vec<Value>; 5] = Default::default();
    let [params, all_policies, all_queues, all_exchanges, all_bindings] = &mut lists;
    for (name, vhost) in vhosts {
        for ((component, parameter), value) in &vhost.parameters {
            if &**component != PolicyKind::Regular.component() {
                params.push(json!({
                    "component": &**component, "name": &**parameter, "value": **value, "vhost": name.as_str(),
                }));
            }
        }
        all_policies.extend(vhost.policies.of(PolicyKind::Regular).iter().map(|policy| policies::render(name, policy)));
        let mut own: Vec<&Arc<Queue>> = vhost.queues.values().filter(|queue| queue.exclusive.is_none()).collect();
        own.sort_by(|a, b| a.name.cmp(&b.name));
        all_queues.extend(own.into_iter().map(|queue| render_queue(name, queue)));
        let mut own: Vec<_> = vhost.exchanges.values().filter(|exchange| is_exported(exchange.name.as_str())).collect();
        own.sort_by(|a, b| a.name.cmp(&b.name));
        all_exchanges.extend(own.into_iter().map(|exchange| {
            let mut shown = json!({
                "name": exchange.name.as_str(), "vhost": name.as_str(), "type": exchange.kind.name(),
                "durable": exchange.durable, "auto_delete": exchange.auto_delete,
                "arguments": table_to_json(&exchange.arguments),
            });
            if let (true, Value::Object(shown)) = (exchange.internal, &mut shown) {
                // RabbitMQ leaves internal ones out, and their bindings in; it takes the key, though.
                shown.insert("internal".into(), true.into());
            }
            shown
        }));
        let is_kept = |destination: &Destination| match destination {
            Destination::Queue(queue) => vhost.queues.get(queue).is_some_and(|queue| queue.exclusive.is_none()),
            Destination::Exchange(_) => true,
        };
        for binding in call.management.broker.bindings_from(name, None) {
            if is_kept(&binding.destination) {
                let mut shown = bindings::render(name, &binding);
                if let Value::Object(shown) = &mut shown {
                    shown.shift_remove("properties_key");
                }
                all_bindings.push(shown);
            }
        }
    }
    let names = ["parameters", "policies", "queues", "exchanges", "bindings"];
    for (name, list) in names.into_iter().zip(lists) {
        map.insert(name.to_owned(), list.into());
    }
}

/// Those that every vhost has from the start are not exported.
pub(super) fn is_exported(exchange: &str) -> bool {
    !exchange.is_empty() && !exchange.starts_with("amq.")
}

fn render_queue(vhost: &VhostName, queue: &Queue) -> Value {
    let mut arguments = table_to_json(&queue.arguments);
    if let Value::Object(arguments) = &mut arguments {
        arguments.entry("x-queue-type").or_insert_with(|| queue.queue_type().name().into());
    }
    json!({
        "name": queue.name.as_str(), "vhost": vhost.as_str(), "type": queue.queue_type().name(),
        "durable": queue.durable, "auto_delete": queue.auto_delete, "arguments": arguments,
    })
}
