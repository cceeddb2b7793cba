//! Lives of a log from crash to crash, by seed.

use std::collections::VecDeque;
use std::io::ErrorKind;

use super::super::{CommitError, PrepareError, WalFile, WalWriter};
use super::{Expected, Fresh, Records, below, has_loss, read_back, replayed};
use crate::log::memory::{MemoryDisk, Operation};
use crate::log::storage::Storage;
use crate::model::random::Random;

/// Bytes of a file: a few batches, fewer than large ones have.
const FILE: u64 = 24 * 1024;

/// A batch that was written.
#[derive(Debug)]
struct Written {
    number: u64,
    file: u64,
    records: Vec<Expected>,
}

/// A log, with what is known of it.
struct Life {
    seed: u64,
    random: Random,
    records: Records,
    disk: MemoryDisk,
    writer: Option<WalWriter>,
    prepared: VecDeque<WalFile>,
    full: VecDeque<WalFile>,
    spare: Vec<WalFile>,
    flushed: u64,
    next_sequence: u64,
    written: Vec<Written>,
    /// The last batch that is known to be on disk.
    synced: u64,
    /// One in so many batches is synced at once; the others wait.
    sync_every: u64,
    has_sync_failed: bool,
    /// Recoveries that cut something off.
    cut_off: u64,
    /// Those after which something that was not synced was gone.
    lost: u64,
    /// Files used again.
    recycled: u64,
}

/// The process ends here.
struct Died;

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let sync_every = [1, 1, 4, 1_000][below(&mut random, 4) as usize];
        Self {
            seed,
            records: Records::new(Random::new(random.next_bits())),
            random,
            disk: MemoryDisk::new(),
            writer: None,
            prepared: VecDeque::new(),
            full: VecDeque::new(),
            spare: Vec::new(),
            flushed: 0,
            next_sequence: 1,
            written: Vec::new(),
            synced: 0,
            sync_every,
            has_sync_failed: false,
            cut_off: 0,
            lost: 0,
            recycled: 0,
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        below(&mut self.random, one_in) == 0
    }

    /// Works for a while.
    fn work(&mut self, next_batch: u64) -> Result<(), Died> {
        self.prepare()?;
        let first = self.prepared.pop_front().ok_or(Died)?;
        self.writer = Some(WalWriter::new(first, next_batch));
        for _ in 0..1 + below(&mut self.random, 12) {
            self.commit()?;
            if self.chance(4) {
                self.flush();
            }
        }
        Ok(())
    }

    fn prepare(&mut self) -> Result<(), Died> {
        while self.prepared.is_empty() {
            let bytes = if self.chance(8) { 2 * FILE } else { FILE };
            let fresh = if self.chance(2) { Fresh::Zeroed } else { Fresh::Allocated };
            let (sequence, disk) = (self.next_sequence, &self.disk as &dyn Storage);
            self.next_sequence += 1;
            let made = match self.spare.pop() {
                Some(file) => {
                    self.recycled += 1;
                    file.recycle(disk, sequence, bytes)
                }
                None => WalFile::make(disk, sequence, bytes, fresh),
            };
            match made {
                Ok(file) => {
                    assert!(file.length >= bytes && file.length == file.file.length().unwrap(), "seed {}", self.seed);
                    self.prepared.push_back(file);
                }
                Err(PrepareError::NoSpace { .. }) => self.disk.set_capacity(None),
                Err(PrepareError::Failed(_)) => return Err(Died),
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Died> {
        let batches: Vec<_> = (0..1 + below(&mut self.random, 3)).map(|_| self.records.batch()).collect();
        let (batches, records): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
        let bytes = batches.iter().map(|batch| batch.length()).sum();
        let fits = self.writer.as_ref().is_some_and(|writer| writer.fits(bytes));
        if !fits {
            self.prepare()?;
            // Not asked of whoever does not read the full file.
            if self.sync_every == 1 || self.chance(2) {
                self.sync()?;
            }
            let next = self.prepared.pop_front().ok_or(Died)?;
            let full = self.writer.as_mut().ok_or(Died)?.roll(next);
            self.full.push_back(full);
        }
        let writer = self.writer.as_mut().ok_or(Died)?;
        let number = writer.batch() + 1;
        let batches: Vec<_> = batches.iter().collect();
        let offset = writer.offset();
        let mut written = writer.write(&batches);
        if let Err(CommitError::NoSpace { .. }) = written {
            self.disk.set_capacity(None);
            assert_eq!(writer.offset(), offset);
            written = writer.write(&batches);
        }
        // Nobody was told of it when that failed, but it may be there.
        let file = writer.sequence();
        self.written.push(Written { number, file, records: records.concat() });
        written.map_err(|_| Died)?;
        if below(&mut self.random, self.sync_every) == 0 { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<(), Died> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        self.has_sync_failed = writer.sync().is_err();
        if self.has_sync_failed {
            return Err(Died);
        }
        self.synced = self.synced.max(writer.batch());
        Ok(())
    }

    /// The first full file is not needed any more, if all in it was on disk.
    fn flush(&mut self) {
        if self.full.front().is_some_and(|file| file.last <= self.synced)
            && let Some(file) = self.full.pop_front()
        {
            let (reports, found) = read_back(&file).unwrap();
            assert!(reports.is_empty(), "seed {}: {reports:?}", self.seed);
            assert_eq!(found, self.records_of(|written| written.file == file.sequence), "seed {}", self.seed);
            self.flushed = file.sequence;
            self.spare.push(file);
        }
    }

    fn records_of(&self, matches: impl Fn(&Written) -> bool) -> Vec<Expected> {
        self.written.iter().filter(|written| matches(written)).flat_map(|written| written.records.clone()).collect()
    }

    /// The power is lost or the process is killed, perhaps because something failed, and all comes back. Returns the number
    /// of the next batch.
    fn end_and_recover(&mut self, is_crash: bool, has_failed: bool) -> u64 {
        self.has_sync_failed = false;
        (self.writer, self.prepared, self.full, self.spare) = (None, VecDeque::new(), VecDeque::new(), Vec::new());
        self.disk.set_capacity(None);
        if is_crash {
            self.disk.crash(&mut self.random);
        } else {
            self.disk.kill();
        }
        let seed = self.seed;
        if self.chance(4) {
            self.disk.set_read_max(Some(1 + below(&mut self.random, 5_000) as usize));
        }
        let (recovered, found) = replayed(&self.disk, self.flushed).unwrap();
        assert!(!has_loss(&recovered.reports), "seed {seed}: {:?}", recovered.reports);
        let flushed = self.flushed;
        self.written.retain(|written| written.file > flushed);
        self.cut_off += u64::from(!recovered.reports.is_empty());
        let (mut left, last) = (found.len(), self.written.last().map_or(0, |written| written.number));
        self.written.retain(|written| {
            let is_there = left >= written.records.len() && left > 0;
            left = if is_there { left - written.records.len() } else { 0 };
            assert!(is_there || written.number > self.synced, "seed {seed}: batch {} is lost", written.number);
            is_there
        });
        let expected = self.records_of(|_| true);
        assert!(expected.iter().eq(found.iter().map(|(_, record)| record)), "seed {seed}: other records");
        let survived = self.written.last().map_or(0, |written| written.number);
        assert!(recovered.next_batch > survived, "seed {seed}: {} after {survived}", recovered.next_batch);
        self.lost += u64::from(survived < last);
        if !is_crash && !has_failed {
            assert!(recovered.reports.is_empty(), "seed {seed}: {:?}", recovered.reports);
        }
        for file in &recovered.files {
            let (reports, again) = read_back(file).unwrap();
            assert!(reports.is_empty() && !file.damaged, "seed {seed}: {reports:?}");
            assert_eq!(again, self.records_of(|written| written.file == file.sequence), "seed {seed}");
            assert!(file.sequence < recovered.next_sequence, "seed {seed}");
        }
        // Whatever was found stays, without another word.
        self.disk.crash(&mut self.random);
        let (recovered, again) = replayed(&self.disk, self.flushed).unwrap();
        assert!(found == again && recovered.reports.is_empty(), "seed {seed}: {:?}", recovered.reports);
        self.disk.set_read_max(None);
        self.synced = recovered.next_batch - 1;
        let next_batch = recovered.next_batch;
        self.next_sequence = self.next_sequence.max(recovered.next_sequence);
        (self.spare, self.full) = (recovered.spare, VecDeque::new());
        for file in recovered.files {
            if file.is_prepared() { self.prepared.push_back(file) } else { self.full.push_back(file) }
        }
        // Prepared files before one that has batches come too late for the next.
        let last = self.full.back().map_or(0, |file| file.sequence);
        self.prepared.retain(|file| file.sequence > last);
        next_batch
    }
}

/// Lets something fail some time from now.
fn plan_fault(life: &mut Life) {
    let operations =
        [Operation::Write, Operation::Sync, Operation::SyncDirectory, Operation::Rename, Operation::Create];
    let operation = operations[below(&mut life.random, 5) as usize];
    let after = below(&mut life.random, 20);
    match below(&mut life.random, 6) {
        0 | 1 => life.disk.fail_next(operation, ErrorKind::Other, after),
        2 => life.disk.fail_next(Operation::Write, ErrorKind::StorageFull, after),
        3 => life.disk.set_capacity(Some(FILE + below(&mut life.random, 4 * FILE))),
        _ => {}
    }
}

#[test]
fn what_was_synced_survives_and_nothing_else_appears() {
    let (mut cut_off, mut lost, mut recycled) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut life = Life::new(seed);
        let mut next_batch = 1;
        for _ in 0..3 {
            plan_fault(&mut life);
            let has_failed = life.work(next_batch).is_err();
            // After a failed sync a process that comes back reads what is not on the disk; nobody was told that it is.
            let is_crash = life.has_sync_failed || !life.chance(4);
            next_batch = life.end_and_recover(is_crash, has_failed);
            if life.chance(2)
                && let Some(file) = life.full.back()
            {
                // Recovery has flushed everything, and all can be used again.
                life.flushed = file.sequence;
                life.spare.extend(life.full.drain(..));
            }
        }
        cut_off += life.cut_off;
        lost += life.lost;
        recycled += life.recycled;
    }
    // Otherwise the lives were too easy.
    assert!(cut_off > 300 && lost > cut_off && recycled > 3_000, "{cut_off} {lost} {recycled}");
}
