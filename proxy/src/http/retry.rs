//! Whether a request is tried again, and after how long. Pure.

use crate::config::Retry;
use http::{HeaderMap, StatusCode};
use std::time::Duration;

/// How an attempt ended, if not with an answer that is simply passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// No connection could be had.
    ConnectFailure,
    /// The upstream refused the stream before looking at it (HTTP/2 `REFUSED_STREAM`).
    Refused,
    /// The stream or connection ended before a response began.
    Reset {
        /// Nothing of the request had been written.
        before_request: bool,
    },
    /// One attempt's time was up.
    PerTryTimeout,
    /// An answer whose headers ask for another attempt (see [`is_marked`]).
    Marked,
    /// An answer.
    Answer {
        /// HTTP status.
        status: StatusCode,
        /// `grpc-status` among the headers.
        grpc_status: Option<u32>,
    },
}

/// Whether the policy wants another attempt after this end.
#[must_use]
pub fn wants_retry(retry: &Retry, end: AttemptEnd) -> bool {
    let on = &retry.on;
    match end {
        AttemptEnd::ConnectFailure => on.connect_failure || on.status_5xx || on.gateway_error,
        AttemptEnd::Refused => on.refused_stream || on.status_5xx || on.reset,
        AttemptEnd::Reset { before_request } => {
            on.reset
                || on.status_5xx
                || on.gateway_error
                || (before_request && (on.reset_before_request || on.connect_failure))
        }
        AttemptEnd::PerTryTimeout => on.status_5xx || on.gateway_error || on.reset,
        AttemptEnd::Answer { status, grpc_status } => {
            answer_wants_retry(retry, status) || grpc_status.is_some_and(|code| grpc(retry, code))
        }
        AttemptEnd::Marked => true,
    }
}

/// Whether the headers of an answer ask for another attempt.
#[must_use]
pub fn is_marked(retry: &Retry, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    (retry.on.headers && retry.headers.iter().any(|wanted| wanted.accepts(text(&wanted.name))))
        || (retry.on.rate_limited && text("x-envoy-ratelimited").is_some())
}

fn answer_wants_retry(retry: &Retry, status: StatusCode) -> bool {
    let on = &retry.on;
    (on.status_5xx && status.is_server_error())
        || (on.gateway_error && matches!(status.as_u16(), 502..=504))
        || (on.retriable_4xx && status == StatusCode::CONFLICT)
        || (on.status_codes && retry.status_codes.contains(&status))
}

fn grpc(retry: &Retry, code: u32) -> bool {
    let on = &retry.on;
    match code {
        1 => on.cancelled,
        4 => on.deadline_exceeded,
        8 => on.resource_exhausted,
        13 => on.internal,
        14 => on.unavailable,
        _ => false,
    }
}

/// Back-off before retry number `nth` (from 1): full jitter below a limit that doubles.
#[must_use]
pub fn backoff(retry: &Retry, nth: u32, random: u64) -> Duration {
    let base = u64::try_from(retry.backoff_base.as_millis()).unwrap_or(u64::MAX).max(1);
    let most = u64::try_from(retry.backoff_max.as_millis()).unwrap_or(u64::MAX).max(1);
    let factor = (1_u64 << nth.min(20)) - 1;
    let limit = base.saturating_mul(factor).min(most).max(1);
    Duration::from_millis(random % limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RetryOn;

    fn retry(on: RetryOn) -> Retry {
        Retry {
            on,
            retries: 2,
            per_try_timeout: None,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            status_codes: vec![StatusCode::SERVICE_UNAVAILABLE],
            headers: Vec::new(),
            avoid_previous_hosts: true,
        }
    }

    fn istio_default() -> Retry {
        retry(RetryOn {
            connect_failure: true,
            refused_stream: true,
            unavailable: true,
            cancelled: true,
            status_codes: true,
            ..RetryOn::default()
        })
    }

    fn answer(status: u16, grpc_status: Option<u32>) -> AttemptEnd {
        AttemptEnd::Answer { status: StatusCode::from_u16(status).unwrap(), grpc_status }
    }

    #[test]
    fn the_default_policy_retries_what_is_safe() {
        let policy = istio_default();
        for (end, wanted) in [
            (AttemptEnd::ConnectFailure, true),
            (AttemptEnd::Refused, true),
            (AttemptEnd::Reset { before_request: true }, true),
            (AttemptEnd::Reset { before_request: false }, false),
            (AttemptEnd::PerTryTimeout, false),
            (answer(503, None), true),
            (answer(500, None), false),
            (answer(200, Some(14)), true),
            (answer(200, Some(2)), false),
            (answer(200, None), false),
        ] {
            assert_eq!(wants_retry(&policy, end), wanted, "{end:?}");
        }
    }

    #[test]
    fn each_condition_stands_for_itself() {
        let on_5xx = retry(RetryOn { status_5xx: true, ..RetryOn::default() });
        assert!(wants_retry(&on_5xx, answer(500, None)));
        assert!(wants_retry(&on_5xx, AttemptEnd::PerTryTimeout));
        assert!(!wants_retry(&on_5xx, answer(409, None)));
        let gateway = retry(RetryOn { gateway_error: true, ..RetryOn::default() });
        assert!(!wants_retry(&gateway, answer(500, None)));
        assert!(wants_retry(&gateway, answer(504, None)));
        let early = retry(RetryOn { reset_before_request: true, ..RetryOn::default() });
        assert!(wants_retry(&early, AttemptEnd::Reset { before_request: true }));
        assert!(!wants_retry(&early, AttemptEnd::Reset { before_request: false }));
        let conflict = retry(RetryOn { retriable_4xx: true, ..RetryOn::default() });
        assert!(wants_retry(&conflict, answer(409, None)));
    }

    #[test]
    fn back_off_stays_below_its_limits() {
        let policy = istio_default();
        for random in [0, 7, u64::MAX] {
            assert!(backoff(&policy, 1, random) < Duration::from_millis(25));
            assert!(backoff(&policy, 2, random) < Duration::from_millis(75));
            assert!(backoff(&policy, 30, random) < Duration::from_millis(250));
        }
    }
}
