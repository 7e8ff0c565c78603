//! Packets through the rules of `lateen-init`, judged against those of others by their comparator,
//! which sends them.
//!
//! Cases and comparator are not part of this project: `LATEEN_CONFORMANCE` names their folder, and
//! `make test` runs this where it does. It needs python3.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::path::PathBuf;
use std::process::Command;

use lateen_testkit::netns::inside;

#[test]
#[ignore = "reads files of others: make test"]
fn packets_go_where_those_of_others_go() {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let folder = PathBuf::from(root).join("interception");
    assert!(folder.is_dir(), "{} is missing: set LATEEN_CONFORMANCE", folder.display());
    if !inside("packets_go_where_those_of_others_go") {
        return;
    }
    let output = Command::new("python3")
        .args(["oracle.py", "--ours", env!("CARGO_BIN_EXE_lateen-init")])
        .current_dir(&folder)
        .output()
        .expect("python3 runs: apt-get install python3");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{}:\n{text}", output.status);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("interception: 25/25 cases, "), "{text}");
    assert!(last.ends_with(" probes, 0 differences"), "{text}");
}
