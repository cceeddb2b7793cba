//! The direct exchange: a message goes where a binding key equals one of its routing keys, byte for byte.

use super::destinations::{ArgumentBytes, Destinations, NewBinding};
use super::map::{TrieMap, trie_map};
use super::visit::Visit;
use crate::model::entity::Binding;
use crate::model::names::RoutingKey;

#[derive(Clone, Debug)]
pub(super) struct Direct(TrieMap<RoutingKey, Destinations>);

impl Default for Direct {
    fn default() -> Self {
        Self(trie_map())
    }
}

impl Direct {
    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        let key = &new.binding.key;
        if let Some(destinations) = self.0.get_mut(key) {
            return destinations.bind(new);
        }
        let mut destinations = Destinations::default();
        destinations.bind(new);
        self.0.insert_mut(key.clone(), destinations);
        true
    }

    pub(super) fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes) -> bool {
        let Some(destinations) = self.0.get_mut(&binding.key) else {
            return false;
        };
        let existed = destinations.unbind(&binding.destination, arguments);
        if destinations.is_empty() {
            self.0.remove_mut(&binding.key);
        }
        existed
    }

    pub(super) fn route<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        for key in visit.keys {
            if let Some(destinations) = self.0.get(*key) {
                destinations.lead(visit);
            }
        }
    }
}
