//! The node's pods as the API server tells them, for threads that wait for one.
//!
//! Filled by [`crate::cluster::watch`]. Knows which pods are captured, so that repair looks only at
//! those that may not be.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;

/// A pod by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The key of a pod object.
#[must_use]
pub fn key(pod: &Value) -> Key {
    let text = |name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
    Key { namespace: text("namespace"), name: text("name") }
}

/// The uid of a pod object.
#[must_use]
pub fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

#[derive(Debug, Default)]
struct Inside {
    pods: HashMap<Key, Value>,
    /// Uids of pods that need no look: captured, or outside of the mesh.
    settled: HashSet<String>,
    known: bool,
    trouble: String,
    closed: bool,
}

/// The pods of the node. Shared; each method is short.
#[derive(Debug)]
pub struct NodePods {
    inside: Mutex<Inside>,
    changed: Condvar,
    news: watch::Sender<()>,
}

impl Default for NodePods {
    fn default() -> Self {
        let (news, _) = watch::channel(());
        Self { inside: Mutex::default(), changed: Condvar::new(), news }
    }
}

impl NodePods {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // What a panicking thread left is whole: every change is one call on a map.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inside)) {
        change(&mut self.lock());
        self.changed.notify_all();
        self.news.send_replace(());
    }

    /// All pods, anew.
    pub fn replace(&self, pods: HashMap<Key, Value>) {
        self.change(|inside| {
            let uids: HashSet<&str> = pods.values().map(uid).collect();
            inside.settled.retain(|settled| uids.contains(settled.as_str()));
            inside.pods = pods;
            inside.known = true;
            inside.trouble.clear();
        });
    }

    /// One pod that came or changed.
    pub fn put(&self, pod: Value) {
        self.change(|inside| {
            inside.pods.insert(key(&pod), pod);
            inside.trouble.clear();
        });
    }

    /// One pod that is gone; another of its name may have come before the news.
    pub fn delete(&self, pod: &Value) {
        self.change(|inside| {
            let key = key(pod);
            if inside.pods.get(&key).is_some_and(|found| uid(found) == uid(pod)) {
                inside.pods.remove(&key);
            }
            inside.settled.remove(uid(pod));
        });
    }

    /// Why the API server tells nothing at the moment.
    pub fn trouble(&self, text: &str) {
        self.change(|inside| text.clone_into(&mut inside.trouble));
    }

    /// Nobody waits any more: the agent stops.
    pub fn close(&self) {
        self.change(|inside| inside.closed = true);
    }

    /// The pod that `is_it` accepts, if it is known.
    pub fn find(&self, key: &Key, is_it: impl Fn(&Value) -> bool) -> Option<Value> {
        self.lock().pods.get(key).filter(|pod| is_it(pod)).cloned()
    }

    /// The same, waiting for it until `deadline`.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn wait_for(
        &self,
        key: &Key,
        deadline: Instant,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let mut inside = self.lock();
        loop {
            if let Some(pod) = inside.pods.get(key).filter(|pod| is_it(pod)) {
                return Ok(pod.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || inside.closed {
                return Err(inside.reason());
            }
            let woken = self.changed.wait_timeout(inside, left);
            inside = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Repair need not look at this pod.
    pub fn settle(&self, uid: &str) {
        let mut inside = self.lock();
        if inside.settled.len() > 2 * inside.pods.len() + 1000 {
            // Uids of pods that never appeared: their pods are looked at once more.
            inside.settled.clear();
        }
        inside.settled.insert(uid.to_owned());
    }

    /// The pods that nobody has settled, and those that `doubt` casts doubt on: a sandbox may have
    /// been made again since.
    #[must_use]
    pub fn unsettled(&self, doubt: impl Fn(&Value) -> bool) -> Vec<Value> {
        let inside = self.lock();
        let look = |pod: &&Value| !inside.settled.contains(uid(pod)) || doubt(pod);
        inside.pods.values().filter(look).cloned().collect()
    }

    /// Tells of changes.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }
}

impl Inside {
    fn reason(&self) -> String {
        match (self.trouble.as_str(), self.known) {
            ("", true) => "the API server has not told the node agent of it".to_owned(),
            ("", false) => "the node agent does not know its node's pods yet".to_owned(),
            (trouble, _) => trouble.to_owned(),
        }
    }
}
