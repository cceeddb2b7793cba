//! Messages laid out ready to be sent: only the time in their bodies changes.

use std::ops::Range;

use super::client::id;
use super::topology::Route;
use super::wire::{BODY, Encoder, FRAME_OVERHEAD, HEADER};

/// Bytes to lay out at least, so that most writes are long.
const LENGTH_MIN: usize = 256 * 1024;
/// Bytes of a time in a body.
const STAMP: usize = 8;

/// What all messages of a publisher have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) exchange: String,
    /// Body bytes.
    pub(super) size: usize,
    pub(super) persistent: bool,
    /// Bytes of the largest frame.
    pub(super) frame_max: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Vec<u8>,
    /// Where each message begins, and the end.
    starts: Vec<usize>,
    /// Where each body begins; empty when bodies are too short for a time.
    bodies: Vec<usize>,
}

impl Template {
    /// `routes`, of which there is one at least, are used in turn.
    pub(super) fn new(shape: &Shape, routes: &[Route]) -> Self {
        let body = vec![b'.'; shape.size];
        let mut encoder = Encoder::default();
        let (mut starts, mut bodies) = (Vec::new(), Vec::new());
        while encoder.0.len() < LENGTH_MIN {
            for route in routes {
                starts.push(encoder.0.len());
                let at = publish(&mut encoder, shape, route, &body);
                if shape.size >= STAMP {
                    bodies.push(at);
                }
            }
        }
        starts.push(encoder.0.len());
        Self { bytes: encoder.0, starts, bodies }
    }

    /// Messages laid out.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Writes the time into the bodies of these messages; their bytes.
    pub(super) fn stamp(&mut self, messages: Range<usize>, nanoseconds: u64) -> Range<usize> {
        let stamp = nanoseconds.to_le_bytes();
        for &body in self.bodies.get(messages.clone()).unwrap_or_default() {
            self.bytes[body..body + STAMP].copy_from_slice(&stamp);
        }
        self.starts[messages.start]..self.starts[messages.end]
    }

    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// How many of the messages from `first` end at or before this byte.
    pub(super) fn ended(&self, first: usize, byte: usize) -> usize {
        self.starts[first + 1..].partition_point(|end| *end <= byte)
    }
}

/// Reads the time out of a body, or its first frame.
#[inline]
pub(super) fn read_stamp(body: &[u8]) -> Option<u64> {
    body.first_chunk::<STAMP>().map(|stamp| u64::from_le_bytes(*stamp))
}

/// Appends a message: method, header, body. Where its body begins.
fn publish(encoder: &mut Encoder, shape: &Shape, route: &Route, body: &[u8]) -> usize {
    const CHANNEL: u16 = 1;
    const HEADERS: u16 = 1 << 13;
    const DELIVERY_MODE: u16 = 1 << 12;
    encoder.method(CHANNEL, id::BASIC_PUBLISH, |arguments| {
        arguments.short(0).short_string(&shape.exchange).short_string(&route.key).octet(0);
    });
    encoder.frame(HEADER, CHANNEL, |header| {
        header.short(id::BASIC_PUBLISH.0).short(0).long_long(body.len() as u64);
        if route.headers.is_empty() {
            header.short(DELIVERY_MODE);
        } else {
            header.short(HEADERS | DELIVERY_MODE).table(&route.headers);
        }
        header.octet(if shape.persistent { 2 } else { 1 });
    });
    let start = encoder.0.len() + FRAME_OVERHEAD - 1;
    let payload_max = match shape.frame_max {
        0 => usize::MAX,
        frame_max => frame_max.saturating_sub(FRAME_OVERHEAD).max(1),
    };
    for piece in body.chunks(payload_max) {
        encoder.frame(BODY, CHANNEL, |frame| frame.0.extend_from_slice(piece));
    }
    start
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Input, long_long_at};
    use super::*;

    fn template(size: usize, frame_max: usize) -> Template {
        let shape = Shape { exchange: "e".to_owned(), size, persistent: true, frame_max };
        let routes = ["a", "bb"].map(|key| Route { key: key.to_owned(), ..Route::default() });
        Template::new(&shape, &routes)
    }

    #[test]
    fn messages_are_whole_and_stamped() {
        let mut template = template(16, 4096);
        let range = template.stamp(1..3, 0x0102_0304);
        let mut input = Input::new(1024);
        input.fill(&mut template.bytes(range)).unwrap();
        for _ in 0..2 {
            assert_eq!(input.next().unwrap().unwrap().id().unwrap(), id::BASIC_PUBLISH);
            assert_eq!(long_long_at(input.next().unwrap().unwrap().payload, 4).unwrap(), 16);
            let body = input.next().unwrap().unwrap();
            assert_eq!((body.payload.len(), read_stamp(body.payload)), (16, Some(0x0102_0304)));
        }
        assert!(input.next().unwrap().is_none());
    }

    #[test]
    fn long_bodies_are_split_and_short_ones_not_stamped() {
        let mut template = template(10_000, 4096);
        let range = template.stamp(0..1, 1);
        let bytes = template.bytes(range).to_vec();
        let mut input = Input::new(1024);
        let mut source = bytes.as_slice();
        while !source.is_empty() {
            input.fill(&mut source).unwrap();
        }
        let mut sizes = Vec::new();
        while let Some(frame) = input.next().unwrap() {
            sizes.push(frame.payload.len());
        }
        assert_eq!(sizes[2..], [4088, 4088, 1824]);

        let mut short = self::template(7, 0);
        let before = short.bytes.clone();
        short.stamp(0..short.len(), u64::MAX);
        assert_eq!(short.bytes, before);
        assert_eq!(self::template(0, 0).len() % 2, 0);
    }

    #[test]
    fn whole_messages_are_counted() {
        let template = template(16, 0);
        let (second, third) = (template.starts[1], template.starts[2]);
        assert_eq!([second - 1, second, third - 1, third].map(|byte| template.ended(0, byte)), [0, 1, 1, 2]);
        assert_eq!(template.ended(1, third), 1);
    }
}
