//! Open files of segments: a bounded number of them, the least recently used closed first.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::{Part, part_path};
use super::storage::{File, Storage, wants_descriptors};

/// Files open at a time.
const HANDLES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Handles {
    /// By the segment's number; the most recently used last.
    open: Mutex<Vec<Handle>>,
}

#[derive(Debug)]
struct Handle {
    number: u64,
    part: Part,
    file: Arc<dyn File>,
}

impl Handles {
    /// Opens one of a segment's files, unless it is open. When too many files are open the others are closed for it.
    pub(super) fn get(&self, disk: &dyn Storage, number: u64, part: Part) -> io::Result<Arc<dyn File>> {
        let mut open = self.open.lock();
        if let Some(place) = open.iter().position(|handle| (handle.number, handle.part) == (number, part)) {
            let handle = open.remove(place);
            let file = handle.file.clone();
            open.push(handle);
            return Ok(file);
        }
        drop(open);
        let path = part_path(number, part);
        let file = match disk.open(&path) {
            Err(error) if wants_descriptors(&error) && !self.open.lock().is_empty() => {
                self.open.lock().clear();
                disk.open(&path)
            }
            opened => opened,
        }?;
        let mut open = self.open.lock();
        if open.len() >= HANDLES_MAX {
            open.remove(0);
        }
        open.push(Handle { number, part, file: file.clone() });
        Ok(file)
    }

    /// Closes segments that are gone. Whoever reads from one has a handle of his own.
    pub(super) fn forget(&self, numbers: &[u64]) {
        self.open.lock().retain(|handle| !numbers.contains(&handle.number));
    }
}
