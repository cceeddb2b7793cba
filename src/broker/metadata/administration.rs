//! Vhosts, users and runtime parameters: what administrators define. Policies and limits are parameters.

use std::sync::Arc;

use serde_json::Value;

use crate::model::entity::{Exchange, Queue};
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::vhost::{VhostLimits, VhostMetadata};

use super::super::arguments::alternate_exchange;
use super::super::auth::User;
use super::super::definitions::{Change, ReplayError};
use super::super::described::{self, Became};
use super::super::policy::{OPERATOR_POLICY, POLICY, Policy, PolicyKind, Target, options_of};
use super::super::topology::VhostTopology;
use super::Metadata;

/// Whether something was there before it was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existed {
    Yes,
    No,
}

impl Metadata {
    /// Makes or changes a vhost.
    pub(in crate::broker) fn set_vhost(&mut self, name: &VhostName, metadata: VhostMetadata) -> Existed {
        let metadata = Arc::new(metadata);
        if self.vhost(name).is_some_and(|vhost| vhost.metadata == metadata) {
            return Existed::Yes;
        }
        self.changes.push(Change::SetVhost { vhost: name.clone(), metadata: Arc::clone(&metadata) });
        if !self.insert_vhost(name, Arc::clone(&metadata)) {
            return Existed::Yes;
        }
        self.note(|| described::vhost_created(name, &metadata));
        Existed::No
    }

    /// Removes a vhost with everything in it; the queues it had.
    pub(in crate::broker) fn remove_vhost(&mut self, name: &VhostName) -> Option<Vec<Arc<Queue>>> {
        let vhost = self.vhost(name)?;
        let queues: Vec<Arc<Queue>> = vhost.queues.values().cloned().collect();
        let mut exchanges: Vec<ExchangeName> = vhost.exchanges.keys().cloned().collect();
        exchanges.sort();
        self.take_vhost(name);
        for queue in &queues {
            self.note(|| described::queue_deleted(queue));
        }
        for exchange in &exchanges {
            self.note(|| described::exchange_deleted(name, exchange));
        }
        self.note(|| described::vhost_deleted(name));
        self.changes.push(Change::RemoveVhost { vhost: name.clone() });
        Some(queues)
    }

    /// Switches the copies for the trace exchange on or off. They do not outlive the broker.
    pub(in crate::broker) fn set_tracing(&mut self, name: &VhostName, tracing: bool) {
        if self.vhost(name).is_some_and(|vhost| vhost.tracing != tracing) {
            self.change(name, |vhost| vhost.tracing = tracing);
            self.look_for_tracing();
        }
    }

    /// Adds a user, or replaces the one of its name.
    pub(in crate::broker) fn add_user(&mut self, user: User) -> Existed {
        let user = Arc::new(user);
        let old = self.topology.users.get(&user.name).cloned();
        if self.topology.news.has_listeners() {
            self.notices.extend(described::user_changes(old.as_deref(), &user));
        }
        let existed = old.is_some();
        self.changes.push(Change::SetUser { user: Arc::clone(&user) });
        self.topology.users.insert_mut(user.name.clone(), user);
        if existed { Existed::Yes } else { Existed::No }
    }

    /// Whether there was such a user.
    pub(in crate::broker) fn remove_user(&mut self, name: &UserName) -> bool {
        let removed = self.topology.users.remove_mut(name);
        if removed {
            self.changes.push(Change::RemoveUser { user: name.clone() });
            self.note(|| described::user_deleted(name));
        }
        removed
    }

    /// Sets a runtime parameter, which was checked. The queues that it changes come back: their shards have to hear of it.
    pub(in crate::broker) fn set_parameter(
        &mut self,
        vhost: Option<&VhostName>,
        component: &str,
        name: &str,
        value: Value,
    ) -> (Existed, Vec<Arc<Queue>>) {
        let old = self.parameter(vhost, component, name);
        let existed = if old.is_some() { Existed::Yes } else { Existed::No };
        if old.is_some_and(|old| **old == value) {
            return (existed, Vec::new());
        }
        let (component, name, value): (Arc<str>, Arc<str>, _) = (component.into(), name.into(), Arc::new(value));
        let inserted = self.insert_parameter(vhost, Arc::clone(&component), Arc::clone(&name), Arc::clone(&value));
        // What cannot be inserted cannot be replayed either.
        if inserted.is_ok() {
            self.note(|| described::parameter(vhost, &component, &name, Became::Set(&value)));
            self.changes.push(Change::SetParameter { vhost: vhost.cloned(), component, name, value });
        }
        (existed, inserted.unwrap_or_default())
    }

    /// Removes a runtime parameter, if there is one; with it come the queues that this changes.
    pub(in crate::broker) fn remove_parameter(
        &mut self,
        vhost: Option<&VhostName>,
        component: &str,
        name: &str,
    ) -> Option<Vec<Arc<Queue>>> {
        self.parameter(vhost, component, name)?;
        self.note(|| described::parameter(vhost, component, name, Became::Cleared));
        let (vhost, component, name) = (vhost.cloned(), component.into(), name.into());
        let changed = self.take_parameter(vhost.as_ref(), &component, &name);
        self.changes.push(Change::RemoveParameter { vhost, component, name });
        Some(changed)
    }

    fn parameter(&self, vhost: Option<&VhostName>, component: &str, name: &str) -> Option<&Arc<Value>> {
        match vhost {
            None => self.topology.globals.get(name),
            Some(vhost) => self.vhost(vhost)?.parameters.get(&(component.into(), name.into())),
        }
    }

    /// What makes vhosts, users and parameters from nothing.
    pub(super) fn administration(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, vhost) in self.topology.vhosts() {
            changes.push(Change::SetVhost { vhost: name.clone(), metadata: Arc::clone(&vhost.metadata) });
            changes.extend(vhost.parameters.iter().map(|((component, parameter), value)| Change::SetParameter {
                vhost: Some(name.clone()),
                component: Arc::clone(component),
                name: Arc::clone(parameter),
                value: Arc::clone(value),
            }));
        }
        changes.extend(self.topology.users().into_iter().map(|user| Change::SetUser { user: Arc::clone(user) }));
        changes.extend(self.topology.globals.iter().map(|(name, value)| Change::SetParameter {
            vhost: None,
            component: "".into(),
            name: Arc::clone(name),
            value: Arc::clone(value),
        }));
        changes
    }

    fn look_for_tracing(&mut self) {
        self.topology.has_tracing = self.topology.vhosts.values().any(|vhost| vhost.tracing);
    }

    pub(super) fn take_vhost(&mut self, name: &VhostName) {
        if let Some(vhost) = self.vhost(name).cloned() {
            let removed = Arc::make_mut(&mut self.topology.removed);
            vhost.queues.values().for_each(|queue| removed.add_queue(&queue.statistics));
            vhost.exchange_statistics.values().for_each(|statistics| removed.add_exchange(statistics));
        }
        self.topology.vhosts.remove_mut(name);
        self.indexes.remove(name);
        self.look_for_tracing();
        let has_permissions = |user: &&Arc<User>| {
            user.permissions.contains_key(name) || user.topic_permissions.keys().any(|(vhost, _)| vhost == name)
        };
        let users: Vec<_> = self.topology.users.values().filter(has_permissions).cloned().collect();
        for user in users {
            let mut user = (*user).clone();
            user.permissions.remove(name);
            user.topic_permissions.retain(|(vhost, _), _| vhost != name);
            self.topology.users.insert_mut(user.name.clone(), Arc::new(user));
        }
    }

    pub(super) fn insert_parameter(
        &mut self,
        vhost: Option<&VhostName>,
        component: Arc<str>,
        name: Arc<str>,
        value: Arc<Value>,
    ) -> Result<Vec<Arc<Queue>>, ReplayError> {
        let Some(vhost) = vhost else {
            self.topology.globals.insert_mut(name, value);
            return Ok(Vec::new());
        };
        self.known(vhost)?;
        let policy = match policy_kind(&component) {
            None => None,
            Some(kind) => Some((
                kind,
                Policy::parse(kind, &name, &value).map_err(|error| ReplayError::Parameter {
                    component: Arc::clone(&component),
                    name: Arc::clone(&name),
                    error,
                })?,
            )),
        };
        self.change(vhost, |snapshot| {
            if &*component == VhostLimits::COMPONENT {
                snapshot.limits = VhostLimits::from_value(Some(&value));
            }
            snapshot.parameters.insert_mut((component, name), value);
        });
        let Some((kind, policy)) = policy else { return Ok(Vec::new()) };
        self.change(vhost, |snapshot| Arc::make_mut(&mut snapshot.policies).set(kind, policy));
        Ok(self.apply_policies(vhost))
    }

    pub(super) fn take_parameter(
        &mut self,
        vhost: Option<&VhostName>,
        component: &Arc<str>,
        name: &Arc<str>,
    ) -> Vec<Arc<Queue>> {
        let Some(vhost) = vhost else {
            self.topology.globals.remove_mut(&**name);
            return Vec::new();
        };
        self.change(vhost, |snapshot| {
            snapshot.parameters.remove_mut(&(Arc::clone(component), Arc::clone(name)));
            if &**component == VhostLimits::COMPONENT {
                snapshot.limits = VhostLimits::default();
            }
        });
        let Some(kind) = policy_kind(component) else { return Vec::new() };
        self.change(vhost, |snapshot| Arc::make_mut(&mut snapshot.policies).remove(kind, name));
        self.apply_policies(vhost)
    }

    /// A queue with what the policies of its vhost say of it.
    pub(super) fn with_policies(&self, queue: Queue) -> Queue {
        let policy = self
            .vhost(&queue.vhost)
            .and_then(|vhost| vhost.policies.applied(Target::Queue(queue.queue_type()), queue.name.as_str()));
        let options = options_of(&queue.arguments, queue.auto_delete, policy.as_deref(), &self.settings);
        Queue { policy, options, ..queue }
    }

    /// Looks at all queues and exchanges of a vhost after its policies changed; the queues that do something else now.
    fn apply_policies(&mut self, vhost: &VhostName) -> Vec<Arc<Queue>> {
        let Some(snapshot) = self.vhost(vhost) else { return Vec::new() };
        let mut changed = Vec::new();
        for queue in snapshot.queues.values() {
            let new = self.with_policies((**queue).clone());
            if new.policy != queue.policy {
                changed.push((Arc::new(new), queue.options.clone()));
            }
        }
        let exchanges = snapshot.exchanges.values();
        let exchanges: Vec<Arc<Exchange>> = exchanges
            .filter_map(|exchange| {
                let alternate = snapshot.alternate_of(exchange);
                (alternate != exchange.alternate).then(|| Arc::new(Exchange { alternate, ..(**exchange).clone() }))
            })
            .collect();
        self.change(vhost, |snapshot| {
            for exchange in exchanges {
                snapshot.insert_exchange(exchange);
            }
            for (queue, _) in &changed {
                snapshot.queues.insert_mut(queue.name.clone(), Arc::clone(queue));
            }
        });
        changed.into_iter().filter(|(queue, old)| queue.options != *old).map(|(queue, _)| queue).collect()
    }
}

impl VhostTopology {
    /// Makes an exchange known, or replaces one that differs in its alternate exchange.
    pub(super) fn insert_exchange(&mut self, exchange: Arc<Exchange>) {
        self.routing.insert_exchange(&exchange);
        if !self.exchange_statistics.contains_key(&exchange.name) {
            self.exchange_statistics.insert_mut(exchange.name.clone(), Arc::default());
        }
        self.exchanges.insert_mut(exchange.name.clone(), exchange);
    }

    /// The alternate exchange of an exchange: what its argument says, or else what its policy says.
    pub(super) fn alternate_of(&self, exchange: &Exchange) -> Option<ExchangeName> {
        let from_argument = alternate_exchange(&exchange.arguments).ok().flatten();
        from_argument.or_else(|| {
            let applied = self.policies.applied(Target::Exchange, exchange.name.as_str())?;
            let alternate = applied.definition.get("alternate-exchange").and_then(Value::as_str);
            alternate.map(ExchangeName::new)
        })
    }
}

fn policy_kind(component: &str) -> Option<PolicyKind> {
    match component {
        POLICY => Some(PolicyKind::Regular),
        OPERATOR_POLICY => Some(PolicyKind::Operator),
        _ => None,
    }
}
