//! The demo: every claim holds, also when two run at once, and nothing is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::lab::{Remains, binaries, text};

fn demo(report: &Path) -> Command {
    let mut command = Command::new(binaries().join("lateen"));
    command.arg("demo").arg("--report").arg(report).stdin(Stdio::null());
    command
}

fn every_claim_holds(output: &Output, report: &Path) {
    assert!(output.status.success(), "{}", text(output));
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let claims = report["claims"].as_array().unwrap();
    assert!(claims.len() >= 14, "{report}");
    assert!(claims.iter().all(|claim| claim["ok"] == true), "{report}");
    let seconds = report["seconds"].as_f64().unwrap();
    println!("demo: {} claims hold in {seconds:.1} s", claims.len());
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn the_demo_holds_and_leaves_nothing() {
    let before = Remains::now();
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = demo(&report).output().unwrap();
    every_claim_holds(&output, &report);
    before.nothing_came();
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn two_demos_run_side_by_side() {
    let before = Remains::now();
    let folder = tempfile::tempdir().unwrap();
    let reports = [folder.path().join("a.json"), folder.path().join("b.json")];
    let start = |report: &PathBuf| {
        demo(report).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let running = reports.each_ref().map(start);
    for (child, report) in running.into_iter().zip(&reports) {
        every_claim_holds(&child.wait_with_output().unwrap(), report);
    }
    before.nothing_came();
}
