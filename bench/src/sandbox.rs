//! Running in namespaces of one's own: everything that is measured lives in a network, mount
//! and process namespace that ends with the benchmark.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::bail;

/// Set in the process that runs inside.
const MARK: &str = "LATEEN_BENCH_INSIDE";

/// Whether this process is the one inside.
pub(crate) fn inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs this program again inside, with the same arguments; returns only when that fails.
pub(crate) fn enter() -> anyhow::Result<ExitCode> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    if !nix_is_root() {
        // Root inside, with subordinate ids so that user 1337 exists.
        command.args(["--user", "--map-root-user", "--map-auto"]);
    }
    let error = command
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    bail!("unshare (util-linux 2.38 or later) cannot be run: {error}")
}

fn nix_is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
    })
}
