//! Open segments: a bounded number of them, the least recently used closed first.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::path;
use super::storage::{File, Storage};

/// Segments open at a time.
const HANDLES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Handles {
    /// By number; the most recently used last.
    open: Mutex<Vec<(u64, Arc<dyn File>)>>,
}

impl Handles {
    /// Opens a segment, unless it is open.
    pub(super) fn get(&self, disk: &dyn Storage, number: u64) -> io::Result<Arc<dyn File>> {
        let mut open = self.open.lock();
        if let Some(place) = open.iter().position(|(other, _)| *other == number) {
            let handle = open.remove(place);
            let file = handle.1.clone();
            open.push(handle);
            return Ok(file);
        }
        drop(open);
        let file = disk.open(&path(number))?;
        let mut open = self.open.lock();
        if open.len() >= HANDLES_MAX {
            open.remove(0);
        }
        open.push((number, file.clone()));
        Ok(file)
    }

    /// Closes segments that are gone. Whoever reads from one has a handle of his own.
    pub(super) fn forget(&self, numbers: &[u64]) {
        self.open.lock().retain(|(number, _)| !numbers.contains(number));
    }
}
