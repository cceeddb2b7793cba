//! Random histories against the model: appends, settles, drops, maintenance, reads; crashes, kills, full and failing disks
//! anywhere in between. What is there afterwards is what some number of commits made, and at least the confirmed ones.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use super::model::{Model, ModelEntry, ModelLog, Step};
use super::*;
use crate::log::memory::Operation;
use crate::log::{LogError, Range, RecoveredLog};
use crate::model::random::Random;

const OPERATIONS: [Operation; 9] = [
    Operation::Open,
    Operation::Create,
    Operation::Rename,
    Operation::Remove,
    Operation::SyncDirectory,
    Operation::Read,
    Operation::Write,
    Operation::Sync,
    Operation::SetLength,
];

struct Chance(Random);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        (self.0.next_bits() >> 11) % bound.max(1)
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The process goes on.
    None,
    Kill,
    Crash,
}

struct Run {
    chance: Chance,
    disk: MemoryDisk,
    options: Options,
    log: Log,
    writer: Writer,
    /// What is durable at least.
    durable: Model,
    /// What was committed since, commit by commit.
    pending: Vec<Vec<Step>>,
    /// A commit that failed: it may be there or not.
    uncertain: Option<Vec<Step>>,
    /// All that was ever appended.
    history: Model,
    next_log: u64,
    /// Per log, up to where entries must be readable.
    flushed: std::collections::BTreeMap<LogId, u64>,
    /// The error that a fault injected now has.
    fault: Option<ErrorKind>,
}

#[test]
fn random_histories_keep_what_was_confirmed() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = variable("WARREN_SEED").unwrap_or(0);
    for seed in first..first + variable("WARREN_SEEDS").unwrap_or(2_000) {
        let run = std::panic::catch_unwind(|| run(seed));
        assert!(run.is_ok(), "failed with WARREN_SEED={seed} WARREN_SEEDS=1");
    }
}

fn run(seed: u64) {
    let mut chance = Chance(Random::new(seed));
    let sync = match chance.below(4) {
        0 => SyncMode::Interval(Duration::from_millis(10)),
        1 => SyncMode::Os,
        _ => SyncMode::Always,
    };
    let segment_bytes = if chance.one_in(2) { 16 * 1024 } else { 4 * 1024 };
    let keeping = [Keeping::USUAL, KEEP_ALL, KEEP_SOME][chance.below(3) as usize];
    let options = Options { sync, segment_bytes, keeping, ..OPTIONS };
    let disk = MemoryDisk::new();
    let Opened { log, writer, .. } = Log::open(Arc::new(disk.clone()), options).expect("the log opens");
    let mut run = Run {
        chance,
        disk,
        options,
        log,
        writer,
        durable: Model::default(),
        pending: Vec::new(),
        uncertain: None,
        history: Model::default(),
        next_log: 2,
        flushed: std::collections::BTreeMap::new(),
        fault: None,
    };
    for _ in 0..60 {
        let end = run.step();
        if end != End::None {
            run.restart(end);
        }
    }
    run.restart(End::Kill);
}

impl Run {
    fn step(&mut self) -> End {
        match self.chance.below(24) {
            0 => return if self.chance.one_in(3) { End::Kill } else { End::Crash },
            1 => {
                let operation = OPERATIONS[self.chance.below(9) as usize];
                let kind = if self.chance.one_in(2) { ErrorKind::Other } else { ErrorKind::StorageFull };
                let after = self.chance.below(12);
                if self.fault.is_none() {
                    if kind == ErrorKind::StorageFull && matches!(operation, Operation::Open | Operation::Create) {
                        // Too many files are open: that passes like a full disk does.
                        self.disk.fail_next_with(operation, 24, after);
                    } else {
                        self.disk.fail_next(operation, kind, after);
                    }
                    self.fault = Some(kind);
                }
            }
            2 => self.log.seal(),
            3 if self.writer.unsynced() => match self.writer.sync() {
                Ok(()) => self.confirm(),
                Err(_) => return End::Crash,
            },
            4..=10 => return self.maintain(),
            11..=13 => return self.read(),
            _ => return self.commit(),
        }
        End::None
    }

    fn maintain(&mut self) -> End {
        for _ in 0..=self.chance.below(4) {
            match self.log.maintain() {
                Ok(done) => {
                    assert_eq!(done.reports, []);
                    for (log, last) in done.flushed {
                        let known = self.flushed.entry(log).or_default();
                        *known = last.max(*known);
                    }
                }
                Err(CommitError::NoSpace { .. }) => {
                    assert_ne!(self.fault, Some(ErrorKind::Other), "an error is taken for a full disk");
                    assert!(self.fault.take().is_some(), "there is space");
                    let names = self.disk.paths();
                    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
                }
                Err(error) => return self.failed(&error),
            }
        }
        End::None
    }

    fn failed(&mut self, error: &CommitError) -> End {
        assert!(self.fault.is_some(), "{error}");
        if self.chance.one_in(3) { End::Kill } else { End::Crash }
    }

    fn read(&mut self) -> End {
        let Some(log) = self.some_log() else { return End::None };
        let last = self.history.logs.get(&log).map_or(1, |log| log.next_index);
        let (a, b) = (self.chance.below(last + 1), self.chance.below(last + 1));
        let (first, last) = (a.min(b), a.max(b));
        match self.log.read(log, first, last) {
            Ok(read) => {
                assert_eq!(read.reports, []);
                self.check_read(log, (first, last), &read.entries);
                End::None
            }
            Err(error) => self.failed(&error.into()),
        }
    }

    fn check_read(&self, log: LogId, (first, last): (u64, u64), entries: &[crate::log::Stored]) {
        let ever = &self.history.logs[&log].live;
        assert!(entries.windows(2).all(|pair| pair[0].head.index < pair[1].head.index), "ascending, each once");
        for entry in entries {
            let index = entry.head.index;
            let known = ever.get(&index).expect("only what was written is read");
            assert!((first..=last).contains(&index));
            assert_eq!((&known.head, &known.payload[..]), (&entry.head, &entry.payload[..]));
        }
        let through = self.flushed.get(&log).copied().unwrap_or(0).min(last);
        let live = self.now().logs.remove(&log).unwrap_or_default().live;
        for index in live.keys().filter(|index| (first..=through).contains(*index)) {
            assert!(entries.iter().any(|entry| entry.head.index == *index), "entry {index} of {log:?} is not read");
        }
    }

    /// As the process knows it.
    fn now(&self) -> Model {
        let mut model = self.durable.clone();
        self.pending.iter().flatten().for_each(|step| model.apply(step));
        model
    }

    fn some_log(&mut self) -> Option<LogId> {
        let logs: Vec<LogId> = self.history.logs.keys().copied().collect();
        (!logs.is_empty()).then(|| logs[self.chance.below(logs.len() as u64) as usize])
    }

    fn confirm(&mut self) {
        self.durable = self.now();
        self.pending.clear();
    }

    fn commit(&mut self) -> End {
        let mut now = self.now();
        let mut steps = Vec::new();
        let mut batches = Vec::new();
        for _ in 0..=self.chance.below(2) {
            let mut batch = Batch::default();
            for _ in 0..=self.chance.below(3) {
                self.action(&mut now, &mut batch, &mut steps);
            }
            batches.push(batch);
        }
        let batches: Vec<&Batch> = batches.iter().collect();
        match self.writer.commit(&batches) {
            Ok(()) => {
                // It lies where one lay for which there was no space.
                self.uncertain = None;
                self.pending.push(steps);
                if !self.writer.unsynced() {
                    self.confirm();
                }
                End::None
            }
            Err(CommitError::Full) => {
                assert!(self.log.wants_maintenance());
                self.maintain()
            }
            Err(CommitError::NoSpace { .. }) => {
                assert_ne!(self.fault, Some(ErrorKind::Other), "an error is taken for a full disk");
                assert!(self.fault.take().is_some(), "there is space");
                // All of it but the padding may have found its place.
                self.uncertain = Some(steps);
                // Where nothing is synced in time, a power failure may bring it back in place of what came after it.
                if self.options.sync == SyncMode::Always { End::None } else { End::Kill }
            }
            Err(error) => {
                self.uncertain = Some(steps);
                assert!(matches!(self.writer.commit(&batches), Err(CommitError::Failed(_))), "it goes on");
                self.failed(&error)
            }
        }
    }

    fn action(&mut self, now: &mut Model, batch: &mut Batch, steps: &mut Vec<Step>) {
        let logs: Vec<LogId> = now.logs.keys().copied().collect();
        let is_new = logs.is_empty() || (logs.len() < 4 && self.chance.one_in(6));
        let log = if is_new {
            self.next_log += 1;
            LogId(self.next_log)
        } else {
            logs[self.chance.below(logs.len() as u64) as usize]
        };
        let begin = steps.len();
        match self.chance.below(10) {
            _ if is_new => self.append(now, log, batch, steps),
            0..=4 => self.append(now, log, batch, steps),
            5 if self.chance.one_in(3) => {
                batch.drop_log(log);
                steps.push(Step::Drop(log));
            }
            5 | 6 => {
                let index = self.chance.below(now.logs[&log].next_index);
                batch.delivered(log, index);
                steps.push(Step::Deliver(log, index));
            }
            _ => {
                let ranges = self.ranges(now, log);
                batch.settle(log, &ranges);
                steps.extend(ranges.iter().map(|range| Step::Settle(log, *range)));
            }
        }
        steps[begin..].iter().for_each(|step| now.apply(step));
    }

    fn append(&mut self, now: &Model, log: LogId, batch: &mut Batch, steps: &mut Vec<Step>) {
        let mut index = now.logs.get(&log).map_or(1, |log| log.next_index);
        let classes = if self.chance.one_in(3) { 3 } else { 1 };
        for _ in 0..=self.chance.below(8) {
            if self.chance.one_in(12) {
                index += self.chance.below(1_000);
            }
            let head = Head {
                log,
                index,
                time: self.chance.below(1_000),
                deadline: if self.chance.one_in(3) { self.chance.below(1_000) } else { u64::MAX },
                cost: self.chance.below(500) as u32,
                class: self.chance.below(classes) as u8,
                transient: self.chance.one_in(10),
            };
            let last = steps.iter().rev().find_map(|step| match step {
                Step::Append(entry) => Some(entry.payload.clone()),
                _ => None,
            });
            let again = self.chance.one_in(4) && batch.append_again(&head);
            let payload = match last.filter(|_| again) {
                Some(payload) => payload,
                None => {
                    let size = match self.chance.below(12) {
                        0 => 3_000,
                        1 => 0,
                        _ => 120,
                    };
                    let size = self.chance.below(size + 1) as usize;
                    let payload = payload(log.0, index ^ self.chance.below(1 << 20), size);
                    batch.append(&head, &[&payload], &[]);
                    payload
                }
            };
            let entry = ModelEntry { head, payload };
            self.history.apply(&Step::Append(entry.clone()));
            steps.push(Step::Append(entry));
            index += 1;
        }
    }

    fn ranges(&mut self, now: &Model, log: LogId) -> Vec<Range> {
        let live: Vec<u64> = now.logs[&log].live.keys().copied().collect();
        let next = now.logs[&log].next_index;
        let (Some(first), Some(last)) = (live.first().copied(), live.last().copied()) else {
            return vec![Range { first: 0, last: next + 5 }];
        };
        let some = live[self.chance.below(live.len() as u64) as usize];
        match self.chance.below(5) {
            0 => vec![Range { first, last: some }],
            1 => vec![Range { first: some, last: some }],
            // All but one.
            2 => vec![Range { first: some + 1, last: next }, Range { first: 0, last: some.saturating_sub(1) }],
            3 => (0..4)
                .map(|_| live[self.chance.below(live.len() as u64) as usize])
                .map(|i| Range { first: i, last: i })
                .collect(),
            _ => vec![Range { first, last }],
        }
    }

    /// Opens the log again and compares.
    fn restart(&mut self, end: End) {
        match end {
            End::Kill => self.disk.kill(),
            _ => self.disk.crash(&mut self.chance.0),
        }
        self.fault = None;
        // The process can die while it opens the log.
        for _ in 0..self.chance.below(3) {
            let operation = OPERATIONS[self.chance.below(9) as usize];
            let after = self.chance.below(20);
            self.disk.fail_next(operation, ErrorKind::Other, after);
            if let Ok(opened) = Log::open(Arc::new(self.disk.clone()), self.options) {
                assert_eq!(losses(&opened.reports), [""; 0]);
                let _ = opened.log.maintain();
            }
            if self.chance.one_in(2) && end != End::Kill {
                self.disk.crash(&mut self.chance.0);
            } else {
                self.disk.kill();
            }
        }
        let opened = Log::open(Arc::new(self.disk.clone()), self.options);
        let Opened { log, writer, logs, reports } = opened.unwrap_or_else(|error: LogError| panic!("{error}"));
        assert_eq!(losses(&reports), [""; 0]);
        let mut possible = vec![self.durable.clone()];
        for steps in self.pending.drain(..).chain(self.uncertain.take()) {
            let mut model = possible[possible.len() - 1].clone();
            steps.iter().for_each(|step| model.apply(step));
            possible.push(model);
        }
        let found = found(&log, &logs);
        let place = possible.iter().rposition(|model| model.restarted() == found);
        let Some(place) = place else {
            let differences: Vec<String> =
                possible.iter().map(|model| difference(&model.restarted(), &found)).collect();
            panic!("after {end:?}, from what must be there to what may be: {differences:#?}");
        };
        // What was written and not synced survives the process.
        if end == End::Kill && possible.len() > 2 {
            assert!(place + 2 >= possible.len(), "{place} of {}", possible.len());
        }
        self.durable = found;
        self.flushed = logs.iter().map(|log| (log.log, log.next_index.saturating_sub(1))).collect();
        (self.log, self.writer) = (log, writer);
    }
}

/// What a log that was opened has.
fn found(log: &Log, logs: &[RecoveredLog]) -> Model {
    let mut model = Model::default();
    for known in logs {
        let found = model.logs.entry(known.log).or_default();
        (found.next_index, found.delivered) = (known.next_index, known.delivered);
        let mut behind = std::collections::BTreeMap::new();
        for chunk in &known.chunks {
            assert!(chunk.first > behind.insert(chunk.class, chunk.last).unwrap_or(0), "ascending within a class");
            let members = members(chunk);
            assert_eq!((members[0], members[members.len() - 1]), (chunk.first, chunk.last));
            let read = log.read(known.log, chunk.first, chunk.last).expect("the disk works");
            assert_eq!(read.reports, []);
            let entries: Vec<_> =
                read.entries.into_iter().filter(|entry| members.contains(&entry.head.index)).collect();
            assert_eq!(entries.len(), members.len(), "{chunk:?} of {:?}", known.log);
            assert_eq!(entries.iter().map(|entry| u64::from(entry.head.cost)).sum::<u64>(), chunk.cost);
            assert_eq!(entries.iter().map(|entry| entry.head.deadline).min(), Some(chunk.deadline));
            for entry in entries {
                assert_eq!((entry.head.class, entry.head.transient), (chunk.class, false));
                let entry = ModelEntry { head: entry.head, payload: entry.payload.to_vec() };
                assert!(found.live.insert(entry.head.index, entry).is_none(), "an entry is in two chunks");
            }
        }
    }
    model
}

/// How the log differs from what was expected.
fn difference(expected: &Model, found: &Model) -> String {
    let logs: std::collections::BTreeSet<&LogId> = expected.logs.keys().chain(found.logs.keys()).collect();
    let mut text = String::new();
    for log in logs {
        let (before, after) = (expected.logs.get(log), found.logs.get(log));
        let live = |model: Option<&ModelLog>, other: Option<&ModelLog>| {
            let of = |model: Option<&ModelLog>| model.map(|model| model.live.clone()).unwrap_or_default();
            let other = of(other);
            of(model).into_keys().filter(|index| !other.contains_key(index)).collect::<Vec<u64>>()
        };
        let numbers = |model: Option<&ModelLog>| model.map(|model| (model.next_index, model.delivered));
        if before != after {
            text += &format!(
                "{log:?}: {:?} became {:?}, lost {:?}, came {:?}; ",
                numbers(before),
                numbers(after),
                live(before, after),
                live(after, before)
            );
        }
    }
    text
}
