//! A component: a process with a log that ends with whoever started it, however that ends.
//!
//! The kernel kills a component when the thread that started it ends, so all are started by one
//! thread that lives as long as this process.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ClusterError;

/// Between two looks at whether something has come true.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines of a log that an error shows.
const TAIL: usize = 12;

/// What is started.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    /// What it is called in messages, and its log.
    pub(crate) name: String,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Folder of logs.
    pub(crate) logs: PathBuf,
}

impl Start {
    /// `program` with `arguments`, which logs to a file of its name in `logs`.
    pub(crate) fn new(program: &Path, arguments: Vec<OsString>, logs: &Path) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, program: program.to_owned(), arguments, logs: logs.to_owned() }
    }
}

/// A running component. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a component.
    pub(crate) fn start(start: &Start) -> Result<Self, ClusterError> {
        let log = start.logs.join(format!("{}.log", start.name));
        std::fs::create_dir_all(&start.logs).map_err(ClusterError::file(&start.logs))?;
        let out = OpenOptions::new().create(true).append(true).open(&log);
        let out = out.map_err(ClusterError::file(&log))?;
        let errors = out.try_clone().map_err(ClusterError::file(&log))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&start.program).args(&start.arguments);
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        let failed = |source| ClusterError::Start { program: start.name.clone(), source };
        let child = spawn(command).map_err(failed)?;
        Ok(Self { name: start.name.clone(), log, child })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// An error when it has ended.
    pub(crate) fn check(&mut self) -> Result<(), ClusterError> {
        let status = self.child.try_wait().map_err(ClusterError::file(&self.log))?;
        match status {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> ClusterError {
        let (component, log) = (self.name.clone(), self.log.clone());
        ClusterError::Ended { component, status, tail: tail(&log), log }
    }

    /// Waits until `look` says so; `what` names that it did not, as `is not ready`. Ends early when
    /// the component ends.
    pub(crate) async fn until<F>(
        &mut self,
        what: &str,
        deadline: Duration,
        mut look: impl FnMut() -> F,
    ) -> Result<(), ClusterError>
    where
        F: Future<Output = Result<(), String>>,
    {
        let start = Instant::now();
        loop {
            self.check()?;
            let last = match look().await {
                Ok(()) => return Ok(()),
                Err(text) => text,
            };
            if start.elapsed() > deadline {
                return Err(ClusterError::Late {
                    what: format!("{} {what}", self.name),
                    seconds: deadline.as_secs(),
                    last: Some(last),
                    log: self.log.clone(),
                    tail: tail(&self.log),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks it to end and waits; kills it when it takes longer than `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) {
        // What has ended already needs no signal.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < grace && matches!(self.child.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK_EVERY / 4).await;
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
}

/// Words as arguments.
pub(crate) fn words(words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<OsString> {
    words.into_iter().map(|word| word.as_ref().to_owned()).collect()
}

type Order = (Command, Sender<io::Result<Child>>);

fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<Sender<Order>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, receiver): (_, Receiver<Order>) = channel();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                if let Err(unheard) = answer.send(command.spawn()) {
                    // Nobody waits for it any more.
                    drop(unheard.0.map(|mut child| child.kill()));
                }
            }
        });
        sender
    });
    let (sender, receiver) = channel();
    let gone = || io::Error::other("the thread that starts components has ended");
    starter.send((command, sender)).map_err(|_| gone())?;
    receiver.recv().map_err(|_| gone())?
}
