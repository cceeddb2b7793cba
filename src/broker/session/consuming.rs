//! basic.consume, cancel, get, and channel-wide prefetch.

use std::sync::Arc;

use crate::model::entity::QueueType;
use crate::model::exception::Exception;
use crate::model::ids::{ChannelRef, ConsumerId};
use crate::model::names::{ConsumerTag, QueueName, VhostName};
use crate::model::request::{Answer, ConsumeRequest};
use crate::model::table::FieldTable;
use crate::queue::{Command, Subscription};

use super::super::auth::{Access, ResourceKind};
use super::super::envelope::{AskKind, Envelope};
use super::super::link::ChannelLimit;
use super::super::replies::REPLY_TO;
use super::Session;

impl Session {
    pub(super) fn consume(
        &mut self,
        channel: ChannelRef,
        request: ConsumeRequest,
    ) -> Result<Option<Answer>, Exception> {
        if request.queue.as_str() == REPLY_TO {
            return self.consume_replies(channel, &request);
        }
        self.check(Access::Read, ResourceKind::Queue, request.queue.as_str())?;
        let queue = self.usable_queue(&request.queue)?;
        let priority = consumer_priority(&request.queue, &queue.vhost, &request.arguments)?;
        check_consumer_arguments(&request.queue, &queue.vhost, &request.arguments)?;
        if let Some(state) = self.channels.get_mut(&channel.serial)
            && let Some(limit) = &state.limit
        {
            let limit = Some(Arc::clone(limit));
            let shard = self.shard_of(queue.id);
            self.send(shard, Envelope::Limit { connection: self.connection, channel: channel.number, limit });
        }
        let subscription = Subscription {
            consumer: request.consumer,
            tag: request.tag,
            prefetch: request.prefetch,
            no_ack: request.no_ack,
            exclusive: request.exclusive,
            priority,
            arguments: request.arguments,
        };
        self.command(channel, queue.id, Command::Subscribe(subscription), AskKind::Consume)
    }

    /// A consumer of direct replies: no queue, just a name under which this channel is found.
    fn consume_replies(&mut self, channel: ChannelRef, request: &ConsumeRequest) -> Result<Option<Answer>, Exception> {
        if !request.no_ack {
            return Err(Exception::precondition_failed("reply consumer cannot acknowledge"));
        }
        let Some(state) = self.channels.get_mut(&channel.serial) else { return Ok(None) };
        if state.reply.is_some() {
            return Err(Exception::precondition_failed("reply consumer already set"));
        }
        let token = self.random.name("g1");
        state.reply = Some((token.clone(), request.consumer));
        self.broker.replies.add(token, Arc::clone(&self.outbox), request.consumer);
        Ok(Some(Answer::Done))
    }

    pub(super) fn cancel(&mut self, channel: ChannelRef, consumer: ConsumerId) -> Result<Option<Answer>, Exception> {
        if let Some(state) = self.channels.get_mut(&channel.serial)
            && let Some((token, _)) = state.reply.take_if(|(_, replies)| *replies == consumer)
        {
            self.broker.replies.remove(&token);
            return Ok(Some(Answer::Done));
        }
        // Only the shards know which queue it consumes from.
        for shard in self.attached_shards() {
            self.send(shard, Envelope::CancelConsumer(consumer));
        }
        Ok(self.join_with(channel, Answer::Done, Envelope::Join))
    }

    /// Ends a consumer that the user may not have any more.
    pub(super) fn check_consumer(&mut self, consumer: ConsumerId, tag: &ConsumerTag, queue: &QueueName) {
        let is_allowed = || self.may_use(Access::Read, ResourceKind::Queue, queue.as_str()).unwrap_or(false);
        if queue.as_str() == REPLY_TO || is_allowed() || self.has_question() {
            return;
        }
        let user = self.user().map_or("", |user| user.as_str());
        tracing::info!(user, queue = queue.as_str(), tag = tag.as_str(), "consumer ended: no read access any more");
        for shard in self.attached_shards() {
            self.send(shard, Envelope::RevokeConsumer { consumer, tag: tag.clone() });
        }
    }

    pub(super) fn get(
        &mut self,
        channel: ChannelRef,
        name: &QueueName,
        no_ack: bool,
        holder: ConsumerId,
    ) -> Result<Option<Answer>, Exception> {
        self.check(Access::Read, ResourceKind::Queue, name.as_str())?;
        let queue = self.usable_queue(name)?;
        self.command(channel, queue.id, Command::Get { holder, no_ack }, AskKind::Other)
    }

    pub(super) fn channel_prefetch(&mut self, channel: ChannelRef, limit: u16) -> Result<Option<Answer>, Exception> {
        let Some(state) = self.channels.get_mut(&channel.serial) else { return Ok(None) };
        let shared = Arc::clone(state.limit.get_or_insert_with(|| Arc::new(ChannelLimit::new(limit))));
        shared.set(limit);
        for shard in self.attached_shards() {
            let limit = Some(Arc::clone(&shared));
            self.send(shard, Envelope::Limit { connection: self.connection, channel: channel.number, limit });
        }
        Ok(Some(Answer::Done))
    }
}

/// Arguments of consumers that only queues of other types understand.
const OTHER_TYPES_ARGUMENTS: [&str; 4] =
    ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered", "x-consumer-timeout"];

fn check_consumer_arguments(queue: &QueueName, vhost: &VhostName, arguments: &FieldTable) -> Result<(), Exception> {
    let Some(argument) = OTHER_TYPES_ARGUMENTS.into_iter().find(|name| arguments.find(name).is_some()) else {
        return Ok(());
    };
    let module = QueueType::Classic.module_name();
    Err(Exception::precondition_failed(format!(
        "invalid arg '{argument}' for queue '{queue}' in vhost '{vhost}' of queue type {module}"
    )))
}

fn consumer_priority(queue: &QueueName, vhost: &VhostName, arguments: &FieldTable) -> Result<i64, Exception> {
    let Some(value) = arguments.find("x-priority") else { return Ok(0) };
    value.as_integer().ok_or_else(|| {
        let kind = value.type_name();
        Exception::precondition_failed(format!(
            "invalid arg 'x-priority' for queue '{queue}' in vhost '{vhost}': \"expected integer, got {kind}\""
        ))
    })
}
