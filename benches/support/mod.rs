//! What the benchmarks of the protocol and of the broker share: a client's bytes.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part")]

use std::time::{Duration, Instant};

use warren::protocol::amqp091::AmqpSettings;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// The queue's name.
pub const QUEUE: &str = "bench";

/// For how long each case runs; with `--test` it runs once.
pub fn budget() -> Duration {
    let smoke = std::env::args().any(|argument| argument == "--test");
    if smoke { Duration::ZERO } else { Duration::from_secs(1) }
}

/// Calls `step`, which handles `messages`, for the time of the budget, and prints the time per message.
pub fn measure(name: &str, messages: usize, mut step: impl FnMut()) {
    let budget = budget();
    // Buffers grow and caches fill before the clock starts.
    (0..if budget.is_zero() { 0 } else { 20 }).for_each(|_| step());
    let start = Instant::now();
    let mut steps = 0;
    while steps == 0 || start.elapsed() < budget {
        step();
        steps += 1;
    }
    println!("{:8.1} ns/message  {name}", start.elapsed().as_nanos() as f64 / (steps * messages) as f64);
}

pub fn settings() -> AmqpSettings {
    AmqpSettings {
        frame_max: 131_072,
        channel_max: 2047,
        heartbeat: 0,
        max_message_size: 16 * 1024 * 1024,
        handshake_timeout_ms: 10_000,
        mechanisms: vec!["PLAIN".to_owned()],
        server_properties: Vec::new(),
        consumers_per_channel_max: 0,
        default_prefetch: 0,
        global_qos: true,
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).expect("a frame is small").to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xCE);
}

fn method(out: &mut Vec<u8>, channel: u16, class: u16, number: u16, arguments: &[&[u8]]) {
    let mut payload = [class.to_be_bytes(), number.to_be_bytes()].concat();
    payload.extend(arguments.concat());
    frame(out, METHOD, channel, &payload);
}

fn short(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).expect("a short string is short")];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// From the protocol header to a channel that is open.
pub fn handshake() -> Vec<u8> {
    let mut out = b"AMQP\0\0\x09\x01".to_vec();
    let response = b"\0guest\0guest";
    let length = u32::try_from(response.len()).expect("a login is small").to_be_bytes();
    method(&mut out, 0, 10, 11, &[&[0; 4], &short("PLAIN"), &length, response, &short("en_US")]);
    method(&mut out, 0, 10, 31, &[&2047u16.to_be_bytes(), &131_072u32.to_be_bytes(), &[0, 0]]);
    method(&mut out, 0, 10, 40, &[&short("/"), &[0, 0]]);
    method(&mut out, 1, 20, 10, &[&[0]]);
    out
}

pub fn declare_queue() -> Vec<u8> {
    let mut out = Vec::new();
    method(&mut out, 1, 50, 10, &[&[0, 0], &short(QUEUE), &[0], &[0; 4]]);
    out
}

/// A consumer with automatic acknowledgement.
pub fn consume() -> Vec<u8> {
    let mut out = Vec::new();
    method(&mut out, 1, 60, 20, &[&[0, 0], &short(QUEUE), &short("tag"), &[2], &[0; 4]]);
    out
}

pub fn select_confirms() -> Vec<u8> {
    let mut out = Vec::new();
    method(&mut out, 1, 85, 10, &[&[0]]);
    out
}

/// Transient messages to the queue by way of the default exchange.
pub fn publishes(count: usize, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let header = [[0, 60, 0, 0].as_slice(), &(size as u64).to_be_bytes(), &[0x10, 0, 1]].concat();
    for _ in 0..count {
        method(&mut out, 1, 60, 40, &[&[0, 0], &short(""), &short(QUEUE), &[0]]);
        frame(&mut out, HEADER, 1, &header);
        frame(&mut out, BODY, 1, &vec![b'.'; size]);
    }
    out
}
