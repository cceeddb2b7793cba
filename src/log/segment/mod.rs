//! Segments: files that are written once, with entries of many logs, sorted by log, and what is known of those logs.
//!
//! ```text
//! header    magic, format version, identity: number, salt, WAL file, what it replaces; checksum
//! chunk *   head, table of its records' checksums and lengths, records as they came (kind Entry only)
//! footer    identity again; per log: checkpoint, chunk summaries
//! trailer   magic, format version, where the footer is, its checksum
//! ```
//! - A WAL file of which most lives is not copied: it becomes the segment's second file, as it is, beside the first by name.
//!   Those of its chunks are stretches of the WAL file in which there is little else. A segment without such a file is of
//!   version 1, with one of version 2.
//! - Chunks are sorted by log, and by index within a log; a chunk has at most 256 entries and 256 KiB, or one entry.
//! - The footer is all that is read when the log is opened. When it is damaged it is made again from the chunks' heads and
//!   records; the checkpoints are lost then.
//! - A file has its name only when it is complete and on the disk. Its number is above those of all segments it replaces, and
//!   of two checkpoints of a log that in the segment of the higher number counts.

mod footer;
mod kept;
mod layout;
mod load;
mod scan;
mod writer;

use std::io;

use roaring::RoaringTreemap;

pub(super) use self::kept::chunk_records;
pub(super) use self::layout::{Fate, Layout, Lying};
pub(super) use self::load::{Load, headers, load, read_up_to};
pub(super) use self::scan::Damage;
pub(super) use self::writer::{Reading, SegmentWriter, Written, put_entry};
use super::LogError;
use super::entry::LogId;
use super::storage::Storage;

/// The directory of segments.
pub(super) const DIRECTORY: &str = "segments";
/// Where damaged files are kept.
pub(super) const DAMAGED: &str = "damaged";

/// The version of segments this code writes, and the newest it reads.
pub(super) const VERSION: u32 = 2;
/// The version of those without a WAL file.
const PLAIN_VERSION: u32 = 1;
/// Entries a chunk has at most.
pub(super) const CHUNK_ENTRIES: usize = 256;
/// Bytes of records a chunk has at most, unless it has one.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

const HEADER_MAGIC: &[u8; 8] = b"WarrenSG";
const TRAILER_MAGIC: &[u8; 8] = b"WarrenSF";
const CHUNK_MAGIC: u32 = u32::from_le_bytes(*b"WChk");

/// Bytes of a chunk's head, of a record in its table, of the trailer.
const CHUNK_HEAD: usize = 48;
const TABLE_ENTRY: usize = 8;
const TRAILER: usize = 40;

/// The path of a segment's own file.
pub(super) fn path(number: u64) -> String {
    format!("{DIRECTORY}/{number:020}.seg")
}

/// The path of the WAL file that became part of a segment.
pub(super) fn wal_path(number: u64) -> String {
    format!("{DIRECTORY}/{number:020}.wal")
}

/// The path of one of a segment's files.
pub(super) fn part_path(number: u64, part: Part) -> String {
    match part {
        Part::Own => path(number),
        Part::Wal => wal_path(number),
    }
}

fn temporary_path(number: u64) -> String {
    format!("{DIRECTORY}/{number:020}.tmp")
}

/// The number in a segment's name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The number in the name of a WAL file that became part of a segment.
pub(super) fn wal_number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Puts a damaged segment where it can be looked at, durably.
pub(super) fn keep_damaged(disk: &dyn Storage, number: u64) -> Result<(), LogError> {
    for path in [path(number), wal_path(number)] {
        let name = path.rsplit('/').next().unwrap_or_default();
        if let Err(error) = disk.rename(&path, &format!("{DAMAGED}/{name}"))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(LogError::Io { path, action: "move", error });
        }
    }
    let synced = disk.sync_directory(DAMAGED).and_then(|()| disk.sync_directory(DIRECTORY));
    synced.map_err(|error| LogError::Io { path: path(number), action: "move", error })
}

/// Removes segments' files, durably. A WAL file goes after the file that names what is in it: one that is left alone is
/// known to be of no use, since the segments say up to where the WAL is in them.
pub(super) fn remove(disk: &dyn Storage, numbers: &[u64]) -> Result<(), LogError> {
    let failed = |path: String, action| move |error| LogError::Io { path, action, error };
    for number in numbers {
        disk.remove(&path(*number)).map_err(failed(path(*number), "remove"))?;
    }
    disk.sync_directory(DIRECTORY).map_err(failed(DIRECTORY.to_owned(), "sync"))?;
    let mut removed = false;
    for number in numbers {
        match disk.remove(&wal_path(*number)) {
            Ok(()) => removed = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(wal_path(*number), "remove")(error)),
        }
    }
    if removed {
        disk.sync_directory(DIRECTORY).map_err(failed(DIRECTORY.to_owned(), "sync"))?;
    }
    Ok(())
}

/// What a segment says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) number: u64,
    /// The WAL file whose entries it took; 0 is none.
    pub(super) wal: u64,
    /// WAL files up to this sequence number are in segments.
    pub(super) flushed: u64,
    /// The segments it replaces.
    pub(super) replaces: Vec<u64>,
    /// In each chunk's head, so that no payload can pass for a chunk.
    pub(super) salt: u32,
    /// The WAL file whose entries it took is part of it.
    pub(super) keeps_wal: bool,
}

/// What is known of a log at some moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) next_index: u64,
    pub(super) delivered: u64,
    /// It speaks of indexes up to this one.
    pub(super) through: u64,
    pub(super) live: RoaringTreemap,
}

/// Which of a segment's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    #[default]
    Own,
    /// The WAL file that became part of it.
    Wal,
}

/// A chunk of a segment: records of one log that lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkPlace {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u32,
    /// Entries, live or dead.
    pub(super) count: u16,
    pub(super) part: Part,
}

/// What a footer says of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkSummary {
    pub(super) place: ChunkPlace,
    pub(super) cost: u64,
    pub(super) deadline: u64,
    /// Of all entries, unless it is mixed.
    pub(super) class: u8,
    pub(super) mixed: bool,
    /// Some entries are transient.
    pub(super) transient: bool,
}

/// What a footer says of a log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogFooter {
    pub(super) log: LogId,
    pub(super) checkpoint: Option<Checkpoint>,
    /// What older segments have of the log is void.
    pub(super) dropped: bool,
    /// Ascending.
    pub(super) chunks: Vec<ChunkSummary>,
}

impl LogFooter {
    pub(super) fn new(log: LogId) -> Self {
        Self { log, checkpoint: None, dropped: false, chunks: Vec::new() }
    }

    /// The lowest index it has an entry of.
    pub(super) fn first(&self) -> u64 {
        self.chunks.first().map_or(0, |chunk| chunk.place.first)
    }
}

/// All that a segment has but its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Footer {
    pub(super) identity: Identity,
    /// Ascending.
    pub(super) logs: Vec<LogFooter>,
    /// Bytes of the file.
    pub(super) file_length: u64,
    /// Bytes of the WAL file that is part of it.
    pub(super) wal_length: u64,
    /// It had to be made again, or something else in the file is damaged.
    pub(super) damaged: bool,
}
