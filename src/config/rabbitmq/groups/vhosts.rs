//! What new virtual hosts get: `default_policies.operator.NAME.*` and `default_limits.vhosts.NAME.*`.

use super::super::super::raw::{Raw, RawEntry, RawValue};
use super::super::Translator;
use super::super::conf::Line;
use super::super::value::{binary_size, milliseconds};

pub(super) fn translate(translator: &mut Translator<'_>) {
    policies(translator);
    limits(translator);
}

fn policies(translator: &mut Translator<'_>) {
    let place = "default_policies.operator";
    let conf = translator.conf;
    let mut policies = Vec::new();
    for name in conf.names_under(place) {
        if let Some(value) = table(translator, &conf.under(&format!("{place}.{name}"))) {
            policies.push(RawEntry { name, origin: value.origin.clone(), value });
        }
    }
    if let Some(origin) = policies.first().map(|entry| entry.origin.clone()) {
        translator.set("defaults.operator_policies", origin, RawValue::Table(policies));
    }
}

fn limits(translator: &mut Translator<'_>) {
    let place = "default_limits.vhosts";
    let conf = translator.conf;
    let mut limits = Vec::new();
    for name in conf.names_under(place) {
        limits.extend(table(translator, &conf.under(&format!("{place}.{name}"))));
    }
    if let Some(origin) = limits.first().map(|limits| limits.origin.clone()) {
        translator.set("defaults.vhost_limits", origin, RawValue::List(limits));
    }
}

/// The lines of one name as a table; its place is that of the first. None where there is none, or one cannot be read.
fn table(translator: &mut Translator<'_>, lines: &[&Line]) -> Option<Raw> {
    let origin = lines.first()?.origin.clone();
    let mut entries = Vec::new();
    let mut is_whole = true;
    for line in lines {
        let Some(text) = translator.text(line) else { continue };
        let field = line.part(3).to_owned();
        let value = match field.as_str() {
            "expires" | "message_ttl" => milliseconds(&text).map(|ms| RawValue::Text(format!("{ms}ms"))),
            "max_length_bytes" | "max_in_memory_bytes" => {
                binary_size(&text).map(|bytes| RawValue::Text(format!("{bytes}B")))
            }
            "max_length" | "max_in_memory_length" | "delivery_limit" | "max_connections" | "max_queues" => {
                text.parse().map(RawValue::Integer).map_err(|_| "expected a whole number".to_owned())
            }
            _ => Ok(RawValue::Text(text)),
        };
        match value {
            Ok(value) => entries.push(RawEntry {
                name: field,
                origin: line.origin.clone(),
                value: Raw { origin: line.origin.clone(), value },
            }),
            Err(expected) => {
                translator.unreadable(line, &expected);
                is_whole = false;
            }
        }
    }
    is_whole.then_some(Raw { origin, value: RawValue::Table(entries) })
}
