//! A death history as bytes, for the log. Fields come with their lengths, so that a later version can add some behind.

use std::sync::Arc;

use bytes::Bytes;

use super::{Death, DeathHistory, FirstDeath};
use crate::model::names::{QueueName, RoutingKey};
use crate::model::narrow::narrow;
use crate::queue::Reason;

/// The version this code writes, and the newest it reads.
const VERSION: u8 = 1;

/// The bytes are no death history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed death history")]
pub struct RecordError;

impl DeathHistory {
    /// Appends the history to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(u8::from(self.keys_replaced));
        match &self.first {
            None => out.push(0),
            Some(first) => {
                out.push(reason_number(first.reason));
                put(out, first.queue.as_str().as_bytes());
                put(out, &first.exchange);
            }
        }
        put_keys(out, &self.blind_keys);
        put_length(out, self.deaths.len());
        for death in &self.deaths {
            out.push(reason_number(death.reason));
            put(out, death.queue.as_str().as_bytes());
            out.extend_from_slice(&death.count.to_le_bytes());
            out.extend_from_slice(&death.time_seconds.to_le_bytes());
            put(out, &death.exchange);
            put_keys(out, &death.routing_keys);
            out.push(u8::from(death.original_expiration.is_some()));
            put(out, death.original_expiration.as_deref().unwrap_or_default());
        }
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let rest = &mut rest;
        if octet(rest)? != VERSION {
            return Err(RecordError);
        }
        let keys_replaced = octet(rest)? != 0;
        let first = match octet(rest)? {
            0 => None,
            number => Some(FirstDeath {
                reason: reason_of(number)?,
                queue: name(rest)?,
                exchange: Bytes::copy_from_slice(field(rest)?),
            }),
        };
        let blind_keys = keys(rest)?;
        let count = length(rest)?;
        let mut deaths = Vec::new();
        for _ in 0..count {
            let reason = reason_of(octet(rest)?)?;
            let queue = name(rest)?;
            let count = i64::from_le_bytes(array(rest)?);
            let time_seconds = u64::from_le_bytes(array(rest)?);
            let exchange = Bytes::copy_from_slice(field(rest)?);
            let routing_keys = keys(rest)?;
            let expires = octet(rest)? != 0;
            let expiration = field(rest)?;
            let original_expiration = expires.then(|| Bytes::copy_from_slice(expiration));
            let encoded = Box::default();
            let death =
                Death { queue, reason, count, time_seconds, exchange, routing_keys, original_expiration, encoded };
            deaths.push(Arc::new(death.encoded()));
        }
        Ok(Self { deaths, first, blind_keys, keys_replaced })
    }
}

fn reason_number(reason: Reason) -> u8 {
    match reason {
        Reason::Rejected => 1,
        Reason::Expired => 2,
        Reason::MaxLength => 3,
        Reason::DeliveryLimit => 4,
    }
}

fn reason_of(number: u8) -> Result<Reason, RecordError> {
    match number {
        1 => Ok(Reason::Rejected),
        2 => Ok(Reason::Expired),
        3 => Ok(Reason::MaxLength),
        4 => Ok(Reason::DeliveryLimit),
        _ => Err(RecordError),
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&narrow::<_, u32>(length, "a history of deaths is below 4 GiB").to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_keys(out: &mut Vec<u8>, keys: &[RoutingKey]) {
    put_length(out, keys.len());
    for key in keys {
        put(out, key.as_bytes());
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (first, tail) = rest.split_first_chunk::<N>().ok_or(RecordError)?;
    *rest = tail;
    Ok(*first)
}

fn octet(rest: &mut &[u8]) -> Result<u8, RecordError> {
    array::<1>(rest).map(|[octet]| octet)
}

fn length(rest: &mut &[u8]) -> Result<usize, RecordError> {
    usize::try_from(u32::from_le_bytes(array(rest)?)).map_err(|_| RecordError)
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RecordError> {
    let length = length(rest)?;
    let (field, tail) = rest.split_at_checked(length).ok_or(RecordError)?;
    *rest = tail;
    Ok(field)
}

fn name(rest: &mut &[u8]) -> Result<QueueName, RecordError> {
    std::str::from_utf8(field(rest)?).map(QueueName::new).map_err(|_| RecordError)
}

fn keys(rest: &mut &[u8]) -> Result<Vec<RoutingKey>, RecordError> {
    let count = length(rest)?;
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(RoutingKey::new(field(rest)?));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::entity::DeadLetterTarget;
    use crate::model::ids::Timestamp;
    use crate::model::message::{Envelope, Message, Properties};
    use crate::queue::dead_letter::rewrite;

    fn history() -> DeathHistory {
        let scratch = &mut Vec::new();
        let raw = [0x01, 0x00, 2, b'1', b'0'];
        let properties = Properties::parse(&raw).unwrap();
        let envelope = Envelope { exchange: b"x\xff", routing_key: b"key" };
        let message = Message::new(scratch, envelope, &properties, b"body");
        let target = DeadLetterTarget { exchange: "dlx".into(), routing_key: Some(RoutingKey::new(b"dead")) };
        let blind = DeathHistory::published_blindly(vec![RoutingKey::new(b"blind"), RoutingKey::new(b"")]);
        let now = Timestamp(5_000);
        let first = rewrite(scratch, &message, Some(&blind), Reason::Expired, &"q".into(), &target, now);
        let again = rewrite(scratch, &first.message, Some(&first.deaths), Reason::Rejected, &"p".into(), &target, now);
        DeathHistory::clone(&again.deaths)
    }

    #[test]
    fn histories_come_back_as_they_were() {
        for history in [DeathHistory::default(), history()] {
            let mut bytes = Vec::new();
            history.encode(&mut bytes);
            assert_eq!(DeathHistory::decode(&bytes), Ok(history));
        }
    }

    #[test]
    fn damaged_histories_are_refused_or_read_as_something_else() {
        let mut bytes = Vec::new();
        history().encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(DeathHistory::decode(&bytes[..end]), Err(RecordError), "cut off at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                let _ = DeathHistory::decode(&bytes);
                bytes[at] ^= 1 << bit;
            }
        }
    }
}
