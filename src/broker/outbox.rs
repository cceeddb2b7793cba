//! What the broker has for one connection: events in batches, and the credit its publishes have left.
//!
//! ```text
//! session ── publishes spend credit ──► shard inbox ── taken: credit returns ──► session reads its socket again
//! shard ── deliveries spend the connection's delivery credit ──► outbox ── written: credit returns ──► shard
//! ```
//!
//! Only the connection's own task ever waits: for its socket, for this outbox, or for credit.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::ids::QueueId;
use crate::model::narrow::narrow;
use crate::model::request::{Delivery, Event};

/// Bytes of direct replies that may wait for a requester that does not read; more are dropped (they are at-most-once).
const REPLIES_MAX: usize = 1024 * 1024;

/// Bytes of credit that the connections which publish at the same time have together, unless they are so many that each has
/// the least.
const POOL_BYTES: i64 = 32 * 1024 * 1024;
/// The least that each of them has, in bytes; none has more than its own.
const SHARE_MIN: i64 = 64 * 1024;
/// Envelopes that shards made themselves and have not handled above which each connection has one publish on the way: what
/// comes of it is done before the next.
const OWN_MAX: i64 = 8 * 1024;

/// What connections that publish at the same time share.
#[derive(Debug)]
pub struct CreditPool {
    /// Connections of which something published is not taken yet.
    publishing: AtomicI64,
    /// Bytes of publishes that each may have on the way.
    share: AtomicI64,
    /// Envelopes that shards made themselves, for themselves or others, and that are not handled: letters, for the most
    /// part. A shard counts its part once a turn.
    own: AtomicI64,
}

impl Default for CreditPool {
    fn default() -> Self {
        Self { publishing: AtomicI64::new(0), share: AtomicI64::new(POOL_BYTES), own: AtomicI64::new(0) }
    }
}

impl CreditPool {
    fn change(&self, by: i64) {
        let publishing = self.publishing.fetch_add(by, Ordering::Relaxed) + by;
        assert!(publishing >= 0, "who ends has begun");
        // Of changes at the same time one may be forgotten until the next: it is a bound, not an account.
        self.share.store((POOL_BYTES / publishing.max(1)).max(SHARE_MIN), Ordering::Relaxed);
    }

    /// Bytes that a connection may have on the way: never none, since who has nothing there is not told of a change.
    fn share(&self) -> i64 {
        if self.own() > OWN_MAX { 1 } else { self.share.load(Ordering::Relaxed) }
    }

    /// Envelopes that shards made themselves and have not handled.
    pub(super) fn own(&self) -> i64 {
        self.own.load(Ordering::Relaxed)
    }

    /// Shards made, or handled, so many.
    pub(super) fn change_own(&self, by: i64) {
        self.own.fetch_add(by, Ordering::Relaxed);
    }
}

/// Publish credit of a connection that is spent until this is dropped.
#[derive(Debug)]
pub(super) struct Spent {
    outbox: Arc<Outbox>,
    bytes: usize,
}

impl Spent {
    pub(super) fn new(outbox: Arc<Outbox>, bytes: usize) -> Self {
        Self { outbox, bytes }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.outbox.return_publish_credit(self.bytes);
    }
}

#[derive(Debug)]
pub struct Outbox {
    events: Mutex<Vec<Event>>,
    notify: Notify,
    /// Bytes the connection may publish before a shard has taken what it published; negative stops its reading.
    publish_credit: AtomicI64,
    pool: Arc<CreditPool>,
    /// The connection was told that it has no credit to publish.
    is_held_back: AtomicBool,
    /// Bytes of deliveries the connection can take before it has sent some; may go below zero by one message a shard.
    delivery_credit: AtomicI64,
    /// What both were at first, and never exceed.
    given: [i64; 2],
    /// Some shard has refused this connection a delivery for want of credit.
    starved: AtomicBool,
    /// Bytes of direct replies in `events`.
    replies: AtomicUsize,
}

impl Outbox {
    #[must_use]
    pub fn new(publish_credit: u64, delivery_credit: u64) -> Self {
        // As configured, and that may be any number.
        let given = [publish_credit, delivery_credit].map(|credit| i64::try_from(credit).unwrap_or(i64::MAX));
        Self {
            events: Mutex::default(),
            notify: Notify::new(),
            publish_credit: AtomicI64::new(given[0]),
            pool: Arc::default(),
            is_held_back: AtomicBool::new(false),
            delivery_credit: AtomicI64::new(given[1]),
            given,
            starved: AtomicBool::new(false),
            replies: AtomicUsize::new(0),
        }
    }

    /// The same with a share of what all who publish have together.
    #[must_use]
    pub fn sharing(self, pool: &Arc<CreditPool>) -> Self {
        Self { pool: Arc::clone(pool), ..self }
    }

    /// Adds a batch and wakes the connection, once.
    pub fn push(&self, batch: &mut Vec<Event>) {
        let mut events = self.events.lock();
        if events.is_empty() {
            mem::swap(&mut *events, batch);
        } else {
            events.append(batch);
        }
        drop(events);
        self.notify.notify_one();
    }

    /// Adds one event.
    pub fn push_one(&self, event: Event) {
        self.events.lock().push(event);
        self.notify.notify_one();
    }

    /// Adds a direct reply, unless too many wait.
    pub(super) fn push_reply(&self, delivery: Delivery) -> bool {
        let cost = delivery.cost;
        if self.replies.fetch_add(cost, Ordering::Relaxed) > REPLIES_MAX {
            self.replies.fetch_sub(cost, Ordering::Relaxed);
            return false;
        }
        self.push_one(Event::Deliver { queue: QueueId::DIRECT_REPLY, delivery });
        true
    }

    /// Takes everything in exchange for an empty list.
    pub fn take(&self, events: &mut Vec<Event>) {
        assert!(events.is_empty(), "what was taken before is handled before more is taken");
        mem::swap(&mut *self.events.lock(), events);
        if self.replies.load(Ordering::Relaxed) != 0 {
            self.replies.store(0, Ordering::Relaxed);
        }
    }

    /// Gives back memory beyond `keep` events.
    pub fn trim(&self, keep: usize) {
        self.events.lock().shrink_to(keep);
    }

    /// Waits until something is pushed or credit returns.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Publish and delivery credit left, in bytes.
    #[cfg(test)]
    pub(super) fn credits(&self) -> (i64, i64) {
        (self.publish_credit.load(Ordering::SeqCst), self.delivery_credit.load(Ordering::SeqCst))
    }

    /// Whether the connection may publish more, having published `gathered` bytes that are not spent yet. After a refusal
    /// it is woken when credit returns.
    #[must_use]
    pub(super) fn has_publish_credit(&self, gathered: usize) -> bool {
        if self.publish_credit_left(gathered) > 0 {
            return true;
        }
        self.is_held_back.store(true, Ordering::SeqCst);
        // Credit may have returned before the note was there to be seen.
        self.publish_credit_left(gathered) > 0
    }

    /// Bytes of credit to publish, `gathered` bytes being not spent yet.
    pub(super) fn publish_credit_left(&self, gathered: usize) -> i64 {
        let gathered = signed(gathered);
        let share = self.pool.share().min(self.given[0]);
        let spent = self.given[0] - self.publish_credit.load(Ordering::SeqCst);
        share.saturating_sub(spent).saturating_sub(gathered)
    }

    pub(super) fn spend_publish_credit(&self, bytes: usize) {
        let bytes = signed(bytes);
        let before = self.publish_credit.fetch_sub(bytes, Ordering::SeqCst);
        if before == self.given[0] && bytes > 0 {
            self.pool.change(1);
        }
    }

    pub(super) fn return_publish_credit(&self, bytes: usize) {
        let bytes = signed(bytes);
        let credit = self.publish_credit.fetch_add(bytes, Ordering::SeqCst) + bytes;
        assert!(credit <= self.given[0], "only credit that was spent returns");
        if credit == self.given[0] && bytes > 0 {
            self.pool.change(-1);
        }
        if self.is_held_back.load(Ordering::SeqCst) && self.is_held_back.swap(false, Ordering::SeqCst) {
            self.notify.notify_one();
        }
    }

    /// Whether a delivery may be added. A refusal is noted, so that the return of credit reaches the shard.
    pub(super) fn admits_delivery(&self) -> bool {
        if self.delivery_credit.load(Ordering::SeqCst) > 0 {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        // Credit may have returned before the note was there to be seen.
        self.delivery_credit.load(Ordering::SeqCst) > 0
    }

    pub(super) fn spend_delivery_credit(&self, bytes: usize) {
        self.delivery_credit.fetch_sub(signed(bytes), Ordering::SeqCst);
    }

    /// Whether shards must be told.
    pub(super) fn return_delivery_credit(&self, bytes: usize) -> bool {
        let bytes = signed(bytes);
        let before = self.delivery_credit.fetch_add(bytes, Ordering::SeqCst);
        assert!(bytes <= self.given[1] - before, "no more delivery credit comes back than was spent");
        self.starved.swap(false, Ordering::SeqCst)
    }
}

/// Bytes of what is in memory, as credit counts them.
fn signed(bytes: usize) -> i64 {
    narrow(bytes, "what is in memory is far below 2^63 bytes")
}
