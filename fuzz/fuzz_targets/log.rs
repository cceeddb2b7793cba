//! Recovery of the log from damaged files: WAL files and segments with flipped bits, zeroed ranges, missing ends, missing
//! files and arbitrary content. It never panics, never brings back what was never written, and tells when something that
//! was synced is missing.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use warren::log::memory::MemoryDisk;
use warren::log::{Batch, Head, Keeping, Log, LogId, Opened, Options, Range, Severity, SyncMode};

/// WAL files become parts of segments, and what lies alone in them is copied.
const KEEPING: Keeping = Keeping { share_min: 1, stretch_min: 400, batch_min: 0 };
const OPTIONS: Options =
    Options { sync: SyncMode::Always, wal_file_bytes: 8192, segment_bytes: 64 * 1024, keeping: KEEPING };
const LOGS: [u64; 3] = [16, 17, 18];
const ENTRIES: u64 = 30;
/// Entries of each log up to here are settled.
const SETTLED: u64 = 5;

fuzz_target!(|data: &[u8]| {
    let disk = written();
    let newest = disk.paths().into_iter().filter(|path| path.starts_with("wal/")).max();
    let is_end_damaged = damage(&disk, data).contains(&newest.unwrap_or_default());
    let disk: Arc<MemoryDisk> = Arc::new(disk);
    let Ok(Opened { log, logs, mut reports, .. }) = Log::open(disk, OPTIONS) else { return };
    let mut found = 0;
    for recovered in &logs {
        for chunk in &recovered.chunks {
            let Ok(read) = log.read(recovered.log, chunk.first, chunk.last) else { return };
            reports.extend(read.reports);
            let is_member = |index: u64| chunk.members.as_ref().is_none_or(|members| members.contains(&index));
            for entry in read.entries.iter().filter(|entry| is_member(entry.head.index)) {
                assert_eq!(entry.payload, payload(recovered.log.0, entry.head.index), "nothing else was written");
                found += u64::from(entry.head.index > SETTLED);
            }
        }
    }
    let all = LOGS.len() as u64 * (ENTRIES - SETTLED);
    let told = reports.iter().any(|report| report.severity == Severity::Loss || report.text.contains("never finished"));
    // Nothing tells what the newest file held: without it the log ended earlier.
    assert!(found == all || told || is_end_damaged, "{found} of {all} entries, and not a word: {reports:?}");
});

/// A disk with segments and WAL files.
fn written() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let Ok(Opened { log, mut writer, .. }) = Log::open(Arc::new(disk.clone()), OPTIONS) else {
        panic!("an empty disk can be opened");
    };
    let mut batch = Batch::default();
    for index in 1..=ENTRIES {
        for id in LOGS {
            let head = Head { log: LogId(id), index, time: 1, deadline: u64::MAX, cost: 1, class: 0, transient: false };
            batch.append(&head, &[&payload(id, index)], &[]);
            if index == ENTRIES / 2 {
                batch.settle(LogId(id), &[Range { first: 1, last: SETTLED }]);
            }
        }
        if index % 3 == 0 {
            while writer.commit(&[&batch]).is_err() {
                assert!(log.maintain().is_ok_and(|done| done.worked), "there is always room in the end");
            }
            batch.clear();
        }
    }
    disk
}

fn payload(log: u64, index: u64) -> Vec<u8> {
    let length = (log * 31 + index * 17) % 400;
    (0..length).map(|at| (log ^ index ^ at) as u8).collect()
}

/// Each five bytes are one thing that happens to a file. Which files were hit.
fn damage(disk: &MemoryDisk, data: &[u8]) -> Vec<String> {
    let mut hit = Vec::new();
    for (number, what) in data.chunks_exact(5).take(8).enumerate() {
        let paths = disk.paths();
        if paths.is_empty() {
            break;
        }
        let path = &paths[usize::from(what[0]) % paths.len()];
        hit.push(path.clone());
        let offset = u64::from(u16::from_le_bytes([what[1], what[2]]));
        match what[3] % 6 {
            0 | 1 => _ = disk.flip_bit(path, offset, what[4] % 8),
            2 => _ = disk.zero(path, offset..offset + u64::from(what[4])),
            3 => _ = disk.truncate(path, offset),
            4 => _ = disk.lose(path),
            _ => disk.put(path, &data[number..]),
        }
    }
    hit
}
