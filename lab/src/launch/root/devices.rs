//! `/dev` of a container.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::mount::MsFlags;

use super::{Failed, bind, folder, mount_at, place};

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the devices every program expects.
pub(super) fn make(dev: &Path) -> Result<(), Failed> {
    // Devices can be used where they are bound from; none that a container makes.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount_at(Some("dev"), dev, Some("tmpfs"), flags, Some("mode=0755"))?;
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        if source.exists() {
            place(&dev.join(name), false)?;
            bind(&source, &dev.join(name))?;
        }
    }
    for (name, to) in LINKS {
        symlink(to, dev.join(name)).map_err(|e| format!("/dev/{name}: {e}"))?;
    }
    for name in ["pts", "shm"] {
        folder(&dev.join(name))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let options = Some("newinstance,ptmxmode=0666,mode=0620");
    mount_at(Some("devpts"), &dev.join("pts"), Some("devpts"), flags, options)?;
    let flags = flags | MsFlags::MS_NODEV;
    mount_at(Some("shm"), &dev.join("shm"), Some("tmpfs"), flags, Some("mode=1777"))?;
    let log = dev.join("termination-log");
    place(&log, false)?;
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666))
        .map_err(|e| format!("{}: {e}", log.display()))
}
