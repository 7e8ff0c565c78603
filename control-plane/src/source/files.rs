//! Reads the files of a configuration directory.
//!
//! Takes `*.yaml`, `*.yml` and `*.json` at any depth, leaves out hidden files and directories (a
//! ConfigMap volume keeps its generations in those) and follows links. A file whose size, time
//! and inode are as before is not read again. Blocking: call it off the async threads.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_api::stream::MAX_TEXT;
use thiserror::Error;

/// Deepest directory that is looked into; links could lead in circles.
const MAX_DEPTH: usize = 16;

/// Texts by path below the directory, or why one could not be read.
pub type Files = BTreeMap<String, Result<Arc<str>, ReadFailure>>;

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot be read: {0}")]
pub struct ReadFailure(pub String);

/// Reads a directory again and again.
#[derive(Debug)]
pub(super) struct Reader {
    root: PathBuf,
    known: BTreeMap<PathBuf, (Stamp, Arc<str>)>,
}

/// What changes when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Reader {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, known: BTreeMap::new() }
    }

    /// All files, sorted by path.
    ///
    /// # Errors
    /// When the directory itself cannot be listed.
    pub(super) fn read(&mut self) -> std::io::Result<Files> {
        let mut paths = Vec::new();
        list(&self.root, 0, &mut paths)?;
        let mut files = Files::new();
        let mut known = BTreeMap::new();
        for path in paths {
            let name = path.strip_prefix(&self.root).unwrap_or(&path).display().to_string();
            match self.one(&path) {
                Ok((stamp, text)) => {
                    files.insert(name, Ok(Arc::clone(&text)));
                    known.insert(path, (stamp, text));
                }
                // Gone between listing and reading: it was removed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    files.insert(name, Err(ReadFailure(error.to_string())));
                }
            }
        }
        self.known = known;
        Ok(files)
    }

    fn one(&self, path: &Path) -> std::io::Result<(Stamp, Arc<str>)> {
        let metadata = std::fs::metadata(path)?;
        let stamp = Stamp::from(&metadata);
        if let Some((known, text)) = self.known.get(path)
            && *known == stamp
        {
            return Ok((stamp, Arc::clone(text)));
        }
        if usize::try_from(metadata.len()).is_ok_and(|size| size > MAX_TEXT) {
            let message = format!("larger than {MAX_TEXT} bytes");
            return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
        }
        Ok((stamp, std::fs::read_to_string(path)?.into()))
    }
}

fn list(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // A link that leads nowhere is no file.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                match list(&path, depth + 1, paths) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
        } else if metadata.is_file() && is_configuration(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::Reader;

    #[test]
    fn configuration_is_found_at_any_depth_but_not_where_it_is_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("pods/..data")).unwrap();
        for name in ["b.yml", "a.yaml", "pods/p.json", "pods/..data/x.yaml", ".y.yaml", "readme.md"]
        {
            std::fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("link.yaml")).unwrap();
        let mut reader = Reader::new(root.to_owned());
        let files = reader.read().unwrap();
        let names: Vec<&String> = files.keys().collect();
        assert_eq!(names, ["a.yaml", "b.yml", "pods/p.json"]);
        assert_eq!(files["a.yaml"].as_deref(), Ok("a.yaml"));
    }

    #[test]
    fn a_change_is_seen_and_a_file_that_is_no_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, "1").unwrap();
        let mut reader = Reader::new(folder.path().to_owned());
        assert_eq!(reader.read().unwrap()["a.yaml"].as_deref(), Ok("1"));
        std::fs::write(&file, "2").unwrap();
        assert_eq!(reader.read().unwrap()["a.yaml"].as_deref(), Ok("2"));
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(reader.read().unwrap()["a.yaml"].is_err());
        std::fs::remove_file(&file).unwrap();
        assert!(reader.read().unwrap().is_empty());
    }
}
