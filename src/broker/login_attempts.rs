//! Logins that succeeded and failed, by where they came from, and how long somebody who keeps failing has to wait.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

use crate::model::ids::Timestamp;

/// Sources, and pairs of source and user, that are remembered. The one that was quiet for longest makes room.
const ENTRIES_MAX: usize = 1024;
/// Bytes of a user name that are kept.
const NAME_MAX: usize = 255;
/// Failures of one source that cost nothing.
const FREE_FAILURES: u64 = 5;
/// What each further one adds.
const STEP_MS: u64 = 1000;
/// The longest wait; the silence of the protocol comes on top.
const PAUSE_MAX_MS: u64 = 7000;
/// A source that has not failed for so long begins anew.
const FORGIVEN_MS: u64 = 60_000;

/// How a login went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    Failed,
}

/// The logins of one user from one address by one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginAttempt {
    pub protocol: &'static str,
    pub source: IpAddr,
    pub user: String,
    pub succeeded: u64,
    pub failed: u64,
}

/// The logins of all by one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTotals {
    pub protocol: &'static str,
    pub succeeded: u64,
    pub failed: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct LoginAttempts(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    totals: Vec<LoginTotals>,
    attempts: HashMap<(&'static str, IpAddr, String), Counts>,
    /// Failures in a row, in time.
    failures: HashMap<IpAddr, Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    succeeded: u64,
    failed: u64,
    last: Timestamp,
}

impl LoginAttempts {
    /// Counts a login.
    pub fn record(&self, protocol: &'static str, source: IpAddr, user: &str, outcome: Outcome, now: Timestamp) {
        let mut tables = self.0.lock();
        let source = source.to_canonical();
        if !tables.totals.iter().any(|totals| totals.protocol == protocol) {
            tables.totals.push(LoginTotals { protocol, succeeded: 0, failed: 0 });
        }
        for totals in tables.totals.iter_mut().filter(|totals| totals.protocol == protocol) {
            add(&mut totals.succeeded, &mut totals.failed, outcome);
        }
        let end = (0..=NAME_MAX).rev().find(|end| user.is_char_boundary(*end)).unwrap_or(0);
        let user = user.get(..end).unwrap_or(user).to_owned();
        let counts = entry(&mut tables.attempts, (protocol, source, user), now);
        add(&mut counts.succeeded, &mut counts.failed, outcome);
        if outcome == Outcome::Failed {
            let network = network_of(source);
            let forgiven = tables.failures.get(&network).is_some_and(|counts| counts.last.0 + FORGIVEN_MS <= now.0);
            if forgiven {
                tables.failures.remove(&network);
            }
            entry(&mut tables.failures, network, now).failed += 1;
        }
    }

    /// Milliseconds that somebody from there who has just failed waits for the answer. Nobody else waits.
    #[must_use]
    pub fn pause_ms(&self, source: IpAddr) -> u64 {
        let tables = self.0.lock();
        let failed = tables.failures.get(&network_of(source.to_canonical())).map_or(0, |counts| counts.failed);
        (failed.saturating_sub(FREE_FAILURES).saturating_mul(STEP_MS)).min(PAUSE_MAX_MS)
    }

    /// By protocol.
    #[must_use]
    pub fn totals(&self) -> Vec<LoginTotals> {
        self.0.lock().totals.clone()
    }

    /// By protocol, source and user, in this order.
    #[must_use]
    pub fn by_source(&self) -> Vec<LoginAttempt> {
        let tables = self.0.lock();
        let attempt = |((protocol, source, user), counts): (&(&'static str, IpAddr, String), &Counts)| LoginAttempt {
            protocol,
            source: *source,
            user: user.clone(),
            succeeded: counts.succeeded,
            failed: counts.failed,
        };
        let mut list: Vec<_> = tables.attempts.iter().map(attempt).collect();
        list.sort_by(|a, b| (a.protocol, a.source, &a.user).cmp(&(b.protocol, b.source, &b.user)));
        list
    }

    /// Forgets the counts. Who has to wait still waits.
    pub fn reset(&self) {
        let mut tables = self.0.lock();
        tables.totals.clear();
        tables.attempts.clear();
    }
}

fn add(succeeded: &mut u64, failed: &mut u64, outcome: Outcome) {
    match outcome {
        Outcome::Succeeded => *succeeded += 1,
        Outcome::Failed => *failed += 1,
    }
}

/// The counts under a key; room is made for it if need be.
fn entry<K: std::hash::Hash + Eq + Clone>(table: &mut HashMap<K, Counts>, key: K, now: Timestamp) -> &mut Counts {
    if table.len() >= ENTRIES_MAX
        && !table.contains_key(&key)
        && let Some(oldest) = table.iter().min_by_key(|(_, counts)| counts.last).map(|(key, _)| key.clone())
    {
        table.remove(&oldest);
    }
    let counts = table.entry(key).or_default();
    counts.last = now;
    counts
}

/// What counts as one source: an address, or a network of IPv6, since whoever has an address there usually has 2^64 of them.
#[must_use]
pub fn network_of(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn attempts_are_counted_by_source() {
        let attempts = LoginAttempts::default();
        attempts.record("amqp", PEER, "ann", Outcome::Failed, Timestamp(1));
        attempts.record("amqp", "::ffff:127.0.0.1".parse().unwrap(), "ann", Outcome::Succeeded, Timestamp(2));
        attempts.record("http", PEER, "bob", Outcome::Succeeded, Timestamp(3));
        let attempt = |protocol, user: &str, succeeded, failed| LoginAttempt {
            protocol,
            source: PEER,
            user: user.into(),
            succeeded,
            failed,
        };
        assert_eq!(attempts.by_source(), [attempt("amqp", "ann", 1, 1), attempt("http", "bob", 1, 0)]);
        let amqp = LoginTotals { protocol: "amqp", succeeded: 1, failed: 1 };
        assert_eq!(attempts.totals()[0], amqp);
        attempts.reset();
        assert!(attempts.by_source().is_empty() && attempts.totals().is_empty());
    }

    #[test]
    fn whoever_keeps_failing_waits_and_nobody_else() {
        let attempts = LoginAttempts::default();
        let fail = |count| (0..count).for_each(|_| attempts.record("amqp", PEER, "ann", Outcome::Failed, Timestamp(5)));
        fail(FREE_FAILURES);
        assert_eq!(attempts.pause_ms(PEER), 0);
        fail(2);
        assert_eq!(attempts.pause_ms(PEER), 2 * STEP_MS);
        fail(100);
        assert_eq!(attempts.pause_ms(PEER), PAUSE_MAX_MS);
        assert_eq!(attempts.pause_ms("10.0.0.1".parse().unwrap()), 0);
        attempts.record("amqp", PEER, "ann", Outcome::Failed, Timestamp(5 + FORGIVEN_MS));
        assert_eq!(attempts.pause_ms(PEER), 0);
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let attempts = LoginAttempts::default();
        for host in 0..10 {
            attempts.record("amqp", IpAddr::V6(Ipv6Addr::from_bits(host)), "ann", Outcome::Failed, Timestamp(5));
        }
        assert_eq!(attempts.pause_ms("::ffff".parse().unwrap()), 5 * STEP_MS);
    }

    #[test]
    fn the_tables_are_bounded() {
        let attempts = LoginAttempts::default();
        for number in 0..3000_u32 {
            let source = IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
            let user = format!("{number}{}", "é".repeat(300));
            attempts.record("amqp", source, &user, Outcome::Failed, Timestamp(u64::from(number)));
        }
        let kept = attempts.by_source();
        assert_eq!((kept.len(), attempts.0.lock().failures.len()), (ENTRIES_MAX, ENTRIES_MAX));
        assert!(kept.iter().all(|attempt| attempt.user.len() <= NAME_MAX && attempt.failed == 1));
        assert_eq!(attempts.totals()[0].failed, 3000);
    }
}
