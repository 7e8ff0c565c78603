//! The same resources with the endpoints of a few services changed, without making the rest again.
//!
//! Endpoints say nothing to listeners, routes and names, unless the service has no address of its
//! own; clusters of the service name who may answer. The result equals a translation from scratch;
//! where that is not sure, there is none. Knows no generations.

use std::sync::Arc;

use lateen_xds::server::ResourceMap;

use super::canonical::{CLUSTER, ENDPOINTS};
use super::clusters::{self, Origin};
use super::input::{MeshSettings, Outbound, Resolution, Service};
use super::{Resources, Since, Traits, assignment, encode, grpc_clusters};

/// The resources for `now`, made from those (`had`) of `before`; `None` where more has changed than
/// endpoints.
#[must_use]
pub fn outbound_after(
    (before, had): (&Outbound, &Resources),
    now: &Outbound,
    mesh: &MeshSettings,
    traits: Traits,
) -> Option<Resources> {
    let changed = changed_services(before, now)?;
    let mut clusters = Changing::new(&had.clusters);
    let mut endpoints = Changing::new(&had.endpoints);
    for origin in clusters::origins(now) {
        if !changed.iter().any(|it| std::ptr::eq(*it, origin.service)) {
            continue;
        }
        let name = origin.cluster_name();
        let (cluster, assigned) = if traits.grpc {
            let assigned = grpc_clusters::assignment(origin, traits.families);
            (grpc_clusters::cluster(origin), assigned)
        } else {
            let cluster = clusters::outbound(origin, mesh, traits.families);
            (cluster, assignment(origin, traits.families))
        };
        clusters.set(&name, encode(&cluster, &CLUSTER));
        if let Some(assigned) = assigned {
            endpoints.set(&name, encode(&assigned, &ENDPOINTS));
        }
    }
    let Changing { map, changed, .. } = endpoints;
    let since = Since { before: Arc::clone(&had.endpoints), changed: changed.into() };
    Some(Resources {
        clusters: clusters.map,
        endpoints: map,
        listeners: Arc::clone(&had.listeners),
        routes: Arc::clone(&had.routes),
        names: Arc::clone(&had.names),
        secrets: Arc::clone(&had.secrets),
        since: Some(since),
    })
}

/// The services whose endpoints differ; `None` when anything else does.
fn changed_services<'a>(before: &Outbound, now: &'a Outbound) -> Option<Vec<&'a Service>> {
    let same = before.namespace == now.namespace
        && before.labels == now.labels
        && before.services.len() == now.services.len()
        && before.virtual_services.len() == now.virtual_services.len()
        && before.destination_rules.len() == now.destination_rules.len();
    let mut rules = before.virtual_services.iter().zip(&now.virtual_services);
    let mut policies = before.destination_rules.iter().zip(&now.destination_rules);
    if !same
        || !rules.all(|(a, b)| Arc::ptr_eq(a, b))
        || !policies.all(|((a, x), (b, y))| a == b && (Arc::ptr_eq(x, y) || x == y))
    {
        return None;
    }
    let pairs = before.services.iter().zip(&now.services);
    let mut changed = Vec::new();
    for (old, new) in pairs.filter(|(old, new)| !Arc::ptr_eq(old, new)) {
        if !differs_in_endpoints(old, new) || !discovers(new, now) {
            return None;
        }
        changed.push(&**new);
    }
    Some(changed)
}

fn differs_in_endpoints(old: &Service, new: &Service) -> bool {
    let mut ports = old.ports.iter().zip(&new.ports);
    old.host == new.host
        && old.name == new.name
        && old.namespace == new.namespace
        && old.kubernetes == new.kubernetes
        && old.external == new.external
        && old.addresses == new.addresses
        && old.resolution == new.resolution
        && old.subject_alt_names == new.subject_alt_names
        && old.ports.len() == new.ports.len()
        && ports.all(|(a, b)| a.number == b.number && a.name == b.name && a.protocol == b.protocol)
}

/// Whether all clusters of a service have discovered endpoints.
fn discovers(service: &Service, seen: &Outbound) -> bool {
    let rule = seen.destination_rules.get(&service.host).map(|rule| &**rule);
    let found = |port, subset| {
        let origin = Origin { service, port, subset, rule };
        origin.resolution() == Resolution::Endpoints
    };
    let subsets = rule.map(|rule| rule.spec.subsets.as_slice()).unwrap_or_default();
    service.ports.iter().all(|port| {
        found(port, "") && subsets.iter().all(|subset| found(port, subset.name.as_str()))
    })
}

/// A map that is copied when something in it becomes different.
struct Changing {
    map: Arc<ResourceMap>,
    changed: Vec<Arc<str>>,
}

impl Changing {
    fn new(map: &Arc<ResourceMap>) -> Self {
        Self { map: Arc::clone(map), changed: Vec::new() }
    }

    fn set(&mut self, name: &str, resource: lateen_xds::server::Resource) {
        let Some((key, old)) = self.map.get_key_value(name) else { return };
        if *old == resource {
            return;
        }
        let key = Arc::clone(key);
        self.changed.push(Arc::clone(&key));
        Arc::make_mut(&mut self.map).insert(key, resource);
    }
}
