//! Where a lab keeps its state, who lives there, and what is left of those that died.
//!
//! `/tmp/lateen-lab-UID/NAME/`. A living lab holds a shared lock on the file `lock` in its folder;
//! a folder whose lock can be had alone is a dead lab's and is removed by the next command.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::getuid;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::api_server::names;
use crate::node;

/// Longest name of a lab: a socket's path may have 108 bytes.
const MAX_NAME: usize = 48;
/// Age from which an unfinished folder is nobody's.
const UNFINISHED: Duration = Duration::from_secs(60);

/// Why there is no state folder.
#[derive(Debug, Error)]
pub enum StateError {
    /// The name cannot be one of a lab.
    #[error(
        "`{0}` cannot be the name of a lab: lower case letters, digits and `-`, at most {MAX_NAME}"
    )]
    Name(String),
    /// There is a lab of this name.
    #[error(
        "lab `{0}` is up already; look: lateen lab ls --name {0}; take it down: lateen lab down --name {0}"
    )]
    Exists(String),
    /// The folder of all labs belongs to somebody else.
    #[error("{0} is not ours alone; remove it, or ask its owner to")]
    Foreign(PathBuf),
    /// The file system says no.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The folder of all labs of this user.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(format!("/tmp/lateen-lab-{}", getuid()))
}

/// The state folder of a lab.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    root().join(name)
}

/// The folders and files within a state folder.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The state folder.
    pub state: PathBuf,
}

impl Layout {
    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// What the control plane reads.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.state.join("config")
    }

    /// What the control plane publishes.
    #[must_use]
    pub fn published(&self) -> PathBuf {
        self.state.join("published")
    }

    /// The pods of the node.
    #[must_use]
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    /// Output of containers and components.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Everything else.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.state.join("run")
    }

    fn make(&self) -> io::Result<()> {
        for folder in [self.config(), self.published(), self.pods(), self.logs(), self.run()] {
            std::fs::create_dir(folder)?;
        }
        Ok(())
    }
}

/// A lock that says: somebody lives here.
#[derive(Debug)]
pub struct Tenancy {
    _file: File,
}

/// Takes part in the life of the lab in `state`.
///
/// # Errors
/// When there is no such lab, or it is being removed.
pub fn join(state: &Path) -> Result<Tenancy, StateError> {
    let path = state.join("lock");
    let file = File::open(&path).map_err(|source| at(&path, source))?;
    flock(&file, FlockOperation::NonBlockingLockShared).map_err(|e| at(&path, e.into()))?;
    Ok(Tenancy { _file: file })
}

/// Makes the folder of a new lab; whoever holds the result keeps it from being swept.
///
/// # Errors
/// When there is one of this name, or the folder cannot be made.
pub fn create(name: &str) -> Result<(Layout, Tenancy), StateError> {
    check_name(name)?;
    let unfinished = root().join(format!(".{name}.{}", std::process::id()));
    make_in_root(&unfinished)?;
    let layout = Layout { state: unfinished.clone() };
    let made = layout.make().and_then(|()| File::create(unfinished.join("lock")));
    let taken = made.map_err(|source| at(&unfinished, source)).and_then(|_| join(&unfinished));
    let state = folder(name);
    let renamed = taken.and_then(|tenancy| match std::fs::rename(&unfinished, &state) {
        Ok(()) => Ok(tenancy),
        Err(_) if state.exists() => Err(StateError::Exists(name.to_owned())),
        Err(source) => Err(at(&state, source)),
    });
    match renamed {
        Ok(tenancy) => Ok((Layout { state }, tenancy)),
        Err(error) => {
            if let Err(left) = std::fs::remove_dir_all(&unfinished) {
                tracing::warn!(%left, folder = %unfinished.display(), "is left");
            }
            Err(error)
        }
    }
}

/// Whether `name` can be the name of a lab.
///
/// # Errors
/// When it cannot.
pub fn check_name(name: &str) -> Result<(), StateError> {
    if names::is_label(name) && name.len() <= MAX_NAME {
        Ok(())
    } else {
        Err(StateError::Name(name.to_owned()))
    }
}

/// Names of the labs that live; removes what is left of those that died.
///
/// # Errors
/// When what is left cannot be removed.
pub fn sweep() -> Result<Vec<String>, StateError> {
    sweep_in(&root())
}

fn sweep_in(root: &Path) -> Result<Vec<String>, StateError> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(at(root, source)),
    };
    let mut living = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if lives(&entry.path(), &name) {
            if !name.starts_with('.') {
                living.push(name);
            }
        } else {
            remove(&entry.path())?;
        }
    }
    living.sort();
    // Not empty: somebody lives there.
    let _left = std::fs::remove_dir(root);
    Ok(living)
}

fn lives(folder: &Path, name: &str) -> bool {
    if name.starts_with('.') && is_young(folder) {
        // Being made: the lock comes before the name.
        return true;
    }
    File::open(folder.join("lock"))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
}

fn is_young(folder: &Path) -> bool {
    let made = std::fs::metadata(folder).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < UNFINISHED))
}

/// Removes a dead lab's folder, and the folder of all labs with the last of them.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove(state: &Path) -> Result<(), StateError> {
    node::remove_state(state).map_err(|error| at(state, io::Error::other(error.to_string())))?;
    if let Some(root) = state.parent() {
        // Not empty: other labs live there.
        let _left = std::fs::remove_dir(root);
    }
    Ok(())
}

/// Makes a folder in the folder of all labs. That one goes with the last lab, which may be just
/// now: then it is made again.
fn make_in_root(folder: &Path) -> Result<(), StateError> {
    loop {
        make_private(&root())?;
        match make_private(folder) {
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
    }
}

/// Makes a folder that only its owner can enter; one that is there must be such.
fn make_private(path: &Path) -> Result<(), StateError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(at(path, source)),
    }
    let metadata = std::fs::symlink_metadata(path).map_err(|source| at(path, source))?;
    if metadata.is_dir() && metadata.uid() == getuid().as_raw() && metadata.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(StateError::Foreign(path.to_owned()))
    }
}

fn at(path: &Path, source: io::Error) -> StateError {
    StateError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::{check_name, join, sweep_in};
    use std::fs::File;

    #[test]
    fn names_are_bounded() {
        assert!(check_name("demo-1").is_ok());
        for bad in ["", "../x", "A", "a/b", ".a", &"a".repeat(49)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_dead_are_swept_and_the_living_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("labs");
        for name in ["dead", "alive", "locked-never"] {
            std::fs::create_dir_all(root.join(name).join("logs")).unwrap();
        }
        for name in ["dead", "alive"] {
            File::create(root.join(name).join("lock")).unwrap();
        }
        std::fs::create_dir(root.join(".young.1")).unwrap();
        let tenancy = join(&root.join("alive")).unwrap();
        assert_eq!(sweep_in(&root).unwrap(), ["alive"]);
        assert!(!root.join("dead").exists() && !root.join("locked-never").exists());
        assert!(root.join(".young.1").exists());
        drop(tenancy);
        std::fs::remove_dir(root.join(".young.1")).unwrap();
        assert!(sweep_in(&root).unwrap().is_empty());
        assert!(!root.exists());
    }
}
