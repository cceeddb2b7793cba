//! The broker but its sockets, tasks and threads, in a world of its own: a clock, a disk, clients, faults, and an oracle
//! that knows what must be there afterwards.
//!
//! Whatever happens beside something else in a running broker is a step here: a client's batch for the shards, a turn, a
//! piece of what a turn left (the envelopes for one other shard, the batch for the log), what the journal takes, writes,
//! lets go, a read, a piece of maintenance, a tick. Their order follows from a seed. Between any two the power may fail or
//! the process be killed, or everything comes to rest and the broker is stopped. After the last life all queues are
//! emptied and everything is counted.

mod clock;
mod faults;
mod mutations;
mod node;
mod oracle;
mod scripts;
mod workload;

use std::ops::Range;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Broker;
use super::{define_guest, settings};
use crate::log::memory::MemoryDisk;
use crate::log::{Keeping, Options, SyncMode};
use crate::model::ids::Timestamp;
use crate::model::random::Random;
use clock::Clock;
use faults::End;
use mutations::Mutation;
use node::{Failed, Node};
use oracle::Oracle;
use workload::{COMES_AND_GOES, QUEUES};

/// Steps in a life, at most.
const STEPS: usize = 400;
const LIVES: usize = 3;
/// Files of which next to nothing lives become part of segments too, so that it happens often.
const KEEPING: Keeping = Keeping { share_min: 2, stretch_min: 200, batch_min: 0 };
const OPTIONS: Options =
    Options { sync: SyncMode::Always, wal_file_bytes: 64 * 1024, segment_bytes: 256 * 1024, keeping: KEEPING };

struct World {
    random: Random,
    clock: Clock,
    disk: MemoryDisk,
    oracle: Oracle,
    mutation: Mutation,
    /// Whatever clients do waits in the mailboxes of the shards; otherwise some of it does.
    is_busy: bool,
    /// The message to tell of; 0 is what concerns all of them.
    watched: Option<u64>,
}

impl World {
    fn new(seed: u64, mutation: Mutation) -> Self {
        Self {
            random: Random::new(seed),
            clock: Clock::new(),
            disk: MemoryDisk::default(),
            oracle: Oracle::new(),
            mutation,
            is_busy: false,
            watched: std::env::var("WARREN_WATCH").ok().and_then(|number| number.parse().ok()),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next_bits() % bound as u64).unwrap()
    }

    /// Tells what happens to one message, for finding out why a seed fails: WARREN_WATCH=number.
    fn watch(&self, number: u64, what: &dyn std::fmt::Debug) {
        if self.watched.is_some_and(|watched| number == 0 || watched == number) {
            eprintln!("life {} time {}: message {number}: {what:?}", self.oracle.life, self.clock.now().0);
        }
    }
}

fn open(disk: &MemoryDisk, shards: u16, now: Timestamp) -> Arc<Broker> {
    let mut settings = settings(shards);
    settings.memory_budget = 20_000;
    let broker = Broker::open(settings, Arc::new(disk.clone()), OPTIONS, now).unwrap();
    if broker.is_new() {
        define_guest(&broker);
        broker.store_definitions().unwrap();
    }
    broker
}

fn run(seed: u64, shards: u16, mutation: Mutation) {
    let mut world = World::new(seed, mutation);
    for life in 0..LIVES {
        let broker = open(&world.disk, shards, world.clock.now());
        live(&mut world, &broker, life);
    }
    take_stock(&mut world, shards);
}

/// The last life: everything is taken out of the queues and counted.
fn take_stock(world: &mut World, shards: u16) {
    let broker = open(&world.disk, shards, world.clock.now());
    let mut node = Node::new(world, &broker);
    node.begin();
    node.rest();
    node.drain();
    node.world.oracle.check();
}

/// A life of the broker.
fn live(world: &mut World, broker: &Arc<Broker>, life: usize) {
    let steps = world.below(STEPS);
    let mut end = world.end();
    let mut node = Node::new(world, broker);
    if life == 0 {
        node.declare_everything();
    }
    node.begin();
    for _ in 0..steps {
        if let Err(Failed) = node.step() {
            end = if end == End::Stop { End::Crash } else { end };
            break;
        }
    }
    if end == End::Stop {
        node.stop();
    }
    drop(node);
    world.lose(end);
    world.oracle.end_life();
}

impl Node<'_> {
    /// What was declared is there.
    fn begin(&mut self) {
        for name in QUEUES {
            let id = self.queue(name).unwrap_or_else(|| panic!("{name} was declared"));
            assert_eq!(self.world.oracle.names.get(&id), Some(&name), "the queue is the same one");
        }
        let comes = self.queue(COMES_AND_GOES).is_some();
        self.world.oracle.begin_life(comes);
    }
}

/// Seeds to run: as many as WARREN_SEEDS says, from WARREN_SEED on.
fn seeds(usual: u64) -> Range<u64> {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = variable("WARREN_SEED").unwrap_or(0);
    first..first + variable("WARREN_SEEDS").unwrap_or(usual)
}

/// One to four shards.
fn shards_of(seed: u64) -> u16 {
    1 + u16::try_from(seed % 4).unwrap()
}

/// Runs all seeds beside each other; the first that fails is named.
fn run_all(all: &Range<u64>) {
    let next = AtomicU64::new(all.start);
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| all.contains(seed)) {
            let outcome = panic::catch_unwind(|| run(seed, shards_of(seed), Mutation::None));
            if let Err(panic) = outcome {
                eprintln!("WARREN_SEED={seed} WARREN_SEEDS=1");
                panic::resume_unwind(panic);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
}

#[test]
fn what_was_confirmed_survives_whatever_happens() {
    run_all(&seeds(10_000));
}

/// Seeds that failed once, for the reason that the name says.
fn run_cases(cases: &[u64]) {
    cases.iter().for_each(|seed| run(*seed, shards_of(*seed), Mutation::None));
}

#[test]
fn a_source_is_settled_behind_its_record() {
    run_cases(&[13, 69, 190]);
}

#[test]
fn a_source_is_not_settled_before_all_its_letters_are_durable() {
    run_cases(&[62, 74]);
}

#[test]
fn a_publish_that_dies_as_it_comes_is_confirmed_with_its_letters() {
    run_cases(&[21, 51, 112]);
}

#[test]
fn a_letter_that_dies_as_it_comes_passes_its_source_on() {
    run_cases(&[10, 22, 106]);
}

/// Whether one of some seeds finds the fault.
fn finds(mutation: Mutation) -> bool {
    (0..400).any(|seed| panic::catch_unwind(|| run(seed, shards_of(seed), mutation)).is_err())
}

#[test]
fn confirms_that_wait_for_nothing_are_found() {
    assert!(finds(Mutation::ConfirmEarly));
}

#[test]
fn sources_that_are_settled_early_are_found() {
    assert!(finds(Mutation::SettleEarly));
}

#[test]
fn stops_that_do_not_wait_for_letters_are_found() {
    assert!(finds(Mutation::StopEarly));
}
