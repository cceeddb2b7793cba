//! All durable definitions in one piece of bytes. All numbers are little-endian.
//!
//! ```text
//!  0 magic    8 bytes  "WARRNDEF"
//!  8 checksum u32      CRC32C of all that follows it, to the end
//! 12 version  u32      1
//! 16 length   u64      of all, in bytes
//! 24 through  u64      the log's last entry that is contained
//! 32 count    u64      changes
//! 40 changes           length u32, change, over and over
//! ```
//!
//! Magic, checksum and length stay where they are in all versions, so that a damaged file is never taken for a new one.

use super::{Change, DecodeError};
use crate::model::narrow::narrow;

const MAGIC: [u8; 8] = *b"WARRNDEF";
/// The version of snapshots this code writes, and the newest it reads.
const VERSION: u32 = 1;
const HEADER_LENGTH: usize = 40;
/// What the checksum is made of starts here.
const CHECKED: usize = 12;

/// A snapshot as read back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What makes the definitions from nothing, in order.
    pub changes: Vec<Change>,
    /// The log's last entry that is contained; 0 is none.
    pub through: u64,
}

/// Why bytes are no snapshot.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("it is too short to be a snapshot of definitions: {0} bytes")]
    Short(usize),
    #[error("it does not begin as a snapshot of definitions does")]
    Magic,
    #[error("it is to have {expected} bytes, and has {found}")]
    Length { expected: u64, found: usize },
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its format version {0} is newer than {VERSION}, the newest this broker knows")]
    Version(u32),
    #[error("its changes do not end where it ends")]
    Count,
    #[error("change {number}: {error}")]
    Change { number: u64, error: DecodeError },
}

impl SnapshotError {
    /// Whether the bytes are not those that were written; otherwise another version of the broker wrote them.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Version(_) | Self::Change { .. })
    }
}

/// A snapshot of what these changes make from nothing; they contain the log's entries up to `through`.
#[must_use]
pub fn encode_snapshot(changes: &[Change], through: u64) -> Vec<u8> {
    let mut out = vec![0; HEADER_LENGTH];
    for change in changes {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        change.encode(&mut out);
        let length: u32 = narrow(out.len() - start - 4, "a definition comes in a frame or a body below 4 GiB");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    let length = out.len() as u64;
    out[..8].copy_from_slice(&MAGIC);
    out[12..16].copy_from_slice(&VERSION.to_le_bytes());
    out[16..24].copy_from_slice(&length.to_le_bytes());
    out[24..32].copy_from_slice(&through.to_le_bytes());
    out[32..40].copy_from_slice(&(changes.len() as u64).to_le_bytes());
    let checksum = crc32c::crc32c(&out[CHECKED..]);
    out[8..12].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Reads all of `bytes`. Memory is in proportion to their number.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    let header = Header::check(bytes)?;
    if header.version > VERSION {
        return Err(SnapshotError::Version(header.version));
    }
    let mut changes = Vec::new();
    let mut rest = bytes.get(HEADER_LENGTH..).unwrap_or_default();
    for number in 1..=header.count {
        let (length, behind) = rest.split_first_chunk().ok_or(SnapshotError::Count)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| SnapshotError::Count)?;
        let (change, behind) = behind.split_at_checked(length).ok_or(SnapshotError::Count)?;
        changes.push(Change::decode(change).map_err(|error| SnapshotError::Change { number, error })?);
        rest = behind;
    }
    if !rest.is_empty() {
        return Err(SnapshotError::Count);
    }
    Ok(Snapshot { changes, through: header.through })
}

/// The log's last entry that a snapshot contains, as its header says.
pub(super) fn through_of(bytes: &[u8]) -> Result<u64, SnapshotError> {
    Header::check(bytes).map(|header| header.through)
}

struct Header {
    version: u32,
    through: u64,
    count: u64,
}

impl Header {
    /// Checks all but the version.
    fn check(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let header = bytes.first_chunk::<HEADER_LENGTH>().ok_or(SnapshotError::Short(bytes.len()))?;
        let u32_at = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let u64_at = |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        if header[..8] != MAGIC {
            return Err(SnapshotError::Magic);
        }
        if u64_at(16) != bytes.len() as u64 {
            return Err(SnapshotError::Length { expected: u64_at(16), found: bytes.len() });
        }
        if crc32c::crc32c(&bytes[CHECKED..]) != u32_at(8) {
            return Err(SnapshotError::Checksum);
        }
        Ok(Self { version: u32_at(12), through: u64_at(24), count: u64_at(32) })
    }
}
