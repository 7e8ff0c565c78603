//! Starts a process beside those of a container, or as root in a pod's network namespace.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use nix::sched::{CloneFlags, setns};

use super::rights::become_program;
use super::{Failed, Join, again, read, wait};

/// Outside of the container's pid namespace: the parent of what joins it.
pub(super) fn outside(file: &Path) -> Result<ExitCode, Failed> {
    let join: Join = read(file)?;
    let Some(pid) = join.container else {
        enter(&join.network, CloneFlags::CLONE_NEWNET)?;
        return Err(become_program(&join.process, None));
    };
    enter(&namespace(pid, "pid"), CloneFlags::CLONE_NEWPID)?;
    wait::run(again("joined", file)?)
}

/// Inside of the container's pid namespace.
pub(super) fn inside(file: &Path) -> Result<ExitCode, Failed> {
    let join: Join = read(file)?;
    let pid = join.container.ok_or("join: no container is named")?;
    // The mounts come last: with them the paths of the others are gone.
    let namespaces = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    for (name, kind) in namespaces {
        enter(&namespace(pid, name), kind)?;
    }
    Err(become_program(&join.process, None))
}

fn namespace(pid: i32, name: &str) -> std::path::PathBuf {
    Path::new("/proc").join(pid.to_string()).join("ns").join(name)
}

fn enter(path: &Path, kind: CloneFlags) -> Result<(), Failed> {
    let file = File::open(path).map_err(|e| format!("the container has ended ({e})"))?;
    setns(file, kind).map_err(|e| format!("{}: {e}", path.display()))
}
