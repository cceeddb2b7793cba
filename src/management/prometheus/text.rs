//! The text format: lines of `name{label="value"} number` under a head for each family.

use std::io::Write as _;

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

/// A sample's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Integer(u64),
    Real(f64),
}

/// What is written and not sent yet.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) bytes: Vec<u8>,
    prefix: &'static str,
    /// The family that is being written, with its prefix.
    family: String,
}

impl FamilyKind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped => "untyped",
        }
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<bool> for Number {
    fn from(holds: bool) -> Self {
        Self::Integer(holds.into())
    }
}

impl Text {
    /// Families get this prefix from here on.
    pub(super) fn set_prefix(&mut self, prefix: &'static str) {
        self.prefix = prefix;
    }

    /// Begins a family. All its samples have to follow before the next one begins.
    pub(super) fn family(&mut self, name: &str, kind: FamilyKind, help: &str) {
        self.family.clear();
        self.family.push_str(self.prefix);
        self.family.push_str(name);
        // Writing to a vector does not fail.
        let _ = writeln!(self.bytes, "# TYPE {0} {1}\n# HELP {0} {help}", self.family, kind.name());
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], number: impl Into<Number>) {
        self.part("", labels, None, number.into());
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: FamilyKind, help: &str, number: impl Into<Number>) {
        self.family(name, kind, help);
        self.sample(&[], number);
    }

    /// The count and the sum of a summary.
    pub(super) fn summary(&mut self, labels: &[(&str, &str)], count: u64, sum: impl Into<Number>) {
        self.part("_count", labels, None, count.into());
        self.part("_sum", labels, None, sum.into());
    }

    /// A histogram: counts by class, not summed up, of which the last has no bound.
    pub(super) fn histogram<B: Into<Number>>(
        &mut self,
        labels: &[(&str, &str)],
        bounds: impl IntoIterator<Item = B>,
        counts: &[u64],
        sum: impl Into<Number>,
    ) {
        let mut bounds = bounds.into_iter();
        let mut total = 0;
        for count in counts {
            total += count;
            let bound = bounds.next().map_or(Number::Real(f64::INFINITY), Into::into);
            self.part("_bucket", labels, Some(bound), total.into());
        }
        self.summary(labels, total, sum);
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<Number>, number: Number) {
        self.bytes.extend_from_slice(self.family.as_bytes());
        self.bytes.extend_from_slice(suffix.as_bytes());
        let mut before = b'{';
        for (name, value) in labels {
            self.bytes.push(before);
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.extend_from_slice(b"=\"");
            escape(value, &mut self.bytes);
            self.bytes.push(b'"');
            before = b',';
        }
        if let Some(bound) = bound {
            self.bytes.push(before);
            self.bytes.extend_from_slice(b"le=\"");
            self.number(bound);
            self.bytes.push(b'"');
            before = b',';
        }
        if before == b',' {
            self.bytes.push(b'}');
        }
        self.bytes.push(b' ');
        self.number(number);
        self.bytes.push(b'\n');
    }

    fn number(&mut self, number: Number) {
        let _ = match number {
            Number::Integer(number) => write!(self.bytes, "{number}"),
            Number::Real(number) if number == f64::INFINITY => write!(self.bytes, "+Inf"),
            Number::Real(number) => write!(self.bytes, "{number}"),
        };
    }
}

/// Writes a label's value: backslashes, quotes and line breaks would end it.
fn escape(value: &str, bytes: &mut Vec<u8>) {
    if !value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n')) {
        bytes.extend_from_slice(value.as_bytes());
        return;
    }
    for byte in value.bytes() {
        match byte {
            b'\\' => bytes.extend_from_slice(b"\\\\"),
            b'"' => bytes.extend_from_slice(b"\\\""),
            b'\n' => bytes.extend_from_slice(b"\\n"),
            byte => bytes.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        text.set_prefix("rabbitmq_");
        write(&mut text);
        String::from_utf8(text.bytes).unwrap()
    }

    #[test]
    fn a_family_has_a_head_and_its_samples() {
        let text = written(|text| {
            text.family("queues", FamilyKind::Gauge, "Queues available");
            text.sample(&[], 7);
            text.sample(&[("vhost", "/"), ("queue", "jobs")], 0.5);
        });
        let expected = "# TYPE rabbitmq_queues gauge\n# HELP rabbitmq_queues Queues available\nrabbitmq_queues 7\n\
                        rabbitmq_queues{vhost=\"/\",queue=\"jobs\"} 0.5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn label_values_are_escaped_and_keep_everything_else() {
        let text = written(|text| {
            text.family("x", FamilyKind::Gauge, "X");
            text.sample(&[("queue", "a\"b\\c\nd\té{},=")], 1);
        });
        assert!(text.ends_with("rabbitmq_x{queue=\"a\\\"b\\\\c\\nd\té{},=\"} 1\n"), "{text}");
    }

    #[test]
    fn buckets_are_summed_up_and_end_with_infinity() {
        let text = written(|text| {
            text.family("message_size_bytes", FamilyKind::Histogram, "Sizes");
            text.histogram(&[("protocol", "amqp091")], [100, 1_000_000], &[2, 0, 1], 12_345);
        });
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"100\"} 2",
                "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"1000000\"} 2",
                "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"+Inf\"} 3",
                "rabbitmq_message_size_bytes_count{protocol=\"amqp091\"} 3",
                "rabbitmq_message_size_bytes_sum{protocol=\"amqp091\"} 12345",
            ]
        );
    }

    #[test]
    fn bounds_in_seconds_are_short() {
        let text = written(|text| {
            text.family("t", FamilyKind::Histogram, "T");
            text.histogram(&[], [0.001, 1.024, 1048.576], &[1, 1, 1, 1], 0.25);
        });
        for bound in
            ["le=\"0.001\"} 1", "le=\"1.024\"} 2", "le=\"1048.576\"} 3", "le=\"+Inf\"} 4", "rabbitmq_t_sum 0.25"]
        {
            assert!(text.contains(bound), "{bound}: {text}");
        }
        assert_eq!(
            written(|text| text.single("n", FamilyKind::Gauge, "N", f64::NAN)).lines().last(),
            Some("rabbitmq_n NaN")
        );
    }
}
