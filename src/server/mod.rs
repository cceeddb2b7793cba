//! Everything that waits: sockets, timers, signals, tasks. It contains no broker rules.

#![allow(clippy::disallowed_methods, reason = "the only code that spawns, sleeps and reads a clock")]

mod admission;
mod alarms;
mod authentication;
mod check;
mod clock;
mod connection;
mod definitions;
mod http;
mod http_backend;
mod http_client;
mod introspection;
mod listener;
mod listening;
mod log_threads;
mod management;
mod notify;
mod opening;
mod patience;
mod process;
mod reload;
mod settings;
mod shards;
mod stream;
mod tls;
mod token_keys;
mod wal_writer;

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::broker::{Broker, DefinitionError, OpenError};
use crate::config::{Config, Loaded};
use crate::disk::{Disk, DiskError};
use crate::log::storage::is_shortage;
use crate::log::{self, LogError, SyncMode};
use crate::logging::Logging;
use crate::model::request::Event;
use crate::protocol::amqp091;

use admission::Admission;
use alarms::Alarms;
pub use check::check;
use clock::Clock;
use listening::Sockets;
use process::Process;

use opening::Opening;
use tls::{Certificates, Tls, TlsError};

/// What makes the broker stop by itself, or not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the runtime cannot be started: {0}")]
    Runtime(std::io::Error),
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen { key: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{}: {error}", path.display())]
    ListenLocal { path: PathBuf, error: std::io::Error },
    #[error("definitions.load: {}: {error}", path.display())]
    Import { path: PathBuf, error: String },
    #[error("node.data_dir: {0}")]
    DataDirectory(#[from] DiskError),
    #[error("{}: {error}", path.display())]
    Open { path: PathBuf, error: OpenError },
    #[error("the broker cannot go on without its log, in {}: {error}", path.display())]
    Log { path: PathBuf, error: LogError },
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("no random numbers from the system: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Authentication(#[from] authentication::AuthenticationError),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

/// Bytes of the disk's reserve that are worth keeping.
const RESERVE_MIN: u64 = 16 * 1024;

/// What all connections share.
struct Shared {
    broker: Arc<Broker>,
    clock: Clock,
    /// For connections that begin.
    amqp: ArcSwap<amqp091::AmqpSettings>,
    /// A quarter of the delivery credit: deliveries are reported as sent in pieces of this size.
    credit_worth: usize,
    alarms: Alarms,
    /// Of the listeners of AMQP together.
    admission: Arc<Admission>,
    publish_credit: u64,
    delivery_credit: u64,
    /// The log's threads are to end.
    stopping: AtomicBool,
    /// Nothing more is written to the log.
    written: AtomicBool,
    disk: Arc<Disk>,
    /// The start found the disk full.
    has_spent_reserve: bool,
    /// Of the threads that read the log, those that cannot for now.
    stalled_readers: AtomicUsize,
    listening: Sockets,
    /// The log has work for the thread that maintains it.
    care: log_threads::Care,
}

/// Runs the broker until a signal stops it.
pub fn run(loaded: &Loaded, logging: &Arc<Logging>) -> Result<(), ServerError> {
    // One thread more than processors: the log's task blocks one while the disk is at work.
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get) + 1;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(workers).enable_all().build().map_err(ServerError::Runtime)?;
    let outcome = runtime.block_on(serve(loaded, logging));
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// Opens the data directory and makes what all connections share.
fn open(config: &Config, clock: Clock) -> Result<Arc<Shared>, ServerError> {
    let path = &config.node.data_dir;
    let disk = Arc::new(open_disk(path)?);
    let options = settings::log(config);
    if options.sync != SyncMode::Always {
        tracing::warn!(
            "storage.sync is \"{}\": UNSAFE: messages are confirmed before they are on the disk, and a power failure \
             loses them",
            config.storage.sync.name()
        );
    }
    let (broker, has_spent_reserve) = open_broker(config, &disk, options, clock)?;
    // Definitions to import take the place of the usual ones.
    if broker.is_new() && config.definitions.load.is_none() {
        definitions::define(&broker, config)?;
    }
    broker.set_clock(move || clock.now());
    authentication::start(&broker, config, clock)?;
    Ok(Arc::new(Shared {
        broker,
        clock,
        amqp: ArcSwap::from_pointee(settings::amqp(config)),
        credit_worth: usize::try_from(config.memory.connection_delivery_credit / 4).unwrap_or(usize::MAX),
        alarms: Alarms::default(),
        admission: Admission::new("amqp", settings::amqp_places(config)),
        publish_credit: config.memory.connection_publish_credit,
        delivery_credit: config.memory.connection_delivery_credit,
        stopping: AtomicBool::new(false),
        written: AtomicBool::new(false),
        stalled_readers: AtomicUsize::new(0),
        has_spent_reserve,
        disk,
        listening: Sockets::default(),
        care: log_threads::Care::default(),
    }))
}

/// Waits for space where there is none for as much as a directory.
fn open_disk(path: &Path) -> Result<Disk, ServerError> {
    let mut waiting = Waiting::default();
    loop {
        match Disk::open(path) {
            Err(DiskError::Io { error, .. }) if is_shortage(&error) => waiting.pause(&error),
            opened => return Ok(opened?),
        }
    }
}

/// Opens the broker, also on a full disk: with the reserve, or else once there is space. Whether the reserve was needed.
fn open_broker(
    config: &Config,
    disk: &Arc<Disk>,
    options: log::Options,
    clock: Clock,
) -> Result<(Arc<Broker>, bool), ServerError> {
    let mut has_spent_reserve = false;
    let mut waiting = Waiting::default();
    let settings = settings::broker(config).map_err(ServerError::Random)?;
    loop {
        match Broker::open(settings.clone(), Arc::clone(disk) as _, options, clock.now()) {
            Ok(broker) => {
                if has_spent_reserve {
                    // The next start may find the disk as full, and has less to write.
                    let sizes =
                        std::iter::successors(Some(log_threads::reserve_bytes(&options)), |size| Some(size / 2));
                    let mut sizes = sizes.take_while(|size| *size >= RESERVE_MIN);
                    let _ = sizes.any(|size| disk.keep_reserve(size).is_ok());
                }
                return Ok((broker, has_spent_reserve));
            }
            Err(error) if error.is_shortage() => {
                has_spent_reserve = true;
                if disk.release_reserve() {
                    tracing::warn!(%error, "the disk is full: its reserve is used to open the log");
                } else {
                    waiting.pause(&error);
                }
            }
            Err(error) => return Err(ServerError::Open { path: config.node.data_dir.clone(), error }),
        }
    }
}

/// A start that waits for space.
#[derive(Default)]
struct Waiting {
    told: bool,
}

impl Waiting {
    /// Nothing else runs yet: the thread may sleep.
    fn pause(&mut self, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(%error, "the broker cannot start yet: it waits for space");
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

async fn serve(loaded: &Loaded, logging: &Arc<Logging>) -> Result<(), ServerError> {
    let config = &loaded.config;
    let path = &config.node.data_dir;
    raise_open_files();
    // First of all: a broker that cannot serve is not to look at its data.
    let certificates = Certificates::open(config)?;
    let shared = open(config, Clock::start())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServerError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServerError::Signals)?;
    let (failed, mut failure) = mpsc::channel(1);
    let writer = log_threads::start(&shared, &settings::log(config), &failed).map_err(ServerError::Thread)?;
    let shard_tasks = shards::start(&shared);
    alarms::start(&shared, &config.memory, &config.storage, path);
    tls::watch(&certificates);
    let (stop, stopped) = watch::channel(false);
    let process = Process::new(&shared, loaded, logging, certificates.clone());
    reload::watch(&shared, &process)?;
    let management = management::open(&shared, config, &process).await;
    management::import(&management, config).await?;
    let mut ready = listen(&shared, config, certificates.amqp.as_ref(), &process, &stopped)?;
    management::start(&management, config, &process, &certificates, &stopped, &mut ready)?;
    tracing::info!(node = config.node.name, version = env!("CARGO_PKG_VERSION"), "{ready}");
    announce(&ready);
    let supervisor = notify::Supervisor::from_environment();
    supervisor.ready(&ready);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        () = process.stop.notified() => tracing::info!("stopping, as was asked for"),
        // Nothing more is promised, and nobody is told: what was promised is on the disk.
        Some(error) = failure.recv() => return Err(ServerError::Log { path: path.clone(), error }),
    }
    let patience = process.loaded.lock().config.shutdown.timeout;
    supervisor.stopping(patience);
    let _ = stop.send(true);
    management::stop(&management);
    close_connections(&shared, &shard_tasks, patience).await;
    shared.stopping.store(true, Ordering::Release);
    shared.broker.stop_log();
    let written = writer.await;
    shared.written.store(true, Ordering::Release);
    if let Ok(error) = failure.try_recv() {
        return Err(ServerError::Log { path: path.clone(), error });
    }
    if let Err(error) = written {
        tracing::error!(%error, "the task that writes the log has ended before its time");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Starts the listeners; returns the line that names them.
fn listen(
    shared: &Arc<Shared>,
    config: &Config,
    tls: Option<&Arc<Tls>>,
    process: &Process,
    stopped: &watch::Receiver<bool>,
) -> Result<String, ServerError> {
    let backlog = config.amqp.backlog;
    let mut ready = String::from("ready");
    for listening in config.amqp.addresses() {
        let opening = Opening::new(config, None);
        let bound = listener::start(shared, listening, opening, backlog, stopped.clone())?;
        process.add_listener("amqp", bound, false);
        ready.push_str(&format!(" amqp={bound}"));
    }
    for listening in config.amqps_addresses() {
        let opening = Opening::new(config, tls.cloned());
        let bound = listener::start(shared, listening, opening, backlog, stopped.clone())?;
        process.add_listener("amqp/ssl", bound, true);
        ready.push_str(&format!(" amqps={bound}"));
    }
    Ok(ready)
}

/// Every connection is an open file: takes as many as the system allows this process, instead of the usual 1024.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::info!(limit = limit.current, "open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files cannot be raised"),
    }
}

/// Tells whoever started the broker that it accepts connections. A closed standard output is nobody's loss.
fn announce(ready: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());
}

/// Closes every connection with 320 and waits until they are gone and what they sent is in the queues, dead letters as
/// well, at most `timeout`.
async fn close_connections(shared: &Shared, shard_tasks: &[JoinHandle<()>], timeout: Duration) {
    shared.broker.stop();
    let text = "broker forced connection closure with reason 'shutdown'";
    shared.broker.registry.tell_all(|| Event::Shutdown { text: text.to_owned() });
    let gone = async {
        while !shared.broker.registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Nothing expires any more: what is under way comes to its end, and nothing else begins.
        shard_tasks.iter().for_each(JoinHandle::abort);
        let now = shared.clock.now();
        while shared.broker.finish_turns(now) || shared.broker.has_letters_under_way() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(timeout, gone).await.is_err() {
        tracing::warn!(left = shared.broker.registry.len(), "connections did not close in time");
    }
}
