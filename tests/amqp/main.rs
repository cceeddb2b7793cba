//! Protocol tests: a raw-frame AMQP 0-9-1 client against a running broker.
//!
//! One broker is started for the whole test process (see [`harness`]). With `WARREN_TEST_ADDR=host:port` the tests talk to a broker that
//! already runs there instead; tests of Warren's documented differences, and those that need the broker's process, are then skipped.
#![allow(clippy::unwrap_used, reason = "a test reports a failure by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "the tests are outside the broker: they read the clock and start threads themselves"
)]

mod alarms;
mod amplifiers;
mod argument_errors;
mod cases;
mod channel_errors;
mod client;
mod connection_errors;
mod connection_lifetime;
mod consuming;
mod content;
mod dead_letters;
mod deep_queues;
mod exchanges;
mod frame_errors;
mod handshake;
mod harness;
mod hostile;
mod isolation;
mod limits;
mod methods;
mod methods_answered;
mod metrics;
mod permissions;
mod publishing;
mod queue_rules;
mod settings;
mod wire;
