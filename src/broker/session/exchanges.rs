//! exchange.declare and exchange.delete.

use crate::model::entity::{Exchange, ExchangeKind, argument_difference};
use crate::model::exception::Exception;
use crate::model::ids::ChannelRef;
use crate::model::names::{ExchangeName, VhostName};
use crate::model::request::{Answer, DeclareExchange};
use crate::routing::check_exchange_arguments;

use super::super::arguments::{ALTERNATE, alternate_exchange};
use super::super::auth::{Access, ResourceKind};
use super::{Answers, Session, refuse_default};

impl Session {
    /// The checks are in RabbitMQ's order.
    pub(super) fn declare_exchange(
        &mut self,
        channel: ChannelRef,
        declare: DeclareExchange,
    ) -> Result<Option<Answer>, Exception> {
        let name = declare.exchange.clone();
        let vhost = self.login()?.vhost.clone();
        if declare.passive {
            refuse_default(&name)?;
            self.check_any(ResourceKind::Exchange, name.as_str())?;
            let exists = self.vhost()?.exchanges.contains_key(&name);
            return if exists { Ok(Some(Answer::Done)) } else { Err(Exception::no_exchange(&name, &vhost)) };
        }
        let kind = ExchangeKind::from_name(&declare.kind)
            .ok_or_else(|| Exception::precondition_failed(format!("unknown exchange type '{}'", declare.kind)))?;
        refuse_default(&name)?;
        self.check(Access::Configure, ResourceKind::Exchange, name.as_str())?;
        let arguments = super::bindings::sorted(declare.arguments.clone());
        if let Some(existing) = self.vhost()?.exchanges.get(&name) {
            equivalent(existing, kind, &declare, &vhost)?;
            return Ok(self.done(channel, Answers::of(declare.durable)));
        }
        if name.as_str().starts_with("amq.") {
            let text = format!("exchange name '{name}' contains reserved prefix 'amq.*'");
            return Err(Exception::access_refused(text));
        }
        let alternate = alternate_exchange(&arguments).map_err(|other| {
            Exception::precondition_failed(format!(
                "invalid type '{}' for arg '{ALTERNATE}' in exchange '{name}' in vhost '{vhost}'",
                other.type_name()
            ))
        })?;
        if let Some(alternate) = &alternate {
            self.check(Access::Read, ResourceKind::Exchange, name.as_str())?;
            self.check(Access::Write, ResourceKind::Exchange, alternate.as_str())?;
        }
        let max = self.broker.limits().exchanges;
        if max != 0 && self.broker.topology().exchange_count() >= max {
            return Err(Exception::precondition_failed(format!(
                "cannot declare exchange '{name}': exchange limit of {max} is reached"
            )));
        }
        let max = self.broker.limits().exchanges_per_vhost;
        if max != 0 && self.vhost()?.exchanges.size() >= max {
            return Err(Exception::precondition_failed(format!(
                "cannot declare exchange '{name}' in vhost '{vhost}': exchange limit of {max} is reached"
            )));
        }
        check_exchange_arguments(kind, &arguments).map_err(Exception::precondition_failed)?;
        let exchange = Exchange {
            name: name.clone(),
            kind,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments,
            alternate,
        };
        // Somebody may have declared it since the snapshot was taken.
        let existing = self.broker.define(|metadata| {
            let existing = metadata.vhost(&vhost).and_then(|snapshot| snapshot.exchanges.get(&name)).cloned();
            if existing.is_none() {
                metadata.add_exchange(&vhost, exchange);
            }
            existing
        });
        self.refresh();
        existing.map_or(Ok(()), |existing| equivalent(&existing, kind, &declare, &vhost))?;
        Ok(self.done(channel, Answers::of(declare.durable)))
    }

    pub(super) fn delete_exchange(
        &mut self,
        channel: ChannelRef,
        name: &ExchangeName,
        if_unused: bool,
    ) -> Result<Option<Answer>, Exception> {
        refuse_default(name)?;
        let vhost = self.login()?.vhost.clone();
        if name.as_str().starts_with("amq.") {
            let text = format!("deletion of system exchange '{name}' in vhost '{vhost}' not allowed");
            return Err(Exception::access_refused(text));
        }
        self.check(Access::Configure, ResourceKind::Exchange, name.as_str())?;
        if !self.vhost()?.exchanges.contains_key(name) {
            return Ok(Some(Answer::Done));
        }
        let in_use = self.broker.define(|metadata| {
            if if_unused && metadata.is_bound(&vhost, name) {
                return true;
            }
            metadata.remove_exchange(&vhost, name);
            false
        });
        if in_use {
            return Err(Exception::precondition_failed(format!("exchange '{name}' in vhost '{vhost}' in use")));
        }
        self.refresh();
        Ok(self.done(channel, Answers::Durably))
    }
}

fn equivalent(
    existing: &Exchange,
    kind: ExchangeKind,
    declare: &DeclareExchange,
    vhost: &VhostName,
) -> Result<(), Exception> {
    let name = &existing.name;
    let differs = |argument: &str, received: &dyn std::fmt::Display, current: &dyn std::fmt::Display| {
        Exception::precondition_failed(format!(
            "inequivalent arg '{argument}' for exchange '{name}' in vhost '{vhost}': received '{received}' but current \
             is '{current}'"
        ))
    };
    if existing.kind != kind {
        return Err(differs("type", &kind.name(), &existing.kind.name()));
    }
    let flags = [
        ("durable", declare.durable, existing.durable),
        ("auto_delete", declare.auto_delete, existing.auto_delete),
        ("internal", declare.internal, existing.internal),
    ];
    for (flag, received, current) in flags {
        if received != current {
            return Err(differs(flag, &received, &current));
        }
    }
    let current = existing.arguments.find(ALTERNATE);
    match argument_difference(current, declare.arguments.find(ALTERNATE)) {
        None => Ok(()),
        Some(difference) => Err(Exception::precondition_failed(format!(
            "inequivalent arg '{ALTERNATE}' for exchange '{name}' in vhost '{vhost}': {difference}"
        ))),
    }
}
