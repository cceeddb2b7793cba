//! `enabled_plugins`, an Erlang list of names, and `RABBITMQ_ENABLED_PLUGINS`, names with commas between them.

use std::path::Path;
use std::sync::Arc;

use crate::model::plugin::{self, State};

use super::super::origin::Origin;
use super::super::raw::RawValue;
use super::super::sources::reason;
use super::Translator;

/// Plugins that cannot be without the management API.
const OF_MANAGEMENT: [&str; 6] = [
    "rabbitmq_federation_management",
    "rabbitmq_management",
    "rabbitmq_shovel_management",
    "rabbitmq_stream_management",
    "rabbitmq_top",
    "rabbitmq_tracing",
];

/// A name, and where it stands.
type Named = (Origin, String);

/// Reads the file.
pub(super) fn read_file(file: &Path, translator: &mut Translator<'_>) {
    let name: Arc<str> = file.to_string_lossy().into();
    let place = |line| Origin::File { file: Arc::clone(&name), line };
    match std::fs::read_to_string(file) {
        Ok(text) => match names(&text, &place) {
            Ok(names) => apply(&names, &place(0), translator),
            Err((origin, message)) => translator.problems.other(&origin, message),
        },
        Err(error) => {
            let message = format!("cannot read {}: {}", file.display(), reason(&error));
            translator.problems.other(&Origin::Default, message);
        }
    }
}

/// Reads the variable.
pub(super) fn read_variable(origin: &Origin, text: &str, translator: &mut Translator<'_>) {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<Named> = names.map(|name| (origin.clone(), name.to_owned())).collect();
    apply(&names, origin, translator);
}

/// The names of `[one, two].`, with comments behind `%`.
fn names(text: &str, place: &impl Fn(usize) -> Origin) -> Result<Vec<Named>, (Origin, String)> {
    let expected = |line| {
        (place(line), "expected a list of plugins such as [rabbitmq_management,rabbitmq_prometheus].".to_owned())
    };
    let mut tokens = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let mut token = String::new();
        let code = line.split('%').next().unwrap_or_default();
        for character in code.chars().chain([' ']) {
            match character {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '@' | '-' => token.push(character),
                '[' | ']' | ',' | '.' | ' ' | '\t' | '\r' | '\'' => {
                    if !token.is_empty() {
                        tokens.push((index + 1, std::mem::take(&mut token)));
                    }
                    if "[],.".contains(character) {
                        tokens.push((index + 1, character.to_string()));
                    }
                }
                _ => return Err(expected(index + 1)),
            }
        }
    }
    let last = tokens.last().map_or(1, |(line, _)| *line);
    let mut tokens = tokens.into_iter().peekable();
    let open = tokens.next().filter(|(_, token)| token == "[");
    open.ok_or_else(|| expected(1))?;
    let mut names = Vec::new();
    loop {
        match tokens.next() {
            Some((_, token)) if token == "]" && names.is_empty() => break,
            Some((line, name)) if !["[", "]", ",", "."].contains(&name.as_str()) => names.push((place(line), name)),
            Some((line, _)) => return Err(expected(line)),
            None => return Err(expected(last)),
        }
        match tokens.next() {
            Some((_, token)) if token == "]" => break,
            Some((_, token)) if token == "," => {}
            other => return Err(expected(other.map_or(last, |(line, _)| line))),
        }
    }
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) if token == "." => Ok(names),
        (other, _) => Err(expected(other.map_or(last, |(line, _)| line))),
    }
}

/// Tells what is not there. What was not enabled in RabbitMQ is not opened to the network.
fn apply(names: &[Named], place: &Origin, translator: &mut Translator<'_>) {
    for (origin, name) in names {
        match plugin::find(name).map(|plugin| plugin.state) {
            Some(State::BuiltIn) => {}
            Some(State::Missing(reason)) => translator.without_effect(origin, name, reason),
            None => translator.without_effect(origin, name, "RabbitMQ 4.3 has no such plugin, and it is not built in"),
        }
    }
    let has = |wanted: &[&str]| names.iter().any(|(_, name)| wanted.contains(&name.as_str()));
    for (path, section, plugin, is_enabled) in [
        ("management.bind", "management", "rabbitmq_management", has(&OF_MANAGEMENT)),
        ("prometheus.bind", "prometheus", "rabbitmq_prometheus", has(&["rabbitmq_prometheus"])),
    ] {
        let is_named = ["tcp.ip", "ssl.ip", "listener.ip", "tcp.listener", "ssl.listener"]
            .iter()
            .any(|key| translator.conf.get(&format!("{section}.{key}")).is_some());
        if is_enabled || is_named {
            continue;
        }
        translator.set(path, place.clone(), RawValue::Text("127.0.0.1".to_owned()));
        translator.notes.push(format!(
            "{place}: {plugin} is not enabled: it is built in, and listens for this host alone; {path} opens it"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(usize, String)>, (usize, String)> {
        let place = |line| Origin::File { file: "enabled_plugins".into(), line };
        let line = |origin: &Origin| match origin {
            Origin::File { line, .. } => *line,
            _ => 0,
        };
        let names = names(text, &place);
        names
            .map(|names| names.into_iter().map(|(origin, name)| (line(&origin), name)).collect())
            .map_err(|(origin, message)| (line(&origin), message))
    }

    #[test]
    fn erlang_lists() {
        let two = vec![(1, "a".to_owned()), (2, "b_c".to_owned())];
        assert_eq!(read("[a,\n b_c ].\n"), Ok(two.clone()));
        assert_eq!(read("%% mine\n['a' , % x, y\n b_c]\n.").map(|names| names.len()), Ok(2));
        assert_eq!(read("[]."), Ok(vec![]));
        for (text, line) in
            [("", 1), ("[a,b]", 1), ("a.", 1), ("[a,\n,b].", 2), ("[a\n b].", 2), ("[a]. x", 1), ("{a}.", 1)]
        {
            assert_eq!(read(text).map_err(|(line, _)| line), Err(line), "{text}");
        }
    }
}
