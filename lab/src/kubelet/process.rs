//! Starting, signalling and joining containers by the launcher.

use std::fs::{self, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::launch::{Container, Join, Process, kill_signal};
use crate::node::{LAUNCHER, NodeContext};

/// A container is set up in milliseconds; this only ends a wait that would never end.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longest reason that is read.
const MAX_REASON: u64 = 1 << 16;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A number that no other of this kubelet has.
pub(super) fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// A running container, as others need to know it.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    /// Its first process, as the node sees it.
    pub(super) pid: i32,
    /// What was started.
    pub(super) process: Process,
    /// Network namespace.
    pub(super) network: PathBuf,
}

/// A file that goes with this value, also when what waits for it is dropped.
#[derive(Debug)]
struct Gone(PathBuf);

impl Drop for Gone {
    fn drop(&mut self) {
        // It is in a folder that ends with the node.
        drop(fs::remove_file(&self.0));
    }
}

/// Folder of sockets and short-lived files. Its path is short, as those of sockets must be.
fn scratch(node: &NodeContext) -> PathBuf {
    node.inner().join("s")
}

/// Starts a container with its output at the end of `log`; gives the launcher that waits for it.
pub(super) async fn start(
    node: &NodeContext,
    mut container: Container,
    log: &Path,
) -> Result<(Child, Handle), String> {
    let scratch = scratch(node);
    fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let name = scratch.join(number().to_string());
    container.status = name.with_extension("sock");
    let file = name.with_extension("json");
    let _gone = [Gone(container.status.clone()), Gone(file.clone())];
    let socket = UnixListener::bind(&container.status)
        .map_err(|e| format!("{}: {e}", container.status.display()))?;
    let text = serde_json::to_vec(&container).map_err(|e| e.to_string())?;
    fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    let done = timeout(DEADLINE, launch(node, &file, &socket, log)).await;
    let (child, pid) =
        done.map_err(|_| format!("the container was not set up within {} s", DEADLINE.as_secs()))??;
    Ok((child, Handle { pid, process: container.process, network: container.network }))
}

async fn launch(
    node: &NodeContext,
    file: &Path,
    socket: &UnixListener,
    log: &Path,
) -> Result<(Child, i32), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", log.display());
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let output: File = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let mut command = launcher(node, "container", file);
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let mut child = command.spawn().map_err(|e| format!("{LAUNCHER}: {e}"))?;
    let mut stream = tokio::select! {
        accepted = socket.accept() => accepted.map_err(|e| e.to_string())?.0,
        status = child.wait() => {
            let code = status.map(code).map_err(|e| e.to_string())?;
            // A short program may have ended before its start was looked at.
            let accepted = timeout(Duration::ZERO, socket.accept()).await;
            let accepted = accepted.ok().and_then(Result::ok);
            let failed = || format!("{LAUNCHER} ended with {code}; its log says why");
            accepted.ok_or_else(failed)?.0
        }
    };
    let pid = stream.peer_cred().map_err(|e| e.to_string())?.pid();
    let mut reason = String::new();
    let mut limited = (&mut stream).take(MAX_REASON);
    limited.read_to_string(&mut reason).await.map_err(|e| e.to_string())?;
    if !reason.is_empty() {
        child.wait().await.map_err(|e| e.to_string())?;
        return Err(reason);
    }
    let pid = pid.ok_or("the kernel does not say which process was started")?;
    Ok((child, pid))
}

/// Runs a command beside a container, or as it says; gives its exit status.
pub(super) async fn join(
    node: &NodeContext,
    join: &Join,
    stdio: [Stdio; 3],
) -> Result<i32, String> {
    let (mut child, _gone) = spawn_join(node, join, stdio)?;
    child.wait().await.map(code).map_err(|e| e.to_string())
}

/// The same with standard output and error gathered, for a time.
pub(super) async fn join_for(
    node: &NodeContext,
    join: &Join,
    time: Duration,
) -> Result<(i32, String), String> {
    let (mut child, _gone) =
        spawn_join(node, join, [Stdio::null(), Stdio::piped(), Stdio::piped()])?;
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let gather = async {
        let (mut text, mut more) = (Vec::new(), Vec::new());
        if let (Some(output), Some(errors)) = (output, errors) {
            let (mut output, mut errors) = (output.take(MAX_REASON), errors.take(MAX_REASON));
            let (a, b) = tokio::join!(output.read_to_end(&mut text), errors.read_to_end(&mut more));
            drop((a, b));
        }
        text.append(&mut more);
        let status = child.wait().await;
        (status, String::from_utf8_lossy(&text).trim().to_owned())
    };
    let done = timeout(time, gather).await;
    match done {
        Ok((status, text)) => Ok((code(status.map_err(|e| e.to_string())?), text)),
        Err(_) => {
            signal(&child, kill_signal());
            let ended = child.wait().await;
            drop(ended);
            Err(format!("it did not end within {} s", time.as_secs()))
        }
    }
}

fn spawn_join(
    node: &NodeContext,
    join: &Join,
    [input, output, errors]: [Stdio; 3],
) -> Result<(Child, Gone), String> {
    let scratch = scratch(node);
    let file = scratch.join(format!("{}.json", number()));
    let gone = Gone(file.clone());
    let text = serde_json::to_vec(join).map_err(|e| e.to_string())?;
    fs::create_dir_all(&scratch)
        .and_then(|()| fs::write(&file, text))
        .map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = launcher(node, "join", &file);
    command.stdin(input).stdout(output).stderr(errors);
    let child = command.spawn().map_err(|e| format!("{LAUNCHER}: {e}"))?;
    Ok((child, gone))
}

fn launcher(node: &NodeContext, verb: &str, file: &Path) -> Command {
    let mut command = Command::new(node.binaries.join(LAUNCHER));
    command.arg(verb).arg(file).env_clear().kill_on_drop(true);
    command
}

/// Standard streams of a command.
pub(super) fn stdio(streams: [OwnedFd; 3]) -> [Stdio; 3] {
    streams.map(Stdio::from)
}

/// Sends a signal to a launcher, which passes it on.
pub(super) fn signal(child: &Child, signal: Signal) {
    // Without an id it has ended and was reaped.
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Exit status as a shell has it.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}
