//! The command's side of a lab: finds it, starts it, asks it, ends it.
//!
//! What people see is made elsewhere; here are requests, answers and errors that name the next
//! command to try.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::node::{self, Launch, Mode};
use crate::protocol::{MAX_REPLY, MAX_REQUEST, Reply, Request, send};
use crate::settings::Settings;
use crate::state::{self, Layout, StateError};

/// Name of a lab that is given none.
pub const DEFAULT_NAME: &str = "lab";
/// Programs that must lie beside `lateen`.
const PROGRAMS: [&str; 8] = [
    "lateend",
    "lateen-proxy",
    "lateen-init",
    "lateen-cni",
    "lateen-cni-node",
    "lateen-echo",
    "lateen-lab-bridge",
    "lateen-lab-launch",
];
/// How long the daemon may take to answer its socket.
const START: Duration = Duration::from_secs(20);
/// How long the daemon may take to end.
const END: Duration = Duration::from_secs(60);
/// How long the kernel may take to end a daemon that was killed, and all its processes.
const KILLED: Duration = Duration::from_secs(20);
/// Time between looks where nothing can be waited for.
const LOOK: Duration = Duration::from_millis(10);

/// Why a command failed. The text says what to try next.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no such lab.
    #[error(
        "lab `{name}` is not up{}; bring it up: lateen lab up --name {name} -f FILE",
        others(living)
    )]
    NoLab {
        /// Which.
        name: String,
        /// Those that are.
        living: Vec<String>,
    },
    /// Several labs, and none was named.
    #[error("several labs are up ({}): name one with --name", .0.join(", "))]
    Several(Vec<String>),
    /// Programs are missing.
    #[error("{} not found in {}; build them: make build", missing.join(", "), folder.display())]
    Programs {
        /// Which.
        missing: Vec<String>,
        /// Where they should be.
        folder: PathBuf,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The namespaces.
    #[error("{0}")]
    Node(#[from] node::NodeError),
    /// The daemon did not come up.
    #[error("the lab's daemon did not come up:\n{0}")]
    Daemon(String),
    /// The daemon said no.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The daemon went away.
    #[error("lab `{0}` went away; look whether it is up: lateen lab ls --name {0}")]
    Gone(String),
    /// The daemon does not end.
    #[error("lab `{name}` does not end; its first process is {pid}: kill -9 {pid}")]
    Stays {
        /// Which.
        name: String,
        /// Its first process.
        pid: i32,
    },
    /// Input or output.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn others(living: &[String]) -> String {
    if living.is_empty() { String::new() } else { format!(" (up: {})", living.join(", ")) }
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> ClientError {
    let what = what.to_owned();
    move |source| ClientError::Io { what, source }
}

/// The lab that is meant: the named one, else the only one, else the one of the default name.
///
/// # Errors
/// When several are up and none has the default name.
pub fn choose(name: Option<&str>) -> Result<String, ClientError> {
    let living = state::sweep()?;
    if let Some(name) = name {
        state::check_name(name)?;
        return Ok(name.to_owned());
    }
    match living.as_slice() {
        [] => Ok(DEFAULT_NAME.to_owned()),
        [only] => Ok(only.clone()),
        several if several.iter().any(|it| it == DEFAULT_NAME) => Ok(DEFAULT_NAME.to_owned()),
        several => Err(ClientError::Several(several.to_vec())),
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Connection {
    name: String,
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Asks a lab for something; files go beside the request.
    ///
    /// # Errors
    /// When the lab is not up, or does not take the request.
    pub async fn ask(
        name: &str,
        request: &Request,
        files: &[BorrowedFd<'_>],
    ) -> Result<Self, ClientError> {
        let layout = Layout { state: state::folder(name) };
        let Ok(stream) = UnixStream::connect(layout.socket()).await else {
            return Err(ClientError::NoLab { name: name.to_owned(), living: state::sweep()? });
        };
        let mut text =
            serde_json::to_vec(request).map_err(|error| io_error("the request")(error.into()))?;
        text.push(b'\n');
        if text.len() > MAX_REQUEST {
            let source = io::Error::other("more than one call may hold: use several calls");
            return Err(io_error("the request")(source));
        }
        transmit(&stream, &text, files).await.map_err(io_error("asking the lab"))?;
        Ok(Self { name: name.to_owned(), stream: BufReader::new(stream) })
    }

    /// The next answer.
    ///
    /// # Errors
    /// When the lab refused, or went away.
    pub async fn next(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_REPLY).unwrap_or(u64::MAX);
        let read = (&mut self.stream).take(limit).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|count| count > 0) {
            return Err(ClientError::Gone(self.name.clone()));
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::Failed(reasons)) => Err(ClientError::Refused(reasons)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(io_error("the lab's answer")(error.into())),
        }
    }

    /// Everything until the end, after [`Reply::Raw`].
    pub fn raw(&mut self) -> &mut (impl tokio::io::AsyncRead + Unpin + use<>) {
        &mut self.stream
    }

    /// The lab's first process, as we see it.
    fn daemon(&self) -> Option<i32> {
        self.stream.get_ref().peer_cred().ok()?.pid()
    }
}

async fn transmit(stream: &UnixStream, text: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    use tokio::io::Interest;
    let mut sent = 0;
    while sent < text.len() {
        let rest = text.get(sent..).unwrap_or_default();
        // Files go with the first byte.
        let beside = if sent == 0 { files } else { &[] };
        let writing = || send(stream.as_fd(), rest, beside);
        sent += stream.async_io(Interest::WRITABLE, writing).await?;
    }
    Ok(())
}

/// A lab that was started.
#[derive(Debug)]
pub struct Started {
    /// With which rights it runs.
    pub mode: Mode,
    /// The answer to the request to bring it up.
    pub connection: Connection,
}

/// Starts a lab and makes its first request.
///
/// # Errors
/// When it cannot be started; then nothing is left of it.
pub async fn start(settings: &Settings, request: &Request) -> Result<Started, ClientError> {
    state::sweep()?;
    let is_missing = |name: &&str| !settings.binaries.join(name).is_file();
    let missing: Vec<String> =
        PROGRAMS.iter().filter(|name| is_missing(name)).map(|name| (*name).to_owned()).collect();
    if !missing.is_empty() {
        return Err(ClientError::Programs { missing, folder: settings.binaries.clone() });
    }
    // Held until the daemon lives there, so that nobody sweeps the folder away.
    let (layout, _tenancy) = state::create(&settings.name)?;
    let mut daemon = None;
    let started = launch(settings, &layout, request, &mut daemon).await;
    if started.is_err() {
        if let Some(pid) = daemon {
            // It may have ended already.
            let _sent = kill(Pid::from_raw(pid), Signal::SIGKILL);
            ended(pid, END).await;
        }
        state::remove(&layout.state)?;
    }
    started
}

async fn launch(
    settings: &Settings,
    layout: &Layout,
    request: &Request,
    daemon: &mut Option<i32>,
) -> Result<Started, ClientError> {
    settings.write(&layout.state).map_err(io_error("writing the settings"))?;
    let program = std::env::current_exe().map_err(io_error("finding this program"))?;
    let log = layout.logs().join("daemon.log");
    let launch = Launch {
        program,
        arguments: ["lab".into(), "daemon".into(), "--state".into(), layout.state.clone().into()]
            .into(),
        log: log.clone(),
        state: layout.state.clone(),
        binaries: settings.binaries.clone(),
    };
    let entering = tokio::task::spawn_blocking(move || node::enter(&launch));
    let entered = entering.await.map_err(|error| io_error("namespaces")(error.into()))??;
    *daemon = Some(entered.pid);
    let deadline = Instant::now() + START;
    while !layout.socket().exists() {
        if Instant::now() > deadline || !is_alive(entered.pid) {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            return Err(ClientError::Daemon(said.trim().to_owned()));
        }
        sleep(LOOK).await;
    }
    let connection = Connection::ask(&settings.name, request, &[]).await?;
    Ok(Started { mode: entered.mode, connection })
}

/// Ends a lab and removes what is left of it.
///
/// # Errors
/// When it is not up, or does not end.
pub async fn down(name: &str) -> Result<(), ClientError> {
    let connection = Connection::ask(name, &Request::Down, &[]).await?;
    clear(name, connection).await
}

/// Waits for the end of a lab that ends by itself, and removes what is left of it.
///
/// # Errors
/// When it does not end.
pub async fn clear(name: &str, connection: Connection) -> Result<(), ClientError> {
    if let Some(pid) = connection.daemon() {
        if !ended(pid, END).await {
            // A daemon that hangs is killed: nobody else will. It may have ended just now.
            let _sent = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if !ended(pid, KILLED).await {
            return Err(ClientError::Stays { name: name.to_owned(), pid });
        }
    }
    Ok(state::remove(&state::folder(name))?)
}

/// Waits for the end of a process that is not our child; the kernel ends its whole pid namespace
/// before it is a zombie.
async fn ended(pid: i32, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while is_alive(pid) {
        if Instant::now() > deadline {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}

fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::{ClientError, is_alive};

    #[test]
    fn a_process_is_alive_until_it_ends() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert!(!is_alive(pid));
        assert!(is_alive(i32::try_from(std::process::id()).unwrap()));
    }

    #[test]
    fn errors_name_the_next_command() {
        let living = vec!["demo".to_owned()];
        let text = ClientError::NoLab { name: "lab".to_owned(), living }.to_string();
        assert!(text.contains("(up: demo)") && text.contains("lateen lab up --name lab"), "{text}");
    }
}
