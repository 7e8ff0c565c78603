//! What this process writes to the API server while it leads, and the election of who leads.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_webhook::admission::Injector;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Stage;
use crate::cluster::Cluster;
use crate::kubernetes::ca_bundle::Callee;
use crate::kubernetes::election::Timing;
use crate::kubernetes::fallback::Fallback;
use crate::kubernetes::lease::Candidate;
use crate::kubernetes::root_certificates::RootCertificates;
use crate::kubernetes::roots::Roots;
use crate::kubernetes::webhooks::{Bundles, Webhooks};
use crate::serve::readiness::Readiness;
use crate::settings::Settings;

/// The Lease by which the replicas of a revision agree.
const LEASE: &str = "lateend-leader";
/// Former roots stay published for so many times the time that new ones are published before their
/// use: replicas do not begin at the same moment.
const FORMER: u32 = 5;
/// What readiness calls the bundles.
const PART: &str = "webhook";
/// Longest that readiness waits for them: whoever takes the permission to write them away shall not
/// take discovery away.
const BUNDLE_PATIENCE: Duration = Duration::from_secs(60);

/// Cluster role of the chart.
const ROLE: &str = "istiod-clusterrole";
/// Cluster role of the chart while the fallback is on.
const FALLBACK_ROLE: &str = "istiod-fallback";

/// What is written.
#[derive(Debug)]
pub(super) struct Contents {
    /// Whom workloads and the webhooks' callers are to trust.
    pub(super) roots: watch::Receiver<Roots>,
    /// The settings in force of injection.
    pub(super) injector: Arc<ArcSwap<Injector>>,
}

/// What others follow of the writers.
#[derive(Debug)]
pub(super) struct Begun {
    /// What the webhooks' callers trust.
    pub(super) bundles: watch::Receiver<Bundles>,
    /// Whether this replica leads.
    pub(super) leads: watch::Receiver<bool>,
}

/// Begins to write `contents`.
pub(super) fn begin(
    cluster: &Cluster,
    settings: &Settings,
    contents: Contents,
    readiness: &Arc<Readiness>,
    stage: &Stage,
) -> Begun {
    let Contents { roots, injector } = contents;
    let grace = settings.root_overlap.saturating_mul(FORMER);
    let lease = settings.revised(LEASE);
    let (candidate, leads) =
        Candidate::new(cluster, lease, Timing::default(), Arc::clone(readiness));
    let (webhooks, bundles) =
        Webhooks::new(cluster, callee(settings), roots.clone(), grace, readiness);
    let role = |name| format!("{}-{}", settings.revised(name), settings.namespace);
    let certificates = RootCertificates::new(cluster, role(ROLE), roots.clone(), grace, readiness);
    // The Lease is given back when nothing is written any more.
    let writers = TaskTracker::new();
    let stop = || stage.stop.clone();
    stage.tasks.spawn(writers.track_future(webhooks.run(leads.clone(), stop())));
    stage.tasks.spawn(writers.track_future(certificates.run(leads.clone(), stop())));
    let fallback = Fallback::new(cluster, injector, role(FALLBACK_ROLE), readiness);
    stage.tasks.spawn(writers.track_future(fallback.run(leads.clone(), stop())));
    writers.close();
    stage.tasks.spawn(candidate.run(stop(), writers));
    readiness.waits(PART, "what the API server trusts is not known yet");
    stage.tasks.spawn(gate(roots, bundles.clone(), Arc::clone(readiness), stop()));
    Begun { bundles, leads }
}

/// Holds readiness back at the start until the API server believes our certificate; later it is a
/// remark.
async fn gate(
    roots: watch::Receiver<Roots>,
    mut bundles: watch::Receiver<Bundles>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
) {
    let patience = tokio::time::sleep(BUNDLE_PATIENCE);
    tokio::pin!(patience);
    let mut waits = true;
    loop {
        let held = bundles.borrow_and_update().hold(&roots.borrow());
        match held {
            Ok(()) => {
                waits = false;
                readiness.met(PART);
                readiness.well(PART);
            }
            Err(reason) if waits => readiness.waits(PART, reason),
            Err(reason) => readiness.remark(PART, reason),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = bundles.changed() => if changed.is_err() { return },
            () = &mut patience, if waits => {
                waits = false;
                tracing::error!("ready, though the API server may not believe our certificate");
                readiness.met(PART);
            }
        }
    }
}

fn callee(settings: &Settings) -> Callee {
    let mut configuration = settings.revised("istio-sidecar-injector");
    if settings.namespace != "istio-system" {
        configuration = format!("{configuration}-{}", settings.namespace);
    }
    let service = settings.revised("istiod");
    Callee { service, namespace: settings.namespace.clone(), configuration }
}

#[cfg(test)]
mod tests {
    use super::callee;
    use crate::settings::Settings;
    use clap::Parser as _;

    #[test]
    fn hooks_are_known_by_revision_and_namespace() {
        let of = |arguments: &[&str]| {
            let all = ["lateend"].iter().chain(arguments);
            callee(&Settings::parse_from(all))
        };
        let plain = of(&["--namespace", "istio-system"]);
        assert_eq!(plain.configuration, "istio-sidecar-injector");
        assert_eq!(plain.service, "istiod");
        let other = of(&["--namespace", "mesh", "--revision", "canary"]);
        assert_eq!(other.configuration, "istio-sidecar-injector-canary-mesh");
        assert_eq!(other.service, "istiod-canary");
    }
}
