//! Layering: a module imports only modules of a lower rank, and some of them not even all of those.

use super::source::{Source, identifier, is_word_at};

struct Layer {
    name: &'static str,
    rank: u8,
    /// All that it may import, where its rank would allow more.
    only: Option<&'static [&'static str]>,
}

const fn layer(name: &'static str, rank: u8) -> Layer {
    Layer { name, rank, only: None }
}

const fn narrow(name: &'static str, rank: u8, only: &'static [&'static str]) -> Layer {
    Layer { name, rank, only: Some(only) }
}

const LAYERS: [Layer; 17] = [
    layer("model", 0),
    layer("printable", 0),
    narrow("routing", 1, &["model"]),
    narrow("queue", 1, &["model"]),
    narrow("log", 1, &["model"]),
    narrow("oauth2", 1, &["model"]),
    narrow("disk", 2, &["log"]),
    layer("broker", 3),
    // A front end cannot see the broker.
    narrow("protocol", 3, &["model"]),
    narrow("config", 3, &["model"]),
    narrow("logging", 4, &["config", "printable"]),
    narrow("management", 4, &["broker", "model"]),
    // The command line checks and prints configurations.
    narrow("cli", 4, &["broker", "config", "ctl", "disk", "log", "model", "perf"]),
    layer("server", 5),
    // A client of the broker: it knows the wire, not the broker's insides.
    narrow("perf", 3, &[]),
    // A client of the management API, as little acquainted with the insides: it has the list of plugins in common.
    narrow("ctl", 3, &["model", "printable"]),
    layer("main", 6),
];

/// Rows of ARCHITECTURE.md's table of layers that are not here, or the other way round.
pub(crate) fn different_rows(text: &str) -> Vec<String> {
    let table = text.split("\n## Layers").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let told: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Rank")).collect();
    let held: Vec<String> = LAYERS.iter().map(Layer::row).collect();
    let missing =
        held.iter().filter(|row| !told.contains(&row.as_str())).map(|row| format!("ARCHITECTURE.md lacks {row}"));
    let unknown = told.iter().filter(|row| !row.starts_with("| ---") && !held.iter().any(|held| held == *row));
    missing.chain(unknown.map(|row| format!("ARCHITECTURE.md has {row}"))).collect()
}

impl Layer {
    fn row(&self) -> String {
        let imports = match self.only {
            _ if self.rank == 0 => "none".to_owned(),
            None => "all of lower rank".to_owned(),
            Some([]) => "none".to_owned(),
            Some(names) => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
        };
        format!("| {} | `{}` | {imports} |", self.rank, self.name)
    }
}

/// Imports that the layers forbid.
pub(crate) fn violations(source: &Source) -> Vec<String> {
    let module = source.module();
    let own = match module.first() {
        Some(name) => *name,
        None if source.path == "src/main.rs" => "main",
        // The crate root only lists modules.
        None => return Vec::new(),
    };
    let Some(layer) = find(own) else { return Vec::new() };
    let mut found = Vec::new();
    for (line, imported) in imports(source) {
        let Some(target) = find(&imported) else { continue };
        let allowed = match layer.only {
            Some(only) => only.contains(&target.name),
            None => target.rank < layer.rank,
        };
        if target.name != layer.name && !allowed {
            found.push(format!("{}:{line}: {} must not import {}", source.path, layer.name, target.name));
        }
    }
    found
}

/// Modules that the table above does not know.
pub(crate) fn unknown_modules(sources: &[Source]) -> Vec<String> {
    let tops = sources.iter().filter_map(|source| Some((*source.module().first()?, &source.path)));
    let unknown = tops.filter(|(name, _)| find(name).is_none());
    unknown.map(|(name, path)| format!("{path}: give {name} a rank in tests/tidy/layers.rs")).collect()
}

fn find(name: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.name == name)
}

/// Top-level modules named by paths, with their lines.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let depth = source.module().len();
    let mut found = Vec::new();
    for start in ["crate::", "warren::"] {
        for (at, _) in source.code.match_indices(start) {
            if is_word_at(&source.code, at, start.len() - 2) {
                found.extend(named(&source.code[at + start.len()..]).map(|name| (line_of(source, at), name)));
            }
        }
    }
    // `super::super::…` may climb to the crate root as well.
    let climb = "super::".repeat(depth.max(1));
    for (at, _) in source.code.match_indices(&climb) {
        if !source.code[..at].ends_with("super::") {
            let rest = &source.code[at + climb.len()..];
            found.extend(named(rest.trim_start_matches("super::")).map(|name| (line_of(source, at), name)));
        }
    }
    found
}

/// The first names of a path: one, or those of a group in braces.
fn named(rest: &str) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    match rest.strip_prefix('{') {
        None => names.push(identifier(rest).to_owned()),
        Some(group) => {
            let (mut depth, mut begins) = (0, true);
            for (at, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    character if begins && !character.is_whitespace() => {
                        names.push(identifier(&group[at..]).to_owned());
                        begins = false;
                    }
                    _ => {}
                }
            }
        }
    }
    names.into_iter()
}

fn line_of(source: &Source, at: usize) -> usize {
    source.code[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        violations(&Source::new(path, text)).len()
    }

    #[test]
    fn forbidden_imports_are_found() {
        assert_eq!(found("src/protocol/mod.rs", "use crate::broker::Session;"), 1);
        assert_eq!(found("src/routing/topic.rs", "use crate::{\n    model::{ids, names},\n    queue::Fifo,\n};"), 1);
        assert_eq!(found("src/model/ids.rs", "fn f() { super::super::broker::g() }"), 1);
        assert_eq!(found("src/management/mod.rs", "use crate::server::Shared;"), 1);
        assert_eq!(found("src/broker/shard/mod.rs", "pub(in crate::server) fn f() {}"), 1);
    }

    #[test]
    fn allowed_imports_pass() {
        assert_eq!(found("src/protocol/mod.rs", "use crate::model::ids; use crate::protocol::amqp091;"), 0);
        assert_eq!(found("src/server/mod.rs", "use crate::{broker, config, protocol};"), 0);
        assert_eq!(found("src/routing/topic.rs", "// use crate::broker\nuse super::map;"), 0);
        assert_eq!(found("src/main.rs", "use warren::cli;"), 0);
    }
}
