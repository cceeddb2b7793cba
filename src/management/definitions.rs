//! Export and import of definitions: everything but messages, as RabbitMQ writes it.
//!
//! An import is checked as a whole before anything of it is applied. What another broker could do and this one cannot
//! (plugins' parameters, mirroring, types of queues and exchanges) is left out and told one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::broker::policy::{Policy, PolicyKind, is_policy_key};
use crate::broker::{HashAlgorithm, Permission, TopicPermission, VhostTopology};
use crate::model::entity::{ArgumentError, Destination, ExchangeKind, Queue, QueueType, check_queue_arguments};
use crate::model::names::{ExchangeName, QueueName, RoutingKey, UserName, VhostName};
use crate::model::request::{Ask, BindingRequest, DeclareExchange, DeclareQueue};
use crate::model::vhost::{Protection, VhostLimits, VhostMetadata};

use super::Management;
use super::answer::{Answer, Failure};
use super::call::{Call, Query, map_of};
use super::endpoints::users::Wanted;
use super::endpoints::{bindings, exchanges, limits, parameters, permissions, policies, queues, users, vhosts};
use super::fields::json_to_table;
use super::identity::Identity;
use super::operation::Operation;
use super::passwords::PasswordRules;

pub(super) async fn export(call: Call) -> Result<Answer, Failure> {
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

pub(super) async fn export_vhost(call: Call) -> Result<Answer, Failure> {
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

fn limits_of(vhost: &VhostTopology) -> Option<&Arc<Value>> {
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
                "arguments": super::fields::table_to_json(&exchange.arguments),
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
fn is_exported(exchange: &str) -> bool {
    !exchange.is_empty() && !exchange.starts_with("amq.")
}

fn render_queue(vhost: &VhostName, queue: &Queue) -> Value {
    let mut arguments = super::fields::table_to_json(&queue.arguments);
    if let Value::Object(arguments) = &mut arguments {
        arguments.entry("x-queue-type").or_insert_with(|| queue.queue_type().name().into());
    }
    json!({
        "name": queue.name.as_str(), "vhost": vhost.as_str(), "type": queue.queue_type().name(),
        "durable": queue.durable, "auto_delete": queue.auto_delete, "arguments": arguments,
    })
}

/// Imports definitions for the broker itself; what was left out, and why. The error is for whoever starts the broker.
pub async fn import_text(management: &Arc<Management>, text: &[u8]) -> Result<Vec<String>, String> {
    let document = match serde_json::from_slice(text) {
        Ok(Value::Object(document)) => document,
        Ok(_) => return Err("it is not a JSON object".to_owned()),
        Err(error) => return Err(format!("it is not JSON: {error}")),
    };
    let call = Call {
        management: Arc::clone(management),
        identity: Identity::LocalAdministrator,
        peer: None,
        names: Vec::new(),
        query: Query::default(),
        headers: axum::http::HeaderMap::new(),
        body: axum::body::Bytes::new(),
        topology: management.broker.topology(),
    };
    let plan = Plan::make(&call, &document, None).map_err(|failure| failure.reason())?;
    let left_out = plan.left_out.clone();
    plan.carry_out(&call).await.map_err(|failure| failure.reason())?;
    Ok(left_out)
}

pub(super) async fn import(call: Call) -> Result<Answer, Failure> {
    let document = read_document(&call)?;
    finish(&call, document, None).await
}

pub(super) async fn import_vhost(call: Call) -> Result<Answer, Failure> {
    let name = call.vhost_name(0);
    if call.topology.vhost(&name).is_none() {
        return Err(Failure::missing("vhost_not_found"));
    }
    let document = read_document(&call)?;
    finish(&call, document, Some(name)).await
}

async fn finish(call: &Call, document: Map<String, Value>, vhost: Option<VhostName>) -> Result<Answer, Failure> {
    let plan = Plan::make(call, &document, vhost.as_ref())?;
    let left_out = plan.left_out.clone();
    plan.carry_out(call).await?;
    for note in &left_out {
        tracing::warn!("import of definitions: {note}");
    }
    if call.query.is_true("report") {
        return Ok(Answer::json(json!({"left_out": left_out})));
    }
    Ok(Answer::done())
}

fn boundary(call: &Call) -> Option<String> {
    let kind = call.headers.get(axum::http::header::CONTENT_TYPE)?.to_str().ok()?;
    let rest = kind.strip_prefix("multipart/form-data")?;
    let boundary = rest.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"').to_owned())
}

/// The body, or the field `file` of a form.
fn read_document(call: &Call) -> Result<Map<String, Value>, Failure> {
    let body = match boundary(call) {
        None => call.body.to_vec(),
        Some(boundary) => form_field(&call.body, &boundary, "file").unwrap_or_default(),
    };
    match serde_json::from_slice(&body) {
        Ok(Value::Object(document)) => Ok(document),
        _ => Err(Failure::bad_request("failed_to_parse_json")),
    }
}

/// The content of a field of `multipart/form-data`.
fn form_field(body: &[u8], boundary: &str, name: &str) -> Option<Vec<u8>> {
    let delimiter = format!("--{boundary}");
    let mut rest = body;
    while let Some(at) = find(rest, delimiter.as_bytes()) {
        let part = rest.get(at + delimiter.len()..)?;
        let end = find(part, format!("\r\n{delimiter}").as_bytes()).unwrap_or(part.len());
        let (headers, content) = part.split_at(find(part, b"\r\n\r\n")?);
        let headers = String::from_utf8_lossy(headers);
        if headers.contains(&format!("name=\"{name}\"")) {
            return content.get(4..end.checked_sub(headers.len())?).map(<[u8]>::to_vec);
        }
        rest = part.get(end..)?;
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// An import that was checked, and how it is carried out.
#[derive(Default)]
struct Plan {
    vhosts: Vec<(VhostName, VhostMetadata, Option<Value>)>,
    users: Vec<(UserName, Wanted)>,
    permissions: Vec<(UserName, VhostName, Permission)>,
    topic_permissions: Vec<(UserName, VhostName, ExchangeName, TopicPermission)>,
    globals: Vec<(String, Value)>,
    parameters: Vec<(VhostName, String, String, Value)>,
    policies: Vec<(VhostName, PolicyKind, Policy)>,
    exchanges: Vec<(VhostName, DeclareExchange)>,
    queues: Vec<(VhostName, DeclareQueue)>,
    bindings: Vec<(VhostName, BindingRequest)>,
    /// What is not imported, and why.
    left_out: Vec<String>,
}

/// Keys of policies that RabbitMQ has, or had, and that mean nothing here.
fn is_foreign_key(key: &str) -> bool {
    key.starts_with("ha-") || key.starts_with("federation-") || key == "queue-master-locator"
}

impl Plan {
    fn make(call: &Call, document: &Map<String, Value>, only: Option<&VhostName>) -> Result<Self, Failure> {
        let mut plan = Self::default();
        if only.is_none() {
            plan.read_vhosts(call, document)?;
            plan.read_users(document, &call.management.settings.passwords)?;
        }
        let known: BTreeSet<VhostName> = plan.vhosts.iter().map(|(name, ..)| name.clone()).collect();
        let scope = Scope { call, only, known };
        plan.read_permissions(document, &scope)?;
        plan.read_exchanges(document, &scope)?;
        plan.read_queues(document, &scope)?;
        plan.read_bindings(document, &scope)?;
        plan.read_policies(document, &scope)?;
        plan.read_parameters(document, &scope)?;
        if only.is_none() {
            for global in objects(document, "global_parameters")? {
                let name = text(global, "name")?;
                if !name.starts_with("internal") {
                    plan.globals.push((name.to_owned(), global.get("value").cloned().unwrap_or_default()));
                }
            }
        }
        plan.check_users(call)?;
        plan.check_queue_limits(call)?;
        plan.leave_out_loose_ends(call);
        Ok(plan)
    }

    /// Permissions are for users that there are, or are going to be.
    fn check_users(&self, call: &Call) -> Result<(), Failure> {
        let imported: BTreeSet<&UserName> = self.users.iter().map(|(name, _)| name).collect();
        let named = self.permissions.iter().map(|(user, ..)| user);
        let named = named.chain(self.topic_permissions.iter().map(|(user, ..)| user));
        for user in named {
            if !imported.contains(user) && call.topology.user(user).is_none() {
                return Err(Failure::bad_request(format!("{{no_such_user,<<\"{user}\">>}}")));
            }
        }
        Ok(())
    }

    /// Leaves out what hangs on something that was left out, or that the other broker had and did not export: RabbitMQ
    /// exports bindings of internal exchanges, but not the exchanges.
    fn leave_out_loose_ends(&mut self, call: &Call) {
        let exchanges: BTreeSet<(&VhostName, &ExchangeName)> =
            self.exchanges.iter().map(|(vhost, declare)| (vhost, &declare.exchange)).collect();
        let queues: BTreeSet<(&VhostName, &QueueName)> =
            self.queues.iter().map(|(vhost, declare)| (vhost, &declare.queue)).collect();
        let there = |vhost: &VhostName| call.topology.vhost(vhost);
        // Every vhost has those from the start, also one that is only being imported.
        let has_exchange = |vhost: &VhostName, name: &ExchangeName| {
            exchanges.contains(&(vhost, name))
                || !is_exported(name.as_str())
                || there(vhost).is_some_and(|found| found.exchanges.contains_key(name))
        };
        let has_queue = |vhost: &VhostName, name: &QueueName| {
            queues.contains(&(vhost, name)) || there(vhost).is_some_and(|found| found.queues.contains_key(name))
        };
        let left_out = &mut self.left_out;
        self.bindings.retain(|(vhost, request)| {
            let ends = has_exchange(vhost, &request.source)
                && match &request.destination {
                    Destination::Queue(queue) => has_queue(vhost, queue),
                    Destination::Exchange(exchange) => has_exchange(vhost, exchange),
                };
            if !ends {
                let (source, (kind, name)) = (&request.source, end_of(&request.destination));
                left_out.push(format!(
                    "binding from '{source}' to {kind} '{name}' in vhost '{vhost}': one of them is not there"
                ));
            }
            ends
        });
        self.topic_permissions.retain(|(user, vhost, exchange, _)| {
            let is_there = has_exchange(vhost, exchange);
            if !is_there {
                left_out.push(format!(
                    "topic permission of user '{user}' in vhost '{vhost}': there is no exchange '{exchange}'"
                ));
            }
            is_there
        });
    }

    /// A vhost may not get more queues than it may have: by the limit that is imported, or else by the one it has.
    fn check_queue_limits(&self, call: &Call) -> Result<(), Failure> {
        let mut added: BTreeMap<&VhostName, BTreeSet<&QueueName>> = BTreeMap::new();
        for (vhost, declare) in &self.queues {
            let exists = call.topology.vhost(vhost).is_some_and(|found| found.queues.contains_key(&declare.queue));
            if !exists {
                added.entry(vhost).or_default().insert(&declare.queue);
            }
        }
        for (vhost, queues) in added {
            let there = call.topology.vhost(vhost);
            let own = there.and_then(|found| limits_of(found)).map(|limits| &**limits);
            let of_vhost =
                self.vhosts.iter().find(|(name, ..)| name == vhost).and_then(|(_, _, limits)| limits.as_ref());
            let parameter = self
                .parameters
                .iter()
                .find(|(name, component, ..)| name == vhost && component == VhostLimits::COMPONENT);
            let limits = parameter.map(|(_, _, _, value)| value).or(of_vhost).or(own);
            let Some(limit) = limits.and_then(|limits| limits.get("max-queues")).and_then(Value::as_u64) else {
                continue;
            };
            let current = there.map_or(0, |found| found.queues.size());
            if (current + queues.len()) as u64 > limit {
                return Err(Failure::bad_request(format!(
                    "Adding {} queue(s) to virtual host \"{vhost}\" would exceed the limit of {limit} queue(s).\n\nThis \
                     virtual host currently has {current} queue(s) defined.\n\nImport aborted!",
                    queues.len(),
                )));
            }
        }
        Ok(())
    }

    fn read_vhosts(&mut self, call: &Call, document: &Map<String, Value>) -> Result<(), Failure> {
        for vhost in objects(document, "vhosts")? {
            let mut described = map_of(vhost.get("metadata"));
            for key in ["description", "tags", "default_queue_type", "protected_from_deletion"] {
                if let Some(value) = vhost.get(key) {
                    described.entry(key.to_owned()).or_insert_with(|| value.clone());
                }
            }
            let current = call.topology.vhost(&VhostName::new(text(vhost, "name")?));
            let current = current.map(|vhost| (*vhost.metadata).clone()).unwrap_or_default();
            let metadata = vhosts::read_metadata(&described, current)?;
            let limits = map_of(vhost.get("limits"));
            let limits = (!limits.is_empty()).then_some(Value::Object(limits));
            limits.as_ref().map(limits::check_vhost_limits).transpose()?;
            self.vhosts.push((VhostName::new(text(vhost, "name")?), metadata, limits));
        }
        Ok(())
    }

    fn read_users(&mut self, document: &Map<String, Value>, rules: &PasswordRules) -> Result<(), Failure> {
        let version = document.get("rabbitmq_version").or_else(|| document.get("rabbit_version"));
        let is_old = version.and_then(Value::as_str).is_some_and(|version| {
            ["3.0.", "3.1.", "3.2.", "3.3.", "3.4.", "3.5."].iter().any(|old| version.starts_with(old))
        });
        let default = if is_old { HashAlgorithm::Md5 } else { HashAlgorithm::Sha256 };
        for user in objects(document, "users")? {
            self.users.push((UserName::new(text(user, "name")?), Wanted::read(user, default, rules)?));
        }
        Ok(())
    }

    fn read_permissions(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        if scope.only.is_some() {
            return Ok(());
        }
        for permission in objects(document, "permissions")? {
            let user = UserName::new(text(permission, "user")?);
            self.permissions.push((user, scope.vhost(permission)?, permissions::read(permission)?));
        }
        for permission in objects(document, "topic_permissions")? {
            let (exchange, patterns) = permissions::read_topic(permission)?;
            let user = UserName::new(text(permission, "user")?);
            self.topic_permissions.push((user, scope.vhost(permission)?, exchange, patterns));
        }
        Ok(())
    }

    fn read_exchanges(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for exchange in objects(document, "exchanges")? {
            let (vhost, name) = (scope.vhost(exchange)?, text(exchange, "name")?);
            if !is_exported(name) {
                self.left_out.push(format!("exchange '{name}' in vhost '{vhost}': the name is reserved"));
                continue;
            }
            let declare = exchanges::read_declaration(exchange, ExchangeName::new(name))?;
            if ExchangeKind::from_name(&declare.kind).is_none() {
                let note =
                    format!("exchange '{name}' in vhost '{vhost}': its type '{}' is not known here", declare.kind);
                self.left_out.push(note);
                continue;
            }
            self.exchanges.push((vhost, declare));
        }
        Ok(())
    }

    fn read_queues(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for queue in objects(document, "queues")? {
            let (vhost, name) = (scope.vhost(queue)?, text(queue, "name")?);
            if name.starts_with("amq.") {
                self.left_out.push(format!("queue '{name}' in vhost '{vhost}': the name is reserved"));
                continue;
            }
            let mut declare = queues::read_declaration(queue, QueueName::new(name))?;
            // Of queues whose type stands beside the arguments only.
            let kind = queue.get("type").and_then(Value::as_str).filter(|kind| *kind != "classic");
            if let Some(kind) = kind.filter(|_| declare.arguments.find("x-queue-type").is_none()) {
                declare.arguments.push("x-queue-type", crate::model::table::FieldValue::string(kind));
            }
            let kind = declare.arguments.find("x-queue-type").and_then(|kind| kind.as_str()).unwrap_or("classic");
            if QueueType::from_name(kind) != Some(QueueType::Classic) {
                self.left_out
                    .push(format!("queue '{name}' in vhost '{vhost}': queues of type '{kind}' are not available"));
                continue;
            }
            check_queue_arguments(QueueType::Classic, &declare.arguments).map_err(|error| {
                Failure::bad_request(match error {
                    ArgumentError::Invalid { name: argument, reason } => {
                        format!("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}': {reason}")
                    }
                    ArgumentError::WrongType { name: argument, .. } => {
                        format!("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}'")
                    }
                })
            })?;
            self.queues.push((vhost, declare));
        }
        Ok(())
    }

    fn read_bindings(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for binding in objects(document, "bindings")? {
            let vhost = scope.vhost(binding)?;
            let (source, to) = (text(binding, "source")?, text(binding, "destination")?);
            if source.is_empty() {
                continue;
            }
            let destination = match text(binding, "destination_type")? {
                "queue" | "q" => Destination::Queue(QueueName::new(to)),
                _ => Destination::Exchange(ExchangeName::new(to)),
            };
            let key = binding.get("routing_key").and_then(Value::as_str).unwrap_or_default();
            exchanges::check_name("routing_key", key)?;
            let request = BindingRequest {
                source: ExchangeName::new(source),
                destination,
                key: RoutingKey::new(key.as_bytes()),
                arguments: json_to_table(&map_of(binding.get("arguments")))?,
            };
            self.bindings.push((vhost, request));
        }
        Ok(())
    }

    fn read_policies(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for policy in objects(document, "policies")? {
            let (vhost, name) = (scope.vhost(policy)?, text(policy, "name")?);
            self.read_policy(&vhost, PolicyKind::Regular, name, policy)?;
        }
        Ok(())
    }

    fn read_policy(
        &mut self,
        vhost: &VhostName,
        kind: PolicyKind,
        name: &str,
        policy: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let mut policy = policy.clone();
        let mut definition = map_of(policy.get("definition"));
        let foreign: Vec<String> =
            definition.keys().filter(|key| is_foreign_key(key) && !is_policy_key(kind, key)).cloned().collect();
        for key in foreign {
            definition.shift_remove(&key);
            self.left_out.push(format!("policy '{name}' in vhost '{vhost}': '{key}' means nothing here"));
        }
        if definition.is_empty() && !map_of(policy.get("definition")).is_empty() {
            self.left_out.push(format!("policy '{name}' in vhost '{vhost}': nothing of it is left"));
            return Ok(());
        }
        policy.insert("definition".into(), Value::Object(definition));
        let parsed = Policy::parse(kind, name, &Value::Object(policy)).map_err(|reason| {
            let place = format!("(vhost: \"{vhost}\" key: \"{name}\")");
            Failure::bad_request(format!("Validation failed\n\n{reason}\n {place}"))
        })?;
        self.policies.push((vhost.clone(), kind, parsed));
        Ok(())
    }

    fn read_parameters(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for parameter in objects(document, "parameters")? {
            let vhost = scope.vhost(parameter)?;
            let (component, name) = (text(parameter, "component")?, text(parameter, "name")?);
            let value = parameter.get("value").cloned().unwrap_or_default();
            if component == PolicyKind::Operator.component() {
                self.read_policy(&vhost, PolicyKind::Operator, name, &map_of(Some(&value)))?;
            } else if component == VhostLimits::COMPONENT {
                parameters::check(component, name, &value)?;
                self.parameters.push((vhost, component.to_owned(), name.to_owned(), value));
            } else {
                let note =
                    format!("parameter '{name}' in vhost '{vhost}': the component '{component}' is not known here");
                self.left_out.push(note);
            }
        }
        Ok(())
    }

    /// Applies everything, in RabbitMQ's order. What exists is kept as it is, as far as it is topology.
    async fn carry_out(self, call: &Call) -> Result<(), Failure> {
        let broker = &call.management.broker;
        for (name, wanted) in self.users {
            let salt = call.management.node.salt();
            broker.put_user(&name, |current| wanted.over(&name, current, salt));
        }
        for (name, metadata, limits) in self.vhosts {
            vhosts::put_vhost(call, &name, metadata);
            if let Some(limits) = limits {
                let _ = broker.set_parameter(Some(&name), VhostLimits::COMPONENT, VhostLimits::NAME, limits);
            }
        }
        for (user, vhost, permission) in self.permissions {
            broker.set_permission(&user, &vhost, Some(permission)).map_err(|error| {
                Failure::bad_request(format!("permission of user '{user}' in vhost '{vhost}': {error}"))
            })?;
        }
        for (name, value) in self.globals {
            let _ = broker.set_parameter(None, "", &name, value);
        }
        for (vhost, kind, policy) in self.policies {
            let _ = broker.set_policy(&vhost, kind, &policy);
        }
        for (vhost, component, name, value) in self.parameters {
            let _ = broker.set_parameter(Some(&vhost), &component, &name, value);
        }
        declare(call, self.exchanges, Ask::DeclareExchange, is_there_exchange).await?;
        for (user, vhost, exchange, permission) in self.topic_permissions {
            if let Err(error) = broker.set_topic_permission(&user, &vhost, &exchange, Some(permission)) {
                tracing::warn!("import of definitions: topic permission of user '{user}' for '{exchange}': {error}");
            }
        }
        declare(call, self.queues, Ask::DeclareQueue, is_there_queue).await?;
        declare(call, self.bindings, Ask::Bind, |vhost, request| !has_ends(vhost, request)).await?;
        broker.settled().await;
        Ok(())
    }
}

fn end_of(destination: &Destination) -> (&'static str, &str) {
    match destination {
        Destination::Queue(queue) => ("queue", queue.as_str()),
        Destination::Exchange(exchange) => ("exchange", exchange.as_str()),
    }
}

fn is_there_exchange(vhost: &VhostTopology, declare: &DeclareExchange) -> bool {
    vhost.exchanges.contains_key(&declare.exchange)
}

fn is_there_queue(vhost: &VhostTopology, declare: &DeclareQueue) -> bool {
    vhost.queues.contains_key(&declare.queue)
}

/// Whether both ends of a binding are there; one may have been left out.
fn has_ends(vhost: &VhostTopology, request: &BindingRequest) -> bool {
    vhost.exchanges.contains_key(&request.source)
        && match &request.destination {
            Destination::Queue(queue) => vhost.queues.contains_key(queue),
            Destination::Exchange(exchange) => vhost.exchanges.contains_key(exchange),
        }
}

/// Asks for a list of things, but for those that `skip` says need not be asked for.
async fn declare<T>(
    call: &Call,
    items: Vec<(VhostName, T)>,
    ask: impl Fn(T) -> Ask,
    skip: impl Fn(&VhostTopology, &T) -> bool,
) -> Result<(), Failure> {
    let mut current: Option<(VhostName, Operation)> = None;
    for (vhost, item) in items {
        let topology = call.management.broker.topology();
        let Some(found) = topology.vhost(&vhost) else { continue };
        if skip(found, &item) {
            continue;
        }
        if current.as_ref().is_none_or(|(name, _)| *name != vhost) {
            let identity = Identity::LocalAdministrator;
            let operation = Operation::begin(&call.management.broker, &identity, &vhost, call.management.now())
                .map_err(|exception| Failure::of_broker(&exception))?;
            current = Some((vhost.clone(), operation));
        }
        if let Some((_, operation)) = &mut current {
            let outcome = operation.ask(ask(item)).await;
            if outcome.is_err() {
                // A session that was refused something does nothing more.
                current = None;
            }
            outcome_of(outcome)?;
        }
    }
    Ok(())
}

fn outcome_of<T>(outcome: Result<T, crate::model::exception::Exception>) -> Result<(), Failure> {
    outcome.map(|_| ()).map_err(|exception| Failure::bad_request(exception.text))
}

/// Which vhosts an import may speak of.
struct Scope<'a> {
    call: &'a Call,
    only: Option<&'a VhostName>,
    known: BTreeSet<VhostName>,
}

impl Scope<'_> {
    fn vhost(&self, object: &Map<String, Value>) -> Result<VhostName, Failure> {
        if let Some(only) = self.only {
            return Ok(only.clone());
        }
        let name = VhostName::new(text(object, "vhost")?);
        if self.known.contains(&name) || self.call.topology.vhost(&name).is_some() {
            return Ok(name);
        }
        Err(Failure::bad_request(format!("Please create virtual host \"{name}\" prior to importing definitions.")))
    }
}

fn objects<'a>(document: &'a Map<String, Value>, key: &str) -> Result<Vec<&'a Map<String, Value>>, Failure> {
    match document.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            let objects = list.iter().map(|item| {
                item.as_object().ok_or_else(|| Failure::bad_request(format!("{key} has something that is no object")))
            });
            objects.collect()
        }
        Some(_) => Err(Failure::bad_request(format!("{key} has to be a list"))),
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, Failure> {
    object.get(key).and_then(Value::as_str).ok_or_else(|| Failure::keys_missing(&[key]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_fields() {
        let body = b"--xyz\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nno\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"file\"; filename=\"f.json\"\r\nContent-Type: application/json\r\n\r\n\
            {\"a\": 1}\r\n--xyz--\r\n";
        assert_eq!(form_field(body, "xyz", "file").as_deref(), Some(&b"{\"a\": 1}"[..]));
        assert_eq!(form_field(body, "xyz", "none"), None);
        assert_eq!(form_field(b"", "xyz", "file"), None);
    }
}
