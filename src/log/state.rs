//! What readers, the writer and whoever maintains share: the index, the WAL files there are, and what is numbered next.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::batch::Range;
use super::entry::LogId;
use super::handles::Handles;
use super::index::{Extent, Index};
use super::segment::{self, Damage, Part, Reading};
use super::storage::{File, Storage};
use super::wal::{self, BatchPlace, Fresh, WalFile};
use super::{CommitError, LogError, Options, Report, Severity, SyncMode};
use crate::model::hash::IdMap;

/// Segments of this many bytes are left in the system's cache, for those who will read them soon.
const READ_SOON: u64 = 64 << 20;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Storage>,
    pub(super) options: Options,
    /// Held shortly: the writer waits for it.
    pub(super) state: Mutex<State>,
    pub(super) handles: Handles,
    /// Held by whoever maintains.
    pub(super) maintenance: Mutex<Maintenance>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) wal: WalFiles,
}

/// What is numbered next.
#[derive(Debug)]
pub(super) struct Maintenance {
    pub(super) next_segment: u64,
    pub(super) next_sequence: u64,
}

/// A WAL file that waits to be flushed.
#[derive(Clone, Debug)]
pub(super) struct Full {
    pub(super) file: WalFile,
    /// The logs that its records are about, with the highest index appended.
    pub(super) touched: Arc<IdMap<LogId, u64>>,
    /// All entries in it; none when that is not known.
    pub(super) appended: Option<Arc<Vec<Appended>>>,
}

/// Entries of a WAL file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) place: BatchPlace,
    pub(super) log: LogId,
    pub(super) range: Range,
    /// Of all of them.
    pub(super) bytes: u64,
}

/// The WAL files there are.
#[derive(Debug, Default)]
pub(super) struct WalFiles {
    /// None until the log is open.
    pub(super) current: Option<WalFile>,
    pub(super) full: VecDeque<Full>,
    pub(super) prepared: VecDeque<WalFile>,
    pub(super) spare: Vec<WalFile>,
    /// New files are for large batches: the last one that was full is part of a segment now.
    pub(super) are_batches_large: bool,
    /// The writer wanted a file, and there was none.
    pub(super) is_starved: bool,
    pub(super) is_sealed: bool,
}

impl WalFiles {
    /// Takes in files that are there already, to be recycled.
    pub(super) fn found(&mut self, spare: Vec<WalFile>) {
        self.spare = spare;
    }

    /// A prepared file, or else one to be recycled.
    pub(super) fn take_any(&mut self) -> (Option<WalFile>, Option<WalFile>) {
        match self.prepared.pop_front() {
            Some(prepared) => (Some(prepared), None),
            None => (None, self.spare.pop()),
        }
    }

    /// The writer writes to this file.
    pub(super) fn begin(&mut self, current: WalFile) {
        self.current = Some(current);
        self.is_sealed = false;
    }

    pub(super) fn has_prepared(&mut self) -> bool {
        self.is_starved |= self.prepared.is_empty();
        !self.prepared.is_empty()
    }

    pub(super) fn take_prepared(&mut self) -> Option<WalFile> {
        let next = self.prepared.pop_front()?;
        self.begin(next.clone());
        Some(next)
    }

    /// How a new file comes by its space.
    pub(super) fn fresh(&self) -> Fresh {
        if self.are_batches_large { Fresh::Allocated } else { Fresh::Zeroed }
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    pub(super) fn push_full(&mut self, file: WalFile, touched: IdMap<LogId, u64>, appended: Option<Vec<Appended>>) {
        self.full.push_back(Full { file, touched: Arc::new(touched), appended: appended.map(Arc::new) });
    }

    /// The current file is that long at least.
    pub(super) fn grow(&mut self, length: u64) {
        if let Some(current) = &mut self.current {
            current.length = current.length.max(length);
        }
    }

    pub(super) fn count(&self) -> usize {
        1 + self.full.len() + self.prepared.len() + self.spare.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        let waiting = self.full.iter().map(|full| &full.file).chain(&self.prepared).chain(&self.spare);
        self.current.iter().chain(waiting).map(|file| file.length).sum()
    }
}

impl Shared {
    /// When what is written now will be read, as far as one can tell from how much there is already.
    pub(super) fn reading(&self) -> Reading {
        let (segments, _) = self.state.lock().index.usage();
        if segments > READ_SOON { Reading::Later } else { Reading::Soon }
    }

    /// Makes durable what the index knows, before a segment says it.
    pub(super) fn sync_current(&self) -> Result<(), CommitError> {
        if self.options.sync == SyncMode::Always {
            return Ok(());
        }
        let Some(current) = self.state.lock().wal.current.clone() else { return Ok(()) };
        let failed = |error| LogError::Io { path: wal::path(current.sequence), action: "sync", error };
        Ok(current.file.sync().map_err(failed)?)
    }

    pub(super) fn open_segment(&self, number: u64, part: Part) -> Result<Arc<dyn File>, LogError> {
        let failed = |error| LogError::Io { path: segment::part_path(number, part), action: "open", error };
        self.handles.get(&*self.disk, number, part).map_err(failed)
    }

    /// Notes damage, so that the segment is rewritten, and says what the operator has to know:
    /// nothing, when the damage was known and nothing more is lost.
    pub(super) fn note_damage(&self, log: LogId, extent: &Extent, damage: Damage) -> Option<Report> {
        let mut state = self.state.lock();
        let segment = state.index.segments.get_mut(&extent.segment);
        let is_known = segment.is_some_and(|segment| std::mem::replace(&mut segment.damaged, true));
        drop(state);
        if is_known && damage.lost == 0 {
            return None;
        }
        let place = extent.place;
        let path = segment::part_path(extent.segment, place.part);
        let offset = place.offset + damage.offset as u64;
        let (lost, first, last) = (damage.lost, place.first, place.last);
        let text = format!(
            "{path}: damaged at byte {offset}: {lost} of the entries {first} to {last} of log {} cannot be read",
            log.0
        );
        let severity = if lost == 0 { Severity::Notice } else { Severity::Loss };
        Some(Report { severity, text })
    }
}
