//! Field tables from arbitrary bytes: decoding never panics, encoding gives back a table that decodes to the same bytes,
//! and the headers exchange, which reads tables on its own, finds the keys that decoding finds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use warren::model::entity::{Binding, Destination, Exchange, ExchangeKind};
use warren::model::ids::QueueId;
use warren::model::names::RoutingKey;
use warren::model::table::{FieldTable, FieldValue};
use warren::routing::{Facts, QueueTarget, RoutingTable, Targets};

fuzz_target!(|data: &[u8]| {
    let decoded = FieldTable::decode(data);
    if let Ok(table) = &decoded {
        let first = encoded(table);
        match FieldTable::decode(&first) {
            Ok(again) => assert_eq!(encoded(&again), first),
            Err(error) => panic!("what was encoded does not decode: {error}"),
        }
    }

    let keys: Vec<&str> = match &decoded {
        Ok(table) => table.0.iter().map(|(key, _)| &**key).collect(),
        Err(_) => vec!["a"],
    };
    for key in keys.into_iter().take(4) {
        let found = is_routed_by(key, data);
        assert!(found || decoded.is_err() || key == "x-match");
    }
    if let Ok(table) = &decoded {
        assert_eq!(is_routed_by("a", data), table.find("a").is_some());
    }
});

fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes.split_off(4)
}

/// Whether a headers exchange sends a message with these headers to a queue bound with `key` present.
fn is_routed_by(key: &str, headers: &[u8]) -> bool {
    let mut table = RoutingTable::default();
    table.insert_exchange(&Exchange {
        name: "headers".into(),
        kind: ExchangeKind::Headers,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: FieldTable::default(),
        alternate: None,
    });
    table.insert_queue("queue".into(), QueueTarget { id: QueueId(1), shard: 0 });
    let mut arguments = FieldTable::default();
    arguments.push("x-match", FieldValue::string("any-with-x"));
    arguments.push(key, FieldValue::Void);
    table.bind(&Binding {
        source: "headers".into(),
        destination: Destination::Queue("queue".into()),
        key: RoutingKey::new(b""),
        arguments,
    });
    let mut targets = Targets::default();
    let facts = Facts { headers: Some(headers), ..Facts::default() };
    assert!(table.route(b"headers", &[b""], &facts, &mut targets).is_ok());
    !targets.is_empty()
}
