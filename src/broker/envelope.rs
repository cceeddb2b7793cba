//! What crosses from a session, the definitions or the log to a shard.

use std::sync::Arc;

use crate::model::entity::Queue;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, QueueId};
use crate::model::names::{ExchangeName, VhostName};
use crate::model::statistics::ConnectionRecord;
use crate::queue::{Command, Fifo, Loaded, Publish};
use crate::routing::QueueTarget;

use super::link::ChannelLimit;
use super::outbox::Outbox;

/// One thing for a shard to do.
#[derive(Debug)]
pub(super) enum Envelope {
    Enqueue {
        queue: QueueId,
        publish: Publish,
        /// The record that this dead letter comes from.
        source: Option<Arc<Source>>,
    },
    Command {
        queue: QueueId,
        command: Command,
        ask: Option<(ChannelRef, AskKind)>,
    },
    /// A new queue; answered like a declaration.
    Create {
        queue: Arc<Queue>,
        ask: Option<ChannelRef>,
    },
    /// A session introduces itself before anything else it sends.
    Attach {
        connection: ConnectionId,
        outbox: Arc<Outbox>,
        record: Arc<ConnectionRecord>,
    },
    /// The end of a session's batch: its publishes of this many bytes are taken.
    Taken {
        outbox: Arc<Outbox>,
        bytes: usize,
    },
    /// The channel-wide limit of a channel; none removes it.
    Limit {
        connection: ConnectionId,
        channel: u16,
        limit: Option<Arc<ChannelLimit>>,
    },
    /// Delivery credit returned, or room under a channel-wide limit was made in another shard.
    Resume(ConnectionId),
    /// Ends a consumer, whichever queue it is on.
    CancelConsumer(ConsumerId),
    /// Ends a channel's consumers, requeues what it holds, and reports `Joined`.
    ChannelDown(ChannelRef),
    /// Ends everything of the connection and reports `ShardDown`.
    ConnectionDown(ConnectionId),
    /// Reports `Joined` once all before it is done.
    Join(ChannelRef),
    /// Reports `Joined` once all before it is done, and durable as far as it is to be.
    JoinDurably(ChannelRef),
    /// A durable queue as the log had it.
    Adopt {
        queue: Arc<Queue>,
        machine: Box<Fifo>,
    },
    /// What a queue asked the log for.
    Loaded {
        queue: QueueId,
        first: u64,
        last: u64,
        entries: Vec<Loaded>,
    },
    /// Records up to the index can be read back.
    Flushed(Vec<(QueueId, MessageIndex)>),
    /// The queue's policies have changed.
    Configure(Arc<Queue>),
    /// Tells the outbox of the queues' consumers.
    ListConsumers {
        queues: Vec<QueueId>,
        outbox: Arc<Outbox>,
    },
    /// A recent-history exchange saw a message.
    Remember {
        vhost: VhostName,
        exchange: ExchangeName,
        publish: Publish,
        length: usize,
    },
    /// A queue was bound to a recent-history exchange.
    Replay {
        vhost: VhostName,
        exchange: ExchangeName,
        target: QueueTarget,
    },
    /// A recent-history exchange is gone.
    Forget {
        vhost: VhostName,
        exchange: ExchangeName,
    },
}

/// What a queue's reply is an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskKind {
    Declare,
    /// A declaration that only looks.
    Inspect,
    Consume,
    Other,
    Delete,
}

/// The record of a message that died, which is dead in the log too once its letters are in their queues: whoever drops
/// the last handle writes that, so that no crash loses the message in between.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) queue: QueueId,
    pub(super) index: MessageIndex,
}

/// A part of the log that a queue needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadRequest {
    pub(super) queue: QueueId,
    pub(super) first: u64,
    pub(super) last: u64,
}
