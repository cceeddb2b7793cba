//! Reads a message's raw header table without copying it.

use smallvec::SmallVec;

/// A header's value. Wire types that RabbitMQ decodes to the same value are one here: any integer, both floats, strings
/// and binaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Void,
    Bool(bool),
    /// An integer, or a timestamp in milliseconds since the epoch.
    Integer(i64),
    /// A timestamp too late to be counted in milliseconds.
    LateTimestamp,
    /// The bits of a double: both zeros differ, as they do in Erlang.
    Float(u64),
    Decimal(u8, u32),
    Bytes(&'a [u8]),
    /// The content without its length.
    Table(&'a [u8]),
    /// The content without its length.
    Array(&'a [u8]),
}

/// The top-level pairs of a table in wire order.
pub(super) type Pairs<'a> = SmallVec<[(&'a [u8], Value<'a>); 12]>;

/// Reads the pairs of a table's content. Tables are checked before messages are routed; of a malformed one the pairs
/// before the fault are used.
pub(super) fn read_pairs(content: &[u8]) -> Pairs<'_> {
    let mut pairs = Pairs::new();
    let mut rest = content;
    while let Some(pair) = read_pair(&mut rest) {
        pairs.push(pair);
    }
    pairs
}

/// The value under `key`; of several the last, as RabbitMQ's map of headers has it.
pub(super) fn find<'a>(pairs: &[(&'a [u8], Value<'a>)], key: &[u8]) -> Option<Value<'a>> {
    pairs.iter().rfind(|(name, _)| *name == key).map(|(_, value)| *value)
}

fn read_pair<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], Value<'a>)> {
    let [length] = read_array(rest)?;
    let key = read_bytes(rest, usize::from(length))?;
    Some((key, read_value(rest)?))
}

fn read_value<'a>(rest: &mut &'a [u8]) -> Option<Value<'a>> {
    let [tag] = read_array(rest)?;
    Some(match tag {
        b'S' | b'x' => Value::Bytes(read_long(rest)?),
        b'I' => Value::Integer(i32::from_be_bytes(read_array(rest)?).into()),
        b'l' | b'L' => Value::Integer(i64::from_be_bytes(read_array(rest)?)),
        b't' => Value::Bool(read_array(rest)? != [0]),
        b'b' => Value::Integer(i8::from_be_bytes(read_array(rest)?).into()),
        b'B' => Value::Integer(u8::from_be_bytes(read_array(rest)?).into()),
        b's' => Value::Integer(i16::from_be_bytes(read_array(rest)?).into()),
        b'u' => Value::Integer(u16::from_be_bytes(read_array(rest)?).into()),
        b'i' => Value::Integer(u32::from_be_bytes(read_array(rest)?).into()),
        b'f' => Value::Float(f64::from(f32::from_be_bytes(read_array(rest)?)).to_bits()),
        b'd' => Value::Float(u64::from_be_bytes(read_array(rest)?)),
        b'D' => {
            let [scale] = read_array(rest)?;
            Value::Decimal(scale, u32::from_be_bytes(read_array(rest)?))
        }
        b'T' => timestamp(u64::from_be_bytes(read_array(rest)?)),
        b'F' => Value::Table(read_long(rest)?),
        b'A' => Value::Array(read_long(rest)?),
        b'V' => Value::Void,
        _ => return None,
    })
}

fn timestamp<'a>(seconds: u64) -> Value<'a> {
    let milliseconds = seconds.checked_mul(1000).and_then(|ms| i64::try_from(ms).ok());
    milliseconds.map_or(Value::LateTimestamp, Value::Integer)
}

fn read_long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(read_array(rest)?);
    read_bytes(rest, usize::try_from(length).ok()?)
}

fn read_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
}

fn read_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*bytes)
}
