//! What was received, what is in force, what is still awaited. Pure.
//!
//! Make before break: a new cluster is in force once its endpoints were answered, a new listener
//! once its routes and secrets were, and changed routes once the new clusters they name are; until then the
//! version before it stays. A removed cluster stays in force
//! while routes in force still name it, so whatever order changes come in, no request is lost
//! between them. What is refused leaves the last good version in place. Equal resources keep their identity, so nothing is rebuilt for them.

use crate::config::from_xds::{self, Resource};
use crate::config::{
    Cluster, DISCOVERED, Discovery, EndpointSet, Listener, Name, NameTable, RouteConfig,
    RouteSource, Secret, Snapshot, Terminal,
};
use crate::telemetry::access_log;
use lateen_xds::client::{Received, Rejection, Update};
use lateen_xds::type_url;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A resource that was refused, until a good version comes or it is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Type URL.
    pub type_url: String,
    /// Name.
    pub name: Name,
    /// Version that was refused.
    pub version: String,
    /// Why.
    pub reason: String,
}

/// What people are shown besides the snapshot.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Version of each resource received and taken, by type and name.
    pub versions: BTreeMap<(String, Name), String>,
    /// Refused resources.
    pub refused: Vec<Refused>,
    /// Clusters and listeners that wait for endpoints or routes.
    pub warming: Vec<Name>,
}

/// Resources of a type that depend on others.
#[derive(Debug)]
struct Warm<T> {
    wanted: BTreeMap<Name, Arc<T>>,
    active: HashMap<Name, Arc<T>>,
}

impl<T> Default for Warm<T> {
    fn default() -> Self {
        Self { wanted: BTreeMap::new(), active: HashMap::new() }
    }
}

impl<T: PartialEq> Warm<T> {
    fn take(&mut self, name: &Name, new: Arc<T>) {
        if self.wanted.get(name).is_none_or(|known| *known != new) {
            self.wanted.insert(Arc::clone(name), new);
        }
    }

    /// Puts in force what is ready.
    fn promote(&mut self, ready: impl Fn(&T) -> bool) {
        let Self { wanted, active } = self;
        for (name, new) in wanted {
            let same = active.get(name).is_some_and(|known| Arc::ptr_eq(known, new));
            if !same && ready(new) {
                active.insert(Arc::clone(name), Arc::clone(new));
            }
        }
    }

    /// Those that are wanted and have no version in force.
    fn cold(&self) -> BTreeSet<Name> {
        self.wanted.keys().filter(|name| !self.active.contains_key(*name)).cloned().collect()
    }

    /// Something in force is wanted no more.
    fn has_leftovers(&self) -> bool {
        self.active.keys().any(|name| !self.wanted.contains_key(name))
    }

    /// What is no longer wanted is in force no more, unless `kept`.
    fn forget(&mut self, kept: impl Fn(&Name) -> bool) {
        let Self { wanted, active } = self;
        active.retain(|name, _| wanted.contains_key(name) || kept(name));
    }

    /// Those that wait.
    fn warming(&self) -> impl Iterator<Item = &Name> {
        self.wanted.iter().filter_map(|(name, new)| {
            let in_force = self.active.get(name).is_some_and(|known| Arc::ptr_eq(known, new));
            (!in_force).then_some(name)
        })
    }

    /// All that are wanted or still in force.
    fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.wanted.values().chain(self.active.values())
    }
}

/// Everything received.
#[derive(Debug, Default)]
pub struct Store {
    clusters: Warm<Cluster>,
    listeners: Warm<Listener>,
    /// Answers by resource name; `None`: there is no such resource.
    endpoints: HashMap<Name, Option<Arc<EndpointSet>>>,
    routes: HashMap<Name, Option<Arc<RouteConfig>>>,
    secrets: HashMap<Name, Option<Arc<Secret>>>,
    routes_in_force: HashMap<Name, Arc<RouteConfig>>,
    names: Arc<NameTable>,
    versions: BTreeMap<(String, Name), String>,
    refused: BTreeMap<(String, Name), Refused>,
    answered: BTreeSet<String>,
    epoch: u64,
}

impl Store {
    /// Takes an update; gives back what cannot be used. What can be used of it is in force (or
    /// warming) afterwards.
    pub fn apply(&mut self, update: &Update) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        for resource in &update.resources {
            let key = (update.type_url.clone(), Arc::clone(&resource.name));
            match self.take(&update.type_url, resource) {
                Ok(()) => {
                    self.refused.remove(&key);
                    self.versions.insert(key, resource.version.clone());
                }
                Err(reason) => {
                    let name = Arc::clone(&resource.name);
                    let refused = Refused {
                        type_url: update.type_url.clone(),
                        name: Arc::clone(&name),
                        version: resource.version.clone(),
                        reason: reason.clone(),
                    };
                    self.refused.insert(key, refused);
                    rejections.push(Rejection { name, reason });
                }
            }
        }
        for name in &update.removed {
            self.remove(&update.type_url, name);
            let key = (update.type_url.clone(), Arc::clone(name));
            self.versions.remove(&key);
            self.refused.remove(&key);
        }
        self.answered.insert(update.type_url.clone());
        self.settle();
        rejections
    }

    fn take(&mut self, type_url: &str, received: &Received) -> Result<(), String> {
        if received.body.type_url != type_url {
            return Err(format!("holds a {}", received.body.type_url));
        }
        let resource =
            from_xds::decode(type_url, &received.body.value).map_err(|e| e.to_string())?;
        let same = |name: &Name| {
            if *name == received.name {
                return Ok(());
            }
            Err(format!("calls itself `{name}`"))
        };
        match resource {
            Resource::Cluster(cluster) => {
                same(&cluster.name)?;
                self.clusters.take(&received.name, cluster);
            }
            Resource::Listener(listener) => {
                same(&listener.name)?;
                access_log::check_listener(&listener).map_err(|e| e.to_string())?;
                self.listeners.take(&received.name, listener);
            }
            Resource::Endpoints(name, set) => {
                same(&name)?;
                keep_equal(&mut self.endpoints, name, set);
            }
            Resource::Routes(routes) => {
                same(&routes.name)?;
                keep_equal(&mut self.routes, Arc::clone(&received.name), routes);
            }
            Resource::Secret(name, secret) => {
                same(&name)?;
                keep_equal(&mut self.secrets, name, secret);
            }
            Resource::Names(names) => self.names = names,
        }
        Ok(())
    }

    fn remove(&mut self, type_url: &str, name: &Name) {
        match type_url {
            type_url::CLUSTER => drop(self.clusters.wanted.remove(name)),
            type_url::LISTENER => drop(self.listeners.wanted.remove(name)),
            type_url::ENDPOINTS => drop(self.endpoints.insert(Arc::clone(name), None)),
            // Listeners that need routes keep the last ones; without listeners they are forgotten.
            type_url::ROUTES => drop(self.routes.entry(Arc::clone(name)).or_default()),
            type_url::SECRET => drop(self.secrets.insert(Arc::clone(name), None)),
            type_url::NAME_TABLE => self.names = Arc::default(),
            _ => {}
        }
    }

    /// Puts in force what is ready, and forgets what nobody needs.
    fn settle(&mut self) {
        let (endpoints, routes, secrets) = (&self.endpoints, &self.routes, &self.secrets);
        self.clusters
            .promote(|cluster| eds(cluster).is_none_or(|name| endpoints.contains_key(name)));
        let cold = self.clusters.cold();
        promote_routes(&mut self.routes_in_force, routes, &cold);
        // A secret that is not there takes its chains alone away.
        self.listeners.promote(|listener| {
            rds(listener).all(|name| routes.contains_key(name))
                && sds(listener).all(|name| secrets.contains_key(name))
        });
        self.listeners.forget(|_| false);
        if self.clusters.has_leftovers() {
            let named = named_clusters(&self.listeners, &self.routes_in_force);
            self.clusters.forget(|name| named.contains(name));
        }
        let needed = self.needed_endpoints();
        self.endpoints.retain(|name, _| needed.contains(name));
        let needed_routes = self.needed_routes();
        let needed_secrets = self.needed_secrets();
        self.secrets.retain(|name, _| needed_secrets.contains(name));
        self.routes.retain(|name, _| needed_routes.contains(name));
        self.routes_in_force.retain(|name, _| needed_routes.contains(name));
        self.versions.retain(|(kind, name), _| match kind.as_str() {
            type_url::ENDPOINTS => needed.contains(name),
            type_url::ROUTES => needed_routes.contains(name),
            type_url::SECRET => needed_secrets.contains(name),
            _ => true,
        });
        self.refused.retain(|(kind, name), _| match kind.as_str() {
            type_url::ENDPOINTS => needed.contains(name),
            type_url::ROUTES => needed_routes.contains(name),
            type_url::SECRET => needed_secrets.contains(name),
            _ => true,
        });
    }

    /// Names of the endpoints that clusters need.
    #[must_use]
    pub fn needed_endpoints(&self) -> BTreeSet<Name> {
        self.clusters.all().filter_map(|cluster| eds(cluster)).cloned().collect()
    }

    /// Names of the routes that listeners need.
    #[must_use]
    pub fn needed_routes(&self) -> BTreeSet<Name> {
        self.listeners.all().flat_map(|listener| rds(listener)).cloned().collect()
    }

    /// Names of the secrets that listeners need.
    #[must_use]
    pub fn needed_secrets(&self) -> BTreeSet<Name> {
        self.listeners.all().flat_map(|listener| sds(listener)).cloned().collect()
    }

    /// Clusters and listeners were received, and nothing of them waits for anything.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        [type_url::CLUSTER, type_url::LISTENER].iter().all(|kind| self.answered.contains(*kind))
            && self.clusters.warming().next().is_none()
            && self.listeners.warming().next().is_none()
    }

    /// What is in force now, under a new epoch.
    pub fn snapshot(&mut self) -> Snapshot {
        self.epoch += 1;
        let endpoints = self.clusters.active.values().filter_map(|cluster| {
            let set = self.endpoints.get(eds(cluster)?)?.as_ref()?;
            Some((Arc::clone(&cluster.name), Arc::clone(set)))
        });
        Snapshot {
            epoch: self.epoch,
            endpoints: endpoints.collect(),
            routes: self.routes_in_force.clone(),
            listeners: self.listeners.active.clone(),
            clusters: self.clusters.active.clone(),
            secrets: self.secrets_in_force(),
            names: Arc::clone(&self.names),
        }
    }

    fn secrets_in_force(&self) -> HashMap<Name, Arc<Secret>> {
        let known = self.secrets.iter();
        known.filter_map(|(name, it)| Some((Arc::clone(name), Arc::clone(it.as_ref()?)))).collect()
    }

    /// What people are shown besides the snapshot.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let warming = self.clusters.warming().chain(self.listeners.warming());
        Summary {
            versions: self.versions.clone(),
            refused: self.refused.values().cloned().collect(),
            warming: warming.cloned().collect(),
        }
    }
}

fn keep_equal<T: PartialEq>(all: &mut HashMap<Name, Option<Arc<T>>>, name: Name, new: Arc<T>) {
    let known = all.entry(name).or_default();
    if known.as_ref().is_none_or(|known| *known != new) {
        *known = Some(new);
    }
}

/// The name under which a cluster's endpoints are discovered.
fn eds(cluster: &Cluster) -> Option<&Name> {
    match &cluster.discovery {
        Discovery::Eds(name) => Some(name),
        Discovery::Static(_)
        | Discovery::StrictDns(_)
        | Discovery::LogicalDns(_)
        | Discovery::OriginalDst { .. } => None,
    }
}

/// Puts routes in force; a change that names a cluster which is still cold waits for it.
fn promote_routes(
    in_force: &mut HashMap<Name, Arc<RouteConfig>>,
    answered: &HashMap<Name, Option<Arc<RouteConfig>>>,
    cold: &BTreeSet<Name>,
) {
    for (name, new) in answered.iter().filter_map(|(name, new)| Some((name, new.as_ref()?))) {
        let waits = !cold.is_empty()
            && in_force.contains_key(name)
            && new.cluster_names().any(|cluster| cold.contains(cluster));
        if !waits {
            in_force.insert(Arc::clone(name), Arc::clone(new));
        }
    }
}

/// The clusters that listeners and routes in force name.
fn named_clusters(
    listeners: &Warm<Listener>,
    routes: &HashMap<Name, Arc<RouteConfig>>,
) -> BTreeSet<Name> {
    let mut named = BTreeSet::new();
    for listener in listeners.active.values() {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for chain in chains {
            match &chain.terminal {
                Terminal::Tcp(proxy) => named.extend(proxy.clusters.iter().map(|(name, _)| name)),
                Terminal::Http(manager) => {
                    if let RouteSource::Inline(config) = &manager.routes {
                        named.extend(config.cluster_names());
                    }
                }
            }
        }
    }
    named.extend(routes.values().flat_map(|config| config.cluster_names()));
    named.into_iter().cloned().collect()
}

/// The names of the secrets of a listener that are discovered.
fn sds(listener: &Listener) -> impl Iterator<Item = &Name> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let contexts = chains.filter_map(|chain| chain.tls.as_ref());
    let names = contexts.flat_map(|tls| tls.certificates.iter().chain(&tls.validation));
    names.filter(|name| name.starts_with(DISCOVERED))
}

/// The names under which a listener's routes are discovered.
fn rds(listener: &Listener) -> impl Iterator<Item = &Name> {
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.filter_map(|chain| match &chain.terminal {
        Terminal::Http(manager) => match &manager.routes {
            RouteSource::Rds(name) => Some(name),
            RouteSource::Inline(_) => None,
        },
        Terminal::Tcp(_) => None,
    })
}
