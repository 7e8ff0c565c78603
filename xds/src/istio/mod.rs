//! Messages that are Istio's own, with the certificate service.
//!
//! They are few and stable, so they are written by hand for prost; field numbers are the wire
//! contract with Istio. [`ca_client`] and [`ca_server`] speak
//! `istio.v1.auth.IstioCertificateService`.

pub mod ca_client;
pub mod ca_server;
mod messages;

pub use messages::{
    AlpnFilterConfig, AlpnOverride, AlpnProtocol, IstioCertificateRequest,
    IstioCertificateResponse, NameInfo, NameTable, PeerMetadataConfig, StatsConfig,
};

/// gRPC service name of the certificate authority.
pub const CERTIFICATE_SERVICE: &str = "istio.v1.auth.IstioCertificateService";
/// gRPC path of its one method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
