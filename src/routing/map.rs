//! Persistent maps: a clone shares everything with its origin, and a change copies only the path to what changed. So the
//! metadata machine changes its own table while sessions route by older snapshots, whatever the tables' sizes.
//!
//! Hashes are fixed by this file: tables built from the same commands are equal on every node and in every run.

use std::borrow::Borrow;

use crate::model::narrow::narrow;
use std::hash::{BuildHasher, Hash, Hasher};

use rpds::HashTrieMapSync;

/// A persistent hash map.
pub(super) type TrieMap<K, V> = HashTrieMapSync<K, V, FixedState>;

pub(super) fn trie_map<K: Eq + Hash, V>() -> TrieMap<K, V> {
    TrieMap::new_with_hasher_and_ptr_kind(FixedState)
}

/// Makes [`FixedHasher`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FixedState;

impl BuildHasher for FixedState {
    type Hasher = FixedHasher;

    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(0x243f_6a88_85a3_08d3)
    }
}

/// A hash of names of a few bytes: eight bytes a step, each step a folded 64 by 64 bit multiplication.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedHasher(u64);

impl FixedHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = fold(product) ^ word.rotate_left(32);
    }
}

/// Both halves of a product, so that the low bits depend on the high ones.
fn fold(product: u128) -> u64 {
    let [low, high] = [product, product >> 64].map(|half| narrow::<_, u64>(half & u128::from(u64::MAX), "masked"));
    low ^ high
}

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !tail.is_empty() {
            let mut last = [0; 8];
            last[..tail.len()].copy_from_slice(tail);
            last[7] = narrow(tail.len(), "a tail is shorter than a word");
            self.mix(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        fold(u128::from(self.0) * 0x2545_f491_4f6c_dd1d)
    }
}

/// Entries up to this number are a plain list.
const FEW_MAX: usize = 8;

/// A persistent map that costs nothing while empty and little while small.
#[derive(Clone, Debug)]
pub(super) enum Map<K: Eq + Hash, V> {
    Few(Vec<(K, V)>),
    Many(Box<TrieMap<K, V>>),
}

impl<K: Eq + Hash, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Eq + Hash, V> Map<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(map) => map.size(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(list) => list.iter().find(|(known, _)| known.borrow() == key).map(|(_, value)| value),
            Self::Many(map) => map.get(key),
        }
    }

    pub(super) fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a K, &'a V)) {
        match self {
            Self::Few(list) => list.iter().for_each(|(key, value)| visit(key, value)),
            Self::Many(map) => map.iter().for_each(|(key, value)| visit(key, value)),
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Map<K, V> {
    pub(super) fn find_mut<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(list) => list.iter_mut().find(|(known, _)| (*known).borrow() == key).map(|(_, value)| value),
            Self::Many(map) => map.get_mut(key),
        }
    }

    /// Puts `value` under `key`, in place of what was there.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self {
            Self::Many(map) => map.insert_mut(key, value),
            Self::Few(list) => {
                if let Some((_, old)) = list.iter_mut().find(|(known, _)| *known == key) {
                    *old = value;
                } else if list.len() < FEW_MAX {
                    list.reserve_exact(1);
                    list.push((key, value));
                } else {
                    let mut map = trie_map();
                    list.drain(..).for_each(|(key, value)| map.insert_mut(key, value));
                    map.insert_mut(key, value);
                    *self = Self::Many(Box::new(map));
                }
            }
        }
    }

    /// Whether there was something to remove. A map that shrinks to nothing gives its memory back.
    pub(super) fn remove<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(list) => {
                let Some(at) = list.iter().position(|(known, _)| known.borrow() == key) else {
                    return false;
                };
                list.remove(at);
                true
            }
            Self::Many(map) => {
                let existed = map.remove_mut(key);
                if map.is_empty() {
                    *self = Self::default();
                }
                existed
            }
        }
    }
}
