//! The headers exchange: a binding's arguments are compared with the message's headers.
//!
//! Bindings are indexed by what a message must contain for them to be looked at: one pair (`x-match` all), each of their
//! pairs (any), or a key alone where the value is not a plain one. So a route's cost follows the message's headers and
//! the bindings that nearly match, not the number of bindings.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::destinations::{ArgumentBytes, Destinations, NewBinding, with_key};
use super::header_table::{Pairs, Value, find};
use super::map::{FixedState, Map, TrieMap, trie_map};
use super::targets::QueueTarget;
use super::visit::Visit;
use crate::model::entity::{Binding, Destination};
use crate::model::names::RoutingKey;
use crate::model::table::{FieldTable, FieldValue};

#[derive(Clone, Debug)]
pub(super) struct Headers {
    /// Bindings under the hash of the pair, or the key, that sends a message to them.
    index: TrieMap<u64, Bucket>,
    /// How many index entries are under a key alone; while there are none, keys alone need no search.
    key_entries: usize,
    /// Bindings that match every message.
    always: Destinations,
    /// Bindings that match no message, `any` of nothing: kept to know them again.
    never: Destinations,
}

type Identity = (Destination, RoutingKey, ArgumentBytes);
type Bucket = Map<Identity, Candidate>;

#[derive(Clone, Debug)]
struct Candidate {
    queue: Option<QueueTarget>,
    condition: Arc<Condition>,
}

/// What a binding asks of a message.
#[derive(Debug)]
struct Condition {
    quantifier: Quantifier,
    wanted: Vec<(Box<str>, Wanted)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    All,
    Any,
}

/// What a binding argument asks of the header of its name.
#[derive(Debug)]
enum Wanted {
    /// any value
    Present,
    Bool(bool),
    Integer(i64),
    /// the bits of a double
    Float(u64),
    Decimal(u8, u32),
    Bytes(Bytes),
    Table(FieldTable),
    Array(Vec<FieldValue>),
    /// no value equals it
    Unmatchable,
}

impl Default for Headers {
    fn default() -> Self {
        Self { index: trie_map(), key_entries: 0, always: Destinations::default(), never: Destinations::default() }
    }
}

impl Headers {
    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        let condition = Condition::new(&new.binding.arguments);
        if condition.wanted.is_empty() {
            let arguments = with_key(new.binding, &new.arguments);
            return self.constant(&condition).bind(&NewBinding { arguments, ..*new });
        }
        let identity = identity(new.binding, &new.arguments);
        let entries = condition.entries();
        let places = self.places(&identity, &entries);
        let is_new = places.is_empty();
        let places = match (is_new, condition.quantifier) {
            (false, _) => places,
            (true, Quantifier::Any) => entries,
            (true, Quantifier::All) => self.rarest(entries),
        };
        let candidate = Candidate { queue: new.queue, condition: Arc::new(condition) };
        for place in places {
            if let Some(bucket) = self.index.get_mut(&place.hash) {
                bucket.insert(identity.clone(), candidate.clone());
            } else {
                let mut bucket = Bucket::default();
                bucket.insert(identity.clone(), candidate.clone());
                self.index.insert_mut(place.hash, bucket);
            }
            self.key_entries += usize::from(is_new && place.key_alone);
        }
        is_new
    }

    pub(super) fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes) -> bool {
        let condition = Condition::new(&binding.arguments);
        if condition.wanted.is_empty() {
            return self.constant(&condition).unbind(&binding.destination, &with_key(binding, arguments));
        }
        let identity = identity(binding, arguments);
        let places = self.places(&identity, &condition.entries());
        for place in &places {
            if let Some(bucket) = self.index.get_mut(&place.hash) {
                bucket.remove(&identity);
                if bucket.is_empty() {
                    self.index.remove_mut(&place.hash);
                }
                self.key_entries -= usize::from(place.key_alone);
            }
        }
        !places.is_empty()
    }

    pub(super) fn route<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        self.always.lead(visit);
        if self.index.is_empty() {
            return;
        }
        let pairs = visit.take_headers();
        for (key, value) in &pairs {
            if let Some(hash) = pair_hash(key, value) {
                self.candidates(hash, &pairs, visit);
            }
            if self.key_entries > 0 {
                self.candidates(key_hash(key), &pairs, visit);
            }
        }
        visit.put_headers(pairs);
    }

    fn candidates<'t>(&'t self, hash: u64, pairs: &Pairs<'_>, visit: &mut Visit<'t, '_>) {
        let Some(bucket) = self.index.get(&hash) else {
            return;
        };
        bucket.for_each(|(destination, _, _), candidate| {
            if candidate.condition.holds(pairs) {
                visit.lead(destination, candidate.queue);
            }
        });
    }

    /// The bindings that ask for nothing, as `condition` does.
    fn constant(&mut self, condition: &Condition) -> &mut Destinations {
        match condition.quantifier {
            Quantifier::All => &mut self.always,
            Quantifier::Any => &mut self.never,
        }
    }

    /// The entries among `entries` where the binding is.
    fn places(&self, identity: &Identity, entries: &[IndexKey]) -> Vec<IndexKey> {
        let is_here =
            |entry: &&IndexKey| self.index.get(&entry.hash).is_some_and(|bucket| bucket.find(identity).is_some());
        entries.iter().filter(is_here).copied().collect()
    }

    /// The entry that so far leads to the fewest bindings, preferring a pair to a key alone.
    fn rarest(&self, entries: Vec<IndexKey>) -> Vec<IndexKey> {
        let crowd = |entry: &IndexKey| (entry.key_alone, self.index.get(&entry.hash).map_or(0, Bucket::len));
        entries.into_iter().min_by_key(crowd).into_iter().collect()
    }
}

fn identity(binding: &Binding, arguments: &ArgumentBytes) -> Identity {
    (binding.destination.clone(), binding.key.clone(), Arc::clone(arguments))
}

/// A place in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexKey {
    hash: u64,
    key_alone: bool,
}

impl Condition {
    fn new(arguments: &FieldTable) -> Self {
        let (quantifier, with_x) = match arguments.find("x-match").and_then(FieldValue::as_str) {
            Some("any") => (Quantifier::Any, false),
            Some("any-with-x") => (Quantifier::Any, true),
            Some("all-with-x") => (Quantifier::All, true),
            _ => (Quantifier::All, false),
        };
        let counts = |key: &str| key != "x-match" && (with_x || !key.starts_with("x-"));
        let wanted = arguments.0.iter().filter(|(key, _)| counts(key));
        Self { quantifier, wanted: wanted.map(|(key, value)| (key.clone(), Wanted::new(value))).collect() }
    }

    fn holds(&self, pairs: &Pairs<'_>) -> bool {
        let holds = |(key, wanted): &(Box<str>, Wanted)| {
            find(pairs, key.as_bytes()).is_some_and(|value| wanted.is_met_by(value))
        };
        match self.quantifier {
            Quantifier::All => self.wanted.iter().all(holds),
            Quantifier::Any => self.wanted.iter().any(holds),
        }
    }

    /// The index entries of all that is wanted, each once.
    fn entries(&self) -> Vec<IndexKey> {
        let mut entries: Vec<IndexKey> = Vec::with_capacity(self.wanted.len());
        for (key, wanted) in &self.wanted {
            let pair = wanted.plain().and_then(|value| pair_hash(key.as_bytes(), &value));
            let hash = pair.unwrap_or_else(|| key_hash(key.as_bytes()));
            let entry = IndexKey { hash, key_alone: pair.is_none() };
            if !entries.iter().any(|known| known.hash == hash) {
                entries.push(entry);
            }
        }
        entries
    }
}

impl Wanted {
    /// A timestamp is compared as its seconds, while those of messages count in milliseconds: RabbitMQ 4 does so.
    fn new(value: &FieldValue) -> Self {
        match value {
            FieldValue::Void => Self::Present,
            FieldValue::Bool(value) => Self::Bool(*value),
            FieldValue::F32(value) => Self::Float(f64::from(*value).to_bits()),
            FieldValue::F64(value) => Self::Float(value.to_bits()),
            FieldValue::Decimal { scale, value } => Self::Decimal(*scale, *value),
            FieldValue::LongString(bytes) | FieldValue::Binary(bytes) => Self::Bytes(bytes.clone()),
            FieldValue::Table(table) => Self::Table(table.clone()),
            FieldValue::Array(values) => Self::Array(values.clone()),
            FieldValue::Timestamp(seconds) => i64::try_from(*seconds).map_or(Self::Unmatchable, Self::Integer),
            integer @ (FieldValue::I8(_)
            | FieldValue::U8(_)
            | FieldValue::I16(_)
            | FieldValue::U16(_)
            | FieldValue::I32(_)
            | FieldValue::U32(_)
            | FieldValue::I64(_)) => integer.as_integer().map_or(Self::Unmatchable, Self::Integer),
        }
    }

    /// The value wanted, if it is a plain one.
    fn plain(&self) -> Option<Value<'_>> {
        match self {
            Self::Bool(value) => Some(Value::Bool(*value)),
            Self::Integer(value) => Some(Value::Integer(*value)),
            Self::Float(value) => Some(Value::Float(*value)),
            Self::Decimal(scale, value) => Some(Value::Decimal(*scale, *value)),
            Self::Bytes(bytes) => Some(Value::Bytes(bytes)),
            Self::Present | Self::Table(_) | Self::Array(_) | Self::Unmatchable => None,
        }
    }

    fn is_met_by(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Present, _) => true,
            (Self::Table(wanted), Value::Table(content)) => FieldTable::decode(content).as_ref() == Ok(wanted),
            (Self::Array(wanted), Value::Array(content)) => decode_array(content).is_some_and(|array| array == *wanted),
            (wanted, value) => wanted.plain() == Some(value),
        }
    }
}

/// The values of an array's content, read as the only value of a table.
fn decode_array(content: &[u8]) -> Option<Vec<FieldValue>> {
    let length = u32::try_from(content.len()).ok()?.to_be_bytes();
    let table = [&[0, b'A'], length.as_slice(), content].concat();
    match FieldTable::decode(&table).ok()?.0.pop() {
        Some((_, FieldValue::Array(values))) => Some(values),
        _ => None,
    }
}

/// The hash of a header with a plain value; equal values hash alike.
fn pair_hash(key: &[u8], value: &Value<'_>) -> Option<u64> {
    let mut hasher = FixedState.build_hasher();
    key.hash(&mut hasher);
    match value {
        Value::Bytes(bytes) => bytes.hash(&mut hasher),
        Value::Integer(value) => (1_u8, value).hash(&mut hasher),
        Value::Bool(value) => (2_u8, value).hash(&mut hasher),
        Value::Float(value) => (3_u8, value).hash(&mut hasher),
        Value::Decimal(scale, value) => (4_u8, scale, value).hash(&mut hasher),
        Value::Void | Value::LateTimestamp | Value::Table(_) | Value::Array(_) => return None,
    }
    Some(hasher.finish())
}

fn key_hash(key: &[u8]) -> u64 {
    FixedState.hash_one(key)
}
