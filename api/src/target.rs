//! What a policy is attached to by reference: Gateway API objects and services.
//!
//! Shared by the kinds that can name a waypoint or a gateway in place of workloads; nothing here
//! looks objects up.

use serde::Deserialize;

/// A reference of a policy to an object of its own namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TargetRef {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; only the empty one has a meaning.
    pub namespace: String,
}

impl TargetRef {
    /// Whether this is of a kind to which policies can be attached.
    #[must_use]
    pub fn is_attachable(&self) -> bool {
        matches!(
            (self.group.as_str(), self.kind.as_str()),
            ("" | "core", "Service")
                | ("networking.istio.io", "ServiceEntry")
                | ("gateway.networking.k8s.io", "Gateway" | "GatewayClass")
        )
    }
}
