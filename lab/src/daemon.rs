//! The daemon of a lab: first process of its namespaces, host of its API server, its kubelet and
//! its control socket.
//!
//! Order of the end: no new requests; decisions stop; pods end; components end; the node is taken
//! down. When the daemon is killed instead, the kernel ends all of it.

mod attend;
mod components;
mod requests;
mod sync;
mod up;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api_server::builtin;
use crate::api_server::cluster::Cluster;
use crate::api_server::controller::{Controller, Folders};
use crate::api_server::published::{self, Published};
use crate::api_server::token::{ISSUER, Signer};
use crate::clock;
use crate::kubelet::Kubelet;
use crate::node::{Node, NodeContext};
use crate::settings::Settings;
use crate::state::{self, Layout};

use attend::Attended;
use components::{Component, Recipe, component};

/// Addresses of the node on its bridge.
const GATEWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 244, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1)),
];
/// DNS domain of the cluster.
const DOMAIN: &str = "cluster.local";
/// The control plane.
const CONTROL_PLANE: &str = "lateend";
/// The node agent.
const NODE_AGENT: &str = "lateen-cni-node";
/// How long the first request may be away before the lab ends.
const LONELY: Duration = Duration::from_secs(20);

/// Pause after a connection could not be taken: there may be no file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a request may take to come in.
const INCOMING: Duration = Duration::from_secs(30);
/// How long pods may take to end with the lab.
const GRACE: Duration = Duration::from_millis(1500);

/// Why a lab cannot run.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The state folder cannot be used.
    #[error("state folder: {0}")]
    State(#[from] state::StateError),
    /// A file of the lab cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The node cannot be made.
    #[error("node: {0}")]
    Node(#[from] crate::node::NodeError),
    /// Tokens cannot be signed.
    #[error(transparent)]
    Token(#[from] crate::api_server::token::TokenError),
    /// The folder of what is published cannot be watched.
    #[error("watching what the control plane publishes: {0}")]
    Watch(#[from] notify::Error),
}

/// Everything that requests are answered from.
#[derive(Debug)]
struct Lab {
    settings: Settings,
    cluster: Cluster,
    controller: Controller,
    kubelet: Kubelet,
    node: Node,
    components: [Component; 2],
    /// Told when the lab is to end.
    end: CancellationToken,
    /// Told when somebody has asked for something.
    visited: CancellationToken,
}

/// Runs the lab in `state` until it is told to end. Called in the first process of its namespaces.
///
/// # Errors
/// What could not be made.
pub async fn run(state: &Path) -> Result<(), DaemonError> {
    let layout = Layout { state: state.to_owned() };
    let tenancy = state::join(state)?;
    let io = |what| move |source| DaemonError::Io { what, source };
    let settings = Settings::read(state).map_err(io("settings"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("SIGTERM"))?;
    let context = context(&settings, state);
    let node = Node::start(&context).await?;
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let signer = Signer::generate()?;
    let components = components(&settings, &layout, &signer)?;
    let published = Arc::new(Published::watch(&layout.published())?);
    let objects = builtin::objects(&GATEWAY, &clock::now());
    let cluster = Cluster::new(objects, signer, published);
    let kubelet = Kubelet::new(&context, Arc::new(cluster.clone()));
    let folders = Folders { state: state.to_owned(), config: layout.config(), pods: layout.pods() };
    let running = components[0].0.running();
    let runner = Arc::new(kubelet.clone());
    let controller = Controller::start(cluster.clone(), runner, folders, running);
    let components = components.map(|(component, keeper)| {
        tasks.spawn(keeper.run(stop.clone()));
        component
    });
    let listener = listen(&layout).map_err(io("control socket"))?;
    let lab = Arc::new(Lab {
        settings,
        cluster,
        controller,
        kubelet,
        node,
        components,
        end: CancellationToken::new(),
        visited: CancellationToken::new(),
    });
    let requests = TaskTracker::new();
    tokio::select! {
        () = accept(&lab, &listener, &requests) => {}
        () = lab.end.cancelled() => {}
        _ = terminate.recv() => {}
        () = lonely(&lab) => tracing::warn!("nobody asked for anything"),
    }
    lab.end.cancel();
    requests.close();
    end(lab, (tasks, stop), requests).await;
    drop(tenancy);
    Ok(())
}

/// Ends everything in its order, and says what takes how long.
async fn end(lab: Arc<Lab>, components: (TaskTracker, CancellationToken), requests: TaskTracker) {
    tracing::info!("the lab ends");
    lab.controller.stop().await;
    tracing::info!("decisions have stopped");
    // Draining connections that end anyway is not worth waiting for: the kernel ends the rest.
    let ended = tokio::time::timeout(GRACE, lab.kubelet.shutdown()).await.is_ok();
    tracing::info!(all = ended, "pods have ended");
    let (tasks, stop) = components;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("components have ended");
    if tokio::time::timeout(GRACE, requests.wait()).await.is_err() {
        tracing::warn!(open = requests.len(), "requests are left unanswered");
    }
    if let Some(lab) = Arc::into_inner(lab) {
        lab.node.stop().await;
    }
    tracing::info!("the lab has ended");
}

fn context(settings: &Settings, state: &Path) -> NodeContext {
    let service = builtin::CONTROL_PLANE;
    let names = [
        format!("{service}.{}.svc", builtin::SYSTEM),
        format!("{service}.{}.svc.{DOMAIN}", builtin::SYSTEM),
        format!("{service}.{}", builtin::SYSTEM),
    ];
    let hosts = GATEWAY
        .iter()
        .flat_map(|address| names.iter().map(|name| (*address, name.clone())))
        .collect();
    NodeContext {
        state: state.to_owned(),
        binaries: settings.binaries.clone(),
        images: settings.images(),
        gateway: GATEWAY,
        hosts,
        cluster_domain: DOMAIN.to_owned(),
        node_name: builtin::NODE.to_owned(),
    }
}

type Kept = (Component, components::Keeper);

fn components(
    settings: &Settings,
    layout: &Layout,
    signer: &Signer,
) -> Result<[Kept; 2], DaemonError> {
    let io = |what| move |source| DaemonError::Io { what, source };
    let run = layout.run();
    let (keys, mesh) = (run.join("token-keys.json"), run.join("mesh-config.yaml"));
    let agent = run.join("cni");
    std::fs::write(&keys, signer.key_set()?).map_err(io("token keys"))?;
    std::fs::write(&mesh, &settings.mesh_config).map_err(io("mesh configuration"))?;
    std::fs::create_dir_all(&agent).map_err(io("node agent's folder"))?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let flags = |pairs: &[(&str, String)]| {
        pairs.iter().flat_map(|(flag, value)| [format!("--{flag}"), value.clone()]).collect()
    };
    let control_plane = Recipe {
        name: CONTROL_PLANE,
        program: settings.binaries.join(CONTROL_PLANE),
        arguments: flags(&[
            ("config-dir", text(&layout.config())),
            ("publish-dir", text(&layout.published())),
            ("mesh-config", text(&mesh)),
            ("ca-dir", text(&run.join("ca"))),
            ("token-jwks", text(&keys)),
            ("token-issuer", ISSUER.to_owned()),
            ("cluster-domain", DOMAIN.to_owned()),
        ]),
        log: layout.logs().join(format!("{CONTROL_PLANE}.log")),
        stale: Some(layout.published().join(published::STATUS)),
    };
    let node_agent = Recipe {
        name: NODE_AGENT,
        program: settings.binaries.join(NODE_AGENT),
        arguments: flags(&[("pods-dir", text(&layout.pods())), ("run-dir", text(&agent))]),
        log: layout.logs().join(format!("{NODE_AGENT}.log")),
        stale: None,
    };
    Ok([component(control_plane), component(node_agent)])
}

/// The socket appears under its name only once it can be talked to, and for its owner alone.
fn listen(layout: &Layout) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let new = layout.state.join(".sock");
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, layout.socket())?;
    Ok(listener)
}

async fn accept(lab: &Arc<Lab>, listener: &UnixListener, requests: &TaskTracker) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        lab.visited.cancel();
        let lab = Arc::clone(lab);
        requests.spawn(async move {
            match tokio::time::timeout(INCOMING, Attended::read(stream)).await {
                Ok(Ok(attended)) => requests::answer(&lab, attended).await,
                Ok(Err(error)) => tracing::warn!(%error, "a request was not read"),
                Err(_) => tracing::warn!("a request did not come in"),
            }
        });
    }
}

/// Ends when nobody comes: whoever started the lab is gone.
async fn lonely(lab: &Lab) {
    if tokio::time::timeout(LONELY, lab.visited.cancelled()).await.is_ok() {
        std::future::pending().await
    }
}
