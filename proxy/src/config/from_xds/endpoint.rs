//! Endpoints.

use super::field::{number, parts_per_million, socket_address};
use super::metadata::{namespace, text};
use super::{At, Refusal};
use crate::config::{Endpoint, EndpointSet, Health, WorkloadLabels};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3 as pb;
use pb::lb_endpoint::HostIdentifier;
use std::sync::Arc;

/// What weights are scaled by where localities do not divide evenly.
const SCALE: f64 = 1000.0;

/// Takes the endpoints of a cluster.
///
/// # Errors
/// Names the first field that cannot be honoured.
pub fn endpoints(proto: &pb::ClusterLoadAssignment) -> Result<EndpointSet, Refusal> {
    take(proto).of("endpoints", &proto.cluster_name)
}

pub(super) fn take(proto: &pb::ClusterLoadAssignment) -> Result<EndpointSet, Refusal> {
    for drop in proto.policy.iter().flat_map(|policy| &policy.drop_overloads) {
        let share = drop.drop_percentage.as_ref().map_or(Ok(0), parts_per_million)?;
        if share > 0 {
            return Err(Refusal::new("is not supported")).at("policy.drop_overloads");
        }
    }
    let scale = scale(&proto.endpoints);
    let mut endpoints = Vec::new();
    for (i, locality) in proto.endpoints.iter().enumerate() {
        if locality.lb_config.is_some() {
            return Err(Refusal::new("is not supported")).at("lb_config").at_index("endpoints", i);
        }
        let factor = factor(locality) * scale;
        for (j, host) in locality.lb_endpoints.iter().enumerate() {
            let taken = endpoint(host, locality.priority, factor)
                .at_index("lb_endpoints", j)
                .at_index("endpoints", i)?;
            endpoints.push(Arc::new(taken));
        }
    }
    Ok(EndpointSet { endpoints })
}

/// A locality's share spread over its endpoints: its weight over the sum of theirs. A control
/// plane that gives each locality the sum of its endpoints' weights leaves them as they are.
fn factor(locality: &pb::LocalityLbEndpoints) -> f64 {
    let sum: u64 = locality.lb_endpoints.iter().map(|host| u64::from(weight(host))).sum();
    let Some(own) = &locality.load_balancing_weight else { return 1.0 };
    match u32::try_from(sum) {
        Ok(0) | Err(_) => 1.0,
        Ok(sum) => f64::from(own.value.max(1)) / f64::from(sum),
    }
}

/// Weights stay small whole numbers where every locality divides evenly.
fn scale(localities: &[pb::LocalityLbEndpoints]) -> f64 {
    let even = localities.iter().all(|locality| factor(locality).fract() == 0.0);
    if even { 1.0 } else { SCALE }
}

fn weight(host: &pb::LbEndpoint) -> u32 {
    number(host.load_balancing_weight.as_ref(), 1).max(1)
}

fn endpoint(host: &pb::LbEndpoint, priority: u32, factor: f64) -> Result<Endpoint, Refusal> {
    let Some(HostIdentifier::Endpoint(inner)) = &host.host_identifier else {
        return Err(Refusal::new("an endpoint is needed")).at("endpoint");
    };
    let health = match HealthStatus::try_from(host.health_status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy | HealthStatus::Degraded) => {
            Health::Healthy
        }
        Ok(HealthStatus::Draining) => Health::Draining,
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) | Err(_) => Health::Unhealthy,
    };
    let metadata = host.metadata.as_ref();
    let mtls = namespace(metadata, "envoy.transport_socket_match")
        .is_some_and(|fields| text(fields, "tlsMode") == Some("istio"));
    let workload = namespace(metadata, "istio")
        .and_then(|fields| text(fields, "workload"))
        .map(|text| Arc::new(workload(text)));
    Ok(Endpoint {
        address: socket_address(inner.address.as_ref()).at("endpoint.address")?,
        weight: whole(f64::from(weight(host)) * factor),
        priority,
        health,
        mtls,
        workload,
    })
}

/// The nearest whole number, at least 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of u32 before"
)]
fn whole(weight: f64) -> u32 {
    weight.round().clamp(1.0, f64::from(u32::MAX)) as u32
}

/// `name;namespace;canonical service;canonical revision;cluster`.
fn workload(text: &str) -> WorkloadLabels {
    let mut parts = text.split(';');
    let mut next = || parts.next().unwrap_or_default().into();
    WorkloadLabels {
        name: next(),
        namespace: next(),
        canonical_service: next(),
        canonical_revision: next(),
        cluster: next(),
        ..WorkloadLabels::default()
    }
}
