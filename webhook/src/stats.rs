//! Counters of the webhook, and decisions that somebody should be told of.
//!
//! Plain atomics that the owner reads when it is scraped; the names are Istio's, so that dashboards
//! keep working. Who tells of decisions takes them from a bounded queue: nothing here waits. Must not
//! know a metrics library, or what is told to whom.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::policy::Reason;

/// Counters since start.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    successes: AtomicU64,
    skips: AtomicU64,
    failures: AtomicU64,
    reasons: [AtomicU64; Reason::ALL.len()],
    untold: AtomicU64,
    teller: OnceLock<mpsc::Sender<Decided>>,
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

/// A decision that the owner of a pod should be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// What was decided.
    pub reason: Reason,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, or the prefix of one to come.
    pub name: String,
    /// Who creates it, if somebody does.
    pub controller: Option<Controller>,
    /// What is to be told.
    pub message: String,
}

/// The controller of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// API group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Its id.
    pub uid: String,
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

    /// Counts a decision by its reason.
    pub fn decision(&self, reason: Reason) {
        if let Some(counter) = self.reasons.get(reason.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The decisions that somebody should be told of, from now on; once, at most `room` at a time.
    #[must_use]
    pub fn decisions(&self, room: usize) -> Option<mpsc::Receiver<Decided>> {
        let (sender, receiver) = mpsc::channel(room);
        self.teller.set(sender).is_ok().then_some(receiver)
    }

    /// Hands on a decision, if there is somebody who tells and room.
    pub fn tell(&self, decided: impl FnOnce() -> Decided) {
        let Some(teller) = self.teller.get() else { return };
        match teller.try_reserve() {
            Ok(permit) => permit.send(decided()),
            Err(_) => {
                self.untold.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All counters by metric name.
    #[must_use]
    pub fn snapshot(&self) -> [(&'static str, u64); 5] {
        [
            ("sidecar_injection_requests_total", self.requests.load(Ordering::Relaxed)),
            ("sidecar_injection_success_total", self.successes.load(Ordering::Relaxed)),
            ("sidecar_injection_skip_total", self.skips.load(Ordering::Relaxed)),
            ("sidecar_injection_failure_total", self.failures.load(Ordering::Relaxed)),
            ("lateen_injection_untold_total", self.untold.load(Ordering::Relaxed)),
        ]
    }

    /// Decisions by reason code, as far as there were any.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        let counts = self.reasons.iter().map(|counter| counter.load(Ordering::Relaxed));
        let codes = Reason::ALL.iter().map(|reason| reason.code());
        codes.zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Counters, Decided};
    use crate::policy::Reason;

    fn decided() -> Decided {
        Decided {
            reason: Reason::DeniedPod,
            namespace: String::new(),
            name: String::new(),
            controller: None,
            message: String::new(),
        }
    }

    #[test]
    fn decisions_are_counted_by_their_reason() {
        let counters = Counters::default();
        counters.decision(Reason::SkippedHostNetwork);
        counters.decision(Reason::SkippedHostNetwork);
        assert_eq!(counters.reasons(), [("skipped.host-network", 2)]);
    }

    #[test]
    fn nobody_waits_for_who_tells() {
        let counters = Counters::default();
        counters.tell(decided);
        let mut told = counters.decisions(1).unwrap();
        assert!(counters.decisions(1).is_none(), "one tells");
        counters.tell(decided);
        counters.tell(decided);
        assert_eq!(told.try_recv().unwrap(), decided());
        assert!(told.try_recv().is_err());
        assert_eq!(counters.snapshot()[4], ("lateen_injection_untold_total", 1));
    }
}
