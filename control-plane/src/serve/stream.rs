//! One proxy's discovery stream, without I/O: what is sent, in which order, and when.
//!
//! What is pointed at comes before what points at it: clusters, endpoints, listeners, routes,
//! secrets, names. Clusters and endpoints that are no longer wanted stay until the proxy has accepted the
//! listeners and routes that no longer use them, so that no request meets a hole. A proxy that has
//! not taken everything yet is sent the latest state once it has, never a queue of states.

use std::sync::Arc;

use lateen_xds::server::{Outcome, ProtocolError, Subscriptions, Variant};
use lateen_xds::type_url;

use super::lingering::Lingering;
use crate::translate::Resources;

/// The types that are served, in push order.
pub const TYPES: [&str; 6] = [
    type_url::CLUSTER,
    type_url::ENDPOINTS,
    type_url::LISTENER,
    type_url::ROUTES,
    type_url::SECRET,
    type_url::NAME_TABLE,
];

/// Short name of a type, as operators know it.
#[must_use]
pub fn short_name(type_url: &str) -> &'static str {
    match type_url {
        type_url::CLUSTER => "cds",
        type_url::ENDPOINTS => "eds",
        type_url::LISTENER => "lds",
        type_url::ROUTES => "rds",
        type_url::NAME_TABLE => "nds",
        type_url::SECRET => "sds",
        _ => "other",
    }
}

/// What a request of the proxy led to.
#[derive(Debug)]
pub struct Reaction<R> {
    /// What is to be sent now.
    pub responses: Vec<R>,
    /// Type and reason, when the proxy refused something.
    pub refused: Option<(String, String)>,
}

/// The stream of one proxy, in either variant of the protocol.
#[derive(Debug, Default)]
pub struct ProxyStream<V> {
    session: V,
    wanted: Arc<Resources>,
    /// Clusters that are not wanted any more but may still be in use.
    lingering_clusters: Lingering,
    /// Endpoints likewise.
    lingering_endpoints: Lingering,
}

impl<V: Variant> ProxyStream<V> {
    /// A stream for a proxy that should have these resources.
    #[must_use]
    pub fn new(wanted: Arc<Resources>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Takes a request of the proxy.
    ///
    /// # Errors
    /// When the proxy breaks the protocol; the stream is to be closed.
    pub fn on_request(
        &mut self,
        request: &V::Request,
    ) -> Result<Reaction<V::Response>, ProtocolError> {
        let taken = self.session.request(request)?;
        let mut reaction = Reaction { responses: Vec::new(), refused: None };
        if taken.subscribed {
            self.answer(&taken.type_url, &mut reaction.responses);
        }
        match taken.outcome {
            Some(Outcome::Refused { reason, .. }) => {
                reaction.refused = Some((taken.type_url, reason));
            }
            Some(Outcome::Accepted { .. }) => self.sweep(&mut reaction.responses),
            None => {}
        }
        Ok(reaction)
    }

    /// Moves the proxy to other resources: what is to be sent for it now.
    pub fn on_resources(&mut self, wanted: Arc<Resources>) -> Vec<V::Response> {
        let before = std::mem::replace(&mut self.wanted, wanted);
        let wanted = Arc::clone(&self.wanted);
        let books = self.session.subscriptions();
        let holds = |type_url| move |name: &str| books.holds(type_url, name);
        let of_clusters = holds(type_url::CLUSTER);
        self.lingering_clusters.keep(&before.clusters, &wanted.clusters, of_clusters);
        let since = wanted.since.as_ref().filter(|it| {
            Arc::ptr_eq(&it.before, &before.endpoints) && self.lingering_endpoints.is_empty()
        });
        if since.is_none() {
            let of_endpoints = holds(type_url::ENDPOINTS);
            self.lingering_endpoints.keep(&before.endpoints, &wanted.endpoints, of_endpoints);
        }
        let mut responses = Vec::new();
        for type_url in TYPES {
            let same = before.of(type_url).zip(wanted.of(type_url));
            if same.is_some_and(|(a, b)| Arc::ptr_eq(a, b)) && self.lingers(type_url).is_empty() {
                // What was asked for since has been answered from the same.
                continue;
            }
            match since.filter(|_| type_url == type_url::ENDPOINTS) {
                Some(it) => responses.extend(self.session.response_for(
                    type_url,
                    &wanted.endpoints,
                    &it.changed,
                )),
                None => self.answer(type_url, &mut responses),
            }
        }
        self.sweep(&mut responses);
        responses
    }

    /// What the proxy asked for, has and answered.
    #[must_use]
    pub fn subscriptions(&self) -> &Subscriptions {
        self.session.subscriptions()
    }

    fn answer(&mut self, type_url: &str, responses: &mut Vec<V::Response>) {
        // Of a type that is not served there is nothing: said, or the proxy would wait for ever.
        let wanted = self.wanted.of(type_url).map(Arc::clone).unwrap_or_default();
        let lingering = match type_url {
            type_url::CLUSTER => &self.lingering_clusters,
            type_url::ENDPOINTS => &self.lingering_endpoints,
            _ => &NOTHING,
        };
        let response = if lingering.is_empty() {
            self.session.response(type_url, &wanted)
        } else {
            self.session.response(type_url, &lingering.and(&wanted))
        };
        let Some(response) = response else { return };
        if type_url == type_url::CLUSTER {
            // A cluster that is defined anew waits for its endpoints, even if these are the same.
            let names = V::contents(&response).changed;
            self.session.subscriptions_mut().resend(type_url::ENDPOINTS, names);
        }
        responses.push(response);
    }

    fn lingers(&self, type_url: &str) -> &Lingering {
        match type_url {
            type_url::CLUSTER => &self.lingering_clusters,
            type_url::ENDPOINTS => &self.lingering_endpoints,
            _ => &NOTHING,
        }
    }

    /// Removes what lingers, once nothing the proxy holds can point at it.
    fn sweep(&mut self, responses: &mut Vec<V::Response>) {
        if self.lingering_clusters.is_empty() && self.lingering_endpoints.is_empty() {
            return;
        }
        let books = self.session.subscriptions();
        let settled =
            |type_url| books.unanswered(type_url) == 0 && books.refusal(type_url).is_none();
        if !settled(type_url::LISTENER) || !settled(type_url::ROUTES) {
            return;
        }
        self.lingering_clusters.clear();
        self.lingering_endpoints.clear();
        self.answer(type_url::CLUSTER, responses);
        self.answer(type_url::ENDPOINTS, responses);
    }
}

static NOTHING: Lingering = Lingering::none();

#[cfg(test)]
mod tests {
    use super::TYPES;
    use crate::translate::{Resources, Since};
    use lateen_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest};
    use lateen_xds::pb::google::rpc::Status;
    use lateen_xds::server::{Resource, ResourceMap, Session, World, WorldSession};
    use lateen_xds::type_url;
    use proptest::prelude::{prop_assert_eq, proptest};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    type ProxyStream = super::ProxyStream<Session>;

    fn map(entries: &[(&str, &str)]) -> Arc<ResourceMap> {
        let entry = |(name, version): &(&str, &str)| {
            let resource = Resource { version: Arc::from(*version), body: Default::default() };
            (Arc::from(*name), resource)
        };
        Arc::new(entries.iter().map(entry).collect())
    }

    fn resources(clusters: &[(&str, &str)], listeners: &[(&str, &str)]) -> Arc<Resources> {
        Arc::new(Resources {
            clusters: map(clusters),
            endpoints: map(clusters),
            listeners: map(listeners),
            ..Resources::default()
        })
    }

    fn subscribe(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn answer(response: &DeltaDiscoveryResponse, error: Option<&str>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error
                .map(|text| Status { message: text.to_owned(), ..Status::default() }),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn types(responses: &[DeltaDiscoveryResponse]) -> Vec<(&str, usize, usize)> {
        responses
            .iter()
            .map(|r| (super::short_name(&r.type_url), r.resources.len(), r.removed_resources.len()))
            .collect()
    }

    #[test]
    fn clusters_go_only_after_what_used_them() {
        let first = resources(&[("a", "1"), ("b", "1")], &[("l", "1")]);
        let mut stream = ProxyStream::new(Arc::clone(&first));
        for type_url in [type_url::CLUSTER, type_url::LISTENER] {
            let reaction = stream.on_request(&subscribe(type_url, &[])).unwrap();
            stream.on_request(&answer(&reaction.responses[0], None)).unwrap();
        }
        stream.on_request(&subscribe(type_url::ENDPOINTS, &["a", "b"])).unwrap();
        let sent = stream.on_resources(resources(&[("a", "2"), ("c", "1")], &[("l", "2")]));
        assert_eq!(types(&sent), [("cds", 2, 0), ("eds", 1, 0), ("lds", 1, 0)]);
        let after = stream.on_request(&answer(&sent[0], None)).unwrap();
        assert!(after.responses.is_empty(), "the listener is not in force yet");
        let after = stream.on_request(&answer(&sent[2], None)).unwrap();
        assert_eq!(types(&after.responses), [("cds", 0, 1), ("eds", 0, 1)]);
    }

    #[test]
    fn nothing_is_taken_from_a_proxy_that_refused() {
        let mut stream = ProxyStream::new(resources(&[("a", "1")], &[("l", "1")]));
        for type_url in [type_url::CLUSTER, type_url::LISTENER] {
            let reaction = stream.on_request(&subscribe(type_url, &[])).unwrap();
            stream.on_request(&answer(&reaction.responses[0], None)).unwrap();
        }
        let sent = stream.on_resources(resources(&[("b", "1")], &[("l", "2")]));
        let reaction = stream.on_request(&answer(&sent[1], Some("bad filter"))).unwrap();
        assert_eq!(
            reaction.refused,
            Some((type_url::LISTENER.to_owned(), "bad filter".to_owned()))
        );
        assert!(reaction.responses.is_empty());
        let sent = stream.on_resources(resources(&[("b", "1")], &[("l", "3")]));
        assert_eq!(types(&sent), [("lds", 1, 0)]);
        let reaction = stream.on_request(&answer(&sent[0], None)).unwrap();
        assert_eq!(types(&reaction.responses), [("cds", 0, 1)]);
    }

    #[test]
    fn what_a_proxy_does_not_hold_does_not_linger() {
        let mut stream = ProxyStream::new(resources(&[("a", "1"), ("b", "1")], &[("l", "1")]));
        stream.on_request(&subscribe(type_url::CLUSTER, &["a"])).unwrap();
        let listeners = stream.on_request(&subscribe(type_url::LISTENER, &[])).unwrap().responses;
        stream.on_request(&answer(&listeners[0], Some("bad filter"))).unwrap();
        stream.on_resources(resources(&[], &[("l", "1")]));
        let lingers = |stream: &ProxyStream, type_url: &str| {
            let all = stream.lingers(type_url).and(&ResourceMap::new());
            all.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(lingers(&stream, type_url::CLUSTER), ["a"], "b was never sent");
        assert!(lingers(&stream, type_url::ENDPOINTS).is_empty(), "none were asked for");
    }

    #[test]
    fn endpoints_alone_are_sent_alone() {
        let mut stream = ProxyStream::new(resources(&[("a", "1")], &[("l", "1")]));
        stream.on_request(&subscribe(type_url::CLUSTER, &[])).unwrap();
        stream.on_request(&subscribe(type_url::ENDPOINTS, &["a"])).unwrap();
        let mut next = (*resources(&[("a", "1")], &[("l", "1")])).clone();
        next.endpoints = map(&[("a", "2")]);
        assert_eq!(types(&stream.on_resources(Arc::new(next))), [("eds", 1, 0)]);
    }

    #[test]
    fn a_stream_of_the_world_keeps_the_same_order() {
        let ask = |type_url: &str, nonce: &str| DiscoveryRequest {
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        };
        let said = |sent: &[World]| {
            let one = |it: &World| {
                (super::short_name(&it.message.type_url), it.message.resources.len(), it.removed)
            };
            sent.iter().map(one).collect::<Vec<_>>()
        };
        let first = resources(&[("a", "1"), ("b", "1")], &[("l", "1")]);
        let mut stream = super::ProxyStream::<WorldSession>::new(first);
        for type_url in [type_url::CLUSTER, type_url::LISTENER] {
            let sent = stream.on_request(&ask(type_url, "")).unwrap().responses;
            let ack = ask(type_url, &sent[0].message.nonce);
            assert!(stream.on_request(&ack).unwrap().responses.is_empty());
        }
        let sent = stream.on_resources(resources(&[("a", "2"), ("c", "1")], &[("l", "2")]));
        assert_eq!(said(&sent), [("cds", 3, 0), ("lds", 1, 0)], "b may be in use");
        let after = stream.on_request(&ask(type_url::CLUSTER, &sent[0].message.nonce)).unwrap();
        assert!(after.responses.is_empty(), "the listener is not in force yet");
        let after = stream.on_request(&ask(type_url::LISTENER, &sent[1].message.nonce)).unwrap();
        assert_eq!(said(&after.responses), [("cds", 2, 1)]);
    }

    #[test]
    fn what_is_not_served_is_said_not_to_be_there() {
        let mut stream = ProxyStream::new(resources(&[], &[]));
        let reaction = stream.on_request(&subscribe(type_url::SECRET, &["default"])).unwrap();
        assert_eq!(reaction.responses[0].removed_resources, ["default"]);
    }

    type Held = BTreeMap<String, BTreeMap<String, String>>;

    fn take(held: &mut Held, responses: &[DeltaDiscoveryResponse]) {
        for response in responses {
            let kind = held.entry(response.type_url.clone()).or_default();
            for resource in &response.resources {
                kind.insert(resource.name.clone(), resource.version.clone());
            }
            for name in &response.removed_resources {
                kind.remove(name);
            }
        }
    }

    /// A client that answers everything, at once or only some of the time.
    fn settle(stream: &mut ProxyStream, held: &mut Held, sent: Vec<DeltaDiscoveryResponse>) {
        let mut waiting = sent;
        while !waiting.is_empty() {
            take(held, &waiting);
            let answers: Vec<_> = waiting.iter().map(|response| answer(response, None)).collect();
            waiting = answers
                .iter()
                .flat_map(|request| stream.on_request(request).unwrap().responses)
                .collect();
        }
    }

    proptest! {
        /// After any changes, answered or not in between, a proxy holds what it would get anew.
        #[test]
        fn increments_lead_to_the_same_as_a_fresh_start(
            states in proptest::collection::vec(
                proptest::collection::vec((0..4_usize, 0..6_u8, 0..3_u8), 0..12), 1..8),
            answered: Vec<bool>,
        ) {
            let build = |state: &[(usize, u8, u8)]| {
                let of = |kind: usize| {
                    let entries: BTreeMap<String, String> = state.iter()
                        .filter(|(k, ..)| *k == kind)
                        .map(|(_, name, version)| (format!("n{name}"), format!("v{version}")))
                        .collect();
                    let pairs: Vec<(&str, &str)> =
                        entries.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                    map(&pairs)
                };
                Arc::new(Resources {
                    clusters: of(0), endpoints: of(1), listeners: of(2), routes: of(3),
                    ..Resources::default()
                })
            };
            let all: Vec<String> = (0..6).map(|name| format!("n{name}")).collect();
            let names: Vec<&str> = all.iter().map(String::as_str).collect();
            let mut wanted = build(&states[0]);
            let mut stream = ProxyStream::new(Arc::clone(&wanted));
            let mut held = Held::new();
            for type_url in TYPES {
                let by_name = [type_url::ENDPOINTS, type_url::ROUTES].contains(&type_url);
                let request = subscribe(type_url, if by_name { &names } else { &[] });
                let sent = stream.on_request(&request).unwrap().responses;
                settle(&mut stream, &mut held, sent);
            }
            let mut open = Vec::new();
            for (index, state) in states.iter().enumerate() {
                let mut next = Resources::clone(&build(state));
                if wanted.endpoints.keys().eq(next.endpoints.keys()) {
                    let differs = next.endpoints.iter().filter(|(n, r)| wanted.endpoints[*n] != **r);
                    next.since = Some(Since {
                        before: Arc::clone(&wanted.endpoints),
                        changed: differs.map(|(name, _)| Arc::clone(name)).collect(),
                    });
                }
                wanted = Arc::new(next);
                open.extend(stream.on_resources(Arc::clone(&wanted)));
                if answered.get(index).copied().unwrap_or(false) {
                    settle(&mut stream, &mut held, std::mem::take(&mut open));
                }
            }
            settle(&mut stream, &mut held, open);
            let last = build(states.last().unwrap());
            for type_url in TYPES {
                let wanted: BTreeMap<String, String> = last.of(type_url).unwrap().iter()
                    .map(|(name, resource)| (name.to_string(), resource.version.to_string()))
                    .collect();
                prop_assert_eq!(held.get(type_url).cloned().unwrap_or_default(), wanted);
            }
        }
    }
}
