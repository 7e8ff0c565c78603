//! Checks of `ServiceEntry` and `WorkloadEntry`: which resolution goes with which endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Remarks, fields};
use crate::host::{Host, is_label};
use crate::networking::{EntryPort, Resolution, ServiceEntry, WorkloadEntry};
use crate::port::Protocol;

/// Checks a ServiceEntry.
pub(super) fn check(spec: &ServiceEntry, remarks: &mut Remarks) {
    hosts(spec, remarks);
    ports(spec, remarks);
    for (index, address) in spec.addresses.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        fields::range(remarks, &path, address);
        let ranges = matches!(spec.resolution, Resolution::None | Resolution::Static);
        if address.contains('/') && !ranges {
            remarks.error(path, "ranges are allowed with resolution NONE and STATIC only");
        }
    }
    fields::export_to(remarks, &spec.export_to);
    fields::workload_selector(remarks, spec.workload_selector.as_ref());
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        remarks.error("spec", "workloadSelector and endpoints exclude each other");
    }
    resolution(spec, remarks);
    let names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let path = format!("spec.endpoints[{index}]");
        workload(remarks, &path, endpoint, spec.resolution);
        for name in endpoint.ports.keys().filter(|name| !names.contains(name.as_str())) {
            remarks.error(format!("{path}.ports.{name}"), "the service has no port of this name");
        }
    }
}

/// Checks a WorkloadEntry.
pub(super) fn check_workload(spec: &WorkloadEntry, remarks: &mut Remarks) {
    if spec.address.is_empty() && spec.network.is_empty() {
        remarks.error("spec.address", "an address is needed");
    }
    if spec.address.is_empty() && !spec.network.is_empty() {
        remarks.warn("spec.address", "without an address it is reached through its network only");
    }
    workload(remarks, "spec", spec, Resolution::Dns);
}

/// Checks the template of a WorkloadGroup, whose address is yet to come.
pub(super) fn check_template(template: &WorkloadEntry, remarks: &mut Remarks) {
    if template.address.is_empty() {
        ports_and_labels(remarks, "spec.template", template);
    } else {
        workload(remarks, "spec.template", template, Resolution::Dns);
    }
}

fn hosts(spec: &ServiceEntry, remarks: &mut Remarks) {
    if spec.hosts.is_empty() {
        remarks.error("spec.hosts", "at least one host is needed");
    }
    for (index, text) in spec.hosts.iter().enumerate() {
        let path = format!("spec.hosts[{index}]");
        match Host::parse(text) {
            Err(error) => remarks.error(path, error.to_string()),
            Ok(host) if host.as_str() == "*" => {
                remarks.error(path, "`*` cannot be a service: name a suffix");
            }
            Ok(_) => {}
        }
    }
}

fn ports(spec: &ServiceEntry, remarks: &mut Remarks) {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, EntryPort { number, protocol, name, target_port }) in spec.ports.iter().enumerate()
    {
        let path = format!("spec.ports[{index}]");
        fields::port(remarks, &format!("{path}.number"), *number);
        fields::optional_port(remarks, &format!("{path}.targetPort"), *target_port);
        if !numbers.insert(number) {
            remarks.error(format!("{path}.number"), format!("port {number} is there twice"));
        }
        if !is_label(name) {
            remarks.error(format!("{path}.name"), format!("`{name}` is not a port name"));
        } else if !names.insert(name) {
            remarks.error(format!("{path}.name"), format!("port `{name}` is there twice"));
        }
        if !protocol.is_empty() && Protocol::from_name(protocol).is_none() {
            let message = format!(
                "unknown value `{protocol}`, expected one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, UDP, MONGO, MYSQL, REDIS"
            );
            remarks.error(format!("{path}.protocol"), message);
        }
    }
}

fn resolution(spec: &ServiceEntry, remarks: &mut Remarks) {
    let no_endpoints = spec.endpoints.is_empty() && spec.workload_selector.is_none();
    let wildcard = spec.hosts.iter().any(|host| host.contains('*'));
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => {
            remarks.error("spec.endpoints", "resolution NONE has no endpoints");
        }
        Resolution::None => {}
        Resolution::Static => {
            if no_endpoints {
                remarks
                    .warn("spec.endpoints", "resolution STATIC without endpoints: nobody answers");
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if no_endpoints && wildcard {
                let message = "a wildcard cannot be looked up: name endpoints, or use NONE";
                remarks.error("spec.hosts", message);
            }
            if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
                remarks.error("spec.endpoints", "DNS_ROUND_ROBIN takes one endpoint at most");
            }
        }
        Resolution::DynamicDns => {
            remarks.warn("spec.resolution", "DYNAMIC_DNS is not honoured yet: treated as NONE");
            if !spec.hosts.iter().all(|host| host.starts_with("*.")) {
                remarks.error("spec.hosts", "DYNAMIC_DNS is for wildcard hosts only");
            }
            if !spec.endpoints.is_empty() || spec.workload_selector.is_some() {
                remarks.error("spec.endpoints", "DYNAMIC_DNS has no endpoints");
            }
        }
    }
    if spec.ports.is_empty() && spec.addresses.is_empty() && spec.resolution != Resolution::None {
        remarks.warn("spec.ports", "a service without ports cannot be reached");
    }
}

fn workload(remarks: &mut Remarks, path: &str, entry: &WorkloadEntry, resolution: Resolution) {
    let address_path = format!("{path}.address");
    let address = entry.address.as_str();
    if let Some(socket) = address.strip_prefix("unix://") {
        fields::socket(remarks, &address_path, socket);
        if !entry.ports.is_empty() {
            remarks.error(format!("{path}.ports"), "a Unix socket has no ports");
        }
        remarks.warn(&address_path, "Unix sockets are not honoured yet");
    } else if address.parse::<IpAddr>().is_err() {
        if resolution == Resolution::Static {
            remarks.error(&address_path, format!("`{address}` is not an address, as STATIC needs"));
        } else if !address.is_empty() || entry.network.is_empty() {
            match Host::parse(address) {
                Ok(host) if !host.is_wildcard() => {}
                Ok(_) => remarks.error(&address_path, "an endpoint cannot be a wildcard"),
                Err(error) => remarks.error(&address_path, error.to_string()),
            }
        }
    }
    ports_and_labels(remarks, path, entry);
}

fn ports_and_labels(remarks: &mut Remarks, path: &str, entry: &WorkloadEntry) {
    for (name, number) in &entry.ports {
        if !is_label(name) {
            remarks.error(format!("{path}.ports.{name}"), format!("`{name}` is not a port name"));
        }
        fields::port(remarks, &format!("{path}.ports.{name}"), *number);
    }
    fields::selector(remarks, &format!("{path}.labels"), &entry.labels);
}
