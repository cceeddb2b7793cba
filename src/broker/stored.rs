//! A message as the log keeps it: the payload of its entry.
//!
//! ```text
//! version u8 | exchange length u8 | key length u8 | reserved u8 | properties length u32 | history length u32
//! history of deaths, exchange, routing key, properties, body
//! ```
//! All numbers are little-endian. The index, the time and the expiry are the entry's own.

use bytes::Bytes;

use crate::log::{Batch, Head, Stored};
use crate::model::ids::{MessageIndex, Timestamp};
use crate::model::message::{Body, Envelope, INLINE_BODY_MAX, Message, Properties, PropertiesError};
use crate::model::narrow::narrow;
use crate::queue::dead_letter::RecordError;
use crate::queue::{DeathHistory, Loaded};

/// The version this code writes, and the newest it reads.
const VERSION: u8 = 1;
const PREFIX_LENGTH: usize = 12;
/// Larger bodies keep the buffer they were read in, which is much larger only for smaller ones.
const SHARED_BODY_MIN: usize = 64 * 1024;

/// Why an entry is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoredError {
    #[error("the entry is cut off")]
    Short,
    #[error("the entry has version {0}, and this broker knows versions up to {VERSION}")]
    Version(u8),
    #[error(transparent)]
    Properties(#[from] PropertiesError),
    #[error(transparent)]
    Deaths(#[from] RecordError),
}

/// Appends a message as an entry.
pub(super) fn append(batch: &mut Batch, head: &Head, message: &Message, deaths: Option<&DeathHistory>) {
    let mut history = Vec::new();
    if let Some(deaths) = deaths {
        deaths.encode(&mut history);
    }
    let (contents, [key_start, properties_start, body_start]) = message.head();
    let mut prefix = [0; PREFIX_LENGTH];
    prefix[0] = VERSION;
    prefix[1] = narrow(key_start, "the name of an exchange is a short string");
    prefix[2] = narrow(properties_start - key_start, "a routing key is a short string");
    prefix[4..8].copy_from_slice(&length_bytes(body_start - properties_start));
    prefix[8..12].copy_from_slice(&length_bytes(history.len()));
    let large = match message.body() {
        Body::Inline(_) => &[],
        Body::Slices(slices) => slices,
    };
    batch.append(head, &[&prefix, &history, contents], large);
}

/// The message of an entry. `scratch` is a reused buffer.
pub(super) fn read(stored: &Stored, scratch: &mut Vec<u8>) -> Result<Loaded, StoredError> {
    let (prefix, rest) = stored.payload.split_first_chunk::<PREFIX_LENGTH>().ok_or(StoredError::Short)?;
    let [version, exchange, key, _, p0, p1, p2, p3, h0, h1, h2, h3] = *prefix;
    if version != VERSION {
        return Err(StoredError::Version(version));
    }
    let history = usize::try_from(u32::from_le_bytes([h0, h1, h2, h3])).unwrap_or(usize::MAX);
    let properties = usize::try_from(u32::from_le_bytes([p0, p1, p2, p3])).unwrap_or(usize::MAX);
    let (history, rest) = rest.split_at_checked(history).ok_or(StoredError::Short)?;
    let (exchange, rest) = rest.split_at_checked(usize::from(exchange)).ok_or(StoredError::Short)?;
    let (routing_key, rest) = rest.split_at_checked(usize::from(key)).ok_or(StoredError::Short)?;
    let (properties, body) = rest.split_at_checked(properties).ok_or(StoredError::Short)?;
    let properties = Properties::parse(properties)?;
    let envelope = Envelope { exchange, routing_key };
    let mut message = if body.len() > INLINE_BODY_MAX && body.len() >= SHARED_BODY_MIN {
        let body: Bytes = stored.payload.slice_ref(body);
        Message::with_slices(scratch, envelope, &properties, vec![body])
    } else {
        Message::new(scratch, envelope, &properties, body)
    };
    message.set_arrived(Timestamp(stored.head.time));
    let deaths = if history.is_empty() { None } else { Some(DeathHistory::decode(history)?.into()) };
    let deadline = stored.head.deadline;
    Ok(Loaded {
        index: MessageIndex(stored.head.index),
        message,
        expires: (deadline != u64::MAX).then_some(Timestamp(deadline)),
        deaths,
    })
}

fn length_bytes(length: usize) -> [u8; 4] {
    narrow::<_, u32>(length, "a message and its history are below 4 GiB").to_le_bytes()
}
