//! Durations and sizes with their units, read and written.

use std::time::Duration;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// Milliseconds in each unit, the largest first.
const DURATION_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes in each unit. Writing takes the first that divides the size.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", GIB),
    ("GB", 1_000_000_000),
    ("MiB", MIB),
    ("MB", 1_000_000),
    ("KiB", KIB),
    ("kB", 1_000),
    ("B", 1),
];

/// The names for messages, the smallest first.
pub(crate) const DURATION_UNIT_NAMES: &str = "ms, s, m, h, d";
pub(crate) const SIZE_UNIT_NAMES: &str = "B, kB, KiB, MB, MiB, GB, GiB, TB, TiB";

/// Reads `"60s"`; zero needs no unit. None without a unit, with an unknown one, or past 64 bits.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let unit = |name: &str| DURATION_UNITS.iter().find(|(unit, _)| *unit == name).map(|unit| unit.1);
    parse(text, unit).map(Duration::from_millis)
}

/// Reads `"16MiB"` (1024 each step) or `"100MB"` (1000 each step); zero needs no unit.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let same = |unit: &str, name: &str| unit.eq_ignore_ascii_case(name);
    parse(text, |name| SIZE_UNITS.iter().find(|(unit, _)| same(unit, name)).map(|unit| unit.1))
}

fn parse(text: &str, unit: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, name) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match name.trim_start() {
        "" => (number == 0).then_some(0),
        name => number.checked_mul(unit(name)?),
    }
}

/// The duration in the largest unit that says it exactly, to the millisecond. One minute, hour or
/// day is written in the next smaller unit (60s, 60m, 24h), as people write it.
pub(crate) fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let readable =
        |(_, unit): &&(&str, u64)| milliseconds.is_multiple_of(*unit) && (milliseconds > *unit || *unit <= 1_000);
    written(milliseconds, "s", DURATION_UNITS.iter().find(readable))
}

/// The size in the largest unit that says it exactly.
pub(crate) fn size_text(bytes: u64) -> String {
    written(bytes, "B", SIZE_UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit)))
}

fn written(number: u64, zero_unit: &str, unit: Option<&(&str, u64)>) -> String {
    match unit {
        Some((name, unit)) if number > 0 => format!("{}{name}", number / unit),
        _ => format!("{number}{zero_unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds, written) in [
            ("60s", 60_000, "60s"),
            ("120s", 120_000, "2m"),
            ("1s", 1_000, "1s"),
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "90s"),
            ("30m", 1_800_000, "30m"),
            ("2h", 7_200_000, "2h"),
            ("1d", 86_400_000, "24h"),
            ("7d", 604_800_000, "7d"),
            (" 5 s ", 5_000, "5s"),
            ("0s", 0, "0s"),
            ("0", 0, "0s"),
        ] {
            let duration = parse_duration(text);
            assert_eq!(duration, Some(Duration::from_millis(milliseconds)), "{text}");
            assert_eq!(duration.map(duration_text).as_deref(), Some(written), "{text}");
        }
        for text in ["", "s", "60", "1.5s", "-1s", "60S", "60 seconds", "1h30m", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_duration("18446744073709551615d"), None, "more than 64 bits");
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("16MiB", 16 << 20, "16MiB"),
            ("100MB", 100_000_000, "100MB"),
            ("128KiB", 131_072, "128KiB"),
            ("128kib", 131_072, "128KiB"),
            ("1000B", 1_000, "1kB"),
            ("17B", 17, "17B"),
            ("2TiB", 2 << 40, "2TiB"),
            ("1 GB", 1_000_000_000, "1GB"),
            ("0", 0, "0B"),
        ] {
            let size = parse_size(text);
            assert_eq!(size, Some(bytes), "{text}");
            assert_eq!(size.map(size_text).as_deref(), Some(written), "{text}");
        }
        for text in ["", "MiB", "16", "16M", "1.5GiB", "-1B", "16 megabytes", "99999999TiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
