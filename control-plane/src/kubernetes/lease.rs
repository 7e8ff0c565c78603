//! The Lease by which replicas agree on who writes: reads it, writes it, says who leads.
//!
//! Decides nothing; see [`super::election`].

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::MANAGER;
use super::ask::{Failure, Trouble, ask};
use super::denied::Tried;
use super::election::{Action, Election, Seen, Timing};
use crate::cluster::Cluster;
use crate::serve::readiness::Readiness;

/// Longest that giving the Lease back may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// One replica's part in the election.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    namespace: String,
    election: Election,
    begun: Instant,
    leads: watch::Sender<bool>,
    trouble: Trouble,
}

impl Candidate {
    /// A replica that stands for the Lease `name`, and the channel that says whether it leads.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        name: String,
        timing: Timing,
        readiness: Arc<Readiness>,
    ) -> (Self, watch::Receiver<bool>) {
        let (leads, led) = watch::channel(false);
        let candidate = Self {
            api: Api::namespaced(cluster.client.clone(), &cluster.namespace),
            name,
            namespace: cluster.namespace.clone(),
            election: Election::new(cluster.pod.clone(), timing),
            begun: Instant::now(),
            leads,
            trouble: Trouble::none("leader election", readiness),
        };
        (candidate, led)
    }

    /// Stands until `stop`; then, when all `writers` have ended, gives the Lease back.
    pub async fn run(mut self, stop: CancellationToken, writers: TaskTracker) {
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => break,
                pause = self.turn() => pause,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        let held = self.election.leads_until().is_some();
        self.election.resign();
        self.publish();
        writers.wait().await;
        if held && tokio::time::timeout(FAREWELL, self.give_back()).await.is_err() {
            tracing::debug!("the Lease was not given back; it ends by itself");
        }
    }

    /// One look; the pause until the next.
    async fn turn(&mut self) -> Duration {
        self.publish();
        let left = self.left();
        let attempt = self.attempt();
        let outcome = match left {
            Some(left) => tokio::time::timeout(left, attempt).await.unwrap_or(Ok(())),
            None => attempt.await,
        };
        let retry = self.election.timing().retry;
        let pause = match outcome {
            Ok(()) => {
                self.trouble.over();
                retry
            }
            Err(failure) => self.trouble.again(failure.to_string()).min(retry),
        };
        self.publish();
        self.left().map_or(pause, |left| pause.min(left))
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let started = self.begun.elapsed();
        let tried = |verb| {
            let lease = Tried::new(verb, "leases").of("coordination.k8s.io");
            lease.named(&self.name).within(&self.namespace)
        };
        let lease = ask(tried("get"), self.api.get_opt(&self.name)).await?;
        let action = self.election.step(self.begun.elapsed(), lease.as_ref().map(seen).as_ref());
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let next = claim(lease, &self.name, self.election.identity(), self.election.timing());
        let written = match action {
            Action::Wait => return Ok(()),
            Action::Create => ask(tried("create"), self.api.create(&params, &next)).await,
            Action::Take | Action::Renew => {
                ask(tried("update"), self.api.replace(&self.name, &params, &next)).await
            }
        };
        match written {
            Ok(_) => self.election.wrote(started),
            // Another was quicker.
            Err(failure) if failure.status().is_some_and(|status| status.code == 409) => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn give_back(&self) {
        let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await else { return };
        let Some(spec) = &mut lease.spec else { return };
        if spec.holder_identity.as_deref() != Some(self.election.identity()) {
            return;
        }
        spec.holder_identity = None;
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        if let Err(error) = self.api.replace(&self.name, &params, &lease).await {
            tracing::debug!(%error, "the Lease was not given back; it ends by itself");
        }
    }

    /// Time left in which this replica leads.
    fn left(&self) -> Option<Duration> {
        let until = self.election.leads_until()?;
        until.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero())
    }

    fn publish(&self) {
        let now = self.election.leads(self.begun.elapsed());
        let changed = self.leads.send_if_modified(|leads| std::mem::replace(leads, now) != now);
        if changed && now {
            tracing::info!(lease = %self.name, "this replica leads: it writes to the API server");
        } else if changed {
            tracing::info!(lease = %self.name, "this replica leads no more");
        }
    }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|it| u64::try_from(it).ok());
    Seen {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        lasts: Duration::from_secs(seconds.unwrap_or_default()),
    }
}

/// The Lease in the name of `identity`: a new one, or the one that was read, written over.
fn claim(read: Option<Lease>, name: &str, identity: &str, timing: Timing) -> Lease {
    let mut lease = read.unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: None,
    });
    let now = MicroTime(Timestamp::now());
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if spec.holder_identity.as_deref() != Some(identity) {
        spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |it| it.saturating_add(1)));
        spec.acquire_time = Some(now.clone());
    }
    spec.holder_identity = Some(identity.to_owned());
    spec.lease_duration_seconds = i32::try_from(timing.lease.as_secs()).ok();
    spec.renew_time = Some(now);
    lease
}

#[cfg(test)]
mod tests {
    use super::super::election::Timing;
    use super::{claim, seen};

    #[test]
    fn a_claim_keeps_what_it_does_not_know() {
        let mut first = claim(None, "lateend-leader", "a", Timing::default());
        first.metadata.resource_version = Some("7".to_owned());
        first.metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
        assert_eq!((seen(&first).holder.as_str(), seen(&first).version.as_str()), ("a", "7"));
        let again = claim(Some(first.clone()), "lateend-leader", "a", Timing::default());
        let (before, after) = (first.spec.clone().unwrap(), again.spec.clone().unwrap());
        assert_eq!(before.acquire_time, after.acquire_time);
        assert_eq!(after.lease_transitions, Some(0));
        let other = claim(Some(again), "lateend-leader", "b", Timing::default());
        assert_eq!(other.metadata.labels, first.metadata.labels);
        assert_eq!(other.metadata.resource_version.as_deref(), Some("7"), "compare and swap");
        assert_eq!(other.spec.unwrap().lease_transitions, Some(1));
    }
}
