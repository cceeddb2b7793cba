//! Requests that have to wait for somebody else's answer: logins and permissions that a service decides.
//!
//! The driver takes what there is to wait for with `take_pending`, waits, and comes back with `resume`. Meanwhile no request
//! of the connection is handled, so that their order stays; the driver does not read the socket.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::exception::Exception;
use crate::model::names::{ExchangeName, UserName, VhostName};
use crate::model::request::{Event, Request};

use super::super::auth::{Access, ResourceKind};
use super::super::authority::{AuthError, Authority, Credentials, Eventually, Identity, Occasion, Question};
use super::super::described;
use super::super::login_attempts::Outcome;
use super::{Session, Timestamp};

/// As the counts of logins call it.
const PROTOCOL: &str = "amqp091";

/// What the driver waits for.
pub enum Pending {
    Answer(Eventually<Verdict>),
    /// So many milliseconds; whoever fails often is answered slowly.
    Pause {
        ms: u64,
        then: Verdict,
    },
}

/// What came of it; for `Session::resume`.
pub struct Verdict(VerdictKind);

enum VerdictKind {
    Login(Result<Identity, AuthError>),
    Refused,
    Secret(Result<Identity, AuthError>),
    /// The vhost is the connection's; whether the user of the new secret may still be there.
    Renewed(Identity, bool),
    Access(Question, bool),
}

/// What a session keeps while it waits.
#[derive(Default)]
pub(super) struct Waiting {
    is_waiting: bool,
    pending: Option<Pending>,
    /// In order; the first one is asked again once its question is answered.
    requests: VecDeque<Request>,
    /// What a check had to ask. A cell, since checks change nothing else.
    question: Cell<Option<Question>>,
    /// Answers for the request at hand, which may have more questions than the service's memory holds for long enough.
    answers: Vec<(Question, bool)>,
    /// When routes that were allowed are checked again.
    recheck: Timestamp,
}

impl Session {
    /// What has to be waited for, once.
    pub fn take_pending(&mut self) -> Option<Pending> {
        self.waiting.pending.take()
    }

    /// Whether requests are held, until `resume` or the end of a commit: what the socket has can wait there.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_waiting || self.committing.is_some()
    }

    /// When the credentials end; from then on the connection must not go on.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// The credentials have ended, and the connection is being told.
    pub fn expire(&mut self) {
        self.expires = None;
        self.authority = Authority::Ended;
        self.cache.clear();
    }

    /// Goes on after a wait.
    pub fn resume(&mut self, verdict: Verdict, events: &mut Vec<Event>, now: Timestamp) {
        self.now = now;
        self.refresh();
        self.waiting.is_waiting = false;
        match verdict.0 {
            VerdictKind::Login(Ok(identity)) => {
                self.user = Some(identity.user);
                self.authority = identity.authority;
                self.expires = identity.expires;
                events.push(Event::LoggedIn);
            }
            VerdictKind::Login(Err(_)) => self.refuse_login(events),
            VerdictKind::Refused => events.push(Event::LoginRefused),
            VerdictKind::Secret(outcome) => self.new_secret(outcome, events),
            VerdictKind::Renewed(identity, may_stay) => events.push(self.renew(identity, may_stay)),
            VerdictKind::Access(question, allowed) => self.waiting.answers.push((question, allowed)),
        }
        self.handle_held(events);
        self.flush(now);
    }

    /// Handles what was held, until something has to wait again.
    pub(super) fn handle_held(&mut self, events: &mut Vec<Event>) {
        let mut held = std::mem::take(&mut self.waiting.requests);
        while !self.is_waiting()
            && let Some(request) = held.pop_front()
        {
            self.handle(request, events);
        }
        // What has to be asked again stands before what was held behind it.
        self.waiting.requests.append(&mut held);
    }

    /// Keeps requests until the wait is over.
    pub(super) fn hold(&mut self, requests: impl Iterator<Item = Request>) {
        self.waiting.requests.extend(requests);
    }

    /// Drops what is held: the connection has ended.
    pub(super) fn hold_nothing(&mut self) {
        self.waiting = Waiting { is_waiting: true, ..Waiting::default() };
    }

    /// Asks who presents a password, if that takes somebody else's answer.
    pub(super) fn ask_who(&mut self, user: &UserName, secret: &[u8]) {
        let credentials = Credentials { user: user.clone(), secret: secret.to_vec(), peer: self.peer };
        let answer = self.broker.authenticate(Occasion::Connection(PROTOCOL), credentials, self.now);
        let (name, peer) = (user.clone(), self.peer);
        self.begin(Pending::Answer(Box::pin(async move {
            let outcome = answer.await;
            if let Err(error) = &outcome {
                tracing::warn!(user = name.as_str(), %peer, reason = %error, "login refused");
            }
            Verdict(VerdictKind::Login(outcome))
        })));
    }

    /// Asks whom a new secret belongs to.
    pub(super) fn ask_whose(&mut self, user: &UserName, secret: &[u8]) {
        let credentials = Credentials { user: user.clone(), secret: secret.to_vec(), peer: self.peer };
        let answer = self.broker.authenticate(Occasion::Connection(PROTOCOL), credentials, self.now);
        self.begin(Pending::Answer(Box::pin(async move { Verdict(VerdictKind::Secret(answer.await)) })));
    }

    /// Counts a login that was checked here.
    pub(super) fn count_login(&mut self, user: &str, outcome: Outcome) {
        self.broker.login_attempts.record(PROTOCOL, self.peer, user, outcome, self.now);
        self.broker.announce_with(|| described::authentication(outcome, user, &self.record.facts.lock()));
    }

    /// Tells the client, after a pause if it keeps failing.
    pub(super) fn refuse_login(&mut self, events: &mut Vec<Event>) {
        match self.broker.login_attempts.pause_ms(self.peer) {
            0 => events.push(Event::LoginRefused),
            ms => self.begin(Pending::Pause { ms, then: Verdict(VerdictKind::Refused) }),
        }
    }

    fn begin(&mut self, pending: Pending) {
        self.waiting.is_waiting = true;
        self.waiting.pending = Some(pending);
    }

    /// The new credentials must be the same user's, and allow the vhost.
    fn new_secret(&mut self, outcome: Result<Identity, AuthError>, events: &mut Vec<Event>) {
        let current = self.user.as_ref().map(|user| &user.name);
        let refusal = match &outcome {
            Ok(identity) if Some(&identity.user.name) == current => None,
            Ok(_) => Some("it is another user's".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        match (outcome, refusal) {
            (Ok(identity), None) => self.ask_whether_to_stay(identity),
            (_, refusal) => {
                let user = current.map_or("", UserName::as_str);
                let reason = refusal.unwrap_or_default();
                tracing::warn!(user, peer = %self.peer, reason, "new secret refused");
                events.push(super::login::secret_refused());
            }
        }
    }

    /// Asks whether the connection may stay in its vhost; if so, its user is this one from then on.
    pub(super) fn ask_whether_to_stay(&mut self, identity: Identity) {
        let Some(vhost) = self.login.as_ref().map(|login| login.vhost.clone()) else { return };
        let may_enter = identity.may_enter(&vhost, self.peer);
        self.begin(Pending::Answer(Box::pin(async move {
            let may_stay = may_enter.await.unwrap_or(false);
            Verdict(VerdictKind::Renewed(identity, may_stay))
        })));
    }

    fn renew(&mut self, identity: Identity, may_stay: bool) -> Event {
        if let Some(login) = self.login.as_ref().filter(|_| !may_stay) {
            tracing::warn!(user = identity.user.name.as_str(), peer = %self.peer, "new secret refused: not for this vhost");
            let exception = super::login::vhost_refusal(&identity.user.name, &login.vhost);
            return Event::Exception { channel: None, exception };
        }
        if let Some(login) = &mut self.login {
            login.user = Arc::clone(&identity.user);
            login.permission = match identity.authority {
                Authority::Internal => identity.user.permissions.get(&login.vhost).cloned(),
                Authority::Token(_) | Authority::Remote(_) | Authority::Ended => None,
            }
            .unwrap_or_default();
        }
        self.user = Some(identity.user);
        self.authority = identity.authority;
        self.expires = identity.expires;
        self.cache.clear();
        Event::SecretUpdated
    }

    /// Handles a request whose checks may have to ask; if one does, the request is put back and nothing has happened.
    pub(super) fn handle_asking(&mut self, request: Request, events: &mut Vec<Event>) {
        let Authority::Remote(service) = &self.authority else { return self.handle_known(request, events) };
        let service = Arc::clone(service);
        if self.waiting.recheck <= self.now {
            self.waiting.recheck = self.now.plus(service.lifetime_ms());
            self.cache.clear();
        }
        let channel = match &request {
            Request::Publish(publish) => Some(publish.channel),
            Request::Ask { channel, .. } => Some(*channel),
            Request::OpenVhost(_) | Request::CheckConsumer { .. } => None,
            Request::Login { .. }
            | Request::UpdateSecret(_)
            | Request::OpenChannel(_)
            | Request::Settle(_)
            | Request::CloseChannel(_)
            | Request::CloseConnection
            | Request::DeliveriesSent { .. } => return self.handle_known(request, events),
        };
        let again = request.clone();
        let random = self.random.clone();
        let told = events.len();
        self.handle_known(request, events);
        let Some(question) = self.waiting.question.take() else { return self.waiting.answers.clear() };
        events.truncate(told);
        // Generated names are to be the same the next time.
        self.random = random;
        if let Some(state) = channel.and_then(|channel| self.channels.get_mut(&channel.serial)) {
            state.failed = false;
        }
        self.waiting.requests.push_front(again);
        let answer = service.ask(question.clone());
        self.begin(Pending::Answer(Box::pin(async move {
            Verdict(VerdictKind::Access(question, answer.await.unwrap_or(false)))
        })));
    }

    /// Whether the resource may be used so. While a service has to be asked the answer is no, and the request is handled
    /// again.
    pub(super) fn may_use(&self, access: Access, kind: ResourceKind, name: &str) -> Result<bool, Exception> {
        let login = self.login()?;
        let name = if name.is_empty() { "amq.default" } else { name };
        Ok(match &self.authority {
            Authority::Ended => false,
            Authority::Internal => login.permission.allows(access, name),
            Authority::Token(grant) => grant.allows(login.vhost.as_str(), access.into(), name),
            Authority::Remote(_) => {
                self.answer(Question::Resource { vhost: login.vhost.clone(), kind, name: name.into(), access })
            }
        })
    }

    /// Whether a routing key may be used with a topic exchange.
    pub(super) fn may_use_topic(&self, access: Access, exchange: &ExchangeName, key: &str) -> Result<bool, Exception> {
        let login = self.login()?;
        let vhost = &login.vhost;
        Ok(match &self.authority {
            Authority::Ended => false,
            Authority::Internal => login.user.allows_topic(access, vhost, exchange, key),
            Authority::Token(grant) => grant.allows_topic(vhost.as_str(), access.into(), exchange.as_str(), key),
            Authority::Remote(_) => {
                let (vhost, exchange, key) = (vhost.clone(), exchange.as_str().into(), key.into());
                self.answer(Question::Topic { vhost, exchange, key, access })
            }
        })
    }

    /// Whether the user may work in the vhost.
    pub(super) fn may_enter(&self, vhost: &VhostName) -> bool {
        match &self.authority {
            Authority::Ended => false,
            Authority::Internal => self.user.as_ref().is_some_and(|user| user.permissions.contains_key(vhost)),
            Authority::Token(grant) => grant.allows_vhost(vhost.as_str()),
            Authority::Remote(_) => self.answer(Question::Vhost { vhost: vhost.clone(), peer: self.peer }),
        }
    }

    /// Whether a check had to ask: what it said does not count.
    pub(super) fn has_question(&self) -> bool {
        let question = self.waiting.question.take();
        let has = question.is_some();
        self.waiting.question.set(question);
        has
    }

    fn answer(&self, question: Question) -> bool {
        let Authority::Remote(service) = &self.authority else { return false };
        let given = self.waiting.answers.iter().find(|(asked, _)| *asked == question).map(|(_, answer)| *answer);
        if let Some(answer) = given.or_else(|| service.known(&question)) {
            return answer;
        }
        self.waiting.question.set(Some(question));
        false
    }
}
