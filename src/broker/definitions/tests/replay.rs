//! Random operations: what replays of their changes make is what the model says survives.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{decode_snapshot, encode_snapshot};
use super::model::{Lifetime, Model, Operation};
use super::*;
use crate::model::names::{ExchangeName, QueueName};
use crate::routing::{Facts, QueueTarget, RoutingTable, Targets};

const KEYS: [&str; 4] = ["1", "2", "a.b", "#"];

fn vhost() -> impl Strategy<Value = VhostName> {
    prop_oneof![4 => Just("/".into()), 1 => Just("other".into())]
}

fn exchange_name() -> impl Strategy<Value = ExchangeName> {
    select(vec!["e0", "e1", "e2", "e3", "e4"]).prop_map(ExchangeName::new)
}

fn source_name() -> impl Strategy<Value = ExchangeName> {
    prop_oneof![6 => exchange_name(), 1 => Just("amq.topic".into())]
}

fn queue_name() -> impl Strategy<Value = QueueName> {
    select(vec!["q0", "q1", "q2", "q3"]).prop_map(QueueName::new)
}

/// Not the random ones: what they pick depends on more than definitions.
const KINDS: [ExchangeKind; 7] = [
    ExchangeKind::ConsistentHash,
    ExchangeKind::Direct,
    ExchangeKind::Fanout,
    ExchangeKind::Topic,
    ExchangeKind::Headers,
    ExchangeKind::ModulusHash,
    ExchangeKind::RecentHistory,
];

fn exchange(kinds: &[ExchangeKind]) -> impl Strategy<Value = Box<Exchange>> + use<> {
    let alternate = proptest::option::of(source_name());
    let flags = (proptest::bool::weighted(0.7), any::<bool>(), any::<bool>());
    (exchange_name(), select(kinds.to_vec()), flags, alternate).prop_map(
        |(name, kind, (durable, auto_delete, internal), alternate)| {
            let arguments = alternate.map_or_else(FieldTable::default, |alternate| {
                table(&[("alternate-exchange", FieldValue::string(alternate.as_str()))])
            });
            Box::new(Exchange { name, kind, durable, auto_delete, internal, arguments, alternate: None })
        },
    )
}

fn binding() -> impl Strategy<Value = Box<Binding>> {
    let destination = prop_oneof![
        2 => queue_name().prop_map(Destination::Queue),
        1 => source_name().prop_map(Destination::Exchange),
    ];
    let arguments = select(vec![
        FieldTable::default(),
        FieldTable::default(),
        table(&[("x-match", FieldValue::string("any")), ("key", FieldValue::I32(1))]),
    ]);
    (source_name(), destination, select(KEYS.to_vec()), arguments).prop_map(|(source, destination, key, arguments)| {
        Box::new(Binding { source, destination, key: RoutingKey::new(key.as_bytes()), arguments })
    })
}

fn operation(kinds: &[ExchangeKind]) -> impl Strategy<Value = Operation> + use<> {
    let users =
        vec![user("ann", &[("/", [".*", "", "^q"])], &["management"]), user("ann", &[], &[]), user("bob", &[], &[])];
    let lifetimes = vec![Lifetime::Durable, Lifetime::Durable, Lifetime::Transient, Lifetime::Exclusive];
    let arguments = vec![
        FieldTable::default(),
        table(&[("x-max-length", FieldValue::I64(5)), ("x-dead-letter-exchange", FieldValue::string("e1"))]),
    ];
    prop_oneof![
        1 => vhost().prop_map(Operation::AddVhost),
        1 => select(users).prop_map(|user| Operation::AddUser(Box::new(user))),
        5 => (vhost(), exchange(kinds)).prop_map(|(vhost, exchange)| Operation::AddExchange(vhost, exchange)),
        1 => (vhost(), exchange_name()).prop_map(|(vhost, name)| Operation::RemoveExchange(vhost, name)),
        5 => (vhost(), queue_name(), select(lifetimes), any::<bool>(), select(arguments)).prop_map(
            |(vhost, name, lifetime, auto_delete, arguments)| Operation::AddQueue { vhost, name, lifetime, auto_delete, arguments }
        ),
        2 => (vhost(), queue_name()).prop_map(|(vhost, name)| Operation::RemoveQueue(vhost, name)),
        10 => (vhost(), binding()).prop_map(|(vhost, binding)| Operation::Bind(vhost, binding)),
        3 => (vhost(), binding()).prop_map(|(vhost, binding)| Operation::Unbind(vhost, binding)),
    ]
}

/// Changes of one consistent hash exchange.
fn hashing() -> impl Strategy<Value = Operation> {
    let binding = || {
        (queue_name(), select(vec!["1", "2", "3"])).prop_map(|(queue, key)| {
            let destination = Destination::Queue(queue);
            let key = RoutingKey::new(key.as_bytes());
            Box::new(Binding { source: "e0".into(), destination, key, arguments: FieldTable::default() })
        })
    };
    let queue = |lifetime| {
        move |name| Operation::AddQueue {
            vhost: "/".into(),
            name,
            lifetime,
            auto_delete: false,
            arguments: FieldTable::default(),
        }
    };
    prop_oneof![
        1 => Just(Operation::AddExchange("/".into(), Box::new(Exchange {
            name: "e0".into(),
            kind: ExchangeKind::ConsistentHash,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: FieldTable::default(),
            alternate: None,
        }))),
        2 => queue_name().prop_map(queue(Lifetime::Durable)),
        1 => queue_name().prop_map(queue(Lifetime::Transient)),
        1 => queue_name().prop_map(|name| Operation::RemoveQueue("/".into(), name)),
        8 => binding().prop_map(|binding| Operation::Bind("/".into(), binding)),
        4 => binding().prop_map(|binding| Operation::Unbind("/".into(), binding)),
    ]
}

/// For each exchange and key, the queues; none when there is no such exchange.
fn routes(routing: &RoutingTable, exchanges: &[&str]) -> Vec<Option<Vec<QueueTarget>>> {
    let mut header = Vec::new();
    table(&[("key", FieldValue::I32(1))]).encode(&mut header);
    let mut routes = Vec::new();
    for exchange in exchanges {
        for key in KEYS {
            let facts = Facts { headers: Some(&header[4..]), ..Facts::default() };
            let mut targets = Targets::default();
            let known = routing.route(exchange.as_bytes(), &[key.as_bytes()], &facts, &mut targets);
            let mut queues = targets.queues().to_vec();
            queues.sort();
            routes.push(known.ok().map(|()| queues));
        }
    }
    routes
}

/// Everything that can be seen of the definitions is as the model says.
fn check(metadata: &Metadata, model: &Model) {
    assert_eq!(by_bytes(&metadata.durable()), by_bytes(&model.durable()));
    for vhost in model.vhosts() {
        let snapshot = metadata.vhost(vhost).unwrap();
        let queues = model.queues(vhost);
        assert_eq!(snapshot.queues.size(), queues.len());
        assert_eq!(snapshot.names.size(), queues.len());
        for queue in queues {
            assert_eq!(format!("{:?}", snapshot.queues.get(&queue.name)), format!("{:?}", Some(&queue)));
            assert_eq!(snapshot.names.get(&queue.id), Some(&queue.name));
        }
        let exchanges = ["", "e0", "e1", "e2", "e3", "e4", "amq.topic"];
        assert_eq!(routes(&snapshot.routing, &exchanges), routes(model.routing(vhost), &exchanges));
    }
}

/// Definitions with a history.
struct History {
    metadata: Metadata,
    model: Model,
    changes: Vec<Change>,
    /// After each operation: how many changes there were, and a snapshot.
    snapshots: Vec<(usize, Vec<u8>)>,
}

fn history(operations: Vec<Operation>) -> History {
    let mut metadata = Metadata::new(&settings());
    let mut model = Model::default();
    let mut changes = Vec::new();
    let mut snapshots = vec![(0, encode_snapshot(&metadata.durable(), 0))];
    for operation in std::iter::once(Operation::AddVhost("/".into())).chain(operations) {
        model.apply(&mut metadata, operation);
        changes.append(&mut metadata.take_changes());
        snapshots.push((changes.len(), encode_snapshot(&metadata.durable(), changes.len() as u64)));
    }
    History { metadata, model, changes, snapshots }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_survives_comes_back(operations in vec(operation(&KINDS), 0..120), at in any::<Index>()) {
        let History { mut metadata, model, changes, snapshots } = history(operations);
        let next_queue = metadata.new_queue_id();
        for (through, bytes) in [at.get(&snapshots), &snapshots[0], &snapshots[snapshots.len() - 1]] {
            let snapshot = decode_snapshot(bytes).unwrap();
            prop_assert_eq!(snapshot.through, *through as u64);
            let mut restored = rebuilt(snapshot.changes.iter().chain(&changes[*through..]));
            check(&restored, &model);
            prop_assert!(restored.take_changes().is_empty());
            prop_assert!(restored.new_queue_id() >= next_queue, "an id is used again");
        }
    }

    #[test]
    fn consistent_hashing_goes_on_as_before(operations in vec(hashing(), 0..80), at in any::<Index>()) {
        let History { model, changes, snapshots, .. } = history(operations);
        for (through, bytes) in [at.get(&snapshots), &snapshots[snapshots.len() - 1]] {
            let snapshot = decode_snapshot(bytes).unwrap();
            check(&rebuilt(snapshot.changes.iter().chain(&changes[*through..])), &model);
        }
    }

    /// Changes that a snapshot contains are replayed over it, since some earlier time or since ever.
    #[test]
    fn repeats_do_no_harm(
        operations in vec(operation(&KINDS[1..]), 0..120),
        since in any::<Index>(),
        at in any::<Index>(),
    ) {
        let History { model, changes, snapshots, .. } = history(operations);
        for (through, bytes) in [at.get(&snapshots), &snapshots[snapshots.len() - 1]] {
            let snapshot = decode_snapshot(bytes).unwrap();
            for from in [since.index(through + 1), 0] {
                check(&rebuilt(snapshot.changes.iter().chain(&changes[from..])), &model);
            }
        }
    }

    /// What came back goes on as what never went.
    #[test]
    fn what_came_back_changes_as_before(
        operations in vec(operation(&KINDS), 0..60),
        later in vec(operation(&KINDS), 0..60),
    ) {
        let durable_only = |operation: &Operation| match operation {
            Operation::AddExchange(_, exchange) => exchange.durable,
            Operation::AddQueue { lifetime, .. } => *lifetime == Lifetime::Durable,
            _ => true,
        };
        let mut metadata = Metadata::new(&settings());
        let mut model = Model::default();
        for operation in operations.into_iter().filter(durable_only) {
            model.apply(&mut metadata, operation);
        }
        let mut restored = rebuilt(&metadata.durable());
        for operation in later.into_iter().filter(durable_only) {
            model.apply(&mut restored, operation);
        }
        check(&restored, &model);
    }
}

#[test]
fn what_is_transient_leaves_no_changes() {
    let vhost: VhostName = "/".into();
    let mut metadata = Metadata::new(&settings());
    let mut model = Model::default();
    model.apply(&mut metadata, Operation::AddVhost(vhost.clone()));
    let queue = |name: &str, lifetime| Operation::AddQueue {
        vhost: "/".into(),
        name: name.into(),
        lifetime,
        auto_delete: false,
        arguments: FieldTable::default(),
    };
    model.apply(&mut metadata, queue("durable", Lifetime::Durable));
    metadata.take_changes();
    let transient = Exchange {
        name: "e".into(),
        kind: ExchangeKind::Fanout,
        durable: false,
        auto_delete: true,
        internal: false,
        arguments: FieldTable::default(),
        alternate: None,
    };
    model.apply(&mut metadata, Operation::AddExchange(vhost.clone(), Box::new(transient)));
    model.apply(&mut metadata, queue("transient", Lifetime::Transient));
    model.apply(&mut metadata, queue("exclusive", Lifetime::Exclusive));
    let queues = ["durable", "transient", "exclusive"].map(|name| Destination::Queue(name.into()));
    for (source, to) in [("e", 0), ("e", 1), ("amq.fanout", 1), ("amq.fanout", 2)] {
        let binding = Binding {
            source: source.into(),
            destination: queues[to].clone(),
            key: RoutingKey::new(b""),
            arguments: FieldTable::default(),
        };
        assert!(metadata.bind(&vhost, binding.clone()));
        if to == 1 {
            metadata.unbind(&vhost, &binding);
        }
    }
    model.apply(&mut metadata, Operation::RemoveQueue(vhost.clone(), "transient".into()));
    model.apply(&mut metadata, Operation::RemoveQueue(vhost.clone(), "exclusive".into()));
    metadata.remove_exchange(&vhost, &"e".into());
    assert_eq!(metadata.take_changes(), []);
}

#[test]
fn ids_of_transient_queues_are_not_used_again_either() {
    let mut metadata = Metadata::new(&settings());
    assert_eq!(metadata.new_queue_id(), QueueId(16));
    let mut last = QueueId(0);
    for _ in 0..5000 {
        last = metadata.new_queue_id();
    }
    let changes = metadata.take_changes();
    assert_eq!(changes.len(), 5, "ids are reserved many at a time");
    assert!(rebuilt(&changes).new_queue_id() > last);
    assert!(rebuilt(&metadata.durable()).new_queue_id() > last);
}

#[test]
fn a_long_chain_of_auto_delete_exchanges_goes_without_recursion() {
    const LENGTH: usize = 20_000;
    let name = |number: usize| ExchangeName::new(&format!("e{number}"));
    let mut metadata = Metadata::new(&settings());
    let mut model = Model::default();
    model.apply(&mut metadata, Operation::AddVhost("/".into()));
    for number in 0..LENGTH {
        let exchange = Exchange {
            name: name(number),
            kind: ExchangeKind::Fanout,
            durable: true,
            auto_delete: true,
            internal: false,
            arguments: FieldTable::default(),
            alternate: None,
        };
        metadata.add_exchange(&"/".into(), exchange);
        if number > 0 {
            let (source, destination) = (name(number), Destination::Exchange(name(number - 1)));
            let binding = Binding { source, destination, key: RoutingKey::new(b""), arguments: FieldTable::default() };
            assert!(metadata.bind(&"/".into(), binding));
        }
    }
    metadata.remove_exchange(&"/".into(), &name(0));
    assert_eq!(by_bytes(&metadata.durable()), by_bytes(&model.durable()));
    assert_eq!(by_bytes(&rebuilt(&metadata.take_changes()).durable()), by_bytes(&model.durable()));
}

#[test]
fn changes_that_are_not_of_these_definitions_are_refused() {
    let mut metadata = Metadata::new(&settings());
    let needs_a_vhost = |change: &&Change| {
        matches!(
            change,
            Change::AddExchange { .. }
                | Change::RemoveExchange { .. }
                | Change::AddQueue { .. }
                | Change::Bind { .. }
                | Change::RemoveQueue { .. }
                | Change::Unbind { .. }
                | Change::SetParameter { vhost: Some(_), .. }
        )
    };
    for change in one_of_each().iter().filter(needs_a_vhost) {
        let error = metadata.replay(change.clone()).unwrap_err().to_string();
        assert!(error.contains("vhost '/'"), "{error}");
    }
    metadata.set_vhost(&"/".into(), VhostMetadata::default());
    let mut add = |id, name: &str| {
        let queue = QueueDefinition {
            id: QueueId(id),
            name: name.into(),
            auto_delete: false,
            arguments: FieldTable::default(),
        };
        metadata.replay(Change::AddQueue { vhost: "/".into(), queue })
    };
    assert!(add(16, "a").is_ok() && add(16, "a").is_ok());
    assert!(add(16, "b").is_err(), "two queues of one id");
    assert!(add(1, "b").is_err() && add(u64::MAX, "b").is_err(), "ids no queue can have");
    assert!(metadata.replay(Change::ReserveQueueIds { below: u64::MAX }).is_err());
    assert_eq!(metadata.new_queue_id(), QueueId(17));
}
