//! RabbitMQ's own files and variables: what they come to, what has no effect, what is refused, and `config convert`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use warren::config::{
    AuthBackend, Config, FreeLimit, HighWatermark, Loaded, LogFormat, LogLevel, LoginFrom, Mechanism, Sources,
    TlsVerify, TlsVersion, convert,
};

/// What stands for the directory of a test in messages.
const PLACE: &str = "DIR";

/// A directory of its own for each test, gone when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("warren-rabbitmq-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory in the temporary one");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
        std::fs::write(&path, text).expect("a file in the temporary directory");
        path
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&*self.0.to_string_lossy(), PLACE)
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

/// Loads a `rabbitmq.conf` of this text; messages have only the names of files.
fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let directory = Directory::new();
    let file = directory.file("rabbitmq.conf", text);
    let name = |text: &str| directory.shorten(text).replace("DIR/", "");
    let sources =
        Sources { file: Some(file.clone()), environment: pairs(environment), flags: Vec::new(), ..Sources::default() };
    let loaded = Config::load(&sources).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(|error| name(&error.to_string())).collect();
        texts
    })?;
    // Whatever it says, the broker.toml made of it says the same.
    let converted = convert(&[file], &sources.environment).expect("what can be read can be converted");
    let converted_file = directory.file("broker.toml", &converted);
    let again = Sources { file: Some(converted_file), ..sources };
    let again = Config::load(&again).unwrap_or_else(|errors| panic!("{errors:?}\n{converted}"));
    assert_eq!(again.config, loaded.config, "{converted}");
    let warnings = loaded.warnings.iter().map(|warning| name(warning)).collect();
    Ok(Loaded { warnings, ..loaded })
}

fn loaded(text: &str) -> Loaded {
    load_with(text, &[]).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"))
}

fn config(text: &str) -> Config {
    loaded(text).config
}

fn errors(text: &str) -> Vec<String> {
    load_with(text, &[]).err().unwrap_or_else(|| panic!("accepted: {text}"))
}

/// What is said of a file, but for the risk of an open port.
fn notes(text: &str) -> Vec<String> {
    let mut notes = loaded(text).warnings;
    notes.retain(|note| !note.contains("is open to the network"));
    notes
}

fn addresses(config: &Config) -> [Vec<String>; 6] {
    [
        config.amqp.addresses(),
        config.amqps_addresses(),
        config.management.addresses(),
        config.management.tls_addresses(),
        config.prometheus.addresses(),
        config.prometheus.tls_addresses(),
    ]
    .map(|all| all.iter().map(|one| one.address.to_string()).collect())
}

const SHOP: &str = r"# what a shop mounts
# =================
default_user = shop
default_pass = it's secret # not really
default_vhost=/shop
default_user_tags.administrator = true
default_user_tags.team = true
default_user_tags.nobody = false
default_permissions.configure = ^shop
default_permissions.read = .*
default_permissions.write = .*

loopback_users.guest = false
listeners.tcp.default = 5672
listeners.tcp.2 = 127.0.0.1:5673
listeners.tcp.10 = ::1:5674
management.tcp.port = 15672
management.load_definitions = /etc/rabbitmq/definitions.json
heartbeat = 30
channel_max = 1024
frame_max = 64KB
vm_memory_high_watermark.relative = 0.7
disk_free_limit.absolute = 2GB
collect_statistics_interval = 10000
consumer_timeout = 3600000
log.console = true
log.console.level = warning
log.file = false
prometheus.return_per_object_metrics = true
queue_master_locator=min-masters
";

#[test]
fn a_deployment() {
    let loaded = loaded(SHOP);
    let config = &loaded.config;
    let defaults = &config.defaults;
    assert_eq!((&*defaults.user, defaults.password.expose(), &*defaults.vhost), ("shop", "it's secret", "/shop"));
    assert_eq!(
        (&defaults.tags[..], &*defaults.configure),
        (&["administrator".to_owned(), "team".to_owned()][..], "^shop")
    );
    let user = &config.first_users()[0];
    assert_eq!((&*user.permissions[0].configure, &*user.permissions[0].read), ("^shop", ".*"));
    assert!(defaults.loopback_only.is_empty());
    let [amqp, amqps, api, apis, metrics, metrics_tls] = addresses(config);
    assert_eq!(amqp, ["[::]:5672", "127.0.0.1:5673", "[::1]:5674"]);
    assert_eq!((api, metrics), (vec!["[::]:15672".to_owned()], vec!["[::]:15692".to_owned()]));
    assert!(amqps.is_empty() && apis.is_empty() && metrics_tls.is_empty(), "nothing that was not asked for");
    assert_eq!(config.definitions.load.as_deref(), Some(Path::new("/etc/rabbitmq/definitions.json")));
    assert_eq!((config.amqp.heartbeat_seconds(), config.amqp.channel_max, config.amqp.frame_max), (30, 1024, 65_536));
    assert_eq!(config.memory.high_watermark, HighWatermark::Percent(70));
    assert_eq!(config.storage.disk_free_limit, FreeLimit::Bytes(2_000_000_000));
    assert_eq!(config.management.sample_interval, Duration::from_secs(10));
    assert_eq!(config.queues.consumer_timeout, Some(Duration::from_secs(3600)));
    assert_eq!((config.log.console, config.log.level, &config.log.file), (true, LogLevel::Warn, &None));
    assert!(config.prometheus.return_per_object_metrics);
    assert_eq!(
        loaded.warnings,
        ["rabbitmq.conf:30: queue_master_locator has no effect: there is no cluster in this version"]
    );
    let origin = loaded.origins.of("amqp.heartbeat").to_string();
    assert!(origin.ends_with("rabbitmq.conf:19"), "{origin}");
}

#[test]
fn a_deployment_with_tls() {
    let text = "listeners.tcp = none\nlisteners.ssl.default = 5671\n\
                ssl_options.cacertfile = /tls/ca.pem\nssl_options.certfile   = /tls/server.pem\n\
                ssl_options.keyfile    = /tls/server.key\nssl_options.verify     = verify_peer\n\
                ssl_options.fail_if_no_peer_cert = true\nssl_options.versions.1 = tlsv1.3\n\
                ssl_options.versions.2 = tlsv1.2\nssl_options.honor_cipher_order = true\n\
                auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nauth_mechanisms.10 = AMQPLAIN\n\
                ssl_cert_login_from = common_name\nmanagement.ssl.port       = 15671\n\
                management.ssl.cacertfile = /tls/ca.pem\nmanagement.ssl.certfile   = /tls/server.pem\n\
                management.ssl.keyfile    = /tls/server.key\nnum_acceptors.ssl = 10\n\
                tcp_listen_options.backlog = 128\ntcp_listen_options.nodelay = true\n";
    let config = config(text);
    let [amqp, amqps, api, apis, metrics, metrics_tls] = addresses(&config);
    assert!(amqp.is_empty() && api.is_empty() && metrics_tls.is_empty());
    assert_eq!([amqps, apis, metrics], [["[::]:5671"], ["[::]:15671"], ["[::]:15692"]]);
    let tls = &config.tls;
    assert_eq!((tls.verify, tls.fail_if_no_peer_cert, tls.login_from), (TlsVerify::Peer, true, LoginFrom::CommonName));
    assert_eq!(tls.versions, [TlsVersion::V1_3, TlsVersion::V1_2]);
    assert_eq!(tls.ca_file.as_deref(), Some(Path::new("/tls/ca.pem")));
    assert_eq!(config.amqp.mechanisms, [Mechanism::External, Mechanism::Plain, Mechanism::AmqPlain]);
    assert_eq!((config.amqp.backlog, &config.management.certificate_file), (128, &None));
    assert_eq!(config.management_tls(), config.tls, "one set of certificates");
    // Another certificate for the API is one of its own, and clients of the API are not asked for theirs.
    let own = self::config(
        &text.replace("management.ssl.certfile   = /tls/server.pem", "management.ssl.certfile = /tls/api.pem"),
    );
    assert_eq!(own.management_tls().certificate_file.as_deref(), Some(Path::new("/tls/api.pem")));
    assert_eq!((own.management_tls().verify, own.tls.verify), (TlsVerify::None, TlsVerify::Peer));
    assert_eq!(own.prometheus_tls(), own.tls);
}

#[test]
fn listeners() {
    for (text, amqp, amqps) in [
        ("heartbeat = 1", &["[::]:5672"][..], &[][..]),
        ("listeners.tcp.1 = 10.0.0.1:5672\nlisteners.tcp.2 = 10.0.0.2:5672", &["10.0.0.1:5672", "10.0.0.2:5672"], &[]),
        ("listeners.tcp.1 = 127.0.0.1:1\nlisteners.tcp.default = 2", &["[::]:2", "127.0.0.1:1"], &[]),
        (
            "listeners.tcp.1 = 127.0.0.1:1\nlisteners.ssl.1 = 2\nlisteners.ssl.2 = 127.0.0.1:3\n\
             ssl_options.certfile = c\nssl_options.keyfile = k",
            &["127.0.0.1:1"],
            &["127.0.0.1:3", "[::]:2"],
        ),
        ("ssl_options.certfile = c\nssl_options.keyfile = k", &["[::]:5672"], &[]),
        ("listeners.tcp = none", &[], &[]),
    ] {
        let [plain, tls, ..] = addresses(&config(text));
        assert_eq!(
            (plain, tls),
            (amqp.iter().map(|one| (*one).to_owned()).collect(), amqps.iter().map(|one| (*one).to_owned()).collect()),
            "{text}"
        );
    }
    for (text, plain, tls) in [
        ("management.tcp.ip = 127.0.0.1", &["127.0.0.1:15672"][..], &[][..]),
        ("management.tcp.port = 1\nmanagement.ssl.port = 2", &["[::]:1"], &["[::]:2"]),
        ("management.tcp.ip = 127.0.0.1\nmanagement.ssl.ip = ::1", &["127.0.0.1:15672"], &["[::1]:15671"]),
        ("management.ssl.certfile = c\nmanagement.ssl.keyfile = k", &[], &["[::]:15671"]),
        ("management.listener.port = 8080\nmanagement.listener.ip = 10.0.0.1", &["10.0.0.1:8080"], &[]),
        ("management.listener.port = 8443\nmanagement.listener.ssl = true", &[], &["[::]:8443"]),
    ] {
        let certificate = "ssl_options.certfile = c\nssl_options.keyfile = k";
        let [_, _, api, apis, ..] = addresses(&config(&format!("{text}\n{certificate}")));
        assert_eq!(
            (api, apis),
            (plain.iter().map(|one| (*one).to_owned()).collect(), tls.iter().map(|one| (*one).to_owned()).collect()),
            "{text}"
        );
    }
    let proxied = config("proxy_protocol = true").amqp;
    assert!(proxied.proxy_protocol);
    assert!(
        ["203.0.113.9", "2001:db8::1"]
            .iter()
            .all(|peer| proxied.proxy_trusted.iter().any(|network| network.contains(peer.parse().unwrap())))
    );
}

#[test]
fn values_in_rabbitmqs_units() {
    let text = "vm_memory_high_watermark.absolute = 4GiB\ndisk_free_limit.relative = 1.5\nmax_message_size = 1048576\n\
                handshake_timeout = 20000\nssl_handshake_timeout = 7000\nconnection_max = infinity\nchannel_max_per_node = 500\n\
                consumer_max_per_channel = 20\nmanagement.cors.max_age = 60\nmanagement.http.max_body_size = 2000000\n\
                log.file.rotation.size = 5242880\nlog.file.rotation.count = 3\nlog.dir = /logs\nlog.file = a.log\n\
                log.file.level = debug\nlog.console = false\nlog.file.formatter = json\nlog.connection.level = error\n\
                cluster_name = orders-eu\nproduct.name = Mine\nauth_cache.cache_ttl = 30000\ncluster_queue_limit = 50\n\
                definitions.skip_if_unchanged = true\ndefinitions.import_backend = local_filesystem\n\
                definitions.local.path = /defs\nmanagement.cors.allow_origins.1 = https://a.example\n\
                management.cors.allow_origins.2 = https://b.example\nloopback_users = none\ndefault_queue_type = classic\n";
    let config = config(text);
    assert_eq!(config.memory.high_watermark, HighWatermark::Bytes(4 << 30));
    assert_eq!(config.storage.disk_free_limit, FreeLimit::Percent(150));
    assert_eq!((config.amqp.max_message_size, config.limits.connections), (1 << 20, None));
    assert_eq!((config.amqp.handshake_timeout.as_secs(), config.tls.handshake_timeout.as_secs()), (20, 7));
    assert_eq!((config.limits.channels_per_node, config.amqp.consumers_per_channel_max), (Some(500), Some(20)));
    assert_eq!((config.limits.queues, config.limits.queues_per_vhost), (Some(50), None));
    assert_eq!(
        (config.management.cors_max_age, config.management.max_body_size),
        (Some(Duration::from_secs(60)), 2_000_000)
    );
    assert_eq!(config.management.cors_allow_origins, ["https://a.example", "https://b.example"]);
    let log = &config.log;
    assert_eq!(
        (log.file.as_deref(), log.rotation_size, log.rotation_count),
        (Some(Path::new("/logs/a.log")), 5 << 20, 3)
    );
    assert_eq!((log.console, log.level, log.format), (false, LogLevel::Debug, LogFormat::Json));
    assert_eq!(log.levels["server::connection"], LogLevel::Error);
    assert_eq!((config.cluster_name(), &*config.compatibility.product), ("orders-eu".to_owned(), "Mine"));
    assert!(config.node_name().starts_with("rabbit@"));
    assert_eq!(config.definitions.load.as_deref(), Some(Path::new("/defs")));
    assert!(config.definitions.skip_if_unchanged && config.defaults.loopback_only.is_empty());
    assert_eq!(config.auth.cache_ttl, Duration::from_secs(30));
    let memory = self::config("total_memory_available_override_value = 1GB\ndisk_free_limit.relative = 2.0");
    assert_eq!(memory.memory.high_watermark, HighWatermark::Bytes(600_000_000));
    assert_eq!(memory.storage.disk_free_limit, FreeLimit::Bytes(2_000_000_000));
    assert_eq!(self::config("loopback_users.ann = true").defaults.loopback_only, ["ann"]);
    assert_eq!(self::config("channel_max = 0").amqp.channel_max, 65_535);
    assert_eq!(self::config("log.default.level = error\nlog.console.level = debug").log.level, LogLevel::Error);
}

#[test]
fn backends_and_tokens() {
    let text = "auth_backends.1 = oauth2\nauth_backends.2 = cache\nauth_backends.10.authn = rabbit_auth_backend_http\n\
                auth_backends.10.authz = internal\nauth_cache.cached_backend = http\nauth_http.http_method = get\n\
                auth_http.user_path = https://users.example/user\nauth_http.request_timeout = 2000\n\
                auth_oauth2.resource_server_id = orders\nauth_oauth2.issuer = https://login.example.org/realms/orders\n\
                auth_oauth2.preferred_username_claims.1 = email\nauth_oauth2.additional_scopes_key = roles groups\n\
                auth_oauth2.scope_aliases.admin = orders.tag:administrator\nauth_oauth2.scope_aliases.1.alias = api://r\n\
                auth_oauth2.scope_aliases.1.scope = orders.read:*/*\nauth_oauth2.algorithms.1 = RS256\n\
                auth_oauth2.signing_keys.one = /keys/one.pem\nauth_oauth2.resource_servers.1.id = billing\n\
                auth_oauth2.resource_servers.1.verify_aud = false\nauth_oauth2.resource_servers.shop.scope_prefix = s.\n";
    let loaded = config(text);
    assert_eq!(loaded.auth.backends, [AuthBackend::OAuth2, AuthBackend::Http, AuthBackend::HttpThenInternal]);
    assert_eq!(
        (&*loaded.auth_http.user_path, loaded.auth_http.timeout),
        ("https://users.example/user", Duration::from_secs(2))
    );
    let oauth2 = &loaded.oauth2;
    assert_eq!(
        (&*oauth2.resource_server_id, &oauth2.issuers[..]),
        ("orders", &["https://login.example.org/realms/orders".to_owned()][..])
    );
    assert_eq!(oauth2.username_claims, ["email", "sub", "client_id"]);
    assert_eq!(oauth2.additional_scopes_keys, ["roles", "groups"]);
    assert_eq!(oauth2.scope_aliases["admin"], "orders.tag:administrator");
    assert_eq!(oauth2.scope_aliases["api://r"], "orders.read:*/*");
    assert_eq!((oauth2.algorithms.len(), &*oauth2.signing_keys["one"]), (1, "/keys/one.pem"));
    assert_eq!(oauth2.resource_servers["billing"].verify_aud, Some(false));
    assert_eq!(oauth2.resource_servers["shop"].scope_prefix.as_deref(), Some("s."));
    let providers = "auth_backends.1 = oauth2\nauth_oauth2.resource_server_id = a\n\
                     auth_oauth2.oauth_providers.one.jwks_uri = https://one/keys\nauth_oauth2.oauth_providers.one.https.cacertfile = /ca\n\
                     auth_oauth2.oauth_providers.two.issuer = https://two\nauth_oauth2.default_oauth_provider = one\n\
                     auth_oauth2.resource_servers.b.oauth_provider_id = two\n";
    let oauth2 = config(providers).oauth2;
    assert_eq!((&*oauth2.jwks_uri, oauth2.cacertfile.as_deref()), ("https://one/keys", Some(Path::new("/ca"))));
    assert_eq!(oauth2.resource_servers["b"].issuers.as_deref(), Some(&["https://two".to_owned()][..]));
    let rules = "credential_validator.validation_backend = rabbit_credential_validator_min_password_length\n\
                 credential_validator.min_length = 12\n";
    assert_eq!(config(rules).auth.password_min_length, 12);
}

/// A line, and exactly what is said of it.
const REFUSED: &[(&str, &str)] = &[
    ("hartbeat = 60", "unknown key hartbeat; did you mean heartbeat?"),
    (
        "default_users.a\\.b.pasword = x",
        "unknown key default_users.a\\.b.pasword; did you mean default_users.a\\.b.password?",
    ),
    ("no.such.thing = 60", "unknown key no.such.thing: RabbitMQ 4.3 has no such key either"),
    ("heartbeat", "expected key = value"),
    ("heartbeat = soon", "heartbeat: expected a whole number of seconds, got \"soon\""),
    ("heartbeat = \"60\"", "heartbeat: expected a whole number of seconds, got \"\\\"60\\\"\""),
    ("heartbeat = 65000", "amqp.heartbeat: 65000s is above the maximum 18h"),
    ("connection_max = 0", "connection_max: 0 would allow none at all; write infinity for no limit, got \"0\""),
    (
        "listeners.tcp.1 = here:1",
        "listeners.tcp.1: expected a port such as 5672, an address with a port such as 127.0.0.1:5672, or none, got \"here:1\"",
    ),
    ("listeners.tcp = all", "listeners.tcp: expected none; an address is written as listeners.tcp.1 = 127.0.0.1:5672"),
    (
        "vm_memory_high_watermark.absolute = 1.5GB",
        "vm_memory_high_watermark.absolute: expected a size such as 2GB or 4GiB, or a number of bytes, got \"1.5GB\"",
    ),
    ("vm_memory_high_watermark.relative = 2.0", "memory.high_watermark: 200% is not from 1% to 100%"),
    (
        "disk_free_limit.absolute = 2 GiB",
        "disk_free_limit.absolute: there is a space before the unit: expected a size such as 2GB or 4GiB, or a number of \
         bytes, got \"2 GiB\"",
    ),
    ("log.console = maybe", "log.console: expected true or false, got \"maybe\""),
    (
        "default_pass = $(NO_SUCH_SECRET)",
        "default_pass: $(NO_SUCH_SECRET): there is no variable NO_SUCH_SECRET in the environment, and no such key",
    ),
    ("default_queue_type = quorum", "default_queue_type: there are no quorum queues in this version: write classic"),
    ("auth_backends.1 = ldap", "auth_backends.1: there is no LDAP in this version: write internal, oauth2 or http"),
    ("auth_backends.first = internal", "auth_backends.first: the place in the chain is a number: auth_backends.1"),
    ("auth_mechanisms.1 = EXTERNAL", "auth_mechanisms.1: nobody could log in: write PLAIN as well"),
    ("ssl_options.versions.1 = tlsv1.1", "ssl_options.versions.1: no version is left: write tlsv1.2 or tlsv1.3"),
    (
        "listeners.ssl.default = 5671",
        "amqp.tls_port: is set but there is no certificate: write ssl_options.certfile and ssl_options.keyfile",
    ),
    (
        "management.ssl.port = 15671",
        "management.tls_port: is set but there is no certificate: write ssl_options.certfile and ssl_options.keyfile, or \
         management.ssl.certfile and management.ssl.keyfile",
    ),
    (
        "prometheus.ssl.port = 15691",
        "prometheus.tls_port: is set but there is no certificate: write ssl_options.certfile and ssl_options.keyfile, or \
         prometheus.ssl.certfile and prometheus.ssl.keyfile",
    ),
    (
        "default_permissions.read = (",
        "defaults.read: \"(\" is not a regular expression: Opening parenthesis without closing parenthesis at position 1",
    ),
    ("[{rabbit, []}].", "is Erlang, which is not read: write key = value, as rabbitmq.conf has it"),
];

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    for (line, message) in REFUSED {
        assert_eq!(errors(&format!("# first\n{line}\n")), [format!("rabbitmq.conf:2: {message}")], "{line}");
    }
    // What would protect something must not be lost in silence.
    for line in [
        "ssl_options.password = x",
        "ssl_options.crl_check = true",
        "management.ssl.fail_if_no_peer_cert = true",
        "management.disable_basic_auth = true",
        "prometheus.authentication.enabled = true",
        "auth_http.ssl_options.verify = verify_none",
        "definitions.https.url = https://x",
        "trust_store.directory = /x",
        "default_pass = encrypted:abc",
        "queue_types.classic.enabled = false",
    ] {
        let all = errors(line);
        assert!(all.len() == 1 && all[0].starts_with("rabbitmq.conf:1: "), "{line}: {all:?}");
        assert!(!all[0].contains("abc"), "{all:?}");
    }
    let all = errors("heartbeat = x\nhartbeat = 1\nlog.console.level = loud\n");
    assert_eq!(all.len(), 3, "all at once: {all:?}");
}

#[test]
fn what_new_virtual_hosts_get() {
    let text = "vhost_max = 7\n\
                default_policies.operator.devices.vhost_pattern = ^device\n\
                default_policies.operator.devices.expires = 1h\n\
                default_policies.operator.devices.max_length_bytes = 10MB\n\
                default_policies.operator.devices.classic_queues.ha_mode = all\n\
                default_limits.vhosts.10.max_queues = 5\n\
                default_limits.vhosts.2.pattern = ^device\ndefault_limits.vhosts.2.max_connections = 10\n";
    let config = config(text);
    assert_eq!(config.limits.vhosts, Some(7));
    let policy = &config.defaults.operator_policies["devices"];
    assert_eq!((policy.vhost_pattern.as_str(), policy.queue_pattern.as_str()), ("^device", ".*"));
    assert_eq!(policy.definition(), [("expires", 3_600_000), ("max-length-bytes", 10 * 1024 * 1024)]);
    let limits: Vec<_> = config
        .defaults
        .vhost_limits
        .iter()
        .map(|limits| (limits.pattern.as_str(), limits.max_connections, limits.max_queues))
        .collect();
    assert_eq!(limits, [("^device", Some(10), None), (".*", None, Some(5))], "in the order of their numbers");
    assert!(notes(text).iter().any(|note| note.contains("classic_queues.ha_mode has no effect")), "{:?}", notes(text));
    assert_eq!(errors("default_limits.vhosts.1.max_queues = many\n").len(), 1);
}

#[test]
fn users_that_new_virtual_hosts_get() {
    let text = "default_users.qa.vhost_pattern = ^qa\n\
                default_users.qa.password = $(QA_PASSWORD)\n\
                default_users.qa.tags = monitoring, policymaker\n\
                default_users.qa.configure = ^qa\\.\n\
                default_users.qa.read = .*\n\
                default_users.john\\.doe.write = ^$\n";
    let loaded = load_with(text, &[("QA_PASSWORD", "secret # 1")]).expect("it can be used");
    let qa = &loaded.config.defaults.users["qa"];
    assert_eq!(qa.password.as_ref().map(|password| password.expose()), Some("secret # 1"));
    assert_eq!((qa.vhost_pattern.as_str(), qa.tags.join(" ")), ("^qa", "monitoring policymaker".to_owned()));
    assert_eq!([&*qa.configure, &qa.write, &qa.read], ["^qa\\.", ".*", ".*"]);
    let john = &loaded.config.defaults.users["john.doe"];
    assert_eq!((john.vhost_pattern.as_str(), &john.password, &*john.write), (".*", &None, "^$"));
    assert!(loaded.warnings.iter().all(|warning| !warning.contains("default_users")), "{:?}", loaded.warnings);
    assert_eq!(
        errors("default_users.qa.password = x\ndefault_users.qa.configure = (\n"),
        ["rabbitmq.conf:2: defaults.users.qa.configure: \"(\" is not a regular expression: Opening parenthesis \
          without closing parenthesis at position 1"]
    );
    assert_eq!(
        errors("default_users.a\\.b.hash = x\n"),
        [
            "rabbitmq.conf:1: unknown key default_users.a\\.b.hash; there are vhost_pattern, password, tags, configure, write, read"
        ]
    );
}

#[test]
fn names_with_dots_are_names() {
    let text = "default_policies.operator.a\\.b.max_length = 5\ndefault_limits.vhosts.a\\.b.max_queues = 5\n\
                auth_backends.1 = oauth2\nauth_oauth2.resource_server_id = mq\n\
                auth_oauth2.oauth_providers.key\\.cloak.jwks_uri = https://login.example.com/keys\n\
                auth_oauth2.oauth_providers.key\\.cloak.signing_keys.k\\.1 = /k.pem\n\
                auth_oauth2.resource_servers.a\\.b.scope_prefix = x.\n";
    let config = config(text);
    assert_eq!(config.defaults.operator_policies["a.b"].max_length, Some(5));
    assert_eq!(config.defaults.vhost_limits.len(), 1);
    assert_eq!(config.oauth2.jwks_uri, "https://login.example.com/keys");
    assert_eq!(config.oauth2.signing_keys["k.1"], "/k.pem");
    assert_eq!(config.oauth2.resource_servers["a.b"].scope_prefix.as_deref(), Some("x."));
}

#[test]
fn what_has_no_effect_is_named_once() {
    let text = "cluster_formation.peer_discovery_backend = classic_config\n\
                cluster_formation.classic_config.nodes.1 = rabbit@one\ncluster_formation.classic_config.nodes.2 = rabbit@two\n\
                mqtt.listeners.tcp.default = 1883\nstream.listeners.tcp.1 = 5552\ncluster_partition_handling = autoheal\n\
                tcp_listen_options.nodelay = true\nmanagement.rates_mode = basic\nprometheus.path = /metrics\n\
                queue_types.quorum.enabled = false\ndefault_pass = \"quoted\"\nvm_memory_high_watermark.relative = 0.333\n\
                collect_statistics_interval = 3600000\n";
    let expected = [
        "rabbitmq.conf:13: collect_statistics_interval: is taken as 60000: 1000 to 60000 can be had",
        "rabbitmq.conf:11: default_pass: the double quotes are a part of the value, as in RabbitMQ; its quotes are single ones",
        "rabbitmq.conf:12: vm_memory_high_watermark.relative: is taken as 33%",
        "rabbitmq.conf:1: cluster_formation.classic_config.nodes.1, cluster_formation.classic_config.nodes.2, \
         cluster_formation.peer_discovery_backend, cluster_partition_handling have no effect: there is no cluster in this version",
        "rabbitmq.conf:4: mqtt.listeners.tcp.default has no effect: there is no MQTT in this version",
        "rabbitmq.conf:5: stream.listeners.tcp.1 has no effect: there are no streams in this version",
    ];
    assert_eq!(notes(text), expected);
    assert_eq!(config(text).defaults.password.expose(), "\"quoted\"");
}

/// Every key of RabbitMQ 4.3 and its plugins, with `*` for free parts, and some that older versions had.
const ALL_KEYS: &str = include_str!("rabbitmq/keys.txt");

#[test]
fn every_key_of_rabbitmqs_schema_is_known() {
    let mut lines = BTreeSet::new();
    for key in ALL_KEYS.lines() {
        lines.insert(format!("{} = 1", key.replace('*', "1")));
    }
    assert!(lines.len() > 1100);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let all = errors(&text);
    let unknown: Vec<&String> = all.iter().filter(|error| error.contains("unknown key")).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn variables_in_values() {
    let environment = [("SHOP_PASSWORD", "s3cret#1"), ("RABBITMQ_SHOP_USER", "ann"), ("RABBITMQ_OTHER", "x")];
    let text = "default_user = ${RABBITMQ_SHOP_USER}\ndefault_pass = $(SHOP_PASSWORD)\ndefault_vhost = $(default_user)-${NONE}\n";
    let loaded = load_with(text, &environment).unwrap();
    let defaults = &loaded.config.defaults;
    assert_eq!((&*defaults.user, defaults.password.expose()), ("ann", "s3cret#1"));
    assert_eq!(
        loaded.warnings,
        ["RABBITMQ_OTHER has no effect: there is nothing of that name here"],
        "{:?}",
        loaded.warnings
    );
    // RabbitMQ's variables go before its files.
    let loaded =
        load_with("default_user = a\n", &[("RABBITMQ_DEFAULT_USER", "b"), ("WARREN_AMQP__PORT", "7")]).unwrap();
    assert_eq!((&*loaded.config.defaults.user, loaded.config.amqp.port), ("b", Some(7)));
}

/// Loads what is in `/etc/rabbitmq` below the directory.
fn usual(directory: &Directory, environment: &[(&str, &str)]) -> Result<Loaded, Vec<String>> {
    let prefix = directory.0.to_string_lossy();
    let environment = [pairs(&[("SYS_PREFIX", &prefix)]), pairs(environment)].concat();
    let sources = Sources { file: None, environment, flags: Vec::new(), ..Sources::default() };
    let shorten = |text: &str| directory.shorten(text);
    let loaded = Config::load(&sources)
        .map_err(|errors| errors.iter().map(|error| shorten(&error.to_string())).collect::<Vec<_>>())?;
    let warnings = loaded.warnings.iter().map(|warning| shorten(warning)).collect();
    Ok(Loaded { warnings, ..loaded })
}

#[test]
fn files_where_the_official_image_has_them() {
    let directory = Directory::new();
    assert_eq!(usual(&directory, &[]).unwrap().config, Config::load(&Sources::default()).unwrap().config);
    directory.file("etc/rabbitmq/rabbitmq.conf", "heartbeat = 10\nchannel_max = 5\n");
    directory.file("etc/rabbitmq/conf.d/20-b.conf", "heartbeat = 30\n");
    directory.file("etc/rabbitmq/conf.d/10-a.conf", "heartbeat = 20\ndefault_user = a\n");
    directory.file("etc/rabbitmq/conf.d/ignored.txt", "nonsense\n");
    directory.file("etc/rabbitmq/advanced.config", "%% nothing yet\n[\n].\n");
    let loaded = usual(&directory, &[]).unwrap();
    let amqp = &loaded.config.amqp;
    assert_eq!((amqp.heartbeat_seconds(), amqp.channel_max, &*loaded.config.defaults.user), (30, 5, "a"));
    assert_eq!(loaded.files.len(), 4);
    // What variables name takes the place of what is there.
    let main = directory.file("mine/my.conf", "heartbeat = 11\n");
    let more = directory.file("mine/more/1.conf", "channel_max = 6\n");
    let without_extension = main.with_extension("");
    let more = more.parent().unwrap().join("*.conf");
    let environment = [
        ("RABBITMQ_CONFIG_FILE", &*without_extension.to_string_lossy()),
        ("RABBITMQ_CONFIG_FILES", &*more.to_string_lossy()),
    ];
    let amqp = usual(&directory, &environment).unwrap().config.amqp;
    assert_eq!((amqp.heartbeat_seconds(), amqp.channel_max), (11, 6));
    let missing = usual(&directory, &[("RABBITMQ_CONFIG_FILE", "/nonexistent/x")]).unwrap_err();
    assert_eq!(missing, ["RABBITMQ_CONFIG_FILE: cannot read /nonexistent/x: there is no such file"]);
    // A file that is named is the only one.
    let named = directory.file("one.toml", "amqp.channel_max = 9\n");
    let amqp = usual(&directory, &[("WARREN_CONFIG", &named.to_string_lossy())]).unwrap().config.amqp;
    assert_eq!((amqp.heartbeat_seconds(), amqp.channel_max), (60, 9));
    directory.file("etc/rabbitmq/advanced.config", "[\n {rabbit, [{tcp_listeners, []}]}\n].\n");
    let refused = usual(&directory, &[]).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].starts_with("DIR/etc/rabbitmq/advanced.config:2: is Erlang, which is not read: write "),
        "{refused:?}"
    );
}

#[test]
fn variables_of_rabbitmq_env_conf() {
    let directory = Directory::new();
    let main = directory.file("mine/my.conf", "heartbeat = 11\n");
    let text = "# as RabbitMQ's packages have it\nNODE_PORT=5673\nexport NODENAME='rabbit@shop' # ours\n\
                RABBITMQ_DEFAULT_USER=ann\nDEFAULT_USER=bob\nDEFAULT_PASS=\"it's # secret\"\nMNESIA_BASE=/data\nODD=1\n";
    let text = format!("{text}CONFIG_FILE={}\n", main.with_extension("").display());
    let file = directory.file("etc/rabbitmq/rabbitmq-env.conf", &text);
    let place = "DIR/etc/rabbitmq/rabbitmq-env.conf";
    let loaded = usual(&directory, &[]).unwrap();
    let config = &loaded.config;
    assert_eq!((config.amqp.port, config.amqp.heartbeat_seconds(), &*config.node.name), (Some(5673), 11, "shop"));
    assert_eq!((&*config.defaults.user, config.defaults.password.expose()), ("ann", "it's # secret"));
    assert_eq!(directory.shorten(&loaded.origins.of("amqp.port").to_string()), format!("{place}:2"));
    assert_eq!(loaded.files, [&file, &main].map(Clone::clone));
    let told: Vec<String> = loaded.taken_over.iter().map(|note| directory.shorten(note)).collect();
    assert!(told.contains(&format!("{place}:2: NODE_PORT sets amqp.port")), "{told:?}");
    for note in
        [":7: MNESIA_BASE has no effect: node.data_dir ", ":8: ODD has no effect: there is nothing of that name here"]
    {
        assert!(
            loaded.warnings.iter().any(|told| told.starts_with(&format!("{place}{note}"))),
            "{:?}",
            loaded.warnings
        );
    }
    // The environment goes before the file, also where it says nothing.
    let environment = [("RABBITMQ_NODE_PORT", "7"), ("RABBITMQ_DEFAULT_USER", ""), ("WARREN_NODE__NAME", "x")];
    let config = usual(&directory, &environment).unwrap().config;
    assert_eq!((config.amqp.port, &*config.defaults.user, &*config.node.name), (Some(7), "guest", "x"));
    // A file that is named is the only one, unless this one is named with it; then it goes before broker.toml.
    let toml = directory.file("broker.toml", "[amqp]\nport = 9\nchannel_max = 8\n");
    let [one, other] = [&main, &toml].map(|file| file.to_string_lossy());
    let loaded = usual(&directory, &[("WARREN_CONFIG", &one)]).unwrap();
    assert_eq!((loaded.config.amqp.port, loaded.files.len()), (Some(5672), 1));
    let loaded = usual(&directory, &[("RABBITMQ_CONFIG_FILE", &other)]).unwrap();
    assert_eq!((loaded.config.amqp.port, loaded.config.amqp.channel_max), (Some(5673), 8));
    assert!(!loaded.warnings.iter().any(|told| told.contains("CONFIG_FILE")), "{:?}", loaded.warnings);
    let further_files = vec![file.clone(), toml];
    let loaded = Config::load(&Sources { file: Some(main), further_files, ..Sources::default() }).unwrap();
    assert_eq!((loaded.config.amqp.port, loaded.config.amqp.channel_max), (Some(5673), 8));
    let converted = warren(&["config", "convert"], &[("SYS_PREFIX", &directory.0.to_string_lossy())]);
    let converted = directory.shorten(self::text(&converted.stdout));
    for line in ["heartbeat = \"11s\"  # DIR/mine/my.conf:1", &format!("port = 5673  # {place}:2")] {
        assert!(converted.contains(line), "{line}\n{converted}");
    }
    // What is wrong has its line, and a file that is not there is no mistake.
    directory.file("etc/rabbitmq/rabbitmq-env.conf", "NODE_PORT=many\nif true; then\n  NODENAME=$(hostname)\nfi\n");
    let refused = usual(&directory, &[]).unwrap_err();
    let structure = "conditions, loops and functions are not run: write the assignments that they come to here, such as NODE_PORT=5672";
    assert!(refused[0].starts_with(&format!("{place}:1: amqp.port: expected ")), "{refused:?}");
    assert_eq!([&refused[1], &refused[3]], [2, 4].map(|line| format!("{place}:{line}: {structure}")).each_ref());
    assert!(
        refused[2].starts_with(&format!("{place}:3: NODENAME: a command is not run: write what it prints")),
        "{refused:?}"
    );
    let elsewhere = usual(&directory, &[("RABBITMQ_CONF_ENV_FILE", "/nonexistent/x")]).unwrap();
    assert_eq!(elsewhere.warnings, ["RABBITMQ_CONF_ENV_FILE has no effect: there is no file /nonexistent/x"]);
}

#[test]
fn includes() {
    let directory = Directory::new();
    directory.file("etc/rabbitmq/rabbitmq.conf", "include parts/*.conf\nheartbeat = 30\ninclude last.conf\n");
    directory.file("etc/rabbitmq/parts/a.conf", "heartbeat = 10\nchannel_max = 5\n");
    directory.file("etc/rabbitmq/last.conf", "frame_max = 8192\n");
    let amqp = usual(&directory, &[]).unwrap().config.amqp;
    assert_eq!((amqp.heartbeat_seconds(), amqp.channel_max, amqp.frame_max), (30, 5, 8192));
    directory.file("etc/rabbitmq/last.conf", "include rabbitmq.conf\n");
    let all = usual(&directory, &[]).unwrap_err();
    assert!(all[0].ends_with("is included too deeply, or by itself"), "{all:?}");
}

#[test]
fn enabled_plugins() {
    let directory = Directory::new();
    directory.file("etc/rabbitmq/rabbitmq.conf", "heartbeat = 10\n");
    let file = |text: &str| drop(directory.file("etc/rabbitmq/enabled_plugins", text));
    file("[rabbitmq_management,rabbitmq_prometheus,\n rabbitmq_consistent_hash_exchange , rabbitmq_shovel,ours].\n");
    let loaded = usual(&directory, &[]).unwrap();
    let [_, _, api, _, metrics, _] = addresses(&loaded.config);
    assert_eq!([api, metrics], [["[::]:15672"], ["[::]:15692"]]);
    let notes: Vec<&String> = loaded.warnings.iter().filter(|note| note.contains("enabled_plugins")).collect();
    assert_eq!(
        notes,
        [
            "DIR/etc/rabbitmq/enabled_plugins:2: ours has no effect: RabbitMQ 4.3 has no such plugin, and it is not built in",
            "DIR/etc/rabbitmq/enabled_plugins:2: rabbitmq_shovel has no effect: there are no shovels in this version",
        ]
    );
    // What was not enabled is not opened to the network.
    file("[rabbitmq_prometheus].");
    let loaded = usual(&directory, &[]).unwrap();
    let [_, _, api, _, metrics, _] = addresses(&loaded.config);
    assert_eq!([api, metrics], [["127.0.0.1:15672"], ["[::]:15692"]]);
    assert!(
        loaded.warnings.iter().any(|note| note.contains("rabbitmq_management is not enabled")),
        "{:?}",
        loaded.warnings
    );
    let [_, _, api, ..] =
        addresses(&usual(&directory, &[("RABBITMQ_ENABLED_PLUGINS", "rabbitmq_management")]).unwrap().config);
    assert_eq!(api, ["[::]:15672"]);
    file("[rabbitmq_prometheus]");
    let refused = usual(&directory, &[]).unwrap_err();
    let message = "expected a list of plugins such as [rabbitmq_management,rabbitmq_prometheus].";
    assert_eq!(refused, [format!("DIR/etc/rabbitmq/enabled_plugins:1: {message}")]);
}

/// Runs the program with nothing of the test's environment.
fn warren(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn the_program_converts_checks_and_refuses() {
    let directory = Directory::new();
    let conf = directory.file("rabbitmq.conf", "heartbeat = 30\ndefault_pass = x\nmotd_file = /x\n");
    let parts = directory.file("conf.d/10.conf", "channel_max = 7\n");
    let plugins = directory.file("enabled_plugins", "[rabbitmq_management].\n");
    let (conf, plugins) = (conf.to_str().unwrap(), plugins.to_str().unwrap());
    let parts = parts.parent().unwrap().to_str().unwrap();
    let output = warren(&["config", "convert", conf, parts, plugins], &[]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let converted = text(&output.stdout);
    for line in [
        &format!("heartbeat = \"30s\"  # {conf}:1"),
        &format!("channel_max = 7  # {parts}/10.conf:1"),
        &format!("password = \"x\"  # {conf}:2"),
        &format!("# {conf}:3: motd_file has no effect: there is no message of the day"),
        "bind = \"127.0.0.1\"  # ",
    ] {
        assert!(converted.contains(line), "{line}\n{converted}");
    }
    let toml = directory.file("broker.toml", converted);
    let same = warren(&["config", "check", toml.to_str().unwrap()], &[]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    let checked = warren(&["config", "check", conf], &[]);
    assert_eq!(text(&checked.stdout), format!("{conf}: ok\n"));
    assert!(text(&checked.stderr).contains("motd_file has no effect"), "{}", text(&checked.stderr));
    let shown = warren(&["config", "show", "--config", conf], &[]);
    assert!(text(&shown.stdout).contains(&format!("{conf}:1")) && !text(&shown.stdout).contains("\"x\""));
    let bad = directory.file("bad.conf", "hartbeat = 1\n");
    let bad = bad.to_str().unwrap();
    for arguments in [&["config", "convert", bad][..], &["config", "check", bad][..], &["--config", bad][..]] {
        let output = warren(arguments, &[]);
        let expected = format!("{bad}:1: unknown key hartbeat; did you mean heartbeat?\n");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(64), &*expected), "{arguments:?}");
    }
    let erlang = directory.file("rabbitmq.config", "[{rabbit, [{heartbeat, 30}]}].\n");
    let output = warren(&["--config", erlang.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        text(&output.stderr).contains("rabbitmq.config:1: is Erlang, which is not read: "),
        "{}",
        text(&output.stderr)
    );
    let nothing = warren(&["config", "convert"], &[("SYS_PREFIX", "/nonexistent")]);
    assert_eq!((nothing.status.code(), text(&nothing.stderr)), (Some(64), "there is no rabbitmq.conf: name it\n"));
}

#[test]
fn several_files_are_checked_together() {
    let directory = Directory::new();
    let conf = directory.file("rabbitmq.conf", "heartbeat = 30\n");
    directory.file("conf.d/10.conf", "hartbeat = 7\n");
    let plugins = directory.file("enabled_plugins", "[rabbitmq_mqtt].\n");
    let parts = directory.0.join("conf.d");
    let [conf, plugins, parts] = [&conf, &plugins, &parts].map(|path| path.to_str().unwrap());
    let refused = warren(&["config", "check", conf, parts], &[]);
    let expected = format!("{parts}/10.conf:1: unknown key hartbeat; did you mean heartbeat?\n");
    assert_eq!((refused.status.code(), text(&refused.stderr)), (Some(64), &*expected));
    let checked = warren(&["config", "check", conf, plugins], &[]);
    assert_eq!(text(&checked.stdout), format!("{conf}, {plugins}: ok\n"));
    assert!(text(&checked.stderr).contains("rabbitmq_mqtt has no effect"), "{}", text(&checked.stderr));
    let toml = directory.file("broker.toml", "[amqp]\nheartbeat = 5\n");
    let mistaken = warren(&["config", "check", conf, toml.to_str().unwrap()], &[]);
    assert!(text(&mistaken.stderr).contains("broker.toml:2: amqp.heartbeat: expected"), "{}", text(&mistaken.stderr));
}

#[test]
fn what_is_not_there_is_found_before_the_start() {
    for (conf, expected) in [
        (
            "load_definitions = /nonexistent/d.json",
            "definitions.load: cannot read /nonexistent/d.json: there is no such file",
        ),
        (
            "ssl_options.certfile = /nonexistent/c.pem\nssl_options.keyfile = /nonexistent/k.pem",
            "tls.certificate_file: /nonexistent/c.pem: cannot be read: ",
        ),
        (
            "listeners.tcp.default = 5672\nmanagement.tcp.port = 5672",
            "management.port: amqp.port listens on [::]:5672 already",
        ),
        (
            "listeners.tcp.default = 5672\nmanagement.tcp.listener = 127.0.0.1:5672",
            "management.port: amqp.port listens on [::]:5672 already",
        ),
    ] {
        let directory = Directory::new();
        let file = directory.file("rabbitmq.conf", &format!("{conf}\n"));
        let file = file.to_str().unwrap();
        let data = directory.0.join("data");
        let start = ["--config", file, "--data-dir", data.to_str().unwrap()];
        for arguments in [&["config", "check", file][..], &start] {
            let output = warren(arguments, &[]);
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{arguments:?}: {told}");
            assert!(told.starts_with(&format!("{file}:")) && told.contains(expected), "{arguments:?}: {told}");
        }
        assert!(!data.exists(), "nothing was started");
    }
}

#[test]
fn what_files_hold_is_found_before_the_start() {
    let directory = Directory::new();
    let file = |name: &str, text: &str| directory.file(name, text).display().to_string();
    let [text, keys] = [file("text.pem", "no key\n"), file("keys.json", "{}")];
    let broken = file("defs/1.json", "{\"users\": [}");
    let wrong = r#"{"vhosts": [{"name": "v"}], "queues": [{"vhost": "v", "name": "q", "arguments": {"x-max-length": "many"}}]}"#;
    let wrong = file("defs/2.json", wrong);
    // Vhosts and users may be there already, and with them the default type of a queue.
    let well = r#"{"permissions": [{"user": "u", "vhost": "w", "configure": "", "write": "", "read": ""}],
                   "queues": [{"vhost": "w", "name": "q", "durable": true, "arguments": {"x-max-length": 5, "x-quorum-initial-group-size": 3}}]}"#;
    file("defs/3.json", well);
    let defs = directory.0.join("defs").display().to_string();
    let conf = format!(
        "auth_backends.1 = oauth2\nauth_backends.2 = http\nauth_oauth2.resource_server_id = mq\n\
         auth_oauth2.https.cacertfile = /nonexistent/ca.pem\nauth_oauth2.signing_keys.a = {text}\n\
         auth_oauth2.signing_keys.b = /nonexistent/b.pem\nauth_http.ssl_options.cacertfile = {text}\n\
         load_definitions = {defs}\n"
    );
    let conf = file("rabbitmq.conf", &conf);
    let toml = file("broker.toml", &format!("[oauth2]\njwks_file = \"{keys}\"\n"));
    let checked = warren(&["config", "check", &conf, &toml], &[]);
    let told: Vec<&str> = self::text(&checked.stderr).lines().collect();
    let expected = [
        format!("{conf}:4: oauth2.cacertfile: /nonexistent/ca.pem: cannot be read: "),
        format!("{conf}:7: auth_http.cacertfile: {text}: has no certificate that can be used"),
        format!("{conf}:5: oauth2.signing_keys.a: {text}: it is neither a PEM public key nor a certificate, of RSA, "),
        format!("{conf}:6: oauth2.signing_keys.b: cannot read /nonexistent/b.pem: there is no such file"),
        format!("{toml}:2: oauth2.jwks_file: {keys}: it is not a JSON web key set"),
        format!("{conf}:8: definitions.load: {broken}: it is not JSON: expected value at line 1 column 12"),
        format!("{conf}:8: definitions.load: {wrong}: queue 'q' in vhost 'v': "),
    ];
    assert_eq!((checked.status.code(), told.len()), (Some(64), expected.len()), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(&expected), "{told}\n{expected}");
    }
    // Nobody reads the files of a backend that is not asked.
    let unused = file("unused.conf", "auth_http.ssl_options.cacertfile = /nonexistent/ca.pem\n");
    assert_eq!(warren(&["config", "check", &unused], &[]).status.code(), Some(0));
}

/// A broker of a test's own, stopped when dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a broker with this `rabbitmq.conf` and a data directory beside it.
fn start(directory: &Directory, conf: &str) -> Running {
    let file = directory.file("rabbitmq.conf", conf);
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.arg("--config").arg(file).arg("--data-dir").arg(directory.0.join("data"));
    let piped = command.env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(piped.spawn().expect("the program starts"))
}

#[test]
fn what_was_said_at_the_start_is_not_said_at_each_reload() {
    let directory = Directory::new();
    let [certificate, key] = ["c.pem", "k.pem"].map(|name| directory.0.join(name).display().to_string());
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=x",
            "-out",
            &certificate,
            "-keyout",
            &key,
        ])
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{made:?}");
    let open = format!(
        "listeners.tcp.1 = 127.0.0.1:0\nmanagement.tcp.listener = 127.0.0.1:0\nprometheus.tcp.listener = 127.0.0.1:0\n\
         ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
    );
    let mut broker = start(&directory, &format!("{open}motd_file = /x\n"));
    let mut ready = String::new();
    BufReader::new(broker.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let mut log = BufReader::new(broker.0.stderr.take().unwrap());
    let mut said = String::new();
    for (conf, until) in [
        (format!("{open}hartbeat = 31\n"), "the configuration cannot be used and stays as it is"),
        (format!("{open}motd_file = /x\nheartbeat = 31\n"), "configuration read again: changed"),
    ] {
        directory.file("rabbitmq.conf", &conf);
        let hangup = Command::new("kill").arg("-HUP").arg(broker.0.id().to_string()).status().unwrap();
        assert!(hangup.success());
        let mut line = String::new();
        while !line.contains(until) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "{until}: {said}");
            said.push_str(&line);
        }
        if until.contains("cannot be used") {
            assert!(!said.contains("TLS files read again"), "before the mistake: {said}");
            // Swapped files are found before a start.
            let swapped = open.replace("c.pem", "x.pem").replace("k.pem", "c.pem").replace("x.pem", "k.pem");
            let swapped = directory.file("swapped.conf", &swapped);
            let checked = warren(&["config", "check", swapped.to_str().unwrap()], &[]);
            let told = text(&checked.stderr);
            assert_eq!(checked.status.code(), Some(64), "{told}");
            assert!(
                told.contains("swapped.conf:4: tls.certificate_file: ") && told.contains("no certificate"),
                "{told}"
            );
        }
    }
    assert_eq!(said.matches("motd_file has no effect").count(), 1, "{said}");
}

#[test]
fn each_address_is_listened_on() {
    let directory = Directory::new();
    let conf = "listeners.tcp.1 = 127.0.0.1:0\nlisteners.tcp.2 = 127.0.0.1:0\nlisteners.tcp.3 = 127.0.0.2:0\n\
                management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = 0\nprometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = 0\n\
                cluster_name = orders-eu\n";
    let mut broker = start(&directory, conf);
    let mut ready = String::new();
    BufReader::new(broker.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let amqp: Vec<&str> = ready.split_whitespace().filter_map(|word| word.strip_prefix("amqp=")).collect();
    assert_eq!(amqp.len(), 3, "{ready}");
    for address in amqp {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let mut header = [0; 7];
        client.read_exact(&mut header).unwrap();
        let [_, _, _, size @ ..] = header;
        let mut start = vec![0; u32::from_be_bytes(size) as usize];
        client.read_exact(&mut start).unwrap();
        let start = String::from_utf8_lossy(&start);
        assert!(start.contains("cluster_name") && start.contains("orders-eu"), "{address}: {start}");
    }
}

#[test]
fn a_busy_port_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let port = taken.port();
    let quiet = "listeners.tcp.1 = 127.0.0.1:0\nmanagement.tcp.ip = 127.0.0.1\nprometheus.tcp.ip = 127.0.0.1\n";
    let free = "management.tcp.port = 0\nprometheus.tcp.port = 0\n";
    for (line, key) in [
        (format!("{free}listeners.tcp.1 = {taken}\n"), "amqp.port"),
        (format!("{free}listeners.tcp.2 = {taken}\n"), "amqp.listen"),
        (format!("{free}management.tcp.port = {port}\n"), "management.port"),
        (format!("{free}prometheus.tcp.port = {port}\n"), "prometheus.port"),
    ] {
        let directory = Directory::new();
        let broker = start(&directory, &format!("{quiet}{line}"));
        let mut broker = broker;
        let mut log = String::new();
        broker.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let message = format!("{key}: cannot listen on {taken}: Address already in use");
        assert!(log.contains(&message), "{message}\n{log}");
        assert_eq!(broker.0.wait().unwrap().code(), Some(1));
    }
}
