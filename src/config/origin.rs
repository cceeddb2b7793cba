//! Where a value came from, and what was wrong with it.

use std::fmt;
use std::sync::Arc;

/// Where a configuration value came from. The order is that of precedence: a later one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of a configuration file; lines count from 1, and 0 is the file as a whole.
    File { file: Arc<str>, line: usize },
    /// A line of RabbitMQ's file of variables, which counts as the environment does.
    EnvironmentFile { file: Arc<str>, line: usize },
    /// An environment variable, by its name.
    Environment(String),
    /// A flag as it was written, without its value: `--amqp-port`, `--set amqp.heartbeat`.
    Flag(String),
}

impl Origin {
    /// The level of precedence: default 0, file 1, environment 2, flag 3.
    pub(crate) fn level(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::EnvironmentFile { .. } | Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { file, line: 0 } => formatter.write_str(file),
            Self::File { file, line } | Self::EnvironmentFile { file, line } => write!(formatter, "{file}:{line}"),
            Self::Environment(name) => formatter.write_str(name),
            Self::Flag(flag) => formatter.write_str(flag),
        }
    }
}

/// One mistake in the configuration, told so that it can be put right: where it is, which key, and
/// what is allowed there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    pub origin: Origin,
    /// The key in full, such as `amqp.heartbeat`; empty where the mistake is not one key's value.
    pub key: String,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(formatter, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// The mistakes found so far: reading goes on after the first.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<ConfigError>);

impl Problems {
    /// A value of `key` that cannot be used.
    pub(crate) fn value(&mut self, origin: &Origin, key: &str, message: impl Into<String>) {
        let (origin, key, message) = (origin.clone(), key.to_owned(), message.into());
        self.0.push(ConfigError { origin, key, message });
    }

    /// Something that is wrong as a whole: a file's syntax, a key that does not exist.
    pub(crate) fn other(&mut self, origin: &Origin, message: impl Into<String>) {
        self.value(origin, "", message);
    }

    /// Whether `key`, or a part of it, was already found wrong.
    pub(crate) fn concern(&self, key: &str) -> bool {
        self.0.iter().any(|problem| problem.key.starts_with(key))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of the file, then environment, then flags.
    pub(crate) fn into_errors(mut self) -> Vec<ConfigError> {
        self.0.sort_by(|one, other| one.origin.cmp(&other.origin));
        self.0
    }
}
