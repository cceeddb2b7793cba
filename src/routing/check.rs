//! What a binding or an exchange's arguments must look like, with RabbitMQ's texts.

use super::hash::WEIGHT_MAX;
use crate::model::entity::{Binding, ExchangeKind, render};
use crate::model::table::{FieldTable, FieldValue};

/// Checks a binding to an exchange of `kind`. The text is that of a 406 channel exception.
pub fn check_binding(kind: ExchangeKind, binding: &Binding) -> Result<(), String> {
    match kind {
        ExchangeKind::Headers => check_match(&binding.arguments),
        ExchangeKind::ConsistentHash => check_weight(binding.key.as_bytes()),
        ExchangeKind::Direct
        | ExchangeKind::Fanout
        | ExchangeKind::Topic
        | ExchangeKind::ModulusHash
        | ExchangeKind::Random
        | ExchangeKind::LocalRandom
        | ExchangeKind::RecentHistory => Ok(()),
    }
}

/// Checks the arguments of an exchange of `kind` that is declared. The text is that of a 406 channel exception.
pub fn check_exchange_arguments(kind: ExchangeKind, arguments: &FieldTable) -> Result<(), String> {
    if kind != ExchangeKind::ConsistentHash {
        return Ok(());
    }
    let header = arguments.find("hash-header").or_else(|| arguments.find("x-hash-on"));
    match (header, arguments.find("hash-property")) {
        (Some(_), Some(_)) => Err("hash-header and hash-property are mutually exclusive".to_owned()),
        (_, Some(property)) => match property.as_str() {
            Some("correlation_id" | "message_id" | "timestamp") => Ok(()),
            _ => Err(format!("Unsupported property: {}", render(property))),
        },
        _ => Ok(()),
    }
}

fn check_match(arguments: &FieldTable) -> Result<(), String> {
    match arguments.find("x-match") {
        None => Ok(()),
        Some(FieldValue::LongString(text)) => match &**text {
            b"all" | b"any" | b"all-with-x" | b"any-with-x" => Ok(()),
            other => Err(format!(
                "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
                erlang_binary(other)
            )),
        },
        Some(other) => {
            Err(format!("Invalid x-match field type {} (value {}); expected longstr", other.type_name(), render(other)))
        }
    }
}

fn check_weight(key: &[u8]) -> Result<(), String> {
    let Some(weight) = std::str::from_utf8(key).ok().and_then(|key| key.parse::<i128>().ok()) else {
        return Err(format!("The binding key must be an integer: {}", erlang_binary(key)));
    };
    if weight < 1 {
        return Err("The binding key must be greater than 0".to_owned());
    }
    if weight > i128::from(WEIGHT_MAX) {
        return Err(format!("The binding key must not exceed {WEIGHT_MAX}"));
    }
    Ok(())
}

/// A binary as Erlang prints it.
fn erlang_binary(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "<<>>".to_owned();
    }
    format!("<<\"{}\">>", String::from_utf8_lossy(bytes))
}
