//! What a configuration names outside itself, looked at before anything is started: the files of TLS, the keys and authorities
//! of those who know users, the definitions to import, and addresses that two listeners would share.

use std::net::SocketAddr;

use crate::config::{ConfigError, Listening, Loaded};

use super::tls::{Certificates, TlsError};
use super::{authentication, management};

/// All that a broker with this configuration would not start with, each with the place that names it.
#[must_use]
pub fn check(loaded: &Loaded) -> Vec<ConfigError> {
    let config = &loaded.config;
    let mut errors = Vec::new();
    let mut tell = |key: &str, message: String| {
        errors.push(ConfigError { origin: loaded.origins.of(key), key: key.to_owned(), message });
    };
    match Certificates::open(config) {
        Ok(_) => {}
        Err(TlsError::File { key, path, problem }) => tell(&key, format!("{}: {problem}", path.display())),
        Err(TlsError::NoCipher) => tell("tls.ciphers", "none of them is of a version in tls.versions".to_owned()),
        Err(TlsError::Other(text)) => tell("tls", text),
    }
    for (key, problem) in authentication::check(config) {
        tell(&key, problem);
    }
    for problem in management::check(config) {
        tell("definitions.load", problem);
    }
    let all: Vec<Listening> = [
        config.amqp.addresses(),
        config.amqps_addresses(),
        config.management.addresses(),
        if config.management_tls().is_configured() { config.management.tls_addresses() } else { Vec::new() },
        config.prometheus.addresses(),
        if config.prometheus_tls().is_configured() { config.prometheus.tls_addresses() } else { Vec::new() },
    ]
    .concat();
    for (index, one) in all.iter().enumerate() {
        let same = |other: &&Listening| is_shared(other.address, one.address);
        if let Some(first) = all[..index].iter().find(same) {
            tell(one.key, format!("{} listens on {} already", first.key, first.address));
        }
    }
    errors
}

/// Whether two addresses cannot be listened on both. Port 0 is another one each time; all addresses of IPv6 are those of
/// IPv4 too.
fn is_shared(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, own: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || own.is_ipv4()) || all.ip() == own.ip()
    };
    one.port() != 0 && one.port() == other.port() && (covers(one, other) || covers(other, one))
}
