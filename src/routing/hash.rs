//! The consistent hash exchange: every message goes to one destination, chosen by a hash of its routing keys, a header
//! or a property, in proportion to the destinations' weights. A change of the bindings moves few messages.
//!
//! A destination's weight is the number of its buckets, numbered in the order in which destinations were bound; jump
//! consistent hashing picks a bucket. A destination that leaves gives its numbers to those behind it.

use std::cmp::Ordering;
use std::sync::Arc;

use super::destinations::{ArgumentBytes, NewBinding};
use super::header_table::Value;
use super::map::Map;
use super::ranked::{Rank, Ranked};
use super::targets::QueueTarget;
use super::visit::Visit;
use crate::model::entity::{Binding, Destination};
use crate::model::names::RoutingKey;
use crate::model::table::{FieldTable, FieldValue};

/// The largest weight.
pub(super) const WEIGHT_MAX: u64 = 10_000;

#[derive(Clone, Debug)]
pub(super) struct ConsistentHash {
    source: HashSource,
    members: Map<Destination, Member>,
    buckets: Ranked<Buckets>,
    next_place: u64,
}

/// What of a message is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HashSource {
    RoutingKeys,
    Header(Box<[u8]>),
    CorrelationId,
    MessageId,
    Timestamp,
}

/// A destination's bindings in the order they were made; the first gives the weight.
#[derive(Clone, Debug)]
struct Member {
    place: u64,
    bindings: Arc<Vec<(RoutingKey, ArgumentBytes)>>,
}

#[derive(Clone, Debug)]
struct Buckets {
    place: u64,
    weight: u64,
    destination: Destination,
    queue: Option<QueueTarget>,
}

impl Rank for Buckets {
    fn order(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

impl ConsistentHash {
    /// Reads the exchange's checked arguments.
    pub(super) fn new(arguments: &FieldTable) -> Self {
        Self { source: HashSource::new(arguments), members: Map::default(), buckets: Ranked::default(), next_place: 0 }
    }

    /// Whether a message's routing keys alone decide.
    pub(super) fn hashes_routing_keys(&self) -> bool {
        self.source == HashSource::RoutingKeys
    }

    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        let Binding { destination, key, .. } = new.binding;
        let identity = (key.clone(), Arc::clone(&new.arguments));
        let Some(member) = self.members.find_mut(destination) else {
            let place = self.next_place;
            self.next_place += 1;
            self.members.insert(destination.clone(), Member { place, bindings: Arc::new(vec![identity]) });
            self.buckets.insert(Buckets::new(place, key, destination, new.queue));
            return true;
        };
        let new_here = !member.bindings.contains(&identity);
        if new_here {
            Arc::make_mut(&mut member.bindings).push(identity);
        }
        if let Some((first, _)) = member.bindings.first() {
            self.buckets.insert(Buckets::new(member.place, first, destination, new.queue));
        }
        new_here
    }

    /// `queue` is the destination as it is known now.
    pub(super) fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes, queue: Option<QueueTarget>) -> bool {
        let Binding { destination, key, .. } = binding;
        let Some(member) = self.members.find_mut(destination) else {
            return false;
        };
        let known = |(known_key, known_arguments): &(RoutingKey, ArgumentBytes)| {
            known_key == key && known_arguments == arguments
        };
        let Some(at) = member.bindings.iter().position(known) else {
            return false;
        };
        Arc::make_mut(&mut member.bindings).remove(at);
        let place = member.place;
        if let Some((first, _)) = member.bindings.first() {
            self.buckets.insert(Buckets::new(place, first, destination, queue));
        } else {
            self.members.remove(destination);
            self.buckets.remove(&Buckets::new(place, key, destination, None));
        }
        true
    }

    pub(super) fn route<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        let hash = self.source.hash(visit);
        if let Some(buckets) = jump(hash, self.buckets.total()).and_then(|bucket| self.buckets.at(bucket)) {
            visit.lead(&buckets.destination, buckets.queue);
        }
    }
}

impl Buckets {
    fn new(place: u64, key: &RoutingKey, destination: &Destination, queue: Option<QueueTarget>) -> Self {
        let weight = weight_of(key.as_bytes()).unwrap_or(1).clamp(1, WEIGHT_MAX);
        Self { place, weight, destination: destination.clone(), queue }
    }
}

/// The number a binding key is; none if it is not an integer.
pub(super) fn weight_of(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key).ok()?.parse().ok()
}

impl HashSource {
    /// `x-hash-on` is LavinMQ's spelling of `hash-header`.
    fn new(arguments: &FieldTable) -> Self {
        let header = arguments.find("hash-header").or_else(|| arguments.find("x-hash-on"));
        if let Some(FieldValue::LongString(name)) = header {
            return Self::Header(Box::from(&**name));
        }
        match arguments.find("hash-property").and_then(FieldValue::as_str) {
            Some("correlation_id") => Self::CorrelationId,
            Some("message_id") => Self::MessageId,
            Some("timestamp") => Self::Timestamp,
            _ => Self::RoutingKeys,
        }
    }

    /// A message without the header or property hashes a constant, so all such messages go to one destination.
    fn hash(&self, visit: &mut Visit<'_, '_>) -> u64 {
        let facts = visit.facts;
        match self {
            Self::RoutingKeys => hash_keys(visit.keys),
            Self::Header(name) => hash_value(visit.header(name)),
            Self::CorrelationId => hash_keys(facts.correlation_id.as_slice()),
            Self::MessageId => hash_keys(facts.message_id.as_slice()),
            Self::Timestamp => match facts.timestamp {
                Some(seconds) => Fnv::default().with(&seconds.to_be_bytes()).finish(),
                None => hash_keys(&[]),
            },
        }
    }
}

/// The hash of a list of keys; one key hashes as its bytes do.
pub(super) fn hash_keys(keys: &[&[u8]]) -> u64 {
    let mut hash = Fnv::default();
    for (at, key) in keys.iter().enumerate() {
        if at > 0 {
            hash = hash.with(&[0, u8::try_from(key.len()).unwrap_or(u8::MAX)]);
        }
        hash = hash.with(key);
    }
    hash.finish()
}

/// Equal values hash alike whatever their wire types' widths; strings hash as routing keys do.
fn hash_value(value: Option<Value<'_>>) -> u64 {
    let hash = Fnv::default();
    match value {
        None => hash,
        Some(Value::Bytes(bytes)) => hash.with(bytes),
        Some(Value::Void) => hash.with(b"\0v"),
        Some(Value::Bool(value)) => hash.with(&[0, b't', u8::from(value)]),
        Some(Value::Integer(value)) => hash.with(b"\0i").with(&value.to_be_bytes()),
        Some(Value::LateTimestamp) => hash.with(b"\0T"),
        Some(Value::Float(value)) => hash.with(b"\0d").with(&value.to_be_bytes()),
        Some(Value::Decimal(scale, value)) => hash.with(&[0, b'D', scale]).with(&value.to_be_bytes()),
        Some(Value::Table(content)) => hash.with(b"\0F").with(content),
        Some(Value::Array(content)) => hash.with(b"\0A").with(content),
    }
    .finish()
}

/// FNV-1a, 64 bits, with a final mix so that all bits depend on all bytes.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn with(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// The finalizer of splitmix64: a bijection whose every output bit depends on every input bit.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Jump consistent hash (Lamping and Veach): the bucket of `hash` among `buckets`; none if there are none. With one more
/// bucket a hash stays where it is or moves to the new bucket.
fn jump(hash: u64, buckets: u64) -> Option<u64> {
    let mut key = hash;
    let mut bucket = None;
    let mut next = 0;
    while next < buckets {
        bucket = Some(next);
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        // (next + 1) * 2^31 / ((key >> 33) + 1), rounded down; integers keep it the same on every machine
        let scaled = (u128::from(next + 1) << 31) / u128::from((key >> 33) + 1);
        next = u64::try_from(scaled).unwrap_or(u64::MAX);
    }
    bucket
}
