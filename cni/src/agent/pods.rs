//! The node's pods, from a folder of JSON files `<namespace>_<name>.json`.
//!
//! A file may appear some time after the sandbox does; waiting for it is bounded and ends at once
//! when the agent stops.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

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
pub struct Pods {
    folder: PathBuf,
}

impl Pods {
    /// Pods of a folder.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The pod of a sandbox, waiting up to `limit` for it.
    ///
    /// # Errors
    /// When it does not come, or its file is no pod.
    pub fn wait_for(
        &self,
        sandbox: &Sandbox,
        limit: Duration,
        stop: &Stop,
    ) -> Result<Value, PodsError> {
        if !is_object_name(&sandbox.namespace) || !is_object_name(&sandbox.name) {
            return Err(PodsError::Name);
        }
        let path = self.folder.join(format!("{}_{}.json", sandbox.namespace, sandbox.name));
        let deadline = Instant::now() + limit;
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
}

/// A pod of the same name may have been replaced: the uid tells, when the runtime gives it.
fn is_the_one(pod: &Value, sandbox: &Sandbox) -> bool {
    let metadata = &pod["metadata"];
    let uid = metadata["uid"].as_str();
    metadata["name"] == sandbox.name.as_str()
        && metadata["namespace"] == sandbox.namespace.as_str()
        && sandbox.uid.as_deref().is_none_or(|asked| uid.is_none_or(|found| found == asked))
}

fn read(path: &std::path::Path) -> Result<Option<Value>, PodsError> {
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
