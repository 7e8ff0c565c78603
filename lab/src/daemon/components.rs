//! The processes of the mesh that run beside the pods: control plane and node agent.
//!
//! Each has one task that starts it, starts it again when it ends by itself, and ends it when the
//! lab does. One that was killed on request stays down until it is started on request.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pause before a component that ended by itself is started again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a component may take to end; nothing of what it keeps outlives the lab.
const GRACE: Duration = Duration::from_secs(1);
/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a component is started.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// Name, for people.
    pub(super) name: &'static str,
    /// Program.
    pub(super) program: PathBuf,
    /// Arguments.
    pub(super) arguments: Vec<String>,
    /// File for its output.
    pub(super) log: PathBuf,
    /// File of a former process that must not be taken for one of the next.
    pub(super) stale: Option<PathBuf>,
}

/// A component. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Component {
    recipe: Recipe,
    wanted: watch::Sender<bool>,
    running: watch::Receiver<bool>,
}

/// The task of a component.
#[derive(Debug)]
pub(super) struct Keeper {
    recipe: Recipe,
    wanted: watch::Receiver<bool>,
    running: watch::Sender<bool>,
}

/// A component and its task; nothing runs yet.
pub(super) fn component(recipe: Recipe) -> (Component, Keeper) {
    let (wanted_in, wanted) = watch::channel(true);
    let (running_in, running) = watch::channel(false);
    let keeper = Keeper { recipe: recipe.clone(), wanted, running: running_in };
    (Component { recipe, wanted: wanted_in, running }, keeper)
}

impl Component {
    /// Name, for people.
    pub(super) fn name(&self) -> &'static str {
        self.recipe.name
    }

    /// File with its output.
    pub(super) fn log(&self) -> &PathBuf {
        &self.recipe.log
    }

    /// Whether it runs.
    pub(super) fn running(&self) -> watch::Receiver<bool> {
        self.running.clone()
    }

    /// Kills it; returns when it is gone.
    pub(super) async fn kill(&self) {
        self.wanted.send_replace(false);
        self.reaches(false).await;
    }

    /// Starts it; returns when the process is there.
    pub(super) async fn start(&self) {
        self.wanted.send_replace(true);
        self.reaches(true).await;
    }

    async fn reaches(&self, state: bool) {
        until(&mut self.running.clone(), state).await;
    }
}

impl Keeper {
    /// Keeps the component as wanted until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                known = until(&mut self.wanted, true) => if !known { return },
            }
            match spawn(&self.recipe) {
                Ok(mut child) => {
                    self.running.send_replace(true);
                    let ended = self.watch(&mut child, &stop).await;
                    self.running.send_replace(false);
                    if !ended {
                        return;
                    }
                }
                Err(error) => {
                    let program = self.recipe.program.display();
                    tracing::error!(component = self.recipe.name, %error, "{program} does not start");
                }
            }
            if *self.wanted.borrow() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    /// Waits for the end of the process; false when the lab ends.
    async fn watch(&mut self, child: &mut Child, stop: &CancellationToken) -> bool {
        let name = self.recipe.name;
        tokio::select! {
            status = child.wait() => {
                tracing::warn!(component = name, ?status, "ended by itself");
                true
            }
            _ = until(&mut self.wanted, false) => {
                if let Err(error) = child.kill().await {
                    tracing::error!(component = name, %error, "cannot be killed");
                }
                true
            }
            () = stop.cancelled() => {
                end(child, name).await;
                false
            }
        }
    }
}

/// Waits for a state; false when nobody can say any more.
async fn until(receiver: &mut watch::Receiver<bool>, state: bool) -> bool {
    receiver.wait_for(|it| *it == state).await.is_ok()
}

fn spawn(recipe: &Recipe) -> io::Result<Child> {
    match recipe.stale.as_ref().map(std::fs::remove_file) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let log = OpenOptions::new().create(true).append(true).open(&recipe.log)?;
    Command::new(&recipe.program)
        .args(&recipe.arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
}

/// SIGTERM, and SIGKILL when that does not help.
async fn end(child: &mut Child, name: &str) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended just now.
        let _sent = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!(component = name, "did not end in time");
        if let Err(error) = child.kill().await {
            tracing::error!(component = name, %error, "cannot be killed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Recipe, component};
    use std::time::Duration;
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn a_component_is_kept_as_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            name: "sleeper",
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), "echo started; exec sleep 600".to_owned()],
            log: folder.path().join("log"),
            stale: Some(folder.path().join("stale")),
        };
        std::fs::write(folder.path().join("stale"), "").unwrap();
        let (component, keeper) = component(recipe);
        let stop = CancellationToken::new();
        let task = tokio::spawn(keeper.run(stop.clone()));
        let log = component.log().clone();
        let started = async |times: usize| {
            while std::fs::read_to_string(&log).unwrap_or_default().lines().count() != times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let story = async {
            component.start().await;
            started(1).await;
            assert!(!folder.path().join("stale").exists());
            component.kill().await;
            assert!(!*component.running().borrow());
            component.start().await;
            started(2).await;
            stop.cancel();
            task.await.unwrap();
            assert!(!*component.running().borrow());
        };
        tokio::time::timeout(Duration::from_secs(10), story).await.unwrap();
    }
}
