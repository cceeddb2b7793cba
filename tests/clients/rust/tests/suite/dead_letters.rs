//! Dead lettering and the history it leaves in the headers.

use amq_protocol::protocol::{AMQPClass, basic};
use lapin::{
    BasicProperties,
    message::Delivery,
    options::{BasicNackOptions, BasicRejectOptions},
    types::{AMQPValue, FieldArray, FieldTable, ShortString},
};
use warren_client_tests::{
    raw::{RawConnection, Tuning},
    scenario::{Scenario, Session, body, header, headers, scenario, table, text},
};

/// The keys a message was published with, as an x-death entry lists them.
fn routing_keys(keys: &[&str]) -> AMQPValue {
    AMQPValue::FieldArray(FieldArray::from(keys.iter().map(|key| text(key)).collect::<Vec<_>>()))
}

/// The entries of x-death, newest first.
fn deaths(message: &Delivery) -> Vec<FieldTable> {
    let Some(AMQPValue::FieldArray(entries)) = header(message, "x-death") else {
        panic!("no x-death: {:?}", message.properties)
    };
    let table = |entry: &AMQPValue| match entry {
        AMQPValue::FieldTable(table) => table.clone(),
        other => panic!("not a table: {other:?}"),
    };
    entries.as_slice().iter().map(table).collect()
}

/// Asserts that an entry of x-death has these fields and a time, and nothing else.
#[track_caller]
fn assert_death<const N: usize>(entry: &FieldTable, expected: [(&str, AMQPValue); N]) {
    let time = entry.inner().get("time");
    assert!(matches!(time, Some(AMQPValue::Timestamp(1_600_000_000..4_000_000_000))), "{time:?}");
    let mut expected = table(expected);
    expected.insert("time".into(), time.unwrap().clone());
    assert_eq!(entry, &expected);
}

#[track_caller]
fn assert_first_and_last(message: &Delivery, first: [&str; 3], last: [&str; 3]) {
    for (which, values) in [("first", first), ("last", last)] {
        for (what, value) in ["queue", "reason", "exchange"].iter().zip(values) {
            let name = format!("x-{which}-death-{what}");
            assert_eq!(header(message, &name), Some(&text(value)), "{name}");
        }
    }
}

/// A queue whose dead letters go to a fanout exchange, and a queue bound to that.
async fn with_dead_letters(
    scenario: &Scenario,
    channel: &Session,
    mut arguments: FieldTable,
) -> (ShortString, ShortString, ShortString) {
    let exchange = scenario.exchange(channel, "fanout", FieldTable::default()).await;
    let dead = channel.exclusive_queue(FieldTable::default()).await;
    channel.bind(&dead, &exchange, "", FieldTable::default()).await;
    arguments.insert("x-dead-letter-exchange".into(), text(exchange.as_str()));
    let queue = channel.exclusive_queue(arguments).await;
    (queue, exchange, dead)
}

async fn only_message(channel: &Session, queue: &ShortString) -> Delivery {
    channel.wait_ready(queue, 1).await;
    channel.drain(queue).await.remove(0)
}

#[test]
fn rejected_messages_carry_their_history() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let (queue, exchange, dead) = with_dead_letters(scenario, &channel, FieldTable::default()).await;
        let sent = headers([("mine", text("kept"))]).with_priority(3).with_message_id("m".into());
        channel.publish_with("", queue.as_str(), "bad", sent).await;
        let message = channel.get(&queue).await.unwrap();
        message.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        let letter = only_message(&channel, &dead).await;
        assert_eq!(body(&letter), "bad");
        assert_eq!((&letter.exchange, &letter.routing_key), (&exchange, &queue));
        assert_eq!(letter.properties.priority(), &Some(3));
        assert_eq!(header(&letter, "mine"), Some(&text("kept")));
        let history = deaths(&letter);
        assert_eq!(history.len(), 1);
        assert_death(
            &history[0],
            [
                ("count", AMQPValue::LongLongInt(1)),
                ("reason", text("rejected")),
                ("queue", text(queue.as_str())),
                ("exchange", text("")),
                ("routing-keys", routing_keys(&[queue.as_str()])),
            ],
        );
        let death = [queue.as_str(), "rejected", ""];
        assert_first_and_last(&letter, death, death);
        let names: Vec<_> = letter.properties.headers().as_ref().unwrap().inner().keys().cloned().collect();
        assert_eq!(names.len(), 8, "no other headers: {names:?}");
    });
}

#[test]
fn nack_dead_letters_and_the_key_can_be_replaced() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let arguments = table([("x-dead-letter-routing-key", text("graveyard"))]);
        let (queue, _, dead) = with_dead_letters(scenario, &channel, arguments).await;
        for text in ["1", "2", "3"] {
            channel.publish("", queue.as_str(), text).await;
        }
        channel.get(&queue).await.unwrap();
        let second = channel.get(&queue).await.unwrap();
        second.nack(BasicNackOptions { multiple: true, requeue: false }).await.unwrap();
        channel.wait_ready(&dead, 2).await;
        let letters = channel.drain(&dead).await;
        assert_eq!(letters.iter().map(body).collect::<Vec<_>>(), ["1", "2"]);
        assert!(letters.iter().all(|letter| letter.routing_key.as_str() == "graveyard"));
        assert_eq!(channel.bodies(&queue).await, ["3"]);
    });
}

#[test]
fn expired_messages_lose_their_expiration() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let (queue, _, dead) = with_dead_letters(scenario, &channel, FieldTable::default()).await;
        let source = scenario.exchange(&channel, "direct", FieldTable::default()).await;
        channel.bind(&queue, &source, "short", FieldTable::default()).await;
        let cc = headers([("CC", routing_keys(&["copy"]))]).with_expiration("30".into());
        channel.publish_with(source.as_str(), "short", "late", cc).await;
        let letter = only_message(&channel, &dead).await;
        assert_eq!(letter.properties.expiration(), &None);
        assert_eq!(letter.routing_key.as_str(), "short");
        assert!(!letter.redelivered);
        assert_death(
            &deaths(&letter)[0],
            [
                ("original-expiration", text("30")),
                ("count", AMQPValue::LongLongInt(1)),
                ("reason", text("expired")),
                ("queue", text(queue.as_str())),
                ("exchange", text(source.as_str())),
                ("routing-keys", routing_keys(&["short", "copy"])),
            ],
        );
        let death = [queue.as_str(), "expired", source.as_str()];
        assert_first_and_last(&letter, death, death);
    });
}

#[test]
fn the_queue_can_set_the_time_to_live() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let arguments = table([("x-message-ttl", AMQPValue::LongInt(30))]);
        let (queue, _, dead) = with_dead_letters(scenario, &channel, arguments).await;
        let patient = BasicProperties::default().with_expiration("3600000".into());
        channel.publish_with("", queue.as_str(), "late", patient).await;
        let letter = only_message(&channel, &dead).await;
        let history = deaths(&letter);
        assert_eq!(history[0].inner().get("reason"), Some(&text("expired")));
        assert_eq!(history[0].inner().get("original-expiration"), Some(&text("3600000")));
        assert_eq!(channel.counts(&queue).await.0, 0);
    });
}

#[test]
fn overflow_drops_the_oldest_to_the_dead_letters() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let arguments = table([("x-max-length", AMQPValue::LongInt(2))]);
        let (queue, _, dead) = with_dead_letters(scenario, &channel, arguments).await;
        for text in ["1", "2", "3", "4"] {
            channel.publish("", queue.as_str(), text).await;
        }
        channel.wait_ready(&dead, 2).await;
        assert_eq!(channel.bodies(&queue).await, ["3", "4"]);
        let letters = channel.drain(&dead).await;
        assert_eq!(letters.iter().map(body).collect::<Vec<_>>(), ["1", "2"]);
        assert_death(
            &deaths(&letters[0])[0],
            [
                ("count", AMQPValue::LongLongInt(1)),
                ("reason", text("maxlen")),
                ("queue", text(queue.as_str())),
                ("exchange", text("")),
                ("routing-keys", routing_keys(&[queue.as_str()])),
            ],
        );
    });
}

#[test]
fn reject_publish_dlx_keeps_what_it_refuses() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let overflow = table([("x-max-length", AMQPValue::LongInt(1)), ("x-overflow", text("reject-publish-dlx"))]);
        let (queue, _, dead) = with_dead_letters(scenario, &channel, overflow).await;
        channel.publish("", queue.as_str(), "1").await;
        let refused = channel.send("", queue.as_str(), b"2", BasicProperties::default()).await.unwrap();
        assert!(refused.is_nack());
        let letter = only_message(&channel, &dead).await;
        assert_eq!(body(&letter), "2");
        assert_eq!(deaths(&letter)[0].inner().get("reason"), Some(&text("maxlen")));
        assert_eq!(channel.bodies(&queue).await, ["1"]);
    });
}

/// Two queues that dead-letter to each other by name.
async fn pair(channel: &Session, second: FieldTable) -> (ShortString, ShortString) {
    let to = |target: &str, mut arguments: FieldTable| {
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(target));
        arguments
    };
    let first = warren_client_tests::scenario::unique_name();
    let retry = channel.exclusive_queue(to(first.as_str(), second)).await;
    let options = lapin::options::QueueDeclareOptions::exclusive();
    let arguments = to(retry.as_str(), FieldTable::default());
    channel.queue_declare(first.clone(), options, arguments).await.unwrap();
    (first, retry)
}

#[test]
fn retries_are_counted_with_the_newest_death_first() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let (work, retry) = pair(&channel, table([("x-message-ttl", AMQPValue::LongInt(20))])).await;
        channel.publish("", work.as_str(), "task").await;
        for _ in 0..2 {
            channel.wait_ready(&work, 1).await;
            let message = channel.get(&work).await.unwrap();
            message.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        }
        let message = only_message(&channel, &work).await;
        let history = deaths(&message);
        assert_eq!(history.len(), 2, "one entry for each queue and reason");
        let count = AMQPValue::LongLongInt(2);
        assert_death(
            &history[0],
            [
                ("count", count.clone()),
                ("reason", text("expired")),
                ("queue", text(retry.as_str())),
                ("exchange", text("")),
                ("routing-keys", routing_keys(&[retry.as_str()])),
            ],
        );
        assert_death(
            &history[1],
            [
                ("count", count),
                ("reason", text("rejected")),
                ("queue", text(work.as_str())),
                ("exchange", text("")),
                ("routing-keys", routing_keys(&[work.as_str()])),
            ],
        );
        assert_first_and_last(&message, [work.as_str(), "rejected", ""], [retry.as_str(), "expired", ""]);
    });
}

#[test]
fn a_cycle_without_a_rejection_ends() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let (work, retry) = pair(&channel, table([("x-message-ttl", AMQPValue::LongInt(20))])).await;
        let short = BasicProperties::default().with_expiration("20".into());
        channel.publish_with("", work.as_str(), "round and round", short).await;
        // Expires here, goes to retry, expires there; coming back it would be a fully automatic cycle.
        channel.wait_ready(&work, 0).await;
        let deadline = AMQPValue::LongInt(20);
        let sentinel = channel.exclusive_queue(FieldTable::default()).await;
        let chained = table([
            ("x-message-ttl", deadline),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(sentinel.as_str())),
        ]);
        let slow = channel.exclusive_queue(chained).await;
        // A message that takes as many hops shows that the first one had its time.
        for _ in 0..3 {
            channel.publish("", slow.as_str(), "tick").await;
            channel.wait_ready(&sentinel, 1).await;
            channel.drain(&sentinel).await;
        }
        channel.wait_ready(&retry, 0).await;
        assert_eq!(channel.counts(&work).await.0, 0);
    });
}

#[test]
fn a_missing_dead_letter_exchange_drops_the_message() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let queue = channel.exclusive_queue(table([("x-dead-letter-exchange", text("no-such-exchange"))])).await;
        channel.publish("", queue.as_str(), "lost").await;
        let message = channel.get(&queue).await.unwrap();
        message.reject(BasicRejectOptions { requeue: false }).await.unwrap();
        assert_eq!(channel.counts(&queue).await.0, 0);
    });
}

#[test]
fn the_fields_of_a_death_have_a_fixed_order() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        // Another connection has to read it.
        let dead = scenario.queue(&channel, FieldTable::default()).await;
        let arguments =
            table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(dead.as_str()))]);
        let queue = channel.exclusive_queue(arguments).await;
        let short = BasicProperties::default().with_expiration("1".into());
        channel.publish_with("", queue.as_str(), "late", short).await;
        channel.wait_ready(&dead, 1).await;
        let mut raw = RawConnection::open(scenario.uri(), Tuning::default()).await;
        let get = basic::Get { queue: dead.clone(), no_ack: true };
        raw.send(1, AMQPClass::Basic(basic::AMQPMethod::Get(get))).await;
        let got = raw.read_method().await;
        assert!(matches!(got, AMQPClass::Basic(basic::AMQPMethod::GetOk(_))), "{got:?}");
        let content_header = raw.read_frame().await.unwrap();
        let place = |name: &str, tag: u8| {
            let field = [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), &[tag]].concat();
            content_header.windows(field.len()).position(|bytes| bytes == field)
        };
        let fields = [
            ("x-death", b'A'),
            ("original-expiration", b'S'),
            ("count", b'l'),
            ("reason", b'S'),
            ("queue", b'S'),
            ("time", b'T'),
            ("exchange", b'S'),
            ("routing-keys", b'A'),
        ];
        let places: Vec<_> = fields.iter().map(|(name, tag)| place(name, *tag)).collect();
        assert!(places.iter().all(Option::is_some), "every field with its type: {places:?}");
        assert!(places.is_sorted(), "{places:?}");
    });
}
