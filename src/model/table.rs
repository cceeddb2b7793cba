//! AMQP field tables as RabbitMQ reads and writes them: order and duplicates are kept, so a decoded table encodes to
//! the bytes it came from (tag `L` alone is written back as `l`, as RabbitMQ does).

use bytes::Bytes;

/// How deep tables and arrays may nest; deeper input is refused before it can exhaust a stack.
pub const DEPTH_MAX: usize = 64;

/// A field table: pairs in wire order. Keys are at most 255 bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldTable(pub Vec<(Box<str>, FieldValue)>);

/// A value with its wire type; the variants are RabbitMQ's types, not those of the 0-9-1 document.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal {
        scale: u8,
        value: u32,
    },
    LongString(Bytes),
    Binary(Bytes),
    Array(Vec<Self>),
    /// Seconds since the epoch.
    Timestamp(u64),
    Table(FieldTable),
    Void,
}

/// Why bytes are not a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    #[error("the table ends before its announced length")]
    Truncated,
    #[error("unknown field type {0:#04x}")]
    UnknownType(u8),
    #[error("tables nest deeper than {DEPTH_MAX} levels")]
    TooDeep,
    #[error("a key is not UTF-8")]
    KeyNotUtf8,
}

impl FieldTable {
    /// The first value under `key`.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&FieldValue> {
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
    }

    /// Appends a pair.
    pub fn push(&mut self, key: &str, value: FieldValue) {
        self.0.push((Box::from(key), value));
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decodes the pairs of a table, without its four length bytes.
    pub fn decode(content: &[u8]) -> Result<Self, TableError> {
        Self::decode_at(content, 0)
    }

    /// The same, but for the pairs with this key, whose values are passed over however long they are.
    pub fn decode_without(content: &[u8], left_out: &str) -> Result<Self, TableError> {
        let mut reader = Reader(content);
        let mut pairs = Vec::new();
        while !reader.0.is_empty() {
            let key = reader.key()?;
            if key == left_out {
                reader.pass_over()?;
            } else {
                pairs.push((Box::from(key), reader.value(0)?));
            }
        }
        Ok(Self(pairs))
    }

    fn decode_at(content: &[u8], depth: usize) -> Result<Self, TableError> {
        if depth > DEPTH_MAX {
            return Err(TableError::TooDeep);
        }
        let mut reader = Reader(content);
        let mut pairs = Vec::new();
        while !reader.0.is_empty() {
            let key = reader.key()?;
            pairs.push((Box::from(key), reader.value(depth)?));
        }
        Ok(Self(pairs))
    }

    /// Appends the table with its four length bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin_length(out);
        for (key, value) in &self.0 {
            out.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(&key.as_bytes()[..key.len().min(255)]);
            value.encode(out);
        }
        end_length(out, start);
    }
}

impl FieldValue {
    /// A long string.
    #[must_use]
    pub fn string(text: &str) -> Self {
        Self::LongString(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// RabbitMQ's name of this value's type, as its error texts say it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Binary(_) => "binary",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }

    /// The value of any of the integer types (tags b B s u I i l).
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(v) => Some(v.into()),
            Self::U8(v) => Some(v.into()),
            Self::I16(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::I32(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::I64(v) => Some(v),
            Self::Bool(_)
            | Self::F32(_)
            | Self::F64(_)
            | Self::Decimal { .. }
            | Self::LongString(_)
            | Self::Binary(_)
            | Self::Array(_)
            | Self::Timestamp(_)
            | Self::Table(_)
            | Self::Void => None,
        }
    }

    /// The text of a long string, when it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::LongString(bytes) = self { std::str::from_utf8(bytes).ok() } else { None }
    }

    /// Appends the type tag and the value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(v) => out.extend_from_slice(&[b't', u8::from(*v)]),
            Self::I8(v) => out.extend_from_slice(&[b'b', v.to_be_bytes()[0]]),
            Self::U8(v) => out.extend_from_slice(&[b'B', *v]),
            Self::I16(v) => tagged(out, b's', &v.to_be_bytes()),
            Self::U16(v) => tagged(out, b'u', &v.to_be_bytes()),
            Self::I32(v) => tagged(out, b'I', &v.to_be_bytes()),
            Self::U32(v) => tagged(out, b'i', &v.to_be_bytes()),
            Self::I64(v) => tagged(out, b'l', &v.to_be_bytes()),
            Self::F32(v) => tagged(out, b'f', &v.to_be_bytes()),
            Self::F64(v) => tagged(out, b'd', &v.to_be_bytes()),
            Self::Decimal { scale, value } => {
                out.extend_from_slice(&[b'D', *scale]);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Self::LongString(bytes) => string(out, b'S', bytes),
            Self::Binary(bytes) => string(out, b'x', bytes),
            Self::Array(values) => {
                out.push(b'A');
                let start = begin_length(out);
                values.iter().for_each(|value| value.encode(out));
                end_length(out, start);
            }
            Self::Timestamp(v) => tagged(out, b'T', &v.to_be_bytes()),
            Self::Table(table) => {
                out.push(b'F');
                table.encode(out);
            }
            Self::Void => out.push(b'V'),
        }
    }
}

impl From<bool> for FieldValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn string(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn begin_length(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; 4]);
    out.len()
}

fn end_length(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
}

/// Whether the content of a table, without its four length bytes, can be decoded; decodes nothing.
pub fn check_table(content: &[u8]) -> Result<(), TableError> {
    check_pairs(content, 0)
}

fn check_pairs(content: &[u8], depth: usize) -> Result<(), TableError> {
    if depth > DEPTH_MAX {
        return Err(TableError::TooDeep);
    }
    let mut reader = Reader(content);
    while !reader.0.is_empty() {
        reader.key()?;
        reader.skip_value(depth)?;
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TableError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(TableError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TableError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(TableError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn long(&mut self) -> Result<&'a [u8], TableError> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| TableError::Truncated)?)
    }

    fn value(&mut self, depth: usize) -> Result<FieldValue, TableError> {
        let tag = self.array::<1>()?[0];
        Ok(match tag {
            b't' => FieldValue::Bool(self.array::<1>()?[0] != 0),
            b'b' => FieldValue::I8(i8::from_be_bytes(self.array()?)),
            b'B' => FieldValue::U8(self.array::<1>()?[0]),
            b's' => FieldValue::I16(i16::from_be_bytes(self.array()?)),
            b'u' => FieldValue::U16(u16::from_be_bytes(self.array()?)),
            b'I' => FieldValue::I32(i32::from_be_bytes(self.array()?)),
            b'i' => FieldValue::U32(u32::from_be_bytes(self.array()?)),
            b'l' | b'L' => FieldValue::I64(i64::from_be_bytes(self.array()?)),
            b'f' => FieldValue::F32(f32::from_be_bytes(self.array()?)),
            b'd' => FieldValue::F64(f64::from_be_bytes(self.array()?)),
            b'D' => FieldValue::Decimal { scale: self.array::<1>()?[0], value: u32::from_be_bytes(self.array()?) },
            b'S' => FieldValue::LongString(Bytes::copy_from_slice(self.long()?)),
            b'x' => FieldValue::Binary(Bytes::copy_from_slice(self.long()?)),
            b'A' => FieldValue::Array(Reader(self.long()?).values(depth + 1)?),
            b'T' => FieldValue::Timestamp(u64::from_be_bytes(self.array()?)),
            b'F' => FieldValue::Table(FieldTable::decode_at(self.long()?, depth + 1)?),
            b'V' => FieldValue::Void,
            other => return Err(TableError::UnknownType(other)),
        })
    }

    fn key(&mut self) -> Result<&'a str, TableError> {
        let length = self.array::<1>()?[0];
        std::str::from_utf8(self.take(usize::from(length))?).map_err(|_| TableError::KeyNotUtf8)
    }

    /// Passes over a value without looking into it.
    fn pass_over(&mut self) -> Result<(), TableError> {
        if let Some((b'F' | b'A', rest)) = self.0.split_first() {
            self.0 = rest;
            return self.long().map(|_| ());
        }
        self.skip_value(0)
    }

    fn skip_value(&mut self, depth: usize) -> Result<(), TableError> {
        let tag = self.array::<1>()?[0];
        match tag {
            b'V' => {}
            b't' | b'b' | b'B' => _ = self.take(1)?,
            b's' | b'u' => _ = self.take(2)?,
            b'I' | b'i' | b'f' => _ = self.take(4)?,
            b'D' => _ = self.take(5)?,
            b'l' | b'L' | b'd' | b'T' => _ = self.take(8)?,
            b'S' | b'x' => _ = self.long()?,
            b'F' => check_pairs(self.long()?, depth + 1)?,
            b'A' => {
                let mut values = Reader(self.long()?);
                if depth >= DEPTH_MAX {
                    return Err(TableError::TooDeep);
                }
                while !values.0.is_empty() {
                    values.skip_value(depth + 1)?;
                }
            }
            other => return Err(TableError::UnknownType(other)),
        }
        Ok(())
    }

    fn values(&mut self, depth: usize) -> Result<Vec<FieldValue>, TableError> {
        if depth > DEPTH_MAX {
            return Err(TableError::TooDeep);
        }
        let mut values = Vec::new();
        while !self.0.is_empty() {
            values.push(self.value(depth)?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = FieldValue> {
        let bytes = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let leaf = prop_oneof![
            any::<bool>().prop_map(FieldValue::Bool),
            any::<i8>().prop_map(FieldValue::I8),
            any::<u8>().prop_map(FieldValue::U8),
            any::<i16>().prop_map(FieldValue::I16),
            any::<u16>().prop_map(FieldValue::U16),
            any::<i32>().prop_map(FieldValue::I32),
            any::<u32>().prop_map(FieldValue::U32),
            any::<i64>().prop_map(FieldValue::I64),
            any::<f32>().prop_map(FieldValue::F32),
            any::<f64>().prop_map(FieldValue::F64),
            (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
            bytes().prop_map(FieldValue::LongString),
            bytes().prop_map(FieldValue::Binary),
            any::<u64>().prop_map(FieldValue::Timestamp),
            Just(FieldValue::Void),
        ];
        leaf.prop_recursive(6, 60, 5, |inner| {
            prop_oneof![vec(inner.clone(), 0..5).prop_map(FieldValue::Array), pairs(inner).prop_map(FieldValue::Table)]
        })
    }

    fn pairs(value: impl Strategy<Value = FieldValue>) -> impl Strategy<Value = FieldTable> {
        vec(("\\PC{0,12}".prop_map(Box::from), value), 0..5).prop_map(FieldTable)
    }

    proptest! {
        #[test]
        fn tables_come_back_as_they_were(table in pairs(value())) {
            let mut encoded = Vec::new();
            table.encode(&mut encoded);
            prop_assert_eq!(u32::from_be_bytes(encoded[..4].try_into().unwrap()) as usize, encoded.len() - 4);
            prop_assert_eq!(check_table(&encoded[4..]), Ok(()));
            let mut again = Vec::new();
            FieldTable::decode(&encoded[4..]).unwrap().encode(&mut again);
            prop_assert_eq!(encoded, again);
        }

        #[test]
        fn checking_and_decoding_agree(
            table in pairs(value()),
            flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut encoded = Vec::new();
            table.encode(&mut encoded);
            for (at, byte) in flips {
                let at = at.index(encoded.len());
                encoded[at] = byte;
            }
            let whole = &encoded[4..];
            for bytes in [whole, &whole[..cut.index(whole.len() + 1)]] {
                prop_assert_eq!(check_table(bytes), FieldTable::decode(bytes).map(|_| ()));
            }
        }

        #[test]
        fn checking_and_decoding_agree_on_noise(bytes in vec(prop_oneof![0u8..8, any::<u8>(), Just(b'F'), Just(b'A')], 0..80)) {
            prop_assert_eq!(check_table(&bytes), FieldTable::decode(&bytes).map(|_| ()));
        }
    }

    #[test]
    fn nesting_is_bounded_alike_for_tables_and_arrays() {
        for tag in [b'F', b'A'] {
            for depth in [DEPTH_MAX - 1, DEPTH_MAX, DEPTH_MAX + 1, 5000] {
                let mut inner: Vec<u8> = Vec::new();
                for _ in 0..depth {
                    let mut outer = if tag == b'F' { vec![0, tag] } else { vec![tag] };
                    outer.extend_from_slice(&u32::try_from(inner.len()).unwrap().to_be_bytes());
                    outer.extend_from_slice(&inner);
                    inner = outer;
                }
                if tag == b'A' {
                    inner.insert(0, 0);
                }
                let expected = if depth <= DEPTH_MAX { Ok(()) } else { Err(TableError::TooDeep) };
                assert_eq!(check_table(&inner), expected, "{depth}");
                assert_eq!(FieldTable::decode(&inner).map(|_| ()), expected, "{depth}");
            }
        }
    }
}
