//! Figures of ten thousand busy queues; to be run by hand, optimised.

use std::time::{Duration, Instant};

use super::restart::Folder;
use super::*;

const QUEUES: usize = 10_000;
const FIELDS: usize = 12;

fn fill(round: &mut Round, values: &[[u64; FIELDS]], names: &[String]) {
    round.clear();
    names.iter().zip(values).for_each(|(name, values)| round.add(queue(name), values));
}

/// Rounds with up to 40 messages a second in each of the fields, at random.
#[test]
#[ignore = "takes minutes, and says something only when optimised"]
#[allow(clippy::disallowed_methods, reason = "it measures time")]
fn ten_thousand_busy_queues() {
    let folder = Folder::new("figures");
    let history = History::open(&folder.history(), 256 << 20).history;
    let names: Vec<String> = (0..QUEUES).map(|index| format!("orders.created.{index}")).collect();
    let mut values = vec![[0_u64; FIELDS]; QUEUES];
    let (mut round, mut random, mut times) = (Round::new(), 1_u64, Vec::new());
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    // A day of rounds a minute apart leaves the coarser tiers as full as one of rounds 5 s apart, and takes less long.
    let mut now_ms = START_MS;
    for (rounds, apart_ms) in [(1_560, 60_000), (240, 5_000)] {
        for _ in 0..rounds {
            for values in &mut values {
                let mut noise = next();
                for value in values.iter_mut() {
                    *value += (100 + noise % 100) * (apart_ms / 5_000);
                    noise >>= 5;
                }
            }
            fill(&mut round, &values, &names);
            now_ms += apart_ms;
            let (begin, begin_cpu) = (Instant::now(), processor_time());
            history.record(now_ms, &round);
            times.push((processor_time() - begin_cpu, begin.elapsed()));
            if apart_ms == 60_000 {
                history.persist().unwrap();
            }
        }
    }
    let full = times.split_off(times.len() - 230);
    report(&history, full);
    lists(&history, &names, now_ms);
    persist(history, &folder, now_ms, &mut values, &names);
}

#[allow(clippy::print_stderr, reason = "figures")]
fn report(history: &History, mut times: Vec<(Duration, Duration)>) {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100 - 1];
    eprintln!("record (of the processor, of the clock): median {:?}, 99 % {:?}, most {:?}", at(50), at(99), at(100));
    eprintln!("memory: {:?}, resident {} KiB", history.usage(), resident_kib());
}

#[allow(clippy::print_stderr, clippy::disallowed_methods, reason = "figures")]
fn lists(history: &History, names: &[String], now_ms: u64) {
    let (begin, mut rates, mut sum) = (Instant::now(), Vec::new(), 0.0);
    for name in names {
        history.rates(queue(name), &mut rates);
        sum += rates.iter().map(|rate| rate.per_second).sum::<f64>();
    }
    eprintln!("rates of all: {:?} (their sum is {sum})", begin.elapsed());
    for (age, increment) in [(60, 5), (600, 5), (3_600, 60), (86_400, 1_800)] {
        let (begin, range) = (Instant::now(), down(age, increment, now_ms));
        for name in &names[..100] {
            let fields: Vec<usize> = (0..FIELDS).collect();
            assert!(history.samples(queue(name), &fields, &range).is_some());
        }
        eprintln!("samples {age}/{increment} of all fields: {:?}", begin.elapsed() / 100);
    }
}

#[allow(clippy::print_stderr, clippy::disallowed_methods, reason = "figures")]
fn persist(history: History, folder: &Folder, now_ms: u64, values: &mut [[u64; FIELDS]], names: &[String]) {
    history.persist().unwrap();
    eprintln!("after a day: resident {} KiB, on the disk {} KiB", resident_kib(), history.stored_kib());
    history.break_store();
    let begin = Instant::now();
    eprintln!("persist, all: {:?} in {:?}", history.persist().unwrap(), begin.elapsed());
    let mut round = Round::new();
    for minute in 0..15 {
        for step in 0..12 {
            values.iter_mut().flatten().for_each(|value| *value += 150);
            fill(&mut round, values, names);
            history.record(now_ms + (1 + minute * 12 + step) * 5_000, &round);
        }
        let begin = Instant::now();
        let written = history.persist().unwrap();
        eprintln!("persist, a minute: {written:?} in {:?}; resident {} KiB", begin.elapsed(), resident_kib());
    }
    drop(history);
    let begin = Instant::now();
    let opened = History::open(&folder.history(), 256 << 20);
    assert_eq!(opened.report, None);
    eprintln!(
        "open: {:?}, {:?}, on the disk {} KiB",
        begin.elapsed(),
        opened.history.usage(),
        opened.history.stored_kib()
    );
}

/// Time that this thread ran: others use the machine too.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
