//! TLS that a gateway ends, and the secrets it is ended with.
//!
//! Certificates stand in Secrets of the gateway's own namespace, named `kubernetes://NAME`, or in
//! files of its pod. A Secret is Kubernetes' (`tls.crt`, `tls.key`, `ca.crt`) or of Istio's generic
//! form (`cert`, `key`, `cacert`); the authorities of clients may stand in another, `NAME-cacert`.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret as Sds, TlsCertificate,
};
use lateen_api::core::Secret;
use lateen_api::networking::{Gateway, ServerTls, ServerTlsMode, TlsVersion};

use super::gateway::Placed;
use super::input::{Edge, MeshSettings};
use super::tls::{ServerContext, mesh_server, server_context};

/// Begins the names of secrets that are Secrets.
const KUBERNETES: &str = "kubernetes://";
/// Ends the names of secrets and Secrets with authorities.
const AUTHORITIES: &str = "-cacert";

/// The TLS of a server; `None` when it ends none.
pub(crate) fn server(placed: &Placed<'_>, mesh: &MeshSettings) -> Option<TransportSocket> {
    let tls = placed.server.tls.as_ref()?;
    let alpn: &[&str] = if placed.reads_http() { &["h2", "http/1.1"] } else { &[] };
    if tls.mode == ServerTlsMode::IstioMutual {
        return Some(mesh_server(&mesh.trust_domains, alpn));
    }
    let authorities = authorities_name(tls).filter(|_| tls.mode.asks_clients());
    Some(server_context(&ServerContext {
        secrets: tls.credentials().map(|name| format!("{KUBERNETES}{name}")).collect(),
        files: tls.files().map(|(chain, key)| (chain.to_owned(), key.to_owned())).collect(),
        authorities: authorities.map(|name| format!("{KUBERNETES}{name}{AUTHORITIES}")),
        authorities_file: authorities_file(tls).filter(|_| tls.mode.asks_clients()),
        subject_alt_names: tls.subject_alt_names.clone(),
        demands: tls.mode == ServerTlsMode::Mutual,
        only_1_3: tls.min_protocol_version == TlsVersion::V1_3,
        alpn,
    }))
}

/// The Secret with the authorities of clients.
fn authorities_name(tls: &ServerTls) -> Option<&str> {
    let own = Some(tls.ca_cert_credential_name.as_str()).filter(|name| !name.is_empty());
    own.or_else(|| tls.credentials().next().filter(|_| tls.ca_certificates.is_empty()))
}

fn authorities_file(tls: &ServerTls) -> Option<String> {
    let several = tls.tls_certificates.iter().map(|it| &it.ca_certificates);
    let mut files = std::iter::once(&tls.ca_certificates).chain(several);
    files.find(|file| !file.is_empty()).cloned()
}

/// Names of the Secrets that gateways refer to, with those that may hold their authorities.
pub(crate) fn referenced<'a>(gateways: impl IntoIterator<Item = &'a Gateway>) -> BTreeSet<String> {
    let servers = gateways.into_iter().flat_map(|gateway| &gateway.servers);
    let mut names = BTreeSet::new();
    for tls in servers.filter_map(|server| server.tls.as_ref()) {
        names.extend(tls.credentials().map(str::to_owned));
        if let Some(name) = authorities_name(tls).filter(|_| tls.mode.asks_clients()) {
            names.insert(name.to_owned());
            names.insert(format!("{name}{AUTHORITIES}"));
        }
    }
    names
}

/// The secrets of a gateway: a certificate, authorities, or both of each Secret.
pub(crate) fn secrets(edge: &Edge) -> Vec<Sds> {
    let mut made = Vec::new();
    for (name, secret) in &edge.secrets {
        if let Some(certificate) = certificate(secret) {
            made.push(Sds {
                name: format!("{KUBERNETES}{name}"),
                r#type: Some(Type::TlsCertificate(certificate)),
            });
        }
        // Authorities in a Secret of their own win over those beside the certificate.
        let own = name.strip_suffix(AUTHORITIES);
        let beside = own.is_none() && !edge.secrets.contains_key(&format!("{name}{AUTHORITIES}"));
        let found = authorities(secret).filter(|_| own.is_some() || beside);
        made.extend(found.map(|pem| Sds {
            name: format!("{KUBERNETES}{}{AUTHORITIES}", own.unwrap_or(name)),
            r#type: Some(Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(bytes(pem)),
                ..CertificateValidationContext::default()
            })),
        }));
    }
    made
}

fn certificate(secret: &Secret) -> Option<TlsCertificate> {
    let pairs = [("tls.crt", "tls.key"), ("cert", "key")];
    let (chain, key) = pairs
        .into_iter()
        .find_map(|(chain, key)| Some((value(secret, chain)?, value(secret, key)?)))?;
    Some(TlsCertificate {
        certificate_chain: Some(bytes(chain)),
        private_key: Some(bytes(key)),
        ..TlsCertificate::default()
    })
}

fn authorities(secret: &Secret) -> Option<Vec<u8>> {
    value(secret, "ca.crt").or_else(|| value(secret, "cacert"))
}

fn value(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    if let Some(text) = secret.string_data.get(key) {
        return Some(text.clone().into_bytes());
    }
    STANDARD.decode(secret.data.get(key)?).ok().filter(|bytes| !bytes.is_empty())
}

fn bytes(pem: Vec<u8>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(pem)), ..DataSource::default() }
}
