//! When a probe has succeeded or failed, and when the next is due.
//!
//! Pure: answers go in.

use std::time::Duration;

use lateen_api::core::Probe;

/// Time between probes until the first success: a lab should be up in a moment.
const EAGER: Duration = Duration::from_millis(100);

/// What a row of answers means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not yet decided, or as before.
    Open,
    /// It has succeeded as often as asked for.
    Success,
    /// It has failed as often as allowed.
    Failure,
}

/// The state of one probe.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    period: Duration,
    eager: bool,
    success_threshold: u32,
    failure_threshold: u32,
    successes: u32,
    failures: u32,
    /// Time since the last failure that counted.
    since_failure: Duration,
}

impl Judge {
    /// A probe; an eager one is repeated quickly until its first success, but its failures count
    /// only once a period, so that the time it is given stays as specified.
    pub(super) fn new(probe: &Probe, eager: bool) -> Self {
        let seconds = |seconds: Option<u32>, default: u32| {
            Duration::from_secs(u64::from(seconds.filter(|it| *it > 0).unwrap_or(default)))
        };
        let period = seconds(probe.period_seconds, 10);
        Self {
            period,
            eager,
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            successes: 0,
            failures: 0,
            since_failure: Duration::ZERO,
        }
    }

    /// Time until the next probe.
    pub(super) fn pause(&self) -> Duration {
        if self.eager { EAGER.min(self.period) } else { self.period }
    }

    /// Takes an answer that came `after` the one before.
    pub(super) fn answer(&mut self, good: bool, after: Duration) -> Verdict {
        self.since_failure += after;
        if good {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.success_threshold {
                self.eager = false;
                return Verdict::Success;
            }
            return Verdict::Open;
        }
        self.successes = 0;
        if self.eager && self.since_failure < self.period {
            return Verdict::Open;
        }
        self.since_failure = Duration::ZERO;
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.failure_threshold { Verdict::Failure } else { Verdict::Open }
    }
}

/// Time before a container is started again, after so many starts in vain.
pub(super) fn backoff(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(10);
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::{Duration, Judge, Verdict, backoff};
    use proptest::prelude::*;
    use serde_json::json;

    fn judge(eager: bool) -> Judge {
        let probe = json!({"periodSeconds": 1, "failureThreshold": 2, "successThreshold": 2});
        Judge::new(&serde_json::from_value(probe).unwrap(), eager)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn thresholds_are_counted_in_a_row() {
        let mut judge = judge(false);
        let answers = [true, false, true, true, false, true, false, false];
        let verdicts: Vec<_> = answers.map(|good| judge.answer(good, SECOND)).into();
        use Verdict::{Failure, Open, Success};
        assert_eq!(verdicts, [Open, Open, Open, Success, Open, Open, Open, Failure]);
    }

    #[test]
    fn an_eager_probe_is_quick_and_has_its_whole_time() {
        let mut judge = judge(true);
        assert_eq!(judge.pause(), Duration::from_millis(100));
        for _ in 0..19 {
            assert_eq!(judge.answer(false, judge.pause()), Verdict::Open);
        }
        assert_eq!(judge.answer(false, judge.pause()), Verdict::Failure);
        judge.answer(true, SECOND);
        assert_eq!(judge.answer(true, SECOND), Verdict::Success);
        assert_eq!(judge.pause(), SECOND);
    }

    proptest! {
        #[test]
        fn backoff_grows_up_to_ten_seconds(failures in 1u32..100) {
            prop_assert!(backoff(failures) <= backoff(failures + 1));
            prop_assert!(backoff(failures) >= Duration::from_millis(200));
            prop_assert!(backoff(failures) <= Duration::from_secs(10));
        }
    }
}
