//! What the broker has for one connection: events in batches, and the credit its publishes have left.
//!
//! ```text
//! session ── publishes spend credit ──► shard inbox ── taken: credit returns ──► session reads its socket again
//! shard ── deliveries spend the connection's delivery credit ──► outbox ── written: credit returns ──► shard
//! ```
//!
//! Only the connection's own task ever waits: for its socket, for this outbox, or for credit.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::ids::QueueId;
use crate::model::narrow::narrow;
use crate::model::request::{Delivery, Event};

/// Bytes of direct replies that may wait for a requester that does not read; more are dropped (they are at-most-once).
const REPLIES_MAX: usize = 1024 * 1024;

#[derive(Debug)]
pub struct Outbox {
    events: Mutex<Vec<Event>>,
    notify: Notify,
    /// Bytes the connection may publish before a shard has taken what it published; negative stops its reading.
    publish_credit: AtomicI64,
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
            delivery_credit: AtomicI64::new(given[1]),
            given,
            starved: AtomicBool::new(false),
            replies: AtomicUsize::new(0),
        }
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

    /// Whether the connection may publish more, having published `gathered` bytes that are not spent yet.
    #[must_use]
    pub(super) fn has_publish_credit(&self, gathered: usize) -> bool {
        self.publish_credit.load(Ordering::Acquire) > signed(gathered)
    }

    pub(super) fn spend_publish_credit(&self, bytes: usize) {
        self.publish_credit.fetch_sub(signed(bytes), Ordering::AcqRel);
    }

    pub(super) fn return_publish_credit(&self, bytes: usize) {
        let bytes = signed(bytes);
        let before = self.publish_credit.fetch_add(bytes, Ordering::AcqRel);
        assert!(bytes <= self.given[0] - before, "no more publish credit comes back than was spent");
        if before <= 0 && before + bytes > 0 {
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
