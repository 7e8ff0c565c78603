//! Starts a container: outside waits for it, inside becomes its first process.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, fchown, sethostname};

use super::rights::become_program;
use super::{Container, Failed, again, read, root, wait};

/// Outside of the container's pid namespace: parent of its first process.
pub(super) fn outside(file: &Path) -> Result<ExitCode, Failed> {
    let container: Container = read(file)?;
    let network = std::fs::File::open(&container.network)
        .map_err(|e| format!("{}: {e}", container.network.display()))?;
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|e| format!("network namespace: {e}"))?;
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| format!("pid namespace: {e}"))?;
    wait::run(again("inside", file)?)
}

/// Inside: reports over the status socket, which closes when the program takes over.
pub(super) fn inside(file: &Path) -> Result<ExitCode, Failed> {
    let container: Container = read(file)?;
    let status = &container.status;
    let mut channel =
        UnixStream::connect(status).map_err(|e| format!("{}: {e}", status.display()))?;
    let text = match prepare(&container) {
        Err(text) => text,
        Ok(()) => become_program(&container.process, Some(Stdio::null())),
    };
    // Should nobody listen, the log still says it.
    drop(channel.write_all(text.as_bytes()));
    Err(text)
}

fn prepare(container: &Container) -> Result<(), Failed> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    unshare(flags).map_err(|e| format!("namespaces: {e}"))?;
    sethostname(&container.hostname).map_err(|e| format!("host name: {e}"))?;
    let (uid, gid) = (container.process.user, container.process.group);
    // So that /dev/stdout and /dev/stderr can be opened.
    for output in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        fchown(output, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|e| format!("giving the log to user {uid}, group {gid}: {e}"))?;
    }
    root::enter(container)
}
