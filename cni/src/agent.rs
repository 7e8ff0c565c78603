//! The node agent: answers the plugin and sets the rules of sandboxes.
//!
//! [`pods`] and [`node_pods`] know the node's pods, [`serve`] the socket and threads. Rules come from
//! the interception crate; decisions from [`crate::decision`].

pub mod node_pods;
pub mod pods;
pub mod serve;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lateen_interception::{ApplyError, RedirectPlan, State, apply, netns, verify};

use crate::decision::{Decision, decide};
use crate::drift::{Drift, Subject};
use crate::error::{CniError, Code};
use crate::metrics::Metrics;
use crate::protocol::{Answer, Request, Sandbox};
use pods::{Pods, Stop};

const OWN_NAMESPACE: &str = "/proc/self/ns/net";

/// What answers requests; shared by all threads.
#[derive(Debug)]
pub struct Agent {
    /// The node's pods.
    pub pods: Pods,
    /// How long a pod may take to appear.
    pub pod_wait: Duration,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What keeps the rules as they are set.
    pub drift: Option<Drift>,
}

impl Agent {
    /// Answers one request and logs the decision.
    pub fn answer(&self, request: &Request, stop: &Stop) -> Answer {
        let (verb, sandbox) = match request {
            Request::Status => return status(),
            Request::Add(sandbox) => ("ADD", sandbox),
            Request::Check(sandbox) => ("CHECK", sandbox),
        };
        let start = Instant::now();
        let result = self.handle(verb == "CHECK", sandbox, stop);
        self.metrics.called(verb, result.as_ref().err().map_or(0, |e| e.code), start.elapsed());
        let (namespace, pod, container) = (&sandbox.namespace, &sandbox.name, &sandbox.container);
        match result {
            Ok(reason) => {
                tracing::info!(verb, namespace, pod, container, reason, "decided");
                Answer::Ok { reason: reason.to_owned() }
            }
            Err(e) => {
                tracing::warn!(verb, namespace, pod, container, code = e.code, "failed: {e}");
                Answer::Error { code: e.code, message: e.message }
            }
        }
    }

    fn handle(
        &self,
        check: bool,
        sandbox: &Sandbox,
        stop: &Stop,
    ) -> Result<&'static str, CniError> {
        let name = format!("pod {}/{}", sandbox.namespace, sandbox.name);
        let pod = self
            .pods
            .wait_for(sandbox, self.pod_wait, stop)
            .map_err(|e| CniError::new(Code::TryLater, format!("{name}: {e}")))?;
        let decision =
            decide(&pod).map_err(|e| CniError::new(Code::Config, format!("{name}: {e}")))?;
        let (settings, warnings) = match decision {
            Decision::Skip(skip) => return Ok(skip.code()),
            Decision::Redirect { settings, warnings } => (settings, warnings),
        };
        for warning in warnings {
            tracing::warn!(namespace = sandbox.namespace, pod = sandbox.name, "{warning}");
        }
        let plan = RedirectPlan::new(&settings);
        let path = Path::new(&sandbox.netns);
        refuse_own_namespace(path)?;
        let entered = if check {
            netns::run_in(path, || verify(&plan).map(Some))
        } else {
            netns::run_in(path, || apply(&plan).map(|()| None))
        };
        let state = entered
            .map_err(|e| CniError::new(Code::Namespace, format!("{name}: {e}")))?
            .map_err(|e: ApplyError| CniError::new(Code::Apply, format!("{name}: {e}")))?;
        match state {
            None => {
                self.pods.captured(&pod);
                if let Some(drift) = &self.drift {
                    drift.watch(Subject { pod, netns: path.to_owned(), plan });
                }
                Ok("redirected")
            }
            Some(State::Planned) => Ok("as-planned"),
            Some(State::Absent) => {
                let text = format!("{name}: there are no redirect rules; create the pod again");
                Err(CniError::new(Code::Drift, text))
            }
            Some(State::Differs(difference)) => {
                let text = format!("{name}: {difference}; create the pod again");
                Err(CniError::new(Code::Drift, text))
            }
        }
    }
}

/// The node's own namespace is never a pod's: redirecting it would cut the node off.
pub(crate) fn refuse_own_namespace(path: &Path) -> Result<(), CniError> {
    let identity = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    let error = |e| CniError::new(Code::Namespace, format!("{}: {e}", path.display()));
    let theirs = identity(path).map_err(|e| error(e.to_string()))?;
    let own = identity(Path::new(OWN_NAMESPACE)).map_err(|e| error(e.to_string()))?;
    if theirs == own {
        return Err(error("this is the node's own network namespace, not a pod's".to_owned()));
    }
    Ok(())
}

fn status() -> Answer {
    match kernel() {
        Ok(()) => Answer::Ok { reason: "ready".to_owned() },
        Err(message) => Answer::Error { code: Code::NotAvailable as u32, message },
    }
}

/// Whether rules can be set at all: the kernel is asked in this very namespace, without changes.
///
/// # Errors
/// Why not.
pub fn kernel() -> Result<(), String> {
    let nothing = RedirectPlan { chains: Vec::new(), mark_route: None };
    verify(&nothing).map(drop).map_err(|e| e.to_string())
}
