//! Checks of `VirtualService`: hosts, gateways, TLS and TCP routes.

use std::collections::BTreeSet;

use super::{Remarks, fields, http};
use crate::host::Host;
use crate::networking::{RouteDestination, TcpRoute, TlsMatch, TlsRoute, VirtualService};

/// Checks a VirtualService.
pub(super) fn check(spec: &VirtualService, remarks: &mut Remarks) {
    hosts(spec, remarks);
    fields::export_to(remarks, &spec.export_to);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        remarks.warn("spec", "none of http, tls and tcp is set: this has no effect");
    }
    for (index, gateway) in spec.gateways.iter().enumerate() {
        if gateway.is_empty() {
            remarks.error(format!("spec.gateways[{index}]"), "the name of a gateway is empty");
        }
    }
    for (index, route) in spec.http.iter().enumerate() {
        http::route(remarks, &format!("spec.http[{index}]"), route);
        let unconditional = route.matches.is_empty();
        if unconditional && index + 1 < spec.http.len() {
            let message = "this route matches everything: the routes after it are never used";
            remarks.warn(format!("spec.http[{index}]"), message);
        }
    }
    for (index, route) in spec.tls.iter().enumerate() {
        tls(remarks, &format!("spec.tls[{index}]"), route, &spec.hosts);
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        tcp(remarks, &format!("spec.tcp[{index}]"), route);
    }
}

fn hosts(spec: &VirtualService, remarks: &mut Remarks) {
    if spec.hosts.is_empty() {
        let delegate = spec.gateways.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty();
        if delegate && !spec.http.is_empty() {
            remarks.warn("spec.hosts", "a delegate (no hosts) is not honoured yet");
        } else {
            remarks.error("spec.hosts", "at least one host is needed");
        }
    }
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh");
    let mut seen = BTreeSet::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        if host == "*" && on_mesh {
            remarks.error(&path, "`*` is not allowed on the mesh gateway: name the hosts");
        }
        fields::host(remarks, &path, host);
        if !seen.insert(host.to_ascii_lowercase()) {
            remarks.error(path, format!("host `{host}` is there twice"));
        }
    }
}

fn tls(remarks: &mut Remarks, path: &str, route: &TlsRoute, hosts: &[String]) {
    if route.matches.is_empty() {
        remarks.error(format!("{path}.match"), "a TLS route needs a match with sniHosts");
    }
    for (index, wanted) in route.matches.iter().enumerate() {
        tls_match(remarks, &format!("{path}.match[{index}]"), wanted, hosts);
    }
    destinations(remarks, path, &route.route);
}

fn tls_match(remarks: &mut Remarks, path: &str, wanted: &TlsMatch, hosts: &[String]) {
    if wanted.sni_hosts.is_empty() {
        remarks.error(format!("{path}.sniHosts"), "at least one server name is needed");
    }
    for (index, name) in wanted.sni_hosts.iter().enumerate() {
        let path = format!("{path}.sniHosts[{index}]");
        match Host::parse(name) {
            Err(error) => remarks.error(path, error.to_string()),
            Ok(name) => {
                let mut known = hosts.iter().filter_map(|host| Host::parse(host).ok());
                if !known.any(|host| host.covers(&name)) {
                    let message =
                        format!("`{name}` is not one of the hosts of this VirtualService");
                    remarks.error(path, message);
                }
            }
        }
    }
    for (index, subnet) in wanted.destination_subnets.iter().enumerate() {
        fields::range(remarks, &format!("{path}.destinationSubnets[{index}]"), subnet);
    }
    fields::optional_port(remarks, &format!("{path}.port"), wanted.port);
    fields::selector(remarks, &format!("{path}.sourceLabels"), &wanted.source_labels);
}

fn tcp(remarks: &mut Remarks, path: &str, route: &TcpRoute) {
    for (index, wanted) in route.matches.iter().enumerate() {
        let path = format!("{path}.match[{index}]");
        for (index, subnet) in wanted.destination_subnets.iter().enumerate() {
            fields::range(remarks, &format!("{path}.destinationSubnets[{index}]"), subnet);
        }
        if !wanted.source_subnet.is_empty() {
            fields::range(remarks, &format!("{path}.sourceSubnet"), &wanted.source_subnet);
        }
        fields::optional_port(remarks, &format!("{path}.port"), wanted.port);
        fields::selector(remarks, &format!("{path}.sourceLabels"), &wanted.source_labels);
    }
    destinations(remarks, path, &route.route);
}

fn destinations(remarks: &mut Remarks, path: &str, route: &[RouteDestination]) {
    let path = format!("{path}.route");
    if route.is_empty() {
        remarks.error(&path, "at least one destination is needed");
    }
    for (index, target) in route.iter().enumerate() {
        let path = format!("{path}[{index}].destination");
        fields::destination(remarks, &path, &target.destination);
    }
    let weights: Vec<u32> = route.iter().map(|target| target.weight).collect();
    fields::weights(remarks, &path, &weights);
}
