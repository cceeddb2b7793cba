//! Bytes in and out: splits of the input and partial writes change nothing.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::codec::Output;
use super::super::content::{self, PayloadMax};
use super::{NOW, frame, method, methods, running, short, written};
use crate::model::message::{Body, Envelope, INLINE_BODY_MAX, Message, Properties};
use crate::model::request::{Answer, Event, Request};

/// What a client may send on a channel that is open.
fn client_frames() -> impl Strategy<Value = Vec<u8>> {
    let channel = 1u16..4;
    prop_oneof![
        4 => (channel.clone(), vec(any::<u8>(), 0..3000), 1usize..1500, any::<bool>()).prop_map(
            |(channel, body, piece, empty_between)| publish(channel, &body, piece, empty_between)
        ),
        1 => Just(frame(8, 0, &[])),
        1 => channel.clone().prop_map(|channel| method(channel, (20, 10), &short(""))),
        1 => channel.clone().prop_map(|channel| method(channel, (20, 40), &[0, 200, 0, 0, 0, 0, 0])),
        1 => channel.clone().prop_map(|channel| method(channel, (85, 10), &[0])),
        1 => (channel.clone(), 0u16..9).prop_map(|(channel, count)| {
            method(channel, (60, 10), &[&[0; 4][..], &count.to_be_bytes(), &[0]].concat())
        }),
        1 => (channel.clone(), "[a-z]{0,9}").prop_map(|(channel, queue)| {
            method(channel, (50, 10), &[vec![0, 0], short(&queue), vec![2], vec![0; 4]].concat())
        }),
        1 => (channel, "[a-z]{0,9}").prop_map(|(channel, tag)| {
            method(channel, (60, 20), &[vec![0, 0], short("q"), short(&tag), vec![0], vec![0; 4]].concat())
        }),
        // Anything at all as a method: most are errors.
        1 => (0u16..4, vec(any::<u8>(), 0..40)).prop_map(|(channel, payload)| frame(1, channel, &payload)),
    ]
}

fn publish(channel: u16, body: &[u8], piece: usize, empty_between: bool) -> Vec<u8> {
    let mut out = method(channel, (60, 40), &[vec![0, 0], short("x"), short("key"), vec![1]].concat());
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    header.extend_from_slice(&[0x10, 0, 2]);
    out.extend(frame(2, channel, &header));
    for part in body.chunks(piece) {
        if empty_between {
            out.extend(frame(3, channel, &[]));
        }
        out.extend(frame(3, channel, part));
    }
    out
}

/// What the requests were, as text, and what was written; every ask is answered at once.
fn outcome<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (String, Vec<u8>) {
    let mut connection = running();
    let mut requests = Vec::new();
    for channel in 1..4 {
        connection.receive(&method(channel, (20, 10), &short("")), NOW, &mut requests);
    }
    for piece in pieces {
        connection.receive(piece, NOW, &mut requests);
    }
    // Answers come when everything was read, so that they do not depend on the pieces.
    let mut text = String::new();
    while !requests.is_empty() {
        for request in std::mem::take(&mut requests) {
            text.push_str(&format!("{request:?}\n"));
            if let Some((channel, answer)) = answer_to(&request) {
                connection.handle(Event::Answer { channel, answer }, NOW, &mut requests);
            }
        }
    }
    (text, written(&mut connection))
}

/// The bodies of the publishes among what a peer sends, when so many requests are handled at a time, in between those of
/// which nothing is handled; and how many there were at most at a time.
fn published_in_steps(bytes: &[u8], requests_max: usize) -> (Vec<Vec<u8>>, usize) {
    let mut connection = running();
    connection.set_requests_max(requests_max);
    let (mut bodies, mut most) = (Vec::new(), 0);
    let mut requests = Vec::new();
    let rest = connection.receive(bytes, NOW, &mut requests);
    connection.keep_input(rest);
    loop {
        most = most.max(requests.len());
        for request in std::mem::take(&mut requests) {
            if let Some((channel, answer)) = answer_to(&request) {
                connection.handle(Event::Answer { channel, answer }, NOW, &mut requests);
            }
            if let Request::Publish(publish) = request {
                let Body::Inline(body) = publish.message.body() else { panic!("bodies are small") };
                bodies.push(body.to_vec());
            }
        }
        if requests.is_empty() {
            if !connection.can_go_on() {
                return (bodies, most);
            }
            let input = connection.go_on(NOW, &mut requests);
            let rest = connection.receive(&input, NOW, &mut requests);
            connection.keep_input(rest);
        }
    }
}

#[test]
fn input_waits_where_it_is_until_requests_are_handled() {
    let open = method(1, (20, 10), &short(""));
    let declare = method(1, (50, 10), &[vec![0, 0], short("q"), vec![2], vec![0; 4]].concat());
    let publishes = |from: u8, to: u8| (from..to).flat_map(|body| publish(1, &[body], 100, false)).collect();
    let bytes: Vec<u8> = [open, publishes(0, 50), declare, publishes(50, 200)].concat();
    let expected: Vec<Vec<u8>> = (0..200).map(|body| vec![body]).collect();
    for requests_max in [1, 3, 32, usize::MAX] {
        let (bodies, most) = published_in_steps(&bytes, requests_max);
        assert!(bodies == expected, "{requests_max}: all of them, in order");
        assert!(most <= requests_max, "{most} requests at a time");
    }
}

fn answer_to(request: &Request) -> Option<(crate::model::ids::ChannelRef, Answer)> {
    use crate::model::request::Ask;
    match request {
        Request::CloseChannel(channel) => Some((*channel, Answer::ChannelClosed)),
        Request::Ask { channel, ask: Ask::DeclareQueue(declare) } => {
            Some((*channel, Answer::QueueDeclared { queue: declare.queue.clone(), ready: 1, consumers: 2 }))
        }
        Request::Ask { channel, .. } => Some((*channel, Answer::Done)),
        _ => None,
    }
}

fn split<'a>(bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, tail) = rest.split_at((*size).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn splits_of_the_input_change_nothing(
        frames in vec(client_frames(), 0..25),
        sizes in vec(prop_oneof![1usize..12, 1usize..900], 1..40),
    ) {
        let bytes = frames.concat();
        let whole = outcome([&bytes[..]].into_iter());
        let pieces = split(&bytes, &sizes);
        prop_assert_eq!(outcome(pieces.into_iter()), whole);
    }

    #[test]
    fn no_bytes_panic(frames in vec(client_frames(), 0..8), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = frames.concat();
        if !bytes.is_empty() {
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let (_, out) = outcome([&bytes[..]].into_iter());
        methods(&out);
    }

    #[test]
    fn output_is_written_once_and_in_order(
        steps in vec((any::<u8>(), prop_oneof![0usize..300, 4000usize..9000], any::<bool>(), 0usize..9000), 1..60),
    ) {
        let mut output = Output::default();
        let (mut expected, mut taken) = (Vec::new(), Vec::new());
        for (byte, length, shared, room) in steps {
            let bytes = vec![byte; length];
            expected.extend_from_slice(&bytes);
            if shared {
                output.append_shared(&Bytes::from(bytes));
            } else {
                output.append(|out| out.extend_from_slice(&bytes));
            }
            take(&mut output, room, &mut taken);
            prop_assert_eq!(output.len(), expected.len() - taken.len());
        }
        take(&mut output, usize::MAX, &mut taken);
        prop_assert!(output.is_empty());
        prop_assert!(taken == expected);
    }

    #[test]
    fn content_is_cut_into_frames_that_add_up(
        inline in any::<bool>(),
        parts in vec(1usize..5000, 1..5),
        limit in 1usize..6000,
        priority in any::<u8>(),
    ) {
        let body: Vec<u8> = (0..parts.iter().sum()).map(|at: usize| (at % 251) as u8).collect();
        let raw = [0x08, 0, priority];
        let properties = Properties::parse(&raw).unwrap();
        let envelope = Envelope { exchange: b"x", routing_key: b"key" };
        let message = if inline && body.len() <= INLINE_BODY_MAX {
            Message::new(&mut Vec::new(), envelope, &properties, &body)
        } else {
            let mut rest = Bytes::from(body.clone());
            let slices = parts.iter().map(|length| rest.split_to(*length)).collect();
            Message::with_slices(&mut Vec::new(), envelope, &properties, slices)
        };
        let mut output = Output::default();
        let prefix = content::deliver_prefix(7, "tag");
        content::deliver(&mut output, (7, &prefix), (9, true), &message, PayloadMax(limit));
        let mut bytes = Vec::new();
        take(&mut output, usize::MAX, &mut bytes);
        let (mut rest, mut kinds, mut payloads) = (&bytes[..], Vec::new(), Vec::new());
        while !rest.is_empty() {
            let size = u32::from_be_bytes([rest[3], rest[4], rest[5], rest[6]]) as usize;
            prop_assert_eq!((&rest[1..3], rest[7 + size]), (&[0, 7][..], 0xCE));
            kinds.push(rest[0]);
            payloads.push(&rest[7..7 + size]);
            rest = &rest[size + 8..];
        }
        prop_assert!(kinds.starts_with(&[1, 2]) && kinds[2..].iter().all(|kind| *kind == 3));
        prop_assert!(payloads[2..].iter().all(|piece| !piece.is_empty() && piece.len() <= limit));
        prop_assert_eq!(&payloads[1][4..12], &(body.len() as u64).to_be_bytes()[..]);
        prop_assert_eq!(&payloads[1][12..], &raw[..]);
        prop_assert!(payloads[2..].concat() == body);
    }
}

/// Lets the output write `room` bytes, in writes of odd sizes.
fn take(output: &mut Output, mut room: usize, taken: &mut Vec<u8>) {
    let _ = output.drain(|slices| {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut now = room.min(offered).min(1 + taken.len() % 7001);
        if now == 0 {
            return Err(());
        }
        room -= now;
        let count = now;
        for slice in slices {
            let part = now.min(slice.len());
            taken.extend_from_slice(&slice[..part]);
            now -= part;
        }
        Ok(count)
    });
}
