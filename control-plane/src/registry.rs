//! The registry: every service of the mesh, its ports, who answers on them, and where each was
//! defined.
//!
//! Made anew, purely, from the objects in force. [`kubernetes`] reads Services and their endpoint
//! slices, [`entries`] service entries, [`workloads`] says who stands behind an address. Of several
//! definitions of one host in one namespace the Kubernetes Service wins, else the oldest; what a
//! proxy in some namespace sees of it is decided by the model. Knows no routes.

mod entries;
mod kubernetes;
mod present;
mod visibility;
mod workloads;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::core::TargetPort;
use lateen_api::mesh::MeshConfig;
use lateen_api::meta::{Labels, ObjectRef, selects};
use lateen_api::{Finding, Origin};

use crate::model::PeerPolicies;
use crate::source::Objects;
use crate::translate::input::{Resolution, Service};

pub(crate) use kubernetes::number_of;
pub use present::{Row, rows};
pub use visibility::Visibility;
pub use workloads::Workloads;

/// What the registry is made from besides objects.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Settings of the mesh.
    pub mesh: &'a MeshConfig,
    /// DNS domain of the cluster.
    pub cluster_domain: &'a str,
    /// Name of the cluster.
    pub cluster_id: &'a str,
    /// Mutual TLS that workloads ask for.
    pub peers: &'a PeerPolicies,
}

/// A service and what is known of its definition.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The service.
    pub service: Arc<Service>,
    /// The object that defines it.
    pub object: ObjectRef,
    /// Where that object was read.
    pub origin: Origin,
    /// Who sees it.
    pub visibility: Visibility,
    /// Labels of the workloads behind it, where it names them so.
    pub selector: Option<Labels>,
    /// Port of the workloads, for each port of the service.
    pub targets: Vec<TargetPort>,
    /// Sort key: older services first.
    age: (String, String, String),
}

impl Registered {
    /// Whether it leads to a workload of its namespace with these labels or addresses.
    #[must_use]
    pub fn leads_to(&self, namespace: &str, labels: &Labels, addresses: &[IpAddr]) -> bool {
        match &self.selector {
            Some(selector) => self.service.namespace == namespace && selects(selector, labels),
            None => self.service.ports.iter().flat_map(|port| port.endpoints.iter()).any(|it| {
                it.address.parse::<IpAddr>().is_ok_and(|address| addresses.contains(&address))
            }),
        }
    }
}

/// Every service, Kubernetes Services first, then from the oldest to the youngest.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    services: Vec<Registered>,
    findings: Vec<Finding>,
}

impl Registry {
    /// The registry of the objects in force.
    #[must_use]
    pub fn new(objects: &Objects, context: Context<'_>, workloads: &Workloads<'_>) -> Self {
        let mut findings = Vec::new();
        let mut all = kubernetes::services(objects, context, workloads);
        all.extend(entries::services(objects, context, workloads));
        // Stable: what has no time stamp keeps the order in which it was read.
        all.sort_by(|a, b| {
            b.service.kubernetes.cmp(&a.service.kubernetes).then_with(|| a.age.cmp(&b.age))
        });
        let mut services: Vec<Registered> = Vec::with_capacity(all.len());
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for one in all {
            let key = (one.service.namespace.clone(), one.service.host.clone());
            match places.get(&key) {
                None => {
                    places.insert(key, services.len());
                    services.push(one);
                }
                Some(&first) => findings.push(join(&mut services[first], &one)),
            }
        }
        Self { services, findings }
    }

    /// All services.
    #[must_use]
    pub fn services(&self) -> &[Registered] {
        &self.services
    }

    /// Takes over from an earlier registry what is the same there, so that it is known to be.
    pub fn reuse(&mut self, before: &Self) {
        let key = |one: &Registered| (one.service.namespace.clone(), one.service.host.clone());
        let mut places = HashMap::new();
        for (place, one) in self.services.iter_mut().enumerate() {
            // Most stand where they stood.
            let old = before.services.get(place).filter(|it| {
                it.service.host == one.service.host && it.service.namespace == one.service.namespace
            });
            let old = old.or_else(|| {
                if places.is_empty() {
                    places.extend(before.services.iter().map(|it| (key(it), it)));
                }
                places.get(&key(one)).copied()
            });
            let same = |old: &&Registered| {
                Arc::ptr_eq(&old.service, &one.service) || old.service == one.service
            };
            if let Some(old) = old.filter(same) {
                one.service = Arc::clone(&old.service);
            }
        }
    }

    /// How many services there are, and how many of those that have ports have nobody behind them.
    #[must_use]
    pub fn counts(&self) -> (i64, i64) {
        let nobody = |one: &&Registered| {
            let service = &one.service;
            service.resolution == Resolution::Endpoints
                && !service.ports.is_empty()
                && service.ports.iter().all(|port| port.endpoints.is_empty())
        };
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        (count(self.services.len()), count(self.services.iter().filter(nobody).count()))
    }

    /// What there is to say about definitions that clash.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

/// Joins a later definition of a host to the first one of its namespace: ports that the first does
/// not have are added, unless the first is a Kubernetes Service, which nobody may widen.
fn join(first: &mut Registered, later: &Registered) -> Finding {
    let host = &later.service.host;
    if first.service.kubernetes {
        let message =
            format!("`{host}` is the {} already, which wins: this one is not used", first.object);
        return Finding::warning("spec.hosts", message).on(&later.object, &later.origin);
    }
    let mut service = Service::clone(&first.service);
    let mut added = Vec::new();
    for (port, target) in later.service.ports.iter().zip(&later.targets) {
        if service.ports.iter().all(|known| known.number != port.number) {
            added.push(port.number.to_string());
            service.ports.push(port.clone());
            first.targets.push(target.clone());
        }
    }
    first.service = Arc::new(service);
    let message = if added.is_empty() {
        format!("`{host}` is defined by the {} already: this one is not used", first.object)
    } else {
        format!(
            "`{host}` is defined by the {} already: only port {} is taken from here",
            first.object,
            added.join(", ")
        )
    };
    Finding::warning("spec.hosts", message).on(&later.object, &later.origin)
}
