//! The images of Lateen: which there are, and the whole way from source to archives.

mod contents;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

pub use contents::{BINARIES, Kind, base};
pub use table::table;

use crate::oci::{self, Image, OciError, Reference};
use crate::statics::{Statics, StaticsError};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How programs are built.
    pub statics: Statics,
    /// Folder of the archives.
    pub out: PathBuf,
    /// Registry and path, `ghcr.io/lateen-mesh`.
    pub hub: String,
    /// Tag.
    pub tag: String,
    /// Age of all files, in seconds since 1970.
    pub epoch: u64,
}

/// An archive that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Which image.
    pub kind: Kind,
    /// Its name, `HUB/NAME:TAG`.
    pub reference: Reference,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes of its files, not compressed.
    pub size: u64,
    /// The archive.
    pub archive: PathBuf,
}

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// Programs cannot be built.
    #[error(transparent)]
    Statics(#[from] StaticsError),
    /// Archives cannot be written.
    #[error(transparent)]
    Oci(#[from] OciError),
}

/// Builds the programs and writes one archive an image.
///
/// # Errors
/// When cargo fails or an archive cannot be written.
pub fn build(request: &Request) -> Result<Vec<Built>, ImagesError> {
    // Before the long work: a name that cannot be is said at once.
    for kind in Kind::ALL {
        request.reference(kind)?;
    }
    let programs = request.statics.build(&BINARIES)?;
    Ok(assemble(request, &programs)?)
}

/// Writes the archives from programs that were built already, in the folder `programs`.
///
/// # Errors
/// When a program is missing or an archive cannot be written.
pub fn assemble(request: &Request, programs: &Path) -> Result<Vec<Built>, OciError> {
    let etc = request.statics.root.join("images/etc");
    let mut built = Vec::new();
    for kind in Kind::ALL {
        let reference = request.reference(kind)?;
        let image = Image {
            reference: reference.clone(),
            layers: vec![base(&etc)?, kind.layer(programs)?],
            config: kind.config(&request.tag),
        };
        let archive = request.out.join(format!("{}.tar", kind.name()));
        for written in oci::write(&[image], request.epoch, &archive)? {
            let size = fs::metadata(&archive).map_or(written.size, |metadata| metadata.len());
            let archive = archive.clone();
            let reference = written.reference;
            built.push(Built { kind, reference, digest: written.digest, size, archive });
        }
    }
    Ok(built)
}

impl Request {
    fn reference(&self, kind: Kind) -> Result<Reference, OciError> {
        Reference::parse(&format!("{}/{}:{}", self.hub, kind.name(), self.tag))
    }
}
