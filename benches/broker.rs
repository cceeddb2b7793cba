//! Nanoseconds per message from a client's bytes to a client's bytes, without sockets and tasks: protocol, session, shard,
//! queue, outbox, protocol. `cargo bench --bench broker`; with `-- --test` every case runs once.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use warren::broker::{Broker, BrokerSettings, Limits, Outbox, PasswordHash, Permission, Session, User, VhostDefaults};
use warren::log::memory::MemoryDisk;
use warren::log::{Keeping, Options, SyncMode};
use warren::model::entity::QueueType;
use warren::model::ids::Timestamp;
use warren::model::names::{UserName, VhostName};
use warren::model::request::{Event, Request};
use warren::model::vhost::VhostMetadata;
use warren::protocol::amqp091::Connection;

const NOW: Timestamp = Timestamp(1_000_000);
const BATCH: usize = 500;
/// Bytes; more than a batch needs.
const CREDIT: u64 = 1 << 40;

fn main() {
    for size in [16, 1024, 16 * 1024] {
        publish_and_deliver(size, false);
    }
    publish_and_deliver(16, true);
    publish_and_deliver(1024, true);
    between_connections(16);
}

/// One connection publishes to the queue it consumes from.
fn publish_and_deliver(size: usize, confirms: bool) {
    let broker = broker();
    let mut client = Client::connect(&broker);
    client.say(&support::declare_queue());
    client.say(&support::consume());
    if confirms {
        client.say(&support::select_confirms());
    }
    let bytes = support::publishes(BATCH, size);
    let name = if confirms { "with confirms" } else { "without confirms" };
    support::measure(&format!("{size} B published and delivered, {name}"), BATCH, || {
        let written = client.say(&bytes);
        assert!(written > BATCH * size, "every message is delivered");
    });
}

/// One connection publishes, another consumes.
fn between_connections(size: usize) {
    let broker = broker();
    let (mut publisher, mut consumer) = (Client::connect(&broker), Client::connect(&broker));
    consumer.say(&support::declare_queue());
    consumer.say(&support::consume());
    let bytes = support::publishes(BATCH, size);
    support::measure(&format!("{size} B from one connection to another"), BATCH, || {
        publisher.say(&bytes);
        let written = consumer.say(&[]);
        assert!(written > BATCH * size, "every message is delivered");
    });
}

fn broker() -> Arc<Broker> {
    let settings = BrokerSettings {
        shards: 1,
        default_queue_type: QueueType::Classic,
        consumer_timeout_ms: None,
        expire_at_head_only: false,
        transient_nonexclusive_queues: true,
        node_name: "bench".to_owned(),
        anonymous_user: None,
        loopback_users: Vec::new(),
        memory_budget: 64 << 20,
        limits: Limits::default(),
        vhost_defaults: VhostDefaults::default(),
    };
    let options =
        Options { sync: SyncMode::Always, wal_file_bytes: 1 << 20, segment_bytes: 1 << 20, keeping: Keeping::USUAL };
    let broker =
        Broker::open(settings, Arc::new(MemoryDisk::default()), options, NOW).expect("an empty disk can be opened");
    let vhost = VhostName::new("/");
    broker.add_vhost(&vhost, VhostMetadata::default());
    let everything = Permission::parse(".*", ".*", ".*").expect("the patterns are valid");
    let user = User {
        permissions: BTreeMap::from([(vhost, everything)]),
        ..User::new(UserName::new("guest"), PasswordHash::new([0; 4], b"guest"), Vec::new())
    };
    broker.add_user(user).expect("the vhost is there");
    broker
}

/// A connection as the server drives it, with bytes in place of a socket.
struct Client {
    connection: Connection,
    session: Session,
    outbox: Arc<Outbox>,
    requests: Vec<Request>,
    events: Vec<Event>,
    immediate: Vec<Event>,
}

impl Client {
    fn connect(broker: &Arc<Broker>) -> Self {
        let id = broker.new_connection_id();
        let outbox = Arc::new(Outbox::new(CREDIT, CREDIT));
        let mut client = Self {
            connection: Connection::new(Arc::new(support::settings()), id, 1, NOW),
            session: Session::new(broker, &outbox, id, IpAddr::V4(Ipv4Addr::LOCALHOST), 2),
            outbox,
            requests: Vec::new(),
            events: Vec::new(),
            immediate: Vec::new(),
        };
        client.say(&support::handshake());
        client
    }

    /// Sends bytes, lets the broker work until it has nothing more to do; the number of bytes it answered.
    fn say(&mut self, bytes: &[u8]) -> usize {
        self.connection.receive(bytes, NOW, &mut self.requests);
        let mut written = 0;
        loop {
            self.session.submit(&mut self.requests, &mut self.immediate, NOW);
            self.outbox.take(&mut self.events);
            let idle = self.events.is_empty() && self.immediate.is_empty();
            for event in self.immediate.drain(..) {
                self.connection.handle(event, NOW, &mut self.requests);
            }
            for event in self.events.drain(..) {
                match event {
                    Event::Internal(internal) => self.session.internal(&internal, &mut self.immediate, NOW),
                    event => self.connection.handle(event, NOW, &mut self.requests),
                }
            }
            self.connection.flush(NOW, &mut self.requests);
            written += self.connection.output().len();
            let taken =
                |slices: &[std::io::IoSlice<'_>]| Ok::<_, Infallible>(slices.iter().map(|slice| slice.len()).sum());
            let Ok(()) = self.connection.output().drain(taken);
            self.connection.return_credit(1, &mut self.requests);
            if idle && self.requests.is_empty() && self.immediate.is_empty() {
                return written;
            }
        }
    }
}
