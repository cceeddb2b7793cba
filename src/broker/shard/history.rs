//! What a recent-history exchange remembers: the last messages, up to a number and to a size.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::names::{ExchangeName, VhostName};
use crate::queue::Publish;
use crate::routing::QueueTarget;

use super::super::envelope::{Envelope, Replayed};
use super::{Shard, note_held};

/// A history has at most this many messages, whatever the exchange's argument says.
const MESSAGES_MAX: usize = 10_000;
/// Messages that take more memory than this together are forgotten from the oldest on, all but the newest.
const MEMORY_MAX: u64 = 16 * 1024 * 1024;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct History {
    publishes: Arc<VecDeque<Publish>>,
    memory: u64,
}

impl History {
    /// Adds the newest message; `length` of them are to be remembered.
    pub(super) fn add(&mut self, publish: Publish, length: usize) {
        self.memory += publish.memory();
        let publishes = Arc::make_mut(&mut self.publishes);
        publishes.push_back(publish);
        let length = length.min(MESSAGES_MAX);
        while publishes.len() > length || self.memory > MEMORY_MAX && publishes.len() > 1 {
            let Some(oldest) = publishes.pop_front() else { break };
            self.memory -= oldest.memory();
        }
    }

    /// The messages, oldest first.
    pub(super) fn publishes(&self) -> Arc<VecDeque<Publish>> {
        Arc::clone(&self.publishes)
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }
}

impl Shard {
    /// A recent-history exchange saw a message.
    pub(super) fn remember(&mut self, exchange: (VhostName, ExchangeName), publish: Publish, length: usize) {
        let history = self.histories.entry(exchange).or_default();
        let before = history.memory();
        history.add(publish, length);
        let after = history.memory();
        note_held(&mut self.held, before, after);
    }

    /// A queue was bound to a recent-history exchange.
    pub(super) fn begin_replay(&mut self, exchange: &(VhostName, ExchangeName), target: QueueTarget) {
        if let Some(history) = self.histories.get(exchange) {
            let replayed = Replayed { queue: target.id, history: history.publishes(), done: 0 };
            self.forward(target.shard, Envelope::Replayed(replayed));
        }
    }

    /// A recent-history exchange is gone.
    pub(super) fn forget(&mut self, exchange: &(VhostName, ExchangeName)) {
        if let Some(history) = self.histories.remove(exchange) {
            note_held(&mut self.held, history.memory(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::model::message::{Envelope, MESSAGE_OVERHEAD, Message, Properties};
    use crate::queue::PublishOrigin;

    use super::*;

    fn publish(size: usize) -> Publish {
        let message = Message::new(&mut Vec::new(), Envelope::default(), &Properties::default(), &vec![0; size]);
        Publish { message, expiration_ms: None, origin: PublishOrigin::Untracked, deaths: None }
    }

    #[test]
    fn it_is_as_long_as_it_may_be() {
        let mut history = History::default();
        (0..30).for_each(|size| history.add(publish(size), 20));
        let sizes: Vec<usize> = history.publishes().iter().map(|publish| publish.message.body_length()).collect();
        assert_eq!(sizes, (10..30).collect::<Vec<_>>());
        // Two bytes are the flags of the properties.
        assert_eq!(history.memory(), (10..30).map(|size| (MESSAGE_OVERHEAD + 2 + size) as u64).sum::<u64>());
        (0..MESSAGES_MAX + 5).for_each(|_| history.add(publish(0), usize::MAX));
        assert_eq!(history.publishes().len(), MESSAGES_MAX);
        history.add(publish(0), 0);
        assert_eq!((history.publishes().len(), history.memory()), (0, 0));
    }

    #[test]
    fn big_messages_are_fewer_and_the_newest_is_always_there() {
        let mut history = History::default();
        (0..100).for_each(|_| history.add(publish(1 << 20), 1000));
        assert_eq!(history.publishes().len(), 15, "sixteen with their overhead are more");
        assert!(history.memory() <= MEMORY_MAX);
        history.add(publish(20 << 20), 1000);
        assert_eq!(history.publishes().len(), 1);
    }
}
