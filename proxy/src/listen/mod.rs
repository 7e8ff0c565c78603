//! Taking connections: sockets, original destination, inspection, filter chain, TLS.
//!
//! Each worker has its own sockets on the same addresses and serves what it accepts; nothing of
//! a connection ever changes threads. Choosing ([`choose`]) and parsing ([`client_hello`],
//! [`http_sniff`]) are pure. What is carried is the business of [`crate::tcp`] and
//! [`crate::http`].

mod bind;
mod bound;
mod choose;
pub mod client_hello;
mod client_judge;
mod connection;
mod destination;
mod drain;
pub mod http_sniff;
mod inspect;
mod own_certificates;
pub mod peer;
mod sockets;
mod stream;
mod tls;

#[cfg(test)]
mod tests;

pub use bound::Bound;
pub use choose::{ConnectionFacts, choose};
pub use destination::{DestinationIndex, IndexCache, original};
pub use inspect::{Found, InspectError, inspect};
pub use stream::ClientStream;
pub use tls::{HandshakeError, ServerConfigs};

use crate::config::Snapshot;
use crate::http::HttpWorker;
use crate::tcp::TcpWorker;
use crate::upstream::tls::TlsMaterials;
use arc_swap::ArcSwap;
use drain::ChainLives;
use sockets::Sockets;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long to wait before an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What the listeners of all workers share.
#[derive(Debug)]
pub struct ListenShared {
    index: IndexCache,
    tls: ServerConfigs,
    /// Connections that are open.
    open: Arc<AtomicU64>,
    /// Where is listened, and where that failed.
    pub bound: Bound,
}

impl ListenShared {
    /// Certificates and anchors of listeners come from `materials`.
    #[must_use]
    pub fn new(materials: Arc<dyn TlsMaterials>) -> Arc<Self> {
        Arc::new(Self {
            index: IndexCache::default(),
            tls: ServerConfigs::new(materials),
            open: Arc::default(),
            bound: Bound::default(),
        })
    }

    /// How many downstream connections are open.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

/// What a worker's listeners are made of.
#[derive(Debug)]
pub struct ListenParts {
    /// The configuration in force.
    pub config: Arc<ArcSwap<Snapshot>>,
    /// What workers share.
    pub shared: Arc<ListenShared>,
    /// Serves HTTP.
    pub http: Rc<HttpWorker>,
    /// Carries TCP.
    pub tcp: TcpWorker,
    /// The group of the worker's tasks.
    pub tasks: TaskTracker,
    /// Cancelled when connections shall finish; new ones are still taken.
    pub drain: CancellationToken,
    /// Cancelled when no more connections are taken.
    pub stop: CancellationToken,
    /// How long a connection may go on once it shall finish.
    pub drain_time: Duration,
}

/// The listeners of one worker.
#[derive(Debug)]
pub struct ListenWorker {
    config: Arc<ArcSwap<Snapshot>>,
    shared: Arc<ListenShared>,
    http: Rc<HttpWorker>,
    tcp: TcpWorker,
    tasks: TaskTracker,
    lives: ChainLives,
    stop: CancellationToken,
    drain_time: Duration,
}

impl ListenWorker {
    /// Listeners that are not open yet; see [`Self::run`].
    #[must_use]
    pub fn new(parts: ListenParts) -> Rc<Self> {
        Rc::new(Self {
            config: parts.config,
            shared: parts.shared,
            http: parts.http,
            tcp: parts.tcp,
            tasks: parts.tasks,
            lives: ChainLives::new(parts.drain),
            stop: parts.stop,
            drain_time: parts.drain_time,
        })
    }

    /// Keeps the sockets equal to the configuration until stopped. `changes` tells of every new
    /// snapshot, after it is in force. Run it as one task of the worker.
    pub async fn run(self: Rc<Self>, mut changes: watch::Receiver<u64>) {
        let mut sockets = Sockets::default();
        loop {
            changes.mark_unchanged();
            let snapshot = self.config.load_full();
            sockets.reconcile(&self, &snapshot);
            self.lives.reconcile(&snapshot);
            drop(snapshot);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                changed = changes.changed() => {
                    if changed.is_err() {
                        // Nobody changes the configuration any more.
                        self.stop.cancelled().await;
                        break;
                    }
                }
                () = tokio::time::sleep(RETRY), if sockets.failed() => {}
            }
        }
    }
}
