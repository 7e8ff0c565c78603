//! Where objects come from: a directory of Kubernetes YAML or JSON, or an API server.
//!
//! A directory: `files` reads it, `load` decides what is in force (a pure function of texts and of
//! what was in force before), `watch` repeats both when something changes. An API server: `topics`
//! and `referenced` say what is asked for, `trim` what of it is kept, `reflect` follows each kind, `store` decides
//! what is in force, `keeper` puts it there. What is refused never gets further; what was good before
//! stays. Nothing here knows services or routes.

mod files;
mod keeper;
mod load;
mod objects;
mod referenced;
mod reflect;
mod served;
mod store;
mod topics;
mod trim;
mod watch;

use std::sync::Arc;

use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use files::{Files, ReadFailure};
pub use keeper::Watched;
pub use load::{Load, State};
pub use objects::{Objects, Sourced};
pub use watch::{SourceError, read_once};

/// Objects that are followed. Dropping it stops following.
#[derive(Debug)]
pub struct Source {
    loads: Receiver<Arc<Load>>,
    listed: CancellationToken,
    task: JoinHandle<()>,
}

impl Source {
    fn new(loads: Receiver<Arc<Load>>, listed: CancellationToken, task: JoinHandle<()>) -> Self {
        Self { loads, listed, task }
    }

    /// What is in force, now and after each change; nothing until everything has been listed.
    #[must_use]
    pub fn loads(&self) -> Receiver<Arc<Load>> {
        self.loads.clone()
    }

    /// Waits until everything has been listed once.
    pub async fn listed(&self) {
        self.listed.cancelled().await;
    }

    /// Waits for the end after `stop` was cancelled.
    pub async fn stopped(mut self) {
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "following the configuration ended abnormally");
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}
