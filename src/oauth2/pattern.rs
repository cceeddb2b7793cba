//! Patterns in scopes: text in percent-encoding, `*` for anything, `{vhost}` and `{claim}` for values.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// A pattern for all of a name. Values that stand in for variables are taken as they are: a `*` in a claim is no wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// What stands before, between and after the wildcards: one more than there are of them.
    chunks: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Vhost,
}

impl Pattern {
    /// None when it is malformed, or speaks of a claim that is no text or is not there: it matches nothing then.
    pub(super) fn parse(text: &str, claims: &Map<String, Value>) -> Option<Self> {
        let chunks = text.split('*').map(|chunk| pieces(chunk, claims)).collect::<Option<_>>()?;
        Some(Self { chunks })
    }

    pub(super) fn matches(&self, subject: &str, vhost: &str) -> bool {
        let mut rest = subject.as_bytes();
        let Some((first, others)) = self.chunks.split_first() else { return false };
        let Some(after) = rest.strip_prefix(&*text_of(first, vhost)) else { return false };
        rest = after;
        let Some((last, middle)) = others.split_last() else { return rest.is_empty() };
        for chunk in middle {
            let chunk = text_of(chunk, vhost);
            let Some(at) = find(rest, &chunk) else { return false };
            rest = &rest[at + chunk.len()..];
        }
        rest.ends_with(&text_of(last, vhost))
    }
}

fn text_of<'a>(pieces: &'a [Piece], vhost: &'a str) -> Cow<'a, [u8]> {
    match pieces {
        [] => Cow::Borrowed(&[]),
        [Piece::Text(text)] => Cow::Borrowed(text),
        [Piece::Vhost] => Cow::Borrowed(vhost.as_bytes()),
        pieces => {
            let bytes = pieces.iter().flat_map(|piece| match piece {
                Piece::Text(text) => text.iter(),
                Piece::Vhost => vhost.as_bytes().iter(),
            });
            Cow::Owned(bytes.copied().collect())
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn pieces(mut text: &str, claims: &Map<String, Value>) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while let Some((before, rest)) = text.split_once('{') {
        let Some((name, after)) = rest.split_once('}') else { break };
        push_text(&mut pieces, before)?;
        match name {
            "vhost" => pieces.push(Piece::Vhost),
            name => pieces.push(Piece::Text(claims.get(name)?.as_str()?.as_bytes().to_vec())),
        }
        text = after;
    }
    push_text(&mut pieces, text)?;
    Some(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, encoded: &str) -> Option<()> {
    if !encoded.is_empty() {
        pieces.push(Piece::Text(decode(encoded)?));
    }
    Some(())
}

/// Takes percent-encoding and `+` for a space back; none when a `%` has no two digits.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                let value = digit()? * 16 + digit()?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        let claims = serde_json::json!({ "sub": "ann", "wild": "*", "number": 1 });
        let claims = claims.as_object().cloned().unwrap_or_default();
        Pattern::parse(pattern, &claims).is_some_and(|pattern| pattern.matches(subject, "prod/eu"))
    }

    #[test]
    fn patterns_match_all_of_a_name() {
        let cases = [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "x", false),
            ("orders", "orders", true),
            ("orders", "orders.new", false),
            ("orders*", "orders.new", true),
            ("*new", "old.new.new", true),
            ("o*s*w", "orders.new", true),
            ("o*s*w", "orders.old", false),
            ("a*a", "a", false),
            ("a**", "a", true),
            ("%2F", "/", true),
            ("a%2a", "a*", true),
            ("a%2a", "ab", false),
            ("a+b%2Bc", "a b+c", true),
            ("%zz", "%zz", false),
            ("%2", "%2", false),
            ("q-{sub}-*", "q-ann-1", true),
            ("q-{sub}-*", "q-bob-1", false),
            ("{vhost}.x", "prod/eu.x", true),
            ("{wild}", "anything", false),
            ("{wild}", "*", true),
            ("{missing}", "missing", false),
            ("{number}", "1", false),
            ("{open", "{open", true),
        ];
        for (pattern, subject, expected) in cases {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }
}
