//! State of one delta discovery client, across streams.
//!
//! Versions of accepted resources outlast a stream, so that a new one starts with what is held
//! already. A refused resource leaves the version before it in place, and its response is refused
//! (NACK) with the reason of each. Resources nobody asked for any more are dropped unseen.

use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::envoy::core::Node;
use crate::pb::google::protobuf::Any;
use crate::pb::google::rpc::Status;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// gRPC status code of a refused configuration.
const INVALID_ARGUMENT: i32 = 3;
/// Longest reason sent back, in bytes.
const MAX_REASON: usize = 4096;

/// What a client wants of one resource type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Whatever the control plane thinks is right.
    Wildcard,
    /// These and no others.
    Names(BTreeSet<Arc<str>>),
}

/// One resource as received.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Name.
    pub name: Arc<str>,
    /// Version, opaque.
    pub version: String,
    /// Content.
    pub body: Any,
}

/// What one response changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Resource type.
    pub type_url: String,
    /// Added or changed.
    pub resources: Vec<Received>,
    /// Gone, or asked for and not there.
    pub removed: Vec<Arc<str>>,
    nonce: String,
}

/// A resource that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Name.
    pub name: Arc<str>,
    /// What is wrong, for the control plane's operator.
    pub reason: String,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    versions: HashMap<Arc<str>, String>,
    started: bool,
    subscribe: BTreeSet<Arc<str>>,
    unsubscribe: BTreeSet<Arc<str>>,
}

/// The client end of delta discovery.
#[derive(Debug)]
pub struct Session {
    node: Node,
    types: BTreeMap<String, TypeState>,
    order: Vec<String>,
    node_sent: bool,
    answers: VecDeque<DeltaDiscoveryRequest>,
}

impl Session {
    /// A session of this node that wants nothing yet.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self {
            node,
            types: BTreeMap::new(),
            order: Vec::new(),
            node_sent: false,
            answers: VecDeque::new(),
        }
    }

    /// Sets what is wanted of a type. The order in which types are first named is the order in
    /// which they are asked for. What is no longer wanted is forgotten at once.
    pub fn set_interest(&mut self, type_url: &str, interest: Interest) {
        if !self.types.contains_key(type_url) {
            self.order.push(type_url.to_owned());
        }
        let state = self.types.entry(type_url.to_owned()).or_default();
        match interest {
            Interest::Wildcard => state.wildcard = true,
            Interest::Names(wanted) => {
                let added: Vec<_> = wanted.difference(&state.names).cloned().collect();
                let dropped: Vec<_> = state.names.difference(&wanted).cloned().collect();
                for name in added {
                    // A name that was to be given up and is wanted again is asked for anew: what
                    // was held of it is forgotten already.
                    state.unsubscribe.remove(&name);
                    state.subscribe.insert(name);
                }
                for name in dropped {
                    state.subscribe.remove(&name);
                    state.versions.remove(&name);
                    state.unsubscribe.insert(name);
                }
                state.names = wanted;
            }
        }
    }

    /// A new stream was opened: everything is asked for again, with the versions held.
    pub fn connected(&mut self) {
        self.node_sent = false;
        self.answers.clear();
        for state in self.types.values_mut() {
            state.started = false;
            state.subscribe.clear();
            state.unsubscribe.clear();
        }
    }

    /// The next request to send, if there is one: answers first, then subscriptions.
    pub fn next_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        let mut request = match self.answers.pop_front() {
            Some(answer) => answer,
            None => self.next_subscription()?,
        };
        if !self.node_sent {
            self.node_sent = true;
            request.node = Some(self.node.clone());
        }
        Some(request)
    }

    fn next_subscription(&mut self) -> Option<DeltaDiscoveryRequest> {
        for type_url in &self.order {
            let Some(state) = self.types.get_mut(type_url) else { continue };
            if let Some(request) = state.subscription() {
                return Some(DeltaDiscoveryRequest { type_url: type_url.clone(), ..request });
            }
        }
        None
    }

    /// Takes a response apart. What nobody asked for is left out. Every update must be given back
    /// to [`Session::conclude`], also an empty one, so that it is answered.
    #[must_use]
    pub fn receive(&self, response: DeltaDiscoveryResponse) -> Update {
        let DeltaDiscoveryResponse { resources, type_url, removed_resources, nonce, .. } = response;
        let state = self.types.get(&type_url);
        let wanted = |name: &str| state.is_some_and(|s| s.wildcard || s.names.contains(name));
        let resources = resources
            .into_iter()
            .filter(|resource| wanted(&resource.name))
            .filter_map(|resource| {
                let name = Arc::from(resource.name);
                Some(Received { name, version: resource.version, body: resource.resource? })
            })
            .collect();
        let removed = removed_resources
            .into_iter()
            .filter(|name| wanted(name))
            .map(|name| Arc::from(name.as_str()))
            .collect();
        Update { type_url, resources, removed, nonce }
    }

    /// Notes what became of an update and queues its answer: ACK, or NACK with every reason.
    pub fn conclude(&mut self, update: &Update, rejections: &[Rejection]) {
        if let Some(state) = self.types.get_mut(&update.type_url) {
            for name in &update.removed {
                state.versions.remove(name);
            }
            for resource in &update.resources {
                let refused = rejections.iter().any(|r| r.name == resource.name);
                // While the update was applied the interest may have changed.
                let wanted = state.wildcard || state.names.contains(&resource.name);
                if wanted && !refused {
                    state.versions.insert(Arc::clone(&resource.name), resource.version.clone());
                }
            }
        }
        self.answers.push_back(DeltaDiscoveryRequest {
            type_url: update.type_url.clone(),
            response_nonce: update.nonce.clone(),
            error_detail: (!rejections.is_empty()).then(|| Status {
                code: INVALID_ARGUMENT,
                message: reasons(rejections),
                ..Status::default()
            }),
            ..DeltaDiscoveryRequest::default()
        });
    }

    /// Versions of the accepted resources of a type.
    pub fn versions(&self, type_url: &str) -> impl Iterator<Item = (&Arc<str>, &str)> {
        let state = self.types.get(type_url);
        state.into_iter().flat_map(|s| s.versions.iter().map(|(name, v)| (name, v.as_str())))
    }
}

impl TypeState {
    fn subscription(&mut self) -> Option<DeltaDiscoveryRequest> {
        let text = |names: &BTreeSet<Arc<str>>| names.iter().map(ToString::to_string).collect();
        if self.started {
            if self.subscribe.is_empty() && self.unsubscribe.is_empty() {
                return None;
            }
            return Some(DeltaDiscoveryRequest {
                resource_names_subscribe: text(&std::mem::take(&mut self.subscribe)),
                resource_names_unsubscribe: text(&std::mem::take(&mut self.unsubscribe)),
                ..DeltaDiscoveryRequest::default()
            });
        }
        // A first request without names would mean "everything".
        if !self.wildcard && self.names.is_empty() {
            return None;
        }
        self.started = true;
        self.subscribe.clear();
        self.unsubscribe.clear();
        let versions = self.versions.iter().map(|(name, v)| (name.to_string(), v.clone()));
        Some(DeltaDiscoveryRequest {
            resource_names_subscribe: text(&self.names),
            initial_resource_versions: versions.collect(),
            ..DeltaDiscoveryRequest::default()
        })
    }
}

fn reasons(rejections: &[Rejection]) -> String {
    let mut text = String::new();
    for rejection in rejections {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(&rejection.name);
        text.push_str(": ");
        text.push_str(&rejection.reason);
        if text.len() > MAX_REASON {
            let end = (0..=MAX_REASON).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
            text.truncate(end);
            text.push_str(" ...");
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::Resource;
    use crate::type_url;

    fn names(list: &[&str]) -> Interest {
        Interest::Names(list.iter().map(|name| Arc::from(*name)).collect())
    }

    fn response(
        nonce: &str,
        resources: &[(&str, &str)],
        removed: &[&str],
    ) -> DeltaDiscoveryResponse {
        let resource = |(name, version): &(&str, &str)| Resource {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            resource: Some(Any::default()),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            type_url: type_url::ENDPOINTS.to_owned(),
            nonce: nonce.to_owned(),
            resources: resources.iter().map(resource).collect(),
            removed_resources: removed.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    #[test]
    fn the_first_request_alone_carries_the_node() {
        let mut session = Session::new(Node { id: "n".to_owned(), ..Node::default() });
        session.set_interest(type_url::CLUSTER, Interest::Wildcard);
        session.set_interest(type_url::LISTENER, Interest::Wildcard);
        session.connected();
        let first = session.next_request().unwrap();
        assert_eq!(first.type_url, type_url::CLUSTER);
        assert_eq!(first.node.unwrap().id, "n");
        assert!(first.resource_names_subscribe.is_empty());
        let second = session.next_request().unwrap();
        assert_eq!((second.type_url.as_str(), second.node), (type_url::LISTENER, None));
        assert_eq!(session.next_request(), None);
    }

    #[test]
    fn names_are_asked_for_and_given_up_in_steps() {
        let mut session = Session::new(Node::default());
        session.set_interest(type_url::ENDPOINTS, names(&[]));
        session.connected();
        assert_eq!(session.next_request(), None, "no names is not everything");
        session.set_interest(type_url::ENDPOINTS, names(&["a", "b"]));
        assert_eq!(session.next_request().unwrap().resource_names_subscribe, ["a", "b"]);
        session.set_interest(type_url::ENDPOINTS, names(&["b", "c"]));
        let request = session.next_request().unwrap();
        assert_eq!(request.resource_names_subscribe, ["c"]);
        assert_eq!(request.resource_names_unsubscribe, ["a"]);
    }

    #[test]
    fn a_refused_resource_keeps_its_old_version_and_is_named() {
        let mut session = Session::new(Node::default());
        session.set_interest(type_url::ENDPOINTS, names(&["a", "b"]));
        session.connected();
        session.next_request().unwrap();
        let update = session.receive(response("1", &[("a", "1"), ("b", "1")], &[]));
        session.conclude(&update, &[]);
        let ack = session.next_request().unwrap();
        assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("1", None));
        let update = session.receive(response("2", &[("a", "2"), ("b", "2")], &[]));
        let rejection = Rejection { name: Arc::from("a"), reason: "port 0".to_owned() };
        session.conclude(&update, &[rejection]);
        let nack = session.next_request().unwrap();
        assert_eq!(nack.error_detail.unwrap().message, "a: port 0");
        session.connected();
        let again = session.next_request().unwrap();
        assert_eq!(again.initial_resource_versions["a"], "1");
        assert_eq!(again.initial_resource_versions["b"], "2");
    }

    #[test]
    fn what_nobody_asked_for_is_left_out() {
        let mut session = Session::new(Node::default());
        session.set_interest(type_url::ENDPOINTS, names(&["a"]));
        let update = session.receive(response("1", &[("a", "1"), ("x", "1")], &["y"]));
        assert_eq!(update.resources.len(), 1);
        assert!(update.removed.is_empty());
    }
}
