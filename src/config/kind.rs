//! The kinds of value a key can take: each reads, checks, describes and writes its own.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::model::expression::PatternFault;

use super::nearest::nearest;
use super::origin::Problems;
use super::raw::Raw;
use super::types::{Choice, Secret};

/// Whether secrets are written or masked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Plain,
    Masked,
}

/// One kind of value.
pub(crate) trait Kind {
    type Value;

    /// The value, or None after telling `problems` what is wrong with it.
    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Self::Value>;

    /// The value as TOML.
    fn write(&self, value: &Self::Value, secrets: Secrets) -> String;

    /// What may stand there: `a duration with a unit such as "60s"`.
    fn expects(&self) -> String;

    /// The range, where it is not a part of what is expected: `4KiB to 1MiB`.
    fn range(&self) -> Option<String> {
        None
    }

    /// Tells that `raw` is of another kind altogether.
    fn refuse(&self, key: &str, raw: &Raw, problems: &mut Problems) {
        let message = format!("expected {}, got {}", self.expects(), raw.quoted());
        problems.value(&raw.origin, key, message);
    }
}

/// A string as TOML.
pub(crate) fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A key as TOML: quoted only where it has to be.
fn toml_key(key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(bare) { key.to_owned() } else { toml_text(key) }
}

/// Text of a limited length, in bytes.
pub(crate) struct Text {
    pub(crate) least: usize,
    pub(crate) most: usize,
}

impl Text {
    /// A name in AMQP, which is a short string.
    pub(crate) const NAME: Self = Self { least: 1, most: 255 };
    /// A name that may be left out.
    pub(crate) const NAME_OR_EMPTY: Self = Self { least: 0, most: 255 };
    /// Any text.
    pub(crate) const ANY: Self = Self { least: 0, most: usize::MAX };
}

impl Kind for Text {
    type Value = String;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<String> {
        let Some(text) = raw.text() else {
            self.refuse(key, raw, problems);
            return None;
        };
        if text.len() < self.least {
            problems.value(&raw.origin, key, "must not be empty");
            return None;
        }
        if text.len() > self.most {
            let message = format!("is {} bytes long, the maximum is {}", text.len(), self.most);
            problems.value(&raw.origin, key, message);
            return None;
        }
        Some(text.to_owned())
    }

    fn write(&self, value: &String, _: Secrets) -> String {
        toml_text(value)
    }

    fn expects(&self) -> String {
        "a text in quotes".to_owned()
    }
}

/// A regular expression, as permissions have them.
pub(crate) struct Expression;

impl Kind for Expression {
    type Value = String;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<String> {
        let pattern = Text::ANY.read(key, raw, problems)?;
        if let Err(error) = fancy_regex::Regex::new(&pattern) {
            let fault = PatternFault::of(&pattern, &error);
            problems.value(&raw.origin, key, format!("{pattern:?} is not a regular expression: {fault}"));
            return None;
        }
        Some(pattern)
    }

    fn write(&self, value: &String, _: Secrets) -> String {
        toml_text(value)
    }

    fn expects(&self) -> String {
        "a regular expression in quotes".to_owned()
    }
}

/// A password: never quoted in a message, never empty (nobody could log in with it).
pub(crate) struct Password;

impl Kind for Password {
    type Value = Secret;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Secret> {
        let Some(text) = raw.text() else {
            let message = format!("expected {}", self.expects());
            problems.value(&raw.origin, key, message);
            return None;
        };
        if text.is_empty() {
            let message = "must not be empty: nobody can log in with an empty password";
            problems.value(&raw.origin, key, message);
            return None;
        }
        Some(Secret::new(text))
    }

    fn write(&self, value: &Secret, secrets: Secrets) -> String {
        match secrets {
            Secrets::Plain => toml_text(value.expose()),
            Secrets::Masked => toml_text("********"),
        }
    }

    fn expects(&self) -> String {
        "a text in quotes".to_owned()
    }
}

/// A secret that may be left out, by an empty text; never quoted in a message.
pub(crate) struct OptionalPassword;

impl Kind for OptionalPassword {
    type Value = Option<Secret>;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Option<Secret>> {
        match raw.text() {
            Some("") => Some(None),
            _ => Password.read(key, raw, problems).map(Some),
        }
    }

    fn write(&self, value: &Option<Secret>, secrets: Secrets) -> String {
        value.as_ref().map_or_else(|| toml_text(""), |secret| Password.write(secret, secrets))
    }

    fn expects(&self) -> String {
        Password.expects()
    }
}

/// A path that has to be given.
pub(crate) struct Directory;

impl Kind for Directory {
    type Value = PathBuf;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<PathBuf> {
        Text { least: 1, ..Text::ANY }.read(key, raw, problems).map(PathBuf::from)
    }

    fn write(&self, value: &PathBuf, _: Secrets) -> String {
        toml_text(&value.to_string_lossy())
    }

    fn expects(&self) -> String {
        "a path".to_owned()
    }
}

/// A path that may be left out, by an empty text.
pub(crate) struct OptionalFile;

impl Kind for OptionalFile {
    type Value = Option<PathBuf>;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Option<PathBuf>> {
        let text = Text::ANY.read(key, raw, problems)?;
        Some((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn write(&self, value: &Option<PathBuf>, _: Secrets) -> String {
        toml_text(&value.as_ref().map_or_else(String::new, |path| path.to_string_lossy().into()))
    }

    fn expects(&self) -> String {
        "a path, or \"\" for none".to_owned()
    }
}

pub(crate) struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<bool> {
        let value = raw.boolean();
        if value.is_none() {
            self.refuse(key, raw, problems);
        }
        value
    }

    fn write(&self, value: &bool, _: Secrets) -> String {
        value.to_string()
    }

    fn expects(&self) -> String {
        "true or false".to_owned()
    }
}

/// A whole number between two others.
pub(crate) struct Number<T> {
    least: T,
    most: T,
}

impl<T> Number<T> {
    pub(crate) const fn between(least: T, most: T) -> Self {
        Self { least, most }
    }
}

impl<T> Kind for Number<T>
where
    T: Copy + PartialOrd + std::fmt::Display + Into<i64> + TryFrom<i64>,
{
    type Value = T;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<T> {
        let Some(number) = raw.integer() else {
            self.refuse(key, raw, problems);
            return None;
        };
        let (least, most) = (self.least.into(), self.most.into());
        let message = if number < least {
            format!("{number} is below the minimum {least}")
        } else if number > most {
            format!("{number} is above the maximum {most}")
        } else {
            return T::try_from(number).ok();
        };
        problems.value(&raw.origin, key, message);
        None
    }

    fn write(&self, value: &T, _: Secrets) -> String {
        value.to_string()
    }

    fn expects(&self) -> String {
        format!("a whole number from {} to {}", self.least, self.most)
    }
}

/// A TCP port: 0 takes a free one, -1 turns the listener off.
pub(crate) struct Port;

const PORTS: Number<i32> = Number::between(-1, 65_535);

impl Kind for Port {
    type Value = Option<u16>;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Option<u16>> {
        Some(u16::try_from(PORTS.read(key, raw, problems)?).ok())
    }

    fn write(&self, value: &Option<u16>, secrets: Secrets) -> String {
        PORTS.write(&value.map_or(-1, i32::from), secrets)
    }

    fn expects(&self) -> String {
        PORTS.expects()
    }
}

/// The address of this host that a listener binds.
pub(crate) struct Address;

impl Kind for Address {
    type Value = IpAddr;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<IpAddr> {
        let address = match raw.text() {
            Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            text => text.and_then(|text| text.parse().ok()),
        };
        if address.is_none() {
            self.refuse(key, raw, problems);
        }
        address
    }

    fn write(&self, value: &IpAddr, _: Secrets) -> String {
        toml_text(&value.to_string())
    }

    fn expects(&self) -> String {
        "an IP address such as \"127.0.0.1\" or \"0.0.0.0\"".to_owned()
    }
}

/// Another kind, whose zero means that there is none: no limit, never.
pub(crate) struct ZeroIsNone<K>(pub(crate) K);

impl<K> Kind for ZeroIsNone<K>
where
    K: Kind,
    K::Value: Copy + Default + PartialEq,
{
    type Value = Option<K::Value>;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Self::Value> {
        let value = self.0.read(key, raw, problems)?;
        Some((value != K::Value::default()).then_some(value))
    }

    fn write(&self, value: &Self::Value, secrets: Secrets) -> String {
        self.0.write(&value.unwrap_or_default(), secrets)
    }

    fn expects(&self) -> String {
        self.0.expects()
    }

    fn range(&self) -> Option<String> {
        self.0.range()
    }
}

/// One of a few names.
pub(crate) struct OneOf<T>(PhantomData<T>);

impl<T> OneOf<T> {
    pub(crate) const NEW: Self = Self(PhantomData);
}

impl<T: Choice> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<T> {
        let given = raw.text().unwrap_or_default();
        let value = T::ALL.iter().find(|value| value.name() == given);
        if value.is_none() {
            let mut message = format!("expected {}, got {}", self.expects(), raw.quoted());
            if let Some(name) = nearest(given, T::ALL.iter().map(Choice::name)) {
                message.push_str(&format!("; did you mean {name:?}?"));
            }
            problems.value(&raw.origin, key, message);
        }
        value.copied()
    }

    fn write(&self, value: &T, _: Secrets) -> String {
        toml_text(value.name())
    }

    fn expects(&self) -> String {
        let names: Vec<_> = T::ALL.iter().map(|value| format!("{:?}", value.name())).collect();
        match names.as_slice() {
            [only] => only.clone(),
            [names @ .., last] => format!("{} or {last}", names.join(", ")),
            [] => String::new(),
        }
    }
}

/// A list of another kind.
pub(crate) struct List<K> {
    pub(crate) of: K,
    pub(crate) least: usize,
}

impl<K> List<K> {
    pub(crate) const fn of(of: K) -> Self {
        Self { of, least: 0 }
    }
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Self::Value> {
        let Some(elements) = raw.list() else {
            self.refuse(key, raw, problems);
            return None;
        };
        if elements.len() < self.least {
            let message = format!("must name at least {}", self.least);
            problems.value(&raw.origin, key, message);
            return None;
        }
        let read = |(index, element): (usize, &Raw)| self.of.read(&format!("{key}[{index}]"), element, problems);
        // Every element is read, for the mistakes in each, before one that failed spoils the list.
        let values: Vec<_> = elements.iter().enumerate().map(read).collect();
        values.into_iter().collect()
    }

    fn write(&self, value: &Self::Value, secrets: Secrets) -> String {
        let elements: Vec<_> = value.iter().map(|value| self.of.write(value, secrets)).collect();
        format!("[{}]", elements.join(", "))
    }

    fn expects(&self) -> String {
        format!("a list ([...]), each {}", self.of.expects())
    }
}

/// A table from names to another kind.
pub(crate) struct Table<K>(pub(crate) K);

impl<K: Kind> Kind for Table<K> {
    type Value = BTreeMap<String, K::Value>;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Self::Value> {
        let Some(entries) = raw.table() else {
            self.refuse(key, raw, problems);
            return None;
        };
        let mut values = BTreeMap::new();
        let mut complete = true;
        for entry in entries {
            let inner = format!("{key}.{}", entry.name);
            match self.0.read(&inner, &entry.value, problems) {
                Some(value) => drop(values.insert(entry.name, value)),
                None => complete = false,
            }
        }
        complete.then_some(values)
    }

    fn write(&self, value: &Self::Value, secrets: Secrets) -> String {
        if value.is_empty() {
            return "{}".to_owned();
        }
        let write =
            |(name, value): (&String, &K::Value)| format!("{} = {}", toml_key(name), self.0.write(value, secrets));
        let entries: Vec<_> = value.iter().map(write).collect();
        format!("{{ {} }}", entries.join(", "))
    }

    fn expects(&self) -> String {
        format!("a table ({{ name = value }}), each value {}", self.0.expects())
    }
}
