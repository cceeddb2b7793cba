//! The immutable snapshot of definitions that sessions and shards work with. A change makes a new one that shares all it
//! did not touch; nobody ever sees half a change.

use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use serde_json::Value;

use crate::model::entity::{Exchange, Queue};
use crate::model::ids::QueueId;
use crate::model::names::{ExchangeName, QueueName, UserName, VhostName};
use crate::model::statistics::{ExchangeStatistics, RemovedSum};
use crate::model::vhost::{VhostLimits, VhostMetadata};
use crate::routing::RoutingTable;

use super::auth::User;
use super::events::News;
use super::policy::Policies;

/// All vhosts and users.
#[derive(Clone, Default)]
pub struct Topology {
    pub(super) vhosts: HashTrieMapSync<VhostName, Arc<VhostTopology>>,
    pub(super) users: HashTrieMapSync<UserName, Arc<User>>,
    /// Runtime parameters of the whole cluster, by name.
    pub(super) globals: RedBlackTreeMapSync<Arc<str>, Arc<Value>>,
    /// What queues and exchanges counted that are not in this snapshot any more.
    pub removed: Arc<RemovedSum>,
    /// Some vhost's tracing is on.
    pub(super) has_tracing: bool,
    /// The same in all snapshots.
    pub(super) news: Arc<News>,
}

/// One vhost.
#[derive(Clone, Default)]
pub struct VhostTopology {
    pub routing: RoutingTable,
    pub exchanges: HashTrieMapSync<ExchangeName, Arc<Exchange>>,
    pub queues: HashTrieMapSync<QueueName, Arc<Queue>>,
    pub names: HashTrieMapSync<QueueId, QueueName>,
    pub exchange_statistics: HashTrieMapSync<ExchangeName, Arc<ExchangeStatistics>>,
    pub metadata: Arc<VhostMetadata>,
    /// Messages are copied to the trace exchange.
    pub tracing: bool,
    /// By component and name; policies and limits among them.
    pub parameters: RedBlackTreeMapSync<(Arc<str>, Arc<str>), Arc<Value>>,
    pub policies: Arc<Policies>,
    pub limits: VhostLimits,
}

impl Topology {
    #[must_use]
    pub fn vhost(&self, name: &VhostName) -> Option<&Arc<VhostTopology>> {
        self.vhosts.get(name)
    }

    #[must_use]
    pub fn user(&self, name: &UserName) -> Option<&Arc<User>> {
        self.users.get(name)
    }

    /// The queues of all vhosts.
    #[must_use]
    pub(super) fn queue_count(&self) -> usize {
        self.vhosts.values().map(|vhost| vhost.queues.size()).sum()
    }

    /// The exchanges of all vhosts.
    #[must_use]
    pub(super) fn exchange_count(&self) -> usize {
        self.vhosts.values().map(|vhost| vhost.exchanges.size()).sum()
    }

    /// All vhosts, by name.
    #[must_use]
    pub fn vhosts(&self) -> Vec<(&VhostName, &Arc<VhostTopology>)> {
        let mut vhosts: Vec<_> = self.vhosts.iter().collect();
        vhosts.sort_by(|a, b| a.0.cmp(b.0));
        vhosts
    }

    /// All users, by name.
    #[must_use]
    pub fn users(&self) -> Vec<&Arc<User>> {
        let mut users: Vec<_> = self.users.values().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// The cluster's runtime parameters, by name.
    pub fn globals(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Value>)> {
        self.globals.iter()
    }

    #[must_use]
    pub fn global(&self, name: &str) -> Option<&Arc<Value>> {
        self.globals.get(name)
    }
}
