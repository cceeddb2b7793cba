//! How long many definitions take: `cargo test --profile quick --lib definitions -- --ignored --nocapture`.

use std::time::Instant;

use super::super::{decode_snapshot, encode_snapshot};
use super::model::{Model, Operation};
use super::*;

const QUEUES: usize = 10_000;

#[test]
#[ignore = "measures, and says so on the console"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn many_queues_with_bindings() {
    let mut metadata = Metadata::new(&settings());
    let mut model = Model::default();
    model.apply(&mut metadata, Operation::AddVhost("/".into()));
    let start = Instant::now();
    for number in 0..QUEUES {
        let name = format!("queue.{number}");
        let arguments = table(&[("x-max-length", FieldValue::I32(1000))]);
        let queue =
            QueueDefinition { id: metadata.new_queue_id(), name: name.as_str().into(), auto_delete: false, arguments };
        metadata.add_queue(queue.into_queue("/".into(), &settings()));
        for source in ["amq.direct", "amq.topic"] {
            let destination = Destination::Queue(name.as_str().into());
            let key = RoutingKey::new(name.as_bytes());
            metadata.bind(
                &"/".into(),
                Binding { source: source.into(), destination, key, arguments: FieldTable::default() },
            );
        }
        // As when every change is published.
        let _published = metadata.topology().clone();
    }
    println!("{QUEUES} queues, each with two bindings: declared in {:?}", start.elapsed());
    let changes = metadata.take_changes();
    let start = Instant::now();
    let bytes = encode_snapshot(&metadata.durable(), 1);
    println!("snapshot of {} bytes made in {:?}", bytes.len(), start.elapsed());
    let start = Instant::now();
    let snapshot = decode_snapshot(&bytes).unwrap();
    println!("snapshot read in {:?}", start.elapsed());
    let start = Instant::now();
    let mut restored = Metadata::new(&settings());
    snapshot.changes.into_iter().for_each(|change| restored.replay(change).unwrap());
    println!("snapshot replayed in {:?}", start.elapsed());
    let start = Instant::now();
    let replayed = rebuilt(&changes);
    println!("{} changes encoded, decoded and replayed in {:?}", changes.len(), start.elapsed());
    assert_eq!(by_bytes(&replayed.durable()), by_bytes(&restored.durable()));
    let start = Instant::now();
    restored.remove_exchange(&"/".into(), &"amq.topic".into());
    println!("exchange with {QUEUES} bindings removed in {:?}", start.elapsed());
}
