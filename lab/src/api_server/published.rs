//! What the control plane publishes for the API server: registration of its webhook, root
//! certificate, and what it says about the configuration.
//!
//! Files are read when asked for; a watcher says when to ask again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lateen_api::Finding;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

/// File in which the control plane says what it thinks of the configuration.
pub const STATUS: &str = "status.json";
const WEBHOOK: &str = "mutatingwebhookconfiguration.json";
const ROOT: &str = "istio-ca-root-cert.json";
/// Time between looks in case the kernel keeps a change to itself.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the control plane says about the configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Status {
    /// Counts up with each change in force, from 1 at its start.
    pub version: u64,
    /// What there is to say.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// The folder of what is published.
#[derive(Debug)]
pub struct Published {
    folder: PathBuf,
    news: watch::Receiver<u64>,
    _watcher: RecommendedWatcher,
}

impl Published {
    /// Watches `folder`, which exists.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn watch(folder: &Path) -> notify::Result<Self> {
        let (said, news) = watch::channel(0);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    said.send_modify(|count| *count += 1);
                }
            })?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(Self { folder: folder.to_owned(), news, _watcher: watcher })
    }

    /// What the control plane says; `None` before it has said anything.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.read(STATUS)
    }

    /// The registration of its webhook.
    #[must_use]
    pub fn webhooks(&self) -> Option<Value> {
        self.read(WEBHOOK)
    }

    /// The texts of the ConfigMap with its root certificate.
    #[must_use]
    pub fn root_certificate(&self) -> Option<std::collections::BTreeMap<String, String>> {
        let value: Value = self.read(ROOT)?;
        serde_json::from_value(value["data"].clone()).ok()
    }

    /// Waits until `look` finds something.
    pub async fn until<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut news = self.news.clone();
        loop {
            news.mark_unchanged();
            if let Some(found) = look(self) {
                return found;
            }
            // Both outcomes mean: look again.
            let _waited = tokio::time::timeout(LOOK_AGAIN, news.changed()).await;
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let text = std::fs::read(self.folder.join(name)).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(name, %error, "published, but not readable"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Published;
    use std::time::Duration;

    #[tokio::test]
    async fn a_file_that_appears_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::watch(folder.path()).unwrap();
        assert!(published.status().is_none() && published.webhooks().is_none());
        let wait = published.until(|it| it.status().filter(|status| status.version == 2));
        let write = async {
            for version in 1..=2 {
                let new = folder.path().join(".new");
                std::fs::write(&new, format!("{{\"version\": {version}}}")).unwrap();
                std::fs::rename(&new, folder.path().join("status.json")).unwrap();
            }
        };
        let both = async { tokio::join!(wait, write) };
        let (status, ()) = tokio::time::timeout(Duration::from_secs(5), both).await.unwrap();
        assert!(status.findings.is_empty());
    }
}
