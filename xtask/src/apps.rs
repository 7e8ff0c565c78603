//! Images of sample applications, so that manifests can be applied as they were published where
//! their images cannot be had: what a manifest names is made, of our echo application. It answers on
//! the ports the manifest declares, with the app and version of the pod's labels, and asks the
//! services the original asks.

mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use read::{App, read};

use crate::images;
use crate::oci::{self, Config, Image, Layer, OciError, Reference, Written};

/// Where programs are, in every image of an application.
const BIN: &str = "/usr/local/bin";
/// The application and its client, in every image under its own name.
const ECHO: &str = "lateen-echo";
/// What published manifests and people at `kubectl exec` call.
const APPLETS: [&str; 12] = [
    "cat", "date", "env", "grep", "hostname", "id", "ls", "nslookup", "sh", "sleep", "true", "wget",
];

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub enum AppsError {
    /// A manifest that cannot be read.
    #[error("manifest {number} is not YAML: {message}")]
    Manifest {
        /// Which of those that were given, from 1.
        number: usize,
        /// What is wrong.
        message: String,
    },
    /// No busybox, for shells and `sleep`.
    #[error("no static busybox at {}: install the package busybox-static", .0.display())]
    Busybox(PathBuf),
    /// An image cannot be made.
    #[error(transparent)]
    Oci(#[from] OciError),
}

/// What images of applications are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// `images/etc` of the checkout.
    pub etc: PathBuf,
    /// Folder with a static `lateen-echo`, of [`crate::statics::Statics::build`].
    pub programs: PathBuf,
    /// A static busybox, such as `/bin/busybox` of Debian's busybox-static.
    pub busybox: PathBuf,
    /// Age of all files, in seconds since 1970.
    pub epoch: u64,
}

/// Makes an image of every name in `manifests` and writes them into one archive.
///
/// # Errors
/// When a manifest is not YAML, a part is missing or the archive cannot be written.
pub fn write(parts: &Parts, manifests: &[&str], archive: &Path) -> Result<Vec<Written>, AppsError> {
    let layers = parts.layers()?;
    let mut images = Vec::new();
    for (name, app) in read(manifests)? {
        let config = config(&app);
        images.push(Image { reference: Reference::parse(&name)?, layers: layers.clone(), config });
    }
    Ok(oci::write(&images, parts.epoch, archive)?)
}

impl Parts {
    fn layers(&self) -> Result<Vec<Layer>, AppsError> {
        if !self.busybox.is_file() {
            return Err(AppsError::Busybox(self.busybox.clone()));
        }
        let mut tools = Layer::new().file("/bin/busybox", 0o755, &self.busybox)?;
        for applet in APPLETS {
            tools = tools.link(&format!("/bin/{applet}"), "busybox")?;
        }
        let echo = Layer::new().file(&format!("{BIN}/{ECHO}"), 0o755, &self.programs.join(ECHO))?;
        Ok(vec![images::base(&self.etc)?, tools.directory("/tmp", 0o1777)?, echo])
    }
}

/// Stays until it is told to end: a first process without a handler is not ended by SIGTERM.
const STAY: [&str; 3] = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep infinity & wait"];

/// Without ports there is nothing to serve, but the container stays.
fn config(app: &App) -> Config {
    let mut words = vec![format!("{BIN}/{ECHO}"), "serve".to_owned()];
    for port in &app.ports {
        words.extend(["--port".to_owned(), port.to_string()]);
    }
    // Long enough that callers have learnt of the end, as Kubernetes asks of applications.
    words.push("--linger-ms=3000".to_owned());
    words.extend([format!("--app={}", app.app), format!("--version={}", app.version)]);
    words.extend(app.calls.iter().flat_map(|call| ["--call".to_owned(), (*call).to_owned()]));
    if app.ports.is_empty() {
        words = STAY.map(str::to_owned).into();
    } else if app.has_args {
        // They were meant for the original: a shell takes them as its own, and leaves them.
        let line = format!("exec {}", words.join(" "));
        words = vec!["/bin/sh".to_owned(), "-c".to_owned(), line];
    }
    Config {
        entrypoint: words,
        user: "1000:1000".to_owned(),
        env: BTreeMap::from([("PATH".to_owned(), format!("{BIN}:/usr/bin:/bin"))]),
        working_dir: "/".to_owned(),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{App, config};

    #[test]
    fn the_entry_point_behaves_as_the_service() {
        let app = App {
            app: "reviews".to_owned(),
            version: "v2".to_owned(),
            ports: [9080].into(),
            calls: vec!["http://ratings:9080/ratings/0"],
            has_args: false,
        };
        let wanted = "/usr/local/bin/lateen-echo serve --port 9080 --linger-ms=3000 --app=reviews \
            --version=v2 --call http://ratings:9080/ratings/0";
        assert_eq!(config(&app).entrypoint.join(" "), wanted);
        let given = App { has_args: true, ..app.clone() };
        assert_eq!(config(&given).entrypoint, ["/bin/sh", "-c", &format!("exec {wanted}")]);
        let silent = App { ports: [].into(), ..app };
        assert_eq!(config(&silent).entrypoint, super::STAY);
    }
}
