//! Sessions whose users and permissions somebody else has: requests wait, keep their order, and nothing is done twice.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::super::{
    AuthError, Authenticate, Authority, Authorize, Broker, Credentials, Eventually, Identity, Limits, Occasion, Outbox,
    Pending, Question, Session,
};
use super::{NOW, PEER, broker};
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, Timestamp};
use crate::model::message::{Envelope, Message, Properties};
use crate::model::names::{ConsumerTag, QueueName};
use crate::model::request::{Answer, Ask, DeclareQueue, Event, Mechanism, PublishRequest, Request};
use crate::model::table::FieldTable;

/// Knows everybody whose password is "right", and denies what is in `denied`.
#[derive(Default)]
struct Directory {
    asked: Mutex<Vec<Question>>,
    denied: Mutex<BTreeSet<String>>,
    /// Whether it remembers what it answered.
    known: Mutex<Option<Vec<(Question, bool)>>>,
}

#[derive(Clone)]
struct Handle(Arc<Directory>);

impl Authenticate for Handle {
    fn authenticate(
        &self,
        _: &Arc<Broker>,
        credentials: Credentials,
        _: Occasion,
    ) -> Eventually<Result<Identity, AuthError>> {
        let authority = Authority::Remote(Arc::new(self.clone()));
        let outcome = match &*credentials.secret {
            b"right" => Ok(Identity::outside(credentials.user, Vec::new(), authority, Some(NOW.plus(500)))),
            _ => Err("wrong".into()),
        };
        Box::pin(std::future::ready(outcome))
    }
}

impl Authorize for Handle {
    fn known(&self, question: &Question) -> Option<bool> {
        let known = self.0.known.lock();
        known.as_ref()?.iter().find(|(asked, _)| asked == question).map(|(_, answer)| *answer)
    }

    fn forget(&self) {
        if let Some(known) = &mut *self.0.known.lock() {
            known.clear();
        }
    }

    fn ask(&self, question: Question) -> Eventually<Option<bool>> {
        self.0.asked.lock().push(question.clone());
        let name = match &question {
            Question::Vhost { vhost, .. } => vhost.as_str(),
            Question::Resource { name, .. } => name,
            Question::Topic { key, .. } => key,
        };
        let answer = !self.0.denied.lock().contains(name);
        if let Some(known) = &mut *self.0.known.lock() {
            known.push((question, answer));
        }
        Box::pin(std::future::ready(Some(answer)))
    }

    fn lifetime_ms(&self) -> u64 {
        1000
    }
}

struct Client {
    service: Arc<Directory>,
    broker: Arc<Broker>,
    session: Session,
    outbox: Arc<Outbox>,
    channel: ChannelRef,
    now: Timestamp,
}

impl Client {
    fn new() -> Self {
        let service = Arc::new(Directory::default());
        let broker = broker(1, Limits { connections: 1, ..Limits::default() });
        broker.set_authenticator(Arc::new(Handle(Arc::clone(&service))));
        let id = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(1 << 20, 1 << 20));
        let session = Session::new(&broker, &outbox, id, PEER, 7);
        let channel = ChannelRef { connection: id, serial: 1, number: 1 };
        Self { service, broker, session, outbox, channel, now: NOW }
    }

    /// One who is logged in, and has a channel.
    fn open() -> Self {
        let mut client = Self::new();
        let events = client.run(vec![login("right")]);
        assert!(matches!(events[..], [Event::LoggedIn]), "{events:?}");
        let events = client.run(vec![Request::OpenVhost("/".into()), Request::OpenChannel(client.channel)]);
        assert!(matches!(events[..], [Event::VhostOpened]), "{events:?}");
        client
    }

    /// Hands requests in, without waiting for anything.
    fn submit(&mut self, mut requests: Vec<Request>) -> Vec<Event> {
        let mut events = Vec::new();
        self.session.submit(&mut requests, &mut events, self.now);
        events
    }

    /// The answer to what the session waits for, if it does.
    fn resume(&mut self) -> Option<Vec<Event>> {
        let verdict = match self.session.take_pending()? {
            Pending::Answer(mut answer) => {
                let Poll::Ready(verdict) = Pin::new(&mut answer).poll(&mut Context::from_waker(Waker::noop())) else {
                    panic!("the service answers at once");
                };
                verdict
            }
            Pending::Pause { ms, then } => {
                self.now = self.now.plus(ms);
                then
            }
        };
        let mut events = Vec::new();
        self.session.resume(verdict, &mut events, self.now);
        Some(events)
    }

    /// Hands requests in and waits until all are handled.
    fn run(&mut self, requests: Vec<Request>) -> Vec<Event> {
        let mut events = self.submit(requests);
        while let Some(more) = self.resume() {
            events.extend(more);
        }
        assert!(!self.session.is_waiting());
        let mut told = Vec::new();
        self.outbox.take(&mut told);
        events.extend(told);
        events
    }

    fn declare(&self, queue: &str) -> Request {
        let declare = DeclareQueue {
            queue: queue.into(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            arguments: FieldTable::default(),
        };
        Request::Ask { channel: self.channel, ask: Ask::DeclareQueue(declare) }
    }

    fn publish(&self, exchange: &str, key: &str, sequence: u64) -> Request {
        let address = Envelope { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
        let message = Message::new(&mut Vec::new(), address, &Properties::default(), b"x");
        let (channel, sequence) = (self.channel, Some(sequence));
        Request::Publish(PublishRequest { channel, message, mandatory: true, sequence, transactional: false })
    }

    /// Names of the resources that were asked about.
    fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.service.asked.lock());
        let names = asked.into_iter().filter_map(|question| match question {
            Question::Resource { name, .. } => Some(name.into()),
            Question::Topic { key, .. } => Some(format!("#{key}")),
            Question::Vhost { .. } => None,
        });
        names.collect()
    }
}

fn login(password: &str) -> Request {
    let password = password.as_bytes().to_vec();
    Request::Login { mechanism: Mechanism::Password { user: "ann".into(), password, mechanism: "PLAIN" } }
}

#[test]
fn a_login_waits_for_the_answer() {
    let mut client = Client::new();
    assert!(client.submit(vec![login("right")]).is_empty() && client.session.is_waiting());
    assert!(matches!(client.resume().as_deref(), Some([Event::LoggedIn])));
    assert_eq!(
        (client.session.user().map(|user| user.as_str()), client.session.expires()),
        (Some("ann"), Some(NOW.plus(500)))
    );
    // The limit is one connection: to ask again does not count again.
    let events = client.run(vec![Request::OpenVhost("/".into())]);
    assert!(matches!(events[..], [Event::VhostOpened]), "{events:?}");
    client.session.expire();
    assert_eq!(client.session.expires(), None);
}

#[test]
fn a_vhost_that_is_denied_is_refused() {
    let mut client = Client::new();
    client.service.denied.lock().insert("/".into());
    client.run(vec![login("right")]);
    let events = client.run(vec![Request::OpenVhost("/".into())]);
    let [Event::Exception { channel: None, exception }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(exception.text, "access to vhost '/' refused for user 'ann'");
}

#[test]
fn who_fails_often_is_answered_slowly() {
    let mut client = Client::new();
    for _ in 0..7 {
        let events = client.run(vec![login("wrong")]);
        assert!(matches!(events[..], [Event::LoginRefused]), "{events:?}");
    }
    assert_eq!(client.now, NOW.plus(1000 + 2000));
    let attempts = client.broker.login_attempts.by_source();
    assert_eq!((attempts.len(), attempts[0].failed, attempts[0].succeeded), (1, 7, 0));
}

#[test]
fn requests_keep_their_order_and_happen_once() {
    for remembers in [false, true] {
        let mut client = Client::open();
        *client.service.known.lock() = remembers.then(Vec::new);
        let requests =
            vec![client.declare("q"), client.publish("", "q", 1), client.publish("", "q", 2), client.declare("r")];
        assert!(client.submit(requests).is_empty());
        // While it waits, nothing overtakes.
        assert!(client.submit(vec![client.publish("", "r", 3)]).is_empty());
        let events = client.run(Vec::new());
        let names: VecDeque<String> = events
            .iter()
            .map(|event| match event {
                Event::Answer { answer: Answer::QueueDeclared { queue, ready, .. }, .. } => format!("{queue} {ready}"),
                Event::Confirm { first, last, .. } => format!("confirm {first} {last}"),
                event => panic!("{event:?}"),
            })
            .collect();
        assert!(names.iter().filter(|name| name.starts_with("confirm")).count() >= 1, "{names:?}");
        let answered: Vec<_> = names.iter().filter(|name| !name.starts_with("confirm")).collect();
        assert_eq!(answered, ["q 0", "r 0"]);
        assert_eq!(client.asked()[..2], ["q", "amq.default"]);
        let again = client.run(vec![client.declare("q")]);
        let ready = again.iter().find_map(|event| match event {
            Event::Answer { answer: Answer::QueueDeclared { ready, .. }, .. } => Some(*ready),
            _ => None,
        });
        assert_eq!(ready, Some(2), "{again:?}");
    }
}

#[test]
fn a_generated_name_is_asked_for_once() {
    let mut client = Client::open();
    let events = client.run(vec![client.declare("")]);
    let [Event::Answer { answer: Answer::QueueDeclared { queue, .. }, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(client.asked(), [queue.as_str()]);
}

#[test]
fn a_denial_fails_the_channel_and_what_follows_is_dropped() {
    let mut client = Client::open();
    client.service.denied.lock().insert("bad".into());
    let events = client.run(vec![client.declare("bad"), client.declare("good")]);
    let [Event::Exception { channel: Some(_), exception }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(exception.text, "configure access to queue 'bad' in vhost '/' refused for user 'ann'");
    assert_eq!(client.asked(), ["bad"]);
}

#[test]
fn keys_of_topic_exchanges_are_asked_for() {
    let mut client = Client::open();
    client.service.denied.lock().insert("b".into());
    let events = client.run(vec![client.publish("amq.topic", "a", 1), client.publish("amq.topic", "b", 2)]);
    assert!(
        matches!(events[..], [Event::Return { .. }, Event::Routed { .. }, Event::PublishRefused { .. }]),
        "{events:?}"
    );
    assert_eq!(client.asked(), ["amq.topic", "#a", "amq.topic", "#b"]);
}

#[test]
fn an_allowed_route_is_asked_for_again_after_a_while() {
    let mut client = Client::open();
    client.run(vec![client.declare("q"), client.publish("", "q", 1)]);
    client.asked();
    client.run(vec![client.publish("", "q", 2)]);
    assert!(client.asked().is_empty());
    client.now = client.now.plus(1000);
    client.run(vec![client.publish("", "q", 3)]);
    assert_eq!(client.asked(), ["amq.default"]);
}

#[test]
fn any_new_secret_has_the_service_asked_anew() {
    let mut client = Client::open();
    let consumer = ConsumerId { connection: ConnectionId(0), serial: 0, channel: 0 };
    let check =
        |queue: &str| Request::CheckConsumer { consumer, tag: ConsumerTag::new("t"), queue: QueueName::new(queue) };
    *client.service.known.lock() = Some(Vec::new());
    client.run(vec![check("q")]);
    client.asked();
    client.run(vec![check("q")]);
    assert!(client.asked().is_empty(), "it is remembered");
    for secret in ["right", "another"] {
        let events = client.run(vec![Request::UpdateSecret(secret.into()), check("q")]);
        assert!(matches!(events[..], [Event::SecretUpdated]), "{events:?}");
        assert_eq!(client.asked(), ["q"]);
    }
    client.service.denied.lock().insert("/".into());
    let events = client.run(vec![Request::UpdateSecret(b"right".to_vec())]);
    let [Event::Exception { channel: None, exception }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(exception.text, "access to vhost '/' refused for user 'ann'");
}

#[test]
fn a_connection_that_ends_while_it_waits_does_nothing_more() {
    let mut client = Client::open();
    client.submit(vec![client.declare("q")]);
    client.session.abandon(client.now);
    assert!(client.session.take_pending().is_none());
    assert!(client.submit(vec![client.declare("q")]).is_empty());
}
