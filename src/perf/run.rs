//! A run from the declarations to the summary.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::Client;
use super::consumer::{self, Consumer};
use super::error::PerfError;
use super::options::{End, Options};
use super::publisher::{self, Publisher};
use super::report::{Measured, Parts, RunCounts, Summary, progress, say};
use super::shared::{Counter, Meter, Shared};
use super::template::Shape;
use super::topology::Topology;

/// Bytes of input buffers.
const SMALL_INPUT: usize = 4 * 1024;
const PUBLISHER_INPUT: usize = 64 * 1024;
const CONSUMER_INPUT: usize = 512 * 1024;
/// Between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How often a run with a number of messages looks whether they are delivered.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A run with a number of messages is given up when nothing is delivered for so long after the last one was published.
const NOTHING_COMES: Duration = Duration::from_secs(10);
/// Notices kept for the reporter; each thread sends one.
const NOTICES: usize = 64;

/// What threads tell the reporter.
enum Notice {
    Interrupted,
    Published(Result<(), PerfError>),
    Consumed(Result<(), PerfError>),
    Churned(Result<(), PerfError>),
}

/// Declares, runs, prints the summary, deletes.
pub(super) fn run(options: &Options) -> Result<(), PerfError> {
    let topology = Topology::new(options);
    let works = options.publishers + options.consumers > 0;
    let mut admin = None;
    if works {
        let mut client = Client::open(&options.uri, SMALL_INPUT)?;
        topology.declare(&mut client, options.publishers > 0 && options.consumers > 0)?;
        admin = Some(client);
    }
    let outcome = generate(options, &topology);
    if let Some(mut admin) = admin {
        let deleted = if options.keep { Ok(()) } else { topology.delete(&mut admin) };
        let closed = deleted.and_then(|()| admin.close());
        // The first failure says most.
        return outcome.and(closed);
    }
    outcome
}

fn generate(options: &Options, topology: &Topology) -> Result<(), PerfError> {
    let idle = open_idle(options)?;
    let shared = Arc::new(Shared::new(options.publishers, options.consumers, options.churn));
    let (sender, notices) = sync_channel(NOTICES);
    watch_interrupts(sender.clone());
    let mut threads = Vec::new();
    let started = start(options, topology, &shared, &sender, &mut threads);
    let mut reporter = Reporter::new(options, topology, &shared);
    let outcome = started.and_then(|()| reporter.follow(&notices));
    shared.stop();
    drop(notices);
    for thread in threads {
        let _ = thread.join();
    }
    let summary = reporter.summary(idle.len());
    say(&if options.json { summary.json() } else { summary.text() }, false);
    outcome
}

/// Opens the connections that do nothing.
fn open_idle(options: &Options) -> Result<Vec<Client>, PerfError> {
    let start = Instant::now();
    let mut idle = Vec::with_capacity(options.idle);
    for _ in 0..options.idle {
        idle.push(Client::open(&options.uri, SMALL_INPUT)?);
    }
    if !idle.is_empty() {
        let line = format!("{} idle connections open after {:.2} s\n", idle.len(), start.elapsed().as_secs_f64());
        say(&line, options.json);
    }
    Ok(idle)
}

/// Tells of Ctrl-C; a second one ends the program at once.
fn watch_interrupts(sender: SyncSender<Notice>) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                let _ = sender.send(Notice::Interrupted);
                let _ = tokio::signal::ctrl_c().await;
                std::process::exit(130);
            }
        });
    });
}

/// Opens the connections and starts their threads, consumers first.
fn start(
    options: &Options,
    topology: &Topology,
    shared: &Arc<Shared>,
    sender: &SyncSender<Notice>,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<(), PerfError> {
    for number in 0..options.consumers {
        let plan = consumer::Plan {
            queues: topology.consumed(number, options.consumers),
            ack_every: options.ack_every,
            prefetch: options.prefetch,
        };
        let client = Client::open(&options.uri, CONSUMER_INPUT)?;
        let (shared, sender) = (Arc::clone(shared), sender.clone());
        threads.push(spawn(move || {
            let outcome = Consumer::new(client, &plan, &shared, number).and_then(Consumer::run);
            let _ = sender.send(Notice::Consumed(outcome));
        })?);
    }
    for number in 0..options.publishers {
        let plan = publisher_plan(options, topology, number);
        let client = Client::open(&options.uri, PUBLISHER_INPUT)?;
        let (shared, sender) = (Arc::clone(shared), sender.clone());
        threads.push(spawn(move || {
            let outcome = Publisher::new(client, &plan, &shared, number).and_then(Publisher::run);
            let _ = sender.send(Notice::Published(outcome));
        })?);
    }
    for number in 0..options.churn {
        let (shared, sender, uri) = (Arc::clone(shared), sender.clone(), options.uri.clone());
        threads.push(spawn(move || {
            let churn = || {
                let meter: &Meter = &shared.churned[number];
                let mut count = 0;
                while !shared.is_stopping() {
                    let start = shared.clock.now();
                    Client::open(&uri, SMALL_INPUT)?.close()?;
                    let now = shared.clock.now();
                    count += 1;
                    meter.count.set(count, now);
                    meter.latencies.record(|record| record(now - start, 1));
                }
                Ok(())
            };
            let _ = sender.send(Notice::Churned(churn()));
        })?);
    }
    Ok(())
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PerfError> {
    let builder = std::thread::Builder::new().name("perf".to_owned()).stack_size(256 * 1024);
    builder.spawn(work).map_err(|error| PerfError::Thread(format!("cannot start a thread: {error}")))
}

fn publisher_plan(options: &Options, topology: &Topology, number: usize) -> publisher::Plan {
    let publishers = options.publishers as u64;
    // The first take what cannot be divided.
    let share = |messages: u64| messages / publishers + u64::from((number as u64) < messages % publishers);
    publisher::Plan {
        shape: Shape {
            exchange: topology.exchange.clone(),
            size: options.size,
            persistent: options.persistent,
            frame_max: 0,
        },
        routes: topology.routes(number, options.publishers),
        window: options.confirms,
        rate: options.rate.map(|rate| rate / options.publishers as f64),
        messages: options.messages.map(share),
    }
}

/// Counts and a time, in nanoseconds of the clock.
#[derive(Clone, Copy, Default)]
struct Snapshot {
    at: u64,
    counts: RunCounts,
}

/// Follows a run.
struct Reporter<'a> {
    options: &'a Options,
    shared: &'a Shared,
    parts: Parts,
    /// Deliveries after which a run with a number of messages is done; 0 without consumers.
    expected: u64,
    /// Where the measured time begins and ends.
    first: Snapshot,
    last: Option<Snapshot>,
    /// The last line of progress.
    line: Snapshot,
    latencies: Measured,
    /// Publishers at work.
    publishing: usize,
    measuring: bool,
}

impl<'a> Reporter<'a> {
    fn new(options: &'a Options, topology: &Topology, shared: &'a Shared) -> Self {
        let copies = if options.publishers > 0 { topology.copies } else { 1 };
        let expected = options.messages.map_or(0, |messages| messages.saturating_mul(copies));
        let now = Snapshot { at: shared.clock.now(), counts: RunCounts::of(shared) };
        let parts = Parts {
            publishers: options.publishers > 0,
            confirms: options.publishers > 0 && options.confirms > 0,
            consumers: options.consumers > 0,
            churn: options.churn > 0,
        };
        Self {
            options,
            shared,
            parts,
            expected: if options.consumers > 0 { expected } else { 0 },
            first: now,
            last: None,
            line: now,
            latencies: Measured::new(),
            publishing: options.publishers,
            measuring: options.warmup == 0.0,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { at: self.shared.clock.now(), counts: RunCounts::of(self.shared) }
    }

    /// Prints progress until the run is over, interrupted, or has failed.
    fn follow(&mut self, notices: &Receiver<Notice>) -> Result<(), PerfError> {
        let start = Instant::now();
        let warm = start + Duration::from_secs_f64(self.options.warmup);
        let (deadline, look) = match self.options.end() {
            End::After(duration) => (Some(warm + duration), LINE_EVERY),
            End::Messages(_) => (None, LOOK_EVERY),
        };
        let mut next_line = start + LINE_EVERY;
        loop {
            let now = Instant::now();
            if !self.measuring && now >= warm {
                self.measure_from_here();
            }
            if deadline.is_some_and(|deadline| now >= deadline) || self.is_complete() {
                break;
            }
            if now >= next_line {
                self.print_line(start);
                next_line += LINE_EVERY;
            }
            let mut wake = next_line.min(deadline.unwrap_or(next_line)).min(now + look);
            if !self.measuring {
                wake = wake.min(warm);
            }
            match notices.recv_timeout(wake.saturating_duration_since(now)) {
                Ok(Notice::Interrupted) => break,
                Ok(Notice::Published(outcome)) => {
                    outcome?;
                    self.publishing -= 1;
                }
                Ok(Notice::Consumed(outcome) | Notice::Churned(outcome)) => outcome?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        self.last = Some(self.snapshot());
        self.latencies.take(self.shared);
        Ok(())
    }

    /// What happened so far was to warm up.
    fn measure_from_here(&mut self) {
        self.latencies.take(self.shared);
        self.latencies.reset();
        self.first = self.snapshot();
        self.measuring = true;
    }

    /// Whether a run with a number of messages is over.
    fn is_complete(&self) -> bool {
        if self.options.messages.is_none() || self.publishing > 0 {
            return false;
        }
        if RunCounts::of(self.shared).delivered >= self.expected {
            return true;
        }
        let quiet = |counter: &Counter| self.shared.clock.now().saturating_sub(counter.changed());
        let published = self.shared.published.iter();
        let delivered = self.shared.delivered.iter().map(|meter| &meter.count);
        let quiet = published.chain(delivered).map(quiet).min().unwrap_or(0);
        let quiet = quiet.min(self.shared.clock.now() - self.first.at);
        Duration::from_nanos(quiet) > NOTHING_COMES
    }

    fn print_line(&mut self, start: Instant) {
        let now = self.snapshot();
        let mut latencies = Measured::new();
        latencies.take(self.shared);
        let (counts, before) = (now.counts, self.line.counts);
        let counts = RunCounts {
            published: counts.published - before.published,
            confirmed: counts.confirmed - before.confirmed,
            delivered: counts.delivered - before.delivered,
            churned: counts.churned - before.churned,
        };
        let seconds = (now.at - self.line.at) as f64 / 1e9;
        let line = progress(self.parts, start.elapsed().as_secs_f64(), seconds, counts, &latencies);
        say(&format!("{line}\n"), self.options.json);
        self.latencies.add(&latencies);
        self.line = now;
    }

    /// What came of it; the threads have ended.
    fn summary(mut self, idle: usize) -> Summary {
        let last = self.last.unwrap_or_else(|| self.snapshot());
        if self.last.is_none() {
            self.latencies.take(self.shared);
        }
        let meters = |meters: &[Meter]| meters.iter().map(|meter| meter.count.changed()).max().unwrap_or(0);
        let changed = |counters: &[Counter]| counters.iter().map(Counter::changed).max().unwrap_or(0);
        // A number of messages took until the last of them, whatever the run waited for after it.
        let counted = self.options.messages.is_some();
        let rate = |count: u64, before: u64, changed: u64| {
            let until = if counted { changed.max(self.first.at + 1) } else { last.at };
            let nanoseconds = until.saturating_sub(self.first.at).max(1);
            (count - before) as f64 / (nanoseconds as f64 / 1e9)
        };
        let (from, to) = (self.first.counts, last.counts);
        Summary {
            parts: self.parts,
            seconds: (last.at - self.first.at) as f64 / 1e9,
            counts: RunCounts::of(self.shared),
            refused: Summary::refused(self.shared),
            publish_rate: rate(to.published, from.published, changed(&self.shared.published)),
            confirm_rate: rate(to.confirmed, from.confirmed, meters(&self.shared.confirmed)),
            deliver_rate: rate(to.delivered, from.delivered, meters(&self.shared.delivered)),
            connect_rate: rate(to.churned, from.churned, meters(&self.shared.churned)),
            idle,
            latencies: self.latencies,
        }
    }
}
