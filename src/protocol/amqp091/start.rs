//! The opening of a connection: protocol headers, server properties, tuning.

use amq_protocol::protocol::{AMQPClass, connection};

use super::AmqpSettings;
use super::codec::METHOD;
use super::method::end_frame;
use crate::model::exception::Exception;
use crate::model::narrow::narrow;
use crate::model::table::{FieldTable, FieldValue};

/// The header a client must open with.
pub(super) const AMQP_0_9_1: [u8; 8] = *b"AMQP\0\0\x09\x01";
/// Before tuning no client needs larger frames.
pub(super) const INITIAL_FRAME_MAX: usize = 8192;
/// The smallest frame_max a client may choose; the protocol's own minimum, which RabbitMQ raised to 8192 in 4.1.
const FRAME_MAX_MIN: u32 = 4096;

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// What to do with the first eight bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Start,
    /// Answer with the header of what is spoken here, and close; the text is for the log.
    Refuse(&'static str),
}

pub(super) fn opening(header: [u8; 8]) -> Opening {
    match &header {
        b"AMQP\0\0\x09\x01" | b"AMQP\x01\x01\0\x09" => Opening::Start,
        b"AMQP\0\x01\0\0" | b"AMQP\x02\x01\0\0" | b"AMQP\x03\x01\0\0" => {
            Opening::Refuse("AMQP 1.0 is not supported: only AMQP 0-9-1 is")
        }
        [b'A', b'M', b'Q', b'P', ..] => Opening::Refuse("protocol version is not supported"),
        [b'G', b'E', b'T', b' ', ..] => Opening::Refuse("HTTP GET request detected on AMQP port"),
        [0x16, 0x03, _, _, _, 0x01, ..] => Opening::Refuse("TLS client detected on non-TLS AMQP port"),
        _ => Opening::Refuse("bad protocol header"),
    }
}

/// Appends the frame of `connection.start`; by hand, since the library would sort the capabilities.
pub(super) fn start(out: &mut Vec<u8>, settings: &AmqpSettings, mechanisms: &[&str]) {
    let capabilities = CAPABILITIES.iter().map(|name| ((*name).into(), FieldValue::Bool(true))).collect();
    let mut properties = FieldTable::default();
    properties.push("capabilities", FieldValue::Table(FieldTable(capabilities)));
    for (key, value) in &settings.server_properties {
        properties.push(key, FieldValue::string(value));
    }
    properties.0.sort_by(|(a, _), (b, _)| a.cmp(b));
    let start = out.len();
    out.extend_from_slice(&[METHOD, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&[0, 10, 0, 10, 0, 9]);
    properties.encode(out);
    for text in [mechanisms.join(" ").as_str(), "en_US"] {
        out.extend_from_slice(&narrow::<_, u32>(text.len(), "the mechanisms are few").to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    end_frame(out, start);
}

pub(super) fn tune(settings: &AmqpSettings) -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Tune(connection::Tune {
        channel_max: settings.channel_max,
        frame_max: settings.frame_max,
        heartbeat: settings.heartbeat,
    }))
}

/// What the client made of the proposal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tuned {
    /// Bytes; 0 is no limit.
    pub(super) frame_max: u32,
    /// 0 is no limit.
    pub(super) channel_max: u16,
    /// Milliseconds; 0 is off.
    pub(super) heartbeat_ms: u64,
}

pub(super) fn tuned(settings: &AmqpSettings, tune_ok: &connection::TuneOk) -> Result<Tuned, Exception> {
    negotiated("frame_max", tune_ok.frame_max, FRAME_MAX_MIN.min(settings.frame_max), settings.frame_max)?;
    negotiated("channel_max", tune_ok.channel_max.into(), 1, settings.channel_max.into())?;
    Ok(Tuned {
        frame_max: tune_ok.frame_max,
        channel_max: tune_ok.channel_max,
        heartbeat_ms: u64::from(tune_ok.heartbeat) * 1000,
    })
}

fn negotiated(field: &str, value: u32, min: u32, max: u32) -> Result<(), Exception> {
    let detail = if value == 0 { " (no limit)" } else { "" };
    if value != 0 && value < min {
        return Err(Exception::not_allowed(format!(
            "negotiated {field} = {value}{detail} is lower than the minimum allowed value ({min})"
        )));
    }
    if max != 0 && (value == 0 || value > max) {
        return Err(Exception::not_allowed(format!(
            "negotiated {field} = {value}{detail} is higher than the maximum allowed value ({max})"
        )));
    }
    Ok(())
}

/// What the client says of itself in `connection.start-ok`.
#[derive(Clone, Debug, Default)]
pub struct ClientProperties {
    /// Told before its socket is closed that a login failed.
    pub authentication_failure_close: bool,
    pub consumer_cancel_notify: bool,
    pub connection_blocked: bool,
    /// The name the application gave the connection.
    pub connection_name: Option<String>,
    pub product: Option<String>,
    pub version: Option<String>,
    pub platform: Option<String>,
    pub information: Option<String>,
}

impl ClientProperties {
    pub(super) fn read(table: &FieldTable) -> Self {
        let capable = |name: &str| match table.find("capabilities") {
            Some(FieldValue::Table(capabilities)) => capabilities.find(name) == Some(&FieldValue::Bool(true)),
            _ => false,
        };
        let text = |name: &str| table.find(name).and_then(FieldValue::as_str).map(str::to_owned);
        Self {
            authentication_failure_close: capable("authentication_failure_close"),
            consumer_cancel_notify: capable("consumer_cancel_notify"),
            connection_blocked: capable("connection.blocked"),
            connection_name: text("connection_name"),
            product: text("product"),
            version: text("version"),
            platform: text("platform"),
            information: text("information"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_headers_of_0_9_and_0_9_1_begin_a_connection() {
        let refused = |header: &[u8; 8]| matches!(opening(*header), Opening::Refuse(_));
        assert_eq!(opening(AMQP_0_9_1), Opening::Start);
        assert_eq!(opening(*b"AMQP\x01\x01\0\x09"), Opening::Start);
        for header in [b"AMQP\0\0\x0a\0", b"AMQP\0\x01\0\0", b"AMQP\x03\x01\0\0", b"GET / HT", b"12345678"] {
            assert!(refused(header), "{header:?}");
        }
        assert!(matches!(opening(*b"AMQP\x03\x01\0\0"), Opening::Refuse(why) if why.contains("1.0")));
    }
}
