//! What became of the connections of each captured pod, for metrics: read from the counters of its
//! rules when somebody asks, in the kernel, without executing anything in the pod.
//!
//! Bounded in pods and in time; what is left out is counted. Must not know how metrics are served.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lateen_interception::counters::Verdict;
use lateen_interception::{counters, netns};

use crate::agent::node_pods::Key;
use crate::drift::watched::Identity;

/// Longest time that reading takes; one pod takes less than a millisecond.
const LONGEST: Duration = Duration::from_secs(1);
/// Who asks again within this is given the same.
const FRESH: Duration = Duration::from_secs(1);

/// The pods that are watched, and where their rules are.
#[derive(Debug, Default)]
pub struct Watching {
    pods: Mutex<BTreeMap<Identity, (Key, PathBuf)>>,
    last: Mutex<Option<(Instant, Counts)>>,
}

/// Packets by pod and verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// What was read.
    pub pods: Vec<(Key, BTreeMap<Verdict, u64>)>,
    /// Pods that could not be read in time or at all.
    pub left_out: usize,
}

impl Watching {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Identity, (Key, PathBuf)>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod is watched.
    pub fn begin(&self, identity: Identity, pod: Key, netns: PathBuf) {
        self.lock().insert(identity, (pod, netns));
    }

    /// It is no more.
    pub fn end(&self, identity: Identity) {
        self.lock().remove(&identity);
    }

    /// How many are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters of all of them. Blocking; whoever comes meanwhile waits and gets the same.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, counts)) = last.as_ref()
            && read.elapsed() < FRESH
        {
            return counts.clone();
        }
        let counts = self.read(Instant::now() + LONGEST);
        *last = Some((Instant::now(), counts.clone()));
        counts
    }

    fn read(&self, deadline: Instant) -> Counts {
        // Not locked while it is read: pods come and go meanwhile.
        let pods: Vec<(Key, PathBuf)> = self.lock().values().cloned().collect();
        let mut counts = Counts::default();
        for (pod, path) in pods {
            let read = (Instant::now() < deadline).then(|| netns::run_in(&path, counters::read));
            match read {
                Some(Ok(Ok(verdicts))) => counts.pods.push((pod, verdicts)),
                Some(Ok(Err(_)) | Err(_)) | None => counts.left_out += 1,
            }
        }
        counts
    }
}
