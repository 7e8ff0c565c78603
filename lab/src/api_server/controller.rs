//! Makes and ends pods, and takes what is applied.
//!
//! Each pod has one task from its wish to its end, so that what happens to it happens in order:
//! admission, again and again until it is admitted; the kubelet; the end. Tasks belong to a tracker
//! and end with `stop`.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lateen_api::Finding;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{self, AdmissionError, Surroundings};
use super::cluster::Cluster;
use super::config_file;
use super::manifest::Batch;
use super::objects::{Change, Objects};
use super::pods;
use super::writer::{Followed, Writer};
use crate::clock;
use crate::kubelet::{Kubelet, PodKey};

/// First pause after a pod could not be created; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for the control plane to follow.
const FOLLOW: Duration = Duration::from_secs(15);

/// Runs pods: the kubelet, or a fake of it.
pub trait Runner: Send + Sync + 'static {
    /// Runs an admitted pod; returns at once.
    fn run(&self, pod: Value);
    /// Ends a pod; returns when nothing of it is left.
    fn remove<'a>(&'a self, key: &'a PodKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

impl Runner for Kubelet {
    fn run(&self, pod: Value) {
        Self::run(self, pod);
    }

    fn remove<'a>(&'a self, key: &'a PodKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(Self::remove(self, key))
    }
}

/// Folders of the controllers.
#[derive(Debug, Clone)]
pub struct Folders {
    /// State folder of the lab.
    pub state: PathBuf,
    /// The control plane's configuration directory.
    pub config: PathBuf,
    /// Objects of the node's pods, for its agent.
    pub pods: PathBuf,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// What happened to each object.
    pub changes: Vec<Change>,
    /// What is taken, but not as the author may think.
    pub warnings: Vec<Finding>,
}

/// The controllers. Cheap to clone.
#[derive(Clone)]
pub struct Controller {
    cluster: Cluster,
    runner: Arc<dyn Runner>,
    folders: Folders,
    followed: watch::Receiver<Followed>,
    applying: Arc<Mutex<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Controller").field("folders", &self.folders).finish_non_exhaustive()
    }
}

impl Controller {
    /// Starts the controllers of `cluster`; `running` says whether the control plane runs.
    #[must_use]
    pub fn start(
        cluster: Cluster,
        runner: Arc<dyn Runner>,
        folders: Folders,
        running: watch::Receiver<bool>,
    ) -> Self {
        let (send, followed) = watch::channel(Followed::default());
        let writer = Writer {
            cluster: cluster.clone(),
            beside: folders.state.clone(),
            folder: folders.config.clone(),
            running,
            followed: send,
        };
        let controller = Self {
            cluster,
            runner,
            folders,
            followed,
            applying: Arc::new(Mutex::new(())),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        controller.tasks.spawn(writer.run(controller.stop.clone()));
        controller.tasks.spawn(controller.clone().follow());
        controller
    }

    /// Stops deciding. Pods stay as they are; the kubelet ends them.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes a batch, if nothing speaks against it, here or at the control plane.
    ///
    /// # Errors
    /// Everything that speaks against it; then nothing was taken.
    pub async fn apply(&self, batch: &Batch) -> Result<Applied, Vec<Finding>> {
        let _one_at_a_time = self.applying.lock().await;
        let taken = self.cluster.objects().with(batch, &clock::now())?;
        let mut warnings = taken.warnings;
        let denied = self.rehearse(&taken.changes, &taken.objects).await;
        if !denied.is_empty() {
            return Err(denied);
        }
        let revision = self.cluster.propose(taken.objects);
        let mut followed = self.followed.clone();
        let wait = followed.wait_for(|followed| followed.revision >= revision);
        let followed = match tokio::time::timeout(FOLLOW, wait).await {
            Ok(Ok(followed)) => followed.clone(),
            Ok(Err(_)) | Err(_) => Followed::default(),
        };
        if !followed.loaded {
            let message = "lateend has not loaded this; it will when it runs again: \
                           lateen lab component start lateend";
            warnings.push(Finding::warning("", message));
        }
        let said = about(&taken.changes, &followed.findings);
        let (errors, remarks): (Vec<_>, Vec<_>) = said.into_iter().partition(Finding::is_error);
        if !errors.is_empty() {
            self.cluster.withdraw();
            self.followed().await;
            return Err(errors);
        }
        self.cluster.accept();
        let known: Vec<(String, String)> =
            warnings.iter().map(|it| (it.path.clone(), it.message.clone())).collect();
        let new = remarks.into_iter().filter(|remark| {
            !known.iter().any(|(path, text)| *path == remark.path && *text == remark.message)
        });
        warnings.extend(new);
        Ok(Applied { changes: taken.changes, warnings })
    }

    /// Asks webhooks what they would say to the pods of what changes: a pod that is denied refuses
    /// the call that asks for it. Hooks that do not answer are asked again for each pod.
    async fn rehearse(&self, changes: &[Change], objects: &Objects) -> Vec<Finding> {
        let mut denied = Vec::new();
        let Some(configuration) = self.cluster.published().webhooks() else { return denied };
        for change in changes.iter().filter(|change| change.verb != "unchanged") {
            let Some((pod, path)) =
                objects.get(&change.key).and_then(|it| pods::of(&change.key, it))
            else {
                continue;
            };
            let namespace = &change.key.object.namespace;
            let labels = objects.namespace_labels(namespace).unwrap_or_default();
            let around = Surroundings {
                configuration: &configuration,
                namespace,
                namespace_labels: &labels,
                dry_run: true,
            };
            let outcome = admission::admit(pod, around, &self.cluster).await;
            if let Err(error @ AdmissionError::Denied { .. }) = outcome {
                let finding = Finding::error(path, error.to_string());
                denied.push(placed(
                    Finding { object: Some(change.key.object.clone().into()), ..finding },
                    change,
                ));
            }
        }
        denied
    }

    /// Waits until the control plane has loaded what is in force now, or cannot be waited for.
    pub async fn followed(&self) {
        let revision = *self.cluster.revision().borrow();
        let mut followed = self.followed.clone();
        let wait = followed.wait_for(|followed| followed.revision >= revision);
        if tokio::time::timeout(FOLLOW, wait).await.is_err() {
            tracing::warn!("the control plane does not follow");
        }
    }

    async fn follow(self) {
        let mut revisions = self.cluster.revision();
        loop {
            revisions.mark_unchanged();
            for key in self.cluster.advance() {
                self.tasks.spawn(self.clone().life(key));
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = revisions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One pod, from wish to end.
    async fn life(self, key: PodKey) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.steps(&key) => {}
        }
    }

    async fn steps(&self, key: &PodKey) {
        if let Some(object) = self.until_admitted(key).await {
            let file = format!("{}_{}.json", key.namespace, key.name);
            let text = object.to_string();
            let (state, pods) = (&self.folders.state, &self.folders.pods);
            if let Err(error) = config_file::replace(state, pods, &file, text.as_bytes()) {
                let message = format!("{}: {error}", pods.display());
                self.cluster.refused(key, "failed.pod-file", &message);
            }
            self.runner.run(object);
            self.until_ending(key).await;
            self.runner.remove(key).await;
            forget(&pods.join(file));
        }
        self.cluster.gone(key);
    }

    async fn until_admitted(&self, key: &PodKey) -> Option<Value> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.admit(key).await? {
                Ok(object) => return Some(object),
                Err((reason, message)) => self.cluster.refused(key, &reason, &message),
            }
            // A pod that is to end need not wait.
            let _ended = tokio::time::timeout(pause, self.until_ending(key)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One attempt; `None` when the pod is to end.
    async fn admit(&self, key: &PodKey) -> Option<Result<Value, (String, String)>> {
        let wish = match self.cluster.wish(key)? {
            Ok(wish) => wish,
            Err(message) => return Some(Err(("failed.service-account".to_owned(), message))),
        };
        let Some(configuration) = self.cluster.published().webhooks() else {
            let message = "lateend has not registered its webhook yet: see lateen lab logs lateend";
            return Some(Err(("failed.no-webhook".to_owned(), message.to_owned())));
        };
        let around = Surroundings {
            configuration: &configuration,
            namespace: &key.namespace,
            namespace_labels: &wish.namespace_labels,
            dry_run: false,
        };
        match admission::admit(wish.pod, around, &self.cluster).await {
            Ok(admitted) => self.cluster.admitted(key, admitted).map(Ok),
            Err(error) => Some(Err((error.reason().to_owned(), error.to_string()))),
        }
    }

    async fn until_ending(&self, key: &PodKey) {
        let mut revisions = self.cluster.revision();
        while !self.cluster.is_ending(key) {
            if revisions.changed().await.is_err() {
                return;
            }
        }
    }
}

fn forget(file: &Path) {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(file = %file.display(), %error, "is left");
        }
        _ => {}
    }
}

/// What was said about the objects of a batch, with their places in the author's files.
fn about(changes: &[Change], findings: &[Finding]) -> Vec<Finding> {
    let concerned = findings.iter().filter_map(|finding| {
        let object = finding.object.as_ref()?;
        let change = changes.iter().find(|change| change.key.object == **object)?;
        Some(placed(finding.clone(), change))
    });
    concerned.collect()
}

/// A finding about the object of a change, with its place in the author's files.
fn placed(finding: Finding, change: &Change) -> Finding {
    let (file, line) = change.place.rsplit_once(':').unwrap_or((&change.place, ""));
    Finding { file: Some(file.to_owned()), line: line.parse().ok(), document: None, ..finding }
}
