//! Recovery of WAL files: which batches count, what is lost, and what was never finished.
//!
//! Batches are numbered, and each says up to which number they were on disk when it was written. Let *proven* be the highest
//! such number anywhere. A batch up to there was synced: when it is missing or bad, something is lost, and what is good of
//! it and all that follows is used. Behind it the first batch that is missing or bad was never finished: there the log
//! ends. All of what follows is cut off, good or not, since in a log that is synced now and then what comes later may rest
//! on what is missing. Of an unfinished batch nothing is used: nothing in it was confirmed, and so a batch is there as a
//! whole or not at all.

use std::io::IoSlice;

use bytes::Bytes;

use super::header::{BATCH_HEADER, BLOCK, BatchHeader, FILE_HEADER, FileHeader, Read, VERSION};
use super::read::{Found, Reader, Survey, lost_batches, read_batch, survey};
use super::{DIRECTORY, WalFile, path};
use crate::log::entry::Header;
use crate::log::storage::Storage;
use crate::log::{LogError, Report, Severity};

/// What recovery found.
#[derive(Debug)]
pub(in crate::log) struct Replay {
    /// Files above `flushed`, ascending: first those with batches, to be flushed, and damaged ones, to be kept; also
    /// prepared ones, see [`WalFile::is_prepared`].
    pub(in crate::log) files: Vec<WalFile>,
    /// Files whose content is not needed, to be recycled.
    pub(in crate::log) spare: Vec<WalFile>,
    /// Above every sequence number found.
    pub(in crate::log) next_sequence: u64,
    /// What the next batch's number has to be.
    pub(in crate::log) next_batch: u64,
    pub(in crate::log) reports: Vec<Report>,
}

/// Who is told a file's sequence number, a record and its payload; that of a record of kind `Again` is the one it refers to.
pub(in crate::log) type ReplayVisit<'a> = dyn FnMut(u64, &Header, &Bytes) + 'a;

/// Reads all records above the file `flushed`, and makes the files such that `records` gives the same, and that the next
/// recovery does too. Everything found is on disk afterwards.
pub(in crate::log) fn replay(
    disk: &dyn Storage,
    flushed: u64,
    visit: &mut ReplayVisit<'_>,
) -> Result<Replay, LogError> {
    let (mut candidates, mut spare, mut next_sequence) = (Vec::new(), Vec::new(), flushed.saturating_add(1));
    for sequence in sequences(disk)? {
        next_sequence = next_sequence.max(sequence.saturating_add(1));
        let candidate = open(disk, sequence, flushed)?;
        if sequence > flushed {
            candidates.push(candidate);
        } else {
            spare.push(candidate.file);
        }
    }
    let mut recovery = Recovery::new(flushed, &candidates);
    recovery.unknown_content(&candidates)?;
    for at in 0..candidates.len() {
        recovery.file(&mut candidates, at, visit)?;
    }
    recovery.cut_off(&candidates)?;
    let mut files = Vec::new();
    for Candidate { file, survey, .. } in candidates {
        // A process that died may have left what was never synced: the header of a prepared file, too.
        if !survey.found.is_empty() || file.salt.is_some() {
            file.file.sync().map_err(|error| failed(&file, "sync", error))?;
        }
        // One without a header was never finished, and one where all was cut off is better begun anew.
        let is_usable = file.last > 0
            || file.damaged
            || (file.salt.is_some() && survey.found.is_empty() && survey.remnant.is_none());
        if is_usable { &mut files } else { &mut spare }.push(file);
    }
    let next_batch = recovery.expected.unwrap_or(1);
    Ok(Replay { files, spare, next_sequence, next_batch, reports: recovery.reports })
}

/// A file as found.
struct Candidate {
    file: WalFile,
    survey: Survey,
    /// Its first bytes are no header, nor zeros, and there are no batches in it.
    is_unknown: bool,
}

struct Recovery {
    flushed: u64,
    /// The highest batch that is known to have been synced.
    proven: u64,
    /// The number of the next batch, once there is one.
    expected: Option<u64>,
    /// The last file with batches that was read, as a place among the candidates.
    previous: Option<usize>,
    /// Where in the file `previous` the next batch would have been.
    end: u64,
    /// The log has ended: what comes now is cut off.
    is_over: bool,
    /// Where it has ended: a place among the candidates, and the batch to put there.
    mark: Option<(usize, Found)>,
    /// What is to be cut off: a place among the candidates, and an offset in the file.
    cut: Vec<(usize, u64)>,
    reports: Vec<Report>,
}

impl Recovery {
    fn new(flushed: u64, candidates: &[Candidate]) -> Self {
        let found = candidates.iter().flat_map(|candidate| &candidate.survey.found);
        let proven = found.map(|found| found.header.synced).max().unwrap_or(0);
        let (expected, previous, end) = (None, None, BLOCK);
        Self {
            flushed,
            proven,
            expected,
            previous,
            end,
            is_over: false,
            mark: None,
            cut: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// Names files of which it cannot be known what they were, and makes them empty. One that was being made when the node
    /// died has a header or none; after a torn write of it there may be half of one, which is no loss.
    fn unknown_content(&mut self, candidates: &[Candidate]) -> Result<(), LogError> {
        for Candidate { file, .. } in candidates.iter().filter(|candidate| candidate.is_unknown) {
            overwrite(file, 0, &[0; BLOCK as usize])?;
            file.file.sync().map_err(|error| failed(file, "sync", error))?;
            let text = format!("{}: not a WAL file: taken for one that was never finished", path(file.sequence));
            self.reports.push(Report { severity: Severity::Notice, text });
        }
        Ok(())
    }

    /// Reads the batches of a file.
    fn file(&mut self, files: &mut [Candidate], at: usize, visit: &mut ReplayVisit<'_>) -> Result<(), LogError> {
        let Some(Candidate { file, survey, .. }) = files.get(at) else { return Ok(()) };
        let (mut file, found) = (file.clone(), survey.found.clone());
        let Some(first) = found.first() else { return Ok(()) };
        self.between_files(files, &file, first);
        if file.salt.is_none() {
            self.loss(format!("{}: its header is damaged", path(file.sequence)));
            file.damaged = true;
        }
        (self.previous, self.end) = (Some(at), BLOCK);
        let source = file.clone();
        let mut reader = Reader::new(&source, source.length);
        for found in &found {
            let number = found.header.number;
            self.before_batch(at, &mut file, found);
            let body = if self.is_over { None } else { Some(read_batch(&mut reader, found)?) };
            let Some(body) = body.filter(|body| body.is_complete || number <= self.proven) else {
                self.end_log(at, &mut file, found, found.offset);
                self.cut.push((at, found.offset));
                continue;
            };
            let report = body.report(&path(file.sequence), found);
            file.damaged |= report.is_some();
            self.reports.extend(report);
            body.records.iter().for_each(|record| visit(file.sequence, &record.header, &record.payload));
            file.last = number;
            (self.expected, self.end) = (self.expected.max(Some(number + 1)), found.end());
        }
        if let Some(candidate) = files.get_mut(at) {
            candidate.file = file;
        }
        Ok(())
    }

    /// Looks at what is missing between the files read so far and the first batch of the next one.
    fn between_files(&mut self, files: &mut [Candidate], file: &WalFile, first: &Found) {
        let begins = first.header.first_of_file();
        let before = match u64::from(first.header.back) {
            0 => self.previous.and_then(|previous| files.get(previous)).map_or(0, |previous| previous.file.sequence),
            back => file.sequence.saturating_sub(back),
        };
        let is_first = self.expected.is_none();
        let expected = *self.expected.get_or_insert(begins);
        // The first file with batches tells of one before it: was that flushed?
        let is_missing = if is_first { before > self.flushed } else { expected < begins };
        if !is_missing || self.is_over {
            return;
        }
        let Some(last) = Some(begins - 1).filter(|last| *last <= self.proven) else {
            // Some of it was never synced: the log ends in there, and `before_batch` says so.
            self.is_over |= is_first;
            return;
        };
        let what = if is_first { format!("batches up to {last}") } else { format!("batches {expected} to {last}") };
        let place = files.iter().position(|candidate| candidate.file.sequence == before);
        match place.and_then(|place| files.get_mut(place)) {
            Some(candidate) => {
                candidate.file.damaged = true;
                let end = if self.previous == place { self.end } else { BLOCK };
                self.loss(format!("{}: damaged at byte {end}: {what} are lost", path(before)));
            }
            None => self.loss(format!("{}: the file is missing: {what} are lost", path(before))),
        }
        self.expected = Some(begins);
    }

    /// Looks at what is missing before a batch: something lost, or the end of the log.
    fn before_batch(&mut self, at: usize, file: &mut WalFile, found: &Found) {
        let (number, expected) = (found.header.number, self.expected.unwrap_or(found.header.number));
        if self.is_over || number == expected {
            return;
        }
        if number < expected {
            self.loss(format!("{}: batch {number} at byte {} is out of order", path(file.sequence), found.offset));
            file.damaged = true;
            return;
        }
        let last = self.proven.min(number - 1);
        if expected <= last {
            self.reports.push(lost_batches(&path(file.sequence), self.end, expected, last));
            file.damaged = true;
            self.expected = Some(last + 1);
        }
        if last + 1 < number {
            self.end_log(at, file, found, self.end);
        }
    }

    /// The log ends before a batch. In its place, or that of a missing one before it, comes one without records: so the next
    /// recovery knows what this one knew to be synced, though the batches that told it are gone.
    fn end_log(&mut self, at: usize, file: &mut WalFile, found: &Found, offset: u64) {
        self.is_over = true;
        if self.mark.is_some() {
            return;
        }
        let number = self.expected.unwrap_or(found.header.number);
        let ordinal = number.saturating_sub(found.header.first_of_file());
        let ordinal = u32::try_from(ordinal).unwrap_or(u32::MAX);
        // It does not tell of a file before it: what was there and is not is part of what was never finished.
        let (length, records, back, table) = (0, 0, 0, 0);
        let header = BatchHeader { number, synced: self.proven, length, records, ordinal, back, table, ..found.header };
        self.mark = Some((at, Found { offset, header }));
        self.expected = Some(number.saturating_add(1));
        file.last = number;
    }

    /// Makes unfinished batches such that nobody finds them again.
    fn cut_off(&mut self, files: &[Candidate]) -> Result<(), LogError> {
        for (at, Candidate { file, survey, .. }) in files.iter().enumerate() {
            // In a damaged file it may be what was lost: nothing more can be known of it.
            let remnant = survey.remnant.filter(|_| !file.damaged);
            self.cut.extend(remnant.map(|offset| (at, offset)));
            let cut: Vec<u64> = self.cut.iter().filter(|(place, _)| *place == at).map(|(_, offset)| *offset).collect();
            let mark = self.mark.filter(|(place, _)| *place == at).map(|(_, mark)| mark.offset);
            let Some(start) = cut.iter().copied().chain(mark).min() else { continue };
            cut.iter().try_for_each(|offset| overwrite(file, *offset, &[0; BLOCK as usize]))?;
            file.file.sync().map_err(|error| failed(file, "sync", error))?;
            let end = survey.found.last().map_or(0, Found::end).max(start + BLOCK);
            let (path, bytes) = (path(file.sequence), end - start);
            let text = format!("{path}: cut off at byte {start}: {bytes} bytes of batches that were never finished");
            self.reports.push(Report { severity: Severity::Notice, text });
        }
        // Not before all that follows it is gone, and not with the same sync.
        if let Some((at, mark)) = self.mark
            && let Some(Candidate { file, .. }) = files.get(at)
        {
            let mut block = [0; BLOCK as usize];
            block[..BATCH_HEADER].copy_from_slice(&mark.header.bytes(mark.offset));
            overwrite(file, mark.offset, &block)?;
            file.file.sync().map_err(|error| failed(file, "sync", error))?;
        }
        Ok(())
    }

    fn loss(&mut self, text: String) {
        self.reports.push(Report { severity: Severity::Loss, text });
    }
}

/// The sequence numbers of all files, ascending.
fn sequences(disk: &dyn Storage) -> Result<Vec<u64>, LogError> {
    let failed = |error| LogError::Io { path: DIRECTORY.to_owned(), action: "list", error };
    let names = disk.list(DIRECTORY).map_err(failed)?;
    let number = |name: &String| name.strip_suffix(".wal")?.parse().ok();
    let is_ours = |name: &String, sequence: u64| sequence > 0 && path(sequence).ends_with(&format!("/{name}"));
    let numbers = names.iter().filter_map(|name| number(name).filter(|sequence| is_ours(name, *sequence)));
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a file, and looks for batches when it is not a flushed one.
fn open(disk: &dyn Storage, sequence: u64, flushed: u64) -> Result<Candidate, LogError> {
    let path = path(sequence);
    let failed = |action| move |error| LogError::Io { path: self::path(sequence), action, error };
    let file = disk.open(&path).map_err(failed("open"))?;
    let length = file.length().map_err(failed("open"))?;
    let mut file = WalFile { sequence, file, length, last: 0, damaged: false, salt: None };
    if sequence <= flushed {
        return Ok(Candidate { file, survey: Survey::default(), is_unknown: false });
    }
    let first = Reader::new(&file, length).bytes(0, FILE_HEADER)?;
    let mut is_unknown = false;
    match FileHeader::read(&first) {
        Read::Valid(header) if header.sequence == sequence => file.salt = Some(header.salt),
        Read::Newer(found) => return Err(LogError::Version { path, found, known: VERSION }),
        // Made or recycled, and never finished.
        Read::Valid(_) => {}
        Read::Foreign | Read::Damaged => is_unknown = first.iter().any(|byte| *byte != 0),
    }
    let survey = survey(&file)?;
    is_unknown &= survey.found.is_empty();
    Ok(Candidate { file, survey, is_unknown })
}

fn overwrite(file: &WalFile, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
    file.file.write_at(&[IoSlice::new(bytes)], offset).map_err(|error| failed(file, "write", error))
}

fn failed(file: &WalFile, action: &'static str, error: std::io::Error) -> LogError {
    LogError::Io { path: path(file.sequence), action, error }
}
