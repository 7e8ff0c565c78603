//! The images that `make images` wrote: each program starts in a root folder that holds its image
//! and nothing else, and says nothing of the machine it was built on. `LATEEN_IMAGES` names the
//! folder of the archives.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

struct Unpacked {
    root: tempfile::TempDir,
    config: Value,
}

fn archive(name: &str) -> PathBuf {
    let folder = std::env::var_os("LATEEN_IMAGES").expect("LATEEN_IMAGES names target/images");
    PathBuf::from(folder).join(format!("{name}.tar"))
}

fn member(archive: &Path, wanted: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(File::open(archive).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap() == Path::new(wanted)).unwrap();
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Unpacks the layers, in the order in which a runtime does.
fn unpack(name: &str) -> Unpacked {
    let archive = archive(name);
    let root = tempfile::tempdir().unwrap();
    let listed: Value = serde_json::from_slice(&member(&archive, "manifest.json")).unwrap();
    for layer in listed[0]["Layers"].as_array().unwrap() {
        let bytes = member(&archive, layer.as_str().unwrap());
        let mut layer = tar::Archive::new(bytes.as_slice());
        layer.set_preserve_mtime(false);
        layer.unpack(root.path()).unwrap();
    }
    let config = member(&archive, listed[0]["Config"].as_str().unwrap());
    Unpacked { root, config: serde_json::from_slice::<Value>(&config).unwrap()["config"].clone() }
}

impl Unpacked {
    /// Runs a program with the image as its root folder.
    fn run(&self, program: &str, arguments: &[&str], env: &[(&str, &str)]) -> Output {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--root"]).arg(self.root.path());
        command.arg(program).args(arguments).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(env.iter().copied());
        command.output().unwrap()
    }

    fn says(&self, program: &str, arguments: &[&str], wanted: &str) {
        let output = self.run(program, arguments, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(wanted), "{program}: {output:?}");
    }

    fn entrypoint(&self) -> &str {
        self.config["Entrypoint"][0].as_str().unwrap()
    }
}

#[test]
#[ignore = "reads the archives of make images"]
fn the_control_plane_starts_from_its_image() {
    let image = unpack("pilot");
    image.says(image.entrypoint(), &["--help"], "Usage: lateend");
    assert_eq!(image.config["User"], "1337:1337");
}

#[test]
#[ignore = "reads the archives of make images"]
fn proxy_and_init_start_from_one_image() {
    let image = unpack("proxyv2");
    image.says(image.entrypoint(), &["--help"], "Usage: lateen-proxy");
    // As the injected init container names it.
    image.says("lateen-init", &["--help"], "Usage: lateen-init");
    assert_eq!(image.config["User"], "1337:1337");
}

#[test]
#[ignore = "reads the archives of make images"]
fn agent_and_plugin_start_from_one_image() {
    let image = unpack("install-cni");
    image.says(image.entrypoint(), &["--help"], "Usage: lateen-cni-node");
    let output = image.run("/opt/cni/bin/lateen-cni", &[], &[("CNI_COMMAND", "VERSION")]);
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let supported = version["supportedVersions"].as_array().unwrap();
    assert!(supported.iter().any(|version| version == "1.1.0"), "{version}");
}

#[test]
#[ignore = "reads the archives of make images"]
fn programs_do_not_name_the_builders_folders() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (name, folder) in
        [("pilot", "usr/local/bin"), ("proxyv2", "usr/local/bin"), ("install-cni", "opt/cni/bin")]
    {
        let image = unpack(name);
        for program in fs::read_dir(image.root.path().join(folder)).unwrap() {
            let program = program.unwrap().path();
            let bytes = fs::read(&program).unwrap();
            for trace in [format!("{}/", checkout.display()), "/registry/src/index.".to_owned()] {
                let at = bytes.windows(trace.len()).position(|part| part == trace.as_bytes());
                let seen = at.map(|at| {
                    let end = bytes.len().min(at + 150);
                    String::from_utf8_lossy(&bytes[at.saturating_sub(50)..end]).into_owned()
                });
                let renamed = trace.starts_with("/registry")
                    && seen.as_deref().is_some_and(|seen| seen.contains("/cargo/registry"));
                assert!(seen.is_none() || renamed, "{}: {seen:?}", program.display());
            }
        }
    }
}
