//! The backlog, the unacknowledged messages and the ready messages at sizes that the queue's own tests do not reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::backlog::{Backlog, Entry, NEVER};
use super::limits::ExpiryRule;
use super::ready::Ready;
use super::record::Durability;
use super::tests::message;
use super::unacked::{Unacked, UnackedMap};
use super::{Command, Effect, Fifo, OpenGate, Publish, PublishOrigin, Reply};
use crate::model::entity::{DeadLetterTarget, QueueOptions};
use crate::model::ids::{ConnectionId, ConsumerId, Timestamp};

fn entry(expires: u64) -> Entry {
    Entry { message: message("m", 0, 1), expires: Timestamp(expires), deaths: None }
}

/// Steps over a range of indexes, applied to many messages at once so that blocks and windows fill.
#[derive(Clone, Debug)]
enum Bulk {
    /// Appends this many, each skipping as many indexes.
    Add {
        count: u64,
        skip: u64,
    },
    Pop(u64),
    /// Takes from the middle: from this fraction on, every n-th.
    Remove {
        from_percent: u64,
        every: usize,
        count: usize,
    },
}

fn bulk() -> impl Strategy<Value = Bulk> {
    prop_oneof![
        (1u64..1500, prop_oneof![5 => Just(0u64), 1 => 1u64..200]).prop_map(|(count, skip)| Bulk::Add { count, skip }),
        (1u64..2500).prop_map(Bulk::Pop),
        (0u64..100, 1usize..4, 1usize..2500).prop_map(|(from_percent, every, count)| Bulk::Remove {
            from_percent,
            every,
            count
        }),
    ]
}

/// The indexes that `Bulk::Remove` means.
fn chosen(expected: &BTreeMap<u64, u64>, from_percent: u64, every: usize, count: usize) -> Vec<u64> {
    let from = expected.len() * usize::try_from(from_percent).unwrap() / 100;
    expected.keys().copied().skip(from).step_by(every).take(count).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_backlog_is_an_ordered_map(steps in prop::collection::vec(bulk(), 1..12)) {
        let (mut backlog, mut expected, mut next) = (Backlog::default(), BTreeMap::new(), 1);
        for step in steps {
            match step {
                Bulk::Add { count, skip } => for _ in 0..count {
                    backlog.push_back(next, entry(next * 7), false);
                    expected.insert(next, next * 7);
                    next += 1 + skip;
                },
                Bulk::Pop(count) => for _ in 0..count {
                    let popped = backlog.pop_front().map(|popped| (popped.index, popped.entry.expires.0));
                    prop_assert_eq!(popped, expected.pop_first());
                },
                Bulk::Remove { from_percent, every, count } => {
                    for index in chosen(&expected, from_percent, every, count) {
                        prop_assert_eq!(backlog.find(index).map(|entry| entry.expires.0), expected.get(&index).copied());
                        prop_assert_eq!(backlog.remove(index).map(|popped| popped.entry.expires.0), expected.remove(&index));
                        prop_assert!(backlog.remove(index).is_none());
                    }
                }
            }
            backlog.check_invariants();
            prop_assert_eq!(backlog.is_empty(), expected.is_empty());
            let all: Vec<(u64, u64)> = backlog.iter().map(|(index, entry)| (index, entry.expires.0)).collect();
            prop_assert_eq!(all, expected.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_unacknowledged_messages_are_a_map(
        steps in prop::collection::vec((bulk(), any::<bool>()), 1..12),
    ) {
        let (mut unacked, mut expected, mut next) = (UnackedMap::default(), BTreeMap::new(), 1);
        // Removed ones, to be delivered again.
        let mut returned = Vec::new();
        for (step, redeliver) in steps {
            let insert = |unacked: &mut UnackedMap, expected: &mut BTreeMap<u64, u64>, index: u64| {
                let holder = u32::try_from(index % 3).unwrap();
                unacked.insert(index, Unacked { entry: entry(index), delivered: Timestamp(1), holder });
                expected.insert(index, index);
            };
            match step {
                Bulk::Add { .. } if redeliver => {
                    returned.drain(..).for_each(|index| insert(&mut unacked, &mut expected, index));
                }
                Bulk::Add { count, skip } => for _ in 0..count {
                    insert(&mut unacked, &mut expected, next);
                    next += 1 + skip;
                },
                Bulk::Pop(_) => {
                    let entries = unacked.remove_all_of(1);
                    let held: Vec<u64> = expected.keys().copied().filter(|index| index % 3 == 1).collect();
                    prop_assert_eq!(&entries.iter().map(|(index, _)| *index).collect::<Vec<_>>(), &held);
                    expected.retain(|index, _| index % 3 != 1);
                }
                Bulk::Remove { from_percent, every, count } => {
                    for index in chosen(&expected, from_percent, every, count) {
                        let holder = u32::try_from(index % 3).unwrap();
                        prop_assert!(unacked.remove(index, holder + 1).is_none());
                        prop_assert_eq!(unacked.remove(index, holder).map(|(entry, _)| entry.expires.0), Some(index));
                        prop_assert!(unacked.remove(index, holder).is_none());
                        expected.remove(&index);
                        returned.push(index);
                    }
                }
            }
            unacked.check_invariants();
            prop_assert_eq!(unacked.len(), expected.len());
            prop_assert_eq!(unacked.is_empty(), expected.is_empty());
            prop_assert_eq!(unacked.weight().bytes, expected.len() as u64);
            let mut all: Vec<u64> = unacked.iter().map(|(index, _)| index).collect();
            all.sort_unstable();
            prop_assert_eq!(all, expected.keys().copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn messages_expire_by_time_then_index(ttls in prop::collection::vec(prop_oneof![Just(u64::MAX), 1u64..500], 1..3000)) {
        let mut ready = Ready::new(0, ExpiryRule::Anywhere, Durability::Transient);
        for (index, expires) in (1u64..).zip(&ttls) {
            ready.push(index, entry(*expires), false);
        }
        ready.check_invariants();
        let mut expected: Vec<u64> = ttls.iter().copied().filter(|expires| *expires != u64::MAX).collect();
        expected.sort_unstable();
        for now in 1..500 {
            while let Some((_, entry)) = ready.take_expired(Timestamp(now)) {
                prop_assert_eq!(entry.expires, Timestamp(now));
                prop_assert_eq!(expected.remove(0), now);
            }
            prop_assert!(ready.next_expiry() > Timestamp(now));
        }
        ready.check_invariants();
        prop_assert!(expected.is_empty());
        prop_assert_eq!(ready.next_expiry(), NEVER);
    }
}

#[test]
fn notes_about_expiry_do_not_pile_up() {
    let mut ready = Ready::new(0, ExpiryRule::Anywhere, Durability::Transient);
    ready.push(1, entry(u64::MAX), false);
    ready.push(2, entry(1_000_000), false);
    // One message is delivered and requeued again and again.
    for _ in 0..100_000 {
        let taken = ready.pop().unwrap();
        let second = ready.pop().unwrap();
        ready.give_back(taken.index, taken.entry);
        ready.give_back(second.index, second.entry);
        ready.push(3, entry(5), false);
        let (_, expired) = ready.take_expired(Timestamp(6)).unwrap();
        assert_eq!(expired.expires, Timestamp(5));
    }
    ready.check_invariants();
}

/// A queue with so many messages, whose dead letters go somewhere.
fn full(count: u64, ttl_ms: Option<u64>) -> Fifo {
    let mut fifo = Fifo::new(Arc::new(with_letters(ttl_ms, None)), Durability::Transient, Timestamp(0));
    for _ in 0..count {
        let publish = Publish {
            message: message("m", 0, 1),
            expiration_ms: None,
            origin: PublishOrigin::Untracked,
            deaths: None,
        };
        fifo.apply(Timestamp(0), Command::Enqueue(publish), &mut OpenGate, &mut Vec::new());
    }
    fifo
}

fn with_letters(ttl_ms: Option<u64>, max_length: Option<u64>) -> QueueOptions {
    let dead_letter = Some(DeadLetterTarget { exchange: "dead".into(), routing_key: None });
    QueueOptions { message_ttl_ms: ttl_ms, max_length, dead_letter, ..QueueOptions::default() }
}

/// How many letters a command makes, and the reply.
fn apply(fifo: &mut Fifo, now: u64, command: Command) -> (usize, Reply) {
    let mut effects = Vec::new();
    let reply = fifo.apply(Timestamp(now), command, &mut OpenGate, &mut effects);
    assert!(effects.iter().all(|effect| matches!(effect, Effect::DeadLetter { .. })), "nothing is handed out");
    fifo.check_invariants();
    (effects.len(), reply)
}

#[test]
fn a_million_messages_do_not_die_in_one_go() {
    let mut fifo = full(10_000, Some(1000));
    let holder = ConsumerId { connection: ConnectionId(1), serial: 1, channel: 1 };
    // What has expired is not handed out while it is still there.
    let (letters, reply) = apply(&mut fifo, 1000, Command::Get { holder, no_ack: true });
    assert_eq!(letters, 1024);
    assert!(matches!(reply, Reply::Later), "{reply:?}");
    let mut all = letters;
    while fifo.next_deadline().is_some_and(|at| at <= Timestamp(1000)) {
        let (letters, _) = apply(&mut fifo, 1000, Command::Tick);
        assert!((1..=1024).contains(&letters), "{letters}");
        all += letters;
    }
    assert_eq!((all, fifo.counts().ready), (10_000, 0));
    let (_, reply) = apply(&mut fifo, 1000, Command::Get { holder, no_ack: true });
    assert!(matches!(reply, Reply::Empty));
}

#[test]
fn a_limit_that_a_policy_sets_is_reached_step_by_step() {
    let mut fifo = full(10_000, None);
    let (mut all, _) = apply(&mut fifo, 0, Command::Configure(Arc::new(with_letters(None, Some(100)))));
    assert_eq!(all, 1024);
    while fifo.next_deadline().is_some_and(|at| at <= Timestamp(0)) {
        let (letters, _) = apply(&mut fifo, 0, Command::Tick);
        assert!((1..=1024).contains(&letters), "{letters}");
        all += letters;
    }
    assert_eq!((all, fifo.counts().ready), (9_900, 100));
}
