//! What a verb can fail with: the text on standard error and the exit code. Every file of this module makes these; only
//! `mod.rs` prints them.

use std::time::Duration;

/// Exit codes, those of RabbitMQ's tools (sysexits).
pub(crate) mod code {
    /// The command line cannot be used, or there is no such thing.
    pub(crate) const USAGE: u8 = 64;
    /// What was given is wrong: a password, a value, a name that does not exist.
    pub(crate) const DATA: u8 = 65;
    /// There is no such user.
    pub(crate) const NO_USER: u8 = 67;
    /// The broker cannot be reached, or it refused, or a check failed.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// It exists already, or something broke.
    pub(crate) const SOFTWARE: u8 = 70;
    /// No answer in time.
    pub(crate) const TEMPORARY: u8 = 75;
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CtlError {
    /// The command line does not fit the verb's usage, which is printed as well.
    #[error("{0}")]
    Usage(String),
    /// A value on the command line is wrong; the verb's usage is printed as well.
    #[error("Bad argument: {0}")]
    BadArgument(String),
    /// Printed as it is.
    #[error("{text}")]
    Plain { code: u8, text: String },
    /// Printed below a line `Error:`.
    #[error("Error:\n{text}")]
    Failed { code: u8, text: String },
    /// The broker's refusal, which no verb gave a better text for.
    #[error("Error:\n{reason}")]
    Refused { status: u16, reason: String },
    /// Nobody answers.
    #[error("Error: cannot reach the broker at {target}: {cause}\n{advice}")]
    Unreachable { target: String, cause: String, advice: String },
    /// The connection broke or the answer makes no sense.
    #[error("Error: the answer of {target} cannot be used: {cause}\nIs this the management API of a broker?")]
    BadAnswer { target: String, cause: String },
    /// No answer in time.
    #[error("Error: operation {verb} on node {target} timed out. Timeout value used: {}", .timeout.as_millis())]
    TimedOut { verb: String, target: String, timeout: Duration },
    /// A file or standard input or output.
    #[error("Error: {name}: {cause}")]
    File { name: String, cause: std::io::Error },
    /// Nothing to print: what there is to say has been printed.
    #[error("")]
    Silent { code: u8 },
}

impl CtlError {
    /// `Error:` and a text.
    pub(crate) fn failed(code: u8, text: impl Into<String>) -> Self {
        Self::Failed { code, text: text.into() }
    }

    /// A text alone.
    pub(crate) fn plain(code: u8, text: impl Into<String>) -> Self {
        Self::Plain { code, text: text.into() }
    }

    /// What RabbitMQ's tools say of a vhost that does not exist.
    pub(crate) fn no_vhost(vhost: &str) -> Self {
        Self::plain(code::DATA, format!("Virtual host '{vhost}' does not exist"))
    }

    /// What RabbitMQ's tools say of a user that does not exist.
    pub(crate) fn no_user(user: &str) -> Self {
        Self::failed(code::NO_USER, format!("User \"{user}\" does not exist"))
    }

    pub(crate) fn file(name: &str, cause: std::io::Error) -> Self {
        Self::File { name: name.to_owned(), cause }
    }

    /// The exit code of the program.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => code::USAGE,
            Self::BadArgument(_) | Self::File { .. } => code::DATA,
            Self::Plain { code, .. } | Self::Failed { code, .. } | Self::Silent { code } => *code,
            Self::Refused { status: 401, .. } => code::DATA,
            Self::Refused { .. } | Self::Unreachable { .. } => code::UNAVAILABLE,
            Self::BadAnswer { .. } => code::SOFTWARE,
            Self::TimedOut { .. } => code::TEMPORARY,
        }
    }
}
