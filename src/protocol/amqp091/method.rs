//! Methods: payloads to amq-protocol's types and back. Content methods on the hot path have their own code in `content`.
//!
//! Before amq-protocol parses a payload, its fields are walked once: short strings must be UTF-8 and tables must be well
//! formed and bounded in depth, which the library's own recursive parser does not check.

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{AMQPClass, gen_class, parse_class};

use super::codec::{FRAME_END, HEADER_SIZE, METHOD};
use crate::model::exception::{Exception, ReplyCode};
use crate::model::table::FieldTable;

/// A method as received; its table, if it has one, keeps order and types.
pub(super) struct Method {
    pub(super) class: AMQPClass,
    pub(super) arguments: FieldTable,
}

/// Class and method id of a payload; zeros when it is too short to have them.
pub(super) fn ids(payload: &[u8]) -> (u16, u16) {
    match payload {
        [c0, c1, m0, m1, ..] => (u16::from_be_bytes([*c0, *c1]), u16::from_be_bytes([*m0, *m1])),
        _ => (0, 0),
    }
}

/// Decodes a method a client may send.
pub(super) fn decode(payload: &[u8]) -> Result<Method, Exception> {
    let (class_id, method_id) = ids(payload);
    let arguments = walk(payload.get(4..).unwrap_or_default(), layout(class_id, method_id))?;
    match parse_class(payload) {
        Ok((_, class)) => Ok(Method { class, arguments }),
        Err(error) if error.is_incomplete() => {
            Err(Exception::new(ReplyCode::SyntaxError, "method payload ends before its fields"))
        }
        Err(_) => Err(Exception::new(
            ReplyCode::CommandInvalid,
            format!("unknown class or method: class {class_id}, method {method_id}"),
        )),
    }
}

/// Appends a method frame.
pub(super) fn encode(out: &mut Vec<u8>, channel: u16, class: &AMQPClass) {
    let start = out.len();
    out.push(METHOD);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    let payload = out.len();
    // The library writes into slices of fixed size only; no answer of the broker is larger than this.
    for room in [256, 4096, 256 * 1024] {
        out.resize(payload + room, 0);
        let cursor = std::io::Cursor::new(&mut out[payload..]);
        let length = gen_class(class)(WriteContext::from(cursor)).map(|written| written.into_inner().1);
        if let Ok(length) = length {
            out.truncate(payload + usize::try_from(length).unwrap_or(room));
            break;
        }
    }
    end_frame(out, start);
}

/// Writes the size into the frame header at `start` and appends the end octet.
pub(super) fn end_frame(out: &mut Vec<u8>, start: usize) {
    let size = u32::try_from(out.len() - start - HEADER_SIZE).unwrap_or(u32::MAX);
    out[start + 3..start + HEADER_SIZE].copy_from_slice(&size.to_be_bytes());
    out.push(FRAME_END);
}

/// The fields of methods that carry strings or tables, those that only a server sends included, since the library parses
/// them all: `2` two octets, `s` short string, `L` long string, `b` one octet of
/// bits, `t` table.
fn layout(class: u16, method: u16) -> &'static [u8] {
    match (class, method) {
        (10, 10) => b"2tLL",
        (10, 11) => b"tsLs",
        (10, 40) => b"ssb",
        (10, 70) => b"Ls",
        (10 | 20, 40 | 50) => b"2s22",
        (20, 10) | (60, 30) => b"s",
        (40, 10) | (60, 20) => b"2ssbt",
        (40, 30 | 40) | (50, 20) => b"2sssbt",
        (50, 10) => b"2sbt",
        (40, 20) | (50, 30 | 40) | (60, 70) => b"2sb",
        (50, 50) => b"2ssst",
        _ => b"",
    }
}

fn walk(mut rest: &[u8], layout: &[u8]) -> Result<FieldTable, Exception> {
    let mut table = FieldTable::default();
    for field in layout {
        let length = match (field, rest) {
            (b'2', _) => Some((0, 2)),
            (b'b', _) => Some((0, 1)),
            (b's', [length, ..]) => Some((1, usize::from(*length))),
            (b'L' | b't', [a, b, c, d, ..]) => Some((4, u32::from_be_bytes([*a, *b, *c, *d]) as usize)),
            _ => None,
        };
        let content = length.and_then(|(skip, length)| rest.get(skip..)?.split_at_checked(length));
        let Some((content, tail)) = content else {
            return Err(Exception::new(ReplyCode::SyntaxError, "method payload ends before its fields"));
        };
        rest = tail;
        if *field == b's' && std::str::from_utf8(content).is_err() {
            return Err(Exception::new(ReplyCode::FrameError, "Malformed UTF-8 in shortstr"));
        }
        if *field == b't' {
            table = FieldTable::decode(content)
                .map_err(|error| Exception::new(ReplyCode::SyntaxError, format!("malformed field table: {error}")))?;
        }
    }
    Ok(table)
}
