//! Looking at a data directory without changing it: everything is read and checked.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::entry::{Header, LogId, RecordKind};
use super::segment::Part;
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
            RecordKind::Entry => "entry",
            RecordKind::Again => "entry (shared payload)",
            RecordKind::Settled => "settled",
            RecordKind::Delivered => "delivered",
            RecordKind::Dropped => "dropped",
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
    let mut contents = BTreeMap::new();
    let listed = |path: &str, error| LogError::Io { path: path.to_owned(), action: "list", error };
    let names = disk.list(segment::DIRECTORY).map_err(|error| listed(segment::DIRECTORY, error))?;
    let mut flushed = 0;
    for number in names.iter().filter_map(|name| segment::number_of(name)) {
        flushed = flushed.max(read_segment(disk, number, &mut verified, &mut contents, visit)?);
        verified.segments += 1;
    }
    let unchanged = Unchanged { disk: Arc::clone(disk), put_back: to_put_back(disk, &names) };
    let records = &mut verified.wal_records;
    let replay = wal::replay(&unchanged, flushed, &mut |sequence, header, payload| {
        *records += 1;
        settle(&mut contents, header, payload);
        visit(&wal::path(sequence), header);
    })?;
    verified.reports.extend(replay.reports);
    for (log, Contents { expected, present }) in contents {
        let missing = (expected - present).len();
        if missing > 0 {
            let text = format!("log {}: {missing} entries are in no file", log.0);
            verified.reports.push(Report { severity: Severity::Loss, text });
        }
    }
    Ok(verified)
}

/// What segments have of a log.
#[derive(Debug, Default)]
struct Contents {
    /// Live as of its newest checkpoint, less what the WAL says.
    expected: RoaringTreemap,
    present: RoaringTreemap,
}

fn settle(contents: &mut BTreeMap<LogId, Contents>, header: &Header, payload: &[u8]) {
    match header.kind {
        RecordKind::Dropped => _ = contents.remove(&header.head.log),
        RecordKind::Settled => {
            let Some(log) = contents.get_mut(&header.head.log) else { return };
            for pair in payload.chunks_exact(16) {
                let number = |half: &[u8]| half.try_into().map_or(0, u64::from_le_bytes);
                let (first, last) = pair.split_at(8);
                log.expected.remove_range(number(first)..=number(last));
            }
        }
        RecordKind::Entry | RecordKind::Again | RecordKind::Delivered => {}
    }
}

/// Reads a segment; returns up to which WAL file it says that all is flushed.
fn read_segment(
    disk: &Arc<dyn Storage>,
    number: u64,
    verified: &mut Verified,
    contents: &mut BTreeMap<LogId, Contents>,
    visit: &mut dyn FnMut(&str, &Header),
) -> Result<u64, LogError> {
    let path = segment::path(number);
    let failed = |error| LogError::Io { path: path.clone(), action: "read", error };
    let loaded = segment::load(&**disk, number)?;
    // Nothing of a segment may be damaged, also what can be done without.
    verified.reports.extend(loaded.reports.into_iter().map(|report| Report { severity: Severity::Loss, ..report }));
    let file = disk.open(&path).map_err(failed)?;
    let wal_path = segment::wal_path(number);
    let kept = if loaded.footer.wal_length > 0 { Some(disk.open(&wal_path).map_err(failed)?) } else { None };
    for log in &loaded.footer.logs {
        if log.dropped {
            contents.remove(&log.log);
        }
        let known = contents.entry(log.log).or_default();
        if let Some(checkpoint) = &log.checkpoint {
            known.expected.clone_from(&checkpoint.live);
        }
        for chunk in &log.chunks {
            let (path, file) = match (chunk.place.part, &kept) {
                (Part::Wal, Some(kept)) => (&wal_path, kept),
                (Part::Own, _) | (Part::Wal, None) => (&path, &file),
            };
            let bytes = segment::read_up_to(file, chunk.place.offset, chunk.place.length as usize).map_err(failed)?;
            let entries = &mut verified.segment_entries;
            let damage = segment::chunk_records(&**disk, number, &bytes, log.log, &chunk.place, &mut |header, _| {
                *entries += 1;
                known.present.insert(header.head.index);
                visit(path, header);
            })?;
            if let Some(damage) = damage {
                let offset = chunk.place.offset + damage.offset as u64;
                let text = format!("{path}: damaged at offset {offset}: {} entries of log {}", damage.lost, log.log.0);
                verified.reports.push(Report { severity: Severity::Loss, text });
            }
        }
    }
    Ok(loaded.footer.identity.flushed)
}

/// WAL files that recovery would put back: their paths as they would be, and as they are.
fn to_put_back(disk: &Arc<dyn Storage>, names: &[String]) -> Vec<(String, String)> {
    let there: Vec<u64> = names.iter().filter_map(|name| segment::number_of(name)).collect();
    let alone = names.iter().filter_map(|name| segment::wal_number_of(name)).filter(|number| !there.contains(number));
    let paths = alone.filter_map(|number| {
        let path = segment::wal_path(number);
        let file = wal::WalFile::open_kept(&**disk, &path).ok().flatten()?;
        Some((wal::path(file.sequence), path))
    });
    paths.collect()
}

/// A disk that takes changes and does nothing about them.
#[derive(Debug)]
struct Unchanged {
    disk: Arc<dyn Storage>,
    put_back: Vec<(String, String)>,
}

#[derive(Debug)]
struct UnchangedFile(Arc<dyn File>);

impl Storage for Unchanged {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = self.disk.list(directory)?;
        let back = self.put_back.iter().filter_map(|(path, _)| path.strip_prefix(directory)?.strip_prefix('/'));
        names.extend(back.map(str::to_owned));
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, _path: &str) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let back = self.put_back.iter().find(|(back, _)| back == path);
        Ok(Arc::new(UnchangedFile(self.disk.open(back.map_or(path, |(_, path)| path))?)))
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

    fn allocate(&self, _length: u64) -> io::Result<bool> {
        Ok(true)
    }
}
