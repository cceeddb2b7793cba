//! The composition: owns definitions and queues, and gives every front end a session.
//!
//! ```text
//! Session ──batches──► Mailbox ──► Shard::turn ──► TurnOutput ──► Outboxes
//!    │                                  ▲   │                        ▲
//!    │                                  │   └─► Journal ──► log ─────┘ (what waited for it)
//!    └── declare, bind … ──► Metadata ──┘ (new queues)   ──► Topology snapshot ──► sessions, shards
//! ```
//!
//! Lock order: a shard, then the metadata, then the journal, then mailboxes and outboxes. None is held across an await.

mod administration;
mod arguments;
mod auth;
mod authority;
pub mod definitions;
mod described;
mod envelope;
pub mod events;
mod firehose;
mod journal;
mod link;
mod loads;
pub mod login_attempts;
mod mailbox;
mod metadata;
mod outbox;
pub mod policy;
mod recovery;
mod registry;
mod replies;
mod session;
mod shard;
mod stored;
#[cfg(test)]
mod tests;
mod topology;
mod vhost_defaults;

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

pub use administration::AdministrationError;
pub use auth::{
    Access, HashAlgorithm, PasswordHash, PatternError, Permission, ResourceKind, TopicPermission, User, UserLimits,
};
pub use authority::{
    AuthError, Authenticate, Authority, Authorize, Credentials, Eventually, Identity, Occasion, Question,
};
pub use metadata::{Existed, is_predeclared};
pub use outbox::{CreditPool, Outbox};
pub use registry::{Registered, Registry};
pub use session::{Pending, Session, Verdict};
pub use topology::{Topology, VhostTopology};
pub use vhost_defaults::VhostDefaults;

pub use crate::routing::{check_binding, check_exchange_arguments};

use crate::log::{Batch, CommitError, Log, LogError, METADATA, Report, Severity, Storage};
use crate::model::ids::{ConnectionId, MessageIndex, QueueId, Timestamp};
use crate::model::names::{UserName, VhostName};
use crate::model::narrow::narrow;
use crate::model::statistics::{ChurnNumber, LogNumber, LogStatistics};
use crate::model::vhost::VhostMetadata;

pub use recovery::OpenError;

use envelope::Envelope;
use events::{EVENT_EXCHANGE, EVENT_VHOST, News};
use journal::{Journal, Submission};
use loads::Loads;
use login_attempts::LoginAttempts;
pub use login_attempts::network_of;
use mailbox::Mailbox;
use metadata::Metadata;
use recovery::DefinitionsLog;
use replies::ReplyRegistry;
use shard::{Removed, Shard, TurnOutput};

/// Turns a caller runs in a row before it leaves the rest to the shard's own task.
const INLINE_TURNS: usize = 4;
/// Work of turns, as a shard counts it, after which the rest is left as well.
const INLINE_WORK: usize = 16 * 1024;

/// What the broker is made with; from the configuration.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    pub shards: u16,
    /// Used when a declaration has no `x-queue-type`.
    pub default_queue_type: crate::model::entity::QueueType,
    /// Closes channels whose deliveries are not acknowledged in time; none is never.
    pub consumer_timeout_ms: Option<u64>,
    pub expire_at_head_only: bool,
    pub transient_nonexclusive_queues: bool,
    /// As error texts name it.
    pub node_name: String,
    /// Users who may only log in from this host.
    pub loopback_users: Vec<UserName>,
    /// The user of SASL ANONYMOUS.
    pub anonymous_user: Option<UserName>,
    /// Bytes of queued messages in memory above which queues page out what the log has.
    pub memory_budget: u64,
    pub limits: Limits,
    /// What a vhost begins with.
    pub vhost_defaults: VhostDefaults,
}

/// Upper bounds; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_user: usize,
    pub channels: usize,
    pub channels_per_user: usize,
    pub queues: usize,
    pub queues_per_vhost: usize,
    pub exchanges: usize,
    pub exchanges_per_vhost: usize,
    pub vhosts: usize,
}

/// A definition that the broker starts with is not possible.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("user {user}: permission for vhost {vhost}: {error}")]
    Pattern { user: UserName, vhost: VhostName, error: PatternError },
    #[error("user {user}: there is no vhost {vhost}")]
    NoVhost { user: UserName, vhost: VhostName },
    #[error("the definitions cannot be stored: {0}")]
    Store(#[from] CommitError),
}

struct ShardCell {
    mailbox: Mailbox<Envelope>,
    state: Mutex<Shard>,
    /// Up to where records of queues can be read back. It does not wait behind the mailbox: what fills that waits for memory.
    flushed: Mailbox<(QueueId, MessageIndex)>,
    /// Wakes the shard's own task: work is left, or an earlier alarm is set.
    wake: Notify,
    /// The shard's `held`, as of its last turn.
    held: AtomicU64,
    /// The alarm its task sleeps until; `u64::MAX` when it sleeps without.
    alarm: AtomicU64,
}

/// The broker. Sessions and the server share it.
pub struct Broker {
    /// But for what `set_limits` and `set_vhost_defaults` change.
    settings: BrokerSettings,
    limits: ArcSwap<Limits>,
    vhost_defaults: ArcSwap<VhostDefaults>,
    shards: Vec<ShardCell>,
    metadata: Mutex<Metadata>,
    /// Locked under the metadata.
    definitions: Mutex<DefinitionsLog>,
    /// Who wants to know of events; the topology has it too.
    news: Arc<News>,
    topology: ArcSwap<Topology>,
    disk: Arc<dyn Storage>,
    log: Log,
    journal: Journal,
    loads: Loads,
    /// What the shards share.
    common: shard::Common,
    /// Bytes of publishes that open transactions hold.
    transaction_bytes: Arc<AtomicU64>,
    replies: ReplyRegistry,
    connections: AtomicUsize,
    /// The connections that front ends have made known.
    pub registry: Registry,
    /// Written by whoever writes and reads the log.
    pub log_statistics: LogStatistics,
    channels: AtomicUsize,
    per_user: DashMap<UserName, UserCounts>,
    /// Connections.
    per_vhost: DashMap<VhostName, usize>,
    next_connection: AtomicU64,
    stopping: AtomicBool,
    /// Who is asked about logins with a password; unset: nobody but the broker's own users.
    authenticator: OnceLock<Arc<dyn Authenticate>>,
    /// Logins that succeeded and failed.
    pub login_attempts: LoginAttempts,
}

#[derive(Debug, Default)]
struct UserCounts {
    connections: usize,
    channels: usize,
}

impl Broker {
    /// Adds a vhost that the configuration names, with its predeclared exchanges, however many there are.
    pub fn add_vhost(&self, name: &VhostName, metadata: VhostMetadata) {
        self.define(|definitions| {
            if definitions.set_vhost(name, metadata) == Existed::No {
                self.vhost_defaults.load().apply(definitions, name);
            }
        });
    }

    /// Adds a user; every vhost it has permissions in must exist.
    pub fn add_user(&self, user: User) -> Result<(), DefinitionError> {
        let topology = self.topology.load();
        if let Some(vhost) = user.permissions.keys().find(|vhost| topology.vhost(vhost).is_none()) {
            return Err(DefinitionError::NoVhost { user: user.name.clone(), vhost: vhost.clone() });
        }
        self.define(|metadata| metadata.add_user(user));
        Ok(())
    }

    /// The limits in force.
    pub(in crate::broker) fn limits(&self) -> Limits {
        **self.limits.load()
    }

    /// Sets the limits for what is opened and made from now on.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Sets what vhosts begin with that are made from now on.
    pub fn set_vhost_defaults(&self, defaults: VhostDefaults) {
        self.vhost_defaults.store(Arc::new(defaults));
    }

    /// A number for a new connection.
    pub fn new_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Open connections, and how many there may be; 0 is no limit.
    #[must_use]
    pub fn connection_count(&self) -> (usize, usize) {
        (self.connections.load(Ordering::Relaxed), self.limits().connections)
    }

    #[must_use]
    pub fn shard_count(&self) -> u16 {
        narrow(self.shards.len(), "the number of shards is set in 16 bits")
    }

    /// Bytes of memory that messages take, where they stay: in queues and histories, ready or unacknowledged; on their way
    /// to the log; in open transactions. One that is in several places counts in each.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.queued_bytes() + self.transaction_bytes() + self.journal.bytes()
    }

    /// Those in queues and histories.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.shards.iter().map(|cell| cell.held.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of memory that a queue takes besides its messages.
    #[must_use]
    pub fn queue_memory(&self) -> u64 {
        shard::QUEUE_MEMORY
    }

    /// Those in open transactions.
    #[must_use]
    pub fn transaction_bytes(&self) -> u64 {
        self.transaction_bytes.load(Ordering::Relaxed)
    }

    /// What the log has in memory: batches on their way to it, and where which entry is.
    #[must_use]
    pub fn log_memory(&self) -> u64 {
        self.journal.bytes() + self.log.memory()
    }

    /// While memory is scarce: queued messages are to take no more than this many bytes of it, as far as the log has them,
    /// even if their budget is larger.
    pub fn limit_memory(&self, bytes_max: Option<u64>) {
        let share = bytes_max.map_or(u64::MAX, |bytes| bytes / self.shards.len().max(1) as u64);
        if self.common.memory_ceiling.swap(share, Ordering::Relaxed) != share {
            self.shards.iter().for_each(|cell| cell.wake.notify_one());
        }
    }

    /// Waits until the shard's own task is needed: somebody left work, or an earlier alarm was set.
    pub async fn shard_needed(&self, shard: u16) {
        if let Some(cell) = self.shards.get(usize::from(shard)) {
            cell.wake.notified().await;
        }
    }

    /// When the shard is to be driven although nothing arrives. While it waits for the log it is woken when it may go on.
    #[must_use]
    pub fn shard_alarm(&self, shard: u16) -> Option<Timestamp> {
        if self.journal.holds_back() {
            return None;
        }
        let alarm = self.shards.get(usize::from(shard))?.alarm.load(Ordering::Acquire);
        (alarm != u64::MAX).then_some(Timestamp(alarm))
    }

    /// Runs turns of a shard, unless somebody else does, until its mailbox is empty or the bound is reached; then the
    /// shard's own task goes on. None while the log is too far behind: then the task goes on once it is not.
    pub fn drive(&self, shard: u16, now: Timestamp) {
        let cell = &self.shards[usize::from(shard)];
        let mut done = 0;
        for _ in 0..INLINE_TURNS {
            if self.journal.holds_back() {
                return;
            }
            // Whoever holds the lock looks at the mailbox again after releasing it.
            let Some(mut state) = self.begin_turn(cell, now) else { return };
            while self.dispatch(shard, &mut state.output) {}
            done += state.work_of_turn();
            if !Self::end_turn(cell, state) {
                return;
            }
            if done >= INLINE_WORK {
                break;
            }
        }
        cell.wake.notify_one();
    }

    /// What connections that publish share.
    #[must_use]
    pub fn credit_pool(&self) -> &Arc<CreditPool> {
        &self.common.credit_pool
    }

    /// Takes a shard, unless somebody else has it, and runs a turn on what is in its mailbox.
    fn begin_turn<'a>(&self, cell: &'a ShardCell, now: Timestamp) -> Option<MutexGuard<'a, Shard>> {
        let mut state = cell.state.try_lock()?;
        if state.inbox.is_empty() {
            cell.mailbox.take_all(&mut state.inbox);
        }
        let mut flushed = VecDeque::new();
        cell.flushed.take_all(&mut flushed);
        state.flushed(&flushed);
        let topology = self.topology.load();
        state.turn(now, &topology);
        Some(state)
    }

    /// Lets go of a shard whose turn is dispatched. Whether it has more to do.
    fn end_turn(cell: &ShardCell, state: MutexGuard<'_, Shard>) -> bool {
        let left = state.has_work();
        cell.held.store(state.held(), Ordering::Relaxed);
        let alarm = state.next_alarm().map_or(u64::MAX, |at| at.0);
        let before = cell.alarm.swap(alarm, Ordering::AcqRel);
        drop(state);
        if alarm < before {
            cell.wake.notify_one();
        }
        left || !cell.mailbox.is_empty()
    }

    /// Whether dead letters are on their way that somebody waits for: what they come from is not settled before.
    #[must_use]
    pub fn has_letters_under_way(&self) -> bool {
        self.shards.iter().any(|cell| cell.state.lock().has_letters_under_way())
    }

    /// Runs a turn of every shard that has mail. Whether any had: it may have written to others.
    pub fn finish_turns(&self, now: Timestamp) -> bool {
        let mut any = false;
        for (shard, cell) in (0..).zip(&self.shards) {
            // Whoever runs a turn at present ends it before this one is looked at.
            let is_busy = cell.state.lock().has_work() || !cell.mailbox.is_empty();
            if is_busy {
                self.drive(shard, now);
            }
            any |= is_busy;
        }
        any
    }

    /// Hands on the next piece of what a turn left: everybody else may do something between one piece and the next. Whether
    /// there was any.
    fn dispatch(&self, shard: u16, output: &mut TurnOutput) -> bool {
        if !output.removed.is_empty() {
            if output.submission.batch.is_empty() {
                self.remove_queues(&mut output.removed, &mut output.submission.batch);
            } else {
                // What was done before a queue ended precedes its end in the log, and nobody hears of anything before that.
                let batch = mem::replace(&mut output.submission.batch, self.journal.spare());
                self.submit(Submission { batch, ..Submission::default() });
            }
            return true;
        }
        if output.logged > 0 {
            self.log_statistics.add_shared(LogNumber::Writes, mem::take(&mut output.logged));
        }
        for notice in output.notices.drain(..) {
            self.announce(notice);
        }
        for connection in output.resumed.drain(..) {
            for other in (0..self.shard_count()).filter(|other| *other != shard) {
                output.remote[usize::from(other)].push(Envelope::Resume(connection));
            }
        }
        let remote = (0..).zip(&mut output.remote).find(|(_, envelopes)| !envelopes.is_empty());
        if let Some((target, envelopes)) = remote {
            let made = i64::try_from(envelopes.len()).expect("there are fewer");
            self.common.credit_pool.change_own(made);
            self.post(target, Envelope::FromShard(mem::take(envelopes)));
            return true;
        }
        if !output.submission.is_empty() {
            let next = Submission { batch: self.journal.spare(), ..Submission::default() };
            self.submit(mem::replace(&mut output.submission, next));
            return true;
        }
        if !output.loads.is_empty() {
            self.loads.add(&mut output.loads);
            return true;
        }
        if output.loaded > 0 {
            self.loads.taken(mem::take(&mut output.loaded));
        }
        for (queue, count) in output.lost.drain(..) {
            tracing::error!(queue = queue.0, count, "messages are lost: their records are damaged");
        }
        for (outbox, mut events) in output.events.drain(..) {
            outbox.push(&mut events);
            if output.spare.len() < 16 {
                output.spare.push(events);
            }
        }
        false
    }

    /// Removes the definitions of queues that are gone, then what the log has of them.
    fn remove_queues(&self, removed: &mut Vec<Removed>, batch: &mut Batch) {
        let mut deleted = 0;
        for Removed { queue, user, recorded } in removed.drain(..) {
            let was_there = events::acting_as(user, || {
                self.define(|metadata| metadata.remove_queue(&queue.vhost, &queue.name, queue.id))
            });
            deleted += u64::from(was_there);
            if recorded {
                batch.drop_log(crate::log::LogId(queue.id.0));
            }
        }
        self.registry.churn.add_shared(ChurnNumber::QueuesDeleted, deleted);
    }

    /// Leaves something for a shard's own task.
    fn post(&self, shard: u16, envelope: Envelope) {
        if let Some(cell) = self.shards.get(usize::from(shard)) {
            cell.mailbox.push(&mut vec![envelope]);
            cell.wake.notify_one();
        }
    }

    /// Changes definitions, hands what is durable of it to the journal, and publishes the new snapshot.
    fn define<T>(&self, change: impl FnOnce(&mut Metadata) -> T) -> T {
        self.define_and_post(|metadata, _| change(metadata))
    }

    /// The same; the envelopes `change` leaves reach their shards after the journal and before anybody can route to what
    /// is new.
    fn define_and_post<T>(&self, change: impl FnOnce(&mut Metadata, &mut Vec<(u16, Envelope)>) -> T) -> T {
        let mut metadata = self.metadata.lock();
        let mut envelopes = Vec::new();
        let outcome = change(&mut metadata, &mut envelopes);
        self.log_definitions(&mut metadata);
        for (shard, envelope) in envelopes {
            if let Some(cell) = self.shards.get(usize::from(shard)) {
                cell.mailbox.push(&mut vec![envelope]);
            }
        }
        for (vhost, exchange) in metadata.take_forgotten() {
            self.post(0, Envelope::Forget { vhost, exchange });
        }
        self.topology.store(Arc::new(metadata.topology().clone()));
        self.news.set_bound(metadata.is_bound(&EVENT_VHOST.into(), &EVENT_EXCHANGE.into()));
        for notice in metadata.take_notices() {
            self.announce(notice);
        }
        outcome
    }

    /// Waits until there is something for `write_log`, at most `timeout`.
    pub async fn wait_for_log(&self, timeout: Duration) {
        self.journal.wait(timeout).await;
    }

    /// Whether `wait_for_log` would not wait.
    #[must_use]
    pub fn log_is_due(&self) -> bool {
        self.journal.is_due()
    }

    /// Writes what was submitted to the log, and lets go what waited for it. Whether there was anything.
    ///
    /// When the disk or the log is full it is tried again by the next call; nothing has gone out until it succeeds.
    pub fn write_log(&self) -> Result<bool, CommitError> {
        self.journal.write(self)
    }

    /// Hands to the journal what is to be written, and what waits for it.
    fn submit(&self, submission: Submission) {
        self.journal.submit(submission, self);
    }

    /// Whether `maintain_log` has something to do that others wait for.
    #[must_use]
    pub fn log_wants_care(&self) -> bool {
        self.log.wants_maintenance()
    }

    /// Syncs what was written without a sync, in the modes that do so.
    pub fn sync_log(&self) -> Result<(), LogError> {
        self.journal.sync()
    }

    /// Does one piece of the log's housekeeping. Whether there may be more.
    pub fn maintain_log(&self) -> Result<bool, CommitError> {
        let done = self.log.maintain()?;
        tell(&done.reports);
        let definitions_left = done.flushed.iter().any(|(log, _)| *log == METADATA);
        let mut flushed: Vec<Vec<(QueueId, MessageIndex)>> = vec![Vec::new(); self.shards.len()];
        for (log, index) in done.flushed {
            let queue = QueueId(log.0);
            if let Some(list) = flushed.get_mut(usize::from(metadata::shard_of(queue, self.shard_count()))) {
                list.push((queue, MessageIndex(index)));
            }
        }
        for (cell, mut list) in self.shards.iter().zip(flushed) {
            if !list.is_empty() {
                cell.flushed.push(&mut list);
                cell.wake.notify_one();
            }
        }
        let stored = self.store_definitions_if_due(definitions_left)?;
        Ok(done.worked || stored)
    }

    /// Reads what some queue asked the log for, waiting for a request at most `timeout`. Whether there was one.
    ///
    /// # Errors
    ///
    /// `NoSpace`: descriptors or memory are short; to be called again later, the request is kept.
    pub fn serve_load(&self, timeout: Duration) -> Result<bool, CommitError> {
        let read = self.read_load(timeout)?;
        let any = read.is_some();
        if let Some((shard, envelope)) = read {
            self.post(shard, envelope);
        }
        Ok(any)
    }

    /// The same, without telling the queue's shard.
    fn read_load(&self, timeout: Duration) -> Result<Option<(u16, Envelope)>, CommitError> {
        let Some(request) = self.loads.take(timeout) else { return Ok(None) };
        let envelope::LoadRequest { queue, first, last } = request;
        let read = match self.log.read(crate::log::LogId(queue.0), first, last).map_err(CommitError::from) {
            Ok(read) => read,
            Err(error) => {
                self.loads.put_back(request);
                return Err(error);
            }
        };
        tell(&read.reports);
        let mut scratch = Vec::new();
        let mut entries = Vec::with_capacity(read.entries.len());
        for entry in &read.entries {
            match stored::read(entry, &mut scratch) {
                Ok(loaded) => entries.push(loaded),
                Err(error) => {
                    tracing::error!(queue = queue.0, index = entry.head.index, %error, "a stored message is unreadable");
                }
            }
        }
        self.log_statistics.add_shared(LogNumber::Reads, entries.len() as u64);
        let shard = metadata::shard_of(queue, self.shard_count());
        Ok(Some((shard, Envelope::Loaded { queue, first, last, entries })))
    }

    /// Records read from the log and written to it for queues.
    #[must_use]
    pub fn log_operations(&self) -> (u64, u64) {
        (self.log_statistics.get(LogNumber::Reads), self.log_statistics.get(LogNumber::Writes))
    }

    /// What the log takes on the disk.
    #[must_use]
    pub fn log_usage(&self) -> crate::log::Usage {
        self.log.usage()
    }

    /// Refuses new connections from here on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Makes the waits for the log short.
    pub fn stop_log(&self) {
        self.journal.stop();
    }
}

impl journal::Shards for Broker {
    fn letters_kept(&self, shard: u16, numbers: Vec<u64>) {
        self.post(shard, Envelope::LettersKept(numbers));
    }

    fn go_on(&self) {
        self.shards.iter().for_each(|cell| cell.wake.notify_one());
    }
}

/// Logs what the log reports.
fn tell(reports: &[Report]) {
    for report in reports {
        match report.severity {
            Severity::Notice => tracing::warn!("{}", report.text),
            Severity::Loss => tracing::error!("{}", report.text),
        }
    }
}
