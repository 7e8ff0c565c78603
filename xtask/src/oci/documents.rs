//! The JSON documents of an image and of an archive. Pure; numbers and digests come in.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Config, OciError, Reference};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A blob of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// SHA-256, in hexadecimal.
    pub(super) sha256: String,
    /// Length in bytes.
    pub(super) size: u64,
}

impl Blob {
    pub(super) fn digest(&self) -> String {
        format!("sha256:{}", self.sha256)
    }

    /// Where it lies in the archive.
    pub(super) fn path(&self) -> String {
        format!("blobs/sha256/{}", self.sha256)
    }
}

/// What a registry calls this machine's kind.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The configuration of an image. Layers are not compressed, so their digests are their
/// `diff_ids`.
pub(super) fn config(config: &Config, layers: &[Blob], epoch: u64) -> Result<Vec<u8>, OciError> {
    let bad = || OciError::Epoch(epoch);
    let seconds = i64::try_from(epoch).map_err(|_| bad())?;
    let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| bad())?;
    let created = time.format(&Rfc3339).map_err(|_| bad())?;
    let env = config.env.iter().map(|(name, value)| format!("{name}={value}"));
    let history = layers.iter().map(|_| json!({"created": created, "created_by": "cargo xtask"}));
    let document = json!({
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": config.user,
            "Env": env.collect::<Vec<_>>(),
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "WorkingDir": config.working_dir,
            "Labels": config.labels,
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(Blob::digest).collect::<Vec<_>>(),
        },
        "history": history.collect::<Vec<_>>(),
    });
    Ok(document.to_string().into_bytes())
}

/// The manifest of an image: its configuration and its layers.
pub(super) fn manifest(config: &Blob, layers: &[Blob]) -> Vec<u8> {
    let document = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
    });
    document.to_string().into_bytes()
}

/// The entry point of an archive for OCI readers.
pub(super) fn index(images: &[(&Reference, &Blob)]) -> Vec<u8> {
    let manifests = images.iter().map(|(reference, blob)| {
        let mut entry = descriptor(MANIFEST, blob);
        entry.insert("platform".to_owned(), json!({"architecture": architecture(), "os": "linux"}));
        let annotations = json!({
            "io.containerd.image.name": reference.as_str(),
            "org.opencontainers.image.ref.name": reference.tag(),
        });
        entry.insert("annotations".to_owned(), annotations);
        Value::Object(entry)
    });
    let document = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests.collect::<Vec<_>>(),
    });
    document.to_string().into_bytes()
}

/// The entry point of an archive for `docker load`.
pub(super) fn docker<'a>(
    images: impl Iterator<Item = (&'a Reference, &'a Blob, &'a [Blob])>,
) -> Vec<u8> {
    let images = images.map(|(reference, config, layers)| {
        json!({
            "Config": config.path(),
            "RepoTags": [reference.as_str()],
            "Layers": layers.iter().map(Blob::path).collect::<Vec<_>>(),
        })
    });
    Value::Array(images.collect()).to_string().into_bytes()
}

fn descriptor(kind: &str, blob: &Blob) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("mediaType".to_owned(), kind.into());
    map.insert("digest".to_owned(), blob.digest().into());
    map.insert("size".to_owned(), blob.size.into());
    map
}
