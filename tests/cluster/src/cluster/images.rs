//! The images every node has: the first container of pods, busybox, CoreDNS. Written as archives
//! from static programs of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use xtask::oci::{self, Config, Image, Layer, OciError, Reference};

use super::documents::PAUSE;
use crate::{ClusterError, binaries};

/// A shell for tests.
pub const BUSYBOX: &str = "lateen.test/busybox:1";
/// CoreDNS.
const COREDNS: &str = "lateen.test/coredns:1";
/// Programs of busybox that tests call by name.
const APPLETS: [&str; 12] = [
    "cat", "echo", "false", "httpd", "kill", "ls", "nc", "nslookup", "sh", "sleep", "true", "wget",
];

/// Writes the archive into `folder`.
pub(super) async fn write(folder: &Path) -> Result<PathBuf, ClusterError> {
    let busybox = binaries::machine("busybox")?;
    let coredns = binaries::coredns().await?.join("coredns");
    let archive = folder.join("node-images.tar");
    let written = images(&busybox, &coredns).and_then(|images| oci::write(&images, 0, &archive));
    written.map_err(|error| ClusterError::Other(error.to_string()))?;
    Ok(archive)
}

fn images(busybox: &Path, coredns: &Path) -> Result<Vec<Image>, OciError> {
    let mut shell = Layer::new().file("/bin/busybox", 0o755, busybox)?.directory("/tmp", 0o1777)?;
    for applet in APPLETS {
        shell = shell.link(&format!("/bin/{applet}"), "busybox")?;
    }
    let dns = Layer::new().file("/coredns", 0o755, coredns)?;
    Ok(vec![
        image(PAUSE, shell.clone(), &["/bin/busybox", "sleep", "2147483647"])?,
        image(BUSYBOX, shell, &["/bin/sh"])?,
        image(COREDNS, dns, &["/coredns"])?,
    ])
}

fn image(name: &str, layer: Layer, entrypoint: &[&str]) -> Result<Image, OciError> {
    let config = Config {
        entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
        env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        ..Config::default()
    };
    Ok(Image { reference: Reference::parse(name)?, layers: vec![layer], config })
}
