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

/// Keeps the holder's process id, and when it began: process ids are used again.
pub(super) fn write_holder(folder: &Path, pid: i32) -> Result<(), ClusterError> {
    let file = folder.join(HOLDER);
    let gone = || ClusterError::Other("the holder of the cluster ended at once".to_owned());
    let start = started(pid).ok_or_else(gone)?;
    fs::write(&file, format!("{pid} {start}\n")).map_err(ClusterError::file(&file))
}

/// The holder's process id, when it runs.
pub(super) fn holder(folder: &Path) -> Option<i32> {
    let text = fs::read_to_string(folder.join(HOLDER)).ok()?;
    let (pid, start) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (started(pid)?.to_string() == start).then_some(pid)
}

/// When a process began, in ticks since the machine did; `None` when it has ended.
fn started(pid: i32) -> Option<u64> {
    start_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// From a line of `/proc/PID/stat`.
fn start_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
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

#[cfg(test)]
mod tests {
    use super::{start_of, started};

    #[test]
    fn the_start_of_a_process_is_the_22nd_field() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(start_of(stat), Some(4711));
        assert_eq!(start_of(&stat.replace(" S ", " Z ")), None);
        assert!(started(i32::try_from(std::process::id()).unwrap()).is_some());
    }
}
