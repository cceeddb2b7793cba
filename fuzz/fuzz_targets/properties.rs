//! Content header properties from arbitrary bytes: reading never panics, and what was read can be written, read again
//! and carried by a message without a change.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren::model::message::{Envelope, Message, Properties};

fuzz_target!(|data: &[u8]| {
    let Ok(properties) = Properties::parse(data) else {
        return;
    };
    let mut written = Vec::new();
    properties.encode(&mut written);
    assert_eq!(written, data);
    let _ = properties.header_table();

    let envelope = Envelope { exchange: b"exchange", routing_key: b"key" };
    let message = Message::new(&mut Vec::new(), envelope, &properties, b"body");
    assert_eq!(message.raw_properties(), data);
    assert_eq!((message.exchange(), message.routing_key()), (envelope.exchange, envelope.routing_key));
    assert_eq!(message.priority(), properties.priority.unwrap_or(0));
    assert_eq!(message.is_persistent(), properties.delivery_mode == Some(2));
    assert_eq!(message.body_length(), 4);
});
