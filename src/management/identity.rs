//! Who asks, and what that lets them see and do: RabbitMQ's user tags.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::broker::{Topology, User};
use crate::model::names::{UserName, VhostName};
use crate::model::statistics::ChurnNumber;

use super::Management;
use super::answer::Failure;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The Unix socket in the data directory: whoever can open it may do everything.
    LocalSocket,
    Network(IpAddr),
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// Nobody in particular.
    Anonymous,
    /// Whoever may open the Unix socket.
    LocalAdministrator,
    User(Arc<User>),
}

/// What an endpoint asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Nothing, not even a login.
    Nobody,
    /// Any of the management tags.
    Management,
    /// The same, and permissions in the vhost that the path names at this place.
    Vhost(usize),
    /// As `Vhost`, but who may monitor sees every vhost.
    VisibleVhost(usize),
    Monitoring,
    /// A policymaker, with permissions in the vhost that the path names at this place, if any.
    Policymaker(Option<usize>),
    Administrator,
    /// A user, at this place of the path, or somebody who may monitor.
    Oneself(usize),
}

const NOT_THIS_OBJECT: &str = "User not authorised to access object";

impl Identity {
    /// The user's name.
    #[must_use]
    pub(crate) fn user_name(&self) -> UserName {
        match self {
            Self::User(user) => user.name.clone(),
            Self::Anonymous | Self::LocalAdministrator => UserName::new("none"),
        }
    }

    /// As whom events name the caller.
    #[must_use]
    pub(crate) fn acting_user(&self) -> UserName {
        match self {
            Self::LocalAdministrator => UserName::new("rmq-cli"),
            Self::User(_) | Self::Anonymous => self.user_name(),
        }
    }

    /// Tags, as the user has them.
    #[must_use]
    pub(crate) fn tags(&self) -> Vec<String> {
        match self {
            Self::User(user) => user.tags.clone(),
            Self::LocalAdministrator => vec!["administrator".to_owned()],
            Self::Anonymous => Vec::new(),
        }
    }

    #[must_use]
    pub(crate) fn is_administrator(&self) -> bool {
        self.has_any(&["administrator"])
    }

    #[must_use]
    pub(crate) fn may_monitor(&self) -> bool {
        self.has_any(&["administrator", "monitoring"])
    }

    #[must_use]
    pub(crate) fn may_set_policies(&self) -> bool {
        self.has_any(&["administrator", "policymaker"])
    }

    fn may_manage(&self) -> bool {
        self.has_any(&["administrator", "monitoring", "policymaker", "management"])
    }

    /// Whether the caller has permissions in the vhost.
    #[must_use]
    pub(crate) fn has_vhost(&self, vhost: &VhostName) -> bool {
        match self {
            Self::LocalAdministrator => true,
            Self::User(user) => user.permissions.contains_key(vhost),
            Self::Anonymous => false,
        }
    }

    /// Whether something that belongs to this user may be looked at.
    #[must_use]
    pub(crate) fn may_see(&self, owner: Option<&UserName>) -> bool {
        self.may_monitor() || matches!(self, Self::User(user) if owner == Some(&user.name))
    }

    fn has_any(&self, tags: &[&str]) -> bool {
        match self {
            Self::LocalAdministrator => true,
            Self::User(user) => tags.iter().any(|tag| user.has_tag(tag)),
            Self::Anonymous => false,
        }
    }
}

impl Guard {
    /// Lets a caller through, or says why not.
    pub(crate) fn check(self, identity: &Identity, names: &[String], topology: &Topology) -> Result<(), Failure> {
        if self == Self::Nobody {
            return Ok(());
        }
        if !identity.may_manage() {
            return Err(Failure::not_authorised("Not management user"));
        }
        let vhost = |at: usize| VhostName::new(names.get(at).map_or("", String::as_str));
        match self {
            Self::Nobody | Self::Management => Ok(()),
            Self::Vhost(at) => in_vhost(identity, &vhost(at), topology),
            Self::VisibleVhost(_) if identity.may_monitor() => Ok(()),
            Self::VisibleVhost(at) => in_vhost(identity, &vhost(at), topology),
            Self::Monitoring if identity.may_monitor() => Ok(()),
            Self::Monitoring => Err(Failure::not_authorised("Not monitor user")),
            Self::Policymaker(at) if identity.may_set_policies() => match at {
                Some(at) => in_vhost(identity, &vhost(at), topology),
                None => Ok(()),
            },
            Self::Policymaker(_) => Err(Failure::not_authorised(NOT_THIS_OBJECT)),
            Self::Administrator if identity.is_administrator() => Ok(()),
            Self::Administrator => Err(Failure::not_authorised("Not administrator user")),
            Self::Oneself(at) => {
                let owner = UserName::new(names.get(at).map_or("", String::as_str));
                if identity.may_see(Some(&owner)) { Ok(()) } else { Err(Failure::not_authorised(NOT_THIS_OBJECT)) }
            }
        }
    }
}

/// A vhost that is not the caller's looks like one that does not exist. What does not exist the endpoint finds out.
fn in_vhost(identity: &Identity, vhost: &VhostName, topology: &Topology) -> Result<(), Failure> {
    if topology.vhost(vhost).is_none() || identity.has_vhost(vhost) {
        return Ok(());
    }
    Err(Failure::missing("Not Found"))
}

/// 401 unless the caller may look at what belongs to this user.
pub(crate) fn check_owner(identity: &Identity, owner: Option<&UserName>) -> Result<(), Failure> {
    if identity.may_see(owner) { Ok(()) } else { Err(Failure::not_authorised(NOT_THIS_OBJECT)) }
}

/// A name and a password.
pub(super) struct Credentials {
    pub(super) user: String,
    pub(super) password: Vec<u8>,
}

/// The credentials of HTTP Basic, or the token of `/login`, which is the same.
fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Failure> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let header = header.to_str().map_err(|_| Failure::wrong_credentials())?;
    let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Failure::wrong_credentials());
    }
    let decoded = STANDARD.decode(value.trim()).map_err(|_| Failure::wrong_credentials())?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(Failure::wrong_credentials)?;
    let user = String::from_utf8(decoded[..colon].to_vec()).map_err(|_| Failure::wrong_credentials())?;
    Ok(Some(Credentials { user, password: decoded[colon + 1..].to_vec() }))
}

impl Management {
    /// Who asks.
    pub(super) fn identify(
        &self,
        headers: &HeaderMap,
        origin: Origin,
        topology: &Topology,
    ) -> Result<Identity, Failure> {
        match (credentials(headers)?, origin) {
            (Some(credentials), Origin::Network(peer)) => self.log_in(&credentials, Some(peer), topology),
            (Some(credentials), Origin::LocalSocket) => self.log_in(&credentials, None, topology),
            (None, Origin::LocalSocket) => Ok(Identity::LocalAdministrator),
            (None, Origin::Network(_)) => Err(Failure::no_credentials()),
        }
    }

    /// Checks a name and a password; without a peer, the caller is on this host.
    pub(super) fn log_in(
        &self,
        credentials: &Credentials,
        peer: Option<IpAddr>,
        topology: &Topology,
    ) -> Result<Identity, Failure> {
        let user = topology.user(&UserName::new(&credentials.user));
        let outcome = match (user, peer) {
            (Some(user), Some(peer)) if user.password.matches(&credentials.password) => user
                .check_origin(peer)
                .map(|()| user)
                .map_err(|_| Failure::not_authorised("User can only log in via localhost")),
            (Some(user), None) if user.password.matches(&credentials.password) => Ok(user),
            _ => Err(Failure::wrong_credentials()),
        };
        let churn = &self.broker.registry.churn;
        churn.add_shared(ChurnNumber::HttpAuthAttempts, 1);
        let counted = if outcome.is_ok() { ChurnNumber::HttpAuthSucceeded } else { ChurnNumber::HttpAuthFailed };
        churn.add_shared(counted, 1);
        if outcome.is_err() {
            tracing::warn!(user = credentials.user, peer = ?peer, "HTTP login refused");
        }
        outcome.map(|user| Identity::User(Arc::clone(user)))
    }
}
