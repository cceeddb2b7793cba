//! WAL files on a disk that crashes, rots and fills up.

mod damage;
mod format;
mod lives;

use bytes::Bytes;

use super::{Fresh, Replay, WalFile, records, replay};
use crate::log::batch::{Batch, Range};
use crate::log::entry::{Head, Header, LogId, RecordKind};
use crate::log::memory::MemoryDisk;
use crate::log::{LogError, Report, Severity};
use crate::model::random::Random;

/// A record as it should come back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    kind: RecordKind,
    head: Head,
    payload: Vec<u8>,
}

impl Expected {
    fn of(header: &Header, payload: &[u8]) -> Self {
        Self { kind: header.kind, head: header.head, payload: payload.to_vec() }
    }
}

/// What replay finds, with all records in order, and the files they were in.
fn replayed(disk: &MemoryDisk, flushed: u64) -> Result<(Replay, Vec<(u64, Expected)>), LogError> {
    let mut found = Vec::new();
    let replay = replay(disk, flushed, &mut |file, header, payload| found.push((file, Expected::of(header, payload))))?;
    Ok((replay, found))
}

/// What a file's records are when it is read for the flush.
fn read_back(file: &WalFile) -> Result<(Vec<Report>, Vec<Expected>), LogError> {
    let mut found = Vec::new();
    let reports = records(file, &mut |record| found.push(Expected::of(&record.header, &record.payload)))?;
    Ok((reports, found))
}

fn has_loss(reports: &[Report]) -> bool {
    reports.iter().any(|report| report.severity == Severity::Loss)
}

fn below(random: &mut Random, end: u64) -> u64 {
    random.next_bits() % end
}

fn head(log: u64, index: u64) -> Head {
    let (time, deadline) = (1_700_000_000_000 + index, if index.is_multiple_of(3) { u64::MAX } else { index * 7 });
    Head {
        log: LogId(log),
        index,
        time,
        deadline,
        cost: index as u32,
        class: log as u8,
        transient: index.is_multiple_of(5),
    }
}

/// Fills batches with records, and knows what they are.
struct Records {
    random: Random,
    next_index: u64,
    /// All payloads have this length, so that what an earlier life of a file left lies where new records are expected.
    uniform: Option<usize>,
}

impl Records {
    fn new(mut random: Random) -> Self {
        let uniform = [None, Some(512 - 64), Some(128 - 64)][below(&mut random, 3) as usize];
        Self { random, next_index: 1, uniform }
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = match (self.uniform, below(&mut self.random, 40)) {
            (Some(length), _) => length,
            (None, 0) => 5_000 + below(&mut self.random, 30_000) as usize,
            (None, 1..5) => 0,
            (None, _) => below(&mut self.random, 600) as usize,
        };
        let filler = self.random.next_bits().to_le_bytes();
        filler.into_iter().cycle().take(length).collect()
    }

    fn batch(&mut self) -> (Batch, Vec<Expected>) {
        let (mut batch, mut expected) = (Batch::default(), Vec::new());
        for _ in 0..1 + below(&mut self.random, 8) {
            let head = head(2 + below(&mut self.random, 3), self.next_index);
            self.next_index += 1;
            let plain = Head { index: 0, time: 0, deadline: u64::MAX, cost: 0, class: 0, transient: false, ..head };
            match below(&mut self.random, 10) {
                0 => {
                    let ranges =
                        [Range { first: 1, last: head.index }, Range { first: head.index + 2, last: u64::MAX }];
                    batch.settle(head.log, &ranges);
                    let numbers = ranges.iter().flat_map(|range| [range.first, range.last]);
                    let payload = numbers.flat_map(u64::to_le_bytes).collect();
                    expected.push(Expected { kind: RecordKind::Settled, head: plain, payload });
                }
                1 => {
                    batch.delivered(head.log, head.index);
                    let head = Head { index: head.index, ..plain };
                    expected.push(Expected { kind: RecordKind::Delivered, head, payload: Vec::new() });
                }
                2 if below(&mut self.random, 10) == 0 => {
                    batch.drop_log(head.log);
                    expected.push(Expected { kind: RecordKind::Dropped, head: plain, payload: Vec::new() });
                }
                3 | 4 if batch.append_again(&head) => {
                    let payload =
                        expected.iter().rev().find(|record| record.kind == RecordKind::Entry).unwrap().payload.clone();
                    expected.push(Expected { kind: RecordKind::Again, head, payload });
                }
                _ => {
                    let payload = self.payload();
                    let (front, back) = payload.split_at(payload.len().min(100));
                    let (parts, slices) =
                        ([&front[..front.len() / 2], &front[front.len() / 2..]], [Bytes::copy_from_slice(back)]);
                    batch.append(&head, &parts, &slices);
                    expected.push(Expected { kind: RecordKind::Entry, head, payload });
                }
            }
        }
        (batch, expected)
    }
}
