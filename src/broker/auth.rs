//! Users, their passwords and what they may touch.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fancy_regex::Regex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::model::exception::Exception;
use crate::model::names::{ExchangeName, UserName, VhostName};

/// What an operation does to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    Configure,
    Write,
    Read,
}

impl Access {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// The kinds of resources permissions speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    Exchange,
    Queue,
}

impl ResourceKind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Queue => "queue",
        }
    }
}

/// Patterns a user has in a vhost: unanchored; the empty one matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

#[derive(Clone)]
struct Pattern {
    /// As it was given.
    text: Box<str>,
    matcher: Matcher,
}

#[derive(Clone)]
enum Matcher {
    Nothing,
    /// `.*` and its like, which most users have.
    Everything,
    Regex(Arc<Regex>),
}

/// A permission pattern that is not a regular expression.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{pattern:?} is not a regular expression: {reason}")]
pub struct PatternError {
    pub pattern: String,
    pub reason: String,
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Self, PatternError> {
        let matcher = match pattern {
            "" | "^$" => Matcher::Nothing,
            ".*" | "^.*$" | "^.*" | ".*$" => Matcher::Everything,
            _ => Regex::new(pattern)
                .map(|regex| Matcher::Regex(Arc::new(regex)))
                .map_err(|error| PatternError { pattern: pattern.to_owned(), reason: error.to_string() })?,
        };
        Ok(Self { text: pattern.into(), matcher })
    }

    /// A pattern that fails to run (it backtracks too much) denies.
    fn matches(&self, name: &str) -> bool {
        match &self.matcher {
            Matcher::Nothing => false,
            Matcher::Everything => true,
            Matcher::Regex(regex) => regex.is_match(name).unwrap_or(false),
        }
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Permission {
    pub fn parse(configure: &str, write: &str, read: &str) -> Result<Self, PatternError> {
        Ok(Self { configure: Pattern::parse(configure)?, write: Pattern::parse(write)?, read: Pattern::parse(read)? })
    }

    /// Allows nothing.
    #[must_use]
    pub fn nothing() -> Self {
        let nothing = || Pattern { text: "".into(), matcher: Matcher::Nothing };
        Self { configure: nothing(), write: nothing(), read: nothing() }
    }

    /// The patterns as they were given: configure, write, read.
    pub(super) fn patterns(&self) -> [&str; 3] {
        [&self.configure.text, &self.write.text, &self.read.text]
    }

    /// Whether the resource may be accessed so; the default exchange is matched as `amq.default`.
    #[must_use]
    pub(super) fn allows(&self, access: Access, name: &str) -> bool {
        let pattern = match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        };
        pattern.matches(if name.is_empty() { "amq.default" } else { name })
    }
}

/// The 403 of a missing permission.
#[must_use]
pub(super) fn refusal(access: Access, kind: ResourceKind, name: &str, vhost: &VhostName, user: &UserName) -> Exception {
    let name = if name.is_empty() { "amq.default" } else { name };
    Exception::access_refused(format!(
        "{} access to {} '{name}' in vhost '{vhost}' refused for user '{user}'",
        access.name(),
        kind.name()
    ))
}

/// The 403 of a missing topic permission.
#[must_use]
pub(super) fn topic_refusal(
    access: Access,
    key: &str,
    exchange: &ExchangeName,
    vhost: &VhostName,
    user: &UserName,
) -> Exception {
    Exception::access_refused(format!(
        "{} access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'",
        access.name()
    ))
}

/// A salted SHA-256 hash of a password, in RabbitMQ's layout: four bytes of salt, then the hash of salt and password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash([u8; 36]);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    /// What the durable form begins with: which kind of hash follows. Other kinds get other numbers.
    pub(super) const KIND: u8 = 1;

    /// Appends the kind, the salt and the hash.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(Self::KIND);
        out.extend_from_slice(&self.0);
    }

    /// Reads what `encode` wrote; none when it is something else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let [Self::KIND, hash @ ..] = bytes else { return None };
        hash.try_into().ok().map(Self)
    }

    #[must_use]
    pub fn new(salt: [u8; 4], password: &[u8]) -> Self {
        let mut hash = [0; 36];
        hash[..4].copy_from_slice(&salt);
        hash[4..].copy_from_slice(&digest(salt, password));
        Self(hash)
    }

    /// Compares in constant time. A blank password never matches.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        let [s0, s1, s2, s3, stored @ ..] = &self.0;
        let computed = digest([*s0, *s1, *s2, *s3], password);
        !password.is_empty() && bool::from(computed.ct_eq(stored))
    }
}

fn digest(salt: [u8; 4], password: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(salt);
    hasher.update(password);
    hasher.finalize().into()
}

/// A user as defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: UserName,
    pub password: PasswordHash,
    pub tags: Vec<String>,
    /// May only log in from this host.
    pub loopback_only: bool,
    pub permissions: BTreeMap<VhostName, Permission>,
}

impl User {
    /// Whether this user may log in with the password from there; the error is for the log only.
    pub fn check_login(&self, password: &[u8], peer: IpAddr) -> Result<(), &'static str> {
        if !self.password.matches(password) {
            return Err("invalid credentials");
        }
        self.check_origin(peer)
    }

    pub fn check_origin(&self, peer: IpAddr) -> Result<(), &'static str> {
        if self.loopback_only && !peer.to_canonical().is_loopback() {
            return Err("user can only connect via localhost");
        }
        Ok(())
    }

    /// May publish with any user-id.
    #[must_use]
    pub fn is_impersonator(&self) -> bool {
        self.tags.iter().any(|tag| tag == "impersonator")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_unanchored_and_empty_denies() {
        let permission = Permission::parse("^orders\\.", "", "pay|^(?!amq\\.)").unwrap();
        assert!(permission.allows(Access::Configure, "orders.new"));
        assert!(!permission.allows(Access::Configure, "my.orders.new"));
        assert!(!permission.allows(Access::Write, "orders.new"));
        assert!(permission.allows(Access::Read, "q") && !permission.allows(Access::Read, "amq.topic"));
        assert!(Permission::parse("(", "", "").is_err());
        let default_only = Permission::parse("", "^amq\\.default$", "").unwrap();
        assert!(default_only.allows(Access::Write, ""));
    }

    #[test]
    fn the_hash_is_rabbitmqs() {
        let hash = PasswordHash::new([0x90, 0x8D, 0xC6, 0x0A], b"test12");
        assert_eq!(hash.0[4..8], [0xA5, 0xB9, 0x24, 0xB3]);
        assert!(hash.matches(b"test12") && !hash.matches(b"test13"));
        assert!(!PasswordHash::new([0; 4], b"").matches(b""));
    }
}
