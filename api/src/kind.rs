//! The Istio kinds: group, versions, plural, and whether this mesh acts on them.
//!
//! All versions of a kind have one schema; a kind is recognised by group and name. Kinds that are
//! not in this table are somebody else's and are left alone.

use crate::finding::Finding;
use crate::object::Object;

/// Whether a kind has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Acted upon.
    Honoured,
    /// Known, accepted, without effect yet.
    Recognised,
}

/// An Istio kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Who may call a workload.
    AuthorizationPolicy,
    /// What happens after routing: subsets, load balancing, TLS.
    DestinationRule,
    /// Patches to generated configuration.
    EnvoyFilter,
    /// Ports that gateways open.
    Gateway,
    /// Input of the installer.
    IstioOperator,
    /// Mutual TLS of inbound traffic.
    PeerAuthentication,
    /// Proxy settings by namespace or workload.
    ProxyConfig,
    /// Tokens of end users.
    RequestAuthentication,
    /// Services outside the cluster.
    ServiceEntry,
    /// What a proxy sees.
    Sidecar,
    /// Metrics, tracing and logs.
    Telemetry,
    /// WebAssembly or Lua in the proxy.
    TrafficExtension,
    /// Routes.
    VirtualService,
    /// WebAssembly in the proxy.
    WasmPlugin,
    /// A workload that is no pod.
    WorkloadEntry,
    /// Template of workload entries.
    WorkloadGroup,
}

/// What is known of one kind.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// Its API group.
    pub group: &'static str,
    /// Served versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// Plural name.
    pub plural: &'static str,
    /// Whether it has an effect.
    pub support: Support,
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// All kinds: the fifteen of the custom resource definitions and `IstioOperator`.
pub const KINDS: [KindInfo; 16] = [
    security(Kind::AuthorizationPolicy, "AuthorizationPolicy", "authorizationpolicies", true),
    networking(Kind::DestinationRule, "DestinationRule", "destinationrules", true),
    KindInfo {
        versions: &["v1alpha3"],
        ..networking(Kind::EnvoyFilter, "EnvoyFilter", "envoyfilters", false)
    },
    networking(Kind::Gateway, "Gateway", "gateways", true),
    KindInfo {
        kind: Kind::IstioOperator,
        name: "IstioOperator",
        group: "install.istio.io",
        versions: &["v1alpha1"],
        plural: "istiooperators",
        support: Support::Recognised,
    },
    security(Kind::PeerAuthentication, "PeerAuthentication", "peerauthentications", true),
    KindInfo {
        versions: &["v1beta1"],
        ..networking(Kind::ProxyConfig, "ProxyConfig", "proxyconfigs", false)
    },
    security(Kind::RequestAuthentication, "RequestAuthentication", "requestauthentications", false),
    networking(Kind::ServiceEntry, "ServiceEntry", "serviceentries", true),
    networking(Kind::Sidecar, "Sidecar", "sidecars", false),
    KindInfo {
        kind: Kind::Telemetry,
        name: "Telemetry",
        group: "telemetry.istio.io",
        versions: &["v1", "v1alpha1"],
        plural: "telemetries",
        support: Support::Recognised,
    },
    extension(Kind::TrafficExtension, "TrafficExtension", "trafficextensions"),
    networking(Kind::VirtualService, "VirtualService", "virtualservices", true),
    extension(Kind::WasmPlugin, "WasmPlugin", "wasmplugins"),
    networking(Kind::WorkloadEntry, "WorkloadEntry", "workloadentries", true),
    networking(Kind::WorkloadGroup, "WorkloadGroup", "workloadgroups", false),
];

const fn support(honoured: bool) -> Support {
    if honoured { Support::Honoured } else { Support::Recognised }
}

const fn networking(
    kind: Kind,
    name: &'static str,
    plural: &'static str,
    honoured: bool,
) -> KindInfo {
    let support = support(honoured);
    KindInfo { kind, name, group: NETWORKING, versions: NETWORKING_VERSIONS, plural, support }
}

const fn security(
    kind: Kind,
    name: &'static str,
    plural: &'static str,
    honoured: bool,
) -> KindInfo {
    let support = support(honoured);
    KindInfo { kind, name, group: SECURITY, versions: SECURITY_VERSIONS, plural, support }
}

const fn extension(kind: Kind, name: &'static str, plural: &'static str) -> KindInfo {
    KindInfo {
        kind,
        name,
        group: "extensions.istio.io",
        versions: &["v1alpha1"],
        plural,
        support: Support::Recognised,
    }
}

/// The kind of an object, if it is one of ours.
#[must_use]
pub fn of(object: &Object) -> Option<&'static KindInfo> {
    KINDS.iter().find(|info| info.name == object.kind && info.group == object.group())
}

/// Says that a recognised kind has no effect, or that its version is not one that is served.
///
/// # Errors
/// A refusal when the version does not exist.
pub fn check(info: &KindInfo, object: &Object) -> Result<Option<Finding>, Finding> {
    if !info.versions.contains(&object.version()) {
        let message = format!(
            "{} has no version `{}`; use {}/{}",
            info.name,
            object.version(),
            info.group,
            info.versions[0]
        );
        return Err(Finding::error("apiVersion", message).about(object));
    }
    Ok(match info.support {
        Support::Honoured => None,
        Support::Recognised => {
            let message = format!("{} is recognised, but has no effect yet", info.name);
            Some(Finding::warning("", message).about(object))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{KINDS, Kind, Support, check, of};
    use crate::stream;

    fn object(text: &str) -> crate::Object {
        stream::parse("t.yaml", text).objects.remove(0)
    }

    #[test]
    fn a_kind_is_group_and_name() {
        let ours = object("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}");
        assert_eq!(of(&ours).unwrap().kind, Kind::Gateway);
        let other =
            object("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}");
        assert!(of(&other).is_none());
    }

    #[test]
    fn recognised_kinds_are_reported_and_versions_checked() {
        let filter = object(
            "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}",
        );
        let finding = check(of(&filter).unwrap(), &filter).unwrap().unwrap();
        assert!(finding.message.contains("no effect yet"));
        let wrong =
            object("apiVersion: networking.istio.io/v9\nkind: Gateway\nmetadata: {name: a}");
        let refused = check(of(&wrong).unwrap(), &wrong).unwrap_err();
        assert_eq!(refused.path, "apiVersion");
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(KINDS.windows(2).all(|pair| pair[0].kind < pair[1].kind));
        let honoured = KINDS.iter().filter(|info| info.support == Support::Honoured).count();
        assert_eq!(honoured, 7);
    }
}
