//! Archives as readers see them: every blob is what its name says, every document leads to the
//! next, and the same input gives the same bytes.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use xtask::oci::{self, Config, Image, Layer, OciError, Reference};

fn sha256(bytes: &[u8]) -> String {
    let hex =
        digest(&SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

fn unpacked(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    files.collect()
}

/// Two images above one layer, with the programs of `folder`.
fn images(folder: &Path) -> Vec<Image> {
    let shared = Layer::new().file("/bin/server", 0o755, &folder.join("server")).unwrap();
    ["one", "two"]
        .map(|name| {
            let own = Layer::new().bytes("/etc/name", 0o644, name.as_bytes()).unwrap();
            Image {
                reference: Reference::parse(&format!("registry.test/shop/{name}:1.0")).unwrap(),
                layers: vec![shared.clone(), own],
                config: Config {
                    entrypoint: vec!["/bin/server".to_owned(), name.to_owned()],
                    user: "1337:1337".to_owned(),
                    env: [("PATH".to_owned(), "/bin".to_owned())].into(),
                    working_dir: "/".to_owned(),
                    ..Config::default()
                },
            }
        })
        .into()
}

#[test]
fn the_same_input_gives_the_same_bytes_wherever_and_whenever() {
    let write = |epoch| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("server"), b"#!program").unwrap();
        let age = std::time::SystemTime::now() - std::time::Duration::from_secs(epoch + 1000);
        let server = fs::File::options().write(true).open(folder.path().join("server")).unwrap();
        server.set_modified(age).unwrap();
        let archive = folder.path().join("out/images.tar");
        let written = oci::write(&images(folder.path()), epoch, &archive).unwrap();
        (written, fs::read(archive).unwrap())
    };
    assert!(write(0) == write(0));
    let (old, new) = (write(0).0, write(1_700_000_000).0);
    assert_ne!(old[0].digest, new[0].digest, "the epoch is part of the input");
}

#[test]
fn readers_find_every_image_and_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("server"), vec![7; 100_000]).unwrap();
    let archive = folder.path().join("images.tar");
    let written = oci::write(&images(folder.path()), 0, &archive).unwrap();
    let files = unpacked(&archive);
    let json = |path: &str| serde_json::from_slice::<Value>(&files[path]).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = &files[&format!("blobs/{}", digest.replace(':', "/"))];
        assert_eq!(sha256(bytes), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes.as_slice()
    };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = json("index.json");
    let docker = json("manifest.json");
    for (place, name) in ["one", "two"].iter().enumerate() {
        let full = format!("registry.test/shop/{name}:1.0");
        let entry = &index["manifests"][place];
        assert_eq!(entry["annotations"]["io.containerd.image.name"], full.as_str());
        assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.0");
        assert_eq!(entry["digest"], written[place].digest.as_str());
        let manifest: Value = serde_json::from_slice(blob(entry)).unwrap();
        let config: Value = serde_json::from_slice(blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/bin/server", name]));
        assert_eq!(config["config"]["User"], "1337:1337");
        assert_eq!(config["created"], "1970-01-01T00:00:00Z");
        assert_eq!(docker[place]["RepoTags"][0], full.as_str());
        let config_path = docker[place]["Config"].as_str().unwrap();
        assert_eq!(sha256(&files[config_path]), manifest["config"]["digest"]);
        let layers = manifest["layers"].as_array().unwrap();
        for (depth, layer) in layers.iter().enumerate() {
            let bytes = blob(layer);
            assert_eq!(config["rootfs"]["diff_ids"][depth], sha256(bytes).as_str());
            let path = docker[place]["Layers"][depth].as_str().unwrap();
            assert_eq!(files[path], bytes);
        }
        let own = unpacked_bytes(blob(&layers[1]));
        assert_eq!(own["etc/name"], name.as_bytes());
    }
    let blobs =
        files.keys().filter(|path| path.starts_with("blobs/sha256/") && !path.ends_with('/'));
    assert_eq!(blobs.count(), 7, "the layer of both is there once");
}

fn unpacked_bytes(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    unpacked(file.path())
}

#[test]
fn a_missing_program_is_named_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let error = oci::write(&images(folder.path()), 0, &out.join("images.tar")).unwrap_err();
    assert!(matches!(&error, OciError::Read { path, .. } if path.ends_with("server")), "{error}");
    assert!(error.to_string().contains("server"));
    assert_eq!(fs::read_dir(out).unwrap().count(), 0);
}

#[test]
fn a_time_without_a_date_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("server"), b"").unwrap();
    let archive = folder.path().join("images.tar");
    assert!(matches!(
        oci::write(&images(folder.path()), u64::MAX, &archive),
        Err(OciError::Epoch(u64::MAX))
    ));
}
