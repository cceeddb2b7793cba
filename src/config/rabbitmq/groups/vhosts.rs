//! What new virtual hosts get: `default_policies.operator.NAME.*`, `default_limits.vhosts.NAME.*`, `default_users.NAME.*`.

use super::super::super::raw::{Raw, RawEntry, RawValue};
use super::super::Translator;
use super::super::conf::{Line, escaped};
use super::super::keys::meaning;
use super::super::value::{binary_size, milliseconds};

pub(super) fn translate(translator: &mut Translator<'_>) {
    tables(translator, "default_policies.operator", "defaults.operator_policies");
    limits(translator);
    tables(translator, "default_users", "defaults.users");
}

/// The names right below a key, each with its lines as a table.
fn tables(translator: &mut Translator<'_>, place: &str, path: &'static str) {
    let conf = translator.conf;
    let mut tables = Vec::new();
    for name in conf.names_under(place) {
        let mut lines = conf.under(&format!("{place}.{}", escaped(&name)));
        // One that is no key at all is told by itself.
        lines.retain(|line| meaning(&line.parts).is_some());
        if let Some(value) = table(translator, &lines) {
            tables.push(RawEntry { name, origin: value.origin.clone(), value });
        }
    }
    if let Some(origin) = tables.first().map(|entry| entry.origin.clone()) {
        translator.set(path, origin, RawValue::Table(tables));
    }
}

fn limits(translator: &mut Translator<'_>) {
    let place = "default_limits.vhosts";
    let conf = translator.conf;
    let mut limits = Vec::new();
    for name in conf.names_under(place) {
        limits.extend(table(translator, &conf.under(&format!("{place}.{}", escaped(&name)))));
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
        let field = line.last().to_owned();
        let value = match field.as_str() {
            "expires" | "message_ttl" => milliseconds(&text).map(|ms| RawValue::Text(format!("{ms}ms"))),
            "max_length_bytes" | "max_in_memory_bytes" => {
                binary_size(&text).map(|bytes| RawValue::Text(format!("{bytes}B")))
            }
            "max_length" | "max_in_memory_length" | "delivery_limit" | "max_connections" | "max_queues" => {
                text.parse().map(RawValue::Integer).map_err(|_| "expected a whole number".to_owned())
            }
            "tags" => {
                let tags = text.split(',').map(str::trim).filter(|tag| !tag.is_empty());
                let tag = |tag: &str| Raw { origin: line.origin.clone(), value: RawValue::Text(tag.to_owned()) };
                Ok(RawValue::List(tags.map(tag).collect()))
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
