//! Damage of a log that was synced: what is good comes back, nothing comes back that is not, and what is lost is told.

use std::collections::BTreeMap;

use super::super::header::{BATCH_HEADER, BLOCK};
use super::super::{WalFile, WalWriter, path};
use super::{Expected, Fresh, Records, has_loss, read_back, replayed};
use crate::log::Severity;
use crate::log::memory::MemoryDisk;
use crate::model::random::Random;

const FILE: u64 = 5 * BLOCK;
const FIRST: u64 = 4;

/// A log of three files, each batch synced, with a prepared file behind them.
struct Log {
    disk: MemoryDisk,
    batches: Vec<Batch>,
}

struct Batch {
    file: u64,
    offset: u64,
    /// With header and table, without the padding.
    length: u64,
    records: Vec<Expected>,
}

impl Log {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new();
        let mut records = Records::new(Random::new(seed));
        let mut writer = WalWriter::new(WalFile::make(&disk, FIRST, FILE, Fresh::Zeroed).unwrap(), 100);
        let mut batches = Vec::new();
        loop {
            let (batch, expected) = records.batch();
            if batch.length() > 2 * BLOCK as usize {
                continue;
            }
            if !writer.fits(batch.length()) {
                if writer.sequence() == FIRST + 2 {
                    break;
                }
                writer.roll(WalFile::make(&disk, writer.sequence() + 1, FILE, Fresh::Zeroed).unwrap());
            }
            let (file, offset, length) = (writer.sequence(), writer.offset(), (batch.length() + BATCH_HEADER) as u64);
            batches.push(Batch { file, offset, length, records: expected });
            writer.write(&[&batch]).unwrap();
            writer.sync().unwrap();
        }
        WalFile::make(&disk, FIRST + 3, FILE, Fresh::Zeroed).unwrap();
        Self { disk, batches }
    }

    fn all(&self) -> Vec<Expected> {
        self.batches.iter().flat_map(|batch| batch.records.clone()).collect()
    }

    fn batches_of(&self, file: u64) -> Vec<&Batch> {
        self.batches.iter().filter(|batch| batch.file == file).collect()
    }
}

/// What came back of a damaged log.
#[derive(Debug)]
struct Outcome {
    found: Vec<Expected>,
    has_loss: bool,
    texts: Vec<String>,
    next_batch: u64,
}

/// Recovers a damaged log, and checks that the flush would find the same, and the next recovery too.
fn recover(disk: &MemoryDisk, flushed: u64) -> Outcome {
    let (recovered, found) = replayed(disk, flushed).unwrap();
    for file in &recovered.files {
        let (reports, again) = read_back(file).unwrap();
        assert!(found.iter().filter(|(sequence, _)| *sequence == file.sequence).map(|(_, record)| record).eq(&again));
        assert!(!has_loss(&reports) || file.damaged, "{reports:?}");
    }
    assert_eq!(
        has_loss(&recovered.reports),
        recovered.reports.iter().any(|report| report.text.contains("missing"))
            || recovered.files.iter().any(|file| file.damaged),
        "{:?}",
        recovered.reports
    );
    let (next, again) = replayed(disk, flushed).unwrap();
    assert!(again == found && next.next_batch == recovered.next_batch);
    assert!(next.reports.iter().all(|report| report.severity == Severity::Loss));
    assert_eq!(has_loss(&next.reports), has_loss(&recovered.reports));
    Outcome {
        found: found.into_iter().map(|(_, record)| record).collect(),
        has_loss: has_loss(&recovered.reports),
        texts: recovered.reports.into_iter().map(|report| report.text).collect(),
        next_batch: recovered.next_batch,
    }
}

/// Whether some records, in order, are all or some of others.
fn is_part(found: &[Expected], all: &[Expected]) -> bool {
    let mut all = all.iter();
    found.iter().all(|record| all.any(|other| other == record))
}

/// Every bit of what was written, with some of the padding.
#[test]
fn every_flipped_bit_is_survived() {
    for seed in 1..4 {
        let log = Log::new(seed);
        let all = log.all();
        let last = log.batches.last().unwrap();
        let mut outcomes = BTreeMap::new();
        for (at, batch) in log.batches.iter().enumerate() {
            let before: usize = log.batches[..at].iter().map(|batch| batch.records.len()).sum();
            let is_last = std::ptr::eq(batch, last);
            for byte in batch.offset..batch.offset + batch.length + 8 {
                // All bits where a bit has a meaning of its own.
                let is_header = byte < batch.offset + BATCH_HEADER as u64;
                let bits = if is_header { 0..8 } else { (byte % 8) as u8..(byte % 8) as u8 + 1 };
                for bit in bits {
                    let disk = log.disk.copy();
                    assert!(disk.flip_bit(&path(batch.file), byte, bit) || byte >= batch.offset + batch.length);
                    let outcome = recover(&disk, FIRST - 1);
                    let context = || format!("seed {seed}, batch {at}, byte {byte}: {:?}", outcome.texts);
                    let is_whole = outcome.found == all;
                    *outcomes.entry((is_whole, outcome.has_loss)).or_insert(0) += 1;
                    assert!(is_part(&outcome.found, &all), "{}", context());
                    // Other batches stay.
                    assert!(outcome.found.starts_with(&all[..before]), "{}", context());
                    assert!(outcome.found.ends_with(&all[before + batch.records.len()..]), "{}", context());
                    if is_last {
                        assert!(!outcome.has_loss && (is_whole || outcome.found.len() == before), "{}", context());
                        assert_eq!(is_whole, outcome.texts.is_empty(), "{}", context());
                    } else {
                        assert_eq!(is_whole, !outcome.has_loss, "{}", context());
                        assert_eq!(outcome.next_batch, 100 + log.batches.len() as u64, "{}", context());
                    }
                    let in_records = byte >= batch.offset + batch.length - records_length(batch);
                    if in_records && !is_last && !is_whole && byte < batch.offset + batch.length {
                        // At least all but one record, and those that have its payload.
                        let again =
                            batch.records.iter().filter(|record| record.kind == crate::log::entry::RecordKind::Again);
                        assert!(outcome.found.len() + 1 + again.count() >= all.len(), "{}", context());
                    }
                }
            }
        }
        assert!(outcomes.contains_key(&(false, true)) && outcomes.contains_key(&(true, false)), "{outcomes:?}");
    }
}

fn records_length(batch: &Batch) -> u64 {
    batch.length - BATCH_HEADER as u64 - 8 * batch.records.len() as u64
}

#[test]
fn a_files_header_is_not_needed_to_read_it() {
    let log = Log::new(1);
    for file in FIRST..FIRST + 3 {
        for bit in 0..28 * 8 {
            let disk = log.disk.copy();
            disk.flip_bit(&path(file), bit / 8, (bit % 8) as u8);
            let outcome = recover(&disk, FIRST - 1);
            assert!(outcome.found == log.all() && outcome.has_loss, "bit {bit}: {:?}", outcome.texts);
        }
        let disk = log.disk.copy();
        disk.zero(&path(file), 0..BLOCK);
        let outcome = recover(&disk, FIRST - 1);
        assert_eq!((outcome.found, outcome.texts), (log.all(), vec![format!("{}: its header is damaged", path(file))]));
    }
    // One without batches is made anew.
    let disk = log.disk.copy();
    disk.zero(&path(FIRST + 3), 0..BLOCK);
    let outcome = recover(&disk, FIRST - 1);
    assert!(outcome.texts.is_empty() && outcome.found == log.all());
}

#[test]
fn missing_files_are_reported() {
    for seed in 1..20 {
        let log = Log::new(seed);
        for lost in FIRST..FIRST + 4 {
            let is_last = lost >= FIRST + 2;
            for wiped in [true, false] {
                let disk = log.disk.copy();
                if wiped {
                    disk.zero(&path(lost), 0..FILE);
                } else {
                    disk.lose(&path(lost));
                }
                let outcome = recover(&disk, FIRST - 1);
                let left = log.batches.iter().filter(|batch| batch.file != lost);
                let expected: Vec<_> = left.flat_map(|batch| batch.records.clone()).collect();
                assert!(outcome.found == expected, "seed {seed}, file {lost}: {:?}", outcome.texts);
                // What was written last leaves no trace.
                assert_eq!(outcome.has_loss, !is_last, "seed {seed}, file {lost}: {:?}", outcome.texts);
                assert!(
                    is_last || outcome.texts.iter().all(|text| text.starts_with(&path(lost))),
                    "{:?}",
                    outcome.texts
                );
            }
            // When it was flushed nobody needs it.
            if lost == FIRST {
                let disk = log.disk.copy();
                disk.lose(&path(lost));
                let outcome = recover(&disk, FIRST);
                assert!(outcome.texts.is_empty(), "{:?}", outcome.texts);
            }
        }
    }
}

#[test]
fn every_truncation_is_survived() {
    let log = Log::new(2);
    let all = log.all();
    for file in FIRST..FIRST + 3 {
        let batches = log.batches_of(file);
        let before = log.batches.iter().filter(|batch| batch.file < file).map(|batch| batch.records.len()).sum();
        let end = batches.last().map_or(0, |batch| batch.offset + batch.length);
        for length in (0..FILE).filter(|length| length % 64 < 2 || length % 4096 > 4090) {
            let disk = log.disk.copy();
            disk.truncate(&path(file), length);
            let outcome = recover(&disk, FIRST - 1);
            let context = || format!("file {file}, length {length}: {:?}", outcome.texts);
            assert!(is_part(&outcome.found, &all) && outcome.found.starts_with(&all[..before]), "{}", context());
            let whole: usize = batches
                .iter()
                .filter(|batch| batch.offset + batch.length <= length)
                .map(|batch| batch.records.len())
                .sum();
            assert!(outcome.found.starts_with(&all[..before + whole]), "{}", context());
            if file < FIRST + 2 {
                let after: usize =
                    log.batches.iter().filter(|batch| batch.file > file).map(|batch| batch.records.len()).sum();
                assert!(outcome.found.ends_with(&all[all.len() - after..]), "{}", context());
                assert_eq!(
                    outcome.found.len() < all.len(),
                    length < 28 || outcome.has_loss && length < end,
                    "{}",
                    context()
                );
            }
        }
    }
}

/// Whole sectors and blocks, in many places at once.
#[test]
fn any_damage_is_survived_and_told() {
    let mut random = Random::new(7);
    let (mut losses, mut whole) = (0, 0);
    for round in 0..1_000 {
        let log = Log::new(round % 20);
        let all = log.all();
        let places = 1 + random.next_bits() % 3;
        for _ in 0..places {
            let file = path(FIRST + random.next_bits() % 3);
            let at = random.next_bits() % FILE / 512 * 512;
            match random.next_bits() % 4 {
                0 => drop(log.disk.zero(&file, at..at + 4096)),
                1 => drop(log.disk.flip_bit(&file, at + random.next_bits() % 512, 3)),
                2 => {
                    // A block that belongs somewhere else.
                    let from = (random.next_bits() % FILE / 512 * 512) as usize;
                    let mut bytes = log.disk.bytes(&file).unwrap();
                    bytes.copy_within(from..from + 512, at as usize);
                    log.disk.put(&file, &bytes);
                }
                _ => drop(log.disk.zero(&file, at..at + 512)),
            }
        }
        let outcome = recover(&log.disk, FIRST - 1);
        assert!(is_part(&outcome.found, &all), "round {round}: {:?}", outcome.texts);
        // Of what is missing only the end of the log may go untold.
        let is_end_missing = all.starts_with(&outcome.found);
        assert!(outcome.has_loss || is_end_missing, "round {round}: {:?}", outcome.texts);
        losses += usize::from(outcome.has_loss);
        whole += usize::from(outcome.found.len() == all.len());
    }
    assert!(losses > 200 && whole > 100, "{losses} {whole}");
}
