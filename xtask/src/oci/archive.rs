//! Writes the archive: blobs named by their digests, and the documents that lead to them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use tar::{Builder, EntryType};

use super::documents::{self, Blob};
use super::layer::{LayerError, header};
use super::{Image, Layer, OciError, Reference};

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its name.
    pub reference: Reference,
    /// Digest of its manifest, `sha256:...`: what a registry will call it.
    pub digest: String,
    /// Bytes of its layers.
    pub size: u64,
}

/// Writes `images` into the archive `path`; all or nothing. `epoch` is the age of all that is in
/// it, in seconds since 1970.
///
/// # Errors
/// When a file of an image cannot be read, or the archive not written.
pub fn write(images: &[Image], epoch: u64, path: &Path) -> Result<Vec<Written>, OciError> {
    let failed = |source| OciError::Write { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut blobs = Blobs { epoch, ..Blobs::default() };
    let mut parts = Vec::new();
    for image in images {
        parts.push(blobs.add(image, folder).map_err(|error| match error {
            LayerProblem::Ours(error) => error,
            LayerProblem::Io(source) => failed(source),
        })?);
    }
    let file = tempfile::Builder::new().prefix(".image-").tempfile_in(folder).map_err(failed)?;
    let out = write_all(file, images, &parts, blobs).map_err(failed)?;
    use std::os::unix::fs::PermissionsExt;
    out.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    out.persist(path).map_err(|error| failed(error.error))?;
    let written = images.iter().zip(&parts).map(|(image, parts)| Written {
        reference: image.reference.clone(),
        digest: parts.manifest.digest(),
        size: parts.layers.iter().map(|layer| layer.size).sum(),
    });
    Ok(written.collect())
}

struct Parts {
    manifest: Blob,
    config: Blob,
    layers: Vec<Blob>,
}

enum LayerProblem {
    Ours(OciError),
    Io(io::Error),
}

enum Bytes {
    Memory(Vec<u8>),
    Disk(File),
}

#[derive(Default)]
struct Blobs {
    /// By digest: what is equal is there once, and the order is given.
    by_digest: BTreeMap<String, (Blob, Bytes)>,
    /// Layers that were written already.
    layers: Vec<(Layer, Blob)>,
    epoch: u64,
}

impl Blobs {
    fn add(&mut self, image: &Image, folder: &Path) -> Result<Parts, LayerProblem> {
        let mut layers = Vec::new();
        for layer in &image.layers {
            layers.push(self.layer(layer, folder)?);
        }
        let config = documents::config(&image.config, &layers, self.epoch);
        let config = self.memory(config.map_err(LayerProblem::Ours)?);
        let manifest = self.memory(documents::manifest(&config, &layers));
        Ok(Parts { manifest, config, layers })
    }

    fn layer(&mut self, layer: &Layer, folder: &Path) -> Result<Blob, LayerProblem> {
        if let Some((_, blob)) = self.layers.iter().find(|(known, _)| known == layer) {
            return Ok(blob.clone());
        }
        let file = tempfile::tempfile_in(folder).map_err(LayerProblem::Io)?;
        let mut out = Hashed { file, hash: Context::new(&SHA256), size: 0 };
        layer.write(&mut out, self.epoch).map_err(|error| match error {
            LayerError::Read(path, source) => LayerProblem::Ours(OciError::Read { path, source }),
            LayerError::Write(source) => LayerProblem::Io(source),
        })?;
        let blob = Blob { sha256: hex(out.hash.finish().as_ref()), size: out.size };
        out.file.rewind().map_err(LayerProblem::Io)?;
        self.by_digest.insert(blob.sha256.clone(), (blob.clone(), Bytes::Disk(out.file)));
        self.layers.push((layer.clone(), blob.clone()));
        Ok(blob)
    }

    fn memory(&mut self, bytes: Vec<u8>) -> Blob {
        let digest = aws_lc_rs::digest::digest(&SHA256, &bytes);
        let blob = Blob { sha256: hex(digest.as_ref()), size: bytes.len() as u64 };
        self.by_digest.insert(blob.sha256.clone(), (blob.clone(), Bytes::Memory(bytes)));
        blob
    }
}

fn write_all<W: Write>(out: W, images: &[Image], parts: &[Parts], blobs: Blobs) -> io::Result<W> {
    let mut tar = Tar { tar: Builder::new(out), epoch: blobs.epoch };
    let named = || images.iter().map(|image| &image.reference).zip(parts);
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    for (blob, bytes) in blobs.by_digest.into_values() {
        match bytes {
            Bytes::Memory(bytes) => tar.file(&blob.path(), bytes.as_slice(), blob.size)?,
            Bytes::Disk(file) => tar.file(&blob.path(), file, blob.size)?,
        }
    }
    let index: Vec<_> = named().map(|(name, parts)| (name, &parts.manifest)).collect();
    tar.document("index.json", &documents::index(&index))?;
    let docker =
        documents::docker(named().map(|(n, parts)| (n, &parts.config, parts.layers.as_slice())));
    tar.document("manifest.json", &docker)?;
    tar.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut out = tar.tar.into_inner()?;
    out.flush()?;
    Ok(out)
}

struct Tar<W: Write> {
    tar: Builder<W>,
    epoch: u64,
}

impl<W: Write> Tar<W> {
    fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = header(0o755, self.epoch);
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        self.tar.append_data(&mut header, path, io::empty())
    }

    fn file(&mut self, path: &str, bytes: impl Read, size: u64) -> io::Result<()> {
        let mut header = header(0o644, self.epoch);
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        self.tar.append_data(&mut header, path, bytes)
    }

    fn document(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(path, bytes, bytes.len() as u64)
    }
}

/// A file that is hashed and measured while it is written.
struct Hashed {
    file: File,
    hash: Context,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
