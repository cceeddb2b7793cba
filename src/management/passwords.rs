//! What passwords that are set through the API must be like (RabbitMQ's credential validators).

use fancy_regex::Regex;

use super::answer::Failure;

/// See the module's documentation. Hashes cannot be looked into, and are taken as they are.
#[derive(Clone, Debug, Default)]
pub struct PasswordRules {
    /// In bytes; 0 is no rule.
    pub min_length: usize,
    /// What a part of the password must match.
    pub pattern: Option<Regex>,
}

impl PasswordRules {
    pub(crate) fn check(&self, password: &str) -> Result<(), Failure> {
        if password.len() < self.min_length {
            return Err(Failure::bad_request(format!("minimum required password length is {}", self.min_length)));
        }
        // A pattern that gives up on a password has not matched it.
        if self.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(password).unwrap_or(false)) {
            return Err(Failure::bad_request("provided password does not match the validator regular expression"));
        }
        Ok(())
    }
}
