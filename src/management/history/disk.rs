//! The folder on the disk: a sled database in a subfolder `store-N`.
//!
//! A store that could not be written, or has grown much larger than what it holds, is replaced by `store-N+1`, written
//! from memory. A store without its last key was not finished, and the one before it counts.

use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::memory::Memory;
use super::stored::{self, Chunks, Damage, Extent, Gathered, Restoring};
use super::timeline::TIERS;

/// Lies in the folder while it is opened: a line for each start that began to, and one for a panic. sled may panic on
/// what it reads, which must not end every start.
const OPENING: &str = "opening";

/// Starts in a row that may end while the folder is opened. Whoever kills a broker that early does not harm the folder;
/// sled could end the process without a panic (an abort, a full stack), but not more often than this.
const INTERRUPTED_MAX: usize = 3;

const BEGUN: &str = "begun\n";
const PANICKED: &str = "panicked\n";

const STORE: &str = "store-";

/// Memory for sled's own cache; everything is read once.
const CACHE_BYTES: u64 = 1 << 20;

/// A store is replaced when it is larger than this and twice the budget, and twice what it was when it was new.
const STORE_BYTES_MIN: u64 = 64 << 20;

/// Bytes written at once to a new store, which counts only when it is complete.
const BATCH_BYTES: usize = 4 << 20;

/// Subjects looked at in one go with the lock held.
const PLACES: usize = 256;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sled(sled::Error),
    #[error("another process has it open")]
    InUse,
    #[error("{0}")]
    Damage(#[from] Damage),
    #[error("the process ended {INTERRUPTED_MAX} times in a row while it was opened")]
    Interrupted,
    #[error("the database gave up reading it")]
    Panicked,
}

impl From<sled::Error> for DiskError {
    fn from(error: sled::Error) -> Self {
        if error.to_string().contains("could not acquire lock") { Self::InUse } else { Self::Sled(error) }
    }
}

/// What one call of persist wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub keys: usize,
    /// Bytes of keys and values, before sled adds its own.
    pub bytes: usize,
}

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    store: sled::Db,
    generation: u64,
    chunks: Chunks,
    last: [u32; TIERS],
    /// Whether the store cannot be gone on with.
    is_broken: bool,
    /// Its size when it was new.
    new_bytes: u64,
    store_bytes_max: u64,
}

impl Disk {
    /// Opens the folder, which is created if it is missing, and reads all of it.
    pub(super) fn open(folder: &Path, budget_bytes: usize) -> Result<(Self, Memory), DiskError> {
        fs::create_dir_all(folder)?;
        let opening = Opening::begin(folder.join(OPENING))?;
        // A build that aborts on a panic does not come back from it: the next start finds the note.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_newest(folder, budget_bytes)));
        opening.end()?;
        opened.unwrap_or(Err(DiskError::Panicked))
    }

    fn open_newest(folder: &Path, budget_bytes: usize) -> Result<(Self, Memory), DiskError> {
        let generations = generations(folder)?;
        let mut newest = generations.last().copied().unwrap_or(0);
        let mut found = None;
        for generation in generations.iter().rev().copied() {
            let store = open_store(folder, generation)?;
            if let Some(meta) = store.get(stored::META)? {
                let (memory, meta, chunks) = read(&store, &meta, budget_bytes)?;
                found = Some((store, generation, memory, meta.last, chunks));
                break;
            }
        }
        if found.is_none() {
            newest += 1;
            let memory = Memory::new(budget_bytes);
            found = Some((open_store(folder, newest)?, newest, memory, [0; TIERS], Chunks::default()));
        }
        let Some((store, generation, memory, last, chunks)) = found else { return Err(DiskError::InUse) };
        for other in generations.into_iter().filter(|other| *other != generation) {
            fs::remove_dir_all(store_folder(folder, other))?;
        }
        let store_bytes_max = STORE_BYTES_MIN.max(2 * budget_bytes as u64);
        let disk = Self {
            folder: folder.to_path_buf(),
            store,
            generation,
            chunks,
            last,
            is_broken: false,
            new_bytes: 0,
            store_bytes_max,
        };
        Ok((disk, memory))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes what is new in memory, which is locked for some subjects at a time.
    pub(super) fn persist(&mut self, memory: &Mutex<Memory>) -> Result<Written, DiskError> {
        let is_too_large = {
            let bytes = self.store.size_on_disk().unwrap_or(0);
            bytes > self.store_bytes_max && bytes > 2 * self.new_bytes
        };
        if self.is_broken || is_too_large {
            return self.replace(memory);
        }
        let mut gathered = gather(memory, self.last, Extent::New);
        // Until it is written nobody knows what is on the disk.
        self.is_broken = true;
        let (mut batch, mut written) = (sled::Batch::default(), Written::default());
        gathered.finish(&mut self.chunks, |key, value| written.insert(&mut batch, key, value));
        written.insert(&mut batch, stored::META.to_vec(), gathered.meta_value());
        gathered.forgotten.iter().for_each(|id| batch.remove(stored::subject_key(*id)));
        self.remove_old(&memory.lock(), &mut batch);
        self.store.apply_batch(batch)?;
        self.store.flush()?;
        self.last = gathered.meta.last;
        self.is_broken = false;
        Ok(written)
    }

    /// Removes the chunks all of whose rounds are older than memory keeps.
    fn remove_old(&mut self, memory: &Memory, batch: &mut sled::Batch) {
        for (tier, chunks) in self.chunks.iter_mut().enumerate() {
            while chunks.get(1).is_some_and(|next| next.0 <= memory.timelines[tier].first()) {
                let Some((first, parts)) = chunks.pop_front() else { return };
                batch.remove(stored::timeline_key(tier, first));
                (0..parts).for_each(|part| batch.remove(stored::chunk_key(tier, first, part)));
            }
        }
    }

    /// Writes everything to a new store. Its last key makes it count.
    fn replace(&mut self, memory: &Mutex<Memory>) -> Result<Written, DiskError> {
        self.is_broken = true;
        let generation = self.generation + 1;
        let folder = store_folder(&self.folder, generation);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let store = open_store(&self.folder, generation)?;
        let mut gathered = gather(memory, [0; TIERS], Extent::Everything);
        let (mut batch, mut written, mut chunks) = (sled::Batch::default(), Written::default(), Chunks::default());
        let (mut in_batch, mut result) = (0, Ok(()));
        gathered.finish(&mut chunks, |key, value| {
            in_batch += key.len() + value.len();
            written.insert(&mut batch, key, value);
            if in_batch > BATCH_BYTES && result.is_ok() {
                in_batch = 0;
                result = store.apply_batch(std::mem::take(&mut batch));
            }
        });
        result?;
        store.apply_batch(batch)?;
        store.flush()?;
        store.insert(stored::META, gathered.meta_value())?;
        store.flush()?;
        let before = store_folder(&self.folder, self.generation);
        self.new_bytes = store.size_on_disk()?;
        (self.store, self.generation, self.chunks) = (store, generation, chunks);
        self.last = gathered.meta.last;
        self.is_broken = false;
        fs::remove_dir_all(before)?;
        Ok(written)
    }
}

#[cfg(test)]
impl Disk {
    pub(super) fn set_broken(&mut self) {
        self.is_broken = true;
    }

    pub(super) fn keys(&self) -> usize {
        self.store.len()
    }

    pub(super) fn size(&self) -> u64 {
        self.store.size_on_disk().unwrap()
    }
}

/// The file [`OPENING`] while the folder is opened.
struct Opening {
    file: PathBuf,
    /// The hook for panics that was there before.
    usual: Arc<PanicHook>,
}

type PanicHook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

impl Opening {
    fn begin(file: PathBuf) -> Result<Self, DiskError> {
        let before = match fs::read_to_string(&file) {
            Ok(before) => before,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        if before.contains(PANICKED) {
            return Err(DiskError::Panicked);
        }
        if before.matches(BEGUN).count() >= INTERRUPTED_MAX {
            return Err(DiskError::Interrupted);
        }
        fs::write(&file, before + BEGUN)?;
        let usual: Arc<PanicHook> = panic::take_hook().into();
        let (note, and_then) = (file.clone(), Arc::clone(&usual));
        panic::set_hook(Box::new(move |panic| {
            // Where that is not possible there are still the starts that are counted.
            let _ = fs::OpenOptions::new()
                .append(true)
                .open(&note)
                .and_then(|mut file| file.write_all(PANICKED.as_bytes()));
            and_then(panic);
        }));
        Ok(Self { file, usual })
    }

    fn end(self) -> Result<(), io::Error> {
        let Self { file, usual } = self;
        panic::set_hook(Box::new(move |panic| usual(panic)));
        fs::remove_file(&file)
    }
}

impl Written {
    fn insert(&mut self, batch: &mut sled::Batch, key: Vec<u8>, value: Vec<u8>) {
        self.keys += 1;
        self.bytes += key.len() + value.len();
        batch.insert(key, value);
    }
}

/// Copies what is new out of memory.
fn gather(memory: &Mutex<Memory>, since: [u32; TIERS], extent: Extent) -> Gathered {
    let mut gathered = Gathered::begin(&mut memory.lock(), since, extent);
    let mut begin = 0;
    loop {
        let mut memory = memory.lock();
        let end = memory.places().min(begin + PLACES);
        if begin >= end {
            return gathered;
        }
        gathered.gather(&mut memory, begin..end);
        begin = end;
    }
}

fn read(store: &sled::Db, meta: &[u8], budget_bytes: usize) -> Result<(Memory, stored::Meta, Chunks), DiskError> {
    let mut restoring = Restoring::new(meta, budget_bytes)?;
    for entry in store.scan_prefix(b"t") {
        let (key, value) = entry?;
        restoring.timeline(&key, &value)?;
    }
    for entry in store.scan_prefix(b"s") {
        let (key, value) = entry?;
        restoring.subject(&key, &value)?;
    }
    for entry in store.scan_prefix(b"c") {
        let (key, value) = entry?;
        restoring.chunk(&key, &value)?;
    }
    Ok(restoring.finish()?)
}

fn open_store(folder: &Path, generation: u64) -> Result<sled::Db, DiskError> {
    let config = sled::Config::new()
        .path(store_folder(folder, generation))
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    Ok(config.open()?)
}

fn store_folder(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{STORE}{generation}"))
}

/// The stores in the folder, the newest last.
fn generations(folder: &Path) -> Result<Vec<u64>, io::Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.strip_prefix(STORE)?.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}
