//! One route: the exchanges entered so far, and the message as their bindings need to see it.

use smallvec::SmallVec;

use super::hash::mix;
use super::header_table::{Pairs, Value, find, read_pairs};
use super::targets::{QueueTarget, Seen, Targets};
use super::{Bindings, ExchangeEntry, RoutingTable};
use crate::model::entity::Destination;
use crate::model::message::Properties;
use crate::model::names::ExchangeName;

/// What routing may need of a message besides its keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'a> {
    /// The header table's content without its length; decoded at most once per route, and only if an exchange asks.
    pub headers: Option<&'a [u8]>,
    pub correlation_id: Option<&'a [u8]>,
    pub message_id: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// Uniformly distributed over all values, another one for each message.
    pub random: u64,
}

impl<'a> Facts<'a> {
    #[must_use]
    pub fn new(properties: &Properties<'a>, random: u64) -> Self {
        Self {
            headers: properties.headers,
            correlation_id: properties.correlation_id,
            message_id: properties.message_id,
            timestamp: properties.timestamp,
            random,
        }
    }
}

/// A route in progress through table `'t` for message `'m`.
pub(super) struct Visit<'t, 'm> {
    table: &'t RoutingTable,
    pub(super) keys: &'m [&'m [u8]],
    pub(super) facts: &'m Facts<'m>,
    targets: &'m mut Targets,
    headers: Option<Pairs<'m>>,
    /// Every exchange entered, in that order; those from `done` on are still to be routed through.
    entered: SmallVec<[&'t ExchangeEntry; 8]>,
    done: usize,
    seen: Seen,
    /// Whether the exchange being routed through led anywhere, be it to something that no longer exists.
    led: bool,
}

impl<'t, 'm> Visit<'t, 'm> {
    pub(super) fn new(
        table: &'t RoutingTable,
        keys: &'m [&'m [u8]],
        facts: &'m Facts<'m>,
        targets: &'m mut Targets,
    ) -> Self {
        Self {
            table,
            keys,
            facts,
            targets,
            headers: None,
            entered: SmallVec::new(),
            done: 0,
            seen: Seen::default(),
            led: false,
        }
    }

    /// Routes through `first` and all that follows from it.
    pub(super) fn run(mut self, first: &'t ExchangeEntry) {
        self.entered.push(first);
        while let Some(entry) = self.entered.get(self.done).copied() {
            self.done += 1;
            self.led = false;
            self.pass(entry);
            if let (false, Some(alternate)) = (self.led, &entry.alternate) {
                self.enter(alternate);
            }
        }
    }

    fn pass(&mut self, entry: &'t ExchangeEntry) {
        match &entry.bindings {
            Bindings::Direct(direct) => direct.route(self),
            Bindings::Fanout(fanout) => fanout.route(self),
            Bindings::Topic(topic) => topic.route(self),
            Bindings::ModulusHash(pick) => pick.route_modulus(self),
            Bindings::ConsistentHash(hash) => {
                self.targets.cacheable &= hash.hashes_routing_keys();
                hash.route(self);
            }
            Bindings::Headers(headers) => {
                self.targets.cacheable = false;
                headers.route(self);
            }
            Bindings::Random(pick) => {
                self.targets.cacheable = false;
                pick.route_random(mix(self.facts.random ^ entry.serial), self);
            }
            Bindings::RecentHistory(fanout) => {
                self.targets.cacheable = false;
                if self.header(b"x-recent-history-no-store") != Some(Value::Bool(true)) {
                    self.targets.histories.push(entry.name.clone());
                }
                fanout.route(self);
            }
        }
    }

    /// A binding matched: its destination is part of the route.
    pub(super) fn lead(&mut self, destination: &'t Destination, queue: Option<QueueTarget>) {
        self.led = true;
        match queue.or_else(|| self.late(destination)) {
            Some(target) => self.targets.push(target),
            None => self.enter_destination(destination),
        }
    }

    /// As [`Self::lead`], for a queue that is certainly not part of the route yet.
    pub(super) fn lead_distinct(&mut self, destination: &'t Destination, queue: Option<QueueTarget>) {
        match queue {
            Some(target) => {
                self.led = true;
                self.targets.push_distinct(target);
            }
            None => self.lead(destination, None),
        }
    }

    /// Whether the route leads to no queue so far.
    pub(super) fn nothing_yet(&self) -> bool {
        self.targets.is_empty()
    }

    /// A queue that did not exist yet when it was bound.
    fn late(&self, destination: &Destination) -> Option<QueueTarget> {
        match destination {
            Destination::Queue(name) => self.table.queues.get(name)?.target,
            Destination::Exchange(_) => None,
        }
    }

    fn enter_destination(&mut self, destination: &Destination) {
        if let Destination::Exchange(name) = destination {
            self.enter(name);
        }
    }

    fn enter(&mut self, name: &ExchangeName) {
        let Some(entry) = self.table.exchanges.get(name) else {
            return;
        };
        let entered = &self.entered;
        if self.seen.insert(entry.serial, entered.len(), |at| entered[at].serial) {
            self.entered.push(entry);
        }
    }

    /// The header of this name; of several the last.
    pub(super) fn header(&mut self, name: &[u8]) -> Option<Value<'m>> {
        let headers = self.take_headers();
        let value = find(&headers, name);
        self.put_headers(headers);
        value
    }

    /// The decoded headers, to be given back after use.
    pub(super) fn take_headers(&mut self) -> Pairs<'m> {
        self.headers.take().unwrap_or_else(|| self.facts.headers.map_or_else(Pairs::new, read_pairs))
    }

    pub(super) fn put_headers(&mut self, headers: Pairs<'m>) {
        self.headers = Some(headers);
    }
}
