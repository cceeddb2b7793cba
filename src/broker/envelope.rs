//! What crosses from a session, the definitions or the log to a shard.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::entity::Queue;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId};
use crate::model::names::{ConsumerTag, ExchangeName, VhostName};
use crate::model::statistics::ConnectionRecord;
use crate::queue::{Command, Fifo, Loaded, Publish};
use crate::routing::QueueTarget;

use super::link::ChannelLimit;
use super::outbox::{Outbox, Spent};

/// One thing for a shard to do.
#[derive(Debug)]
pub(super) enum Envelope {
    Enqueue {
        queue: QueueId,
        publish: Publish,
        /// Of a dead letter: who waits for it.
        ticket: Option<Ticket>,
    },
    /// Messages that were published to one queue one after the other.
    Run(Run),
    /// One message for several queues of the shard: however many, it is one envelope and has one verdict.
    FanOut(FanOut),
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
    /// What another shard made of what it handled; it waits with what this shard made itself.
    FromShard(Vec<Self>),
    /// The end of a session's batch: its publishes of this many bytes are taken.
    Taken {
        outbox: Arc<Outbox>,
        bytes: usize,
    },
    /// Dead letters precede it that come of publishes with this credit; so many shards have passed it on.
    Followed {
        spent: Arc<Spent>,
        passed: u8,
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
    /// Ends a consumer whose user may not read from the queue any more, and reports `ConsumerCancelled`.
    RevokeConsumer {
        consumer: ConsumerId,
        tag: ConsumerTag,
    },
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
    /// The letters with these numbers are in their queues for good.
    LettersKept(Vec<u64>),
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
    /// What such an exchange remembers, for a queue.
    Replayed(Replayed),
    /// A recent-history exchange is gone.
    Forget {
        vhost: VhostName,
        exchange: ExchangeName,
    },
}

/// Messages on their way into one queue. A turn may end in between; the next goes on.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) queue: QueueId,
    pub(super) publishes: VecDeque<Publish>,
}

/// A message on its way into several queues of one shard. A turn may end in between; the next goes on with it.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) queues: Arc<[QueueId]>,
    pub(super) publish: Publish,
    /// Of a dead letter: who waits for it.
    pub(super) ticket: Option<Ticket>,
    /// What this shard knows the message by, if it died in one of the queues before it was recorded there.
    pub(super) arrival: Arrival,
    /// How many of the queues have it.
    pub(super) done: u32,
    /// One of them refused it.
    pub(super) rejected: bool,
    /// One of them keeps it in the log, so that the verdict has to wait for that.
    pub(super) logged: bool,
}

/// Messages of a recent-history exchange on their way into a queue. A turn may end in between; the next goes on.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) queue: QueueId,
    pub(super) history: Arc<VecDeque<Publish>>,
    /// How many of the messages it has.
    pub(super) done: usize,
}

/// The queues of one shard that get a message.
#[derive(Clone, Debug)]
pub(super) enum Recipients {
    One(QueueId),
    Many(Arc<[QueueId]>),
}

/// Shards, and the recipients in each; no shard twice.
pub(super) type ByShard = SmallVec<[(u16, Recipients); 1]>;

impl Recipients {
    /// How many they are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(queues) => queues.len(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = QueueId> {
        let queues = match self {
            Self::One(queue) => std::slice::from_ref(queue),
            Self::Many(queues) => queues,
        };
        queues.iter().copied()
    }

    /// The envelope that brings them a message.
    pub(super) fn envelope(&self, publish: Publish, ticket: Option<Ticket>) -> Envelope {
        match self {
            Self::One(queue) => Envelope::Enqueue { queue: *queue, publish, ticket },
            Self::Many(queues) => Envelope::FanOut(FanOut {
                queues: Arc::clone(queues),
                publish,
                ticket,
                arrival: Arrival::default(),
                done: 0,
                rejected: false,
                logged: false,
            }),
        }
    }
}

/// The queues by their shards, those of a shard in the order they came.
pub(super) fn by_shard(targets: &[QueueTarget]) -> ByShard {
    if let [target] = targets {
        return SmallVec::from_elem((target.shard, Recipients::One(target.id)), 1);
    }
    let mut sorted = targets.to_vec();
    sorted.sort_by_key(|target| target.shard);
    let recipients = |part: &[QueueTarget]| match part {
        [target] => Recipients::One(target.id),
        _ => Recipients::Many(part.iter().map(|target| target.id).collect()),
    };
    sorted.chunk_by(|a, b| a.shard == b.shard).map(|part| (part[0].shard, recipients(part))).collect()
}

// Messages to one queue each make up nearly all of a mailbox: a fan-out is not to make its envelopes larger.
const _: () = assert!(size_of::<Envelope>() <= 144);

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

/// What a dead letter carries: the shard that waits until it is in its queues for good, in the upper 16 bits, and the
/// number it has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(NonZeroU64);

/// Bits of a ticket's number.
const TICKET_NUMBER_BITS: u32 = 48;

impl Ticket {
    /// A ticket of a shard; its numbers begin at 1.
    pub(super) fn new(shard: u16, number: u64) -> Self {
        assert!(number < 1 << TICKET_NUMBER_BITS, "a shard sends fewer letters in its life");
        let bits = u64::from(shard) << TICKET_NUMBER_BITS | number;
        Self(NonZeroU64::new(bits).expect("numbers begin at 1"))
    }

    pub(super) fn shard(self) -> u16 {
        u16::try_from(self.0.get() >> TICKET_NUMBER_BITS).expect("16 bits")
    }

    pub(super) fn number(self) -> u64 {
        self.0.get() & ((1 << TICKET_NUMBER_BITS) - 1)
    }
}

/// The letters of a message that died as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Nobody waits for them.
    #[default]
    None,
    /// Nobody waits for them alone: the ticket of the message went on to its only letter.
    Passed,
    /// They are waited for under this number.
    Waits(u64),
}

/// A part of the log that a queue needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LoadRequest {
    pub(super) queue: QueueId,
    pub(super) first: u64,
    pub(super) last: u64,
}
