//! The destinations bound under one key, each once however many bindings lead to it.

use std::sync::Arc;

use super::map::Map;
use super::targets::QueueTarget;
use super::visit::Visit;
use crate::model::entity::{Binding, Destination};
use crate::model::table::FieldTable;

/// A binding's arguments in their identifying form: the encoded table, sorted by key; empty without arguments.
pub(super) type ArgumentBytes = Arc<[u8]>;

pub(super) fn argument_bytes(arguments: &FieldTable) -> ArgumentBytes {
    if arguments.is_empty() {
        return Arc::default();
    }
    let mut sorted = arguments.clone();
    sorted.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut bytes = Vec::new();
    sorted.encode(&mut bytes);
    Arc::from(bytes)
}

/// Where a key is nothing but part of a binding's identity, as arguments are: both in one. An encoded table starts with a
/// zero byte (it is shorter than 16 MiB), a key with its length, so the two never look alike.
pub(super) fn with_key(binding: &Binding, arguments: &ArgumentBytes) -> ArgumentBytes {
    let key = binding.key.as_bytes();
    if key.is_empty() {
        return Arc::clone(arguments);
    }
    let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
    [&[length], key, arguments].concat().into()
}

/// A binding on its way into an exchange's structure.
pub(super) struct NewBinding<'a> {
    pub(super) binding: &'a Binding,
    pub(super) arguments: ArgumentBytes,
    /// The destination, if it is a queue that exists.
    pub(super) queue: Option<QueueTarget>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Destinations(Map<Destination, Bound>);

#[derive(Clone, Debug)]
struct Bound {
    queue: Option<QueueTarget>,
    /// Whether one of the bindings has no arguments, as nearly all have none.
    plain: bool,
    others: Option<Arc<Map<ArgumentBytes, ()>>>,
}

impl Destinations {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the binding is new.
    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        let destination = &new.binding.destination;
        if let Some(bound) = self.0.find_mut(destination) {
            bound.queue = new.queue;
            return bound.add(&new.arguments);
        }
        let mut bound = Bound { queue: new.queue, plain: false, others: None };
        bound.add(&new.arguments);
        self.0.insert(destination.clone(), bound);
        true
    }

    /// Whether the binding existed.
    pub(super) fn unbind(&mut self, destination: &Destination, arguments: &ArgumentBytes) -> bool {
        let Some(bound) = self.0.find_mut(destination) else {
            return false;
        };
        let existed = bound.take(arguments);
        if !bound.plain && bound.others.is_none() {
            self.0.remove(destination);
        }
        existed
    }

    /// Adds every destination to the route.
    pub(super) fn lead<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        if visit.nothing_yet() {
            self.0.for_each(|destination, bound| visit.lead_distinct(destination, bound.queue));
        } else {
            self.0.for_each(|destination, bound| visit.lead(destination, bound.queue));
        }
    }
}

impl Bound {
    fn add(&mut self, arguments: &ArgumentBytes) -> bool {
        if arguments.is_empty() {
            return !std::mem::replace(&mut self.plain, true);
        }
        let others = Arc::make_mut(self.others.get_or_insert_default());
        let new = others.find(arguments).is_none();
        others.insert(Arc::clone(arguments), ());
        new
    }

    fn take(&mut self, arguments: &ArgumentBytes) -> bool {
        if arguments.is_empty() {
            return std::mem::replace(&mut self.plain, false);
        }
        let Some(others) = &mut self.others else {
            return false;
        };
        let others_left = Arc::make_mut(others);
        let existed = others_left.remove(arguments);
        if others_left.is_empty() {
            self.others = None;
        }
        existed
    }
}
