//! Names of clusters, and the table of host names for the proxy's DNS server.
//!
//! The names are part of the contract with tools that read configuration dumps and metrics.

use std::net::IpAddr;

use ipnet::IpNet;
use lateen_xds::istio::{NameInfo, NameTable};

use super::input::{Outbound, Service};

/// Where traffic goes that no service takes.
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
/// Where traffic goes that nobody may take.
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
/// Where traffic to the application goes on ports that no service names.
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// Cluster of a service's port, or of a subset of it.
pub(crate) fn outbound_cluster(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Server name that clients send for such a cluster.
pub(crate) fn cluster_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// Cluster of a port of the application.
pub(crate) fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The names that a proxy's DNS server answers: services with addresses, headless ones by those of
/// their endpoints. Wildcards are no names.
pub(crate) fn name_table(outbound: &Outbound) -> NameTable {
    let known = outbound.services.iter().filter(|service| !service.host.starts_with('*'));
    let entries = known.filter_map(|service| {
        let ips = addresses(service);
        (!ips.is_empty()).then(|| (service.host.clone(), info(service, ips)))
    });
    NameTable { table: entries.collect() }
}

fn addresses(service: &Service) -> Vec<String> {
    let mut ips: Vec<IpAddr> = service.single_addresses().collect();
    if service.is_headless() {
        let endpoints = service.ports.iter().flat_map(|port| port.endpoints.iter());
        let ready = endpoints.filter(|endpoint| endpoint.healthy);
        ips.extend(ready.filter_map(|endpoint| endpoint.address.parse::<IpAddr>().ok()));
        ips.sort_unstable();
        ips.dedup();
    }
    ips.iter().map(ToString::to_string).collect()
}

fn info(service: &Service, ips: Vec<String>) -> NameInfo {
    let registry = if service.kubernetes { "Kubernetes" } else { "External" };
    let of_kubernetes =
        |text: &String| if service.kubernetes { text.clone() } else { String::new() };
    NameInfo {
        ips,
        registry: registry.to_owned(),
        shortname: of_kubernetes(&service.name),
        namespace: of_kubernetes(&service.namespace),
    }
}

/// Name of the listener of an address and port.
pub(crate) fn listener_name(address: &str, port: u16) -> String {
    format!("{address}_{port}")
}

/// Name of the listener of an address range and port.
pub(crate) fn range_name(net: &IpNet, port: u16) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        return listener_name(&net.addr().to_string(), port);
    }
    format!("{}_{}_{port}", net.addr(), net.prefix_len())
}
