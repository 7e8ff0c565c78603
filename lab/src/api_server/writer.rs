//! Puts what is in force before the control plane, version after version, and waits until it says
//! that it has loaded each.

use std::path::PathBuf;
use std::time::Duration;

use lateen_api::Finding;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::config_file;

/// Longest wait for the control plane to load a version.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far the control plane has followed.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed {
    /// Revision of the cluster that was written.
    pub(super) revision: u64,
    /// Whether the control plane said that it loaded it.
    pub(super) loaded: bool,
    /// What it said about it.
    pub(super) findings: Vec<Finding>,
}

/// Writes the file.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) cluster: Cluster,
    /// State folder, where unfinished files lie.
    pub(super) beside: PathBuf,
    /// The control plane's configuration directory.
    pub(super) folder: PathBuf,
    /// Whether the control plane runs.
    pub(super) running: watch::Receiver<bool>,
    pub(super) followed: watch::Sender<Followed>,
}

impl Writer {
    /// Writes each change until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut revisions = self.cluster.revision();
        let (mut before, mut version) = (String::new(), 0);
        loop {
            revisions.mark_unchanged();
            let (text, revision) = self.cluster.snapshot();
            if text == before {
                self.followed.send_modify(|followed| followed.revision = revision);
            } else {
                version += 1;
                let followed = self.put(&text, version, revision).await;
                // What the control plane has not seen is written again with the next change.
                before = if followed.loaded { text } else { String::new() };
                self.followed.send_replace(followed);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = revisions.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn put(&mut self, text: &str, version: u64, revision: u64) -> Followed {
        let said = self.cluster.published().status().map(|status| status.version);
        let marked = config_file::marked(text, version);
        let written =
            config_file::replace(&self.beside, &self.folder, config_file::FILE, marked.as_bytes());
        if let Err(error) = written {
            tracing::error!(%error, folder = %self.folder.display(), "configuration is not written");
            return Followed { revision, ..Followed::default() };
        }
        let loaded = self
            .cluster
            .published()
            .until(|published| published.status().filter(|status| Some(status.version) != said));
        let mut running = self.running.clone();
        let stopped = running.wait_for(|running| !running);
        let status = tokio::select! {
            status = tokio::time::timeout(PATIENCE, loaded) => status.ok(),
            _ = stopped => None,
        };
        match status {
            Some(status) => Followed { revision, loaded: true, findings: status.findings },
            None => Followed { revision, ..Followed::default() },
        }
    }
}
