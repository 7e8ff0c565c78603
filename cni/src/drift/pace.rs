//! How often a pod's rules are restored: at once, then more and more seldom while somebody keeps
//! changing them. Pure; the time is an argument.

use std::time::{Duration, Instant};

/// Wait before the second repair; it doubles with each that follows.
const FIRST: Duration = Duration::from_millis(200);
/// Longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// Time without a change after which all is forgotten.
const CALM: Duration = Duration::from_secs(120);
/// Repairs in a row that make it a contest.
const CONTEST: u32 = 5;

/// What has been repaired of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    /// Repairs in a row, and when the last one was.
    last: Option<(u32, Instant)>,
}

/// What a repair was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The first in a row: worth telling.
    First,
    /// One more: told already.
    Again,
    /// So many in a row that somebody else must stop: worth telling once.
    Contest,
}

impl Pace {
    /// When the next repair may be, seen from `now`.
    #[must_use]
    pub fn next(&self, now: Instant) -> Instant {
        match self.in_a_row(now) {
            Some((times, last)) => {
                let doublings = (times - 1).min(16);
                now.max(last + FIRST.saturating_mul(1 << doublings).min(LONGEST))
            }
            None => now,
        }
    }

    /// Notes a repair.
    pub fn repaired(&mut self, now: Instant) -> Told {
        let times = self.in_a_row(now).map_or(1, |(times, _)| times.saturating_add(1));
        self.last = Some((times, now));
        match times {
            1 => Told::First,
            CONTEST => Told::Contest,
            _ => Told::Again,
        }
    }

    fn in_a_row(&self, now: Instant) -> Option<(u32, Instant)> {
        self.last.filter(|(_, last)| now.saturating_duration_since(*last) < CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::{CALM, LONGEST, Pace, Told};
    use std::time::{Duration, Instant};

    #[test]
    fn the_first_repair_is_at_once_and_those_that_follow_wait_longer_and_longer() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.next(start), start);
        let (mut now, mut waits, mut told) = (start, Vec::new(), Vec::new());
        for _ in 0..12 {
            told.push(pace.repaired(now));
            let next = pace.next(now);
            waits.push(next - now);
            now = next;
        }
        assert!(waits.is_sorted() && waits[0] < Duration::from_secs(1), "{waits:?}");
        assert_eq!(*waits.last().unwrap(), LONGEST);
        assert_eq!(told[0], Told::First);
        assert_eq!(told.iter().filter(|told| **told == Told::Contest).count(), 1);
        assert_eq!(told.iter().filter(|told| **told == Told::First).count(), 1);
    }

    #[test]
    fn calm_forgets() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.repaired(start);
        }
        assert_eq!(pace.next(start), start + LONGEST);
        let later = start + CALM;
        assert_eq!(pace.next(later), later);
        assert_eq!(pace.repaired(later), Told::First);
    }
}
