//! Which queues receive a message. Pure: a table and a message in, targets out.
//!
//! A [`RoutingTable`] is one vhost's exchanges, bindings and queues as routing needs them. The metadata machine changes
//! its own and publishes clones, which are cheap and never change; sessions route by them:
//!
//! ```text
//! metadata machine:  bind, unbind, insert_*, remove_*  ->  RoutingTable -- clone --> snapshot
//! session:           route(exchange, keys, facts)      <-  snapshot;  Targets -> queues and shards
//! ```
//!
//! Routing starts at one exchange and follows bindings between exchanges, entering each exchange at most once. Where an
//! exchange leads nowhere at all, its alternate exchange is entered instead.

mod check;
mod destinations;
mod direct;
mod fanout;
mod hash;
mod header_table;
mod headers;
mod map;
mod random;
mod ranked;
mod targets;
mod topic;
mod visit;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::check::{check_binding, check_exchange_arguments};
pub use self::targets::{QueueTarget, Targets};
pub use self::visit::Facts;

use self::destinations::{ArgumentBytes, NewBinding, argument_bytes};
use self::direct::Direct;
use self::fanout::Fanout;
use self::hash::ConsistentHash;
use self::headers::Headers;
use self::map::{TrieMap, trie_map};
use self::random::PickOne;
use self::topic::Topic;
use self::visit::Visit;
use crate::model::entity::{Binding, Destination, Exchange, ExchangeKind};
use crate::model::ids::QueueId;
use crate::model::names::{ExchangeName, QueueName};

/// One vhost's exchanges, bindings and queues. A clone costs a few reference counts and shares everything; a change
/// copies only the path to what it changes.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    exchanges: TrieMap<ExchangeName, Arc<ExchangeEntry>>,
    queues: TrieMap<QueueName, QueueEntry>,
    /// Queues that were removed while bindings led to them: those bindings still hold these numbers.
    stale: TrieMap<QueueId, QueueName>,
    next_serial: u64,
}

/// An exchange and what is bound to it.
#[derive(Clone, Debug)]
struct ExchangeEntry {
    name: ExchangeName,
    /// Distinguishes the exchanges of one table.
    serial: u64,
    kind: ExchangeKind,
    alternate: Option<ExchangeName>,
    bindings: Bindings,
}

#[derive(Clone, Debug)]
enum Bindings {
    Direct(Direct),
    Fanout(Fanout),
    Topic(Topic),
    Headers(Headers),
    ConsistentHash(ConsistentHash),
    ModulusHash(PickOne),
    Random(PickOne),
    RecentHistory(Fanout),
}

#[derive(Clone, Debug, Default)]
struct QueueEntry {
    target: Option<QueueTarget>,
    /// Bindings that lead to this name.
    bound: usize,
}

/// The exchange a message was sent to does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such exchange")]
pub struct UnknownExchange;

impl Default for RoutingTable {
    fn default() -> Self {
        Self { exchanges: trie_map(), queues: trie_map(), stale: trie_map(), next_serial: 0 }
    }
}

impl RoutingTable {
    /// Adds to `targets` the queues that receive a message sent to `exchange` with `keys`: the routing key, then those of
    /// CC and BCC. The default exchange has the empty name and needs not be inserted.
    pub fn route(
        &self,
        exchange: &[u8],
        keys: &[&[u8]],
        facts: &Facts<'_>,
        targets: &mut Targets,
    ) -> Result<(), UnknownExchange> {
        if exchange.is_empty() {
            let queues = keys.iter().filter_map(|key| self.queue(key));
            queues.for_each(|target| targets.push(target));
            return Ok(());
        }
        let name = std::str::from_utf8(exchange).map_err(|_| UnknownExchange)?;
        let first = self.exchanges.get(name).ok_or(UnknownExchange)?;
        Visit::new(self, keys, facts, targets).run(first);
        if !self.stale.is_empty() {
            targets.replace_each(|target| match self.stale.get(&target.id) {
                None => Some(target),
                Some(name) => self.queues.get(name).and_then(|entry| entry.target),
            });
        }
        Ok(())
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, name: &[u8]) -> Option<QueueTarget> {
        self.queues.get(std::str::from_utf8(name).ok()?)?.target
    }

    /// Makes an exchange known, or gives a known one another alternate exchange. Its bindings stay, unless its kind or
    /// what it hashes changed, which takes a new exchange.
    pub fn insert_exchange(&mut self, exchange: &Exchange) {
        if let Some(known) = self.exchanges.get_mut(&exchange.name)
            && known.kind == exchange.kind
        {
            Arc::make_mut(known).alternate.clone_from(&exchange.alternate);
            return;
        }
        let entry = ExchangeEntry {
            name: exchange.name.clone(),
            serial: self.next_serial,
            kind: exchange.kind,
            alternate: exchange.alternate.clone(),
            bindings: Bindings::new(exchange),
        };
        self.next_serial += 1;
        self.exchanges.insert_mut(exchange.name.clone(), Arc::new(entry));
    }

    /// Forgets an exchange, whose bindings should have been unbound; bindings that lead to it lead nowhere from now on.
    pub fn remove_exchange(&mut self, name: &ExchangeName) {
        self.exchanges.remove_mut(name);
    }

    /// Makes a queue known, or moves a known name to another queue.
    pub fn insert_queue(&mut self, name: QueueName, target: QueueTarget) {
        let known = self.queues.get(&name).cloned().unwrap_or_default();
        if let Some(old) = known.target
            && old != target
        {
            self.remove_queue(&name);
        }
        self.stale.remove_mut(&target.id);
        self.queues.insert_mut(name, QueueEntry { target: Some(target), bound: known.bound });
    }

    /// Forgets a queue, whose bindings should have been unbound; bindings left over lead nowhere until there is a queue
    /// of that name again.
    pub fn remove_queue(&mut self, name: &QueueName) {
        let Some(entry) = self.queues.get(name).cloned() else {
            return;
        };
        if entry.bound == 0 {
            self.queues.remove_mut(name);
            return;
        }
        if let Some(target) = entry.target {
            self.stale.insert_mut(target.id, name.clone());
        }
        self.queues.insert_mut(name.clone(), QueueEntry { target: None, bound: entry.bound });
    }

    /// Adds a checked binding. Whether it is new; one whose source does not exist is ignored.
    pub fn bind(&mut self, binding: &Binding) -> bool {
        let queue = self.destination_queue(binding);
        let Some(entry) = self.exchanges.get_mut(&binding.source) else {
            return false;
        };
        let new = NewBinding { binding, arguments: argument_bytes(&binding.arguments), queue };
        let is_new = Arc::make_mut(entry).bindings.bind(&new);
        if is_new && let Destination::Queue(name) = &binding.destination {
            let mut entry = self.queues.get(name).cloned().unwrap_or_default();
            entry.bound += 1;
            self.queues.insert_mut(name.clone(), entry);
        }
        is_new
    }

    /// Removes a binding; whether it existed.
    pub fn unbind(&mut self, binding: &Binding) -> bool {
        let queue = self.destination_queue(binding);
        let Some(entry) = self.exchanges.get_mut(&binding.source) else {
            return false;
        };
        let arguments = argument_bytes(&binding.arguments);
        let existed = Arc::make_mut(entry).bindings.unbind(binding, &arguments, queue);
        if existed && let Destination::Queue(name) = &binding.destination {
            self.release(name);
        }
        existed
    }

    fn destination_queue(&self, binding: &Binding) -> Option<QueueTarget> {
        match &binding.destination {
            Destination::Queue(name) => self.queues.get(name)?.target,
            Destination::Exchange(_) => None,
        }
    }

    /// Counts one binding less; with the last one goes the memory of removed queues of the name.
    fn release(&mut self, name: &QueueName) {
        let Some(entry) = self.queues.get_mut(name) else {
            return;
        };
        entry.bound = entry.bound.saturating_sub(1);
        if entry.bound > 0 {
            return;
        }
        if entry.target.is_none() {
            self.queues.remove_mut(name);
        }
        if !self.stale.is_empty() {
            let of_name = self.stale.iter().filter(|(_, stale)| *stale == name);
            let gone: Vec<QueueId> = of_name.map(|(id, _)| *id).collect();
            gone.iter().for_each(|id| _ = self.stale.remove_mut(id));
        }
    }
}

impl Bindings {
    fn new(exchange: &Exchange) -> Self {
        match exchange.kind {
            ExchangeKind::Direct => Self::Direct(Direct::default()),
            ExchangeKind::Fanout => Self::Fanout(Fanout::default()),
            ExchangeKind::Topic => Self::Topic(Topic::default()),
            ExchangeKind::Headers => Self::Headers(Headers::default()),
            ExchangeKind::ConsistentHash => Self::ConsistentHash(ConsistentHash::new(&exchange.arguments)),
            ExchangeKind::ModulusHash => Self::ModulusHash(PickOne::default()),
            ExchangeKind::Random | ExchangeKind::LocalRandom => Self::Random(PickOne::default()),
            ExchangeKind::RecentHistory => Self::RecentHistory(Fanout::default()),
        }
    }

    fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        match self {
            Self::Direct(direct) => direct.bind(new),
            Self::Fanout(fanout) | Self::RecentHistory(fanout) => fanout.bind(new),
            Self::Topic(topic) => topic.bind(new),
            Self::Headers(headers) => headers.bind(new),
            Self::ConsistentHash(hash) => hash.bind(new),
            Self::ModulusHash(pick) | Self::Random(pick) => pick.bind(new),
        }
    }

    fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes, queue: Option<QueueTarget>) -> bool {
        match self {
            Self::Direct(direct) => direct.unbind(binding, arguments),
            Self::Fanout(fanout) | Self::RecentHistory(fanout) => fanout.unbind(binding, arguments),
            Self::Topic(topic) => topic.unbind(binding, arguments),
            Self::Headers(headers) => headers.unbind(binding, arguments),
            Self::ConsistentHash(hash) => hash.unbind(binding, arguments, queue),
            Self::ModulusHash(pick) | Self::Random(pick) => pick.unbind(binding, arguments),
        }
    }
}
