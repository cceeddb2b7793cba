//! One thing at a time.

use bytes::Bytes;

use super::*;
use crate::log::memory::Operation;
use crate::log::{Range, Stored};

fn read(log: &Log, id: u64, first: u64, last: u64) -> Vec<Stored> {
    let read = log.read(LogId(id), first, last).expect("the disk works");
    assert_eq!(read.reports, []);
    read.entries
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let disk = MemoryDisk::new();
    let mut opened = open(&disk);
    assert_eq!(opened.logs, []);
    append(&mut opened.writer, 7, 1..4, 100);
    settle(&mut opened.writer, 7, 2, 2);
    disk.crash(&mut crate::model::random::Random::new(1));
    let opened = open(&disk);
    assert_eq!(opened.reports, []);
    assert_eq!(indexes(&opened, 7), [1, 3]);
    assert_eq!(opened.logs[0].next_index, 4);
    let found = read(&opened.log, 7, 1, 3);
    let live: Vec<(u64, Vec<u8>)> = found
        .iter()
        .filter(|entry| entry.head.index != 2)
        .map(|entry| (entry.head.index, entry.payload.to_vec()))
        .collect();
    assert_eq!(live, [(1, payload(7, 1, 100)), (3, payload(7, 3, 100))]);
    assert_eq!(found[0].head, head(7, 1));
}

#[test]
fn entries_are_read_once_flushed() {
    let disk = MemoryDisk::new();
    let Opened { log, mut writer, .. } = open(&disk);
    append(&mut writer, 7, 1..10, 50);
    assert_eq!(read(&log, 7, 0, u64::MAX), []);
    log.seal();
    maintain(&log);
    append(&mut writer, 8, 1..2, 50);
    let done = maintain(&log);
    assert_eq!(done.flushed, [(LogId(7), 9)]);
    let indexes: Vec<u64> = read(&log, 7, 3, 5).iter().map(|entry| entry.head.index).collect();
    assert_eq!(indexes, [3, 4, 5]);
    assert_eq!(read(&log, 8, 0, u64::MAX), []);
}

#[test]
fn too_many_open_files_are_waited_out_like_a_full_disk() {
    const TOO_MANY_OPEN_FILES: i32 = 24;
    let disk = MemoryDisk::new();
    let Opened { log, mut writer, .. } = open(&disk);
    append(&mut writer, 7, 1..10, 50);
    log.seal();
    maintain(&log);
    append(&mut writer, 8, 1..2, 50);
    // The segment that the full WAL file becomes cannot be made.
    disk.fail_next_with(Operation::Create, TOO_MANY_OPEN_FILES, 0);
    assert_eq!(log.maintain().expect("something else can be done").flushed, []);
    assert_eq!(maintain(&log).flushed, [(LogId(7), 9)]);
    // It cannot be opened to be read.
    disk.fail_next_with(Operation::Open, TOO_MANY_OPEN_FILES, 0);
    let error = CommitError::from(log.read(LogId(7), 1, 9).unwrap_err());
    assert!(matches!(error, CommitError::NoSpace { .. }), "{error}");
    assert_eq!(read(&log, 7, 1, 9).len(), 9);
    // Once it is open, what is open makes room for others.
    append(&mut writer, 7, 10..20, 50);
    flush(&log, &mut writer);
    disk.fail_next_with(Operation::Open, TOO_MANY_OPEN_FILES, 0);
    assert_eq!(read(&log, 7, 1, 19).len(), 19);
    // A sync that failed is another matter.
    disk.fail_next(Operation::Sync, std::io::ErrorKind::StorageFull, 0);
    let mut batch = Batch::default();
    batch.append(&head(7, 20), &[b"x"], &[]);
    assert!(matches!(writer.commit(&[&batch]), Err(CommitError::Failed(_))));
}

#[test]
fn payloads_are_shared_in_the_wal_and_copied_to_segments() {
    let disk = MemoryDisk::new();
    let Opened { log, mut writer, .. } = open(&disk);
    let large = Bytes::from(vec![5; 20_000]);
    let mut batch = Batch::default();
    batch.append(&head(7, 1), &[b"ab"], std::slice::from_ref(&large));
    assert!(batch.append_again(&head(8, 1)));
    writer.commit(&[&batch]).expect("there is space");
    flush(&log, &mut writer);
    for id in [7, 8] {
        let found = read(&log, id, 1, 1);
        assert_eq!((found[0].head, found[0].payload.len()), (head(id, 1), 20_002));
        assert!(found[0].payload.starts_with(b"ab\x05") && found[0].payload.ends_with(b"\x05"));
    }
}

#[test]
fn an_empty_commit_writes_nothing() {
    let disk = MemoryDisk::new();
    let mut opened = open(&disk);
    let before = disk.counts();
    opened.writer.commit(&[]).expect("nothing is done");
    opened.writer.commit(&[&Batch::default()]).expect("nothing is done");
    assert_eq!(disk.counts(), before);
    assert!(!opened.writer.unsynced());
}

#[test]
fn a_commit_is_one_write_and_one_sync() {
    let disk = MemoryDisk::new();
    let mut opened = open(&disk);
    let before = disk.counts();
    append(&mut opened.writer, 7, 1..20, 50);
    let after = disk.counts();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
}

#[test]
fn the_wal_is_full_until_maintained() {
    let disk = MemoryDisk::new();
    let Opened { log, mut writer, .. } = open(&disk);
    let mut batch = Batch::default();
    batch.append(&head(7, 1), &[&[0; 9_000]], &[]);
    writer.commit(&[&batch]).expect("there is space");
    batch.clear();
    batch.append(&head(7, 2), &[&[0; 9_000]], &[]);
    assert!(matches!(writer.commit(&[&batch]), Err(CommitError::Full)));
    assert!(log.wants_maintenance());
    maintain(&log);
    assert!(!log.wants_maintenance());
    writer.commit(&[&batch]).expect("there is space");
}

#[test]
fn a_dropped_log_stays_away() {
    let disk = MemoryDisk::new();
    let Opened { log, mut writer, .. } = open(&disk);
    append(&mut writer, 7, 1..5, 3_000);
    append(&mut writer, 8, 1..2, 3_000);
    flush(&log, &mut writer);
    let mut batch = Batch::default();
    batch.drop_log(LogId(7));
    commit(&mut writer, &batch);
    flush(&log, &mut writer);
    let opened = open(&disk);
    assert_eq!(opened.logs.iter().map(|log| log.log.0).collect::<Vec<_>>(), [8, 999]);
    assert!(losses(&opened.reports).is_empty());
}

#[test]
fn logs_nobody_knows_are_dropped() {
    let disk = MemoryDisk::new();
    let mut opened = open(&disk);
    append(&mut opened.writer, 7, 1..5, 100);
    append(&mut opened.writer, 8, 1..2, 100);
    append(&mut opened.writer, 9, 1..2, 100);
    settle(&mut opened.writer, 9, 1, 1);
    disk.kill();
    let Opened { log, mut writer, .. } = open(&disk);
    assert_eq!(log.retain(&|id| id != LogId(7) && id != LogId(9)), [LogId(7)]);
    // The first one writes to the WAL file that has it.
    flush(&log, &mut writer);
    flush(&log, &mut writer);
    assert_eq!(open(&disk).logs.iter().map(|log| log.log.0).collect::<Vec<_>>(), [8, 999]);
}

#[test]
fn chunks_tell_classes_costs_and_deadlines() {
    let disk = MemoryDisk::new();
    let mut opened = open(&disk);
    let mut batch = Batch::default();
    for index in 1..=6 {
        let class = u8::from(index % 2 == 0);
        let head = Head { cost: index as u32, deadline: 100 - index, class, ..head(7, index) };
        batch.append(&head, &[b"payload"], &[]);
    }
    opened.writer.commit(&[&batch]).expect("there is space");
    settle(&mut opened.writer, 7, 1, 1);
    disk.kill();
    let opened = open(&disk);
    let told: Vec<_> =
        opened.logs[0].chunks.iter().map(|chunk| (chunk.class, members(chunk), chunk.cost, chunk.deadline)).collect();
    assert_eq!(told, [(0, vec![3, 5], 8, 95), (1, vec![2, 4, 6], 12, 94)]);
}

#[test]
fn an_idle_log_keeps_its_next_index_through_merges() {
    let disk = MemoryDisk::new();
    let Opened { log, mut writer, .. } = open(&disk);
    append(&mut writer, 7, 1..5, 100);
    settle(&mut writer, 7, 1, 4);
    let mut batch = Batch::default();
    batch.delivered(LogId(7), 3);
    commit(&mut writer, &batch);
    for round in 0..40 {
        append(&mut writer, 8, round * 10 + 1..round * 10 + 9, 500);
        settle(&mut writer, 8, 0, u64::MAX);
        flush(&log, &mut writer);
    }
    assert!(disk.paths().iter().filter(|path| path.starts_with("segments/")).count() < 10, "{:?}", disk.paths());
    let opened = open(&disk);
    assert_eq!((opened.logs[0].log, opened.logs[0].next_index, opened.logs[0].delivered), (LogId(7), 5, 3));
    assert_eq!(opened.reports, []);
}

#[test]
fn modes_without_a_sync_sync_when_told_and_before_a_segment_says_it() {
    let disk = MemoryDisk::new();
    let options = Options { sync: SyncMode::Os, ..OPTIONS };
    let Opened { log, mut writer, .. } = Log::open(Arc::new(disk.clone()), options).expect("the log opens");
    append(&mut writer, 7, 1..5, 100);
    assert!(writer.unsynced());
    writer.sync().expect("the disk works");
    assert!(!writer.unsynced());
    maintain(&log);
    log.seal();
    settle(&mut writer, 7, 1, 2);
    maintain(&log);
    disk.crash(&mut crate::model::random::Random::new(3));
    let opened = open(&disk);
    assert_eq!(indexes(&opened, 7), [3, 4]);
    assert_eq!(opened.reports, []);
}

#[test]
fn ranges_that_are_not_there_are_ignored() {
    let disk = MemoryDisk::new();
    let mut opened = open(&disk);
    append(&mut opened.writer, 7, 1..3, 10);
    let mut batch = Batch::default();
    batch.settle(LogId(5), &[Range { first: 1, last: 9 }]);
    batch.settle(LogId(7), &[Range { first: 2, last: u64::MAX }, Range { first: 9, last: 3 }]);
    batch.delivered(LogId(5), 3);
    batch.drop_log(LogId(6));
    opened.writer.commit(&[&batch]).expect("there is space");
    append(&mut opened.writer, 7, 3..4, 10);
    disk.kill();
    let opened = open(&disk);
    assert_eq!(opened.logs.len(), 1);
    assert_eq!(indexes(&opened, 7), [1, 3]);
}
