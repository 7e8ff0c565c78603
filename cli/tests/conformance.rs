//! What the command line says of the cases of others, judged by their own comparators, which run
//! it as a program and know nothing of it.
//!
//! Cases and comparators are not part of this project: `LATEEN_CONFORMANCE` names their folder, and
//! `make test` runs these where it does. They need python3 with the modules of `tests/python.sh`.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::PathBuf;
use std::process::Command;

const LATEEN: &str = env!("CARGO_BIN_EXE_lateen");

/// Runs a comparator of the folder `set`, whose last line must be exactly `verdict`: with fewer
/// cases than there are it would count for nothing.
fn judge(set: &str, arguments: &[&str], verdict: &str) {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let folder = PathBuf::from(root).join(set);
    assert!(folder.is_dir(), "{} is missing: set LATEEN_CONFORMANCE", folder.display());
    let output = Command::new("python3")
        .args(arguments)
        .current_dir(&folder)
        .output()
        .expect("python3 runs: apt-get install python3");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // With `PYTHONPATH="$(tests/python.sh)"` no module is missing.
    let told: Vec<&str> = text.lines().filter(|line| !line.starts_with("PASS ")).collect();
    assert!(output.status.success(), "{set}: {}:\n{}", output.status, told.join("\n"));
    assert_eq!(text.lines().last().unwrap(), verdict, "{}", told.join("\n"));
}

#[test]
#[ignore = "reads files of others: make test"]
fn pods_are_injected_as_in_the_cases() {
    let program = format!("{LATEEN} inject");
    let arguments = ["oracle.py", ".", "--cmd", &program];
    judge("inject", &arguments, "inject: 88/88 cases, 0 violations");
}

#[test]
#[ignore = "reads files of others: make test"]
fn modes_of_mutual_tls_are_explained_as_in_the_cases() {
    judge("peerauth", &["peerauth_oracle.py", "--cmd", LATEEN], "peerauth: 24/24");
}

#[test]
#[ignore = "reads files of others: make test"]
fn samples_are_accepted_as_in_the_cases() {
    judge("samples", &["validate_oracle.py", "--cmd", LATEEN], "samples: 71/71");
}
