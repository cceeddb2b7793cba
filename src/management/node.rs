//! What only the server knows of this process, and what only it can do.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use crate::broker::Eventually;
use crate::model::ids::Timestamp;

use super::Management;

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// As health checks name it: `amqp`, `amqp/ssl`, `http`, `https`, `http/prometheus`.
    pub protocol: &'static str,
    pub address: IpAddr,
    pub port: u16,
    pub tls: bool,
}

/// This process at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// Milliseconds.
    pub uptime_ms: u64,
    /// Bytes in use: of those resident, without what the allocator keeps of messages that are gone.
    pub memory_used: u64,
    /// Bytes resident.
    pub memory_resident: u64,
    /// Those of them that are in files: the program.
    pub memory_code: u64,
    /// Bytes above which publishers are blocked; 0 when that is not known.
    pub memory_limit: u64,
    /// Bytes of memory of the machine or the control group.
    pub memory_total: u64,
    pub memory_alarm: bool,
    pub disk_free: u64,
    pub disk_limit: u64,
    pub disk_alarm: bool,
    /// Why publishers may be blocked, and whether that holds.
    pub alarm_causes: Vec<(&'static str, bool)>,
    /// Connections since the start that found no place, or one for a short while only, by listener.
    pub turned_away: Vec<(&'static str, u64)>,
    pub open_files: u64,
    pub open_files_max: u64,
    pub threads: u64,
    pub processors: u64,
    pub process_id: u32,
    pub data_directory: String,
    pub config_files: Vec<String>,
    pub log_files: Vec<String>,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys that have changed.
    pub changed: Vec<&'static str>,
    /// The keys whose other value needs a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Why the node does not serve clients, if it does not. A start begins with none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// By `suspend_listeners`: no new connections.
    pub suspended: bool,
    /// By `rabbitmq-upgrade drain`: under maintenance.
    pub drained: bool,
    /// By `stop_app`.
    pub stopped: bool,
}

impl ServiceState {
    /// Whether nobody can connect.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self.suspended || self.drained || self.stopped
    }

    /// Why nobody can connect.
    #[must_use]
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self { stopped: true, .. } => Some("the broker is stopped (stop_app): start_app starts it"),
            Self { drained: true, .. } => Some("the node is under maintenance (drain): revive ends that"),
            Self { suspended: true, .. } => Some("the listeners are suspended: resume_listeners opens them"),
            Self { .. } => None,
        }
    }
}

/// A certificate that a listener shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub file: String,
    /// Milliseconds since the epoch.
    pub not_after_ms: u64,
}

/// The process around the API.
pub trait Node: Send + Sync {
    /// Milliseconds since the epoch.
    fn now(&self) -> Timestamp;

    fn facts(&self) -> NodeFacts;

    fn listeners(&self) -> Vec<Listener>;

    fn certificates(&self) -> Vec<Certificate>;

    /// Every configuration key with its value and where it comes from, secrets left out.
    fn configuration(&self) -> Value;

    /// Reads the configuration again. What is wrong with it, else; then nothing has changed.
    fn reload(&self) -> Eventually<Result<Reloaded, String>>;

    /// Four random bytes.
    fn salt(&self) -> [u8; 4];

    /// Waits for so many milliseconds.
    fn pause(&self, ms: u64) -> Eventually<()>;

    /// Stops the broker, soon.
    fn stop(&self);

    /// Logs what is as important as this and more; an error names what is allowed.
    fn set_log_level(&self, level: &str) -> Result<(), String>;

    /// The last lines of the log, `count` at most. Why there are none, else.
    fn log_tail(&self, count: usize) -> Eventually<Result<Vec<String>, String>>;

    /// Begins another file of the log, if it goes to one.
    fn rotate_logs(&self) -> Eventually<()>;

    /// Defines what a broker begins with, after everything was removed. Why that cannot be done, else.
    fn begin_anew(&self, management: Arc<Management>) -> Eventually<Result<(), String>>;

    fn service(&self) -> ServiceState;

    /// Closes the sockets that clients connect to, or opens them again, and waits until that is done. Why it is not, else.
    fn set_service(&self, state: ServiceState) -> Eventually<Result<(), String>>;

    /// Moves the memory watermark; an alarm that follows from it is in force when this returns.
    fn set_memory_limit(&self, bytes: u64);

    /// Moves the limit of free disk space; an alarm that follows from it is in force when this returns.
    fn set_disk_limit(&self, bytes: u64);
}
