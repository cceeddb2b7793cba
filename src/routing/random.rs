//! Exchanges that pick one of their bindings: at random (`x-random`, `x-local-random`) or by a hash of the routing keys
//! (`x-modulus-hash`). Binding keys do not matter, and a destination bound n times is picked n times as often.
//!
//! On a single node every queue is local, so `x-local-random` is `x-random`.

use std::cmp::Ordering;
use std::sync::Arc;

use super::destinations::{ArgumentBytes, NewBinding};
use super::hash::hash_keys;
use super::ranked::{Rank, Ranked};
use super::targets::QueueTarget;
use super::visit::Visit;
use crate::model::entity::{Binding, Destination};
use crate::model::names::RoutingKey;
use crate::model::narrow::narrow;

/// Bindings sorted by destination, so that the pick by hash does not depend on the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct PickOne(Ranked<Choice>);

#[derive(Clone, Debug)]
struct Choice {
    destination: Destination,
    key: RoutingKey,
    arguments: ArgumentBytes,
    queue: Option<QueueTarget>,
}

impl PickOne {
    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        self.0.insert(Choice::new(new.binding, &new.arguments, new.queue))
    }

    pub(super) fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes) -> bool {
        self.0.remove(&Choice::new(binding, arguments, None))
    }

    /// `random` is uniform over all values; the pick is uniform over the bindings.
    pub(super) fn route_random<'t>(&'t self, random: u64, visit: &mut Visit<'t, '_>) {
        let scaled = (u128::from(random) * u128::from(self.0.total())) >> 64;
        self.pick(narrow(scaled, "below the total, which is a u64"), visit);
    }

    pub(super) fn route_modulus<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        if let Some(rank) = hash_keys(visit.keys).checked_rem(self.0.total()) {
            self.pick(rank, visit);
        }
    }

    fn pick<'t>(&'t self, rank: u64, visit: &mut Visit<'t, '_>) {
        if let Some(choice) = self.0.at(rank) {
            visit.lead(&choice.destination, choice.queue);
        }
    }
}

impl Choice {
    fn new(binding: &Binding, arguments: &ArgumentBytes, queue: Option<QueueTarget>) -> Self {
        let Binding { destination, key, .. } = binding.clone();
        Self { destination, key, arguments: Arc::clone(arguments), queue }
    }

    fn place(&self) -> (u8, &str, &RoutingKey, &ArgumentBytes) {
        let (kind, name) = match &self.destination {
            Destination::Exchange(name) => (0, name.as_str()),
            Destination::Queue(name) => (1, name.as_str()),
        };
        (kind, name, &self.key, &self.arguments)
    }
}

impl Rank for Choice {
    fn order(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }

    fn weight(&self) -> u64 {
        1
    }
}
