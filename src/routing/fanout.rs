//! The fanout exchange: a message goes to every bound destination; keys do not matter.

use super::destinations::{ArgumentBytes, Destinations, NewBinding, with_key};
use super::visit::Visit;
use crate::model::entity::Binding;

#[derive(Clone, Debug, Default)]
pub(super) struct Fanout(Destinations);

impl Fanout {
    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        let arguments = with_key(new.binding, &new.arguments);
        self.0.bind(&NewBinding { binding: new.binding, arguments, queue: new.queue })
    }

    pub(super) fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes) -> bool {
        self.0.unbind(&binding.destination, &with_key(binding, arguments))
    }

    pub(super) fn route<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        self.0.lead(visit);
    }
}
