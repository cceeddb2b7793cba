//! A disk in memory that forgets what was not synced, and fails when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::log::{File, Storage};

#[derive(Debug, Default)]
pub(super) struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Names as the running system sees them.
    names: BTreeMap<String, usize>,
    /// Names as they are after a loss of power; those in directories that are not durable themselves are lost.
    durable_names: BTreeMap<String, usize>,
    durable_directories: BTreeSet<String>,
    contents: Vec<Content>,
    /// How many more changing operations succeed.
    left: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    written: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Debug)]
struct MemoryFile {
    disk: Arc<Mutex<State>>,
    content: usize,
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl MemoryDisk {
    /// Lets this many changing operations succeed from now on.
    pub(super) fn fail_after(&self, operations: usize) {
        self.0.lock().left = Some(operations);
    }

    /// The disk works again, and has what was synced.
    pub(super) fn lose_power(&self) {
        let mut state = self.0.lock();
        state.left = None;
        let survivors = state.durable_names.iter().filter(|(name, _)| {
            let directory = directory_of(name);
            directory.is_empty() || state.durable_directories.contains(directory)
        });
        state.names = survivors.map(|(name, content)| (name.clone(), *content)).collect();
        state.durable_names = state.names.clone();
        state.contents.iter_mut().for_each(|content| content.written.clone_from(&content.synced));
    }

    /// The disk works again, and has everything.
    pub(super) fn recover(&self) {
        self.0.lock().left = None;
    }

    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        let state = self.0.lock();
        state.contents[state.names[path]].written.clone()
    }

    pub(super) fn write(&self, path: &str, bytes: &[u8]) {
        let file = self.create(path).unwrap();
        file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
        file.sync().unwrap();
        self.sync_directory(directory_of(path)).unwrap();
        self.sync_directory("").unwrap();
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }
}

impl Storage for MemoryDisk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter(|name| directory_of(name) == directory);
        Ok(inside.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        state.spend()?;
        state.contents.push(Content::default());
        let content = state.contents.len() - 1;
        state.names.insert(path.to_owned(), content);
        Ok(Arc::new(MemoryFile { disk: Arc::clone(&self.0), content }))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let content = *self.0.lock().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile { disk: Arc::clone(&self.0), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.spend()?;
        let content = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.spend()?;
        state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.spend()?;
        let State { names, durable_names, durable_directories, .. } = &mut *state;
        durable_names.retain(|name, _| directory_of(name) != directory);
        let inside = names.iter().filter(|(name, _)| directory_of(name) == directory);
        durable_names.extend(inside.map(|(name, content)| (name.clone(), *content)));
        if directory.is_empty() {
            durable_directories.extend(names.keys().map(|name| directory_of(name).to_owned()));
        }
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let written = &state.contents[self.content].written;
        let rest = written.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        // Less than asked for, as a disk may do.
        let count = rest.len().min(buffer.len()).min(100);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.spend()?;
        let written = &mut state.contents[self.content].written;
        let mut at = usize::try_from(offset).unwrap();
        for piece in pieces {
            written.resize(written.len().max(at + piece.len()), 0);
            written[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.spend()?;
        let content = &mut state.contents[self.content];
        content.synced = content.written.clone();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().contents[self.content].written.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.spend()?;
        state.contents[self.content].written.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}
