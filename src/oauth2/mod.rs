//! OAuth 2: what a JSON web token lets its bearer do.
//!
//! ```text
//!   token ──► Verifier::verify ──► Grant: user name, tags, scopes, expiry ──► allows, allows_vhost, allows_topic
//!                  ▲
//!   KeySets ───────┘ (of each issuer its own; swapped when keys are fetched anew)
//! ```
//!
//! Who logs in with a token asks the verifier; keys, and what is said of opaque tokens, are fetched elsewhere. Nothing here
//! waits or reads a clock: the time is an argument. No error and no debug output contains a token or a key.

mod claims;
mod grant;
mod keys;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jsonwebtoken::Validation;
use jsonwebtoken::dangerous::insecure_decode_claims;
use serde_json::{Map, Value};

use crate::model::ids::Timestamp;
use crate::model::names::UserName;

pub use grant::{Action, Grant};
pub use jsonwebtoken::Algorithm;
pub use keys::{KeyError, KeyOrigin, KeySet};

/// Longer tokens are refused unread.
pub const TOKEN_MAX: usize = 256 * 1024;
/// How far the issuer's clock may be ahead, for `nbf`. There is none for `exp`: at that time the connection closes.
const LEEWAY_S: u64 = 30;
/// The longest user name: that of the property user-id.
const NAME_MAX: usize = 255;

/// What tokens are held to.
#[derive(Clone, Debug)]
pub struct VerifierSettings {
    /// At least one. A token is for the one that its audience names.
    pub resource_servers: Vec<ResourceServer>,
    /// Issuers whose tokens are checked with their own keys alone; the tokens of others, with the shared ones.
    pub separate_issuers: Vec<String>,
    /// The signatures that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// The key of tokens that name none.
    pub default_key: Option<String>,
}

/// The broker, or a part of its users, as a resource that tokens are issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceServer {
    pub id: String,
    /// Who may have issued a token for it. Empty: anybody without keys of their own, if the signature is right.
    pub issuers: Vec<String>,
    /// The `type` of rich authorization requests (RFC 9396) that speak of it; empty: none do.
    pub kind: String,
    /// What its scopes begin with; the rest is not looked at.
    pub scope_prefix: String,
    /// Paths of further claims with scopes: `roles`, `realm_access.roles`.
    pub additional_scopes_keys: Vec<String>,
    /// Claims for the user's name; the first that is there counts.
    pub username_claims: Vec<String>,
    pub audience: Audience,
    /// Scopes, or roles, that stand for others.
    pub scope_aliases: BTreeMap<String, Vec<String>>,
}

/// Whether a token must name its resource server in `aud`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Required,
    Ignored,
}

impl ResourceServer {
    /// With RabbitMQ's defaults: the prefix `<id>.`, and a user name from `sub` or `client_id`.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            issuers: Vec::new(),
            kind: String::new(),
            scope_prefix: format!("{id}."),
            additional_scopes_keys: Vec::new(),
            username_claims: vec!["sub".to_owned(), "client_id".to_owned()],
            audience: Audience::Required,
            scope_aliases: BTreeMap::new(),
        }
    }
}

/// Whose keys a token is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// All issuers that have no keys of their own.
    Shared,
    /// One issuer, as it is configured.
    Issuer(Arc<str>),
}

impl KeyOwner {
    /// The issuer, if the keys are those of one.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        match self {
            Self::Shared => None,
            Self::Issuer(issuer) => Some(issuer),
        }
    }
}

impl fmt::Display for KeyOwner {
    /// What follows a problem with a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.issuer().map_or(Ok(()), |issuer| write!(f, " for its issuer {issuer:?}"))
    }
}

/// Why a token is refused. For the log: the client hears nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it is not a JSON web token: {0}")]
    Malformed(&'static str),
    #[error("its signature algorithm is not accepted")]
    Algorithm,
    #[error("its key {0:?} is unknown{1}")]
    UnknownKey(String, KeyOwner),
    #[error("it names no key, and there is no default{0}")]
    NoKey(KeyOwner),
    #[error("its signature is wrong{0}")]
    Signature(KeyOwner),
    #[error("it is not active")]
    Inactive,
    #[error("the introspection endpoint does not say whether it is active")]
    NoVerdict,
    #[error("it expired at {0}")]
    Expired(u64),
    #[error("it has no time of expiry")]
    NoExpiry,
    #[error("it is not valid before {0}")]
    NotYetValid(u64),
    #[error("its issuer is not accepted")]
    Issuer,
    #[error("it is not for this resource server")]
    Audience,
    #[error("it is for several resource servers of this broker")]
    Ambiguous,
    #[error("no claim has the name of a user")]
    NoUser,
    #[error("it has more than {} scopes", claims::SCOPES_MAX)]
    TooManyScopes,
}

/// Checks tokens against the keys of the moment. Shared by all connections.
#[derive(Debug)]
pub struct Verifier {
    settings: VerifierSettings,
    shared: ArcSwap<KeySet>,
    /// The keys of issuers that have their own, by `plain` name.
    separate: BTreeMap<String, Separate>,
}

/// An issuer with keys of its own.
#[derive(Debug)]
struct Separate {
    owner: KeyOwner,
    keys: ArcSwap<KeySet>,
}

impl Verifier {
    /// `shared` are the first keys of issuers without their own; the others have none until `set_keys`.
    #[must_use]
    pub fn new(settings: VerifierSettings, shared: KeySet) -> Self {
        let separate = |issuer: &String| {
            let owner = KeyOwner::Issuer(issuer.as_str().into());
            (plain(issuer).to_owned(), Separate { owner, keys: ArcSwap::default() })
        };
        let separate = settings.separate_issuers.iter().map(separate).collect();
        Self { settings, shared: ArcSwap::from_pointee(shared), separate }
    }

    /// Replaces all keys of the owner: what was signed with others is refused from here on. An issuer that has no keys of
    /// its own is passed over.
    pub fn set_keys(&self, owner: &KeyOwner, keys: KeySet) {
        if let Some(place) = self.place(owner) {
            place.store(Arc::new(keys));
        }
    }

    /// The keys in force.
    #[must_use]
    pub fn keys(&self, owner: &KeyOwner) -> Arc<KeySet> {
        self.place(owner).map(ArcSwap::load_full).unwrap_or_default()
    }

    fn place(&self, owner: &KeyOwner) -> Option<&ArcSwap<KeySet>> {
        match owner {
            KeyOwner::Shared => Some(&self.shared),
            KeyOwner::Issuer(issuer) => self.separate.get(plain(issuer)).map(|separate| &separate.keys),
        }
    }

    /// What the token allows. With `UnknownKey` or `NoKey` it may be worth fetching its owner's keys and asking again.
    pub fn verify(&self, token: &[u8], now: Timestamp) -> Result<Grant, TokenError> {
        self.grant(&self.authentic(token)?, now)
    }

    /// What an opaque token allows, by what the introspection endpoint answers (RFC 7662).
    pub fn introspected(&self, answer: &[u8], now: Timestamp) -> Result<Grant, TokenError> {
        let mut claims: Map<String, Value> = serde_json::from_slice(answer).map_err(|_| TokenError::NoVerdict)?;
        match claims.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Err(TokenError::Inactive),
            _ => return Err(TokenError::NoVerdict),
        }
        // What a JSON web token has as `sub` may be called so there.
        if claims.get("sub").is_none_or(Value::is_null)
            && let Some(name) = claims.get("username").cloned()
        {
            claims.insert("sub".to_owned(), name);
        }
        self.grant(&claims, now)
    }

    /// What claims allow whose origin was checked.
    fn grant(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Grant, TokenError> {
        let expires = self.check_time(claims, now.0 / 1000)?;
        let server = self.resource_server(claims)?;
        if !self.is_accepted(issuer(claims), server) {
            return Err(TokenError::Issuer);
        }
        let user = user_name(server, claims).ok_or(TokenError::NoUser)?;
        let scopes = claims::scopes(server, claims)?;
        Ok(Grant::new(user, Timestamp(expires.saturating_mul(1000)), &scopes, claims))
    }

    /// The claims, once the signature is right.
    fn authentic(&self, token: &[u8]) -> Result<Map<String, Value>, TokenError> {
        if token.len() > TOKEN_MAX {
            return Err(TokenError::Malformed("it is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed("its header"))?;
        // What is critical is to be understood, and nothing of it is.
        if header.crit.is_some() {
            return Err(TokenError::Malformed("it has critical extensions"));
        }
        if !self.settings.algorithms.contains(&header.alg) {
            return Err(TokenError::Algorithm);
        }
        let owner = self.owner(token)?;
        let keys = self.keys(&owner);
        let key = keys.find(header.kid.as_deref(), self.settings.default_key.as_deref(), &owner)?;
        if !key.algorithms.contains(&header.alg) {
            return Err(TokenError::Algorithm);
        }
        let mut validation = Validation::new(header.alg);
        // The library would read the clock; claims are checked here.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key.decoding, &validation);
        decoded.map(|token| token.claims).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_) => TokenError::Malformed("its claims"),
            _ => TokenError::Signature(owner),
        })
    }

    /// Whose keys the token is to be checked with, by what it says of itself. That is not to be believed before they have
    /// been: nothing but the choice of keys comes of it.
    fn owner(&self, token: &[u8]) -> Result<KeyOwner, TokenError> {
        let servers = &self.settings.resource_servers;
        if self.separate.is_empty() && servers.iter().all(|server| server.issuers.is_empty()) {
            return Ok(KeyOwner::Shared);
        }
        let claims: Map<String, Value> =
            insecure_decode_claims(token).map_err(|_| TokenError::Malformed("its claims"))?;
        let issuer = issuer(&claims);
        if !servers.iter().any(|server| self.is_accepted(issuer, server)) {
            return Err(TokenError::Issuer);
        }
        let separate = issuer.and_then(|issuer| self.separate.get(issuer));
        Ok(separate.map_or(KeyOwner::Shared, |separate| separate.owner.clone()))
    }

    /// The time of expiry, in seconds since the epoch.
    fn check_time(&self, claims: &Map<String, Value>, now_s: u64) -> Result<u64, TokenError> {
        let expires = claims.get("exp").and_then(seconds).ok_or(TokenError::NoExpiry)?;
        if expires <= now_s {
            return Err(TokenError::Expired(expires));
        }
        match claims.get("nbf") {
            None => Ok(expires),
            Some(value) => match seconds(value) {
                Some(start) if start <= now_s.saturating_add(LEEWAY_S) => Ok(expires),
                Some(start) => Err(TokenError::NotYetValid(start)),
                None => Err(TokenError::Malformed("its nbf is no time")),
            },
        }
    }

    /// Whether the issuer, by its `plain` name, may issue tokens for the resource server.
    fn is_accepted(&self, issuer: Option<&str>, server: &ResourceServer) -> bool {
        match issuer {
            // Who was named for one resource server is trusted with no other.
            Some(issuer) if server.issuers.is_empty() => !self.separate.contains_key(issuer),
            Some(issuer) => server.issuers.iter().any(|accepted| plain(accepted) == issuer),
            None => server.issuers.is_empty(),
        }
    }

    /// The resource server that the audience names, or the only one that needs no naming.
    fn resource_server(&self, claims: &Map<String, Value>) -> Result<&ResourceServer, TokenError> {
        let audience = match claims.get("aud") {
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let servers = &self.settings.resource_servers;
        let mut named = servers.iter().filter(|server| audience.contains(&server.id.as_str()));
        match (named.next(), named.next()) {
            (Some(server), None) => return Ok(server),
            (Some(_), Some(_)) => return Err(TokenError::Ambiguous),
            (None, _) => {}
        }
        let mut open = servers.iter().filter(|server| server.audience == Audience::Ignored);
        match (open.next(), open.next()) {
            (Some(server), None) => Ok(server),
            _ => Err(TokenError::Audience),
        }
    }
}

/// Whether a token is a JSON web token by its form: three parts of base64url. Any other is opaque.
#[must_use]
pub fn is_json_web_token(token: &[u8]) -> bool {
    let is_part = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    token.split(|byte| *byte == b'.').count() == 3 && token.split(|byte| *byte == b'.').all(is_part)
}

/// The name of an issuer without slashes at its end, which make no difference.
fn plain(issuer: &str) -> &str {
    issuer.trim_end_matches('/')
}

/// The `plain` name of the issuer; none where there is none, or what is there is no text.
fn issuer(claims: &Map<String, Value>) -> Option<&str> {
    claims.get("iss").and_then(Value::as_str).map(plain)
}

fn user_name(server: &ResourceServer, claims: &Map<String, Value>) -> Option<UserName> {
    let mut names = server.username_claims.iter().filter_map(|claim| claims.get(claim).and_then(Value::as_str));
    let name = names.find(|name| !name.is_empty())?;
    (name.len() <= NAME_MAX).then(|| UserName::new(name))
}

/// A `NumericDate`: whole seconds, or a fraction that is dropped.
fn seconds(value: &Value) -> Option<u64> {
    /// Far beyond any date, and far below what a float holds exactly.
    const LATEST: f64 = 1e15;
    let number = value.as_f64().filter(|number| (0.0..LATEST).contains(number))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    Some(number as u64)
}
