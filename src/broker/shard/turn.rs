//! A shard's turn: what is due, then what came and what the shard made itself, up to a bound; and the credit that returns
//! when all of it is done.

use std::mem;
use std::sync::Arc;

use crate::model::ids::Timestamp;
use crate::model::request::{Event, Internal};
use crate::queue::Command;

use super::super::envelope::Envelope;
use super::super::link::{Link, LinkGate};
use super::super::outbox::Spent;
use super::super::topology::Topology;
use super::Shard;

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

impl Shard {
    /// Handles the inbox, up to a bound, and whatever time is due.
    pub(in crate::broker) fn turn(&mut self, now: Timestamp, topology: &Topology) {
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

    /// Whether the rest is for the next turn.
    pub(super) fn has_done_enough(&self) -> bool {
        self.work >= TURN_MAX || self.batch.length() > TURN_LOG_BYTES
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
