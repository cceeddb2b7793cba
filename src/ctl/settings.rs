//! Settings of a running broker: log level, memory watermark, disk limit. They do not survive a restart.

use serde_json::{Value, json};

use super::call::Call;
use super::error::{CtlError, code};
use super::node::not_rabbitmq;
use super::verb::{Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Settings,
        "reload",
        "",
        "Reads broker.toml again, as SIGHUP does: what can change does, and the keys that need a restart are named",
        reload,
    )
    .or(&["reload_config", "reload_configuration"]),
    Verb::new(
        Group::Settings,
        "set_log_level",
        "[--category <category>] <level>",
        "Sets the log level until the next restart: debug, info, warning, error, critical, none",
        set_log_level,
    ),
    Verb::new(
        Group::Settings,
        "set_vm_memory_high_watermark",
        "<fraction> | [absolute <size>]",
        "Sets the memory at which publishers are blocked: a fraction, or `absolute` with bytes or `2GiB`",
        set_memory_watermark,
    ),
    Verb::new(
        Group::Settings,
        "set_disk_free_limit",
        "<size> | [mem_relative <fraction>]",
        "Sets the free disk space below which publishers are blocked: bytes, `100TB`, or `mem_relative 1.5`",
        set_disk_free_limit,
    ),
];

const LEVELS: [&str; 6] = ["debug", "info", "warning", "error", "critical", "none"];

fn put(call: &Call<'_>, path: &str, body: &Value) -> Done {
    let reply = call.client.put(path, body)?;
    not_rabbitmq(call, reply.status)?;
    reply.success().map(drop)
}

fn set_log_level(call: &Call<'_>) -> Done {
    let level = call.argument(0);
    if !LEVELS.contains(&level) {
        let text = format!("level {level} is not supported. Try one of {}", LEVELS.join(", "));
        return Err(CtlError::failed(code::UNAVAILABLE, text));
    }
    call.banner(&format!("Setting log level to \"{level}\" ..."));
    let category = call.arguments.option("category").unwrap_or("default");
    put(call, "/api/warren/log_level", &json!({"level": level, "category": category}))
}

fn reload(call: &Call<'_>) -> Done {
    call.node_banner(|node| format!("Reading the configuration of node {node} again ..."));
    let reply = call.client.post("/api/warren/configuration/reload", &json!({}))?;
    not_rabbitmq(call, reply.status)?;
    if reply.status == 400 {
        return Err(CtlError::failed(code::DATA, format!("nothing has changed:\n{}", reply.reason())));
    }
    let report = reply.success()?.json();
    call.document(&report, || {
        let keys = |list: &str| report[list].as_array().cloned().unwrap_or_default();
        let mut lines = Vec::new();
        for (word, list) in [("changed", "changed"), ("needs a restart", "needs_restart")] {
            lines.extend(keys(list).iter().map(|key| format!("{word}: {}\n", key.as_str().unwrap_or_default())));
        }
        if lines.is_empty() { "nothing has changed\n".to_owned() } else { lines.concat() }
    })
}

/// What the memory watermark takes.
const MEMORY_FORMS: &str = "a fraction such as 0.6, or `absolute` with bytes or a size such as 2GiB";
/// What the limit of the free disk space takes.
const DISK_FORMS: &str =
    "bytes or a size such as 50MB or 100TB, or `mem_relative` with a fraction of the memory such as 1.5";

fn bad(text: &str, forms: &str) -> CtlError {
    CtlError::BadArgument(format!("expected a number, got {text:?}: {forms}"))
}

fn set_memory_watermark(call: &Call<'_>) -> Done {
    let (body, text) = match call.arguments.positional.as_slice() {
        [word, value] if word == "absolute" => {
            let bytes = bytes(value).ok_or_else(|| bad(value, MEMORY_FORMS))?;
            (json!({"absolute": bytes}), format!("{value} bytes"))
        }
        [fraction] => {
            let number: f64 = fraction.parse().map_err(|_| bad(fraction, MEMORY_FORMS))?;
            if !(0.0..=1.0).contains(&number) {
                let text = "The threshold should be a fraction between 0.0 and 1.0";
                return Err(CtlError::BadArgument(text.to_owned()));
            }
            (json!({"relative": number}), fraction.clone())
        }
        _ => return Err(CtlError::Usage(format!("expected {MEMORY_FORMS}"))),
    };
    call.node_banner(|node| format!("Setting memory threshold on {node} to {text} ..."));
    put(call, "/api/warren/memory_watermark", &body)
}

fn set_disk_free_limit(call: &Call<'_>) -> Done {
    let (body, text) = match call.arguments.positional.as_slice() {
        [word, fraction] if word == "mem_relative" => {
            let number: Option<f64> = fraction.parse().ok().filter(|number| *number >= 0.0);
            let number = number.ok_or_else(|| bad(fraction, DISK_FORMS))?;
            (json!({"mem_relative": number}), format!("{fraction} times the total RAM"))
        }
        [limit] => {
            let bytes = bytes(limit).ok_or_else(|| bad(limit, DISK_FORMS))?;
            (json!({"absolute": bytes}), format!("{limit} bytes"))
        }
        _ => return Err(CtlError::Usage(format!("expected {DISK_FORMS}"))),
    };
    call.node_banner(|node| format!("Setting disk free limit on {node} to {text} ..."));
    put(call, "/api/warren/disk_free_limit", &body)
}

/// A size as RabbitMQ's tools read it: `2GB`, `2GiB`, `512M`, `1000`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases =
            [("1000", Some(1000)), ("2GB", Some(2_000_000_000)), ("2GiB", Some(2 << 30)), ("512M", Some(512 << 20))];
        for (text, expected) in cases {
            assert_eq!(bytes(text), expected, "{text}");
        }
        for text in ["", "bogus", "1.5GB", "GB", "99999999999999999999", "20000000000000T"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
