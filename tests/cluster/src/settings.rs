//! What the environment says, and where things are. The only place of this crate that reads either.

use std::env;
use std::path::{Path, PathBuf};

/// Where programs that were built are kept where `LATEEN_CACHE` names no folder.
const CACHE: &str = "/var/tmp/lateen-cache";

/// Folder of what outlives a checkout: programs built from Go modules.
#[must_use]
pub fn cache() -> PathBuf {
    env::var_os("LATEEN_CACHE").map_or_else(|| PathBuf::from(CACHE), PathBuf::from)
}

/// The checkout this was built in.
#[must_use]
pub fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_owned()
}

/// Folder of Lateen's own programs: `LATEEN_BIN`, or where this program was built.
#[must_use]
pub fn own_programs() -> PathBuf {
    if let Some(folder) = env::var_os("LATEEN_BIN") {
        return PathBuf::from(folder);
    }
    let own = env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or(&own);
    // Test programs lie one folder deeper.
    let deps = folder.file_name().is_some_and(|name| name == "deps");
    folder.parent().filter(|_| deps).unwrap_or(folder).to_owned()
}

/// A program on `PATH`, or where system programs are when `PATH` does not say so.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from);
    let mut folders = env::split_paths(&path).chain(system);
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}
