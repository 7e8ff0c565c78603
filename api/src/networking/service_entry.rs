//! `ServiceEntry` and `WorkloadEntry`: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::WorkloadSelector;
use crate::meta::Labels;
use crate::proto_enum::proto_enum;

/// `spec` of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceEntry {
    /// Names of the service.
    pub hosts: Vec<String>,
    /// Addresses or ranges that belong to it.
    pub addresses: Vec<String>,
    /// Ports.
    pub ports: Vec<EntryPort>,
    /// Whether it is part of the mesh.
    pub location: Location,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its endpoints.
    pub endpoints: Vec<WorkloadEntry>,
    /// Selects pods and workload entries as endpoints.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Namespaces that see this; the mesh's default where empty.
    #[serde(alias = "export_to")]
    pub export_to: Vec<String>,
    /// Names of which its servers must have one.
    #[serde(alias = "subject_alt_names")]
    pub subject_alt_names: Vec<String>,
}

proto_enum! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        /// Outside.
        External = "MESH_EXTERNAL" / 0,
        /// Inside.
        Internal = "MESH_INTERNAL" / 1,
    }
}

proto_enum! {
    /// How endpoints are found.
    pub enum Resolution {
        /// The address the caller asked for.
        None = "NONE" / 0,
        /// As listed.
        Static = "STATIC" / 1,
        /// By DNS, all answers.
        Dns = "DNS" / 2,
        /// By DNS, the first answer.
        DnsRoundRobin = "DNS_ROUND_ROBIN" / 3,
        /// By DNS at the time of the request.
        DynamicDns = "DYNAMIC_DNS" / 4,
    }
}

/// A port of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EntryPort {
    /// Number.
    pub number: u32,
    /// Protocol; taken from the name where empty.
    pub protocol: String,
    /// Name.
    pub name: String,
    /// Port of the endpoints; the same where 0.
    #[serde(alias = "target_port")]
    pub target_port: u32,
}

/// `spec` of a WorkloadEntry, and an endpoint of a ServiceEntry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadEntry {
    /// Address, name (with DNS resolution) or `unix://` path.
    pub address: String,
    /// Ports by the names of the service's ports.
    pub ports: BTreeMap<String, u32>,
    /// Labels.
    pub labels: Labels,
    /// Network.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Share; 1 where 0.
    pub weight: u32,
    /// Service account.
    #[serde(alias = "service_account")]
    pub service_account: String,
}
