//! The node agent as a whole: what starts in which order, and what ends.
//!
//! Start: pages, socket, pods, then plugin and configuration, which bring the first calls. End:
//! no more installing and repairing; on an uninstall the configuration goes while calls are still
//! answered, then the socket, then the program.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::node_pods::NodePods;
use crate::agent::pods::{ClientOf, ClusterPods, Pods};
use crate::agent::serve::{ServeError, serve};
use crate::agent::{Agent, kernel};
use crate::cluster::daemonset::{Answer, Own, Seen, is_uninstall};
use crate::cluster::events::Events;
use crate::cluster::{self, ClientError};
use crate::drift::{Drift, Tale, Watcher};
use crate::health::{Health, Pages, bind};
use crate::install::{Done, Entry, InstallError, Installer, Place, follow};
use crate::metrics::Metrics;
use crate::repair::Repair;
use crate::settings::{AgentSettings, Repair as Mode};
use crate::taint::Taint;

const KERNEL: &str = "kernel";
const PODS: &str = "pods";
const PLUGIN: &str = "plugin";
/// Time between looks at the kernel.
const LOOK_AT_KERNEL: Duration = Duration::from_secs(30);
/// Tales that wait for the API server.
const TALES: usize = 128;
/// What still runs on the runtime at the end has nothing left to do.
const LAST: Duration = Duration::from_secs(1);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The socket cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// There is no way to the API server.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It does not know its node.
    #[error(
        "the name of this node is not known: set NODE_NAME (the chart does, from spec.nodeName), or --pods-dir to run without a cluster"
    )]
    NoNode,
    /// Flags that do not go together.
    #[error("{0}")]
    Flags(String),
    /// The system refused something.
    #[error("{0}: {1}")]
    System(String, io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot begin.
pub fn run(settings: &AgentSettings) -> Result<(), NodeError> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    // Before any thread is started, so that all of them inherit it.
    let blocked = signals.thread_block().and_then(|()| SignalFd::new(&signals));
    let signal = blocked.map_err(|e| NodeError::System("signals".to_owned(), e.into()))?;
    let Some(folder) = &settings.pods_dir else { return on_kubernetes(settings, &signal) };
    let agent = Agent {
        pods: Pods::Folder(folder.clone()),
        pod_wait: Duration::from_millis(settings.pod_wait.into()),
        metrics: Arc::default(),
        drift: None,
    };
    Ok(serve(&agent, &settings.run_dir, || wait(&signal))?)
}

fn wait(signal: &SignalFd) {
    loop {
        match signal.read_signal() {
            Ok(Some(_)) => break tracing::info!("stopping"),
            Ok(None) | Err(nix::Error::EINTR) => {}
            Err(e) => break tracing::error!("waiting for signals: {e}"),
        }
    }
}

fn on_kubernetes(settings: &AgentSettings, signal: &SignalFd) -> Result<(), NodeError> {
    let node = settings.cluster.node_name.as_deref().ok_or(NodeError::NoNode)?;
    let place = settings.install.place().map_err(NodeError::Flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| NodeError::System("threads".to_owned(), e))?;
    let client = runtime.block_on(cluster::client())?;
    let pages = listen(&runtime, settings)?;
    let metrics: Arc<Metrics> = Arc::default();
    let mends = settings.cluster.repair != Mode::Off;
    let (drift, watcher) = Drift::new(Arc::clone(&metrics), mends)
        .map_err(|e| NodeError::System("a pipe".to_owned(), e))?;
    let parts = Parts {
        settings: settings.clone(),
        place,
        client,
        store: Arc::default(),
        health: Arc::new(Health::of(&[KERNEL, PODS, PLUGIN])),
        drift,
        metrics,
    };
    let agent = parts.agent(&runtime);
    let uninstall = serve(&agent, &settings.run_dir, || {
        let running = {
            let _context = runtime.enter();
            parts.start(node, pages, watcher)
        };
        wait(signal);
        runtime.block_on(parts.stop(running))
    })?;
    if uninstall {
        match parts.installer().remove_program() {
            Ok(()) => tracing::info!("the plugin is removed from the node"),
            Err(e) => tracing::error!("{e}"),
        }
    }
    runtime.shutdown_timeout(LAST);
    Ok(())
}

fn listen(runtime: &Runtime, settings: &AgentSettings) -> Result<Vec<TcpListener>, NodeError> {
    let mut ports = vec![settings.health_port, settings.metrics_port];
    ports.dedup();
    let bound = ports.into_iter().filter(|port| *port != 0).map(|port| {
        let listener = runtime.block_on(bind(port));
        listener.map_err(|e| NodeError::System(format!("listening on port {port}"), e))
    });
    bound.collect()
}

/// What the tasks share.
struct Parts {
    settings: AgentSettings,
    place: Place,
    client: Client,
    store: Arc<NodePods>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    drift: Drift,
}

/// The tasks, in the groups that end one after the other.
struct Running {
    /// Installing and repairing.
    work: (TaskTracker, CancellationToken),
    /// Watches and pages.
    rest: (TaskTracker, CancellationToken),
    seen: watch::Receiver<Seen>,
}

impl Parts {
    fn agent(&self, runtime: &Runtime) -> Agent {
        let client = ClientOf { client: self.client.clone(), runtime: runtime.handle().clone() };
        Agent {
            pods: Pods::Cluster(ClusterPods { store: Arc::clone(&self.store), client }),
            pod_wait: Duration::from_millis(self.settings.pod_wait.into()),
            metrics: Arc::clone(&self.metrics),
            drift: Some(self.drift.clone()),
        }
    }

    fn installer(&self) -> Installer {
        let install = &self.settings.install;
        let entry = Entry {
            // The plugin runs elsewhere: a relative path would be another folder there.
            run_dir: std::path::absolute(&self.settings.run_dir)
                .unwrap_or_else(|_| self.settings.run_dir.clone()),
            exclude_namespaces: self.settings.exclude_namespaces.clone(),
            pod_namespace: self.settings.cluster.pod_namespace.clone(),
            log_level: install.plugin_log_level.clone(),
            agent_wait: install.agent_wait,
        };
        Installer {
            program: install.plugin.clone(),
            programs: install.cni_bin_dir.clone(),
            configurations: install.cni_conf_dir.clone(),
            place: self.place.clone(),
            entry: entry.json(),
        }
    }

    fn own(&self) -> Own {
        let cluster = &self.settings.cluster;
        Own::new(self.client.clone(), &cluster.pod_namespace, &cluster.daemonset)
    }

    fn start(&self, node: &str, pages: Vec<TcpListener>, watcher: Watcher) -> Running {
        let work = (TaskTracker::new(), CancellationToken::new());
        let rest = (TaskTracker::new(), CancellationToken::new());
        for listener in pages {
            let (health, metrics) = (Arc::clone(&self.health), Arc::clone(&self.metrics));
            rest.0.spawn(Pages { health, metrics }.serve(listener, rest.1.clone()));
        }
        let (client, node, store) = (self.client.clone(), node.to_owned(), Arc::clone(&self.store));
        let (health, stop) = (Arc::clone(&self.health), rest.1.clone());
        rest.0.spawn(async move {
            // Pods that are known stay known: only what was never known makes unready.
            let mut known = false;
            let report = |state: Result<(), String>| match (state, known) {
                (Ok(()), _) => {
                    known = true;
                    health.set(PODS, Ok(()));
                }
                (Err(problem), true) => tracing::warn!("{problem}"),
                (Err(problem), false) => health.set(PODS, Err(problem)),
            };
            cluster::watch::follow(client, &node, store, report, stop).await;
        });
        let (send, seen) = watch::channel(Seen::Never);
        rest.0.spawn(self.own().follow(send, rest.1.clone()));
        rest.0.spawn(look_at_kernel(Arc::clone(&self.health), rest.1.clone()));
        self.install(&work);
        if let Some(taint) = self.taint() {
            rest.0.spawn(taint.follow(rest.1.clone()));
        }
        work.0.spawn(self.repair().follow(work.1.clone()));
        let (told, tales) = mpsc::channel(TALES);
        // One that finds no room is in the log.
        work.0.spawn_blocking(move || watcher.run(|tale| drop(told.try_send(tale))));
        work.0.spawn(tell(self.events(), tales, work.1.clone()));
        Running { work, rest, seen }
    }

    /// Where the node's taint is ours to keep.
    fn taint(&self) -> Option<Taint> {
        let cluster = &self.settings.cluster;
        Some(Taint {
            client: self.client.clone(),
            node: cluster.node_name.clone().filter(|_| cluster.taint)?,
            health: Arc::clone(&self.health),
            metrics: Arc::clone(&self.metrics),
            patience: Duration::from_millis(cluster.taint_after.into()),
        })
    }

    fn events(&self) -> Events {
        Events::new(self.client.clone(), self.settings.cluster.pod_name.clone())
    }

    fn repair(&self) -> Repair {
        let cluster = &self.settings.cluster;
        Repair {
            store: Arc::clone(&self.store),
            client: self.client.clone(),
            events: self.events(),
            metrics: Arc::clone(&self.metrics),
            mode: cluster.repair,
            namespaces: cluster.netns_dir.clone(),
            excluded: self.settings.exclude_namespaces.clone(),
            drift: self.drift.clone(),
        }
    }

    fn install(&self, work: &(TaskTracker, CancellationToken)) {
        if !self.settings.install.install {
            self.health.set(PLUGIN, Ok(()));
            return;
        }
        let (health, metrics) = (Arc::clone(&self.health), Arc::clone(&self.metrics));
        let report =
            move |result: &Result<Done, InstallError>| note_pass(&health, &metrics, result);
        work.0.spawn(follow::follow(self.installer(), report, work.1.clone()));
    }

    /// Ends the tasks, and takes the configuration away when this is an uninstall; true when the
    /// program is to follow.
    async fn stop(&self, running: Running) -> bool {
        let Running { work, rest, seen } = running;
        self.drift.stop();
        end(work).await;
        let uninstall = self.settings.install.install && self.is_uninstall(&seen).await;
        let removed = uninstall && self.remove_configuration().await;
        end(rest).await;
        if let Some(taint) = self.taint().filter(|_| uninstall) {
            taint.remove().await;
        }
        removed && !self.settings.install.keep_plugin
    }

    /// A configuration that names a program that is gone would fail every pod of the node: the
    /// program goes only after all of it.
    async fn remove_configuration(&self) -> bool {
        let installer = self.installer();
        let removed = tokio::task::spawn_blocking(move || installer.remove_configuration()).await;
        let problem = match removed {
            Ok(Ok(())) => {
                tracing::info!("the configuration is as it was before");
                return true;
            }
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        tracing::error!("the configuration keeps our entry, so the plugin stays too: {problem}");
        false
    }

    async fn is_uninstall(&self, seen: &watch::Receiver<Seen>) -> bool {
        let answer = self.own().ask().await;
        // The latest, and not across a wait: what is borrowed locks out its sender.
        let seen = *seen.borrow();
        let uninstall = is_uninstall(seen, &answer);
        let name = &self.settings.cluster.daemonset;
        match &answer {
            Answer::There => {
                tracing::info!("DaemonSet {name} stays: plugin and configuration stay")
            }
            Answer::Gone => tracing::info!("DaemonSet {name} is gone: plugin and configuration go"),
            Answer::Refused(why) | Answer::Silence(why) => {
                let what = if uninstall { "go" } else { "stay" };
                tracing::warn!("{why}; plugin and configuration {what}");
            }
        }
        uninstall
    }
}

/// What a pass of the installer did, for log, counters and readiness.
fn note_pass(health: &Health, metrics: &Metrics, result: &Result<Done, InstallError>) {
    let wrote = result.as_ref().is_ok_and(|done| !done.changed.is_empty());
    metrics.installed(result.is_ok(), wrote);
    if let Ok(done) = result
        && wrote
    {
        for path in &done.changed {
            tracing::info!("installed: {} changed", path.display());
        }
        for skipped in &done.skipped {
            tracing::warn!("passed over {skipped}");
        }
        tracing::info!("the entry is in {}", done.file.display());
    }
    health.set(PLUGIN, result.as_ref().map(drop).map_err(ToString::to_string));
}

async fn end((tasks, stop): (TaskTracker, CancellationToken)) {
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Tells the owners of pods. An API server that is away does not keep the agent from ending.
async fn tell(events: Events, mut tales: mpsc::Receiver<Tale>, stop: CancellationToken) {
    while let Some(Some(Tale { pod, reason, note })) = stop.run_until_cancelled(tales.recv()).await
    {
        events.tell(&pod, true, (reason, &note)).await;
    }
}

async fn look_at_kernel(health: Arc<Health>, stop: CancellationToken) {
    loop {
        // A few netlink messages: the thread is held for microseconds.
        health.set(KERNEL, kernel());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_AT_KERNEL) => {}
        }
    }
}
