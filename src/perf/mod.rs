//! `warren perf`: a load generator for any AMQP 0-9-1 broker. It is a client like others and knows nothing of this broker.
//!
//! ```text
//! run ── a thread each ──► publisher: prepared messages ─► socket     counters, latencies
//!  │                  ├──► consumer: socket ─► skips through it       ──────────────────► run: a line each second,
//!  └── topology       └──► churn: connects, again and again                                    the report
//! ```

#![allow(clippy::disallowed_methods, reason = "a program of its own: it starts threads and reads a clock")]

mod client;
mod consumer;
mod error;
mod options;
mod publisher;
mod report;
mod run;
mod shared;
mod template;
mod topology;
mod uri;
mod window;
mod wire;

use std::process::ExitCode;

pub use error::PerfError;
pub use options::{Exchange, Options, QueueArgument};
pub use uri::Uri;

/// Runs `warren perf`. The options have been checked.
#[must_use]
pub fn run(options: &Options) -> ExitCode {
    match run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren perf: {error}");
            ExitCode::FAILURE
        }
    }
}
