//! Configuration: `broker.toml`, the environment and the command line become one checked
//! [`Config`].
//!
//! Precedence is flag, environment, file, default. Every key is optional. Anything that cannot be
//! used stops the start, and all of it is told at once. The keys are listed in one place, the
//! schema in `config/schema.rs`: whoever adds one adds it there, with its documentation, and
//! replaces the shipped `broker.toml` with the output of `warren config default`.
//!
//! ```text
//! Sources -> sources.rs (raw values with their places) -> kind.rs (typed and in range)
//!         -> rules.rs (against each other) -> Loaded
//! ```

mod document;
mod kind;
mod machine;
mod nearest;
mod network;
mod origin;
mod quantity;
mod raw;
mod reference;
mod resource_servers;
mod rules;
mod schema;
mod sources;
mod tls;
mod types;
mod units;
mod users;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use document::{default_file, key_help, show};
pub use machine::machine_memory;
pub use origin::{ConfigError, Origin};
pub use reference::reference;
pub use schema::{
    Amqp, Compatibility, Config, Defaults, Definitions, Limits, Log, Management, Memory, Node, OAuth2, Prometheus,
    Queues, Shutdown, Storage, Tls,
};
pub use sources::{DEFAULT_FILE, Flag, Sources};
pub use types::{
    AlternativeName, AuthBackend, DefaultQueueType, Expiry, FreeLimit, FurtherResourceServer, HighWatermark,
    HttpMethod, IntrospectionAuth, LogFormat, LogLevel, LoginFrom, Mechanism, Network, Permission, Secret, Sync,
    TlsCertificate, TlsCipher, TlsVerify, TlsVersion, TokenAlgorithm, User,
};

use origin::Problems;
use raw::{Raw, RawValue};

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub origins: Origins,
    /// What is worth a line in the log: risky values, variables of RabbitMQ that were taken over.
    pub warnings: Vec<String>,
}

/// Where each value came from.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// The origin of a key, such as `amqp.port`, or of a part of one: `users[0].name`. A part that
    /// has no place of its own has that of what it is in.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return origin.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Origin::Default,
            }
        }
    }

    /// Notes a value's place and those of its parts, and forgets those of an earlier value.
    fn set(&mut self, key: &str, raw: &Raw) {
        let part = |name: &str| name.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.0.retain(|name, _| !part(name));
        self.note(key.to_owned(), raw);
    }

    fn note(&mut self, key: String, raw: &Raw) {
        match &raw.value {
            RawValue::List(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.note(format!("{key}[{index}]"), element);
                }
            }
            RawValue::Table(entries) => {
                for entry in entries {
                    self.note(format!("{key}.{}", entry.name), &entry.value);
                }
            }
            _ => {}
        }
        self.0.insert(key, raw.origin.clone());
    }
}

impl Config {
    /// Reads and checks the configuration. Nothing is touched but the files that `sources` or a
    /// `password_file` name, and the host name.
    ///
    /// # Errors
    /// All that is wrong, in the order of the file, then environment, then flags.
    pub fn load(sources: &Sources) -> Result<Loaded, Vec<ConfigError>> {
        let mut problems = Problems::default();
        let mut warnings = Vec::new();
        let mut settings = match sources.file() {
            Some((file, named)) => sources::file_settings(&file, &named, &mut problems),
            None => Vec::new(),
        };
        let environment = &sources.environment;
        settings.extend(sources::environment_settings(environment, &mut warnings, &mut problems));
        settings.extend(sources::flag_settings(&sources.flags, &mut problems));

        let mut config = Self::default();
        let mut origins = Origins::default();
        for (key, raw) in settings {
            (key.set)(&mut config, &raw, &mut problems);
            origins.set(key.path, &raw);
        }
        rules::complete(&mut config, &mut origins, &mut problems);
        if problems.is_empty() {
            warnings.extend(rules::warnings(&config));
            Ok(Loaded { config, origins, warnings })
        } else {
            Err(problems.into_errors())
        }
    }

    /// The `cluster_name` that clients are told.
    #[must_use]
    pub fn cluster_name(&self) -> String {
        format!("rabbit@{}", self.node.name)
    }

    /// Where to listen for AMQP over TLS, if there is a certificate and the listener is not off.
    #[must_use]
    pub fn amqps_address(&self) -> Option<SocketAddr> {
        let port = self.amqp.tls_port.filter(|_| self.tls.is_configured())?;
        Some(SocketAddr::new(self.amqp.bind, port))
    }

    /// The virtual hosts of the first start.
    #[must_use]
    pub fn first_vhosts(&self) -> Vec<String> {
        let first = std::iter::once(&self.defaults.vhost);
        first.chain(&self.defaults.vhosts).cloned().collect()
    }

    /// The users of the first start, each with a password: the default user, who may do everything
    /// in every virtual host, and those of `[[users]]`.
    #[must_use]
    pub fn first_users(&self) -> Vec<User> {
        let everything = |vhost: String| Permission {
            vhost,
            configure: ".*".to_owned(),
            write: ".*".to_owned(),
            read: ".*".to_owned(),
        };
        let default_user = (!self.defaults.user.is_empty()).then(|| User {
            name: self.defaults.user.clone(),
            password: Some(self.defaults.password.clone()),
            password_file: None,
            tags: vec!["administrator".to_owned()],
            permissions: self.first_vhosts().into_iter().map(everything).collect(),
        });
        default_user.into_iter().chain(self.users.iter().cloned()).collect()
    }
}

impl Amqp {
    /// Where to listen, unless the listener is off. Port 0 is a free one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.bind, port))
    }

    /// The heartbeat as connection.tune counts it, in seconds.
    #[must_use]
    pub fn heartbeat_seconds(&self) -> u16 {
        u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX)
    }
}

impl Management {
    /// Where to listen, unless the listener is off. Port 0 is a free one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.bind, port))
    }

    /// Where to listen with TLS, once there are certificates.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_port.map(|port| SocketAddr::new(self.bind, port))
    }
}

impl Prometheus {
    /// Where to listen, unless the listener is off. Port 0 is a free one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.bind, port))
    }

    /// Where to listen with TLS, once there are certificates.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_port.map(|port| SocketAddr::new(self.bind, port))
    }
}

impl Tls {
    /// Whether there is a certificate, so that the TLS listeners are on.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.certificate_file.is_some() || !self.certificates.is_empty()
    }
}

impl Queues {
    /// The number of shards on a machine with `cores` processor cores.
    #[must_use]
    pub fn shard_count(&self, cores: usize) -> usize {
        let automatic = (cores / 2).max(1);
        self.shards.map_or(automatic, |shards| shards as usize)
    }
}
