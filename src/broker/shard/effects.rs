//! What becomes of a command's effects: events for connections, dead letters on their way, the end of a queue.

use std::mem;
use std::sync::Arc;

use crate::model::entity::Queue;
use crate::model::ids::{ChannelRef, ConnectionId, ConsumerId, QueueId, Timestamp};
use crate::model::request::{Delivery, Event};
use crate::queue::{Effect, Verdict};

use super::super::envelope::{Envelope, LoadRequest};
use super::super::journal::Held;
use super::super::link::Link;
use super::super::topology::Topology;
use super::Shard;
use super::letters::Waits;

impl Shard {
    /// Carries out the effects of the last command on `queue`.
    pub(super) fn after(&mut self, queue: QueueId, now: Timestamp, topology: &Topology) {
        self.after_arrival(queue, None, now, topology);
    }

    /// The same after a message came to it, which may have died at once; `waits` then says who waits for its letters.
    pub(super) fn after_arrival(
        &mut self,
        queue: QueueId,
        mut waits: Option<&mut Waits>,
        now: Timestamp,
        topology: &Topology,
    ) {
        self.dirty_unless_last(queue);
        if self.effects.is_empty() {
            return;
        }
        let mut effects = mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver(delivery) => {
                    if topology.has_tracing {
                        self.trace_delivery(queue, &delivery, now, topology);
                    }
                    self.deliver(queue, delivery);
                }
                Effect::Confirm { channel, sequence, verdict } => self.confirm(channel, sequence, verdict),
                Effect::DeadLetter { message, reason, deaths, record } => {
                    let letters = self.letters_of(queue, &message, deaths.as_deref(), reason, now, topology);
                    self.send_letters(queue, record, waits.as_deref_mut(), letters);
                }
                Effect::Load { first, last, .. } => self.output.loads.push(LoadRequest { queue, first, last }),
                Effect::Lost { count } => self.output.lost.push((queue, count)),
                Effect::ConsumerCancelled { consumer, tag } => {
                    if let Some(link) = self.links.get_mut(&consumer.connection) {
                        link.consumers.remove(&consumer);
                    }
                    // Behind the answer to whoever deletes the queue, which may wait for the log.
                    if let Some(definition) = self.queues.get(&queue).map(|owned| Arc::clone(&owned.definition)) {
                        let event = Event::ConsumerCancelled { consumer, tag };
                        self.answer(&definition, consumer.connection, event);
                    }
                }
                Effect::ConsumerTimeout { consumer } => self.consumer_timeout(queue, consumer),
                Effect::Gone => self.remove(queue, None),
            }
        }
        self.effects = effects;
    }

    pub(super) fn deliver(&mut self, queue: QueueId, delivery: Delivery) {
        self.tell(delivery.consumer.connection, Event::Deliver { queue, delivery });
    }

    /// Adds a verdict to the connection's events.
    pub(super) fn confirm(&mut self, channel: ChannelRef, sequence: u64, verdict: Verdict) {
        let Some(link) = self.links.get_mut(&channel.connection) else { return };
        touch(&mut self.touched, link, channel.connection);
        join_confirm(&mut link.events, channel, sequence, verdict);
    }

    pub(super) fn consumer_timeout(&mut self, queue: QueueId, consumer: ConsumerId) {
        let options = self.queues.get(&queue).map(|queue| &queue.definition.options);
        let timeout_ms = options.and_then(|options| options.consumer_timeout_ms).unwrap_or_default();
        self.tell(consumer.connection, Event::ConsumerTimeout { consumer, timeout_ms });
    }

    /// Puts a message the broker itself publishes on its way.
    pub(super) fn forward(&mut self, shard: u16, envelope: Envelope) {
        if shard == self.index {
            self.own_change += 1;
            self.own.push_back(envelope);
        } else {
            self.sent[usize::from(shard)] = true;
            self.has_sent = true;
            self.sent_in_turn += 1;
            self.output.remote[usize::from(shard)].push(envelope);
        }
    }

    pub(super) fn tell(&mut self, connection: ConnectionId, event: Event) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        touch(&mut self.touched, link, connection);
        link.events.push(event);
    }

    /// Tells once everything so far is durable.
    pub(super) fn tell_durably(&mut self, connection: ConnectionId, event: Event) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        touch(&mut self.touched, link, connection);
        link.held.push(event);
    }

    /// Tells something about a queue: of a durable one not before what is said of it is durable.
    pub(super) fn answer(&mut self, queue: &Queue, connection: ConnectionId, event: Event) {
        if queue.durable { self.tell_durably(connection, event) } else { self.tell(connection, event) }
    }

    /// Gives every connection its events, as one batch.
    pub(super) fn hand_out(&mut self) {
        for connection in self.touched.drain(..) {
            let link = self.links.get_mut(&connection).expect("a link leaves after its last events");
            if !link.events.is_empty() {
                let spare = self.output.spare.pop().unwrap_or_default();
                let events = mem::replace(&mut link.events, spare);
                self.output.events.push((Arc::clone(&link.outbox), events));
            }
            if !link.held.is_empty() {
                let Held { events, .. } = &mut self.output.submission.held;
                events.push((Arc::clone(&link.outbox), mem::take(&mut link.held)));
            }
        }
    }
}

/// Notes that a link has, or is about to have, something to hand out.
pub(super) fn touch(touched: &mut Vec<ConnectionId>, link: &Link, connection: ConnectionId) {
    if link.events.is_empty() && link.held.is_empty() {
        touched.push(connection);
    }
}

/// Adds a verdict to a list of events, joining runs.
pub(super) fn join_confirm(events: &mut Vec<Event>, channel: ChannelRef, sequence: u64, verdict: Verdict) {
    let confirmed = verdict == Verdict::Confirmed;
    if let Some(Event::Confirm { channel: same, last, confirmed: as_well, .. }) = events.last_mut()
        && *same == channel
        && *as_well == confirmed
        && *last + 1 == sequence
    {
        *last = sequence;
        return;
    }
    events.push(Event::Confirm { channel, first: sequence, last: sequence, confirmed });
}
