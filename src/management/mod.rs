//! The management API: RabbitMQ's HTTP interface for operators and their tools.
//!
//! ```text
//! request ── routes ──► Guard ──► endpoint ──► broker: its topology, statistics, administration, or a session
//!                                         ◄── Answer or Failure
//! ```
//!
//! It reads what owners publish and asks for nothing that would make a queue wait, but for lists of consumers. It never
//! spawns, sleeps or listens: the server does.

mod answer;
mod call;
mod cors;
mod definitions;
mod endpoints;
mod fields;
pub mod history;
mod identity;
mod listing;
mod memory;
mod node;
mod openapi;
mod operation;
mod passwords;
pub mod prometheus;
mod rates;
mod routes;
mod sampler;

use std::sync::Arc;

use crate::broker::Broker;
use crate::model::ids::Timestamp;

pub use cors::Browsers;
pub use definitions::{Report, check_text, import_text};
pub use identity::RequestOrigin;
pub use node::{Certificate, Listener, Node, NodeFacts, Reloaded, ServiceState};
pub use passwords::PasswordRules;
pub use routes::{Scope, serve};
pub use sampler::Sampler;

use history::History;

/// What the API is made with; from the configuration.
#[derive(Clone, Debug)]
pub struct ManagementSettings {
    /// What clients take the broker for.
    pub product: String,
    /// RabbitMQ's version that clients take it for.
    pub version: String,
    /// The name of the cluster, unless a global parameter says otherwise.
    pub cluster_name: String,
    pub node_name: String,
    /// Bytes that a request's body may have.
    pub body_max: usize,
    /// Queues' types that are made when a declaration names none.
    pub default_queue_type: &'static str,
    /// Milliseconds after which an unacknowledged delivery closes its channel.
    pub consumer_timeout_ms: Option<u64>,
    pub passwords: PasswordRules,
    /// Whether `/metrics` has a series for each queue, channel and so on.
    pub metrics_per_object: bool,
    pub browsers: Browsers,
}

/// See the module's documentation.
pub struct Management {
    pub broker: Arc<Broker>,
    pub settings: ManagementSettings,
    pub node: Arc<dyn Node>,
    pub history: Arc<History>,
    /// What scraping itself has cost.
    pub scrapes: prometheus::Scrapes,
}

/// Metrics, on the API's port.
async fn metrics(call: call::Call) -> Result<answer::Answer, answer::Failure> {
    prometheus::answer(&call)
}

impl Management {
    /// Now, in milliseconds since the epoch.
    fn now(&self) -> Timestamp {
        self.node.now()
    }

    /// The cluster's name.
    fn cluster_name(&self) -> String {
        let topology = self.broker.topology();
        let set = topology.global("cluster_name").and_then(|value| value.as_str().map(str::to_owned));
        set.unwrap_or_else(|| self.settings.cluster_name.clone())
    }
}
