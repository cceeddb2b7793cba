//! Who holds messages of a queue and whose turn it is: consumers, consumers that were cancelled with deliveries
//! unsettled, and channels with unsettled gets.
//!
//! ```text
//!              ┌── at its prefetch limit ──► Full ──── settles ───┐
//! Ready ───────┤                                                  ├──► Ready, last in its ring
//! (in a ring)  └── gate refuses ───────────► Blocked ── Resume ───┘
//! Waiting: behind the single active consumer.     Left: takes no messages any more, settles what it holds.
//! ```

use std::collections::VecDeque;

use super::{Gate, Refusal, Subscription};
use crate::model::consumer::ConsumerView;
use crate::model::hash::IdMap;
use crate::model::ids::{ConnectionId, ConsumerId};
use crate::model::names::ConsumerTag;
use crate::model::narrow::narrow;
use crate::model::table::FieldTable;

/// Why a slot in a ring, or with the turn, has a holder.
const HELD: &str = "a consumer leaves the rings before its slot is emptied";

/// Whether the queue serves one consumer at a time or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    All,
    Single,
}

#[derive(Debug)]
pub(super) struct Consumers {
    slots: Vec<Option<Holder>>,
    free: Vec<u32>,
    by_id: IdMap<ConsumerId, u32>,
    /// The ready consumers of each priority, highest first; the front of a ring is served next.
    rings: Vec<Ring>,
    /// Consumers the gate refused, in that order.
    blocked: Vec<u32>,
    /// All but those that left.
    consumers: usize,
    activity: Activity,
    /// The single active consumer.
    active: Option<u32>,
    next_order: u64,
}

#[derive(Debug)]
pub(super) struct Holder {
    pub id: ConsumerId,
    pub unacked: usize,
    pub no_ack: bool,
    /// Its unanswered deliveries were reported.
    pub timed_out: bool,
    /// The order of registration.
    pub order: u64,
    prefetch: u16,
    priority: i64,
    exclusive: bool,
    state: State,
    /// None for a channel's gets.
    tag: Option<ConsumerTag>,
    arguments: FieldTable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Full,
    Blocked,
    Waiting,
    Left,
}

#[derive(Debug)]
struct Ring {
    priority: i64,
    ready: VecDeque<u32>,
}

/// The consumer to serve: the front of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    ring: usize,
    pub slot: u32,
}

impl Consumers {
    pub(super) fn new(activity: Activity) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: IdMap::default(),
            rings: Vec::new(),
            blocked: Vec::new(),
            consumers: 0,
            activity,
            active: None,
            next_order: 0,
        }
    }

    /// Consumers, whether active or not.
    pub(super) fn len(&self) -> usize {
        self.consumers
    }

    pub(super) fn is_empty(&self) -> bool {
        self.consumers == 0
    }

    pub(super) fn active(&self) -> Option<ConsumerId> {
        self.active.and_then(|slot| self.holder(slot)).map(|holder| holder.id)
    }

    /// The slot of a consumer or other holder.
    pub(super) fn find(&self, id: ConsumerId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn holder(&self, slot: u32) -> Option<&Holder> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn holder_mut(&mut self, slot: u32) -> Option<&mut Holder> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Registers a consumer; one with an id that is already known changes nothing.
    pub(super) fn subscribe(&mut self, subscription: Subscription) -> Result<(), Refusal> {
        if self.by_id.contains_key(&subscription.consumer) {
            return Ok(());
        }
        let taken = self.consumers > 0 || self.activity == Activity::Single;
        let exclusively = self.slots.iter().flatten().any(|holder| holder.exclusive && holder.state != State::Left);
        if exclusively || (subscription.exclusive && taken) {
            return Err(Refusal::ExclusiveUse);
        }
        let active = self.activity == Activity::All || self.active.is_none();
        let slot = self.insert(Holder {
            id: subscription.consumer,
            unacked: 0,
            no_ack: subscription.no_ack,
            timed_out: false,
            order: 0,
            prefetch: subscription.prefetch,
            priority: subscription.priority,
            exclusive: subscription.exclusive,
            state: State::Waiting,
            tag: Some(subscription.tag),
            arguments: subscription.arguments,
        });
        self.consumers += 1;
        if active {
            self.activate(slot);
        }
        Ok(())
    }

    /// The slot of a channel's gets, created when it is new.
    pub(super) fn getter(&mut self, id: ConsumerId) -> u32 {
        self.find(id).unwrap_or_else(|| {
            self.insert(Holder {
                id,
                unacked: 0,
                no_ack: false,
                timed_out: false,
                order: 0,
                prefetch: 0,
                priority: 0,
                exclusive: false,
                state: State::Left,
                tag: None,
                arguments: FieldTable::default(),
            })
        })
    }

    /// Ends a consumer; what it holds it keeps. Whether it was one.
    pub(super) fn leave(&mut self, slot: u32) -> bool {
        let Some(holder) = self.slots.get_mut(slot as usize).and_then(Option::as_mut) else { return false };
        let state = std::mem::replace(&mut holder.state, State::Left);
        match state {
            State::Left => return false,
            State::Ready => self.rings.iter_mut().for_each(|ring| ring.ready.retain(|other| *other != slot)),
            State::Blocked => self.blocked.retain(|other| *other != slot),
            State::Full | State::Waiting => {}
        }
        self.rings.retain(|ring| !ring.ready.is_empty());
        self.consumers = self.consumers.checked_sub(1).expect("a consumer leaves once");
        if self.active == Some(slot) {
            self.active = None;
            self.promote();
        }
        self.release_when_done(slot);
        true
    }

    /// The consumer to serve next: of those of the highest priority, the one that waited longest. Consumers that the
    /// gate refuses are set aside on the way.
    #[inline]
    pub(super) fn pick(&mut self, gate: &mut impl Gate) -> Option<Turn> {
        for (at, ring) in self.rings.iter_mut().enumerate() {
            while let Some(&slot) = ring.ready.front() {
                let holder = self.slots[slot as usize].as_mut().expect(HELD);
                if gate.admits(holder.id) {
                    return Some(Turn { ring: at, slot });
                }
                ring.ready.pop_front();
                holder.state = State::Blocked;
                self.blocked.push(slot);
            }
        }
        None
    }

    /// Whether a consumer waits for a message, unless the gate refuses it.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.rings.iter().any(|ring| !ring.ready.is_empty())
    }

    /// Moves the consumer that was served out of the way of the next.
    #[inline]
    pub(super) fn served(&mut self, turn: Turn) {
        let ring = &mut self.rings[turn.ring].ready;
        let holder = self.slots[turn.slot as usize].as_mut().expect(HELD);
        if holder.has_room() {
            if ring.len() > 1 {
                ring.rotate_left(1);
            }
        } else {
            ring.pop_front();
            holder.state = State::Full;
        }
    }

    /// Counts settled deliveries of a holder, which may be ready again or, when it left, be forgotten.
    pub(super) fn settled(&mut self, slot: u32, count: usize) {
        let Some(holder) = self.holder_mut(slot) else { return };
        holder.unacked = holder.unacked.checked_sub(count).expect("a delivery is settled once");
        match holder.state {
            State::Full if holder.has_room() => self.make_ready(slot),
            State::Left => self.release_when_done(slot),
            State::Ready | State::Full | State::Blocked | State::Waiting => {}
        }
    }

    /// Makes the connection's blocked consumers ready, in the order they were blocked.
    pub(super) fn resume(&mut self, connection: ConnectionId) {
        let blocked = std::mem::take(&mut self.blocked);
        for slot in blocked {
            match self.holder(slot) {
                Some(holder) if holder.id.connection == connection => self.make_ready(slot),
                _ => self.blocked.push(slot),
            }
        }
    }

    /// The slots of all holders that match, in order of registration.
    pub(super) fn matching(&self, matches: impl Fn(ConsumerId) -> bool) -> Vec<u32> {
        let mut found: Vec<(u64, u32)> = (0u32..)
            .zip(&self.slots)
            .filter_map(|(slot, holder)| holder.as_ref().map(|holder| (slot, holder)))
            .filter(|(_, holder)| matches(holder.id))
            .map(|(slot, holder)| (holder.order, slot))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Consumers in order of registration.
    pub(super) fn views(&self) -> Vec<ConsumerView> {
        let slots = self.matching(|_| true);
        slots
            .into_iter()
            .filter_map(|slot| Some((slot, self.holder(slot)?)))
            .filter(|(_, holder)| holder.state != State::Left)
            .filter_map(|(slot, holder)| {
                Some(ConsumerView {
                    consumer: holder.id,
                    tag: holder.tag.clone()?,
                    prefetch: holder.prefetch,
                    no_ack: holder.no_ack,
                    exclusive: holder.exclusive,
                    priority: holder.priority,
                    active: self.activity == Activity::All || self.active == Some(slot),
                    unacked: holder.unacked as u64,
                    has_room: holder.has_room(),
                    arguments: holder.arguments.clone(),
                })
            })
            .collect()
    }

    pub(super) fn check_invariants(&self) {
        let holders = || (0u32..).zip(&self.slots).filter_map(|(slot, holder)| holder.as_ref().map(|h| (slot, h)));
        assert_eq!(holders().filter(|(_, holder)| holder.state != State::Left).count(), self.consumers, "consumers");
        assert_eq!(holders().count(), self.by_id.len(), "each holder is found by its id");
        assert_eq!(self.slots.len(), self.by_id.len() + self.free.len(), "slots are used or free");
        let in_rings: usize = self.rings.iter().map(|ring| ring.ready.len()).sum();
        assert_eq!(holders().filter(|(_, holder)| holder.state == State::Ready).count(), in_rings, "ready consumers");
        for (slot, holder) in holders() {
            assert_eq!(self.find(holder.id), Some(slot));
            let ring = self.rings.iter().find(|ring| ring.priority == holder.priority);
            let ready = ring.is_some_and(|ring| ring.ready.contains(&slot));
            assert_eq!(ready, holder.state == State::Ready, "ready consumers are in their ring");
            assert_eq!(self.blocked.contains(&slot), holder.state == State::Blocked, "blocked consumers are listed");
            match holder.state {
                State::Ready | State::Blocked => assert!(holder.has_room()),
                State::Full => assert!(!holder.has_room()),
                State::Waiting => assert!(self.activity == Activity::Single && self.active != Some(slot)),
                State::Left => assert!(holder.unacked > 0, "a holder that left holds something"),
            }
            assert!(!holder.no_ack || holder.unacked == 0, "automatic acknowledgement leaves nothing");
        }
        assert!(self.rings.windows(2).all(|pair| pair[0].priority > pair[1].priority), "highest priority first");
        assert_eq!(self.active.is_some(), self.activity == Activity::Single && self.consumers > 0, "one is active");
    }

    fn insert(&mut self, holder: Holder) -> u32 {
        let holder = Holder { order: self.next_order, ..holder };
        self.next_order += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            narrow(self.slots.len() - 1, "a queue has fewer than 2^32 consumers")
        });
        self.by_id.insert(holder.id, slot);
        self.slots[slot as usize] = Some(holder);
        slot
    }

    /// Forgets a holder that left and has nothing to settle.
    fn release_when_done(&mut self, slot: u32) {
        let done = self.holder(slot).filter(|holder| holder.state == State::Left && holder.unacked == 0);
        let Some(id) = done.map(|holder| holder.id) else { return };
        self.by_id.remove(&id);
        self.slots[slot as usize] = None;
        if self.by_id.is_empty() {
            // Nobody uses the queue: it costs no memory.
            *self = Self { next_order: self.next_order, ..Self::new(self.activity) };
        } else {
            self.free.push(slot);
        }
    }

    fn activate(&mut self, slot: u32) {
        if self.activity == Activity::Single {
            self.active = Some(slot);
        }
        self.make_ready(slot);
    }

    /// Activates the next consumer: the one of highest priority, then the first registered.
    fn promote(&mut self) {
        let waiting = (0u32..).zip(&self.slots).filter_map(|(slot, holder)| {
            let holder = holder.as_ref().filter(|holder| holder.state == State::Waiting)?;
            Some((std::cmp::Reverse(holder.priority), holder.order, slot))
        });
        if let Some((.., slot)) = waiting.min() {
            self.activate(slot);
        }
    }

    fn make_ready(&mut self, slot: u32) {
        let holder = self.slots[slot as usize].as_mut().expect(HELD);
        holder.state = State::Ready;
        let priority = holder.priority;
        let at = self.rings.partition_point(|ring| ring.priority > priority);
        if self.rings.get(at).is_none_or(|ring| ring.priority != priority) {
            self.rings.insert(at, Ring { priority, ready: VecDeque::new() });
        }
        self.rings[at].ready.push_back(slot);
    }
}

impl Holder {
    #[inline]
    fn has_room(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unacked < usize::from(self.prefetch)
    }
}
