//! Checks of `Sidecar`: listeners, the hosts they are for, and where they send what they accept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Remarks, destination_rule, fields, gateway};
use crate::host::is_label;
use crate::networking::{
    CaptureMode, EgressListener, IngressListener, OutboundMode, OutboundTrafficPolicy, ServerTls,
    ServerTlsMode, Sidecar, SidecarPort,
};
use crate::port::Protocol;

/// Checks a Sidecar.
pub(super) fn check(spec: &Sidecar, remarks: &mut Remarks) {
    fields::workload_selector(remarks, spec.workload_selector.as_ref());
    let Sidecar { ingress, egress, inbound_connection_pool, outbound_traffic_policy, .. } = spec;
    let limits = inbound_connection_pool.is_some() || outbound_traffic_policy.is_some();
    if ingress.is_empty() && egress.is_empty() && !limits {
        remarks.error("spec", "it says nothing: name ingress, egress or a policy");
    }
    if let Some(pool) = inbound_connection_pool {
        destination_rule::connection_pool(remarks, "spec.inboundConnectionPool", pool);
    }
    let mut numbers = BTreeSet::new();
    for (index, it) in ingress.iter().enumerate() {
        accepted(remarks, &format!("spec.ingress[{index}]"), it, &mut numbers);
    }
    known(remarks, egress);
    if let Some(policy) = outbound_traffic_policy {
        outbound(remarks, policy);
    }
}

fn accepted(
    remarks: &mut Remarks,
    path: &str,
    listener: &IngressListener,
    numbers: &mut BTreeSet<u32>,
) {
    let Some(wanted) = &listener.port else {
        return remarks.error(format!("{path}.port"), "a port is needed");
    };
    port(remarks, &format!("{path}.port"), wanted);
    fields::port(remarks, &format!("{path}.port.number"), wanted.number);
    if !numbers.insert(wanted.number) {
        let message = format!("port {} is there twice", wanted.number);
        remarks.error(format!("{path}.port.number"), message);
    }
    address(remarks, &format!("{path}.bind"), &listener.bind);
    endpoint(remarks, &format!("{path}.defaultEndpoint"), &listener.default_endpoint);
    let protocol = Protocol::from_name(&wanted.protocol).unwrap_or_default();
    if let Some(settings) = &listener.tls {
        let path = format!("{path}.tls");
        let message = "has a meaning on ports of protocol HTTPS and TLS only";
        remarks.refuse_unless(protocol.is_tls(), &path, message);
        tls(remarks, &path, settings);
    }
    if let Some(pool) = &listener.connection_pool {
        let path = format!("{path}.connectionPool");
        destination_rule::connection_pool(remarks, &path, pool);
        if pool.http.is_some() && !protocol.is_http() {
            let message = format!("has no effect on a port of protocol {}", protocol.as_str());
            remarks.warn(format!("{path}.http"), message);
        }
    }
}

fn port(remarks: &mut Remarks, path: &str, port: &SidecarPort) {
    if !port.name.is_empty() && !is_label(&port.name) {
        remarks.error(format!("{path}.name"), format!("`{}` is not a port name", port.name));
    }
    if !port.protocol.is_empty() && Protocol::from_name(&port.protocol).is_none() {
        let message = format!("unknown protocol `{}`", port.protocol);
        remarks.error(format!("{path}.protocol"), message);
    }
    if port.target_port != 0 {
        remarks.error(format!("{path}.targetPort"), "has no meaning here: leave it out");
    }
}

fn address(remarks: &mut Remarks, path: &str, bind: &str) {
    if !bind.is_empty() && bind.parse::<IpAddr>().is_err() {
        remarks.error(path, format!("`{bind}` is not an address"));
    }
}

/// `ADDRESS:PORT` of this machine, `:PORT`, or a Unix socket.
fn endpoint(remarks: &mut Remarks, path: &str, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Some(socket) = text.strip_prefix("unix://") {
        return fields::socket(remarks, path, socket);
    }
    let split = text.rsplit_once(':');
    let here = ["", "127.0.0.1", "0.0.0.0", "[::1]", "[::]"];
    let fits = split.is_some_and(|(host, port)| {
        here.contains(&host) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !fits {
        let message = format!(
            "`{text}` is neither 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT, :PORT nor unix://PATH"
        );
        remarks.error(path, message);
    }
}

fn tls(remarks: &mut Remarks, path: &str, tls: &ServerTls) {
    let refused = [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("mode", matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough)),
    ];
    for (name, given) in refused {
        if given {
            let message = "is for gateways: a sidecar takes SIMPLE or MUTUAL, with files";
            remarks.error(format!("{path}.{name}"), message);
        }
    }
    gateway::credentials(remarks, path, tls);
}

fn known(remarks: &mut Remarks, listeners: &[EgressListener]) {
    let (mut numbers, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        match &listener.port {
            None if index + 1 < listeners.len() => {
                let message = "only the last one may be without a port: it is for all the others";
                remarks.error(format!("{path}.port"), message);
            }
            None => {}
            Some(wanted) => {
                port(remarks, &format!("{path}.port"), wanted);
                bound(remarks, &path, listener, wanted);
                let new = match wanted.number {
                    0 => sockets.insert(listener.bind.as_str()),
                    number => numbers.insert(number),
                };
                let message = "this port or socket is there twice";
                remarks.refuse_unless(new, &format!("{path}.port.number"), message);
            }
        }
        hosts(remarks, &format!("{path}.hosts"), &listener.hosts);
    }
}

fn bound(remarks: &mut Remarks, path: &str, listener: &EgressListener, port: &SidecarPort) {
    let bind = format!("{path}.bind");
    if port.number != 0 {
        fields::port(remarks, &format!("{path}.port.number"), port.number);
        return address(remarks, &bind, &listener.bind);
    }
    match listener.bind.strip_prefix("unix://") {
        Some(socket) => fields::socket(remarks, &bind, socket),
        None => remarks.error(bind, "a port of number 0 is a Unix socket: unix://PATH"),
    }
    if listener.capture_mode == CaptureMode::Iptables {
        remarks.error(format!("{path}.captureMode"), "nothing is redirected to a Unix socket");
    }
}

/// `NAMESPACE/HOST`, where a namespace may be `*`, `.`, `~`, or begin with `~` to be left out.
fn hosts(remarks: &mut Remarks, path: &str, hosts: &[String]) {
    if hosts.is_empty() {
        remarks.error(path, "at least one host is needed, such as ./*");
    }
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (index, entry) in hosts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some((namespace, name)) = entry.split_once('/') else {
            remarks.error(path, format!("`{entry}` is not NAMESPACE/HOST"));
            continue;
        };
        let plain = namespace.strip_prefix('~').unwrap_or(namespace);
        if namespace.is_empty() || !(matches!(plain, "" | "*" | ".") || is_label(plain)) {
            let message = format!("`{namespace}` is neither `*`, `.`, `~` nor a namespace");
            remarks.error(&path, message);
        }
        if name != "*" && !name.contains('.') {
            remarks.error(&path, format!("`{name}` is no full name: it has no dot"));
        } else {
            fields::domain(remarks, &path, name);
        }
        if !namespace.starts_with('~') {
            let names = seen.entry(namespace).or_default();
            if names.contains("*") || (name == "*" && !names.is_empty()) || !names.insert(name) {
                remarks.warn(path, format!("`{entry}` is covered by another entry"));
            }
        }
    }
    if seen.get("*").is_some_and(|names| names.contains("*")) && seen.len() > 1 {
        remarks.warn(path, "`*/*` is everything: the other entries have no effect");
    }
}

fn outbound(remarks: &mut Remarks, policy: &OutboundTrafficPolicy) {
    let Some(proxy) = &policy.egress_proxy else { return };
    let path = "spec.outboundTrafficPolicy.egressProxy";
    if policy.mode != OutboundMode::AllowAny {
        remarks.error(path, "goes with mode ALLOW_ANY only");
    }
    fields::destination(remarks, path, proxy);
    remarks.refuse_unless(proxy.port.is_some(), &format!("{path}.port"), "a port is needed");
}
