//! The one form of everything the log keeps: a header of fixed size, an area for fields that later versions add, and a
//! payload the log does not look at. The same bytes lie in the WAL and in segments.
//!
//! ```text
//!  0 checksum  u32  CRC32C of all that follows it
//!  4 length    u32  of the whole record
//!  8 version   u8   1
//!  9 kind      u8
//! 10 fields    u16  bytes of the area behind the header: tag u16, length u16, value, over and over; unknown tags are skipped
//! 12 class     u8   the owner's; a chunk knows whether all its entries have the same
//! 13 flags     u8   bit 0: transient
//! 14 reserved  u16  0
//! 16 log       u64
//! 24 index     u64
//! 32 term      u64  0 in a log of this node alone
//! 40 time      u64  when the entry was made, milliseconds since the epoch
//! 48 deadline  u64  the owner's; a chunk knows its earliest. u64::MAX is none
//! 56 cost      u32  the owner's; a chunk knows its sum
//! 60 back      u32  of kind Again: how many bytes before this record the record starts whose payload it has
//! 64 fields, payload
//! ```
//! All numbers are little-endian.

use bytes::Bytes;

use crate::model::narrow::narrow;

/// Bytes of a record's header.
pub const HEADER_LENGTH: usize = 64;
/// The version of records this code writes, and the newest it reads.
pub const VERSION: u8 = 1;
/// The longest record; a length above it is damage.
pub const RECORD_MAX: usize = 1 << 30;

/// A log's number: the queue's id, or [`METADATA`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId(pub u64);

/// The log of definitions.
pub const METADATA: LogId = LogId(1);

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// An entry with its payload.
    Entry = 1,
    /// An entry whose payload is that of an earlier record of the same batch. In the WAL only.
    Again = 2,
    /// Entries of a log that are dead: the payload is pairs of u64, first and last index. In the WAL only.
    Settled = 3,
    /// `index` is the highest one of the log that was handed to anybody. In the WAL only.
    Delivered = 4,
    /// The log is gone with all its entries, and its number is not used again. In the WAL only.
    Dropped = 5,
}

impl RecordKind {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Entry, Self::Again, Self::Settled, Self::Delivered, Self::Dropped]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// An entry of a log as its owner makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub log: LogId,
    pub index: u64,
    /// Milliseconds since the epoch.
    pub time: u64,
    /// `u64::MAX` is none.
    pub deadline: u64,
    pub cost: u32,
    pub class: u8,
    /// Not to survive a restart.
    pub transient: bool,
}

/// A record's header as read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub head: Head,
    pub kind: RecordKind,
    /// Of the whole record, in bytes.
    pub length: usize,
    /// Bytes before the payload: header and fields.
    pub payload_start: usize,
    /// See [`Kind::Again`].
    pub back: u32,
}

/// An entry as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub head: Head,
    pub payload: Bytes,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is cut off")]
    Short,
    #[error("the record's length is impossible")]
    Length,
    #[error("the record's checksum is wrong")]
    Checksum,
    #[error("the record has version {0}, and this broker knows versions up to {VERSION}")]
    Version(u8),
    #[error("the record is of an unknown kind {0}")]
    Kind(u8),
}

/// Writes a record's header into its first bytes, except for the checksum, which [`seal`] adds once the payload is known.
pub(crate) fn put_header(out: &mut Vec<u8>, kind: RecordKind, head: &Head, payload_length: usize, back: u32) {
    let length: u32 = narrow(HEADER_LENGTH + payload_length, "messages and definitions are below 4 GiB");
    let mut header = [0; HEADER_LENGTH];
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8] = VERSION;
    header[9] = kind as u8;
    header[12] = head.class;
    header[13] = u8::from(head.transient);
    header[16..24].copy_from_slice(&head.log.0.to_le_bytes());
    header[24..32].copy_from_slice(&head.index.to_le_bytes());
    header[40..48].copy_from_slice(&head.time.to_le_bytes());
    header[48..56].copy_from_slice(&head.deadline.to_le_bytes());
    header[56..60].copy_from_slice(&head.cost.to_le_bytes());
    header[60..64].copy_from_slice(&back.to_le_bytes());
    out.extend_from_slice(&header);
}

/// Reads and checks a record that starts `bytes`, all of it: lengths, checksum, version, kind. The version counts only when
/// the checksum is right: otherwise it is damage.
pub fn read(bytes: &[u8]) -> Result<Header, RecordError> {
    let start = bytes.first_chunk::<HEADER_LENGTH>().ok_or(RecordError::Short)?;
    let [c0, c1, c2, c3, l0, l1, l2, l3, ..] = *start;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if !(HEADER_LENGTH..=RECORD_MAX).contains(&length) {
        return Err(RecordError::Length);
    }
    let record = bytes.get(..length).ok_or(RecordError::Short)?;
    if crc32c::crc32c(record.get(4..).unwrap_or_default()) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(RecordError::Checksum);
    }
    read_header(record)
}

/// Reads a header without looking at the checksum: what it says may be wrong.
pub fn read_header(bytes: &[u8]) -> Result<Header, RecordError> {
    let header = bytes.first_chunk::<HEADER_LENGTH>().ok_or(RecordError::Short)?;
    let u32_at = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let u64_at = |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let length = u32_at(4) as usize;
    let fields = usize::from(u16::from_le_bytes([header[10], header[11]]));
    if length > RECORD_MAX || length < HEADER_LENGTH + fields {
        return Err(RecordError::Length);
    }
    if header[8] != VERSION {
        return Err(RecordError::Version(header[8]));
    }
    let kind = RecordKind::from_number(header[9]).ok_or(RecordError::Kind(header[9]))?;
    let head = Head {
        log: LogId(u64_at(16)),
        index: u64_at(24),
        time: u64_at(40),
        deadline: u64_at(48),
        cost: u32_at(56),
        class: header[12],
        transient: header[13] & 1 != 0,
    };
    Ok(Header { head, kind, length, payload_start: HEADER_LENGTH + fields, back: u32_at(60) })
}
