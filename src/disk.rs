//! The real data directory: files of this machine behind the log's disk seam.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags};

use crate::log::storage;

/// Pieces that the system takes with one write.
const PIECES_MAX: usize = 1024;
const LOCK: &str = "lock";
/// Space that is kept for a start on a full disk.
const RESERVE: &str = "reserve";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot {action} {path}: {error}")]
    Io { path: PathBuf, action: &'static str, error: io::Error },
    #[error("another broker{owner} uses the data directory {path}")]
    InUse { path: PathBuf, owner: String },
}

/// A data directory that no other broker uses as long as this is there, nor as long as a file opened through it.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    lock: Arc<File>,
    /// Directories that were synced, kept open: a sync is not to fail because too many files are open.
    directories: Mutex<BTreeMap<String, Arc<File>>>,
}

impl Disk {
    /// Makes the directory when there is none, readable by its owner alone, and takes it for this process.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let failed = |action| move |error| DiskError::Io { path: path.to_owned(), action, error };
        make_directory(path).map_err(failed("make the data directory"))?;
        let lock_path = path.join(LOCK);
        let failed_lock = |error| DiskError::Io { path: lock_path.clone(), action: "lock", error };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut lock = options.open(&lock_path).map_err(failed_lock)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed_lock(error)),
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only to help: the owner may not have written it yet.
                let _ = lock.take(20).read_to_string(&mut owner);
                let owner = Some(owner.trim()).filter(|owner| !owner.is_empty());
                let owner = owner.map_or_else(String::new, |owner| format!(" (process {owner})"));
                return Err(DiskError::InUse { path: path.to_owned(), owner });
            }
        }
        // The process number helps an operator, and nothing depends on it: a full disk is not a reason to stop here.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), lock: Arc::new(lock), directories: Mutex::default() })
    }

    /// Keeps so many bytes of the disk for a start that finds it full: what is in the write-ahead log has to be written
    /// elsewhere before the log can go on. Does nothing when they are kept already.
    ///
    /// # Errors
    /// When there is not so much space, or the file system cannot set space apart.
    pub fn keep_reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.path.join(RESERVE);
        let kept = fs::metadata(&path).map_or(0, |found| found.len());
        if kept >= bytes {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(FILE_MODE).open(&path)?;
        let enlarged = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
        enlarged.map_err(|error| {
            // What there was before stays; a part of more is of no use.
            let _ = if kept == 0 { fs::remove_file(&path) } else { file.set_len(kept) };
            error.into()
        })
    }

    /// Gives the reserve back to the disk. Whether there was one.
    pub fn release_reserve(&self) -> bool {
        fs::remove_file(self.path.join(RESERVE)).is_ok()
    }

    fn handle(&self, file: File) -> Arc<dyn storage::File> {
        Arc::new(DiskFile { file, _lock: Arc::clone(&self.lock) })
    }
}

impl storage::Storage for Disk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path.join(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is no text is no name that was given here.
                names.extend(entry.file_name().into_string().ok());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn storage::File>> {
        let path = self.path.join(path);
        path.parent().map_or(Ok(()), make_directory)?;
        // Another file of that name may still be open somewhere: it is replaced, not emptied.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(self.handle(file))
    }

    fn create_sequential(&self, path: &str) -> io::Result<Arc<dyn storage::File>> {
        // Made by the usual way, so that what it does to a file of that name is done once.
        let buffered = self.create(path)?;
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
        match OpenOptions::new().write(true).custom_flags(direct).open(self.path.join(path)) {
            Ok(file) => Ok(Arc::new(DirectFile { file, buffered, staging: Mutex::new(Staging::new()) })),
            // Not every file system can.
            Err(_) => Ok(buffered),
        }
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn storage::File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(path))?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let to = self.path.join(to);
        to.parent().map_or(Ok(()), make_directory)?;
        fs::rename(self.path.join(from), to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(path))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut directories = self.directories.lock();
        let open = match directories.get(directory) {
            Some(open) => Arc::clone(open),
            None => {
                let open = Arc::new(File::open(self.path.join(directory))?);
                directories.insert(directory.to_owned(), Arc::clone(&open));
                open
            }
        };
        drop(directories);
        open.sync_all()
    }
}

/// A file; keeps the directory locked.
#[derive(Debug)]
struct DiskFile {
    file: File,
    _lock: Arc<File>,
}

impl storage::File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut pieces = pieces.to_vec();
        let mut left = &mut pieces[..];
        // Skips empty pieces at the front.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let count = left.len().min(PIECES_MAX);
            match rustix::io::pwritev(&self.file, &left[..count], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn allocate(&self, length: u64) -> io::Result<bool> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
                Ok(()) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn release_cache(&self) {
        // Only advice: nothing depends on it.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

/// A file that is written past the system's cache: memory for bytes that nobody reads soon is better used otherwise, and
/// on many machines fresh memory is slower than the disk.
#[derive(Debug)]
struct DirectFile {
    file: File,
    /// The same file for everything else.
    buffered: Arc<dyn storage::File>,
    staging: Mutex<Staging>,
}

/// What is not written yet. Such writes begin and end on blocks, in memory as well as in the file.
#[derive(Debug)]
struct Staging {
    memory: Vec<u8>,
    /// Where in `memory` the first block is.
    start: usize,
    filled: usize,
    /// Where in the file it goes.
    offset: u64,
}

const BLOCK: usize = 4096;
const STAGED: usize = 1 << 20;

impl Staging {
    fn new() -> Self {
        let memory = vec![0; STAGED + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        Self { memory, start, filled: 0, offset: 0 }
    }

    fn take(&mut self, mut bytes: &[u8], file: &File) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(STAGED - self.filled));
            let at = self.start + self.filled;
            self.memory[at..at + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == STAGED {
                file.write_all_at(&self.memory[self.start..self.start + STAGED], self.offset)?;
                self.offset += STAGED as u64;
                self.filled = 0;
            }
        }
        Ok(())
    }

    /// Writes what is left, and cuts off what fills up the last block.
    fn finish(&mut self, file: &File) -> io::Result<()> {
        let end = self.filled.next_multiple_of(BLOCK);
        self.memory[self.start + self.filled..self.start + end].fill(0);
        file.write_all_at(&self.memory[self.start..self.start + end], self.offset)?;
        file.set_len(self.offset + self.filled as u64)
    }
}

impl storage::File for DirectFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.buffered.read_at(buffer, offset)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut staging = self.staging.lock();
        if offset != staging.offset + staging.filled as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a sequential file is written from start to end"));
        }
        pieces.iter().try_for_each(|piece| staging.take(piece, &self.file))
    }

    fn sync(&self) -> io::Result<()> {
        self.staging.lock().finish(&self.file)?;
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        let staging = self.staging.lock();
        Ok(staging.offset + staging.filled as u64)
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Makes a directory and those above it, durably, when there is none.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.as_os_str().is_empty()).collect();
    missing.retain(|path| !path.exists());
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        // Above the data directory there may be one that is not ours to read.
        if let Err(error) = File::open(parent).and_then(|parent| parent.sync_all())
            && error.kind() != io::ErrorKind::PermissionDenied
        {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::log::storage::Storage;

    /// A directory of a test's own, which goes with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("warren-disk-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn contents(file: &dyn storage::File) -> Vec<u8> {
        let mut bytes = vec![0; file.length().unwrap() as usize + 10];
        let read = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(read);
        bytes
    }

    #[test]
    fn only_the_owner_can_read_what_is_made() {
        let directory = Directory::new();
        let nested = directory.0.join("a/b");
        let disk = Disk::open(&nested).unwrap();
        disk.create("wal/1").unwrap();
        assert_eq!([mode(&directory.0), mode(&nested), mode(&nested.join("wal"))], [0o700; 3]);
        assert_eq!([mode(&nested.join("wal/1")), mode(&nested.join("lock"))], [0o600; 2]);
    }

    #[test]
    fn a_directory_has_one_user() {
        let directory = Directory::new();
        let disk = Disk::open(&directory.0).unwrap();
        let error = Disk::open(&directory.0).unwrap_err();
        let expected = format!(
            "another broker (process {}) uses the data directory {}",
            std::process::id(),
            directory.0.display()
        );
        assert_eq!(error.to_string(), expected);
        // As long as something can still write there.
        let file = disk.create("file").unwrap();
        drop(disk);
        assert!(matches!(Disk::open(&directory.0), Err(DiskError::InUse { .. })));
        drop(file);
        Disk::open(&directory.0).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_a_directory_is_named() {
        let directory = Directory::new();
        Disk::open(&directory.0).unwrap();
        let file = directory.0.join("file");
        fs::write(&file, b"").unwrap();
        let error = Disk::open(&file).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot make the data directory {}: ", file.display())), "{error}");
    }

    #[test]
    fn more_pieces_than_the_system_takes_at_once_are_written() {
        let directory = Directory::new();
        let disk = Disk::open(&directory.0).unwrap();
        let file = disk.create("file").unwrap();
        let numbers: Vec<[u8; 4]> = (0..5_000_u32).map(u32::to_be_bytes).collect();
        let mut pieces: Vec<IoSlice<'_>> = numbers.iter().map(|number| IoSlice::new(number)).collect();
        pieces.insert(0, IoSlice::new(&[]));
        pieces.insert(2_000, IoSlice::new(&[]));
        file.write_at(&pieces, 3).unwrap();
        file.write_at(&[IoSlice::new(&[]), IoSlice::new(&[])], 3).unwrap();
        file.write_at(&[], 3).unwrap();
        file.sync().unwrap();
        assert_eq!(contents(&*file), [&[0; 3][..], &numbers.concat()].concat());
        file.set_length(5).unwrap();
        assert_eq!(contents(&*file), [0, 0, 0, 0, 0]);
        assert_eq!(file.read_at(&mut [0], 5).unwrap(), 0);
    }

    #[test]
    fn names_are_listed_changed_and_removed() {
        let directory = Directory::new();
        let disk = Disk::open(&directory.0).unwrap();
        assert!(disk.list("wal").unwrap().is_empty());
        let first = disk.create("wal/b").unwrap();
        first.write_at(&[IoSlice::new(b"first")], 0).unwrap();
        disk.create("wal/a").unwrap();
        disk.create("wal/below/c").unwrap();
        assert_eq!(disk.list("wal").unwrap(), ["a", "b"]);
        disk.rename("wal/b", "damaged/b").unwrap();
        disk.sync_directory("wal").unwrap();
        disk.sync_directory("damaged").unwrap();
        assert_eq!(disk.list("damaged").unwrap(), ["b"]);
        assert_eq!(contents(&*disk.open("damaged/b").unwrap()), b"first");
        // What has the name is replaced, and who had it open keeps it.
        disk.create("damaged/b").unwrap();
        assert_eq!(contents(&*first), b"first");
        assert_eq!(contents(&*disk.open("damaged/b").unwrap()), b"");
        disk.remove("wal/a").unwrap();
        assert!(disk.list("wal").unwrap().is_empty());
        assert_eq!(disk.remove("wal/a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.open("wal/a").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_reserve_takes_space_until_it_is_released() {
        use std::os::unix::fs::MetadataExt;
        let directory = Directory::new();
        let disk = Disk::open(&directory.0).unwrap();
        assert!(!disk.release_reserve());
        disk.keep_reserve(1 << 20).unwrap();
        disk.keep_reserve(1 << 19).unwrap();
        let found = fs::metadata(directory.0.join("reserve")).unwrap();
        assert!(found.len() == 1 << 20 && found.blocks() * 512 >= 1 << 20);
        // One of another configuration is made larger.
        disk.keep_reserve(1 << 21).unwrap();
        assert_eq!(fs::metadata(directory.0.join("reserve")).unwrap().len(), 1 << 21);
        assert!(disk.release_reserve() && !directory.0.join("reserve").exists());
        assert!(disk.keep_reserve(1 << 60).is_err() && !directory.0.join("reserve").exists());
    }

    #[test]
    fn sequential_files_have_every_byte_that_was_written() {
        let directory = std::env::temp_dir().join(format!("warren-sequential-{}", std::process::id()));
        let disk = Disk::open(&directory).unwrap();
        for lengths in [&[0][..], &[1], &[4096], &[4095, 2, 5000], &[3 << 20, 17], &[1 << 20], &[(1 << 20) - 1, 1, 1]] {
            let file = disk.create_sequential("a").unwrap();
            let mut expected = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let piece: Vec<u8> = (0..*length).map(|at| (at * 7 + number) as u8).collect();
                file.write_at(&[IoSlice::new(&piece)], expected.len() as u64).unwrap();
                expected.extend_from_slice(&piece);
            }
            assert!(file.write_at(&[IoSlice::new(b"x")], expected.len() as u64 + 1).is_err() || lengths == [0]);
            file.sync().unwrap();
            let read = fs::read(directory.join("a")).unwrap();
            assert!(read == expected, "{lengths:?}: {} bytes", read.len());
        }
        fs::remove_dir_all(directory).unwrap();
    }
}
