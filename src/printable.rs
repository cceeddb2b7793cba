//! Text that others chose, made safe for a line of the log and for a terminal: what would end the line, move the cursor or
//! reorder what is shown is written as JSON writes it, `\n` or `\u001b`.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// No control character at all.
    Line,
    /// Ends of lines and tabs.
    Lines,
}

/// One line: every control character is escaped, ends of lines among them.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, Layout::Line)
}

/// Lines: every control character is escaped but for ends of lines and tabs.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, Layout::Lines)
}

fn escape(text: &str, layout: Layout) -> Cow<'_, str> {
    let Some(first) = text.find(|character| is_unsafe(character, layout)) else { return Cow::Borrowed(text) };
    let (safe, rest) = text.split_at(first);
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(safe);
    for character in rest.chars() {
        match character {
            _ if !is_unsafe(character, layout) => escaped.push(character),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            // All of them are below U+FFFF. Writing to a string does not fail.
            _ => drop(write!(escaped, "\\u{:04x}", u32::from(character))),
        }
    }
    Cow::Owned(escaped)
}

fn is_unsafe(character: char, layout: Layout) -> bool {
    match character {
        '\n' | '\t' => layout == Layout::Line,
        // Ends of lines and paragraphs to some programs, and marks that turn the direction of what follows.
        '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        _ => character.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_its_line() {
        assert_eq!(line("plain: \"Grüße\" \\n ✓"), "plain: \"Grüße\" \\n ✓");
        assert!(matches!(line("plain"), Cow::Borrowed("plain")));
        assert_eq!(line("a\r\nb\tc\0"), "a\\r\\nb\\tc\\u0000");
        assert_eq!(line("\x1b[2J\x7f\u{9b}1m\u{2028}\u{202e}"), "\\u001b[2J\\u007f\\u009b1m\\u2028\\u202e");
        assert_eq!(lines("a\n\tb\r\x1b"), "a\n\tb\\r\\u001b");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let value = serde_json::json!({"name": "a\x7f\u{85}\u{2029}\u{2066}b\n"});
        let text = value.to_string();
        let escaped = lines(&text);
        assert!(escaped.chars().all(|character| !character.is_control()));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
