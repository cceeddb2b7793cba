//! One test per rule of the queue, and the helpers that tests share.

use std::collections::HashMap;

use bytes::Bytes;

use super::*;
use crate::model::entity::{DeadLetterTarget, Overflow, QueueOptions};
use crate::model::ids::Timestamp;
use crate::model::message::{Envelope, Properties};

/// A message to exchange `amq.topic` with `name` as its routing key and a body of `size` bytes.
pub(super) fn message(name: &str, priority: u8, size: usize) -> Message {
    message_of(name, priority, None, size)
}

/// The same with a delivery mode. Bodies share their bytes, so that big ones cost nothing.
pub(super) fn message_of(name: &str, priority: u8, delivery_mode: Option<u8>, size: usize) -> Message {
    message_with_headers(name, priority, delivery_mode, size, 0)
}

/// The same with as many bytes of headers.
pub(super) fn message_with_headers(
    name: &str,
    priority: u8,
    delivery_mode: Option<u8>,
    size: usize,
    headers: usize,
) -> Message {
    static BODY: [u8; 1 << 20] = [b'x'; 1 << 20];
    let mut raw = Vec::new();
    let properties = Properties {
        priority: (priority > 0).then_some(priority),
        delivery_mode,
        headers: (headers > 0).then(|| &BODY[..headers]),
        ..Properties::default()
    };
    properties.encode(&mut raw);
    let properties = Properties { raw: &raw, ..properties };
    let envelope = Envelope { exchange: b"amq.topic", routing_key: name.as_bytes() };
    Message::with_slices(&mut Vec::new(), envelope, &properties, vec![Bytes::from_static(&BODY[..size])])
}

pub(super) fn tag(name: &str) -> ConsumerTag {
    ConsumerTag::new(name)
}

/// Consumers are `name` or `name@connection.channel`; 1.1 is where nothing is said.
fn consumer(name: &str) -> ConsumerId {
    let (connection, channel) = place(name.split_once('@').map_or("1.1", |(_, place)| place));
    let serial = name.bytes().take_while(|byte| *byte != b'@').fold(0u32, |sum, byte| sum * 31 + u32::from(byte));
    ConsumerId { connection: ConnectionId(connection), serial, channel }
}

fn place(text: &str) -> (u64, u16) {
    let (connection, channel) = text.split_once('.').unwrap();
    (connection.parse().unwrap(), channel.parse().unwrap())
}

/// A gate with closed connections.
#[derive(Default)]
struct Valve(Vec<u64>);

impl Gate for Valve {
    fn admits(&mut self, consumer: ConsumerId) -> bool {
        !self.0.contains(&consumer.connection.0)
    }

    fn spend(&mut self, _consumer: ConsumerId, _cost: usize, _mode: AckMode) {}

    fn settled(&mut self, _consumer: ConsumerId, _count: usize) {}
}

/// Plays a script against a queue. Each line is a command, and after `->` what is to come of it.
struct Player {
    fifo: Fifo,
    now: u64,
    gate: Valve,
    names: HashMap<ConsumerId, String>,
    indexes: HashMap<String, MessageIndex>,
    sequence: u64,
}

impl Player {
    fn play(options: QueueOptions, script: &str) {
        let fifo = Fifo::new(Arc::new(options), Durability::Transient, Timestamp(0));
        let (names, indexes) = (HashMap::new(), HashMap::new());
        let mut player = Self { fifo, now: 0, gate: Valve::default(), names, indexes, sequence: 0 };
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, expected) = line.split_once("->").unwrap_or((line, ""));
            let words: Vec<&str> = command.split_whitespace().collect();
            assert_eq!(player.line(&words), expected.trim(), "after `{}`", command.trim());
            player.fifo.check_invariants();
        }
    }

    fn line(&mut self, words: &[&str]) -> String {
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| option(name).map(|text| text.parse::<i64>().unwrap());
        let small = |name: &str| u16::try_from(number(name).unwrap_or(0)).unwrap();
        let flag = |name: &str| words.contains(&name);
        let argument = words.get(1).copied().unwrap_or_default();
        let command = match words[0] {
            "at" => {
                self.now = argument.parse().unwrap();
                Command::Tick
            }
            "close" => {
                self.gate.0.push(argument.parse().unwrap());
                return String::new();
            }
            "open" => {
                self.gate.0.clear();
                Command::Resume(ConnectionId(argument.parse().unwrap()))
            }
            "publish" => {
                self.sequence += 1;
                let channel = ChannelRef { connection: ConnectionId(9), serial: 1, number: 1 };
                Command::Enqueue(Publish {
                    message: message(argument, u8::try_from(small("priority")).unwrap(), usize::from(small("size"))),
                    expiration_ms: number("ttl").map(|ttl| u64::try_from(ttl).unwrap()),
                    origin: if flag("confirm") {
                        PublishOrigin::Channel { channel, sequence: self.sequence }
                    } else {
                        PublishOrigin::Untracked
                    },
                    deaths: None,
                })
            }
            "consume" => {
                self.names.insert(consumer(argument), argument.to_owned());
                Command::Subscribe(Subscription {
                    consumer: consumer(argument),
                    tag: tag(argument),
                    prefetch: small("prefetch"),
                    no_ack: flag("no-ack"),
                    exclusive: flag("exclusive"),
                    priority: number("priority").unwrap_or(0),
                    arguments: FieldTable::default(),
                })
            }
            "ack" | "requeue" | "reject" => Command::Settle {
                consumer: consumer(argument),
                indexes: words[2..].iter().map(|name| self.indexes[*name]).collect(),
                outcome: match words[0] {
                    "ack" => SettleOutcome::Ack,
                    "requeue" => SettleOutcome::Requeue,
                    _ => SettleOutcome::Reject,
                },
            },
            "get" => {
                self.names.insert(consumer(argument), argument.to_owned());
                Command::Get { holder: consumer(argument), no_ack: flag("no-ack") }
            }
            "cancel" => Command::Cancel(consumer(argument)),
            "purge" => Command::Purge,
            "delete" => Command::Delete { if_unused: flag("if-unused"), if_empty: flag("if-empty") },
            "channel-down" => {
                let (connection, number) = place(argument);
                Command::ChannelDown(ChannelRef { connection: ConnectionId(connection), serial: 0, number })
            }
            "connection-down" => Command::ConnectionDown(ConnectionId(argument.parse().unwrap())),
            "touch" => Command::Touch,
            other => panic!("unknown command {other}"),
        };
        self.apply(command)
    }

    fn apply(&mut self, command: Command) -> String {
        let mut effects = Vec::new();
        let reply = self.fifo.apply(Timestamp(self.now), command, &mut self.gate, &mut effects);
        let mut texts = match reply {
            Reply::None | Reply::Subscribed | Reply::Cancelled => Vec::new(),
            Reply::Got { index, redelivered, message, ready } => {
                let again = if redelivered { " again" } else { "" };
                vec![format!("got {}{again}, {ready} left", self.name(index, &message))]
            }
            Reply::Counts(counts) => vec![format!(
                "{} ready of {} bytes, {} unacked of {} bytes, {} consumers",
                counts.ready, counts.ready_bytes, counts.unacked, counts.unacked_bytes, counts.consumers
            )],
            other => vec![format!("{other:?}").to_lowercase()],
        };
        for effect in effects {
            texts.push(match effect {
                Effect::Deliver(Delivery { consumer, index, redelivered, message, .. }) => {
                    let again = if redelivered { " again" } else { "" };
                    let name = self.name(index, &message);
                    format!("{name} to {}{again}", self.names[&consumer])
                }
                Effect::Confirm { sequence, verdict, .. } => format!("{verdict:?} {sequence}").to_lowercase(),
                Effect::DeadLetter { message, reason, .. } => {
                    format!("{} dead {}", String::from_utf8_lossy(message.routing_key()), reason.name())
                }
                Effect::ConsumerCancelled { consumer, tag } => {
                    assert_eq!(tag.as_str(), self.names[&consumer]);
                    format!("{tag} cancelled")
                }
                Effect::ConsumerTimeout { consumer } => format!("{} timed out", self.names[&consumer]),
                Effect::Gone => "gone".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            });
        }
        texts.join("; ")
    }

    fn name(&mut self, index: MessageIndex, message: &Message) -> String {
        let name = String::from_utf8_lossy(message.routing_key()).into_owned();
        self.indexes.insert(name.clone(), index);
        name
    }
}

/// Options with a dead-letter exchange, so that scripts see what leaves the queue.
fn traced() -> QueueOptions {
    let dead_letter = DeadLetterTarget { exchange: "dead".into(), routing_key: None };
    QueueOptions { dead_letter: Some(dead_letter), ..QueueOptions::default() }
}

#[test]
fn messages_are_delivered_in_order_and_settled() {
    Player::play(
        traced(),
        "publish a size=3
         publish b confirm -> confirmed 2
         touch             -> 2 ready of 3 bytes, 0 unacked of 0 bytes, 0 consumers
         consume x         -> a to x; b to x
         publish c         -> c to x
         touch             -> 0 ready of 0 bytes, 3 unacked of 3 bytes, 1 consumers
         ack x a c
         ack x a c
         ack y b
         reject x b        -> b dead rejected
         touch             -> 0 ready of 0 bytes, 0 unacked of 0 bytes, 1 consumers",
    );
}

#[test]
fn prefetch_limits_each_consumer_and_not_automatic_acknowledgement() {
    Player::play(
        traced(),
        "consume x prefetch=1
         consume y prefetch=2
         publish a -> a to x
         publish b -> b to y
         publish c -> c to y
         publish d
         publish e
         ack y b   -> d to y
         ack x a   -> e to x
         consume z prefetch=1 no-ack
         publish f -> f to z
         publish g -> g to z
         ack z f g
         touch     -> 0 ready of 0 bytes, 3 unacked of 0 bytes, 3 consumers",
    );
}

#[test]
fn consumers_take_turns_within_a_priority() {
    Player::play(
        traced(),
        "consume x
         consume y
         consume high priority=5 prefetch=1
         publish a  -> a to high
         publish b  -> b to x
         publish c  -> c to y
         publish d  -> d to x
         ack high a
         publish e  -> e to high
         cancel x
         publish f  -> f to y
         publish g  -> g to y
         ack x b d",
    );
}

#[test]
fn requeued_messages_return_to_their_places() {
    Player::play(
        traced(),
        "publish a
         publish b
         publish c
         consume x@1.1 prefetch=2         -> a to x@1.1; b to x@1.1
         cancel x@1.1
         get g@1.2                        -> got c, 0 left
         publish d
         requeue g@1.2 c
         requeue x@1.1 b
         get h@2.1                        -> got b again, 2 left
         requeue x@1.1 a
         channel-down 2.1
         consume y@3.1 no-ack             -> a to y@3.1 again; b to y@3.1 again; c to y@3.1 again; d to y@3.1",
    );
    Player::play(
        traced(),
        "publish a
         consume x prefetch=1 -> a to x
         requeue x a          -> a to x again
         requeue x a          -> a to x again",
    );
}

#[test]
fn closed_channels_and_connections_give_everything_back() {
    Player::play(
        traced(),
        "consume x@1.1
         consume y@1.2
         consume z@2.1
         publish a         -> a to x@1.1
         publish b         -> b to y@1.2
         publish c         -> c to z@2.1
         publish d         -> d to x@1.1
         channel-down 1.1  -> a to y@1.2 again; d to z@2.1 again
         connection-down 1 -> a to z@2.1 again; b to z@2.1 again
         connection-down 7
         ack x@1.1 d
         connection-down 2
         touch             -> 4 ready of 0 bytes, 0 unacked of 0 bytes, 0 consumers
         get g@3.1 no-ack  -> got a again, 3 left",
    );
}

#[test]
fn refused_consumers_wait_for_resume() {
    Player::play(
        traced(),
        "consume x@1.1
         consume y@2.1
         close 1
         publish a  -> a to y@2.1
         publish b  -> b to y@2.1
         close 2
         publish c
         publish d
         ack y@2.1 a b
         open 2     -> c to y@2.1; d to y@2.1
         open 1
         publish e  -> e to y@2.1
         publish f  -> f to x@1.1",
    );
}

#[test]
fn gets_work_beside_consumers() {
    Player::play(
        traced(),
        "get g@1.1        -> empty
         publish a
         publish b
         get g@1.1 no-ack -> got a, 1 left
         consume x@1.2 exclusive prefetch=1 -> b to x@1.2
         publish c
         get g@1.1        -> got c, 0 left
         reject g@1.1 c   -> c dead rejected
         touch            -> 0 ready of 0 bytes, 1 unacked of 0 bytes, 1 consumers",
    );
}

#[test]
fn purge_drops_ready_messages_without_dead_letters() {
    Player::play(
        traced(),
        "consume x prefetch=1
         publish a -> a to x
         publish b
         publish c
         purge     -> purged(2)
         purge     -> purged(0)
         requeue x a -> a to x again",
    );
}

#[test]
fn a_queue_ttl_expires_messages_in_time() {
    Player::play(
        QueueOptions { message_ttl_ms: Some(100), ..traced() },
        "publish a
         at 50
         publish b
         publish c ttl=1000
         publish d ttl=20
         at 69
         at 70  -> d dead expired
         at 100 -> a dead expired
         at 149
         at 150 -> b dead expired; c dead expired",
    );
    Player::play(
        QueueOptions { message_ttl_ms: Some(100), ..QueueOptions::default() },
        "publish a
         at 100
         touch -> 0 ready of 0 bytes, 0 unacked of 0 bytes, 0 consumers",
    );
}

#[test]
fn a_message_expires_wherever_it_is_unless_only_the_head_may() {
    let script = |late: &str, both: &str| {
        format!(
            "publish a ttl=100
             publish b ttl=10
             publish c
             at 10 -> {late}
             at 50
             at 100 -> {both}
             get g no-ack -> got c, 0 left"
        )
    };
    Player::play(traced(), &script("b dead expired", "a dead expired"));
    let head_only = QueueOptions { expire_at_head_only: true, ..traced() };
    Player::play(head_only.clone(), &script("", "a dead expired; b dead expired"));
    Player::play(
        head_only,
        "publish a
         publish b ttl=10
         at 20
         touch      -> 2 ready of 0 bytes, 0 unacked of 0 bytes, 0 consumers
         consume x  -> a to x; b dead expired",
    );
}

#[test]
fn a_ttl_of_zero_delivers_at_once_or_never() {
    for expire_at_head_only in [false, true] {
        Player::play(
            QueueOptions { expire_at_head_only, ..traced() },
            "publish a ttl=0 confirm -> confirmed 1; a dead expired
             consume x prefetch=1
             publish b ttl=0        -> b to x
             publish c ttl=0        -> c dead expired",
        );
    }
    Player::play(
        QueueOptions { message_ttl_ms: Some(0), ..QueueOptions::default() },
        "publish a
         touch -> 0 ready of 0 bytes, 0 unacked of 0 bytes, 0 consumers",
    );
}

#[test]
fn unacknowledged_messages_do_not_expire_but_requeued_ones_do() {
    Player::play(
        traced(),
        "consume x prefetch=2
         publish a ttl=10 -> a to x
         publish b ttl=50 -> b to x
         at 20
         requeue x a b    -> a dead expired; b to x again
         at 60
         touch            -> 0 ready of 0 bytes, 1 unacked of 0 bytes, 1 consumers
         ack x b",
    );
}

#[test]
fn drop_head_keeps_the_newest_messages() {
    Player::play(
        QueueOptions { max_length: Some(2), ..traced() },
        "publish a
         publish b
         publish c confirm -> confirmed 3; a dead maxlen
         consume x@1.1 prefetch=2 -> b to x@1.1; c to x@1.1
         publish d
         publish e
         requeue x@1.1 b          -> b dead maxlen; d to x@1.1
         touch                    -> 1 ready of 0 bytes, 2 unacked of 0 bytes, 1 consumers",
    );
    Player::play(
        QueueOptions { max_length_bytes: Some(10), ..traced() },
        "publish a size=4
         publish b size=4
         publish c size=4  -> a dead maxlen
         publish d size=11 -> b dead maxlen; c dead maxlen; d dead maxlen
         publish e size=10",
    );
    Player::play(
        QueueOptions { max_length: Some(0), ..traced() },
        "publish a -> a dead maxlen
         consume x no-ack
         publish b -> b to x",
    );
}

#[test]
fn reject_publish_refuses_what_does_not_fit() {
    let rejecting = QueueOptions { max_length: Some(1), overflow: Overflow::RejectPublish, ..traced() };
    Player::play(
        rejecting.clone(),
        "publish a confirm -> confirmed 1
         publish b confirm -> rejected 2
         publish c
         consume x prefetch=1 -> a to x
         publish d confirm    -> confirmed 4
         requeue x a          -> a to x again
         get g                -> got d, 0 left
         requeue g d
         channel-down 1.1
         touch -> 2 ready of 0 bytes, 0 unacked of 0 bytes, 0 consumers",
    );
    Player::play(
        QueueOptions { overflow: Overflow::RejectPublishDlx, ..rejecting.clone() },
        "publish a confirm -> confirmed 1
         publish b confirm -> rejected 2; b dead maxlen",
    );
    // Even when a consumer would have taken it.
    Player::play(
        QueueOptions { max_length_bytes: Some(5), ..rejecting },
        "consume x no-ack
         publish a size=6 confirm -> rejected 1
         publish b size=5 confirm -> confirmed 2; b to x",
    );
}

#[test]
fn priorities_are_strict_and_clamped() {
    let options = QueueOptions { max_priority: Some(5), ..traced() };
    Player::play(
        options.clone(),
        "publish a
         publish b priority=5
         publish c priority=3
         publish d priority=200
         consume x prefetch=1 -> b to x
         requeue x b          -> b to x again
         ack x b              -> d to x
         ack x d              -> c to x
         ack x c              -> a to x",
    );
    // What is dropped first is the head, which is the most urgent message.
    Player::play(
        QueueOptions { max_length: Some(2), ..options },
        "publish a
         publish b priority=1
         publish c           -> b dead maxlen
         publish d priority=4 -> d dead maxlen",
    );
    Player::play(
        QueueOptions { max_priority: Some(0), ..traced() },
        "publish a
         publish b priority=1
         publish c priority=2
         consume x no-ack -> b to x; c to x; a to x",
    );
    Player::play(
        traced(),
        "publish a
         publish b priority=9
         consume x no-ack -> a to x; b to x",
    );
}

#[test]
fn exclusive_consumers_are_alone() {
    let refused = "refused(exclusiveuse)";
    Player::play(
        traced(),
        &format!(
            "consume x exclusive
             consume y             -> {refused}
             cancel x
             consume y
             consume z exclusive   -> {refused}
             consume z"
        ),
    );
    Player::play(
        QueueOptions { single_active_consumer: true, ..traced() },
        &format!("consume x exclusive -> {refused}\nconsume y"),
    );
}

#[test]
fn a_single_active_consumer_is_followed_by_the_next() {
    Player::play(
        QueueOptions { single_active_consumer: true, ..traced() },
        "consume x@1.1 prefetch=1
         consume y@2.1
         consume high@3.1 priority=9
         publish a         -> a to x@1.1
         publish b
         ack x@1.1 a       -> b to x@1.1
         publish c
         cancel x@1.1      -> c to high@3.1
         connection-down 3 -> c to y@2.1 again
         connection-down 1 -> b to y@2.1 again",
    );
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let options = QueueOptions { auto_delete: true, ..traced() };
    Player::play(
        options.clone(),
        "publish a
         get g@1.1 -> got a, 0 left
         channel-down 1.1
         consume x@1.1 prefetch=1 -> a to x@1.1 again
         consume y@1.2 prefetch=1
         cancel x@1.1
         cancel x@1.1
         cancel y@1.2 -> gone
         publish b confirm -> confirmed 2
         touch -> notfound
         consume z -> notfound
         get g -> notfound
         purge -> notfound
         ack x@1.1 a
         delete -> deleted(0)",
    );
    Player::play(options, "consume x@1.1\npublish a -> a to x@1.1\nconnection-down 1 -> gone");
}

#[test]
fn an_unused_queue_expires() {
    Player::play(
        QueueOptions { expires_ms: Some(100), ..traced() },
        "publish a
         at 90
         touch -> 1 ready of 0 bytes, 0 unacked of 0 bytes, 0 consumers
         at 180
         get g@1.1 -> got a, 0 left
         at 270
         consume x@1.2
         at 1000
         cancel x@1.2
         at 1099
         publish b
         at 1100 -> gone",
    );
}

#[test]
fn deletion_respects_its_conditions() {
    Player::play(
        traced(),
        "publish a
         publish b
         consume x prefetch=1 -> a to x
         consume y prefetch=1 -> b to y
         publish c
         delete if-empty if-unused -> notempty
         delete if-unused          -> inuse
         delete                    -> deleted(1); x cancelled; y cancelled
         publish d confirm         -> confirmed 4
         channel-down 1.1",
    );
    Player::play(traced(), "delete if-empty if-unused -> deleted(0)");
}

#[test]
fn a_consumer_that_does_not_answer_times_out_once() {
    Player::play(
        QueueOptions { consumer_timeout_ms: Some(100), ..traced() },
        "consume x@1.1
         publish a -> a to x@1.1
         at 60
         publish b -> b to x@1.1
         ack x@1.1 a
         get g@2.1 -> empty
         at 100
         at 160    -> x@1.1 timed out
         at 300
         connection-down 1",
    );
}

#[test]
fn deadlines_are_announced() {
    let options = QueueOptions {
        message_ttl_ms: Some(50),
        expires_ms: Some(1000),
        consumer_timeout_ms: Some(300),
        ..QueueOptions::default()
    };
    let mut fifo = Fifo::new(Arc::new(options), Durability::Transient, Timestamp(0));
    let mut apply = |now: u64, command: Command| {
        fifo.apply(Timestamp(now), command, &mut OpenGate, &mut Vec::new());
        fifo.next_deadline().map(|deadline| deadline.0)
    };
    let publish = || {
        let origin = PublishOrigin::Untracked;
        Command::Enqueue(Publish { message: message("a", 0, 1), expiration_ms: None, origin, deaths: None })
    };
    let holder = consumer("g");
    assert_eq!(apply(0, Command::Tick), Some(1000));
    assert_eq!(apply(10, publish()), Some(60));
    assert_eq!(apply(20, Command::Get { holder, no_ack: false }), Some(320));
    let settle =
        |index| Command::Settle { consumer: holder, indexes: vec![MessageIndex(index)], outcome: SettleOutcome::Ack };
    assert_eq!(apply(30, settle(1)), Some(1020));
    assert_eq!(apply(40, publish()), Some(90));
    assert_eq!(apply(90, Command::Tick), Some(1020));
    assert_eq!(apply(1020, Command::Tick), None);
}

#[test]
fn consumers_are_listed_in_order_of_registration() {
    let options = QueueOptions { single_active_consumer: true, ..QueueOptions::default() };
    let mut fifo = Fifo::new(Arc::new(options), Durability::Transient, Timestamp(0));
    for name in ["x", "y", "z"] {
        let subscription = Subscription {
            consumer: consumer(name),
            tag: tag(name),
            prefetch: 7,
            no_ack: name == "z",
            exclusive: false,
            priority: 3,
            arguments: FieldTable::default(),
        };
        fifo.apply(Timestamp(0), Command::Subscribe(subscription), &mut OpenGate, &mut Vec::new());
    }
    fifo.apply(Timestamp(0), Command::Cancel(consumer("x")), &mut OpenGate, &mut Vec::new());
    let listed: Vec<_> = fifo
        .consumers()
        .into_iter()
        .map(|view| (view.tag.to_string(), view.active, view.no_ack, view.unacked))
        .collect();
    assert_eq!(listed, [("y".to_owned(), true, false, 0), ("z".to_owned(), false, true, 0)]);
    assert_eq!(fifo.active_consumer(), Some(consumer("y")));
}

#[test]
fn the_history_of_deaths_travels_with_the_message() {
    let letter = dead_letter::rewrite(
        &mut Vec::new(),
        &message("a", 0, 1),
        None,
        Reason::Expired,
        &"first".into(),
        &DeadLetterTarget { exchange: "".into(), routing_key: None },
        Timestamp(0),
    );
    for (end, expected) in [("reject", Reason::Rejected), ("expire", Reason::Expired), ("drop", Reason::MaxLength)] {
        let options = QueueOptions { max_length: Some(1), ..traced() };
        let mut fifo = Fifo::new(Arc::new(options), Durability::Transient, Timestamp(0));
        let mut effects = Vec::new();
        let mut apply = |now: u64, command| fifo.apply(Timestamp(now), command, &mut OpenGate, &mut effects);
        let publish = |deaths| {
            let message = letter.message.clone();
            Command::Enqueue(Publish { message, expiration_ms: Some(50), origin: PublishOrigin::Untracked, deaths })
        };
        apply(0, publish(Some(Arc::clone(&letter.deaths))));
        let holder = consumer("g");
        let indexes = vec![MessageIndex(1)];
        apply(1, Command::Get { holder, no_ack: false });
        apply(2, Command::Settle { consumer: holder, indexes: indexes.clone(), outcome: SettleOutcome::Requeue });
        match end {
            "reject" => {
                apply(3, Command::Get { holder, no_ack: false });
                apply(4, Command::Settle { consumer: holder, indexes, outcome: SettleOutcome::Reject });
            }
            "expire" => drop(apply(50, Command::Tick)),
            _ => drop(apply(3, publish(None))),
        }
        let [Effect::DeadLetter { reason, deaths: Some(deaths), .. }] = effects.as_slice() else {
            panic!("{end}: {effects:?}");
        };
        assert_eq!((*reason, deaths), (expected, &letter.deaths));
    }
}

#[test]
fn many_unanswered_deliveries_time_out_at_most_a_sixteenth_late() {
    const TIMEOUT_MS: u64 = 1600;
    let options = QueueOptions { consumer_timeout_ms: Some(TIMEOUT_MS), ..QueueOptions::default() };
    let mut fifo = Fifo::new(Arc::new(options), Durability::Transient, Timestamp(0));
    let mut delivered = HashMap::new();
    for at in 0..3000u64 {
        let origin = PublishOrigin::Untracked;
        let publish = Publish { message: message("a", 0, 1), expiration_ms: None, origin, deaths: None };
        let holder = ConsumerId { serial: u32::try_from(at).unwrap(), ..consumer("g") };
        for command in [Command::Enqueue(publish), Command::Get { holder, no_ack: false }] {
            fifo.apply(Timestamp(at / 2), command, &mut OpenGate, &mut Vec::new());
        }
        delivered.insert(holder, at / 2);
    }
    let mut ticks = 0;
    while !delivered.is_empty() {
        let now = fifo.next_deadline().expect("something is to time out");
        let mut effects = Vec::new();
        fifo.apply(now, Command::Tick, &mut OpenGate, &mut effects);
        for effect in effects {
            let Effect::ConsumerTimeout { consumer } = effect else { panic!("{effect:?}") };
            let due = delivered.remove(&consumer).expect("reported once") + TIMEOUT_MS;
            assert!((due..=due + TIMEOUT_MS / 16).contains(&now.0), "due at {due}, reported at {now:?}");
        }
        ticks += 1;
    }
    assert!(ticks < 50, "{ticks} scans");
    assert_eq!(fifo.next_deadline(), None);
}
