//! The types of configuration values that the standard library does not have.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A password. It never appears in `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself: not for logs or messages.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(********)")
    }
}

/// How much memory may be in use before publishers are blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HighWatermark {
    /// A share of the memory of the machine or the control group, 1 to 100.
    Percent(u8),
    Bytes(u64),
}

impl HighWatermark {
    /// The watermark in bytes, on a machine with `memory` bytes (see [`super::machine_memory`]).
    #[must_use]
    pub fn bytes(self, memory: u64) -> u64 {
        match self {
            // Divided first: no overflow, and 100 bytes do not matter.
            Self::Percent(percent) => memory / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// How much of the disk must be free, or publishers are blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeLimit {
    /// A share of the memory of the machine or the control group, 1 to 1000.
    Percent(u16),
    Bytes(u64),
}

impl FreeLimit {
    /// The limit in bytes, on a machine with `memory` bytes (see [`super::machine_memory`]).
    #[must_use]
    pub fn bytes(self, memory: u64) -> u64 {
        match self {
            Self::Percent(percent) => memory / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// A user to be made on the first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// The password, whether it was given in place or in a file. None only while a configuration
    /// is being loaded.
    pub password: Option<Secret>,
    /// The file the password was read from.
    pub password_file: Option<PathBuf>,
    /// `administrator`, `monitoring`, `policymaker`, `management` or names of one's own.
    pub tags: Vec<String>,
    pub permissions: Vec<Permission>,
}

/// What a user may do in a virtual host: three regular expressions over names of exchanges and
/// queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    pub vhost: String,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// A user that new virtual hosts get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultUser {
    /// Which virtual hosts, by their names; unanchored.
    pub vhost_pattern: String,
    /// None: nobody logs in as this user with a password.
    pub password: Option<Secret>,
    /// The file the password was read from.
    pub password_file: Option<PathBuf>,
    pub tags: Vec<String>,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// A certificate of the server, its key, and the names it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsCertificate {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    /// Empty: the names in the certificate.
    pub server_names: Vec<String>,
}

/// What a further resource server of tokens has of its own. None: as `[oauth2]` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FurtherResourceServer {
    pub issuers: Option<Vec<String>>,
    pub resource_server_type: Option<String>,
    pub scope_prefix: Option<String>,
    pub additional_scopes_keys: Option<Vec<String>>,
    pub scope_aliases: Option<BTreeMap<String, String>>,
    pub username_claims: Option<Vec<String>>,
    pub verify_aud: Option<bool>,
}

/// An operator policy that new virtual hosts get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultOperatorPolicy {
    /// Which virtual hosts, by their names; unanchored.
    pub vhost_pattern: String,
    /// Which queues, by their names; unanchored.
    pub queue_pattern: String,
    pub apply_to: PolicyScope,
    pub expires: Option<Duration>,
    pub message_ttl: Option<Duration>,
    pub max_length: Option<u32>,
    /// Bytes.
    pub max_length_bytes: Option<u64>,
    pub max_in_memory_length: Option<u32>,
    /// Bytes.
    pub max_in_memory_bytes: Option<u64>,
    pub delivery_limit: Option<u32>,
}

impl DefaultOperatorPolicy {
    /// What the policy says, by the keys of policies; durations in milliseconds.
    #[must_use]
    pub fn definition(&self) -> Vec<(&'static str, u64)> {
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let all = [
            ("expires", ms(self.expires)),
            ("message-ttl", ms(self.message_ttl)),
            ("max-length", self.max_length.map(u64::from)),
            ("max-length-bytes", self.max_length_bytes),
            ("max-in-memory-length", self.max_in_memory_length.map(u64::from)),
            ("max-in-memory-bytes", self.max_in_memory_bytes),
            ("delivery-limit", self.delivery_limit.map(u64::from)),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// Limits that new virtual hosts get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultVhostLimits {
    /// Which virtual hosts, by their names; unanchored.
    pub pattern: String,
    pub max_connections: Option<u32>,
    pub max_queues: Option<u32>,
}

/// A block of addresses: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    /// How many bits of an address tell that it belongs to the network: up to 32 or 128.
    pub prefix: u8,
}

impl Network {
    /// Whether the address belongs to the network. An IPv4 address that IPv6 embeds counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let different = own.to_bits() ^ other.to_bits();
                different.leading_zeros() >= u32::from(self.prefix)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let different = own.to_bits() ^ other.to_bits();
                different.leading_zeros() >= u32::from(self.prefix)
            }
            _ => false,
        }
    }
}

/// A value that is one of a few names.
pub(crate) trait Choice: Copy + 'static {
    const ALL: &'static [Self];
    fn name(&self) -> &'static str;
}

macro_rules! choices {
    ($(
        $(#[$about:meta])*
        pub enum $Name:ident { $( $(#[$about_one:meta])* $One:ident = $text:literal, )* }
    )*) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $Name { $( $(#[$about_one])* $One, )* }

        impl $Name {
            /// The name in the configuration.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$One => $text, )* }
            }
        }

        impl Choice for $Name {
            const ALL: &'static [Self] = &[$( Self::$One, )*];
            fn name(&self) -> &'static str {
                Self::name(*self)
            }
        }
    )* };
}

choices! {
    /// A way to log in.
    pub enum Mechanism {
        Plain = "PLAIN",
        AmqPlain = "AMQPLAIN",
        Anonymous = "ANONYMOUS",
        /// The client certificate of a TLS connection.
        External = "EXTERNAL",
    }

    /// Whether clients are asked for a certificate.
    pub enum TlsVerify {
        None = "none",
        /// They are, and it is checked.
        Peer = "peer",
    }

    /// A version of TLS.
    pub enum TlsVersion {
        V1_2 = "1.2",
        V1_3 = "1.3",
    }

    /// A cipher suite of TLS, by its OpenSSL name.
    pub enum TlsCipher {
        Tls13Aes256 = "TLS_AES_256_GCM_SHA384",
        Tls13Aes128 = "TLS_AES_128_GCM_SHA256",
        Tls13Chacha20 = "TLS_CHACHA20_POLY1305_SHA256",
        EcdsaAes256 = "ECDHE-ECDSA-AES256-GCM-SHA384",
        EcdsaAes128 = "ECDHE-ECDSA-AES128-GCM-SHA256",
        EcdsaChacha20 = "ECDHE-ECDSA-CHACHA20-POLY1305",
        RsaAes256 = "ECDHE-RSA-AES256-GCM-SHA384",
        RsaAes128 = "ECDHE-RSA-AES128-GCM-SHA256",
        RsaChacha20 = "ECDHE-RSA-CHACHA20-POLY1305",
    }

    /// What of a client certificate is a user's name.
    pub enum LoginFrom {
        /// The subject: `CN=client,O=Org`.
        DistinguishedName = "distinguished_name",
        CommonName = "common_name",
        AlternativeName = "subject_alternative_name",
    }

    /// The kinds of alternative names in certificates.
    pub enum AlternativeName {
        Dns = "dns",
        Ip = "ip",
        Email = "email",
        Uri = "uri",
        OtherName = "other_name",
    }

    /// Who knows users and what they may do. Where two are named, the first checks the password and the second decides
    /// the rest.
    pub enum AuthBackend {
        /// The broker's own users.
        Internal = "internal",
        OAuth2 = "oauth2",
        Http = "http",
        OAuth2ThenInternal = "oauth2+internal",
        OAuth2ThenHttp = "oauth2+http",
        HttpThenInternal = "http+internal",
        InternalThenHttp = "internal+http",
    }

    /// A signature of a JSON web token.
    pub enum TokenAlgorithm {
        Rs256 = "RS256",
        Rs384 = "RS384",
        Rs512 = "RS512",
        Ps256 = "PS256",
        Ps384 = "PS384",
        Ps512 = "PS512",
        Es256 = "ES256",
        Es384 = "ES384",
        EdDsa = "EdDSA",
        Hs256 = "HS256",
        Hs384 = "HS384",
        Hs512 = "HS512",
    }

    /// How a service is asked.
    pub enum HttpMethod {
        Get = "get",
        Post = "post",
    }

    /// How the broker shows an introspection endpoint who it is.
    pub enum IntrospectionAuth {
        /// HTTP Basic.
        Basic = "basic",
        /// Parameters of the form.
        RequestParam = "request_param",
    }

    /// The type of a queue that is declared without `x-queue-type`.
    pub enum DefaultQueueType {
        Classic = "classic",
    }

    /// What a policy is for.
    pub enum PolicyScope {
        All = "all",
        Queues = "queues",
        ClassicQueues = "classic_queues",
        QuorumQueues = "quorum_queues",
        Streams = "streams",
    }

    /// When written data is made durable.
    pub enum Sync {
        /// Before anything is confirmed.
        Always = "always",
        /// Every so often.
        Interval = "interval",
        /// When the operating system does it.
        Os = "os",
    }

    /// When a message past its time leaves a queue.
    pub enum Expiry {
        /// At its time, wherever it sits.
        Exact = "exact",
        /// When it reaches the head of the queue.
        Head = "head",
    }

    /// How much is logged.
    pub enum LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
    }

    pub enum LogFormat {
        /// A line for people.
        Text = "text",
        /// A JSON object on each line.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_in_debug_output() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn networks_contain_addresses() {
        let network = |address: &str, prefix| Network { address: address.parse().expect("an address"), prefix };
        let contains = |network: Network, address: &str| network.contains(address.parse().expect("an address"));
        let ten = network("10.0.0.0", 8);
        assert!(contains(ten, "10.255.0.1") && contains(ten, "::ffff:10.1.2.3"));
        assert!(!contains(ten, "11.0.0.1") && !contains(ten, "::1"));
        assert!(contains(network("192.0.2.7", 32), "192.0.2.7") && !contains(network("192.0.2.7", 32), "192.0.2.6"));
        assert!(contains(network("0.0.0.0", 0), "203.0.113.9") && !contains(network("0.0.0.0", 0), "2001:db8::1"));
        assert!(contains(network("2001:db8::", 32), "2001:db8:1::1") && !contains(network("::1", 128), "::2"));
    }

    #[test]
    fn the_watermark_in_bytes() {
        assert_eq!(HighWatermark::Percent(60).bytes(1_000), 600);
        assert_eq!(HighWatermark::Percent(100).bytes(u64::MAX), u64::MAX / 100 * 100);
        assert_eq!(HighWatermark::Bytes(7).bytes(1_000), 7);
    }
}
