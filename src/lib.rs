//! Warren, an AMQP 0-9-1 message broker.

pub mod broker;
pub mod cli;
pub mod config;
pub mod model;
pub mod perf;
pub mod protocol;
pub mod queue;
pub mod routing;
pub mod server;
