//! The memory alarm: above the watermark, connections that publish are blocked until memory is free again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::{Memory, machine_memory};
use crate::model::request::Event;

use super::Shared;

const LOW_ON_MEMORY: &str = "low on memory";

#[derive(Debug, Default)]
pub(super) struct Alarms {
    memory: AtomicBool,
}

impl Alarms {
    /// What a connection has to know when it begins.
    pub(super) fn current(&self) -> Option<Event> {
        self.memory.load(Ordering::Acquire).then_some(Event::Blocked { reason: LOW_ON_MEMORY })
    }
}

pub(super) fn start(shared: &Arc<Shared>, memory: &Memory) {
    let Some(total) = machine_memory() else {
        tracing::warn!("the machine's memory is not known: there is no memory alarm");
        return;
    };
    let watermark = memory.high_watermark.bytes(total);
    tracing::info!(watermark_mib = watermark >> 20, "memory alarm");
    tokio::spawn(watch(Arc::clone(shared), watermark, memory.check_interval));
}

async fn watch(shared: Arc<Shared>, watermark: u64, interval: std::time::Duration) {
    let mut usage = Usage::default();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(resident) = resident() else { continue };
        let used = usage.used(resident, shared.broker.held());
        let alarm = used > watermark;
        if shared.alarms.memory.swap(alarm, Ordering::AcqRel) == alarm {
            continue;
        }
        let (used_mib, watermark_mib) = (used >> 20, watermark >> 20);
        if alarm {
            tracing::warn!(used_mib, watermark_mib, "memory alarm is set: publishers are blocked");
        } else {
            tracing::info!(used_mib, watermark_mib, "memory alarm is cleared");
        }
        for entry in &shared.connections {
            let event = if alarm { Event::Blocked { reason: LOW_ON_MEMORY } } else { Event::Unblocked };
            entry.value().push_one(event);
        }
    }
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

/// Resident memory of this process, in bytes.
fn resident() -> Option<u64> {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

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
