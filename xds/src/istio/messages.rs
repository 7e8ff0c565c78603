//! Istio's messages: name table, certificate requests, filter configurations.
//!
//! Field numbers are those of the published protobuf files of Istio; unknown fields are skipped,
//! as protobuf demands. No behaviour.

use crate::pb::google::protobuf::Struct;
use prost::{Enumeration, Message, Name};
use std::collections::HashMap;

/// `istio.networking.nds.v1.NameTable`: host names with their addresses.
#[derive(Clone, PartialEq, Message)]
pub struct NameTable {
    /// By host name.
    #[prost(map = "string, message", tag = "1")]
    pub table: HashMap<String, NameInfo>,
}

impl Name for NameTable {
    const NAME: &'static str = "NameTable";
    const PACKAGE: &'static str = "istio.networking.nds.v1";
}

/// `istio.networking.nds.v1.NameTable.NameInfo`: what is known of one host.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct NameInfo {
    /// Addresses, IPv4 and IPv6.
    #[prost(string, repeated, tag = "1")]
    pub ips: Vec<String>,
    /// Where the host was learned (`Kubernetes`, `External`).
    #[prost(string, tag = "2")]
    pub registry: String,
    /// Name of the service (Kubernetes only).
    #[prost(string, tag = "3")]
    pub shortname: String,
    /// Namespace of the service (Kubernetes only).
    #[prost(string, tag = "4")]
    pub namespace: String,
}

/// `istio.v1.auth.IstioCertificateRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct IstioCertificateRequest {
    /// Certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wanted lifetime in seconds.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Hints such as `CertSigner`.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

impl Name for IstioCertificateRequest {
    const NAME: &'static str = "IstioCertificateRequest";
    const PACKAGE: &'static str = "istio.v1.auth";
}

/// `istio.v1.auth.IstioCertificateResponse`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct IstioCertificateResponse {
    /// Leaf, intermediates, root last; each PEM. At least two.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

impl Name for IstioCertificateResponse {
    const NAME: &'static str = "IstioCertificateResponse";
    const PACKAGE: &'static str = "istio.v1.auth";
}

/// `stats.PluginConfig`: `istio.stats` with its defaults.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct StatsConfig {}

impl Name for StatsConfig {
    const NAME: &'static str = "PluginConfig";
    const PACKAGE: &'static str = "stats";
}

/// `io.istio.http.peer_metadata.Config`: exchange of workload labels with its defaults.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct PeerMetadataConfig {}

impl Name for PeerMetadataConfig {
    const NAME: &'static str = "Config";
    const PACKAGE: &'static str = "io.istio.http.peer_metadata";
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AlpnFilterConfig {
    /// What is offered, by HTTP version.
    #[prost(message, repeated, tag = "1")]
    pub alpn_override: Vec<AlpnOverride>,
}

impl Name for AlpnFilterConfig {
    const NAME: &'static str = "FilterConfig";
    const PACKAGE: &'static str = "istio.envoy.config.filter.http.alpn.v2alpha1";
}

/// What is offered upstream for one HTTP version.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct AlpnOverride {
    /// HTTP version.
    #[prost(enumeration = "AlpnProtocol", tag = "1")]
    pub upstream_protocol: i32,
    /// Protocols, most wanted first.
    #[prost(string, repeated, tag = "2")]
    pub alpn_override: Vec<String>,
}

/// HTTP versions of [`AlpnOverride`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum AlpnProtocol {
    /// HTTP/1.0.
    Http10 = 0,
    /// HTTP/1.1.
    Http11 = 1,
    /// HTTP/2.
    Http2 = 2,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{any, type_url};

    #[test]
    fn type_urls_are_istios() {
        assert_eq!(any::pack(&NameTable::default()).type_url, type_url::NAME_TABLE);
        assert_eq!(any::pack(&StatsConfig {}).type_url, type_url::ISTIO_STATS);
        assert_eq!(any::pack(&PeerMetadataConfig {}).type_url, type_url::ISTIO_PEER_METADATA);
        assert_eq!(any::pack(&AlpnFilterConfig::default()).type_url, type_url::ISTIO_ALPN);
    }

    #[test]
    fn certificate_requests_have_istios_field_numbers() {
        let request = IstioCertificateRequest {
            csr: "c".to_owned(),
            validity_duration: 5,
            metadata: Some(any::fields([("CertSigner", any::text("x"))])),
        };
        let bytes = request.encode_to_vec();
        // Field 1, length delimited; field 3, varint; field 4, length delimited.
        assert_eq!(&bytes[..3], &[0x0a, 1, b'c']);
        assert_eq!(&bytes[3..5], &[0x18, 5]);
        assert_eq!(bytes[5], 0x22);
    }
}
