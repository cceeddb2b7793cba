//! A plain model of definitions: what there is, in lists, and what of it survives a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::super::User;
use super::super::super::arguments::{alternate_exchange, queue_options};
use super::super::super::metadata::Metadata;
use super::super::{Change, QueueDefinition};
use super::settings;
use crate::model::entity::{Binding, Destination, Exchange, Queue};
use crate::model::ids::ConnectionId;
use crate::model::names::{ExchangeName, QueueName, VhostName};
use crate::model::table::FieldTable;
use crate::model::vhost::VhostMetadata;
use crate::routing::{QueueTarget, RoutingTable, check_binding};

/// What somebody asks for; it happens where it is possible.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    AddVhost(VhostName),
    AddUser(Box<User>),
    AddExchange(VhostName, Box<Exchange>),
    RemoveExchange(VhostName, ExchangeName),
    AddQueue { vhost: VhostName, name: QueueName, lifetime: Lifetime, auto_delete: bool, arguments: FieldTable },
    RemoveQueue(VhostName, QueueName),
    Bind(VhostName, Box<Binding>),
    Unbind(VhostName, Box<Binding>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Lifetime {
    Durable,
    Transient,
    /// Of a connection, and declared durable nevertheless.
    Exclusive,
}

#[derive(Default)]
pub(super) struct Model {
    vhosts: BTreeMap<VhostName, Vhost>,
    users: BTreeMap<String, User>,
}

#[derive(Default)]
struct Vhost {
    /// What survives, as routing sees it.
    routing: RoutingTable,
    exchanges: Vec<Exchange>,
    queues: Vec<(Arc<Queue>, Lifetime)>,
    bindings: Vec<Binding>,
}

impl Vhost {
    fn has(&self, name: &ExchangeName) -> bool {
        name.as_str().starts_with("amq.") || self.exchanges.iter().any(|exchange| exchange.name == *name)
    }

    fn survives(&self, binding: &Binding) -> bool {
        let exchange = |name: &ExchangeName| {
            name.as_str().starts_with("amq.")
                || self.exchanges.iter().any(|exchange| exchange.durable && exchange.name == *name)
        };
        exchange(&binding.source)
            && match &binding.destination {
                Destination::Exchange(name) => exchange(name),
                Destination::Queue(name) => {
                    self.queues.iter().any(|(queue, lifetime)| *lifetime == Lifetime::Durable && queue.name == *name)
                }
            }
    }

    /// Removes bindings, and then the auto-delete exchanges among their sources that have no others.
    fn unbind(&mut self, doomed: impl Fn(&Binding) -> bool) {
        for Binding { source, .. } in self.take_bindings(doomed) {
            let auto_delete = self.exchanges.iter().any(|exchange| exchange.auto_delete && exchange.name == source);
            if auto_delete && self.bindings.iter().all(|binding| binding.source != source) {
                self.remove_exchange(&source);
            }
        }
    }

    fn take_bindings(&mut self, doomed: impl Fn(&Binding) -> bool) -> Vec<Binding> {
        let (gone, left): (Vec<_>, _) = self.bindings.iter().cloned().partition(|binding| doomed(binding));
        for binding in gone.iter().filter(|binding| self.survives(binding)).cloned().collect::<Vec<_>>() {
            self.routing.unbind(&binding);
        }
        self.bindings = left;
        gone
    }

    fn remove_exchange(&mut self, name: &ExchangeName) {
        self.take_bindings(|binding| binding.source == *name);
        self.unbind(|binding| binding.destination == Destination::Exchange(name.clone()));
        if let Some(at) = self.exchanges.iter().position(|exchange| exchange.name == *name)
            && self.exchanges.remove(at).durable
        {
            self.routing.remove_exchange(name);
        }
    }
}

impl Model {
    /// Does the same to the model and to the definitions, as a session would.
    pub(super) fn apply(&mut self, metadata: &mut Metadata, operation: Operation) {
        match operation {
            Operation::AddVhost(name) => {
                metadata.set_vhost(&name, VhostMetadata::default());
                let predeclared = &metadata.vhost(&name).unwrap().exchanges;
                self.vhosts.entry(name).or_insert_with(|| {
                    let mut model = Vhost::default();
                    predeclared.values().for_each(|exchange| model.routing.insert_exchange(exchange));
                    model
                });
            }
            Operation::AddUser(user) => {
                metadata.add_user((*user).clone());
                self.users.insert(user.name.to_string(), *user);
            }
            Operation::AddExchange(vhost, mut exchange) => {
                let Some(model) = self.vhosts.get_mut(&vhost) else { return };
                if !model.has(&exchange.name) {
                    exchange.alternate = alternate_exchange(&exchange.arguments).unwrap();
                    metadata.add_exchange(&vhost, (*exchange).clone());
                    if exchange.durable {
                        model.routing.insert_exchange(&exchange);
                    }
                    model.exchanges.push(*exchange);
                }
            }
            Operation::RemoveExchange(vhost, name) => {
                let Some(model) = self.vhosts.get_mut(&vhost) else { return };
                metadata.remove_exchange(&vhost, &name);
                model.remove_exchange(&name);
            }
            Operation::AddQueue { vhost, name, lifetime, auto_delete, arguments } => {
                let Some(model) = self.vhosts.get_mut(&vhost) else { return };
                if model.queues.iter().all(|(queue, _)| queue.name != name) {
                    let queue = Queue {
                        id: metadata.new_queue_id(),
                        vhost,
                        name,
                        durable: lifetime != Lifetime::Transient,
                        exclusive: (lifetime == Lifetime::Exclusive).then_some(ConnectionId(1)),
                        auto_delete,
                        options: queue_options(&arguments, auto_delete, &settings()),
                        arguments,
                        policy: None,
                        statistics: Arc::default(),
                    };
                    let queue = metadata.add_queue(queue);
                    if lifetime == Lifetime::Durable {
                        let shard = u16::try_from(queue.id.0 % 3).unwrap();
                        model.routing.insert_queue(queue.name.clone(), QueueTarget { id: queue.id, shard });
                    }
                    model.queues.push((queue, lifetime));
                }
            }
            Operation::RemoveQueue(vhost, name) => {
                let Some(model) = self.vhosts.get_mut(&vhost) else { return };
                if let Some(at) = model.queues.iter().position(|(queue, _)| queue.name == name) {
                    metadata.remove_queue(&vhost, &name, model.queues[at].0.id);
                    model.unbind(|binding| binding.destination == Destination::Queue(name.clone()));
                    if model.queues.remove(at).1 == Lifetime::Durable {
                        model.routing.remove_queue(&name);
                    }
                }
            }
            Operation::Bind(vhost, binding) => self.bind(metadata, &vhost, *binding),
            Operation::Unbind(vhost, binding) => {
                let Some(model) = self.vhosts.get_mut(&vhost) else { return };
                metadata.unbind(&vhost, &binding);
                model.unbind(|known| *known == *binding);
            }
        }
    }

    fn bind(&mut self, metadata: &mut Metadata, vhost: &VhostName, binding: Binding) {
        let Some(model) = self.vhosts.get_mut(vhost) else { return };
        let kind = metadata.vhost(vhost).and_then(|vhost| vhost.exchanges.get(&binding.source)).map(|found| found.kind);
        let possible = match &binding.destination {
            Destination::Queue(name) => model.queues.iter().any(|(queue, _)| queue.name == *name),
            Destination::Exchange(name) => model.has(name),
        };
        if possible && kind.is_some_and(|kind| check_binding(kind, &binding).is_ok()) {
            let added = metadata.bind(vhost, binding.clone());
            assert_eq!(added, !model.bindings.contains(&binding));
            if added {
                if model.survives(&binding) {
                    model.routing.bind(&binding);
                }
                model.bindings.push(binding);
            }
        }
    }

    /// Changes that make what survives.
    pub(super) fn durable(&self) -> Vec<Change> {
        let mut changes: Vec<Change> =
            self.users.values().map(|user| Change::SetUser { user: Arc::new(user.clone()) }).collect();
        for (vhost, model) in &self.vhosts {
            let vhost = || vhost.clone();
            changes.push(Change::SetVhost { vhost: vhost(), metadata: Arc::default() });
            let exchanges = model.exchanges.iter().filter(|exchange| exchange.durable);
            changes.extend(
                exchanges.map(|exchange| Change::AddExchange { vhost: vhost(), exchange: Arc::new(exchange.clone()) }),
            );
            changes.extend(self.queues(&vhost()).iter().map(|queue| Change::AddQueue {
                vhost: vhost(),
                queue: QueueDefinition {
                    id: queue.id,
                    name: queue.name.clone(),
                    auto_delete: queue.auto_delete,
                    arguments: queue.arguments.clone(),
                },
            }));
            let bindings = model.bindings.iter().filter(|binding| model.survives(binding));
            changes.extend(bindings.map(|binding| Change::Bind { vhost: vhost(), binding: Arc::new(binding.clone()) }));
        }
        changes
    }

    /// The queues of a vhost that survive.
    pub(super) fn queues(&self, vhost: &VhostName) -> Vec<Arc<Queue>> {
        let queues = self.vhosts[vhost].queues.iter().filter(|(_, lifetime)| *lifetime == Lifetime::Durable);
        queues.map(|(queue, _)| Arc::clone(queue)).collect()
    }

    pub(super) fn vhosts(&self) -> impl Iterator<Item = &VhostName> {
        self.vhosts.keys()
    }

    /// Routing as it must be after a restart.
    pub(super) fn routing(&self, vhost: &VhostName) -> &RoutingTable {
        &self.vhosts[vhost].routing
    }
}
