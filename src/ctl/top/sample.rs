//! One look at the broker, as the rows that are shown.

use serde_json::{Value, json};

use super::super::call::Call;
use super::super::client::encode;
use super::super::error::CtlError;
use super::super::format::plain;
use super::view::Tab;

/// So many queues or connections are asked for at most, those with the most messages first.
const MOST_ROWS: usize = 500;

/// Everything of one frame.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) node: String,
    pub(crate) totals: Vec<(&'static str, String)>,
    pub(crate) alarms: Vec<String>,
    pub(crate) queues: Vec<Queue>,
    pub(crate) connections: Vec<Connection>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) vhost: String,
    pub(crate) kind: String,
    pub(crate) ready: u64,
    pub(crate) unacknowledged: u64,
    /// Messages a second.
    pub(crate) incoming: f64,
    pub(crate) outgoing: f64,
    /// By which `ready` and `unacknowledged` together change, a second.
    pub(crate) growth: f64,
    pub(crate) consumers: u64,
    /// Bytes.
    pub(crate) memory: u64,
    /// Seconds since 1970 of the oldest message, if its publisher set a timestamp.
    pub(crate) head: Option<u64>,
}

impl Queue {
    fn read(queue: &Value) -> Self {
        let number = |name: &str| queue[name].as_u64().unwrap_or_default();
        let rate = |name: &str| queue["message_stats"][name]["rate"].as_f64().unwrap_or_default();
        Self {
            name: plain(&queue["name"]),
            vhost: plain(&queue["vhost"]),
            kind: plain(&queue["type"]),
            ready: number("messages_ready"),
            unacknowledged: number("messages_unacknowledged"),
            incoming: rate("publish_details"),
            outgoing: rate("deliver_get_details"),
            growth: queue["messages_details"]["rate"].as_f64().unwrap_or_default(),
            consumers: number("consumers"),
            memory: number("memory"),
            head: queue["head_message_timestamp"].as_u64(),
        }
    }

    /// Seconds until its messages are gone at the present pace; infinite if nobody takes any, 0 if there are none.
    pub(crate) fn drain(&self) -> f64 {
        if self.ready == 0 {
            return 0.0;
        }
        let pace = -self.growth;
        if pace > 0.0 { self.ready as f64 / pace } else { f64::INFINITY }
    }

    /// Messages wait and get more.
    pub(crate) fn is_growing(&self) -> bool {
        self.ready > 0 && self.growth > 0.0
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Connection {
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) vhost: String,
    pub(crate) state: String,
    pub(crate) protocol: String,
    pub(crate) client: String,
    pub(crate) channels: u64,
    /// Bytes a second.
    pub(crate) received: f64,
    pub(crate) sent: f64,
}

impl Connection {
    fn read(connection: &Value) -> Self {
        let rate = |name: &str| connection[name]["rate"].as_f64().unwrap_or_default();
        let given = &connection["client_properties"]["connection_name"];
        let product = &connection["client_properties"]["product"];
        Self {
            name: plain(&connection["name"]),
            user: plain(&connection["user"]),
            vhost: plain(&connection["vhost"]),
            state: plain(&connection["state"]),
            protocol: plain(&connection["protocol"]),
            client: plain(if given.is_null() { product } else { given }),
            channels: connection["channels"].as_u64().unwrap_or_default(),
            received: rate("recv_oct_details"),
            sent: rate("send_oct_details"),
        }
    }
}

impl Sample {
    /// Asks the broker.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub(crate) fn take(call: &Call<'_>, tab: Tab, filter: &str) -> Result<Self, CtlError> {
        let overview = call.client.get("/api/overview")?;
        let nodes = call.client.get("/api/nodes")?;
        let mut query = format!("page=1&page_size={MOST_ROWS}&pagination=true");
        if !filter.is_empty() {
            query.push_str(&format!("&name={}", encode(filter)));
        }
        let (mut queues, mut connections) = (json!([]), json!([]));
        match tab {
            Tab::Queues => {
                let sorted = format!("{query}&sort=messages&sort_reverse=true");
                // Where there is no list of every field, the shorter one will do.
                queues = match call.client.find(&format!("/api/queues/detailed?{sorted}"))? {
                    Some(page) => page,
                    None => call.client.get(&format!("/api/queues?{sorted}"))?,
                };
            }
            Tab::Connections => connections = call.client.get(&format!("/api/connections?{query}"))?,
        }
        Ok(Self::read(&overview, &nodes, items(&queues), items(&connections)))
    }

    pub(crate) fn read(overview: &Value, nodes: &Value, queues: &Value, connections: &Value) -> Self {
        let rate = |name: &str| overview["message_stats"][name]["rate"].as_f64().unwrap_or_default();
        let count = |name: &str| overview["object_totals"][name].as_u64().unwrap_or_default().to_string();
        let messages = |name: &str| overview["queue_totals"][name].as_u64().unwrap_or_default().to_string();
        let node = &nodes[0];
        let bytes = |name: &str| node[name].as_f64().unwrap_or_default();
        Self {
            node: plain(&overview["node"]),
            totals: vec![
                ("ready", messages("messages_ready")),
                ("unacked", messages("messages_unacknowledged")),
                ("in/s", per_second(rate("publish_details"))),
                ("out/s", per_second(rate("deliver_get_details"))),
                ("queues", count("queues")),
                ("connections", count("connections")),
                ("channels", count("channels")),
                ("consumers", count("consumers")),
                ("memory", format!("{} of {}", size(bytes("mem_used")), size(bytes("mem_limit")))),
                ("disk free", size(bytes("disk_free"))),
            ],
            alarms: nodes.as_array().into_iter().flatten().flat_map(super::super::report::alarms).collect(),
            queues: queues.as_array().into_iter().flatten().map(Queue::read).collect(),
            connections: connections.as_array().into_iter().flatten().map(Connection::read).collect(),
        }
    }

    /// How many rows there are.
    pub(crate) fn rows(&self, tab: Tab) -> usize {
        match tab {
            Tab::Queues => self.queues.len(),
            Tab::Connections => self.connections.len(),
        }
    }
}

/// The items of a page, or the list itself where there are no pages.
fn items(page: &Value) -> &Value {
    if page.is_array() { page } else { &page["items"] }
}

/// `12.3`, `4.5k`.
pub(crate) fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.1}M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1}k", rate / 1e3),
        0.0 => "0".to_owned(),
        rate => format!("{rate:.1}"),
    }
}

/// `1.5 MiB`.
pub(crate) fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            (per_second(0.0), per_second(12.34), per_second(45_600.0)),
            ("0".into(), "12.3".into(), "45.6k".into())
        );
        assert_eq!((size(12.0), size(1536.0), size(1e12)), ("12 B".into(), "1.5 KiB".into(), "931.3 GiB".into()));
    }

    #[test]
    fn a_queue_drains_at_its_pace() {
        let queue = |growth, ready| Queue { growth, ready, ..Queue::default() };
        assert!(queue(1.0, 5).drain().is_infinite() && queue(1.0, 5).is_growing());
        assert!((queue(-2.0, 10).drain() - 5.0).abs() < 1e-9);
        assert!(queue(0.0, 0).drain().abs() < 1e-9 && !queue(1.0, 0).is_growing());
    }
}
