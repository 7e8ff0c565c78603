//! Where an ADD finds its pod: among those that the API server told of, or in a folder of JSON files
//! `<namespace>_<name>.json`.
//!
//! A pod may become known some time after its sandbox; waiting for it is bounded and ends at once
//! when the agent stops.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use tokio::runtime::Handle;

use super::node_pods::{Key, NodePods};
use crate::cluster::trim::MIRROR;
use crate::cluster::watch;
use crate::netconf::is_object_name;
use crate::protocol::Sandbox;

/// Longest pod object that is read; the API server stores at most 1.5 MiB.
const MAX_POD: u64 = 4 << 20;
const LOOK_AGAIN: u16 = 20;

/// Tells threads that the agent stops: its other end is then closed.
#[derive(Debug)]
pub struct Stop {
    pipe: PipeReader,
}

impl Stop {
    /// Watches a pipe for its end.
    #[must_use]
    pub fn new(pipe: PipeReader) -> Self {
        Self { pipe }
    }

    /// For waiting on it together with other things.
    #[must_use]
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)
    }

    /// Waits; true when the agent stops.
    pub(super) fn within(&self, milliseconds: u16) -> bool {
        let timeout = PollTimeout::from(milliseconds);
        poll(&mut [self.poll_fd()], timeout).is_ok_and(|ready| ready > 0)
    }
}

/// Why there is no pod.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// No file, or one of an earlier pod of the same name.
    #[error("not known to the node agent yet ({0})")]
    Unknown(PathBuf),
    /// The API server does not know it, or tells nothing.
    #[error("not known to the node agent: {0}")]
    Untold(String),
    /// A file that is no pod.
    #[error("{path}: {problem}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A name that no pod can have.
    #[error("this is not a name of a pod")]
    Name,
}

/// Where pods are looked up.
#[derive(Debug)]
pub enum Pods {
    /// A folder of files.
    Folder(PathBuf),
    /// The API server.
    Cluster(ClusterPods),
}

/// The pods that the API server told of, and the way to ask it.
#[derive(Debug)]
pub struct ClusterPods {
    /// What it told.
    pub store: Arc<NodePods>,
    /// For asking.
    pub client: ClientOf,
}

/// A client and the runtime that it works on; the agent's threads are none of that runtime's.
#[derive(Clone)]
pub struct ClientOf {
    /// The client.
    pub client: Client,
    /// The runtime.
    pub runtime: Handle,
}

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOf").finish_non_exhaustive()
    }
}

impl Pods {
    /// The pod of a sandbox, waiting up to `limit` for it.
    ///
    /// # Errors
    /// When it does not come, or is no pod.
    pub fn wait_for(
        &self,
        sandbox: &Sandbox,
        limit: Duration,
        stop: &Stop,
    ) -> Result<Value, PodsError> {
        if !is_object_name(&sandbox.namespace) || !is_object_name(&sandbox.name) {
            return Err(PodsError::Name);
        }
        let deadline = Instant::now() + limit;
        match self {
            Self::Folder(folder) => in_folder(folder, sandbox, deadline, stop),
            Self::Cluster(pods) => pods.wait_for(sandbox, deadline),
        }
    }

    /// Nobody need wait any more: the agent stops.
    pub fn close(&self) {
        if let Self::Cluster(pods) = self {
            pods.store.close();
        }
    }

    /// Says that a pod is captured: nobody need look whether it is.
    pub fn captured(&self, pod: &Value) {
        if let Self::Cluster(pods) = self {
            pods.store.settle(super::node_pods::uid(pod));
        }
    }
}

impl ClusterPods {
    /// What is known, else what the API server answers, else what it tells in time.
    fn wait_for(&self, sandbox: &Sandbox, deadline: Instant) -> Result<Value, PodsError> {
        let key = Key { namespace: sandbox.namespace.clone(), name: sandbox.name.clone() };
        let is_it = |pod: &Value| is_the_one(pod, sandbox);
        if let Some(pod) = self.store.find(&key, is_it) {
            return Ok(pod);
        }
        let ClientOf { client, runtime } = &self.client;
        let asked = runtime.block_on(watch::get(client, &key));
        if let Ok(Some(pod)) = &asked
            && is_it(pod)
        {
            return Ok(pod.clone());
        }
        self.store.wait_for(&key, deadline, is_it).map_err(|reason| match asked {
            Err(problem) => PodsError::Untold(problem),
            Ok(Some(_)) => PodsError::Untold("another pod of its name has taken its place".into()),
            Ok(None) => PodsError::Untold(reason),
        })
    }
}

fn in_folder(
    folder: &Path,
    sandbox: &Sandbox,
    deadline: Instant,
    stop: &Stop,
) -> Result<Value, PodsError> {
    let path = folder.join(format!("{}_{}.json", sandbox.namespace, sandbox.name));
    loop {
        if let Some(pod) = read(&path)?
            && is_the_one(&pod, sandbox)
        {
            return Ok(pod);
        }
        if Instant::now() >= deadline || stop.within(LOOK_AGAIN) {
            return Err(PodsError::Unknown(path));
        }
    }
}

/// A pod of the same name may have been replaced: the uid tells, when the runtime gives it. Of a
/// static pod the runtime has the kubelet's uid, which the object in the API server repeats.
fn is_the_one(pod: &Value, sandbox: &Sandbox) -> bool {
    let metadata = &pod["metadata"];
    let uids = [&metadata["uid"], &metadata["annotations"][MIRROR]];
    let named = |asked: &str| uids.iter().any(|uid| *uid == asked);
    metadata["name"] == sandbox.name.as_str()
        && metadata["namespace"] == sandbox.namespace.as_str()
        && sandbox.uid.as_deref().is_none_or(|asked| uids[0].is_null() || named(asked))
}

fn read(path: &Path) -> Result<Option<Value>, PodsError> {
    let unreadable = |problem: String| PodsError::Unreadable { path: path.to_owned(), problem };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(e.to_string())),
    };
    let mut text = Vec::new();
    file.take(MAX_POD).read_to_end(&mut text).map_err(|e| unreadable(e.to_string()))?;
    serde_json::from_slice(&text).map(Some).map_err(|e| unreadable(e.to_string()))
}
