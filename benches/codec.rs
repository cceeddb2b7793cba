//! Nanoseconds per message through the protocol machine, without a broker behind it: `cargo bench --bench codec`. With
//! `-- --test` every case runs once.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use warren::model::ids::{ConnectionId, ConsumerId, MessageIndex, QueueId, Timestamp};
use warren::model::message::Message;
use warren::model::request::{Answer, Ask, Delivery, Event, Request};
use warren::protocol::amqp091::Connection;

const NOW: Timestamp = Timestamp(1_000_000);
/// Messages handled at once, as one read of the socket has them.
const BATCH: usize = 500;

fn main() {
    for size in [16, 1024, 16 * 1024] {
        receive(size, support::publishes(BATCH, size).len());
    }
    // As small reads cut it: most frames are whole, some are not.
    receive(16, 4093);
    receive(1024, 4093);
    for size in [16, 1024, 16 * 1024] {
        deliver(size);
    }
}

/// Splits frames and makes publish requests of them.
fn receive(size: usize, piece: usize) {
    let mut peer = Peer::open();
    let bytes = support::publishes(BATCH, size);
    support::measure(&format!("publish of {size} B, {piece} B at a time"), BATCH, || {
        for piece in bytes.chunks(piece) {
            peer.connection.receive(piece, NOW, &mut peer.requests);
        }
        assert_eq!(peer.requests.len(), BATCH, "every publish is a request");
        black_box(&peer.requests);
        peer.requests.clear();
    });
}

/// Encodes deliveries to a consumer with automatic acknowledgement.
fn deliver(size: usize) {
    let mut peer = Peer::open();
    let consumer = peer.consume();
    let messages = peer.messages(size);
    let mut index = 0;
    support::measure(&format!("delivery of {size} B"), BATCH, || {
        for message in &messages {
            index += 1;
            let message = message.clone();
            let (cost, queue) = (message.cost(), QueueId(1));
            let delivery = Delivery { consumer, index: MessageIndex(index), cost, redelivered: false, message };
            peer.connection.handle(Event::Deliver { queue, delivery }, NOW, &mut peer.requests);
        }
        assert!(peer.connection.output().len() > BATCH * size, "every delivery is written");
        drain(&mut peer.connection);
        peer.connection.return_credit(1, &mut peer.requests);
        peer.requests.clear();
    });
}

fn drain(connection: &mut Connection) {
    let written = |slices: &[std::io::IoSlice<'_>]| Ok::<_, Infallible>(slices.iter().map(|slice| slice.len()).sum());
    let Ok(()) = connection.output().drain(written);
}

/// A connection with an open channel whose broker agrees to everything.
struct Peer {
    connection: Connection,
    requests: Vec<Request>,
}

impl Peer {
    fn open() -> Self {
        let connection = Connection::new(Arc::new(support::settings()), ConnectionId(1), 1, NOW);
        let mut peer = Self { connection, requests: Vec::new() };
        peer.say(&support::handshake());
        peer
    }

    /// Sends bytes and answers what is asked; the consumer, if one was asked for.
    fn say(&mut self, bytes: &[u8]) -> Option<ConsumerId> {
        let mut consumer = None;
        self.connection.receive(bytes, NOW, &mut self.requests);
        while !self.requests.is_empty() {
            for request in std::mem::take(&mut self.requests) {
                let event = match request {
                    Request::Login { .. } => Event::LoggedIn,
                    Request::OpenVhost(_) => Event::VhostOpened,
                    Request::Ask { channel, ask } => {
                        if let Ask::Consume(consume) = ask {
                            consumer = Some(consume.consumer);
                        }
                        Event::Answer { channel, answer: Answer::Done }
                    }
                    _ => continue,
                };
                self.connection.handle(event, NOW, &mut self.requests);
            }
        }
        drain(&mut self.connection);
        consumer
    }

    fn consume(&mut self) -> ConsumerId {
        self.say(&support::consume()).expect("a consumer was asked for")
    }

    fn messages(&mut self, size: usize) -> Vec<Message> {
        self.connection.receive(&support::publishes(BATCH, size), NOW, &mut self.requests);
        let requests = self.requests.drain(..);
        requests
            .filter_map(|request| if let Request::Publish(publish) = request { Some(publish.message) } else { None })
            .collect()
    }
}
