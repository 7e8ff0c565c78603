//! Checks of `Gateway`: ports, hosts, and which TLS goes with which protocol and certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Remarks, fields};
use crate::host::is_label;
use crate::networking::{Gateway, Server, ServerTls, ServerTlsMode, TlsVersion, server_host};
use crate::port::Protocol;

/// Checks a Gateway.
pub(super) fn check(spec: &Gateway, remarks: &mut Remarks) {
    fields::selector(remarks, "spec.selector", &spec.selector);
    if spec.servers.is_empty() {
        remarks.error("spec.servers", "at least one server is needed");
    }
    let mut names = BTreeSet::new();
    for (index, server) in spec.servers.iter().enumerate() {
        let path = format!("spec.servers[{index}]");
        port(remarks, &path, server, &mut names);
        bind(remarks, &path, server);
        hosts(remarks, &path, server);
        remarks.not_honoured(!server.default_endpoint.is_empty(), &path, "defaultEndpoint");
        tls(remarks, &path, server);
    }
}

fn port<'a>(remarks: &mut Remarks, path: &str, server: &'a Server, names: &mut BTreeSet<&'a str>) {
    let Some(port) = &server.port else {
        return remarks.error(format!("{path}.port"), "a port is needed");
    };
    let path = format!("{path}.port");
    // A Unix socket has no port.
    if !(port.number == 0 && server.bind.starts_with("unix://")) {
        fields::port(remarks, &format!("{path}.number"), port.number);
    }
    if !is_label(&port.name) {
        remarks.error(format!("{path}.name"), format!("`{}` is not a port name", port.name));
    } else if !names.insert(&port.name) {
        let message = format!("port `{}` is there twice: names must differ", port.name);
        remarks.error(format!("{path}.name"), message);
    }
    let known = Protocol::from_name(&port.protocol).filter(|it| *it != Protocol::Udp);
    if known.is_none() {
        let message = format!(
            "unknown value `{}`, expected one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, MONGO, MYSQL, REDIS",
            port.protocol
        );
        remarks.error(format!("{path}.protocol"), message);
    }
    if port.target_port != 0 {
        remarks.warn(format!("{path}.targetPort"), "has no effect on gateways");
    }
}

fn bind(remarks: &mut Remarks, path: &str, server: &Server) {
    let path = format!("{path}.bind");
    if server.bind.starts_with("unix://") {
        remarks.warn(path, "Unix sockets are not honoured yet: this server is not opened");
    } else if !server.bind.is_empty() && server.bind.parse::<IpAddr>().is_err() {
        remarks.error(path, format!("`{}` is not an address", server.bind));
    }
}

fn hosts(remarks: &mut Remarks, path: &str, server: &Server) {
    if server.hosts.is_empty() {
        remarks.error(format!("{path}.hosts"), "at least one host is needed");
    }
    for (index, entry) in server.hosts.iter().enumerate() {
        let path = format!("{path}.hosts[{index}]");
        let (namespace, host) = server_host(entry);
        if namespace != "*" && namespace != "." && !is_label(namespace) {
            let message = format!("`{namespace}` is neither `*`, `.` nor a namespace");
            remarks.error(&path, message);
        }
        fields::host(remarks, &path, host);
    }
}

fn tls(remarks: &mut Remarks, path: &str, server: &Server) {
    let path = format!("{path}.tls");
    let protocol = server.protocol();
    let Some(tls) = &server.tls else {
        if protocol.is_tls() {
            remarks.error(path, format!("{} needs it: say at least mode", protocol.as_str()));
        }
        return;
    };
    if !protocol.is_tls() {
        let only_redirects = protocol.is_http() && tls.https_redirect;
        if !only_redirects {
            let message = format!("has no effect on a port of protocol {}", protocol.as_str());
            remarks.warn(path, message);
        }
        return;
    }
    if tls.https_redirect {
        remarks.warn(format!("{path}.httpsRedirect"), "has no effect on a port with TLS");
    }
    if protocol == Protocol::Https && tls.mode == ServerTlsMode::AutoPassthrough {
        remarks.error(format!("{path}.mode"), "AUTO_PASSTHROUGH is for protocol TLS only");
    }
    credentials(remarks, &path, tls);
    not_honoured(remarks, &path, tls);
}

/// Which certificates a mode needs, and which exclude each other.
pub(super) fn credentials(remarks: &mut Remarks, path: &str, tls: &ServerTls) {
    let named = tls.credentials().next().is_some();
    let files = tls.files().next().is_some();
    let half = |chain: &str, key: &str| chain.is_empty() != key.is_empty();
    match tls.mode {
        ServerTlsMode::IstioMutual => {
            let any = named || files || !tls.private_key.is_empty();
            let none = !any && tls.ca_certificates.is_empty();
            remarks.refuse_unless(
                none,
                path,
                "ISTIO_MUTUAL uses the certificates of the mesh: name no others",
            );
            return;
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if named || files {
                remarks.warn(path, "certificates have no effect when TLS is passed through");
            }
            return;
        }
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {}
    }
    let kinds = [
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    if kinds.iter().filter(|given| **given).count() > 1 {
        let message = "credentialName, credentialNames and tlsCertificates exclude each other";
        remarks.error(path, message);
    }
    if named && (!tls.server_certificate.is_empty() || !tls.private_key.is_empty()) {
        remarks.error(path, "credentialName excludes serverCertificate and privateKey");
    }
    let single = (tls.server_certificate.as_str(), tls.private_key.as_str());
    let several = tls.tls_certificates.iter();
    let pairs = several.map(|it| (it.server_certificate.as_str(), it.private_key.as_str()));
    if pairs.chain([single]).any(|(chain, key)| half(chain, key)) {
        remarks.error(path, "a certificate and its key are needed, both");
    } else if !named && !files {
        let message = format!(
            "{} needs credentialName, or serverCertificate and privateKey",
            tls.mode.as_str()
        );
        remarks.error(path, message);
    }
    let authorities = named
        || !tls.ca_certificates.is_empty()
        || !tls.ca_cert_credential_name.is_empty()
        || tls.tls_certificates.iter().any(|it| !it.ca_certificates.is_empty());
    if tls.mode.asks_clients() && !authorities {
        let message = format!("{} needs the authorities of clients", tls.mode.as_str());
        remarks.error(format!("{path}.caCertificates"), message);
    }
}

fn not_honoured(remarks: &mut Remarks, path: &str, tls: &ServerTls) {
    let lists = [
        (!tls.cipher_suites.is_empty(), "cipherSuites"),
        (!tls.ecdh_curves.is_empty(), "ecdhCurves"),
        (
            tls.min_protocol_version > TlsVersion::Auto
                && tls.min_protocol_version < TlsVersion::V1_2,
            "minProtocolVersion",
        ),
        (
            tls.max_protocol_version > TlsVersion::Auto
                && tls.max_protocol_version < TlsVersion::V1_3,
            "maxProtocolVersion",
        ),
    ];
    for (set, field) in lists {
        if set {
            let message = "has no effect: TLS 1.2 and 1.3 are spoken, with their best suites";
            remarks.warn(format!("{path}.{field}"), message);
        }
    }
    let judged = [
        (!tls.verify_certificate_spki.is_empty(), "verifyCertificateSpki"),
        (!tls.verify_certificate_hash.is_empty(), "verifyCertificateHash"),
        (!tls.ca_crl.is_empty(), "caCrl"),
        (tls.insecure_skip_verify == Some(true), "insecureSkipVerify"),
        (tls.mode == ServerTlsMode::AutoPassthrough, "mode"),
    ];
    for (set, field) in judged {
        if set {
            let message = "is not honoured yet: this server is not opened";
            remarks.warn(format!("{path}.{field}"), message);
        }
    }
}
