//! The publishes of open transactions, which nothing else bounds: how much memory they take, by connection and altogether.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    bytes: u64,
    held: HeldBytes,
}

impl Transaction {
    pub(super) fn new(held: &HeldBytes) -> Self {
        Self { publishes: Vec::new(), bytes: 0, held: held.clone() }
    }

    /// Adds a publish; false when the connection's transactions would hold too much.
    pub(super) fn add(&mut self, publish: HeldPublish) -> bool {
        let bytes = publish.memory();
        if self.held.connection.load(Ordering::Relaxed) + bytes > HELD_MAX {
            return false;
        }
        self.bytes += bytes;
        self.held.connection.fetch_add(bytes, Ordering::Relaxed);
        self.held.all.fetch_add(bytes, Ordering::Relaxed);
        self.publishes.push(publish);
        true
    }

    /// Takes the publishes out.
    pub(super) fn into_publishes(mut self) -> Vec<HeldPublish> {
        std::mem::take(&mut self.publishes)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.held.connection.fetch_sub(self.bytes, Ordering::Relaxed);
        self.held.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
