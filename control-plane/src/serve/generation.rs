//! A generation: one state of the mesh, and the resources of each kind of proxy made from it.
//!
//! Resources are made when the first proxy of a kind asks, once, and shared by all of that kind:
//! what concerns traffic from applications by namespace, what concerns traffic to them by workload.
//! Equal resources share their bytes. Knows nothing of connections.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use lateen_api::Finding;
use lateen_api::meta::Labels;
use lateen_xds::server::{Resource, ResourceMap};
use parking_lot::Mutex;
use serde_json::Value;

use crate::translate::input::{Inbound, MeshSettings, Outbound};
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
    /// Everything that is known of services, for people.
    fn registry(&self) -> Value;
    /// What there is to say about the configuration.
    fn findings(&self) -> &[Finding];
}

type Once<K> = Mutex<BTreeMap<K, Arc<OnceLock<Arc<Resources>>>>>;

/// One state of the mesh with what was made of it.
#[derive(Debug)]
pub struct Generation {
    /// Its number; later ones are larger.
    pub number: u64,
    /// When it was put in force.
    pub since: Instant,
    /// The state.
    pub mesh: Arc<dyn Mesh>,
    outbound: Once<(Scope, Traits)>,
    whole: Once<ProxyView>,
    shared: Mutex<HashMap<Arc<str>, Resource>>,
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
            whole: Mutex::default(),
            shared: Mutex::default(),
        }
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
            let inbound = self.mesh.inbound(view);
            let inbound = translate::inbound(&inbound, self.mesh.settings(), traits);
            Arc::new(self.outbound(view, traits).with(&self.pooled(inbound)))
        });
        Arc::clone(made)
    }

    fn outbound(&self, view: &ProxyView, traits: Traits) -> Arc<Resources> {
        let scope = self.mesh.scope(view);
        let key = (scope.clone(), traits);
        let cell = Arc::clone(self.outbound.lock().entry(key).or_default());
        let made = cell.get_or_init(|| {
            let seen = self.mesh.outbound(&scope);
            let resources = translate::outbound(&seen, self.mesh.settings(), traits);
            Arc::new(self.pooled(resources))
        });
        Arc::clone(made)
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
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Generation, Mesh, Scope};
    use crate::translate::input::{Inbound, MeshSettings, Outbound};
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
