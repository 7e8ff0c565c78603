//! Waiting for one child, and passing signals on to it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::Failed;

/// Tells the launcher to kill its container.
pub(crate) const KILL: Signal = Signal::SIGUSR1;

const PASSED_ON: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Starts `command` and waits for its end. Gives its exit status as a shell would.
pub(super) fn run(mut command: Command) -> Result<ExitCode, Failed> {
    let mut set = SigSet::from_iter(PASSED_ON);
    set.add(KILL);
    set.add(Signal::SIGCHLD);
    // The child inherits this, and unblocks them before it becomes the container's program.
    set.thread_block().map_err(|e| format!("blocking signals: {e}"))?;
    let mut child = command.spawn().map_err(|e| format!("starting the container: {e}"))?;
    loop {
        if let Some(code) = ended(&mut child)? {
            return Ok(code);
        }
        let signal = match set.wait().map_err(|e| format!("waiting for signals: {e}"))? {
            Signal::SIGCHLD => continue,
            KILL => Signal::SIGKILL,
            other => other,
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        // It is not reaped, so the number is still its own.
        let _ = kill(pid, signal);
    }
}

fn ended(child: &mut Child) -> Result<Option<ExitCode>, Failed> {
    let status = child.try_wait().map_err(|e| format!("waiting for the container: {e}"))?;
    Ok(status.map(|status| {
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
    }))
}

/// Does nothing until told to end: what runs where an image has nothing to do.
pub(super) fn pause() -> Result<ExitCode, Failed> {
    let set = SigSet::from_iter(PASSED_ON);
    set.thread_block().map_err(|e| format!("blocking signals: {e}"))?;
    set.wait().map_err(|e| format!("waiting for signals: {e}"))?;
    Ok(ExitCode::SUCCESS)
}
