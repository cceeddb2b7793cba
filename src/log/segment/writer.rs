//! Writing a segment: one stream under a temporary name, one sync, then its name.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::IoSlice;
use std::sync::Arc;

use super::footer::{put_footer, put_header};
use super::{
    CHUNK_BYTES, CHUNK_ENTRIES, CHUNK_HEAD, CHUNK_MAGIC, Checkpoint, ChunkPlace, ChunkSummary, DIRECTORY, Footer,
    Identity, LogFooter, Part, TABLE_ENTRY, path, temporary_path, wal_path,
};
use crate::log::entry::{HEADER_LENGTH, Head, LogId, RecordKind, put_header as put_record_header};
use crate::log::storage::{File, Storage};
use crate::log::{CommitError, LogError, io_failed};
use crate::model::narrow::narrow;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;
/// So many entries of one class are not worth mixing with others.
const CLASS_ENTRIES: usize = 16;

/// What the length of a chunk is bounded by.
const CHUNK: &str = "a chunk has up to 256 KiB, or one record";

/// What a log has to have in a footer besides its chunks.
#[derive(Debug)]
pub(in crate::log) enum Written {
    Checkpoint(LogId, Checkpoint),
    /// The log is gone; older segments have something of it.
    Dropped(LogId),
    /// The log is gone.
    Gone(LogId),
}

/// A segment on its way. Removes what it wrote unless it is finished.
#[derive(Debug)]
pub(in crate::log) struct SegmentWriter<'a> {
    disk: &'a dyn Storage,
    file: Arc<dyn File>,
    identity: Identity,
    buffer: Vec<u8>,
    /// Bytes of the file before those in the buffer.
    offset: u64,
    chunk: OpenChunk,
    logs: Vec<LogFooter>,
    is_finished: bool,
}

/// The chunk that entries are added to.
#[derive(Debug, Default)]
struct OpenChunk {
    log: u64,
    first: u64,
    last: u64,
    table: Vec<u8>,
    records: Vec<u8>,
    cost: u64,
    deadline: u64,
    class: u8,
    mixed: bool,
    transient: bool,
}

impl OpenChunk {
    fn count(&self) -> usize {
        self.table.len() / TABLE_ENTRY
    }

    fn takes(&self, head: &Head, length: usize) -> bool {
        let settled_class = !self.mixed && self.class != head.class && self.count() >= CLASS_ENTRIES;
        self.log == head.log.0
            && self.count() < CHUNK_ENTRIES
            && self.records.len() + length <= CHUNK_BYTES
            && !settled_class
    }

    fn add(&mut self, head: &Head) {
        if self.table.is_empty() {
            (self.log, self.first, self.class) = (head.log.0, head.index, head.class);
            (self.cost, self.deadline, self.mixed, self.transient) = (0, u64::MAX, false, false);
        }
        self.last = head.index;
        self.cost += u64::from(head.cost);
        self.deadline = self.deadline.min(head.deadline);
        self.mixed |= self.class != head.class;
        self.transient |= head.transient;
    }

    /// Head and table.
    fn front(&self, salt: u32) -> Vec<u8> {
        let mut front = Vec::with_capacity(CHUNK_HEAD + self.table.len());
        let length = CHUNK_HEAD + self.table.len() + self.records.len();
        front.extend_from_slice(&CHUNK_MAGIC.to_le_bytes());
        front.extend_from_slice(&salt.to_le_bytes());
        front.extend_from_slice(&self.log.to_le_bytes());
        front.extend_from_slice(&self.first.to_le_bytes());
        front.extend_from_slice(&self.last.to_le_bytes());
        front.extend_from_slice(&(self.count() as u32).to_le_bytes());
        front.extend_from_slice(&narrow::<_, u32>(length, CHUNK).to_le_bytes());
        front.extend_from_slice(&crc32c::crc32c(&self.table).to_le_bytes());
        let checksum = crc32c::crc32c(&front);
        front.extend_from_slice(&checksum.to_le_bytes());
        front.extend_from_slice(&self.table);
        front
    }

    fn summary(&self, offset: u64, length: usize) -> ChunkSummary {
        let place = ChunkPlace {
            first: self.first,
            last: self.last,
            offset,
            length: narrow(length, CHUNK),
            count: self.count() as u16,
            part: Part::Own,
        };
        let Self { cost, deadline, class, mixed, transient, .. } = *self;
        ChunkSummary { place, cost, deadline, class, mixed, transient }
    }
}

/// When a segment's entries will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) enum Reading {
    Soon,
    /// There is much before them.
    Later,
}

impl<'a> SegmentWriter<'a> {
    /// Begins a segment. The identity's salt is set here.
    pub(in crate::log) fn new(
        disk: &'a dyn Storage,
        mut identity: Identity,
        reading: Reading,
    ) -> Result<Self, CommitError> {
        // Chance decides nothing: the salt is only ever compared.
        identity.salt = RandomState::new().build_hasher().finish() as u32;
        let path = temporary_path(identity.number);
        let created = match reading {
            Reading::Soon => disk.create(&path),
            Reading::Later => disk.create_sequential(&path),
        };
        let file = created.map_err(|error| io_failed(&path, "create", error))?;
        let mut buffer = Vec::new();
        put_header(&mut buffer, &identity);
        let (chunk, logs) = (OpenChunk::default(), Vec::new());
        Ok(Self { disk, file, identity, buffer, offset: 0, chunk, logs, is_finished: false })
    }

    /// Adds an entry, behind all that were added by (log, index). `record` are all its bytes, of kind Entry.
    pub(in crate::log) fn push(&mut self, head: &Head, record: &[u8]) -> Result<(), CommitError> {
        if !self.chunk.takes(head, record.len()) {
            self.end_chunk()?;
        }
        self.chunk.add(head);
        self.chunk.table.extend_from_slice(record.get(..TABLE_ENTRY).unwrap_or(&[0; TABLE_ENTRY]));
        self.chunk.records.extend_from_slice(record);
        Ok(())
    }

    /// What comes next is another chunk.
    pub(in crate::log) fn end_chunk(&mut self) -> Result<(), CommitError> {
        if self.chunk.table.is_empty() {
            return Ok(());
        }
        let front = self.chunk.front(self.identity.salt);
        let offset = self.offset + self.buffer.len() as u64;
        let summary = self.chunk.summary(offset, front.len() + self.chunk.records.len());
        let log = LogId(self.chunk.log);
        match self.logs.last_mut().filter(|last| last.log == log) {
            Some(last) => last.chunks.push(summary),
            None => self.logs.push(LogFooter { chunks: vec![summary], ..LogFooter::new(log) }),
        }
        self.buffer.extend_from_slice(&front);
        if self.chunk.records.len() > BUFFER {
            self.write()?;
            let records = std::mem::take(&mut self.chunk.records);
            self.write_pieces(&records)?;
        } else {
            self.buffer.extend_from_slice(&self.chunk.records);
            self.chunk.records.clear();
        }
        self.chunk.table.clear();
        if self.buffer.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    /// Adds a chunk that stays in the WAL file, behind all that were added by (log, index).
    pub(in crate::log) fn refer(&mut self, log: LogId, chunk: ChunkSummary) -> Result<(), CommitError> {
        self.end_chunk()?;
        assert!(self.identity.keeps_wal && chunk.place.part == Part::Wal, "the segment keeps a WAL file");
        match self.logs.last_mut().filter(|last| last.log == log) {
            Some(last) => last.chunks.push(chunk),
            None => self.logs.push(LogFooter { chunks: vec![chunk], ..LogFooter::new(log) }),
        }
        Ok(())
    }

    /// Ends the segment, makes it durable and gives it its name. `before_publishing` is called when everything is written
    /// and nothing is to be seen yet. `kept` is the path of the WAL file that becomes part of it, and its length.
    pub(in crate::log) fn finish(
        mut self,
        logs: Vec<Written>,
        kept: Option<(&str, u64)>,
        before_publishing: &mut dyn FnMut() -> Result<(), CommitError>,
    ) -> Result<Footer, CommitError> {
        self.end_chunk()?;
        self.add_logs(logs);
        let at = self.offset + self.buffer.len() as u64;
        put_footer(&mut self.buffer, &self.identity, &self.logs, at);
        self.write()?;
        before_publishing()?;
        let (temporary, path) = (temporary_path(self.identity.number), path(self.identity.number));
        self.file.sync().map_err(|error| io_failed(&temporary, "sync", error))?;
        if let Some((from, _)) = kept {
            self.take_wal(from)?;
        }
        if let Err(error) = self.disk.rename(&temporary, &path) {
            if let Some((from, _)) = kept {
                self.give_back_wal(from)?;
            }
            return Err(io_failed(&path, "rename", error));
        }
        self.is_finished = true;
        // The file may have its name or not: nothing can be undone any more.
        let synced = self.disk.sync_directory(DIRECTORY);
        synced.map_err(|error| LogError::Io { path: DIRECTORY.to_owned(), action: "sync", error })?;
        let (identity, logs) = (std::mem::take(&mut self.identity), std::mem::take(&mut self.logs));
        let wal_length = kept.map_or(0, |(_, length)| length);
        Ok(Footer { identity, logs, file_length: self.offset, wal_length, damaged: false })
    }

    /// Puts the WAL file beside the segment, durably. As long as the segment has no name this changes nothing: recovery
    /// puts the file back.
    fn take_wal(&self, from: &str) -> Result<(), CommitError> {
        let to = wal_path(self.identity.number);
        self.disk.rename(from, &to).map_err(|error| io_failed(from, "rename", error))?;
        Ok(self.sync_both(from)?)
    }

    fn give_back_wal(&self, to: &str) -> Result<(), LogError> {
        let from = wal_path(self.identity.number);
        self.disk.rename(&from, to).map_err(|error| LogError::Io { path: from, action: "rename", error })?;
        self.sync_both(to)
    }

    fn sync_both(&self, path: &str) -> Result<(), LogError> {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let synced = self.disk.sync_directory(DIRECTORY).and_then(|()| self.disk.sync_directory(directory));
        synced.map_err(|error| LogError::Io { path: path.to_owned(), action: "sync", error })
    }

    fn add_logs(&mut self, logs: Vec<Written>) {
        let mut footers: BTreeMap<LogId, LogFooter> =
            std::mem::take(&mut self.logs).into_iter().map(|footer| (footer.log, footer)).collect();
        for written in logs {
            match written {
                Written::Checkpoint(log, checkpoint) => {
                    footers.entry(log).or_insert_with(|| LogFooter::new(log)).checkpoint = Some(checkpoint);
                }
                Written::Dropped(log) => {
                    footers.insert(log, LogFooter { dropped: true, ..LogFooter::new(log) });
                }
                Written::Gone(log) => {
                    footers.remove(&log);
                }
            }
        }
        self.logs = footers.into_values().collect();
    }

    /// Writes what is in the buffer.
    fn write(&mut self) -> Result<(), CommitError> {
        let bytes = std::mem::take(&mut self.buffer);
        self.write_pieces(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn write_pieces(&mut self, bytes: &[u8]) -> Result<(), CommitError> {
        for piece in bytes.chunks(BUFFER) {
            let written = self.file.write_at(&[IoSlice::new(piece)], self.offset);
            written.map_err(|error| io_failed(&temporary_path(self.identity.number), "write", error))?;
            self.offset += piece.len() as u64;
        }
        Ok(())
    }
}

impl Drop for SegmentWriter<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // What stays behind is removed when the log is opened.
            let _ = self.disk.remove(&temporary_path(self.identity.number));
        }
    }
}

/// Writes a record of kind Entry, sealed.
pub(in crate::log) fn put_entry(out: &mut Vec<u8>, head: &Head, payload: &[u8]) {
    let start = out.len();
    out.reserve(HEADER_LENGTH + payload.len());
    put_record_header(out, RecordKind::Entry, head, payload.len(), 0);
    out.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}
