//! Binding and unbinding, of queues and of exchanges.

use crate::model::entity::{Binding, Destination, ExchangeKind};
use crate::model::exception::Exception;
use crate::model::ids::ChannelRef;
use crate::model::request::{Answer, BindingRequest};
use crate::model::table::FieldTable;
use crate::routing::check_binding;

use super::super::auth::{Access, ResourceKind};
use super::super::envelope::Envelope;
use super::{Answers, Session, refuse_default};

impl Session {
    pub(super) fn bind(&mut self, channel: ChannelRef, request: BindingRequest) -> Result<Option<Answer>, Exception> {
        self.check_binding_access(&request)?;
        let vhost = self.login()?.vhost.clone();
        let snapshot = self.vhost()?;
        let source = snapshot.exchanges.get(&request.source).cloned();
        let source = source.ok_or_else(|| Exception::no_exchange(&request.source, &vhost))?;
        match &request.destination {
            Destination::Exchange(name) if !snapshot.exchanges.contains_key(name) => {
                return Err(Exception::no_exchange(name, &vhost));
            }
            Destination::Queue(name) if !snapshot.queues.contains_key(name) => {
                return Err(Exception::no_queue(name, &vhost));
            }
            Destination::Exchange(_) | Destination::Queue(_) => {}
        }
        let binding = binding_of(request);
        check_binding(source.kind, &binding).map_err(Exception::precondition_failed)?;
        if let Destination::Queue(name) = &binding.destination {
            self.usable_queue(name)?;
        }
        let replay = (source.kind == ExchangeKind::RecentHistory).then(|| binding.clone());
        let added = self.broker.define(|metadata| {
            let still_there = metadata.vhost(&vhost).is_some_and(|snapshot| {
                snapshot.exchanges.contains_key(&binding.source)
                    && match &binding.destination {
                        Destination::Queue(name) => snapshot.queues.contains_key(name),
                        Destination::Exchange(name) => snapshot.exchanges.contains_key(name),
                    }
            });
            still_there && metadata.bind(&vhost, binding)
        });
        self.refresh();
        if let Some(binding) = replay.filter(|_| added)
            && let Destination::Queue(queue) = &binding.destination
            && let Some(target) = self.vhost()?.routing.queue(queue.as_str().as_bytes())
        {
            self.send(0, Envelope::Replay { vhost, exchange: binding.source, target });
        }
        Ok(self.done(channel, Answers::of(source.durable)))
    }

    pub(super) fn unbind(&mut self, channel: ChannelRef, request: BindingRequest) -> Result<Option<Answer>, Exception> {
        self.check_binding_access(&request)?;
        if let Destination::Queue(name) = &request.destination
            && self.vhost()?.queues.contains_key(name)
        {
            self.usable_queue(name)?;
        }
        let vhost = self.login()?.vhost.clone();
        let binding = binding_of(request);
        self.broker.define(|metadata| metadata.unbind(&vhost, &binding));
        self.refresh();
        Ok(self.done(channel, Answers::Durably))
    }

    /// Neither end is the default exchange; write on the destination, read on the source.
    fn check_binding_access(&self, request: &BindingRequest) -> Result<(), Exception> {
        match &request.destination {
            Destination::Queue(name) => {
                self.check(Access::Write, ResourceKind::Queue, name.as_str())?;
            }
            Destination::Exchange(name) => {
                self.check(Access::Write, ResourceKind::Exchange, name.as_str())?;
                refuse_default(name)?;
            }
        }
        refuse_default(&request.source)?;
        self.check(Access::Read, ResourceKind::Exchange, request.source.as_str())?;
        match self.vhost()?.exchanges.get(&request.source) {
            Some(source) => self.check_topic(Access::Read, source, request.key.as_bytes()),
            None => Ok(()),
        }
    }
}

fn binding_of(request: BindingRequest) -> Binding {
    let BindingRequest { source, destination, key, arguments } = request;
    Binding { source, destination, key, arguments: sorted(arguments) }
}

/// Arguments as they are stored and compared: sorted by key, the first of duplicates.
pub(super) fn sorted(mut arguments: FieldTable) -> FieldTable {
    arguments.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    arguments.0.dedup_by(|(later, _), (first, _)| later == first);
    arguments
}
