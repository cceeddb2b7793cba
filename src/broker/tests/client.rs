//! A connection's front end as the oracle sees it: what it asked, what it holds, what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Broker, Outbox, Session};
use super::{NOW, PEER};
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, MessageIndex, QueueId};
use crate::model::message::{Body, Envelope, Message, Properties};
use crate::model::request::{Answer, Ask, Delivery, Event, Mechanism, PublishRequest, Request};

pub(super) const PUBLISH_CREDIT: u64 = 100_000;
pub(super) const DELIVERY_CREDIT: u64 = 1500;

/// A message's number, which is its body.
pub(super) type Number = u64;

/// What all clients together know.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) last_number: Number,
    /// The queues each message was routed to.
    pub(super) expected: BTreeMap<Number, Vec<QueueId>>,
    pub(super) confirmed: BTreeSet<Number>,
    /// Acknowledged, rejected, or delivered without acknowledgement.
    pub(super) finished: BTreeSet<(QueueId, Number)>,
    held: BTreeSet<(QueueId, Number)>,
    seen: BTreeSet<(QueueId, Number)>,
    /// The place in the queue of each message, by publishing channel.
    places: BTreeMap<(QueueId, ChannelRef), BTreeMap<MessageIndex, Number>>,
    publishers: BTreeMap<Number, ChannelRef>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Confirm,
    Transaction,
}

#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) queue: QueueId,
    pub(super) consumer: ConsumerId,
    pub(super) index: MessageIndex,
    pub(super) number: Number,
}

pub(super) struct Channel {
    pub(super) reference: ChannelRef,
    pub(super) mode: Mode,
    /// What it asked and was not answered.
    pub(super) asked: Option<Ask>,
    pub(super) closing: bool,
    pub(super) unacked: Vec<Held>,
    /// Whether they acknowledge by themselves, and the last index each got that was not redelivered.
    pub(super) consumers: BTreeMap<ConsumerId, (bool, MessageIndex)>,
    next_sequence: u64,
    /// Verdicts owed, whether one was a rejection, and which message it is.
    pub(super) owed: BTreeMap<u64, (u32, bool, Number)>,
    /// Publishes of the open transaction.
    pub(super) open: Vec<u64>,
    pub(super) returned: BTreeSet<Number>,
    pub(super) must_return: BTreeSet<Number>,
}

pub(super) struct Client {
    pub(super) id: ConnectionId,
    pub(super) session: Session,
    pub(super) outbox: Arc<Outbox>,
    pub(super) requests: Vec<Request>,
    pub(super) channels: BTreeMap<u16, Channel>,
    closed: BTreeSet<u32>,
    last_serial: u32,
    pub(super) delivered: usize,
    pub(super) gone: bool,
}

impl Client {
    pub(super) fn new(broker: &Arc<Broker>) -> Self {
        let id = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(PUBLISH_CREDIT, DELIVERY_CREDIT));
        let mut session = Session::new(broker, &outbox, id, PEER, id.0);
        let mechanism = Mechanism::Password { user: "guest".into(), password: b"guest".to_vec(), mechanism: "PLAIN" };
        let mut events = Vec::new();
        session.submit(&mut vec![Request::Login { mechanism }, Request::OpenVhost("/".into())], &mut events, NOW);
        assert!(matches!(events[..], [Event::LoggedIn, Event::VhostOpened]), "{events:?}");
        Self {
            id,
            session,
            outbox,
            requests: Vec::new(),
            channels: BTreeMap::new(),
            closed: BTreeSet::new(),
            last_serial: 0,
            delivered: 0,
            gone: false,
        }
    }

    pub(super) fn next_serial(&mut self) -> u32 {
        self.last_serial += 1;
        self.last_serial
    }

    pub(super) fn open(&mut self, number: u16, mode: Mode) {
        let reference = ChannelRef { connection: self.id, serial: self.next_serial(), number };
        self.requests.push(Request::OpenChannel(reference));
        let channel = Channel {
            reference,
            mode,
            asked: None,
            closing: false,
            unacked: Vec::new(),
            consumers: BTreeMap::new(),
            next_sequence: 1,
            owed: BTreeMap::new(),
            open: Vec::new(),
            returned: BTreeSet::new(),
            must_return: BTreeSet::new(),
        };
        self.channels.insert(number, channel);
    }

    pub(super) fn ask(&mut self, number: u16, ask: Ask) {
        let channel = self.channels.get_mut(&number).unwrap();
        channel.asked = Some(ask.clone());
        self.requests.push(Request::Ask { channel: channel.reference, ask });
    }

    pub(super) fn publish(
        &mut self,
        number: u16,
        (exchange, key): (&str, &str),
        mandatory: bool,
        expected: Vec<QueueId>,
        oracle: &mut Oracle,
    ) {
        let channel = self.channels.get_mut(&number).unwrap();
        oracle.last_number += 1;
        let body = oracle.last_number;
        let transactional = channel.mode == Mode::Transaction;
        let sequence = (channel.mode != Mode::Plain).then(|| {
            let sequence = channel.next_sequence;
            channel.next_sequence += 1;
            channel.owed.insert(sequence, (1, false, body));
            sequence
        });
        if transactional {
            channel.open.extend(sequence);
        } else if mandatory && expected.is_empty() {
            channel.must_return.insert(body);
        }
        oracle.expected.insert(body, expected);
        oracle.publishers.insert(body, channel.reference);
        let properties = Properties::parse(&[0, 0]).unwrap();
        let envelope = Envelope { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
        let message = Message::new(&mut Vec::new(), envelope, &properties, &body.to_be_bytes());
        let request = PublishRequest { channel: channel.reference, message, mandatory, sequence, transactional };
        self.requests.push(Request::Publish(request));
    }

    /// Ends the channel, from either side.
    pub(super) fn close(&mut self, number: u16, oracle: &mut Oracle) {
        let channel = self.channels.get_mut(&number).unwrap();
        channel.closing = true;
        channel.asked = None;
        forget(channel, oracle);
        self.requests.push(Request::CloseChannel(channel.reference));
    }

    /// The socket is gone.
    pub(super) fn abandon(&mut self, oracle: &mut Oracle) {
        self.channels.values_mut().for_each(|channel| forget(channel, oracle));
        self.session.abandon(NOW);
        self.gone = true;
        self.lose(oracle);
    }

    /// Takes note of deliveries without acknowledgement that reach nobody.
    pub(super) fn lose(&mut self, oracle: &mut Oracle) {
        let mut events = Vec::new();
        self.outbox.take(&mut events);
        for event in events {
            match event {
                Event::Deliver { queue, delivery } => {
                    let channel = self.channels.get(&delivery.consumer.channel);
                    if channel.is_some_and(|channel| channel.consumers.get(&delivery.consumer).is_some_and(|c| c.0)) {
                        oracle.finished.insert((queue, number_of(&delivery.message)));
                    }
                }
                Event::Answer { channel, answer: Answer::Got { queue, message, .. } } => {
                    let asked = self.channels.get(&channel.number).and_then(|channel| channel.asked.as_ref());
                    if matches!(asked, Some(Ask::Get { no_ack: true, .. })) {
                        oracle.finished.insert((queue, number_of(&message)));
                    }
                }
                _ => {}
            }
        }
    }

    /// Handles requests and events as a connection's driver does. Whether there were any.
    pub(super) fn work(&mut self, oracle: &mut Oracle) -> bool {
        let (mut events, mut immediate, mut any) = (Vec::new(), Vec::new(), false);
        if self.gone {
            return false;
        }
        self.outbox.take(&mut events);
        loop {
            any |= !self.requests.is_empty() || !events.is_empty();
            self.session.submit(&mut self.requests, &mut immediate, NOW);
            immediate.drain(..).for_each(|event| self.handle(event, oracle));
            for event in events.drain(..) {
                match event {
                    Event::Internal(internal) => self.session.internal(&internal, &mut immediate, NOW),
                    event => self.handle(event, oracle),
                }
            }
            if self.requests.is_empty() && immediate.is_empty() {
                return any;
            }
        }
    }

    fn handle(&mut self, event: Event, oracle: &mut Oracle) {
        match event {
            Event::Deliver { queue, delivery } => self.on_deliver(queue, &delivery, oracle),
            Event::Confirm { channel, first, last, confirmed } => {
                for sequence in first..=last {
                    self.verdict(channel, sequence, confirmed, oracle);
                }
            }
            Event::Routed { channel, sequence, verdicts } => {
                let channel = self.channel(channel);
                let owed = channel.owed.get_mut(&sequence).expect("routed once, before any verdict");
                assert_eq!(owed.0, 1);
                owed.0 = verdicts;
                if verdicts == 0 {
                    let (.., number) = channel.owed.remove(&sequence).unwrap();
                    assert!(oracle.expected[&number].is_empty());
                }
            }
            Event::Return { channel, message } => {
                let number = number_of(&message);
                assert!(oracle.expected[&number].is_empty(), "a routable message is returned");
                assert!(self.channel(channel).returned.insert(number), "returned twice");
            }
            Event::Answer { channel, answer } => self.on_answer(channel, answer, oracle),
            Event::Exception { channel: Some(channel), .. } => {
                if !self.channel(channel).closing {
                    self.close(channel.number, oracle);
                }
            }
            Event::ConsumerCancelled { consumer, .. } => {
                assert!(!self.closed.contains(&consumer.serial), "an event of a channel that is closed");
                self.channels.get_mut(&consumer.channel).unwrap().consumers.remove(&consumer);
            }
            other => panic!("{other:?}"),
        }
    }

    /// The channel an event names; it must not be closed.
    fn channel(&mut self, reference: ChannelRef) -> &mut Channel {
        assert!(!self.closed.contains(&reference.serial), "an event of a channel that is closed");
        let channel = self.channels.get_mut(&reference.number).unwrap();
        assert_eq!(channel.reference, reference);
        channel
    }

    fn verdict(&mut self, channel: ChannelRef, sequence: u64, confirmed: bool, oracle: &mut Oracle) {
        assert!(confirmed, "no queue has a limit");
        let channel = self.channel(channel);
        let owed = channel.owed.get_mut(&sequence).unwrap_or_else(|| panic!("{sequence} has its verdicts"));
        owed.0 -= 1;
        if owed.0 == 0 {
            oracle.confirmed.insert(owed.2);
            channel.owed.remove(&sequence);
        }
    }

    fn on_answer(&mut self, reference: ChannelRef, answer: Answer, oracle: &mut Oracle) {
        let channel = self.channel(reference);
        if matches!(answer, Answer::ChannelClosed) {
            assert!(channel.closing);
            let channel = self.channels.remove(&reference.number).unwrap();
            self.closed.insert(reference.serial);
            self.closed.extend(channel.consumers.keys().map(|consumer| consumer.serial));
            return;
        }
        if channel.closing {
            return;
        }
        match (channel.asked.take().expect("an answer to something"), answer) {
            (Ask::Get { no_ack, holder, .. }, Answer::Got { queue, index, redelivered, message, .. }) => {
                self.delivered += message.cost();
                let held = Held { queue, consumer: holder, index, number: number_of(&message) };
                oracle.delivered(held, redelivered, no_ack);
                if !no_ack {
                    self.channel(reference).unacked.push(held);
                }
            }
            (Ask::Cancel { consumer, .. }, _) => _ = channel.consumers.remove(&consumer),
            _ => {}
        }
    }

    fn on_deliver(&mut self, queue: QueueId, delivery: &Delivery, oracle: &mut Oracle) {
        let Delivery { consumer, index, redelivered, message, .. } = delivery;
        self.delivered += message.cost();
        assert!(!self.closed.contains(&consumer.serial), "a delivery on a channel that is closed");
        let channel = self.channels.get_mut(&consumer.channel).unwrap();
        let (no_ack, last) = channel.consumers.get_mut(consumer).expect("a delivery to a consumer that exists");
        let held = Held { queue, consumer: *consumer, index: *index, number: number_of(message) };
        if channel.closing {
            if *no_ack {
                oracle.finished.insert((queue, held.number));
            }
            return;
        }
        if !redelivered {
            assert!(*last < *index, "deliveries to a consumer are in order");
            *last = *index;
        }
        oracle.delivered(held, *redelivered, *no_ack);
        if !*no_ack {
            channel.unacked.push(held);
        }
    }
}

impl Oracle {
    fn delivered(&mut self, held: Held, redelivered: bool, no_ack: bool) {
        let Held { queue, index, number, .. } = held;
        let key = (queue, number);
        assert!(self.expected[&number].contains(&queue), "message {number} was not routed to {queue:?}");
        assert!(!self.finished.contains(&key), "message {number} is delivered after it was settled");
        assert!(!self.held.contains(&key), "message {number} is delivered while somebody holds it");
        assert!(self.seen.insert(key) || redelivered, "message {number} is not marked as redelivered");
        let places = self.places.entry((queue, self.publishers[&number])).or_default();
        places.insert(index, number);
        let before = places.range(..index).next_back();
        let after = places.range(index..).nth(1);
        assert!(before.is_none_or(|(_, n)| *n < number) && after.is_none_or(|(_, n)| *n > number), "publish order");
        if no_ack {
            self.finished.insert(key);
        } else {
            self.held.insert(key);
        }
    }

    /// The client settled it.
    pub(super) fn settled(&mut self, held: Held, requeued: bool) {
        let key = (held.queue, held.number);
        assert!(self.held.remove(&key));
        if !requeued {
            self.finished.insert(key);
        }
    }
}

/// The channel's client is not told anything more: what it holds goes back.
fn forget(channel: &mut Channel, oracle: &mut Oracle) {
    channel.unacked.drain(..).for_each(|held| oracle.settled(held, true));
    channel.open.clear();
}

pub(super) fn number_of(message: &Message) -> Number {
    match message.body() {
        Body::Inline(bytes) => Number::from_be_bytes(bytes.try_into().unwrap()),
        Body::Slices(_) => panic!("bodies are small"),
    }
}
