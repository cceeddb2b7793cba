//! Damaged segments, those that have a WAL file above all: what is good is found, what is lost is told, and nothing else
//! comes up.

use std::collections::BTreeMap;

use super::*;
use crate::log::verify;
use crate::model::random::Random;

const LOGS: std::ops::Range<u64> = 7..10;
const SETTLED: u64 = 4;

/// Nothing is merged.
const KEEPING: Options = Options { keeping: KEEP_SOME, segment_bytes: 4 << 20, ..OPTIONS };

/// A disk on which everything is in segments, some with WAL files; entries up to [`SETTLED`] of each log are settled.
fn written() -> (MemoryDisk, BTreeMap<(u64, u64), Vec<u8>>) {
    let disk = MemoryDisk::new();
    let mut live = BTreeMap::new();
    let Opened { log, mut writer, .. } = Log::open(Arc::new(disk.clone()), KEEPING).expect("the log opens");
    for round in 0..4 {
        for id in LOGS {
            let mut batch = Batch::default();
            for index in round * 5 + 1..=round * 5 + 5 {
                let bytes = payload(id, index, (100 + id * 40 + index) as usize);
                batch.append(&head(id, index), &[&bytes], &[]);
                if index > SETTLED {
                    live.insert((id, index), bytes.clone());
                }
                // Its payload is in a record of another log.
                if index % 3 == 0 {
                    assert!(batch.append_again(&head(id + 100, index)));
                    live.insert((id + 100, index), bytes);
                }
            }
            commit(&mut writer, &batch);
        }
        if round == 1 {
            for id in LOGS {
                settle(&mut writer, id, 1, SETTLED);
            }
        }
        flush(&log, &mut writer);
    }
    let kept = disk.paths().iter().filter(|path| path.starts_with("segments/") && path.ends_with(".wal")).count();
    assert!(kept >= 3, "{:?}", disk.paths());
    disk.kill();
    (disk, live)
}

/// Opens a damaged disk, twice, with maintenance between. What was found first.
fn check(disk: &MemoryDisk, live: &BTreeMap<(u64, u64), Vec<u8>>, what: &dyn Fn() -> String) {
    let seam: Arc<dyn crate::log::Storage> = Arc::new(disk.clone());
    let verified = verify(&seam).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let Opened { log, logs, mut reports, .. } =
        Log::open(seam.clone(), KEEPING).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let mut found = contents(&log, &logs, &mut reports, live, what);
    reports.extend(maintain(&log).reports);
    let missing = live.keys().filter(|key| !found.contains_key(key)).count();
    let told = !losses(&reports).is_empty();
    assert!(missing == 0 || told, "{}: {missing} entries are gone, and not a word: {reports:?}", what());
    assert!(missing == 0 || !verified.is_healthy(), "{}: verify has not noticed", what());
    found.retain(|key, _| !live.contains_key(key) && key.0 != 999);
    assert!(found.is_empty() || told, "{}: {:?} came back, and not a word", what(), found.keys());
    // What is left stays.
    disk.kill();
    let again = Log::open(seam, KEEPING).unwrap_or_else(|error| panic!("{}: {error}", what()));
    assert_eq!(losses(&again.reports), [""; 0], "{}", what());
    let mut reports = Vec::new();
    let left = contents(&again.log, &again.logs, &mut reports, live, what);
    assert_eq!(losses(&reports), [""; 0], "{}", what());
    let lost = live.keys().filter(|key| !left.contains_key(key)).count();
    assert_eq!(lost, missing, "{}", what());
}

fn contents(
    log: &Log,
    logs: &[crate::log::RecoveredLog],
    reports: &mut Vec<crate::log::Report>,
    live: &BTreeMap<(u64, u64), Vec<u8>>,
    what: &dyn Fn() -> String,
) -> BTreeMap<(u64, u64), Vec<u8>> {
    let mut found = BTreeMap::new();
    for known in logs {
        for chunk in &known.chunks {
            let read =
                log.read(known.log, chunk.first, chunk.last).unwrap_or_else(|error| panic!("{}: {error}", what()));
            reports.extend(read.reports);
            let members = members(chunk);
            for entry in read.entries.iter().filter(|entry| members.contains(&entry.head.index)) {
                let key = (known.log.0, entry.head.index);
                if let Some(expected) = live.get(&key) {
                    assert_eq!(&entry.payload, expected, "{}", what());
                }
                found.insert(key, entry.payload.to_vec());
            }
        }
    }
    found
}

fn segment_files(disk: &MemoryDisk) -> Vec<(String, u64)> {
    let paths = disk.paths().into_iter().filter(|path| path.starts_with("segments/"));
    paths.map(|path| (path.clone(), disk.bytes(&path).expect("it is there").len() as u64)).collect()
}

#[test]
fn nothing_is_lost_without_damage() {
    let (disk, live) = written();
    check(&disk, &live, &|| "undamaged".to_owned());
    let opened = Log::open(Arc::new(disk.copy()), KEEPING).expect("the log opens");
    assert_eq!(opened.reports, []);
}

#[test]
fn every_flipped_bit_is_survived() {
    let (disk, live) = written();
    let mut random = Random::new(1);
    for (path, length) in segment_files(&disk) {
        let bytes = disk.bytes(&path).expect("it is there");
        let mut offset = 0;
        while offset < length {
            let copy = disk.copy();
            let bit = (random.next_bits() >> 13) as u8 % 8;
            assert!(copy.flip_bit(&path, offset, bit));
            check(&copy, &live, &|| format!("bit {bit} of byte {offset} of {path}"));
            // Empty blocks need not all be tried.
            let is_empty = bytes[offset as usize..].iter().take(64).all(|byte| *byte == 0);
            offset += if is_empty { 61 } else { 1 + (random.next_bits() >> 13) % 7 };
        }
    }
}

#[test]
fn every_truncation_is_survived() {
    let (disk, live) = written();
    for (path, length) in segment_files(&disk) {
        for left in (0..length).rev().step_by(if path.ends_with(".wal") { 37 } else { 3 }) {
            let copy = disk.copy();
            assert!(copy.truncate(&path, left));
            check(&copy, &live, &|| format!("{path} cut off at {left}"));
        }
    }
}

#[test]
fn files_that_are_missing_are_told() {
    let (disk, live) = written();
    for (path, _) in segment_files(&disk) {
        let copy = disk.copy();
        assert!(copy.lose(&path));
        let seam: Arc<dyn crate::log::Storage> = Arc::new(copy.clone());
        let Opened { log, logs, mut reports, .. } = Log::open(seam, KEEPING).expect("the log opens");
        let found = contents(&log, &logs, &mut reports, &live, &|| format!("without {path}"));
        let missing = live.keys().filter(|key| !found.contains_key(key)).count();
        // A segment that is gone as a whole is missed by its logs' later checkpoints, if there are any.
        if path.ends_with(".wal") {
            assert!(missing > 0);
            assert!(losses(&reports).iter().any(|text| text.contains(&path)), "{path}: {reports:?}");
        }
    }
}

#[test]
fn zeroed_blocks_are_told() {
    let (disk, live) = written();
    for (path, length) in segment_files(&disk) {
        for start in (0..length).step_by(512) {
            let copy = disk.copy();
            assert!(copy.zero(&path, start..start + 512));
            check(&copy, &live, &|| format!("{path} zeroed from {start}"));
        }
    }
}
