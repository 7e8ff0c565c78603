//! Mutual TLS of inbound traffic: what the PeerAuthentications of mesh, namespace and workload come
//! to.
//!
//! The narrower level wins, UNSET inherits from the wider one, and of several on one level the
//! oldest holds. Nothing said is PERMISSIVE. Ports are for workloads alone. A policy with a
//! selector in the root namespace selects nothing. Source: Istio's `ComposePeerAuthentication`.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::meta::{Labels, ObjectRef, selects};
use lateen_api::object::Resource;
use lateen_api::security::{MutualTlsMode, PeerAuthentication};

type Policy = Arc<Resource<PeerAuthentication>>;

/// The policies of the mesh, sorted by what they are about.
#[derive(Debug, Clone, Default)]
pub struct PeerPolicies {
    mesh: Option<Policy>,
    namespaces: BTreeMap<String, Policy>,
    workloads: BTreeMap<String, Vec<Policy>>,
}

/// What holds for a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// All ports that are not named; never unset.
    pub mode: MutualTlsMode,
    /// Named ports; never unset.
    pub ports: BTreeMap<u16, MutualTlsMode>,
    /// Which objects decided, the widest first.
    pub policies: Vec<ObjectRef>,
}

impl PeerPolicies {
    /// Sorts the policies in force.
    #[must_use]
    pub fn new(policies: &[Policy], root_namespace: &str) -> Self {
        let mut oldest_first = policies.to_vec();
        oldest_first.sort_by(|a, b| a.age().cmp(&b.age()));
        let mut sorted = Self::default();
        for policy in oldest_first {
            let namespace = policy.namespace().to_owned();
            let selects =
                policy.spec.selector.as_ref().is_some_and(|it| !it.match_labels.is_empty());
            match (selects, namespace == root_namespace) {
                (false, true) => drop(sorted.mesh.get_or_insert(policy)),
                (false, false) => drop(sorted.namespaces.entry(namespace).or_insert(policy)),
                (true, false) => sorted.workloads.entry(namespace).or_default().push(policy),
                (true, true) => {}
            }
        }
        sorted
    }

    /// What holds for a workload of a namespace.
    #[must_use]
    pub fn effective(&self, namespace: &str, labels: &Labels) -> Effective {
        let mut effective = Effective { mode: MutualTlsMode::Permissive, ..Effective::default() };
        let workload = self.workload(namespace, labels);
        let levels = [self.mesh.as_ref(), self.namespaces.get(namespace), workload];
        for policy in levels.into_iter().flatten() {
            let mode = policy.spec.mtls.map(|it| it.mode).unwrap_or_default();
            if mode != MutualTlsMode::Unset {
                effective.mode = mode;
            }
            effective.policies.push(ObjectRef::new(
                "PeerAuthentication",
                policy.namespace(),
                policy.name(),
            ));
        }
        for (port, mtls) in workload.iter().flat_map(|policy| &policy.spec.port_level_mtls) {
            let inherits = mtls.mode == MutualTlsMode::Unset;
            effective.ports.insert(*port, if inherits { effective.mode } else { mtls.mode });
        }
        effective
    }

    /// Whether a workload takes mutual TLS on a port.
    #[must_use]
    pub fn takes_mutual_tls(&self, namespace: &str, labels: &Labels, port: u16) -> bool {
        let workload = self.workload(namespace, labels);
        let of_port = workload.and_then(|it| it.spec.port_level_mtls.get(&port));
        let levels = [workload, self.namespaces.get(namespace), self.mesh.as_ref()];
        let wider = levels.into_iter().flatten().map(|it| it.spec.mtls.unwrap_or_default().mode);
        let mut modes = of_port.map(|it| it.mode).into_iter().chain(wider);
        modes.find(|mode| *mode != MutualTlsMode::Unset) != Some(MutualTlsMode::Disable)
    }

    fn workload(&self, namespace: &str, labels: &Labels) -> Option<&Policy> {
        self.workloads.get(namespace)?.iter().find(|policy| {
            policy.spec.selector.as_ref().is_some_and(|it| selects(&it.match_labels, labels))
        })
    }
}
