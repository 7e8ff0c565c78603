//! `Gateway`: which ports a gateway workload opens, for which hosts, with which TLS.
//!
//! What is done with the traffic say virtual services that name the gateway.

use serde::Deserialize;

use crate::meta::Labels;
use crate::port::Protocol;
use crate::proto_enum::proto_enum;

/// `spec` of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateway {
    /// Labels of the workloads that open the ports; every gateway workload where empty.
    pub selector: Labels,
    /// What is opened.
    pub servers: Vec<Server>,
}

/// A port that is opened for some hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// Port.
    pub port: Option<ServerPort>,
    /// Address or Unix socket; every address where empty.
    pub bind: String,
    /// `[NAMESPACE/]HOST`: hosts that are served, and namespaces whose virtual services may.
    pub hosts: Vec<String>,
    /// TLS towards clients; none where absent.
    pub tls: Option<ServerTls>,
    /// Where to without a route.
    #[serde(alias = "default_endpoint")]
    pub default_endpoint: String,
    /// Name, for logs.
    pub name: String,
}

impl Server {
    /// Protocol of the port; `Auto` where there is none that is known.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        let name = self.port.as_ref().map(|port| port.protocol.as_str()).unwrap_or_default();
        Protocol::from_name(name).unwrap_or_default()
    }
}

/// Port of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerPort {
    /// Number, of the workload or of its Service.
    pub number: u32,
    /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, MONGO, MYSQL or REDIS.
    pub protocol: String,
    /// Name.
    pub name: String,
    /// Without effect, as in Istio.
    #[serde(alias = "target_port")]
    pub target_port: u32,
}

proto_enum! {
    /// What is done with TLS of clients.
    pub enum ServerTlsMode {
        /// Handed on by server name.
        Passthrough = "PASSTHROUGH" / 0,
        /// Ended; clients show no certificate.
        Simple = "SIMPLE" / 1,
        /// Ended; clients must show a certificate.
        Mutual = "MUTUAL" / 2,
        /// Handed on to the cluster that the server name names.
        AutoPassthrough = "AUTO_PASSTHROUGH" / 3,
        /// Ended, with the certificates of the mesh on both sides.
        IstioMutual = "ISTIO_MUTUAL" / 4,
        /// Ended; clients may show a certificate.
        OptionalMutual = "OPTIONAL_MUTUAL" / 5,
    }
}

impl ServerTlsMode {
    /// Whether TLS goes on to the destination as it came.
    #[must_use]
    pub fn is_passthrough(self) -> bool {
        matches!(self, Self::Passthrough | Self::AutoPassthrough)
    }

    /// Whether certificates of clients are judged by authorities that the server names.
    #[must_use]
    pub fn asks_clients(self) -> bool {
        matches!(self, Self::Mutual | Self::OptionalMutual)
    }
}

proto_enum! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// What the proxy holds right.
        Auto = "TLS_AUTO" / 0,
        /// 1.0.
        V1_0 = "TLSV1_0" / 1,
        /// 1.1.
        V1_1 = "TLSV1_1" / 2,
        /// 1.2.
        V1_2 = "TLSV1_2" / 3,
        /// 1.3.
        V1_3 = "TLSV1_3" / 4,
    }
}

/// TLS towards clients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerTls {
    /// Requests without TLS are sent back to come again with it.
    #[serde(alias = "https_redirect")]
    pub https_redirect: bool,
    /// What is done with TLS; `SIMPLE` needs to be said.
    pub mode: ServerTlsMode,
    /// File of the certificate chain.
    #[serde(alias = "server_certificate")]
    pub server_certificate: String,
    /// File of the key.
    #[serde(alias = "private_key")]
    pub private_key: String,
    /// File of the authorities of clients.
    #[serde(alias = "ca_certificates")]
    pub ca_certificates: String,
    /// File of revoked certificates.
    #[serde(alias = "ca_crl")]
    pub ca_crl: String,
    /// Secret of certificate, key and authorities.
    #[serde(alias = "credential_name")]
    pub credential_name: String,
    /// Secrets of several certificates.
    #[serde(alias = "credential_names")]
    pub credential_names: Vec<String>,
    /// Secret of the authorities alone.
    #[serde(alias = "ca_cert_credential_name")]
    pub ca_cert_credential_name: String,
    /// Files of several certificates.
    #[serde(alias = "tls_certificates")]
    pub tls_certificates: Vec<TlsCertificate>,
    /// Names of which a client's certificate must have one.
    #[serde(alias = "subject_alt_names")]
    pub subject_alt_names: Vec<String>,
    /// Key hashes of which a client's certificate must have one.
    #[serde(alias = "verify_certificate_spki")]
    pub verify_certificate_spki: Vec<String>,
    /// Hashes of which a client's certificate must have one.
    #[serde(alias = "verify_certificate_hash")]
    pub verify_certificate_hash: Vec<String>,
    /// Oldest version.
    #[serde(alias = "min_protocol_version")]
    pub min_protocol_version: TlsVersion,
    /// Newest version.
    #[serde(alias = "max_protocol_version")]
    pub max_protocol_version: TlsVersion,
    /// Cipher suites.
    #[serde(alias = "cipher_suites")]
    pub cipher_suites: Vec<String>,
    /// Curves of the key exchange.
    #[serde(alias = "ecdh_curves")]
    pub ecdh_curves: Vec<String>,
    /// Takes any certificate of a client.
    #[serde(alias = "insecure_skip_verify")]
    pub insecure_skip_verify: Option<bool>,
}

impl ServerTls {
    /// Names of the Secrets with certificates.
    pub fn credentials(&self) -> impl Iterator<Item = &str> {
        let one = std::iter::once(&self.credential_name).filter(|name| !name.is_empty());
        one.chain(&self.credential_names).map(String::as_str)
    }

    /// File pairs of certificate chain and key.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let one = (self.server_certificate.as_str(), self.private_key.as_str());
        let several = self.tls_certificates.iter();
        std::iter::once(one)
            .filter(|(chain, _)| !chain.is_empty())
            .chain(several.map(|it| (it.server_certificate.as_str(), it.private_key.as_str())))
    }
}

/// Files of one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsCertificate {
    /// Certificate chain.
    #[serde(alias = "server_certificate")]
    pub server_certificate: String,
    /// Key.
    #[serde(alias = "private_key")]
    pub private_key: String,
    /// Authorities of clients.
    #[serde(alias = "ca_certificates")]
    pub ca_certificates: String,
}

/// Namespace and name of the gateway that an entry of `gateways` in a rule of `namespace` means;
/// `None` for `mesh`, the sidecars.
#[must_use]
pub fn gateway_of<'a>(entry: &'a str, namespace: &'a str) -> Option<(&'a str, &'a str)> {
    if entry == "mesh" {
        return None;
    }
    if let Some((of, name)) = entry.split_once('/') {
        return Some((if of == "." { namespace } else { of }, name));
    }
    // An older form is NAME.NAMESPACE.svc...
    let mut labels = entry.split('.');
    let name = labels.next().unwrap_or(entry);
    Some((labels.next().unwrap_or(namespace), name))
}

/// Namespace part and host part of an entry of `hosts`; without namespace, any.
#[must_use]
pub fn server_host(entry: &str) -> (&str, &str) {
    entry.split_once('/').unwrap_or(("*", entry))
}

#[cfg(test)]
mod tests {
    use super::{gateway_of, server_host};

    #[test]
    fn gateways_are_named_with_and_without_namespace() {
        assert_eq!(gateway_of("mesh", "shop"), None);
        assert_eq!(gateway_of("edge", "shop"), Some(("shop", "edge")));
        assert_eq!(gateway_of("./edge", "shop"), Some(("shop", "edge")));
        assert_eq!(gateway_of("front/edge", "shop"), Some(("front", "edge")));
        assert_eq!(gateway_of("edge.front.svc.cluster.local", "shop"), Some(("front", "edge")));
    }

    #[test]
    fn hosts_of_servers_may_name_a_namespace() {
        assert_eq!(server_host("a.example.com"), ("*", "a.example.com"));
        assert_eq!(server_host("./*"), (".", "*"));
    }
}
