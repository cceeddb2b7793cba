//! A connection with one channel, number 1, and calls on it that wait for their answer.

use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::error::PerfError;
use super::uri::Uri;
use super::wire::{Encoder, Frame, Input, METHOD, Table, Value, is_wait, long_at, octet_at, short_at, short_string_at};

/// Class and method numbers.
pub(super) mod id {
    pub(in crate::perf) const CONNECTION_START: (u16, u16) = (10, 10);
    pub(in crate::perf) const CONNECTION_START_OK: (u16, u16) = (10, 11);
    pub(in crate::perf) const CONNECTION_TUNE: (u16, u16) = (10, 30);
    pub(in crate::perf) const CONNECTION_TUNE_OK: (u16, u16) = (10, 31);
    pub(in crate::perf) const CONNECTION_OPEN: (u16, u16) = (10, 40);
    pub(in crate::perf) const CONNECTION_OPEN_OK: (u16, u16) = (10, 41);
    pub(in crate::perf) const CONNECTION_CLOSE: (u16, u16) = (10, 50);
    pub(in crate::perf) const CONNECTION_CLOSE_OK: (u16, u16) = (10, 51);
    pub(in crate::perf) const CONNECTION_BLOCKED: (u16, u16) = (10, 60);
    pub(in crate::perf) const CONNECTION_UNBLOCKED: (u16, u16) = (10, 61);
    pub(in crate::perf) const CHANNEL_OPEN: (u16, u16) = (20, 10);
    pub(in crate::perf) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
    pub(in crate::perf) const EXCHANGE_DECLARE: (u16, u16) = (40, 10);
    pub(in crate::perf) const EXCHANGE_DELETE: (u16, u16) = (40, 20);
    pub(in crate::perf) const QUEUE_DECLARE: (u16, u16) = (50, 10);
    pub(in crate::perf) const QUEUE_BIND: (u16, u16) = (50, 20);
    pub(in crate::perf) const QUEUE_PURGE: (u16, u16) = (50, 30);
    pub(in crate::perf) const QUEUE_DELETE: (u16, u16) = (50, 40);
    pub(in crate::perf) const BASIC_QOS: (u16, u16) = (60, 10);
    pub(in crate::perf) const BASIC_CONSUME: (u16, u16) = (60, 20);
    pub(in crate::perf) const BASIC_CANCEL: (u16, u16) = (60, 30);
    pub(in crate::perf) const BASIC_PUBLISH: (u16, u16) = (60, 40);
    pub(in crate::perf) const BASIC_DELIVER: (u16, u16) = (60, 60);
    pub(in crate::perf) const BASIC_ACK: (u16, u16) = (60, 80);
    pub(in crate::perf) const BASIC_NACK: (u16, u16) = (60, 120);
    pub(in crate::perf) const CONFIRM_SELECT: (u16, u16) = (85, 10);
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for the answer to a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait for the end of a connection: the broker handles what was published before it answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for the reason of a failure.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);
const FRAME_MAX: u32 = 131_072;
const CHANNEL: u16 = 1;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) input: Input,
    /// Bytes of the largest frame that may be sent.
    pub(super) frame_max: usize,
}

impl Client {
    /// Connects, logs in, opens the vhost and the channel. `capacity` is the size of the input buffer in bytes.
    pub(super) fn open(uri: &Uri, capacity: usize) -> Result<Self, PerfError> {
        let stream = connect(uri)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        let mut client = Self { stream, input: Input::new(capacity), frame_max: FRAME_MAX as usize };
        client.stream.write_all(b"AMQP\0\0\x09\x01")?;
        client.expect(id::CONNECTION_START)?;
        let plain = format!("\0{}\0{}", uri.user, uri.password);
        client.send(0, id::CONNECTION_START_OK, |arguments| {
            let arguments = arguments.table(&client_properties()).short_string("PLAIN");
            arguments.long_string(plain.as_bytes()).short_string("en_US");
        })?;
        let tune = client.expect(id::CONNECTION_TUNE)?;
        let channel_max = at_most(short_at(&tune, 4)?.into(), uri.channel_max.into());
        let frame_max = at_most(long_at(&tune, 6)?, FRAME_MAX);
        client.frame_max = frame_max as usize;
        client.send(0, id::CONNECTION_TUNE_OK, |arguments| {
            let channel_max = u16::try_from(channel_max).unwrap_or(u16::MAX);
            arguments.short(channel_max).long(frame_max).short(0);
        })?;
        client.send(0, id::CONNECTION_OPEN, |arguments| {
            arguments.short_string(&uri.vhost).short_string("").octet(0);
        })?;
        client.expect(id::CONNECTION_OPEN_OK)?;
        client.call(id::CHANNEL_OPEN, |arguments| {
            arguments.short_string("");
        })?;
        Ok(client)
    }

    fn send(&mut self, channel: u16, id: (u16, u16), fill: impl FnOnce(&mut Encoder)) -> Result<(), PerfError> {
        let mut encoder = Encoder::default();
        encoder.method(channel, id, fill);
        Ok(self.stream.write_all(&encoder.0)?)
    }

    /// Reads until the wanted method comes; deliveries and confirms in between are dropped.
    fn expect(&mut self, wanted: (u16, u16)) -> Result<Vec<u8>, PerfError> {
        loop {
            while let Some(frame) = self.input.next()? {
                if frame.kind == METHOD && frame.id()? == wanted {
                    return Ok(frame.payload.to_vec());
                }
                if !is_content(&frame)? {
                    check(&frame)?;
                }
            }
            self.input.fill(&mut self.stream).map_err(|error| match error {
                PerfError::Socket(error) if is_wait(&error) => PerfError::Silent,
                error => error,
            })?;
        }
    }

    /// Sends a method on the channel and waits for its answer, whose number is one higher.
    fn call(&mut self, id: (u16, u16), fill: impl FnOnce(&mut Encoder)) -> Result<Vec<u8>, PerfError> {
        self.send(CHANNEL, id, fill)?;
        self.expect((id.0, id.1 + 1))
    }

    pub(super) fn declare_exchange(&mut self, name: &str, kind: &str, durable: bool) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.short(0).short_string(name).short_string(kind).octet(u8::from(durable) << 1).table(&[]);
        };
        self.call(id::EXCHANGE_DECLARE, fill).map(drop)
    }

    pub(super) fn delete_exchange(&mut self, name: &str) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.short(0).short_string(name).octet(0);
        };
        self.call(id::EXCHANGE_DELETE, fill).map(drop)
    }

    pub(super) fn declare_queue(&mut self, name: &str, durable: bool, table: &Table) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.short(0).short_string(name).octet(u8::from(durable) << 1).table(table);
        };
        self.call(id::QUEUE_DECLARE, fill).map(drop)
    }

    pub(super) fn purge_queue(&mut self, name: &str) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.short(0).short_string(name).octet(0);
        };
        self.call(id::QUEUE_PURGE, fill).map(drop)
    }

    pub(super) fn delete_queue(&mut self, name: &str) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.short(0).short_string(name).octet(0);
        };
        self.call(id::QUEUE_DELETE, fill).map(drop)
    }

    pub(super) fn bind(&mut self, queue: &str, exchange: &str, key: &str, table: &Table) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            let arguments = arguments.short(0).short_string(queue).short_string(exchange);
            arguments.short_string(key).octet(0).table(table);
        };
        self.call(id::QUEUE_BIND, fill).map(drop)
    }

    pub(super) fn prefetch(&mut self, count: u16) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.long(0).short(count).octet(0);
        };
        self.call(id::BASIC_QOS, fill).map(drop)
    }

    pub(super) fn select_confirms(&mut self) -> Result<(), PerfError> {
        let fill = |arguments: &mut Encoder| {
            arguments.octet(0);
        };
        self.call(id::CONFIRM_SELECT, fill).map(drop)
    }

    /// Starts a consumer without waiting for an answer, so that no delivery is read while waiting.
    pub(super) fn consume(&mut self, queue: &str, tag: &str, no_ack: bool) -> Result<(), PerfError> {
        const NO_WAIT: u8 = 8;
        self.send(CHANNEL, id::BASIC_CONSUME, |arguments| {
            let arguments = arguments.short(0).short_string(queue).short_string(tag);
            arguments.octet(u8::from(no_ack) << 1 | NO_WAIT).table(&[]);
        })
    }

    /// Closes the connection and waits for the broker's answer, though not for long.
    pub(super) fn close(mut self) -> Result<(), PerfError> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(CLOSE_TIMEOUT))?;
        self.send(0, id::CONNECTION_CLOSE, |arguments| {
            arguments.short(200).short_string("done").short(0).short(0);
        })?;
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while Instant::now() < deadline {
            while let Some(frame) = self.input.next()? {
                if frame.kind == METHOD && frame.id()? == id::CONNECTION_CLOSE_OK {
                    return Ok(());
                }
                if !is_content(&frame)? {
                    check(&frame)?;
                }
            }
            match self.input.fill(&mut self.stream) {
                Err(PerfError::Socket(error)) if is_wait(&error) => return Ok(()),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// The reason the broker gave before the socket broke, or else what broke.
    pub(super) fn explain(&mut self, error: PerfError) -> PerfError {
        let _ = self.stream.set_nonblocking(false);
        let _ = self.stream.set_read_timeout(Some(REASON_TIMEOUT));
        loop {
            match self.input.next() {
                Ok(Some(frame)) => match check(&frame) {
                    Err(closed @ PerfError::Closed { .. }) => return closed,
                    _ => continue,
                },
                Ok(None) => {}
                Err(_) => return error,
            }
            if self.input.fill(&mut self.stream).is_err() {
                return error;
            }
        }
    }
}

/// Whether the frame belongs to deliveries, returns or confirms.
fn is_content(frame: &Frame<'_>) -> Result<bool, PerfError> {
    Ok(frame.kind != METHOD || frame.id()?.0 == 60)
}

/// Passes over methods that ask for nothing; anything else ends the run.
pub(super) fn check(frame: &Frame<'_>) -> Result<(), PerfError> {
    if frame.kind != METHOD {
        return Ok(());
    }
    match frame.id()? {
        id::CONNECTION_BLOCKED | id::CONNECTION_UNBLOCKED => Ok(()),
        ids @ (id::CONNECTION_CLOSE | id::CHANNEL_CLOSE) => Err(PerfError::Closed {
            what: if ids == id::CONNECTION_CLOSE { "connection" } else { "channel" },
            code: short_at(frame.payload, 4)?,
            text: short_string_at(frame.payload, 6)?,
        }),
        id::BASIC_CANCEL => Err(PerfError::Cancelled { tag: short_string_at(frame.payload, 4)? }),
        (class, method) => Err(PerfError::Unexpected(class, method)),
    }
}

/// Where the delivery tag of a `basic.deliver` lies: behind the consumer tag.
#[inline]
pub(super) fn delivery_tag_offset(payload: &[u8]) -> Result<usize, PerfError> {
    Ok(5 + usize::from(octet_at(payload, 4)?))
}

fn connect(uri: &Uri) -> Result<TcpStream, PerfError> {
    let failed = |error| PerfError::Connect { address: format!("{}:{}", uri.host, uri.port), error };
    let mut last = std::io::Error::other("the name has no address");
    for address in (uri.host.as_str(), uri.port).to_socket_addrs().map_err(failed)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// The smaller of two limits of which 0 is none.
fn at_most(theirs: u32, ours: u32) -> u32 {
    match (theirs, ours) {
        (0, limit) | (limit, 0) => limit,
        (theirs, ours) => theirs.min(ours),
    }
}

fn client_properties() -> Table {
    const CAPABILITIES: [&str; 5] = [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    let capabilities = CAPABILITIES.map(|name| (name.to_owned(), Value::Boolean(true)));
    vec![
        ("product".to_owned(), Value::Text("warren perf".to_owned())),
        ("version".to_owned(), Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
        ("connection_name".to_owned(), Value::Text("warren-perf".to_owned())),
        ("capabilities".to_owned(), Value::Table(capabilities.into())),
    ]
}
