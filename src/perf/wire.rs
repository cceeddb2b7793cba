//! As much of AMQP 0-9-1's framing as a generator needs: frames are built into one buffer, and read where they lie.

use std::io::{self, Read};

use super::error::PerfError;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
/// Type, channel and size in front of a payload.
const FRAME_HEADER: usize = 7;
/// All of a frame that is not payload.
pub(super) const FRAME_OVERHEAD: usize = FRAME_HEADER + 1;

/// A value of an argument or header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Table(Table),
}

pub(super) type Table = Vec<(String, Value)>;

/// Builds frames, one behind the other. Short strings must be at most 255 bytes long; longer ones are cut off.
#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn octet(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn short(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn long_long(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn short_string(&mut self, text: &str) -> &mut Self {
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        self.0.push(length);
        self.0.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
        self
    }

    pub(super) fn long_string(&mut self, bytes: &[u8]) -> &mut Self {
        self.long(length_of(bytes));
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn table(&mut self, table: &[(String, Value)]) -> &mut Self {
        let mut content = Self::default();
        for (key, value) in table {
            content.short_string(key);
            match value {
                Value::Text(text) => content.octet(b'S').long_string(text.as_bytes()),
                Value::Integer(number) => content.octet(b'l').long_long(number.cast_unsigned()),
                Value::Boolean(truth) => content.octet(b't').octet(u8::from(*truth)),
                Value::Table(inner) => content.octet(b'F').table(inner),
            };
        }
        self.long_string(&content.0)
    }

    /// Appends a frame with the payload that `fill` writes.
    pub(super) fn frame(&mut self, kind: u8, channel: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.octet(kind).short(channel).long(0);
        let start = self.0.len();
        fill(self);
        let size = length_of(&self.0[start..]);
        self.0[start - 4..start].copy_from_slice(&size.to_be_bytes());
        self.octet(FRAME_END)
    }

    /// Appends a method frame with the arguments that `fill` writes.
    pub(super) fn method(&mut self, channel: u16, id: (u16, u16), fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.frame(METHOD, channel, |encoder| {
            encoder.short(id.0).short(id.1);
            fill(encoder);
        })
    }
}

/// Frames are far smaller than 4 GiB.
fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A frame in the input buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// The class and the number of the method in a method frame.
    #[inline]
    pub(super) fn id(&self) -> Result<(u16, u16), PerfError> {
        Ok((short_at(self.payload, 0)?, short_at(self.payload, 2)?))
    }
}

#[inline]
fn bytes_at<const N: usize>(payload: &[u8], at: usize) -> Result<[u8; N], PerfError> {
    payload.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(PerfError::Malformed)
}

#[inline]
pub(super) fn octet_at(payload: &[u8], at: usize) -> Result<u8, PerfError> {
    bytes_at::<1>(payload, at).map(|[octet]| octet)
}

#[inline]
pub(super) fn short_at(payload: &[u8], at: usize) -> Result<u16, PerfError> {
    bytes_at(payload, at).map(u16::from_be_bytes)
}

#[inline]
pub(super) fn long_at(payload: &[u8], at: usize) -> Result<u32, PerfError> {
    bytes_at(payload, at).map(u32::from_be_bytes)
}

#[inline]
pub(super) fn long_long_at(payload: &[u8], at: usize) -> Result<u64, PerfError> {
    bytes_at(payload, at).map(u64::from_be_bytes)
}

/// A short string; bytes that are not UTF-8 are replaced.
pub(super) fn short_string_at(payload: &[u8], at: usize) -> Result<String, PerfError> {
    let length = usize::from(octet_at(payload, at)?);
    let bytes = payload.get(at + 1..at + 1 + length).ok_or(PerfError::Malformed)?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// What the socket had, split into frames. It grows to hold the largest frame.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(super) fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity], start: 0, end: 0 }
    }

    /// Reads once.
    ///
    /// # Errors
    /// The socket's, and [`PerfError::EndOfStream`].
    pub(super) fn fill(&mut self, source: &mut impl Read) -> Result<(), PerfError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        match source.read(&mut self.buffer[self.end..])? {
            0 => Err(PerfError::EndOfStream),
            length => {
                self.end += length;
                Ok(())
            }
        }
    }

    /// The next whole frame.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Frame<'_>>, PerfError> {
        let bytes = &self.buffer[self.start..self.end];
        let Some(&[kind, _, _, s0, s1, s2, s3]) = bytes.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        let Some(&end) = bytes.get(FRAME_HEADER + size) else { return Ok(None) };
        if end != FRAME_END {
            return Err(PerfError::Malformed);
        }
        self.start += size + FRAME_OVERHEAD;
        Ok(Some(Frame { kind, payload: &bytes[FRAME_HEADER..FRAME_HEADER + size] }))
    }
}

/// Whether the socket merely had nothing in time, or no room.
pub(super) fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_built_whatever_the_pieces() {
        let mut encoder = Encoder::default();
        encoder.method(1, (60, 40), |arguments| {
            arguments.short(0).short_string("exchange").short_string("key").octet(0);
        });
        encoder.frame(BODY, 1, |payload| payload.0.extend_from_slice(&[7; 100]));
        for piece in [1, 3, 64, encoder.0.len()] {
            let mut input = Input::new(16);
            let mut found = Vec::new();
            for mut chunk in encoder.0.chunks(piece) {
                while !chunk.is_empty() {
                    input.fill(&mut chunk).unwrap();
                }
                while let Some(frame) = input.next().unwrap() {
                    found.push((frame.kind, frame.payload.to_vec()));
                }
            }
            assert_eq!(found.len(), 2, "pieces of {piece}");
            assert_eq!((found[0].0, found[1].0), (METHOD, BODY));
            assert_eq!(short_string_at(&found[0].1, 6).unwrap(), "exchange");
            assert_eq!(found[1].1, [7; 100]);
        }
    }

    #[test]
    fn what_is_not_a_frame_is_refused() {
        let mut input = Input::new(64);
        input.fill(&mut &[1, 0, 0, 0, 0, 0, 1, 9, 0][..]).unwrap();
        assert!(matches!(input.next(), Err(PerfError::Malformed)));
        assert!(matches!(input.fill(&mut &[][..]), Err(PerfError::EndOfStream)));
        assert!(short_string_at(&[5, b'a'], 0).is_err());
        assert!(long_long_at(&[0; 7], 0).is_err());
    }

    #[test]
    fn tables_nest() {
        let mut encoder = Encoder::default();
        let inner = vec![("b".to_owned(), Value::Boolean(true))];
        let table = [("t".to_owned(), Value::Table(inner)), ("n".to_owned(), Value::Integer(-1))];
        encoder.table(&table);
        let mut expected = vec![0, 0, 0, 22, 1, b't', b'F', 0, 0, 0, 4, 1, b'b', b't', 1, 1, b'n', b'l'];
        expected.extend_from_slice(&[0xFF; 8]);
        assert_eq!(encoder.0, expected);
    }
}
