//! Who the connection is and which vhost it works in.

use crate::model::exception::{Exception, ReplyCode};
use crate::model::names::{UserName, VhostName};
use crate::model::request::{Event, Mechanism};

use super::super::Broker;
use super::super::auth::Permission;
use super::super::authority::Authority;
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
        // Asked again once a service has answered, it is counted already.
        if !self.counted {
            self.broker.count_connection(&user.name)?;
            self.counted = true;
        }
        let vhost = self
            .topology
            .vhost(&name)
            .cloned()
            .ok_or_else(|| Exception::not_allowed(format!("vhost {name} not found")))?;
        if !self.may_enter(&name) {
            let text = format!("access to vhost '{name}' refused for user '{}'", user.name);
            return Err(Exception::not_allowed(text));
        }
        let own = match self.authority {
            Authority::Internal => user.permissions.get(&name).cloned(),
            Authority::Token(_) | Authority::Remote(_) => None,
        };
        let permission = own.unwrap_or_else(Permission::nothing);
        self.vhost = Some(vhost);
        self.login = Some(Login { user, vhost: name, permission });
        Ok(())
    }

    /// The new secret must be the user's password, or another token of the same user.
    pub(super) fn update_secret(&mut self, secret: &[u8], events: &mut Vec<Event>) {
        if let Some(user) = self.user.as_ref().map(|user| user.name.clone())
            && self.broker.asks_others()
        {
            return self.ask_whose(&user, secret);
        }
        let accepted = self
            .user
            .as_ref()
            .and_then(|user| self.topology.user(&user.name))
            .is_some_and(|user| user.check_login(secret, self.peer).is_ok());
        events.push(if accepted { Event::SecretUpdated } else { secret_refused() });
    }
}

pub(super) fn secret_refused() -> Event {
    let exception = Exception::not_allowed("New secret was refused by one of the backends");
    Event::Exception { channel: None, exception }
}

impl Broker {
    fn count_connection(&self, user: &UserName) -> Result<(), Exception> {
        use std::sync::atomic::Ordering;
        if self.stopping.load(Ordering::Acquire) {
            return Err(Exception::new(ReplyCode::ConnectionForced, "broker is stopping"));
        }
        let limits = &self.settings.limits;
        let max = limits.connections;
        let before = self.connections.fetch_add(1, Ordering::AcqRel);
        if max != 0 && before >= max {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            let text = format!("connection refused: node connection limit ({max}) is reached");
            return Err(Exception::not_allowed(text));
        }
        let mut counts = self.per_user.entry(user.clone()).or_default();
        let max = limits.connections_per_user;
        if max != 0 && counts.connections >= max {
            self.connections.fetch_sub(1, Ordering::AcqRel);
            let text = format!("connection refused for user '{user}': user connection limit ({max}) is reached");
            return Err(Exception::not_allowed(text));
        }
        counts.connections += 1;
        Ok(())
    }

    pub(super) fn uncount_connection(&self, user: Option<&UserName>) {
        self.connections.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        self.change_counts(user, |counts| counts.connections = counts.connections.saturating_sub(1));
    }

    /// Counts a channel even when it is refused: its connection closes and uncounts all of its channels.
    pub(super) fn count_channel(&self, user: Option<&UserName>) -> Result<(), Exception> {
        let limits = &self.settings.limits;
        let open = self.channels.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        let mut of_user = 0;
        self.change_counts(user, |counts| {
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
        if limits.channels_per_user != 0 && of_user >= limits.channels_per_user {
            let user = user.map_or("", UserName::as_str);
            return Err(Exception::not_allowed(format!(
                "number of channels opened for user '{user}' has reached the maximum allowed user limit of {}",
                limits.channels_per_user
            )));
        }
        Ok(())
    }

    pub(super) fn uncount_channels(&self, user: Option<&UserName>, count: usize) {
        self.channels.fetch_sub(count, std::sync::atomic::Ordering::AcqRel);
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
