//! Field tables and properties as JSON, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use crate::model::message::{Message, Properties};
use crate::model::table::{FieldTable, FieldValue};

use super::answer::Failure;

/// A table as a JSON object.
#[must_use]
pub(crate) fn table_to_json(table: &FieldTable) -> Value {
    Value::Object(table.0.iter().map(|(key, value)| (key.to_string(), value_to_json(value))).collect())
}

fn value_to_json(value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(value) => (*value).into(),
        FieldValue::F32(value) => float(f64::from(*value)),
        FieldValue::F64(value) => float(*value),
        FieldValue::Decimal { scale, value } => float(f64::from(*value) / 10f64.powi(i32::from(*scale))),
        FieldValue::LongString(bytes) | FieldValue::Binary(bytes) => text(bytes),
        FieldValue::Array(values) => values.iter().map(value_to_json).collect(),
        FieldValue::Timestamp(seconds) => (*seconds).into(),
        FieldValue::Table(table) => table_to_json(table),
        FieldValue::Void => "undefined".into(),
        integer @ (FieldValue::I8(_)
        | FieldValue::U8(_)
        | FieldValue::I16(_)
        | FieldValue::U16(_)
        | FieldValue::I32(_)
        | FieldValue::U32(_)
        | FieldValue::I64(_)) => integer.as_integer().into(),
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Text, or what stands for bytes that are none.
fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => format!("Not UTF-8, base64 is: {}", STANDARD.encode(bytes)).into(),
    }
}

/// A JSON object as a table. Nulls are refused; the error is RabbitMQ's reason.
pub(crate) fn json_to_table(map: &Map<String, Value>) -> Result<FieldTable, Failure> {
    let mut table = FieldTable::default();
    for (key, value) in map {
        if key.len() > 255 {
            return Err(Failure::bad_request("the name of an argument or header is longer than 255 bytes"));
        }
        table.push(key, json_to_value(value)?);
    }
    Ok(table)
}

fn json_to_value(value: &Value) -> Result<FieldValue, Failure> {
    Ok(match value {
        Value::Null => return Err(Failure::bad_request("null_not_allowed")),
        Value::Bool(value) => FieldValue::Bool(*value),
        Value::String(text) => FieldValue::string(text),
        Value::Array(values) => FieldValue::Array(values.iter().map(json_to_value).collect::<Result<_, _>>()?),
        Value::Object(map) => FieldValue::Table(json_to_table(map)?),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => FieldValue::I64(integer),
            (None, Some(float)) => FieldValue::F64(float),
            (None, None) => return Err(Failure::bad_request("a number is out of range")),
        },
    })
}

/// The properties of a message as JSON; what it does not have is left out.
#[must_use]
pub(crate) fn properties_to_json(message: &Message) -> Value {
    let properties = message.properties();
    let mut map = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    };
    put("cluster_id", properties.cluster_id.map(text));
    put("app_id", properties.app_id.map(text));
    put("user_id", properties.user_id.map(text));
    put("type", properties.kind.map(text));
    put("timestamp", properties.timestamp.map(Value::from));
    put("message_id", properties.message_id.map(text));
    put("expiration", properties.expiration.map(text));
    put("reply_to", properties.reply_to.map(text));
    put("correlation_id", properties.correlation_id.map(text));
    put("priority", properties.priority.map(Value::from));
    put("delivery_mode", properties.delivery_mode.map(Value::from));
    let headers = properties.headers.and_then(|_| properties.header_table().ok());
    put("headers", headers.as_ref().map(table_to_json));
    put("content_encoding", properties.content_encoding.map(text));
    put("content_type", properties.content_type.map(text));
    Value::Object(map)
}

/// The bytes of properties that a JSON object names; others than basic properties are ignored.
pub(crate) fn json_to_properties(map: &Map<String, Value>) -> Result<Vec<u8>, Failure> {
    let short = |name: &'static str| match map.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= 255 => Ok(Some(text.as_bytes())),
        Some(_) => Err(bad(name, "not_string")),
    };
    let number = |name: &'static str, max: u64| match map.get(name) {
        None => Ok(None),
        Some(value) => value.as_u64().filter(|number| *number <= max).map(Some).ok_or_else(|| bad(name, "not_int")),
    };
    let octet = |name| Ok(number(name, 255)?.and_then(|number| u8::try_from(number).ok()));
    let mut headers = None;
    if let Some(value) = map.get("headers") {
        let table = match value {
            Value::Object(map) => json_to_table(map)?,
            Value::Array(list) if list.is_empty() => FieldTable::default(),
            _ => return Err(bad("headers", "not_table")),
        };
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        headers = Some(encoded);
    }
    let properties = Properties {
        content_type: short("content_type")?,
        content_encoding: short("content_encoding")?,
        // Without the length in front.
        headers: headers.as_ref().and_then(|table| table.get(4..)),
        delivery_mode: octet("delivery_mode")?,
        priority: octet("priority")?,
        correlation_id: short("correlation_id")?,
        reply_to: short("reply_to")?,
        expiration: short("expiration")?,
        message_id: short("message_id")?,
        timestamp: number("timestamp", u64::MAX)?,
        kind: short("type")?,
        user_id: short("user_id")?,
        app_id: short("app_id")?,
        cluster_id: short("cluster_id")?,
        ..Properties::default()
    };
    let mut encoded = Vec::new();
    properties.encode(&mut encoded);
    Ok(encoded)
}

fn bad(name: &str, what: &str) -> Failure {
    Failure::bad_request(Value::Array(vec![what.into(), name.into()]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::message::Envelope;

    #[test]
    fn properties_come_back_as_they_were() {
        let json = json!({
            "cluster_id": "cl", "app_id": "app", "user_id": "guest", "type": "t", "timestamp": 1_700_000_000,
            "message_id": "m", "expiration": "600000", "reply_to": "r", "correlation_id": "c", "priority": 4,
            "delivery_mode": 2, "headers": {"b": true, "f": 1.5, "i": 1, "l": [1, "a"], "s": "x", "t": {"k": "v"}},
            "content_encoding": "utf-8", "content_type": "application/json"
        });
        let raw = json_to_properties(json.as_object().unwrap()).unwrap();
        let properties = Properties::parse(&raw).unwrap();
        let envelope = Envelope { exchange: b"", routing_key: b"q" };
        let message = Message::new(&mut Vec::new(), envelope, &properties, b"body");
        assert_eq!(properties_to_json(&message), json);
    }

    #[test]
    fn what_is_no_property_is_named() {
        for bad in
            [json!({"delivery_mode": "two"}), json!({"priority": 256}), json!({"type": 1}), json!({"headers": [1]})]
        {
            assert!(json_to_properties(bad.as_object().unwrap()).is_err(), "{bad}");
        }
        assert!(json_to_properties(json!({"headers": {"n": null}}).as_object().unwrap()).is_err());
        assert!(json_to_properties(json!({"headers": [], "unknown": 1}).as_object().unwrap()).is_ok());
    }

    #[test]
    fn bytes_and_times_are_shown() {
        let table = FieldTable(vec![
            ("time".into(), FieldValue::Timestamp(7)),
            ("bytes".into(), FieldValue::Binary(vec![0, 1, 199].into())),
            ("decimal".into(), FieldValue::Decimal { scale: 1, value: 15 }),
        ]);
        let expected = json!({"time": 7, "bytes": "Not UTF-8, base64 is: AAHH", "decimal": 1.5});
        assert_eq!(table_to_json(&table), expected);
    }
}
