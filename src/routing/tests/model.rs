//! Random changes and messages against a plain model that tries every binding in turn.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// The rules of routing, as plainly as they can be written.
#[derive(Clone, Default)]
struct Model {
    exchanges: BTreeMap<String, (ExchangeKind, Option<String>)>,
    queues: BTreeMap<String, u64>,
    bindings: Vec<Binding>,
}

impl Model {
    fn route(&self, start: &str, keys: &[&str], headers: &FieldTable) -> Vec<u64> {
        let mut found = BTreeSet::new();
        let mut entered: Vec<String> = vec![start.to_owned()];
        let mut at = 0;
        while let Some(name) = entered.get(at).cloned() {
            at += 1;
            let Some((kind, alternate)) = self.exchanges.get(&name) else {
                continue;
            };
            let matches = |binding: &&Binding| {
                binding.source.as_str() == name && keys.iter().any(|key| self.matches(*kind, binding, key, headers))
            };
            let matched: Vec<&Binding> = self.bindings.iter().filter(matches).collect();
            let mut next: Vec<String> = Vec::new();
            for binding in &matched {
                match &binding.destination {
                    Destination::Queue(queue) => found.extend(self.queues.get(queue.as_str())),
                    Destination::Exchange(exchange) => next.push(exchange.as_str().to_owned()),
                }
            }
            if matched.is_empty() {
                next.extend(alternate.clone());
            }
            for name in next {
                if !entered.contains(&name) {
                    entered.push(name);
                }
            }
        }
        found.into_iter().collect()
    }

    fn matches(&self, kind: ExchangeKind, binding: &Binding, key: &str, headers: &FieldTable) -> bool {
        match kind {
            ExchangeKind::Direct => binding.key.as_bytes() == key.as_bytes(),
            ExchangeKind::Topic => {
                let pattern = binding.key.to_string();
                topic_matches(&split(&pattern), &split(key))
            }
            ExchangeKind::Headers => headers_match(&binding.arguments, headers),
            _ => true,
        }
    }

    fn bind(&mut self, binding: &Binding) -> bool {
        let is_new = self.exchanges.contains_key(binding.source.as_str()) && !self.bindings.contains(binding);
        if is_new {
            self.bindings.push(binding.clone());
        }
        is_new
    }

    fn unbind(&mut self, binding: &Binding) -> bool {
        let before = self.bindings.len();
        self.bindings.retain(|known| known != binding);
        self.bindings.len() < before
    }
}

fn split(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

fn topic_matches(pattern: &[&str], words: &[&str]) -> bool {
    match pattern {
        [] => words.is_empty(),
        ["#", rest @ ..] => (0..=words.len()).any(|skipped| topic_matches(rest, &words[skipped..])),
        [first, rest @ ..] => {
            words.first().is_some_and(|word| *first == "*" || first == word) && topic_matches(rest, &words[1..])
        }
    }
}

fn headers_match(arguments: &FieldTable, headers: &FieldTable) -> bool {
    let mode = arguments.find("x-match").and_then(FieldValue::as_str).unwrap_or("all");
    let mut wanted = arguments
        .0
        .iter()
        .filter(|(key, _)| &**key != "x-match" && (mode.ends_with("-with-x") || !key.starts_with("x-")));
    let met = |(key, wanted): &(Box<str>, FieldValue)| {
        let header = headers.0.iter().rfind(|(name, _)| name == key).map(|(_, value)| value);
        header.is_some_and(|header| match (wanted, header) {
            (FieldValue::Void, _) => true,
            (a, b) if a.as_integer().is_some() && b.as_integer().is_some() => a.as_integer() == b.as_integer(),
            (a, b) => a == b,
        })
    };
    if mode.starts_with("any") { wanted.any(met) } else { wanted.all(met) }
}

#[derive(Clone, Debug)]
enum Change {
    InsertExchange(usize, ExchangeKind, Option<usize>),
    InsertQueue(usize),
    RemoveQueue(usize),
    Bind(Binding),
    Unbind(Binding),
    /// Unbinds one of the bindings that exist.
    UnbindNth(usize),
    RemoveExchange(usize),
}

const KINDS: [ExchangeKind; 4] =
    [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers];

fn any_key() -> impl Strategy<Value = String> {
    let word = prop_oneof![Just(""), Just("a"), Just("b"), Just("*"), Just("#"), Just("#")];
    prop::collection::vec(word, 0..6).prop_map(|words| words.join("."))
}

fn any_value() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        Just(FieldValue::Void),
        Just(FieldValue::I32(1)),
        Just(FieldValue::U8(1)),
        Just(FieldValue::F32(1.0)),
        Just(FieldValue::Bool(true)),
        Just(FieldValue::string("1")),
        Just(FieldValue::Array(vec![FieldValue::I8(1)])),
        Just(FieldValue::Table(table(&[("a", FieldValue::Void)]))),
    ]
}

fn any_table() -> impl Strategy<Value = FieldTable> {
    let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("x-a")];
    prop::collection::vec((key, any_value()), 0..4).prop_map(|pairs| table(&pairs))
}

fn any_arguments() -> impl Strategy<Value = FieldTable> {
    let mode = prop_oneof![Just(None), Just(Some("any")), Just(Some("all-with-x")), Just(Some("any-with-x"))];
    (mode, any_table()).prop_map(|(mode, mut table)| {
        if let Some(mode) = mode {
            table.push("x-match", FieldValue::string(mode));
        }
        table.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        table
    })
}

fn any_binding() -> impl Strategy<Value = Binding> {
    (0..6_usize, 0..12_usize, any_key(), any_arguments()).prop_map(|(source, destination, key, arguments)| {
        let destination = match destination {
            0..4 => Destination::Exchange(format!("e{destination}").as_str().into()),
            _ => Destination::Queue(format!("q{destination}").as_str().into()),
        };
        binding(&format!("e{source}"), destination, &key, arguments)
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    let exchange = (0..6_usize, 0..KINDS.len(), prop::option::of(0..6_usize));
    prop_oneof![
        3 => exchange.prop_map(|(name, kind, alternate)| Change::InsertExchange(name, KINDS[kind], alternate)),
        3 => (4..12_usize).prop_map(Change::InsertQueue),
        1 => (4..12_usize).prop_map(Change::RemoveQueue),
        16 => any_binding().prop_map(Change::Bind),
        1 => any_binding().prop_map(Change::Unbind),
        4 => any::<usize>().prop_map(Change::UnbindNth),
        1 => (0..6_usize).prop_map(Change::RemoveExchange),
    ]
}

/// Applies one change to both; answers must agree.
fn apply(change: &Change, next_id: &mut u64, routing: &mut RoutingTable, model: &mut Model) {
    match change {
        Change::InsertExchange(name, kind, alternate) => {
            let name = format!("e{name}");
            let alternate = alternate.map(|at| format!("e{at}"));
            if model.exchanges.get(&name).is_some_and(|(known, _)| known != kind) {
                return;
            }
            let declared =
                Exchange { alternate: alternate.as_deref().map(ExchangeName::from), ..exchange(&name, *kind) };
            routing.insert_exchange(&declared);
            model.exchanges.insert(name, (*kind, alternate));
        }
        Change::InsertQueue(queue) => {
            let name = format!("q{queue}");
            *next_id += 1;
            routing.insert_queue(name.as_str().into(), target(*next_id));
            model.queues.insert(name, *next_id);
        }
        Change::RemoveQueue(queue) => {
            let name = format!("q{queue}");
            routing.remove_queue(&name.as_str().into());
            model.queues.remove(&name);
        }
        Change::Bind(binding) => assert_eq!(routing.bind(binding), model.bind(binding), "{binding:?}"),
        Change::Unbind(binding) => assert_eq!(routing.unbind(binding), model.unbind(binding), "{binding:?}"),
        Change::UnbindNth(at) => {
            let binding = at.checked_rem(model.bindings.len()).map(|at| model.bindings.remove(at));
            assert!(binding.is_none_or(|binding| routing.unbind(&binding)));
        }
        Change::RemoveExchange(name) => {
            let name = format!("e{name}");
            model.bindings.iter().filter(|binding| binding.source.as_str() == name).for_each(|binding| {
                assert!(routing.unbind(binding));
            });
            model.bindings.retain(|binding| binding.source.as_str() != name);
            model.exchanges.remove(&name);
            routing.remove_exchange(&name.as_str().into());
        }
    }
}

fn assert_same_routes(routing: &RoutingTable, model: &Model, messages: &[(Vec<String>, FieldTable)]) {
    for (keys, headers) in messages {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let raw = encoded(headers);
        let facts = Facts { headers: Some(&raw), ..Facts::default() };
        for name in model.exchanges.keys() {
            let expected = model.route(name, &keys, headers);
            assert_eq!(routed(routing, name, &keys, &facts), expected, "{name} {keys:?} {headers:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { ..ProptestConfig::with_cases(400) })]

    #[test]
    fn routes_as_the_model_does(
        early in prop::collection::vec(any_change(), 0..60),
        late in prop::collection::vec(any_change(), 0..40),
        messages in prop::collection::vec((prop::collection::vec(any_key(), 1..3), any_table()), 1..5),
    ) {
        let (mut routing, mut model, mut next_id) = (RoutingTable::default(), Model::default(), 0);
        early.iter().for_each(|change| apply(change, &mut next_id, &mut routing, &mut model));
        let (old_routing, old_model) = (routing.clone(), model.clone());
        late.iter().for_each(|change| apply(change, &mut next_id, &mut routing, &mut model));
        assert_same_routes(&routing, &model, &messages);
        assert_same_routes(&old_routing, &old_model, &messages);
        for binding in std::mem::take(&mut model.bindings) {
            assert!(routing.unbind(&binding));
        }
        assert_same_routes(&routing, &model, &messages);
        assert!(routing.stale.is_empty());
    }

    #[test]
    fn topics_match_as_the_model_does(
        patterns in prop::collection::vec(any_key(), 1..30),
        keys in prop::collection::vec(any_key(), 1..10),
    ) {
        let mut routing = RoutingTable::default();
        routing.insert_exchange(&exchange("topic", ExchangeKind::Topic));
        for (at, pattern) in patterns.iter().enumerate() {
            routing.insert_queue(format!("t{at}").as_str().into(), target(at as u64));
            routing.bind(&to_queue("topic", &format!("t{at}"), pattern));
        }
        for key in &keys {
            let matches = |at: &usize| topic_matches(&split(&patterns[*at]), &split(key));
            let expected: Vec<u64> = (0..patterns.len()).filter(matches).map(|at| at as u64).collect();
            prop_assert_eq!(routed_by_key(&routing, "topic", key), expected, "{:?}", key);
        }
    }
}
