//! Front ends: protocols as state machines, without sockets or tasks. Bytes and events go in, requests and bytes come out.

pub mod amqp091;
pub mod proxy;
