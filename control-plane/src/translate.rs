//! Translation: the mesh as a proxy sees it becomes Envoy resources.
//!
//! Pure functions: [`input`] goes in, encoded resources come out, each with a version that is the
//! hash of its bytes, so that equal content has equal versions in every process. Traffic from the
//! application ([`outbound`]) depends on namespace and settings and is shared by many proxies;
//! traffic to it ([`inbound`]) is the workload's own, and so is what a gateway opens ([`edge`]).
//! gRPC libraries without a proxy have a dialect of their own (`grpc`).

mod access_log;
mod aliases;
mod authorization;
mod canonical;
mod cluster_limits;
mod cluster_tls;
mod clusters;
mod endpoints;
mod filters;
mod gateway;
mod gateway_listeners;
mod gateway_routes;
mod gateway_tls;
mod grpc;
mod grpc_clusters;
mod grpc_listeners;
mod grpc_routes;
mod grpc_servers;
mod inbound;
pub mod input;
mod listener;
mod names;
mod outbound;
mod pack;
mod rbac;
mod route_action;
mod route_match;
mod route_policy;
mod routes;
mod rules;
mod tls;
mod traffic_policy;
mod update;
pub mod view;

#[cfg(test)]
mod tests;

pub use access_log::AccessLogSettings;
pub use authorization::findings as authorization_findings;
pub use update::outbound_after;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_xds::server::{Resource, ResourceMap};
use lateen_xds::type_url;
use prost::Message;
use xxhash_rust::xxh64::xxh64;

use canonical::{CLUSTER, ENDPOINTS, LISTENER, NAME_TABLE, PLAIN, ROUTES, Shape, canonical};
use clusters::Families;
use input::{Edge, Inbound, MeshSettings, Outbound};
use lateen_api::Finding;
use lateen_api::networking::Gateway;
use names::BLACK_HOLE;
use rules::Rules;
use view::{ProxyView, Role};

/// Name of the one name table.
const NAME_TABLE_RESOURCE: &str = "nametable";

/// What a proxy should have, by type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// Clusters.
    pub clusters: Arc<ResourceMap>,
    /// Endpoints, by cluster.
    pub endpoints: Arc<ResourceMap>,
    /// Listeners.
    pub listeners: Arc<ResourceMap>,
    /// Route tables.
    pub routes: Arc<ResourceMap>,
    /// The name table.
    pub names: Arc<ResourceMap>,
    /// Certificates and authorities of gateways.
    pub secrets: Arc<ResourceMap>,
    /// How the endpoints came from those before, where little has changed.
    pub since: Option<Since>,
}

/// The difference of two maps of the same names.
#[derive(Debug, Clone, PartialEq)]
pub struct Since {
    /// The map before.
    pub before: Arc<ResourceMap>,
    /// Names of what differs.
    pub changed: Arc<[Arc<str>]>,
}

impl Resources {
    /// Those of one type; `None` for types that are not served.
    #[must_use]
    pub fn of(&self, type_url: &str) -> Option<&Arc<ResourceMap>> {
        match type_url {
            type_url::CLUSTER => Some(&self.clusters),
            type_url::ENDPOINTS => Some(&self.endpoints),
            type_url::LISTENER => Some(&self.listeners),
            type_url::ROUTES => Some(&self.routes),
            type_url::NAME_TABLE => Some(&self.names),
            type_url::SECRET => Some(&self.secrets),
            _ => None,
        }
    }

    /// Both together; where both have a name, the other's.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self {
            clusters: joined(&self.clusters, &other.clusters),
            endpoints: joined(&self.endpoints, &other.endpoints),
            listeners: joined(&self.listeners, &other.listeners),
            routes: joined(&self.routes, &other.routes),
            names: joined(&self.names, &other.names),
            secrets: joined(&self.secrets, &other.secrets),
            since: self.since.clone(),
        }
    }
}

/// Both maps together; where both have a name, the other's.
pub(crate) fn joined(one: &Arc<ResourceMap>, other: &Arc<ResourceMap>) -> Arc<ResourceMap> {
    if other.is_empty() {
        return Arc::clone(one);
    }
    if one.is_empty() {
        return Arc::clone(other);
    }
    let mut all = ResourceMap::clone(one);
    all.extend(other.iter().map(|(name, resource)| (Arc::clone(name), resource.clone())));
    Arc::new(all)
}

/// The traits of a proxy on which resources depend besides what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traits {
    istio_filters: bool,
    families: Families,
    gateway: bool,
    grpc: bool,
}

impl Traits {
    /// The traits of a proxy.
    #[must_use]
    pub fn of(view: &ProxyView) -> Self {
        let families = Families {
            v4: view.addresses.iter().any(std::net::IpAddr::is_ipv4),
            v6: view.addresses.iter().any(std::net::IpAddr::is_ipv6),
        };
        let gateway = view.role == Role::Router && !view.grpc;
        Self { istio_filters: view.istio_filters, families, gateway, grpc: view.grpc }
    }

    /// Whether the proxy is a gateway.
    #[must_use]
    pub fn gateway(&self) -> bool {
        self.gateway
    }

    /// Whether connections of an application are led to the proxy, with their original destinations.
    #[must_use]
    pub fn captures(&self) -> bool {
        !self.gateway && !self.grpc
    }
}

/// Resources for traffic from the application.
#[must_use]
pub fn outbound(outbound: &Outbound, mesh: &MeshSettings, traits: Traits) -> Resources {
    let Traits { istio_filters, families, gateway, grpc } = traits;
    if grpc {
        return grpc::outbound(outbound, mesh, families);
    }
    if gateway {
        return reachable_from_gateways(outbound, mesh, families);
    }
    let fixed = clusters::fixed(mesh, families).into_iter();
    let made = clusters::origins(outbound).map(|it| clusters::outbound(it, mesh, families));
    let known = clusters::origins(outbound).filter_map(|it| assignment(it, families));
    let listeners = outbound::listeners(outbound, mesh, istio_filters, families);
    let table = [(NAME_TABLE_RESOURCE.to_owned(), names::name_table(outbound))];
    Resources {
        clusters: encoded(fixed.chain(made).map(|it| (it.name.clone(), it)), &CLUSTER),
        endpoints: encoded(known.map(|it| (it.cluster_name.clone(), it)), &ENDPOINTS),
        listeners: encoded(listeners.into_iter().map(|it| (it.name.clone(), it)), &LISTENER),
        routes: encoded(
            routes::tables(outbound, mesh).into_iter().map(|it| (it.name.clone(), it)),
            &ROUTES,
        ),
        names: encoded(table, &NAME_TABLE),
        ..Resources::default()
    }
}

/// The endpoints of a cluster-to-be, where they are discovered.
fn assignment(origin: clusters::Origin<'_>, families: Families) -> Option<ClusterLoadAssignment> {
    if origin.resolution() != input::Resolution::Endpoints {
        return None;
    }
    Some(endpoints::of(origin, families))
}

/// Resources for traffic to the application.
#[must_use]
pub fn inbound(inbound: &Inbound, mesh: &MeshSettings, traits: Traits) -> Resources {
    let Traits { istio_filters, families, grpc, .. } = traits;
    if grpc {
        return grpc::inbound(inbound, mesh);
    }
    let made = inbound.ports.iter().map(|port| clusters::inbound(port, mesh, families));
    let listener = inbound::listener(inbound, mesh, istio_filters, families);
    Resources {
        clusters: encoded(made.map(|it| (it.name.clone(), it)), &CLUSTER),
        listeners: encoded([(listener.name.clone(), listener)], &LISTENER),
        ..Resources::default()
    }
}

/// What gateways can reach: clusters and endpoints; ways to them come with [`edge`].
fn reachable_from_gateways(
    outbound: &Outbound,
    mesh: &MeshSettings,
    families: Families,
) -> Resources {
    let nowhere = clusters::fixed(mesh, families).into_iter().filter(|it| it.name == BLACK_HOLE);
    let made = clusters::origins(outbound).map(|it| clusters::outbound(it, mesh, families));
    let known = clusters::origins(outbound).filter_map(|it| assignment(it, families));
    Resources {
        clusters: encoded(nowhere.chain(made).map(|it| (it.name.clone(), it)), &CLUSTER),
        endpoints: encoded(known.map(|it| (it.cluster_name.clone(), it)), &ENDPOINTS),
        ..Resources::default()
    }
}

/// Resources for traffic that comes to a gateway; `outbound` is what it can reach.
#[must_use]
pub fn edge(edge: &Edge, outbound: &Outbound, mesh: &MeshSettings, traits: Traits) -> Resources {
    let Traits { istio_filters, families, .. } = traits;
    let rules = Rules::new(outbound, &mesh.cluster_domain);
    let plan = gateway::plan(edge);
    let build = gateway_listeners::Build { edge, rules: &rules, mesh, istio_filters, families };
    let listeners = build.listeners(&plan).into_iter();
    let routes = gateway_routes::tables(&plan, edge, &rules, mesh).into_iter();
    let secrets = gateway_tls::secrets(edge).into_iter();
    Resources {
        listeners: encoded(listeners.map(|it| (it.name.clone(), it)), &LISTENER),
        routes: encoded(routes.map(|it| (it.name.clone(), it)), &ROUTES),
        secrets: encoded(secrets.map(|it| (it.name.clone(), it)), &PLAIN),
        ..Resources::default()
    }
}

/// Servers of gateways that are left out where all of them meet on one workload.
#[must_use]
pub fn gateway_conflicts(edge: &Edge) -> Vec<Finding> {
    gateway::plan(edge).conflicts
}

/// Names of the Secrets that gateways refer to.
#[must_use]
pub fn gateway_secrets<'a>(gateways: impl IntoIterator<Item = &'a Gateway>) -> BTreeSet<String> {
    gateway_tls::referenced(gateways)
}

/// Encodes resources; of two with one name, the first.
fn encoded<M: Message>(
    resources: impl IntoIterator<Item = (String, M)>,
    shape: &Shape,
) -> Arc<ResourceMap> {
    let mut map = ResourceMap::new();
    for (name, message) in resources {
        map.entry(Arc::from(name)).or_insert_with(|| encode(&message, shape));
    }
    Arc::new(map)
}

fn encode<M: Message>(message: &M, shape: &Shape) -> Resource {
    let body = Bytes::from(canonical(&message.encode_to_vec(), shape));
    let version = format!("{:016x}", xxh64(&body, 0));
    Resource { version: Arc::from(version), body }
}
