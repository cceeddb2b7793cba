//! The bytes of AMQP 0-9-1: field values, tables, properties, method arguments and frames, written and read by hand so that the tests share
//! no code with the broker.

/// A field value with its type tag; several tags may carry the same Rust type, so each tag has its own variant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`
    I64(i64),
    /// `L`, the same type under its other tag
    I64UpperCase(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: scale and unscaled value
    Decimal(u8, u32),
    /// `S`
    LongString(Vec<u8>),
    /// `x`
    Binary(Vec<u8>),
    /// `A`
    Array(Vec<Self>),
    /// `T`: seconds since 1970
    Timestamp(u64),
    /// `F`
    Table(Table),
    /// `V`
    Void,
}

/// A field table in wire order; duplicates are kept.
pub(crate) type Table = Vec<(String, Value)>;

/// A table from literal pairs.
pub(crate) fn table<const N: usize>(pairs: [(&str, Value); N]) -> Table {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The value stored under `key`, for assertions.
pub(crate) fn field<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    table.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::LongString(text.as_bytes().to_vec())
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::I32(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}

/// Builds arguments and payloads.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn octet(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn short(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn long_long(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// At most 255 bytes; not checked for UTF-8, so that tests can send bad text.
    pub(crate) fn short_string(mut self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.0.push(u8::try_from(text.len()).expect("a short string has at most 255 bytes"));
        self.0.extend(text);
        self
    }

    pub(crate) fn long_string(mut self, text: impl AsRef<[u8]>) -> Self {
        self = self.long(u32::try_from(text.as_ref().len()).unwrap());
        self.0.extend(text.as_ref());
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A table with its length prefix.
    pub(crate) fn table(self, pairs: &Table) -> Self {
        let mut inner = Self::new();
        for (key, value) in pairs {
            inner = inner.short_string(key).value(value);
        }
        self.long_string(inner.0)
    }

    /// A type tag and its value.
    pub(crate) fn value(self, value: &Value) -> Self {
        match value {
            Value::Bool(v) => self.octet(b't').octet(u8::from(*v)),
            Value::I8(v) => self.octet(b'b').raw(&v.to_be_bytes()),
            Value::U8(v) => self.octet(b'B').octet(*v),
            Value::I16(v) => self.octet(b's').raw(&v.to_be_bytes()),
            Value::U16(v) => self.octet(b'u').short(*v),
            Value::I32(v) => self.octet(b'I').raw(&v.to_be_bytes()),
            Value::U32(v) => self.octet(b'i').long(*v),
            Value::I64(v) => self.octet(b'l').raw(&v.to_be_bytes()),
            Value::I64UpperCase(v) => self.octet(b'L').raw(&v.to_be_bytes()),
            Value::Float(v) => self.octet(b'f').raw(&v.to_be_bytes()),
            Value::Double(v) => self.octet(b'd').raw(&v.to_be_bytes()),
            Value::Decimal(scale, v) => self.octet(b'D').octet(*scale).long(*v),
            Value::LongString(v) => self.octet(b'S').long_string(v),
            Value::Binary(v) => self.octet(b'x').long_string(v),
            Value::Array(values) => {
                let inner = values.iter().fold(Self::new(), Self::value);
                self.octet(b'A').long_string(inner.0)
            }
            Value::Timestamp(v) => self.octet(b'T').long_long(*v),
            Value::Table(pairs) => self.octet(b'F').table(pairs),
            Value::Void => self.octet(b'V'),
        }
    }
}

/// Reads arguments and payloads from the front; panics where they end too early.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at_checked(count).expect("the broker sent a truncated value");
        self.0 = tail;
        head
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap()
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn long(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn long_long(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub(crate) fn short_string(&mut self) -> String {
        let length = self.octet();
        String::from_utf8(self.take(length.into()).to_vec()).expect("the broker sent text that is not UTF-8")
    }

    pub(crate) fn long_string(&mut self) -> &'a [u8] {
        let length = self.long();
        self.take(length.try_into().unwrap())
    }

    pub(crate) fn table(&mut self) -> Table {
        let mut inner = Reader(self.long_string());
        let mut pairs = Table::new();
        while !inner.0.is_empty() {
            let key = inner.short_string();
            pairs.push((key, inner.value()));
        }
        pairs
    }

    pub(crate) fn value(&mut self) -> Value {
        match self.octet() {
            b't' => Value::Bool(self.octet() != 0),
            b'b' => Value::I8(i8::from_be_bytes(self.array())),
            b'B' => Value::U8(self.octet()),
            b's' => Value::I16(i16::from_be_bytes(self.array())),
            b'u' => Value::U16(self.short()),
            b'I' => Value::I32(i32::from_be_bytes(self.array())),
            b'i' => Value::U32(self.long()),
            b'l' => Value::I64(i64::from_be_bytes(self.array())),
            b'L' => Value::I64UpperCase(i64::from_be_bytes(self.array())),
            b'f' => Value::Float(f32::from_be_bytes(self.array())),
            b'd' => Value::Double(f64::from_be_bytes(self.array())),
            b'D' => Value::Decimal(self.octet(), self.long()),
            b'S' => Value::LongString(self.long_string().to_vec()),
            b'x' => Value::Binary(self.long_string().to_vec()),
            b'A' => {
                let mut inner = Reader(self.long_string());
                let mut values = Vec::new();
                while !inner.0.is_empty() {
                    values.push(inner.value());
                }
                Value::Array(values)
            }
            b'T' => Value::Timestamp(self.long_long()),
            b'F' => Value::Table(self.table()),
            b'V' => Value::Void,
            tag => panic!("the broker sent a value of unknown type {:?}", char::from(tag)),
        }
    }
}

/// Frame types.
pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;
/// The byte that ends every frame.
pub(crate) const FRAME_END: u8 = 0xCE;
/// Frame header and end byte together.
pub(crate) const FRAME_OVERHEAD: usize = 8;

/// One frame as bytes.
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    Writer::new().octet(kind).short(channel).long_string(payload).octet(FRAME_END).0
}

/// The optional fields of a message; only those that are set are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Properties {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) headers: Option<Table>,
    pub(crate) delivery_mode: Option<u8>,
    pub(crate) priority: Option<u8>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) reply_to: Option<String>,
    pub(crate) expiration: Option<String>,
    pub(crate) message_id: Option<String>,
    pub(crate) timestamp: Option<u64>,
    pub(crate) kind: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) app_id: Option<String>,
    pub(crate) cluster_id: Option<String>,
}

impl Properties {
    /// Flags and fields as they stand in a content header.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut flags = 0_u16;
        let mut fields = Writer::new();
        let mut text = |fields: Writer, bit: u16, value: &Option<String>| match value {
            Some(value) => {
                flags |= 1 << bit;
                fields.short_string(value)
            }
            None => fields,
        };
        fields = text(fields, 15, &self.content_type);
        fields = text(fields, 14, &self.content_encoding);
        if let Some(headers) = &self.headers {
            fields = fields.table(headers);
        }
        for value in [self.delivery_mode, self.priority].into_iter().flatten() {
            fields = fields.octet(value);
        }
        fields = text(fields, 10, &self.correlation_id);
        fields = text(fields, 9, &self.reply_to);
        fields = text(fields, 8, &self.expiration);
        fields = text(fields, 7, &self.message_id);
        if let Some(seconds) = self.timestamp {
            fields = fields.long_long(seconds);
        }
        fields = text(fields, 5, &self.kind);
        fields = text(fields, 4, &self.user_id);
        fields = text(fields, 3, &self.app_id);
        fields = text(fields, 2, &self.cluster_id);
        let others = [
            (13, self.headers.is_some()),
            (12, self.delivery_mode.is_some()),
            (11, self.priority.is_some()),
            (6, self.timestamp.is_some()),
        ];
        for (bit, present) in others {
            flags |= u16::from(present) << bit;
        }
        Writer::new().short(flags).raw(&fields.0).0
    }

    /// The reverse of [`Self::encode`].
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        let flags = reader.short();
        let present = |bit: u16| flags & (1 << bit) != 0;
        let properties = Self {
            content_type: present(15).then(|| reader.short_string()),
            content_encoding: present(14).then(|| reader.short_string()),
            headers: present(13).then(|| reader.table()),
            delivery_mode: present(12).then(|| reader.octet()),
            priority: present(11).then(|| reader.octet()),
            correlation_id: present(10).then(|| reader.short_string()),
            reply_to: present(9).then(|| reader.short_string()),
            expiration: present(8).then(|| reader.short_string()),
            message_id: present(7).then(|| reader.short_string()),
            timestamp: present(6).then(|| reader.long_long()),
            kind: present(5).then(|| reader.short_string()),
            user_id: present(4).then(|| reader.short_string()),
            app_id: present(3).then(|| reader.short_string()),
            cluster_id: present(2).then(|| reader.short_string()),
        };
        assert!(reader.0.is_empty(), "bytes after the last property: {:?}", reader.0);
        properties
    }

    pub(crate) fn with_headers<const N: usize>(pairs: [(&str, Value); N]) -> Self {
        Self { headers: Some(table(pairs)), ..Self::default() }
    }

    pub(crate) fn with_expiration(text: &str) -> Self {
        Self { expiration: Some(text.to_owned()), ..Self::default() }
    }

    pub(crate) fn with_priority(priority: u8) -> Self {
        Self { priority: Some(priority), ..Self::default() }
    }

    pub(crate) fn with_reply_to(name: &str) -> Self {
        Self { reply_to: Some(name.to_owned()), ..Self::default() }
    }
}
