//! What must have become of every message, as far as anybody was told: who was told of a confirm finds the message in its
//! queue, or has acknowledged it, or finds its letters in every queue that the dead-letter exchange leads to.

use std::collections::{BTreeMap, BTreeSet};

use super::workload::{CHAIN, COMES_AND_GOES, LETTERS};
use crate::model::ids::{ConnectionId, QueueId};

/// A message's number, which its body begins with.
pub(super) type Number = u64;
/// The name of a queue.
pub(super) type Place = &'static str;
/// A message as it was published to one queue, whichever queues its letters come to.
pub(super) type Copy = (Number, Place);

/// What is known of a copy in one queue.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Somebody has it unacknowledged.
    held: bool,
    /// Acknowledged at some time.
    acked: bool,
    /// Nothing of it is to come any more.
    gone: bool,
    /// And that is on the disk.
    gone_durably: bool,
}

#[derive(Clone, Debug, Default)]
struct Fate {
    persistent: bool,
    /// The confirm arrived.
    confirmed: bool,
    /// The life of the broker it was published in.
    life: usize,
    /// It was in a queue that was deleted or purged: it need not be anywhere.
    discarded: bool,
    /// A client rejected it, before anybody wanted its queue deleted.
    rejected: bool,
    /// A letter of it was seen, so it is in its own queue no more.
    dead: bool,
    /// And that is on the disk.
    dead_durably: bool,
    /// The broker has crashed while it was there: it may have died twice.
    repeated: bool,
    /// The broker has crashed since it was published: a letter of it may have died twice, too.
    crashed: bool,
    places: BTreeMap<Place, Seen>,
}

impl Fate {
    /// Whether there may be two letters of it in a queue.
    fn may_repeat(&self, origin: Place, place: Place) -> bool {
        let is_letter_of_letter = origin != place && !leads_to(origin).contains(&place);
        place != origin && self.repeated || is_letter_of_letter && self.crashed
    }
}

#[derive(Default)]
pub(super) struct Oracle {
    last: Number,
    fates: BTreeMap<Copy, Fate>,
    /// Awaited confirms: connection and sequence, and the message.
    awaited: BTreeMap<(ConnectionId, u64), Number>,
    /// Verdicts each still lacks.
    owed: BTreeMap<(ConnectionId, u64), u32>,
    /// Queue names by id.
    pub(super) names: BTreeMap<QueueId, Place>,
    /// What the last drain has found.
    found: BTreeSet<(Copy, Place)>,
    /// The declaration of the queue that comes and goes was answered, and no deletion was asked since, or the other way
    /// round; none when it may be there or not.
    pub(super) comes: Option<bool>,
    /// Somebody wants it deleted, and was not answered.
    pub(super) is_going: bool,
    /// A client has gone in this life, and with it what it was told and did not hear.
    pub(super) has_anybody_left: bool,
    pub(super) life: usize,
    /// Purges of "plain" that were answered, each with the last message before it. What is left after them is certain once
    /// everything rests: what a turn handed out before the purge may be heard after its answer.
    pub(super) purges: Vec<Number>,
}

impl Oracle {
    /// Of a broker that has nothing yet.
    pub(super) fn new() -> Self {
        Self { comes: Some(false), ..Self::default() }
    }

    /// A message is about to be published; its number.
    pub(super) fn publish(&mut self, key: (ConnectionId, u64), queues: &[Place], persistent: bool) -> Number {
        self.last += 1;
        let number = self.last;
        self.awaited.insert(key, number);
        self.owed.insert(key, 1);
        for queue in queues {
            let discarded = *queue == COMES_AND_GOES && self.is_going;
            let fate = Fate { persistent, discarded, life: self.life, ..Fate::default() };
            self.fates.insert((number, queue), fate);
        }
        number
    }

    pub(super) fn routed(&mut self, key: (ConnectionId, u64), verdicts: u32) {
        if verdicts == 0 {
            self.awaited.remove(&key);
            self.owed.remove(&key);
        } else {
            self.owed.insert(key, verdicts);
        }
    }

    pub(super) fn verdict(&mut self, key: (ConnectionId, u64), confirmed: bool) {
        if !confirmed {
            self.awaited.remove(&key);
        }
        let owed = self.owed.get_mut(&key).expect("a verdict on something");
        *owed -= 1;
        if *owed > 0 {
            return;
        }
        self.owed.remove(&key);
        if let Some(number) = self.awaited.remove(&key) {
            for (_, fate) in self.fates.range_mut((number, "")..(number + 1, "")) {
                fate.confirmed = true;
            }
        }
    }

    /// A message was handed out in a queue.
    pub(super) fn delivered(&mut self, copy: Copy, place: Place) {
        let life = self.life;
        let fate = self.fate(copy);
        assert!(reaches(copy.1, place), "{copy:?} does not lead to {place}");
        assert!(fate.persistent || fate.life == life, "{copy:?} was not persistent: {fate:?}");
        if place == copy.1 {
            assert!(!fate.dead, "{copy:?} is there although its letters are: {fate:?}");
        } else if !fate.repeated {
            // Otherwise the letter may be from before the crash, and the message in its queue again.
            fate.dead = true;
        }
        let is_letter_again = fate.may_repeat(copy.1, place);
        let seen = fate.places.entry(place).or_default();
        assert!(is_letter_again || !seen.held, "{copy:?} comes in {place} while somebody holds it: {fate:?}");
        assert!(is_letter_again || !seen.gone, "{copy:?} comes in {place} after it was settled: {fate:?}");
        seen.held = true;
    }

    /// Its holder has settled it for good.
    pub(super) fn acked(&mut self, copy: Copy, place: Place) {
        let seen = self.fate(copy).places.entry(place).or_default();
        *seen = Seen { held: false, acked: true, gone: true, ..*seen };
    }

    pub(super) fn requeued(&mut self, copy: Copy, place: Place) {
        self.fate(copy).places.entry(place).or_default().held = false;
    }

    /// Its holder has rejected it, so that it dies, if there is a place for letters.
    pub(super) fn rejected(&mut self, copy: Copy, place: Place) {
        if leads_to(place).is_empty() {
            return self.acked(copy, place);
        }
        let is_certain = place == copy.1 && !(self.is_going && place == COMES_AND_GOES);
        let fate = self.fate(copy);
        fate.rejected |= is_certain;
        let seen = fate.places.entry(place).or_default();
        *seen = Seen { held: false, gone: true, ..*seen };
    }

    /// What is in a queue may go with it.
    pub(super) fn discard(&mut self, queue: Place) {
        for ((_, origin), fate) in &mut self.fates {
            if *origin == queue && !fate.rejected {
                fate.discarded = true;
            }
        }
    }

    /// The queue was purged, and that is on the disk: of what was to go nothing is left but what somebody was given.
    /// What was on its way to a client who has left comes back, whenever that is.
    fn purged(&mut self, queue: Place, last: Number) {
        if self.has_anybody_left {
            return;
        }
        for ((number, origin), fate) in &mut self.fates {
            if *origin == queue && *number <= last {
                fate.places.entry(queue).or_insert_with(|| Seen { gone: true, gone_durably: true, ..Seen::default() });
            }
        }
    }

    pub(super) fn last_number(&self) -> Number {
        self.last
    }

    /// Nothing is under way: all that happened is on the disk.
    pub(super) fn rest(&mut self) {
        for last in std::mem::take(&mut self.purges) {
            self.purged("plain", last);
        }
        for fate in self.fates.values_mut() {
            fate.dead_durably = fate.dead;
            fate.places.values_mut().for_each(|seen| seen.gone_durably = seen.gone);
        }
    }

    /// The connections are gone, with all that clients held.
    pub(super) fn end_life(&mut self) {
        self.life += 1;
        self.has_anybody_left = false;
        self.purges.clear();
        self.awaited.clear();
        self.owed.clear();
        self.fates.values_mut().flat_map(|fate| fate.places.values_mut()).for_each(|seen| seen.held = false);
    }

    /// The broker did not stop but was ended.
    pub(super) fn crash(&mut self) {
        for fate in self.fates.values_mut() {
            fate.repeated |= !fate.dead_durably;
            fate.crashed = true;
            fate.dead &= fate.dead_durably;
            fate.places.values_mut().for_each(|seen| seen.gone &= seen.gone_durably);
        }
    }

    /// The broker is there again; whether the queue that comes and goes is, too.
    pub(super) fn begin_life(&mut self, comes: bool) {
        assert!(self.comes.is_none_or(|must| must == comes), "the queue that comes and goes: {comes}");
        if self.is_going {
            self.discard(COMES_AND_GOES);
        }
        self.is_going = false;
        self.comes = Some(comes);
        if comes {
            for ((_, origin), fate) in &mut self.fates {
                // It may be in its queue again.
                fate.rejected &= *origin != COMES_AND_GOES;
            }
        }
    }

    /// Found in a queue at the end.
    pub(super) fn found(&mut self, copy: Copy, place: Place) {
        let is_first = self.found.insert((copy, place));
        let fate = self.fate(copy);
        assert!(is_first || fate.may_repeat(copy.1, place), "{copy:?} is in {place} twice: {fate:?}");
    }

    /// Everything was found that there is.
    pub(super) fn check(&self) {
        for (copy, fate) in &self.fates {
            let must = fate.persistent && fate.confirmed && !fate.discarded;
            assert!(!must || self.is_somewhere(*copy, copy.1), "{copy:?} was confirmed and is lost: {fate:?}");
        }
    }

    /// Whether the copy is in the queue, or was taken out of it, or its letters are where they belong.
    fn is_somewhere(&self, copy: Copy, place: Place) -> bool {
        let is_acked = self.fates.get(&copy).and_then(|fate| fate.places.get(place)).is_some_and(|seen| seen.acked);
        let letters = leads_to(place);
        is_acked
            || self.found.contains(&(copy, place))
            || !letters.is_empty() && letters.iter().all(|next| self.is_somewhere(copy, next))
    }

    fn fate(&mut self, copy: Copy) -> &mut Fate {
        self.fates.get_mut(&copy).unwrap_or_else(|| panic!("{copy:?} was never published"))
    }
}

/// Where dead letters of a queue go.
fn leads_to(place: Place) -> &'static [Place] {
    match place {
        "short" | "brief" | "instant" | "dying" | "strict" | COMES_AND_GOES => &LETTERS,
        "passing" => &CHAIN,
        _ => &[],
    }
}

fn reaches(origin: Place, place: Place) -> bool {
    origin == place || leads_to(origin).iter().any(|next| reaches(next, place))
}
