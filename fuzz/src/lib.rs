//! A connection under test with a scripted broker behind it: requests are answered from fixed rules, so that what comes
//! out follows from the bytes that went in.

use std::sync::Arc;

use bytes::Bytes;
use warren::model::exception::{Exception, ReplyCode};
use warren::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, QueueId, Timestamp};
use warren::model::message::{Body, Envelope, Message, Properties};
use warren::model::names::QueueName;
use warren::model::request::{Answer, Ask, ConsumeRequest, Delivery, Event, PublishRequest, Request};
use warren::protocol::amqp091::{AmqpSettings, Connection, Status};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// What the handshake agrees on; small, so that inputs reach the limit.
const FRAME_MAX: u32 = 4096;

const METHOD: u8 = 1;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;

/// When the scripted broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// After every piece of input.
    AtOnce,
    /// When `finish` is called: what the channels keep meanwhile is replayed then.
    Late,
}

/// The connection, its broker, and what came out of them.
pub struct Peer {
    connection: Connection,
    requests: Vec<Request>,
    answers: Answers,
    /// Counts requests; with `mischief`, every few of them are answered with an event out of turn.
    answered: u64,
    mischief: u64,
    fed: usize,
    /// Requests in readable form.
    pub log: Vec<String>,
    /// Bytes for the client.
    pub output: Vec<u8>,
}

impl Peer {
    /// A connection that has seen nothing. `mischief` picks which requests are answered out of turn; 0 is none.
    #[must_use]
    pub fn new(answers: Answers, mischief: u64) -> Self {
        let settings = AmqpSettings {
            frame_max: FRAME_MAX,
            channel_max: 7,
            heartbeat: 0,
            max_message_size: 64 * 1024,
            handshake_timeout_ms: 10_000,
            mechanisms: ["PLAIN", "AMQPLAIN", "ANONYMOUS"].map(str::to_owned).to_vec(),
            server_properties: vec![("product".into(), "Warren".into())],
            consumers_per_channel_max: 5,
            default_prefetch: 0,
            global_qos: true,
        };
        Self {
            connection: Connection::new(Arc::new(settings), ConnectionId(1), 1, NOW),
            requests: Vec::new(),
            answers,
            answered: 0,
            mischief,
            fed: 0,
            log: Vec::new(),
            output: Vec::new(),
        }
    }

    /// A connection after its handshake, with channel 1 open.
    #[must_use]
    pub fn opened(answers: Answers, mischief: u64) -> Self {
        let mut peer = Self::new(Answers::AtOnce, 0);
        for bytes in handshake() {
            peer.feed(&bytes);
        }
        assert_eq!(
            peer.log.last().map(String::as_str),
            Some("open 1"),
            "the handshake was not accepted: {:?}",
            peer.log
        );
        (peer.answers, peer.mischief, peer.answered) = (answers, mischief, 0);
        peer.log.clear();
        peer.output.clear();
        peer.fed = 0;
        peer
    }

    /// Gives the connection what its socket had.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.connection.status() == Status::Closed {
            return;
        }
        self.fed += bytes.len();
        self.connection.receive(bytes, NOW, &mut self.requests);
        if self.answers == Answers::AtOnce {
            self.finish();
        } else {
            self.drain();
        }
    }

    /// Answers everything that waits for it, and checks what must always hold.
    pub fn finish(&mut self) {
        while !self.requests.is_empty() {
            for request in std::mem::take(&mut self.requests) {
                self.log.push(describe(&request));
                let mut events = Vec::new();
                self.answer(request, &mut events);
                for event in events {
                    self.connection.handle(event, NOW, &mut self.requests);
                }
            }
            self.connection.flush(NOW, &mut self.requests);
        }
        self.drain();
        self.connection.return_credit(1, &mut self.requests);
        let _ = (self.connection.wants_input(), self.connection.deadline(), self.connection.is_ended());
        // The largest answer to the smallest question, with room for the close that ends it all.
        assert!(self.output.len() <= 16 * 1024 + 400 * self.fed, "{} bytes for {}", self.output.len(), self.fed);
    }

    /// Lets the time of every deadline come.
    pub fn end(&mut self) {
        self.finish();
        let mut deadlines = 0;
        while let Some(deadline) = self.connection.deadline().filter(|_| self.connection.status() == Status::Open) {
            self.connection.tick(deadline);
            deadlines += 1;
            assert!(deadlines < 100, "deadlines without an end");
        }
        self.drain();
    }

    fn drain(&mut self) {
        let output = &mut self.output;
        let drained = self.connection.output().drain(|slices| {
            slices.iter().for_each(|slice| output.extend_from_slice(slice));
            Ok::<_, std::convert::Infallible>(slices.iter().map(|slice| slice.len()).sum())
        });
        let Ok(()) = drained;
        assert!(self.connection.output().is_empty());
    }

    fn answer(&mut self, request: Request, events: &mut Vec<Event>) {
        self.answered += 1;
        if self.mischief != 0 && self.answered.is_multiple_of(self.mischief) {
            self.out_of_turn(&request, events);
        }
        match request {
            Request::Login { .. } => events.push(Event::LoggedIn),
            Request::OpenVhost(_) => events.push(Event::VhostOpened),
            Request::UpdateSecret(_) => events.push(Event::SecretUpdated),
            Request::Publish(PublishRequest { channel, message, mandatory, sequence, .. }) => {
                if mandatory {
                    events.push(Event::Return { channel, message });
                }
                if let Some(sequence) = sequence {
                    events.push(Event::Confirm {
                        channel,
                        first: sequence,
                        last: sequence,
                        confirmed: sequence % 3 != 0,
                    });
                }
            }
            Request::Ask { channel, ask } => {
                let consumer = match &ask {
                    Ask::Consume(ConsumeRequest { consumer, .. }) => Some(*consumer),
                    _ => None,
                };
                events.push(Event::Answer { channel, answer: answer_to(ask) });
                events.extend(consumer.map(deliver));
            }
            Request::CloseChannel(channel) => events.push(Event::Answer { channel, answer: Answer::ChannelClosed }),
            Request::CloseConnection => events.push(Event::ConnectionClosed),
            Request::OpenChannel(_)
            | Request::Settle(_)
            | Request::DeliveriesSent { .. }
            | Request::CheckConsumer { .. } => {}
        }
    }

    /// What a broker may say at any time, whatever was asked.
    fn out_of_turn(&self, request: &Request, events: &mut Vec<Event>) {
        let channel = match request {
            Request::Publish(PublishRequest { channel, .. })
            | Request::Ask { channel, .. }
            | Request::OpenChannel(channel)
            | Request::CloseChannel(channel) => *channel,
            _ => ChannelRef { connection: ConnectionId(1), serial: 1, number: 1 },
        };
        let consumer = ConsumerId { connection: ConnectionId(1), serial: channel.serial + 1, channel: channel.number };
        let refused = || Exception::new(ReplyCode::NotFound, "no exchange 'é' in vhost '/'");
        events.push(match self.answered / self.mischief % 10 {
            0 => deliver(consumer),
            1 => Event::Blocked { reason: "low on memory" },
            2 => Event::Unblocked,
            3 => Event::Exception { channel: Some(channel), exception: refused() },
            4 => Event::PublishRefused { channel, exception: refused() },
            5 => Event::ConsumerCancelled { consumer, tag: "tag".into() },
            6 => Event::ConsumerTimeout { consumer, timeout_ms: 1 },
            7 => Event::Confirm { channel, first: 1, last: self.answered, confirmed: true },
            8 => Event::Routed { channel, sequence: self.answered, verdicts: 0 },
            _ => Event::Shutdown { text: "broker forced connection closure with reason 'shutdown'".into() },
        });
    }
}

/// Frames of a client that logs in and opens channel 1, one piece each as a socket would have them.
#[must_use]
pub fn handshake() -> [Vec<u8>; 5] {
    let start_ok = b"\0\x0a\0\x0b\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US";
    let tune_ok = [&[0, 10, 0, 31, 0, 7][..], &FRAME_MAX.to_be_bytes(), &[0, 0]].concat();
    [
        b"AMQP\0\0\x09\x01".to_vec(),
        method_frame(0, start_ok),
        method_frame(0, &tune_ok),
        method_frame(0, b"\0\x0a\0\x28\x01/\0\0"),
        method_frame(1, b"\0\x14\0\x0a\0"),
    ]
}

/// A method frame.
#[must_use]
pub fn method_frame(channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![METHOD];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(FRAME_END);
    frame
}

/// Gives body frames their end octet and a channel: a wrong one is noticed after as many pieces of the body as there
/// were reads, so what happens before depends on them.
pub fn repair_body_frames(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(&[kind, c0, c1, s0, s1, s2, s3]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<7>()) {
        let size = u32::from_be_bytes([s0, s1, s2, s3]) as usize;
        if size > FRAME_MAX as usize {
            return;
        }
        if kind == BODY {
            if [c0, c1] == [0, 0] {
                bytes[at + 2] = 1;
            }
            if let Some(end) = bytes.get_mut(at + 7 + size) {
                *end = FRAME_END;
            }
        }
        at += 8 + size;
    }
}

fn answer_to(ask: Ask) -> Answer {
    match ask {
        Ask::DeclareQueue(declare) => {
            let queue = if declare.queue.as_str().is_empty() { QueueName::new("generated") } else { declare.queue };
            Answer::QueueDeclared { queue, ready: 3, consumers: 1 }
        }
        Ask::DeleteQueue { .. } | Ask::PurgeQueue { .. } => Answer::Messages(3),
        Ask::Get { queue, .. } if queue.as_str().len() % 2 == 1 => {
            Answer::Got { queue: QueueId(1), index: MessageIndex(1), redelivered: true, message: message(), ready: 2 }
        }
        Ask::Get { .. } => Answer::Empty,
        _ => Answer::Done,
    }
}

fn deliver(consumer: ConsumerId) -> Event {
    let message = message();
    let cost = message.cost();
    let delivery = Delivery { consumer, index: MessageIndex(1), cost, redelivered: false, message };
    Event::Deliver { queue: QueueId(1), delivery }
}

fn message() -> Message {
    let envelope = Envelope { exchange: b"exchange", routing_key: b"key" };
    match Properties::parse(&[0, 0]) {
        Ok(properties) => Message::new(&mut Vec::new(), envelope, &properties, b"body"),
        Err(error) => panic!("no properties are properties: {error}"),
    }
}

/// A request in words that do not depend on how its bytes are stored.
fn describe(request: &Request) -> String {
    match request {
        Request::OpenChannel(channel) => format!("open {}", channel.number),
        Request::Publish(publish) => {
            let message = &publish.message;
            let body = match message.body() {
                Body::Inline(bytes) => Bytes::copy_from_slice(bytes),
                Body::Slices(slices) => slices.concat().into(),
            };
            assert_eq!(message.body_length() as usize, body.len());
            let (exchange, key) = (Bytes::copy_from_slice(message.exchange()), message.routing_key().escape_ascii());
            format!(
                "publish {:?} {exchange:?} {key} {:?} {body:?} {} {:?} {}",
                publish.channel,
                Bytes::copy_from_slice(message.raw_properties()),
                publish.mandatory,
                publish.sequence,
                publish.transactional
            )
        }
        request => format!("{request:?}"),
    }
}
