//! Packets through the rules of `lateen-init`, judged against those of others by their comparator,
//! which sends them; and what is explained of packets, judged against what became of them.
//!
//! Cases and comparator are not part of this project: `LATEEN_CONFORMANCE` names their folder, and
//! `make test` runs this where it does. It needs python3.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use clap::Parser;
use lateen_interception::RedirectPlan;
use lateen_interception::plan::Protocol;
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::trace::{Origin, Packet, Trace, Tracking, Way, trace};
use lateen_testkit::netns::inside;
use serde::Deserialize;

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

fn folder() -> PathBuf {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let folder = PathBuf::from(root).join("interception");
    assert!(folder.is_dir(), "{} is missing: set LATEEN_CONFORMANCE", folder.display());
    folder
}

/// Compares the packets of all cases, with these flags.
fn compare(flags: &[&str]) {
    let folder = folder();
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

/// A case with its probes, as `probes.py` prints it.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    resolv_conf: Vec<IpAddr>,
    probes: Vec<Probe>,
}

#[derive(Debug, Deserialize)]
struct Probe {
    /// `pod`, or a neighbour: `world`, `vm`.
    from: String,
    /// `plain`, or of no connection: `tcp-invalid`, `icmp-invalid`.
    kind: String,
    proto: String,
    uid: u32,
    gid: u32,
    src: Option<IpAddr>,
    sport: u16,
    dst: IpAddr,
    dport: u16,
    #[serde(default)]
    mark: u32,
    interface: String,
    outcome: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    result: String,
    how: Option<String>,
    #[serde(rename = "where")]
    place: Option<String>,
    port: Option<u16>,
    #[serde(default)]
    mark: Vec<u32>,
    #[serde(default)]
    conntrack: Vec<String>,
}

#[test]
#[ignore = "reads files of others: make test"]
fn what_is_explained_is_what_happens() {
    if !inside("what_is_explained_is_what_happens") {
        return;
    }
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/probes.py");
    let output = Command::new("python3").arg(driver).arg(folder()).output();
    let output = output.expect("python3 runs: apt-get install python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Case> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(cases.len(), 25);
    let (mut probes, mut wrong, mut ways) = (0, Vec::new(), BTreeMap::new());
    for case in &cases {
        let plan = RedirectPlan::new(&settings(case));
        for probe in &case.probes {
            let trace = trace(&plan, &probe.packet());
            probes += 1;
            *ways.entry(format!("{:?}", trace.way)).or_insert(0) += 1;
            if let Err(what) = probe.judge(&plan, &trace) {
                wrong.push(format!("{}: {what}: {probe:?}\n  {trace:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {probes}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(probes > 15_000, "only {probes} probes");
    // Each way was gone by some.
    for way in ["Untouched", "Redirected(15001)", "Redirected(15006)", "Redirected(15053)"] {
        assert!(ways[way] > 50, "{ways:?}");
    }
    assert!(ways["Tproxied(15006)"] > 20 && ways["Dropped"] == 4, "{ways:?}");
}

fn settings(case: &Case) -> lateen_interception::Settings {
    let args = case.args.iter().map(String::as_str);
    let flags = Flags::try_parse_from(["lateen-init"].into_iter().chain(args)).unwrap();
    let around = Surroundings {
        variable: |name: &str| case.env.get(name).cloned(),
        passwd: String::new(),
        group: String::new(),
        resolv_conf: case.resolv_conf.iter().map(|ip| format!("nameserver {ip}\n")).collect(),
    };
    flags.resolve(&around).unwrap().settings
}

impl Probe {
    fn packet(&self) -> Packet {
        let interface = self.interface.clone();
        let any: IpAddr = if self.dst.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        Packet {
            origin: match self.from.as_str() {
                "pod" => Origin::Process { uid: self.uid, gid: self.gid, interface },
                _ => Origin::Network { interface },
            },
            protocol: match self.proto.as_str() {
                "tcp" => Some(Protocol::Tcp),
                "udp" => Some(Protocol::Udp),
                _ => None,
            },
            source: (self.src.unwrap_or(any), self.sport).into(),
            destination: (self.dst, self.dport).into(),
            mark: self.mark,
            tracking: if self.kind == "plain" { Tracking::New } else { Tracking::Invalid },
        }
    }

    /// Whether what was explained is what happened.
    fn judge(&self, plan: &RedirectPlan, trace: &Trace<'_>) -> Result<(), &'static str> {
        let outcome = &self.outcome;
        let (how, port) = match trace.way {
            Way::Untouched => ("direct", self.dport),
            Way::Redirected(port) => ("redirect", port),
            Way::Tproxied(port) => ("tproxy", port),
            Way::Dropped if outcome.result == "silence" => return Ok(()),
            Way::Dropped => return Err("it was not dropped"),
        };
        self.judge_connection(trace, port)?;
        let forwarded = self.from == "vm" && trace.way == Way::Untouched && self.proto == "tcp";
        match outcome.result.as_str() {
            "ok" => {}
            // Of no connection, so that nat has no part in it; who sends the reset cannot be seen.
            "rst" | "arrives" if !matches!(trace.way, Way::Redirected(_)) => return Ok(()),
            // Only the answer to a borrowed address is lost; the connection says where it went.
            "timeout" if self.mark != 0 => return Ok(()),
            "timeout" if forwarded && self.answer_is_diverted(plan) => return Ok(()),
            _ => return Err("the result is another"),
        }
        let place = outcome.place.as_deref();
        if forwarded && place != Some("pod") && self.answer_is_diverted(plan) {
            return Err("the answer came back");
        }
        // One that goes where it was going anyway cannot be told from others.
        let unseen = port == self.dport && outcome.how.as_deref() == Some("direct");
        if outcome.port != Some(port) || outcome.how.as_deref() != Some(how) && !unseen {
            return Err("it went elsewhere");
        }
        if how != "direct" && place != Some("pod") {
            return Err("it left the pod");
        }
        // Later packets of a connection may carry others.
        if place == Some("pod") && trace.mark != 0 && !outcome.mark.contains(&trace.mark) {
            return Err("mark of the packet");
        }
        Ok(())
    }

    /// Whether what comes back through the pod gets the mark whose routes end in the pod.
    fn answer_is_diverted(&self, plan: &RedirectPlan) -> bool {
        let probe = self.packet();
        let answer = Packet {
            origin: Origin::Network { interface: "eth0".to_owned() },
            source: probe.destination,
            destination: probe.source,
            tracking: Tracking::Established,
            ..probe
        };
        plan.mark_route.is_some_and(|route| trace(plan, &answer).mark == route.mark)
    }

    /// Whether zone, mark and destination are those that connection tracking has.
    fn judge_connection(&self, trace: &Trace<'_>, port: u16) -> Result<(), &'static str> {
        let (zone, mark) = (trace.zone.unwrap_or(0), trace.connection_mark);
        let redirected = matches!(trace.way, Way::Redirected(_));
        let to = if redirected { format!(">{port}") } else { String::new() };
        let expected = format!("zone {zone} mark {mark} {}{to}", self.dport);
        // What goes to the port of the probe is an answer, in a zone of its own.
        let answer = format!(" {}", self.sport);
        let mut found = self.outcome.conntrack.iter().filter(|it| !it.ends_with(&answer));
        // One in no zone, without mark and to where it was sent is not told.
        let silent = zone == 0 && mark == 0 && (!redirected || port == self.dport);
        match found.next() {
            None if silent => Ok(()),
            Some(first) if *first == expected && found.next().is_none() => Ok(()),
            _ => Err("zone, mark or destination of the connection"),
        }
    }
}
