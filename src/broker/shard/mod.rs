//! A shard: the owner of a set of queues. It has one inbox and one turn: drain, apply, carry out effects, hand out.
//!
//! A turn is synchronous and touches nothing but the shard and its output, so whoever brings work may run it, and a test
//! can run it in any order. A dead letter is an effect that comes back as a publish; no queue ever calls another.
//!
//! What a turn has for the log is one batch. A queue delivers at once; whatever promises durability (confirms, answers
//! about durable queues) is held back with the batch and goes out when the batch is on the disk.

mod effects;
mod history;
mod ledger;
mod letters;
mod numbers;
mod queues;
mod watch;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::log::{Batch, Range};
use crate::model::entity::Queue;
use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId, Timestamp};
use crate::model::message::Message;
use crate::model::names::{ConsumerTag, ExchangeName, UserName, VhostName};
use crate::model::request::{Event, Internal};
#[cfg(test)]
use crate::queue::QueueCounts;
use crate::queue::{Command, DeathHistory, Effect, Fifo, IndexRange, Publish, Reply};
use crate::routing::{QueueTarget, Targets};

use super::envelope::{AskKind, Envelope, LoadRequest, Replayed};
use super::events::Notice;
use super::journal::Submission;
use super::link::{Link, LinkGate};
use super::outbox::{CreditPool, Outbox, Spent};
use super::topology::Topology;
use history::History;
use letters::Letters;

/// Envelopes handled in one turn, a message for many queues counting once for each; the rest waits for the next.
const TURN_MAX: usize = 16 * 1024;
/// Bytes for the log after which a turn ends, so that no batch takes long to write.
const TURN_LOG_BYTES: usize = 1024 * 1024;

/// Shards that credit follows letters through. Letters of letters come back to a shard seldom, and what others send there
/// meanwhile is not to keep credit away for ever.
const PASSED_MAX: u8 = 8;

/// Envelopes that shards made themselves and that are not handled, in all shards, above which nothing more expires.
const OWN_MAX: i64 = 4096;

/// Milliseconds that what is to expire waits until it is looked at again, while others are behind with what was made before.
const EXPIRY_PAUSE_MS: u64 = 2;

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
    /// What the turn has done, as `TURN_MAX` counts.
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

    /// Handles the inbox, up to a bound, and whatever time is due.
    pub(super) fn turn(&mut self, now: Timestamp, topology: &Topology) {
        self.work = 0;
        self.expire(now, topology);
        while !self.has_done_enough() {
            let Some(envelope) = self.next() else { break };
            self.work += 1;
            self.handle(envelope, now, topology);
            // Empty unless some channel has a limit of its own.
            while let Some(connection) = self.resumed.pop() {
                self.output.resumed.push(connection);
                self.resume(connection, now, topology);
            }
        }
        self.sent_in_turn = 0;
        if self.own_change != 0 {
            self.common.credit_pool.change_own(mem::take(&mut self.own_change));
        }
        self.end_turn(now);
        self.page_out();
        self.hand_out();
        self.cut_short = (self.cut_short || !self.batch.is_empty()) && self.has_work();
        self.last_logged = None;
        mem::swap(&mut self.output.submission.batch, &mut self.batch);
    }

    /// What is handled next: first half a turn of what the shard made itself, then what came.
    fn next(&mut self) -> Option<Envelope> {
        if let Some(unfinished) = self.unfinished.pop_front() {
            return Some(unfinished);
        }
        let is_their_turn = self.work >= TURN_MAX / 2 || self.batch.length() > TURN_LOG_BYTES / 2;
        if is_their_turn {
            self.inbox.pop_front().or_else(|| self.next_own())
        } else {
            self.next_own().or_else(|| self.inbox.pop_front())
        }
    }

    fn next_own(&mut self) -> Option<Envelope> {
        let own = self.own.pop_front()?;
        self.own_change -= 1;
        Some(own)
    }

    /// How much the last turn did: envelopes, and messages that they made of one.
    pub(super) fn work_of_turn(&self) -> usize {
        self.work
    }

    /// Whether the last turn left something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.unfinished.is_empty() || !self.own.is_empty() || !self.inbox.is_empty()
    }

    /// Whether the rest is for the next turn.
    fn has_done_enough(&self) -> bool {
        self.work >= TURN_MAX || self.batch.length() > TURN_LOG_BYTES
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

    fn handle(&mut self, envelope: Envelope, now: Timestamp, topology: &Topology) {
        match envelope {
            Envelope::Enqueue { queue, publish, ticket } => self.enqueue(queue, publish, ticket, now, topology),
            Envelope::Run(run) => self.run(run, now, topology),
            Envelope::FanOut(fan_out) => self.fan_out(fan_out, now, topology),
            Envelope::Command { queue, command, ask } => self.command(queue, command, ask, now, topology),
            Envelope::Create { queue, ask } => self.create(queue, ask, now),
            Envelope::Attach { connection, outbox, record } => {
                self.links.insert(connection, Link::new(outbox, record));
            }
            Envelope::FromShard(envelopes) => self.own.extend(envelopes),
            Envelope::Taken { outbox, bytes } => self.taken(Spent::new(outbox, bytes)),
            Envelope::Followed { spent, passed } => self.follow(spent, passed),
            Envelope::Limit { connection, channel, limit } => {
                if let Some(link) = self.links.get_mut(&connection) {
                    link.set_limit(channel, limit);
                }
                self.resume(connection, now, topology);
            }
            Envelope::Resume(connection) => self.resume(connection, now, topology),
            Envelope::CancelConsumer(consumer) => _ = self.cancel(consumer, now, topology),
            Envelope::ChannelDown(channel) => self.channel_down(channel, now, topology),
            Envelope::ConnectionDown(connection) => self.connection_down(connection, now, topology),
            Envelope::Join(channel) => {
                self.tell(channel.connection, Event::Internal(Internal::Joined { channel }));
            }
            Envelope::JoinDurably(channel) => {
                self.tell_durably(channel.connection, Event::Internal(Internal::Joined { channel }));
            }
            Envelope::Adopt { queue, machine } => self.adopt(queue, *machine),
            Envelope::Loaded { queue, first, last, entries } => {
                self.output.loaded += 1;
                self.command(queue, Command::Loaded { first, last, entries }, None, now, topology);
                self.ask_again(queue, now, topology);
                self.pageable.insert(queue);
            }
            Envelope::RevokeConsumer { consumer, tag } => self.revoke(consumer, tag, now, topology),
            Envelope::LettersKept(numbers) => {
                numbers.into_iter().for_each(|number| self.letter_kept(number, now, topology));
            }
            Envelope::Configure(queue) => self.configure(queue, now, topology),
            Envelope::ListConsumers { queues, outbox } => self.list_consumers(&queues, outbox),
            Envelope::Remember { vhost, exchange, publish, length } => {
                self.remember((vhost, exchange), publish, length)
            }
            Envelope::Replay { vhost, exchange, target } => self.begin_replay(&(vhost, exchange), target),
            Envelope::Replayed(replayed) => self.replay(replayed, now, topology),
            Envelope::Forget { vhost, exchange } => self.forget(&(vhost, exchange)),
        }
    }

    fn channel_down(&mut self, channel: ChannelRef, now: Timestamp, topology: &Topology) {
        for queue in self.queues_of(channel.connection) {
            self.forget_waiting(queue, |asker| asker == channel);
            self.command(queue, Command::ChannelDown(channel), None, now, topology);
        }
        if let Some(link) = self.links.get_mut(&channel.connection) {
            link.set_limit(channel.number, None);
            link.consumers.retain(|consumer, _| consumer.channel != channel.number);
        }
        self.tell(channel.connection, Event::Internal(Internal::Joined { channel }));
    }

    fn connection_down(&mut self, connection: ConnectionId, now: Timestamp, topology: &Topology) {
        for queue in self.queues_of(connection) {
            self.forget_waiting(queue, |asker| asker.connection == connection);
            self.command(queue, Command::ConnectionDown(connection), None, now, topology);
        }
        self.tell(connection, Event::Internal(Internal::ShardDown));
        self.hand_out();
        self.links.remove(&connection);
    }

    /// What this credit paid for is done here. It returns once that is in the log, since what is on its way there takes
    /// memory; and done in the shards that got letters of it.
    fn taken(&mut self, spent: Spent) {
        if !self.own.is_empty() {
            // Behind what came of it.
            self.own_change += 1;
            self.own.push_back(Envelope::Followed { spent: Arc::new(spent), passed: 0 });
        } else if self.has_sent || !self.batch.is_empty() || self.cut_short {
            self.follow(Arc::new(spent), 0);
        }
    }

    fn follow(&mut self, spent: Arc<Spent>, passed: u8) {
        if mem::take(&mut self.has_sent) {
            for (sent, remote) in self.sent.iter_mut().zip(&mut self.output.remote) {
                if mem::take(sent) && passed < PASSED_MAX {
                    remote.push(Envelope::Followed { spent: Arc::clone(&spent), passed: passed + 1 });
                }
            }
        }
        if !self.batch.is_empty() || self.cut_short {
            self.output.submission.held.credit.push(spent);
        }
    }

    /// Ends a consumer, whichever queue it is on; whether there was one.
    fn cancel(&mut self, consumer: ConsumerId, now: Timestamp, topology: &Topology) -> bool {
        let queue = self.links.get_mut(&consumer.connection).and_then(|link| link.consumers.remove(&consumer));
        let Some(queue) = queue else { return false };
        self.command(queue, Command::Cancel(consumer), None, now, topology);
        true
    }

    /// Ends a consumer, and says so to its connection.
    fn revoke(&mut self, consumer: ConsumerId, tag: ConsumerTag, now: Timestamp, topology: &Topology) {
        if self.cancel(consumer, now, topology) {
            self.tell(consumer.connection, Event::ConsumerCancelled { consumer, tag });
        }
    }

    /// A recent-history exchange saw a message.
    fn remember(&mut self, exchange: (VhostName, ExchangeName), publish: Publish, length: usize) {
        let history = self.histories.entry(exchange).or_default();
        let before = history.memory();
        history.add(publish, length);
        let after = history.memory();
        note_held(&mut self.held, before, after);
    }

    /// A queue was bound to a recent-history exchange.
    fn begin_replay(&mut self, exchange: &(VhostName, ExchangeName), target: QueueTarget) {
        if let Some(history) = self.histories.get(exchange) {
            let replayed = Replayed { queue: target.id, history: history.publishes(), done: 0 };
            self.forward(target.shard, Envelope::Replayed(replayed));
        }
    }

    /// A recent-history exchange is gone.
    fn forget(&mut self, exchange: &(VhostName, ExchangeName)) {
        if let Some(history) = self.histories.remove(exchange) {
            note_held(&mut self.held, history.memory(), 0);
        }
    }

    fn list_consumers(&mut self, queues: &[QueueId], outbox: Arc<Outbox>) {
        let consumers = queues.iter().filter_map(|queue| self.queues.get(queue).map(|owned| (*queue, owned)));
        let views = |(queue, owned): (QueueId, &OwnedQueue)| {
            owned.machine.consumers().into_iter().map(move |view| (queue, view)).collect::<Vec<_>>()
        };
        let consumers = consumers.flat_map(views).collect();
        self.output.events.push((outbox, vec![Event::Internal(Internal::Consumers { consumers })]));
    }

    fn dirty_unless_last(&mut self, queue: QueueId) {
        if self.dirty.last() != Some(&queue) {
            self.dirty.push(queue);
        }
    }

    fn queues_of(&mut self, connection: ConnectionId) -> Vec<QueueId> {
        let Some(link) = self.links.get_mut(&connection) else { return Vec::new() };
        link.queues.retain(|queue| self.queues.contains_key(queue));
        link.queues.iter().copied().collect()
    }

    /// Lets queues try again that this connection's consumers were refused by the gate.
    fn resume(&mut self, connection: ConnectionId, now: Timestamp, topology: &Topology) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        for queue in mem::take(&mut link.refused) {
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
            owned.machine.apply(now, Command::Resume(connection), &mut gate, &mut self.effects);
            self.after(queue, now, topology);
        }
    }

    fn expire(&mut self, now: Timestamp, topology: &Topology) {
        self.expiry_after = Timestamp(0);
        while let Some((at, queue)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            if self.has_done_enough() {
                return;
            }
            // What expires waits in its queue rather than on the way to others, whichever shard they are in.
            let made = self.common.credit_pool.own() + self.own_change + self.sent_in_turn;
            if made >= OWN_MAX {
                self.expiry_after = now.plus(EXPIRY_PAUSE_MS);
                return;
            }
            self.work += 1;
            self.alarms.remove(&(at, queue));
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            owned.alarm = None;
            let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
            owned.machine.apply(now, Command::Tick, &mut gate, &mut self.effects);
            let is_waited_for = !owned.waiting.is_empty();
            self.after(queue, now, topology);
            if is_waited_for {
                self.ask_again(queue, now, topology);
            }
        }
    }
}

/// A queue or a history, whose memory is counted in `total`, takes other memory than before.
fn note_held(total: &mut u64, before: u64, now: u64) {
    let others =
        total.checked_sub(before).expect("what a shard holds is the sum of what its queues and histories hold");
    *total = others + now;
}
