//! Files that others read while they are replaced: each is there whole, the old one or the new one.
//!
//! Not made durable: the agent writes them anew when it starts. Must not know what is in them.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Takes a file away, if it is there.
///
/// # Errors
/// When it stays.
pub(in crate::agent) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A new version of a file, written beside it under another name; taken away if it is not put in place.
#[derive(Debug)]
pub(in crate::agent) struct Staged {
    beside: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Writes what shall be at `path`. Others can write to the folder too: what they put in the way is
    /// taken away, never followed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(in crate::agent) fn new(path: &Path, text: &[u8], mode: u32) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let beside = path.with_file_name(name);
        remove(&beside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let staged = Self { beside, path: path.to_owned() };
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(staged)
    }

    /// Puts it in the place of what is there.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(in crate::agent) fn put(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Once put it is not there; one that cannot be taken away is so when it is written again.
        let _gone = remove(&self.beside);
    }
}
