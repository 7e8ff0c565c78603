//! A generation: one state of the mesh, and the resources of each kind of proxy made from it.
//!
//! Resources are made when the first proxy of a kind asks, once, and shared by all of that kind:
//! what concerns traffic from applications by namespace, what concerns traffic to them by workload.
//! Equal resources share their bytes. What the generation before had made is made again only as
//! far as it differs. Knows nothing of connections.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use lateen_api::Finding;
use lateen_api::meta::Labels;
use lateen_xds::server::{Resource, ResourceMap};
use parking_lot::Mutex;
use serde_json::Value;

use crate::translate::input::{Edge, Inbound, MeshSettings, Outbound};
use crate::translate::view::ProxyView;
use crate::translate::{self, Resources, Traits};

/// What of a proxy decides what it sees of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// Its namespace.
    pub namespace: String,
    /// Labels of its workload, where some rule asks for labels of callers; else none.
    pub labels: Labels,
}

/// A state of the mesh, as proxies see it.
pub trait Mesh: fmt::Debug + Send + Sync {
    /// Settings of the mesh.
    fn settings(&self) -> &MeshSettings;
    /// What decides what a proxy sees.
    fn scope(&self, view: &ProxyView) -> Scope;
    /// What proxies of a scope see.
    fn outbound(&self, scope: &Scope) -> Outbound;
    /// What leads to the workload of a proxy.
    fn inbound(&self, view: &ProxyView) -> Inbound;
    /// What a gateway carries.
    fn edge(&self, view: &ProxyView) -> Edge;
    /// Everything that is known of services, for people.
    fn registry(&self) -> Value;
    /// What there is to say about the configuration.
    fn findings(&self) -> &[Finding];
}

type Once<K, V> = Mutex<BTreeMap<K, Arc<OnceLock<Arc<V>>>>>;
type Kind = (Scope, Traits);

/// Resources for traffic from applications, and what they were made from.
#[derive(Debug)]
struct Made {
    seen: Outbound,
    resources: Arc<Resources>,
}

/// What is a workload's own.
#[derive(Debug, Clone, PartialEq)]
enum Own {
    /// What leads to an application.
    Application(Inbound),
    /// What a gateway carries.
    Gateway(Box<Edge>),
}

/// Resources of workloads that are alike, and what they were made from.
#[derive(Debug, Clone)]
struct Whole {
    input: Own,
    own: Arc<Resources>,
    outbound: Arc<Resources>,
    resources: Arc<Resources>,
}

/// What a generation had made when the next one came.
#[derive(Debug)]
struct Before {
    outbound: BTreeMap<Kind, Arc<Made>>,
    alike: BTreeMap<Kind, Vec<Whole>>,
}

/// One state of the mesh with what was made of it.
#[derive(Debug)]
pub struct Generation {
    /// Its number; later ones are larger.
    pub number: u64,
    /// When it was put in force.
    pub since: Instant,
    /// The state.
    pub mesh: Arc<dyn Mesh>,
    outbound: Once<Kind, Made>,
    alike: Mutex<BTreeMap<Kind, Vec<Whole>>>,
    whole: Once<ProxyView, Resources>,
    shared: Mutex<HashMap<Arc<str>, Resource>>,
    before: Option<Before>,
}

impl Generation {
    /// A generation of which nothing has been made yet.
    #[must_use]
    pub fn new(number: u64, mesh: Arc<dyn Mesh>, since: Instant) -> Self {
        Self {
            number,
            since,
            mesh,
            outbound: Mutex::default(),
            alike: Mutex::default(),
            whole: Mutex::default(),
            shared: Mutex::default(),
            before: None,
        }
    }

    /// The generation that follows `before`.
    #[must_use]
    pub fn after(before: &Self, mesh: Arc<dyn Mesh>, since: Instant) -> Self {
        let same = before.mesh.settings() == mesh.settings();
        let made = || {
            let outbound = before.outbound.lock();
            let done = outbound.iter().filter_map(|(kind, it)| Some((kind, it.get()?)));
            done.map(|(kind, it)| (kind.clone(), Arc::clone(it))).collect()
        };
        let before_this =
            same.then(|| Before { outbound: made(), alike: before.alike.lock().clone() });
        Self { before: before_this, ..Self::new(before.number + 1, mesh, since) }
    }

    /// The resources of a proxy, if they have been made already.
    #[must_use]
    pub fn ready(&self, view: &ProxyView) -> Option<Arc<Resources>> {
        let cell = self.whole.lock().get(view).cloned()?;
        cell.get().cloned()
    }

    /// The resources of a proxy; may take a while the first time.
    #[must_use]
    pub fn resources(&self, view: &ProxyView) -> Arc<Resources> {
        let cell = Arc::clone(self.whole.lock().entry(view.clone()).or_default());
        let made = cell.get_or_init(|| {
            let traits = Traits::of(view);
            let kind = (self.mesh.scope(view), traits);
            let outbound = self.outbound(&kind);
            let input = if traits.gateway() {
                Own::Gateway(Box::new(self.mesh.edge(view)))
            } else {
                Own::Application(self.mesh.inbound(view))
            };
            self.alike(kind, &outbound, input)
        });
        Arc::clone(made)
    }

    fn outbound(&self, kind: &Kind) -> Arc<Made> {
        let (scope, traits) = kind;
        let cell = Arc::clone(self.outbound.lock().entry(kind.clone()).or_default());
        let made = cell.get_or_init(|| {
            let seen = self.mesh.outbound(scope);
            let seen = if traits.captures() { seen } else { seen.by_endpoints() };
            let settings = self.mesh.settings();
            let before = self.before.as_ref().and_then(|it| it.outbound.get(kind));
            let updated = before.and_then(|it| {
                translate::outbound_after((&it.seen, &it.resources), &seen, settings, *traits)
            });
            let resources = updated
                .unwrap_or_else(|| self.pooled(translate::outbound(&seen, settings, *traits)));
            Arc::new(Made { seen, resources: Arc::new(resources) })
        });
        Arc::clone(made)
    }

    /// The whole of workloads that are alike: made for the first of them.
    fn alike(&self, kind: Kind, reach: &Made, input: Own) -> Arc<Resources> {
        let outbound = Arc::clone(&reach.resources);
        let known = |all: Option<&Vec<Whole>>| {
            all.and_then(|all| all.iter().find(|it| it.input == input)).cloned()
        };
        if let Some(whole) = known(self.alike.lock().get(&kind)) {
            return whole.resources;
        }
        let before = known(self.before.as_ref().and_then(|it| it.alike.get(&kind)));
        // Where destinations lead is in the routes of a gateway itself.
        let lasts = |it: &&Whole| {
            matches!(input, Own::Application(_))
                || Arc::ptr_eq(&it.outbound.clusters, &outbound.clusters)
        };
        let own = before.as_ref().filter(lasts).map_or_else(
            || {
                let settings = self.mesh.settings();
                let made = match &input {
                    Own::Application(inbound) => translate::inbound(inbound, settings, kind.1),
                    Own::Gateway(edge) => translate::edge(edge, &reach.seen, settings, kind.1),
                };
                Arc::new(self.pooled(made))
            },
            |it| Arc::clone(&it.own),
        );
        let kept = before.filter(|it| {
            Arc::ptr_eq(&it.outbound.clusters, &outbound.clusters)
                && Arc::ptr_eq(&it.outbound.listeners, &outbound.listeners)
        });
        let resources = Arc::new(match kept {
            Some(it) => Resources {
                clusters: Arc::clone(&it.resources.clusters),
                listeners: Arc::clone(&it.resources.listeners),
                routes: translate::joined(&outbound.routes, &own.routes),
                secrets: translate::joined(&outbound.secrets, &own.secrets),
                ..Resources::clone(&outbound)
            },
            None => outbound.with(&own),
        });
        let whole = Whole { input, own, outbound, resources: Arc::clone(&resources) };
        self.alike.lock().entry(kind).or_default().push(whole);
        resources
    }

    /// The same resources with bytes that equal ones share.
    fn pooled(&self, resources: Resources) -> Resources {
        let mut pool = self.shared.lock();
        let mut pooled = |map: Arc<ResourceMap>| -> Arc<ResourceMap> {
            let entries = map.iter().map(|(name, resource)| {
                let known = pool.entry(Arc::clone(&resource.version));
                let known = known.or_insert_with(|| resource.clone());
                let same = *known == *resource;
                (Arc::clone(name), if same { known.clone() } else { resource.clone() })
            });
            Arc::new(entries.collect())
        };
        Resources {
            clusters: pooled(resources.clusters),
            endpoints: pooled(resources.endpoints),
            listeners: pooled(resources.listeners),
            routes: pooled(resources.routes),
            names: pooled(resources.names),
            secrets: pooled(resources.secrets),
            since: resources.since,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Generation, Mesh, Scope};
    use crate::translate::input::{Edge, Inbound, MeshSettings, Outbound};
    use crate::translate::view::ProxyView;
    use lateen_api::Finding;
    use serde_json::Value;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    /// A mesh without services that counts how often it was asked.
    #[derive(Debug, Default)]
    pub(crate) struct Empty {
        settings: MeshSettings,
        outbound: AtomicUsize,
        inbound: AtomicUsize,
    }

    impl Mesh for Empty {
        fn settings(&self) -> &MeshSettings {
            &self.settings
        }

        fn scope(&self, view: &ProxyView) -> Scope {
            Scope { namespace: view.namespace.clone(), ..Scope::default() }
        }

        fn outbound(&self, scope: &Scope) -> Outbound {
            self.outbound.fetch_add(1, Ordering::Relaxed);
            Outbound { namespace: scope.namespace.clone(), ..Outbound::default() }
        }

        fn inbound(&self, _: &ProxyView) -> Inbound {
            self.inbound.fetch_add(1, Ordering::Relaxed);
            Inbound::default()
        }

        fn edge(&self, _: &ProxyView) -> Edge {
            Edge::default()
        }

        fn registry(&self) -> Value {
            Value::Array(Vec::new())
        }

        fn findings(&self) -> &[Finding] {
            &[]
        }
    }

    #[test]
    fn a_namespace_is_translated_once() {
        let mesh = Arc::new(Empty::default());
        let generation = Generation::new(1, Arc::clone(&mesh) as _, Instant::now());
        let view = |name: &str, namespace: &str| ProxyView {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..ProxyView::default()
        };
        assert!(generation.ready(&view("a", "shop")).is_none());
        for _ in 0..3 {
            let _made = generation.resources(&view("a", "shop"));
            let _made = generation.resources(&view("b", "shop"));
        }
        let _made = generation.resources(&view("c", "bank"));
        assert!(generation.ready(&view("a", "shop")).is_some());
        assert_eq!(mesh.outbound.load(Ordering::Relaxed), 2);
        assert_eq!(mesh.inbound.load(Ordering::Relaxed), 3);
        let listeners = &generation.resources(&view("a", "shop")).listeners;
        assert!(listeners.contains_key("virtualInbound"));
        assert!(listeners.contains_key("virtualOutbound"));
    }
}
