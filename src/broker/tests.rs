//! The broker without sockets: several connections, random requests, shards that are busy at random, and an oracle that
//! knows what must have become of every message.

mod client;
mod simulation;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Broker, Limits, PasswordHash, Permission, Settings, User};
use crate::model::entity::QueueType;
use crate::model::ids::Timestamp;

const NOW: Timestamp = Timestamp(1_000_000);
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A broker with the vhost `/` and the user guest.
fn broker(shards: u16, limits: Limits) -> Arc<Broker> {
    let broker = Broker::new(Settings {
        shards,
        default_queue_type: QueueType::Classic,
        consumer_timeout_ms: None,
        expire_at_head_only: false,
        transient_nonexclusive_queues: true,
        node_name: "test".into(),
        anonymous_user: None,
        limits,
    });
    broker.add_vhost(&"/".into());
    let permission = Permission::parse(".*", ".*", ".*").unwrap();
    let user = User {
        name: "guest".into(),
        password: PasswordHash::new([1, 2, 3, 4], b"guest"),
        tags: Vec::new(),
        loopback_only: false,
        permissions: BTreeMap::from([("/".into(), permission)]),
    };
    broker.add_user(user).unwrap();
    broker
}
