//! The clients: what they declare, publish, take and settle, at random, and what they tell the oracle of what they hear.

use std::sync::Arc;

use super::super::super::{Broker, Outbox, Session};
use super::super::PEER;
use super::node::Node;
use super::oracle::{Copy, Number, Place};
use crate::model::entity::Destination;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, QueueId, Timestamp};
use crate::model::message::{Body, Envelope, Message, Properties};
use crate::model::names::{QueueName, RoutingKey};
use crate::model::request::{
    Answer, Ask, BindingRequest, ConsumeRequest, DeclareExchange, DeclareQueue, Event, Mechanism, PublishRequest,
    Request, SettleOutcome, Settlement,
};
use crate::model::table::{FieldTable, FieldValue};

const CREDIT: u64 = 1_000_000;
/// Queues that live as long as the test.
pub(super) const QUEUES: [Place; 11] =
    ["plain", "priorities", "short", "brief", "instant", "dying", "strict", "passing", "dead1", "dead2", "end"];
/// Its deletion and declaration are part of the traffic.
pub(super) const COMES_AND_GOES: Place = "comes and goes";
/// The queues that a fanout exchange leads to.
const EVERYWHERE: [Place; 4] = ["plain", "short", "brief", "dying"];
/// The queues that the dead-letter exchange leads to.
pub(super) const LETTERS: [Place; 3] = ["dead1", "dead2", "passing"];
/// The queue that the letters' letters come to.
pub(super) const CHAIN: [Place; 1] = ["end"];

/// What a client asked and was not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Something,
    Get,
    Declare,
    Delete,
    /// The last message there was.
    Purge(Number),
}

/// A client.
pub(super) struct Peer {
    id: ConnectionId,
    session: Session,
    outbox: Arc<Outbox>,
    publishing: ChannelRef,
    consuming: ChannelRef,
    next_sequence: u64,
    asked: Option<Asked>,
    held: Vec<(QueueId, ConsumerId, MessageIndex, Copy, Place)>,
}

impl Peer {
    pub(super) fn new(broker: &Arc<Broker>, now: Timestamp) -> Self {
        let id = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(CREDIT, CREDIT));
        let mut session = Session::new(broker, &outbox, id, PEER, id.0);
        let mechanism = Mechanism::Password { user: "guest".into(), password: b"guest".to_vec(), mechanism: "PLAIN" };
        let publishing = ChannelRef { connection: id, serial: 1, number: 1 };
        let consuming = ChannelRef { connection: id, serial: 2, number: 2 };
        let mut requests = vec![
            Request::Login { mechanism },
            Request::OpenVhost("/".into()),
            Request::OpenChannel(publishing),
            Request::OpenChannel(consuming),
        ];
        session.submit(&mut requests, &mut Vec::new(), now);
        Self { id, session, outbox, publishing, consuming, next_sequence: 1, asked: None, held: Vec::new() }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    fn next_consumer(&mut self) -> ConsumerId {
        self.next_sequence += 1;
        let serial = 10 + u32::try_from(self.next_sequence).unwrap();
        ConsumerId { connection: self.id, serial, channel: 2 }
    }

    fn getter(&self) -> ConsumerId {
        ConsumerId { connection: self.id, serial: 3, channel: 2 }
    }
}

/// What clients do.
impl Node<'_> {
    /// Declares everything, in an order that puts queues into other shards each time.
    pub(super) fn declare_everything(&mut self) {
        let mut queues = QUEUES;
        for at in (1..queues.len()).rev() {
            queues.swap(at, self.below(at + 1));
        }
        for queue in queues {
            self.ask_at_once(0, declaration(queue));
            let id = self.queue(queue).unwrap();
            self.world.oracle.names.insert(id, queue);
        }
        for (exchange, queues) in [("everywhere", &EVERYWHERE[..]), ("letters", &LETTERS)] {
            self.ask_at_once(
                0,
                Ask::DeclareExchange(DeclareExchange {
                    exchange: exchange.into(),
                    kind: "fanout".into(),
                    passive: false,
                    durable: true,
                    auto_delete: false,
                    internal: false,
                    arguments: FieldTable::default(),
                }),
            );
            for queue in queues {
                self.ask_at_once(
                    0,
                    Ask::Bind(BindingRequest {
                        source: exchange.into(),
                        destination: Destination::Queue(QueueName::new(queue)),
                        key: RoutingKey::new(b""),
                        arguments: FieldTable::default(),
                    }),
                );
            }
        }
    }

    /// A client does something.
    pub(super) fn act(&mut self, peer: usize) {
        match self.below(32) {
            0..=15 => self.publish(peer),
            16..=24 => self.settle(peer),
            _ if self.peers[peer].is_waiting() => self.settle(peer),
            25 => self.consume(peer),
            26..=28 => {
                let at = self.below(QUEUES.len());
                self.get(peer, QUEUES[at]);
            }
            29 => self.get(peer, COMES_AND_GOES),
            30 if self.below(3) == 0 => self.come_or_go(peer),
            31 if self.below(4) == 0 => {
                self.world.oracle.discard("plain");
                let last = self.world.oracle.last_number();
                self.ask(peer, Ask::PurgeQueue { queue: "plain".into() }, Asked::Purge(last));
            }
            31 if self.below(4) == 0 => self.leave(peer),
            _ => self.settle(peer),
        }
    }

    /// The queue that comes and goes is there, and a client has some of what is in it, and a consumer on it.
    pub(super) fn come_with_messages(&mut self, peer: usize) {
        self.ask(peer, declaration(COMES_AND_GOES), Asked::Declare);
        self.rest();
        for _ in 0..3 {
            self.publish_to(peer, ("", COMES_AND_GOES), &[COMES_AND_GOES]);
            self.rest();
            self.get(peer, COMES_AND_GOES);
            self.rest();
        }
        self.publish_to(peer, ("", COMES_AND_GOES), &[COMES_AND_GOES]);
        self.rest();
    }

    /// A client rejects what it has, and at once wants the queue that comes and goes to be deleted.
    pub(super) fn reject_and_delete(&mut self, peer: usize) {
        for (queue, consumer, index, copy, place) in std::mem::take(&mut self.peers[peer].held) {
            self.world.oracle.rejected(copy, place);
            let outcome = SettleOutcome::Reject;
            let settlement = Settlement { queue, consumer, indexes: vec![index], outcome };
            self.submit(peer, vec![Request::Settle(settlement)]);
        }
        self.delete(peer);
    }

    /// A client goes, and another one comes.
    fn leave(&mut self, peer: usize) {
        self.world.oracle.has_anybody_left = true;
        let new = Peer::new(self.broker, self.now());
        let mut gone = std::mem::replace(&mut self.peers[peer], new);
        // What it was told and has not heard counts as not delivered.
        for (.., copy, place) in gone.held.drain(..) {
            self.world.oracle.requeued(copy, place);
        }
        if matches!(gone.asked, Some(Asked::Declare | Asked::Delete)) {
            self.world.oracle.comes = None;
        }
        let now = self.now();
        self.with_busy_shards(|_| gone.session.abandon(now));
    }

    fn publish(&mut self, peer: usize) {
        let (exchange, key, queues) = match self.below(QUEUES.len() + 4) {
            0 => ("", COMES_AND_GOES, if self.queue(COMES_AND_GOES).is_some() { &[COMES_AND_GOES][..] } else { &[] }),
            1..=3 => ("everywhere", "", &EVERYWHERE[..]),
            at => ("", QUEUES[at - 4], &QUEUES[at - 4..=at - 4]),
        };
        self.publish_to(peer, (exchange, key), queues);
    }

    /// Publishes some messages that are routed to these queues.
    fn publish_to(&mut self, peer: usize, (exchange, key): (&str, &str), queues: &[Place]) {
        let count = 1 + self.below(6);
        for _ in 0..count {
            let persistent = self.below(6) != 0;
            let size = match self.below(32) {
                0 => 5000 + self.below(60_000),
                1..=4 => self.below(3000),
                _ => self.below(50),
            };
            let priority = u8::try_from(self.below(5)).unwrap();
            let state = &mut self.peers[peer];
            let (channel, sequence) = (state.publishing, state.next_sequence);
            state.next_sequence += 1;
            let number = self.world.oracle.publish((state.id, sequence), queues, persistent);
            self.watch(number, &("published", queues, persistent, size));
            let message = message(exchange, key, number, persistent, priority, size);
            let request =
                PublishRequest { channel, message, mandatory: false, sequence: Some(sequence), transactional: false };
            self.submit(peer, vec![Request::Publish(request)]);
        }
    }

    fn settle(&mut self, peer: usize) {
        let mut requests = Vec::new();
        for _ in 0..1 + self.below(4) {
            let held = self.peers[peer].held.len();
            if held == 0 {
                break;
            }
            let at = if self.below(3) == 0 { self.below(held) } else { 0 };
            let (queue, consumer, index, copy, place) = self.peers[peer].held.remove(at);
            let outcome = match self.below(6) {
                0 => SettleOutcome::Requeue,
                1 | 2 => SettleOutcome::Reject,
                _ => SettleOutcome::Ack,
            };
            self.watch(copy.0, &(place, index, outcome));
            let oracle = &mut self.world.oracle;
            match outcome {
                SettleOutcome::Ack => oracle.acked(copy, place),
                SettleOutcome::Requeue => oracle.requeued(copy, place),
                SettleOutcome::Reject => oracle.rejected(copy, place),
            }
            requests.push(Request::Settle(Settlement { queue, consumer, indexes: vec![index], outcome }));
        }
        self.submit(peer, requests);
    }

    fn consume(&mut self, peer: usize) {
        let at = self.below(QUEUES.len() + 1);
        let queue = QUEUES.get(at).copied().unwrap_or(COMES_AND_GOES);
        if self.queue(queue).is_none() || self.is_going() {
            return;
        }
        let consumer = self.peers[peer].next_consumer();
        let prefetch = u16::try_from(1 + self.below(5)).unwrap();
        let tag = format!("{}", consumer.serial);
        let request = ConsumeRequest {
            consumer,
            queue: queue.into(),
            tag: tag.as_str().into(),
            prefetch,
            no_ack: false,
            exclusive: false,
            arguments: FieldTable::default(),
        };
        self.ask(peer, Ask::Consume(request), Asked::Something);
    }

    fn get(&mut self, peer: usize, queue: Place) {
        if self.queue(queue).is_some() && !self.is_going() {
            let holder = self.peers[peer].getter();
            self.ask(peer, Ask::Get { queue: queue.into(), no_ack: false, holder }, Asked::Get);
        }
    }

    /// Whether the queue that comes and goes is not to be asked for: it would be answered with an exception.
    fn is_going(&self) -> bool {
        self.world.oracle.is_going || self.peers.iter().any(|peer| peer.asked == Some(Asked::Delete))
    }

    fn come_or_go(&mut self, peer: usize) {
        let is_asked = |peer: &Peer| matches!(peer.asked, Some(Asked::Declare | Asked::Delete));
        if self.peers.iter().any(is_asked) {
            return;
        }
        let is_used = self.peers.iter().any(|peer| peer.asked.is_some());
        if self.queue(COMES_AND_GOES).is_none() {
            self.world.oracle.comes = None;
            self.world.oracle.is_going = false;
            self.ask(peer, declaration(COMES_AND_GOES), Asked::Declare);
        } else if !is_used {
            self.delete(peer);
        }
    }

    fn delete(&mut self, peer: usize) {
        self.world.oracle.comes = None;
        self.world.oracle.discard(COMES_AND_GOES);
        self.world.oracle.is_going = true;
        let ask = Ask::DeleteQueue { queue: COMES_AND_GOES.into(), if_unused: false, if_empty: false };
        self.ask(peer, ask, Asked::Delete);
    }

    fn ask(&mut self, peer: usize, ask: Ask, asked: Asked) {
        let channel = self.peers[peer].consuming;
        self.peers[peer].asked = Some(asked);
        self.submit(peer, vec![Request::Ask { channel, ask }]);
    }

    /// Asks and does all it takes to be answered.
    fn ask_at_once(&mut self, peer: usize, ask: Ask) {
        self.ask(peer, ask, Asked::Something);
        self.rest();
        assert!(!self.peers[peer].is_waiting(), "no answer");
    }

    fn submit(&mut self, peer: usize, mut requests: Vec<Request>) {
        let mut events = Vec::new();
        let now = self.now();
        self.with_busy_shards(|peers| peers[peer].session.submit(&mut requests, &mut events, now));
        for event in events {
            self.hear(peer, event);
        }
    }

    /// A client hears what it was told. Whether there was anything.
    pub(super) fn listen(&mut self, peer: usize) -> bool {
        let mut events = Vec::new();
        self.peers[peer].outbox.take(&mut events);
        let any = !events.is_empty();
        for event in events {
            let Event::Internal(internal) = event else {
                self.hear(peer, event);
                continue;
            };
            let mut immediate = Vec::new();
            let now = self.now();
            self.with_busy_shards(|peers| peers[peer].session.internal(&internal, &mut immediate, now));
            for event in immediate {
                self.hear(peer, event);
            }
        }
        any
    }

    fn hear(&mut self, peer: usize, event: Event) {
        let id = self.peers[peer].id;
        match event {
            Event::Confirm { first, last, confirmed, .. } => {
                (first..=last).for_each(|sequence| self.world.oracle.verdict((id, sequence), confirmed));
            }
            Event::Routed { sequence, verdicts, .. } => self.world.oracle.routed((id, sequence), verdicts),
            Event::Deliver { queue, delivery } => {
                self.delivered(peer, (queue, delivery.consumer, delivery.index), &delivery.message);
            }
            Event::Answer { answer, .. } => {
                let asked = self.peers[peer].asked.take().expect("an answer to something");
                self.answered(peer, asked, answer);
            }
            // The queue is gone with the next look; what is asked of it may be refused.
            Event::ConsumerCancelled { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn answered(&mut self, peer: usize, asked: Asked, answer: Answer) {
        match (asked, answer) {
            (Asked::Get, Answer::Got { queue, index, message, .. }) => {
                let holder = self.peers[peer].getter();
                self.delivered(peer, (queue, holder, index), &message);
            }
            (Asked::Declare, _) => self.world.oracle.comes = Some(true),
            (Asked::Delete, _) => {
                self.world.oracle.comes = Some(false);
                self.world.oracle.discard(COMES_AND_GOES);
                self.world.oracle.is_going = false;
            }
            (Asked::Purge(last), _) => self.world.oracle.purges.push(last),
            _ => {}
        }
    }

    fn delivered(&mut self, peer: usize, held: (QueueId, ConsumerId, MessageIndex), message: &Message) {
        let place = self.world.oracle.names.get(&held.0).copied().unwrap_or(COMES_AND_GOES);
        let copy = copy_of(message, place);
        self.watch(copy.0, &("delivered", place, held.2));
        self.world.oracle.delivered(copy, place);
        self.peers[peer].held.push((held.0, held.1, held.2, copy, place));
        self.submit(peer, vec![Request::DeliveriesSent { bytes: message.cost() }]);
    }

    /// Takes out everything there is.
    pub(super) fn drain(&mut self) {
        for queue in QUEUES.into_iter().chain([COMES_AND_GOES]) {
            while self.queue(queue).is_some() {
                let before = self.peers[0].held.len();
                self.get(0, queue);
                while self.listen(0) | self.finish_steps() {}
                let Some((.., copy, place)) = self.peers[0].held.get(before).copied() else { break };
                self.world.oracle.found(copy, place);
            }
        }
    }
}

fn declaration(queue: Place) -> Ask {
    let mut arguments = FieldTable::default();
    match queue {
        "priorities" => arguments.push("x-max-priority", FieldValue::I32(3)),
        "short" | "strict" => arguments.push("x-max-length", FieldValue::I32(1)),
        "brief" => arguments.push("x-message-ttl", FieldValue::I32(20)),
        "instant" | "passing" => arguments.push("x-message-ttl", FieldValue::I32(0)),
        _ => {}
    }
    match queue {
        "passing" => {
            arguments.push("x-dead-letter-exchange", FieldValue::string(""));
            arguments.push("x-dead-letter-routing-key", FieldValue::string("end"));
        }
        "short" | "brief" | "instant" | "dying" | "strict" | COMES_AND_GOES => {
            arguments.push("x-dead-letter-exchange", FieldValue::string("letters"));
        }
        _ => {}
    }
    if queue == "strict" {
        arguments.push("x-overflow", FieldValue::string("reject-publish-dlx"));
    }
    Ask::DeclareQueue(DeclareQueue {
        queue: queue.into(),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments,
    })
}

fn message(exchange: &str, key: &str, number: Number, persistent: bool, priority: u8, size: usize) -> Message {
    let properties =
        Properties { delivery_mode: Some(1 + u8::from(persistent)), priority: Some(priority), ..Properties::default() };
    let mut raw = Vec::new();
    properties.encode(&mut raw);
    let properties = Properties::parse(&raw).unwrap();
    let envelope = Envelope { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
    let mut body = number.to_be_bytes().to_vec();
    body.resize(8 + size, u8::try_from(number % 251).unwrap());
    Message::new(&mut Vec::new(), envelope, &properties, &body)
}

/// The message's number, which its body shows, and the queue it first died in, or is in; the rest of its body must be what
/// goes with it.
fn copy_of(message: &Message, place: Place) -> Copy {
    let body = match message.body() {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::Slices(slices) => slices.concat(),
    };
    let number = Number::from_be_bytes(body[..8].try_into().unwrap());
    let filling = u8::try_from(number % 251).unwrap();
    assert!(body[8..].iter().all(|byte| *byte == filling), "the body of {number} is what was published");
    let headers = message.properties().header_table().unwrap_or_default();
    let Some(died) = headers.find("x-first-death-queue").and_then(FieldValue::as_str) else { return (number, place) };
    let known = QUEUES.into_iter().chain([COMES_AND_GOES]).find(|queue| *queue == died);
    (number, known.unwrap_or_else(|| panic!("{number} died in {died}")))
}
