//! The cgroups of a cluster: below one of its own in every hierarchy, of either version of cgroups.

use std::fs;
use std::path::{Path, PathBuf};

use super::Plan;
use crate::ClusterError;

const ROOT: &str = "/sys/fs/cgroup";
/// What a kubelet limits.
const CONTROLLERS: &str = "+cpuset +cpu +io +memory +pids +hugetlb";

/// Makes the cgroups of the nodes.
pub(super) fn make(plan: &Plan) -> Result<(), ClusterError> {
    let unified = is_unified();
    for hierarchy in hierarchies() {
        let below = plan.cgroups();
        let cluster = hierarchy.join(below.trim_start_matches('/'));
        let mut folders = vec![cluster.clone()];
        for node in 1..=plan.nodes {
            folders.push(cluster.join(plan.node_name(node)));
        }
        for folder in folders {
            if unified {
                enable(folder.parent().unwrap_or(&hierarchy));
            }
            fs::create_dir_all(&folder).map_err(ClusterError::file(&folder))?;
            inherit_cpus(&folder);
        }
        if unified {
            enable(&cluster);
        }
    }
    Ok(())
}

/// Removes them, the deepest first.
pub(super) fn remove(plan: &Plan) -> Result<(), ClusterError> {
    for hierarchy in hierarchies() {
        remove_tree(&hierarchy.join(plan.cgroups().trim_start_matches('/')))?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> Result<(), ClusterError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder).map_err(ClusterError::file(folder))
}

fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn hierarchies() -> Vec<PathBuf> {
    if is_unified() {
        return vec![PathBuf::from(ROOT)];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path());
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
    folders.filter(|path| path.join("cgroup.procs").exists() && !is_link(path)).collect()
}

/// Lets children of a cgroup be limited; what a machine has no controller for is not limited.
fn enable(folder: &Path) {
    for controller in CONTROLLERS.split(' ') {
        drop(fs::write(folder.join("cgroup.subtree_control"), controller));
    }
}

/// A new cgroup of version 1 has no processors until it is given some.
fn inherit_cpus(folder: &Path) {
    let Some(parent) = folder.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(text) = fs::read_to_string(parent.join(file)) {
            drop(fs::write(folder.join(file), text.trim()));
        }
    }
}
