//! The caller's side of entering the node's namespaces.
//!
//! The launcher unshares; ids can be mapped only from outside, which happens here.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

use nix::unistd::{Uid, User, getgid, getuid};

use super::subordinate::{Range, range};
use super::{Entered, LAUNCHER, Launch, Mode, NodeError};

/// Namespaces are made in milliseconds; this only ends a wait that would never end.
const DEADLINE: Duration = Duration::from_secs(20);
/// The proxy's id 1337 must exist.
const LEAST_IDS: u32 = 2000;

struct Ids {
    users: Range,
    groups: Range,
}

pub(super) fn enter(launch: &Launch) -> Result<Entered, NodeError> {
    let ids = if getuid().is_root() { None } else { Some(subordinate()?) };
    let failed = |what: &str, e: std::io::Error| NodeError(format!("{what}: {e}"));
    let (ours, theirs) = UnixStream::pair().map_err(|e| failed("socket pair", e))?;
    ours.set_read_timeout(Some(DEADLINE)).map_err(|e| failed("socket pair", e))?;
    let log = log(launch).map_err(|e| failed(&launch.log.display().to_string(), e))?;
    let launcher = launch.binaries.join(LAUNCHER);
    let mut command = Command::new(&launcher);
    command.arg("enter").arg(if ids.is_some() { "user" } else { "root" });
    command.arg(&launch.program).args(&launch.arguments).stdin(OwnedFd::from(theirs));
    let errors = log.try_clone().map_err(|e| failed("log", e))?;
    command.stdout(log).stderr(errors);
    let mut child = command.spawn().map_err(|e| failed(&launcher.display().to_string(), e))?;
    // The command holds the other end of the socket: without it a dead launcher is noticed.
    drop(command);
    let done = talk(&ours, &child, ids.as_ref());
    if done.is_err() {
        // It may be waiting for ids that it will not get; when it has ended already, all is well.
        drop(child.kill());
    }
    child.wait().map_err(|e| failed("waiting for the launcher", e))?;
    let mode = ids.map_or(Mode::Root, |ids| Mode::UserNamespace {
        first: ids.users.first,
        count: ids.users.count,
    });
    Ok(Entered { pid: done?, mode })
}

fn log(launch: &Launch) -> std::io::Result<File> {
    if let Some(folder) = launch.log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).append(true).open(&launch.log)
}

/// Maps ids when asked to, and learns the daemon's process id.
fn talk(stream: &UnixStream, child: &Child, ids: Option<&Ids>) -> Result<i32, NodeError> {
    let broken = |e: std::io::Error| NodeError(format!("entering namespaces: {e}"));
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).map_err(broken)?;
        match (line.trim_end().split_once(' '), ids) {
            (Some(("pid", number)), _) => {
                return number.parse().map_err(|e| NodeError(format!("process id: {e}")));
            }
            (Some(("unshared", _)), Some(ids)) => {
                map("newuidmap", child.id(), getuid().as_raw(), ids.users)?;
                map("newgidmap", child.id(), getgid().as_raw(), ids.groups)?;
                let mut writer = stream;
                writer.write_all(b"mapped\n").map_err(broken)?;
            }
            (Some(("error", text)), _) => return Err(NodeError(text.to_owned())),
            _ => return Err(NodeError("the launcher ended without an answer".to_owned())),
        }
    }
}

fn subordinate() -> Result<Ids, NodeError> {
    let uid = getuid();
    let user = name(uid);
    let find = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        range(&text, &user, uid.as_raw()).filter(|range| range.count >= LEAST_IDS).ok_or_else(|| {
            NodeError(format!(
                "{file}: no range of at least {LEAST_IDS} ids for {user}, and a lab without root \
                 needs them; run: sudo usermod --add-subuids 100000-165535 --add-subgids \
                 100000-165535 {user}"
            ))
        })
    };
    Ok(Ids { users: find("/etc/subuid")?, groups: find("/etc/subgid")? })
}

fn name(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// The caller is 0 inside, subordinate ids follow.
fn map(program: &str, pid: u32, own: u32, range: Range) -> Result<(), NodeError> {
    let numbers = [pid, 0, own, 1, 1, range.first, range.count].map(|number| number.to_string());
    let output = Command::new(program).args(numbers).output().map_err(|e| {
        NodeError(format!("{program}: {e}; install the package uidmap, or run as root"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NodeError(format!("{program}: {text}")))
}
