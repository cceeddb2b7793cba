//! The consumers of one connection, found by the serial their deliveries carry.

use super::content;
use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, ConsumerId};
use crate::model::names::{ConsumerTag, QueueName};

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) id: ConsumerId,
    pub(super) tag: ConsumerTag,
    pub(super) queue: QueueName,
    pub(super) no_ack: bool,
    /// The front of its deliver frames.
    pub(super) prefix: Box<[u8]>,
}

/// Also numbers channels: serials are unique among both, for the life of the connection.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    last_serial: u32,
    by_serial: IdMap<u32, Consumer>,
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
        let id = ConsumerId { connection: channel.connection, serial, channel: channel.number };
        let consumer = Consumer { id, tag: tag.clone(), queue: queue.clone(), no_ack, prefix };
        self.by_serial.insert(serial, consumer);
        id
    }

    /// All of them, in no order that means anything.
    pub(super) fn all(&self) -> impl Iterator<Item = &Consumer> {
        self.by_serial.values()
    }

    pub(super) fn find(&self, serial: u32) -> Option<&Consumer> {
        self.by_serial.get(&serial)
    }

    pub(super) fn remove(&mut self, consumer: ConsumerId) {
        self.by_serial.remove(&consumer.serial);
    }
}
