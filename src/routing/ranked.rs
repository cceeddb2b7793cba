//! A persistent sorted list of weighted items, found by rank or by order: what exchanges that pick one destination need.

use std::cmp::Ordering;
use std::sync::Arc;

/// A chunk that grows beyond this is split; a change copies one chunk and the list of chunks.
const CHUNK_MAX: usize = 128;

/// An item of a [`Ranked`] list.
pub(super) trait Rank: Clone {
    /// The order in the list; equal items replace each other.
    fn order(&self, other: &Self) -> Ordering;

    /// How many consecutive ranks the item takes; at least 1.
    fn weight(&self) -> u64;
}

#[derive(Clone, Debug)]
pub(super) struct Ranked<T> {
    chunks: Arc<Vec<Chunk<T>>>,
    total: u64,
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    /// The sum over the items.
    weight: u64,
    items: Arc<Vec<T>>,
}

impl<T> Default for Ranked<T> {
    fn default() -> Self {
        Self { chunks: Arc::default(), total: 0 }
    }
}

impl<T: Rank> Ranked<T> {
    /// The number of ranks: the sum of all weights.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The item that takes `rank`, counted from 0.
    pub(super) fn at(&self, rank: u64) -> Option<&T> {
        let mut rest = rank;
        let chunk = self.chunks.iter().find(|chunk| skip(&mut rest, chunk.weight))?;
        chunk.items.iter().find(|item| skip(&mut rest, item.weight()))
    }

    /// Puts `item` in its place, instead of an equal one; whether there was none.
    pub(super) fn insert(&mut self, item: T) -> bool {
        let weight = item.weight();
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Chunk { weight: 0, items: Arc::default() });
        }
        let at = chunk_of(chunks, &item).min(chunks.len() - 1);
        let chunk = &mut chunks[at];
        let items = Arc::make_mut(&mut chunk.items);
        let place = items.binary_search_by(|known| known.order(&item));
        let replaced = match place {
            Ok(place) => std::mem::replace(&mut items[place], item).weight(),
            Err(place) => {
                items.insert(place, item);
                0
            }
        };
        chunk.weight = chunk.weight - replaced + weight;
        self.total = self.total - replaced + weight;
        if items.len() > CHUNK_MAX {
            let upper = items.split_off(CHUNK_MAX / 2);
            let upper = Chunk { weight: upper.iter().map(T::weight).sum(), items: Arc::new(upper) };
            chunk.weight -= upper.weight;
            chunks.insert(at + 1, upper);
        }
        place.is_err()
    }

    /// Removes the item equal to `probe`; whether there was one.
    pub(super) fn remove(&mut self, probe: &T) -> bool {
        let at = chunk_of(&self.chunks, probe);
        let Some(chunk) = self.chunks.get(at) else {
            return false;
        };
        let Ok(place) = chunk.items.binary_search_by(|known| known.order(probe)) else {
            return false;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        let removed = Arc::make_mut(&mut chunks[at].items).remove(place).weight();
        chunks[at].weight -= removed;
        self.total -= removed;
        if chunks[at].items.is_empty() {
            chunks.remove(at);
        }
        true
    }
}

/// The first chunk whose last item is not below `item`; the number of chunks when all are.
fn chunk_of<T: Rank>(chunks: &[Chunk<T>], item: &T) -> usize {
    chunks.partition_point(|chunk| chunk.items.last().is_some_and(|last| last.order(item) == Ordering::Less))
}

/// Whether `rest` lies within the next `weight` ranks; otherwise they are subtracted.
fn skip(rest: &mut u64, weight: u64) -> bool {
    let within = *rest < weight;
    if !within {
        *rest -= weight;
    }
    within
}
