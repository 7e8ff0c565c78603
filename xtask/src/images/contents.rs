//! What is in each image and how it is run. The files `images/Dockerfile.*` say the same.

use std::collections::BTreeMap;
use std::path::Path;

use crate::oci::{Config, Layer, OciError};

/// All programs that are in images.
pub const BINARIES: [&str; 5] =
    ["lateend", "lateen-proxy", "lateen-init", "lateen-cni", "lateen-cni-node"];

/// Files of `/etc` that are in every image: names of users, and how hosts are found.
const ETC: [&str; 3] = ["group", "nsswitch.conf", "passwd"];
/// Where programs are.
const BIN: &str = "/usr/local/bin";
/// Where the plugin waits to be copied to the node.
const PLUGINS: &str = "/opt/cni/bin";

/// An image of Lateen, under the name Istio's charts know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The control plane.
    Pilot,
    /// Sidecar, gateway and init container.
    Proxyv2,
    /// CNI plugin and node agent.
    InstallCni,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pilot, Self::Proxyv2, Self::InstallCni];

    /// Last part of its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pilot => "pilot",
            Self::Proxyv2 => "proxyv2",
            Self::InstallCni => "install-cni",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Pilot => "Lateen's control plane",
            Self::Proxyv2 => "Lateen's sidecar and gateway, and its init container",
            Self::InstallCni => "Lateen's CNI plugin and node agent",
        }
    }

    /// Programs on the path; the first is the entry point.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Pilot => &["lateend"],
            Self::Proxyv2 => &["lateen-proxy", "lateen-init"],
            Self::InstallCni => &["lateen-cni-node"],
        }
    }

    /// The layer of its programs, taken from the folder `programs`.
    pub(super) fn layer(self, programs: &Path) -> Result<Layer, OciError> {
        let mut layer = Layer::new();
        for program in self.programs() {
            layer = layer.file(&format!("{BIN}/{program}"), 0o755, &programs.join(program))?;
        }
        if self == Self::InstallCni {
            let plugin = "lateen-cni";
            layer = layer.file(&format!("{PLUGINS}/{plugin}"), 0o755, &programs.join(plugin))?;
        }
        Ok(layer)
    }

    pub(super) fn config(self, tag: &str) -> Config {
        let labels = [
            ("title", self.name()),
            ("description", self.describe()),
            ("version", tag),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("source", env!("CARGO_PKG_REPOSITORY")),
        ];
        let label = |(key, value): (&str, &str)| {
            (format!("org.opencontainers.image.{key}"), value.to_owned())
        };
        // The node agent writes where only root may; the others have nothing to write at all.
        let user = if self == Self::InstallCni { "0:0" } else { "1337:1337" };
        Config {
            entrypoint: self
                .programs()
                .first()
                .map(|it| format!("{BIN}/{it}"))
                .into_iter()
                .collect(),
            cmd: Vec::new(),
            user: user.to_owned(),
            env: path(),
            working_dir: "/".to_owned(),
            labels: labels.map(label).into(),
        }
    }
}

/// `PATH`, so that `command: [lateen-init]` is found.
fn path() -> BTreeMap<String, String> {
    [("PATH".to_owned(), format!("{BIN}:/usr/bin:/bin"))].into()
}

/// The layer that is below all images: the files of `etc`.
///
/// # Errors
/// When a path cannot be in an image.
pub fn base(etc: &Path) -> Result<Layer, OciError> {
    ETC.iter().try_fold(Layer::new(), |layer, name| {
        layer.file(&format!("/etc/{name}"), 0o644, &etc.join(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// The words behind `keyword` on each line of the last stage.
    fn said(dockerfile: &str, keyword: &str) -> Vec<Vec<String>> {
        let (_, last) = dockerfile.rsplit_once("FROM scratch").unwrap();
        let lines = last.lines().filter_map(|line| line.strip_prefix(keyword));
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn dockerfiles_say_the_same() {
        for kind in Kind::ALL {
            let name = kind.name();
            let path = format!("{}/../images/Dockerfile.{name}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let config = kind.config("1");
            let one = |keyword| said(&text, keyword).concat().join(" ");
            assert_eq!(one("USER "), config.user, "{name}");
            assert_eq!(one("WORKDIR "), config.working_dir, "{name}");
            assert_eq!(one("ENV PATH="), config.env["PATH"], "{name}");
            let entry = serde_json::to_string(&config.entrypoint).unwrap();
            assert_eq!(one("ENTRYPOINT "), entry, "{name}");
            let mut layer = Layer::new();
            for words in said(&text, "COPY --from=build ") {
                let program = words[0].rsplit('/').next().unwrap();
                let from = PathBuf::from("/programs").join(program);
                layer = layer.file(&words[1], 0o755, &from).unwrap();
            }
            assert_eq!(layer, kind.layer(Path::new("/programs")).unwrap(), "{name}");
        }
    }

    #[test]
    fn every_program_is_in_an_image_and_every_image_of_built_programs() {
        let mut all: Vec<&str> =
            Kind::ALL.iter().flat_map(|kind| kind.programs()).copied().collect();
        all.push("lateen-cni");
        all.sort_unstable();
        let mut built = BINARIES;
        built.sort_unstable();
        assert_eq!(all, built);
    }
}
