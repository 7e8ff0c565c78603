//! Which virtual services hold for proxies of a namespace, in the order in which they win.
//!
//! Those meant for fewer namespaces come first, of equals the oldest. Rules for gateways alone are
//! none of a sidecar's business. Source: Istio's `initVirtualServices`.

use std::sync::Arc;

use lateen_api::networking::VirtualService;
use lateen_api::object::Resource;

use crate::registry::Visibility;

/// Stands for all sidecars in `gateways`.
const MESH: &str = "mesh";

type Rule = Arc<Resource<VirtualService>>;

/// Rules, those that win first.
#[derive(Debug, Default)]
pub(super) struct VirtualServices(Vec<(Rule, Visibility)>);

impl VirtualServices {
    pub(super) fn new(rules: &[Rule], default_export_to: &[String]) -> Self {
        Self::those(rules, default_export_to, is_for_sidecars)
    }

    /// Those of the rules that are `meant`.
    pub(super) fn those(
        rules: &[Rule],
        default_export_to: &[String],
        meant: impl Fn(&VirtualService) -> bool,
    ) -> Self {
        let mut all: Vec<_> = rules
            .iter()
            .filter(|rule| meant(&rule.spec))
            .map(|rule| {
                let namespace = rule.namespace();
                let seen = Visibility::of(&rule.spec.export_to, default_export_to, namespace);
                (Arc::clone(rule), seen)
            })
            .collect();
        all.sort_by(|(a, seen_a), (b, seen_b)| {
            let width = |rule: &Rule, seen: &Visibility| seen.width(rule.namespace());
            width(a, seen_a).cmp(&width(b, seen_b)).then_with(|| a.age().cmp(&b.age()))
        });
        Self(all)
    }

    /// Those that a namespace sees.
    pub(super) fn for_namespace(&self, namespace: &str) -> Vec<Rule> {
        let seen = self.0.iter().filter(|(_, visibility)| visibility.reaches(namespace));
        seen.map(|(rule, _)| Arc::clone(rule)).collect()
    }

    /// Keys of the labels of callers that rules ask for.
    pub(super) fn asked_labels(&self) -> impl Iterator<Item = &String> {
        self.0.iter().flat_map(|(rule, _)| {
            let spec = &rule.spec;
            let http = spec.http.iter().flat_map(|it| &it.matches).map(|it| &it.source_labels);
            let tls = spec.tls.iter().flat_map(|it| &it.matches).map(|it| &it.source_labels);
            let tcp = spec.tcp.iter().flat_map(|it| &it.matches).map(|it| &it.source_labels);
            http.chain(tls).chain(tcp).flat_map(|labels| labels.keys())
        })
    }
}

/// Whether a rule is for sidecars (too).
pub(super) fn is_for_sidecars(rule: &VirtualService) -> bool {
    rule.gateways.is_empty() || rule.gateways.iter().any(|gateway| gateway == MESH)
}
