//! What the log has to know of a queue, and what waits for that.

use std::sync::Arc;

use crate::log::{Head, LogId, Range};
use crate::model::ids::{ChannelRef, QueueId, Timestamp};
use crate::model::message::Message;
use crate::model::narrow::narrow;
use crate::queue::{Command, DeathHistory, Effect, Publish, PublishOrigin, Reach, Reply, Verdict};

use super::super::envelope::{Arrival, Envelope, FanOut, Replayed, Run, Ticket};
use super::super::link::LinkGate;
use super::super::stored;
use super::super::topology::Topology;
use super::effects::{join_confirm, touch};
use super::letters::{Waits, owed_for};
use super::{OwnedQueue, Shard, note_held, numbers};

/// Memory of a queue's messages above which those that would have no record may get one, so that they can leave it; with a
/// small budget, or with many queues that share it, less.
const RECORDING_MIN: u64 = 1024 * 1024;
/// Part of a queue's even share of the memory budget from which on it may be one of those that fill it.
const SHARE_DIVISOR: u64 = 8;

/// What became of a publish.
enum Put {
    /// Its record outlives the broker, so the confirm waits for it.
    Durably,
    Otherwise,
    /// The queue was deleted meanwhile, which counts as taken.
    Nowhere,
    /// It would have had a record, but left before: a consumer has it, or it is a dead letter, or was refused.
    Died,
}

impl Shard {
    /// Gives a message to a queue; of a dead letter the ticket.
    pub(super) fn enqueue(
        &mut self,
        queue: QueueId,
        publish: Publish,
        ticket: Option<Ticket>,
        now: Timestamp,
        topology: &Topology,
    ) {
        let origin = publish.origin;
        let is_persistent = publish.message.is_persistent();
        match self.put(queue, publish, now) {
            Put::Durably => self.hold_confirm(),
            Put::Otherwise => {}
            Put::Died => return self.died_as_it_came(queue, ticket, now, topology),
            Put::Nowhere if !is_persistent => {
                self.confirm_origin(origin, Verdict::Confirmed);
                return self.keep_letter(ticket, now, topology);
            }
            Put::Nowhere => {
                if let Some(owed) = owed_for(ticket, origin, Verdict::Confirmed) {
                    let number = self.came_too_late(queue, &mut Arrival::None);
                    self.owe(number, Some(owed), now, topology);
                }
                return;
            }
        }
        self.after(queue, now, topology);
        self.keep_letter(ticket, now, topology);
    }

    /// Gives a queue one message after the other until it has all or the turn has done enough.
    pub(super) fn run(&mut self, mut run: Run, now: Timestamp, topology: &Topology) {
        while let Some(publish) = run.publishes.pop_front() {
            self.enqueue(run.queue, publish, None, now, topology);
            if run.publishes.is_empty() {
                return;
            }
            self.work += 1;
            if self.has_done_enough() {
                return self.unfinished.push_front(Envelope::Run(run));
            }
        }
    }

    /// Gives the message to one queue after the other until all have it or the turn has done enough.
    pub(super) fn fan_out(&mut self, mut fan_out: FanOut, now: Timestamp, topology: &Topology) {
        let is_awaited = fan_out.ticket.is_some() || fan_out.publish.origin != PublishOrigin::Untracked;
        while let Some(queue) = fan_out.queues.get(fan_out.done as usize).copied() {
            if self.has_done_enough() {
                return self.unfinished.push_front(Envelope::FanOut(fan_out));
            }
            self.work += 1;
            fan_out.done += 1;
            let put = self.put(queue, fan_out.publish.clone(), now);
            if matches!(put, Put::Nowhere) {
                if is_awaited && fan_out.publish.message.is_persistent() {
                    self.came_too_late(queue, &mut fan_out.arrival);
                }
                continue;
            }
            fan_out.logged |= matches!(put, Put::Durably);
            fan_out.rejected |= self.take_confirm().is_some_and(|(.., verdict)| verdict == Verdict::Rejected);
            let mut waits = Waits { arrival: fan_out.arrival, ticket: None, is_awaited };
            self.after_arrival(queue, Some(&mut waits), now, topology);
            fan_out.arrival = waits.arrival;
        }
        let verdict = if fan_out.rejected { Verdict::Rejected } else { Verdict::Confirmed };
        let origin = fan_out.publish.origin;
        match (fan_out.arrival, origin) {
            (Arrival::Waits(number), _) => {
                self.owe(number, owed_for(fan_out.ticket, origin, verdict), now, topology);
                return;
            }
            (_, PublishOrigin::Channel { channel, sequence }) if fan_out.logged => {
                self.confirm_durably(channel, sequence, verdict);
            }
            (_, origin) => self.confirm_origin(origin, verdict),
        }
        self.keep_letter(fan_out.ticket, now, topology);
    }

    /// Gives a queue what a recent-history exchange remembers, until it has all or the turn has done enough.
    pub(super) fn replay(&mut self, mut replayed: Replayed, now: Timestamp, topology: &Topology) {
        while let Some(publish) = replayed.history.get(replayed.done).cloned() {
            if self.has_done_enough() {
                return self.unfinished.push_front(Envelope::Replayed(replayed));
            }
            self.work += 1;
            replayed.done += 1;
            self.enqueue(replayed.queue, publish, None, now, topology);
        }
    }

    /// Has the queue's machine take a message, and adds its record to the turn's batch. What comes of it is left in the
    /// effects, for `after`.
    #[inline]
    fn put(&mut self, queue: QueueId, publish: Publish, now: Timestamp) -> Put {
        let is_there = |owned: &&mut OwnedQueue| owned.leaving.is_none();
        let Some(owned) = self.queues.get_mut(&queue).filter(is_there) else { return Put::Nowhere };
        if self.held > self.memory_budget && !owned.recording {
            // Many queues with little in each are much, too.
            owned.recording = true;
            owned.machine.record_all(true);
        }
        let durably = owned.definition.durable && publish.message.is_persistent();
        let logged = (durably || owned.recording).then(|| (publish.message.clone(), publish.deaths.clone()));
        let mut gate = LinkGate::new(&mut self.links, &mut self.resumed, queue);
        let reply = owned.machine.apply(now, Command::Enqueue(publish), &mut gate, &mut self.effects);
        if let Reply::Kept { index, expires } = reply
            && let Some((message, deaths)) = logged
        {
            let head = Head {
                log: LogId(queue.0),
                index: index.0,
                time: now.0,
                deadline: expires.map_or(u64::MAX, |at| at.0),
                cost: narrow(message.body_length(), "max_message_size is below 4 GiB"),
                class: owned.machine.lane_of(&message),
                transient: !durably,
            };
            owned.recorded = true;
            self.output.logged += 1;
            if durably {
                owned.last_record = index.0;
            }
            self.append(&head, message, deaths);
            if durably {
                return Put::Durably;
            }
        }
        if durably { Put::Died } else { Put::Otherwise }
    }

    /// Adds the record of a message to the turn's batch; a body that several queues got one after the other is there once.
    pub(super) fn append(&mut self, head: &Head, message: Message, deaths: Option<Arc<DeathHistory>>) {
        let same_deaths = |other: &Option<Arc<DeathHistory>>| match (other, &deaths) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let shared =
            matches!(&self.last_logged, Some((last, of_last)) if last.is_same(&message) && same_deaths(of_last));
        if !shared || !self.batch.append_again(head) {
            stored::append(&mut self.batch, head, &message, deaths.as_deref());
            self.last_logged = Some((message, deaths));
        }
        if !head.transient {
            // Nobody may wait for it to be durable, but it is not to wait for long either.
            self.batch.set_urgent();
        }
    }

    /// The confirm among the effects of the last publish waits for the log.
    fn hold_confirm(&mut self) {
        if let Some((channel, sequence, verdict)) = self.take_confirm() {
            self.confirm_durably(channel, sequence, verdict);
        }
    }

    /// Takes the confirm out of the effects of the last publish.
    pub(super) fn take_confirm(&mut self) -> Option<(ChannelRef, u64, Verdict)> {
        let (at, confirm) = self.effects.iter().enumerate().find_map(|(at, effect)| {
            let Effect::Confirm { channel, sequence, verdict } = *effect else { return None };
            Some((at, (channel, sequence, verdict)))
        })?;
        self.effects.remove(at);
        Some(confirm)
    }

    /// Adds a verdict to the connection's events that wait for the log.
    pub(super) fn confirm_durably(&mut self, channel: ChannelRef, sequence: u64, verdict: Verdict) {
        if let Some(link) = self.links.get_mut(&channel.connection) {
            touch(&mut self.touched, link, channel.connection);
            join_confirm(&mut link.held, channel, sequence, verdict);
        }
    }

    /// Tells whoever waits for a publish.
    pub(super) fn confirm_origin(&mut self, origin: PublishOrigin, verdict: Verdict) {
        if let PublishOrigin::Channel { channel, sequence } = origin {
            self.confirm(channel, sequence, verdict);
        }
    }

    /// Looks at the queues that were worked on: what the log has to know, what they hold, and their earliest deadline. A
    /// deadline that moved later is left: the early alarm finds nothing due and sets the right one.
    pub(super) fn end_turn(&mut self, now: Timestamp) {
        self.turn += 1;
        let share = self.memory_budget / SHARE_DIVISOR / (self.queues.len() as u64).max(1);
        let recording_min = RECORDING_MIN.min(self.memory_budget / 32).min(share);
        for queue in self.dirty.drain(..) {
            let Some(owned) = self.queues.get_mut(&queue) else { continue };
            if owned.turn == self.turn {
                continue;
            }
            owned.turn = self.turn;
            if owned.recorded {
                owned.machine.take_settled(&mut self.settled);
                self.ranges.extend(self.settled.drain(..).map(|range| Range { first: range.first, last: range.last }));
                self.batch.settle(LogId(queue.0), &self.ranges);
                self.ranges.clear();
                let delivered = owned.machine.delivered_through();
                if delivered > owned.marked && owned.marked < owned.last_record {
                    owned.marked = delivered;
                    self.batch.delivered(LogId(queue.0), delivered);
                }
            }
            let held = owned.machine.memory();
            note_held(&mut self.held, owned.held, held);
            owned.held = held;
            numbers::publish(owned, now);
            let is_deep = self.held > self.memory_budget / 2 && held > recording_min || self.held > self.memory_budget;
            owned.machine.reach(if self.is_narrow { Reach::Head } else { Reach::Window });
            if owned.recording != is_deep && (is_deep || owned.machine.counts().ready == 0) {
                owned.recording = is_deep;
                owned.machine.record_all(is_deep);
            }
            let Some(next) = owned.machine.next_deadline() else { continue };
            if owned.alarm.is_none_or(|alarm| next < alarm) {
                if let Some(alarm) = owned.alarm {
                    self.alarms.remove(&(alarm, queue));
                }
                owned.alarm = Some(next);
                self.alarms.insert((next, queue));
            }
        }
    }
}
