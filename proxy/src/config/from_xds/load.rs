//! Load balancing, circuit breakers and outlier detection of clusters.

use super::field::{duration, number, truth};
use super::{At, Refusal, unsupported};
use crate::config::{Balance, Limits, Outlier};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use pb::cluster::ring_hash_lb_config::HashFunction;
use pb::cluster::{LbConfig, LbPolicy};
use std::time::Duration;

/// Envoy's share of healthy endpoints below which health is ignored, percent.
const DEFAULT_PANIC_THRESHOLD: f64 = 50.0;
/// Envoy's least ring size.
const DEFAULT_RING_SIZE: u64 = 1024;
/// Envoy's Maglev table size.
const DEFAULT_TABLE_SIZE: u64 = 65_537;
/// Largest ring or table; more would only eat memory.
const MAX_TABLE_SIZE: u64 = 8 * 1024 * 1024;

pub(super) fn balance(proto: &pb::Cluster) -> Result<Balance, Refusal> {
    refuse_unsupported(proto)?;
    let policy = LbPolicy::try_from(proto.lb_policy)
        .map_err(|_| Refusal::new("unknown policy"))
        .at("lb_policy")?;
    match policy {
        LbPolicy::RoundRobin => Ok(Balance::RoundRobin),
        LbPolicy::LeastRequest => Ok(Balance::LeastRequest),
        LbPolicy::Random => Ok(Balance::Random),
        LbPolicy::ClusterProvided => Ok(Balance::ClusterProvided),
        LbPolicy::RingHash => ring_hash(proto).at("ring_hash_lb_config"),
        LbPolicy::Maglev => maglev(proto).at("maglev_lb_config"),
        LbPolicy::LoadBalancingPolicyConfig => {
            Err(Refusal::new("LOAD_BALANCING_POLICY_CONFIG is not supported")).at("lb_policy")
        }
    }
}

fn refuse_unsupported(proto: &pb::Cluster) -> Result<(), Refusal> {
    let slow_start = match &proto.lb_config {
        Some(LbConfig::LeastRequestLbConfig(config)) => config.slow_start_config.is_some(),
        Some(LbConfig::RoundRobinLbConfig(config)) => config.slow_start_config.is_some(),
        _ => false,
    };
    unsupported(&[("lb_config.slow_start_config", slow_start)])?;
    let Some(common) = &proto.common_lb_config else { return Ok(()) };
    let bounded = common.consistent_hashing_lb_config.as_ref().is_some_and(|config| {
        config.use_hostname_for_hashing || config.hash_balance_factor.is_some()
    });
    unsupported(&[
        ("consistent_hashing_lb_config", bounded),
        ("override_host_status", common.override_host_status.is_some()),
    ])
    .at("common_lb_config")
}

fn table_size(size: u64, field: &str) -> Result<u64, Refusal> {
    if (1..=MAX_TABLE_SIZE).contains(&size) {
        Ok(size)
    } else {
        Err(Refusal::new(format!("must be between 1 and {MAX_TABLE_SIZE}"))).at(field)
    }
}

fn ring_hash(proto: &pb::Cluster) -> Result<Balance, Refusal> {
    let Some(LbConfig::RingHashLbConfig(config)) = &proto.lb_config else {
        return Ok(Balance::RingHash { minimum_size: DEFAULT_RING_SIZE });
    };
    unsupported(&[("hash_function", config.hash_function != HashFunction::XxHash as i32)])?;
    let minimum = config.minimum_ring_size.as_ref().map_or(DEFAULT_RING_SIZE, |size| size.value);
    Ok(Balance::RingHash { minimum_size: table_size(minimum, "minimum_ring_size")? })
}

fn maglev(proto: &pb::Cluster) -> Result<Balance, Refusal> {
    let Some(LbConfig::MaglevLbConfig(config)) = &proto.lb_config else {
        return Ok(Balance::Maglev { table_size: DEFAULT_TABLE_SIZE });
    };
    let size = config.table_size.as_ref().map_or(DEFAULT_TABLE_SIZE, |size| size.value);
    let table_size = table_size(size, "table_size")?;
    if !is_prime(table_size) {
        return Err(Refusal::new(format!("{table_size} is not a prime"))).at("table_size");
    }
    Ok(Balance::Maglev { table_size })
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|d| d * d <= number).all(|divisor| !number.is_multiple_of(divisor))
}

pub(super) fn panic_threshold(proto: &pb::Cluster) -> f64 {
    proto
        .common_lb_config
        .as_ref()
        .and_then(|common| common.healthy_panic_threshold.as_ref())
        .map_or(DEFAULT_PANIC_THRESHOLD, |percent| percent.value)
}

/// Envoy's limits hold where the control plane gives none.
pub(super) fn limits(breakers: Option<&pb::CircuitBreakers>) -> Result<Limits, Refusal> {
    let default = pb::circuit_breakers::Thresholds::default();
    let thresholds = breakers
        .and_then(|breakers| {
            breakers.thresholds.iter().find(|t| t.priority == RoutingPriority::Default as i32)
        })
        .unwrap_or(&default);
    unsupported(&[
        ("thresholds.retry_budget", thresholds.retry_budget.is_some()),
        (
            "thresholds.max_connection_pools",
            number(thresholds.max_connection_pools.as_ref(), u32::MAX) != u32::MAX,
        ),
        (
            "per_host_thresholds",
            breakers.is_some_and(|breakers| !breakers.per_host_thresholds.is_empty()),
        ),
    ])?;
    Ok(Limits {
        max_connections: number(thresholds.max_connections.as_ref(), 1024),
        max_pending: number(thresholds.max_pending_requests.as_ref(), 1024),
        max_requests: number(thresholds.max_requests.as_ref(), 1024),
        max_retries: number(thresholds.max_retries.as_ref(), 3),
    })
}

/// Consecutive errors are counted; success rates are not, so asking for them is refused.
pub(super) fn outlier(proto: Option<&pb::OutlierDetection>) -> Result<Option<Outlier>, Refusal> {
    let Some(proto) = proto else { return Ok(None) };
    unsupported(&[
        ("enforcing_success_rate", number(proto.enforcing_success_rate.as_ref(), 0) > 0),
        (
            "enforcing_failure_percentage",
            number(proto.enforcing_failure_percentage.as_ref(), 0) > 0,
        ),
        ("split_external_local_origin_errors", proto.split_external_local_origin_errors),
        ("monitors", !proto.monitors.is_empty()),
        ("always_eject_one_host", truth(proto.always_eject_one_host.as_ref(), false)),
        ("detect_degraded_hosts", truth(proto.detect_degraded_hosts.as_ref(), false)),
    ])?;
    let counted = |count, enforcing: u32| if enforcing == 0 { 0 } else { count };
    let time = |value: Option<&_>, default, field| match value {
        Some(value) => duration(value).at(field),
        None => Ok(Duration::from_secs(default)),
    };
    Ok(Some(Outlier {
        consecutive_5xx: counted(
            number(proto.consecutive_5xx.as_ref(), 5),
            number(proto.enforcing_consecutive_5xx.as_ref(), 100),
        ),
        consecutive_gateway: counted(
            number(proto.consecutive_gateway_failure.as_ref(), 5),
            number(proto.enforcing_consecutive_gateway_failure.as_ref(), 0),
        ),
        interval: time(proto.interval.as_ref(), 10, "interval")?,
        base_ejection: time(proto.base_ejection_time.as_ref(), 30, "base_ejection_time")?,
        max_ejection_percent: number(proto.max_ejection_percent.as_ref(), 10).min(100),
    }))
}
