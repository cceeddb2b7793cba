//! Looking at a data directory without changing it: everything is read and checked.

use std::io::{self, IoSlice};
use std::sync::Arc;

use super::entry::{Header, Kind};
use super::storage::{File, Storage};
use super::{LogError, Report, Severity, segment, wal};

/// What a data directory has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: u64,
    /// Entries in segments, live or not.
    pub segment_entries: u64,
    /// Records in the WAL.
    pub wal_records: u64,
    /// Damage; a WAL that ends in something unfinished is none.
    pub reports: Vec<Report>,
}

impl Verified {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.reports.iter().all(|report| report.severity == Severity::Notice)
    }
}

/// Reads all segments and the WAL, and checks every checksum. Nothing is changed.
pub fn verify(disk: &Arc<dyn Storage>) -> Result<Verified, LogError> {
    read(disk, &mut |_, _| {})
}

/// The same, telling each record as one line: where it is, what it is, its log, index, class and length.
pub fn dump(disk: &Arc<dyn Storage>, line: &mut dyn FnMut(&str)) -> Result<Verified, LogError> {
    read(disk, &mut |path, header| {
        let head = &header.head;
        let kind = match header.kind {
            Kind::Entry => "entry",
            Kind::Again => "entry (shared payload)",
            Kind::Settled => "settled",
            Kind::Delivered => "delivered",
            Kind::Dropped => "dropped",
        };
        let transient = if head.transient { " transient" } else { "" };
        let deadline = if head.deadline == u64::MAX { String::new() } else { format!(" deadline={}", head.deadline) };
        let (log, index, time, class, length) = (head.log.0, head.index, head.time, head.class, header.length);
        line(&format!(
            "{path} {kind} log={log} index={index} time={time} class={class}{deadline}{transient} bytes={length}"
        ));
    })
}

fn read(disk: &Arc<dyn Storage>, visit: &mut dyn FnMut(&str, &Header)) -> Result<Verified, LogError> {
    let mut verified = Verified::default();
    let listed = |path: &str, error| LogError::Io { path: path.to_owned(), action: "list", error };
    let names = disk.list(segment::DIRECTORY).map_err(|error| listed(segment::DIRECTORY, error))?;
    let mut flushed = 0;
    for number in names.iter().filter_map(|name| segment::number_of(name)) {
        flushed = flushed.max(read_segment(disk, number, &mut verified, visit)?);
        verified.segments += 1;
    }
    let unchanged = Unchanged(Arc::clone(disk));
    let records = &mut verified.wal_records;
    let replay = wal::replay(&unchanged, flushed, &mut |sequence, header, _| {
        *records += 1;
        visit(&wal::path(sequence), header);
    })?;
    verified.reports.extend(replay.reports);
    Ok(verified)
}

/// Reads a segment; returns up to which WAL file it says that all is flushed.
fn read_segment(
    disk: &Arc<dyn Storage>,
    number: u64,
    verified: &mut Verified,
    visit: &mut dyn FnMut(&str, &Header),
) -> Result<u64, LogError> {
    let path = segment::path(number);
    let failed = |error| LogError::Io { path: path.clone(), action: "read", error };
    let loaded = segment::load(&**disk, number)?;
    verified.reports.extend(loaded.reports);
    let file = disk.open(&path).map_err(failed)?;
    for log in &loaded.footer.logs {
        for chunk in &log.chunks {
            let bytes = segment::read_up_to(&file, chunk.place.offset, chunk.place.length as usize).map_err(failed)?;
            let entries = &mut verified.segment_entries;
            let damage = segment::chunk_records(&bytes, log.log, &chunk.place, &mut |header, _| {
                *entries += 1;
                visit(&path, header);
            });
            if let Some(damage) = damage {
                let offset = chunk.place.offset + damage.offset as u64;
                let text = format!("{path}: damaged at offset {offset}: {} entries of log {}", damage.lost, log.log.0);
                verified.reports.push(Report { severity: Severity::Loss, text });
            }
        }
    }
    Ok(loaded.footer.identity.flushed)
}

/// A disk that takes changes and does nothing about them.
#[derive(Debug)]
struct Unchanged(Arc<dyn Storage>);

#[derive(Debug)]
struct UnchangedFile(Arc<dyn File>);

impl Storage for Unchanged {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.0.list(directory)
    }

    fn create(&self, _path: &str) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnchangedFile(self.0.open(path)?)))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_directory(&self, _directory: &str) -> io::Result<()> {
        Ok(())
    }
}

impl File for UnchangedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _pieces: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }
}
