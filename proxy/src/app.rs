//! Putting the process together, and taking it apart in one order.
//!
//! One control runtime runs the agent; each worker is a thread of its own with everything it needs
//! (listeners, pools, telemetry) and shares only what may be shared. At the end: connections are
//! told to finish, then nothing new is taken, workers end, logs are written out. Where applications speak
//! xDS themselves there is the agent alone ([`proxyless`]).

mod proxyless;
mod worker;

use crate::agent::connector::ConnectError;
use crate::agent::discovery::{Publisher, Summary, follow};
use crate::agent::dns::{ResolvConf, Server, Upstream, serve as serve_dns};
use crate::agent::identity::{keep, own_id};
use crate::agent::materials::Materials;
use crate::agent::node::{Identity, own_addresses, read_labels};
use crate::agent::state::AgentState;
use crate::agent::status::{Pages, PagesParts, ProberError, Probers, Site, Targets, bind, serve};
use crate::bootstrap::Bootstrap;
use crate::config::{Snapshot, WorkloadLabels};
use crate::http::LocalPeer;
use crate::listen::ListenShared;
use crate::settings::{Drain, Role, Settings, VERSION};
use crate::telemetry::{Build, Hub, Local};
use crate::upstream::SharedUpstreams;
use arc_swap::ArcSwap;
use lateen_identity::{SpiffeError, SpiffeId};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use worker::{Workers, WorkersParts};

/// How often the end of connections is looked at while draining.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time for the agent's own tasks to end.
const AGENT_END: Duration = Duration::from_secs(1);

/// Why the process could not start.
#[derive(Debug, Error)]
pub enum AppError {
    /// No runtime or thread.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// A port of the agent is taken.
    #[error("cannot listen on port {port} of the agent: {source}")]
    Port {
        /// Port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The workload can have no identity.
    #[error("TRUST_DOMAIN, POD_NAMESPACE or SERVICE_ACCOUNT: {0}")]
    Identity(#[from] SpiffeError),
    /// Application probes cannot be read.
    #[error(transparent)]
    Probers(#[from] ProberError),
    /// The control plane can never be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What applications that speak xDS need cannot be put in place.
    #[error("{what} {}: {source}; mount a volume there that this user can write to", path.display())]
    Proxyless {
        /// What.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address of the bootstrap's admin interface is taken.
    #[error("admin interface: cannot listen on {address}: {source}")]
    Admin {
        /// Address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Runs the proxy until it is told to end.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: Settings) -> Result<(), AppError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(Box::pin(main(Arc::new(settings))))
}

/// Runs the proxy on a configuration that stays, without control plane, until it is told to end.
///
/// # Errors
/// When it cannot start.
pub fn run_fixed(settings: Settings, bootstrap: Bootstrap) -> Result<(), AppError> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(Box::pin(fixed(Arc::new(settings), bootstrap)))
}

/// What all parts of the process share.
struct Shared {
    settings: Arc<Settings>,
    config: Arc<ArcSwap<Snapshot>>,
    summary: Arc<ArcSwap<Summary>>,
    materials: Arc<Materials>,
    listen: Arc<ListenShared>,
    hub: Arc<Hub>,
    state: Arc<AgentState>,
    tasks: TaskTracker,
    /// Cancelled when the agent's tasks shall end.
    end: CancellationToken,
}

impl Shared {
    fn new(settings: Arc<Settings>, local: Local, first: Snapshot, needs_identity: bool) -> Self {
        let materials = Arc::<Materials>::default();
        // A gateway of which nobody has asked anything yet opens nothing.
        let sidecar = settings.workload.role == Role::Sidecar;
        let state = match settings.proxyless {
            Some(_) => AgentState::proxyless(needs_identity),
            None => AgentState::new(needs_identity, sidecar),
        };
        Self {
            config: Arc::new(ArcSwap::from_pointee(first)),
            summary: Arc::new(ArcSwap::from_pointee(Summary::default())),
            listen: ListenShared::new(Arc::clone(&materials) as Arc<_>),
            hub: Hub::new(local, Build { version: VERSION.to_owned() }),
            state,
            tasks: TaskTracker::new(),
            end: CancellationToken::new(),
            materials,
            settings,
        }
    }
}

async fn fixed(settings: Arc<Settings>, bootstrap: Bootstrap) -> Result<(), AppError> {
    let Bootstrap { snapshot, admin, node } = bootstrap;
    let local = Local { workload: WorkloadLabels::default(), principal: Arc::from("") };
    let shared = Shared::new(settings, local, snapshot, false);
    shared.state.set_configured();
    if let Some(address) = admin {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| AppError::Admin { address, source })?;
        let pages = make_pages(&shared, &node)?;
        let (tasks, end) = (shared.tasks.clone(), shared.end.clone());
        shared.tasks.spawn(serve(listener, Site::Admin, pages, tasks, end));
    }
    // Nothing changes, but workers end when nobody could tell them of a change.
    let (_changes, watching) = watch::channel(1);
    let workers = start_workers(&shared, None, &watching)?;
    tracing::info!(version = VERSION, workers = shared.settings.workers, "running");
    until_told(&shared.state).await?;
    finish(&shared, workers).await;
    Ok(())
}

async fn main(settings: Arc<Settings>) -> Result<(), AppError> {
    for remark in &settings.remarks {
        tracing::warn!("{remark}");
    }
    let labels = read_labels(&settings.workload.labels);
    let identity = Identity::new(&settings, &labels, &own_addresses());
    let id = own_id(&settings)?;
    let plaintext = settings.control_plane.plaintext;
    let principal = if plaintext { Arc::from("") } else { Arc::from(id.to_string()) };
    let local = Local { workload: identity.labels.clone(), principal };
    let shared = Shared::new(settings, local, Snapshot::default(), !plaintext);
    start_pages(&shared, &identity.node.id).await?;
    if let Some(places) = &shared.settings.proxyless {
        return proxyless::run(&shared, places, &identity, id).await;
    }
    start_dns(&shared);
    let (changes, watching) = watch::channel(0);
    let workers = start_workers(&shared, identity.peer.clone(), &watching)?;
    start_identity(&shared, id);
    let publisher = Publisher {
        config: Arc::clone(&shared.config),
        summary: Arc::clone(&shared.summary),
        materials: Arc::clone(&shared.materials),
        changes,
        state: Arc::clone(&shared.state),
        hub: Arc::clone(&shared.hub),
    };
    let (settings, end) = (Arc::clone(&shared.settings), shared.end.clone());
    shared.tasks.spawn(follow(settings, identity.node, publisher, end));
    tracing::info!(version = VERSION, workers = shared.settings.workers, "running");
    until_told(&shared.state).await?;
    finish(&shared, workers).await;
    Ok(())
}

/// Keeps a certificate, where there is an authority.
fn start_identity(shared: &Shared, id: SpiffeId) {
    if shared.settings.control_plane.plaintext {
        return;
    }
    let (settings, materials) = (Arc::clone(&shared.settings), Arc::clone(&shared.materials));
    let (state, end) = (Arc::clone(&shared.state), shared.end.clone());
    shared.tasks.spawn(keep(settings, id, materials, state, end));
}

/// What the agent's ports answer.
fn make_pages(shared: &Shared, node: &str) -> Result<Arc<Pages>, AppError> {
    let settings = &shared.settings;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let pod = settings.workload.addresses.first().copied().unwrap_or(loopback);
    let probed = if settings.application.probe_loopback { loopback } else { pod };
    let (targets, remark) = Targets::parse(&settings.application.prometheus);
    if let Some(remark) = remark {
        tracing::warn!("{remark}");
    }
    Ok(Pages::new(PagesParts {
        state: Arc::clone(&shared.state),
        config: Arc::clone(&shared.config),
        summary: Arc::clone(&shared.summary),
        hub: Arc::clone(&shared.hub),
        listen: Arc::clone(&shared.listen),
        materials: Arc::clone(&shared.materials),
        workers: settings.workers,
        probers: Probers::parse(&settings.application.probers, probed)?,
        targets,
        node: node.to_owned(),
    }))
}

async fn start_pages(shared: &Shared, node: &str) -> Result<(), AppError> {
    let pages = make_pages(shared, node)?;
    let ports = shared.settings.ports;
    let sites = [
        (ports.health, Site::Health),
        (ports.status, Site::Status),
        (ports.prometheus, Site::Prometheus),
        (ports.admin, Site::Admin),
    ];
    for (port, site) in sites {
        let listener = bind(port, site == Site::Admin)
            .await
            .map_err(|source| AppError::Port { port, source })?;
        let (pages, tasks) = (Arc::clone(&pages), shared.tasks.clone());
        shared.tasks.spawn(serve(listener, site, pages, tasks, shared.end.clone()));
    }
    Ok(())
}

fn start_dns(shared: &Shared) {
    let dns = &shared.settings.dns;
    if dns.addresses.is_empty() {
        return;
    }
    let path = Path::new("/etc/resolv.conf");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "no upstream name servers");
        String::new()
    });
    let conf = ResolvConf::parse(&text);
    let upstream = Upstream::new(&conf, dns.timeout, dns.parallel);
    let config = Arc::clone(&shared.config);
    let server = Server::new(config, conf.search, upstream, shared.tasks.clone());
    for address in dns.addresses.clone() {
        let (server, end) = (Arc::clone(&server), shared.end.clone());
        shared.tasks.spawn(async move {
            if let Err(error) = serve_dns(server, address, end).await {
                // Without IPv6 there is no ::1; the other family serves.
                tracing::warn!(%address, %error, "DNS proxy does not listen here");
            }
        });
    }
}

/// The workload's address: as told, else the first of the network namespace.
fn own_address(settings: &Settings) -> Option<IpAddr> {
    let told = settings.workload.addresses.first().copied();
    told.or_else(|| own_addresses().into_iter().next())
}

fn start_workers(
    shared: &Shared,
    peer: Option<LocalPeer>,
    changes: &watch::Receiver<u64>,
) -> Result<Workers, AppError> {
    let parts = WorkersParts {
        config: Arc::clone(&shared.config),
        upstreams: Arc::new(SharedUpstreams::default()),
        materials: Arc::clone(&shared.materials),
        listen: Arc::clone(&shared.listen),
        hub: Arc::clone(&shared.hub),
        peer,
        address: own_address(&shared.settings),
        changes: changes.clone(),
        drain: shared.state.drain.clone(),
        drain_time: shared.settings.drain.listeners,
    };
    Ok(Workers::start(shared.settings.workers, &parts)?)
}

async fn until_told(state: &AgentState) -> Result<(), AppError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("told to end, connections may finish"),
        _ = interrupt.recv() => tracing::info!("interrupted, connections may finish"),
        () = state.quit.cancelled() => tracing::info!("told to end at once"),
    }
    Ok(())
}

/// The one order in which everything ends.
async fn finish(shared: &Shared, workers: Workers) {
    drain(shared, || shared.listen.open_connections()).await;
    workers.end().await;
    end(shared).await;
}

/// Tells connections to finish, and waits for them, unless all shall end at once.
async fn drain(shared: &Shared, open: impl Fn() -> u64) {
    if shared.state.quit.is_cancelled() {
        return;
    }
    shared.state.drain.cancel();
    tokio::select! {
        () = idle(shared.settings.drain, open) => {}
        () = shared.state.quit.cancelled() => {}
    }
}

/// Ends the agent.
async fn end(shared: &Shared) {
    shared.end.cancel();
    shared.tasks.close();
    if tokio::time::timeout(AGENT_END, shared.tasks.wait()).await.is_err() {
        tracing::debug!("agent tasks did not end in time");
    }
    shared.hub.logs().close();
    tracing::info!("ended");
}

/// Waits until no connection is open, or long enough.
async fn idle(drain: Drain, open: impl Fn() -> u64) {
    let started = Instant::now();
    loop {
        let waited = started.elapsed();
        let open = open();
        let enough = if drain.until_idle { drain.minimum } else { Duration::ZERO };
        if open == 0 && waited >= enough {
            return;
        }
        if !drain.until_idle && waited >= drain.termination {
            tracing::info!(open, "connections did not finish in time");
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
