//! Situations that went wrong once, or would be easy to get wrong.

use super::super::codec::Output;
use super::{NOW, frame, method, methods, running, short, started, written};
use crate::model::ids::{ChannelRef, ConsumerId, MessageIndex, QueueId};
use crate::model::message::{Envelope, Message, Properties};
use crate::model::names::ConsumerTag;
use crate::model::request::{Answer, Ask, Delivery, Event, Request};

/// Opens a channel; its reference.
fn open(connection: &mut super::Connection, number: u16) -> ChannelRef {
    let mut requests = Vec::new();
    connection.receive(&method(number, (20, 10), &short("")), NOW, &mut requests);
    match requests[..] {
        [Request::OpenChannel(reference)] => reference,
        _ => panic!("{requests:?}"),
    }
}

fn consume(connection: &mut super::Connection, channel: ChannelRef, tag: &str) -> ConsumerId {
    let mut requests = Vec::new();
    let fields = [vec![0, 0], short("q"), short(tag), vec![0], vec![0; 4]].concat();
    connection.receive(&method(channel.number, (60, 20), &fields), NOW, &mut requests);
    let consumer = match &requests[..] {
        [Request::Ask { ask: Ask::Consume(request), .. }] => request.consumer,
        _ => panic!("{requests:?}"),
    };
    connection.handle(Event::Answer { channel, answer: Answer::Done }, NOW, &mut requests);
    consumer
}

/// The client closes the channel, and the broker has carried it out.
fn close(connection: &mut super::Connection, channel: ChannelRef) {
    let mut requests = Vec::new();
    connection.receive(&method(channel.number, (20, 40), &[0, 200, 0, 0, 0, 0, 0]), NOW, &mut requests);
    connection.handle(Event::Answer { channel, answer: Answer::ChannelClosed }, NOW, &mut requests);
}

#[test]
fn a_buffer_that_is_never_empty_does_not_grow() {
    let mut output = Output::default();
    output.append(|out| out.extend_from_slice(&[0; 1000]));
    for _ in 0..10_000 {
        output.append(|out| out.extend_from_slice(&[1; 1000]));
        let mut calls = 0;
        let _ = output.drain(|_| {
            calls += 1;
            if calls == 1 { Ok(1000) } else { Err(()) }
        });
        assert_eq!(output.len(), 1000);
    }
    let capacity = output.tail_capacity();
    assert!(capacity <= 128 * 1024, "{capacity} bytes are held for 1000");
}

#[test]
fn deep_tables_of_methods_that_only_servers_send_are_refused() {
    let mut table = vec![b'V'];
    for _ in 0..1200 {
        let mut outer = vec![0];
        if table[0] != b'V' {
            outer.push(b'F');
            outer.extend_from_slice(&u32::try_from(table.len()).unwrap().to_be_bytes());
        }
        outer.extend_from_slice(&table);
        table = outer;
    }
    let mut fields = vec![0, 9];
    fields.extend_from_slice(&u32::try_from(table.len()).unwrap().to_be_bytes());
    fields.extend_from_slice(&table);
    fields.extend_from_slice(&[0; 8]);
    let mut connection = started();
    connection.receive(&method(0, (10, 10), &fields), NOW, &mut Vec::new());
    let outcome = connection.take_reason();
    assert!(outcome.is_some_and(|reason| reason.contains("nest deeper")));
}

#[test]
fn a_late_cancel_of_an_earlier_channel_leaves_the_new_consumer() {
    let mut connection = running();
    let first = open(&mut connection, 1);
    let old = consume(&mut connection, first, "tag");
    close(&mut connection, first);
    let second = open(&mut connection, 1);
    let new = consume(&mut connection, second, "tag");
    written(&mut connection);
    let mut requests = Vec::new();
    let tag = ConsumerTag::new("tag");
    connection.handle(Event::ConsumerCancelled { consumer: old, tag: tag.clone() }, NOW, &mut requests);
    assert_eq!(methods(&written(&mut connection)), []);
    connection.handle(Event::ConsumerCancelled { consumer: new, tag }, NOW, &mut requests);
    assert_eq!(methods(&written(&mut connection)), [(1, 60, 30)]);
}

#[test]
fn a_delivery_timeout_closes_the_channel_that_holds_it_and_no_other() {
    let mut connection = running();
    let first = open(&mut connection, 1);
    let old = consume(&mut connection, first, "tag");
    close(&mut connection, first);
    let second = open(&mut connection, 1);
    written(&mut connection);
    let mut requests = Vec::new();
    connection.handle(Event::ConsumerTimeout { consumer: old, timeout_ms: 1 }, NOW, &mut requests);
    assert_eq!((methods(&written(&mut connection)), requests.len()), (vec![], 0));
    // Of a get, which is held in the channel's own name.
    let holder = ConsumerId { connection: second.connection, serial: second.serial, channel: 1 };
    connection.handle(Event::ConsumerTimeout { consumer: holder, timeout_ms: 1 }, NOW, &mut requests);
    assert_eq!(methods(&written(&mut connection)), [(1, 20, 40)]);
    // And not again, now that it is closing.
    connection.handle(Event::ConsumerTimeout { consumer: holder, timeout_ms: 1 }, NOW, &mut requests);
    assert_eq!(methods(&written(&mut connection)), []);
    assert!(matches!(requests[..], [Request::CloseChannel(closed)] if closed == second), "{requests:?}");
}

#[test]
fn a_shutdown_while_the_client_closes_still_answers_close_ok() {
    let mut connection = running();
    let mut requests = Vec::new();
    connection.receive(&method(0, (10, 50), &[0, 200, 0, 0, 0, 0, 0]), NOW, &mut requests);
    connection.handle(Event::Shutdown { text: "stopping".into() }, NOW, &mut requests);
    connection.handle(Event::ConnectionClosed, NOW, &mut requests);
    assert_eq!(methods(&written(&mut connection)), [(0, 10, 51)]);
}

#[test]
fn a_requester_that_does_not_read_does_not_fill_the_memory() {
    let mut connection = running();
    let channel = open(&mut connection, 1);
    let consumer = consume(&mut connection, channel, "replies");
    let properties = Properties::parse(&[0, 0]).unwrap();
    let message = Message::new(&mut Vec::new(), Envelope::default(), &properties, &[7; 4000]);
    assert!(connection.wants_input());
    for _ in 0..10_000 {
        let delivery = Delivery {
            consumer,
            index: MessageIndex(0),
            cost: message.cost(),
            redelivered: false,
            message: message.clone(),
        };
        connection.handle(Event::Deliver { queue: QueueId::DIRECT_REPLY, delivery }, NOW, &mut Vec::new());
    }
    assert!(connection.output().len() < 17 * 1024 * 1024);
    assert!(!connection.wants_input(), "answers to more requests would come on top");
    written(&mut connection);
    assert!(connection.wants_input());
}

#[test]
fn a_body_on_channel_zero_and_a_heartbeat_elsewhere_are_refused() {
    for bytes in [frame(3, 0, b"x"), frame(8, 1, &[]), frame(2, 0, &[0; 14])] {
        let mut connection = running();
        connection.receive(&bytes, NOW, &mut Vec::new());
        assert_eq!(methods(&written(&mut connection)), [(0, 10, 50)]);
    }
}
