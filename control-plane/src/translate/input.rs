//! What the translation reads: the mesh as one proxy may see it, already sorted out.
//!
//! Which services, rules and policies a proxy sees, and which of several wins, is decided before;
//! what stands here holds. All shared parts are behind `Arc`, so that making the input for a proxy
//! copies nothing large.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lateen_api::core::Secret;
use lateen_api::meta::Labels;
use lateen_api::networking::{DestinationRule, Gateway, VirtualService};
use lateen_api::object::Resource;
use lateen_api::port::Protocol;
use lateen_api::security::{AuthorizationPolicy, MutualTlsMode};

use super::access_log::AccessLogSettings;

/// Settings of the mesh that resources depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshSettings {
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// The mesh's trust domain, then its other names.
    pub trust_domains: Vec<String>,
    /// Whether hosts that the mesh does not know are reachable.
    pub allow_any_outbound: bool,
    /// Whether sidecars use mutual TLS without being told.
    pub auto_mtls: bool,
    /// Longest time a connection may take to be made.
    pub connect_timeout: Duration,
    /// Longest wait for the first bytes of a connection whose protocol is not known; 0 for ever.
    pub protocol_detection_timeout: Duration,
    /// Access log.
    pub access_log: AccessLogSettings,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".to_owned(),
            trust_domains: vec!["cluster.local".to_owned()],
            allow_any_outbound: true,
            auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            access_log: AccessLogSettings::default(),
        }
    }
}

/// How the addresses behind a service are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// They are known.
    Endpoints,
    /// By DNS, all answers.
    Dns,
    /// By DNS, one answer at a time.
    DnsRoundRobin,
    /// The address that the application chose.
    Passthrough,
}

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Full host name; may be a wildcard.
    pub host: String,
    /// Name in its namespace; empty for hosts outside Kubernetes.
    pub name: String,
    /// Namespace of the object that defines it.
    pub namespace: String,
    /// Whether it is defined by a Kubernetes Service.
    pub kubernetes: bool,
    /// Whether it is outside the mesh.
    pub external: bool,
    /// Addresses that stand for it; none for headless services and many outside ones.
    pub addresses: Vec<IpNet>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Identities that its servers have, where these cannot be learned from workloads.
    pub subject_alt_names: Vec<String>,
}

impl Service {
    /// Whether it is a Kubernetes service without an address of its own.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.kubernetes && self.resolution == Resolution::Passthrough
    }

    /// Its single addresses (no ranges).
    pub(crate) fn single_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let whole = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
        self.addresses.iter().filter(whole).map(IpNet::addr)
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePort {
    /// Number that clients use.
    pub number: u16,
    /// Name.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Who answers on it.
    pub endpoints: Arc<[Endpoint]>,
}

/// One address that answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// IP address, or a host name where the service is resolved by DNS.
    pub address: String,
    /// Port there.
    pub port: u16,
    /// Labels of the workload.
    pub labels: Labels,
    /// SPIFFE ID of the workload; empty where it is not known.
    pub identity: String,
    /// Whether it takes mutual TLS.
    pub mutual_tls: bool,
    /// Whether it may get traffic.
    pub healthy: bool,
    /// `region/zone/subzone`; may be empty.
    pub locality: String,
    /// Share of the traffic; 0 counts as 1.
    pub weight: u32,
    /// `name;namespace;canonical name;canonical revision;cluster`, for telemetry.
    pub workload: String,
}

/// What a proxy needs for traffic from its application.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outbound {
    /// Namespace of the proxy.
    pub namespace: String,
    /// Labels of its workload.
    pub labels: Labels,
    /// Services it sees, one of a host.
    pub services: Vec<Arc<Service>>,
    /// Virtual services that hold for it, the first of a host wins.
    pub virtual_services: Vec<Arc<Resource<VirtualService>>>,
    /// Destination rules that hold for it, by host of the service.
    pub destination_rules: BTreeMap<String, Arc<Resource<DestinationRule>>>,
}

impl Outbound {
    /// The same for a gateway or a gRPC library, whose connections have no original destination:
    /// services without an address of their own are reached by their endpoints.
    #[must_use]
    pub fn by_endpoints(mut self) -> Self {
        for service in &mut self.services {
            let known = service.ports.iter().any(|port| !port.endpoints.is_empty());
            if service.resolution == Resolution::Passthrough && known {
                Arc::make_mut(service).resolution = Resolution::Endpoints;
            }
        }
        self
    }
}

/// What a gateway needs for traffic that comes to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edge {
    /// Namespace of the proxy.
    pub namespace: String,
    /// Labels of its workload.
    pub labels: Labels,
    /// Gateways that it carries, the oldest first.
    pub gateways: Vec<Arc<Resource<Gateway>>>,
    /// Rules of these gateways, in the order in which they win.
    pub virtual_services: Vec<Arc<Resource<VirtualService>>>,
    /// Ports of the Services that lead to it, and where they arrive.
    pub target_ports: BTreeMap<u16, u16>,
    /// Secrets of its namespace that its gateways name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Policies that select the workload, in order of their names.
    pub policies: Vec<Arc<Resource<AuthorizationPolicy>>>,
}

/// A port of the workload that a service leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPort {
    /// Port at the workload.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Host of the service.
    pub host: String,
    /// Name of the service.
    pub service_name: String,
    /// Namespace of the service.
    pub service_namespace: String,
    /// Port of the service.
    pub service_port: u16,
}

/// What a proxy needs for traffic to its application.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inbound {
    /// Ports, one entry for each number.
    pub ports: Vec<InboundPort>,
    /// Mutual TLS on all ports that are not named in `port_modes`.
    pub mode: MutualTlsMode,
    /// Mutual TLS by port.
    pub port_modes: BTreeMap<u16, MutualTlsMode>,
    /// Policies that select the workload, in order of their names.
    pub policies: Vec<Arc<Resource<AuthorizationPolicy>>>,
    /// Whether the workload is labelled as one that takes mutual TLS.
    pub labelled_mutual_tls: bool,
    /// Addresses of the workload, where the application asks for what it serves on them itself.
    pub addresses: Vec<IpAddr>,
}

impl Inbound {
    /// Mutual TLS on a port; what is not said is permissive.
    #[must_use]
    pub fn mode_of(&self, port: u16) -> MutualTlsMode {
        match self.port_modes.get(&port).copied().unwrap_or(self.mode) {
            MutualTlsMode::Unset => MutualTlsMode::Permissive,
            mode => mode,
        }
    }
}
