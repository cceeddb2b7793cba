//! A published message: who it was sent to, its properties as the publisher's bytes, and its body.
//!
//! Exchange, routing key, properties and a small body share one allocation, so that queueing a message costs one
//! allocation and copying a handle costs one reference count. A large body stays in the slices it arrived in.

use std::sync::Arc;

use bytes::Bytes;

use super::ids::Timestamp;
use super::narrow::narrow;
use super::table::{FieldTable, TableError};

/// Bodies up to this many bytes are kept in the message's own allocation; larger ones stay as slices.
pub const INLINE_BODY_MAX: usize = 4096;

/// Bytes of memory that a message takes besides its contents: its slot in a queue or its event on the way, the counts
/// and the rounding of its allocation, its places among what is unacknowledged.
pub const MESSAGE_OVERHEAD: usize = 160;

/// A handle on an immutable message; cloning it shares the bytes.
#[derive(Clone, Debug)]
pub struct Message {
    /// exchange name, routing key, properties, inline body, one after the other
    head: Arc<[u8]>,
    large_body: Option<Arc<Vec<Bytes>>>,
    key_start: u8,
    persistent: bool,
    priority: u8,
    key_length: u8,
    body_start: u32,
    body_length: u32,
    /// When this handle came into its queue, in units of `ARRIVAL_UNIT_MS`, the lower bits.
    arrived: u32,
}

/// When a message came into its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival(u32);

impl Arrival {
    #[expect(clippy::cast_possible_truncation, reason = "the lower bits are meant")]
    fn at(now: Timestamp) -> Self {
        Self((now.0 / ARRIVAL_UNIT_MS) as u32)
    }

    /// How long ago it was, in milliseconds. Of an arrival more than a year ago, what is beyond whole such spans.
    #[must_use]
    pub fn age_ms(self, now: Timestamp) -> u64 {
        u64::from(Self::at(now).0.wrapping_sub(self.0)) * ARRIVAL_UNIT_MS
    }
}

/// Arrivals are known to this precision, which makes them unambiguous for more than a year.
const ARRIVAL_UNIT_MS: u64 = 8;

// A queue's slot with a message in it is to be one cache line.
const _: () = assert!(size_of::<Message>() == 40);

/// The body of a message, as it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    Inline(&'a [u8]),
    Slices(&'a [Bytes]),
}

impl Message {
    /// Builds a message with a body of any size in one piece. `scratch` is a reused buffer. Exchange and key are at most
    /// 255 bytes, as the protocol's short strings are.
    #[must_use]
    pub fn new(scratch: &mut Vec<u8>, envelope: Envelope<'_>, properties: &Properties<'_>, body: &[u8]) -> Self {
        if body.len() > INLINE_BODY_MAX {
            return Self::with_slices(scratch, envelope, properties, vec![Bytes::copy_from_slice(body)]);
        }
        Self::assemble(scratch, envelope, properties, body, None)
    }

    /// Builds a message around a body that lies in several buffers, none of which is copied.
    #[must_use]
    pub fn with_slices(
        scratch: &mut Vec<u8>,
        envelope: Envelope<'_>,
        properties: &Properties<'_>,
        body: Vec<Bytes>,
    ) -> Self {
        Self::assemble(scratch, envelope, properties, &[], Some(body))
    }

    fn assemble(
        scratch: &mut Vec<u8>,
        envelope: Envelope<'_>,
        properties: &Properties<'_>,
        inline: &[u8],
        slices: Option<Vec<Bytes>>,
    ) -> Self {
        scratch.clear();
        scratch.extend_from_slice(envelope.exchange);
        scratch.extend_from_slice(envelope.routing_key);
        scratch.extend_from_slice(properties.raw);
        let body_start = scratch.len();
        scratch.extend_from_slice(inline);
        let body_length = slices.as_ref().map_or(inline.len(), |slices| slices.iter().map(Bytes::len).sum());
        Self {
            head: Arc::from(scratch.as_slice()),
            large_body: slices.map(Arc::new),
            key_start: narrow(envelope.exchange.len(), "the name of an exchange is a short string"),
            persistent: properties.delivery_mode == Some(2),
            priority: properties.priority.unwrap_or(0),
            key_length: narrow(envelope.routing_key.len(), "a routing key is a short string"),
            body_start: narrow(body_start, "properties are as long as a frame at most"),
            body_length: narrow(body_length, "max_message_size is below 4 GiB"),
            arrived: 0,
        }
    }

    /// The same body under another envelope and other properties, as dead-lettering and header changes need it.
    #[must_use]
    pub fn rewritten(&self, scratch: &mut Vec<u8>, envelope: Envelope<'_>, properties: &Properties<'_>) -> Self {
        let inline = match self.body() {
            Body::Inline(bytes) => bytes,
            Body::Slices(_) => &[],
        };
        let mut message = Self::assemble(scratch, envelope, properties, inline, None);
        message.large_body.clone_from(&self.large_body);
        message.body_length = self.body_length;
        message
    }

    /// The exchange's name; not necessarily UTF-8.
    #[must_use]
    pub fn exchange(&self) -> &[u8] {
        &self.head[..usize::from(self.key_start)]
    }

    #[must_use]
    pub fn routing_key(&self) -> &[u8] {
        &self.head[usize::from(self.key_start)..self.properties_start()]
    }

    /// Exchange and routing key without anything between them; with the exchange's length, what routing depends on.
    #[must_use]
    pub fn address(&self) -> (&[u8], usize) {
        (&self.head[..self.properties_start()], usize::from(self.key_start))
    }

    /// Whether it has properties that change how it is published: headers, reply-to, expiration, user-id.
    #[must_use]
    pub fn has_publishing_properties(&self) -> bool {
        const HEADERS_REPLY_TO_EXPIRATION: u8 = 0b0010_0011;
        const USER_ID: u8 = 0b0001_0000;
        match self.raw_properties() {
            [high, low, ..] => high & HEADERS_REPLY_TO_EXPIRATION != 0 || low & USER_ID != 0,
            _ => false,
        }
    }

    /// The property flags and values exactly as published.
    #[must_use]
    pub fn raw_properties(&self) -> &[u8] {
        &self.head[self.properties_start()..self.body_start as usize]
    }

    /// The properties, decoded; they were checked when the message was made.
    #[must_use]
    pub fn properties(&self) -> Properties<'_> {
        Properties::parse(self.raw_properties()).expect("properties are read before a message is made of them")
    }

    #[must_use]
    pub fn body(&self) -> Body<'_> {
        match &self.large_body {
            Some(slices) => Body::Slices(slices),
            None => Body::Inline(&self.head[self.body_start as usize..]),
        }
    }

    /// Exchange, routing key, properties and a small body as one piece, for storing; and where in it the key, the
    /// properties and the body start.
    #[must_use]
    pub fn head(&self) -> (&[u8], [usize; 3]) {
        (&self.head, [usize::from(self.key_start), self.properties_start(), self.body_start as usize])
    }

    /// Whether both are handles on the same message.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.head, &other.head)
    }

    /// Body bytes; what length limits count.
    #[must_use]
    pub fn body_length(&self) -> usize {
        self.body_length as usize
    }

    /// Bytes of memory that this message takes wherever it waits: its contents with exchange, key and properties, and
    /// what keeping it takes. What credit, budgets and limits of memory count.
    #[must_use]
    pub fn cost(&self) -> usize {
        MESSAGE_OVERHEAD + self.body_start as usize + self.body_length as usize
    }

    /// Whether delivery-mode is 2.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Notes when this handle came into its queue.
    pub fn set_arrived(&mut self, now: Timestamp) {
        self.arrived = Arrival::at(now).0;
    }

    /// When this handle came into its queue.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        Arrival(self.arrived)
    }

    fn properties_start(&self) -> usize {
        usize::from(self.key_start) + usize::from(self.key_length)
    }

    /// The priority property; 0 when absent.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.priority
    }
}

/// Where a message is sent: at most 255 bytes each, not necessarily UTF-8.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    pub exchange: &'a [u8],
    pub routing_key: &'a [u8],
}

/// The basic properties, borrowed from the bytes of a content header: flags and values. Short strings need not be UTF-8;
/// `headers` is the table's content without its length, not decoded yet.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    /// The bytes that were read, or that `encode` wrote.
    pub raw: &'a [u8],
    pub content_type: Option<&'a [u8]>,
    pub content_encoding: Option<&'a [u8]>,
    pub headers: Option<&'a [u8]>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<&'a [u8]>,
    pub reply_to: Option<&'a [u8]>,
    pub expiration: Option<&'a [u8]>,
    pub message_id: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    pub kind: Option<&'a [u8]>,
    pub user_id: Option<&'a [u8]>,
    pub app_id: Option<&'a [u8]>,
    pub cluster_id: Option<&'a [u8]>,
}

/// The bytes are not a list of basic properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed content header properties")]
pub struct PropertiesError;

impl Default for Properties<'_> {
    /// None of them.
    fn default() -> Self {
        Self {
            raw: &[0, 0],
            content_type: None,
            content_encoding: None,
            headers: None,
            delivery_mode: None,
            priority: None,
            correlation_id: None,
            reply_to: None,
            expiration: None,
            message_id: None,
            timestamp: None,
            kind: None,
            user_id: None,
            app_id: None,
            cluster_id: None,
        }
    }
}

impl<'a> Properties<'a> {
    /// Reads flags and values; nothing may be left over.
    pub fn parse(raw: &'a [u8]) -> Result<Self, PropertiesError> {
        let (flags, mut rest) = raw.split_first_chunk::<2>().ok_or(PropertiesError)?;
        let flags = u16::from_be_bytes(*flags);
        if flags & 0b11 != 0 {
            return Err(PropertiesError);
        }
        let mut properties = Self { raw, ..Self::default() };
        let rest = &mut rest;
        let has = |bit: u16| flags & (1 << bit) != 0;
        properties.content_type = has(15).then(|| short(rest)).transpose()?;
        properties.content_encoding = has(14).then(|| short(rest)).transpose()?;
        properties.headers = has(13).then(|| long(rest)).transpose()?;
        properties.delivery_mode = has(12).then(|| octet(rest)).transpose()?;
        properties.priority = has(11).then(|| octet(rest)).transpose()?;
        properties.correlation_id = has(10).then(|| short(rest)).transpose()?;
        properties.reply_to = has(9).then(|| short(rest)).transpose()?;
        properties.expiration = has(8).then(|| short(rest)).transpose()?;
        properties.message_id = has(7).then(|| short(rest)).transpose()?;
        properties.timestamp = has(6).then(|| longlong(rest)).transpose()?;
        properties.kind = has(5).then(|| short(rest)).transpose()?;
        properties.user_id = has(4).then(|| short(rest)).transpose()?;
        properties.app_id = has(3).then(|| short(rest)).transpose()?;
        properties.cluster_id = has(2).then(|| short(rest)).transpose()?;
        if rest.is_empty() { Ok(properties) } else { Err(PropertiesError) }
    }

    /// Decodes the header table; absent headers are an empty table.
    pub fn header_table(&self) -> Result<FieldTable, TableError> {
        self.headers.map_or_else(|| Ok(FieldTable::default()), FieldTable::decode)
    }

    /// Writes flags and values of the fields into `out`, ignoring `raw`: for changed properties.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        let mut flags = 0u16;
        let shorts = |out: &mut Vec<u8>, fields: &[(u16, Option<&[u8]>)], flags: &mut u16| {
            for (bit, field) in fields {
                let Some(bytes) = field else { continue };
                *flags |= 1 << bit;
                out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(&bytes[..bytes.len().min(255)]);
            }
        };
        shorts(out, &[(15, self.content_type), (14, self.content_encoding)], &mut flags);
        if let Some(headers) = self.headers {
            flags |= 1 << 13;
            out.extend_from_slice(&u32::try_from(headers.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(headers);
        }
        for (bit, octet) in [(12, self.delivery_mode), (11, self.priority)] {
            if let Some(octet) = octet {
                flags |= 1 << bit;
                out.push(octet);
            }
        }
        let before = [(10, self.correlation_id), (9, self.reply_to), (8, self.expiration), (7, self.message_id)];
        shorts(out, &before, &mut flags);
        if let Some(timestamp) = self.timestamp {
            flags |= 1 << 6;
            out.extend_from_slice(&timestamp.to_be_bytes());
        }
        let after = [(5, self.kind), (4, self.user_id), (3, self.app_id), (2, self.cluster_id)];
        shorts(out, &after, &mut flags);
        out[start..start + 2].copy_from_slice(&flags.to_be_bytes());
    }
}

fn octet(rest: &mut &[u8]) -> Result<u8, PropertiesError> {
    let (first, tail) = rest.split_first().ok_or(PropertiesError)?;
    *rest = tail;
    Ok(*first)
}

fn longlong(rest: &mut &[u8]) -> Result<u64, PropertiesError> {
    let (bytes, tail) = rest.split_first_chunk::<8>().ok_or(PropertiesError)?;
    *rest = tail;
    Ok(u64::from_be_bytes(*bytes))
}

fn short<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], PropertiesError> {
    let length = usize::from(octet(rest)?);
    let (bytes, tail) = rest.split_at_checked(length).ok_or(PropertiesError)?;
    *rest = tail;
    Ok(bytes)
}

fn long<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], PropertiesError> {
    let (length, tail) = rest.split_first_chunk::<4>().ok_or(PropertiesError)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| PropertiesError)?;
    let (bytes, tail) = tail.split_at_checked(length).ok_or(PropertiesError)?;
    *rest = tail;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    type Shorts = Vec<Option<Vec<u8>>>;
    type Rest = (Option<Vec<u8>>, Option<u8>, Option<u8>, Option<u64>);

    fn shorts() -> impl Strategy<Value = Shorts> {
        vec(option::of(vec(any::<u8>(), 0..=255)), 10..=10)
    }

    fn properties<'a>(shorts: &'a Shorts, rest: &'a Rest) -> Properties<'a> {
        let short = |at: usize| shorts[at].as_deref();
        Properties {
            raw: &[],
            content_type: short(0),
            content_encoding: short(1),
            headers: rest.0.as_deref(),
            delivery_mode: rest.1,
            priority: rest.2,
            correlation_id: short(2),
            reply_to: short(3),
            expiration: short(4),
            message_id: short(5),
            timestamp: rest.3,
            kind: short(6),
            user_id: short(7),
            app_id: short(8),
            cluster_id: short(9),
        }
    }

    /// Everything but `raw`, to compare.
    fn shown(properties: &Properties<'_>) -> String {
        format!("{:?}", Properties { raw: &[], ..*properties })
    }

    fn body_of(message: &Message) -> Vec<u8> {
        match message.body() {
            Body::Inline(bytes) => bytes.to_vec(),
            Body::Slices(slices) => slices.concat(),
        }
    }

    fn rest() -> impl Strategy<Value = Rest> {
        (option::of(vec(any::<u8>(), 0..300)), any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>())
    }

    proptest! {
        #[test]
        fn properties_come_back_as_they_were(shorts in shorts(), rest in rest()) {
            let properties = properties(&shorts, &rest);
            let mut encoded = Vec::new();
            properties.encode(&mut encoded);
            let parsed = Properties::parse(&encoded).unwrap();
            prop_assert_eq!(shown(&parsed), shown(&properties));
            let mut again = Vec::new();
            parsed.encode(&mut again);
            prop_assert_eq!(&again, &encoded);
            // Neither a byte less nor one more.
            prop_assert!(Properties::parse(&encoded[..encoded.len() - 1]).is_err());
            again.push(0);
            prop_assert!(Properties::parse(&again).is_err());
        }

        #[test]
        fn noise_parses_to_what_it_encodes_to(bytes in vec(any::<u8>(), 0..60)) {
            if let Ok(properties) = Properties::parse(&bytes) {
                let mut encoded = Vec::new();
                properties.encode(&mut encoded);
                prop_assert_eq!(encoded, bytes);
            }
        }

        #[test]
        fn messages_keep_what_they_are_made_of(
            names in (vec(any::<u8>(), 0..=255), vec(any::<u8>(), 0..=255)),
            shorts in shorts(),
            rest in rest(),
            body in vec(any::<u8>(), 0..6000),
            piece in 1usize..4000,
        ) {
            let mut raw = Vec::new();
            properties(&shorts, &rest).encode(&mut raw);
            let parsed = Properties::parse(&raw).unwrap();
            let envelope = Envelope { exchange: &names.0, routing_key: &names.1 };
            let slices = body.chunks(piece).map(Bytes::copy_from_slice).collect();
            let scratch = &mut vec![9; 10];
            let whole = Message::new(scratch, envelope, &parsed, &body);
            let sliced = Message::with_slices(scratch, envelope, &parsed, slices);
            for message in [&whole, &sliced] {
                prop_assert_eq!((message.exchange(), message.routing_key()), (&names.0[..], &names.1[..]));
                prop_assert_eq!(message.address(), (&[&names.0[..], &names.1[..]].concat()[..], names.0.len()));
                prop_assert_eq!(message.raw_properties(), &raw[..]);
                prop_assert_eq!(message.body_length(), body.len());
                prop_assert_eq!(message.is_persistent(), rest.1 == Some(2));
                prop_assert_eq!(message.priority(), rest.2.unwrap_or(0));
                prop_assert_eq!(body_of(message), &body[..]);
                let other = Envelope { exchange: b"other", routing_key: b"" };
                let plain = Properties::parse(&[0, 0]).unwrap();
                let rewritten = message.rewritten(scratch, other, &plain);
                prop_assert_eq!((rewritten.exchange(), rewritten.routing_key()), (&b"other"[..], &b""[..]));
                prop_assert_eq!(rewritten.raw_properties(), &[0, 0][..]);
                prop_assert_eq!(rewritten.body_length(), body.len());
                prop_assert_eq!(body_of(&rewritten), &body[..]);
                prop_assert!(!rewritten.is_persistent());
                // The original is as it was.
                prop_assert_eq!(message.raw_properties(), &raw[..]);
            }
        }
    }
}
