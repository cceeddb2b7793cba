//! What the threads of a run share: the clock, the end, counters and latencies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Latencies that are longer are counted as this long, in nanoseconds: an hour.
const LATENCY_MAX: u64 = 3_600_000_000_000;
/// Significant decimal digits of a latency.
const DIGITS: u8 = 3;

/// Nanoseconds since the Unix epoch which never go back: comparable between the processes of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    epoch: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), epoch: nanoseconds(epoch) }
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.epoch + nanoseconds(self.start.elapsed())
    }
}

/// 584 years fit.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS).expect("the bounds are valid")
}

/// What one thread counts. Only that thread writes, and the cache line is its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counter {
    count: AtomicU64,
    /// When the count last grew.
    changed: AtomicU64,
}

impl Counter {
    #[inline]
    pub(super) fn set(&self, count: u64, now: u64) {
        self.count.store(count, Ordering::Relaxed);
        self.changed.store(now, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
}

/// Latencies that one thread records and the reporter takes.
#[derive(Debug)]
pub(super) struct Latencies(Mutex<Histogram<u64>>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Mutex::new(new_histogram()))
    }
}

impl Latencies {
    /// Records under one lock. `work` is called with a function of a latency in nanoseconds and how often it occurred.
    pub(super) fn record<T>(&self, work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
        let mut histogram = self.0.lock();
        work(&mut |latency, count| histogram.saturating_record_n(latency, count))
    }

    /// Moves what was recorded into `total`.
    pub(super) fn take_into(&self, total: &mut Histogram<u64>) {
        let mut histogram = self.0.lock();
        // The bounds are the same.
        let _ = total.add(&*histogram);
        histogram.reset();
    }
}

/// One kind of thread: what each of them counts and measures.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) count: Counter,
    pub(super) latencies: Latencies,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    stopping: AtomicBool,
    /// For each publisher: messages written.
    pub(super) published: Vec<Counter>,
    /// For each publisher: messages confirmed, and how long that took.
    pub(super) confirmed: Vec<Meter>,
    /// Messages that the broker refused.
    pub(super) refused: AtomicU64,
    /// For each consumer: messages delivered, and how long that took from their sending.
    pub(super) delivered: Vec<Meter>,
    /// For each churning thread: connections opened and closed, and how long that took.
    pub(super) churned: Vec<Meter>,
}

impl Shared {
    pub(super) fn new(publishers: usize, consumers: usize, churning: usize) -> Self {
        let meters = |count| std::iter::repeat_with(Meter::default).take(count).collect();
        Self {
            clock: Clock::start(),
            stopping: AtomicBool::new(false),
            published: std::iter::repeat_with(Counter::default).take(publishers).collect(),
            confirmed: meters(publishers),
            refused: AtomicU64::new(0),
            delivered: meters(consumers),
            churned: meters(churning),
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
