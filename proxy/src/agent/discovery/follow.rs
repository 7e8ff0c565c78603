//! The shell of discovery: connects, reconnects, applies updates, publishes snapshots.
//!
//! While the control plane is away the last snapshot stays in force. Versions held are told on
//! reconnection, so only differences come.

use super::store::{Store, Summary};
use crate::agent::authority::{AuthorityError, metadata};
use crate::agent::connector::{BACKOFF, CONNECTED, channel};
use crate::agent::materials::Materials;
use crate::agent::state::AgentState;
use crate::config::Snapshot;
use crate::settings::Settings;
use crate::telemetry::Hub;
use arc_swap::ArcSwap;
use lateen_xds::client::{Interest, Rejection, Session, Update};
use lateen_xds::envoy::core::Node;
use lateen_xds::transport::{Subscriber, run_stream};
use lateen_xds::type_url;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// A stream that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(30);

/// Where snapshots go.
#[derive(Debug)]
pub struct Publisher {
    /// The snapshot in force.
    pub config: Arc<ArcSwap<Snapshot>>,
    /// What people are shown besides.
    pub summary: Arc<ArcSwap<Summary>>,
    /// Takes secrets.
    pub materials: Arc<Materials>,
    /// Tells workers of a new epoch.
    pub changes: watch::Sender<u64>,
    /// Told when the first configuration is whole.
    pub state: Arc<AgentState>,
    /// Counts.
    pub hub: Arc<Hub>,
}

impl Publisher {
    fn publish(&self, store: &mut Store) {
        let snapshot = store.snapshot();
        let epoch = snapshot.epoch;
        self.hub.set("envoy_cluster_manager_active_clusters", count(snapshot.clusters.len()));
        self.hub
            .set("envoy_listener_manager_total_listeners_active", count(snapshot.listeners.len()));
        // Before the listeners that need them.
        self.materials.set_secrets(&snapshot.secrets);
        self.config.store(Arc::new(snapshot));
        self.summary.store(Arc::new(store.summary()));
        if store.is_whole() {
            self.state.set_configured();
        }
        self.changes.send_replace(epoch);
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

/// Follows the control plane until cancelled.
pub async fn follow(
    settings: Arc<Settings>,
    node: Node,
    publisher: Publisher,
    end: CancellationToken,
) {
    let mut session = Session::new(node);
    session.set_interest(type_url::CLUSTER, Interest::Wildcard);
    session.set_interest(type_url::ENDPOINTS, Interest::Names(Default::default()));
    session.set_interest(type_url::LISTENER, Interest::Wildcard);
    session.set_interest(type_url::ROUTES, Interest::Names(Default::default()));
    session.set_interest(type_url::SECRET, Interest::Names(Default::default()));
    if !settings.dns.addresses.is_empty() {
        session.set_interest(type_url::NAME_TABLE, Interest::Wildcard);
    }
    let mut applier = Applier { store: Store::default(), publisher };
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let ended = tokio::select! {
            ended = stream(&settings, &mut session, &mut applier) => ended,
            () = end.cancelled() => return,
        };
        applier.publisher.hub.set(CONNECTED, 0.0);
        failures = if started.elapsed() > GOOD { 1 } else { failures + 1 };
        let wait = BACKOFF.wait(failures, rand::random());
        match ended {
            Ok(()) => {
                tracing::info!(?wait, "the control plane closed the stream, connecting again")
            }
            Err(error) => tracing::warn!(%error, ?wait, "no discovery stream, connecting again"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = end.cancelled() => return,
        }
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Prepare(#[from] AuthorityError),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
}

async fn stream(
    settings: &Settings,
    session: &mut Session,
    applier: &mut Applier,
) -> Result<(), StreamError> {
    let to = &settings.control_plane;
    let metadata = metadata(to, &settings.workload.cluster, &to.discovery_headers)?;
    let channel = channel(&to.discovery, to).map_err(AuthorityError::from)?;
    let run = run_stream(channel, metadata, session, applier);
    Box::pin(run).await.map_err(|status| StreamError::Status(Box::new(status)))
}

struct Applier {
    store: Store,
    publisher: Publisher,
}

impl Subscriber for Applier {
    fn apply(&mut self, session: &mut Session, update: &Update) -> Vec<Rejection> {
        let rejections = self.store.apply(update);
        for Rejection { name, reason } in &rejections {
            tracing::warn!(type_url = update.type_url, %name, reason, "resource refused");
        }
        let endpoints = Interest::Names(self.store.needed_endpoints());
        session.set_interest(type_url::ENDPOINTS, endpoints);
        session.set_interest(type_url::ROUTES, Interest::Names(self.store.needed_routes()));
        session.set_interest(type_url::SECRET, Interest::Names(self.store.needed_secrets()));
        self.publisher.publish(&mut self.store);
        rejections
    }

    fn opened(&mut self) {
        tracing::info!("connected to the control plane");
        self.publisher.hub.set(CONNECTED, 1.0);
    }
}
