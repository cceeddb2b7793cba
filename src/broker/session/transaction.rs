//! The publishes of open transactions, which nothing else bounds: how much memory they take, by connection and altogether.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::ids::ChannelRef;
use crate::model::request::Settlement;

use super::publishing::HeldPublish;

/// Bytes of publishes that the transactions of a connection may hold.
pub(super) const HELD_MAX: u64 = 256 * 1024 * 1024;

/// Bytes held by the transactions of one connection, and by those of all.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBytes {
    connection: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

impl HeldBytes {
    /// Of a new connection, among `all`.
    pub(super) fn new(all: &Arc<AtomicU64>) -> Self {
        Self { connection: Arc::default(), all: Arc::clone(all) }
    }
}

/// The publishes of a channel's open transaction, which count until they are taken out or dropped.
pub(super) struct Transaction {
    publishes: Vec<HeldPublish>,
    /// Where the routes lie that they share. One lies there as long as a publish has it.
    routes: HashSet<usize>,
    bytes: u64,
    held: HeldBytes,
}

impl Transaction {
    pub(super) fn new(held: &HeldBytes) -> Self {
        Self { publishes: Vec::new(), routes: HashSet::new(), bytes: 0, held: held.clone() }
    }

    /// Adds a publish; false when the connection's transactions would hold too much.
    pub(super) fn add(&mut self, publish: HeldPublish) -> bool {
        let is_first = self.routes.insert(publish.route_address());
        let bytes = publish.memory() + if is_first { publish.route_memory() } else { 0 };
        if self.held.connection.load(Ordering::Relaxed) + bytes > HELD_MAX {
            return false;
        }
        self.bytes += bytes;
        self.held.connection.fetch_add(bytes, Ordering::Relaxed);
        self.held.all.fetch_add(bytes, Ordering::Relaxed);
        self.publishes.push(publish);
        true
    }

    /// Takes the publishes out. They count until the transaction is dropped.
    pub(super) fn take_publishes(&mut self) -> Vec<HeldPublish> {
        self.routes = HashSet::new();
        std::mem::take(&mut self.publishes)
    }
}

/// A transaction on its way to the shards, as far as there is credit for it.
pub(super) struct Commit {
    pub(super) channel: ChannelRef,
    /// What is left of its publishes.
    pub(super) publishes: std::vec::IntoIter<HeldPublish>,
    /// What it settles, behind them.
    pub(super) settlements: Vec<Settlement>,
    /// Counts them until they are sent.
    pub(super) _held: Option<Transaction>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.held.connection.fetch_sub(self.bytes, Ordering::Relaxed);
        self.held.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
