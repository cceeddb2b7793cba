//! The configuration read again while the broker runs, on SIGHUP or when the API is asked: what can change does, and what needs
//! a restart is named. A configuration with a mistake changes nothing.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::config::{Config, Loaded, machine_memory};
use crate::management::Reloaded;

use super::process::Process;
use super::{ServerError, Shared, alarms, settings};

/// Takes one key's value over.
type Take = fn(&mut Config, &Config);

macro_rules! keys {
    ($($section:ident . $key:ident),* $(,)?) => {
        &[$( (
            concat!(stringify!($section), ".", stringify!($key)),
            |now, new| now.$section.$key.clone_from(&new.$section.$key),
        ), )*]
    };
}

/// The keys that can change, which then hold for connections, virtual hosts and so on that are new.
static KEYS: &[(&str, Take)] = keys![
    amqp.heartbeat,
    amqp.frame_max,
    amqp.channel_max,
    amqp.max_message_size,
    amqp.handshake_timeout,
    amqp.consumers_per_channel_max,
    amqp.default_consumer_prefetch,
    amqp.server_properties,
    memory.high_watermark,
    storage.disk_free_limit,
    limits.connections_per_user,
    limits.channels_per_node,
    limits.channels_per_user,
    limits.queues,
    limits.queues_per_vhost,
    limits.exchanges,
    limits.exchanges_per_vhost,
    limits.vhosts,
    defaults.operator_policies,
    defaults.vhost_limits,
    defaults.users,
    compatibility.global_qos,
    log.level,
    shutdown.timeout,
];

/// Takes over what can change of a configuration. What that was, and what of the rest differs.
fn merge(now: &Loaded, new: &Loaded) -> (Config, Reloaded) {
    let mut merged = now.config.clone();
    let mut reloaded = Reloaded::default();
    for key in now.differences(new) {
        match KEYS.iter().find(|(name, _)| *name == key) {
            Some((_, take)) => {
                take(&mut merged, &new.config);
                reloaded.changed.push(key);
            }
            None => reloaded.needs_restart.push(key),
        }
    }
    (merged, reloaded)
}

/// Reads the sources of the configuration again.
///
/// # Errors
/// All that is wrong with them; then nothing has changed.
pub(super) fn reload(shared: &Shared, process: &Process) -> Result<Reloaded, String> {
    let mut loaded = process.loaded.lock();
    let new = Config::load(&loaded.sources)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let (merged, reloaded) = merge(&loaded, &new);
    let settings = settings::broker(&merged).map_err(|error| ServerError::Random(error).to_string())?;
    let has = |section: &str| reloaded.changed.iter().any(|key| key.starts_with(section));
    if has("memory.high_watermark")
        && let Some(total) = machine_memory()
    {
        alarms::set_memory_limit(shared, merged.memory.high_watermark.bytes(total));
    }
    if has("storage.disk_free_limit") {
        let limit = merged.storage.disk_free_limit.bytes(machine_memory().unwrap_or(0));
        alarms::set_disk_limit(shared, limit, &merged.node.data_dir);
    }
    if has("log.level") {
        process.logging.set_level(merged.log.level.name())?;
    }
    shared.broker.set_limits(settings.limits);
    shared.broker.set_vhost_defaults(settings.vhost_defaults);
    shared.amqp.store(Arc::new(settings::amqp(&merged)));
    loaded.config = merged;
    if reloaded.needs_restart.is_empty() {
        loaded.origins = new.origins;
    }
    for key in &reloaded.changed {
        tracing::info!(key, "configuration read again: changed");
    }
    for key in &reloaded.needs_restart {
        tracing::warn!(key, "configuration read again: this key has another value, which needs a restart");
    }
    if reloaded == Reloaded::default() {
        tracing::info!("configuration read again: nothing has changed");
    }
    // What was said before need not be said again.
    for warning in new.warnings.iter().filter(|warning| !loaded.warnings.contains(warning)) {
        tracing::warn!("{warning}");
    }
    loaded.warnings = new.warnings;
    Ok(reloaded)
}

/// Reloads on SIGHUP, for as long as the broker runs.
pub(super) fn watch(shared: &Arc<Shared>, process: &Arc<Process>) -> Result<(), ServerError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(ServerError::Signals)?;
    let (shared, process) = (Arc::clone(shared), Arc::clone(process));
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            let (shared, process, process_tls) = (Arc::clone(&shared), Arc::clone(&process), process.tls.clone());
            match spawn_blocking(move || reload(&shared, &process)).await {
                Ok(Err(error)) => tracing::error!(error, "SIGHUP: the configuration cannot be used and stays as it is"),
                Ok(Ok(_)) => {}
                Err(error) => tracing::error!(%error, "SIGHUP: the configuration was not read"),
            }
            // A certificate that was renewed is not to wait for another key's mistake; and nothing is said of it before that.
            process_tls.read_again();
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Sources};

    fn loaded(values: &[(&str, &str)]) -> Loaded {
        let flag = |(key, value): &(&str, &str)| Flag {
            flag: format!("--set {key}"),
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        let flags = values.iter().map(flag).collect();
        Config::load(&Sources { flags, ..Sources::default() }).expect("it can be used")
    }

    #[test]
    fn what_can_change_is_taken_over_and_the_rest_named() {
        let now = loaded(&[("defaults.password", "old")]);
        let new =
            loaded(&[("defaults.password", "new"), ("limits.vhosts", "7"), ("amqp.port", "1"), ("log.level", "debug")]);
        let (merged, reloaded) = merge(&now, &new);
        assert_eq!(reloaded.changed, ["limits.vhosts", "log.level"]);
        assert_eq!(reloaded.needs_restart, ["amqp.port", "defaults.password"]);
        assert_eq!((merged.limits.vhosts, merged.amqp.port), (Some(7), now.config.amqp.port));
        assert_eq!(merge(&now, &now).1, Reloaded::default());
    }

    #[test]
    fn every_key_that_can_change_is_a_key() {
        let known: Vec<String> = loaded(&[]).values().map(|(key, ..)| key.to_owned()).collect();
        for (key, _) in KEYS {
            assert!(known.iter().any(|known| known == key), "{key}");
        }
    }
}
