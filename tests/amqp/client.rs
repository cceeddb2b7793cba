//! A small AMQP client that sends and checks single frames. Everything blocks, with a deadline, and panics where the broker misbehaves.

use std::{
    collections::{HashMap, VecDeque},
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::{
    methods::{Method, basic, channel, connection, queue},
    wire::{
        BODY, FRAME_END, FRAME_OVERHEAD, HEADER, HEARTBEAT, METHOD, Properties, Reader, Table, Value, Writer, frame,
        table,
    },
};

/// How long the client waits for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long the client waits for something that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(150);
/// The protocol header of AMQP 0-9-1.
pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// A frame without its end byte.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

/// Why no frame came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NoFrame {
    Closed,
    TimedOut,
}

/// Header and body of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    size: u64,
    /// Flags and fields, exactly as received.
    pub(crate) raw_properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// Payload sizes of the body frames.
    pub(crate) body_frames: Vec<usize>,
}

/// A complete method, with its content where it has some.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) method: Method,
    pub(crate) content: Option<Content>,
}

/// A basic.deliver, get-ok or return, decoded. Fields that the method lacks keep their defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) consumer_tag: String,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    /// Messages left in the queue (get-ok).
    pub(crate) message_count: u32,
    /// Reply code and text (return).
    pub(crate) reply: (u16, String),
    pub(crate) content: Content,
}

impl Message {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.content.body).unwrap()
    }

    pub(crate) fn properties(&self) -> Properties {
        Properties::decode(&self.content.raw_properties)
    }

    pub(crate) fn headers(&self) -> Table {
        self.properties().headers.unwrap_or_default()
    }

    pub(crate) fn decode(incoming: Incoming) -> Self {
        let mut message = Self { content: incoming.content.expect("a message has content"), ..Self::default() };
        let mut reader = incoming.method.reader();
        if incoming.method.ids() == basic::RETURN {
            message.reply = (reader.short(), reader.short_string());
        } else {
            if incoming.method.ids() == basic::DELIVER {
                message.consumer_tag = reader.short_string();
            }
            message.tag = reader.long_long();
            message.redelivered = reader.octet() & 1 == 1;
        }
        message.exchange = reader.short_string();
        message.routing_key = reader.short_string();
        if incoming.method.ids() == basic::GET_OK {
            message.message_count = reader.long();
        }
        assert!(reader.0.is_empty(), "bytes after the last argument");
        message
    }
}

/// What the client proposes while connecting.
pub(crate) struct Handshake {
    pub(crate) capabilities: Table,
    /// None repeats what the server proposed.
    pub(crate) channel_max: Option<u16>,
    pub(crate) frame_max: Option<u32>,
    /// Seconds.
    pub(crate) heartbeat: u16,
}

impl Default for Handshake {
    fn default() -> Self {
        let names = [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "publisher_confirms",
        ];
        Self {
            capabilities: names.map(|name| (name.to_owned(), Value::Bool(true))).to_vec(),
            channel_max: None,
            frame_max: None,
            heartbeat: 0,
        }
    }
}

impl Handshake {
    pub(crate) fn client_properties(&self) -> Table {
        table([("product", "raw frames".into()), ("capabilities", Value::Table(self.capabilities.clone()))])
    }
}

/// Frames of one message: method, header and body, cut to `payload_max` bytes.
pub(crate) fn content_frames(
    channel: u16,
    method: &Method,
    raw_properties: &[u8],
    body: &[u8],
    payload_max: usize,
) -> Vec<u8> {
    let header = Writer::new().short(60).short(0).long_long(body.len() as u64).raw(raw_properties).0;
    let mut bytes = method.frame(channel);
    bytes.extend(frame(HEADER, channel, &header));
    for part in body.chunks(payload_max) {
        bytes.extend(frame(BODY, channel, part));
    }
    bytes
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// Bytes received and not yet taken as a frame.
    input: Vec<u8>,
    partial: HashMap<u16, Incoming>,
    complete: HashMap<u16, VecDeque<Incoming>>,
    /// Negotiated; 0 before tune.
    pub(crate) frame_max: usize,
    /// Heartbeat frames seen.
    pub(crate) heartbeats: usize,
}

impl Client {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            input: Vec::new(),
            partial: HashMap::new(),
            complete: HashMap::new(),
            frame_max: 0,
            heartbeats: 0,
        }
    }

    // Handshake

    pub(crate) fn handshake(&mut self, parameters: &Handshake) {
        self.log_in(parameters);
        self.tune(parameters);
        self.send(0, &connection::open("/"));
        self.expect(0, connection::OPEN_OK);
    }

    /// Like [`Self::handshake`] up to connection.open, as another user and without waiting for the answer to it.
    pub(crate) fn ask_to_open(&mut self, user: &str, password: &str, virtual_host: &str) {
        let parameters = Handshake::default();
        self.send_bytes(PROTOCOL_HEADER);
        self.expect(0, connection::START);
        let response = format!("\0{user}\0{password}");
        self.send(0, &connection::start_ok(&parameters.client_properties(), "PLAIN", response.as_bytes()));
        self.tune(&parameters);
        self.send(0, &connection::open(virtual_host));
    }

    /// Protocol header and start-ok as guest; leaves connection.tune to be read.
    pub(crate) fn log_in(&mut self, parameters: &Handshake) {
        self.send_bytes(PROTOCOL_HEADER);
        self.expect(0, connection::START);
        self.send(0, &connection::start_ok(&parameters.client_properties(), "PLAIN", b"\0guest\0guest"));
    }

    /// Reads tune and answers it.
    pub(crate) fn tune(&mut self, parameters: &Handshake) {
        let tune = self.expect(0, connection::TUNE);
        let mut reader = tune.method.reader();
        let (channel_max, frame_max) = (reader.short(), reader.long());
        let frame_max = parameters.frame_max.unwrap_or(frame_max);
        self.frame_max = frame_max as usize;
        self.send(
            0,
            &connection::tune_ok(parameters.channel_max.unwrap_or(channel_max), frame_max, parameters.heartbeat),
        );
    }

    pub(crate) fn open_channel(&mut self, channel: u16) {
        let reply = self.call(channel, &channel::open());
        assert_eq!(reply.arguments, [0, 0, 0, 0], "channel.open-ok carries an empty long string");
    }

    // Sending

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker reads");
    }

    /// Sends unless the broker takes nothing for `patience`; whether it all went.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8], patience: Duration) -> bool {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let sent = self.stream.write_all(bytes).is_ok();
        self.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        sent
    }

    pub(crate) fn send(&mut self, channel: u16, method: &Method) {
        self.send_bytes(&method.frame(channel));
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn call(&mut self, channel: u16, method: &Method) -> Method {
        self.send(channel, method);
        self.expect(channel, method.reply_ids()).method
    }

    pub(crate) fn message_bytes(&self, channel: u16, method: &Method, properties: &Properties, body: &[u8]) -> Vec<u8> {
        content_frames(channel, method, &properties.encode(), body, self.frame_max - FRAME_OVERHEAD)
    }

    pub(crate) fn publish(&mut self, channel: u16, exchange: &str, key: &str, body: impl AsRef<[u8]>) {
        self.publish_with(channel, &basic::publish(exchange, key, 0), &Properties::default(), body);
    }

    pub(crate) fn publish_with(
        &mut self,
        channel: u16,
        method: &Method,
        properties: &Properties,
        body: impl AsRef<[u8]>,
    ) {
        let bytes = self.message_bytes(channel, method, properties, body.as_ref());
        self.send_bytes(&bytes);
    }

    // Receiving

    /// The next frame, heartbeats included.
    pub(crate) fn read_frame(&mut self, patience: Duration) -> Result<Frame, NoFrame> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.take_frame() {
                return Ok(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoFrame::TimedOut);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 65_536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(NoFrame::Closed),
                Ok(count) => self.input.extend(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(NoFrame::TimedOut);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(NoFrame::Closed),
            }
        }
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let size = u32::from_be_bytes(self.input.get(3..7)?.try_into().unwrap()) as usize;
        assert!(!self.input.starts_with(b"AMQP"), "the broker answered with a protocol header");
        let end = *self.input.get(7 + size)?;
        assert_eq!(end, FRAME_END, "frame end byte");
        let channel = u16::from_be_bytes([self.input[1], self.input[2]]);
        let frame = Frame { kind: self.input[0], channel, payload: self.input[7..7 + size].to_vec() };
        self.input.drain(..size + FRAME_OVERHEAD);
        if self.frame_max > 0 {
            assert!(
                size + FRAME_OVERHEAD <= self.frame_max,
                "a frame of {} bytes where {} were negotiated",
                size + FRAME_OVERHEAD,
                self.frame_max
            );
        }
        Some(frame)
    }

    fn accept(&mut self, frame: Frame) {
        if frame.kind == HEARTBEAT {
            assert_eq!((frame.channel, frame.payload.len()), (0, 0), "a heartbeat is empty and on channel 0");
            self.heartbeats += 1;
            return;
        }
        let mut reader = Reader(&frame.payload);
        let mut incoming = self.partial.remove(&frame.channel);
        match (frame.kind, &mut incoming) {
            (METHOD, None) => {
                let method = Method { class: reader.short(), id: reader.short(), arguments: reader.0.to_vec() };
                incoming = Some(Incoming { method, content: None });
            }
            (HEADER, Some(Incoming { content: content @ None, .. })) => {
                assert_eq!((reader.short(), reader.short()), (60, 0), "class and weight of a content header");
                *content =
                    Some(Content { size: reader.long_long(), raw_properties: reader.0.to_vec(), ..Content::default() });
            }
            (BODY, Some(Incoming { content: Some(content), .. })) => {
                assert!(!frame.payload.is_empty(), "an empty body frame");
                content.body.extend(&frame.payload);
                content.body_frames.push(frame.payload.len());
            }
            (kind, before) => panic!("frame of type {kind} does not fit after {before:?}"),
        }
        let incoming = incoming.unwrap();
        let received = incoming.content.as_ref().map(|content| (content.body.len() as u64, content.size));
        let whole =
            if incoming.method.carries_content() { received.is_some_and(|(have, size)| have == size) } else { true };
        if whole {
            self.complete.entry(frame.channel).or_default().push_back(incoming);
        } else {
            self.partial.insert(frame.channel, incoming);
        }
    }

    /// The next method on `channel`, or why there is none. A connection.close is reported at once, whatever channel is asked for.
    pub(crate) fn try_recv(&mut self, channel: u16, patience: Duration) -> Result<Incoming, NoFrame> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(incoming) = self.complete.get_mut(&channel).and_then(VecDeque::pop_front) {
                return Ok(incoming);
            }
            if let Some(closing) = self.complete.get(&0).and_then(VecDeque::front).filter(|_| channel != 0) {
                assert_ne!(
                    closing.method.ids(),
                    connection::CLOSE,
                    "the broker closed the connection: {}",
                    describe(&closing.method)
                );
            }
            let frame = self.read_frame(deadline.saturating_duration_since(Instant::now()))?;
            self.accept(frame);
        }
    }

    pub(crate) fn recv(&mut self, channel: u16) -> Incoming {
        self.try_recv(channel, PATIENCE).unwrap_or_else(|reason| panic!("no method on channel {channel}: {reason:?}"))
    }

    /// The next method on `channel` must have these ids.
    pub(crate) fn expect(&mut self, channel: u16, ids: (u16, u16)) -> Incoming {
        let incoming = self.recv(channel);
        assert_eq!(
            incoming.method.ids(),
            ids,
            "unexpected method on channel {channel}: {}",
            describe(&incoming.method)
        );
        incoming
    }

    /// Nothing must come on `channel` for a short while.
    pub(crate) fn expect_silence(&mut self, channel: u16) {
        match self.try_recv(channel, SILENCE) {
            Err(NoFrame::TimedOut) => {}
            Err(NoFrame::Closed) => panic!("the broker closed the socket"),
            Ok(incoming) => panic!("expected nothing on channel {channel}, got {}", describe(&incoming.method)),
        }
    }

    /// The broker must close the socket within `patience`, without another frame.
    pub(crate) fn expect_closed_socket(&mut self, patience: Duration) {
        match self.read_frame(patience) {
            Err(NoFrame::Closed) => {}
            other => panic!("expected the socket to be closed, got {other:?}"),
        }
    }

    /// Reads and forgets until the broker closes the socket.
    pub(crate) fn drain_until_closed(&mut self) {
        while self.read_frame(PATIENCE).is_ok() {}
    }

    /// The next method on `channel` must be this channel.close; it is answered with close-ok.
    pub(crate) fn expect_channel_close(&mut self, channel: u16, code: u16, text: &str, ids: (u16, u16)) {
        let close = self.expect(channel, channel::CLOSE);
        assert_eq!(close_arguments(&close.method), (code, text.to_owned(), ids));
        self.send(channel, &channel::close_ok());
    }

    /// The next method on channel 0 must be this connection.close; it is answered with close-ok and the socket must end.
    pub(crate) fn expect_connection_close(&mut self, code: u16, text: &str, ids: (u16, u16)) {
        let close = self.expect(0, connection::CLOSE);
        assert_eq!(close_arguments(&close.method), (code, text.to_owned(), ids));
        let _ = self.stream.write_all(&connection::close_ok().frame(0));
        self.drain_until_closed();
    }

    /// Closes in good order.
    pub(crate) fn close(mut self) {
        self.send(0, &connection::close());
        while self.try_recv(0, PATIENCE).expect("connection.close is answered").method.ids() != connection::CLOSE_OK {}
    }

    // Shorthands

    /// Declares a queue; returns its name, message count and consumer count.
    pub(crate) fn declare_queue(
        &mut self,
        channel: u16,
        name: &str,
        flags: u8,
        arguments: &Table,
    ) -> (String, u32, u32) {
        let reply = self.call(channel, &queue::declare(name, flags, arguments));
        let mut reader = reply.reader();
        (reader.short_string(), reader.long(), reader.long())
    }

    /// A new exclusive queue with a name from the server.
    pub(crate) fn exclusive_queue(&mut self, channel: u16, arguments: &Table) -> String {
        self.declare_queue(channel, "", queue::EXCLUSIVE, arguments).0
    }

    /// Ready messages of a queue.
    pub(crate) fn message_count(&mut self, channel: u16, name: &str) -> u32 {
        self.declare_queue(channel, name, queue::PASSIVE, &Table::new()).1
    }

    /// Polls until the queue has this many ready messages.
    pub(crate) fn wait_for_count(&mut self, channel: u16, name: &str, count: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.message_count(channel, name);
            if now == count {
                return;
            }
            assert!(Instant::now() < deadline, "{name} has {now} ready messages, expected {count}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn consume(&mut self, channel: u16, queue: &str, tag: &str, flags: u8, arguments: &Table) -> String {
        let reply = self.call(channel, &basic::consume(queue, tag, flags, arguments));
        reply.reader().short_string()
    }

    pub(crate) fn expect_delivery(&mut self, channel: u16) -> Message {
        Message::decode(self.expect(channel, basic::DELIVER))
    }

    pub(crate) fn expect_return(&mut self, channel: u16) -> Message {
        Message::decode(self.expect(channel, basic::RETURN))
    }

    /// The next confirm: its method ids, tag and multiple flag.
    pub(crate) fn expect_confirm(&mut self, channel: u16) -> ((u16, u16), u64, bool) {
        let method = self.recv(channel).method;
        assert!([basic::ACK, basic::NACK].contains(&method.ids()), "expected a confirm, got {}", describe(&method));
        let mut reader = method.reader();
        (method.ids(), reader.long_long(), reader.octet() & 1 == 1)
    }

    /// Reads confirms until each of `1..=last` that was still missing was acknowledged exactly once.
    pub(crate) fn expect_acks(&mut self, channel: u16, first: u64, last: u64) {
        let mut missing: std::collections::BTreeSet<u64> = (first..=last).collect();
        while !missing.is_empty() {
            let (ids, tag, multiple) = self.expect_confirm(channel);
            assert_eq!(ids, basic::ACK, "confirm {tag} is negative");
            assert!(missing.contains(&tag), "{tag} was confirmed twice or never published");
            missing.retain(|other| *other != tag && !(multiple && *other < tag));
        }
    }

    /// basic.get; None when the queue is empty.
    pub(crate) fn get(&mut self, channel: u16, queue: &str, no_ack: u8) -> Option<Message> {
        self.send(channel, &basic::get(queue, no_ack));
        let incoming = self.recv(channel);
        match incoming.method.ids() {
            basic::GET_OK => Some(Message::decode(incoming)),
            basic::GET_EMPTY => {
                assert_eq!(incoming.method.arguments, [0], "get-empty carries an empty short string");
                None
            }
            _ => panic!("expected a reply to basic.get, got {}", describe(&incoming.method)),
        }
    }

    /// Polls basic.get until a message comes.
    pub(crate) fn wait_for_message(&mut self, channel: u16, queue: &str, no_ack: u8) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.get(channel, queue, no_ack) {
                return message;
            }
            assert!(Instant::now() < deadline, "no message arrived in {queue}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All ready messages as text, taken without acknowledgement.
    pub(crate) fn drain_queue(&mut self, channel: u16, queue: &str) -> Vec<String> {
        std::iter::from_fn(|| self.get(channel, queue, 1)).map(|message| message.text().to_owned()).collect()
    }
}

/// Code, text and method ids of a channel.close or connection.close.
pub(crate) fn close_arguments(method: &Method) -> (u16, String, (u16, u16)) {
    let mut reader = method.reader();
    (reader.short(), reader.short_string(), (reader.short(), reader.short()))
}

/// A method for failure messages.
pub(crate) fn describe(method: &Method) -> String {
    match method.ids() {
        ids @ (channel::CLOSE | connection::CLOSE) => {
            let (code, text, cause) = close_arguments(method);
            format!("{ids:?} {code} {text:?} caused by {cause:?}")
        }
        ids => format!("{ids:?} {:?}", method.arguments),
    }
}
