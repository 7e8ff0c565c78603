//! The dialect of gRPC libraries that configure themselves, without a proxy.
//!
//! They ask for a listener by the name of the target (`xds:///cart.shop.svc.cluster.local:80`), for
//! the route table it names, the clusters that names, and their endpoints; as servers, for a
//! listener by the address they listen on. What they do not know they ignore at best and refuse at
//! worst, so they are given nothing else. Source of names: Istio pilot/pkg/networking/grpcgen.

use std::sync::Arc;

use lateen_api::port::Protocol;

use super::canonical::{CLUSTER, ENDPOINTS, LISTENER, ROUTES};
use super::clusters::{Families, Origin, origins};
use super::input::{Inbound, MeshSettings, Outbound, Resolution, Service, ServicePort};
use super::{Resources, encoded, grpc_clusters, grpc_listeners, grpc_routes, grpc_servers};

/// Resources for calls of the application.
pub(crate) fn outbound(outbound: &Outbound, mesh: &MeshSettings, families: Families) -> Resources {
    let known = || {
        let reachable = origins(outbound).filter(|it: &Origin<'_>| is_reachable(it.service));
        reachable.filter(|it| grpc_clusters::is_possible(*it))
    };
    let clusters = known().map(grpc_clusters::cluster);
    let endpoints = known().filter_map(|it| grpc_clusters::assignment(it, families));
    let listeners = grpc_listeners::listeners(outbound).into_iter();
    let routes = grpc_routes::tables(outbound, mesh).into_iter();
    Resources {
        clusters: encoded(clusters.map(|it| (it.name.clone(), it)), &CLUSTER),
        endpoints: encoded(endpoints.map(|it| (it.cluster_name.clone(), it)), &ENDPOINTS),
        listeners: encoded(listeners.map(|it| (it.name.clone(), it)), &LISTENER),
        routes: encoded(routes.map(|it| (it.name.clone(), it)), &ROUTES),
        ..Resources::default()
    }
}

/// Resources for calls to the application.
pub(crate) fn inbound(inbound: &Inbound, mesh: &MeshSettings) -> Resources {
    let listeners = grpc_servers::listeners(inbound, mesh).into_iter();
    Resources {
        listeners: encoded(listeners.map(|it| (it.name.clone(), it)), &LISTENER),
        ..Resources::default()
    }
}

/// The ports of services that can be called, for a library has no address but those it is given.
pub(crate) fn ports(outbound: &Outbound) -> impl Iterator<Item = (&Service, &ServicePort)> {
    let services = outbound.services.iter().map(Arc::as_ref).filter(|it| is_reachable(it));
    services.flat_map(|service| {
        let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        ports.map(move |port| (service, port))
    })
}

fn is_reachable(service: &Service) -> bool {
    service.resolution != Resolution::Passthrough
}
