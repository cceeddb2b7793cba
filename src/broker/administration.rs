//! What administrators do to a running broker: vhosts, users, permissions, parameters, policies, limits; looking at what is
//! there; closing connections. Everything takes effect at once; `settled` waits until it is durable as well.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::model::consumer::ConsumerView;
use crate::model::entity::{Binding, Destination, Queue};
use crate::model::ids::QueueId;
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::request::{Event, Internal};
use crate::model::statistics::ChurnNumber;
use crate::model::vhost::{VhostLimits, VhostMetadata};
use crate::queue::Command;

use super::auth::{Permission, TopicPermission, User};
use super::envelope::Envelope;
use super::journal::{Held, Submission};
use super::metadata::shard_of;
use super::outbox::Outbox;
use super::policy::{Policy, PolicyKind};
use super::topology::Topology;
use super::{Broker, Existed};

/// Queues whose consumers one shard lists at once, so that it does not stop for long.
const LISTED_AT_ONCE: usize = 256;

/// Why something cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdministrationError {
    #[error("no such vhost")]
    NoVhost,
    #[error("no such user")]
    NoUser,
    #[error("no such exchange")]
    NoExchange,
    #[error("there is no such thing")]
    NotFound,
    #[error("Refusing to delete virtual host '{0}' because it is protected from deletion")]
    Protected(VhostName),
    #[error("cannot create vhost '{vhost}': vhost limit of {limit} is reached")]
    VhostLimit { vhost: VhostName, limit: usize },
    /// What is wrong with a parameter's value.
    #[error("{0}")]
    Invalid(String),
}

impl Broker {
    /// The definitions as they are now.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// The bindings of a vhost from one exchange, or all of them, in the order in which they were made. Not the implicit
    /// ones of the default exchange.
    #[must_use]
    pub fn bindings_from(&self, vhost: &VhostName, source: Option<&ExchangeName>) -> Vec<Arc<Binding>> {
        self.metadata.lock().bindings_from(vhost, source)
    }

    /// The bindings that lead to a destination.
    #[must_use]
    pub fn bindings_to(&self, vhost: &VhostName, destination: &Destination) -> Vec<Arc<Binding>> {
        self.metadata.lock().bindings_to(vhost, destination)
    }

    /// The consumers of these queues. Costs each shard a turn or more.
    pub async fn consumers_of(&self, queues: &[QueueId]) -> Vec<(QueueId, ConsumerView)> {
        let outbox = Arc::new(Outbox::new(0, 0));
        let mut asked = 0;
        for shard in 0..self.shard_count() {
            let own: Vec<QueueId> =
                queues.iter().copied().filter(|queue| shard_of(*queue, self.shard_count()) == shard).collect();
            for some in own.chunks(LISTED_AT_ONCE) {
                self.post(shard, Envelope::ListConsumers { queues: some.to_vec(), outbox: Arc::clone(&outbox) });
                asked += 1;
            }
        }
        let mut found = Vec::new();
        let mut events = Vec::new();
        while asked > 0 {
            outbox.changed().await;
            outbox.take(&mut events);
            for event in events.drain(..) {
                if let Event::Internal(Internal::Consumers { mut consumers }) = event {
                    found.append(&mut consumers);
                    asked -= 1;
                }
            }
        }
        found
    }

    /// Waits until all definitions so far are on the disk.
    pub async fn settled(&self) {
        let outbox = Arc::new(Outbox::new(0, 0));
        let event = Event::Internal(Internal::Durable);
        let held = Held { events: vec![(Arc::clone(&outbox), vec![event])], ..Held::default() };
        self.submit(Submission { held, ..Submission::default() });
        outbox.changed().await;
    }

    /// Makes a vhost, or changes what is said of one. A new one has what the configuration gives to vhosts of its name.
    ///
    /// # Errors
    /// There are as many vhosts as there may be.
    pub fn put_vhost(&self, name: &VhostName, metadata: VhostMetadata) -> Result<Existed, AdministrationError> {
        let limit = self.limits().vhosts;
        self.define(|definitions| {
            if limit > 0 && definitions.vhost(name).is_none() && definitions.topology().vhosts().len() >= limit {
                return Err(AdministrationError::VhostLimit { vhost: name.clone(), limit });
            }
            let existed = definitions.set_vhost(name, metadata);
            if existed == Existed::No {
                self.vhost_defaults.load().apply(definitions, name);
            }
            Ok(existed)
        })
    }

    /// Removes a vhost with everything in it, and closes its connections.
    pub fn delete_vhost(&self, name: &VhostName) -> Result<(), AdministrationError> {
        let shards = self.shard_count();
        self.define_and_post(|definitions, envelopes| {
            let vhost = definitions.vhost(name).ok_or(AdministrationError::NotFound)?;
            if vhost.metadata.protection == crate::model::vhost::Protection::FromDeletion {
                return Err(AdministrationError::Protected(name.clone()));
            }
            for queue in definitions.remove_vhost(name).into_iter().flatten() {
                self.registry.churn.add_shared(ChurnNumber::QueuesDeleted, 1);
                let command = Command::Delete { if_unused: false, if_empty: false };
                envelopes.push((shard_of(queue.id, shards), Envelope::Command { queue: queue.id, command, ask: None }));
            }
            Ok(())
        })?;
        self.wake_shards();
        let text = format!("vhost '{name}' is deleted");
        self.close_connections(&text, |_, vhost| vhost == Some(name));
        Ok(())
    }

    /// Removes all vhosts, protected ones too, all users and all parameters, and closes all connections.
    pub fn remove_definitions(&self) {
        let topology = self.topology();
        for (name, vhost) in topology.vhosts() {
            let protection = crate::model::vhost::Protection::None;
            let metadata = VhostMetadata { protection, ..(*vhost.metadata).clone() };
            self.define(|definitions| definitions.set_vhost(name, metadata));
            // One that is gone meanwhile is gone.
            let _ = self.delete_vhost(name);
        }
        for user in topology.users() {
            self.delete_user(&user.name);
        }
        for (name, _) in topology.globals() {
            self.remove_parameter(None, "", name);
        }
    }

    /// Switches the copies of messages for the trace exchange on or off.
    pub fn set_tracing(&self, vhost: &VhostName, tracing: bool) {
        self.define(|definitions| definitions.set_tracing(vhost, tracing));
    }

    /// Makes a user, or changes one: `change` gets the user as it is, or none, and says what it is to be.
    pub fn put_user(&self, name: &UserName, change: impl FnOnce(Option<&User>) -> User) -> Existed {
        let is_local = self.settings.loopback_users.contains(name);
        self.define(|definitions| {
            let mut user = change(definitions.topology().user(name).map(Arc::as_ref));
            user.loopback_only = is_local;
            definitions.add_user(user)
        })
    }

    /// Removes a user and closes the user's connections. Whether there was one.
    pub fn delete_user(&self, name: &UserName) -> bool {
        let removed = self.define(|definitions| definitions.remove_user(name));
        if removed {
            self.close_connections(&format!("user '{name}' is deleted"), |user, _| user == Some(name));
        }
        removed
    }

    /// Gives a user permissions in a vhost, or takes them away.
    pub fn set_permission(
        &self,
        user: &UserName,
        vhost: &VhostName,
        permission: Option<Permission>,
    ) -> Result<Existed, AdministrationError> {
        self.change_user(user, Some(vhost), |user| match permission {
            Some(permission) => user.permissions.insert(vhost.clone(), permission).is_some(),
            None => user.permissions.remove(vhost).is_some(),
        })
    }

    /// Gives a user permissions for a topic exchange, or takes them away.
    pub fn set_topic_permission(
        &self,
        user: &UserName,
        vhost: &VhostName,
        exchange: &ExchangeName,
        permission: Option<TopicPermission>,
    ) -> Result<Existed, AdministrationError> {
        let key = (vhost.clone(), exchange.clone());
        if permission.is_some() {
            let topology = self.topology.load();
            let found = topology.vhost(vhost).ok_or(AdministrationError::NoVhost)?;
            if !found.exchanges.contains_key(exchange) {
                return Err(AdministrationError::NoExchange);
            }
        }
        self.change_user(user, Some(vhost), |user| match permission {
            Some(permission) => user.topic_permissions.insert(key, permission).is_some(),
            None => user.topic_permissions.remove(&key).is_some(),
        })
    }

    /// Sets a limit of a user by its name, or removes it.
    pub fn set_user_limit(
        &self,
        user: &UserName,
        name: &str,
        limit: Option<i64>,
    ) -> Result<Existed, AdministrationError> {
        let mut known = true;
        let existed = self.change_user(user, None, |user| match user.limits.get_mut(name) {
            Some(own) => std::mem::replace(own, limit).is_some(),
            None => {
                known = false;
                false
            }
        })?;
        if known { Ok(existed) } else { Err(AdministrationError::NotFound) }
    }

    /// Changes a user in place; `change` says whether what it changes was there.
    fn change_user(
        &self,
        user: &UserName,
        vhost: Option<&VhostName>,
        change: impl FnOnce(&mut User) -> bool,
    ) -> Result<Existed, AdministrationError> {
        self.define(|definitions| {
            if vhost.is_some_and(|vhost| definitions.vhost(vhost).is_none()) {
                return Err(AdministrationError::NoVhost);
            }
            let old = definitions.topology().user(user).ok_or(AdministrationError::NoUser)?;
            let mut new = (**old).clone();
            let existed = if change(&mut new) { Existed::Yes } else { Existed::No };
            if new != **old {
                definitions.add_user(new);
            }
            Ok(existed)
        })
    }

    /// Sets a policy; it applies to what is there at once.
    pub fn set_policy(
        &self,
        vhost: &VhostName,
        kind: PolicyKind,
        policy: &Policy,
    ) -> Result<Existed, AdministrationError> {
        self.set_parameter(Some(vhost), kind.component(), &policy.name, policy.value())
    }

    /// Sets a runtime parameter of a vhost or, without one, of the cluster. Policies and limits are checked by the caller.
    pub fn set_parameter(
        &self,
        vhost: Option<&VhostName>,
        component: &str,
        name: &str,
        value: Value,
    ) -> Result<Existed, AdministrationError> {
        let outcome = self.define_and_post(|definitions, envelopes| {
            if vhost.is_some_and(|vhost| definitions.vhost(vhost).is_none()) {
                return Err(AdministrationError::NoVhost);
            }
            let (existed, queues) = definitions.set_parameter(vhost, component, name, value);
            self.configure(queues, envelopes);
            Ok(existed)
        });
        self.wake_shards();
        outcome
    }

    /// Removes a runtime parameter. Whether there was one.
    pub fn remove_parameter(&self, vhost: Option<&VhostName>, component: &str, name: &str) -> bool {
        let removed = self.define_and_post(|definitions, envelopes| {
            let removed = definitions.remove_parameter(vhost, component, name);
            let is_removed = removed.is_some();
            self.configure(removed.unwrap_or_default(), envelopes);
            is_removed
        });
        self.wake_shards();
        removed
    }

    /// Sets one of a vhost's limits, or removes it.
    pub fn set_vhost_limit(
        &self,
        vhost: &VhostName,
        name: &str,
        limit: Option<i64>,
    ) -> Result<Existed, AdministrationError> {
        let component = VhostLimits::COMPONENT;
        self.define(|definitions| {
            let found = definitions.vhost(vhost).ok_or(AdministrationError::NoVhost)?;
            let key = (component.into(), VhostLimits::NAME.into());
            let mut limits = match found.parameters.get(&key).map(Arc::as_ref) {
                Some(Value::Object(limits)) => limits.clone(),
                _ => Map::new(),
            };
            let before = match limit {
                Some(limit) => limits.insert(name.to_owned(), limit.into()),
                None => limits.shift_remove(name),
            };
            if limits.is_empty() {
                definitions.remove_parameter(Some(vhost), component, VhostLimits::NAME);
            } else {
                definitions.set_parameter(Some(vhost), component, VhostLimits::NAME, Value::Object(limits));
            }
            Ok(if before.is_some() { Existed::Yes } else { Existed::No })
        })
    }

    /// Closes the connections that `chosen` picks by user and vhost, with 320 and this text; how many.
    pub fn close_connections(
        &self,
        text: &str,
        chosen: impl Fn(Option<&UserName>, Option<&VhostName>) -> bool,
    ) -> usize {
        let mut count = 0;
        for connection in self.registry.all() {
            let facts = connection.record.facts.lock();
            let is_chosen = chosen(facts.user.as_ref(), facts.vhost.as_ref());
            drop(facts);
            if is_chosen {
                connection.close(text);
                count += 1;
            }
        }
        count
    }

    fn configure(&self, queues: Vec<Arc<Queue>>, envelopes: &mut Vec<(u16, Envelope)>) {
        let shards = self.shard_count();
        envelopes.extend(queues.into_iter().map(|queue| (shard_of(queue.id, shards), Envelope::Configure(queue))));
    }

    /// Has the shards look at their mail.
    fn wake_shards(&self) {
        for cell in &self.shards {
            if !cell.mailbox.is_empty() {
                cell.wake.notify_one();
            }
        }
    }
}
