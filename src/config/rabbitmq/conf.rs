//! The lines of `rabbitmq.conf` and the files beside it: `key = value`, comments, quotes, includes, `$(NAME)`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::origin::{Origin, Problems};
use super::super::sources::reason;

/// How deep files may include each other.
const INCLUDES_MAX: u8 = 8;

/// One setting, as it was written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The parts of the key, without the backslashes that keep a dot in one of them.
    pub(super) parts: Vec<String>,
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl Line {
    /// The key, as files write it.
    pub(super) fn name(&self) -> String {
        self.parts.iter().map(|part| escaped(part)).collect::<Vec<_>>().join(".")
    }

    /// The last part of the key.
    pub(super) fn last(&self) -> &str {
        self.parts.last().map_or("", String::as_str)
    }

    /// The part at `index`, which the caller's pattern has.
    pub(super) fn part(&self, index: usize) -> &str {
        self.parts.get(index).map_or("", String::as_str)
    }
}

/// Everything that the files say: of a key that stands there more than once, the last one counts.
#[derive(Debug, Default)]
pub(super) struct Conf {
    lines: BTreeMap<Vec<String>, Line>,
}

impl Conf {
    /// Reads the files in their order. What cannot be read is told.
    pub(super) fn read(files: &[PathBuf], problems: &mut Problems) -> Self {
        let mut conf = Self::default();
        for file in files {
            conf.include(file, &Origin::Default, 0, problems);
        }
        conf
    }

    fn include(&mut self, file: &Path, named: &Origin, depth: u8, problems: &mut Problems) {
        if depth > INCLUDES_MAX {
            return problems.other(named, format!("{} is included too deeply, or by itself", file.display()));
        }
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                return problems.other(named, format!("cannot read {}: {}", file.display(), reason(&error)));
            }
        };
        let name: Arc<str> = Arc::from(&*file.to_string_lossy());
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        for (index, line) in text.lines().enumerate() {
            let origin = Origin::File { file: Arc::clone(&name), line: index + 1 };
            match parse(line) {
                Ok(Parsed::Nothing) => {}
                Ok(Parsed::Setting(parts, value)) => {
                    let key = parts.clone();
                    self.lines.insert(key, Line { parts, value, origin });
                }
                Ok(Parsed::Include(path)) => match included(file, path) {
                    Ok(files) => files.iter().for_each(|file| self.include(file, &origin, depth + 1, problems)),
                    Err(text) => problems.other(&origin, text),
                },
                Err(message) => problems.other(&origin, message),
            }
        }
    }

    /// All settings.
    pub(super) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.values()
    }

    /// The setting with this key. Here as below, what of a key is chosen freely is written as [`escaped`] has it.
    pub(super) fn get(&self, key: &str) -> Option<&Line> {
        self.lines.get(&parts_of(key).ok()?)
    }

    /// The settings right below a key, `listeners.tcp.1` below `listeners.tcp`: numbers in their order, then names.
    pub(super) fn under(&self, key: &str) -> Vec<&Line> {
        let Ok(parts) = parts_of(key) else { return Vec::new() };
        let below = |line: &&Line| line.parts.len() == parts.len() + 1 && starts_with(line, &parts);
        let mut lines: Vec<&Line> = self.lines.values().filter(below).collect();
        lines.sort_by_key(|line| order(line.part(parts.len())));
        lines
    }

    /// The names right below a key under which there is anything, each once and in the order of [`Self::under`].
    pub(super) fn names_under(&self, key: &str) -> Vec<String> {
        let Ok(parts) = parts_of(key) else { return Vec::new() };
        let below = self.lines.values().filter(|line| line.parts.len() > parts.len() && starts_with(line, &parts));
        let mut names: Vec<String> = below.map(|line| line.part(parts.len()).to_owned()).collect();
        names.sort_by_key(|name| order(name));
        names.dedup();
        names
    }
}

/// A part of a key as files write it: a dot in it has a backslash.
pub(super) fn escaped(part: &str) -> String {
    part.replace('.', "\\.")
}

fn starts_with(line: &Line, parts: &[String]) -> bool {
    line.parts.iter().zip(parts).all(|(own, part)| own == part)
}

/// Numbers before names, and by what they count.
fn order(part: &str) -> (u64, String) {
    (part.parse().unwrap_or(u64::MAX), part.to_owned())
}

enum Parsed<'a> {
    Nothing,
    Setting(Vec<String>, String),
    Include(&'a str),
}

fn parse(line: &str) -> Result<Parsed<'_>, String> {
    let blank = [' ', '\t'];
    let line = line.trim_end_matches('\r').trim_matches(blank);
    if line.is_empty() || line.starts_with('#') {
        return Ok(Parsed::Nothing);
    }
    if let Some(path) = line.strip_prefix("include").filter(|rest| rest.starts_with(blank) && !rest.contains('=')) {
        return Ok(Parsed::Include(before_comment(path).trim_matches(blank)));
    }
    let Some((key, value)) = line.split_once('=') else {
        return Err(if line.starts_with(['[', '{', '%']) {
            "is Erlang, which is not read: write key = value, as rabbitmq.conf has it".to_owned()
        } else {
            "expected key = value".to_owned()
        });
    };
    let parts = parts_of(key.trim_matches(blank))?;
    let value = value.trim_start_matches(blank);
    let value = match value.strip_prefix('\'') {
        Some(quoted) => {
            let Some((inner, rest)) = quoted.split_once('\'') else {
                return Err(format!("{}: the quote (') is not closed", parts.join(".")));
            };
            if !before_comment(rest).trim_matches(blank).is_empty() {
                return Err(format!("{}: there is something behind the closing quote (')", parts.join(".")));
            }
            inner
        }
        None => before_comment(value).trim_end_matches(blank),
    };
    if value.is_empty() {
        return Err(format!("{}: has no value", parts.join(".")));
    }
    Ok(Parsed::Setting(parts, value.to_owned()))
}

/// A `#` begins a comment wherever it stands, but in single quotes.
fn before_comment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

fn parts_of(key: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut characters = key.chars().peekable();
    while let Some(character) = characters.next() {
        let last = parts.len() - 1;
        match character {
            '\\' if characters.peek() == Some(&'.') => {
                characters.next();
                parts[last].push('.');
            }
            '.' => parts.push(String::new()),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => parts[last].push(character),
            other => return Err(format!("a key has no {other:?}: expected key = value, such as heartbeat = 60")),
        }
    }
    if parts.iter().any(String::is_empty) { Err("expected key = value".to_owned()) } else { Ok(parts) }
}

/// The files that an include names: one file, or all that match a `*` in the name, in the order of their names.
fn included(from: &Path, path: &str) -> Result<Vec<PathBuf>, String> {
    let path = from.parent().unwrap_or_else(|| Path::new("")).join(path);
    let pattern = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((start, end)) = pattern.split_once('*') else { return Ok(vec![path]) };
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    files_in(directory, |name| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end))
}

/// The files of a directory whose names are wanted, in the order of their names.
pub(super) fn files_in(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {}", directory.display(), reason(&error));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if wanted(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The value with `$(NAME)` and `${NAME}` replaced: by the setting of that name, else by the variable of the environment.
/// RabbitMQ knows `$(NAME)` alone, so where there is no such variable `${NAME}` stays as it is.
///
/// # Errors
/// The name that stands for nothing.
pub(super) fn interpolated(line: &Line, conf: &Conf, environment: &[(String, String)]) -> Result<String, String> {
    let mut value = String::new();
    let mut rest = line.value.as_str();
    while let Some(start) = rest.find('$') {
        value.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let close = match rest.chars().next() {
            Some('(') => ')',
            Some('{') => '}',
            _ => {
                value.push('$');
                continue;
            }
        };
        let Some(end) = rest.find(close) else {
            value.push('$');
            continue;
        };
        let name = &rest[1..end];
        let setting = || conf.get(name).filter(|other| !other.value.contains("$(")).map(|other| &other.value);
        let variable = || environment.iter().find(|(variable, _)| variable == name).map(|(_, text)| text);
        match setting().or_else(variable) {
            Some(text) => value.push_str(text),
            None if close == '}' => {
                value.push('$');
                value.push_str(&rest[..=end]);
            }
            None => return Err(name.to_owned()),
        }
        rest = &rest[end + 1..];
    }
    value.push_str(rest);
    Ok(value)
}

/// The names that a value refers to.
pub(super) fn names_in(value: &str) -> impl Iterator<Item = &str> {
    value
        .split('$')
        .skip(1)
        .filter_map(|rest| match rest.chars().next()? {
            '(' => rest[1..].split_once(')'),
            '{' => rest[1..].split_once('}'),
            _ => None,
        })
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(line: &str) -> Result<(String, String), String> {
        match parse(line)? {
            Parsed::Setting(parts, value) => Ok((parts.join("/"), value)),
            Parsed::Include(path) => Ok(("include".to_owned(), path.to_owned())),
            Parsed::Nothing => Ok((String::new(), String::new())),
        }
    }

    #[test]
    fn lines_as_rabbitmq_reads_them() {
        for (line, key, value) in [
            ("heartbeat = 60", "heartbeat", "60"),
            ("\t heartbeat=60 \t\r", "heartbeat", "60"),
            ("a.b = x y  # z", "a/b", "x y"),
            ("a = c#d", "a", "c"),
            ("a = 'x # y' # q", "a", "x # y"),
            ("a = \"a b\" # c", "a", "\"a b\""),
            ("a-b_c.1\\.2 = 3", "a-b_c/1.2", "3"),
            ("log.file.level = x=y", "log/file/level", "x=y"),
            ("a = it's", "a", "it's"),
            ("include conf.d/*.conf # more", "include", "conf.d/*.conf"),
            ("  # a = 1", "", ""),
            ("", "", ""),
        ] {
            assert_eq!(setting(line), Ok((key.to_owned(), value.to_owned())), "{line}");
        }
        for (line, message) in [
            ("heartbeat", "expected key = value"),
            ("heartbeat =", "heartbeat: has no value"),
            ("heartbeat = # 5", "heartbeat: has no value"),
            ("a = 'x", "a: the quote (') is not closed"),
            ("a = 'x'y", "a: there is something behind the closing quote (')"),
            ("a..b = 1", "expected key = value"),
            ("a b = 1", "a key has no ' ': expected key = value, such as heartbeat = 60"),
            ("[{rabbit, []}].", "is Erlang, which is not read: write key = value, as rabbitmq.conf has it"),
        ] {
            assert_eq!(setting(line), Err(message.to_owned()), "{line}");
        }
    }

    #[test]
    fn names_stand_for_settings_and_variables() {
        let environment = [("USER".to_owned(), "ann".to_owned()), ("a".to_owned(), "variable".to_owned())];
        let line = |key: &str, value: &str| Line {
            parts: vec![key.to_owned()],
            value: value.to_owned(),
            origin: Origin::Default,
        };
        let mut conf = Conf::default();
        conf.lines.insert(vec!["a".to_owned()], line("a", "1"));
        let of = |value: &str| interpolated(&line("b", value), &conf, &environment);
        for (value, expected) in [
            ("$(USER)-${USER}", "ann-ann"),
            ("$(a)2", "12"),
            ("${NONE}$", "${NONE}$"),
            ("^x$(", "^x$("),
            (".*", ".*"),
            ("100$ and $x", "100$ and $x"),
        ] {
            assert_eq!(of(value).as_deref(), Ok(expected), "{value}");
        }
        assert_eq!(of("x$(NONE)"), Err("NONE".to_owned()));
    }

    #[test]
    fn numbers_come_in_their_order() {
        let mut conf = Conf::default();
        for name in ["10", "2", "default", "1", "abc"] {
            let parts = vec!["listeners".to_owned(), "tcp".to_owned(), name.to_owned()];
            conf.lines.insert(parts.clone(), Line { parts, value: String::new(), origin: Origin::Default });
        }
        assert_eq!(conf.names_under("listeners.tcp"), ["1", "2", "10", "abc", "default"]);
        assert_eq!(conf.names_under("listeners"), ["tcp"]);
        assert_eq!(conf.under("listeners.tcp").len(), 5);
    }
}
