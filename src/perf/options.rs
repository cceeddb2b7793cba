//! The options of `warren perf`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::uri::Uri;
use super::wire::{Table, Value};

const MORE: &str = "\
Messages: one to a queue, or to every queue with a fanout exchange. Publishers and consumers are spread over the
queues; with fewer of them than queues each serves several. Bodies of 8 bytes or more carry the time of their sending:
the end-to-end latency is of the messages sent by this machine.

Without --messages the run ends after --duration and what is still on its way is not waited for; with --messages it
ends when all of them are published, confirmed and delivered. Queues (perf-0, perf-1 ...) and the exchange are declared
first, emptied if there are publishers and consumers, and deleted at the end.

Output: a line each second, then a summary. With --json the summary is one line of JSON on standard output, and the
other lines go to standard error. Ctrl-C ends the run with its summary.
Exit codes: 0 done, 1 no connection or the broker closed one, 64 the options cannot be used.

Examples:
  warren perf --size 1KiB --confirms 1000 --persistent --ack-every 100 --prefetch 1000
  warren perf --exchange topic --bindings 1000 --duration 30
  warren perf --rate 5000 --size 1KiB --json
  warren perf --publishers 0 --consumers 0 --churn 4";

/// Publish and consume messages at a broker and report rates and latencies: any AMQP 0-9-1 broker.
#[derive(Args, Clone, Debug)]
#[command(after_help = MORE)]
pub struct Options {
    /// The broker. heartbeat in the query is accepted, but the connections have no heartbeats.
    #[arg(long, value_name = "URI", default_value = "amqp://guest:guest@127.0.0.1:5672/", value_parser = Uri::parse)]
    pub uri: Uri,
    /// Connections that publish.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub publishers: usize,
    /// Connections that consume.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub consumers: usize,
    /// Queues.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub queues: usize,
    /// The body of each message: bytes, or with KiB or MiB.
    #[arg(long, value_name = "BYTES", default_value = "16", value_parser = parse_size)]
    pub size: usize,
    /// Publisher confirms, with at most this many messages of a publisher unconfirmed; 0 is without confirms.
    #[arg(long, value_name = "WINDOW", default_value_t = 0)]
    pub confirms: usize,
    /// Publish with delivery mode 2.
    #[arg(long)]
    pub persistent: bool,
    /// Durable queues and exchange [default: true; RabbitMQ 4.3 and later refuse others].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set, hide_default_value = true)]
    pub durable: bool,
    /// Consume with automatic acknowledgement; so it is without --ack-every.
    #[arg(long, conflicts_with = "ack_every")]
    pub auto_ack: bool,
    /// Acknowledge by hand, once for this many messages of a consumer.
    #[arg(long, value_name = "N")]
    pub ack_every: Option<u64>,
    /// Unacknowledged messages of a consumer at most; 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub prefetch: u16,
    /// Messages to publish each second, in all; without it as many as the broker takes.
    #[arg(long, value_name = "MESSAGES")]
    pub rate: Option<f64>,
    /// How long to publish and consume [default: 10].
    #[arg(long, value_name = "SECONDS", conflicts_with = "messages")]
    pub duration: Option<f64>,
    /// End when this many messages are published (and confirmed) and delivered. Without publishers: when this many are
    /// delivered.
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
    /// What happens in these seconds is not part of rates and latencies; before --duration.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, conflicts_with = "messages")]
    pub warmup: f64,
    /// Where messages are published: the default exchange, or one of this type that the run declares.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Exchange::Default)]
    pub exchange: Exchange,
    /// Bindings of the exchange, spread over the queues [default: one for each queue]. Each message matches one (fanout:
    /// all); topic patterns have * and #.
    #[arg(long, value_name = "N")]
    pub bindings: Option<usize>,
    /// An argument of queue.declare, such as x-queue-type=quorum; may be given more than once.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_argument)]
    pub queue_argument: Vec<(String, QueueArgument)>,
    /// What the names of queues and exchange begin with.
    #[arg(long, value_name = "PREFIX", default_value = "perf")]
    pub name: String,
    /// Leave queues and exchange behind.
    #[arg(long)]
    pub keep: bool,
    /// Besides, hold this many connections open, each with a channel, that do nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub idle: usize,
    /// Besides, from this many threads, open a connection and a channel and close both, again and again.
    #[arg(long, value_name = "THREADS", default_value_t = 0, conflicts_with = "messages")]
    pub churn: usize,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where messages are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Exchange {
    Default,
    Direct,
    Topic,
    Fanout,
    Headers,
}

impl Exchange {
    /// The type as `exchange.declare` names it; none for the default exchange, which is there.
    #[must_use]
    pub fn kind(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Direct => Some("direct"),
            Self::Topic => Some("topic"),
            Self::Fanout => Some("fanout"),
            Self::Headers => Some("headers"),
        }
    }
}

/// The value of `--queue-argument`: a number and a truth value are sent as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueArgument {
    Integer(i64),
    Boolean(bool),
    Text(String),
}

/// When the run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    After(Duration),
    Messages(u64),
}

const DEFAULT_DURATION: f64 = 10.0;
/// A year; longer is a mistake, and overflows sums of times.
const SECONDS_MAX: f64 = 31_536_000.0;
const SIZE_MAX: usize = 512 * 1024 * 1024;

impl Options {
    /// Whether the options make sense together.
    ///
    /// # Errors
    /// What does not, for the user.
    pub fn check(&self) -> Result<(), String> {
        let fail = |text: String| Err(text);
        if self.publishers + self.consumers + self.idle + self.churn == 0 {
            return fail("nothing to do: --publishers, --consumers, --idle and --churn are all 0".to_owned());
        }
        if self.queues == 0 {
            return fail("--queues must be at least 1".to_owned());
        }
        if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return fail("--rate must be more than 0".to_owned());
        }
        for (name, seconds) in [("--duration", self.duration.unwrap_or(1.0)), ("--warmup", self.warmup)] {
            if !(0.0..=SECONDS_MAX).contains(&seconds) || (name == "--duration" && seconds == 0.0) {
                return fail(format!("{name} {seconds}: expected seconds, up to a year"));
            }
        }
        if self.messages == Some(0) {
            return fail("--messages must be at least 1".to_owned());
        }
        if self.messages.is_some() && self.publishers + self.consumers == 0 {
            return fail("--messages needs publishers or consumers".to_owned());
        }
        if self.ack_every == Some(0) {
            return fail("--ack-every must be at least 1".to_owned());
        }
        let prefetch = self.prefetch;
        if let Some(every) = self.ack_every
            && prefetch != 0
            && every > u64::from(prefetch)
        {
            return fail(format!("--ack-every {every} is more than --prefetch {prefetch}: no message would follow"));
        }
        if self.bindings == Some(0) {
            return fail("--bindings must be at least 1".to_owned());
        }
        if self.bindings.is_some() && self.exchange == Exchange::Default {
            return fail("--bindings needs an --exchange: the default exchange has no bindings to choose".to_owned());
        }
        if self.name.is_empty() || self.name.len() > 200 {
            return fail("--name must have 1 to 200 bytes".to_owned());
        }
        Ok(())
    }

    pub(super) fn end(&self) -> End {
        match self.messages {
            Some(messages) => End::Messages(messages),
            None => End::After(Duration::from_secs_f64(self.duration.unwrap_or(DEFAULT_DURATION))),
        }
    }

    /// The arguments of `queue.declare`.
    pub(super) fn queue_arguments(&self) -> Table {
        let value = |argument: &QueueArgument| match argument {
            QueueArgument::Integer(number) => Value::Integer(*number),
            QueueArgument::Boolean(truth) => Value::Boolean(*truth),
            QueueArgument::Text(text) => Value::Text(text.clone()),
        };
        self.queue_argument.iter().map(|(key, argument)| (key.clone(), value(argument))).collect()
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return Err("expected bytes, or a number with KiB or MiB".to_owned()),
    };
    let number: usize = digits.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    match number.checked_mul(factor) {
        Some(size) if size <= SIZE_MAX => Ok(size),
        _ => Err("at most 512MiB".to_owned()),
    }
}

fn parse_argument(text: &str) -> Result<(String, QueueArgument), String> {
    let (key, value) = text.split_once('=').ok_or("expected key=value, such as x-queue-type=quorum")?;
    if key.is_empty() || key.len() > 255 {
        return Err("the key must have 1 to 255 bytes".to_owned());
    }
    let argument = match (value.parse(), value) {
        (Ok(number), _) => QueueArgument::Integer(number),
        (_, "true") => QueueArgument::Boolean(true),
        (_, "false") => QueueArgument::Boolean(false),
        (_, text) => QueueArgument::Text(text.to_owned()),
    };
    Ok((key.to_owned(), argument))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, String> {
        let words = std::iter::once("perf").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        parsed.options.check().map(|()| parsed.options)
    }

    #[test]
    fn the_defaults_can_be_used() {
        let options = parse("").unwrap();
        assert_eq!((options.publishers, options.consumers, options.queues, options.size), (1, 1, 1, 16));
        assert_eq!(options.end(), End::After(Duration::from_secs(10)));
        assert!(options.durable && !options.persistent);
    }

    #[test]
    fn values_are_understood() {
        let options =
            parse("--size 4KiB --durable=false --messages 5 --rate 0.5 --exchange topic --bindings 7").unwrap();
        assert_eq!((options.size, options.durable, options.bindings), (4096, false, Some(7)));
        assert_eq!(options.end(), End::Messages(5));
        assert!(parse("--durable --persistent").unwrap().durable);
        let line = "--queue-argument x-max-length=-5 --queue-argument x-queue-type=quorum --queue-argument a=true";
        let arguments = parse(line).unwrap().queue_arguments();
        let values = arguments.into_iter().map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(values, [Value::Integer(-5), Value::Text("quorum".to_owned()), Value::Boolean(true)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("--publishers 0 --consumers 0", "nothing to do"),
            ("--queues 0", "--queues"),
            ("--rate 0", "--rate"),
            ("--rate NaN", "--rate"),
            ("--duration 0", "--duration"),
            ("--duration 1e300", "--duration"),
            ("--warmup=-1", "--warmup"),
            ("--messages 0", "--messages"),
            ("--messages 5 --duration 1", "cannot be used with"),
            ("--auto-ack --ack-every 5", "cannot be used with"),
            ("--ack-every 0", "--ack-every"),
            ("--ack-every 11 --prefetch 10", "--prefetch 10"),
            ("--bindings 5", "--exchange"),
            ("--exchange direct --bindings 0", "--bindings"),
            ("--exchange x-random", "x-random"),
            ("--size 5KB", "KiB"),
            ("--size 99999999MiB", "512MiB"),
            ("--queue-argument x-expires", "key=value"),
            ("--uri http://localhost", "amqp://"),
        ];
        for (line, part) in cases {
            let refusal = parse(line).unwrap_err();
            assert!(refusal.contains(part), "{line}: {refusal}");
        }
    }
}
