//! The built-in exchange types, bindings between exchanges and alternate exchanges.

use lapin::{
    BasicProperties, Confirmation, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldArray, FieldTable},
};
use warren_client_tests::scenario::{
    Scenario, Session, assert_error, header, headers, scenario, table, text, unique_name,
};

#[test]
fn fanout_gives_every_queue_a_copy() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let logs = scenario.exchange(&channel, "fanout", FieldTable::default()).await;
        let mut queues = Vec::new();
        for key in ["", "ignored", "#"] {
            let queue = channel.exclusive_queue(FieldTable::default()).await;
            channel.bind(&queue, &logs, key, FieldTable::default()).await;
            queues.push(queue);
        }
        channel.publish(logs.as_str(), "whatever", "news").await;
        for queue in &queues {
            let messages = channel.drain(queue).await;
            assert_eq!(messages.len(), 1);
            let message = &messages[0];
            assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), (logs.as_str(), "whatever"));
        }
    });
}

#[test]
fn direct_compares_the_whole_key() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let logs = scenario.exchange(&channel, "direct", FieldTable::default()).await;
        let errors = channel.exclusive_queue(FieldTable::default()).await;
        let all = channel.exclusive_queue(FieldTable::default()).await;
        channel.bind(&errors, &logs, "error", FieldTable::default()).await;
        for severity in ["info", "warning", "error"] {
            channel.bind(&all, &logs, severity, FieldTable::default()).await;
        }
        for severity in ["info", "warning", "error", "Error", "error.disk", ""] {
            channel.publish(logs.as_str(), severity, severity).await;
        }
        assert_eq!(channel.bodies(&errors).await, ["error"]);
        assert_eq!(channel.bodies(&all).await, ["info", "warning", "error"]);
        channel.queue_unbind(all.clone(), logs.clone(), "info".into(), FieldTable::default()).await.unwrap();
        channel.publish(logs.as_str(), "info", "unbound").await;
        assert!(channel.bodies(&all).await.is_empty());
    });
}

/// Which of `keys` a queue bound with `pattern` gets.
async fn topic_matches(scenario: &Scenario, pattern: &str, keys: &[&str]) -> Vec<String> {
    let channel = scenario.confirming().await;
    let topic = scenario.exchange(&channel, "topic", FieldTable::default()).await;
    let queue = channel.exclusive_queue(FieldTable::default()).await;
    channel.bind(&queue, &topic, pattern, FieldTable::default()).await;
    for key in keys {
        channel.publish(topic.as_str(), key, key).await;
    }
    channel.bodies(&queue).await
}

#[test]
fn topic_patterns_match_words() {
    scenario(async |scenario| {
        let keys = ["", "a", "b", "a.b", "b.a", "a.a.b", "a.b.c", "a..b", ".", "a.b.a"];
        let table: &[(&str, &[&str])] = &[
            ("#", &keys),
            ("*", &["a", "b"]),
            ("a", &["a"]),
            ("a.#", &["a", "a.b", "a.a.b", "a.b.c", "a..b", "a.b.a"]),
            ("#.b", &["b", "a.b", "a.a.b", "a..b"]),
            ("*.b", &["a.b"]),
            ("a.*.b", &["a.a.b", "a..b"]),
            ("*.*", &["a.b", "b.a", "."]),
            ("#.a.#", &["a", "a.b", "b.a", "a.a.b", "a.b.c", "a..b", "a.b.a"]),
            ("*.#", &["a", "b", "a.b", "b.a", "a.a.b", "a.b.c", "a..b", ".", "a.b.a"]),
            ("a*", &[]),
            ("", &[""]),
        ];
        for (pattern, expected) in table {
            assert_eq!(&topic_matches(scenario, pattern, &keys).await, expected, "pattern {pattern:?}");
        }
    });
}

#[test]
fn topic_gives_one_copy_however_many_bindings_match() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let topic = scenario.exchange(&channel, "topic", FieldTable::default()).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        for pattern in ["#", "kern.*", "*.critical", "kern.critical"] {
            channel.bind(&queue, &topic, pattern, FieldTable::default()).await;
        }
        channel.publish(topic.as_str(), "kern.critical", "once").await;
        assert_eq!(channel.bodies(&queue).await, ["once"]);
    });
}

/// Which messages a queue bound to a headers exchange with `arguments` gets. The messages are named by their headers.
async fn headers_matches(scenario: &Scenario, arguments: FieldTable) -> Vec<String> {
    let channel = scenario.confirming().await;
    let exchange = scenario.exchange(&channel, "headers", FieldTable::default()).await;
    let queue = channel.exclusive_queue(FieldTable::default()).await;
    channel.bind(&queue, &exchange, "", arguments).await;
    let messages = [
        ("none", BasicProperties::default()),
        ("a", headers([("a", text("1"))])),
        ("b", headers([("b", AMQPValue::LongInt(2))])),
        ("a b", headers([("a", text("1")), ("b", AMQPValue::LongLongInt(2))])),
        ("a b c", headers([("a", text("1")), ("b", AMQPValue::ShortInt(2)), ("c", AMQPValue::Void)])),
        ("x", headers([("x-kind", text("job"))])),
        ("a b x", headers([("a", text("1")), ("b", AMQPValue::LongInt(2)), ("x-kind", text("job"))])),
        ("wrong", headers([("a", text("2")), ("b", text("2"))])),
    ];
    for (name, properties) in messages {
        channel.publish_with(exchange.as_str(), "", name, properties).await;
    }
    channel.bodies(&queue).await
}

/// Binding arguments that ask for `a`, `b` and `x-kind`.
fn asking(x_match: &str) -> FieldTable {
    let mut arguments = table([("a", text("1")), ("b", AMQPValue::LongInt(2)), ("x-kind", text("job"))]);
    if !x_match.is_empty() {
        arguments.insert("x-match".into(), text(x_match));
    }
    arguments
}

#[test]
fn headers_all_and_any_ignore_x_arguments() {
    scenario(async |scenario| {
        let all = ["a b", "a b c", "a b x"];
        assert_eq!(headers_matches(scenario, asking("")).await, all);
        assert_eq!(headers_matches(scenario, asking("all")).await, all);
        assert_eq!(headers_matches(scenario, asking("any")).await, ["a", "b", "a b", "a b c", "a b x"]);
    });
}

#[test]
fn headers_with_x_compare_x_arguments_too() {
    scenario(async |scenario| {
        assert_eq!(headers_matches(scenario, asking("all-with-x")).await, ["a b x"]);
        let any = ["a", "b", "a b", "a b c", "x", "a b x"];
        assert_eq!(headers_matches(scenario, asking("any-with-x")).await, any);
    });
}

#[test]
fn headers_without_arguments_or_values() {
    scenario(async |scenario| {
        let everything = ["none", "a", "b", "a b", "a b c", "x", "a b x", "wrong"];
        assert_eq!(headers_matches(scenario, table([("x-match", text("all"))])).await, everything);
        assert!(headers_matches(scenario, table([("x-match", text("any"))])).await.is_empty());
        let has_b = table([("x-match", text("all")), ("b", AMQPValue::Void)]);
        assert_eq!(headers_matches(scenario, has_b).await, ["b", "a b", "a b c", "a b x", "wrong"]);
    });
}

#[test]
fn headers_refuses_an_unknown_match() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        let arguments = table([("x-match", text("some"))]);
        let error = channel.queue_bind(queue, "amq.headers".into(), "".into(), Default::default(), arguments).await;
        let expected = "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; \
                        expected all, any, all-with-x, or any-with-x";
        assert_error(&error.unwrap_err(), 406, expected);
    });
}

#[test]
fn exchanges_bound_to_exchanges_pass_messages_on() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let source = scenario.exchange(&channel, "topic", FieldTable::default()).await;
        let middle = scenario.exchange(&channel, "fanout", FieldTable::default()).await;
        let last = scenario.exchange(&channel, "direct", FieldTable::default()).await;
        channel.bind_exchange(&middle, &source, "log.#").await;
        channel.bind_exchange(&last, &middle, "").await;
        // A cycle: every exchange is visited once.
        channel.bind_exchange(&source, &last, "log.error").await;
        let all = channel.exclusive_queue(FieldTable::default()).await;
        let errors = channel.exclusive_queue(FieldTable::default()).await;
        channel.bind(&all, &middle, "", FieldTable::default()).await;
        channel.bind(&errors, &last, "log.error", FieldTable::default()).await;
        channel.bind(&errors, &source, "log.error", FieldTable::default()).await;
        for key in ["log.error", "log.info", "other"] {
            channel.publish(source.as_str(), key, key).await;
        }
        assert_eq!(channel.bodies(&all).await, ["log.error", "log.info"]);
        assert_eq!(channel.bodies(&errors).await, ["log.error"]);
        let (destination, origin) = (middle.clone(), source.clone());
        let unbound =
            channel.exchange_unbind(destination, origin, "log.#".into(), Default::default(), FieldTable::default());
        unbound.await.unwrap();
        channel.publish(source.as_str(), "log.info", "unbound").await;
        assert!(channel.bodies(&all).await.is_empty());
    });
}

#[test]
fn alternate_exchange_takes_what_has_no_route() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let unrouted = scenario.exchange(&channel, "fanout", FieldTable::default()).await;
        let arguments = table([("alternate-exchange", text(unrouted.as_str()))]);
        let main = scenario.exchange(&channel, "direct", arguments).await;
        let known = channel.exclusive_queue(FieldTable::default()).await;
        let lost = channel.exclusive_queue(FieldTable::default()).await;
        channel.bind(&known, &main, "known", FieldTable::default()).await;
        channel.bind(&lost, &unrouted, "", FieldTable::default()).await;
        channel.publish(main.as_str(), "known", "1").await;
        let sent = channel.send_mandatory(main.as_str(), "unknown", "2").await.unwrap();
        assert_eq!(sent, Confirmation::Ack(None), "routed by the alternate exchange, so not returned");
        assert_eq!(channel.bodies(&known).await, ["1"]);
        let lost = channel.drain(&lost).await;
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].exchange.as_str(), lost[0].routing_key.as_str()), (main.as_str(), "unknown"));
    });
}

#[test]
fn cc_and_bcc_are_further_routing_keys() {
    scenario(async |scenario| {
        let channel = scenario.confirming().await;
        let mut queues = Vec::new();
        for _ in 0..3 {
            queues.push(channel.exclusive_queue(FieldTable::default()).await);
        }
        let keys = |name: &str| AMQPValue::FieldArray(FieldArray::from(vec![text(name)]));
        let properties = headers([("CC", keys(queues[1].as_str())), ("BCC", keys(queues[2].as_str()))]);
        channel.publish_with("", queues[0].as_str(), "letter", properties).await;
        for queue in &queues {
            let messages = channel.drain(queue).await;
            assert_eq!(messages.len(), 1);
            assert_eq!(header(&messages[0], "CC"), Some(&keys(queues[1].as_str())));
            assert_eq!(header(&messages[0], "BCC"), None);
            assert_eq!(messages[0].routing_key, queues[0]);
        }
    });
}

/// Declares an auto-delete exchange, which the broker removes on its own.
async fn auto_delete_exchange(channel: &Session) -> lapin::types::ShortString {
    let name = unique_name();
    let options = ExchangeDeclareOptions { durable: true, auto_delete: true, ..Default::default() };
    let declared = channel.exchange_declare(name.clone(), ExchangeKind::Direct, options, FieldTable::default());
    declared.await.unwrap();
    name
}

#[test]
fn auto_delete_exchange_goes_with_its_last_binding() {
    scenario(async |scenario| {
        let channel = scenario.channel().await;
        let exchange = auto_delete_exchange(&channel).await;
        let queue = channel.exclusive_queue(FieldTable::default()).await;
        channel.bind(&queue, &exchange, "1", FieldTable::default()).await;
        channel.bind(&queue, &exchange, "2", FieldTable::default()).await;
        channel.queue_unbind(queue.clone(), exchange.clone(), "1".into(), FieldTable::default()).await.unwrap();
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let declare = async || {
            let declared =
                channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, passive, FieldTable::default());
            declared.await
        };
        declare().await.unwrap();
        channel.queue_delete(queue, QueueDeleteOptions::default()).await.unwrap();
        let gone = declare().await.unwrap_err();
        assert_error(&gone, 404, &format!("NOT_FOUND - no exchange '{exchange}' in vhost '/'"));
    });
}
