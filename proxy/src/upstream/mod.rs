//! The way to endpoints: clusters, balancing, circuit breakers, outlier detection, TLS, pools.
//!
//! [`Upstreams`] belongs to one worker and is not `Send`; what workers share (load, ejections,
//! breakers) is in [`SharedUpstreams`]. Configuration is read from the current
//! [`Snapshot`]; runtime state outlasts it. Knows nothing of downstream requests.

pub mod balance;
mod body;
mod checkout;
mod cluster;
mod connect;
mod dns;
mod error;
mod grpc_frames;
mod host;
mod hosts;
mod limits;
pub mod outlier;
mod pool;
mod stream;
pub mod tls;
mod verify;

#[cfg(test)]
mod tests;

pub use body::{BodyError, Meter, Replayable, RequestBody};
pub use checkout::{Demand, HttpVersion, LocalTasks};
pub use cluster::{ClusterRuntime, PickRequest, TcpUpstream};
pub use error::UpstreamError;
pub use grpc_frames::FrameCounter;
pub use host::{Busy, Host};
pub use limits::{Breaker, Slot};
pub use pool::{ConnectionFacts, Lease, SendFailure};
pub use stream::Stream;
pub(crate) use stream::write_pieces;

use crate::config::{ClientTls, Cluster, Discovery, EndpointSet, Name, Snapshot, Transport};
use arc_swap::ArcSwap;
use cluster::ClusterShared;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tls::TlsMaterials;
use tokio_util::task::TaskTracker;

/// How many sweeps (seconds) a cluster outlasts its removal, for requests that are on their way.
const LINGER: u32 = 5;

/// What all workers share of the clusters.
#[derive(Debug, Default)]
pub struct SharedUpstreams(Mutex<HashMap<Name, Arc<ClusterShared>>>);

impl SharedUpstreams {
    fn cluster(&self, name: &Name) -> Arc<ClusterShared> {
        let mut known = self.0.lock();
        Arc::clone(known.entry(Arc::clone(name)).or_default())
    }

    fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

/// All clusters of one worker.
#[derive(Debug)]
pub struct Upstreams {
    config: Arc<ArcSwap<Snapshot>>,
    shared: Arc<SharedUpstreams>,
    materials: Arc<dyn TlsMaterials>,
    clusters: RefCell<HashMap<Name, Rc<ClusterRuntime>>>,
    tasks: TaskTracker,
    swept: Cell<u64>,
}

impl Upstreams {
    /// The clusters of one worker. Connection tasks run in `tasks`, on the thread that calls.
    #[must_use]
    pub fn new(
        config: Arc<ArcSwap<Snapshot>>,
        shared: Arc<SharedUpstreams>,
        materials: Arc<dyn TlsMaterials>,
        tasks: TaskTracker,
    ) -> Rc<Self> {
        let clusters = RefCell::default();
        Rc::new(Self { config, shared, materials, clusters, tasks, swept: Cell::new(0) })
    }

    /// The configuration in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.config.load_full()
    }

    /// The configuration in force, for a short look without counting a reference.
    #[must_use]
    pub fn peek(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.config.load()
    }

    /// The task group of this worker's connections.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The runtime of a cluster, brought up to date with the snapshot.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<Rc<ClusterRuntime>> {
        let snapshot = self.config.load();
        if let Some(runtime) = self.clusters.borrow().get(name) {
            if !runtime.is_behind(snapshot.epoch) {
                return Some(Rc::clone(runtime));
            }
            if let Some(config) = snapshot.clusters.get(name) {
                runtime.update(config, endpoints(&snapshot, config));
                return Some(Rc::clone(runtime));
            }
        }
        let Some(config) = snapshot.clusters.get(name) else {
            // A request that found its route before the cluster went may still be sent; see `sweep`.
            return self.clusters.borrow().get(name).map(Rc::clone);
        };
        let runtime = ClusterRuntime::new(
            Arc::clone(config),
            endpoints(&snapshot, config).cloned(),
            self.shared.cluster(&config.name),
            Arc::clone(&self.materials),
            self.tasks.clone(),
        );
        runtime.is_behind(snapshot.epoch);
        self.clusters.borrow_mut().insert(Arc::clone(&config.name), Rc::clone(&runtime));
        Some(runtime)
    }

    /// Opens a connection for a TCP proxy to a cluster.
    ///
    /// # Errors
    /// When the cluster is unknown, has no usable endpoint, or connecting fails.
    pub async fn connect_tcp(
        &self,
        cluster: &str,
        original_dst: Option<SocketAddr>,
    ) -> Result<TcpUpstream, UpstreamError> {
        let runtime = self
            .cluster(cluster)
            .ok_or_else(|| UpstreamError::UnknownCluster(cluster.to_owned()))?;
        runtime.connect_tcp(original_dst).await
    }

    /// Looks after idle connections, removed endpoints and ejections until dropped. Run it as
    /// one task of the worker.
    pub async fn maintain(self: Rc<Self>) {
        const TICK: Duration = Duration::from_secs(1);
        const RELAX_EVERY: u64 = 10;
        for round in 1_u64.. {
            tokio::time::sleep(TICK).await;
            self.sweep(round % RELAX_EVERY == 0);
        }
    }

    fn sweep(&self, relax: bool) {
        let snapshot = self.config.load();
        let changed = self.swept.replace(snapshot.epoch) != snapshot.epoch;
        self.clusters.borrow_mut().retain(|name, runtime| {
            if let Some(config) = snapshot.clusters.get(name) {
                if changed {
                    runtime.is_behind(snapshot.epoch);
                    runtime.update(config, endpoints(&snapshot, config));
                }
                runtime.found();
                return true;
            }
            if runtime.missed() < LINGER {
                return true;
            }
            runtime.retire();
            self.shared.forget(name);
            false
        });
        let (now, now_ms) = (Instant::now(), host::now_ms());
        for runtime in self.clusters.borrow().values() {
            runtime.sweep(now, now_ms, relax);
        }
    }

    /// Closes every idle connection; for the end of the process.
    pub fn close_idle(&self) {
        for (_, runtime) in self.clusters.borrow_mut().drain() {
            runtime.retire();
        }
    }
}

fn endpoints<'s>(snapshot: &'s Snapshot, config: &'s Cluster) -> Option<&'s Arc<EndpointSet>> {
    match &config.discovery {
        Discovery::Eds(_) => snapshot.endpoints.get(&config.name),
        Discovery::Static(set) => Some(set),
        Discovery::StrictDns(_) | Discovery::LogicalDns(_) | Discovery::OriginalDst { .. } => None,
    }
}

/// Connections opened under `old` may be used under `new`.
fn same_transport(old: &Cluster, new: &Cluster) -> bool {
    let same_kind = match (&old.transport, &new.transport) {
        (Transport::Plain, Transport::Plain) => true,
        (Transport::Tls(a), Transport::Tls(b)) | (Transport::Auto(a), Transport::Auto(b)) => {
            Arc::ptr_eq(a, b) || same_tls(a, b)
        }
        _ => false,
    };
    same_kind && old.http == new.http && old.bind_source == new.bind_source
}

fn same_tls(a: &ClientTls, b: &ClientTls) -> bool {
    let names = |tls: &ClientTls| format!("{:?}", tls.subject_alt_names);
    a.certificate == b.certificate
        && a.validation == b.validation
        && a.sni == b.sni
        && a.auto_sni == b.auto_sni
        && a.alpn == b.alpn
        && names(a) == names(b)
}
