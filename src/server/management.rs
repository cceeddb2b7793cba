//! The management API: what it is made of, its listeners, and the task that takes samples.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fancy_regex::Regex;
use tokio::sync::watch;

use crate::config::{Config, reason};
use crate::log::CommitError;
use crate::management::history::{History, Report};
use crate::management::prometheus::Scrapes;
use crate::management::{
    Browsers, Management, ManagementSettings, PasswordRules, Sampler, Scope, check_text, import_text,
};

use super::admission::Admission;
use super::http::{self, Site};
use super::process::Process;
use super::settings::{http_places, millis};
use super::tls::Certificates;
use super::{ServerError, Shared};

/// How often the charts' past is written to the disk.
const PERSIST_INTERVAL: Duration = Duration::from_secs(60);
/// The folder of the charts' past in the data directory.
const HISTORY: &str = "history";

/// What the API is made of.
pub(super) async fn open(shared: &Shared, config: &Config, process: &Arc<Process>) -> Arc<Management> {
    Arc::new(Management {
        broker: Arc::clone(&shared.broker),
        settings: ManagementSettings {
            product: config.compatibility.product.clone(),
            version: config.compatibility.version.clone(),
            cluster_name: config.cluster_name(),
            node_name: config.node_name(),
            body_max: usize::try_from(config.management.max_body_size).unwrap_or(usize::MAX),
            default_queue_type: config.queues.default_type.name(),
            consumer_timeout_ms: config.queues.consumer_timeout.map(millis),
            metrics_per_object: config.prometheus.return_per_object_metrics,
            passwords: password_rules(config),
            browsers: Browsers {
                allowed_origins: config.management.cors_allow_origins.clone(),
                max_age: config.management.cors_max_age,
                transport_security: config.management.hsts.clone(),
            },
        },
        node: Arc::clone(process) as _,
        history: Arc::new(open_history(config).await),
        scrapes: Scrapes::default(),
    })
}

fn password_rules(config: &Config) -> PasswordRules {
    let pattern = Some(&config.auth.password_pattern).filter(|text| !text.is_empty());
    PasswordRules {
        min_length: config.auth.password_min_length as usize,
        // The configuration has none that is not one.
        pattern: pattern.and_then(|text| Regex::new(text).ok()),
    }
}

/// What is wrong with the definitions that the configuration names, one text for each file.
pub(super) fn check(config: &Config) -> Vec<String> {
    let Some(path) = &config.definitions.load else { return Vec::new() };
    let unreadable = |path: &Path, error: &std::io::Error| format!("cannot read {}: {}", path.display(), reason(error));
    let files = match files_of(path) {
        Ok(files) => files,
        Err(error) => return vec![unreadable(path, &error)],
    };
    let passwords = password_rules(config);
    let problem = |file: &PathBuf| match std::fs::read(file) {
        Ok(text) => {
            let checked = check_text(&text, &passwords, config.queues.default_type.name());
            checked.err().map(|error| format!("{}: {error}", file.display()))
        }
        Err(error) => Some(unreadable(file, &error)),
    };
    files.iter().filter_map(problem).collect()
}

/// Imports the definitions that the configuration names.
pub(super) async fn import(management: &Arc<Management>, config: &Config) -> Result<(), ServerError> {
    let Some(path) = &config.definitions.load else { return Ok(()) };
    let failed = |path: &Path, error: String| ServerError::Import { path: path.to_owned(), error };
    for file in files_of(path).map_err(|error| failed(path, error.to_string()))? {
        let text = std::fs::read(&file).map_err(|error| failed(&file, error.to_string()))?;
        let name = format!("internal_definitions_of_{}", file.display());
        let hash = format!("{:016x}", crc32c::crc32c(&text)) + &text.len().to_string();
        let known = management.broker.topology().global(&name).and_then(|hash| hash.as_str().map(str::to_owned));
        if config.definitions.skip_if_unchanged && known.as_ref() == Some(&hash) {
            tracing::info!(file = %file.display(), "definitions have not changed since they were imported");
            continue;
        }
        let report = import_text(management, &text).await.map_err(|error| failed(&file, error))?;
        report.log(&file.display().to_string());
        if config.definitions.skip_if_unchanged {
            // It has a name that is never exported.
            let _ = management.broker.set_parameter(None, "", &name, hash.into());
        }
    }
    match management.broker.store_definitions() {
        // The log has them as well, once it is written.
        Err(CommitError::NoSpace { path, error }) => {
            tracing::warn!(path, %error, "the imported definitions wait for space on the disk");
            Ok(())
        }
        stored => stored.map_err(|error| failed(path, error.to_string())),
    }
}

fn files_of(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

/// Starts the listeners and the task that takes samples.
pub(super) fn start(
    management: &Arc<Management>,
    config: &Config,
    process: &Arc<Process>,
    certificates: &Certificates,
    stopped: &watch::Receiver<bool>,
    ready: &mut String,
) -> Result<(), ServerError> {
    http::start_local(management, &config.node.data_dir, stopped.clone())?;
    let (api, metrics) = (certificates.management.as_ref(), certificates.prometheus.as_ref());
    let secure = |tls: Option<_>, addresses| if tls.is_some() { addresses } else { Vec::new() };
    for (scope, addresses, tls, protocol, name) in [
        (Scope::Everything, config.management.addresses(), None, "http", "management"),
        (Scope::Metrics, config.prometheus.addresses(), None, "http/prometheus", "prometheus"),
        (Scope::Everything, secure(api, config.management.tls_addresses()), api, "https", "management-tls"),
        (
            Scope::Metrics,
            secure(metrics, config.prometheus.tls_addresses()),
            metrics,
            "https/prometheus",
            "prometheus-tls",
        ),
    ] {
        if addresses.is_empty() {
            continue;
        }
        let admission = Admission::new(protocol, http_places(config));
        process.add_admission(&admission);
        for listening in addresses {
            let site = Site { scope, admission: Arc::clone(&admission) };
            let bound = http::start(management, site, listening, tls, stopped.clone())?;
            process.add_listener(protocol, bound, tls.is_some());
            ready.push_str(&format!(" {name}={bound}"));
        }
    }
    tokio::spawn(take_samples(Arc::clone(management), config.management.sample_interval, stopped.clone()));
    Ok(())
}

async fn open_history(config: &Config) -> History {
    let folder = config.node.data_dir.join(HISTORY);
    let budget = usize::try_from(config.management.history_memory).unwrap_or(usize::MAX);
    let opened = tokio::task::spawn_blocking(move || History::open(&folder, budget)).await;
    let Ok(opened) = opened else { return History::new(budget) };
    match opened.report {
        Some(Report::Former { folder }) => tracing::info!(
            folder = %folder.display(),
            "the charts begin anew: what an earlier version kept of their past cannot be read any more and was removed"
        ),
        Some(Report::SetAside { folder, moved_to, reason }) => tracing::warn!(
            folder = %folder.display(), moved_to = %moved_to.display(), reason,
            "the charts' past could not be read and was set aside: it begins anew"
        ),
        Some(Report::MemoryOnly { folder, reason }) => tracing::warn!(
            folder = %folder.display(), reason, "the charts' past is kept in memory only"
        ),
        None => {}
    }
    opened.history
}

/// Looks at all numbers again and again, and has them written now and then.
async fn take_samples(management: Arc<Management>, interval: Duration, mut stopped: watch::Receiver<bool>) {
    let mut sampler = Sampler::new(&management);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since_persisted = Duration::ZERO;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => return,
        }
        sampler = match tokio::task::spawn_blocking(move || {
            sampler.sample();
            sampler
        })
        .await
        {
            Ok(sampler) => sampler,
            Err(error) => {
                tracing::error!(%error, "samples for rates and charts are taken no more");
                return;
            }
        };
        since_persisted += interval;
        if since_persisted >= PERSIST_INTERVAL {
            since_persisted = Duration::ZERO;
            let management = Arc::clone(&management);
            let _ = tokio::task::spawn_blocking(move || persist(&management)).await;
        }
    }
}

fn persist(management: &Management) {
    if let Err(error) = management.history.persist() {
        tracing::warn!(%error, "the charts' past could not be written");
    }
}

/// Writes what is not written yet of the charts' past.
pub(super) fn stop(management: &Management) {
    persist(management);
}
