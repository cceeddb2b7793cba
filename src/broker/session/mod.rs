//! One connection's view of the broker: who it is, the definitions it sees, and what it has for each shard.
//!
//! Requests are handled in order; what they mean for queues is gathered per shard and pushed once per batch. Everything
//! that does not need a queue is answered at once.

mod batch;
mod bindings;
mod consuming;
mod exchanges;
mod login;
mod publishing;
mod queues;
mod transaction;
mod waiting;

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::entity::{Exchange, ExchangeKind};
use crate::model::exception::Exception;
use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId, Timestamp};
use crate::model::names::{ExchangeName, QueueName, UserName, VhostName};
use crate::model::random::Random;
use crate::model::request::{Answer, Ask, Event, Internal, Request, Settlement};
use crate::model::statistics::{ConnectionRecord, PublishRun};
use crate::queue::Command;
use crate::routing::Targets;

use super::Broker;
use super::auth::{Access, Permission, ResourceKind, User, refusal, topic_refusal};
use super::authority::{Authority, Identity};
use super::described;
use super::envelope::{AskKind, Envelope};
use super::events;
use super::journal::{Held, Submission};
use super::link::ChannelLimit;
use super::metadata::shard_of;
use super::outbox::Outbox;
use super::topology::{Topology, VhostTopology};

use batch::ShardBatch;
use publishing::RouteCache;
use transaction::{Commit, HeldBytes, Transaction};
use waiting::Waiting;

pub use waiting::{Pending, Verdict};

/// A publish that costs more than this many bytes of credit is costly.
const COSTLY: usize = 8 * 1024;

/// A logged-in user in a vhost.
struct Login {
    user: Arc<User>,
    vhost: VhostName,
    /// Allows nothing where it is not the broker's users who decide.
    permission: Permission,
    /// It is no user of the definitions, so that nothing can be taken away from it.
    is_internal: bool,
}

/// When a change of definitions is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Now,
    /// Once all definitions so far are on the disk.
    Durably,
}

impl Answers {
    fn of(durable: bool) -> Self {
        if durable { Self::Durably } else { Self::Now }
    }
}

/// What the session keeps of a channel.
#[derive(Default)]
struct SessionChannel {
    number: u16,
    /// Refused something: what follows is discarded until the channel is closed.
    failed: bool,
    /// Publishes of an open transaction, once there are some.
    transaction: Option<Transaction>,
    limit: Option<Arc<ChannelLimit>>,
    /// The token and consumer of its direct reply-to.
    reply: Option<(String, ConsumerId)>,
    /// What it asked last, to be asked again if the queue vanishes under it.
    asked: Option<Ask>,
    /// Shards that have not joined yet, and what to answer then.
    joining: Option<(usize, Answer)>,
    /// It is ending, and counted no more.
    closing: bool,
}

/// See the module's documentation.
pub struct Session {
    broker: Arc<Broker>,
    connection: ConnectionId,
    outbox: Arc<Outbox>,
    peer: IpAddr,
    random: Random,
    user: Option<Arc<User>>,
    authority: Authority,
    expires: Option<Timestamp>,
    waiting: Waiting,
    login: Option<Login>,
    topology: Arc<Topology>,
    vhost: Option<Arc<VhostTopology>>,
    channels: IdMap<u32, SessionChannel>,
    /// What its transactions hold.
    held_bytes: HeldBytes,
    /// The one that commits at present.
    committing: Option<Commit>,
    /// For each shard, what is to be pushed.
    batches: Vec<ShardBatch>,
    /// Bytes published in all batches, which the next push spends.
    gathered: usize,
    /// About the most that one of the last publishes cost, in bytes.
    costliest: usize,
    /// Requests were handled since the last push.
    has_gathered: bool,
    cache: RouteCache,
    targets: Targets,
    scratch: Vec<u8>,
    /// Shards that have not ended this connection yet.
    closing: Option<usize>,
    /// The vhost in which the connection is counted.
    counted: Option<VhostName>,
    record: Arc<ConnectionRecord>,
    /// Publishes to one exchange since the last flush.
    run: PublishRun,
    now: Timestamp,
}

impl Session {
    /// `peer` is the client's address; `seed` makes its generated names.
    #[must_use]
    pub fn new(broker: &Arc<Broker>, outbox: &Arc<Outbox>, connection: ConnectionId, peer: IpAddr, seed: u64) -> Self {
        let shards = broker.shards.len();
        Self {
            broker: Arc::clone(broker),
            connection,
            outbox: Arc::clone(outbox),
            peer,
            random: Random::new(seed),
            user: None,
            authority: Authority::Internal,
            expires: None,
            waiting: Waiting::default(),
            login: None,
            topology: broker.topology.load_full(),
            vhost: None,
            channels: IdMap::default(),
            held_bytes: HeldBytes::new(&broker.transaction_bytes),
            committing: None,
            batches: (0..shards).map(|_| ShardBatch::default()).collect(),
            gathered: 0,
            costliest: 0,
            has_gathered: false,
            cache: RouteCache::default(),
            targets: Targets::default(),
            scratch: Vec::new(),
            closing: None,
            counted: None,
            record: Arc::default(),
            run: PublishRun::default(),
            now: Timestamp::default(),
        }
    }

    /// A session of the broker itself: for a user who has shown who he is, or for an administrator who needs no name. It
    /// has one channel and counts for no limit.
    pub fn of_the_broker(
        broker: &Arc<Broker>,
        outbox: &Arc<Outbox>,
        channel: ChannelRef,
        identity: Option<Identity>,
        vhost: &VhostName,
    ) -> Result<Self, Exception> {
        let mut session =
            Self::new(broker, outbox, channel.connection, IpAddr::from([127, 0, 0, 1]), channel.connection.0);
        session.enter(identity, vhost)?;
        session.channels.insert(channel.serial, SessionChannel { closing: true, ..SessionChannel::default() });
        Ok(session)
    }

    /// Under which listings show the connection.
    #[must_use]
    pub fn with_record(self, record: &Arc<ConnectionRecord>) -> Self {
        Self { record: Arc::clone(record), ..self }
    }

    /// The user's name once logged in.
    #[must_use]
    pub fn user(&self) -> Option<&UserName> {
        self.user.as_ref().map(|user| &user.name)
    }

    /// Whether the connection may read more publishes from its socket.
    #[must_use]
    pub fn has_credit(&self) -> bool {
        self.outbox.has_publish_credit(self.gathered)
    }

    /// Whether one publish alone may use up much of the credit, so that it is to be looked at after each.
    #[must_use]
    pub fn publishes_are_costly(&self) -> bool {
        self.costliest > COSTLY
    }

    /// Handles requests in order, and lets the shards work on them. Immediate answers go to `events`, the rest comes
    /// through the outbox.
    pub fn submit(&mut self, requests: &mut Vec<Request>, events: &mut Vec<Event>, now: Timestamp) {
        if self.committing.is_some() {
            self.now = now;
            self.has_gathered = true;
            // What was held is handled under the definitions of today, as what comes today.
            self.refresh();
            self.go_on_committing(events);
            self.handle_held(events);
        }
        self.gather(requests, events, now);
        if std::mem::take(&mut self.has_gathered) {
            self.flush(now);
        }
    }

    /// Whether a transaction is on its way to the shards; `submit` sends more of it when there is credit.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// The same, but leaves it to the next `submit` to push what is for the shards.
    pub fn gather(&mut self, requests: &mut Vec<Request>, events: &mut Vec<Event>, now: Timestamp) {
        if requests.is_empty() {
            return;
        }
        self.has_gathered = true;
        self.now = now;
        self.refresh();
        let mut requests = requests.drain(..);
        while !self.is_waiting()
            && let Some(request) = requests.next()
        {
            self.handle(request, events);
        }
        self.hold(requests);
    }

    fn handle(&mut self, request: Request, events: &mut Vec<Event>) {
        match self.authority {
            Authority::Remote(_) => self.handle_asking(request, events),
            Authority::Internal | Authority::Token(_) | Authority::Ended => self.handle_known(request, events),
        }
    }

    /// Handles a request for whose checks nobody has to be asked.
    fn handle_known(&mut self, request: Request, events: &mut Vec<Event>) {
        match request {
            Request::Publish(publish) => self.publish(publish, events),
            Request::Settle(settlement) => self.settle(settlement),
            Request::DeliveriesSent { bytes } => self.deliveries_sent(bytes),
            Request::Login { mechanism } => self.log_in(&mechanism, events),
            Request::OpenVhost(vhost) => events.push(self.open_vhost(vhost)),
            Request::UpdateSecret(secret) => self.update_secret(&secret, events),
            Request::CheckConsumer { consumer, tag, queue } => self.check_consumer(consumer, &tag, &queue),
            Request::OpenChannel(channel) => self.open_channel(channel, events),
            Request::Ask { channel, ask } => self.ask(channel, ask, events),
            Request::CloseChannel(channel) => self.close_channel(channel, events),
            Request::CloseConnection => self.close_connection(events),
        }
    }

    /// Handles what a shard told the session rather than the front end.
    pub fn internal(&mut self, event: &Internal, events: &mut Vec<Event>, now: Timestamp) {
        self.now = now;
        match *event {
            Internal::Joined { channel } => self.joined(channel, events),
            Internal::ShardDown => self.shard_down(events),
            Internal::DeclareAgain { channel } => {
                self.refresh();
                if let Some(ask) = self.channels.get_mut(&channel.serial).and_then(|channel| channel.asked.take()) {
                    let request = Request::Ask { channel, ask };
                    if self.is_waiting() {
                        self.hold(std::iter::once(request));
                    } else {
                        self.handle(request, events);
                    }
                }
                self.flush(now);
            }
            // Answers to questions that no session asks.
            Internal::Durable | Internal::Consumers { .. } => {}
        }
    }

    /// Gives back memory beyond `keep` entries a list.
    pub fn trim(&mut self, keep: usize) {
        for batch in &mut self.batches {
            batch.trim(keep);
        }
        self.cache.trim(keep);
        self.scratch.shrink_to(keep);
    }

    /// The socket is gone: ends everything without an answer.
    pub fn abandon(&mut self, now: Timestamp) {
        self.now = now;
        self.commit_all();
        self.hold_nothing();
        if self.closing.is_none() {
            let mut events = Vec::new();
            self.close_connection(&mut events);
            self.flush(now);
        }
    }

    fn open_channel(&mut self, channel: ChannelRef, events: &mut Vec<Event>) {
        self.channels.insert(channel.serial, SessionChannel { number: channel.number, ..SessionChannel::default() });
        if let Err(exception) = self.broker.count_channel(self.user.as_deref()) {
            // A hard error: the connection closes, and with it everything is uncounted.
            events.push(Event::Exception { channel: Some(channel), exception });
        }
        self.announce_channel("channel.created", channel.number);
    }

    /// Tells of the beginning or the end of a channel.
    fn announce_channel(&self, key: &'static str, number: u16) {
        self.broker.announce_with(|| described::channel(key, &self.record.facts.lock(), number));
    }

    fn ask(&mut self, channel: ChannelRef, ask: Ask, events: &mut Vec<Event>) {
        if self.broker.has_listeners() {
            let user = self.user().cloned();
            return events::acting_as(user, || self.ask_known(channel, ask, events));
        }
        self.ask_known(channel, ask, events);
    }

    fn ask_known(&mut self, channel: ChannelRef, ask: Ask, events: &mut Vec<Event>) {
        let Some(state) = self.channels.get_mut(&channel.serial).filter(|state| !state.failed) else { return };
        if ask.may_be_repeated() {
            state.asked = Some(ask.clone());
        }
        let outcome = match ask {
            Ask::DeclareExchange(declare) => self.declare_exchange(channel, declare),
            Ask::DeleteExchange { exchange, if_unused } => self.delete_exchange(channel, &exchange, if_unused),
            Ask::DeclareQueue(declare) => self.declare_queue(channel, declare),
            Ask::DeleteQueue { queue, if_unused, if_empty } => self.delete_queue(channel, &queue, if_unused, if_empty),
            Ask::PurgeQueue { queue } => self.purge_queue(channel, &queue),
            Ask::Bind(request) => self.bind(channel, request),
            Ask::Unbind(request) => self.unbind(channel, request),
            Ask::Consume(request) => self.consume(channel, request),
            Ask::Cancel { consumer, .. } => self.cancel(channel, consumer),
            Ask::Get { queue, no_ack, holder } => self.get(channel, &queue, no_ack, holder),
            Ask::ChannelPrefetch { limit } => self.channel_prefetch(channel, limit),
            Ask::Recover { settlements } => {
                settlements.into_iter().for_each(|settlement| self.settle(settlement));
                // Now: the answer stands before what is delivered again.
                Ok(Some(Answer::Done))
            }
            Ask::Commit { settlements } => {
                self.begin_commit(channel, settlements);
                self.go_on_committing(events);
                Ok(None)
            }
            Ask::Proceed => Ok(Some(Answer::Done)),
            Ask::Rollback => {
                if let Some(state) = self.channels.get_mut(&channel.serial) {
                    state.transaction = None;
                }
                Ok(Some(Answer::Done))
            }
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(answer)) => events.push(Event::Answer { channel, answer }),
            Err(exception) => self.refuse(channel, exception, events),
        }
    }

    /// Reports a refusal; the rest of the channel's requests is discarded.
    fn refuse(&mut self, channel: ChannelRef, exception: Exception, events: &mut Vec<Event>) {
        if let Some(state) = self.channels.get_mut(&channel.serial) {
            state.failed = true;
        }
        events.push(Event::Exception { channel: Some(channel), exception });
    }

    fn settle(&mut self, settlement: Settlement) {
        let Settlement { queue, consumer, indexes, outcome } = settlement;
        let command = Command::Settle { consumer, indexes, outcome };
        self.send(self.shard_of(queue), Envelope::Command { queue, command, ask: None });
    }

    fn deliveries_sent(&mut self, bytes: usize) {
        if self.outbox.return_delivery_credit(bytes) {
            for shard in self.attached_shards() {
                self.send(shard, Envelope::Resume(self.connection));
            }
        }
    }

    fn close_channel(&mut self, channel: ChannelRef, events: &mut Vec<Event>) {
        let Some(state) = self.channels.get_mut(&channel.serial).filter(|state| !state.closing) else { return };
        state.closing = true;
        state.transaction = None;
        if let Some((token, _)) = state.reply.take() {
            self.broker.replies.remove(&token);
        }
        self.broker.uncount_channels(self.user.as_ref().map(|user| &user.name), 1);
        self.announce_channel("channel.closed", channel.number);
        let attached: Vec<u16> = self.attached_shards().collect();
        for shard in &attached {
            self.send(*shard, Envelope::ChannelDown(channel));
        }
        if attached.is_empty() {
            self.channels.remove(&channel.serial);
            events.push(Event::Answer { channel, answer: Answer::ChannelClosed });
        } else if let Some(state) = self.channels.get_mut(&channel.serial) {
            state.joining = Some((attached.len(), Answer::ChannelClosed));
        }
    }

    fn close_connection(&mut self, events: &mut Vec<Event>) {
        if self.closing.is_some() {
            return;
        }
        for (_, mut state) in std::mem::take(&mut self.channels) {
            if !state.closing {
                self.broker.uncount_channels(self.user.as_ref().map(|user| &user.name), 1);
                self.announce_channel("channel.closed", state.number);
            }
            if let Some((token, _)) = state.reply.take() {
                self.broker.replies.remove(&token);
            }
        }
        self.delete_exclusive_queues();
        if let Some(vhost) = self.counted.take() {
            self.broker.uncount_connection(self.user.as_ref().map(|user| &user.name), &vhost);
            if self.login.is_some() {
                self.broker.announce_with(|| described::connection_closed(&self.record.facts.lock()));
            }
        }
        let connection = self.connection;
        let attached: Vec<u16> = self.attached_shards().collect();
        for shard in &attached {
            self.send(*shard, Envelope::ConnectionDown(connection));
        }
        self.closing = Some(attached.len());
        if attached.is_empty() {
            events.push(Event::ConnectionClosed);
        }
    }

    fn shard_down(&mut self, events: &mut Vec<Event>) {
        if let Some(left) = &mut self.closing {
            *left = left.checked_sub(1).expect("a shard ends a connection once");
            if *left == 0 {
                events.push(Event::ConnectionClosed);
            }
        }
    }

    /// Answers once all shards have handled everything sent so far: now, if nothing was.
    fn join_with(
        &mut self,
        channel: ChannelRef,
        answer: Answer,
        envelope: impl Fn(ChannelRef) -> Envelope,
    ) -> Option<Answer> {
        let attached: Vec<u16> = self.attached_shards().collect();
        if attached.is_empty() {
            return Some(answer);
        }
        for shard in &attached {
            self.send(*shard, envelope(channel));
        }
        if let Some(state) = self.channels.get_mut(&channel.serial) {
            state.joining = Some((attached.len(), answer));
        }
        None
    }

    fn joined(&mut self, channel: ChannelRef, events: &mut Vec<Event>) {
        let Some(state) = self.channels.get_mut(&channel.serial) else { return };
        let Some((left, answer)) = state.joining.take() else { return };
        if left > 1 {
            state.joining = Some((left - 1, answer));
            return;
        }
        if matches!(answer, Answer::ChannelClosed) {
            self.channels.remove(&channel.serial);
        }
        events.push(Event::Answer { channel, answer });
    }

    /// The answer to a change of definitions, now or through the outbox once the change is durable.
    fn done(&self, channel: ChannelRef, answers: Answers) -> Option<Answer> {
        if answers == Answers::Now {
            return Some(Answer::Done);
        }
        let event = Event::Answer { channel, answer: Answer::Done };
        let held = Held { events: vec![(Arc::clone(&self.outbox), vec![event])], ..Held::default() };
        self.broker.submit(Submission { held, ..Submission::default() });
        None
    }

    fn attached_shards(&self) -> impl Iterator<Item = u16> + use<> {
        let attached: Vec<u16> =
            (0u16..).zip(&self.batches).filter(|(_, batch)| batch.is_attached).map(|(shard, _)| shard).collect();
        attached.into_iter()
    }

    fn shard_of(&self, queue: QueueId) -> u16 {
        shard_of(queue, self.broker.shard_count())
    }

    /// Adds an envelope to a shard's batch.
    fn send(&mut self, shard: u16, envelope: Envelope) {
        self.batch(shard).push(envelope);
    }

    /// What is gathered for a shard, after this session's introduction.
    fn batch(&mut self, shard: u16) -> &mut ShardBatch {
        let batch = &mut self.batches[usize::from(shard)];
        if !batch.is_attached {
            batch.is_attached = true;
            let outbox = Arc::clone(&self.outbox);
            let record = Arc::clone(&self.record);
            batch.push(Envelope::Attach { connection: self.connection, outbox, record });
        }
        batch
    }

    /// Pushes what was gathered, one push a shard.
    fn push_batches(&mut self) {
        for (cell, batch) in self.broker.shards.iter().zip(&mut self.batches) {
            if !batch.is_empty() {
                cell.mailbox.push(batch.finish(&self.outbox));
            }
        }
        self.gathered = 0;
    }

    /// Pushes what was gathered and lets the shards work on it. What is gathered later is still to be flushed.
    fn flush(&mut self, now: Timestamp) {
        self.run.flush();
        let busy: Vec<u16> =
            (0u16..).zip(&self.batches).filter(|(_, batch)| !batch.is_empty()).map(|(shard, _)| shard).collect();
        self.push_batches();
        for shard in busy {
            self.broker.drive(shard, now);
        }
    }

    /// Looks whether definitions have changed; what was cached under the old ones is forgotten.
    fn refresh(&mut self) {
        let current = self.broker.topology.load();
        if Arc::ptr_eq(&current, &self.topology) {
            return;
        }
        self.topology = Arc::clone(&current);
        drop(current);
        // A user of this name counts only for whom the broker's users decide.
        let is_own = matches!(self.authority, Authority::Internal);
        if let Some(login) = self.login.as_mut().filter(|login| is_own && !login.is_internal) {
            // What is taken away from a user is refused from the next request on; a user who is gone may do nothing more.
            let user = self.topology.user(&login.user.name);
            if user.is_none_or(|user| !Arc::ptr_eq(user, &login.user)) {
                login.permission =
                    user.and_then(|user| user.permissions.get(&login.vhost)).cloned().unwrap_or_default();
                if let Some(user) = user {
                    login.user = Arc::clone(user);
                }
                self.cache.clear();
            }
        }
        if let Some(login) = &self.login {
            let vhost = self.topology.vhost(&login.vhost).cloned();
            let same = match (&vhost, &self.vhost) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                _ => false,
            };
            if !same {
                self.cache.clear();
                self.vhost = vhost;
            }
        }
    }

    fn login(&self) -> Result<&Login, Exception> {
        self.login.as_ref().ok_or_else(|| Exception::not_allowed("connection is not open"))
    }

    fn vhost(&self) -> Result<&Arc<VhostTopology>, Exception> {
        self.vhost.as_ref().ok_or_else(|| Exception::not_allowed("connection is not open"))
    }

    /// 403 unless the user has the permission.
    fn check(&self, access: Access, kind: ResourceKind, name: &str) -> Result<(), Exception> {
        if self.may_use(access, kind, name)? {
            return Ok(());
        }
        let login = self.login()?;
        Err(refusal(access, kind, name, &login.vhost, &login.user.name))
    }

    /// Whether any of the user's routing keys are looked at.
    fn checks_topics(&self) -> Result<bool, Exception> {
        Ok(!matches!(self.authority, Authority::Internal) || !self.login()?.user.topic_permissions.is_empty())
    }

    /// 403 unless the user may use a routing key with this exchange, if it is a topic exchange.
    fn check_topic(&self, access: Access, exchange: &Exchange, key: &[u8]) -> Result<(), Exception> {
        if exchange.kind != ExchangeKind::Topic || !self.checks_topics()? {
            return Ok(());
        }
        let key = String::from_utf8_lossy(key);
        if self.may_use_topic(access, &exchange.name, &key)? {
            return Ok(());
        }
        let login = self.login()?;
        Err(topic_refusal(access, &key, &exchange.name, &login.vhost, &login.user.name))
    }

    /// 403 unless the user has any permission on the resource.
    fn check_any(&self, kind: ResourceKind, name: &str) -> Result<(), Exception> {
        for access in [Access::Configure, Access::Write, Access::Read] {
            if self.may_use(access, kind, name)? {
                return Ok(());
            }
            if self.has_question() {
                break;
            }
        }
        let login = self.login()?;
        Err(refusal(Access::Configure, kind, name, &login.vhost, &login.user.name))
    }

    /// A queue this connection may use: it exists, and is not another connection's.
    fn usable_queue(&self, name: &QueueName) -> Result<Arc<crate::model::entity::Queue>, Exception> {
        let login = self.login()?;
        let queue = self.vhost()?.queues.get(name).ok_or_else(|| Exception::no_queue(name, &login.vhost))?;
        if queue.exclusive.is_some_and(|owner| owner != self.connection) {
            return Err(Exception::queue_locked(name, &login.vhost));
        }
        Ok(Arc::clone(queue))
    }

    /// Sends a command to a queue that answers the channel.
    fn command(
        &mut self,
        channel: ChannelRef,
        queue: QueueId,
        command: Command,
        kind: AskKind,
    ) -> Result<Option<Answer>, Exception> {
        self.send(self.shard_of(queue), Envelope::Command { queue, command, ask: Some((channel, kind)) });
        Ok(None)
    }
}

/// 403 for the default exchange.
fn refuse_default(name: &ExchangeName) -> Result<(), Exception> {
    if name.as_str().is_empty() {
        return Err(Exception::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

impl Ask {
    /// Whether the queue it speaks of may vanish before its shard hears of it, so that it has to be asked again.
    fn may_be_repeated(&self) -> bool {
        matches!(self, Self::DeclareQueue(_) | Self::Consume(_) | Self::Get { .. } | Self::PurgeQueue { .. })
    }
}
