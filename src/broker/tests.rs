//! The broker without sockets: several connections, random requests, shards that are busy at random, and an oracle that
//! knows what must have become of every message.

mod client;
mod events;
mod fan_out;
mod simulation;
mod vhosts;
mod waiting;
mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{Broker, BrokerSettings, Limits, PasswordHash, Permission, User, VhostDefaults};
use crate::log::memory::MemoryDisk;
use crate::log::{Keeping, Options, SyncMode};
use crate::model::entity::QueueType;
use crate::model::ids::Timestamp;
use crate::model::vhost::VhostMetadata;

const NOW: Timestamp = Timestamp(1_000_000);
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A broker with the vhost `/` and the user guest, on a disk of its own.
fn broker(shards: u16, limits: Limits) -> Arc<Broker> {
    let broker = empty_broker(BrokerSettings { limits, ..settings(shards) });
    define_guest(&broker);
    broker
}

/// A broker without definitions, on a disk of its own.
fn empty_broker(settings: BrokerSettings) -> Arc<Broker> {
    let options = Options {
        sync: SyncMode::Always,
        wal_file_bytes: 64 * 1024,
        segment_bytes: 1024 * 1024,
        keeping: Keeping::USUAL,
    };
    Broker::open(settings, Arc::new(MemoryDisk::default()), options, NOW).unwrap()
}

fn settings(shards: u16) -> BrokerSettings {
    BrokerSettings {
        shards,
        default_queue_type: QueueType::Classic,
        consumer_timeout_ms: None,
        expire_at_head_only: false,
        transient_nonexclusive_queues: true,
        node_name: "test".into(),
        anonymous_user: None,
        loopback_users: Vec::new(),
        memory_budget: 1 << 20,
        limits: Limits::default(),
        vhost_defaults: VhostDefaults::default(),
    }
}

fn define_guest(broker: &Broker) {
    broker.add_vhost(&"/".into(), VhostMetadata::default());
    let permission = Permission::parse(".*", ".*", ".*").unwrap();
    let user = User {
        permissions: BTreeMap::from([("/".into(), permission)]),
        ..User::new("guest".into(), PasswordHash::new([1, 2, 3, 4], b"guest"), Vec::new())
    };
    broker.add_user(user).unwrap();
}
