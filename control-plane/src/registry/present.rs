//! The registry for people and programs: one row for each port of each service.

use serde::Serialize;

use super::{Registered, Registry};
use crate::translate::input::{Endpoint, Resolution, ServicePort};

/// A port of a service, with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Host of the service.
    pub host: String,
    /// Namespace of the object that defines it.
    pub namespace: String,
    /// Addresses of the service.
    pub addresses: Vec<String>,
    /// How endpoints are found: `endpoints`, `dns`, `dns-round-robin` or `passthrough`.
    pub resolution: &'static str,
    /// Whether it is outside the mesh.
    pub external: bool,
    /// Namespaces that see it, as in `exportTo`.
    pub export_to: String,
    /// Port number.
    pub port: u16,
    /// Port name.
    pub port_name: String,
    /// Protocol.
    pub protocol: &'static str,
    /// Who answers.
    pub endpoints: Vec<EndpointRow>,
    /// Kind, namespace and name of the object that defines it.
    pub defined_by: String,
    /// Where that object was read: file and line, or the cluster.
    pub source: String,
}

/// One address that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// SPIFFE ID of the workload; empty where it is not known.
    pub identity: String,
    /// Whether it takes mutual TLS.
    pub mutual_tls: bool,
    /// Name of the workload; empty where it is not known.
    pub workload: String,
    /// `region/zone/subzone`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
}

/// All rows, by host and port.
#[must_use]
pub fn rows(registry: &Registry) -> Vec<Row> {
    let mut rows: Vec<Row> = registry
        .services()
        .iter()
        .flat_map(|one| one.service.ports.iter().map(move |port| row(one, port)))
        .collect();
    rows.sort_by(|a, b| (&a.host, a.port, &a.namespace).cmp(&(&b.host, b.port, &b.namespace)));
    rows
}

fn row(one: &Registered, port: &ServicePort) -> Row {
    let service = &one.service;
    let address = |net: &ipnet::IpNet| {
        if net.prefix_len() == net.max_prefix_len() {
            net.addr().to_string()
        } else {
            net.to_string()
        }
    };
    Row {
        host: service.host.clone(),
        namespace: service.namespace.clone(),
        addresses: service.addresses.iter().map(address).collect(),
        resolution: match service.resolution {
            Resolution::Endpoints => "endpoints",
            Resolution::Dns => "dns",
            Resolution::DnsRoundRobin => "dns-round-robin",
            Resolution::Passthrough => "passthrough",
        },
        external: service.external,
        export_to: one.visibility.to_string(),
        port: port.number,
        port_name: port.name.clone(),
        protocol: port.protocol.as_str(),
        endpoints: port.endpoints.iter().map(endpoint).collect(),
        defined_by: one.object.to_string(),
        source: one.origin.to_string(),
    }
}

fn endpoint(endpoint: &Endpoint) -> EndpointRow {
    let bracketed = endpoint.address.contains(':');
    let (open, close) = if bracketed { ("[", "]") } else { ("", "") };
    EndpointRow {
        address: format!("{open}{}{close}:{}", endpoint.address, endpoint.port),
        identity: endpoint.identity.clone(),
        mutual_tls: endpoint.mutual_tls,
        workload: endpoint.workload.split(';').next().unwrap_or_default().to_owned(),
        locality: endpoint.locality.clone(),
    }
}
