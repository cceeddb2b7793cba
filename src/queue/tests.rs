//! One test per rule of the queue, and the helpers that tests share.

use super::*;
use crate::model::message::{Envelope, Properties};

/// A message to exchange `amq.topic` with `name` as its routing key and a body of `size` bytes.
pub(super) fn message(name: &str, priority: u8, size: usize) -> Message {
    let mut raw = Vec::new();
    let properties = Properties { priority: (priority > 0).then_some(priority), ..Properties::default() };
    properties.encode(&mut raw);
    let properties = Properties { raw: &raw, ..properties };
    let envelope = Envelope { exchange: b"amq.topic", routing_key: name.as_bytes() };
    Message::new(&mut Vec::new(), envelope, &properties, &vec![b'x'; size])
}

pub(super) fn tag(name: &str) -> ConsumerTag {
    ConsumerTag::new(name)
}
