//! queue.declare, delete and purge.

use std::sync::Arc;

use crate::model::entity::{
    ArgumentError, Queue, QueueOptions, QueueType, check_queue_arguments, queue_arguments_difference,
};
use crate::model::exception::{Exception, ReplyCode};
use crate::model::ids::ChannelRef;
use crate::model::names::{QueueName, VhostName};
use crate::model::request::{Answer, DeclareQueue};
use crate::model::statistics::ChurnNumber;
use crate::model::table::{FieldTable, FieldValue};
use crate::queue::Command;

use super::super::arguments::queue_options;
use super::super::auth::{Access, ResourceKind};
use super::super::envelope::{AskKind, Envelope};
use super::super::replies::{REPLY_TO, token_of};
use super::Session;
use super::bindings::sorted;

/// The longest prefix of generated names a client may choose.
const NAME_PREFIX_MAX: usize = 64;

/// Why a queue was not made.
enum Undeclared {
    Exists(Arc<Queue>),
    LimitOfAll(usize),
    LimitOfVhost(u64),
}

impl Session {
    pub(super) fn declare_queue(
        &mut self,
        channel: ChannelRef,
        mut declare: DeclareQueue,
    ) -> Result<Option<Answer>, Exception> {
        if let Some(answer) = self.declare_reply_queue(&declare)? {
            return Ok(Some(answer));
        }
        if declare.passive {
            return self.inspect_queue(channel, &declare.queue);
        }
        let prefix = take_name_prefix(&mut declare.arguments)?;
        let chosen = self.choose_type(&mut declare);
        declare.durable &= !declare.exclusive;
        let vhost = self.login()?.vhost.clone();
        if declare.queue.as_str().is_empty() {
            let queue_type = chosen.clone()?;
            if queue_type != QueueType::Classic {
                let module = queue_type.module_name();
                let text = format!("Cannot declare a server-named queue for type {module}");
                return Err(Exception::precondition_failed(text));
            }
            let prefix = prefix.as_deref().unwrap_or("amq.gen");
            declare.queue = QueueName::new(&self.random.name(prefix));
        } else if declare.queue.as_str().starts_with("amq.") {
            let text = format!("queue name '{}' contains reserved prefix 'amq.*'", declare.queue);
            return Err(Exception::access_refused(text));
        }
        self.check(Access::Configure, ResourceKind::Queue, declare.queue.as_str())?;
        // Who may not declare it is told so, whatever is wrong with the rest.
        let queue_type = chosen?;
        if let Some(existing) = self.vhost()?.queues.get(&declare.queue).cloned() {
            return self.redeclare(channel, &existing, &declare, queue_type);
        }
        self.check_dead_letter_access(&declare, &vhost)?;
        let options = self.options(&declare, queue_type, &vhost)?;
        self.create_queue(channel, declare, queue_type, options)
    }

    /// A declaration of the reply-to pseudo queue only asks whether the requester is there.
    fn declare_reply_queue(&self, declare: &DeclareQueue) -> Result<Option<Answer>, Exception> {
        let name = declare.queue.as_str();
        let instance = token_of(name.as_bytes());
        if name != REPLY_TO && instance.is_none() {
            return Ok(None);
        }
        if instance.is_none_or(|token| self.broker.replies.contains(token)) {
            let consumers = u64::from(instance.is_some());
            return Ok(Some(Answer::QueueDeclared { queue: declare.queue.clone(), ready: 0, consumers }));
        }
        Err(Exception::no_queue(name, &self.login()?.vhost))
    }

    fn inspect_queue(&mut self, channel: ChannelRef, name: &QueueName) -> Result<Option<Answer>, Exception> {
        self.check_any(ResourceKind::Queue, name.as_str())?;
        let queue = self.usable_queue(name)?;
        self.command(channel, queue.id, Command::Touch, AskKind::Inspect)
    }

    /// The queue type the arguments ask for, or the default one where the flags allow it.
    fn choose_type(&self, declare: &mut DeclareQueue) -> Result<QueueType, Exception> {
        let (name, vhost) = (&declare.queue, &self.login()?.vhost);
        match declare.arguments.find("x-queue-type") {
            Some(value) => {
                let text = value.as_str().ok_or_else(|| {
                    let kind = value.type_name();
                    let reason = format!("{{unacceptable_type,{kind}}}");
                    Exception::precondition_failed(format!(
                        "invalid arg 'x-queue-type' for queue '{name}' in vhost '{vhost}': {reason}"
                    ))
                })?;
                QueueType::from_name(text).ok_or_else(|| {
                    Exception::precondition_failed(format!(
                        "invalid arg 'x-queue-type' for queue '{name}' in vhost '{vhost}': \"unsupported queue type '{text}'\""
                    ))
                })
            }
            None => {
                let of_vhost = self.vhost()?.metadata.default_queue_type;
                let chosen = of_vhost.unwrap_or(self.broker.settings.default_queue_type);
                let fits = declare.durable && !declare.exclusive && !declare.auto_delete && !name.as_str().is_empty();
                if chosen == QueueType::Classic || !fits {
                    return Ok(QueueType::Classic);
                }
                declare.arguments.push("x-queue-type", FieldValue::string(chosen.name()));
                Ok(chosen)
            }
        }
    }

    fn redeclare(
        &mut self,
        channel: ChannelRef,
        existing: &Queue,
        declare: &DeclareQueue,
        queue_type: QueueType,
    ) -> Result<Option<Answer>, Exception> {
        let (name, vhost) = (&existing.name, &existing.vhost);
        let owner = existing.exclusive;
        if owner.is_some_and(|owner| owner != self.connection) || owner.is_some() != declare.exclusive {
            return Err(Exception::queue_locked(name, vhost));
        }
        let flags = [
            ("durable", declare.durable, existing.durable),
            ("auto_delete", declare.auto_delete, existing.auto_delete),
        ];
        for (flag, received, current) in flags {
            if received != current {
                return Err(inequivalent(
                    flag,
                    name,
                    vhost,
                    &format!("received '{received}' but current is '{current}'"),
                ));
            }
        }
        if let Some((argument, difference)) =
            queue_arguments_difference(queue_type, &existing.arguments, &declare.arguments)
        {
            return Err(inequivalent(argument, name, vhost, &difference));
        }
        self.broker.registry.churn.add_shared(ChurnNumber::QueuesDeclared, 1);
        self.command(channel, existing.id, Command::Touch, AskKind::Declare)
    }

    fn check_dead_letter_access(&self, declare: &DeclareQueue, vhost: &VhostName) -> Result<(), Exception> {
        let Some(value) = declare.arguments.find("x-dead-letter-exchange") else { return Ok(()) };
        let Some(exchange) = value.as_str() else {
            return Err(Exception::precondition_failed(format!(
                "invalid type '{}' for arg 'x-dead-letter-exchange' in queue '{}' in vhost '{vhost}'",
                value.type_name(),
                declare.queue
            )));
        };
        self.check(Access::Read, ResourceKind::Queue, declare.queue.as_str())?;
        self.check(Access::Write, ResourceKind::Exchange, exchange)
    }

    /// Checks everything about a new queue and reads what it is to do.
    fn options(
        &self,
        declare: &DeclareQueue,
        queue_type: QueueType,
        vhost: &VhostName,
    ) -> Result<QueueOptions, Exception> {
        let name = &declare.queue;
        check_queue_arguments(queue_type, &declare.arguments).map_err(|error| {
            Exception::precondition_failed(match error {
                ArgumentError::Invalid { name: argument, reason } => {
                    format!("invalid arg '{argument}' for queue '{name}' in vhost '{vhost}': {reason}")
                }
                ArgumentError::WrongType { name: argument, queue_type } => format!(
                    "invalid arg '{argument}' for queue '{name}' in vhost '{vhost}' of queue type {}",
                    queue_type.module_name()
                ),
            })
        })?;
        let settings = &self.broker.settings;
        if queue_type != QueueType::Classic {
            let (kind, node) = (queue_type.module_name(), &settings.node_name);
            let text = format!(
                "Cannot declare a queue 'queue '{name}' in vhost '{vhost}'' of type '{kind}' on node '{node}': the \
                 corresponding feature flag is disabled"
            );
            return Err(Exception::new(ReplyCode::InternalError, text));
        }
        if !settings.transient_nonexclusive_queues && !declare.durable && !declare.exclusive {
            let text = "Feature `transient_nonexcl_queues` is deprecated.\nBy default, this feature is not permitted \
                        anymore.\nSet compatibility.transient_nonexclusive_queues = true to permit it.";
            return Err(Exception::new(ReplyCode::InternalError, text));
        }
        Ok(queue_options(&declare.arguments, declare.auto_delete, settings))
    }

    fn create_queue(
        &mut self,
        channel: ChannelRef,
        declare: DeclareQueue,
        queue_type: QueueType,
        options: QueueOptions,
    ) -> Result<Option<Answer>, Exception> {
        let vhost = self.login()?.vhost.clone();
        let limits = self.broker.limits();
        let (all_max, node_max) = (limits.queues, limits.queues_per_vhost);
        // The session must be known to the shard, and what it sent before must be there before the queue.
        let shards = self.broker.shard_count();
        (0..shards).for_each(|shard| self.attach(shard));
        // Driven as well, not only pushed: the batches are empty afterwards, and nobody else would wake those shards.
        self.flush(self.now);
        let arguments = sorted(declare.arguments.clone());
        let broker = Arc::clone(&self.broker);
        let connection = self.connection;
        let outcome = broker.define_and_post(|metadata, envelopes| {
            let snapshot = metadata.vhost(&vhost);
            if let Some(existing) = snapshot.and_then(|snapshot| snapshot.queues.get(&declare.queue)) {
                return Err(Undeclared::Exists(Arc::clone(existing)));
            }
            if all_max != 0 && metadata.topology().queue_count() >= all_max {
                return Err(Undeclared::LimitOfAll(all_max));
            }
            let vhost_max = snapshot.and_then(|snapshot| snapshot.limits.max_queues);
            let node_max = (node_max != 0).then_some(node_max as u64);
            let max = vhost_max.into_iter().chain(node_max).min().unwrap_or(u64::MAX);
            if snapshot.is_none_or(|snapshot| snapshot.queues.size() as u64 >= max) {
                return Err(Undeclared::LimitOfVhost(max));
            }
            let id = metadata.new_queue_id();
            let queue = metadata.add_queue(Queue {
                id,
                vhost: vhost.clone(),
                name: declare.queue.clone(),
                durable: declare.durable,
                exclusive: declare.exclusive.then_some(connection),
                auto_delete: declare.auto_delete,
                arguments,
                options,
                policy: None,
                statistics: Arc::default(),
            });
            // The shard hears of the queue before anybody can route to it.
            let shard = super::shard_of(queue.id, shards);
            let envelope = Envelope::Create { queue: Arc::clone(&queue), ask: Some(channel) };
            envelopes.push((shard, envelope));
            Ok(shard)
        });
        self.refresh();
        match outcome {
            Ok(shard) => {
                broker.registry.churn.add_shared(ChurnNumber::QueuesDeclared, 1);
                broker.registry.churn.add_shared(ChurnNumber::QueuesCreated, 1);
                broker.drive(shard, self.now);
                Ok(None)
            }
            Err(Undeclared::Exists(existing)) => self.redeclare(channel, &existing, &declare, queue_type),
            Err(Undeclared::LimitOfAll(max)) => Err(Exception::precondition_failed(format!(
                "cannot declare queue '{}': queue limit in cluster ({max}) is reached",
                declare.queue
            ))),
            Err(Undeclared::LimitOfVhost(max)) => Err(Exception::precondition_failed(format!(
                "cannot declare queue '{}': queue limit in vhost '{vhost}' ({max}) is reached",
                declare.queue
            ))),
        }
    }

    /// Introduces the session to a shard.
    fn attach(&mut self, shard: u16) {
        let _ = self.batch(shard);
    }

    pub(super) fn delete_queue(
        &mut self,
        channel: ChannelRef,
        name: &QueueName,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Option<Answer>, Exception> {
        self.check(Access::Configure, ResourceKind::Queue, name.as_str())?;
        if !self.vhost()?.queues.contains_key(name) {
            return Ok(Some(Answer::Messages(0)));
        }
        let queue = self.usable_queue(name)?;
        self.command(channel, queue.id, Command::Delete { if_unused, if_empty }, AskKind::Delete)
    }

    pub(super) fn purge_queue(&mut self, channel: ChannelRef, name: &QueueName) -> Result<Option<Answer>, Exception> {
        self.check(Access::Read, ResourceKind::Queue, name.as_str())?;
        let queue = self.usable_queue(name)?;
        self.command(channel, queue.id, Command::Purge, AskKind::Other)
    }

    /// Deletes the queues that only this connection could use.
    pub(super) fn delete_exclusive_queues(&mut self) {
        let Some(login) = &self.login else { return };
        let queues = self.broker.metadata.lock().exclusive_queues(&login.vhost, self.connection);
        for queue in queues {
            let command = Command::Delete { if_unused: false, if_empty: false };
            self.send(self.shard_of(queue.id), Envelope::Command { queue: queue.id, command, ask: None });
        }
    }
}

fn inequivalent(argument: &str, name: &QueueName, vhost: &VhostName, difference: &str) -> Exception {
    Exception::precondition_failed(format!(
        "inequivalent arg '{argument}' for queue '{name}' in vhost '{vhost}': {difference}"
    ))
}

/// Removes `x-name-prefix`, the prefix of a generated name.
fn take_name_prefix(arguments: &mut FieldTable) -> Result<Option<String>, Exception> {
    let prefix = arguments.find("x-name-prefix").and_then(FieldValue::as_str).map(str::to_owned);
    arguments.0.retain(|(key, _)| &**key != "x-name-prefix");
    match prefix {
        Some(prefix) if prefix.len() > NAME_PREFIX_MAX => {
            Err(Exception::precondition_failed(format!("Queue name prefix '{prefix}' exceeds the 64-byte limit")))
        }
        prefix => Ok(prefix),
    }
}
