//! The workload's certificate as files: `cert-chain.pem`, `key.pem`, `root-cert.pem`.
//!
//! For applications that serve and call with it themselves, and look at the files from time to time, as
//! the `file_watcher` of gRPC libraries does. Names and modes are those of Istio's agent
//! (`OutputKeyCertToDir` in `security/pkg/nodeagent/util`). Must not know where certificates come from.

use super::authority::Issued;
use super::files::Staged;
use crate::settings::CertificateFolder;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Certificate and intermediates, leaf first.
const CHAIN: &str = "cert-chain.pem";
/// Private key.
const KEY: &str = "key.pem";
/// Roots of the mesh.
const ROOTS: &str = "root-cert.pem";
/// For this user alone.
const OWN: u32 = 0o600;
/// For the applications of the pod, whatever user they are.
const SHARED: u32 = 0o644;

/// Why the files are not those of the certificate in force.
#[derive(Debug, Error)]
#[error("{}: {source}; mount a volume there that this user can write to", path.display())]
pub struct FilesError {
    path: PathBuf,
    source: io::Error,
}

/// What the files shall say.
pub struct CertificateFiles {
    chain: String,
    key: String,
    roots: String,
}

/// The paths of the files in a folder: chain, key, roots.
#[must_use]
pub fn paths(folder: &Path) -> [PathBuf; 3] {
    [CHAIN, KEY, ROOTS].map(|name| folder.join(name))
}

impl CertificateFiles {
    /// Of what the authority gave.
    #[must_use]
    pub fn of(issued: &Issued) -> Self {
        let lines = |pem: &String| format!("{}\n", pem.trim_end());
        Self {
            chain: issued.chain.iter().map(lines).collect(),
            key: issued.key.to_pem(),
            roots: lines(&issued.roots),
        }
    }

    /// Puts them in place: all are written first, then key and chain are swapped one right after the
    /// other. What is there is not looked at, since applications could have put it there.
    ///
    /// # Errors
    /// What could not be written. Then what was there stays, but for files that were swapped before.
    pub fn write(&self, to: &CertificateFolder) -> Result<(), FilesError> {
        let mode = if to.shared { SHARED } else { OWN };
        let [chain, key, roots] = paths(&to.folder);
        let mut staged = Vec::with_capacity(3);
        for (path, text) in [(roots, &self.roots), (key, &self.key), (chain, &self.chain)] {
            match Staged::new(&path, text.as_bytes(), mode) {
                Ok(new) => staged.push((path, new)),
                Err(source) => return Err(FilesError { path, source }),
            }
        }
        for (path, new) in staged {
            new.put().map_err(|source| FilesError { path, source })?;
        }
        Ok(())
    }
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateFiles")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn files(number: u32) -> CertificateFiles {
        CertificateFiles {
            chain: format!("chain {number}\n"),
            key: format!("key {number}\n"),
            roots: "roots\n".to_owned(),
        }
    }

    fn read(folder: &Path) -> [String; 3] {
        paths(folder).map(|path| std::fs::read_to_string(path).unwrap())
    }

    #[test]
    fn they_are_replaced_whole_and_nothing_is_left_beside() {
        let folder = tempfile::tempdir().unwrap();
        let to = CertificateFolder { folder: folder.path().to_owned(), shared: false };
        files(1).write(&to).unwrap();
        assert_eq!(read(folder.path()), ["chain 1\n", "key 1\n", "roots\n"]);
        let inode = || std::fs::metadata(folder.path().join(KEY)).unwrap().ino();
        let first = inode();
        files(2).write(&to).unwrap();
        assert_eq!(read(folder.path()), ["chain 2\n", "key 2\n", "roots\n"]);
        assert_ne!(inode(), first, "a reader that has the old one open reads it to its end");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn the_key_is_for_this_user_alone_but_in_a_pod() {
        for (shared, expected) in [(false, 0o600), (true, 0o644)] {
            let folder = tempfile::tempdir().unwrap();
            files(1)
                .write(&CertificateFolder { folder: folder.path().to_owned(), shared })
                .unwrap();
            for path in paths(folder.path()) {
                let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, expected, "{}", path.display());
            }
        }
    }

    #[test]
    fn what_others_put_in_the_way_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("theirs");
        std::fs::write(&theirs, "theirs").unwrap();
        for name in ["key.pem", "key.pem.new"] {
            symlink(&theirs, folder.path().join(name)).unwrap();
        }
        let to = CertificateFolder { folder: folder.path().to_owned(), shared: true };
        files(1).write(&to).unwrap();
        assert_eq!(read(folder.path())[1], "key 1\n");
        assert_eq!(std::fs::read_to_string(theirs).unwrap(), "theirs");
    }

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let in_the_way = folder.path().join("cert-chain.pem.new");
        std::fs::create_dir(&in_the_way).unwrap();
        let to = CertificateFolder { folder: folder.path().to_owned(), shared: true };
        let error = files(1).write(&to).unwrap_err().to_string();
        assert!(error.contains("cert-chain.pem"), "{error}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        std::fs::remove_dir(in_the_way).unwrap();
        files(2).write(&to).unwrap();
        assert_eq!(read(folder.path())[1], "key 2\n");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let to = CertificateFolder { folder: folder.path().join("none"), shared: true };
        let error = files(1).write(&to).unwrap_err().to_string();
        assert!(error.contains("none/root-cert.pem"), "{error}");
    }
}
