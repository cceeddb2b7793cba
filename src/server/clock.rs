//! The broker's time: milliseconds since the epoch that never go back, whatever happens to the system's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::ids::Timestamp;

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    epoch_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), epoch_ms: millis(epoch) }
    }

    pub(super) fn now(self) -> Timestamp {
        Timestamp(self.epoch_ms + millis(self.started.elapsed()))
    }

    /// The runtime's instant of a timestamp, not before now.
    pub(super) fn instant(self, at: Timestamp) -> tokio::time::Instant {
        // One more, since the timestamp has lost its fraction.
        let ms = at.0.saturating_sub(self.epoch_ms).saturating_add(1);
        tokio::time::Instant::from_std(self.started + Duration::from_millis(ms.min(u64::from(u32::MAX))))
    }
}

/// The world's time, by which tokens are issued; it may go back.
pub(super) fn wall_clock() -> Timestamp {
    Timestamp(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
