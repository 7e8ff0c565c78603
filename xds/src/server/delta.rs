//! One delta discovery stream, as the control plane sees it.
//!
//! For each type it holds what the client subscribed to and which version of each resource it was
//! sent (or says it holds since before). A response is the difference to what it should have. A
//! refused version is not sent again; a changed one is. Clients are not trusted: their requests
//! are bounded.

use std::sync::Arc;

use super::subscriptions::{
    Difference, MAX_NAMES, Outcome, ProtocolError, ResourceMap, Subscriptions, Taken, TypeState,
    WILDCARD, check,
};
use super::{Contents, Variant};
use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource};
use crate::pb::envoy::config::core::v3::Node;

/// The server end of one delta discovery stream.
#[derive(Debug, Default)]
pub struct Session {
    subscriptions: Subscriptions,
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
        let type_url = request.type_url.as_str();
        let sizes = [
            request.resource_names_subscribe.len(),
            request.resource_names_unsubscribe.len(),
            request.initial_resource_versions.len(),
        ];
        let names = request.resource_names_subscribe.iter();
        let held = request.initial_resource_versions.iter().flat_map(|(name, v)| [name, v]);
        check(type_url, &sizes, names.chain(held))?;
        let (state, first) = self.subscriptions.open(type_url)?;
        let outcome = answer(state, request);
        let subscribed = first | subscribe(state, request, first);
        if state.names.len() > MAX_NAMES {
            return Err(ProtocolError::TooManyNames(type_url.to_owned()));
        }
        Ok(Taken { type_url: type_url.to_owned(), subscribed, outcome })
    }

    /// What is to be sent of a type so that the client comes to hold `wanted` (as far as it is
    /// subscribed); `None` when there is nothing to say. What is returned counts as sent.
    pub fn response(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
    ) -> Option<DeltaDiscoveryResponse> {
        let state = self.subscriptions.of(type_url)?;
        let difference = state.difference(wanted);
        if difference.is_empty() && state.answered_once {
            return None;
        }
        Some(self.say(type_url, wanted, &difference))
    }

    fn say(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
        difference: &Difference,
    ) -> DeltaDiscoveryResponse {
        let known = difference.changed.iter().filter_map(|name| wanted.get_key_value(name));
        DeltaDiscoveryResponse {
            nonce: self.subscriptions.say(type_url),
            type_url: type_url.to_owned(),
            resources: known
                .map(|(name, resource)| WireResource {
                    name: name.to_string(),
                    version: resource.version.to_string(),
                    resource: Some(resource.any(type_url)),
                    ..WireResource::default()
                })
                .collect(),
            removed_resources: difference.removed.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

impl Variant for Session {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    type Message = DeltaDiscoveryResponse;

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn contents(response: &DeltaDiscoveryResponse) -> Contents<'_> {
        Contents {
            type_url: &response.type_url,
            changed: response.resources.iter().map(|it| it.name.as_str()).collect(),
            removed: response.removed_resources.len(),
        }
    }

    fn request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Taken, ProtocolError> {
        Self::request(self, request)
    }

    fn response(&mut self, type_url: &str, wanted: &ResourceMap) -> Option<DeltaDiscoveryResponse> {
        Self::response(self, type_url, wanted)
    }

    fn response_for(
        &mut self,
        type_url: &str,
        wanted: &ResourceMap,
        changed: &[Arc<str>],
    ) -> Option<DeltaDiscoveryResponse> {
        let state = self.subscriptions.of(type_url)?;
        if !state.asked.is_empty() || !state.answered_once {
            return Self::response(self, type_url, wanted);
        }
        let difference = state.difference_of(wanted, changed);
        (!difference.is_empty()).then(|| self.say(type_url, wanted, &difference))
    }

    fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    fn subscriptions_mut(&mut self) -> &mut Subscriptions {
        &mut self.subscriptions
    }
}

fn answer(state: &mut TypeState, request: &DeltaDiscoveryRequest) -> Option<Outcome> {
    let place = state.unanswered.iter().position(|nonce| *nonce == request.response_nonce)?;
    state.conclude(place, request.error_detail.as_ref())
}

/// Takes up changed subscriptions; true when there are some.
fn subscribe(state: &mut TypeState, request: &DeltaDiscoveryRequest, first: bool) -> bool {
    if first {
        state.wildcard = request.resource_names_subscribe.is_empty();
        for (name, version) in &request.initial_resource_versions {
            state.known.insert(Arc::from(name.as_str()), Arc::from(version.as_str()));
        }
    }
    for name in &request.resource_names_unsubscribe {
        if name == WILDCARD {
            state.wildcard = false;
            state.known.retain(|name, _| state.names.contains(name));
        } else if state.names.remove(name.as_str()) {
            state.known.remove(name.as_str());
            state.asked.remove(name.as_str());
            if state.wildcard {
                // The client cannot know whether the wildcard covers it: tell it.
                state.asked.insert(Arc::from(name.as_str()));
            }
        }
    }
    for name in &request.resource_names_subscribe {
        if name == WILDCARD {
            state.wildcard = true;
            continue;
        }
        let name: Arc<str> = Arc::from(name.as_str());
        // Asking again for what is subscribed means that it was lost on the other side.
        if !first || !state.known.contains_key(&name) {
            state.known.remove(&name);
            state.asked.insert(Arc::clone(&name));
        }
        state.names.insert(name);
    }
    if first && !state.wildcard {
        state.known.retain(|name, _| state.names.contains(name));
    }
    !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty()
}

#[cfg(test)]
mod tests {
    use super::{Session, Variant};
    use crate::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
    use crate::pb::google::rpc::Status;
    use crate::server::subscriptions::MAX_NAME;
    use crate::server::{Outcome, ProtocolError, Resource, ResourceMap};
    use crate::type_url::CLUSTER;
    use bytes::Bytes;
    use std::sync::Arc;

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
        session.subscriptions_mut().resend(CLUSTER, ["a"]);
        assert_eq!(said(session.response(CLUSTER, &wanted)), Some((text(&["a"]), vec![])));
        session.request(&ask(&[], &["a"])).unwrap();
        assert_eq!(session.response(CLUSTER, &wanted), None);
        assert!(!session.subscriptions().is_subscribed(CLUSTER));
    }

    #[test]
    fn refusals_are_told_and_remembered_until_something_is_accepted() {
        let mut session = Session::new();
        session.request(&ask(&[], &[])).unwrap();
        let sent = session.response(CLUSTER, &map(&[("a", "1")])).unwrap();
        assert_eq!(session.subscriptions().unanswered(CLUSTER), 1);
        let mut nack = ask(&[], &[]);
        nack.response_nonce.clone_from(&sent.nonce);
        nack.error_detail = Some(Status { message: "no".to_owned(), ..Status::default() });
        let taken = session.request(&nack).unwrap();
        assert!(!taken.subscribed);
        let refused = Outcome::Refused { nonce: sent.nonce, reason: "no".to_owned() };
        assert_eq!(taken.outcome, Some(refused));
        assert_eq!(session.subscriptions().refusal(CLUSTER), Some("no"));
        assert_eq!(session.response(CLUSTER, &map(&[("a", "1")])), None, "not again");
        let sent = session.response(CLUSTER, &map(&[("a", "2")])).unwrap();
        let mut ack = ask(&[], &[]);
        ack.response_nonce = sent.nonce;
        session.request(&ack).unwrap();
        let books = session.subscriptions();
        assert_eq!((books.refusal(CLUSTER), books.unanswered(CLUSTER)), (None, 0));
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
