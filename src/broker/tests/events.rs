//! The firehose and the event exchange: who gets copies and events, what they say, and that nobody pays who does not ask.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::super::events::{Feed, Notice, Reading};
use super::super::{Broker, Limits, Outbox, PasswordHash, Permission, Session, User};
use super::{NOW, PEER, broker};
use crate::model::entity::Destination;
use crate::model::ids::{ChannelRef, ConsumerId};
use crate::model::message::{Body, Envelope, Message, Properties};
use crate::model::names::RoutingKey;
use crate::model::request::{
    Answer, Ask, BindingRequest, ConsumeRequest, DeclareQueue, Event, Mechanism, PublishRequest, Request,
};
use crate::model::statistics::ConnectionFacts;
use crate::model::table::{FieldTable, FieldValue};
use crate::model::vhost::VhostMetadata;

const TRACE: &str = "amq.rabbitmq.trace";
const EVENT: &str = "amq.rabbitmq.event";

struct Client {
    broker: Arc<Broker>,
    session: Session,
    outbox: Arc<Outbox>,
    channel: ChannelRef,
    last_serial: u32,
}

impl Client {
    fn new(broker: &Arc<Broker>, vhost: &str) -> Self {
        let id = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(1 << 20, 1 << 20));
        let facts = ConnectionFacts { name: format!("peer {}", id.0).into(), ..ConnectionFacts::default() };
        let record = broker.registry.add(id, facts, &outbox);
        let session = Session::new(broker, &outbox, id, PEER, id.0).with_record(&record);
        let channel = ChannelRef { connection: id, serial: 1, number: 3 };
        let mut client = Self { broker: Arc::clone(broker), session, outbox, channel, last_serial: 1 };
        let mechanism = Mechanism::Password { user: "guest".into(), password: b"guest".to_vec(), mechanism: "PLAIN" };
        let told = client.run(vec![Request::Login { mechanism }, Request::OpenVhost(vhost.into())]);
        assert!(matches!(told[..], [Event::LoggedIn, Event::VhostOpened]), "{told:?}");
        client.run(vec![Request::OpenChannel(channel)]);
        client
    }

    /// Hands requests in and lets everything come to rest; what the client is told.
    fn run(&mut self, mut requests: Vec<Request>) -> Vec<Event> {
        let mut told = Vec::new();
        self.session.submit(&mut requests, &mut told, NOW);
        self.rest(&mut told);
        told
    }

    fn rest(&mut self, told: &mut Vec<Event>) {
        let mut from_shards = Vec::new();
        loop {
            while self.broker.finish_turns(NOW) || self.broker.write_log().unwrap() {
                self.broker.maintain_log().unwrap();
            }
            self.outbox.take(&mut from_shards);
            if from_shards.is_empty() {
                return;
            }
            for event in from_shards.drain(..) {
                match event {
                    Event::Internal(internal) => self.session.internal(&internal, told, NOW),
                    event => told.push(event),
                }
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> Answer {
        let told = self.run(vec![Request::Ask { channel: self.channel, ask }]);
        let mut answers = told.into_iter().filter_map(|event| match event {
            Event::Answer { answer, .. } => Some(answer),
            Event::Exception { exception, .. } => panic!("{exception:?}"),
            _ => None,
        });
        answers.next().expect("an answer")
    }

    fn declare(&mut self, queue: &str) {
        let declare = DeclareQueue {
            queue: queue.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: FieldTable::default(),
        };
        self.ask(Ask::DeclareQueue(declare));
    }

    /// A queue that gets what the exchange has for these keys.
    fn listen(&mut self, queue: &str, exchange: &str, keys: &[&str]) {
        self.declare(queue);
        for key in keys {
            self.ask(Ask::Bind(binding(queue, exchange, key)));
        }
    }

    fn publish(&mut self, exchange: &str, key: &str, properties: &Properties<'_>, body: &[u8]) {
        let mut encoded = Vec::new();
        properties.encode(&mut encoded);
        let properties = Properties { raw: &encoded, ..*properties };
        let address = Envelope { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
        let message = Message::new(&mut Vec::new(), address, &properties, body);
        let request =
            PublishRequest { channel: self.channel, message, mandatory: false, sequence: None, transactional: false };
        let told = self.run(vec![Request::Publish(request)]);
        assert!(told.iter().all(|event| matches!(event, Event::Deliver { .. })), "{told:?}");
    }

    fn consumer(&mut self) -> ConsumerId {
        self.last_serial += 1;
        let ChannelRef { connection, number, .. } = self.channel;
        ConsumerId { connection, serial: self.last_serial, channel: number }
    }

    fn get(&mut self, queue: &str) -> Option<Message> {
        let holder = self.consumer();
        match self.ask(Ask::Get { queue: queue.into(), no_ack: true, holder }) {
            Answer::Got { message, .. } => Some(message),
            Answer::Empty => None,
            other => panic!("{other:?}"),
        }
    }

    fn drain(&mut self, queue: &str) -> Vec<Message> {
        std::iter::from_fn(|| self.get(queue)).collect()
    }

    /// Keys of the messages in a queue, which is empty then.
    fn keys(&mut self, queue: &str) -> Vec<String> {
        self.drain(queue).iter().map(key_of).collect()
    }

    fn consume(&mut self, queue: &str) -> ConsumerId {
        let consumer = self.consumer();
        let request = ConsumeRequest {
            consumer,
            queue: queue.into(),
            tag: "tag".into(),
            prefetch: 7,
            no_ack: true,
            exclusive: false,
            arguments: FieldTable::default(),
        };
        self.ask(Ask::Consume(request));
        consumer
    }
}

fn binding(queue: &str, exchange: &str, key: &str) -> BindingRequest {
    BindingRequest {
        source: exchange.into(),
        destination: Destination::Queue(queue.into()),
        key: RoutingKey::new(key.as_bytes()),
        arguments: FieldTable::default(),
    }
}

fn key_of(message: &Message) -> String {
    String::from_utf8(message.routing_key().to_vec()).unwrap()
}

fn body_of(message: &Message) -> Vec<u8> {
    match message.body() {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::Slices(slices) => slices.concat(),
    }
}

fn headers(message: &Message) -> FieldTable {
    message.properties().header_table().unwrap()
}

fn text(value: &str) -> FieldValue {
    FieldValue::string(value)
}

fn shown(table: &FieldTable, names: &[&str]) -> Vec<FieldValue> {
    names.iter().map(|name| table.find(name).unwrap_or_else(|| panic!("{name} in {table:?}")).clone()).collect()
}

fn traced(shards: u16) -> (Arc<Broker>, Client) {
    let broker = broker(shards, Limits::default());
    let mut client = Client::new(&broker, "/");
    client.listen("copies", TRACE, &["publish.#", "deliver.#"]);
    client.listen("jobs", "amq.direct", &["work", "more"]);
    (broker, client)
}

#[test]
fn queues_that_nobody_reads_take_half_of_the_memory_budget() {
    let broker = broker(1, Limits::default());
    let mut client = Client::new(&broker, "/");
    client.declare("deep");
    let persistent = Properties { delivery_mode: Some(2), ..Properties::default() };
    let mut most = 0;
    for _ in 0..1_500 {
        client.publish("", "deep", &persistent, &[7; 1024]);
        most = broker.queued_bytes().max(most);
    }
    // Half of 1 MiB, and what the log has not put into segments yet: it does that file by file.
    assert!(most > 256 * 1024 && most < 768 * 1024, "{most} bytes");
}

#[test]
fn publishes_and_deliveries_are_copied_while_tracing_is_on() {
    for shards in [1, 3] {
        let (broker, mut client) = traced(shards);
        client.publish("amq.direct", "work", &Properties::default(), b"before");
        assert!(client.get("jobs").is_some() && client.drain("copies").is_empty());

        broker.set_tracing(&"/".into(), true);
        // The second one finds its route in the cache.
        for body in [b"first", b"other"] {
            client.publish("amq.direct", "work", &Properties::default(), body);
        }
        let copies = client.drain("copies");
        assert_eq!(copies.iter().map(key_of).collect::<Vec<_>>(), ["publish.amq.direct"; 2]);
        assert_eq!(copies.iter().map(body_of).collect::<Vec<_>>(), [b"first", b"other"]);
        assert!(copies.iter().all(|copy| !copy.is_persistent()));
        assert_eq!(copies[0].exchange(), TRACE.as_bytes());

        client.get("jobs").unwrap();
        client.consume("jobs");
        let copies = client.drain("copies");
        assert_eq!(copies.iter().map(key_of).collect::<Vec<_>>(), ["deliver.jobs"; 2]);
        assert_eq!(copies.iter().map(body_of).collect::<Vec<_>>(), [b"first", b"other"]);

        broker.set_tracing(&"/".into(), false);
        client.publish("amq.direct", "work", &Properties::default(), b"after");
        assert!(client.drain("copies").is_empty());
    }
}

#[test]
fn a_copy_says_where_the_message_passed() {
    let (broker, mut client) = traced(2);
    broker.set_tracing(&"/".into(), true);
    let mut own = Vec::new();
    let cc = FieldValue::Array(vec![text("more")]);
    FieldTable(vec![("CC".into(), cc.clone()), ("x".into(), FieldValue::I32(5))]).encode(&mut own);
    let properties =
        Properties { headers: own.get(4..), delivery_mode: Some(2), message_id: Some(b"m"), ..Properties::default() };
    client.publish("amq.direct", "work", &properties, b"x");
    client.get("jobs").unwrap();
    let [published, delivered] = &client.drain("copies")[..] else { panic!("two copies") };

    let both = ["exchange_name", "node", "vhost", "connection", "channel", "user"];
    let name = format!("peer {}", client.channel.connection.0);
    for copy in [published, delivered] {
        let expected = [text("amq.direct"), text("test"), text("/"), text(&name), FieldValue::I32(3), text("guest")];
        assert_eq!(shown(&headers(copy), &both), expected);
        let Some(FieldValue::Table(inner)) = headers(copy).find("properties").cloned() else { panic!("{copy:?}") };
        assert_eq!(shown(&inner, &["delivery_mode", "message_id"]), [FieldValue::I32(2), text("m")]);
        let Some(FieldValue::Table(of_publisher)) = inner.find("headers") else { panic!("{inner:?}") };
        assert_eq!(shown(of_publisher, &["CC", "x"]), [cc.clone(), FieldValue::I32(5)]);
    }
    let keys = FieldValue::Array(vec![text("work"), text("more")]);
    let queues = FieldValue::Array(vec![text("jobs")]);
    assert_eq!(shown(&headers(published), &["routing_keys", "routed_queues"]), [keys, queues]);
    assert_eq!(headers(published).find("redelivered"), None);
    assert_eq!(headers(delivered).find("redelivered"), Some(&FieldValue::I32(0)));
    assert_eq!(headers(delivered).find("routed_queues"), None);
}

#[test]
fn what_nobody_gets_is_traced_and_traces_are_not() {
    let (broker, mut client) = traced(2);
    broker.set_tracing(&"/".into(), true);
    client.publish("", "nowhere", &Properties::default(), b"x");
    let copies = client.drain("copies");
    assert_eq!(copies.iter().map(key_of).collect::<Vec<_>>(), ["publish."]);
    assert_eq!(headers(&copies[0]).find("routed_queues"), Some(&FieldValue::Array(Vec::new())));
    // To read the copies made none.
    assert!(client.drain("copies").is_empty());
    client.consume("copies");
    let mut told = Vec::new();
    client.publish("amq.direct", "nowhere", &Properties::default(), b"x");
    client.rest(&mut told);
    assert!(client.drain("copies").is_empty());
}

#[test]
fn only_the_vhost_that_asked_is_traced() {
    let (broker, mut client) = traced(2);
    broker.add_vhost(&"quiet".into(), VhostMetadata::default());
    let permission = Permission::parse(".*", ".*", ".*").unwrap();
    broker.set_permission(&"guest".into(), &"quiet".into(), Some(permission)).unwrap();
    let mut quiet = Client::new(&broker, "quiet");
    quiet.listen("copies", TRACE, &["#"]);
    broker.set_tracing(&"/".into(), true);
    quiet.publish("", "nowhere", &Properties::default(), b"x");
    assert!(quiet.drain("copies").is_empty() && client.drain("copies").is_empty());
    broker.set_tracing(&"quiet".into(), true);
    broker.delete_vhost(&"quiet".into()).unwrap();
    client.publish("", "nowhere", &Properties::default(), b"x");
    assert_eq!(client.keys("copies"), ["publish."], "the other vhost is still traced");
}

#[test]
fn a_transaction_is_traced_when_it_publishes() {
    let (broker, mut client) = traced(1);
    broker.set_tracing(&"/".into(), true);
    let address = Envelope { exchange: b"amq.direct", routing_key: b"work" };
    let message = Message::new(&mut Vec::new(), address, &Properties { raw: &[0, 0], ..Properties::default() }, b"x");
    let request =
        PublishRequest { channel: client.channel, message, mandatory: false, sequence: Some(1), transactional: true };
    client.run(vec![Request::Publish(request)]);
    assert_eq!(client.keys("copies"), ["publish.amq.direct"]);
    client.ask(Ask::Commit { settlements: Vec::new() });
    assert!(client.drain("copies").is_empty());
}

#[test]
fn events_are_messages_for_whoever_is_bound() {
    let broker = broker(2, Limits::default());
    assert!(!broker.has_listeners());
    let mut watcher = Client::new(&broker, "/");
    watcher.listen("events", EVENT, &["#"]);
    assert!(broker.has_listeners());
    watcher.drain("events");

    let mut client = Client::new(&broker, "/");
    assert_eq!(watcher.keys("events"), ["user.authentication.success", "connection.created", "channel.created"]);
    client.listen("jobs", "amq.direct", &["work"]);
    let consumer = client.consume("jobs");
    let created = watcher.drain("events");
    let keys: Vec<_> = created.iter().map(key_of).collect();
    assert_eq!(keys, ["queue.created", "binding.created", "consumer.created"]);
    assert!(created.iter().all(|event| body_of(event).is_empty() && event.is_persistent()));
    let [queue, binding, consumed] = &created[..] else { panic!("{keys:?}") };
    assert_eq!(
        shown(&headers(queue), &["name", "vhost", "type", "durable", "exclusive", "user_who_performed_action"]),
        [
            text("jobs"),
            text("/"),
            text("rabbit_classic_queue"),
            FieldValue::Bool(true),
            FieldValue::Bool(false),
            text("guest")
        ]
    );
    assert_eq!(
        shown(&headers(binding), &["source_name", "destination_name", "destination_kind", "routing_key"]),
        [text("amq.direct"), text("jobs"), text("queue"), text("work")]
    );
    assert_eq!(
        shown(&headers(consumed), &["consumer_tag", "queue", "prefetch_count", "ack_required"]),
        [text("tag"), text("jobs"), FieldValue::I64(7), FieldValue::Bool(false)]
    );
    assert!(headers(queue).find("timestamp_in_ms").is_some());

    client.ask(Ask::Cancel { consumer, tag: "tag".into() });
    client.consume("jobs");
    client.ask(Ask::DeleteQueue { queue: "jobs".into(), if_unused: false, if_empty: false });
    let deleted = watcher.drain("events");
    let keys: Vec<_> = deleted.iter().map(key_of).collect();
    assert_eq!(&keys[..2], ["consumer.deleted", "consumer.created"]);
    let mut rest = keys[2..].to_vec();
    rest.sort();
    assert_eq!(rest, ["binding.deleted", "consumer.deleted", "queue.deleted"]);
    let queue = deleted.iter().find(|event| key_of(event) == "queue.deleted").unwrap();
    assert_eq!(headers(queue).find("user_who_performed_action"), Some(&text("guest")));

    client.run(vec![Request::CloseConnection]);
    assert_eq!(watcher.keys("events"), ["channel.closed", "connection.closed"]);
}

#[test]
fn a_consumer_ends_with_its_connection() {
    let broker = broker(2, Limits::default());
    let mut watcher = Client::new(&broker, "/");
    watcher.listen("events", EVENT, &["consumer.*"]);
    let mut client = Client::new(&broker, "/");
    client.declare("jobs");
    client.consume("jobs");
    assert_eq!(watcher.keys("events"), ["consumer.created"]);
    client.session.abandon(NOW);
    assert_eq!(watcher.keys("events"), ["consumer.deleted"]);
}

#[test]
fn administration_is_told_of_with_who_did_it() {
    let broker = broker(1, Limits::default());
    let mut watcher = Client::new(&broker, "/");
    watcher.listen("events", EVENT, &["user.#", "permission.*", "topic.#", "vhost.#", "policy.*", "parameter.*"]);
    let name = || "ann".into();
    let user = |salt| User::new(name(), PasswordHash::new([salt; 4], b"secret"), vec!["management".to_owned()]);
    let mut work = pin!(super::super::events::acting_for(Some("root".into()), async {
        broker.put_user(&name(), |_| user(1));
        broker.put_user(&name(), |_| user(1));
    }));
    assert!(work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let created = watcher.drain("events");
    assert_eq!(created.iter().map(key_of).collect::<Vec<_>>(), ["user.created", "user.tags.set"]);
    assert_eq!(shown(&headers(&created[0]), &["name", "user_who_performed_action"]), [text("ann"), text("root")]);

    broker.put_user(&name(), |_| user(2));
    broker.set_permission(&name(), &"/".into(), Some(Permission::parse("a", "b", "c").unwrap())).unwrap();
    broker.set_permission(&name(), &"/".into(), None).unwrap();
    broker.delete_user(&name());
    broker.put_vhost(&"new".into(), VhostMetadata::default()).expect("no limit");
    broker.delete_vhost(&"new".into()).unwrap();
    let value = serde_json::json!({"pattern": "^q", "definition": {"max-length": 3}, "priority": 1, "apply-to": "all"});
    broker.set_parameter(Some(&"/".into()), "policy", "short", value).unwrap();
    broker.remove_parameter(Some(&"/".into()), "policy", "short");
    broker.set_parameter(None, "", "cluster_name", "rabbit".into()).unwrap();
    let told = watcher.drain("events");
    let keys: Vec<_> = told.iter().map(key_of).collect();
    let expected = [
        "user.password.changed",
        "permission.created",
        "permission.deleted",
        "user.deleted",
        "vhost.created",
        "vhost.deleted",
        "policy.set",
        "policy.cleared",
        "parameter.set",
    ];
    assert_eq!(keys, expected);
    assert_eq!(
        shown(&headers(&told[1]), &["user", "vhost", "configure", "write", "read", "user_who_performed_action"]),
        [text("ann"), text("/"), text("a"), text("b"), text("c"), text("rmq-internal")]
    );
    let definition = FieldTable(vec![("max-length".into(), FieldValue::I64(3))]);
    assert_eq!(
        shown(&headers(&told[6]), &["name", "vhost", "pattern", "definition"]),
        [text("short"), text("/"), text("^q"), FieldValue::Table(definition)]
    );
}

#[test]
fn a_vhost_goes_with_all_it_has() {
    let broker = broker(1, Limits::default());
    let mut watcher = Client::new(&broker, "/");
    watcher.listen("events", EVENT, &["vhost.deleted", "exchange.deleted", "queue.deleted"]);
    broker.put_vhost(&"new".into(), VhostMetadata::default()).expect("no limit");
    let everything = Permission::parse(".*", ".*", ".*").unwrap();
    broker.set_permission(&"guest".into(), &"new".into(), Some(everything)).unwrap();
    let mut client = Client::new(&broker, "new");
    client.declare("jobs");
    broker.delete_vhost(&"new".into()).unwrap();
    let told = watcher.drain("events");
    assert_eq!(key_of(told.first().unwrap()), "queue.deleted");
    assert_eq!(key_of(told.last().unwrap()), "vhost.deleted");
    let exchanges = told.iter().filter(|event| key_of(event) == "exchange.deleted");
    let names: Vec<_> = exchanges.map(|event| shown(&headers(event), &["name"])[0].clone()).collect();
    let expected = ["", "amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.rabbitmq.trace", "amq.topic"];
    assert_eq!(names, expected.map(text));
}

#[test]
fn nothing_is_described_for_nobody() {
    let broker = broker(1, Limits::default());
    broker.announce_with(|| panic!("nobody listens"));
    let mut client = Client::new(&broker, "/");
    client.listen("events", EVENT, &["#"]);
    assert!(broker.has_listeners());
    client.ask(Ask::Unbind(binding("events", EVENT, "#")));
    broker.announce_with(|| panic!("nobody is bound any more"));
    let feed = broker.feed();
    assert!(broker.has_listeners());
    drop(feed);
    broker.announce_with(|| panic!("nobody reads any more"));
}

#[test]
fn the_event_exchange_is_in_one_vhost_alone() {
    let broker = broker(1, Limits::default());
    broker.add_vhost(&"other".into(), VhostMetadata::default());
    let topology = broker.topology();
    let has = |vhost: &str| topology.vhost(&vhost.into()).unwrap().exchanges.contains_key(EVENT);
    assert!(has("/") && !has("other"));
}

fn read(feed: &mut Feed) -> Option<Reading> {
    match pin!(feed.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reading) => Some(reading.expect("the broker is there")),
        Poll::Pending => None,
    }
}

#[test]
fn a_reader_learns_how_much_it_missed() {
    let broker = broker(1, Limits::default());
    let mut feed = broker.feed();
    assert_eq!(read(&mut feed), None);
    broker.set_clock(|| NOW);
    broker.announce_with(|| Notice::new("alarm.set").text("name", "disk"));
    let Some(Reading::Event(notice)) = read(&mut feed) else { panic!("an event") };
    assert_eq!((notice.key, notice.fields.find("name")), ("alarm.set", Some(&text("disk"))));
    assert_eq!(notice.fields.find("timestamp_in_ms"), Some(&FieldValue::I64(1_000_000)));
    for _ in 0..1024 + 5 {
        broker.announce_with(|| Notice::new("alarm.cleared"));
    }
    assert_eq!(read(&mut feed), Some(Reading::Lagged(5)));
    let read = std::iter::from_fn(|| read(&mut feed)).count();
    assert_eq!(read, 1024);
}
