//! What no single key can tell: values that contradict each other, password files, warnings.

use std::collections::BTreeSet;
use std::path::Path;

use super::Origins;
use super::machine::host_name;
use super::origin::{Origin, Problems};
use super::raw::Raw;
use super::schema::Config;
use super::sources::reason;
use super::types::{Mechanism, Secret, TlsVerify};

/// Puts in what is worked out from other values and checks them against each other.
pub(crate) fn complete(config: &mut Config, origins: &mut Origins, problems: &mut Problems) {
    if config.node.name.is_empty() {
        config.node.name = host_name();
    }
    default_password(config, origins, problems);
    user_passwords(config, origins, problems);
    check_users(config, origins, problems);
    check_vhosts(config, origins, problems);
    check_mechanisms(config, origins, problems);
    check_server_properties(config, origins, problems);
    check_tls(config, origins, problems);
    check_backends(config, origins, problems);
}

/// `defaults.password_file` against `defaults.password`: the one from the place of higher
/// precedence counts, and both from the same place contradict each other.
fn default_password(config: &mut Config, origins: &mut Origins, problems: &mut Problems) {
    let Some(file) = config.defaults.password_file.clone() else {
        return;
    };
    let (path, other) = ("defaults.password_file", "defaults.password");
    let (file_origin, password_origin) = (origins.of(path), origins.of(other));
    if password_origin.level() > file_origin.level() {
        config.defaults.password_file = None;
        return;
    }
    if password_origin.level() == file_origin.level() {
        let message = format!("{other} is set as well ({password_origin}); keep one of them");
        return problems.value(&file_origin, path, message);
    }
    if let Some(password) = read_password(&file, &file_origin, path, problems) {
        config.defaults.password = password;
        origins.set(other, &Raw::plain(file_origin, ""));
    }
}

fn user_passwords(config: &mut Config, origins: &Origins, problems: &mut Problems) {
    for (index, user) in config.users.iter_mut().enumerate() {
        if let Some(file) = &user.password_file {
            let key = format!("users[{index}].password_file");
            user.password = read_password(file, &origins.of(&key), &key, problems);
        }
    }
}

/// A password from a file, without the line end.
fn read_password(file: &Path, origin: &Origin, key: &str, problems: &mut Problems) -> Option<Secret> {
    let message = match std::fs::read_to_string(file) {
        Ok(text) => match text.trim_end_matches(['\r', '\n']) {
            "" => format!("{} is empty: nobody can log in with an empty password", file.display()),
            password => return Some(Secret::new(password)),
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

fn check_tls(config: &Config, origins: &Origins, problems: &mut Problems) {
    let tls = &config.tls;
    let mut tell = |key: &str, message: &str| problems.value(&origins.of(key), key, message);
    match (&tls.certificate_file, &tls.key_file) {
        (Some(_), None) => tell("tls.certificate_file", "is set but tls.key_file is empty"),
        (None, Some(_)) => tell("tls.key_file", "is set but tls.certificate_file is empty"),
        _ => {}
    }
    let is_named = |key: &str| origins.of(key).level() != Origin::Default.level();
    if config.amqp.tls_port.is_some() && is_named("amqp.tls_port") && !tls.is_configured() {
        tell("amqp.tls_port", "is set but tls.certificate_file is empty");
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

/// The backends in use must have what they need.
fn check_backends(config: &Config, origins: &Origins, problems: &mut Problems) {
    // What could not be read is not missing as well.
    let misses_servers = config.oauth2.resource_servers.is_empty() && !problems.concern("oauth2.resource_servers");
    let mut refuse = |key: &str, message: &str| problems.value(&origins.of(key), key, message);
    let is_used =
        |name: &str| config.auth.backends.iter().any(|backend| backend.name().split('+').any(|one| one == name));
    let is_address = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let oauth2 = &config.oauth2;
    if is_used("oauth2") {
        if oauth2.resource_server_id.is_empty() && misses_servers {
            refuse("oauth2.resource_server_id", "is needed by the backend oauth2 of auth.backends");
        }
        let has_keys = oauth2.jwks_file.is_some() || !oauth2.signing_keys.is_empty();
        let has_issuers =
            !oauth2.issuers.is_empty() || oauth2.resource_servers.values().any(|server| server.issuers.is_some());
        if oauth2.jwks_uri.is_empty() && !has_keys && !has_issuers {
            let message = "is empty, as are jwks_file, signing_keys and issuers: no token can be verified";
            refuse("oauth2.jwks_uri", message);
        }
    }
    for id in oauth2.resource_servers.keys() {
        let message = match id.len() {
            0 | 256.. => "an id has 1 to 255 bytes",
            _ if *id == oauth2.resource_server_id => "is oauth2.resource_server_id already",
            _ => continue,
        };
        refuse(&format!("oauth2.resource_servers.{id}"), message);
    }
    if !oauth2.jwks_uri.is_empty() && !is_address(&oauth2.jwks_uri) {
        refuse("oauth2.jwks_uri", "begins with neither https:// nor http://");
    }
    let http = &config.auth_http;
    let paths = [
        ("auth_http.user_path", &http.user_path),
        ("auth_http.vhost_path", &http.vhost_path),
        ("auth_http.resource_path", &http.resource_path),
        ("auth_http.topic_path", &http.topic_path),
    ];
    for (key, _) in paths.iter().filter(|(_, path)| !is_address(path)) {
        refuse(key, "begins with neither https:// nor http://");
    }
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
    if config.amqp.port.is_none() && config.amqps_address().is_none() {
        warnings.push("amqp.port is -1: no client can connect".to_owned());
    } else if !config.amqp.bind.is_loopback() && !user.is_empty() && config.defaults.password == default_password {
        let rest = if loopback_only {
            format!("{user} stays limited to this host")
        } else {
            "anybody can log in; set defaults.password".to_owned()
        };
        warnings.push(format!("amqp.bind is open to the network while user {user} has its default password; {rest}"));
    }
    warnings
}
