//! Configuration: `broker.toml`, the environment and the command line become one checked
//! [`Config`].
//!
//! Precedence is flag, environment, `broker.toml`, RabbitMQ's files, default. Every key is optional. Anything that cannot be
//! used stops the start, and all of it is told at once. The keys are listed in one place, the
//! schema in `config/schema.rs`: whoever adds one adds it there, with its documentation, and
//! replaces the shipped `broker.toml` with the output of `warren config default`.
//!
//! ```text
//! Sources -> sources.rs, rabbitmq.rs (raw values with their places) -> kind.rs (typed and in range)
//!         -> rules.rs (against each other) -> Loaded
//! ```

mod document;
mod kind;
mod machine;
mod nearest;
mod network;
mod origin;
mod quantity;
mod rabbitmq;
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
mod vhost_defaults;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

pub use document::{default_file, key_help, show};
pub use machine::machine_memory;
pub use origin::{ConfigError, Origin};
pub use rabbitmq::convert;
pub use reference::reference;
pub use schema::{
    Amqp, Compatibility, Config, Defaults, Definitions, Limits, Log, Management, Memory, Node, OAuth2, Prometheus,
    Queues, Shutdown, Storage, Tls,
};
pub(crate) use sources::reason;
pub use sources::{DEFAULT_FILE, Flag, Sources};
pub use types::{
    AlternativeName, AuthBackend, DefaultOperatorPolicy, DefaultQueueType, DefaultUser, DefaultVhostLimits, Expiry,
    FreeLimit, FurtherResourceServer, HighWatermark, HttpMethod, IntrospectionAuth, LogFormat, LogLevel, LoginFrom,
    Mechanism, Network, Permission, PolicyScope, Secret, Sync, TlsCertificate, TlsCipher, TlsVerify, TlsVersion,
    TokenAlgorithm, User,
};

use origin::Problems;
use raw::{Raw, RawValue};

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub origins: Origins,
    /// What is worth a warning: risky values, and what of RabbitMQ's files and variables was not taken over.
    pub warnings: Vec<String>,
    /// The variables of RabbitMQ that were taken over.
    pub taken_over: Vec<String>,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
    /// From what it was read, to be read again.
    pub sources: Sources,
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
            RawValue::Plain(_)
            | RawValue::Text(_)
            | RawValue::Integer(_)
            | RawValue::Boolean(_)
            | RawValue::Unusable(_) => {}
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
        let (mut warnings, mut taken_over) = (Vec::new(), Vec::new());
        let read = sources.files(&mut problems);
        let mut settings = read.settings;
        warnings.extend(read.notes);
        let environment = &sources.environment;
        let given = rabbitmq::Given { reads_usual_files: read.is_usual, used: &|name| read.used.contains(name) };
        settings.extend(rabbitmq::environment_settings(&read.variables, &given, &mut taken_over, &mut warnings));
        settings.extend(sources::environment_settings(environment, &mut problems));
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
            Ok(Loaded { config, origins, warnings, taken_over, files: read.files, sources: sources.clone() })
        } else {
            Err(problems.into_errors())
        }
    }

    /// The name of the node, as the API and events tell it.
    #[must_use]
    pub fn node_name(&self) -> String {
        format!("rabbit@{}", self.node.name)
    }

    /// The `cluster_name` that clients are told.
    #[must_use]
    pub fn cluster_name(&self) -> String {
        if self.node.cluster_name.is_empty() { self.node_name() } else { self.node.cluster_name.clone() }
    }

    /// Where to listen for AMQP over TLS, if there is a certificate.
    #[must_use]
    pub fn amqps_addresses(&self) -> Vec<Listening> {
        let (amqp, tls) = (&self.amqp, &self.tls);
        let keys = ["amqp.tls_port", "amqp.tls_listen"];
        if tls.is_configured() { addresses(keys, amqp.bind, amqp.tls_port, &amqp.tls_listen) } else { Vec::new() }
    }

    /// The certificates of the management API: its own, or those of all listeners.
    #[must_use]
    pub fn management_tls(&self) -> Tls {
        self.tls.with_own(self.management.certificate_file.as_ref(), self.management.key_file.as_ref())
    }

    /// The certificates of the metrics.
    #[must_use]
    pub fn prometheus_tls(&self) -> Tls {
        self.tls.with_own(self.prometheus.certificate_file.as_ref(), self.prometheus.key_file.as_ref())
    }

    /// The virtual hosts of the first start.
    #[must_use]
    pub fn first_vhosts(&self) -> Vec<String> {
        let first = std::iter::once(&self.defaults.vhost);
        first.chain(&self.defaults.vhosts).cloned().collect()
    }

    /// The users of the first start, each with a password: the default user, with the same
    /// permissions in every virtual host, and those of `[[users]]`.
    #[must_use]
    pub fn first_users(&self) -> Vec<User> {
        let permission = |vhost: String| Permission {
            vhost,
            configure: self.defaults.configure.clone(),
            write: self.defaults.write.clone(),
            read: self.defaults.read.clone(),
        };
        let default_user = (!self.defaults.user.is_empty()).then(|| User {
            name: self.defaults.user.clone(),
            password: Some(self.defaults.password.clone()),
            password_file: None,
            tags: self.defaults.tags.clone(),
            permissions: self.first_vhosts().into_iter().map(permission).collect(),
        });
        default_user.into_iter().chain(self.users.iter().cloned()).collect()
    }
}

/// One address to listen on, and the key that named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub key: &'static str,
    /// Port 0 is a free one.
    pub address: SocketAddr,
}

/// The address of a port, unless it is off, and the further ones. `keys` are those of the port and of the list.
fn addresses(keys: [&'static str; 2], bind: IpAddr, port: Option<u16>, further: &[SocketAddr]) -> Vec<Listening> {
    let first = port.map(|port| Listening { key: keys[0], address: SocketAddr::new(bind, port) });
    let further = further.iter().map(|address| Listening { key: keys[1], address: *address });
    first.into_iter().chain(further).collect()
}

impl Amqp {
    /// Where to listen without TLS.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listening> {
        addresses(["amqp.port", "amqp.listen"], self.bind, self.port, &self.listen)
    }

    /// The heartbeat as connection.tune counts it, in seconds.
    #[must_use]
    pub fn heartbeat_seconds(&self) -> u16 {
        u16::try_from(self.heartbeat.as_secs()).unwrap_or(u16::MAX)
    }
}

impl Management {
    /// Where to listen without TLS.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listening> {
        addresses(["management.port", "management.listen"], self.bind, self.port, &self.listen)
    }

    /// Where to listen with TLS, once there are certificates.
    #[must_use]
    pub fn tls_addresses(&self) -> Vec<Listening> {
        addresses(["management.tls_port", "management.tls_listen"], self.bind, self.tls_port, &self.tls_listen)
    }
}

impl Prometheus {
    /// Where to listen without TLS.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listening> {
        addresses(["prometheus.port", "prometheus.listen"], self.bind, self.port, &self.listen)
    }

    /// Where to listen with TLS, once there are certificates.
    #[must_use]
    pub fn tls_addresses(&self) -> Vec<Listening> {
        addresses(["prometheus.tls_port", "prometheus.tls_listen"], self.bind, self.tls_port, &self.tls_listen)
    }
}

impl Tls {
    /// Whether there is a certificate, so that the TLS listeners are on.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.certificate_file.is_some() || !self.certificates.is_empty()
    }

    /// The same with another certificate in place of all, if there is one. HTTP clients are not asked for theirs.
    fn with_own(&self, certificate_file: Option<&PathBuf>, key_file: Option<&PathBuf>) -> Self {
        match certificate_file {
            Some(_) => Self {
                certificate_file: certificate_file.cloned(),
                key_file: key_file.cloned(),
                certificates: Vec::new(),
                verify: TlsVerify::None,
                ..self.clone()
            },
            None => self.clone(),
        }
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
