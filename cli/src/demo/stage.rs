//! The mesh the demo looks at: brought up and asked through the same commands a person has.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lateen_lab::echo::load::Summary;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest time any one command may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A running lab.
#[derive(Debug)]
pub(crate) struct Stage {
    program: PathBuf,
    name: String,
    folder: TempDir,
    pods: Vec<Pod>,
}

/// A pod as `lateen lab ls -o json` shows it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pod {
    /// Name.
    pub(crate) name: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Addresses, IPv4 first.
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
    /// Containers, native sidecars included.
    #[serde(default)]
    pub(crate) containers: Vec<String>,
    /// Why it was injected or not.
    #[serde(default)]
    pub(crate) reason: String,
    /// Every container is ready.
    #[serde(default)]
    pub(crate) ready: bool,
}

/// What a sidecar says about its certificate at `/certs`.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    /// Serial number.
    pub(crate) serial: String,
    /// When it ends, ms since the epoch.
    pub(crate) not_after_ms: u64,
    /// When it is due to be renewed, ms since the epoch.
    pub(crate) renew_at_ms: u64,
    /// When this was asked.
    pub(crate) seen_at_ms: u64,
}

impl Stage {
    /// Brings up a lab named `name` with the given arguments of `lateen lab up`.
    pub(crate) async fn up(name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let folder = tempfile::tempdir()?;
        let mut stage = Self { program, name: name.to_owned(), folder, pods: Vec::new() };
        let up = [&["up", "--detach"], arguments].concat();
        stage.lab(&up, None).await?;
        stage.look().await?;
        Ok(stage)
    }

    /// Ends the lab and everything in it.
    pub(crate) async fn down(&self) -> anyhow::Result<()> {
        self.lab(&["down"], None).await.map(drop)
    }

    /// Name of the lab.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All pods, as last looked at.
    pub(crate) fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// Looks at the pods again.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let text = self.lab(&["ls", "-o", "json"], None).await?;
        self.pods = serde_json::from_str(&text).context("lateen lab ls -o json")?;
        Ok(())
    }

    /// The first pod of a deployment.
    pub(crate) fn pod(&self, deployment: &str) -> anyhow::Result<Pod> {
        let prefix = format!("{deployment}-");
        let found = self.pods.iter().find(|pod| pod.name.starts_with(&prefix));
        found.cloned().with_context(|| format!("no pod of {deployment} in {:?}", self.pods))
    }

    /// Runs the sample client's `get` in the application container of `pod`.
    pub(crate) async fn get(&self, pod: &Pod, arguments: &[&str]) -> anyhow::Result<Summary> {
        let text = self.exec(pod, &[&["lateen-echo", "get"], arguments].concat()).await?;
        serde_json::from_str(&text).context("the client's summary")
    }

    /// Runs a command in the application container of `pod`; an exit status but 0 is an error.
    pub(crate) async fn exec(&self, pod: &Pod, command: &[&str]) -> anyhow::Result<String> {
        let target = ["exec", "-n", &pod.namespace, &pod.name, "--"];
        self.lab(&[&target, command].concat(), None).await
    }

    /// Runs a command as root in the network namespace of `pod`.
    pub(crate) async fn exec_root(&self, pod: &Pod, command: &[&str]) -> anyhow::Result<String> {
        let target = ["exec", "-n", &pod.namespace, &pod.name, "--root", "--"];
        self.lab(&[&target, command].concat(), None).await
    }

    /// The Prometheus text of a sidecar.
    pub(crate) async fn metrics(&self, pod: &Pod) -> anyhow::Result<String> {
        let summary = self.get(pod, &["http://127.0.0.1:15090/stats/prometheus"]).await?;
        ensure!(summary.last_status == 200, "15090 answered {}", summary.last_status);
        Ok(summary.last_body)
    }

    /// The certificate a sidecar holds.
    pub(crate) async fn certificate(&self, pod: &Pod) -> anyhow::Result<Certificate> {
        #[derive(Deserialize)]
        struct Shown {
            serial: String,
            not_after_ms: u64,
            renew_at_ms: u64,
        }
        let summary = self.get(pod, &["http://127.0.0.1:15000/certs"]).await?;
        let shown: Shown = serde_json::from_str(&summary.last_body)
            .with_context(|| format!("/certs answered {}", summary.last_body))?;
        Ok(Certificate {
            serial: shown.serial,
            not_after_ms: shown.not_after_ms,
            renew_at_ms: shown.renew_at_ms,
            seen_at_ms: super::traffic::epoch_millis(),
        })
    }

    /// Applies manifests given as text.
    pub(crate) async fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.lab(&["apply", "-f", "-"], Some(manifests)).await.map(drop)
    }

    /// What went over the bridge for `time`, as a pcap file.
    pub(crate) async fn capture(&self, time: Duration) -> anyhow::Result<Vec<u8>> {
        let file = self.folder.path().join("capture.pcap");
        let seconds = time.as_secs_f64().to_string();
        let path = file.to_string_lossy();
        self.lab(&["capture", "--seconds", &seconds, "-o", &path], None).await?;
        read(&file)
    }

    /// Kills the control plane.
    pub(crate) async fn kill_control_plane(&self) -> anyhow::Result<()> {
        self.lab(&["component", "kill", "lateend"], None).await.map(drop)
    }

    /// Starts it again.
    pub(crate) async fn start_control_plane(&self) -> anyhow::Result<()> {
        self.lab(&["component", "start", "lateend"], None).await.map(drop)
    }

    /// Runs `lateen lab ARGUMENTS --name NAME`.
    async fn lab(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        let (verb, rest) = arguments.split_first().context("no command")?;
        let mut command = Command::new(&self.program);
        command.args(["lab", verb, "--name", &self.name]).args(rest).kill_on_drop(true);
        let run = run(command, input);
        let done = tokio::time::timeout(LIMIT, run).await;
        let Ok(output) = done else {
            bail!("lateen lab {verb} did not end within {} s", LIMIT.as_secs());
        };
        let output = output.with_context(|| format!("lateen lab {verb}"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "lateen lab {}: {}", arguments.join(" "), error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

async fn run(mut command: Command, input: Option<&str>) -> anyhow::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn()?;
    if let Some(text) = input {
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(text.as_bytes()).await?;
    }
    Ok(child.wait_with_output().await?)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}
