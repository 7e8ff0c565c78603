//! What the client of one stream asked for, what it has, and what it answered: of each type.
//!
//! Both variants of the protocol keep these books; how requests change them and how differences
//! are put into responses is theirs. Clients are not trusted: what they may ask for is bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::pb::google::protobuf::Any;
use crate::pb::google::rpc::Status;

/// Most resource types on one stream.
const MAX_TYPES: usize = 64;
/// Most names one client may subscribe to or claim to hold, of one type.
pub(super) const MAX_NAMES: usize = 200_000;
/// Longest resource name.
pub(super) const MAX_NAME: usize = 1024;
/// Most responses of a type that wait for an answer before the oldest is given up.
const MAX_UNANSWERED: usize = 256;
/// Name that stands for everything.
pub(super) const WILDCARD: &str = "*";

/// One resource a client should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Version: equal versions mean equal content.
    pub version: Arc<str>,
    /// The message, encoded once for all clients (the value of its `Any`).
    pub body: Bytes,
}

impl Resource {
    /// As it goes over the wire.
    pub(super) fn any(&self, type_url: &str) -> Any {
        Any { type_url: type_url.to_owned(), value: self.body.to_vec() }
    }
}

/// Resources of one type by name.
pub type ResourceMap = BTreeMap<Arc<str>, Resource>;

/// A client broke the protocol; its stream is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// No type.
    #[error("discovery request without type_url")]
    NoType,
    /// Too many types.
    #[error("more than {MAX_TYPES} resource types on one stream")]
    TooManyTypes,
    /// Too many names.
    #[error("more than {MAX_NAMES} resources of {0} on one stream")]
    TooManyNames(String),
    /// A name is too long.
    #[error("a resource name of {0} is longer than {MAX_NAME} bytes")]
    NameTooLong(String),
}

/// How a client answered a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is in force there.
    Accepted {
        /// Nonce of the response.
        nonce: String,
    },
    /// Something was refused.
    Refused {
        /// Nonce of the response.
        nonce: String,
        /// The client's reason.
        reason: String,
    },
}

/// What a request meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Resource type it is about.
    pub type_url: String,
    /// It changed what is subscribed: a response may be due.
    pub subscribed: bool,
    /// It answered a response that was waiting for it.
    pub outcome: Option<Outcome>,
}

/// The books of one stream.
#[derive(Debug, Default)]
pub struct Subscriptions {
    types: HashMap<String, TypeState>,
    nonce: u64,
}

impl Subscriptions {
    /// Whether the client subscribed to anything of this type.
    #[must_use]
    pub fn is_subscribed(&self, type_url: &str) -> bool {
        self.types.get(type_url).is_some_and(|s| s.wildcard || !s.names.is_empty())
    }

    /// Whether the client wants everything of this type.
    #[must_use]
    pub fn is_wildcard(&self, type_url: &str) -> bool {
        self.types.get(type_url).is_some_and(|s| s.wildcard)
    }

    /// Names the client subscribed to one by one.
    pub fn names(&self, type_url: &str) -> impl Iterator<Item = &Arc<str>> {
        self.types.get(type_url).into_iter().flat_map(|s| s.names.iter())
    }

    /// Number of responses of this type that the client has not answered yet.
    #[must_use]
    pub fn unanswered(&self, type_url: &str) -> usize {
        self.types.get(type_url).map_or(0, |s| s.unanswered.len())
    }

    /// Number of resources of this type the client was sent or holds.
    #[must_use]
    pub fn held(&self, type_url: &str) -> usize {
        self.types.get(type_url).map_or(0, |s| s.known.len())
    }

    /// Whether the client was sent a resource or holds it, or waits for it.
    #[must_use]
    pub fn holds(&self, type_url: &str, name: &str) -> bool {
        let state = self.types.get(type_url);
        state.is_some_and(|s| s.known.contains_key(name) || s.asked.contains(name))
    }

    /// The reason of the last refusal of this type, until something of it is accepted.
    #[must_use]
    pub fn refusal(&self, type_url: &str) -> Option<&str> {
        self.types.get(type_url)?.refusal.as_deref()
    }

    /// Sends these resources again with the next response, changed or not. A stock Envoy needs the
    /// endpoints again when their cluster changed.
    pub fn resend<'n>(&mut self, type_url: &str, names: impl IntoIterator<Item = &'n str>) {
        let Some(state) = self.types.get_mut(type_url) else { return };
        for name in names {
            if let Some((name, _)) = state.known.remove_entry(name) {
                state.asked.insert(name);
            }
        }
    }

    /// The books of a type that a request is about, and whether it is the first one.
    pub(super) fn open(&mut self, type_url: &str) -> Result<(&mut TypeState, bool), ProtocolError> {
        let first = !self.types.contains_key(type_url);
        if first && self.types.len() >= MAX_TYPES {
            return Err(ProtocolError::TooManyTypes);
        }
        Ok((self.types.entry(type_url.to_owned()).or_default(), first))
    }

    /// The books of a type of which something was asked.
    pub(super) fn of(&mut self, type_url: &str) -> Option<&mut TypeState> {
        self.types.get_mut(type_url)
    }

    /// The nonce of a response of a type, which from now on waits for its answer.
    pub(super) fn say(&mut self, type_url: &str) -> String {
        self.nonce += 1;
        let nonce = format!("{:x}", self.nonce);
        let state = self.types.entry(type_url.to_owned()).or_default();
        state.answered_once = true;
        state.last.clone_from(&nonce);
        if state.unanswered.len() == MAX_UNANSWERED {
            state.unanswered.pop_front();
        }
        state.unanswered.push_back(nonce.clone());
        nonce
    }
}

/// The books of one type.
#[derive(Debug, Default)]
pub(super) struct TypeState {
    pub(super) wildcard: bool,
    pub(super) names: BTreeSet<Arc<str>>,
    /// What the client holds, or was sent.
    pub(super) known: HashMap<Arc<str>, Arc<str>>,
    /// Names that must be answered even if there is no such resource.
    pub(super) asked: BTreeSet<Arc<str>>,
    pub(super) answered_once: bool,
    pub(super) unanswered: VecDeque<String>,
    /// Nonce of the last response; empty before the first.
    pub(super) last: String,
    refusal: Option<String>,
}

impl TypeState {
    /// Whether the client wants this resource, if there is one.
    pub(super) fn wants(&self, name: &Arc<str>) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Takes the answer to the response at `place` among those that wait.
    pub(super) fn conclude(&mut self, place: usize, error: Option<&Status>) -> Option<Outcome> {
        let nonce = self.unanswered.remove(place)?;
        self.refusal = error.map(|status| status.message.clone());
        Some(match error {
            Some(status) => Outcome::Refused { nonce, reason: status.message.clone() },
            None => Outcome::Accepted { nonce },
        })
    }

    /// What the client does not hold of what it wants, and what it is to forget. Both count as
    /// said.
    pub(super) fn difference(&mut self, wanted: &ResourceMap) -> Difference {
        let mut changed = Vec::new();
        let mut add = |name: &Arc<str>, resource: &Resource, known: &mut HashMap<_, _>| {
            if known.get(name) != Some(&resource.version) {
                known.insert(Arc::clone(name), Arc::clone(&resource.version));
                changed.push(Arc::clone(name));
            }
        };
        if self.wildcard {
            wanted.iter().for_each(|(name, resource)| add(name, resource, &mut self.known));
        } else {
            for (name, resource) in self.names.iter().filter_map(|name| wanted.get_key_value(name))
            {
                add(name, resource, &mut self.known);
            }
        }
        let mut removed = BTreeSet::new();
        self.known.retain(|name, _| {
            let keep = wanted.contains_key(name);
            if !keep {
                removed.insert(Arc::clone(name));
            }
            keep
        });
        let absent = std::mem::take(&mut self.asked).into_iter();
        removed.extend(absent.filter(|name| !wanted.contains_key(name)));
        Difference { changed, removed: removed.into_iter().collect() }
    }

    /// The same of `names` alone.
    pub(super) fn difference_of(&mut self, wanted: &ResourceMap, names: &[Arc<str>]) -> Difference {
        let mut difference = Difference::default();
        for name in names {
            match wanted.get(name) {
                Some(_) if !self.wants(name) => {}
                Some(resource) if self.known.get(name) == Some(&resource.version) => {}
                Some(resource) => {
                    self.known.insert(Arc::clone(name), Arc::clone(&resource.version));
                    difference.changed.push(Arc::clone(name));
                }
                None if self.known.remove(name).is_some() => {
                    difference.removed.push(Arc::clone(name));
                }
                None => {}
            }
        }
        difference
    }
}

/// What differs between what a client holds and what it should.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// It does not hold these, or holds others by their names.
    pub(super) changed: Vec<Arc<str>>,
    /// There are none of these.
    pub(super) removed: Vec<Arc<str>>,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// Refuses names beyond all measure.
pub(super) fn check<'a>(
    type_url: &str,
    sizes: &[usize],
    mut names: impl Iterator<Item = &'a String>,
) -> Result<(), ProtocolError> {
    if type_url.is_empty() {
        return Err(ProtocolError::NoType);
    }
    if sizes.iter().any(|size| *size > MAX_NAMES) {
        return Err(ProtocolError::TooManyNames(type_url.to_owned()));
    }
    if names.any(|name| name.len() > MAX_NAME) {
        return Err(ProtocolError::NameTooLong(type_url.to_owned()));
    }
    Ok(())
}
