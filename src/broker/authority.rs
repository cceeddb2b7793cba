//! Who somebody is, and what decides what they may do: the broker's own users, a token, or a service that is asked.
//!
//! Sessions and the management API call `Broker::authenticate`. What it asks is set at the start by whoever can wait;
//! without that, the broker's own users are all there are. Nothing here waits or sleeps by itself.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::Broker;
use super::auth::{Access, PasswordHash, ResourceKind, User};
use super::described;
use super::login_attempts::Outcome;
use crate::model::ids::Timestamp;
use crate::model::names::{UserName, VhostName};
use crate::oauth2::{Action, Grant};

/// An answer that may take a while.
pub type Eventually<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What somebody presents.
#[derive(Clone)]
pub struct Credentials {
    /// Empty with a bearer token, which names the user itself.
    pub user: UserName,
    /// A password or a token.
    pub secret: Vec<u8>,
    pub peer: IpAddr,
}

impl fmt::Debug for Credentials {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// What somebody presents credentials for, by which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A connection, which may last: whoever knows is asked each time.
    Connection(&'static str),
    /// One of many requests with the same credentials: what was answered seconds ago will do.
    Request(&'static str),
}

/// Somebody who has logged in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// One of the broker's users, or, with another authority, one that exists only here: name and tags.
    pub user: Arc<User>,
    pub authority: Authority,
    /// When the credentials end, by the broker's clock.
    pub expires: Option<Timestamp>,
}

/// What decides what a user may do.
#[derive(Clone)]
pub enum Authority {
    /// The permissions of the broker's users.
    Internal,
    Token(Arc<Grant>),
    Remote(Arc<dyn Authorize>),
    /// The credentials have ended: nothing is allowed.
    Ended,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Internal => "Internal",
            Self::Token(_) => "Token",
            Self::Remote(_) => "Remote",
            Self::Ended => "Ended",
        })
    }
}

/// Something that one user may or may not do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    Vhost {
        vhost: VhostName,
        peer: IpAddr,
    },
    /// The default exchange is called `amq.default`.
    Resource {
        vhost: VhostName,
        kind: ResourceKind,
        name: Box<str>,
        access: Access,
    },
    /// A routing key of a topic exchange.
    Topic {
        vhost: VhostName,
        exchange: Box<str>,
        key: Box<str>,
        access: Access,
    },
}

/// A service that knows what one user may do.
pub trait Authorize: Send + Sync {
    /// The answer, if it was given a short time ago.
    fn known(&self, question: &Question) -> Option<bool>;

    /// Drops what it knows of the user, so that it is asked anew.
    fn forget(&self);

    /// Asks. None is no answer, in time; which allows nothing.
    fn ask(&self, question: Question) -> Eventually<Option<bool>>;

    /// Milliseconds for which an answer holds.
    fn lifetime_ms(&self) -> u64;
}

/// Finds out who presents credentials.
pub trait Authenticate: Send + Sync {
    /// The answer comes in bounded time.
    fn authenticate(
        &self,
        broker: &Arc<Broker>,
        credentials: Credentials,
        occasion: Occasion,
    ) -> Eventually<Result<Identity, AuthError>>;
}

/// Why there is no login: for the log, never for the client. It contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("{0}")]
    Refused(String),
    /// Somebody who would have to say gives no answer: the credentials may be right.
    #[error("{0}")]
    Unanswered(String),
}

impl Occasion {
    /// The name of the protocol, as logins are counted.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Connection(protocol) | Self::Request(protocol) => protocol,
        }
    }
}

impl From<&str> for AuthError {
    /// A refusal for this reason.
    fn from(reason: &str) -> Self {
        Self::Refused(reason.to_owned())
    }
}

impl Identity {
    /// A user of this broker.
    #[must_use]
    pub fn internal(user: Arc<User>) -> Self {
        Self { user, authority: Authority::Internal, expires: None }
    }

    /// Somebody the broker has no user for.
    #[must_use]
    pub fn outside(name: UserName, tags: Vec<String>, authority: Authority, expires: Option<Timestamp>) -> Self {
        Self { user: Arc::new(User::new(name, PasswordHash::none(), tags)), authority, expires }
    }

    /// Whether the user may work in the vhost; None if whoever has to say gives no answer.
    #[must_use]
    pub fn may_enter(&self, vhost: &VhostName, peer: IpAddr) -> Eventually<Option<bool>> {
        let known = match &self.authority {
            Authority::Internal => self.user.permissions.contains_key(vhost),
            Authority::Ended => false,
            Authority::Token(grant) => grant.allows_vhost(vhost.as_str()),
            Authority::Remote(service) => {
                let question = Question::Vhost { vhost: vhost.clone(), peer };
                match service.known(&question) {
                    Some(known) => known,
                    None => return service.ask(question),
                }
            }
        };
        Box::pin(std::future::ready(Some(known)))
    }
}

impl From<Access> for Action {
    fn from(access: Access) -> Self {
        match access {
            Access::Configure => Self::Configure,
            Access::Write => Self::Write,
            Access::Read => Self::Read,
        }
    }
}

impl Broker {
    /// Sets who is asked about logins with a password, once, before the first of them.
    pub fn set_authenticator(&self, authenticator: Arc<dyn Authenticate>) {
        let _ = self.authenticator.set(authenticator);
    }

    /// Whether logins with a password have to wait for somebody else's answer.
    pub(super) fn asks_others(&self) -> bool {
        self.authenticator.get().is_some()
    }

    /// Finds out who presents the credentials, and counts the attempt for the protocol. `now` is the present.
    #[must_use]
    pub fn authenticate(
        self: &Arc<Self>,
        occasion: Occasion,
        credentials: Credentials,
        now: Timestamp,
    ) -> Eventually<Result<Identity, AuthError>> {
        let protocol = occasion.protocol();
        let broker = Arc::clone(self);
        let Credentials { user, peer, .. } = credentials.clone();
        let answer: Eventually<_> = match self.authenticator.get() {
            Some(authenticator) => authenticator.authenticate(self, credentials, occasion),
            None => Box::pin(std::future::ready(self.authenticate_own(&credentials))),
        };
        Box::pin(async move {
            let answer = answer.await;
            let (name, outcome) = match &answer {
                Ok(identity) => (&identity.user.name, Outcome::Succeeded),
                Err(_) => (&user, Outcome::Failed),
            };
            broker.login_attempts.record(protocol, peer, name.as_str(), outcome, now);
            broker.announce_with(|| described::remote_authentication(outcome, name.as_str(), protocol, peer));
            answer
        })
    }

    /// Checks the password of one of the broker's users.
    pub fn authenticate_own(&self, credentials: &Credentials) -> Result<Identity, AuthError> {
        let user = self.topology.load().user(&credentials.user).cloned();
        let user = user.ok_or("no such user")?;
        user.check_login(&credentials.secret, credentials.peer)?;
        Ok(Identity::internal(user))
    }

    /// Whether a user of this name may come from there; the reason why not is for the log. It counts for those of other
    /// backends as well.
    pub fn check_origin(&self, name: &UserName, peer: IpAddr) -> Result<(), &'static str> {
        if let Some(own) = self.own_user(name) {
            return own.check_origin(peer);
        }
        let is_local = self.settings.loopback_users.contains(name);
        if is_local && !peer.to_canonical().is_loopback() {
            return Err("user can only connect via localhost");
        }
        Ok(())
    }

    /// The broker's user of this name.
    #[must_use]
    pub fn own_user(&self, name: &UserName) -> Option<Arc<User>> {
        self.topology.load().user(name).cloned()
    }
}
