//! What no single key can tell: values that contradict each other, password files, warnings.

use std::collections::BTreeSet;
use std::path::Path;

use super::Origins;
use super::machine::host_name;
use super::origin::{Origin, Problems};
use super::rabbitmq::is_rabbitmq;
use super::raw::Raw;
use super::schema::Config;
use super::sources::reason;
use super::types::{Mechanism, Secret, TlsVerify};

/// Why a file with a password is not empty.
const NO_LOGIN: &str = ": nobody can log in with an empty password";

/// Puts in what is worked out from other values and checks them against each other.
pub(crate) fn complete(config: &mut Config, origins: &mut Origins, problems: &mut Problems) {
    if config.node.name.is_empty() {
        config.node.name = host_name();
    }
    default_password(config, origins, problems);
    user_passwords(config, origins, problems);
    introspection_secret(config, origins, problems);
    check_users(config, origins, problems);
    check_vhosts(config, origins, problems);
    check_mechanisms(config, origins, problems);
    check_server_properties(config, origins, problems);
    check_log(config, origins, problems);
    check_tls(config, origins, problems);
    check_backends(config, origins, problems);
}

fn default_password(config: &mut Config, origins: &mut Origins, problems: &mut Problems) {
    let Some(file) = config.defaults.password_file.clone() else { return };
    let keys = ["defaults.password_file", "defaults.password"];
    match secret_of(&file, keys, NO_LOGIN, origins, problems) {
        Counts::File(password) => config.defaults.password = password,
        Counts::Other => config.defaults.password_file = None,
        Counts::Mistake => {}
    }
}

fn introspection_secret(config: &mut Config, origins: &mut Origins, problems: &mut Problems) {
    let Some(file) = config.oauth2.introspection_client_secret_file.clone() else { return };
    let keys = ["oauth2.introspection_client_secret_file", "oauth2.introspection_client_secret"];
    match secret_of(&file, keys, "", origins, problems) {
        Counts::File(secret) => config.oauth2.introspection_client_secret = Some(secret),
        Counts::Other => config.oauth2.introspection_client_secret_file = None,
        Counts::Mistake => {}
    }
}

/// Which of two keys for one secret counts.
enum Counts {
    /// The file, with this secret.
    File(Secret),
    /// The secret in place, which was given with higher precedence.
    Other,
    Mistake,
}

/// A secret's file against the secret in place: the one from the place of higher precedence counts, and both from the
/// same place contradict each other. `keys` are those of both, `empty` is why no file may be empty.
fn secret_of(
    file: &Path,
    [path, other]: [&str; 2],
    empty: &str,
    origins: &mut Origins,
    problems: &mut Problems,
) -> Counts {
    let (file_origin, secret_origin) = (origins.of(path), origins.of(other));
    if secret_origin.level() > file_origin.level() {
        return Counts::Other;
    }
    if secret_origin.level() == file_origin.level() {
        let message = format!("{other} is set as well ({secret_origin}); keep one of them");
        problems.value(&file_origin, path, message);
        return Counts::Mistake;
    }
    match read_secret(file, &file_origin, path, empty, problems) {
        Some(secret) => {
            origins.set(other, &Raw::plain(file_origin, ""));
            Counts::File(secret)
        }
        None => Counts::Mistake,
    }
}

fn user_passwords(config: &mut Config, origins: &Origins, problems: &mut Problems) {
    for (index, user) in config.users.iter_mut().enumerate() {
        if let Some(file) = &user.password_file {
            let key = format!("users[{index}].password_file");
            user.password = read_secret(file, &origins.of(&key), &key, NO_LOGIN, problems);
        }
    }
    for (name, user) in &mut config.defaults.users {
        if let Some(file) = &user.password_file {
            let key = format!("defaults.users.{name}.password_file");
            user.password = read_secret(file, &origins.of(&key), &key, NO_LOGIN, problems);
        }
    }
}

/// A secret from a file, without the line end; `empty` is why it may not be empty.
fn read_secret(file: &Path, origin: &Origin, key: &str, empty: &str, problems: &mut Problems) -> Option<Secret> {
    let message = match std::fs::read_to_string(file) {
        Ok(text) => match text.trim_end_matches(['\r', '\n']) {
            "" => format!("{} is empty{empty}", file.display()),
            secret => return Some(Secret::new(secret)),
        },
        Err(error) => format!("cannot read {}: {}", file.display(), reason(&error)),
    };
    problems.value(origin, key, message);
    None
}

fn check_users(config: &Config, origins: &Origins, problems: &mut Problems) {
    let default_user = &config.defaults.user;
    let mut names = BTreeSet::new();
    for (index, user) in config.users.iter().enumerate() {
        let key = format!("users[{index}].name");
        if user.name == *default_user {
            let message = format!(
                "{} is defaults.user already; set defaults.user to another name, or to \"\" for none",
                user.name
            );
            problems.value(&origins.of(&key), &key, message);
        } else if !names.insert(&user.name) {
            problems.value(&origins.of(&key), &key, format!("there are two users called {}", user.name));
        }
    }
    for name in config.defaults.users.keys().filter(|name| !(1..=255).contains(&name.len())) {
        let key = format!("defaults.users.{name}");
        problems.value(&origins.of(&key), &key, "a name has 1 to 255 bytes");
    }
}

fn check_vhosts(config: &Config, origins: &Origins, problems: &mut Problems) {
    let mut vhosts = BTreeSet::from([&config.defaults.vhost]);
    for (index, vhost) in config.defaults.vhosts.iter().enumerate() {
        if !vhosts.insert(vhost) {
            let key = format!("defaults.vhosts[{index}]");
            let message = format!("{vhost:?} is named twice");
            problems.value(&origins.of(&key), &key, message);
        }
    }
    if problems.concern("defaults.vhost") {
        return;
    }
    for (index, user) in config.users.iter().enumerate() {
        for (place, permission) in user.permissions.iter().enumerate() {
            if !vhosts.contains(&permission.vhost) {
                let key = format!("users[{index}].permissions[{place}].vhost");
                let vhost = &permission.vhost;
                let message = format!("there is no virtual host {vhost:?}; add it to defaults.vhosts");
                problems.value(&origins.of(&key), &key, message);
            }
        }
    }
}

fn check_mechanisms(config: &Config, origins: &Origins, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (index, mechanism) in config.amqp.mechanisms.iter().enumerate() {
        if !seen.insert(mechanism) {
            let key = format!("amqp.mechanisms[{index}]");
            let message = format!("{} is named twice", mechanism.name());
            problems.value(&origins.of(&key), &key, message);
        }
    }
}

fn check_server_properties(config: &Config, origins: &Origins, problems: &mut Problems) {
    for name in config.amqp.server_properties.keys() {
        let message = match name.len() {
            _ if name == "capabilities" => "tells clients what the broker can do; it cannot be set",
            1..=255 => continue,
            _ => "a name has 1 to 255 bytes",
        };
        let key = format!("amqp.server_properties.{name}");
        problems.value(&origins.of(&key), &key, message);
    }
}

fn check_log(config: &Config, origins: &Origins, problems: &mut Problems) {
    if !config.log.console && config.log.file.is_none() {
        let key = "log.console";
        problems.value(&origins.of(key), key, "the log has to go somewhere: log.file is empty");
    }
}

fn check_tls(config: &Config, origins: &Origins, problems: &mut Problems) {
    let tls = &config.tls;
    let mut tell = |key: &str, message: &str| problems.value(&origins.of(key), key, message);
    match (&tls.certificate_file, &tls.key_file) {
        (Some(_), None) => tell("tls.certificate_file", "is set but tls.key_file is empty"),
        (None, Some(_)) => tell("tls.key_file", "is set but tls.certificate_file is empty"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    // A port that nobody named is on only where there is a certificate.
    let is_named = |key: &str| origins.of(key).level() != Origin::Default.level();
    for (section, port, further, is_configured) in [
        ("amqp", config.amqp.tls_port, &config.amqp.tls_listen, tls.is_configured()),
        (
            "management",
            config.management.tls_port,
            &config.management.tls_listen,
            config.management_tls().is_configured(),
        ),
        (
            "prometheus",
            config.prometheus.tls_port,
            &config.prometheus.tls_listen,
            config.prometheus_tls().is_configured(),
        ),
    ] {
        let (port_key, listen_key) = (format!("{section}.tls_port"), format!("{section}.tls_listen"));
        for key in [(port.is_some(), port_key), (!further.is_empty(), listen_key)]
            .into_iter()
            .filter_map(|(is_set, key)| (is_set && !is_configured && is_named(&key)).then_some(key))
        {
            tell(&key, &format!("is set but {}", no_certificate(section, &origins.of(&key))));
        }
    }
    for (section, own) in [
        ("management", [&config.management.certificate_file, &config.management.key_file]),
        ("prometheus", [&config.prometheus.certificate_file, &config.prometheus.key_file]),
    ] {
        match own {
            [Some(_), None] => {
                tell(&format!("{section}.certificate_file"), &format!("is set but {section}.key_file is empty"))
            }
            [None, Some(_)] => {
                tell(&format!("{section}.key_file"), &format!("is set but {section}.certificate_file is empty"))
            }
            [Some(_), Some(_)] | [None, None] => {}
        }
    }
    if tls.verify == TlsVerify::Peer && tls.ca_file.is_none() {
        tell("tls.verify", "is \"peer\" but tls.ca_file is empty: no client certificate could be trusted");
    }
    if tls.fail_if_no_peer_cert && tls.verify == TlsVerify::None {
        tell("tls.fail_if_no_peer_cert", "is true but tls.verify is \"none\": no client is asked for a certificate");
    }
    if config.amqp.mechanisms.contains(&Mechanism::External) && tls.verify == TlsVerify::None {
        tell("amqp.mechanisms", "has EXTERNAL but tls.verify is \"none\": no client is asked for a certificate");
    }
}

/// What a protocol with TLS is missing, by the names that the operator can write in the file of `origin`.
fn no_certificate(section: &str, origin: &Origin) -> String {
    let is_rabbitmq = matches!(origin, Origin::File { file, .. } if is_rabbitmq(Path::new(&**file)));
    match (is_rabbitmq, section) {
        (true, "amqp") => "there is no certificate: write ssl_options.certfile and ssl_options.keyfile".to_owned(),
        (true, _) => format!(
            "there is no certificate: write ssl_options.certfile and ssl_options.keyfile, or {section}.ssl.certfile and \
             {section}.ssl.keyfile"
        ),
        (false, "amqp") => "tls.certificate_file is empty".to_owned(),
        (false, _) => format!("tls.certificate_file and {section}.certificate_file are empty"),
    }
}

/// The backends in use must have what they need.
fn check_backends(config: &Config, origins: &Origins, problems: &mut Problems) {
    let is_used = config.auth.backends.iter().any(|backend| backend.name().split('+').any(|one| one == "oauth2"));
    if is_used {
        check_oauth2(config, origins, problems);
    }
    check_resource_servers(config, origins, problems);
    check_introspection(config, origins, problems);
    let (oauth2, http) = (&config.oauth2, &config.auth_http);
    let addresses = [
        ("oauth2.jwks_uri", &oauth2.jwks_uri),
        ("oauth2.introspection_endpoint", &oauth2.introspection_endpoint),
        ("auth_http.user_path", &http.user_path),
        ("auth_http.vhost_path", &http.vhost_path),
        ("auth_http.resource_path", &http.resource_path),
        ("auth_http.topic_path", &http.topic_path),
    ];
    let is_address = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    // Nobody has to be asked about tokens.
    let is_left_out = |key: &str, text: &str| key.starts_with("oauth2.") && text.is_empty();
    for (key, _) in addresses.iter().filter(|(key, text)| !is_address(text) && !is_left_out(key, text)) {
        problems.value(&origins.of(key), key, "begins with neither https:// nor http://");
    }
}

/// What the backend oauth2 needs. What could not be read is not missing as well.
fn check_oauth2(config: &Config, origins: &Origins, problems: &mut Problems) {
    let oauth2 = &config.oauth2;
    let servers = &oauth2.resource_servers;
    let key = "oauth2.resource_server_id";
    if oauth2.resource_server_id.is_empty() && servers.is_empty() && !problems.concern("oauth2.resource_servers") {
        problems.value(&origins.of(key), key, "is needed by the backend oauth2 of auth.backends");
    }
    let has_keys = oauth2.jwks_file.is_some() || !oauth2.jwks_uri.is_empty() || !oauth2.signing_keys.is_empty();
    let has_issuers = !oauth2.issuers.is_empty() || servers.values().any(|server| server.issuers.is_some());
    if !has_keys && !has_issuers && oauth2.introspection_endpoint.is_empty() {
        let others = "jwks_file, signing_keys, issuers and introspection_endpoint";
        let message = format!("is empty, as are {others}: no token can be verified");
        problems.value(&origins.of("oauth2.jwks_uri"), "oauth2.jwks_uri", message);
    }
}

fn check_resource_servers(config: &Config, origins: &Origins, problems: &mut Problems) {
    for id in config.oauth2.resource_servers.keys() {
        let message = match id.len() {
            0 | 256.. => "an id has 1 to 255 bytes",
            _ if *id == config.oauth2.resource_server_id => "is oauth2.resource_server_id already",
            _ => continue,
        };
        let key = format!("oauth2.resource_servers.{id}");
        problems.value(&origins.of(&key), &key, message);
    }
}

/// An endpoint that anybody may ask would be one to try out tokens with (RFC 7662, 2.1): the broker has to say who it is.
fn check_introspection(config: &Config, origins: &Origins, problems: &mut Problems) {
    let oauth2 = &config.oauth2;
    let is_known = !oauth2.introspection_client_id.is_empty() && oauth2.introspection_client_secret.is_some();
    if oauth2.introspection_endpoint.is_empty() || is_known || problems.concern("oauth2.introspection_client") {
        return;
    }
    let key = "oauth2.introspection_endpoint";
    let message = "is set but introspection_client_id or introspection_client_secret is empty";
    problems.value(&origins.of(key), key, message);
}

/// What is allowed and yet likely to be a mistake.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let user = &config.defaults.user;
    let loopback_only = config.defaults.loopback_only.contains(user);
    let default_password = Config::default().defaults.password;
    if config.oauth2.jwks_uri.starts_with("http://") {
        warnings
            .push("oauth2.jwks_uri is not https: whoever can change what it answers can log in as anybody".to_owned());
    }
    if config.oauth2.introspection_endpoint.starts_with("http://") {
        let risk =
            "tokens and the secret can be read on the way, and whoever changes the answers can log in as anybody";
        warnings.push(format!("oauth2.introspection_endpoint is not https: {risk}"));
    }
    let listening: Vec<_> = config.amqp.addresses().into_iter().chain(config.amqps_addresses()).collect();
    let open = listening.iter().find(|one| !one.address.ip().is_loopback());
    if listening.is_empty() {
        warnings.push("amqp.port is -1: no client can connect".to_owned());
    } else if let Some(open) = open
        && !user.is_empty()
        && config.defaults.password == default_password
    {
        let rest = if loopback_only {
            format!("{user} stays limited to this host")
        } else {
            "anybody can log in; set defaults.password".to_owned()
        };
        let key = if open.key.ends_with("listen") { open.key } else { "amqp.bind" };
        warnings.push(format!("{key} is open to the network while user {user} has its default password; {rest}"));
    }
    warnings
}
