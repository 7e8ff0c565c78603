//! However a lab ends, nothing of it is left.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Lab, Remains, SHOP, binaries, lateen};

/// Longest time an end may take.
const PATIENCE: Duration = Duration::from_secs(15);

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn a_killed_lab_takes_everything_with_it() {
    let before = Remains::now();
    let lab = Lab::up("killed", &["-f", SHOP]);
    assert!(before.since().processes.len() > 10, "lateend, node agent, proxies, applications");
    kill(Pid::from_raw(lab.daemon()), Signal::SIGKILL).unwrap();
    until("processes outlive their lab", || before.since().processes.is_empty());
    // The next command removes what a process can no longer remove.
    let listed = lateen(&["lab", "ls", "--name", &lab.0]);
    assert!(!listed.status.success(), "a dead lab is not listed");
    before.nothing_came();
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn an_interrupted_lab_ends_itself() {
    let before = Remains::now();
    let mut command = Command::new(binaries().join("lateen"));
    command.args(["lab", "up", "--name", "interrupted", "-f", SHOP]);
    let mut up =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the lab does not come up", || {
        let processes = before.since().processes;
        processes.iter().filter(|it| it.ends_with("lateen-proxy")).count() >= 4
    });
    kill(Pid::from_raw(up.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    up.wait().unwrap();
    before.nothing_came();
}
