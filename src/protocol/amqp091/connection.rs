//! One AMQP connection: handshake, heartbeats, the channel table, and closing from either side.

mod kept;

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, basic, channel as channel_class, connection};

use super::channel::{Channel, Kept, Phase, Turn, channel_close, no_method, take_off, unexpected_frame};
use super::codec::{BODY, Decoded, Decoder, Frame, FrameError, HEADER, HEARTBEAT, METHOD, Octets, Output};
use super::consumers::{Consumer, Consumers};
use super::content::{PayloadMax, WholePublish};
use super::heartbeats::{HEARTBEAT_FRAME, Heartbeats};
use super::start::{self, ClientProperties, INITIAL_FRAME_MAX, Opening, Tuned};
use super::{AmqpSettings, login, method};
use crate::model::exception::{Exception, ReplyCode};
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId, Timestamp};
use crate::model::names::{ConsumerTag, UserName, VhostName};
use crate::model::narrow::narrow;
use crate::model::random::Random;
use crate::model::request::{Answer, Delivery, Event, Request};
use crate::model::statistics::{ConnectionRecord, ConnectionState};
use kept::keeps;

/// How long a connection that is not told why stays silent before its socket closes.
const SILENCE_MS: u64 = 3_000;
/// The longest wait for the client's close-ok.
const CLOSE_TIMEOUT_MS: u64 = 30_000;
/// Bytes kept for channels that wait, above which the socket is not read.
const KEPT_MAX: usize = 1024 * 1024;

/// Bytes that wait for the socket, above which it is not read and direct replies are dropped: a client that sends without
/// reading would otherwise fill the memory with answers. Far above the credit of deliveries.
const OUTPUT_MAX: usize = 4 * 1024 * 1024;

const CHANNEL_OPEN: (u16, u16) = (20, 10);
const CHANNEL_CLOSE: (u16, u16) = (20, 40);
const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);

/// What the driver is to do with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Read (when `wants_input`), write, come back at the deadline.
    Open,
    /// Write what is left, then close.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Awaiting the protocol header.
    Header,
    /// Awaiting start-ok.
    Starting,
    LoggingIn,
    /// Awaiting tune-ok.
    Tuning,
    /// Awaiting open.
    Opening,
    OpeningVhost,
    Running,
    /// The client asked; the broker is cleaning up before close-ok.
    Ending,
    /// close-ok is sent; the client closes the socket, or the deadline does.
    Ended,
    /// The broker sent close and awaits close-ok.
    Closing,
    /// Nothing more is read or said; the socket closes at the deadline.
    Silent,
    Closed,
}

/// The state machine of one connection. Bytes come in by `receive`, events by `handle`, time by `tick`; requests go out
/// through the caller's list and bytes through `output`.
#[derive(Debug)]
pub struct Connection {
    settings: Arc<AmqpSettings>,
    id: ConnectionId,
    state: State,
    decoder: Decoder,
    /// With so many requests the input waits until they are handled, and credit is looked at.
    requests_max: usize,
    /// Bytes of the protocol header so far, then input that must wait: for a login, an open, or credit.
    held: Vec<u8>,
    output: Output,
    channels: HashMap<u16, Channel>,
    consumers: Consumers,
    tuned: Tuned,
    limit: PayloadMax,
    client: ClientProperties,
    /// The SASL mechanism the client chose.
    mechanism: String,
    /// What EXTERNAL would log in as; None where it is not offered.
    external: Option<Result<UserName, String>>,
    scratch: Vec<u8>,
    random: Random,
    /// Channels with confirms to tell.
    confirming: Vec<u16>,
    /// The front of a body frame that came where none may.
    misplaced_body: Octets,
    /// Bytes kept by channels that wait.
    kept: usize,
    /// Bytes of bodies that have arrived in part, over all channels.
    assembling: usize,
    /// Deliveries written to `output` whose credit has not been returned, in bytes.
    delivered: usize,
    alarm: Option<&'static str>,
    /// Publishes wait for the alarm to end, and what follows them on their channels; acknowledgements do not.
    blocked: bool,
    /// Channels that keep frames although they wait for no answer, in the order they began to: until the alarm ends, or
    /// there is credit.
    held_back: Vec<u16>,
    deadline: Option<Timestamp>,
    heartbeats: Heartbeats,
    /// What the log should say of the end of this connection.
    reason: Option<String>,
    record: Arc<ConnectionRecord>,
}

impl Connection {
    #[must_use]
    pub fn new(settings: Arc<AmqpSettings>, id: ConnectionId, seed: u64, now: Timestamp) -> Self {
        let deadline = Some(now.plus(settings.handshake_timeout_ms));
        Self {
            settings,
            id,
            state: State::Header,
            decoder: Decoder::new(INITIAL_FRAME_MAX),
            requests_max: usize::MAX,
            held: Vec::new(),
            output: Output::default(),
            channels: HashMap::new(),
            consumers: Consumers::default(),
            tuned: Tuned::default(),
            limit: PayloadMax::of(4096),
            client: ClientProperties::default(),
            mechanism: String::new(),
            external: None,
            scratch: Vec::new(),
            random: Random::new(seed),
            confirming: Vec::new(),
            misplaced_body: Octets::default(),
            kept: 0,
            assembling: 0,
            delivered: 0,
            alarm: None,
            blocked: false,
            held_back: Vec::new(),
            deadline,
            heartbeats: Heartbeats::default(),
            reason: None,
            record: Arc::default(),
        }
    }

    /// Offers EXTERNAL, where it is configured: the transport knows who the client is by its certificate, or why it does
    /// not. To be called before any input.
    pub fn offer_external(&mut self, user: Result<UserName, String>) {
        self.external = Some(user);
    }

    /// Where listings find what this connection does.
    #[must_use]
    pub fn with_record(self, record: &Arc<ConnectionRecord>) -> Self {
        Self { record: Arc::clone(record), ..self }
    }

    /// How many requests input makes at most before they are handled; as long as nothing is said, all that are in it.
    pub fn set_requests_max(&mut self, requests_max: usize) {
        self.requests_max = requests_max;
    }

    /// Bytes for the socket.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    #[must_use]
    pub fn status(&self) -> Status {
        if self.state == State::Closed { Status::Closed } else { Status::Open }
    }

    /// Whether it takes more input, from the socket or what was kept of it: not while too much waits for answers or for
    /// the end of an alarm.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.kept < KEPT_MAX
            && self.output.len() < OUTPUT_MAX
            && !matches!(self.state, State::LoggingIn | State::OpeningVhost | State::Silent | State::Closed)
    }

    /// Whether an alarm holds publishes back, so that the socket can be read although they have no credit.
    #[must_use]
    pub fn is_alarmed(&self) -> bool {
        self.alarm.is_some()
    }

    /// What the client said of itself.
    #[must_use]
    pub fn client(&self) -> &ClientProperties {
        &self.client
    }

    /// Why the connection ended, when it was not by the client's wish.
    pub fn take_reason(&mut self) -> Option<String> {
        self.reason.take()
    }

    /// Handles what the socket had, up to where it has made as many requests as are handled at once: the broker is to do
    /// that, and to say whether it takes more, before what is left over and returned here is given again.
    pub fn receive<'a>(&mut self, mut input: &'a [u8], now: Timestamp, requests: &mut Vec<Request>) -> &'a [u8] {
        self.heartbeats.note_heard();
        if self.state == State::Header && !self.read_header(&mut input, now) {
            return &[];
        }
        let mut decoder = mem::take(&mut self.decoder);
        let rest = self.frames(&mut decoder, input, now, requests);
        let limit = self.decoder.payload_max;
        self.decoder = decoder;
        if limit != 0 {
            // The limit was changed by a tune-ok among the frames.
            self.decoder.payload_max = limit;
        }
        if matches!(self.state, State::LoggingIn | State::OpeningVhost) {
            self.held.extend_from_slice(rest);
            return &[];
        }
        rest
    }

    /// Handles frames until the input ends or must wait, or there are enough requests; returns what was not handled.
    fn frames<'a>(
        &mut self,
        decoder: &mut Decoder,
        mut input: &'a [u8],
        now: Timestamp,
        requests: &mut Vec<Request>,
    ) -> &'a [u8] {
        // Becomes non-zero when the limit changes.
        self.decoder.payload_max = 0;
        loop {
            match self.state {
                State::Silent | State::Closed | State::Ended => return &[],
                State::LoggingIn | State::OpeningVhost => return input,
                State::Header
                | State::Starting
                | State::Tuning
                | State::Opening
                | State::Running
                | State::Ending
                | State::Closing => {
                    if requests.len() >= self.requests_max {
                        return input;
                    }
                }
            }
            if self.decoder.payload_max != 0 {
                decoder.payload_max = self.decoder.payload_max;
            }
            if self.state == State::Running
                && !self.blocked
                && decoder.at_boundary()
                && let Some(publish) = WholePublish::parse(input, decoder.payload_max)
                && self.channels.get(&publish.channel).is_some_and(Channel::takes_publishes)
            {
                input = &input[publish.length..];
                self.with_channel(publish.channel, now, requests, |channel, turn| {
                    channel.publish_whole(turn, &publish)
                });
                continue;
            }
            match decoder.next(&mut input) {
                Ok(Decoded::Frame(frame)) => self.on_frame(&frame, now, requests),
                Ok(Decoded::NeedMore) => return &[],
                Err(error) => {
                    self.on_frame_error(&error, now, requests);
                    return &[];
                }
            }
        }
    }

    fn read_header(&mut self, input: &mut &[u8], now: Timestamp) -> bool {
        let missing = 8 - self.held.len();
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.held.extend_from_slice(taken);
        *input = rest;
        let Ok(header) = <[u8; 8]>::try_from(self.held.as_slice()) else { return false };
        self.held = Vec::new();
        match start::opening(header) {
            Opening::Start => {
                let settings = Arc::clone(&self.settings);
                let mechanisms = offered(&settings, self.external.as_ref());
                self.output.append(|out| start::start(out, &settings, &mechanisms));
                self.state = State::Starting;
                true
            }
            Opening::Refuse(why) => {
                self.output.append(|out| out.extend_from_slice(&start::AMQP_0_9_1));
                self.close_silently(why.to_owned(), now);
                self.state = State::Closed;
                false
            }
        }
    }

    fn on_frame(&mut self, frame: &Frame<'_>, now: Timestamp, requests: &mut Vec<Request>) {
        match (self.state, frame) {
            (_, Frame::Heartbeat { channel: 0 }) => {}
            (_, Frame::Method { channel: 0, payload }) => self.on_connection_method(payload, now, requests),
            (State::Running, Frame::Unknown { kind, payload }) => {
                let text = format!("type {kind}, {}: unknown_frame", Octets::of(payload));
                self.fail(Exception::new(ReplyCode::FrameError, text), (0, 0), now, requests);
            }
            (
                State::Running,
                Frame::Method { channel, .. } | Frame::Header { channel, .. } | Frame::Body { channel, .. },
            ) if *channel != 0 => self.on_channel_frame(*channel, frame, now, requests),
            _ => self.on_misplaced(frame, now, requests),
        }
    }

    /// A frame that belongs on another channel, or to another state of the connection.
    fn on_misplaced(&mut self, frame: &Frame<'_>, now: Timestamp, requests: &mut Vec<Request>) {
        let (kind, octets) = match frame {
            Frame::Method { payload, .. } => (METHOD, Octets::of(payload)),
            Frame::Header { payload, .. } => (HEADER, Octets::of(payload)),
            Frame::Heartbeat { .. } => (HEARTBEAT, Octets::default()),
            Frame::Unknown { kind, payload } => (*kind, Octets::of(payload)),
            Frame::Body { body, .. } => {
                if body.start {
                    self.misplaced_body = Octets::default();
                }
                self.misplaced_body.add(body.piece);
                if !body.end {
                    return;
                }
                (BODY, self.misplaced_body.clone())
            }
        };
        match self.state {
            State::Tuning | State::Opening | State::Running => {
                self.fail(unexpected_frame(format!("type {kind}, {octets}")), (0, 0), now, requests);
            }
            State::Closing | State::Ending => {}
            State::Header
            | State::Starting
            | State::LoggingIn
            | State::OpeningVhost
            | State::Ended
            | State::Silent
            | State::Closed => self.close_silently("unexpected frame before login".into(), now),
        }
    }

    fn on_channel_frame(&mut self, number: u16, frame: &Frame<'_>, now: Timestamp, requests: &mut Vec<Request>) {
        let blocked = self.blocked;
        let Some(channel) = self.channels.get_mut(&number) else {
            return self.on_unopened(number, frame, now, requests);
        };
        match channel.phase {
            Phase::Closing | Phase::Ending => self.on_closing_channel(number, frame, now, requests),
            Phase::Open if channel.is_waiting() || keeps(channel, frame, blocked) => {
                let kept = match *frame {
                    Frame::Method { payload, .. } => Kept::Method(payload.into()),
                    Frame::Header { payload, .. } => Kept::Header(payload.into()),
                    Frame::Body { body, .. } => Kept::body(&body),
                    Frame::Heartbeat { .. } | Frame::Unknown { .. } => return,
                };
                self.kept += kept.cost();
                channel.kept.push_back(kept);
                if blocked {
                    self.hold_back(number);
                }
            }
            Phase::Open => self.with_channel(number, now, requests, |channel, turn| channel.frame(turn, frame)),
        }
    }

    fn on_unopened(&mut self, number: u16, frame: &Frame<'_>, now: Timestamp, requests: &mut Vec<Request>) {
        let Frame::Method { payload, .. } = *frame else {
            return self.fail(no_method(), (0, 0), now, requests);
        };
        let ids = method::ids(payload);
        if let Err(exception) = method::check(payload) {
            return self.fail(exception, ids, now, requests);
        }
        if ids != CHANNEL_OPEN {
            let exception = Exception::new(ReplyCode::ChannelError, "expected 'channel.open'");
            return self.fail(exception, ids, now, requests);
        }
        let (open, max) = (self.channels.len(), usize::from(self.tuned.channel_max));
        if max != 0 && open >= max {
            let text = format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return self.fail(Exception::not_allowed(text), (0, 0), now, requests);
        }
        let serial = self.consumers.next_serial();
        let reference = ChannelRef { connection: self.id, serial, number };
        let record = self.record.open_channel(number);
        self.channels.insert(number, Channel::new(reference, self.settings.default_prefetch, record));
        requests.push(Request::OpenChannel(reference));
        let reply = channel_class::AMQPMethod::OpenOk(channel_class::OpenOk {});
        self.send(number, &AMQPClass::Channel(reply));
    }

    /// A frame of a channel that either side is closing: nothing is done but what ends it.
    fn on_closing_channel(&mut self, number: u16, frame: &Frame<'_>, now: Timestamp, requests: &mut Vec<Request>) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let method = match channel.discard(frame) {
            Ok(method) => method,
            Err(exception) => {
                let ids = channel.current;
                return self.fail(exception, ids, now, requests);
            }
        };
        match (channel.phase, method) {
            (_, Some(CHANNEL_OPEN)) => {
                let exception = Exception::new(ReplyCode::ChannelError, "second 'channel.open' seen");
                self.fail(exception, CHANNEL_OPEN, now, requests);
            }
            (Phase::Closing, Some(CHANNEL_CLOSE_OK)) => {
                if let Some(channel) = self.channels.remove(&number) {
                    self.record.close_channel(&channel.record);
                }
            }
            (Phase::Closing, Some(CHANNEL_CLOSE)) => self.send(number, &AMQPClass::Channel(close_ok())),
            (Phase::Open | Phase::Ending | Phase::Closing, _) => {}
        }
    }

    /// Runs `work` on a channel; a refusal closes the channel or the connection.
    fn with_channel(
        &mut self,
        number: u16,
        now: Timestamp,
        requests: &mut Vec<Request>,
        work: impl FnOnce(&mut Channel, &mut Turn<'_>) -> Result<(), Exception>,
    ) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let mut published = false;
        let mut turn = Turn {
            settings: &self.settings,
            output: &mut self.output,
            requests,
            consumers: &mut self.consumers,
            scratch: &mut self.scratch,
            random: &mut self.random,
            limit: self.limit,
            published: &mut published,
            assembling: &mut self.assembling,
        };
        let outcome = work(channel, &mut turn);
        if let Err(exception) = outcome {
            let ids = channel.current;
            return self.fail_channel(number, exception, ids, now, requests);
        }
        if published && self.alarm.is_some() && !self.blocked {
            self.block();
        }
    }

    fn fail_channel(
        &mut self,
        number: u16,
        exception: Exception,
        ids: (u16, u16),
        now: Timestamp,
        requests: &mut Vec<Request>,
    ) {
        if exception.code.is_hard() {
            return self.fail(exception, ids, now, requests);
        }
        let Some(channel) = self.channels.get_mut(&number) else { return };
        tracing::debug!(connection = self.id.0, channel = number, error = %exception, "channel error");
        take_off(&mut self.assembling, channel.refuse_publish());
        channel.phase = Phase::Closing;
        channel.pending = None;
        take_off(&mut self.kept, channel.kept.iter().map(Kept::cost).sum());
        channel.kept.clear();
        channel.tags.values().for_each(|consumer| self.consumers.remove(*consumer));
        requests.push(Request::CloseChannel(channel.reference));
        let close = channel_close(&exception, ids);
        self.send(number, &close);
    }

    /// Closes the connection with an exception and waits for close-ok.
    fn fail(&mut self, exception: Exception, ids: (u16, u16), now: Timestamp, requests: &mut Vec<Request>) {
        // A client that closed by itself awaits close-ok and nothing else.
        if matches!(self.state, State::Closing | State::Ending | State::Ended | State::Silent | State::Closed) {
            return;
        }
        let close = connection::AMQPMethod::Close(connection::Close {
            reply_code: exception.code.code(),
            reply_text: exception.reply_text().into(),
            class_id: ids.0,
            method_id: ids.1,
        });
        self.send(0, &AMQPClass::Connection(close));
        self.reason = Some(exception.to_string());
        self.drop_channels();
        requests.push(Request::CloseConnection);
        self.state = State::Closing;
        let heartbeat = self.tuned.heartbeat_ms;
        let wait = if heartbeat == 0 { CLOSE_TIMEOUT_MS } else { heartbeat.min(CLOSE_TIMEOUT_MS) };
        self.deadline = Some(now.plus(wait));
    }

    fn drop_channels(&mut self) {
        self.channels = HashMap::new();
        self.record.close_all_channels();
        self.record.facts.lock().state = ConnectionState::Closing;
        self.kept = 0;
        self.assembling = 0;
        self.blocked = false;
    }

    /// Says nothing more and closes the socket after a while.
    fn close_silently(&mut self, reason: String, now: Timestamp) {
        self.reason = Some(reason);
        self.state = State::Silent;
        self.deadline = Some(now.plus(SILENCE_MS));
    }

    /// A method that the state of the handshake does not allow.
    fn out_of_place(&mut self, ids: (u16, u16), now: Timestamp, requests: &mut Vec<Request>) {
        let state = match self.state {
            State::Tuning => "tuning",
            State::Opening => "opening",
            State::Running => "running",
            State::Header
            | State::Starting
            | State::LoggingIn
            | State::OpeningVhost
            | State::Ending
            | State::Ended
            | State::Closing
            | State::Silent
            | State::Closed => return self.close_silently("unexpected method before login".into(), now),
        };
        let text = format!("unexpected method in connection state {state}");
        self.fail(Exception::new(ReplyCode::ChannelError, text), ids, now, requests);
    }

    fn on_frame_error(&mut self, error: &FrameError, now: Timestamp, requests: &mut Vec<Request>) {
        let text = match error {
            FrameError::TooLarge { kind, size, limit } => {
                format!("type {kind}, {}: {{frame_too_large,{size},{limit}}}", Octets::default())
            }
            FrameError::BadEnd { kind, octets, end } => {
                format!("type {kind}, {octets}: {{invalid_frame_end_marker,{end}}}")
            }
        };
        match self.state {
            State::Closing | State::Ending | State::Starting => self.close_silently(text, now),
            State::Header
            | State::LoggingIn
            | State::Tuning
            | State::Opening
            | State::OpeningVhost
            | State::Running
            | State::Ended
            | State::Silent
            | State::Closed => {
                self.fail(Exception::new(ReplyCode::FrameError, text), (0, 0), now, requests);
                // What follows cannot be told apart into frames: the close-ok will not be understood.
                self.state = State::Silent;
                self.deadline = Some(now.plus(SILENCE_MS));
            }
        }
    }

    fn on_connection_method(&mut self, payload: &[u8], now: Timestamp, requests: &mut Vec<Request>) {
        let ids = method::ids(payload);
        match (self.state, ids) {
            (State::Closing, (10, 51)) => return self.state = State::Closed,
            (State::Closing, (10, 50)) => return self.send(0, &connection_close_ok()),
            (State::Closing | State::Ending, _) => return,
            (
                State::Header
                | State::Starting
                | State::LoggingIn
                | State::Tuning
                | State::Opening
                | State::OpeningVhost
                | State::Running
                | State::Ended
                | State::Silent
                | State::Closed,
                _,
            ) => {}
        }
        let decoded = match method::decode(payload) {
            Ok(decoded) => decoded,
            Err(exception) if matches!(self.state, State::Starting) => {
                return self.close_silently(exception.to_string(), now);
            }
            Err(exception) => return self.fail(exception, ids, now, requests),
        };
        let AMQPClass::Connection(connection_method) = decoded.class else {
            return self.out_of_place(ids, now, requests);
        };
        match (self.state, connection_method) {
            (State::Starting, connection::AMQPMethod::StartOk(start_ok)) => {
                self.client = ClientProperties::read(&decoded.arguments);
                let external = self.external.as_ref();
                let offered = offered(&self.settings, external);
                match login::parse(start_ok.mechanism.as_str(), &offered, start_ok.response.as_bytes(), external) {
                    Ok(mechanism) => {
                        self.mechanism = start_ok.mechanism.as_str().to_owned();
                        let mut facts = self.record.facts.lock();
                        facts.mechanism.clone_from(&self.mechanism);
                        facts.client_properties = decoded.arguments;
                        facts.state = ConnectionState::Tuning;
                        drop(facts);
                        self.state = State::LoggingIn;
                        requests.push(Request::Login { mechanism });
                    }
                    Err(exception) => self.close_silently(exception.to_string(), now),
                }
            }
            (State::Tuning, connection::AMQPMethod::TuneOk(tune_ok)) => self.on_tune_ok(&tune_ok, now, requests),
            (State::Opening, connection::AMQPMethod::Open(open)) => {
                self.state = State::OpeningVhost;
                requests.push(Request::OpenVhost(VhostName::new(open.virtual_host.as_str())));
            }
            (State::Running, connection::AMQPMethod::UpdateSecret(update)) => {
                requests.push(Request::UpdateSecret(update.new_secret.as_bytes().to_vec()));
            }
            (State::Tuning | State::Opening | State::Running, connection::AMQPMethod::Close(_)) => {
                self.state = State::Ending;
                self.drop_channels();
                requests.push(Request::CloseConnection);
            }
            _ => self.out_of_place(ids, now, requests),
        }
    }

    fn on_tune_ok(&mut self, tune_ok: &connection::TuneOk, now: Timestamp, requests: &mut Vec<Request>) {
        match start::tuned(&self.settings, tune_ok) {
            Ok(tuned) => {
                self.tuned = tuned;
                self.limit = PayloadMax::of(tuned.frame_max);
                self.decoder.limit(tuned.frame_max as usize);
                self.state = State::Opening;
                let mut facts = self.record.facts.lock();
                facts.channel_max = tuned.channel_max;
                facts.frame_max = tuned.frame_max;
                facts.heartbeat = narrow(tuned.heartbeat_ms / 1000, "a heartbeat is tuned in 16 bits of seconds");
                facts.state = ConnectionState::Opening;
                drop(facts);
                self.heartbeats = Heartbeats::every(tuned.heartbeat_ms, now);
            }
            Err(exception) => self.fail(exception, (10, 31), now, requests),
        }
    }

    /// Handles one event of the broker.
    pub fn handle(&mut self, event: Event, now: Timestamp, requests: &mut Vec<Request>) {
        match event {
            Event::Deliver { queue, delivery } => self.on_deliver(queue, &delivery),
            Event::Confirm { channel, first, last, confirmed } => {
                if let Some(open) = self.open_channel(channel) {
                    open.confirm(first, last, confirmed);
                    self.note_confirming(channel.number);
                }
            }
            Event::Routed { channel, sequence, verdicts } => {
                if let Some(open) = self.open_channel(channel) {
                    open.routed(sequence, verdicts);
                    self.note_confirming(channel.number);
                }
            }
            Event::Return { channel, message } => {
                if self.open_channel(channel).is_some() {
                    super::content::no_route(&mut self.output, channel.number, &message, self.limit);
                }
            }
            Event::Answer { channel, answer } => self.on_answer(channel, answer, now, requests),
            Event::Exception { channel: Some(channel), exception } => {
                if let Some(open) = self.open_channel(channel) {
                    let ids = open.current;
                    self.fail_channel(channel.number, exception, ids, now, requests);
                }
            }
            Event::PublishRefused { channel, exception } => {
                if self.open_channel(channel).is_some() {
                    self.fail_channel(channel.number, exception, (60, 40), now, requests);
                }
            }
            Event::Exception { channel: None, exception } => {
                let ids = match self.state {
                    State::OpeningVhost => (10, 40),
                    State::Running => (10, 70),
                    _ => (0, 0),
                };
                self.fail(exception, ids, now, requests);
            }
            Event::ConsumerCancelled { consumer, tag } => self.on_consumer_cancelled(consumer, &tag),
            Event::ConsumerTimeout { consumer, timeout_ms } => {
                let text = format!(
                    "delivery acknowledgement on channel {} timed out. Timeout value used: {timeout_ms} ms. This timeout \
                     value can be configured, see consumers doc guide to learn more",
                    consumer.channel
                );
                // Serials only grow: a smaller one is of an earlier channel of this number.
                let channel = self.channels.get(&consumer.channel);
                if channel.is_some_and(|open| open.phase == Phase::Open && open.reference.serial <= consumer.serial) {
                    self.fail_channel(consumer.channel, Exception::precondition_failed(text), (0, 0), now, requests);
                }
            }
            Event::Internal(_) => {}
            Event::Blocked { reason } => self.alarm = Some(reason),
            Event::Unblocked => self.unblock(now, requests),
            Event::LoggedIn | Event::LoginRefused | Event::VhostOpened | Event::SecretUpdated => {
                self.on_login_event(&event, now, requests);
            }
            Event::ConnectionClosed => self.on_closed(now),
            Event::Shutdown { text } | Event::ForceClose { text } => {
                self.fail(Exception::new(ReplyCode::ConnectionForced, text), (0, 0), now, requests);
            }
        }
    }

    /// Call after a batch of events: tells the client the confirms among them.
    pub fn flush(&mut self, now: Timestamp, requests: &mut Vec<Request>) {
        let mut confirming = mem::take(&mut self.confirming);
        for number in confirming.drain(..) {
            self.with_channel(number, now, requests, Channel::flush_confirms);
            self.replay(number, now, requests);
        }
        self.confirming = confirming;
    }

    /// Call when `output` is (nearly) written: returns the credit of the deliveries that were in it, once it is worth a
    /// request of `worth` bytes.
    pub fn return_credit(&mut self, worth: usize, requests: &mut Vec<Request>) {
        if self.delivered >= worth.max(1) {
            requests.push(Request::DeliveriesSent { bytes: mem::take(&mut self.delivered) });
        }
    }

    fn on_deliver(&mut self, queue: QueueId, delivery: &Delivery) {
        if queue != QueueId::DIRECT_REPLY {
            self.delivered += delivery.cost;
        }
        if queue == QueueId::DIRECT_REPLY && self.output.len() >= OUTPUT_MAX {
            return;
        }
        let number = delivery.consumer.channel;
        let Some(consumer) = self.consumers.find(delivery.consumer.serial) else { return };
        let Some(channel) = self.channels.get_mut(&number).filter(|channel| channel.phase == Phase::Open) else {
            return;
        };
        channel.deliver(consumer, &mut self.output, self.limit, queue, delivery);
    }

    fn note_confirming(&mut self, number: u16) {
        if !self.confirming.contains(&number) {
            self.confirming.push(number);
        }
    }

    fn open_channel(&mut self, reference: ChannelRef) -> Option<&mut Channel> {
        self.channels
            .get_mut(&reference.number)
            .filter(|channel| channel.reference == reference && channel.phase == Phase::Open)
    }

    fn on_answer(&mut self, reference: ChannelRef, answer: Answer, now: Timestamp, requests: &mut Vec<Request>) {
        if let Answer::Got { message, .. } = &answer {
            self.delivered += message.cost();
        }
        let number = reference.number;
        let Some(channel) = self.channels.get_mut(&number).filter(|channel| channel.reference == reference) else {
            return;
        };
        match (channel.phase, answer) {
            (Phase::Ending, Answer::ChannelClosed) => {
                if let Some(mut channel) = self.channels.remove(&number) {
                    self.record.close_channel(&channel.record);
                    take_off(&mut self.assembling, channel.refuse_publish());
                    channel.tags.values().for_each(|consumer| self.consumers.remove(*consumer));
                    take_off(&mut self.kept, channel.kept.iter().map(Kept::cost).sum());
                }
                self.send(number, &AMQPClass::Channel(close_ok()));
            }
            (Phase::Open, answer) => {
                self.with_channel(number, now, requests, |channel, turn| channel.answer(turn, answer));
                self.replay(number, now, requests);
            }
            (Phase::Ending | Phase::Closing, _) => {}
        }
    }

    fn on_consumer_cancelled(&mut self, cancelled: ConsumerId, tag: &ConsumerTag) {
        let number = cancelled.channel;
        let Some(channel) = self.channels.get_mut(&number).filter(|channel| channel.phase == Phase::Open) else {
            return;
        };
        // The tag may be another consumer's by now, on a channel opened again under the number.
        if channel.tags.get(tag) == Some(&cancelled) {
            channel.tags.remove(tag);
            channel.count_consumers();
            self.consumers.remove(cancelled);
            if self.client.consumer_cancel_notify {
                let cancel = basic::Cancel { consumer_tag: tag.as_str().into(), nowait: true };
                self.send(number, &AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
            }
        }
    }

    fn on_login_event(&mut self, event: &Event, now: Timestamp, requests: &mut Vec<Request>) {
        match (self.state, event) {
            (State::LoggingIn, Event::LoggedIn) => {
                let tune = start::tune(&self.settings);
                self.send(0, &tune);
                self.state = State::Tuning;
            }
            (State::LoggingIn, Event::LoginRefused) => {
                let text = format!(
                    "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                    self.mechanism
                );
                if self.client.authentication_failure_close {
                    self.fail(Exception::access_refused(text), (0, 0), now, requests);
                    self.deadline = Some(now.plus(SILENCE_MS));
                } else {
                    self.close_silently("login refused".into(), now);
                }
            }
            (State::OpeningVhost, Event::VhostOpened) => {
                let open_ok = connection::AMQPMethod::OpenOk(connection::OpenOk {});
                self.send(0, &AMQPClass::Connection(open_ok));
                self.state = State::Running;
                self.record.facts.lock().state = ConnectionState::Running;
                self.deadline = None;
            }
            (State::Running, Event::SecretUpdated) => {
                let reply = connection::AMQPMethod::UpdateSecretOk(connection::UpdateSecretOk {});
                self.send(0, &AMQPClass::Connection(reply));
                self.check_consumers(requests);
            }
            _ => return,
        }
        let held = mem::take(&mut self.held);
        if !held.is_empty() {
            let rest = self.receive(&held, now, requests);
            self.keep_input(rest);
        }
    }

    /// Whether the user may read from a queue is asked anew for every consumer.
    fn check_consumers(&self, requests: &mut Vec<Request>) {
        let requests_of = |Consumer { id, tag, queue, .. }: &Consumer| Request::CheckConsumer {
            consumer: *id,
            tag: tag.clone(),
            queue: queue.clone(),
        };
        requests.extend(self.consumers.all().map(requests_of));
    }

    fn on_closed(&mut self, now: Timestamp) {
        if self.state == State::Ending {
            self.send(0, &connection_close_ok());
            self.state = State::Ended;
            self.deadline = Some(now.plus(SILENCE_MS));
        }
    }

    /// Whether the connection has said its last word: the driver may close its side once all is written.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn block(&mut self) {
        self.blocked = true;
        self.record.facts.lock().state = ConnectionState::Blocked;
        if self.client.connection_blocked
            && let Some(reason) = self.alarm
        {
            let blocked = connection::AMQPMethod::Blocked(connection::Blocked { reason: reason.into() });
            self.send(0, &AMQPClass::Connection(blocked));
        }
    }

    fn unblock(&mut self, now: Timestamp, requests: &mut Vec<Request>) {
        self.alarm = None;
        if mem::take(&mut self.blocked) {
            self.record.facts.lock().state = ConnectionState::Running;
            if self.client.connection_blocked {
                let unblocked = connection::AMQPMethod::Unblocked(connection::Unblocked {});
                self.send(0, &AMQPClass::Connection(unblocked));
            }
            self.replay_held_back(now, requests);
        }
    }

    /// The socket took so many bytes of the output.
    pub fn note_written(&mut self, bytes: usize) {
        self.heartbeats.note_written(bytes);
    }

    /// The socket is not read for now: what the client says is not heard. Unless that is because the client does not read,
    /// it is not held against it.
    pub fn note_deaf(&mut self) {
        if self.output.len() < OUTPUT_MAX {
            self.heartbeats.note_deaf();
        }
    }

    /// When `tick` must be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let beat = if self.beats() { self.heartbeats.next() } else { None };
        self.deadline.into_iter().chain(beat).min()
    }

    fn beats(&self) -> bool {
        matches!(self.state, State::Running | State::Opening)
    }

    /// Time has passed: sends heartbeats, gives up on peers that are silent, ends waits.
    pub fn tick(&mut self, now: Timestamp) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            if !matches!(self.state, State::Ended | State::Silent | State::Closing) {
                self.reason = Some("handshake_timeout".into());
            }
            self.state = State::Closed;
            return;
        }
        if !self.beats() {
            return;
        }
        if self.heartbeats.is_due(now, self.output.len()) {
            self.output.append(|out| out.extend_from_slice(&HEARTBEAT_FRAME));
        }
        if self.blocked || !self.held.is_empty() {
            self.heartbeats.note_deaf();
        }
        if self.heartbeats.is_silent(now, self.output.len() >= OUTPUT_MAX) {
            let seconds = self.tuned.heartbeat_ms / 1000;
            self.reason = Some(format!("missed heartbeats from client, timeout: {seconds}s"));
            self.state = State::Closed;
        }
    }

    fn send(&mut self, channel: u16, class: &AMQPClass) {
        self.output.append(|out| method::encode(out, channel, class));
    }
}

/// The mechanisms for this connection: EXTERNAL only where there is something that it could log in with.
fn offered<'a>(settings: &'a AmqpSettings, external: Option<&Result<UserName, String>>) -> Vec<&'a str> {
    let names = settings.mechanisms.iter().map(String::as_str);
    names.filter(|name| *name != "EXTERNAL" || external.is_some()).collect()
}

fn close_ok() -> channel_class::AMQPMethod {
    channel_class::AMQPMethod::CloseOk(channel_class::CloseOk {})
}

fn connection_close_ok() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
}
