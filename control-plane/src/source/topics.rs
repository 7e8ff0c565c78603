//! What is asked of an API server: one topic for each kind, or for one object by its name.
//!
//! Kinds that the mesh only recognises are asked for by their metadata: enough for a remark. Secrets
//! are asked for one by one, when something refers to them.

use std::fmt;

use lateen_api::kind::{KINDS, Kind, Support};

/// One stream of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topic {
    /// API group; empty for the core group.
    pub(super) group: &'static str,
    /// Versions that can be read, the preferred one first.
    pub(super) versions: &'static [&'static str],
    /// Kind.
    pub(super) kind: &'static str,
    /// Plural name.
    pub(super) plural: &'static str,
    /// Whether the kind may be missing, because somebody has to install it.
    pub(super) optional: bool,
    /// Whether metadata is all that is asked for.
    pub(super) metadata_only: bool,
    /// Namespace and name of the only object that is asked for.
    pub(super) only: Option<(String, String)>,
}

impl Topic {
    /// The part of the charts that lets us ask for it.
    pub(super) fn granted_by(&self) -> &'static str {
        match self.kind {
            "Secret" => "the chart `gateway` in that namespace grants it: install it or its Role",
            _ => "the chart `lateend` grants it: install its ClusterRole and Role",
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.plural)?;
        if !self.group.is_empty() {
            write!(out, ".{}", self.group)?;
        }
        match &self.only {
            Some((namespace, name)) => write!(out, " {namespace}/{name}"),
            None => Ok(()),
        }
    }
}

/// Everything that is asked for; config maps by their names in our namespace.
pub(super) fn topics(namespace: &str, config_maps: &[String]) -> Vec<Topic> {
    let mut topics = vec![
        core("Namespace", "namespaces", true),
        core("Node", "nodes", true),
        core("Pod", "pods", false),
        core("Service", "services", false),
        Topic { group: "discovery.k8s.io", ..core("EndpointSlice", "endpointslices", false) },
    ];
    topics.extend(config_maps.iter().map(|name| Topic {
        only: Some((namespace.to_owned(), name.clone())),
        ..core("ConfigMap", "configmaps", false)
    }));
    // The installer's input is no kind of an API server.
    let istio = KINDS.iter().filter(|info| info.kind != Kind::IstioOperator);
    topics.extend(istio.map(|info| Topic {
        group: info.group,
        versions: info.versions,
        optional: true,
        metadata_only: info.support == Support::Recognised,
        ..core(info.name, info.plural, false)
    }));
    topics
}

/// A Secret, by its name.
pub(super) fn secret(namespace: &str, name: &str) -> Topic {
    let only = Some((namespace.to_owned(), name.to_owned()));
    Topic { only, ..core("Secret", "secrets", false) }
}

fn core(kind: &'static str, plural: &'static str, metadata_only: bool) -> Topic {
    let versions = &["v1"];
    Topic { group: "", versions, kind, plural, optional: false, metadata_only, only: None }
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn secrets_are_not_asked_for_and_config_maps_by_name() {
        let all = topics("mesh", &["istio-canary".to_owned()]);
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert!(!names.iter().any(|name| name.contains("secrets")));
        assert!(names.contains(&"configmaps mesh/istio-canary".to_owned()));
        assert!(names.contains(&"endpointslices.discovery.k8s.io".to_owned()));
        assert!(names.contains(&"authorizationpolicies.security.istio.io".to_owned()));
        assert_eq!(all.iter().filter(|topic| topic.optional).count(), 15);
    }

    #[test]
    fn what_has_no_effect_is_asked_for_by_metadata() {
        let all = topics("mesh", &[]);
        let by_metadata = |kind: &str| all.iter().find(|it| it.kind == kind).unwrap().metadata_only;
        assert!(by_metadata("EnvoyFilter"));
        assert!(!by_metadata("VirtualService"));
        assert!(!by_metadata("Pod"));
        assert!(by_metadata("Node"));
    }
}
