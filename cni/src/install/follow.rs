//! Installs again whenever the kernel says that something changed in the node's folders, and every
//! few seconds in case it did not say so.
//!
//! The first change of a quiet folder is taken at once; what follows it waits until the folder has
//! been quiet for a moment. A writer that never rests is answered at a bounded pace.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Done, InstallError, Installer};

/// Quiet that ends a burst.
const QUIET: Duration = Duration::from_millis(30);
/// Longest burst that is waited for.
const LONGEST_BURST: Duration = Duration::from_millis(300);
/// Time between looks when the kernel says nothing, and after a failure.
const RESCAN: Duration = Duration::from_secs(5);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Installs until `stop`, and reports each pass.
pub async fn follow(
    installer: Installer,
    mut report: impl FnMut(&Result<Done, InstallError>),
    stop: CancellationToken,
) {
    let (send, mut changes) = mpsc::channel(1);
    let watchers = [&installer.configurations, &installer.programs]
        .map(|folder| watcher(folder, send.clone()));
    drop(send);
    loop {
        let pass = installer.clone();
        // No result: the runtime ends.
        let Ok(result) = spawn_blocking(move || pass.pass()).await else { return };
        report(&result);
        let next = Instant::now() + if result.is_ok() { RESCAN } else { AFTER_FAILURE };
        let told = tokio::select! {
            () = stop.cancelled() => break,
            change = changes.recv(), if watchers.iter().any(Option::is_some) => change.is_some(),
            () = sleep_until(next) => false,
        };
        if told {
            // Our own writes are heard too; a pass that finds all in place writes nothing.
            settle(&mut changes).await;
        }
    }
}

/// Waits until nothing has changed for a moment.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + LONGEST_BURST;
    while Instant::now() < end {
        match timeout(QUIET, changes.recv()).await {
            Err(_) => return,
            Ok(None) => return sleep(QUIET).await,
            Ok(Some(())) => {}
        }
    }
}

fn watcher(folder: &Path, changes: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading files makes access events; they are no change.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            // A full channel already holds the news that something changed.
            let _sent = changes.try_send(());
        }
    });
    let watched = watcher.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watched
        .inspect_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "no change notification; looking every few seconds");
        })
        .ok()
}
