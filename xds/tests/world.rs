//! The server of the state of the world against a client as the protocol describes it: whatever
//! happens in between, the client ends with what it wants of what the server has.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use lateen_xds::discovery::{DiscoveryRequest, DiscoveryResponse};
use lateen_xds::pb::google::rpc::Status;
use lateen_xds::server::{Resource, ResourceMap, Variant, WorldSession};
use lateen_xds::type_url::{CLUSTER, ENDPOINTS, LISTENER};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Listeners are wanted all, clusters and endpoints by name.
const TYPES: [&str; 3] = [LISTENER, CLUSTER, ENDPOINTS];
/// Content that the client refuses.
const BAD: u8 = 0;

#[derive(Debug, Clone)]
enum Step {
    Put { kind: usize, name: u8, content: u8 },
    Remove { kind: usize, name: u8 },
    Want { kind: usize, names: BTreeSet<u8> },
    Push,
    ToServer,
    ToClient,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize, 0..5_u8, 0..4_u8)
            .prop_map(|(kind, name, content)| Step::Put { kind, name, content }),
        1 => (0..3_usize, 0..5_u8).prop_map(|(kind, name)| Step::Remove { kind, name }),
        2 => (1..3_usize, prop::collection::btree_set(0..5_u8, 0..5))
            .prop_map(|(kind, names)| Step::Want { kind, names }),
        3 => Just(Step::Push),
        3 => Just(Step::ToServer),
        3 => Just(Step::ToClient),
        1 => Just(Step::Reconnect),
    ]
}

/// What a client knows of one type: bytes are name and content.
#[derive(Debug, Default)]
struct Held {
    wants: BTreeSet<u8>,
    asked: bool,
    nonce: String,
    version: String,
    resources: BTreeMap<u8, u8>,
}

impl Held {
    fn request(&mut self, type_url: &str, error: Option<Status>) -> Option<DiscoveryRequest> {
        // A client that never named anything would ask for everything by naming nothing.
        if type_url != LISTENER && self.wants.is_empty() && !self.asked {
            return None;
        }
        self.asked = true;
        Some(DiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names: self.wants.iter().map(|name| format!("r{name}")).collect(),
            response_nonce: self.nonce.clone(),
            version_info: self.version.clone(),
            error_detail: error,
            ..DiscoveryRequest::default()
        })
    }

    fn take(&mut self, response: &DiscoveryResponse) -> Option<DiscoveryRequest> {
        let type_url = response.type_url.as_str();
        self.nonce.clone_from(&response.nonce);
        let all = response.resources.iter().map(|it| (it.value[0], it.value[1]));
        let wanted = all.filter(|(name, _)| type_url == LISTENER || self.wants.contains(name));
        let (bad, good): (Vec<_>, Vec<_>) = wanted.partition(|(_, content)| *content == BAD);
        if type_url != ENDPOINTS {
            let said = |name: &u8| good.iter().chain(&bad).any(|(it, _)| it == name);
            self.resources.retain(|name, _| said(name));
        }
        self.resources.extend(good);
        let error = Status { message: "bad".to_owned(), ..Status::default() };
        if bad.is_empty() {
            self.version.clone_from(&response.version_info);
        }
        self.request(type_url, (!bad.is_empty()).then_some(error))
    }
}

struct World {
    wanted: [ResourceMap; 3],
    server: WorldSession,
    client: [Held; 3],
    up: VecDeque<DiscoveryRequest>,
    down: VecDeque<DiscoveryResponse>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            wanted: Default::default(),
            server: WorldSession::new(),
            client: Default::default(),
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        world.take(Step::Reconnect);
        world
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put { kind, name, content } => {
                let resource = Resource {
                    version: Arc::from(format!("v{content}")),
                    body: vec![name, content].into(),
                };
                self.wanted[kind].insert(Arc::from(format!("r{name}")), resource);
            }
            Step::Remove { kind, name } => {
                self.wanted[kind].remove(format!("r{name}").as_str());
            }
            Step::Want { kind, names } => {
                let held = &mut self.client[kind];
                held.resources.retain(|name, _| names.contains(name));
                held.wants = names;
                self.up.extend(held.request(TYPES[kind], None));
            }
            Step::Push => {
                for (type_url, wanted) in TYPES.iter().zip(&self.wanted) {
                    let sent = self.server.response(type_url, wanted);
                    self.down.extend(sent.map(DiscoveryResponse::from));
                }
            }
            Step::ToServer => self.hear(),
            Step::ToClient => {
                let Some(response) = self.down.pop_front() else { return };
                let kind = TYPES.iter().position(|it| *it == response.type_url).unwrap();
                self.up.extend(self.client[kind].take(&response));
            }
            Step::Reconnect => {
                self.server = WorldSession::new();
                self.up.clear();
                self.down.clear();
                for (type_url, held) in TYPES.iter().zip(&mut self.client) {
                    held.nonce.clear();
                    held.asked = false;
                    self.up.extend(held.request(type_url, None));
                }
            }
        }
    }

    /// As the control plane does: what a request asks for is answered at once.
    fn hear(&mut self) {
        let Some(request) = self.up.pop_front() else { return };
        let taken = self.server.request(&request).unwrap();
        if taken.subscribed {
            let kind = TYPES.iter().position(|it| *it == taken.type_url).unwrap();
            let sent = self.server.response(TYPES[kind], &self.wanted[kind]);
            self.down.push_back(sent.expect("what is asked for is answered").into());
        }
    }

    fn settle(&mut self) {
        self.take(Step::Push);
        while !self.up.is_empty() || !self.down.is_empty() {
            self.take(Step::ToServer);
            self.take(Step::ToClient);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_client_ends_with_what_it_should_have(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
        for ((type_url, wanted), held) in TYPES.iter().zip(&world.wanted).zip(&world.client) {
            for (name, resource) in wanted {
                let (number, content) = (resource.body[0], resource.body[1]);
                let has = held.resources.get(&number);
                if *type_url != LISTENER && !held.wants.contains(&number) {
                    prop_assert_eq!(has, None);
                } else if content == BAD {
                    prop_assert!(has.is_none_or(|content| *content != BAD));
                } else {
                    prop_assert_eq!(has, Some(&content), "{}", name);
                }
            }
            let there = |name: &u8| wanted.contains_key(format!("r{name}").as_str());
            let gone = held.resources.keys().find(|name| !there(name));
            prop_assert!(*type_url == ENDPOINTS || gone.is_none(), "{:?} should be gone", gone);
            prop_assert_eq!(world.server.subscriptions().unanswered(type_url), 0);
            let quiet = world.server.response(type_url, wanted).map(|it| it.changed);
            prop_assert_eq!(quiet, None, "nothing is left to say");
        }
    }
}
