//! Who the connection is and which vhost it works in.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::model::exception::{Exception, ReplyCode};
use crate::model::names::{UserName, VhostName};
use crate::model::request::{Event, Mechanism};
use crate::model::vhost::VhostLimits;

use super::super::Broker;
use super::super::auth::{PasswordHash, Permission, User};
use super::super::authority::Authority;
use super::super::authority::Identity;
use super::super::described;
use super::super::login_attempts::Outcome;
use super::{Login, Session};

impl Session {
    /// Checks the credentials. Why they are refused is for the log alone.
    pub(super) fn log_in(&mut self, mechanism: &Mechanism, events: &mut Vec<Event>) {
        if let Mechanism::Password { user, password, .. } = mechanism
            && self.broker.asks_others()
        {
            return self.ask_who(user, password);
        }
        let (name, password) = match mechanism {
            Mechanism::Password { user, password, .. } => (Some(user), Some(password)),
            // The certificate has been checked, in place of a password.
            Mechanism::External { user } => (user.as_ref().ok(), None),
            Mechanism::Anonymous => (self.broker.settings.anonymous_user.as_ref(), None),
        };
        let user = name.and_then(|name| self.topology.user(name)).cloned();
        let outcome = match (&user, password) {
            (Some(user), Some(password)) => user.check_login(password, self.peer),
            (Some(user), None) => user.check_origin(self.peer),
            (None, _) => Err("no such user"),
        };
        let name = name.map_or("", UserName::as_str).to_owned();
        match outcome {
            Ok(()) => {
                self.count_login(&name, Outcome::Succeeded);
                self.user = user;
                events.push(Event::LoggedIn);
            }
            Err(reason) => {
                self.count_login(&name, Outcome::Failed);
                tracing::warn!(user = name, peer = %self.peer, ?mechanism, reason, "login refused");
                self.refuse_login(events);
            }
        }
    }

    /// The checks of `connection.open`, in RabbitMQ's order.
    pub(super) fn open_vhost(&mut self, name: VhostName) -> Event {
        match self.try_open_vhost(name) {
            Ok(()) => Event::VhostOpened,
            Err(exception) => Event::Exception { channel: None, exception },
        }
    }

    fn try_open_vhost(&mut self, name: VhostName) -> Result<(), Exception> {
        let Some(user) = self.user.clone() else { return Err(Exception::not_allowed("not logged in")) };
        let vhost = self
            .topology
            .vhost(&name)
            .cloned()
            .ok_or_else(|| Exception::not_allowed(format!("vhost {name} not found")));
        // Asked again once a service has answered, it is counted already.
        if self.counted.is_none() {
            self.broker.count_connection(&user, &name, vhost.as_ref().ok().map(|vhost| vhost.limits))?;
            self.counted = Some(name.clone());
        }
        let vhost = vhost?;
        if !self.may_enter(&name) {
            return Err(vhost_refusal(&user.name, &name));
        }
        let own = match self.authority {
            Authority::Internal => user.permissions.get(&name).cloned(),
            Authority::Token(_) | Authority::Remote(_) | Authority::Ended => None,
        };
        let permission = own.unwrap_or_default();
        self.vhost = Some(vhost);
        let mut facts = self.record.facts.lock();
        facts.user = Some(user.name.clone());
        facts.vhost = Some(name.clone());
        self.broker.announce_with(|| described::connection_created(&facts));
        drop(facts);
        self.login = Some(Login { user, vhost: name, permission, is_internal: false });
        Ok(())
    }

    /// Enters a vhost without a check of credentials and without being counted.
    pub(super) fn enter(&mut self, identity: Option<Identity>, name: &VhostName) -> Result<(), Exception> {
        let vhost = self.topology.vhost(name).cloned();
        let vhost = vhost.ok_or_else(|| Exception::not_allowed(format!("vhost {name} not found")))?;
        let is_internal = identity.is_none();
        let user = identity.map(|identity| {
            self.authority = identity.authority;
            self.expires = identity.expires;
            identity.user
        });
        let everything = || Permission::parse(".*", ".*", ".*").unwrap_or_default();
        let permission = match &user {
            Some(user) => user.permissions.get(name).cloned().unwrap_or_default(),
            None => everything(),
        };
        let user = user.unwrap_or_else(|| {
            let tags = vec!["administrator".to_owned(), "impersonator".to_owned()];
            Arc::new(User::new(UserName::new("none"), PasswordHash::none(), tags))
        });
        self.record.facts.lock().user = Some(user.name.clone());
        self.vhost = Some(vhost);
        self.user = Some(Arc::clone(&user));
        self.login = Some(Login { user, vhost: name.clone(), permission, is_internal });
        Ok(())
    }

    /// A password says who somebody is when the connection begins, and no more: with a new one nothing changes but what
    /// the user may do by now, so any will do. A token must be another one of the same user.
    pub(super) fn update_secret(&mut self, secret: &[u8], events: &mut Vec<Event>) {
        let Some(login) = &self.login else { return events.push(secret_refused()) };
        let user = Arc::clone(&login.user);
        match &self.authority {
            Authority::Internal if self.expires.is_none() => {
                let own = self.topology.user(&user.name);
                let may_stay = own.is_some_and(|user| user.permissions.contains_key(&login.vhost));
                let refused = || Event::Exception { channel: None, exception: vhost_refusal(&user.name, &login.vhost) };
                events.push(if may_stay { Event::SecretUpdated } else { refused() });
            }
            Authority::Remote(service) => {
                service.forget();
                self.ask_whether_to_stay(Identity { user, authority: self.authority.clone(), expires: self.expires });
            }
            // With `oauth2+internal` it is a token that says who it is, and it ends.
            Authority::Internal | Authority::Token(_) => self.ask_whose(&user.name, secret),
            Authority::Ended => events.push(secret_refused()),
        }
    }
}

/// The user may not work in the vhost, or not any more.
pub(super) fn vhost_refusal(user: &UserName, vhost: &VhostName) -> Exception {
    Exception::not_allowed(format!("access to vhost '{vhost}' refused for user '{user}'"))
}

pub(super) fn secret_refused() -> Event {
    let exception = Exception::not_allowed("New secret was refused by one of the backends");
    Event::Exception { channel: None, exception }
}

impl Broker {
    /// Counts a connection, unless a limit of the node, the vhost or the user is reached. Of a vhost that does not exist
    /// there are no limits; whoever wants it is refused for that.
    fn count_connection(&self, user: &User, vhost: &VhostName, limits: Option<VhostLimits>) -> Result<(), Exception> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Exception::new(ReplyCode::ConnectionForced, "broker is stopping"));
        }
        let max = self.limits().connections;
        let before = self.connections.fetch_add(1, Ordering::AcqRel);
        if max != 0 && before >= max {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            let text = format!("connection refused: node connection limit ({max}) is reached");
            return Err(Exception::not_allowed(text));
        }
        let outcome = self
            .count_in_vhost(user, vhost, limits)
            .and_then(|()| self.count_of_user(user).inspect_err(|_| self.uncount_in_vhost(vhost)));
        outcome.inspect_err(|_| _ = self.connections.fetch_sub(1, Ordering::AcqRel))
    }

    fn count_in_vhost(&self, user: &User, vhost: &VhostName, limits: Option<VhostLimits>) -> Result<(), Exception> {
        let mut count = self.per_vhost.entry(vhost.clone()).or_default();
        if let Some(max) = limits.and_then(|limits| limits.max_connections)
            && *count as u64 >= max
        {
            let text = format!(
                "access to vhost '{vhost}' refused for user '{}': connection limit ({max}) is reached",
                user.name
            );
            return Err(Exception::not_allowed(text));
        }
        *count += 1;
        Ok(())
    }

    fn uncount_in_vhost(&self, vhost: &VhostName) {
        if let Some(mut count) = self.per_vhost.get_mut(vhost) {
            *count = count.saturating_sub(1);
        }
        self.per_vhost.remove_if(vhost, |_, count| *count == 0);
    }

    fn count_of_user(&self, user: &User) -> Result<(), Exception> {
        let mut counts = self.per_user.entry(user.name.clone()).or_default();
        let max = limit_of(user.limits.max_connections, self.limits().connections_per_user);
        if max.is_some_and(|max| counts.connections >= max) {
            let (name, max) = (&user.name, max.unwrap_or_default());
            let text = format!("connection refused for user '{name}': user connection limit ({max}) is reached");
            return Err(Exception::not_allowed(text));
        }
        counts.connections += 1;
        Ok(())
    }

    pub(super) fn uncount_connection(&self, user: Option<&UserName>, vhost: &VhostName) {
        self.connections.fetch_sub(1, Ordering::AcqRel);
        self.uncount_in_vhost(vhost);
        self.change_counts(user, |counts| counts.connections = counts.connections.saturating_sub(1));
    }

    /// Counts a channel even when it is refused: its connection closes and uncounts all of its channels.
    pub(super) fn count_channel(&self, user: Option<&User>) -> Result<(), Exception> {
        let limits = self.limits();
        let open = self.channels.fetch_add(1, Ordering::AcqRel);
        let mut of_user = 0;
        self.change_counts(user.map(|user| &user.name), |counts| {
            of_user = counts.channels;
            counts.channels += 1;
        });
        if limits.channels != 0 && open >= limits.channels {
            let node = &self.settings.node_name;
            return Err(Exception::not_allowed(format!(
                "number of channels opened on node '{node}' has reached the maximum allowed limit of {}",
                limits.channels
            )));
        }
        let max = limit_of(user.and_then(|user| user.limits.max_channels), limits.channels_per_user);
        if let Some(max) = max.filter(|max| of_user >= *max) {
            let user = user.map_or("", |user| user.name.as_str());
            return Err(Exception::not_allowed(format!(
                "number of channels opened for user '{user}' has reached the maximum allowed user limit of {max}"
            )));
        }
        Ok(())
    }

    pub(super) fn uncount_channels(&self, user: Option<&UserName>, count: usize) {
        self.channels.fetch_sub(count, Ordering::AcqRel);
        self.change_counts(user, |counts| counts.channels = counts.channels.saturating_sub(count));
    }

    fn change_counts(&self, user: Option<&UserName>, change: impl FnOnce(&mut super::super::UserCounts)) {
        let Some(user) = user else { return };
        let mut counts = self.per_user.entry(user.clone()).or_default();
        change(&mut counts);
        let idle = counts.connections == 0 && counts.channels == 0;
        drop(counts);
        if idle {
            self.per_user.remove_if(user, |_, counts| counts.connections == 0 && counts.channels == 0);
        }
    }
}

/// The limit of a user, or else that of all users; 0 means none there, and negative numbers mean none here.
fn limit_of(own: Option<i64>, of_all: usize) -> Option<usize> {
    match own {
        Some(own) => usize::try_from(own).ok(),
        None => (of_all != 0).then_some(of_all),
    }
}
