//! What a queue does: a deterministic state machine. A command goes in, effects come out; no clock, no randomness, no IO,
//! no locks. The shard that owns the queue applies commands one at a time and carries the effects out.
//!
//! ```text
//! Command ──► Fifo::apply(now, command, gate, effects) ──► Reply to whoever asked
//!                                                     └──► Effects: deliver, confirm, dead-letter, cancelled …
//! ```

mod backlog;
mod cold;
mod consumer;
pub mod dead_letter;
mod fifo;
mod limits;
mod ready;
mod record;
mod tally;
mod unacked;
mod weight;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod naive_model;
#[cfg(test)]
mod paging_tests;
#[cfg(test)]
mod storage_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::model::entity::QueueOptions;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, Timestamp};
use crate::model::message::Message;
use crate::model::names::ConsumerTag;
use crate::model::request::{Delivery, SettleOutcome};
use crate::model::table::FieldTable;

pub use dead_letter::DeathHistory;
pub use fifo::Fifo;
pub use record::{ColdChunk, Durability, IndexRange, Loaded, Members, Reach, RecoveredQueue};
pub use tally::Tally;

/// A message on its way into a queue.
#[derive(Clone, Debug)]
pub struct Publish {
    pub message: Message,
    /// The message's own TTL in milliseconds, from its `expiration` property.
    pub expiration_ms: Option<u64>,
    pub origin: PublishOrigin,
    /// How often and where the message was dead-lettered inside this broker; none for a client's publish, whatever
    /// its headers say.
    pub deaths: Option<Arc<DeathHistory>>,
}

impl Publish {
    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.message.cost() as u64 + self.deaths.as_ref().map_or(0, |deaths| deaths.memory())
    }
}

/// Who waits for the queue to take responsibility of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOrigin {
    /// Nobody: the channel is not in confirm mode, or the broker itself publishes.
    Untracked,
    /// A channel in confirm mode or in a transaction, with the publish's sequence number.
    Channel { channel: ChannelRef, sequence: u64 },
}

/// What the queue did with a tracked publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Confirmed,
    Rejected,
}

/// A consumer as it subscribes.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub consumer: ConsumerId,
    pub tag: ConsumerTag,
    /// Largest number of unacknowledged deliveries; 0 is no limit.
    pub prefetch: u16,
    /// Deliveries are settled as they are sent, and prefetch does not count.
    pub no_ack: bool,
    pub exclusive: bool,
    /// Higher ones are served first.
    pub priority: i64,
    /// As the client gave them, for listings.
    pub arguments: FieldTable,
}

/// All a queue can be asked for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Replies `Kept` when the message is in the queue afterwards and needs a record in the log.
    Enqueue(Publish),
    /// Settles deliveries of one consumer; indexes it does not hold are ignored (a late answer after a requeue).
    Settle { consumer: ConsumerId, indexes: Vec<MessageIndex>, outcome: SettleOutcome },
    /// Replies `Subscribed` or `Refused`.
    Subscribe(Subscription),
    /// Ends a consumer; what it holds stays unacknowledged. Replies `Cancelled`.
    Cancel(ConsumerId),
    /// Takes one message on behalf of a channel; unless `no_ack` it stays unacknowledged under `holder`. Replies `Got`,
    /// `Empty` or `Later`.
    Get { holder: ConsumerId, no_ack: bool },
    /// Drops all ready messages. Replies `Purged`.
    Purge,
    /// Replies `Deleted`, `InUse` or `NotEmpty`.
    Delete { if_unused: bool, if_empty: bool },
    /// Ends all consumers of the channel and requeues all its deliveries and gets.
    ChannelDown(ChannelRef),
    /// The same for all channels of the connection.
    ConnectionDown(ConnectionId),
    /// The gate may admit this connection's consumers again.
    Resume(ConnectionId),
    /// The queue was used (declared again): its expiry lease starts afresh. Replies `QueueCounts`.
    Touch,
    /// The queue is to do something else from now on. Priorities and whether a single consumer is active stay.
    Configure(Arc<QueueOptions>),
    /// Time has passed: expires messages, unacknowledged deliveries and the queue itself.
    Tick,
    /// The answer to the `Effect::Load` with the same first and last index: the messages that were found, ascending.
    /// Those that the queue does not miss any more are ignored; those it misses and that are not there are lost.
    Loaded { first: u64, last: u64, entries: Vec<Loaded> },
}

/// The answer to the one who sent the command.
#[derive(Clone, Debug)]
pub enum Reply {
    None,
    /// The enqueued message is in the queue, ready or unacknowledged, and is to have a record in the log under this
    /// index, until the queue reports it settled or leaves it to a dead letter.
    Kept {
        index: MessageIndex,
        expires: Option<Timestamp>,
    },
    Subscribed,
    Refused(Refusal),
    Cancelled,
    Got {
        index: MessageIndex,
        redelivered: bool,
        message: Message,
        ready: u64,
    },
    Empty,
    /// The message to get is in the log only and is being loaded, or messages that expired are before it: to be asked again
    /// after the next `Loaded` or `Tick`.
    Later,
    Purged(u64),
    /// The queue is gone; the number of ready messages that went with it.
    Deleted(u64),
    InUse,
    NotEmpty,
    Counts(QueueCounts),
    /// The queue was deleted before; the asker has to look for it again.
    NotFound,
}

/// Why a subscription was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An exclusive consumer meets another consumer, or the other way round, or single-active (403).
    ExclusiveUse,
}

/// What the queue wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    Deliver(Delivery),
    Confirm {
        channel: ChannelRef,
        sequence: u64,
        verdict: Verdict,
    },
    /// The message left the queue for the reason; the shard finds the dead-letter exchange in the queue's options.
    DeadLetter {
        message: Message,
        reason: Reason,
        /// The deaths before this one, for `dead_letter::rewrite`.
        deaths: Option<Arc<DeathHistory>>,
        record: Recorded,
    },
    /// Messages are needed that are in the log only: the records from `first` to `last` are to be read and answered
    /// with `Command::Loaded`. A queue has at most four loads under way.
    Load {
        first: u64,
        last: u64,
        /// Bytes of memory that the messages will take.
        bytes: u64,
    },
    /// That many messages were not found in the log and are lost; the queue goes on without them.
    Lost {
        count: u64,
    },
    /// The queue ended this consumer; its client is told with `basic.cancel`.
    ConsumerCancelled {
        consumer: ConsumerId,
        tag: ConsumerTag,
    },
    /// A delivery was not acknowledged in time; its channel is to be closed with 406.
    ConsumerTimeout {
        consumer: ConsumerId,
    },
    /// Auto-delete or expiry: the queue is empty of purpose and is to be deleted. Emitted once; the machine is finished.
    Gone,
}

// The kind of an effect has its place beside `redelivered`. An effect with more in it than comes before that would need
// a byte of its own for it, and be copied by odd bytes: that takes longer than the rest of a delivery.
const _: () = assert!(size_of::<Effect>() == size_of::<Delivery>());

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    /// As `x-death` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// Whether the log has a message that becomes a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It has none, and needs none: the message does not outlive the broker.
    No,
    /// The queue's log has it under this index, and the queue does not report it as settled: whoever carries the effect
    /// out says so with `Fifo::letters_kept` once the letters are in their queues.
    As(MessageIndex),
    /// It was just published, and dies before it could be recorded: whoever answers for the publish answers for its
    /// letters.
    NotYet,
}

/// Numbers of a queue, as declare-ok and listings show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub ready: u64,
    pub unacked: u64,
    pub consumers: u64,
    /// Body bytes.
    pub ready_bytes: u64,
    /// Body bytes.
    pub unacked_bytes: u64,
}

/// Where the messages of a queue are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Ready and unacknowledged messages that have records of their own.
    pub persistent: u64,
    /// Ready messages that are in the log only.
    pub cold: u64,
    /// Body bytes of those.
    pub cold_bytes: u64,
}

/// Whether a delivery is settled as it is sent or stays unacknowledged until its consumer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    Automatic,
    Manual,
}

/// Decides whether a consumer's connection can take more right now. The shard implements it with byte credit per
/// connection and the channel-wide prefetch limit; the queue only asks. A refused consumer is set aside until
/// `Command::Resume` of its connection, also when it settles deliveries in between: whoever frees credit or room under
/// a channel-wide limit sends `Resume` to the queues whose consumers it had refused.
///
/// What is called when:
/// - `admits`, then `spend`, once for each delivery to a consumer, whatever its acknowledgement mode.
/// - `spend` alone for each message handed out by `Get`, which no limit holds back.
/// - `settled` once per command and consumer whose `AckMode::Manual` deliveries ended: by `Settle` with any outcome,
///   with the number that were really held; by `ChannelDown` and `ConnectionDown`; and when the queue is deleted or
///   gone, since later answers are ignored. `Cancel` settles nothing. So the sum of manual spends less the sum of
///   settled counts is the number of unacknowledged deliveries, at any time.
pub trait Gate {
    /// Whether a delivery to this consumer may be made now.
    fn admits(&mut self, consumer: ConsumerId) -> bool;
    /// A delivery of `cost` bytes (`Message::cost`) was made to this consumer or get holder.
    fn spend(&mut self, consumer: ConsumerId, cost: usize, mode: AckMode);
    /// `count` manual deliveries of this consumer or get holder are unacknowledged no more; never 0.
    fn settled(&mut self, consumer: ConsumerId, count: usize);
}

/// A gate that admits everything, for tests and benchmarks.
#[derive(Debug, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn admits(&mut self, _consumer: ConsumerId) -> bool {
        true
    }

    fn spend(&mut self, _consumer: ConsumerId, _cost: usize, _mode: AckMode) {}

    fn settled(&mut self, _consumer: ConsumerId, _count: usize) {}
}
