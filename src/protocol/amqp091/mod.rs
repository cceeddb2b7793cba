//! AMQP 0-9-1 with RabbitMQ's extensions.
//!
//! ```text
//! socket bytes ─► codec ─► connection ─► channel ─► requests ─► session
//! socket bytes ◄─ output ◄─ connection ◄─ channel ◄─ events  ◄─ session
//! ```

mod channel;
mod codec;
mod confirms;
mod connection;
mod consumers;
mod content;
mod dispatch;
mod heartbeats;
mod login;
mod method;
mod start;
#[cfg(test)]
mod tests;
mod unacked;

pub use codec::Output;
pub use connection::{Connection, Status};
pub use start::ClientProperties;

/// What the broker offers and demands of every connection; from the configuration.
#[derive(Clone, Debug)]
pub struct AmqpSettings {
    /// Bytes; proposed to clients, which may only lower it.
    pub frame_max: u32,
    /// Channels of one connection.
    pub channel_max: u16,
    /// Seconds; 0 is off.
    pub heartbeat: u16,
    /// Body bytes.
    pub max_message_size: u64,
    /// Accept to open, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// SASL mechanisms offered.
    pub mechanisms: Vec<String>,
    /// Pairs of the server properties besides `capabilities`.
    pub server_properties: Vec<(String, String)>,
    /// 0 is no limit.
    pub consumers_per_channel_max: usize,
    /// Prefetch of consumers on channels that never said basic.qos; 0 is no limit.
    pub default_prefetch: u16,
    /// Whether `basic.qos global=true` limits the channel; otherwise it is taken as global=false.
    pub global_qos: bool,
}
