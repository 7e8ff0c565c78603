//! Files that appear complete or not at all: temporary file, fsync, rename, fsync of the folder.
//!
//! Knows nothing of what is in them. What goes wrong names the file and leaves nothing behind.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::choose::Found;
use super::conflist::{Form, MAX_FILE};

/// A file could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}: {source}{advice}", advice = advice(step, source))]
pub struct FileError {
    /// What was done.
    pub step: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Step of reading the program that is installed.
pub(super) const READ_PROGRAM: &str = "reading the plugin to install,";

fn advice(step: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        _ if step == READ_PROGRAM => " (the image of the node agent has it; see --plugin)",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (the node's disk is full: make room, it is tried again)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            " (mount the folder writable, or name the one that this node uses: values cniBinDir and cniConfDir of the chart)"
        }
        io::ErrorKind::PermissionDenied => {
            " (the folder is not root's, or SELinux forbids it: see the chart's securityContext)"
        }
        io::ErrorKind::NotFound => {
            " (name the folders of this node: values cniBinDir and cniConfDir of the chart)"
        }
        _ => "",
    }
}

pub(super) fn failed<'a>(
    step: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> FileError + use<'a> {
    move |source| FileError { step, path: path.to_owned(), source }
}

/// The configuration files of a folder, and the one of the name `also`, which need not look like one.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(folder: &Path, also: Option<&str>) -> Result<Vec<Found>, FileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("listing", folder))? {
        let entry = entry.map_err(failed("listing", folder))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_one = Form::of(&name).is_some() || also == Some(name.as_str());
        if !is_one || entry.path().is_dir() {
            continue;
        }
        let (text, age) = match read(&entry.path()) {
            // Gone since it was listed.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => (Err(e.to_string()), Duration::MAX),
            Ok((text, written)) => {
                // A clock that was set back makes a file of the future: that one is new.
                (text, SystemTime::now().duration_since(written).unwrap_or_default())
            }
        };
        found.push(Found { name, text, age });
    }
    Ok(found)
}

fn read(path: &Path) -> io::Result<(Result<String, String>, SystemTime)> {
    // A pipe or device would block whoever opens it.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Ok((Err("it is no regular file".to_owned()), SystemTime::UNIX_EPOCH));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    let text = if bytes.len() as u64 > MAX_FILE {
        Err(format!("it is longer than {MAX_FILE} bytes"))
    } else {
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
    };
    Ok((text, about.modified()?))
}

/// Where a file that replaces another takes owner and mode from.
#[derive(Debug, Clone, Copy)]
pub enum Like<'a> {
    /// From this file.
    File(&'a Path),
    /// Root's, with this mode.
    Mode(u32),
}

/// Writes a file whole, or leaves what was there.
///
/// # Errors
/// When a step fails; nothing half-written stays.
pub fn write(path: &Path, content: &[u8], like: Like<'_>) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // One name for all attempts, so that none is left by one that was killed.
    let hidden = folder.join(format!(".lateen-{name}.new"));
    let result = fill(&hidden, content, like)
        .map_err(failed("writing", path))
        .and_then(|()| fs::rename(&hidden, path).map_err(failed("replacing", path)))
        .and_then(|()| sync(folder).map_err(failed("writing", folder)));
    if result.is_err() {
        fs::remove_file(&hidden).ok();
    }
    result
}

fn fill(path: &Path, content: &[u8], like: Like<'_>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    let mode = match like {
        Like::Mode(mode) => mode,
        Like::File(model) => {
            let about = fs::metadata(model)?;
            if (about.uid(), about.gid()) != (0, 0) {
                fchown(&file, Some(about.uid()), Some(about.gid()))?;
            }
            about.permissions().mode() & 0o7777
        }
    };
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Removes a file; one that is not there is removed.
///
/// # Errors
/// When it stays.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("removing", path)(e)),
        Err(_) => Ok(()),
        Ok(()) => {
            let folder = path.parent().unwrap_or_else(|| Path::new("/"));
            sync(folder).map_err(failed("removing", path))
        }
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
