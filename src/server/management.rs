//! The management API: what it is made of, its listeners, and the task that takes samples.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::config::Config;
use crate::management::history::{History, Report};
use crate::management::{Browsers, Management, Sampler, Settings};

use super::http::{self, Site};
use super::process::Process;
use super::settings::millis;
use super::tls::Tls;
use super::{ServerError, Shared};

/// How often the charts' past is written to the disk.
const PERSIST_INTERVAL: Duration = Duration::from_secs(60);
/// The folder of the charts' past in the data directory.
const HISTORY: &str = "history";

pub(super) async fn start(
    shared: &Arc<Shared>,
    config: &Config,
    process: &Arc<Process>,
    tls: Option<&Arc<Tls>>,
    stopped: &watch::Receiver<bool>,
    ready: &mut String,
) -> Result<Arc<Management>, ServerError> {
    let management = Arc::new(Management {
        broker: Arc::clone(&shared.broker),
        settings: Settings {
            product: config.compatibility.product.clone(),
            version: config.compatibility.version.clone(),
            cluster_name: config.cluster_name(),
            node_name: config.cluster_name(),
            body_max: usize::try_from(config.management.max_body_size).unwrap_or(usize::MAX),
            default_queue_type: config.queues.default_type.name(),
            consumer_timeout_ms: config.queues.consumer_timeout.map(millis),
            browsers: Browsers {
                allowed_origins: config.management.cors_allow_origins.clone(),
                max_age: config.management.cors_max_age,
                transport_security: config.management.hsts.clone(),
            },
        },
        node: Arc::clone(process) as _,
        history: Arc::new(open_history(config).await),
    });
    http::start_local(&management, &config.node.data_dir, stopped.clone())?;
    if let Some(address) = config.management.address() {
        let bound = http::start(&management, Site::Management, address, stopped.clone()).await?;
        process.add_listener("http", bound, false);
        ready.push_str(&format!(" management={bound}"));
    }
    if let Some(address) = config.prometheus.address() {
        let bound = http::start(&management, Site::Metrics, address, stopped.clone()).await?;
        process.add_listener("http/prometheus", bound, false);
        ready.push_str(&format!(" prometheus={bound}"));
    }
    for (site, address, protocol, name) in [
        (Site::Management, config.management.tls_address(), "https", "management-tls"),
        (Site::Metrics, config.prometheus.tls_address(), "https/prometheus", "prometheus-tls"),
    ] {
        if let (Some(address), Some(tls)) = (address, tls) {
            let bound = http::start_tls(&management, site, address, tls, stopped.clone()).await?;
            process.add_listener(protocol, bound, true);
            ready.push_str(&format!(" {name}={bound}"));
        }
    }
    tokio::spawn(take_samples(Arc::clone(&management), config.management.sample_interval, stopped.clone()));
    Ok(management)
}

async fn open_history(config: &Config) -> History {
    let folder = config.node.data_dir.join(HISTORY);
    let budget = usize::try_from(config.management.history_memory).unwrap_or(usize::MAX);
    let opened = tokio::task::spawn_blocking(move || History::open(&folder, budget)).await;
    let Ok(opened) = opened else { return History::new(budget) };
    match opened.report {
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
