//! What lies at fixed places of a WAL file: its own header, and the header of each batch.
//!
//! ```text
//! the file's first block              a batch, at a multiple of 4096
//!  0 magic    8 bytes                  0 magic     u32
//!  8 version  u32                      4 version   u16
//! 12 salt     u32                      6 reserved  u16  0
//! 16 sequence u64                      8 sequence  u64  the file's
//! 24 checksum u32  of bytes 0..24     16 number    u64  counts over all files, from 1
//!                                     24 synced    u64  the highest number known to be on disk when this was written
//!                                     32 length    u64  bytes of the records
//!                                     40 records   u32  how many
//!                                     44 ordinal   u32  batches of this file before this one
//!                                     48 salt      u32  the file's
//!                                     52 back      u32  sequence numbers back to the file written before this one; 0 is
//!                                                       not known
//!                                     56 table     u32  CRC32C of the table
//!                                     60 checksum  u32  of bytes 0..60, then the offset as u64
//!                                     64 table: checksum and length of each record, 8 bytes each
//!                                        records, one after the other; zeros up to a multiple of 4096
//! ```
//! All numbers are little-endian, all checksums CRC32C.
//!
//! The table ties every record to its batch, and the batch to this life of the file: a record left from an earlier life has
//! another checksum. It also says where each record begins when those before it are damaged, so that nothing ever needs to
//! be searched: a message could contain bytes that look like a record. For the same reason the salt, which nobody can know
//! who publishes: a message could contain a batch's header at a multiple of 4096.

use crate::log::batch::TABLE_ENTRY;
use crate::log::entry::HEADER_LENGTH as RECORD_HEADER_LENGTH;

/// Batches start at multiples of it, so that a torn write never touches a block that holds confirmed bytes.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of a batch's header.
pub(super) const BATCH_HEADER: usize = 64;
/// The version of files and batches this code writes, and the newest it reads.
pub(super) const VERSION: u32 = 1;
/// Bytes of the file's header.
pub(super) const FILE_HEADER: usize = 28;

const FILE_MAGIC: &[u8; 8] = b"WarrenWL";
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"WBat");

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) sequence: u64,
    pub(super) salt: u32,
}

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    pub(super) sequence: u64,
    pub(super) number: u64,
    pub(super) synced: u64,
    pub(super) length: u64,
    pub(super) records: u32,
    pub(super) ordinal: u32,
    pub(super) salt: u32,
    pub(super) back: u32,
    pub(super) table: u32,
}

/// What bytes are that should be a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read<T> {
    Valid(T),
    /// Written by a later version.
    Newer(u32),
    /// Nothing that this file's present life has written.
    Foreign,
    /// Was once a header of this file's present life.
    Damaged,
}

impl FileHeader {
    /// The whole first block.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK as usize);
        block.extend_from_slice(FILE_MAGIC);
        block.extend_from_slice(&VERSION.to_le_bytes());
        block.extend_from_slice(&self.salt.to_le_bytes());
        block.extend_from_slice(&self.sequence.to_le_bytes());
        block.extend_from_slice(&crc32c::crc32c(&block).to_le_bytes());
        block.resize(BLOCK as usize, 0);
        block
    }

    pub(super) fn read(bytes: &[u8]) -> Read<Self> {
        let Some(header) = bytes.first_chunk::<FILE_HEADER>() else { return Read::Foreign };
        if !header.starts_with(FILE_MAGIC) || crc32c::crc32c(&header[..24]) != u32_at(header, 24) {
            return Read::Foreign;
        }
        if u32_at(header, 8) > VERSION {
            return Read::Newer(u32_at(header, 8));
        }
        Read::Valid(Self { sequence: u64_at(header, 16), salt: u32_at(header, 12) })
    }
}

impl BatchHeader {
    /// For a batch at an offset of the file.
    pub(super) fn bytes(&self, offset: u64) -> [u8; BATCH_HEADER] {
        let mut bytes = [0; BATCH_HEADER];
        bytes[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        bytes[4..6].copy_from_slice(&(VERSION as u16).to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.length.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.records.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.salt.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.back.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.table.to_le_bytes());
        let checksum = checksum(&bytes, offset);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the header of a batch of the file `sequence`. The salt is none when the file's header does not tell it.
    pub(super) fn read(bytes: &[u8], offset: u64, sequence: u64, salt: Option<u32>) -> Read<Self> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER>() else { return Read::Foreign };
        let header = Self {
            sequence: u64_at(bytes, 8),
            number: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            length: u64_at(bytes, 32),
            records: u32_at(bytes, 40),
            ordinal: u32_at(bytes, 44),
            salt: u32_at(bytes, 48),
            back: u32_at(bytes, 52),
            table: u32_at(bytes, 56),
        };
        // What an earlier life of the file left has this magic too, but another sequence number and another salt.
        let (magic, ours) = (u32_at(bytes, 0) == BATCH_MAGIC, header.sequence == sequence);
        let salted = salt == Some(header.salt);
        if checksum(bytes, offset) != u32_at(bytes, 60) {
            let signs = u8::from(magic) + u8::from(ours) + u8::from(salted);
            return if signs >= 2 { Read::Damaged } else { Read::Foreign };
        }
        if !magic || !ours || !(salted || salt.is_none()) {
            return Read::Foreign;
        }
        let version = u32::from(u16::from_le_bytes([bytes[4], bytes[5]]));
        if version > VERSION {
            return Read::Newer(version);
        }
        if header.is_possible() { Read::Valid(header) } else { Read::Damaged }
    }

    /// Bytes of the table of a batch, for whoever knows that there is one, whichever life of the file it is of.
    pub(super) fn table_of(bytes: &[u8], offset: u64) -> Option<usize> {
        let sequence = u64_at(bytes, 8);
        match Self::read(bytes, offset, sequence, None) {
            Read::Valid(header) => usize::try_from(header.table_length()).ok(),
            Read::Newer(_) | Read::Foreign | Read::Damaged => None,
        }
    }

    /// The sequence number that a batch says its file has.
    pub(super) fn sequence_of(bytes: &[u8], offset: u64) -> Option<u64> {
        let sequence = u64_at(bytes, 8);
        matches!(Self::read(bytes, offset, sequence, None), Read::Valid(_)).then_some(sequence)
    }

    /// Bytes of the table.
    pub(super) fn table_length(&self) -> u64 {
        u64::from(self.records) * TABLE_ENTRY as u64
    }

    /// Bytes with header and table, without the padding.
    pub(super) fn total(&self) -> u64 {
        self.length.saturating_add(self.table_length()).saturating_add(BATCH_HEADER as u64)
    }

    /// The number of the file's first batch.
    pub(super) fn first_of_file(&self) -> u64 {
        self.number.saturating_sub(u64::from(self.ordinal))
    }

    /// Whether its numbers agree with each other.
    fn is_possible(&self) -> bool {
        self.synced < self.number
            && self.number < u64::MAX
            && self.number > u64::from(self.ordinal)
            && u64::from(self.records).saturating_mul(RECORD_HEADER_LENGTH as u64) <= self.length
            && u64::from(self.back) < self.sequence
    }
}

/// A batch at another place than where it was written is none.
fn checksum(header: &[u8; BATCH_HEADER], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..60]), &offset.to_le_bytes())
}

/// The next multiple of a block; saturates.
pub(super) fn round_up(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX - u64::MAX % BLOCK)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
