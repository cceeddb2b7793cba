//! Methods: payloads to amq-protocol's types and back. Content methods on the hot path have their own code in `content`.
//!
//! Before amq-protocol parses a payload, its fields are walked once: short strings must be UTF-8 and tables must be well
//! formed and bounded in depth, which the library's own recursive parser does not check.

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{AMQPClass, gen_class, parse_class};

use super::codec::{FRAME_END, HEADER_SIZE, METHOD, METHOD_IDS_SIZE};
use crate::model::exception::{Exception, ReplyCode};
use crate::model::narrow::narrow;
use crate::model::table::FieldTable;

/// Told of a short string that is not UTF-8.
pub(super) const MALFORMED_TEXT: &str = "Malformed UTF-8 in shortstr";

/// A method as received; its table, if it has one, keeps order and types.
pub(super) struct Method {
    pub(super) class: AMQPClass,
    pub(super) arguments: FieldTable,
}

/// Class and method id of a payload; zeros when it is too short to have them, which no method frame is.
pub(super) fn ids(payload: &[u8]) -> (u16, u16) {
    match payload {
        [c0, c1, m0, m1, ..] => (u16::from_be_bytes([*c0, *c1]), u16::from_be_bytes([*m0, *m1])),
        _ => (0, 0),
    }
}

/// Decodes a method a client may send.
pub(super) fn decode(payload: &[u8]) -> Result<Method, Exception> {
    let arguments = check(payload)?;
    match parse_class(payload) {
        Ok((_, class)) => Ok(Method { class, arguments }),
        Err(_) => Err(unknown(ids(payload))),
    }
}

/// Checks the fields of a method: each must be whole, and nothing may follow the last one. Its table, if it has one.
pub(super) fn check(payload: &[u8]) -> Result<FieldTable, Exception> {
    let ids = ids(payload);
    let layout = layout(ids).ok_or_else(|| unknown(ids))?;
    walk(payload.get(METHOD_IDS_SIZE..).unwrap_or_default(), layout)
}

/// The fields of a method are cut off, or something follows them.
pub(super) fn cannot_decode(fields: &[u8]) -> Exception {
    // More than a reply text can hold would not be seen.
    let shown: Vec<String> = fields.iter().take(255).map(u8::to_string).collect();
    Exception::new(ReplyCode::FrameError, format!("cannot decode <<{}>>", shown.join(",")))
}

fn unknown((class, method): (u16, u16)) -> Exception {
    Exception::new(ReplyCode::CommandInvalid, format!("unknown class or method: class {class}, method {method}"))
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
    let size: u32 = narrow(out.len() - start - HEADER_SIZE, "a frame is below 4 GiB");
    out[start + 3..start + HEADER_SIZE].copy_from_slice(&size.to_be_bytes());
    out.push(FRAME_END);
}

/// The fields of a method, those that only a server sends included, since the library parses them all: `1`, `2`, `4` and
/// `8` are numbers and bits of so many octets, `s` a short string, `o` one that need not be text, `L` a long string, `t` a
/// table.
fn layout(ids: (u16, u16)) -> Option<&'static [u8]> {
    Some(match ids {
        (10, 10) => b"11tLL",
        (10, 11) => b"tsLs",
        (10, 20 | 21) | (20, 11) => b"L",
        (10, 30 | 31) => b"242",
        (10, 40) => b"ss1",
        (10, 50) | (20, 40) => b"2s22",
        (10, 41 | 60) | (20, 10) | (60, 21 | 31 | 72) => b"s",
        (10, 51 | 61 | 71) | (20, 41) | (40, 11 | 21 | 31 | 51) | (50, 21 | 51) => b"",
        (10, 70) => b"Ls",
        (20, 20 | 21) | (60, 100 | 110) | (85, 10) => b"1",
        (30, 10) => b"s1",
        (30, 11) => b"2",
        (40, 10) => b"2ss1t",
        (40, 20) | (50, 30 | 40) | (60, 70) => b"2s1",
        (40, 30 | 40) | (50, 20) => b"2sss1t",
        (50, 10) => b"2s1t",
        (50, 11) => b"s44",
        (50, 31 | 41) => b"4",
        (50, 50) => b"2ssst",
        (60, 10) => b"421",
        (60, 20) => b"2ss1t",
        (60, 30) => b"s1",
        (60, 40) => b"2oo1",
        (60, 50) => b"2sss",
        (60, 60) => b"s81ss",
        (60, 71) => b"81ss4",
        (60, 80 | 90 | 120) => b"81",
        (60, 11 | 111) | (85, 11) | (90, 10 | 11 | 20 | 21 | 30 | 31) => b"",
        _ => return None,
    })
}

fn walk(fields: &[u8], layout: &[u8]) -> Result<FieldTable, Exception> {
    let mut rest = fields;
    let (mut is_text, mut table) = (true, None);
    for field in layout {
        let length = match (field, rest) {
            (b'1'..=b'8', _) => Some((0, usize::from(field - b'0'))),
            (b's' | b'o', [length, ..]) => Some((1, usize::from(*length))),
            (b'L' | b't', [a, b, c, d, ..]) => Some((4, u32::from_be_bytes([*a, *b, *c, *d]) as usize)),
            _ => None,
        };
        let content = length.and_then(|(skip, length)| rest.get(skip..)?.split_at_checked(length));
        let Some((content, tail)) = content else { return Err(cannot_decode(fields)) };
        rest = tail;
        is_text &= *field != b's' || std::str::from_utf8(content).is_ok();
        if *field == b't' {
            table = Some(content);
        }
    }
    if !rest.is_empty() {
        return Err(cannot_decode(fields));
    }
    if !is_text {
        return Err(Exception::new(ReplyCode::FrameError, MALFORMED_TEXT));
    }
    table.map_or_else(
        || Ok(FieldTable::default()),
        |table| {
            FieldTable::decode(table)
                .map_err(|error| Exception::new(ReplyCode::SyntaxError, format!("malformed field table: {error}")))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_library_has_its_fields_here() {
        for (class, method) in (0..=120).flat_map(|class| (0..=130).map(move |method| (class, method))) {
            let mut payload = [u16::to_be_bytes(class), u16::to_be_bytes(method)].concat();
            for field in layout((class, method)).unwrap_or_default() {
                let zeros = match field {
                    b'1'..=b'8' => usize::from(field - b'0'),
                    b's' | b'o' => 1,
                    _ => 4,
                };
                payload.resize(payload.len() + zeros, 0);
            }
            // More than any method has, so that the library says what it does not know.
            payload.resize(payload.len() + 64, 0);
            let parsed = parse_class(&payload[..]).map(|(rest, _)| rest.len());
            match layout((class, method)) {
                // The library has no ticket.
                Some(_) if (class, method) == (30, 11) => assert!(parsed.is_ok()),
                Some(_) => assert_eq!(parsed.ok(), Some(64), "{class}.{method}"),
                None => assert!(parsed.is_err(), "{class}.{method}"),
            }
        }
    }
}
