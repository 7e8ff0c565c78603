//! Programs of others: Kubernetes and Helm, built from the Go modules of this folder and kept in a
//! cache, and what Debian packages.
//!
//! A cached program is found again by a hash of its module's files, without asking Go.

mod build;

use std::path::{Path, PathBuf};

use crate::{ClusterError, settings};

pub use build::GoProgram;

/// A version of Kubernetes. The cluster runs [`Version::V1_36`]; of others there is the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// An older one.
    V1_34,
    /// That of the test cluster.
    V1_36,
    /// A newer one.
    V1_37,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V1_34, Self::V1_36, Self::V1_37];

    /// As its release is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_34 => "v1.34.4",
            Self::V1_36 => "v1.36.3",
            Self::V1_37 => "v1.37.2",
        }
    }

    fn minor(self) -> &'static str {
        self.name().split('.').nth(1).unwrap_or_default()
    }

    fn program(self) -> GoProgram {
        let package = "k8s.io/component-base/version";
        let mut symbols = vec![
            (format!("{package}.gitVersion"), self.name().to_owned()),
            (format!("{package}.gitMajor"), "1".to_owned()),
            (format!("{package}.gitMinor"), self.minor().to_owned()),
        ];
        symbols.sort();
        let (module, names) = match self {
            Self::V1_34 => ("kube-apiserver/v1.34", &KUBERNETES[..1]),
            Self::V1_36 => ("kubernetes", &KUBERNETES[..]),
            Self::V1_37 => ("kube-apiserver/v1.37", &KUBERNETES[..1]),
        };
        GoProgram { module: module_folder(module), names: names.to_vec(), symbols }
    }
}

/// What the one program of Kubernetes is called to be each of them.
const KUBERNETES: [&str; 6] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
];

/// Folder with the programs of Kubernetes: of [`Version::V1_36`] all, of others `kube-apiserver`.
///
/// # Errors
/// When Go cannot build them.
pub async fn kubernetes(version: Version) -> Result<PathBuf, ClusterError> {
    built(version.program()).await
}

/// `kubectl`.
///
/// # Errors
/// When Go cannot build it.
pub async fn kubectl() -> Result<PathBuf, ClusterError> {
    Ok(kubernetes(Version::V1_36).await?.join("kubectl"))
}

/// `helm`.
///
/// # Errors
/// When Go cannot build it.
pub async fn helm() -> Result<PathBuf, ClusterError> {
    let program =
        GoProgram { module: module_folder("helm"), names: vec!["helm"], symbols: Vec::new() };
    Ok(built(program).await?.join("helm"))
}

/// Folder with CoreDNS.
///
/// # Errors
/// When Go cannot build it.
pub(crate) async fn coredns() -> Result<PathBuf, ClusterError> {
    let program =
        GoProgram { module: module_folder("coredns"), names: vec!["coredns"], symbols: Vec::new() };
    built(program).await
}

/// A program of Lateen, built beside this one or named by `LATEEN_BIN`.
///
/// # Errors
/// When it has not been built.
pub fn lateen(name: &str) -> Result<PathBuf, ClusterError> {
    let program = settings::own_programs().join(name);
    if program.is_file() {
        return Ok(program);
    }
    let program = program.display().to_string();
    Err(ClusterError::Missing { program, fix: "cargo build, or name its folder in LATEEN_BIN" })
}

/// A program of the machine.
pub(crate) fn machine(name: &str) -> Result<PathBuf, ClusterError> {
    let fix = match name {
        "etcd" => "apt-get install etcd-server",
        "containerd" | "ctr" => "apt-get install containerd",
        "runc" => "apt-get install runc",
        "iptables" => "apt-get install iptables",
        "nft" => "apt-get install nftables",
        "ip" => "apt-get install iproute2",
        "busybox" => "apt-get install busybox-static",
        _ => "apt-get install util-linux",
    };
    let missing = || ClusterError::Missing { program: name.to_owned(), fix };
    settings::find_program(name).ok_or_else(missing)
}

fn module_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

async fn built(program: GoProgram) -> Result<PathBuf, ClusterError> {
    let work = tokio::task::spawn_blocking(move || program.folder(&settings::cache()));
    work.await.map_err(|error| ClusterError::Other(format!("building a program: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn the_versions_are_those_of_the_modules() {
        for version in Version::ALL {
            let module = version.program().module.join("go.mod");
            let text = std::fs::read_to_string(module).unwrap();
            assert!(text.contains(&format!("k8s.io/kubernetes {}", version.name())), "{version:?}");
        }
    }
}
