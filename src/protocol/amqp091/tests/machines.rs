//! Confirms and delivery tags against naive models.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::confirms::Confirms;
use super::super::unacked::{Unacked, UnackedWindow};
use crate::model::ids::{ConnectionId, ConsumerId, MessageIndex, QueueId};

#[derive(Clone, Debug)]
enum Step {
    Expect(u32),
    Settle(prop::sample::Index, bool),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop_oneof![Just(1u32), 0u32..4].prop_map(Step::Expect),
        5 => (any::<prop::sample::Index>(), prop::bool::weighted(0.85)).prop_map(|(at, ok)| Step::Settle(at, ok)),
        1 => Just(Step::Flush),
    ];
    vec(step, 1..200)
}

/// A publish as the naive model sees it: verdicts owed, and whether one was a rejection.
type Publishes = BTreeMap<u64, (u32, bool)>;

fn told(confirms: &mut Confirms, publishes: &Publishes, already: &mut BTreeSet<u64>) -> Result<(), TestCaseError> {
    let mut acknowledgements = Vec::new();
    confirms.flush(|acknowledgement| acknowledgements.push(acknowledgement));
    for acknowledgement in acknowledgements {
        let first = if acknowledgement.multiple { 1 } else { acknowledgement.sequence };
        let mut any = false;
        for sequence in first..=acknowledgement.sequence {
            if !already.insert(sequence) {
                prop_assert!(acknowledgement.multiple, "{} is told twice", sequence);
                continue;
            }
            any = true;
            let (owed, rejected) = publishes[&sequence];
            prop_assert_eq!((owed, !rejected), (0, acknowledgement.confirmed), "sequence {}", sequence);
        }
        prop_assert!(any, "{:?} tells nothing new", acknowledgement);
    }
    let settled: BTreeSet<u64> =
        publishes.iter().filter(|(_, (owed, _))| *owed == 0).map(|(sequence, _)| *sequence).collect();
    prop_assert_eq!(already.clone(), settled, "all that is settled is told");
    Ok(())
}

proptest! {
    #[test]
    fn every_publish_is_told_once_and_as_it_was_settled(steps in steps()) {
        let mut confirms = Confirms::default();
        let mut publishes = Publishes::new();
        let mut already = BTreeSet::new();
        for step in steps {
            match step {
                Step::Expect(queues) => {
                    let sequence = confirms.expect();
                    if queues != 1 {
                        confirms.routed(sequence, queues);
                    }
                    publishes.insert(sequence, (queues, false));
                }
                Step::Settle(at, confirmed) => {
                    let waiting: Vec<u64> =
                        publishes.iter().filter(|(_, (owed, _))| *owed > 0).map(|(sequence, _)| *sequence).collect();
                    if waiting.is_empty() {
                        continue;
                    }
                    // One verdict, or a run of them.
                    let from = at.index(waiting.len());
                    let run = waiting[from..].iter().zip(waiting[from]..).take_while(|(a, b)| **a == *b).count();
                    let last = waiting[from] + (at.index(run) as u64);
                    confirms.settle(waiting[from], last, confirmed);
                    for sequence in waiting[from]..=last {
                        let (owed, rejected) = publishes.get_mut(&sequence).unwrap();
                        *owed -= 1;
                        *rejected |= !confirmed;
                    }
                }
                Step::Flush => told(&mut confirms, &publishes, &mut already)?,
            }
            let waiting = publishes.values().filter(|(owed, _)| *owed > 0).count();
            prop_assert_eq!(confirms.waiting(), waiting);
        }
        told(&mut confirms, &publishes, &mut already)?;
    }

    #[test]
    fn tags_are_settled_as_in_a_map(steps in vec((0u8..12, 0u64..40, any::<bool>()), 1..400)) {
        let mut window = UnackedWindow::default();
        let mut model: BTreeMap<u64, u64> = BTreeMap::new();
        let mut transaction: Vec<(u64, Unacked)> = Vec::new();
        let mut last_tag = 0;
        for (kind, distance, multiple) in steps {
            match kind {
                0..=4 => {
                    last_tag += 1;
                    let consumer = ConsumerId { connection: ConnectionId(1), serial: 1, channel: 1 };
                    let index = MessageIndex(last_tag * 3);
                    prop_assert_eq!(window.deliver(Unacked { queue: QueueId(1), consumer, index }), last_tag);
                    model.insert(last_tag, last_tag * 3);
                }
                5 => {
                    last_tag += 1;
                    prop_assert_eq!(window.pass(), last_tag);
                }
                6..=9 => {
                    let tag = (last_tag + 2).saturating_sub(distance);
                    let mut taken = Vec::new();
                    let outcome = window.settle(tag, multiple, |tag, delivery| taken.push((tag, delivery)));
                    let expected: Option<Vec<u64>> = match (tag, multiple) {
                        (0, true) => Some(model.keys().copied().collect()),
                        _ if !model.contains_key(&tag) => None,
                        (_, true) => Some(model.range(..=tag).map(|(tag, _)| *tag).collect()),
                        (_, false) => Some(vec![tag]),
                    };
                    prop_assert_eq!(outcome.is_ok(), expected.is_some());
                    let found: Vec<u64> = taken.iter().map(|(tag, _)| *tag).collect();
                    prop_assert_eq!(found, expected.unwrap_or_default());
                    for (tag, delivery) in &taken {
                        prop_assert_eq!(model.remove(tag), Some(delivery.index.0));
                    }
                    // Some of them within a transaction that may be rolled back.
                    if distance % 2 == 0 {
                        transaction.extend(taken);
                    }
                }
                10 => {
                    model.extend(transaction.iter().map(|(tag, delivery)| (*tag, delivery.index.0)));
                    window.restore(transaction.drain(..));
                }
                _ => {
                    let all: Vec<u64> = window.take_all().iter().map(|delivery| delivery.index.0).collect();
                    prop_assert_eq!(all, std::mem::take(&mut model).into_values().collect::<Vec<_>>());
                }
            }
            prop_assert_eq!(window.outstanding, model.len());
        }
    }
}
