//! What each key of RabbitMQ's schema comes to here: the one list of them, those of its plugins included.

use super::value::Unit;

/// What a key comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The key here that takes its value.
    Key(&'static str, Unit),
    /// It is read together with others, see `groups`: the keys here that they come to.
    Together(&'static [&'static str]),
    /// With these values it asks for what is so in any case. With others it has no effect, and why.
    Is(&'static [&'static str], &'static str),
    /// It must have one of these values. Others would ask for what protects something and is not there: what to do instead.
    Must(&'static [&'static str], &'static str),
    /// It has no effect, and why.
    Nothing(&'static str),
    /// It cannot be used: what to write instead.
    Refused(&'static str),
}

use Meaning::{Is, Key, Must, Nothing, Refused, Together};

const CLUSTER: &str = "there is no cluster in this version";
const QUORUM: &str = "there are no quorum queues in this version";
const STREAMS: &str = "there are no streams in this version";
const MQTT: &str = "there is no MQTT in this version";
const STOMP: &str = "there is no STOMP in this version";
const AMQP10: &str = "there is no AMQP 1.0 in this version";
const SHOVEL: &str = "there are no shovels and no federation in this version";
const LDAP: &str = "there is no LDAP in this version";
const UI: &str = "there is no management UI in this version";
const ERLANG: &str = "it is about the Erlang runtime, and there is none";
const STORE: &str = "messages are stored another way";
const SOCKETS: &str = "the operating system's own settings are used";
const ACCEPTORS: &str = "one task accepts connections as fast as they come";
const HTTP_SERVER: &str = "the HTTP server has limits of its own";
const TLS_LIBRARY: &str = "the TLS library decides that by itself";
const LOG_OUTPUTS: &str = "the log goes to standard error and to a file";
const LOG_FORMAT: &str = "lines of the log have one form, as text or as JSON";
const LOG_FILE: &str = "all categories go to the same log";
const TAGS: &str = "labels of nodes and clusters are not kept";
const STATISTICS: &str = "statistics are always collected: they cost next to nothing";
const AGENT: &str = "filters of metrics do not exist; ask /metrics/detailed for the families that you want";
const HEADERS: &str = "answers of the API have fixed headers";
const HTTPS_CLIENTS: &str = "HTTP clients are not asked for certificates";
const CHECKED: &str = "certificates of servers are always checked against the name that was asked for";

const NO_CRL: &str = "lists of revoked certificates are not read: let verify_peer's authorities issue short certificates, and take \
     the key away";
const NO_PASSWORD: &str = "a private key must not be encrypted: write one that is not, with openssl pkcs8 -in KEY -out NEW, let \
     only the broker's user read it, name it in keyfile, and take the password away";
const NO_INLINE_KEY: &str = "keys and certificates are read from PEM files: name them in certfile and keyfile";
const NO_CLIENT_CERTIFICATE: &str = "the broker shows no certificate of its own to other servers; take the key away and let the \
     other side know the broker another way";
const NO_HTTP_CLIENT_CHECK: &str = "HTTP clients are not asked for certificates, so nobody would be kept out: take the key away, \
     and let a proxy before the port check them";
const NO_UNCHECKED: &str =
    "the certificate of that server is always checked: name its authority in cacertfile, and write verify_peer";
const NO_DEFINITIONS_URL: &str = "definitions are read from files alone: fetch them before the start, and write \
     definitions.import_backend = local_filesystem and definitions.local.path";
const NO_MECHANISM_OFF: &str =
    "logins with name and password cannot be turned off for the API: put auth_backends.1 = oauth2 alone";
const NO_METRICS_LOGIN: &str = "metrics are not protected by a login: write prometheus.tcp.ip = 127.0.0.1, or let a proxy ask for \
     the login, and take the key away";

/// A pattern is a key in which `*` is any one part, and `**` at the end any one or more; the first that fits counts.
pub(super) static KEYS: &[(&str, Meaning)] = &[
    // AMQP
    ("listeners.tcp", Together(&["amqp.port", "amqp.bind", "amqp.listen"])),
    ("listeners.tcp.*", Together(&["amqp.port", "amqp.bind", "amqp.listen"])),
    ("listeners.ssl", Together(&["amqp.tls_port", "amqp.tls_listen"])),
    ("listeners.ssl.*", Together(&["amqp.tls_port", "amqp.tls_listen"])),
    ("listeners.startup_delay", Nothing("listeners open as soon as the broker can serve")),
    ("num_acceptors.*", Nothing(ACCEPTORS)),
    ("heartbeat", Key("amqp.heartbeat", Unit::Seconds)),
    ("frame_max", Key("amqp.frame_max", Unit::FrameSize)),
    ("initial_frame_max", Nothing("the first frames may have 4096 bytes, as the protocol says")),
    ("channel_max", Key("amqp.channel_max", Unit::Channels)),
    ("max_channels_per_connection", Key("amqp.channel_max", Unit::Channels)),
    ("channel_max_per_node", Key("limits.channels_per_node", Unit::Limit)),
    ("consumer_max_per_channel", Key("amqp.consumers_per_channel_max", Unit::Limit)),
    (
        "channel_tx_message_max",
        Is(&["infinity"], "one transaction holds up to 256 MiB, however many messages they are"),
    ),
    ("session_max_per_connection", Nothing(AMQP10)),
    ("link_max_per_session", Nothing(AMQP10)),
    ("connection_max", Key("limits.connections", Unit::Limit)),
    ("max_connections", Key("limits.connections", Unit::Limit)),
    ("ranch_connection_max", Is(&["infinity"], "connection_max limits the connections of all listeners together")),
    ("max_message_size", Key("amqp.max_message_size", Unit::Bytes)),
    ("handshake_timeout", Key("amqp.handshake_timeout", Unit::MillisecondsWithin(100, 3_600_000))),
    ("reverse_dns_lookups", Is(&["false"], "connections are named by addresses")),
    ("proxy_protocol", Together(&["amqp.proxy_protocol", "amqp.proxy_trusted"])),
    ("tcp_listen_options", Nothing(SOCKETS)),
    ("tcp_listen_options.backlog", Key("amqp.backlog", Unit::Count)),
    ("tcp_listen_options.nodelay", Is(&["true"], "small writes are never held back")),
    ("tcp_listen_options.keepalive", Is(&["false"], "heartbeats notice a peer that is gone")),
    ("tcp_listen_options.exit_on_close", Nothing(SOCKETS)),
    ("tcp_listen_options.**", Nothing(SOCKETS)),
    ("socket_writer.gc_threshold", Nothing(ERLANG)),
    ("auth_mechanisms.*", Together(&["amqp.mechanisms"])),
    ("anonymous_login_user", Together(&["amqp.mechanisms"])),
    ("anonymous_login_pass", Nothing("a client that logs in with ANONYMOUS is the default user")),
    // TLS
    ("ssl_options", Is(&["none"], "TLS has its keys below ssl_options")),
    ("ssl_options.certfile", Together(&["tls.certificate_file"])),
    ("ssl_options.keyfile", Together(&["tls.key_file"])),
    ("ssl_options.cacertfile", Key("tls.ca_file", Unit::Text)),
    ("ssl_options.verify", Together(&["tls.verify"])),
    ("ssl_options.fail_if_no_peer_cert", Key("tls.fail_if_no_peer_cert", Unit::Boolean)),
    ("ssl_options.versions.*", Together(&["tls.versions"])),
    ("ssl_options.ciphers.*", Together(&["tls.ciphers"])),
    ("ssl_options.password", Refused(NO_PASSWORD)),
    ("ssl_options.cert", Refused(NO_INLINE_KEY)),
    ("ssl_options.key.*", Refused(NO_INLINE_KEY)),
    ("ssl_options.crl_check", Must(&["false"], NO_CRL)),
    ("ssl_options.crl_sources.**", Nothing("lists of revoked certificates are not read")),
    ("ssl_options.psk_identity", Refused("keys that are agreed on beforehand (PSK) do not exist: use certificates")),
    ("ssl_options.depth", Nothing("the number of intermediate certificates is limited by the TLS library")),
    ("ssl_options.**", Nothing(TLS_LIBRARY)),
    ("ssl_allow_poodle_attack", Is(&["false"], "SSL 3 does not exist")),
    ("ssl_handshake_timeout", Key("tls.handshake_timeout", Unit::MillisecondsWithin(100, 3_600_000))),
    ("ssl_cert_login_from", Together(&["tls.login_from"])),
    ("ssl_cert_login_san_type", Key("tls.login_san_type", Unit::Text)),
    ("ssl_cert_login_san_index", Key("tls.login_san_index", Unit::Count)),
    // What a new broker has
    ("default_user", Key("defaults.user", Unit::Text)),
    ("default_pass", Key("defaults.password", Unit::Text)),
    ("default_vhost", Key("defaults.vhost", Unit::Text)),
    ("default_user_tags.*", Together(&["defaults.tags"])),
    ("default_permissions.configure", Key("defaults.configure", Unit::Text)),
    ("default_permissions.write", Key("defaults.write", Unit::Text)),
    ("default_permissions.read", Key("defaults.read", Unit::Text)),
    ("default_users.*.vhost_pattern", Together(&["defaults.users"])),
    ("default_users.*.password", Together(&["defaults.users"])),
    ("default_users.*.tags", Together(&["defaults.users"])),
    ("default_users.*.configure", Together(&["defaults.users"])),
    ("default_users.*.write", Together(&["defaults.users"])),
    ("default_users.*.read", Together(&["defaults.users"])),
    ("loopback_users", Together(&["defaults.loopback_only"])),
    ("loopback_users.*", Together(&["defaults.loopback_only"])),
    ("default_queue_type", Together(&["queues.default_type"])),
    ("load_definitions", Together(&["definitions.load"])),
    ("management.load_definitions", Together(&["definitions.load"])),
    ("definitions.import_backend", Together(&["definitions.load"])),
    ("definitions.local.path", Together(&["definitions.load"])),
    ("definitions.skip_if_unchanged", Key("definitions.skip_if_unchanged", Unit::Boolean)),
    ("definitions.hashing.algorithm", Nothing("files that have not changed are told by another checksum")),
    ("definitions.https.url", Refused(NO_DEFINITIONS_URL)),
    ("definitions.tls.**", Nothing("definitions are read from files alone")),
    ("vhost_max", Key("limits.vhosts", Unit::Limit)),
    (
        "default_policies.operator.*.classic_queues.**",
        Nothing("there are no mirrored queues, and one version of classic queues"),
    ),
    ("default_policies.operator.*.*", Together(&["defaults.operator_policies"])),
    ("default_limits.vhosts.*.*", Together(&["defaults.vhost_limits"])),
    // Alarms
    ("vm_memory_high_watermark.relative", Together(&["memory.high_watermark"])),
    ("vm_memory_high_watermark.absolute", Together(&["memory.high_watermark"])),
    ("total_memory_available_override_value", Together(&["memory.high_watermark", "storage.disk_free_limit"])),
    ("disk_free_limit.relative", Together(&["storage.disk_free_limit"])),
    ("disk_free_limit.absolute", Together(&["storage.disk_free_limit"])),
    ("vm_memory_high_watermark_paging_ratio", Nothing("queues keep on the disk what exceeds storage.memory_budget")),
    ("vm_memory_calculation_strategy", Is(&["rss"], "the memory in use is the process's resident memory")),
    ("memory_monitor_interval", Key("memory.check_interval", Unit::MillisecondsWithin(10, 60_000))),
    // Queues
    ("consumer_timeout", Key("queues.consumer_timeout", Unit::Milliseconds)),
    ("consumer_disconnected_timeout", Nothing(QUORUM)),
    ("classic_queue.default_version", Nothing(STORE)),
    ("queue_index_embed_msgs_below", Nothing(STORE)),
    ("message_store_shutdown_timeout", Nothing(STORE)),
    ("queue_master_locator", Nothing(CLUSTER)),
    ("queue_leader_locator", Nothing(CLUSTER)),
    ("queue_types.classic.enabled", Must(&["true"], "classic queues are the only ones in this version")),
    ("queue_types.*.enabled", Is(&["false"], "there are classic queues alone in this version")),
    ("exchange_types.local_random.enabled", Is(&["true"], "all exchange types are always there")),
    ("cluster_queue_limit", Key("limits.queues", Unit::Limit)),
    ("cluster_exchange_limit", Key("limits.exchanges", Unit::Limit)),
    (
        "deprecated_features.permit.transient_nonexcl_queues",
        Key("compatibility.transient_nonexclusive_queues", Unit::Boolean),
    ),
    ("deprecated_features.permit.global_qos", Key("compatibility.global_qos", Unit::Boolean)),
    ("deprecated_features.permit.*", Nothing("that feature does not exist here, or cannot be turned off")),
    ("message_interceptors.**", Nothing("headers are not added to messages as they come")),
    ("channel_interceptor.priorities.*", Nothing("headers are not added to messages as they come")),
    // Who may do what
    ("auth_backends.*", Together(&["auth.backends"])),
    ("auth_backends.*.authn", Together(&["auth.backends"])),
    ("auth_backends.*.authz", Together(&["auth.backends"])),
    (
        "http_dispatch.auth_backends.**",
        Refused("the API asks the same backends as AMQP does: write them as auth_backends"),
    ),
    ("auth_cache.cached_backend", Together(&["auth.backends"])),
    ("auth_cache.cached_backend.*", Together(&["auth.backends"])),
    ("auth_cache.cache_ttl", Key("auth.cache_ttl", Unit::MillisecondsWithin(0, 3_600_000))),
    ("auth_cache.**", Nothing("refusals are not remembered, and there is one cache")),
    ("auth_http.http_method", Key("auth_http.method", Unit::Text)),
    ("auth_http.user_path", Key("auth_http.user_path", Unit::Text)),
    ("auth_http.vhost_path", Key("auth_http.vhost_path", Unit::Text)),
    ("auth_http.resource_path", Key("auth_http.resource_path", Unit::Text)),
    ("auth_http.topic_path", Key("auth_http.topic_path", Unit::Text)),
    ("auth_http.request_timeout", Key("auth_http.timeout", Unit::MillisecondsWithin(100, 60_000))),
    ("auth_http.connection_timeout", Nothing("auth_http.request_timeout is for the connection too")),
    ("auth_http.authorization_failure_disclosure", Is(&["false"], "the service's words are not passed on to clients")),
    ("auth_http.ssl_options.cacertfile", Key("auth_http.cacertfile", Unit::Text)),
    ("auth_http.ssl_options.verify", Must(&["verify_peer"], NO_UNCHECKED)),
    ("auth_http.ssl_options.hostname_verification", Is(&["wildcard"], CHECKED)),
    ("auth_http.ssl_options.fail_if_no_peer_cert", Nothing(CHECKED)),
    ("auth_http.ssl_options.certfile", Refused(NO_CLIENT_CERTIFICATE)),
    ("auth_http.ssl_options.keyfile", Refused(NO_CLIENT_CERTIFICATE)),
    ("auth_http.ssl_options.cert", Refused(NO_CLIENT_CERTIFICATE)),
    ("auth_http.ssl_options.key.*", Refused(NO_CLIENT_CERTIFICATE)),
    ("auth_http.ssl_options.crl_check", Must(&["false"], NO_CRL)),
    ("auth_http.ssl_options", Is(&["none"], TLS_LIBRARY)),
    ("auth_http.ssl_options.**", Nothing(TLS_LIBRARY)),
    ("auth_oauth2.resource_server_id", Key("oauth2.resource_server_id", Unit::Text)),
    ("auth_oauth2.resource_server_type", Key("oauth2.resource_server_type", Unit::Text)),
    ("auth_oauth2.scope_prefix", Key("oauth2.scope_prefix", Unit::Text)),
    ("auth_oauth2.verify_aud", Key("oauth2.verify_aud", Unit::Boolean)),
    ("auth_oauth2.require_exp", Is(&["false"], "a token without an end is accepted")),
    ("auth_oauth2.introspection_endpoint", Key("oauth2.introspection_endpoint", Unit::Text)),
    ("auth_oauth2.introspection_client_id", Key("oauth2.introspection_client_id", Unit::Text)),
    ("auth_oauth2.introspection_client_secret", Key("oauth2.introspection_client_secret", Unit::Text)),
    ("auth_oauth2.introspection_client_auth_method", Key("oauth2.introspection_client_auth_method", Unit::Text)),
    ("auth_oauth2.additional_scopes_key", Together(&["oauth2.additional_scopes_keys"])),
    ("auth_oauth2.scope_aliases.**", Together(&["oauth2.scope_aliases"])),
    ("auth_oauth2.preferred_username_claims.*", Together(&["oauth2.username_claims"])),
    ("auth_oauth2.default_key", Together(&["oauth2.default_key"])),
    ("auth_oauth2.signing_keys.*", Together(&["oauth2.signing_keys"])),
    ("auth_oauth2.issuer", Together(&["oauth2.issuers"])),
    ("auth_oauth2.jwks_uri", Together(&["oauth2.jwks_uri"])),
    ("auth_oauth2.jwks_url", Together(&["oauth2.jwks_uri"])),
    ("auth_oauth2.algorithms.*", Together(&["oauth2.algorithms"])),
    ("auth_oauth2.https.cacertfile", Together(&["oauth2.cacertfile"])),
    ("auth_oauth2.https.verify", Must(&["verify_peer"], NO_UNCHECKED)),
    ("auth_oauth2.https.peer_verification", Must(&["verify_peer"], NO_UNCHECKED)),
    ("auth_oauth2.https.crl_check", Must(&["false"], NO_CRL)),
    ("auth_oauth2.https.hostname_verification", Is(&["wildcard"], CHECKED)),
    ("auth_oauth2.https.**", Nothing(TLS_LIBRARY)),
    ("auth_oauth2.default_oauth_provider", Together(&["oauth2.issuers", "oauth2.jwks_uri"])),
    ("auth_oauth2.oauth_providers.*.https.verify", Must(&["verify_peer"], NO_UNCHECKED)),
    ("auth_oauth2.oauth_providers.*.https.crl_check", Must(&["false"], NO_CRL)),
    ("auth_oauth2.oauth_providers.*.https.hostname_verification", Is(&["wildcard"], CHECKED)),
    ("auth_oauth2.oauth_providers.*.https.depth", Nothing(TLS_LIBRARY)),
    (
        "auth_oauth2.oauth_providers.*.discovery_endpoint_path",
        Must(
            &[".well-known/openid-configuration"],
            "an issuer is asked \
         for its keys at .well-known/openid-configuration: write jwks_uri in place of the path",
        ),
    ),
    (
        "auth_oauth2.oauth_providers.*.discovery_endpoint_params.*",
        Refused("an issuer is asked without parameters: write jwks_uri"),
    ),
    ("auth_oauth2.oauth_providers.*.token_endpoint", Nothing(UI)),
    ("auth_oauth2.oauth_providers.*.authorization_endpoint", Nothing(UI)),
    ("auth_oauth2.oauth_providers.*.end_session_endpoint", Nothing(UI)),
    (
        "auth_oauth2.oauth_providers.**",
        Together(&["oauth2.issuers", "oauth2.jwks_uri", "oauth2.signing_keys", "oauth2.cacertfile"]),
    ),
    (
        "auth_oauth2.discovery_endpoint_path",
        Must(
            &[".well-known/openid-configuration"],
            "an issuer is asked for its keys at \
         .well-known/openid-configuration: write jwks_uri in place of the path",
        ),
    ),
    ("auth_oauth2.discovery_endpoint_params.*", Refused("an issuer is asked without parameters: write jwks_uri")),
    ("auth_oauth2.token_endpoint", Nothing(UI)),
    ("auth_oauth2.authorization_endpoint", Nothing(UI)),
    ("auth_oauth2.end_session_endpoint", Nothing(UI)),
    ("auth_oauth2.resource_servers.*.require_exp", Is(&["false"], "a token without an end is accepted")),
    ("auth_oauth2.resource_servers.**", Together(&["oauth2.resource_servers"])),
    ("auth_ldap.**", Nothing(LDAP)),
    (
        "trust_store.**",
        Refused(
            "lists of single trusted certificates do not exist: take the key away, and name the authority of the \
         clients' certificates in ssl_options.cacertfile",
        ),
    ),
    (
        "password_hashing_module",
        Is(
            &["rabbit_password_hashing_sha256"],
            "passwords are hashed with SHA-256; other hashes are imported as \
         they are",
        ),
    ),
    ("credential_validator.validation_backend", Together(&["auth.password_min_length", "auth.password_pattern"])),
    ("credential_validator.min_length", Together(&["auth.password_min_length"])),
    ("credential_validator.regexp", Together(&["auth.password_pattern"])),
    // The management API
    ("management.tcp.port", Together(&["management.port"])),
    ("management.tcp.ip", Together(&["management.bind"])),
    ("management.ssl.port", Together(&["management.tls_port"])),
    ("management.ssl.ip", Together(&["management.tls_listen"])),
    ("management.ssl.certfile", Together(&["management.certificate_file"])),
    ("management.ssl.keyfile", Together(&["management.key_file"])),
    ("management.ssl.cacertfile", Nothing(HTTPS_CLIENTS)),
    ("management.ssl.verify", Is(&["verify_none"], HTTPS_CLIENTS)),
    ("management.ssl.fail_if_no_peer_cert", Must(&["false"], NO_HTTP_CLIENT_CHECK)),
    ("management.ssl.password", Refused(NO_PASSWORD)),
    ("management.ssl.versions.*", Nothing("the versions of TLS are those of ssl_options")),
    ("management.ssl.ciphers.*", Nothing("the cipher suites are those of ssl_options")),
    ("management.ssl.**", Nothing(HTTP_SERVER)),
    ("management.tcp.**", Nothing(HTTP_SERVER)),
    ("management.listener.port", Together(&["management.port", "management.tls_port"])),
    ("management.listener.ip", Together(&["management.bind"])),
    ("management.listener.ssl", Together(&["management.tls_port"])),
    ("management.listener.ssl_opts", Is(&["none"], HTTP_SERVER)),
    ("management.listener.ssl_opts.certfile", Together(&["management.certificate_file"])),
    ("management.listener.ssl_opts.keyfile", Together(&["management.key_file"])),
    ("management.listener.ssl_opts.cacertfile", Nothing(HTTPS_CLIENTS)),
    ("management.listener.ssl_opts.verify", Is(&["verify_none"], HTTPS_CLIENTS)),
    ("management.listener.ssl_opts.fail_if_no_peer_cert", Must(&["false"], NO_HTTP_CLIENT_CHECK)),
    ("management.listener.ssl_opts.password", Refused(NO_PASSWORD)),
    ("management.listener.ssl_opts.cert", Refused(NO_INLINE_KEY)),
    ("management.listener.ssl_opts.key.*", Refused(NO_INLINE_KEY)),
    ("management.listener.ssl_opts.crl_check", Must(&["false"], NO_CRL)),
    ("management.listener.**", Nothing(HTTP_SERVER)),
    ("management.http.max_body_size", Key("management.max_body_size", Unit::Bytes)),
    ("management.http.hide_allow_header", Is(&["false"], HEADERS)),
    ("management.http_log_dir", Nothing("requests of the API are not logged")),
    ("http_dispatch.access_log_dir", Nothing("requests of the API are not logged")),
    ("management.cors.allow_origins", Together(&["management.cors_allow_origins"])),
    ("management.cors.allow_origins.*", Together(&["management.cors_allow_origins"])),
    ("management.cors.max_age", Key("management.cors_max_age", Unit::Seconds)),
    ("management.hsts.policy", Key("management.hsts", Unit::Text)),
    ("management.csp.policy", Nothing(UI)),
    ("management.headers.*", Nothing(HEADERS)),
    ("management.path_prefix", Is(&["/"], "the API is at /api: let the proxy take the prefix away")),
    ("management.disable_basic_auth", Must(&["false"], NO_MECHANISM_OFF)),
    ("management.oauth_disable_basic_auth", Nothing(UI)),
    ("management.oauth_**", Nothing(UI)),
    ("management.login_session_timeout", Nothing(UI)),
    ("management.credential_encryption_secret", Nothing(UI)),
    ("management.require_auth_for_api_reference", Nothing(UI)),
    ("management.definitions.require_json_extension", Nothing("definitions are told by their content")),
    ("management.rates_mode", Is(&["basic"], STATISTICS)),
    ("management.sample_retention_policies.**", Nothing("charts keep a day within management.history_memory")),
    ("management.disable_stats", Is(&["false"], STATISTICS)),
    ("management.enable_queue_totals", Is(&["true", "false"], STATISTICS)),
    (
        "management.restrictions.operator_policy_changes.disabled",
        Must(
            &["false"],
            "operator policies can be changed by every \
         administrator: take the key away, and give the tag to those who may",
        ),
    ),
    ("management.restrictions.**", Nothing(QUORUM)),
    ("management.delegate_count", Nothing(ERLANG)),
    ("management.db_cache_multiplier", Nothing(STATISTICS)),
    ("management_agent.filter_aggregated_queue_metrics_pattern", Nothing(AGENT)),
    ("management_agent.disable_metrics_collector", Is(&["false"], STATISTICS)),
    ("collect_statistics", Nothing(STATISTICS)),
    ("collect_statistics_interval", Key("management.sample_interval", Unit::MillisecondsWithin(1_000, 60_000))),
    // Prometheus
    ("prometheus.tcp.port", Together(&["prometheus.port"])),
    ("prometheus.tcp.ip", Together(&["prometheus.bind"])),
    ("prometheus.tcp.listener", Together(&["prometheus.port", "prometheus.bind"])),
    ("prometheus.ssl.port", Together(&["prometheus.tls_port"])),
    ("prometheus.ssl.ip", Together(&["prometheus.tls_listen"])),
    ("prometheus.ssl.listener", Together(&["prometheus.tls_port", "prometheus.tls_listen"])),
    ("prometheus.ssl.certfile", Together(&["prometheus.certificate_file"])),
    ("prometheus.ssl.keyfile", Together(&["prometheus.key_file"])),
    ("prometheus.ssl.cacertfile", Nothing(HTTPS_CLIENTS)),
    ("prometheus.ssl.verify", Is(&["verify_none"], HTTPS_CLIENTS)),
    ("prometheus.ssl.fail_if_no_peer_cert", Must(&["false"], NO_HTTP_CLIENT_CHECK)),
    ("prometheus.ssl.password", Refused(NO_PASSWORD)),
    ("prometheus.ssl.versions.*", Nothing("the versions of TLS are those of ssl_options")),
    ("prometheus.ssl.ciphers.*", Nothing("the cipher suites are those of ssl_options")),
    ("prometheus.ssl.**", Nothing(HTTP_SERVER)),
    ("prometheus.tcp.**", Nothing(HTTP_SERVER)),
    ("prometheus.return_per_object_metrics", Key("prometheus.return_per_object_metrics", Unit::Boolean)),
    ("prometheus.path", Is(&["/metrics"], "metrics are at /metrics")),
    ("prometheus.filter_aggregated_queue_metrics_pattern", Nothing(AGENT)),
    ("prometheus.authentication.enabled", Must(&["false"], NO_METRICS_LOGIN)),
    // The log
    ("log.dir", Together(&["log.file"])),
    ("log.console", Together(&["log.console"])),
    ("log.console.level", Together(&["log.level"])),
    ("log.console.formatter", Together(&["log.format"])),
    ("log.console.stdio", Is(&["stderr"], "the log goes to standard error; standard output has the ready line alone")),
    ("log.file", Together(&["log.file"])),
    ("log.file.level", Together(&["log.level"])),
    ("log.file.formatter", Together(&["log.format"])),
    ("log.file.rotation.size", Key("log.rotation_size", Unit::Bytes)),
    ("log.file.rotation.count", Together(&["log.rotation_count"])),
    (
        "log.file.rotation.date",
        Nothing("the file is turned over by its size; a program such as logrotate can do it by the date"),
    ),
    ("log.file.rotation.compress", Is(&["false"], "older files are not compressed")),
    ("log.exchange.**", Nothing(LOG_OUTPUTS)),
    ("log.exchange", Is(&["false"], LOG_OUTPUTS)),
    ("log.syslog.**", Nothing(LOG_OUTPUTS)),
    ("log.syslog", Is(&["false"], LOG_OUTPUTS)),
    ("log.journald.**", Nothing("what goes to standard error is in the journal, where systemd starts the broker")),
    ("log.journald", Is(&["false"], "what goes to standard error is in the journal, where systemd starts the broker")),
    ("log.console.**", Nothing(LOG_FORMAT)),
    ("log.file.**", Nothing(LOG_FORMAT)),
    ("log.error_logger_format_depth", Nothing(ERLANG)),
    ("log.summarize_process_state", Nothing(ERLANG)),
    ("log.default.level", Together(&["log.level"])),
    ("log.*.level", Together(&["log.levels"])),
    ("log.*.file", Nothing(LOG_FILE)),
    ("log.*.rotation.*", Nothing(LOG_FILE)),
    // The node
    ("cluster_name", Key("node.cluster_name", Unit::Text)),
    ("product.name", Key("compatibility.product", Unit::Text)),
    ("product.version", Key("compatibility.version", Unit::Text)),
    ("motd_file", Nothing("there is no message of the day")),
    ("cluster_tags.*", Nothing(TAGS)),
    ("node_tags.*", Nothing(TAGS)),
    ("nodename", Nothing("RABBITMQ_NODENAME or node.name names the node")),
    ("cluster_formation.**", Nothing(CLUSTER)),
    ("cluster_partition_handling", Nothing(CLUSTER)),
    ("cluster_partition_handling.**", Nothing(CLUSTER)),
    ("cluster_keepalive_interval", Nothing(CLUSTER)),
    ("mirroring_**", Nothing(CLUSTER)),
    ("metadata_store.**", Nothing(CLUSTER)),
    ("mnesia_**", Nothing(CLUSTER)),
    ("raft.**", Nothing(CLUSTER)),
    ("net_ticktime", Nothing(CLUSTER)),
    ("aws.**", Nothing(CLUSTER)),
    ("distributed_cookie", Nothing(CLUSTER)),
    ("distribution.**", Nothing(CLUSTER)),
    ("erlang.**", Nothing(ERLANG)),
    ("sysmon_handler.**", Nothing(ERLANG)),
    ("hipe_compile", Nothing(ERLANG)),
    ("background_gc_enabled", Nothing(ERLANG)),
    ("background_gc_target_interval", Nothing(ERLANG)),
    ("delegate_count", Nothing(ERLANG)),
    ("default_worker_pool_size", Nothing(ERLANG)),
    ("vhost_restart_strategy", Nothing("virtual hosts do not fail one by one")),
    ("prevent_startup_if_node_was_reset", Nothing(CLUSTER)),
    ("credentials_obfuscation.**", Nothing("credentials of shovels and links are not kept")),
    (
        "config_entry_decoder.**",
        Refused(
            "encrypted values are not read: write them in plain in a file that only the broker's user may \
         read, or name a variable, $(NAME)",
        ),
    ),
    ("runtime_parameters.limits.*", Nothing("the number of parameters is not limited")),
    ("quorum_queue.**", Nothing(QUORUM)),
    ("stream.**", Nothing(STREAMS)),
    ("quorum_commands_soft_limit", Nothing(QUORUM)),
    ("quorum_cluster_size", Nothing(QUORUM)),
    ("osiris.**", Nothing(STREAMS)),
    ("mqtt.**", Nothing(MQTT)),
    ("web_mqtt.**", Nothing(MQTT)),
    ("stomp.**", Nothing(STOMP)),
    ("web_stomp.**", Nothing(STOMP)),
    ("amqp1_0.**", Nothing(AMQP10)),
    ("amqp10_client.**", Nothing(SHOVEL)),
    ("amqp_client.**", Nothing(SHOVEL)),
    ("shovel.**", Nothing(SHOVEL)),
    ("federation.**", Nothing(SHOVEL)),
    ("tracing.**", Nothing("traced messages are messages of amq.rabbitmq.trace; no file is written")),
    ("event_exchange.vhost", Is(&["/"], "events go to amq.rabbitmq.event in the first virtual host")),
    ("event_exchange.protocol", Is(&["amqp_0_9_1"], AMQP10)),
];

/// What a key comes to; None for one that RabbitMQ does not have either.
pub(super) fn meaning(parts: &[String]) -> Option<Meaning> {
    KEYS.iter().find(|(pattern, _)| fits(pattern, parts)).map(|(_, meaning)| *meaning)
}

fn fits(pattern: &str, parts: &[String]) -> bool {
    let mut patterns = pattern.split('.').peekable();
    let mut parts = parts.iter();
    while let Some(pattern) = patterns.next() {
        let Some(part) = parts.next() else { return false };
        let is_last = patterns.peek().is_none();
        match pattern.strip_suffix("**") {
            Some(start) if is_last => return part.starts_with(start),
            _ if pattern == "*" || pattern == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

/// The keys here that a key comes to.
fn paths(meaning: &Meaning) -> &[&'static str] {
    match meaning {
        Key(path, _) => std::slice::from_ref(path),
        Together(paths) => paths,
        Is(..) | Must(..) | Nothing(_) | Refused(_) => &[],
    }
}

/// The key here that a key of RabbitMQ comes to, the foremost where there are several.
pub(crate) fn own_of(name: &str) -> Option<&'static str> {
    let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
    match meaning(&parts)? {
        Key(path, _) => Some(path),
        Together(paths) => paths.first().copied(),
        Is(..) | Must(..) | Nothing(_) | Refused(_) => None,
    }
}

/// The keys of RabbitMQ that come to a key here.
pub(crate) fn names_of(path: &str) -> Vec<&'static str> {
    KEYS.iter().filter(|(_, meaning)| paths(meaning).contains(&path)).map(|(pattern, _)| *pattern).collect()
}

/// Every key, and what it comes to, as rows of a table in Markdown.
pub(crate) fn rows() -> String {
    let mut text = String::new();
    for (pattern, meaning) in KEYS {
        let quoted = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let what = match meaning {
            Key(..) | Together(_) => quoted(paths(meaning)),
            Is(values, reason) => format!("no effect but as {}: {reason}", quoted(values)),
            Must(values, instead) => format!("refused but as {}: {instead}", quoted(values)),
            Nothing(reason) => format!("no effect: {reason}"),
            Refused(instead) => format!("refused: {instead}"),
        };
        text.push_str(&format!("| `{pattern}` | {} |\n", what.replace('|', "\\|")));
    }
    text
}

/// The keys without free parts, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(pattern, _)| *pattern).filter(|pattern| !pattern.contains('*'))
}

/// The last parts of keys that have a free part and begin like this one, which is not among them.
pub(super) fn siblings(parts: &[String]) -> Vec<&'static str> {
    let Some((_, beginning)) = parts.split_last() else { return Vec::new() };
    let with_free_parts = KEYS.iter().filter_map(|(pattern, _)| pattern.rsplit_once('.'));
    let with_free_parts = with_free_parts.filter(|(start, last)| start.contains('*') && !last.contains('*'));
    with_free_parts.filter(|(start, _)| fits(start, beginning)).map(|(_, last)| last).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::schema::Key as OwnKey;
    use super::*;

    #[test]
    fn keys_here_exist() {
        for (pattern, meaning) in KEYS {
            for path in paths(meaning) {
                assert!(OwnKey::find(path).is_some(), "{pattern}: {path}");
            }
        }
    }

    #[test]
    fn keys_are_found_both_ways() {
        for (pattern, meaning) in KEYS {
            let name = pattern.replace("**", "x").replace('*', "x");
            assert_eq!(own_of(&name), paths(meaning).first().copied(), "{pattern}");
            assert!(paths(meaning).iter().all(|path| names_of(path).contains(pattern)), "{pattern}");
        }
        assert_eq!(own_of("listeners.tcp.2"), Some("amqp.port"));
        assert_eq!(names_of("amqp.heartbeat"), ["heartbeat"]);
    }

    #[test]
    fn no_pattern_hides_another_one() {
        for (index, (pattern, _)) in KEYS.iter().enumerate() {
            let parts: Vec<String> =
                pattern.replace("**", "x").replace('*', "x").split('.').map(str::to_owned).collect();
            let first = KEYS.iter().position(|(other, _)| fits(other, &parts));
            assert_eq!(first, Some(index), "{pattern} is behind {:?}", first.map(|first| KEYS[first].0));
        }
    }

    #[test]
    fn parts_are_compared_one_by_one() {
        let does_fit = |pattern: &str, key: &str| {
            let parts: Vec<String> = key.split('.').map(str::to_owned).collect();
            fits(pattern, &parts)
        };
        assert!(does_fit("a.*", "a.b") && !does_fit("a.*", "a") && !does_fit("a.*", "a.b.c"));
        assert!(does_fit("a.**", "a.b.c") && !does_fit("a.**", "a") && !does_fit("a.**", "b.c"));
        assert!(does_fit("a.b_**", "a.b_c") && does_fit("a.b_**", "a.b_c.d") && !does_fit("a.b_**", "a.bc"));
    }
}
