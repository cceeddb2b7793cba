//! The delivery tags of one channel: from tag to the queue's message and back. Nobody else knows both numbers.

use std::collections::VecDeque;

use crate::model::exception::Exception;
use crate::model::ids::{ConsumerId, MessageIndex, QueueId};
use crate::model::request::{SettleOutcome, Settlement};

/// Why the count of outstanding deliveries does not go below zero.
const OUTSTANDING: &str = "a delivery is settled once";

/// A delivery the client has not settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unacked {
    pub(super) queue: QueueId,
    pub(super) consumer: ConsumerId,
    pub(super) index: MessageIndex,
}

/// The window of deliveries from the oldest outstanding one; settled ones inside it are holes.
///
/// A client that never settles one delivery while settling millions behind it would stretch the window, so holes are
/// squeezed out when they outnumber the outstanding: the window is kept as (tag, delivery) pairs in tag order.
#[derive(Debug, Default)]
pub(super) struct UnackedWindow {
    last_tag: u64,
    window: VecDeque<(u64, Option<Unacked>)>,
    pub(super) outstanding: usize,
}

impl UnackedWindow {
    /// Numbers a delivery that is settled by being sent.
    pub(super) fn pass(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Numbers a delivery and remembers it until the client settles it.
    pub(super) fn deliver(&mut self, delivery: Unacked) -> u64 {
        let tag = self.pass();
        self.window.push_back((tag, Some(delivery)));
        self.outstanding += 1;
        tag
    }

    /// Takes what `tag` and `multiple` name; RabbitMQ's rules: 0 with multiple is everything, otherwise the tag itself must
    /// be outstanding.
    pub(super) fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        mut take: impl FnMut(u64, Unacked),
    ) -> Result<(), Exception> {
        if tag == 0 && multiple {
            self.window
                .drain(..)
                .filter_map(|(tag, delivery)| Some((tag, delivery?)))
                .for_each(|(tag, delivery)| take(tag, delivery));
            self.outstanding = 0;
            self.squeeze();
            return Ok(());
        }
        let position = self.position(tag).ok_or_else(|| Exception::unknown_delivery_tag(tag))?;
        if multiple {
            for (tag, delivery) in self.window.drain(..=position) {
                let Some(delivery) = delivery else { continue };
                self.outstanding = self.outstanding.checked_sub(1).expect(OUTSTANDING);
                take(tag, delivery);
            }
        } else if let Some(delivery) = self.window[position].1.take() {
            self.outstanding = self.outstanding.checked_sub(1).expect(OUTSTANDING);
            take(tag, delivery);
        }
        self.squeeze();
        Ok(())
    }

    /// Puts deliveries back under the tags they had, for a transaction that is rolled back.
    pub(super) fn restore(&mut self, deliveries: impl IntoIterator<Item = (u64, Unacked)>) {
        // Holes are dropped and everything is sorted anew: inserting one by one would take quadratic time.
        self.window.retain(|(_, delivery)| delivery.is_some());
        self.window.extend(deliveries.into_iter().map(|(tag, delivery)| (tag, Some(delivery))));
        self.window.make_contiguous().sort_unstable_by_key(|(tag, _)| *tag);
        self.outstanding = self.window.len();
    }

    /// Deliveries that are not settled.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Takes everything outstanding, oldest first.
    pub(super) fn take_all(&mut self) -> Vec<Unacked> {
        self.outstanding = 0;
        let all = self.window.drain(..).filter_map(|(_, delivery)| delivery).collect();
        self.squeeze();
        all
    }

    /// The place of an outstanding tag. Without holes removed, the tag's distance from the front is its place.
    fn position(&self, tag: u64) -> Option<usize> {
        let (front, _) = self.window.front()?;
        let guess = usize::try_from(tag.checked_sub(*front)?).ok()?;
        let position = match self.window.get(guess) {
            Some((found, _)) if *found == tag => guess,
            _ => self.window.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?,
        };
        self.window[position].1.is_some().then_some(position)
    }

    fn squeeze(&mut self) {
        while let Some((_, None)) = self.window.front() {
            self.window.pop_front();
        }
        if self.window.len() > 1024 && self.window.len() > 2 * self.outstanding {
            self.window.retain(|(_, delivery)| delivery.is_some());
        }
        if self.window.is_empty() && self.window.capacity() > 1024 {
            self.window.shrink_to(64);
        }
    }
}

/// Deliveries settled by one request: whoever handles it does so in one go.
pub(super) const SETTLEMENT_MAX: usize = 1024;

/// Whether the settlement can take this delivery as well.
pub(super) fn joins(settlement: &Settlement, delivery: Unacked) -> bool {
    settlement.queue == delivery.queue
        && settlement.consumer == delivery.consumer
        && settlement.indexes.len() < SETTLEMENT_MAX
}

/// Adds a delivery to the last of `settlements` when it is of the same queue, consumer and outcome.
pub(super) fn gather(settlements: &mut Vec<Settlement>, delivery: Unacked, outcome: SettleOutcome) {
    match settlements.last_mut() {
        Some(last) if last.outcome == outcome && joins(last, delivery) => {
            last.indexes.push(delivery.index);
        }
        _ => settlements.push(Settlement {
            queue: delivery.queue,
            consumer: delivery.consumer,
            indexes: vec![delivery.index],
            outcome,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::ConnectionId;

    fn window(count: u64) -> UnackedWindow {
        let mut window = UnackedWindow::default();
        for index in 1..=count {
            let consumer = ConsumerId { connection: ConnectionId(1), serial: 1, channel: 1 };
            window.deliver(Unacked { queue: QueueId(1), consumer, index: MessageIndex(index) });
        }
        window
    }

    fn settled(window: &mut UnackedWindow, tag: u64, multiple: bool) -> Result<Vec<u64>, String> {
        let mut taken = Vec::new();
        window.settle(tag, multiple, |_, delivery| taken.push(delivery.index.0)).map_err(|e| e.text)?;
        Ok(taken)
    }

    #[test]
    fn single_tags_are_settled_once() {
        let mut window = window(3);
        assert_eq!(settled(&mut window, 2, false), Ok(vec![2]));
        assert_eq!(settled(&mut window, 2, false), Err("unknown delivery tag 2".into()));
        assert_eq!(settled(&mut window, 0, false), Err("unknown delivery tag 0".into()));
        assert_eq!(settled(&mut window, 4, false), Err("unknown delivery tag 4".into()));
        assert_eq!(window.outstanding, 2);
    }

    #[test]
    fn multiple_takes_all_up_to_an_outstanding_tag() {
        let mut window = window(5);
        assert_eq!(settled(&mut window, 2, false), Ok(vec![2]));
        assert_eq!(settled(&mut window, 2, true), Err("unknown delivery tag 2".into()));
        assert_eq!(settled(&mut window, 3, true), Ok(vec![1, 3]));
        assert_eq!(settled(&mut window, 0, true), Ok(vec![4, 5]));
        assert_eq!(settled(&mut window, 0, true), Ok(vec![]));
    }

    #[test]
    fn one_stuck_delivery_does_not_stretch_the_window() {
        let mut window = window(100_000);
        for tag in 2..=100_000 {
            settled(&mut window, tag, false).unwrap();
        }
        assert!(window.window.len() <= 1024, "{}", window.window.len());
        assert_eq!(settled(&mut window, 1, false), Ok(vec![1]));
    }
}
