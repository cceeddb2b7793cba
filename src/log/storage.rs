//! The disk seam: all that the log asks of a disk. Paths are relative to the data directory, with `/` between parts.
//! A test puts a disk here that loses, tears and damages what was not synced.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Files that this process, and that the whole system, may have open: `EMFILE` and `ENFILE`, the same on all Unixes.
const TOO_MANY_FILES: [i32; 2] = [24, 23];

/// Whether an operation failed for want of something that comes back: space on the disk, descriptors, memory. Whoever
/// gets such an error waits and tries again.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory) || wants_descriptors(error)
}

/// Whether an operation failed because too many files are open.
#[must_use]
pub fn wants_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
}

/// A data directory.
pub trait Storage: fmt::Debug + Send + Sync {
    /// The names of the files in a directory, ascending; none when there is no such directory.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;
    /// Makes a file of length 0, in place of one that is there; directories above it are made.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// The same for a large file that is written from start to end, synced once, and not read for a while: the system
    /// need not keep it in memory. It can be read once it is opened.
    fn create_sequential(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.create(path)
    }
    /// Opens a file that exists, for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of one that has it; directories above it are made. Atomic, and durable once
    /// both directories are synced.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;
}

/// An open file. A removed file can be read until its last handle is dropped.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads up to the buffer's length; fewer bytes at the end of the file only.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all pieces, one after the other, growing the file when needed.
    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Returns when everything written is on the disk (`fdatasync`). After an error nothing is known about what was
    /// written, and trying again would tell a lie: whoever calls stops.
    fn sync(&self) -> io::Result<()>;
    /// Bytes.
    fn length(&self) -> io::Result<u64>;
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Takes the space of a file of that length, and makes it so long; what was not written there reads as zeros. False when
    /// the disk cannot do that without writing.
    fn allocate(&self, _length: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Nobody reads the file for a while: the system need not keep in memory what it has on the disk.
    fn release_cache(&self) {}
}
