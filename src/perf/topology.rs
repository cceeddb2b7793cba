//! Queues, exchange and bindings of a run, and what publishers send so that each message has its way.

use super::client::Client;
use super::error::PerfError;
use super::options::{Exchange, Options};
use super::wire::{Table, Value};

/// A routing key and headers that one binding matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) key: String,
    pub(super) headers: Table,
}

#[derive(Debug)]
struct Binding {
    queue: usize,
    pattern: String,
    arguments: Table,
    route: Route,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Topology {
    /// The exchange's name; empty for the default exchange.
    pub(super) exchange: String,
    kind: Option<&'static str>,
    durable: bool,
    queues: Vec<String>,
    queue_arguments: Table,
    bindings: Vec<Binding>,
    /// Queues that each message goes to.
    pub(super) copies: u64,
}

impl Topology {
    pub(super) fn new(options: &Options) -> Self {
        let kind = options.exchange.kind();
        let queues = (0..options.queues).map(|number| format!("{}-{number}", options.name)).collect::<Vec<_>>();
        // Every queue needs one at least.
        let count = options.bindings.unwrap_or(0).max(options.queues);
        let bindings = (0..if kind.is_some() { count } else { 0 })
            .map(|number| binding(options.exchange, &options.name, number, options.queues))
            .collect();
        Self {
            exchange: kind.map_or_else(String::new, |kind| format!("{}-{kind}", options.name)),
            kind,
            durable: options.durable,
            queues,
            queue_arguments: options.queue_arguments(),
            bindings,
            copies: if options.exchange == Exchange::Fanout { options.queues as u64 } else { 1 },
        }
    }

    /// Declares everything; `purge` empties queues that were there.
    pub(super) fn declare(&self, client: &mut Client, purge: bool) -> Result<(), PerfError> {
        for queue in &self.queues {
            client.declare_queue(queue, self.durable, &self.queue_arguments)?;
            if purge {
                client.purge_queue(queue)?;
            }
        }
        if let Some(kind) = self.kind {
            client.declare_exchange(&self.exchange, kind, self.durable)?;
        }
        for binding in &self.bindings {
            client.bind(&self.queues[binding.queue], &self.exchange, &binding.pattern, &binding.arguments)?;
        }
        Ok(())
    }

    pub(super) fn delete(&self, client: &mut Client) -> Result<(), PerfError> {
        for queue in &self.queues {
            client.delete_queue(queue)?;
        }
        if self.kind.is_some() {
            client.delete_exchange(&self.exchange)?;
        }
        Ok(())
    }

    /// What publisher `number` of `publishers` sends, in turn.
    pub(super) fn routes(&self, number: usize, publishers: usize) -> Vec<Route> {
        match self.kind {
            None => {
                let to_queue = |key: &String| Route { key: key.clone(), headers: Table::new() };
                share(&self.queues, number, publishers).map(to_queue).collect()
            }
            Some("fanout") => vec![Route::default()],
            Some(_) => share(&self.bindings, number, publishers).map(|binding| binding.route.clone()).collect(),
        }
    }

    /// The queues of consumer `number` of `consumers`.
    pub(super) fn consumed(&self, number: usize, consumers: usize) -> Vec<String> {
        share(&self.queues, number, consumers).cloned().collect()
    }
}

/// What member `number` of a group of `members` has of `all`: every `members`-th, or one when there are fewer than members.
fn share<T>(all: &[T], number: usize, members: usize) -> impl Iterator<Item = &T> {
    all.iter().skip(number % all.len().max(1)).step_by(members.max(1))
}

/// Patterns differ in shape, and each route matches its own pattern only.
fn binding(exchange: Exchange, name: &str, number: usize, queues: usize) -> Binding {
    let queue = number % queues;
    let keyed = |pattern: String, key: String| {
        let route = Route { key, headers: Table::new() };
        Binding { queue, pattern, arguments: Table::new(), route }
    };
    match exchange {
        Exchange::Default | Exchange::Direct => keyed(format!("{name}.{number}"), format!("{name}.{number}")),
        Exchange::Fanout => keyed(format!("{number}"), String::new()),
        Exchange::Topic => match number % 4 {
            0 => keyed(format!("sensor{number}.*.reading"), format!("sensor{number}.hall.reading")),
            1 => keyed(format!("sensor{number}.#"), format!("sensor{number}.hall.left.alarm")),
            2 => keyed(format!("*.sensor{number}.*"), format!("site.sensor{number}.hall")),
            _ => keyed(format!("#.sensor{number}"), format!("site.hall.sensor{number}")),
        },
        Exchange::Headers => {
            let header = |key: &str| (key.to_owned(), Value::Text(format!("{key}-{number}")));
            let headers = vec![header("device"), header("place")];
            let mut arguments = headers.clone();
            let mode = if number.is_multiple_of(2) { "all" } else { "any" };
            arguments.push(("x-match".to_owned(), Value::Text(mode.to_owned())));
            Binding { queue, pattern: String::new(), arguments, route: Route { key: String::new(), headers } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_share_everything() {
        let all = [0, 1, 2, 3, 4];
        let shares = |members: usize| (0..members).map(|n| share(&all, n, members).copied().collect()).collect();
        let two: Vec<Vec<i32>> = shares(2);
        assert_eq!(two, [vec![0, 2, 4], vec![1, 3]]);
        let seven: Vec<Vec<i32>> = shares(7);
        assert_eq!(seven, [vec![0], vec![1], vec![2], vec![3], vec![4], vec![0], vec![1]]);
    }

    #[test]
    fn each_topic_route_matches_its_pattern_only() {
        let bindings = (0..40).map(|number| binding(Exchange::Topic, "perf", number, 3)).collect::<Vec<_>>();
        for binding in &bindings {
            let key = binding.route.key.split('.').collect::<Vec<_>>();
            let matching = bindings.iter().filter(|other| {
                let pattern = other.pattern.split('.').collect::<Vec<_>>();
                matches(&pattern, &key)
            });
            assert_eq!(matching.map(|other| &other.pattern).collect::<Vec<_>>(), [&binding.pattern]);
        }
    }

    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => (0..=key.len()).any(|skipped| matches(rest, &key[skipped..])),
            (["*", rest @ ..], [_, key @ ..]) => matches(rest, key),
            ([word, rest @ ..], [first, key @ ..]) => word == first && matches(rest, key),
            _ => false,
        }
    }
}
