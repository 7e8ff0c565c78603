//! The model: one immutable state of the mesh, and what of it each proxy sees.
//!
//! Joins the registry with the rules: which service stands for a host, which virtual services and
//! destination rules hold, which mode of mutual TLS and which policies a workload has. Pure; made
//! anew from the objects in force. Knows nothing of Envoy: the translation takes it from here.

mod destination_rules;
mod gateways;
mod peers;
mod remarks;
mod virtual_services;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_api::Finding;
use lateen_api::core::{Pod, TargetPort};
use lateen_api::mesh::{LogEncoding, MeshConfig};
use lateen_api::meta::{Labels, selects};
use lateen_api::names::label;
use lateen_api::object::Resource;
use lateen_api::port::Protocol;
use lateen_api::security::AuthorizationPolicy;
use serde_json::{Value, json};

use crate::registry::{Context, Registered, Registry, Workloads, number_of, rows};
use crate::serve::generation::{Mesh, Scope};
use crate::settings::Settings;
use crate::source::{Objects, Sourced};
use crate::translate::AccessLogSettings;
use crate::translate::input::{Edge, Inbound, InboundPort, MeshSettings, Outbound, Service};
use crate::translate::view::ProxyView;

use destination_rules::DestinationRules;
use gateways::Gateways;
pub use peers::{Effective, PeerPolicies};
use virtual_services::VirtualServices;

/// One state of the mesh.
#[derive(Debug)]
pub struct Model {
    settings: MeshSettings,
    root_namespace: String,
    registry: Registry,
    /// Pods by namespace and name.
    pods: HashMap<(String, String), Arc<Sourced<Pod>>>,
    virtual_services: VirtualServices,
    destination_rules: DestinationRules,
    gateways: Gateways,
    peers: PeerPolicies,
    policies: Vec<Arc<Resource<AuthorizationPolicy>>>,
    /// Keys of the labels of callers that some rule asks for.
    asked_labels: BTreeSet<String>,
    findings: Vec<Finding>,
}

impl Model {
    /// The state of the mesh that the objects in force describe.
    #[must_use]
    pub fn new(objects: &Objects, mesh: &MeshConfig, settings: &Settings) -> Self {
        let domain = settings.cluster_domain.as_str();
        let root = mesh.root_namespace();
        let peers = PeerPolicies::new(&objects.peer_authentications, root);
        let workloads = Workloads::new(objects);
        let context = Context {
            mesh,
            cluster_domain: domain,
            cluster_id: &settings.cluster_id,
            peers: &peers,
        };
        let registry = Registry::new(objects, context, &workloads);
        let pods = objects.pods.iter().map(|pod| {
            let meta = &pod.object.metadata;
            ((meta.namespace_or_empty().to_owned(), meta.name.clone()), Arc::clone(pod))
        });
        let virtual_services = VirtualServices::new(
            &objects.virtual_services,
            &mesh.default_virtual_service_export_to,
        );
        let destination_rules = DestinationRules::new(
            &objects.destination_rules,
            &mesh.default_destination_rule_export_to,
            (domain, root),
        );
        let mut model = Self {
            settings: settings_of(mesh, domain),
            root_namespace: root.to_owned(),
            pods: pods.collect(),
            asked_labels: virtual_services
                .asked_labels()
                .chain(destination_rules.asked_labels())
                .cloned()
                .collect(),
            virtual_services,
            destination_rules,
            gateways: Gateways::new(objects, &mesh.default_virtual_service_export_to),
            policies: objects.authorization_policies.clone(),
            findings: registry.findings().to_vec(),
            registry,
            peers,
        };
        model.findings.extend(model.gateways.findings());
        model.findings.extend(remarks::remarks(objects, &model.registry, &model.settings, root));
        model
    }

    /// Takes over from an earlier state what is the same there.
    pub fn reuse(&mut self, before: &Self) {
        self.registry.reuse(&before.registry);
    }

    /// Everything that is known of services.
    #[must_use]
    pub fn services(&self) -> &Registry {
        &self.registry
    }

    /// The mutual TLS that a workload asks for.
    #[must_use]
    pub fn mutual_tls(&self, namespace: &str, labels: &Labels) -> Effective {
        self.peers.effective(namespace, labels)
    }

    /// Of all services that a namespace sees, one for each host: its own, else a Kubernetes
    /// Service, else the oldest.
    fn visible(&self, namespace: &str) -> Vec<Arc<Service>> {
        let mut chosen: HashMap<&str, usize> = HashMap::new();
        let mut order: Vec<&Registered> = Vec::new();
        let own = |one: &Registered| one.service.namespace == namespace;
        for one in self.registry.services().iter().filter(|it| it.visibility.reaches(namespace)) {
            match chosen.get(one.service.host.as_str()) {
                None => {
                    chosen.insert(&one.service.host, order.len());
                    order.push(one);
                }
                Some(&place) if own(one) && !own(order[place]) => order[place] = one,
                Some(_) => {}
            }
        }
        order.into_iter().map(|one| Arc::clone(&one.service)).collect()
    }

    fn pod(&self, view: &ProxyView) -> Option<&Pod> {
        let pod = self.pods.get(&(view.namespace.clone(), view.name.clone()))?;
        Some(&pod.object)
    }

    /// What the API server says of a pod is believed before what the pod says of itself.
    fn labels<'a>(&'a self, view: &'a ProxyView) -> &'a Labels {
        self.pod(view).map_or(&view.labels, |pod| &pod.metadata.labels)
    }

    fn inbound_ports(
        &self,
        view: &ProxyView,
        labels: &Labels,
        pod: Option<&Pod>,
    ) -> Vec<InboundPort> {
        let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
        let leading = self
            .registry
            .services()
            .iter()
            .filter(|one| one.leads_to(&view.namespace, labels, &view.addresses));
        for one in leading {
            for (port, target) in one.service.ports.iter().zip(&one.targets) {
                let number = match target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(_) => pod.and_then(|pod| number_of(target, pod)),
                };
                let Some(number) = number.filter(|_| port.protocol != Protocol::Udp) else {
                    continue;
                };
                // The first service names the port, as it is the oldest.
                ports.entry(number).or_insert_with(|| InboundPort {
                    port: number,
                    protocol: port.protocol,
                    host: one.service.host.clone(),
                    service_name: if one.service.kubernetes {
                        one.service.name.clone()
                    } else {
                        one.service.host.clone()
                    },
                    service_namespace: one.service.namespace.clone(),
                    service_port: port.number,
                });
            }
        }
        ports.into_values().collect()
    }

    /// Ports of the Services that lead to a workload; of several with one number, the oldest's.
    fn target_ports(&self, view: &ProxyView, labels: &Labels) -> BTreeMap<u16, u16> {
        let pod = self.pod(view);
        let mut ports = BTreeMap::new();
        let all = self.registry.services().iter();
        for one in all.filter(|it| it.leads_to(&view.namespace, labels, &view.addresses)) {
            for (port, target) in one.service.ports.iter().zip(&one.targets) {
                let number = match target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(_) => pod.and_then(|pod| number_of(target, pod)),
                };
                if let Some(number) = number {
                    ports.entry(port.number).or_insert(number);
                }
            }
        }
        ports
    }

    fn policies(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> Vec<Arc<Resource<AuthorizationPolicy>>> {
        let here = [self.root_namespace.as_str(), namespace];
        let selected = self.policies.iter().filter(|policy| {
            let attached = policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty();
            let selector = policy.spec.selector.as_ref();
            here.contains(&policy.namespace())
                && !attached
                && selector.is_none_or(|it| selects(&it.match_labels, labels))
        });
        let mut selected: Vec<_> = selected.cloned().collect();
        selected.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
        selected
    }
}

impl Mesh for Model {
    fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    fn scope(&self, view: &ProxyView) -> Scope {
        // Others would make a scope of every pod.
        let labels = self.labels(view).iter().filter(|(key, _)| self.asked_labels.contains(*key));
        let labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
        Scope { namespace: view.namespace.clone(), labels }
    }

    fn outbound(&self, scope: &Scope) -> Outbound {
        let services = self.visible(&scope.namespace);
        let destination_rules = services
            .iter()
            .filter_map(|service| {
                Some((service.host.clone(), self.destination_rules.for_service(service, scope)?))
            })
            .collect();
        Outbound {
            namespace: scope.namespace.clone(),
            labels: scope.labels.clone(),
            virtual_services: self.virtual_services.for_namespace(&scope.namespace),
            destination_rules,
            services,
        }
    }

    fn inbound(&self, view: &ProxyView) -> Inbound {
        let pod = self.pod(view);
        let labels = self.labels(view);
        let effective = self.peers.effective(&view.namespace, labels);
        Inbound {
            ports: self.inbound_ports(view, labels, pod),
            mode: effective.mode,
            port_modes: effective.ports,
            policies: self.policies(&view.namespace, labels),
            labelled_mutual_tls: labels.get(label::TLS_MODE).is_some_and(|mode| mode == "istio"),
            addresses: if view.grpc { view.addresses.clone() } else { Vec::new() },
        }
    }

    fn edge(&self, view: &ProxyView) -> Edge {
        let labels = self.labels(view);
        // A proxy says itself which pod it is of; the account that is proved must be that of the pod.
        let pod = self.pod(view).filter(|_| view.proven);
        let own =
            pod.is_some_and(|pod| Some(pod.service_account()) == view.service_account.as_deref());
        Edge {
            target_ports: self.target_ports(view, labels),
            policies: self.policies(&view.namespace, labels),
            ..self.gateways.edge(&view.namespace, labels, own)
        }
    }

    fn registry(&self) -> Value {
        json!(rows(&self.registry))
    }

    fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

fn settings_of(mesh: &MeshConfig, cluster_domain: &str) -> MeshSettings {
    let mut trust_domains = vec![mesh.trust_domain().to_owned()];
    trust_domains.extend(mesh.trust_domain_aliases.iter().cloned());
    MeshSettings {
        cluster_domain: cluster_domain.to_owned(),
        trust_domains,
        allow_any_outbound: mesh.allows_any_outbound(),
        auto_mtls: mesh.auto_mtls(),
        connect_timeout: mesh.connect_timeout(),
        protocol_detection_timeout: mesh.protocol_detection_timeout.unwrap_or_default(),
        access_log: AccessLogSettings {
            file: mesh.access_log_file.clone(),
            format: mesh.access_log_format.clone(),
            json: mesh.access_log_encoding == LogEncoding::Json,
        },
    }
}

#[cfg(test)]
mod tests;
