//! Who stands behind an address: pods and workload entries as endpoints need to know them.
//!
//! Identity, labels, locality and whether there is a sidecar, looked up by address. Does
//! not know services.

use std::collections::HashMap;
use std::net::IpAddr;

use lateen_api::core::{Pod, Workload};
use lateen_api::meta::Labels;
use lateen_api::names::{annotation, label};

use super::Context;
use crate::source::Objects;
use crate::translate::input::Endpoint;

/// The pods of the cluster, and where its nodes are.
#[derive(Debug, Default)]
pub struct Workloads<'a> {
    by_address: HashMap<IpAddr, &'a Pod>,
    by_name: HashMap<(&'a str, &'a str), &'a Pod>,
    pods: Vec<&'a Pod>,
    localities: HashMap<&'a str, String>,
}

impl<'a> Workloads<'a> {
    /// Those of the objects in force. Pods that have ended no longer own their address; pods on
    /// the node's network share theirs and are never looked up by it.
    #[must_use]
    pub fn new(objects: &'a Objects) -> Self {
        let mut workloads = Self::default();
        for node in &objects.nodes {
            let meta = &node.object.metadata;
            workloads.localities.insert(&meta.name, locality(&meta.labels));
        }
        for pod in &objects.pods {
            let pod = &pod.object;
            workloads.pods.push(pod);
            let meta = &pod.metadata;
            workloads.by_name.insert((meta.namespace_or_empty(), &meta.name), pod);
            if pod.is_finished() || pod.spec.host_network == Some(true) {
                continue;
            }
            let addresses = pod.addresses().into_iter().filter_map(|it| it.parse().ok());
            workloads.by_address.extend(addresses.map(|address: IpAddr| (address, pod)));
        }
        workloads
    }

    /// The pod of an address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&'a Pod> {
        self.by_address.get(&address).copied()
    }

    /// The pod of a namespace and name.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<&'a Pod> {
        self.by_name.get(&(namespace, name)).copied()
    }

    /// `region/zone/subzone` of a node; empty where it is not known.
    pub(crate) fn locality(&self, node: Option<&str>) -> String {
        node.and_then(|node| self.localities.get(node)).cloned().unwrap_or_default()
    }

    /// All pods, in the order in which they were read.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().copied()
    }

    /// What a client must know of a pod that answers at an address.
    pub(crate) fn endpoint(&self, pod: &Pod, at: (&str, u16), context: Context<'_>) -> Endpoint {
        let meta = &pod.metadata;
        let namespace = meta.namespace_or_empty();
        let labels = &meta.labels;
        let own = labels.get(label::LOCALITY).map(|text| text.replace('.', "/"));
        let on_node = || self.locality(pod.spec.node_name.as_deref());
        let name = Workload::of_pod(meta).name;
        Endpoint {
            address: at.0.to_owned(),
            port: at.1,
            identity: identity(context, namespace, pod.service_account()),
            mutual_tls: takes_mutual_tls(context, namespace, labels, at.1),
            healthy: true,
            locality: own.unwrap_or_else(on_node),
            weight: 1,
            workload: described(&name, namespace, labels, context),
            labels: labels.clone(),
        }
    }
}

/// The SPIFFE ID of a service account.
pub(super) fn identity(context: Context<'_>, namespace: &str, account: &str) -> String {
    let domain = context.mesh.trust_domain();
    format!("spiffe://{domain}/ns/{namespace}/sa/{account}")
}

/// Whether a workload takes mutual TLS on a port: it has a sidecar, and no policy forbids it.
pub(super) fn takes_mutual_tls(
    context: Context<'_>,
    namespace: &str,
    labels: &Labels,
    port: u16,
) -> bool {
    let meshed = labels.get(label::TLS_MODE).is_some_and(|mode| mode == "istio");
    meshed && context.peers.takes_mutual_tls(namespace, labels, port)
}

/// Workload metadata as telemetry of proxies reads it.
pub(super) fn described(
    name: &str,
    namespace: &str,
    labels: &Labels,
    context: Context<'_>,
) -> String {
    let first = |keys: &[&str]| {
        keys.iter().find_map(|key| labels.get(*key).filter(|it| !it.is_empty())).cloned()
    };
    let service = first(&[label::CANONICAL_NAME, label::KUBE_NAME, label::APP]);
    let revision = first(&[label::CANONICAL_REVISION, label::KUBE_VERSION, label::VERSION]);
    let name = labels.get(label::WORKLOAD_NAME).map_or(name, String::as_str);
    format!(
        "{name};{namespace};{};{};{}",
        service.as_deref().unwrap_or(name),
        revision.as_deref().unwrap_or("latest"),
        context.cluster_id
    )
}

/// `region/zone/subzone` of a node's labels.
fn locality(labels: &Labels) -> String {
    let part = |key: &str| labels.get(key).map(String::as_str).unwrap_or_default();
    let parts = [part(label::REGION), part(label::ZONE), part(label::SUBZONE)];
    let filled = parts.iter().rposition(|part| !part.is_empty()).map_or(0, |last| last + 1);
    parts.get(..filled).unwrap_or_default().join("/")
}

/// Additional identities that a Kubernetes Service says its servers have.
pub(super) fn more_identities(
    annotations: &Labels,
    namespace: &str,
    context: Context<'_>,
) -> Vec<String> {
    let list = |key: &str| {
        let text = annotations.get(key).map(String::as_str).unwrap_or_default();
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect::<Vec<_>>()
    };
    let accounts = list(annotation::KUBERNETES_SERVICE_ACCOUNTS)
        .into_iter()
        .map(|account| identity(context, namespace, account));
    let whole = list(annotation::CANONICAL_SERVICE_ACCOUNTS)
        .into_iter()
        .map(|name| format!("spiffe://{name}"));
    accounts.chain(whole).collect()
}
