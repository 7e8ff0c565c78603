//! OCI image archives, written by ourselves: no container engine, no registry, no clock.
//!
//! One archive is read alike by `ctr images import`, `docker load`, `kind load image-archive` and
//! `skopeo copy oci-archive:`. The same input gives the same bytes: entries are sorted, times are
//! given, layers are not compressed (a registry client compresses when it pushes). It does not know
//! what is in an image.

mod archive;
mod documents;
mod layer;
mod reference;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

pub use archive::{Written, write};
pub use layer::Layer;
pub use reference::Reference;

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A path inside the image that cannot be.
    #[error("`{path}` cannot be in an image: {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A name of an image that runtimes would not find again.
    #[error("`{text}` is not the name of an image: {reason}")]
    Reference {
        /// The name.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file for the image cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("{}: the image archive cannot be written: {source}", .path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// A time no calendar has.
    #[error("{0} seconds since 1970 are not a date of four-digit years; set SOURCE_DATE_EPOCH")]
    Epoch(u64),
}

/// One image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The name it is found by.
    pub reference: Reference,
    /// Its files, lowest layer first. Layers that are equal are stored once in an archive.
    pub layers: Vec<Layer>,
    /// How it is run.
    pub config: Config,
}

/// How an image is run, and what it says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Arguments where none are given.
    pub cmd: Vec<String>,
    /// `uid` or `uid:gid`, numeric so that `runAsNonRoot` can be judged.
    pub user: String,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub working_dir: String,
    /// Labels, `org.opencontainers.image.title` and others.
    pub labels: BTreeMap<String, String>,
}
