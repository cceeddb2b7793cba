//! Content: publishes read straight from the socket's bytes, deliveries written straight into the output.

use bytes::Bytes;

use super::codec::{BODY, CONTENT_HEADER_SIZE, FRAME_END, FRAME_OVERHEAD, HEADER, HEADER_SIZE, METHOD, Output};
use super::method::end_frame;
use crate::model::message::{Body, Envelope, Message, Properties};
use crate::model::narrow::narrow;

pub(super) const BASIC_PUBLISH: [u8; 4] = [0, 60, 0, 40];
pub(super) const BASIC_QOS: [u8; 4] = [0, 60, 0, 10];
pub(super) const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
pub(super) const BASIC_REJECT: [u8; 4] = [0, 60, 0, 90];
pub(super) const BASIC_NACK: [u8; 4] = [0, 60, 0, 120];
const BASIC_RETURN: [u8; 4] = [0, 60, 0, 50];
const BASIC_DELIVER: [u8; 4] = [0, 60, 0, 60];
const BASIC_GET_OK: [u8; 4] = [0, 60, 0, 71];

/// The fields of `basic.publish`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublishMethod<'a> {
    pub(super) envelope: Envelope<'a>,
    pub(super) mandatory: bool,
    pub(super) immediate: bool,
}

impl<'a> PublishMethod<'a> {
    /// Reads the payload behind class and method.
    pub(super) fn parse(fields: &'a [u8]) -> Option<Self> {
        let (exchange, rest) = short(fields.get(2..)?)?;
        let (routing_key, rest) = short(rest)?;
        let [bits] = rest else { return None };
        Some(Self { envelope: Envelope { exchange, routing_key }, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
    }
}

/// A content header's fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct ContentHeader<'a> {
    pub(super) class: u16,
    /// Reserved: zero.
    pub(super) weight: u16,
    pub(super) body_size: u64,
    /// Flags and values.
    pub(super) properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (fixed, properties) = payload.split_first_chunk::<CONTENT_HEADER_SIZE>()?;
        let [c0, c1, w0, w1, size @ ..] = *fixed;
        let (class, weight) = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([w0, w1]));
        Some(Self { class, weight, body_size: u64::from_be_bytes(size), properties })
    }
}

/// A publish whose frames all lie in one piece of input.
pub(super) struct WholePublish<'a> {
    pub(super) channel: u16,
    pub(super) method: PublishMethod<'a>,
    pub(super) properties: &'a [u8],
    pub(super) body: &'a [u8],
    /// Bytes of input it takes.
    pub(super) length: usize,
}

impl<'a> WholePublish<'a> {
    /// Recognises method, header and a single body frame at the front of `input`. Anything unusual is left to the
    /// ordinary way, which also finds the errors.
    pub(super) fn parse(input: &'a [u8], payload_max: usize) -> Option<Self> {
        let (channel, method, rest) = frame(input, METHOD, payload_max)?;
        let fields = method.strip_prefix(&BASIC_PUBLISH)?;
        let method = PublishMethod::parse(fields)?;
        let (header_channel, header, rest) = frame(rest, HEADER, payload_max)?;
        let header = ContentHeader::parse(header)?;
        if header_channel != channel || header.class != 60 || header.weight != 0 {
            return None;
        }
        let (body, rest) = if header.body_size == 0 {
            (&[][..], rest)
        } else {
            let (body_channel, body, rest) = frame(rest, BODY, payload_max)?;
            if body_channel != channel || body.len() as u64 != header.body_size {
                return None;
            }
            (body, rest)
        };
        Some(Self { channel, method, properties: header.properties, body, length: input.len() - rest.len() })
    }
}

fn frame(input: &[u8], kind: u8, payload_max: usize) -> Option<(u16, &[u8], &[u8])> {
    let (&[found, c0, c1, s0, s1, s2, s3], rest) = input.split_first_chunk::<HEADER_SIZE>()?;
    let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
    if found != kind || size > payload_max {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size)?;
    let (&FRAME_END, rest) = rest.split_first()? else { return None };
    Some((u16::from_be_bytes([c0, c1]), payload, rest))
}

fn short(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(length))
}

/// A publish that is still arriving.
#[derive(Debug)]
pub(super) struct Assembly {
    exchange: Box<[u8]>,
    routing_key: Box<[u8]>,
    pub(super) mandatory: bool,
    properties: Box<[u8]>,
    /// Body bytes still to come; none before the header.
    remaining: Option<u64>,
    body_size: u64,
    /// The body is too large: its bytes are counted, and dropped as they come. The refusal waits for the last of them,
    /// since clients do not expect a channel to close in the middle of their own content.
    is_refused: bool,
    slices: Vec<Bytes>,
    filling: Vec<u8>,
}

/// Bodies are gathered in pieces of at most this many bytes.
const PIECE_MAX: usize = 256 * 1024;

impl Assembly {
    pub(super) fn new(method: &PublishMethod<'_>) -> Self {
        Self {
            exchange: method.envelope.exchange.into(),
            routing_key: method.envelope.routing_key.into(),
            mandatory: method.mandatory,
            properties: Box::default(),
            remaining: None,
            body_size: 0,
            is_refused: false,
            slices: Vec::new(),
            filling: Vec::new(),
        }
    }

    pub(super) fn awaits_header(&self) -> bool {
        self.remaining.is_none()
    }

    pub(super) fn header(&mut self, header: &ContentHeader<'_>, size_max: u64) {
        self.properties = header.properties.into();
        self.remaining = Some(header.body_size);
        self.body_size = header.body_size;
        self.is_refused |= header.body_size > size_max;
    }

    /// Drops what has arrived of the body, and what will; returns the body bytes it held.
    pub(super) fn refuse(&mut self) -> usize {
        let held = self.held();
        self.slices = Vec::new();
        self.filling = Vec::new();
        self.is_refused = true;
        held
    }

    /// Whether its bytes are dropped as they come.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Bytes as announced.
    pub(super) fn body_size(&self) -> u64 {
        self.body_size
    }

    /// Body bytes held.
    pub(super) fn held(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum::<usize>() + self.filling.len()
    }

    /// Whether all of the body has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.remaining == Some(0)
    }

    /// Takes a piece of a body frame with `left` bytes still to come; `false` when the frame exceeds the announced size.
    /// Memory grows with what has arrived, not with what was announced.
    pub(super) fn body(&mut self, mut piece: &[u8], left: usize) -> bool {
        let remaining = self.remaining.and_then(|remaining| remaining.checked_sub(piece.len() as u64));
        let Some(remaining) = remaining.filter(|remaining| *remaining >= left as u64) else { return false };
        self.remaining = Some(remaining);
        if self.is_refused {
            return true;
        }
        while !piece.is_empty() {
            let (now, later) = piece.split_at(piece.len().min(PIECE_MAX - self.filling.len()));
            self.filling.extend_from_slice(now);
            piece = later;
            if self.filling.len() == PIECE_MAX {
                self.slices.push(Bytes::from(std::mem::take(&mut self.filling)));
            }
        }
        true
    }

    /// The message, once complete.
    pub(super) fn finish(self, scratch: &mut Vec<u8>, properties: &Properties<'_>) -> Message {
        let envelope = Envelope { exchange: &self.exchange, routing_key: &self.routing_key };
        let Self { mut slices, filling, .. } = self;
        if slices.is_empty() && filling.len() <= crate::model::message::INLINE_BODY_MAX {
            return Message::new(scratch, envelope, properties, &filling);
        }
        if !filling.is_empty() {
            slices.push(Bytes::from(filling));
        }
        Message::with_slices(scratch, envelope, properties, slices)
    }

    pub(super) fn raw_properties(&self) -> Box<[u8]> {
        self.properties.clone()
    }
}

/// Largest payload of an outgoing frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct PayloadMax(pub(super) usize);

impl PayloadMax {
    /// For a negotiated frame_max; 0 is no limit.
    pub(super) fn of(frame_max: u32) -> Self {
        Self(if frame_max == 0 { usize::MAX } else { frame_max as usize - FRAME_OVERHEAD })
    }
}

/// The front of a consumer's `basic.deliver` frames: frame header, ids and consumer tag.
pub(super) fn deliver_prefix(channel: u16, tag: &str) -> Box<[u8]> {
    let mut prefix = Vec::with_capacity(HEADER_SIZE + 5 + tag.len());
    begin_method(&mut prefix, channel, BASIC_DELIVER);
    push_short(&mut prefix, tag.as_bytes());
    prefix.into()
}

/// Appends a `basic.deliver` with its content.
pub(super) fn deliver(
    output: &mut Output,
    (channel, prefix): (u16, &[u8]),
    (tag, redelivered): (u64, bool),
    message: &Message,
    limit: PayloadMax,
) {
    output.append(|out| {
        let (exchange, key) = (message.exchange(), message.routing_key());
        out.reserve(prefix.len() + exchange.len() + key.len() + message.raw_properties().len() + 64);
        let start = out.len();
        out.extend_from_slice(prefix);
        out.extend_from_slice(&tag.to_be_bytes());
        out.push(u8::from(redelivered));
        push_short(out, exchange);
        push_short(out, key);
        end_frame(out, start);
    });
    content(output, channel, message, limit);
}

/// Appends a `basic.get-ok` with its content.
pub(super) fn get_ok(
    output: &mut Output,
    channel: u16,
    (tag, redelivered): (u64, bool),
    ready: u64,
    message: &Message,
    limit: PayloadMax,
) {
    output.append(|out| {
        let start = out.len();
        begin_method(out, channel, BASIC_GET_OK);
        out.extend_from_slice(&tag.to_be_bytes());
        out.push(u8::from(redelivered));
        push_short(out, message.exchange());
        push_short(out, message.routing_key());
        out.extend_from_slice(&u32::try_from(ready).unwrap_or(u32::MAX).to_be_bytes());
        end_frame(out, start);
    });
    content(output, channel, message, limit);
}

/// Appends a `basic.return` (312 NO_ROUTE) with its content.
pub(super) fn no_route(output: &mut Output, channel: u16, message: &Message, limit: PayloadMax) {
    output.append(|out| {
        let start = out.len();
        begin_method(out, channel, BASIC_RETURN);
        out.extend_from_slice(&312u16.to_be_bytes());
        push_short(out, b"NO_ROUTE");
        push_short(out, message.exchange());
        push_short(out, message.routing_key());
        end_frame(out, start);
    });
    content(output, channel, message, limit);
}

/// Appends a `basic.ack` or `basic.nack`.
pub(super) fn acknowledge(output: &mut Output, channel: u16, tag: u64, multiple: bool, confirmed: bool) {
    output.append(|out| {
        let start = out.len();
        begin_method(out, channel, if confirmed { BASIC_ACK } else { BASIC_NACK });
        out.extend_from_slice(&tag.to_be_bytes());
        out.push(u8::from(multiple));
        end_frame(out, start);
    });
}

fn content(output: &mut Output, channel: u16, message: &Message, limit: PayloadMax) {
    output.append(|out| {
        let start = out.len();
        begin_frame(out, HEADER, channel);
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(message.body_length() as u64).to_be_bytes());
        out.extend_from_slice(message.raw_properties());
        end_frame(out, start);
    });
    match message.body() {
        Body::Inline(body) => {
            for piece in body.chunks(limit.0) {
                output.append(|out| {
                    let start = out.len();
                    begin_frame(out, BODY, channel);
                    out.extend_from_slice(piece);
                    end_frame(out, start);
                });
            }
        }
        Body::Slices(slices) => {
            for slice in slices {
                for from in (0..slice.len()).step_by(limit.0) {
                    let piece = slice.slice(from..slice.len().min(from + limit.0));
                    output.append(|out| {
                        begin_frame(out, BODY, channel);
                        let at = out.len() - 4;
                        let size: u32 =
                            narrow(piece.len(), "a piece of a body is at most a frame, and a body below 4 GiB");
                        out[at..].copy_from_slice(&size.to_be_bytes());
                    });
                    output.append_shared(&piece);
                    output.append(|out| out.push(FRAME_END));
                }
            }
        }
    }
}

fn begin_frame(out: &mut Vec<u8>, kind: u8, channel: u16) {
    let [c0, c1] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, c0, c1, 0, 0, 0, 0]);
}

fn begin_method(out: &mut Vec<u8>, channel: u16, ids: [u8; 4]) {
    begin_frame(out, METHOD, channel);
    out.extend_from_slice(&ids);
}

fn push_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(narrow(bytes.len(), "names, keys and consumer tags are short strings"));
    out.extend_from_slice(bytes);
}
