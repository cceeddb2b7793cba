//! The types of configuration values that the standard library does not have.

use std::fmt;
use std::path::PathBuf;

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

    /// The type of a queue that is declared without `x-queue-type`.
    pub enum DefaultQueueType {
        Classic = "classic",
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
    fn the_watermark_in_bytes() {
        assert_eq!(HighWatermark::Percent(60).bytes(1_000), 600);
        assert_eq!(HighWatermark::Percent(100).bytes(u64::MAX), u64::MAX / 100 * 100);
        assert_eq!(HighWatermark::Bytes(7).bytes(1_000), 7);
    }
}
