//! Keeps a component running, as a machine's init does: one that ends is started again, and said
//! so. Its process id stands in a file, for tests that kill it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ClusterError;
use crate::process::{Process, Start};
use crate::progress::say;

/// Before a component that ended is started again.
const PAUSE: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// File with the process id of a component, as its own namespace counts.
pub(super) fn pid_file(folder: &Path, component: &str) -> PathBuf {
    folder.join("pids").join(component)
}

/// Starts a component and writes its process id.
pub(super) fn start(folder: &Path, start: &Start) -> Result<Process, ClusterError> {
    let process = Process::start(start)?;
    let file = pid_file(folder, &start.name);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).map_err(ClusterError::file(parent))?;
    }
    fs::write(&file, process.id().to_string()).map_err(ClusterError::file(&file))?;
    Ok(process)
}

/// Keeps components running until it is dropped, which ends them.
pub(super) async fn keep(folder: &Path, mut components: Vec<(Start, Process)>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for (order, process) in &mut components {
            let Err(error) = process.check() else { continue };
            say(&error.to_string());
            tokio::time::sleep(PAUSE).await;
            match start(folder, order) {
                Ok(again) => *process = again,
                Err(error) => say(&format!("{} cannot be started again: {error}", process.name())),
            }
        }
    }
}
