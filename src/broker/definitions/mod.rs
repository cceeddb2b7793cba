//! The durable form of definitions: the changes that rebuild them, their bytes in the log, and snapshots.
//!
//! ```text
//! Metadata ── take_changes ──► Change ── encode ──► log
//!          ── durable ───────► Change… ── encode_snapshot, store ──► definitions/….snapshot
//! load ──► Change… and then Change::decode of the log's entries ── replay ──► Metadata
//! ```
//!
//! A change says what became of one thing; it never asks a replay to work out consequences, which may depend on transient
//! definitions that are gone. Whatever puts a thing there puts it there fresh, without bindings, and whatever removes one
//! takes its bindings with it. So changes may be replayed over a snapshot that contains them already: what is wrong in
//! between is right after the last one.

mod entry;
mod files;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

pub use entry::DecodeError;
pub use files::{FileError, verify};
pub(super) use files::{load, store};
use snapshot::through_of;
pub use snapshot::{Snapshot, SnapshotError, decode_snapshot, encode_snapshot};

use crate::model::entity::{Binding, Exchange, Queue};
use crate::model::ids::QueueId;
use crate::model::names::{ExchangeName, QueueName, UserName, VhostName};
use crate::model::table::FieldTable;
use crate::model::vhost::VhostMetadata;

use super::BrokerSettings;
use super::arguments::queue_options;
use super::auth::User;

/// The first id of a queue: 1 is the log of definitions, and the others are reserved.
pub(super) const FIRST_QUEUE: u64 = 16;

/// What became of one durable definition.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// There is this vhost, with the exchanges that every vhost has from the start; one that exists keeps all that is in
    /// it.
    SetVhost {
        vhost: VhostName,
        metadata: Arc<VhostMetadata>,
    },
    /// A vhost is gone with all that was in it, and all permissions in it.
    RemoveVhost {
        vhost: VhostName,
    },
    /// A user is as it says, whether it existed or not.
    SetUser {
        user: Arc<User>,
    },
    RemoveUser {
        user: UserName,
    },
    /// A runtime parameter of a vhost, policies among them, or of the whole cluster.
    SetParameter {
        vhost: Option<VhostName>,
        component: Arc<str>,
        name: Arc<str>,
        value: Arc<Value>,
    },
    RemoveParameter {
        vhost: Option<VhostName>,
        component: Arc<str>,
        name: Arc<str>,
    },
    /// There is this exchange, with no bindings, in place of any of its name.
    AddExchange {
        vhost: VhostName,
        exchange: Arc<Exchange>,
    },
    /// An exchange is gone with all bindings from and to it.
    RemoveExchange {
        vhost: VhostName,
        exchange: ExchangeName,
    },
    /// There is this queue, with no bindings, in place of any of its name.
    AddQueue {
        vhost: VhostName,
        queue: QueueDefinition,
    },
    /// The queue of this id is gone with all bindings to it.
    RemoveQueue {
        vhost: VhostName,
        queue: QueueName,
        id: QueueId,
    },
    /// Both ends exist, and so does the binding.
    Bind {
        vhost: VhostName,
        binding: Arc<Binding>,
    },
    Unbind {
        vhost: VhostName,
        binding: Arc<Binding>,
    },
    /// Ids below this may have been given to queues, durable or not; new queues get this one and higher ones.
    ReserveQueueIds {
        below: u64,
    },
}

/// What is durable of a durable queue; the rest follows from it and the settings.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDefinition {
    pub id: QueueId,
    pub name: QueueName,
    pub auto_delete: bool,
    pub arguments: FieldTable,
}

/// A change does not fit the definitions: they are not those of its log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("there is no vhost '{0}'")]
    NoVhost(VhostName),
    #[error("parameter '{name}' of {component}: {error}")]
    Parameter { component: Arc<str>, name: Arc<str>, error: String },
    #[error("{0} cannot be the id of a queue")]
    QueueId(u64),
    #[error("queue '{queue}' in vhost '{vhost}': its id {id} is that of another queue", id = .id.0)]
    TakenQueueId { vhost: VhostName, queue: QueueName, id: QueueId },
}

impl QueueDefinition {
    pub(super) fn of(queue: &Queue) -> Self {
        Self {
            id: queue.id,
            name: queue.name.clone(),
            auto_delete: queue.auto_delete,
            arguments: queue.arguments.clone(),
        }
    }

    /// The queue as the settings of now have it.
    pub(super) fn into_queue(self, vhost: VhostName, settings: &BrokerSettings) -> Queue {
        let options = queue_options(&self.arguments, self.auto_delete, settings);
        Queue {
            id: self.id,
            vhost,
            name: self.name,
            durable: true,
            exclusive: None,
            auto_delete: self.auto_delete,
            arguments: self.arguments,
            options,
            policy: None,
            statistics: Arc::default(),
        }
    }
}

/// Whether a queue comes back after a restart.
pub(super) fn survives(queue: &Queue) -> bool {
    queue.durable && queue.exclusive.is_none()
}
