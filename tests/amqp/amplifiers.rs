//! Little input that makes the broker do much: memory stays bounded, and those who log in meanwhile are served.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, PATIENCE},
    harness::{Broker, MIB, growth, own_broker, own_managed_broker, slowest_round_trip},
    methods::{Method, basic, channel, exchange, queue, tx},
    wire::{Properties, Table, Value, table},
};

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(2);
/// Connections that flood together.
const FLOODING: usize = 8;
/// What the broker may grow by in a flood, about twice what it does: the budget of queues, buffers of the log, bookkeeping,
/// and what those who publish have on the way. Were the last not bounded, it would be half a gigabyte to three.
const FLOOD_GROWTH: u64 = 256 * MIB;
/// The same once the queues are gone.
const LEFT: u64 = 96 * MIB;
/// Queues that one message goes to.
const QUEUES: usize = 300;
/// Messages that one method is about.
const HELD: u32 = 100_000;
/// What the broker may grow by when such a method is carried out.
const HELD_GROWTH: u64 = 32 * MIB;
/// How long somebody else may wait meanwhile for a login and a declaration: no matter of speed, but of being served.
const SERVED: Duration = Duration::from_secs(2);

fn none() -> Table {
    Table::new()
}

/// Tells when it goes, whether or not by a panic.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody else logs in again and again while `act` runs, and may not wait for long; at no moment may the broker be `limit`
/// bytes larger than at first.
fn bounded(broker: &Broker, limit: u64, act: impl FnOnce()) {
    let before = broker.resident_bytes().unwrap();
    let finished = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            loop {
                let is_last = finished.load(Ordering::Relaxed);
                let start = Instant::now();
                slowest_round_trip(broker, 1);
                slowest = slowest.max(start.elapsed());
                if is_last {
                    return slowest;
                }
            }
        });
        let finish = Finish(&finished);
        act();
        drop(finish);
        observer.join()
    });
    let most = broker.most_resident_bytes().unwrap().saturating_sub(before);
    assert!(most < limit, "grew by {} MiB", most / MIB);
    let slowest = slowest.expect("another connection is served");
    assert!(slowest < SERVED, "another connection waited {slowest:?}");
}

/// Waits until little is left of what the broker grew by since `before`.
fn expect_memory_back(broker: &Broker, before: u64) {
    let deadline = Instant::now() + PATIENCE;
    while growth(broker, before) >= LEFT {
        assert!(Instant::now() < deadline, "{} MiB were not given back", growth(broker, before) / MIB);
        // The allocator gives back when it is asked for something.
        slowest_round_trip(broker, 10);
    }
}

/// Declares queues that get what comes to an exchange, each under its name as the key too.
fn queues_at(client: &mut Client, source: &str, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("q{number}")).collect();
    let mut bytes = Vec::new();
    for name in &names {
        bytes.extend(queue::declare(name, queue::NOWAIT, &none()).frame(1));
        bytes.extend(queue::bind(name, source, name, 1, &none()).frame(1));
    }
    client.send_bytes(&bytes);
    client.message_count(1, &names[count - 1]);
    names
}

fn delete_queues(client: &mut Client, names: &[String]) {
    let deletes: Vec<Vec<u8>> = names.iter().map(|name| queue::delete(name, queue::DELETE_NOWAIT).frame(1)).collect();
    client.send_bytes(&deletes.concat());
    client.call(1, &basic::qos(0, 0, 0));
}

/// Writes as fast as the broker reads, until it closes or time is over.
fn write_until(mut stream: &TcpStream, chunk: &[u8], end: Instant) {
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut written = 0;
    while Instant::now() < end {
        match stream.write(&chunk[written..]) {
            Ok(count) => written = (written + count) % chunk.len(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Connections publish `messages` over and over. Then what they publish to is deleted with `stop`, and all of `names` have
/// all that was taken.
fn flood(broker: &Broker, client: &mut Client, messages: &[u8], stop: &Method, names: &[String]) {
    let before = broker.resident_bytes().unwrap();
    bounded(broker, FLOOD_GROWTH, || {
        let end = Instant::now() + FLOOD;
        thread::scope(|scope| {
            for _ in 0..FLOODING {
                scope.spawn(|| write_until(&broker.connect().stream, messages, end));
            }
        });
    });
    client.call(1, stop);
    let sample = [&names[0], &names[names.len() / 2], &names[names.len() - 1]];
    let deadline = Instant::now() + PATIENCE;
    let mut last = Vec::new();
    loop {
        let counts: Vec<u32> = sample.iter().map(|name| client.message_count(1, name)).collect();
        if counts[0] > 0 && counts.iter().all(|count| *count == counts[0]) && counts == last {
            break;
        }
        assert!(Instant::now() < deadline, "queues that get the same have {counts:?} messages");
        last = counts;
        thread::sleep(Duration::from_millis(50));
    }
    delete_queues(client, names);
    expect_memory_back(broker, before);
}

#[test]
fn a_flood_of_fan_outs() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("all", "fanout", 0, &none()));
    let names = queues_at(&mut client, "all", QUEUES);
    let message = client.message_bytes(1, &basic::publish("all", "", 0), &Properties::default(), b"");
    flood(&broker, &mut client, &message.repeat(1000), &exchange::delete("all", 0), &names);
}

#[test]
fn a_flood_of_letters() {
    // Letters of a megabyte of messages for each connection would take long to arrive after the flood.
    let Some(broker) = own_broker("[memory]\nconnection_publish_credit = \"32KiB\"\n") else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("dead", "fanout", 0, &none()));
    let names = queues_at(&mut client, "dead", QUEUES);
    let arguments = table([("x-message-ttl", 0.into()), ("x-dead-letter-exchange", "dead".into())]);
    client.declare_queue(1, "short", 0, &arguments);
    let message = client.message_bytes(1, &basic::publish("", "short", 0), &Properties::default(), b"");
    flood(&broker, &mut client, &message.repeat(1000), &queue::delete("short", 0), &names);
}

#[test]
fn a_flood_of_carbon_copies() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("keys", "direct", 0, &none()));
    let names = queues_at(&mut client, "keys", QUEUES);
    let keys = names.iter().map(|name| Value::from(name.as_str())).collect();
    let properties = Properties::with_headers([("CC", Value::Array(keys))]);
    let message = client.message_bytes(1, &basic::publish("keys", "nobody", 0), &properties, b"");
    flood(&broker, &mut client, &message.repeat(20), &exchange::delete("keys", 0), &names);
}

/// Two exchanges in each of many layers are bound to both of the next, so that hundreds of thousands of ways lead to the
/// queues; and a cache of routes cannot hold those of so many keys.
#[test]
fn a_flood_through_many_exchanges() {
    const LAYERS: usize = 20;
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    let pair = |layer: usize| [format!("a{layer}"), format!("b{layer}")];
    for layer in 0..LAYERS {
        for name in pair(layer) {
            client.call(1, &exchange::declare(&name, "fanout", 0, &none()));
            for source in layer.checked_sub(1).map(pair).into_iter().flatten() {
                client.call(1, &exchange::bind(&name, &source, "", 0, &none()));
            }
        }
    }
    let names = queues_at(&mut client, &pair(LAYERS - 1)[0], QUEUES);
    let message = |number: usize| {
        client.message_bytes(1, &basic::publish("a0", &number.to_string(), 0), &Properties::default(), b"")
    };
    let messages: Vec<Vec<u8>> = (0..1000).map(message).collect();
    flood(&broker, &mut client, &messages.concat(), &exchange::delete("a0", 0), &names);
}

/// Publishes empty messages, and waits until the queue has them all.
fn fill(client: &mut Client, name: &str, count: u32) {
    let message = client.message_bytes(1, &basic::publish("", name, 0), &Properties::default(), b"");
    let batch = message.repeat(1000);
    for _ in 0..count / 1000 {
        client.send_bytes(&batch);
    }
    client.wait_for_count(1, name, count);
}

/// A broker, a client, and another that has all messages of the queue `held` and has not acknowledged them.
fn unacknowledged(count: u32, arguments: &Table) -> Option<(Broker, Client, Client)> {
    let broker = own_broker("")?;
    let mut client = broker.connect();
    client.declare_queue(1, "held", 0, arguments);
    fill(&mut client, "held", count);
    let mut consumer = broker.connect();
    consumer.consume(1, "held", "c", 0, &none());
    for _ in 0..count {
        consumer.expect_delivery(1);
    }
    consumer.call(1, &basic::cancel("c", 0));
    assert_eq!(client.message_count(1, "held"), 0);
    Some((broker, client, consumer))
}

#[test]
fn messages_come_back_from_a_channel_that_closes() {
    let Some((broker, mut client, mut consumer)) = unacknowledged(HELD, &none()) else { return };
    bounded(&broker, HELD_GROWTH, || {
        consumer.call(1, &channel::close());
        assert_eq!(client.message_count(1, "held"), HELD);
    });
    assert!(client.get(1, "held", 1).unwrap().redelivered);
}

#[test]
fn messages_come_back_with_recover() {
    let Some((broker, mut client, mut consumer)) = unacknowledged(HELD, &none()) else { return };
    bounded(&broker, HELD_GROWTH, || {
        consumer.call(1, &basic::recover(basic::REQUEUE));
        assert_eq!(client.message_count(1, "held"), HELD);
    });
}

#[test]
fn messages_come_back_with_nack() {
    let Some((broker, mut client, mut consumer)) = unacknowledged(HELD, &none()) else { return };
    bounded(&broker, HELD_GROWTH, || {
        consumer.send(1, &basic::nack(0, basic::MULTIPLE | basic::NACK_REQUEUE));
        client.wait_for_count(1, "held", HELD);
    });
}

/// One method makes letters for many queues of many messages.
#[test]
fn messages_are_dropped_to_many_queues() {
    const DROPPED: u32 = 15_000;
    let arguments = table([("x-dead-letter-exchange", "dead".into())]);
    let Some((broker, mut client, mut consumer)) = unacknowledged(DROPPED, &arguments) else { return };
    client.call(1, &exchange::declare("dead", "fanout", 0, &none()));
    let names = queues_at(&mut client, "dead", QUEUES / 2);
    let before = broker.resident_bytes().unwrap();
    bounded(&broker, 192 * MIB, || {
        consumer.send(1, &basic::nack(0, basic::MULTIPLE));
        for name in &names {
            client.wait_for_count(1, name, DROPPED);
        }
    });
    delete_queues(&mut client, &names);
    expect_memory_back(&broker, before);
}

#[test]
fn deep_queues_are_purged_and_deleted() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    let before = broker.resident_bytes().unwrap();
    // What one round has taken is there for the next.
    for _ in 0..4 {
        for name in ["purged", "deleted"] {
            client.declare_queue(1, name, 0, &none());
            fill(&mut client, name, HELD);
        }
        bounded(&broker, HELD_GROWTH, || {
            let methods = [queue::purge("purged", 0), queue::delete("deleted", 0)];
            let counts = methods.map(|method| client.call(1, &method).reader().long());
            assert_eq!(counts, [HELD, HELD]);
            assert_eq!(client.message_count(1, "purged"), 0);
        });
        let grown_by = growth(&broker, before);
        assert!(grown_by < 80 * MIB, "{} MiB for {} messages", grown_by / MIB, 2 * HELD);
    }
}

/// Sets a policy through the management API.
fn set_policy(broker: &Broker, policy: &str) {
    let mut stream = TcpStream::connect(broker.management.expect("a broker with a management API")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // guest:guest. As of HTTP 1.0, the answer ends with the connection.
    let head = format!(
        "PUT /api/policies/%2F/all HTTP/1.0\r\nauthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\ncontent-length: {}\r\n\r\n",
        policy.len()
    );
    stream.write_all((head + policy).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 201 Created"), "{answer}");
}

#[test]
fn a_policy_changes_many_queues() {
    const POLICED: usize = 5000;
    let Some(broker) = own_managed_broker("") else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("all", "fanout", 0, &none()));
    let names = queues_at(&mut client, "all", POLICED);
    for _ in 0..3 {
        client.publish(1, "all", "", b"");
    }
    let ends = [&names[0], &names[POLICED - 1]];
    for name in &names {
        client.wait_for_count(1, name, 3);
    }
    bounded(&broker, HELD_GROWTH, || {
        set_policy(&broker, r#"{"pattern": "^q", "definition": {"max-length": 1}}"#);
        for name in ends {
            client.wait_for_count(1, name, 1);
        }
    });
    for name in &names {
        assert_eq!(client.message_count(1, name), 1);
    }
}

/// What the transactions of a connection may hold.
const TRANSACTED: u64 = 256 * MIB;
const BODY: usize = 64 * 1024;
/// Messages with such bodies that are within the limit with all that they take besides.
const WITHIN: u32 = 4000;

/// A connection that has published that many messages in a transaction.
fn transaction(broker: &Broker, exchange: &str, key: &str, body: &[u8], count: u32) -> Client {
    let mut publisher = broker.connect();
    publisher.call(1, &tx::select());
    let message = publisher.message_bytes(1, &basic::publish(exchange, key, 0), &Properties::default(), body);
    for _ in 0..count {
        publisher.send_bytes(&message);
    }
    publisher.call(1, &basic::qos(0, 0, 0));
    publisher
}

#[test]
fn a_transaction_is_refused_beyond_its_limit() {
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    client.declare_queue(1, "committed", 0, &none());
    let before = broker.resident_bytes().unwrap();
    // What one of them has held is there for the next.
    for _ in 0..3 {
        bounded(&broker, TRANSACTED * 3 / 2, || {
            let mut publisher = transaction(&broker, "", "committed", &[7; BODY], WITHIN);
            for _ in u64::from(WITHIN)..TRANSACTED / BODY as u64 {
                publisher.publish(1, "", "committed", [7; BODY]);
            }
            let text = "RESOURCE_ERROR - the transactions of a connection may hold 268435456 bytes of publishes";
            publisher.expect_connection_close(506, text, (60, 40));
        });
        assert_eq!(client.message_count(1, "committed"), 0);
        let grown_by = growth(&broker, before);
        assert!(grown_by < TRANSACTED * 3 / 2, "grew by {} MiB", grown_by / MIB);
    }
}

#[test]
fn a_large_transaction_is_committed() {
    const MESSAGES: u32 = WITHIN / 4;
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    client.declare_queue(1, "committed", 0, &none());
    let mut publisher = transaction(&broker, "", "committed", &[7; BODY], MESSAGES);
    bounded(&broker, HELD_GROWTH, || {
        publisher.call(1, &tx::commit());
        client.wait_for_count(1, "committed", MESSAGES);
    });
}

/// Small messages, each of which goes to many queues once it is committed.
#[test]
fn a_transaction_is_committed_to_many_queues() {
    const MESSAGES: u32 = 5_000;
    let Some(broker) = own_broker("") else { return };
    let mut client = broker.connect();
    client.call(1, &exchange::declare("all", "fanout", 0, &none()));
    let names = queues_at(&mut client, "all", 100);
    let before = broker.resident_bytes().unwrap();
    let mut publisher = transaction(&broker, "all", "", b"", MESSAGES);
    bounded(&broker, 128 * MIB, || {
        publisher.call(1, &tx::commit());
        for name in &names {
            client.wait_for_count(1, name, MESSAGES);
        }
    });
    delete_queues(&mut client, &names);
    expect_memory_back(&broker, before);
}
