//! What is written for each byte stored, and what the files take compared with what lives in them.

use super::*;
use crate::log::{Range, Usage};
use crate::model::random::Random;

const MIB: u64 = 1 << 20;
/// Files a hundredth of the usual size, with everything else in proportion.
const SMALL: Options = Options {
    sync: SyncMode::Always,
    wal_file_bytes: MIB,
    segment_bytes: 8 * MIB,
    keeping: Keeping { share_min: 75, stretch_min: 16 << 10, batch_min: 32 << 10 },
};
const BODY: usize = 1024;

struct Store {
    disk: MemoryDisk,
    log: Log,
    writer: Writer,
    next: std::collections::BTreeMap<u64, u64>,
    /// Bytes of all bodies.
    stored: u64,
    written_before: u64,
}

impl Store {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let Opened { log, writer, .. } = Log::open(Arc::new(disk.clone()), SMALL).expect("the log opens");
        maintain(&log);
        let written_before = disk.counts().written_bytes;
        Self { disk, log, writer, next: std::collections::BTreeMap::new(), stored: 0, written_before }
    }

    /// Appends bodies, one to each log in turn, in one batch.
    fn append(&mut self, logs: std::ops::Range<u64>, count: u64, batch: &mut Batch) {
        for _ in 0..count {
            for log in logs.clone() {
                let index = self.next.entry(log).or_insert(1);
                batch.append(&head(log, *index), &[&payload(log, *index, BODY)], &[]);
                *index += 1;
                self.stored += BODY as u64;
            }
        }
    }

    fn commit(&mut self, batch: &Batch) {
        commit(&mut self.writer, batch);
        maintain(&self.log);
    }

    /// Bytes written for each byte stored.
    fn written(&self) -> f64 {
        (self.disk.counts().written_bytes - self.written_before) as f64 / self.stored as f64
    }

    /// Reads all that a log has, some at a time, as a queue does.
    fn read_all(&self, log: u64) -> u64 {
        let (last, mut read) = (self.next[&log] - 1, 0);
        for first in (1..=last).step_by(64) {
            let end = last.min(first + 63);
            let found = self.log.read(LogId(log), first, end).expect("the disk works");
            assert_eq!(found.reports, []);
            for (entry, index) in found.entries.iter().zip(first..) {
                assert_eq!((entry.head.index, &entry.payload[..]), (index, &payload(log, index, BODY)[..]));
            }
            read += found.entries.len() as u64;
        }
        read
    }
}

fn assert_at_most(found: f64, most: f64) {
    assert!(found <= most, "{found:.3} bytes were written for each byte stored, at most {most} is good");
}

#[test]
fn what_stays_is_written_once() {
    let mut store = Store::new();
    for _ in 0..300 {
        let mut batch = Batch::default();
        store.append(7..8, 100, &mut batch);
        store.commit(&batch);
    }
    // Records have headers, and batches end with whole blocks.
    assert_at_most(store.written(), 1.15);
    let read = store.read_all(7);
    assert!(read > 29_000, "{read} of 30,000 can be read");
    store.disk.kill();
    let opened = Log::open(Arc::new(store.disk.clone()), SMALL).expect("the log opens");
    assert_eq!(opened.reports, []);
    assert_eq!(indexes(&opened, 7), (1..=30_000).collect::<Vec<u64>>());
    store.log = opened.log;
    assert_eq!(store.read_all(7), 30_000);
}

#[test]
fn what_is_gone_at_once_is_written_once() {
    let mut store = Store::new();
    for round in 0..300 {
        let mut batch = Batch::default();
        store.append(7..8, 100, &mut batch);
        // The consumer is a batch behind.
        if let Some(before) = (round * 100_u64).checked_sub(100) {
            batch.settle(LogId(7), &[Range { first: before + 1, last: before + 100 }]);
        }
        store.commit(&batch);
    }
    assert_at_most(store.written(), 1.1);
    // No new files either: those that there are are used again.
    let files: Vec<Vec<u8>> = store.disk.paths().iter().filter_map(|path| store.disk.bytes(path)).collect();
    assert!(files.concat().len() < 6 << 20, "{:?}", store.disk.paths());
}

#[test]
fn many_logs_side_by_side_are_written_once_and_read_in_large_pieces() {
    let mut store = Store::new();
    for _ in 0..150 {
        let mut batch = Batch::default();
        store.append(10..20, 20, &mut batch);
        store.commit(&batch);
    }
    assert_at_most(store.written(), 1.15);
    for log in 10..20 {
        let before = store.disk.counts().reads;
        let read = store.read_all(log);
        let reads = store.disk.counts().reads - before;
        assert!(read > 2_700, "{read} of 3,000 can be read");
        // A queue asks for 64 at a time; a batch has 20 together.
        assert!(reads <= 5 * 3_000 / 64 + 10, "{reads} reads for {read} entries");
    }
}

#[test]
fn small_batches_are_copied_and_their_files_used_again() {
    let mut store = Store::new();
    for _ in 0..2_000 {
        let mut batch = Batch::default();
        store.append(7..8, 1, &mut batch);
        store.commit(&batch);
    }
    assert!(!store.disk.paths().iter().any(|path| path.starts_with("segments/") && path.ends_with(".wal")));
    assert!(store.disk.paths().iter().filter(|path| path.starts_with("wal/")).count() <= 4);
}

/// Queues that are filled and drained, from the front, by chance, or all at once, for a day of a busy broker in small.
#[test]
fn files_stay_below_twice_what_lives() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let mut below = |bound: u64| (random.next_bits() >> 11) % bound;
        let mut store = Store::new();
        let mut live: std::collections::BTreeMap<u64, std::collections::VecDeque<u64>> =
            (7..12).map(|log| (log, [].into())).collect();
        for round in 0..1_500 {
            let mut batch = Batch::default();
            let log = 7 + below(5);
            let count = 20 + below(100);
            let first = store.next.get(&log).copied().unwrap_or(1);
            store.append(log..log + 1, count, &mut batch);
            live.get_mut(&log).expect("there is one").extend(first..first + count);
            // Before long as many go as come.
            let mut surplus = live.values().map(|log| log.len() as u64).sum::<u64>().saturating_sub(6_000);
            while surplus > 0 {
                let log = 7 + below(5);
                let queue = live.get_mut(&log).expect("there is one");
                let gone: Vec<u64> = match below(3) {
                    0 => queue.drain(..queue.len().min(surplus as usize)).collect(),
                    _ => (0..surplus.min(40))
                        .filter_map(|_| {
                            let at = below(queue.len().max(1) as u64) as usize;
                            queue.remove(at)
                        })
                        .collect(),
                };
                surplus = surplus.saturating_sub(gone.len() as u64);
                let ranges: Vec<Range> = gone.iter().map(|index| Range { first: *index, last: *index }).collect();
                batch.settle(LogId(log), &ranges);
            }
            store.commit(&batch);
            let Usage { segments, live: estimated, .. } = store.log.usage();
            let lives = live.values().map(|log| log.len() as u64).sum::<u64>() * (BODY + 72) as u64;
            assert!(
                segments <= 2 * lives + 3 * MIB,
                "seed {seed} round {round}: {segments} bytes for {lives}, {estimated} by estimate"
            );
        }
        store.disk.kill();
        let opened = Log::open(Arc::new(store.disk.clone()), SMALL).expect("the log opens");
        assert_eq!(opened.reports, []);
        for (log, live) in live {
            let mut live: Vec<u64> = live.into();
            live.sort_unstable();
            assert_eq!(indexes(&opened, log), live);
        }
    }
}
