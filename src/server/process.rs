//! This process, as the management API asks about it.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use crate::broker::Eventually;
use crate::config::{Config, Loaded, machine_memory};
use crate::logging::Logging;
use crate::management::{Certificate, Listener, Management, Node, NodeFacts, Reloaded, ServiceState};
use crate::model::ids::Timestamp;

use super::admission::Admission;
use super::tls::Certificates;
use super::{Shared, alarms, definitions, reload};

/// See the module's documentation.
pub(super) struct Process {
    shared: Arc<Shared>,
    /// As it is in force.
    pub(super) loaded: Mutex<Loaded>,
    /// As it was at the start.
    config: Arc<Config>,
    itself: Weak<Self>,
    config_files: Vec<String>,
    pub(super) tls: Certificates,
    started: Timestamp,
    listeners: Mutex<Vec<Listener>>,
    admissions: Mutex<Vec<Arc<Admission>>>,
    pub(super) logging: Arc<Logging>,
    /// Somebody wants the broker to stop.
    pub(super) stop: Notify,
}

impl Process {
    pub(super) fn new(shared: &Arc<Shared>, loaded: &Loaded, logging: &Arc<Logging>, tls: Certificates) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            shared: Arc::clone(shared),
            loaded: Mutex::new(loaded.clone()),
            config: Arc::new(loaded.config.clone()),
            config_files: loaded.files.iter().map(|file| file.display().to_string()).collect(),
            started: shared.clock.now(),
            tls,
            listeners: Mutex::default(),
            admissions: Mutex::new(vec![Arc::clone(&shared.admission)]),
            logging: Arc::clone(logging),
            stop: Notify::new(),
            itself: Weak::clone(itself),
        })
    }

    /// Some listener's places.
    pub(super) fn add_admission(&self, admission: &Arc<Admission>) {
        self.admissions.lock().push(Arc::clone(admission));
    }

    /// A socket is listened on.
    pub(super) fn add_listener(&self, protocol: &'static str, address: SocketAddr, tls: bool) {
        let listener = Listener { protocol, address: address.ip(), port: address.port(), tls };
        self.listeners.lock().push(listener);
    }
}

impl Node for Process {
    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn facts(&self) -> NodeFacts {
        let (memory_alarm, disk_alarm) = self.shared.alarms.are_set();
        let (memory_used, memory_limit) = self.shared.alarms.memory();
        let (disk_free, disk_limit) = self.shared.alarms.disk();
        let (resident, memory_code) = alarms::resident().unwrap_or((memory_used, 0));
        NodeFacts {
            uptime_ms: self.now().0.saturating_sub(self.started.0),
            memory_used,
            memory_resident: resident.max(memory_used),
            memory_code,
            memory_limit,
            memory_total: machine_memory().unwrap_or_default(),
            memory_alarm,
            disk_free,
            disk_limit,
            disk_alarm,
            alarm_causes: self.shared.alarms.causes().to_vec(),
            turned_away: self.admissions.lock().iter().map(|place| (place.what(), place.turned_away())).collect(),
            open_files: entries("/proc/self/fd"),
            open_files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or_default(),
            threads: entries("/proc/self/task"),
            processors: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            process_id: std::process::id(),
            data_directory: self.config.node.data_dir.display().to_string(),
            config_files: self.config_files.clone(),
            log_files: self.logging.places(),
        }
    }

    fn listeners(&self) -> Vec<Listener> {
        let listeners = self.listeners.lock().clone();
        let is_open = !self.service().is_closed() && self.shared.listening.is_open();
        listeners.into_iter().filter(|listener| is_open || !listener.protocol.starts_with("amqp")).collect()
    }

    fn certificates(&self) -> Vec<Certificate> {
        let certificates = self.tls.all().into_iter().flat_map(|tls| tls.certificates());
        let not_after = |seconds: i64| u64::try_from(seconds).unwrap_or_default().saturating_mul(1000);
        certificates
            .map(|certificate| Certificate { file: certificate.file, not_after_ms: not_after(certificate.valid_until) })
            .collect()
    }

    fn configuration(&self) -> Value {
        describe(&self.loaded.lock())
    }

    fn reload(&self) -> Eventually<Result<Reloaded, String>> {
        let (shared, itself) = (Arc::clone(&self.shared), Weak::clone(&self.itself));
        Box::pin(async move {
            let reload = spawn_blocking(move || match itself.upgrade() {
                Some(process) => reload::reload(&shared, &process),
                None => Err("the broker is stopping".to_owned()),
            });
            reload.await.unwrap_or_else(|error| Err(error.to_string()))
        })
    }

    fn salt(&self) -> [u8; 4] {
        let mut salt = [0; 4];
        // Without it, the salt is no secret and hashes of equal passwords are equal: worse, and not wrong.
        if let Err(error) = getrandom::fill(&mut salt) {
            tracing::error!(%error, "no random numbers from the system: a password is hashed without salt");
        }
        salt
    }

    fn pause(&self, ms: u64) -> Eventually<()> {
        Box::pin(tokio::time::sleep(std::time::Duration::from_millis(ms)))
    }

    fn stop(&self) {
        self.stop.notify_one();
    }

    fn set_log_level(&self, level: &str) -> Result<(), String> {
        self.logging.set_level(level)
    }

    fn log_tail(&self, count: usize) -> Eventually<Result<Vec<String>, String>> {
        let logging = Arc::clone(&self.logging);
        Box::pin(async move {
            spawn_blocking(move || logging.tail(count)).await.unwrap_or_else(|error| Err(error.to_string()))
        })
    }

    fn rotate_logs(&self) -> Eventually<()> {
        let logging = Arc::clone(&self.logging);
        Box::pin(async move {
            if let Err(error) = spawn_blocking(move || logging.rotate()).await {
                tracing::error!(%error, "no other log file is begun");
            }
        })
    }

    fn begin_anew(&self, management: Arc<Management>) -> Eventually<Result<(), String>> {
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            if config.definitions.load.is_none() {
                definitions::define(&management.broker, &config).map_err(|error| error.to_string())?;
            }
            super::management::import(&management, &config).await.map_err(|error| error.to_string())
        })
    }

    fn service(&self) -> ServiceState {
        self.shared.listening.state()
    }

    fn set_service(&self, state: ServiceState) -> Eventually<Result<(), String>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.listening.set(state).await })
    }

    fn set_memory_limit(&self, bytes: u64) {
        alarms::set_memory_limit(&self.shared, bytes);
    }

    fn set_disk_limit(&self, bytes: u64) {
        alarms::set_disk_limit(&self.shared, bytes, &self.config.node.data_dir);
    }
}

/// Every key with its value and where that comes from.
fn describe(loaded: &Loaded) -> Value {
    let mut keys = Map::new();
    for (path, value, origin) in loaded.values() {
        keys.insert(path.to_owned(), json!({"value": value, "origin": origin}));
    }
    Value::Object(keys)
}

fn entries(directory: &str) -> u64 {
    std::fs::read_dir(directory).map_or(0, |entries| entries.count() as u64)
}
