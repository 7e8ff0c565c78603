//! What a client may ask of the router by headers: `x-envoy-upstream-rq-timeout-ms`,
//! `x-envoy-upstream-rq-per-try-timeout-ms`, `x-envoy-retry-on`, `x-envoy-retry-grpc-on` and
//! `x-envoy-max-retries`. Pure.
//!
//! At an edge only clients whose network is our own are heard.

use crate::config::{Forward, Retry, RetryOn};
use http::HeaderMap;
use http::header::HeaderName;
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-timeout-ms");
const PER_TRY: HeaderName = HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms");
const RETRY_ON: HeaderName = HeaderName::from_static("x-envoy-retry-on");
const RETRY_GRPC_ON: HeaderName = HeaderName::from_static("x-envoy-retry-grpc-on");
const MAX_RETRIES: HeaderName = HeaderName::from_static("x-envoy-max-retries");
/// What a stranger at an edge may not say.
const OURS: [HeaderName; 6] = [
    TIMEOUT,
    PER_TRY,
    RETRY_ON,
    RETRY_GRPC_ON,
    MAX_RETRIES,
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
];

/// There is any header that begins as these do.
fn any(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("x-envoy-"))
}

/// Takes away what a stranger may not say.
pub(super) fn silence(headers: &mut HeaderMap) {
    if any(headers) {
        for name in OURS {
            headers.remove(name);
        }
    }
}

/// Takes the headers out; gives the changed forwarding if they change anything.
pub(super) fn take(headers: &mut HeaderMap, forward: &Forward) -> Option<Forward> {
    if !any(headers) {
        return None;
    }
    let mut text = |name| {
        let value = headers.remove(name)?;
        value.to_str().ok().map(ToOwned::to_owned)
    };
    let (timeout, per_try) = (text(TIMEOUT), text(PER_TRY));
    let (on, grpc_on, most) = (text(RETRY_ON), text(RETRY_GRPC_ON), text(MAX_RETRIES));
    if [&timeout, &per_try, &on, &grpc_on, &most].iter().all(|given| given.is_none()) {
        return None;
    }
    let mut changed = forward.clone();
    let millis = |text: Option<String>| Some(Duration::from_millis(text?.trim().parse().ok()?));
    if let Some(limit) = millis(timeout) {
        changed.timeout = (!limit.is_zero()).then_some(limit);
    }
    let mut retry = forward.retry.as_deref().cloned().unwrap_or_else(none);
    for word in on.iter().chain(&grpc_on).flat_map(|list| list.split(',')) {
        // Words we do not know ask for nothing, as in Envoy.
        let _known = retry.on.set(word.trim());
    }
    if let Some(number) = most.and_then(|text| text.trim().parse().ok()) {
        retry.retries = number;
    }
    if let Some(limit) = millis(per_try) {
        retry.per_try_timeout = (!limit.is_zero()).then_some(limit);
    }
    changed.retry = Some(Arc::new(retry));
    Some(changed)
}

/// Envoy's policy where a route has none.
fn none() -> Retry {
    Retry {
        on: RetryOn::default(),
        retries: 1,
        per_try_timeout: None,
        backoff_base: Duration::from_millis(25),
        backoff_max: Duration::from_millis(250),
        status_codes: Vec::new(),
        headers: Vec::new(),
        avoid_previous_hosts: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn forward() -> Forward {
        Forward {
            clusters: Vec::new(),
            timeout: Some(Duration::from_secs(15)),
            idle_timeout: None,
            retry: None,
            rewrite: None,
            host_rewrite: None,
            hash_policy: Vec::new(),
            mirrors: Vec::new(),
            upgrades: Vec::new(),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn clients_set_times_and_retries() {
        let mut given = headers(&[
            ("x-envoy-upstream-rq-timeout-ms", "200"),
            ("x-envoy-retry-on", "5xx, sometimes"),
            ("x-envoy-retry-grpc-on", "unavailable"),
            ("x-envoy-max-retries", "3"),
            ("x-envoy-original-path", "/"),
        ]);
        let changed = take(&mut given, &forward()).unwrap();
        assert_eq!(changed.timeout, Some(Duration::from_millis(200)));
        let retry = changed.retry.unwrap();
        assert!(retry.on.status_5xx && retry.on.unavailable && !retry.on.reset);
        assert_eq!(retry.retries, 3);
        assert_eq!(given.len(), 1, "they do not go upstream");
    }

    #[test]
    fn rubbish_changes_nothing_and_strangers_are_not_heard() {
        assert_eq!(take(&mut headers(&[("x-envoy-peer", "1")]), &forward()), None);
        let mut rubbish = headers(&[("x-envoy-upstream-rq-timeout-ms", "soon")]);
        assert_eq!(take(&mut rubbish, &forward()).unwrap().timeout, forward().timeout);
        let mut said = headers(&[("x-envoy-max-retries", "9"), ("x-envoy-original-path", "/")]);
        silence(&mut said);
        assert_eq!(said.len(), 1);
    }
}
