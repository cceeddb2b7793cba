//! What ends a run before its time.

use std::io;

/// Why the generator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PerfError {
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("the broker closed the socket without saying why")]
    EndOfStream,
    #[error("the broker closed the {what}: {code} {text}")]
    Closed { what: &'static str, code: u16, text: String },
    #[error("the broker cancelled the consumer {tag:?}: its queue is gone")]
    Cancelled { tag: String },
    #[error("the broker sent the unexpected method {0}.{1}")]
    Unexpected(u16, u16),
    #[error("the broker sent something that is not AMQP 0-9-1")]
    Malformed,
    #[error("the broker did not answer in time")]
    Silent,
    #[error("{0}")]
    Thread(String),
}
