//! Keeps the rules of captured pods as they were planned: hears of every change in a pod's network
//! namespace, compares, and puts back what differs.
//!
//! One thread with one socket for each pod. What it does itself it hears too, and finds as planned.
//! [`pace`] keeps it from fighting somebody who does not stop, [`watched`] is one pod. Must not know
//! the API server: what is to be told goes out as [`Tale`]s.

pub mod pace;
pub mod watched;

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use lateen_interception::RedirectPlan;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::agent::node_pods::{Key, key};
use crate::metrics::Metrics;
use watched::{Identity, Outcome, Watched};

/// Most pods of a node that are watched; each costs a file descriptor.
const MOST: usize = 512;
/// Requests that wait for the thread; one more is dropped, and said.
const REQUESTS: usize = 1024;
/// Time between looks whether pods have ended: an open socket keeps their namespaces.
const SWEEP: Duration = Duration::from_secs(2);

/// A pod that is captured.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The pod, for telling of it.
    pub pod: Value,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Its rules.
    pub plan: RedirectPlan,
}

/// What is to be told of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tale {
    /// The pod.
    pub pod: Value,
    /// Reason, in one word.
    pub reason: &'static str,
    /// The rest.
    pub note: String,
}

/// How others talk to the thread.
#[derive(Debug, Clone)]
pub struct Drift {
    requests: SyncSender<Subject>,
    wake: Arc<PipeWriter>,
    over: Arc<AtomicBool>,
}

/// The thread's end.
#[derive(Debug)]
pub struct Watcher {
    requests: Receiver<Subject>,
    wake: PipeReader,
    over: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    repair: bool,
    pods: HashMap<Identity, Watched>,
}

impl Drift {
    /// Both ends. `repair` is whether differences are mended, or only told of.
    ///
    /// # Errors
    /// When the system has no room.
    pub fn new(metrics: Arc<Metrics>, repair: bool) -> io::Result<(Self, Watcher)> {
        let (send, requests) = mpsc::sync_channel(REQUESTS);
        let (wake, waker) = io::pipe()?;
        let over = Arc::new(AtomicBool::new(false));
        let drift = Self { requests: send, wake: Arc::new(waker), over: Arc::clone(&over) };
        let pods = HashMap::new();
        Ok((drift, Watcher { requests, wake, over, metrics, repair, pods }))
    }

    /// Has a pod watched from now on. One that is watched already goes on with this plan.
    pub fn watch(&self, subject: Subject) {
        if self.requests.try_send(subject).is_err() {
            tracing::warn!("the rules of a pod are not watched: too many pods start at once");
        }
        self.wake_up();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.over.store(true, Ordering::Release);
        self.wake_up();
    }

    /// A thread that has ended need not wake.
    fn wake_up(&self) {
        let _written = self.wake.as_ref().write(&[1]);
    }
}

impl Watcher {
    /// Watches until it is stopped. `tell` must not block.
    pub fn run(mut self, tell: impl Fn(Tale)) {
        let mut swept = Instant::now();
        while !self.over.load(Ordering::Acquire) {
            let now = Instant::now();
            self.take_requests(now);
            for identity in self.wait(now) {
                self.look(identity, &tell);
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                self.let_go();
            }
        }
    }

    /// Closes the sockets of pods that have ended.
    fn let_go(&mut self) {
        let ended = self.pods.extract_if(|_, pod| pod.has_ended());
        ended.for_each(|(identity, _)| self.metrics.watching.end(identity));
    }

    fn take_requests(&mut self, now: Instant) {
        while !self.over.load(Ordering::Acquire)
            && let Ok(subject) = self.requests.try_recv()
        {
            let known = Identity::of(&subject.netns).ok().and_then(|id| self.pods.get_mut(&id));
            if let Some(pod) = known {
                pod.renew(subject);
                continue;
            }
            let Key { namespace, name } = key(&subject.pod);
            if self.pods.len() >= MOST {
                tracing::warn!(
                    namespace,
                    pod = name,
                    "its rules are not watched: {MOST} others are"
                );
                continue;
            }
            match Watched::new(subject, now) {
                Ok(pod) => {
                    let (name, path) = (Key { namespace, name }, pod.subject().netns.clone());
                    self.metrics.watching.begin(pod.identity(), name, path);
                    self.pods.insert(pod.identity(), pod);
                }
                Err(problem) => {
                    tracing::warn!(namespace, pod = name, "its rules are not watched: {problem}");
                }
            }
        }
    }

    /// Waits until something is heard, is due, or is asked for, and says whom to look at.
    fn wait(&mut self, now: Instant) -> Vec<Identity> {
        let latest = now + SWEEP;
        let next = self.pods.values().filter_map(|pod| pod.wakes(now)).min();
        let pause = next.unwrap_or(latest).min(latest).saturating_duration_since(now);
        let listening: Vec<&Watched> =
            self.pods.values().filter(|pod| pod.wakes(now).is_none()).collect();
        let mut ready = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        ready.extend(listening.iter().map(|pod| PollFd::new(pod.as_fd(), PollFlags::POLLIN)));
        // Rounded up: what is due is due when it wakes.
        let milliseconds = u16::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        if let Err(error) = poll(&mut ready, PollTimeout::from(milliseconds)) {
            tracing::warn!("waiting for changes of rules: {error}");
        }
        let mut heard = ready.iter().map(|one| one.any().unwrap_or(true));
        let woken = heard.next().unwrap_or(false);
        let heard: Vec<Identity> = listening
            .iter()
            .zip(heard)
            .filter(|(_, is)| *is)
            .map(|(pod, _)| pod.identity())
            .collect();
        drop(ready);
        if woken {
            // As many as are there; the rest wakes again.
            let _read = self.wake.read(&mut [0; 512]);
        }
        let now = Instant::now();
        let due = self.pods.values().filter(|pod| pod.is_due(now)).map(Watched::identity);
        heard.into_iter().chain(due).collect()
    }

    fn look(&mut self, identity: Identity, tell: &impl Fn(Tale)) {
        let Some(pod) = self.pods.get_mut(&identity) else { return };
        let (success, tale) = match pod.look(Instant::now(), self.repair) {
            Outcome::Quiet => return,
            Outcome::Ended => return self.let_go(),
            Outcome::Restored(tale) => (true, tale),
            Outcome::Failed(tale) => (false, tale),
        };
        self.metrics.drifted(success);
        if let Some(tale) = tale {
            tell(tale);
        }
    }
}
