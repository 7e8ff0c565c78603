//! Services that Kubernetes does not know: service entries, with the workload entries and pods they
//! select.
//!
//! Source: Istio's service entry registry.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lateen_api::core::TargetPort;
use lateen_api::meta::{Labels, ObjectRef, selects};
use lateen_api::networking::{self, EntryPort, Location, ServiceEntry, WorkloadEntry};
use lateen_api::object::Resource;
use lateen_api::port::{PortHint, Protocol, select};

use super::workloads::{described, identity, takes_mutual_tls};
use super::{Context, Registered, Visibility, Workloads};
use crate::source::Objects;
use crate::translate::input::{Endpoint, Resolution, Service, ServicePort};

/// The services of all service entries; one for each host.
pub(super) fn services(
    objects: &Objects,
    context: Context<'_>,
    workloads: &Workloads<'_>,
) -> Vec<Registered> {
    let read = Read { objects, context, workloads };
    objects.service_entries.iter().flat_map(|entry| read.registered(entry)).collect()
}

struct Read<'a> {
    objects: &'a Objects,
    context: Context<'a>,
    workloads: &'a Workloads<'a>,
}

impl Read<'_> {
    fn registered(&self, entry: &Resource<ServiceEntry>) -> Vec<Registered> {
        let spec = &entry.spec;
        let default = &self.context.mesh.default_service_export_to;
        let (time, name, namespace) = entry.age();
        let make = |host: &String| Registered {
            service: Arc::new(self.service(host, entry)),
            object: ObjectRef::new("ServiceEntry", entry.namespace(), entry.name()),
            origin: entry.origin.clone(),
            visibility: Visibility::of(&spec.export_to, default, entry.namespace()),
            selector: spec.workload_selector.as_ref().map(|it| it.labels.clone()),
            targets: spec.ports.iter().map(|port| TargetPort::Number(target(port))).collect(),
            age: (time.to_owned(), name.to_owned(), namespace.to_owned()),
        };
        spec.hosts.iter().map(make).collect()
    }

    fn service(&self, host: &str, entry: &Resource<ServiceEntry>) -> Service {
        let spec = &entry.spec;
        let addresses = spec.addresses.iter().filter_map(|text| range(text));
        Service {
            host: host.to_ascii_lowercase(),
            name: String::new(),
            namespace: entry.namespace().to_owned(),
            kubernetes: false,
            external: spec.location == Location::External,
            addresses: addresses.collect(),
            resolution: match spec.resolution {
                networking::Resolution::Static => Resolution::Endpoints,
                networking::Resolution::Dns => Resolution::Dns,
                networking::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
                networking::Resolution::None | networking::Resolution::DynamicDns => {
                    Resolution::Passthrough
                }
            },
            ports: spec.ports.iter().map(|port| self.port(host, entry, port)).collect(),
            subject_alt_names: spec.subject_alt_names.clone(),
        }
    }

    fn port(&self, host: &str, entry: &Resource<ServiceEntry>, port: &EntryPort) -> ServicePort {
        let number = small(port.number);
        let protocol = Protocol::from_name(&port.protocol).unwrap_or_else(|| {
            select(PortHint { number, name: &port.name, ..PortHint::default() })
        });
        let endpoints = self.endpoints(host, entry, port);
        ServicePort { number, name: port.name.clone(), protocol, endpoints: endpoints.into() }
    }

    fn endpoints(
        &self,
        host: &str,
        entry: &Resource<ServiceEntry>,
        port: &EntryPort,
    ) -> Vec<Endpoint> {
        let spec = &entry.spec;
        let namespace = entry.namespace();
        if let Some(selector) = &spec.workload_selector {
            let found = self.selected(&selector.labels, namespace, port);
            let can = |it: &Endpoint| can_be_reached(&it.address, spec.resolution);
            return found.into_iter().filter(can).collect();
        }
        let by_name = matches!(
            spec.resolution,
            networking::Resolution::Dns | networking::Resolution::DnsRoundRobin
        );
        if spec.endpoints.is_empty() && by_name {
            let itself = WorkloadEntry { address: host.to_ascii_lowercase(), ..Default::default() };
            return vec![self.of_entry(&itself, ("", namespace), &Labels::new(), port)];
        }
        let listed =
            spec.endpoints.iter().filter(|it| can_be_reached(&it.address, spec.resolution));
        listed.map(|it| self.of_entry(it, ("", namespace), &it.labels, port)).collect()
    }

    /// The workload entries and pods of a namespace that carry the labels.
    fn selected(&self, labels: &Labels, namespace: &str, port: &EntryPort) -> Vec<Endpoint> {
        let entries = self
            .objects
            .workload_entries
            .iter()
            .filter(|it| it.namespace() == namespace && selects(labels, &it.spec.labels));
        let mut found: Vec<Endpoint> = entries
            .map(|it| self.of_entry(&it.spec, (it.name(), namespace), &it.spec.labels, port))
            .collect();
        let pods = self.workloads.pods().filter(|pod| {
            pod.metadata.namespace_or_empty() == namespace
                && selects(labels, &pod.metadata.labels)
                && pod.is_ready()
                && !pod.is_terminating()
        });
        found.extend(pods.filter_map(|pod| {
            let address = pod.addresses().into_iter().next()?;
            Some(self.workloads.endpoint(pod, (address, target(port)), self.context))
        }));
        found
    }

    fn of_entry(
        &self,
        entry: &WorkloadEntry,
        (name, namespace): (&str, &str),
        labels: &Labels,
        port: &EntryPort,
    ) -> Endpoint {
        let number = entry.ports.get(&port.name).map_or_else(|| target(port), |it| small(*it));
        let known = !entry.service_account.is_empty();
        let name = if name.is_empty() { entry.address.as_str() } else { name };
        Endpoint {
            address: entry.address.clone(),
            port: number,
            labels: labels.clone(),
            identity: if known {
                identity(self.context, namespace, &entry.service_account)
            } else {
                String::new()
            },
            mutual_tls: takes_mutual_tls(self.context, namespace, labels, number),
            healthy: true,
            locality: entry.locality.clone(),
            weight: entry.weight.max(1),
            workload: described(name, namespace, labels, self.context),
        }
    }
}

/// Whether proxies can be told this address. What a service finds by labels was not written for its
/// resolution: it may have a name, or be known by its network only.
fn can_be_reached(address: &str, resolution: networking::Resolution) -> bool {
    let by_name =
        matches!(resolution, networking::Resolution::Dns | networking::Resolution::DnsRoundRobin);
    let named = by_name && !address.is_empty() && !address.starts_with("unix://");
    named || address.parse::<IpAddr>().is_ok()
}

/// The port of the endpoints.
fn target(port: &EntryPort) -> u16 {
    small(if port.target_port == 0 { port.number } else { port.target_port })
}

/// A port number; validation has refused what is none.
fn small(number: u32) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
