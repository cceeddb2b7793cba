//! A shard: the owner of a set of queues. It has one inbox and one turn: drain, apply, carry out effects, hand out.
//!
//! A turn is synchronous and touches nothing but the shard and its output, so whoever brings work may run it, and a test
//! can run it in any order. A dead letter is an effect that comes back as a publish; no queue ever calls another.
//!
//! What a turn has for the log is one batch. A queue delivers at once; whatever promises durability (confirms, answers
//! about durable queues) is held back with the batch and goes out when the batch is on the disk.

mod connections;
mod effects;
mod history;
mod ledger;
mod letters;
mod numbers;
mod paging;
mod queues;
mod turn;
mod watch;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::log::{Batch, Range};
use crate::model::entity::Queue;
use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, ConnectionId, QueueId, Timestamp};
use crate::model::message::Message;
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::request::Event;
#[cfg(test)]
use crate::queue::QueueCounts;
use crate::queue::{Command, DeathHistory, Effect, Fifo, IndexRange, Reply};
use crate::routing::Targets;

use super::envelope::{AskKind, Envelope, LoadRequest};
use super::events::Notice;
use super::journal::Submission;
use super::link::Link;
use super::outbox::{CreditPool, Outbox};
use history::History;
use letters::Letters;

/// What the shards of a broker share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// Bytes in a shard's queues above which they page out while memory is scarce; `u64::MAX` otherwise. The broker sets
    /// it.
    pub(super) memory_ceiling: Arc<AtomicU64>,
    /// What connections that publish share, and what shards make of that themselves.
    pub(super) credit_pool: Arc<CreditPool>,
}

impl Default for Common {
    fn default() -> Self {
        Self { memory_ceiling: Arc::new(AtomicU64::new(u64::MAX)), credit_pool: Arc::default() }
    }
}

struct OwnedQueue {
    definition: Arc<Queue>,
    machine: Fifo,
    /// The delivery mark in the log.
    marked: u64,
    /// The highest index of a record that outlives the broker. A mark above it tells nothing.
    last_record: u64,
    /// Messages that would have no record get one.
    recording: bool,
    /// The log has records of it, or had, or knows that it is there.
    recorded: bool,
    /// Asks that wait for the next `Loaded`.
    waiting: Vec<(Command, Option<(ChannelRef, AskKind)>)>,
    /// When the shard will look at it for expiry.
    alarm: Option<Timestamp>,
    /// The last turn that worked on it.
    turn: u64,
    /// Its part in the shard's `held`.
    held: u64,
    /// Messages that died and have their records until their letters are in their queues.
    dying: u64,
    /// It is deleted or gone, and removed once nothing is dying any more.
    leaving: Option<Leaving>,
}

/// How a queue ends, once it does.
#[derive(Default)]
struct Leaving {
    /// Who wanted it.
    user: Option<UserName>,
    answer: Option<(Reply, Option<(ChannelRef, AskKind)>)>,
    effects: Vec<Effect>,
    /// What came for it meanwhile counts as taken when it is gone: the numbers of those that wait for that.
    arrivals: Vec<u64>,
}

/// A queue that is gone.
pub(super) struct Removed {
    pub(super) queue: Arc<Queue>,
    /// Who wanted that.
    pub(super) user: Option<UserName>,
    /// The log may have something of it.
    pub(super) recorded: bool,
}

/// Bytes of memory that a queue takes besides its messages, with its place in maps.
pub(super) const QUEUE_MEMORY: u64 = size_of::<OwnedQueue>() as u64 + 64;

/// What a turn leaves to be done outside.
#[derive(Default)]
pub(super) struct TurnOutput {
    /// Queues that are gone. First the batch goes to the log, then their definitions are removed, then what waits may be
    /// told.
    pub(super) removed: Vec<Removed>,
    /// What happened, if somebody wants to know.
    pub(super) notices: Vec<Notice>,
    /// What is to be written, and what waits for it.
    pub(super) submission: Submission,
    /// Messages that the batch has records of.
    pub(super) logged: u64,
    /// Messages of queues whose records were damaged.
    pub(super) lost: Vec<(QueueId, u64)>,
    /// What queues need from the log.
    pub(super) loads: Vec<LoadRequest>,
    /// Answers of the log that were taken.
    pub(super) loaded: usize,
    /// Envelopes for other shards, by shard.
    pub(super) remote: Vec<Vec<Envelope>>,
    /// Connections whose channel-wide limits have room again, for the other shards.
    pub(super) resumed: Vec<ConnectionId>,
    /// Events, by connection.
    pub(super) events: Vec<(Arc<Outbox>, Vec<Event>)>,
    /// Emptied lists, to be used again.
    pub(super) spare: Vec<Vec<Event>>,
}

/// See the module's documentation.
pub(super) struct Shard {
    index: u16,
    pub(super) inbox: VecDeque<Envelope>,
    /// What a turn left in the middle. It comes before everything else.
    unfinished: VecDeque<Envelope>,
    /// What this shard and others made of what they handled, dead letters above all, and credit that returns after it. It
    /// shares turns with the inbox: however many letters one command makes, others wait for a part of a turn.
    own: VecDeque<Envelope>,
    pub(super) output: TurnOutput,
    queues: IdMap<QueueId, OwnedQueue>,
    links: IdMap<ConnectionId, Link>,
    turn: u64,
    /// What the turn has done, in envelopes, a message for many queues counting once for each.
    work: usize,
    /// Links with events to hand out.
    touched: Vec<ConnectionId>,
    alarms: BTreeSet<(Timestamp, QueueId)>,
    /// Queues whose next deadline, or memory, may have changed.
    dirty: Vec<QueueId>,
    /// Bytes of memory that the messages in queues and histories take.
    held: u64,
    /// Bytes in `held` above which queues page out.
    memory_budget: u64,
    common: Common,
    /// What the turn has made for this shard, less what it has handled of that.
    own_change: i64,
    /// Letters that the turn has made for other shards. They are counted in common when they go out.
    sent_in_turn: i64,
    /// What is to expire waits until then.
    expiry_after: Timestamp,
    /// Queues that may have something to page out.
    pageable: BTreeSet<QueueId>,
    /// Queues that keep the messages their consumers get next, and have nothing else to page out.
    ahead: BTreeSet<QueueId>,
    /// What queues keep for their consumers is more than the budget: they keep less.
    is_narrow: bool,
    /// What the turn has for the log so far.
    batch: Batch,
    /// The message appended last, whose record another queue can share.
    last_logged: Option<(Message, Option<Arc<DeathHistory>>)>,
    /// The last turn ended early, so that publishes of it may wait for the log.
    cut_short: bool,
    /// Other shards that got messages from here since credit last followed these, and whether there are any.
    sent: Vec<bool>,
    has_sent: bool,
    settled: Vec<IndexRange>,
    ranges: Vec<Range>,
    effects: Vec<Effect>,
    /// Connections whose channel-wide limits have room again since the last command.
    resumed: Vec<ConnectionId>,
    histories: HashMap<(VhostName, ExchangeName), History>,
    targets: Targets,
    scratch: Vec<u8>,
    letters: Letters,
}

impl Shard {
    pub(super) fn new(index: u16, shards: u16, memory_budget: u64, common: Common) -> Self {
        Self {
            index,
            inbox: VecDeque::new(),
            unfinished: VecDeque::new(),
            own: VecDeque::new(),
            output: TurnOutput { remote: (0..shards).map(|_| Vec::new()).collect(), ..TurnOutput::default() },
            queues: IdMap::default(),
            links: IdMap::default(),
            turn: 0,
            work: 0,
            touched: Vec::new(),
            alarms: BTreeSet::new(),
            dirty: Vec::new(),
            held: 0,
            memory_budget,
            common,
            own_change: 0,
            sent_in_turn: 0,
            expiry_after: Timestamp(0),
            pageable: BTreeSet::new(),
            ahead: BTreeSet::new(),
            is_narrow: false,
            batch: Batch::default(),
            last_logged: None,
            cut_short: false,
            sent: vec![false; usize::from(shards)],
            has_sent: false,
            settled: Vec::new(),
            ranges: Vec::new(),
            effects: Vec::new(),
            resumed: Vec::new(),
            histories: HashMap::new(),
            targets: Targets::default(),
            scratch: Vec::new(),
            letters: Letters::default(),
        }
    }

    /// How much the last turn did: envelopes, and messages that they made of one.
    pub(super) fn work_of_turn(&self) -> usize {
        self.work
    }

    /// Whether the last turn left something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.unfinished.is_empty() || !self.own.is_empty() || !self.inbox.is_empty()
    }

    /// Bytes of memory that the messages in queues and histories take; one in several queues counts in each.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// When the next turn is due although nothing arrives.
    pub(super) fn next_alarm(&self) -> Option<Timestamp> {
        self.alarms.first().map(|(at, _)| (*at).max(self.expiry_after))
    }

    /// Envelopes that the shard made itself, or left unfinished.
    #[cfg(test)]
    pub(super) fn left_over(&self) -> usize {
        self.unfinished.len() + self.own.len()
    }

    /// Whether dead letters are on their way that somebody in this shard waits for.
    pub(super) fn has_letters_under_way(&self) -> bool {
        !self.letters.is_empty()
    }

    /// Ready, unacked and consumers of a queue.
    #[cfg(test)]
    pub(super) fn counts(&self, queue: QueueId) -> Option<QueueCounts> {
        self.queues.get(&queue).map(|queue| queue.machine.counts())
    }

    fn dirty_unless_last(&mut self, queue: QueueId) {
        if self.dirty.last() != Some(&queue) {
            self.dirty.push(queue);
        }
    }
}

/// A queue or a history, whose memory is counted in `total`, takes other memory than before.
fn note_held(total: &mut u64, before: u64, now: u64) {
    let others =
        total.checked_sub(before).expect("what a shard holds is the sum of what its queues and histories hold");
    *total = others + now;
}
