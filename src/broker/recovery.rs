//! How a broker comes back: the definitions from their snapshot and the log, the queues with their messages on the disk;
//! and how definitions get into the log and the snapshot while it runs.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::log::storage::is_shortage;
use crate::log::{
    self, Batch, CommitError, Head, Log, LogError, METADATA, Range, RecoveredLog, Report, Severity, Storage,
};
use crate::model::entity::Queue;
use crate::model::ids::Timestamp;
use crate::model::narrow::narrow;
use crate::model::statistics::LogStatistics;
use crate::queue::{ColdChunk, Fifo, IndexRange, Members, RecoveredQueue};

use super::definitions::{self, Change, DecodeError, FileError};
use super::envelope::Envelope;
use super::events::{EVENT_EXCHANGE, EVENT_VHOST};
use super::journal::{Held, Journal, Submission};
use super::loads::Loads;
use super::mailbox::Mailbox;
use super::metadata::{Metadata, shard_of};
use super::registry::Registry;
use super::replies::ReplyRegistry;
use super::shard::Shard;
use super::topology::Topology;
use super::{Broker, BrokerSettings, ShardCell, tell};

/// Changes in the log after which the next snapshot is due, at least; it is more when there is much to write.
const SNAPSHOT_CHANGES_MIN: u64 = 1000;
/// Entries of the definitions' log read at once.
const READ_ENTRIES: u64 = 4096;

/// Why a broker cannot start on a data directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Snapshot(#[from] FileError),
    #[error("entry {index} of the definitions' log: {error}")]
    Change { index: u64, error: DecodeError },
}

impl OpenError {
    /// Whether it passes: space, descriptors or memory are short.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Log(LogError::Io { error, .. }) | Self::Snapshot(FileError::Io { error, .. }) => is_shortage(error),
            Self::Log(LogError::Version { .. })
            | Self::Snapshot(FileError::NoSnapshot(_) | FileError::Foreign { .. } | FileError::AllDamaged(_))
            | Self::Change { .. } => false,
        }
    }
}

/// Where the definitions stand in the log.
pub(super) struct DefinitionsLog {
    next_index: u64,
    /// Changes the newest snapshot does not have.
    since_snapshot: u64,
    /// Changes of the newest snapshot itself, or so.
    snapshot_changes: u64,
    /// Up to here entries are dead: the older snapshot has them.
    dead_through: u64,
    has_snapshot: bool,
    /// Changes have left the WAL that no snapshot has.
    is_due: bool,
}

impl Broker {
    /// Opens the data directory, and brings back what is durable.
    pub fn open(
        settings: BrokerSettings,
        disk: Arc<dyn Storage>,
        options: log::Options,
        now: Timestamp,
    ) -> Result<Arc<Self>, OpenError> {
        let stored = definitions::load(&*disk)?;
        tell(&stored.reports);
        let opened = Log::open(Arc::clone(&disk), options)?;
        tell(&opened.reports);
        let count = settings.shards.max(1);
        let mut metadata = Metadata::new(&settings);
        let through = stored.through;
        let snapshot_changes = stored.changes.len() as u64;
        replay(&mut metadata, stored.changes);
        let mut logs: BTreeMap<u64, RecoveredLog> = opened.logs.into_iter().map(|log| (log.log.0, log)).collect();
        let own = logs.remove(&METADATA.0);
        let next_index = own.as_ref().map_or(1, |log| log.next_index).max(through + 1);
        let (since_snapshot, is_complete) = read_changes(&opened.log, own.as_ref(), through, &mut metadata)?;

        let shares = settings.memory_budget / u64::from(count);
        let common = super::shard::Common::default();
        let mut shards: Vec<Shard> = (0..count).map(|index| Shard::new(index, count, shares, common.clone())).collect();
        for queue in durable_queues(metadata.topology()) {
            let machine = revive(&queue, logs.remove(&queue.id.0), now);
            let shard = usize::from(shard_of(queue.id, count));
            if let Some(shard) = shards.get_mut(shard) {
                shard.inbox.push_back(Envelope::Adopt { queue, machine: Box::new(machine) });
            }
        }
        // What is left are queues whose deletion is in the definitions, and whose records were still there at the end.
        if is_complete {
            let _ = opened.log.retain(&|log| !logs.contains_key(&log.0));
        } else {
            tell_kept(&logs);
        }

        let news = Arc::clone(&metadata.topology().news);
        news.set_bound(metadata.is_bound(&EVENT_VHOST.into(), &EVENT_EXCHANGE.into()));
        let topology = ArcSwap::from_pointee(metadata.topology().clone());
        let broker = Arc::new(Self {
            shards: shards.into_iter().map(ShardCell::new).collect(),
            metadata: Mutex::new(metadata),
            definitions: Mutex::new(DefinitionsLog {
                next_index,
                since_snapshot,
                snapshot_changes,
                dead_through: stored.keep_after,
                has_snapshot: through > 0,
                is_due: false,
            }),
            news,
            topology,
            disk,
            log: opened.log,
            journal: Journal::new(opened.writer),
            loads: Loads::default(),
            common,
            transaction_bytes: Arc::default(),
            replies: ReplyRegistry::default(),
            connections: AtomicUsize::new(0),
            registry: Registry::default(),
            log_statistics: LogStatistics::default(),
            channels: AtomicUsize::new(0),
            per_user: DashMap::new(),
            per_vhost: DashMap::new(),
            next_connection: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            authenticator: std::sync::OnceLock::new(),
            login_attempts: super::LoginAttempts::default(),
            limits: ArcSwap::from_pointee(settings.limits),
            vhost_defaults: ArcSwap::from_pointee(settings.vhost_defaults.clone()),
            settings,
        });
        for shard in 0..count {
            broker.drive(shard, now);
        }
        Ok(broker)
    }

    /// Whether the data directory had no definitions: those the configuration begins with are to be made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        !self.definitions.lock().has_snapshot && self.topology.load().users.is_empty()
    }

    /// Hands the durable changes to the journal.
    pub(super) fn log_definitions(&self, metadata: &mut Metadata) {
        let changes = metadata.take_changes();
        if changes.is_empty() {
            return;
        }
        let mut log = self.definitions.lock();
        let mut batch = self.journal.spare();
        let mut encoded = Vec::new();
        for change in changes {
            encoded.clear();
            change.encode(&mut encoded);
            batch.append(&head(log.next_index, encoded.len()), &[&encoded], &[]);
            log.next_index += 1;
            log.since_snapshot += 1;
        }
        batch.set_urgent();
        self.submit(Submission { batch, held: Held::default() });
    }

    /// Stores a snapshot when enough has changed since the last, or when changes have left the WAL: they are in two files
    /// then, of which one may be damaged. Whether it did.
    pub(super) fn store_definitions_if_due(&self, have_left_the_wal: bool) -> Result<bool, CommitError> {
        let mut log = self.definitions.lock();
        let many = log.since_snapshot >= SNAPSHOT_CHANGES_MIN.max(log.snapshot_changes);
        log.is_due |= have_left_the_wal && log.since_snapshot > 0;
        let due = many || log.is_due;
        drop(log);
        match due.then(|| self.store_definitions()) {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            // The log has to be maintained first, which is what the caller does.
            Some(Err(CommitError::Full)) => Ok(false),
            Some(Err(error)) => Err(error),
        }
    }

    /// Stores a snapshot of the definitions; what the one before it has is dead in the log.
    pub fn store_definitions(&self) -> Result<(), CommitError> {
        let metadata = self.metadata.lock();
        let mut log = self.definitions.lock();
        let through = log.next_index - 1;
        let snapshot = definitions::encode_snapshot(&metadata.durable(), through);
        // Changes that are not in the log yet are in the snapshot: it may be ahead, never behind.
        let since = log.since_snapshot;
        log.since_snapshot = 0;
        drop(log);
        drop(metadata);
        // A queue that the snapshot has no more is not to end before what precedes its end in the log is durable: letters of
        // messages that died in it.
        let written = self.write_log();
        let stored = written.and_then(|_| definitions::store(&*self.disk, &snapshot).map_err(commit_error));
        let mut log = self.definitions.lock();
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => {
                log.since_snapshot += since;
                return Err(error);
            }
        };
        tell(&stored.reports);
        let keep_after = stored.keep_after;
        log.snapshot_changes += since;
        log.has_snapshot = true;
        log.is_due = false;
        let dead = Range { first: log.dead_through + 1, last: keep_after };
        log.dead_through = log.dead_through.max(keep_after);
        drop(log);
        if dead.first <= dead.last {
            let mut batch = Batch::default();
            batch.settle(METADATA, &[dead]);
            self.submit(Submission { batch, held: Held::default() });
        }
        Ok(())
    }
}

/// When definitions are lost, what has no queue may be messages of one that was: they are kept for whoever can tell.
fn tell_kept(logs: &BTreeMap<u64, RecoveredLog>) {
    for (log, _) in logs.iter().filter(|(_, log)| !log.chunks.is_empty()) {
        let text = format!("log {log} has messages, and no queue is known for it: they are kept on the disk");
        tell(&[Report { severity: Severity::Loss, text }]);
    }
}

impl ShardCell {
    fn new(shard: Shard) -> Self {
        Self {
            mailbox: Mailbox::default(),
            state: Mutex::new(shard),
            flushed: Mailbox::default(),
            wake: Notify::new(),
            held: AtomicU64::new(0),
            alarm: AtomicU64::new(u64::MAX),
        }
    }
}

fn head(index: u64, length: usize) -> Head {
    Head {
        log: METADATA,
        index,
        time: 0,
        deadline: u64::MAX,
        cost: narrow(length, "a definition comes in a frame or a body below 4 GiB"),
        class: 0,
        transient: false,
    }
}

/// A full disk passes, as does any shortage; anything else does not.
fn commit_error(error: FileError) -> CommitError {
    match error {
        FileError::Io { path, error, .. } if is_shortage(&error) => CommitError::NoSpace { path, error },
        FileError::Io { path, action, error } => LogError::Io { path, action, error }.into(),
        other @ (FileError::NoSnapshot(_) | FileError::Foreign { .. } | FileError::AllDamaged(_)) => {
            let error = io::Error::other(other.to_string());
            LogError::Io { path: "definitions".to_owned(), action: "store", error }.into()
        }
    }
}

fn durable_queues(topology: &Topology) -> Vec<Arc<Queue>> {
    let queues = topology.vhosts.values().flat_map(|vhost| vhost.queues.values());
    queues.filter(|queue| queue.durable).cloned().collect()
}

fn replay(metadata: &mut Metadata, changes: Vec<Change>) {
    for change in changes {
        if let Err(error) = metadata.replay(change) {
            tell(&[Report { severity: Severity::Loss, text: format!("definitions: {error}") }]);
        }
    }
}

/// Replays what the log has beyond the snapshot. How many changes that were, and whether all were there.
fn read_changes(
    log: &Log,
    recovered: Option<&RecoveredLog>,
    through: u64,
    metadata: &mut Metadata,
) -> Result<(u64, bool), OpenError> {
    let Some(recovered) = recovered else { return Ok((0, true)) };
    let mut is_complete = true;
    let mut expected = through + 1;
    while expected < recovered.next_index {
        let last = (expected + READ_ENTRIES - 1).min(recovered.next_index - 1);
        let read = log.read(METADATA, expected, last)?;
        tell(&read.reports);
        for entry in read.entries {
            let index = entry.head.index;
            is_complete &= !report_gap(expected, index);
            expected = index + 1;
            let change = Change::decode(&entry.payload).map_err(|error| OpenError::Change { index, error })?;
            replay(metadata, vec![change]);
        }
        is_complete &= !report_gap(expected, last + 1);
        expected = last + 1;
    }
    Ok((recovered.next_index - 1 - through.min(recovered.next_index - 1), is_complete))
}

/// Whether changes are missing.
fn report_gap(expected: u64, found: u64) -> bool {
    if found > expected {
        let text = format!("definitions: the changes {expected} to {} are not in the log: they are lost", found - 1);
        tell(&[Report { severity: Severity::Loss, text }]);
    }
    found > expected
}

/// A durable queue with the messages that the log has for it.
fn revive(queue: &Queue, log: Option<RecoveredLog>, now: Timestamp) -> Fifo {
    let options = Arc::new(queue.options.clone());
    let recovered = match log {
        None => RecoveredQueue { next_index: 1, delivered_through: 0, chunks: Vec::new() },
        Some(log) => RecoveredQueue {
            next_index: log.next_index,
            delivered_through: log.delivered,
            chunks: log.chunks.into_iter().map(cold_chunk).collect(),
        },
    };
    Fifo::recovered(options, now, recovered)
}

fn cold_chunk(chunk: log::Chunk) -> ColdChunk {
    let members = match chunk.members {
        None => Members::Dense(IndexRange { first: chunk.first, last: chunk.last }),
        Some(members) => Members::Sparse(members),
    };
    ColdChunk {
        lane: chunk.class,
        members,
        bytes: chunk.cost,
        length: chunk.length,
        expires: (chunk.deadline != u64::MAX).then_some(Timestamp(chunk.deadline)),
    }
}
