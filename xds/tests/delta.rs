//! Both ends of delta discovery against each other: whatever happens in between, the client ends
//! with what it wants of what the server has.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use lateen_xds::client::{Interest, Rejection, Session as Client};
use lateen_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use lateen_xds::envoy::core::Node;
use lateen_xds::server::{Resource, ResourceMap, Session as Server, Variant};
use lateen_xds::type_url::{CLUSTER, ENDPOINTS};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Content that the client refuses.
const BAD: u8 = 0;

#[derive(Debug, Clone)]
enum Step {
    Put { by_name: bool, name: u8, content: u8 },
    Remove { by_name: bool, name: u8 },
    Want(BTreeSet<u8>),
    Push,
    ToServer,
    ToClient,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), 0..5_u8, 0..4_u8)
            .prop_map(|(by_name, name, content)| Step::Put { by_name, name, content }),
        1 => (any::<bool>(), 0..5_u8).prop_map(|(by_name, name)| Step::Remove { by_name, name }),
        2 => prop::collection::btree_set(0..5_u8, 0..5).prop_map(Step::Want),
        3 => Just(Step::Push),
        3 => Just(Step::ToServer),
        3 => Just(Step::ToClient),
        1 => Just(Step::Reconnect),
    ]
}

struct World {
    wanted: BTreeMap<&'static str, ResourceMap>,
    server: Server,
    client: Client,
    held: BTreeMap<&'static str, BTreeMap<Arc<str>, Vec<u8>>>,
    names: BTreeSet<Arc<str>>,
    up: VecDeque<DeltaDiscoveryRequest>,
    down: VecDeque<DeltaDiscoveryResponse>,
}

fn kind(by_name: bool) -> &'static str {
    if by_name { ENDPOINTS } else { CLUSTER }
}

fn text(name: u8) -> Arc<str> {
    Arc::from(format!("r{name}"))
}

impl World {
    fn new() -> Self {
        let mut client = Client::new(Node::default());
        client.set_interest(CLUSTER, Interest::Wildcard);
        client.set_interest(ENDPOINTS, Interest::Names(BTreeSet::new()));
        let both = || [(CLUSTER, Default::default()), (ENDPOINTS, Default::default())];
        let mut world = Self {
            wanted: both().into(),
            server: Server::new(),
            client,
            held: [(CLUSTER, BTreeMap::new()), (ENDPOINTS, BTreeMap::new())].into(),
            names: BTreeSet::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
        };
        world.take(Step::Reconnect);
        world
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Put { by_name, name, content } => {
                let resource = Resource {
                    version: Arc::from(format!("v{content}")),
                    body: vec![content].into(),
                };
                self.wanted.get_mut(kind(by_name)).unwrap().insert(text(name), resource);
            }
            Step::Remove { by_name, name } => {
                self.wanted.get_mut(kind(by_name)).unwrap().remove(&text(name));
            }
            Step::Want(names) => {
                self.names = names.into_iter().map(text).collect();
                self.client.set_interest(ENDPOINTS, Interest::Names(self.names.clone()));
                self.held.get_mut(ENDPOINTS).unwrap().retain(|name, _| self.names.contains(name));
            }
            Step::Push => {
                for (kind, wanted) in &self.wanted {
                    self.down.extend(self.server.response(kind, wanted));
                }
            }
            Step::ToServer => {
                while let Some(request) = self.client.next_request() {
                    self.up.push_back(request);
                }
                if let Some(request) = self.up.pop_front() {
                    self.server.request(&request).unwrap();
                }
            }
            Step::ToClient => self.deliver(),
            Step::Reconnect => {
                self.server = Server::new();
                self.up.clear();
                self.down.clear();
                self.client.connected();
            }
        }
    }

    fn deliver(&mut self) {
        let Some(response) = self.down.pop_front() else { return };
        let update = self.client.receive(response);
        let held = self.held.get_mut(update.type_url.as_str()).unwrap();
        let mut rejections = Vec::new();
        for name in &update.removed {
            held.remove(name);
        }
        for resource in &update.resources {
            if resource.body.value == [BAD] {
                let name = Arc::clone(&resource.name);
                rejections.push(Rejection { name, reason: "bad".to_owned() });
            } else {
                held.insert(Arc::clone(&resource.name), resource.body.value.clone());
            }
        }
        self.client.conclude(&update, &rejections);
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            self.take(Step::ToServer);
            self.take(Step::Push);
            self.take(Step::ToClient);
        }
        while !self.down.is_empty() {
            self.deliver();
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
        for (kind, wanted) in &world.wanted {
            for (name, resource) in wanted {
                let asked = *kind == CLUSTER || world.names.contains(name);
                let held = world.held[kind].get(name);
                if !asked {
                    prop_assert_eq!(held, None);
                } else if resource.body[0] == BAD {
                    prop_assert!(held.is_none_or(|content| content[0] != BAD));
                } else {
                    prop_assert_eq!(held.map(Vec::as_slice), Some(&resource.body[..]), "{}", name);
                }
            }
            for name in world.held[kind].keys() {
                prop_assert!(wanted.contains_key(name), "{} should be gone", name);
            }
        }
        prop_assert_eq!(world.server.subscriptions().unanswered(CLUSTER), 0);
        let quiet = world.server.response(CLUSTER, &world.wanted[CLUSTER]);
        prop_assert_eq!(quiet, None, "nothing is left to say");
    }
}
