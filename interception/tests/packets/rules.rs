//! Rules that are set, changed, looked at and taken away.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lateen_interception::settings::{DnsCapture, Mode, PortSelection, RangeSelection};
use lateen_interception::{RedirectPlan, Settings, State, apply, verify};
use lateen_testkit::netns::inside;

use crate::carrier::On;
use crate::world::{everything, nothing_is_left, run};

pub(crate) fn rules_are_replaced_verified_and_removed(on: On) {
    run("ip link set lo up");
    run("nft add table inet foreign");
    run("nft add chain inet foreign kept");
    let first = RedirectPlan::new(&everything());
    // An ordinary user's iptables-nft does not get more into its socket.
    let ranges = if on == On::Nftables { 1000u32 } else { 200 };
    let second = RedirectPlan::new(&Settings {
        mode: Mode::Tproxy,
        dns: DnsCapture::Servers(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
        inbound_ports: PortSelection::Only((1000..4000).collect()),
        outbound_ranges: RangeSelection::Only(
            (0..ranges)
                .map(|n| ipnet::Ipv4Net::new((n << 16).into(), 17).unwrap().into())
                .collect(),
        ),
        drop_invalid: true,
        ..Settings::default()
    });
    assert_eq!(on.verify(&first).unwrap(), State::Absent);
    for _ in 0..2 {
        for plan in [&first, &first, &second, &second] {
            on.apply(plan).unwrap();
            assert_eq!(on.verify(plan).unwrap(), State::Planned);
            let other = if plan == &first { &second } else { &first };
            assert!(matches!(on.verify(other).unwrap(), State::Differs(_)));
        }
    }
    on.cleanup().unwrap();
    on.cleanup().unwrap();
    assert_eq!(on.verify(&first).unwrap(), State::Absent);
    run("nft list chain inet foreign kept");
    let left = Command::new("ip").args(["rule"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains("fwmark"));
}

pub(crate) fn two_at_once_leave_the_rules_of_one(on: On) {
    run("ip link set lo up");
    let plan = RedirectPlan::new(&everything());
    for _ in 0..on.rounds(50) {
        on.cleanup().unwrap();
        thread::scope(|scope| {
            let both = [scope.spawn(|| on.apply(&plan)), scope.spawn(|| on.apply(&plan))];
            for done in both {
                done.join().unwrap().unwrap();
            }
        });
        assert_eq!(on.verify(&plan).unwrap(), State::Planned);
    }
}

#[test]
fn a_changed_rule_is_named() {
    if !inside("rules::a_changed_rule_is_named") {
        return;
    }
    run("ip link set lo up");
    let plan = RedirectPlan::new(&everything());
    for (change, word) in [
        ("nft insert rule inet lateen nat-output accept", "rule 1"),
        ("nft add rule inet lateen nat-output accept", "is not planned"),
        ("nft flush chain inet lateen nat-prerouting", "missing"),
        ("nft add chain inet lateen more", "chains"),
        ("nft add set inet lateen more { type inet_service; }", "set more"),
        ("ip -6 addr del ::6/128 dev lo", "::6"),
    ] {
        apply(&plan).unwrap();
        run(change);
        match verify(&plan).unwrap() {
            State::Differs(text) => assert!(text.contains(word), "{change}: {text}"),
            other => panic!("{change}: {other:?}"),
        }
    }
}

#[test]
fn a_killed_run_leaves_the_old_rules_or_the_new_ones() {
    if !inside("rules::a_killed_run_leaves_the_old_rules_or_the_new_ones") {
        return;
    }
    run("ip link set lo up");
    let init = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen-init"));
        command.args(["-b", "*", "-i", "*"]).args(more).stderr(std::process::Stdio::null());
        command
    };
    let sets: [&[&str]; 2] = [&["-o", "9,10,11"], &["-m", "TPROXY", "--drop-invalid"]];
    let listing = || {
        let output = Command::new("nft").args(["-s", "list", "table", "inet", "lateen"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let mut longest = Duration::ZERO;
    let known = sets.map(|flags| {
        let start = Instant::now();
        assert!(init(flags).status().unwrap().success());
        longest = longest.max(start.elapsed());
        listing()
    });
    let (mut now, mut stayed, mut changed) = (1, 0, 0);
    for n in 0..120 {
        let other = 1 - now;
        let mut running = init(sets[other]).spawn().unwrap();
        // From at once to after its end; the last ones are let go on.
        if n < 110 {
            thread::park_timeout(longest * n / 90);
            running.kill().unwrap();
        }
        running.wait().unwrap();
        let found = listing();
        if found == known[now] {
            stayed += 1;
        } else {
            assert_eq!(found, known[other], "neither the old rules nor the new ones");
            changed += 1;
            now = other;
        }
    }
    assert!(stayed > 0 && changed > 9, "{stayed} stayed, {changed} changed");
    for flags in sets {
        assert!(init(flags).status().unwrap().success());
        assert!(init(&[flags, &["--verify"]].concat()).status().unwrap().success());
    }
    assert!(init(&["--cleanup"]).status().unwrap().success());
    nothing_is_left();
}

#[test]
fn what_is_refused_changes_nothing() {
    if !inside("rules::what_is_refused_changes_nothing") {
        return;
    }
    run("ip link set lo up");
    let init = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen-init"));
        let done = command.args(["-b", "*", "-i", "*"]).args(args).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    assert_eq!(init(&[]).0, Some(0));
    let ports: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    for (args, words) in [
        (["-o", ports.join(",").as_str()], "--istio-local-outbound-ports-exclude: more than 4096"),
        (["-x", "10.0.0.0/33"], "--istio-service-exclude-cidr: \"10.0.0.0/33\""),
        (["-q", "65536"], "--istio-outbound-ports: \"65536\""),
        (["-c", "eth0; reboot"], "--istio-exclude-interfaces"),
    ] {
        let (code, error) = init(&args);
        assert!(code == Some(1) && error.contains(words), "{error}");
        assert_eq!(init(&["--verify"]).0, Some(0));
    }
}
