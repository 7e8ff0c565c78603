//! What is in force, given what an API server said of each topic.
//!
//! Rules: an object that did not change is not looked at again; one that is refused leaves the former
//! one of its name in force; what is gone is gone only when the API server says so. Pure: no clock, no
//! I/O.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use lateen_api::{Finding, Origin};

use super::load::{Load, State, accept};
use super::objects::{Item, Objects};
use super::trim::Trimmed;

/// Namespace (empty for cluster-wide kinds) and name.
pub(super) type Name = (String, String);

/// What happened to a topic.
#[derive(Debug)]
pub(super) enum Change {
    /// Everything is about to be listed anew.
    Listing,
    /// An object is like this now.
    Applied(Box<Trimmed>),
    /// An object is no more.
    Deleted(Name),
    /// Everything has been listed: what was not among it is no more.
    Listed,
    /// The kind is not served: there are no objects of it.
    Gone,
}

/// Objects of all topics.
#[derive(Debug, Default)]
pub(super) struct Store {
    shelves: Vec<Shelf>,
}

/// Objects of one topic.
#[derive(Debug, Default)]
struct Shelf {
    /// Whether it has been listed once.
    listed: bool,
    /// Whether nothing is asked for any more.
    closed: bool,
    /// Names seen in the list that is coming in, while one is.
    coming: Option<HashSet<Name>>,
    held: BTreeMap<Name, Held>,
}

/// What is known under a name.
#[derive(Debug)]
struct Held {
    print: u64,
    item: Option<(Origin, Item)>,
    findings: Vec<Finding>,
}

impl Store {
    /// Nothing of any of so many topics.
    pub(super) fn new(topics: usize) -> Self {
        Self { shelves: std::iter::repeat_with(Shelf::default).take(topics).collect() }
    }

    /// One more topic; what is in force does not wait for it.
    pub(super) fn open(&mut self) -> usize {
        self.shelves.push(Shelf { listed: true, ..Shelf::default() });
        self.shelves.len() - 1
    }

    /// Nothing more is taken of a topic, and nothing of it stays; says whether there was something.
    pub(super) fn close(&mut self, topic: usize) -> bool {
        let Some(shelf) = self.shelves.get_mut(topic) else { return false };
        let any = !shelf.held.is_empty();
        *shelf = Shelf { listed: true, closed: true, ..Shelf::default() };
        any
    }

    /// Takes a change of a topic; says whether something else is in force, or to be said, now.
    pub(super) fn apply(&mut self, topic: usize, change: Change) -> bool {
        match self.shelves.get_mut(topic) {
            Some(shelf) if !shelf.closed => shelf.apply(change),
            _ => false,
        }
    }

    /// Whether anything more is taken of a topic.
    pub(super) fn is_open(&self, topic: usize) -> bool {
        self.shelves.get(topic).is_some_and(|shelf| !shelf.closed)
    }

    /// Whether a topic has been listed once.
    pub(super) fn is_listed(&self, topic: usize) -> bool {
        self.shelves.get(topic).is_some_and(|shelf| shelf.listed)
    }

    /// Whether every topic has been listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.shelves.iter().all(|shelf| shelf.listed)
    }

    /// What is in force.
    pub(super) fn load(&self) -> Load {
        let mut objects = Objects::default();
        let mut findings = Vec::new();
        for held in self.shelves.iter().flat_map(|shelf| shelf.held.values()) {
            findings.extend(held.findings.iter().cloned());
            if let Some((_, item)) = &held.item {
                objects.push(item);
            }
        }
        Load { objects: Arc::new(objects), findings, state: State::default() }
    }
}

impl Shelf {
    fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Listing => {
                self.coming = Some(HashSet::new());
                false
            }
            Change::Applied(it) => {
                let meta = &it.object.metadata;
                let name = (meta.namespace_or_empty().to_owned(), meta.name.clone());
                if let Some(coming) = &mut self.coming {
                    coming.insert(name.clone());
                }
                self.put(name, *it)
            }
            Change::Deleted(name) => {
                if let Some(coming) = &mut self.coming {
                    coming.remove(&name);
                }
                self.held.remove(&name).is_some()
            }
            Change::Listed => {
                let before = self.held.len();
                if let Some(coming) = self.coming.take() {
                    self.held.retain(|name, _| coming.contains(name));
                }
                !std::mem::replace(&mut self.listed, true) || self.held.len() != before
            }
            Change::Gone => {
                let any = !self.held.is_empty();
                self.held.clear();
                !std::mem::replace(&mut self.listed, true) || any
            }
        }
    }

    fn put(&mut self, name: Name, Trimmed { object, print }: Trimmed) -> bool {
        let former = match self.held.get_mut(&name) {
            Some(held) if held.print == print => return false,
            Some(held) => held.item.take(),
            None => None,
        };
        let mut findings = Vec::new();
        let item = accept(object, &mut findings).or(former);
        self.held.insert(name, Held { print, item, findings });
        true
    }
}

#[cfg(test)]
mod tests;
