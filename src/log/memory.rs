//! A disk in memory that does to the log what disks do: it loses, tears and reorders what was not synced, fills up, fails,
//! and rots. For tests, benchmarks and fuzzing; what it does by chance follows from a seed.
//!
//! Every file has two images: what processes see, and what is on the medium. A write changes the first and waits in a list;
//! a sync carries the list over to the second. Names are kept in the same way. [`MemoryDisk::crash`] leaves of the waiting
//! changes what a power loss could leave of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::storage::{File, Storage};
use crate::model::random::Random;

/// What a disk writes as a whole or not at all.
const SECTOR: u64 = 512;
/// A file does not grow above it, so that a wrong offset is an error and not the end of the memory.
const FILE_MAX: u64 = 1 << 32;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Open,
    Create,
    Rename,
    Remove,
    SyncDirectory,
    Read,
    /// Half of the bytes are written.
    Write,
    /// What the file has unsynced is lost with the next power loss, even if a later sync succeeds.
    Sync,
    SetLength,
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    pub reads: u64,
    pub writes: u64,
    pub written_bytes: u64,
    /// Of files, not of directories.
    pub syncs: u64,
    pub directory_syncs: u64,
}

/// A data directory in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How often the processes died.
    deaths: u64,
    names: Names,
    /// As on the medium.
    durable_names: Names,
    /// What is not yet on the medium, in order.
    changes: Vec<NameChange>,
    /// The last number given to a file.
    last_file: u64,
    files: BTreeMap<u64, Content>,
    capacity: Option<u64>,
    read_max: Option<usize>,
    faults: Vec<Fault>,
    counts: DiskCounts,
}

/// Paths, and the numbers of the files.
type Names = BTreeMap<String, u64>;

#[derive(Clone, Debug, Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// What is not yet in `durable`, in order.
    changes: Vec<ContentChange>,
    /// How many handles there are, so that a removed file stays until the last is gone.
    handles: u64,
}

#[derive(Clone, Debug)]
enum ContentChange {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Clone, Debug)]
struct NameChange {
    file: u64,
    from: Option<String>,
    to: Option<String>,
    /// The directories that are to be synced before it is durable.
    unsynced: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Fault {
    operation: Operation,
    failure: Failure,
    after: u64,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Kind(ErrorKind),
    /// With an error of the operating system.
    System(i32),
}

impl MemoryDisk {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the same content, and nothing in common with this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.state.lock();
        let copied = State {
            deaths: 0,
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            changes: state.changes.clone(),
            last_file: state.last_file,
            files: state
                .files
                .iter()
                .map(|(file, content)| (*file, Content { handles: 0, ..content.clone() }))
                .collect(),
            capacity: state.capacity,
            read_max: state.read_max,
            faults: state.faults.clone(),
            counts: DiskCounts::default(),
        };
        Self { state: Arc::new(Mutex::new(copied)) }
    }

    /// The power is lost. Of each unsynced write everything, nothing or some sectors are left, whatever became of others;
    /// of the unsynced changes to a directory the first few. Handles are dead, and faults still to come are forgotten.
    pub fn crash(&self, random: &mut Random) {
        let mut state = self.state.lock();
        let mut stopped = BTreeSet::new();
        for change in std::mem::take(&mut state.changes) {
            let is_behind = change.unsynced.iter().any(|directory| stopped.contains(directory));
            if is_behind || random.next_bits().is_multiple_of(3) {
                stopped.extend(change.unsynced);
            } else {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        for content in state.files.values_mut() {
            for change in std::mem::take(&mut content.changes) {
                change.apply_partly(&mut content.durable, random);
            }
            content.current.clone_from(&content.durable);
        }
        state.die();
    }

    /// The process is killed: everything it wrote is there. Handles are dead, and faults still to come are forgotten.
    pub fn kill(&self) {
        self.state.lock().die();
    }

    /// Lets writes fail for want of space when all files together would be longer.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Lets reads return fewer bytes than were asked for.
    pub fn set_read_max(&self, bytes: Option<usize>) {
        self.state.lock().read_max = bytes;
    }

    /// Lets an operation fail once, after so many of its kind that succeed.
    pub fn fail_next(&self, operation: Operation, kind: ErrorKind, after: u64) {
        self.state.lock().faults.push(Fault { operation, failure: Failure::Kind(kind), after });
    }

    /// The same with an error of the operating system, by its number.
    pub fn fail_next_with(&self, operation: Operation, code: i32, after: u64) {
        self.state.lock().faults.push(Fault { operation, failure: Failure::System(code), after });
    }

    /// Flips a bit, 0 to 7, of a byte. False when there is no such byte.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> bool {
        self.damage(path, |bytes| {
            let byte = usize::try_from(offset).ok().and_then(|offset| bytes.get_mut(offset));
            byte.map(|byte| *byte ^= 1 << (bit & 7)).is_some()
        })
    }

    /// Overwrites a range with zeros, as far as the file goes. False when there is no such file.
    pub fn zero(&self, path: &str, range: Range<u64>) -> bool {
        self.damage(path, |bytes| {
            let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
            let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
            bytes[start..end].fill(0);
            true
        })
    }

    /// Cuts a file off. False when there is no such file.
    pub fn truncate(&self, path: &str, length: u64) -> bool {
        self.damage(path, |bytes| {
            bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            true
        })
    }

    /// Loses a file, durably. False when there is no such file.
    pub fn lose(&self, path: &str) -> bool {
        let mut state = self.state.lock();
        state.durable_names.remove(path);
        state.names.remove(path).is_some()
    }

    /// Puts a file there, durably, in place of one that has the name.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.last_file += 1;
        let file = state.last_file;
        let content = Content { current: bytes.to_vec(), durable: bytes.to_vec(), changes: Vec::new(), handles: 0 };
        state.files.insert(file, content);
        state.names.insert(path.to_owned(), file);
        state.durable_names.insert(path.to_owned(), file);
    }

    /// A file's bytes, as processes see them.
    #[must_use]
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let file = state.names.get(path)?;
        state.files.get(file).map(|content| content.current.clone())
    }

    /// The paths of all files, ascending.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.state.lock().names.keys().cloned().collect()
    }

    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.state.lock().counts
    }

    fn damage(&self, path: &str, mut damage: impl FnMut(&mut Vec<u8>) -> bool) -> bool {
        let mut state = self.state.lock();
        let Some(file) = state.names.get(path).copied() else { return false };
        let Some(content) = state.files.get_mut(&file) else { return false };
        damage(&mut content.durable);
        damage(&mut content.current)
    }

    fn handle(&self, state: &mut State, file: u64) -> Arc<dyn File> {
        if let Some(content) = state.files.get_mut(&file) {
            content.handles += 1;
        }
        Arc::new(Handle { disk: self.clone(), file, deaths: state.deaths })
    }
}

impl Storage for MemoryDisk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        let names = state.names.keys().filter(|path| parent(path) == directory);
        Ok(names.map(|path| path.rsplit_once('/').map_or(&**path, |(_, name)| name).to_owned()).collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.begin(Operation::Create)?;
        state.last_file += 1;
        let file = state.last_file;
        state.files.insert(file, Content::default());
        state.change_name(file, None, Some(path));
        state.forget_unreachable();
        Ok(self.handle(&mut state, file))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.begin(Operation::Open)?;
        let file = state.find(path)?;
        Ok(self.handle(&mut state, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::Rename)?;
        let file = state.find(from)?;
        state.change_name(file, Some(from), Some(to));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::Remove)?;
        let file = state.find(path)?;
        state.change_name(file, Some(path), None);
        Ok(())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Operation::SyncDirectory)?;
        state.counts.directory_syncs += 1;
        for mut change in std::mem::take(&mut state.changes) {
            change.unsynced.remove(directory);
            if change.unsynced.is_empty() {
                change.apply(&mut state.durable_names);
            } else {
                state.changes.push(change);
            }
        }
        state.forget_unreachable();
        Ok(())
    }
}

impl State {
    /// Counts an operation, or lets it fail.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        let mut failed = None;
        self.faults.retain_mut(|fault| {
            if fault.operation != operation || failed.is_some() {
                return true;
            }
            if fault.after > 0 {
                fault.after -= 1;
                return true;
            }
            failed = Some(fault.failure);
            false
        });
        match failed {
            None => Ok(()),
            Some(Failure::Kind(kind)) => Err(kind.into()),
            Some(Failure::System(code)) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    fn find(&self, path: &str) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, file: u64, from: Option<&str>, to: Option<&str>) {
        let unsynced = from.into_iter().chain(to).map(|path| parent(path).to_owned()).collect();
        let change = NameChange { file, from: from.map(str::to_owned), to: to.map(str::to_owned), unsynced };
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn die(&mut self) {
        self.deaths += 1;
        self.faults.clear();
        self.files.values_mut().for_each(|content| content.handles = 0);
        self.forget_unreachable();
    }

    /// Frees the files that nobody can come to any more.
    fn forget_unreachable(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        let changed: BTreeSet<u64> = self.changes.iter().map(|change| change.file).collect();
        self.files.retain(|file, content| content.handles > 0 || named.contains(file) || changed.contains(file));
    }

    /// How many more bytes the files can have.
    fn space(&self) -> u64 {
        let used = || self.names.values().filter_map(|file| self.files.get(file)).map(|file| file.current.len() as u64);
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used().sum()))
    }
}

impl NameChange {
    /// Changes the names, as far as they are still what they were when the change was made.
    fn apply(&self, names: &mut Names) {
        if let Some(from) = &self.from
            && names.get(from) == Some(&self.file)
        {
            names.remove(from);
        }
        if let Some(to) = &self.to {
            names.insert(to.clone(), self.file);
        }
    }
}

impl ContentChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => overwrite(bytes, *offset, written),
            Self::Length(length) => bytes.resize(*length as usize, 0),
        }
    }

    /// What may be left of a change when the power is lost.
    fn apply_partly(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let choice = random.next_bits() % 3;
        match self {
            _ if choice == 0 => {}
            Self::Write { offset, bytes: written } if choice == 1 => {
                let (mut at, mut written) = (*offset, &written[..]);
                while !written.is_empty() {
                    let length = ((SECTOR - at % SECTOR) as usize).min(written.len());
                    let (sector, rest) = written.split_at(length);
                    if random.next_bits().is_multiple_of(2) {
                        overwrite(bytes, at, sector);
                    }
                    (at, written) = (at + length as u64, rest);
                }
            }
            Self::Write { .. } | Self::Length(_) => self.apply(bytes),
        }
    }
}

/// An open file of one process.
#[derive(Debug)]
struct Handle {
    disk: MemoryDisk,
    file: u64,
    /// How often processes had died when it was opened.
    deaths: u64,
}

impl Handle {
    /// Does something with the content, when the handle is alive and the operation does not fail.
    fn with<T>(&self, state: &mut State, action: impl FnOnce(&mut Content) -> T) -> io::Result<T> {
        if state.deaths != self.deaths {
            return Err(io::Error::other("the process that opened the file is dead"));
        }
        state.files.get_mut(&self.file).map(action).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state.lock();
        state.begin(Operation::Read)?;
        state.counts.reads += 1;
        let length = state.read_max.unwrap_or(usize::MAX).min(buffer.len());
        self.with(&mut state, |content| {
            let bytes =
                usize::try_from(offset).ok().and_then(|offset| content.current.get(offset..)).unwrap_or_default();
            let length = length.min(bytes.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            length
        })
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        let mut state = self.disk.state.lock();
        let length = self.with(&mut state, |content| content.current.len() as u64)?;
        let mut failure = state.begin(Operation::Write).err();
        if failure.is_some() {
            bytes.truncate(bytes.len() / 2);
        }
        let space_end = length.saturating_add(state.space());
        if offset.saturating_add(bytes.len() as u64) > space_end.min(FILE_MAX) {
            bytes.truncate(space_end.min(FILE_MAX).saturating_sub(offset) as usize);
            failure = failure.or_else(|| Some(ErrorKind::StorageFull.into()));
        }
        state.counts.writes += 1;
        state.counts.written_bytes += bytes.len() as u64;
        self.with(&mut state, |content| {
            if !bytes.is_empty() {
                overwrite(&mut content.current, offset, &bytes);
                content.changes.push(ContentChange::Write { offset, bytes });
            }
        })?;
        failure.map_or(Ok(()), Err)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let failure = state.begin(Operation::Sync);
        state.counts.syncs += 1;
        self.with(&mut state, |content| {
            for change in std::mem::take(&mut content.changes) {
                if failure.is_ok() {
                    change.apply(&mut content.durable);
                }
            }
        })?;
        failure
    }

    fn length(&self) -> io::Result<u64> {
        self.with(&mut self.disk.state.lock(), |content| content.current.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.begin(Operation::SetLength)?;
        let space = state.space();
        let current = self.with(&mut state, |content| content.current.len() as u64)?;
        if length.saturating_sub(current) > space || length > FILE_MAX {
            return Err(ErrorKind::StorageFull.into());
        }
        self.with(&mut state, |content| {
            content.current.resize(length as usize, 0);
            content.changes.push(ContentChange::Length(length));
        })
    }

    fn allocate(&self, length: u64) -> io::Result<bool> {
        if self.length()? < length {
            self.set_length(length)?;
        }
        Ok(true)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        let left = self.with(&mut state, |content| {
            content.handles = content.handles.saturating_sub(1);
            content.handles
        });
        if left.is_ok_and(|left| left == 0) {
            state.forget_unreachable();
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

fn overwrite(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let start = offset as usize;
    let end = start + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(written);
}
