//! ARCHITECTURE.md must not drift from the code it describes.
//!
//! Its section "Hot path" lists functions as "- `src/broker/shard/mod.rs`: `turn`, `handle`"; its code map names every module
//! directly below `src/` by its path.

use std::fs;

use super::source::{Source, identifier, is_word_at, root};

/// A hot path of fewer functions is not written down.
const HOT_PATH_MIN: usize = 5;

pub(crate) fn text() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md lies at the top of the repository")
}

/// Functions of the hot path that are not where the text says.
pub(crate) fn missing_hot_path(text: &str) -> Vec<String> {
    let listed = hot_path(text);
    if listed.len() < HOT_PATH_MIN {
        return vec![format!("ARCHITECTURE.md lists {} functions under 'Hot path'", listed.len())];
    }
    listed.iter().filter(|(path, function)| !is_defined(path, function)).map(missing).collect()
}

/// Modules directly below `src/` that the text does not name.
pub(crate) fn unmapped_modules(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(root().join("src")).expect("the repository can be read") {
        let entry = entry.expect("the repository can be read");
        names.push(format!("src/{}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    names.into_iter().filter(|name| !names_path(text, name)).map(|name| format!("ARCHITECTURE.md: {name}?")).collect()
}

/// Paths below `src/` in the text that do not exist.
pub(crate) fn dead_paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("src/") {
        let is_path = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '/' | '.' | '-');
        let rest = &text[at..];
        let end = rest.find(|character| !is_path(character)).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches(['.', '/']);
        // Patterns such as src/queue/{fifo,unacked}.rs are for readers.
        let is_pattern = rest[end..].starts_with(['{', '*', '<']);
        if is_word_at(text, at, 3) && !is_pattern && !root().join(path).exists() {
            found.push(format!("ARCHITECTURE.md names {path}, which does not exist"));
        }
    }
    found
}

/// Pairs of path and function.
fn hot_path(text: &str) -> Vec<(String, String)> {
    let mut listed = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim().eq_ignore_ascii_case("hot path");
        }
        // Every second piece stands between backticks.
        let mut quoted = line.trim_start().split('`').skip(1).step_by(2);
        if let Some(path) = quoted.next().filter(|path| inside && path.starts_with("src/")) {
            listed.extend(quoted.map(|function| (path.to_owned(), function.trim_end_matches("()").to_owned())));
        }
    }
    listed
}

fn is_defined(path: &str, function: &str) -> bool {
    let Ok(text) = fs::read_to_string(root().join(path)) else { return false };
    defines(&Source::new(path, &text), function)
}

fn defines(source: &Source, function: &str) -> bool {
    let name = function.rsplit("::").next().unwrap_or(function);
    source.code.match_indices("fn ").any(|(at, _)| identifier(&source.code[at + 3..]) == name)
}

fn missing((path, function): &(String, String)) -> String {
    format!("ARCHITECTURE.md, hot path: {path} has no function {function}")
}

fn names_path(text: &str, path: &str) -> bool {
    let ends = |at: usize| !text[at + path.len()..].starts_with(['.', '-']) && is_word_at(text, at, path.len());
    text.match_indices(path).any(|(at, _)| ends(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# Broker\n`src/a.rs`: `f`\n## Hot path\n- `src/b.rs`: `turn`, `Shard::handle`\n\ntext\n## More\n";

    #[test]
    fn the_hot_path_is_read() {
        let listed = hot_path(TEXT);
        assert_eq!(listed, [("src/b.rs".into(), "turn".into()), ("src/b.rs".into(), "Shard::handle".into())]);
        assert_eq!(missing_hot_path(TEXT).len(), 1);
    }

    #[test]
    fn functions_are_found_by_name() {
        let source = Source::new("src/b.rs", "impl Shard {\n    pub fn turn<T>(&mut self) {}\n}\n// fn gone() {}");
        assert!(defines(&source, "turn") && defines(&source, "Shard::turn"));
        assert!(!defines(&source, "gone") && !defines(&source, "tur"));
    }

    #[test]
    fn paths_are_told_apart() {
        assert!(names_path("see `src/config/` here", "src/config"));
        assert!(!names_path("see `src/config.rs`", "src/config"));
        assert!(names_path("see src/config.rs", "src/config.rs"));
        assert_eq!(dead_paths("`src/lib.rs`, src/nothing.rs, src/queue/{fifo,x}.rs.").len(), 1);
    }
}
