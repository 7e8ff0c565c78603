//! The root file system of a container: the machine's own folders under a layer that takes all
//! writes, with its own `/proc`, `/sys`, `/dev`, `/tmp` and `/run`, and its volumes.

mod devices;
mod place;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};

use super::{Container, Failed, Mount};
use place::resolve;

const NONE: Option<&str> = None;
/// Folders that a container does not share with the machine.
const OWN: [&str; 5] = ["proc", "sys", "dev", "tmp", "run"];
/// Parts of `/proc` that are those of the whole machine.
const MACHINE: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// Folders below which other file systems are looked for: programs may be on them.
const WITH_MOUNTS: [&str; 4] = ["/nix", "/usr", "/opt", "/home"];

/// Builds the root file system and makes it that of this process.
pub(super) fn enter(container: &Container) -> Result<(), Failed> {
    mount_at(NONE, Path::new("/"), NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let root = container.work.join("root");
    folder(&root)?;
    mount_at(Some("root"), &root, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755"))?;
    let targets = targets(container)?;
    let etc = container.work.join("upper/etc");
    folder(&etc)?;
    for (name, text) in &container.etc {
        fs::write(etc.join(name), text).map_err(|e| format!("/etc/{name}: {e}"))?;
    }
    for (target, source) in &targets {
        reserve(&container.work, &root, target, source.source.is_dir())?;
    }
    let layers = layers(&container.work, &root)?;
    own(&root)?;
    if !container.privileged {
        for path in MACHINE.map(|name| root.join("proc").join(name)) {
            if path.exists() {
                bind(&path, &path)?;
                read_only(&path)?;
            }
        }
    }
    for (target, source) in &targets {
        bind(&source.source, &root.join(target))?;
    }
    for (target, _) in targets.iter().filter(|(_, source)| source.read_only) {
        read_only(&root.join(target))?;
    }
    if container.read_only {
        for name in layers.iter().map(String::as_str).chain(["tmp", "run", ""]) {
            read_only(&root.join(name))?;
        }
    }
    chdir(&root).and_then(|()| pivot_root(".", ".")).map_err(|e| format!("new root: {e}"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(|e| format!("old root: {e}"))?;
    chdir("/").map_err(|e| format!("new root: {e}"))
}

/// Mounts by the place they have once links are followed, outer ones first.
fn targets(container: &Container) -> Result<Vec<(PathBuf, &Mount)>, Failed> {
    let link = |path: &Path| fs::read_link(path).ok();
    let mut targets = Vec::new();
    for mount in &container.mounts {
        let text = mount.target.display();
        let place = resolve(&mount.target, &OWN, link).ok_or_else(|| {
            format!("mount path {text}: its links cannot be followed, or it is the root itself")
        })?;
        targets.push((place, mount));
    }
    targets.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(targets)
}

/// Makes the place of a mount where the machine does not have it: in the layer of its folder.
fn reserve(work: &Path, root: &Path, target: &Path, is_folder: bool) -> Result<(), Failed> {
    let top = target.iter().next().map(PathBuf::from).unwrap_or_default();
    let is_own = OWN.iter().any(|own| Path::new(own) == top);
    let host = Path::new("/").join(target);
    if is_own || host.exists() {
        return Ok(());
    }
    let base = if Path::new("/").join(&top).is_dir() { work.join("upper") } else { root.into() };
    let mut path = PathBuf::new();
    for part in target.parent().into_iter().flat_map(Path::iter) {
        path.push(part);
        like(&base.join(&path), &Path::new("/").join(&path))?;
    }
    place(&base.join(target), is_folder)
}

/// A folder with the mode and, where possible, the owner of another.
fn like(folder: &Path, other: &Path) -> Result<(), Failed> {
    if folder.is_dir() {
        return Ok(());
    }
    self::folder(folder)?;
    if let Ok(meta) = fs::metadata(other) {
        let mode = fs::Permissions::from_mode(meta.mode() & 0o7777);
        fs::set_permissions(folder, mode).map_err(|e| format!("{}: {e}", folder.display()))?;
        // Ids of the machine that do not exist here cannot be given.
        drop(chown(folder, Some(meta.uid()), Some(meta.gid())));
    }
    Ok(())
}

/// A layer over each folder of the machine; gives their names.
fn layers(work: &Path, root: &Path) -> Result<Vec<String>, Failed> {
    let mut layers = Vec::new();
    for entry in fs::read_dir("/").map_err(|e| format!("/: {e}"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, target) = (entry.path(), root.join(&name));
        let kind = entry.file_type().map_err(|e| format!("{}: {e}", path.display()))?;
        if OWN.contains(&name.as_str()) || (!kind.is_dir() && !kind.is_symlink()) {
            continue;
        }
        if kind.is_symlink() {
            let to = fs::read_link(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            symlink(to, &target).map_err(|e| format!("{}: {e}", target.display()))?;
            continue;
        }
        folder(&target)?;
        layer(work, &path, &target)?;
        layers.push(name);
    }
    let mounted = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for path in mounted.lines().filter_map(|line| line.split(' ').nth(1)) {
        if WITH_MOUNTS.iter().any(|top| Path::new(path).starts_with(top) && path != *top) {
            let target = root.join(path.trim_start_matches('/'));
            // Only more of the machine would be seen.
            drop(bind(Path::new(path), &target).and_then(|()| read_only(&target)));
        }
    }
    Ok(layers)
}

fn layer(work: &Path, path: &Path, target: &Path) -> Result<(), Failed> {
    let name = path.file_name().unwrap_or_default();
    let (upper, scratch) = (work.join("upper").join(name), work.join("scratch").join(name));
    like(&upper, path)?;
    folder(&scratch)?;
    let plain = [path, &upper, &scratch]
        .iter()
        .all(|path| !path.as_os_str().as_encoded_bytes().iter().any(|byte| b",:\\".contains(byte)));
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        path.display(),
        upper.display(),
        scratch.display()
    );
    let overlay = mount_at(
        Some("overlay"),
        target,
        Some("overlay"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(&options),
    );
    match overlay {
        Ok(()) if plain => Ok(()),
        // A file system that layers do not work over is shown as it is, without the right to write.
        _ => bind(path, target).and_then(|()| read_only(target)),
    }
}

/// What a container does not share with the machine.
fn own(root: &Path) -> Result<(), Failed> {
    for name in OWN {
        folder(&root.join(name))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("proc"), &root.join("proc"), Some("proc"), flags, NONE)?;
    let sys = root.join("sys");
    mount_at(Some("sysfs"), &sys, Some("sysfs"), flags | MsFlags::MS_RDONLY, NONE)
        .or_else(|_| bind(Path::new("/sys"), &sys))?;
    for (name, mode) in [("tmp", "mode=1777"), ("run", "mode=0755")] {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount_at(Some(name), &root.join(name), Some("tmpfs"), flags, Some(mode))?;
    }
    devices::make(&root.join("dev"))
}

fn bind(source: &Path, target: &Path) -> Result<(), Failed> {
    if !target.exists() {
        // In a volume that is mounted already, as container runtimes do.
        let parent = target.parent().unwrap_or(target);
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        place(target, source.is_dir())?;
    }
    mount_at(Some(source), target, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
}

fn read_only(target: &Path) -> Result<(), Failed> {
    let text = target.display();
    let has = statvfs(target).map_err(|e| format!("{text}: {e}"))?.flags();
    // What an outer user namespace has locked must be said again.
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    flags.set(MsFlags::MS_NOSUID, has.contains(FsFlags::ST_NOSUID));
    flags.set(MsFlags::MS_NODEV, has.contains(FsFlags::ST_NODEV));
    flags.set(MsFlags::MS_NOEXEC, has.contains(FsFlags::ST_NOEXEC));
    flags.set(MsFlags::MS_NOATIME, has.contains(FsFlags::ST_NOATIME));
    flags.set(MsFlags::MS_NODIRATIME, has.contains(FsFlags::ST_NODIRATIME));
    flags.set(MsFlags::MS_RELATIME, has.contains(FsFlags::ST_RELATIME));
    mount(NONE, target, NONE, flags, NONE).map_err(|e| format!("{text} read-only: {e}"))
}

fn place(path: &Path, is_folder: bool) -> Result<(), Failed> {
    if is_folder {
        return folder(path);
    }
    fs::File::create(path).map(drop).map_err(|e| format!("{}: {e}", path.display()))
}

fn folder(path: &Path) -> Result<(), Failed> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|e| format!("{}: {e}", path.display()))
}

fn mount_at<P: nix::NixPath + ?Sized>(
    source: Option<&P>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Failed> {
    mount(source, target, kind, flags, options).map_err(|e| {
        format!("mounting {} at {}: {e}", kind.unwrap_or("a folder"), target.display())
    })
}
