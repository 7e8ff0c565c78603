//! Checks of `WorkloadGroup`: what entries begin with, and how health is known.

use super::{Remarks, fields, service_entry};
use crate::networking::{HttpProbe, ReadinessProbe, WorkloadGroup};

/// Checks a WorkloadGroup.
pub(super) fn check(spec: &WorkloadGroup, remarks: &mut Remarks) {
    match &spec.template {
        // Its address is known when a workload joins.
        Some(template) => service_entry::check_template(template, remarks),
        None => remarks.error("spec.template", "what entries begin with is needed, may it be {}"),
    }
    if let Some(metadata) = &spec.metadata {
        fields::labels(remarks, "spec.metadata.labels", &metadata.labels);
    }
    if let Some(it) = &spec.probe {
        probe(remarks, it);
    }
}

fn probe(remarks: &mut Remarks, probe: &ReadinessProbe) {
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, number) in numbers {
        remarks.refuse_unless(number >= 0, &format!("spec.probe.{name}"), "must be 0 or more");
    }
    let given = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
        probe.grpc.is_some(),
    ];
    if given.iter().filter(|is| **is).count() != 1 {
        let message = "exactly one of httpGet, tcpSocket, exec and grpc is needed";
        remarks.error("spec.probe", message);
    }
    if let Some(it) = &probe.http_get {
        http(remarks, it);
    }
    if let Some(it) = &probe.tcp_socket {
        fields::port(remarks, "spec.probe.tcpSocket.port", it.port);
    }
    if let Some(it) = &probe.exec {
        let said = !it.command.is_empty() && it.command.iter().all(|word| !word.is_empty());
        remarks.refuse_unless(said, "spec.probe.exec.command", "a command is needed");
    }
    if let Some(it) = &probe.grpc {
        fields::port(remarks, "spec.probe.grpc.port", it.port);
    }
}

fn http(remarks: &mut Remarks, probe: &HttpProbe) {
    fields::port(remarks, "spec.probe.httpGet.port", probe.port);
    if !matches!(probe.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        remarks.error("spec.probe.httpGet.scheme", "must be HTTP or HTTPS");
    }
    for (index, header) in probe.http_headers.iter().enumerate() {
        let path = format!("spec.probe.httpGet.httpHeaders[{index}].name");
        fields::plain_header(remarks, &path, &header.name);
    }
}
