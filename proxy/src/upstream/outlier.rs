//! Outlier detection: endpoints that fail are set aside for a while.
//!
//! Counting and deciding over atomics that all workers share; time comes in as milliseconds
//! since the process started. Knows no sockets and no clock.

use crate::config::Outlier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How one request or connect ended, as outlier detection sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer below 500.
    Success,
    /// An answer of 500 or more that is no gateway error.
    ServerError,
    /// 502, 503, 504, a reset, or a failed connect (Envoy counts the latter as 503).
    GatewayError,
}

impl Outcome {
    /// The outcome that stands for an HTTP status code.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayError,
            500.. => Self::ServerError,
            _ => Self::Success,
        }
    }
}

/// Failure counters and ejection of one endpoint.
#[derive(Debug, Default)]
pub struct Ejection {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    /// Milliseconds until which the endpoint is set aside; 0 is never.
    until: AtomicU64,
    times: AtomicU32,
}

/// How much of the cluster is set aside now.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Endpoints of the cluster.
    pub hosts: usize,
    /// Those set aside.
    pub ejected: usize,
}

impl Ejection {
    /// Whether there has been an ejection that may still count; spares reading the clock.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.until.load(Relaxed) != 0
    }

    /// Whether the endpoint is set aside at `now` (milliseconds).
    #[must_use]
    pub fn is_ejected(&self, now: u64) -> bool {
        let until = self.until.load(Relaxed);
        until != 0 && now < until
    }

    /// Counts an outcome; true if this one sets the endpoint aside. `share` is asked for only
    /// when a threshold is reached.
    pub fn record(
        &self,
        rules: &Outlier,
        outcome: Outcome,
        now: u64,
        share: impl FnOnce() -> Share,
    ) -> bool {
        let gateway = match outcome {
            Outcome::Success => {
                self.consecutive_5xx.store(0, Relaxed);
                self.consecutive_gateway.store(0, Relaxed);
                return false;
            }
            Outcome::ServerError => {
                self.consecutive_gateway.store(0, Relaxed);
                0
            }
            Outcome::GatewayError => self.consecutive_gateway.fetch_add(1, Relaxed) + 1,
        };
        let errors = self.consecutive_5xx.fetch_add(1, Relaxed) + 1;
        let reached = (rules.consecutive_5xx != 0 && errors >= rules.consecutive_5xx)
            || (rules.consecutive_gateway != 0 && gateway >= rules.consecutive_gateway);
        if !reached || self.is_ejected(now) || !may_eject(rules, share()) {
            return false;
        }
        self.eject(rules, now);
        true
    }

    fn eject(&self, rules: &Outlier, now: u64) {
        const LONGEST_MS: u64 = 300_000;
        let times = u64::from(self.times.fetch_add(1, Relaxed) + 1);
        let base = u64::try_from(rules.base_ejection.as_millis()).unwrap_or(u64::MAX);
        let duration = base.saturating_mul(times).min(LONGEST_MS.max(base));
        self.until.store(now.saturating_add(duration), Relaxed);
        self.consecutive_5xx.store(0, Relaxed);
        self.consecutive_gateway.store(0, Relaxed);
    }

    /// Called once an interval: the multiplier shrinks while the endpoint behaves.
    pub fn relax(&self, now: u64) {
        let until = self.until.load(Relaxed);
        if until != 0 && now >= until {
            let times = self.times.load(Relaxed);
            if times > 0 {
                self.times.store(times - 1, Relaxed);
            } else {
                self.until.store(0, Relaxed);
            }
        }
    }
}

/// One endpoint may always be set aside; more only up to the configured share.
fn may_eject(rules: &Outlier, share: Share) -> bool {
    if share.hosts == 0 || rules.max_ejection_percent == 0 {
        return false;
    }
    if share.ejected == 0 {
        return true;
    }
    let after = (share.ejected + 1) * 100;
    after <= share.hosts * usize::try_from(rules.max_ejection_percent).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rules() -> Outlier {
        Outlier {
            consecutive_5xx: 3,
            consecutive_gateway: 2,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 50,
        }
    }

    fn share(hosts: usize, ejected: usize) -> impl Fn() -> Share {
        move || Share { hosts, ejected }
    }

    #[test]
    fn server_errors_in_a_row_eject_and_success_starts_over() {
        let e = Ejection::default();
        assert!(!e.record(&rules(), Outcome::ServerError, 0, share(4, 0)));
        assert!(!e.record(&rules(), Outcome::ServerError, 0, share(4, 0)));
        assert!(!e.record(&rules(), Outcome::Success, 0, share(4, 0)));
        assert!(!e.record(&rules(), Outcome::ServerError, 0, share(4, 0)));
        assert!(!e.record(&rules(), Outcome::ServerError, 0, share(4, 0)));
        assert!(e.record(&rules(), Outcome::ServerError, 0, share(4, 0)));
        assert!(e.is_ejected(29_999));
        assert!(!e.is_ejected(30_000));
    }

    #[test]
    fn gateway_errors_have_their_own_threshold() {
        let e = Ejection::default();
        assert!(!e.record(&rules(), Outcome::GatewayError, 0, share(4, 0)));
        assert!(!e.record(&rules(), Outcome::ServerError, 0, share(4, 0)));
        assert!(e.record(&rules(), Outcome::GatewayError, 0, share(4, 0)), "third 5xx");
    }

    #[test]
    fn ejections_grow_longer_and_relax() {
        let e = Ejection::default();
        for now in [0, 100_000] {
            e.record(&rules(), Outcome::GatewayError, now, share(4, 0));
            assert!(e.record(&rules(), Outcome::GatewayError, now, share(4, 0)));
        }
        assert!(e.is_ejected(159_999));
        assert!(!e.is_ejected(160_000));
        e.relax(200_000);
        e.relax(200_000);
        e.record(&rules(), Outcome::GatewayError, 300_000, share(4, 0));
        e.record(&rules(), Outcome::GatewayError, 300_000, share(4, 0));
        assert!(!e.is_ejected(330_000), "back to one base time");
    }

    #[test]
    fn no_more_than_the_share_is_ejected() {
        assert!(may_eject(&rules(), Share { hosts: 1, ejected: 0 }));
        assert!(may_eject(&rules(), Share { hosts: 4, ejected: 1 }));
        assert!(!may_eject(&rules(), Share { hosts: 4, ejected: 2 }));
        assert!(!may_eject(
            &Outlier { max_ejection_percent: 0, ..rules() },
            Share { hosts: 4, ejected: 0 }
        ));
    }
}
