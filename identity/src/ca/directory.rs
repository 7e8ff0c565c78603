//! A CA kept in a directory, under the file names Istio uses for plugged-in certificates.
//!
//! What is there is taken over; where nothing is there, a self-signed CA is made. Something in
//! between is an error, never a reason to make a new root.

use super::{Ca, CaError, CaFiles};
use crate::TrustDomain;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use thiserror::Error;

/// Certificate that signs.
pub const CERTIFICATE: &str = "ca-cert.pem";
/// Its key.
pub const KEY: &str = "ca-key.pem";
/// Roots.
pub const ROOTS: &str = "root-cert.pem";
/// From the signing certificate towards the root.
pub const CHAIN: &str = "cert-chain.pem";

/// Why a CA directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Some of the files are missing.
    #[error("{}: {missing} is missing; put it there, or empty the directory to make a new CA", directory.display())]
    Incomplete {
        /// Directory.
        directory: PathBuf,
        /// File name.
        missing: &'static str,
    },
    /// The files do not make a CA.
    #[error("{}: {source}", directory.display())]
    Unusable {
        /// Directory.
        directory: PathBuf,
        /// Why.
        source: CaError,
    },
}

/// Opens the CA of a directory, or makes one where there is none.
///
/// # Errors
/// When files are missing, unreadable or do not make a CA.
pub fn open_or_create(
    directory: &Path,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Ca, DirectoryError> {
    let unusable = |source| DirectoryError::Unusable { directory: directory.into(), source };
    let files = match read(directory)? {
        Some(files) => files,
        None => {
            let files = CaFiles::create(trust_domain, now).map_err(unusable)?;
            write(directory, &files)?;
            files
        }
    };
    Ca::from_files(&files).map_err(unusable)
}

fn read(directory: &Path) -> Result<Option<CaFiles>, DirectoryError> {
    let certificate = read_file(directory, CERTIFICATE)?;
    let key = read_file(directory, KEY)?;
    let roots = read_file(directory, ROOTS)?;
    let chain = read_file(directory, CHAIN)?;
    if certificate.is_none() && key.is_none() && roots.is_none() && chain.is_none() {
        return Ok(None);
    }
    let need = |file: Option<String>, missing| {
        file.ok_or_else(|| DirectoryError::Incomplete { directory: directory.into(), missing })
    };
    Ok(Some(CaFiles {
        certificate: need(certificate, CERTIFICATE)?,
        key: need(key, KEY)?,
        roots: need(roots, ROOTS)?,
        chain: chain.unwrap_or_default(),
    }))
}

fn read_file(directory: &Path, name: &str) -> Result<Option<String>, DirectoryError> {
    let path = directory.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DirectoryError::File { path, source }),
    }
}

fn write(directory: &Path, files: &CaFiles) -> Result<(), DirectoryError> {
    fs::create_dir_all(directory)
        .map_err(|source| DirectoryError::File { path: directory.into(), source })?;
    let all = [
        (KEY, &files.key, 0o600),
        (ROOTS, &files.roots, 0o644),
        (CHAIN, &files.chain, 0o644),
        (CERTIFICATE, &files.certificate, 0o644),
    ];
    for (name, text, mode) in all {
        let path = directory.join(name);
        write_file(&path, text, mode).map_err(|source| DirectoryError::File { path, source })?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}
