//! Makes the node's namespaces and starts the daemon as their first process.
//!
//! Its counterpart, which maps ids, is `node::enter`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};

use super::Failed;

pub(super) fn enter(arguments: &[OsString]) -> Result<(), Failed> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let mut channel = UnixStream::from(input.map_err(|e| format!("standard input: {e}"))?);
    match start(arguments, &channel) {
        Ok(pid) => writeln!(channel, "pid {pid}").map_err(|e| format!("answer: {e}")),
        Err(text) => {
            // Should the caller be gone, the log still says it.
            drop(writeln!(channel, "error {text}"));
            Err(text)
        }
    }
}

fn start(arguments: &[OsString], channel: &UnixStream) -> Result<u32, Failed> {
    let [kind, program, rest @ ..] = arguments else {
        return Err("enter: needs a kind and a program".to_owned());
    };
    let user = kind == "user";
    let mut flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWUSER, user);
    unshare(flags).map_err(|e| refused(e, user))?;
    if user {
        become_root(channel)?;
    }
    // The daemon outlives the terminal it was started from.
    setsid().map_err(|e| format!("new session: {e}"))?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null());
    let child = command.spawn().map_err(|e| format!("{}: {e}", program.display()))?;
    Ok(child.id())
}

/// Waits until the caller has mapped ids, then takes those of root.
fn become_root(mut channel: &UnixStream) -> Result<(), Failed> {
    let broken = |e: std::io::Error| format!("mapping of ids: {e}");
    writeln!(channel, "unshared -").map_err(broken)?;
    let mut line = String::new();
    BufReader::new(channel).read_line(&mut line).map_err(broken)?;
    if line != "mapped\n" {
        return Err("mapping of ids: the caller has gone".to_owned());
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(gid, gid, gid)
        .and_then(|()| setresuid(uid, uid, uid))
        .and_then(|()| setgroups(&[gid]))
        .map_err(|e| format!("becoming root of the user namespace: {e}"))
}

fn refused(e: nix::Error, user: bool) -> Failed {
    let hint = if user {
        "run as root, or allow it: sudo sysctl -w user.max_user_namespaces=10000 \
         kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "root needs the capability CAP_SYS_ADMIN here"
    };
    format!("making namespaces: {e}; {hint}")
}
