//! RabbitMQ's environment variables: what each comes to, and which have no effect.

use super::super::raw::Raw;
use super::super::schema::Key;
use super::super::sources::Setting;
use super::env_file::Variables;

/// One of RabbitMQ's variables that sets a key here.
struct Variable {
    name: &'static str,
    /// The key it sets here.
    path: &'static str,
    /// Its value as that key takes it.
    translate: fn(&str) -> Taken,
}

/// What a value comes to.
enum Taken {
    Value(String),
    /// It says what is so in any case.
    Usual,
    /// It has no effect, and why.
    Nothing(&'static str),
}

const VARIABLES: [Variable; 10] = [
    variable("RABBITMQ_DEFAULT_USER", "defaults.user", unchanged),
    variable("RABBITMQ_DEFAULT_PASS", "defaults.password", unchanged),
    variable("RABBITMQ_DEFAULT_VHOST", "defaults.vhost", unchanged),
    variable("RABBITMQ_NODE_PORT", "amqp.port", unchanged),
    variable("RABBITMQ_NODE_IP_ADDRESS", "amqp.bind", address),
    variable("RABBITMQ_NODENAME", "node.name", host_of_node),
    variable("RABBITMQ_LOG", "log.level", log_level),
    variable("RABBITMQ_LOGS", "log.file", log_file),
    variable("RABBITMQ_PRODUCT_NAME", "compatibility.product", unchanged),
    variable("RABBITMQ_PRODUCT_VERSION", "compatibility.version", unchanged),
];

/// They name files to read, unless the command line does.
const FILES: [&str; 6] = [
    "RABBITMQ_CONF_ENV_FILE",
    "RABBITMQ_CONFIG_FILE",
    "RABBITMQ_CONFIG_FILES",
    "RABBITMQ_ADVANCED_CONFIG_FILE",
    "RABBITMQ_ENABLED_PLUGINS_FILE",
    "RABBITMQ_ENABLED_PLUGINS",
];

const CLUSTER: &str = "there is no cluster in this version";
const ERLANG: &str = "there is no Erlang runtime";
const DATA: &str = "node.data_dir (WARREN_NODE__DATA_DIR) is where the data is kept";
const PLUGINS: &str = "what is built in is in the program itself";

/// Variables that say something and have no effect, and why. The beginning of a name, where it ends with `*`.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("RABBITMQ_MNESIA_BASE", DATA),
    ("RABBITMQ_MNESIA_DIR", DATA),
    ("RABBITMQ_DATA_DIR", DATA),
    ("RABBITMQ_QUORUM_DIR", DATA),
    ("RABBITMQ_STREAM_DIR", DATA),
    ("RABBITMQ_SCHEMA_DIR", DATA),
    ("RABBITMQ_GENERATED_CONFIG_DIR", DATA),
    ("RABBITMQ_BASE", DATA),
    ("RABBITMQ_HOME", PLUGINS),
    ("RABBITMQ_PLUGINS_DIR", PLUGINS),
    ("RABBITMQ_PLUGINS_EXPAND_DIR", PLUGINS),
    ("RABBITMQ_LOG_BASE", "log.file (WARREN_LOG__FILE) is the file that the log goes to besides standard error"),
    ("RABBITMQ_UPGRADE_LOG", "there is one log"),
    ("RABBITMQ_PID_FILE", "a service manager knows the process; standard output says when it is ready"),
    ("RABBITMQ_KEEP_PID_FILE_ON_EXIT", "there is no file with the process's number"),
    ("RABBITMQ_MOTD_FILE", "there is no message of the day"),
    ("RABBITMQ_USE_LONGNAME", "node.name is taken as it is"),
    ("RABBITMQ_ERLANG_COOKIE", "no Erlang node is spoken to"),
    ("RABBITMQ_DIST_PORT", CLUSTER),
    ("RABBITMQ_CLUSTER*", CLUSTER),
    ("RABBITMQ_FEATURE_FLAGS*", "all feature flags are always enabled"),
    ("RABBITMQ_FORCED_FEATURE_FLAGS*", "all feature flags are always enabled"),
    ("RABBITMQ_SERVER_ERL_ARGS", ERLANG),
    ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG),
    ("RABBITMQ_SERVER_START_ARGS", ERLANG),
    ("RABBITMQ_SERVER_CODE_PATH", ERLANG),
    ("RABBITMQ_CTL_*", ERLANG),
    ("RABBITMQ_IO_THREAD_POOL_SIZE", ERLANG),
    ("RABBITMQ_MAX_NUMBER_OF_PROCESSES", ERLANG),
    ("RABBITMQ_MAX_NUMBER_OF_ATOMS", ERLANG),
    ("RABBITMQ_DISTRIBUTION_BUFFER_SIZE", ERLANG),
    ("RABBITMQ_SCHEDULER_BIND_TYPE", ERLANG),
    ("RABBITMQ_ALLOW_INPUT", ERLANG),
    ("RABBITMQ_DBG", ERLANG),
    ("RABBITMQ_SSL_*", "TLS has its keys below ssl_options in rabbitmq.conf, and in [tls] of broker.toml"),
    (
        "RABBITMQ_MANAGEMENT_SSL_*",
        "TLS has its keys below management.ssl in rabbitmq.conf, and in [tls] of broker.toml",
    ),
    (
        "RABBITMQ_VM_MEMORY_HIGH_WATERMARK",
        "vm_memory_high_watermark.relative in rabbitmq.conf, and memory.high_watermark here",
    ),
    (
        "RABBITMQ_DEFAULT_PASS_FILE",
        "defaults.password_file (WARREN_DEFAULTS__PASSWORD_FILE) names a file with the password",
    ),
    ("RABBITMQ_DEFAULT_USER_FILE", "defaults.user (WARREN_DEFAULTS__USER) names the user"),
];

/// What else is known of the start.
pub(crate) struct Given<'a> {
    /// RabbitMQ's variables say which files are read.
    pub(crate) reads_usual_files: bool,
    /// Variables that files refer to.
    pub(crate) used: &'a dyn Fn(&str) -> bool,
}

/// The settings of RabbitMQ's variables. `taken_over` tells of them, `notes` of those without effect.
pub(crate) fn environment_settings(
    variables: &Variables,
    given: &Given<'_>,
    taken_over: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for Variable { name, path, translate } in VARIABLES {
        let Some((origin, text)) = variables.find(name) else { continue };
        let shown = variables.shown(name);
        match (translate(text), Key::find(path)) {
            (Taken::Value(text), Some(key)) => {
                let other = key.environment();
                let other = if variables.is_of_file(name) { String::new() } else { format!("; {other} does so too") };
                taken_over.push(format!("{shown} sets {path}{other}"));
                settings.push((key, Raw::plain(origin, text)));
            }
            (Taken::Nothing(reason), _) => notes.push(format!("{shown} has no effect: {reason}")),
            (Taken::Value(_) | Taken::Usual, _) => {}
        }
    }
    if let Some((_, text)) = variables.find("RABBITMQ_LOG") {
        notes.extend(categories_of(&variables.shown("RABBITMQ_LOG"), text));
    }
    let mut others: Vec<String> = Vec::new();
    for (name, text) in variables.all().iter().filter(|(name, text)| name.starts_with("RABBITMQ_") && !text.is_empty())
    {
        let is_file = FILES.contains(&name.as_str());
        if VARIABLES.iter().any(|variable| variable.name == name) || (given.used)(name) || is_orchestrators(name, text)
        {
            continue;
        }
        if is_file && given.reads_usual_files {
            continue;
        }
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let shown = variables.shown(name);
        match WITHOUT_EFFECT.iter().find(|(pattern, _)| fits(pattern)) {
            Some((_, reason)) => notes.push(format!("{shown} has no effect: {reason}")),
            None if is_file => {
                notes.push(format!("{shown} has no effect: the configuration's file is named otherwise"))
            }
            None => others.push(shown),
        }
    }
    if !others.is_empty() {
        others.sort_unstable();
        let verb = if others.len() == 1 { "has" } else { "have" };
        notes.push(format!("{} {verb} no effect: there is nothing of that name here", others.join(", ")));
    }
    settings
}

/// Orchestrators tell each container of services: of one called rabbitmq, by these.
fn is_orchestrators(name: &str, text: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP_") && name.contains("_PORT_")
        || name.contains("_PORT") && (text.starts_with("tcp://") || text.starts_with("udp://"))
}

const fn variable(name: &'static str, path: &'static str, translate: fn(&str) -> Taken) -> Variable {
    Variable { name, path, translate }
}

fn unchanged(text: &str) -> Taken {
    Taken::Value(text.to_owned())
}

/// RabbitMQ's `auto` is its default.
fn address(text: &str) -> Taken {
    if text == "auto" { Taken::Usual } else { unchanged(text) }
}

/// What stands behind the @ of `rabbit@host`. Without an @ RabbitMQ adds the host name, which is the default here.
fn host_of_node(text: &str) -> Taken {
    match text.split_once('@') {
        Some((_, host)) if !host.is_empty() => unchanged(host),
        _ => Taken::Usual,
    }
}

/// The level for all categories in RabbitMQ's `debug,connection=info,+color`: the part that names none.
fn log_level(text: &str) -> Taken {
    let level = text.split(',').map(str::trim).find(|part| !part.contains('=') && !part.starts_with(['+', '-']));
    match level {
        None | Some("") => Taken::Usual,
        // What is none of RabbitMQ's levels is told as a value of log.level that cannot be.
        Some(level) => super::value::level(level).map_or_else(|_| unchanged(level), |(level, _)| unchanged(level)),
    }
}

/// What is said of the categories in the same value.
fn categories_of(name: &str, text: &str) -> Option<String> {
    let categories: Vec<&str> = text.split(',').map(str::trim).filter(|part| part.contains('=')).collect();
    let verb = if categories.len() == 1 { "has" } else { "have" };
    let instead = "the variable is the level of all categories; log.connection.level and its like in rabbitmq.conf, and \
                   log.levels here, are those of one";
    (!categories.is_empty()).then(|| format!("{name}: {} {verb} no effect: {instead}", categories.join(", ")))
}

/// RabbitMQ's `-` is standard output, `-stderr` standard error, where the log goes in any case.
fn log_file(text: &str) -> Taken {
    match text {
        "-" | "-stderr" => Taken::Usual,
        _ if ["exchange:", "syslog:", "journald:"].iter().any(|output| text.starts_with(output)) => {
            Taken::Nothing("the log goes to standard error and to a file")
        }
        _ => unchanged(text),
    }
}
