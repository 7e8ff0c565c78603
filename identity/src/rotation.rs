//! When a certificate is renewed: pure arithmetic over its lifetime.
//!
//! The share of the lifetime that is left at renewal (the grace period) is varied by chance so
//! that workloads that started together do not come back together. Never after expiry.

use std::time::{Duration, SystemTime};

/// A renewal schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// Share of the lifetime that is left when a certificate is renewed, in `[0, 1]`.
    pub grace_ratio: f64,
    /// Largest deviation of that share, either way.
    pub jitter: f64,
}

impl Default for Rotation {
    /// Istio's defaults.
    fn default() -> Self {
        Self { grace_ratio: 0.5, jitter: 0.01 }
    }
}

impl Rotation {
    /// When a certificate that was received at `received` and ends at `not_after` is renewed.
    /// `chance` is in `[0, 1)`. Neither before `received` nor after `not_after`.
    #[must_use]
    pub fn renew_at(&self, received: SystemTime, not_after: SystemTime, chance: f64) -> SystemTime {
        let lifetime = not_after.duration_since(received).unwrap_or(Duration::ZERO);
        let deviation = self.jitter * (2.0 * chance.clamp(0.0, 1.0) - 1.0);
        let left = (self.grace_ratio + deviation).clamp(0.0, 1.0);
        received + lifetime.mul_f64(1.0 - left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn half_of_the_lifetime_is_left_by_default() {
        let start = SystemTime::UNIX_EPOCH;
        let day = Duration::from_secs(86_400);
        let at = Rotation::default().renew_at(start, start + day, 0.5);
        assert_eq!(at, start + day / 2);
        let early = Rotation::default().renew_at(start, start + day, 1.0);
        assert_eq!(early, start + day.mul_f64(0.49));
    }

    proptest! {
        #[test]
        fn never_outside_of_the_lifetime(
            ratio in -1.0..2.0_f64, jitter in 0.0..1.0_f64, chance in 0.0..1.0_f64,
            life in 0..200_000_u64, gone in 0..200_000_u64,
        ) {
            let received = SystemTime::UNIX_EPOCH + Duration::from_secs(gone);
            let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(life);
            let at = Rotation { grace_ratio: ratio, jitter }.renew_at(received, not_after, chance);
            prop_assert!(at >= received);
            prop_assert!(at <= not_after.max(received));
        }
    }
}
