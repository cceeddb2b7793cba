//! Definitions there and back: random changes against a plain model, damaged bytes, disks that forget.

mod bytes;
mod disk;
mod files;
mod model;
mod replay;
mod speed;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::metadata::Metadata;
use super::super::{
    BrokerSettings, HashAlgorithm, Limits, PasswordHash, Permission, TopicPermission, User, UserLimits, VhostDefaults,
};
use super::{Change, QueueDefinition};
use crate::model::entity::{Binding, Destination, Exchange, ExchangeKind, QueueType};
use crate::model::ids::QueueId;
use crate::model::names::{RoutingKey, VhostName};
use crate::model::table::{FieldTable, FieldValue};
use crate::model::vhost::{Protection, VhostMetadata};

fn settings() -> BrokerSettings {
    BrokerSettings {
        shards: 3,
        default_queue_type: QueueType::Classic,
        consumer_timeout_ms: Some(1234),
        expire_at_head_only: true,
        transient_nonexclusive_queues: true,
        node_name: "test".into(),
        anonymous_user: None,
        loopback_users: Vec::new(),
        memory_budget: 0,
        limits: Limits::default(),
        vhost_defaults: VhostDefaults::default(),
    }
}

/// Definitions as a replay of these changes leaves them; each change goes through its bytes.
fn rebuilt<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Metadata {
    let mut metadata = Metadata::new(&settings());
    for change in changes {
        metadata.replay(Change::decode(&encoded(change)).unwrap()).unwrap();
    }
    metadata
}

fn encoded(change: &Change) -> Vec<u8> {
    let mut bytes = Vec::new();
    change.encode(&mut bytes);
    bytes
}

fn table(pairs: &[(&str, FieldValue)]) -> FieldTable {
    FieldTable(pairs.iter().map(|(key, value)| ((*key).into(), value.clone())).collect())
}

fn user(name: &str, patterns: &[(&str, [&str; 3])], tags: &[&str]) -> User {
    let permission = |[configure, write, read]: [&str; 3]| Permission::parse(configure, write, read).unwrap();
    User {
        name: name.into(),
        password: PasswordHash::new([1, 2, 3, 4], name.as_bytes()),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        loopback_only: !tags.is_empty(),
        permissions: patterns.iter().map(|(vhost, patterns)| ((*vhost).into(), permission(*patterns))).collect(),
        topic_permissions: BTreeMap::new(),
        limits: UserLimits::default(),
    }
}

/// A user with everything that a user can have.
fn limited_user() -> User {
    let topics = TopicPermission::parse("^{username}", "").unwrap();
    User {
        password: PasswordHash::imported(HashAlgorithm::Sha512, &[7; 68]).unwrap(),
        topic_permissions: BTreeMap::from([(("/".into(), "amq.topic".into()), topics)]),
        limits: UserLimits { max_connections: Some(3), max_channels: Some(-1) },
        ..user("cid", &[], &["management"])
    }
}

/// One change of every kind, with everything in it that can be.
fn one_of_each() -> Vec<Change> {
    let vhost = || "/".into();
    let arguments = table(&[
        ("x-dead-letter-exchange", FieldValue::string("dead")),
        ("x-max-length", FieldValue::I32(10)),
        ("x-other", FieldValue::Array(vec![FieldValue::Void, FieldValue::Table(table(&[("k", true.into())]))])),
    ]);
    let alternate = table(&[("alternate-exchange", FieldValue::string("others"))]);
    let exchange = Exchange {
        name: "events".into(),
        kind: ExchangeKind::ConsistentHash,
        durable: true,
        auto_delete: true,
        internal: true,
        arguments: alternate,
        alternate: Some("others".into()),
    };
    let to_queue = Binding {
        source: "events".into(),
        destination: Destination::Queue("work".into()),
        key: RoutingKey::new(b"1\xff"),
        arguments: table(&[("x-match", FieldValue::string("any"))]),
    };
    let to_exchange = Binding {
        destination: Destination::Exchange("amq.topic".into()),
        arguments: FieldTable::default(),
        ..to_queue.clone()
    };
    let queue = QueueDefinition { id: QueueId(17), name: "work".into(), auto_delete: true, arguments };
    let metadata = VhostMetadata {
        description: "of others".to_owned(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        default_queue_type: Some(QueueType::Quorum),
        protection: Protection::FromDeletion,
    };
    let parameter = |vhost: Option<&str>, component: &str, name: &str, value: Value| Change::SetParameter {
        vhost: vhost.map(VhostName::new),
        component: component.into(),
        name: name.into(),
        value: Arc::new(value),
    };
    let patterns = [("/", [".*", "^$", ""]), ("other", ["^a.*", "b|c", "(?!x)"])];
    vec![
        Change::ReserveQueueIds { below: 2000 },
        Change::SetVhost { vhost: vhost(), metadata: Arc::default() },
        Change::SetVhost { vhost: "other".into(), metadata: Arc::new(metadata) },
        Change::SetUser { user: Arc::new(limited_user()) },
        parameter(Some("/"), "policy", "p", json!({"pattern": "^w", "definition": {"max-length": 9}})),
        parameter(Some("/"), "vhost-limits", "limits", json!({"max-queues": 100})),
        parameter(None, "", "cluster_name", json!("here")),
        Change::SetUser { user: Arc::new(user("ann", &patterns, &["administrator", "impersonator"])) },
        Change::SetUser { user: Arc::new(user("bob", &[], &[])) },
        Change::AddExchange { vhost: vhost(), exchange: Arc::new(exchange) },
        Change::AddQueue { vhost: vhost(), queue },
        Change::Bind { vhost: vhost(), binding: Arc::new(to_queue.clone()) },
        Change::Bind { vhost: vhost(), binding: Arc::new(to_exchange) },
        Change::Unbind { vhost: vhost(), binding: Arc::new(to_queue) },
        Change::RemoveQueue { vhost: vhost(), queue: "work".into(), id: QueueId(17) },
        Change::RemoveExchange { vhost: vhost(), exchange: "events".into() },
        Change::RemoveParameter { vhost: Some(vhost()), component: "policy".into(), name: "p".into() },
        Change::RemoveUser { user: "bob".into() },
        Change::RemoveVhost { vhost: "other".into() },
    ]
}

/// Changes by what they are about, ids aside, so that two sets of definitions can be compared.
fn by_bytes(changes: &[Change]) -> BTreeMap<Vec<u8>, String> {
    let relevant = changes.iter().filter(|change| !matches!(change, Change::ReserveQueueIds { .. }));
    relevant.map(|change| (encoded(change), format!("{change:?}"))).collect()
}
