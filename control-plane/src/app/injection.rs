//! What watches over injection: owners are told of decisions, pods are looked at, the webhook is tried.
//!
//! Not what injects: all of it may fail without a pod noticing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use lateen_webhook::admission::Injector;
use lateen_webhook::stats::Counters;
use tokio::sync::watch;

use super::Stage;
use crate::cluster::Cluster;
use crate::kubernetes::auditor::Auditor;
use crate::kubernetes::decisions;
use crate::kubernetes::events::Events;
use crate::kubernetes::self_test::SelfTest;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;
use crate::settings::Settings;

/// Decisions that wait to be told of.
const WAITING: usize = 64;

/// What is watched, and where it is shown.
#[derive(Debug)]
pub(super) struct Watched {
    /// The settings in force.
    pub(super) injector: Arc<ArcSwap<Injector>>,
    /// What the webhook decides.
    pub(super) counters: Arc<Counters>,
    /// Metrics.
    pub(super) metrics: Arc<Metrics>,
    /// Remarks.
    pub(super) readiness: Arc<Readiness>,
}

/// Begins to watch over injection.
pub(super) fn begin(
    cluster: &Cluster,
    settings: &Settings,
    watched: Watched,
    leads: &watch::Receiver<bool>,
    stage: &Stage,
) {
    let Watched { injector, counters, metrics, readiness } = watched;
    let stop = || stage.stop.clone();
    let events = Arc::new(Events::new(cluster, &metrics));
    if let Some(decided) = counters.decisions(WAITING) {
        stage.tasks.spawn(decisions::tell(decided, Arc::clone(&events), stop()));
    }
    if let Some(period) = settings.audit_period() {
        let shown = (Arc::clone(&metrics), period);
        let auditor =
            Auditor::new(cluster, Arc::clone(&injector), Arc::clone(&events), shown, &readiness);
        stage.tasks.spawn(auditor.run(leads.clone(), stop()));
    }
    if let Some(period) = settings.self_test_period() {
        let tester = SelfTest::new(cluster, injector, events, (metrics, period), &readiness);
        stage.tasks.spawn(tester.run(leads.clone(), stop()));
    }
}
