//! What a node sees of the machine's files: the machine's, except for folders that are its own.
//!
//! Nothing is written to the machine: folders that a node's programs expect in `/etc`, `/opt` and
//! `/var/lib` are made in memory above the machine's.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::documents::{NETWORKS, PLUGINS};
use crate::ClusterError;

const NONE: Option<&str> = None;

/// Folders that are the machine's with the node's above.
const ABOVE: [&str; 3] = ["/etc", "/opt", "/var/lib"];
/// Folders of the node, by name in its own folder.
const OWN: [(&str, &str); 3] =
    [("kubelet", "/var/lib/kubelet"), ("containerd", "/var/lib/containerd"), ("log", "/var/log")];
/// Where Debian has network plugins.
const MACHINE_PLUGINS: &str = "/usr/lib/cni";
/// Settings of the whole kernel that a kubelet wants otherwise: it is shown these instead.
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Keeps the machine's mounts from seeing ours, and shows the processes of our own namespace.
pub(super) fn holder() -> Result<(), ClusterError> {
    propagation("/", MsFlags::MS_PRIVATE)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE).map_err(|e| failed("/proc", e))
}

/// Makes the mounts of a node whose own folder is `folder`.
pub(super) fn node(folder: &Path) -> Result<(), ClusterError> {
    propagation("/", MsFlags::MS_PRIVATE)?;
    let memory = folder.join("memory");
    make(&memory)?;
    tmpfs(&memory)?;
    for target in ABOVE {
        let name = target.trim_start_matches('/').replace('/', "-");
        above(Path::new(target), &memory.join(name))?;
    }
    tmpfs(Path::new("/run"))?;
    make(Path::new("/run/lock"))?;
    for (name, target) in OWN {
        let source = folder.join(name);
        make(&source)?;
        make(Path::new(target))?;
        bind(&source, Path::new(target))?;
    }
    for (name, value) in TUNABLES {
        let target = Path::new("/proc/sys").join(name);
        let source = memory.join(name.replace('/', "-"));
        fs::write(&source, value).map_err(ClusterError::file(&source))?;
        if target.exists() {
            bind(&source, &target)?;
        }
    }
    make(Path::new(NETWORKS))?;
    plugins()?;
    // Mounts of containerd and kubelets reach containers that ask for them.
    propagation("/", MsFlags::MS_SHARED)
}

/// Whether layers can be stacked in `folder`.
pub(super) fn overlay_works(folder: &Path) -> bool {
    let trial = folder.join("trial");
    let part = |name: &str| {
        let path = trial.join(name);
        fs::create_dir_all(&path).map(|()| path)
    };
    let tried = (|| {
        let (lower, on) = (part("lower")?, part("on")?);
        stack(&lower, &part("upper")?, &part("work")?, &on)?;
        umount2(&on, MntFlags::MNT_DETACH)?;
        Ok::<_, std::io::Error>(())
    })();
    // What cannot be removed goes with the node's folder.
    drop(fs::remove_dir_all(&trial));
    tried.is_ok()
}

/// Whether this machine has network plugins.
pub(super) fn has_plugins() -> Result<(), ClusterError> {
    let program = format!("{MACHINE_PLUGINS}/bridge");
    if Path::new(&program).is_file() {
        return Ok(());
    }
    let fix = "apt-get install containernetworking-plugins";
    Err(ClusterError::Missing { program, fix })
}

/// Network plugins where everybody looks for them.
fn plugins() -> Result<(), ClusterError> {
    make(Path::new(PLUGINS))?;
    let folder = Path::new(MACHINE_PLUGINS);
    let entries = fs::read_dir(folder).map_err(ClusterError::file(folder))?;
    for entry in entries.flatten() {
        let link = Path::new(PLUGINS).join(entry.file_name());
        if !link.exists() {
            let made = std::os::unix::fs::symlink(entry.path(), &link);
            made.map_err(ClusterError::file(&link))?;
        }
    }
    Ok(())
}

/// Puts an empty folder in memory above `target`.
fn above(target: &Path, memory: &Path) -> Result<(), ClusterError> {
    let part = |name: &str| -> Result<PathBuf, ClusterError> {
        let path = memory.join(name);
        make(&path)?;
        Ok(path)
    };
    let (upper, work) = (part("upper")?, part("work")?);
    stack(target, &upper, &work, target).map_err(ClusterError::file(target))
}

fn stack(lower: &Path, upper: &Path, work: &Path, on: &Path) -> std::io::Result<()> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    Ok(mount(Some("overlay"), on, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?)
}

fn make(path: &Path) -> Result<(), ClusterError> {
    fs::create_dir_all(path).map_err(ClusterError::file(path))
}

fn tmpfs(on: &Path) -> Result<(), ClusterError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), on, Some("tmpfs"), flags, Some("mode=0755"))
        .map_err(|e| failed(&on.display().to_string(), e))
}

fn bind(source: &Path, target: &Path) -> Result<(), ClusterError> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|e| failed(&target.display().to_string(), e))
}

fn propagation(on: &str, kind: MsFlags) -> Result<(), ClusterError> {
    mount(NONE, on, NONE, MsFlags::MS_REC | kind, NONE).map_err(|e| failed(on, e))
}

fn failed(what: &str, error: nix::Error) -> ClusterError {
    ClusterError::Other(format!("mounting {what}: {error}"))
}
