//! Metrics in Prometheus' text format, under RabbitMQ's names.
//!
//! ```text
//! request ── Scrape: who exists, and sums ──► Writer: families, a piece of text at a time ──► Lines: the answer's body
//! ```
//!
//! A scrape takes no lock that a queue waits for, and its memory does not grow with what it has to tell but for a list of
//! who exists.
//!
//! What RabbitMQ counts and this broker cannot tell truthfully is left out:
//! - what is of the Erlang runtime: `erlang_*` but for the uptime, `*_process_reductions_total`;
//! - reads, seeks and reopened files of a message store: `io_read_*`, `io_seek_*`, `io_reopen_*`, bytes and time of writes,
//!   `queue_index_*`, `schema_db_*`;
//! - `auth_attempts_detailed_*`: scrapes need no login, and names that were typed wrong are nobody's business;
//! - `raft_*`, `stream_*` and `global_stream_*`: there are no such queues;
//! - `queue_disk_*` and `exchange_messages_confirmed_total` of a single object: they are counted for all together.
//!
//! Labels that are left out: the exchange or queue of what a channel did (`channel_messages_*`, `channel_get_*`), and the
//! exchange and channel of what came into a queue (`queue_messages_published_total`,
//! `queue_exchange_messages_published_total`). Nobody counts by pairs.

mod body;
mod node;
mod plan;
mod rows;
mod scrape;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_ENCODING, HeaderMap};

use super::answer::{Answer, Content, Failure};
use super::call::Call;
use super::routes::accepts_gzip;

use body::{Coding, Lines};
use plan::Writer;
use scrape::{Endpoint, Scrape};
use text::FamilyKind::Summary;
use text::Text;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// What scraping has cost since the start, by endpoint.
#[derive(Debug, Default)]
pub struct Scrapes([Cost; 4]);

#[derive(Debug, Default)]
struct Cost {
    count: AtomicU64,
    /// Milliseconds until the last byte was taken.
    took_ms: AtomicU64,
    /// Bytes of text.
    size: AtomicU64,
}

impl Scrapes {
    fn count(&self, endpoint: Endpoint, took_ms: u64, size: u64) {
        let cost = &self.0[endpoint as usize];
        cost.took_ms.fetch_add(took_ms, Ordering::Relaxed);
        cost.size.fetch_add(size, Ordering::Relaxed);
        cost.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The metrics of the kind that the path names.
pub(super) fn answer(call: &Call) -> Result<Answer, Failure> {
    let endpoint = match call.name(0) {
        "" if call.management.settings.metrics_per_object => Endpoint::PerObject,
        "" => Endpoint::Aggregated,
        "per-object" => Endpoint::PerObject,
        "detailed" => Endpoint::Detailed,
        "memory-breakdown" => Endpoint::MemoryBreakdown,
        _ => {
            let text = "Unknown Registry".to_owned();
            return Ok(Answer::with(StatusCode::NOT_FOUND, Content::Text("text/plain", text)));
        }
    };
    if !takes_text(&call.headers) {
        return Err(Failure::not_acceptable());
    }
    let writer = Writer::new(&call.management, endpoint, &call.query)?;
    let coding = if accepts_gzip(&call.headers) { Coding::Gzip } else { Coding::Identity };
    let answer = Answer::with(StatusCode::OK, Content::Stream(CONTENT_TYPE, Body::new(Lines::new(writer, coding))));
    Ok(if coding == Coding::Gzip { answer.header(CONTENT_ENCODING, "gzip") } else { answer })
}

/// Whether the caller takes the text format; it is the only one.
fn takes_text(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else { return true };
    accept.split(',').any(|kind| {
        let mut parts = kind.split(';').map(str::trim);
        matches!(parts.next(), Some("" | "text/plain" | "text/*" | "*/*")) && !parts.any(|part| part == "q=0")
    })
}

/// What earlier scrapes have cost.
fn telemetry(scrape: &Scrape, text: &mut Text) {
    let Scrapes(costs) = &scrape.management.scrapes;
    let endpoints = [Endpoint::Aggregated, Endpoint::PerObject, Endpoint::Detailed, Endpoint::MemoryBreakdown];
    let costs: Vec<_> = endpoints
        .into_iter()
        .map(|endpoint| {
            let Cost { count, took_ms, size } = &costs[endpoint as usize];
            let registry = if endpoint == Endpoint::Aggregated { "default" } else { endpoint.name() };
            let [count, took_ms, size] = [count, took_ms, size].map(|number| number.load(Ordering::Relaxed));
            ([("registry", registry), ("content_type", CONTENT_TYPE)], count, took_ms, size)
        })
        .filter(|(_, count, ..)| *count > 0)
        .collect();
    text.family("telemetry_scrape_duration_seconds", Summary, "Scrape duration");
    for (labels, count, took_ms, _) in &costs {
        text.summary(labels, *count, *took_ms as f64 / 1000.0);
    }
    text.family("telemetry_scrape_size_bytes", Summary, "Scrape size, not encoded");
    for (labels, count, _, size) in &costs {
        text.summary(labels, *count, *size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_the_text_format() {
        let takes = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            takes_text(&headers)
        };
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(takes(prometheus) && takes("*/*") && takes("text/plain") && takes_text(&HeaderMap::new()));
        assert!(!takes("application/openmetrics-text; version=1.0.0") && !takes("text/plain;q=0"));
    }
}
