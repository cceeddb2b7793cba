//! Properties of the protocol machine that hold for any traffic.

mod machines;
mod regressions;
mod stream;

use std::sync::Arc;

use super::{AmqpSettings, Connection};
use crate::model::ids::{ConnectionId, Timestamp};
use crate::model::request::{Event, Request};

const NOW: Timestamp = Timestamp(1_000_000);

fn settings() -> AmqpSettings {
    AmqpSettings {
        frame_max: 131_072,
        channel_max: 2047,
        heartbeat: 60,
        max_message_size: 1024 * 1024,
        handshake_timeout_ms: 10_000,
        mechanisms: vec!["PLAIN".into()],
        server_properties: Vec::new(),
        consumers_per_channel_max: 0,
        default_prefetch: 0,
        global_qos: true,
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xCE);
    out
}

fn method(channel: u16, ids: (u16, u16), fields: &[u8]) -> Vec<u8> {
    let mut payload = ids.0.to_be_bytes().to_vec();
    payload.extend_from_slice(&ids.1.to_be_bytes());
    payload.extend_from_slice(fields);
    frame(1, channel, &payload)
}

fn short(text: &str) -> Vec<u8> {
    let mut out = vec![u8::try_from(text.len()).unwrap()];
    out.extend_from_slice(text.as_bytes());
    out
}

/// A connection with the header read, in which nobody has logged in.
fn started() -> Connection {
    let mut connection = Connection::new(Arc::new(settings()), ConnectionId(1), 1, NOW);
    connection.receive(b"AMQP\0\0\x09\x01", NOW, &mut Vec::new());
    connection
}

/// A connection that is open, with a client that can do everything, and nothing to write.
fn running() -> Connection {
    let mut connection = started();
    let requests = &mut Vec::new();
    let capability = |name: &str| [short(name), vec![b't', 1]].concat();
    let capabilities = [capability("consumer_cancel_notify"), capability("connection.blocked")].concat();
    let mut table = short("capabilities");
    table.push(b'F');
    table.extend_from_slice(&u32::try_from(capabilities.len()).unwrap().to_be_bytes());
    table.extend_from_slice(&capabilities);
    let mut fields = u32::try_from(table.len()).unwrap().to_be_bytes().to_vec();
    fields.extend_from_slice(&table);
    fields.extend_from_slice(&short("PLAIN"));
    let response = b"\0guest\0guest";
    fields.extend_from_slice(&u32::try_from(response.len()).unwrap().to_be_bytes());
    fields.extend_from_slice(response);
    fields.extend_from_slice(&short("en_US"));
    connection.receive(&method(0, (10, 11), &fields), NOW, requests);
    connection.handle(Event::LoggedIn, NOW, requests);
    let tune = [&2047u16.to_be_bytes()[..], &131_072u32.to_be_bytes(), &60u16.to_be_bytes()].concat();
    connection.receive(&method(0, (10, 31), &tune), NOW, requests);
    connection.receive(&method(0, (10, 40), &[short("/"), vec![0, 0]].concat()), NOW, requests);
    connection.handle(Event::VhostOpened, NOW, requests);
    assert!(matches!(requests[..], [Request::Login { .. }, Request::OpenVhost(_)]), "{requests:?}");
    written(&mut connection);
    connection
}

/// All that waits to be written.
fn written(connection: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    let drained: Result<(), ()> = connection.output().drain(|slices| {
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        Ok(slices.iter().map(|slice| slice.len()).sum())
    });
    drained.unwrap();
    bytes
}

/// Class and method of each method frame in `bytes`, with its channel.
fn methods(mut bytes: &[u8]) -> Vec<(u16, u16, u16)> {
    let number = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]) as usize;
        if bytes[0] == 1 {
            found.push((number(bytes, 1), number(bytes, 7), number(bytes, 9)));
        }
        bytes = &bytes[size + 8..];
    }
    found
}
