//! From the files of `[tls]` to what rustls serves with.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::config::{self, TlsCipher, TlsVerify, TlsVersion};
use crate::model::tls::{AlternativeName, PeerCertificate, ServerCertificate};

use super::certificate;
use super::names::{ByServerName, Named};

/// A certificate that ends within this time is warned of.
const ENDS_SOON_SECONDS: i64 = 30 * DAY_SECONDS;
const DAY_SECONDS: i64 = 24 * 3600;

/// What is wrong with the settings or their files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key}: {}: {problem}", path.display())]
    File { key: String, path: PathBuf, problem: Problem },
    #[error("tls.ciphers: none of them is of a version in tls.versions")]
    NoCipher,
    #[error("tls: {0}")]
    Other(String),
}

/// What is wrong with one file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is not PEM: {0}")]
    NotPem(String),
    #[error("has no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("has a certificate that cannot be used: {0}")]
    BadCertificate(String),
    #[error("has no private key (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    #[error("the private key is encrypted; write one that is not, with openssl pkcs8 -in KEY -out NEW")]
    EncryptedKey,
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    #[error("the key does not belong to the certificate in {} (subject {subject})", certificate.display())]
    Mismatch { certificate: PathBuf, subject: String },
}

/// One for each kind of listener, and what they serve.
pub(super) struct ServerConfigs {
    pub(super) amqp: Arc<ServerConfig>,
    pub(super) https: Arc<ServerConfig>,
    pub(super) certificates: Vec<ServerCertificate>,
}

/// Whether a client may come back to an earlier session. AMQP connections live long, so that there is little to save; and
/// the certificate of a client that comes back would not be checked again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sessions {
    Resumed,
    NotResumed,
}

/// What tells that one of the files is another than before. None for a file that is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<Option<Version>>);

/// Where a file lies on the disk, its size, and when it was written.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// A file, and the key that names it.
struct Source<'a> {
    key: String,
    path: &'a Path,
}

/// A certificate and its key, as configured.
struct Pair<'a> {
    certificate: Source<'a>,
    key: Source<'a>,
    server_names: &'a [String],
}

impl Fingerprint {
    pub(super) fn of(settings: &config::Tls) -> Self {
        let pairs = pairs(settings, "");
        let paths = pairs.iter().flat_map(|pair| [pair.certificate.path, pair.key.path]);
        let look = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            let modified = (found.mtime(), found.mtime_nsec());
            Some(Version { device: found.dev(), inode: found.ino(), bytes: found.len(), modified })
        };
        Self(paths.chain(settings.ca_file.as_deref()).map(look).collect())
    }
}

/// Reads all files. Logs what it found. `section` is the one that has the keys of the first certificate.
pub(super) fn read(settings: &config::Tls, section: &str) -> Result<ServerConfigs, TlsError> {
    let provider = Arc::new(provider(settings)?);
    let pairs = pairs(settings, section);
    let read = pairs.iter().map(|pair| read_pair(pair, &provider)).collect::<Result<Vec<_>, _>>()?;
    let (named, said) = read.into_iter().unzip();
    let resolver = Arc::new(ByServerName(named));
    let authorities = match (settings.verify, &settings.ca_file) {
        (TlsVerify::Peer, Some(path)) => Some(read_authorities(&Source { key: "tls.ca_file".to_owned(), path })?),
        (TlsVerify::Peer, None) | (TlsVerify::None, _) => None,
    };
    let versions = versions(settings);
    let build = |authorities: Option<RootCertStore>, sessions: Sessions| {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&versions).map_err(|_| TlsError::NoCipher)?;
        let builder = match authorities {
            Some(authorities) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider));
                let verifier = if settings.fail_if_no_peer_cert { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| TlsError::Other(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let resolver: Arc<ByServerName> = Arc::clone(&resolver);
        let mut built = builder.with_cert_resolver(resolver);
        if sessions == Sessions::NotResumed {
            built.session_storage = Arc::new(NoServerSessionStorage {});
            built.send_tls13_tickets = 0;
        }
        Ok(Arc::new(built))
    };
    let amqp = build(authorities, Sessions::NotResumed)?;
    let https = build(None, Sessions::Resumed)?;
    Ok(ServerConfigs { amqp, https, certificates: said })
}

/// The certificate of clients without a server name comes first.
fn pairs<'a>(settings: &'a config::Tls, section: &str) -> Vec<Pair<'a>> {
    let source = |key: String, path| Source { key, path };
    let first = settings.certificate_file.as_deref().zip(settings.key_file.as_deref());
    let first = first.map(|(certificate, key)| Pair {
        certificate: source(format!("{section}.certificate_file"), certificate),
        key: source(format!("{section}.key_file"), key),
        server_names: &[],
    });
    let further = settings.certificates.iter().enumerate().map(|(index, pair)| Pair {
        certificate: source(format!("tls.certificates[{index}].certificate_file"), &pair.certificate_file),
        key: source(format!("tls.certificates[{index}].key_file"), &pair.key_file),
        server_names: &pair.server_names,
    });
    first.into_iter().chain(further).collect()
}

impl Source<'_> {
    fn problem(&self, problem: Problem) -> TlsError {
        TlsError::File { key: self.key.clone(), path: self.path.to_owned(), problem }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        std::fs::read(self.path).map_err(|error| self.problem(Problem::Unreadable(error)))
    }

    /// All certificates of the file, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let pem = self.read()?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = read.map_err(|error| self.problem(Problem::NotPem(error.to_string())))?;
        if certificates.is_empty() {
            return Err(self.problem(Problem::NoCertificate));
        }
        Ok(certificates)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let pem = self.read()?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(_) if is_encrypted(&pem) => Err(self.problem(Problem::EncryptedKey)),
            Ok(key) => Ok(key),
            Err(PemError::NoItemsFound) if is_encrypted(&pem) => Err(self.problem(Problem::EncryptedKey)),
            Err(PemError::NoItemsFound) => Err(self.problem(Problem::NoKey)),
            // Its text would not show any of the file, but the kind is enough.
            Err(_) if is_encrypted(&pem) => Err(self.problem(Problem::EncryptedKey)),
            Err(error) => Err(self.problem(Problem::NotPem(error.to_string()))),
        }
    }

    fn warn_if_readable_by_all(&self) {
        let mode = std::fs::metadata(self.path).map_or(0, |found| found.permissions().mode());
        if mode & 0o004 != 0 {
            let path = self.path.display();
            tracing::warn!(key = self.key, %path, mode = format!("{:o}", mode & 0o777), "private key: everybody can read it");
        }
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    let has = |text: &[u8]| pem.windows(text.len()).any(|window| window == text);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED")
}

fn read_pair(pair: &Pair<'_>, provider: &CryptoProvider) -> Result<(Named, ServerCertificate), TlsError> {
    let chain = pair.certificate.certificates()?;
    let bad = |text: &str| pair.certificate.problem(Problem::BadCertificate(text.to_owned()));
    let leaf = chain.first().ok_or_else(|| pair.certificate.problem(Problem::NoCertificate))?;
    let said = certificate::read(leaf).ok_or_else(|| bad("it is not X.509"))?;
    let (begins, ends) = certificate::validity(leaf).ok_or_else(|| bad("it is not X.509"))?;
    let private = pair.key.private_key()?;
    pair.key.warn_if_readable_by_all();
    let key = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => pair.key.problem(Problem::Mismatch {
            certificate: pair.certificate.path.to_owned(),
            subject: said.subject.clone(),
        }),
        Error::InvalidCertificate(error) => bad(&format!("{error:?}")),
        error => pair.key.problem(Problem::BadKey(error.to_string())),
    })?;
    let names = if pair.server_names.is_empty() { own_names(&said) } else { pair.server_names.to_vec() };
    let names: BTreeSet<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    let names: Vec<String> = names.into_iter().collect();
    tell(pair, &said, &names, (begins, ends));
    let file = pair.certificate.path.display().to_string();
    let served = ServerCertificate { file, subject: said.subject, valid_until: ends };
    Ok((Named { names, key: Arc::new(key) }, served))
}

/// The alternative names count; the common name does where there are none.
fn own_names(said: &PeerCertificate) -> Vec<String> {
    let alternative = said.alternative_names.iter().filter_map(|name| match name {
        AlternativeName::Dns(name) => Some(name.clone()),
        AlternativeName::Ip(_) | AlternativeName::Email(_) | AlternativeName::Uri(_) | AlternativeName::Other(_) => {
            None
        }
    });
    let names: Vec<String> = alternative.collect();
    if names.is_empty() { said.common_names.clone() } else { names }
}

fn tell(pair: &Pair<'_>, said: &PeerCertificate, names: &[String], (begins, ends): (i64, i64)) {
    let path = pair.certificate.path.display();
    let PeerCertificate { subject, validity, .. } = said;
    tracing::info!(%path, subject, validity, names = names.join(" "), "TLS certificate");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < begins {
        tracing::warn!(%path, validity, "the TLS certificate is not valid yet: clients will refuse it");
    } else if ends < now {
        tracing::warn!(%path, validity, "the TLS certificate is valid no more: clients will refuse it");
    } else if ends - now < ENDS_SOON_SECONDS {
        tracing::warn!(%path, validity, "the TLS certificate ends in {} days", (ends - now) / DAY_SECONDS);
    }
}

fn read_authorities(source: &Source<'_>) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in source.certificates()? {
        let subject = certificate::read(&certificate).map_or_else(String::new, |said| said.subject);
        authorities
            .add(certificate)
            .map_err(|error| source.problem(Problem::BadCertificate(format!("{error} (subject {subject:?})"))))?;
    }
    Ok(authorities)
}

fn versions(settings: &config::Tls) -> Vec<&'static SupportedProtocolVersion> {
    let version = |version: &TlsVersion| match version {
        TlsVersion::V1_2 => &rustls::version::TLS12,
        TlsVersion::V1_3 => &rustls::version::TLS13,
    };
    settings.versions.iter().map(version).collect()
}

/// The cryptography, with the suites of the configuration in its order.
fn provider(settings: &config::Tls) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if settings.ciphers.is_empty() {
        return Ok(provider);
    }
    let all = std::mem::take(&mut provider.cipher_suites);
    let find = |cipher: &TlsCipher| all.iter().find(|suite| suite.suite() == suite_of(*cipher)).copied();
    provider.cipher_suites = settings.ciphers.iter().filter_map(find).collect();
    // A version without a suite would fail handshakes one by one.
    let has = |version| provider.cipher_suites.iter().any(|suite: &SupportedCipherSuite| suite.version() == version);
    if versions(settings).into_iter().any(has) { Ok(provider) } else { Err(TlsError::NoCipher) }
}

fn suite_of(cipher: TlsCipher) -> CipherSuite {
    match cipher {
        TlsCipher::Tls13Aes256 => CipherSuite::TLS13_AES_256_GCM_SHA384,
        TlsCipher::Tls13Aes128 => CipherSuite::TLS13_AES_128_GCM_SHA256,
        TlsCipher::Tls13Chacha20 => CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        TlsCipher::EcdsaAes256 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TlsCipher::EcdsaAes128 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TlsCipher::EcdsaChacha20 => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TlsCipher::RsaAes256 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TlsCipher::RsaAes128 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TlsCipher::RsaChacha20 => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}
