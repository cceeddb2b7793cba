//! The budget, and what little an idle subject takes.

use super::*;

const FIELDS: usize = 12;

fn record_queues(history: &History, step: u64, count: usize, value: impl Fn(usize) -> u64) {
    let mut round = Round::new();
    round.add(Subject::Global, &[step; FIELDS]);
    for index in 0..count {
        round.add(queue(&format!("queue-{index}")), &[value(index); FIELDS]);
    }
    history.record(START_MS + step * 5_000, &round);
}

#[test]
fn an_idle_queue_takes_its_name_and_little_more() {
    let history = History::new(BUDGET);
    let name_bytes = "queue-1234".len() + 3;
    for step in 0..3 {
        record_queues(&history, step, 5_000, |_| 7);
    }
    let each = history.usage().bytes / 5_000;
    assert!(each > 50 && each - name_bytes <= 128, "{each} bytes");
}

#[test]
fn a_queue_that_falls_idle_gives_its_memory_back() {
    let history = History::new(BUDGET);
    record_queues(&history, 0, 200, |_| 7);
    let idle = history.usage().bytes;
    for step in 1..100 {
        record_queues(&history, step, 200, |_| step * 1_000);
    }
    assert!(history.usage().bytes > 10 * idle);
    for step in 100..20_000 {
        record_queues(&history, step, 200, |_| 99_000);
    }
    let again = history.usage().bytes;
    assert!(again < idle + idle / 2 + 20_000, "{idle} bytes before, {again} after");
}

#[test]
fn the_budget_is_kept_and_idle_subjects_lose_their_finest_samples_first() {
    let budget = 600_000;
    let history = History::new(budget);
    let busy = 100;
    for step in 0..2_000 {
        // The others stop after the first quarter of an hour.
        let value = |index: usize| if index < busy || step < 180 { step * 100 } else { 18_000 };
        record_queues(&history, step, 200, value);
        let bytes = history.usage().bytes;
        assert!(bytes <= budget + 40_000, "{bytes} bytes at {step}");
    }
    assert_eq!(history.usage().subjects, 201, "no subject is lost");
    let now_ms = START_MS + 1_999 * 5_000;
    let samples = |name: &str, age, increment| {
        history.samples(queue(name), &[0], &down(age, increment, now_ms)).unwrap().at_ms.len()
    };
    assert_eq!(history.latest(queue("queue-3"), 0).unwrap().per_second, 20.0, "rates go on");
    assert_eq!(samples("queue-3", 7_200, 1_800), 5, "coarse samples are kept");
    let global = history.samples(Subject::Global, &[0], &down(600, 5, now_ms)).unwrap();
    assert_eq!(global.fields[0].values.len(), 121, "the overview goes last");
}

#[test]
fn whole_subjects_go_when_nothing_else_is_left() {
    let budget = 200_000;
    let history = History::new(budget);
    for step in 0..50 {
        record_queues(&history, step, 5_000, |index| step * (index as u64 % 3));
        assert!(history.usage().bytes <= budget + 20_000);
    }
    let usage = history.usage();
    assert!(usage.subjects > 200 && usage.subjects < 2_000, "{usage:?}");
    assert!(usage.refused > 0);
    assert_eq!(history.latest(Subject::Global, 0).unwrap().value, 49);
}
