//! The definitions machine: vhosts, users, exchanges, queues and bindings. It is the only writer of definitions; every
//! change goes through one of its methods and yields a new `Topology`.
//!
//! What becomes of durable definitions is also noted as `Change`s, from which they can be made again.
//!
//! It decides nothing about permissions or equivalence (the session does) and knows nothing of queues' contents.

mod administration;

pub use administration::Existed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::entity::{Binding, Destination, Exchange, ExchangeKind, Queue};
use crate::model::ids::{ConnectionId, QueueId};
use crate::model::names::{ExchangeName, QueueName, VhostName};
use crate::model::narrow::narrow;
use crate::model::table::FieldTable;
use crate::model::vhost::VhostMetadata;
use crate::routing::QueueTarget;

use super::BrokerSettings;
use super::definitions::{Change, FIRST_QUEUE, QueueDefinition, ReplayError, survives};
use super::described;
use super::events::{EVENT_EXCHANGE, EVENT_VHOST, News, Notice};
use super::firehose::TRACE_EXCHANGE;
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

/// A binding and its place in the order in which bindings were made: consistent hashing depends on that order.
struct Placed {
    place: u64,
    binding: Arc<Binding>,
}

/// The indexes of one vhost that are not part of its snapshot.
#[derive(Default)]
struct Indexes {
    by_source: BTreeMap<ExchangeName, BTreeMap<BindingKey, Placed>>,
    by_destination: BTreeMap<Destination, BTreeMap<BindingKey, Arc<Binding>>>,
    next_place: u64,
    exclusive: BTreeMap<ConnectionId, BTreeSet<QueueName>>,
}

/// All definitions.
pub(super) struct Metadata {
    topology: Topology,
    indexes: BTreeMap<VhostName, Indexes>,
    /// Recent-history exchanges removed since the last look: what a shard remembers for them is to be forgotten.
    forgotten: Vec<(VhostName, ExchangeName)>,
    /// What became of durable definitions since the last look.
    changes: Vec<Change>,
    /// What happened since the last look, if somebody wants to know.
    notices: Vec<Notice>,
    next_queue: u64,
    /// Queue ids below this are reserved durably.
    reserved_queues: u64,
    settings: BrokerSettings,
}

/// How many queue ids are reserved at once. Those that are not given out before a restart are lost.
const QUEUE_IDS_RESERVED: u64 = 1024;
/// Above all ids that a broker gives out in its life.
const QUEUE_ID_MAX: u64 = 1 << 62;

/// Exchanges every vhost has from the start.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    (TRACE_EXCHANGE, ExchangeKind::Topic, true),
];

/// Whether every vhost has an exchange of this name from the start.
#[must_use]
pub fn is_predeclared(exchange: &str) -> bool {
    PREDECLARED.iter().any(|(name, ..)| *name == exchange)
}

impl Metadata {
    pub(super) fn new(settings: &BrokerSettings) -> Self {
        Self {
            topology: Topology { news: Arc::new(News::new(&settings.node_name)), ..Topology::default() },
            indexes: BTreeMap::new(),
            forgotten: Vec::new(),
            changes: Vec::new(),
            notices: Vec::new(),
            next_queue: FIRST_QUEUE,
            reserved_queues: FIRST_QUEUE,
            settings: settings.clone(),
        }
    }

    /// The current definitions.
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(super) fn vhost(&self, name: &VhostName) -> Option<&Arc<VhostTopology>> {
        self.topology.vhosts.get(name)
    }

    /// A number for a new queue: no queue ever had it, in this run or an earlier one.
    pub(super) fn new_queue_id(&mut self) -> QueueId {
        if self.next_queue >= self.reserved_queues {
            self.reserved_queues = self.next_queue + QUEUE_IDS_RESERVED;
            self.changes.push(Change::ReserveQueueIds { below: self.reserved_queues });
        }
        let id = QueueId(self.next_queue);
        self.next_queue += 1;
        id
    }

    /// Adds a queue that does not exist yet; what it does follows from its arguments and the policies.
    pub(super) fn add_queue(&mut self, queue: Queue) -> Arc<Queue> {
        if survives(&queue) {
            let vhost = queue.vhost.clone();
            self.changes.push(Change::AddQueue { vhost, queue: QueueDefinition::of(&queue) });
        }
        let queue = self.insert_queue(queue);
        self.note(|| described::queue_created(&queue));
        queue
    }

    /// Removes a queue and its bindings, unless the name means another queue by now, and the auto-delete exchanges that
    /// lose their last binding. Whether the queue was there.
    pub(super) fn remove_queue(&mut self, vhost: &VhostName, name: &QueueName, id: QueueId) -> bool {
        let Some((queue, sources)) = self.take_queue(vhost, name, id) else { return false };
        self.note(|| described::queue_deleted(&queue));
        if survives(&queue) {
            self.changes.push(Change::RemoveQueue { vhost: vhost.clone(), queue: name.clone(), id });
        }
        self.auto_delete(vhost, sources);
        true
    }

    /// The bindings of a vhost that have this source, or all of them, in the order in which they were made.
    pub(super) fn bindings_from(&self, vhost: &VhostName, source: Option<&ExchangeName>) -> Vec<Arc<Binding>> {
        let Some(indexes) = self.indexes.get(vhost) else { return Vec::new() };
        let of_source: Vec<_> = match source {
            Some(source) => indexes.by_source.get(source).into_iter().flat_map(BTreeMap::values).collect(),
            None => indexes.by_source.values().flat_map(BTreeMap::values).collect(),
        };
        let mut placed = of_source;
        placed.sort_by_key(|placed| placed.place);
        placed.into_iter().map(|placed| Arc::clone(&placed.binding)).collect()
    }

    /// The bindings that lead to a destination.
    pub(super) fn bindings_to(&self, vhost: &VhostName, destination: &Destination) -> Vec<Arc<Binding>> {
        let indexes = self.indexes.get(vhost);
        let bindings = indexes.and_then(|indexes| indexes.by_destination.get(destination));
        bindings.into_iter().flat_map(BTreeMap::values).cloned().collect()
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
        let exchange = Arc::new(exchange);
        self.note(|| described::exchange_created(vhost, &exchange));
        if exchange.durable {
            self.changes.push(Change::AddExchange { vhost: vhost.clone(), exchange: Arc::clone(&exchange) });
        }
        self.insert_exchange(vhost, exchange);
    }

    /// Whether the exchange is the source of any binding.
    pub(super) fn is_bound(&self, vhost: &VhostName, exchange: &ExchangeName) -> bool {
        let indexes = self.indexes.get(vhost);
        indexes.and_then(|indexes| indexes.by_source.get(exchange)).is_some_and(|bindings| !bindings.is_empty())
    }

    /// Removes an exchange with all bindings from and to it, and the auto-delete exchanges that lose their last one.
    pub(super) fn remove_exchange(&mut self, vhost: &VhostName, name: &ExchangeName) {
        let sources = self.delete_exchange(vhost, name);
        self.auto_delete(vhost, sources);
    }

    pub(super) fn take_forgotten(&mut self) -> Vec<(VhostName, ExchangeName)> {
        std::mem::take(&mut self.forgotten)
    }

    /// What happened since the last call, in order.
    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Notes an event, if somebody wants to know.
    fn note(&mut self, describe: impl FnOnce() -> Notice) {
        if self.topology.news.has_listeners() {
            self.notices.push(describe());
        }
    }

    /// What became of durable definitions since the last call, in order.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Adds a binding; `false` when the identical one exists.
    pub(super) fn bind(&mut self, vhost: &VhostName, binding: Binding) -> bool {
        let binding = Arc::new(binding);
        let added = self.insert_binding(vhost, &binding);
        if added && self.is_durable(vhost, &binding) {
            self.changes.push(Change::Bind { vhost: vhost.clone(), binding });
        }
        added
    }

    /// Removes a binding if it exists, and its source if that was its last one and it is auto-delete.
    pub(super) fn unbind(&mut self, vhost: &VhostName, binding: &Binding) {
        if !self.take_binding(vhost, binding) {
            return;
        }
        if self.is_durable(vhost, binding) {
            self.changes.push(Change::Unbind { vhost: vhost.clone(), binding: Arc::new(binding.clone()) });
        }
        self.auto_delete(vhost, BTreeSet::from([binding.source.clone()]));
    }

    /// Applies a change that was made before, without noting it again. Changes may be replayed over definitions that
    /// contain them already, provided that all that followed them are replayed as well; only the order of a consistent
    /// hash exchange's destinations may then be another one.
    pub(super) fn replay(&mut self, change: Change) -> Result<(), ReplayError> {
        match change {
            Change::SetVhost { vhost, metadata } => _ = self.insert_vhost(&vhost, metadata),
            Change::RemoveVhost { vhost } => self.take_vhost(&vhost),
            Change::SetUser { user } => self.topology.users.insert_mut(user.name.clone(), user),
            Change::RemoveUser { user } => _ = self.topology.users.remove_mut(&user),
            Change::SetParameter { vhost, component, name, value } => {
                self.insert_parameter(vhost.as_ref(), component, name, value)?;
            }
            Change::RemoveParameter { vhost, component, name } => {
                self.take_parameter(vhost.as_ref(), &component, &name);
            }
            Change::AddExchange { vhost, exchange } => {
                self.known(&vhost)?;
                self.take_exchange(&vhost, &exchange.name);
                self.insert_exchange(&vhost, exchange);
            }
            Change::RemoveExchange { vhost, exchange } => {
                self.known(&vhost)?;
                self.take_exchange(&vhost, &exchange);
            }
            Change::AddQueue { vhost, queue } => self.replay_queue(vhost, queue)?,
            Change::RemoveQueue { vhost, queue, id } => {
                self.known(&vhost)?;
                self.take_queue(&vhost, &queue, id);
            }
            Change::Bind { vhost, binding } => {
                // An end that is missing was removed later, and the binding with it.
                if has_both_ends(self.known(&vhost)?, &binding) {
                    self.insert_binding(&vhost, &binding);
                }
            }
            Change::Unbind { vhost, binding } => {
                self.known(&vhost)?;
                self.take_binding(&vhost, &binding);
            }
            Change::ReserveQueueIds { below } => self.reserve_queue_ids(below)?,
        }
        Ok(())
    }

    /// What makes the durable definitions from nothing, in order; bindings in the order in which they were made.
    pub(super) fn durable(&self) -> Vec<Change> {
        let mut changes = vec![Change::ReserveQueueIds { below: self.reserved_queues }];
        changes.extend(self.administration());
        for (vhost, indexes) in &self.indexes {
            let Some(snapshot) = self.vhost(vhost) else { continue };
            let mut exchanges: Vec<_> = snapshot.exchanges.values().filter(|exchange| is_declared(exchange)).collect();
            exchanges.sort_by(|a, b| a.name.cmp(&b.name));
            changes.extend(exchanges.into_iter().map(|exchange| {
                let exchange = Arc::clone(exchange);
                Change::AddExchange { vhost: vhost.clone(), exchange }
            }));
            let mut queues: Vec<_> = snapshot.queues.values().filter(|queue| survives(queue)).collect();
            queues.sort_by_key(|queue| queue.id);
            changes.extend(queues.into_iter().map(|queue| {
                let queue = QueueDefinition::of(queue);
                Change::AddQueue { vhost: vhost.clone(), queue }
            }));
            let bindings = indexes.by_source.values().flat_map(BTreeMap::values);
            let mut bindings: Vec<_> = bindings.filter(|placed| self.is_durable(vhost, &placed.binding)).collect();
            bindings.sort_by_key(|placed| placed.place);
            changes.extend(bindings.into_iter().map(|placed| {
                let binding = Arc::clone(&placed.binding);
                Change::Bind { vhost: vhost.clone(), binding }
            }));
        }
        changes
    }

    fn replay_queue(&mut self, vhost: VhostName, queue: QueueDefinition) -> Result<(), ReplayError> {
        let id = queue.id;
        if id.0 < FIRST_QUEUE {
            return Err(ReplayError::QueueId(id.0));
        }
        let known = self.known(&vhost)?;
        if known.names.get(&id).is_some_and(|name| *name != queue.name) {
            return Err(ReplayError::TakenQueueId { vhost, queue: queue.name, id });
        }
        let old = known.queues.get(&queue.name).map(|old| old.id);
        self.reserve_queue_ids(id.0.saturating_add(1))?;
        if let Some(old) = old {
            self.take_queue(&vhost, &queue.name, old);
        }
        self.insert_queue(queue.into_queue(vhost, &self.settings));
        Ok(())
    }

    fn reserve_queue_ids(&mut self, below: u64) -> Result<(), ReplayError> {
        if below > QUEUE_ID_MAX {
            return Err(ReplayError::QueueId(below));
        }
        self.next_queue = self.next_queue.max(below);
        self.reserved_queues = self.reserved_queues.max(below);
        Ok(())
    }

    fn known(&self, vhost: &VhostName) -> Result<&VhostTopology, ReplayError> {
        self.vhost(vhost).map(Arc::as_ref).ok_or_else(|| ReplayError::NoVhost(vhost.clone()))
    }

    /// Whether both ends survive a restart.
    fn is_durable(&self, vhost: &VhostName, binding: &Binding) -> bool {
        let Some(snapshot) = self.vhost(vhost) else { return false };
        let durable = |name| snapshot.exchanges.get(name).is_some_and(|exchange| exchange.durable);
        durable(&binding.source)
            && match &binding.destination {
                Destination::Queue(name) => snapshot.queues.get(name).is_some_and(|queue| survives(queue)),
                Destination::Exchange(name) => durable(name),
            }
    }

    /// Whether it was not there.
    fn insert_vhost(&mut self, name: &VhostName, metadata: Arc<VhostMetadata>) -> bool {
        if self.vhost(name).is_some() {
            self.change(name, |vhost| vhost.metadata = metadata);
            return false;
        }
        let mut vhost = VhostTopology { metadata, ..VhostTopology::default() };
        let own = (name.as_str() == EVENT_VHOST).then_some((EVENT_EXCHANGE, ExchangeKind::Topic, true));
        for (exchange, kind, internal) in PREDECLARED.into_iter().chain(own) {
            let exchange = Exchange {
                name: exchange.into(),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: FieldTable::default(),
                alternate: None,
            };
            vhost.insert_exchange(Arc::new(exchange));
        }
        self.topology.vhosts.insert_mut(name.clone(), Arc::new(vhost));
        self.indexes.insert(name.clone(), Indexes::default());
        true
    }

    fn insert_queue(&mut self, queue: Queue) -> Arc<Queue> {
        let queue = Arc::new(self.with_policies(queue));
        let target = QueueTarget { id: queue.id, shard: shard_of(queue.id, self.settings.shards.max(1)) };
        if let Some(owner) = queue.exclusive {
            let indexes = self.indexes.entry(queue.vhost.clone()).or_default();
            indexes.exclusive.entry(owner).or_default().insert(queue.name.clone());
        }
        self.change(&queue.vhost, |snapshot| {
            snapshot.routing.insert_queue(queue.name.clone(), target);
            snapshot.names.insert_mut(queue.id, queue.name.clone());
            snapshot.queues.insert_mut(queue.name.clone(), Arc::clone(&queue));
        });
        queue
    }

    /// Takes out a queue and its bindings; with it come the exchanges that lost one.
    fn take_queue(
        &mut self,
        vhost: &VhostName,
        name: &QueueName,
        id: QueueId,
    ) -> Option<(Arc<Queue>, BTreeSet<ExchangeName>)> {
        let queue = self.vhost(vhost)?.queues.get(name).filter(|queue| queue.id == id).cloned()?;
        let sources = self.take_bindings_to(vhost, &Destination::Queue(name.clone()));
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
        Arc::make_mut(&mut self.topology.removed).add_queue(&queue.statistics);
        Some((queue, sources))
    }

    fn insert_exchange(&mut self, vhost: &VhostName, exchange: Arc<Exchange>) {
        self.change(vhost, |snapshot| {
            let alternate = snapshot.alternate_of(&exchange);
            let exchange = if exchange.alternate == alternate {
                exchange
            } else {
                Arc::new(Exchange { alternate, ..(*exchange).clone() })
            };
            snapshot.insert_exchange(exchange);
        });
    }

    /// Takes out an exchange and its bindings; with it come the exchanges that lost one that led to it.
    fn take_exchange(
        &mut self,
        vhost: &VhostName,
        name: &ExchangeName,
    ) -> Option<(Arc<Exchange>, BTreeSet<ExchangeName>)> {
        let exchange = self.vhost(vhost)?.exchanges.get(name).cloned()?;
        let from = self.indexes.get(vhost).and_then(|indexes| indexes.by_source.get(name));
        let from: Vec<_> =
            from.into_iter().flat_map(BTreeMap::values).map(|placed| Arc::clone(&placed.binding)).collect();
        for binding in from {
            self.take_binding(vhost, &binding);
        }
        let sources = self.take_bindings_to(vhost, &Destination::Exchange(name.clone()));
        let statistics = self.vhost(vhost).and_then(|snapshot| snapshot.exchange_statistics.get(name)).cloned();
        if let Some(statistics) = statistics {
            Arc::make_mut(&mut self.topology.removed).add_exchange(&statistics);
        }
        self.change(vhost, |snapshot| {
            snapshot.routing.remove_exchange(name);
            snapshot.exchanges.remove_mut(name);
            snapshot.exchange_statistics.remove_mut(name);
        });
        Some((exchange, sources))
    }

    /// Takes out an exchange and notes it.
    fn delete_exchange(&mut self, vhost: &VhostName, name: &ExchangeName) -> BTreeSet<ExchangeName> {
        let Some((exchange, sources)) = self.take_exchange(vhost, name) else { return BTreeSet::new() };
        self.note(|| described::exchange_deleted(vhost, name));
        if exchange.kind == ExchangeKind::RecentHistory {
            self.forgotten.push((vhost.clone(), name.clone()));
        }
        if exchange.durable {
            self.changes.push(Change::RemoveExchange { vhost: vhost.clone(), exchange: name.clone() });
        }
        sources
    }

    /// Removes those of the exchanges that are auto-delete and have no bindings left, and so on.
    fn auto_delete(&mut self, vhost: &VhostName, mut sources: BTreeSet<ExchangeName>) {
        // Not by recursion: clients decide how long a chain of exchanges is.
        while let Some(name) = sources.pop_first() {
            let exchange = self.vhost(vhost).and_then(|snapshot| snapshot.exchanges.get(&name));
            if exchange.is_some_and(|exchange| exchange.auto_delete) && !self.is_bound(vhost, &name) {
                sources.append(&mut self.delete_exchange(vhost, &name));
            }
        }
    }

    /// Whether it was not there.
    fn insert_binding(&mut self, vhost: &VhostName, binding: &Arc<Binding>) -> bool {
        let key = BindingKey::of(binding);
        let Some(indexes) = self.indexes.get_mut(vhost) else { return false };
        let of_source = indexes.by_source.entry(binding.source.clone()).or_default();
        if of_source.contains_key(&key) {
            return false;
        }
        of_source.insert(key.clone(), Placed { place: indexes.next_place, binding: Arc::clone(binding) });
        indexes.next_place += 1;
        indexes.by_destination.entry(binding.destination.clone()).or_default().insert(key, Arc::clone(binding));
        self.change(vhost, |snapshot| {
            snapshot.routing.bind(binding);
        });
        self.note(|| described::binding("binding.created", vhost, binding));
        true
    }

    /// Takes out all bindings to a destination; what comes back is their sources.
    fn take_bindings_to(&mut self, vhost: &VhostName, destination: &Destination) -> BTreeSet<ExchangeName> {
        let to = self.indexes.get(vhost).and_then(|indexes| indexes.by_destination.get(destination));
        let to: Vec<_> = to.into_iter().flat_map(BTreeMap::values).cloned().collect();
        for binding in &to {
            self.take_binding(vhost, binding);
        }
        to.into_iter().map(|binding| binding.source.clone()).collect()
    }

    fn take_binding(&mut self, vhost: &VhostName, binding: &Binding) -> bool {
        let key = BindingKey::of(binding);
        let Some(indexes) = self.indexes.get_mut(vhost) else { return false };
        let Some(taken) = take(&mut indexes.by_source, &binding.source, &key) else { return false };
        take(&mut indexes.by_destination, &binding.destination, &key);
        self.hand_on(vhost, &taken);
        self.change(vhost, |snapshot| {
            snapshot.routing.unbind(binding);
        });
        self.note(|| described::binding("binding.deleted", vhost, binding));
        true
    }

    /// A destination keeps its place in a consistent hash exchange as long as it has any binding there: the next one gets
    /// the place of the one that was taken.
    fn hand_on(&mut self, vhost: &VhostName, taken: &Placed) {
        let Binding { source, destination, .. } = &*taken.binding;
        let exchange = self.vhost(vhost).and_then(|snapshot| snapshot.exchanges.get(source));
        if exchange.is_none_or(|exchange| exchange.kind != ExchangeKind::ConsistentHash) {
            return;
        }
        let indexes = self.indexes.get_mut(vhost);
        let Some(of_source) = indexes.and_then(|indexes| indexes.by_source.get_mut(source)) else { return };
        let (source, destination) = (source.clone(), destination.clone());
        let first = BindingKey { source, destination, key: Vec::new(), arguments: Vec::new() };
        let others = of_source.range_mut(first..).map(|(_, placed)| placed);
        let others = others.take_while(|placed| placed.binding.destination == taken.binding.destination);
        if let Some(next) = others.min_by_key(|placed| placed.place) {
            next.place = next.place.min(taken.place);
        }
    }

    /// Changes a vhost: in place where no published snapshot shares it, on a copy otherwise.
    fn change(&mut self, vhost: &VhostName, change: impl FnOnce(&mut VhostTopology)) {
        if let Some(snapshot) = self.topology.vhosts.get_mut(vhost) {
            change(Arc::make_mut(snapshot));
        }
    }
}

/// Whether somebody declared this exchange durable.
fn is_declared(exchange: &Exchange) -> bool {
    let name = exchange.name.as_str();
    exchange.durable && name != EVENT_EXCHANGE && PREDECLARED.iter().all(|(predeclared, ..)| *predeclared != name)
}

fn has_both_ends(vhost: &VhostTopology, binding: &Binding) -> bool {
    vhost.exchanges.contains_key(&binding.source)
        && match &binding.destination {
            Destination::Queue(name) => vhost.queues.contains_key(name),
            Destination::Exchange(name) => vhost.exchanges.contains_key(name),
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
    narrow(queue.0 % u64::from(shards), "a rest is smaller than the number of shards")
}

fn take<K: Ord, V>(index: &mut BTreeMap<K, BTreeMap<BindingKey, V>>, at: &K, key: &BindingKey) -> Option<V> {
    let bindings = index.get_mut(at)?;
    let taken = bindings.remove(key);
    if bindings.is_empty() {
        index.remove(at);
    }
    taken
}
