//! The composition: owns definitions and queues, and gives every front end a session.
//!
//! ```text
//! Session ──batches──► Mailbox ──► Shard::turn ──► TurnOutput ──► Outboxes
//!    │                                  ▲
//!    └── declare, bind … ──► Metadata ──┘ (new queues)   ──► Topology snapshot ──► sessions, shards
//! ```
//!
//! Lock order: a shard, then the metadata, then mailboxes and outboxes. None is held across an await.

mod auth;
pub mod definitions;
mod link;
mod mailbox;
mod metadata;
mod outbox;
mod replies;
mod session;
mod shard;
#[cfg(test)]
mod tests;
mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use auth::{PasswordHash, PatternError, Permission, User};
pub use outbox::Outbox;
pub use session::Session;
pub use topology::{Topology, VhostTopology};

use crate::model::ids::{ConnectionId, Timestamp};
use crate::model::names::{UserName, VhostName};

use mailbox::Mailbox;
use metadata::Metadata;
use replies::ReplyRegistry;
use shard::{Envelope, Shard, TurnOutput};

/// Turns a caller runs in a row before it leaves the rest to the shard's own task.
const INLINE_TURNS: usize = 4;

/// What the broker is made with; from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub shards: u16,
    /// Used when a declaration has no `x-queue-type`.
    pub default_queue_type: crate::model::entity::QueueType,
    /// Closes channels whose deliveries are not acknowledged in time; none is never.
    pub consumer_timeout_ms: Option<u64>,
    pub expire_at_head_only: bool,
    pub transient_nonexclusive_queues: bool,
    /// As error texts name it.
    pub node_name: String,
    /// The user of SASL ANONYMOUS.
    pub anonymous_user: Option<UserName>,
    pub limits: Limits,
}

/// Upper bounds; 0 is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_user: usize,
    pub channels: usize,
    pub channels_per_user: usize,
    pub queues_per_vhost: usize,
    pub exchanges_per_vhost: usize,
}

/// A definition that the broker starts with is not possible.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("user {user}: permission for vhost {vhost}: {error}")]
    Pattern { user: UserName, vhost: VhostName, error: PatternError },
    #[error("user {user}: there is no vhost {vhost}")]
    NoVhost { user: UserName, vhost: VhostName },
}

struct ShardCell {
    mailbox: Mailbox<Envelope>,
    state: Mutex<Shard>,
    /// Wakes the shard's own task: work is left, or an earlier alarm is set.
    wake: Notify,
    /// The shard's `held`, as of its last turn.
    held: AtomicU64,
    /// The alarm its task sleeps until; `u64::MAX` when it sleeps without.
    alarm: AtomicU64,
}

/// The broker. Sessions and the server share it.
pub struct Broker {
    settings: Settings,
    shards: Vec<ShardCell>,
    metadata: Mutex<Metadata>,
    topology: ArcSwap<Topology>,
    replies: ReplyRegistry,
    connections: AtomicUsize,
    channels: AtomicUsize,
    per_user: DashMap<UserName, UserCounts>,
    next_connection: AtomicU64,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct UserCounts {
    connections: usize,
    channels: usize,
}

impl Broker {
    #[must_use]
    pub fn new(settings: Settings) -> Arc<Self> {
        let count = settings.shards.max(1);
        let cell = |index| ShardCell {
            mailbox: Mailbox::default(),
            state: Mutex::new(Shard::new(index, count)),
            wake: Notify::new(),
            held: AtomicU64::new(0),
            alarm: AtomicU64::new(u64::MAX),
        };
        Arc::new(Self {
            shards: (0..count).map(cell).collect(),
            metadata: Mutex::new(Metadata::new(&settings)),
            topology: ArcSwap::from_pointee(Topology::default()),
            replies: ReplyRegistry::default(),
            connections: AtomicUsize::new(0),
            channels: AtomicUsize::new(0),
            per_user: DashMap::new(),
            next_connection: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            settings,
        })
    }

    /// Adds a vhost with its predeclared exchanges.
    pub fn add_vhost(&self, name: &VhostName) {
        self.define(|metadata| metadata.add_vhost(name));
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

    /// A number for a new connection.
    pub fn new_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    #[must_use]
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX)
    }

    /// Bytes of memory that the messages in all queues take, roughly.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.shards.iter().map(|cell| cell.held.load(Ordering::Relaxed)).sum()
    }

    /// Waits until the shard's own task is needed: somebody left work, or an earlier alarm was set.
    pub async fn shard_needed(&self, shard: u16) {
        if let Some(cell) = self.shards.get(usize::from(shard)) {
            cell.wake.notified().await;
        }
    }

    /// When the shard is to be driven although nothing arrives.
    #[must_use]
    pub fn shard_alarm(&self, shard: u16) -> Option<Timestamp> {
        let alarm = self.shards.get(usize::from(shard))?.alarm.load(Ordering::Acquire);
        (alarm != u64::MAX).then_some(Timestamp(alarm))
    }

    /// Runs turns of a shard, unless somebody else does, until its mailbox is empty or the bound is reached; then the
    /// shard's own task goes on.
    pub fn drive(&self, shard: u16, now: Timestamp) {
        let Some(cell) = self.shards.get(usize::from(shard)) else { return };
        for _ in 0..INLINE_TURNS {
            // Whoever holds the lock looks at the mailbox again after releasing it.
            let Some(mut state) = cell.state.try_lock() else { return };
            if state.inbox.is_empty() {
                cell.mailbox.take_all(&mut state.inbox);
            }
            let topology = self.topology.load();
            state.turn(now, &topology);
            drop(topology);
            let output = &mut state.output;
            self.dispatch(shard, output, now);
            let left = !state.inbox.is_empty();
            cell.held.store(state.held(), Ordering::Relaxed);
            let alarm = state.next_alarm().map_or(u64::MAX, |at| at.0);
            let before = cell.alarm.swap(alarm, Ordering::AcqRel);
            drop(state);
            if alarm < before {
                cell.wake.notify_one();
            }
            if !left && cell.mailbox.is_empty() {
                return;
            }
        }
        cell.wake.notify_one();
    }

    fn dispatch(&self, shard: u16, output: &mut TurnOutput, _now: Timestamp) {
        if !output.removed.is_empty() {
            self.define(|metadata| {
                for queue in output.removed.drain(..) {
                    metadata.remove_queue(&queue.vhost, &queue.name, queue.id);
                }
            });
        }
        for (target, envelope) in output.remote.drain(..) {
            self.post(target, envelope);
        }
        for connection in output.resumed.drain(..) {
            for other in (0..self.shard_count()).filter(|other| *other != shard) {
                self.post(other, Envelope::Resume(connection));
            }
        }
        for (outbox, mut events) in output.events.drain(..) {
            outbox.push(&mut events);
            if output.spare.len() < 16 {
                output.spare.push(events);
            }
        }
    }

    /// Leaves something for a shard's own task.
    fn post(&self, shard: u16, envelope: Envelope) {
        if let Some(cell) = self.shards.get(usize::from(shard)) {
            cell.mailbox.push(&mut vec![envelope]);
            cell.wake.notify_one();
        }
    }

    /// Changes definitions and publishes the new snapshot.
    fn define<T>(&self, change: impl FnOnce(&mut Metadata) -> T) -> T {
        let mut metadata = self.metadata.lock();
        let outcome = change(&mut metadata);
        for (vhost, exchange) in metadata.take_forgotten() {
            self.post(0, Envelope::Forget { vhost, exchange });
        }
        self.topology.store(Arc::new(metadata.topology().clone()));
        outcome
    }

    /// Refuses new connections from here on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}
