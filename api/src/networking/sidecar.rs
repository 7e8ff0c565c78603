//! `Sidecar`: what the proxies of some workloads accept, and which services they know.

use serde::Deserialize;

use super::{ConnectionPool, Destination, ServerTls, WorkloadSelector};
use crate::proto_enum::proto_enum;

/// `spec` of a Sidecar.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Sidecar {
    /// Workloads; the whole namespace where absent.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
    /// What is accepted; all ports of the workload where empty.
    pub ingress: Vec<IngressListener>,
    /// What is known.
    pub egress: Vec<EgressListener>,
    /// Limits of what is accepted.
    #[serde(alias = "inbound_connection_pool")]
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to traffic to unknown services.
    #[serde(alias = "outbound_traffic_policy")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// A port that is accepted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IngressListener {
    /// Port.
    pub port: Option<SidecarPort>,
    /// Address.
    pub bind: String,
    /// How traffic comes.
    #[serde(alias = "capture_mode")]
    pub capture_mode: CaptureMode,
    /// Where traffic goes; the same port of the workload where empty.
    #[serde(alias = "default_endpoint")]
    pub default_endpoint: String,
    /// TLS of callers outside of the mesh.
    pub tls: Option<ServerTls>,
    /// Limits.
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPool>,
}

/// Services that are known, of a port or of all.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EgressListener {
    /// Port; all others where absent.
    pub port: Option<SidecarPort>,
    /// Address, or `unix://` path.
    pub bind: String,
    /// How traffic comes.
    #[serde(alias = "capture_mode")]
    pub capture_mode: CaptureMode,
    /// `NAMESPACE/HOST`.
    pub hosts: Vec<String>,
}

/// A port of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SidecarPort {
    /// Number; 0 for a Unix socket.
    pub number: u32,
    /// Protocol.
    pub protocol: String,
    /// Name.
    pub name: String,
    /// Without effect, as in Istio.
    #[serde(alias = "target_port")]
    pub target_port: u32,
}

proto_enum! {
    /// How traffic comes to a listener.
    pub enum CaptureMode {
        /// As the workload is set up.
        Default = "DEFAULT" / 0,
        /// Redirected.
        Iptables = "IPTABLES" / 1,
        /// The workload connects by itself.
        None = "NONE" / 2,
    }
}

/// What happens to traffic to unknown services.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutboundTrafficPolicy {
    /// Whether it is let through.
    pub mode: OutboundMode,
    /// Where it goes.
    #[serde(alias = "egress_proxy")]
    pub egress_proxy: Option<Destination>,
}

proto_enum! {
    /// Whether traffic to unknown services is let through.
    pub enum OutboundMode {
        /// It is not.
        RegistryOnly = "REGISTRY_ONLY" / 0,
        /// It is.
        AllowAny = "ALLOW_ANY" / 1,
    }
}
