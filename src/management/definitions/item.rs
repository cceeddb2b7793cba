//! One definition of an import: its name, what it is now, what it is to be, and how it is made so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::broker::policy::{Policy, PolicyKind};
use crate::broker::{Permission, TopicPermission, Topology, VhostTopology};
use crate::model::entity::{Destination, Exchange, ExchangeKind, Queue};
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::request::{Ask, BindingRequest, DeclareExchange, DeclareQueue};
use crate::model::table::FieldTable;
use crate::model::vhost::{Protection, VhostLimits, VhostMetadata};

use super::super::Management;
use super::super::endpoints::parameters::{CLUSTER_NAME, CLUSTER_TAGS};
use super::super::endpoints::users;
use super::super::fields::table_to_json;
use super::super::identity::Identity;
use super::super::operation::Operation;
use super::export::limits_of;

/// See the module's documentation.
pub(super) enum Item {
    Vhost(VhostName, VhostMetadata, Option<Value>),
    User(UserName, users::Wanted),
    Permission(UserName, VhostName, Permission),
    TopicPermission(UserName, VhostName, ExchangeName, TopicPermission),
    Global(String, Value),
    Policy(VhostName, PolicyKind, Policy),
    /// A runtime parameter; without a value it is cleared.
    Parameter(VhostName, String, String, Option<Value>),
    Exchange(VhostName, DeclareExchange),
    Queue(VhostName, DeclareQueue),
    Binding(VhostName, BindingRequest),
}

/// The broker's definitions at a moment.
pub(super) struct View {
    topology: Arc<Topology>,
    /// The bindings of the vhosts that were asked for.
    bindings: BTreeMap<VhostName, BTreeSet<String>>,
    /// What the cluster is called, whether it was told so or not.
    cluster_name: String,
    /// The default type of queues where a vhost has none of its own.
    default_queue_type: &'static str,
}

impl View {
    pub(super) fn of(management: &Management, vhosts: &BTreeSet<VhostName>) -> Self {
        let broker = &management.broker;
        let bindings = vhosts.iter().map(|vhost| {
            let found = broker.bindings_from(vhost, None);
            let keys = found.iter().map(|binding| {
                binding_key(&binding.source, &binding.destination, binding.key.as_bytes(), &binding.arguments)
            });
            (vhost.clone(), keys.collect())
        });
        Self {
            topology: broker.topology(),
            bindings: bindings.collect(),
            cluster_name: management.cluster_name().to_string(),
            default_queue_type: management.settings.default_queue_type,
        }
    }

    /// A global parameter; those that are always there have a value without being set.
    fn global(&self, name: &str) -> Option<Value> {
        let set = self.topology.global(name).map(|value| (**value).clone());
        set.or_else(|| match name {
            CLUSTER_NAME => Some(self.cluster_name.as_str().into()),
            CLUSTER_TAGS => Some(json!({})),
            _ => None,
        })
    }

    /// A vhost as it is compared: what is not said counts as the default.
    fn described_vhost(&self, metadata: &VhostMetadata, limits: Option<&Value>) -> Value {
        json!({
            "description": metadata.description, "tags": metadata.tags,
            "default_queue_type": metadata.default_queue_type.map_or(self.default_queue_type, |kind| kind.name()),
            "protected_from_deletion": metadata.protection == Protection::FromDeletion, "limits": limits,
        })
    }

    fn vhost(&self, name: &VhostName) -> Option<&Arc<VhostTopology>> {
        self.topology.vhost(name)
    }
}

fn binding_key(source: &ExchangeName, destination: &Destination, key: &[u8], arguments: &FieldTable) -> String {
    let (kind, name) = end_of(destination);
    let arguments = table_to_json(arguments);
    // In one order, whatever order they were written in.
    let arguments: BTreeMap<_, _> = arguments.as_object().into_iter().flatten().collect();
    json!([source.as_str(), kind, name, String::from_utf8_lossy(key), arguments]).to_string()
}

/// What a binding leads to: its kind and name.
pub(super) fn end_of(destination: &Destination) -> (&'static str, &str) {
    match destination {
        Destination::Queue(queue) => ("queue", queue.as_str()),
        Destination::Exchange(exchange) => ("exchange", exchange.as_str()),
    }
}

/// A name as reports show it: no control characters.
pub(super) fn shown(name: &str) -> String {
    let escaped = |c: char| if c.is_control() || c == '\\' { c.escape_default().to_string() } else { c.to_string() };
    name.chars().map(escaped).collect()
}

fn described_exchange(exchange: &Exchange) -> Value {
    json!({
        "type": exchange.kind.name(), "durable": exchange.durable, "auto_delete": exchange.auto_delete,
        "internal": exchange.internal, "arguments": table_to_json(&exchange.arguments),
    })
}

fn described_queue(queue: &Queue) -> Value {
    json!({
        "type": queue.queue_type().name(), "durable": queue.durable, "auto_delete": queue.auto_delete,
        "arguments": without_type(table_to_json(&queue.arguments)),
    })
}

/// The type stands beside the arguments.
fn without_type(mut arguments: Value) -> Value {
    if let Value::Object(arguments) = &mut arguments {
        arguments.shift_remove("x-queue-type");
    }
    arguments
}

impl Item {
    /// The list of a document that it stands in.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Vhost(..) => "vhosts",
            Self::User(..) => "users",
            Self::Permission(..) => "permissions",
            Self::TopicPermission(..) => "topic_permissions",
            Self::Global(..) => "global_parameters",
            Self::Policy(_, PolicyKind::Regular, _) => "policies",
            Self::Parameter(..) | Self::Policy(_, PolicyKind::Operator, _) => "parameters",
            Self::Exchange(..) => "exchanges",
            Self::Queue(..) => "queues",
            Self::Binding(..) => "bindings",
        }
    }

    /// As reports name it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Vhost(vhost, ..) => format!("vhost '{}'", shown(vhost.as_str())),
            Self::User(user, _) => format!("user '{}'", shown(user.as_str())),
            Self::Permission(user, vhost, _) => {
                in_vhost(&format!("permission of user '{}'", shown(user.as_str())), vhost)
            }
            Self::TopicPermission(user, vhost, exchange, _) => {
                let (user, exchange) = (shown(user.as_str()), shown(exchange.as_str()));
                in_vhost(&format!("topic permission of user '{user}' for exchange '{exchange}'"), vhost)
            }
            Self::Global(name, _) => format!("global parameter '{}'", shown(name)),
            Self::Policy(vhost, PolicyKind::Regular, policy) => policy_name(vhost, &policy.name),
            Self::Policy(vhost, PolicyKind::Operator, policy) => operator_policy_name(vhost, &policy.name),
            Self::Parameter(vhost, component, name, _) => parameter_name(vhost, component, name),
            Self::Exchange(vhost, declare) => exchange_name(vhost, declare.exchange.as_str()),
            Self::Queue(vhost, declare) => queue_name(vhost, declare.queue.as_str()),
            Self::Binding(vhost, request) => binding_name(vhost, request),
        }
    }

    /// Whether it stays as it is where it is there already, as topology does.
    pub(super) fn is_kept(&self) -> bool {
        matches!(self, Self::Exchange(..) | Self::Queue(..) | Self::Binding(..))
    }

    /// The vhost whose bindings have to be looked at.
    pub(super) fn vhost_of_binding(&self) -> Option<&VhostName> {
        if let Self::Binding(vhost, _) = self { Some(vhost) } else { None }
    }

    /// What it is; none where it is not there.
    pub(super) fn current(&self, view: &View) -> Option<Value> {
        match self {
            Self::Vhost(vhost, ..) => {
                let found = view.vhost(vhost)?;
                Some(view.described_vhost(&found.metadata, limits_of(found).map(|limits| &**limits)))
            }
            Self::User(user, _) => view.topology.user(user).map(|user| users::render(user)),
            Self::Permission(user, vhost, _) => {
                view.topology.user(user)?.permissions.get(vhost).map(|permission| json!(permission.patterns()))
            }
            Self::TopicPermission(user, vhost, exchange, _) => {
                let key = (vhost.clone(), exchange.clone());
                view.topology.user(user)?.topic_permissions.get(&key).map(|permission| json!(permission.patterns()))
            }
            Self::Global(name, _) => view.global(name),
            Self::Policy(vhost, kind, policy) => {
                view.vhost(vhost)?.policies.get(*kind, &policy.name).map(|policy| policy.value())
            }
            Self::Parameter(vhost, component, name, _) => {
                let key = (component.as_str().into(), name.as_str().into());
                let value = view.vhost(vhost)?.parameters.get(&key)?;
                // No limits are no parameter.
                (!is_empty(value)).then(|| (**value).clone())
            }
            Self::Exchange(vhost, declare) => {
                view.vhost(vhost)?.exchanges.get(&declare.exchange).map(|x| described_exchange(x))
            }
            Self::Queue(vhost, declare) => {
                view.vhost(vhost)?.queues.get(&declare.queue).map(|queue| described_queue(queue))
            }
            Self::Binding(vhost, request) => {
                let key =
                    binding_key(&request.source, &request.destination, request.key.as_bytes(), &request.arguments);
                view.bindings.get(vhost)?.contains(&key).then_some(Value::Bool(true))
            }
        }
    }

    /// What it is to be, over what is there; none where it is not to be there.
    pub(super) fn wanted(&self, view: &View) -> Option<Value> {
        match self {
            Self::Vhost(vhost, metadata, limits) => {
                let own = view.vhost(vhost).and_then(|found| limits_of(found));
                Some(view.described_vhost(metadata, limits.as_ref().or_else(|| own.map(|own| &**own))))
            }
            Self::User(name, wanted) => {
                let current = view.topology.user(name).map(Arc::as_ref);
                Some(users::render(&wanted.over(name, current, [0; 4])))
            }
            Self::Permission(_, _, permission) => Some(json!(permission.patterns())),
            Self::TopicPermission(_, _, _, permission) => Some(json!(permission.patterns())),
            Self::Global(name, value) if name == CLUSTER_TAGS && is_empty(value) => Some(json!({})),
            Self::Global(_, value) => Some(value.clone()),
            Self::Policy(_, _, policy) => Some(policy.value()),
            Self::Parameter(_, _, _, value) => value.clone(),
            Self::Exchange(_, declare) => Some(json!({
                "type": ExchangeKind::from_name(&declare.kind).map(|kind| kind.name()),
                "durable": declare.durable, "auto_delete": declare.auto_delete, "internal": declare.internal, "arguments": table_to_json(&declare.arguments),
            })),
            Self::Queue(_, declare) => Some(json!({
                "type": "classic", "durable": declare.durable, "auto_delete": declare.auto_delete,
                "arguments": without_type(table_to_json(&declare.arguments)),
            })),
            Self::Binding(..) => Some(Value::Bool(true)),
        }
    }

    /// Makes it so.
    ///
    /// # Errors
    /// Why the broker does not do it.
    pub(super) async fn apply(
        &self,
        management: &Management,
        view: &View,
        operations: &mut Operations,
    ) -> Result<(), String> {
        let broker = &management.broker;
        let told = |error: crate::broker::AdministrationError| error.to_string();
        match self {
            Self::Vhost(name, metadata, limits) => {
                broker.put_vhost(name, metadata.clone()).map_err(told)?;
                if let Some(limits) = limits {
                    let (component, key) = (VhostLimits::COMPONENT, VhostLimits::NAME);
                    broker.set_parameter(Some(name), component, key, limits.clone()).map_err(told)?;
                }
            }
            Self::User(name, wanted) => {
                let salt = management.node.salt();
                broker.put_user(name, |current| wanted.over(name, current, salt));
            }
            Self::Permission(user, vhost, permission) => {
                broker.set_permission(user, vhost, Some(permission.clone())).map_err(told)?;
            }
            Self::TopicPermission(user, vhost, exchange, permission) => {
                broker.set_topic_permission(user, vhost, exchange, Some(permission.clone())).map_err(told)?;
            }
            // A default that is confirmed stays one.
            Self::Global(..) if self.current(view) == self.wanted(view) => {}
            Self::Global(name, value) => {
                broker.set_parameter(None, "", name, value.clone()).map_err(told)?;
            }
            Self::Policy(vhost, kind, policy) => {
                broker.set_policy(vhost, *kind, policy).map_err(told)?;
            }
            Self::Parameter(vhost, component, name, Some(value)) => {
                broker.set_parameter(Some(vhost), component, name, value.clone()).map_err(told)?;
            }
            Self::Parameter(vhost, component, name, None) => {
                broker.remove_parameter(Some(vhost), component, name);
            }
            // What is there stays as it is.
            Self::Exchange(..) | Self::Queue(..) | Self::Binding(..) if self.current(view).is_some() => {}
            Self::Exchange(vhost, declare) => {
                operations.ask(management, vhost, Ask::DeclareExchange(declare.clone())).await?;
            }
            Self::Queue(vhost, declare) => {
                operations.ask(management, vhost, Ask::DeclareQueue(declare.clone())).await?
            }
            Self::Binding(vhost, request) => operations.ask(management, vhost, Ask::Bind(request.clone())).await?,
        }
        Ok(())
    }
}

/// An empty map, or what some languages write for one.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn in_vhost(text: &str, vhost: &VhostName) -> String {
    format!("{text} in vhost '{}'", shown(vhost.as_str()))
}

pub(super) fn policy_name(vhost: &VhostName, name: &str) -> String {
    in_vhost(&format!("policy '{}'", shown(name)), vhost)
}

pub(super) fn operator_policy_name(vhost: &VhostName, name: &str) -> String {
    in_vhost(&format!("operator policy '{}'", shown(name)), vhost)
}

pub(super) fn parameter_name(vhost: &VhostName, component: &str, name: &str) -> String {
    in_vhost(&format!("parameter '{}' of component '{}'", shown(name), shown(component)), vhost)
}

pub(super) fn exchange_name(vhost: &VhostName, name: &str) -> String {
    in_vhost(&format!("exchange '{}'", shown(name)), vhost)
}

pub(super) fn queue_name(vhost: &VhostName, name: &str) -> String {
    in_vhost(&format!("queue '{}'", shown(name)), vhost)
}

fn binding_name(vhost: &VhostName, request: &BindingRequest) -> String {
    let (kind, name) = end_of(&request.destination);
    let key = shown(&String::from_utf8_lossy(request.key.as_bytes()));
    let source = shown(request.source.as_str());
    in_vhost(&format!("binding from exchange '{source}' to {kind} '{}' with key '{key}'", shown(name)), vhost)
}

/// Sessions of an import: one at a time, for one vhost after the other.
#[derive(Default)]
pub(super) struct Operations {
    current: Option<(VhostName, Operation)>,
}

impl Operations {
    async fn ask(&mut self, management: &Management, vhost: &VhostName, ask: Ask) -> Result<(), String> {
        let (_, mut operation) = match self.current.take().filter(|(name, _)| name == vhost) {
            Some(current) => current,
            None => {
                let identity = Identity::LocalAdministrator;
                let operation = Operation::begin(&management.broker, &identity, vhost, management.now());
                (vhost.clone(), operation.map_err(|exception| exception.text)?)
            }
        };
        operation.ask(ask).await.map_err(|exception| exception.text)?;
        // One that was refused something does nothing more, and is not kept.
        self.current = Some((vhost.clone(), operation));
        Ok(())
    }
}
