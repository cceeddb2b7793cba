//! Methods with their arguments, by class.

use crate::wire::{METHOD, Reader, Table, Writer, frame};

/// A method as it stands in a method frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Method {
    pub(crate) class: u16,
    pub(crate) id: u16,
    pub(crate) arguments: Vec<u8>,
}

impl Method {
    pub(crate) fn new(class: u16, id: u16, arguments: Writer) -> Self {
        Self { class, id, arguments: arguments.0 }
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        Writer::new().short(self.class).short(self.id).raw(&self.arguments).0
    }

    pub(crate) fn frame(&self, channel: u16) -> Vec<u8> {
        frame(METHOD, channel, &self.payload())
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader(&self.arguments)
    }

    pub(crate) fn ids(&self) -> (u16, u16) {
        (self.class, self.id)
    }

    /// Whether a content header and body follow it when the server sends it.
    pub(crate) fn carries_content(&self) -> bool {
        matches!(self.ids(), (60, 50 | 60 | 71))
    }

    /// The ids of the reply to this request.
    pub(crate) fn reply_ids(&self) -> (u16, u16) {
        match self.ids() {
            exchange::UNBIND => exchange::UNBIND_OK,
            (class, id) => (class, id + 1),
        }
    }
}

pub(crate) mod connection {
    use super::{Method, Table, Writer};

    pub(crate) const START: (u16, u16) = (10, 10);
    pub(crate) const TUNE: (u16, u16) = (10, 30);
    pub(crate) const OPEN_OK: (u16, u16) = (10, 41);
    pub(crate) const CLOSE: (u16, u16) = (10, 50);
    pub(crate) const CLOSE_OK: (u16, u16) = (10, 51);

    pub(crate) fn start_ok(properties: &Table, mechanism: &str, response: &[u8]) -> Method {
        Method::new(
            10,
            11,
            Writer::new().table(properties).short_string(mechanism).long_string(response).short_string("en_US"),
        )
    }

    pub(crate) fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Method {
        Method::new(10, 31, Writer::new().short(channel_max).long(frame_max).short(heartbeat))
    }

    pub(crate) fn open(virtual_host: &str) -> Method {
        Method::new(10, 40, Writer::new().short_string(virtual_host).short_string("").octet(0))
    }

    pub(crate) fn close() -> Method {
        Method::new(10, 50, Writer::new().short(200).short_string("bye").short(0).short(0))
    }

    pub(crate) fn close_ok() -> Method {
        Method::new(10, 51, Writer::new())
    }

    pub(crate) fn update_secret(secret: &str) -> Method {
        Method::new(10, 70, Writer::new().long_string(secret).short_string("rotation"))
    }
}

pub(crate) mod channel {
    use super::{Method, Writer};

    pub(crate) const CLOSE: (u16, u16) = (20, 40);
    pub(crate) const CLOSE_OK: (u16, u16) = (20, 41);

    pub(crate) fn open() -> Method {
        Method::new(20, 10, Writer::new().short_string(""))
    }

    pub(crate) fn flow(active: u8) -> Method {
        Method::new(20, 20, Writer::new().octet(active))
    }

    pub(crate) fn close() -> Method {
        Method::new(20, 40, Writer::new().short(200).short_string("").short(0).short(0))
    }

    pub(crate) fn close_ok() -> Method {
        Method::new(20, 41, Writer::new())
    }
}

pub(crate) mod access {
    use super::{Method, Writer};

    pub(crate) fn request() -> Method {
        Method::new(30, 10, Writer::new().short_string("/data").octet(0b1_1111))
    }
}

pub(crate) mod exchange {
    use super::{Method, Table, Writer};

    pub(crate) const UNBIND: (u16, u16) = (40, 40);
    pub(crate) const UNBIND_OK: (u16, u16) = (40, 51);
    pub(crate) const PASSIVE: u8 = 1;
    pub(crate) const DURABLE: u8 = 2;
    pub(crate) const AUTO_DELETE: u8 = 4;
    pub(crate) const INTERNAL: u8 = 8;
    pub(crate) const NOWAIT: u8 = 16;
    pub(crate) const IF_UNUSED: u8 = 1;
    pub(crate) const DELETE_NOWAIT: u8 = 2;

    pub(crate) fn declare(name: &str, kind: &str, flags: u8, arguments: &Table) -> Method {
        Method::new(40, 10, Writer::new().short(0).short_string(name).short_string(kind).octet(flags).table(arguments))
    }

    pub(crate) fn delete(name: &str, flags: u8) -> Method {
        Method::new(40, 20, Writer::new().short(0).short_string(name).octet(flags))
    }

    pub(crate) fn bind(destination: &str, source: &str, key: &str, nowait: u8, arguments: &Table) -> Method {
        Method::new(
            40,
            30,
            Writer::new()
                .short(0)
                .short_string(destination)
                .short_string(source)
                .short_string(key)
                .octet(nowait)
                .table(arguments),
        )
    }

    pub(crate) fn unbind(destination: &str, source: &str, key: &str, nowait: u8, arguments: &Table) -> Method {
        Method::new(
            40,
            40,
            Writer::new()
                .short(0)
                .short_string(destination)
                .short_string(source)
                .short_string(key)
                .octet(nowait)
                .table(arguments),
        )
    }
}

pub(crate) mod queue {
    use super::{Method, Table, Writer};

    pub(crate) const PASSIVE: u8 = 1;
    pub(crate) const DURABLE: u8 = 2;
    pub(crate) const EXCLUSIVE: u8 = 4;
    pub(crate) const AUTO_DELETE: u8 = 8;
    pub(crate) const NOWAIT: u8 = 16;
    pub(crate) const IF_UNUSED: u8 = 1;
    pub(crate) const IF_EMPTY: u8 = 2;
    pub(crate) const DELETE_NOWAIT: u8 = 4;

    pub(crate) fn declare(name: &str, flags: u8, arguments: &Table) -> Method {
        Method::new(50, 10, Writer::new().short(0).short_string(name).octet(flags).table(arguments))
    }

    pub(crate) fn bind(name: &str, source: &str, key: &str, nowait: u8, arguments: &Table) -> Method {
        Method::new(
            50,
            20,
            Writer::new()
                .short(0)
                .short_string(name)
                .short_string(source)
                .short_string(key)
                .octet(nowait)
                .table(arguments),
        )
    }

    pub(crate) fn unbind(name: &str, source: &str, key: &str, arguments: &Table) -> Method {
        Method::new(
            50,
            50,
            Writer::new().short(0).short_string(name).short_string(source).short_string(key).table(arguments),
        )
    }

    pub(crate) fn purge(name: &str, nowait: u8) -> Method {
        Method::new(50, 30, Writer::new().short(0).short_string(name).octet(nowait))
    }

    pub(crate) fn delete(name: &str, flags: u8) -> Method {
        Method::new(50, 40, Writer::new().short(0).short_string(name).octet(flags))
    }
}

pub(crate) mod basic {
    use super::{Method, Table, Writer};

    pub(crate) const CANCEL: (u16, u16) = (60, 30);
    pub(crate) const RETURN: (u16, u16) = (60, 50);
    pub(crate) const DELIVER: (u16, u16) = (60, 60);
    pub(crate) const GET_OK: (u16, u16) = (60, 71);
    pub(crate) const GET_EMPTY: (u16, u16) = (60, 72);
    pub(crate) const ACK: (u16, u16) = (60, 80);
    pub(crate) const NACK: (u16, u16) = (60, 120);
    pub(crate) const MANDATORY: u8 = 1;
    pub(crate) const IMMEDIATE: u8 = 2;
    pub(crate) const NO_LOCAL: u8 = 1;
    pub(crate) const NO_ACK: u8 = 2;
    pub(crate) const EXCLUSIVE: u8 = 4;
    pub(crate) const NOWAIT: u8 = 8;
    pub(crate) const MULTIPLE: u8 = 1;
    pub(crate) const NACK_REQUEUE: u8 = 2;
    pub(crate) const REQUEUE: u8 = 1;

    pub(crate) fn qos(prefetch_size: u32, prefetch_count: u16, global: u8) -> Method {
        Method::new(60, 10, Writer::new().long(prefetch_size).short(prefetch_count).octet(global))
    }

    pub(crate) fn consume(queue: &str, tag: &str, flags: u8, arguments: &Table) -> Method {
        Method::new(60, 20, Writer::new().short(0).short_string(queue).short_string(tag).octet(flags).table(arguments))
    }

    pub(crate) fn cancel(tag: &str, nowait: u8) -> Method {
        Method::new(60, 30, Writer::new().short_string(tag).octet(nowait))
    }

    pub(crate) fn cancel_ok(tag: &str) -> Method {
        Method::new(60, 31, Writer::new().short_string(tag))
    }

    pub(crate) fn publish(exchange: &str, key: &str, flags: u8) -> Method {
        Method::new(60, 40, Writer::new().short(0).short_string(exchange).short_string(key).octet(flags))
    }

    pub(crate) fn deliver_from_client() -> Method {
        Method::new(60, 60, Writer::new().short_string("t").long_long(1).octet(0).short_string("").short_string(""))
    }

    pub(crate) fn get(queue: &str, no_ack: u8) -> Method {
        Method::new(60, 70, Writer::new().short(0).short_string(queue).octet(no_ack))
    }

    pub(crate) fn ack(tag: u64, multiple: u8) -> Method {
        Method::new(60, 80, Writer::new().long_long(tag).octet(multiple))
    }

    pub(crate) fn reject(tag: u64, requeue: u8) -> Method {
        Method::new(60, 90, Writer::new().long_long(tag).octet(requeue))
    }

    pub(crate) fn nack(tag: u64, flags: u8) -> Method {
        Method::new(60, 120, Writer::new().long_long(tag).octet(flags))
    }

    pub(crate) fn recover_async(requeue: u8) -> Method {
        Method::new(60, 100, Writer::new().octet(requeue))
    }

    pub(crate) fn recover(requeue: u8) -> Method {
        Method::new(60, 110, Writer::new().octet(requeue))
    }
}

pub(crate) mod confirm {
    use super::{Method, Writer};

    pub(crate) fn select(nowait: u8) -> Method {
        Method::new(85, 10, Writer::new().octet(nowait))
    }
}

pub(crate) mod tx {
    use super::{Method, Writer};

    pub(crate) fn select() -> Method {
        Method::new(90, 10, Writer::new())
    }

    pub(crate) fn commit() -> Method {
        Method::new(90, 20, Writer::new())
    }

    pub(crate) fn rollback() -> Method {
        Method::new(90, 30, Writer::new())
    }
}
