//! Snapshots on the disk: `definitions/00000000000000000042.snapshot` contains the log's entries up to 42. The newest two
//! are kept, so that one that turns out to be damaged costs nothing: the log still has what the older one lacks.
//!
//! A snapshot has its name only once it is complete and synced. Damaged ones are moved to `damaged/`, not removed.

use std::io::{self, IoSlice};

use super::{Change, Snapshot, SnapshotError, decode_snapshot, through_of};
use crate::log::{Report, Severity, Storage};

const DIRECTORY: &str = "definitions";
const DAMAGED: &str = "damaged";
const SUFFIX: &str = ".snapshot";
/// Digits of a name: those of the highest u64, so that names sort as numbers.
const DIGITS: usize = 20;
/// Where a snapshot is written before it has its name; what lies there at the start is worth nothing.
const UNFINISHED: &str = "definitions/unfinished";
const KEPT: usize = 2;

/// What the disk has.
#[derive(Debug, Default)]
pub(in crate::broker) struct Loaded {
    /// The changes of the newest snapshot that is whole; none when there is no snapshot.
    pub(in crate::broker) changes: Vec<Change>,
    /// The log's last entry that they contain: those above it are to be replayed, those up to it may be.
    pub(in crate::broker) through: u64,
    /// The log must keep its entries above this one.
    pub(in crate::broker) keep_after: u64,
    /// For the operator.
    pub(in crate::broker) reports: Vec<Report>,
}

/// A snapshot is on the disk.
#[derive(Debug)]
pub(in crate::broker) struct Stored {
    /// The log must keep its entries above this one; those up to it are in both snapshots.
    pub(in crate::broker) keep_after: u64,
    /// For the operator.
    pub(in crate::broker) reports: Vec<Report>,
}

/// Why snapshots cannot be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: cannot {action}: {error}")]
    Io { path: String, action: &'static str, error: io::Error },
    /// The bytes to store are no snapshot.
    #[error("not stored: {0}")]
    NoSnapshot(SnapshotError),
    /// Another version of the broker wrote it; nothing was changed.
    #[error("{path}: {error}")]
    Foreign { path: String, error: SnapshotError },
    /// All snapshots are damaged; nothing was changed.
    #[error("all snapshots of definitions are damaged: {0}")]
    AllDamaged(String),
}

/// Makes a snapshot durable, and removes all but the newest two. When it returns an error, those before are still there.
pub(in crate::broker) fn store(disk: &dyn Storage, bytes: &[u8]) -> Result<Stored, FileError> {
    let through = through_of(bytes).map_err(FileError::NoSnapshot)?;
    let path = path_of(through);
    let known = snapshots(disk)?;
    let file = disk.create(UNFINISHED).map_err(cannot("create", UNFINISHED))?;
    file.write_at(&[IoSlice::new(bytes)], 0).map_err(cannot("write", UNFINISHED))?;
    file.sync().map_err(cannot("sync", UNFINISHED))?;
    drop(file);
    disk.rename(UNFINISHED, &path).map_err(cannot("rename to its name", &path))?;
    disk.sync_directory(DIRECTORY).map_err(cannot("sync", DIRECTORY))?;
    // The directory itself may be new.
    disk.sync_directory("").map_err(cannot("sync", "the data directory"))?;
    let mut kept: Vec<u64> = known.into_iter().filter(|known| *known != through).collect();
    kept.push(through);
    kept.sort_unstable();
    let surplus = kept.len().saturating_sub(KEPT);
    let mut reports = Vec::new();
    for through in kept.drain(..surplus) {
        let path = path_of(through);
        if let Err(error) = disk.remove(&path) {
            reports.push(notice(format!("{path}: cannot remove this old snapshot of definitions: {error}")));
        }
    }
    Ok(Stored { keep_after: second_newest(&kept), reports })
}

/// Reads the newest snapshot that is whole.
pub(in crate::broker) fn load(disk: &dyn Storage) -> Result<Loaded, FileError> {
    // A process that died may have left a name that a power failure would take away again.
    if let Err(error) = disk.sync_directory(DIRECTORY)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(cannot("sync", DIRECTORY)(error));
    }
    let mut damaged = Vec::new();
    let mut whole = Vec::new();
    let mut newest = None;
    for through in snapshots(disk)?.into_iter().rev() {
        let path = path_of(through);
        match read(disk, &path, through)? {
            Ok(snapshot) => {
                whole.insert(0, through);
                newest.get_or_insert(snapshot);
            }
            Err(reason) => damaged.push((path, reason)),
        }
        if whole.len() == KEPT {
            break;
        }
    }
    let Some(newest) = newest else {
        if damaged.is_empty() {
            return Ok(Loaded::default());
        }
        let texts: Vec<String> = damaged.iter().map(|(path, reason)| format!("{path}: {reason}")).collect();
        return Err(FileError::AllDamaged(texts.join("; ")));
    };
    let reports = put_aside(disk, &damaged, newest.through)?;
    let Snapshot { changes, through } = newest;
    Ok(Loaded { changes, through, keep_after: second_newest(&whole), reports })
}

/// The snapshots that are damaged, and how. Nothing is changed.
pub fn verify(disk: &dyn Storage) -> Result<Vec<(String, String)>, FileError> {
    let mut damaged = Vec::new();
    for through in snapshots(disk)? {
        let path = path_of(through);
        if let Err(reason) = read(disk, &path, through)? {
            damaged.push((path, reason));
        }
    }
    Ok(damaged)
}

/// The last entry of the snapshots on the disk, ascending.
fn snapshots(disk: &dyn Storage) -> Result<Vec<u64>, FileError> {
    let names = disk.list(DIRECTORY).map_err(cannot("list", DIRECTORY))?;
    let mut found: Vec<u64> = names
        .iter()
        .filter_map(|name| name.strip_suffix(SUFFIX))
        .filter(|digits| digits.len() == DIGITS)
        .filter_map(|digits| digits.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The snapshot, or how it is damaged.
fn read(disk: &dyn Storage, path: &str, through: u64) -> Result<Result<Snapshot, String>, FileError> {
    let file = disk.open(path).map_err(cannot("open", path))?;
    let length = file.length().map_err(cannot("read", path))?;
    let length = usize::try_from(length).map_err(|_| cannot("read", path)(io::ErrorKind::FileTooLarge.into()))?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64).map_err(cannot("read", path))? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(match decode_snapshot(&bytes) {
        Ok(snapshot) if snapshot.through != through => {
            Err(format!("it contains the log up to {}, and its name says otherwise", snapshot.through))
        }
        Ok(snapshot) => Ok(snapshot),
        Err(error) if error.is_damage() => Err(error.to_string()),
        Err(error) => return Err(FileError::Foreign { path: path.to_owned(), error }),
    })
}

/// Moves damaged snapshots out of the way.
fn put_aside(disk: &dyn Storage, damaged: &[(String, String)], used: u64) -> Result<Vec<Report>, FileError> {
    let mut reports = Vec::new();
    for (path, reason) in damaged {
        let name = path.rsplit('/').next().unwrap_or(path);
        let aside = format!("{DAMAGED}/{name}");
        disk.rename(path, &aside).map_err(cannot("move to damaged/", path))?;
        let text = format!(
            "{path}: damaged snapshot of definitions, moved to {aside}: {reason}; used instead: {} and the log",
            path_of(used)
        );
        reports.push(notice(text));
    }
    if !damaged.is_empty() {
        disk.sync_directory(DAMAGED).map_err(cannot("sync", DAMAGED))?;
        disk.sync_directory(DIRECTORY).map_err(cannot("sync", DIRECTORY))?;
    }
    Ok(reports)
}

/// With one snapshot alone, the whole log is the second source.
fn second_newest(ascending: &[u64]) -> u64 {
    ascending.iter().rev().nth(1).copied().unwrap_or(0)
}

fn path_of(through: u64) -> String {
    format!("{DIRECTORY}/{through:0DIGITS$}{SUFFIX}")
}

fn notice(text: String) -> Report {
    Report { severity: Severity::Notice, text }
}

fn cannot(action: &'static str, path: &str) -> impl Fn(io::Error) -> FileError {
    let path = path.to_owned();
    move |error| FileError::Io { path: path.clone(), action, error }
}
