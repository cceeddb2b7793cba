//! An import that was read and checked as a whole, before anything of it is applied: what is to be made or changed, and what
//! is left out, because this broker does not have it or because of what it hangs on.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::broker::policy::{Policy, PolicyKind, is_policy_key};
use crate::broker::{HashAlgorithm, Topology, check_binding, check_exchange_arguments, is_predeclared};
use crate::model::entity::{ArgumentError, Binding, Destination, ExchangeKind, QueueType, check_queue_arguments};
use crate::model::names::{ExchangeName, QueueName, RoutingKey, UserName, VhostName};
use crate::model::request::BindingRequest;
use crate::model::table::FieldValue;
use crate::model::vhost::VhostLimits;

use super::super::answer::Failure;
use super::super::call::{Call, map_of};
use super::super::endpoints::users::Wanted;
use super::super::endpoints::{exchanges, limits, parameters, permissions, queues, vhosts};
use super::super::fields::json_to_table;
use super::super::passwords::PasswordRules;
use super::document::{objects, text};
use super::export::limits_of;
use super::fault;
use super::item::{self, Item, end_of, shown};
use super::report::{Outcome, Remark};

/// What is there besides the document.
pub(super) struct Ground<'a> {
    pub(super) topology: &'a Topology,
    pub(super) passwords: &'a PasswordRules,
    pub(super) default_queue_type: &'static str,
    pub(super) others: Others,
}

/// What of vhosts and users that neither the document nor the topology has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// They are missing.
    Missing,
    /// They may be there: nobody knows the broker yet.
    Assumed,
}

impl<'a> Ground<'a> {
    pub(super) fn of(call: &'a Call) -> Self {
        let settings = &call.management.settings;
        Self {
            topology: &call.topology,
            passwords: &settings.passwords,
            default_queue_type: settings.default_queue_type,
            others: Others::Missing,
        }
    }
}

/// Components of runtime parameters that RabbitMQ has and this version does not.
const MISSING_COMPONENTS: [&str; 3] = ["shovel", "federation-upstream", "federation-upstream-set"];

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Plan {
    /// In the order in which they are applied.
    pub(super) items: Vec<Item>,
    /// What is known of others already: by kind and name.
    pub(super) settled: Vec<(&'static str, String, Outcome)>,
    /// Parts of definitions that are left out.
    pub(super) parts: Vec<(&'static str, Remark)>,
    /// By kind and name.
    seen: BTreeMap<(&'static str, String), Seen>,
    /// The exchanges that are to be there, and of which kind.
    exchanges: BTreeMap<(VhostName, ExchangeName), ExchangeKind>,
    queues: BTreeSet<(VhostName, QueueName)>,
    /// Names of exchanges and queues that were left out.
    left_out: BTreeSet<(VhostName, &'static str, String)>,
    /// The list and the place of what is being read, to name what is wrong.
    reading: Option<(&'static str, usize)>,
}

/// The place of a definition among the items, and what the document says of it.
type Seen = (usize, Map<String, Value>);

/// Keys of policies that RabbitMQ has, or had, and that mean nothing here.
fn is_foreign_key(key: &str) -> bool {
    key.starts_with("ha-") || key.starts_with("federation-") || key == "queue-master-locator"
}

impl Plan {
    /// Reads a document, for all vhosts or for one.
    ///
    /// # Errors
    /// What is wrong with it: then nothing of it is applied.
    pub(super) fn make(
        ground: &Ground<'_>,
        document: &Map<String, Value>,
        only: Option<&VhostName>,
    ) -> Result<Self, Failure> {
        let mut plan = Self::default();
        plan.read(ground, document, only).map_err(|failure| match (plan.reading, failure.reason_term()) {
            (Some((kind, at)), Some(reason)) => {
                let explanation = fault::explained(document, kind, at, reason);
                failure.explained(explanation)
            }
            _ => failure,
        })?;
        Ok(plan)
    }

    fn read(
        &mut self,
        ground: &Ground<'_>,
        document: &Map<String, Value>,
        only: Option<&VhostName>,
    ) -> Result<(), Failure> {
        let plan = self;
        if only.is_none() {
            plan.read_vhosts(ground, document)?;
            plan.read_users(ground, document)?;
        }
        let vhosts = plan.items.iter().filter_map(|item| {
            let Item::Vhost(name, metadata, limits) = item else { return None };
            let limit = limits.as_ref().map(|limits| limits.get("max-queues").and_then(Value::as_u64));
            Some((name.clone(), Announced { default_queue_type: metadata.default_queue_type, max_queues: limit }))
        });
        let mut scope = Scope { ground, only, announced: vhosts.collect() };
        if only.is_none() {
            plan.read_permissions(document, &scope)?;
            plan.read_globals(document)?;
        }
        plan.read_policies(document, &scope)?;
        plan.read_parameters(document, &mut scope)?;
        plan.read_exchanges(document, &scope)?;
        if only.is_none() {
            plan.read_topic_permissions(document, &scope)?;
        }
        plan.read_queues(document, &scope)?;
        plan.reading = None;
        plan.check_queue_limits(&scope)?;
        plan.read_bindings(document, &scope)
    }

    /// The objects of a list, and their places.
    fn list<'a>(
        &mut self,
        document: &'a Map<String, Value>,
        kind: &'static str,
    ) -> Result<impl Iterator<Item = (usize, &'a Map<String, Value>)> + use<'a>, Failure> {
        self.reading = None;
        Ok(objects(document, kind)?.into_iter().enumerate())
    }

    /// The vhosts whose bindings are spoken of.
    pub(super) fn vhosts_of_bindings(&self) -> BTreeSet<VhostName> {
        self.items.iter().filter_map(Item::vhost_of_binding).cloned().collect()
    }

    /// Adds a definition. Of topology that is there twice the first counts, since what is there is kept; of the rest the last.
    fn push(&mut self, item: Item, object: &Map<String, Value>) {
        let key = (item.kind(), item.name());
        let Some((at, earlier)) = self.seen.get_mut(&key) else {
            self.seen.insert(key, (self.items.len(), object.clone()));
            self.items.push(item);
            return;
        };
        let (kind, name) = key;
        let outcome = if earlier == object {
            Outcome::Unchanged
        } else if item.is_kept() {
            Outcome::Skipped("it stands in the file before, otherwise, and the first one counts".to_owned())
        } else {
            object.clone_into(earlier);
            self.items[*at] = item;
            Outcome::Skipped("it stands in the file again, otherwise, and the last one counts".to_owned())
        };
        self.settled.push((kind, name, outcome));
    }

    fn skip(&mut self, kind: &'static str, name: String, reason: impl Into<String>) {
        self.settled.push((kind, name, Outcome::Skipped(reason.into())));
    }

    fn read_vhosts(&mut self, ground: &Ground<'_>, document: &Map<String, Value>) -> Result<(), Failure> {
        for (at, vhost) in self.list(document, "vhosts")? {
            self.reading = Some(("vhosts", at));
            let name = VhostName::new(text(vhost, "name")?);
            let mut described = map_of(vhost.get("metadata"));
            for key in ["description", "tags", "default_queue_type", "protected_from_deletion"] {
                if let Some(value) = vhost.get(key) {
                    described.entry(key.to_owned()).or_insert_with(|| value.clone());
                }
            }
            let current = ground.topology.vhost(&name).map(|vhost| (*vhost.metadata).clone());
            let metadata = vhosts::read_metadata(&described, current.unwrap_or_default())?;
            let limits = map_of(vhost.get("limits"));
            let limits = (!limits.is_empty()).then_some(Value::Object(limits));
            limits.as_ref().map(limits::check_vhost_limits).transpose()?;
            if let Some(reason) = metadata.default_queue_type.and_then(QueueType::warning_as_default) {
                let name = format!("vhost '{}'", shown(name.as_str()));
                self.parts.push(("vhosts", Remark { name, reason }));
            }
            self.push(Item::Vhost(name, metadata, limits), vhost);
        }
        Ok(())
    }

    fn read_users(&mut self, ground: &Ground<'_>, document: &Map<String, Value>) -> Result<(), Failure> {
        let version = document.get("rabbitmq_version").or_else(|| document.get("rabbit_version"));
        let is_old = version.and_then(Value::as_str).is_some_and(|version| {
            ["3.0.", "3.1.", "3.2.", "3.3.", "3.4.", "3.5."].iter().any(|old| version.starts_with(old))
        });
        let default = if is_old { HashAlgorithm::Md5 } else { HashAlgorithm::Sha256 };
        for (at, user) in self.list(document, "users")? {
            self.reading = Some(("users", at));
            let wanted = Wanted::read(user, default, ground.passwords)?;
            self.push(Item::User(UserName::new(text(user, "name")?), wanted), user);
        }
        Ok(())
    }

    /// Permissions are for users that there are, or are going to be.
    fn user(&self, object: &Map<String, Value>, scope: &Scope<'_>) -> Result<UserName, Failure> {
        let user = UserName::new(text(object, "user")?);
        let key = ("users", format!("user '{}'", shown(user.as_str())));
        let ground = scope.ground;
        if self.seen.contains_key(&key) || ground.topology.user(&user).is_some() || ground.others == Others::Assumed {
            return Ok(user);
        }
        Err(Failure::bad_request(format!("{{no_such_user,<<\"{user}\">>}}")))
    }

    fn read_permissions(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for (at, permission) in self.list(document, "permissions")? {
            self.reading = Some(("permissions", at));
            let user = self.user(permission, scope)?;
            let item = Item::Permission(user, scope.vhost(permission)?, permissions::read(permission)?);
            self.push(item, permission);
        }
        Ok(())
    }

    fn read_globals(&mut self, document: &Map<String, Value>) -> Result<(), Failure> {
        for (at, global) in self.list(document, "global_parameters")? {
            self.reading = Some(("global_parameters", at));
            let name = text(global, "name")?;
            if name.starts_with("internal") {
                let outcome = Outcome::Needless("the other broker's own affair".to_owned());
                self.settled.push(("global_parameters", format!("global parameter '{}'", shown(name)), outcome));
                continue;
            }
            let value = global.get("value").cloned().unwrap_or_default();
            self.push(Item::Global(name.to_owned(), value), global);
        }
        Ok(())
    }

    fn read_policies(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for (at, policy) in self.list(document, "policies")? {
            self.reading = Some(("policies", at));
            let (vhost, name) = (scope.vhost(policy)?, text(policy, "name")?);
            self.read_policy(&vhost, PolicyKind::Regular, name, policy, policy)?;
        }
        Ok(())
    }

    fn read_policy(
        &mut self,
        vhost: &VhostName,
        kind: PolicyKind,
        name: &str,
        policy: &Map<String, Value>,
        object: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let (list, shown) = match kind {
            PolicyKind::Regular => ("policies", item::policy_name(vhost, name)),
            PolicyKind::Operator => ("parameters", item::operator_policy_name(vhost, name)),
        };
        let mut policy = policy.clone();
        let mut definition = map_of(policy.get("definition"));
        let foreign: Vec<String> =
            definition.keys().filter(|key| is_foreign_key(key) && !is_policy_key(kind, key)).cloned().collect();
        for key in &foreign {
            definition.shift_remove(key);
        }
        if definition.is_empty() && !foreign.is_empty() {
            let reason = format!("nothing is left of it: {} {}", quoted(&foreign), means_nothing(&foreign));
            self.skip(list, shown, reason);
            return Ok(());
        }
        policy.insert("definition".into(), Value::Object(definition));
        let parsed = Policy::parse(kind, name, &Value::Object(policy)).map_err(|reason| {
            let place = format!("(vhost: \"{vhost}\" key: \"{name}\")");
            Failure::bad_request(format!("Validation failed\n\n{reason}\n {place}"))
        })?;
        if !foreign.is_empty() {
            let reason = format!("without {}, which {}", quoted(&foreign), means_nothing(&foreign));
            self.parts.push((list, Remark { name: shown, reason }));
        }
        self.push(Item::Policy(vhost.clone(), kind, parsed), object);
        Ok(())
    }

    fn read_parameters(&mut self, document: &Map<String, Value>, scope: &mut Scope<'_>) -> Result<(), Failure> {
        for (at, parameter) in self.list(document, "parameters")? {
            self.reading = Some(("parameters", at));
            let vhost = scope.vhost(parameter)?;
            let (component, name) = (text(parameter, "component")?, text(parameter, "name")?);
            let value = parameter.get("value").cloned().unwrap_or_default();
            if component == PolicyKind::Operator.component() {
                self.read_policy(&vhost, PolicyKind::Operator, name, &map_of(Some(&value)), parameter)?;
            } else if component == VhostLimits::COMPONENT {
                parameters::check(component, name, &value)?;
                let max_queues = value.get("max-queues").and_then(Value::as_u64);
                scope.announced.entry(vhost.clone()).or_default().max_queues = Some(max_queues);
                let value = (!item::is_empty(&value)).then_some(value);
                self.push(Item::Parameter(vhost, component.to_owned(), name.to_owned(), value), parameter);
            } else {
                let reason = if MISSING_COMPONENTS.contains(&component) {
                    format!("the component '{component}' is not available in this version")
                } else {
                    format!("the component '{}' is not known here", shown(component))
                };
                self.skip("parameters", item::parameter_name(&vhost, component, name), reason);
            }
        }
        Ok(())
    }

    fn read_exchanges(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for (at, exchange) in self.list(document, "exchanges")? {
            self.reading = Some(("exchanges", at));
            let (vhost, name) = (scope.vhost(exchange)?, text(exchange, "name")?);
            let declare = exchanges::read_declaration(exchange, ExchangeName::new(name))?;
            let existing = scope.exchange(&vhost, &declare.exchange);
            let reason = match ExchangeKind::from_name(&declare.kind) {
                None => format!("exchanges of type '{}' are not available in this version", shown(&declare.kind)),
                Some(_) if existing.is_none() && is_reserved(name) => {
                    "names that begin with 'amq.' are the broker's own".to_owned()
                }
                Some(kind) => {
                    check_exchange_arguments(kind, &declare.arguments).map_err(|reason| {
                        let place = item::exchange_name(&vhost, name);
                        Failure::bad_request(format!("invalid arguments of {place}: {reason}"))
                    })?;
                    self.exchanges.insert((vhost.clone(), declare.exchange.clone()), existing.unwrap_or(kind));
                    self.push(Item::Exchange(vhost, declare), exchange);
                    continue;
                }
            };
            self.left_out.insert((vhost.clone(), "exchange", name.to_owned()));
            self.skip("exchanges", item::exchange_name(&vhost, name), reason);
        }
        Ok(())
    }

    fn read_topic_permissions(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for (at, permission) in self.list(document, "topic_permissions")? {
            self.reading = Some(("topic_permissions", at));
            let (exchange, patterns) = permissions::read_topic(permission)?;
            let (user, vhost) = (self.user(permission, scope)?, scope.vhost(permission)?);
            let missing = self.exchange(&vhost, &exchange, scope).err();
            let item = Item::TopicPermission(user, vhost, exchange, patterns);
            match missing {
                None => self.push(item, permission),
                Some(reason) => self.skip("topic_permissions", item.name(), reason),
            }
        }
        Ok(())
    }

    fn read_queues(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for (at, queue) in self.list(document, "queues")? {
            self.reading = Some(("queues", at));
            let (vhost, name) = (scope.vhost(queue)?, text(queue, "name")?);
            let mut declare = queues::read_declaration(queue, QueueName::new(name))?;
            let beside = queue.get("type").and_then(Value::as_str);
            if let (Some(kind), None) = (beside, declare.arguments.find("x-queue-type"))
                && (kind != "classic" || scope.default_queue_type(&vhost) != QueueType::Classic)
            {
                // It stands beside the arguments only, and the vhost's default may be another one.
                declare.arguments.push("x-queue-type", FieldValue::string(kind));
            }
            let is_usual = declare.durable && !declare.auto_delete;
            let by_default = if is_usual { scope.default_queue_type(&vhost) } else { QueueType::Classic };
            let named = declare.arguments.find("x-queue-type").and_then(|kind| kind.as_str());
            if named.is_none() && only_assumed(scope, &vhost) {
                // Its type is the default of a vhost that is not known.
                continue;
            }
            let kind = named.unwrap_or_else(|| by_default.name()).to_owned();
            let existing = scope.ground.topology.vhost(&vhost);
            let exists = existing.is_some_and(|found| found.queues.contains_key(&declare.queue));
            let reason = match QueueType::from_name(&kind) {
                Some(QueueType::Classic) if !exists && name.starts_with("amq.") => {
                    "names that begin with 'amq.' are the broker's own".to_owned()
                }
                Some(QueueType::Classic) => {
                    check_queue_arguments(QueueType::Classic, &declare.arguments)
                        .map_err(|error| bad_argument(&vhost, name, error))?;
                    self.queues.insert((vhost.clone(), declare.queue.clone()));
                    self.push(Item::Queue(vhost, declare), queue);
                    continue;
                }
                Some(_) if named.is_none() => {
                    format!("'{kind}' is the default type of its virtual host, and not available in this version")
                }
                Some(_) => format!("queues of type '{kind}' are not available in this version"),
                None => format!("queues of type '{}' are not known here", shown(&kind)),
            };
            self.left_out.insert((vhost.clone(), "queue", name.to_owned()));
            self.skip("queues", item::queue_name(&vhost, name), reason);
        }
        Ok(())
    }

    /// A vhost may not get more queues than it may have: by the limit that is imported, or else by the one it has.
    fn check_queue_limits(&self, scope: &Scope<'_>) -> Result<(), Failure> {
        let mut added: BTreeMap<&VhostName, usize> = BTreeMap::new();
        for (vhost, queue) in &self.queues {
            let exists = scope.ground.topology.vhost(vhost).is_some_and(|found| found.queues.contains_key(queue));
            *added.entry(vhost).or_default() += usize::from(!exists);
        }
        for (vhost, added) in added.into_iter().filter(|(_, added)| *added > 0) {
            let there = scope.ground.topology.vhost(vhost);
            let own = || there.and_then(|found| limits_of(found)).and_then(|limits| limits.get("max-queues")?.as_u64());
            let imported = scope.announced.get(vhost).and_then(|announced| announced.max_queues);
            let Some(limit) = imported.unwrap_or_else(own) else { continue };
            let current = there.map_or(0, |found| found.queues.size());
            if (current + added) as u64 > limit {
                return Err(Failure::bad_request(format!(
                    "Adding {added} queue(s) to virtual host \"{vhost}\" would exceed the limit of {limit} queue(s).\n\nThis \
                     virtual host currently has {current} queue(s) defined.\n\nImport aborted!",
                )));
            }
        }
        Ok(())
    }

    fn read_bindings(&mut self, document: &Map<String, Value>, scope: &Scope<'_>) -> Result<(), Failure> {
        for (at, binding) in self.list(document, "bindings")? {
            self.reading = Some(("bindings", at));
            let vhost = scope.vhost(binding)?;
            let (source, to) = (text(binding, "source")?, text(binding, "destination")?);
            if source.is_empty() {
                // Every queue has this one by itself.
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
            let source = self.exchange(&vhost, &request.source, scope);
            let missing = source.as_ref().err().cloned().or_else(|| self.missing_end(&vhost, &request, scope));
            let item = Item::Binding(vhost, request);
            if let Some(reason) = missing {
                self.skip("bindings", item.name(), reason);
                continue;
            }
            if let (Ok(kind), Item::Binding(_, request)) = (source, &item) {
                check_binding(kind, &as_binding(request))
                    .map_err(|reason| Failure::bad_request(format!("invalid {}: {reason}", item.name())))?;
            }
            self.push(item, binding);
        }
        Ok(())
    }

    /// The kind of an exchange that is there, or is going to be, or why it is not.
    fn exchange(&self, vhost: &VhostName, name: &ExchangeName, scope: &Scope<'_>) -> Result<ExchangeKind, String> {
        let planned = self.exchanges.get(&(vhost.clone(), name.clone())).copied();
        planned
            .or_else(|| scope.exchange(vhost, name))
            .ok_or_else(|| self.why_missing(vhost, "exchange", name.as_str()))
    }

    /// Why the destination of a binding is not there.
    fn missing_end(&self, vhost: &VhostName, request: &BindingRequest, scope: &Scope<'_>) -> Option<String> {
        let is_there = match &request.destination {
            Destination::Exchange(name) => return self.exchange(vhost, name, scope).err(),
            Destination::Queue(name) => {
                self.queues.contains(&(vhost.clone(), name.clone()))
                    || scope.ground.topology.vhost(vhost).is_some_and(|found| found.queues.contains_key(name))
            }
        };
        let (kind, name) = end_of(&request.destination);
        (!is_there).then(|| self.why_missing(vhost, kind, name))
    }

    fn why_missing(&self, vhost: &VhostName, kind: &'static str, name: &str) -> String {
        let was_skipped = self.left_out.contains(&(vhost.clone(), kind, name.to_owned()));
        let name = shown(name);
        if was_skipped { format!("{kind} '{name}' was skipped") } else { format!("there is no {kind} '{name}'") }
    }
}

fn only_assumed(scope: &Scope<'_>, vhost: &VhostName) -> bool {
    scope.only.is_none() && !scope.knows(vhost)
}

fn quoted(keys: &[String]) -> String {
    keys.iter().map(|key| format!("'{}'", shown(key))).collect::<Vec<_>>().join(", ")
}

fn means_nothing(keys: &[String]) -> &'static str {
    let only = |prefix: &str| keys.iter().all(|key| key.starts_with(prefix));
    match (only("federation-"), keys.len()) {
        (true, 1) => "needs federation, which is not available in this version",
        (true, _) => "need federation, which is not available in this version",
        (false, 1) => "has no effect here: there are no mirrored queues",
        (false, _) => "have no effect here: there are no mirrored queues",
    }
}

fn is_reserved(exchange: &str) -> bool {
    exchange.is_empty() || exchange.starts_with("amq.")
}

fn as_binding(request: &BindingRequest) -> Binding {
    Binding {
        source: request.source.clone(),
        destination: request.destination.clone(),
        key: request.key.clone(),
        arguments: request.arguments.clone(),
    }
}

fn bad_argument(vhost: &VhostName, queue: &str, error: ArgumentError) -> Failure {
    Failure::bad_request(match error {
        ArgumentError::Invalid { name, reason } => {
            format!("invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {reason}")
        }
        ArgumentError::WrongType { name, .. } => format!("invalid arg '{name}' for queue '{queue}' in vhost '{vhost}'"),
    })
}

/// What a document says of a vhost before it speaks of its contents.
#[derive(Default)]
struct Announced {
    default_queue_type: Option<QueueType>,
    /// The outer none: nothing is said. The inner one: there is no limit.
    max_queues: Option<Option<u64>>,
}

/// Which vhosts an import may speak of.
struct Scope<'a> {
    ground: &'a Ground<'a>,
    only: Option<&'a VhostName>,
    announced: BTreeMap<VhostName, Announced>,
}

impl Scope<'_> {
    fn vhost(&self, object: &Map<String, Value>) -> Result<VhostName, Failure> {
        if let Some(only) = self.only {
            return Ok(only.clone());
        }
        let name = VhostName::new(text(object, "vhost")?);
        if self.knows(&name) || self.ground.others == Others::Assumed {
            return Ok(name);
        }
        Err(Failure::bad_request(format!("Please create virtual host \"{name}\" prior to importing definitions.")))
    }

    fn knows(&self, vhost: &VhostName) -> bool {
        self.announced.contains_key(vhost) || self.ground.topology.vhost(vhost).is_some()
    }

    /// Of queues whose type nobody names.
    fn default_queue_type(&self, vhost: &VhostName) -> QueueType {
        let current = || self.ground.topology.vhost(vhost).and_then(|found| found.metadata.default_queue_type);
        let announced = self.announced.get(vhost).and_then(|announced| announced.default_queue_type);
        let node = QueueType::from_name(self.ground.default_queue_type);
        announced.or_else(current).or(node).unwrap_or(QueueType::Classic)
    }

    /// The kind of an exchange that is there; every vhost has some from the start, also one that is only being imported.
    fn exchange(&self, vhost: &VhostName, name: &ExchangeName) -> Option<ExchangeKind> {
        let found = self.ground.topology.vhost(vhost).and_then(|found| found.exchanges.get(name).map(|x| x.kind));
        found.or_else(|| match name.as_str() {
            predeclared if !is_predeclared(predeclared) => None,
            "amq.fanout" => Some(ExchangeKind::Fanout),
            "amq.headers" | "amq.match" => Some(ExchangeKind::Headers),
            "" | "amq.direct" => Some(ExchangeKind::Direct),
            _ => Some(ExchangeKind::Topic),
        })
    }
}
