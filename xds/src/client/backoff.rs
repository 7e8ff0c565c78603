//! How long to wait between attempts: doubling, bounded, with jitter.
//!
//! Pure: the caller brings the number of failures and the chance, and does the waiting.

use std::time::Duration;

/// A back-off schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest wait after the first failure.
    pub base: Duration,
    /// Longest wait ever.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 for the first), between half and all of the
    /// step; `chance` is in `[0, 1)`.
    #[must_use]
    pub fn wait(&self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let step = self.base.saturating_mul(1 << doublings).min(self.max);
        step.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_stay_within_half() {
        let backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(5) };
        assert_eq!(backoff.wait(1, 0.0), Duration::from_millis(250));
        assert_eq!(backoff.wait(1, 1.0), Duration::from_millis(500));
        assert_eq!(backoff.wait(2, 1.0), Duration::from_secs(1));
        assert_eq!(backoff.wait(10, 1.0), Duration::from_secs(5));
        assert_eq!(backoff.wait(u32::MAX, 0.0), Duration::from_millis(2500));
        assert_eq!(backoff.wait(0, 1.0), Duration::from_millis(500));
    }
}
