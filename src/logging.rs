//! Where the broker's log goes: standard error, a file, or both.
//!
//! A thread for each writes: whoever reads standard error, and the disk of the file, may be as slow as they like
//! without the broker waiting for them. What one of them cannot keep up with is dropped there, and it is told how much.
//! (The log of messages on the disk is [`crate::log`].)

mod file;

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat, LogLevel};
use crate::printable;

use self::file::LogFile;

/// The lines that wait to be written to each place, at most.
const WAITING_LINES: usize = 8192;

/// The log of this process, to be changed while it runs.
pub struct Logging {
    set_level: Box<dyn Fn(LevelFilter) -> Result<(), String> + Send + Sync>,
    file: Option<(PathBuf, Arc<Mutex<LogFile>>)>,
    console: bool,
    /// What waits is written when they are dropped.
    threads: Arc<Mutex<Vec<WorkerGuard>>>,
}

/// The log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("log.file: cannot open {}: {error}", path.display())]
pub struct LogFileError {
    pub path: PathBuf,
    pub error: io::Error,
}

impl Logging {
    /// Starts the log of this process. To be called once.
    pub fn start(log: &Log) -> Result<Self, LogFileError> {
        let file = match &log.file {
            None => None,
            Some(path) => {
                // What comes of a directory that cannot be made is told when the file cannot be opened in it.
                let _ = path.parent().map(std::fs::create_dir_all);
                let opened = LogFile::open(path, log.rotation_size, log.rotation_count);
                let opened = opened.map_err(|error| LogFileError { path: path.clone(), error })?;
                Some((path.clone(), Arc::new(Mutex::new(opened))))
            }
        };
        // Nobody can be told that nobody reads standard error.
        let console = log.console.then(|| queue(|lines| drop(io::stderr().write_all(lines))));
        let filed = file.as_ref().map(|(_, file)| {
            let file = Arc::clone(file);
            queue(move |lines| file.lock().write(lines))
        });
        let mut threads = Vec::new();
        let mut writer = |queue: Option<(NonBlocking, WorkerGuard)>| {
            let (writer, thread) = queue?;
            threads.push(thread);
            Some(writer)
        };
        let writers = Writers { console: writer(console), file: writer(filed) };
        let (levels, handle) = reload::Layer::new(levels(log));
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writers.clone()).with_ansi(false);
        tracing_subscriber::registry().with(formatted(lines, log.format).with_filter(levels)).init();
        let threads = Arc::new(Mutex::new(threads));
        tell_panics(Arc::clone(&threads), file.as_ref().map(|(_, file)| Arc::clone(file)));
        let set_level = Box::new(move |level| {
            let replaced = handle.modify(|levels| *levels = Targets::new().with_default(level));
            replaced.map_err(|error| error.to_string())
        });
        Ok(Self { set_level, file, console: log.console, threads })
    }

    /// From now on only what is at least as important as `level` is logged, of all modules: `error`, `warn`, `info` or
    /// `debug`, or RabbitMQ's names for them.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        (self.set_level)(match level {
            "error" | "critical" => LevelFilter::ERROR,
            "warn" | "warning" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            _ => return Err("a level is error, warn, info or debug".to_owned()),
        })
    }

    /// Begins another file, if the log goes to one. Waits for the disk.
    pub fn rotate(&self) {
        if let Some((_, file)) = &self.file {
            file.lock().rotate();
        }
    }

    /// The last lines of the file, `count` at most. Why there are none, else. Waits for the disk.
    pub fn tail(&self, count: usize) -> Result<Vec<String>, String> {
        let (path, _) = self.file.as_ref().ok_or("the log goes to no file: log.file is empty")?;
        let lines =
            file::tail(path, count).map(|lines| lines.iter().map(|line| printable::line(line).into_owned()).collect());
        // Others may have written to it, and earlier versions.
        lines.map_err(|error| format!("cannot read {}: {error}", path.display()))
    }

    /// Writes what waits; nothing is logged after that.
    pub fn finish(&self) {
        self.threads.lock().clear();
    }

    /// Where the log goes, for people.
    pub fn places(&self) -> Vec<String> {
        let console = self.console.then(|| "<stderr>".to_owned());
        console.into_iter().chain(self.file.iter().map(|(path, _)| path.display().to_string())).collect()
    }
}

fn formatted<S, W>(
    lines: tracing_subscriber::fmt::Layer<
        S,
        tracing_subscriber::fmt::format::DefaultFields,
        tracing_subscriber::fmt::format::Format,
        W,
    >,
    format: LogFormat,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

fn levels(log: &Log) -> Targets {
    let mut levels = Targets::new().with_default(filter(log.level));
    for (module, level) in &log.levels {
        // A module of the broker, or of a library by its full name.
        levels = levels.with_target(module, filter(*level));
        levels = levels.with_target(format!("warren::{module}"), filter(*level));
    }
    levels
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// A panic ends the process: what waits is written first, for a second or two at most, and the file has it, too.
fn tell_panics(threads: Arc<Mutex<Vec<WorkerGuard>>>, file: Option<Arc<Mutex<LogFile>>>) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        // Never wait for a lock: the panic may be that of whoever holds it.
        if let Some(mut threads) = threads.try_lock() {
            threads.clear();
        }
        if let Some(mut file) = file.as_ref().and_then(|file| file.try_lock()) {
            file.write(format!("{panic}\n").as_bytes());
        }
        usual(panic);
    }));
}

/// Both places, as one writer.
#[derive(Clone)]
struct Writers {
    console: Option<NonBlocking>,
    file: Option<NonBlocking>,
}

impl Write for Writers {
    /// Takes one line with its end, in any format. Whatever is in it, it stays one line: what peers chose has nothing that
    /// ends it or that a terminal would obey.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
        let escaped = printable::line(&text);
        let mut kept = Vec::with_capacity(escaped.len() + 1);
        kept.extend_from_slice(escaped.as_bytes());
        kept.push(b'\n');
        for writer in self.console.iter_mut().chain(&mut self.file) {
            // It drops what is too much, and that is its only failure.
            let _ = writer.write(&kept);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread that hands lines to `put`.
fn queue(put: impl FnMut(&[u8]) + Send + 'static) -> (NonBlocking, WorkerGuard) {
    let lost = Arc::new(OnceLock::new());
    let output = Output { put, lost: Arc::clone(&lost), told: 0 };
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("logging");
    let (writer, guard) = queue.finish(output);
    let _ = lost.set(writer.error_counter());
    (writer, guard)
}

/// What a thread writes to.
struct Output<P> {
    put: P,
    /// How many lines were dropped since the start.
    lost: Arc<OnceLock<ErrorCounter>>,
    /// How many of them the log has told of.
    told: usize,
}

impl<P: FnMut(&[u8])> Write for Output<P> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let lost = self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        if lost > self.told {
            let count = lost - self.told;
            (self.put)(
                format!("{count} lines of the log were dropped: they come faster than they are written\n").as_bytes(),
            );
            self.told = lost;
        }
        (self.put)(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
