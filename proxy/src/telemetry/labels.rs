//! The labels of Istio's standard metrics, from what is known of a request or connection.
//!
//! Pure. What is not known is `unknown`. Each side reports itself from its own configuration and
//! the other side from what the peer or the endpoint says.

use super::RequestRecord;
use crate::config::{ClientTls, Cluster, Direction, Endpoint, Name, StringMatch};
use crate::config::{Transport, WorkloadLabels};
use crate::http::{Downstream, Flags};
use crate::tcp::{Outcome, TcpRecord};
use std::fmt::Write;
use std::sync::Arc;

const UNKNOWN: &str = "unknown";
const LATEST: &str = "latest";
/// Longest host taken from a request as a destination.
const MAX_HOST: usize = 255;

/// The workload this proxy belongs to.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// What is said of it.
    pub workload: WorkloadLabels,
    /// Its SPIFFE ID; empty without identity.
    pub principal: Name,
}

/// What labels are made from, for HTTP and TCP alike.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'r> {
    pub(super) downstream: &'r Downstream,
    pub(super) cluster: Option<&'r Arc<Cluster>>,
    /// The other workload, as the peer or the endpoint says.
    pub(super) peer: Option<&'r Arc<WorkloadLabels>>,
    pub(super) upstream_tls: bool,
    pub(super) flags: Flags,
    /// Host asked for, where the cluster stands for no service.
    pub(super) host: Option<&'r str>,
    /// Only of HTTP.
    pub(super) http: Option<HttpFacts>,
}

/// What only requests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct HttpFacts {
    pub(super) status: u16,
    pub(super) grpc: bool,
    pub(super) grpc_status: Option<u32>,
}

impl<'r> Facts<'r> {
    pub(super) fn of_request(record: &'r RequestRecord) -> Self {
        let inbound = record.downstream.direction == Direction::Inbound;
        let peer = if inbound {
            record.downstream_peer.as_ref()
        } else {
            record.upstream_peer.as_ref().or_else(|| workload(record.endpoint.as_ref()))
        };
        let host = record.authority.as_ref().and_then(|value| value.to_str().ok());
        Self {
            downstream: &record.downstream,
            cluster: record.cluster.as_ref(),
            peer,
            upstream_tls: record.upstream_tls,
            flags: record.flags,
            host: host
                .filter(|host| !has_service(record.cluster.as_ref()) && host.len() <= MAX_HOST),
            http: Some(HttpFacts {
                status: record.status.map_or(0, |status| status.as_u16()),
                grpc: record.grpc,
                grpc_status: record.grpc_status.filter(|_| record.grpc),
            }),
        }
    }

    pub(super) fn of_connection(record: &'r TcpRecord, outcome: &'r Outcome) -> Self {
        let inbound = record.downstream.direction == Direction::Inbound;
        Self {
            downstream: &record.downstream,
            cluster: outcome.cluster.as_ref(),
            peer: if inbound { None } else { workload(outcome.endpoint.as_ref()) },
            upstream_tls: outcome.upstream_tls,
            flags: outcome.flags,
            host: None,
            http: None,
        }
    }

    pub(super) fn is_inbound(&self) -> bool {
        self.downstream.direction == Direction::Inbound
    }

    /// The URI of the client's certificate; empty without one.
    pub(super) fn client(&self) -> &'r str {
        let tls = self.downstream.tls.as_deref();
        tls.and_then(|tls| tls.peer.as_ref()?.uris.first()).map_or("", String::as_str)
    }
}

fn workload(endpoint: Option<&Arc<Endpoint>>) -> Option<&Arc<WorkloadLabels>> {
    endpoint?.workload.as_ref()
}

fn has_service(cluster: Option<&Arc<Cluster>>) -> bool {
    cluster.is_some_and(|cluster| cluster.service.as_ref().is_some_and(|s| !s.host.is_empty()))
}

/// The label set as text, without braces.
pub(super) fn render(facts: &Facts<'_>, local: &Local) -> String {
    let mut text = String::with_capacity(1024);
    let inbound = facts.is_inbound();
    pair(&mut text, "reporter", if inbound { "destination" } else { "source" });
    let unknown = WorkloadLabels::default();
    let peer = facts.peer.map_or(&unknown, |peer| peer);
    let (source_principal, destination_principal) = principals(facts, local);
    let (source, destination) =
        if inbound { (peer, &local.workload) } else { (&local.workload, peer) };
    let source_namespace = namespace_of(source, source_principal);
    let destination_namespace = namespace_of(destination, destination_principal);
    side(&mut text, "source", source, (source_namespace, source_principal));
    side(&mut text, "destination", destination, (destination_namespace, destination_principal));
    service(&mut text, facts, destination, destination_namespace);
    let protocol = match facts.http {
        Some(HttpFacts { grpc: true, .. }) => "grpc",
        Some(_) => "http",
        None => "tcp",
    };
    pair(&mut text, "request_protocol", protocol);
    if let Some(http) = facts.http {
        pair(&mut text, "response_code", &http.status.to_string());
        let grpc = http.grpc_status.map_or_else(String::new, |code| code.to_string());
        pair(&mut text, "grpc_response_status", &grpc);
    }
    pair(&mut text, "response_flags", &facts.flags.to_string());
    let security = match (inbound, facts.downstream.is_mutual_tls()) {
        (true, true) => "mutual_tls",
        (true, false) => "none",
        (false, _) => UNKNOWN,
    };
    pair(&mut text, "connection_security_policy", security);
    text
}

fn side(text: &mut String, name: &str, of: &WorkloadLabels, (namespace, principal): (&str, &str)) {
    let labels = [
        ("workload", &*of.name, UNKNOWN),
        ("workload_namespace", namespace, UNKNOWN),
        ("principal", principal, UNKNOWN),
        ("app", &*of.app, UNKNOWN),
        ("version", &*of.version, UNKNOWN),
        ("canonical_service", &*of.canonical_service, UNKNOWN),
        ("canonical_revision", &*of.canonical_revision, LATEST),
        ("cluster", &*of.cluster, UNKNOWN),
    ];
    for (label, value, otherwise) in labels {
        let value = if value.is_empty() { otherwise } else { value };
        pair(text, &format!("{name}_{label}"), value);
    }
}

fn service(text: &mut String, facts: &Facts<'_>, to: &WorkloadLabels, namespace: &str) {
    let known = facts.cluster.and_then(|cluster| cluster.service.as_ref());
    let named = |text: &'_ str| !text.is_empty();
    let host = known.map(|s| &*s.host).filter(|h| named(h));
    let short = known.map(|s| &*s.name).filter(|n| named(n));
    // PassthroughCluster and BlackHoleCluster stand for themselves.
    let fallback = facts.cluster.map(|c| &*c.name).filter(|name| !name.contains('|'));
    let service = host.or(facts.host).unwrap_or(UNKNOWN);
    let short = short.or(fallback).or(host).or(facts.host).unwrap_or(UNKNOWN);
    let namespace = known.map(|s| &*s.namespace).filter(|n| named(n)).unwrap_or(
        if to.namespace.is_empty() && namespace.is_empty() { UNKNOWN } else { namespace },
    );
    pair(text, "destination_service", service);
    pair(text, "destination_service_name", short);
    pair(text, "destination_service_namespace", namespace);
}

/// Who proved to be whom: source, destination. Empty when nobody did.
fn principals<'f>(facts: &'f Facts<'_>, local: &'f Local) -> (&'f str, &'f str) {
    if facts.is_inbound() {
        return match facts.downstream.is_mutual_tls() {
            true => (facts.client(), &local.principal),
            false => ("", ""),
        };
    }
    if !facts.upstream_tls {
        return ("", "");
    }
    let tls = facts.cluster.and_then(|cluster| match &cluster.transport {
        Transport::Auto(tls) | Transport::Tls(tls) => Some(tls),
        Transport::Plain => None,
    });
    let own = tls.map_or("", |tls| if tls.certificate.is_some() { &*local.principal } else { "" });
    (own, tls.and_then(|tls| only_identity(tls)).unwrap_or(""))
}

/// The server's identity, where the handshake leaves only one.
fn only_identity(tls: &ClientTls) -> Option<&str> {
    match tls.subject_alt_names.as_slice() {
        [StringMatch::Exact { value, ignore_case: false }] => Some(value),
        _ => None,
    }
}

/// The namespace said, or else the one proved.
fn namespace_of<'w>(workload: &'w WorkloadLabels, principal: &'w str) -> &'w str {
    if !workload.namespace.is_empty() {
        return &workload.namespace;
    }
    let path = principal.split_once("/ns/").map_or("", |(_, rest)| rest);
    path.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Appends `name="value"`, escaped.
pub(super) fn pair(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    let _infallible = write!(text, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    text.push('"');
}
