//! State of one delta discovery stream, as the control plane sees it.
//!
//! For each type it holds what the client subscribed to and which version of each resource it was
//! sent (or says it holds since before). A response is the difference to what it should have. A
//! refused version is not sent again; a changed one is. Clients are not trusted: their requests
//! are bounded.

use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource};
use crate::pb::google::protobuf::Any;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use thiserror::Error;

/// Most resource types on one stream.
const MAX_TYPES: usize = 64;
/// Most names one client may subscribe to or claim to hold, of one type.
const MAX_NAMES: usize = 200_000;
/// Longest resource name.
const MAX_NAME: usize = 1024;
/// Most responses of a type that wait for an answer before the oldest is given up.
const MAX_UNANSWERED: usize = 256;
/// Name that stands for everything.
const WILDCARD: &str = "*";

/// One resource a client should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Version: equal versions mean equal content.
    pub version: Arc<str>,
    /// The message, encoded once for all clients (the value of its `Any`).
    pub body: Bytes,
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

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// What the client holds, or was sent.
    known: HashMap<Arc<str>, Arc<str>>,
    /// Names that must be answered even if there is no such resource.
    asked: BTreeSet<Arc<str>>,
    answered_once: bool,
    unanswered: VecDeque<String>,
    refusal: Option<String>,
}

/// The server end of one delta discovery stream.
#[derive(Debug, Default)]
pub struct Session {
    types: HashMap<String, TypeState>,
    nonce: u64,
}

impl Session {
    /// A stream on which nothing was said yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a request.
    ///
    /// # Errors
    /// When the client breaks the protocol or asks beyond all measure.
    pub fn request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Taken, ProtocolError> {
        check(request)?;
        if !self.types.contains_key(&request.type_url) && self.types.len() >= MAX_TYPES {
            return Err(ProtocolError::TooManyTypes);
        }
        let first = !self.types.contains_key(&request.type_url);
        let state = self.types.entry(request.type_url.clone()).or_default();
        let outcome = state.answer(request);
        let subscribed = first | state.subscribe(request, first);
        if state.names.len() > MAX_NAMES {
            return Err(ProtocolError::TooManyNames(request.type_url.clone()));
        }
        Ok(Taken { type_url: request.type_url.clone(), subscribed, outcome })
    }

    /// What is to be sent of a type so that the client comes to hold `wanted` (as far as it is
    /// subscribed); `None` when there is nothing to say. What is returned counts as sent.
    pub fn response(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
    ) -> Option<DeltaDiscoveryResponse> {
        let state = self.types.get_mut(type_url)?;
        let (resources, removed) = state.difference(type_url, wanted);
        if resources.is_empty() && removed.is_empty() && state.answered_once {
            return None;
        }
        Some(self.say(type_url, resources, removed))
    }

    fn say(
        &mut self,
        type_url: &str,
        resources: Vec<WireResource>,
        removed: Vec<String>,
    ) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        let nonce = format!("{:x}", self.nonce);
        let state = self.types.entry(type_url.to_owned()).or_default();
        state.answered_once = true;
        if state.unanswered.len() == MAX_UNANSWERED {
            state.unanswered.pop_front();
        }
        state.unanswered.push_back(nonce.clone());
        DeltaDiscoveryResponse {
            type_url: type_url.to_owned(),
            resources,
            removed_resources: removed,
            nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }

    /// The same as [`Session::response`], where only `changed` can differ from what was wanted at the
    /// last response of the type: nothing else is looked at.
    pub fn response_for(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
        changed: &[Arc<str>],
    ) -> Option<DeltaDiscoveryResponse> {
        let state = self.types.get_mut(type_url)?;
        if !state.asked.is_empty() || !state.answered_once {
            return self.response(type_url, wanted);
        }
        let concerned = changed.iter().any(|name| {
            let has = state.known.get(name);
            let wants = state.wildcard || state.names.contains(name);
            match wanted.get(name) {
                Some(resource) => wants && has != Some(&resource.version),
                None => has.is_some(),
            }
        });
        if !concerned {
            return None;
        }
        let (resources, removed) = state.difference_of(type_url, wanted, changed);
        Some(self.say(type_url, resources, removed))
    }

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
}

impl TypeState {
    fn answer(&mut self, request: &DeltaDiscoveryRequest) -> Option<Outcome> {
        if request.response_nonce.is_empty() {
            return None;
        }
        let nonce = request.response_nonce.clone();
        let place = self.unanswered.iter().position(|n| *n == nonce)?;
        self.unanswered.remove(place);
        Some(match &request.error_detail {
            Some(status) => {
                self.refusal = Some(status.message.clone());
                Outcome::Refused { nonce, reason: status.message.clone() }
            }
            None => {
                self.refusal = None;
                Outcome::Accepted { nonce }
            }
        })
    }

    /// Takes up changed subscriptions; true when there are some.
    fn subscribe(&mut self, request: &DeltaDiscoveryRequest, first: bool) -> bool {
        if first {
            self.wildcard = request.resource_names_subscribe.is_empty();
            for (name, version) in &request.initial_resource_versions {
                self.known.insert(Arc::from(name.as_str()), Arc::from(version.as_str()));
            }
        }
        for name in &request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                self.known.retain(|name, _| self.names.contains(name));
            } else if self.names.remove(name.as_str()) {
                self.known.remove(name.as_str());
                self.asked.remove(name.as_str());
                if self.wildcard {
                    // The client cannot know whether the wildcard covers it: tell it.
                    self.asked.insert(Arc::from(name.as_str()));
                }
            }
        }
        for name in &request.resource_names_subscribe {
            if name == WILDCARD {
                self.wildcard = true;
                continue;
            }
            let name: Arc<str> = Arc::from(name.as_str());
            // Asking again for what is subscribed means that it was lost on the other side.
            if !first || !self.known.contains_key(&name) {
                self.known.remove(&name);
                self.asked.insert(Arc::clone(&name));
            }
            self.names.insert(name);
        }
        if first && !self.wildcard {
            self.known.retain(|name, _| self.names.contains(name));
        }
        !request.resource_names_subscribe.is_empty()
            || !request.resource_names_unsubscribe.is_empty()
    }

    fn difference(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
    ) -> (Vec<WireResource>, Vec<String>) {
        let mut changed = Vec::new();
        let mut add = |name: &Arc<str>, resource: &Resource, known: &mut HashMap<_, _>| {
            if known.get(name) != Some(&resource.version) {
                known.insert(Arc::clone(name), Arc::clone(&resource.version));
                changed.push(wire(type_url, name, resource));
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
                removed.insert(name.to_string());
            }
            keep
        });
        let absent = std::mem::take(&mut self.asked).into_iter();
        removed.extend(absent.filter(|n| !wanted.contains_key(n)).map(|name| name.to_string()));
        (changed, removed.into_iter().collect())
    }
}

impl TypeState {
    /// What of `names` differs from what the client holds.
    fn difference_of(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
        names: &[Arc<str>],
    ) -> (Vec<WireResource>, Vec<String>) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for name in names {
            match wanted.get(name) {
                Some(_) if !self.wildcard && !self.names.contains(name) => {}
                Some(resource) if self.known.get(name) == Some(&resource.version) => {}
                Some(resource) => {
                    self.known.insert(Arc::clone(name), Arc::clone(&resource.version));
                    changed.push(wire(type_url, name, resource));
                }
                None if self.known.remove(name).is_some() => removed.push(name.to_string()),
                None => {}
            }
        }
        (changed, removed)
    }
}

fn check(request: &DeltaDiscoveryRequest) -> Result<(), ProtocolError> {
    if request.type_url.is_empty() {
        return Err(ProtocolError::NoType);
    }
    let sizes = [
        request.resource_names_subscribe.len(),
        request.resource_names_unsubscribe.len(),
        request.initial_resource_versions.len(),
    ];
    if sizes.iter().any(|size| *size > MAX_NAMES) {
        return Err(ProtocolError::TooManyNames(request.type_url.clone()));
    }
    let names = request.resource_names_subscribe.iter();
    let held = request.initial_resource_versions.iter().flat_map(|(name, v)| [name, v]);
    if names.chain(held).any(|name| name.len() > MAX_NAME) {
        return Err(ProtocolError::NameTooLong(request.type_url.clone()));
    }
    Ok(())
}

fn wire(type_url: &str, name: &Arc<str>, resource: &Resource) -> WireResource {
    WireResource {
        name: name.to_string(),
        version: resource.version.to_string(),
        resource: Some(Any { type_url: type_url.to_owned(), value: resource.body.to_vec() }),
        ..WireResource::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::google::rpc::Status;
    use crate::type_url::CLUSTER;

    fn map(list: &[(&str, &str)]) -> ResourceMap {
        let resource = |v: &str| Resource { version: Arc::from(v), body: Bytes::new() };
        list.iter().map(|(name, v)| (Arc::from(*name), resource(v))).collect()
    }

    fn ask(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
        let text = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        DeltaDiscoveryRequest {
            type_url: CLUSTER.to_owned(),
            resource_names_subscribe: text(subscribe),
            resource_names_unsubscribe: text(unsubscribe),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn said(response: Option<DeltaDiscoveryResponse>) -> Option<(Vec<String>, Vec<String>)> {
        response.map(|r| (r.resources.into_iter().map(|r| r.name).collect(), r.removed_resources))
    }

    fn text(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_differences_are_sent() {
        let mut session = Session::new();
        assert!(session.response(CLUSTER, &map(&[("a", "1")])).is_none(), "nobody asked");
        assert!(session.request(&ask(&[], &[])).unwrap().subscribed);
        let first = session.response(CLUSTER, &map(&[("a", "1"), ("b", "1")]));
        assert_eq!(said(first), Some((text(&["a", "b"]), vec![])));
        assert_eq!(session.response(CLUSTER, &map(&[("a", "1"), ("b", "1")])), None);
        let next = session.response(CLUSTER, &map(&[("b", "2"), ("c", "1")]));
        assert_eq!(said(next), Some((text(&["b", "c"]), text(&["a"]))));
    }

    #[test]
    fn an_empty_first_answer_is_an_answer() {
        let mut session = Session::new();
        session.request(&ask(&[], &[])).unwrap();
        assert_eq!(said(session.response(CLUSTER, &map(&[]))), Some((vec![], vec![])));
        assert_eq!(session.response(CLUSTER, &map(&[])), None);
    }

    #[test]
    fn unknown_names_are_answered_as_removed_once() {
        let mut session = Session::new();
        session.request(&ask(&["a", "x"], &[])).unwrap();
        let first = session.response(CLUSTER, &map(&[("a", "1"), ("b", "1")]));
        assert_eq!(said(first), Some((text(&["a"]), text(&["x"]))));
        assert_eq!(session.response(CLUSTER, &map(&[("a", "1")])), None);
        let later = session.response(CLUSTER, &map(&[("a", "1"), ("x", "1")]));
        assert_eq!(said(later), Some((text(&["x"]), vec![])));
    }

    #[test]
    fn what_is_held_since_before_is_not_sent_again() {
        let mut session = Session::new();
        let mut request = ask(&[], &[]);
        let held = [("a", "1"), ("b", "1"), ("gone", "1")];
        request.initial_resource_versions =
            held.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        session.request(&request).unwrap();
        let first = session.response(CLUSTER, &map(&[("a", "1"), ("b", "2")]));
        assert_eq!(said(first), Some((text(&["b"]), text(&["gone"]))));
    }

    #[test]
    fn asking_again_brings_it_again() {
        let mut session = Session::new();
        let wanted = map(&[("a", "1")]);
        session.request(&ask(&["a"], &[])).unwrap();
        session.response(CLUSTER, &wanted).unwrap();
        session.request(&ask(&["a"], &[])).unwrap();
        assert_eq!(said(session.response(CLUSTER, &wanted)), Some((text(&["a"]), vec![])));
        session.resend(CLUSTER, ["a"]);
        assert_eq!(said(session.response(CLUSTER, &wanted)), Some((text(&["a"]), vec![])));
        session.request(&ask(&[], &["a"])).unwrap();
        assert_eq!(session.response(CLUSTER, &wanted), None);
        assert!(!session.is_subscribed(CLUSTER));
    }

    #[test]
    fn refusals_are_told_and_remembered_until_something_is_accepted() {
        let mut session = Session::new();
        session.request(&ask(&[], &[])).unwrap();
        let sent = session.response(CLUSTER, &map(&[("a", "1")])).unwrap();
        assert_eq!(session.unanswered(CLUSTER), 1);
        let mut nack = ask(&[], &[]);
        nack.response_nonce.clone_from(&sent.nonce);
        nack.error_detail = Some(Status { message: "no".to_owned(), ..Status::default() });
        let taken = session.request(&nack).unwrap();
        assert!(!taken.subscribed);
        let refused = Outcome::Refused { nonce: sent.nonce, reason: "no".to_owned() };
        assert_eq!(taken.outcome, Some(refused));
        assert_eq!(session.refusal(CLUSTER), Some("no"));
        assert_eq!(session.response(CLUSTER, &map(&[("a", "1")])), None, "not again");
        let sent = session.response(CLUSTER, &map(&[("a", "2")])).unwrap();
        let mut ack = ask(&[], &[]);
        ack.response_nonce = sent.nonce;
        session.request(&ack).unwrap();
        assert_eq!((session.refusal(CLUSTER), session.unanswered(CLUSTER)), (None, 0));
    }

    #[test]
    fn immoderate_clients_are_refused() {
        let mut session = Session::new();
        assert_eq!(session.request(&DeltaDiscoveryRequest::default()), Err(ProtocolError::NoType));
        let long = "x".repeat(MAX_NAME + 1);
        let request = ask(&[&long], &[]);
        assert!(matches!(session.request(&request), Err(ProtocolError::NameTooLong(_))));
    }
}
