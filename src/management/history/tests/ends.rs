//! Ends in the middle of a write: killed processes, power cuts, full disks. What processes must do is done by this test
//! binary, started once more.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::restart::Folder;
use super::*;
use crate::management::history::Report;

/// Tells a test that it is the started process, and its folder.
const FOLDER: &str = "WARREN_TEST_HISTORY";

fn given_folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Starts one test of this file in a process of its own, where a file that is too long is an error and not a signal.
fn start(test: &str, folder: &Folder) -> Child {
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let mut arguments: Vec<OsString> = vec!["-c".into(), "trap '' XFSZ; exec \"$0\" \"$@\"".into()];
    arguments.push(std::env::current_exe().unwrap().into());
    arguments.extend([name.into(), "--exact".into(), "--nocapture".into()]);
    let mut command = Command::new("sh");
    command.args(arguments).env(FOLDER, folder.history()).stdout(Stdio::piped()).spawn().unwrap()
}

fn opened(folder: PathBuf) -> History {
    let opened = History::open(&folder, BUDGET);
    assert_eq!(opened.report, None);
    opened.history
}

/// A minute of some hundred queues, all of whose values are the minute.
fn record_minute(history: &History, minute: u64) {
    let names: Vec<String> = (0..300).map(|index| format!("queue-{index}")).collect();
    for step in minute * 12..(minute + 1) * 12 {
        let mut round = Round::new();
        names.iter().for_each(|name| round.add(queue(name), &[minute, step, step]));
        history.record(START_MS + step * 5_000, &round);
    }
}

fn newest_minute(history: &History) -> Option<u64> {
    let newest = history.latest(queue("queue-0"), 0).map(|rate| rate.value);
    assert_eq!(history.latest(queue("queue-299"), 0).map(|rate| rate.value), newest);
    newest
}

fn write_until_killed(folder: PathBuf) {
    let history = opened(folder);
    let begin = newest_minute(&history).map_or(0, |minute| minute + 1);
    for minute in begin..begin + 10_000 {
        record_minute(&history, minute);
        // In part a new store is written.
        if minute % 4 == 3 {
            history.break_store();
        }
        history.persist().unwrap();
        println!("\npersisted {minute}");
    }
}

#[test]
fn a_process_killed_in_a_write_keeps_what_it_had_written() {
    if let Some(folder) = given_folder() {
        return write_until_killed(folder);
    }
    let folder = Folder::new("killed-process");
    let mut newest = None;
    for round in 0..30_u64 {
        let mut child = start("a_process_killed_in_a_write_keeps_what_it_had_written", &folder);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut persisted = lines.by_ref().filter_map(|line| line.strip_prefix("persisted ")?.parse().ok());
        for _ in 0..=round % 3 {
            newest = persisted.next();
            assert!(newest.is_some());
        }
        std::thread::sleep(Duration::from_micros(round * 7_919 % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        newest = persisted.last().or(newest);
        let history = folder.open();
        let found = newest_minute(&history);
        // It may have been killed before it could tell.
        assert!(found == newest || found == newest.map(|minute| minute + 1), "{found:?} of {newest:?}");
    }
}

/// A power cut leaves of the pages of a transaction some written and some not.
#[test]
fn a_power_cut_in_a_write_leaves_what_was_before_or_after() {
    const PAGE: usize = 4_096;
    let folder = Folder::new("power");
    let history = folder.open();
    record_minute(&history, 0);
    history.persist().unwrap();
    let (mut seed, mut kept) = (1_u32, [0; 2]);
    for minute in 1..20 {
        let before = fs::read(folder.store()).unwrap();
        record_minute(&history, minute);
        history.persist().unwrap();
        let after = fs::read(folder.store()).unwrap();
        for written_of_8 in 1..=8 {
            let mut torn = after.clone();
            for at in (0..before.len().min(after.len())).step_by(PAGE) {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if seed >> 29 >= written_of_8 {
                    torn[at..at + PAGE].copy_from_slice(&before[at..at + PAGE]);
                }
            }
            let copy = Folder::new("power-copy");
            fs::create_dir(copy.history()).unwrap();
            fs::write(copy.store(), torn).unwrap();
            let history = copy.open();
            let found = newest_minute(&history).unwrap();
            assert!(found == minute || found == minute - 1, "{found} of {minute}");
            kept[(minute - found) as usize] += 1;
            record_minute(&history, minute + 1);
            history.persist().unwrap();
            drop(history);
            assert_eq!(newest_minute(&copy.open()), Some(minute + 1));
        }
    }
    assert!(kept.iter().all(|count| *count > 10), "{kept:?}");
}

fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
}

/// Stands for a full disk: no file can grow beyond some size, and nothing can be written there.
fn write_without_space(folder: PathBuf) {
    let store = folder.join("history.redb");
    let mut history = opened(folder.clone());
    let mut failed = 0;
    for minute in 0..60 {
        record_minute(&history, minute);
        history.persist().unwrap();
        let length = fs::metadata(&store).unwrap().len();
        record_minute(&history, minute + 1);
        limit_files(Some(length * (minute % 20) / 20));
        for _ in 0..=minute % 3 {
            match history.persist() {
                Ok(_) => {}
                Err(error) => {
                    assert!(!error.reason.is_empty());
                    assert!(!folder.join("history.redb.new").exists(), "it takes space");
                    failed += 1;
                }
            }
            assert_eq!(newest_minute(&history), Some(minute + 1), "memory goes on");
        }
        limit_files(None);
        // Either it ends now, or it writes once more first.
        if minute % 2 == 0 {
            history.persist().unwrap();
        }
        drop(history);
        history = opened(folder.clone());
        let found = newest_minute(&history).unwrap();
        assert!(found == minute + 1 || minute % 2 == 1 && found == minute, "{found} of {minute}");
    }
    println!("\nfailed {failed}");
}

#[test]
fn without_space_memory_goes_on_and_later_all_is_written() {
    if let Some(folder) = given_folder() {
        return write_without_space(folder);
    }
    let folder = Folder::new("full");
    let child = start("without_space_memory_goes_on_and_later_all_is_written", &folder);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let failed = text.lines().find_map(|line| line.strip_prefix("failed ")?.parse::<u32>().ok());
    assert!(output.status.success() && failed.is_some_and(|failed| failed > 60), "{text}");
}

#[test]
fn another_process_leaves_a_store_in_use_alone() {
    if let Some(folder) = given_folder() {
        let report = History::open(&folder, BUDGET).report;
        let Some(Report::MemoryOnly { reason, .. }) = report else { panic!("{report:?}") };
        return println!("\nreason {reason}");
    }
    let folder = Folder::new("in-use-process");
    let history = folder.open();
    record_minute(&history, 0);
    history.persist().unwrap();
    let child = start("another_process_leaves_a_store_in_use_alone", &folder);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("\nreason Database already open"), "{text}");
    record_minute(&history, 1);
    history.persist().unwrap();
    drop(history);
    assert_eq!(newest_minute(&folder.open()), Some(1));
}
