//! Which broker is meant: the Unix socket of a data directory on this machine, or a management API somewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};

use super::arguments::Arguments;
use super::error::CtlError;

/// The socket's name in the data directory.
const SOCKET: &str = "warren.sock";
/// Where a packaged broker keeps its data.
const PACKAGED: &str = "/var/lib/warren";

/// A broker's management API.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) place: TargetPlace,
    /// The value of the `Host` header.
    pub(crate) authority: String,
    /// What stands before `/api`.
    pub(crate) prefix: String,
    /// The value of the `Authorization` header.
    pub(crate) authorization: Option<String>,
}

/// Where to connect.
#[derive(Clone)]
pub(crate) enum TargetPlace {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16, name: ServerName<'static>, check: Check },
}

/// Whether a server's certificate counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Check {
    Verified,
    /// `--insecure`: any certificate will do.
    Unverified,
}

/// What the environment and the configuration say.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The data directory that a broker started here would use.
    pub data_dir: PathBuf,
}

impl Surroundings {
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let found = self.environment.iter().find(|(variable, _)| variable == name)?;
        Some(found.1.as_str()).filter(|value| !value.is_empty())
    }
}

impl Target {
    /// The broker that the options, then the environment, then the configuration name.
    ///
    /// # Errors
    /// A URI that cannot be read.
    pub(crate) fn choose(arguments: &Arguments, surroundings: &Surroundings) -> Result<Self, CtlError> {
        let check = if arguments.has("insecure") { Check::Unverified } else { Check::Verified };
        if let Some(uri) = arguments.option("uri") {
            return Self::parse(uri, check).map_err(CtlError::BadArgument);
        }
        if let Some(data_dir) = arguments.option("data-dir") {
            return Ok(Self::unix(Path::new(data_dir).join(SOCKET)));
        }
        if let Some(host) = arguments.option("node").and_then(remote_host) {
            return Self::parse(&format!("http://{host}"), check).map_err(CtlError::BadArgument);
        }
        if let Some(uri) = surroundings.variable("WARREN_URI") {
            return Self::parse(uri, check).map_err(|text| CtlError::BadArgument(format!("WARREN_URI: {text}")));
        }
        let own = surroundings.data_dir.join(SOCKET);
        let packaged = Path::new(PACKAGED).join(SOCKET);
        Ok(Self::unix(if !own.exists() && packaged.exists() { packaged } else { own }))
    }

    fn unix(path: PathBuf) -> Self {
        Self {
            place: TargetPlace::Unix(path),
            authority: "localhost".to_owned(),
            prefix: String::new(),
            authorization: None,
        }
    }

    /// Reads `http[s]://[user:password@]host[:port][/prefix]` or `unix:PATH`. Without a user it is guest.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(uri: &str, check: Check) -> Result<Self, String> {
        if let Some(path) = uri.strip_prefix("unix:") {
            return Ok(Self::unix(PathBuf::from(path.strip_prefix("//").unwrap_or(path))));
        }
        let form = "expected http[s]://user:password@host:15672 or unix:PATH";
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| format!("'{uri}' is no URI: {form}"))?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(format!("the scheme '{scheme}' is not known: {form}")),
        };
        let (place, prefix) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user, place) = place.rsplit_once('@').map_or((None, place), |(user, place)| (Some(user), place));
        let (host, port) = split_port(place)?;
        if host.is_empty() {
            return Err(format!("no host: {form}"));
        }
        let port = port.unwrap_or(if tls { 15671 } else { 15672 });
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let place = if tls {
            let name = ServerName::try_from(host.clone()).map_err(|_| format!("'{host}' is no host name"))?;
            TargetPlace::Tls { host, port, name, check }
        } else {
            TargetPlace::Tcp { host, port }
        };
        let (user, password) =
            user.unwrap_or("guest:guest").split_once(':').unwrap_or_else(|| (user.unwrap_or_default(), ""));
        let authorization = Some(basic(&decoded(user)?, &decoded(password)?));
        Ok(Self { place, authority, prefix: prefix.trim_end_matches('/').to_owned(), authorization })
    }

    /// The same place for another user.
    pub(crate) fn with_user(&self, user: &str, password: &str) -> Self {
        Self { authorization: Some(basic(user, password)), ..self.clone() }
    }

    /// As a message names it, without a password.
    pub(crate) fn name(&self) -> String {
        match &self.place {
            TargetPlace::Unix(path) => format!("unix:{}", path.display()),
            TargetPlace::Tcp { .. } => format!("http://{}", self.authority),
            TargetPlace::Tls { .. } => format!("https://{}", self.authority),
        }
    }

    /// What to try when nobody answers.
    pub(crate) fn advice(&self) -> String {
        match &self.place {
            TargetPlace::Unix(_) => "Is it running? Start it with `warren serve --data-dir DIR`, name its directory with --data-dir, \
                 or another broker with --uri http://user:password@host:15672 (or WARREN_URI)."
                .to_owned(),
            TargetPlace::Tcp { .. } | TargetPlace::Tls { .. } => "Is it running, and does its management listener bind to that address? Look with `warren ctl status` on \
                 its own machine."
                .to_owned(),
        }
    }

    /// The host name for messages about ports.
    pub(crate) fn host(&self) -> &str {
        match &self.place {
            TargetPlace::Unix(_) => "localhost",
            TargetPlace::Tcp { host, .. } | TargetPlace::Tls { host, .. } => host,
        }
    }
}

/// The host of a node name, if it is another machine.
fn remote_host(node: &str) -> Option<&str> {
    let host = node.split_once('@').map_or("", |(_, host)| host);
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = own.trim();
    let local = host.is_empty() || host == "localhost" || host == own || own.split('.').next() == Some(host);
    (!local).then_some(host)
}

fn split_port(place: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|_| format!("'{text}' is no port"))?),
    };
    Ok((host.to_owned(), port))
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "user and password must be UTF-8".to_owned())
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// The TLS settings for one check: the certificates that the world trusts, and those of `WARREN_CA_FILE`.
///
/// # Errors
/// The cryptography cannot do the protocol versions.
pub(crate) fn tls(check: Check, authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for authority in authorities {
        let _ = roots.add(authority.clone());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    if check == Check::Unverified {
        config.dangerous().set_certificate_verifier(Arc::new(super::unverified::Unverified::new()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart() {
        let target = Target::parse("http://us%40er:p:w@broker/prefix/", Check::Verified).expect("valid");
        assert_eq!((target.authority.as_str(), target.prefix.as_str()), ("broker:15672", "/prefix"));
        assert_eq!(target.authorization, Some(basic("us@er", "p:w")));
        assert_eq!(target.name(), "http://broker:15672");
        let target = Target::parse("https://[::1]", Check::Verified).expect("valid");
        assert_eq!((target.authority.as_str(), target.host()), ("[::1]:15671", "::1"));
        let target = Target::parse("unix:///run/warren.sock", Check::Verified).expect("valid");
        assert_eq!(target.name(), "unix:/run/warren.sock");
    }

    #[test]
    fn a_bad_uri_is_refused() {
        for uri in ["localhost", "amqp://localhost", "http://", "http://host:port"] {
            assert!(Target::parse(uri, Check::Verified).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_node_on_this_machine_is_the_socket() {
        assert_eq!(remote_host("rabbit@localhost"), None);
        assert_eq!(remote_host("rabbit"), None);
        assert_eq!(remote_host("rabbit@other.example"), Some("other.example"));
    }
}
