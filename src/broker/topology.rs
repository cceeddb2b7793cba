//! The immutable snapshot of definitions that sessions and shards work with. A change makes a new one that shares all it
//! did not touch; nobody ever sees half a change.

use std::sync::Arc;

use rpds::HashTrieMapSync;

use crate::model::entity::{Exchange, Queue};
use crate::model::ids::QueueId;
use crate::model::names::{ExchangeName, QueueName, UserName, VhostName};
use crate::routing::RoutingTable;

use super::auth::User;

/// All vhosts and users.
#[derive(Clone, Default)]
pub struct Topology {
    pub(super) vhosts: HashTrieMapSync<VhostName, Arc<VhostTopology>>,
    pub(super) users: HashTrieMapSync<UserName, Arc<User>>,
}

/// One vhost.
#[derive(Clone)]
pub struct VhostTopology {
    pub routing: RoutingTable,
    pub exchanges: HashTrieMapSync<ExchangeName, Arc<Exchange>>,
    pub queues: HashTrieMapSync<QueueName, Arc<Queue>>,
    pub names: HashTrieMapSync<QueueId, QueueName>,
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
}
