//! Runs a test in a fresh network namespace, with root's rights inside it.
//!
//! The test binary runs itself again under `unshare`, for that one test. Where that is not
//! possible the test fails and says what is missing; it is never skipped.
#![expect(clippy::panic, reason = "a test that panics has failed")]

use std::process::Command;

const INSIDE: &str = "LATEEN_TEST_INSIDE_NETNS";

/// True inside a fresh network namespace. Outside it runs the test of this name there, panics when
/// that fails, and returns false: the caller then has nothing left to do.
///
/// # Panics
/// When the test fails inside, or namespaces cannot be made.
#[must_use]
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt;
        m.uid() == 0
    });
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]);
    if !root {
        // Several user ids are needed: rules tell the proxy by its own.
        command.args(["--user", "--map-auto", "--map-root-user"]);
    }
    let binary = std::env::current_exe().expect("a test binary has a path");
    command.arg("--").arg(binary).args(["--exact", test, "--include-ignored"]);
    command.args(["--nocapture", "--test-threads=1"]);
    let output = command.env(INSIDE, "1").output().unwrap_or_else(|e| {
        panic!("cannot run unshare: {e}; install util-linux");
    });
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success(),
        "{test} failed in its network namespace (without root this needs the packages util-linux \
         and uidmap, and unprivileged user namespaces):\n{text}"
    );
    assert!(text.contains("1 passed"), "there is no test named {test}:\n{text}");
    false
}
