//! Opaque tokens: the server that issued them is asked what they stand for (RFC 7662, token introspection). The chain of
//! authentication backends calls it with tokens that are no JSON web tokens. No error contains a token or a secret.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::clock::wall_clock;
use super::http_client::{CertificatesError, HttpClient, HttpError, encoded, form};
use crate::broker::Occasion;
use crate::config::{Config, IntrospectionAuth, OAuth2};
use crate::oauth2::{Grant, TokenError, Verifier};

/// Bytes of the longest opaque token: more fit into no header of a web server either.
const TOKEN_MAX: usize = 8 * 1024;
/// Answers that are remembered for the management API.
const CACHE_MAX: usize = 1024;
/// For how long, at most.
const CACHE_LIFETIME: Duration = Duration::from_secs(10);

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum IntrospectionError {
    #[error("oauth2.cacertfile {0}")]
    Certificates(CertificatesError),
    #[error("oauth2.introspection_endpoint is not an address")]
    Address,
}

/// Why a token does not log in. For the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the token is refused: {0}")]
    Token(#[from] TokenError),
    #[error("the token is refused: it has characters or a length that no token has")]
    NoToken,
    #[error("the introspection endpoint gives no answer: {0}")]
    NoAnswer(#[from] HttpError),
}

/// See the module's documentation.
pub(super) struct Introspection {
    client: HttpClient,
    endpoint: Uri,
    /// What the broker shows of itself, besides what the form has.
    headers: HeaderMap,
    /// The same in the form: names and values.
    parameters: Vec<(&'static str, String)>,
    cache: Mutex<Cache>,
}

/// The SHA-256 of a token: tokens themselves are not kept.
type Fingerprint = [u8; 32];

/// What tokens were said to allow, for the management API, where each request of a page carries the same token.
#[derive(Default)]
struct Cache(HashMap<Fingerprint, (Arc<Grant>, Instant)>);

impl Introspection {
    /// None where no endpoint is configured.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, IntrospectionError> {
        let settings = &config.oauth2;
        if settings.introspection_endpoint.is_empty() {
            return Ok(None);
        }
        let endpoint = settings.introspection_endpoint.parse().map_err(|_| IntrospectionError::Address)?;
        // Of its own: whoever keeps it busy does not hold up the fetching of keys.
        let client = HttpClient::new(settings.cacertfile.as_deref(), settings.timeout);
        let (headers, parameters) = credentials(settings);
        let client = client.map_err(IntrospectionError::Certificates)?;
        Ok(Some(Self { client, endpoint, headers, parameters, cache: Mutex::default() }))
    }

    /// What the token allows. The endpoint is asked, but for requests whose token it knew within the last 10 seconds.
    pub(super) async fn verify(
        &self,
        verifier: &Verifier,
        token: &[u8],
        occasion: Occasion,
    ) -> Result<Arc<Grant>, Refusal> {
        let token = text(token).ok_or(Refusal::NoToken)?;
        let Occasion::Request(_) = occasion else { return self.ask(verifier, token).await };
        let fingerprint = Sha256::digest(token).into();
        if let Some(grant) = self.cache.lock().find(&fingerprint, Instant::now()) {
            return Ok(grant);
        }
        let grant = self.ask(verifier, token).await?;
        let left_ms = grant.expires().0.saturating_sub(wall_clock().0);
        let lifetime = CACHE_LIFETIME.min(Duration::from_millis(left_ms));
        self.cache.lock().put(fingerprint, Arc::clone(&grant), Instant::now(), lifetime);
        Ok(grant)
    }

    async fn ask(&self, verifier: &Verifier, token: &str) -> Result<Arc<Grant>, Refusal> {
        let own = self.parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let parameters: Vec<(&str, &str)> = std::iter::once(("token", token)).chain(own).collect();
        let answer = self.client.post_form_with(&self.endpoint, form(&parameters), &self.headers).await?;
        Ok(Arc::new(verifier.introspected(&answer, wall_clock())?))
    }
}

impl Refusal {
    /// Whether nobody has said what the token is: it may be good all the same.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::Token(TokenError::NoVerdict))
    }
}

impl Cache {
    fn find(&self, fingerprint: &Fingerprint, now: Instant) -> Option<Arc<Grant>> {
        self.0.get(fingerprint).filter(|(_, until)| *until > now).map(|(grant, _)| Arc::clone(grant))
    }

    fn put(&mut self, fingerprint: Fingerprint, grant: Arc<Grant>, now: Instant, lifetime: Duration) {
        if self.0.len() >= CACHE_MAX {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() >= CACHE_MAX {
            self.0.clear();
        }
        self.0.insert(fingerprint, (grant, now + lifetime));
    }
}

/// The token as text, if it may be one (RFC 6750): most passwords that somebody mistypes are, so that the endpoint hears
/// them.
fn text(token: &[u8]) -> Option<&str> {
    let is_token = (1..=TOKEN_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(token).ok().filter(|_| is_token)
}

/// How the broker says who it is: in a header, or in the form.
fn credentials(settings: &OAuth2) -> (HeaderMap, Vec<(&'static str, String)>) {
    let id = settings.introspection_client_id.as_str();
    let secret = settings.introspection_client_secret.as_ref().map_or("", |secret| secret.expose());
    // RFC 9701 has signed answers, which are not understood here.
    let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    match settings.introspection_client_auth_method {
        IntrospectionAuth::RequestParam => {
            (headers, vec![("client_id", id.to_owned()), ("client_secret", secret.to_owned())])
        }
        IntrospectionAuth::Basic => {
            // Both are encoded before they are joined (RFC 6749, 2.3.1).
            let value = format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret))));
            if let Ok(mut value) = HeaderValue::from_str(&value) {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            (headers, Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::oauth2::{KeySet, ResourceServer, VerifierSettings};

    fn grant() -> Arc<Grant> {
        let settings = VerifierSettings {
            resource_servers: vec![ResourceServer::new("rabbitmq")],
            separate_issuers: Vec::new(),
            algorithms: Vec::new(),
            default_key: None,
        };
        let answer = r#"{ "active": true, "sub": "ann", "aud": "rabbitmq", "exp": 1e12 }"#;
        Arc::new(Verifier::new(settings, KeySet::default()).introspected(answer.as_bytes(), wall_clock()).unwrap())
    }

    #[test]
    fn what_may_be_a_token() {
        assert_eq!(text(b"ya29.a0-_~+/="), Some("ya29.a0-_~+/="));
        for bytes in [&b""[..], b"with space", b"line\n", b"\xc3\xa9", b"\xff", b"\0", &[b'a'; TOKEN_MAX + 1]] {
            assert_eq!(text(bytes), None);
        }
        assert!(text(&[b'a'; TOKEN_MAX]).is_some());
    }

    #[test]
    fn the_client_says_who_it_is() {
        let mut settings = Config::default().oauth2;
        settings.introspection_client_id = "a:b".into();
        settings.introspection_client_secret = Some(Secret::new("s%c t"));
        let (headers, parameters) = credentials(&settings);
        let value = &headers[AUTHORIZATION];
        assert_eq!(value, &format!("Basic {}", STANDARD.encode("a%3Ab:s%25c%20t")));
        assert!(parameters.is_empty() && value.is_sensitive() && !format!("{headers:?}").contains("Basic"));
        settings.introspection_client_auth_method = IntrospectionAuth::RequestParam;
        let (headers, parameters) = credentials(&settings);
        assert!(!headers.contains_key(AUTHORIZATION));
        assert_eq!(parameters, [("client_id", "a:b".to_owned()), ("client_secret", "s%c t".to_owned())]);
    }

    #[test]
    fn answers_are_remembered_within_bounds() {
        let (mut cache, grant, now) = (Cache::default(), grant(), Instant::now());
        let fingerprint = |number: usize| Fingerprint::from(Sha256::digest(number.to_be_bytes()));
        cache.put(fingerprint(0), Arc::clone(&grant), now, Duration::from_secs(2));
        assert_eq!(cache.find(&fingerprint(0), now + Duration::from_millis(1999)), Some(Arc::clone(&grant)));
        assert_eq!(cache.find(&fingerprint(0), now + Duration::from_secs(2)), None);
        assert_eq!(cache.find(&fingerprint(1), now), None);
        for number in 1..CACHE_MAX {
            cache.put(fingerprint(number), Arc::clone(&grant), now, CACHE_LIFETIME);
        }
        assert_eq!(cache.0.len(), CACHE_MAX);
        // What has ended makes room first.
        let later = now + Duration::from_secs(3);
        cache.put(fingerprint(CACHE_MAX), Arc::clone(&grant), later, CACHE_LIFETIME);
        assert_eq!(cache.0.len(), CACHE_MAX);
        assert!(cache.find(&fingerprint(1), later).is_some());
        cache.put(fingerprint(CACHE_MAX + 1), grant, later, CACHE_LIFETIME);
        assert_eq!(cache.0.len(), 1);
    }
}
