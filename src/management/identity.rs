//! Who asks, and what that lets them see and do: RabbitMQ's user tags.

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::broker::{self, AuthError, Authority, Credentials, Occasion, Topology};
use crate::model::names::{UserName, VhostName};

use super::Management;
use super::answer::Failure;

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOrigin {
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
    User(Member),
}

/// Somebody who has logged in.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) identity: broker::Identity,
    /// The vhosts that may be entered, where that does not follow from the user's permissions.
    vhosts: Option<BTreeSet<VhostName>>,
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
            Self::User(member) => member.identity.user.name.clone(),
            Self::Anonymous | Self::LocalAdministrator => UserName::new("none"),
        }
    }

    /// Whether the broker's own users, or its operator, decide what the caller may do: not where a token does, or a service.
    #[must_use]
    pub(crate) fn is_internal(&self) -> bool {
        match self {
            Self::User(member) => matches!(member.identity.authority, Authority::Internal),
            Self::Anonymous | Self::LocalAdministrator => true,
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
            Self::User(member) => member.identity.user.tags.clone(),
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
            Self::User(Member { vhosts: Some(vhosts), .. }) => vhosts.contains(vhost),
            Self::User(member) => member.identity.user.permissions.contains_key(vhost),
            Self::Anonymous => false,
        }
    }

    /// Whether something that belongs to this user may be looked at.
    #[must_use]
    pub(crate) fn may_see(&self, owner: Option<&UserName>) -> bool {
        self.may_monitor() || matches!(self, Self::User(member) if owner == Some(&member.identity.user.name))
    }

    fn has_any(&self, tags: &[&str]) -> bool {
        match self {
            Self::LocalAdministrator => true,
            Self::User(member) => tags.iter().any(|tag| member.identity.user.has_tag(tag)),
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
            Self::Administrator => Err(not_administrator()),
            Self::Oneself(at) => {
                let owner = UserName::new(names.get(at).map_or("", String::as_str));
                if identity.may_see(Some(&owner)) { Ok(()) } else { Err(Failure::not_authorised(NOT_THIS_OBJECT)) }
            }
        }
    }
}

/// 401 of what administrators alone may do.
pub(crate) fn not_administrator() -> Failure {
    Failure::not_authorised("Not administrator user")
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

/// What HTTP Basic, or the token of `/login`, which is the same, or a bearer's token say.
fn credentials(headers: &HeaderMap, peer: IpAddr) -> Result<Option<Credentials>, Failure> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let header = header.to_str().map_err(|_| Failure::wrong_credentials())?;
    let (scheme, value) = header.split_once(' ').unwrap_or((header, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        let secret = value.trim().as_bytes().to_vec();
        return Ok(Some(Credentials { user: UserName::new(""), secret, peer }));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Failure::wrong_credentials());
    }
    let decoded = STANDARD.decode(value.trim()).map_err(|_| Failure::wrong_credentials())?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(Failure::wrong_credentials)?;
    let user = std::str::from_utf8(&decoded[..colon]).map_err(|_| Failure::wrong_credentials())?;
    Ok(Some(Credentials { user: UserName::new(user), secret: decoded[colon + 1..].to_vec(), peer }))
}

/// The longest wait for whoever fails again and again, in milliseconds: HTTP connections are few.
const PAUSE_MAX_MS: u64 = 2_000;

impl RequestOrigin {
    fn address(self) -> IpAddr {
        match self {
            Self::LocalSocket => IpAddr::from([127, 0, 0, 1]),
            Self::Network(peer) => peer,
        }
    }
}

impl Management {
    /// Who asks.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        origin: RequestOrigin,
        topology: &Topology,
    ) -> Result<Identity, Failure> {
        match (credentials(headers, origin.address())?, origin) {
            (Some(credentials), _) => self.log_in(credentials, topology).await,
            (None, RequestOrigin::LocalSocket) => Ok(Identity::LocalAdministrator),
            (None, RequestOrigin::Network(_)) => Err(Failure::no_credentials()),
        }
    }

    /// Checks credentials with whoever decides about them.
    pub(super) async fn log_in(&self, credentials: Credentials, topology: &Topology) -> Result<Identity, Failure> {
        let (name, peer) = (credentials.user.clone(), credentials.peer);
        let identity = match self.broker.authenticate(Occasion::Request("http"), credentials, self.now()).await {
            Ok(identity) => identity,
            Err(error) => {
                tracing::warn!(user = name.as_str(), %peer, %error, "HTTP login refused");
                let pause = self.broker.login_attempts.pause_ms(peer).min(PAUSE_MAX_MS);
                if pause > 0 {
                    self.node.pause(pause).await;
                }
                if matches!(error, AuthError::Unanswered(_)) {
                    return Err(no_backend());
                }
                if error.to_string().contains("localhost") {
                    return Err(Failure::not_authorised("User can only log in via localhost"));
                }
                return Err(Failure::wrong_credentials());
            }
        };
        let vhosts = match &identity.authority {
            Authority::Internal => None,
            Authority::Token(_) | Authority::Remote(_) | Authority::Ended => {
                let mut entered = BTreeSet::new();
                for (vhost, _) in topology.vhosts() {
                    let may_enter = identity.may_enter(vhost, peer).await;
                    if may_enter.ok_or_else(no_backend)? {
                        entered.insert(vhost.clone());
                    }
                }
                Some(entered)
            }
        };
        Ok(Identity::User(Member { identity, vhosts }))
    }
}

/// Who somebody is, or what they may do, is not known.
fn no_backend() -> Failure {
    Failure::unavailable("an authentication backend gives no answer")
}
