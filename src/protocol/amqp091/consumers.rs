//! The consumers of one connection, found by the serial their deliveries carry.

use std::collections::HashMap;

use super::content;
use crate::model::ids::{ChannelRef, ConsumerId};
use crate::model::names::{ConsumerTag, QueueName};

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) no_ack: bool,
    pub(super) queue: QueueName,
    /// The front of its deliver frames.
    pub(super) prefix: Box<[u8]>,
}

/// Also numbers channels: serials are unique among both, for the life of the connection.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    last_serial: u32,
    by_serial: HashMap<u32, Consumer>,
}

impl Consumers {
    pub(super) fn next_serial(&mut self) -> u32 {
        self.last_serial += 1;
        self.last_serial
    }

    pub(super) fn add(
        &mut self,
        channel: ChannelRef,
        tag: &ConsumerTag,
        queue: &QueueName,
        no_ack: bool,
    ) -> ConsumerId {
        let serial = self.next_serial();
        let prefix = content::deliver_prefix(channel.number, tag.as_str());
        self.by_serial.insert(serial, Consumer { no_ack, queue: queue.clone(), prefix });
        ConsumerId { connection: channel.connection, serial, channel: channel.number }
    }

    pub(super) fn find(&self, serial: u32) -> Option<&Consumer> {
        self.by_serial.get(&serial)
    }

    pub(super) fn remove(&mut self, consumer: ConsumerId) {
        self.by_serial.remove(&consumer.serial);
    }
}
