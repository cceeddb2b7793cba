//! What a front end may ask of the broker, and what it hears back.
//!
//! Requests go forward in order. Publishes and settlements are answered by events only when there is something to say;
//! an `Ask` is answered by exactly one `Answer` or `Exception` for its channel, and the channel waits for it.

use super::consumer::ConsumerView;
use super::exception::Exception;
use super::ids::{ChannelRef, ConsumerId, MessageIndex, QueueId};
use super::message::Message;
use super::names::{ConsumerTag, ExchangeName, QueueName, RoutingKey, UserName, VhostName};
use super::table::FieldTable;

/// From a front end to its session.
#[derive(Clone, Debug)]
pub enum Request {
    /// Answered by `Event::LoggedIn` or `Event::LoginRefused`.
    Login {
        mechanism: Mechanism,
    },
    /// Answered by `Event::VhostOpened` or a connection exception.
    OpenVhost(VhostName),
    /// Answered by `Event::SecretUpdated` or a connection exception.
    UpdateSecret(Vec<u8>),
    /// Ends the consumer unless the user may still read from its queue; then `Event::ConsumerCancelled` says so.
    CheckConsumer {
        consumer: ConsumerId,
        tag: ConsumerTag,
        queue: QueueName,
    },
    /// A channel exists from here on.
    OpenChannel(ChannelRef),
    Publish(PublishRequest),
    Settle(Settlement),
    Ask {
        channel: ChannelRef,
        ask: Ask,
    },
    /// Ends the channel: consumers end, deliveries are requeued, requests that follow it are discarded until it is
    /// opened again. Answered by `Answer::ChannelClosed`.
    CloseChannel(ChannelRef),
    /// Ends everything of the connection, its exclusive queues included. Answered by `Event::ConnectionClosed`.
    CloseConnection,
    /// This many bytes of deliveries left for the socket: their credit is free again.
    DeliveriesSent {
        bytes: usize,
    },
}

/// A login as the client presents it.
#[derive(Clone, PartialEq, Eq)]
pub enum Mechanism {
    /// PLAIN and AMQPLAIN alike: a name and a password.
    Password {
        user: UserName,
        password: Vec<u8>,
        mechanism: &'static str,
    },
    Anonymous,
    /// EXTERNAL: the name is the one of the client certificate, which the transport has checked; otherwise the reason
    /// why it gives none.
    External {
        user: Result<UserName, String>,
    },
}

impl std::fmt::Debug for Mechanism {
    /// Never shows the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, mechanism, .. } => write!(f, "{mechanism}({user})"),
            Self::Anonymous => f.write_str("ANONYMOUS"),
            Self::External { user: Ok(user) } => write!(f, "EXTERNAL({user})"),
            Self::External { user: Err(reason) } => write!(f, "EXTERNAL({reason})"),
        }
    }
}

/// `basic.publish` with its content.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    pub channel: ChannelRef,
    pub message: Message,
    pub mandatory: bool,
    /// The publish's number on a channel in confirm or transaction mode.
    pub sequence: Option<u64>,
    /// Held until the transaction commits.
    pub transactional: bool,
}

/// Deliveries of one consumer (or get holder) that are settled alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub queue: QueueId,
    pub consumer: ConsumerId,
    pub indexes: Vec<MessageIndex>,
    pub outcome: SettleOutcome,
}

/// What the client said of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    Ack,
    /// Back to its original position.
    Requeue,
    /// Dead-letter with reason rejected, or drop.
    Reject,
}

/// Requests that are answered, one at a time on a channel.
#[derive(Clone, Debug)]
pub enum Ask {
    DeclareExchange(DeclareExchange),
    DeleteExchange {
        exchange: ExchangeName,
        if_unused: bool,
    },
    DeclareQueue(DeclareQueue),
    DeleteQueue {
        queue: QueueName,
        if_unused: bool,
        if_empty: bool,
    },
    PurgeQueue {
        queue: QueueName,
    },
    Bind(BindingRequest),
    Unbind(BindingRequest),
    Consume(ConsumeRequest),
    Cancel {
        consumer: ConsumerId,
        tag: ConsumerTag,
    },
    Get {
        queue: QueueName,
        no_ack: bool,
        holder: ConsumerId,
    },
    /// The channel-wide limit of unacknowledged deliveries; 0 removes it.
    ChannelPrefetch {
        limit: u16,
    },
    /// Requeues the deliveries; answered before any of them is delivered again.
    Recover {
        settlements: Vec<Settlement>,
    },
    /// Publishes what the channel's transaction holds, then settles. The verdicts follow as confirms.
    Commit {
        settlements: Vec<Settlement>,
    },
    /// Drops the publishes that the channel's transaction holds.
    Rollback,
    /// Nothing: answered when everything before it has been accepted.
    Proceed,
}

/// `exchange.declare`.
#[derive(Clone, Debug)]
pub struct DeclareExchange {
    pub exchange: ExchangeName,
    pub kind: String,
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: FieldTable,
}

/// `queue.declare`; an empty name asks for a generated one.
#[derive(Clone, Debug)]
pub struct DeclareQueue {
    pub queue: QueueName,
    pub passive: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: FieldTable,
}

/// `queue.bind`, `queue.unbind`, `exchange.bind`, `exchange.unbind`.
#[derive(Clone, Debug)]
pub struct BindingRequest {
    pub source: ExchangeName,
    pub destination: super::entity::Destination,
    pub key: RoutingKey,
    pub arguments: FieldTable,
}

/// `basic.consume`.
#[derive(Clone, Debug)]
pub struct ConsumeRequest {
    pub consumer: ConsumerId,
    pub queue: QueueName,
    pub tag: ConsumerTag,
    pub prefetch: u16,
    pub no_ack: bool,
    pub exclusive: bool,
    pub arguments: FieldTable,
}

/// From the broker to a front end.
#[derive(Debug)]
pub enum Event {
    LoggedIn,
    LoginRefused,
    VhostOpened,
    SecretUpdated,
    Deliver {
        queue: QueueId,
        delivery: Delivery,
    },
    /// A shard's verdict on the channel's publishes `first..=last`, for all their queues in it: a rejection if one refused.
    Confirm {
        channel: ChannelRef,
        first: u64,
        last: u64,
        confirmed: bool,
    },
    /// A tracked publish has this many verdicts, one for each shard with queues it went to; said when it is not one.
    Routed {
        channel: ChannelRef,
        sequence: u64,
        verdicts: u32,
    },
    /// A mandatory publish had no queue to go to.
    Return {
        channel: ChannelRef,
        message: Message,
    },
    Answer {
        channel: ChannelRef,
        answer: Answer,
    },
    /// A publish on the channel was refused.
    PublishRefused {
        channel: ChannelRef,
        exception: Exception,
    },
    /// The channel's request was refused; a hard one closes the connection.
    Exception {
        channel: Option<ChannelRef>,
        exception: Exception,
    },
    /// A delivery to this consumer was not acknowledged in time: its channel closes with 406.
    ConsumerTimeout {
        consumer: ConsumerId,
        timeout_ms: u64,
    },
    /// The broker ended the consumer: its queue is gone, or the user may not read from it any more.
    ConsumerCancelled {
        consumer: ConsumerId,
        tag: ConsumerTag,
    },
    /// A resource alarm holds this connection's publishes back.
    Blocked {
        reason: &'static str,
    },
    Unblocked,
    /// Everything of the connection has ended.
    ConnectionClosed,
    /// The broker wants the connection closed: 320 with this text.
    Shutdown {
        text: String,
    },
    /// The connection is to be closed at once: 320 with this text.
    ForceClose {
        text: String,
    },
    /// For the session itself, never for a front end.
    Internal(Internal),
}

/// What shards tell a session.
#[derive(Debug)]
pub enum Internal {
    /// One shard has carried out its part of what the channel waits for.
    Joined { channel: ChannelRef },
    /// One shard has ended everything of the connection.
    ShardDown,
    /// The queue went away while it was being declared.
    DeclareAgain { channel: ChannelRef },
    /// Everything before it is durable.
    Durable,
    /// The consumers of the queues that were asked about.
    Consumers { consumers: Vec<(QueueId, ConsumerView)> },
}

/// One message for one consumer.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub consumer: ConsumerId,
    /// Its place in the queue, which its acknowledgement names.
    pub index: MessageIndex,
    /// Of the connection's delivery credit, in bytes.
    pub cost: usize,
    pub redelivered: bool,
    pub message: Message,
}

/// The outcome of an `Ask` or a `CloseChannel`.
#[derive(Debug)]
pub enum Answer {
    Done,
    QueueDeclared {
        queue: QueueName,
        ready: u64,
        consumers: u64,
    },
    /// The queue is deleted or purged; the number of messages that went.
    Messages(u64),
    Got {
        queue: QueueId,
        index: MessageIndex,
        redelivered: bool,
        message: Message,
        ready: u64,
    },
    Empty,
    ChannelClosed,
}
