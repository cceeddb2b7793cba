//! Counters and gauges: one owner writes them without waiting, everybody may read them. A reader may see one number of a
//! moment and the next of a moment later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::durations::{CLASSES, Durations};
use super::ids::Timestamp;
use super::names::{UserName, VhostName};
use super::table::FieldTable;
use super::tls::TlsFacts;

macro_rules! numbers {
    ($(#[$doc:meta])* $type:ident, $field:ident { $($(#[$field_doc:meta])* $name:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $type([AtomicU64; $type::COUNT]);

        #[doc = concat!("What `", stringify!($type), "` consists of.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $field { $($(#[$field_doc])* $name),* }

        impl $field {
            /// All of them, in the order of `snapshot`.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }

        impl Default for $type {
            fn default() -> Self {
                Self(std::array::from_fn(|_| AtomicU64::new(0)))
            }
        }

        impl $type {
            /// How many numbers there are.
            pub const COUNT: usize = $field::ALL.len();

            #[must_use]
            pub fn get(&self, field: $field) -> u64 {
                self.0[field as usize].load(Ordering::Relaxed)
            }

            /// For the owner alone.
            pub fn set(&self, field: $field, value: u64) {
                self.0[field as usize].store(value, Ordering::Relaxed);
            }

            /// For the owner alone: two writers at once would lose one of the additions.
            pub fn add(&self, field: $field, count: u64) {
                self.set(field, self.get(field).wrapping_add(count));
            }

            /// For owners that share the number.
            pub fn add_shared(&self, field: $field, count: u64) {
                self.0[field as usize].fetch_add(count, Ordering::Relaxed);
            }

            /// All numbers, in the order of the fields.
            #[must_use]
            pub fn snapshot(&self) -> [u64; Self::COUNT] {
                std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
            }
        }
    };
}

numbers!(
    /// A queue, as of its last turn.
    QueueStatistics,
    QueueNumber {
        /// Messages.
        Ready,
        Unacked,
        Consumers,
        /// Body bytes.
        ReadyBytes,
        /// Body bytes.
        UnackedBytes,
        /// Ready and unacknowledged messages that survive a restart.
        Persistent,
        /// Ready messages that are in the log only.
        Cold,
        /// Body bytes of those.
        ColdBytes,
        /// Bytes of memory that the messages take, roughly.
        Memory,
        /// Milliseconds since the epoch when the message at the head arrived; 0 when there is none or it is not known.
        HeadArrived,
        /// The property `timestamp` of that message, in seconds; 0 when it has none or is in the log only.
        HeadTimestamp,
        /// Milliseconds since the epoch of the last turn that did something.
        Used,
        /// 1 when some consumer could take a message.
        ConsumersReady,
        /// Milliseconds for which consumers could take more, up to `Used`.
        ConsumersReadyMs,
        /// Milliseconds for which there were consumers, up to `Used`.
        ConsumedMs,
        /// From here on, counters.
        Published,
        Delivered,
        DeliveredAutoAck,
        Got,
        GotAutoAck,
        GetEmpty,
        Redelivered,
        Acked,
        /// Messages that left for their TTL and became no dead letters.
        ExpiredDiscarded,
        /// Messages that left for want of room and became no dead letters.
        DroppedDiscarded,
        /// Messages that consumers rejected and that became no dead letters.
        RejectedDiscarded,
        /// Publishes that the queue refused.
        Refused,
        /// Messages that left for their TTL as dead letters.
        ExpiredDeadLettered,
        /// Messages that became dead letters for want of room, refused publishes too.
        DroppedDeadLettered,
        /// Messages that consumers rejected and that became dead letters.
        RejectedDeadLettered,
    }
);

/// The first of the fields of `QueueNumber` that are counters.
pub const QUEUE_COUNTERS_FROM: usize = QueueNumber::Published as usize;

/// A queue as listings show it.
#[derive(Debug, Default)]
pub struct QueueRecord {
    pub numbers: QueueStatistics,
    /// From arrival to the first delivery.
    pub in_queue: DurationStatistics,
    /// From delivery to acknowledgement.
    pub processing: DurationStatistics,
}

/// Durations that can be read while they are counted.
#[derive(Debug, Default)]
pub struct DurationStatistics {
    counts: [AtomicU64; CLASSES],
    sum_ms: AtomicU64,
}

impl DurationStatistics {
    /// For the owner alone.
    pub fn set(&self, durations: &Durations) {
        if self.sum_ms.swap(durations.sum_ms, Ordering::Relaxed) == durations.sum_ms
            && self.counts[0].load(Ordering::Relaxed) == durations.counts[0]
        {
            return;
        }
        for (shown, count) in self.counts.iter().zip(durations.counts) {
            shown.store(count, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn get(&self) -> Durations {
        Durations {
            counts: std::array::from_fn(|class| self.counts[class].load(Ordering::Relaxed)),
            sum_ms: self.sum_ms.load(Ordering::Relaxed),
        }
    }
}

numbers!(
    /// A channel. Its connection's task owns it.
    ChannelStatistics,
    ChannelNumber {
        Consumers,
        Unacked,
        Unconfirmed,
        Uncommitted,
        AcksUncommitted,
        Prefetch,
        GlobalPrefetch,
        /// 0 plain, 1 confirms, 2 transactions.
        Mode,
        /// Milliseconds since the epoch of the last thing it did.
        Used,
        /// From here on, counters.
        Published,
        /// Publishes that ask for a confirm.
        PublishedConfirm,
        Confirmed,
        ReturnedUnroutable,
        DroppedUnroutable,
        Delivered,
        DeliveredAutoAck,
        Got,
        GotAutoAck,
        GetEmpty,
        Redelivered,
        Acked,
        /// Publishes by the size of their bodies: up to 100 bytes,
        Size100,
        Size1K,
        Size10K,
        Size100K,
        Size1M,
        Size10M,
        Size50M,
        Size100M,
        /// and more than 100 MB.
        SizeMore,
        /// Body bytes of all publishes.
        SizeSum,
    }
);

numbers!(
    /// An exchange. All connections that publish to it own it together.
    ExchangeStatistics,
    ExchangeNumber { PublishIn, PublishOut, Confirmed, ReturnedUnroutable, DroppedUnroutable }
);

numbers!(
    /// The bytes of a connection. Its task owns it.
    TrafficStatistics,
    TrafficNumber {
        /// Bytes read from the socket.
        Received,
        /// Reads.
        ReceivedCount,
        Sent,
        SentCount,
        /// Bytes that wait for the socket.
        Pending,
    }
);

numbers!(
    /// The log. Shared by all.
    LogStatistics,
    LogNumber {
        /// Records written for queues.
        Writes,
        /// Records read for queues.
        Reads,
        /// Times that what was submitted was written, and synced if it is to be.
        Commits,
        /// Microseconds that this took.
        CommitMicros,
        /// Commits that took up to 64 microseconds, and likewise.
        Within64,
        Within128,
        Within256,
        Within512,
        Within1024,
        Within2048,
        Within4096,
        Within8192,
        Within16384,
        Within65536,
        Within262144,
        /// Longer.
        Beyond,
    }
);

/// The bounds of the classes of `LogNumber`, from `Within64` on, in microseconds.
pub const COMMIT_BOUNDS_MICROS: [u64; 11] = [64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 65_536, 262_144];

impl LogStatistics {
    /// Counts a commit that took this long.
    pub fn count_commit(&self, micros: u64) {
        let class =
            COMMIT_BOUNDS_MICROS.iter().position(|bound| micros <= *bound).unwrap_or(COMMIT_BOUNDS_MICROS.len());
        self.add_shared(LogNumber::ALL[LogNumber::Within64 as usize + class], 1);
        self.add_shared(LogNumber::Commits, 1);
        self.add_shared(LogNumber::CommitMicros, micros);
    }
}

numbers!(
    /// What has come and gone since the start. Shared by all.
    ChurnStatistics,
    ChurnNumber {
        ConnectionsCreated,
        ConnectionsClosed,
        ChannelsCreated,
        ChannelsClosed,
        QueuesDeclared,
        QueuesCreated,
        QueuesDeleted,
    }
);

/// The first of the fields of `ChannelNumber` that are counters.
pub const CHANNEL_COUNTERS_FROM: usize = ChannelNumber::Published as usize;

impl ChannelStatistics {
    /// Counts a publish with a body of this many bytes.
    pub fn count_size(&self, bytes: usize) {
        let field = match bytes {
            0..=100 => ChannelNumber::Size100,
            101..=1_000 => ChannelNumber::Size1K,
            1_001..=10_000 => ChannelNumber::Size10K,
            10_001..=100_000 => ChannelNumber::Size100K,
            100_001..=1_000_000 => ChannelNumber::Size1M,
            1_000_001..=10_000_000 => ChannelNumber::Size10M,
            10_000_001..=50_000_000 => ChannelNumber::Size50M,
            50_000_001..=100_000_000 => ChannelNumber::Size100M,
            _ => ChannelNumber::SizeMore,
        };
        self.add(field, 1);
        self.add(ChannelNumber::SizeSum, bytes as u64);
    }
}

/// Counters of channels that have closed.
pub type ClosedChannels = [u64; ChannelStatistics::COUNT];
/// Counters of connections that have closed; the bytes that wait are none.
pub type ClosedTraffic = [u64; TrafficStatistics::COUNT];

/// What queues and exchanges counted that are gone, so that sums over all never go down. It is part of the snapshot of
/// definitions: whoever reads a snapshot finds what a queue counted in the queue or in here, and never in both.
#[derive(Clone, Debug, Default)]
pub struct RemovedSum {
    /// The gauges are 0.
    pub queues: QueueSum,
    pub exchanges: [u64; ExchangeStatistics::COUNT],
}

/// What several queues come to.
#[derive(Clone, Copy, Debug)]
pub struct QueueSum {
    pub numbers: [u64; QueueStatistics::COUNT],
    pub in_queue: Durations,
    pub processing: Durations,
}

impl Default for QueueSum {
    fn default() -> Self {
        Self { numbers: [0; QueueStatistics::COUNT], in_queue: Durations::default(), processing: Durations::default() }
    }
}

impl QueueSum {
    /// Adds everything of a queue, its gauges too.
    pub fn add(&mut self, record: &QueueRecord) {
        add_all(&mut self.numbers, &record.numbers.snapshot());
        self.in_queue.add_all(&record.in_queue.get());
        self.processing.add_all(&record.processing.get());
    }
}

impl RemovedSum {
    /// A queue is gone for good.
    pub fn add_queue(&mut self, record: &QueueRecord) {
        self.queues.add(record);
        self.queues.numbers[..QUEUE_COUNTERS_FROM].fill(0);
    }

    /// An exchange is gone for good.
    pub fn add_exchange(&mut self, statistics: &ExchangeStatistics) {
        add_all(&mut self.exchanges, &statistics.snapshot());
    }
}

/// Adds numbers to those in the same places.
pub fn add_all(sums: &mut [u64], numbers: &[u64]) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum = sum.wrapping_add(*number);
    }
}

/// A connection as listings show it. The facts are filled in as they become known.
#[derive(Debug, Default)]
pub struct ConnectionRecord {
    pub facts: Mutex<ConnectionFacts>,
    pub traffic: TrafficStatistics,
    channels: Mutex<BTreeMap<u16, Arc<ChannelRecord>>>,
    closed: Arc<Mutex<ClosedSum>>,
    churn: Arc<ChurnStatistics>,
}

/// What channels and connections did that are gone.
#[derive(Clone, Debug)]
pub struct ClosedSum {
    pub channels: ClosedChannels,
    pub traffic: ClosedTraffic,
}

impl Default for ClosedSum {
    fn default() -> Self {
        Self { channels: [0; ChannelStatistics::COUNT], traffic: [0; TrafficStatistics::COUNT] }
    }
}

/// A channel as listings show it.
#[derive(Debug)]
pub struct ChannelRecord {
    pub number: u16,
    pub statistics: ChannelStatistics,
}

/// Where a connection is in its life, as listings name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionState {
    #[default]
    Starting,
    Tuning,
    Opening,
    Running,
    Blocking,
    Blocked,
    Closing,
}

impl ConnectionState {
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Tuning, Self::Opening, Self::Running, Self::Blocking, Self::Blocked, Self::Closing];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Tuning => "tuning",
            Self::Opening => "opening",
            Self::Running => "running",
            Self::Blocking => "blocking",
            Self::Blocked => "blocked",
            Self::Closing => "closing",
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFacts {
    /// `<peer> -> <own address>`.
    pub name: Arc<str>,
    pub peer_host: String,
    pub peer_port: u16,
    pub host: String,
    pub port: u16,
    pub user: Option<UserName>,
    pub vhost: Option<VhostName>,
    pub mechanism: String,
    pub client_properties: FieldTable,
    pub state: ConnectionState,
    pub channel_max: u16,
    pub frame_max: u32,
    /// Seconds.
    pub heartbeat: u16,
    pub connected_at: Timestamp,
    pub tls: Option<Arc<TlsFacts>>,
}

impl ConnectionRecord {
    /// `closed` takes up what its channels did once they are gone, `churn` how many came and went.
    #[must_use]
    pub fn new(facts: ConnectionFacts, closed: &Arc<Mutex<ClosedSum>>, churn: &Arc<ChurnStatistics>) -> Self {
        let (closed, churn) = (Arc::clone(closed), Arc::clone(churn));
        Self { facts: Mutex::new(facts), closed, churn, ..Self::default() }
    }

    /// A channel that was just opened.
    pub fn open_channel(&self, number: u16) -> Arc<ChannelRecord> {
        let record = Arc::new(ChannelRecord { number, statistics: ChannelStatistics::default() });
        self.channels.lock().insert(number, Arc::clone(&record));
        self.churn.add_shared(ChurnNumber::ChannelsCreated, 1);
        record
    }

    /// A channel is gone: what it counted goes to the sum in the same breath, so that no reader misses it or sees it twice.
    pub fn close_channel(&self, record: &Arc<ChannelRecord>) {
        let mut closed = self.closed.lock();
        let mut channels = self.channels.lock();
        if channels.get(&record.number).is_some_and(|current| Arc::ptr_eq(current, record)) {
            channels.remove(&record.number);
            let numbers = record.statistics.snapshot();
            add_all(&mut closed.channels[CHANNEL_COUNTERS_FROM..], &numbers[CHANNEL_COUNTERS_FROM..]);
            self.churn.add_shared(ChurnNumber::ChannelsClosed, 1);
        }
    }

    /// All channels are gone with their connection.
    pub fn close_all_channels(&self) {
        for channel in self.channels() {
            self.close_channel(&channel);
        }
    }

    /// The channels that are open, by number.
    #[must_use]
    pub fn channels(&self) -> Vec<Arc<ChannelRecord>> {
        self.channels.lock().values().cloned().collect()
    }

    #[must_use]
    pub fn channel(&self, number: u16) -> Option<Arc<ChannelRecord>> {
        self.channels.lock().get(&number).cloned()
    }

    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.channels.lock().len()
    }
}

/// Publishes of one connection to one exchange, gathered so that the shared counters are touched once a batch.
#[derive(Debug, Default)]
pub struct PublishRun {
    exchange: Option<Arc<ExchangeStatistics>>,
    published: u64,
    routed: u64,
}

impl PublishRun {
    /// Counts a publish that went to this many queues.
    #[inline]
    pub fn count(&mut self, exchange: &Arc<ExchangeStatistics>, queues: usize) {
        if self.exchange.as_ref().is_none_or(|current| !Arc::ptr_eq(current, exchange)) {
            self.flush();
            self.exchange = Some(Arc::clone(exchange));
        }
        self.published += 1;
        self.routed += queues as u64;
    }

    /// Hands what was counted to the exchange.
    pub fn flush(&mut self) {
        if let Some(exchange) = &self.exchange
            && self.published > 0
        {
            exchange.add_shared(ExchangeNumber::PublishIn, self.published);
            exchange.add_shared(ExchangeNumber::PublishOut, self.routed);
            self.published = 0;
            self.routed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_channel_counted_stays_in_the_sum() {
        let (closed, churn) = (Arc::default(), Arc::<ChurnStatistics>::default());
        let connection = ConnectionRecord::new(ConnectionFacts::default(), &closed, &churn);
        let first = connection.open_channel(1);
        first.statistics.add(ChannelNumber::Published, 3);
        first.statistics.set(ChannelNumber::Unacked, 7);
        connection.close_channel(&first);
        connection.close_channel(&first);
        assert_eq!(closed.lock().channels[ChannelNumber::Published as usize], 3);
        assert_eq!(closed.lock().channels[ChannelNumber::Unacked as usize], 0, "a gauge is gone with its channel");
        let again = connection.open_channel(1);
        connection.close_channel(&first);
        assert_eq!(connection.channel_count(), 1, "a late close of the old channel does not touch the new one");
        again.statistics.add(ChannelNumber::Published, 1);
        connection.close_all_channels();
        assert_eq!(closed.lock().channels[ChannelNumber::Published as usize], 4);
        assert_eq!(churn.get(ChurnNumber::ChannelsCreated), 2);
        assert_eq!(churn.get(ChurnNumber::ChannelsClosed), 2, "each is closed once");
    }

    #[test]
    fn what_a_queue_counted_stays_in_the_sum_and_its_gauges_do_not() {
        let record = QueueRecord::default();
        record.numbers.set(QueueNumber::Ready, 5);
        record.numbers.set(QueueNumber::Acked, 7);
        let mut durations = Durations::default();
        durations.add(20);
        record.in_queue.set(&durations);
        let mut removed = RemovedSum::default();
        removed.add_queue(&record);
        removed.add_queue(&record);
        assert_eq!(removed.queues.numbers[QueueNumber::Ready as usize], 0);
        assert_eq!(removed.queues.numbers[QueueNumber::Acked as usize], 14);
        assert_eq!((removed.queues.in_queue.sum_ms, removed.queues.in_queue.counts[3]), (40, 2));
    }
}
