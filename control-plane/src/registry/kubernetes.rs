//! Kubernetes Services and who answers for them.
//!
//! Endpoints come from the service's endpoint slices. One that names a pod waits for it: without the
//! pod nobody knows whether it takes mutual TLS, and the two arrive on streams of their own. A service
//! that has a selector and no slice at all takes the ready pods that the selector picks: a directory
//! of manifests has no controller that makes slices. Source: Istio's Kubernetes registry.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lateen_api::core::{self, EndpointSlice, Pod, TargetPort};
use lateen_api::host;
use lateen_api::meta::{ObjectRef, selects};
use lateen_api::names::{annotation, label};
use lateen_api::port::{PortHint, Protocol, select};

use super::workloads::more_identities;
use super::{Context, Registered, Visibility, Workloads};
use crate::source::{Objects, Sourced};
use crate::translate::input::{Endpoint, Resolution, Service, ServicePort};

type Slices<'a> = HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// All Kubernetes Services of the objects in force.
pub(super) fn services(
    objects: &Objects,
    context: Context<'_>,
    workloads: &Workloads<'_>,
) -> Vec<Registered> {
    let mut slices: Slices<'_> = HashMap::new();
    for slice in &objects.endpoint_slices {
        let meta = &slice.object.metadata;
        if let Some(service) = meta.labels.get(label::SERVICE_NAME) {
            slices.entry((meta.namespace_or_empty(), service)).or_default().push(&slice.object);
        }
    }
    let read = Read { slices, context, workloads };
    objects.services.iter().map(|service| read.registered(service)).collect()
}

struct Read<'a> {
    slices: Slices<'a>,
    context: Context<'a>,
    workloads: &'a Workloads<'a>,
}

impl Read<'_> {
    fn registered(&self, sourced: &Sourced<core::Service>) -> Registered {
        let service = &sourced.object;
        let meta = &service.metadata;
        let namespace = meta.namespace_or_empty();
        let export_to: Vec<String> = meta
            .annotations
            .get(annotation::EXPORT_TO)
            .map(|text| text.split(',').map(|entry| entry.trim().to_owned()).collect())
            .unwrap_or_default();
        let default = &self.context.mesh.default_service_export_to;
        Registered {
            object: ObjectRef::new("Service", namespace, &meta.name),
            origin: sourced.origin.clone(),
            visibility: Visibility::of(&export_to, default, namespace),
            selector: (!service.spec.selector.is_empty()).then(|| service.spec.selector.clone()),
            targets: service.spec.ports.iter().map(target).collect(),
            age: age(meta),
            service: Arc::new(self.service(service, namespace)),
        }
    }

    fn service(&self, service: &core::Service, namespace: &str) -> Service {
        let (meta, spec) = (&service.metadata, &service.spec);
        let outside = is_external_name(service);
        let addresses: Vec<IpNet> = spec
            .addresses()
            .into_iter()
            .filter_map(|it| Some(it.parse::<IpAddr>().ok()?.into()))
            .collect();
        let resolution = match () {
            () if outside => Resolution::Dns,
            () if spec.is_headless() => Resolution::Passthrough,
            () => Resolution::Endpoints,
        };
        Service {
            host: host::service_name(&meta.name, namespace, self.context.cluster_domain),
            name: meta.name.clone(),
            namespace: namespace.to_owned(),
            kubernetes: true,
            external: outside,
            addresses,
            resolution,
            ports: spec.ports.iter().map(|port| self.port(service, port)).collect(),
            subject_alt_names: more_identities(&meta.annotations, namespace, self.context),
        }
    }

    fn port(&self, service: &core::Service, port: &core::ServicePort) -> ServicePort {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let protocol = select(PortHint {
            number: port.port,
            name: &text(&port.name),
            transport: &text(&port.protocol),
            app_protocol: &text(&port.app_protocol),
        });
        let endpoints = if is_external_name(service) {
            let name = service.spec.external_name.clone().unwrap_or_default();
            vec![outside(name, port.port)]
        } else if protocol == Protocol::Udp {
            Vec::new()
        } else {
            self.endpoints(service, port)
        };
        ServicePort {
            number: port.port,
            name: text(&port.name),
            protocol,
            endpoints: endpoints.into(),
        }
    }

    fn endpoints(&self, service: &core::Service, port: &core::ServicePort) -> Vec<Endpoint> {
        let meta = &service.metadata;
        let namespace = meta.namespace_or_empty();
        let all = service.spec.publish_not_ready_addresses == Some(true);
        let mut found = match self.slices.get(&(namespace, meta.name.as_str())) {
            Some(slices) => of_family(&service.spec, slices)
                .flat_map(|slice| self.of_slice(slice, port, all))
                .collect(),
            None if service.spec.selector.is_empty() => Vec::new(),
            None => self.of_pods(service, port, all),
        };
        // One address may stand in two slices for a moment.
        found.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        found.dedup_by(|a, b| a.address == b.address && a.port == b.port);
        found
    }

    fn of_slice(
        &self,
        slice: &EndpointSlice,
        port: &core::ServicePort,
        all: bool,
    ) -> Vec<Endpoint> {
        let wanted = port.name.as_deref().unwrap_or_default();
        let named = |it: &&core::EndpointPort| it.name.as_deref().unwrap_or_default() == wanted;
        let Some(found) = slice.ports.iter().find(named) else { return Vec::new() };
        let number = found.port.unwrap_or_else(|| match target(port) {
            TargetPort::Number(number) => number,
            TargetPort::Name(_) => port.port,
        });
        let ready = slice.endpoints.iter().filter(|it| all || it.conditions.ready != Some(false));
        let namespace = slice.metadata.namespace_or_empty();
        ready.filter_map(|it| self.at(it, number, namespace)).collect()
    }

    /// What is known of an endpoint of a slice; little, where it is no pod's. `None` while the pod
    /// that it names is not known.
    fn at(&self, endpoint: &core::Endpoint, port: u16, namespace: &str) -> Option<Endpoint> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let text = address.to_string();
        let named = endpoint.target_ref.as_ref().and_then(|target| {
            let of_pod = target.get("kind").is_some_and(|kind| kind == "Pod");
            target.get("name").filter(|_| of_pod)
        });
        let pod = match named {
            Some(name) => Some(self.workloads.named(namespace, name)?),
            None => self
                .workloads
                .at(address)
                .filter(|pod| pod.metadata.namespace_or_empty() == namespace),
        };
        Some(match pod {
            Some(pod) => self.workloads.endpoint(pod, (&text, port), self.context),
            None => {
                let locality = self.workloads.locality(endpoint.node_name.as_deref());
                Endpoint { locality, ..outside(text, port) }
            }
        })
    }

    fn of_pods(
        &self,
        service: &core::Service,
        port: &core::ServicePort,
        all: bool,
    ) -> Vec<Endpoint> {
        let namespace = service.metadata.namespace_or_empty();
        let selected = self.workloads.pods().filter(|pod| {
            pod.metadata.namespace_or_empty() == namespace
                && selects(&service.spec.selector, &pod.metadata.labels)
                && (all || pod.is_ready() && !pod.is_terminating())
                && !pod.is_finished()
        });
        let endpoints = selected.flat_map(|pod| {
            let number = number_of(&target(port), pod);
            pod.addresses().into_iter().filter_map(move |address| {
                Some(self.workloads.endpoint(pod, (address, number?), self.context))
            })
        });
        endpoints.collect()
    }
}

/// The slices that are used: a pod with addresses of two families stands in slices of both, and
/// counts once. The pods of a headless service are reached at whichever the client looked up.
fn of_family<'a>(
    spec: &core::ServiceSpec,
    slices: &'a [&'a EndpointSlice],
) -> impl Iterator<Item = &'a EndpointSlice> {
    let primary = spec.ip_families.first().filter(|family| {
        let of_it =
            |slice: &&EndpointSlice| slice.address_type == **family && !slice.endpoints.is_empty();
        !spec.is_headless() && slices.iter().any(of_it)
    });
    let primary = primary.cloned();
    let used = move |slice: &&EndpointSlice| {
        primary.as_ref().is_none_or(|family| slice.address_type == *family)
    };
    slices.iter().copied().filter(used)
}

/// The port of the pods behind a port of a service.
fn target(port: &core::ServicePort) -> TargetPort {
    match &port.target_port {
        Some(TargetPort::Number(0)) | None => TargetPort::Number(port.port),
        Some(target) => target.clone(),
    }
}

/// The number that a port has at a pod; `None` when the pod has no port of that name.
pub(crate) fn number_of(target: &TargetPort, pod: &Pod) -> Option<u16> {
    let name = match target {
        TargetPort::Number(number) => return Some(*number),
        TargetPort::Name(name) => name,
    };
    let sidecars = pod.spec.init_containers.iter().filter(|it| it.is_sidecar());
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|it| &it.ports);
    let mut named = ports.filter(|port| port.name.as_ref() == Some(name));
    named.next().map(|port| port.container_port)
}

fn is_external_name(service: &core::Service) -> bool {
    service.spec.kind.as_deref() == Some("ExternalName")
}

/// An endpoint of which nothing is known but where it is.
fn outside(address: String, port: u16) -> Endpoint {
    Endpoint {
        address,
        port,
        labels: lateen_api::meta::Labels::new(),
        identity: String::new(),
        mutual_tls: false,
        healthy: true,
        locality: String::new(),
        weight: 1,
        workload: String::new(),
    }
}

fn age(meta: &lateen_api::ObjectMeta) -> (String, String, String) {
    match &meta.creation_timestamp {
        Some(time) => (time.clone(), meta.name.clone(), meta.namespace_or_empty().to_owned()),
        None => <(String, String, String)>::default(),
    }
}
