//! Direct reply-to: where replies go without a queue, from the replier's session straight into the requester's outbox.

use std::sync::Arc;

use dashmap::DashMap;

use crate::model::ids::{ConsumerId, MessageIndex};
use crate::model::message::Message;
use crate::model::request::Delivery;

use super::outbox::Outbox;

/// The pseudo queue's name, and with a dot and a token behind it the names of its instances.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

#[derive(Debug)]
struct Requester {
    outbox: Arc<Outbox>,
    consumer: ConsumerId,
}

#[derive(Debug, Default)]
pub(super) struct ReplyRegistry(DashMap<String, Requester>);

impl ReplyRegistry {
    pub(super) fn add(&self, token: String, outbox: Arc<Outbox>, consumer: ConsumerId) {
        self.0.insert(token, Requester { outbox, consumer });
    }

    pub(super) fn remove(&self, token: &str) {
        self.0.remove(token);
    }

    pub(super) fn contains(&self, token: &str) -> bool {
        self.0.contains_key(token)
    }

    /// Hands a reply over; replies nobody waits for are dropped.
    pub(super) fn deliver(&self, token: &str, message: Message) {
        if let Some(requester) = self.0.get(token) {
            requester.outbox.push_reply(Delivery {
                consumer: requester.consumer,
                index: MessageIndex(0),
                cost: message.cost(),
                redelivered: false,
                message,
            });
        }
    }
}

/// The token in the name of an instance of the pseudo queue.
pub(super) fn token_of(name: &[u8]) -> Option<&str> {
    std::str::from_utf8(name).ok()?.strip_prefix(REPLY_TO)?.strip_prefix('.')
}
