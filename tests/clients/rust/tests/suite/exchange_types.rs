//! The exchange types that distribute or replay: a broker that is not Warren may lack some of them.

use std::collections::{BTreeMap, BTreeSet};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use warren_client_tests::{
    broker,
    scenario::{Scenario, Session, assert_error, header, headers, scenario, table, text},
};

/// Declares an exchange of a type that only another broker than Warren may lack; `None` skips the test.
async fn exchange(scenario: &Scenario, kind: &str, arguments: FieldTable) -> Option<(Session, ShortString)> {
    let channel = scenario.confirming().await;
    match scenario.try_exchange(&channel, kind, arguments).await {
        Ok(exchange) => Some((channel, exchange)),
        Err(error) if broker::external_uri().is_some() => {
            assert!(error.to_string().contains(&format!("exchange type '{kind}'")), "{error}");
            broker::skip(&format!("the broker has no exchange type {kind}"));
            None
        }
        Err(error) => panic!("{kind}: {error}"),
    }
}

/// Declares queues and binds one for each of `keys`.
async fn bound_queues(channel: &Session, exchange: &ShortString, keys: &[&str]) -> Vec<ShortString> {
    let mut queues = Vec::new();
    for key in keys {
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.bind(&queue, exchange, key, FieldTable::default()).await;
        queues.push(queue);
    }
    queues
}

/// Which queue each message went to; asserts that each went to one.
async fn distribution(channel: &Session, queues: &[ShortString]) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (number, queue) in queues.iter().enumerate() {
        for body in channel.bodies(queue).await {
            assert_eq!(places.insert(body.clone(), number), None, "{body} is in two queues");
        }
    }
    places
}

fn count(places: &BTreeMap<String, usize>, queue: usize) -> usize {
    places.values().filter(|place| **place == queue).count()
}

async fn publish_keys(channel: &Session, exchange: &ShortString, count: usize) {
    let keys: Vec<_> = (0..count).map(|number| format!("key-{number}")).collect();
    let sent = keys.iter().map(|key| channel.publish(exchange.as_str(), key, key));
    futures_util::future::join_all(sent).await;
}

#[test]
fn consistent_hash_spreads_keys_by_weight() {
    scenario(async |scenario| {
        let hash = exchange(scenario, "x-consistent-hash", FieldTable::default()).await;
        let Some((channel, exchange)) = hash else {
            return;
        };
        let queues = bound_queues(&channel, &exchange, &["10", "30"]).await;
        publish_keys(&channel, &exchange, 1000).await;
        let first = distribution(&channel, &queues).await;
        assert_eq!(first.len(), 1000);
        let share = count(&first, 0);
        assert!((150..=350).contains(&share), "a quarter of 1000 expected, not {share}");
        publish_keys(&channel, &exchange, 1000).await;
        assert_eq!(distribution(&channel, &queues).await, first, "a key stays where it is");
    });
}

#[test]
fn consistent_hash_keeps_most_keys_when_a_queue_comes() {
    scenario(async |scenario| {
        let hash = exchange(scenario, "x-consistent-hash", FieldTable::default()).await;
        let Some((channel, exchange)) = hash else {
            return;
        };
        let mut queues = bound_queues(&channel, &exchange, &["10", "10", "10"]).await;
        publish_keys(&channel, &exchange, 400).await;
        let before = distribution(&channel, &queues).await;
        queues.extend(bound_queues(&channel, &exchange, &["10"]).await);
        publish_keys(&channel, &exchange, 400).await;
        let after = distribution(&channel, &queues).await;
        let moved: Vec<_> = before.iter().filter(|(key, place)| after[*key] != **place).collect();
        assert!(moved.iter().all(|(key, _)| after[*key] == 3), "keys move to the new queue only");
        assert!((50..=150).contains(&moved.len()), "a quarter of 400 expected, not {}", moved.len());
    });
}

#[test]
fn consistent_hash_of_a_header_or_property() {
    scenario(async |scenario| {
        let by_header = table([("hash-header", text("user"))]);
        let Some((channel, by_header)) = exchange(scenario, "x-consistent-hash", by_header).await else {
            return;
        };
        let queues = bound_queues(&channel, &by_header, &["1", "1", "1"]).await;
        for number in 0..20 {
            let key = number.to_string();
            let properties = headers([("user", text("same"))]);
            channel.publish_with(by_header.as_str(), &key, &key, properties).await;
        }
        let places: BTreeSet<_> = distribution(&channel, &queues).await.into_values().collect();
        assert_eq!(places.len(), 1, "one header value, one queue");
        let by_property = table([("hash-property", text("correlation_id"))]);
        let by_property = scenario.exchange(&channel, "x-consistent-hash", by_property).await;
        let queues = bound_queues(&channel, &by_property, &["20", "20"]).await;
        for number in 0..100 {
            let id = number.to_string();
            let properties = BasicProperties::default().with_correlation_id(id.as_str().into());
            channel.publish_with(by_property.as_str(), "same", &id, properties).await;
        }
        let places = distribution(&channel, &queues).await;
        assert!(count(&places, 0) > 0 && count(&places, 1) > 0, "the property decides, not the key");
    });
}

#[test]
fn consistent_hash_checks_weights() {
    scenario(async |scenario| {
        let hash = exchange(scenario, "x-consistent-hash", FieldTable::default()).await;
        let Some((_, exchange)) = hash else { return };
        let cases = [
            ("abc", "The binding key must be an integer: <<\"abc\">>"),
            ("0", "The binding key must be greater than 0"),
        ];
        for (weight, text) in cases {
            let channel = scenario.channel().await;
            let queue = channel.exclusive_queue(FieldTable::default()).await;
            let (options, arguments) = (Default::default(), FieldTable::default());
            let bound = channel.queue_bind(queue, exchange.clone(), weight.into(), options, arguments).await;
            assert_error(&bound.unwrap_err(), 406, &format!("PRECONDITION_FAILED - {text}"));
        }
    });
}

#[test]
fn modulus_hash_gives_each_key_one_queue() {
    scenario(async |scenario| {
        let modulus = exchange(scenario, "x-modulus-hash", FieldTable::default()).await;
        let Some((channel, exchange)) = modulus else {
            return;
        };
        let queues = bound_queues(&channel, &exchange, &["", "", ""]).await;
        publish_keys(&channel, &exchange, 300).await;
        let first = distribution(&channel, &queues).await;
        assert_eq!(first.len(), 300);
        for queue in 0..3 {
            assert!(count(&first, queue) > 50, "a third of 300 expected, not {}", count(&first, queue));
        }
        publish_keys(&channel, &exchange, 300).await;
        assert_eq!(distribution(&channel, &queues).await, first, "a key stays where it is");
    });
}

#[test]
fn random_picks_one_queue_for_each_message() {
    scenario(async |scenario| {
        let random = exchange(scenario, "x-random", FieldTable::default()).await;
        let Some((channel, exchange)) = random else {
            return;
        };
        let queues = bound_queues(&channel, &exchange, &["a", "b"]).await;
        publish_keys(&channel, &exchange, 200).await;
        let places = distribution(&channel, &queues).await;
        assert_eq!(places.len(), 200);
        // Fewer than 40 of 200 is less likely than one in 10^17.
        assert!(count(&places, 0) >= 40 && count(&places, 1) >= 40);
    });
}

#[test]
fn local_random_picks_one_local_queue() {
    scenario(async |scenario| {
        let random = exchange(scenario, "x-local-random", FieldTable::default()).await;
        let Some((channel, exchange)) = random else {
            return;
        };
        let returned = channel.send_mandatory(exchange.as_str(), "", "no queue").await.unwrap();
        assert!(returned.take_message().is_some());
        let queues = bound_queues(&channel, &exchange, &["", ""]).await;
        publish_keys(&channel, &exchange, 200).await;
        let places = distribution(&channel, &queues).await;
        assert_eq!(places.len(), 200);
        assert!(count(&places, 0) >= 40 && count(&places, 1) >= 40);
    });
}

#[test]
fn recent_history_replays_to_new_bindings() {
    scenario(async |scenario| {
        let arguments = table([("x-recent-history-length", AMQPValue::LongInt(3))]);
        let Some((channel, exchange)) = exchange(scenario, "x-recent-history", arguments).await else {
            return;
        };
        let early = bound_queues(&channel, &exchange, &[""]).await;
        for body in ["1", "2", "3", "4", "5"] {
            channel.publish(exchange.as_str(), "", body).await;
        }
        let unstored = headers([("x-recent-history-no-store", AMQPValue::Boolean(true))]);
        channel.publish_with(exchange.as_str(), "", "secret", unstored).await;
        assert_eq!(channel.bodies(&early[0]).await, ["1", "2", "3", "4", "5", "secret"]);
        let late = bound_queues(&channel, &exchange, &[""]).await;
        channel.wait_ready(&late[0], 3).await;
        let replayed = channel.drain(&late[0]).await;
        let bodies: Vec<_> = replayed.iter().map(|message| message.data.as_slice()).collect();
        assert_eq!(bodies, [b"3", b"4", b"5"]);
        assert_eq!(header(&replayed[0], "x-recent-history-no-store"), None);
    });
}
