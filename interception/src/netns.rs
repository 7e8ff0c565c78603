//! Runs something in another network namespace.
//!
//! In a thread of its own that ends with it, so that no other work ever sees the wrong namespace.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Why a network namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The path cannot be opened.
    #[error("network namespace {path}: {source}")]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no network namespace, or entering it is not permitted.
    #[error("entering network namespace {path}: {source}")]
    Enter {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread could not be started or did not end well.
    #[error("a thread for network namespace {path} failed")]
    Thread {
        /// Path of the namespace.
        path: PathBuf,
    },
}

/// Runs `work` in the network namespace at `path` and returns what it returns.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn run_in<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    let owned = || path.to_owned();
    let namespace =
        File::open(path).map_err(|source| NamespaceError::Open { path: owned(), source })?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|e| NamespaceError::Enter { path: owned(), source: e.into() })?;
            Ok(work())
        });
        let thread = thread.map_err(|_| NamespaceError::Thread { path: owned() })?;
        thread.join().unwrap_or_else(|_| Err(NamespaceError::Thread { path: owned() }))
    })
}
