//! Dead letters: where they go, and what waits until they are there for good.
//!
//! ```text
//! message dies ──► letters, each with a ticket ──► their queues' shards: record in the batch
//!      ▲                                                  │ durable
//!      └── settle the record, confirm the publish ◄── LettersKept ◄── journal
//! ```
//!
//! What ends a message is written by its own queue's shard, after every letter of it is durable: so the order in the log
//! is the order of promises, whatever other shards do. Letters for queues of the same shard need no answer: their records
//! are in the log before anything that this shard says later.

use std::mem;
use std::sync::Arc;

use crate::model::hash::IdMap;
use crate::model::ids::{ChannelRef, MessageIndex, QueueId, Timestamp};
use crate::model::message::Message;
use crate::queue::{DeathHistory, Publish, PublishOrigin, Reason, Recorded, Verdict, dead_letter};
use crate::routing::Facts;

use super::super::envelope::{Arrival, ByShard, Ticket, by_shard};
use super::super::topology::Topology;
use super::{Leaving, Shard};

/// What is to be done once all letters of a message are in their queues for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    /// Its record is settled.
    Record(QueueId, MessageIndex),
    /// Its publish is answered.
    Confirm(ChannelRef, u64, Verdict),
    /// It was a letter itself, and somebody waits for it.
    Letter(Ticket),
}

/// Messages whose letters are on their way, by number.
#[derive(Debug, Default)]
pub(super) struct Letters {
    last: u64,
    open: IdMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// Letters that are not kept yet.
    left: u32,
    owed: Option<Owed>,
}

/// Who waits for the letters of a message that comes to a queue and dies at once.
pub(super) struct Waits {
    pub(super) arrival: Arrival,
    /// The message's own ticket, which an only letter may take over.
    pub(super) ticket: Option<Ticket>,
    pub(super) is_awaited: bool,
}

impl Letters {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Waits for this many letters; the number that they are to carry.
    fn open(&mut self, left: u32, owed: Option<Owed>) -> u64 {
        self.last += 1;
        self.open.insert(self.last, Open { left, owed });
        self.last
    }

    /// Waits for more.
    fn add(&mut self, number: u64, count: u32) {
        self.open.get_mut(&number).expect("only what is waited for gets more letters").left += count;
    }

    /// A letter is in its queues for good. What is owed if it was the last.
    fn kept(&mut self, number: u64) -> Option<Owed> {
        let open = self.open.get_mut(&number).expect("a letter is kept once");
        open.left -= 1;
        if open.left > 0 {
            return None;
        }
        self.open.remove(&number).and_then(|open| open.owed)
    }
}

impl Arrival {
    /// The number under which more letters are waited for; one letter is the message itself, until all is known of it.
    fn number(&mut self, letters: &mut Letters) -> u64 {
        match *self {
            Self::Waits(number) => number,
            Self::None | Self::Passed => {
                let number = letters.open(1, None);
                *self = Self::Waits(number);
                number
            }
        }
    }
}

impl Shard {
    /// The letter that becomes of a message, and the queues that get it; none when there is no place for it.
    pub(super) fn letters_of(
        &mut self,
        queue: QueueId,
        message: &Message,
        deaths: Option<&DeathHistory>,
        reason: Reason,
        now: Timestamp,
        topology: &Topology,
    ) -> Option<(Publish, ByShard)> {
        self.work += 1;
        let definition = Arc::clone(&self.queues.get(&queue)?.definition);
        let target = definition.options.dead_letter.as_ref()?;
        let vhost = topology.vhost(&definition.vhost)?;
        let letter = dead_letter::rewrite(&mut self.scratch, message, deaths, reason, &definition.name, target, now);
        let keys: Vec<&[u8]> = letter.routing_keys.iter().map(|key| key.as_bytes()).collect();
        let mut targets = mem::take(&mut self.targets);
        targets.clear();
        let random = now.0.rotate_left(17) ^ queue.0;
        let properties = letter.message.properties();
        let facts = Facts::new(&properties, random);
        let routed = vhost.routing.route(target.exchange.as_str().as_bytes(), &keys, &facts, &mut targets);
        let recipients = routed.ok().map(|_| {
            targets.retain(|target| {
                let name = vhost.names.get(&target.id);
                !name.is_some_and(|name| dead_letter::is_cycle(&letter.deaths, name, reason))
            });
            by_shard(targets.queues())
        });
        self.targets = targets;
        let origin = PublishOrigin::Untracked;
        let publish = Publish { message: letter.message, expiration_ms: None, origin, deaths: Some(letter.deaths) };
        recipients.map(|recipients| (publish, recipients))
    }

    /// Sends letters on their way, and notes what waits for them.
    pub(super) fn send_letters(
        &mut self,
        queue: QueueId,
        record: Recorded,
        waits: Option<&mut Waits>,
        letters: Option<(Publish, ByShard)>,
    ) {
        let count = letters.as_ref().map_or(0, |(_, recipients)| recipients.len());
        let count = u32::try_from(count).expect("a letter for each shard at most");
        let ticket = match record {
            Recorded::No => None,
            Recorded::As(index) => self.ticket_of_record(queue, index, count),
            Recorded::NotYet => {
                let waits = waits.expect("only a message that comes dies before it is recorded");
                self.ticket_of_arrival(waits, count)
            }
        };
        if let Some((publish, recipients)) = letters {
            for (shard, recipients) in recipients {
                self.forward(shard, recipients.envelope(publish.clone(), ticket));
            }
        }
    }

    fn ticket_of_record(&mut self, queue: QueueId, index: MessageIndex, count: u32) -> Option<Ticket> {
        let owned = self.queues.get_mut(&queue).expect("a message dies in a queue that is there");
        if count == 0 {
            owned.machine.letters_kept(index);
            return None;
        }
        owned.dying += 1;
        let number = self.letters.open(count, Some(Owed::Record(queue, index)));
        Some(Ticket::new(self.index, number))
    }

    fn ticket_of_arrival(&mut self, waits: &mut Waits, count: u32) -> Option<Ticket> {
        if count == 0 || !waits.is_awaited {
            return None;
        }
        // So a chain of queues through which a letter passes is one letter.
        if count == 1 && waits.ticket.is_some() {
            waits.arrival = Arrival::Passed;
            return waits.ticket.take();
        }
        let number = waits.arrival.number(&mut self.letters);
        self.letters.add(number, count);
        Some(Ticket::new(self.index, number))
    }

    /// The message that came to a queue, with a confirm among the effects or a ticket, is not there any more.
    pub(super) fn died_as_it_came(
        &mut self,
        queue: QueueId,
        ticket: Option<Ticket>,
        now: Timestamp,
        topology: &Topology,
    ) {
        let confirm = self.take_confirm();
        let is_awaited = ticket.is_some() || matches!(confirm, Some((.., Verdict::Confirmed)));
        let mut waits = Waits { arrival: Arrival::None, ticket, is_awaited };
        self.after_arrival(queue, Some(&mut waits), now, topology);
        match (waits.arrival, confirm) {
            (Arrival::Passed, _) => {}
            (Arrival::None, Some((channel, sequence, verdict))) => self.confirm(channel, sequence, verdict),
            (Arrival::None, None) => self.keep_letter(ticket, now, topology),
            (Arrival::Waits(number), Some((channel, sequence, verdict))) => {
                self.owe(number, Some(Owed::Confirm(channel, sequence, verdict)), now, topology);
            }
            (Arrival::Waits(number), None) => self.owe(number, ticket.map(Owed::Letter), now, topology),
        }
    }

    /// A message came for a queue that is deleted, which counts as taken, but not before that is durable: a crash may
    /// bring the queue back. The number under which that is waited for.
    pub(super) fn came_too_late(&mut self, queue: QueueId, arrival: &mut Arrival) -> u64 {
        let number = arrival.number(&mut self.letters);
        self.letters.add(number, 1);
        match self.queues.get_mut(&queue).and_then(|owned| owned.leaving.as_mut()) {
            Some(leaving) => leaving.arrivals.push(number),
            None => self.output.submission.held.add_letter(self.index, number),
        }
        number
    }

    /// All is known of a message that died as it came: this is owed when its letters are in their queues.
    pub(super) fn owe(&mut self, number: u64, owed: Option<Owed>, now: Timestamp, topology: &Topology) {
        self.letters.open.get_mut(&number).expect("it is waited for").owed = owed;
        self.letter_kept(number, now, topology);
    }

    /// A letter is in its queues, and will be durable with this turn's batch.
    pub(super) fn keep_letter(&mut self, ticket: Option<Ticket>, now: Timestamp, topology: &Topology) {
        match ticket {
            None => {}
            Some(ticket) if ticket.shard() == self.index => self.letter_kept(ticket.number(), now, topology),
            Some(ticket) => self.output.submission.held.add_letter(ticket.shard(), ticket.number()),
        }
    }

    /// A letter is in its queues for good: whatever this shard has for the log from here on comes after it.
    pub(super) fn letter_kept(&mut self, number: u64, now: Timestamp, topology: &Topology) {
        match self.letters.kept(number) {
            None => {}
            Some(Owed::Record(queue, index)) => self.died_for_good(queue, index, now, topology),
            Some(Owed::Confirm(channel, sequence, verdict)) => self.confirm_durably(channel, sequence, verdict),
            Some(Owed::Letter(ticket)) => self.keep_letter(Some(ticket), now, topology),
        }
    }

    fn died_for_good(&mut self, queue: QueueId, index: MessageIndex, now: Timestamp, topology: &Topology) {
        let owned = self.queues.get_mut(&queue).expect("a queue stays until nothing in it is dying");
        owned.machine.letters_kept(index);
        owned.dying = owned.dying.checked_sub(1).expect("a message that died for good was dying");
        let leaving = if owned.dying == 0 { owned.leaving.take() } else { None };
        let definition = Arc::clone(&owned.definition);
        self.dirty.push(queue);
        if let Some(Leaving { user, answer, effects, arrivals }) = leaving {
            if let Some((reply, ask)) = answer {
                self.reply(&definition, reply, ask);
            }
            let others = mem::replace(&mut self.effects, effects);
            self.after(queue, now, topology);
            self.effects = others;
            for number in arrivals {
                self.output.submission.held.add_letter(self.index, number);
            }
            self.remove(queue, user);
        }
    }
}

/// What is owed for a message: to whoever published it, or to whoever waits for it as a letter.
pub(super) fn owed_for(ticket: Option<Ticket>, origin: PublishOrigin, verdict: Verdict) -> Option<Owed> {
    match (ticket, origin) {
        (Some(ticket), _) => Some(Owed::Letter(ticket)),
        (None, PublishOrigin::Channel { channel, sequence }) => Some(Owed::Confirm(channel, sequence, verdict)),
        (None, PublishOrigin::Untracked) => None,
    }
}
