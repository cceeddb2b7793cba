//! The kinds of value that have a unit: durations, sizes, the memory watermark.

use std::time::Duration;

use super::kind::{Kind, Secrets, toml_text};
use super::origin::Problems;
use super::raw::Raw;
use super::types::{FreeLimit, HighWatermark};
use super::units::{DURATION_UNIT_NAMES, SIZE_UNIT_NAMES, duration_text, parse_duration, parse_size, size_text};

/// A duration between two others.
pub(crate) struct Time {
    pub(crate) least: Duration,
    pub(crate) most: Duration,
    /// Where the protocol counts in seconds.
    pub(crate) whole_seconds: bool,
}

impl Time {
    pub(crate) const fn between(least: Duration, most: Duration) -> Self {
        Self { least, most, whole_seconds: false }
    }
}

impl Kind for Time {
    type Value = Duration;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Duration> {
        let zero = (raw.integer() == Some(0)).then_some(Duration::ZERO);
        let Some(time) = zero.or_else(|| raw.text().and_then(parse_duration)) else {
            refuse_unit(self, DURATION_UNIT_NAMES, key, raw, problems);
            return None;
        };
        let text = duration_text(time);
        let message = if time < self.least {
            format!("{text} is below the minimum {}", duration_text(self.least))
        } else if time > self.most {
            format!("{text} is above the maximum {}", duration_text(self.most))
        } else if self.whole_seconds && time.subsec_millis() > 0 {
            format!("{text} is not a whole number of seconds (the protocol counts in seconds)")
        } else {
            return Some(time);
        };
        problems.value(&raw.origin, key, message);
        None
    }

    fn write(&self, value: &Duration, _: Secrets) -> String {
        toml_text(&duration_text(*value))
    }

    fn expects(&self) -> String {
        "a duration with a unit such as \"60s\"".to_owned()
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", duration_text(self.least), duration_text(self.most)))
    }
}

/// Refuses a value that needs a unit, naming the units where another one was written.
fn refuse_unit<K: Kind>(kind: &K, units: &str, key: &str, raw: &Raw, problems: &mut Problems) {
    let text = raw.text().unwrap_or_default();
    let number = text.trim().parse::<f64>().is_ok();
    if text.is_empty() || number {
        return kind.refuse(key, raw, problems);
    }
    let (expects, got) = (kind.expects(), raw.quoted());
    let message = format!("expected {expects}, got {got} (whole numbers; the units are {units})");
    problems.value(&raw.origin, key, message);
}

/// A number of bytes between two others.
pub(crate) struct Size<T> {
    pub(crate) least: T,
    pub(crate) most: T,
    /// Why there is nothing smaller, or empty.
    pub(crate) reason: &'static str,
}

impl<T> Size<T> {
    pub(crate) const fn between(least: T, most: T) -> Self {
        Self { least, most, reason: "" }
    }
}

impl<T> Kind for Size<T>
where
    T: Copy + Into<u64> + TryFrom<u64>,
{
    type Value = T;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<T> {
        let zero = (raw.integer() == Some(0)).then_some(0);
        let Some(size) = zero.or_else(|| raw.text().and_then(parse_size)) else {
            refuse_unit(self, SIZE_UNIT_NAMES, key, raw, problems);
            return None;
        };
        let text = size_text(size);
        let message = if size < self.least.into() {
            let least = size_text(self.least.into());
            format!("{text} is below the minimum {least}{}", self.reason)
        } else if size > self.most.into() {
            format!("{text} is above the maximum {}", size_text(self.most.into()))
        } else {
            return T::try_from(size).ok();
        };
        problems.value(&raw.origin, key, message);
        None
    }

    fn write(&self, value: &T, _: Secrets) -> String {
        toml_text(&size_text((*value).into()))
    }

    fn expects(&self) -> String {
        "a size with a unit such as \"16MiB\"".to_owned()
    }

    fn range(&self) -> Option<String> {
        Some(format!("{} to {}", size_text(self.least.into()), size_text(self.most.into())))
    }
}

/// A share of the machine's memory, or a size.
pub(crate) struct Watermark;

impl Kind for Watermark {
    type Value = HighWatermark;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<HighWatermark> {
        let text = raw.text().unwrap_or_default().trim();
        let value = match text.strip_suffix('%') {
            Some(number) => number.trim().parse().ok().map(HighWatermark::Percent),
            None => parse_size(text).map(HighWatermark::Bytes),
        };
        let message = match value {
            Some(HighWatermark::Percent(percent)) if !(1..=100).contains(&percent) => {
                format!("{percent}% is not from 1% to 100%")
            }
            Some(HighWatermark::Bytes(0)) => "must not be 0: publishers would always be blocked".into(),
            Some(value) => return Some(value),
            None => {
                refuse_unit(self, &format!("%, {SIZE_UNIT_NAMES}"), key, raw, problems);
                return None;
            }
        };
        problems.value(&raw.origin, key, message);
        None
    }

    fn write(&self, value: &HighWatermark, _: Secrets) -> String {
        toml_text(&match value {
            HighWatermark::Percent(percent) => format!("{percent}%"),
            HighWatermark::Bytes(bytes) => size_text(*bytes),
        })
    }

    fn expects(&self) -> String {
        "a share such as \"60%\" or a size such as \"4GiB\"".to_owned()
    }

    fn range(&self) -> Option<String> {
        Some("1% to 100%".to_owned())
    }
}

/// A free space: a size, or a share of the memory.
pub(crate) struct FreeSpace;

impl Kind for FreeSpace {
    type Value = FreeLimit;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<FreeLimit> {
        let text = raw.text().unwrap_or_default().trim();
        let value = match text.strip_suffix('%') {
            Some(number) => number.trim().parse().ok().map(FreeLimit::Percent),
            None => parse_size(text).map(FreeLimit::Bytes),
        };
        match value {
            Some(FreeLimit::Percent(percent)) if !(1..=1000).contains(&percent) => {
                problems.value(&raw.origin, key, format!("{percent}% is not from 1% to 1000%"));
                None
            }
            Some(value) => Some(value),
            None => {
                refuse_unit(self, &format!("%, {SIZE_UNIT_NAMES}"), key, raw, problems);
                None
            }
        }
    }

    fn write(&self, value: &FreeLimit, _: Secrets) -> String {
        toml_text(&match value {
            FreeLimit::Percent(percent) => format!("{percent}%"),
            FreeLimit::Bytes(bytes) => size_text(*bytes),
        })
    }

    fn expects(&self) -> String {
        "a size such as \"50MiB\" or a share of the memory such as \"100%\"".to_owned()
    }

    fn range(&self) -> Option<String> {
        Some("1% to 1000%".to_owned())
    }
}
