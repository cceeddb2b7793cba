//! Places for connections: who is let in before anything is known of them, and who has to make room.
//!
//! A listener has places for connections in all, for those that have not logged in, and of these for each source. Whoever
//! comes when the places are taken gets one of a few more, at the cost of the oldest in them: so a newcomer who is quick
//! is served however many others hold their places in silence. And since every connection is an open file, listeners leave
//! some to the log and to each other.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::network_of;

/// The most descriptors that are kept back.
const RESERVE_MAX: u64 = 256;
/// Where the system sets no limit to open files.
const UNLIMITED: u64 = 1 << 32;
/// Waits after an accept that failed for want of something, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long those who leave are given to close their files.
const LEAVING: Duration = Duration::from_millis(5);
/// Connections that are turned away are told together, this often at most.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// What may be open at once, by the limit of open files: sockets get descriptors below these numbers alone. The system
/// gives each file the lowest number that is free, so a number says how many files are open at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptors {
    limit: u64,
    reserve: u64,
}

impl Descriptors {
    /// Half of what this process may open is kept back, but not more than enough.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, reserve: RESERVE_MAX.min(limit / 2) }
    }

    /// As the system has it for this process; to be called after the limit was raised.
    pub(super) fn of_process() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self::new(limit.unwrap_or(UNLIMITED))
    }

    /// Where AMQP ends: behind are the log, HTTP and the Unix socket.
    fn amqp(self) -> Ceiling {
        Ceiling(self.limit - self.reserve)
    }

    /// Where connections of HTTP end that stay.
    fn http(self) -> Ceiling {
        Ceiling(self.limit - self.reserve * 3 / 4)
    }

    /// Where those end that make room for others. Behind are the log and the Unix socket.
    fn http_overflow(self) -> Ceiling {
        Ceiling(self.limit - self.reserve * 5 / 8)
    }

    /// Where those of the Unix socket end. Behind is the log.
    fn local(self) -> Ceiling {
        Ceiling(self.limit - self.reserve / 2)
    }

    /// Connections of HTTP that make room for others.
    fn overflow(self) -> usize {
        usize::try_from(self.reserve / 8).unwrap_or(usize::MAX).max(1)
    }
}

/// Descriptors below this number may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceiling(u64);

impl Ceiling {
    fn allows(self, descriptor: RawFd) -> bool {
        u64::try_from(descriptor).is_ok_and(|descriptor| descriptor < self.0)
    }
}

/// How many connections a listener has at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// In all, but for the overflow.
    pub(super) total: usize,
    /// Of those that have not logged in.
    pub(super) waiting: usize,
    /// The same from one source.
    pub(super) waiting_per_source: usize,
    /// More, each at the cost of the oldest of them.
    pub(super) overflow: usize,
    /// Those with places have descriptors below this number.
    pub(super) ceiling: Ceiling,
    /// All have descriptors below this number.
    pub(super) overflow_ceiling: Ceiling,
}

impl Places {
    /// For AMQP. Nobody who has not logged in is to keep those out who have.
    pub(super) fn amqp(descriptors: Descriptors, total: usize, waiting: usize, waiting_per_source: usize) -> Self {
        let ceiling = descriptors.amqp();
        let half = usize::try_from(ceiling.0 / 2).unwrap_or(usize::MAX).max(1);
        Self {
            total,
            waiting: waiting.min(half),
            waiting_per_source: waiting_per_source.min(half),
            overflow: AMQP_OVERFLOW.min(half),
            ceiling,
            overflow_ceiling: ceiling,
        }
    }

    /// For HTTP, where nobody logs in for longer than a request.
    pub(super) fn http(descriptors: Descriptors, total: usize, per_source: usize) -> Self {
        let (ceiling, overflow_ceiling) = (descriptors.http(), descriptors.http_overflow());
        // Where files are few, AMQP needs most of them; and nobody is to hold all places alone.
        let eighth = usize::try_from(descriptors.limit / 8).unwrap_or(usize::MAX).max(2);
        let total = total.min(eighth);
        Self {
            total,
            waiting: total,
            waiting_per_source: per_source.min(total.div_ceil(2)),
            overflow: descriptors.overflow(),
            ceiling,
            overflow_ceiling,
        }
    }
}

impl Places {
    /// For the Unix socket, which has one source.
    pub(super) fn local(descriptors: Descriptors, total: usize) -> Self {
        let (ceiling, overflow) = (descriptors.local(), descriptors.overflow());
        let (waiting, waiting_per_source) = (total, total);
        Self { total, waiting, waiting_per_source, overflow, ceiling, overflow_ceiling: ceiling }
    }
}

/// Connections beyond the limit that are still heard: those that log in quickly get in, and the others hear why not.
const AMQP_OVERFLOW: usize = 16;

/// See the module's documentation.
pub(super) struct Admission {
    /// What is listened for, for the log.
    what: &'static str,
    places: Places,
    state: Mutex<State>,
    turned_away: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Those that have logged in.
    inside: usize,
    /// Those that have not, the oldest first.
    waiting: BTreeMap<u64, Waiting>,
    overflow: BTreeMap<u64, Waiting>,
    /// How many of `waiting` each source has.
    by_source: HashMap<IpAddr, usize>,
}

struct Waiting {
    source: Option<IpAddr>,
    leave: Arc<Notify>,
}

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    since: u64,
}

/// A connection's place; it is free again when this is dropped.
pub(super) struct Place {
    admission: Arc<Admission>,
    id: u64,
    leave: Arc<Notify>,
    is_inside: bool,
}

impl Admission {
    pub(super) fn new(what: &'static str, places: Places) -> Arc<Self> {
        Arc::new(Self { what, places, state: Mutex::default(), turned_away: AtomicU64::new(0), told: Mutex::default() })
    }

    /// Finds a place for a connection. None: it is to be closed at once.
    pub(super) fn enter(self: &Arc<Self>, socket: &impl AsRawFd, source: Option<IpAddr>) -> Option<Place> {
        self.enter_with(socket.as_raw_fd(), source)
    }

    fn enter_with(self: &Arc<Self>, descriptor: RawFd, source: Option<IpAddr>) -> Option<Place> {
        if !self.places.overflow_ceiling.allows(descriptor) {
            // The oldest of those that only have their place until others come may be what is too much.
            let evicted = self.state.lock().evict();
            if !evicted {
                self.turn_away(NO_FILES);
                return None;
            }
        }
        let source = source.map(network_of);
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        let leave = Arc::new(Notify::new());
        let waiting = Waiting { source, leave: Arc::clone(&leave) };
        let refusal = self.refusal(&state, descriptor, source);
        match refusal {
            None => state.wait(id, waiting),
            Some(_) => {
                if state.overflow.len() >= self.places.overflow {
                    state.evict();
                }
                state.overflow.insert(id, waiting);
            }
        }
        drop(state);
        if let Some(reason) = refusal {
            self.turn_away(reason);
        }
        Some(Place { admission: Arc::clone(self), id, leave, is_inside: false })
    }

    /// Waits a moment where a connection has come for whom another one leaves: that one closes its file first.
    pub(super) async fn let_leave(&self, socket: &impl AsRawFd) {
        if !self.places.overflow_ceiling.allows(socket.as_raw_fd()) {
            tokio::time::sleep(LEAVING).await;
        }
    }

    /// Why there is no place that can be kept.
    fn refusal(&self, state: &State, descriptor: RawFd, source: Option<IpAddr>) -> Option<&'static str> {
        let places = &self.places;
        let of_source = source.and_then(|source| state.by_source.get(&source)).copied().unwrap_or(0);
        if !places.ceiling.allows(descriptor) {
            Some(NO_FILES)
        } else if state.inside + state.waiting.len() >= places.total {
            Some("the limit of connections is reached")
        } else if state.waiting.len() >= places.waiting {
            Some("too many connections have not logged in")
        } else if of_source >= places.waiting_per_source {
            Some("too many connections of one source have not logged in")
        } else {
            None
        }
    }

    /// Counts somebody who found no place, or one for a short while only.
    fn turn_away(&self, reason: &'static str) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock();
        told.since += 1;
        let now = Instant::now();
        if told.last.is_none_or(|last| now.duration_since(last) >= TELL_INTERVAL) {
            let connections = std::mem::take(&mut told.since);
            told.last = Some(now);
            tracing::warn!(listener = self.what, connections, reason, "connections found no place");
        }
    }

    /// What is listened for.
    pub(super) fn what(&self) -> &'static str {
        self.what
    }

    /// Connections that found no place, or one for a short while only.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

const NO_FILES: &str = "all open files that connections may have are taken";

impl State {
    fn wait(&mut self, id: u64, waiting: Waiting) {
        if let Some(source) = waiting.source {
            *self.by_source.entry(source).or_default() += 1;
        }
        self.waiting.insert(id, waiting);
    }

    /// Takes the place of one that waits, wherever it is. Whether there was one.
    fn leave(&mut self, id: u64) -> bool {
        let Some(waiting) = self.waiting.remove(&id) else { return self.overflow.remove(&id).is_some() };
        if let Some(source) = waiting.source
            && let Some(count) = self.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        true
    }

    /// Asks the oldest of the overflow to leave. Whether there was one.
    fn evict(&mut self) -> bool {
        let oldest = self.overflow.pop_first();
        if let Some((_, oldest)) = &oldest {
            oldest.leave.notify_one();
        }
        oldest.is_some()
    }
}

impl Place {
    /// Whether the connection has the place only until others come.
    pub(super) fn is_overflow(&self) -> bool {
        self.admission.state.lock().overflow.contains_key(&self.id)
    }

    /// Whether the connection has not logged in.
    pub(super) fn is_waiting(&self) -> bool {
        !self.is_inside
    }

    /// The connection has logged in: from now on nobody takes its place.
    pub(super) fn log_in(&mut self) {
        let mut state = self.admission.state.lock();
        // Asked to leave in this very moment, it is on its way out.
        if state.leave(self.id) {
            state.inside += 1;
            self.is_inside = true;
        }
    }

    /// The connection comes from elsewhere than it seemed: a proxy has said so.
    pub(super) fn comes_from(&self, source: IpAddr) {
        let source = network_of(source);
        let mut state = self.admission.state.lock();
        let Some(waiting) = state.waiting.get(&self.id) else { return };
        let moved = Waiting { source: Some(source), leave: Arc::clone(&waiting.leave) };
        state.leave(self.id);
        let of_source = state.by_source.get(&source).copied().unwrap_or(0);
        if of_source < self.admission.places.waiting_per_source {
            state.wait(self.id, moved);
            return;
        }
        if state.overflow.len() >= self.admission.places.overflow {
            state.evict();
        }
        state.overflow.insert(self.id, moved);
        drop(state);
        self.admission.turn_away("too many connections of one source have not logged in");
    }

    /// Returns when the connection has to make room for others.
    pub(super) async fn is_taken(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.state.lock();
        if self.is_inside {
            state.inside -= 1;
        } else {
            state.leave(self.id);
        }
    }
}

/// What a loop that accepts does about errors: it says so once, and waits a little each time.
pub(super) struct Accepting {
    what: &'static str,
    failures: u64,
}

impl Accepting {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, failures: 0 }
    }

    pub(super) fn succeeded(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            tracing::info!(listener = self.what, failures, "connections are accepted again");
        }
    }

    pub(super) async fn failed(&mut self, error: &io::Error) {
        // The client has given up while it waited: that is its own affair.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if self.failures == 0 {
            tracing::error!(listener = self.what, %error, "connections cannot be accepted: they wait");
        }
        self.failures += 1;
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn places() -> Places {
        let ceiling = Ceiling(100);
        Places { total: 10, waiting: 5, waiting_per_source: 3, overflow: 2, ceiling, overflow_ceiling: Ceiling(110) }
    }

    fn elsewhere(host: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, host])
    }

    fn is_taken(place: &Place) -> bool {
        use std::task::{Context, Poll, Waker};
        let mut taken = std::pin::pin!(place.is_taken());
        taken.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_source_has_its_places_and_newcomers_take_those_of_the_oldest_above() {
        let admission = Admission::new("test", places());
        let enter = |source| admission.enter_with(50, Some(source)).unwrap();
        let kept: Vec<Place> = (0..3).map(|_| enter(HERE)).collect();
        let above: Vec<Place> = (0..4).map(|_| enter(HERE)).collect();
        assert!(kept.iter().all(|place| !place.is_overflow() && !is_taken(place)));
        assert_eq!(above.iter().map(is_taken).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(above[3].is_overflow());
        assert_eq!(admission.turned_away(), 4);
        // Others are not concerned.
        assert!(!enter(elsewhere(1)).is_overflow());
        drop(kept);
        assert!(!enter(HERE).is_overflow());
    }

    #[test]
    fn who_logs_in_makes_room_for_others_who_have_not() {
        let admission = Admission::new("test", places());
        let enter = |host| admission.enter_with(50, Some(elsewhere(host))).unwrap();
        let mut inside: Vec<Place> = (0..5).map(enter).collect();
        let mut above = enter(5);
        assert!(above.is_overflow(), "five have not logged in");
        // Even from there.
        above.log_in();
        inside.iter_mut().for_each(Place::log_in);
        assert!(!above.is_waiting() && !above.is_overflow());
        let mut more: Vec<Place> = (10..14).map(enter).collect();
        assert!(more.iter().all(|place| !place.is_overflow()));
        more.iter_mut().for_each(Place::log_in);
        assert!(enter(20).is_overflow(), "ten connections in all");
        drop(inside);
        assert!(!enter(21).is_overflow());
        drop((above, more));
        let state = admission.state.lock();
        assert!((state.inside, state.waiting.len(), state.overflow.len()) == (0, 0, 0) && state.by_source.is_empty());
    }

    #[test]
    fn one_that_was_asked_to_leave_does_not_come_in_any_more() {
        let admission = Admission::new("test", Places { waiting: 0, overflow: 1, ..places() });
        let mut first = admission.enter_with(50, None).unwrap();
        let second = admission.enter_with(50, None).unwrap();
        assert!(is_taken(&first));
        first.log_in();
        assert!(first.is_waiting());
        drop((first, second));
        assert_eq!(admission.state.lock().inside, 0);
    }

    #[test]
    fn files_are_kept_back() {
        let admission = Admission::new("test", places());
        let above = admission.enter_with(100, Some(HERE)).unwrap();
        assert!(above.is_overflow());
        let more = admission.enter_with(110, Some(HERE)).unwrap();
        assert!(is_taken(&above) && more.is_overflow(), "the oldest closes its own for it");
        drop((above, more));
        assert!(admission.enter_with(110, Some(HERE)).is_none(), "nobody can leave for it");
        for limit in [64, 256, 1024, 1 << 20] {
            let files = Descriptors::new(limit);
            let ceilings = [files.amqp(), files.http(), files.http_overflow(), files.local(), Ceiling(limit)];
            assert!(ceilings.is_sorted_by(|a, b| a.0 < b.0), "{limit}: {ceilings:?}");
        }
        assert_eq!(Descriptors::new(256).amqp(), Ceiling(128));
        assert_eq!(Places::amqp(Descriptors::new(256), usize::MAX, 1024, 256).waiting, 64);
    }

    #[test]
    fn a_proxy_says_where_a_connection_comes_from() {
        let admission = Admission::new("test", places());
        let proxied: Vec<Place> = (0..4).map(|_| admission.enter_with(50, None).unwrap()).collect();
        proxied.iter().for_each(|place| place.comes_from(HERE));
        assert_eq!(proxied.iter().map(Place::is_overflow).collect::<Vec<_>>(), [false, false, false, true]);
    }
}
