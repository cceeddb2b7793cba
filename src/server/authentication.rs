//! The chain of authentication backends: each is asked who somebody is, and what they may do, until one knows.

use std::path::PathBuf;
use std::sync::Arc;

use super::clock::{Clock, wall_clock};
use super::http_backend::{HttpBackend, HttpBackendError, Refusal};
use super::http_client::check_certificates;
use super::introspection::{Introspection, IntrospectionError};
use super::token_keys::{self, TokenKeys, TokenKeysError, TokenRefusal};
use crate::broker::{AuthError, Authenticate, Authority, Broker, Credentials, Eventually, Identity, Occasion, User};
use crate::config::{AuthBackend, Config};
use crate::model::ids::Timestamp;
use crate::model::names::UserName;
use crate::oauth2::{Grant, is_json_web_token};

/// Why the backends cannot be used; the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error(transparent)]
    Tokens(#[from] TokenKeysError),
    #[error(transparent)]
    Introspection(#[from] IntrospectionError),
    #[error(transparent)]
    Http(#[from] HttpBackendError),
}

/// Where the broker has more backends than its own users, sets who is asked.
pub(super) fn start(broker: &Broker, config: &Config, clock: Clock) -> Result<(), AuthenticationError> {
    let backends = &config.auth.backends;
    if backends.iter().all(|backend| *backend == AuthBackend::Internal) {
        return Ok(());
    }
    let links: Vec<Link> = backends.iter().map(|backend| link(*backend)).collect();
    let is_used = |backend| links.iter().any(|link| link.who == backend || link.what == backend);
    let tokens = is_used(Backend::OAuth2).then(|| TokenKeys::open(config)).transpose()?.map(Arc::new);
    let introspection = if tokens.is_some() { Introspection::open(config)? } else { None };
    let http = is_used(Backend::Http).then(|| HttpBackend::open(config)).transpose()?.map(Arc::new);
    if let Some(tokens) = &tokens {
        tokens.start();
    }
    broker.set_authenticator(Arc::new(Chain(Arc::new(Backends { links, tokens, introspection, http, clock }))));
    Ok(())
}

/// What the backends in use cannot read or use of their files: the key of each file, and why.
pub(super) fn check(config: &Config) -> Vec<(String, String)> {
    let links: Vec<Link> = config.auth.backends.iter().map(|backend| link(*backend)).collect();
    let is_used = |backend| links.iter().any(|link| link.who == backend || link.what == backend);
    let mut problems = Vec::new();
    let mut authorities = |key: &str, file: &Option<PathBuf>| {
        let problem = file.as_deref().and_then(check_certificates);
        problems.extend(problem.map(|problem| (key.to_owned(), problem)));
    };
    if is_used(Backend::OAuth2) {
        authorities("oauth2.cacertfile", &config.oauth2.cacertfile);
    }
    if is_used(Backend::Http) {
        authorities("auth_http.cacertfile", &config.auth_http.cacertfile);
    }
    if is_used(Backend::OAuth2) {
        problems.extend(token_keys::check(&config.oauth2));
    }
    problems
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Backend {
    Internal,
    OAuth2,
    Http,
}

/// Who checks the secret, and who says what its owner may do.
struct Link {
    who: Backend,
    what: Backend,
}

fn link(backend: AuthBackend) -> Link {
    use Backend::{Http, Internal, OAuth2};
    let (who, what) = match backend {
        AuthBackend::Internal => (Internal, Internal),
        AuthBackend::OAuth2 => (OAuth2, OAuth2),
        AuthBackend::Http => (Http, Http),
        AuthBackend::OAuth2ThenInternal => (OAuth2, Internal),
        AuthBackend::OAuth2ThenHttp => (OAuth2, Http),
        AuthBackend::HttpThenInternal => (Http, Internal),
        AuthBackend::InternalThenHttp => (Internal, Http),
    };
    Link { who, what }
}

struct Chain(Arc<Backends>);

struct Backends {
    links: Vec<Link>,
    tokens: Option<Arc<TokenKeys>>,
    /// For tokens that say nothing of themselves.
    introspection: Option<Introspection>,
    http: Option<Arc<HttpBackend>>,
    clock: Clock,
}

/// Somebody whose secret was right.
struct Known {
    name: UserName,
    tags: Vec<String>,
    expires: Option<Timestamp>,
    grant: Option<Arc<Grant>>,
    own: Option<Arc<User>>,
}

impl Authenticate for Chain {
    fn authenticate(
        &self,
        broker: &Arc<Broker>,
        credentials: Credentials,
        occasion: Occasion,
    ) -> Eventually<Result<Identity, AuthError>> {
        let (backends, broker) = (Arc::clone(&self.0), Arc::clone(broker));
        Box::pin(async move {
            let mut reasons = Vec::new();
            // One that would have to say, and does not, is enough not to know.
            let mut conclude: fn(String) -> AuthError = AuthError::Refused;
            for link in &backends.links {
                match backends.ask(&broker, link, &credentials, occasion).await {
                    Ok(identity) => return Ok(identity),
                    Err(error) => {
                        reasons.push(format!("{}: {error}", link.who.name()));
                        if matches!(error, AuthError::Unanswered(_)) {
                            conclude = AuthError::Unanswered;
                        }
                    }
                }
            }
            Err(conclude(reasons.join("; ")))
        })
    }
}

impl Backends {
    async fn ask(
        &self,
        broker: &Arc<Broker>,
        link: &Link,
        credentials: &Credentials,
        occasion: Occasion,
    ) -> Result<Identity, AuthError> {
        let known = self.who(broker, link.who, credentials, occasion).await?;
        let own = broker.own_user(&known.name);
        broker.check_origin(&known.name, credentials.peer)?;
        if link.who == link.what {
            return match (known.grant.clone(), &self.http, known.own.clone()) {
                (Some(grant), _, _) => {
                    Ok(Identity::outside(known.name, known.tags, Authority::Token(grant), known.expires))
                }
                (None, _, Some(user)) => Ok(Identity::internal(user)),
                (None, Some(http), None) => Ok(remote(http, known, Vec::new())),
                (None, None, None) => Err("it is not set up".into()),
            };
        }
        match (link.what, &self.http) {
            (Backend::Internal, _) => {
                let own = own.ok_or("the broker has no user of this name")?;
                let mut user = User::clone(&own);
                user.tags.extend(known.tags.into_iter().filter(|tag| !own.tags.contains(tag)));
                Ok(Identity { expires: known.expires, ..Identity::internal(Arc::new(user)) })
            }
            (Backend::Http, Some(http)) => {
                let tags = http.user(&known.name, None).await.map_err(denied)?;
                Ok(remote(http, known, tags))
            }
            (Backend::Http | Backend::OAuth2, _) => Err("it is not set up".into()),
        }
    }

    async fn who(
        &self,
        broker: &Broker,
        backend: Backend,
        credentials: &Credentials,
        occasion: Occasion,
    ) -> Result<Known, AuthError> {
        let named = |name: UserName, tags| Known { name, tags, expires: None, grant: None, own: None };
        match (backend, &self.tokens, &self.http) {
            (Backend::Internal, _, _) => {
                let user = broker.authenticate_own(credentials)?.user;
                Ok(Known { own: Some(Arc::clone(&user)), ..named(user.name.clone(), user.tags.clone()) })
            }
            (Backend::OAuth2, Some(tokens), _) => {
                let grant = self.grant(tokens, &credentials.secret, occasion).await?;
                let known = named(grant.user().clone(), grant.tags().to_vec());
                // The broker's clock may have fallen behind the world's, by which the token was issued.
                let left_ms = grant.expires().0.saturating_sub(wall_clock().0);
                Ok(Known { expires: Some(self.clock.now().plus(left_ms)), grant: Some(grant), ..known })
            }
            (Backend::Http, _, Some(http)) => {
                let user = &credentials.user;
                // As the broker's own users, nobody has an empty password.
                if credentials.secret.is_empty() || user.as_str().is_empty() {
                    return Err("blank user name or password".into());
                }
                let tags = http.user(user, Some(&credentials.secret)).await.map_err(denied)?;
                Ok(named(user.clone(), tags))
            }
            (Backend::OAuth2 | Backend::Http, _, _) => Err("it is not set up".into()),
        }
    }

    /// What a token allows: one that says so itself is checked here, about any other its issuer is asked.
    async fn grant(&self, tokens: &TokenKeys, secret: &[u8], occasion: Occasion) -> Result<Arc<Grant>, AuthError> {
        match &self.introspection {
            Some(introspection) if !is_json_web_token(secret) => {
                let verified = introspection.verify(tokens.verifier(), secret, occasion).await;
                verified.map_err(|refusal| match refusal.is_unanswered() {
                    true => AuthError::Unanswered(refusal.to_string()),
                    false => refused(refusal),
                })
            }
            _ => {
                let verified = tokens.verify(secret, wall_clock()).await;
                verified.map(Arc::new).map_err(|refusal| match refusal {
                    TokenRefusal::Refused(_) => refused(refusal),
                    TokenRefusal::NoKeys(_) => AuthError::Unanswered(refusal.to_string()),
                })
            }
        }
    }
}

fn refused(reason: impl ToString) -> AuthError {
    AuthError::Refused(reason.to_string())
}

fn denied(refusal: Refusal) -> AuthError {
    match refusal.is_unanswered() {
        true => AuthError::Unanswered(refusal.to_string()),
        false => refused(refusal),
    }
}

/// Somebody whose permissions the service has.
fn remote(http: &Arc<HttpBackend>, known: Known, further: Vec<String>) -> Identity {
    let mut tags = known.tags;
    tags.extend(further);
    tags.sort();
    tags.dedup();
    let permissions = http.permissions(&known.name, &tags);
    Identity::outside(known.name, tags, Authority::Remote(permissions), known.expires)
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::OAuth2 => "oauth2",
            Self::Http => "http",
        }
    }
}
