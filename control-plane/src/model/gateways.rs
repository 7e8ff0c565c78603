//! Which gateways a workload carries, which rules are theirs, and which Secrets they need.
//!
//! Source: Istio's `mergeGateways` and `VirtualServicesForGateway`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_api::Finding;
use lateen_api::core::Secret;
use lateen_api::meta::{Labels, selects};
use lateen_api::networking::{Gateway, VirtualService, gateway_of};
use lateen_api::object::Resource;

use super::virtual_services::VirtualServices;
use crate::source::Objects;
use crate::translate::input::Edge;
use crate::translate::{gateway_conflicts, gateway_secrets};

/// The gateways of the mesh and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// The oldest first.
    gateways: Vec<Arc<Resource<Gateway>>>,
    rules: VirtualServices,
    /// By namespace and name; only those that some gateway may need.
    secrets: HashMap<(String, String), Arc<Secret>>,
}

impl Gateways {
    pub(super) fn new(objects: &Objects, default_export_to: &[String]) -> Self {
        let mut gateways = objects.gateways.clone();
        gateways.sort_by(|a, b| a.age().cmp(&b.age()));
        let wanted = gateway_secrets(gateways.iter().map(|it| &it.spec));
        let needed = objects.secrets.iter().filter(|it| wanted.contains(&it.object.metadata.name));
        let secrets = needed.map(|it| {
            let meta = &it.object.metadata;
            let key = (meta.namespace_or_empty().to_owned(), meta.name.clone());
            (key, Arc::new(it.object.clone()))
        });
        let secrets = secrets.collect();
        let bound = |rule: &VirtualService| rule.gateways.iter().any(|it| it != "mesh");
        let rules = VirtualServices::those(&objects.virtual_services, default_export_to, bound);
        Self { gateways, rules, secrets }
    }

    /// What a workload of these labels carries. Secrets are given where it is sure whose they are
    /// given to (`sure`), and only those of its own namespace.
    pub(super) fn edge(&self, namespace: &str, labels: &Labels, sure: bool) -> Edge {
        let selected = self.gateways.iter().filter(|it| selects(&it.spec.selector, labels));
        let gateways: Vec<_> = selected.cloned().collect();
        let own: BTreeSet<(&str, &str)> =
            gateways.iter().map(|it| (it.namespace(), it.name())).collect();
        let carries = |rule: &Resource<VirtualService>| {
            let named = rule.spec.gateways.iter();
            named.filter_map(|it| gateway_of(it, rule.namespace())).any(|it| own.contains(&it))
        };
        let mut virtual_services = self.rules.for_namespace(namespace);
        virtual_services.retain(|rule| carries(rule));
        let wanted = gateway_secrets(gateways.iter().map(|it| &it.spec));
        let secrets = wanted.into_iter().filter(|_| sure).filter_map(|name| {
            let key = (namespace.to_owned(), name);
            let secret = Arc::clone(self.secrets.get(&key)?);
            Some((key.1, secret))
        });
        Edge {
            namespace: namespace.to_owned(),
            labels: labels.clone(),
            secrets: secrets.collect(),
            virtual_services,
            gateways,
            ..Edge::default()
        }
    }

    /// Servers that are left out wherever gateways of one selector meet.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut by_selector: BTreeMap<&Labels, Vec<Arc<Resource<Gateway>>>> = BTreeMap::new();
        for gateway in &self.gateways {
            by_selector.entry(&gateway.spec.selector).or_default().push(Arc::clone(gateway));
        }
        let edges = by_selector.into_values();
        let edges = edges.map(|gateways| Edge { gateways, ..Edge::default() });
        edges.flat_map(|edge| gateway_conflicts(&edge)).collect()
    }
}
