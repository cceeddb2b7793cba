//! Source files: finding them, and telling code from comments and literals.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories of tools, builds and test inputs, wherever they lie.
const SKIPPED: [&str; 9] =
    ["target", ".git", "node_modules", ".venv", "__pycache__", ".cache", "corpus", "artifacts", "build"];

/// One Rust file.
pub(crate) struct Source {
    /// Relative to the repository, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with comments and the contents of literals blanked; lines stay where they are.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: code_only(text) }
    }

    /// The names of the module the file is, from the crate root: `["broker", "shard"]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let mut names: Vec<&str> = inner.trim_end_matches(".rs").split('/').collect();
        if matches!(names.last(), Some(&"mod" | &"lib" | &"main")) {
            names.pop();
        }
        names
    }

    /// Whether the whole file exists for tests.
    pub(crate) fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
    }

    /// The code's lines, numbered from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(at, line)| (at + 1, line))
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that people wrote, relative to the repository.
pub(crate) fn repository_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort();
    found
}

/// The Rust files below a directory of the repository.
pub(crate) fn rust_sources(below: &str) -> Vec<Source> {
    let sources: Vec<Source> = repository_files()
        .iter()
        .filter(|path| path.starts_with(below) && path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            Source::new(&slashes(path), &fs::read_to_string(root().join(path)).expect("the repository can be read"))
        })
        .collect();
    assert!(!sources.is_empty(), "no Rust files below {below}");
    sources
}

pub(crate) fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the repository can be read") {
        let entry = entry.expect("the repository can be read");
        let (name, kind) = (entry.file_name(), entry.file_type().expect("the repository can be read"));
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            collect(&entry.path(), found);
        } else if kind.is_file() && name != ".git" {
            found.push(entry.path().strip_prefix(root()).expect("the repository can be read").to_owned());
        }
    }
}

/// Whether `word` stands at `at` as a whole word.
pub(crate) fn is_word_at(text: &str, at: usize, length: usize) -> bool {
    let part_of_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    !part_of_word(before) && !part_of_word(bytes.get(at + length))
}

/// The identifier at the start of `text`.
pub(crate) fn identifier(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

/// Blanks comments and the contents of string and character literals.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = literal_or_comment(rest, code.as_bytes().last().copied());
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().map(|skipped| if skipped == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of the comment or literal that `rest` begins with; 0 when it begins with code.
fn literal_or_comment(rest: &str, before: Option<u8>) -> usize {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest);
    }
    if !in_word && (rest.starts_with("r\"") || rest.starts_with("r#") || rest.starts_with("br")) {
        return raw_string(rest);
    }
    if rest.starts_with('\'') { character(rest) } else { 0 }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> usize {
    let after = rest.trim_start_matches(['b', 'r']);
    let hashes = after.len() - after.trim_start_matches('#').len();
    // An identifier such as `r#type` or `brief`.
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let start = rest.len() - after.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    rest[start..].find(&end).map_or(rest.len(), |found| start + found + end.len())
}

/// A character literal; 0 for a lifetime.
fn character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            characters.next();
            characters.find(|(_, character)| *character == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let text = "let a = 'x'; // tokio\nlet b: &'a str = \"std::fs\"; /* a /* b */ c\n*/ let c = r#\"tokio\"\"#; let brief = '\\'';";
    let code = code_only(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains("tokio") && !code.contains("std::fs") && !code.contains('c') || code.contains("let c"));
    assert!(code.contains("let b: &'a str") && code.contains("let brief ="));
    assert_eq!(code.len(), text.len());
}

#[test]
fn files_know_their_modules() {
    assert_eq!(Source::new("src/broker/shard/mod.rs", "").module(), ["broker", "shard"]);
    assert_eq!(Source::new("src/broker/mod.rs", "").module(), ["broker"]);
    assert_eq!(Source::new("src/lib.rs", "").module(), [""; 0]);
    assert!(Source::new("src/queue/model_tests.rs", "").is_test());
    assert!(!Source::new("src/queue/mod.rs", "").is_test());
}
