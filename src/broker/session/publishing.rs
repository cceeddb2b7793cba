//! Publishing: permission, route, and an envelope for each shard. The hot path is a repeated address whose route is
//! cached; properties that the broker must look at take the long way.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::entity::EXPIRY_MAX_MS;
use crate::model::exception::{Exception, ReplyCode};
use crate::model::ids::{ChannelRef, QueueId};
use crate::model::message::{Envelope as Address, Message, Properties};
use crate::model::names::RoutingKey;
use crate::model::narrow::narrow;
use crate::model::request::{Answer, Event, PublishRequest, Settlement};
use crate::model::statistics::{ChannelNumber, ExchangeNumber, ExchangeStatistics};
use crate::model::table::{FieldTable, FieldValue};
use crate::queue::{DeathHistory, Publish, PublishOrigin};
use crate::routing::Facts;

use super::super::auth::{Access, ResourceKind};
use super::super::envelope::{ByShard, Envelope, Recipients, by_shard};
use super::super::firehose::{self, TracePlace};
use super::super::replies::{REPLY_TO, token_of};
use super::Session;
use super::transaction::{Commit, HELD_MAX, Transaction};

/// Routes kept for a connection.
const CACHE_MAX: usize = 4096;
/// Queues in the routes kept for a connection, after which all are forgotten: 512 KiB.
const CACHE_QUEUES_MAX: usize = 64 * 1024;

/// Bytes of a held publish besides the message's cost: itself, and its envelope when the transaction commits.
const HELD_COST: u64 = 256;

/// Bytes of credit for a transaction's publishes that are sent before everybody else has a turn.
const COMMIT_BYTES: usize = 1024 * 1024;

/// Bytes of memory of a route besides its queues.
const ROUTE_COST: u64 = 160;

/// Publish credit, in bytes, for each queue but the first that a message goes to: its place in the queue, and its record.
const RECIPIENT_COST: usize = 128;

/// A publish of an open transaction: routed when it was published, sent when it commits.
pub(super) struct HeldPublish {
    route: Route,
    publish: Publish,
    mandatory: bool,
}

impl HeldPublish {
    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> u64 {
        self.publish.memory() + HELD_COST
    }

    /// Where its route lies, which other publishes may share.
    pub(super) fn route_address(&self) -> usize {
        Arc::as_ptr(&self.route).addr()
    }

    /// Bytes of memory that its route takes.
    pub(super) fn route_memory(&self) -> u64 {
        let queues: u64 = narrow(self.route.queues * size_of::<QueueId>(), "a list in memory");
        queues + ROUTE_COST
    }
}

/// Where the messages of one address go.
#[derive(Debug)]
pub(super) struct Found {
    recipients: ByShard,
    /// How many queues they are.
    queues: usize,
    /// Of the exchange that was published to.
    exchange: Arc<ExchangeStatistics>,
}

type Route = Arc<Found>;

/// Routes that depend on the address alone, valid while the vhost's definitions are the same. The last one is found
/// without hashing.
#[derive(Default)]
pub(super) struct RouteCache {
    last: Option<(Box<[u8]>, usize, Route)>,
    routes: HashMap<(Box<[u8]>, usize), Route>,
    /// Queues in all routes.
    queues: usize,
}

impl RouteCache {
    pub(super) fn clear(&mut self) {
        self.last = None;
        self.routes.clear();
        self.queues = 0;
    }

    pub(super) fn trim(&mut self, keep: usize) {
        if self.routes.len() > keep {
            self.routes = HashMap::default();
            self.queues = 0;
        }
    }

    fn find(&mut self, message: &Message) -> Option<&Route> {
        let (address, split) = message.address();
        let is_last = matches!(&self.last, Some((last, at, _)) if *at == split && **last == *address);
        if !is_last {
            let key = (Box::from(address), split);
            let targets = Arc::clone(self.routes.get(&key)?);
            self.last = Some((key.0, key.1, targets));
        }
        self.last.as_ref().map(|(_, _, targets)| targets)
    }

    fn keep(&mut self, message: &Message, route: &Route) {
        if self.routes.len() >= CACHE_MAX || self.queues >= CACHE_QUEUES_MAX {
            self.routes.clear();
            self.queues = 0;
        }
        self.queues += route.queues;
        let (address, split) = message.address();
        self.routes.insert((Box::from(address), split), Arc::clone(route));
    }
}

/// What the properties of a publish ask of the broker.
struct Prepared {
    message: Message,
    expiration_ms: Option<u64>,
    /// From the headers CC and BCC.
    more_keys: Vec<Vec<u8>>,
    /// Remembers the keys of BCC, should the message die.
    deaths: Option<Arc<DeathHistory>>,
}

impl Session {
    pub(super) fn publish(&mut self, request: PublishRequest, events: &mut Vec<Event>) {
        let channel = request.channel;
        if self.channels.get(&channel.serial).is_none_or(|state| state.failed) {
            return;
        }
        let known = if request.message.has_publishing_properties() { None } else { self.cache.find(&request.message) };
        let outcome = match known.map(Arc::clone) {
            Some(route) => {
                if self.topology.has_tracing {
                    self.trace(channel, &request.message, &[], &route.recipients);
                }
                if !request.transactional {
                    return self.enqueue(request, None, None, &route, events);
                }
                self.keep(request, None, None, route)
            }
            None => self.publish_slowly(request, events),
        };
        if let Err(exception) = outcome {
            if let Some(state) = self.channels.get_mut(&channel.serial) {
                state.failed = true;
            }
            events.push(Event::PublishRefused { channel, exception });
        }
    }

    fn publish_slowly(&mut self, mut request: PublishRequest, events: &mut Vec<Event>) -> Result<(), Exception> {
        self.check_exchange(&request.message)?;
        let prepared = self.prepare(request.channel, request.message)?;
        request.message = prepared.message;
        self.check_topics(&request.message, &prepared.more_keys)?;
        if request.message.exchange().is_empty()
            && let Some(token) = token_of(request.message.routing_key())
        {
            if self.topology.has_tracing {
                self.trace(request.channel, &request.message, &prepared.more_keys, &[]);
            }
            return self.reply_directly(token.to_owned(), request, events);
        }
        let route = self.route(&request.message, &prepared.more_keys, prepared.expiration_ms)?;
        if self.topology.has_tracing {
            self.trace(request.channel, &request.message, &prepared.more_keys, &route.recipients);
        }
        if request.transactional {
            return self.keep(request, prepared.expiration_ms, prepared.deaths, route);
        }
        self.enqueue(request, prepared.expiration_ms, prepared.deaths, &route, events);
        Ok(())
    }

    /// Keeps a publish until its transaction commits.
    fn keep(
        &mut self,
        request: PublishRequest,
        expiration_ms: Option<u64>,
        deaths: Option<Arc<DeathHistory>>,
        route: Route,
    ) -> Result<(), Exception> {
        let PublishRequest { channel, mandatory, .. } = request;
        let Some(state) = self.channels.get_mut(&channel.serial) else { return Ok(()) };
        let held = HeldPublish { route, publish: publish_of(request, expiration_ms, deaths), mandatory };
        let transaction = state.transaction.get_or_insert_with(|| Transaction::new(&self.held_bytes));
        if transaction.add(held) {
            return Ok(());
        }
        let text = format!("the transactions of a connection may hold {HELD_MAX} bytes of publishes");
        Err(Exception::new(ReplyCode::ResourceError, text))
    }

    fn check_exchange(&self, message: &Message) -> Result<(), Exception> {
        let name = String::from_utf8_lossy(message.exchange());
        self.check(Access::Write, ResourceKind::Exchange, &name)?;
        let exchange = self.vhost()?.exchanges.get(name.as_ref());
        match exchange {
            None => Err(Exception::no_exchange(name, &self.login()?.vhost)),
            Some(exchange) if exchange.internal => {
                let vhost = &self.login()?.vhost;
                let text = format!("cannot publish to internal exchange '{name}' in vhost '{vhost}'");
                Err(Exception::access_refused(text))
            }
            Some(_) => Ok(()),
        }
    }

    /// All keys of a publish to a topic exchange must be allowed.
    fn check_topics(&self, message: &Message, more_keys: &[Vec<u8>]) -> Result<(), Exception> {
        if !self.checks_topics()? {
            return Ok(());
        }
        let name = String::from_utf8_lossy(message.exchange());
        let Some(exchange) = self.vhost()?.exchanges.get(name.as_ref()) else { return Ok(()) };
        let mut keys = std::iter::once(message.routing_key()).chain(more_keys.iter().map(Vec::as_slice));
        keys.try_for_each(|key| self.check_topic(Access::Write, exchange, key))
    }

    /// Looks at reply-to, expiration, CC and BCC, and user-id, in RabbitMQ's order.
    fn prepare(&mut self, channel: ChannelRef, message: Message) -> Result<Prepared, Exception> {
        if !message.has_publishing_properties() {
            return Ok(Prepared { message, expiration_ms: None, more_keys: Vec::new(), deaths: None });
        }
        let properties = message.properties();
        let reply_to = self.reply_to(channel, &properties)?;
        let expiration_ms = properties.expiration.map(expiration).transpose()?;
        let mut headers = None;
        let mut more_keys = Vec::new();
        let mut deaths = None;
        if properties.headers.is_some_and(|raw| contains(raw, b"CC")) {
            let mut table =
                properties.header_table().map_err(|error| Exception::new(ReplyCode::SyntaxError, error.to_string()))?;
            more_keys.extend(keys_of(&table, "CC")?);
            let blind_keys = keys_of(&table, "BCC")?;
            if table.find("BCC").is_some() {
                let keys = blind_keys.iter().map(|key| RoutingKey::new(key)).collect();
                deaths = Some(Arc::new(DeathHistory::published_blindly(keys)));
                more_keys.extend(blind_keys);
                table.0.retain(|(key, _)| &**key != "BCC");
                let mut encoded = Vec::new();
                table.encode(&mut encoded);
                headers = Some(encoded);
            }
        }
        self.check_user_id(&properties)?;
        if reply_to.is_none() && headers.is_none() {
            return Ok(Prepared { message, expiration_ms, more_keys, deaths });
        }
        let mut encoded = Vec::new();
        let changed = Properties {
            reply_to: reply_to.as_deref().map(str::as_bytes).or(properties.reply_to),
            headers: headers.as_ref().and_then(|table| table.get(4..)).or(properties.headers),
            ..properties
        };
        changed.encode(&mut encoded);
        let changed = Properties { raw: &encoded, ..changed };
        let address = Address { exchange: message.exchange(), routing_key: message.routing_key() };
        let message = message.rewritten(&mut self.scratch, address, &changed);
        Ok(Prepared { message, expiration_ms, more_keys, deaths })
    }

    /// The name under which replies reach this channel, for a request that names the pseudo queue.
    fn reply_to(&self, channel: ChannelRef, properties: &Properties<'_>) -> Result<Option<String>, Exception> {
        if properties.reply_to != Some(REPLY_TO.as_bytes()) {
            return Ok(None);
        }
        let reply = self.channels.get(&channel.serial).and_then(|state| state.reply.as_ref());
        match reply {
            Some((token, _)) => Ok(Some(format!("{REPLY_TO}.{token}"))),
            None => Err(Exception::precondition_failed("fast reply consumer does not exist")),
        }
    }

    fn check_user_id(&self, properties: &Properties<'_>) -> Result<(), Exception> {
        let Some(claimed) = properties.user_id else { return Ok(()) };
        let login = self.login()?;
        if claimed == login.user.name.as_str().as_bytes() || login.user.is_impersonator() {
            return Ok(());
        }
        Err(Exception::precondition_failed(format!(
            "user_id property set to '{}' but authenticated user was '{}'",
            String::from_utf8_lossy(claimed),
            login.user.name
        )))
    }

    /// Finds the queues, and keeps the answer when it depends on the address alone.
    fn route(
        &mut self,
        message: &Message,
        more_keys: &[Vec<u8>],
        expiration_ms: Option<u64>,
    ) -> Result<Route, Exception> {
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        let mut keys = vec![message.routing_key()];
        keys.extend(more_keys.iter().map(Vec::as_slice));
        let properties = message.properties();
        let facts = Facts::new(&properties, self.random.next_bits());
        let routed = self.vhost()?.routing.route(message.exchange(), &keys, &facts, &mut targets);
        if routed.is_err() {
            let name = String::from_utf8_lossy(message.exchange());
            return Err(Exception::no_exchange(name, &self.login()?.vhost));
        }
        let name = String::from_utf8_lossy(message.exchange());
        let exchange = self.vhost()?.exchange_statistics.get(name.as_ref()).cloned().unwrap_or_default();
        let queues = targets.queues();
        let found = Arc::new(Found { recipients: by_shard(queues), queues: queues.len(), exchange });
        if targets.cacheable && more_keys.is_empty() && token_of(message.routing_key()).is_none() {
            self.cache.keep(message, &found);
        }
        for exchange in std::mem::take(&mut targets.histories) {
            self.remember(exchange, message, expiration_ms)?;
        }
        self.targets = targets;
        Ok(found)
    }

    fn remember(
        &mut self,
        exchange: crate::model::names::ExchangeName,
        message: &Message,
        expiration_ms: Option<u64>,
    ) -> Result<(), Exception> {
        let length =
            self.vhost()?.exchanges.get(&exchange).and_then(|exchange| {
                exchange.arguments.find("x-recent-history-length").and_then(FieldValue::as_integer)
            });
        let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(20);
        let publish =
            Publish { message: message.clone(), expiration_ms, origin: PublishOrigin::Untracked, deaths: None };
        let vhost = self.login()?.vhost.clone();
        let cost = publish.message.cost();
        self.gathered += cost;
        self.batch(0).push_costly(Envelope::Remember { vhost, exchange, publish, length }, cost);
        Ok(())
    }

    fn enqueue(
        &mut self,
        request: PublishRequest,
        expiration_ms: Option<u64>,
        deaths: Option<Arc<DeathHistory>>,
        route: &Found,
        events: &mut Vec<Event>,
    ) {
        let PublishRequest { channel, mandatory, .. } = request;
        self.deliver_to(channel, publish_of(request, expiration_ms, deaths), mandatory, route, events);
    }

    fn deliver_to(
        &mut self,
        channel: ChannelRef,
        publish: Publish,
        mandatory: bool,
        route: &Found,
        events: &mut Vec<Event>,
    ) {
        let Found { recipients, queues, exchange } = route;
        self.run.count(exchange, *queues);
        let Some((last, others)) = recipients.split_last() else {
            self.count_unroutable(channel, exchange, mandatory);
            return unroutable(channel, publish, mandatory, events);
        };
        if !others.is_empty()
            && let PublishOrigin::Channel { sequence, .. } = publish.origin
        {
            let verdicts = narrow(recipients.len(), "a verdict for each shard at most");
            events.push(Event::Routed { channel, sequence, verdicts });
        }
        for recipients in others {
            self.send_publish(recipients, publish.clone());
        }
        self.send_publish(last, publish);
    }

    fn count_unroutable(&self, channel: ChannelRef, exchange: &ExchangeStatistics, mandatory: bool) {
        let (of_channel, of_exchange) = if mandatory {
            (ChannelNumber::ReturnedUnroutable, ExchangeNumber::ReturnedUnroutable)
        } else {
            (ChannelNumber::DroppedUnroutable, ExchangeNumber::DroppedUnroutable)
        };
        exchange.add_shared(of_exchange, 1);
        if let Some(record) = self.record.channel(channel.number) {
            record.statistics.add(of_channel, 1);
        }
    }

    fn send_publish(&mut self, (shard, recipients): &(u16, Recipients), publish: Publish) {
        let cost = publish.message.cost() + (recipients.len() - 1) * RECIPIENT_COST;
        self.batch(*shard).publish(recipients, publish, cost);
        self.gathered += cost;
        self.costliest = cost.max(self.costliest - self.costliest / 16);
    }

    /// Copies a publish for the trace exchange, where tracing is on.
    fn trace(&mut self, channel: ChannelRef, message: &Message, more_keys: &[Vec<u8>], routed: &[(u16, Recipients)]) {
        let (Some(vhost), Some(login)) = (self.vhost.clone(), &self.login) else { return };
        if !vhost.tracing || !firehose::is_traced(message) {
            return;
        }
        let routed = routed.iter().flat_map(|(_, recipients)| recipients.iter());
        let names = routed.filter_map(|queue| vhost.names.get(&queue));
        let queues = names.map(|name| FieldValue::string(name.as_str())).collect();
        let (node, connection) = (&*self.topology.news.node, &*self.record);
        let place = TracePlace { node, vhost: &login.vhost, connection, channel: channel.number };
        let copy = firehose::published(message, more_keys, queues, place);
        for recipients in firehose::targets(&vhost, &copy.message, self.random.next_bits()) {
            self.send_publish(&recipients, copy.clone());
        }
    }

    /// Replies to a requester without a queue. It counts as routed, whether or not somebody waits.
    fn reply_directly(
        &mut self,
        token: String,
        request: PublishRequest,
        events: &mut Vec<Event>,
    ) -> Result<(), Exception> {
        self.broker.replies.deliver(&token, request.message);
        if let Some(sequence) = request.sequence {
            events.push(Event::Routed { channel: request.channel, sequence, verdicts: 0 });
        }
        Ok(())
    }

    /// Begins to send what a transaction held. Requests wait until all of it is sent.
    pub(super) fn begin_commit(&mut self, channel: ChannelRef, settlements: Vec<Settlement>) {
        assert!(self.committing.is_none(), "requests wait for the end of a commit");
        let mut held = self.channels.get_mut(&channel.serial).and_then(|state| state.transaction.take());
        let publishes = held.as_mut().map(Transaction::take_publishes).unwrap_or_default().into_iter();
        self.committing = Some(Commit { channel, publishes, settlements, _held: held });
    }

    /// Sends some of what the transaction held that commits, as far as there is credit for it.
    pub(super) fn go_on_committing(&mut self, events: &mut Vec<Event>) {
        let Some(mut commit) = self.committing.take() else { return };
        let begun = self.gathered;
        while self.gathered - begun < COMMIT_BYTES && self.has_credit() {
            let Some(held) = commit.publishes.next() else { return self.end_commit(commit, events) };
            self.deliver_to(commit.channel, held.publish, held.mandatory, &held.route, events);
        }
        self.committing = Some(commit);
    }

    /// Sends the rest of it at once: nobody is there any more to wait for.
    pub(super) fn commit_all(&mut self) {
        let Some(commit) = self.committing.take() else { return };
        let mut events = Vec::new();
        for held in commit.publishes {
            self.deliver_to(commit.channel, held.publish, held.mandatory, &held.route, &mut events);
            events.clear();
        }
        commit.settlements.into_iter().for_each(|settlement| self.settle(settlement));
    }

    fn end_commit(&mut self, commit: Commit, events: &mut Vec<Event>) {
        let Commit { channel, settlements, .. } = commit;
        settlements.into_iter().for_each(|settlement| self.settle(settlement));
        if let Some(answer) = self.join_with(channel, Answer::Done, Envelope::JoinDurably) {
            events.push(Event::Answer { channel, answer });
        }
    }
}

fn publish_of(request: PublishRequest, expiration_ms: Option<u64>, deaths: Option<Arc<DeathHistory>>) -> Publish {
    let PublishRequest { channel, message, sequence, .. } = request;
    let origin = sequence.map_or(PublishOrigin::Untracked, |sequence| PublishOrigin::Channel { channel, sequence });
    Publish { message, expiration_ms, origin, deaths }
}

fn unroutable(channel: ChannelRef, publish: Publish, mandatory: bool, events: &mut Vec<Event>) {
    let origin = publish.origin;
    if mandatory {
        events.push(Event::Return { channel, message: publish.message });
    }
    if let PublishOrigin::Channel { sequence, .. } = origin {
        events.push(Event::Routed { channel, sequence, verdicts: 0 });
    }
}

/// Milliseconds in the text of an expiration property.
fn expiration(text: &[u8]) -> Result<u64, Exception> {
    let shown = String::from_utf8_lossy(text);
    let unsigned = shown.strip_prefix(['-', '+']).unwrap_or(&shown);
    let end = unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len());
    let (digits, leftover) = unsigned.split_at(end);
    let reason = match digits.parse::<i64>() {
        _ if digits.is_empty() => "no_integer".to_owned(),
        _ if !leftover.is_empty() => format!("{{leftover_string,\"{leftover}\"}}"),
        Ok(value) if shown.starts_with('-') && value > 0 => format!("{{value_negative,-{value}}}"),
        Ok(value) if value <= EXPIRY_MAX_MS => return Ok(value.unsigned_abs()),
        _ => format!("{{value_too_large,{digits}}}"),
    };
    Err(Exception::precondition_failed(format!("invalid expiration '{shown}': {reason}")))
}

/// The keys in a CC or BCC header: the strings of its array.
fn keys_of(headers: &FieldTable, name: &str) -> Result<Vec<Vec<u8>>, Exception> {
    match headers.find(name) {
        None => Ok(Vec::new()),
        Some(FieldValue::Array(values)) => Ok(values
            .iter()
            .filter_map(|value| match value {
                FieldValue::LongString(key) => Some(key.to_vec()),
                _ => None,
            })
            .collect()),
        Some(other) => Err(Exception::precondition_failed(format!(
            "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
            other.type_name()
        ))),
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
