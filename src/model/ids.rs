//! Numbers that name things inside one broker process.

/// A client connection; never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// A queue; never reused, so a queue declared again after deletion has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

impl QueueId {
    /// No queue: a direct reply goes from connection to connection.
    pub const DIRECT_REPLY: Self = Self(0);
}

/// A message's place in its queue: assigned at enqueue from 1, kept across requeues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageIndex(pub u64);

/// Milliseconds since the Unix epoch. Machines receive time as an argument and never read a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus `ms`, saturating at the end of time.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// One incarnation of a channel: its number may be reopened, its serial is never reused within the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelRef {
    pub connection: ConnectionId,
    /// Unique among all channels and consumers the connection ever had.
    pub serial: u32,
    pub number: u16,
}

/// One consumer, or one channel's stream of `basic.get`s, which owns its unacknowledged messages likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId {
    pub connection: ConnectionId,
    /// Unique among all channels and consumers the connection ever had.
    pub serial: u32,
    /// The channel's number.
    pub channel: u16,
}
