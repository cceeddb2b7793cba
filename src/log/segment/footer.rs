//! Bytes of the header, the footer and the trailer.
//!
//! ```text
//! header                          trailer, the file's last 40 bytes
//!  0 magic    8 bytes              0 magic    8 bytes
//!  8 version  u32                  8 version  u32
//! 12 length   u32                 12 footer checksum u32
//! 16 checksum u32 of 0..16, 20..  16 footer offset   u64
//! 20 identity                     24 footer length   u64
//!                                 32 reserved u32
//!                                 36 checksum u32 of 0..36
//! identity: number u64, WAL u64, flushed u64, salt u32, count u32, that many u64
//! footer:   identity, logs u32, then per log: log u64, flags u8, checkpoint, chunks u32, per chunk 48 bytes
//! checkpoint: next u64, delivered u64, through u64, length u32, live set in Roaring's 64-bit format
//! ```

use roaring::RoaringTreemap;

use super::{
    CHUNK_ENTRIES, CHUNK_HEAD, Checkpoint, ChunkPlace, ChunkSummary, Footer, HEADER_MAGIC, Identity, LogFooter,
    PLAIN_VERSION, Part, TRAILER, TRAILER_MAGIC, VERSION,
};
use crate::log::entry::{HEADER_LENGTH, LogId};
use crate::model::narrow::narrow;

const CHECKPOINT: u8 = 1;
const DROPPED: u8 = 2;
const MIXED: u8 = 1;
const TRANSIENT: u8 = 2;
const IN_WAL: u8 = 4;

/// Bytes of a chunk's summary.
const SUMMARY: usize = 48;
/// Bytes of a header before the identity.
const HEADER_START: usize = 20;

/// What bytes are that should be a header or a trailer.
pub(super) enum Read<T> {
    Valid(T),
    /// Written by a later version.
    Newer(u32),
    Damaged,
}

/// Where a footer is.
pub(super) struct Trailer {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) checksum: u32,
    version: u32,
}

/// What a footer's counts and lengths are bounded by.
const FEW: &str = "a segment has fewer than 2^32 logs, chunks and predecessors";

pub(super) fn put_header(out: &mut Vec<u8>, identity: &Identity) {
    let start = out.len();
    out.extend_from_slice(HEADER_MAGIC);
    out.extend_from_slice(&version(identity).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    put_identity(out, identity);
    let length: u32 = narrow(out.len() - start, "a header has a few numbers");
    out[start + 12..start + 16].copy_from_slice(&length.to_le_bytes());
    let checksum = header_checksum(&out[start..]);
    out[start + 16..start + 20].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads a header at the start of the bytes; its length comes with it.
pub(super) fn read_header(bytes: &[u8]) -> Read<(Identity, usize)> {
    let (Some(version), Some(length), Some(stored)) = (u32_at(bytes, 8), u32_at(bytes, 12), u32_at(bytes, 16)) else {
        return Read::Damaged;
    };
    let Some(header) = bytes.get(..length as usize).filter(|header| header.len() >= HEADER_START) else {
        return Read::Damaged;
    };
    if !header.starts_with(HEADER_MAGIC) || header_checksum(header) != stored {
        return Read::Damaged;
    }
    if version > VERSION {
        return Read::Newer(version);
    }
    let mut cursor = Cursor { bytes: &header[HEADER_START..] };
    read_identity(&mut cursor, version).map_or(Read::Damaged, |identity| Read::Valid((identity, header.len())))
}

/// How long the header is, by its own word.
pub(super) fn header_length(bytes: &[u8]) -> Option<usize> {
    bytes.starts_with(HEADER_MAGIC).then(|| u32_at(bytes, 12)).flatten().map(|length| length as usize)
}

/// Writes footer and trailer; the footer begins `offset` bytes into the file.
pub(super) fn put_footer(out: &mut Vec<u8>, identity: &Identity, logs: &[LogFooter], offset: u64) {
    let start = out.len();
    put_identity(out, identity);
    out.extend_from_slice(&narrow::<_, u32>(logs.len(), FEW).to_le_bytes());
    for log in logs {
        put_log(out, log);
    }
    let length = (out.len() - start) as u64;
    let checksum = crc32c::crc32c(&out[start..]);
    let start = out.len();
    out.extend_from_slice(TRAILER_MAGIC);
    out.extend_from_slice(&version(identity).to_le_bytes());
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes());
    let checksum = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Reads the trailer of a file of `file_length` bytes.
pub(super) fn read_trailer(bytes: &[u8], file_length: u64) -> Read<Trailer> {
    let Some(trailer) = bytes.first_chunk::<TRAILER>() else { return Read::Damaged };
    let checksum = u32_at(trailer, 36).unwrap_or_default();
    if !trailer.starts_with(TRAILER_MAGIC) || crc32c::crc32c(&trailer[..36]) != checksum {
        return Read::Damaged;
    }
    let version = u32_at(trailer, 8).unwrap_or_default();
    if version > VERSION {
        return Read::Newer(version);
    }
    let mut cursor = Cursor { bytes: &trailer[12..] };
    let (Some(checksum), Some(offset), Some(length)) = (cursor.u32(), cursor.u64(), cursor.u64()) else {
        return Read::Damaged;
    };
    if offset.checked_add(length).and_then(|end| end.checked_add(TRAILER as u64)) != Some(file_length) {
        return Read::Damaged;
    }
    Read::Valid(Trailer { offset, length, checksum, version })
}

/// Reads a footer that begins at `offset` of the file. None when its checksum or something in it is wrong.
pub(super) fn read_footer(bytes: &[u8], trailer: &Trailer) -> Option<Footer> {
    if bytes.len() as u64 != trailer.length || crc32c::crc32c(bytes) != trailer.checksum {
        return None;
    }
    let mut cursor = Cursor { bytes };
    let identity = read_identity(&mut cursor, trailer.version)?;
    let count = cursor.u32()? as usize;
    let mut logs: Vec<LogFooter> = Vec::with_capacity(count.min(bytes.len() / 13));
    for _ in 0..count {
        let log = read_log(&mut cursor, trailer.offset)?;
        if logs.last().is_some_and(|before| before.log >= log.log) {
            return None;
        }
        logs.push(log);
    }
    let file_length = trailer.offset + trailer.length + TRAILER as u64;
    cursor.bytes.is_empty().then_some(Footer { identity, logs, file_length, wal_length: 0, damaged: false })
}

fn put_identity(out: &mut Vec<u8>, identity: &Identity) {
    out.extend_from_slice(&identity.number.to_le_bytes());
    out.extend_from_slice(&identity.wal.to_le_bytes());
    out.extend_from_slice(&identity.flushed.to_le_bytes());
    out.extend_from_slice(&identity.salt.to_le_bytes());
    out.extend_from_slice(&narrow::<_, u32>(identity.replaces.len(), FEW).to_le_bytes());
    for number in &identity.replaces {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn version(identity: &Identity) -> u32 {
    if identity.keeps_wal { VERSION } else { PLAIN_VERSION }
}

fn read_identity(cursor: &mut Cursor<'_>, version: u32) -> Option<Identity> {
    let (number, wal, flushed) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let (salt, count) = (cursor.u32()?, cursor.u32()? as usize);
    let mut replaces = Vec::with_capacity(count.min(cursor.bytes.len() / 8));
    for _ in 0..count {
        replaces.push(cursor.u64()?);
    }
    Some(Identity { number, wal, flushed, replaces, salt, keeps_wal: version > PLAIN_VERSION })
}

fn put_log(out: &mut Vec<u8>, log: &LogFooter) {
    out.extend_from_slice(&log.log.0.to_le_bytes());
    out.push(u8::from(log.checkpoint.is_some()) * CHECKPOINT + u8::from(log.dropped) * DROPPED);
    if let Some(checkpoint) = &log.checkpoint {
        out.extend_from_slice(&checkpoint.next_index.to_le_bytes());
        out.extend_from_slice(&checkpoint.delivered.to_le_bytes());
        out.extend_from_slice(&checkpoint.through.to_le_bytes());
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        if !checkpoint.live.is_empty() {
            // Writing to memory does not fail.
            let _ = checkpoint.live.serialize_into(&mut *out);
        }
        let length: u32 = narrow(out.len() - at - 4, "the set of a log's live entries is far below 4 GiB");
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    out.extend_from_slice(&narrow::<_, u32>(log.chunks.len(), FEW).to_le_bytes());
    for chunk in &log.chunks {
        put_chunk(out, chunk);
    }
}

fn read_log(cursor: &mut Cursor<'_>, data_end: u64) -> Option<LogFooter> {
    let mut log = LogFooter::new(LogId(cursor.u64()?));
    let flags = cursor.u8()?;
    log.dropped = flags & DROPPED != 0;
    if flags & CHECKPOINT != 0 {
        let (next_index, delivered, through) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
        let length = cursor.u32()? as usize;
        let live = match cursor.take(length)? {
            [] => RoaringTreemap::new(),
            bytes => RoaringTreemap::deserialize_from(bytes).ok()?,
        };
        log.checkpoint = Some(Checkpoint { next_index, delivered, through, live });
    }
    let count = cursor.u32()? as usize;
    log.chunks.reserve(count.min(cursor.bytes.len() / SUMMARY));
    for _ in 0..count {
        let chunk = read_chunk(cursor, data_end)?;
        if log.chunks.last().is_some_and(|before| before.place.last >= chunk.place.first) {
            return None;
        }
        log.chunks.push(chunk);
    }
    Some(log)
}

fn put_chunk(out: &mut Vec<u8>, chunk: &ChunkSummary) {
    out.extend_from_slice(&chunk.place.first.to_le_bytes());
    out.extend_from_slice(&chunk.place.last.to_le_bytes());
    out.extend_from_slice(&chunk.place.offset.to_le_bytes());
    out.extend_from_slice(&chunk.place.length.to_le_bytes());
    out.extend_from_slice(&chunk.place.count.to_le_bytes());
    out.push(chunk.class);
    let in_wal = chunk.place.part == Part::Wal;
    out.push(u8::from(chunk.mixed) * MIXED + u8::from(chunk.transient) * TRANSIENT + u8::from(in_wal) * IN_WAL);
    out.extend_from_slice(&chunk.cost.to_le_bytes());
    out.extend_from_slice(&chunk.deadline.to_le_bytes());
}

fn read_chunk(cursor: &mut Cursor<'_>, data_end: u64) -> Option<ChunkSummary> {
    let (first, last, offset) = (cursor.u64()?, cursor.u64()?, cursor.u64()?);
    let (length, count, class, flags) = (cursor.u32()?, cursor.u16()?, cursor.u8()?, cursor.u8()?);
    let (cost, deadline) = (cursor.u64()?, cursor.u64()?);
    let (mixed, transient) = (flags & MIXED != 0, flags & TRANSIENT != 0);
    let (part, least) = if flags & IN_WAL == 0 { (Part::Own, CHUNK_HEAD) } else { (Part::Wal, HEADER_LENGTH - 1) };
    let possible = first <= last
        && (1..=CHUNK_ENTRIES).contains(&usize::from(count))
        && last - first >= u64::from(count) - 1
        && length as usize > least
        && offset.checked_add(u64::from(length)).is_some_and(|end| end <= data_end || part == Part::Wal);
    let place = ChunkPlace { first, last, offset, length, count, part };
    possible.then_some(ChunkSummary { place, cost, deadline, class, mixed, transient })
}

/// Everything but the checksum itself.
fn header_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..16]), &header[HEADER_START..])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

/// Numbers from the front of bytes; none when there are too few.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.bytes.split_at_checked(length)?;
        self.bytes = rest;
        Some(front)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
