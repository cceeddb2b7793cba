//! What a run says: a line each second, and the summary as text or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::Ordering;

use hdrhistogram::Histogram;

use super::shared::{Counter, Latencies, Meter, Shared, new_histogram};

/// Counts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RunCounts {
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) delivered: u64,
    pub(super) churned: u64,
}

impl RunCounts {
    pub(super) fn of(shared: &Shared) -> Self {
        let meters = |meters: &[Meter]| meters.iter().map(|meter| meter.count.get()).sum();
        Self {
            published: shared.published.iter().map(Counter::get).sum(),
            confirmed: meters(&shared.confirmed),
            delivered: meters(&shared.delivered),
            churned: meters(&shared.churned),
        }
    }
}

/// Latencies of all threads.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) confirm: Histogram<u64>,
    pub(super) end_to_end: Histogram<u64>,
    pub(super) connect: Histogram<u64>,
}

impl Measured {
    pub(super) fn new() -> Self {
        Self { confirm: new_histogram(), end_to_end: new_histogram(), connect: new_histogram() }
    }

    /// Takes what the threads have recorded since this was last called.
    pub(super) fn take(&mut self, shared: &Shared) {
        let take = |meters: &[Meter], into: &mut Histogram<u64>| {
            meters.iter().map(|meter| &meter.latencies).for_each(|latencies: &Latencies| latencies.take_into(into));
        };
        take(&shared.confirmed, &mut self.confirm);
        take(&shared.delivered, &mut self.end_to_end);
        take(&shared.churned, &mut self.connect);
    }

    pub(super) fn reset(&mut self) {
        for histogram in [&mut self.confirm, &mut self.end_to_end, &mut self.connect] {
            histogram.reset();
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        // All have the same bounds.
        let _ = self.confirm.add(&other.confirm);
        let _ = self.end_to_end.add(&other.end_to_end);
        let _ = self.connect.add(&other.connect);
    }
}

/// Which parts of a report there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    pub(super) publishers: bool,
    pub(super) confirms: bool,
    pub(super) consumers: bool,
    pub(super) churn: bool,
}

/// The line of one second: `counts` is what happened in these `seconds`.
pub(super) fn progress(parts: Parts, elapsed: f64, seconds: f64, counts: RunCounts, latencies: &Measured) -> String {
    let rate = |count: u64| (count as f64 / seconds).round();
    let mut line = format!("{elapsed:6.1} s");
    let mut add = |wanted: bool, name: &str, count: u64, latencies: Option<&Histogram<u64>>| {
        if !wanted {
            return;
        }
        let _ = write!(line, "  {name} {}/s", rate(count));
        if let Some(latencies) = latencies.filter(|latencies| !latencies.is_empty()) {
            let at = |quantile| duration(latencies.value_at_quantile(quantile));
            let _ = write!(line, " (p50 {}, p99 {})", at(0.5), at(0.99));
        }
    };
    add(parts.publishers, "published", counts.published, None);
    add(parts.confirms, "confirmed", counts.confirmed, Some(&latencies.confirm));
    add(parts.consumers, "delivered", counts.delivered, Some(&latencies.end_to_end));
    add(parts.churn, "connections", counts.churned, Some(&latencies.connect));
    line
}

/// A run's outcome.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) parts: Parts,
    /// The measured time.
    pub(super) seconds: f64,
    /// From the first second to the last.
    pub(super) counts: RunCounts,
    /// Messages the broker refused to take, which count as confirmed.
    pub(super) refused: u64,
    /// Per second of the measured time, in the order of [`RunCounts`].
    pub(super) publish_rate: f64,
    pub(super) confirm_rate: f64,
    pub(super) deliver_rate: f64,
    pub(super) connect_rate: f64,
    pub(super) idle: usize,
    pub(super) latencies: Measured,
}

impl Summary {
    pub(super) fn refused(shared: &Shared) -> u64 {
        shared.refused.load(Ordering::Relaxed)
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("measured for {:.2} s\n", self.seconds);
        let mut row = |wanted: bool, name: &str, count: u64, rate: f64, latencies: Option<(&str, &Histogram<u64>)>| {
            if !wanted {
                return;
            }
            let _ = writeln!(text, "{name:<12} {count:>12}  {:>10}/s", rate.round());
            if let Some((name, latencies)) = latencies.filter(|(_, latencies)| !latencies.is_empty()) {
                let at = |quantile| duration(latencies.value_at_quantile(quantile));
                let _ = writeln!(
                    text,
                    "  {name}: p50 {}  p95 {}  p99 {}  p99.9 {}  max {}",
                    at(0.5),
                    at(0.95),
                    at(0.99),
                    at(0.999),
                    duration(latencies.max())
                );
            }
        };
        let (counts, latencies) = (self.counts, &self.latencies);
        row(self.parts.publishers, "published", counts.published, self.publish_rate, None);
        let confirm = Some(("confirm latency", &latencies.confirm));
        row(self.parts.confirms, "confirmed", counts.confirmed, self.confirm_rate, confirm);
        let end_to_end = Some(("end-to-end latency", &latencies.end_to_end));
        row(self.parts.consumers, "delivered", counts.delivered, self.deliver_rate, end_to_end);
        let connect = Some(("open and close", &latencies.connect));
        row(self.parts.churn, "connections", counts.churned, self.connect_rate, connect);
        if self.refused > 0 {
            let _ = writeln!(text, "the broker refused {} of the messages it confirmed (basic.nack)", self.refused);
        }
        text
    }

    /// One line. Latencies are in microseconds; null where nothing was measured.
    pub(super) fn json(&self) -> String {
        let counts = self.counts;
        let mut text = format!(
            "{{\"seconds\":{:.3},\"published\":{},\"confirmed\":{},\"refused\":{},\"delivered\":{},\"connections\":{},\
             \"idle_connections\":{},\"publish_rate\":{:.1},\"confirm_rate\":{:.1},\"deliver_rate\":{:.1},\
             \"connect_rate\":{:.1}",
            self.seconds,
            counts.published,
            counts.confirmed,
            self.refused,
            counts.delivered,
            counts.churned,
            self.idle,
            self.publish_rate,
            self.confirm_rate,
            self.deliver_rate,
            self.connect_rate,
        );
        let latencies = &self.latencies;
        for (name, histogram) in [
            ("confirm_latency_us", &latencies.confirm),
            ("end_to_end_latency_us", &latencies.end_to_end),
            ("connect_latency_us", &latencies.connect),
        ] {
            let _ = write!(text, ",\"{name}\":{}", percentiles(histogram));
        }
        text.push_str("}\n");
        text
    }
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    if histogram.is_empty() {
        return "null".to_owned();
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    format!(
        "{{\"p50\":{:.1},\"p95\":{:.1},\"p99\":{:.1},\"p99.9\":{:.1},\"max\":{:.1}}}",
        at(0.5),
        at(0.95),
        at(0.99),
        at(0.999),
        histogram.max() as f64 / 1e3
    )
}

/// A latency for people.
fn duration(nanoseconds: u64) -> String {
    let microseconds = nanoseconds as f64 / 1e3;
    match microseconds {
        ..1e3 => format!("{microseconds:.0} µs"),
        ..1e6 => format!("{:.2} ms", microseconds / 1e3),
        _ => format!("{:.2} s", microseconds / 1e6),
    }
}

/// Writes to standard output, or to standard error when the summary is to have standard output for itself. A reader that
/// went away is no failure.
pub(super) fn say(text: &str, to_stderr: bool) {
    if to_stderr {
        let _ = std::io::stderr().write_all(text.as_bytes());
    } else {
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let mut latencies = Measured::new();
        latencies.end_to_end.saturating_record_n(2_000_000, 10);
        Summary {
            parts: Parts { publishers: true, confirms: false, consumers: true, churn: false },
            seconds: 2.0,
            counts: RunCounts { published: 10, delivered: 10, ..RunCounts::default() },
            refused: 0,
            publish_rate: 5.0,
            confirm_rate: 0.0,
            deliver_rate: 5.0,
            connect_rate: 0.0,
            idle: 0,
            latencies,
        }
    }

    #[test]
    fn the_summary_has_what_took_part() {
        let text = summary().text();
        assert!(text.contains("published") && text.contains("end-to-end latency: p50 2.00 ms"), "{text}");
        assert!(!text.contains("confirmed") && !text.contains("connections"), "{text}");
        let json = summary().json();
        assert!(json.contains("\"published\":10,"), "{json}");
        assert!(json.contains("\"confirm_latency_us\":null") && json.contains("\"p99.9\":2000."), "{json}");
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        assert_eq!([900, 12_345_678, 2_000_000_000].map(duration), ["1 µs", "12.35 ms", "2.00 s"]);
    }
}
