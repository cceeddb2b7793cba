//! What is known of a connection's encryption, for listings and for logins by certificate.

/// A TLS connection after its handshake. The names are those that RabbitMQ's listings have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `tlsv1.2` or `tlsv1.3`.
    pub version: &'static str,
    /// `any` for TLS 1.3, where it is no part of the cipher suite.
    pub key_exchange: &'static str,
    pub cipher: &'static str,
    pub hash: &'static str,
    /// The client's certificate, which was checked; None without one.
    pub peer: Option<PeerCertificate>,
}

/// A certificate that the broker serves with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificate {
    pub file: String,
    pub subject: String,
    /// Seconds since 1970.
    pub valid_until: i64,
}

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// By RFC 4514, the last part first: `CN=client,O=Org`.
    pub subject: String,
    pub issuer: String,
    /// `2026-01-31T00:00:00Z - 2027-01-31T00:00:00Z`.
    pub validity: String,
    /// Hexadecimal digits.
    pub serial_number: String,
    pub common_names: Vec<String>,
    /// In the order of the certificate.
    pub alternative_names: Vec<AlternativeName>,
}

/// Another name of a certificate's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    Dns(String),
    /// As text.
    Ip(String),
    Email(String),
    Uri(String),
    /// The value of an otherName of any type.
    Other(String),
}
