//! The configuration as a Markdown page: every key, and the keys of rabbitmq.conf that they stand for.

use super::kind::Secrets;
use super::schema::{Config, KEYS, Key, SECTIONS};

const PREAMBLE: &str = "\
# Configuration reference

This page is the output of `warren config reference`. The same text as a file to edit is `broker.toml`, which
`warren config default` prints.

Every key is optional. A value comes from, first to last: a flag, the environment, the file, the default. The file is the
one that `--config` or `WARREN_CONFIG` names, else `/etc/warren/broker.toml` if there is one. A key that does not exist or a
value that is not allowed stops the start with exit code 64, and all mistakes are told at once.

| Command | |
| --- | --- |
| `warren config check FILE` | all mistakes in a file; exit code 64 if there are any |
| `warren config show` | the values in effect, and where each came from |
| `warren config default` | a `broker.toml` with every key, commented out |
| `warren config reference` | this page |

Any key can be set on the command line, `--set amqp.heartbeat=30s`, and in the environment: `WARREN_`, the section, two
underscores, the key. There quotes are left out, a list is `a,b` and a table is `a=b,c=d`; they replace the whole list or
table of the file.

Durations have a unit: `ms`, `s`, `m`, `h`, `d`. Sizes have one too: `KiB`, `MiB`, `GiB`, `TiB` (1024 each step) or `B`,
`kB`, `MB`, `GB`, `TB` (1000 each step). Numbers are whole; zero needs no unit.
";

const RABBITMQ: &str = "
## Keys of rabbitmq.conf

A `rabbitmq.conf` is not read. These keys have one here; a key of `rabbitmq.conf` that stands in `broker.toml` stops the
start, and the message names the key to use. Numbers need a unit here: RabbitMQ's `heartbeat = 60` is `\"60s\"`, its
`consumer_timeout = 1800000` is `\"30m\"`.

| rabbitmq.conf | broker.toml |
| --- | --- |
";

/// Keys whose last part is what rabbitmq.conf calls them.
const SAME_NAMES: [&str; 6] = [
    "amqp.heartbeat",
    "amqp.frame_max",
    "amqp.channel_max",
    "amqp.max_message_size",
    "amqp.handshake_timeout",
    "queues.consumer_timeout",
];

/// The page.
#[must_use]
pub fn reference() -> String {
    let config = Config::default();
    let mut text = PREAMBLE.to_owned();
    for section in SECTIONS {
        text.push_str(&format!("\n## [{}]\n\n{}\n", section.name, prose(section.documentation)));
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            push_key(&mut text, key, &config);
        }
    }
    text.push_str("\n## Outside the sections\n");
    for key in KEYS.iter().filter(|key| key.section.is_empty()) {
        push_key(&mut text, key, &config);
    }
    text.push_str(RABBITMQ);
    for (old, path) in old_names() {
        text.push_str(&format!("| `{old}` | [`{path}`](#{}) |\n", anchor(path)));
    }
    text
}

fn push_key(text: &mut String, key: &Key, config: &Config) {
    let range = (key.range)().map_or_else(String::new, |range| format!(", {range}"));
    let default = (key.write)(config, Secrets::Plain);
    text.push_str(&format!("\n### {}\n\n{}\n\n", key.path, prose(key.documentation)));
    text.push_str(&format!("- Value: {}{range}\n", (key.expects)()));
    text.push_str(&format!("- Default: `{default}`\n- Environment: `{}`\n", key.environment()));
    if !key.rabbitmq.is_empty() {
        let names: Vec<_> = key.rabbitmq.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("- In rabbitmq.conf: {}\n", names.join(", ")));
    }
}

/// Documentation as Markdown: each line without the space that follows the slashes.
fn prose(lines: &[&str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}

/// The names of rabbitmq.conf in their order, each with the key it is here.
fn old_names() -> Vec<(&'static str, &'static str)> {
    let renamed = KEYS.iter().flat_map(|key| key.rabbitmq.iter().map(|old| (*old, key.path)));
    let same = KEYS.iter().filter(|key| SAME_NAMES.contains(&key.path));
    let mut names: Vec<_> = renamed.chain(same.map(|key| (key.name, key.path))).collect();
    names.sort_unstable();
    names
}

/// The anchor that Markdown gives a heading: lower case, without the dots.
fn anchor(path: &str) -> String {
    path.replace('.', "").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_same_name_exist() {
        for path in SAME_NAMES {
            assert!(Key::find(path).is_some(), "{path}");
        }
    }

    #[test]
    fn every_key_has_a_heading_that_links_reach() {
        let text = reference();
        for key in KEYS {
            assert_eq!(text.matches(&format!("\n### {}\n", key.path)).count(), 1, "{}", key.path);
        }
        for (old, path) in old_names() {
            assert!(text.contains(&format!("| `{old}` | [`{path}`](#")), "{old}");
        }
    }
}
