//! One layer: a tree of files in memory, written as a tar whose bytes depend on nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::OciError;

/// Files, directories and links by their path in the image. Directories above a file need not be
/// named: they belong to root and all may read them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    content: Content,
    mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Directory,
    Bytes(Vec<u8>),
    File(PathBuf),
    Link(String),
}

impl Layer {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the file `source` of this machine at `path`.
    ///
    /// # Errors
    /// When `path` cannot be in an image or is taken.
    pub fn file(self, path: &str, mode: u32, source: &Path) -> Result<Self, OciError> {
        self.put(path, Entry { content: Content::File(source.to_owned()), mode })
    }

    /// Puts a file with `bytes` at `path`.
    ///
    /// # Errors
    /// When `path` cannot be in an image or is taken.
    pub fn bytes(self, path: &str, mode: u32, bytes: &[u8]) -> Result<Self, OciError> {
        self.put(path, Entry { content: Content::Bytes(bytes.to_owned()), mode })
    }

    /// Puts an empty directory at `path`.
    ///
    /// # Errors
    /// When `path` cannot be in an image or is taken.
    pub fn directory(self, path: &str, mode: u32) -> Result<Self, OciError> {
        self.put(path, Entry { content: Content::Directory, mode })
    }

    /// Puts a symbolic link to `target` at `path`.
    ///
    /// # Errors
    /// When `path` cannot be in an image or is taken.
    pub fn link(self, path: &str, target: &str) -> Result<Self, OciError> {
        self.put(path, Entry { content: Content::Link(target.to_owned()), mode: 0o777 })
    }

    fn put(mut self, path: &str, entry: Entry) -> Result<Self, OciError> {
        let bad = |reason| OciError::Path { path: path.to_owned(), reason };
        let inner = path.strip_prefix('/').ok_or_else(|| bad("it does not begin with `/`"))?;
        if inner.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad("a part of it is empty, `.` or `..`"));
        }
        for (slash, _) in inner.match_indices('/') {
            let above = inner.get(..slash).unwrap_or_default();
            let directory = Entry { content: Content::Directory, mode: 0o755 };
            let there = self.entries.entry(above.to_owned()).or_insert(directory);
            if there.content != Content::Directory {
                return Err(bad("what is above it is not a directory"));
            }
        }
        match self.entries.get_mut(inner) {
            None => drop(self.entries.insert(inner.to_owned(), entry)),
            Some(there) if [&there.content, &entry.content] == [&Content::Directory; 2] => {
                there.mode = entry.mode;
            }
            Some(_) => return Err(bad("it is there already")),
        }
        Ok(self)
    }

    /// Writes the tar. All entries belong to root and are as old as `mtime` says.
    pub(super) fn write(&self, out: impl Write, mtime: u64) -> Result<(), LayerError> {
        let mut tar = Builder::new(out);
        for (path, entry) in &self.entries {
            append(&mut tar, path, entry, mtime)?;
        }
        tar.into_inner().and_then(|mut out| out.flush()).map_err(LayerError::Write)
    }
}

/// What went wrong with a layer: a file of ours, or where it is written.
#[derive(Debug)]
pub(super) enum LayerError {
    Read(PathBuf, io::Error),
    Write(io::Error),
}

fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    entry: &Entry,
    mtime: u64,
) -> Result<(), LayerError> {
    let mut header = header(entry.mode, mtime);
    let written = match &entry.content {
        Content::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            tar.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target)
        }
        Content::Bytes(bytes) => regular(tar, path, header, bytes),
        Content::File(source) => {
            // Whole, so that a file that grows meanwhile does not spoil the archive.
            let bytes =
                fs::read(source).map_err(|error| LayerError::Read(source.clone(), error))?;
            regular(tar, path, header, &bytes)
        }
    };
    written.map_err(LayerError::Write)
}

fn regular(
    tar: &mut Builder<impl Write>,
    path: &str,
    mut header: Header,
    bytes: &[u8],
) -> io::Result<()> {
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

/// A header that says nothing of this machine.
pub(super) fn header(mode: u32, mtime: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(mtime);
    header
}

#[cfg(test)]
mod tests {
    use super::Layer;
    use std::io::Read;

    fn listed(layer: &Layer) -> Vec<(String, u32, u64, String)> {
        let mut bytes = Vec::new();
        layer.write(&mut bytes, 7).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let (mode, mtime) = (entry.header().mode().unwrap(), entry.header().mtime().unwrap());
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (path, mode, mtime, text)
        });
        entries.collect()
    }

    #[test]
    fn a_tree_is_written_in_order_with_what_is_above() {
        let layer = Layer::new()
            .bytes("/usr/local/bin/b", 0o755, b"B")
            .unwrap()
            .bytes("/etc/a", 0o644, b"A")
            .unwrap()
            .directory("/tmp", 0o1777)
            .unwrap();
        let listed = listed(&layer);
        let names: Vec<_> =
            listed.iter().map(|(path, mode, _, _)| (path.as_str(), *mode)).collect();
        let wanted = [
            ("etc/", 0o755),
            ("etc/a", 0o644),
            ("tmp/", 0o1777),
            ("usr/", 0o755),
            ("usr/local/", 0o755),
            ("usr/local/bin/", 0o755),
            ("usr/local/bin/b", 0o755),
        ];
        assert_eq!(names, wanted);
        assert!(listed.iter().all(|(_, _, mtime, _)| *mtime == 7));
        assert_eq!(listed[1].3, "A");
    }

    #[test]
    fn the_order_of_putting_does_not_matter() {
        let a = Layer::new().bytes("/x", 0o644, b"1").unwrap().link("/y", "x").unwrap();
        let b = Layer::new().link("/y", "x").unwrap().bytes("/x", 0o644, b"1").unwrap();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        a.write(&mut first, 0).unwrap();
        b.write(&mut second, 0).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn long_paths_are_kept() {
        let path = format!("/{}/{}", "d".repeat(120), "f".repeat(120));
        let layer = Layer::new().bytes(&path, 0o644, b"x").unwrap();
        assert!(listed(&layer).iter().any(|(listed, ..)| format!("/{listed}") == path));
    }

    #[test]
    fn paths_that_cannot_be_are_refused() {
        for path in ["a", "/", "/a/../b", "/a//b", "/./a", "/a/"] {
            assert!(Layer::new().bytes(path, 0o644, b"").is_err(), "{path}");
        }
        let layer = Layer::new().bytes("/a", 0o644, b"").unwrap();
        assert!(layer.clone().bytes("/a/b", 0o644, b"").is_err());
        assert!(layer.clone().bytes("/a", 0o644, b"").is_err());
        assert!(layer.directory("/a", 0o755).is_err());
    }
}
