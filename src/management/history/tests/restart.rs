//! The folder: restarts, loss, damage, growth.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::ReadableTable;

use super::*;
use crate::management::history::{Opened, Report};

/// A folder of its own for each test, removed at the end.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("warren-history-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn history(&self) -> PathBuf {
        self.0.join("history")
    }

    pub(super) fn store(&self) -> PathBuf {
        self.history().join("history.redb")
    }

    fn opened(&self) -> Opened {
        History::open(&self.history(), BUDGET)
    }

    pub(super) fn open(&self) -> History {
        let opened = self.opened();
        assert_eq!(opened.report, None);
        opened.history
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn run(history: &History, steps: std::ops::Range<u64>) {
    for step in steps {
        let values = [step, step / 7, 3];
        let subjects: [(Subject<'_>, &[u64]); 4] = [
            (Subject::Global, &values),
            (queue("a"), &values),
            (queue("idle"), &[0, 5]),
            (Subject::Connection("c"), &values),
        ];
        record(history, START_MS + step * 5_000, &subjects);
    }
}

#[test]
fn a_restart_keeps_what_was_persisted() {
    let folder = Folder::new("restart");
    let history = folder.open();
    run(&history, 0..1_000);
    history.persist().unwrap();
    run(&history, 1_000..1_012);
    let written = history.persist().unwrap();
    assert!(written.keys <= 8 && written.bytes < 600, "only what is new: {written:?}");
    let range = down(3_600, 60, START_MS + 1_011 * 5_000);
    let before = history.samples(queue("a"), &[0, 1, 2], &range);
    assert_eq!(before.as_ref().unwrap().at_ms.len(), 61);
    drop(history);
    let history = folder.open();
    assert_eq!(history.samples(queue("a"), &[0, 1, 2], &range), before);
    assert_eq!(history.latest(Subject::Global, 0).unwrap().value, 1_011);
    assert_eq!(history.latest(queue("idle"), 1).unwrap().value, 5);
    assert_eq!(history.latest(Subject::Connection("c"), 0), None, "connections die with the process");
    run(&history, 1_012..1_100);
    let samples = history.samples(queue("a"), &[0], &down(600, 5, START_MS + 1_099 * 5_000)).unwrap();
    assert_eq!(samples.fields[0].values, (979..=1_099).rev().collect::<Vec<u64>>());
}

#[test]
fn a_long_pause_of_the_sampler_is_a_pause_only() {
    let folder = Folder::new("pause");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    run(&history, 20..30);
    run(&history, 2_000..2_010);
    history.persist().unwrap();
    let range = down(28_800, 1_800, START_MS + 2_009 * 5_000);
    let before = history.samples(queue("a"), &[0], &range);
    assert!(before.as_ref().unwrap().at_ms.len() > 1);
    drop(history);
    assert_eq!(folder.open().samples(queue("a"), &[0], &range), before);
}

#[test]
fn what_was_forgotten_stays_so() {
    let folder = Folder::new("forget");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    history.forget(queue("a"));
    history.persist().unwrap();
    drop(history);
    let history = folder.open();
    assert_eq!(history.latest(queue("a"), 0), None);
    run(&history, 20..21);
    let samples = history.samples(queue("a"), &[0], &down(20, 5, START_MS + 100_000)).unwrap();
    assert_eq!(samples.fields[0].values, [20, 0, 0, 0, 0], "another of that name begins anew");
}

#[test]
fn when_everything_was_cleared_it_stays_so() {
    let folder = Folder::new("clear");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    history.clear();
    assert_eq!((history.usage().subjects, history.latest(queue("a"), 0)), (0, None));
    history.persist().unwrap();
    drop(history);
    let history = folder.open();
    assert_eq!(history.usage().subjects, 0);
    run(&history, 20..21);
    assert_eq!(history.latest(queue("a"), 0).unwrap().value, 20);
}

#[test]
fn idle_queues_keep_their_values_when_all_rows_have_expired() {
    let folder = Folder::new("idle");
    let history = folder.open();
    for step in 0..30 * 720 {
        let value = u64::from(step > 100);
        record(&history, START_MS + step * 5_000, &[(queue("a"), &[value]), (queue("b"), &[step])]);
        if step % 720 == 0 {
            history.persist().unwrap();
        }
    }
    history.persist().unwrap();
    drop(history);
    let history = folder.open();
    assert_eq!(history.latest(queue("a"), 0).unwrap().value, 1);
    let samples = history.samples(queue("a"), &[0], &down(86_400, 1_800, START_MS + 30 * 3_600_000)).unwrap();
    assert_eq!(samples.fields[0].values, [1; 49]);
}

#[test]
fn a_deleted_folder_loses_only_the_history() {
    let folder = Folder::new("deleted");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    drop(history);
    fs::remove_dir_all(folder.history()).unwrap();
    let history = folder.open();
    assert_eq!(history.latest(queue("a"), 0), None);
    run(&history, 20..22);
    history.persist().unwrap();
    drop(history);
    assert_eq!(folder.open().latest(queue("a"), 0).unwrap().value, 21);
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("history");

/// Does something to the first value of those whose keys begin so.
fn change_value(folder: &Folder, prefix: &[u8], change: fn(&mut [u8])) {
    let store = redb::Database::open(folder.store()).unwrap();
    let transaction = store.begin_write().unwrap();
    {
        let mut table = transaction.open_table(TABLE).unwrap();
        let (key, mut value) = {
            let (key, value) = table.range(prefix..).unwrap().next().unwrap().unwrap();
            (key.value().to_vec(), value.value().to_vec())
        };
        assert!(key.starts_with(prefix));
        change(&mut value);
        table.insert(key.as_slice(), value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

fn remove_meta(folder: &Folder) {
    let store = redb::Database::open(folder.store()).unwrap();
    let transaction = store.begin_write().unwrap();
    transaction.open_table(TABLE).unwrap().remove(b"m".as_slice()).unwrap();
    transaction.commit().unwrap();
}

fn empty_store(folder: &Folder) {
    fs::write(folder.store(), b"").unwrap();
    redb::Database::create(folder.store()).unwrap();
}

#[test]
fn a_damaged_folder_is_set_aside() {
    let damages: [fn(&Folder); 9] = [
        |folder| {
            fs::remove_dir_all(folder.history()).unwrap();
            fs::write(folder.history(), b"a file").unwrap();
        },
        |folder| {
            fs::remove_file(folder.store()).unwrap();
            fs::create_dir(folder.store()).unwrap();
        },
        |folder| fs::write(folder.store(), b"").unwrap(),
        |folder| fs::write(folder.store(), b"something else").unwrap(),
        empty_store,
        remove_meta,
        |folder| change_value(folder, b"m", |value| *value.last_mut().unwrap() ^= 1),
        |folder| change_value(folder, b"c", |value| *value.last_mut().unwrap() ^= 1),
        |folder| change_value(folder, b"s", |value| value[0] += 1),
    ];
    for damage in damages {
        let folder = Folder::new("damaged");
        let history = folder.open();
        run(&history, 0..20);
        history.persist().unwrap();
        drop(history);
        damage(&folder);
        let opened = folder.opened();
        let Some(Report::SetAside { moved_to, reason, .. }) = &opened.report else { panic!("{:?}", opened.report) };
        assert!(moved_to.exists() && !reason.is_empty());
        assert_eq!(opened.history.latest(queue("a"), 0), None);
        run(&opened.history, 20..22);
        opened.history.persist().unwrap();
        drop(opened);
        assert_eq!(folder.open().latest(queue("a"), 0).unwrap().value, 21);
    }
}

/// Whatever is wrong with the file, the broker starts, with the history or without it, and goes on writing. The file is
/// that of a process that was killed, or of one that ended.
#[test]
fn damage_anywhere_is_never_fatal() {
    let folder = Folder::new("bytes");
    let history = folder.open();
    for minute in 0..6 {
        run(&history, minute * 12..(minute + 1) * 12);
        history.persist().unwrap();
    }
    let killed = fs::read(folder.store()).unwrap();
    drop(history);
    let ended = fs::read(folder.store()).unwrap();
    let (mut kept, mut lost) = (0, 0);
    for bytes in [killed, ended] {
        // Every byte of what redb reads first, and some of each page.
        for at in (0..320).chain((320..bytes.len()).step_by(509)) {
            let damages: [fn(&mut Vec<u8>, usize); 3] = [
                |bytes, at| bytes[at] ^= 0xff,
                |bytes, at| bytes.iter_mut().skip(at).take(512).for_each(|byte| *byte = 0),
                Vec::truncate,
            ];
            for damage in &damages[..if at % 4 == 0 { 3 } else { 1 }] {
                let copy = Folder::new("bytes-copy");
                fs::create_dir(copy.history()).unwrap();
                let mut damaged = bytes.clone();
                damage(&mut damaged, at);
                fs::write(copy.store(), damaged).unwrap();
                let opened = copy.opened();
                match opened.report {
                    None => kept += 1,
                    Some(Report::SetAside { .. }) => lost += 1,
                    report => panic!("{report:?} with {at}"),
                }
                run(&opened.history, 72..74);
                assert_eq!(opened.history.latest(queue("a"), 0).unwrap().value, 73);
                opened.history.persist().unwrap();
                drop(opened);
                assert_eq!(copy.open().latest(queue("a"), 0).unwrap().value, 73);
            }
        }
    }
    assert!(kept > 100 && lost > 100, "{kept} kept, {lost} lost");
}

/// The file as a process leaves it that does not close it, beside a new one that it had not finished.
#[test]
fn a_process_that_was_killed_loses_what_was_not_persisted() {
    let folder = Folder::new("killed");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    run(&history, 20..30);
    let copy = Folder::new("killed-copy");
    fs::create_dir(copy.history()).unwrap();
    fs::copy(folder.store(), copy.store()).unwrap();
    fs::write(copy.history().join("history.redb.new"), b"not finished").unwrap();
    let history = copy.open();
    assert_eq!(history.latest(queue("a"), 0).unwrap().value, 19);
    history.break_store();
    history.persist().unwrap();
    drop(history);
    assert_eq!(copy.open().latest(queue("a"), 0).unwrap().value, 19);
}

#[test]
fn what_earlier_versions_kept_is_removed() {
    let folder = Folder::new("former");
    for name in ["store-3/blobs", "store-4", "store-x"] {
        fs::create_dir_all(folder.history().join(name)).unwrap();
    }
    for name in ["store-3/conf", "store-3/db", "opening"] {
        fs::write(folder.history().join(name), b"sled").unwrap();
    }
    let opened = folder.opened();
    assert_eq!(opened.report, Some(Report::Former { folder: folder.history() }));
    run(&opened.history, 0..20);
    opened.history.persist().unwrap();
    drop(opened);
    let mut names: Vec<_> = fs::read_dir(folder.history()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["history.redb", "store-x"]);
    assert_eq!(folder.open().latest(queue("a"), 0).unwrap().value, 19);
}

#[test]
fn a_folder_that_cannot_be_made_leaves_memory() {
    let folder = Folder::new("memory");
    fs::write(folder.0.join("file"), b"").unwrap();
    let opened = History::open(&folder.0.join("file/history"), BUDGET);
    assert!(matches!(opened.report, Some(Report::MemoryOnly { .. })), "{:?}", opened.report);
    run(&opened.history, 0..2);
    opened.history.persist().unwrap();
    assert_eq!(opened.history.latest(queue("a"), 0).unwrap().value, 1);
}

#[test]
fn a_store_in_use_is_left_alone() {
    let folder = Folder::new("in-use");
    let first = folder.open();
    run(&first, 0..2);
    first.persist().unwrap();
    let second = History::open(&folder.history(), BUDGET);
    assert!(matches!(second.report, Some(Report::MemoryOnly { .. })), "{:?}", second.report);
    drop((first, second));
    assert_eq!(folder.open().latest(queue("a"), 0).unwrap().value, 1);
}

#[test]
fn a_store_is_replaced_when_it_cannot_be_gone_on_with() {
    let folder = Folder::new("replaced");
    let history = folder.open();
    run(&history, 0..900);
    history.persist().unwrap();
    run(&history, 900..910);
    let before = fs::metadata(folder.store()).unwrap().ino();
    history.break_store();
    history.persist().unwrap();
    assert_ne!(fs::metadata(folder.store()).unwrap().ino(), before);
    run(&history, 910..920);
    history.persist().unwrap();
    let range = down(3_600, 60, START_MS + 919 * 5_000);
    let before = history.samples(queue("a"), &[0, 1, 2], &range);
    drop(history);
    assert_eq!(folder.open().samples(queue("a"), &[0, 1, 2], &range), before);
}

#[test]
fn a_store_is_replaced_when_it_has_grown_much_larger_than_what_it_holds() {
    let folder = Folder::new("grown");
    let history = folder.open();
    let names: Vec<String> = (0..3_000).map(|index| format!("queue-{index}")).collect();
    let mut round = Round::new();
    names.iter().for_each(|name| round.add(queue(name), &[1, 2, 3]));
    history.record(START_MS - 5_000, &round);
    history.persist().unwrap();
    names.iter().for_each(|name| history.forget(queue(name)));
    run(&history, 0..20);
    history.persist().unwrap();
    drop(history);
    let history = folder.open();
    let grown_kib = history.stored_kib();
    history.set_store_bytes_max(grown_kib * 1024);
    run(&history, 20..30);
    history.persist().unwrap();
    assert!(history.stored_kib() >= grown_kib, "not larger than it may be");
    history.set_store_bytes_max(0);
    run(&history, 30..40);
    history.persist().unwrap();
    let new_kib = history.stored_kib();
    assert!(new_kib < grown_kib / 3, "{grown_kib} KiB before, {new_kib} after");
    let new = fs::metadata(folder.store()).unwrap().ino();
    run(&history, 40..50);
    history.persist().unwrap();
    assert_eq!(fs::metadata(folder.store()).unwrap().ino(), new, "it has not grown since");
    drop(history);
    assert_eq!(folder.open().latest(queue("a"), 0).unwrap().value, 49);
}

#[test]
fn what_could_not_be_written_is_written_the_next_time() {
    let folder = Folder::new("unwritten");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    run(&history, 20..30);
    history.break_store();
    let new = folder.history().join("history.redb.new");
    fs::create_dir(&new).unwrap();
    for _ in 0..2 {
        assert!(history.persist().is_err());
        let store = fs::read(folder.store()).unwrap();
        let copy = Folder::new("unwritten-copy");
        fs::create_dir(copy.history()).unwrap();
        fs::write(copy.store(), store).unwrap();
        assert_eq!(copy.open().latest(queue("a"), 0).unwrap().value, 19, "what there was stays");
    }
    fs::remove_dir(&new).unwrap();
    run(&history, 30..40);
    history.persist().unwrap();
    drop(history);
    let history = folder.open();
    let samples = history.samples(queue("a"), &[0], &down(100, 5, START_MS + 39 * 5_000)).unwrap();
    assert_eq!(samples.fields[0].values, (19..=39).rev().collect::<Vec<u64>>());
}

#[test]
fn old_chunks_are_removed() {
    let folder = Folder::new("bounded");
    let history = folder.open();
    let mut most = 0;
    for minute in 0..3_000 {
        run(&history, minute * 12..(minute + 1) * 12);
        history.persist().unwrap();
        if minute >= 1_600 {
            most = most.max(history.stored_keys());
        }
    }
    // Eleven, 62, 52 and 50 chunks of one part with their rounds, some subjects and the extent.
    assert!(most <= 2 * (12 + 63 + 53 + 51) + 4, "{most} keys");
}
