//! What happens in the broker, told to whoever wants to know: as messages of the exchange `amq.rabbitmq.event` in the vhost
//! `/`, and to readers of the feed. While nobody is bound and nobody reads, nothing is described.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast::{self, error::RecvError};

use crate::model::ids::Timestamp;
use crate::model::message::{Envelope as Address, Message, Properties};
use crate::model::names::UserName;
use crate::model::table::{FieldTable, FieldValue};
use crate::queue::{Publish, PublishOrigin};
use crate::routing::{Facts, Targets};

use super::Broker;
use super::envelope::by_shard;

/// The exchange that events are published to.
pub(super) const EVENT_EXCHANGE: &str = "amq.rabbitmq.event";
/// The vhost that has it.
pub(super) const EVENT_VHOST: &str = "/";
/// Events that a reader of the feed may be behind before it misses some.
const FEED_CAPACITY: usize = 1024;
/// Who acts where nobody is known who does.
const INTERNAL_USER: &str = "rmq-internal";
const ACTING_USER: &str = "user_who_performed_action";

tokio::task_local! {
    /// On whose behalf the running code changes definitions.
    static ACTOR: Option<UserName>;
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What happened to what; the routing key.
    pub key: &'static str,
    /// The message's headers.
    pub fields: FieldTable,
}

/// Who wants to know of events.
pub struct News {
    /// Somebody is bound to the exchange.
    is_bound: AtomicBool,
    readers: AtomicUsize,
    feed: broadcast::Sender<Arc<Notice>>,
    clock: OnceLock<Box<dyn Fn() -> Timestamp + Send + Sync>>,
    /// As messages name the node.
    pub(super) node: Box<str>,
}

/// A reader of all events from its beginning on.
pub struct Feed {
    news: Arc<News>,
    receiver: broadcast::Receiver<Arc<Notice>>,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Event(Arc<Notice>),
    /// So many events came faster than they were read, and are gone.
    Lagged(u64),
}

impl Default for News {
    fn default() -> Self {
        Self::new("")
    }
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("News").field("has_listeners", &self.has_listeners()).finish_non_exhaustive()
    }
}

impl News {
    pub(super) fn new(node: &str) -> Self {
        Self {
            is_bound: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            feed: broadcast::Sender::new(FEED_CAPACITY),
            clock: OnceLock::new(),
            node: node.into(),
        }
    }

    /// Whether events are to be described at all.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.is_bound.load(Ordering::Relaxed) || self.readers.load(Ordering::Relaxed) > 0
    }

    pub(super) fn set_bound(&self, is_bound: bool) {
        self.is_bound.store(is_bound, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        self.clock.get().map_or(Timestamp(0), |clock| clock())
    }
}

impl Feed {
    /// The next event; none when there will be no more.
    pub async fn next(&mut self) -> Option<Reading> {
        match self.receiver.recv().await {
            Ok(notice) => Some(Reading::Event(notice)),
            Err(RecvError::Lagged(count)) => Some(Reading::Lagged(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.news.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs something on behalf of a user, whom events name.
pub async fn acting_for<F: Future>(user: Option<UserName>, work: F) -> F::Output {
    ACTOR.scope(user, work).await
}

/// The same, where nothing waits.
pub(super) fn acting_as<T>(user: Option<UserName>, work: impl FnOnce() -> T) -> T {
    ACTOR.sync_scope(user, work)
}

impl Broker {
    /// From where events have their time.
    pub fn set_clock(&self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) {
        // Set once, when the server starts.
        let _ = self.news.clock.set(Box::new(clock));
    }

    /// Whether anybody wants to know of events.
    #[must_use]
    pub fn has_listeners(&self) -> bool {
        self.news.has_listeners()
    }

    /// Reads all events from now on.
    #[must_use]
    pub fn feed(&self) -> Feed {
        let receiver = self.news.feed.subscribe();
        self.news.readers.fetch_add(1, Ordering::Relaxed);
        Feed { news: Arc::clone(&self.news), receiver }
    }

    /// Tells of an event, which is only described if somebody wants to know.
    pub fn announce_with(&self, describe: impl FnOnce() -> Notice) {
        if self.has_listeners() {
            self.announce(describe());
        }
    }

    /// Tells of an event; adds the time, and on whose behalf it happened unless that is in it.
    pub(super) fn announce(&self, mut notice: Notice) {
        let now = self.news.now();
        if notice.fields.find(ACTING_USER).is_none() {
            let actor = ACTOR.try_with(Clone::clone).ok().flatten();
            notice = notice.by(actor.as_ref());
        }
        let at = i64::try_from(now.0).unwrap_or(i64::MAX);
        notice.fields.push("timestamp_in_ms", FieldValue::I64(at));
        let notice = Arc::new(notice);
        if self.news.is_bound.load(Ordering::Relaxed) {
            self.publish_notice(&notice, now);
        }
        // Nobody need be reading.
        let _ = self.news.feed.send(notice);
    }

    fn publish_notice(&self, notice: &Notice, now: Timestamp) {
        let topology = self.topology.load();
        let Some(vhost) = topology.vhost(&EVENT_VHOST.into()) else { return };
        let message = notice.message(now);
        let mut targets = Targets::default();
        let properties = message.properties();
        let facts = Facts::new(&properties, now.0);
        if vhost.routing.route(message.exchange(), &[message.routing_key()], &facts, &mut targets).is_err() {
            return;
        }
        let publish =
            Publish { message: message.clone(), expiration_ms: None, origin: PublishOrigin::Untracked, deaths: None };
        for (shard, recipients) in by_shard(targets.queues()) {
            self.post(shard, recipients.envelope(publish.clone(), None));
        }
    }
}

impl Notice {
    /// An event about which nothing is said yet.
    #[must_use]
    pub fn new(key: &'static str) -> Self {
        Self { key, fields: FieldTable::default() }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: FieldValue) -> Self {
        self.fields.push(name, value);
        self
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, name: &str, text: &str) -> Self {
        self.with(name, FieldValue::string(text))
    }

    /// On whose behalf it happened.
    #[must_use]
    pub fn by(self, user: Option<&UserName>) -> Self {
        self.text(ACTING_USER, user.map_or(INTERNAL_USER, UserName::as_str))
    }

    fn message(&self, now: Timestamp) -> Message {
        let mut headers = Vec::new();
        self.fields.encode(&mut headers);
        let properties = Properties {
            headers: headers.get(4..),
            delivery_mode: Some(2),
            timestamp: Some(now.0 / 1000),
            ..Properties::default()
        };
        let mut encoded = Vec::new();
        properties.encode(&mut encoded);
        let address = Address { exchange: EVENT_EXCHANGE.as_bytes(), routing_key: self.key.as_bytes() };
        Message::new(&mut Vec::new(), address, &Properties { raw: &encoded, ..properties }, &[])
    }
}
