//! Values as they were written, with the place each one came from, before a key gives them a type.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::origin::{Origin, Problems};

/// A value as written, and where.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) origin: Origin,
    pub(crate) value: RawValue,
}

#[derive(Clone, Debug)]
pub(crate) enum RawValue {
    /// The text of an environment variable or a flag, which has no type of its own.
    Plain(String),
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A number with a fraction, a date or an integer past 64 bits: no key takes one.
    Unusable(String),
    List(Vec<Raw>),
    Table(Vec<RawEntry>),
}

/// A key and its value inside a table.
#[derive(Clone, Debug)]
pub(crate) struct RawEntry {
    pub(crate) name: String,
    /// The place of the name, not of the value.
    pub(crate) origin: Origin,
    pub(crate) value: Raw,
}

impl Raw {
    pub(crate) fn plain(origin: Origin, text: impl Into<String>) -> Self {
        Self { origin, value: RawValue::Plain(text.into()) }
    }

    /// The value as a message quotes it: `got 60`, `got "60 seconds"`, `got a list`.
    pub(crate) fn quoted(&self) -> String {
        match &self.value {
            RawValue::Plain(text) if text.parse::<f64>().is_ok() => text.clone(),
            RawValue::Plain(text) | RawValue::Text(text) => format!("{text:?}"),
            RawValue::Integer(number) => number.to_string(),
            RawValue::Boolean(value) => value.to_string(),
            RawValue::Unusable(text) => text.clone(),
            RawValue::List(_) => "a list".to_owned(),
            RawValue::Table(_) => "a table".to_owned(),
        }
    }

    /// The text of a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            RawValue::Plain(text) | RawValue::Text(text) => Some(text),
            RawValue::Integer(_)
            | RawValue::Boolean(_)
            | RawValue::Unusable(_)
            | RawValue::List(_)
            | RawValue::Table(_) => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match &self.value {
            RawValue::Plain(text) => text.trim().parse().ok(),
            RawValue::Integer(number) => Some(*number),
            RawValue::Text(_)
            | RawValue::Boolean(_)
            | RawValue::Unusable(_)
            | RawValue::List(_)
            | RawValue::Table(_) => None,
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match &self.value {
            RawValue::Plain(text) => text.trim().parse().ok(),
            RawValue::Boolean(value) => Some(*value),
            RawValue::Text(_)
            | RawValue::Integer(_)
            | RawValue::Unusable(_)
            | RawValue::List(_)
            | RawValue::Table(_) => None,
        }
    }

    /// The elements of a list. Outside a file a list is written `a,b` or, where elements have
    /// commas or are tables, as in TOML: `["a", "b"]`.
    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        match &self.value {
            RawValue::List(elements) => Some(elements.clone()),
            RawValue::Plain(text) if text.trim().is_empty() => Some(Vec::new()),
            RawValue::Plain(text) if text.trim_start().starts_with('[') => match self.toml(text)? {
                RawValue::List(elements) => Some(elements),
                RawValue::Plain(_)
                | RawValue::Text(_)
                | RawValue::Integer(_)
                | RawValue::Boolean(_)
                | RawValue::Unusable(_)
                | RawValue::Table(_) => None,
            },
            RawValue::Plain(text) => {
                let element = |part: &str| Self::plain(self.origin.clone(), part.trim());
                Some(text.split(',').map(element).collect())
            }
            RawValue::Text(_)
            | RawValue::Integer(_)
            | RawValue::Boolean(_)
            | RawValue::Unusable(_)
            | RawValue::Table(_) => None,
        }
    }

    /// The entries of a table. Outside a file a table is written `a=b,c=d` or, where values have
    /// commas, as in TOML: `{ a = "b", c = "d" }`.
    pub(crate) fn table(&self) -> Option<Vec<RawEntry>> {
        match &self.value {
            RawValue::Table(entries) => Some(entries.clone()),
            RawValue::Plain(text) if text.trim().is_empty() => Some(Vec::new()),
            RawValue::Plain(text) if text.trim_start().starts_with('{') => match self.toml(text)? {
                RawValue::Table(entries) => Some(entries),
                RawValue::Plain(_)
                | RawValue::Text(_)
                | RawValue::Integer(_)
                | RawValue::Boolean(_)
                | RawValue::Unusable(_)
                | RawValue::List(_) => None,
            },
            RawValue::Plain(text) => text.split(',').map(|part| self.pair(part)).collect(),
            RawValue::Text(_)
            | RawValue::Integer(_)
            | RawValue::Boolean(_)
            | RawValue::Unusable(_)
            | RawValue::List(_) => None,
        }
    }

    fn pair(&self, part: &str) -> Option<RawEntry> {
        let (name, value) = part.split_once('=')?;
        let value = Self::plain(self.origin.clone(), value.trim());
        Some(RawEntry { name: name.trim().to_owned(), origin: self.origin.clone(), value })
    }

    /// Reads TOML given outside a file: every part of it has the origin of the whole.
    fn toml(&self, text: &str) -> Option<RawValue> {
        let value = DeValue::parse(text.trim()).ok()?;
        Some(convert(value.get_ref(), &|_| self.origin.clone()))
    }
}

/// Reads a file's text into its top-level entries; syntax errors go to `problems`.
///
/// A syntax error makes nonsense of what follows it, so then each section is read by itself: the
/// first error of each is told, and sections without one are still checked.
pub(crate) fn parse_file(file: &str, text: &str, problems: &mut Problems) -> Vec<RawEntry> {
    let file: Arc<str> = Arc::from(file);
    let place = |offset: usize| {
        let before = text.as_bytes().iter().take(offset);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        Origin::File { file: Arc::clone(&file), line }
    };
    let error = match DeTable::parse(text) {
        Ok(table) => return entries(table.get_ref(), &place),
        Err(error) => error,
    };
    let mut found = Vec::new();
    let mut told = false;
    for start in section_starts(text).windows(2) {
        let &[start, end] = start else { continue };
        match DeTable::parse(&text[start..end]) {
            Ok(table) => found.extend(entries(table.get_ref(), &|offset| place(start + offset))),
            Err(error) => {
                told = true;
                tell(&error, &|offset| place(start + offset), problems);
            }
        }
    }
    if !told {
        // Each section is right by itself: one of them is there twice.
        tell(&error, &place, problems);
    }
    found
}

fn tell(error: &toml::de::Error, place: &impl Fn(usize) -> Origin, problems: &mut Problems) {
    let offset = error.span().map_or(0, |span| span.start);
    problems.other(&place(offset), error.message().replace('\n', ", "));
}

/// Where the file and each of its sections begin, and where the last one ends.
fn section_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.starts_with('[') {
            starts.push(offset);
        }
        offset += line.len();
    }
    starts.push(text.len());
    starts
}

fn entries(table: &DeTable<'_>, place: &impl Fn(usize) -> Origin) -> Vec<RawEntry> {
    let entry = |(name, value): (&Spanned<_>, &Spanned<_>)| {
        let name: (&std::borrow::Cow<'_, str>, usize) = (name.get_ref(), name.span().start);
        RawEntry { name: name.0.to_string(), origin: place(name.1), value: spanned(value, place) }
    };
    table.iter().map(entry).collect()
}

fn spanned(value: &Spanned<DeValue<'_>>, place: &impl Fn(usize) -> Origin) -> Raw {
    Raw { origin: place(value.span().start), value: convert(value.get_ref(), place) }
}

fn convert(value: &DeValue<'_>, place: &impl Fn(usize) -> Origin) -> RawValue {
    match value {
        DeValue::String(text) => RawValue::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => RawValue::Integer(number),
            Err(_) => RawValue::Unusable(number.to_string()),
        },
        DeValue::Float(number) => RawValue::Unusable(number.as_str().to_owned()),
        DeValue::Boolean(value) => RawValue::Boolean(*value),
        DeValue::Datetime(date) => RawValue::Unusable(date.to_string()),
        DeValue::Array(elements) => RawValue::List(elements.iter().map(|element| spanned(element, place)).collect()),
        DeValue::Table(table) => RawValue::Table(entries(table, place)),
    }
}
