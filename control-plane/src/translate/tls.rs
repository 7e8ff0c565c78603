//! TLS contexts: mutual TLS between sidecars, and TLS to servers outside.
//!
//! Certificates and trust are named, never carried: `default` is the workload's own certificate,
//! `ROOTCA` the mesh's roots. Who may be talked to is decided by the caller, which gives the
//! names; this file knows no services.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
    DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsCertificate, TlsParameters,
    UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::pack::{any, flag, from_ads, matcher, transport_socket};

/// Secret name of the workload's own certificate.
pub(crate) const WORKLOAD_SECRET: &str = "default";
/// Secret name of the mesh's roots.
pub(crate) const ROOT_SECRET: &str = "ROOTCA";
/// What a sidecar says in ALPN when it speaks plain TCP inside mutual TLS.
pub(crate) const ALPN_MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// What it says when it speaks HTTP inside mutual TLS.
pub(crate) const ALPN_MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Name of the TLS transport socket.
const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

/// What a client wants of a TLS server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ClientTls {
    /// Server name to send; empty sends none.
    pub(crate) sni: String,
    /// Names of which the server's certificate must have one; empty takes any.
    pub(crate) subject_alt_names: Vec<String>,
    /// Protocols offered.
    pub(crate) alpn: Vec<String>,
    /// Certificate and key files of the client, for mutual TLS outside the mesh.
    pub(crate) certificate: Option<(String, String)>,
    /// File with the authorities to trust; `None` trusts the system's.
    pub(crate) ca_file: Option<String>,
    /// Takes any certificate.
    pub(crate) insecure: bool,
}

/// Mutual TLS to another sidecar: exactly these identities are taken for the service.
pub(crate) fn mesh_client(sni: String, identities: &[String], alpn: &[&str]) -> TransportSocket {
    let names = identities.iter().map(|name| exact_name(name)).collect();
    let context = UpstreamTlsContext {
        sni,
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(tls12_and_13(TlsProtocol::TlSv12)),
            alpn_protocols: owned(alpn),
            ..mesh_identity(names)
        }),
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// Mutual TLS from another sidecar: `trust_domains` are those whose identities are taken.
pub(crate) fn mesh_server(trust_domains: &[String], alpn: &[&str]) -> TransportSocket {
    let names = trust_domains
        .iter()
        .map(|domain| matcher(MatchPattern::Prefix(format!("spiffe://{domain}/"))))
        .collect();
    let context = DownstreamTlsContext {
        require_client_certificate: Some(flag(true)),
        disable_stateful_session_resumption: false,
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                cipher_suites: owned(&[
                    "ECDHE-ECDSA-AES256-GCM-SHA384",
                    "ECDHE-RSA-AES256-GCM-SHA384",
                    "ECDHE-ECDSA-AES128-GCM-SHA256",
                    "ECDHE-RSA-AES128-GCM-SHA256",
                ]),
                ..tls12_and_13(TlsProtocol::TlSv12)
            }),
            alpn_protocols: owned(alpn),
            ..mesh_identity(names)
        }),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// The name under which the bootstrap file of a gRPC library has the workload's certificate and
/// the mesh's roots.
const PROVIDER: &str = "default";

/// Mutual TLS of a gRPC library to a server: exactly these identities are taken for the service.
///
/// Libraries read certificates from files that their bootstrap file names; of names of servers
/// they know the untyped matchers only.
#[expect(deprecated, reason = "gRPC libraries read no other field of these names")]
pub(crate) fn grpc_client(identities: &[String]) -> TransportSocket {
    let validation = CertificateValidationContext {
        match_subject_alt_names: identities.iter().map(|name| exact_name(name)).collect(),
        ..provided_roots()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(provided_identity(validation)),
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// Mutual TLS of a gRPC library as a server, which knows no names of clients.
pub(crate) fn grpc_server() -> TransportSocket {
    let context = DownstreamTlsContext {
        require_client_certificate: Some(flag(true)),
        common_tls_context: Some(provided_identity(provided_roots())),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

fn provided_roots() -> CertificateValidationContext {
    CertificateValidationContext {
        ca_certificate_provider_instance: Some(provided(ROOT_SECRET)),
        ..CertificateValidationContext::default()
    }
}

fn provided_identity(validation: CertificateValidationContext) -> CommonTlsContext {
    CommonTlsContext {
        tls_certificate_provider_instance: Some(provided(WORKLOAD_SECRET)),
        validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}

fn provided(certificate: &str) -> CertificateProviderPluginInstance {
    CertificateProviderPluginInstance {
        instance_name: PROVIDER.to_owned(),
        certificate_name: certificate.to_owned(),
    }
}

/// What a TLS server shows and demands that is no sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerContext<'a> {
    /// Names of secrets with certificates.
    pub(crate) secrets: Vec<String>,
    /// Files of certificate chains and keys.
    pub(crate) files: Vec<(String, String)>,
    /// Name of the secret with the authorities of clients.
    pub(crate) authorities: Option<String>,
    /// File with the authorities of clients.
    pub(crate) authorities_file: Option<String>,
    /// Names of which a client's certificate must have one; empty takes any.
    pub(crate) subject_alt_names: Vec<String>,
    /// Whether clients must show a certificate.
    pub(crate) demands: bool,
    /// Whether TLS 1.2 is not spoken.
    pub(crate) only_1_3: bool,
    /// Protocols, most wanted first.
    pub(crate) alpn: &'a [&'a str],
}

/// TLS from clients outside the mesh.
pub(crate) fn server_context(server: &ServerContext<'_>) -> TransportSocket {
    let minimum = if server.only_1_3 { TlsProtocol::TlSv13 } else { TlsProtocol::TlSv12 };
    let names = CertificateValidationContext {
        trusted_ca: server.authorities_file.as_deref().map(data_file),
        match_typed_subject_alt_names: typed_names(
            server.subject_alt_names.iter().map(|name| exact_name(name)),
            &[SanType::Dns, SanType::Uri],
        ),
        ..CertificateValidationContext::default()
    };
    let validation = match (&server.authorities, &server.authorities_file) {
        (Some(name), _) => Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(names),
                validation_context_sds_secret_config: Some(secret(name)),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        (None, Some(_)) => Some(ValidationContextType::ValidationContext(names)),
        (None, None) => None,
    };
    let context = DownstreamTlsContext {
        require_client_certificate: Some(flag(server.demands)),
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(tls12_and_13(minimum)),
            tls_certificate_sds_secret_configs: server
                .secrets
                .iter()
                .map(|it| secret(it))
                .collect(),
            tls_certificates: server.files.iter().map(file_certificate).collect(),
            alpn_protocols: owned(server.alpn),
            validation_context_type: validation,
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// TLS to a server outside the mesh.
pub(crate) fn origination(tls: &ClientTls) -> TransportSocket {
    let mut validation = CertificateValidationContext {
        match_typed_subject_alt_names: typed_names(
            tls.subject_alt_names.iter().map(|name| exact_name(name)),
            &[SanType::Dns, SanType::Uri],
        ),
        ..CertificateValidationContext::default()
    };
    match &tls.ca_file {
        Some(file) => validation.trusted_ca = Some(data_file(file)),
        None if !tls.insecure => {
            validation.system_root_certs = Some(Default::default());
        }
        None => {}
    }
    let trusts = !tls.insecure;
    let context = UpstreamTlsContext {
        sni: tls.sni.clone(),
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(tls12_and_13(TlsProtocol::TlsAuto)),
            tls_certificates: tls.certificate.iter().map(file_certificate).collect(),
            alpn_protocols: tls.alpn.clone(),
            validation_context_type: trusts
                .then_some(ValidationContextType::ValidationContext(validation)),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, any(&context))
}

/// No TLS.
pub(crate) fn plaintext() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", any(&RawBuffer {}))
}

/// The workload's certificate, and peers checked against the mesh's roots and `names`.
fn mesh_identity(names: Vec<StringMatcher>) -> CommonTlsContext {
    let validation = CertificateValidationContext {
        match_typed_subject_alt_names: typed_names(names, &[SanType::Uri]),
        ..CertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret(WORKLOAD_SECRET)],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(validation),
                validation_context_sds_secret_config: Some(secret(ROOT_SECRET)),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}

fn tls12_and_13(minimum: TlsProtocol) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: minimum as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..TlsParameters::default()
    }
}

fn typed_names(
    names: impl IntoIterator<Item = StringMatcher>,
    kinds: &[SanType],
) -> Vec<SubjectAltNameMatcher> {
    names
        .into_iter()
        .flat_map(|name| {
            kinds.iter().map(move |kind| SubjectAltNameMatcher {
                san_type: *kind as i32,
                matcher: Some(name.clone()),
                ..SubjectAltNameMatcher::default()
            })
        })
        .collect()
}

fn exact_name(name: &str) -> StringMatcher {
    matcher(MatchPattern::Exact(name.to_owned()))
}

fn secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(from_ads()) }
}

fn file_certificate((chain, key): &(String, String)) -> TlsCertificate {
    TlsCertificate {
        certificate_chain: Some(data_file(chain)),
        private_key: Some(data_file(key)),
        ..TlsCertificate::default()
    }
}

fn data_file(path: &str) -> DataSource {
    DataSource { specifier: Some(Specifier::Filename(path.to_owned())), ..DataSource::default() }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
