//! The typed objects in force, by kind, in the order in which they were read.

use std::sync::Arc;

use lateen_api::core::{
    ConfigMap, EndpointSlice, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use lateen_api::finding::Finding;
use lateen_api::networking::{
    DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry,
};
use lateen_api::security::{AuthorizationPolicy, PeerAuthentication};
use lateen_api::validate::Istio;
use lateen_api::{Object, Origin, Resource};

/// A Kubernetes object and where it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sourced<T> {
    /// The object.
    pub object: T,
    /// Where it was read.
    pub origin: Origin,
}

/// Everything in force, by kind; within a kind sorted by file and position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Namespaces.
    pub namespaces: Vec<Arc<Sourced<Namespace>>>,
    /// Nodes.
    pub nodes: Vec<Arc<Sourced<Node>>>,
    /// Pods.
    pub pods: Vec<Arc<Sourced<Pod>>>,
    /// Services.
    pub services: Vec<Arc<Sourced<Service>>>,
    /// Endpoint slices.
    pub endpoint_slices: Vec<Arc<Sourced<EndpointSlice>>>,
    /// Service accounts.
    pub service_accounts: Vec<Arc<Sourced<ServiceAccount>>>,
    /// Config maps.
    pub config_maps: Vec<Arc<Sourced<ConfigMap>>>,
    /// Secrets: of a cluster only those that gateways refer to.
    pub secrets: Vec<Arc<Sourced<Secret>>>,
    /// Gateways.
    pub gateways: Vec<Arc<Resource<Gateway>>>,
    /// Virtual services.
    pub virtual_services: Vec<Arc<Resource<VirtualService>>>,
    /// Destination rules.
    pub destination_rules: Vec<Arc<Resource<DestinationRule>>>,
    /// Service entries.
    pub service_entries: Vec<Arc<Resource<ServiceEntry>>>,
    /// Workload entries.
    pub workload_entries: Vec<Arc<Resource<WorkloadEntry>>>,
    /// Peer authentications.
    pub peer_authentications: Vec<Arc<Resource<PeerAuthentication>>>,
    /// Authorization policies.
    pub authorization_policies: Vec<Arc<Resource<AuthorizationPolicy>>>,
}

/// One typed object.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Namespace(Arc<Sourced<Namespace>>),
    Node(Arc<Sourced<Node>>),
    Pod(Arc<Sourced<Pod>>),
    Service(Arc<Sourced<Service>>),
    EndpointSlice(Arc<Sourced<EndpointSlice>>),
    ServiceAccount(Arc<Sourced<ServiceAccount>>),
    ConfigMap(Arc<Sourced<ConfigMap>>),
    Secret(Arc<Sourced<Secret>>),
    Gateway(Arc<Resource<Gateway>>),
    VirtualService(Arc<Resource<VirtualService>>),
    DestinationRule(Arc<Resource<DestinationRule>>),
    ServiceEntry(Arc<Resource<ServiceEntry>>),
    WorkloadEntry(Arc<Resource<WorkloadEntry>>),
    PeerAuthentication(Arc<Resource<PeerAuthentication>>),
    AuthorizationPolicy(Arc<Resource<AuthorizationPolicy>>),
    /// Of a kind that the mesh does not read; only its name counts.
    Foreign,
}

impl From<Istio> for Item {
    fn from(resource: Istio) -> Self {
        match resource {
            Istio::Gateway(it) => Self::Gateway(Arc::new(it)),
            Istio::VirtualService(it) => Self::VirtualService(Arc::new(it)),
            Istio::DestinationRule(it) => Self::DestinationRule(Arc::new(it)),
            Istio::ServiceEntry(it) => Self::ServiceEntry(Arc::new(it)),
            Istio::WorkloadEntry(it) => Self::WorkloadEntry(Arc::new(it)),
            Istio::PeerAuthentication(it) => Self::PeerAuthentication(Arc::new(it)),
            Istio::AuthorizationPolicy(it) => Self::AuthorizationPolicy(Arc::new(it)),
        }
    }
}

impl Item {
    /// The typed form of an object of a Kubernetes kind.
    ///
    /// # Errors
    /// A finding that names the field that has the wrong shape.
    pub(super) fn kubernetes(object: &Object) -> Result<Self, Finding> {
        Ok(match (object.group(), object.kind.as_str()) {
            ("", "Namespace") => Self::Namespace(sourced(object)?),
            ("", "Node") => Self::Node(sourced(object)?),
            ("", "Pod") => Self::Pod(sourced(object)?),
            ("", "Service") => Self::Service(sourced(object)?),
            ("", "ServiceAccount") => Self::ServiceAccount(sourced(object)?),
            ("", "ConfigMap") => Self::ConfigMap(sourced(object)?),
            ("", "Secret") => Self::Secret(sourced(object)?),
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice(sourced(object)?),
            _ => Self::Foreign,
        })
    }
}

fn sourced<T: serde::de::DeserializeOwned>(object: &Object) -> Result<Arc<Sourced<T>>, Finding> {
    Ok(Arc::new(Sourced { object: object.decode()?, origin: object.origin.clone() }))
}

impl Objects {
    pub(super) fn push(&mut self, item: &Item) {
        match item {
            Item::Namespace(it) => self.namespaces.push(Arc::clone(it)),
            Item::Node(it) => self.nodes.push(Arc::clone(it)),
            Item::Pod(it) => self.pods.push(Arc::clone(it)),
            Item::Service(it) => self.services.push(Arc::clone(it)),
            Item::EndpointSlice(it) => self.endpoint_slices.push(Arc::clone(it)),
            Item::ServiceAccount(it) => self.service_accounts.push(Arc::clone(it)),
            Item::ConfigMap(it) => self.config_maps.push(Arc::clone(it)),
            Item::Secret(it) => self.secrets.push(Arc::clone(it)),
            Item::Gateway(it) => self.gateways.push(Arc::clone(it)),
            Item::VirtualService(it) => self.virtual_services.push(Arc::clone(it)),
            Item::DestinationRule(it) => self.destination_rules.push(Arc::clone(it)),
            Item::ServiceEntry(it) => self.service_entries.push(Arc::clone(it)),
            Item::WorkloadEntry(it) => self.workload_entries.push(Arc::clone(it)),
            Item::PeerAuthentication(it) => self.peer_authentications.push(Arc::clone(it)),
            Item::AuthorizationPolicy(it) => self.authorization_policies.push(Arc::clone(it)),
            Item::Foreign => {}
        }
    }

    /// The text under `key` of a ConfigMap, and the file it was read from.
    #[must_use]
    pub fn config_text(&self, namespace: &str, name: &str, key: &str) -> Option<(&str, &str)> {
        let found = self.config_maps.iter().find(|it| {
            let meta = &it.object.metadata;
            meta.namespace_or_empty() == namespace && meta.name == name
        })?;
        let text = found.object.data.get(key)?;
        Some((text, &found.origin.file))
    }

    /// The labels of a namespace, if it is there.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        let found = self.namespaces.iter().find(|it| it.object.metadata.name == name);
        found.map(|it| &it.object)
    }
}
