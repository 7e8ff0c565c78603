//! Retry policies.

use super::fault::status;
use super::field::{duration, lasts, limit, number, type_name};
use super::matcher::header;
use super::{At, Refusal, each, unsupported};
use crate::config::{Retry, RetryOn};
use envoy_types::pb::envoy::config::route::v3::RetryPolicy;
use envoy_types::pb::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use std::time::Duration;

/// Envoy's first back-off.
const BACKOFF_BASE: Duration = Duration::from_millis(25);
/// By type, and by name for those who give no type.
const PREVIOUS_HOSTS: [&str; 2] = [
    "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    "envoy.retry_host_predicates.previous_hosts",
];

pub(super) fn take(proto: &RetryPolicy) -> Result<Retry, Refusal> {
    unsupported(&[
        ("per_try_idle_timeout", lasts(proto.per_try_idle_timeout.as_ref())),
        ("retry_priority", proto.retry_priority.is_some()),
        ("retry_options_predicates", !proto.retry_options_predicates.is_empty()),
        ("rate_limited_retry_back_off", proto.rate_limited_retry_back_off.is_some()),
        ("retriable_request_headers", !proto.retriable_request_headers.is_empty()),
        ("refresh_cluster_on_retry", proto.refresh_cluster_on_retry),
    ])?;
    for (i, predicate) in proto.retry_host_predicate.iter().enumerate() {
        let kind = match &predicate.config_type {
            Some(ConfigType::TypedConfig(any)) => type_name(any),
            None => predicate.name.as_str(),
        };
        if !PREVIOUS_HOSTS.contains(&kind) {
            return Err(Refusal::new(format!("unknown extension {kind}")))
                .at_index("retry_host_predicate", i);
        }
    }
    let (backoff_base, backoff_max) = backoff(proto).at("retry_back_off")?;
    Ok(Retry {
        on: conditions(&proto.retry_on).at("retry_on")?,
        retries: number(proto.num_retries.as_ref(), 1),
        per_try_timeout: limit(proto.per_try_timeout.as_ref(), None).at("per_try_timeout")?,
        backoff_base,
        backoff_max,
        status_codes: each("retriable_status_codes", &proto.retriable_status_codes, |code| {
            status(*code)
        })?,
        headers: each("retriable_headers", &proto.retriable_headers, header)?,
        avoid_previous_hosts: !proto.retry_host_predicate.is_empty(),
    })
}

fn backoff(proto: &RetryPolicy) -> Result<(Duration, Duration), Refusal> {
    const MILLISECOND: Duration = Duration::from_millis(1);
    let Some(given) = &proto.retry_back_off else { return Ok((BACKOFF_BASE, BACKOFF_BASE * 10)) };
    let base = match &given.base_interval {
        Some(time) => duration(time).at("base_interval")?.max(MILLISECOND),
        None => BACKOFF_BASE,
    };
    let max = match &given.max_interval {
        Some(time) => duration(time).at("max_interval")?,
        None => base.saturating_mul(10),
    };
    if max < base {
        return Err(Refusal::new("is less than base_interval")).at("max_interval");
    }
    Ok((base, max))
}

/// The comma-separated list of conditions.
fn conditions(text: &str) -> Result<RetryOn, Refusal> {
    let mut on = RetryOn::default();
    for condition in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if !on.set(condition) {
            return Err(Refusal::new(format!("condition {condition:?} is not supported")));
        }
    }
    Ok(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        let on = conditions("connect-failure,refused-stream, unavailable,cancelled").unwrap();
        assert!(on.connect_failure && on.refused_stream && on.unavailable && on.cancelled);
        assert!(!on.status_5xx && !on.status_codes);
        assert_eq!(conditions("").unwrap(), RetryOn::default());
        assert!(conditions("retriable-headers").unwrap().headers);
        assert!(conditions("sometimes").is_err());
    }

    #[test]
    fn back_off_grows_tenfold_unless_told() {
        assert_eq!(
            backoff(&RetryPolicy::default()).unwrap(),
            (Duration::from_millis(25), Duration::from_millis(250))
        );
    }
}
