//! Snapshots on the disk: generations, damage, and loss of power at every step.

use super::super::{FileError, encode_snapshot, load, store};
use super::disk::MemoryDisk;
use super::*;
use crate::log::{Severity, Storage};

/// A snapshot that says which one it is.
fn snapshot(through: u64) -> Vec<u8> {
    encode_snapshot(
        &[Change::SetVhost { vhost: through.to_string().as_str().into(), metadata: Arc::default() }],
        through,
    )
}

fn path(through: u64) -> String {
    format!("definitions/{through:020}.snapshot")
}

fn disk_with(generations: &[u64]) -> MemoryDisk {
    let disk = MemoryDisk::default();
    for through in generations {
        disk.write(&path(*through), &snapshot(*through));
    }
    disk
}

/// What is loaded, which must be what the snapshot of that name has.
fn loaded_through(disk: &dyn Storage) -> u64 {
    let loaded = load(disk).unwrap();
    let expected = Change::SetVhost { vhost: loaded.through.to_string().as_str().into(), metadata: Arc::default() };
    assert!(loaded.through == 0 && loaded.changes.is_empty() || loaded.changes == [expected]);
    loaded.through
}

#[test]
fn an_empty_directory_has_no_definitions() {
    let loaded = load(&MemoryDisk::default()).unwrap();
    assert!(loaded.changes.is_empty() && loaded.reports.is_empty());
    assert_eq!((loaded.through, loaded.keep_after), (0, 0));
}

#[test]
fn the_newest_two_are_kept_and_tell_what_the_log_must_keep() {
    let disk = MemoryDisk::default();
    for (through, keep_after) in [(5, 0), (9, 5), (1_000, 9), (1_000, 9), (20_000, 1_000)] {
        let stored = store(&disk, &snapshot(through)).unwrap();
        assert_eq!(stored.keep_after, keep_after);
        assert!(stored.reports.is_empty());
        let loaded = load(&disk).unwrap();
        assert_eq!((loaded.through, loaded.keep_after), (through, keep_after));
    }
    assert_eq!(disk.names(), [path(1_000), path(20_000)]);
}

#[test]
fn a_damaged_newest_is_put_aside_and_the_older_one_used() {
    let disk = disk_with(&[5, 9]);
    let mut bytes = snapshot(9);
    bytes[20] ^= 1;
    disk.write(&path(9), &bytes);
    let loaded = load(&disk).unwrap();
    assert_eq!((loaded.through, loaded.keep_after), (5, 0));
    let [report] = loaded.reports.as_slice() else { panic!("{:?}", loaded.reports) };
    assert_eq!(report.severity, Severity::Notice);
    assert!(report.text.starts_with(&path(9)) && report.text.contains(&path(5)), "{}", report.text);
    let aside = path(9).replace("definitions/", "damaged/");
    assert_eq!(disk.names(), [aside.clone(), path(5)]);
    assert_eq!(disk.read(&aside), bytes);
    // The next start has nothing to say, and neither has one after a loss of power.
    disk.lose_power();
    assert!(load(&disk).unwrap().reports.is_empty());
    assert_eq!(store(&disk, &snapshot(12)).unwrap().keep_after, 5);
}

#[test]
fn a_damaged_older_one_is_put_aside_too() {
    let disk = disk_with(&[5, 9]);
    disk.write(&path(5), &[0; 4096]);
    let loaded = load(&disk).unwrap();
    assert_eq!((loaded.through, loaded.keep_after, loaded.reports.len()), (9, 0, 1));
    assert_eq!(disk.names(), ["damaged/00000000000000000005.snapshot".to_owned(), path(9)]);
}

#[test]
fn nothing_is_touched_when_all_are_damaged() {
    let disk = disk_with(&[5, 9]);
    disk.write(&path(5), &snapshot(5)[..50]);
    disk.write(&path(9), b"");
    let names = disk.names();
    let error = load(&disk).unwrap_err();
    assert!(matches!(error, FileError::AllDamaged(_)));
    let text = error.to_string();
    assert!(text.contains(&path(5)) && text.contains(&path(9)), "{text}");
    assert_eq!(disk.names(), names);
}

#[test]
fn a_snapshot_of_a_newer_broker_is_not_damaged() {
    let disk = disk_with(&[5, 9]);
    let mut bytes = snapshot(9);
    bytes[12] = 2;
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    disk.write(&path(9), &bytes);
    let error = load(&disk).unwrap_err();
    assert!(error.to_string().contains("newer") && error.to_string().contains(&path(9)), "{error}");
    assert_eq!(disk.names(), [path(5), path(9)]);
}

#[test]
fn a_snapshot_under_another_name_is_not_used() {
    let disk = disk_with(&[5]);
    disk.write(&path(9), &snapshot(8));
    disk.write("definitions/12.snapshot", &snapshot(12));
    disk.write("definitions/notes", b"");
    let loaded = load(&disk).unwrap();
    assert_eq!((loaded.through, loaded.reports.len()), (5, 1));
}

#[test]
fn what_is_no_snapshot_is_not_stored() {
    let disk = disk_with(&[5]);
    assert!(matches!(store(&disk, b"something"), Err(FileError::NoSnapshot(_))));
    assert_eq!(disk.names(), [path(5)]);
}

/// Runs `change` on disks that fail after 0, 1, 2 … operations, and checks what they have, with and without a loss of
/// power, until it succeeds.
fn interrupted_everywhere(
    disk: impl Fn() -> MemoryDisk,
    change: impl Fn(&MemoryDisk) -> bool,
    check: impl Fn(&MemoryDisk, bool),
) {
    for operations in 0.. {
        let mut succeeded = false;
        for power_lost in [true, false] {
            let disk = disk();
            disk.fail_after(operations);
            succeeded = change(&disk);
            if power_lost {
                disk.lose_power();
            } else {
                disk.recover();
            }
            check(&disk, succeeded);
        }
        if succeeded && operations > 10 {
            return;
        }
    }
}

#[test]
fn power_may_fail_at_any_step_of_storing() {
    for generations in [&[][..], &[5], &[5, 9], &[2, 5, 9]] {
        let before = generations.last().copied().unwrap_or(0);
        interrupted_everywhere(
            || disk_with(generations),
            |disk| store(disk, &snapshot(12)).is_ok(),
            |disk, succeeded| {
                let through = loaded_through(disk);
                assert!(through == 12 || !succeeded && through == before, "{through} with {generations:?}");
                // It goes on from there.
                store(disk, &snapshot(20)).unwrap();
                assert!(disk.list("definitions").unwrap().len() <= 2);
                disk.lose_power();
                assert_eq!(loaded_through(disk), 20);
            },
        );
    }
}

#[test]
fn power_may_fail_at_any_step_of_putting_aside() {
    let damaged = || {
        let disk = disk_with(&[5, 9, 12]);
        disk.write(&path(9), b"?");
        disk.write(&path(12), b"?");
        disk
    };
    interrupted_everywhere(damaged, |disk| load(disk).is_ok(), |disk, _| assert_eq!(loaded_through(disk), 5));
}
