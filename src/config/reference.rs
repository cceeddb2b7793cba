//! The configuration as a Markdown page: every key, and the keys of rabbitmq.conf that they stand for.

use super::kind::Secrets;
use super::rabbitmq::names_of;
use super::schema::{Config, KEYS, Key, SECTIONS};

const PREAMBLE: &str = "\
# Configuration reference

This page is the output of `warren config reference`. The same text as a file to edit is `broker.toml`, which
`warren config default` prints.

Every key is optional. A value comes from, first to last: a flag, the environment, the file, the default. The file is the
one that `--config` or `WARREN_CONFIG` names; without one, `/etc/warren/broker.toml` and [RabbitMQ's files](#rabbitmqs-files)
are read if they are there. A key that does not exist or a value that is not allowed stops the start with exit code 64, and
all mistakes are told at once.

| Command | |
| --- | --- |
| `warren config check` | all mistakes in what would be read, or in the files that are named, and in those that these name: certificates, keys of tokens, definitions; exit code 64 if there are any |
| `warren config convert rabbitmq.conf` | the `broker.toml` that means the same |
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
## RabbitMQ's files

`rabbitmq.conf`, `conf.d/*.conf` and `enabled_plugins` are read as they are: with `--config rabbitmq.conf` (or a directory of
`*.conf`), and without a file named, in `/etc/rabbitmq` or where `RABBITMQ_CONFIG_FILE`, `RABBITMQ_CONFIG_FILES` and
`RABBITMQ_ENABLED_PLUGINS_FILE` say. `broker.toml` goes before them. `warren config convert rabbitmq.conf` prints the
`broker.toml` that means the same.

`rabbitmq-env.conf`, in `/etc/rabbitmq` or where `RABBITMQ_CONF_ENV_FILE` says, is read where no file is named, or where it is
named itself. Its lines are `NAME=value`, quoted as a shell has it, and each counts as the variable `RABBITMQ_NAME`, unless the
environment has one. Nothing in it is run: commands, conditions and `$NAME` are refused, with what to write instead.

Of a key that stands in several places the last one counts. `#` begins a comment, single quotes keep one in a value, and
double quotes are a part of the value, as in RabbitMQ. `$(NAME)` is the value of a key or of an environment variable; so is
`${NAME}`, if there is such a variable. With such a file, AMQP, the management API and the metrics listen on all addresses
unless it says otherwise, as RabbitMQ does; where there is an `enabled_plugins` without `rabbitmq_management` or
`rabbitmq_prometheus`, these listen for this host alone. Files of Erlang terms, `advanced.config` and `rabbitmq.config`, are
refused unless they are empty.

Each key is applied, or named once in the log as without effect, or refused with what to write instead. A `*` below is any
part of a key, `**` any number of them; a key that is not below is refused.

| rabbitmq.conf | broker.toml |
| --- | --- |
";

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
    text.push_str(&super::rabbitmq::rows());
    text
}

fn push_key(text: &mut String, key: &Key, config: &Config) {
    let range = (key.range)().map_or_else(String::new, |range| format!(", {range}"));
    let default = (key.write)(config, Secrets::Plain);
    text.push_str(&format!("\n### {}\n\n{}\n\n", key.path, prose(key.documentation)));
    text.push_str(&format!("- Value: {}{range}\n", (key.expects)()));
    text.push_str(&format!("- Default: `{default}`\n- Environment: `{}`\n", key.environment()));
    let names = names_of(key.path);
    if !names.is_empty() {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("- In rabbitmq.conf: {}\n", names.join(", ")));
    }
}

/// Documentation as Markdown: each line without the space that follows the slashes.
fn prose(lines: &[&str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_heading_that_links_reach() {
        let text = reference();
        for key in KEYS {
            assert_eq!(text.matches(&format!("\n### {}\n", key.path)).count(), 1, "{}", key.path);
        }
    }
}
