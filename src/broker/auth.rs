//! Users, their passwords and what they may touch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fancy_regex::Regex;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::model::exception::Exception;
use crate::model::expression::PatternFault;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permission {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

#[derive(Clone, Default)]
struct Pattern {
    /// As it was given.
    text: Box<str>,
    matcher: Matcher,
}

#[derive(Clone, Default)]
enum Matcher {
    #[default]
    Nothing,
    /// `.*` and its like, which most users have.
    Everything,
    Regex(Arc<Regex>),
}

/// A permission pattern that is not a regular expression.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{pattern:?} is not a regular expression: {fault}")]
pub struct PatternError {
    pub pattern: String,
    pub fault: PatternFault,
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Self, PatternError> {
        let matcher = match pattern {
            "" | "^$" => Matcher::Nothing,
            ".*" | "^.*$" | "^.*" | ".*$" => Matcher::Everything,
            _ => Regex::new(pattern).map(|regex| Matcher::Regex(Arc::new(regex))).map_err(|error| PatternError {
                pattern: pattern.to_owned(),
                fault: PatternFault::of(pattern, &error),
            })?,
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

    /// The patterns as they were given: configure, write, read.
    #[must_use]
    pub fn patterns(&self) -> [&str; 3] {
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

/// How a password is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    Sha256,
    Sha512,
    /// Of installations from before 2015.
    Md5,
}

impl HashAlgorithm {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha512, Self::Md5];

    /// As definitions name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// What the durable form begins with: which kind of hash follows. Other kinds get other numbers.
    fn kind(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
            Self::Md5 => 3,
        }
    }

    fn digest(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => salted::<Sha256>(salt, password),
            Self::Sha512 => salted::<Sha512>(salt, password),
            Self::Md5 => salted::<Md5>(salt, password),
        }
    }
}

fn salted<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
    let mut hasher = D::new();
    hasher.update(salt);
    hasher.update(password);
    hasher.finalize().to_vec()
}

/// Bytes of salt in front of a hash.
const SALT: usize = 4;
/// No hash is longer.
const HASH_MAX: usize = 1024;

/// A salted hash of a password in RabbitMQ's layout: four bytes of salt, then the hash of salt and password. An empty one
/// lets nobody log in with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    algorithm: HashAlgorithm,
    bytes: Box<[u8]>,
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl PasswordHash {
    #[must_use]
    pub fn new(salt: [u8; SALT], password: &[u8]) -> Self {
        let algorithm = HashAlgorithm::Sha256;
        let bytes = [&salt[..], &algorithm.digest(&salt, password)].concat();
        Self { algorithm, bytes: bytes.into() }
    }

    /// A hash that was made elsewhere, as it is; none when it is too long to be one.
    #[must_use]
    pub fn imported(algorithm: HashAlgorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= HASH_MAX).then(|| Self { algorithm, bytes: bytes.into() })
    }

    /// Of a user who cannot log in with a password.
    #[must_use]
    pub fn none() -> Self {
        Self { algorithm: HashAlgorithm::Sha256, bytes: Box::default() }
    }

    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Salt and hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends the kind, the salt and the hash.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.algorithm.kind());
        out.extend_from_slice(&self.bytes);
    }

    /// Reads what `encode` wrote; the error is a kind that is not known.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Option<u8>> {
        let [kind, hash @ ..] = bytes else { return Err(None) };
        let known = HashAlgorithm::ALL.into_iter().find(|algorithm| algorithm.kind() == *kind);
        let algorithm = known.ok_or(Some(*kind))?;
        Self::imported(algorithm, hash).ok_or(None)
    }

    /// Compares in constant time. A blank password never matches.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        let Some((salt, stored)) = self.bytes.split_at_checked(SALT) else { return false };
        let computed = self.algorithm.digest(salt, password);
        !password.is_empty() && bool::from(computed.as_slice().ct_eq(stored))
    }
}

/// Patterns for routing keys of one topic exchange. `{username}` and `{vhost}` in them stand for the user's and the
/// vhost's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermission {
    write: Box<str>,
    read: Box<str>,
}

impl TopicPermission {
    pub fn parse(write: &str, read: &str) -> Result<Self, PatternError> {
        Pattern::parse(write)?;
        Pattern::parse(read)?;
        Ok(Self { write: write.into(), read: read.into() })
    }

    /// The patterns as they were given: write, read.
    #[must_use]
    pub fn patterns(&self) -> [&str; 2] {
        [&self.write, &self.read]
    }

    fn allows(&self, access: Access, key: &str, vhost: &VhostName, user: &UserName) -> bool {
        let pattern = if access == Access::Write { &self.write } else { &self.read };
        let expanded: Cow<'_, str> = if pattern.contains('{') {
            pattern.replace("{username}", user.as_str()).replace("{vhost}", vhost.as_str()).into()
        } else {
            (&**pattern).into()
        };
        Pattern::parse(&expanded).is_ok_and(|pattern| pattern.matches(key))
    }
}

/// The most that a user may have open at once; negative is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserLimits {
    pub max_connections: Option<i64>,
    pub max_channels: Option<i64>,
}

impl UserLimits {
    /// The limit that `name` means.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Option<i64>> {
        match name {
            "max-connections" => Some(&mut self.max_connections),
            "max-channels" => Some(&mut self.max_channels),
            _ => None,
        }
    }
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
    /// A topic exchange that is not in it has no patterns: all keys are allowed.
    pub topic_permissions: BTreeMap<(VhostName, ExchangeName), TopicPermission>,
    pub limits: UserLimits,
}

impl User {
    /// A user without permissions.
    #[must_use]
    pub fn new(name: UserName, password: PasswordHash, tags: Vec<String>) -> Self {
        Self {
            name,
            password,
            tags,
            loopback_only: false,
            permissions: BTreeMap::new(),
            topic_permissions: BTreeMap::new(),
            limits: UserLimits::default(),
        }
    }

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
        self.has_tag("impersonator")
    }

    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    /// Whether a routing key may be used with a topic exchange.
    #[must_use]
    pub(super) fn allows_topic(&self, access: Access, vhost: &VhostName, exchange: &ExchangeName, key: &str) -> bool {
        if self.topic_permissions.is_empty() {
            return true;
        }
        let permission = self.topic_permissions.get(&(vhost.clone(), exchange.clone()));
        permission.is_none_or(|permission| permission.allows(access, key, vhost, &self.name))
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
        assert_eq!(hash.as_bytes()[4..8], [0xA5, 0xB9, 0x24, 0xB3]);
        assert!(hash.matches(b"test12") && !hash.matches(b"test13"));
        assert!(!PasswordHash::new([0; 4], b"").matches(b""));
        assert!(!PasswordHash::none().matches(b"") && !PasswordHash::none().matches(b"x"));
    }

    #[test]
    fn hashes_of_other_algorithms_are_taken_as_they_are() {
        let salt = [1, 2, 3, 4];
        for algorithm in HashAlgorithm::ALL {
            assert_eq!(HashAlgorithm::from_name(algorithm.name()), Some(algorithm));
            let bytes = [&salt[..], &algorithm.digest(&salt, b"secret")].concat();
            let hash = PasswordHash::imported(algorithm, &bytes).unwrap();
            assert!(hash.matches(b"secret") && !hash.matches(b"Secret"));
            let mut encoded = Vec::new();
            hash.encode(&mut encoded);
            assert_eq!(PasswordHash::decode(&encoded), Ok(hash));
        }
        let known = 0xD42A_0F74_2FFC_1BE4_E1CC_0845_C242_9C97_u128;
        assert_eq!(HashAlgorithm::Md5.digest(b"salt", b"secret"), known.to_be_bytes());
        assert_eq!(PasswordHash::decode(&[9, 0]), Err(Some(9)));
    }

    #[test]
    fn topic_permissions_know_names() {
        let mut user = User::new("ann".into(), PasswordHash::none(), Vec::new());
        let (vhost, exchange): (VhostName, ExchangeName) = ("v".into(), "t".into());
        assert!(user.allows_topic(Access::Write, &vhost, &exchange, "x"));
        let permission = TopicPermission::parse("^{username}\\.{vhost}", "").unwrap();
        user.topic_permissions.insert((vhost.clone(), exchange.clone()), permission);
        assert!(user.allows_topic(Access::Write, &vhost, &exchange, "ann.v.1"));
        assert!(!user.allows_topic(Access::Write, &vhost, &exchange, "bob.v.1"));
        assert!(!user.allows_topic(Access::Read, &vhost, &exchange, "ann.v.1"));
        assert!(user.allows_topic(Access::Read, &vhost, &"other".into(), "x"));
    }
}
