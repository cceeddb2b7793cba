//! The keys that tokens are verified with: from files, from an address, or from where their issuers say they are; again
//! from time to time, and when a token names one that is unknown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::http_client::{CertificatesError, HttpClient, HttpError};
use crate::config::{Config, FurtherResourceServer, OAuth2, TokenAlgorithm, reason};
use crate::model::ids::Timestamp;
use crate::oauth2::{
    self, Algorithm, Audience, Grant, KeyError, KeyOrigin, KeyOwner, KeySet, ResourceServer, TokenError, Verifier,
};

/// The time from one fetch to the next of the same keys, at least: tokens with made-up keys cost an issuer no more.
const FETCH_PAUSE: Duration = Duration::from_secs(1);
/// Where an issuer describes itself.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// The largest file of keys.
const FILE_MAX: u64 = 1024 * 1024;

/// Why tokens cannot be verified at all: the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeysError {
    #[error("oauth2.cacertfile {0}")]
    Certificates(CertificatesError),
    #[error("oauth2.{key}: {error}")]
    Key { key: String, error: FileError },
    #[error("oauth2.jwks_uri is not an address")]
    Address,
    #[error("oauth2: the issuer {0:?} is not an address")]
    Issuer(String),
}

/// Why somebody is not let in. For the log, and without secrets.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenRefusal {
    #[error("the token is refused: {0}")]
    Refused(#[from] TokenError),
    /// Its issuer may well have signed it.
    #[error("the token cannot be checked: {0}, and the issuer gives no keys")]
    NoKeys(TokenError),
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}: {}", path.display(), reason(error))]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{} is larger than {FILE_MAX} bytes", path.display())]
    Large { path: PathBuf },
    #[error("{}: {error}", path.display())]
    Keys { path: PathBuf, error: KeyError },
}

/// Why keys could not be fetched; those that were there stay.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Http(#[from] HttpError),
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{0}")]
    Keys(KeyError),
    #[error("the issuer's description has no usable jwks_uri")]
    Discovery,
}

/// Where keys are, besides those that the configuration names one by one.
enum Source {
    File(PathBuf),
    Address(Uri),
    /// The description that an issuer has of itself.
    Description(Uri),
}

/// Keys that are fetched together.
struct KeyPlace {
    owner: KeyOwner,
    source: Source,
    /// When they were last asked for, and whether there were any. Whoever holds it may ask.
    fetched: Mutex<Option<(Instant, bool)>>,
}

/// See the module's documentation.
pub(super) struct TokenKeys {
    verifier: Verifier,
    /// Those of `oauth2.signing_keys`, which no fetch replaces.
    fixed: KeySet,
    /// At most one for each owner.
    places: Vec<KeyPlace>,
    client: HttpClient,
    refresh: Duration,
}

impl TokenKeys {
    /// Reads the files; what is to be fetched comes later.
    pub(super) fn open(config: &Config) -> Result<Self, TokenKeysError> {
        let settings = &config.oauth2;
        let client = HttpClient::new(settings.cacertfile.as_deref(), settings.timeout);
        let mut fixed = KeySet::default();
        for (name, path) in &settings.signing_keys {
            let refuse = |error| TokenKeysError::Key { key: format!("signing_keys.{name}"), error };
            add_key(&mut fixed, name, path.as_ref()).map_err(refuse)?;
        }
        let keys = Self {
            verifier: Verifier::new(verifier_settings(settings), fixed.clone()),
            fixed,
            places: places(settings)?,
            client: client.map_err(TokenKeysError::Certificates)?,
            refresh: settings.refresh_interval,
        };
        for place in &keys.places {
            if let Source::File(path) = &place.source {
                let set = read_set(path).map_err(|error| TokenKeysError::Key { key: "jwks_file".to_owned(), error })?;
                keys.put(&place.owner, set);
            }
        }
        Ok(keys)
    }

    /// Fetches keys now and then, for as long as anybody needs them; those of an issuer that is slow hold up no others.
    pub(super) fn start(self: &Arc<Self>) {
        for at in 0..self.places.len() {
            let keys = Arc::downgrade(self);
            tokio::spawn(async move {
                while let Some(strong) = keys.upgrade() {
                    let Some(place) = strong.places.get(at) else { return };
                    strong.fetch_unless_fresh(place, Instant::now()).await;
                    let pause = strong.refresh;
                    drop(strong);
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    /// What checks claims, wherever they come from.
    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// What the token allows. If its key is unknown, the keys of its issuer, and of no other, are fetched first, though
    /// not more often than once a second.
    pub(super) async fn verify(&self, token: &[u8], now: Timestamp) -> Result<Grant, TokenRefusal> {
        let error = match self.verifier.verify(token, now) {
            Ok(grant) => return Ok(grant),
            Err(error) => error,
        };
        let (TokenError::UnknownKey(_, owner) | TokenError::NoKey(owner)) = &error else { return Err(error.into()) };
        let Some(place) = self.places.iter().find(|place| place.owner == *owner) else { return Err(error.into()) };
        let reached = self.fetch_unless_fresh(place, Instant::now()).await;
        self.verifier.verify(token, now).map_err(|error| match (&error, reached) {
            (TokenError::UnknownKey(..) | TokenError::NoKey(_), false) => TokenRefusal::NoKeys(error),
            _ => error.into(),
        })
    }

    /// Fetches keys, unless that has been done since `asked` or less than a pause before. Whether there were any, the last
    /// time.
    async fn fetch_unless_fresh(&self, place: &KeyPlace, asked: Instant) -> bool {
        // Whoever comes meanwhile waits for the same fetch.
        let mut fetched = place.fetched.lock().await;
        if let Some((at, reached)) = *fetched
            && at + FETCH_PAUSE > asked
        {
            return reached;
        }
        let outcome = Box::pin(self.fetch(&place.source)).await;
        let reached = outcome.is_ok();
        *fetched = Some((Instant::now(), reached));
        match outcome {
            Ok(set) => self.put(&place.owner, set),
            Err(error) => {
                let issuer = place.owner.issuer();
                tracing::warn!(issuer, %error, "oauth2: the keys of tokens cannot be fetched; those that are known stay");
            }
        }
        reached
    }

    async fn fetch(&self, source: &Source) -> Result<(KeySet, Vec<String>), FetchError> {
        let address = match source {
            Source::File(path) => return Ok(read_set(path)?),
            Source::Address(address) => address.clone(),
            Source::Description(description) => {
                let text = self.client.get(description).await?;
                let parsed: serde_json::Value = serde_json::from_slice(&text).map_err(|_| FetchError::Discovery)?;
                let address = parsed.get("jwks_uri").and_then(serde_json::Value::as_str).unwrap_or_default();
                let address: Uri = address.parse().map_err(|_| FetchError::Discovery)?;
                // What was asked for safely does not become unsafe on the way.
                if description.scheme_str() == Some("https") && address.scheme_str() != Some("https") {
                    return Err(FetchError::Discovery);
                }
                address
            }
        };
        let json = self.client.get(&address).await?;
        KeySet::parse(&json, KeyOrigin::Public).map_err(FetchError::Keys)
    }

    fn put(&self, owner: &KeyOwner, (set, warnings): (KeySet, Vec<String>)) {
        let issuer = owner.issuer();
        for warning in warnings {
            tracing::warn!(issuer, "oauth2: {warning}");
        }
        let mut keys = match owner {
            KeyOwner::Shared => self.fixed.clone(),
            KeyOwner::Issuer(_) => KeySet::default(),
        };
        keys.add_all(set);
        let before = self.verifier.keys(owner);
        if !before.names().eq(keys.names()) {
            tracing::info!(issuer, keys = keys.names().count(), "oauth2: keys of tokens are loaded");
        }
        self.verifier.set_keys(owner, keys);
    }
}

/// Where the keys are that have to be fetched, once for each owner.
fn places(settings: &OAuth2) -> Result<Vec<KeyPlace>, TokenKeysError> {
    let place = |owner, source| KeyPlace { owner, source, fetched: Mutex::new(None) };
    let mut places = Vec::new();
    match (&settings.jwks_file, settings.jwks_uri.as_str()) {
        (Some(path), _) => places.push(place(KeyOwner::Shared, Source::File(path.clone()))),
        (None, "") => {}
        (None, uri) => {
            let address = uri.parse().map_err(|_| TokenKeysError::Address)?;
            places.push(place(KeyOwner::Shared, Source::Address(address)));
        }
    }
    for issuer in separate_issuers(settings) {
        let description = format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/'));
        let address = description.parse().map_err(|_| TokenKeysError::Issuer(issuer.clone()))?;
        places.push(place(KeyOwner::Issuer(issuer.into()), Source::Description(address)));
    }
    Ok(places)
}

/// The issuers that are asked where their keys are, each once: those of `[oauth2]`, unless it says where keys are, and those
/// that resource servers have besides.
fn separate_issuers(settings: &OAuth2) -> Vec<String> {
    let plain = |issuer: &str| issuer.trim_end_matches('/').to_owned();
    let has_keys = settings.jwks_file.is_some() || !settings.jwks_uri.is_empty() || !settings.signing_keys.is_empty();
    let of_servers = settings.resource_servers.values().filter_map(|server| server.issuers.as_ref()).flatten();
    let mut seen = BTreeSet::new();
    if has_keys {
        seen.extend(settings.issuers.iter().map(|issuer| plain(issuer)));
    }
    settings.issuers.iter().chain(of_servers).filter(|issuer| seen.insert(plain(issuer))).cloned().collect()
}

/// What cannot be read or used of the files of keys: the key of each file, and why.
pub(super) fn check(settings: &OAuth2) -> Vec<(String, String)> {
    let signing = settings.signing_keys.iter().filter_map(|(name, path)| {
        let error = add_key(&mut KeySet::default(), name, path.as_ref()).err()?;
        Some((format!("oauth2.signing_keys.{name}"), error.to_string()))
    });
    let set = settings.jwks_file.as_deref().and_then(|path| read_set(path).err());
    let set = set.map(|error| ("oauth2.jwks_file".to_owned(), error.to_string()));
    signing.chain(set).collect()
}

fn add_key(keys: &mut KeySet, name: &str, path: &Path) -> Result<(), FileError> {
    let pem = read(path)?;
    keys.add_pem(name, &pem).map_err(|error| FileError::Keys { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error| FileError::Read { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(FileError::Large { path: path.to_owned() });
    }
    std::fs::read(path).map_err(failed)
}

fn read_set(path: &Path) -> Result<(KeySet, Vec<String>), FileError> {
    let json = read(path)?;
    KeySet::parse(&json, KeyOrigin::Private).map_err(|error| FileError::Keys { path: path.to_owned(), error })
}

fn verifier_settings(settings: &OAuth2) -> oauth2::VerifierSettings {
    let first = FurtherResourceServer::default();
    let first = (!settings.resource_server_id.is_empty()).then_some((&settings.resource_server_id, &first));
    let servers = first.into_iter().chain(&settings.resource_servers);
    oauth2::VerifierSettings {
        resource_servers: servers.map(|(id, own)| resource_server(settings, id, own)).collect(),
        separate_issuers: separate_issuers(settings),
        algorithms: settings.algorithms.iter().map(|algorithm| algorithm_of(*algorithm)).collect(),
        default_key: (!settings.default_key.is_empty()).then(|| settings.default_key.clone()),
    }
}

/// A resource server with what is its own; the rest is that of `[oauth2]`.
fn resource_server(settings: &OAuth2, id: &str, own: &FurtherResourceServer) -> ResourceServer {
    let words = |text: &String| text.split_whitespace().map(str::to_owned).collect();
    let aliases = own.scope_aliases.as_ref().unwrap_or(&settings.scope_aliases);
    let verifies = own.verify_aud.unwrap_or(settings.verify_aud);
    ResourceServer {
        id: id.to_owned(),
        issuers: own.issuers.as_ref().unwrap_or(&settings.issuers).clone(),
        kind: own.resource_server_type.as_ref().unwrap_or(&settings.resource_server_type).clone(),
        scope_prefix: own.scope_prefix.as_ref().unwrap_or(&settings.scope_prefix).replace("{resource_server_id}", id),
        additional_scopes_keys: own.additional_scopes_keys.as_ref().unwrap_or(&settings.additional_scopes_keys).clone(),
        username_claims: own.username_claims.as_ref().unwrap_or(&settings.username_claims).clone(),
        audience: if verifies { Audience::Required } else { Audience::Ignored },
        scope_aliases: aliases.iter().map(|(alias, scopes)| (alias.clone(), words(scopes))).collect(),
    }
}

fn algorithm_of(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::Rs256 => Algorithm::RS256,
        TokenAlgorithm::Rs384 => Algorithm::RS384,
        TokenAlgorithm::Rs512 => Algorithm::RS512,
        TokenAlgorithm::Ps256 => Algorithm::PS256,
        TokenAlgorithm::Ps384 => Algorithm::PS384,
        TokenAlgorithm::Ps512 => Algorithm::PS512,
        TokenAlgorithm::Es256 => Algorithm::ES256,
        TokenAlgorithm::Es384 => Algorithm::ES384,
        TokenAlgorithm::EdDsa => Algorithm::EdDSA,
        TokenAlgorithm::Hs256 => Algorithm::HS256,
        TokenAlgorithm::Hs384 => Algorithm::HS384,
        TokenAlgorithm::Hs512 => Algorithm::HS512,
    }
}
