//! What is written, and what cannot be written.

use std::io::{ErrorKind, IoSlice};

use bytes::Bytes;

use super::super::header::{BATCH_HEADER, BLOCK, BatchHeader, FileHeader};
use super::super::{CommitError, PrepareError, WalFile, WalWriter, path};
use super::{Expected, Fresh, Records, has_loss, head, read_back, replayed};
use crate::log::LogError;
use crate::log::batch::{Batch, TABLE_ENTRY};
use crate::log::entry::{self, RecordError, RecordKind};
use crate::log::memory::{MemoryDisk, Operation};
use crate::log::storage::Storage;
use crate::model::random::Random;

const FILE: u64 = 64 * 1024;

fn writer(disk: &MemoryDisk) -> WalWriter {
    WalWriter::new(WalFile::make(disk, 1, FILE, Fresh::Zeroed).unwrap(), 1)
}

fn batch(index: u64, payload: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.append(&head(2, index), &[payload], &[]);
    batch
}

fn indexes(found: &[(u64, Expected)]) -> Vec<u64> {
    found.iter().map(|(_, record)| record.head.index).collect()
}

#[test]
fn batches_given_together_are_one_write_of_whole_blocks() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    let before = disk.counts();
    let large = Bytes::from(vec![7; 20_000]);
    let mut first = batch(1, b"first");
    first.append(&head(2, 2), &[b"in ", b"pieces"], &[large.clone(), Bytes::from_static(b" small"), large.clone()]);
    assert!(first.append_again(&head(3, 9)));
    let second = batch(3, b"second");
    writer.write(&[&first, &second]).unwrap();
    writer.sync().unwrap();
    let counts = disk.counts();
    assert_eq!((counts.writes - before.writes, counts.syncs - before.syncs), (1, 1));
    assert_eq!(counts.written_bytes - before.written_bytes, 40_960);
    assert_eq!(first.length() + second.length(), 4 * TABLE_ENTRY + 4 * 64 + 5 + 40_015 + 6);
    assert_eq!((writer.batch(), writer.offset(), writer.sequence()), (1, BLOCK + 40_960, 1));

    let bytes = disk.bytes(&path(1)).unwrap();
    assert_eq!(bytes.len() as u64, FILE);
    assert_eq!((&bytes[..8], &bytes[4096..4100]), (&b"WarrenWL"[..], &b"WBat"[..]));
    let records = 4096 + BATCH_HEADER + 4 * TABLE_ENTRY;
    assert_eq!(entry::read(&bytes[records..]).unwrap().length, 69);
    assert_eq!(bytes[records + 64..records + 69], *b"first");
    assert!(bytes[4096 + BATCH_HEADER + first.length() + second.length()..].iter().all(|byte| *byte == 0));

    let (_, found) = replayed(&disk, 0).unwrap();
    let payload = [b"in pieces", &large[..], b" small", &large].concat();
    let kinds: Vec<_> = found.iter().map(|(_, record)| (record.kind, record.head.index)).collect();
    assert_eq!(kinds, [(RecordKind::Entry, 1), (RecordKind::Entry, 2), (RecordKind::Again, 9), (RecordKind::Entry, 3)]);
    assert!(found[1].1.payload == payload && found[2].1.payload == payload);
}

#[test]
fn nothing_is_no_batch() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    let before = disk.counts();
    writer.write(&[]).unwrap();
    writer.write(&[&Batch::default()]).unwrap();
    writer.sync().unwrap();
    assert_eq!((disk.counts(), writer.batch()), (before, 0));
}

#[test]
fn a_batch_is_good_for_another_turn_when_cleared() {
    let mut used = batch(1, &[3; 30_000]);
    used.append(&head(2, 2), &[], &[Bytes::from(vec![1; 20_000])]);
    used.set_urgent();
    used.clear();
    assert!(used.is_empty() && !used.is_urgent() && used.length() == 0);
    assert!(!used.append_again(&head(2, 3)));
    used.append(&head(2, 1), &[b"payload"], &[]);
    let fresh = batch(1, b"payload");
    assert_eq!((&used.bytes, &used.table, &used.changes), (&fresh.bytes, &fresh.table, &fresh.changes));
}

#[test]
fn an_empty_file_takes_any_batch_and_shrinks_when_used_again() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    let room = (FILE - BLOCK) as usize - BATCH_HEADER;
    assert!(writer.fits(room) && writer.fits(10 * room));
    writer.write(&[&batch(1, b"small")]).unwrap();
    assert!(writer.fits(room - BLOCK as usize) && !writer.fits(room - BLOCK as usize + 1));
    writer.sync().unwrap();
    let first = writer.roll(WalFile::make(&disk, 2, FILE, Fresh::Zeroed).unwrap());
    writer.write(&[&batch(2, &vec![1; 3 * FILE as usize])]).unwrap();
    writer.sync().unwrap();
    let second = writer.roll(first.recycle(&disk, 3, FILE).unwrap());
    assert!(second.length > 3 * FILE);
    assert_eq!(indexes(&replayed(&disk, 0).unwrap().1), [2]);
    let recycled = second.recycle(&disk, 4, FILE).unwrap();
    assert_eq!((recycled.length, disk.bytes(&path(4)).unwrap().len() as u64), (FILE, FILE));
    let grown = recycled.recycle(&disk, 5, 2 * FILE).unwrap();
    assert_eq!((grown.length, disk.bytes(&path(5)).unwrap().len() as u64), (2 * FILE, 2 * FILE));
    assert_eq!(disk.paths(), [path(3), path(5)]);
}

#[test]
fn a_full_disk_is_no_loss() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    writer.write(&[&batch(1, b"first")]).unwrap();
    disk.set_capacity(Some(FILE + 10_000));
    assert!(
        matches!(WalFile::make(&disk, 2, FILE, Fresh::Zeroed), Err(PrepareError::NoSpace { path: found, .. }) if found == path(2))
    );
    assert_eq!(disk.paths(), [path(1)]);
    let large = batch(2, &vec![2; 2 * FILE as usize]);
    assert!(matches!(writer.write(&[&large]), Err(CommitError::NoSpace { path: found, .. }) if found == path(1)));
    disk.fail_next(Operation::Write, ErrorKind::QuotaExceeded, 0);
    assert!(matches!(writer.write(&[&large]), Err(CommitError::NoSpace { .. })));
    assert_eq!((writer.batch(), writer.offset()), (1, 2 * BLOCK));
    disk.set_capacity(None);
    writer.write(&[&batch(2, b"another"), &large]).unwrap();
    writer.sync().unwrap();
    disk.crash(&mut Random::new(1));
    let (recovered, found) = replayed(&disk, 0).unwrap();
    assert_eq!((indexes(&found), recovered.next_batch), (vec![1, 2, 2], 3));
    assert!(recovered.reports.is_empty());
}

#[test]
fn a_recycled_file_that_finds_no_space_is_removed() {
    let disk = MemoryDisk::new();
    let file = WalFile::make(&disk, 1, FILE, Fresh::Zeroed).unwrap();
    disk.set_capacity(Some(FILE));
    assert!(matches!(file.recycle(&disk, 2, 2 * FILE), Err(PrepareError::NoSpace { .. })));
    assert!(disk.paths().is_empty());
}

#[test]
fn failures_name_the_file() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    writer.write(&[&batch(1, b"first")]).unwrap();
    disk.fail_next(Operation::Sync, ErrorKind::Other, 0);
    let error = writer.sync().unwrap_err().to_string();
    assert!(error.starts_with("wal/00000000000000000001.wal: cannot sync: "), "{error}");
    disk.fail_next(Operation::Write, ErrorKind::Other, 0);
    let error = writer.write(&[&batch(2, b"second")]).unwrap_err().to_string();
    assert!(error.starts_with("wal/00000000000000000001.wal: cannot write: "), "{error}");
    for (operation, after) in [(Operation::Read, 0), (Operation::Read, 1), (Operation::Open, 0)] {
        disk.fail_next(operation, ErrorKind::Other, after);
        assert!(matches!(replayed(&disk, 0), Err(LogError::Io { path: found, .. }) if found == path(1)));
    }
    disk.fail_next(Operation::Create, ErrorKind::PermissionDenied, 0);
    let error = WalFile::make(&disk, 2, FILE, Fresh::Zeroed).unwrap_err().to_string();
    assert!(error.starts_with("wal/00000000000000000002.wal: cannot make: "), "{error}");
}

#[test]
fn a_file_that_was_full_before_its_sync_is_synced_with_the_next() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    writer.write(&[&batch(1, b"first")]).unwrap();
    writer.roll(WalFile::make(&disk, 2, FILE, Fresh::Zeroed).unwrap());
    writer.write(&[&batch(2, b"second")]).unwrap();
    let before = disk.counts().syncs;
    writer.sync().unwrap();
    writer.sync().unwrap();
    assert_eq!(disk.counts().syncs - before, 2);
    disk.crash(&mut Random::new(1));
    assert_eq!(indexes(&replayed(&disk, 0).unwrap().1), [1, 2]);
}

#[test]
fn later_versions_are_refused() {
    let write = |disk: &MemoryDisk, change: &dyn Fn(&mut Vec<u8>)| {
        let mut writer = writer(disk);
        writer.write(&[&batch(1, b"first")]).unwrap();
        let mut bytes = disk.bytes(&path(1)).unwrap();
        change(&mut bytes);
        disk.put(&path(1), &bytes);
        replayed(disk, 0)
    };
    let put_checksum = |bytes: &mut [u8], from: usize, to: usize, at: usize| {
        let checksum = crc32c::crc32c(&bytes[from..to]);
        bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    };
    let put_batch_checksum = |bytes: &mut [u8]| {
        let checksum = crc32c::crc32c(&[&bytes[4096..4096 + 60], &BLOCK.to_le_bytes()].concat());
        bytes[4096 + 60..4096 + 64].copy_from_slice(&checksum.to_le_bytes());
    };
    let file = |bytes: &mut Vec<u8>| {
        bytes[8] = 2;
        put_checksum(bytes, 0, 24, 24);
    };
    let batch = |bytes: &mut Vec<u8>| {
        bytes[4096 + 4] = 3;
        put_batch_checksum(bytes);
    };
    let record = |bytes: &mut Vec<u8>| {
        let (table, record) = (4096 + BATCH_HEADER, 4096 + BATCH_HEADER + TABLE_ENTRY);
        bytes[record + 8] = 4;
        put_checksum(bytes, record + 4, record + 69, record);
        bytes.copy_within(record..record + 4, table);
        put_checksum(bytes, table, record, 4096 + 56);
        put_batch_checksum(bytes);
    };
    type Case<'a> = (&'a dyn Fn(&mut Vec<u8>), u32);
    let cases: [Case<'_>; 3] = [(&file, 2), (&batch, 3), (&record, 4)];
    for (change, version) in cases {
        let Err(LogError::Version { path: found, found: newer, known: 1 }) = write(&MemoryDisk::new(), change) else {
            panic!("version {version} was accepted");
        };
        assert_eq!((found, newer), (path(1), version));
    }
    // Without the checksum it is damage.
    let (recovered, found) = write(&MemoryDisk::new(), &|bytes| bytes[4096 + 4] = 3).unwrap();
    assert!(found.is_empty() && recovered.reports.len() == 1 && !has_loss(&recovered.reports));
}

#[test]
fn a_record_is_only_what_its_checksum_says() {
    let bytes = batch(1, b"payload").bytes;
    assert_eq!(entry::read(&bytes).unwrap().head, head(2, 1));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = entry::read(&bytes).unwrap_err();
        assert!(
            matches!(error, RecordError::Checksum | RecordError::Short | RecordError::Length),
            "bit {bit}: {error}"
        );
    }
    for length in 0..bytes.len() {
        assert_eq!(entry::read(&bytes[..length]), Err(RecordError::Short));
    }
}

/// Content that imitates what the WAL writes is content, even when what is around it is damaged.
#[test]
fn a_message_cannot_be_a_batch_or_a_record() {
    let forged = batch(666, b"forged");
    let forged_batch = |salt| {
        let table = crc32c::crc32c(&forged.table);
        let (length, records) = (forged.bytes.len() as u64, 1);
        let header =
            BatchHeader { sequence: 1, number: 2, synced: 1, length, records, ordinal: 1, salt, back: 0, table };
        [&header.bytes(2 * BLOCK)[..], &forged.table, &forged.bytes].concat()
    };
    // At a multiple of 4096 in the file, and behind records at every place where another one could begin.
    let mut payload = forged.bytes.repeat(60);
    payload.resize(8192 - 4096 - BATCH_HEADER - TABLE_ENTRY - 64, 0);
    payload.extend_from_slice(&forged_batch(0));
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    writer.write(&[&batch(1, &payload)]).unwrap();
    writer.write(&[&batch(2, b"next")]).unwrap();
    assert_eq!(&disk.bytes(&path(1)).unwrap()[8192..8196], b"WBat");
    for damaged in 4096..4096 + 200 {
        let disk = disk.copy();
        disk.flip_bit(&path(1), damaged, 5);
        let (_, found) = replayed(&disk, 0).unwrap();
        assert!(!indexes(&found).contains(&666), "damaged at {damaged}");
    }
}

#[test]
fn what_is_no_wal_file_is_left_alone() {
    let disk = MemoryDisk::new();
    for name in
        ["wal/1.wal", "wal/00000000000000000001", "wal/0000000000000000000x.wal", "wal/00000000000000000000.wal"]
    {
        disk.put(name, b"something else");
    }
    disk.put("wal/99999999999999999999.wal", b"more than a number can be");
    let (recovered, found) = replayed(&disk, 0).unwrap();
    assert!(recovered.files.is_empty() && recovered.spare.is_empty() && found.is_empty());
    assert_eq!((recovered.next_sequence, recovered.next_batch), (1, 1));
}

#[test]
fn files_that_were_never_finished_are_spare() {
    let disk = MemoryDisk::new();
    disk.put(&path(3), &[]);
    disk.put(&path(4), &[0; 10_000]);
    let header = FileHeader { sequence: 2, salt: 5 }.block();
    disk.put(&path(5), &header);
    let made = WalFile::make(&disk, 6, FILE, Fresh::Zeroed).unwrap();
    let (recovered, _) = replayed(&disk, 2).unwrap();
    assert!(recovered.reports.is_empty());
    assert_eq!(recovered.spare.iter().map(|file| file.sequence).collect::<Vec<_>>(), [3, 4, 5]);
    assert!(recovered.files.len() == 1 && recovered.files[0].is_prepared());
    assert_eq!((recovered.files[0].sequence, recovered.files[0].length), (6, made.length));
    for (sequence, file) in (7..).zip(recovered.spare) {
        let file = file.recycle(&disk, sequence, FILE).unwrap();
        assert_eq!(disk.open(&path(sequence)).unwrap().length().unwrap(), file.length);
        assert!(read_back(&file).unwrap().1.is_empty());
    }
    assert_eq!(replayed(&disk, 5).unwrap().0.files.len(), 4);
}

#[test]
fn an_unsynced_batch_behind_a_lost_one_is_cut_off() {
    let disk = MemoryDisk::new();
    let mut writer = writer(&disk);
    for index in 1..=4 {
        writer.write(&[&batch(index, b"payload")]).unwrap();
    }
    drop(writer);
    // Of batch 2 nothing came to the disk.
    disk.zero(&path(1), 2 * BLOCK..3 * BLOCK);
    let (recovered, found) = replayed(&disk, 0).unwrap();
    assert_eq!((indexes(&found), recovered.next_batch), (vec![1], 3));
    let texts: Vec<_> = recovered.reports.iter().map(|report| &report.text[..]).collect();
    let expected =
        "wal/00000000000000000001.wal: cut off at byte 8192: 12288 bytes of batches that were never finished";
    assert_eq!((texts, has_loss(&recovered.reports)), (vec![expected], false));
    let (again, found) = replayed(&disk, 0).unwrap();
    assert_eq!((indexes(&found), again.reports.len()), (vec![1], 0));
}

#[test]
fn reading_asks_the_disk_for_big_pieces() {
    let disk = MemoryDisk::new();
    let mut writer = WalWriter::new(WalFile::make(&disk, 1, 1 << 20, Fresh::Zeroed).unwrap(), 1);
    let mut records = Records::new(Random::new(1));
    for _ in 0..100 {
        writer.write(&[&records.batch().0]).unwrap();
    }
    writer.sync().unwrap();
    let full = writer.roll(WalFile::make(&disk, 2, BLOCK, Fresh::Zeroed).unwrap());
    let before = disk.counts().reads;
    read_back(&full).unwrap();
    let reads = disk.counts().reads - before;
    assert!(reads <= 20, "{reads} reads");
    full.file.write_at(&[IoSlice::new(&[1; 100])], BLOCK + 64).unwrap();
    assert!(has_loss(&read_back(&full).unwrap().0));
}
