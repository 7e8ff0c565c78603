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
    if inside("packets_go_where_those_of_others_go") {
        compare(&[]);
    }
}

#[test]
#[ignore = "reads files of others: make test"]
fn so_they_do_by_iptables() {
    if inside("so_they_do_by_iptables") {
        compare(&["--backend", "iptables"]);
    }
}

#[test]
#[ignore = "reads files of others: make test"]
fn so_they_do_by_legacy_iptables() {
    if !inside("so_they_do_by_legacy_iptables") {
        return;
    }
    let tables = Command::new("iptables-legacy").args(["-t", "nat", "-S"]).output();
    if tables.expect("iptables runs: apt-get install iptables").status.success() {
        compare(&["--backend", "iptables", "--force-iptables-binary", "legacy"]);
    } else {
        println!("NOT RUN: this kernel has no legacy iptables");
    }
}

/// Compares the packets of all cases, with these flags.
fn compare(flags: &[&str]) {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let folder = PathBuf::from(root).join("interception");
    assert!(folder.is_dir(), "{} is missing: set LATEEN_CONFORMANCE", folder.display());
    let mut command = Command::new("python3");
    // What the comparator itself knows of, and what is handed on to the program.
    let (known, own) = flags.split_at(flags.len().min(2));
    let program = [env!("CARGO_BIN_EXE_lateen-init")].iter().chain(own).copied();
    let program: Vec<&str> = program.collect();
    command.args(["oracle.py", "--ours", &program.join(" ")]).args(known);
    let output = command.current_dir(&folder).output();
    let output = output.expect("python3 runs: apt-get install python3");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{}:\n{text}", output.status);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("interception: 25/25 cases, "), "{text}");
    assert!(last.ends_with(" probes, 0 differences"), "{text}");
}
