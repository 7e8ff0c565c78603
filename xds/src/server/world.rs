//! One stream of the state of the world, as the control plane sees it.
//!
//! Each request names everything its client wants of a type, each response of listeners and
//! clusters everything it is to have: what such a response leaves out is gone. Of other types a
//! response brings what is new to the client, and nothing can be taken away. A request that knows
//! an older response than the last is not answered: the client's answer to the last follows it.
//! What it says of names holds, because requests come in order. A first request without names is
//! one for everything, except of types that are only ever wanted by name. Source of behaviour:
//! Istio pkg/xds/server.go.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::subscriptions::{
    Difference, Outcome, ProtocolError, ResourceMap, Subscriptions, Taken, TypeState, WILDCARD,
    check,
};
use super::{Contents, Variant};
use crate::discovery::{DiscoveryRequest, DiscoveryResponse};
use crate::pb::envoy::config::core::v3::Node;
use crate::type_url::{CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET};

/// Types of which every response is the whole.
const WHOLE: [&str; 2] = [CLUSTER, LISTENER];
/// Types of which nothing is wanted where nothing is named.
const BY_NAME: [&str; 3] = [ENDPOINTS, ROUTES, SECRET];

/// A response, with what of it is new to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// What goes over the wire.
    pub message: DiscoveryResponse,
    /// Names of the resources that the client does not hold yet.
    pub changed: Vec<Arc<str>>,
    /// Number of those that it is to forget.
    pub removed: usize,
}

impl From<World> for DiscoveryResponse {
    fn from(world: World) -> Self {
        world.message
    }
}

/// The server end of one stream of the state of the world.
#[derive(Debug, Default)]
pub struct WorldSession {
    subscriptions: Subscriptions,
    /// Types of which the client wants everything because it has never named anything.
    unnamed: HashSet<String>,
}

impl WorldSession {
    /// A stream on which nothing was said yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn say(&mut self, type_url: &str, wanted: &ResourceMap, difference: Difference) -> World {
        let nonce = self.subscriptions.say(type_url);
        let Difference { changed, removed } = difference;
        let state = self.subscriptions.of(type_url);
        let resources = match state.filter(|_| WHOLE.contains(&type_url)) {
            Some(state) => {
                let all = wanted.iter().filter(|(name, _)| state.wants(name));
                all.map(|(_, resource)| resource.any(type_url)).collect()
            }
            None => {
                let new = changed.iter().filter_map(|name| wanted.get(name));
                new.map(|resource| resource.any(type_url)).collect()
            }
        };
        let message = DiscoveryResponse {
            version_info: nonce.clone(),
            nonce,
            type_url: type_url.to_owned(),
            resources,
            ..DiscoveryResponse::default()
        };
        World { message, changed, removed: removed.len() }
    }
}

impl Variant for WorldSession {
    type Request = DiscoveryRequest;
    type Response = World;
    type Message = DiscoveryResponse;

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn contents(response: &World) -> Contents<'_> {
        Contents {
            type_url: &response.message.type_url,
            changed: response.changed.iter().map(|name| &**name).collect(),
            removed: response.removed,
        }
    }

    fn request(&mut self, request: &DiscoveryRequest) -> Result<Taken, ProtocolError> {
        let type_url = request.type_url.as_str();
        check(type_url, &[request.resource_names.len()], request.resource_names.iter())?;
        let (state, first) = self.subscriptions.open(type_url)?;
        let wildcard = wildcard(&mut self.unnamed, request, first);
        let outcome = answer(state, request);
        let widened = subscribe(state, &request.resource_names, wildcard);
        if widened {
            state.answered_once = false;
        }
        let current = state.last.is_empty() || state.last == request.response_nonce;
        let due = is_due(state);
        Ok(Taken { type_url: type_url.to_owned(), subscribed: current && due, outcome })
    }

    fn response(&mut self, type_url: &str, wanted: &ResourceMap) -> Option<World> {
        let state = self.subscriptions.of(type_url)?;
        let due = is_due(state);
        let difference = state.difference(wanted);
        let whole = WHOLE.contains(&type_url);
        let news = !difference.changed.is_empty() || (whole && !difference.removed.is_empty());
        (due || news).then(|| self.say(type_url, wanted, difference))
    }

    fn response_for(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
        changed: &[Arc<str>],
    ) -> Option<World> {
        let state = self.subscriptions.of(type_url)?;
        if WHOLE.contains(&type_url) || !state.asked.is_empty() || !state.answered_once {
            return self.response(type_url, wanted);
        }
        let difference = state.difference_of(wanted, changed);
        (!difference.changed.is_empty()).then(|| self.say(type_url, wanted, difference))
    }

    fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }
}

/// Whether the client waits for a response, even if there is nothing new.
fn is_due(state: &TypeState) -> bool {
    let wants = state.wildcard || !state.names.is_empty();
    wants && (!state.answered_once || !state.asked.is_empty())
}

/// Whether the client wants everything of the type that a request is about.
fn wildcard(unnamed: &mut HashSet<String>, request: &DiscoveryRequest, first: bool) -> bool {
    if !request.resource_names.is_empty() {
        unnamed.remove(&request.type_url);
        return request.resource_names.iter().any(|name| name == WILDCARD);
    }
    if first && !BY_NAME.contains(&request.type_url.as_str()) {
        unnamed.insert(request.type_url.clone());
    }
    unnamed.contains(&request.type_url)
}

/// The answer to a response, which is one to those before it as well: a client takes them in order.
fn answer(state: &mut TypeState, request: &DiscoveryRequest) -> Option<Outcome> {
    let place = state.unanswered.iter().position(|nonce| *nonce == request.response_nonce)?;
    state.unanswered.drain(..place);
    state.conclude(0, request.error_detail.as_ref())
}

/// Takes up what is wanted from now on; true when that is more than before.
fn subscribe(state: &mut TypeState, names: &[String], wildcard: bool) -> bool {
    let mut wanted: BTreeSet<Arc<str>> = names.iter().map(|name| Arc::from(&**name)).collect();
    wanted.remove(WILDCARD);
    let widened = wildcard && !state.wildcard;
    let added: Vec<Arc<str>> = wanted.difference(&state.names).map(Arc::clone).collect();
    state.wildcard = wildcard;
    state.names = wanted;
    // What a client no longer asks for it forgets.
    state.known.retain(|name, _| wildcard || state.names.contains(name));
    state.asked.retain(|name| wildcard || state.names.contains(name));
    for name in added {
        state.known.remove(&name);
        state.asked.insert(name);
    }
    widened
}

#[cfg(test)]
mod tests {
    use super::{Variant, World, WorldSession};
    use crate::discovery::DiscoveryRequest;
    use crate::pb::google::rpc::Status;
    use crate::server::subscriptions::MAX_NAME;
    use crate::server::{Outcome, ProtocolError, Resource, ResourceMap};
    use crate::type_url::{CLUSTER, ENDPOINTS, NAME_TABLE, ROUTES, SECRET};
    use std::sync::Arc;

    /// Resources whose bytes are their names.
    fn map(list: &[(&str, &str)]) -> ResourceMap {
        let resource = |name: &str, version: &str| Resource {
            version: Arc::from(version),
            body: name.to_owned().into(),
        };
        list.iter().map(|(name, version)| (Arc::from(*name), resource(name, version))).collect()
    }

    fn ask(type_url: &str, names: &[&str], nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    fn said(response: Option<&World>) -> Vec<String> {
        let all = response.expect("a response").message.resources.iter();
        all.map(|it| String::from_utf8(it.value.clone()).unwrap()).collect()
    }

    #[test]
    fn clusters_are_always_said_as_a_whole() {
        let mut session = WorldSession::new();
        assert!(session.request(&ask(CLUSTER, &[], "")).unwrap().subscribed);
        let first = session.response(CLUSTER, &map(&[("a", "1"), ("b", "1")]));
        assert_eq!(said(first.as_ref()), ["a", "b"]);
        assert_eq!(session.response(CLUSTER, &map(&[("a", "1"), ("b", "1")])), None);
        let next = session.response(CLUSTER, &map(&[("a", "1"), ("b", "2")])).unwrap();
        assert_eq!(said(Some(&next)), ["a", "b"]);
        assert_eq!(next.changed, [Arc::from("b")]);
        let gone = session.response(CLUSTER, &map(&[("b", "2")])).unwrap();
        assert_eq!((said(Some(&gone)), gone.removed), (vec!["b".to_owned()], 1));
        assert_ne!(gone.message.version_info, next.message.version_info);
    }

    #[test]
    fn endpoints_are_said_as_far_as_they_are_new() {
        let mut session = WorldSession::new();
        session.request(&ask(ENDPOINTS, &["a", "b"], "")).unwrap();
        let all = map(&[("a", "1"), ("b", "1"), ("c", "1")]);
        assert_eq!(said(session.response(ENDPOINTS, &all).as_ref()), ["a", "b"]);
        let next = map(&[("a", "1"), ("b", "2"), ("c", "2")]);
        assert_eq!(said(session.response(ENDPOINTS, &next).as_ref()), ["b"]);
        assert_eq!(session.response(ENDPOINTS, &map(&[("a", "1")])), None, "cannot be taken away");
        let changed = [Arc::from("a"), Arc::from("c")];
        let next = map(&[("a", "2"), ("c", "3")]);
        let sent = session.response_for(ENDPOINTS, &next, &changed);
        assert_eq!(said(sent.as_ref()), ["a"]);
        assert_eq!(session.response_for(ENDPOINTS, &next, &changed), None);
    }

    #[test]
    fn names_that_are_added_are_answered_whether_they_are_there_or_not() {
        let mut session = WorldSession::new();
        let wanted = map(&[("a", "1"), ("b", "1")]);
        session.request(&ask(CLUSTER, &["a"], "")).unwrap();
        let first = session.response(CLUSTER, &wanted).unwrap();
        let more = ask(CLUSTER, &["a", "x"], &first.message.nonce);
        assert!(session.request(&more).unwrap().subscribed);
        let second = session.response(CLUSTER, &wanted);
        assert_eq!(said(second.as_ref()), ["a"]);
        let nonce = second.unwrap().message.nonce;
        assert!(!session.request(&ask(CLUSTER, &["x"], &nonce)).unwrap().subscribed, "fewer");
        assert_eq!(session.response(CLUSTER, &wanted), None);
        assert!(session.request(&ask(CLUSTER, &["a", "x"], &nonce)).unwrap().subscribed, "again");
        assert_eq!(said(session.response(CLUSTER, &wanted).as_ref()), ["a"]);
    }

    #[test]
    fn none_is_everything_until_something_was_named() {
        let mut session = WorldSession::new();
        let wanted = map(&[("a", "1"), ("b", "1")]);
        session.request(&ask(CLUSTER, &[], "")).unwrap();
        let first = session.response(CLUSTER, &wanted).unwrap();
        session.request(&ask(CLUSTER, &[], &first.message.nonce)).unwrap();
        assert!(session.subscriptions().is_wildcard(CLUSTER));
        session.request(&ask(CLUSTER, &["a"], &first.message.nonce)).unwrap();
        assert!(!session.subscriptions().is_wildcard(CLUSTER));
        let second = session.response(CLUSTER, &wanted).unwrap();
        session.request(&ask(CLUSTER, &[], &second.message.nonce)).unwrap();
        assert!(!session.subscriptions().is_subscribed(CLUSTER));
        session.request(&ask(CLUSTER, &["*"], &second.message.nonce)).unwrap();
        assert_eq!(said(session.response(CLUSTER, &wanted).as_ref()), ["a", "b"]);
    }

    #[test]
    fn what_is_wanted_by_name_is_not_given_where_nothing_is_named() {
        for type_url in [ENDPOINTS, ROUTES, SECRET] {
            let mut session = WorldSession::new();
            let all = map(&[("a", "1"), ("b", "1")]);
            assert!(!session.request(&ask(type_url, &[], "")).unwrap().subscribed, "{type_url}");
            assert_eq!(session.response(type_url, &all), None, "{type_url}");
            assert!(session.request(&ask(type_url, &["b"], "")).unwrap().subscribed);
            assert_eq!(said(session.response(type_url, &all).as_ref()), ["b"]);
        }
        let mut session = WorldSession::new();
        assert!(session.request(&ask(NAME_TABLE, &[], "")).unwrap().subscribed);
        assert_eq!(said(session.response(NAME_TABLE, &map(&[("a", "1")])).as_ref()), ["a"]);
    }

    #[test]
    fn a_request_that_knows_an_older_response_is_not_answered_but_heard() {
        let mut session = WorldSession::new();
        session.request(&ask(CLUSTER, &["a"], "")).unwrap();
        let old = session.response(CLUSTER, &map(&[("a", "1"), ("b", "1")])).unwrap();
        let new = session.response(CLUSTER, &map(&[("a", "2"), ("b", "1")])).unwrap();
        let taken = session.request(&ask(CLUSTER, &["a", "b"], &old.message.nonce)).unwrap();
        assert!(!taken.subscribed);
        assert_eq!(taken.outcome, Some(Outcome::Accepted { nonce: old.message.nonce }));
        let taken = session.request(&ask(CLUSTER, &["a", "b"], &new.message.nonce)).unwrap();
        assert!(taken.subscribed, "with the answer to the last");
        let all = map(&[("a", "2"), ("b", "1")]);
        assert_eq!(said(session.response(CLUSTER, &all).as_ref()), ["a", "b"]);
    }

    #[test]
    fn refusals_are_told_and_an_answer_is_one_to_all_before() {
        let mut session = WorldSession::new();
        session.request(&ask(CLUSTER, &[], "")).unwrap();
        session.response(CLUSTER, &map(&[("a", "1")])).unwrap();
        let second = session.response(CLUSTER, &map(&[("a", "2")])).unwrap();
        assert_eq!(session.subscriptions().unanswered(CLUSTER), 2);
        let mut nack = ask(CLUSTER, &[], &second.message.nonce);
        nack.error_detail = Some(Status { message: "no".to_owned(), ..Status::default() });
        let taken = session.request(&nack).unwrap();
        let nonce = second.message.nonce;
        assert_eq!(taken.outcome, Some(Outcome::Refused { nonce, reason: "no".to_owned() }));
        assert!(!taken.subscribed);
        let books = session.subscriptions();
        assert_eq!((books.refusal(CLUSTER), books.unanswered(CLUSTER)), (Some("no"), 0));
        assert_eq!(session.response(CLUSTER, &map(&[("a", "2")])), None, "not again");
    }

    #[test]
    fn immoderate_clients_are_refused() {
        let mut session = WorldSession::new();
        assert_eq!(session.request(&DiscoveryRequest::default()), Err(ProtocolError::NoType));
        let request = ask(CLUSTER, &[&"x".repeat(MAX_NAME + 1)], "");
        assert!(matches!(session.request(&request), Err(ProtocolError::NameTooLong(_))));
    }
}
