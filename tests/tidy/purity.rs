//! The modules that decide are plain state machines: what they do follows from their arguments alone.

use std::collections::BTreeSet;

use super::source::{Source, identifier, is_word_at};

/// Directories and files below `src/`.
const PURE: [&str; 8] = [
    "model/",
    "routing/",
    "queue/",
    "oauth2/",
    "protocol/",
    "broker/envelope.rs",
    "broker/shard/",
    "broker/metadata.rs",
];

/// Waiting, the outside world, and chance.
const BANNED: [&str; 13] = [
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant",
    "SystemTime",
    "DashMap",
    "DashSet",
    "dashmap",
    "getrandom",
    "rand",
    "thread_rng",
    "RandomState",
];

const ITERATIONS: [&str; 11] = [
    ".iter()",
    ".iter_mut()",
    ".keys()",
    ".values()",
    ".values_mut()",
    ".into_iter()",
    ".into_keys()",
    ".into_values()",
    ".drain()",
    ".retain(",
    ".extract_if(",
];

/// Words that a deciding module must not mention in code. Addresses of `std::net` are data, and allowed.
pub(crate) fn banned_words(source: &Source) -> Vec<String> {
    if !is_pure(source) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (line, code) in source.lines() {
        for word in BANNED {
            let mentioned = code
                .match_indices(word)
                .any(|(at, _)| is_word_at(code, at, word.len()) && !code[at + word.len()..].starts_with("::IpAddr"));
            if mentioned {
                found.push(format!("{}:{line}: a deciding module mentions {word}", source.path));
            }
        }
    }
    found
}

/// Iterations over maps and sets whose order differs from run to run. A name declared as such a map anywhere in a module
/// counts in all files of that module, since fields are used across files.
pub(crate) fn random_iterations(sources: &[Source]) -> Vec<String> {
    let pure: Vec<&Source> = sources.iter().filter(|source| is_pure(source) && !source.is_test()).collect();
    let mut found = Vec::new();
    for source in &pure {
        let module = source.module().first().copied();
        let siblings = pure.iter().filter(|sibling| sibling.module().first().copied() == module);
        let names: BTreeSet<&str> = siblings.flat_map(|sibling| seeded_names(&sibling.code)).collect();
        for name in names {
            for line in iterations(&source.code, name) {
                found.push(format!("{}:{line}: iterates `{name}`, a map with a random seed", source.path));
            }
        }
    }
    found
}

fn is_pure(source: &Source) -> bool {
    let inner = source.path.strip_prefix("src/").unwrap_or(&source.path);
    PURE.iter().any(|pure| inner.starts_with(pure))
}

/// Fields and variables that hold a standard map or set with the standard, randomly seeded hasher.
fn seeded_names(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (kind, arguments_max) in [("HashMap", 2), ("HashSet", 1)] {
        for (at, _) in code.match_indices(kind) {
            let rest = &code[at + kind.len()..];
            let seeded = match rest.strip_prefix('<') {
                Some(arguments) => arguments_of(arguments) <= arguments_max,
                None => rest.starts_with("::new") || rest.starts_with("::with_capacity("),
            };
            let before = code[..at].trim_end_matches("std::collections::").trim_end();
            let before = before.trim_end_matches(['=', ':', '&']).trim_end();
            let start = before.rfind(|character: char| !character.is_ascii_alphanumeric() && character != '_');
            let name = &before[start.map_or(0, |start| start + 1)..];
            let is_name = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
            if seeded && is_name && is_word_at(code, at, kind.len()) {
                names.push(name);
            }
        }
    }
    names
}

/// How many type arguments stand before the closing bracket.
fn arguments_of(text: &str) -> usize {
    let (mut depth, mut count) = (0, 1);
    for (at, character) in text.char_indices() {
        match character {
            '<' | '(' | '[' => depth += 1,
            '>' if depth == 0 => break,
            '>' if !text[..at].ends_with('-') => depth -= 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

/// Lines on which `name` is iterated.
fn iterations(code: &str, name: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    for (at, _) in code.match_indices(name) {
        if !is_word_at(code, at, name.len()) {
            continue;
        }
        let rest = code[at + name.len()..].trim_start();
        let called = ITERATIONS.iter().any(|iteration| rest.starts_with(iteration));
        let before = code[..at].trim_end_matches("self.").trim_end_matches('&');
        let before = before.strip_suffix("mut ").map_or(before, |before| before.trim_end_matches('&'));
        let looped = before.ends_with(" in ") && identifier(rest).is_empty() && rest.starts_with('{');
        if called || looped {
            lines.push(code[..at].matches('\n').count() + 1);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(path: &str, text: &str) -> usize {
        banned_words(&Source::new(path, text)).len()
    }

    fn iterated(text: &str) -> usize {
        random_iterations(&[Source::new("src/queue/mod.rs", text)]).len()
    }

    #[test]
    fn banned_words_are_found_in_deciding_modules_only() {
        assert_eq!(words("src/queue/fifo.rs", "use tokio::sync::mpsc;"), 1);
        assert_eq!(words("src/broker/shard/mod.rs", "let now = std::time::Instant::now();"), 1);
        assert_eq!(words("src/broker/mod.rs", "use tokio::sync::Notify;"), 0);
        assert_eq!(words("src/model/ids.rs", "// tokio\nlet operand = \"tokio\";"), 0);
    }

    #[test]
    fn iterations_of_seeded_maps_are_found() {
        assert_eq!(iterated("struct A { names: HashMap<u8, Vec<u8>> }\nfn f(a: A) { a.names.values(); }"), 1);
        assert_eq!(iterated("let mut seen = HashSet::new(); for one in &seen { }"), 1);
        assert_eq!(iterated("let seen: HashSet<u8> = g(); for one in self.seen {}"), 1);
    }

    #[test]
    fn other_uses_pass() {
        assert_eq!(iterated("struct A { names: HashMap<u8, u8, Fixed> }\nfn f(a: A) { a.names.values(); }"), 0);
        assert_eq!(iterated("struct A { names: HashMap<u8, u8> }\nfn f(a: A) { a.names.get(&1); }"), 0);
        assert_eq!(iterated("struct A { names: BTreeMap<u8, u8> }\nfn f(a: A) { a.names.values(); }"), 0);
    }
}
