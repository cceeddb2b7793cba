//! Frames: splitting what was read, and building what is written.
//!
//! The decoder works on whatever the socket had, in place. Only a method or header frame that is cut off is kept (it is
//! small and capped); a body frame is handed on piece by piece as it arrives, so no announced length is ever allocated.

use std::collections::VecDeque;

use bytes::Bytes;

/// Frame type, channel and size in front of a payload.
pub(super) const HEADER_SIZE: usize = 7;
/// Header and end octet.
pub(super) const FRAME_OVERHEAD: usize = 8;
pub(super) const FRAME_END: u8 = 0xCE;
/// Class and method, which every method begins with.
pub(super) const METHOD_IDS_SIZE: usize = 4;
/// Payload of a content header before its properties: class, weight, body size.
pub(super) const CONTENT_HEADER_SIZE: usize = 12;
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;

/// RabbitMQ tolerates payloads of clients that forget the frame's overhead in their arithmetic.
const SIZE_TOLERANCE: usize = 8;
/// What a frame that came in pieces was gathered in is given back beyond this.
const PARTIAL_KEEP: usize = 4096;
/// Bodies larger than this are written from where they lie; smaller ones are copied behind their headers.
const COPY_MAX: usize = 4096;

/// A frame, or a piece of a body frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Method {
        channel: u16,
        payload: &'a [u8],
    },
    Header {
        channel: u16,
        payload: &'a [u8],
    },
    Body {
        channel: u16,
        body: BodyPiece<'a>,
    },
    Heartbeat {
        channel: u16,
    },
    /// A frame of no type there is, or one too short, or too long, for what its type must have.
    Unknown {
        kind: u8,
        payload: &'a [u8],
    },
}

/// A body frame may come in any number of pieces, empty ones among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyPiece<'a> {
    pub(super) piece: &'a [u8],
    /// The frame begins with this piece.
    pub(super) start: bool,
    /// Payload bytes of the frame still to come.
    pub(super) left: usize,
    /// The frame is whole: its end octet was there.
    pub(super) end: bool,
}

/// Bytes that are not a frame; always fatal to the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FrameError {
    TooLarge { kind: u8, size: usize, limit: usize },
    BadEnd { kind: u8, octets: Octets, end: u8 },
}

/// The front of a payload, as errors show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Octets {
    shown: [u8; Self::MAX],
    /// Bytes of the whole payload.
    total: usize,
}

impl Octets {
    const MAX: usize = 16;

    pub(super) fn of(payload: &[u8]) -> Self {
        let mut octets = Self::default();
        octets.add(payload);
        octets
    }

    /// Adds the next piece of the payload.
    pub(super) fn add(&mut self, piece: &[u8]) {
        let room = self.shown.get_mut(self.total..).unwrap_or_default();
        let count = room.len().min(piece.len());
        room[..count].copy_from_slice(&piece[..count]);
        self.total += piece.len();
    }
}

impl std::fmt::Display for Octets {
    /// As RabbitMQ shows them: text where all of them are printable, numbers elsewhere.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.shown[..self.total.min(Self::MAX)];
        f.write_str(if self.total > Self::MAX { "first 16 octets = <<" } else { "all octets = <<" })?;
        let escape = |byte: u8| match byte {
            b'\n' => Some("\\n"),
            b'\r' => Some("\\r"),
            b'\t' => Some("\\t"),
            0x0B => Some("\\v"),
            0x08 => Some("\\b"),
            0x0C => Some("\\f"),
            0x1B => Some("\\e"),
            b'"' => Some("\\\""),
            b'\\' => Some("\\\\"),
            _ => None,
        };
        let is_text = |byte: &u8| matches!(*byte, 0x20..=0x7E | 0xA0..) || escape(*byte).is_some();
        if !shown.is_empty() && shown.iter().all(is_text) {
            f.write_str("\"")?;
            for byte in shown {
                match escape(*byte) {
                    Some(escaped) => f.write_str(escaped)?,
                    None => std::fmt::Write::write_char(f, char::from(*byte))?,
                }
            }
            return f.write_str("\">>");
        }
        for (at, byte) in shown.iter().enumerate() {
            write!(f, "{}{byte}", if at == 0 { "" } else { "," })?;
        }
        f.write_str(">>")
    }
}

/// What `Decoder::next` found in the input.
pub(super) enum Decoded<'a> {
    Frame(Frame<'a>),
    /// All input is consumed.
    NeedMore,
}

/// Splits frames; holds at most one incomplete method or header frame.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    partial: Vec<u8>,
    /// The frame in `partial` was handed out and is to be forgotten.
    spent: bool,
    /// A body frame that continues.
    body: Option<BodyFrame>,
    /// Largest payload accepted.
    pub(super) payload_max: usize,
}

/// A body frame of which a part has come.
#[derive(Debug)]
struct BodyFrame {
    channel: u16,
    /// Payload bytes still to come.
    left: usize,
    octets: Octets,
}

impl Decoder {
    pub(super) fn new(frame_max: usize) -> Self {
        let mut decoder = Self::default();
        decoder.limit(frame_max);
        decoder
    }

    /// Accepts frames of up to `frame_max` bytes from here on; 0 is no limit.
    pub(super) fn limit(&mut self, frame_max: usize) {
        self.payload_max = if frame_max == 0 { usize::MAX } else { frame_max - FRAME_OVERHEAD + SIZE_TOLERANCE };
    }

    /// Whether the next byte begins a frame: the input may be parsed in place.
    pub(super) fn at_boundary(&self) -> bool {
        self.body.is_none() && (self.partial.is_empty() || self.spent)
    }

    /// The next frame at the front of `input`, which shrinks by what was consumed.
    pub(super) fn next<'x, 'a: 'x>(&'x mut self, input: &mut &'a [u8]) -> Result<Decoded<'x>, FrameError> {
        if self.spent {
            self.partial.clear();
            self.partial.shrink_to(PARTIAL_KEEP);
            self.spent = false;
        }
        if self.body.is_some() {
            return self.continue_body(input);
        }
        if self.partial.is_empty() { self.split_input(input) } else { self.split_partial(input) }
    }

    fn split_input<'x, 'a: 'x>(&'x mut self, input: &mut &'a [u8]) -> Result<Decoded<'x>, FrameError> {
        let bytes = *input;
        let Some(head) = bytes.first_chunk::<HEADER_SIZE>() else {
            self.partial.extend_from_slice(bytes);
            *input = &[];
            return Ok(Decoded::NeedMore);
        };
        let (kind, channel, size) = self.check_head(head)?;
        if kind == BODY {
            *input = &bytes[HEADER_SIZE..];
            return self.take_body(channel, size, None, input).map(Decoded::Frame);
        }
        let Some(frame) = bytes.get(..size + FRAME_OVERHEAD) else {
            self.partial.extend_from_slice(bytes);
            *input = &[];
            return Ok(Decoded::NeedMore);
        };
        *input = &bytes[size + FRAME_OVERHEAD..];
        whole(kind, channel, frame).map(Decoded::Frame)
    }

    fn split_partial<'x, 'a: 'x>(&'x mut self, input: &mut &'a [u8]) -> Result<Decoded<'x>, FrameError> {
        if !self.fill(HEADER_SIZE, input) {
            return Ok(Decoded::NeedMore);
        }
        let Some(head) = self.partial.first_chunk::<HEADER_SIZE>().copied() else { return Ok(Decoded::NeedMore) };
        let (kind, channel, size) = self.check_head(&head)?;
        if kind == BODY {
            self.partial.clear();
            return self.take_body(channel, size, None, input).map(Decoded::Frame);
        }
        if !self.fill(size + FRAME_OVERHEAD, input) {
            return Ok(Decoded::NeedMore);
        }
        self.spent = true;
        whole(kind, channel, &self.partial).map(Decoded::Frame)
    }

    /// Moves input into `partial` until it holds `length` bytes.
    fn fill(&mut self, length: usize, input: &mut &[u8]) -> bool {
        let missing = length.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.partial.extend_from_slice(taken);
        *input = rest;
        self.partial.len() >= length
    }

    fn check_head(&self, head: &[u8; HEADER_SIZE]) -> Result<(u8, u16, usize), FrameError> {
        let [kind, c0, c1, s0, s1, s2, s3] = *head;
        let channel = u16::from_be_bytes([c0, c1]);
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        if size > self.payload_max {
            let limit = self.payload_max - SIZE_TOLERANCE;
            return Err(FrameError::TooLarge { kind, size, limit });
        }
        Ok((kind, channel, size))
    }

    fn continue_body<'a>(&mut self, input: &mut &'a [u8]) -> Result<Decoded<'a>, FrameError> {
        let Some(BodyFrame { channel, left, octets }) = self.body.take_if(|_| !input.is_empty()) else {
            return Ok(Decoded::NeedMore);
        };
        self.take_body(channel, left, Some(octets), input).map(Decoded::Frame)
    }

    /// Takes what the input has of a body frame with `left` bytes to come, and its end octet when it is there. `octets`
    /// are of the pieces before this one.
    fn take_body<'a>(
        &mut self,
        channel: u16,
        left: usize,
        octets: Option<Octets>,
        input: &mut &'a [u8],
    ) -> Result<Frame<'a>, FrameError> {
        let bytes = *input;
        let start = octets.is_none();
        let (piece, rest) = bytes.split_at(left.min(bytes.len()));
        let left = left - piece.len();
        let whole = || {
            let mut octets = octets.unwrap_or_default();
            octets.add(piece);
            octets
        };
        match rest.split_first() {
            Some((&FRAME_END, rest)) if left == 0 => *input = rest,
            Some((&end, _)) if left == 0 => return Err(FrameError::BadEnd { kind: BODY, octets: whole(), end }),
            _ => {
                self.body = Some(BodyFrame { channel, left, octets: whole() });
                *input = rest;
            }
        }
        Ok(Frame::Body { channel, body: BodyPiece { piece, start, left, end: self.body.is_none() } })
    }
}

fn whole(kind: u8, channel: u16, frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (payload, end) = match frame {
        [head @ .., end] => (&head[HEADER_SIZE..], *end),
        [] => (&[][..], 0),
    };
    if end != FRAME_END {
        return Err(FrameError::BadEnd { kind, octets: Octets::of(payload), end });
    }
    Ok(match kind {
        METHOD if payload.len() >= METHOD_IDS_SIZE => Frame::Method { channel, payload },
        HEADER if payload.len() >= CONTENT_HEADER_SIZE => Frame::Header { channel, payload },
        HEARTBEAT if payload.is_empty() => Frame::Heartbeat { channel },
        _ => Frame::Unknown { kind, payload },
    })
}

/// Bytes to be written, in order: finished chunks, then the buffer being filled.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes of the front (first chunk, or the tail when there are no chunks) already written.
    written: usize,
    length: usize,
}

/// Buffers above this capacity are given back when they are empty.
const TAIL_KEEP: usize = 16 * 1024;
const SLICES_MAX: usize = 64;

impl Output {
    /// Bytes not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that the buffer being filled takes in memory.
    #[cfg(test)]
    pub(super) fn tail_capacity(&self) -> usize {
        self.tail.capacity()
    }

    /// Calls `write` with the bytes to be written until it takes nothing more. `write` returns how many it took.
    pub fn drain<E>(&mut self, mut write: impl FnMut(&[std::io::IoSlice<'_>]) -> Result<usize, E>) -> Result<(), E> {
        while self.length > 0 {
            let mut slices = [std::io::IoSlice::new(&[]); SLICES_MAX];
            let mut used = 0;
            let mut skip = self.written;
            for bytes in self.chunks.iter().map(|chunk| &chunk[..]).chain([&self.tail[..]]).take(SLICES_MAX) {
                slices[used] = std::io::IoSlice::new(&bytes[skip..]);
                used += 1;
                skip = 0;
            }
            let taken = write(&slices[..used])?;
            self.advance(taken);
        }
        Ok(())
    }

    fn advance(&mut self, mut taken: usize) {
        self.length -= taken.min(self.length);
        taken += self.written;
        while let Some(front) = self.chunks.front() {
            if taken < front.len() {
                self.written = taken;
                return;
            }
            taken -= front.len();
            self.chunks.pop_front();
        }
        self.written = taken;
        if taken >= self.tail.len() {
            self.written = 0;
            self.tail.clear();
            if self.tail.capacity() > TAIL_KEEP {
                self.tail = Vec::new();
            }
        } else if self.written > TAIL_KEEP && self.written > self.tail.len() / 2 {
            // A socket that is always a little behind never empties the buffer: what it has taken must go before that.
            self.tail.drain(..self.written);
            self.written = 0;
        }
    }

    /// Appends through `fill`, which may only add to the buffer.
    pub(super) fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let before = self.tail.len();
        fill(&mut self.tail);
        self.length += self.tail.len() - before;
    }

    /// Appends bytes that already lie in a buffer: a reference for large ones, a copy for small ones.
    pub(super) fn append_shared(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_MAX {
            return self.append(|tail| tail.extend_from_slice(bytes));
        }
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            let whole = Bytes::from(tail);
            // What of the tail was written already goes away with it.
            let rest = if self.chunks.is_empty() { whole.slice(self.written..) } else { whole };
            if self.chunks.is_empty() {
                self.written = 0;
            }
            self.chunks.push_back(rest);
        }
        self.length += bytes.len();
        self.chunks.push_back(bytes.clone());
    }
}
