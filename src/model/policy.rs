//! What policies did to a queue or an exchange.

use serde_json::{Map, Value};

/// The policies that apply to a queue or exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppliedPolicy {
    /// The name of the regular policy.
    pub policy: Option<String>,
    pub operator_policy: Option<String>,
    /// Both of them merged: what is in force, as far as arguments do not say otherwise.
    pub definition: Map<String, Value>,
}
