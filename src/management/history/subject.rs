//! What statistics are about, and the rounds in which they are handed in.

use super::rows::FIELDS_MAX;

/// One thing that has statistics. Each kind has its own fixed list of fields, which only the caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    /// All of the broker.
    Global,
    /// This node: memory, disk, sockets.
    Node,
    Vhost(&'a str),
    Queue {
        vhost: &'a str,
        name: &'a str,
    },
    Exchange {
        vhost: &'a str,
        name: &'a str,
    },
    /// Kept in memory only: the name dies with the process.
    Connection(&'a str),
    /// Kept in memory only, in the finest tier only.
    Channel(&'a str),
}

pub(super) const GLOBAL: u8 = 0;
const NODE: u8 = 1;
pub(super) const VHOST: u8 = 2;
const QUEUE: u8 = 3;
const EXCHANGE: u8 = 4;
const CONNECTION: u8 = 5;
pub(super) const CHANNEL: u8 = 6;

impl Subject<'_> {
    /// Appends the kind and the name as bytes that no other subject has.
    pub(super) fn write_key(&self, key: &mut Vec<u8>) {
        let (kind, vhost, name) = match *self {
            Self::Global => (GLOBAL, None, ""),
            Self::Node => (NODE, None, ""),
            Self::Vhost(name) => (VHOST, None, name),
            Self::Queue { vhost, name } => (QUEUE, Some(vhost), name),
            Self::Exchange { vhost, name } => (EXCHANGE, Some(vhost), name),
            Self::Connection(name) => (CONNECTION, None, name),
            Self::Channel(name) => (CHANNEL, None, name),
        };
        key.push(kind);
        if let Some(vhost) = vhost {
            // Its length first, so that no name can be mistaken for a part of a vhost's.
            super::varint::put(key, vhost.len() as u64);
            key.extend_from_slice(vhost.as_bytes());
        }
        key.extend_from_slice(name.as_bytes());
    }

    pub(super) fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        self.write_key(&mut key);
        key
    }
}

/// Whether a subject outlives the process.
pub(super) fn is_stored(key: &[u8]) -> bool {
    key.first().is_some_and(|kind| *kind < CONNECTION)
}

/// The samples of one round, gathered without a lock. To be used again after [`Round::clear`].
#[derive(Debug, Default)]
pub struct Round {
    keys: Vec<u8>,
    values: Vec<u64>,
    /// Where the key and the values of each subject end.
    ends: Vec<(u32, u32)>,
}

impl Round {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
        self.ends.clear();
    }

    /// Adds a subject with its values, in the order of its fields; those past [`FIELDS_MAX`] are left out.
    pub fn add(&mut self, subject: Subject<'_>, values: &[u64]) {
        subject.write_key(&mut self.keys);
        self.values.extend(values.iter().take(FIELDS_MAX));
        self.ends.push((self.keys.len() as u32, self.values.len() as u32));
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The key and the values of one subject.
    pub(super) fn get(&self, index: usize) -> (&[u8], &[u64]) {
        let (key, value) = if index == 0 { (0, 0) } else { self.ends[index - 1] };
        let (key_end, value_end) = self.ends[index];
        (&self.keys[key as usize..key_end as usize], &self.values[value as usize..value_end as usize])
    }
}
