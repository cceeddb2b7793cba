//! The topic exchange: a trie over the words of binding keys. `*` stands for exactly one word, `#` for any number of
//! words, none included; the empty key has no words, while `a..b` has an empty one in the middle.
//!
//! A route walks states (node, position in the message's words) and never enters one twice, so its cost is bounded by
//! their number whatever the wildcards are. Only below a `#` can a node be reached at several positions: a `#` node
//! reached at a position stands for all later ones too, so per such node the lowest position seen so far is enough.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::destinations::{ArgumentBytes, Destinations, NewBinding};
use super::map::{FixedState, Map};
use super::visit::Visit;
use crate::model::entity::{Binding, Destination};

#[derive(Clone, Debug, Default)]
pub(super) struct Topic(Node);

/// The destinations of the binding key that ends here, and where its continuations lead.
#[derive(Clone, Debug, Default)]
struct Node {
    words: Map<Arc<[u8]>, Arc<Self>>,
    /// after `*`
    one: Option<Arc<Self>>,
    /// after `#`
    any: Option<Arc<Self>>,
    destinations: Destinations,
}

type Words<'a> = SmallVec<[&'a [u8]; 16]>;

fn words_of(key: &[u8]) -> Words<'_> {
    if key.is_empty() {
        return Words::new();
    }
    key.split(|byte| *byte == b'.').collect()
}

impl Topic {
    pub(super) fn bind(&mut self, new: &NewBinding<'_>) -> bool {
        let words = words_of(new.binding.key.as_bytes());
        let end = words.iter().fold(&mut self.0, |node, word| node.child_mut(word));
        end.destinations.bind(new)
    }

    pub(super) fn unbind(&mut self, binding: &Binding, arguments: &ArgumentBytes) -> bool {
        self.0.unbind(&words_of(binding.key.as_bytes()), &binding.destination, arguments)
    }

    pub(super) fn route<'t>(&'t self, visit: &mut Visit<'t, '_>) {
        for key in visit.keys {
            let words = words_of(key);
            let mut walk = Walk { words: &words, lowest: HashMap::default(), visit };
            walk.enter(&self.0, 0, false);
        }
    }
}

impl Node {
    fn child_mut(&mut self, word: &[u8]) -> &mut Self {
        let child = match word {
            b"*" => self.one.get_or_insert_default(),
            b"#" => self.any.get_or_insert_default(),
            _ => return self.word_mut(word),
        };
        Arc::make_mut(child)
    }

    fn word_mut(&mut self, word: &[u8]) -> &mut Self {
        if self.words.find(word).is_none() {
            self.words.insert(Arc::from(word), Arc::default());
        }
        match self.words.find_mut(word) {
            Some(child) => Arc::make_mut(child),
            None => unreachable!("the word was inserted above"),
        }
    }

    fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.words.is_empty() && self.one.is_none() && self.any.is_none()
    }

    /// Removes the binding and the nodes that served it alone.
    fn unbind(&mut self, words: &[&[u8]], destination: &Destination, arguments: &ArgumentBytes) -> bool {
        let Some((word, rest)) = words.split_first() else {
            return self.destinations.unbind(destination, arguments);
        };
        let child = match *word {
            b"*" => self.one.as_mut(),
            b"#" => self.any.as_mut(),
            word => self.words.find_mut(word),
        };
        let Some(child) = child else {
            return false;
        };
        let child = Arc::make_mut(child);
        let existed = child.unbind(rest, destination, arguments);
        if child.is_empty() {
            match *word {
                b"*" => self.one = None,
                b"#" => self.any = None,
                word => _ = self.words.remove(word),
            }
        }
        existed
    }
}

struct Walk<'t, 'w, 'm, 'v> {
    words: &'w [&'w [u8]],
    /// Per `#` node below another `#`: the lowest position at which it was reached.
    lowest: HashMap<*const Node, usize, FixedState>,
    visit: &'v mut Visit<'t, 'm>,
}

impl<'t> Walk<'t, '_, '_, '_> {
    /// Goes on from `node` when the words before `position` are used up.
    fn enter(&mut self, node: &'t Node, position: usize, below_any: bool) {
        match self.words.get(position) {
            None => node.destinations.lead(self.visit),
            Some(word) => {
                if let Some(child) = node.words.find(*word) {
                    self.enter(child, position + 1, below_any);
                }
                if let Some(child) = &node.one {
                    self.enter(child, position + 1, below_any);
                }
            }
        }
        if let Some(child) = &node.any {
            self.enter_any(child, position, below_any);
        }
    }

    /// Goes on from a `#` node at `position` and at every later one, except those where it has been.
    fn enter_any(&mut self, node: &'t Node, position: usize, below_any: bool) {
        let mut end = self.words.len() + 1;
        if below_any {
            let lowest = self.lowest.entry(std::ptr::from_ref(node)).or_insert(end);
            end = *lowest;
            *lowest = position.min(end);
        }
        if position >= end {
            return;
        }
        if node.words.is_empty() && node.one.is_none() && node.any.is_none() {
            if end > self.words.len() {
                node.destinations.lead(self.visit);
            }
            return;
        }
        for position in position..end {
            self.enter(node, position, true);
        }
    }
}
