//! Who of the replicas writes: a state machine over a Lease, without a clock or a connection.
//!
//! Clocks of other machines are not believed: what counts is for how long, by the own clock, the
//! Lease has not changed. A leader stops before its time is over, by the difference between
//! [`Timing::lease`] and [`Timing::renew`], so that clocks may run at rates that differ by that.

use std::time::Duration;

/// How long things last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that did not change for so long is free.
    pub lease: Duration,
    /// A leader that could not renew for so long leads no more. Shorter.
    pub renew: Duration,
    /// Time between looks and between renewals.
    pub retry: Duration,
}

impl Default for Timing {
    /// As other controllers have it.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), renew: seconds(10), retry: seconds(2) }
    }
}

/// The Lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its version: changes with every write.
    pub version: String,
    /// Who holds it; empty when it was given back.
    pub holder: String,
    /// For how long it holds without a renewal, as its holder says.
    pub lasts: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make the Lease, in our name.
    Create,
    /// Write it in our name, anew: it is free.
    Take,
    /// Write it again.
    Renew,
    /// Look again later.
    Wait,
}

/// One replica's view. Times are since any moment, of a clock that does not stand still or jump.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    version: Option<String>,
    /// When this version was first seen.
    since: Duration,
    /// Until when this replica leads.
    leads_until: Option<Duration>,
}

impl Election {
    /// A replica that does not lead.
    #[must_use]
    pub fn new(identity: String, timing: Timing) -> Self {
        Self { identity, timing, version: None, since: Duration::ZERO, leads_until: None }
    }

    /// What to do at `now`, when the Lease is as `seen`.
    pub fn step(&mut self, now: Duration, seen: Option<&Seen>) -> Action {
        let Some(seen) = seen else {
            self.version = None;
            return Action::Create;
        };
        if self.version.as_ref() != Some(&seen.version) {
            self.version = Some(seen.version.clone());
            self.since = now;
        }
        if seen.holder == self.identity {
            return Action::Renew;
        }
        // Another's: whatever was believed before, it is not ours.
        self.leads_until = None;
        if seen.holder.is_empty() || now >= self.since + seen.lasts.max(self.timing.lease) {
            Action::Take
        } else {
            Action::Wait
        }
    }

    /// The write that was begun at `started` is in force.
    pub fn wrote(&mut self, started: Duration) {
        self.leads_until = Some(started + self.timing.renew);
    }

    /// Until when this replica leads, as far as it knows; `None` when it does not.
    #[must_use]
    pub fn leads_until(&self) -> Option<Duration> {
        self.leads_until
    }

    /// Whether it leads at `now`.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        self.leads_until.is_some_and(|until| now < until)
    }

    /// It gives up; what it wrote stays.
    pub fn resign(&mut self) {
        self.leads_until = None;
    }

    /// The timing.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Election, Seen, Timing};
    use proptest::prelude::*;
    use std::time::Duration;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn seen(version: &str, holder: &str) -> Seen {
        Seen { version: version.to_owned(), holder: holder.to_owned(), lasts: seconds(15) }
    }

    #[test]
    fn a_free_lease_is_taken_and_anothers_is_waited_for() {
        let mut election = Election::new("a".to_owned(), Timing::default());
        assert_eq!(election.step(seconds(0), None), Action::Create);
        assert_eq!(election.step(seconds(1), Some(&seen("1", "b"))), Action::Wait);
        assert_eq!(election.step(seconds(15), Some(&seen("1", "b"))), Action::Wait);
        assert_eq!(election.step(seconds(16), Some(&seen("1", "b"))), Action::Take);
        assert_eq!(election.step(seconds(16), Some(&seen("2", "b"))), Action::Wait, "renewed");
        assert_eq!(election.step(seconds(17), Some(&seen("3", ""))), Action::Take, "given back");
        election.wrote(seconds(17));
        assert!(election.leads(seconds(26)) && !election.leads(seconds(27)));
        assert_eq!(election.step(seconds(19), Some(&seen("4", "a"))), Action::Renew);
        assert_eq!(election.step(seconds(20), Some(&seen("5", "b"))), Action::Wait);
        assert!(!election.leads(seconds(20)), "another took it");
    }

    #[test]
    fn a_holder_that_promises_more_is_given_more() {
        let mut election = Election::new("a".to_owned(), Timing::default());
        let long = Seen { lasts: seconds(60), ..seen("1", "b") };
        assert_eq!(election.step(seconds(0), Some(&long)), Action::Wait);
        assert_eq!(election.step(seconds(59), Some(&long)), Action::Wait);
        assert_eq!(election.step(seconds(60), Some(&long)), Action::Take);
        let short = Seen { lasts: seconds(0), ..seen("2", "b") };
        assert_eq!(election.step(seconds(60), Some(&short)), Action::Wait);
        assert_eq!(election.step(seconds(74), Some(&short)), Action::Wait);
    }

    /// A store with compare-and-swap, as the API server is one.
    #[derive(Default)]
    struct Store {
        version: u64,
        holder: Option<String>,
    }

    impl Store {
        fn read(&self) -> Option<Seen> {
            self.holder.as_ref().map(|holder| seen(&self.version.to_string(), holder))
        }

        fn write(&mut self, expected: Option<&str>, holder: &str) -> bool {
            let current = self.holder.as_ref().map(|_| self.version.to_string());
            if current.as_deref() != expected {
                return false;
            }
            self.version += 1;
            self.holder = Some(holder.to_owned());
            true
        }
    }

    struct Replica {
        election: Election,
        /// Own time that passes in a thousand units of true time.
        rate: u64,
        /// Own clock at true time nought.
        offset: u64,
        /// A write on its way: when it began by the own clock, and what it expects.
        write: Option<(Duration, Option<String>)>,
    }

    impl Replica {
        fn clock(&self, time: u64) -> Duration {
            Duration::from_millis(self.offset + time * self.rate / 1000)
        }

        fn begin(&mut self, time: u64, store: &Store) {
            let (now, seen) = (self.clock(time), store.read());
            let action = self.election.step(now, seen.as_ref());
            if action != Action::Wait {
                self.write = Some((now, seen.map(|it| it.version)));
            }
        }

        /// The write arrives; its answer may be lost.
        fn arrive(&mut self, store: &mut Store, answered: bool) {
            let Some((started, expected)) = self.write.take() else { return };
            let identity = self.election.identity().to_owned();
            if store.write(expected.as_deref(), &identity) && answered {
                self.election.wrote(started);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Clocks that differ by anything and run up to 20 % too slow or too fast, writes that
        /// take long or whose answers are lost, replicas that sleep: never two leaders.
        #[test]
        fn never_two_leaders(
            rates in prop::collection::vec(820_u64..1180, 3),
            offsets in prop::collection::vec(0_u64..1_000_000, 3),
            moves in prop::collection::vec((0_usize..3, 0_u8..4, 1_u64..7_000), 1..300),
        ) {
            let mut store = Store::default();
            let mut replicas: Vec<Replica> = rates.iter().zip(&offsets).enumerate().map(|(number, (&rate, &offset))| {
                let identity = format!("replica-{number}");
                let election = Election::new(identity, Timing::default());
                Replica { election, rate, offset, write: None }
            }).collect();
            let mut time = 0;
            for (who, what, pause) in moves {
                time += pause;
                let replica = &mut replicas[who];
                match what {
                    0 => replica.begin(time, &store),
                    1 => replica.arrive(&mut store, true),
                    2 => replica.arrive(&mut store, false),
                    _ => {
                        replica.begin(time, &store);
                        replica.arrive(&mut store, true);
                    }
                }
                let leaders = replicas.iter().filter(|it| it.election.leads(it.clock(time)));
                let names: Vec<_> = leaders.map(|it| it.election.identity()).collect();
                prop_assert!(names.len() <= 1, "at {time}: {names:?}");
            }
        }

        /// When the leader is gone, whoever looks often leads within the lease and one look.
        #[test]
        fn another_takes_over(died in 0_u64..60_000, phase in 0_u64..2_000) {
            let mut store = Store::default();
            let timing = Timing::default();
            let make = |name: &str| Replica {
                election: Election::new(name.to_owned(), timing), rate: 1000, offset: 7, write: None,
            };
            let (mut first, mut second) = (make("first"), make("second"));
            let mut turn = |replica: &mut Replica, time| {
                replica.begin(time, &store);
                replica.arrive(&mut store, true);
            };
            let mut last = 0;
            for time in (0..=died).step_by(2_000) {
                turn(&mut first, time);
                turn(&mut second, time + phase);
                prop_assert!(!second.election.leads(second.clock(time + phase)));
                last = time;
            }
            let mut time = last + phase;
            while !second.election.leads(second.clock(time)) {
                time += 2_000;
                turn(&mut second, time);
                prop_assert!(time <= last + phase + 15_000 + 2_000, "it takes too long");
            }
        }
    }
}
