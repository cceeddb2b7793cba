//! Samples and rates of small histories, with the numbers written out.

use super::*;
use crate::management::history::Rate;

#[test]
fn samples_are_those_of_the_charts() {
    let history = History::new(BUDGET);
    for step in 0..=24 {
        record(&history, START_MS + step * 5_000, &[(queue("a"), &[step * 10, 7])]);
    }
    let now_ms = START_MS + 121_000;
    let samples = history.samples(queue("a"), &[0, 1], &down(60, 5, now_ms)).unwrap();
    assert_eq!(samples.at_ms.len(), 13);
    assert_eq!((samples.at_ms[0], samples.at_ms[12]), (START_MS + 120_000, START_MS + 60_000));
    assert_eq!(samples.fields[0].values, (12..=24).rev().map(|step| step * 10).collect::<Vec<u64>>());
    assert_eq!((samples.fields[0].average, samples.fields[0].average_rate), (Some(180.0), Some(2.0)));
    assert_eq!((samples.fields[1].average, samples.fields[1].average_rate), (Some(7.0), Some(0.0)));
    let up = Range::new(60, 5, now_ms, Rounding::Up).unwrap();
    let samples = history.samples(queue("a"), &[0], &up).unwrap();
    assert_eq!((samples.at_ms[0], samples.fields[0].values[0]), (START_MS + 125_000, 240));
}

#[test]
fn before_it_was_there_its_values_are_zero() {
    let history = History::new(BUDGET);
    record(&history, START_MS, &[(Subject::Global, &[1])]);
    record(&history, START_MS + 5_000, &[(Subject::Global, &[2]), (queue("late"), &[5])]);
    let samples = history.samples(queue("late"), &[0], &down(20, 5, START_MS + 6_000)).unwrap();
    assert_eq!(samples.fields[0].values, [5, 0, 0, 0, 0]);
    assert_eq!(history.samples(queue("never"), &[0], &down(20, 5, START_MS)), None);
}

#[test]
fn steps_that_do_not_divide_the_age_begin_at_the_oldest() {
    let range = Range::new(61, 7, 1_795_247_496_500, Rounding::Up).unwrap();
    let moments: Vec<u64> = range.moments_ms().collect();
    assert_eq!(moments.len(), 9);
    assert_eq!((moments[0], moments[8]), (1_795_247_498_000, 1_795_247_442_000));
}

#[test]
fn ranges_are_refused_as_elsewhere() {
    let text = |age, increment| Range::new(age, increment, START_MS, Rounding::Down).unwrap_err().to_string();
    assert_eq!(text(0, 5), "Invalid range parameters: age 0, incr 5");
    assert_eq!(text(60, 0), "Invalid range parameters: age 60, incr 0");
    assert_eq!(text(10_000, 5), "Invalid range parameters: age 10000, incr 5");
    assert!(Range::new(u64::MAX, u64::MAX, START_MS, Rounding::Up).is_err());
    assert!(Range::new(2_504, 5, START_MS, Rounding::Up).is_ok());
}

#[test]
fn a_day_answers_every_chart() {
    let history = History::new(BUDGET);
    let rounds = 26 * 720;
    for step in 0..rounds {
        let at_ms = START_MS + step * 5_000;
        record(&history, at_ms, &[(queue("a"), &[step, step / 1000]), (Subject::Channel("c"), &[step])]);
    }
    let now_ms = START_MS + (rounds - 1) * 5_000 + 2_000;
    for (age, increment) in [(60, 5), (600, 5), (3_600, 60), (28_800, 1_800), (86_400, 1_800), (28_800, 600)] {
        let range = down(age, increment, now_ms);
        let samples = history.samples(queue("a"), &[0, 1], &range).unwrap();
        assert_eq!(samples.at_ms, range.moments_ms().collect::<Vec<_>>(), "{age}/{increment}");
        for (index, at_ms) in samples.at_ms.iter().enumerate() {
            let step = (at_ms - START_MS) / 5_000;
            let values = (samples.fields[0].values[index], samples.fields[1].values[index]);
            assert_eq!(values, (step, step / 1000), "{age}/{increment} at {index}");
        }
    }
    let channel = |age, increment| {
        history.samples(Subject::Channel("c"), &[0], &down(age, increment, now_ms)).unwrap().at_ms.len()
    };
    assert_eq!((channel(600, 5), channel(3_600, 60)), (121, 10), "of a channel there are ten minutes");
}

#[test]
fn rates_are_those_of_the_newest_two_rounds() {
    let history = History::new(BUDGET);
    record(&history, START_MS, &[(queue("a"), &[100, 9, 3])]);
    let mut rates = Vec::new();
    assert!(history.rates(queue("a"), &mut rates));
    assert_eq!(rates[0], Rate { value: 100, per_second: 0.0 }, "one round has no rate");
    record(&history, START_MS + 4_000, &[(queue("a"), &[140, 1, 3]), (queue("new"), &[20, 0, 1])]);
    assert!(history.rates(queue("new"), &mut rates));
    assert_eq!(rates, [(20, 5.0), (0, 0.0), (1, 0.25)].map(|(value, per_second)| Rate { value, per_second }));
    assert!(history.rates(queue("a"), &mut rates));
    let expected = [(140, 10.0), (1, -2.0), (3, 0.0)].map(|(value, per_second)| Rate { value, per_second });
    assert_eq!(rates, expected);
    record(&history, START_MS + 9_000, &[(queue("a"), &[140, 1, 3])]);
    assert_eq!(history.latest(queue("a"), 0), Some(Rate { value: 140, per_second: 0.0 }));
    record(&history, START_MS + 900_000, &[(queue("a"), &[940, 1, 3])]);
    assert_eq!(
        history.latest(queue("a"), 0),
        Some(Rate { value: 940, per_second: 0.0 }),
        "nothing lies shortly before"
    );
    assert_eq!(history.latest(queue("a"), 3), None);
    assert!(!history.rates(queue("b"), &mut rates) && rates.is_empty());
}

#[test]
fn what_was_not_kept_is_not_new() {
    let rate_of = |history: &History, value: u64| {
        record(history, START_MS + 10_000, &[(queue("a"), &[value])]);
        history.latest(queue("a"), 0)
    };
    let cleared = History::new(BUDGET);
    record(&cleared, START_MS + 5_000, &[(queue("a"), &[100])]);
    cleared.clear();
    assert_eq!(rate_of(&cleared, 110), Some(Rate { value: 110, per_second: 0.0 }));
    let forgotten = History::new(BUDGET);
    record(&forgotten, START_MS + 5_000, &[(queue("a"), &[100])]);
    forgotten.forget(queue("a"));
    assert_eq!(rate_of(&forgotten, 10), Some(Rate { value: 10, per_second: 2.0 }), "deleted, and made anew");
}

#[test]
fn what_is_gone_is_forgotten() {
    let history = History::new(BUDGET);
    record(&history, START_MS, &[(queue("a"), &[1]), (queue("b"), &[1]), (queue("c"), &[1])]);
    history.forget(queue("a"));
    assert_eq!(history.latest(queue("a"), 0), None);
    for step in 1..40 {
        record(&history, START_MS + step * 5_000, &[(queue("c"), &[1])]);
        if step < 12 {
            assert!(history.latest(queue("b"), 0).is_some(), "missing in {step} rounds");
        }
    }
    assert_eq!(history.latest(queue("b"), 0), None);
    assert_eq!(history.usage().subjects, 1);
    record(&history, START_MS + 300_000, &[(queue("c"), &[1, 2])]);
    assert_eq!(history.latest(queue("c"), 1).unwrap().value, 2, "another list of fields is another subject");
}

#[test]
fn a_clock_set_back_takes_the_past_with_it() {
    let history = History::new(BUDGET);
    for step in 0..10 {
        record(&history, START_MS + step * 5_000, &[(queue("a"), &[step])]);
    }
    let back_ms = START_MS - 7_200_000;
    record(&history, back_ms, &[(queue("a"), &[10])]);
    assert_eq!(history.latest(queue("a"), 0).unwrap().per_second, 0.2);
    let samples = history.samples(queue("a"), &[0], &down(30, 5, back_ms)).unwrap();
    assert_eq!(samples.fields[0].values, [10, 9, 8, 7, 6, 5, 4]);
    record(&history, back_ms + 100, &[(queue("a"), &[99])]);
    assert_eq!(history.latest(queue("a"), 0).unwrap().value, 10, "rounds are a second apart");
}

#[test]
fn nothing_is_told_of_times_without_rounds() {
    let history = History::new(BUDGET);
    record(&history, START_MS, &[(queue("a"), &[1])]);
    record(&history, START_MS + 60_000, &[(queue("a"), &[2])]);
    let samples = history.samples(queue("a"), &[0], &down(60, 5, START_MS + 60_000)).unwrap();
    assert_eq!(samples.fields[0].values, [2, 1, 1, 1, 1]);
    assert_eq!(samples.at_ms[1], START_MS + 15_000);
}
