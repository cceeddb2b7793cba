//! The folder: restarts, loss, damage, growth.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

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

    /// Opens the history; a store that was closed stays locked until the last thread of sled lets go of it.
    fn opened(&self) -> Opened {
        for _ in 0..500 {
            let opened = History::open(&self.history(), BUDGET);
            match &opened.report {
                Some(Report::MemoryOnly { reason, .. }) if reason == "another process has it open" => {}
                _ => return opened,
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} stays locked", self.0.display());
    }

    fn store(&self, name: &str) -> sled::Db {
        let path = self.history().join(name);
        for _ in 0..500 {
            match sled::open(&path) {
                Ok(store) => return store,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        panic!("{} stays locked", path.display());
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

fn change_value(folder: &Folder, prefix: &[u8], change: fn(&mut [u8])) {
    let store = folder.store("store-1");
    let (key, value) = store.scan_prefix(prefix).next().unwrap().unwrap();
    let mut value = value.to_vec();
    change(&mut value);
    store.insert(key, value).unwrap();
    store.flush().unwrap();
}

#[test]
fn a_process_that_was_killed_while_it_opened_the_folder_loses_nothing() {
    let folder = Folder::new("killed");
    let history = folder.open();
    run(&history, 0..20);
    history.persist().unwrap();
    drop(history);
    for interrupted in ["", "begun\n", "begun\nbegun\n"] {
        fs::write(folder.history().join("opening"), interrupted).unwrap();
        let history = folder.open();
        assert_eq!(history.latest(queue("a"), 0).unwrap().value, 19, "after {interrupted:?}");
        drop(history);
        assert!(!folder.history().join("opening").exists());
    }
}

#[test]
fn a_damaged_folder_is_set_aside() {
    let damages: [fn(&Folder); 5] = [
        |folder| fs::write(folder.history().join("opening"), "begun\npanicked\n").unwrap(),
        |folder| fs::write(folder.history().join("opening"), "begun\nbegun\nbegun\n").unwrap(),
        |folder| {
            fs::remove_dir_all(folder.history()).unwrap();
            fs::write(folder.history(), b"a file").unwrap();
        },
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

/// Whatever byte is wrong, the broker starts, with the history or without it.
#[test]
fn damage_anywhere_is_never_fatal() {
    let folder = Folder::new("bytes");
    let history = folder.open();
    run(&history, 0..40);
    history.persist().unwrap();
    drop(history);
    let file = folder.history().join("store-1/db");
    let bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in (0..used).step_by(used / 25 + 1) {
        let copy = Folder::new("bytes-copy");
        fs::create_dir_all(copy.history().join("store-1/blobs")).unwrap();
        fs::copy(folder.history().join("store-1/conf"), copy.history().join("store-1/conf")).unwrap();
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        fs::write(copy.history().join("store-1/db"), damaged).unwrap();
        let opened = copy.opened();
        assert!(!matches!(opened.report, Some(Report::MemoryOnly { .. })), "{:?}", opened.report);
        run(&opened.history, 40..42);
        assert_eq!(opened.history.latest(queue("a"), 0).unwrap().value, 41);
        opened.history.persist().unwrap();
    }
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
    history.break_store();
    history.persist().unwrap();
    assert!(folder.history().join("store-2").exists() && !folder.history().join("store-1").exists());
    run(&history, 910..920);
    history.persist().unwrap();
    let range = down(3_600, 60, START_MS + 919 * 5_000);
    let before = history.samples(queue("a"), &[0, 1, 2], &range);
    drop(history);
    // A store that was not finished does not count.
    drop(folder.store("store-3"));
    assert_eq!(folder.open().samples(queue("a"), &[0, 1, 2], &range), before);
    assert!(!folder.history().join("store-3").exists());
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
