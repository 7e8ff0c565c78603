//! Counters of the webhook.
//!
//! Plain atomics that the owner reads when it is scraped; the names are Istio's, so that
//! dashboards keep working. Must not know a metrics library.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    successes: AtomicU64,
    skips: AtomicU64,
    failures: AtomicU64,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The pod was patched.
    Injected,
    /// The pod was let through as it is.
    Skipped,
    /// The pod or the request was refused.
    Failed,
}

impl Counters {
    /// Counts a request that came in.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what a request came to.
    pub fn outcome(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Injected => &self.successes,
            Outcome::Skipped => &self.skips,
            Outcome::Failed => &self.failures,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters by metric name.
    #[must_use]
    pub fn snapshot(&self) -> [(&'static str, u64); 4] {
        [
            ("sidecar_injection_requests_total", self.requests.load(Ordering::Relaxed)),
            ("sidecar_injection_success_total", self.successes.load(Ordering::Relaxed)),
            ("sidecar_injection_skip_total", self.skips.load(Ordering::Relaxed)),
            ("sidecar_injection_failure_total", self.failures.load(Ordering::Relaxed)),
        ]
    }
}
