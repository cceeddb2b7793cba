//! The families of queues, exchanges, connections and channels: how each number follows from what their owners count.
//!
//! The same functions serve one object and the sum over all.

use crate::model::statistics::{
    ChannelNumber, ChannelStatistics, ExchangeNumber, ExchangeStatistics, QueueNumber, QueueStatistics, TrafficNumber,
    TrafficStatistics,
};

use super::text::{FamilyKind, Number};

/// A family of some kind of object.
pub(super) struct Family<R> {
    pub(super) name: &'static str,
    pub(super) kind: FamilyKind,
    pub(super) help: &'static str,
    /// None when there is nothing to tell of this object.
    pub(super) value: fn(&R) -> Option<Number>,
}

/// A queue, or all: of those, the one whose head arrived first gives that number.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueRow {
    pub(super) numbers: [u64; QueueStatistics::COUNT],
    pub(super) now_ms: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ExchangeRow(pub(super) [u64; ExchangeStatistics::COUNT]);

#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelRow(pub(super) [u64; ChannelStatistics::COUNT]);

#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionRow {
    pub(super) traffic: [u64; TrafficStatistics::COUNT],
    pub(super) channels: u64,
}

impl QueueRow {
    pub(super) fn get(&self, number: QueueNumber) -> u64 {
        self.numbers[number as usize]
    }

    fn bytes(&self) -> u64 {
        self.get(QueueNumber::ReadyBytes) + self.get(QueueNumber::UnackedBytes)
    }

    /// Ready messages in memory.
    fn ready_in_memory(&self) -> u64 {
        self.get(QueueNumber::Ready).saturating_sub(self.get(QueueNumber::Cold))
    }

    /// The share of time in which consumers could have taken more.
    fn capacity(&self) -> f64 {
        let consumed = self.get(QueueNumber::ConsumedMs);
        if consumed == 0 { 0.0 } else { self.get(QueueNumber::ConsumersReadyMs) as f64 / consumed as f64 }
    }

    fn persistent(&self) -> u64 {
        self.get(QueueNumber::Persistent).min(self.get(QueueNumber::Ready) + self.get(QueueNumber::Unacked))
    }

    /// Bytes are not told apart by persistence: a queue's messages are mostly alike.
    fn persistent_bytes(&self) -> u64 {
        let messages = self.get(QueueNumber::Ready) + self.get(QueueNumber::Unacked);
        let bytes = u128::from(self.bytes()) * u128::from(self.persistent()) / u128::from(messages.max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Seconds since the epoch.
    fn head_timestamp(&self) -> Number {
        match self.get(QueueNumber::HeadArrived) {
            0 => f64::NAN.into(),
            arrived => (arrived / 1000).into(),
        }
    }

    /// 0 when nothing is ready; none when it is not known.
    fn oldest_age(&self) -> Option<f64> {
        match (self.get(QueueNumber::Ready), self.get(QueueNumber::HeadArrived)) {
            (0, _) => Some(0.0),
            (_, 0) => None,
            (_, arrived) => Some(self.now_ms.saturating_sub(arrived) as f64 / 1000.0),
        }
    }
}

macro_rules! families {
    ($name:ident: $row:ty { $($kind:ident $family:literal $help:literal $value:expr;)* }) => {
        pub(super) static $name: &[Family<$row>] = &[
            $(Family { name: $family, kind: FamilyKind::$kind, help: $help, value: |row| $value(row).map(Into::into) }),*
        ];
    };
}

/// A number as the queue counts it.
macro_rules! queue {
    ($number:ident) => {
        |row: &QueueRow| Some(row.get(QueueNumber::$number))
    };
}
macro_rules! exchange {
    ($number:ident) => {
        |row: &ExchangeRow| Some(row.0[ExchangeNumber::$number as usize])
    };
}
macro_rules! channel {
    ($number:ident) => {
        |row: &ChannelRow| Some(row.0[ChannelNumber::$number as usize])
    };
}
macro_rules! traffic {
    ($number:ident) => {
        |row: &ConnectionRow| Some(row.traffic[TrafficNumber::$number as usize])
    };
}

families!(QUEUE_COARSE: QueueRow {
    Gauge "queue_messages_ready" "Messages ready to be delivered to consumers" queue!(Ready);
    Gauge "queue_messages_unacked" "Messages delivered to consumers but not yet acknowledged" queue!(Unacked);
    Gauge "queue_messages" "Sum of ready and unacknowledged messages - total queue depth"
        |row: &QueueRow| Some(row.get(QueueNumber::Ready) + row.get(QueueNumber::Unacked));
});

families!(QUEUE_CONSUMERS: QueueRow {
    Gauge "queue_consumers" "Consumers on a queue" queue!(Consumers);
});

families!(QUEUE_METRICS: QueueRow {
    Gauge "queue_consumer_capacity" "Consumer capacity" |row: &QueueRow| Some(row.capacity());
    Gauge "queue_consumer_utilisation" "Same as consumer capacity" |row: &QueueRow| Some(row.capacity());
    Gauge "queue_process_memory_bytes" "Memory in bytes used by the Erlang queue process" queue!(Memory);
    Gauge "queue_messages_ram" "Ready and unacknowledged messages stored in memory"
        |row: &QueueRow| Some(row.ready_in_memory() + row.get(QueueNumber::Unacked));
    Gauge "queue_messages_ram_bytes" "Size of ready and unacknowledged messages stored in memory"
        |row: &QueueRow| Some(row.bytes().saturating_sub(row.get(QueueNumber::ColdBytes)));
    Gauge "queue_messages_ready_ram" "Ready messages stored in memory" |row: &QueueRow| Some(row.ready_in_memory());
    Gauge "queue_messages_unacked_ram" "Unacknowledged messages stored in memory" queue!(Unacked);
    Gauge "queue_messages_persistent" "Persistent messages" |row: &QueueRow| Some(row.persistent());
    Gauge "queue_messages_persistent_bytes" "Size in bytes of persistent messages"
        |row: &QueueRow| Some(row.persistent_bytes());
    Gauge "queue_messages_bytes" "Size in bytes of ready and unacknowledged messages"
        |row: &QueueRow| Some(row.bytes());
    Gauge "queue_messages_ready_bytes" "Size in bytes of ready messages" queue!(ReadyBytes);
    Gauge "queue_messages_unacked_bytes" "Size in bytes of all unacknowledged messages" queue!(UnackedBytes);
    Gauge "queue_head_message_timestamp" "Timestamp of the first message in the queue, if any"
        |row: &QueueRow| Some(row.head_timestamp());
});

families!(QUEUE_DELIVERY: QueueRow {
    Counter "queue_get_ack_total"
        "Total number of messages fetched from a queue with basic.get in manual acknowledgement mode" queue!(Got);
    Counter "queue_get_total"
        "Total number of messages fetched from a queue with basic.get in automatic acknowledgement mode"
        queue!(GotAutoAck);
    Counter "queue_messages_delivered_ack_total"
        "Total number of messages delivered from a queue to consumers in manual acknowledgement mode"
        queue!(Delivered);
    Counter "queue_messages_delivered_total"
        "Total number of messages delivered from a queue to consumers in automatic acknowledgement mode"
        queue!(DeliveredAutoAck);
    Counter "queue_messages_redelivered_total" "Total number of messages redelivered from a queue to consumers"
        queue!(Redelivered);
    Counter "queue_messages_acked_total" "Total number of messages acknowledged by consumers on a queue"
        queue!(Acked);
    Counter "queue_get_empty_total" "Total number of times basic.get operations fetched no message on a queue"
        queue!(GetEmpty);
});

families!(QUEUE_EXCHANGE: QueueRow {
    Counter "queue_exchange_messages_published_total"
        "Total number of messages published into a queue through an exchange" queue!(Published);
});

families!(CHANNEL_QUEUE_EXCHANGE: QueueRow {
    Counter "queue_messages_published_total"
        "Total number of messages published into a queue through an exchange on a channel" queue!(Published);
});

families!(QUEUE_AGE: QueueRow {
    Gauge "queue_oldest_message_age_seconds" "Time since the message at the head of the queue arrived; 0 when empty"
        QueueRow::oldest_age;
});

families!(EXCHANGES: ExchangeRow {
    Counter "exchange_messages_published_total" "Total number of messages published into an exchange"
        exchange!(PublishIn);
    Counter "exchange_messages_unroutable_returned_total"
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable"
        exchange!(ReturnedUnroutable);
    Counter "exchange_messages_unroutable_dropped_total"
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable"
        exchange!(DroppedUnroutable);
});

families!(CHANNELS: ChannelRow {
    Gauge "channel_consumers" "Consumers on a channel" channel!(Consumers);
    Gauge "channel_messages_unacked" "Delivered but not yet acknowledged messages" channel!(Unacked);
    Gauge "channel_messages_unconfirmed" "Published but not yet confirmed messages" channel!(Unconfirmed);
    Gauge "channel_messages_uncommitted" "Messages received in a transaction but not yet committed"
        channel!(Uncommitted);
    Gauge "channel_acks_uncommitted" "Message acknowledgements in a transaction not yet committed"
        channel!(AcksUncommitted);
    Gauge "consumer_prefetch" "Limit of unacknowledged messages for each consumer" channel!(Prefetch);
    Gauge "channel_prefetch" "Deprecated and will be removed in a future version" channel!(GlobalPrefetch);
});

families!(CHANNEL_EXCHANGE: ChannelRow {
    Counter "channel_messages_published_total" "Total number of messages published into an exchange on a channel"
        channel!(Published);
    Counter "channel_messages_confirmed_total"
        "Total number of messages published into an exchange and confirmed on the channel" channel!(Confirmed);
    Counter "channel_messages_unroutable_returned_total"
        "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable"
        channel!(ReturnedUnroutable);
    Counter "channel_messages_unroutable_dropped_total"
        "Total number of messages published as non-mandatory into an exchange and dropped as unroutable"
        channel!(DroppedUnroutable);
});

families!(CHANNEL_QUEUE: ChannelRow {
    Counter "channel_get_ack_total"
        "Total number of messages fetched with basic.get in manual acknowledgement mode" channel!(Got);
    Counter "channel_get_total"
        "Total number of messages fetched with basic.get in automatic acknowledgement mode" channel!(GotAutoAck);
    Counter "channel_messages_delivered_ack_total"
        "Total number of messages delivered to consumers in manual acknowledgement mode" channel!(Delivered);
    Counter "channel_messages_delivered_total"
        "Total number of messages delivered to consumers in automatic acknowledgement mode"
        channel!(DeliveredAutoAck);
    Counter "channel_messages_redelivered_total" "Total number of messages redelivered to consumers"
        channel!(Redelivered);
    Counter "channel_messages_acked_total" "Total number of messages acknowledged by consumers" channel!(Acked);
    Counter "channel_get_empty_total" "Total number of times basic.get operations fetched no message"
        channel!(GetEmpty);
});

families!(CONNECTION_COARSE: ConnectionRow {
    Counter "connection_incoming_bytes_total" "Total number of bytes received on a connection" traffic!(Received);
    Counter "connection_outgoing_bytes_total" "Total number of bytes sent on a connection" traffic!(Sent);
});

families!(CONNECTIONS: ConnectionRow {
    Counter "connection_incoming_packets_total" "Total number of packets received on a connection"
        traffic!(ReceivedCount);
    Counter "connection_outgoing_packets_total" "Total number of packets sent on a connection" traffic!(SentCount);
    // Bytes, for all that the name says: what RabbitMQ exports here is `send_pend`.
    Gauge "connection_pending_packets" "Number of packets waiting to be sent on a connection" traffic!(Pending);
    Gauge "connection_channels" "Channels on a connection" |row: &ConnectionRow| Some(row.channels);
});

#[cfg(test)]
mod tests {
    use super::*;

    fn row(numbers: &[(QueueNumber, u64)]) -> QueueRow {
        let mut row = QueueRow { numbers: [0; QueueStatistics::COUNT], now_ms: 10_000 };
        numbers.iter().for_each(|(number, value)| row.numbers[*number as usize] = *value);
        row
    }

    #[test]
    fn the_age_of_the_oldest_message_is_told_when_it_is_known() {
        assert_eq!(row(&[]).oldest_age(), Some(0.0));
        assert_eq!(row(&[(QueueNumber::Ready, 2)]).oldest_age(), None);
        assert_eq!(row(&[(QueueNumber::Ready, 2), (QueueNumber::HeadArrived, 7_500)]).oldest_age(), Some(2.5));
        assert_eq!(row(&[(QueueNumber::Ready, 2), (QueueNumber::HeadArrived, 10_001)]).oldest_age(), Some(0.0));
    }

    #[test]
    fn what_is_in_the_log_only_is_not_in_memory() {
        let row = row(&[
            (QueueNumber::Ready, 10),
            (QueueNumber::Unacked, 2),
            (QueueNumber::Cold, 4),
            (QueueNumber::ReadyBytes, 100),
            (QueueNumber::UnackedBytes, 20),
            (QueueNumber::ColdBytes, 40),
            (QueueNumber::Persistent, 6),
        ]);
        let value = |name: &str| {
            let family = QUEUE_METRICS.iter().find(|family| family.name == name).unwrap();
            (family.value)(&row)
        };
        assert_eq!(value("queue_messages_ram"), Some(Number::Integer(8)));
        assert_eq!(value("queue_messages_ram_bytes"), Some(Number::Integer(80)));
        assert_eq!(value("queue_messages_persistent_bytes"), Some(Number::Integer(60)));
    }
}
