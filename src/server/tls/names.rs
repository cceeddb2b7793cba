//! Which certificate a client gets: by the server name it asks for, and by what it can check.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// One certificate with its key, and the names it is for, in lower case.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) names: Vec<String>,
    pub(super) key: Arc<CertifiedKey>,
}

/// The certificates of the server. The first one is for clients that name no server, or an unknown one.
#[derive(Debug)]
pub(super) struct ByServerName(pub(super) Vec<Named>);

impl ResolvesServerCert for ByServerName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let named = hello.server_name().map_or_else(Vec::new, |name| self.named(name));
        let candidates = || named.iter().copied().chain(&self.0);
        let usable = candidates().find(|entry| entry.key.key.choose_scheme(schemes).is_some());
        usable.or_else(|| candidates().next()).map(|entry| Arc::clone(&entry.key))
    }
}

impl ByServerName {
    fn named(&self, server: &str) -> Vec<&Named> {
        let server = server.to_ascii_lowercase();
        self.0.iter().filter(|entry| entry.names.iter().any(|name| matches(name, &server))).collect()
    }
}

/// Whether a name of a certificate, which may be `*.example.com`, is this server's.
fn matches(name: &str, server: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => server.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => name == server,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        assert!(matches("broker.example.com", "broker.example.com"));
        assert!(!matches("broker.example.com", "other.example.com"));
        assert!(matches("*.example.com", "broker.example.com"));
        assert!(!matches("*.example.com", "a.b.example.com") && !matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", ".example.com"));
    }
}
