//! What the client tests share: a broker to talk to, a scenario that cleans up after itself, and a raw connection
//! for what a client library hides.
//!
//! Everything here panics when the broker does not do what the test needs; that is how a test fails.

pub mod broker;
pub mod raw;
pub mod scenario;
mod values;

use std::time::Duration;

/// How long a test waits for anything the broker has to do before it fails.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How often a condition is looked at again while waiting for it.
pub const POLL: Duration = Duration::from_millis(20);
