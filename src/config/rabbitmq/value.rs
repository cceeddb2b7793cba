//! Values as RabbitMQ writes them, its units among them, and as the keys here take them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::super::raw::RawValue;

/// How a key of rabbitmq.conf writes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Text,
    Boolean,
    /// A whole number.
    Count,
    /// A whole number, or `infinity` for no limit, which is 0 here.
    Limit,
    /// A number of channels: 0 is no limit, which is the protocol's own.
    Channels,
    Seconds,
    Milliseconds,
    /// Milliseconds, of which the key here takes no more and no less.
    MillisecondsWithin(u64, u64),
    Bytes,
    /// Bytes, with units of 1024: 0 is no limit, which is 1 MiB here, as is more than that.
    FrameSize,
    Address,
}

const FRAME_MAX: u64 = 1 << 20;

/// A value for a key here.
pub(super) struct Translated {
    pub(super) value: RawValue,
    /// What is not quite as it was written.
    pub(super) remark: Option<String>,
}

impl Unit {
    /// The value for the key here.
    ///
    /// # Errors
    /// What was expected.
    pub(super) fn translate(self, text: &str) -> Result<Translated, String> {
        let plain = |text: String| Ok(Translated { value: RawValue::Plain(text), remark: None });
        let remarked =
            |text: String, remark: String| Ok(Translated { value: RawValue::Plain(text), remark: Some(remark) });
        let number = |what: &str| text.parse::<u64>().map_err(|_| format!("expected {what}"));
        match self {
            Self::Text => {
                let quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
                let remark = "the double quotes are a part of the value, as in RabbitMQ; its quotes are single ones";
                let value = RawValue::Text(text.to_owned());
                Ok(Translated { value, remark: quoted.then(|| remark.to_owned()) })
            }
            Self::Boolean => Ok(Translated { value: RawValue::Boolean(boolean(text)?), remark: None }),
            Self::Count => plain(number("a whole number")?.to_string()),
            Self::Limit if text == "infinity" => plain("0".to_owned()),
            Self::Limit => match number("a whole number or infinity")? {
                0 => Err("0 would allow none at all; write infinity for no limit".to_owned()),
                limit => plain(limit.to_string()),
            },
            Self::Channels if text == "0" => plain("65535".to_owned()),
            Self::Channels => plain(number("a whole number")?.to_string()),
            Self::Seconds => plain(format!("{}s", number("a whole number of seconds")?)),
            Self::Milliseconds => plain(format!("{}ms", milliseconds(text)?)),
            Self::MillisecondsWithin(least, most) => {
                let given = if text == "infinity" { u64::MAX } else { milliseconds(text)? };
                match given.clamp(least, most) {
                    taken if taken == given => plain(format!("{given}ms")),
                    taken => {
                        remarked(format!("{taken}ms"), format!("is taken as {taken}: {least} to {most} can be had"))
                    }
                }
            }
            Self::Bytes => plain(format!("{}B", number("a whole number of bytes")?)),
            Self::FrameSize => match binary_size(text)? {
                0 => remarked(format!("{FRAME_MAX}B"), format!("no limit is taken as {FRAME_MAX}, the most there is")),
                size if size > FRAME_MAX => {
                    remarked(format!("{FRAME_MAX}B"), format!("is taken as {FRAME_MAX}, the most there is"))
                }
                size => plain(format!("{size}B")),
            },
            Self::Address => match address(text) {
                Some(address) => Ok(Translated { value: RawValue::Text(address.to_string()), remark: None }),
                None => Err("expected an IP address".to_owned()),
            },
        }
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    // RabbitMQ has on and off for some keys, true and false for the others.
    match text {
        "true" | "on" => Ok(true),
        "false" | "off" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A bare number counts milliseconds; where RabbitMQ takes durations they have a unit.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        "w" => Some(604_800_000),
        "f" => Some(1_209_600_000),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .ok_or_else(|| "expected a whole number of milliseconds".to_owned())
}

/// A size whose unit is a step of 1024 for the watermarks' `MiB` and `Mi`, of 1000 for their `MB` and `M`.
pub(super) fn information(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let lower = unit.to_ascii_lowercase();
    let (letter, step) = match lower.as_bytes() {
        [] => (b' ', 1),
        [letter, b'i', b'b'] | [letter, b'i'] => (*letter, 1024_u64),
        [letter, b'b'] | [letter] => (*letter, 1000),
        _ => (b'?', 0),
    };
    let power = match letter {
        b' ' => Some(0),
        b'k' => Some(1),
        b'm' => Some(2),
        b'g' => Some(3),
        b't' => Some(4),
        b'p' => Some(5),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let size = number.zip(power).and_then(|(number, power)| number.checked_mul(step.checked_pow(power)?));
    size.ok_or_else(|| {
        if information_without_space(text) {
            "there is a space before the unit: expected a size such as 2GB or 4GiB, or a number of bytes".to_owned()
        } else {
            "expected a size such as 2GB or 4GiB, or a number of bytes".to_owned()
        }
    })
}

/// Whether nothing but blanks is wrong with a size.
fn information_without_space(text: &str) -> bool {
    text.contains(char::is_whitespace) && information(&text.replace(char::is_whitespace, "")).is_ok()
}

/// A size whose units are steps of 1024, whatever they are called: what RabbitMQ calls a byte size.
pub(super) fn binary_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let step: Option<u64> = match unit.to_ascii_lowercase().as_str() {
        "" => Some(1),
        "kb" => Some(1 << 10),
        "mb" => Some(1 << 20),
        "gb" => Some(1 << 30),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    number
        .zip(step)
        .and_then(|(number, step)| number.checked_mul(step))
        .ok_or_else(|| "expected a size such as 128KB, or a number of bytes".to_owned())
}

/// A share of one, in thousandths.
pub(super) fn share(text: &str) -> Result<u64, String> {
    let share: Option<f64> =
        text.parse().ok().filter(|share: &f64| share.is_finite() && (0.0..=1_000.0).contains(share));
    match share {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
        Some(share) => Ok((share * 1_000.0).round() as u64),
        None => Err("expected a share such as 0.6".to_owned()),
    }
}

/// A level of RabbitMQ's log as it is called here, and what differs.
pub(super) fn level(text: &str) -> Result<(&'static str, Option<&'static str>), String> {
    Ok(match text {
        "debug" => ("debug", None),
        "info" => ("info", None),
        "notice" => ("info", Some("notice is info here")),
        "warning" => ("warn", None),
        "error" => ("error", None),
        "critical" | "alert" | "emergency" => ("error", Some("there is nothing above error here")),
        "none" => ("error", Some("there is nothing above error here: errors are logged")),
        _ => return Err("expected debug, info, notice, warning, error, critical, alert, emergency or none".to_owned()),
    })
}

fn address(text: &str) -> Option<IpAddr> {
    match text {
        "localhost" => Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
        text => text.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    }
}

/// An address to listen on: a port, which is one of all addresses, or `address:port`, for IPv6 too.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let expected = || "expected a port such as 5672, an address with a port such as 127.0.0.1:5672, or none".to_owned();
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    let host = address(host).ok_or_else(expected)?;
    Ok(SocketAddr::new(host, port.parse().map_err(|_| expected())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_the_watermarks() {
        for (text, bytes) in [
            ("10", 10),
            ("1k", 1_000),
            ("1kB", 1_000),
            ("1kiB", 1_024),
            ("1Ki", 1_024),
            ("2M", 2_000_000),
            ("2MiB", 2 << 20),
            ("2GB", 2_000_000_000),
            ("2Gi", 2 << 30),
            ("1TB", 1_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
        ] {
            assert_eq!(information(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "1.5GB", "1XB", "1GBB", "-1", "99999999PB"] {
            assert!(information(text).is_err(), "{text}");
        }
        assert_eq!((binary_size("1MB"), binary_size("10")), (Ok(1 << 20), Ok(10)));
        assert!(binary_size("1MiB").is_err());
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, address) in [
            ("5672", "[::]:5672"),
            ("127.0.0.1:5673", "127.0.0.1:5673"),
            ("::1:5672", "[::1]:5672"),
            ("[::1]:5672", "[::1]:5672"),
            ("localhost:1", "127.0.0.1:1"),
        ] {
            assert_eq!(endpoint(text).map(|address| address.to_string()), Ok(address.to_owned()), "{text}");
        }
        for text in ["x", "65536", "1.2.3.4", "host:5672", "127.0.0.1:x"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_and_milliseconds() {
        assert_eq!((share("0.4"), share("1"), share("1.0e-1"), share("1.5")), (Ok(400), Ok(1000), Ok(100), Ok(1500)));
        assert!(share("x").is_err() && share("-0.1").is_err() && share("inf").is_err());
        assert_eq!((milliseconds("500"), milliseconds("5s"), milliseconds("1d")), (Ok(500), Ok(5_000), Ok(86_400_000)));
        assert!(milliseconds("5 s").is_err() && milliseconds("x").is_err());
    }
}
