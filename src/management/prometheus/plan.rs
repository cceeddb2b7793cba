//! What an endpoint shows, part by part, and how a part is written piece by piece.

use std::sync::Arc;

use crate::model::statistics::QueueRecord;

use super::super::Management;
use super::super::answer::Failure;
use super::super::call::Query;
use super::node;
use super::rows::{
    CHANNEL_EXCHANGE, CHANNEL_QUEUE, CHANNEL_QUEUE_EXCHANGE, CHANNELS, CONNECTION_COARSE, CONNECTIONS, ChannelRow,
    ConnectionRow, EXCHANGES, ExchangeRow, Family, QUEUE_AGE, QUEUE_COARSE, QUEUE_CONSUMERS, QUEUE_DELIVERY,
    QUEUE_EXCHANGE, QUEUE_METRICS, QueueRow,
};
use super::scrape::{Chosen, Endpoint, ExchangeItem, Scrape};
use super::text::FamilyKind::{Gauge, Histogram};
use super::text::{Number, Text};

/// Bytes of text after which a piece ends.
pub(super) const PIECE: usize = 64 * 1024;

const PREFIX: &str = "rabbitmq_";
const DETAILED: &str = "rabbitmq_detailed_";
const CLUSTER: &str = "rabbitmq_cluster_";

/// A family of every object of a kind, or some families of the node.
#[derive(Clone, Copy)]
enum Part {
    Prefix(&'static str),
    Node(fn(&Scrape, &mut Text)),
    Queues(&'static Family<QueueRow>, &'static [&'static str; 2]),
    QueueInfo,
    /// The family's name and help, and which durations.
    QueueDurations((&'static str, &'static str), fn(&QueueRecord) -> &crate::model::statistics::DurationStatistics),
    Exchanges(&'static Family<ExchangeRow>),
    ExchangeNames,
    ExchangeBindings,
    Connections(&'static Family<ConnectionRow>),
    Channels(&'static Family<ChannelRow>),
    /// With the channel's vhost.
    ChannelsInVhosts(&'static Family<ChannelRow>),
}

/// Writes what one scrape shows. Only a piece of it is ever in memory.
pub(super) struct Writer {
    pub(super) scrape: Scrape,
    parts: Vec<Part>,
    /// The part to go on with, and the object in it.
    part: usize,
    item: usize,
    text: Text,
}

const QUEUE_LABELS: &[&str; 2] = &["vhost", "queue"];
const QUEUE_OF_CHANNEL_LABELS: &[&str; 2] = &["queue_vhost", "queue"];

/// Families of `/metrics/detailed`, by name. Two kinds of them may have a family in common, which is shown once.
fn detailed(name: &str) -> Vec<Part> {
    match name {
        "connection_churn_metrics" => vec![Part::Node(node::churn)],
        "node_coarse_metrics" => vec![Part::Node(node::coarse)],
        "node_metrics" => vec![Part::Node(node::limits)],
        "node_persister_metrics" => vec![Part::Node(node::persister)],
        "auth_attempt_metrics" => vec![Part::Node(node::logins)],
        "queue_coarse_metrics" => queues(QUEUE_COARSE),
        "queue_consumer_count" => queues(QUEUE_CONSUMERS),
        "queue_metrics" => [queues(QUEUE_CONSUMERS), queues(QUEUE_METRICS)].concat(),
        "queue_delivery_metrics" => queues(QUEUE_DELIVERY),
        "queue_exchange_metrics" => queues(QUEUE_EXCHANGE),
        "channel_queue_exchange_metrics" => queues_of_channels(),
        "queue_age_metrics" => queues(QUEUE_AGE),
        "queue_duration_metrics" => durations(),
        "exchange_metrics" => EXCHANGES.iter().map(Part::Exchanges).collect(),
        "channel_metrics" => CHANNELS.iter().map(Part::Channels).collect(),
        "channel_exchange_metrics" => CHANNEL_EXCHANGE.iter().map(Part::ChannelsInVhosts).collect(),
        "channel_queue_metrics" => CHANNEL_QUEUE.iter().map(Part::ChannelsInVhosts).collect(),
        "connection_coarse_metrics" => CONNECTION_COARSE.iter().map(Part::Connections).collect(),
        "connection_metrics" => CONNECTIONS.iter().map(Part::Connections).collect(),
        "log_metrics" => vec![Part::Node(node::log)],
        "flow_metrics" => vec![Part::Node(node::flow)],
        _ => Vec::new(),
    }
}

/// Families whose queues `queue_info` describes.
const WITH_QUEUE_INFO: [&str; 3] = ["queue_coarse_metrics", "queue_consumer_count", "queue_metrics"];

/// Families of `/metrics/detailed` that are of the whole cluster.
fn of_cluster(name: &str) -> Option<Part> {
    match name {
        "vhost_status" => Some(Part::Node(node::vhosts)),
        "exchange_bindings" => Some(Part::ExchangeBindings),
        "exchange_names" => Some(Part::ExchangeNames),
        _ => None,
    }
}

fn queues(families: &'static [Family<QueueRow>]) -> Vec<Part> {
    families.iter().map(|family| Part::Queues(family, QUEUE_LABELS)).collect()
}

fn queues_of_channels() -> Vec<Part> {
    CHANNEL_QUEUE_EXCHANGE.iter().map(|family| Part::Queues(family, QUEUE_OF_CHANNEL_LABELS)).collect()
}

fn durations() -> Vec<Part> {
    vec![
        Part::QueueDurations(node::IN_QUEUE, |record| &record.in_queue),
        Part::QueueDurations(node::PROCESSING, |record| &record.processing),
    ]
}

/// Everything, once for all objects or for each.
fn everything(endpoint: Endpoint) -> Vec<Part> {
    let mut parts = vec![
        Part::Prefix(PREFIX),
        Part::Node(node::churn),
        Part::Node(node::coarse),
        Part::Node(node::limits),
        Part::Node(node::persister),
        Part::Node(node::logins),
    ];
    for families in [QUEUE_COARSE, QUEUE_CONSUMERS, QUEUE_METRICS, QUEUE_DELIVERY, QUEUE_EXCHANGE] {
        parts.extend(queues(families));
    }
    parts.extend(queues_of_channels());
    parts.extend(queues(QUEUE_AGE));
    if endpoint == Endpoint::Aggregated {
        parts.push(Part::Node(node::queue_disk));
        parts.push(Part::Node(node::exchange_confirms));
        parts.push(Part::Node(node::durations_of_all));
    } else {
        parts.push(Part::QueueInfo);
        parts.extend(durations());
    }
    parts.extend(EXCHANGES.iter().map(Part::Exchanges));
    parts.extend(CHANNELS.iter().map(Part::Channels));
    parts.extend(CHANNEL_EXCHANGE.iter().chain(CHANNEL_QUEUE).map(Part::ChannelsInVhosts));
    parts.extend(CONNECTION_COARSE.iter().chain(CONNECTIONS).map(Part::Connections));
    parts.extend(
        [
            node::totals,
            node::info,
            node::global_publishing,
            node::global_consuming,
            node::dead_letters,
            node::message_sizes,
            node::alarms,
            node::flow,
            node::log,
        ]
        .map(Part::Node),
    );
    parts.extend([Part::Prefix(""), Part::Node(node::process), Part::Node(super::telemetry)]);
    parts
}

/// The families that are asked for, each once.
fn families_of(query: &Query) -> Vec<Part> {
    let mut names: Vec<&str> = query.all("family").iter().map(String::as_str).collect();
    let mut known = std::collections::BTreeSet::new();
    names.retain(|name| known.insert(*name));
    if known.contains("queue_metrics") {
        names.retain(|name| *name != "queue_consumer_count");
    }
    let mut parts = vec![Part::Prefix(DETAILED)];
    parts.extend(names.iter().flat_map(|name| detailed(name)));
    if names.iter().any(|name| WITH_QUEUE_INFO.contains(name)) {
        parts.push(Part::QueueInfo);
    }
    parts.push(Part::Prefix(CLUSTER));
    parts.extend(names.iter().filter_map(|name| of_cluster(name)));
    parts.extend([Part::Prefix(PREFIX), Part::Node(node::info)]);
    parts.extend([Part::Prefix(""), Part::Node(super::telemetry)]);
    parts
}

impl Writer {
    /// Notes what there is to be told.
    pub(super) fn new(management: &Arc<Management>, endpoint: Endpoint, query: &Query) -> Result<Self, Failure> {
        let (parts, chosen) = match endpoint {
            Endpoint::Aggregated | Endpoint::PerObject => (everything(endpoint), Chosen::all()),
            Endpoint::Detailed => (families_of(query), Chosen::read(query)?),
            Endpoint::MemoryBreakdown => {
                let telemetry = [Part::Prefix(""), Part::Node(super::telemetry)];
                let parts = [Part::Prefix(PREFIX), Part::Node(node::memory), Part::Node(node::info)];
                (parts.into_iter().chain(telemetry).collect(), Chosen::all())
            }
        };
        let mut scrape = Scrape::new(management, endpoint);
        if endpoint != Endpoint::Aggregated {
            let any = |wanted: fn(&Part) -> bool| parts.iter().any(wanted);
            if any(|part| matches!(part, Part::Queues(..) | Part::QueueInfo | Part::QueueDurations(..))) {
                scrape.list_queues(&chosen);
            }
            if any(|part| matches!(part, Part::Exchanges(_) | Part::ExchangeNames | Part::ExchangeBindings)) {
                scrape.list_exchanges(&chosen);
            }
            if any(|part| matches!(part, Part::ExchangeBindings)) {
                scrape.count_bindings();
            }
            if any(|part| matches!(part, Part::Connections(_) | Part::Channels(_) | Part::ChannelsInVhosts(_))) {
                scrape.list_connections(&chosen);
            }
        }
        Ok(Self { scrape, parts, part: 0, item: 0, text: Text::default() })
    }

    /// The next piece of text; none at the end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        while self.text.bytes.len() < PIECE {
            let Some(part) = self.parts.get(self.part) else { break };
            let next = write(*part, &self.scrape, self.item, &mut self.text);
            self.part += usize::from(next.is_none());
            self.item = next.unwrap_or(0);
        }
        if self.text.bytes.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut self.text.bytes, Vec::with_capacity(PIECE + PIECE / 8)))
    }
}

/// One line a queue, for what does not change.
fn write_queue_info(scrape: &Scrape, from: usize, text: &mut Text) -> Option<usize> {
    let help = "A metric with a constant '1' value and labels that provide some queue details";
    each((("queue_info", help), Gauge), &scrape.queues, from, text, |text, queue| {
        let name = [("vhost", queue.vhost.as_str()), ("queue", queue.name.as_str())];
        text.sample(&[name[0], name[1], node::QUEUE_TYPE, ("membership", "leader")], 1);
    })
}

/// Writes a part from the object at this place on. Where to go on, unless it is done.
fn write(part: Part, scrape: &Scrape, from: usize, text: &mut Text) -> Option<usize> {
    match part {
        Part::Prefix(prefix) => text.set_prefix(prefix),
        Part::Node(write) => write(scrape, text),
        Part::Queues(family, [vhost, name]) => {
            let family = Of { family, summed: scrape.sums.queues };
            return family.write(scrape, &scrape.queues, from, text, |text, queue, value| {
                let row = QueueRow { numbers: queue.statistics.numbers.snapshot(), now_ms: scrape.now_ms };
                if let Some(number) = value(&row) {
                    text.sample(&[(vhost, queue.vhost.as_str()), (name, queue.name.as_str())], number);
                }
            });
        }
        Part::QueueInfo => return write_queue_info(scrape, from, text),
        Part::QueueDurations(head, durations) => {
            return each((head, Histogram), &scrape.queues, from, text, |text, queue| {
                let durations = durations(&queue.statistics).get();
                // Most queues of a broker with many have never delivered anything.
                if durations.counts.iter().any(|count| *count > 0) {
                    let labels = [("vhost", queue.vhost.as_str()), ("queue", queue.name.as_str())];
                    node::duration(text, &labels, &durations);
                }
            });
        }
        Part::Exchanges(family) => {
            let family = Of { family, summed: scrape.sums.exchanges };
            return family.write(scrape, &scrape.exchanges, from, text, |text, exchange, value| {
                if let Some(number) = value(&ExchangeRow(exchange.statistics.snapshot())) {
                    text.sample(&[("vhost", exchange.vhost.as_str()), ("exchange", exchange.name.as_str())], number);
                }
            });
        }
        Part::ExchangeNames => {
            let help = "Enumerates exchanges without any additional info. This value is cluster-wide. A cheaper \
                        alternative to `exchange_bindings`";
            let head = (("exchange_name", help), Gauge);
            return each(head, &scrape.exchanges, from, text, |text, exchange| describe(text, exchange, 1));
        }
        Part::ExchangeBindings => {
            let help = "Number of bindings for an exchange. This value is cluster-wide.";
            let head = (("exchange_bindings", help), Gauge);
            return each(head, &scrape.exchanges, from, text, |text, exchange| {
                describe(text, exchange, exchange.bindings);
            });
        }
        Part::Connections(family) => {
            let family = Of { family, summed: scrape.sums.connections };
            return family.write(scrape, &scrape.connections, from, text, |text, connection, value| {
                let traffic = connection.record.traffic.snapshot();
                let row = ConnectionRow { traffic, channels: connection.record.channel_count() as u64 };
                if let Some(number) = value(&row) {
                    text.sample(&[("channel", &connection.name)], number);
                }
            });
        }
        Part::Channels(family) | Part::ChannelsInVhosts(family) => {
            let shown = if matches!(part, Part::Channels(_)) { 1 } else { 2 };
            let family = Of { family, summed: scrape.sums.channels };
            return family.write(scrape, &scrape.channels, from, text, |text, channel, value| {
                if let Some(number) = value(&ChannelRow(channel.record.statistics.snapshot())) {
                    let labels = [("channel", channel.name.as_str()), ("vhost", channel.vhost.as_str())];
                    text.sample(&labels[..shown], number);
                }
            });
        }
    }
    None
}

/// An exchange that somebody declared or could have.
fn describe(text: &mut Text, exchange: &ExchangeItem, number: u64) {
    if exchange.name.as_str().is_empty() || exchange.internal {
        return;
    }
    let name = [("vhost", exchange.vhost.as_str()), ("exchange", exchange.name.as_str())];
    text.sample(&[name[0], name[1], ("type", exchange.kind.name())], number);
}

/// A family and the numbers of all its objects together.
struct Of<R: 'static> {
    family: &'static Family<R>,
    summed: R,
}

impl<R> Of<R> {
    /// One sample for all objects or one for each, from the one at this place on.
    fn write<T>(
        &self,
        scrape: &Scrape,
        items: &[T],
        from: usize,
        text: &mut Text,
        mut write: impl FnMut(&mut Text, &T, fn(&R) -> Option<Number>),
    ) -> Option<usize> {
        let Family { name, kind, help, value } = self.family;
        if scrape.endpoint != Endpoint::Aggregated {
            return each(((name, help), *kind), items, from, text, |text, item| write(text, item, *value));
        }
        text.family(name, *kind, help);
        if let Some(number) = value(&self.summed) {
            text.sample(&[], number);
        }
        None
    }
}

/// Writes the objects from this place on until the piece is full. Where to go on.
fn each<T>(
    ((name, help), kind): ((&str, &str), super::text::FamilyKind),
    items: &[T],
    from: usize,
    text: &mut Text,
    mut write: impl FnMut(&mut Text, &T),
) -> Option<usize> {
    if from == 0 {
        text.family(name, kind, help);
    }
    for (at, item) in items.iter().enumerate().skip(from) {
        if text.bytes.len() >= PIECE && at > 0 {
            return Some(at);
        }
        write(text, item);
    }
    None
}
