//! Whether a resource means something: the checks that come after its shape has been read.
//!
//! One file per kind. An error refuses the resource; a warning says that a part of it has no
//! effect. Everything here is a pure function of one resource.

mod attachment;
mod authorization;
mod destination_rule;
mod dry_run;
mod envoy_filter;
mod extensions;
mod fields;
mod gateway;
mod http;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;
mod workload_group;

use serde::de::DeserializeOwned;

use crate::finding::Finding;
use crate::kind::{self, Kind};
use crate::networking::{DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry};
use crate::object::{Object, Resource};
use crate::security::{AuthorizationPolicy, PeerAuthentication};

/// A resource of an Istio kind that is acted upon.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "lives for one check; what is kept is unwrapped")]
pub enum Istio {
    /// A VirtualService.
    VirtualService(Resource<VirtualService>),
    /// A DestinationRule.
    DestinationRule(Resource<DestinationRule>),
    /// A Gateway.
    Gateway(Resource<Gateway>),
    /// A ServiceEntry.
    ServiceEntry(Resource<ServiceEntry>),
    /// A WorkloadEntry.
    WorkloadEntry(Resource<WorkloadEntry>),
    /// A PeerAuthentication.
    PeerAuthentication(Resource<PeerAuthentication>),
    /// An AuthorizationPolicy.
    AuthorizationPolicy(Resource<AuthorizationPolicy>),
}

/// Outcome of reading and checking one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checked {
    /// The resource; `None` when it was refused, has no effect, or is of somebody else's kind.
    pub resource: Option<Istio>,
    /// What there is to say.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Whether the object was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }
}

/// Reads and checks an object of any kind; kinds that are not Istio's pass without remark.
#[must_use]
pub fn check(object: &Object) -> Checked {
    let Some(info) = kind::of(object) else { return Checked::default() };
    let mut findings: Vec<Finding> = match kind::check(info, object) {
        Ok(remark) => remark.into_iter().collect(),
        Err(refusal) => return Checked { resource: None, findings: vec![refusal] },
    };
    // IstioOperator is input of the installer, which needs no name.
    if object.metadata.name.is_empty() && info.kind != Kind::IstioOperator {
        findings.push(Finding::error("metadata.name", "a name is needed").about(object));
    }
    let (only_watched, remark) = dry_run::check(info.kind, object);
    findings.extend(remark);
    let typed = by_kind(info.kind, object);
    let resource = match typed {
        Ok((resource, remarks)) => {
            findings.extend(remarks);
            resource
        }
        Err(refusal) => {
            findings.push(refusal);
            None
        }
    };
    let refused = findings.iter().any(Finding::is_error);
    Checked { resource: resource.filter(|_| !refused && !only_watched), findings }
}

type Typed = Result<(Option<Istio>, Vec<Finding>), Finding>;

fn by_kind(kind: Kind, object: &Object) -> Typed {
    match kind {
        Kind::VirtualService => typed(object, virtual_service::check, Istio::VirtualService),
        Kind::DestinationRule => typed(object, destination_rule::check, Istio::DestinationRule),
        Kind::Gateway => typed(object, gateway::check, Istio::Gateway),
        Kind::ServiceEntry => typed(object, service_entry::check, Istio::ServiceEntry),
        Kind::WorkloadEntry => typed(object, service_entry::check_workload, Istio::WorkloadEntry),
        Kind::PeerAuthentication => {
            typed(object, peer_authentication::check, Istio::PeerAuthentication)
        }
        Kind::AuthorizationPolicy => {
            typed(object, authorization::check, Istio::AuthorizationPolicy)
        }
        Kind::EnvoyFilter => judged(object, envoy_filter::check),
        Kind::ProxyConfig => judged(object, proxy_config::check),
        Kind::RequestAuthentication => judged(object, request_authentication::check),
        Kind::Sidecar => judged(object, sidecar::check),
        Kind::Telemetry => judged(object, telemetry::check),
        Kind::TrafficExtension => judged(object, extensions::check_extension),
        Kind::WasmPlugin => judged(object, extensions::check_plugin),
        Kind::WorkloadGroup => judged(object, workload_group::check),
        // It has no definition: installers read it from files, each its own way.
        Kind::IstioOperator => Ok((None, Vec::new())),
    }
}

fn typed<S: DeserializeOwned>(
    object: &Object,
    check: fn(&S, &mut Remarks),
    wrap: fn(Resource<S>) -> Istio,
) -> Typed {
    let resource = object.decode_spec::<S>()?;
    let findings = remarks_on(object, &resource.spec, check);
    Ok((Some(wrap(resource)), findings))
}

/// Judges an object of a kind that is not acted upon.
fn judged<S: DeserializeOwned>(object: &Object, check: fn(&S, &mut Remarks)) -> Typed {
    let resource = object.decode_spec::<S>()?;
    Ok((None, remarks_on(object, &resource.spec, check)))
}

fn remarks_on<S>(object: &Object, spec: &S, check: fn(&S, &mut Remarks)) -> Vec<Finding> {
    let mut remarks = Remarks::default();
    check(spec, &mut remarks);
    remarks.findings.into_iter().map(|finding| finding.about(object)).collect()
}

/// Collects what there is to say about one resource.
#[derive(Debug, Default)]
struct Remarks {
    findings: Vec<Finding>,
}

impl Remarks {
    fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::error(path, message));
    }

    fn warn(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding::warning(path, message));
    }

    fn refuse_unless(&mut self, holds: bool, path: &str, message: &str) {
        if !holds {
            self.error(path, message);
        }
    }

    /// Says that a field that is set has no effect.
    fn not_honoured(&mut self, is_set: bool, path: &str, field: &str) {
        if is_set {
            self.warn(format!("{path}.{field}"), format!("{field} is not honoured yet"));
        }
    }
}

#[cfg(test)]
mod tests;
