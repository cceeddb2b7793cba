//! The definitions machine: vhosts, users, exchanges, queues and bindings. It is the only writer of definitions; every
//! change goes through one of its methods and yields a new `Topology`.
//!
//! It decides nothing about permissions or equivalence (the session does) and knows nothing of queues' contents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::entity::{Binding, Destination, Exchange, ExchangeKind, Queue};
use crate::model::ids::{ConnectionId, QueueId};
use crate::model::names::{ExchangeName, QueueName, VhostName};
use crate::model::table::FieldTable;
use crate::routing::{QueueTarget, RoutingTable};

use super::auth::User;
use super::topology::{Topology, VhostTopology};

/// What identifies a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BindingKey {
    source: ExchangeName,
    destination: Destination,
    key: Vec<u8>,
    /// Encoded, sorted by key.
    arguments: Vec<u8>,
}

type Bindings = BTreeMap<BindingKey, Arc<Binding>>;

/// The indexes of one vhost that are not part of its snapshot.
#[derive(Default)]
struct Indexes {
    by_source: BTreeMap<ExchangeName, Bindings>,
    by_destination: BTreeMap<Destination, Bindings>,
    exclusive: BTreeMap<ConnectionId, BTreeSet<QueueName>>,
}

/// All definitions.
pub(super) struct Metadata {
    topology: Topology,
    indexes: BTreeMap<VhostName, Indexes>,
    /// Recent-history exchanges removed since the last look: what a shard remembers for them is to be forgotten.
    forgotten: Vec<(VhostName, ExchangeName)>,
    next_queue: u64,
    shards: u16,
}

/// Exchanges every vhost has from the start.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

impl Metadata {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            topology: Topology::default(),
            indexes: BTreeMap::new(),
            forgotten: Vec::new(),
            next_queue: 1,
            shards: shards.max(1),
        }
    }

    /// The current definitions.
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(super) fn vhost(&self, name: &VhostName) -> Option<&Arc<VhostTopology>> {
        self.topology.vhosts.get(name)
    }

    pub(super) fn add_vhost(&mut self, name: &VhostName) {
        let mut vhost = VhostTopology {
            routing: RoutingTable::default(),
            exchanges: rpds::HashTrieMapSync::default(),
            queues: rpds::HashTrieMapSync::default(),
            names: rpds::HashTrieMapSync::default(),
        };
        for (exchange, kind, internal) in PREDECLARED {
            let exchange = Exchange {
                name: exchange.into(),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: FieldTable::default(),
                alternate: None,
            };
            vhost.routing.insert_exchange(&exchange);
            vhost.exchanges.insert_mut(exchange.name.clone(), Arc::new(exchange));
        }
        self.topology.vhosts.insert_mut(name.clone(), Arc::new(vhost));
        self.indexes.insert(name.clone(), Indexes::default());
    }

    pub(super) fn add_user(&mut self, user: User) {
        self.topology.users.insert_mut(user.name.clone(), Arc::new(user));
    }

    /// A number for a new queue, and the shard that will own it.
    pub(super) fn new_queue_id(&mut self) -> QueueId {
        let id = QueueId(self.next_queue);
        self.next_queue += 1;
        id
    }

    /// Adds a queue that does not exist yet.
    pub(super) fn add_queue(&mut self, queue: Arc<Queue>) {
        let target = QueueTarget { id: queue.id, shard: shard_of(queue.id, self.shards) };
        if let Some(owner) = queue.exclusive {
            let indexes = self.indexes.entry(queue.vhost.clone()).or_default();
            indexes.exclusive.entry(owner).or_default().insert(queue.name.clone());
        }
        let vhost = queue.vhost.clone();
        self.change(&vhost, |snapshot| {
            snapshot.routing.insert_queue(queue.name.clone(), target);
            snapshot.names.insert_mut(queue.id, queue.name.clone());
            snapshot.queues.insert_mut(queue.name.clone(), queue);
        });
    }

    /// Removes a queue and its bindings, unless the name means another queue by now.
    pub(super) fn remove_queue(&mut self, vhost: &VhostName, name: &QueueName, id: QueueId) {
        let Some(queue) = self.vhost(vhost).and_then(|vhost| vhost.queues.get(name)).cloned() else { return };
        if queue.id != id {
            return;
        }
        self.unbind_destination(vhost, &Destination::Queue(name.clone()));
        if let Some(indexes) = self.indexes.get_mut(vhost)
            && let Some(owner) = queue.exclusive
            && let Some(owned) = indexes.exclusive.get_mut(&owner)
        {
            owned.remove(name);
            if owned.is_empty() {
                indexes.exclusive.remove(&owner);
            }
        }
        self.change(vhost, |snapshot| {
            snapshot.routing.remove_queue(name);
            snapshot.names.remove_mut(&id);
            snapshot.queues.remove_mut(name);
        });
    }

    /// The exclusive queues of a connection.
    pub(super) fn exclusive_queues(&self, vhost: &VhostName, owner: ConnectionId) -> Vec<Arc<Queue>> {
        let names = self.indexes.get(vhost).and_then(|indexes| indexes.exclusive.get(&owner));
        let snapshot = self.vhost(vhost);
        names
            .into_iter()
            .flatten()
            .filter_map(|name| snapshot.and_then(|snapshot| snapshot.queues.get(name)).cloned())
            .collect()
    }

    /// Adds an exchange that does not exist yet.
    pub(super) fn add_exchange(&mut self, vhost: &VhostName, exchange: Exchange) {
        self.change(vhost, |snapshot| {
            snapshot.routing.insert_exchange(&exchange);
            snapshot.exchanges.insert_mut(exchange.name.clone(), Arc::new(exchange));
        });
    }

    /// Whether the exchange is the source of any binding.
    pub(super) fn is_bound(&self, vhost: &VhostName, exchange: &ExchangeName) -> bool {
        let indexes = self.indexes.get(vhost);
        indexes.and_then(|indexes| indexes.by_source.get(exchange)).is_some_and(|bindings| !bindings.is_empty())
    }

    /// Removes an exchange with all bindings from and to it, and the auto-delete exchanges that loses their last one.
    pub(super) fn remove_exchange(&mut self, vhost: &VhostName, name: &ExchangeName) {
        let from: Vec<_> = self
            .indexes
            .get(vhost)
            .and_then(|indexes| indexes.by_source.get(name))
            .map(|bindings| bindings.values().cloned().collect())
            .unwrap_or_default();
        for binding in from {
            self.take_binding(vhost, &binding);
        }
        let kind = self.vhost(vhost).and_then(|snapshot| snapshot.exchanges.get(name)).map(|exchange| exchange.kind);
        if kind == Some(ExchangeKind::RecentHistory) {
            self.forgotten.push((vhost.clone(), name.clone()));
        }
        self.change(vhost, |snapshot| {
            snapshot.routing.remove_exchange(name);
            snapshot.exchanges.remove_mut(name);
        });
        self.unbind_destination(vhost, &Destination::Exchange(name.clone()));
    }

    pub(super) fn take_forgotten(&mut self) -> Vec<(VhostName, ExchangeName)> {
        std::mem::take(&mut self.forgotten)
    }

    /// Adds a binding; `false` when the identical one exists.
    pub(super) fn bind(&mut self, vhost: &VhostName, binding: Binding) -> bool {
        let key = BindingKey::of(&binding);
        let Some(indexes) = self.indexes.get_mut(vhost) else { return false };
        let binding = Arc::new(binding);
        let of_source = indexes.by_source.entry(binding.source.clone()).or_default();
        if of_source.insert(key.clone(), Arc::clone(&binding)).is_some() {
            return false;
        }
        indexes.by_destination.entry(binding.destination.clone()).or_default().insert(key, Arc::clone(&binding));
        self.change(vhost, |snapshot| {
            snapshot.routing.bind(&binding);
        });
        true
    }

    /// Removes a binding if it exists, and its source if that was its last one and it is auto-delete.
    pub(super) fn unbind(&mut self, vhost: &VhostName, binding: &Binding) {
        if self.take_binding(vhost, binding) {
            self.auto_delete(vhost, &binding.source);
        }
    }

    fn unbind_destination(&mut self, vhost: &VhostName, destination: &Destination) {
        let to: Vec<_> = self
            .indexes
            .get(vhost)
            .and_then(|indexes| indexes.by_destination.get(destination))
            .map(|bindings| bindings.values().cloned().collect())
            .unwrap_or_default();
        for binding in to {
            self.unbind(vhost, &binding);
        }
    }

    fn take_binding(&mut self, vhost: &VhostName, binding: &Binding) -> bool {
        let key = BindingKey::of(binding);
        let Some(indexes) = self.indexes.get_mut(vhost) else { return false };
        if !take(&mut indexes.by_source, &binding.source, &key) {
            return false;
        }
        take(&mut indexes.by_destination, &binding.destination, &key);
        self.change(vhost, |snapshot| {
            snapshot.routing.unbind(binding);
        });
        true
    }

    fn auto_delete(&mut self, vhost: &VhostName, name: &ExchangeName) {
        let exchange = self.vhost(vhost).and_then(|snapshot| snapshot.exchanges.get(name));
        if exchange.is_some_and(|exchange| exchange.auto_delete) && !self.is_bound(vhost, name) {
            self.remove_exchange(vhost, name);
        }
    }

    fn change(&mut self, vhost: &VhostName, change: impl FnOnce(&mut VhostTopology)) {
        let Some(snapshot) = self.topology.vhosts.get(vhost) else { return };
        let mut changed = VhostTopology::clone(snapshot);
        change(&mut changed);
        self.topology.vhosts.insert_mut(vhost.clone(), Arc::new(changed));
    }
}

impl BindingKey {
    fn of(binding: &Binding) -> Self {
        let mut arguments = Vec::new();
        binding.arguments.encode(&mut arguments);
        Self {
            source: binding.source.clone(),
            destination: binding.destination.clone(),
            key: binding.key.as_bytes().to_vec(),
            arguments,
        }
    }
}

/// The shard that owns a queue.
pub(super) fn shard_of(queue: QueueId, shards: u16) -> u16 {
    u16::try_from(queue.0 % u64::from(shards)).unwrap_or(0)
}

fn take<K: Ord>(index: &mut BTreeMap<K, Bindings>, at: &K, key: &BindingKey) -> bool {
    let Some(bindings) = index.get_mut(at) else { return false };
    let taken = bindings.remove(key).is_some();
    if bindings.is_empty() {
        index.remove(at);
    }
    taken
}
