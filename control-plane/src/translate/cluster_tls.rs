//! TLS of outbound clusters: what a destination rule asks for, else mutual TLS to the endpoints
//! that take it.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use lateen_api::networking::{ClientTls as Asked, ClientTlsMode};
use lateen_api::port::Protocol;

use super::clusters::Origin;
use super::endpoints::TLS_MODE;
use super::input::{MeshSettings, Resolution};
use super::names::cluster_sni;
use super::pack::{structure, text};
use super::tls::{ClientTls, mesh_client, origination, plaintext};

/// Sets the transport sockets of a cluster.
pub(crate) fn apply(cluster: &mut Cluster, origin: Origin<'_>, mesh: &MeshSettings) {
    match origin.policy().tls {
        Some(tls) if tls.mode == ClientTlsMode::Disable => {}
        Some(tls) if tls.mode == ClientTlsMode::IstioMutual => {
            let given = |text: &String| (!text.is_empty()).then(|| text.clone());
            let names = mesh_names(tls, origin);
            let sni = given(&tls.sni).unwrap_or_else(|| sni(origin));
            cluster.transport_socket = Some(mesh_client(sni, &names, alpn(origin)));
        }
        Some(tls) => cluster.transport_socket = Some(origination(&asked(tls, origin))),
        None if mesh.auto_mtls && !origin.service.external => automatic(cluster, origin),
        None => {}
    }
}

/// Mutual TLS where the endpoint takes it.
fn automatic(cluster: &mut Cluster, origin: Origin<'_>) {
    let socket = || mesh_client(sni(origin), &identities(origin), alpn(origin));
    if origin.resolution() == Resolution::Passthrough {
        // Nothing is known of the address the application chose, so all must agree.
        let mut endpoints = origin.endpoints().peekable();
        if endpoints.peek().is_some() && endpoints.all(|endpoint| endpoint.mutual_tls) {
            cluster.transport_socket = Some(socket());
        }
        return;
    }
    cluster.transport_socket_matches = vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(structure([(TLS_MODE.0.to_owned(), text(TLS_MODE.1))])),
            transport_socket: Some(socket()),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(structure([])),
            transport_socket: Some(plaintext()),
        },
    ];
}

fn sni(origin: Origin<'_>) -> String {
    cluster_sni(origin.port.number, origin.subset, &origin.service.host)
}

/// Who may answer where mutual TLS of the mesh is asked for.
pub(crate) fn mesh_names(tls: &Asked, origin: Origin<'_>) -> Vec<String> {
    if tls.subject_alt_names.is_empty() {
        return identities(origin);
    }
    tls.subject_alt_names.clone()
}

/// Who may answer: all identities behind the service, sorted.
fn identities(origin: Origin<'_>) -> Vec<String> {
    if !origin.service.subject_alt_names.is_empty() {
        return origin.service.subject_alt_names.clone();
    }
    // Of the whole port, not the subset: a label that moves must not change who is trusted.
    let endpoints = origin.port.endpoints.iter();
    let mut names: Vec<String> =
        endpoints.map(|it| it.identity.clone()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What is offered by proxies that do not decide it for each request.
fn alpn(origin: Origin<'_>) -> &'static [&'static str] {
    match origin.port.protocol {
        protocol if protocol.is_http2() => &["istio-h2", "istio", "h2"],
        Protocol::Http | Protocol::GrpcWeb => &["istio-http/1.1", "istio", "http/1.1"],
        _ => &["istio"],
    }
}

fn asked(tls: &Asked, origin: Origin<'_>) -> ClientTls {
    let mutual = tls.mode == ClientTlsMode::Mutual;
    let service = origin.service;
    let names = if tls.subject_alt_names.is_empty() {
        service.subject_alt_names.clone()
    } else {
        tls.subject_alt_names.clone()
    };
    let http = origin.port.protocol.is_http();
    // For TCP there is no request from which to take the name of a server outside.
    let of_host = !http && service.external && !service.host.starts_with('*');
    let sni = if tls.sni.is_empty() && of_host { service.host.clone() } else { tls.sni.clone() };
    let names = if names.is_empty() && of_host { vec![service.host.clone()] } else { names };
    ClientTls {
        sni,
        subject_alt_names: names,
        alpn: if origin.port.protocol.is_http2() { vec!["h2".to_owned()] } else { Vec::new() },
        certificate: mutual
            .then(|| (tls.client_certificate.clone(), tls.private_key.clone()))
            .filter(|(chain, _)| !chain.is_empty()),
        ca_file: (!tls.ca_certificates.is_empty()).then(|| tls.ca_certificates.clone()),
        insecure: tls.insecure_skip_verify == Some(true),
    }
}
