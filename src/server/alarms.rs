//! The alarms. Above the memory watermark, below the limit of free disk space, and while the log finds the disk full,
//! connections that publish are blocked until that has passed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::broker::Broker;
use crate::broker::events::Notice;
use crate::config::{Memory, Storage, machine_memory};
use crate::model::request::Event;

use super::Shared;

/// What may be wrong; each is a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Memory = 1,
    /// Less free space than configured.
    FreeSpace = 2,
    /// The WAL cannot be written.
    WalFull = 4,
    /// Segments or snapshots cannot be written.
    LogFull = 8,
    /// What queues have on the disk cannot be read: descriptors or memory are short.
    ReadsStalled = 16,
}

/// The free space is measured at least this often when there is little left.
const CHECK_MIN: Duration = Duration::from_millis(100);
/// As fast as disks are filled, in bytes a second.
const FILLING_MAX: u64 = 1 << 30;

#[derive(Debug, Default)]
pub(super) struct Alarms {
    causes: AtomicU8,
    usage: Mutex<Usage>,
    /// Bytes in use above which there is an alarm; 0 while the machine's memory is not known.
    memory_limit: AtomicU64,
    /// Bytes in use, as of the last look.
    memory_used: AtomicU64,
    /// Bytes free below which there is an alarm.
    disk_limit: AtomicU64,
    /// Bytes free, as of the last look.
    disk_free: AtomicU64,
}

impl Alarms {
    /// Whether publishers are blocked, for whatever cause.
    pub(super) fn is_set(&self) -> bool {
        self.causes.load(Ordering::Acquire) != 0
    }

    /// What a connection has to know when it begins.
    pub(super) fn current(&self) -> Option<Event> {
        reason(self.causes.load(Ordering::Acquire)).map(|reason| Event::Blocked { reason })
    }

    /// Sets or clears one of the causes, and tells the connections what that changes for them.
    pub(super) fn set(&self, cause: Cause, holds: bool, broker: &Broker) {
        let bit = cause as u8;
        let before = if holds {
            self.causes.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.causes.fetch_and(!bit, Ordering::AcqRel)
        };
        let after = if holds { before | bit } else { before & !bit };
        if reason(before) == reason(after) {
            return;
        }
        for (name, mask) in [("memory", Cause::Memory as u8), ("disk", !(Cause::Memory as u8))] {
            if (before & mask == 0) != (after & mask == 0) {
                let key = if after & mask == 0 { "alarm.cleared" } else { "alarm.set" };
                broker.announce_with(|| Notice::new(key).text("name", name));
            }
        }
        broker.registry.tell_all(|| reason(after).map_or(Event::Unblocked, |reason| Event::Blocked { reason }));
    }

    fn holds(&self, cause: Cause) -> bool {
        self.causes.load(Ordering::Acquire) & cause as u8 != 0
    }

    /// Whether publishers are blocked for want of memory, and of disk.
    pub(super) fn are_set(&self) -> (bool, bool) {
        let memory = self.holds(Cause::Memory);
        (memory, self.causes.load(Ordering::Acquire) & !(Cause::Memory as u8) != 0)
    }

    /// Every cause by name, and whether it holds.
    pub(super) fn causes(&self) -> [(&'static str, bool); 5] {
        [
            ("memory", Cause::Memory),
            ("disk_free_space", Cause::FreeSpace),
            ("wal_full", Cause::WalFull),
            ("log_full", Cause::LogFull),
            ("reads_stalled", Cause::ReadsStalled),
        ]
        .map(|(name, cause)| (name, self.holds(cause)))
    }

    /// Bytes in use, and bytes above which there is an alarm.
    pub(super) fn memory(&self) -> (u64, u64) {
        (self.memory_used.load(Ordering::Relaxed), self.memory_limit.load(Ordering::Relaxed))
    }

    /// Bytes free, and bytes below which there is an alarm.
    pub(super) fn disk(&self) -> (u64, u64) {
        (self.disk_free.load(Ordering::Relaxed), self.disk_limit.load(Ordering::Relaxed))
    }
}

/// Moves the watermark. The alarm it sets or clears is in force when this returns: whatever a connection reads from its
/// socket afterwards is held back, or not.
pub(super) fn set_memory_limit(shared: &Shared, bytes: u64) {
    shared.alarms.memory_limit.store(bytes, Ordering::Relaxed);
    check_memory(shared);
}

/// Moves the limit of free disk space, with effect when this returns.
pub(super) fn set_disk_limit(shared: &Shared, bytes: u64, data_dir: &Path) {
    shared.alarms.disk_limit.store(bytes, Ordering::Relaxed);
    check_disk(shared, data_dir);
}

/// As `connection.blocked` says it.
fn reason(causes: u8) -> Option<&'static str> {
    let memory = causes & Cause::Memory as u8 != 0;
    let disk = causes & !(Cause::Memory as u8) != 0;
    match (memory, disk) {
        (false, false) => None,
        (true, false) => Some("low on memory"),
        (false, true) => Some("low on disk"),
        (true, true) => Some("low on memory & low on disk"),
    }
}

pub(super) fn start(shared: &Arc<Shared>, memory: &Memory, storage: &Storage, data_dir: &Path) {
    let total = machine_memory();
    match total {
        None => tracing::warn!("the machine's memory is not known: there is no memory alarm"),
        Some(total) => {
            let watermark = memory.high_watermark.bytes(total);
            tracing::info!(watermark_mib = watermark >> 20, "memory alarm");
            shared.alarms.memory_limit.store(watermark, Ordering::Relaxed);
            tokio::spawn(watch_memory(Arc::clone(shared), memory.check_interval));
        }
    }
    let limit = storage.disk_free_limit.bytes(total.unwrap_or(0));
    tracing::info!(limit_mib = limit >> 20, "disk alarm");
    shared.alarms.disk_limit.store(limit, Ordering::Relaxed);
    // Before the first client comes.
    if let Some(free) = check_disk(shared, data_dir) {
        tokio::spawn(watch_disk(Arc::clone(shared), data_dir.to_owned(), storage.disk_check_interval, free));
    }
}

async fn watch_memory(shared: Arc<Shared>, interval: Duration) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        check_memory(&shared);
    }
}

fn check_memory(shared: &Shared) {
    let Some((resident, _)) = resident() else { return };
    // Held to the end: whoever looks at the same time must not set what the other one clears.
    let mut usage = shared.alarms.usage.lock();
    let used = usage.used(resident, shared.broker.held());
    shared.alarms.memory_used.store(used, Ordering::Relaxed);
    let (_, watermark) = shared.alarms.memory();
    let alarm = used > watermark;
    // What can leave memory does, so that the alarm ends even if nobody consumes.
    shared.broker.limit_memory(alarm.then_some(watermark / 4));
    if shared.alarms.holds(Cause::Memory) == alarm {
        return;
    }
    let (used_mib, watermark_mib) = (used >> 20, watermark >> 20);
    if alarm {
        tracing::warn!(used_mib, watermark_mib, "memory alarm is set: publishers are blocked");
    } else {
        tracing::info!(used_mib, watermark_mib, "memory alarm is cleared");
    }
    shared.alarms.set(Cause::Memory, alarm, &shared.broker);
}

/// Bytes free; none when they cannot be measured.
fn check_disk(shared: &Shared, data_dir: &Path) -> Option<u64> {
    let free = match rustix::fs::statvfs(data_dir) {
        Ok(system) => system.f_bavail.saturating_mul(system.f_frsize),
        Err(error) => {
            tracing::error!(%error, "the free disk space cannot be measured: there is no disk alarm");
            shared.alarms.set(Cause::FreeSpace, false, &shared.broker);
            return None;
        }
    };
    shared.alarms.disk_free.store(free, Ordering::Relaxed);
    let (_, limit) = shared.alarms.disk();
    let alarm = free < limit;
    if shared.alarms.holds(Cause::FreeSpace) != alarm {
        let (free_mib, limit_mib) = (free >> 20, limit >> 20);
        if alarm {
            tracing::warn!(free_mib, limit_mib, "disk alarm is set: publishers are blocked");
        } else {
            tracing::info!(free_mib, limit_mib, "disk alarm is cleared");
        }
        shared.alarms.set(Cause::FreeSpace, alarm, &shared.broker);
    }
    Some(free)
}

async fn watch_disk(shared: Arc<Shared>, data_dir: PathBuf, interval: Duration, free: u64) {
    let mut free = free;
    loop {
        let (_, limit) = shared.alarms.disk();
        tokio::time::sleep(next_check(free, limit, interval)).await;
        match check_disk(&shared, &data_dir) {
            Some(measured) => free = measured,
            None => return,
        }
    }
}

/// Half the time in which the space above the limit could be filled; while the alarm is set, often, so that it ends soon.
fn next_check(free: u64, limit: u64, interval: Duration) -> Duration {
    let until_full = Duration::from_millis(free.saturating_sub(limit) / 2 / (FILLING_MAX / 1000));
    until_full.clamp(CHECK_MIN, interval.max(CHECK_MIN))
}

/// How much of the resident memory is in use. The allocator keeps what messages have left behind for those to come: an
/// idle broker whose queues were emptied may stay as large as it was, and must take publishes all the same.
#[derive(Debug, Default)]
struct Usage {
    resident: u64,
    /// The most that messages took, less what the system has got back since.
    peak: u64,
}

impl Usage {
    /// `held` is what messages take now.
    fn used(&mut self, resident: u64, held: u64) -> u64 {
        let returned = self.resident.saturating_sub(resident);
        self.resident = resident;
        self.peak = self.peak.saturating_sub(returned).max(held);
        // A body in several queues counts in each, so the difference may be more than was ever free.
        resident.saturating_sub(self.peak - held).max(held.min(resident))
    }
}

/// Resident memory of this process, in bytes, and how much of it is in files.
pub(super) fn resident() -> Option<(u64, u64)> {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').map(|pages| pages.parse::<u64>().ok());
    Some((pages.nth(1)?? * PAGE, pages.next()?? * PAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_joined() {
        assert_eq!(reason(0), None);
        assert_eq!(reason(1), Some("low on memory"));
        for disk in [2, 4, 8, 16, 30] {
            assert_eq!(reason(disk), Some("low on disk"));
            assert_eq!(reason(disk | 1), Some("low on memory & low on disk"));
        }
    }

    #[test]
    fn free_space_is_measured_the_more_often_the_less_there_is() {
        let interval = Duration::from_secs(10);
        let check = |free_gib: u64, limit_gib: u64| next_check(free_gib << 30, limit_gib << 30, interval);
        assert_eq!(check(1000, 1), interval);
        assert!((4000..6000).contains(&check(11, 1).as_millis()));
        assert_eq!(check(1, 1), CHECK_MIN);
        assert_eq!(check(1, 5), CHECK_MIN);
    }

    #[test]
    fn memory_left_behind_by_messages_is_not_in_use() {
        let mut usage = Usage::default();
        assert_eq!(usage.used(10, 0), 10);
        assert_eq!(usage.used(110, 100), 110);
        assert_eq!(usage.used(110, 20), 30, "the allocator keeps 80");
        assert_eq!(usage.used(110, 90), 100, "and uses them again");
        assert_eq!(usage.used(40, 20), 30, "the system got 70 of the 80 back");
        assert_eq!(usage.used(60, 20), 50, "something else grows");
    }

    #[test]
    fn shared_bodies_do_not_hide_what_is_in_use() {
        let mut usage = Usage::default();
        assert_eq!(usage.used(100, 1000), 100, "ten queues share each body");
        assert_eq!(usage.used(100, 100), 100, "nine of them were emptied");
    }
}
