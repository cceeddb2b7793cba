//! Configuration from all its sources, every message for a mistake, and `warren config`.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use warren::config::{
    Config, DefaultQueueType, Expiry, Flag, FreeLimit, FurtherResourceServer, HighWatermark, Loaded, LogFormat,
    LogLevel, Mechanism, Origin, Secret, Sources, Sync, show,
};

/// A directory of its own for each test, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("warren-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory in the temporary one");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file in the temporary directory");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Loads with a file of this text, which messages call `broker.toml`.
fn load_with(text: &str, environment: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let directory = Directory::new();
    let file = directory.file("broker.toml", text);
    let flags = set.iter().map(|(key, value)| Flag {
        flag: format!("--set {key}"),
        key: (*key).to_owned(),
        value: (*value).to_owned(),
    });
    let sources = Sources {
        file: Some(file.clone()),
        environment: pairs(environment),
        flags: flags.collect(),
        ..Sources::default()
    };
    let name = |error: &dyn ToString| error.to_string().replace(&*file.to_string_lossy(), "broker.toml");
    Config::load(&sources).map_err(|errors| errors.iter().map(|error| name(error)).collect())
}

fn load(text: &str) -> Result<Loaded, Vec<String>> {
    load_with(text, &[], &[])
}

fn config(text: &str) -> Config {
    load(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}")).config
}

fn errors(text: &str) -> Vec<String> {
    load(text).err().unwrap_or_else(|| panic!("accepted: {text}"))
}

#[test]
fn defaults() {
    let config = config("");
    assert_eq!(config.amqp.addresses()[0].address.to_string(), "127.0.0.1:5672");
    assert_eq!(config.amqp.heartbeat, Duration::from_secs(60));
    assert_eq!(config.amqp.heartbeat_seconds(), 60);
    assert_eq!((config.amqp.frame_max, config.amqp.channel_max), (131_072, 2047));
    assert_eq!(config.amqp.max_message_size, 16 << 20);
    assert_eq!(config.amqp.mechanisms, [Mechanism::Plain, Mechanism::AmqPlain]);
    assert_eq!((config.amqp.consumers_per_channel_max, config.amqp.default_consumer_prefetch), (None, 0));
    assert_eq!((config.management.port, config.prometheus.port), (Some(15672), Some(15692)));
    assert_eq!((config.limits.connections, config.limits.queues_per_vhost), (None, None));
    assert_eq!(config.memory.high_watermark, HighWatermark::Percent(60));
    assert_eq!((config.amqp.tls_port, config.amqps_addresses()), (Some(5671), vec![]));
    assert!(!config.tls.is_configured() && !config.amqp.proxy_protocol);
    assert_eq!(config.storage.sync, Sync::Always);
    assert_eq!((config.storage.wal_file_size, config.storage.segment_size), (8 << 20, 64 << 20));
    assert_eq!(config.storage.disk_free_limit, FreeLimit::Bytes(50 << 20));
    assert_eq!(FreeLimit::Percent(150).bytes(1000), 1500);
    assert_eq!(config.memory.check_interval, Duration::from_millis(250));
    assert_eq!((config.queues.default_type, config.queues.expire), (DefaultQueueType::Classic, Expiry::Exact));
    assert_eq!(config.queues.consumer_timeout, None);
    assert!(config.compatibility.transient_nonexclusive_queues && config.compatibility.global_qos);
    assert_eq!((&*config.compatibility.product, &*config.compatibility.version), ("RabbitMQ", "4.3.5"));
    assert_eq!(config.defaults.password.expose(), "guest");
    assert_eq!((config.log.level, config.log.format), (LogLevel::Info, LogFormat::Text));
    assert_eq!(config.shutdown.timeout, Duration::from_secs(10));
    assert!(!config.node.name.is_empty(), "the host name");
    assert_eq!(config.cluster_name(), format!("rabbit@{}", config.node.name));
}

#[test]
fn shards_are_half_the_cores_unless_set() {
    let automatic = config("").queues;
    for (cores, shards) in [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (16, 8)] {
        assert_eq!(automatic.shard_count(cores), shards, "{cores}");
    }
    assert_eq!(config("queues.shards = 3").queues.shard_count(16), 3);
}

#[test]
fn values_of_every_kind_from_a_file() {
    let text = r#"
        node = { name = "one", data_dir = "/tmp/x" }
        [amqp]
        bind = "::1"
        port = -1
        heartbeat = 0
        frame_max = "4096B"
        mechanisms = ["ANONYMOUS"]
        server_properties = { region = "north", "odd key" = "x" }
        [limits]
        connections = 5
        [memory]
        high_watermark = "1GB"
        [log.levels]
        "server::connection" = "debug"
    "#;
    let config = config(text);
    assert_eq!((&*config.node.name, config.amqp.addresses()), ("one", vec![]));
    assert_eq!((config.amqp.heartbeat, config.amqp.frame_max), (Duration::ZERO, 4096));
    assert_eq!(config.amqp.mechanisms, [Mechanism::Anonymous]);
    assert_eq!(config.amqp.server_properties["odd key"], "x");
    assert_eq!(config.limits.connections, Some(5));
    assert_eq!(config.memory.high_watermark.bytes(0), 1_000_000_000);
    assert_eq!(config.log.levels["server::connection"], LogLevel::Debug);
}

/// A line of a file, and exactly the message it gets.
const MESSAGES: &[(&str, &str)] = &[
    ("amqp.heartbeats = \"60s\"", "unknown key amqp.heartbeats; did you mean amqp.heartbeat?"),
    ("amqp.prot = 1", "unknown key amqp.prot; did you mean amqp.port?"),
    ("limits.queue = 1", "unknown key limits.queue; did you mean limits.queues?"),
    ("amqp.consumer_timeout = \"1s\"", "unknown key amqp.consumer_timeout; did you mean queues.consumer_timeout?"),
    ("heartbeat = \"60s\"", "heartbeat is amqp.heartbeat here"),
    (
        "prometheus.path = \"x\"",
        "unknown key prometheus.path; [prometheus] has bind, port, tls_port, listen, tls_listen, certificate_file, \
             key_file, return_per_object_metrics",
    ),
    ("ampq.port = 1", "unknown section [ampq]; did you mean [amqp]?"),
    (
        "cluster.peers = []",
        "unknown section [cluster]; the sections are node, amqp, tls, management, definitions, prometheus, limits, storage, \
             memory, queues, compatibility, defaults, auth, oauth2, auth_http, log, shutdown",
    ),
    ("vm_memory_high_watermark.relative = 0.4", "vm_memory_high_watermark.relative is memory.high_watermark here"),
    ("disk_free_limit.absolute = \"1GB\"", "disk_free_limit.absolute is storage.disk_free_limit here"),
    ("storage.disk_free_limit = \"0%\"", "storage.disk_free_limit: 0% is not from 1% to 1000%"),
    ("storage.disk_free_limit = \"1001%\"", "storage.disk_free_limit: 1001% is not from 1% to 1000%"),
    (
        "storage.disk_free_limit = 50",
        "storage.disk_free_limit: expected a size such as \"50MiB\" or a share of the memory such as \"100%\", got 50",
    ),
    ("default_user = \"x\"", "default_user is defaults.user here"),
    ("log.console.level = \"info\"", "log.console.level is log.level here"),
    ("log.file.rotation.count = 5", "log.file.rotation.count is log.rotation_count here"),
    ("listeners.tcp.default = 5672", "listeners.tcp.default is amqp.port here"),
    ("amqp = 5", "amqp: expected a section ([amqp]), got 5"),
    ("amqp.heartbeat = 60", "amqp.heartbeat: expected a duration with a unit such as \"60s\", got 60"),
    ("amqp.heartbeat = \"60\"", "amqp.heartbeat: expected a duration with a unit such as \"60s\", got \"60\""),
    (
        "amqp.heartbeat = \"1 minute\"",
        "amqp.heartbeat: expected a duration with a unit such as \"60s\", got \"1 minute\" (whole numbers; the \
             units are ms, s, m, h, d)",
    ),
    ("amqp.heartbeat = true", "amqp.heartbeat: expected a duration with a unit such as \"60s\", got true"),
    ("amqp.heartbeat = 1.5", "amqp.heartbeat: expected a duration with a unit such as \"60s\", got 1.5"),
    (
        "amqp.heartbeat = \"500ms\"",
        "amqp.heartbeat: 500ms is not a whole number of seconds (the protocol counts in seconds)",
    ),
    ("amqp.heartbeat = \"19h\"", "amqp.heartbeat: 19h is above the maximum 18h"),
    ("amqp.handshake_timeout = \"0s\"", "amqp.handshake_timeout: 0s is below the minimum 100ms"),
    ("amqp.frame_max = \"2KiB\"", "amqp.frame_max: 2KiB is below the minimum 4KiB (the protocol needs it)"),
    ("amqp.frame_max = \"2MiB\"", "amqp.frame_max: 2MiB is above the maximum 1MiB"),
    ("amqp.frame_max = 131072", "amqp.frame_max: expected a size with a unit such as \"16MiB\", got 131072"),
    ("amqp.max_message_size = \"1GB\"", "amqp.max_message_size: 1GB is above the maximum 512MiB"),
    ("amqp.port = 65536", "amqp.port: 65536 is above the maximum 65535"),
    ("amqp.port = -2", "amqp.port: -2 is below the minimum -1"),
    ("amqp.port = \"5672\"", "amqp.port: expected a whole number from -1 to 65535, got \"5672\""),
    (
        "amqp.bind = \"example.org\"",
        "amqp.bind: expected an IP address such as \"127.0.0.1\" or \"0.0.0.0\", got \"example.org\"",
    ),
    ("amqp.tls_port = 5671", "amqp.tls_port: is set but tls.certificate_file is empty"),
    (
        "management.tls_port = 15671",
        "management.tls_port: is set but tls.certificate_file and management.certificate_file are empty",
    ),
    (
        "prometheus.tls_listen = [\"127.0.0.1:1\"]",
        "prometheus.tls_listen: is set but tls.certificate_file and prometheus.certificate_file are empty",
    ),
    (
        "amqp.mechanisms = [\"EXTERNAL\"]",
        "amqp.mechanisms: has EXTERNAL but tls.verify is \"none\": no client is asked for a certificate",
    ),
    ("tls.certificate_file = \"a\"", "tls.certificate_file: is set but tls.key_file is empty"),
    ("tls.key_file = \"a\"", "tls.key_file: is set but tls.certificate_file is empty"),
    (
        "tls.verify = \"peer\"",
        "tls.verify: is \"peer\" but tls.ca_file is empty: no client certificate could be trusted",
    ),
    (
        "tls.fail_if_no_peer_cert = true",
        "tls.fail_if_no_peer_cert: is true but tls.verify is \"none\": no client is asked for a certificate",
    ),
    ("tls.versions = [\"1.1\"]", "tls.versions[0]: expected \"1.2\" or \"1.3\", got \"1.1\"; did you mean \"1.2\"?"),
    ("tls.certificates = [{ certificate_file = \"a\" }]", "tls.certificates[0]: key_file is missing"),
    ("ssl_options.certfile = \"a\"", "ssl_options.certfile is tls.certificate_file here"),
    ("amqp.proxy_trusted = []", "amqp.proxy_trusted: must name at least 1"),
    (
        "amqp.proxy_trusted = [\"10.0.0.0/33\"]",
        "amqp.proxy_trusted[0]: expected an IP address or a network such as \"10.0.0.0/8\", got \"10.0.0.0/33\"",
    ),
    ("amqp.mechanisms = []", "amqp.mechanisms: must name at least 1"),
    (
        "amqp.mechanisms = [\"plain\"]",
        "amqp.mechanisms[0]: expected \"PLAIN\", \"AMQPLAIN\", \"ANONYMOUS\" or \"EXTERNAL\", got \"plain\"; did you mean \
             \"PLAIN\"?",
    ),
    ("amqp.mechanisms = [\"PLAIN\", \"PLAIN\"]", "amqp.mechanisms[1]: PLAIN is named twice"),
    (
        "amqp.mechanisms = \"PLAIN\"",
        "amqp.mechanisms: expected a list ([...]), each \"PLAIN\", \"AMQPLAIN\", \"ANONYMOUS\" or \"EXTERNAL\", got \"PLAIN\"",
    ),
    (
        "amqp.server_properties.capabilities = \"x\"",
        "amqp.server_properties.capabilities: tells clients what the broker can do; it cannot be set",
    ),
    ("amqp.server_properties.x = 1", "amqp.server_properties.x: expected a text in quotes, got 1"),
    (
        "amqp.server_properties = []",
        "amqp.server_properties: expected a table ({ name = value }), each value a text in quotes, got a list",
    ),
    (
        "memory.high_watermark = 0.6",
        "memory.high_watermark: expected a share such as \"60%\" or a size such as \"4GiB\", got 0.6",
    ),
    (
        "memory.high_watermark = \"1.5GB\"",
        "memory.high_watermark: expected a share such as \"60%\" or a size such as \"4GiB\", got \"1.5GB\" (whole \
             numbers; the units are %, B, kB, KiB, MB, MiB, GB, GiB, TB, TiB)",
    ),
    ("memory.high_watermark = \"101%\"", "memory.high_watermark: 101% is not from 1% to 100%"),
    ("memory.high_watermark = \"0B\"", "memory.high_watermark: must not be 0: publishers would always be blocked"),
    ("memory.connection_publish_credit = \"0\"", "memory.connection_publish_credit: 0B is below the minimum 4KiB"),
    ("queues.default_type = \"stream\"", "queues.default_type: expected \"classic\", got \"stream\""),
    (
        "queues.expire = \"exakt\"",
        "queues.expire: expected \"exact\" or \"head\", got \"exakt\"; did you mean \"exact\"?",
    ),
    ("compatibility.global_qos = 1", "compatibility.global_qos: expected true or false, got 1"),
    (
        "auth.password_pattern = \"(\"",
        "auth.password_pattern: \"(\" is not a regular expression: Opening parenthesis \
             without closing parenthesis at position 1",
    ),
    ("log.console = false", "log.console: the log has to go somewhere: log.file is empty"),
    ("log.rotation_count = 0", "log.rotation_count: 0 is below the minimum 1"),
    ("log.format = \"jsn\"", "log.format: expected \"text\" or \"json\", got \"jsn\"; did you mean \"json\"?"),
    (
        "log.levels.queue = \"all\"",
        "log.levels.queue: expected \"error\", \"warn\", \"info\" or \"debug\", got \"all\"",
    ),
    (
        "oauth2.resource_servers = { prod = 1 }",
        "oauth2.resource_servers.prod: expected a table with any of issuers, resource_server_type, scope_prefix, \
             additional_scopes_keys, scope_aliases, username_claims, verify_aud; or a scope prefix, got 1",
    ),
    (
        "oauth2.resource_servers = { prod = { issuer = \"x\" } }",
        "unknown key oauth2.resource_servers.prod.issuer; did you mean oauth2.resource_servers.prod.issuers?",
    ),
    (
        "oauth2.resource_servers = { prod = { issuers = [] } }",
        "oauth2.resource_servers.prod.issuers: must name at least 1",
    ),
    (
        "oauth2.resource_servers = { prod = { verify_aud = \"no\" } }",
        "oauth2.resource_servers.prod.verify_aud: expected true or false, got \"no\"",
    ),
    (
        "oauth2.introspection_client_auth_method = \"post\"",
        "oauth2.introspection_client_auth_method: expected \"basic\" or \"request_param\", got \"post\"",
    ),
    (
        "auth_oauth2.introspection_endpoint = \"x\"",
        "auth_oauth2.introspection_endpoint is oauth2.introspection_endpoint here",
    ),
    ("oauth2.resource_servers = { \"\" = {} }", "oauth2.resource_servers.: an id has 1 to 255 bytes"),
    (
        "auth_oauth2.resource_servers.1.id = \"prod\"",
        "auth_oauth2.resource_servers.1.id is oauth2.resource_servers here",
    ),
    ("auth_oauth2.oauth_providers.a.issuer = \"x\"", "auth_oauth2.oauth_providers.a.issuer is oauth2.issuers here"),
    ("defaults.password = \"\"", "defaults.password: must not be empty: nobody can log in with an empty password"),
    ("defaults.password = 1234", "defaults.password: expected a text in quotes"),
    ("defaults.vhost = \"\"", "defaults.vhost: must not be empty"),
    ("defaults.vhosts = [\"/\"]", "defaults.vhosts[0]: \"/\" is named twice"),
    (
        "defaults.password_file = \"/nonexistent/x\"",
        "defaults.password_file: cannot read /nonexistent/x: there is no such file",
    ),
    (
        "limits.connections = 1979-05-27",
        "limits.connections: expected a whole number from 0 to 4294967295, got 1979-05-27",
    ),
    ("node.name = unquoted", "string values must be quoted, expected literal string"),
];

#[test]
fn messages_for_one_mistake_each() {
    for (line, message) in MESSAGES {
        assert_eq!(errors(&format!("# one\n{line}\n")), [format!("broker.toml:2: {message}")], "{line}");
    }
    let long = "x".repeat(256);
    let message = "broker.toml:1: defaults.user: is 256 bytes long, the maximum is 255";
    assert_eq!(errors(&format!("defaults.user = {long:?}")), [message]);
}

#[test]
fn all_mistakes_are_told_in_their_order() {
    let text =
        "[amqp]\nport = 0x1FFFF\nheartbeats = 1\nmechanisms = [\n  \"PLAIN\",\n  \"X\",\n]\n[ampq]\n[log]\nlevel = 3\n";
    let environment = [("WARREN_AMQP__BACKLOG", "0"), ("WARREN_AMQP__PROT", "1")];
    let all = load_with(text, &environment, &[("amqp.port", "a"), ("amqp.x", "1"), ("x", "1")]).unwrap_err();
    let starts = [
        "broker.toml:2: amqp.port: 131071 is above",
        "broker.toml:3: unknown key amqp.heartbeats; did you mean amqp.heartbeat?",
        "broker.toml:6: amqp.mechanisms[1]: expected",
        "broker.toml:8: unknown section [ampq]; did you mean [amqp]?",
        "broker.toml:10: log.level: expected",
        "WARREN_AMQP__BACKLOG: amqp.backlog: 0 is below the minimum 1",
        "WARREN_AMQP__PROT: unknown key amqp.prot; did you mean amqp.port?",
        "--set amqp.port: amqp.port: expected a whole number from -1 to 65535, got \"a\"",
        "--set amqp.x: unknown key amqp.x; [amqp] has bind, port,",
        "--set x: unknown key x; the sections are node,",
    ];
    assert_eq!(all.len(), starts.len(), "{all:#?}");
    for (error, start) in all.iter().zip(starts) {
        assert!(error.starts_with(start), "{error}\n{start}");
    }
}

#[test]
fn a_syntax_error_does_not_hide_the_other_sections() {
    let text = "[node]\nname = \"a\"\n[amqp]\nmechanisms = [1,\nport = 5\n[log]\nlevel = no\n[memory]\nx = 1\n";
    let all = errors(text);
    let lines: Vec<_> = all.iter().map(|error| error.split(": ").next().unwrap()).collect();
    assert_eq!(lines, ["broker.toml:5", "broker.toml:7", "broker.toml:9"], "{all:#?}");
    assert_eq!(errors("[amqp]\nport = 1\n[log]\n[amqp]\n"), ["broker.toml:4: duplicate key"]);
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file_before_the_default() {
    let text = "\n[amqp]\nport = 1\nbacklog = 1\nchannel_max = 1\n";
    let environment = [
        ("WARREN_AMQP__BACKLOG", "2"),
        ("WARREN_AMQP__CHANNEL_MAX", "2"),
        ("WARREN_AMQP__MECHANISMS", "AMQPLAIN, PLAIN"),
        ("WARREN_AMQP__SERVER_PROPERTIES", "a=b, c = d=e"),
        ("WARREN_COMPATIBILITY__GLOBAL_QOS", "false"),
        ("WARREN_AMQP__HEARTBEAT", "0"),
    ];
    let loaded = load_with(text, &environment, &[("amqp.channel_max", "3"), ("defaults.vhosts", "[\"a,b\"]")]).unwrap();
    let amqp = &loaded.config.amqp;
    assert_eq!((amqp.port, amqp.backlog, amqp.channel_max), (Some(1), 2, 3));
    assert_eq!(amqp.mechanisms, [Mechanism::AmqPlain, Mechanism::Plain]);
    assert_eq!((&*amqp.server_properties["a"], &*amqp.server_properties["c"]), ("b", "d=e"));
    assert_eq!(amqp.heartbeat_seconds(), 0);
    assert!(!loaded.config.compatibility.global_qos);
    assert_eq!(loaded.config.defaults.vhosts, ["a,b"]);
    assert_eq!(loaded.config.first_vhosts(), ["/", "a,b"]);
    assert_eq!(loaded.origins.of("amqp.bind"), Origin::Default);
    assert!(matches!(loaded.origins.of("amqp.port"), Origin::File { line: 3, .. }));
    assert_eq!(loaded.origins.of("amqp.backlog"), Origin::Environment("WARREN_AMQP__BACKLOG".into()));
    assert_eq!(loaded.origins.of("amqp.channel_max"), Origin::Flag("--set amqp.channel_max".into()));
    assert_eq!(loaded.warnings, [""; 0]);
}

#[test]
fn variables_of_rabbitmq_are_taken_over_with_a_note() {
    let environment = [
        ("RABBITMQ_DEFAULT_USER", "u"),
        ("RABBITMQ_DEFAULT_PASS", "p"),
        ("RABBITMQ_DEFAULT_VHOST", "v"),
        ("RABBITMQ_NODE_PORT", "7"),
        ("RABBITMQ_ERLANG_COOKIE", "x"),
        ("WARREN_DEFAULTS__VHOST", "w"),
    ];
    let loaded = load_with("defaults.user = \"file\"", &environment, &[]).unwrap();
    let defaults = &loaded.config.defaults;
    assert_eq!((&*defaults.user, defaults.password.expose(), &*defaults.vhost), ("u", "p", "w"));
    assert_eq!(loaded.config.amqp.port, Some(7));
    assert_eq!((loaded.warnings.len(), loaded.taken_over.len()), (1, 4));
    assert_eq!(loaded.taken_over[3], "RABBITMQ_NODE_PORT sets amqp.port; WARREN_AMQP__PORT does so too");
    let empty = load_with("", &[("RABBITMQ_DEFAULT_USER", ""), ("RABBITMQ_LOGS", "")], &[]).unwrap();
    assert_eq!((empty.config.amqp.port, empty.warnings.len()), (Some(5672), 0), "empty is not set");
    let wrong = load_with("", &[("RABBITMQ_NODE_PORT", "x")], &[]).unwrap_err();
    assert_eq!(wrong, ["RABBITMQ_NODE_PORT: amqp.port: expected a whole number from -1 to 65535, got \"x\""]);
}

#[test]
fn variables_of_rabbitmq_are_translated() {
    for (name, value, path, expected) in [
        ("RABBITMQ_NODENAME", "rabbit@one.example", "node.name", Some("one.example")),
        ("RABBITMQ_NODENAME", "rabbit", "node.name", None),
        ("RABBITMQ_NODENAME", "rabbit@", "node.name", None),
        ("RABBITMQ_NODE_IP_ADDRESS", "::1", "amqp.bind", Some("::1")),
        ("RABBITMQ_NODE_IP_ADDRESS", "auto", "amqp.bind", None),
        ("RABBITMQ_LOG", "debug", "log.level", Some("debug")),
        ("RABBITMQ_LOG", "connection=error,warning,+color", "log.level", Some("warn")),
        ("RABBITMQ_LOG", "+color", "log.level", None),
        ("RABBITMQ_LOGS", "/var/log/warren.log", "log.file", Some("/var/log/warren.log")),
        ("RABBITMQ_LOGS", "-", "log.file", None),
    ] {
        let loaded = load_with("", &[(name, value)], &[]).unwrap();
        let origin = loaded.origins.of(path);
        match expected {
            Some(text) => {
                let (_, key) = path.split_once('.').unwrap();
                let line = format!("{key} = {text:?}");
                assert!(show(&loaded).contains(&line), "{name}={value}: {line}");
                assert_eq!(origin, Origin::Environment(name.into()));
            }
            None => assert_eq!(
                (origin, loaded.warnings.len() + loaded.taken_over.len()),
                (Origin::Default, 0),
                "{name}={value}"
            ),
        }
    }
    let category = load_with("", &[("RABBITMQ_LOG", "connection=debug,info")], &[]).unwrap().warnings;
    assert!(category[0].starts_with("RABBITMQ_LOG: connection=debug has no effect"), "{category:?}");
    let wrong = load_with("", &[("RABBITMQ_LOG", "loud")], &[]).unwrap_err();
    assert!(wrong[0].starts_with("RABBITMQ_LOG: log.level: expected \"error\""), "{wrong:?}");
}

#[test]
fn variables_of_rabbitmq_without_effect_are_told() {
    let environment = [
        ("RABBITMQ_CONFIG_FILE", "/etc/rabbitmq/rabbitmq"),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-rabbit"),
        ("RABBITMQ_CTL_ERL_ARGS", "-x"),
        ("RABBITMQ_LOGS", "syslog:"),
        ("RABBITMQ_ZED", "1"),
        ("RABBITMQ_ANYTHING", "1"),
        ("RABBITMQ_EMPTY", ""),
        ("RABBITMQ_SERVICE_HOST", "10.0.0.1"),
        ("RABBITMQ_PORT_5672_TCP", "tcp://10.0.0.1:5672"),
    ];
    let warnings = load_with("", &environment, &[]).unwrap().warnings;
    let expected = [
        "RABBITMQ_LOGS has no effect: the log goes to standard error and to a file",
        "RABBITMQ_CONFIG_FILE has no effect: the configuration's file is named otherwise",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS has no effect: there is no Erlang runtime",
        "RABBITMQ_CTL_ERL_ARGS has no effect: there is no Erlang runtime",
        "RABBITMQ_ANYTHING, RABBITMQ_ZED have no effect: there is nothing of that name here",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn variables_of_an_orchestrator_are_passed_over() {
    let environment = [("WARREN_PORT", "tcp://10.0.0.1:5672"), ("WARREN_SERVICE_HOST", "10.0.0.1")];
    assert!(load_with("", &environment, &[]).is_ok());
}

#[test]
fn the_file_is_the_flags_else_the_variables() {
    let directory = Directory::new();
    let one = directory.file("one.toml", "amqp.port = 1");
    let two = directory.file("two.toml", "amqp.port = 2");
    let environment = pairs(&[("WARREN_CONFIG", &two.to_string_lossy())]);
    let port = |file| {
        let sources = Sources { file, environment: environment.clone(), flags: Vec::new(), ..Sources::default() };
        Config::load(&sources).unwrap().config.amqp.port
    };
    assert_eq!(port(Some(one)), Some(1));
    assert_eq!(port(None), Some(2));
    let environment = pairs(&[("WARREN_CONFIG", "/nonexistent/x")]);
    let errors = Config::load(&Sources { environment, ..Sources::default() }).unwrap_err();
    assert_eq!(errors[0].to_string(), "WARREN_CONFIG: cannot read /nonexistent/x: there is no such file");
}

#[test]
fn password_files() {
    let directory = Directory::new();
    let secret = directory.file("secret", "hunter2\r\n");
    let empty = directory.file("empty", "\n");
    let (secret, empty) = (secret.to_string_lossy(), empty.to_string_lossy());
    let file = format!("defaults.password_file = {secret:?}\n");

    let loaded = load(&file).unwrap();
    assert_eq!(loaded.config.defaults.password, Secret::new("hunter2"));
    assert!(show(&loaded).contains("password = \"********\""));
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(matches!(loaded.origins.of("defaults.password"), Origin::File { line: 1, .. }));

    let both = format!("{file}defaults.password = \"x\"\n");
    let message =
        "broker.toml:1: defaults.password_file: defaults.password is set as well (broker.toml:2); keep one of them";
    assert_eq!(errors(&both), [message]);

    let password = |text: &str, variable| load_with(text, &[variable], &[]).unwrap().config.defaults.password;
    let over_file = password(&file, ("RABBITMQ_DEFAULT_PASS", "x"));
    assert_eq!(over_file.expose(), "x", "the environment goes before the file");
    let over_password = password("defaults.password = \"x\"", ("WARREN_DEFAULTS__PASSWORD_FILE", &secret));
    assert_eq!(over_password.expose(), "hunter2");

    let message =
        format!("broker.toml:1: defaults.password_file: {empty} is empty: nobody can log in with an empty password");
    assert_eq!(errors(&format!("defaults.password_file = {empty:?}")), [message]);
}

#[test]
fn introspection() {
    use warren::config::IntrospectionAuth;
    let directory = Directory::new();
    let secret = directory.file("secret", "hunter2\n");
    let empty = directory.file("empty", "\n");
    let (secret, empty) = (secret.to_string_lossy(), empty.to_string_lossy());
    let start = "auth.backends = [\"oauth2\"]\noauth2.resource_server_id = \"x\"\n\
                 oauth2.introspection_endpoint = \"https://issuer/introspect\"\noauth2.introspection_client_id = \"me\"\n";
    let file = format!("{start}oauth2.introspection_client_secret_file = {secret:?}\n");

    let loaded = load(&file).unwrap();
    let oauth2 = &loaded.config.oauth2;
    assert_eq!(oauth2.introspection_client_secret, Some(Secret::new("hunter2")));
    assert_eq!(oauth2.introspection_client_auth_method, IntrospectionAuth::Basic);
    assert!(show(&loaded).contains("introspection_client_secret = \"********\""));
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let variable = [("WARREN_OAUTH2__INTROSPECTION_CLIENT_SECRET", "x")];
    let over_file = load_with(&file, &variable, &[]).unwrap().config.oauth2;
    assert_eq!(over_file.introspection_client_secret, Some(Secret::new("x")));

    let path = "oauth2.introspection_client_secret_file";
    let both = format!("{file}oauth2.introspection_client_secret = \"hunter2\"\n");
    let message = "oauth2.introspection_client_secret is set as well (broker.toml:6); keep one of them";
    assert_eq!(errors(&both), [format!("broker.toml:5: {path}: {message}")]);
    let nothing = errors(&format!("{start}{path} = {empty:?}"));
    assert_eq!(nothing, [format!("broker.toml:5: {path}: {empty} is empty")]);
    let without =
        "oauth2.introspection_endpoint: is set but introspection_client_id or introspection_client_secret is empty";
    assert_eq!(errors(start), [format!("broker.toml:3: {without}")]);
    assert_eq!(errors(&file.replace("\"me\"", "\"\"")), [format!("broker.toml:3: {without}")]);
    let number = errors(&format!("{start}oauth2.introspection_client_secret = 1234"));
    assert_eq!(number, ["broker.toml:5: oauth2.introspection_client_secret: expected a text in quotes"]);

    assert!(load(&file).unwrap().warnings.is_empty());
    let warnings = load(&file.replace("https:", "http:")).unwrap().warnings;
    assert!(warnings[0].starts_with("oauth2.introspection_endpoint is not https: "), "{warnings:?}");
    let address = errors(&file.replace("https:", "ftp:"));
    let message = "oauth2.introspection_endpoint: begins with neither https:// nor http://";
    assert_eq!(address, [format!("broker.toml:3: {message}")]);
}

const USERS: &str = r#"
[defaults]
vhosts = ["orders"]

[[users]]
name = "orders"
password = "one"
tags = ["monitoring", "team-a"]
permissions = [{ vhost = "orders", configure = "^orders", write = ".*", read = "" }]

[[users]]
name = "nobody"
password = "two"
"#;

#[test]
fn users_of_the_first_start() {
    let loaded = load(USERS).unwrap();
    let users = loaded.config.first_users();
    let names: Vec<_> = users.iter().map(|user| &*user.name).collect();
    assert_eq!(names, ["guest", "orders", "nobody"]);
    assert_eq!(users[0].tags, ["administrator"]);
    assert_eq!(users[0].permissions.len(), 2, "everything in both virtual hosts");
    assert_eq!((&*users[0].permissions[1].vhost, &*users[0].permissions[1].read), ("orders", ".*"));
    assert_eq!((&*users[1].permissions[0].configure, &*users[1].permissions[0].read), ("^orders", ""));
    assert_eq!(users[1].password, Some(Secret::new("one")));
    assert!(users[2].permissions.is_empty() && users[2].tags.is_empty());

    let text = show(&loaded);
    assert!(!text.contains("\"one\"") && !text.contains("\"two\""), "{text}");
    assert!(text.parse::<toml::Table>().is_ok(), "what is shown is TOML: {text}");

    let value = r#"[{ name = "a", password = "x" }]"#;
    let loaded = load_with(USERS, &[("WARREN_USERS", value)], &[("defaults.user", "")]).unwrap();
    let users = loaded.config.first_users();
    assert_eq!((users.len(), &*users[0].name), (1, "a"), "no default user, and the list is replaced");
}

#[test]
fn authentication_backends() {
    use warren::config::AuthBackend;
    let text = "[auth]\nbackends = [\"internal\", \"http+internal\", \"oauth2\"]\n\
                [oauth2]\nresource_server_id = \"rabbit\"\njwks_uri = \"https://issuer/keys\"\n\
                scope_aliases = { admin = \"rabbit.tag:administrator rabbit.read:*/*\" }";
    let config = config(text);
    let backends = [AuthBackend::Internal, AuthBackend::HttpThenInternal, AuthBackend::OAuth2];
    assert_eq!(config.auth.backends, backends);
    assert_eq!(config.oauth2.scope_aliases["admin"], "rabbit.tag:administrator rabbit.read:*/*");
    assert_eq!(config.oauth2.scope_prefix, "{resource_server_id}.");
    let mistakes = errors("[auth]\nbackends = [\"oauth2\"]\n[auth_http]\nuser_path = \"ftp://x\"");
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    assert!(mistakes[0].ends_with("is needed by the backend oauth2 of auth.backends"), "{mistakes:?}");
    assert!(mistakes[1].ends_with("no token can be verified"), "{mistakes:?}");
    assert!(mistakes[2].ends_with("begins with neither https:// nor http://"), "{mistakes:?}");
    let mistakes = errors("[auth]\nbackends = [\"ldap\"]");
    assert!(mistakes[0].contains("expected \"internal\""), "{mistakes:?}");
}

#[test]
fn resource_servers() {
    let text = "[auth]\nbackends = [\"oauth2\"]\n[oauth2]\njwks_uri = \"https://issuer/keys\"\n\
                [oauth2.resource_servers]\ntest = {}\n\"api://p\" = \"mq.\"\n\
                [oauth2.resource_servers.prod]\nissuers = [\"https://issuer\"]\nresource_server_type = \"rabbit\"\n\
                scope_prefix = \"\"\nadditional_scopes_keys = []\nusername_claims = [\"email\"]\nverify_aud = false\n\
                scope_aliases = { admin = \"tag:administrator\" }";
    let loaded = load(text).unwrap();
    let servers = &loaded.config.oauth2.resource_servers;
    let test = FurtherResourceServer::default();
    assert_eq!(servers["test"], test);
    assert_eq!(servers["api://p"], FurtherResourceServer { scope_prefix: Some("mq.".into()), ..test.clone() });
    let prod = FurtherResourceServer {
        issuers: Some(vec!["https://issuer".into()]),
        resource_server_type: Some("rabbit".into()),
        scope_prefix: Some(String::new()),
        additional_scopes_keys: Some(Vec::new()),
        scope_aliases: Some([("admin".to_owned(), "tag:administrator".to_owned())].into()),
        username_claims: Some(vec!["email".into()]),
        verify_aud: Some(false),
    };
    assert_eq!(servers["prod"], prod);
    // What is shown is read as the same, also outside a file.
    let shown: toml::Table = show(&loaded).parse().unwrap();
    let shown = shown["oauth2"]["resource_servers"].to_string();
    let again = load_with(text, &[], &[("oauth2.resource_servers", &shown)]).unwrap();
    assert_eq!(again.config, loaded.config);
    let short = load_with(text, &[], &[("oauth2.resource_servers", "prod=mq.,test=")]).unwrap().config.oauth2;
    assert_eq!(
        (&short.resource_servers["prod"].scope_prefix, &short.resource_servers["test"]),
        (&Some("mq.".into()), &test)
    );
    let mistakes = errors(&text.replace("test = {}", "test = { verify_aud = 1, issuers = 1, x = 1 }"));
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    let twice = errors(&text.replace("[oauth2]\n", "[oauth2]\nresource_server_id = \"test\"\n"));
    assert_eq!(twice, ["broker.toml:7: oauth2.resource_servers.test: is oauth2.resource_server_id already"]);
}

#[test]
fn mistakes_in_users() {
    for (from, to, message) in [
        ("password = \"one\"\n", "\n", "broker.toml:5: users[0]: password or password_file is missing"),
        (
            "password = \"one\"\n",
            "password = \"one\"\npassword_file = \"x\"\n",
            "broker.toml:5: users[0]: has both password and password_file; keep one of them",
        ),
        ("tags = [", "tag = [", "broker.toml:8: unknown key users[0].tag; did you mean users[0].tags?"),
        ("name = \"orders\"\n", "\n", "broker.toml:5: users[0]: name is missing"),
        ("\"nobody\"", "\"orders\"", "broker.toml:12: users[1].name: there are two users called orders"),
        (
            "\"nobody\"",
            "\"guest\"",
            "broker.toml:12: users[1].name: guest is defaults.user already; set defaults.user to another name, or to \
             \"\" for none",
        ),
        (
            "vhost = \"orders\"",
            "vhost = \"x\"",
            "broker.toml:9: users[0].permissions[0].vhost: there is no virtual host \"x\"; add it to defaults.vhosts",
        ),
        (", read = \"\"", "", "broker.toml:9: users[0].permissions[0]: read is missing"),
        (
            "configure",
            "everything",
            "broker.toml:9: unknown key users[0].permissions[0].everything; users[0].permissions[0] has vhost, \
             configure, write, read",
        ),
        (
            "password = \"two\"",
            "password_file = \"/nonexistent/x\"",
            "broker.toml:13: users[1].password_file: cannot read /nonexistent/x: there is no such file",
        ),
        (
            "[\"monitoring\", \"team-a\"]",
            "\"monitoring\"",
            "broker.toml:8: users[0].tags: expected a list ([...]), each a text in quotes, got \"monitoring\"",
        ),
    ] {
        let all = errors(&USERS.replace(from, to));
        assert!(all.iter().any(|error| error == message), "{message}\n{all:#?}");
    }
    let tags = format!("[{}]", "\"t\", ".repeat(33));
    let all = errors(&USERS.replace("[\"monitoring\", \"team-a\"]", &tags));
    assert_eq!(all, ["broker.toml:5: users[0]: has 33 tags, the maximum is 32"]);
    let all = errors(&USERS.replace("^orders", "("));
    let start = "broker.toml:9: users[0].permissions[0].configure: \"(\" is not a regular expression: ";
    assert!(all.len() == 1 && all[0].starts_with(start), "{all:?}");
    let all = errors("users = 1");
    assert!(all[0].starts_with("broker.toml:1: users: expected a list ([...]), each a table with name,"), "{all:?}");
}

#[test]
fn tls_and_its_port() {
    let with = |rest: &str| config(&format!("tls.certificate_file = \"c\"\ntls.key_file = \"k\"\n{rest}"));
    let address = |config: Config| config.amqps_addresses().first().map(|one| one.address.to_string());
    assert_eq!(address(with("")).as_deref(), Some("127.0.0.1:5671"));
    assert_eq!(address(with("amqp.bind = \"::\"\namqp.tls_port = 0")).as_deref(), Some("[::]:0"));
    assert_eq!(address(with("amqp.tls_port = -1")), None);
    let further = "tls.certificates = [{ certificate_file = \"c\", key_file = \"k\", server_names = [\"a.example\"] }]";
    assert_eq!(address(config(further)).as_deref(), Some("127.0.0.1:5671"));
    assert_eq!(config(further).tls.certificates[0].server_names, ["a.example"]);
    let networks =
        config("amqp.proxy_trusted = [\"10.0.0.0/8\", \"::1\", \"::ffff:192.0.2.0/120\"]").amqp.proxy_trusted;
    let contains = |address: &str| networks.iter().any(|network| network.contains(address.parse().unwrap()));
    assert!(contains("10.9.8.7") && contains("::1") && contains("192.0.2.255"));
    assert!(!contains("192.0.3.0") && !contains("::2"));
}

#[test]
fn warnings() {
    let open = "amqp.bind is open to the network while user guest has its default password;";
    for (text, expected) in [
        ("", None),
        ("amqp.bind = \"::1\"", None),
        ("amqp.bind = \"localhost\"", None),
        ("amqp.bind = \"0.0.0.0\"", Some(format!("{open} guest stays limited to this host"))),
        (
            "amqp.bind = \"::\"\ndefaults.loopback_only = []",
            Some(format!("{open} anybody can log in; set defaults.password")),
        ),
        ("amqp.bind = \"0.0.0.0\"\ndefaults.password = \"x\"", None),
        ("amqp.bind = \"0.0.0.0\"\ndefaults.user = \"\"", None),
        ("amqp.port = -1", Some("amqp.port is -1: no client can connect".to_owned())),
    ] {
        assert_eq!(load(text).unwrap().warnings, Vec::from_iter(expected), "{text}");
    }
}

/// Runs the program with this environment and nothing else of the test's.
fn warren(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn config_check_prints_all_mistakes_and_exits_with_64() {
    let directory = Directory::new();
    let bad = directory.file("bad.toml", "[amqp]\nheartbeats = 1\nport = \"x\"\n");
    let good = directory.file("good.toml", "[amqp]\nport = -1\n");
    let (bad, good) = (bad.to_str().unwrap(), good.to_str().unwrap());

    let output = warren(&["config", "check", bad], &[]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(64), ""));
    let expected = format!(
        "{bad}:2: unknown key amqp.heartbeats; did you mean amqp.heartbeat?\n\
         {bad}:3: amqp.port: expected a whole number from -1 to 65535, got \"x\"\n"
    );
    assert_eq!(text(&output.stderr), expected);

    let output = warren(&["config", "check"], &[("WARREN_CONFIG", good)]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), &*format!("{good}: ok\n")));
    assert_eq!(text(&output.stderr), "warning: amqp.port is -1: no client can connect\n");
}

#[test]
fn config_show_tells_values_and_origins() {
    let directory = Directory::new();
    let file = directory.file("a.toml", "[amqp]\nbacklog = 9\n");
    let file = file.to_str().unwrap();
    let arguments = ["config", "show", "--config", file, "--amqp-port", "0", "--management-port", "-1"];
    let set = ["--set", "amqp.heartbeat=30s", "--set", "defaults.password=hunter2", "--log-format", "json"];
    let output = warren(&[&arguments[..], &set[..]].concat(), &[("WARREN_QUEUES__SHARDS", "4")]);
    let shown = text(&output.stdout);
    let squeezed: Vec<_> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "[amqp]",
        "bind = \"127.0.0.1\" # default",
        "port = 0 # --amqp-port",
        "port = -1 # --management-port",
        "heartbeat = \"30s\" # --set amqp.heartbeat",
        &format!("backlog = 9 # {file}:2"),
        "shards = 4 # WARREN_QUEUES__SHARDS",
        "password = \"********\" # --set defaults.password",
        "format = \"json\" # --log-format",
    ] {
        assert!(squeezed.iter().any(|shown| shown == line), "{line}\n{shown}");
    }
    assert!(!shown.contains("hunter2"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_page_of_the_reference_is_that_of_the_schema() {
    let page = include_str!("../docs/configuration.md");
    let output = warren(&["config", "reference"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let same = text(&output.stdout) == page;
    assert!(same, "write the output of `warren config reference` to docs/configuration.md");
}

#[test]
fn the_command_line() {
    let version = warren(&["--version"], &[]);
    assert_eq!(text(&version.stdout), format!("warren {}\n", env!("CARGO_PKG_VERSION")));
    for arguments in [&["--help"][..], &["serve", "--help"][..]] {
        let help = warren(arguments, &[]);
        let help = text(&help.stdout).to_owned();
        let flags = ["--config", "--data-dir", "--bind", "--amqp-port", "--management-port", "--prometheus-port"];
        for flag in flags.iter().chain(&["--log-format", "--set", "[default: 5672]", "[default: ./data]", "ready"]) {
            assert!(help.contains(flag), "{flag}\n{help}");
        }
    }
    for (arguments, error) in [
        (&["--amqp-port", "x"][..], "--amqp-port: amqp.port: expected a whole number from -1 to 65535, got \"x\"\n"),
        (&["serve", "--amqp-port", "70000"][..], "--amqp-port: amqp.port: 70000 is above the maximum 65535\n"),
        (&["--config", "/nonexistent/x"][..], "cannot read /nonexistent/x: there is no such file\n"),
        (
            &["--set", "amqp.heartbeats=1"][..],
            "--set amqp.heartbeats: unknown key amqp.heartbeats; did you mean amqp.heartbeat?\n",
        ),
    ] {
        let output = warren(arguments, &[]);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(64), error), "{arguments:?}");
    }
    for arguments in [&["--nonsense"][..], &["--set", "x"][..], &["serve", "extra"][..]] {
        assert_eq!(warren(arguments, &[]).status.code(), Some(64), "{arguments:?}");
    }
}
