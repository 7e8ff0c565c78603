//! Enters the namespaces of a cluster and leaves its holder there.
//!
//! Only a process with one thread may do this, and one that was started for it: the verb `enter`
//! of the program. The listener for the API server is made before, so that it hears on this
//! machine's own loopback; it goes through as standard input.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;

use crate::ClusterError;
use crate::cluster::end;

/// Starts the verb `enter` and keeps the holder's process id.
pub(super) fn start(folder: &Path, listener: TcpListener) -> Result<(), ClusterError> {
    let mut command = Command::new(crate::settings::own_program());
    command.arg("enter").arg(folder).stdin(OwnedFd::from(listener));
    let failed =
        |source| ClusterError::Start { program: "lateen-cluster enter".to_owned(), source };
    let output =
        command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output().map_err(failed)?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    let none =
        || ClusterError::Other("the cluster's namespaces cannot be made; see above".to_owned());
    end::write_holder(folder, pid.filter(|_| output.status.success()).ok_or_else(none)?)
}

/// The verb: makes namespaces, starts the holder in them, prints its process id.
///
/// # Errors
/// What the machine does not allow.
pub fn enter(folder: &Path) -> Result<(), ClusterError> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let refused = |error| {
        ClusterError::Other(format!("making namespaces: {error}; root needs CAP_SYS_ADMIN here"))
    };
    unshare(flags).map_err(refused)?;
    setsid().map_err(|error| ClusterError::Other(format!("new session: {error}")))?;
    let log = folder.join("logs/holder.log");
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).map_err(ClusterError::file(&logs))?;
    let out = OpenOptions::new().create(true).append(true).open(&log);
    let out = out.map_err(ClusterError::file(&log))?;
    let errors = out.try_clone().map_err(ClusterError::file(&log))?;
    let own = std::env::current_exe().map_err(ClusterError::file(Path::new("/proc/self/exe")))?;
    let mut command = Command::new(own);
    command.arg("hold").arg(folder).stdin(Stdio::inherit()).stdout(out).stderr(errors);
    command.current_dir("/");
    let failed = |source| ClusterError::Start { program: "lateen-cluster hold".to_owned(), source };
    let child = command.spawn().map_err(failed)?;
    println!("{}", child.id());
    Ok(())
}
