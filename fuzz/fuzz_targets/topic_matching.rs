//! Topic routing against a matcher that fills a table of (pattern word, key word). Input: lines; the first is the
//! routing key, the others are binding keys, one queue each.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren::model::entity::{Binding, Destination, Exchange, ExchangeKind};
use warren::model::ids::QueueId;
use warren::model::names::{QueueName, RoutingKey};
use warren::model::table::FieldTable;
use warren::routing::{Facts, QueueTarget, RoutingTable, Targets};

const PATTERNS_MAX: usize = 64;

fuzz_target!(|data: &[u8]| {
    let mut lines = data.split(|byte| *byte == b'\n').map(|line| &line[..line.len().min(255)]);
    let key = lines.next().unwrap_or_default();
    let patterns: Vec<&[u8]> = lines.take(PATTERNS_MAX).collect();

    let mut table = RoutingTable::default();
    table.insert_exchange(&topic_exchange());
    for (at, pattern) in patterns.iter().enumerate() {
        table.insert_queue(queue(at), QueueTarget { id: QueueId(at as u64), shard: 0 });
        assert!(table.bind(&binding(at, pattern)));
    }
    assert_eq!(routed(&table, key), expected(&patterns, key, |_| true));

    for (at, pattern) in patterns.iter().enumerate().step_by(2) {
        assert!(table.unbind(&binding(at, pattern)));
    }
    assert_eq!(routed(&table, key), expected(&patterns, key, |at| at % 2 == 1));
});

fn expected(patterns: &[&[u8]], key: &[u8], bound: impl Fn(usize) -> bool) -> Vec<u64> {
    let numbered = patterns.iter().enumerate();
    let matching = numbered.filter(|(at, pattern)| bound(*at) && matches(&words(pattern), &words(key)));
    matching.map(|(at, _)| at as u64).collect()
}

fn routed(table: &RoutingTable, key: &[u8]) -> Vec<u64> {
    let mut targets = Targets::default();
    let result = table.route(b"topic", &[key], &Facts::default(), &mut targets);
    assert!(result.is_ok());
    let mut ids: Vec<u64> = targets.queues().iter().map(|target| target.id.0).collect();
    ids.sort_unstable();
    ids
}

fn words(key: &[u8]) -> Vec<&[u8]> {
    if key.is_empty() { Vec::new() } else { key.split(|byte| *byte == b'.').collect() }
}

/// `reached[n]`: the pattern words so far match the first n words of the key.
fn matches(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for word in pattern {
        let mut next = vec![false; key.len() + 1];
        let mut any = false;
        for at in 0..=key.len() {
            any |= reached[at];
            next[at] = match *word {
                b"#" => any,
                b"*" => at > 0 && reached[at - 1],
                word => at > 0 && reached[at - 1] && key[at - 1] == word,
            };
        }
        reached = next;
    }
    reached[key.len()]
}

fn topic_exchange() -> Exchange {
    Exchange {
        name: "topic".into(),
        kind: ExchangeKind::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::default(),
        alternate: None,
    }
}

fn queue(at: usize) -> QueueName {
    at.to_string().as_str().into()
}

fn binding(at: usize, key: &[u8]) -> Binding {
    Binding {
        source: "topic".into(),
        destination: Destination::Queue(queue(at)),
        key: RoutingKey::new(key),
        arguments: FieldTable::default(),
    }
}
