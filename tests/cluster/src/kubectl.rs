//! `kubectl`, for one cluster.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::ClusterError;

/// `kubectl` with a kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// `program` for the cluster of `kubeconfig`.
    #[must_use]
    pub fn new(program: &Path, kubeconfig: &Path) -> Self {
        Self { program: program.to_owned(), kubeconfig: kubeconfig.to_owned() }
    }

    /// The kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The command, to be run as the caller likes.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments).kill_on_drop(true);
        command
    }

    /// Runs it and gives what it prints.
    ///
    /// # Errors
    /// When it cannot be started, or with what it says when it fails.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String, ClusterError> {
        self.feed(arguments, "").await
    }

    /// Runs it with `input` as standard input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn feed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Result<String, ClusterError> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = |source| ClusterError::Start { program: "kubectl".to_owned(), source };
        let mut child = command.spawn().map_err(start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that does not read has failed and says why.
            drop(stdin.write_all(input.as_bytes()).await);
        }
        let output = child.wait_with_output().await.map_err(start)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = command.as_std().get_args().skip(2).map(OsStr::to_string_lossy);
        let words: Vec<_> = words.collect();
        Err(ClusterError::Command {
            command: format!("kubectl {}", words.join(" ")),
            status: output.status,
            text: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs it with `-o json` and gives what it prints.
    ///
    /// # Errors
    /// As [`Self::run`], or when it prints no JSON.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value, ClusterError> {
        let text = self.run(arguments.iter().chain(&["-o", "json"])).await?;
        serde_json::from_str(&text)
            .map_err(|error| ClusterError::Other(format!("kubectl {arguments:?}: {error}")))
    }

    /// Applies manifests, YAML or JSON.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn apply(&self, manifests: &str) -> Result<String, ClusterError> {
        self.feed(["apply", "-f", "-"], manifests).await
    }
}
