//! The configuration as text for people: `config show`, the documented file, the help of flags.

use super::Loaded;
use super::kind::Secrets;
use super::rabbitmq::names_of;
use super::schema::{Config, KEYS, Key, SECTIONS};

/// The column in which `config show` tells where a value came from.
const ORIGIN_COLUMN: usize = 44;

const PREAMBLE: &str = "\
# Configuration of Warren, an AMQP 0-9-1 message broker.
#
# Every key is optional. Here each one stands with its default, commented out: to change it, take
# the # away and write another value. What is named below as an environment variable or with --set
# goes before this file: flag, then environment, then file, then default.
#
# The broker reads the file that --config or WARREN_CONFIG names, else /etc/warren/broker.toml and
# RabbitMQ's files in /etc/rabbitmq, as far as they are there. A key that does not exist or a value that is not allowed stops the start.
#
#     warren config check          all mistakes in what would be read, or in the files that are named
#     warren config convert FILE   a rabbitmq.conf as such a file as this
#     warren config show           the values in effect, and where each came from
#
# Durations have a unit: ms, s, m, h, d. Sizes have one too: KiB, MiB, GiB, TiB (1024 each step) or
# B, kB, MB, GB, TB (1000 each step). Numbers are whole; zero needs no unit. Where zero means that
# there is no limit, or never, the key says so. In an environment variable and with --set, quotes
# are left out, a list is a,b and a table is a=b,c=d (or both as here); they replace the whole list
# or table.
";

/// The documented `broker.toml`: every key, commented out, with its default.
#[must_use]
pub fn default_file() -> String {
    let config = Config::default();
    let mut text = PREAMBLE.to_owned();
    for key in KEYS.iter().filter(|key| key.section.is_empty()) {
        push_key(&mut text, key, &config);
    }
    for section in SECTIONS {
        text.push_str(&format!("\n[{}]\n", section.name));
        push_comment(&mut text, section.documentation);
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            push_key(&mut text, key, &config);
        }
    }
    text
}

/// Lines of documentation as a comment, without the fences that rustdoc needs around an example.
fn push_comment(text: &mut String, lines: &[&str]) {
    for line in lines.iter().filter(|line| !line.starts_with(" ```")) {
        text.push_str(&format!("#{line}\n"));
    }
}

fn push_key(text: &mut String, key: &Key, config: &Config) {
    text.push('\n');
    push_comment(text, key.documentation);
    let range = (key.range)().map_or_else(String::new, |range| format!(", {range}"));
    text.push_str(&format!("# Value: {}{range}.\n", (key.expects)()));
    text.push_str(&format!("# Environment: {}", key.environment()));
    let names = names_of(key.path);
    if !names.is_empty() {
        text.push_str(&format!("; in rabbitmq.conf: {}", names.join(", ")));
    }
    let default = (key.write)(config, Secrets::Plain);
    text.push_str(&format!("\n#{} = {default}\n", key.name));
}

/// The effective values as TOML, each with its origin. Secrets are masked.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut section = "";
    // Keys outside the sections have to come first: below a heading they would belong to it.
    let (top, inner): (Vec<_>, Vec<_>) = KEYS.iter().partition(|key| key.section.is_empty());
    for key in top.into_iter().chain(inner) {
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let value = format!("{} = {}", key.name, (key.write)(&loaded.config, Secrets::Masked));
        let origin = loaded.origins.of(key.path);
        text.push_str(&format!("{value:ORIGIN_COLUMN$} # {origin}\n"));
    }
    text
}

impl Loaded {
    /// The keys that have another value in the other configuration.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let differs =
            |key: &&Key| (key.write)(&self.config, Secrets::Plain) != (key.write)(&other.config, Secrets::Plain);
        KEYS.iter().filter(differs).map(|key| key.path).collect()
    }

    /// Every key's path, its value as TOML with secrets masked, and where it comes from.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, String, String)> {
        KEYS.iter()
            .map(|key| (key.path, (key.write)(&self.config, Secrets::Masked), self.origins.of(key.path).to_string()))
    }
}

/// What a flag that sets `path` does, for `--help`: the key's documentation, its name and default.
#[must_use]
pub fn key_help(path: &str) -> String {
    let Some(key) = Key::find(path) else {
        return String::new();
    };
    let lines: Vec<_> = key.documentation.iter().map(|line| line.trim()).collect();
    format!("{} [key: {path}] [default: {}]", lines.join(" "), key.default)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::origin::Problems;
    use super::super::sources::text_settings;
    use super::*;

    const SHIPPED: &str = include_str!("../../broker.toml");

    /// The file with every key of it in force. Prose has a space after the `#`.
    fn uncommented(text: &str) -> String {
        let line = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => format!("{key}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn the_shipped_file_is_the_documentation_of_the_schema() {
        assert!(SHIPPED == default_file(), "write the output of `warren config default` to broker.toml");
    }

    #[test]
    fn the_shipped_file_uncommented_has_every_key_and_equals_the_defaults() {
        let mut problems = Problems::default();
        let settings = text_settings("broker.toml", &uncommented(SHIPPED), &mut problems);
        let mut config = Config::default();
        for (key, raw) in &settings {
            (key.set)(&mut config, raw, &mut problems);
        }
        assert!(problems.is_empty(), "{:?}", problems.into_errors());
        assert_eq!(config, Config::default());
        let named: BTreeSet<_> = settings.iter().map(|(key, _)| key.path).collect();
        let all: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(named, all);
        assert_eq!(settings.len(), KEYS.len(), "each of them once");
    }

    #[test]
    fn as_shipped_the_file_sets_nothing() {
        let mut problems = Problems::default();
        assert_eq!(text_settings("broker.toml", SHIPPED, &mut problems).len(), 0);
        assert!(problems.is_empty());
    }

    #[test]
    fn every_key_is_documented_and_has_a_name_of_its_own() {
        let mut variables = BTreeSet::new();
        for key in KEYS {
            assert!(!key.documentation.is_empty(), "{}", key.path);
            assert!(!(key.expects)().is_empty(), "{}", key.path);
            assert!(variables.insert(key.environment()), "{}", key.path);
            for name in names_of(key.path) {
                assert!(Key::find(name).is_none_or(|found| names_of(found.path).contains(&name)), "{name}");
            }
        }
    }

    #[test]
    fn every_value_reads_back_as_it_was_written() {
        for key in KEYS {
            let text = (key.write)(&Config::default(), Secrets::Plain);
            let line = format!("{} = {text}", key.path);
            let mut problems = Problems::default();
            let settings = text_settings("t", &line, &mut problems);
            let mut config = Config::default();
            (settings[0].0.set)(&mut config, &settings[0].1, &mut problems);
            assert!(problems.is_empty(), "{line}");
            assert_eq!((key.write)(&config, Secrets::Plain), text);
        }
    }
}
