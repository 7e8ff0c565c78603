//! The agent's socket, its threads, and how it stops.
//!
//! The socket appears complete (mode 0600) under its name by a rename. One thread accepts and hands
//! each call to one of a few that answer, so that a call wakes nobody who has nothing to do. When
//! serving ends no call is taken any more and the running ones are finished.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

use super::Agent;
use super::pods::Stop;
use crate::protocol::{Request, SOCKET, receive, send};

/// Calls at the same time; one takes a millisecond unless it waits for its pod.
const THREADS: usize = 16;
const PEER_DEADLINE: Duration = Duration::from_secs(2);
/// Milliseconds between attempts to accept when the system has no room.
const ACCEPT_PAUSE: u16 = 20;

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A step on the way to serving failed.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// Another agent serves in the same folder.
    #[error("another node agent answers at {0}; stop it first")]
    Taken(PathBuf),
}

fn failed<'a>(
    step: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ServeError + use<'a> {
    move |source| ServeError::Io { step, path: path.to_owned(), source }
}

/// Serves in `run_dir` as long as `meanwhile` runs, and returns what it returns.
///
/// # Errors
/// When serving cannot begin.
pub fn serve<T>(
    agent: &Agent,
    run_dir: &Path,
    meanwhile: impl FnOnce() -> T,
) -> Result<T, ServeError> {
    let socket = run_dir.join(SOCKET);
    let listener = listen(run_dir, &socket)?;
    let (reader, writer) = io::pipe().map_err(failed("pipe", Path::new("-")))?;
    tracing::info!(socket = %socket.display(), "serving");
    // Without a queue: a call is accepted when there is a thread for it.
    let (calls, waiting) = mpsc::sync_channel(0);
    let waiting = Mutex::new(waiting);
    let result = thread::scope(|scope| {
        for _ in 0..THREADS {
            let stop = Stop::new(reader.try_clone().map_err(failed("pipe", Path::new("-")))?);
            let waiting = &waiting;
            scope.spawn(move || work(waiting, agent, &stop));
        }
        let stop = Stop::new(reader);
        scope.spawn(move || accept(&listener, &calls, &stop));
        let result = meanwhile();
        agent.pods.close();
        drop(writer);
        Ok(result)
    })?;
    fs::remove_file(&socket).map_err(failed("removing", &socket))?;
    Ok(result)
}

fn listen(folder: &Path, socket: &Path) -> Result<UnixListener, ServeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(failed("creating", folder))?;
    if UnixStream::connect(socket).is_ok() {
        return Err(ServeError::Taken(socket.to_owned()));
    }
    let hidden = folder.join(format!(".{SOCKET}.{}", std::process::id()));
    let listener = UnixListener::bind(&hidden).map_err(failed("listening on", &hidden))?;
    listener.set_nonblocking(true).map_err(failed("listening on", &hidden))?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))
        .map_err(failed("protecting", &hidden))?;
    fs::rename(&hidden, socket).map_err(failed("naming", socket))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, calls: &SyncSender<UnixStream>, stop: &Stop) {
    loop {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), stop.poll_fd()];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return tracing::error!("waiting for calls: {e}"),
        }
        if ready[1].any().unwrap_or(true) {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if calls.send(stream).is_err() {
                    return;
                }
            }
            // The caller has gone again.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                tracing::warn!("a call cannot be accepted: {e}");
                // Out of file descriptors, say: calls that end give some back.
                if stop.within(ACCEPT_PAUSE) {
                    return;
                }
            }
        }
    }
}

fn work(waiting: &Mutex<Receiver<UnixStream>>, agent: &Agent, stop: &Stop) {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(stream) = next else { return };
        if let Err(e) = call(&stream, agent, stop) {
            tracing::warn!("a call was not answered: {e}");
        }
    }
}

fn call(stream: &UnixStream, agent: &Agent, stop: &Stop) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PEER_DEADLINE))?;
    stream.set_write_timeout(Some(PEER_DEADLINE))?;
    let peer = getsockopt(stream, PeerCredentials)?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        let text = format!("user {peer} may not call the node agent");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let request: Request = receive(stream)?;
    send(stream, &agent.answer(&request, stop))
}
