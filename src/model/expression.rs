//! What is wrong with a text that should be a regular expression.

use std::fmt;

use fancy_regex::{CompileError, Error};

/// Why a pattern is no regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternFault {
    /// In one line.
    pub reason: String,
    /// Characters of the pattern up to where it was noticed.
    pub place: usize,
}

impl PatternFault {
    /// Reads what the library says of `pattern`.
    #[must_use]
    pub fn of(pattern: &str, error: &Error) -> Self {
        let whole = pattern.chars().count();
        match error {
            Error::ParseError(at, kind) => {
                let before = pattern.get(..*at).unwrap_or(pattern);
                Self { reason: kind.to_string(), place: before.chars().count() }
            }
            Error::CompileError(kind) => match &**kind {
                CompileError::InnerError(error) => match error.syntax_error() {
                    Some(error) => Self::of_drawing(&error.to_string(), whole),
                    None => Self { reason: one_line(&error.to_string()), place: whole },
                },
                kind => Self { reason: one_line(&kind.to_string()), place: whole },
            },
            error => Self { reason: one_line(&error.to_string()), place: whole },
        }
    }

    /// Of an error that draws the pattern, with carets below the place, and says the reason last.
    fn of_drawing(drawing: &str, whole: usize) -> Self {
        const INDENT: usize = 4;
        let carets = drawing.lines().find(|line| line.contains('^') && line.trim().chars().all(|mark| mark == '^'));
        let place = carets.map_or(whole, |line| line.len().saturating_sub(INDENT));
        let reason = drawing.lines().rev().find_map(|line| line.strip_prefix("error: "));
        Self { reason: reason.map_or_else(|| one_line(drawing), str::to_owned), place: place.min(whole) }
    }
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at position {}", self.reason, self.place)
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_and_the_place_are_told_in_one_line() {
        for (pattern, reason, places) in [
            ("(a", "parenthesis", 0..=2),
            ("ab[", "class", 2..=3),
            ("*a", "repe", 0..=1),
            ("ab[z-a]", "range", 3..=7),
            ("ä\\", "ackslash", 1..=2),
        ] {
            let error = fancy_regex::Regex::new(pattern).unwrap_err();
            let fault = PatternFault::of(pattern, &error);
            assert!(fault.reason.contains(reason) && !fault.reason.contains('\n'), "{pattern}: {fault}");
            assert!(places.contains(&fault.place), "{pattern}: {fault}");
        }
    }
}
