//! TLS contexts of listeners and clusters.
//!
//! Cipher suites and curves are not configurable: the provider's own, all of them forward
//! secret, are used. Versions below TLS 1.2 are never spoken.

use super::field::{truth, type_name, unpack};
use super::matcher::{string, strings};
use super::metadata::{Extension, extension};
use super::{At, Refusal, each, unsupported};
use crate::config::{
    ClientTls, DISCOVERED, FILE_CERT, FILE_ROOT, Name, ServerTls, StringMatch, Validation,
};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use std::sync::Arc;
use tls::certificate_validation_context::TrustChainVerification;
use tls::common_tls_context::ValidationContextType;
use tls::downstream_tls_context::OcspStaplePolicy;
use tls::subject_alt_name_matcher::SanType;
use tls::tls_parameters::TlsProtocol;
use tls::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    UpstreamTlsContext,
};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// The TLS a filter chain terminates; `None` for plaintext.
pub(super) fn server(socket: &TransportSocket) -> Result<Option<Arc<ServerTls>>, Refusal> {
    let ConfigType::TypedConfig(any) = config(socket)?;
    match extension(Some(any))? {
        Extension::Message(RAW_BUFFER, _) => Ok(None),
        Extension::Message(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            any,
        ) => Ok(Some(Arc::new(downstream(&unpack(any)?).at("typed_config")?))),
        other => Err(Refusal::new(format!("unknown extension {}", other.type_name()))),
    }
}

/// The TLS that is started towards endpoints; `None` for plaintext.
pub(super) fn client(socket: &TransportSocket) -> Result<Option<ClientTls>, Refusal> {
    let ConfigType::TypedConfig(any) = config(socket)?;
    match type_name(any) {
        RAW_BUFFER => Ok(None),
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
            Ok(Some(upstream(&unpack(any)?).at("typed_config")?))
        }
        other => Err(Refusal::new(format!("unknown extension {other}"))),
    }
}

fn config(socket: &TransportSocket) -> Result<&ConfigType, Refusal> {
    socket.config_type.as_ref().ok_or_else(|| Refusal::new("typed_config is needed"))
}

fn downstream(proto: &DownstreamTlsContext) -> Result<ServerTls, Refusal> {
    unsupported(&[
        ("require_sni", truth(proto.require_sni.as_ref(), false)),
        (
            "ocsp_staple_policy",
            proto.ocsp_staple_policy != OcspStaplePolicy::LenientStapling as i32,
        ),
        ("session_ticket_keys_type", proto.session_ticket_keys_type.is_some()),
    ])?;
    let common = common(proto.common_tls_context.as_ref())?;
    if common.certificates.is_empty() {
        return Err(Refusal::new("a certificate is needed"))
            .at("common_tls_context.tls_certificate_sds_secret_configs");
    }
    let validation = match common.validation {
        Validation::Sds(name) => Some(name),
        Validation::File(path) => Some(format!("{FILE_ROOT}{path}").into()),
        Validation::None => None,
        Validation::System => {
            return Err(Refusal::new("trust anchors of clients must come by SDS or from a file"))
                .at("common_tls_context.validation_context");
        }
    };
    let require_client_certificate = truth(proto.require_client_certificate.as_ref(), false);
    if require_client_certificate && validation.is_none() {
        return Err(Refusal::new("needs trust anchors (ROOTCA) to judge the certificate by"))
            .at("require_client_certificate");
    }
    Ok(ServerTls {
        certificates: common.certificates,
        validation,
        require_client_certificate,
        subject_alt_names: common.subject_alt_names,
        alpn: common.alpn,
        tls13_only: common.tls13_only,
    })
}

fn upstream(proto: &UpstreamTlsContext) -> Result<ClientTls, Refusal> {
    unsupported(&[("allow_renegotiation", proto.allow_renegotiation)])?;
    let common = common(proto.common_tls_context.as_ref())?;
    unsupported(&[("tls_minimum_protocol_version", common.tls13_only)])
        .at("common_tls_context.tls_params")?;
    if proto.auto_sni_san_validation && matches!(common.validation, Validation::Sds(_)) {
        return Err(Refusal::new("is not supported with trust anchors by SDS"))
            .at("auto_sni_san_validation");
    }
    let mut certificates = common.certificates.into_iter();
    let certificate = certificates.next();
    if certificates.next().is_some() {
        return Err(Refusal::new("only one certificate is supported"))
            .at("common_tls_context.tls_certificates");
    }
    Ok(ClientTls {
        certificate,
        validation: common.validation,
        subject_alt_names: common.subject_alt_names,
        sni: (!proto.sni.is_empty()).then(|| proto.sni.clone()),
        auto_sni: proto.auto_host_sni || proto.auto_sni_san_validation,
        alpn: common.alpn,
    })
}

/// What both ends have in common.
struct Common {
    certificates: Vec<Name>,
    validation: Validation,
    subject_alt_names: Vec<StringMatch>,
    alpn: Vec<String>,
    tls13_only: bool,
}

fn common(proto: Option<&CommonTlsContext>) -> Result<Common, Refusal> {
    let none = CommonTlsContext::default();
    take_common(proto.unwrap_or(&none)).at("common_tls_context")
}

#[expect(deprecated, reason = "deprecated fields are refused when set")]
fn take_common(proto: &CommonTlsContext) -> Result<Common, Refusal> {
    unsupported(&[
        ("tls_certificate_provider_instance", proto.tls_certificate_provider_instance.is_some()),
        ("custom_tls_certificate_selector", proto.custom_tls_certificate_selector.is_some()),
        (
            "tls_certificate_certificate_provider",
            proto.tls_certificate_certificate_provider.is_some(),
        ),
        (
            "tls_certificate_certificate_provider_instance",
            proto.tls_certificate_certificate_provider_instance.is_some(),
        ),
        ("custom_handshaker", proto.custom_handshaker.is_some()),
        ("key_log", proto.key_log.is_some()),
    ])?;
    let mut certificates = each(
        "tls_certificate_sds_secret_configs",
        &proto.tls_certificate_sds_secret_configs,
        secret_name,
    )?;
    certificates.extend(each("tls_certificates", &proto.tls_certificates, file_certificate)?);
    let (validation, subject_alt_names) = validation(proto.validation_context_type.as_ref())?;
    Ok(Common {
        certificates,
        validation,
        subject_alt_names,
        alpn: proto.alpn_protocols.clone(),
        tls13_only: tls13_only(proto).at("tls_params")?,
    })
}

fn tls13_only(proto: &CommonTlsContext) -> Result<bool, Refusal> {
    let Some(params) = &proto.tls_params else { return Ok(false) };
    let highest = TlsProtocol::try_from(params.tls_maximum_protocol_version);
    if !matches!(highest, Ok(TlsProtocol::TlsAuto | TlsProtocol::TlSv13)) {
        return Err(Refusal::new("TLS 1.3 cannot be switched off"))
            .at("tls_maximum_protocol_version");
    }
    Ok(params.tls_minimum_protocol_version == TlsProtocol::TlSv13 as i32)
}

/// Secrets that can be had: the workload's own identity, files, and what comes by discovery.
fn secret_name(secret: &SdsSecretConfig) -> Result<Name, Refusal> {
    let name = secret.name.as_str();
    let known = matches!(name, "default" | "ROOTCA")
        || name.strip_prefix(FILE_CERT).is_some_and(|files| files.contains('~'))
        || name.starts_with(FILE_ROOT)
        || name.starts_with(DISCOVERED);
    if known {
        Ok(name.into())
    } else {
        Err(Refusal::new(format!(
            "secret {name:?} is not one of default, ROOTCA, kubernetes://NAME, file-cert:CHAIN~KEY, file-root:FILE"
        )))
        .at("name")
    }
}

/// A certificate given in place, which must be in files.
fn file_certificate(proto: &tls::TlsCertificate) -> Result<Name, Refusal> {
    unsupported(&[
        ("private_key_provider", proto.private_key_provider.is_some()),
        ("pkcs12", proto.pkcs12.is_some()),
        ("password", proto.password.is_some()),
        ("ocsp_staple", proto.ocsp_staple.is_some()),
        ("watched_directory", proto.watched_directory.is_some()),
    ])?;
    let file = |source: Option<&DataSource>| match source.and_then(|s| s.specifier.as_ref()) {
        Some(Specifier::Filename(path)) if !path.contains('~') => Ok(path.clone()),
        _ => Err(Refusal::new("must be a file name")),
    };
    let chain = file(proto.certificate_chain.as_ref()).at("certificate_chain")?;
    let key = file(proto.private_key.as_ref()).at("private_key")?;
    Ok(format!("{FILE_CERT}{chain}~{key}").into())
}

/// Trust anchors by SDS; those of files are read as files.
fn anchors(secret: &SdsSecretConfig) -> Result<Validation, Refusal> {
    let name = secret_name(secret)?;
    Ok(match name.strip_prefix(FILE_ROOT) {
        Some(path) => Validation::File(path.to_owned()),
        None => Validation::Sds(name),
    })
}

fn validation(
    kind: Option<&ValidationContextType>,
) -> Result<(Validation, Vec<StringMatch>), Refusal> {
    match kind {
        None => Ok((Validation::None, Vec::new())),
        Some(ValidationContextType::ValidationContext(context)) => {
            given(context).at("validation_context")
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(secret)) => {
            Ok((anchors(secret).at("validation_context_sds_secret_config")?, Vec::new()))
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            let names = match &combined.default_validation_context {
                Some(context) => {
                    given(context).at("combined_validation_context.default_validation_context")?.1
                }
                None => Vec::new(),
            };
            let secret = combined
                .validation_context_sds_secret_config
                .as_ref()
                .ok_or_else(|| Refusal::new("is needed"))
                .and_then(anchors)
                .at("combined_validation_context.validation_context_sds_secret_config")?;
            Ok((secret, names))
        }
        #[expect(deprecated, reason = "deprecated forms are refused")]
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => Err(Refusal::new("certificate providers are not supported")),
    }
}

#[expect(deprecated, reason = "match_subject_alt_names is still sent by some control planes")]
fn given(
    context: &CertificateValidationContext,
) -> Result<(Validation, Vec<StringMatch>), Refusal> {
    let accepts_untrusted =
        context.trust_chain_verification == TrustChainVerification::AcceptUntrusted as i32;
    unsupported(&[
        ("ca_certificate_provider_instance", context.ca_certificate_provider_instance.is_some()),
        ("verify_certificate_spki", !context.verify_certificate_spki.is_empty()),
        ("verify_certificate_hash", !context.verify_certificate_hash.is_empty()),
        (
            "require_signed_certificate_timestamp",
            truth(context.require_signed_certificate_timestamp.as_ref(), false),
        ),
        ("crl", context.crl.is_some()),
        ("allow_expired_certificate", context.allow_expired_certificate),
        ("trust_chain_verification", accepts_untrusted),
        ("custom_validator_config", context.custom_validator_config.is_some()),
        ("max_verify_depth", context.max_verify_depth.is_some()),
    ])?;
    let mut names = strings("match_subject_alt_names", &context.match_subject_alt_names)?;
    for (i, typed) in context.match_typed_subject_alt_names.iter().enumerate() {
        names.push(subject_alt_name(typed).at_index("match_typed_subject_alt_names", i)?);
    }
    let file = match context.trusted_ca.as_ref().map(|source| &source.specifier) {
        None => None,
        Some(Some(Specifier::Filename(path))) => Some(path),
        Some(_) => return Err(Refusal::new("must be a file name")).at("trusted_ca"),
    };
    let validation = match (file, context.system_root_certs.is_some()) {
        (Some(path), _) => Validation::File(path.clone()),
        (None, true) => Validation::System,
        (None, false) => Validation::None,
    };
    Ok((validation, names))
}

fn subject_alt_name(typed: &tls::SubjectAltNameMatcher) -> Result<StringMatch, Refusal> {
    match SanType::try_from(typed.san_type) {
        Ok(SanType::Uri | SanType::Dns) => {}
        _ => return Err(Refusal::new("only URI and DNS names are supported")).at("san_type"),
    }
    match &typed.matcher {
        Some(matcher) => string(matcher).at("matcher"),
        None => Err(Refusal::new("is needed")).at("matcher"),
    }
}
