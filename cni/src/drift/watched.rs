//! One pod whose rules are watched: its socket, what its rules are to be, and what is done when they
//! are not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lateen_interception::notices::Notices;
use lateen_interception::verify::is_of;
use lateen_interception::{ApplyError, State, apply, netns, verify};

use super::pace::{Pace, Told};
use super::{Subject, Tale};
use crate::agent::node_pods::{Key, key};
use crate::agent::refuse_own_namespace;

/// Least time between looks at one pod, however much is heard of it.
const GAP: Duration = Duration::from_millis(50);
/// Time until a look that failed is repeated.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Device and inode of a network namespace: its path may come to mean another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(u64, u64);

impl Identity {
    /// Of the namespace at a path.
    ///
    /// # Errors
    /// When there is none any more.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|m| Self(m.dev(), m.ino()))
    }
}

/// What a look led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rules are as they must be, or it is not yet time to mend them.
    Quiet,
    /// They are back, and what is to be told of it.
    Restored(Option<Tale>),
    /// They are not, and what is to be told of it.
    Failed(Option<Tale>),
    /// The pod has ended.
    Ended,
}

/// A watched pod.
#[derive(Debug)]
pub struct Watched {
    subject: Subject,
    identity: Identity,
    notices: Notices,
    /// Rules of other settings were there at the first look: annotations that somebody changes do
    /// not change a running pod. Unknown before it.
    of_other_settings: Option<bool>,
    pace: Pace,
    /// It is not looked at before.
    rests_until: Instant,
    /// It is looked at then, whether anything is heard or not.
    due: bool,
    /// What was told of last and still holds.
    told: Option<&'static str>,
}

impl Watched {
    /// Begins to listen. The first look is due at once: something may have changed just before.
    ///
    /// # Errors
    /// When the namespace is gone or cannot be listened in.
    pub fn new(subject: Subject, now: Instant) -> Result<Self, String> {
        let path = subject.netns.as_path();
        refuse_own_namespace(path).map_err(|e| e.to_string())?;
        let notices = netns::run_in(path, Notices::open).map_err(|e| e.to_string())?;
        let notices = notices.map_err(|e| e.to_string())?;
        let identity = Identity::of(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self {
            subject,
            identity,
            notices,
            of_other_settings: None,
            pace: Pace::default(),
            rests_until: now,
            due: true,
            told: None,
        })
    }

    /// Goes on with another plan, or the same.
    pub fn renew(&mut self, subject: Subject) {
        if subject.plan != self.subject.plan {
            self.of_other_settings = Some(false);
            self.due = true;
        }
        self.subject = subject;
    }

    /// Whether the pod is gone, or another has come to its path.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        Identity::of(&self.subject.netns).ok() != Some(self.identity)
    }

    /// When it is looked at without having been heard of, or heard again.
    #[must_use]
    pub fn wakes(&self, now: Instant) -> Option<Instant> {
        (self.due || self.rests_until > now).then_some(self.rests_until)
    }

    /// Whether it is time to look, whatever is heard.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due && self.rests_until <= now
    }

    /// Looks at the rules and mends them, unless that is too soon, or `repair` is off.
    pub fn look(&mut self, now: Instant, repair: bool) -> Outcome {
        if self.has_ended() {
            return Outcome::Ended;
        }
        self.due = false;
        self.rests_until = now + GAP;
        let mut restored = None;
        loop {
            // Before the rules are read: what changes after that is heard.
            let heard = self.notices.take().unwrap_or_default();
            let problem = match self.problem() {
                Ok(problem) => problem,
                Err(error) => return self.failed(now, &error),
            };
            let Some(problem) = problem else {
                self.told = None;
                return restored.map_or(Outcome::Quiet, Outcome::Restored);
            };
            if !repair {
                return self.only_told(&problem);
            }
            let next = self.pace.next(now);
            if next > now {
                (self.rests_until, self.due) = (next, true);
                return restored.map_or(Outcome::Quiet, Outcome::Restored);
            }
            let told = self.pace.repaired(now);
            if let Err(error) = self.mend() {
                return self.failed(now, &error);
            }
            let by = heard.by.as_deref().unwrap_or("an unknown program");
            restored = Some(self.tale_of(told, &problem, by));
        }
    }

    /// What is wrong with the rules.
    fn problem(&mut self) -> Result<Option<String>, String> {
        let (path, plan) = (&self.subject.netns, &self.subject.plan);
        let first = self.of_other_settings.is_none();
        let looked = netns::run_in(path, || -> Result<(State, bool), ApplyError> {
            let state = verify(plan)?;
            let ours = !first || state == State::Absent || is_of(plan)?;
            Ok((state, ours))
        });
        let (state, ours) = looked.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let of_others = *self.of_other_settings.get_or_insert(!ours);
        Ok(match state {
            State::Planned => {
                self.of_other_settings = Some(false);
                None
            }
            State::Differs(_) if of_others => None,
            State::Differs(difference) => Some(difference),
            State::Absent => Some("all of them were gone".to_owned()),
        })
    }

    fn mend(&self) -> Result<(), String> {
        let plan = &self.subject.plan;
        let done = netns::run_in(&self.subject.netns, || apply(plan));
        done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    fn tale_of(&mut self, told: Told, problem: &str, by: &str) -> Option<Tale> {
        let (reason, note) = match told {
            Told::Again => return None,
            Told::First => (
                "RulesRestored",
                format!(
                    "The pod's redirect rules were changed by {by} ({problem}) and are in place again. \
                     What connected meanwhile may pass outside of the mesh until it ends"
                ),
            ),
            Told::Contest => (
                "RulesContested",
                format!(
                    "The pod's redirect rules are changed again and again, the last time by {by} ({problem}). \
                     They are put back, but more and more seldom: stop what changes them, or delete the pod"
                ),
            ),
        };
        Some(self.tale(reason, note))
    }

    fn only_told(&mut self, problem: &str) -> Outcome {
        let reason = "RulesChanged";
        if self.told.replace(reason) == Some(reason) {
            return Outcome::Failed(None);
        }
        let note = format!(
            "The pod's redirect rules were changed ({problem}), and repair is off: delete the pod"
        );
        Outcome::Failed(Some(self.tale(reason, note)))
    }

    /// Said once; tried again until it succeeds or the pod ends.
    fn failed(&mut self, now: Instant, error: &str) -> Outcome {
        (self.rests_until, self.due) = (now + AFTER_FAILURE, true);
        let reason = "RulesNotRestored";
        if self.told.replace(reason) == Some(reason) {
            return Outcome::Failed(None);
        }
        let note = format!("The pod's redirect rules cannot be looked at or put back: {error}");
        Outcome::Failed(Some(self.tale(reason, note)))
    }

    fn tale(&self, reason: &'static str, note: String) -> Tale {
        let Key { namespace, name } = key(&self.subject.pod);
        tracing::warn!(namespace, pod = name, reason, "{note}");
        Tale { pod: self.subject.pod.clone(), reason, note }
    }

    /// What it is known by.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The pod and its rules.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }
}
