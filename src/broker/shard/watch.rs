//! What a shard tells of its work besides doing it: copies for the trace exchange, and events about consumers.

use crate::model::consumer::ConsumerView;
use crate::model::ids::{ChannelRef, ConnectionId, QueueId, Timestamp};
use crate::model::message::Message;
use crate::model::names::UserName;
use crate::model::request::Delivery;
use crate::queue::Command;

use super::super::described;
use super::super::envelope::AskKind;
use super::super::firehose::{self, TracePlace};
use super::super::topology::Topology;
use super::Shard;

/// Whether a command may begin or end consumers, and somebody wants to know.
pub(super) fn changes_consumers(command: &Command, topology: &Topology) -> bool {
    matches!(
        command,
        Command::Subscribe(_)
            | Command::Cancel(_)
            | Command::ChannelDown(_)
            | Command::ConnectionDown(_)
            | Command::Delete { .. }
    ) && topology.news.has_listeners()
}

impl Shard {
    /// Who is behind a command.
    pub(super) fn asker(&self, ask: Option<(ChannelRef, AskKind)>) -> Option<UserName> {
        let link = self.links.get(&ask?.0.connection)?;
        link.record.facts.lock().user.clone()
    }

    /// Copies a delivery for the trace exchange, where tracing is on.
    pub(super) fn trace_delivery(&mut self, queue: QueueId, delivery: &Delivery, now: Timestamp, topology: &Topology) {
        let Delivery { consumer, redelivered, message, .. } = delivery;
        self.trace(queue, (consumer.connection, consumer.channel), (message, *redelivered), now, topology);
    }

    /// The same of any message that leaves a queue on a connection's channel.
    pub(super) fn trace(
        &mut self,
        queue: QueueId,
        (connection, channel): (ConnectionId, u16),
        (message, redelivered): (&Message, bool),
        now: Timestamp,
        topology: &Topology,
    ) {
        let (Some(owned), Some(link)) = (self.queues.get(&queue), self.links.get(&connection)) else { return };
        let name = &owned.definition.vhost;
        let Some(vhost) = topology.vhost(name).filter(|vhost| vhost.tracing) else { return };
        if !firehose::is_traced(message) {
            return;
        }
        let place = TracePlace { node: &topology.news.node, vhost: name, connection: &link.record, channel };
        let copy = firehose::delivered(message, owned.definition.name.as_str(), redelivered, place);
        for (shard, recipients) in firehose::targets(vhost, &copy.message, now.0.rotate_left(17) ^ queue.0) {
            self.forward(shard, recipients.envelope(copy.clone(), None));
        }
    }

    /// Tells which consumers a queue has now and did not have before, and the other way round.
    pub(super) fn note_consumers(&mut self, queue: QueueId, before: &[ConsumerView], is_deleted: bool) {
        let Some(owned) = self.queues.get(&queue) else { return };
        let after = if is_deleted { Vec::new() } else { owned.machine.consumers() };
        let is_in = |view: &ConsumerView, views: &[ConsumerView]| views.iter().any(|v| v.consumer == view.consumer);
        for view in before.iter().filter(|view| !is_in(view, &after)) {
            if let Some(link) = self.links.get(&view.consumer.connection) {
                self.output.notices.push(described::consumer_deleted(&owned.definition, view, &link.record));
            }
        }
        for view in after.iter().filter(|view| !is_in(view, before)) {
            if let Some(link) = self.links.get(&view.consumer.connection) {
                self.output.notices.push(described::consumer_created(&owned.definition, view, &link.record));
            }
        }
    }
}
