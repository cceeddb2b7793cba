//! The authentication backend `http`: a service that is asked with RabbitMQ's parameters, and answers `allow` or `deny`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Uri;
use parking_lot::Mutex;

use super::http_client::{CertificatesError, HttpClient, HttpError, form};
use crate::broker::{Authorize, Eventually, Question};
use crate::config::{Config, HttpMethod};
use crate::model::names::UserName;

/// Answers that are remembered.
const CACHE_MAX: usize = 8192;
/// Characters of the service's reason that are logged.
const REASON_MAX: usize = 200;

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum HttpBackendError {
    #[error("auth_http.cacertfile {0}")]
    Certificates(CertificatesError),
    #[error("auth_http.{0} is not an address")]
    Address(&'static str),
}

/// Why somebody is not let in. For the log, and without secrets.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the HTTP service denies it")]
    Denied,
    #[error("the HTTP service denies it: {0:?}")]
    DeniedBecause(String),
    #[error("the HTTP service gives no answer: {0}")]
    NoAnswer(#[from] HttpError),
    #[error("the HTTP service answers neither allow nor deny")]
    Unclear,
}

impl Refusal {
    /// Whether the service has not said anything about who asked. A status such as 403 says no.
    pub(super) fn is_unanswered(&self) -> bool {
        match self {
            Self::Denied | Self::DeniedBecause(_) => false,
            Self::NoAnswer(HttpError::Status(status)) => !status.is_client_error(),
            Self::NoAnswer(_) | Self::Unclear => true,
        }
    }
}

/// See the module's documentation.
pub(super) struct HttpBackend {
    client: HttpClient,
    method: HttpMethod,
    user: Uri,
    vhost: Uri,
    resource: Uri,
    topic: Uri,
    lifetime: Duration,
    cache: Mutex<Cache>,
}

/// Answers, and until when they hold.
type Cache = HashMap<(Arc<Asker>, Question), (bool, Instant)>;

/// A user the service knows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Asker {
    name: UserName,
    tags: String,
}

/// What one user may do, as the service says.
struct Remote {
    backend: Arc<HttpBackend>,
    asker: Arc<Asker>,
}

impl HttpBackend {
    pub(super) fn open(config: &Config) -> Result<Self, HttpBackendError> {
        let settings = &config.auth_http;
        let client = HttpClient::new(settings.cacertfile.as_deref(), settings.timeout);
        let address = |key, text: &str| text.parse::<Uri>().map_err(|_| HttpBackendError::Address(key));
        Ok(Self {
            client: client.map_err(HttpBackendError::Certificates)?,
            method: settings.method,
            user: address("user_path", &settings.user_path)?,
            vhost: address("vhost_path", &settings.vhost_path)?,
            resource: address("resource_path", &settings.resource_path)?,
            topic: address("topic_path", &settings.topic_path)?,
            lifetime: config.auth.cache_ttl,
            cache: Mutex::default(),
        })
    }

    /// The tags of the user. Without a password the service is asked about the name alone: somebody else has checked who
    /// it is.
    pub(super) async fn user(&self, name: &UserName, password: Option<&[u8]>) -> Result<Vec<String>, Refusal> {
        let password = password.map(String::from_utf8_lossy);
        let mut parameters = vec![("username", name.as_str())];
        parameters.extend(password.as_deref().map(|password| ("password", password)));
        let answer = self.ask(&self.user, &parameters).await.map_err(|refusal| match refusal {
            // A service may repeat what it was asked.
            Refusal::DeniedBecause(reason) if password.as_deref().is_some_and(|password| reason.contains(password)) => {
                Refusal::Denied
            }
            other => other,
        })?;
        Ok(answer.split([' ', ',']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect())
    }

    /// The permissions of a user that was let in.
    pub(super) fn permissions(self: &Arc<Self>, name: &UserName, tags: &[String]) -> Arc<dyn Authorize> {
        let asker = Arc::new(Asker { name: name.clone(), tags: tags.join(" ") });
        Arc::new(Remote { backend: Arc::clone(self), asker })
    }

    async fn may(&self, asker: &Arc<Asker>, question: &Question) -> Option<bool> {
        let peer;
        let mut parameters = vec![("username", asker.name.as_str())];
        let address = match question {
            Question::Vhost { vhost, peer: from } => {
                peer = from.to_canonical().to_string();
                parameters.extend([("vhost", vhost.as_str()), ("ip", &peer), ("tags", &asker.tags)]);
                &self.vhost
            }
            Question::Resource { vhost, kind, name, access } => {
                let resource = [("vhost", vhost.as_str()), ("resource", kind.name()), ("name", name)];
                parameters.extend(resource);
                parameters.extend([("permission", access.name()), ("tags", &asker.tags)]);
                &self.resource
            }
            Question::Topic { vhost, exchange, key, access } => {
                let resource = [("vhost", vhost.as_str()), ("resource", "topic"), ("name", exchange)];
                parameters.extend(resource);
                parameters.extend([("permission", access.name()), ("tags", &asker.tags), ("routing_key", key)]);
                let variables =
                    [("variable_map.username", asker.name.as_str()), ("variable_map.vhost", vhost.as_str())];
                parameters.extend(variables);
                &self.topic
            }
        };
        match self.ask(address, &parameters).await {
            Ok(_) => {
                self.remember(asker, question, true);
                Some(true)
            }
            Err(refusal) => {
                let user = asker.name.as_str();
                tracing::info!(user, ?question, reason = %refusal, "permission refused");
                if matches!(refusal, Refusal::Denied | Refusal::DeniedBecause(_)) {
                    self.remember(asker, question, false);
                }
                (!refusal.is_unanswered()).then_some(false)
            }
        }
    }

    /// What follows `allow`.
    async fn ask(&self, address: &Uri, parameters: &[(&str, &str)]) -> Result<String, Refusal> {
        let form = form(parameters);
        let body = match self.method {
            HttpMethod::Post => self.client.post_form(address, form).await?,
            HttpMethod::Get => {
                let mark = if address.query().is_some() { '&' } else { '?' };
                let whole = format!("{address}{mark}{form}").parse().map_err(|_| HttpError::Address)?;
                self.client.get(&whole).await?
            }
        };
        verdict(&String::from_utf8_lossy(&body))
    }

    fn remember(&self, asker: &Arc<Asker>, question: &Question, answer: bool) {
        if self.lifetime.is_zero() {
            return;
        }
        let mut cache = self.cache.lock();
        let now = Instant::now();
        if cache.len() >= CACHE_MAX {
            cache.retain(|_, (_, until)| *until > now);
        }
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert((Arc::clone(asker), question.clone()), (answer, now + self.lifetime));
    }
}

impl Authorize for Remote {
    fn known(&self, question: &Question) -> Option<bool> {
        if self.backend.lifetime.is_zero() {
            return None;
        }
        let key = (Arc::clone(&self.asker), question.clone());
        let cache = self.backend.cache.lock();
        cache.get(&key).filter(|(_, until)| *until > Instant::now()).map(|(answer, _)| *answer)
    }

    fn forget(&self) {
        self.backend.cache.lock().retain(|(asker, _), _| *asker != self.asker);
    }

    fn ask(&self, question: Question) -> Eventually<Option<bool>> {
        let (backend, asker) = (Arc::clone(&self.backend), Arc::clone(&self.asker));
        Box::pin(async move { backend.may(&asker, &question).await })
    }

    fn lifetime_ms(&self) -> u64 {
        u64::try_from(self.backend.lifetime.as_millis()).unwrap_or(u64::MAX)
    }
}

/// `allow`, and what follows it; or `deny`, perhaps with a reason.
fn verdict(body: &str) -> Result<String, Refusal> {
    let body = body.trim();
    let (word, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    match word.to_ascii_lowercase().as_str() {
        "allow" => Ok(rest.trim().to_owned()),
        "deny" if rest.is_empty() => Err(Refusal::Denied),
        "deny" => Err(Refusal::DeniedBecause(rest.trim().chars().take(REASON_MAX).collect())),
        _ => Err(Refusal::Unclear),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        for (body, expected) in [
            ("allow", Ok("")),
            (" Allow administrator monitoring\n", Ok("administrator monitoring")),
            ("deny", Err("the HTTP service denies it")),
            ("DENY no such user", Err("the HTTP service denies it: \"no such user\"")),
            ("allowed", Err("the HTTP service answers neither allow nor deny")),
            ("", Err("the HTTP service answers neither allow nor deny")),
            ("<html>allow</html>", Err("the HTTP service answers neither allow nor deny")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(verdict(body).map_err(|refusal| refusal.to_string()), expected, "{body}");
        }
    }
}
