//! Files that others read while they are replaced: each is there whole, the old one or the new one.
//!
//! Not made durable: the agent writes them anew when it starts. Must not know what is in them.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A new version of a file, written beside it under another name.
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
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(Self { beside, path: path.to_owned() })
    }

    /// Puts it in the place of what is there.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub(in crate::agent) fn put(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)
    }
}
