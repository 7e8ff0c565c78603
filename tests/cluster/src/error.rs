//! Why there is no cluster, with the file to look at.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why there is no cluster, or what it does not do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A program of the machine is missing.
    #[error("missing: {program}; fix: {fix}")]
    Missing {
        /// The program.
        program: String,
        /// How to get it.
        fix: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {text}")]
    Command {
        /// Which.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        text: String,
    },
    /// Go could not build a program.
    #[error("go build in {} failed ({status}); its messages are in {}", .folder.display(), .log.display())]
    Build {
        /// The Go module.
        folder: PathBuf,
        /// How go ended.
        status: ExitStatus,
        /// What go said.
        log: PathBuf,
    },
    /// A component ended when it should not.
    #[error("{component} ended ({status}); the end of {}:\n{tail}", .log.display())]
    Ended {
        /// Which.
        component: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{what} after {seconds} s{}; the end of {}:\n{tail}", .last.as_ref().map(|text| format!(" ({text})")).unwrap_or_default(), .log.display())]
    Late {
        /// What was waited for, as `is not ready`.
        what: String,
        /// For how long.
        seconds: u64,
        /// What was seen last.
        last: Option<String>,
        /// The log that may say why.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A certificate cannot be made.
    #[error("certificates of the cluster: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl ClusterError {
    /// For `map_err`: an error of the file `path`.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
