//! One life of the broker: its owners, and the piece of work that each is in the middle of. One step is one piece of one
//! owner, as small as what can happen between two things that another thread does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::super::super::envelope::Envelope;
use super::super::super::journal;
use super::super::super::shard::Shard;
use super::super::super::{Broker, ShardCell};
use super::World;
use super::mutations::Mutation;
use super::workload::Peer;
use crate::log::CommitError;
use crate::model::ids::{QueueId, Timestamp};

const PEERS: usize = 3;

/// The process is at its end: the disk has failed it.
pub(super) struct Failed;

/// The journal's writer at work.
struct Writing<'b> {
    state: MutexGuard<'b, journal::Writing>,
    /// Submissions that are durable, and for which somebody waits.
    durable: usize,
    /// What was pending is taken.
    has_taken: bool,
}

pub(super) struct Node<'b> {
    pub(super) world: &'b mut World,
    pub(super) broker: &'b Arc<Broker>,
    pub(super) peers: Vec<Peer>,
    /// Shards whose turn is being dispatched.
    turning: Vec<Option<MutexGuard<'b, Shard>>>,
    writing: Option<Writing<'b>>,
    /// What was read for a queue, and its shard has not been told of.
    read: Option<(u16, Envelope)>,
}

impl<'b> Node<'b> {
    pub(super) fn new(world: &'b mut World, broker: &'b Arc<Broker>) -> Self {
        let turning = (0..broker.shard_count()).map(|_| None).collect();
        let now = world.clock.now();
        let peers = (0..PEERS).map(|_| Peer::new(broker, now)).collect();
        Self { world, broker, peers, turning, writing: None, read: None }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.world.below(bound)
    }

    pub(super) fn queue(&self, name: &str) -> Option<QueueId> {
        let topology = self.broker.topology.load();
        topology.vhost(&"/".into()).unwrap().queues.get(name).map(|queue| queue.id)
    }

    /// Tells what happens to one message, for finding out why a seed fails: WARREN_WATCH=number.
    pub(super) fn watch(&self, number: u64, what: &dyn std::fmt::Debug) {
        self.world.watch(number, what);
    }

    /// One piece of one owner.
    pub(super) fn step(&mut self) -> Result<(), Failed> {
        let peer = self.below(PEERS);
        match self.below(20) {
            0..=2 => self.act(peer),
            3 | 4 => _ = self.listen(peer),
            5..=11 => {
                let shard = self.below(self.turning.len());
                self.step_shard(shard);
            }
            12..=15 => _ = self.step_writer()?,
            16 => self.maintain()?,
            17 => self.step_load()?,
            18 => self.world.clock.tick(&mut self.world.random),
            _ => match self.below(24) {
                0 => return self.fail(),
                1 | 2 => self.world.disk_fills(),
                3 => self.rest(),
                _ => {}
            },
        }
        Ok(())
    }

    /// A shard begins a turn, hands on a piece of what it left, or ends it.
    pub(super) fn step_shard(&mut self, shard: usize) {
        let now = self.now();
        let cell = self.cell(shard);
        let number = u16::try_from(shard).unwrap();
        match &mut self.turning[shard] {
            None => {
                let mut state = self.broker.begin_turn(cell, now).expect("nobody else has it");
                self.world.mutation.apply(self.broker, &mut state.output);
                self.turning[shard] = Some(state);
            }
            Some(state) => {
                if !self.broker.dispatch(number, &mut state.output)
                    && let Some(state) = self.turning[shard].take()
                {
                    Broker::end_turn(cell, state);
                }
            }
        }
    }

    /// The writer takes what is pending, makes some of it durable, or lets go what waited for it. Whether there was
    /// anything.
    pub(super) fn step_writer(&mut self) -> Result<bool, Failed> {
        let broker = self.broker;
        let journal = &broker.journal;
        let writing =
            self.writing.get_or_insert_with(|| Writing { state: journal.writing.lock(), durable: 0, has_taken: false });
        if writing.durable > 0 {
            journal.release(&mut writing.state, &**broker);
            writing.durable -= 1;
        } else if !writing.state.taken.is_empty() {
            let committed = writing.state.commit();
            self.world.watch(0, &("log written", &committed));
            match committed {
                Ok(count) => writing.durable = count,
                Err(CommitError::Failed(_)) => return Err(Failed),
                Err(CommitError::NoSpace { .. } | CommitError::Full) => self.writing = None,
            }
        } else if !writing.has_taken {
            journal.take(&mut writing.state);
            writing.has_taken = true;
            if writing.state.taken.is_empty() {
                journal.finish();
                self.writing = None;
                return Ok(false);
            }
        } else {
            journal.finish();
            self.writing = None;
        }
        Ok(true)
    }

    fn maintain(&mut self) -> Result<(), Failed> {
        // It may wait for the writer.
        while self.writing.is_some() {
            self.step_writer()?;
        }
        let done = self.broker.maintain_log();
        self.watch(0, &("maintained", &done));
        match done {
            Err(CommitError::Failed(_)) => Err(Failed),
            Ok(_) | Err(CommitError::NoSpace { .. } | CommitError::Full) => Ok(()),
        }
    }

    /// Something is read for a queue, or its shard is told of it.
    fn step_load(&mut self) -> Result<(), Failed> {
        match self.read.take() {
            Some((shard, envelope)) => self.broker.post(shard, envelope),
            None => match self.broker.read_load(Duration::ZERO) {
                Ok(read) => self.read = read,
                Err(CommitError::Failed(_)) => return Err(Failed),
                Err(CommitError::NoSpace { .. } | CommitError::Full) => {}
            },
        }
        Ok(())
    }

    /// The disk fails those who write or sync next; the process does not outlive it.
    fn fail(&mut self) -> Result<(), Failed> {
        self.world.disk_fails_soon();
        for _ in 0..8 {
            self.step_writer()?;
        }
        self.maintain()?;
        Err(Failed)
    }

    /// Lets a client do something while some of the shards are busy: what it has for them waits in their mailboxes.
    pub(super) fn with_busy_shards(&mut self, act: impl FnOnce(&mut [Peer])) {
        let busy: Vec<bool> = self.turning.iter().map(|_| self.world.is_busy || self.world.below(4) != 0).collect();
        let broker = self.broker;
        // Those that are in a turn are locked in any case.
        let guards: Vec<_> =
            broker.shards.iter().zip(busy).filter(|(_, busy)| *busy).map(|(cell, _)| cell.state.try_lock()).collect();
        act(&mut self.peers);
        drop(guards);
    }

    /// Everybody finishes what is begun; nothing is left to be done but what clients may want.
    pub(super) fn rest(&mut self) {
        self.world.disk.set_capacity(None);
        loop {
            let mut any = self.finish_steps();
            for peer in 0..PEERS {
                any |= self.listen(peer);
            }
            any |= self.finish_steps();
            if !any {
                break;
            }
        }
        assert!(!self.broker.has_letters_under_way(), "everybody was told of every letter");
        self.world.oracle.rest();
        self.watch(0, &"everything rests");
    }

    /// Everybody finishes what is begun, but the clients. Whether there was anything.
    pub(super) fn finish_steps(&mut self) -> bool {
        let now = self.now();
        for shard in 0..self.turning.len() {
            while self.turning[shard].is_some() {
                self.step_shard(shard);
            }
        }
        while self.writing.is_some() {
            let _ = self.step_writer();
        }
        let mut any = false;
        if let Some((shard, envelope)) = self.read.take() {
            self.broker.post(shard, envelope);
        }
        loop {
            let mut again = self.broker.finish_turns(now);
            again |= self.broker.serve_load(Duration::ZERO).unwrap();
            again |= match self.broker.write_log() {
                Ok(written) => written,
                Err(CommitError::Full) => self.broker.maintain_log().unwrap(),
                Err(error) => panic!("{error}"),
            };
            any |= again;
            if !again {
                return any;
            }
        }
    }

    /// The connections end, and what they sent is in the queues; then the log ends.
    pub(super) fn stop(&mut self) {
        self.rest();
        let now = self.now();
        for at in 0..PEERS {
            self.with_busy_shards(|peers| peers[at].session_mut().abandon(now));
        }
        if self.world.mutation == Mutation::StopEarly {
            self.broker.finish_turns(now);
            self.broker.write_log().unwrap();
            return;
        }
        self.finish_steps();
        assert!(!self.broker.has_letters_under_way(), "everybody was told of every letter");
        self.broker.sync_log().unwrap();
    }

    fn cell(&self, shard: usize) -> &'b ShardCell {
        &self.broker.shards[shard]
    }
}
