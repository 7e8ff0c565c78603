//! The end of a cluster, also of one whose holder was killed: processes, cgroups, the folder.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use super::{Plan, cgroups};
use crate::ClusterError;

/// Name of the file with the holder's process id.
const HOLDER: &str = "holder";
/// How long the kernel may take to end all processes of the cluster.
const GONE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn write_holder(folder: &Path, pid: &str) -> Result<(), ClusterError> {
    let file = folder.join(HOLDER);
    fs::write(&file, pid).map_err(ClusterError::file(&file))
}

/// The holder's process id, when it runs.
pub(super) fn holder(folder: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(folder.join(HOLDER)).ok()?.trim().parse().ok()?;
    // Process ids are used again.
    is(pid, &["hold", folder.to_str()?]).then_some(pid)
}

/// The process id of a node, when it runs.
pub(super) fn node(folder: &Path, number: u8) -> Option<i32> {
    holder(folder)?;
    let number = number.to_string();
    let words = ["node", folder.to_str()?, &number];
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| is(*pid, &words))
}

/// Whether the process was started with these arguments.
fn is(pid: i32, words: &[&str]) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut given = line.split(|byte| *byte == 0).skip(1);
    words.iter().all(|word| given.next() == Some(word.as_bytes()))
}

/// Ends the processes of a cluster and waits until they are gone.
pub(super) async fn kill(folder: &Path) {
    let start = Instant::now();
    while let Some(pid) = holder(folder) {
        // The init of a pid namespace is gone only when everything in it is.
        let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
        if start.elapsed() > GONE {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Ends a cluster and removes what is left of it.
pub(super) async fn down(folder: &Path, plan: &Plan) -> Result<(), ClusterError> {
    kill(folder).await;
    let start = Instant::now();
    loop {
        let left = cgroups::remove(plan)
            .and_then(|()| fs::remove_dir_all(folder).map_err(ClusterError::file(folder)));
        match left {
            Ok(()) => break,
            // What was killed a moment ago may still hold a cgroup.
            Err(_) if start.elapsed() < GONE => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => return Err(error),
        }
    }
    // The folder of all clusters goes with the last.
    if let Some(clusters) = folder.parent() {
        drop(fs::remove_dir(clusters));
    }
    Ok(())
}
