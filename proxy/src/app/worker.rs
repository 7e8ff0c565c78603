//! Workers: threads that carry traffic, each with a runtime, listeners, pools and telemetry.
//!
//! Nothing of a connection ever leaves its worker. A worker ends when told to, after its tasks
//! have ended or a short time has passed.

use crate::agent::materials::Materials;
use crate::authz::RbacAuthorizer;
use crate::config::Snapshot;
use crate::http::{HttpWorker, LocalPeer};
use crate::listen::{ListenParts, ListenShared, ListenWorker};
use crate::tcp::TcpWorker;
use crate::telemetry::{Hub, Telemetry};
use crate::upstream::tls::TlsMaterials;
use crate::upstream::{SharedUpstreams, Upstreams};
use arc_swap::ArcSwap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Only touched pages of a stack are resident.
const STACK: usize = 1 << 20;
/// Longest time for tasks to end after nothing new is taken.
const TASKS_END: Duration = Duration::from_millis(500);

/// What workers are made from.
#[derive(Debug, Clone)]
pub(super) struct WorkersParts {
    pub(super) config: Arc<ArcSwap<Snapshot>>,
    pub(super) upstreams: Arc<SharedUpstreams>,
    pub(super) materials: Arc<Materials>,
    pub(super) listen: Arc<ListenShared>,
    pub(super) hub: Arc<Hub>,
    pub(super) peer: Option<LocalPeer>,
    pub(super) address: Option<IpAddr>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) drain: CancellationToken,
    pub(super) drain_time: Duration,
}

/// All workers.
#[derive(Debug)]
pub(super) struct Workers {
    stop: CancellationToken,
    threads: Vec<(JoinHandle<()>, oneshot::Receiver<()>)>,
}

impl Workers {
    pub(super) fn start(number: usize, parts: &WorkersParts) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut threads = Vec::with_capacity(number);
        for index in 0..number {
            let (parts, stop) = (parts.clone(), stop.clone());
            let (ended, watch) = oneshot::channel();
            let (started, starting) = sync_channel(1);
            let handle = thread::Builder::new()
                .name(format!("worker-{index}"))
                .stack_size(STACK)
                .spawn(move || {
                // A local runtime belongs to the thread that made it.
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                drop(started.send(Ok(())));
                runtime.block_on(Box::pin(work(parts, &stop)));
                // Nobody waits for it any more only when the process is ending anyway.
                let _unheard = ended.send(());
            })?;
            starting.recv().map_err(io::Error::other)??;
            threads.push((handle, watch));
        }
        Ok(Self { stop, threads })
    }

    /// Takes nothing new and waits until every worker has ended.
    pub(super) async fn end(self) {
        self.stop.cancel();
        for (handle, ended) in self.threads {
            if ended.await.is_err() || handle.join().is_err() {
                tracing::error!("a worker failed");
            }
        }
    }
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())
}

async fn work(parts: WorkersParts, stop: &CancellationToken) {
    let tasks = TaskTracker::new();
    let materials: Arc<dyn TlsMaterials> = parts.materials;
    let upstreams =
        Upstreams::new(Arc::clone(&parts.config), parts.upstreams, materials, tasks.clone());
    let telemetry = Telemetry::new(&parts.hub);
    let http = HttpWorker::new(
        Rc::clone(&upstreams),
        Rc::clone(&telemetry) as Rc<_>,
        Rc::new(RbacAuthorizer),
        (parts.peer, parts.address),
    );
    let listeners = ListenWorker::new(ListenParts {
        config: parts.config,
        shared: parts.listen,
        http,
        tcp: TcpWorker::new(Rc::clone(&upstreams), Rc::clone(&telemetry) as Rc<_>),
        tasks: tasks.clone(),
        drain: parts.drain,
        stop: stop.clone(),
        drain_time: parts.drain_time,
    });
    let standing = async {
        tokio::join!(Rc::clone(&upstreams).maintain(), Rc::clone(&telemetry).report());
    };
    tokio::select! {
        () = listeners.run(parts.changes) => {}
        () = standing => {}
    }
    upstreams.close_idle();
    tasks.close();
    if tokio::time::timeout(TASKS_END, tasks.wait()).await.is_err() {
        tracing::debug!(left = tasks.len(), "connections are cut off");
    }
}
