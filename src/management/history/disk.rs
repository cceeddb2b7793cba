//! The folder on the disk: a redb database in one file.
//!
//! A store that could not be written, or has grown much larger than what it holds, is replaced by one written from
//! memory under another name, which takes the place of the first when it is complete.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, Table, TableDefinition};

use super::memory::Memory;
use super::stored::{self, Chunks, Damage, Extent, Gathered, Restoring};
use super::timeline::{TIERS, Timeline};

pub(super) use redb::Error as DiskError;

const STORE: &str = "history.redb";

/// A store that is being written.
const NEW: &str = "history.redb.new";

/// What earlier versions kept, with sled: directories `store-N`, and a file while these were opened.
const FORMER_STORE: &str = "store-";
const FORMER_OPENING: &str = "opening";

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("history");

/// Memory for redb's own cache; everything is read once.
const CACHE_BYTES: usize = 1 << 20;

/// A store is replaced when it is larger than this and twice the budget, and twice what it was when it was new.
const STORE_BYTES_MIN: u64 = 64 << 20;

/// Subjects looked at in one go with the lock held.
const PLACES: usize = 256;

/// What one call of persist wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub keys: usize,
    /// Bytes of keys and values, before redb adds its own.
    pub bytes: usize,
}

#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    /// None if what lies there, if anything, cannot be gone on with: the next call of persist writes a new store.
    store: Option<Store>,
    store_bytes_max: u64,
}

/// The open file, which no other process can open.
#[derive(Debug)]
struct Store {
    database: Database,
    chunks: Chunks,
    last: [u32; TIERS],
    /// What it took when it was new.
    new_bytes: u64,
}

impl From<Damage> for DiskError {
    fn from(damage: Damage) -> Self {
        Self::Corrupted(damage.to_string())
    }
}

impl Disk {
    /// Opens the folder, which is created if it is missing, and reads all of it.
    pub(super) fn open(folder: &Path, budget_bytes: usize) -> Result<(Self, Memory), DiskError> {
        fs::create_dir_all(folder)?;
        let path = folder.join(STORE);
        let (store, memory) = if path.try_exists()? {
            let (store, memory) = Store::open(&path, budget_bytes)?;
            (Some(store), memory)
        } else {
            (None, Memory::new(budget_bytes))
        };
        let store_bytes_max = STORE_BYTES_MIN.max(2 * budget_bytes as u64);
        Ok((Self { folder: folder.to_path_buf(), store, store_bytes_max }, memory))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what earlier versions kept here, which cannot be read any more. Returns whether there was any.
    pub(super) fn remove_former(&self) -> bool {
        let is_store = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(FORMER_STORE));
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        };
        let _ = fs::remove_file(self.folder.join(FORMER_OPENING));
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let stores = entries.filter(is_store).filter(|store| fs::remove_dir_all(store.path()).is_ok());
        stores.count() > 0
    }

    /// Writes what is new in memory, which is locked for some subjects at a time.
    pub(super) fn persist(&mut self, memory: &Mutex<Memory>) -> Result<Written, DiskError> {
        let bytes = self.bytes_on_disk();
        let may_go_on = |store: &Store| bytes <= self.store_bytes_max || bytes <= 2 * store.new_bytes;
        // Until it is written nobody knows what is on the disk.
        let Some(mut store) = self.store.take().filter(may_go_on) else {
            return self.replace(memory).inspect_err(|_| {
                // What there is of it only takes space.
                let _ = fs::remove_file(self.folder.join(NEW));
            });
        };
        let written = store.write(memory, Extent::New)?;
        self.store = Some(store);
        Ok(written)
    }

    /// Writes everything to a new store.
    fn replace(&mut self, memory: &Mutex<Memory>) -> Result<Written, DiskError> {
        let path = self.folder.join(NEW);
        let mut store = Store::create(&path)?;
        let written = store.write(memory, Extent::Everything)?;
        fs::rename(path, self.folder.join(STORE))?;
        store.new_bytes = self.bytes_on_disk();
        self.store = Some(store);
        Ok(written)
    }

    /// The file may be much longer: it grows by half of its length, and has holes.
    fn bytes_on_disk(&self) -> u64 {
        fs::metadata(self.folder.join(STORE)).map_or(0, |file| file.blocks() * 512)
    }
}

impl Store {
    fn open(path: &Path, budget_bytes: usize) -> Result<(Self, Memory), DiskError> {
        // Unless it checks all of the file first, redb may panic on what it reads. Nothing catches that, which could
        // not be done where a panic aborts: checked, none of 70,000 damaged files brought it to a panic.
        let database = builder().set_check_integrity_on_open(true).open(path)?;
        let table = database.begin_read()?.open_table(TABLE)?;
        let meta = table.get(stored::META)?.ok_or(Damage::Nonsense("a store without its extent"))?;
        let mut restoring = Restoring::new(meta.value(), budget_bytes)?;
        read(&table, b"t", b"u", |key, value| restoring.timeline(key, value))?;
        read(&table, b"s", b"t", |key, value| restoring.subject(key, value))?;
        read(&table, b"c", b"d", |key, value| restoring.chunk(key, value))?;
        let (memory, meta, chunks) = restoring.finish()?;
        Ok((Self { database, chunks, last: meta.last, new_bytes: 0 }, memory))
    }

    fn create(path: &Path) -> Result<Self, DiskError> {
        // Of one begun before nothing is kept.
        File::create(path)?;
        let database = builder().create(path)?;
        Ok(Self { database, chunks: Chunks::default(), last: [0; TIERS], new_bytes: 0 })
    }

    /// Writes in one transaction: all of it or nothing is there after a crash.
    fn write(&mut self, memory: &Mutex<Memory>, extent: Extent) -> Result<Written, DiskError> {
        let gathered = gather(memory, self.last, extent);
        let last = gathered.meta.last;
        let mut written = Written::default();
        let transaction = self.database.begin_write()?;
        let mut table = transaction.open_table(TABLE)?;
        for id in &gathered.forgotten {
            table.remove(stored::subject_key(*id).as_slice())?;
        }
        gathered.finish(&mut self.chunks, |key, value| {
            written.keys += 1;
            written.bytes += key.len() + value.len();
            table.insert(key, value).map(|_| ())
        })?;
        let oldest = memory.lock().timelines.each_ref().map(Timeline::first);
        self.remove_old(oldest, &mut table)?;
        drop(table);
        transaction.commit()?;
        self.last = last;
        Ok(written)
    }

    /// Removes the chunks all of whose rounds are older than memory keeps.
    fn remove_old(&mut self, oldest: [u32; TIERS], table: &mut Table<'_, &[u8], &[u8]>) -> Result<(), DiskError> {
        for (tier, chunks) in self.chunks.iter_mut().enumerate() {
            while chunks.get(1).is_some_and(|next| next.0 <= oldest[tier]) {
                let Some((first, parts)) = chunks.pop_front() else { break };
                table.remove(stored::timeline_key(tier, first).as_slice())?;
                for part in 0..parts {
                    table.remove(stored::chunk_key(tier, first, part).as_slice())?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Disk {
    pub(super) fn set_broken(&mut self) {
        self.store = None;
    }

    pub(super) fn set_bytes_max(&mut self, bytes: u64) {
        self.store_bytes_max = bytes;
    }

    pub(super) fn keys(&self) -> u64 {
        use redb::ReadableTableMetadata;
        let transaction = self.store.as_ref().unwrap().database.begin_read().unwrap();
        transaction.open_table(TABLE).unwrap().len().unwrap()
    }

    pub(super) fn size(&self) -> u64 {
        self.bytes_on_disk()
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Calls back with all from the first key to one before the end.
fn read(
    table: &ReadOnlyTable<&[u8], &[u8]>,
    first: &[u8],
    end: &[u8],
    mut restore: impl FnMut(&[u8], &[u8]) -> Result<(), Damage>,
) -> Result<(), DiskError> {
    for entry in table.range(first..end)? {
        let (key, value) = entry?;
        restore(key.value(), value.value())?;
    }
    Ok(())
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
