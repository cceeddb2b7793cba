//! One message for many queues: an envelope and a verdict for each shard, and turns of bounded length.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::envelope::Envelope;
use super::super::{Broker, Limits, Outbox};
use super::client::{Client, Mode, Oracle};
use super::{NOW, broker};
use crate::model::entity::Destination;
use crate::model::ids::{ChannelRef, QueueId};
use crate::model::message::{Envelope as Address, Message, Properties};
use crate::model::names::{QueueName, RoutingKey};
use crate::model::request::{Ask, BindingRequest, DeclareQueue, Event, Internal, PublishRequest, Request};
use crate::model::table::{FieldTable, FieldValue};

/// A broker and a client with a channel in confirm mode.
struct Bench {
    broker: Arc<Broker>,
    client: Client,
    channel: ChannelRef,
    sequence: u64,
}

impl Bench {
    fn new(shards: u16) -> Self {
        let broker = broker(shards, Limits::default());
        let mut client = Client::new(&broker);
        client.open(1, Mode::Plain);
        let channel = client.channels[&1].reference;
        Self { broker, client, channel, sequence: 0 }
    }

    fn ask(&mut self, ask: Ask) {
        self.client.ask(1, ask);
        while self.client.work(&mut Oracle::default()) || self.broker.write_log().unwrap() {}
        assert!(self.client.channels[&1].asked.is_none());
    }

    fn declare(&mut self, queue: &str, durable: bool, arguments: &[(&str, FieldValue)]) {
        let mut table = FieldTable::default();
        arguments.iter().for_each(|(key, value)| table.push(key, value.clone()));
        let (queue, passive, exclusive, auto_delete) = (QueueName::new(queue), false, false, false);
        self.ask(Ask::DeclareQueue(DeclareQueue { queue, passive, durable, exclusive, auto_delete, arguments: table }));
    }

    fn bind(&mut self, queue: &str) {
        self.ask(Ask::Bind(BindingRequest {
            source: "amq.fanout".into(),
            destination: Destination::Queue(queue.into()),
            key: RoutingKey::new(b""),
            arguments: FieldTable::default(),
        }));
    }

    /// Queues bound to the fanout exchange.
    fn queues(&mut self, count: usize) {
        for number in 0..count {
            self.declare(&format!("q{number}"), false, &[]);
            self.bind(&format!("q{number}"));
        }
    }

    /// Has the log written, and kept in order when it is full.
    fn write(&self) {
        while self.broker.write_log().unwrap_or(true) {
            while self.broker.maintain_log().unwrap() {}
        }
    }

    fn request(&mut self, exchange: &str, key: &str, raw: &[u8]) -> Request {
        let properties = Properties::parse(raw).unwrap();
        let address = Address { exchange: exchange.as_bytes(), routing_key: key.as_bytes() };
        let message = Message::new(&mut Vec::new(), address, &properties, b"");
        self.sequence += 1;
        let (channel, sequence) = (self.channel, Some(self.sequence));
        Request::Publish(PublishRequest { channel, message, mandatory: true, sequence, transactional: false })
    }

    /// A publish and what the session says at once.
    fn publish(&mut self, exchange: &str, key: &str, raw: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let request = self.request(exchange, key, raw);
        self.client.session.submit(&mut vec![request], &mut events, NOW);
        events
    }

    /// Verdicts as they came: the range of publishes, and whether they were confirmed.
    fn verdicts(&self) -> Vec<(u64, u64, bool)> {
        let mut events = Vec::new();
        self.client.outbox.take(&mut events);
        let verdict = |event| match event {
            Event::Confirm { first, last, confirmed, .. } => (first, last, confirmed),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(verdict).collect()
    }

    fn ready(&self, queue: &str) -> u64 {
        let topology = self.broker.topology.load();
        let id: QueueId = topology.vhost(&"/".into()).unwrap().queues.get(queue).unwrap().id;
        let shard = self.shard_of(queue);
        self.broker.shards[usize::from(shard)].state.lock().counts(id).unwrap().ready
    }

    fn shard_of(&self, queue: &str) -> u16 {
        let topology = self.broker.topology.load();
        let id = topology.vhost(&"/".into()).unwrap().queues.get(queue).unwrap().id;
        super::super::metadata::shard_of(id, self.broker.shard_count())
    }

    /// What waits in each shard's mailbox with a message in it.
    fn messages_on_their_way(&self) -> Vec<usize> {
        let is_one = |envelope: &Envelope| messages_in(envelope) == 1;
        let most = self.broker.shards.iter().map(|cell| cell.mailbox.count(|envelope| messages_in(envelope) > 1));
        assert_eq!(most.sum::<usize>(), 0, "one message was published");
        self.broker.shards.iter().map(|cell| cell.mailbox.count(is_one)).collect()
    }
}

/// Envelopes with a message.
fn messages_in(envelope: &Envelope) -> usize {
    match envelope {
        Envelope::Enqueue { .. } | Envelope::FanOut(_) => 1,
        Envelope::Run(run) => run.publishes.len(),
        Envelope::FromShard(envelopes) => envelopes.iter().map(messages_in).sum(),
        _ => 0,
    }
}

const NO_PROPERTIES: &[u8] = &[0, 0];
/// delivery-mode 2
const PERSISTENT: &[u8] = &[0x10, 0, 2];

#[test]
fn a_message_for_many_queues_is_one_envelope_and_one_verdict_a_shard() {
    let mut bench = Bench::new(3);
    bench.queues(300);
    let broker = Arc::clone(&bench.broker);
    let guards: Vec<_> = broker.shards.iter().map(|cell| cell.state.lock()).collect();
    let events = bench.publish("amq.fanout", "", NO_PROPERTIES);
    assert!(matches!(events[..], [Event::Routed { sequence: 1, verdicts: 3, .. }]), "{events:?}");
    assert_eq!(bench.messages_on_their_way(), [1, 1, 1]);
    drop(guards);
    (0..3).for_each(|shard| broker.drive(shard, NOW));
    assert_eq!(bench.verdicts(), [(1, 1, true); 3]);
    assert!((0..300).all(|number| bench.ready(&format!("q{number}")) == 1));
}

#[test]
fn what_a_message_costs_grows_with_its_queues() {
    let mut bench = Bench::new(1);
    bench.queues(1000);
    let broker = Arc::clone(&bench.broker);
    let guard = broker.shards[0].state.lock();
    let (before, _) = bench.client.outbox.credits();
    bench.publish("amq.fanout", "", NO_PROPERTIES);
    let (after, _) = bench.client.outbox.credits();
    assert!(before - after > 64 * 1000, "a place in each queue is counted: {}", before - after);
    drop(guard);
    broker.drive(0, NOW);
    assert_eq!(bench.client.outbox.credits().0, before);
}

#[test]
fn a_fan_out_ends_with_the_turn_and_goes_on_in_the_next() {
    let mut bench = Bench::new(1);
    bench.queues(100);
    let broker = Arc::clone(&bench.broker);
    let mut shard = broker.shards[0].state.lock();
    for _ in 0..250 {
        bench.publish("amq.fanout", "", NO_PROPERTIES);
    }
    broker.shards[0].mailbox.take_all(&mut shard.inbox);
    let topology = broker.topology.load();
    let (mut done, mut turns) = (0, 0);
    while !shard.inbox.is_empty() {
        shard.turn(NOW, &topology);
        while broker.dispatch(0, &mut shard.output) {}
        let total: u64 = topology
            .vhost(&"/".into())
            .unwrap()
            .queues
            .values()
            .map(|queue| shard.counts(queue.id).unwrap().ready)
            .sum();
        assert!(total - done <= 16 * 1024, "a turn of {} messages", total - done);
        (done, turns) = (total, turns + 1);
    }
    assert_eq!((done, turns), (25_000, 2));
    drop(shard);
    let verdicts: Vec<u64> = bench.verdicts().into_iter().flat_map(|(first, last, _)| first..=last).collect();
    assert_eq!(verdicts, (1..=250).collect::<Vec<u64>>());
}

#[test]
fn what_is_gathered_and_not_pushed_yet_counts_as_spent() {
    let mut bench = Bench::new(1);
    bench.queues(100);
    let mut requests = 0;
    let mut events = Vec::new();
    while bench.client.session.has_credit() {
        let publish = bench.request("amq.fanout", "", NO_PROPERTIES);
        bench.client.session.gather(&mut vec![publish], &mut events, NOW);
        requests += 1;
        assert!(requests < 100, "100,000 bytes of credit for messages that cost 12,800");
    }
    assert!(requests > 1);
    let (credit, _) = bench.client.outbox.credits();
    assert_eq!(credit, 100_000, "nothing is pushed yet");
    bench.client.session.submit(&mut Vec::new(), &mut events, NOW);
    assert!(bench.client.session.has_credit(), "the shard has taken it all");
    assert_eq!(bench.ready("q99"), requests);
}

#[test]
fn letters_share_turns_with_what_came() {
    let mut bench = Bench::new(1);
    bench.queues(100);
    let dead = [("x-message-ttl", FieldValue::I32(0)), ("x-dead-letter-exchange", FieldValue::string("amq.fanout"))];
    bench.declare("dead", false, &dead);
    let broker = Arc::clone(&bench.broker);
    let mut shard = broker.shards[0].state.lock();
    let before = bench.client.outbox.credits().0;
    for _ in 0..500 {
        bench.publish("", "dead", NO_PROPERTIES);
    }
    broker.shards[0].mailbox.take_all(&mut shard.inbox);
    let topology = broker.topology.load();
    shard.turn(NOW, &topology);
    while broker.dispatch(0, &mut shard.output) {}
    assert!(shard.has_work(), "50,000 messages in one turn");
    assert!(shard.inbox.is_empty(), "what came has its part of the turn");
    assert!((1..=1000).contains(&shard.left_over()), "a letter of each message, and its credit: {}", shard.left_over());
    assert!(bench.client.outbox.credits().0 < before, "credit returns when what came of a publish is done");
    while shard.has_work() {
        shard.turn(NOW, &topology);
        while broker.dispatch(0, &mut shard.output) {}
    }
    drop(shard);
    bench.write();
    assert_eq!((bench.ready("q0"), bench.ready("q99")), (500, 500));
    assert_eq!(bench.client.outbox.credits().0, before);
}

#[test]
fn what_expires_waits_for_letters_in_other_shards() {
    const COUNT: usize = 20_000;
    let mut bench = Bench::new(2);
    let dying =
        [("x-message-ttl", FieldValue::I32(1000)), ("x-dead-letter-exchange", FieldValue::string("amq.fanout"))];
    bench.declare("dying", false, &dying);
    let home = bench.shard_of("dying");
    let mut names = (0..).map(|number| format!("q{number}"));
    let target = loop {
        let name = names.next().unwrap();
        bench.declare(&name, false, &[]);
        if bench.shard_of(&name) != home {
            break name;
        }
    };
    bench.bind(&target);
    for _ in 0..COUNT {
        bench.publish("", "dying", NO_PROPERTIES);
    }
    let broker = Arc::clone(&bench.broker);
    let mut now = NOW.plus(2000);
    let guard = broker.shards[usize::from(1 - home)].state.lock();
    for _ in 0..100 {
        broker.drive(home, now);
        now = now.plus(1);
    }
    let waiting: usize = broker.shards.iter().map(|cell| cell.mailbox.count(|_| true)).sum();
    let left = usize::try_from(bench.ready("dying")).unwrap();
    assert!(waiting > 0 && COUNT - left <= 8192, "{} letters wait for a shard", COUNT - left);
    assert!(broker.shard_alarm(home).unwrap() >= now, "it does not turn in vain until then");
    drop(guard);
    let mut rounds = 0;
    while bench.ready(&target) < COUNT as u64 {
        (0..2).for_each(|shard| broker.drive(shard, now));
        bench.write();
        // What was paged out.
        while broker.serve_load(Duration::ZERO).unwrap() {}
        now = now.plus(2);
        rounds += 1;
        assert!(rounds < 100, "{} are left in the queue after {rounds} rounds", bench.ready("dying"));
    }
    assert_eq!(bench.ready("dying"), 0);
}

#[test]
fn publishers_wait_while_shards_are_behind_with_what_they_made_themselves() {
    let bench = Bench::new(1);
    let pool = Arc::clone(bench.broker.credit_pool());
    let outboxes: Vec<Outbox> = (0..2).map(|_| Outbox::new(1_000_000, 1_000_000).sharing(&pool)).collect();
    outboxes.iter().for_each(|outbox| outbox.spend_publish_credit(1000));
    assert!(outboxes.iter().all(|outbox| outbox.has_publish_credit(0)));
    pool.change_own(10_000);
    assert!(outboxes.iter().all(|outbox| !outbox.has_publish_credit(0)), "letters first");
    outboxes[0].return_publish_credit(1000);
    assert!(outboxes[0].has_publish_credit(0), "who has nothing there is told of no change, and has to try");
    assert!(!outboxes[0].has_publish_credit(1));
    pool.change_own(-9_000);
    assert!(outboxes.iter().all(|outbox| outbox.has_publish_credit(0)));
}

#[test]
fn what_shards_make_themselves_is_counted_until_it_is_handled() {
    let mut bench = Bench::new(3);
    bench.queues(10);
    let dead = [("x-message-ttl", FieldValue::I32(0)), ("x-dead-letter-exchange", FieldValue::string("amq.fanout"))];
    bench.declare("dead", true, &dead);
    let broker = Arc::clone(&bench.broker);
    let home = bench.shard_of("dead");
    let others: Vec<_> = (0..3).filter(|shard| *shard != home).collect();
    let guards: Vec<_> = others.iter().map(|shard| broker.shards[usize::from(*shard)].state.lock()).collect();
    for _ in 0..100 {
        bench.publish("", "dead", PERSISTENT);
    }
    let made = broker.credit_pool().own();
    assert!((200..=400).contains(&made), "a letter for each of the other shards, and its credit: {made}");
    drop(guards);
    while broker.finish_turns(NOW) || broker.write_log().unwrap() {}
    assert_eq!(broker.credit_pool().own(), 0);
    assert_eq!(bench.ready("q9"), 100);
}

/// Publishes of a transaction.
fn transactional(requests: Vec<Request>) -> Vec<Request> {
    let in_transaction = |request| match request {
        Request::Publish(publish) => {
            Request::Publish(PublishRequest { transactional: true, sequence: None, ..publish })
        }
        other => panic!("{other:?}"),
    };
    requests.into_iter().map(in_transaction).collect()
}

#[test]
fn a_commit_waits_for_credit_and_requests_for_the_commit() {
    let mut bench = Bench::new(1);
    bench.queues(100);
    let broker = Arc::clone(&bench.broker);
    let publishes = (0..100).map(|_| bench.request("amq.fanout", "", NO_PROPERTIES)).collect();
    let mut requests = transactional(publishes);
    let commit = Ask::Commit { settlements: Vec::new() };
    requests.push(Request::Ask { channel: bench.channel, ask: commit });
    requests.push(bench.request("", "late", NO_PROPERTIES));
    let mut events = Vec::new();
    let guard = broker.shards[0].state.lock();
    bench.client.session.submit(&mut requests, &mut events, NOW);
    let sent = bench.messages_on_their_way()[0];
    assert!((1..10).contains(&sent), "100,000 bytes of credit for messages that cost 12,800: {sent}");
    assert!(bench.client.session.is_committing() && bench.client.session.is_waiting());
    bench.client.session.submit(&mut requests, &mut events, NOW);
    assert_eq!(bench.messages_on_their_way()[0], sent, "there is no credit for more");
    drop(guard);
    broker.drive(0, NOW);
    let arguments = FieldTable::default();
    let (queue, passive, durable, exclusive, auto_delete) = (QueueName::new("late"), false, false, false, false);
    let declare = Ask::DeclareQueue(DeclareQueue { queue, passive, durable, exclusive, auto_delete, arguments });
    let mut other = Client::new(&broker);
    other.open(1, Mode::Plain);
    other.ask(1, declare);
    while other.work(&mut Oracle::default()) {}
    let mut rounds = 0;
    while bench.client.session.is_committing() {
        bench.client.session.submit(&mut requests, &mut events, NOW);
        bench.write();
        rounds += 1;
        assert!(rounds < 100);
    }
    assert!(rounds > 10, "{rounds}");
    bench.write();
    assert_eq!((bench.ready("q0"), bench.ready("q99")), (100, 100));
    assert_eq!(bench.ready("late"), 1, "what waited sees what was declared meanwhile");
    let mut told = Vec::new();
    bench.client.outbox.take(&mut told);
    let is_joined = |event: &Event| matches!(event, Event::Internal(Internal::Joined { .. }));
    let is_confirm = |event: &Event| matches!(event, Event::Confirm { .. });
    assert!(told.iter().any(is_joined) && told.iter().any(is_confirm), "{told:?}");
}

#[test]
fn a_commit_whose_client_is_gone_is_whole() {
    let mut bench = Bench::new(2);
    bench.queues(100);
    let broker = Arc::clone(&bench.broker);
    let publishes = (0..100).map(|_| bench.request("amq.fanout", "", NO_PROPERTIES)).collect();
    let mut requests = transactional(publishes);
    requests.push(Request::Ask { channel: bench.channel, ask: Ask::Commit { settlements: Vec::new() } });
    let guards: Vec<_> = broker.shards.iter().map(|cell| cell.state.lock()).collect();
    bench.client.session.submit(&mut requests, &mut Vec::new(), NOW);
    assert!(bench.client.session.is_committing());
    bench.client.session.abandon(NOW);
    drop(guards);
    while broker.finish_turns(NOW) {}
    assert_eq!((bench.ready("q0"), bench.ready("q99")), (100, 100));
}

#[test]
fn a_transaction_counts_each_route_that_it_keeps_once() {
    let mut bench = Bench::new(1);
    bench.queues(1000);
    let held = |bench: &Bench| bench.broker.transaction_bytes.load(Ordering::Relaxed);
    let first = transactional(vec![bench.request("amq.fanout", "", NO_PROPERTIES)]);
    let submit = |bench: &mut Bench, mut requests: Vec<Request>| {
        let before = held(bench);
        bench.client.session.submit(&mut requests, &mut Vec::new(), NOW);
        held(bench) - before
    };
    let with_route = submit(&mut bench, first);
    let more = (0..100).map(|_| bench.request("amq.fanout", "", NO_PROPERTIES)).collect();
    let without = submit(&mut bench, transactional(more)) / 100;
    assert!(with_route - without >= 8000, "{with_route} {without}");
    assert!(without < 1000, "{without}");
    // headers: CC with no key
    let copied = b"\x20\x00\x00\x00\x00\x08\x02CCA\x00\x00\x00\x00";
    let more = (0..100).map(|_| bench.request("amq.fanout", "", copied)).collect();
    let each = submit(&mut bench, transactional(more)) / 100;
    assert!(each >= 8000, "a route that nobody shares: {each}");
    bench.client.session.submit(
        &mut vec![Request::Ask { channel: bench.channel, ask: Ask::Rollback }],
        &mut Vec::new(),
        NOW,
    );
    assert_eq!(held(&bench), 0);
}

#[test]
fn many_queues_that_are_not_deep_page_out_together() {
    let mut bench = Bench::new(1);
    bench.queues(400);
    // The budget is a MiB: of 400 queues none is deep by itself.
    for _ in 0..100 {
        bench.publish("amq.fanout", "", NO_PROPERTIES);
        bench.write();
        bench.broker.drive(0, NOW);
    }
    let logged = bench.broker.log_operations().1;
    assert!(logged > 20_000, "{logged} of 40,000 messages can leave memory");
}

#[test]
fn one_queue_that_refuses_a_message_refuses_it_for_all() {
    let mut bench = Bench::new(1);
    bench.queues(3);
    let limits = [("x-max-length", FieldValue::I32(1)), ("x-overflow", FieldValue::string("reject-publish"))];
    bench.declare("full", false, &limits);
    bench.bind("full");
    assert!(bench.publish("amq.fanout", "", NO_PROPERTIES).is_empty(), "one verdict needs no announcement");
    bench.publish("amq.fanout", "", NO_PROPERTIES);
    bench.publish("", "q0", NO_PROPERTIES);
    assert_eq!(bench.verdicts(), [(1, 1, true), (2, 2, false), (3, 3, true)]);
    assert_eq!((bench.ready("full"), bench.ready("q1"), bench.ready("q0")), (1, 2, 3));
}

#[test]
fn the_verdict_waits_for_the_log_when_one_of_the_queues_does() {
    let mut bench = Bench::new(1);
    bench.queues(2);
    bench.declare("durable", true, &[]);
    bench.bind("durable");
    bench.publish("amq.fanout", "", PERSISTENT);
    assert_eq!(bench.verdicts(), []);
    assert!(bench.broker.write_log().unwrap());
    assert_eq!(bench.verdicts(), [(1, 1, true)]);
}

#[test]
fn a_dead_letter_for_many_queues_is_one_envelope_a_shard() {
    let mut bench = Bench::new(3);
    bench.queues(60);
    let dead = [("x-message-ttl", FieldValue::I32(0)), ("x-dead-letter-exchange", FieldValue::string("amq.fanout"))];
    bench.declare("dead", false, &dead);
    let broker = Arc::clone(&bench.broker);
    let topology = broker.topology.load();
    let home = topology.vhost(&"/".into()).unwrap().queues.get("dead").unwrap().id;
    let home = usize::from(super::super::metadata::shard_of(home, 3));
    let guards: Vec<_> = broker.shards.iter().enumerate().filter(|(at, _)| *at != home).collect();
    let guards: Vec<_> = guards.into_iter().map(|(_, cell)| cell.state.lock()).collect();
    bench.publish("", "dead", NO_PROPERTIES);
    let mut expected = [1, 1, 1];
    expected[home] = 0;
    assert_eq!(bench.messages_on_their_way(), expected);
    drop(guards);
    (0..3).for_each(|shard| broker.drive(shard, NOW));
    assert!((0..60).all(|number| bench.ready(&format!("q{number}")) == 1));
}
