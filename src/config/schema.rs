//! The schema: every key, with its type, default, range and documentation. It is the only list of
//! keys. The section structs, reading of files, environment and flags, `config check`,
//! `config show`, the documented `broker.toml` and the suggestions for wrong names come from it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::kind::{
    Address, Boolean, Directory, Expression, Kind, List, Number, OneOf, OptionalFile, OptionalPassword, Password, Port,
    Secrets, Table, Text, ZeroIsNone,
};
use super::network::{Endpoint, Subnet};
use super::origin::{Origin, Problems};
use super::quantity::{FreeSpace, Size, Time, Watermark};
use super::raw::Raw;
use super::resource_servers::ResourceServerTable;
use super::tls::CertificateTable;
use super::types::{
    AlternativeName, AuthBackend, DefaultOperatorPolicy, DefaultQueueType, DefaultUser, DefaultVhostLimits, Expiry,
    FreeLimit, FurtherResourceServer, HighWatermark, HttpMethod, IntrospectionAuth, LogFormat, LogLevel, LoginFrom,
    Mechanism, Network, Secret, Sync, TlsCertificate, TlsCipher, TlsVerify, TlsVersion, TokenAlgorithm, User,
};
use super::units::{GIB, KIB, MIB};
use super::users::{DefaultUserTable, UserTable};
use super::vhost_defaults::{OperatorPolicyTable, VhostLimitsTable};

/// One key of the configuration.
pub(crate) struct Key {
    /// Empty for a key outside the sections.
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    /// Section and name: `amqp.heartbeat`.
    pub(crate) path: &'static str,
    /// As an environment variable would give it.
    pub(crate) default: &'static str,
    /// Lines of documentation.
    pub(crate) documentation: &'static [&'static str],
    /// What may stand there.
    pub(crate) expects: fn() -> String,
    pub(crate) range: fn() -> Option<String>,
    /// Puts a value into the configuration, or tells what is wrong with it.
    pub(crate) set: fn(&mut Config, &Raw, &mut Problems),
    /// The value as TOML.
    pub(crate) write: fn(&Config, Secrets) -> String,
}

/// One section of the configuration.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) documentation: &'static [&'static str],
}

impl Key {
    /// `WARREN_AMQP__HEARTBEAT`: two underscores between section and key.
    pub(crate) fn environment(&self) -> String {
        format!("WARREN_{}", self.path.replace('.', "__").to_ascii_uppercase())
    }

    /// The key with this path.
    pub(crate) fn find(path: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.path == path)
    }
}

/// A default, which a test reads for every key.
fn default_of<K: Kind>(kind: &K, path: &str, text: &str) -> K::Value {
    let mut problems = Problems::default();
    let value = kind.read(path, &Raw::plain(Origin::Default, text), &mut problems);
    value.unwrap_or_else(|| panic!("the default of {path} is wrong: {problems:?}"))
}

macro_rules! schema {
    (
        $(
            $(#[doc = $about:literal])*
            $section:ident: $Section:ident {
                $(
                    $(#[doc = $doc:literal])*
                    $key:ident: $type:ty = $default:literal, $kind:expr;
                )*
            }
        )*
        @top {
            $(
                $(#[doc = $top_doc:literal])*
                $top_key:ident: $top_type:ty = $top_default:literal, $top_kind:expr;
            )*
        }
    ) => {
        $(
            $(#[doc = $about])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])* pub $key: $type, )*
            }
        )*

        /// The configuration of a broker, checked and with every value in place.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $about])* pub $section: $Section, )*
            $( $(#[doc = $top_doc])* pub $top_key: $top_type, )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $section: $Section { $(
                        $key: default_of(
                            &$kind,
                            concat!(stringify!($section), ".", stringify!($key)),
                            $default,
                        ),
                    )* }, )*
                    $( $top_key: default_of(&$top_kind, stringify!($top_key), $top_default), )*
                }
            }
        }

        pub(crate) static SECTIONS: &[Section] = &[
            $( Section { name: stringify!($section), documentation: &[$($about),*] }, )*
        ];

        pub(crate) static KEYS: &[Key] = &[
            $( $( Key {
                section: stringify!($section),
                name: stringify!($key),
                path: concat!(stringify!($section), ".", stringify!($key)),
                default: $default,
                documentation: &[$($doc),*],
                expects: || $kind.expects(),
                range: || $kind.range(),
                set: |config, raw, problems| {
                    let path = concat!(stringify!($section), ".", stringify!($key));
                    if let Some(value) = $kind.read(path, raw, problems) {
                        config.$section.$key = value;
                    }
                },
                write: |config, secrets| $kind.write(&config.$section.$key, secrets),
            }, )* )*
            $( Key {
                section: "",
                name: stringify!($top_key),
                path: stringify!($top_key),
                default: $top_default,
                documentation: &[$($top_doc),*],
                expects: || $top_kind.expects(),
                range: || $top_kind.range(),
                set: |config, raw, problems| {
                    if let Some(value) = $top_kind.read(stringify!($top_key), raw, problems) {
                        config.$top_key = value;
                    }
                },
                write: |config, secrets| $top_kind.write(&config.$top_key, secrets),
            }, )*
        ];
    };
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// RabbitMQ's ceiling for a message.
const LARGEST_MESSAGE: u64 = 512 * MIB;
const LARGEST_FRAME: u32 = 1 << 20;
const LIMIT: ZeroIsNone<Number<u32>> = ZeroIsNone(Number::between(0, u32::MAX));
const CREDIT: Size<u64> = Size::between(4 * KIB, GIB);

schema! {
    /// This broker.
    node: Node {
        /// Its name: in the API and in logs the node is `rabbit@<name>`. Empty: the host name.
        name: String = "", Text::NAME_OR_EMPTY;

        /// The cluster_name that clients and the API tell, until another one is set by an operator. Empty: the node's.
        cluster_name: String = "", Text::NAME_OR_EMPTY;

        /// Where the broker keeps its data. Made when it is missing.
        data_dir: PathBuf = "./data", Directory;
    }

    /// AMQP 0-9-1 for clients.
    amqp: Amqp {
        /// The address to listen on. The default takes connections from this host only;
        /// "0.0.0.0" and "::" take them from everywhere.
        bind: IpAddr = "127.0.0.1", Address;

        /// The TCP port for clients. 0 takes a free one, -1 turns the listener off.
        port: Option<u16> = "5672", Port;

        /// The TCP port for clients that use TLS, as soon as there is a certificate in [tls].
        /// 0 takes a free one, -1 turns the listener off.
        tls_port: Option<u16> = "5671", Port;

        /// Further addresses to listen on, each with its port: ["10.0.0.1:5672", "[::1]:5673"].
        listen: Vec<SocketAddr> = "", List::of(Endpoint);

        /// The same for clients that use TLS.
        tls_listen: Vec<SocketAddr> = "", List::of(Endpoint);

        /// Whether connections begin with the header of the PROXY protocol, version 1 or 2, which
        /// tells the client's own address. Then those without one are refused; on a TLS port it
        /// comes before the handshake.
        proxy_protocol: bool = "false", Boolean;

        /// Whose PROXY headers are believed: addresses or networks of the load balancers. Others
        /// are refused while amqp.proxy_protocol is true.
        proxy_trusted: Vec<Network> = "127.0.0.0/8,::1", List { of: Subnet, least: 1 };

        /// The heartbeat proposed to clients: a connection that is silent for two of them is
        /// closed. The client has the last word. "0s" proposes none.
        heartbeat: Duration = "60s",
            Time { least: Duration::ZERO, most: Duration::from_secs(18 * 3600), whole_seconds: true };

        /// The largest frame. A client may ask for a smaller one, down to 4096 bytes.
        frame_max: u32 = "128KiB", Size {
            least: 4096, most: LARGEST_FRAME, reason: " (the protocol needs it)",
        };

        /// The number of channels that one connection may open.
        channel_max: u16 = "2047", Number::between(1, u16::MAX);

        /// The largest message body. A larger one closes the channel with 406.
        max_message_size: u64 = "16MiB", Size::between(1_u64, LARGEST_MESSAGE);

        /// A connection that is not open after this time is closed; TLS and PROXY count too.
        handshake_timeout: Duration = "10s", Time::between(Duration::from_millis(100), HOUR);

        /// The ways to log in that are offered. With ANONYMOUS anybody is defaults.user. With
        /// EXTERNAL the client certificate is the login: it is offered on TLS connections only,
        /// and needs tls.verify = "peer".
        mechanisms: Vec<Mechanism> = "PLAIN,AMQPLAIN", List { of: OneOf::<Mechanism>::NEW, least: 1 };

        /// How many connections the system keeps waiting until the broker accepts them.
        backlog: u32 = "1024", Number::between(1_u32, 65_535);

        /// The number of consumers that one channel may have. 0: no limit.
        consumers_per_channel_max: Option<u32> = "0", LIMIT;

        /// The prefetch count of consumers whose channel never called basic.qos. 0: no limit.
        default_consumer_prefetch: u16 = "0", Number::between(0, u16::MAX);

        /// Further server properties for connection.start, or other values for the usual ones.
        server_properties: BTreeMap<String, String> = "", Table(Text::ANY);
    }

    /// TLS, for the TLS ports of all protocols. Files are PEM. They are read again when they change,
    /// and on SIGHUP; if something is wrong with them then, the certificates in use stay.
    tls: Tls {
        /// The server's certificate, followed by the intermediate ones. Empty: no TLS, unless there
        /// are tls.certificates.
        certificate_file: Option<PathBuf> = "", OptionalFile;

        /// The certificate's private key, not encrypted.
        key_file: Option<PathBuf> = "", OptionalFile;

        /// The authorities whose client certificates are trusted.
        ca_file: Option<PathBuf> = "", OptionalFile;

        /// "peer" asks AMQP clients for a certificate and checks it, "none" does not ask. HTTP
        /// clients are never asked.
        verify: TlsVerify = "none", OneOf::<TlsVerify>::NEW;

        /// Whether clients without a certificate are refused, with tls.verify = "peer".
        fail_if_no_peer_cert: bool = "false", Boolean;

        /// The versions of TLS that are spoken. There is nothing older than 1.2.
        versions: Vec<TlsVersion> = "1.2,1.3", List { of: OneOf::<TlsVersion>::NEW, least: 1 };

        /// The cipher suites, the best first, by their OpenSSL names. Empty: all that there are.
        ciphers: Vec<TlsCipher> = "", List::of(OneOf::<TlsCipher>::NEW);

        /// An HTTPS connection that has not finished its handshake after this time is closed. AMQP
        /// has amqp.handshake_timeout.
        handshake_timeout: Duration = "5s", Time::between(Duration::from_millis(100), HOUR);

        /// How often the files are looked at. "0s": only on SIGHUP.
        reload_interval: Option<Duration> = "5s", ZeroIsNone(Time::between(Duration::ZERO, HOUR));

        /// What of a client certificate is the user's name, with amqp.mechanisms EXTERNAL.
        login_from: LoginFrom = "distinguished_name", OneOf::<LoginFrom>::NEW;

        /// The kind of alternative name that counts, with tls.login_from "subject_alternative_name".
        login_san_type: AlternativeName = "dns", OneOf::<AlternativeName>::NEW;

        /// Which of the alternative names of that kind, from 0.
        login_san_index: u16 = "0", Number::between(0, u16::MAX);

        /// Further certificates, for clients that ask for other server names (SNI). Each is for the
        /// names it was issued for, or for its server_names. In a file:
        ///
        /// ```toml
        ///     [[tls.certificates]]
        ///     certificate_file = "/etc/warren/internal.pem"
        ///     key_file = "/etc/warren/internal.key"
        ///     server_names = ["*.internal.example"]      may be left out
        /// ```
        certificates: Vec<TlsCertificate> = "", List::of(CertificateTable);
    }

    /// The management API: HTTP for operators and their tools.
    management: Management {
        /// The address to listen on.
        bind: IpAddr = "127.0.0.1", Address;

        /// The TCP port. 0 takes a free one, -1 turns the listener off.
        port: Option<u16> = "15672", Port;

        /// The TCP port with TLS, once there is a certificate. 0 takes a free one, -1 turns the listener off.
        tls_port: Option<u16> = "15671", Port;

        /// Further addresses to listen on, each with its port: ["10.0.0.1:15672", "[::1]:15672"].
        listen: Vec<SocketAddr> = "", List::of(Endpoint);

        /// The same with TLS.
        tls_listen: Vec<SocketAddr> = "", List::of(Endpoint);

        /// The certificate of these TLS listeners, followed by the intermediate ones. Empty: those of [tls].
        certificate_file: Option<PathBuf> = "", OptionalFile;

        /// That certificate's private key, not encrypted.
        key_file: Option<PathBuf> = "", OptionalFile;

        /// The largest body of a request.
        max_body_size: u64 = "10MB", Size::between(KIB, GIB);

        /// Origins, such as https://console.example, whose web pages may use the API from a browser. With
        /// "*" any page may, if it brings a login of its own.
        cors_allow_origins: Vec<String> = "", List::of(Text::NAME);

        /// How long a browser remembers that a page may. "0s": as long as it likes.
        cors_max_age: Option<Duration> = "30m", ZeroIsNone(Time::between(Duration::ZERO, YEAR));

        /// What the header strict-transport-security says, for an API that is only used over HTTPS, such as
        /// "max-age=31536000; includeSubDomains". Empty: there is no such header.
        hsts: String = "", Text::NAME_OR_EMPTY;

        /// How often rates and charts look at all numbers.
        sample_interval: Duration = "5s", Time::between(SECOND, 60 * SECOND);

        /// Memory for the charts' past.
        history_memory: u64 = "64MiB", Size::between(MIB, 16 * GIB);
    }

    /// Definitions that are imported at every start, before the first client comes.
    definitions: Definitions {
        /// A file of definitions as the API exports them, or a directory whose *.json files are taken in the order of their
        /// names. A new broker that has it gets no default vhost and user.
        load: Option<PathBuf> = "", OptionalFile;

        /// Whether files that were imported before and have not changed are left alone.
        skip_if_unchanged: bool = "false", Boolean;
    }

    /// Metrics for Prometheus.
    prometheus: Prometheus {
        /// The address to listen on.
        bind: IpAddr = "127.0.0.1", Address;

        /// The TCP port. 0 takes a free one, -1 turns the listener off.
        port: Option<u16> = "15692", Port;

        /// The TCP port with TLS, once there is a certificate. 0 takes a free one, -1 turns the listener off.
        tls_port: Option<u16> = "15691", Port;

        /// Further addresses to listen on, each with its port: ["10.0.0.1:15692", "[::1]:15692"].
        listen: Vec<SocketAddr> = "", List::of(Endpoint);

        /// The same with TLS.
        tls_listen: Vec<SocketAddr> = "", List::of(Endpoint);

        /// The certificate of these TLS listeners, followed by the intermediate ones. Empty: those of [tls].
        certificate_file: Option<PathBuf> = "", OptionalFile;

        /// That certificate's private key, not encrypted.
        key_file: Option<PathBuf> = "", OptionalFile;

        /// Whether /metrics has a series for each queue, channel and so on, as /metrics/per-object does in any case.
        return_per_object_metrics: bool = "false", Boolean;
    }

    /// How many of each there may be. 0 is no limit.
    limits: Limits {
        /// Connections to this broker: all that were accepted on the ports of AMQP, whether or not they have logged in.
        connections: Option<u32> = "0", LIMIT;

        /// Connections that have not logged in, on the ports of AMQP: in the handshakes of PROXY, TLS and AMQP. At the limit
        /// a few more are heard, and the oldest of those make room for the next. Never more than half of what the limit of
        /// open files leaves for connections.
        connections_without_login: Option<u32> = "1024", LIMIT;

        /// The same from one source: an address, or an IPv6 network of 64 bits. Behind a load balancer with
        /// amqp.proxy_protocol the source is the client.
        connections_without_login_per_source: Option<u32> = "256", LIMIT;

        /// Connections to HTTP, and to the metrics. At the limit a few more are heard and told 503, but for metrics and
        /// health checks, which are answered. Never more than an eighth of the limit of open files.
        http_connections: u32 = "1024", Number::between(1, u32::MAX);

        /// The same from one source. Never more than half of all.
        http_connections_per_source: u32 = "256", Number::between(1, u32::MAX);

        /// Connections of one user.
        connections_per_user: Option<u32> = "0", LIMIT;

        /// Channels of all connections to this broker.
        channels_per_node: Option<u32> = "0", LIMIT;

        /// Channels of all connections of one user.
        channels_per_user: Option<u32> = "0", LIMIT;

        /// Queues in all virtual hosts together.
        queues: Option<u32> = "0", LIMIT;

        /// Queues in one virtual host.
        queues_per_vhost: Option<u32> = "0", LIMIT;

        /// Exchanges in all virtual hosts together, those that every virtual host has among them.
        exchanges: Option<u32> = "0", LIMIT;

        /// Exchanges in one virtual host.
        exchanges_per_vhost: Option<u32> = "0", LIMIT;

        /// Virtual hosts.
        vhosts: Option<u32> = "0", LIMIT;
    }

    /// What is kept in node.data_dir, and how.
    storage: Storage {
        /// When written data is made durable. "always": before anything is confirmed.
        /// "interval": every storage.sync_interval. "os": when the operating system does it.
        /// The last two are UNSAFE: messages are confirmed before they are on the disk, and a
        /// power failure loses them. The broker warns of that at every start.
        sync: Sync = "always", OneOf::<Sync>::NEW;

        /// The time between two syncs, with storage.sync = "interval".
        sync_interval: Duration = "100ms", Time::between(Duration::from_millis(1), 60 * SECOND);

        /// The size of a file of the write-ahead log. What these files hold is in memory too:
        /// there are up to four of them at a time.
        wal_file_size: u64 = "8MiB", Size::between(MIB, GIB);

        /// The size up to which segments, the files behind the write-ahead log, are merged.
        segment_size: u64 = "64MiB", Size::between(MIB, 4 * GIB);

        /// The bytes of queued messages in memory above which queues keep on the disk alone what
        /// is there already and not about to be delivered.
        memory_budget: u64 = "16MiB", Size::between(MIB, 1024 * GIB);

        /// While the file system of node.data_dir has less free space than this, connections that
        /// publish are blocked. A share is one of the memory of the machine or the container.
        disk_free_limit: FreeLimit = "50MiB", FreeSpace;

        /// How often the free space is measured, at most; it is measured more often when there
        /// is little left.
        disk_check_interval: Duration = "10s", Time::between(Duration::from_millis(100), HOUR);
    }

    /// When publishers are made to wait.
    memory: Memory {
        /// While more memory than this is in use, connections that publish are blocked.
        /// The share is one of the memory of the machine or the control group (container).
        high_watermark: HighWatermark = "60%", Watermark;

        /// How often the memory in use is measured.
        check_interval: Duration = "250ms", Time::between(Duration::from_millis(10), 60 * SECOND);

        /// The bytes a connection may have published that its queues have not taken yet. At this
        /// mark the broker stops reading from the connection until they have.
        connection_publish_credit: u64 = "1MiB", CREDIT;

        /// The bytes of deliveries that may wait for a connection's socket. At this mark queues
        /// stop delivering to the connection until some have been written.
        connection_delivery_credit: u64 = "1MiB", CREDIT;
    }

    /// Queues.
    queues: Queues {
        /// The type of queues that are declared without x-queue-type.
        default_type: DefaultQueueType = "classic", OneOf::<DefaultQueueType>::NEW;

        /// The number of shards that share the queues between them. What is in different shards is
        /// worked on at the same time. 0: half the processor cores, at least one.
        shards: Option<u32> = "0", ZeroIsNone(Number::between(0_u32, 1024));

        /// A delivery that is not acknowledged within this time closes its channel with 406, as
        /// RabbitMQ did up to 4.2. "0s": never.
        consumer_timeout: Option<Duration> = "0s", ZeroIsNone(Time::between(Duration::ZERO, YEAR));

        /// When a message past its time leaves a classic queue: "exact" at its time wherever it
        /// sits, "head" when it reaches the head of the queue, as in RabbitMQ.
        expire: Expiry = "exact", OneOf::<Expiry>::NEW;
    }

    /// What RabbitMQ changed from version to version.
    compatibility: Compatibility {
        /// Whether queues may be neither durable nor exclusive. RabbitMQ 4.3 refuses them with 541.
        transient_nonexclusive_queues: bool = "true", Boolean;

        /// Whether basic.qos with global = true sets a limit for the channel as a whole.
        /// RabbitMQ 4.3 takes it as one for each consumer: false does so too.
        global_qos: bool = "true", Boolean;

        /// The product that clients are told in server properties. Some look for "RabbitMQ".
        product: String = "RabbitMQ", Text { least: 1, ..Text::ANY };

        /// The version that clients are told. Some turn features on by it.
        version: String = "4.3.5", Text { least: 1, ..Text::ANY };
    }

    /// What a broker has from its first start.
    defaults: Defaults {
        /// The first user, with defaults.tags, and defaults.configure, defaults.write and defaults.read as permissions
        /// in defaults.vhost and defaults.vhosts. Empty: none.
        user: String = "guest", Text::NAME_OR_EMPTY;

        /// The first user's password.
        password: Secret = "guest", Password;

        /// A file with the first user's password, in place of defaults.password. A line end after
        /// it does not count.
        password_file: Option<PathBuf> = "", OptionalFile;

        /// The first user's tags.
        tags: Vec<String> = "administrator", List::of(Text::NAME);

        /// What the first user may declare and delete: a regular expression over names of exchanges and queues.
        configure: String = ".*", Expression;

        /// What the first user may publish to and bind.
        write: String = ".*", Expression;

        /// What the first user may consume from and bind to.
        read: String = ".*", Expression;

        /// The first virtual host.
        vhost: String = "/", Text::NAME;

        /// Further virtual hosts.
        vhosts: Vec<String> = "", List::of(Text::NAME);

        /// The users who may log in from this host only.
        loopback_only: Vec<String> = "guest", List::of(Text::NAME);

        /// Operator policies that a virtual host gets when it is made, if its name matches vhost_pattern:
        /// { devices = { vhost_pattern = "^device", queue_pattern = ".*", expires = "1h", max_length = 1000 } }. Besides
        /// there are apply_to, message_ttl, max_length_bytes, max_in_memory_length, max_in_memory_bytes, delivery_limit.
        operator_policies: BTreeMap<String, DefaultOperatorPolicy> = "", Table(OperatorPolicyTable);

        /// Limits that a virtual host gets when it is made; the first whose pattern its name matches counts:
        /// [{ pattern = "^device", max_connections = 10, max_queues = 10 }].
        vhost_limits: Vec<DefaultVhostLimits> = "", List::of(VhostLimitsTable);

        /// Users that a virtual host gets when it is made, if its name matches vhost_pattern; each has its permissions there:
        /// { qa = { vhost_pattern = "^qa", password = "...", tags = ["monitoring"], configure = "^qa", write = ".*", read = ".*" } }.
        /// A user who is there already keeps password and tags. All may be left out: patterns are ".*" then, and without
        /// password, or password_file, nobody logs in with one.
        users: BTreeMap<String, DefaultUser> = "", Table(DefaultUserTable);
    }

    /// Who knows users and what they may do.
    auth: Auth {
        /// The backends that are asked about a name and a password, in this order, until one knows them: "internal" are
        /// the broker's users, "oauth2" takes a token as password, "http" asks a service. "http+internal" has the
        /// service check the password, while tags and permissions are those of the broker's user of that name; the
        /// other pairs work alike.
        backends: Vec<AuthBackend> = "internal", List { of: OneOf::<AuthBackend>::NEW, least: 1 };

        /// How long the answers of the backend "http" about permissions hold. "0s": it is asked each time.
        cache_ttl: Duration = "15s", Time::between(Duration::ZERO, HOUR);

        /// The bytes that a password must have when it is set through the management API or imported; one that is
        /// imported as a hash is not looked at.
        password_min_length: u32 = "0", Number::between(0, 255);

        /// A regular expression that such a password must match. Empty: any.
        password_pattern: String = "", Expression;
    }

    /// Tokens, for auth.backends = ["oauth2"]: docs/oauth2.md.
    oauth2: OAuth2 {
        /// What tokens call this broker in their audience (aud). It may be empty where resource_servers has others.
        resource_server_id: String = "", Text::NAME_OR_EMPTY;

        /// The type of rich authorization requests that speak of this broker.
        resource_server_type: String = "", Text::NAME_OR_EMPTY;

        /// What the scopes for this broker begin with; others are passed over.
        scope_prefix: String = "{resource_server_id}.", Text::ANY;

        /// Further resource servers by their id; the audience of a token chooses one. What such a table does not have is
        /// as in this section: { prod = { issuers = ["https://login.example.com"], scope_prefix = "mq." }, test = {} }.
        resource_servers: BTreeMap<String, FurtherResourceServer> = "", Table(ResourceServerTable);

        /// Claims that have scopes besides "scope": names, or paths with dots.
        additional_scopes_keys: Vec<String> = "", List::of(Text::NAME);

        /// Scopes or roles that stand for others: { admin = "rabbitmq.tag:administrator rabbitmq.read:*/*" }.
        scope_aliases: BTreeMap<String, String> = "", Table(Text::ANY);

        /// The claims that have the user's name; the first that is there counts.
        username_claims: Vec<String> = "sub,client_id", List { of: Text::NAME, least: 1 };

        /// Whether a token must name this broker in its audience.
        verify_aud: bool = "true", Boolean;

        /// The issuers whose tokens are accepted. Empty: all whose keys are known. Where nothing else says where the
        /// keys are, each issuer is asked for its own (OpenID Connect discovery), and no other's count for its tokens.
        issuers: Vec<String> = "", List::of(Text::ANY);

        /// The address of the issuer's keys, a JSON web key set: https:// or http://.
        jwks_uri: String = "", Text::ANY;

        /// A file with a JSON web key set.
        jwks_file: Option<PathBuf> = "", OptionalFile;

        /// Public keys or certificates in PEM files, by the name that tokens have for them (kid).
        signing_keys: BTreeMap<String, String> = "", Table(Text::ANY);

        /// The key of tokens that name none.
        default_key: String = "", Text::NAME_OR_EMPTY;

        /// The signatures that are accepted.
        algorithms: Vec<TokenAlgorithm> = "RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,EdDSA,HS256,HS384,HS512",
            List { of: OneOf::<TokenAlgorithm>::NEW, least: 1 };

        /// Who is asked about opaque tokens, those that are no JSON web tokens (RFC 7662): https:// or http://. Empty: they
        /// are refused.
        introspection_endpoint: String = "", Text::ANY;

        /// As whom the broker asks there.
        introspection_client_id: String = "", Text::NAME_OR_EMPTY;

        /// The secret it shows.
        introspection_client_secret: Option<Secret> = "", OptionalPassword;

        /// A file with that secret, in place of introspection_client_secret.
        introspection_client_secret_file: Option<PathBuf> = "", OptionalFile;

        /// How it shows them: "basic" in a header, "request_param" as client_id and client_secret in the form.
        introspection_client_auth_method: IntrospectionAuth = "basic", OneOf::<IntrospectionAuth>::NEW;

        /// How often keys are read or fetched anew; an unknown one is looked for at once.
        refresh_interval: Duration = "1h", Time::between(SECOND, DAY);

        /// How long the issuer, or the introspection endpoint, may take to answer.
        timeout: Duration = "5s", Time::between(Duration::from_millis(100), 60 * SECOND);

        /// The certificates that vouch for the issuer's. Empty: those of the system.
        cacertfile: Option<PathBuf> = "", OptionalFile;
    }

    /// A service that knows users, for auth.backends = ["http"]: docs/http-auth.md.
    auth_http: AuthHttp {
        /// "post" sends a form; "get" has the password in the address, where logs may keep it.
        method: HttpMethod = "post", OneOf::<HttpMethod>::NEW;

        /// Who somebody is: https:// or http://.
        user_path: String = "http://localhost:8000/auth/user", Text::ANY;

        /// Whether they may work in a virtual host.
        vhost_path: String = "http://localhost:8000/auth/vhost", Text::ANY;

        /// Whether they may use a queue or an exchange.
        resource_path: String = "http://localhost:8000/auth/resource", Text::ANY;

        /// Whether they may use a routing key of a topic exchange.
        topic_path: String = "http://localhost:8000/auth/topic", Text::ANY;

        /// How long the service may take to answer; after that it has refused.
        timeout: Duration = "5s", Time::between(Duration::from_millis(100), 60 * SECOND);

        /// The certificates that vouch for the service's. Empty: those of the system.
        cacertfile: Option<PathBuf> = "", OptionalFile;
    }

    /// The log.
    log: Log {
        /// Whether the log goes to standard error.
        console: bool = "true", Boolean;

        /// A file that the log goes to. Empty: none. When the file is moved away, a new one is begun.
        file: Option<PathBuf> = "", OptionalFile;

        /// The size at which the file becomes FILE.0, what was FILE.0 becomes FILE.1 and so on, and a new one is begun.
        /// 0: never, other programs look after that.
        rotation_size: u64 = "10MiB", Size::between(0_u64, 1024 * GIB);

        /// How many older files are kept.
        rotation_count: u32 = "10", Number::between(1, 1000);

        /// The least important messages that are logged.
        level: LogLevel = "info", OneOf::<LogLevel>::NEW;

        /// "text" is a line for people, "json" an object on each line.
        format: LogFormat = "text", OneOf::<LogFormat>::NEW;

        /// Other levels for modules of the broker: { queue = "debug", "server::connection" = "warn" }.
        levels: BTreeMap<String, LogLevel> = "", Table(OneOf::<LogLevel>::NEW);
    }

    /// Stopping, by SIGTERM or SIGINT.
    shutdown: Shutdown {
        /// How long the broker waits for its connections to close before it ends without them.
        timeout: Duration = "10s", Time::between(Duration::ZERO, HOUR);
    }

    @top {
        /// Further users, made together with defaults.user. In a file they stand after all else,
        /// each with its own heading; permissions are regular expressions over names of exchanges
        /// and queues, as in RabbitMQ:
        ///
        /// ```toml
        ///     [[users]]
        ///     name = "orders"
        ///     password = "..."             or password_file = "/run/secrets/orders"
        ///     tags = ["monitoring"]        may be left out, as may permissions
        ///     permissions = [{ vhost = "/", configure = "^orders", write = ".*", read = ".*" }]
        /// ```
        users: Vec<User> = "", List::of(UserTable);
    }
}
