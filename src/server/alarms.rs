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
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(used) = resident() else { continue };
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

/// Resident memory of this process, in bytes.
fn resident() -> Option<u64> {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE)
}
