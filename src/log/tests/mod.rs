//! Tests of the whole log on a disk in memory that crashes, fills up, fails and rots.

mod basic;
mod churn;
mod damage;
mod model;
mod property;

use std::sync::Arc;

use super::memory::MemoryDisk;
use super::{Batch, CommitError, Head, Keeping, Log, LogId, Maintained, Opened, Options, Severity, SyncMode, Writer};

/// Small files, so that everything happens often.
const OPTIONS: Options =
    Options { sync: SyncMode::Always, wal_file_bytes: 16 * 1024, segment_bytes: 16 * 1024, keeping: Keeping::USUAL };
/// Every WAL file in which something lives becomes part of a segment.
const KEEP_ALL: Keeping = Keeping { share_min: 0, stretch_min: 1, batch_min: 0 };
/// The same, and entries that lie alone are copied.
const KEEP_SOME: Keeping = Keeping { share_min: 2, stretch_min: 300, batch_min: 0 };

fn open(disk: &MemoryDisk) -> Opened {
    Log::open(Arc::new(disk.clone()), OPTIONS).expect("the log opens")
}

fn head(log: u64, index: u64) -> Head {
    Head { log: LogId(log), index, time: index * 10, deadline: u64::MAX, cost: 1, class: 0, transient: false }
}

/// Maintains until there is nothing to do.
fn maintain(log: &Log) -> Maintained {
    let mut all = Maintained::default();
    for _ in 0..10_000 {
        let done = log.maintain().expect("maintenance works");
        if !done.worked {
            return all;
        }
        all.flushed.extend(done.flushed);
        all.reports.extend(done.reports);
    }
    panic!("maintenance does not end");
}

/// Appends entries with payloads that tell log and index.
fn append(writer: &mut Writer, log: u64, indexes: std::ops::Range<u64>, size: usize) {
    let mut batch = Batch::default();
    for index in indexes {
        batch.append(&head(log, index), &[&payload(log, index, size)], &[]);
    }
    commit(writer, &batch);
}

/// Commits, with maintenance when the WAL is full.
fn commit(writer: &mut Writer, batch: &Batch) {
    match writer.commit(&[batch]) {
        Err(CommitError::Full) => {
            maintain(&Log::of(writer));
            writer.commit(&[batch]).expect("there is space");
        }
        done => done.expect("there is space"),
    }
}

fn payload(log: u64, index: u64, size: usize) -> Vec<u8> {
    let word = (log << 32 | index).to_le_bytes();
    word.iter().copied().cycle().take(size).collect()
}

fn settle(writer: &mut Writer, log: u64, first: u64, last: u64) {
    let mut batch = Batch::default();
    batch.settle(LogId(log), &[super::Range { first, last }]);
    commit(writer, &batch);
}

/// Flushes all that was committed.
fn flush(log: &Log, writer: &mut Writer) {
    maintain(log);
    log.seal();
    let mut batch = Batch::default();
    batch.append(&head(999, next(log)), &[b"x"], &[]);
    batch.settle(LogId(999), &[super::Range { first: 0, last: u64::MAX }]);
    commit(writer, &batch);
    maintain(log);
}

/// The next index of the log that `flush` writes to.
fn next(log: &Log) -> u64 {
    log.shared().state.lock().index.logs.get(&LogId(999)).map_or(1, |state| state.next_index)
}

fn losses(reports: &[super::Report]) -> Vec<&str> {
    reports.iter().filter(|report| report.severity == Severity::Loss).map(|report| report.text.as_str()).collect()
}

/// The indexes a log has, as its chunks say.
fn indexes(opened: &Opened, log: u64) -> Vec<u64> {
    let Some(log) = opened.logs.iter().find(|found| found.log == LogId(log)) else { return Vec::new() };
    let mut all: Vec<u64> = log.chunks.iter().flat_map(members).collect();
    all.sort_unstable();
    all
}

fn members(chunk: &super::Chunk) -> Vec<u64> {
    chunk.members.clone().unwrap_or_else(|| (chunk.first..=chunk.last).collect())
}
