//! One pod from the moment it is taken to the moment nothing of it is left.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::check::{network_setting, sysctls};
use super::judge::backoff;
use super::order::{Step, ends, starts};
use super::pod::PodContext;
use super::process::number;
use super::status::Record;
use super::supervise::{Policy, policy, supervise};
use super::volumes::REFRESH;
use crate::runtime::cni::Network;
use crate::runtime::{Sandbox, SandboxName};

/// Sidecars have at least this long when others used up all of the time.
const SIDECAR: Duration = Duration::from_secs(2);

/// Once a pod is to end: how long it may take.
pub(super) type End = watch::Receiver<Option<Duration>>;

/// The tasks of a pod's containers, and what ends them.
#[derive(Debug, Default)]
struct Tasks {
    tracker: TaskTracker,
    ends: BTreeMap<String, watch::Sender<Option<Instant>>>,
}

/// Runs a pod until it is to end, then ends it.
pub(super) async fn run(pod: Arc<PodContext>, network: Network, mut end: End) {
    pod.publish();
    let sandbox = tokio::select! {
        sandbox = connect(&pod, &network) => Some(sandbox),
        () = wanted(&mut end) => None,
    };
    if let Some(sandbox) = sandbox {
        let mut tasks = Tasks::default();
        tokio::select! {
            () = bring_up(&pod, &mut tasks) => {}
            () = refresh(&pod) => {}
            () = wanted(&mut end) => {}
        }
        // What runs to its end stays until somebody removes it.
        wanted(&mut end).await;
        let grace = (*end.borrow()).unwrap_or_default();
        take_down(&pod, &tasks, grace).await;
        if let Err(e) = sandbox.remove().await {
            pod.event("FailedKillPod", &e.to_string());
        }
    }
    if let Err(e) = std::fs::remove_dir_all(&pod.folder)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("{}: {e}", pod.folder.display());
    }
}

async fn wanted(end: &mut End) {
    // Without a sender nobody will ever ask: then it is to end.
    drop(end.wait_for(Option::is_some).await);
}

/// Fills volumes and connects the pod, as often as it takes.
async fn connect(pod: &Arc<PodContext>, network: &Network) -> Sandbox {
    let facts = pod.facts();
    let settings = sysctls(&facts.pod.spec).into_iter();
    let settings =
        settings.filter_map(|(name, value)| Some((network_setting(name)?, value.into())));
    let settings: Vec<(String, String)> = settings.collect();
    let mut failures = 0;
    loop {
        let filled = pod.volumes.lock().refresh(&facts);
        match filled {
            Err(text) => pod.event("FailedMount", &text),
            Ok(()) => {
                let name = SandboxName {
                    namespace: facts.key.namespace.clone(),
                    pod: facts.key.name.clone(),
                    uid: facts.key.uid.clone(),
                    container: format!("{}-{}", facts.key.uid, number()),
                    settings: settings.clone(),
                };
                let folder = pod.node.inner().join("netns");
                match Sandbox::create(&folder, &name, network.clone()).await {
                    Ok(sandbox) => {
                        pod.set_addresses(sandbox.addresses());
                        // Set once: there is one sandbox in the life of a pod.
                        drop(pod.network.set(sandbox.network().to_owned()));
                        pod.publish();
                        return sandbox;
                    }
                    Err(e) => pod.event("FailedCreatePodSandBox", &e.to_string()),
                }
            }
        }
        failures += 1;
        sleep(backoff(failures)).await;
    }
}

/// Keeps the content of volumes up to date.
async fn refresh(pod: &PodContext) {
    loop {
        sleep(REFRESH).await;
        let facts = pod.facts();
        let refreshed = pod.volumes.lock().refresh(&facts);
        if let Err(text) = refreshed {
            // What is there stays; it is tried again.
            tracing::debug!("{}/{}: {text}", facts.key.namespace, facts.key.name);
        }
    }
}

/// Starts everything in order; returns when all containers have ended for good.
async fn bring_up(pod: &Arc<PodContext>, tasks: &mut Tasks) {
    let facts = pod.facts();
    let spec = &facts.pod.spec;
    let of_pod = policy(pod);
    for step in starts(spec) {
        let name = &step.container().name;
        let policy = match step {
            Step::Sidecar(_) => Policy::Always,
            Step::Init(_) if of_pod == Policy::Never => Policy::Never,
            Step::Init(_) => Policy::OnFailure,
            Step::App(_) => of_pod,
        };
        let (ender, end) = watch::channel(None);
        tasks.ends.insert(name.clone(), ender);
        tasks.tracker.spawn(supervise(Arc::clone(pod), step.container().clone(), policy, end));
        match step {
            Step::Init(_) => {
                pod.wait_for(name, |record| record.finished).await;
                if pod.record(name).code() != Some(0) {
                    return;
                }
            }
            Step::Sidecar(_) => pod.wait_for(name, Record::has_started).await,
            Step::App(container) => {
                if container.lifecycle.as_ref().is_some_and(|it| it.post_start.is_some()) {
                    pod.wait_for(name, |record| record.is_hooked() || record.finished).await;
                }
            }
        }
    }
    pod.wait_for_end(&spec.containers).await;
    take_down(pod, tasks, Duration::from_secs(30)).await;
}

/// Ends what runs, in the order of ends.
async fn take_down(pod: &PodContext, tasks: &Tasks, grace: Duration) {
    let facts = pod.facts();
    let deadline = Instant::now() + grace;
    for (index, group) in ends(&facts.pod.spec).iter().enumerate() {
        let least = Instant::now() + grace.min(SIDECAR);
        let at = if index == 0 { deadline } else { deadline.max(least) };
        let group = group.iter().filter_map(|name| Some((name, tasks.ends.get(*name)?)));
        let group: Vec<_> = group.collect();
        for (_, ender) in &group {
            ender.send_replace(Some(at));
        }
        for (name, _) in &group {
            pod.wait_for(name, |record| record.finished).await;
        }
    }
    tasks.tracker.close();
    tasks.tracker.wait().await;
}
