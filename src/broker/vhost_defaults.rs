//! What a vhost gets when it is made: operator policies, limits and users, by patterns of its name.

use fancy_regex::Regex;
use serde_json::{Map, Value};

use crate::model::names::VhostName;
use crate::model::vhost::VhostLimits;

use super::auth::{Permission, User};
use super::metadata::Metadata;
use super::policy::{Policy, PolicyKind};

/// See the module's documentation. Those that are changed or removed later stay so.
#[derive(Clone, Debug, Default)]
pub struct VhostDefaults {
    policies: Vec<(Regex, Policy)>,
    limits: Vec<(Regex, Map<String, Value>)>,
    users: Vec<(Regex, User, Permission)>,
}

impl VhostDefaults {
    /// Adds an operator policy for vhosts of such names; `value` is what [`Policy::parse`] reads.
    ///
    /// # Errors
    /// What is wrong with the pattern or the policy.
    pub fn add_policy(&mut self, vhosts: &str, name: &str, value: &Value) -> Result<(), String> {
        let pattern = Regex::new(vhosts).map_err(|error| error.to_string())?;
        self.policies.push((pattern, Policy::parse(PolicyKind::Operator, name, value)?));
        Ok(())
    }

    /// Adds limits for vhosts of such names; of several that match, the first counts.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn add_limits(&mut self, vhosts: &str, limits: Map<String, Value>) -> Result<(), String> {
        let pattern = Regex::new(vhosts).map_err(|error| error.to_string())?;
        self.limits.push((pattern, limits));
        Ok(())
    }

    /// Adds a user for vhosts of such names, with a permission in each: made with the first of them, unless there is one of
    /// that name.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn add_user(&mut self, vhosts: &str, user: User, permission: Permission) -> Result<(), String> {
        let pattern = Regex::new(vhosts).map_err(|error| error.to_string())?;
        self.users.push((pattern, user, permission));
        Ok(())
    }

    /// Gives them to a vhost that was just made: it has no queues yet, so no shard has to hear of it.
    pub(super) fn apply(&self, metadata: &mut Metadata, vhost: &VhostName) {
        let is_for = |pattern: &Regex| pattern.is_match(vhost.as_str()).unwrap_or(false);
        if let Some((_, limits)) = self.limits.iter().find(|(pattern, _)| is_for(pattern)) {
            let value = Value::Object(limits.clone());
            metadata.set_parameter(Some(vhost), VhostLimits::COMPONENT, VhostLimits::NAME, value);
        }
        for (_, policy) in self.policies.iter().filter(|(pattern, _)| is_for(pattern)) {
            metadata.set_parameter(Some(vhost), PolicyKind::Operator.component(), &policy.name, policy.value());
        }
        for (_, user, permission) in self.users.iter().filter(|(pattern, ..)| is_for(pattern)) {
            // One that is there keeps what it logs in with.
            let mut user = User::clone(metadata.topology().user(&user.name).map_or(user, |known| known));
            user.permissions.insert(vhost.clone(), permission.clone());
            metadata.add_user(user);
        }
    }
}
