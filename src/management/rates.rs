//! Counters with their rates and, when the query asks for them, their samples.

use std::cell::RefCell;

use serde_json::{Map, Value, json};

use crate::broker::Registry;
use crate::model::ids::Timestamp;
use crate::model::statistics::{
    ChannelNumber, ChannelStatistics, ChurnNumber, ConnectionRecord, ExchangeNumber, ExchangeStatistics, QueueNumber,
    QueueStatistics, TrafficNumber,
};

use super::answer::Failure;
use super::call::Query;
use super::history::{FieldSamples, History, Range, Rate, Rounding, Subject};
use super::node::NodeFacts;

/// Which parameters of the query ask for samples of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SampleKind {
    Lengths,
    MessageRates,
    DataRates,
    NodeStats,
}

impl SampleKind {
    fn parameters(self) -> (&'static str, &'static str) {
        match self {
            Self::Lengths => ("lengths_age", "lengths_incr"),
            Self::MessageRates => ("msg_rates_age", "msg_rates_incr"),
            Self::DataRates => ("data_rates_age", "data_rates_incr"),
            Self::NodeStats => ("node_stats_age", "node_stats_incr"),
        }
    }
}

/// The fields of a subject's history, in order: JSON key, and kind.
pub(crate) type Fields = &'static [(&'static str, SampleKind)];

use SampleKind::{DataRates, Lengths, MessageRates, NodeStats};

pub(crate) const QUEUE: Fields = &[
    ("messages", Lengths),
    ("messages_ready", Lengths),
    ("messages_unacknowledged", Lengths),
    ("publish", MessageRates),
    ("deliver", MessageRates),
    ("deliver_no_ack", MessageRates),
    ("get", MessageRates),
    ("get_no_ack", MessageRates),
    ("get_empty", MessageRates),
    ("deliver_get", MessageRates),
    ("redeliver", MessageRates),
    ("ack", MessageRates),
];

pub(crate) const CHANNEL: Fields = &[
    ("publish", MessageRates),
    ("confirm", MessageRates),
    ("return_unroutable", MessageRates),
    ("drop_unroutable", MessageRates),
    ("deliver", MessageRates),
    ("deliver_no_ack", MessageRates),
    ("get", MessageRates),
    ("get_no_ack", MessageRates),
    ("get_empty", MessageRates),
    ("deliver_get", MessageRates),
    ("redeliver", MessageRates),
    ("ack", MessageRates),
];

pub(crate) const VHOST: Fields = &[
    ("publish", MessageRates),
    ("confirm", MessageRates),
    ("return_unroutable", MessageRates),
    ("drop_unroutable", MessageRates),
    ("deliver", MessageRates),
    ("deliver_no_ack", MessageRates),
    ("get", MessageRates),
    ("get_no_ack", MessageRates),
    ("get_empty", MessageRates),
    ("deliver_get", MessageRates),
    ("redeliver", MessageRates),
    ("ack", MessageRates),
    ("messages", Lengths),
    ("messages_ready", Lengths),
    ("messages_unacknowledged", Lengths),
    ("recv_oct", DataRates),
    ("send_oct", DataRates),
];

pub(crate) const GLOBAL: Fields = &[
    ("publish", MessageRates),
    ("confirm", MessageRates),
    ("return_unroutable", MessageRates),
    ("drop_unroutable", MessageRates),
    ("deliver", MessageRates),
    ("deliver_no_ack", MessageRates),
    ("get", MessageRates),
    ("get_no_ack", MessageRates),
    ("get_empty", MessageRates),
    ("deliver_get", MessageRates),
    ("redeliver", MessageRates),
    ("ack", MessageRates),
    ("messages", Lengths),
    ("messages_ready", Lengths),
    ("messages_unacknowledged", Lengths),
    ("connection_created", MessageRates),
    ("connection_closed", MessageRates),
    ("channel_created", MessageRates),
    ("channel_closed", MessageRates),
    ("queue_declared", MessageRates),
    ("queue_created", MessageRates),
    ("queue_deleted", MessageRates),
    ("disk_reads", MessageRates),
    ("disk_writes", MessageRates),
];

pub(crate) const EXCHANGE: Fields = &[("publish_in", MessageRates), ("publish_out", MessageRates)];

pub(crate) const CONNECTION: Fields = &[("recv_oct", DataRates), ("send_oct", DataRates)];

pub(crate) const NODE: Fields = &[
    ("mem_used", NodeStats),
    ("fd_used", NodeStats),
    ("sockets_used", NodeStats),
    ("proc_used", NodeStats),
    ("disk_free", NodeStats),
];

/// A queue's values, in the order of `QUEUE`.
#[must_use]
pub(crate) fn queue_row(statistics: &QueueStatistics) -> [u64; 12] {
    use QueueNumber as Number;
    let get = |number| statistics.get(number);
    let (ready, unacked) = (get(Number::Ready), get(Number::Unacked));
    let delivered = [get(Number::Delivered), get(Number::DeliveredAutoAck), get(Number::Got), get(Number::GotAutoAck)];
    let [deliver, deliver_no_ack, got, got_no_ack] = delivered;
    [
        ready + unacked,
        ready,
        unacked,
        get(Number::Published),
        deliver,
        deliver_no_ack,
        got,
        got_no_ack,
        get(Number::GetEmpty),
        delivered.iter().sum(),
        get(Number::Redelivered),
        get(Number::Acked),
    ]
}

/// The values of channel counters, in the order of `CHANNEL`.
#[must_use]
pub(crate) fn channel_row(numbers: &[u64; ChannelStatistics::COUNT]) -> [u64; 12] {
    use ChannelNumber as Number;
    let get = |number: Number| numbers[number as usize];
    let delivered = [get(Number::Delivered), get(Number::DeliveredAutoAck), get(Number::Got), get(Number::GotAutoAck)];
    let [deliver, deliver_no_ack, got, got_no_ack] = delivered;
    [
        get(Number::Published),
        get(Number::Confirmed),
        get(Number::ReturnedUnroutable),
        get(Number::DroppedUnroutable),
        deliver,
        deliver_no_ack,
        got,
        got_no_ack,
        get(Number::GetEmpty),
        delivered.iter().sum(),
        get(Number::Redelivered),
        get(Number::Acked),
    ]
}

/// An exchange's values, in the order of `EXCHANGE`.
#[must_use]
pub(crate) fn exchange_row(statistics: &ExchangeStatistics) -> [u64; 2] {
    [statistics.get(ExchangeNumber::PublishIn), statistics.get(ExchangeNumber::PublishOut)]
}

/// A connection's values, in the order of `CONNECTION`.
#[must_use]
pub(crate) fn connection_row(record: &ConnectionRecord) -> [u64; 2] {
    [record.traffic.get(TrafficNumber::Received), record.traffic.get(TrafficNumber::Sent)]
}

/// The values of the node, in the order of `NODE`.
#[must_use]
pub(crate) fn node_row(facts: &NodeFacts, registry: &Registry) -> [u64; 5] {
    [facts.memory_used, facts.open_files, registry.len() as u64, facts.threads, facts.disk_free]
}

/// What has come and gone, as the last part of `GLOBAL`.
#[must_use]
pub(crate) fn churn_row(registry: &Registry) -> [u64; 7] {
    use ChurnNumber as Number;
    [
        Number::ConnectionsCreated,
        Number::ConnectionsClosed,
        Number::ChannelsCreated,
        Number::ChannelsClosed,
        Number::QueuesDeclared,
        Number::QueuesCreated,
        Number::QueuesDeleted,
    ]
    .map(|number| registry.churn.get(number))
}

/// Puts counters with their details into JSON.
pub(crate) struct Rates<'a> {
    history: &'a History,
    /// By kind: the samples that are asked for.
    ranges: [Option<Range>; 4],
    scratch: RefCell<Vec<Rate>>,
}

/// Fields that only show when one of them is not 0.
pub(crate) const PUBLISHING: &[&str] = &["publish", "confirm", "return_unroutable", "drop_unroutable"];
/// Likewise.
pub(crate) const DELIVERING: &[&str] =
    &["deliver", "deliver_no_ack", "get", "get_no_ack", "get_empty", "deliver_get", "redeliver", "ack"];

impl<'a> Rates<'a> {
    /// An error when the query asks for samples of an impossible range.
    pub(crate) fn new(history: &'a History, query: &Query, now: Timestamp) -> Result<Self, Failure> {
        let range = |kind: SampleKind| {
            let (age, increment) = kind.parameters();
            let (Some(age), Some(increment)) = (query.number(age), query.number(increment)) else { return Ok(None) };
            let rounding = if kind == Lengths { Rounding::Up } else { Rounding::Down };
            Range::new(age, increment, now.0, rounding)
                .map(Some)
                .map_err(|error| Failure::bad_request(error.to_string()))
        };
        let ranges = [range(Lengths)?, range(MessageRates)?, range(DataRates)?, range(NodeStats)?];
        Ok(Self { history, ranges, scratch: RefCell::default() })
    }

    /// Adds those of a subject's fields that `names` has, each with its `_details`.
    pub(crate) fn put(
        &self,
        map: &mut Map<String, Value>,
        subject: Subject<'_>,
        fields: Fields,
        row: &[u64],
        names: &[&str],
    ) {
        let mut rates = self.scratch.borrow_mut();
        self.history.rates(subject, &mut rates);
        for (at, (name, kind)) in fields.iter().enumerate().filter(|(_, (name, _))| names.contains(name)) {
            let value = row.get(at).copied().unwrap_or_default();
            let rate = rates.get(at).map_or(0.0, |rate| rate.per_second);
            map.insert((*name).to_owned(), value.into());
            map.insert(format!("{name}_details"), self.details(subject, at, *kind, rate));
        }
    }

    /// The message statistics of a subject: of those that publish, and of those that consume, if there are any.
    pub(crate) fn message_stats(&self, subject: Subject<'_>, fields: Fields, row: &[u64]) -> Map<String, Value> {
        let mut stats = Map::new();
        for group in [PUBLISHING, DELIVERING] {
            let is_active = fields.iter().zip(row).any(|((name, _), value)| group.contains(name) && *value > 0);
            if is_active {
                self.put(&mut stats, subject, fields, row, group);
            }
        }
        stats
    }

    fn details(&self, subject: Subject<'_>, field: usize, kind: SampleKind, rate: f64) -> Value {
        let mut details = Map::new();
        details.insert("rate".to_owned(), rate.into());
        let Some(range) = &self.ranges[kind as usize] else { return Value::Object(details) };
        let known = self.history.samples(subject, &[field], range).and_then(|samples| {
            let of_field = samples.fields.into_iter().next()?;
            Some((samples.at_ms, of_field))
        });
        // Before the first round that found it, a subject's values are zero.
        let (at_ms, of_field) = known.unwrap_or_else(|| {
            let at_ms: Vec<u64> = range.moments_ms().collect();
            let values = vec![0; at_ms.len()];
            (at_ms, FieldSamples { values, ..FieldSamples::default() })
        });
        let list = of_field.values.iter().zip(&at_ms);
        let list = list.map(|(sample, at)| json!({"sample": sample, "timestamp": at})).collect();
        details.insert("avg".to_owned(), of_field.average.unwrap_or(0.0).into());
        details.insert("avg_rate".to_owned(), of_field.average_rate.unwrap_or(0.0).into());
        details.insert("samples".to_owned(), Value::Array(list));
        Value::Object(details)
    }
}
